//! Literals, parameters and type names at the moment operators are chosen.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::DFSchema;
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::expr::{Cast, Placeholder};
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr, TypePlanner};
use datafusion::logical_expr::{Expr, ExprSchemable};
use datafusion::sql::sqlparser::ast as sql;

use super::canonical;
use super::typing::{canonical_cast, fold_literal};
use crate::error::to_df;
use crate::parse::types::type_from_text;

/// Types by PostgreSQL's names.
#[derive(Debug)]
pub(super) struct PostgresTypes;

impl TypePlanner for PostgresTypes {
    fn plan_type_field(&self, sql_type: &sql::DataType) -> DfResult<Option<FieldRef>> {
        let ty = type_from_text(&sql_type.to_string()).map_err(to_df)?;
        Ok(Some(Arc::new(Field::new("", ty, true))))
    }
}

/// First of the planners: hands literals on as literals and gives parameters their types.
#[derive(Debug)]
pub(super) struct LiteralPlanner;

impl ExprPlanner for LiteralPlanner {
    fn plan_binary_op(
        &self,
        expr: RawBinaryExpr,
        schema: &DFSchema,
    ) -> DfResult<PlannerResult<RawBinaryExpr>> {
        let RawBinaryExpr { op, left, right } = expr;
        let left = operand(left, schema)?;
        let right = operand(right, schema)?;
        let (left, right) = match (is_untyped(&left), is_untyped(&right)) {
            (true, false) => {
                let ty = right.get_type(schema)?;
                (with_type(left, &op, ty), right)
            }
            (false, true) => {
                let ty = left.get_type(schema)?;
                (left, with_type(right, &op, ty))
            }
            _ => (left, right),
        };
        Ok(PlannerResult::Original(RawBinaryExpr { op, left, right }))
    }
}

/// A literal folded, a value of a type that is not ours brought into one that is.
fn operand(expr: Expr, schema: &DFSchema) -> DfResult<Expr> {
    let expr = fold_literal(expr)?;
    if matches!(expr, Expr::Literal(..) | Expr::Placeholder(_)) {
        return Ok(expr);
    }
    let ty = expr.get_type(schema)?;
    let ours = canonical(&ty);
    match ty == ours || ty.is_null() {
        true => Ok(expr),
        false => Ok(canonical_cast(expr, &ty, &ours)),
    }
}

fn is_untyped(expr: &Expr) -> bool {
    matches!(expr, Expr::Placeholder(Placeholder { field: None, .. }))
}

fn with_type(expr: Expr, op: &sql::BinaryOperator, other: DataType) -> Expr {
    let ty = match op {
        sql::BinaryOperator::StringConcat => DataType::Utf8,
        sql::BinaryOperator::And | sql::BinaryOperator::Or => DataType::Boolean,
        _ if other.is_null() => DataType::Utf8,
        _ => canonical(&other),
    };
    typed_placeholder(expr, ty)
}

/// The placeholder with this type, if it had none yet; other expressions as they are.
pub(super) fn typed_placeholder(expr: Expr, ty: DataType) -> Expr {
    match expr {
        Expr::Placeholder(Placeholder { id, field: None }) => {
            let field = Some(Arc::new(Field::new("", ty, true)));
            Expr::Placeholder(Placeholder { id, field })
        }
        Expr::Cast(Cast { expr, field }) => Expr::Cast(Cast {
            expr: Box::new(typed_placeholder(*expr, ty)),
            field,
        }),
        other => other,
    }
}
