//! The front doors of Ruslo: the Postgres protocol, HTTP and the command line.
//!
//! The binary `ruslo` is [`cli::main`]; it is a library too so that tests can start a whole
//! server in their own process. Nothing here knows how views are computed: everything goes
//! through [`ruslo_engine::Engine`] and its sessions.

pub mod cli;
pub mod http;
pub mod pgwire;
mod shutdown;

pub use shutdown::Shutdown;
