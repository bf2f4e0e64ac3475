//! ORDER BY inside an aggregate: rows are kept and handed on sorted when the result is asked for.

use arrow::array::ArrayRef;
use arrow::compute::{SortColumn, SortOptions, lexsort_to_indices, take};
use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use ruslo_repr::{Error, Result};

use super::super::key::key_array;
use super::{Fold, bytes_of, columns_of_lists, list_of_parts};

#[derive(Debug)]
pub(super) struct Ordered {
    /// So many columns in front are the aggregate's arguments, the others what to sort by.
    arguments: usize,
    sorting: Vec<SortOptions>,
    types: Vec<DataType>,
    /// Batches of rows so far.
    rows: Vec<Vec<ArrayRef>>,
    /// Bytes of them.
    bytes: usize,
    inner: Box<dyn Fold>,
}

impl Ordered {
    /// `types` are those of the arguments, then of what `sorting` sorts by.
    pub(super) fn new(
        types: Vec<DataType>,
        sorting: Vec<SortOptions>,
        inner: Box<dyn Fold>,
    ) -> Self {
        let arguments = types.len() - sorting.len();
        Ordered {
            arguments,
            sorting,
            types,
            rows: vec![],
            bytes: 0,
            inner,
        }
    }

    fn push(&mut self, batch: Vec<ArrayRef>) {
        self.bytes += batch.iter().map(bytes_of).sum::<usize>();
        self.rows.push(batch);
    }

    fn column(&self, position: usize) -> Result<ArrayRef> {
        let parts: Vec<_> = self
            .rows
            .iter()
            .map(|batch| batch[position].as_ref())
            .collect();
        Ok(arrow::compute::concat(&parts)?)
    }

    /// Hands all rows on in order.
    fn drain(&mut self) -> Result<()> {
        if self.rows.is_empty() {
            return Ok(());
        }
        let sorting = self.sorting.iter().enumerate().map(|(i, options)| {
            let values = key_array(&self.column(self.arguments + i)?)?;
            Ok(SortColumn {
                values,
                options: Some(*options),
            })
        });
        let order = lexsort_to_indices(&sorting.collect::<Result<Vec<_>>>()?, None)?;
        let sorted = (0..self.arguments).map(|i| Ok(take(&self.column(i)?, &order, None)?));
        let sorted = sorted.collect::<Result<Vec<_>>>()?;
        self.rows.clear();
        self.bytes = 0;
        self.inner.add(&sorted)
    }
}

impl Fold for Ordered {
    fn add(&mut self, columns: &[ArrayRef]) -> Result<()> {
        if columns.len() != self.types.len() {
            return Err(Error::internal(
                "an ordered aggregate was not given what to sort by",
            ));
        }
        self.push(columns.to_vec());
        Ok(())
    }

    fn result(&mut self) -> Result<ScalarValue> {
        self.drain()?;
        self.inner.result()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let lists = self.types.iter().enumerate().map(|(i, ty)| {
            let parts: Vec<ArrayRef> = self.rows.iter().map(|batch| batch[i].clone()).collect();
            list_of_parts(&parts, ty)
        });
        lists.collect()
    }

    fn merge(&mut self, states: &[ArrayRef]) -> Result<()> {
        for batch in columns_of_lists(states)? {
            self.push(batch);
        }
        Ok(())
    }

    fn size(&self) -> usize {
        size_of::<Self>() + self.bytes + self.inner.size()
    }
}
