//! Bytes to rows and rows to bytes, without I/O.
//!
//! A connector brings bytes and takes bytes; this crate knows what they mean. Everything here is
//! a pure function of its input, never panics on it, and is fuzzed.
//!
//! ```text
//!   Kafka message ── json::JsonDecoder ──> Arrow columns + decode errors
//!   RecordBatch row ── JsonEncoder, Template ──> key and value of a sink
//! ```
#![forbid(unsafe_code)]

pub mod json;
mod json_encode;
mod template;

pub use json::{DecodeError, Decoded, JsonDecoder, JsonOptions, Position, TimeMode, TimestampMode};
pub use json_encode::{JsonEncodeOptions, JsonEncoder, JsonbHandling, TimestamptzHandling};
pub use template::Template;
