//! Physical plans that need little memory, for queries that had too little for the usual ones.
//!
//! ```text
//!   usual                          frugal
//!   hash join: one side kept       sort both sides, merge
//!   cross join: one side kept      keep a part of it, read the other side again for each
//!   ORDER BY … LIMIT: rows kept    sort all, which can be spilled, and stop
//!   batches of many rows           of a few
//! ```

use std::sync::Arc;

use arrow::compute::SortOptions;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{JoinType, Result as DfResult};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::joins::{
    CrossJoinExec, HashJoinExec, NestedLoopJoinExec, SortMergeJoinExec,
};
use datafusion::physical_plan::limit::GlobalLimitExec;
use datafusion::physical_plan::sorts::sort::SortExec;

type Plan = Arc<dyn ExecutionPlan>;

/// Replaces joins. It must run before the rules that add what joins ask of their inputs.
#[derive(Debug)]
pub(super) struct FrugalJoins;

impl PhysicalOptimizerRule for FrugalJoins {
    fn optimize(&self, plan: Plan, _config: &ConfigOptions) -> DfResult<Plan> {
        replace(plan, frugal_join)
    }

    fn name(&self) -> &str {
        "frugal_joins"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// Replaces sorts of which the first rows are wanted. It must run after the rules that tell sorts
/// how many that are.
#[derive(Debug)]
pub(super) struct FrugalSorts;

impl PhysicalOptimizerRule for FrugalSorts {
    fn optimize(&self, plan: Plan, _config: &ConfigOptions) -> DfResult<Plan> {
        replace(plan, |node| Ok(frugal_sort(node)))
    }

    fn name(&self) -> &str {
        "frugal_sorts"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

fn replace(plan: Plan, other: impl Fn(&Plan) -> DfResult<Option<Plan>>) -> DfResult<Plan> {
    let replaced = plan.transform_up(|node| match other(&node)? {
        Some(other) => Ok(Transformed::yes(other)),
        None => Ok(Transformed::no(node)),
    });
    Ok(replaced?.data)
}

/// The same join the other way; None where there is no other, as for NOT IN.
fn frugal_join(node: &Plan) -> DfResult<Option<Plan>> {
    if let Some(join) = node.downcast_ref::<CrossJoinExec>() {
        let (left, right) = (join.left().clone(), join.right().clone());
        let join = NestedLoopJoinExec::try_new(left, right, None, &JoinType::Inner, None)?;
        return Ok(Some(Arc::new(join)));
    }
    let Some(join) = node.downcast_ref::<HashJoinExec>() else {
        return Ok(None);
    };
    if join.null_aware || join.contains_projection() {
        return Ok(None);
    }
    let join = SortMergeJoinExec::try_new(
        join.left().clone(),
        join.right().clone(),
        join.on().to_vec(),
        join.filter().cloned(),
        *join.join_type(),
        vec![SortOptions::default(); join.on().len()],
        join.null_equality(),
    )?;
    Ok(Some(Arc::new(join)))
}

fn frugal_sort(node: &Plan) -> Option<Plan> {
    let sort = node.downcast_ref::<SortExec>()?;
    let wanted = sort.fetch()?;
    let whole = Arc::new(sort.with_fetch(None));
    Some(Arc::new(GlobalLimitExec::new(whole, 0, Some(wanted))))
}
