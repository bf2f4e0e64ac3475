//! Durable state: collections, checkpoints and the log of what each time was bound to.
//!
//! ```text
//!  coordinator ──append──> binding log ─────────────────┐         a time may be seen once its
//!                          (segments)                   │         record is durable
//!  dataflow ──updates──> checkpoint ──> runs, manifest  │
//!                                            │          │
//!  crash ──open──> collections at T <────────┘          │
//!                  records after T  <───────────────────┘
//! ```
//!
//! A **collection** is a set of rows with diffs that add. A **checkpoint** makes what changed in
//! all collections since the last one durable, atomically: new *runs* (sorted Arrow IPC files)
//! first, then one numbered *manifest* that names all runs. The **log** holds what happened since:
//! offsets, rows of tables, DDL. [`open`] gives all of it back. `docs/storage.md` describes the
//! bytes.
//!
//! Invariants:
//! - A manifest names only files that are durable; files go only when no manifest and no reader of
//!   this process needs them. A [`copy`] made by another process must expect them to go.
//! - Two writers never both go on: each opening takes a manifest's number and, in a bucket, a
//!   number of the log that the writer before would use next.
//! - Every byte is checked before it is used. What is broken is an error that names the file.
//! - No clock is read and no random number drawn here: times and the writer's id are given.

mod backup;
mod checkpoint;
mod collection;
#[doc(hidden)]
pub mod crash;
mod error;
mod lock;
pub mod log;
mod manifest;
mod merge;
mod open;
mod order;
mod run;
pub mod sim;
mod snapshot;
mod store;
mod tiers;

pub use backup::{Copied, copy, copy_with_folder};
pub use checkpoint::{Checkpoint, Checkpoints, Sizes};
pub use collection::{Collection, DIFF, Kind, SUM_TYPE};
pub use error::{Error, Result};
pub use log::{BindingLog, Entry, LogReader, LogSizes, Offsets, Record, TornTail};
pub use open::{Glance, Opened, Options, glance, open, open_with_folder};
pub use snapshot::{CollectionStatus, Scan, Snapshot};
pub use store::Store;

/// Milliseconds since 1970, chosen by the coordinator; the same as `ruslo_repr::Time`.
pub type Time = u64;

/// The version of everything this crate writes. Other versions are refused.
pub const FORMAT_VERSION: u32 = 1;
