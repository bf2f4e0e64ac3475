//! SUBSCRIBE: a relation's rows at one time, and then what changes.
//!
//! ```text
//!  workers ──SinkChanges──> pending ──(visible, all workers)──> net change ──steps──> client
//!                             rows at the first time ───────────────────────┘
//! ```
//!
//! A subscriber is shown only what is visible to everybody, so nothing it gets is ever taken back,
//! and whole times only. A client that reads slowly gets fewer and larger steps: changes that it
//! has not been sent are added up, and what came and went meanwhile is left out. When even that
//! takes too much memory its subscription ends with an error; nobody else waits for it.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arrow::array::{ArrayRef, BooleanArray, Int64Array, new_null_array};
use arrow::datatypes::DataType;
use arrow::record_batch::RecordBatch;
use ruslo_repr::row::batch_of;
use ruslo_repr::schema::Column;
use ruslo_repr::{CountedRows, Diff, Error, ErrorKind, ObjectId, Result, RowBytes, Schema, Time};
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval};

use crate::coordinator::{Coordinator, PeekTarget, ReadHold, Request, RowChanges, SinkChanges};
use crate::layout::Layout;

/// Rows in one batch at most.
const BATCH_ROWS: usize = 8192;
/// How often a subscriber that wants to know is told that nothing changed.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);
/// Bytes that a changed row takes beside its values.
const ROW_BYTES: usize = 96;
/// The part of the memory limit that waiting changes of all subscriptions may take.
const PART_OF_LIMIT: u64 = 16;
/// The same in bytes where there is no limit.
const BYTES_MAX: u64 = 256 << 20;

/// What all subscriptions take together.
#[derive(Default)]
pub(crate) struct Subscriptions {
    open: AtomicUsize,
    /// Bytes of changes that clients have not taken yet.
    bytes: AtomicUsize,
}

impl Subscriptions {
    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Whether `bytes` of one are more than its share while all together take too much.
    fn is_too_much(&self, bytes: usize) -> bool {
        let limit = ruslo_memory::usage().limit;
        let most = limit.map_or(BYTES_MAX, |limit| limit / PART_OF_LIMIT) as usize;
        self.bytes() > most && bytes > most / self.open().max(1)
    }
}

/// What is subscribed to, and how.
pub(crate) struct SubscriptionConfig {
    /// A new id: the subscription is a sink of the dataflow.
    pub(crate) id: ObjectId,
    pub(crate) from: ObjectId,
    /// The relation's name, for errors.
    pub(crate) name: String,
    pub(crate) schema: Schema,
    pub(crate) layout: Layout,
    /// The rows are those of this or a later time.
    pub(crate) at_least: Time,
    pub(crate) snapshot: bool,
    pub(crate) progress: bool,
    pub(crate) workers: usize,
}

/// The rows of a subscription as they come, without end.
///
/// The columns are `ruslo_time` (bigint, milliseconds since 1970), with PROGRESS
/// `ruslo_progressed` (boolean), `ruslo_diff` (bigint, how many more or fewer of the row there
/// are), and the relation's. Times grow. A row with `ruslo_progressed` says that all changes up to
/// its time have been sent; its other columns are NULL.
pub struct Subscription {
    schema: Schema,
    layout: Layout,
    progress: bool,
    steps: mpsc::Receiver<Result<Step>>,
    left: Option<Left>,
    cancelled: watch::Receiver<u64>,
}

/// All rows at a time, or all changes between the time of the step before and this one's.
struct Step {
    time: Time,
    rows: CountedRows,
}

/// A step of which rows before `next` were given out.
struct Left {
    step: Step,
    next: usize,
}

impl std::fmt::Debug for Subscription {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Subscription({:?})", self.schema)
    }
}

/// The columns of a subscription to a relation with these.
pub(crate) fn subscription_schema(relation: &Schema, progress: bool) -> Schema {
    let progressed = progress.then_some(("ruslo_progressed", DataType::Boolean));
    let own = [("ruslo_time", DataType::Int64)].into_iter();
    let own = own.chain(progressed);
    let own = own.chain([("ruslo_diff", DataType::Int64)]);
    let own = own.map(|(name, ty)| Column {
        name: name.to_string(),
        ty,
    });
    Schema {
        columns: own.chain(relation.columns.iter().cloned()).collect(),
    }
}

