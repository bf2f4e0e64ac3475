//! Casts and functions of PostgreSQL's that look into its catalogs, as subqueries over ours.

use datafusion::sql::sqlparser::ast as sql;
use datafusion::sql::sqlparser::ast::Expr;
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::parser::Parser;

use super::{catalog_name, empty, folded, take};

/// Names by oid and back: relation, its oid column, its name column.
const CLASSES: (&str, &str, &str) = ("pg_class", "oid", "relname");
const NAMESPACES: (&str, &str, &str) = ("pg_namespace", "oid", "nspname");
const ROLES: (&str, &str, &str) = ("pg_roles", "oid", "rolname");
const TYPES: (&str, &str, &str) = ("pg_type", "oid", "typname");
/// The query of a view is its rule's action, as in PostgreSQL.
const VIEWS: (&str, &str, &str) = ("pg_rewrite", "ev_class", "ev_action");
const INDEXES: (&str, &str, &str) = (
    "pg_class JOIN pg_catalog.pg_indexes ON pg_class.relname = pg_indexes.indexname",
    "pg_class.oid",
    "pg_indexes.indexdef",
);

/// The oids of these schemas are PostgreSQL's.
const PG_CATALOG_OID: i32 = 11;
const PUBLIC_OID: i32 = 2200;

/// Parses one expression that we wrote.
pub(super) fn expression(text: &str) -> Option<Expr> {
    Parser::new(&PostgreSqlDialect {})
        .try_with_sql(text)
        .ok()?
        .parse_expr()
        .ok()
}

/// The value of `value` in the row of `relation` where `key` is `wanted`; NULL if there is none.
///
/// The columns are renamed inside, so that `wanted` can't be caught by them.
fn find(relation: &str, key: &str, value: &str, wanted: &Expr) -> Option<Expr> {
    expression(&format!(
        "(SELECT max(__value) FROM (SELECT {key} AS __key, {value} AS __value \
         FROM pg_catalog.{relation}) AS __lookup WHERE __key = {wanted})"
    ))
}

/// A look-up by oid, or by name if `wanted` is the literal of one.
fn name_of((relation, oid, name): (&str, &str, &str), wanted: &Expr) -> Option<Expr> {
    match literal(wanted) {
        Some(text) if text.parse::<i64>().is_ok() => find(relation, oid, name, &number(text)),
        Some(text) => {
            let of_name = oid_of(CLASSES, text)?;
            find(relation, oid, name, &of_name)
        }
        None => find(relation, oid, name, wanted),
    }
}

/// The oid behind the name in a literal, which may have a schema and quotes.
fn oid_of((relation, oid, name): (&str, &str, &str), text: &str) -> Option<Expr> {
    if text.parse::<i64>().is_ok() {
        return Some(number(text));
    }
    let last = text.rsplit('.').next().unwrap_or(text);
    let last = match last
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'))
    {
        Some(quoted) => quoted.to_string(),
        None => last.to_lowercase(),
    };
    let wanted = Expr::Value(sql::Value::SingleQuotedString(last).with_empty_span());
    find(relation, name, oid, &wanted)
}

/// The oid behind a name that may only be known when the query runs.
fn oid_by_name(table: (&str, &str, &str), wanted: &Expr) -> Option<Expr> {
    match literal(wanted) {
        Some(text) => oid_of(table, internal_name(text)),
        None => find(table.0, table.2, table.1, wanted),
    }
}

fn number(text: &str) -> Expr {
    Expr::Value(sql::Value::Number(text.into(), false).with_empty_span())
}

fn literal(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::Value(value) => match &value.value {
            sql::Value::SingleQuotedString(text) => Some(text),
            _ => None,
        },
        Expr::Nested(inner) => literal(inner),
        _ => None,
    }
}

/// The function's look-up, if it is one of those.
pub(super) fn call(name: &str, function: &sql::Function) -> Option<Expr> {
    let sql::FunctionArguments::List(list) = &function.args else {
        return None;
    };
    let argument = |at: usize| match list.args.get(at) {
        Some(sql::FunctionArg::Unnamed(sql::FunctionArgExpr::Expr(expr))) => Some(expr),
        _ => None,
    };
    let first = argument(0)?;
    match name {
        "pg_get_userbyid" => name_of(ROLES, first),
        "pg_get_viewdef" => name_of(VIEWS, first),
        "pg_get_indexdef" if is_whole(argument(1)) => name_of(INDEXES, first),
        "pg_table_is_visible" => is_visible(first),
        "to_regclass" => oid_by_name(CLASSES, first),
        "to_regtype" => oid_by_name(TYPES, first),
        _ => None,
    }
}

