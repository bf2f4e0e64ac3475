//! The command line of `ruslo`.
//!
//! A setting is looked for in this order: flag, environment variable (`RUSLO_*`), the TOML file
//! named by `--config`, the default.

mod demo;
mod generate;
mod run;
mod script;
mod serve;
mod settings;
mod table;

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

pub use serve::Running;
pub use settings::{ServerArgs, Settings};

/// A streaming SQL database: Kafka in, materialized views kept up to date, Redis out.
#[derive(Debug, Parser)]
#[command(name = "ruslo", version, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

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
    /// Send made-up events to a Kafka topic.
    Generate(generate::GenerateArgs),
    /// Watch a whole pipeline run: generator, Kafka, views, Redis.
    Demo(demo::DemoArgs),
}

/// Parses the command line, runs the command, and turns its result into an exit status.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match dispatch(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ruslo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(command: Command) -> Result<()> {
    match command {
        Command::Serve(args) => {
            let settings = args.server.settings()?;
            start_logging(&settings.log)?;
            runtime()?.block_on(serve::serve(settings))
        }
        Command::Run(args) => {
            let settings = args.server.settings()?;
            start_logging(&settings.log)?;
            runtime()?.block_on(run::run(args, settings))
        }
        Command::Generate(args) => {
            start_logging("warn")?;
            runtime()?.block_on(generate::generate(args))
        }
        Command::Demo(args) => {
            let args = args.with_quiet_log();
            start_logging(&args.server.settings()?.log)?;
            runtime()?.block_on(demo::demo(args))
        }
    }
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("ruslo-io")
        .build()
        .context("cannot start the threads for input and output")
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