impl Subscription {
    /// Begins; `cancelled` changes when the statement is to end.
    pub(crate) fn start(
        config: SubscriptionConfig,
        coordinator: Coordinator,
        all: Arc<Subscriptions>,
        cancelled: watch::Receiver<u64>,
    ) -> Subscription {
        let (changes, receive) = mpsc::unbounded_channel();
        coordinator.send(Request::CreateSink {
            id: config.id,
            from: config.from,
            at_least: config.at_least,
            changes,
        });
        all.open.fetch_add(1, Ordering::Relaxed);
        let (send, steps) = mpsc::channel(1);
        let feed = Feed {
            id: config.id,
            from: config.from,
            name: config.name,
            at_least: config.at_least,
            snapshot: config.snapshot,
            progress: config.progress,
            visible: coordinator.visible(),
            coordinator,
            changes: receive,
            uppers: vec![0; config.workers],
            pending: vec![],
            net: HashMap::new(),
            bytes: 0,
            taken: 0,
            told: 0,
            all,
        };
        tokio::spawn(feed.run(send));
        Subscription {
            schema: subscription_schema(&config.schema, config.progress),
            layout: config.layout,
            progress: config.progress,
            steps,
            left: None,
            cancelled,
        }
    }

    pub fn schema(&self) -> &Schema {
        &self.schema
    }

    /// Forgets that it was to end: what was cancelled is over.
    pub fn resume(&mut self) {
        self.cancelled.mark_unchanged();
    }

    /// The next rows, however long they take to come. It is an error when no more can come.
    ///
    /// Dropping the future loses nothing.
    pub async fn next(&mut self) -> Result<RecordBatch> {
        loop {
            if let Some(left) = self.left.take()
                && let Some(batch) = self.give_out(left)?
            {
                return Ok(batch);
            }
            let step = tokio::select! {
                biased;
                Ok(()) = self.cancelled.changed() => {
                    let message = "canceling statement due to user request";
                    return Err(Error::new(ErrorKind::Cancelled, message));
                }
                step = self.steps.recv() => step,
            };
            let step = step.unwrap_or_else(|| {
                let message = "the subscription has ended";
                Err(Error::new(ErrorKind::InvalidState, message))
            })?;
            self.left = Some(Left { step, next: 0 });
        }
    }

    /// Some rows of a step, or that it is at its end where the client wants to know.
    fn give_out(&mut self, mut left: Left) -> Result<Option<RecordBatch>> {
        let Step { time, rows } = &left.step;
        let some = left.next..rows.len().min(left.next + BATCH_ROWS);
        if some.is_empty() {
            return self.progress.then(|| self.progressed(*time)).transpose();
        }
        let len = some.len();
        let changes = some.clone().map(|i| (rows.row(i), rows.diffs()[i]));
        let mut decoded = self.layout.decode_changes(changes)?.columns().to_vec();
        let mut columns: Vec<ArrayRef> = vec![Arc::new(Int64Array::from_value(*time as i64, len))];
        if self.progress {
            columns.push(Arc::new(BooleanArray::from(vec![false; len])));
        }
        columns.extend(decoded.pop());
        columns.extend(decoded);
        left.next = some.end;
        self.left = Some(left);
        batch_of(&self.schema, columns, len).map(Some)
    }

    fn progressed(&self, time: Time) -> Result<RecordBatch> {
        let mut columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from_value(time as i64, 1)),
            Arc::new(BooleanArray::from(vec![true])),
        ];
        let others = self.schema.columns[columns.len()..].iter();
        columns.extend(others.map(|column| new_null_array(&column.ty, 1)));
        batch_of(&self.schema, columns, 1)
    }
}

/// What goes on for a subscription whether its client reads or not.
struct Feed {
    id: ObjectId,
    from: ObjectId,
    name: String,
    at_least: Time,
    snapshot: bool,
    progress: bool,
    coordinator: Coordinator,
    visible: watch::Receiver<Time>,
    changes: mpsc::UnboundedReceiver<SinkChanges>,
    uppers: Vec<Time>,
    /// Changes of times that are not visible yet.
    pending: Vec<(RowBytes, Time, Diff)>,
    /// Changes up to `taken` that are not sent yet.
    net: HashMap<RowBytes, Diff>,
    /// Bytes of both.
    bytes: usize,
    taken: Time,
    /// Everything up to this time was sent.
    told: Time,
    all: Arc<Subscriptions>,
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.set_bytes(0);
        self.all.open.fetch_sub(1, Ordering::Relaxed);
        self.coordinator.send(Request::Drop(vec![self.id]));
    }
}

impl Feed {
    async fn run(mut self, steps: mpsc::Sender<Result<Step>>) {
        let ended = tokio::select! {
            () = steps.closed() => return,
            Err(error) = self.go(&steps) => error,
            else => return,
        };
        // Nothing is kept while the client has yet to hear of it.
        drop(self);
        let _ = steps.send(Err(ended)).await;
    }

