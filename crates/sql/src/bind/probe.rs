//! What the rewriting needs names and types for: parts of the query are planned to learn them.
//!
//! ```text
//!   SELECT * FROM a JOIN b USING (x)     SELECT a.x, a.y, b.z FROM a JOIN b USING (x)
//!   VALUES (1), (2.5)                    VALUES (1::numeric), (2.5::numeric)
//! ```
//!
//! PostgreSQL shows merged columns first, each once and with the left side's value, then what is
//! left of both sides. DataFusion shows them where they stand, from whichever side's name sorts
//! first, which is the wrong one for an outer join. And it unifies VALUES by rules of its own.

use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::Column;
use datafusion::logical_expr::logical_plan::{Join, JoinConstraint};
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::sql::sqlparser::ast as sql;
use datafusion::sql::sqlparser::ast::{VisitMut, VisitorMut};
use ruslo_repr::{Error, ErrorKind, Result};

use super::rewrite::{call, cast};
use super::typed;
use crate::parse::parse_query;

/// Plans a query whose parts are rewritten already.
pub(super) type PlanQuery<'p> = dyn Fn(sql::Query) -> Result<LogicalPlan> + 'p;

/// Spells out stars over merged columns, and brings each column of VALUES to one type.
pub(super) fn complete(query: &mut sql::Query, plan: &PlanQuery<'_>) -> Result<()> {
    let mut prober = Prober { plan, with: vec![] };
    match query.visit(&mut prober) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(error),
    }
}

struct Prober<'p> {
    plan: &'p PlanQuery<'p>,
    /// The WITH of each query that is open.
    with: Vec<Option<sql::With>>,
}

impl VisitorMut for Prober<'_> {
    type Break = Error;

    fn pre_visit_query(&mut self, query: &mut sql::Query) -> ControlFlow<Error> {
        self.with.push(query.with.clone());
        match query.body.as_mut() {
            sql::SetExpr::Values(values) => match self.unify(values) {
                Ok(()) => ControlFlow::Continue(()),
                Err(error) => ControlFlow::Break(error),
            },
            _ => ControlFlow::Continue(()),
        }
    }

    fn post_visit_query(&mut self, _query: &mut sql::Query) -> ControlFlow<Error> {
        self.with.pop();
        ControlFlow::Continue(())
    }

    fn post_visit_select(&mut self, select: &mut sql::Select) -> ControlFlow<Error> {
        let star = |item: &sql::SelectItem| matches!(item, sql::SelectItem::Wildcard(_));
        let merges = select.from.iter().flat_map(|from| &from.joins).any(merges);
        if !merges || !select.projection.iter().any(star) {
            return ControlFlow::Continue(());
        }
        match self.items(select) {
            Ok(items) => {
                select.projection = items;
                ControlFlow::Continue(())
            }
            Err(error) => ControlFlow::Break(error),
        }
    }
}

