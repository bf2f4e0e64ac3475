//! How results get out: from a view's changes to the system outside.
//!
//! ```text
//!  workers ──SinkChanges──> pending ──(visible, all workers)──> net change ──> dirty keys
//!                                                                                 │ batches
//!                                                             Redis <──pipeline───┘ with retry
//! ```
//!
//! A sink writes only what is visible to everybody, never a time that could still change. While
//! the system outside is slow or away, newer values of a key replace older ones that are not
//! under way yet, so memory is bounded by the number of keys, and what arrives in the end is the
//! view's value. A write that fails is repeated until it succeeds: at least once, never an older
//! value after a newer one.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use ruslo_connector::redis::{RedisOp, RedisWriter};
use ruslo_dataflow::arranged_columns;
use ruslo_format::{JsonEncoder, Template};
use ruslo_repr::{Diff, Result, RowBytes, RowCodec, Schema, Time};
use tokio::sync::{mpsc, watch};

use crate::coordinator::SinkChanges;

/// Operations in one pipeline at most.
const BATCH_OPS_MAX: usize = 1000;
const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// How a sink turns rows into keys and values.
pub(crate) enum Encoding {
    Json {
        key: JsonEncoder,
        value: JsonEncoder,
    },
    Template {
        key: Template,
        value: Template,
    },
}

/// A sink as the catalog and `ruslo.sinks` see it.
pub(crate) struct Sink {
    pub(crate) name: String,
    pub(crate) connector: &'static str,
    pub(crate) status: Mutex<SinkStatus>,
    stop: watch::Sender<bool>,
}

/// Where a sink stands.
#[derive(Clone, Debug, Default)]
pub(crate) struct SinkStatus {
    /// Set while writes fail; the sink goes on trying.
    pub(crate) error: Option<String>,
    /// Every change up to this time is acknowledged by the system outside.
    pub(crate) acknowledged: Time,
    pub(crate) operations: u64,
    pub(crate) retries: u64,
    /// Keys that changed and are not written yet.
    pub(crate) waiting: usize,
}

impl Sink {
    pub(crate) fn new(name: &str) -> Sink {
        Sink {
            name: name.to_string(),
            connector: "redis",
            status: Mutex::default(),
            stop: watch::channel(false).0,
        }
    }

    /// Ends the sink's task; what is under way may or may not arrive.
    pub(crate) fn stop(&self) {
        self.stop.send_replace(true);
    }
}

/// What an export task needs to know of its view and its sink.
pub(crate) struct ExportConfig {
    pub(crate) schema: Schema,
    /// The key by which the view is arranged: rows come in arranged order.
    pub(crate) arranged_by: Vec<usize>,
    pub(crate) encoding: Encoding,
    /// Whether a row that went away removes its key (UPSERT) or is passed over.
    pub(crate) deletes: bool,
    pub(crate) workers: usize,
}

type Flush = Pin<Box<dyn Future<Output = RedisWriter> + Send>>;

/// The running end of a sink.
pub(crate) struct Export {
    sink: Arc<Sink>,
    encoding: Encoding,
    deletes: bool,
    codec: RowCodec,
    arranged_schema: Schema,
    /// Position in the arranged row of each column of the view.
    columns: Vec<usize>,
    schema: Schema,
    pending: Vec<(RowBytes, Time, Diff)>,
    uppers: Vec<Time>,
    dirty: HashMap<Vec<u8>, Option<Vec<u8>>>,
    /// Everything up to this time is in `dirty` or beyond.
    taken: Time,
}

impl Export {
    /// Starts the task that writes a sink; `writer` is connected.
    pub(crate) fn spawn(
        sink: Arc<Sink>,
        config: ExportConfig,
        writer: RedisWriter,
        changes: mpsc::UnboundedReceiver<SinkChanges>,
        visible: watch::Receiver<Time>,
    ) -> Result<()> {
        let arranged = arranged_columns(config.schema.len(), &config.arranged_by);
        let arranged_schema = config.schema.project(&arranged);
        let mut columns = vec![0; arranged.len()];
        for (position, &column) in arranged.iter().enumerate() {
            columns[column] = position;
        }
        let export = Export {
            sink,
            encoding: config.encoding,
            deletes: config.deletes,
            codec: RowCodec::new(&arranged_schema.types())?,
            arranged_schema,
            columns,
            schema: config.schema,
            pending: vec![],
            uppers: vec![0; config.workers],
            dirty: HashMap::new(),
            taken: 0,
        };
        tokio::spawn(export.run(writer, changes, visible));
        Ok(())
    }

