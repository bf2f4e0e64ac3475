//! `ruslo run FILE.sql`: a server that starts with the statements of a file.

use std::path::PathBuf;

use anyhow::{Context, Result, anyhow};
use ruslo_engine::{Error, ErrorKind, Outcome, Session};
use ruslo_repr::text::TextStyle;

use super::script::{self, Piece};
use super::serve::{Running, announce, limit_memory, stop_signal};
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
    limit_memory(&settings.memory)?;
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
            let place = format!("{name}:{}: statement {}", piece.line, i + 1);
            let mut message = format!("{place}: {}", without_source(&error, piece.sql));
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
            Outcome::Changes(mut changes) => loop {
                let batch = changes.next().await?;
                let zone = session.time_zone();
                let style = TextStyle::with_time_zone(&zone).unwrap_or_default();
                println!("{}", table(changes.schema(), &[batch], &style));
            },
            Outcome::Copy(_) => {
                let message = "COPY … TO STDOUT needs a client; use the query alone";
                return Err(Error::unsupported(message));
            }
            Outcome::Done { tag } => println!("{tag}"),
            Outcome::Empty => {}
        }
    }
    Ok(())
}

/// The error's text. A syntax error quotes the statement where it went wrong, which may be in the
/// middle of a password: that is left out where the statement has secrets.
fn without_source(error: &Error, sql: &str) -> String {
    const MARKS: [&str; 6] = ["password", "secret", "://", "pem", "jaas", "token"];
    let (message, sql) = (error.to_string(), sql.to_ascii_lowercase());
    if error.kind != ErrorKind::Syntax || !MARKS.iter().any(|mark| sql.contains(mark)) {
        return message;
    }
    match (message.find(" at or near \""), message.rfind("\" (line ")) {
        (Some(start), Some(end)) => format!("{}{}", &message[..start], &message[end + 1..]),
        _ => message,
    }
}

/// The statement's first words, to be recognised by. What may be a password or a comment is not
/// shown, and nothing behind it: where quotes do not match, anything may be inside of them.
fn first_words(sql: &str) -> String {
    let first = sql[script::content_start(sql)..].trim_end();
    let end = first.find(['\'', '(', '$', '=', '/', '-', '\n']);
    match end {
        Some(end) => format!("  {} …", first[..end].trim_end()),
        None => format!("  {first}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_statement_is_named_without_its_secrets() {
        assert_eq!(first_words("SELECT 1"), "  SELECT 1");
        assert_eq!(first_words("SELECT a\nFROM b"), "  SELECT a …");
        assert_eq!(
            first_words("/* pw */ -- pw\nCREATE SOURCE s (a int) WITH (p='pw')"),
            "  CREATE SOURCE s …"
        );
        let error = Error::new(
            ErrorKind::Syntax,
            "syntax error at or near \"hunter2\" (line 1, column 5)",
        );
        assert_eq!(
            without_source(&error, "CREATE SINK k WITH (password='hunter2"),
            "syntax error (line 1, column 5)"
        );
        for leaky in [
            "CREATE SINK k p='pw'",
            "ALTER x p = pw",
            "x -- pw",
            "x 'y, z='pw'",
        ] {
            assert!(!first_words(leaky).contains("pw"), "{leaky}");
        }
    }
}
