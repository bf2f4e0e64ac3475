//! Functions whose value the session and the moment of the statement fix.

use arrow::datatypes::DataType;
use chrono_tz::Tz;
use datafusion::sql::sqlparser::ast as sql;
use ruslo_repr::schema::list_of;
use ruslo_repr::{Error, ErrorKind, Result};

use super::Purpose;
use super::names::normalised;
use super::rewrite::{call, cast, number, string};
use crate::catalog::SessionContext;

/// Functions whose value the statement fixes, as constants.
pub(super) fn session_function(
    function: &sql::Function,
    session: &SessionContext,
    purpose: Purpose,
) -> Result<Option<sql::Expr>> {
    let Some(ident) = function.name.0.last().and_then(|part| part.as_ident()) else {
        return Ok(None);
    };
    let name = normalised(ident);
    let no_args = match &function.args {
        sql::FunctionArguments::None => true,
        sql::FunctionArguments::List(list) => list.args.is_empty(),
        sql::FunctionArguments::Subquery(_) => false,
    };
    if let Some(value) = with_arguments(&name, function, session, purpose)? {
        return Ok(Some(value));
    }
    if !no_args && !matches!(name.as_str(), "current_time" | "current_timestamp") {
        return Ok(None);
    }
    let text = match name.as_str() {
        "user" | "current_user" | "session_user" | "current_role" => string(session.user.as_str()),
        "current_database" | "current_catalog" => string(session.database.as_str()),
        "current_schema" => current_schema(session),
        "pg_backend_pid" => number(std::process::id().to_string()),
        "now"
        | "current_timestamp"
        | "transaction_timestamp"
        | "statement_timestamp"
        | "proctime"
        | "clock_timestamp"
        | "localtimestamp"
        | "localtime"
        | "current_date"
        | "current_time" => return time_function(&name, session, purpose).map(Some),
        _ => return Ok(None),
    };
    Ok(Some(text))
}

