//! SQL: text in, plans and results out. The only crate that knows DataFusion.
//!
//! ```text
//!   text ──parse──> ast::Statement
//!                      │ bind: names, types, PostgreSQL's rules (DataFusion inside a fence)
//!                      v
//!              LogicalPlan ──lower──> repr::Plan        plan_view: what dataflow keeps up to date
//!                      └────adhoc──> SelectPlan         plan_select: runs once over given batches
//!                      └────dml────> DmlPlan            plan_insert, plan_update, plan_delete
//!   repr::Expr ──eval──> compiled program               evaluator: how dataflow computes
//! ```

mod adhoc;
pub mod ast;
mod bind;
mod catalog;
mod dml;
mod error;
mod eval;
mod explain;
pub mod functions;
mod lower;
mod parse;
pub mod pg_compat;
pub mod stack;
#[cfg(test)]
mod tests;

pub use adhoc::{QueryMemory, SelectPlan, plan_select};
pub use bind::{qualified, settings_changed};
pub use catalog::{Catalog, Modifier, Relation, RelationKind, SessionContext};
pub use dml::{DmlKind, DmlPlan, plan_delete, plan_insert, plan_update};
pub use eval::evaluator;
pub use explain::explain;
pub use lower::{ViewPlan, plan_view};
pub use parse::types::type_from_text;
pub use parse::{comments, parse, parse_expr, parse_query};
