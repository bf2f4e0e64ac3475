//! How events get in: from a source's partitions to the workers' queues.
//!
//! ```text
//!  broker ──> KafkaReader ──> lane 0 ──poll──> decode ──> SourceBatch ──> queue of worker 0
//!             (one client)    lane 1 ──poll──> decode ──> SourceBatch ──> queue of worker 1
//! ```
//!
//! One thread per lane takes messages in batches, decodes the columns that some view needs, and
//! queues them with the offsets they end at. The worker drains its queue when a time is closed
//! and answers with those offsets: that is the time's binding. A full queue stops the thread, and
//! with it the fetching.
//!
//! A source is read live only while a view reads it, from where the last binding ended. A view
//! created later reads the topic's past by a [`Past`] of its own, from the source's start up to
//! the binding at its first time, beside the live flow and without holding it up.

mod again;
mod lane;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use ruslo_connector::kafka::{KafkaOptions, ReaderState, ReaderStatus};
use ruslo_dataflow::Workers;
use ruslo_format::JsonOptions;
use ruslo_repr::{ObjectId, Result, Schema};
use tokio::sync::oneshot;

use crate::bad_data::BadData;
use crate::coordinator::Coordinator;
use crate::gaps::{Gaps, SavedGaps};
use crate::host::{Host, Reader, Running};
pub(crate) use again::{Again, Times};
use lane::{LaneThread, Widen};

const MEMORY_IS_SHORT: &str = "memory is short, so it is read slowly; see --memory-limit";
/// How long the end of the live flow waits for its threads.
const LANE_END_MAX: Duration = Duration::from_secs(5);
const LANE_END_PAUSE: Duration = Duration::from_millis(2);

/// Partition → next offset.
pub(crate) type Offsets = BTreeMap<i32, i64>;

/// A source: where its messages come from, and who reads them now.
pub(crate) struct Source {
    pub(crate) id: ObjectId,
    pub(crate) name: String,
    pub(crate) options: KafkaOptions,
    pub(crate) schema: Schema,
    pub(crate) json: JsonOptions,
    /// Resolved once, at creation: every view sees all messages from here on.
    pub(crate) start: Offsets,
    pub(crate) bad: BadData,
    pub(crate) counts: Counts,
    pub(crate) host: Host,
    gaps: Gaps,
    /// Lanes that wait because memory is short.
    waits: AtomicUsize,
    live: Mutex<Live>,
}

/// Totals since the source was created, of the live flow alone.
pub(crate) struct Counts {
    /// How old the newest message of the last batch was when it was taken; -1 before the first.
    pub(crate) age_ms: AtomicI64,
    pub(crate) messages: AtomicU64,
    pub(crate) bytes: AtomicU64,
    pub(crate) rows: AtomicU64,
}

impl Default for Counts {
    fn default() -> Self {
        Counts {
            age_ms: AtomicI64::new(-1),
            messages: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            rows: AtomicU64::new(0),
        }
    }
}

/// One partition of a source.
pub(crate) struct PartitionState {
    pub(crate) partition: i32,
    /// Where views on the source begin.
    pub(crate) start: i64,
    /// The next offset to read.
    pub(crate) next: i64,
    /// The offset that the next message will get, if the broker has told.
    pub(crate) end: Option<i64>,
}

#[derive(Default)]
struct Live {
    reading: Option<Reading>,
    /// Whether it was ever read: if not, a new view needs no past.
    started: bool,
    /// Columns each view reads.
    readers: BTreeMap<ObjectId, BTreeSet<usize>>,
}

/// A running reader and its lanes' threads.
struct Reading {
    reader: Box<dyn Reader>,
    columns: BTreeSet<usize>,
    lanes: Vec<LaneThread>,
}

impl Source {
    pub(crate) fn new(
        id: ObjectId,
        name: &str,
        options: KafkaOptions,
        schema: Schema,
        json: JsonOptions,
        start: Offsets,
        host: Host,
    ) -> Source {
        Source {
            id,
            name: name.to_string(),
            options,
            schema,
            json,
            start,
            host,
            bad: BadData::new(name),
            counts: Counts::default(),
            gaps: Gaps::default(),
            waits: AtomicUsize::new(0),
            live: Mutex::default(),
        }
    }

