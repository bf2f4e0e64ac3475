//! How results get out: from a view's changes to the system outside.
//!
//! ```text
//!  workers ──SinkChanges──> pending ──(visible, all workers)──> net change ──> dirty keys
//!                                                                  ^              │ batches
//!              a server without its data ──> peek of the whole view┘ Redis <──────┘ with retry
//! ```
//!
//! A sink writes only what is visible to everybody, never a time that could still change. While
//! the system outside is slow or away, newer values of a key replace older ones that are not
//! under way yet, so memory is bounded by the number of keys, and what arrives in the end is the
//! view's value. A write that fails is repeated until it succeeds: at least once, never an older
//! value after a newer one.
//!
//! A server that was started anew may have lost what it held. Then all of the view is written
//! again: changes wait until the view has been read at one time, and are taken up to exactly that
//! time before its rows are added to what is to be written.

mod encoding;
mod keys;

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use arrow::record_batch::RecordBatch;
use parking_lot::Mutex;
use ruslo_connector::redis::RedisOp;
use ruslo_dataflow::arranged_columns;
use ruslo_repr::row::batch_of;
use ruslo_repr::{Diff, Error, ObjectId, Result, RowBytes, RowCodec, Schema, Time};
use ruslo_state::crash;
use tokio::sync::{mpsc, oneshot, watch};

pub(crate) use self::encoding::{Clash, Encoding};
use self::keys::{Dirty, SharedKeys};
use crate::coordinator::{Coordinator, PeekTarget, ReadHold, Request, RowChanges, SinkChanges};
use crate::host::{Answer, Writer};

/// Operations in one pipeline at most.
const BATCH_OPS_MAX: usize = 1000;
/// Rows decoded at once.
const CHUNK_ROWS: usize = 8192;
const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// How often a sink that has nothing to write looks whether the server is still the same.
const CHECK_INTERVAL: Duration = Duration::from_secs(2);

/// A sink as the catalog and `ruslo.sinks` see it.
pub(crate) struct Sink {
    pub(crate) name: String,
    pub(crate) connector: &'static str,
    pub(crate) status: Mutex<SinkStatus>,
    stop: watch::Sender<bool>,
    /// Asks the running end for its deletes, see [`Self::deletes_at`].
    ask: mpsc::UnboundedSender<DeletesAsked>,
    asked: Mutex<Option<mpsc::UnboundedReceiver<DeletesAsked>>>,
}

/// A time, and where to send the keys that go away up to it and may still be outside.
type DeletesAsked = (Time, oneshot::Sender<Vec<Vec<u8>>>);

/// Where a sink stands.
#[derive(Clone, Debug, Default)]
pub(crate) struct SinkStatus {
    /// Set while writes fail; the sink goes on trying.
    pub(crate) error: Option<String>,
    /// Every change up to this time is acknowledged by the system outside.
    pub(crate) acknowledged: Time,
    pub(crate) operations: u64,
    pub(crate) retries: u64,
    /// How often all of the view was written again, to a server that had been started anew.
    pub(crate) resends: u64,
    /// Keys that changed and are not written yet.
    pub(crate) waiting: usize,
    /// Bytes of what is not written yet, and of the rows of shared keys.
    pub(crate) bytes: usize,
}

impl Sink {
    pub(crate) fn new(name: &str) -> Sink {
        let (ask, asked) = mpsc::unbounded_channel();
        Sink {
            name: name.to_string(),
            connector: "redis",
            status: Mutex::default(),
            stop: watch::channel(false).0,
            ask,
            asked: Mutex::new(Some(asked)),
        }
    }

    /// The keys that are gone from the view at `time` and whose deletion the system outside has
    /// not acknowledged; maybe some more. None where the sink has ended.
    pub(crate) async fn deletes_at(&self, time: Time) -> Vec<Vec<u8>> {
        let (reply, deletes) = oneshot::channel();
        let _ = self.ask.send((time, reply));
        deletes.await.unwrap_or_default()
    }

    /// Ends the sink's task; what is under way may or may not arrive.
    pub(crate) fn stop(&self) {
        self.stop.send_replace(true);
    }
}

