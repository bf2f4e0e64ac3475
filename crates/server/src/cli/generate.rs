//! `ruslo generate`: events into Kafka, as the article's script makes them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, ensure};
use ruslo_connector::generate::{EventKind, GenerateOptions, Progress, Rate, Summary, run};

use super::serve::stop_signal;
use super::table::grid;

/// Goes back to the start of the line and clears it.
const ERASE_LINE: &str = "\r\x1b[2K";

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  ruslo generate user-events --brokers localhost:9092 --topic test --rate 300
  ruslo generate user-events --brokers localhost:9092 --topic test --rate max --count 10000000
  ruslo generate user-events --brokers broker:9093 --topic test --verbose \\
    -X security.protocol=SASL_SSL -X sasl.mechanism=SCRAM-SHA-256 \\
    -X sasl.username=me -X sasl.password=secret -X ssl.ca.location=ca.pem
  ruslo generate user-profiles --brokers localhost:9092 --topic profiles --rate max")]
pub(super) struct GenerateArgs {
    /// What to generate: user-events or user-profiles (one row about each of the same users)
    #[arg(value_name = "KIND", value_parser = clap::builder::PossibleValuesParser::new(EventKind::NAMES))]
    kind: String,

    /// Kafka's addresses, separated by commas
    #[arg(long, env = "RUSLO_BROKERS", value_name = "HOST:PORT")]
    brokers: String,

    /// Made if it is missing and the broker allows it
    #[arg(long, env = "RUSLO_TOPIC", value_name = "TOPIC")]
    topic: String,

    /// Events per second, or max for all that the broker takes
    #[arg(long, default_value = "1", value_name = "N|max")]
    rate: String,

    /// End after so many events; user-profiles end by themselves after one round
    #[arg(long, value_name = "N")]
    count: Option<u64>,

    #[arg(long, default_value_t = 1000, value_name = "N")]
    users: usize,

    #[arg(long, default_value_t = 100, value_name = "N")]
    pages: usize,

    /// The same seed gives the same events, but for their time stamps
    #[arg(long, value_name = "S")]
    seed: Option<u64>,

    /// Partitions of a topic that has to be made
    #[arg(long, default_value_t = 1, value_name = "N")]
    partitions: i32,

    /// A setting of librdkafka, as sources take it behind properties. (may be repeated)
    #[arg(short = 'X', value_name = "KEY=VALUE", value_parser = property)]
    properties: Vec<(String, String)>,

    /// Print every message sent
    #[arg(long)]
    verbose: bool,
}

impl std::fmt::Debug for GenerateArgs {
    /// Leaves out the properties, which may hold a password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GenerateArgs")
            .field("topic", &self.topic)
            .finish_non_exhaustive()
    }
}

fn property(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => Ok((key.trim().into(), value.into())),
        // The text is not repeated: it may be a password.
        _ => Err("expected KEY=VALUE".into()),
    }
}

impl GenerateArgs {
    fn options(&self) -> Result<GenerateOptions> {
        ensure!(
            self.users > 0 && self.pages > 0,
            "--users and --pages must be at least 1"
        );
        let kind: EventKind = self.kind.parse()?;
        let mut options = GenerateOptions::new(kind, &self.brokers, &self.topic);
        options.rate = self.rate.parse::<Rate>().context("--rate")?;
        options.count = self.count;
        options.users = self.users;
        options.pages = self.pages;
        options.seed = self.seed;
        options.partitions = self.partitions;
        options.properties = self.properties.clone();
        options.verbose = self.verbose;
        Ok(options)
    }
}

/// Generates until done or a signal, then prints what was acknowledged.
pub(super) async fn generate(args: GenerateArgs) -> Result<()> {
    let options = args.options()?;
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = stop_signal()?;
    let on_signal = stop.clone();
    tokio::spawn(async move {
        stopped.await;
        on_signal.store(true, Ordering::Relaxed);
    });
    let live = std::io::IsTerminal::is_terminal(&std::io::stderr()) && !options.verbose;
    let generating = move || run(&options, &stop, |progress| tell(progress, live));
    let summary = tokio::task::spawn_blocking(generating).await??;
    if live {
        eprint!("{ERASE_LINE}");
    }
    println!("{}", describe(&summary));
    ensure!(
        summary.failed == 0,
        "{} events were not acknowledged by Kafka",
        summary.failed
    );
    Ok(())
}

fn tell(progress: Progress, live: bool) {
    match progress {
        Progress::Delivered(delivery) => println!("{delivery}"),
        Progress::Trouble(trouble) => eprintln!("ruslo: {trouble}"),
        Progress::Totals {
            sent,
            acked,
            elapsed,
        } if live => {
            let rate = acked as f64 / elapsed.as_secs_f64().max(0.001);
            eprint!("{ERASE_LINE}{sent} sent, {acked} acknowledged, {rate:.0} events/s");
        }
        Progress::Totals { .. } => {}
    }
}

/// The summary as a table with its totals.
pub(super) fn describe(summary: &Summary) -> String {
    let counts = summary.per_event.iter();
    let rows: Vec<Vec<String>> = counts
        .map(|(event, count)| vec![event.clone(), count.to_string()])
        .collect();
    let seconds = summary.elapsed.as_secs_f64();
    format!(
        "{}{} events acknowledged in {seconds:.1} s, {:.0} events/s",
        grid(&["event", "acknowledged"], &[false, true], &rows),
        summary.acked,
        summary.acked as f64 / seconds.max(0.001)
    )
}
