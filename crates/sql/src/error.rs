//! DataFusion's errors as PostgreSQL's users know them: kind, text and hint.
//!
//! Errors of our own travel through DataFusion as `External` and come out as they went in. What
//! DataFusion says itself is recognised by its variant, or where it has none by its text.

use datafusion::common::SchemaError;
use datafusion::error::DataFusionError;
use ruslo_repr::{Error, ErrorKind};

use crate::adhoc::out_of_memory;

/// Our error in DataFusion's clothes, for code that runs inside its planner.
pub(crate) fn to_df(error: Error) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

/// The way back, and the translation of all that DataFusion raises itself.
pub(crate) fn from_df(error: DataFusionError) -> Error {
    match error {
        DataFusionError::External(inner) => match inner.downcast::<Error>() {
            Ok(ours) => *ours,
            Err(inner) => match inner.downcast::<DataFusionError>() {
                Ok(nested) => from_df(*nested),
                Err(inner) => Error::internal(inner.to_string()),
            },
        },
        DataFusionError::Context(_, inner) | DataFusionError::Diagnostic(_, inner) => {
            from_df(*inner)
        }
        DataFusionError::Shared(inner) => from_shared(&inner),
        DataFusionError::Collection(errors) => match errors.into_iter().next() {
            Some(first) => from_df(first),
            None => Error::internal("an error without a message"),
        },
        DataFusionError::ArrowError(inner, _) => match *inner {
            arrow::error::ArrowError::ExternalError(inner) => {
                from_df(DataFusionError::External(inner))
            }
            inner => Error::from(inner),
        },
        DataFusionError::SchemaError(inner, _) => from_schema(*inner),
        DataFusionError::NotImplemented(text) => from_not_implemented(&text),
        DataFusionError::Plan(text) => from_plan(&text),
        DataFusionError::Execution(text) => from_execution(&text),
        DataFusionError::ResourcesExhausted(text) => out_of_memory().with_detail(first_line(&text)),
        other => Error::internal(first_line(&other.strip_backtrace()).to_string()),
    }
}

/// An error that several tasks hold: ours is copied out, others are told by their text.
fn from_shared(error: &DataFusionError) -> Error {
    match error.find_root() {
        DataFusionError::External(inner) => match inner.downcast_ref::<Error>() {
            Some(ours) => ours.clone(),
            None => Error::internal(inner.to_string()),
        },
        DataFusionError::Execution(text) => from_execution(text),
        DataFusionError::ResourcesExhausted(text) => out_of_memory().with_detail(first_line(text)),
        other => Error::internal(first_line(&other.strip_backtrace()).to_string()),
    }
}

fn from_schema(error: SchemaError) -> Error {
    match error {
        SchemaError::FieldNotFound {
            field,
            valid_fields,
        } => {
            let known = |relation| {
                valid_fields
                    .iter()
                    .any(|f| f.relation.as_ref() == Some(relation))
            };
            if let Some(relation) = &field.relation
                && !known(relation)
            {
                let message = format!(
                    "missing FROM-clause entry for table \"{}\"",
                    relation.table()
                );
                return Error::new(ErrorKind::UndefinedTable, message);
            }
            let name = match &field.relation {
                Some(relation) => format!("{}.{}", relation.table(), field.name),
                None => format!("\"{}\"", field.name),
            };
            let message = format!("column {name} does not exist");
            Error::new(ErrorKind::UndefinedColumn, message)
        }
        SchemaError::AmbiguousReference { field } => {
            let message = format!("column reference \"{}\" is ambiguous", field.name);
            Error::new(ErrorKind::AmbiguousColumn, message)
        }
        SchemaError::DuplicateUnqualifiedField { name }
        | SchemaError::DuplicateQualifiedField { name, .. } => {
            let message = format!("column \"{name}\" specified more than once");
            Error::new(ErrorKind::DuplicateColumn, message)
        }
    }
}

fn from_not_implemented(text: &str) -> Error {
    let subquery = text.contains("Exists(") || text.contains("InSubquery(");
    if text.contains("does not support logical expression") && subquery {
        let message = "EXISTS and IN with a subquery are supported in WHERE only";
        return Error::unsupported(message)
            .with_hint("Compare a count instead: (SELECT count(*) FROM …) > 0.");
    }
    if text.contains("OuterReferenceColumn") || text.contains("ScalarSubquery") {
        let message = "a subquery that uses columns of the outer query is not supported here";
        return Error::unsupported(message)
            .with_hint("Write it as a join, with GROUP BY where it aggregates.");
    }
    // What stands in brackets after these words is DataFusion's view of the query, not the user's.
    let inside = [
        "Unsupported ast node",
        "Unsupported logical plan",
        " { ",
        "Column(",
    ];
    if inside.iter().any(|inside| text.contains(inside)) {
        let what = text.split([':', '{', '(']).next().unwrap_or(text).trim();
        let message = match what.len() {
            0..=3 => "this form of query is not supported".to_string(),
            _ => format!(
                "this form of query is not supported: {}",
                decapitalised(what)
            ),
        };
        return Error::unsupported(message);
    }
    Error::unsupported(decapitalised(text))
}

