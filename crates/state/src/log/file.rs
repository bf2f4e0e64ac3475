//! The binding log in a local folder: files that grow, each append with an fdatasync.
//!
//! ```text
//!   00…01.log  00…17.log  00…42.log        closed segments are whole; the last one may end
//!   ─────────  ─────────  ──────┄┄          in a torn frame, which is cut when it is opened
//! ```
//!
//! What is at the tail is always known. A write that fails is cut off again at once; if that
//! fails too, the log takes nothing more until it is opened anew. After an fdatasync that failed
//! the system may have dropped what was written, so the file is cut back and left for a new one.
//! Names are made durable before a segment's first frame, and removed oldest first, each removal
//! durable before the next, so that a crash never leaves a hole.

use std::collections::VecDeque;
use std::future;
use std::io;
use std::sync::Arc;

use async_trait::async_trait;
use futures::future::BoxFuture;

use super::folder::{LogFile, LogFolder};
use super::segment::{Frame, HEADER_BYTES, Header, Segment, segment_name, segment_number};
use super::shared::{Hold, SegmentInfo, Segments};
use super::{BindingLog, LogReader, Record, check_times};
use crate::Time;
use crate::crash;
use crate::error::{Error, Result};
use crate::sim::Plant;

/// When a segment of a local log ends.
#[derive(Clone, Copy, Debug)]
pub struct LogSizes {
    /// A truncation starts a new segment once the last one has this many bytes.
    pub segment_bytes_min: u64,
    /// An append starts a new segment once the last one has this many bytes.
    pub segment_bytes_max: u64,
}

impl Default for LogSizes {
    fn default() -> LogSizes {
        LogSizes {
            segment_bytes_min: 1 << 20,
            segment_bytes_max: 16 << 20,
        }
    }
}

/// What a crash left of its last append and what was cut off: nobody has seen it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TornTail {
    /// The segment's name.
    pub segment: String,
    /// Where the torn bytes began.
    pub offset: u64,
    /// How many there were.
    pub bytes: u64,
}

impl std::fmt::Display for TornTail {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let TornTail {
            segment,
            offset,
            bytes,
        } = self;
        write!(
            f,
            "{segment} ended in {bytes} bytes of an unfinished append at {offset}, now cut off"
        )
    }
}

/// A [`BindingLog`] in a local folder.
pub struct FileLog {
    folder: Arc<dyn LogFolder>,
    sizes: LogSizes,
    plant: Plant,
    segments: Segments,
    /// The last segment; None if the next append must start a new one.
    file: Option<Box<dyn LogFile>>,
    next_sequence: u64,
    last_time: Time,
    /// Why nothing can be appended any more.
    broken: Option<String>,
}

impl FileLog {
    /// Opens the log that goes with a checkpoint at `start` (0 for none), and makes sure that what
    /// it finds is durable. The caller holds a lock on the folder. Blocks.
    pub fn open(
        folder: Arc<dyn LogFolder>,
        start: Time,
        sizes: LogSizes,
        plant: Plant,
    ) -> Result<(FileLog, Option<TornTail>)> {
        let mut log = FileLog::new(folder, start, sizes, plant);
        let listed = log.folder.list().map_err(|e| log.fail("listing", &e))?;
        let mut numbers: Vec<u64> = listed.iter().filter_map(|n| segment_number(n)).collect();
        numbers.sort_unstable();
        if numbers.is_empty() && start > 0 {
            return Err(missing(&log.folder.name(), start, "nothing is there"));
        }
        let mut torn = None;
        for (i, &number) in numbers.iter().enumerate() {
            torn = log.load(number, i == 0, i + 1 == numbers.len(), start)?;
        }
        match log.file.is_some() {
            true => log.folder.sync().map_err(|e| log.fail("syncing", &e))?,
            false => log.start_segment()?,
        }
        Ok((log, torn))
    }

    /// Starts a log in an empty folder, for a checkpoint at `start`. Blocks.
    pub fn create(
        folder: Arc<dyn LogFolder>,
        start: Time,
        sizes: LogSizes,
        plant: Plant,
    ) -> Result<FileLog> {
        let mut log = FileLog::new(folder, start, sizes, plant);
        log.start_segment()?;
        Ok(log)
    }

    fn new(folder: Arc<dyn LogFolder>, start: Time, sizes: LogSizes, plant: Plant) -> FileLog {
        FileLog {
            folder,
            sizes,
            plant,
            segments: Segments::default(),
            file: None,
            next_sequence: 1,
            last_time: start,
            broken: None,
        }
    }

