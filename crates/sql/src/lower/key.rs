//! What is known of a plan's rows: the columns that tell them apart, whether any is ever removed.

use ruslo_repr::{Aggregate, AggregateFunction, JoinKind, ObjectId, Plan};

/// Columns whose values no two rows share (NULL counts as equal to NULL); None if there are none
/// that are known. `of_relation` gives the key of a table or view.
pub(super) fn unique_key(
    plan: &Plan,
    of_relation: &dyn Fn(ObjectId) -> Option<Vec<usize>>,
) -> Option<Vec<usize>> {
    match plan {
        Plan::Get { id, .. } => of_relation(*id).filter(|key| !key.is_empty()),
        Plan::Source { .. } | Plan::Union { .. } => None,
        Plan::Values { rows, .. } => (rows.len() <= 1).then(Vec::new),
        Plan::Map { input, outputs, .. } => {
            let key = unique_key(input, of_relation)?;
            let place = |k: usize| {
                let mut columns = outputs.iter().map(|output| output.column);
                columns.position(|column| column.is_some_and(|c| equals(input, c) == k))
            };
            key.into_iter().map(place).collect()
        }
        Plan::Reduce { keys, .. } => Some((0..keys.len()).collect()),
        Plan::Distinct { input } => {
            let all = (0..input.schema().len()).collect();
            Some(unique_key(input, of_relation).unwrap_or(all))
        }
        Plan::Join {
            kind: JoinKind::Semi | JoinKind::Anti,
            left,
            ..
        } => unique_key(left, of_relation),
        Plan::Join { left, right, .. } => {
            let width = left.schema().len();
            let mut key = unique_key(left, of_relation)?;
            let other = unique_key(right, of_relation)?;
            key.extend(other.into_iter().map(|k| k + width));
            Some(key)
        }
    }
}

/// The column of a plan that this one is equal to in every row: the key that an aggregate shows.
fn equals(plan: &Plan, column: usize) -> usize {
    let Plan::Reduce {
        keys, aggregates, ..
    } = plan
    else {
        return column;
    };
    let aggregate = column.checked_sub(keys.len());
    match aggregate.and_then(|i| aggregates.get(i)) {
        Some(Aggregate {
            function: AggregateFunction::Alike { key },
            ..
        }) => *key,
        _ => column,
    }
}

/// Whether rows are only ever added, given which tables and views are append-only.
pub(super) fn is_append_only(plan: &Plan, of_relation: &dyn Fn(ObjectId) -> bool) -> bool {
    match plan {
        Plan::Get { id, .. } => of_relation(*id),
        Plan::Source { .. } | Plan::Values { .. } => true,
        Plan::Reduce {
            aggregates, keys, ..
        } => {
            // Groups appear and, over append-only input, never change when nothing is computed.
            aggregates.is_empty() && !keys.is_empty() && inputs_append_only(plan, of_relation)
        }
        Plan::Map { .. } | Plan::Distinct { .. } | Plan::Union { .. } => {
            inputs_append_only(plan, of_relation)
        }
        Plan::Join { kind, .. } => {
            matches!(kind, JoinKind::Inner | JoinKind::Semi)
                && inputs_append_only(plan, of_relation)
        }
    }
}

fn inputs_append_only(plan: &Plan, of_relation: &dyn Fn(ObjectId) -> bool) -> bool {
    plan.inputs()
        .into_iter()
        .all(|input| is_append_only(input, of_relation))
}
