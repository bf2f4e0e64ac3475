//! INSERT, UPDATE and DELETE as a query for the rows and what to do with them.
//!
//! ```text
//!   INSERT INTO t (b) VALUES (1)      SELECT DEFAULT a, CAST(s.c0 AS …) FROM (VALUES …) s(c0)
//!   UPDATE t SET a = a + 1 WHERE p    SELECT t.a, t.b, CAST(t.a + 1 AS …), t.b FROM t WHERE p
//!   DELETE FROM t WHERE p             SELECT t.a, t.b FROM t WHERE p
//! ```

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, RecordBatch};
use arrow::datatypes::DataType;
use datafusion::sql::sqlparser::ast as sql;
use ruslo_repr::{Error, ErrorKind, Result, Schema};

use crate::adhoc::{QueryMemory, SelectPlan};
use crate::bind::names::normalised;
use crate::bind::rewrite::{call, cast, string};
use crate::bind::{Purpose, bind};
use crate::catalog::{Catalog, Modifier, Relation, RelationKind, SessionContext};
use crate::parse::{parse_expr, parse_query};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DmlKind {
    Insert,
    Update,
    Delete,
}

/// What a DML statement does to one table.
#[derive(Debug)]
pub struct DmlPlan {
    pub table: Arc<Relation>,
    pub kind: DmlKind,
    /// Insert: new rows, visible columns in the table's order and types, the default or NULL
    /// where no value was given. Update: all columns of the old row (hidden ones too), then all
    /// of the new row. Delete: all columns of the old row.
    pub select: SelectPlan,
    returning: Option<SelectPlan>,
}

impl DmlPlan {
    /// The columns of RETURNING.
    pub fn returning_schema(&self) -> Option<&Schema> {
        self.returning.as_ref().map(SelectPlan::schema)
    }

    /// Computes RETURNING over the new rows (for Delete: the old ones).
    pub async fn returning(
        &self,
        rows: Vec<RecordBatch>,
        memory: &QueryMemory,
    ) -> Result<Vec<RecordBatch>> {
        let Some(select) = &self.returning else {
            return Ok(vec![]);
        };
        let rows = HashMap::from([(self.table.id, rows)]);
        select.execute(rows, &[], memory).await
    }

    /// Refuses NULL in the columns that do not take it. `rows` are new rows of the table.
    pub fn check_not_null(&self, rows: &RecordBatch) -> Result<()> {
        for &column in &self.table.not_null {
            if column < rows.num_columns() && rows.column(column).null_count() > 0 {
                let name = &self.table.schema.columns[column].name;
                let table = &self.table.name;
                let message = format!(
                    "null value in column \"{name}\" of relation \"{table}\" violates not-null \
                     constraint"
                );
                return Err(Error::new(ErrorKind::NotNull, message));
            }
        }
        Ok(())
    }
}

pub fn plan_insert(
    insert: &sql::Insert,
    catalog: &dyn Catalog,
    session: &SessionContext,
    hints: &[Option<DataType>],
) -> Result<DmlPlan> {
    let sql::TableObject::TableName(name) = &insert.table else {
        return Err(Error::new(
            ErrorKind::Syntax,
            "INSERT INTO needs a table's name",
        ));
    };
    if insert.on.is_some() {
        let message = "INSERT … ON CONFLICT is not supported";
        return Err(Error::unsupported(message)
            .with_hint("A row with the same primary key replaces the old one anyway."));
    }
    let table = target(name, catalog, "insert into")?;
    let targets = insert_targets(insert, &table)?;
    let source = match &insert.source {
        Some(source) => Some(typed_source(source, &table, &targets)?),
        None => None,
    };
    let width = match &source {
        None => 0,
        Some(source) => bind(source, catalog, session, Purpose::Once, hints)?
            .schema
            .len(),
    };
    check_width(insert, width, targets.len(), source.is_some())?;
    let items = insert_items(&table, &targets[..width])?;
    let query = match source {
        None => select(items, vec![], None)?,
        Some(source) => {
            let from = derived(source, width)?;
            select(items, vec![from], None)?
        }
    };
    let select = bind(&query, catalog, session, Purpose::Once, hints)?;
    let alias = insert.table_alias.as_ref().map(|a| a.alias.clone());
    let returning = plan_returning(&insert.returning, name, alias, catalog, session)?;
    Ok(DmlPlan {
        table,
        kind: DmlKind::Insert,
        select: SelectPlan::new(select, session),
        returning,
    })
}

