//! The ceiling: every message of a topic taken in batches and dropped.
//!
//! `raw_consume BROKERS TOPIC [key=value …]`

use anyhow::{Context, Result};
use bench::consume::read_topic;
use bench::usage::Run;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> Result<()> {
    let run = Run::new();
    let mut arguments = std::env::args().skip(1);
    let brokers = arguments
        .next()
        .context("usage: raw_consume BROKERS TOPIC [key=value …]")?;
    let topic = arguments.next().context("a topic is missing")?;
    let properties = bench::properties(arguments)?;
    let mut bytes = 0;
    let events = read_topic(&brokers, &topic, &properties, |payload| {
        bytes += payload.len()
    })?;
    run.report(events, &[("bytes", bytes as u64)])
}
