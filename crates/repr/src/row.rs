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

use crate::{Result, Schema};

/// One encoded row.
pub type RowBytes = Vec<u8>;

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
