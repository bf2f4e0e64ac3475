//! Everything that talks to systems outside: Kafka in, Redis out, and the tools to try both.
//!
//! ```text
//!   WITH (…) ──options──> kafka::KafkaOptions ──probe──> start offsets
//!                              │
//!                              └─> kafka::KafkaReader ──> one kafka::Lane per worker ──> bytes
//!   bytes ──> redis::RedisOp ──> redis::RedisWriter ──> SET / DEL, pipelined and retried
//!   generate::run ──> Kafka            mock::MockBroker: a broker that needs nothing installed
//! ```
//!
//! Bytes go in and out as they are: what they mean is the `format` crate's business. This crate
//! hides `rdkafka` and `redis` from all others. Secrets come in as options and leave only to the
//! system that asked for them: they are held as [`Secret`] and scrubbed from every error.

pub mod generate;
pub mod kafka;
pub mod mock;
mod options;
pub mod redis;

pub use options::Secret;
