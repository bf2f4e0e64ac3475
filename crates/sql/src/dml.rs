//! INSERT, UPDATE and DELETE as a query for the rows and what to do with them.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::DataType;
use datafusion::sql::sqlparser::ast as sql;
use ruslo_repr::{Error, Result, Schema};

use crate::adhoc::SelectPlan;
use crate::catalog::{Catalog, Relation, SessionContext};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DmlKind {
    Insert,
    Update,
    Delete,
}

/// What a DML statement does to one table.
pub struct DmlPlan {
    pub table: Arc<Relation>,
    pub kind: DmlKind,
    /// Insert: new rows in the table's column order and types, NULL or the default where no
    /// value was given. Update: columns of the old row, then of the new row. Delete: the old row.
    pub select: SelectPlan,
    returning: Option<SelectPlan>,
}

impl DmlPlan {
    /// The columns of RETURNING.
    pub fn returning_schema(&self) -> Option<&Schema> {
        self.returning.as_ref().map(SelectPlan::schema)
    }

    /// Computes RETURNING over the new rows (for Delete: the old ones).
    pub async fn returning(&self, _rows: Vec<RecordBatch>) -> Result<Vec<RecordBatch>> {
        Err(Error::internal("not yet"))
    }
}

pub fn plan_insert(
    _insert: &sql::Insert,
    _catalog: &dyn Catalog,
    _session: &SessionContext,
    _hints: &[Option<DataType>],
) -> Result<DmlPlan> {
    Err(Error::internal("not yet"))
}

pub fn plan_update(
    _update: &sql::Update,
    _catalog: &dyn Catalog,
    _session: &SessionContext,
    _hints: &[Option<DataType>],
) -> Result<DmlPlan> {
    Err(Error::internal("not yet"))
}

pub fn plan_delete(
    _delete: &sql::Delete,
    _catalog: &dyn Catalog,
    _session: &SessionContext,
    _hints: &[Option<DataType>],
) -> Result<DmlPlan> {
    Err(Error::internal("not yet"))
}