pub fn plan_update(
    update: &sql::Update,
    catalog: &dyn Catalog,
    session: &SessionContext,
    hints: &[Option<DataType>],
) -> Result<DmlPlan> {
    if update.order_by.len() + usize::from(update.limit.is_some()) > 0 {
        return Err(Error::unsupported(
            "UPDATE with ORDER BY or LIMIT is not supported",
        ));
    }
    let (name, alias) = table_factor(&update.table)?;
    let table = target(&name, catalog, "update")?;
    let qualifier = alias.clone().unwrap_or_else(|| last_ident(&name));
    let mut values: HashMap<usize, sql::Expr> = HashMap::new();
    for assignment in &update.assignments {
        let column = assignment_column(&assignment.target, &table)?;
        if values.insert(column, assignment.value.clone()).is_some() {
            let name = &table.schema.columns[column].name;
            let message = format!("multiple assignments to same column \"{name}\"");
            return Err(Error::new(ErrorKind::Syntax, message));
        }
    }
    let mut items = old_columns(&table, &qualifier);
    for (i, column) in table.schema.columns.iter().enumerate() {
        let value = match values.remove(&i) {
            Some(value) if is_default(&value) => default_of(&table, i)?,
            Some(value) => {
                let value = cast(sql::Expr::Nested(Box::new(value)), &column.ty);
                assigned(value, &table, i)
            }
            None => column_of(&qualifier, &column.name),
        };
        items.push(named(value, format!("new_{i}")));
    }
    let mut from = vec![update.table.clone()];
    match &update.from {
        Some(sql::UpdateTableFromKind::AfterSet(tables))
        | Some(sql::UpdateTableFromKind::BeforeSet(tables)) => from.extend(tables.clone()),
        None => {}
    }
    let query = select(items, from, update.selection.clone())?;
    let select = bind(&query, catalog, session, Purpose::Dml, hints)?;
    let returning = plan_returning(&update.returning, &name, alias, catalog, session)?;
    Ok(DmlPlan {
        table,
        kind: DmlKind::Update,
        select: SelectPlan::new(select, session),
        returning,
    })
}

pub fn plan_delete(
    delete: &sql::Delete,
    catalog: &dyn Catalog,
    session: &SessionContext,
    hints: &[Option<DataType>],
) -> Result<DmlPlan> {
    if delete.order_by.len() + usize::from(delete.limit.is_some()) > 0 {
        return Err(Error::unsupported(
            "DELETE with ORDER BY or LIMIT is not supported",
        ));
    }
    let tables = match &delete.from {
        sql::FromTable::WithFromKeyword(tables) | sql::FromTable::WithoutKeyword(tables) => tables,
    };
    let [first] = tables.as_slice() else {
        return Err(Error::new(
            ErrorKind::Syntax,
            "DELETE FROM needs one table's name",
        ));
    };
    let (name, alias) = table_factor(first)?;
    let table = target(&name, catalog, "delete from")?;
    let qualifier = alias.clone().unwrap_or_else(|| last_ident(&name));
    let mut from = vec![first.clone()];
    from.extend(delete.using.clone().unwrap_or_default());
    let query = select(
        old_columns(&table, &qualifier),
        from,
        delete.selection.clone(),
    )?;
    let select = bind(&query, catalog, session, Purpose::Dml, hints)?;
    let returning = plan_returning(&delete.returning, &name, alias, catalog, session)?;
    Ok(DmlPlan {
        table,
        kind: DmlKind::Delete,
        select: SelectPlan::new(select, session),
        returning,
    })
}

/// The table that is changed; sources and views refuse.
fn target(name: &sql::ObjectName, catalog: &dyn Catalog, verb: &str) -> Result<Arc<Relation>> {
    let parts = name
        .0
        .iter()
        .filter_map(|part| part.as_ident())
        .map(normalised);
    let mut parts: Vec<String> = parts.collect();
    let table = parts.pop().unwrap_or_default();
    let schema = parts.pop();
    let Some(relation) = catalog.resolve(schema.as_deref(), &table) else {
        let message = format!("relation \"{name}\" does not exist");
        return Err(Error::new(ErrorKind::UndefinedTable, message));
    };
    let kind = match relation.kind {
        RelationKind::Table => return Ok(relation),
        RelationKind::Source => "source",
        RelationKind::MaterializedView => "materialized view",
        RelationKind::View { .. } => "view",
        RelationKind::System => "system catalog",
    };
    let message = format!("cannot {verb} {kind} \"{table}\"");
    Err(Error::new(ErrorKind::WrongObjectType, message).with_hint("Only tables can be changed."))
}

