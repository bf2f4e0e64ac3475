//! Bad rows of a source as rows of a durable collection.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, Int32Array, Int64Array, RecordBatch, StringArray,
};
use arrow::datatypes::{DataType, Field, Int32Type, Int64Type, Schema, SchemaRef};
use ruslo_format::DecodeError;
use ruslo_repr::{Error, Result};

use crate::bad_data::BadRow;

/// The columns that tell rows apart.
pub(super) fn schema() -> SchemaRef {
    Arc::new(Schema::new(fields()))
}

fn fields() -> Vec<Field> {
    vec![
        Field::new("partition", DataType::Int32, false),
        Field::new("offset", DataType::Int64, false),
        Field::new("element", DataType::Int64, true),
        Field::new("column", DataType::Int64, true),
        Field::new("reason", DataType::Utf8, false),
        Field::new("payload", DataType::Binary, false),
        Field::new("payload_bytes", DataType::Int64, false),
        Field::new("time_us", DataType::Int64, false),
    ]
}

pub(super) fn encode(come: &[BadRow], gone: &[BadRow]) -> Result<RecordBatch> {
    let rows = || come.iter().chain(gone);
    let errors = || rows().map(|row| &row.error);
    let number = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    let micros = |row: &BadRow| {
        let since = row.time.duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
    };
    let partitions: Int32Array = errors().map(|e| e.partition).collect();
    let offsets: Int64Array = errors().map(|e| e.offset).collect();
    let elements: Int64Array = errors().map(|e| e.element.map(i64::from)).collect();
    let columns: Int64Array = errors().map(|e| e.column.map(number)).collect();
    let reasons: StringArray = errors().map(|e| Some(e.reason.as_str())).collect();
    let payloads: BinaryArray = errors().map(|e| Some(&e.payload[..])).collect();
    let sizes: Int64Array = errors().map(|e| number(e.payload_bytes)).collect();
    let times: Int64Array = rows().map(micros).collect();
    let diffs = come.iter().map(|_| 1).chain(gone.iter().map(|_| -1));
    let diffs: Int64Array = diffs.collect();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(partitions),
        Arc::new(offsets),
        Arc::new(elements),
        Arc::new(columns),
        Arc::new(reasons),
        Arc::new(payloads),
        Arc::new(sizes),
        Arc::new(times),
        Arc::new(diffs),
    ];
    let mut all = fields();
    all.push(Field::new("diff", DataType::Int64, false));
    Ok(RecordBatch::try_new(Arc::new(Schema::new(all)), columns)?)
}

/// Rows with their diffs, which add up.
pub(super) fn decode(batch: &RecordBatch) -> Result<Vec<(BadRow, i64)>> {
    if batch.num_columns() != fields().len() + 1 {
        return Err(Error::internal("stored decode errors have other columns"));
    }
    let long = |i: usize| batch.column(i).as_primitive::<Int64Type>();
    let optional = |i: usize, row| long(i).is_valid(row).then(|| long(i).value(row));
    let rows = (0..batch.num_rows()).map(|row| {
        let error = DecodeError {
            partition: batch.column(0).as_primitive::<Int32Type>().value(row),
            offset: long(1).value(row),
            element: optional(2, row).and_then(|n| u32::try_from(n).ok()),
            column: optional(3, row).and_then(|n| usize::try_from(n).ok()),
            reason: batch.column(4).as_string::<i32>().value(row).to_string(),
            payload: batch.column(5).as_binary::<i32>().value(row).into(),
            payload_bytes: usize::try_from(long(6).value(row)).unwrap_or_default(),
        };
        let micros = u64::try_from(long(7).value(row)).unwrap_or_default();
        let time = UNIX_EPOCH + Duration::from_micros(micros);
        (BadRow { error, time }, long(8).value(row))
    });
    Ok(rows.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_back_as_they_were() {
        let row = |offset| BadRow {
            error: DecodeError {
                partition: 3,
                offset,
                element: (offset == 1).then_some(2),
                column: (offset == 2).then_some(0),
                reason: "not an integer".into(),
                payload: b"{\xff".as_slice().into(),
                payload_bytes: 70_000,
            },
            time: UNIX_EPOCH + Duration::from_micros(1_700_000_000_123_456),
        };
        let batch = encode(&[row(1), row(2)], &[row(3)]).unwrap();
        let back = decode(&batch).unwrap();
        let expected = [(row(1), 1), (row(2), 1), (row(3), -1)];
        assert_eq!(format!("{back:?}"), format!("{expected:?}"));
    }
}
