//! Joins: keys as columns on both sides, the rest of the condition as residual.

use datafusion::common::{JoinType, NullEquality};
use datafusion::logical_expr::logical_plan::Join;
use datafusion::logical_expr::{Expr as DfExpr, LogicalPlan};
use ruslo_repr::{Column, Error, Expr, JoinKind, Plan, Result, Schema};

use super::expr::{column, lower_expr, lower_over};
use super::{Lowered, lower, schema_of};
use crate::error::from_df;

pub(super) fn lower_join(node: &Join) -> Result<Lowered> {
    let (kind, swapped) = join_kind(node)?;
    if node.null_aware {
        return Err(
            Error::unsupported("NOT IN with a subquery is not supported in a view yet")
                .with_hint("Write NOT EXISTS (SELECT … WHERE …): it means the same without NULLs."),
        );
    }
    let (left, right): (&LogicalPlan, &LogicalPlan) = match swapped {
        false => (&node.left, &node.right),
        true => (&node.right, &node.left),
    };
    let mut left = Side::new(lower(left)?);
    let mut right = Side::new(lower(right)?);
    let mut on = vec![];
    for (l, r) in &node.on {
        let (l, r) = if swapped { (r, l) } else { (l, r) };
        on.push((left.key(l)?, right.key(r)?));
    }
    let left_width = left.total();
    let only_left = matches!(kind, JoinKind::Semi | JoinKind::Anti);
    let (left_visible, right_visible) = (left.width, right.width);
    let left = left.into_plan("__left")?;
    let right = right.into_plan("__right")?;
    let residual = match &node.filter {
        Some(filter) => {
            let both = left.schema.join(&right.schema).map_err(from_df)?;
            let mut shown = left.plan.schema().clone();
            shown.columns.extend(right.plan.schema().columns.clone());
            Some(lower_over(filter, &both, &shown)?)
        }
        None => None,
    };
    let mut columns = left.plan.schema().columns.clone();
    if !only_left {
        columns.extend(right.plan.schema().columns.clone());
    }
    let plan = Plan::Join {
        kind,
        left: Box::new(left.plan),
        right: Box::new(right.plan),
        on,
        residual,
        null_equal: node.null_equality == NullEquality::NullEqualsNull,
        schema: Schema { columns },
    };
    let mut visible: Vec<usize> = (0..left_visible).collect();
    if !only_left {
        visible.extend(left_width..left_width + right_visible);
    }
    Lowered::new(without_keys(plan, visible)?, &node.schema)
}

fn join_kind(node: &Join) -> Result<(JoinKind, bool)> {
    Ok(match node.join_type {
        JoinType::Inner => (JoinKind::Inner, false),
        JoinType::Left => (JoinKind::Left, false),
        JoinType::Right => (JoinKind::Right, false),
        JoinType::Full => (JoinKind::Full, false),
        JoinType::LeftSemi => (JoinKind::Semi, false),
        JoinType::LeftAnti => (JoinKind::Anti, false),
        JoinType::RightSemi => (JoinKind::Semi, true),
        JoinType::RightAnti => (JoinKind::Anti, true),
        JoinType::LeftMark | JoinType::RightMark => {
            let message = "IN or EXISTS inside OR or CASE is not supported in a view yet";
            return Err(Error::unsupported(message)
                .with_hint("Write the alternatives as two queries joined by UNION."));
        }
        // Kinds that later versions may bring.
        #[allow(unreachable_patterns)]
        _ => {
            return Err(Error::unsupported(
                "this kind of join is not supported in a view yet",
            ));
        }
    })
}

/// One input of the join and the keys computed on top of it.
struct Side {
    input: Lowered,
    width: usize,
    computed: Vec<Expr>,
}

impl Side {
    fn new(input: Lowered) -> Self {
        let width = input.width();
        Side {
            input,
            width,
            computed: vec![],
        }
    }

    fn total(&self) -> usize {
        self.width + self.computed.len()
    }

    /// The position of the key column, added if it is not a column already.
    fn key(&mut self, expr: &DfExpr) -> Result<usize> {
        let lowered = lower_expr(expr, &self.input)?;
        if let Some(column) = lowered.column {
            return Ok(column);
        }
        let known = self.computed.iter().position(|e| e.code == lowered.code);
        Ok(self.width
            + known.unwrap_or_else(|| {
                self.computed.push(lowered);
                self.computed.len() - 1
            }))
    }

    /// The input with the computed keys as its last columns, named after `prefix`.
    fn into_plan(self, prefix: &str) -> Result<Lowered> {
        if self.computed.is_empty() {
            return Ok(self.input);
        }
        let mut schema = self.input.plan.schema().clone();
        let plain = (0..self.width).map(|i| column(i, &schema));
        let mut outputs = plain.collect::<Result<Vec<_>>>()?;
        let mut names = self.input.schema.clone();
        for (i, expr) in self.computed.into_iter().enumerate() {
            let name = format!("{prefix}_key{i}");
            let field = arrow::datatypes::Field::new(&name, expr.ty.clone(), true);
            let extra = arrow::datatypes::Schema::new(vec![field]);
            let extra = datafusion::common::DFSchema::try_from(extra).map_err(from_df)?;
            names = names.join(&extra).map_err(from_df)?;
            schema.columns.push(Column {
                name: expr.text.clone(),
                ty: expr.ty.clone(),
            });
            outputs.push(expr);
        }
        let types = schema.types();
        Ok(Lowered {
            plan: Plan::Map {
                input: Box::new(self.input.plan),
                filters: vec![],
                outputs,
                schema,
            },
            schema: schema_of(&names, &types)?,
        })
    }
}

/// Leaves the computed keys out again.
fn without_keys(plan: Plan, visible: Vec<usize>) -> Result<Plan> {
    let schema = plan.schema().clone();
    if visible.len() == schema.len() {
        return Ok(plan);
    }
    let outputs = visible.iter().map(|&i| column(i, &schema));
    Ok(Plan::Map {
        outputs: outputs.collect::<Result<_>>()?,
        input: Box::new(plan),
        filters: vec![],
        schema: schema.project(&visible),
    })
}
