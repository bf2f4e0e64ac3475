//! GROUP BY and DISTINCT compare key forms, and show what is in the rows.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::common::{Column, DFSchema};
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::logical_plan::{Aggregate, Distinct};
use datafusion::logical_expr::{
    AggregateUDF, Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder,
};
use ruslo_repr::Error;

use super::ordering::order_all;
use super::typing::{check_condition, keyed};
use crate::error::to_df;
use crate::functions::{has_key_form, key_form, registry, shows_key};

/// DISTINCT inside an aggregate compares values.
pub(super) fn settle_aggregate_call(
    mut call: AggregateFunction,
    schema: &DFSchema,
) -> DfResult<Expr> {
    if call.params.distinct {
        for arg in &mut call.params.args {
            let ty = arg.get_type(schema)?;
            *arg = key_form(std::mem::take(arg), &ty);
        }
    }
    if !call.params.distinct {
        order_all(&mut call.params.order_by, schema)?;
    }
    if let Some(filter) = &call.params.filter {
        check_condition(filter, schema, "FILTER")?;
    }
    Ok(Expr::AggregateFunction(call))
}

/// Groups by key forms. Where these look different from what is in the rows, a projection puts
/// what an aggregate kept of the rows in the key's place.
pub(super) fn settle_aggregate(aggregate: Aggregate) -> DfResult<LogicalPlan> {
    let schema = aggregate.input.schema().clone();
    let (mut keys, mut shown) = (vec![], vec![]);
    let mut aggregates = aggregate.aggr_expr;
    let outputs = aggregate.group_expr.len() + aggregates.len();
    for (i, key) in aggregate.group_expr.into_iter().enumerate() {
        if let Expr::GroupingSet(sets) = key {
            keys.push(Expr::GroupingSet(sets));
            continue;
        }
        if let Some(name) = shows_key(&key.get_type(&schema)?) {
            shown.push((i, outputs + shown.len()));
            aggregates.push(aggregate_of(name)?.call(vec![key.clone().unalias()]));
        }
        keys.push(keyed(key, &schema)?);
    }
    let grouped = Aggregate::try_new(aggregate.input, keys, aggregates)?;
    let schema = grouped.schema.clone();
    let grouped = LogicalPlan::Aggregate(grouped);
    if shown.is_empty() {
        return Ok(grouped);
    }
    let mut columns = schema.columns();
    let shown: HashMap<usize, Column> = shown
        .into_iter()
        .map(|(key, place)| (key, columns[place].clone()))
        .collect();
    columns.truncate(outputs);
    let columns = columns
        .into_iter()
        .enumerate()
        .map(|(i, column)| match shown.get(&i) {
            Some(kept) => Expr::Column(kept.clone()).alias_qualified(column.relation, column.name),
            None => Expr::Column(column),
        });
    LogicalPlanBuilder::from(grouped).project(columns)?.build()
}

fn aggregate_of(name: &str) -> DfResult<Arc<AggregateUDF>> {
    let aggregate = registry().aggregate(name);
    aggregate.ok_or_else(|| to_df(Error::internal(format!("there is no aggregate {name}"))))
}

/// DISTINCT as groups, where equal values can look different.
pub(super) fn settle_distinct(distinct: Distinct) -> DfResult<LogicalPlan> {
    let input = match distinct {
        Distinct::All(input) => input,
        Distinct::On(mut on) => {
            let schema = on.input.schema().clone();
            // Sorting by key forms gives the same order, and the two lists must begin alike.
            let sorted = on.sort_expr.iter_mut().flatten().map(|sort| &mut sort.expr);
            for expr in on.on_expr.iter_mut().chain(sorted) {
                let ty = expr.get_type(&schema)?;
                *expr = key_form(std::mem::take(expr), &ty);
            }
            return Ok(LogicalPlan::Distinct(Distinct::On(on)));
        }
    };
    let schema = input.schema().clone();
    if !schema.fields().iter().any(|f| has_key_form(f.data_type())) {
        return Ok(LogicalPlan::Distinct(Distinct::All(input)));
    }
    let columns = schema.columns().into_iter().map(Expr::Column);
    if schema
        .fields()
        .iter()
        .any(|f| shows_key(f.data_type()).is_some())
    {
        let groups = settle_aggregate(Aggregate::try_new(input, columns.collect(), vec![])?)?;
        // Groups are distinct already; the node says so to who looks at this plan, and is left
        // out where a view is lowered.
        return LogicalPlanBuilder::from(groups).distinct()?.build();
    }
    let keys = columns.map(|column| keyed(column, &schema));
    let keys = keys.collect::<DfResult<Vec<_>>>()?;
    let projected = LogicalPlanBuilder::from(Arc::unwrap_or_clone(input)).project(keys)?;
    projected.distinct()?.build()
}