    /// Takes one segment in; the last one is opened and its torn end cut off.
    fn load(
        &mut self,
        number: u64,
        first: bool,
        last: bool,
        start: Time,
    ) -> Result<Option<TornTail>> {
        let name = segment_name(number);
        let place = format!("{}/{name}", self.folder.name());
        let bytes = self.folder.read(&name);
        let bytes = bytes.map_err(|e| self.fail("reading", &e))?;
        let segment = Segment::decode(&place, &bytes)?;
        let torn = (segment.valid_bytes < bytes.len()).then(|| TornTail {
            segment: name.clone(),
            offset: segment.valid_bytes as u64,
            bytes: (bytes.len() - segment.valid_bytes) as u64,
        });
        if torn.is_some() && !last {
            let text = format!("{place}: the end is broken, and segments follow");
            return Err(Error::Corrupt(text));
        }
        let Some(header) = segment.header else {
            // It was torn before it could hold anything.
            if !last {
                return Err(Error::Corrupt(format!("{place}: the header is broken")));
            }
            let removed = self.folder.remove(&name).and_then(|()| self.folder.sync());
            removed.map_err(|e| self.fail("removing the torn segment", &e))?;
            if first {
                // The first segment of all, or the ones before it are gone.
                self.next_sequence = number;
                if start > 0 {
                    return Err(missing(&place, start, "it was never finished"));
                }
            }
            return Ok(torn);
        };
        check_place(&place, number, header, &segment)?;
        match first {
            true if header.previous_time > start => {
                let found = format!("the first record is after {}", header.previous_time);
                return Err(missing(&place, start, &found));
            }
            false if number != self.next_sequence => {
                return Err(Error::Corrupt(format!(
                    "{place}: the segment before it, from {} on, is missing",
                    self.next_sequence
                )));
            }
            _ => {}
        }
        self.next_sequence = segment.next_sequence();
        self.last_time = self.last_time.max(segment.last_time());
        self.segments.push(SegmentInfo {
            first_sequence: number,
            last_time: segment.last_time(),
            bytes: segment.valid_bytes as u64,
            fence: false,
        });
        if last {
            self.open_end(&name, &bytes[..segment.valid_bytes])?;
        }
        Ok(torn)
    }

    /// Opens a segment to append to it, and makes sure that it holds `valid` and nothing more.
    fn open_end(&mut self, name: &str, valid: &[u8]) -> Result<()> {
        let opened = self.folder.open(name).and_then(|mut file| {
            file.truncate(valid.len() as u64)?;
            // Bytes may be in the system's cache alone, and after a sync that failed another one
            // does not write them. What is read here must stay, so it is written again.
            self.folder.rewrite(name, valid)?;
            file.sync()?;
            Ok(file)
        });
        self.file = Some(opened.map_err(|e| self.fail("opening", &e))?);
        Ok(())
    }

    fn fail(&self, doing: &str, error: &io::Error) -> Error {
        Error::io(&format!("{doing} the log in {}", self.folder.name()), error)
    }

    /// Starts a new segment. If it fails, the next append tries again, under the same name.
    fn start_segment(&mut self) -> Result<()> {
        self.file = None;
        let last = self.segments.last();
        if last.is_some_and(|last| last.first_sequence == self.next_sequence) {
            return self.reuse_last_segment();
        }
        let header = Header {
            first_sequence: self.next_sequence,
            previous_time: self.last_time,
        };
        let name = segment_name(self.next_sequence);
        let created = self.folder.create(&name).and_then(|mut file| {
            file.append(&header.encode())?;
            file.sync()?;
            self.folder.sync()?;
            Ok(file)
        });
        self.file = Some(created.map_err(|e| self.fail("starting a segment of", &e))?);
        self.segments.push(SegmentInfo {
            first_sequence: self.next_sequence,
            last_time: self.last_time,
            bytes: HEADER_BYTES as u64,
            fence: false,
        });
        Ok(())
    }

    /// The last segment has no frames, and the name that a new one would have. It may be the only
    /// one, which tells how far back the log reaches: its header must not go for a moment.
    fn reuse_last_segment(&mut self) -> Result<()> {
        let name = segment_name(self.next_sequence);
        let bytes = self.folder.read(&name);
        let bytes = bytes.map_err(|e| self.fail("reading", &e))?;
        let Some(header) = bytes.get(..HEADER_BYTES) else {
            let text = format!("{}/{name} is too short", self.folder.name());
            return Err(Error::Corrupt(text));
        };
        self.open_end(&name, header)?;
        self.segments
            .update_last(self.last_time, HEADER_BYTES as u64);
        Ok(())
    }

    fn append_blocking(&mut self, records: &[Record]) -> Result<()> {
        if let Some(broken) = &self.broken {
            return Err(Error::Reopen(broken.clone()));
        }
        check_times(self.last_time, records)?;
        let Some(newest) = records.last() else {
            return Ok(());
        };
        let frame = Frame::encode(self.next_sequence, None, records)?;
        let bytes = self.segments.last().map_or(0, |last| last.bytes);
        if self.file.is_none() || bytes >= self.sizes.segment_bytes_max {
            self.start_segment()?;
        }
        self.write(&frame)?;
        self.next_sequence += 1;
        self.last_time = newest.time;
        let bytes = self.segments.last().map_or(0, |last| last.bytes);
        self.segments
            .update_last(newest.time, bytes + frame.len() as u64);
        Ok(())
    }

