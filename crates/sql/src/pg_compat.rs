//! Makes the queries that psql and drivers send to `pg_catalog` bindable.
//!
//! They are written for PostgreSQL's own types and functions: `oid`s cast to `regclass`, operators
//! with a schema, arrays from subqueries, functions that look into the catalogs. [`rewrite`] turns
//! them into plain SQL over the catalogs' relations before anything is bound:
//!
//! ```text
//!   a OPERATOR(pg_catalog.~) b     a ~ b
//!   x COLLATE c, pg_catalog.f(x)   x, f(x)
//!   'name'::regclass, o::regclass  a look-up in pg_class by name, by oid
//!   pg_get_userbyid(o)             a look-up in pg_roles
//!   ARRAY(SELECT x …)              (SELECT array_agg(x) …)
//!   … FROM pg_policy …             … WHERE false, see [`empty`]
//! ```
//!
//! What is not such a construct stays as it is, so any statement may be passed through.

mod array;
mod empty;
pub mod functions;
mod lookup;

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast as sql;
use datafusion::sql::sqlparser::ast::{Expr, VisitMut, VisitorMut};

pub use empty::EMPTY_RELATIONS;

/// Rewrites a statement in place.
pub fn rewrite(statement: &mut sql::Statement) {
    let ControlFlow::Continue(()) = statement.visit(&mut Rewriter);
}

/// Rewrites a query in place.
pub fn rewrite_query(query: &mut sql::Query) {
    let ControlFlow::Continue(()) = query.visit(&mut Rewriter);
}

struct Rewriter;

type Flow = ControlFlow<std::convert::Infallible>;

impl VisitorMut for Rewriter {
    type Break = std::convert::Infallible;

