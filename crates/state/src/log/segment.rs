//! The bytes of a log segment.
//!
//! ```text
//!   segment   header | frame | frame | …
//!   header    "RUSLOLOG" | version u32 | first sequence u64 | previous time u64 | crc u32
//!   frame     "FRM1" | length u32 | crc u32 | payload of that length
//!   payload   json length u32 | json | blobs
//! ```
//!
//! Numbers are little-endian, checksums CRC32C: of the header before it; of the frame's length
//! and payload. The JSON has the frame's sequence number and its records; the rows of a table are
//! an Arrow IPC stream among the blobs, at the place the JSON says. A frame is one append.
//! Sequence numbers grow by one from frame to frame, so a frame that is missing is noticed, and
//! `previous time` says what came before a segment, so a segment that is missing is, too.

use std::io::Cursor;
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_ipc::reader::StreamReader;
use arrow_ipc::writer::StreamWriter;
use serde::{Deserialize, Serialize};

use super::{Entry, Offsets, Record};
use crate::error::{Error, Result};
use crate::{FORMAT_VERSION, Time};

const MAGIC: &[u8; 8] = b"RUSLOLOG";
const FRAME_MAGIC: &[u8; 4] = b"FRM1";
pub(super) const HEADER_BYTES: usize = 32;
const FRAME_HEAD_BYTES: usize = 12;

/// The header of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) first_sequence: u64,
    /// The time of the last record before this segment; 0 if there was none.
    pub(super) previous_time: Time,
}

impl Header {
    pub(super) fn encode(self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_BYTES);
        bytes.extend(MAGIC);
        bytes.extend(FORMAT_VERSION.to_le_bytes());
        bytes.extend(self.first_sequence.to_le_bytes());
        bytes.extend(self.previous_time.to_le_bytes());
        bytes.extend(crc32c::crc32c(&bytes).to_le_bytes());
        bytes
    }

    /// None if the bytes are no header that was written whole.
    fn decode(bytes: &[u8]) -> Option<Result<Header>> {
        let bytes = bytes.get(..HEADER_BYTES)?;
        if &bytes[..8] != MAGIC || u32_at(bytes, 28) != crc32c::crc32c(&bytes[..28]) {
            return None;
        }
        let version = u32_at(bytes, 8);
        if version != FORMAT_VERSION {
            return Some(Err(Error::UnsupportedVersion(format!(
                "it has format version {version}; this program reads {FORMAT_VERSION}"
            ))));
        }
        Some(Ok(Header {
            first_sequence: u64_at(bytes, 12),
            previous_time: u64_at(bytes, 20),
        }))
    }
}

/// What one append wrote.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) sequence: u64,
    /// Set in a frame that takes a bucket's log over; it has no records.
    pub(super) fence: Option<u64>,
    pub(super) records: Vec<Record>,
}

#[derive(Serialize, Deserialize)]
struct FrameJson {
    sequence: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    fence: Option<u64>,
    #[serde(default)]
    records: Vec<RecordJson>,
}

#[derive(Serialize, Deserialize)]
struct RecordJson {
    time: Time,
    entries: Vec<EntryJson>,
}

/// The fields that an entry has follow from its kind.
#[derive(Default, Serialize, Deserialize)]
struct EntryJson {
    kind: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    offsets: Option<Offsets>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    table: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    offset: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    bytes: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    change: Option<serde_json::Value>,
}

