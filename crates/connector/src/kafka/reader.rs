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

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer as _;
use rdkafka::error::RDKafkaErrorCode;
use ruslo_repr::{Error, ErrorKind, Result};

use super::client::{Events, complaint, lock, topic_error};
use super::ffi::{Consumer, Queue};
use super::probe::{external, topic_not_found};
use super::{KafkaOptions, Lane, StartOffsets};

/// How often the reader looks for new partitions and asks a sign of life.
const REFRESH_INTERVAL: Duration = Duration::from_secs(3);
/// The same while the last question went unanswered.
const RETRY_INTERVAL: Duration = Duration::from_millis(300);
const QUESTION_TIMEOUT: Duration = Duration::from_secs(2);
const EVENT_TIMEOUT: Duration = Duration::from_millis(50);
/// How often the reader notes how far its partitions reach.
const WATERMARK_INTERVAL: Duration = Duration::from_millis(200);
/// Gaps kept for the status; every one also goes to its lane.
const GAPS_KEPT_MAX: usize = 1_000;

/// Messages between `from` (inclusive) and `to` (exclusive) that could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    pub partition: i32,
    pub from: i64,
    pub to: i64,
    pub reason: GapReason,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GapReason {
    /// The topic's retention deleted them before they were read.
    Retention,
    /// The broker sent something unreadable, in the client's words.
    Unreadable(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReaderState {
    Running,
    /// Trouble that may pass: the reader goes on trying and loses nothing meanwhile.
    Retrying {
        error: String,
    },
    /// Trouble that will not pass without somebody doing something.
    Failed {
        error: String,
    },
}

#[derive(Clone, Debug)]
pub struct PartitionStatus {
    pub lane: usize,
    /// The next offset to be handed out.
    pub position: i64,
    /// The first offset that can be read, as far as known.
    pub low: Option<i64>,
    /// The offset that the next message will get, as far as known.
    pub high: Option<i64>,
    /// How many offsets lie between `position` and `high`.
    pub lag: Option<i64>,
    pub error: Option<String>,
}

/// How a source is doing; taken without asking a broker or librdkafka.
#[derive(Clone, Debug)]
pub struct ReaderStatus {
    pub state: ReaderState,
    pub partitions: BTreeMap<i32, PartitionStatus>,
    /// Payload and key bytes handed out.
    pub bytes: u64,
    pub messages: u64,
    /// Errors that came instead of messages.
    pub errors: u64,
    /// What could not be read, oldest first, at most a thousand.
    pub gaps: Vec<Gap>,
}

impl ReaderStatus {
    /// The lag over all partitions, as far as known.
    pub fn lag(&self) -> i64 {
        self.partitions
            .values()
            .filter_map(|partition| partition.lag)
            .sum()
    }
}

/// The client of one source in this process. Dropping it closes it.
pub struct KafkaReader {
    shared: Arc<Shared>,
}

/// What the thread, the lanes and the owner have in common.
pub(super) struct Shared {
    options: KafkaOptions,
    consumer: Arc<Consumer>,
    events: Events,
    queues: Vec<Arc<Queue>>,
    inboxes: Vec<Mutex<Vec<LaneNews>>>,
    requests: Mutex<Vec<Request>>,
    partitions: RwLock<BTreeMap<i32, Arc<PartitionState>>>,
    gaps: Mutex<Vec<Gap>>,
    failure: Mutex<Option<String>>,
    failed: AtomicBool,
    closed: AtomicBool,
    /// Hydration reads what is named to it and nothing else.
    bounded: bool,
    pub(super) messages: AtomicU64,
    pub(super) bytes: AtomicU64,
    pub(super) errors: AtomicU64,
}

/// What lanes and reader tell each other about one partition.
pub(super) struct PartitionState {
    pub(super) position: AtomicI64,
    /// The watermarks that came with the last fetch; -1 while unknown. Noted by the reader's
    /// thread, because librdkafka may keep whoever asks waiting for its locks.
    low: AtomicI64,
    high: AtomicI64,
    has_error: AtomicBool,
    error: Mutex<Option<String>>,
}

/// What a lane has to know beside the messages.
pub(super) enum LaneNews {
    Started {
        partition: i32,
        offset: i64,
        state: Arc<PartitionState>,
    },
    /// Reading goes on after a position that was not there, with a gap if something was lost.
    Relocated { partition: i32, gap: Option<Gap> },
}

/// What a lane wants from the reader's thread.
pub(super) enum Request {
    /// The position is not in the log any more (or not yet): find out and go on.
    Relocate {
        partition: i32,
        position: i64,
    },
    Stop {
        partition: i32,
    },
    /// The partition seems to end before the offset up to which it is to be read.
    CheckEnd {
        partition: i32,
        end: i64,
    },
}

impl PartitionState {
    pub(super) fn new(position: i64) -> Arc<Self> {
        Arc::new(PartitionState {
            position: AtomicI64::new(position),
            low: AtomicI64::new(-1),
            high: AtomicI64::new(-1),
            has_error: AtomicBool::new(false),
            error: Mutex::new(None),
        })
    }

    pub(super) fn set_error(&self, error: String) {
        *lock(&self.error) = Some(error);
        self.has_error.store(true, Relaxed);
    }

    /// Costs one load when there is nothing to clear.
    pub(super) fn clear_error(&self) {
        if self.has_error.load(Relaxed) {
            *lock(&self.error) = None;
            self.has_error.store(false, Relaxed);
        }
    }
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
        let shared = Arc::new(Shared::new(options, name, end.is_some(), lanes.max(1))?);
        let mut opened: Vec<Lane> = (0..shared.queues.len())
            .map(|index| {
                Lane::new(
                    index,
                    Arc::clone(&shared.queues[index]),
                    Arc::clone(&shared),
                )
            })
            .collect();
        let named: Vec<i32> = end.unwrap_or(start).keys().copied().collect();
        for partition in named {
            let offset = start.get(&partition).copied().unwrap_or(0).max(0);
            let end = end.and_then(|end| end.get(&partition).copied());
            let state = PartitionState::new(offset);
            let lane = &mut opened[shared.lane_of(partition)];
            shared.add_partition(partition, &state);
            if lane.add_partition(partition, offset, end, state) {
                shared.start(partition, offset)?;
            }
        }
        let reader = KafkaReader {
            shared: Arc::clone(&shared),
        };
        thread::Builder::new()
            .name(format!("kafka {name}"))
            .spawn(move || serve(shared))
            .map_err(|error| Error::internal(format!("cannot start a thread: {error}")))?;
        Ok((reader, opened))
    }

    pub fn status(&self) -> ReaderStatus {
        self.shared.status()
    }

    /// The partitions being read, those found later included.
    pub fn partitions(&self) -> Vec<i32> {
        read(&self.shared.partitions).keys().copied().collect()
    }

    /// Ends the reading: lanes that wait return at once, and all say [`LaneError::Closed`] from
    /// now on. Connections are closed in the background.
    ///
    /// [`LaneError::Closed`]: super::LaneError::Closed
    pub fn close(&self) {
        self.shared.closed.store(true, Relaxed);
        for queue in &self.shared.queues {
            queue.interrupt();
        }
    }

    /// Makes a waiting poll of every lane return early, for a caller that wants its thread.
    pub fn interrupt(&self) {
        for queue in &self.shared.queues {
            queue.interrupt();
        }
    }
}

impl Drop for KafkaReader {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    fn new(options: &KafkaOptions, name: &str, bounded: bool, lanes: usize) -> Result<Self> {
        let events = Events::new(name);
        let refused = |error| external(complaint(&error), options);
        let config = options.client_config();
        let consumer = Consumer::new(&config, events.clone(), options.topic()).map_err(refused)?;
        let consumer = Arc::new(consumer);
        let queues = (0..lanes).map(|_| Queue::new(&consumer).map(Arc::new));
        Ok(Shared {
            options: options.clone(),
            queues: queues.collect::<Result<_, _>>().map_err(refused)?,
            consumer,
            events,
            inboxes: (0..lanes).map(|_| Mutex::default()).collect(),
            requests: Mutex::default(),
            partitions: RwLock::default(),
            gaps: Mutex::default(),
            failure: Mutex::default(),
            failed: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            bounded,
            messages: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            errors: AtomicU64::new(0),
        })
    }

    fn lane_of(&self, partition: i32) -> usize {
        usize::try_from(partition).unwrap_or(0) % self.queues.len()
    }

    fn start(&self, partition: i32, offset: i64) -> Result<()> {
        let queue = &self.queues[self.lane_of(partition)];
        self.consumer
            .start(partition, offset, queue)
            .map_err(|code| {
                let topic = self.options.topic();
                let message = format!("cannot read topic {topic}, partition {partition}: {code}");
                Error::new(ErrorKind::External, message)
            })
    }

    fn add_partition(&self, partition: i32, state: &Arc<PartitionState>) {
        let mut partitions = self.partitions.write().unwrap_or_else(|e| e.into_inner());
        partitions.insert(partition, Arc::clone(state));
    }

    pub(super) fn is_bounded(&self) -> bool {
        self.bounded
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Relaxed)
    }

    /// What ended the reading, if something did.
    pub(super) fn failure(&self) -> Option<String> {
        if !self.failed.load(Relaxed) {
            return None;
        }
        lock(&self.failure).clone()
    }

    pub(super) fn fail(&self, error: &str) {
        let error = self.options.scrub(error);
        tracing::error!(topic = self.options.topic(), "{error}");
        lock(&self.failure).get_or_insert(error);
        self.failed.store(true, Relaxed);
    }

    pub(super) fn scrub(&self, text: &str) -> String {
        self.options.scrub(text)
    }

    pub(super) fn take_news(&self, lane: usize) -> Vec<LaneNews> {
        std::mem::take(&mut *lock(&self.inboxes[lane]))
    }

    fn tell(&self, partition: i32, news: LaneNews) {
        lock(&self.inboxes[self.lane_of(partition)]).push(news);
    }

    pub(super) fn request(&self, request: Request) {
        lock(&self.requests).push(request);
    }

    pub(super) fn record_gap(&self, gap: &Gap) {
        tracing::warn!(
            topic = self.options.topic(),
            partition = gap.partition,
            from = gap.from,
            to = gap.to,
            reason = ?gap.reason,
            "messages could not be read"
        );
        let mut gaps = lock(&self.gaps);
        if gaps.len() < GAPS_KEPT_MAX {
            gaps.push(gap.clone());
        }
    }

    fn status(&self) -> ReaderStatus {
        let mut partition_error = None;
        let mut partitions = BTreeMap::new();
        for (partition, state) in read(&self.partitions).iter() {
            let position = state.position.load(Relaxed);
            let known = |offset: &AtomicI64| Some(offset.load(Relaxed)).filter(|o| *o >= 0);
            let (low, high) = (known(&state.low), known(&state.high));
            let error = lock(&state.error).clone();
            if partition_error.is_none() {
                partition_error.clone_from(&error);
            }
            let lag = high.map(|high| (high - position).max(0));
            let lane = self.lane_of(*partition);
            let status = PartitionStatus {
                lane,
                position,
                low,
                high,
                lag,
                error,
            };
            partitions.insert(*partition, status);
        }
        ReaderStatus {
            state: self.state(partition_error),
            partitions,
            bytes: self.bytes.load(Relaxed),
            messages: self.messages.load(Relaxed),
            errors: self.errors.load(Relaxed),
            gaps: lock(&self.gaps).clone(),
        }
    }

    fn state(&self, partition_error: Option<String>) -> ReaderState {
        if let Some(error) = self.failure() {
            return ReaderState::Failed { error };
        }
        if self.events.is_down() {
            let cause = self.events.cause().map(|cause| cause.reason);
            let error = self.scrub(&cause.unwrap_or_else(|| "no broker answers".to_owned()));
            return ReaderState::Retrying { error };
        }
        match partition_error {
            Some(error) => ReaderState::Retrying { error },
            None => ReaderState::Running,
        }
    }
}

