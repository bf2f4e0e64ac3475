//! `SELECT *` over JOIN … USING and NATURAL JOIN, spelled out before DataFusion expands it.
//!
//! PostgreSQL shows the merged columns first, each once and with the left side's value, then what
//! is left of both sides. DataFusion shows them where they stand, from whichever side's name
//! sorts first, which is the wrong one for an outer join. So the FROM items are planned once for
//! their columns, and the star becomes a list.

use std::ops::ControlFlow;
use std::sync::Arc;

use datafusion::common::Column;
use datafusion::logical_expr::logical_plan::{Join, JoinConstraint};
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::sql::sqlparser::ast as sql;
use datafusion::sql::sqlparser::ast::{VisitMut, VisitorMut};
use ruslo_repr::{Error, Result};

use crate::parse::parse_query;

/// Plans a query whose parts are rewritten already.
pub(super) type PlanQuery<'p> = dyn Fn(sql::Query) -> Result<LogicalPlan> + 'p;

/// Spells out the stars in a query.
pub(super) fn expand_stars(query: &mut sql::Query, plan: &PlanQuery<'_>) -> Result<()> {
    let mut expander = Expander { plan, with: vec![] };
    match query.visit(&mut expander) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(error),
    }
}

struct Expander<'p> {
    plan: &'p PlanQuery<'p>,
    /// The WITH of each query that is open.
    with: Vec<Option<sql::With>>,
}

impl VisitorMut for Expander<'_> {
    type Break = Error;

    fn pre_visit_query(&mut self, query: &mut sql::Query) -> ControlFlow<Error> {
        self.with.push(query.with.clone());
        ControlFlow::Continue(())
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

impl Expander<'_> {
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
        let plan = (self.plan)(probe)?;
        match plan {
            LogicalPlan::Projection(projection) => Ok(Arc::unwrap_or_clone(projection.input)),
            other => Ok(other),
        }
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
