//! How results get out: from a view's changes to the system outside.
//!
//! ```text
//!  workers ──SinkChanges──> pending ──(visible, all workers)──> net change ──> dirty keys
//!                                                                  ^              │ batches
//!     at first, and after a server's restart: the view in portions ┘ Redis <──────┘ with retry
//! ```
//!
//! A sink writes only what is visible to everybody, never a time that could still change. While
//! the system outside is slow or away, newer values of a key replace older ones that are not
//! under way yet, so memory is bounded by the number of keys, and what arrives in the end is the
//! view's value. A write that fails is repeated until it succeeds: at least once, never an older
//! value after a newer one.

mod encoding;
mod filling;
mod keys;

use std::collections::HashMap;
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
use self::filling::Filling;
use self::keys::{Dirty, SharedKeys};
use crate::coordinator::{Coordinator, RowChanges, SinkChanges};
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
    /// Bytes of a view's rows that are read at once to be written.
    pub(crate) portion_bytes: usize,
    pub(crate) coordinator: Coordinator,
    /// Set after a restart.
    pub(crate) recovered: Option<RecoveredSink>,
}

/// What the server before may have left outside.
#[derive(Clone, Default)]
pub(crate) struct RecoveredSink {
    /// The keys that were still to be deleted at the last checkpoint.
    pub(crate) deletes: Vec<Vec<u8>>,
    /// The last time that was seen: nothing older may be written.
    pub(crate) last: Time,
}

type Flush = Answer<'static, Box<dyn Writer>>;

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
    filling: Filling,
    portion_bytes: usize,
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
        let mut filling = Filling::default();
        filling.start();
        let mut recovered = config.recovered;
        let deletes = recovered.as_mut().map(|r| std::mem::take(&mut r.deletes));
        for key in deletes.into_iter().flatten() {
            filling.suspect(key);
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
            dirty: Dirty::default(),
            shared: SharedKeys::default(),
            taken: 0,
            filling,
            portion_bytes: config.portion_bytes,
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
                read = self.filling.read() => self.note_read(read),
                writer = flushed => {
                    flush = None;
                    self.deleting.clear();
                    idle = Some(writer);
                }
                _ = check.tick() => {
                    check_now = true;
                    self.filling.try_again();
                }
            }
            let visible = *visible.borrow_and_update();
            if let Err(error) = self.advance(visible) {
                tracing::error!(sink = self.sink.name, %error, "cannot encode rows for the sink");
                self.sink.status.lock().error = Some(error.to_string());
            }
            if let Some(mut writer) = idle.take() {
                if writer.take_restarted() {
                    self.start_again();
                }
                match self.dirty.is_empty() && !check_now {
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
            let deletes = deletes.chain(self.filling.suspects());
            let _ = reply.send(deletes.cloned().collect());
        }
    }

    fn note_status(&self, idle: bool) {
        let mut status = self.sink.status.lock();
        let done = self.filling.is_done();
        if idle && self.dirty.is_empty() && done {
            status.acknowledged = self.taken;
        }
        // How many are left of a view that is being written is not known: one at least.
        status.waiting = self.dirty.len() + self.filling.suspects().len() + usize::from(!done);
        let kept = self.shared.bytes() + self.filling.bytes();
        status.bytes = self.dirty.bytes() + self.pending_bytes + kept;
    }

    fn receive(&mut self, change: SinkChanges) {
        self.pending_bytes += bytes_of(&change.updates);
        self.pending.extend(change.updates);
        let upper = &mut self.uppers[change.worker];
        *upper = (*upper).max(change.upper);
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
        self.recovered = None;
        let mut net: HashMap<RowBytes, Diff> = HashMap::new();
        // The server before may have written rows that went away since, though the changes say
        // nothing of them in the end.
        let mut went: RowChanges = vec![];
        let (deletes, filling) = (self.deletes, &self.filling);
        self.pending.retain_mut(|(row, time, diff)| {
            if *time > until {
                return true;
            }
            if !filling.is_ahead(row) {
                *net.entry(std::mem::take(row)).or_default() += *diff;
            } else if deletes && *diff < 0 {
                went.push((std::mem::take(row), *diff));
            }
            false
        });
        self.pending_bytes = bytes_of(&self.pending);
        self.suspect_keys_of(&went)?;
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
            false => self.set(&set),
        }
    }

    fn upsert(&mut self, gone: RowChanges, set: RowChanges) -> Result<()> {
        let (mut alone, mut shared) = (vec![], vec![]);
        for (rows, deleted) in [(gone, true), (set, false)] {
            for chunk in rows.chunks(CHUNK_ROWS) {
                let batch = self.decode(chunk)?;
                for (at, (row, diff)) in chunk.iter().enumerate() {
                    let key = self.encoding.key(&batch, at);
                    if self.clash.concerns(&key) {
                        shared.push((key, row.clone(), *diff));
                    } else {
                        let value = (!deleted).then(|| self.encoding.value(&batch, at));
                        alone.push((key, value));
                    }
                }
            }
        }
        for (key, value) in alone {
            self.change(key, value);
        }
        let mut winners = vec![];
        for (key, row) in self.shared.update(shared)? {
            match row {
                None => self.change(key, None),
                Some(row) => winners.push((row, 1)),
            }
        }
        self.set(&winners)
    }

    /// Makes a key dirty. While the whole view is being written none is deleted.
    fn change(&mut self, key: Vec<u8>, value: Option<Vec<u8>>) {
        if value.is_none() && !self.filling.is_done() {
            return self.filling.suspect(key);
        }
        self.filling.acquit(&key);
        self.dirty.insert(key, value);
    }

    /// Makes the keys of `rows` dirty.
    fn set(&mut self, rows: &[(RowBytes, Diff)]) -> Result<()> {
        for chunk in rows.chunks(CHUNK_ROWS) {
            let batch = self.decode(chunk)?;
            for row in 0..chunk.len() {
                let key = self.encoding.key(&batch, row);
                let value = self.encoding.value(&batch, row);
                self.change(key, Some(value));
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

    /// Takes some dirty keys and writes them, however long it takes. With none it only looks
    /// whether the server is there.
    fn flush(&mut self, mut writer: Box<dyn Writer>) -> Flush {
        let keys = self.dirty.take(BATCH_OPS_MAX);
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
