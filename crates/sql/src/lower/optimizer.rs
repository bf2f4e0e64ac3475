//! The optimizer rules that keep a plan incremental, and the checks that go with them.
//!
//! Left out on purpose: rules that turn aggregates or joins into shapes dataflow would only have
//! to undo (distinct aggregates as two aggregates, common subexpressions as projections), and
//! rules about limits.

use std::sync::Arc;

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::config::ConfigOptions;
use datafusion::logical_expr::{Expr, LogicalPlan, Volatility};
use datafusion::optimizer::decorrelate_lateral_join::DecorrelateLateralJoin;
use datafusion::optimizer::decorrelate_predicate_subquery::DecorrelatePredicateSubquery;
use datafusion::optimizer::eliminate_cross_join::EliminateCrossJoin;
use datafusion::optimizer::eliminate_filter::EliminateFilter;
use datafusion::optimizer::eliminate_group_by_constant::EliminateGroupByConstant;
use datafusion::optimizer::eliminate_outer_join::EliminateOuterJoin;
use datafusion::optimizer::extract_equijoin_predicate::ExtractEquijoinPredicate;
use datafusion::optimizer::optimize_projections::OptimizeProjections;
use datafusion::optimizer::optimize_unions::OptimizeUnions;
use datafusion::optimizer::propagate_empty_relation::PropagateEmptyRelation;
use datafusion::optimizer::push_down_filter::PushDownFilter;
use datafusion::optimizer::rewrite_set_comparison::RewriteSetComparison;
use datafusion::optimizer::scalar_subquery_to_join::ScalarSubqueryToJoin;
use datafusion::optimizer::simplify_expressions::SimplifyExpressions;
use datafusion::optimizer::{Optimizer, OptimizerContext, OptimizerRule};
use ruslo_repr::{Error, Result};

use crate::error::{from_df, to_df};

pub(super) fn optimize(plan: LogicalPlan) -> Result<LogicalPlan> {
    check_scalar_subqueries(&plan)?;
    let rules: Vec<Arc<dyn OptimizerRule + Send + Sync>> = vec![
        Arc::new(RewriteSetComparison::new()),
        Arc::new(OptimizeUnions::new()),
        Arc::new(SimplifyExpressions::new()),
        Arc::new(DecorrelatePredicateSubquery::new()),
        Arc::new(ScalarSubqueryToJoin::new()),
        Arc::new(DecorrelateLateralJoin::new()),
        Arc::new(ExtractEquijoinPredicate::new()),
        Arc::new(EliminateFilter::new()),
        Arc::new(EliminateCrossJoin::new()),
        Arc::new(PropagateEmptyRelation::new()),
        Arc::new(EliminateOuterJoin::new()),
        Arc::new(PushDownFilter::new()),
        Arc::new(EliminateGroupByConstant::new()),
        Arc::new(OptimizeProjections::new()),
    ];
    let mut options = ConfigOptions::default();
    options
        .optimizer
        .enable_physical_uncorrelated_scalar_subquery = false;
    let context = OptimizerContext::new_with_config_options(Arc::new(options))
        .without_query_execution_start_time();
    let optimizer = Optimizer::with_rules(rules);
    optimizer
        .optimize(plan, &context, |_, _| {})
        .map_err(from_df)
}

/// A subquery used as a value must give at most one row by its form: an error at run time would
/// have to take back rows that were seen.
fn check_scalar_subqueries(plan: &LogicalPlan) -> Result<()> {
    let check = plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                let Expr::ScalarSubquery(subquery) = expr else {
                    return Ok(TreeNodeRecursion::Continue);
                };
                if gives_one_row(&subquery.subquery) {
                    return Ok(TreeNodeRecursion::Continue);
                }
                let message = "a subquery that may return more than one row cannot be used as a \
                               value in a view";
                Err(to_df(Error::unsupported(message).with_hint(
                    "Aggregate it, as in (SELECT max(x) FROM …), or join it.",
                )))
            })
        })
    });
    check.map(|_| ()).map_err(from_df)
}

fn gives_one_row(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Aggregate(aggregate) => aggregate.group_expr.is_empty(),
        LogicalPlan::Projection(projection) => gives_one_row(&projection.input),
        LogicalPlan::SubqueryAlias(alias) => gives_one_row(&alias.input),
        LogicalPlan::EmptyRelation(_) => true,
        LogicalPlan::Values(values) => values.values.len() <= 1,
        _ => false,
    }
}

/// A view's expressions must give the same for the same input, whenever they are computed.
pub(super) fn check_volatile(plan: &LogicalPlan) -> Result<()> {
    let check = plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|expr| match expr {
                Expr::ScalarFunction(call)
                    if call.func.signature().volatility == Volatility::Volatile =>
                {
                    let name = call.func.name();
                    let message = format!("{name}() is not supported in a view");
                    Err(to_df(Error::unsupported(message).with_hint(
                        "Its value changes from call to call, so the view could not be kept \
                         exact. Use it in a query on the view.",
                    )))
                }
                _ => Ok(TreeNodeRecursion::Continue),
            })
        })
    });
    check.map(|_| ()).map_err(from_df)
}