fn read<T>(lock: &RwLock<T>) -> std::sync::RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(|error| error.into_inner())
}

/// The reader's thread.
fn serve(shared: Arc<Shared>) {
    let mut refreshed = Instant::now();
    let mut noted = Instant::now();
    while !shared.is_closed() {
        // Serves logs and errors, which arrive at the context; messages go to the lanes' queues.
        let _ = shared.consumer.client().poll(EVENT_TIMEOUT);
        let requests = std::mem::take(&mut *lock(&shared.requests));
        for request in requests {
            match request {
                Request::Stop { partition } => shared.consumer.stop(partition),
                Request::Relocate {
                    partition,
                    position,
                } => relocate(&shared, partition, position),
                Request::CheckEnd { partition, end } => check_end(&shared, partition, end),
            }
        }
        if noted.elapsed() >= WATERMARK_INTERVAL {
            note_watermarks(&shared);
            noted = Instant::now();
        }
        let down = shared.events.is_down();
        let interval = if down {
            RETRY_INTERVAL
        } else {
            REFRESH_INTERVAL
        };
        if refreshed.elapsed() >= interval && !shared.is_closed() {
            refresh(&shared);
            refreshed = Instant::now();
        }
    }
    let partitions: Vec<i32> = read(&shared.partitions).keys().copied().collect();
    for partition in partitions {
        shared.consumer.stop(partition);
    }
    // Whoever lets go last closes the connections, which may take a while; a worker should not.
    let deadline = Instant::now() + Duration::from_secs(10);
    while Arc::strong_count(&shared) > 1 && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(20));
    }
}