impl Frame {
    pub(super) fn encode(sequence: u64, fence: Option<u64>, records: &[Record]) -> Result<Vec<u8>> {
        let mut blobs = vec![];
        let mut shown = vec![];
        for record in records {
            let mut entries = vec![];
            for entry in &record.entries {
                entries.push(entry_to_json(entry, &mut blobs)?);
            }
            let time = record.time;
            shown.push(RecordJson { time, entries });
        }
        let json = serde_json::to_vec(&FrameJson {
            sequence,
            fence,
            records: shown,
        });
        let json = json.map_err(|error| Error::InvalidUse(format!("a log entry: {error}")))?;
        let payload_bytes = 4 + json.len() + blobs.len();
        let too_large = |_| Error::InvalidUse("one append to the log has over 4 GiB".into());
        let length = u32::try_from(payload_bytes).map_err(too_large)?;
        let mut bytes = Vec::with_capacity(FRAME_HEAD_BYTES + payload_bytes);
        bytes.extend(FRAME_MAGIC);
        bytes.extend(length.to_le_bytes());
        bytes.extend([0; 4]);
        bytes.extend((json.len() as u32).to_le_bytes());
        bytes.extend(&json);
        bytes.extend(&blobs);
        let crc = frame_crc(length, &bytes[FRAME_HEAD_BYTES..]);
        bytes[8..12].copy_from_slice(&crc.to_le_bytes());
        Ok(bytes)
    }

    /// The frame at the start of `bytes` and its length; None if there is no whole one.
    fn decode(bytes: &[u8]) -> Option<Result<(Frame, usize)>> {
        let head = bytes.get(..FRAME_HEAD_BYTES)?;
        let length = u32_at(head, 4);
        let end = FRAME_HEAD_BYTES.checked_add(length as usize)?;
        let payload = bytes.get(FRAME_HEAD_BYTES..end)?;
        if &head[..4] != FRAME_MAGIC || u32_at(head, 8) != frame_crc(length, payload) {
            return None;
        }
        Some(decode_payload(payload).map(|frame| (frame, end)))
    }
}

fn frame_crc(length: u32, payload: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&length.to_le_bytes()), payload)
}

fn entry_to_json(entry: &Entry, blobs: &mut Vec<u8>) -> Result<EntryJson> {
    Ok(match entry {
        Entry::Binding { offsets } => EntryJson {
            kind: "binding".into(),
            offsets: Some(offsets.clone()),
            ..EntryJson::default()
        },
        Entry::Catalog { change } => EntryJson {
            kind: "catalog".into(),
            change: Some(change.clone()),
            ..EntryJson::default()
        },
        Entry::Rows { table, updates } => {
            let offset = blobs.len();
            let written = StreamWriter::try_new(&mut *blobs, &updates.schema())
                .and_then(|mut writer| writer.write(updates).and_then(|()| writer.finish()));
            written
                .map_err(|error| Error::InvalidUse(format!("rows of table {table}: {error}")))?;
            EntryJson {
                kind: "rows".into(),
                table: Some(*table),
                offset: Some(offset),
                bytes: Some(blobs.len() - offset),
                ..EntryJson::default()
            }
        }
    })
}

/// None if the entry lacks what its kind needs.
fn entry_from_json(json: EntryJson, blobs: &[u8]) -> Option<Entry> {
    match json.kind.as_str() {
        "binding" => Some(Entry::Binding {
            offsets: json.offsets?,
        }),
        "catalog" => Some(Entry::Catalog {
            change: json.change.unwrap_or_default(),
        }),
        "rows" => {
            let end = json.offset?.checked_add(json.bytes?)?;
            Some(Entry::Rows {
                table: json.table?,
                updates: decode_rows(blobs.get(json.offset?..end)?).ok()?,
            })
        }
        _ => None,
    }
}

/// Fails only if the checksum is right and the content is not: an error of the writer.
fn decode_payload(payload: &[u8]) -> Result<Frame> {
    let broken = |what: &str| Error::Corrupt(format!("a log frame {what}"));
    let json_bytes = payload.get(..4).map(|bytes| u32_at(bytes, 0) as usize);
    let json_end = json_bytes.and_then(|bytes| bytes.checked_add(4));
    let json = json_end.and_then(|end| Some((payload.get(4..end)?, payload.get(end..)?)));
    let (json, blobs) = json.ok_or_else(|| broken("is shorter than it says"))?;
    let frame: FrameJson =
        serde_json::from_slice(json).map_err(|error| broken(&format!("has bad JSON: {error}")))?;
    let mut records = vec![];
    for record in frame.records {
        let entries = record.entries.into_iter();
        let entries = entries.map(|entry| entry_from_json(entry, blobs));
        let entries: Option<Vec<Entry>> = entries.collect();
        records.push(Record {
            time: record.time,
            entries: entries.ok_or_else(|| broken("has an entry that cannot be read"))?,
        });
    }
    Ok(Frame {
        sequence: frame.sequence,
        fence: frame.fence,
        records,
    })
}

