//! A statement's rows on their way to the client.

use std::collections::VecDeque;
use std::io;

use arrow::array::{Array, ArrayRef};
use arrow::datatypes::DataType;
use arrow::record_batch::RecordBatch;
use bytes::{BufMut, BytesMut};
use pgwire::messages::data::{FieldDescription, RowDescription};
use ruslo_engine::{Error, ErrorKind, Result, Schema};
use ruslo_repr::text::{TextStyle, write_text};

use super::backend::{begin_message, end_message, put};
use super::wire::Wire;
use super::{binary, types};

/// How one result column is sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Format {
    Text,
    Binary,
}

/// Rows not sent yet, batch by batch.
pub(super) struct Cursor {
    batches: VecDeque<RecordBatch>,
    /// Rows of the first batch that are sent already.
    offset: usize,
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
        Cursor { batches, offset: 0 }
    }

    /// Sends up to `limit` rows, waiting for the client to take them.
    pub(super) async fn send(
        &mut self,
        wire: &mut Wire,
        formats: &[Format],
        style: &TextStyle,
        limit: Option<u64>,
        cancelled: impl Fn() -> bool,
    ) -> io::Result<Sent> {
        let mut sent = 0;
        let mut scratch = String::new();
        while let Some(batch) = self.batches.front() {
            if limit.is_some_and(|limit| sent >= limit) {
                return Ok(Sent::Suspended);
            }
            if cancelled() {
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
                formats,
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
        Ok(Sent::All(sent))
    }
}

/// Appends rows until the output is long enough to be written; gives the number appended.
fn put_rows(
    output: &mut BytesMut,
    batch: &RecordBatch,
    rows: std::ops::Range<usize>,
    formats: &[Format],
    style: &TextStyle,
    scratch: &mut String,
) -> Result<usize> {
    let (start, end) = (rows.start, rows.end);
    for row in rows {
        if output.len() >= super::wire::OUTPUT_BYTES {
            return Ok(row - start);
        }
        let at = begin_message(output, b'D');
        output.put_i16(batch.num_columns() as i16);
        for (column, format) in batch.columns().iter().zip(formats) {
            let put = match format {
                Format::Text => put_text(output, column, row, style, scratch),
                Format::Binary => binary::put_value(output, column, row),
            };
            if let Err(error) = put {
                // Take the half row back, so that the error finds a well-formed stream.
                output.truncate(at - 1);
                return Err(error);
            }
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
            &formats,
            &style,
            &mut String::new(),
        );
        assert_eq!(rows.unwrap(), 2);
        let first = b"D\0\0\0\x18\0\x03\0\0\0\x05click\0\0\0\x01\x01\xff\xff\xff\xff";
        let second = b"D\0\0\0\x13\0\x03\xff\xff\xff\xff\0\0\0\x01\0\xff\xff\xff\xff";
        assert_eq!(output[..], [&first[..], &second[..]].concat());
    }
}
