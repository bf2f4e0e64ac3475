//! A view's query as a `repr::Plan`.

use ruslo_repr::{Error, Plan, Result, Schema};

use crate::ast::Query;
use crate::catalog::{Catalog, SessionContext};

/// How a view is computed, and what is known of its rows.
#[derive(Clone, Debug)]
pub struct ViewPlan {
    pub plan: Plan,
    pub schema: Schema,
    /// Columns that tell rows apart: group keys, a primary key passed through; else all columns.
    pub key: Vec<usize>,
    /// Whether no two rows have the same key.
    pub key_is_unique: bool,
    /// Rows are only ever added.
    pub append_only: bool,
}

/// Binds, optimises and lowers the query of a materialized view.
pub fn plan_view(
    _query: &Query,
    _catalog: &dyn Catalog,
    _session: &SessionContext,
) -> Result<ViewPlan> {
    Err(Error::internal("not yet"))
}
