//! Writing to Redis: strings set and deleted, in pipelined batches that may be repeated.

mod options;
mod writer;

pub use options::{RedisOptions, SinkEncode, SinkFormat, ValueType};
pub use writer::{RedisOp, RedisWriter, SinkError, SinkState};
