//! Makes events and puts them into Kafka: the producer side of the demos and benchmarks.
//!
//! Two kinds belong together. `user-events` are clicks and scrolls of users on pages;
//! `user-profiles` holds one row about each of the same users, for joins. Users and pages come
//! from the seed, or from one fixed seed when none is given, so both kinds always agree on them.

mod names;
mod produce;
mod user_events;
mod user_profiles;

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use ruslo_repr::{Error, ErrorKind};

pub use produce::run;
pub use user_events::UserEvents;
pub use user_profiles::UserProfiles;

/// What to generate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// `event_timestamp`, `user`, `page`, `event`; no key.
    UserEvents,
    /// `user`, `country`, `plan`; the user is the key.
    UserProfiles,
}

impl EventKind {
    pub const NAMES: [&'static str; 2] = ["user-events", "user-profiles"];
}

impl FromStr for EventKind {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        match name {
            "user-events" => Ok(EventKind::UserEvents),
            "user-profiles" => Ok(EventKind::UserProfiles),
            _ => Err(Error::new(
                ErrorKind::InvalidParameter,
                format!(
                    "unknown kind '{name}': expected one of {}",
                    Self::NAMES.join(", ")
                ),
            )),
        }
    }
}

/// How fast to generate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rate {
    /// Events per second, above zero.
    PerSecond(f64),
    /// As fast as the broker takes them.
    Max,
}

impl FromStr for Rate {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        if text.eq_ignore_ascii_case("max") {
            return Ok(Rate::Max);
        }
        let rate = text
            .parse::<f64>()
            .ok()
            .filter(|rate| rate.is_finite() && *rate > 0.0);
        rate.map(Rate::PerSecond).ok_or_else(|| {
            Error::new(
                ErrorKind::InvalidParameter,
                format!("invalid rate '{text}': expected events per second above 0, or max"),
            )
        })
    }
}

#[derive(Clone)]
pub struct GenerateOptions {
    pub kind: EventKind,
    /// `host:port`, several separated by commas.
    pub brokers: String,
    pub topic: String,
    pub rate: Rate,
    /// How many events to send; `None` goes on until stopped. Profiles without a count end when
    /// every user was sent once.
    pub count: Option<u64>,
    pub users: usize,
    pub pages: usize,
    /// The same seed gives the same events, but for their timestamps.
    pub seed: Option<u64>,
    /// librdkafka's settings, with or without the prefix `properties.`, stronger than ours.
    pub properties: Vec<(String, String)>,
    /// Tell of every acknowledged message ([`Progress::Delivered`]).
    pub verbose: bool,
    /// How many partitions to give the topic if it has to be created.
    pub partitions: i32,
}

impl GenerateOptions {
    /// The defaults for everything but where to send.
    pub fn new(kind: EventKind, brokers: impl Into<String>, topic: impl Into<String>) -> Self {
        GenerateOptions {
            kind,
            brokers: brokers.into(),
            topic: topic.into(),
            rate: Rate::PerSecond(1.0),
            count: None,
            users: 1_000,
            pages: 100,
            seed: None,
            properties: Vec::new(),
            verbose: false,
            partitions: 1,
        }
    }
}

impl fmt::Debug for GenerateOptions {
    /// Leaves out the properties, which may hold a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GenerateOptions")
            .field("kind", &self.kind)
            .field("brokers", &self.brokers)
            .field("topic", &self.topic)
            .field("rate", &self.rate)
            .field("count", &self.count)
            .field("seed", &self.seed)
            .finish_non_exhaustive()
    }
}

/// What [`run`] tells while it runs.
#[derive(Clone, Debug)]
pub enum Progress {
    /// About once a second.
    Totals {
        sent: u64,
        acked: u64,
        elapsed: Duration,
    },
    /// One message that the broker has, in verbose runs.
    Delivered(Delivery),
    /// Something went wrong that may pass; sending goes on.
    Trouble(String),
}

/// An acknowledged message. Its `Display` is what the article's script prints about it.
#[derive(Clone, Debug)]
pub struct Delivery {
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
    pub payload: String,
}

impl fmt::Display for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Delivery {
            topic,
            partition,
            offset,
            payload,
        } = self;
        writeln!(
            f,
            " [x] Sent RecordMetadata(topic='{topic}', partition={partition}, offset={offset})"
        )?;
        write!(f, " [x] Payload {payload}")
    }
}

/// What a run came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Handed to the client.
    pub sent: u64,
    /// Acknowledged by the broker, each exactly once in the topic.
    pub acked: u64,
    /// Given up by the client; these may or may not be in the topic.
    pub failed: u64,
    /// The acknowledged ones by event (or by plan, for profiles).
    pub per_event: BTreeMap<String, u64>,
    pub elapsed: Duration,
}
