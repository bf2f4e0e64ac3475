//! A statement's rows on their way to the client.

use std::collections::VecDeque;
use std::io;

use arrow::array::{Array, ArrayRef};
use arrow::datatypes::DataType;
use arrow::record_batch::RecordBatch;
use bytes::{BufMut, BytesMut};
use pgwire::messages::copy::CopyOutResponse;
use pgwire::messages::data::{FieldDescription, RowDescription};
use ruslo_engine::{Error, ErrorKind, Result, Schema, Subscription};
use ruslo_repr::text::{TextStyle, write_text};

use super::backend::{begin_message, end_message, put};
use super::cancel::Registration;
use super::wire::Wire;
use super::{binary, types};

/// How one result column is sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Format {
    Text,
    Binary,
}

/// How rows are sent.
#[derive(Clone, Copy)]
pub(super) enum Form<'a> {
    /// A DataRow each, with a format per column.
    Data(&'a [Format]),
    /// A line of text each, as COPY has it.
    Copy,
}

/// Rows not sent yet, batch by batch.
pub(super) struct Cursor {
    batches: VecDeque<RecordBatch>,
    /// Rows of the first batch that are sent already.
    offset: usize,
    /// Where more batches come from, without end.
    more: Option<Box<Subscription>>,
}

/// How sending ended, short of a broken connection.
pub(super) enum Sent {
    /// This many rows, and there are no more.
    All(u64),
    /// The limit was reached and there are more.
    Suspended,
    Failed(Error),
}

impl Cursor {
    pub(super) fn new(batches: Vec<RecordBatch>) -> Self {
        let batches = batches
            .into_iter()
            .filter(|batch| batch.num_rows() > 0)
            .collect();
        Cursor {
            batches,
            offset: 0,
            more: None,
        }
    }

    /// Of rows that come without end.
    pub(super) fn of_changes(changes: Box<Subscription>) -> Self {
        Cursor {
            batches: VecDeque::new(),
            offset: 0,
            more: Some(changes),
        }
    }

    /// Called before it is gone on with: a cancelling that came in between is not meant.
    pub(super) fn resume(&mut self) {
        if let Some(changes) = &mut self.more {
            changes.resume();
        }
    }

    /// Sends up to `limit` rows, waiting for the client to take them. Where rows come without end
    /// a limit is reached as soon as no more of them are there.
    pub(super) async fn send(
        &mut self,
        wire: &mut Wire,
        form: Form<'_>,
        style: &TextStyle,
        limit: Option<u64>,
        registration: &Registration,
    ) -> io::Result<Sent> {
        let mut sent = 0;
        let mut scratch = String::new();
        loop {
            let Some(batch) = self.batches.front() else {
                let Some(changes) = &mut self.more else {
                    return Ok(Sent::All(sent));
                };
                if limit.is_some() && sent > 0 {
                    return Ok(Sent::Suspended);
                }
                // What was sent so far is not to wait for what comes next.
                wire.flush().await?;
                match wire.attend(&registration.handle, changes.next()).await {
                    Ok(batch) => self.batches.push_back(batch),
                    Err(error) => return Ok(Sent::Failed(error)),
                }
                continue;
            };
            if limit.is_some_and(|limit| sent >= limit) {
                return Ok(Sent::Suspended);
            }
            if registration.requested() {
                let message = "canceling statement due to user request";
                return Ok(Sent::Failed(Error::new(ErrorKind::Cancelled, message)));
            }
            let left = limit.map_or(u64::MAX, |limit| limit - sent);
            let end = batch
                .num_rows()
                .min(self.offset.saturating_add(left as usize));
            match put_rows(
                &mut wire.output,
                batch,
                self.offset..end,
                form,
                style,
                &mut scratch,
            ) {
                Ok(rows) => {
                    sent += rows as u64;
                    self.offset += rows;
                }
                Err(error) => return Ok(Sent::Failed(error)),
            }
            if self.offset == batch.num_rows() {
                self.batches.pop_front();
                self.offset = 0;
            }
            wire.flush_if_full().await?;
        }
    }
}

/// Appends rows until the output is long enough to be written; gives the number appended.
fn put_rows(
    output: &mut BytesMut,
    batch: &RecordBatch,
    rows: std::ops::Range<usize>,
    form: Form<'_>,
    style: &TextStyle,
    scratch: &mut String,
) -> Result<usize> {
    let (start, end) = (rows.start, rows.end);
    for row in rows {
        if output.len() >= super::wire::OUTPUT_BYTES {
            return Ok(row - start);
        }
        let at = match form {
            Form::Data(_) => begin_message(output, b'D'),
            Form::Copy => begin_message(output, b'd'),
        };
        let put = match form {
            Form::Data(formats) => put_data(output, batch, row, formats, style, scratch),
            Form::Copy => {
                put_line(output, batch, row, style, scratch);
                Ok(())
            }
        };
        if let Err(error) = put {
            // Take the half row back, so that the error finds a well-formed stream.
            output.truncate(at - 1);
            return Err(error);
        }
        if !end_message(output, at) {
            return Err(Error::new(
                ErrorKind::OutOfRange,
                "a row is too long to be sent",
            ));
        }
    }
    Ok(end - start)
}

