//! The end of a demo that ends by itself: producer, view and Redis must say the same.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use ruslo_connector::generate::Summary;

use super::generator::Generator;
use super::live::Live;
use super::resp::RedisReader;
use crate::cli::table::grid;

const PAUSE: Duration = Duration::from_millis(100);

/// Stops the generator, waits until view and Redis have caught up, prints all three.
pub(super) async fn all_agree(
    generator: &mut Generator,
    live: &mut Live,
    redis: &mut RedisReader,
    settle: Duration,
) -> Result<()> {
    let produced = generator.finish().await?;
    let deadline = Instant::now() + settle;
    loop {
        let view = live.counts().await?;
        let keys: Vec<String> = view.keys().cloned().collect();
        let held = redis.get(&keys).await?;
        let held: BTreeMap<String, Option<String>> = keys.into_iter().zip(held).collect();
        let differences = differences(&produced, &view, &held, live);
        if differences.is_empty() || Instant::now() > deadline {
            report(&produced, &view, &held, live);
            if !differences.is_empty() {
                bail!("after {} s: {}", settle.as_secs(), differences.join("; "));
            }
            ensure!(produced.acked > 0, "no event was produced");
            println!("All agree.");
            return Ok(());
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// What does not fit, in words.
fn differences(
    produced: &Summary,
    view: &BTreeMap<String, i64>,
    held: &BTreeMap<String, Option<String>>,
    live: &Live,
) -> Vec<String> {
    let mut differences = vec![];
    if produced.failed > 0 {
        differences.push(format!(
            "{} events were not acknowledged by Kafka",
            produced.failed
        ));
    }
    let total: i64 = view.values().sum();
    if i64::try_from(produced.acked) != Ok(total) {
        differences.push(format!(
            "{} events produced, {total} in the view",
            produced.acked
        ));
    }
    if live.example().counts_as_generated() {
        for (event, &count) in &produced.per_event {
            let seen = view.get(event).copied().unwrap_or(0);
            if i64::try_from(count) != Ok(seen) {
                differences.push(format!("{event}: {count} produced, {seen} in the view"));
            }
        }
    }
    for (key, count) in view {
        let value = held.get(key).and_then(|value| value.as_deref());
        if value != Some(count.to_string().as_str()) {
            let value = value.unwrap_or("nothing");
            differences.push(format!("{key}: {count} in the view, {value} in Redis"));
        }
    }
    differences
}

fn report(
    produced: &Summary,
    view: &BTreeMap<String, i64>,
    held: &BTreeMap<String, Option<String>>,
    live: &Live,
) {
    let (name, key) = live.example().view();
    let rows = view
        .iter()
        .map(|(key, count)| vec![key.clone(), count.to_string()]);
    let rows: Vec<Vec<String>> = rows.collect();
    println!("\nSELECT {key}, count FROM {name}, over the Postgres port:");
    println!("{}", grid(&[key, "count"], &[false, true], &rows));
    let rows = held
        .iter()
        .map(|(key, value)| vec![key.clone(), value.clone().unwrap_or_default()]);
    let rows: Vec<Vec<String>> = rows.collect();
    println!("Redis:");
    println!("{}", grid(&["key", "value"], &[false, true], &rows));
    println!(
        "The producer:\n{}\n",
        crate::cli::generate::describe(produced)
    );
}
