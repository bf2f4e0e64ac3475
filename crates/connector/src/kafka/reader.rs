//! One source's client: its partitions, its own thread, and how it is doing.
//!
//! The lanes only take messages. Everything that asks a broker or changes what is fetched happens
//! in the reader's thread, so that a worker never waits for the network:
//!
//! ```text
//!   Lane ── position lost at o ──┐              ┌──> watermarks ──> restart at the low one
//!   Lane ── end reached ─────────┤   requests   ├──> stop the partition
//!   KafkaReader::close ──────────┴─> [thread] ──┼──> new partitions ──> start at 0, tell the lane
//!                                               └──> events of the client ──> status
//! ```
//!
//! A lane hears of a [`Gap`] or a new partition through its inbox before the first message that
//! comes after it, because the inbox is filled before the partition is started.
//!
//! librdkafka's calls may wait for its locks, and it has been seen to keep them for ever. So only
//! the reader's thread and the lanes call it. [`KafkaReader`] holds plain memory and no client:
//! whoever has one can neither wait for the library nor be the one that closes its connections.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer as _;
use rdkafka::error::RDKafkaErrorCode;
use ruslo_repr::{Error, Result};

use super::client::{complaint, lock, topic_error};
use super::ffi::{Consumer, Queue};
use super::identity::{self, Identity};
use super::probe::{external, topic_not_found};
use super::shared::{
    Gap, GapReason, LaneNews, PartitionState, ReaderStatus, Request, Shared, read,
};
use super::{KafkaOptions, Lane, StartOffsets};

/// How often the reader looks for new partitions and asks a sign of life.
const REFRESH_INTERVAL: Duration = Duration::from_secs(3);
/// The same while the last question went unanswered.
const RETRY_INTERVAL: Duration = Duration::from_millis(300);
const QUESTION_TIMEOUT: Duration = Duration::from_secs(2);
/// As long as the client is asked for events in each round.
const EVENT_TIMEOUT: Duration = Duration::from_millis(1);
/// How long the reader rests between rounds while nobody wants anything.
const REST: Duration = Duration::from_millis(50);
/// How often the reader notes how far its partitions reach.
const WATERMARK_INTERVAL: Duration = Duration::from_millis(200);
/// The client of one source in this process. Dropping it closes it.
pub struct KafkaReader {
    shared: Arc<Shared>,
}

/// What only the reader's thread has: the client, and the lanes' ends of it.
struct Reading {
    shared: Arc<Shared>,
    consumer: Arc<Consumer>,
    queues: Vec<Arc<Queue>>,
}

impl KafkaReader {
    /// Starts reading every partition of `start` at its offset. Does not wait for a broker: an
    /// unreachable one shows in [`status`](Self::status).
    ///
    /// `name` is for log lines. With `end` only those partitions are read, each up to and without
    /// that offset, and partitions added later are not looked for.
    pub fn open(
        options: &KafkaOptions,
        name: &str,
        start: &StartOffsets,
        end: Option<&StartOffsets>,
        lanes: usize,
    ) -> Result<(KafkaReader, Vec<Lane>)> {
        let shared = Arc::new(Shared::new(options, name, end.is_some(), lanes.max(1)));
        let reading = Reading::new(Arc::clone(&shared))?;
        let queues = reading.queues.iter().enumerate();
        let mut opened: Vec<Lane> = queues
            .map(|(index, queue)| Lane::new(index, Arc::clone(queue), Arc::clone(&shared)))
            .collect();
        let named: Vec<i32> = end.unwrap_or(start).keys().copied().collect();
        let mut begin = vec![];
        for partition in named {
            let offset = start.get(&partition).copied().unwrap_or(0).max(0);
            let end = end.and_then(|end| end.get(&partition).copied());
            let state = PartitionState::new(offset);
            let lane = &mut opened[shared.lane_of(partition)];
            shared.add_partition(partition, &state);
            if lane.add_partition(partition, offset, end, state) {
                begin.push((partition, offset));
            }
        }
        thread::Builder::new()
            .name(format!("kafka {name}"))
            .spawn(move || serve(reading, &begin))
            .map_err(|error| Error::internal(format!("cannot start a thread: {error}")))?;
        Ok((KafkaReader { shared }, opened))
    }

    pub fn status(&self) -> ReaderStatus {
        self.shared.status()
    }

    /// The partitions being read, those found later included.
    pub fn partitions(&self) -> Vec<i32> {
        read(&self.shared.partitions).keys().copied().collect()
    }