    async fn run(
        mut self,
        writer: RedisWriter,
        mut changes: mpsc::UnboundedReceiver<SinkChanges>,
        mut visible: watch::Receiver<Time>,
    ) {
        let mut stop = self.sink.stop.subscribe();
        let mut idle = Some(writer);
        let mut flush: Option<Flush> = None;
        loop {
            let flushed = async {
                match &mut flush {
                    Some(flush) => flush.await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return,
                change = changes.recv() => match change {
                    Some(change) => self.receive(change),
                    None => return,
                },
                changed = visible.changed() => if changed.is_err() {
                    return;
                },
                writer = flushed => {
                    flush = None;
                    idle = Some(writer);
                }
            }
            let visible = *visible.borrow_and_update();
            if let Err(error) = self.take_visible(visible) {
                tracing::error!(sink = self.sink.name, %error, "cannot encode rows for the sink");
                self.sink.status.lock().error = Some(error.to_string());
            }
            if let Some(writer) = idle.take() {
                match self.dirty.is_empty() {
                    true => {
                        self.sink.status.lock().acknowledged = self.taken;
                        idle = Some(writer);
                    }
                    false => flush = Some(self.flush(writer)),
                }
            }
            self.sink.status.lock().waiting = self.dirty.len();
        }
    }

    fn receive(&mut self, change: SinkChanges) {
        self.pending.extend(change.updates);
        let upper = &mut self.uppers[change.worker];
        *upper = (*upper).max(change.upper);
    }

    /// Turns the updates that everybody may see into dirty keys.
    fn take_visible(&mut self, visible: Time) -> Result<()> {
        // Times below every worker's upper are complete here.
        let complete = self
            .uppers
            .iter()
            .copied()
            .min()
            .unwrap_or(0)
            .saturating_sub(1);
        let until = complete.min(visible);
        if until <= self.taken {
            return Ok(());
        }
        self.taken = until;
        let mut net: HashMap<RowBytes, Diff> = HashMap::new();
        self.pending.retain_mut(|(row, time, diff)| {
            let take = *time <= until;
            if take {
                *net.entry(std::mem::take(row)).or_default() += *diff;
            }
            !take
        });
        net.retain(|_, diff| *diff != 0);
        if net.is_empty() {
            return Ok(());
        }
        // A key that goes and comes at once is set: deletes first.
        let (gone, set): (Vec<_>, Vec<_>) = net.into_iter().partition(|(_, diff)| *diff < 0);
        if self.deletes {
            self.encode(&gone, false)?;
        }
        self.encode(&set, true)
    }

    fn encode(&mut self, rows: &[(RowBytes, Diff)], set: bool) -> Result<()> {
        let rows: Vec<&[u8]> = rows.iter().map(|(row, _)| row.as_slice()).collect();
        for rows in rows.chunks(8192) {
            let arranged = self
                .codec
                .decode_batch(&self.arranged_schema, rows.iter().copied())?;
            let columns = self
                .columns
                .iter()
                .map(|&c| arranged.column(c).clone())
                .collect();
            let batch = ruslo_repr::row::batch_of(&self.schema, columns, rows.len())?;
            for row in 0..rows.len() {
                let (key, value) = self.encoding.encode(&batch, row, set);
                self.dirty.insert(key, value);
            }
        }
        Ok(())
    }

    /// Takes some dirty keys and writes them, however long it takes.
    fn flush(&mut self, mut writer: RedisWriter) -> Flush {
        let keys: Vec<Vec<u8>> = self.dirty.keys().take(BATCH_OPS_MAX).cloned().collect();
        let ops = keys.into_iter().filter_map(|key| {
            let (key, value) = self.dirty.remove_entry(&key)?;
            Some(match value {
                Some(value) => RedisOp::Set { key, value },
                None => RedisOp::Del { key },
            })
        });
        let ops: Vec<RedisOp> = ops.collect();
        let sink = self.sink.clone();
        Box::pin(async move {
            let mut backoff = BACKOFF_MIN;
            while let Err(error) = writer.write(&ops).await {
                sink.failed(&error.to_string());
                tokio::time::sleep(backoff).await;
                backoff = (backoff * 2).min(BACKOFF_MAX);
            }
            sink.succeeded(ops.len() as u64);
            writer
        })
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
        metrics::counter!("ruslo_sink_retries_total", "sink" => self.name.clone()).increment(1);
    }

    fn succeeded(&self, operations: u64) {
        let mut status = self.status.lock();
        if status.error.take().is_some() {
            tracing::info!(sink = self.name, "the sink writes again");
        }
        status.operations += operations;
        metrics::counter!("ruslo_sink_operations_total", "sink" => self.name.clone())
            .increment(operations);
    }
}

impl Encoding {
    fn encode(
        &self,
        batch: &arrow::record_batch::RecordBatch,
        row: usize,
        set: bool,
    ) -> (Vec<u8>, Option<Vec<u8>>) {
        match self {
            Encoding::Template { key, value } => {
                let mut key_text = String::new();
                key.write(batch, row, &mut key_text);
                let value = set.then(|| {
                    let mut text = String::new();
                    value.write(batch, row, &mut text);
                    text.into_bytes()
                });
                (key_text.into_bytes(), value)
            }
            Encoding::Json { key, value } => {
                let mut key_text = Vec::new();
                key.write(batch, row, &mut key_text);
                let value = set.then(|| {
                    let mut text = Vec::new();
                    value.write(batch, row, &mut text);
                    text
                });
                (key_text, value)
            }
        }
    }
}
