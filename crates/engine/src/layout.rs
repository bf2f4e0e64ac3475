//! How a relation's rows lie in its arrangement, and back.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, UInt64Array};
use arrow::compute::take;
use arrow::datatypes::{DataType, Field, Int64Type, Schema as ArrowSchema, SchemaRef};
use ruslo_dataflow::arranged_columns;
use ruslo_repr::row::batch_of;
use ruslo_repr::{CountedRows, Diff, Error, Result, RowCodec, Schema};

use crate::catalog::Object;
use crate::coordinator::RowChanges;

/// Rows decoded into one batch.
const BATCH_ROWS: usize = 8192;

/// How a relation's rows lie in its arrangement: key columns first.
pub(crate) struct Layout {
    schema: Schema,
    arranged: Vec<usize>,
    key_len: usize,
    codec: RowCodec,
}

impl Layout {
    /// The layout of a table or view; None for what is not arranged.
    pub(crate) fn of(object: &Object) -> Option<Result<Layout>> {
        let (relation, key) = (object.relation()?, object.arranged_by()?);
        Some(Layout::new(relation.schema.clone(), key))
    }

    pub(crate) fn new(schema: Schema, key: &[usize]) -> Result<Layout> {
        let arranged = arranged_columns(schema.len(), key);
        let codec = RowCodec::new(&schema.project(&arranged).types())?;
        Ok(Layout {
            schema,
            arranged,
            key_len: key.len(),
            codec,
        })
    }

    /// Encodes rows whose columns are in the relation's order.
    pub(crate) fn encode(&self, batch: &RecordBatch) -> Result<Vec<Vec<u8>>> {
        let columns: Vec<ArrayRef> = self
            .arranged
            .iter()
            .map(|&c| batch.column(c).clone())
            .collect();
        let rows = self.codec.encode(&columns, batch.num_rows())?;
        Ok(rows.iter().map(<[u8]>::to_vec).collect())
    }

    /// Encodes `len` keys given column by column, in key order.
    pub(crate) fn encode_keys(&self, columns: &[ArrayRef], len: usize) -> Result<Vec<Vec<u8>>> {
        let codec = RowCodec::new(&self.codec.types()[..self.key_len])?;
        Ok(codec
            .encode(columns, len)?
            .iter()
            .map(<[u8]>::to_vec)
            .collect())
    }

    /// The key columns of a batch in the relation's order.
    pub(crate) fn keys_of(&self, batch: &RecordBatch) -> Result<Vec<Vec<u8>>> {
        let key = &self.arranged[..self.key_len];
        let columns: Vec<ArrayRef> = key.iter().map(|&c| batch.column(c).clone()).collect();
        self.encode_keys(&columns, batch.num_rows())
    }

    /// Batches in the relation's column order, each row as often as it stands there.
    pub(crate) fn decode(&self, rows: &CountedRows) -> Result<Vec<RecordBatch>> {
        let mut batches = Vec::with_capacity(rows.len().div_ceil(BATCH_ROWS));
        for start in (0..rows.len()).step_by(BATCH_ROWS) {
            let some = start..rows.len().min(start + BATCH_ROWS);
            let diffs = &rows.diffs()[some.clone()];
            let mut len = some.len();
            let mut columns = self.columns_of(some.map(|i| rows.row(i)))?;
            if diffs.iter().any(|diff| *diff != 1) {
                let repeated = repeat(diffs)?;
                len = repeated.len();
                for column in &mut columns {
                    *column = take(column, &repeated, None)?;
                }
            }
            batches.push(batch_of(&self.schema, columns, len)?);
        }
        Ok(batches)
    }

    /// Changes in the relation's column order, with a last column `diff`.
    pub(crate) fn decode_changes<'r>(
        &self,
        rows: impl Iterator<Item = (&'r [u8], Diff)> + Clone,
    ) -> Result<RecordBatch> {
        let diffs: Int64Array = rows.clone().map(|(_, diff)| diff).collect();
        let mut columns = self.columns_of(rows.map(|(row, _)| row))?;
        columns.push(Arc::new(diffs));
        Ok(RecordBatch::try_new(with_diff(&self.schema), columns)?)
    }

    /// Takes apart what [`Self::decode_changes`] made.
    pub(crate) fn encode_changes(&self, changes: &RecordBatch) -> Result<RowChanges> {
        let width = self.schema.len();
        let diffs = match changes.num_columns() == width + 1 {
            true => changes.column(width).as_primitive_opt::<Int64Type>(),
            false => None,
        };
        let diffs = diffs.ok_or_else(|| Error::internal("changes of a table without diffs"))?;
        let columns = changes.columns()[..width].to_vec();
        let rows = self.encode(&batch_of(&self.schema, columns, changes.num_rows())?)?;
        Ok(rows
            .into_iter()
            .zip(diffs.values().iter().copied())
            .collect())
    }

    /// The columns of rows in the relation's order.
    fn columns_of<'r>(&self, rows: impl Iterator<Item = &'r [u8]>) -> Result<Vec<ArrayRef>> {
        let decoded = self.codec.decode(rows)?;
        let mut columns = decoded.clone();
        for (position, &column) in self.arranged.iter().enumerate() {
            columns[column] = decoded[position].clone();
        }
        Ok(columns)
    }
}

/// The schema of [`Layout::decode_changes`].
fn with_diff(schema: &Schema) -> SchemaRef {
    let mut fields: Vec<_> = schema.to_arrow().fields().iter().cloned().collect();
    fields.push(Arc::new(Field::new("diff", DataType::Int64, false)));
    Arc::new(ArrowSchema::new(fields))
}

/// The index of each row, as often as it stands in the arrangement.
fn repeat(diffs: &[Diff]) -> Result<UInt64Array> {
    let mut indexes = vec![];
    for (index, diff) in diffs.iter().enumerate() {
        let times = usize::try_from(*diff)
            .map_err(|_| Error::internal("a row stands in a collection less than zero times"))?;
        indexes.extend(std::iter::repeat_n(index as u64, times));
    }
    Ok(UInt64Array::from(indexes))
}
