//! The names PostgreSQL gives columns that have no alias.

use datafusion::sql::sqlparser::ast as sql;
use datafusion::sql::sqlparser::tokenizer::Span;
use ruslo_repr::schema::type_name;

use crate::parse::types::type_from_text;

/// What comes after this character in a column's name only keeps names apart inside DataFusion.
const MARK: char = '\u{1}';

/// A name that differs from all other positions' names, and shows as `name`.
fn marked(name: &str, position: usize) -> String {
    format!("{name}{MARK}{position}")
}

/// The name without its mark, as the user sees it.
pub(crate) fn shown(name: &str) -> &str {
    name.split(MARK).next().unwrap_or(name)
}

/// The identifier as names are compared: lower case unless quoted.
pub(crate) fn normalised(ident: &sql::Ident) -> String {
    match ident.quote_style {
        Some(_) => ident.value.clone(),
        None => ident.value.to_lowercase(),
    }
}

/// PostgreSQL's `FigureColname`: `count` for `COUNT(*)`, the column's name for a cast of it.
fn column_name(expr: &sql::Expr) -> String {
    named(expr).unwrap_or_else(|| "?column?".into())
}

fn named(expr: &sql::Expr) -> Option<String> {
    use sql::Expr::*;
    match expr {
        Identifier(ident) => Some(normalised(ident)),
        CompoundIdentifier(parts) => parts.last().map(normalised),
        CompoundFieldAccess { root, access_chain } => {
            let field = access_chain.iter().rev().find_map(|access| match access {
                sql::AccessExpr::Dot(Identifier(ident)) => Some(normalised(ident)),
                _ => None,
            });
            field.or_else(|| named(root))
        }
        Nested(inner) | Collate { expr: inner, .. } => named(inner),
        Cast {
            expr, data_type, ..
        } => named(expr).or_else(|| Some(cast_name(data_type))),
        TypedString(typed) => Some(cast_name(&typed.data_type)),
        Interval(_) => Some("interval".into()),
        Function(function) => function_name(function),
        Case { else_result, .. } => {
            let of_else = else_result.as_deref().and_then(strong_name);
            of_else.or_else(|| Some("case".into()))
        }
        Exists { .. } => Some("exists".into()),
        Subquery(query) => subquery_name(query),
        Array(_) => Some("array".into()),
        Extract { .. } => Some("extract".into()),
        Position { .. } => Some("position".into()),
        Substring { .. } => Some("substring".into()),
        Overlay { .. } => Some("overlay".into()),
        Ceil { .. } => Some("ceil".into()),
        Floor { .. } => Some("floor".into()),
        AtTimeZone { .. } => Some("timezone".into()),
        Trim { trim_where, .. } => Some(
            match trim_where {
                Some(sql::TrimWhereField::Leading) => "ltrim",
                Some(sql::TrimWhereField::Trailing) => "rtrim",
                _ => "btrim",
            }
            .into(),
        ),
        Tuple(_) => Some("row".into()),
        _ => None,
    }
}

/// A name that even goes through CASE … ELSE: a column's, not a type's.
fn strong_name(expr: &sql::Expr) -> Option<String> {
    match expr {
        sql::Expr::Cast { expr, .. } => strong_name(expr),
        sql::Expr::TypedString(_) | sql::Expr::Interval(_) => None,
        other => named(other),
    }
}

fn function_name(function: &sql::Function) -> Option<String> {
    let last = function.name.0.last()?;
    last.as_ident().map(normalised)
}

fn subquery_name(query: &sql::Query) -> Option<String> {
    let sql::SetExpr::Select(select) = query.body.as_ref() else {
        return None;
    };
    match select.projection.first()? {
        sql::SelectItem::UnnamedExpr(expr) => named(expr),
        sql::SelectItem::ExprWithAlias { alias, .. } => Some(normalised(alias)),
        _ => None,
    }
}

/// A cast's column is named by PostgreSQL's internal name of the type: `int4`, `varchar`.
fn cast_name(ty: &sql::DataType) -> String {
    let written = ty.to_string().to_lowercase();
    let Ok(known) = type_from_text(&written) else {
        return written;
    };
    let name = type_name(&known);
    let internal = match name.as_str() {
        "smallint" => "int2",
        "integer" => "int4",
        "bigint" => "int8",
        "real" => "float4",
        "double precision" => "float8",
        "boolean" => "bool",
        "character varying" if written == "text" => "text",
        "character varying" => "varchar",
        "time without time zone" => "time",
        "timestamp without time zone" => "timestamp",
        "timestamp with time zone" => "timestamptz",
        other => other,
    };
    internal.to_string()
}

/// Gives every unnamed item PostgreSQL's name; names that stand twice get a mark each.
pub(super) fn name_items(items: &mut [sql::SelectItem]) {
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