fn decode_rows(blob: &[u8]) -> Result<RecordBatch, arrow_schema::ArrowError> {
    let mut reader = StreamReader::try_new(Cursor::new(blob), None)?;
    match reader.next() {
        Some(batch) => batch,
        None => Ok(RecordBatch::new_empty(Arc::clone(&reader.schema()))),
    }
}

/// What a segment's bytes hold.
#[derive(Debug)]
pub(super) struct Segment {
    /// None if the segment was torn before its header was whole.
    pub(super) header: Option<Header>,
    pub(super) frames: Vec<Frame>,
    /// Bytes up to the end of the last whole frame.
    pub(super) valid_bytes: usize,
}

impl Segment {
    /// Takes a segment apart. What follows the last whole frame is left out, and only there may
    /// be something else than whole frames: that is what a torn append leaves.
    pub(super) fn decode(name: &str, bytes: &[u8]) -> Result<Segment> {
        let Some(header) = Header::decode(bytes) else {
            // A segment's header is durable before its first frame is written.
            return match bytes.len() <= HEADER_BYTES {
                true => Ok(Segment {
                    header: None,
                    frames: vec![],
                    valid_bytes: 0,
                }),
                false => Err(Error::Corrupt(format!("{name}: the header is broken"))),
            };
        };
        let header = header.map_err(|error| in_file(name, error))?;
        let mut segment = Segment {
            header: Some(header),
            frames: vec![],
            valid_bytes: HEADER_BYTES,
        };
        while let Some(frame) = Frame::decode(&bytes[segment.valid_bytes..]) {
            let (frame, length) = frame.map_err(|error| in_file(name, error))?;
            let expected = header.first_sequence + segment.frames.len() as u64;
            if frame.sequence != expected {
                return Err(Error::Corrupt(format!(
                    "{name}: frame {} stands where {expected} should",
                    frame.sequence
                )));
            }
            segment.frames.push(frame);
            segment.valid_bytes += length;
        }
        match find_frame(&bytes[segment.valid_bytes..]) {
            None => Ok(segment),
            Some(offset) => Err(Error::Corrupt(format!(
                "{name}: bytes {} to {} are broken, and whole frames follow",
                segment.valid_bytes,
                segment.valid_bytes + offset
            ))),
        }
    }

    pub(super) fn first_sequence(&self) -> u64 {
        self.header.map_or(0, |header| header.first_sequence)
    }

    pub(super) fn next_sequence(&self) -> u64 {
        self.first_sequence() + self.frames.len() as u64
    }

    /// The time of the last record up to the end of this segment.
    pub(super) fn last_time(&self) -> Time {
        let times = self.frames.iter().flat_map(|frame| &frame.records);
        let last = times.map(|record| record.time).next_back();
        last.unwrap_or(self.header.map_or(0, |header| header.previous_time))
    }
}

/// Where the next whole frame begins.
fn find_frame(bytes: &[u8]) -> Option<usize> {
    let starts = bytes.windows(FRAME_MAGIC.len()).enumerate();
    let mut starts = starts.filter(|(_, window)| window == FRAME_MAGIC);
    starts.find_map(|(at, _)| Frame::decode(&bytes[at..]).map(|_| at))
}

