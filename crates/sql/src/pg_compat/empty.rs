//! Queries over relations that are always empty.
//!
//! psql asks about policies, publications, statistics and more with everything PostgreSQL's SQL
//! has. Ruslo has none of these, so such a SELECT has no rows whatever it computes: it keeps its
//! columns' names and loses the expressions that could not be bound.

use datafusion::sql::sqlparser::ast as sql;
use datafusion::sql::sqlparser::ast::Expr;

use super::{boolean, catalog_name, derived_name, null};

/// Relations of `pg_catalog` that never have rows.
pub const EMPTY_RELATIONS: [&str; 36] = [
    "pg_attrdef",
    "pg_auth_members",
    "pg_cast",
    "pg_conversion",
    "pg_db_role_setting",
    "pg_default_acl",
    "pg_depend",
    "pg_description",
    "pg_enum",
    "pg_event_trigger",
    "pg_extension",
    "pg_foreign_data_wrapper",
    "pg_foreign_server",
    "pg_foreign_table",
    "pg_inherits",
    "pg_language",
    "pg_largeobject_metadata",
    "pg_locks",
    "pg_opclass",
    "pg_operator",
    "pg_opfamily",
    "pg_partitioned_table",
    "pg_policy",
    "pg_proc",
    "pg_publication",
    "pg_publication_namespace",
    "pg_publication_rel",
    "pg_sequence",
    "pg_sequences",
    "pg_shdescription",
    "pg_stat_activity",
    "pg_statistic_ext",
    "pg_subscription",
    "pg_trigger",
    "pg_ts_config",
    "pg_ts_dict",
];

const AGGREGATES: [&str; 12] = [
    "array_agg",
    "avg",
    "bool_and",
    "bool_or",
    "count",
    "every",
    "json_agg",
    "jsonb_agg",
    "max",
    "min",
    "string_agg",
    "sum",
];

/// Whether a query's body has no rows because of what it reads.
pub(super) fn is_empty(body: &sql::SetExpr) -> bool {
    match body {
        sql::SetExpr::Select(select) => has_no_rows(select),
        sql::SetExpr::Query(query) => is_empty(&query.body),
        sql::SetExpr::SetOperation { left, right, .. } => is_empty(left) && is_empty(right),
        _ => false,
    }
}

/// Whether a scalar subquery asks for a collation. No column and no type has one of its own, and
/// to find that out by a join, as psql does, takes a kind of correlation that can't be planned.
pub(super) fn asks_for_collation(body: &sql::SetExpr) -> bool {
    let sql::SetExpr::Select(select) = body else {
        return false;
    };
    select.from.iter().any(|table| match &table.relation {
        sql::TableFactor::Table { name, .. } => {
            catalog_name(name).is_some_and(|name| name == "pg_collation")
        }
        _ => false,
    })
}

/// Takes what can't be needed out of a SELECT without rows.
pub(super) fn hollow(select: &mut sql::Select) {
    if !has_no_rows(select) {
        return;
    }
    select.selection = Some(boolean(false));
    for item in &mut select.projection {
        match item {
            sql::SelectItem::UnnamedExpr(expr) if !is_plain(expr) => {
                let name = derived_name(expr).unwrap_or_else(|| "?column?".into());
                let alias = sql::Ident::with_quote('"', name);
                *item = sql::SelectItem::ExprWithAlias {
                    expr: null(),
                    alias,
                };
            }
            sql::SelectItem::ExprWithAlias { expr, .. } if !is_plain(expr) => *expr = null(),
            _ => {}
        }
    }
}

fn is_plain(expr: &Expr) -> bool {
    matches!(
        expr,
        Expr::Identifier(_) | Expr::CompoundIdentifier(_) | Expr::Value(_)
    )
}

fn has_no_rows(select: &sql::Select) -> bool {
    // Aggregates without GROUP BY make one row of none.
    !aggregates(select) && select.from.iter().any(reads_nothing)
}

/// Whether a select item is an aggregate.
pub(super) fn aggregates(select: &sql::Select) -> bool {
    select.projection.iter().any(|item| match item {
        sql::SelectItem::UnnamedExpr(expr) | sql::SelectItem::ExprWithAlias { expr, .. } => {
            is_aggregate(expr)
        }
        _ => false,
    })
}

fn is_aggregate(expr: &Expr) -> bool {
    match expr {
        Expr::Function(function) => {
            let name = catalog_name(&function.name);
            let known = name.is_some_and(|name| AGGREGATES.contains(&name.as_str()));
            let nested = match &function.args {
                sql::FunctionArguments::List(list) => list.args.iter().any(|arg| match arg {
                    sql::FunctionArg::Unnamed(sql::FunctionArgExpr::Expr(inner)) => {
                        is_aggregate(inner)
                    }
                    _ => false,
                }),
                _ => false,
            };
            known || nested
        }
        Expr::Cast { expr, .. } | Expr::Nested(expr) | Expr::UnaryOp { expr, .. } => {
            is_aggregate(expr)
        }
        Expr::BinaryOp { left, right, .. } => is_aggregate(left) || is_aggregate(right),
        _ => false,
    }
}

/// Whether one item of FROM is empty: its first relation, or one that is joined without NULLs.
fn reads_nothing(table: &sql::TableWithJoins) -> bool {
    use sql::JoinOperator::*;
    let keeps_left =
        |join: &sql::Join| !matches!(join.join_operator, Right(_) | RightOuter(_) | FullOuter(_));
    if !table.joins.iter().all(keeps_left) {
        return false;
    }
    let inner = |join: &&sql::Join| matches!(join.join_operator, Join(_) | Inner(_) | CrossJoin(_));
    let joined = table.joins.iter().filter(inner).map(|join| &join.relation);
    std::iter::once(&table.relation)
        .chain(joined)
        .any(is_empty_relation)
}

fn is_empty_relation(factor: &sql::TableFactor) -> bool {
    let sql::TableFactor::Table {
        name, args: None, ..
    } = factor
    else {
        return false;
    };
    catalog_name(name).is_some_and(|name| EMPTY_RELATIONS.contains(&name.as_str()))
}
