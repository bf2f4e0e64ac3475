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

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use ruslo_connector::kafka::{KafkaOptions, KafkaReader, Lane, ReaderState, ReaderStatus};
use ruslo_dataflow::{BatchQueue, SourceBatch, Workers};
use ruslo_format::{Decoded, JsonDecoder, JsonOptions, Position};
use ruslo_repr::row::batch_of;
use ruslo_repr::{Error, ObjectId, Result, Schema, Time};
use ruslo_state::crash;
use tokio::sync::oneshot;

use crate::bad_data::BadData;
use crate::coordinator::Coordinator;
use crate::gaps::{self, Gaps, SavedGaps};

/// Messages decoded into one batch at most.
const BATCH_MESSAGES_MAX: usize = 8192;
/// How long a lane waits for messages before it looks at its control channel again.
const POLL_TIMEOUT: Duration = Duration::from_millis(100);

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
    gaps: Gaps,
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
    reader: KafkaReader,
    columns: BTreeSet<usize>,
    lanes: Vec<LaneThread>,
}

struct LaneThread {
    control: mpsc::Sender<Widen>,
    thread: JoinHandle<()>,
}

/// Asks a lane to decode other columns; answered when all later batches have them.
struct Widen {
    columns: Vec<usize>,
    done: oneshot::Sender<()>,
}

impl Source {
    pub(crate) fn new(
        id: ObjectId,
        name: &str,
        options: KafkaOptions,
        schema: Schema,
        json: JsonOptions,
        start: Offsets,
    ) -> Source {
        Source {
            id,
            name: name.to_string(),
            options,
            schema,
            json,
            start,
            bad: BadData::new(name),
            counts: Counts::default(),
            gaps: Gaps::default(),
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
            KafkaReader::open(&self.options, &self.name, &from, None, workers.workers())?;
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
            self.spawn_lane("live", worker, lane, (queue, columns, None), notify)
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
        let (reader, lanes) = KafkaReader::open(
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
            self.spawn_lane("past", worker, lane, to, || {})
        });
        Ok(Past {
            reader,
            _lanes: lanes.collect::<Result<_>>()?,
        })
    }

    fn spawn_lane(
        self: &Arc<Self>,
        what: &'static str,
        worker: usize,
        lane: Lane,
        (queue, columns, times): (BatchQueue, Vec<usize>, Option<Arc<Times>>),
        notify: impl Fn() + Send + 'static,
    ) -> Result<LaneThread> {
        let (control, requests) = mpsc::channel();
        let source = self.clone();
        let decoder = JsonDecoder::new(&self.schema, &columns, self.json)?;
        let mut task = LaneTask {
            source,
            live: what == "live",
            lane,
            queue,
            columns,
            decoder,
            times,
            timed: BTreeMap::new(),
            requests,
        };
        let name = format!("{what}-{}-{worker}", self.id);
        let spawned = std::thread::Builder::new()
            .name(name)
            .spawn(move || task.run(&notify));
        let thread = spawned.map_err(|e| Error::internal(format!("cannot start a thread: {e}")))?;
        Ok(LaneThread { control, thread })
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
            while !lane.thread.is_finished() && Instant::now() < deadline {
                std::thread::sleep(LANE_END_PAUSE);
            }
            if !lane.thread.is_finished() {
                tracing::error!("an ingest thread hangs; it is left behind");
            } else if lane.thread.join().is_err() {
                tracing::error!("an ingest thread panicked");
            }
        }
    }
}

/// What a view has to read again after a restart: messages since the checkpoint.
#[derive(Clone, Default)]
pub(crate) struct Again {
    /// Where the checkpoint's offsets were.
    pub(crate) from: Offsets,
    pub(crate) times: Arc<Times>,
}

/// The time at which each message was bound.
#[derive(Default)]
pub(crate) struct Times {
    /// By partition: the offsets before which messages belong to a time, ascending.
    ends: HashMap<i32, Vec<(i64, Time)>>,
}

impl Times {
    /// Says that the messages before `next` which no earlier time has belong to `time`.
    pub(crate) fn add(&mut self, partition: i32, next: i64, time: Time) {
        self.ends.entry(partition).or_default().push((next, time));
    }

    fn of(&self, position: Position) -> Option<Time> {
        let ends = self.ends.get(&position.partition)?;
        let at = ends.partition_point(|(end, _)| *end <= position.offset);
        ends.get(at).map(|(_, time)| *time)
    }
}

