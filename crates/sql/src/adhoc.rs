//! Queries that run once, over batches that the caller has read at one time.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::DataType;
use ruslo_repr::{Error, ObjectId, Result, Schema};

use crate::ast::Query;
use crate::catalog::{Catalog, Relation, SessionContext};

/// A bound query: knows what it reads, takes and gives.
pub struct SelectPlan {
    inputs: Vec<Arc<Relation>>,
    schema: Schema,
    params: Vec<DataType>,
}

impl SelectPlan {
    /// Every source, table, view and system relation it reads, each once.
    pub fn inputs(&self) -> &[Arc<Relation>] {
        &self.inputs
    }

    pub fn schema(&self) -> &Schema {
        &self.schema
    }

    /// The types of `$1`, `$2` ….
    pub fn param_types(&self) -> &[DataType] {
        &self.params
    }

    /// For an input that is only read where key columns equal constants: arrays of length one,
    /// one per column of [`Relation::key`], in the column's type.
    pub fn key_lookup(&self, _input: ObjectId, _params: &[ArrayRef]) -> Option<Vec<ArrayRef>> {
        None
    }

    /// Runs it. `inputs` has batches of all columns (also hidden ones) for every input;
    /// `params` are arrays of length one in the types of [`SelectPlan::param_types`].
    ///
    /// Dropping the future cancels the query.
    pub async fn execute(
        &self,
        _inputs: HashMap<ObjectId, Vec<RecordBatch>>,
        _params: &[ArrayRef],
    ) -> Result<Vec<RecordBatch>> {
        Err(Error::internal("not yet"))
    }
}

/// Binds a query. `hints` are parameter types the client has fixed.
pub fn plan_select(
    _query: &Query,
    _catalog: &dyn Catalog,
    _session: &SessionContext,
    _hints: &[Option<DataType>],
) -> Result<SelectPlan> {
    Err(Error::internal("not yet"))
}
