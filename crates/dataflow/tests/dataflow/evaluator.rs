//! A small expression language for tests: JSON trees over 64-bit integers.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array};
use arrow::datatypes::{DataType, Int64Type};
use arrow::record_batch::RecordBatch;
use ruslo_repr::eval::{Evaluator, GroupProgram, Program};
use ruslo_repr::{Aggregate, AggregateFunction, Error, ErrorKind, Expr, Result};
use serde_json::{Value, json};

pub(crate) struct TestEvaluator;

struct TestProgram {
    exprs: Vec<(Value, DataType)>,
}

/// The largest minus the smallest argument; fails when that is over 1000.
struct Spread {
    argument: usize,
}

impl Evaluator for TestEvaluator {
    fn compile(&self, exprs: &[Expr], _: &[DataType]) -> Result<Box<dyn Program>> {
        let exprs = exprs.iter().map(|expr| {
            let tree = serde_json::from_slice(&expr.code);
            let tree = tree.map_err(|error| Error::internal(error.to_string()))?;
            Ok((tree, expr.ty.clone()))
        });
        let exprs = exprs.collect::<Result<_>>()?;
        Ok(Box::new(TestProgram { exprs }))
    }

    fn aggregate(&self, aggregate: &Aggregate, _: &[DataType]) -> Result<Box<dyn GroupProgram>> {
        assert!(matches!(
            aggregate.function,
            AggregateFunction::Other { .. }
        ));
        let argument = aggregate.args[0];
        Ok(Box::new(Spread { argument }))
    }
}

impl Program for TestProgram {
    fn evaluate(&self, batch: &RecordBatch) -> Result<Vec<ArrayRef>> {
        let arrays = self.exprs.iter().map(|(tree, ty)| {
            let values = (0..batch.num_rows()).map(|row| value(tree, batch, row));
            let values = values.collect::<Result<Vec<Option<i64>>>>()?;
            Ok(match ty {
                DataType::Boolean => {
                    let flags = values.into_iter().map(|value| value.map(|v| v != 0));
                    Arc::new(flags.collect::<BooleanArray>()) as ArrayRef
                }
                _ => Arc::new(Int64Array::from(values)),
            })
        });
        arrays.collect()
    }
}

impl GroupProgram for Spread {
    fn evaluate(&self, group: &RecordBatch) -> Result<ArrayRef> {
        let values = group.column(self.argument).as_primitive::<Int64Type>();
        let values: Vec<i64> = values.iter().flatten().collect();
        let spread = values
            .iter()
            .max()
            .zip(values.iter().min())
            .map(|(max, min)| max - min);
        match spread {
            Some(spread) if spread > 1000 => {
                Err(Error::new(ErrorKind::OutOfRange, "spread too large"))
            }
            spread => Ok(Arc::new(Int64Array::from(vec![spread]))),
        }
    }
}

fn value(tree: &Value, batch: &RecordBatch, row: usize) -> Result<Option<i64>> {
    if let Some(number) = tree.as_i64() {
        return Ok(Some(number));
    }
    let (name, arguments) = tree.as_object().and_then(|o| o.iter().next()).unwrap();
    if name == "column" {
        let column = batch.column(arguments.as_u64().unwrap() as usize);
        let column = column.as_primitive::<Int64Type>();
        return Ok(column.is_valid(row).then(|| column.value(row)));
    }
    let left = value(&arguments[0], batch, row)?;
    let right = value(&arguments[1], batch, row)?;
    let Some((left, right)) = left.zip(right) else {
        return Ok(None);
    };
    Ok(Some(match name.as_str() {
        "add" => left + right,
        "less" => i64::from(left < right),
        "equal" => i64::from(left == right),
        "divide" if right == 0 => {
            return Err(Error::new(ErrorKind::DivisionByZero, "division by zero"));
        }
        "divide" => left / right,
        other => panic!("unknown function {other}"),
    }))
}

/// An integer expression.
pub(crate) fn number(tree: Value) -> Expr {
    Expr {
        code: tree.to_string().into_bytes(),
        ty: DataType::Int64,
        column: None,
        text: tree.to_string(),
    }
}

/// A condition.
pub(crate) fn condition(tree: Value) -> Expr {
    Expr {
        ty: DataType::Boolean,
        ..number(tree)
    }
}

/// An input column as expression.
pub(crate) fn column(index: usize, ty: DataType) -> Expr {
    Expr {
        code: json!({ "column": index }).to_string().into_bytes(),
        ty,
        text: format!("c{index}"),
        column: Some(index),
    }
}
