//! Operators and special syntax of SQL as calls of our functions, while DataFusion binds.

use arrow::datatypes::DataType;
use datafusion::common::DFSchema;
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{Expr, ExprSchemable, Operator};
use datafusion::sql::sqlparser::ast::BinaryOperator;
use ruslo_repr::Error;

use super::cast::cast;
use super::coerce::{common_type_of, compare, is_unknown};
use super::overload::to_df;
use super::registry;

#[derive(Debug)]
pub(super) struct OperatorPlanner;

/// The function behind an operator.
fn function_of(op: &BinaryOperator) -> Option<&'static str> {
    use BinaryOperator::*;
    Some(match op {
        Plus => "op_add",
        Minus => "op_subtract",
        Multiply => "op_multiply",
        Divide => "op_divide",
        Modulo => "op_modulo",
        PGExp | BitwiseXor => "op_power",
        StringConcat => "op_concat",
        Arrow => "op_json_get",
        LongArrow => "op_json_get_text",
        HashArrow => "op_json_path",
        HashLongArrow => "op_json_path_text",
        HashMinus => "op_json_delete_path",
        Question => "op_json_exists",
        QuestionPipe => "op_json_exists_any",
        QuestionAnd => "op_json_exists_all",
        PGStartsWith => "starts_with",
        PGRegexMatch => "op_regex_match",
        PGRegexIMatch => "op_regex_imatch",
        PGRegexNotMatch => "op_regex_not_match",
        PGRegexNotIMatch => "op_regex_not_imatch",
        _ => return None,
    })
}

pub(super) fn comparison(op: &BinaryOperator) -> Option<Operator> {
    Some(match op {
        BinaryOperator::Eq => Operator::Eq,
        BinaryOperator::NotEq => Operator::NotEq,
        BinaryOperator::Lt => Operator::Lt,
        BinaryOperator::LtEq => Operator::LtEq,
        BinaryOperator::Gt => Operator::Gt,
        BinaryOperator::GtEq => Operator::GtEq,
        _ => return None,
    })
}

/// A call of the function of this name.
pub(super) fn call(name: &str, args: Vec<Expr>) -> DfResult<Expr> {
    match registry().scalar(name) {
        Some(function) => Ok(function.call(args)),
        None => Err(to_df(Error::internal(format!(
            "function {name} is not registered"
        )))),
    }
}

impl ExprPlanner for OperatorPlanner {
    fn plan_binary_op(
        &self,
        expr: RawBinaryExpr,
        schema: &DFSchema,
    ) -> DfResult<PlannerResult<RawBinaryExpr>> {
        let RawBinaryExpr { op, left, right } = expr;
        if let Some(op) = comparison(&op) {
            let (left_type, right_type) = (left.get_type(schema)?, right.get_type(schema)?);
            let compared = compare(op, (left, left_type), (right, right_type));
            return compared.map(PlannerResult::Planned).map_err(to_df);
        }
        if let Some(name) = function_of(&op) {
            return call(name, vec![left, right]).map(PlannerResult::Planned);
        }
        let (container, contained) = match op {
            BinaryOperator::AtArrow => (left, right),
            BinaryOperator::ArrowAt => (right, left),
            op => return Ok(PlannerResult::Original(RawBinaryExpr { op, left, right })),
        };
        let is_list = matches!(container.get_type(schema)?, DataType::List(_))
            || matches!(contained.get_type(schema)?, DataType::List(_));
        let name = if is_list {
            "op_array_contains"
        } else {
            "op_json_contains"
        };
        call(name, vec![container, contained]).map(PlannerResult::Planned)
    }

    fn plan_array_literal(
        &self,
        exprs: Vec<Expr>,
        schema: &DFSchema,
    ) -> DfResult<PlannerResult<Vec<Expr>>> {
        let typed = exprs.into_iter().map(|expr| {
            let ty = expr.get_type(schema)?;
            Ok((expr, ty))
        });
        let typed = typed.collect::<DfResult<Vec<_>>>()?;
        let common = common_type_of(&typed, "ARRAY").map_err(to_df)?;
        let items = typed.into_iter().map(|(expr, ty)| {
            let explicit = is_unknown(&expr);
            cast(expr, &ty, &common, explicit).map_err(to_df)
        });
        let items = items.collect::<DfResult<Vec<_>>>()?;
        call("make_array", items).map(PlannerResult::Planned)
    }

    fn plan_extract(&self, args: Vec<Expr>) -> DfResult<PlannerResult<Vec<Expr>>> {
        call("extract", args).map(PlannerResult::Planned)
    }

    fn plan_position(&self, args: Vec<Expr>) -> DfResult<PlannerResult<Vec<Expr>>> {
        call("strpos", args).map(PlannerResult::Planned)
    }

    fn plan_substring(&self, args: Vec<Expr>) -> DfResult<PlannerResult<Vec<Expr>>> {
        call("substring", args).map(PlannerResult::Planned)
    }

    fn plan_overlay(&self, args: Vec<Expr>) -> DfResult<PlannerResult<Vec<Expr>>> {
        call("overlay", args).map(PlannerResult::Planned)
    }
}
