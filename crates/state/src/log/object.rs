//! The binding log in a bucket: numbered objects, each put only if its name is free.
//!
//! ```text
//!   log/…07.log  log/…08.log  log/…09.log      an object is a segment with one frame
//!    records      fence        records
//!                 └ put by a new writer: the old one, which thinks that 8 is next, finds the
//!                   name taken and knows that it has lost the log
//! ```
//!
//! Fences stay when what is around them is truncated, or a writer that slept long enough would
//! find its number free again. The log is the unbroken run of numbers up to the highest one;
//! what is below a gap was truncated.

use std::collections::VecDeque;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{StreamExt, TryStreamExt, stream};

use super::file::missing;
use super::segment::{Frame, Header, Segment, segment_name, segment_number};
use super::shared::{Hold, SegmentInfo, Segments};
use super::{BindingLog, LogReader, Record, check_times};
use crate::Time;
use crate::error::{Error, Result};
use crate::store::{Listed, Store};

pub(super) const FOLDER: &str = "log";
/// Requests under way at once.
const CONCURRENCY: usize = 16;
/// A fence is smaller than this; larger objects below a gap are left-overs.
const FENCE_BYTES_MAX: u64 = 256;

/// A [`BindingLog`] in a bucket or in memory.
pub struct ObjectLog {
    store: Store,
    segments: Segments,
    next_sequence: u64,
    last_time: Time,
    /// What an append that failed may have put under the next number.
    in_doubt: Option<Bytes>,
    fenced: bool,
}

impl ObjectLog {
    /// Opens the log that goes with a checkpoint at `start` (0 for none) and takes it over:
    /// whoever had it before cannot append any more. `writer` is unlike any other writer's.
    pub async fn open(store: &Store, start: Time, writer: u64) -> Result<ObjectLog> {
        let mut log = ObjectLog::new(store, start);
        let (stale, live) = split(store.list(FOLDER).await?);
        let Some(&(first, _)) = live.first() else {
            if start > 0 {
                return Err(missing(&store.locate(FOLDER), start, "nothing is there"));
            }
            log.take_over(writer).await?;
            return Ok(log);
        };
        log.next_sequence = first;
        let numbers = live.iter().map(|(number, _)| *number);
        let loads = stream::iter(numbers).map(|number| load(store.clone(), number));
        let mut loads = loads.buffered(CONCURRENCY);
        while let Some((segment, bytes)) = loads.try_next().await? {
            let previous = segment.header.map_or(0, |header| header.previous_time);
            if segment.first_sequence() == first && previous > start {
                let found = format!("the first record is after {previous}");
                return Err(missing(&store.locate(FOLDER), start, &found));
            }
            log.push(&segment, bytes);
        }
        log.take_over(writer).await?;
        log.remove_stale(stale).await;
        Ok(log)
    }

    /// Starts a log in an empty bucket, for a checkpoint at `start`.
    pub async fn create(store: &Store, start: Time, writer: u64) -> Result<ObjectLog> {
        let mut log = ObjectLog::new(store, start);
        log.take_over(writer).await?;
        Ok(log)
    }

    fn new(store: &Store, start: Time) -> ObjectLog {
        ObjectLog {
            store: store.clone(),
            segments: Segments::default(),
            next_sequence: 1,
            last_time: start,
            in_doubt: None,
            fenced: false,
        }
    }

    fn push(&mut self, segment: &Segment, bytes: u64) {
        self.next_sequence = segment.next_sequence();
        self.last_time = self.last_time.max(segment.last_time());
        self.segments.push(SegmentInfo {
            first_sequence: segment.first_sequence(),
            last_time: segment.last_time(),
            bytes,
            fence: segment.frames.iter().any(|frame| frame.fence.is_some()),
        });
    }

    /// Puts a fence under the next free number.
    async fn take_over(&mut self, writer: u64) -> Result<()> {
        loop {
            let bytes = self.encode(Some(writer), &[])?;
            let path = path(self.next_sequence);
            if self.store.put_new(&path, bytes.clone()).await? {
                self.segments.push(SegmentInfo {
                    first_sequence: self.next_sequence,
                    last_time: self.last_time,
                    bytes: bytes.len() as u64,
                    fence: true,
                });
                self.next_sequence += 1;
                return Ok(());
            }
            // The writer before us has appended meanwhile.
            let (segment, bytes) = load(self.store.clone(), self.next_sequence).await?;
            self.push(&segment, bytes);
        }
    }

    fn encode(&self, fence: Option<u64>, records: &[Record]) -> Result<Bytes> {
        let header = Header {
            first_sequence: self.next_sequence,
            previous_time: self.last_time,
        };
        let mut bytes = header.encode();
        bytes.extend(Frame::encode(self.next_sequence, fence, records)?);
        Ok(bytes.into())
    }

    /// Removes what a truncation that a crash ended has left. What stays does no harm.
    async fn remove_stale(&self, stale: Vec<Numbered>) {
        for (number, bytes) in stale {
            if bytes <= FENCE_BYTES_MAX {
                continue;
            }
            if let Err(error) = self.store.delete(&path(number)).await {
                tracing::warn!(%error, "an old object of the log stays");
            }
        }
    }
}

fn path(sequence: u64) -> String {
    format!("{FOLDER}/{}", segment_name(sequence))
}

/// Number and size of an object.
type Numbered = (u64, u64);