fn time_function(name: &str, session: &SessionContext, purpose: Purpose) -> Result<sql::Expr> {
    if purpose == Purpose::View {
        let message = format!("{name}() is not supported in a view yet");
        return Err(Error::unsupported(message).with_hint(
            "A view is kept up to date by its inputs alone. Use the function in a query on \
                 the view, or a column of the input that holds the time.",
        ));
    }
    let now = session.now;
    let zone: Tz = session.time_zone.parse().unwrap_or(Tz::UTC);
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

pub(super) fn current_schema(session: &SessionContext) -> sql::Expr {
    match session.search_path.first() {
        Some(schema) => string(schema.as_str()),
        None => null(),
    }
}

fn null() -> sql::Expr {
    let null = sql::Expr::Value(sql::Value::Null.with_empty_span());
    cast(null, &DataType::Utf8)
}

/// The arguments of a call as far as they are literals.
fn literals(function: &sql::Function) -> Vec<Option<String>> {
    let sql::FunctionArguments::List(list) = &function.args else {
        return vec![];
    };
    let values = list.args.iter().map(|arg| match arg {
        sql::FunctionArg::Unnamed(sql::FunctionArgExpr::Expr(sql::Expr::Value(value))) => {
            match &value.value {
                sql::Value::Boolean(value) => Some(value.to_string()),
                other => other.clone().into_string(),
            }
        }
        _ => None,
    });
    values.collect()
}

/// Functions that tell about settings by the literals they are given.
fn with_arguments(
    name: &str,
    function: &sql::Function,
    session: &SessionContext,
    purpose: Purpose,
) -> Result<Option<sql::Expr>> {
    if !matches!(name, "current_setting" | "current_schemas" | "set_config") {
        return Ok(None);
    }
    if purpose == Purpose::View {
        let message = format!("{name}() is not supported in a view");
        let hint = "What it tells is another for each session; use it in a query on the view.";
        return Err(Error::unsupported(message).with_hint(hint));
    }
    let args = literals(function);
    let text = |at: usize| match args.get(at) {
        Some(Some(text)) => Ok(text.as_str()),
        _ => {
            let message = format!("{name}() is supported with literals as arguments only");
            Err(Error::unsupported(message))
        }
    };
    Ok(Some(match name {
        // A parameter's value comes later.
        "current_setting" if matches!(args.first(), Some(None)) => any_setting(function, session)?,
        "current_setting" => {
            let setting = text(0)?.to_lowercase();
            let missing_ok = args.len() > 1 && matches!(text(1)?, "true" | "t");
            match session.settings.get(&setting) {
                Some(value) => string(value.as_str()),
                None if missing_ok => null(),
                None => {
                    let message = format!("unrecognized configuration parameter \"{setting}\"");
                    return Err(Error::new(ErrorKind::UndefinedObject, message));
                }
            }
        }
        "current_schemas" => {
            let implicit = matches!(text(0)?, "true" | "t");
            let on_path = session.search_path.iter().any(|s| s == "pg_catalog");
            let system = (implicit && !on_path).then_some("pg_catalog");
            let path = session.search_path.iter().map(String::as_str);
            let names = system.into_iter().chain(path);
            let names = names.map(|name| format!("\"{}\"", name.replace('"', "\\\"")));
            let list = format!("{{{}}}", names.collect::<Vec<_>>().join(","));
            cast(string(list), &list_of(DataType::Utf8))
        }
        // The session has set it by now.
        _ => string(text(1)?),
    }))
}

/// The value of a setting whose name is known only when the query runs; NULL if there is none.
fn any_setting(function: &sql::Function, session: &SessionContext) -> Result<sql::Expr> {
    let sql::FunctionArguments::List(list) = &function.args else {
        return Err(Error::internal("a call without arguments has one"));
    };
    let Some(sql::FunctionArg::Unnamed(sql::FunctionArgExpr::Expr(name))) = list.args.first()
    else {
        return Err(Error::unsupported(
            "current_setting() takes the name of a setting",
        ));
    };
    let name = cast(name.clone(), &DataType::Utf8);
    let settings = session.settings.iter();
    let conditions = settings.map(|(setting, value)| sql::CaseWhen {
        condition: string(setting.as_str()),
        result: string(value.as_str()),
    });
    Ok(sql::Expr::Case {
        case_token: sql::helpers::attached_token::AttachedToken::empty(),
        end_token: sql::helpers::attached_token::AttachedToken::empty(),
        operand: Some(Box::new(call("lower", vec![name]))),
        conditions: conditions.collect(),
        else_result: None,
    })
}

/// The settings that `set_config('name', 'value', …)` among a query's columns changes.
pub fn settings_changed(query: &sql::Query) -> Vec<(String, String)> {
    let sql::SetExpr::Select(select) = query.body.as_ref() else {
        return vec![];
    };
    let changes = select.projection.iter().filter_map(|item| {
        let (sql::SelectItem::UnnamedExpr(sql::Expr::Function(function))
        | sql::SelectItem::ExprWithAlias {
            expr: sql::Expr::Function(function),
            ..
        }) = item
        else {
            return None;
        };
        let name = normalised(function.name.0.last()?.as_ident()?);
        match (name.as_str(), &literals(function)[..]) {
            ("set_config", [Some(name), Some(value), ..]) => Some((name.clone(), value.clone())),
            _ => None,
        }
    });
    changes.collect()
}

/// `generate_series(1, array_upper(current_schemas(false), 1))`, by which drivers number the
/// schemas of the path: the bound as the number that it is.
pub(super) fn settle_bounds(factor: &mut sql::TableFactor, session: &SessionContext) {
    let sql::TableFactor::Table {
        args: Some(args), ..
    } = factor
    else {
        return;
    };
    for arg in &mut args.args {
        let sql::FunctionArg::Unnamed(sql::FunctionArgExpr::Expr(bound)) = arg else {
            continue;
        };
        let text = bound.to_string().to_lowercase().replace("pg_catalog.", "");
        if text == "array_upper(current_schemas(false), 1)" {
            *bound = number(session.search_path.len().to_string());
        }
    }
}
