//! What a source's reader, its lanes and its owner have in common: plain memory.
//!
//! The reader's thread writes down here what only librdkafka knows, so that whoever asks how a
//! source is doing waits for nobody. No lock of this file is held over a call of the library.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, RwLock};
use std::time::Duration;

use super::KafkaOptions;
use super::client::{Events, lock};

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
    /// About how many bytes the client has fetched that no lane has taken yet.
    pub fetched_bytes: u64,
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

/// What the thread, the lanes and the owner have in common.
pub(super) struct Shared {
    pub(super) options: KafkaOptions,
    pub(super) events: Events,
    pub(super) lanes: usize,
    inboxes: Vec<Mutex<Vec<LaneNews>>>,
    pub(super) requests: Mutex<Vec<Request>>,
    /// Told of every request and doubt.
    wake: Condvar,
    pub(super) partitions: RwLock<BTreeMap<i32, Arc<PartitionState>>>,
    gaps: Mutex<Vec<Gap>>,
    failure: Mutex<Option<String>>,
    failed: AtomicBool,
    pub(super) closed: AtomicBool,
    /// Set while it is not known whether this is still the topic that the source was made on.
    pub(super) doubted: AtomicBool,
    /// Messages that wait in the client, as last noted.
    pub(super) fetched: AtomicU64,
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
    pub(super) low: AtomicI64,
    pub(super) high: AtomicI64,
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

impl Shared {
    pub(super) fn new(options: &KafkaOptions, name: &str, bounded: bool, lanes: usize) -> Self {
        Shared {
            options: options.clone(),
            events: Events::new(name),
            lanes,
            inboxes: (0..lanes).map(|_| Mutex::default()).collect(),
            requests: Mutex::default(),
            wake: Condvar::new(),
            partitions: RwLock::default(),
            gaps: Mutex::default(),
            failure: Mutex::default(),
            failed: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            doubted: AtomicBool::new(options.topic_id().is_some()),
            fetched: AtomicU64::new(0),
            bounded,
            messages: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            errors: AtomicU64::new(0),
        }
    }

    pub(super) fn lane_of(&self, partition: i32) -> usize {
        usize::try_from(partition).unwrap_or(0) % self.lanes
    }

    pub(super) fn add_partition(&self, partition: i32, state: &Arc<PartitionState>) {
        let mut partitions = self.partitions.write().unwrap_or_else(|e| e.into_inner());
        partitions.insert(partition, Arc::clone(state));
    }

    pub(super) fn is_bounded(&self) -> bool {
        self.bounded
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Relaxed)
    }

    /// Nothing is handed out until the reader's thread has found the topic to be the same.
    /// False where topics have no ids, so that there is nothing to find out.
    pub(super) fn doubt_topic(&self) -> bool {
        let known = self.options.topic_id().is_some();
        if known {
            let _requests = lock(&self.requests);
            self.doubted.store(true, Relaxed);
            self.wake.notify_all();
        }
        known
    }

    /// The reader's thread rests until somebody wants something, `timeout` at most.
    pub(super) fn rest(&self, timeout: Duration) {
        let requests = lock(&self.requests);
        if requests.is_empty() && !self.is_doubted() {
            drop(self.wake.wait_timeout(requests, timeout));
        }
    }

    pub(super) fn is_doubted(&self) -> bool {
        self.doubted.load(Relaxed)
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

    pub(super) fn tell(&self, partition: i32, news: LaneNews) {
        lock(&self.inboxes[self.lane_of(partition)]).push(news);
    }

    pub(super) fn request(&self, request: Request) {
        lock(&self.requests).push(request);
        self.wake.notify_all();
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

    pub(super) fn status(&self) -> ReaderStatus {
        let mut partition_error = None;
        let mut partitions = BTreeMap::new();
        for (partition, state) in read(&self.partitions).iter() {
            let position = state.position.load(Relaxed);
            let known = |offset: &AtomicI64| Some(offset.load(Relaxed)).filter(|o| *o >= 0);
            // A lane may be further than what was noted last.
            let (low, high) = (known(&state.low), known(&state.high));
            let high = high.map(|high| high.max(position));
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
        let (messages, bytes) = (self.messages.load(Relaxed), self.bytes.load(Relaxed));
        let average = bytes.checked_div(messages).unwrap_or(0);
        ReaderStatus {
            state: self.state(partition_error),
            partitions,
            fetched_bytes: self.fetched.load(Relaxed) * average,
            bytes,
            messages,
            errors: self.errors.load(Relaxed),
            gaps: lock(&self.gaps).clone(),
        }
    }

    pub(super) fn state(&self, partition_error: Option<String>) -> ReaderState {
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

pub(super) fn read<T>(lock: &RwLock<T>) -> std::sync::RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(|error| error.into_inner())
}