/// The reading of a topic's past for one view; dropping it ends the reading.
pub(crate) struct Past {
    reader: KafkaReader,
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

/// One lane's thread: poll, decode, queue.
struct LaneTask {
    source: Arc<Source>,
    live: bool,
    lane: Lane,
    queue: BatchQueue,
    columns: Vec<usize>,
    decoder: JsonDecoder,
    /// Set when messages are read again, which then keep their times.
    times: Option<Arc<Times>>,
    timed: BTreeMap<Time, JsonDecoder>,
    requests: mpsc::Receiver<Widen>,
}

impl LaneTask {
    fn run(&mut self, notify: &dyn Fn()) {
        while !self.lane.finished() {
            if let Err(error) = self.widen() {
                tracing::error!(source = self.source.name, %error, "cannot decode");
                return;
            }
            let before = self.lane.next_offsets().clone();
            let (messages, bytes) = match self.poll() {
                Ok(taken) => taken,
                Err(()) => break,
            };
            if *self.lane.next_offsets() == before {
                continue;
            }
            match self.queue_batch(&before, messages, bytes) {
                Ok(true) if self.live => notify(),
                Ok(true) if self.times.is_some() => crash::point(crash::RESTORE),
                Ok(true) => crash::point(crash::HYDRATION),
                Ok(false) => return,
                Err(error) => {
                    tracing::error!(source = self.source.name, %error, "cannot queue a batch");
                    return;
                }
            }
        }
        if !self.live && self.lane.finished() {
            self.queue.finish();
        }
    }

    fn widen(&mut self) -> Result<()> {
        while let Ok(Widen { columns, done }) = self.requests.try_recv() {
            self.decoder = JsonDecoder::new(&self.source.schema, &columns, self.source.json)?;
            self.columns = columns;
            let _ = done.send(());
        }
        Ok(())
    }

    /// Decodes the next messages; how many there were and their bytes. Err: the reader closed.
    fn poll(&mut self) -> std::result::Result<(u64, u64), ()> {
        let (decoder, timed) = (&mut self.decoder, &mut self.timed);
        let (source, columns, times) = (&self.source, &self.columns, self.times.as_deref());
        let new = || JsonDecoder::new(&source.schema, columns, source.json);
        let (mut messages, mut bytes, mut newest) = (0, 0, None);
        let polled = self
            .lane
            .poll(BATCH_MESSAGES_MAX, POLL_TIMEOUT, &mut |message| {
                messages += 1;
                let payload = message.payload();
                bytes += payload.map_or(0, <[u8]>::len) as u64;
                newest = newest.max(message.timestamp_ms());
                let position = Position {
                    partition: message.partition(),
                    offset: message.offset(),
                };
                let time = times.and_then(|times| times.of(position));
                let Some(time) = time else {
                    return decoder.push(payload, position);
                };
                if !timed.contains_key(&time)
                    && let Ok(new) = new()
                {
                    timed.insert(time, new);
                }
                // A decoder like the one that is there can always be made.
                timed
                    .get_mut(&time)
                    .unwrap_or(decoder)
                    .push(payload, position);
            });
        if let (true, Some(newest)) = (self.live, newest) {
            let now = SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default();
            let age_ms = (now.as_millis() as i64 - newest).max(0);
            let counts = &self.source.counts;
            counts.age_ms.store(age_ms, Ordering::Relaxed);
        }
        match polled {
            Ok(_) => Ok((messages, bytes)),
            Err(error) => {
                tracing::debug!(source = self.source.name, %error, "the reader ended");
                Err(())
            }
        }
    }

    /// False: nobody takes batches any more.
    fn queue_batch(&mut self, before: &Offsets, messages: u64, bytes: u64) -> Result<bool> {
        for gap in self.lane.take_gaps() {
            let text = gaps::describe(&gap);
            tracing::error!(source = self.source.name, gap = text, "messages were lost");
            self.source.gaps.record(gap);
        }
        let mut read = vec![];
        let mut offsets = vec![];
        for (&partition, &next) in self.lane.next_offsets() {
            let from = before.get(&partition).copied();
            if from != Some(next) {
                let start = self.source.start.get(&partition).copied().unwrap_or(0);
                read.push((partition, from.unwrap_or(start), next));
                offsets.push((partition, next));
            }
        }
        let decoded = self.decoder.finish();
        if self.live {
            self.count(messages, bytes, decoded.rows as u64);
        }
        let timed = std::mem::take(&mut self.timed).into_iter();
        let timed = timed.map(|(time, mut decoder)| (Some(time), decoder.finish()));
        let mut all: Vec<(Option<Time>, Decoded)> = timed.chain([(None, decoded)]).collect();
        let errors = all
            .iter_mut()
            .map(|(_, decoded)| std::mem::take(&mut decoded.errors));
        let errors = errors.flatten().collect();
        self.source.bad.record(&self.columns, &read, errors);
        let schema = self.source.schema.project(&self.columns);
        for (time, decoded) in all {
            let batch = SourceBatch {
                batch: batch_of(&schema, decoded.columns, decoded.rows)?,
                columns: self.columns.clone(),
                // Said with the last batch.
                offsets: if time.is_none() {
                    std::mem::take(&mut offsets)
                } else {
                    vec![]
                },
                time,
            };
            if self.queue.push(batch).is_err() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn count(&self, messages: u64, bytes: u64, rows: u64) {
        let counts = &self.source.counts;
        counts.messages.fetch_add(messages, Ordering::Relaxed);
        counts.bytes.fetch_add(bytes, Ordering::Relaxed);
        counts.rows.fetch_add(rows, Ordering::Relaxed);
    }
}
