//! Topics that `ruslo generate` does not write.
//!
//! `fill groups BROKERS TOPIC COUNT USERS`: the article's events over exactly USERS users
//! `fill spoil BROKERS FROM TO`: a copy in which every hundredth message is cut off in its middle

use anyhow::{Context, Result, bail};
use bench::consume::read_topic;
use bench::produce::Sender;

const EVENTS: [&str; 5] = ["click", "scroll", "submit", "download", "focus"];
const LINGER_MS: u32 = 50;
const SPOILED_EVERY: u64 = 100;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["groups", brokers, topic, count, users] => {
            groups(brokers, topic, count.parse()?, users.parse()?)
        }
        ["spoil", brokers, from, to] => spoil(brokers, from, to),
        _ => bail!("usage: fill groups BROKERS TOPIC COUNT USERS | fill spoil BROKERS FROM TO"),
    }
}

/// Users come in an order without pattern, the same in every run.
fn groups(brokers: &str, topic: &str, count: u64, users: u64) -> Result<()> {
    let sender = Sender::new(brokers, topic, LINGER_MS)?;
    for i in 0..count {
        let random = mixed(i);
        let user = random % users;
        let page = (random >> 32) % 100;
        let event = EVENTS[((random >> 40) % 5) as usize];
        let message = format!(
            "{{\"event_timestamp\": \"2026-01-01 00:00:00\", \"user\": \"user{user:09}@example.com\", \
             \"page\": \"https://www.example.com/{page:03}/\", \"event\": \"{event}\"}}"
        );
        sender.send(None, message.as_bytes())?;
    }
    sender.finish()
}

fn spoil(brokers: &str, from: &str, to: &str) -> Result<()> {
    let sender = Sender::new(brokers, to, LINGER_MS)?;
    let mut failure = None;
    let mut number = 0;
    read_topic(brokers, from, &[], |payload| {
        number += 1;
        let kept = match number % SPOILED_EVERY {
            0 => payload.len() / 2,
            _ => payload.len(),
        };
        if let Err(error) = sender.send(None, &payload[..kept]) {
            failure.get_or_insert(error);
        }
    })?;
    match failure {
        Some(error) => Err(error).context("the copy was not written"),
        None => sender.finish(),
    }
}

/// SplitMix64's output function: a number without visible relation to its neighbours'.
fn mixed(number: u64) -> u64 {
    let mut z = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
