//! The pass over the AST before binding: from PostgreSQL's meaning to what DataFusion binds right.
//!
//! ```text
//!   SELECT COUNT(*)      SELECT count(*) AS count        columns named as PostgreSQL does
//!   1, 2.5, '1 day'      CAST(1 AS integer) …            literals get PostgreSQL's types
//!   now(), user          constants of the statement      refused where a view would freeze them
//!   CASE …               __case(c1, v1, …)               types agree at binding; typing.rs turns
//!                                                        it back into a lazy CASE
//!   FULL JOIN … USING    refused                         DataFusion would answer wrongly
//! ```

use std::ops::ControlFlow;

use arrow::datatypes::DataType;
use datafusion::sql::sqlparser::ast as sql;
use datafusion::sql::sqlparser::ast::{VisitMut, VisitorMut};
use ruslo_repr::schema::type_name;
use ruslo_repr::{Error, Result};

use super::Purpose;
use super::checks::{check_joins, check_set_operations, fetch_as_limit};
use super::forms::{
    bitwise_not, check_star, interval_cast, like_with_escape, limited_cast, name_series,
    plain_count, plain_frame, quantified, rewrite_case, rewrite_nullif, rows_of_series,
    sign_before_power, written_cast,
};
use super::names::{name_items, normalised};
use super::session::{current_schema, session_function, settle_bounds};
use crate::catalog::SessionContext;
use crate::functions::number_literal;
use crate::parse::parse_query;

/// Rewrites a query in place.
pub(super) fn rewrite_query(
    query: &mut sql::Query,
    session: &SessionContext,
    purpose: Purpose,
) -> Result<()> {
    let mut rewriter = Rewriter { session, purpose };
    match query.visit(&mut rewriter) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(error),
    }
}

/// `CAST(expr AS ty)` in the AST.
pub(crate) fn cast(expr: sql::Expr, ty: &DataType) -> sql::Expr {
    let name = sql::Ident::new(type_name(ty));
    sql::Expr::Cast {
        kind: sql::CastKind::DoubleColon,
        expr: Box::new(expr),
        data_type: sql::DataType::Custom(sql::ObjectName::from(vec![name]), vec![]),
        array: false,
        format: None,
    }
}

pub(crate) fn string(text: impl Into<String>) -> sql::Expr {
    sql::Expr::Value(sql::Value::SingleQuotedString(text.into()).with_empty_span())
}

pub(super) fn number(text: impl Into<String>) -> sql::Expr {
    sql::Expr::Value(sql::Value::Number(text.into(), false).with_empty_span())
}

/// A call `name(args…)`.
pub(crate) fn call(name: &str, args: Vec<sql::Expr>) -> sql::Expr {
    let args = args
        .into_iter()
        .map(|arg| sql::FunctionArg::Unnamed(sql::FunctionArgExpr::Expr(arg)));
    sql::Expr::Function(sql::Function {
        name: sql::ObjectName::from(vec![sql::Ident::with_quote('"', name)]),
        uses_odbc_syntax: false,
        parameters: sql::FunctionArguments::None,
        args: sql::FunctionArguments::List(sql::FunctionArgumentList {
            duplicate_treatment: None,
            args: args.collect(),
            clauses: vec![],
        }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: vec![],
    })
}

struct Rewriter<'a> {
    session: &'a SessionContext,
    purpose: Purpose,
}

type Flow = ControlFlow<Error>;

fn flow(result: Result<()>) -> Flow {
    match result {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => ControlFlow::Break(error),
    }
}

impl VisitorMut for Rewriter<'_> {
    type Break = Error;

    fn pre_visit_query(&mut self, query: &mut sql::Query) -> Flow {
        if let Some(order_by) = &mut query.order_by
            && let sql::OrderByKind::Expressions(exprs) = &mut order_by.kind
        {
            exprs
                .iter_mut()
                .for_each(|item| keep_number(&mut item.expr));
        }
        if let Some(fetch) = query.fetch.take() {
            flow(fetch_as_limit(query, fetch))?;
        }
        match &mut query.limit_clause {
            Some(sql::LimitClause::LimitOffset { limit, offset, .. }) => {
                limit.iter_mut().for_each(row_count);
                offset
                    .iter_mut()
                    .for_each(|offset| row_count(&mut offset.value));
            }
            Some(sql::LimitClause::OffsetCommaLimit { offset, limit }) => {
                row_count(offset);
                row_count(limit);
            }
            None => {}
        }
        // FOR UPDATE and its like change nothing here: reads never wait for writes.
        query.locks.clear();
        if let sql::SetExpr::Table(table) = query.body.as_mut() {
            let all = parse_query(&format!("SELECT * FROM {}", table_name(table)));
            match all {
                Ok(all) => query.body = all.body,
                Err(error) => return ControlFlow::Break(error),
            }
        }
        match self.purpose {
            Purpose::View => flow(check_set_operations(&query.body, true)),
            Purpose::Once | Purpose::Dml => flow(check_set_operations(&query.body, false)),
        }
    }

    fn pre_visit_select(&mut self, select: &mut sql::Select) -> Flow {
        if let sql::GroupByExpr::Expressions(exprs, _) = &mut select.group_by {
            exprs.iter_mut().for_each(keep_number);
        }
        if let Some(sql::Distinct::On(exprs)) = &mut select.distinct {
            exprs.iter_mut().for_each(keep_number);
        }
        name_items(&mut select.projection);
        flow(select.from.iter().try_for_each(check_joins))
    }

    fn pre_visit_table_factor(&mut self, factor: &mut sql::TableFactor) -> Flow {
        name_series(factor);
        settle_bounds(factor, self.session);
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut sql::Expr) -> Flow {
        flow(self.before(expr))
    }

    fn post_visit_expr(&mut self, expr: &mut sql::Expr) -> Flow {
        flow(self.after(expr))
    }
}

