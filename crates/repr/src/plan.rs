//! What the coordinator sends to the workers: how a view is computed.
//!
//! A plan is positional (columns have numbers, not names), serialisable, and complete: a worker
//! in another process renders it without asking anybody. Every node carries its own output
//! schema. `sql` lowers to it, `dataflow` renders it.

use arrow::datatypes::DataType;
use serde::{Deserialize, Serialize};

use crate::{ObjectId, RowBytes, Schema};

/// A scalar expression over the columns of a node's input.
///
/// `code` is opaque here: `sql` writes it (a serialised DataFusion physical expression) and reads
/// it back through [`crate::eval::Evaluator`]. Two expressions with equal code are equal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expr {
    pub code: Vec<u8>,
    pub ty: DataType,
    /// For EXPLAIN and error rows only.
    pub text: String,
    /// Set when the expression is nothing but this input column, so that no one must evaluate it.
    pub column: Option<usize>,
}

/// An aggregate over column positions of the [`Plan::Reduce`] input.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Aggregate {
    pub function: AggregateFunction,
    /// Input columns; empty for `count(*)`.
    pub args: Vec<usize>,
    pub distinct: bool,
    /// A boolean input column: rows where it is not true do not count.
    pub filter: Option<usize>,
    /// The result's type.
    pub ty: DataType,
    /// For EXPLAIN only.
    pub text: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AggregateFunction {
    /// `count(*)` without args, `count(x)` (rows where x is not NULL) with one.
    Count,
    /// Of int2/int4 to int8, int8 and numeric to numeric, float to float.
    Sum,
    /// Of integers and numeric to numeric, of floats to float.
    Avg,
    Min,
    Max,
    /// The numeric that its arguments are all equal to, with the largest display scale among
    /// them: what is shown of the key at this position.
    Alike {
        key: usize,
    },
    /// Any other function, recomputed over its group by [`crate::eval::Evaluator::aggregate`];
    /// `code` is a serialised DataFusion aggregate expression over the args in their order.
    Other {
        code: Vec<u8>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum JoinKind {
    Inner,
    Left,
    Right,
    Full,
    /// Left rows with a match, each as often as it stands on the left.
    Semi,
    /// Left rows without a match.
    Anti,
}

/// How a collection is computed from others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Plan {
    /// The rows of a table or of another view: its arrangement is imported, never copied.
    Get { id: ObjectId, schema: Schema },
    /// The messages of a source, append-only, of which only `columns` are decoded.
    ///
    /// `schema` lists those columns in the order of `columns`.
    Source {
        id: ObjectId,
        columns: Vec<usize>,
        schema: Schema,
    },
    /// Rows written in the query, each encoded by [`crate::RowCodec`] of `schema`.
    Values { rows: Vec<RowBytes>, schema: Schema },
    /// Keep the rows for which every filter is true, then compute the output columns.
    Map {
        input: Box<Plan>,
        filters: Vec<Expr>,
        outputs: Vec<Expr>,
        schema: Schema,
    },
    /// Group by key columns. The output is the keys in order, then the aggregates in order.
    ///
    /// Without keys the output is exactly one row, also for no input.
    Reduce {
        input: Box<Plan>,
        keys: Vec<usize>,
        aggregates: Vec<Aggregate>,
        schema: Schema,
    },
    /// Every row once.
    Distinct { input: Box<Plan> },
    /// Columns of the left, then of the right (only the left for Semi and Anti).
    ///
    /// Rows match when the `on` columns are equal and `residual`, over left then right columns,
    /// is true. NULL equals NULL only if `null_equal`.
    Join {
        kind: JoinKind,
        left: Box<Plan>,
        right: Box<Plan>,
        on: Vec<(usize, usize)>,
        residual: Option<Expr>,
        null_equal: bool,
        schema: Schema,
    },
    /// All rows of all inputs, which have the same types.
    Union { inputs: Vec<Plan>, schema: Schema },
}

impl Plan {
    pub fn schema(&self) -> &Schema {
        match self {
            Plan::Get { schema, .. }
            | Plan::Source { schema, .. }
            | Plan::Values { schema, .. }
            | Plan::Map { schema, .. }
            | Plan::Reduce { schema, .. }
            | Plan::Join { schema, .. }
            | Plan::Union { schema, .. } => schema,
            Plan::Distinct { input } => input.schema(),
        }
    }

    /// The plans this one reads directly.
    pub fn inputs(&self) -> Vec<&Plan> {
        match self {
            Plan::Get { .. } | Plan::Source { .. } | Plan::Values { .. } => vec![],
            Plan::Map { input, .. } | Plan::Reduce { input, .. } | Plan::Distinct { input } => {
                vec![input]
            }
            Plan::Join { left, right, .. } => vec![left, right],
            Plan::Union { inputs, .. } => inputs.iter().collect(),
        }
    }

    /// Calls `f` on this node and all below it.
    pub fn visit<'a>(&'a self, f: &mut impl FnMut(&'a Plan)) {
        f(self);
        for input in self.inputs() {
            input.visit(f);
        }
    }

    /// Every table, view and source that the plan reads, each once, in order of id.
    pub fn dependencies(&self) -> Vec<ObjectId> {
        let mut ids = vec![];
        self.visit(&mut |plan| match plan {
            Plan::Get { id, .. } | Plan::Source { id, .. } => ids.push(*id),
            _ => {}
        });
        ids.sort();
        ids.dedup();
        ids
    }

    /// Whether rows are only ever added, given that no table or view below takes rows away.
    ///
    /// Sources are append-only; a table or view read through `Get` is taken as not.
    pub fn is_append_only(&self) -> bool {
        match self {
            Plan::Source { .. } | Plan::Values { .. } => true,
            Plan::Get { .. } | Plan::Reduce { .. } => false,
            Plan::Map { input, .. } | Plan::Distinct { input } => input.is_append_only(),
            Plan::Join {
                kind: JoinKind::Inner,
                left,
                right,
                ..
            } => left.is_append_only() && right.is_append_only(),
            Plan::Join { .. } => false,
            Plan::Union { inputs, .. } => inputs.iter().all(Plan::is_append_only),
        }
    }
}