/// Whether a relation is found without its schema: it is in `public` or `pg_catalog`.
fn is_visible(relation: &Expr) -> Option<Expr> {
    let schema = find("pg_class", "oid", "relnamespace", relation)?;
    expression(&format!("{schema} IN ({PG_CATALOG_OID}, {PUBLIC_OID})"))
}

/// Whether the column argument of `pg_get_indexdef` asks for the whole definition.
fn is_whole(column: Option<&Expr>) -> bool {
    match column {
        None => true,
        Some(Expr::Value(value)) => matches!(&value.value, sql::Value::Number(n, _) if n == "0"),
        Some(_) => false,
    }
}

/// The last part of a type's name as written.
pub(super) fn type_name(data_type: &sql::DataType) -> Option<String> {
    match data_type {
        sql::DataType::Custom(name, _) => name.0.last()?.as_ident().map(folded),
        sql::DataType::Text => Some("text".into()),
        sql::DataType::Regclass => Some("regclass".into()),
        _ => None,
    }
}

/// `'name'::regclass::text` and its like: the name again, not the oid that stands for it.
pub(super) fn rewrite_cast_to_text(expr: &mut Expr) {
    let Expr::Cast {
        expr: outer,
        data_type: sql::DataType::Text | sql::DataType::Varchar(None),
        ..
    } = expr
    else {
        return;
    };
    let Expr::Cast {
        expr: inner,
        data_type,
        ..
    } = &**outer
    else {
        return;
    };
    let name = match data_type {
        sql::DataType::Custom(name, _) => catalog_name(name),
        other => type_name(other),
    };
    let named = match name.as_deref() {
        Some("regclass") => name_of(CLASSES, inner),
        Some("regnamespace") => literal(inner).map(|_| (**inner).clone()),
        Some("regrole") => literal(inner).map(|_| (**inner).clone()),
        Some("regtype") => {
            let oid = literal(inner).and_then(|text| oid_of(TYPES, internal_name(text)));
            let oid = oid.unwrap_or_else(|| (**inner).clone());
            expression(&format!("format_type({oid}, NULL)"))
        }
        _ => None,
    };
    if let Some(named) = named {
        *expr = named;
    }
}

/// The oid, or PostgreSQL's error that there is nothing of this name.
fn existing(oid: Expr, kind: &str, name: &str) -> Option<Expr> {
    let name = name.replace('\'', "''");
    expression(&format!("oid_or_missing({oid}, '{kind}', '{name}')"))
}

/// Casts to the types that only PostgreSQL's catalogs have.
pub(super) fn rewrite_cast(expr: &mut Expr) {
    let Expr::Cast {
        expr: inner,
        data_type,
        ..
    } = expr
    else {
        return;
    };
    let name = match &*data_type {
        sql::DataType::Custom(name, _) => catalog_name(name),
        other => type_name(other),
    };
    // A parameter is a name too, of which the schema is known only when the query runs.
    let by_literal = |table| match literal(inner) {
        Some(text) => oid_of(table, text),
        None if is_placeholder(inner) => {
            let name = format!("regexp_replace({inner}::VARCHAR, '^.*[.]', '')");
            oid_by_name(table, &expression(&name)?)
        }
        None => None,
    };
    let found = match name.as_deref() {
        Some("regclass") => match literal(inner) {
            Some(text) if text.parse::<i64>().is_err() => {
                oid_of(CLASSES, text).and_then(|oid| existing(oid, "relation", text))
            }
            _ => by_literal(CLASSES),
        }
        .or_else(|| name_of(CLASSES, inner)),
        Some("regnamespace") => by_literal(NAMESPACES).or_else(|| name_of(NAMESPACES, inner)),
        Some("regrole") => by_literal(ROLES).or_else(|| name_of(ROLES, inner)),
        Some("regtype") => match literal(inner) {
            Some(text) => {
                let oid = oid_of(TYPES, internal_name(text));
                oid.and_then(|oid| existing(oid, "type", text))
            }
            None => expression(&format!("format_type({inner}, NULL)")),
        },
        Some("oid") if matches!(**inner, Expr::Subquery(_)) => Some(take(inner)),
        _ => None,
    };
    match found {
        Some(found) => *expr = found,
        None => plain_type(data_type),
    }
}

fn is_placeholder(expr: &Expr) -> bool {
    matches!(expr, Expr::Value(value) if matches!(value.value, sql::Value::Placeholder(_)))
}