    /// Ends the reading: lanes that wait return soon, and all say [`LaneError::Closed`] from now
    /// on. Only sets a flag; the reader's thread wakes the lanes and closes the connections.
    ///
    /// [`LaneError::Closed`]: super::LaneError::Closed
    pub fn close(&self) {
        self.shared.closed.store(true, Relaxed);
    }
}

impl Drop for KafkaReader {
    fn drop(&mut self) {
        self.close();
    }
}

impl Reading {
    fn new(shared: Arc<Shared>) -> Result<Self> {
        let options = &shared.options;
        let refused = |error| external(complaint(&error), options);
        let config = options.client_config();
        let consumer =
            Consumer::new(&config, shared.events.clone(), options.topic()).map_err(refused)?;
        let consumer = Arc::new(consumer);
        let queues = (0..shared.lanes).map(|_| Queue::new(&consumer).map(Arc::new));
        let queues = queues.collect::<Result<_, _>>().map_err(refused)?;
        Ok(Reading {
            shared,
            consumer,
            queues,
        })
    }

    /// Fetches a partition from `offset` on; what is wrong shows as the partition's error.
    fn start(&self, partition: i32, offset: i64) {
        let queue = &self.queues[self.shared.lane_of(partition)];
        if let Err(code) = self.consumer.start(partition, offset, queue)
            && let Some(state) = read(&self.shared.partitions).get(&partition)
        {
            let topic = self.shared.options.topic();
            state.set_error(format!(
                "cannot read topic {topic}, partition {partition}: {code}"
            ));
        }
    }

    /// Puts what only librdkafka knows where everybody can read it.
    fn note_progress(&self) {
        let partitions = read(&self.shared.partitions).clone();
        for (partition, state) in partitions {
            let (low, high) = self.consumer.cached_watermarks(partition);
            state.low.store(low.unwrap_or(-1), Relaxed);
            state.high.store(high.unwrap_or(-1), Relaxed);
        }
        let fetched: usize = self.queues.iter().map(|queue| queue.len()).sum();
        self.shared.fetched.store(fetched as u64, Relaxed);
    }
}

/// The reader's thread; `begin` is the offset from which each partition is read.
fn serve(reading: Reading, begin: &[(i32, i64)]) {
    let shared = Arc::clone(&reading.shared);
    let mut begin = Some(begin);
    let (mut refreshed, mut noted) = (Instant::now(), Instant::now());
    while !shared.is_closed() && shared.failure().is_none() {
        // Serves logs and errors, which arrive at the context; messages go to the lanes' queues.
        let _ = reading.consumer.client().poll(EVENT_TIMEOUT);
        if shared.is_doubted() && !confirm_topic(&reading) {
            thread::sleep(REST);
            continue;
        }
        for (partition, offset) in begin.take().into_iter().flatten() {
            reading.start(*partition, *offset);
        }
        answer_requests(&reading);
        if noted.elapsed() >= WATERMARK_INTERVAL {
            reading.note_progress();
            noted = Instant::now();
        }
        let down = shared.events.is_down();
        let interval = if down {
            RETRY_INTERVAL
        } else {
            REFRESH_INTERVAL
        };
        if refreshed.elapsed() >= interval && !shared.is_closed() {
            refresh(&reading);
            refreshed = Instant::now();
        }
        shared.rest(REST);
    }
    close(reading);
}

fn answer_requests(reading: &Reading) {
    let requests = std::mem::take(&mut *lock(&reading.shared.requests));
    for request in requests {
        match request {
            Request::Stop { partition } => reading.consumer.stop(partition),
            Request::Relocate {
                partition,
                position,
            } => relocate(reading, partition, position),
            Request::CheckEnd { partition, end } => check_end(reading, partition, end),
        }
    }
}

/// Wakes the lanes and closes the connections once nobody uses them any more.
fn close(reading: Reading) {
    for queue in &reading.queues {
        queue.interrupt();
    }
    let partitions: Vec<i32> = read(&reading.shared.partitions).keys().copied().collect();
    for partition in partitions {
        reading.consumer.stop(partition);
    }
    // Whoever lets go last closes the connections, which may take a while; a lane should not.
    let deadline = Instant::now() + Duration::from_secs(10);
    let in_use = || reading.queues.iter().any(|q| Arc::strong_count(q) > 1);
    while in_use() && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(20));
    }
}

