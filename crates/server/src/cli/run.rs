//! `ruslo run FILE.sql`: a server that starts with the statements of a file.

use std::path::PathBuf;

use anyhow::{Context, Result, anyhow};
use ruslo_engine::{Outcome, Session};
use ruslo_repr::text::TextStyle;

use super::script::{self, Piece};
use super::serve::{Running, announce, stop_signal};
use super::settings::{ServerArgs, Settings};
use super::table::table;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ruslo run pipeline.sql
  ruslo run --exit check.sql           end after the last statement
  echo 'SELECT 1' | ruslo run --exit -")]
pub(super) struct RunArgs {
    /// The statements to execute at start, separated by semicolons; - reads standard input
    #[arg(value_name = "FILE.sql")]
    file: PathBuf,

    /// End after the file instead of serving on
    #[arg(long)]
    exit: bool,

    #[command(flatten)]
    pub(super) server: ServerArgs,
}

/// Executes the file and serves until a signal, or ends at the first error.
pub(super) async fn run(args: RunArgs, settings: Settings) -> Result<()> {
    let name = args.file.display().to_string();
    let script = match name.as_str() {
        "-" => std::io::read_to_string(std::io::stdin()),
        _ => std::fs::read_to_string(&args.file),
    };
    let script = script.with_context(|| format!("cannot read {name}"))?;
    let stop = stop_signal()?;
    let running = Running::start(&settings).await?;
    let mut session = running.engine.session("root", "dev");
    tokio::pin!(stop);
    let mut result = tokio::select! {
        result = execute_all(&mut session, &name, &script) => result,
        () = &mut stop => {
            session.cancel_handle().cancel();
            running.stop().await;
            return Err(anyhow!("ended by a signal before all statements of {name} had run"));
        }
    };
    drop(session);
    if result.is_ok() && !args.exit {
        announce(&running);
        result = tokio::select! {
            () = stop => Ok(()),
            error = running.failed() => Err(error),
        };
    }
    running.stop().await;
    result
}

/// Executes the statements of `script` one by one; an error names the statement and its line.
async fn execute_all(session: &mut Session, name: &str, script: &str) -> Result<()> {
    for (i, piece) in script::split(script).iter().enumerate() {
        if let Err(error) = execute(session, piece).await {
            let mut message = format!("{name}:{}: statement {}: {error}", piece.line, i + 1);
            for (label, text) in [("DETAIL", &error.detail), ("HINT", &error.hint)] {
                if let Some(text) = text {
                    message.push_str(&format!("\n{label}: {text}"));
                }
            }
            return Err(anyhow!("{message}\n{}", first_words(piece.sql)));
        }
    }
    Ok(())
}

async fn execute(session: &mut Session, piece: &Piece<'_>) -> ruslo_engine::Result<()> {
    for statement in session.parse(piece.sql)? {
        let outcome = session.execute(&statement, &[], &[]).await;
        for notice in session.take_notices() {
            eprintln!("{}: {}", notice.severity, notice.message);
        }
        match outcome? {
            Outcome::Rows {
                schema, batches, ..
            } => {
                let zone = session.time_zone();
                let style = TextStyle::with_time_zone(&zone).unwrap_or_default();
                println!("{}", table(&schema, &batches, &style));
            }
            Outcome::Done { tag } => println!("{tag}"),
            Outcome::Empty => {}
        }
    }
    Ok(())
}

/// The statement's first words, to be recognised by. Nothing in quotes or brackets is shown:
/// it may be a password.
fn first_words(sql: &str) -> String {
    let lines = sql.lines().map(str::trim);
    let mut lines = lines.filter(|line| !line.is_empty() && !line.starts_with("--"));
    let first = lines.next().unwrap_or_default();
    let shown = first
        .find(['\'', '(', '$', '/', '-'])
        .unwrap_or(first.len());
    match shown < first.len() || lines.next().is_some() {
        true => format!("  {} …", first[..shown].trim_end()),
        false => format!("  {first}"),
    }
}