fn note_watermarks(shared: &Shared) {
    let partitions = read(&shared.partitions).clone();
    for (partition, state) in partitions {
        let (low, high) = shared.consumer.cached_watermarks(partition);
        state.low.store(low.unwrap_or(-1), Relaxed);
        state.high.store(high.unwrap_or(-1), Relaxed);
    }
}

/// Asks for the topic's partitions: finds new ones, and shows whether the broker answers.
fn refresh(shared: &Shared) {
    let topic = shared.options.topic();
    let metadata = match shared
        .consumer
        .client()
        .fetch_metadata(Some(topic), QUESTION_TIMEOUT)
    {
        Ok(metadata) => metadata,
        Err(error) => {
            let silence = complaint(&error);
            shared.events.unanswered(silence.code, silence.reason);
            return;
        }
    };
    shared.events.recovered();
    let Some(found) = metadata.topics().iter().find(|found| found.name() == topic) else {
        return;
    };
    match topic_error(found.error()) {
        None | Some(RDKafkaErrorCode::LeaderNotAvailable) => {}
        Some(RDKafkaErrorCode::UnknownTopicOrPartition) => {
            let error = topic_not_found(&shared.options).message;
            shared
                .events
                .unanswered(RDKafkaErrorCode::UnknownTopicOrPartition, error);
        }
        Some(code) => shared
            .events
            .unanswered(code, format!("topic {topic}: {code}")),
    }
    if shared.bounded {
        return;
    }
    for partition in found.partitions().iter().map(|partition| partition.id()) {
        if !read(&shared.partitions).contains_key(&partition) {
            start_new_partition(shared, partition);
        }
    }
}