fn from_plan(text: &str) -> Error {
    let text = first_line(text);
    let lower = text.to_lowercase();
    if let Some(rest) = text.strip_prefix("Invalid function '") {
        let name = rest.split('\'').next().unwrap_or(rest);
        let message = format!("function {name} does not exist");
        return Error::new(ErrorKind::UndefinedFunction, message)
            .with_hint("Check the name; \\df lists the functions there are.");
    }
    if let Some(rest) = text.strip_prefix("Order by column out of bounds, specified: ") {
        let position = rest.split(',').next().unwrap_or(rest);
        return no_position("ORDER BY", position);
    }
    if let Some(rest) = text.strip_prefix("Cannot find column with position ") {
        return no_position("GROUP BY", rest.split(' ').next().unwrap_or(rest));
    }
    if let Some(rest) = text
        .strip_prefix("Column in SELECT must be in GROUP BY")
        .or_else(|| text.strip_prefix("Column in HAVING must be in GROUP BY"))
        .or_else(|| text.strip_prefix("Column in ORDER BY must be in GROUP BY"))
    {
        return grouping(rest);
    }
    if lower.contains("aggregate functions are not allowed in the where clause") {
        let message = "aggregate functions are not allowed in WHERE";
        return Error::new(ErrorKind::Grouping, message);
    }
    if lower.contains("must be in group by") || lower.contains("non-aggregate values") {
        return grouping(text);
    }
    if lower.contains("ambiguous reference") {
        return Error::new(ErrorKind::AmbiguousColumn, decapitalised(text));
    }
    if lower.contains("function") && lower.contains("no function matches")
        || lower.contains("failed to coerce arguments")
    {
        return Error::new(ErrorKind::UndefinedFunction, decapitalised(text))
            .with_hint("You might need to add explicit type casts.");
    }
    if lower.contains("cannot coerce")
        || lower.contains("cannot infer common")
        || lower.contains("incompatible")
        || lower.contains("inconsistent data type")
    {
        return Error::new(ErrorKind::DatatypeMismatch, decapitalised(text));
    }
    if let Some((operation, _)) = text.split_once(" queries have different number of columns") {
        let message = format!("each {operation} query must have the same number of columns");
        return Error::new(ErrorKind::Syntax, message);
    }
    if lower.starts_with("intersect/except query must have the same number of columns") {
        let message = "each INTERSECT or EXCEPT query must have the same number of columns";
        return Error::new(ErrorKind::Syntax, message);
    }
    if lower.contains("inconsistent data length") {
        let message = "VALUES lists must all be the same length";
        return Error::new(ErrorKind::Syntax, message);
    }
    if lower.contains("non-boolean predicate") {
        let message = "argument of WHERE must be type boolean";
        return Error::new(ErrorKind::DatatypeMismatch, message);
    }
    Error::new(ErrorKind::InvalidParameter, decapitalised(text))
}

fn no_position(clause: &str, position: &str) -> Error {
    let message = format!("{clause} position {position} is not in select list");
    Error::new(ErrorKind::InvalidColumnReference, message)
}

fn grouping(text: &str) -> Error {
    let named = match text.split('"').nth(1) {
        Some(column) => format!("column \"{column}\""),
        None => "a selected column".to_string(),
    };
    let message =
        format!("{named} must appear in the GROUP BY clause or be used in an aggregate function");
    Error::new(ErrorKind::Grouping, message)
}

fn from_execution(text: &str) -> Error {
    let text = first_line(text);
    let lower = text.to_lowercase();
    if lower.contains("divide by zero") {
        return Error::new(ErrorKind::DivisionByZero, "division by zero");
    }
    if lower.contains("overflow") {
        return Error::new(ErrorKind::OutOfRange, decapitalised(text));
    }
    if lower.contains("more than one row") {
        let message = "more than one row returned by a subquery used as an expression";
        return Error::new(ErrorKind::Cardinality, message);
    }
    if lower.contains("pars") || lower.contains("cast") {
        return Error::new(ErrorKind::InvalidText, decapitalised(text));
    }
    Error::new(ErrorKind::InvalidParameter, decapitalised(text))
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or(text)
}

/// PostgreSQL's messages begin in lower case.
fn decapitalised(text: &str) -> String {
    let text = first_line(text);
    let mut chars = text.chars();
    match (chars.next(), chars.next()) {
        (Some(first), Some(second)) if second.is_lowercase() || second == ' ' => {
            first.to_lowercase().collect::<String>() + &text[first.len_utf8()..]
        }
        _ => text.to_string(),
    }
}