impl Rewriter<'_> {
    /// What must change before the parts of the expression do.
    fn before(&mut self, expr: &mut sql::Expr) -> Result<()> {
        sign_before_power(expr);
        match expr {
            sql::Expr::Identifier(ident)
                if ident.quote_style.is_none()
                    && ident.value.eq_ignore_ascii_case("current_schema") =>
            {
                *expr = current_schema(self.session);
            }
            sql::Expr::UnaryOp {
                op: sql::UnaryOperator::Minus,
                expr: operand,
            } => {
                if let Some(digits) = folded_digits(operand) {
                    *expr = number(negated(digits));
                }
            }
            sql::Expr::Function(function) => {
                fractions_as_floats(function);
                plain_count(function);
                check_star(function)?;
                if let Some(column) = qualified_column(function) {
                    *expr = column;
                } else if let Some(replacement) =
                    session_function(function, self.session, self.purpose)?
                {
                    *expr = replacement;
                } else {
                    rewrite_nullif(expr);
                }
            }
            sql::Expr::CompoundFieldAccess { access_chain, .. } => {
                keep_subscripts(access_chain);
                rewrite_field_access(expr);
            }
            _ => {}
        }
        Ok(())
    }

    /// What changes when the parts have.
    fn after(&mut self, expr: &mut sql::Expr) -> Result<()> {
        match expr {
            sql::Expr::Value(value) => {
                if let sql::Value::Number(digits, false) = &value.value {
                    *expr = typed_number(digits);
                }
            }
            sql::Expr::Interval(interval) => *expr = interval_cast(interval)?,
            sql::Expr::UnaryOp {
                op: sql::UnaryOperator::Minus,
                expr: operand,
            } => *expr = call("op_negate", vec![(**operand).clone()]),
            sql::Expr::UnaryOp {
                op: sql::UnaryOperator::BitwiseNot,
                expr: operand,
            } => *expr = bitwise_not(operand),
            sql::Expr::Case { .. } => rewrite_case(expr),
            sql::Expr::Like { .. } | sql::Expr::ILike { .. } => like_with_escape(expr)?,
            sql::Expr::Function(function) => {
                plain_frame(function);
                if let Some(rows) = rows_of_series(function) {
                    *expr = rows;
                }
            }
            sql::Expr::AnyOp { .. } | sql::Expr::AllOp { .. } => {
                if let Some(test) = quantified(expr) {
                    *expr = test;
                }
            }
            sql::Expr::AtTimeZone {
                timestamp,
                time_zone,
            } => {
                let args = vec![(**time_zone).clone(), (**timestamp).clone()];
                *expr = call("timezone", args);
            }
            sql::Expr::Cast {
                expr: inner,
                data_type,
                ..
            } => {
                if let Some(limited) = limited_cast(inner, data_type) {
                    *expr = limited;
                } else if let Some(call) = written_cast(expr) {
                    *expr = call;
                }
            }
            sql::Expr::TypedString(typed) => {
                if let Some(text) = typed.value.clone().into_string() {
                    *expr = sql::Expr::Cast {
                        kind: sql::CastKind::DoubleColon,
                        expr: Box::new(string(text)),
                        data_type: typed.data_type.clone(),
                        array: false,
                        format: None,
                    };
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// `t.user` reads as a call of `user` without parentheses; it is a column.
fn qualified_column(function: &sql::Function) -> Option<sql::Expr> {
    let parts = function.name.0.iter().map(|part| part.as_ident().cloned());
    let parts = parts.collect::<Option<Vec<_>>>()?;
    let bare = matches!(function.args, sql::FunctionArguments::None);
    (bare && parts.len() > 1).then_some(sql::Expr::CompoundIdentifier(parts))
}

/// The fraction that `percentile_cont(0.5) WITHIN GROUP (…)` names is a double precision.
fn fractions_as_floats(function: &mut sql::Function) {
    let sql::FunctionArguments::List(list) = &mut function.args else {
        return;
    };
    if function.within_group.is_empty() {
        return;
    }
    for arg in &mut list.args {
        if let sql::FunctionArg::Unnamed(sql::FunctionArgExpr::Expr(value)) = arg
            && let Some(digits) = signed_digits(value)
        {
            *value = cast(string(digits), &DataType::Float64);
        }
    }
}

/// Positions in ORDER BY and GROUP BY, counts in LIMIT: not values, so they get no type.
fn keep_number(expr: &mut sql::Expr) {
    if let sql::Expr::Value(value) = expr
        && let sql::Value::Number(_, long) = &mut value.value
    {
        *long = true;
    }
}

/// The name in `TABLE schema.name`, quoted.
fn table_name(table: &sql::Table) -> String {
    let parts = [&table.schema_name, &table.table_name];
    let parts = parts.into_iter().flatten();
    let parts = parts.map(|part| format!("\"{}\"", part.replace('"', "\"\"")));
    parts.collect::<Vec<_>>().join(".")
}

/// A count in LIMIT or OFFSET: a parameter there is a bigint.
fn row_count(expr: &mut sql::Expr) {
    keep_number(expr);
    if let sql::Expr::Value(value) = expr
        && matches!(value.value, sql::Value::Placeholder(_))
    {
        *expr = cast(expr.clone(), &DataType::Int64);
    }
}

/// A number as written, with the minus before it.
fn signed_digits(expr: &sql::Expr) -> Option<String> {
    match expr {
        sql::Expr::UnaryOp {
            op: sql::UnaryOperator::Minus,
            expr,
        } => digits(expr).map(|digits| format!("-{digits}")),
        expr => digits(expr),
    }
}

/// As [`signed_digits`], also through parentheses and several signs: `-(-2147483648)` is one
/// literal, a bigint.
fn folded_digits(expr: &sql::Expr) -> Option<String> {
    match expr {
        sql::Expr::Nested(inner) => folded_digits(inner),
        sql::Expr::UnaryOp {
            op: sql::UnaryOperator::Minus,
            expr,
        } => folded_digits(expr).map(negated),
        expr => digits(expr),
    }
}

fn negated(digits: String) -> String {
    match digits.strip_prefix('-') {
        Some(positive) => positive.to_string(),
        None => format!("-{digits}"),
    }
}

fn keep_subscripts(chain: &mut [sql::AccessExpr]) {
    for access in chain {
        if let sql::AccessExpr::Subscript(sql::Subscript::Index { index }) = access {
            keep_number(index);
        }
    }
}

/// `(x).a[1].b` step by step: a field is a call of `get_field`, a subscript stays.
fn rewrite_field_access(expr: &mut sql::Expr) {
    let sql::Expr::CompoundFieldAccess { root, access_chain } = &*expr else {
        return;
    };
    let is_field =
        |access: &sql::AccessExpr| matches!(access, sql::AccessExpr::Dot(sql::Expr::Identifier(_)));
    if !access_chain.iter().any(is_field) {
        return;
    }
    let mut value = (**root).clone();
    for access in access_chain {
        value = match access {
            sql::AccessExpr::Dot(sql::Expr::Identifier(field)) => {
                call("get_field", vec![value, string(normalised(field))])
            }
            other => sql::Expr::CompoundFieldAccess {
                root: Box::new(value),
                access_chain: vec![other.clone()],
            },
        };
    }
    *expr = value;
}

fn digits(expr: &sql::Expr) -> Option<String> {
    match expr {
        sql::Expr::Value(value) => match &value.value {
            sql::Value::Number(digits, false) if !digits.starts_with('-') => Some(digits.clone()),
            _ => None,
        },
        _ => None,
    }
}

/// `1` is int4, a larger integer int8, anything else numeric, or double precision where numeric
/// cannot hold it.
pub(super) fn typed_number(digits: &str) -> sql::Expr {
    let plain = digits.replace('_', "");
    let kept = |text: String| sql::Expr::Value(sql::Value::Number(text, true).with_empty_span());
    if plain.parse::<i32>().is_ok() {
        return cast(kept(plain), &DataType::Int32);
    }
    if plain.parse::<i64>().is_ok() {
        return cast(kept(plain), &DataType::Int64);
    }
    let ty = number_literal(&plain).map_or(ruslo_repr::schema::NUMERIC, |n| n.data_type());
    cast(string(plain), &ty)
}
