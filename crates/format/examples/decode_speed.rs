//! How long a message takes to decode, against libraries that read the same messages.
//!
//! `cargo run --release -p ruslo-format --example decode_speed`

use std::hint::black_box;
use std::time::Instant;

use arrow::datatypes::DataType;
use ruslo_format::{JsonDecoder, JsonOptions, Position};
use ruslo_repr::Schema;
use ruslo_repr::schema::TIMESTAMP;

const MESSAGES: usize = 8192;
const ROUNDS: usize = 60;

const EVENTS: [&str; 5] = ["click", "view", "purchase", "scroll", "add_to_cart"];

fn messages(bad_every: Option<usize>) -> Vec<String> {
    let message = |i: usize| {
        let event = EVENTS[i * 7 % EVENTS.len()];
        let (user, page) = (i * 31 % 1000, i * 17 % 100);
        let mut message = format!(
            "{{\"event_timestamp\": \"2026-11-22 10:{:02}:{:02}\", \"user\": \"user{user}@example.com\", \
             \"page\": \"http://www.page-{page}.example.com/\", \"event\": \"{event}\"}}",
            i / 60 % 60,
            i % 60
        );
        if bad_every.is_some_and(|every| i.is_multiple_of(every)) {
            message.truncate(message.len() / 2);
        }
        message
    };
    (0..MESSAGES).map(message).collect()
}

/// Prints the best round's nanoseconds per message.
fn measure(name: &str, messages: &[String], mut round: impl FnMut(&[String]) -> usize) {
    let mut best = f64::INFINITY;
    let mut rows = 0;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        rows = round(messages);
        best = best.min(start.elapsed().as_nanos() as f64 / messages.len() as f64);
    }
    println!("{name:44} {best:7.1} ns/message {rows:6} rows");
}

fn decoder(columns: &[usize]) -> impl FnMut(&[String]) -> usize {
    let schema = Schema::new([
        ("event_timestamp", TIMESTAMP),
        ("user", DataType::Utf8),
        ("page", DataType::Utf8),
        ("event", DataType::Utf8),
    ]);
    let decoder = JsonDecoder::new(&schema, columns, JsonOptions::default());
    let mut decoder = decoder.expect("the columns are there");
    move |messages| {
        for (i, message) in messages.iter().enumerate() {
            let position = Position {
                partition: 0,
                offset: i as i64,
            };
            decoder.push(Some(black_box(message.as_bytes())), position);
        }
        black_box(decoder.finish()).rows
    }
}

/// What a hand-written program would do with sonic-rs for one column.
fn sonic_one_column(messages: &[String]) -> usize {
    let events = messages.iter().filter_map(|message| {
        let value: sonic_rs::LazyValue = sonic_rs::from_slice(message.as_bytes()).ok()?;
        let event = sonic_rs::get(value.as_raw_str(), ["event"]).ok()?;
        black_box(event.as_raw_str().len());
        Some(())
    });
    events.count()
}

#[derive(serde::Deserialize)]
struct Event<'a> {
    #[serde(borrow)]
    event: std::borrow::Cow<'a, str>,
}

fn sonic_struct(messages: &[String]) -> usize {
    let events = messages.iter().filter_map(|message| {
        let event: Event = sonic_rs::from_slice(message.as_bytes()).ok()?;
        black_box(event.event.len());
        Some(())
    });
    events.count()
}

fn serde_struct(messages: &[String]) -> usize {
    let events = messages.iter().filter_map(|message| {
        let event: Event = serde_json::from_slice(message.as_bytes()).ok()?;
        black_box(event.event.len());
        Some(())
    });
    events.count()
}

fn main() {
    let good = messages(None);
    let bytes = good.iter().map(String::len).sum::<usize>() / good.len();
    println!("{bytes} bytes a message");
    measure("no column", &good, decoder(&[]));
    measure("event", &good, decoder(&[3]));
    measure("event_timestamp", &good, decoder(&[0]));
    measure("all four columns", &good, decoder(&[0, 1, 2, 3]));
    let bad = messages(Some(100));
    measure("event, 1 % broken", &bad, decoder(&[3]));
    measure("all four columns, 1 % broken", &bad, decoder(&[0, 1, 2, 3]));
    measure("sonic-rs lazily, event", &good, sonic_one_column);
    measure("sonic-rs into a struct, event", &good, sonic_struct);
    measure("serde_json into a struct, event", &good, serde_struct);
}
