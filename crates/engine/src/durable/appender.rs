//! The thread that makes times durable.
//!
//! An append blocks for a write and an fsync, or for a bucket's answer, so it has a thread of its
//! own. What came in meanwhile is appended in one piece. A store that is away for a while is waited
//! for: times stay invisible until it is back, and nothing is lost. Old objects are deleted beside
//! the appends, so that a bucket that is slow to delete keeps no time from being seen.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use ruslo_repr::{Error, ObjectId, Result, Time};
use ruslo_state::{BindingLog, Entry, Record};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::watch;

use super::{Change, refused};
use crate::coordinator::RowChanges;
use crate::host::{Host, Plant};
use crate::layout::Layout;

const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(2);
/// How long an answer may take before somebody is told.
const ANSWER_MAX: Duration = Duration::from_secs(2);

/// Everything that one time holds and that cannot be had again from elsewhere.
pub(crate) struct TimeRecord {
    pub(crate) time: Time,
    /// For sources that moved: each partition's next offset.
    pub(crate) offsets: ruslo_state::Offsets,
    /// What was written to tables.
    pub(crate) rows: Vec<(ObjectId, Arc<Layout>, RowChanges)>,
    pub(crate) changes: Vec<Change>,
}

/// What the thread tells.
pub(crate) enum LogEvent {
    /// Everything up to this time is durable.
    Durable(Time),
    /// Nothing can be made durable now, for this reason; the thread goes on trying.
    Waiting(String),
    /// Nothing more can be made durable.
    Failed(Error),
}

enum Job {
    Append(TimeRecord),
    /// Records of times before this one are in a checkpoint.
    Truncate(Time),
}

/// Hands times to the thread; dropping it ends the thread. What is not durable by then was told to
/// nobody, and is given up.
pub(crate) struct Appender {
    jobs: UnboundedSender<Job>,
    /// Closed when this is dropped, so that nobody waits for a store that is away.
    _open: watch::Sender<()>,
}

/// What the thread works with.
struct Log {
    log: Box<dyn BindingLog>,
    plant: Plant,
    open: watch::Receiver<()>,
}

impl Appender {
    /// Must be called within the runtime, which drives what a bucket needs.
    pub(crate) fn start(
        log: Box<dyn BindingLog>,
        events: UnboundedSender<LogEvent>,
        host: &Host,
    ) -> Result<Appender> {
        let (jobs, queue) = unbounded_channel();
        let (sender, open) = watch::channel(());
        let log = Log {
            log,
            plant: host.plant,
            open,
        };
        host.spawn("binding-log", async move {
            if let Err(error) = log.serve(queue, &events).await {
                let _ = events.send(LogEvent::Failed(error));
            }
        })?;
        Ok(Appender {
            jobs,
            _open: sender,
        })
    }

    pub(crate) fn append(&self, record: TimeRecord) {
        // A thread that has ended has said why.
        let _ = self.jobs.send(Job::Append(record));
    }

    pub(crate) fn truncate_before(&self, time: Time) {
        let _ = self.jobs.send(Job::Truncate(time));
    }
}

impl Log {
    async fn serve(
        mut self,
        mut jobs: UnboundedReceiver<Job>,
        events: &UnboundedSender<LogEvent>,
    ) -> Result<()> {
        let mut shortening: Option<Shortening> = None;
        let mut due = None;
        loop {
            if shortening.is_none() {
                shortening = due.take().map(|time| self.log.truncate_before(time));
            }
            let first = tokio::select! {
                biased;
                () = finished(&mut shortening) => continue,
                first = jobs.recv() => first,
            };
            let Some(first) = first else {
                return Ok(());
            };
            let mut records = vec![];
            for job in std::iter::once(first).chain(std::iter::from_fn(|| jobs.try_recv().ok())) {
                match job {
                    Job::Append(record) => records.push(encode(record, self.plant)?),
                    Job::Truncate(time) => due = Some(time),
                }
            }
            if let Some(last) = records.last() {
                let time = last.time;
                if self.plant == Plant::AcknowledgeBeforeAppend {
                    let _ = events.send(LogEvent::Durable(time));
                    tokio::task::yield_now().await;
                }
                if !self.append(&records, events).await? {
                    return Ok(());
                }
                let _ = events.send(LogEvent::Durable(time));
            }
        }
    }

    /// Appends, as often as it takes while trying again can help. False: it was given up.
    async fn append(
        &mut self,
        records: &[Record],
        events: &UnboundedSender<LogEvent>,
    ) -> Result<bool> {
        let mut backoff = BACKOFF_MIN;
        let mut waiting = Waiting {
            events,
            reason: String::new(),
        };
        loop {
            let (log, open) = (&mut self.log, &mut self.open);
            let appended = tokio::select! {
                biased;
                appended = waiting.watch(log.append(records)) => Some(appended),
                _ = open.changed() => None,
            };
            match appended {
                Some(Ok(())) => break,
                Some(Err(error)) if error.can_retry() => waiting.because(error.to_string()),
                Some(Err(error)) => return Err(refused(&error)),
                None => return Ok(false),
            }
            let open = &mut self.open;
            let pause = tokio::time::timeout(backoff, open.changed());
            if pause.await.is_ok() {
                return Ok(false);
            }
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
        if !waiting.reason.is_empty() {
            tracing::info!("the store can be written again");
        }
        Ok(true)
    }
}

/// Deletes what a truncation has let go.
type Shortening = BoxFuture<'static, ruslo_state::Result<()>>;

/// Waits until a truncation is through; for ever if none is under way.
async fn finished(shortening: &mut Option<Shortening>) {
    let shortened = match shortening {
        Some(work) => work.await,
        None => std::future::pending().await,
    };
    *shortening = None;
    if let Err(error) = shortened {
        tracing::warn!(%error, "the binding log could not be shortened; trying again later");
    }
}

/// An append that is not through, and what was told of it.
struct Waiting<'a> {
    events: &'a UnboundedSender<LogEvent>,
    reason: String,
}

impl Waiting<'_> {
    /// Waits for an append, and tells if its answer takes long.
    async fn watch<T>(&mut self, append: impl Future<Output = T>) -> T {
        tokio::pin!(append);
        match tokio::time::timeout(ANSWER_MAX, &mut append).await {
            Ok(answer) => answer,
            Err(_) => {
                if self.reason.is_empty() {
                    self.because(format!("the store has not answered for {ANSWER_MAX:?}"));
                }
                append.await
            }
        }
    }

    fn because(&mut self, reason: String) {
        if reason != self.reason {
            tracing::error!(
                reason,
                "nothing can be made durable now; nothing new is shown until it can"
            );
            let _ = self.events.send(LogEvent::Waiting(reason.clone()));
            self.reason = reason;
        }
    }
}

fn encode(record: TimeRecord, plant: Plant) -> Result<Record> {
    let mut entries = vec![];
    if !record.offsets.is_empty() && plant != Plant::SkipBinding {
        let offsets = record.offsets;
        entries.push(Entry::Binding { offsets });
    }
    for (table, layout, rows) in record.rows {
        entries.push(Entry::Rows {
            table: table.0,
            updates: layout
                .decode_changes(rows.iter().map(|(row, diff)| (row.as_slice(), *diff)))?,
        });
    }
    for change in &record.changes {
        let change = change.to_json()?;
        entries.push(Entry::Catalog { change });
    }
    Ok(Record {
        time: record.time,
        entries,
    })
}

#[cfg(test)]
mod tests;