    /// Whether a view created now has a past to read.
    pub(crate) fn was_started(&self) -> bool {
        self.live.lock().started
    }

    /// Says whether the server before had read it: views made from now on then have a past.
    pub(crate) fn note_started(&self, started: bool) {
        self.live.lock().started |= started;
    }

    /// The state of the live reader; None while no view reads the source.
    pub(crate) fn status(&self) -> Option<ReaderStatus> {
        self.live
            .lock()
            .reading
            .as_ref()
            .map(|reading| reading.reader.status())
    }

    /// What it is doing, in one word, and the reason where there is one.
    pub(crate) fn state(&self) -> (&'static str, Option<String>) {
        match self.status() {
            None => ("idle", None),
            Some(status) => match status.state {
                ReaderState::Running => match self.gaps.describe() {
                    None if self.waits.load(Ordering::Relaxed) > 0 => {
                        ("waiting", Some(MEMORY_IS_SHORT.to_string()))
                    }
                    None => ("running", None),
                    lost => ("data_lost", lost),
                },
                ReaderState::Retrying { error } => ("retrying", Some(error)),
                ReaderState::Failed { error } => ("failed", Some(error)),
            },
        }
    }

    pub(crate) fn saved_gaps(&self) -> SavedGaps {
        self.gaps.save()
    }

    pub(crate) fn restore_gaps(&self, saved: SavedGaps) {
        self.gaps.restore(saved);
    }

    /// How often messages were lost.
    pub(crate) fn gap_count(&self) -> u64 {
        self.gaps.count()
    }

    /// About how many bytes of messages were fetched and not taken by a lane yet.
    pub(crate) fn fetched_bytes(&self) -> u64 {
        self.status().map_or(0, |status| status.fetched_bytes)
    }

    /// How far each partition is read, as far as the live reader knows.
    pub(crate) fn partitions(&self) -> Vec<PartitionState> {
        let Some(status) = self.status() else {
            return vec![];
        };
        let states = status
            .partitions
            .iter()
            .map(|(&partition, read)| PartitionState {
                partition,
                start: self.start.get(&partition).copied().unwrap_or(0),
                next: read.position,
                end: read.high,
            });
        states.collect()
    }

    /// Registers that `view` reads `columns`. When this returns, every batch that the live flow
    /// queues from now on has them.
    pub(crate) async fn add_reader(&self, view: ObjectId, columns: &[usize]) {
        let waits: Vec<_> = {
            let mut live = self.live.lock();
            live.readers.insert(view, columns.iter().copied().collect());
            let wanted = live.wanted();
            match &mut live.reading {
                Some(reading) if !wanted.is_subset(&reading.columns) => {
                    reading.columns.extend(wanted);
                    reading.widen()
                }
                _ => vec![],
            }
        };
        for wait in waits {
            // A lane that has ended queues nothing more.
            let _ = wait.await;
        }
    }

    /// Starts the live flow where the binding ends, if it does not run. Blocks; the lock is not
    /// held over calls of the client library, which may take their time.
    pub(crate) fn start_live(
        self: &Arc<Self>,
        bound: Option<&Offsets>,
        workers: &Workers,
        coordinator: &Coordinator,
    ) -> Result<()> {
        if !self.live.lock().needs_reading() {
            return Ok(());
        }
        let mut from = self.start.clone();
        from.extend(bound.into_iter().flatten());
        let (reader, lanes) =
            self.host
                .broker
                .open(&self.options, &self.name, &from, None, workers.workers())?;
        let mut live = self.live.lock();
        // Another statement may have been faster, or the view that wanted it given up.
        if !live.needs_reading() {
            return Ok(());
        }
        let columns = live.wanted();
        let lanes = lanes.into_iter().enumerate().map(|(worker, lane)| {
            let queue = workers.live_queue(worker, self.id);
            let coordinator = coordinator.clone();
            let notify = move || coordinator.input_ready();
            let columns: Vec<usize> = columns.iter().copied().collect();
            lane::spawn(self, ("live", worker), lane, (queue, columns, None), notify)
        });
        let lanes = lanes.collect::<Result<Vec<_>>>()?;
        live.reading = Some(Reading {
            reader,
            columns,
            lanes,
        });
        live.started = true;
        Ok(())
    }