fn in_file(name: &str, error: Error) -> Error {
    match error {
        Error::Corrupt(text) => Error::Corrupt(format!("{name}: {text}")),
        Error::UnsupportedVersion(text) => Error::UnsupportedVersion(format!("{name}: {text}")),
        other => other,
    }
}

/// The name of the segment that begins with a sequence number; names sort as numbers do.
pub(super) fn segment_name(first_sequence: u64) -> String {
    format!("{first_sequence:020}.log")
}

/// The number in a segment's name; None for other files.
pub(super) fn segment_number(name: &str) -> Option<u64> {
    let number = name.strip_suffix(".log")?;
    (number.len() == 20).then(|| number.parse().ok()).flatten()
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut number = [0; 4];
    number.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(number)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow_array::{Int64Array, StringArray};
    use proptest::prelude::*;

    fn record(time: Time) -> Record {
        let words = Arc::new(StringArray::from(vec![Some("a"), None])) as _;
        let diffs = Arc::new(Int64Array::from(vec![1, -1])) as _;
        let updates = RecordBatch::try_from_iter([("word", words), ("diff", diffs)]).unwrap();
        Record {
            time,
            entries: vec![
                Entry::Binding {
                    offsets: [(7, [(0, 5), (1, -1)].into())].into(),
                },
                Entry::Rows { table: 9, updates },
                Entry::Catalog {
                    change: serde_json::json!({"v": 1, "sql": "CREATE TABLE t (a int)"}),
                },
            ],
        }
    }

    fn segment(frames: u64) -> (Vec<u8>, Vec<usize>) {
        let header = Header {
            first_sequence: 4,
            previous_time: 10,
        };
        let mut bytes = header.encode();
        let mut ends = vec![bytes.len()];
        for i in 0..frames {
            bytes.extend(Frame::encode(4 + i, None, &[record(11 + i)]).unwrap());
            ends.push(bytes.len());
        }
        (bytes, ends)
    }

    #[test]
    fn records_come_back_as_they_were() {
        let (bytes, _) = segment(2);
        let segment = Segment::decode("s", &bytes).unwrap();
        assert_eq!(segment.frames[0].records, [record(11)]);
        assert_eq!(segment.frames[1].records, [record(12)]);
        assert_eq!((segment.next_sequence(), segment.last_time()), (6, 12));
        assert_eq!(segment.valid_bytes, bytes.len());
    }

    #[test]
    fn a_cut_anywhere_leaves_the_whole_frames_before_it() {
        let (bytes, ends) = segment(3);
        for cut in 0..bytes.len() {
            let whole = ends.iter().filter(|end| **end <= cut).count();
            let segment = Segment::decode("s", &bytes[..cut]).unwrap();
            assert_eq!(segment.header.is_some(), whole > 0, "cut at {cut}");
            assert_eq!(segment.frames.len(), whole.saturating_sub(1));
        }
    }

    #[test]
    fn a_broken_byte_before_a_whole_frame_is_an_error() {
        let (bytes, ends) = segment(3);
        for at in 0..ends[2] {
            let mut broken = bytes.clone();
            broken[at] ^= 0x10;
            let error = Segment::decode("0.log", &broken).unwrap_err();
            assert!(error.to_string().starts_with("0.log: "), "{error}");
        }
    }

    #[test]
    fn a_newer_version_is_refused() {
        let mut bytes = segment(1).0;
        bytes[8] = 2;
        let crc = crc32c::crc32c(&bytes[..28]);
        bytes[28..32].copy_from_slice(&crc.to_le_bytes());
        let error = Segment::decode("s", &bytes).unwrap_err();
        assert!(matches!(error, Error::UnsupportedVersion(_)), "{error}");
    }

    proptest! {
        #[test]
        fn no_bytes_make_decoding_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
            at in 0usize..400,
        ) {
            let _ = Segment::decode("s", &bytes);
            let mut whole = segment(2).0;
            let at = at.min(whole.len());
            whole.splice(at.., bytes);
            let _ = Segment::decode("s", &whole);
        }
    }
}