/// A partition that did not exist when the source was created belongs to it from its beginning.
fn start_new_partition(shared: &Shared, partition: i32) {
    tracing::info!(topic = shared.options.topic(), partition, "new partition");
    let state = PartitionState::new(0);
    shared.add_partition(partition, &state);
    let started = LaneNews::Started {
        partition,
        offset: 0,
        state: Arc::clone(&state),
    };
    shared.tell(partition, started);
    if let Err(error) = shared.start(partition, 0) {
        state.set_error(error.message);
    }
}

/// Goes on after a position that the broker does not have.
fn relocate(shared: &Shared, partition: i32, position: i64) {
    let topic = shared.options.topic();
    let client = shared.consumer.client();
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
    if let Err(error) = shared.start(partition, resume)
        && let Some(state) = read(&shared.partitions).get(&partition)
    {
        state.set_error(error.message);
    }
}

/// A topic that ends before what was read from it earlier will never get there.
fn check_end(shared: &Shared, partition: i32, end: i64) {
    let topic = shared.options.topic();
    match shared
        .consumer
        .client()
        .fetch_watermarks(topic, partition, QUESTION_TIMEOUT)
    {
        Ok((_, high)) if high < end => shared.fail(&format!(
            "topic {topic}, partition {partition}: it ends at {high}, before the offset {end} \
             that was read from it earlier, so it was truncated or created anew; drop the source \
             and create it again"
        )),
        Ok(_) => {}
        Err(_) => shared.request(Request::CheckEnd { partition, end }),
    }
}
