//! How `dataflow` computes the expressions of a plan.

use std::sync::Arc;

use arrow::datatypes::DataType;
use ruslo_repr::eval::{Evaluator, GroupProgram, Program};
use ruslo_repr::{Aggregate, Error, Expr, Result};

/// The evaluator for plans that this crate lowered.
pub fn evaluator() -> Arc<dyn Evaluator> {
    Arc::new(PlanEvaluator)
}

struct PlanEvaluator;

impl Evaluator for PlanEvaluator {
    fn compile(&self, _exprs: &[Expr], _input: &[DataType]) -> Result<Box<dyn Program>> {
        Err(Error::internal("not yet"))
    }

    fn aggregate(
        &self,
        _aggregate: &Aggregate,
        _input: &[DataType],
    ) -> Result<Box<dyn GroupProgram>> {
        Err(Error::internal("not yet"))
    }
}
