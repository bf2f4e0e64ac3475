//! A plan as an indented tree of text, one node a line, and expressions as SQL would write them.

use std::fmt::Write;

use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::logical_expr::expr::{Case, InList, Like};
use datafusion::logical_expr::{BinaryExpr, Expr as DfExpr, Operator};
use ruslo_repr::schema::type_name;
use ruslo_repr::text::TextStyle;
use ruslo_repr::{Aggregate, JoinKind, Numeric, ObjectId, Plan};

use crate::bind::names::shown;
use crate::functions::cast_scalar;

/// `names` gives the name of a relation to show.
pub fn explain(plan: &Plan, names: &dyn Fn(ObjectId) -> String) -> Vec<String> {
    let mut lines = vec![];
    write_plan(plan, names, 0, &mut lines);
    lines
}

fn write_plan(
    plan: &Plan,
    names: &dyn Fn(ObjectId) -> String,
    depth: usize,
    lines: &mut Vec<String>,
) {
    let indent = "  ".repeat(depth);
    lines.push(format!("{indent}{}", node_line(plan, names)));
    for input in plan.inputs() {
        write_plan(input, names, depth + 1, lines);
    }
}

fn node_line(plan: &Plan, names: &dyn Fn(ObjectId) -> String) -> String {
    let column_names = |plan: &Plan| -> Vec<String> {
        plan.schema()
            .columns
            .iter()
            .map(|c| c.name.clone())
            .collect()
    };
    match plan {
        Plan::Get { id, .. } => format!("Get {}", names(*id)),
        Plan::Source { id, schema, .. } => {
            let columns = schema.columns.iter().map(|c| c.name.as_str());
            format!("Source {} [{}]", names(*id), join(columns))
        }
        Plan::Values { rows, .. } => format!("Values {} rows", rows.len()),
        Plan::Map {
            filters,
            outputs,
            schema,
            ..
        } => {
            let shown = outputs.iter().zip(&schema.columns).map(|(output, column)| {
                match output.text == column.name {
                    true => column.name.clone(),
                    false => format!("{} AS {}", output.text, column.name),
                }
            });
            let mut line = format!("Map [{}]", shown.collect::<Vec<_>>().join(", "));
            if !filters.is_empty() {
                let alone = filters.len() == 1;
                let filters = filters
                    .iter()
                    .map(|f| match f.text.contains(" OR ") && !alone {
                        true => format!("({})", f.text),
                        false => f.text.clone(),
                    });
                let filters = filters.collect::<Vec<_>>().join(" AND ");
                let _ = write!(line, " where {filters}");
            }
            line
        }
        Plan::Reduce {
            input,
            keys,
            aggregates,
            ..
        } => {
            let columns = column_names(input);
            let keys = keys.iter().map(|&key| columns[key].as_str());
            let aggregates = aggregates.iter().map(aggregate_text);
            let aggregates = aggregates.collect::<Vec<_>>().join(", ");
            format!("Reduce by [{}] compute [{aggregates}]", join(keys))
        }
        Plan::Distinct { .. } => "Distinct".into(),
        Plan::Join {
            kind,
            left,
            right,
            on,
            residual,
            null_equal,
            ..
        } => {
            let (left, right) = (column_names(left), column_names(right));
            let on = on
                .iter()
                .map(|&(l, r)| format!("{} = {}", left[l], right[r]));
            let mut line = format!("Join {}", join_name(*kind));
            let _ = write!(line, " on [{}]", on.collect::<Vec<_>>().join(", "));
            if *null_equal {
                line.push_str(" null = null");
            }
            if let Some(residual) = residual {
                let _ = write!(line, " and {}", residual.text);
            }
            line
        }
        Plan::Union { .. } => "Union".into(),
    }
}

fn join<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.collect::<Vec<_>>().join(", ")
}

fn aggregate_text(aggregate: &Aggregate) -> String {
    aggregate.text.clone()
}

fn join_name(kind: JoinKind) -> &'static str {
    match kind {
        JoinKind::Inner => "inner",
        JoinKind::Left => "left",
        JoinKind::Right => "right",
        JoinKind::Full => "full",
        JoinKind::Semi => "semi",
        JoinKind::Anti => "anti",
    }
}

