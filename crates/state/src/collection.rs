//! What a durable collection is: an id, a shape, and how its updates add up.

use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_schema::{DataType, Field, Schema, SchemaRef};

use crate::error::{Error, Result};
use crate::order::RowOrder;

/// The type of the columns of [`Collection::sums`]: whole numbers of up to 128 bits.
pub const SUM_TYPE: DataType = DataType::Decimal128(38, 0);
/// The name of the column that counts.
pub const DIFF: &str = "diff";

/// How updates of the same row combine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Diffs add; a row whose diff and sums are all zero is not there. Additions wrap.
    Sum,
}

/// A durable collection. Ids are the caller's and are never given out twice.
#[derive(Clone, Debug, PartialEq)]
pub struct Collection {
    pub id: u64,
    /// For people who look into the store.
    pub name: String,
    pub kind: Kind,
    /// The columns that tell rows apart.
    pub rows: SchemaRef,
    /// Names of further columns that add up beside `diff`, each of type [`SUM_TYPE`].
    pub sums: Vec<String>,
}

impl Collection {
    /// Rows that are counted.
    pub fn sum(id: u64, name: &str, rows: SchemaRef) -> Collection {
        Collection {
            id,
            name: name.to_string(),
            kind: Kind::Sum,
            rows,
            sums: vec![],
        }
    }

    /// Adds columns that are summed for each row, such as the sums of a group.
    pub fn with_sums(mut self, names: impl IntoIterator<Item = impl Into<String>>) -> Collection {
        self.sums = names.into_iter().map(Into::into).collect();
        self
    }

    /// The columns of the collection's updates: the rows', then `diff` (Int64), then the sums.
    pub fn schema(&self) -> SchemaRef {
        let rows = self.rows.fields().iter().cloned();
        let diff = Arc::new(Field::new(DIFF, DataType::Int64, false));
        let sums = self.sums.iter();
        let sums = sums.map(|name| Arc::new(Field::new(name, SUM_TYPE, false)));
        let fields: Vec<_> = rows.chain([diff]).chain(sums).collect();
        Arc::new(Schema::new(fields))
    }

    /// Takes a schema apart again that [`Self::schema`] made, with so many sums.
    pub(crate) fn from_schema(
        id: u64,
        name: String,
        schema: &Schema,
        sums: usize,
    ) -> Option<Collection> {
        let fields = schema.fields();
        let rows = fields.len().checked_sub(1 + sums)?;
        Some(Collection {
            id,
            name,
            kind: Kind::Sum,
            rows: Arc::new(Schema::new(fields[..rows].to_vec())),
            sums: fields[rows + 1..]
                .iter()
                .map(|f| f.name().clone())
                .collect(),
        })
    }

    /// Fails if a column has a type that cannot be put in order or written.
    pub(crate) fn check(&self) -> Result<()> {
        RowOrder::new(&self.rows).map(drop)
    }

    /// The batch under this collection's own schema, if its columns fit.
    pub(crate) fn take(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let taken = RecordBatch::try_new(self.schema(), batch.columns().to_vec());
        taken.map_err(|error| {
            let Collection { id, name, .. } = self;
            Error::InvalidUse(format!("updates of collection {id} ({name}): {error}"))
        })
    }
}