    /// Writes a frame and makes it durable, or leaves the segment as it was before.
    fn write(&mut self, frame: &[u8]) -> Result<()> {
        let before = self.segments.last().map_or(0, |last| last.bytes);
        let Some(file) = &mut self.file else {
            return Err(Error::Reopen("the log has no open segment".into()));
        };
        if crash::due(crash::BINDING_APPEND) {
            let _ = file.append(&frame[..frame.len() / 2]);
            crash::now(crash::BINDING_APPEND);
        }
        let written = file.append(frame);
        crash::point(crash::BINDING_APPEND);
        let synced = match self.plant {
            Plant::AcknowledgeBeforeSync => written.is_ok().then_some(Ok(())),
            _ => written.is_ok().then(|| file.sync()),
        };
        let error = match (&written, &synced) {
            (Err(error), _) | (Ok(()), Some(Err(error))) => error_like(error),
            _ => return Ok(()),
        };
        let failed = self.fail("appending to", &error);
        let cut = match &mut self.file {
            Some(file) => file.truncate(before).and_then(|()| file.sync()),
            None => Ok(()),
        };
        if synced.is_some() {
            self.file = None;
        }
        match cut {
            Ok(()) => Err(failed),
            Err(cut) => {
                let text = format!("{failed}; then its end could not be cut off: {cut}");
                self.broken = Some(text.clone());
                Err(Error::Reopen(text))
            }
        }
    }

    fn truncate_blocking(&mut self, time: Time) -> Result<()> {
        if let Some(broken) = &self.broken {
            return Err(Error::Reopen(broken.clone()));
        }
        let last = self.segments.last();
        // Also if it has records that are still needed: under load there always are some, and the
        // segment would never end. The truncation after this one frees it.
        if last.is_some_and(|last| last.bytes >= self.sizes.segment_bytes_min) {
            self.start_segment()?;
        }
        for segment in self.segments.retire(time) {
            let name = segment_name(segment.first_sequence);
            let removed = match self.folder.remove(&name) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                other => other,
            };
            let removed = removed.and_then(|()| self.folder.sync());
            removed.map_err(|e| self.fail("truncating", &e))?;
            self.segments.deleted(segment.first_sequence);
        }
        Ok(())
    }
}

fn error_like(error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), error.to_string())
}

fn check_place(place: &str, number: u64, header: Header, segment: &Segment) -> Result<()> {
    if header.first_sequence != number {
        return Err(Error::Corrupt(format!(
            "{place}: the segment says that its number is {}",
            header.first_sequence
        )));
    }
    if segment.frames.iter().any(|frame| frame.fence.is_some()) {
        let text = format!("{place}: this is an object of a bucket's log, not a file");
        return Err(Error::Corrupt(text));
    }
    Ok(())
}

/// Records between a checkpoint and the start of the log are gone.
pub(super) fn missing(place: &str, start: Time, found: &str) -> Error {
    Error::Corrupt(format!(
        "{place}: the log does not reach back to the checkpoint at {start}: {found}"
    ))
}

#[async_trait]
impl BindingLog for FileLog {
    async fn append(&mut self, records: &[Record]) -> Result<()> {
        self.append_blocking(records)
    }

    fn truncate_before(&mut self, time: Time) -> BoxFuture<'static, Result<()>> {
        Box::pin(future::ready(self.truncate_blocking(time)))
    }

    fn last_time(&self) -> Time {
        self.last_time
    }

    fn read_after(&self, time: Time) -> Box<dyn LogReader> {
        Box::new(FileReader {
            folder: self.folder.clone(),
            hold: self.segments.hold_after(time),
            after: time,
            records: VecDeque::new(),
            place: self.folder.name(),
        })
    }

    fn bytes(&self) -> u64 {
        self.segments.bytes()
    }
}

struct FileReader {
    folder: Arc<dyn LogFolder>,
    hold: Hold,
    after: Time,
    /// Of the segment that was read last.
    records: VecDeque<Record>,
    place: String,
}

impl FileReader {
    fn load(&mut self, info: &SegmentInfo) -> Result<VecDeque<Record>> {
        let name = segment_name(info.first_sequence);
        let place = format!("{}/{name}", self.folder.name());
        let failed = |error| Error::io(&format!("reading {place}"), &error);
        let bytes = self.folder.read(&name).map_err(failed)?;
        let length = usize::try_from(info.bytes).unwrap_or(usize::MAX);
        let Some(durable) = bytes.get(..length) else {
            return Err(Error::Corrupt(format!("{place} is too short")));
        };
        let segment = Segment::decode(&place, durable)?;
        self.place = place;
        let records = segment.frames.into_iter().flat_map(|frame| frame.records);
        Ok(records.filter(|record| record.time > self.after).collect())
    }
}

#[async_trait]
impl LogReader for FileReader {
    async fn next(&mut self) -> Result<Option<Record>> {
        loop {
            if let Some(record) = self.records.pop_front() {
                return Ok(Some(record));
            }
            let Some(info) = self.hold.needed.front().cloned() else {
                return Ok(None);
            };
            self.records = self.load(&info)?;
            self.hold.needed.pop_front();
        }
    }

    fn place(&self) -> String {
        self.place.clone()
    }
}

#[cfg(test)]
mod tests;