/// What an export task needs to know of its view and its sink.
pub(crate) struct ExportConfig {
    /// The view, and the first time at which it can be read.
    pub(crate) from: ObjectId,
    pub(crate) readable_from: Time,
    pub(crate) schema: Schema,
    /// The key by which the view is arranged: rows come in arranged order.
    pub(crate) arranged_by: Vec<usize>,
    pub(crate) encoding: Encoding,
    /// Whether a row that went away removes its key (UPSERT) or is passed over.
    pub(crate) deletes: bool,
    pub(crate) clash: Clash,
    pub(crate) workers: usize,
    pub(crate) coordinator: Coordinator,
    /// Set after a restart.
    pub(crate) recovered: Option<RecoveredSink>,
}

/// What the server before may have left outside.
#[derive(Clone, Default)]
pub(crate) struct RecoveredSink {
    /// The last checkpoint, and the keys that were still to be deleted then.
    pub(crate) checkpoint: Time,
    pub(crate) deletes: Vec<Vec<u8>>,
    /// The last time that was seen: nothing older may be written.
    pub(crate) last: Time,
}

type Flush = Answer<'static, Box<dyn Writer>>;
type Reading = Pin<Box<dyn Future<Output = Result<(ReadHold, RowChanges)>> + Send>>;

/// Where the writing of the whole view stands.
enum Resend {
    No,
    /// No change is taken meanwhile, so that the time that is read is not behind what was taken.
    Reading(Reading),
    /// Changes are taken up to the time of these rows.
    Read(ReadHold, RowChanges),
}

/// The running end of a sink.
pub(crate) struct Export {
    sink: Arc<Sink>,
    from: ObjectId,
    readable_from: Time,
    coordinator: Coordinator,
    encoding: Encoding,
    deletes: bool,
    clash: Clash,
    codec: RowCodec,
    arranged_schema: Schema,
    /// Position in the arranged row of each column of the view.
    columns: Vec<usize>,
    schema: Schema,
    pending: Vec<(RowBytes, Time, Diff)>,
    pending_bytes: usize,
    uppers: Vec<Time>,
    dirty: Dirty,
    shared: SharedKeys,
    /// Everything up to this time is in `dirty` or beyond.
    taken: Time,
    resend: Resend,
    /// Keys whose deletion is under way.
    deleting: Vec<Vec<u8>>,
    asked: Vec<DeletesAsked>,
    /// Set until the first changes after a restart are taken.
    recovered: Option<RecoveredSink>,
}

impl Export {
    /// Starts the task that writes a sink; `writer` is connected.
    pub(crate) fn spawn(
        sink: Arc<Sink>,
        config: ExportConfig,
        writer: Box<dyn Writer>,
        changes: mpsc::UnboundedReceiver<SinkChanges>,
        visible: watch::Receiver<Time>,
    ) -> Result<()> {
        let arranged = arranged_columns(config.schema.len(), &config.arranged_by);
        let arranged_schema = config.schema.project(&arranged);
        let mut columns = vec![0; arranged.len()];
        for (position, &column) in arranged.iter().enumerate() {
            columns[column] = position;
        }
        let asks = sink.asked.lock().take();
        let asks = asks.ok_or_else(|| Error::internal("a sink was started twice"))?;
        let mut dirty = Dirty::default();
        let mut recovered = config.recovered;
        let deletes = recovered.as_mut().map(|r| std::mem::take(&mut r.deletes));
        for key in deletes.into_iter().flatten() {
            dirty.insert(key, None);
        }
        let export = Export {
            sink,
            from: config.from,
            readable_from: config.readable_from,
            coordinator: config.coordinator,
            encoding: config.encoding,
            deletes: config.deletes,
            clash: config.clash,
            codec: RowCodec::new(&arranged_schema.types())?,
            arranged_schema,
            columns,
            schema: config.schema,
            pending: vec![],
            pending_bytes: 0,
            uppers: vec![0; config.workers],
            dirty,
            shared: SharedKeys::default(),
            taken: 0,
            resend: Resend::No,
            deleting: vec![],
            asked: vec![],
            recovered,
        };
        tokio::spawn(export.run(writer, (changes, asks), visible));
        Ok(())
    }