/// PostgreSQL's short name of a type that is written in SQL's words.
fn internal_name(name: &str) -> &str {
    match name {
        "boolean" => "bool",
        "smallint" => "int2",
        "integer" | "int" => "int4",
        "bigint" => "int8",
        "real" => "float4",
        "double precision" => "float8",
        "character varying" => "varchar",
        "timestamp without time zone" => "timestamp",
        "timestamp with time zone" => "timestamptz",
        "time without time zone" => "time",
        "decimal" => "numeric",
        other => other,
    }
}

/// Types of the catalogs as types that we have; arrays of them too.
fn plain_type(data_type: &mut sql::DataType) {
    match data_type {
        sql::DataType::Array(sql::ArrayElemTypeDef::SquareBracket(item, _)) => plain_type(item),
        sql::DataType::Custom(name, _) => {
            let plain = match catalog_name(name).as_deref() {
                Some("oid" | "xid" | "cid" | "int4") => sql::DataType::Integer(None),
                Some("int2") => sql::DataType::SmallInt(None),
                Some("int8") => sql::DataType::BigInt(None),
                Some("bool") => sql::DataType::Boolean,
                Some("text" | "name" | "char" | "bpchar" | "varchar" | "regproc") => {
                    sql::DataType::Varchar(None)
                }
                _ => return,
            };
            *data_type = plain;
        }
        _ => {}
    }
}

/// A scalar subquery over the catalogs has one row by its keys; an aggregate shows it to the
/// binder, which can only join a correlated subquery when it is sure of that.
pub(super) fn at_most_one_row(query: &mut sql::Query) {
    if query.limit_clause.is_some() || query.with.is_some() {
        return;
    }
    let sql::SetExpr::Select(select) = &mut *query.body else {
        return;
    };
    let grouped = match &select.group_by {
        sql::GroupByExpr::Expressions(exprs, _) => !exprs.is_empty(),
        sql::GroupByExpr::All(_) => true,
    };
    if grouped || empty::aggregates(select) || !select.from.iter().all(is_catalog) {
        return;
    }
    let [item] = &mut select.projection[..] else {
        return;
    };
    let (sql::SelectItem::UnnamedExpr(value) | sql::SelectItem::ExprWithAlias { expr: value, .. }) =
        item
    else {
        return;
    };
    let aggregate = if is_condition(value) {
        "bool_or"
    } else {
        "max"
    };
    if let Some(aggregate) = expression(&format!("{aggregate}({value})")) {
        *value = aggregate;
        query.order_by = None;
    }
}

/// EXISTS over the catalogs as an aggregate, for where EXISTS can't be bound.
pub(super) fn existence(query: &sql::Query, negated: bool) -> Option<Expr> {
    let sql::SetExpr::Select(select) = &*query.body else {
        return None;
    };
    if query.limit_clause.is_some() || !select.from.iter().all(is_catalog) {
        return None;
    }
    let mut query = query.clone();
    query.order_by = None;
    if let sql::SetExpr::Select(select) = &mut *query.body {
        select.projection = vec![sql::SelectItem::UnnamedExpr(expression("bool_or(true)")?)];
    }
    let found = Box::new(Expr::Subquery(Box::new(query)));
    Some(match negated {
        true => Expr::IsNotTrue(found),
        false => Expr::IsTrue(found),
    })
}

/// Whether an expression is true or false, which have no maximum in PostgreSQL.
fn is_condition(expr: &Expr) -> bool {
    use sql::BinaryOperator::{And, Eq, Gt, GtEq, Lt, LtEq, NotEq, Or};
    match expr {
        Expr::BinaryOp { op, .. } => {
            matches!(op, And | Or | Eq | NotEq | Lt | LtEq | Gt | GtEq)
        }
        Expr::Nested(inner) => is_condition(inner),
        Expr::IsNull(_)
        | Expr::IsNotNull(_)
        | Expr::InList { .. }
        | Expr::Like { .. }
        | Expr::Exists { .. }
        | Expr::Between { .. }
        | Expr::UnaryOp {
            op: sql::UnaryOperator::Not,
            ..
        } => true,
        _ => false,
    }
}

fn is_catalog(table: &sql::TableWithJoins) -> bool {
    let joined = table.joins.iter().map(|join| &join.relation);
    std::iter::once(&table.relation)
        .chain(joined)
        .all(|factor| match factor {
            sql::TableFactor::Table {
                name, args: None, ..
            } => catalog_name(name).is_some_and(|name| name.starts_with("pg_")),
            _ => false,
        })
}
