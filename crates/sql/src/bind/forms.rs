//! Forms of expressions that DataFusion would bind otherwise than PostgreSQL, said so that it does.

use arrow::datatypes::DataType;
use datafusion::sql::sqlparser::ast as sql;
use ruslo_repr::{Error, ErrorKind, Result};

use super::rewrite::{call, cast, string, typed_number};
use super::typed;
use crate::parse::types::type_from_text;

pub(super) fn interval_cast(interval: &sql::Interval) -> Result<sql::Expr> {
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
pub(super) fn limited_cast(value: &sql::Expr, ty: &sql::DataType) -> Option<sql::Expr> {
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
        Char(Some(length))
        | Character(Some(length))
        | Varchar(Some(length))
        | CharacterVarying(Some(length))
        | CharVarying(Some(length)) => {
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
pub(super) fn quantified(expr: &sql::Expr) -> Option<sql::Expr> {
    let (quantifier, left, op, right) = match expr {
        sql::Expr::AnyOp {
            left,
            compare_op,
            right,
            ..
        } => ("any", left, compare_op, right),
        sql::Expr::AllOp {
            left,
            compare_op,
            right,
        } => ("all", left, compare_op, right),
        _ => return None,
    };
    let op = match op {
        sql::BinaryOperator::Eq => "eq",
        sql::BinaryOperator::NotEq => "ne",
        sql::BinaryOperator::Lt => "lt",
        sql::BinaryOperator::LtEq => "le",
        sql::BinaryOperator::Gt => "gt",
        sql::BinaryOperator::GtEq => "ge",
        _ => return None,
    };
    if matches!(**right, sql::Expr::Subquery(_)) {
        return None;
    }
    let name = format!("op_{quantifier}_{op}");
    Some(call(&name, vec![(**left).clone(), (**right).clone()]))
}

/// `CASE x WHEN a THEN b … ELSE e END` as `__case(x = a, b, …, e)`.
pub(super) fn rewrite_case(expr: &mut sql::Expr) {
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
pub(super) fn rewrite_nullif(expr: &mut sql::Expr) {
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

/// A cast of what is not a literal as a call: DataFusion leaves casts out of the names it tells
/// columns apart by, so `sum(n)` and `sum(n::bigint)` would be one.
pub(super) fn written_cast(expr: &sql::Expr) -> Option<sql::Expr> {
    let sql::Expr::Cast {
        kind: sql::CastKind::Cast | sql::CastKind::DoubleColon,
        expr: inner,
        data_type,
        array: false,
        format: None,
    } = expr
    else {
        return None;
    };
    let ty = data_type.to_string();
    if is_literal(inner) || type_from_text(&ty).is_err() {
        return None;
    }
    Some(call(
        &format!("{}{ty}", typed::CAST),
        vec![(**inner).clone()],
    ))
}

/// Whether it is a literal or a parameter, whose type its surroundings decide.
fn is_literal(expr: &sql::Expr) -> bool {
    match expr {
        sql::Expr::Value(_) | sql::Expr::Array(_) => true,
        sql::Expr::TypedString(_) | sql::Expr::Interval(_) => true,
        sql::Expr::Cast { expr, .. } | sql::Expr::Nested(expr) => is_literal(expr),
        _ => false,
    }
}

/// `count(1)` as `count(*)`: both count rows.
pub(super) fn plain_count(function: &mut sql::Function) {
    if !function.name.to_string().eq_ignore_ascii_case("count") {
        return;
    }
    let sql::FunctionArguments::List(list) = &mut function.args else {
        return;
    };
    if list.duplicate_treatment.is_some() {
        return;
    }
    if let [sql::FunctionArg::Unnamed(arg)] = list.args.as_mut_slice()
        && let sql::FunctionArgExpr::Expr(sql::Expr::Value(value)) = arg
        && !matches!(value.value, sql::Value::Null | sql::Value::Placeholder(_))
    {
        *arg = sql::FunctionArgExpr::Wildcard;
    }
}

/// `LIKE … ESCAPE c` with backslash as the escape, the only one that is computed.
pub(super) fn like_with_escape(expr: &mut sql::Expr) -> Result<()> {
    let (sql::Expr::Like {
        pattern,
        escape_char,
        ..
    }
    | sql::Expr::ILike {
        pattern,
        escape_char,
        ..
    }) = expr
    else {
        return Ok(());
    };
    let Some(escape) = escape_char.take() else {
        return Ok(());
    };
    let escape = escape.value.into_string().unwrap_or_default();
    if escape.chars().count() > 1 {
        let message = "invalid escape string";
        let error = Error::new(ErrorKind::InvalidParameter, message);
        return Err(error.with_hint("Escape string must be empty or one character."));
    }
    if escape != "\\" {
        let args = vec![(**pattern).clone(), string(escape)];
        **pattern = call("like_escape", args);
    }
    Ok(())
}

/// Bounds of a window's frame are counts, not values: they lose the type that literals got.
pub(super) fn plain_frame(function: &mut sql::Function) {
    let Some(sql::WindowType::WindowSpec(spec)) = &mut function.over else {
        return;
    };
    let Some(frame) = &mut spec.window_frame else {
        return;
    };
    let bounds = std::iter::once(&mut frame.start_bound).chain(&mut frame.end_bound);
    for bound in bounds {
        if let sql::WindowFrameBound::Preceding(Some(offset))
        | sql::WindowFrameBound::Following(Some(offset)) = bound
            && let sql::Expr::Cast { expr, .. } = &mut **offset
            && let sql::Expr::Value(value) = &mut **expr
        {
            if let sql::Value::Number(_, long) = &mut value.value {
                *long = false;
            }
            **offset = (**expr).clone();
        }
    }
}

/// Names the column of `generate_series(1, 5) g` as PostgreSQL does: `g`.
pub(super) fn name_series(factor: &mut sql::TableFactor) {
    if let sql::TableFactor::Table {
        name,
        args: Some(_),
        ..
    } = factor
    {
        // Functions have no schemas here; drivers write PostgreSQL's before its own.
        let system = ["pg_catalog", "information_schema"];
        let first = name.0.first().and_then(|part| part.as_ident());
        if name.0.len() > 1 && first.is_some_and(|first| system.contains(&&*first.value)) {
            name.0.remove(0);
        }
    }
    let (alias, default) = match factor {
        sql::TableFactor::Table {
            name,
            args: Some(_),
            alias,
            ..
        } => {
            let name = name.0.last().and_then(|part| part.as_ident());
            let name = name
                .map(|name| name.value.to_lowercase())
                .unwrap_or_default();
            if !matches!(name.as_str(), "generate_series" | "unnest") {
                return;
            }
            (alias, name)
        }
        sql::TableFactor::UNNEST {
            alias, array_exprs, ..
        } if array_exprs.len() == 1 => (alias, "unnest".to_string()),
        _ => return,
    };
    let alias = alias.get_or_insert_with(|| sql::TableAlias {
        explicit: true,
        name: sql::Ident::new(default),
        columns: vec![],
        at: None,
    });
    if alias.columns.is_empty() {
        let name = alias.name.clone();
        let data_type = None;
        alias.columns = vec![sql::TableAliasColumnDef { name, data_type }];
    }
}

/// `generate_series(1, 3)` outside FROM: a row for each of its values, not an array of them.
pub(super) fn rows_of_series(function: &sql::Function) -> Option<sql::Expr> {
    let name = function.name.0.last()?.as_ident()?;
    let mut array = function.clone();
    match name.value.to_lowercase().as_str() {
        "generate_series" => {}
        "_pg_expandarray" => {
            let name = sql::Ident::with_quote('"', "array_with_positions");
            array.name = sql::ObjectName::from(vec![name]);
        }
        _ => return None,
    }
    Some(call("unnest", vec![sql::Expr::Function(array)]))
}

/// `-2 ^ 2` is 4: a sign binds closer than a power.
pub(super) fn sign_before_power(expr: &mut sql::Expr) {
    let sql::Expr::UnaryOp {
        op: op @ (sql::UnaryOperator::Minus | sql::UnaryOperator::Plus),
        expr: operand,
    } = expr
    else {
        return;
    };
    let op = *op;
    if power_base(operand).is_none() {
        return;
    }
    let mut power = (**operand).clone();
    let mut base = &mut power;
    while let sql::Expr::BinaryOp {
        left,
        op: sql::BinaryOperator::PGExp | sql::BinaryOperator::BitwiseXor,
        ..
    } = base
    {
        base = left;
    }
    *base = sql::Expr::UnaryOp {
        op,
        expr: Box::new(base.clone()),
    };
    *expr = power;
}

fn power_base(expr: &sql::Expr) -> Option<&sql::Expr> {
    match expr {
        sql::Expr::BinaryOp {
            left,
            op: sql::BinaryOperator::PGExp | sql::BinaryOperator::BitwiseXor,
            ..
        } => Some(left),
        _ => None,
    }
}

/// `~x` as `-x - 1`.
pub(super) fn bitwise_not(operand: &sql::Expr) -> sql::Expr {
    let one = typed_number("1");
    call(
        "op_subtract",
        vec![call("op_negate", vec![operand.clone()]), one],
    )
}

/// Only `count` takes a star.
pub(super) fn check_star(function: &sql::Function) -> Result<()> {
    let name = function.name.0.last().and_then(|part| part.as_ident());
    let sql::FunctionArguments::List(list) = &function.args else {
        return Ok(());
    };
    let star = |arg: &sql::FunctionArg| {
        matches!(
            arg,
            sql::FunctionArg::Unnamed(sql::FunctionArgExpr::Wildcard)
        )
    };
    match name {
        Some(name) if list.args.iter().any(star) && !name.value.eq_ignore_ascii_case("count") => {
            let message = format!("function {}() does not exist", name.value.to_lowercase());
            Err(Error::new(ErrorKind::UndefinedFunction, message)
                .with_hint("Only count takes a star; name the column to compute over."))
        }
        _ => Ok(()),
    }
}
