//! The one total order of rows: column by column, NULLs first, then ascending.
//!
//! It is made anew by arrow-row whenever runs are written or merged. Its bytes are never stored:
//! a run that another version sorted another way is noticed and sorted again.

use arrow_array::{Array, ArrayRef, RecordBatch, UInt32Array};
use arrow_row::{RowConverter, Rows, SortField};
use arrow_schema::{ArrowError, DataType, Schema, SortOptions};
use arrow_select::take::take_record_batch;

use crate::error::{Error, Result};

/// Compares rows of one schema.
pub(crate) struct RowOrder {
    /// None if there are no columns, when all rows are equal.
    converter: Option<RowConverter>,
    columns: usize,
}

/// The keys of one batch; they compare as its rows do.
pub(crate) struct Keys(Option<Rows>);

impl Keys {
    pub(crate) fn row(&self, row: usize) -> &[u8] {
        self.0.as_ref().map_or(&[], |rows| rows.row(row).data())
    }
}

impl RowOrder {
    /// Fails for types that have no order, or whose files need more than record batches.
    pub(crate) fn new(rows: &Schema) -> Result<RowOrder> {
        let mut fields = vec![];
        for field in rows.fields() {
            let ty = field.data_type();
            let options = SortOptions {
                descending: false,
                nulls_first: true,
            };
            let sort = SortField::new_with_options(ty.clone(), options);
            if has_dictionary(ty) || !RowConverter::supports_fields(std::slice::from_ref(&sort)) {
                let text = format!("column {}: {ty} cannot be stored", field.name());
                return Err(Error::InvalidUse(text));
            }
            fields.push(sort);
        }
        let columns = fields.len();
        let converter = match columns {
            0 => None,
            _ => Some(RowConverter::new(fields).map_err(unexpected)?),
        };
        Ok(RowOrder { converter, columns })
    }

    /// How many columns at the start of a batch are compared.
    pub(crate) fn columns(&self) -> usize {
        self.columns
    }

    pub(crate) fn keys(&self, batch: &RecordBatch) -> Result<Keys> {
        let rows = match &self.converter {
            None => None,
            Some(converter) => {
                let rows = converter.convert_columns(&batch.columns()[..self.columns]);
                Some(rows.map_err(unexpected)?)
            }
        };
        Ok(Keys(rows))
    }

    /// The batch with its rows in order.
    pub(crate) fn sort(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let keys = self.keys(batch)?;
        let len = batch.num_rows();
        if (1..len).all(|row| keys.row(row - 1) <= keys.row(row)) {
            return Ok(batch.clone());
        }
        let mut order: Vec<u32> = (0..len as u32).collect();
        order.sort_by(|a, b| keys.row(*a as usize).cmp(keys.row(*b as usize)));
        take_record_batch(batch, &UInt32Array::from(order)).map_err(unexpected)
    }
}

fn has_dictionary(ty: &DataType) -> bool {
    match ty {
        DataType::Dictionary(_, _) | DataType::RunEndEncoded(_, _) => true,
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            has_dictionary(item.data_type())
        }
        DataType::Struct(fields) => fields.iter().any(|f| has_dictionary(f.data_type())),
        _ => false,
    }
}

/// Arrow refuses what has been checked already.
pub(crate) fn unexpected(error: ArrowError) -> Error {
    Error::InvalidUse(format!("unexpected error of Arrow: {error}"))
}

/// A column of this type, or the error that it is another.
pub(crate) fn column<T: Array + Clone + 'static>(array: &ArrayRef, what: &str) -> Result<T> {
    let found = array.as_any().downcast_ref::<T>().cloned();
    found.ok_or_else(|| {
        let ty = array.data_type();
        Error::InvalidUse(format!("column {what} has type {ty}"))
    })
}
