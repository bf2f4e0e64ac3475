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
use chrono_tz::Tz;
use datafusion::sql::sqlparser::ast as sql;
use datafusion::sql::sqlparser::ast::{VisitMut, VisitorMut};
use datafusion::sql::sqlparser::tokenizer::Span;
use ruslo_repr::schema::type_name;
use ruslo_repr::{Error, ErrorKind, Result};

use super::names::{column_name, marked, normalised};
use super::{Purpose, typed};
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

fn number(text: impl Into<String>) -> sql::Expr {
    sql::Expr::Value(sql::Value::Number(text.into(), false).with_empty_span())
}

/// A call `name(args…)`.
pub(super) fn call(name: &str, args: Vec<sql::Expr>) -> sql::Expr {
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
        match expr {
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
                if let Some(column) = qualified_column(function) {
                    *expr = column;
                } else if let Some(replacement) = self.session_function(function)? {
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
            sql::Expr::Case { .. } => rewrite_case(expr),
            sql::Expr::AnyOp {
                left,
                compare_op,
                right,
                ..
            } => {
                if let Some(test) = quantified("any", left, compare_op, right) {
                    *expr = test;
                }
            }
            sql::Expr::AllOp {
                left,
                compare_op,
                right,
            } => {
                if let Some(test) = quantified("all", left, compare_op, right) {
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

    /// Functions whose value the statement fixes, as constants.
    fn session_function(&self, function: &sql::Function) -> Result<Option<sql::Expr>> {
        let Some(ident) = function.name.0.last().and_then(|part| part.as_ident()) else {
            return Ok(None);
        };
        let name = normalised(ident);
        let no_args = match &function.args {
            sql::FunctionArguments::None => true,
            sql::FunctionArguments::List(list) => list.args.is_empty(),
            sql::FunctionArguments::Subquery(_) => false,
        };
        if !no_args && !matches!(name.as_str(), "current_time" | "current_timestamp") {
            return Ok(None);
        }
        let text = match name.as_str() {
            "user" | "current_user" | "session_user" | "current_role" => {
                string(self.session.user.as_str())
            }
            "current_database" | "current_catalog" => string(self.session.database.as_str()),
            "current_schema" => match self.session.search_path.first() {
                Some(schema) => string(schema.as_str()),
                None => sql::Expr::Value(sql::Value::Null.with_empty_span()),
            },
            "now"
            | "current_timestamp"
            | "transaction_timestamp"
            | "statement_timestamp"
            | "proctime"
            | "clock_timestamp"
            | "localtimestamp"
            | "localtime"
            | "current_date"
            | "current_time" => return self.time_function(&name).map(Some),
            _ => return Ok(None),
        };
        Ok(Some(text))
    }

    fn time_function(&self, name: &str) -> Result<sql::Expr> {
        if self.purpose == Purpose::View {
            let message = format!("{name}() is not supported in a view yet");
            return Err(Error::unsupported(message).with_hint(
                "A view is kept up to date by its inputs alone. Use the function in a query on \
                 the view, or a column of the input that holds the time.",
            ));
        }
        let now = self.session.now;
        let zone: Tz = self.session.time_zone.parse().unwrap_or(Tz::UTC);
        let local = now.with_timezone(&zone).naive_local();
        let (text, ty) = match name {
            "current_date" => (local.format("%Y-%m-%d").to_string(), DataType::Date32),
            "localtimestamp" => {
                let text = local.format("%Y-%m-%d %H:%M:%S%.6f").to_string();
                (text, ruslo_repr::schema::TIMESTAMP)
            }
            "localtime" | "current_time" => {
                let text = local.format("%H:%M:%S%.6f").to_string();
                (text, ruslo_repr::schema::TIME)
            }
            _ => {
                let text = now.format("%Y-%m-%d %H:%M:%S%.6f+00:00").to_string();
                (text, ruslo_repr::schema::timestamptz())
            }
        };
        Ok(cast(string(text), &ty))
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
fn typed_number(digits: &str) -> sql::Expr {
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

fn interval_cast(interval: &sql::Interval) -> Result<sql::Expr> {
    let sql::Expr::Value(value) = interval.value.as_ref() else {
        let message = "INTERVAL takes a string, as in INTERVAL '1 day'";
        return Err(Error::new(ErrorKind::Syntax, message));
    };
    let text = value.value.clone().into_string().unwrap_or_default();
    let text = match &interval.leading_field {
        Some(unit) => format!("{text} {}", unit.to_string().to_lowercase()),
        None => text,
    };
    Ok(cast(string(text), &ruslo_repr::schema::INTERVAL))
}

/// A cast to a type with a precision or a length, which rounds, cuts off or refuses.
fn limited_cast(value: &sql::Expr, ty: &sql::DataType) -> Option<sql::Expr> {
    use sql::DataType::*;
    let limit = |n: &dyn ToString| typed_number(&n.to_string());
    match ty {
        Numeric(info) | Decimal(info) | Dec(info) => {
            let (precision, scale) = match info {
                sql::ExactNumberInfo::PrecisionAndScale(precision, scale) => (precision, *scale),
                sql::ExactNumberInfo::Precision(precision) => (precision, 0),
                sql::ExactNumberInfo::None => return None,
            };
            let value = cast(value.clone(), &ruslo_repr::schema::NUMERIC);
            let args = vec![value, limit(precision), limit(&scale)];
            Some(call("numeric_typmod", args))
        }
        Varchar(Some(length)) | CharacterVarying(Some(length)) | CharVarying(Some(length)) => {
            let sql::CharacterLength::IntegerLength { length, .. } = length else {
                return None;
            };
            let value = cast(value.clone(), &DataType::Utf8);
            Some(call("varchar_typmod", vec![value, limit(length)]))
        }
        _ => None,
    }
}

/// `x op ANY (array)` as `op_any_…(x, array)`; none for a subquery.
fn quantified(
    quantifier: &str,
    left: &sql::Expr,
    op: &sql::BinaryOperator,
    right: &sql::Expr,
) -> Option<sql::Expr> {
    let op = match op {
        sql::BinaryOperator::Eq => "eq",
        sql::BinaryOperator::NotEq => "ne",
        sql::BinaryOperator::Lt => "lt",
        sql::BinaryOperator::LtEq => "le",
        sql::BinaryOperator::Gt => "gt",
        sql::BinaryOperator::GtEq => "ge",
        _ => return None,
    };
    if matches!(right, sql::Expr::Subquery(_)) {
        return None;
    }
    let name = format!("op_{quantifier}_{op}");
    Some(call(&name, vec![left.clone(), right.clone()]))
}

/// `CASE x WHEN a THEN b … ELSE e END` as `__case(x = a, b, …, e)`.
fn rewrite_case(expr: &mut sql::Expr) {
    let sql::Expr::Case {
        operand,
        conditions,
        else_result,
        ..
    } = expr
    else {
        return;
    };
    let mut args = vec![];
    for when in conditions.drain(..) {
        let condition = match operand.as_deref() {
            Some(operand) => equal(operand.clone(), when.condition),
            None => when.condition,
        };
        args.push(condition);
        args.push(when.result);
    }
    args.extend(else_result.take().map(|e| *e));
    *expr = call(typed::CASE, args);
}

/// `NULLIF(a, b)` as `CASE WHEN a = b THEN NULL ELSE a END`.
fn rewrite_nullif(expr: &mut sql::Expr) {
    let sql::Expr::Function(function) = &*expr else {
        return;
    };
    let is_nullif = function.name.to_string().eq_ignore_ascii_case("nullif");
    let sql::FunctionArguments::List(list) = &function.args else {
        return;
    };
    let values = list.args.iter().filter_map(|arg| match arg {
        sql::FunctionArg::Unnamed(sql::FunctionArgExpr::Expr(expr)) => Some(expr.clone()),
        _ => None,
    });
    let values: Vec<sql::Expr> = values.collect();
    if let (true, [a, b]) = (is_nullif, values.as_slice()) {
        let null = sql::Expr::Value(sql::Value::Null.with_empty_span());
        let same = equal(a.clone(), b.clone());
        *expr = call(typed::CASE, vec![same, null, a.clone()]);
    }
}

fn equal(left: sql::Expr, right: sql::Expr) -> sql::Expr {
    let nested = |e| Box::new(sql::Expr::Nested(Box::new(e)));
    sql::Expr::BinaryOp {
        left: nested(left),
        op: sql::BinaryOperator::Eq,
        right: nested(right),
    }
}

/// Gives every unnamed item PostgreSQL's name; names that stand twice get a mark each.
fn name_items(items: &mut [sql::SelectItem]) {
    let wildcard = items.iter().any(|item| {
        matches!(
            item,
            sql::SelectItem::Wildcard(_) | sql::SelectItem::QualifiedWildcard(..)
        )
    });
    let name_of = |item: &sql::SelectItem| match item {
        sql::SelectItem::UnnamedExpr(expr) => Some(column_name(expr)),
        sql::SelectItem::ExprWithAlias { alias, .. } => Some(normalised(alias)),
        _ => None,
    };
    let names: Vec<Option<String>> = items.iter().map(name_of).collect();
    for (i, item) in items.iter_mut().enumerate() {
        let Some(name) = &names[i] else { continue };
        let earlier = names[..i].iter().flatten().any(|other| other == name);
        let (expr, is_column) = match item {
            sql::SelectItem::UnnamedExpr(expr) => {
                let is_column = matches!(
                    expr,
                    sql::Expr::Identifier(_) | sql::Expr::CompoundIdentifier(_)
                );
                (expr, is_column)
            }
            sql::SelectItem::ExprWithAlias { expr, .. } if earlier => (expr, false),
            _ => continue,
        };
        let alias = match (earlier || is_column && wildcard, is_column) {
            (true, _) => marked(name, i),
            (false, true) => continue,
            (false, false) => name.clone(),
        };
        *item = sql::SelectItem::ExprWithAlias {
            expr: expr.clone(),
            alias: sql::Ident::with_quote_and_span('"', Span::empty(), alias),
        };
    }
}

fn fetch_as_limit(query: &mut sql::Query, fetch: sql::Fetch) -> Result<()> {
    if fetch.with_ties || fetch.percent {
        return Err(Error::unsupported(
            "FETCH FIRST … WITH TIES or PERCENT is not supported",
        ));
    }
    let rows = fetch.quantity.unwrap_or_else(|| number("1"));
    match &mut query.limit_clause {
        None => {
            query.limit_clause = Some(sql::LimitClause::LimitOffset {
                limit: Some(rows),
                offset: None,
                limit_by: vec![],
            });
        }
        Some(sql::LimitClause::LimitOffset { limit, .. }) => *limit = Some(rows),
        Some(sql::LimitClause::OffsetCommaLimit { limit, .. }) => *limit = rows,
    }
    Ok(())
}

/// INTERSECT ALL and EXCEPT ALL number the rows, which a view cannot.
fn check_set_operations(body: &sql::SetExpr, in_view: bool) -> Result<()> {
    let sql::SetExpr::SetOperation {
        left,
        op,
        set_quantifier,
        right,
    } = body
    else {
        return Ok(());
    };
    let by_name = matches!(
        set_quantifier,
        sql::SetQuantifier::ByName
            | sql::SetQuantifier::AllByName
            | sql::SetQuantifier::DistinctByName
    );
    if by_name {
        return Err(Error::unsupported(format!("{op} BY NAME is not supported")));
    }
    let counts_rows = *op != sql::SetOperator::Union && *set_quantifier == sql::SetQuantifier::All;
    if counts_rows && in_view {
        let message = format!("{op} ALL is not supported in a view yet");
        let hint = format!("{op} without ALL is, and counting rows per group can replace ALL.");
        return Err(Error::unsupported(message).with_hint(hint));
    }
    check_set_operations(left, in_view)?;
    check_set_operations(right, in_view)
}

/// FULL JOIN with USING would show the left side's key where only the right side has a row.
fn check_joins(from: &sql::TableWithJoins) -> Result<()> {
    for join in &from.joins {
        let (side, constraint) = match &join.join_operator {
            sql::JoinOperator::FullOuter(constraint) => ("FULL", constraint),
            sql::JoinOperator::Right(c) | sql::JoinOperator::RightOuter(c) => ("RIGHT", c),
            _ => continue,
        };
        let merged = matches!(
            constraint,
            sql::JoinConstraint::Using(_) | sql::JoinConstraint::Natural
        );
        if merged {
            let message = format!("{side} JOIN with USING or NATURAL is not supported yet");
            return Err(Error::unsupported(message)
                .with_hint("Write ON a.x = b.x and select COALESCE(a.x, b.x)."));
        }
    }
    Ok(())
}
