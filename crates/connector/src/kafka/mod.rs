//! Reading Kafka topics.
//!
//! A source is one [`KafkaReader`] in each process: one librdkafka client, whose partitions are
//! split over as many [`Lane`]s as there are workers (partition `p` belongs to lane `p % lanes`).
//!
//! ```text
//!   brokers ══> librdkafka ──> queue of lane 0 ──> Lane::poll ──> worker 0
//!                    │    └──> queue of lane 1 ──> Lane::poll ──> worker 1
//!                    └──> events (errors, logs) ──> the reader's own thread: status, new
//!                         partitions, positions that retention ran over
//! ```
//!
//! Offsets live with the caller: a reader is told where to start and says where it is, joins no
//! consumer group and commits nothing. It never chooses a position by itself: what it could not
//! read is handed out as a [`Gap`].

mod client;
mod ffi;
mod identity;
mod lane;
mod options;
mod probe;
mod reader;
mod shared;
mod waits;

pub use ffi::Message;
pub use identity::TopicId;
pub use lane::{Lane, LaneError};
pub use options::{KafkaOptions, StartPosition};
pub use probe::{Probed, probe, watermarks};
pub use reader::KafkaReader;
pub use shared::{Gap, GapReason, PartitionStatus, ReaderState, ReaderStatus};

pub(crate) use client::{Events, base_config, preflight, set_trust_store};

/// The next offset to read, per partition.
pub type StartOffsets = std::collections::BTreeMap<i32, i64>;