impl Prober<'_> {
    fn items(&self, select: &sql::Select) -> Result<Vec<sql::SelectItem>> {
        let columns = visible(&self.plan_from(&select.from)?);
        let mut items = vec![];
        for item in &select.projection {
            match item {
                sql::SelectItem::Wildcard(_) => items.extend(columns.iter().map(selected)),
                other => items.push(other.clone()),
            }
        }
        Ok(items)
    }

    /// What `FROM from` gives.
    fn plan_from(&self, from: &[sql::TableWithJoins]) -> Result<LogicalPlan> {
        let mut probe = *parse_query("SELECT true")?;
        if let sql::SetExpr::Select(select) = probe.body.as_mut() {
            select.from = from.to_vec();
        }
        match self.plan(probe)? {
            LogicalPlan::Projection(projection) => Ok(Arc::unwrap_or_clone(projection.input)),
            other => Ok(other),
        }
    }

    /// Casts the cells of a column to their common type, where it is not plain to see that they
    /// have it.
    fn unify(&self, values: &mut sql::Values) -> Result<()> {
        let width = values.rows.iter().map(|row| row.content.len()).min();
        for column in 0..width.unwrap_or(0) {
            let cells = values.rows.iter_mut().map(|row| &mut row.content[column]);
            let cells: Vec<&mut sql::Expr> = cells.filter(|cell| !is_null(cell)).collect();
            let alike = |pair: &[&mut sql::Expr]| same_type(pair[0], pair[1]);
            if cells.windows(2).all(alike) {
                continue;
            }
            let known = cells.iter().map(|cell| (**cell).clone()).collect();
            if let Some(ty) = self.common_type(known)? {
                for cell in cells {
                    *cell = cast(sql::Expr::Nested(Box::new(cell.clone())), &ty);
                }
            }
        }
        Ok(())
    }

    /// The type of COALESCE over these, which is found by the same rule. None if they cannot be
    /// planned by themselves: the binder has a better error, or knows the outer query's columns.
    fn common_type(&self, cells: Vec<sql::Expr>) -> Result<Option<DataType>> {
        let mut probe = *parse_query("SELECT true")?;
        if let sql::SetExpr::Select(select) = probe.body.as_mut() {
            let common = call(typed::COALESCE, cells);
            select.projection = vec![sql::SelectItem::UnnamedExpr(common)];
        }
        match self.plan(probe) {
            Ok(plan) => {
                let ty = plan.schema().field(0).data_type().clone();
                Ok((!ty.is_null()).then_some(ty))
            }
            Err(mut error) if error.kind == ErrorKind::DatatypeMismatch => {
                error.message = error.message.replacen(typed::COALESCE, "VALUES", 1);
                Err(error)
            }
            Err(_) => Ok(None),
        }
    }

    /// Plans a query as if it stood here, with the WITHs around it in sight.
    fn plan(&self, mut probe: sql::Query) -> Result<LogicalPlan> {
        for with in self.with.iter().flatten() {
            let known = probe.with.get_or_insert_with(|| sql::With {
                cte_tables: vec![],
                ..with.clone()
            });
            known.recursive |= with.recursive;
            // An inner WITH hides an outer one's table of the same name.
            let hidden = |cte: &sql::Cte| {
                let mut inner = with.cte_tables.iter();
                inner.any(|own| own.alias.name == cte.alias.name)
            };
            known.cte_tables.retain(|cte| !hidden(cte));
            known.cte_tables.extend(with.cte_tables.iter().cloned());
        }
        (self.plan)(probe)
    }
}

fn is_null(expr: &sql::Expr) -> bool {
    matches!(expr, sql::Expr::Value(value) if value.value == sql::Value::Null)
}

/// Whether two cells have one type by their looks: two strings, or two casts to one type.
fn same_type(a: &sql::Expr, b: &sql::Expr) -> bool {
    match (a, b) {
        (sql::Expr::Cast { data_type: a, .. }, sql::Expr::Cast { data_type: b, .. }) => a == b,
        (sql::Expr::Value(a), sql::Expr::Value(b)) => {
            std::mem::discriminant(&a.value) == std::mem::discriminant(&b.value)
        }
        _ => false,
    }
}

fn merges(join: &sql::Join) -> bool {
    use sql::JoinConstraint::{Natural, Using};
    use sql::JoinOperator::*;
    match &join.join_operator {
        Join(constraint) | Inner(constraint) | Left(constraint) | LeftOuter(constraint) => {
            matches!(constraint, Using(_) | Natural)
        }
        _ => false,
    }
}

/// The columns that a star over these joins shows, in order.
fn visible(plan: &LogicalPlan) -> Vec<Column> {
    let LogicalPlan::Join(join) = plan else {
        return plan.schema().columns();
    };
    let mut left = visible(&join.left);
    let mut right = visible(&join.right);
    let mut shown = vec![];
    for name in merged_names(join) {
        if let Some(at) = left.iter().position(|column| column.name == name) {
            shown.push(left.remove(at));
            right.retain(|column| column.name != name);
        }
    }
    shown.extend(left);
    shown.extend(right);
    shown
}

fn merged_names(join: &Join) -> Vec<String> {
    if join.join_constraint != JoinConstraint::Using {
        return vec![];
    }
    let names = join.on.iter().filter_map(|(left, _)| match left {
        Expr::Column(column) => Some(column.name.clone()),
        _ => None,
    });
    names.collect()
}

fn selected(column: &Column) -> sql::SelectItem {
    let mut parts = column.relation.as_ref().map_or(vec![], |r| r.to_vec());
    parts.push(column.name.clone());
    let parts = parts
        .into_iter()
        .map(|part| sql::Ident::with_quote('"', part));
    let parts: Vec<sql::Ident> = parts.collect();
    sql::SelectItem::UnnamedExpr(match parts.as_slice() {
        [name] => sql::Expr::Identifier(name.clone()),
        _ => sql::Expr::CompoundIdentifier(parts),
    })
}