/// Whether the topic is the one that the source was made on, or cannot be told from it. A topic
/// deleted and created again has other messages under the same offsets: that ends the reading.
fn confirm_topic(reading: &Reading) -> bool {
    let shared = &reading.shared;
    let Some(expected) = shared.options.topic_id() else {
        return true;
    };
    let topic = shared.options.topic();
    match identity::ask(&reading.consumer, QUESTION_TIMEOUT) {
        Identity::Known(found) if found != expected => {
            shared.fail(&format!(
                "topic {topic} was deleted and created again since the source was created: its \
                 offsets stand for other messages now; drop the source and create it again"
            ));
            false
        }
        Identity::Known(_) | Identity::Untold => {
            shared.doubted.store(false, Relaxed);
            true
        }
        Identity::NoAnswer(code) => {
            let reason = code.to_string();
            shared.events.unanswered(code, reason);
            false
        }
    }
}

/// Asks for the topic's partitions: finds new ones, and shows whether the broker answers.
fn refresh(reading: &Reading) {
    let shared = &reading.shared;
    let topic = shared.options.topic();
    let client = reading.consumer.client();
    let metadata = match client.fetch_metadata(Some(topic), QUESTION_TIMEOUT) {
        Ok(metadata) => metadata,
        Err(error) => {
            let silence = complaint(&error);
            shared.events.unanswered(silence.code, silence.reason);
            // A broker that comes back may come back with another topic of this name.
            shared.doubt_topic();
            return;
        }
    };
    let Some(found) = metadata.topics().iter().find(|found| found.name() == topic) else {
        return;
    };
    match topic_error(found.error()) {
        None | Some(RDKafkaErrorCode::LeaderNotAvailable) => {}
        Some(code) => {
            let error = match code {
                RDKafkaErrorCode::UnknownTopicOrPartition => {
                    topic_not_found(&shared.options).message
                }
                code => format!("topic {topic}: {code}"),
            };
            shared.events.recovered();
            shared.events.unanswered(code, error);
            shared.doubt_topic();
            return;
        }
    }
    if !confirm_topic(reading) {
        return;
    }
    shared.events.recovered();
    if shared.is_bounded() {
        return;
    }
    for partition in found.partitions().iter().map(|partition| partition.id()) {
        if !read(&shared.partitions).contains_key(&partition) {
            start_new_partition(reading, partition);
        }
    }
}

/// A partition that did not exist when the source was created belongs to it from its beginning.
fn start_new_partition(reading: &Reading, partition: i32) {
    let shared = &reading.shared;
    tracing::info!(topic = shared.options.topic(), partition, "new partition");
    let state = PartitionState::new(0);
    shared.add_partition(partition, &state);
    let started = LaneNews::Started {
        partition,
        offset: 0,
        state,
    };
    shared.tell(partition, started);
    reading.start(partition, 0);
}

/// Goes on after a position that the broker does not have.
fn relocate(reading: &Reading, partition: i32, position: i64) {
    if !confirm_topic(reading) {
        return reading.shared.request(Request::Relocate {
            partition,
            position,
        });
    }
    let shared = &reading.shared;
    let topic = shared.options.topic();
    let client = reading.consumer.client();
    let (low, high) = match client.fetch_watermarks(topic, partition, QUESTION_TIMEOUT) {
        Ok(watermarks) => watermarks,
        // Asked again on the next round, unless the reader is closed by then.
        Err(_) => {
            return shared.request(Request::Relocate {
                partition,
                position,
            });
        }
    };
    if position > high {
        return shared.fail(&format!(
            "topic {topic}, partition {partition}: the position {position} is past the end \
             {high}, so the topic was truncated or created anew; drop the source and create it \
             again to read it from its start"
        ));
    }
    let resume = position.max(low);
    let reason = GapReason::Retention;
    let gap = Gap {
        partition,
        from: position,
        to: low,
        reason,
    };
    let gap = (low > position).then_some(gap);
    shared.tell(partition, LaneNews::Relocated { partition, gap });
    reading.start(partition, resume);
}

/// A topic that ends before what was read from it earlier will never get there.
fn check_end(reading: &Reading, partition: i32, end: i64) {
    let shared = &reading.shared;
    let topic = shared.options.topic();
    let client = reading.consumer.client();
    match client.fetch_watermarks(topic, partition, QUESTION_TIMEOUT) {
        Ok((_, high)) if high < end => shared.fail(&format!(
            "topic {topic}, partition {partition}: it ends at {high}, before the offset {end} \
             that was read from it earlier, so it was truncated or created anew; drop the source \
             and create it again"
        )),
        Ok(_) => {}
        Err(_) => shared.request(Request::CheckEnd { partition, end }),
    }
}

#[cfg(test)]
mod tests;
