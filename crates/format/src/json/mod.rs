//! `ENCODE JSON`: messages to Arrow columns, one pass per message, no tree.
//!
//! ```text
//!   payload ── scan ──> tokens ── object ──> slots, one per column ── columns ──> Arrow arrays
//!              (grammar)          (names)     (only when the whole     (scalar, time: types)
//!                                              message is JSON)
//! ```
//!
//! A message's tokens are collected first and appended when it has parsed to its end, because a
//! message that is no JSON must leave no row. What it is worth:
//!
//! | message | rows | errors |
//! | --- | --- | --- |
//! | an object | one | one per field that does not fit its column, which is then NULL |
//! | an array | one per object in it | the same, and one per element that is no object |
//! | no payload at all (a tombstone) | none | none |
//! | anything else: another value, no JSON, no UTF-8, text after the value | none | one |
//!
//! A missing field and `null` are NULL, fields without a column are checked and ignored. Names
//! match in any ASCII case; of several that match, one of the exact case wins, then the last.

mod columns;
mod object;
mod options;
mod scalar;
mod scan;
mod time;

use std::sync::Arc;

use arrow::array::ArrayRef;
use ruslo_repr::{Error, Result, Schema};

use columns::{Column, Context};
use object::{ObjectReader, Slot};
use scan::{Invalid, Scanner};

pub(crate) use options::unrecognized;
pub use options::{JsonOptions, TimeMode, TimestampMode};

/// Bytes of a payload that a [`DecodeError`] keeps.
pub const PAYLOAD_KEPT_MAX: usize = 64 * 1024;

/// Where a message stands in its topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    pub partition: i32,
    pub offset: i64,
}

/// A message, an element of one, or a field that could not be decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecodeError {
    pub partition: i32,
    pub offset: i64,
    /// The element of a top-level array, counted from 0.
    pub element: Option<u32>,
    /// The source's column that was left NULL; None if there is no row at all.
    pub column: Option<usize>,
    pub reason: String,
    /// The message from its start, at most [`PAYLOAD_KEPT_MAX`] bytes; shared by its errors.
    pub payload: Arc<[u8]>,
    /// How long the whole payload was.
    pub payload_bytes: usize,
}

impl DecodeError {
    /// Whether `payload` is not all of the message.
    pub fn is_truncated(&self) -> bool {
        self.payload.len() < self.payload_bytes
    }
}

/// What a decoder made of the messages since it was last asked.
#[derive(Debug)]
pub struct Decoded {
    /// One array per wanted column, each as long as `rows`.
    pub columns: Vec<ArrayRef>,
    pub rows: usize,
    pub errors: Vec<DecodeError>,
}

/// Decodes a source's messages for a chosen part of its columns, many into one batch.
pub struct JsonDecoder {
    /// The wanted columns' positions in the source.
    wanted: Vec<usize>,
    columns: Vec<Column>,
    reader: ObjectReader,
    slots: Vec<Slot>,
    context: Context,
    rows: usize,
    bytes: usize,
    errors: Vec<DecodeError>,
}

impl JsonDecoder {
    /// `columns` are positions in `schema`. Without any, rows are counted and messages checked.
    ///
    /// Fails with `Unsupported` for a type that JSON cannot fill.
    pub fn new(schema: &Schema, columns: &[usize], options: JsonOptions) -> Result<Self> {
        let wanted = columns.iter().map(|&i| {
            let column = schema.columns.get(i);
            column.ok_or_else(|| Error::internal(format!("the source has no column {i}")))
        });
        let wanted = wanted.collect::<Result<Vec<_>>>()?;
        let built = wanted.iter().map(|column| Column::new(&column.ty));
        Ok(JsonDecoder {
            wanted: columns.to_vec(),
            columns: built.collect::<Result<_>>()?,
            reader: ObjectReader::new(wanted.iter().map(|c| c.name.clone()).collect()),
            slots: vec![],
            context: Context::new(options),
            rows: 0,
            bytes: 0,
            errors: vec![],
        })
    }

