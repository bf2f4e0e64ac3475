//! Rows as byte strings, the shape in which arrangements hold them.
//!
//! The bytes sort as the columns do (NULLs first, then ascending, column by column), and the
//! encoding of `[a, b]` is the encoding of `[a]` followed by that of `[b]`: a join may glue rows
//! together without decoding them. The bytes live only in memory: no file depends on them.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::compute::SortOptions;
use arrow::datatypes::DataType;
use arrow::row::{RowConverter, Rows, SortField};

use serde::{Deserialize, Serialize};

use crate::{Diff, Result, Schema};

/// One encoded row.
pub type RowBytes = Vec<u8>;

/// Encoded rows and how often each is there, in few allocations however many they are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CountedRows {
    bytes: Vec<u8>,
    /// Where each row ends in `bytes`.
    ends: Vec<usize>,
    diffs: Vec<Diff>,
}

impl CountedRows {
    /// Adds the row that these two parts make.
    pub fn push(&mut self, key: &[u8], value: &[u8], diff: Diff) {
        self.bytes.extend_from_slice(key);
        self.bytes.extend_from_slice(value);
        self.ends.push(self.bytes.len());
        self.diffs.push(diff);
    }

    pub fn append(&mut self, other: &CountedRows) {
        let shift = self.bytes.len();
        self.bytes.extend_from_slice(&other.bytes);
        self.ends.extend(other.ends.iter().map(|end| end + shift));
        self.diffs.extend_from_slice(&other.diffs);
    }

    /// How many different rows there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Bytes of all rows.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    pub fn diffs(&self) -> &[Diff] {
        &self.diffs
    }

    /// The bytes of row `i`; panics past the end.
    pub fn row(&self, i: usize) -> &[u8] {
        let start = i.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.bytes[start..self.ends[i]]
    }

    pub fn iter(&self) -> impl Iterator<Item = (&[u8], Diff)> {
        (0..self.len()).map(|i| (self.row(i), self.diffs[i]))
    }
}

/// Encodes and decodes rows of fixed column types, many at a time. Cheap to share in a thread.
pub struct RowCodec {
    converter: Option<RowConverter>,
    types: Vec<DataType>,
}

/// Encoded rows, borrowed one by one.
pub struct EncodedRows {
    rows: Option<Rows>,
    len: usize,
}

impl EncodedRows {
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The bytes of row `i`; panics past the end.
    pub fn row(&self, i: usize) -> &[u8] {
        match &self.rows {
            Some(rows) => rows.row(i).data(),
            None => &[],
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.len).map(|i| self.row(i))
    }
}

impl RowCodec {
    /// Fails with `Unsupported` for a type that has no row form.
    pub fn new(types: &[DataType]) -> Result<Self> {
        let fields = types.iter().map(|ty| {
            let ascending = SortOptions {
                descending: false,
                nulls_first: true,
            };
            SortField::new_with_options(ty.clone(), ascending)
        });
        let converter = match types {
            [] => None,
            _ => Some(RowConverter::new(fields.collect())?),
        };
        Ok(RowCodec {
            converter,
            types: types.to_vec(),
        })
    }

    pub fn types(&self) -> &[DataType] {
        &self.types
    }

    /// Encodes `len` rows; `columns` are arrays of that length in the codec's types.
    pub fn encode(&self, columns: &[ArrayRef], len: usize) -> Result<EncodedRows> {
        let rows = match &self.converter {
            None => None,
            Some(converter) => Some(converter.convert_columns(columns)?),
        };
        Ok(EncodedRows { rows, len })
    }

    /// Decodes rows that this codec (or one of equal types in this process) encoded.
    pub fn decode<'a>(&self, rows: impl IntoIterator<Item = &'a [u8]>) -> Result<Vec<ArrayRef>> {
        match &self.converter {
            None => Ok(vec![]),
            Some(converter) => {
                let parser = converter.parser();
                let rows = rows.into_iter().map(|bytes| parser.parse(bytes));
                Ok(converter.convert_rows(rows)?)
            }
        }
    }

    /// Decodes rows into a batch with the names of `schema`, whose types are the codec's.
    pub fn decode_batch<'a>(
        &self,
        schema: &Schema,
        rows: impl ExactSizeIterator<Item = &'a [u8]>,
    ) -> Result<RecordBatch> {
        let len = rows.len();
        let columns = self.decode(rows)?;
        batch_of(schema, columns, len)
    }
}

/// A batch of `len` rows, which also works for no columns at all.
pub fn batch_of(schema: &Schema, columns: Vec<ArrayRef>, len: usize) -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(len));
    Ok(RecordBatch::try_new_with_options(
        schema.to_arrow(),
        columns,
        &options,
    )?)
}

/// A batch whose columns have the given types and the names `c0`, `c1`, …
pub fn unnamed_batch(columns: Vec<ArrayRef>, len: usize) -> Result<RecordBatch> {
    let fields = columns.iter().enumerate();
    let schema = Schema::new(fields.map(|(i, c)| (format!("c{i}"), c.data_type().clone())));
    batch_of(&schema, columns, len)
}

/// Shares a codec between the closures of one worker.
pub type SharedCodec = Arc<RowCodec>;

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Int64Array, StringArray};

    #[test]
    fn glued_rows_decode_as_glued_columns() {
        let a: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), None]));
        let b: ArrayRef = Arc::new(StringArray::from(vec![
            Some("x"),
            Some("a longer string than a block of thirty-two bytes"),
        ]));
        let left = RowCodec::new(&[DataType::Int64]).unwrap();
        let right = RowCodec::new(&[DataType::Utf8]).unwrap();
        let both = RowCodec::new(&[DataType::Int64, DataType::Utf8]).unwrap();
        let l = left.encode(std::slice::from_ref(&a), 2).unwrap();
        let r = right.encode(std::slice::from_ref(&b), 2).unwrap();
        let glued: Vec<Vec<u8>> = (0..2).map(|i| [l.row(i), r.row(i)].concat()).collect();
        let decoded = both.decode(glued.iter().map(|g| g.as_slice())).unwrap();
        assert_eq!(&decoded[0], &a);
        assert_eq!(&decoded[1], &b);
    }

    #[test]
    fn rows_without_columns_have_a_length() {
        let codec = RowCodec::new(&[]).unwrap();
        let rows = codec.encode(&[], 3).unwrap();
        assert_eq!(rows.len(), 3);
        let batch = codec.decode_batch(
            &Schema::default(),
            rows.iter().collect::<Vec<_>>().into_iter(),
        );
        assert_eq!(batch.unwrap().num_rows(), 3);
    }
}
