//! How `dataflow` computes the expressions of a plan.
//!
//! Code is decoded once, when a view is rendered; a batch only walks compiled expressions. Plain
//! columns are handed through by reference.

mod group;

use std::sync::Arc;

use arrow::array::{Array, ArrayRef};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use arrow::record_batch::RecordBatch;
use datafusion::physical_expr::PhysicalExpr;
use ruslo_repr::eval::{Evaluator, GroupProgram, Program};
use ruslo_repr::{Aggregate, Error, Expr, Result, Schema};

use crate::error::from_df;
use crate::lower::decode_expr;

/// The evaluator for plans that this crate lowered.
pub fn evaluator() -> Arc<dyn Evaluator> {
    Arc::new(PlanEvaluator)
}

struct PlanEvaluator;

impl Evaluator for PlanEvaluator {
    fn compile(&self, exprs: &[Expr], input: &[DataType]) -> Result<Box<dyn Program>> {
        let schema = unnamed(input).to_arrow();
        let steps = exprs.iter().map(|expr| {
            Ok(match expr.column {
                Some(column) if column < input.len() => Step::Column(column),
                Some(column) => {
                    let message = format!("column {column} of an input of {}", input.len());
                    return Err(Error::internal(message));
                }
                None => Step::Compute {
                    expr: decode_expr(&expr.code, &schema)?,
                    ty: expr.ty.clone(),
                },
            })
        });
        Ok(Box::new(Compiled {
            steps: steps.collect::<Result<_>>()?,
        }))
    }

    fn aggregate(
        &self,
        aggregate: &Aggregate,
        input: &[DataType],
    ) -> Result<Box<dyn GroupProgram>> {
        group::compile(aggregate, input)
    }
}

/// Columns `c0`, `c1`, … of these types.
fn unnamed(types: &[DataType]) -> Schema {
    let columns = types.iter().enumerate();
    Schema::new(columns.map(|(i, ty)| (format!("c{i}"), ty.clone())))
}

struct Compiled {
    steps: Vec<Step>,
}

enum Step {
    Column(usize),
    Compute {
        expr: Arc<dyn PhysicalExpr>,
        ty: DataType,
    },
}

impl Program for Compiled {
    fn evaluate(&self, batch: &RecordBatch) -> Result<Vec<ArrayRef>> {
        let evaluate = |step: &Step| match step {
            Step::Column(column) => Ok(batch.column(*column).clone()),
            Step::Compute { expr, ty } => {
                let value = expr.evaluate(batch).map_err(from_df)?;
                let array = value.into_array(batch.num_rows()).map_err(from_df)?;
                in_type(array, ty)
            }
        };
        self.steps.iter().map(evaluate).collect()
    }
}

/// DataFusion's own functions sometimes answer in a sibling type, as Utf8View for Utf8.
fn in_type(array: ArrayRef, ty: &DataType) -> Result<ArrayRef> {
    match array.data_type() == ty {
        true => Ok(array),
        false => Ok(cast(&array, ty)?),
    }
}
