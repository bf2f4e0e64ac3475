//! A worker's share of a source: messages in offset order, and the position after them.
//!
//! A lane looks at everything its queue holds. Messages go to the caller; the rest moves the
//! position (the end of a partition after control records), becomes a [`Gap`], or is kept as the
//! partition's error. Nothing is ever handed out twice: what lies before the position is dropped.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use ruslo_repr::{Error, ErrorKind};

use super::ffi::{Batch, Code, Entry, Message, Queue, Reason};
use super::shared::{Gap, GapReason, LaneNews, PartitionState, Request, Shared};

/// How long a poll waits while the reader's thread finds out about the topic.
const DOUBT_PAUSE: Duration = Duration::from_millis(1);
/// After such a pause the topic is looked at before anything is handed out.
const QUIET: Duration = Duration::from_millis(250);

/// Why a lane will not give any more messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LaneError {
    /// The reader was closed.
    Closed,
    /// Reading cannot go on by itself; the text says why and what to do.
    Failed(String),
}

impl fmt::Display for LaneError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LaneError::Closed => f.write_str("the source is closed"),
            LaneError::Failed(error) => f.write_str(error),
        }
    }
}

impl std::error::Error for LaneError {}

impl From<LaneError> for Error {
    fn from(error: LaneError) -> Self {
        let kind = match error {
            LaneError::Closed => ErrorKind::ShuttingDown,
            LaneError::Failed(_) => ErrorKind::External,
        };
        Error::new(kind, error.to_string())
    }
}

/// One worker's partitions of a source.
pub struct Lane {
    // Declared before the queue: messages are freed before what they came from.
    batch: Batch,
    queue: Arc<Queue>,
    index: usize,
    partitions: BTreeMap<i32, Partition>,
    next_offsets: BTreeMap<i32, i64>,
    gaps: Vec<Gap>,
    /// When this lane last handed out a message.
    delivered: Instant,
    /// Partitions with an end that has not been reached yet.
    unfinished: usize,
    shared: Arc<Shared>,
}

struct Partition {
    next: i64,
    end: Option<i64>,
    finished: bool,
    /// Why something at `next` was skipped, until the next position says how much it was.
    unreadable: Option<String>,
    relocating: bool,
    state: Arc<PartitionState>,
}

impl Lane {
    pub(super) fn new(index: usize, queue: Arc<Queue>, shared: Arc<Shared>) -> Self {
        Lane {
            batch: Batch::new(),
            queue,
            index,
            partitions: BTreeMap::new(),
            next_offsets: BTreeMap::new(),
            gaps: Vec::new(),
            delivered: Instant::now(),
            unfinished: 0,
            shared,
        }
    }

    /// Takes a partition in; false when it is over before it began.
    pub(super) fn add_partition(
        &mut self,
        partition: i32,
        offset: i64,
        end: Option<i64>,
        state: Arc<PartitionState>,
    ) -> bool {
        let finished = end.is_some_and(|end| offset >= end);
        self.unfinished += usize::from(end.is_some() && !finished);
        self.next_offsets.insert(partition, offset);
        let added = Partition {
            next: offset,
            end,
            finished,
            unreadable: None,
            relocating: false,
            state,
        };
        self.partitions.insert(partition, added);
        !finished
    }

