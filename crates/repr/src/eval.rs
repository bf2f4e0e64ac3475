//! How `dataflow` computes expressions without knowing DataFusion: `sql` implements these traits.

use arrow::array::ArrayRef;
use arrow::datatypes::DataType;
use arrow::record_batch::RecordBatch;

use crate::{Aggregate, Expr, Result};

/// Turns the opaque code of a plan into something that runs. One per process, shared by workers.
pub trait Evaluator: Send + Sync + 'static {
    /// Compiles `exprs` over an input with columns of the types `input`.
    fn compile(&self, exprs: &[Expr], input: &[DataType]) -> Result<Box<dyn Program>>;

    /// Compiles an aggregate of any function over columns of the types `input` (the reduce input).
    fn aggregate(&self, aggregate: &Aggregate, input: &[DataType])
    -> Result<Box<dyn GroupProgram>>;
}

/// Compiled scalar expressions. Pure: equal input gives equal output at any time on any worker.
pub trait Program {
    /// One array per expression, each as long as the batch, of the type [`Expr::ty`].
    ///
    /// Fails whole when any row fails; a caller that must know the row evaluates it alone.
    fn evaluate(&self, batch: &RecordBatch) -> Result<Vec<ArrayRef>>;
}

/// A compiled aggregate that computes one group from scratch.
pub trait GroupProgram {
    /// `group` has the columns of the reduce input, a row as often as it stands in the group, in
    /// the order of the rows' bytes. Filter and distinct of the aggregate are applied in here.
    /// Returns an array of length one of the type [`Aggregate::ty`].
    fn evaluate(&self, group: &RecordBatch) -> Result<ArrayRef>;
}
