//! The article's view by hand: batches, decoded and counted in one loop.
//!
//! `hand_count BROKERS TOPIC PARSER [key=value …]`, where PARSER is `serde_json` or `sonic-rs`.

use anyhow::{Context, Result};
use bench::consume::read_topic;
use bench::count::{Counts, Parser};
use bench::usage::Run;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> Result<()> {
    let run = Run::new();
    let mut arguments = std::env::args().skip(1);
    let brokers = arguments
        .next()
        .context("usage: hand_count BROKERS TOPIC PARSER [key=value …]")?;
    let topic = arguments.next().context("a topic is missing")?;
    let name = arguments.next().context("a parser is missing")?;
    let known = Parser::ALL.into_iter().find(|(known, _)| *known == name);
    let (_, parser) = known.with_context(|| format!("unknown parser '{name}'"))?;
    let properties = bench::properties(arguments)?;
    let mut counts = Counts::default();
    let events = read_topic(&brokers, &topic, &properties, |payload| {
        counts.add(payload, parser);
    })?;
    run.report(events, &[("undecodable", counts.undecodable)])?;
    for (event, count) in counts.events() {
        println!("{event} {count}");
    }
    Ok(())
}