    /// Hands up to `max` messages to `f`, waiting up to `timeout` for the first, and says how
    /// many it were. Each partition's messages come in offset order.
    ///
    /// What was handed out is behind [`next_offsets`](Self::next_offsets) when this returns.
    pub fn poll(
        &mut self,
        max: usize,
        timeout: Duration,
        f: &mut dyn FnMut(&Message<'_>),
    ) -> Result<usize, LaneError> {
        self.check()?;
        if self.shared.is_doubted() {
            // What waits here or in the queue may be another topic's.
            std::thread::sleep(timeout.min(DOUBT_PAUSE));
            return Ok(0);
        }
        if self.batch.len() == 0 {
            self.queue.take(&mut self.batch, max, timeout);
            self.check()?;
            let quiet = self.delivered.elapsed() >= QUIET;
            if quiet && self.batch.len() > 0 && self.shared.doubt_topic() {
                // A topic cannot be replaced without a pause. The batch is handed out by a later
                // poll, once the topic is known to be the same.
                return Ok(0);
            }
        }
        // News about a partition were left here before its next messages were asked for.
        self.read_news();
        let mut batch = std::mem::replace(&mut self.batch, Batch::new());
        let delivered = self.deliver(&batch, f);
        batch.clear();
        self.batch = batch;
        if delivered > 0 {
            self.delivered = Instant::now();
        }
        Ok(delivered)
    }

    /// The next offset to read of every partition of this lane. It counts what needs no reading,
    /// too: control records, aborted transactions, compacted and lost messages.
    pub fn next_offsets(&self) -> &BTreeMap<i32, i64> {
        &self.next_offsets
    }

    /// Whether every partition with an end has been read up to it; never true without ends.
    pub fn finished(&self) -> bool {
        self.unfinished == 0 && self.shared.is_bounded()
    }

    /// What could not be read since the last call.
    pub fn take_gaps(&mut self) -> Vec<Gap> {
        std::mem::take(&mut self.gaps)
    }

    /// Which lane of its reader this is.
    pub fn index(&self) -> usize {
        self.index
    }

    fn check(&self) -> Result<(), LaneError> {
        if self.shared.is_closed() {
            return Err(LaneError::Closed);
        }
        match self.shared.failure() {
            Some(failure) => Err(LaneError::Failed(failure)),
            None => Ok(()),
        }
    }

    fn read_news(&mut self) {
        for news in self.shared.take_news(self.index) {
            match news {
                LaneNews::Started {
                    partition,
                    offset,
                    state,
                } => {
                    self.add_partition(partition, offset, None, state);
                }
                LaneNews::Relocated { partition, gap } => self.relocated(partition, gap),
            }
        }
    }

    fn relocated(&mut self, partition: i32, gap: Option<Gap>) {
        let Some(found) = self.partitions.get_mut(&partition) else {
            return;
        };
        found.relocating = false;
        found.state.clear_error();
        let Some(mut gap) = gap else {
            return;
        };
        gap.from = gap.from.max(found.next);
        // What lies behind the end of a hydration is not missed.
        gap.to = found.end.map_or(gap.to, |end| gap.to.min(end));
        let resume = gap.to;
        self.lose(gap);
        self.advance(partition, resume);
    }

    /// Goes through the batch by runs of one partition, so that its state is looked up once.
    fn deliver(&mut self, batch: &Batch, f: &mut dyn FnMut(&Message<'_>)) -> usize {
        let mut delivered = 0;
        let mut index = 0;
        while index < batch.len() {
            match batch.entry(index) {
                Entry::Message(first) => {
                    let (taken, used) = self.deliver_run(batch, index, first.partition(), f);
                    delivered += taken;
                    index += used;
                }
                Entry::Error {
                    partition,
                    offset,
                    code,
                    reason,
                } => {
                    self.handle(partition, offset, code, &reason);
                    index += 1;
                }
            }
        }
        self.shared.messages.fetch_add(delivered as u64, Relaxed);
        delivered
    }

    /// Hands out the messages of one partition that follow each other from `start` on; says how
    /// many were handed out and how many entries that used up.
    fn deliver_run(
        &mut self,
        batch: &Batch,
        start: usize,
        partition: i32,
        f: &mut dyn FnMut(&Message<'_>),
    ) -> (usize, usize) {
        let Some(found) = self.partitions.get_mut(&partition) else {
            // Not of this lane: nothing starts such a partition, so nothing is lost here.
            return (0, 1);
        };
        let gap = found.unreadable.take().map(|reason| (found.next, reason));
        let end = found.end.unwrap_or(i64::MAX);
        let (mut next, mut first) = (found.next, None);
        let (mut taken, mut bytes, mut index) = (0, 0, start);
        while index < batch.len() {
            let Entry::Message(message) = batch.entry(index) else {
                break;
            };
            if message.partition() != partition {
                break;
            }
            index += 1;
            let offset = message.offset();
            first.get_or_insert(offset);
            if offset < next {
                continue;
            }
            next = offset + 1;
            if offset < end {
                bytes += message.payload().map_or(0, <[u8]>::len);
                bytes += message.key().map_or(0, <[u8]>::len);
                taken += 1;
                f(&message);
            }
        }
        found.state.clear_error();
        self.shared.bytes.fetch_add(bytes as u64, Relaxed);
        if let (Some((from, reason)), Some(to)) = (gap, first) {
            self.lose(Gap {
                partition,
                from,
                to,
                reason: GapReason::Unreadable(reason),
            });
        }
        self.advance(partition, next);
        (taken, index - start)
    }

    fn handle(&mut self, partition: i32, offset: i64, code: Code, reason: &Reason<'_>) {
        let Some(found) = self.partitions.get_mut(&partition) else {
            return;
        };
        if code == Code::END_OF_PARTITION {
            found.state.clear_error();
            if let Some(end) = found.end.filter(|end| offset < *end && !found.finished) {
                self.shared.request(Request::CheckEnd { partition, end });
            }
            let (from, unreadable) = (found.next, found.unreadable.take());
            if let Some(reason) = unreadable {
                let reason = GapReason::Unreadable(reason);
                self.lose(Gap {
                    partition,
                    from,
                    to: offset,
                    reason,
                });
            }
            return self.advance(partition, offset);
        }
        self.shared.errors.fetch_add(1, Relaxed);
        let text = self.shared.scrub(&reason.text());
        if code == Code::NO_SUCH_OFFSET {
            // One from before the last relocation says nothing about where we are now.
            if !found.relocating && !found.finished && offset >= found.next {
                // No error: what comes of it is a gap, or the end.
                found.relocating = true;
                self.shared.request(Request::Relocate {
                    partition,
                    position: offset,
                });
            }
        } else if code == Code::BAD_MESSAGE || code == Code::NOT_IMPLEMENTED {
            found.unreadable.get_or_insert(text);
        } else if code == Code::FATAL {
            self.shared.fail(&text);
        } else {
            // The client goes on trying by itself, maybe with a topic created anew.
            tracing::debug!(partition, ?code, "{text}");
            found.state.set_error(text);
            self.shared.doubt_topic();
        }
    }

    fn lose(&mut self, gap: Gap) {
        if gap.to > gap.from {
            self.shared.record_gap(&gap);
            self.gaps.push(gap);
        }
    }

    /// Moves the position on, never back, and ends the partition where its end is.
    fn advance(&mut self, partition: i32, next: i64) {
        let Some(found) = self.partitions.get_mut(&partition) else {
            return;
        };
        let next = found.end.map_or(next, |end| next.min(end));
        if next > found.next {
            found.next = next;
            found.state.position.store(next, Relaxed);
            self.next_offsets.insert(partition, next);
        }
        if !found.finished && found.end.is_some_and(|end| found.next >= end) {
            found.finished = true;
            self.unfinished -= 1;
            self.shared.request(Request::Stop { partition });
        }
    }
}