fn visible(table: &Relation) -> usize {
    table.schema.len().saturating_sub(table.hidden)
}

/// Positions of the columns that the source's columns go to.
fn insert_targets(insert: &sql::Insert, table: &Relation) -> Result<Vec<usize>> {
    if insert.columns.is_empty() {
        return Ok((0..visible(table)).collect());
    }
    let mut targets = vec![];
    for name in &insert.columns {
        let ident = last_ident(name);
        let column = find_column(table, &normalised(&ident))?;
        if targets.contains(&column) {
            let name = &table.schema.columns[column].name;
            return Err(crate::parse::duplicate_column(name));
        }
        targets.push(column);
    }
    Ok(targets)
}

fn find_column(table: &Relation, name: &str) -> Result<usize> {
    let found = table.schema.position(name).filter(|&i| i < visible(table));
    found.ok_or_else(|| {
        let table = &table.name;
        let message = format!("column \"{name}\" of relation \"{table}\" does not exist");
        Error::new(ErrorKind::UndefinedColumn, message)
    })
}

fn check_width(insert: &sql::Insert, width: usize, targets: usize, source: bool) -> Result<()> {
    if width > targets {
        let message = "INSERT has more expressions than target columns";
        return Err(Error::new(ErrorKind::Syntax, message));
    }
    if width < targets && source && !insert.columns.is_empty() {
        let message = "INSERT has more target columns than expressions";
        return Err(Error::new(ErrorKind::Syntax, message));
    }
    Ok(())
}

/// VALUES with every cell cast to its column, so that literals take the column's type and DEFAULT
/// its value.
fn typed_source(source: &sql::Query, table: &Relation, targets: &[usize]) -> Result<sql::Query> {
    let mut source = source.clone();
    if let sql::SetExpr::Values(values) = source.body.as_mut() {
        for row in &mut values.rows {
            for (cell, &target) in row.content.iter_mut().zip(targets) {
                let value = match is_default(cell) {
                    true => default_of(table, target)?,
                    false => cast(cell.clone(), &table.schema.columns[target].ty),
                };
                *cell = value;
            }
        }
    }
    Ok(source)
}

/// One item per visible column: the source's column, the default, or NULL.
fn insert_items(table: &Relation, targets: &[usize]) -> Result<Vec<sql::SelectItem>> {
    let columns = table.schema.columns.iter().take(visible(table)).enumerate();
    let items = columns.map(|(i, column)| {
        let value = match targets.iter().position(|&target| target == i) {
            Some(source) => {
                let from = column_of(&sql::Ident::new("__source"), &format!("c{source}"));
                assigned(cast(from, &column.ty), table, i)
            }
            None => default_of(table, i)?,
        };
        Ok(named(value, format!("new_{i}")))
    });
    items.collect()
}

fn is_default(expr: &sql::Expr) -> bool {
    match expr {
        sql::Expr::Identifier(ident) => {
            ident.quote_style.is_none() && ident.value.eq_ignore_ascii_case("default")
        }
        _ => false,
    }
}

/// A column's DEFAULT, NULL without one.
fn default_of(table: &Relation, column: usize) -> Result<sql::Expr> {
    let default = match table.defaults.get(column).and_then(Option::as_ref) {
        Some(text) => parse_expr(text)?,
        None => sql::Expr::Value(sql::Value::Null.with_empty_span()),
    };
    let value = sql::Expr::Nested(Box::new(default));
    let value = cast(value, &table.schema.columns[column].ty);
    Ok(assigned(value, table, column))
}

