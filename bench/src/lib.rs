//! What Ruslo is measured against: programs as a good engineer would write them by hand for one
//! question, on the same client library with the same settings.
//!
//! `bench/bench.py` starts brokers and programs, and prints the table.
//!
//! | program | does |
//! | --- | --- |
//! | `raw_consume` | takes every message of a topic in batches and drops it |
//! | `hand_count` | the same, and counts the messages by `event`, exactly |
//! | `fill` | writes topics that `ruslo generate` does not: many groups, broken messages |
//! | `freshness` | how long after it was produced an event is seen in a view |

pub mod consume;
pub mod count;
pub mod produce;
pub mod usage;

/// The client properties of a command line, written `key=value`.
pub fn properties(
    arguments: impl Iterator<Item = String>,
) -> anyhow::Result<Vec<(String, String)>> {
    arguments
        .map(|argument| match argument.split_once('=') {
            Some((key, value)) => Ok((key.to_string(), value.to_string())),
            None => Err(anyhow::anyhow!("'{argument}' is not of the form key=value")),
        })
        .collect()
}