    /// Appends the rows of one message; None is a message without payload.
    pub fn push(&mut self, payload: Option<&[u8]>, position: Position) {
        let Some(payload) = payload else { return };
        self.bytes += payload.len();
        let mut message = Message {
            payload,
            position,
            kept: None,
        };
        let text = match std::str::from_utf8(payload) {
            Ok(text) => text,
            Err(error) => {
                let reason = format!("not UTF-8 at byte {}", error.valid_up_to());
                self.errors.push(message.error(None, None, reason));
                return;
            }
        };
        let mut scanner = Scanner::new(text);
        let read = match scanner.peek() {
            Some(b'{') => self.push_object(text, &mut message),
            Some(b'[') => self.push_array(text, &mut message),
            _ => Err(no_object(scanner)),
        };
        if let Err(reason) = read {
            self.errors.push(message.error(None, None, reason));
        }
    }

    /// Rows since the last [`JsonDecoder::finish`].
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Bytes of the payloads since the last [`JsonDecoder::finish`]. Stay well under 2 GiB, which
    /// is the most that a column of a batch can hold.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Hands out what was decoded and starts anew.
    pub fn finish(&mut self) -> Decoded {
        self.bytes = 0;
        Decoded {
            columns: self.columns.iter_mut().map(Column::finish).collect(),
            rows: std::mem::take(&mut self.rows),
            errors: std::mem::take(&mut self.errors),
        }
    }

    fn push_object(&mut self, text: &str, message: &mut Message) -> Result<(), String> {
        let mut scanner = Scanner::new(text);
        let read = self.read_object(text, &mut scanner);
        read.and_then(|()| scanner.finish()).map_err(no_json)?;
        self.append(text, message, None);
        Ok(())
    }

    /// The array is scanned twice, so that rows need not be kept until its end is found sound.
    fn push_array(&mut self, text: &str, message: &mut Message) -> Result<(), String> {
        let mut scanner = Scanner::new(text);
        let checked = scanner.value().and_then(|_| scanner.finish());
        checked.map_err(no_json)?;
        let mut scanner = Scanner::new(text);
        scanner.open_array().map_err(no_json)?;
        let mut element = 0;
        while scanner.next_element(element == 0).map_err(no_json)? {
            if scanner.peek() == Some(b'{') {
                self.read_object(text, &mut scanner).map_err(no_json)?;
                self.append(text, message, Some(element));
            } else {
                let token = scanner.value().map_err(no_json)?;
                let reason = format!("the element is {}, not an object", token.kind.name());
                self.errors.push(message.error(Some(element), None, reason));
            }
            element += 1;
        }
        Ok(())
    }

    fn read_object(&mut self, text: &str, scanner: &mut Scanner) -> Result<(), Invalid> {
        self.slots.clear();
        self.slots.resize(self.columns.len(), Slot::MISSING);
        self.reader.read(text, scanner, &mut self.slots)
    }

    /// Appends the slots as a row.
    fn append(&mut self, text: &str, message: &mut Message, element: Option<u32>) {
        self.rows += 1;
        for (i, (column, slot)) in self.columns.iter_mut().zip(&self.slots).enumerate() {
            if let Err(misfit) = column.push(text, slot.value, &mut self.context) {
                let column = self.wanted.get(i).copied();
                self.errors
                    .push(message.error(element, column, misfit.to_string()));
            }
        }
    }
}

/// A message at hand, and the copy of its payload once an error asked for it.
struct Message<'a> {
    payload: &'a [u8],
    position: Position,
    kept: Option<Arc<[u8]>>,
}

impl Message<'_> {
    #[cold]
    fn error(
        &mut self,
        element: Option<u32>,
        column: Option<usize>,
        reason: String,
    ) -> DecodeError {
        let len = self.payload.len().min(PAYLOAD_KEPT_MAX);
        let kept = self.kept.get_or_insert_with(|| self.payload[..len].into());
        DecodeError {
            partition: self.position.partition,
            offset: self.position.offset,
            element,
            column,
            reason,
            payload: kept.clone(),
            payload_bytes: self.payload.len(),
        }
    }
}

#[cold]
fn no_json(invalid: Invalid) -> String {
    format!("not JSON: {invalid}")
}

/// Why a text that starts with neither brace nor bracket gives no row.
#[cold]
fn no_object(mut scanner: Scanner) -> String {
    if scanner.peek().is_none() {
        return "the message is empty".into();
    }
    match scanner
        .value()
        .and_then(|token| scanner.finish().map(|()| token))
    {
        Ok(token) => format!("the message is {}, not an object", token.kind.name()),
        Err(invalid) => no_json(invalid),
    }
}

#[cfg(test)]
mod tests;