    async fn run(
        mut self,
        writer: Box<dyn Writer>,
        (mut changes, mut asks): (
            mpsc::UnboundedReceiver<SinkChanges>,
            mpsc::UnboundedReceiver<DeletesAsked>,
        ),
        mut visible: watch::Receiver<Time>,
    ) {
        let mut stop = self.sink.stop.subscribe();
        let mut idle = Some(writer);
        let mut flush: Option<Flush> = None;
        let mut check = tokio::time::interval(CHECK_INTERVAL);
        check.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let flushed = async {
                match &mut flush {
                    Some(flush) => flush.await,
                    None => std::future::pending().await,
                }
            };
            let mut check_now = false;
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return,
                change = changes.recv() => match change {
                    Some(change) => self.receive(change),
                    None => return,
                },
                changed = visible.changed() => if changed.is_err() {
                    return;
                },
                Some(asked) = asks.recv() => self.asked.push(asked),
                read = self.resend.read() => self.read(read),
                writer = flushed => {
                    flush = None;
                    self.deleting.clear();
                    idle = Some(writer);
                }
                _ = check.tick() => check_now = true,
            }
            let visible = *visible.borrow_and_update();
            if let Err(error) = self.advance(visible) {
                tracing::error!(sink = self.sink.name, %error, "cannot encode rows for the sink");
                self.sink.status.lock().error = Some(error.to_string());
            }
            if let Some(mut writer) = idle.take() {
                if writer.take_restarted() {
                    self.start_resend();
                }
                match self.nothing_to_write() && !check_now {
                    true => idle = Some(writer),
                    false => flush = Some(self.flush(writer)),
                }
            }
            self.note_status(flush.is_none());
            self.answer();
        }
    }

    /// Answers who asked for deletes up to a time that is taken.
    fn answer(&mut self) {
        let taken = self.taken;
        for (time, reply) in std::mem::take(&mut self.asked) {
            if time > taken {
                self.asked.push((time, reply));
                continue;
            }
            let deletes = self.dirty.deletes().chain(&self.deleting);
            let _ = reply.send(deletes.cloned().collect());
        }
    }

    fn note_status(&self, idle: bool) {
        let mut status = self.sink.status.lock();
        if idle && self.dirty.is_empty() && matches!(self.resend, Resend::No) {
            status.acknowledged = self.taken;
        }
        status.waiting = self.dirty.len();
        status.bytes = self.dirty.bytes() + self.pending_bytes + self.shared.bytes();
    }

    fn receive(&mut self, change: SinkChanges) {
        self.pending_bytes += bytes_of(&change.updates);
        self.pending.extend(change.updates);
        let upper = &mut self.uppers[change.worker];
        *upper = (*upper).max(change.upper);
    }

    /// Takes what everybody may see, and the whole view once that has been read.
    fn advance(&mut self, visible: Time) -> Result<()> {
        match &self.resend {
            Resend::No => self.take(visible),
            Resend::Reading(_) => Ok(()),
            Resend::Read(hold, _) => {
                let time = hold.time;
                self.take(visible.min(time))?;
                if self.taken < time {
                    return Ok(());
                }
                if let Resend::Read(_, rows) = std::mem::replace(&mut self.resend, Resend::No) {
                    self.add_all(rows)?;
                }
                self.take(visible)
            }
        }
    }

    /// Turns the updates up to `visible` into dirty keys, as far as every worker has said them.
    fn take(&mut self, visible: Time) -> Result<()> {
        // Times below every worker's upper are complete here.
        let uppers = self.uppers.iter().copied().min().unwrap_or(0);
        let until = uppers.saturating_sub(1).min(visible);
        let first = self
            .recovered
            .as_ref()
            .map_or(0, |recovered| recovered.last);
        if until <= self.taken || until < first {
            return Ok(());
        }
        self.taken = until;
        if let Some(recovered) = self.recovered.take() {
            self.delete_what_went(recovered.checkpoint, until)?;
        }
        let mut net: HashMap<RowBytes, Diff> = HashMap::new();
        self.pending.retain_mut(|(row, time, diff)| {
            let take = *time <= until;
            if take {
                *net.entry(std::mem::take(row)).or_default() += *diff;
            }
            !take
        });
        self.pending_bytes = bytes_of(&self.pending);
        net.retain(|_, diff| *diff != 0);
        if net.is_empty() {
            return Ok(());
        }
        // A key that goes and comes at once is set: deletes first. The greatest row comes last.
        let mut net: Vec<(RowBytes, Diff)> = net.into_iter().collect();
        if self.clash != Clash::None {
            net.sort_unstable();
        }
        let (gone, set): (Vec<_>, Vec<_>) = net.into_iter().partition(|(_, diff)| *diff < 0);
        match self.deletes {
            true => self.upsert(gone, set),
            false => self.set(&set, |_| true),
        }
    }

    /// Rows that went away after the checkpoint may have been written by the server before, though
    /// the changes say nothing of them in the end. What is there is set again right after this.
    fn delete_what_went(&mut self, checkpoint: Time, until: Time) -> Result<()> {
        if !self.deletes {
            return Ok(());
        }
        let went = self.pending.iter();
        let went = went.filter(|(_, time, diff)| checkpoint < *time && *time <= until && *diff < 0);
        let went: RowChanges = went.map(|(row, _, diff)| (row.clone(), *diff)).collect();
        for chunk in went.chunks(CHUNK_ROWS) {
            let batch = self.decode(chunk)?;
            for row in 0..chunk.len() {
                self.dirty.insert(self.encoding.key(&batch, row), None);
            }
        }
        Ok(())
    }

    fn upsert(&mut self, gone: RowChanges, set: RowChanges) -> Result<()> {
        // The rows that stood for the shared keys before.
        let mut before: HashMap<Vec<u8>, Option<RowBytes>> = HashMap::new();
        let mut alone = vec![];
        for (rows, deleted) in [(gone, true), (set, false)] {
            for chunk in rows.chunks(CHUNK_ROWS) {
                let batch = self.decode(chunk)?;
                for (at, (row, diff)) in chunk.iter().enumerate() {
                    let key = self.encoding.key(&batch, at);
                    if self.clash.concerns(&key) {
                        let old = || self.shared.winner(&key).cloned();
                        before.entry(key.clone()).or_insert_with(old);
                        self.shared.update(&key, row.clone(), *diff);
                    } else {
                        let value = (!deleted).then(|| self.encoding.value(&batch, at));
                        alone.push((key, value));
                    }
                }
            }
        }
        for (key, value) in alone {
            self.dirty.insert(key, value);
        }
        let mut winners = vec![];
        for (key, before) in before {
            match self.shared.winner(&key) {
                now if now == before.as_ref() => {}
                None => self.dirty.insert(key, None),
                Some(row) => winners.push((row.clone(), 1)),
            }
        }
        self.set(&winners, |_| true)
    }

    /// Makes the keys of `rows` dirty that `wanted` agrees to.
    fn set(&mut self, rows: &[(RowBytes, Diff)], wanted: impl Fn(&[u8]) -> bool) -> Result<()> {
        for chunk in rows.chunks(CHUNK_ROWS) {
            let batch = self.decode(chunk)?;
            for row in 0..chunk.len() {
                let key = self.encoding.key(&batch, row);
                if wanted(&key) {
                    let value = self.encoding.value(&batch, row);
                    self.dirty.insert(key, Some(value));
                }
            }
        }
        Ok(())
    }

    fn decode(&self, rows: &[(RowBytes, Diff)]) -> Result<RecordBatch> {
        let bytes = rows.iter().map(|(row, _)| row.as_slice());
        let arranged = self.codec.decode_batch(&self.arranged_schema, bytes)?;
        let columns = self.columns.iter().map(|&c| arranged.column(c).clone());
        batch_of(&self.schema, columns.collect(), rows.len())
    }

    /// Begins to write the whole view again; one that is under way is given up for it.
    fn start_resend(&mut self) {
        tracing::warn!(
            sink = self.sink.name,
            "the server was started anew and may have lost its data: writing all of the view again"
        );
        self.sink.status.lock().resends += 1;
        let (coordinator, id) = (self.coordinator.clone(), self.from);
        let at_least = self.taken.max(self.readable_from);
        self.resend = Resend::Reading(Box::pin(async move {
            let read = |reply| Request::Read { at_least, reply };
            let hold = coordinator.ask(read).await?;
            let target = PeekTarget {
                id,
                errors: false,
                keys: None,
                limit: None,
            };
            let rows = coordinator.peek(target, &hold).await?;
            let rows = rows
                .iter()
                .map(|(row, diff)| (row.to_vec(), diff))
                .collect();
            Ok((hold, rows))
        }));
    }

    fn read(&mut self, read: Result<(ReadHold, RowChanges)>) {
        self.resend = match read {
            Ok((hold, rows)) => Resend::Read(hold, rows),
            Err(error) => {
                tracing::error!(sink = self.sink.name, %error, "cannot read the view again");
                Resend::No
            }
        };
    }

    /// Adds the view's rows to what is to be written. All changes up to their time were taken, so
    /// a key that is dirty already has its value of that time.
    fn add_all(&mut self, mut rows: RowChanges) -> Result<()> {
        rows.sort_unstable();
        let dirty = std::mem::take(&mut self.dirty);
        let added = self.set(&rows, |key| !dirty.contains(key));
        self.dirty.extend(dirty);
        added
    }

    /// After a restart nothing is written before it is known what has come in place of a delete.
    fn nothing_to_write(&self) -> bool {
        self.dirty.is_empty() || self.recovered.is_some()
    }

    /// Takes some dirty keys and writes them, however long it takes. With none it only looks
    /// whether the server is there.
    fn flush(&mut self, mut writer: Box<dyn Writer>) -> Flush {
        let keys = match self.nothing_to_write() {
            true => vec![],
            false => self.dirty.take(BATCH_OPS_MAX),
        };
        let deleted = keys.iter().filter(|(_, value)| value.is_none());
        self.deleting = deleted.map(|(key, _)| key.clone()).collect();
        let ops = keys.into_iter().map(|(key, value)| match value {
            Some(value) => RedisOp::Set { key, value },
            None => RedisOp::Del { key },
        });
        let ops: Vec<RedisOp> = ops.collect();
        let sink = self.sink.clone();
        Box::pin(async move {
            if !ops.is_empty() && crash::due(crash::SINK_FLUSH) {
                while writer.write(&ops[..ops.len().div_ceil(2)]).await.is_err() {
                    tokio::time::sleep(BACKOFF_MIN).await;
                }
                crash::now(crash::SINK_FLUSH);
            }
            let mut backoff = BACKOFF_MIN;
            loop {
                let done = match ops.is_empty() {
                    true => writer.check().await,
                    false => writer.write(&ops).await,
                };
                let Err(error) = done else {
                    break;
                };
                sink.failed(&error.to_string());
                tokio::time::sleep(backoff).await;
                backoff = (backoff * 2).min(BACKOFF_MAX);
            }
            sink.succeeded(ops.len() as u64);
            writer
        })
    }
}

fn bytes_of(updates: &[(RowBytes, Time, Diff)]) -> usize {
    updates.iter().map(|(row, _, _)| row.len()).sum()
}

impl Resend {
    /// Resolves when the view has been read; never where it is not being read.
    async fn read(&mut self) -> Result<(ReadHold, RowChanges)> {
        match self {
            Resend::Reading(reading) => reading.await,
            Resend::No | Resend::Read(..) => std::future::pending().await,
        }
    }
}

impl Sink {
    fn failed(&self, error: &str) {
        let mut status = self.status.lock();
        if status.error.is_none() {
            tracing::warn!(
                sink = self.name,
                error,
                "a write to the sink failed; trying again"
            );
        }
        status.error = Some(error.to_string());
        status.retries += 1;
    }

    fn succeeded(&self, operations: u64) {
        let mut status = self.status.lock();
        if status.error.take().is_some() {
            tracing::info!(sink = self.name, "the sink writes again");
        }
        status.operations += operations;
    }
}