    async fn go(&mut self, steps: &mpsc::Sender<Result<Step>>) -> Result<()> {
        let Ok(permit) = steps.reserve().await else {
            return Ok(());
        };
        permit.send(Ok(self.begin().await?));
        let mut tick = interval(PROGRESS_INTERVAL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut progress_due = false;
        loop {
            let due = !self.net.is_empty() || progress_due && self.taken > self.told;
            tokio::select! {
                change = self.changes.recv() => self.receive(change)?,
                changed = self.visible.changed() => {
                    changed.map_err(|_| self.coordinator.gone())?;
                }
                _ = tick.tick(), if self.progress => progress_due = true,
                permit = steps.reserve(), if due => {
                    let Ok(permit) = permit else {
                        return Ok(());
                    };
                    permit.send(Ok(self.step()));
                    progress_due = false;
                }
            }
            self.take();
        }
    }

    /// Waits until it is known which changes will be told, and reads what was there before.
    async fn begin(&mut self) -> Result<Step> {
        while self.uppers.contains(&0) {
            let change = self.changes.recv().await;
            self.receive(change)?;
        }
        let uppers = self.uppers.iter().copied().min().unwrap_or(0);
        let at_least = self.at_least.max(uppers.saturating_sub(1));
        let read = |reply| Request::Read { at_least, reply };
        let hold = self.coordinator.ask(read).await?;
        let rows = match self.snapshot {
            true => self.read(&hold).await?,
            false => CountedRows::default(),
        };
        self.taken = hold.time;
        self.told = hold.time;
        self.pending.retain(|(_, time, _)| *time > hold.time);
        self.set_bytes(bytes_of(&self.pending));
        Ok(Step {
            time: hold.time,
            rows,
        })
    }

    /// All rows; the changes go on meanwhile.
    async fn read(&mut self, hold: &ReadHold) -> Result<CountedRows> {
        let target = PeekTarget {
            id: self.from,
            errors: false,
            keys: None,
            limit: None,
            portion: None,
        };
        let coordinator = self.coordinator.clone();
        let mut rows = pin!(coordinator.peek(target, hold));
        loop {
            tokio::select! {
                rows = &mut rows => return rows,
                change = self.changes.recv() => self.receive(change)?,
            }
        }
    }

    fn receive(&mut self, change: Option<SinkChanges>) -> Result<()> {
        let change = change.ok_or_else(|| match self.coordinator.is_gone() {
            true => self.coordinator.gone(),
            false => {
                let message = format!("relation \"{}\" was dropped", self.name);
                Error::new(ErrorKind::UndefinedTable, message)
            }
        })?;
        self.set_bytes(self.bytes + bytes_of(&change.updates));
        self.pending.extend(change.updates);
        let upper = &mut self.uppers[change.worker];
        *upper = (*upper).max(change.upper);
        match self.all.is_too_much(self.bytes) {
            true => Err(self.too_slow()),
            false => Ok(()),
        }
    }

    /// Adds up what has become visible.
    fn take(&mut self) {
        let uppers = self.uppers.iter().copied().min().unwrap_or(0);
        let until = uppers
            .saturating_sub(1)
            .min(*self.visible.borrow_and_update());
        if until <= self.taken {
            return;
        }
        self.taken = until;
        let mut less = 0;
        let net = &mut self.net;
        self.pending.retain_mut(|(row, time, diff)| {
            if *time > until {
                return true;
            }
            let bytes = row.len() + ROW_BYTES;
            match net.entry(std::mem::take(row)) {
                Entry::Vacant(entry) => drop(entry.insert(*diff)),
                Entry::Occupied(mut entry) => {
                    less += bytes;
                    *entry.get_mut() += *diff;
                    if *entry.get() == 0 {
                        less += bytes;
                        entry.remove();
                    }
                }
            }
            false
        });
        self.set_bytes(self.bytes - less);
    }

    /// What is to be sent. Rows that go come first, so that who keeps rows by key is right.
    fn step(&mut self) -> Step {
        let mut changes: RowChanges = self.net.drain().collect();
        changes.sort_unstable_by(|(a, m), (b, n)| (*m > 0, a).cmp(&(*n > 0, b)));
        let mut rows = CountedRows::default();
        for (row, diff) in &changes {
            rows.push(row, &[], *diff);
        }
        self.net.shrink_to(BATCH_ROWS);
        self.set_bytes(bytes_of(&self.pending));
        self.told = self.taken;
        Step {
            time: self.taken,
            rows,
        }
    }

    fn set_bytes(&mut self, bytes: usize) {
        let before = std::mem::replace(&mut self.bytes, bytes);
        match bytes >= before {
            true => self.all.bytes.fetch_add(bytes - before, Ordering::Relaxed),
            false => self.all.bytes.fetch_sub(before - bytes, Ordering::Relaxed),
        };
    }

    fn too_slow(&self) -> Error {
        let message = "the client reads more slowly than the relation changes";
        let detail = format!(
            "{} MiB of changes of \"{}\" are waiting to be sent.",
            self.bytes.div_ceil(1 << 20),
            self.name
        );
        let hint = "Read faster, SUBSCRIBE to a smaller view, or raise --memory-limit.";
        let error = Error::new(ErrorKind::OutOfMemory, message);
        error.with_detail(detail).with_hint(hint)
    }
}

fn bytes_of(updates: &[(RowBytes, Time, Diff)]) -> usize {
    let bytes = updates.iter().map(|(row, _, _)| row.len() + ROW_BYTES);
    bytes.sum()
}
