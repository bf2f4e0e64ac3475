//! Reading a log from outside, while a server may be writing it.
//!
//! Nothing is taken over, cut off or kept from going. Segments go as the server truncates its log;
//! those that hold nothing after the checkpoint are not missed. Another one that is gone looks as
//! if it were lost: whoever reads tries again from a newer checkpoint, if there is one, and only
//! then believes it.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::sync::Arc;

use super::Record;
use super::file::missing;
use super::folder::LogFolder;
use super::object;
use super::segment::{HEADER_BYTES, Segment, segment_name, segment_number};
use crate::Time;
use crate::error::{Error, Result};
use crate::store::Store;

/// Objects of a bucket that are read at once.
const CONCURRENCY: usize = 16;

/// Reads the records that were durable when it was made, and perhaps some that came later.
pub(crate) struct LogVisitor {
    store: Store,
    /// Of a log in files.
    folder: Option<Arc<dyn LogFolder>>,
    start: Time,
    /// Segments that are still to be read, oldest first.
    numbers: VecDeque<u64>,
    /// What the next segment must begin with; None before the first and after one that is gone.
    next_sequence: Option<u64>,
    records: VecDeque<Record>,
}

impl LogVisitor {
    /// Begins after `start`, the time of a checkpoint of `store`. A log in files is in `folder`.
    pub(crate) async fn new(
        store: &Store,
        folder: Option<Arc<dyn LogFolder>>,
        start: Time,
    ) -> Result<LogVisitor> {
        let numbers = numbers(store, folder.as_deref()).await?;
        let visitor = LogVisitor {
            store: store.clone(),
            folder,
            start,
            numbers: numbers.into(),
            next_sequence: None,
            records: VecDeque::new(),
        };
        if visitor.numbers.is_empty() && start > 0 {
            return Err(visitor.missing("nothing is there"));
        }
        Ok(visitor)
    }

    fn missing(&self, found: &str) -> Error {
        let place = match &self.folder {
            Some(folder) => folder.name(),
            None => self.store.locate(object::FOLDER),
        };
        missing(&place, self.start, found)
    }

    /// The next record; None at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Record>> {
        while self.records.is_empty() && !self.numbers.is_empty() {
            self.load().await?;
        }
        Ok(self.records.pop_front())
    }

    async fn load(&mut self) -> Result<()> {
        let count = match &self.folder {
            Some(_) => 1,
            None => self.numbers.len().min(CONCURRENCY),
        };
        let numbers: Vec<u64> = self.numbers.drain(..count).collect();
        let segments = match &self.folder {
            Some(folder) => {
                let last = self.numbers.is_empty();
                vec![read_file(&**folder, numbers[0], last)?]
            }
            None => {
                let loads = numbers.iter();
                let loads = loads.map(|number| object::load_if_there(&self.store, *number));
                let loaded = futures::future::try_join_all(loads).await?.into_iter();
                loaded
                    .map(|found| found.map(|(segment, _)| segment))
                    .collect()
            }
        };
        let last = numbers
            .last()
            .map_or_else(String::new, |n| segment_name(*n));
        let mut gone = false;
        for (number, segment) in numbers.into_iter().zip(segments) {
            gone = segment.is_none();
            match segment {
                Some(segment) => self.take(number, segment)?,
                None => self.next_sequence = None,
            }
        }
        // Before the first checkpoint the only one there may be torn, but it does not go.
        let needed = self.start > 0 || gone;
        match self.numbers.is_empty() && self.next_sequence.is_none() && needed {
            true => Err(self.missing(&format!("{last} is gone or was never finished"))),
            false => Ok(()),
        }
    }

    fn take(&mut self, number: u64, segment: Segment) -> Result<()> {
        // Without a header it is the last one, and was torn before it could hold anything.
        let Some(header) = segment.header else {
            return Ok(());
        };
        match self.next_sequence {
            None if header.previous_time > self.start => {
                let found = format!("the first record is after {}", header.previous_time);
                return Err(self.missing(&found));
            }
            Some(expected) if number != expected => {
                let found = format!("the segment from {expected} on is missing");
                return Err(self.missing(&found));
            }
            _ if header.first_sequence != number => {
                let found = format!("segment {number} says that it is {}", header.first_sequence);
                return Err(self.missing(&found));
            }
            _ => {}
        }
        self.next_sequence = Some(segment.next_sequence());
        let records = segment.frames.into_iter().flat_map(|frame| frame.records);
        let start = self.start;
        self.records
            .extend(records.filter(|record| record.time > start));
        Ok(())
    }
}

/// The segments that make up the log now, by number.
async fn numbers(store: &Store, folder: Option<&dyn LogFolder>) -> Result<Vec<u64>> {
    let Some(folder) = folder else {
        return object::numbers(store).await;
    };
    let failed = |e| Error::io(&format!("listing the log in {}", folder.name()), &e);
    let names = folder.list().map_err(failed)?;
    let mut numbers: Vec<u64> = names.iter().filter_map(|n| segment_number(n)).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// Fails if the newest segment is of a version that this program does not read.
pub(crate) async fn check_version(store: &Store, folder: Option<&dyn LogFolder>) -> Result<()> {
    let Some(last) = numbers(store, folder).await?.pop() else {
        return Ok(());
    };
    let Some(folder) = folder else {
        return object::load_if_there(store, last).await.map(drop);
    };
    let place = format!("{}/{}", folder.name(), segment_name(last));
    match folder.read(&segment_name(last)) {
        Ok(bytes) => Segment::decode(&place, &bytes[..bytes.len().min(HEADER_BYTES)]).map(drop),
        // It is being replaced.
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Error::io(&format!("reading {place}"), &error)),
    }
}

/// A segment whose end may be being written, if it is the last one; None if it is gone.
fn read_file(folder: &dyn LogFolder, number: u64, last: bool) -> Result<Option<Segment>> {
    let name = segment_name(number);
    let place = format!("{}/{name}", folder.name());
    let bytes = match folder.read(&name) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io(&format!("reading {place}"), &error)),
    };
    let segment = Segment::decode(&place, &bytes)?;
    let whole = segment.header.is_some() && segment.valid_bytes == bytes.len();
    match whole || last {
        true => Ok(Some(segment)),
        false => Err(Error::Corrupt(format!(
            "{place}: the end is broken, and segments follow"
        ))),
    }
}
