//! How long after it was produced an event is visible in a view.
//!
//! `freshness BROKERS TOPIC POSTGRES_CONFIG VIEW EVENTS_PER_SECOND SECONDS`
//!
//! VIEW has the columns `event` and `count` over TOPIC, which is empty. Each event carries its
//! partition's number as `event` and is written to that partition, so a group's events arrive in
//! the order in which they were produced: as soon as a group's count is k, its first k are seen.
//!
//! ```text
//!   produced   p1   p2   p3   p4          one group; ages are read - produced
//!   read                    count=3   →   p1, p2 and p3 are visible now
//! ```

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bench::produce::Sender;
use tokio_postgres::{NoTls, SimpleQueryMessage};

const PARTITIONS: usize = 2;
const LINGER_MS: u32 = 1;
const TICK: Duration = Duration::from_millis(1);
/// Events of the first seconds warm the way and are not counted.
const WARM_UP: Duration = Duration::from_secs(2);
const GIVE_UP: Duration = Duration::from_secs(30);

/// When each event was produced, by partition.
type Produced = Arc<Mutex<[Vec<Instant>; PARTITIONS]>>;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [brokers, topic, postgres, view, rate, seconds] = &arguments[..] else {
        bail!("usage: freshness BROKERS TOPIC POSTGRES_CONFIG VIEW EVENTS_PER_SECOND SECONDS");
    };
    let (rate, seconds) = (rate.parse::<u64>()?, seconds.parse::<u64>()?);
    let produced = Produced::default();
    let started = Instant::now();
    let producer = std::thread::spawn({
        let sender = Sender::new(brokers, topic, LINGER_MS)?;
        let produced = Arc::clone(&produced);
        move || produce(sender, &produced, started, rate, seconds)
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let total = (rate * seconds) as usize;
    let mut ages = runtime.block_on(watch(postgres, view, &produced, started, total))?;
    producer.join().ok().context("the producer panicked")??;
    ages.sort_unstable();
    if ages.is_empty() {
        bail!(
            "no event was counted: let it run longer than {} s",
            WARM_UP.as_secs()
        );
    }
    println!(
        "p50_ms={:.1} p99_ms={:.1} max_ms={:.1} events={}",
        percentile_ms(&ages, 50),
        percentile_ms(&ages, 99),
        percentile_ms(&ages, 100),
        ages.len()
    );
    Ok(())
}

/// Sends what is due every millisecond, so that a late wake-up is made up for.
fn produce(
    sender: Sender,
    produced: &Produced,
    started: Instant,
    rate: u64,
    seconds: u64,
) -> Result<()> {
    let mut sent = 0;
    while sent < rate * seconds {
        let due = (started.elapsed().as_secs_f64() * rate as f64) as u64;
        while sent < due.min(rate * seconds) {
            let partition = sent as usize % PARTITIONS;
            let message = format!(
                "{{\"event_timestamp\": \"2026-01-01 00:00:00\", \"user\": \"u{sent}@example.com\", \
                 \"page\": \"https://www.example.com/\", \"event\": \"{partition}\"}}"
            );
            if let Ok(mut produced) = produced.lock() {
                produced[partition].push(Instant::now());
            }
            sender.send(Some(partition as i32), message.as_bytes())?;
            sent += 1;
        }
        sender.poll();
        std::thread::sleep(TICK);
    }
    sender.finish()
}

/// Reads the view until all events are in it; the age of each when it was first seen.
async fn watch(
    postgres: &str,
    view: &str,
    produced: &Produced,
    started: Instant,
    total: usize,
) -> Result<Vec<Duration>> {
    let (client, connection) = tokio_postgres::connect(postgres, NoTls).await?;
    tokio::spawn(connection);
    let query = format!("SELECT event, count FROM {view}");
    let mut seen = [0usize; PARTITIONS];
    let mut ages = Vec::with_capacity(total);
    let mut progress = Instant::now();
    while seen.iter().sum::<usize>() < total {
        let rows = client.simple_query(&query).await?;
        let now = Instant::now();
        for row in rows {
            let SimpleQueryMessage::Row(row) = row else {
                continue;
            };
            let partition: usize = row.get(0).context("event is NULL")?.parse()?;
            let count: usize = row.get(1).context("count is NULL")?.parse()?;
            let from = seen
                .get_mut(partition)
                .context("an event of somebody else")?;
            if count > *from {
                progress = now;
            }
            let produced = produced.lock().ok().context("the producer panicked")?;
            let visible = &produced[partition];
            if count > visible.len() {
                bail!(
                    "{count} events are visible, {} were produced",
                    visible.len()
                );
            }
            let counted = visible[*from..count]
                .iter()
                .filter(|at| **at - started > WARM_UP);
            ages.extend(counted.map(|at| now - *at));
            *from = count;
        }
        if progress.elapsed() > GIVE_UP {
            bail!("the view stands still at {seen:?} of {total} events");
        }
        tokio::time::sleep(TICK).await;
    }
    Ok(ages)
}

fn percentile_ms(sorted: &[Duration], percent: usize) -> f64 {
    let index = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted[index].as_secs_f64() * 1000.0
}
