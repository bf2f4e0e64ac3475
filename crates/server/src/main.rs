//! The binary `ruslo`; see [`ruslo_server::cli`].

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    ruslo_server::cli::main()
}
