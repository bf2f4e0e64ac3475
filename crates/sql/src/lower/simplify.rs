//! Tidying a lowered plan: Maps that change nothing go, columns get the view's names.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::expressions::Column;
use ruslo_repr::{Expr, Plan, Result, Schema};

use super::expr::{column, decode_expr, encode_expr};
use crate::error::from_df;

/// Removes Maps that only pass their input on and makes neighbours one.
pub(super) fn simplify(plan: Plan) -> Result<Plan> {
    let schema = plan.schema().clone();
    with_schema(strip(plan)?, &schema)
}

/// The plan with other column names (the types are the same).
pub(super) fn with_schema(mut plan: Plan, names: &Schema) -> Result<Plan> {
    match &mut plan {
        Plan::Get { schema, .. } | Plan::Source { schema, .. } if schema != names => {
            return renaming_map(plan, names);
        }
        Plan::Get { .. } | Plan::Source { .. } => {}
        Plan::Distinct { input } => {
            let inner = std::mem::replace(
                input.as_mut(),
                Plan::Values {
                    rows: vec![],
                    schema: Schema::default(),
                },
            );
            **input = with_schema(inner, names)?;
        }
        Plan::Values { schema, .. }
        | Plan::Map { schema, .. }
        | Plan::Reduce { schema, .. }
        | Plan::Join { schema, .. }
        | Plan::Union { schema, .. } => *schema = names.clone(),
    }
    Ok(plan)
}

/// A relation keeps its own names; a Map on top of it has the new ones.
fn renaming_map(plan: Plan, names: &Schema) -> Result<Plan> {
    let columns = 0..plan.schema().len();
    let outputs = columns.map(|i| column(i, plan.schema()));
    Ok(Plan::Map {
        outputs: outputs.collect::<Result<_>>()?,
        input: Box::new(plan),
        filters: vec![],
        schema: names.clone(),
    })
}

fn strip(plan: Plan) -> Result<Plan> {
    Ok(match plan {
        Plan::Map {
            input,
            filters,
            outputs,
            schema,
        } => {
            let input = strip(*input)?;
            let identity = filters.is_empty()
                && outputs.len() == input.schema().len()
                && outputs.iter().enumerate().all(|(i, o)| o.column == Some(i));
            match identity {
                true => input,
                false => merge(input, filters, outputs, schema)?,
            }
        }
        Plan::Reduce {
            input,
            keys,
            aggregates,
            schema,
        } => Plan::Reduce {
            input: Box::new(strip(*input)?),
            keys,
            aggregates,
            schema,
        },
        Plan::Distinct { input } => Plan::Distinct {
            input: Box::new(strip(*input)?),
        },
        Plan::Join {
            kind,
            left,
            right,
            on,
            residual,
            null_equal,
            schema,
        } => Plan::Join {
            kind,
            left: Box::new(strip(*left)?),
            right: Box::new(strip(*right)?),
            on,
            residual,
            null_equal,
            schema,
        },
        Plan::Union { inputs, schema } => Plan::Union {
            inputs: inputs.into_iter().map(strip).collect::<Result<_>>()?,
            schema,
        },
        leaf => leaf,
    })
}

/// A Map over a Map as one: where the upper only chooses columns of the lower, or the lower only
/// those of its input.
fn merge(input: Plan, filters: Vec<Expr>, outputs: Vec<Expr>, schema: Schema) -> Result<Plan> {
    let Plan::Map {
        input: base,
        filters: below,
        outputs: inner,
        schema: middle,
    } = input
    else {
        return Ok(Plan::Map {
            input: Box::new(input),
            filters,
            outputs,
            schema,
        });
    };
    if filters.is_empty() && outputs.iter().all(|o| o.column.is_some()) {
        let chosen = outputs.iter().filter_map(|o| o.column);
        return Ok(Plan::Map {
            outputs: chosen.map(|i| inner[i].clone()).collect(),
            input: base,
            filters: below,
            schema,
        });
    }
    let places: Option<Vec<usize>> = inner.iter().map(|o| o.column).collect();
    match places {
        Some(places) if below.is_empty() || filters.is_empty() => {
            let moved = |exprs: Vec<Expr>| -> Result<Vec<Expr>> {
                let exprs = exprs.into_iter();
                exprs.map(|e| move_columns(e, &middle, &places)).collect()
            };
            let mut filters = moved(filters)?;
            filters.extend(below);
            Ok(Plan::Map {
                outputs: moved(outputs)?,
                input: base,
                filters,
                schema,
            })
        }
        _ => Ok(Plan::Map {
            input: Box::new(Plan::Map {
                input: base,
                filters: below,
                outputs: inner,
                schema: middle,
            }),
            filters,
            outputs,
            schema,
        }),
    }
}

/// The expression over `from`, whose column `i` now stands at `places[i]`.
fn move_columns(mut expr: Expr, from: &Schema, places: &[usize]) -> Result<Expr> {
    let physical = decode_expr(&expr.code, &from.to_arrow())?;
    let moved = physical.transform_up(|node| {
        let Some(column) = node.downcast_ref::<Column>() else {
            return Ok(Transformed::no(node));
        };
        let moved = Column::new(column.name(), places[column.index()]);
        Ok(Transformed::yes(Arc::new(moved) as Arc<dyn PhysicalExpr>))
    });
    expr.code = encode_expr(&moved.map_err(from_df)?.data)?;
    expr.column = expr.column.map(|column| places[column]);
    Ok(expr)
}
