//! One lane's thread: poll, decode, queue.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ruslo_dataflow::{BatchQueue, SourceBatch};
use ruslo_format::{Decoded, JsonDecoder, Position};
use ruslo_repr::row::batch_of;
use ruslo_repr::{Result, Time};
use ruslo_state::crash;
use tokio::sync::oneshot;

use super::{Offsets, Source, Times};
use crate::backpressure::before_portion_blocking;
use crate::gaps;
use crate::host::{Lane, Running};

/// Messages decoded into one batch at most, and at first, when nobody knows how large they are.
const BATCH_MESSAGES_MAX: usize = 8192;
const BATCH_MESSAGES_FIRST: usize = 512;
/// Bytes of the messages of one batch, about.
const BATCH_BYTES: u64 = 2 << 20;
/// How long a lane waits for messages before it looks at its control channel again.
const POLL_TIMEOUT: Duration = Duration::from_millis(100);
/// How long a lane without a thread of its own leaves off when no messages came.
const IDLE_PAUSE: Duration = Duration::from_millis(2);

pub(super) struct LaneThread {
    pub(super) control: mpsc::Sender<Widen>,
    pub(super) running: Running,
}

/// Asks a lane to decode other columns; answered when all later batches have them.
pub(super) struct Widen {
    pub(super) columns: Vec<usize>,
    pub(super) done: oneshot::Sender<()>,
}

/// Where a lane's rows go: the queue, the columns it takes, and the times they had before.
pub(super) type Destination = (BatchQueue, Vec<usize>, Option<Arc<Times>>);

/// Starts the thread of a lane; `what` it reads is "live" or "past".
pub(super) fn spawn(
    source: &Arc<Source>,
    (what, worker): (&'static str, usize),
    lane: Box<dyn Lane>,
    (queue, columns, times): Destination,
    notify: impl Fn() + Send + 'static,
) -> Result<LaneThread> {
    let (control, requests) = mpsc::channel();
    let name = format!("{what}-{}-{worker}", source.id);
    let mut task = LaneTask {
        decoder: JsonDecoder::new(&source.schema, &columns, source.json)?,
        source: source.clone(),
        live: what == "live",
        lane,
        queue,
        columns,
        times,
        timed: BTreeMap::new(),
        batch_messages: BATCH_MESSAGES_FIRST,
        requests,
    };
    let host = &source.host;
    let running = match host.threads {
        true => host.spawn_thread(
            &name,
            move || while task.turn(POLL_TIMEOUT, &notify).is_some() {},
        ),
        false => host.spawn(&name, async move {
            while let Some(turn) = task.turn(Duration::ZERO, &notify) {
                match turn {
                    Turn::Read => tokio::task::yield_now().await,
                    Turn::Idle => tokio::time::sleep(IDLE_PAUSE).await,
                }
            }
        }),
    };
    let running = running?;
    Ok(LaneThread { control, running })
}

/// What came of one round of a lane.
enum Turn {
    Read,
    Idle,
}

struct LaneTask {
    source: Arc<Source>,
    live: bool,
    lane: Box<dyn Lane>,
    queue: BatchQueue,
    columns: Vec<usize>,
    decoder: JsonDecoder,
    /// Set when messages are read again, which then keep their times.
    times: Option<Arc<Times>>,
    timed: BTreeMap<Time, JsonDecoder>,
    /// Messages to be polled at once, by the size of the last ones.
    batch_messages: usize,
    requests: mpsc::Receiver<Widen>,
}

impl LaneTask {
    /// Takes messages once, waiting up to `timeout` for them. None: the lane has ended.
    fn turn(&mut self, timeout: Duration, notify: &dyn Fn()) -> Option<Turn> {
        if self.lane.finished() {
            return self.end();
        }
        if let Err(error) = self.widen() {
            tracing::error!(source = self.source.name, %error, "cannot decode");
            return None;
        }
        self.wait_for_memory();
        let before = self.lane.next_offsets().clone();
        let Ok((messages, bytes)) = self.poll(timeout) else {
            return self.end();
        };
        if *self.lane.next_offsets() == before {
            return Some(Turn::Idle);
        }
        match self.queue_batch(&before, messages, bytes) {
            Ok(true) if self.live => notify(),
            Ok(true) if self.times.is_some() => crash::point(crash::RESTORE),
            Ok(true) => crash::point(crash::HYDRATION),
            Ok(false) => return None,
            Err(error) => {
                tracing::error!(source = self.source.name, %error, "cannot queue a batch");
                return None;
            }
        }
        Some(Turn::Read)
    }

    fn end(&mut self) -> Option<Turn> {
        if !self.live && self.lane.finished() {
            self.queue.finish();
        }
        None
    }

    /// Lets what was read go to files first when memory is short.
    fn wait_for_memory(&self) {
        if !ruslo_memory::is_tight() {
            return;
        }
        self.source.waits.fetch_add(1, Ordering::Relaxed);
        before_portion_blocking();
        self.source.waits.fetch_sub(1, Ordering::Relaxed);
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
    fn poll(&mut self, timeout: Duration) -> std::result::Result<(u64, u64), ()> {
        let (decoder, timed) = (&mut self.decoder, &mut self.timed);
        let (source, columns, times) = (&self.source, &self.columns, self.times.as_deref());
        let new = || JsonDecoder::new(&source.schema, columns, source.json);
        let (mut messages, mut bytes, mut newest) = (0, 0, None);
        let polled = self
            .lane
            .poll(self.batch_messages, timeout, &mut |message| {
                messages += 1;
                let payload = message.payload;
                bytes += payload.map_or(0, <[u8]>::len) as u64;
                newest = newest.max(message.timestamp_ms);
                let position = Position {
                    partition: message.partition,
                    offset: message.offset,
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
        if let Some(size) = bytes.checked_div(messages) {
            let fit = BATCH_BYTES / size.max(1);
            self.batch_messages = (fit as usize).clamp(1, BATCH_MESSAGES_MAX);
        }
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