    /// Takes `view` off the readers; the last one ends the live flow. What was queued by then
    /// still counts as read. Blocks until the threads have ended.
    pub(crate) fn remove_reader(&self, view: ObjectId) {
        let ended = {
            let mut live = self.live.lock();
            live.readers.remove(&view);
            match live.readers.is_empty() {
                true => live.reading.take(),
                false => None,
            }
        };
        if let Some(reading) = ended {
            reading.end();
        }
    }

    /// Reads the past of `view`: from the source's start (or where it had got to) up to `bound`,
    /// into its hydration queues, in threads of its own.
    pub(crate) fn hydrate(
        self: &Arc<Self>,
        view: ObjectId,
        columns: &[usize],
        again: Option<&Again>,
        bound: &Offsets,
        workers: &Workers,
    ) -> Result<Past> {
        // Partitions found after the source was created start at their beginning.
        let mut from: Offsets = bound.keys().map(|&partition| (partition, 0)).collect();
        from.extend(
            self.start
                .iter()
                .filter(|(partition, _)| bound.contains_key(partition)),
        );
        from.extend(again.iter().flat_map(|again| &again.from));
        let (reader, lanes) = self.host.broker.open(
            &self.options,
            &format!("{}-past", self.name),
            &from,
            Some(bound),
            workers.workers(),
        )?;
        let lanes = lanes.into_iter().enumerate().map(|(worker, lane)| {
            let queue = workers.hydration_queue(worker, view, self.id);
            let times = again.map(|again| again.times.clone());
            let to = (queue, columns.to_vec(), times);
            lane::spawn(self, ("past", worker), lane, to, || {})
        });
        Ok(Past {
            reader,
            _lanes: lanes.collect::<Result<_>>()?,
        })
    }
}

impl Live {
    fn needs_reading(&self) -> bool {
        self.reading.is_none() && !self.readers.is_empty()
    }

    fn wanted(&self) -> BTreeSet<usize> {
        self.readers.values().flatten().copied().collect()
    }
}

impl Reading {
    fn widen(&self) -> Vec<oneshot::Receiver<()>> {
        let columns: Vec<usize> = self.columns.iter().copied().collect();
        let asked = self.lanes.iter().map(|lane| {
            let (done, wait) = oneshot::channel();
            let _ = lane.control.send(Widen {
                columns: columns.clone(),
                done,
            });
            wait
        });
        asked.collect()
    }

    /// Waits for the lanes, but not for one that hangs in the client library: that one takes
    /// nothing more when it comes back, since its reader is closed.
    fn end(self) {
        self.reader.close();
        let deadline = Instant::now() + LANE_END_MAX;
        for lane in self.lanes {
            let thread = match lane.running {
                Running::Thread(thread) => thread,
                Running::Task(task) => {
                    task.abort();
                    continue;
                }
            };
            while !thread.is_finished() && Instant::now() < deadline {
                std::thread::sleep(LANE_END_PAUSE);
            }
            if !thread.is_finished() {
                tracing::error!("an ingest thread hangs; it is left behind");
            } else if thread.join().is_err() {
                tracing::error!("an ingest thread panicked");
            }
        }
    }
}

/// The reading of a topic's past for one view; dropping it ends the reading.
pub(crate) struct Past {
    reader: Box<dyn Reader>,
    /// They end by themselves: at the end of the past, or when the reader is closed.
    _lanes: Vec<LaneThread>,
}

impl Past {
    /// Why it cannot go on, if it cannot.
    pub(crate) fn failure(&self) -> Option<String> {
        match self.reader.status().state {
            ReaderState::Failed { error } => Some(error),
            ReaderState::Running | ReaderState::Retrying { .. } => None,
        }
    }

    /// How the reading of `source` goes, in words.
    pub(crate) fn describe(&self, source: &str) -> String {
        match self.reader.status().state {
            ReaderState::Running => format!("source {source} is being read"),
            ReaderState::Retrying { error } | ReaderState::Failed { error } => {
                format!("source {source}: {error}")
            }
        }
    }
}

impl Drop for Past {
    fn drop(&mut self) {
        self.reader.close();
    }
}
