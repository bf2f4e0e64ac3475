//! The binary `ruslo`; see [`ruslo_server::cli`].

#[global_allocator]
static ALLOCATOR: ruslo_memory::Allocator = ruslo_memory::Allocator;

fn main() {
    ruslo_server::cli::main()
}