/// An expression for people: names without qualifiers, literals as SQL, functions as calls.
pub(crate) fn expr_text(expr: &DfExpr) -> String {
    match expr {
        DfExpr::Column(column) => shown(&column.name).to_string(),
        DfExpr::Literal(value, _) => literal_text(value),
        DfExpr::Alias(alias) => expr_text(&alias.expr),
        DfExpr::BinaryExpr(binary) => binary_text(binary),
        DfExpr::Not(inner) => format!("NOT {}", expr_text(inner)),
        DfExpr::IsNull(inner) => format!("{} IS NULL", expr_text(inner)),
        DfExpr::IsNotNull(inner) => format!("{} IS NOT NULL", expr_text(inner)),
        DfExpr::IsTrue(inner) => format!("{} IS TRUE", expr_text(inner)),
        DfExpr::IsNotTrue(inner) => format!("{} IS NOT TRUE", expr_text(inner)),
        DfExpr::IsFalse(inner) => format!("{} IS FALSE", expr_text(inner)),
        DfExpr::IsNotFalse(inner) => format!("{} IS NOT FALSE", expr_text(inner)),
        DfExpr::Negative(inner) => format!("-{}", expr_text(inner)),
        DfExpr::Cast(cast) => {
            format!(
                "{}::{}",
                expr_text(&cast.expr),
                type_name(cast.field.data_type())
            )
        }
        DfExpr::InList(list) => in_list_text(list),
        DfExpr::Like(like) => like_text(like),
        DfExpr::Case(case) => case_text(case),
        DfExpr::ScalarFunction(call) => function_text(call.func.name(), &call.args),
        DfExpr::AggregateFunction(call) => {
            let params = &call.params;
            let args = params
                .args
                .iter()
                .map(expr_text)
                .collect::<Vec<_>>()
                .join(", ");
            let distinct = if params.distinct { "DISTINCT " } else { "" };
            let mut text = format!("{}({distinct}{args})", call.func.name());
            if let Some(filter) = &params.filter {
                let _ = write!(text, " FILTER (WHERE {})", expr_text(filter));
            }
            text
        }
        other => other.to_string(),
    }
}

fn in_list_text(list: &InList) -> String {
    let values = list
        .list
        .iter()
        .map(expr_text)
        .collect::<Vec<_>>()
        .join(", ");
    let not = if list.negated { "NOT " } else { "" };
    format!("{} {not}IN ({values})", expr_text(&list.expr))
}

fn like_text(like: &Like) -> String {
    let not = if like.negated { "NOT " } else { "" };
    let word = if like.case_insensitive {
        "ILIKE"
    } else {
        "LIKE"
    };
    let (left, right) = (expr_text(&like.expr), expr_text(&like.pattern));
    format!("{left} {not}{word} {right}")
}

fn case_text(case: &Case) -> String {
    let mut text = "CASE".to_string();
    for (when, then) in &case.when_then_expr {
        let _ = write!(text, " WHEN {} THEN {}", expr_text(when), expr_text(then));
    }
    if let Some(otherwise) = &case.else_expr {
        let _ = write!(text, " ELSE {}", expr_text(otherwise));
    }
    text + " END"
}

fn binary_text(binary: &BinaryExpr) -> String {
    let side = |expr: &DfExpr| {
        let looser = match expr {
            DfExpr::BinaryExpr(inner) => {
                matches!(inner.op, Operator::And | Operator::Or) && inner.op != binary.op
            }
            _ => false,
        };
        match looser {
            true => format!("({})", expr_text(expr)),
            false => expr_text(expr),
        }
    };
    format!(
        "{} {} {}",
        side(&binary.left),
        binary.op,
        side(&binary.right)
    )
}

/// Operators that are functions inside show as operators.
fn function_text(name: &str, args: &[DfExpr]) -> String {
    let symbol = match name {
        "op_add" => "+",
        "op_subtract" => "-",
        "op_multiply" => "*",
        "op_divide" => "/",
        "op_modulo" => "%",
        "op_power" => "^",
        "op_concat" => "||",
        "op_json_get" => "->",
        "op_json_get_text" => "->>",
        _ => "",
    };
    match (symbol, args) {
        ("", [arg]) if name == "key_form" => expr_text(arg),
        ("", [arg]) if name.starts_with("cast_to_") => {
            format!(
                "{}::{}",
                expr_text(arg),
                name.trim_start_matches("cast_to_")
            )
        }
        ("", _) => {
            let args = args.iter().map(expr_text).collect::<Vec<_>>().join(", ");
            format!("{name}({args})")
        }
        (symbol, [left, right]) => format!("({} {symbol} {})", expr_text(left), expr_text(right)),
        (symbol, _) => {
            let args = args.iter().map(expr_text).collect::<Vec<_>>().join(", ");
            format!("{symbol}({args})")
        }
    }
}

fn literal_text(value: &ScalarValue) -> String {
    match value {
        value if value.is_null() => "NULL".into(),
        ScalarValue::Utf8(Some(text)) => format!("'{}'", text.replace('\'', "''")),
        ScalarValue::LargeUtf8(Some(text)) => format!("'{}'::jsonb", text.replace('\'', "''")),
        ScalarValue::FixedSizeBinary(16, Some(bytes)) => match bytes.as_slice().try_into() {
            Ok(bytes) => Numeric::from_bytes(bytes).to_string(),
            Err(_) => value.to_string(),
        },
        ScalarValue::Boolean(_)
        | ScalarValue::Int16(_)
        | ScalarValue::Int32(_)
        | ScalarValue::Int64(_) => value.to_string(),
        other => match cast_scalar(other, &DataType::Utf8, &TextStyle::default()) {
            Ok(ScalarValue::Utf8(Some(text))) => format!("'{text}'"),
            _ => other.to_string(),
        },
    }
}