    fn pre_visit_query(&mut self, query: &mut sql::Query) -> Flow {
        if empty::is_empty(&query.body) {
            query.order_by = None;
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &mut sql::Select) -> Flow {
        name_items(select);
        empty::hollow(select);
        let ControlFlow::Continue(()) = select.projection.visit(&mut Existence);
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> Flow {
        if let Expr::BinaryOp {
            left,
            op: sql::BinaryOperator::StringConcat,
            right,
        } = expr
            && is_array_of_items(right)
        {
            // Appends the items of a column that is always NULL.
            *expr = take(left);
        }
        lookup::rewrite_cast_to_text(expr);
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> Flow {
        match expr {
            Expr::Collate { expr: inner, .. } => *expr = take(inner),
            Expr::BinaryOp { op, .. } => plain_operator(op),
            Expr::Value(value) => {
                if let sql::Value::EscapedStringLiteral(text) = &mut value.value {
                    value.value = sql::Value::SingleQuotedString(std::mem::take(text));
                }
            }
            Expr::Cast { .. } => lookup::rewrite_cast(expr),
            Expr::Function(_) => rewrite_function(expr),
            Expr::Exists { subquery, negated } if empty::is_empty(&subquery.body) => {
                *expr = boolean(*negated);
            }
            Expr::Subquery(query) => match empty::is_empty(&query.body) {
                true => *expr = null(),
                false if empty::asks_for_collation(&query.body) => *expr = null(),
                false => lookup::at_most_one_row(query),
            },
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

/// Rewrites EXISTS among select items; in WHERE it is bound as it is.
struct Existence;

impl VisitorMut for Existence {
    type Break = std::convert::Infallible;

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> Flow {
        if let Expr::Exists { subquery, negated } = expr
            && !empty::is_empty(&subquery.body)
            && let Some(found) = lookup::existence(subquery, *negated)
        {
            *expr = found;
        }
        ControlFlow::Continue(())
    }
}

/// Takes an expression out of its place, for putting it somewhere else.
fn take(expr: &mut Expr) -> Expr {
    std::mem::replace(expr, boolean(false))
}

fn boolean(value: bool) -> Expr {
    Expr::Value(sql::Value::Boolean(value).with_empty_span())
}

/// NULL of type varchar, so that whatever stands around it has a type.
fn null() -> Expr {
    let expr = Box::new(Expr::Value(sql::Value::Null.with_empty_span()));
    let data_type = sql::DataType::Varchar(None);
    Expr::Cast {
        kind: sql::CastKind::DoubleColon,
        expr,
        data_type,
        array: false,
        format: None,
    }
}

/// The last part of a name, in lower case unless quoted, if it has no schema but `pg_catalog`.
fn catalog_name(name: &sql::ObjectName) -> Option<String> {
    let parts: Vec<&sql::Ident> = name.0.iter().filter_map(|part| part.as_ident()).collect();
    match parts[..] {
        [one] => Some(folded(one)),
        [schema, last] if schema.value.eq_ignore_ascii_case("pg_catalog") => Some(folded(last)),
        _ => None,
    }
}

fn folded(ident: &sql::Ident) -> String {
    match ident.quote_style {
        Some(_) => ident.value.clone(),
        None => ident.value.to_lowercase(),
    }
}

/// `OPERATOR(pg_catalog.~)` and the like as the operators they are.
fn plain_operator(op: &mut sql::BinaryOperator) {
    use sql::BinaryOperator::*;
    let PGCustomBinaryOperator(parts) = op else {
        return;
    };
    let plain = match parts.last().map(String::as_str) {
        Some("~") => PGRegexMatch,
        Some("~*") => PGRegexIMatch,
        Some("!~") => PGRegexNotMatch,
        Some("!~*") => PGRegexNotIMatch,
        Some("~~") => PGLikeMatch,
        Some("!~~") => PGNotLikeMatch,
        Some("~~*") => PGILikeMatch,
        Some("!~~*") => PGNotILikeMatch,
        Some("=") => Eq,
        Some("<>") => NotEq,
        Some("<") => Lt,
        Some("<=") => LtEq,
        Some(">") => Gt,
        Some(">=") => GtEq,
        Some("+") => Plus,
        Some("-") => Minus,
        Some("*") => Multiply,
        Some("/") => Divide,
        Some("%") => Modulo,
        Some("||") => StringConcat,
        _ => return,
    };
    *op = plain;
}

/// Functions that look into the catalogs, and names without their schema.
fn rewrite_function(expr: &mut Expr) {
    let Expr::Function(function) = expr else {
        return;
    };
    let Some(name) = catalog_name(&function.name) else {
        return;
    };
    if name == "array"
        && let sql::FunctionArguments::Subquery(query) = &mut function.args
    {
        *expr = array::array_of(query).unwrap_or_else(null);
        return;
    }
    if function.name.0.len() > 1 {
        function.name.0.remove(0);
    }
    if name == "generate_subscripts"
        && let sql::FunctionArguments::List(list) = &function.args
        && let Some(array) = list.args.first()
        && let Some(subscripts) =
            lookup::expression(&format!("unnest(range(1, cardinality({array}) + 1))"))
    {
        *expr = subscripts;
        return;
    }
    if let Some(found) = lookup::call(&name, function) {
        *expr = found;
    }
}

/// `ARRAY(SELECT … FROM unnest(…))`, which psql writes over columns that are always NULL here.
fn is_array_of_items(expr: &Expr) -> bool {
    let Expr::Function(function) = expr else {
        return false;
    };
    let sql::FunctionArguments::Subquery(query) = &function.args else {
        return false;
    };
    let sql::SetExpr::Select(select) = &*query.body else {
        return false;
    };
    let [table] = &select.from[..] else {
        return false;
    };
    match &table.relation {
        sql::TableFactor::Table { name, args, .. } => {
            args.is_some() && catalog_name(name).is_some_and(|name| name == "unnest")
        }
        sql::TableFactor::UNNEST { .. } => true,
        _ => false,
    }
}

/// Gives columns the name that PostgreSQL derives before the expressions change.
fn name_items(select: &mut sql::Select) {
    for item in &mut select.projection {
        if let sql::SelectItem::UnnamedExpr(expr) = item
            && let Some(name) = derived_name(expr)
        {
            let alias = sql::Ident::with_quote('"', name);
            *item = sql::SelectItem::ExprWithAlias {
                expr: take(expr),
                alias,
            };
        }
    }
}

/// The name of a call, a cast or a subquery; `None` for what keeps its name by itself.
fn derived_name(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Function(function) => {
            let last = function.name.0.last().and_then(|part| part.as_ident());
            last.map(folded)
        }
        Expr::Cast {
            expr, data_type, ..
        } => match &**expr {
            Expr::Identifier(ident) => Some(folded(ident)),
            Expr::CompoundIdentifier(parts) => parts.last().map(folded),
            Expr::Function(function) => function
                .name
                .0
                .last()
                .and_then(|part| part.as_ident())
                .map(folded),
            _ => lookup::type_name(data_type),
        },
        Expr::Subquery(query) => {
            let sql::SetExpr::Select(select) = &*query.body else {
                return None;
            };
            match select.projection.first()? {
                sql::SelectItem::ExprWithAlias { alias, .. } => Some(folded(alias)),
                sql::SelectItem::UnnamedExpr(Expr::Identifier(ident)) => Some(folded(ident)),
                sql::SelectItem::UnnamedExpr(Expr::CompoundIdentifier(parts)) => {
                    parts.last().map(folded)
                }
                sql::SelectItem::UnnamedExpr(inner) => derived_name(inner),
                _ => None,
            }
        }
        Expr::Exists { .. } => Some("exists".into()),
        Expr::Collate { expr, .. } | Expr::Nested(expr) => derived_name(expr),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