/// A value of the column's type as the column keeps it: rounded, or refused if it is too long.
fn assigned(value: sql::Expr, table: &Relation, column: usize) -> sql::Expr {
    let count = |n: u32| cast(string(n.to_string()), &DataType::Int32);
    match table.modifiers.get(column).copied().flatten() {
        None => value,
        Some(Modifier::Length(length)) => call("varchar_assign", vec![value, count(length)]),
        Some(Modifier::Precision(precision, scale)) => call(
            "numeric_typmod",
            vec![value, count(precision), count(scale)],
        ),
    }
}

fn old_columns(table: &Relation, qualifier: &sql::Ident) -> Vec<sql::SelectItem> {
    let columns = table.schema.columns.iter().enumerate();
    let columns = columns.map(|(i, c)| named(column_of(qualifier, &c.name), format!("old_{i}")));
    columns.collect()
}

fn column_of(qualifier: &sql::Ident, name: &str) -> sql::Expr {
    let column = sql::Ident::with_quote('"', name);
    sql::Expr::CompoundIdentifier(vec![qualifier.clone(), column])
}

fn named(expr: sql::Expr, name: String) -> sql::SelectItem {
    let alias = sql::Ident::with_quote('"', name);
    sql::SelectItem::ExprWithAlias { expr, alias }
}

/// `SELECT items FROM from WHERE selection`.
fn select(
    items: Vec<sql::SelectItem>,
    from: Vec<sql::TableWithJoins>,
    selection: Option<sql::Expr>,
) -> Result<sql::Query> {
    let mut query = *parse_query("SELECT 1")?;
    if let sql::SetExpr::Select(select) = query.body.as_mut() {
        select.projection = items;
        select.from = from;
        select.selection = selection;
    }
    Ok(query)
}

/// `(query) AS __source(c0, c1, …)`.
fn derived(source: sql::Query, width: usize) -> Result<sql::TableWithJoins> {
    let columns = (0..width)
        .map(|i| format!("c{i}"))
        .collect::<Vec<_>>()
        .join(", ");
    let template = format!("SELECT 1 FROM (SELECT 1) AS __source({columns})");
    let query = parse_query(&template)?;
    let sql::SetExpr::Select(select) = *query.body else {
        return Err(Error::internal("a template that is no SELECT"));
    };
    let Some(mut from) = select.from.into_iter().next() else {
        return Err(Error::internal("a template without FROM"));
    };
    if let sql::TableFactor::Derived { subquery, .. } = &mut from.relation {
        **subquery = source;
    }
    Ok(from)
}

/// The name and alias of the table that UPDATE or DELETE names.
fn table_factor(from: &sql::TableWithJoins) -> Result<(sql::ObjectName, Option<sql::Ident>)> {
    match &from.relation {
        sql::TableFactor::Table { name, alias, .. } => {
            Ok((name.clone(), alias.as_ref().map(|a| a.name.clone())))
        }
        _ => Err(Error::new(ErrorKind::Syntax, "a table's name was expected")),
    }
}

fn last_ident(name: &sql::ObjectName) -> sql::Ident {
    let last = name.0.last().and_then(|part| part.as_ident());
    last.cloned()
        .unwrap_or_else(|| sql::Ident::new(name.to_string()))
}

fn assignment_column(target: &sql::AssignmentTarget, table: &Relation) -> Result<usize> {
    match target {
        sql::AssignmentTarget::ColumnName(name) => {
            find_column(table, &normalised(&last_ident(name)))
        }
        sql::AssignmentTarget::Tuple(_) => {
            let message = "SET (a, b) = … is not supported";
            Err(Error::unsupported(message).with_hint("Assign each column: SET a = …, b = …"))
        }
    }
}

fn plan_returning(
    items: &Option<Vec<sql::SelectItem>>,
    name: &sql::ObjectName,
    alias: Option<sql::Ident>,
    catalog: &dyn Catalog,
    session: &SessionContext,
) -> Result<Option<SelectPlan>> {
    let Some(items) = items else {
        return Ok(None);
    };
    let from = match alias {
        Some(alias) => format!("SELECT 1 FROM {name} AS {alias}"),
        None => format!("SELECT 1 FROM {name}"),
    };
    let mut query = parse_query(&from)?;
    if let sql::SetExpr::Select(select) = query.body.as_mut() {
        select.projection = items.clone();
    }
    let bound = bind(&query, catalog, session, Purpose::Once, &[])?;
    Ok(Some(SelectPlan::new(bound, session)))
}
