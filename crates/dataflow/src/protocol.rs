//! What travels between the engine and the workers.
//!
//! Commands are serialisable and assume no shared memory: a worker in another process runs the
//! same list. Every worker handles all commands in the same order, and each answers for its own
//! share of the rows.

use arrow::datatypes::DataType;
use arrow::record_batch::RecordBatch;
use ruslo_repr::{CountedRows, Diff, Error, ObjectId, Plan, RowBytes, Schema, Time};
use serde::{Deserialize, Serialize};

/// What the workers are told to do; sent to all of them in one order.
#[derive(Serialize, Deserialize, Clone, Debug)]
pub enum Command {
    /// Gives a source a live queue on every worker.
    CreateSource {
        id: ObjectId,
    },
    /// An arranged input, empty at `as_of`, which [`Command::Write`] fills.
    CreateTable {
        id: ObjectId,
        schema: Schema,
        key: Vec<usize>,
        as_of: Time,
        /// Its rows at `as_of` come by a restore queue.
        restore: bool,
    },
    /// Renders a plan; its rows are arranged by the columns `key`, in that order.
    ///
    /// For every source in `hydrate` a hydration queue will be fed; other sources start with
    /// nothing before `as_of`. With `restore` the state at `as_of` comes by restore queues, one for
    /// each of these points, and hydration queues bring what came after it.
    CreateView {
        id: ObjectId,
        name: String,
        plan: Plan,
        key: Vec<usize>,
        as_of: Time,
        hydrate: Vec<ObjectId>,
        restore: Option<Vec<DurablePoint>>,
    },
    /// Reports every change of a table or view after `as_of`.
    CreateSink {
        id: ObjectId,
        from: ObjectId,
        as_of: Time,
    },
    /// Ends a source, table, view or sink. What reads it must have been dropped before.
    Drop {
        id: ObjectId,
    },
    /// Adds to a table at the next [`Command::Close`]; rows are whole, in arranged order.
    Write {
        table: ObjectId,
        updates: Vec<(RowBytes, Diff)>,
    },
    /// Takes all that the live queues hold as of `time`, and moves every input past it.
    Close {
        time: Time,
    },
    /// Reads the rows of a table or view at `time`, once it is through that time.
    Peek {
        request: u64,
        id: ObjectId,
        time: Time,
        /// Read the view's error rows instead, see [`error_schema`].
        errors: bool,
        /// Only rows with these arranged keys.
        keys: Option<Vec<RowBytes>>,
        /// At most this many different rows from each worker.
        limit: Option<usize>,
        /// Only a part of the rows. Not together with `keys`.
        portion: Option<Portion>,
    },
    CancelPeek {
        request: u64,
    },
    /// Promises that nobody will read the object as of a time before `since` any more.
    AllowCompaction {
        id: ObjectId,
        since: Time,
    },
    /// Hands over what changed at the durable points of these objects since the checkpoint before,
    /// up to `time`; all of them are through it.
    Checkpoint {
        time: Time,
        objects: Vec<ObjectId>,
    },
    Stats {
        request: u64,
    },
    Shutdown,
}

/// A part of an arrangement's rows, which are in order.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Portion {
    /// Only rows beyond this one.
    pub after: Option<Place>,
    /// Leave off when there are so many bytes of rows, or a few more.
    pub bytes: usize,
}

/// Where a row stands in an arrangement; its bytes are those of the key, then of the value.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub key: RowBytes,
    pub value: RowBytes,
}

/// A durable place of a view or table.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct DurablePoint {
    /// Its number in the order in which the plan is rendered: the same for the same plan. 0 for a
    /// table.
    pub index: u32,
    /// For people who look into the store.
    pub name: String,
    /// The columns that tell rows apart.
    pub rows: Schema,
    /// Names of columns that add up beside the diff, each `Decimal128(38, 0)`.
    pub sums: Vec<String>,
}

/// What a worker reports. Always about this worker's own share.
#[derive(Clone, Debug)]
pub enum Response {
    /// The worker has taken its queues' content for `time`, up to these offsets.
    Closed {
        worker: usize,
        time: Time,
        offsets: Vec<(ObjectId, i32, i64)>,
    },
    /// Every hydrated table, view and sink is through `time`. Only ever grows; may skip times.
    ///
    /// A view that has just hydrated may still be behind; `time` then stands still until it
    /// has caught up, and peeks at it wait.
    Complete { worker: usize, time: Time },
    /// The view is through its as_of and from now on holds back [`Response::Complete`].
    Hydrated { worker: usize, id: ObjectId },
    /// The view's plan cannot be rendered. Nothing of it is left but what a [`Command::Drop`]
    /// takes away; everything else goes on.
    Rejected {
        worker: usize,
        id: ObjectId,
        error: Error,
    },
    /// The answer to a peek: whole rows in arranged order, each once with its count.
    Peek {
        request: u64,
        worker: usize,
        rows: CountedRows,
        /// The last of the rows, where there are more than the portion that was asked for.
        left_off: Option<Place>,
        error: Option<Error>,
    },
    /// All changes of times before `upper` that were not reported yet.
    SinkUpdates {
        worker: usize,
        id: ObjectId,
        updates: Vec<(RowBytes, Time, Diff)>,
        upper: Time,
    },
    /// Updates of a durable point: its row columns, `diff` (Int64), its sums. At a point's first
    /// checkpoint there is one even if nothing is there.
    Changes {
        worker: usize,
        time: Time,
        id: ObjectId,
        point: DurablePoint,
        updates: RecordBatch,
    },
    /// All changes for the checkpoint at `time` were sent.
    Checkpointed { worker: usize, time: Time },
    Stats {
        request: u64,
        worker: usize,
        objects: Vec<ObjectStats>,
    },
    /// The worker cannot do what it was told, or has died.
    Failed { worker: usize, error: Error },
}

/// The memory that one object's arrangements take on one worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectStats {
    pub id: ObjectId,
    /// Rows that the object has, as of what is sealed.
    pub rows: Diff,
    /// Updates in the object's own arrangement.
    pub records: usize,
    /// Estimated heap bytes of the object's own and inner arrangements.
    pub bytes: usize,
    /// Batches in the object's own arrangement.
    pub batches: usize,
}

/// The arranged order of `len` columns: those of `key`, then the others ascending.
pub fn arranged_columns(len: usize, key: &[usize]) -> Vec<usize> {
    let rest = (0..len).filter(|column| !key.contains(column));
    key.iter().copied().chain(rest).collect()
}

/// The columns of a view's error rows: the failing expression and what was wrong.
pub fn error_schema() -> Schema {
    Schema::new([("expression", DataType::Utf8), ("message", DataType::Utf8)])
}
