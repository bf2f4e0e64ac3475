//! `ARRAY(SELECT x …)`: the rows of a subquery as one array, in their order.
//!
//! ```text
//!   ARRAY(SELECT x FROM t ORDER BY y)     (SELECT array_agg(x ORDER BY y) FROM t)
//!   ARRAY(SELECT x FROM t … LIMIT 2)      (SELECT array_agg(c ORDER BY o0)
//!                                          FROM (SELECT x AS c, y AS o0 … LIMIT 2) AS s)
//! ```
//!
//! Around it a function makes the array of no rows an empty one.

use datafusion::sql::sqlparser::ast as sql;
use datafusion::sql::sqlparser::ast::Expr;

use super::lookup;

/// The array's expression; None if the subquery has another form than one column.
pub(super) fn array_of(query: &sql::Query) -> Option<Expr> {
    let inner = match plain(query) {
        Some(aggregated) => aggregated,
        None => nested(query)?,
    };
    lookup::expression(&format!("array_or_empty(({inner}))"))
}

/// An aggregate in the place of the column, where the query has no rows but those of FROM.
fn plain(query: &sql::Query) -> Option<String> {
    let sql::SetExpr::Select(select) = &*query.body else {
        return None;
    };
    let grouped = match &select.group_by {
        sql::GroupByExpr::Expressions(exprs, _) => !exprs.is_empty(),
        sql::GroupByExpr::All(_) => true,
    };
    let cut = query.limit_clause.is_some() || query.fetch.is_some();
    if grouped || cut || select.distinct.is_some() || select.having.is_some() {
        return None;
    }
    let (value, alias) = column(select)?;
    if changes_rows(value) {
        return None;
    }
    let order = order_by(query, value, alias)?;
    let aggregate = lookup::expression(&format!("array_agg({value}{order})"))?;
    let mut select = select.clone();
    select.projection = vec![sql::SelectItem::UnnamedExpr(aggregate)];
    let mut query = query.clone();
    *query.body = sql::SetExpr::Select(select);
    query.order_by = None;
    Some(query.to_string())
}

/// Whether a call in it makes one row of many, or many of one.
fn changes_rows(value: &Expr) -> bool {
    let text = value.to_string().to_lowercase();
    let names = [
        "count(", "sum(", "min(", "max(", "avg(", "agg(", "unnest(", "series(",
    ];
    names.iter().any(|name| text.contains(name))
}

/// ORDER BY as an aggregate has it: over expressions, not positions and aliases.
fn order_by(query: &sql::Query, value: &Expr, alias: Option<&sql::Ident>) -> Option<String> {
    let Some(order_by) = &query.order_by else {
        return Some(String::new());
    };
    let sql::OrderByKind::Expressions(sorts) = &order_by.kind else {
        return None;
    };
    let sorts = sorts.iter().map(|sort| {
        let mut sort = sort.clone();
        if is_column(&sort.expr, alias) {
            sort.expr = value.clone();
        }
        sort.to_string()
    });
    Some(format!(
        " ORDER BY {}",
        sorts.collect::<Vec<_>>().join(", ")
    ))
}

/// Whether an ORDER BY item means the subquery's only column.
fn is_column(expr: &Expr, alias: Option<&sql::Ident>) -> bool {
    match expr {
        Expr::Value(value) => matches!(value.value, sql::Value::Number(..)),
        Expr::Identifier(ident) => alias.is_some_and(|alias| alias == ident),
        _ => false,
    }
}

fn column(select: &sql::Select) -> Option<(&Expr, Option<&sql::Ident>)> {
    match &select.projection[..] {
        [sql::SelectItem::UnnamedExpr(value)] => Some((value, None)),
        [sql::SelectItem::ExprWithAlias { expr, alias }] => Some((expr, Some(alias))),
        _ => None,
    }
}

/// The aggregate over the query as it is; what it sorts by comes as further columns.
fn nested(query: &sql::Query) -> Option<String> {
    let mut query = query.clone();
    let mut sorts = match query.order_by.as_ref().map(|order_by| &order_by.kind) {
        None => vec![],
        Some(sql::OrderByKind::Expressions(sorts)) => sorts.clone(),
        Some(sql::OrderByKind::All(_)) => return None,
    };
    let value = || Expr::Identifier(sql::Ident::new("c"));
    let mut columns = vec!["c".to_string()];
    match query.body.as_mut() {
        sql::SetExpr::Select(select) => {
            let (_, alias) = column(select)?;
            let alias = alias.cloned();
            for (i, sort) in sorts.iter_mut().enumerate() {
                if select.distinct.is_some() || is_column(&sort.expr, alias.as_ref()) {
                    sort.expr = value();
                    continue;
                }
                let column = format!("o{i}");
                let name = Expr::Identifier(sql::Ident::new(&column));
                let expr = std::mem::replace(&mut sort.expr, name);
                select.projection.push(sql::SelectItem::UnnamedExpr(expr));
                columns.push(column);
            }
        }
        _ => sorts.iter_mut().for_each(|sort| sort.expr = value()),
    }
    let sorts: Vec<String> = sorts.iter().map(ToString::to_string).collect();
    let order = match sorts.is_empty() {
        true => String::new(),
        false => format!(" ORDER BY {}", sorts.join(", ")),
    };
    let columns = columns.join(", ");
    Some(format!(
        "SELECT array_agg(c{order}) FROM ({query}) AS s ({columns})"
    ))
}