/// Numbers and sizes of what lies below the last gap, and of the unbroken run above it.
fn split(listed: Vec<Listed>) -> (Vec<Numbered>, Vec<Numbered>) {
    let numbered = listed.iter().filter_map(|object| {
        let name = object.path.rsplit('/').next()?;
        Some((segment_number(name)?, object.bytes))
    });
    let mut stale: Vec<Numbered> = numbered.collect();
    let mut start = stale.len();
    while start > 0 && (start == stale.len() || stale[start - 1].0 + 1 == stale[start].0) {
        start -= 1;
    }
    let live = stale.split_off(start);
    (stale, live)
}

/// The objects that make up the log now.
pub(super) async fn numbers(store: &Store) -> Result<Vec<u64>> {
    let (_, live) = split(store.list(FOLDER).await?);
    Ok(live.into_iter().map(|(number, _)| number).collect())
}

async fn load(store: Store, number: u64) -> Result<(Segment, u64)> {
    let missing = || Error::Corrupt(format!("{} is missing", store.locate(&path(number))));
    load_if_there(&store, number).await?.ok_or_else(missing)
}

/// An object and its size; None if it is not there.
pub(super) async fn load_if_there(store: &Store, number: u64) -> Result<Option<(Segment, u64)>> {
    let path = path(number);
    let place = store.locate(&path);
    let Some(bytes) = store.get_if_there(&path).await? else {
        return Ok(None);
    };
    let segment = Segment::decode(&place, &bytes)?;
    let whole = segment.valid_bytes == bytes.len() && segment.frames.len() == 1;
    if !whole || segment.first_sequence() != number {
        return Err(Error::Corrupt(format!("{place} is not a whole log object")));
    }
    Ok(Some((segment, bytes.len() as u64)))
}

#[async_trait]
impl BindingLog for ObjectLog {
    async fn append(&mut self, records: &[Record]) -> Result<()> {
        if self.fenced {
            return Err(fenced(&self.store));
        }
        check_times(self.last_time, records)?;
        let Some(newest) = records.last() else {
            return Ok(());
        };
        let bytes = self.encode(None, records)?;
        if self.in_doubt.as_ref().is_some_and(|doubt| *doubt != bytes) {
            let text = "an append to the log failed and must be given again before any other";
            return Err(Error::InvalidUse(text.into()));
        }
        match self
            .store
            .put_new(&path(self.next_sequence), bytes.clone())
            .await
        {
            Ok(true) => {}
            Ok(false) => {
                self.fenced = true;
                return Err(fenced(&self.store));
            }
            Err(error) => {
                self.in_doubt = Some(bytes);
                return Err(error);
            }
        }
        self.in_doubt = None;
        self.segments.push(SegmentInfo {
            first_sequence: self.next_sequence,
            last_time: newest.time,
            bytes: bytes.len() as u64,
            fence: false,
        });
        self.next_sequence += 1;
        self.last_time = newest.time;
        Ok(())
    }

    fn truncate_before(&mut self, time: Time) -> BoxFuture<'static, Result<()>> {
        let (store, segments) = (self.store.clone(), self.segments.clone());
        let retired = segments.retire(time);
        Box::pin(async move {
            // Oldest first, so that a crash leaves a gap below what is needed, never within.
            for chunk in retired.chunks(CONCURRENCY) {
                let deleted = chunk.iter().map(|segment| async {
                    if !segment.fence {
                        store.delete(&path(segment.first_sequence)).await?;
                    }
                    segments.deleted(segment.first_sequence);
                    Ok::<_, Error>(())
                });
                futures::future::try_join_all(deleted).await?;
            }
            Ok(())
        })
    }

    fn last_time(&self) -> Time {
        self.last_time
    }

    fn read_after(&self, time: Time) -> Box<dyn LogReader> {
        Box::new(ObjectReader {
            store: Arc::new(self.store.clone()),
            hold: self.segments.hold_after(time),
            after: time,
            records: VecDeque::new(),
            last: 0,
        })
    }

    fn bytes(&self) -> u64 {
        self.segments.bytes()
    }
}

fn fenced(store: &Store) -> Error {
    Error::Fenced(format!("another server has taken over the log in {store}"))
}

struct ObjectReader {
    store: Arc<Store>,
    hold: Hold,
    after: Time,
    /// Of the objects that were read last, with their numbers.
    records: VecDeque<(u64, Record)>,
    /// The number of the object of the last record.
    last: u64,
}

#[async_trait]
impl LogReader for ObjectReader {
    async fn next(&mut self) -> Result<Option<Record>> {
        loop {
            if let Some((number, record)) = self.records.pop_front() {
                self.last = number;
                return Ok(Some(record));
            }
            let count = self.hold.needed.len().min(CONCURRENCY);
            if count == 0 {
                return Ok(None);
            }
            let infos = self.hold.needed.iter().take(count);
            let loads = infos.map(|info| load((*self.store).clone(), info.first_sequence));
            let loaded = futures::future::try_join_all(loads).await?;
            self.hold.needed.drain(..count);
            for (segment, _) in loaded {
                let (number, after) = (segment.first_sequence(), self.after);
                let records = segment.frames.into_iter().flat_map(|frame| frame.records);
                let records = records.filter(|record| record.time > after);
                self.records.extend(records.map(|record| (number, record)));
            }
        }
    }

    fn place(&self) -> String {
        self.store.locate(&path(self.last))
    }
}

#[cfg(test)]
mod tests;
