//! The command line of `ruslo`.
//!
//! A setting is looked for in this order: flag, environment variable (`RUSLO_*`), the TOML file
//! named by `--config`, the default.

mod backup;
mod demo;
mod generate;
mod run;
mod script;
mod serve;
mod settings;
mod table;

use std::future::Future;
use std::io::Write;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

pub use serve::Running;
pub use settings::{Memory, ServerArgs, Settings};

/// A streaming SQL database: Kafka in, materialized views kept up to date, Redis out.
#[derive(Debug, Parser)]
#[command(name = "ruslo", version, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// How long threads may take that still run when a command has ended.
const LEFTOVERS: Duration = Duration::from_secs(2);

const EXAMPLES: &str = "\
Examples:
  ruslo serve                          start the server on the default ports
  psql -h localhost -p 4566 -d dev -U root
                                       connect to it
  ruslo run pipeline.sql               start it with a pipeline and keep serving
  ruslo demo                           see a pipeline run; needs only redis-server
";

#[derive(Debug, Subcommand)]
enum Command {
    /// Start the server.
    Serve(serve::ServeArgs),
    /// Start the server, execute a file of SQL statements, keep serving.
    Run(run::RunArgs),
    /// Copy everything a server keeps to another place, while it runs or not.
    Backup(backup::BackupArgs),
    /// Copy a backup to an empty folder or bucket, for a server to start on.
    Restore(backup::RestoreArgs),
    /// Send made-up events to a Kafka topic.
    Generate(generate::GenerateArgs),
    /// Watch a whole pipeline run: generator, Kafka, views, Redis.
    Demo(demo::DemoArgs),
}

/// Parses the command line, runs the command, and ends the process with its exit status.
pub fn main() -> ! {
    forget_empty_settings();
    let cli = Cli::parse();
    let status = match dispatch(cli.command) {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("ruslo: {error:#}");
            let known = error
                .chain()
                .find_map(|e| e.downcast_ref::<ruslo_engine::Error>());
            let known = known.map(|error| [("DETAIL", &error.detail), ("HINT", &error.hint)]);
            for (label, text) in known.into_iter().flatten() {
                if let Some(text) = text {
                    eprintln!("{label}: {text}");
                }
            }
            1
        }
    };
    leave(status)
}

/// Ends the process without what libraries do at exit: threads of Kafka's client may still run,
/// and must not find OpenSSL taken down under them.
pub(super) fn leave(status: i32) -> ! {
    _ = std::io::stdout().flush();
    _ = std::io::stderr().flush();
    // SAFETY: takes no memory that anything else owns.
    unsafe { libc::_exit(status) }
}

fn dispatch(command: Command) -> Result<()> {
    match command {
        Command::Serve(args) => {
            let settings = args.server.settings(true)?;
            start_logging(&settings.log)?;
            run_to_end(serve::serve(settings))
        }
        Command::Run(args) => {
            let settings = args.server.settings(false)?;
            start_logging(&settings.log)?;
            run_to_end(run::run(args, settings))
        }
        Command::Backup(args) => {
            start_logging("warn")?;
            run_to_end(backup::backup(args))
        }
        Command::Restore(args) => {
            start_logging("warn")?;
            run_to_end(backup::restore(args))
        }
        Command::Generate(args) => {
            start_logging("warn")?;
            run_to_end(generate::generate(args))
        }
        Command::Demo(args) => {
            let args = args.with_quiet_log();
            start_logging(&args.server.settings(false)?.log)?;
            run_to_end(demo::demo(args))
        }
    }
}

/// For expressions a thousand levels deep; pages are taken only as they are touched.
const STACK_BYTES: usize = 64 << 20;

/// An empty variable, as compose files like to set it, counts as none.
fn forget_empty_settings() {
    let empty = std::env::vars_os().filter(|(name, value)| {
        value.is_empty() && name.to_str().is_some_and(|name| name.starts_with("RUSLO_"))
    });
    for (name, _) in empty.collect::<Vec<_>>() {
        // SAFETY: called first thing in main, while there is no other thread.
        unsafe { std::env::remove_var(name) };
    }
}

/// Runs a command. Threads that hang in a library when it has ended are left behind.
fn run_to_end(command: impl Future<Output = Result<()>>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("ruslo-io")
        // A query of several partitions computes each in a task of its own.
        .thread_stack_size(STACK_BYTES)
        .build()
        .context("cannot start the threads for input and output")?;
    let result = runtime.block_on(command);
    runtime.shutdown_timeout(LEFTOVERS);
    result
}

/// Logs to standard error; `filter` is a `tracing` filter such as `info,ruslo_engine=debug`.
fn start_logging(filter: &str) -> Result<()> {
    let filter = EnvFilter::try_new(filter)
        .with_context(|| format!("--log: \"{filter}\" is no log filter; try info or debug"))?;
    let colours = std::io::IsTerminal::is_terminal(&std::io::stderr());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(colours)
        .try_init()
        .map_err(|error| anyhow::anyhow!("cannot start logging: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
