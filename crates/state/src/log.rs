//! The binding log: what happened at each time, durable before the time is seen.
//!
//! ```text
//!   close ──> offsets, rows, DDL of a time ──append──> durable ──> the time may become visible
//!                                                        │
//!   crash ──> last checkpoint at T ──> read_after(T) ────┘ the same times hold the same data
//! ```
//!
//! A [`Record`] is everything of one time; it is there as a whole or not at all. Records sit in
//! *segments*: files that grow in a local folder ([`FileLog`]), objects that are put once in a
//! bucket ([`ObjectLog`]). Both hold the same bytes (see `docs/storage.md`).
//!
//! **Contract of an append that fails.** When the error [can be retried](Error::can_retry), give
//! the same records again before any others: a bucket may have stored them although its answer
//! was lost. With any other error nothing may be appended until the store is opened anew. A record
//! whose append failed may be there after a crash, as with any database whose answer is lost.

mod file;
mod folder;
mod object;
mod segment;
mod shared;
mod visitor;

use arrow_array::RecordBatch;
use async_trait::async_trait;
use futures::future::BoxFuture;
use std::collections::BTreeMap;

use crate::Time;
use crate::error::{Error, Result};

pub use file::{FileLog, LogSizes, TornTail};
pub use folder::{DiskFolder, LogFile, LogFolder};
pub use object::ObjectLog;
pub(crate) use visitor::{LogVisitor, check_version};

/// Partition → next offset, for each source.
pub type Offsets = BTreeMap<u64, BTreeMap<i32, i64>>;

/// Everything that happened at one time.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    pub time: Time,
    pub entries: Vec<Entry>,
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Entry {
    /// How far sources were read: for each source that moved, each partition's next offset.
    Binding { offsets: Offsets },
    /// Rows written to a table (or by a source that cannot be read again): the row columns, then
    /// `diff` as Int64.
    Rows { table: u64, updates: RecordBatch },
    /// A statement or catalog change, opaque here; it should carry a version of its own.
    Catalog { change: serde_json::Value },
}

/// An append-only sequence of records with growing times.
#[async_trait]
pub trait BindingLog: Send {
    /// Makes records durable, all of them or none; their times must grow.
    ///
    /// Local logs block the calling thread for a write and an fdatasync (0.25 ms to some
    /// milliseconds): call them where that does no harm, as on a thread of their own.
    async fn append(&mut self, records: &[Record]) -> Result<()>;

    /// Lets go of records of times before `time`, and starts a new segment if that is due.
    ///
    /// Call it with the last checkpoint's time + 1, or earlier while a hydration still needs
    /// bindings. Space is freed by whole segments. What it returns deletes them in a bucket, which
    /// can take long: appends may go on beside it, and one at a time may be under way. An error
    /// does no harm, nor does dropping it: call again some time.
    fn truncate_before(&mut self, time: Time) -> BoxFuture<'static, Result<()>>;

    /// The time of the last durable record, or of the checkpoint the log began with.
    fn last_time(&self) -> Time;

    /// Reads the records of times after `time` that are durable now. Truncation leaves them alone
    /// while the reader lives; appends go on beside it.
    fn read_after(&self, time: Time) -> Box<dyn LogReader>;

    /// Bytes the log takes now.
    fn bytes(&self) -> u64;
}

/// Reads a log from one time to what was durable when the reader was made. Holds one segment in
/// memory at a time.
#[async_trait]
pub trait LogReader: Send {
    /// The next record; None at the end. After an error that can be retried, ask again.
    async fn next(&mut self) -> Result<Option<Record>>;

    /// The file or object that the last record came from.
    fn place(&self) -> String;
}

/// Fails unless the times of `records` grow from after `last`.
fn check_times(last: Time, records: &[Record]) -> Result<()> {
    let mut last = last;
    for record in records {
        if record.time <= last {
            return Err(Error::InvalidUse(format!(
                "time {} was given to the log after time {last}",
                record.time
            )));
        }
        last = record.time;
    }
    Ok(())
}