/// The values of a DataRow.
fn put_data(
    output: &mut BytesMut,
    batch: &RecordBatch,
    row: usize,
    formats: &[Format],
    style: &TextStyle,
    scratch: &mut String,
) -> Result<()> {
    output.put_i16(batch.num_columns() as i16);
    for (column, format) in batch.columns().iter().zip(formats) {
        match format {
            Format::Text => put_text(output, column, row, style, scratch)?,
            Format::Binary => binary::put_value(output, column, row)?,
        }
    }
    Ok(())
}

/// A line of COPY's text form: tabs between values, `\\N` for NULL, backslashes before what would
/// be read otherwise.
fn put_line(
    output: &mut BytesMut,
    batch: &RecordBatch,
    row: usize,
    style: &TextStyle,
    scratch: &mut String,
) {
    for (at, column) in batch.columns().iter().enumerate() {
        if at > 0 {
            output.put_u8(b'\t');
        }
        scratch.clear();
        if column.data_type() == &DataType::Null || !write_text(column, row, style, scratch) {
            output.put_slice(b"\\N");
            continue;
        }
        for &byte in scratch.as_bytes() {
            let escaped = match byte {
                b'\\' => b'\\',
                b'\t' => b't',
                b'\n' => b'n',
                b'\r' => b'r',
                0x08 => b'b',
                0x0b => b'v',
                0x0c => b'f',
                _ => {
                    output.put_u8(byte);
                    continue;
                }
            };
            output.put_slice(&[b'\\', escaped]);
        }
    }
    output.put_u8(b'\n');
}

fn put_text(
    output: &mut BytesMut,
    column: &ArrayRef,
    row: usize,
    style: &TextStyle,
    scratch: &mut String,
) -> Result<()> {
    scratch.clear();
    if column.data_type() == &DataType::Null || !write_text(column, row, style, scratch) {
        output.put_i32(-1);
        return Ok(());
    }
    let length = i32::try_from(scratch.len())
        .map_err(|_| Error::new(ErrorKind::OutOfRange, "a value is too long to be sent"))?;
    output.put_i32(length);
    output.put_slice(scratch.as_bytes());
    Ok(())
}

/// Appends the CopyOutResponse that comes before lines of this many values.
pub(super) fn put_copy_begin(output: &mut BytesMut, columns: usize) {
    let formats = vec![0; columns];
    put(output, &CopyOutResponse::new(0, columns as i16, formats));
}

/// Appends the RowDescription of `schema`; names are cut at a NUL as a C string would be.
pub(super) fn put_description(output: &mut BytesMut, schema: &Schema, formats: &[Format]) {
    let fields = schema.columns.iter().zip(formats).map(|(column, format)| {
        let name = column
            .name
            .split('\0')
            .next()
            .unwrap_or_default()
            .to_string();
        let code = i16::from(*format == Format::Binary);
        FieldDescription::new(
            name,
            0,
            0,
            types::oid(&column.ty),
            types::size(&column.ty),
            -1,
            code,
        )
    });
    put(output, &RowDescription::new(fields.collect()));
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{BooleanArray, NullArray, StringArray};
    use std::sync::Arc;

    #[test]
    fn rows_are_length_prefixed_values() {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from(vec![Some("click"), None])),
            Arc::new(BooleanArray::from(vec![true, false])),
            Arc::new(NullArray::new(2)),
        ];
        let batch = ruslo_repr::row::unnamed_batch(columns, 2).unwrap();
        let mut output = BytesMut::new();
        let formats = [Format::Text, Format::Binary, Format::Text];
        let style = TextStyle::default();
        let rows = put_rows(
            &mut output,
            &batch,
            0..2,
            Form::Data(&formats),
            &style,
            &mut String::new(),
        );
        assert_eq!(rows.unwrap(), 2);
        let first = b"D\0\0\0\x18\0\x03\0\0\0\x05click\0\0\0\x01\x01\xff\xff\xff\xff";
        let second = b"D\0\0\0\x13\0\x03\xff\xff\xff\xff\0\0\0\x01\0\xff\xff\xff\xff";
        assert_eq!(output[..], [&first[..], &second[..]].concat());
    }

    #[test]
    fn lines_of_copy_have_values_between_tabs() {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from(vec![Some("a\tb\\\n"), None, Some("")])),
            Arc::new(BooleanArray::from(vec![true, false, true])),
        ];
        let batch = ruslo_repr::row::unnamed_batch(columns, 3).unwrap();
        let mut output = BytesMut::new();
        for row in 0..3 {
            let style = TextStyle::default();
            put_line(&mut output, &batch, row, &style, &mut String::new());
        }
        assert_eq!(output[..], b"a\\tb\\\\\\n\tt\n\\N\tf\n\tt\n"[..]);
    }
}
