//! min and max of one column.
//!
//! ```text
//!   input that only grows:  combine ─> one pair of extremes per group, as diff
//!   any other:              values by (group, bucket) ─> extremes of each bucket
//!                                                     ─> extremes of the group
//! ```
//!
//! A value that goes may uncover any other, so all values are kept. They are spread over buckets
//! by hash: a change looks at its bucket and at one pair per bucket, not at the whole group.

use std::rc::Rc;

use arrow::array::{Array, ArrayRef, new_null_array};
use arrow::datatypes::DataType;
use ruslo_repr::{Result, RowCodec};
use timely::dataflow::operators::Concat;
use timely::dataflow::operators::vec::Map;

use super::Context;
use super::accumulate::{Change, Outcome, accumulate, rows_only};
use super::combine::{Absorb, combine};
use super::groups::{GroupInput, GroupOutput, reduce};
use crate::aggregate::{Extremes, Members};
use crate::block::{Block, BlockStream};
use crate::durable::ExtremesForm;
use crate::spine::{RowStream, arrange_keys, arrange_rows, route};

/// What is asked for each group: min (`false`) or max (`true`), in the order of the output.
pub(crate) struct Wanted {
    pub(crate) largest: Vec<bool>,
    /// The column's NULL, encoded.
    null: Vec<u8>,
}

impl Wanted {
    pub(crate) fn new(largest: Vec<bool>, ty: &DataType) -> Result<Wanted> {
        let codec = RowCodec::new(std::slice::from_ref(ty))?;
        let null = codec.encode(&[new_null_array(ty, 1)], 1)?.row(0).to_vec();
        Ok(Wanted { largest, null })
    }

    fn row(&self, least: Option<&[u8]>, greatest: Option<&[u8]>) -> Vec<u8> {
        let extremes = self
            .largest
            .iter()
            .map(|largest| if *largest { greatest } else { least });
        extremes
            .flat_map(|value| value.unwrap_or(&self.null))
            .copied()
            .collect()
    }

    /// The marker of a reduce without keys has no bytes, which no value of a column has.
    fn is_value(&self, value: &[u8]) -> bool {
        !value.is_empty() && value != self.null
    }
}

/// Renders extremes over rows that are never taken away: blocks of the group's key columns,
/// then the column itself.
pub(crate) fn monotonic<'s>(
    blocks: BlockStream<'s>,
    types: &[DataType],
    wanted: Wanted,
    raw: bool,
    context: &mut Context<'_, 's>,
) -> Result<RowStream<'s>> {
    let column = types.len() - 1;
    let key: Vec<usize> = (0..column).collect();
    let absorb = AbsorbExtremes {
        column,
        codec: RowCodec::new(&types[column..])?,
    };
    let mut changes = combine(blocks, types, &key, absorb, context)?;
    let durable = raw && context.points.wanted;
    // What is given back has the marker in it.
    if key.is_empty() && !(durable && context.points.is_restored()) {
        let marker = Extremes {
            rows: 1,
            ..Extremes::default()
        };
        changes = changes.concat(context.once(((vec![], ()), context.as_of, marker)));
    }
    let (name, wanted_values) = ("extremes", wanted.largest.len());
    let form = ExtremesForm::new(&types[..column], &types[column], wanted_values)?;
    let mut tap = None;
    if durable {
        let (all, point, since) = context.points.begin(context.scope, changes, &form, name);
        changes = all;
        tap = Some((point, since));
    }
    let arranged = arrange_keys(changes, false, name);
    context.watch_keys(&arranged.trace);
    let finish = move |changes: Vec<Change<Extremes>>, outcomes: &mut Vec<Outcome>| {
        for change in changes {
            let row = |state: &Extremes| {
                let row = wanted.row(state.least.as_deref(), state.greatest.as_deref());
                (state.rows > 0).then_some(row)
            };
            let (old, new) = (row(&change.old), row(&change.new));
            if old != new {
                for (row, diff) in [(old, -1), (new, 1)] {
                    let row = row.map(|row| ((change.key.clone(), row), change.time, diff));
                    outcomes.extend(row.map(Ok));
                }
            }
        }
        Ok(())
    };
    let rows = rows_only(accumulate(arranged, "AccumulateExtremes", finish, context));
    Ok(match tap {
        Some((point, since)) => context.points.tap(rows, form.rows, point, since),
        None => rows,
    })
}

struct AbsorbExtremes {
    column: usize,
    codec: RowCodec,
}

impl Absorb<Extremes> for AbsorbExtremes {
    fn absorb(&self, block: &Block, members: &Members, states: &mut [Extremes]) -> Result<()> {
        let column: &ArrayRef = &block.columns[self.column];
        let nulls = column.logical_nulls();
        let encoded = self.codec.encode(std::slice::from_ref(column), block.len)?;
        members.for_each(|row, group, diff| {
            let state = &mut states[group];
            state.rows += diff;
            if nulls.as_ref().is_none_or(|nulls| nulls.is_valid(row)) {
                state.add(encoded.row(row));
            }
        });
        Ok(())
    }
}

/// Renders extremes over (group key, encoded column) rows that come and go.
pub(crate) fn hierarchical<'s>(
    rows: RowStream<'s>,
    wanted: Wanted,
    context: &mut Context<'_, 's>,
) -> RowStream<'s> {
    let bucketed = rows.map(|((mut key, value), time, diff)| {
        key.push(route(&value) as u8);
        ((key, value), time, diff)
    });
    let arranged = arrange_rows(bucketed, false, "ArrangeBuckets");
    let arranged = context.share(arranged);
    let wanted = Rc::new(wanted);
    let is_value = wanted.clone();
    let candidates = move |_: &[u8], bucket: &GroupInput, output: &mut GroupOutput| {
        let mut present = present(bucket);
        // NULL or the marker stands for a bucket that has nothing else.
        let first = present.clone().find(|value| is_value.is_value(value));
        if let Some(least) = first.or_else(|| present.clone().next()) {
            output.push((least.to_vec(), 1));
            // Both sort before all values, so the last is one if there is any.
            let greatest = present.next_back().filter(|greatest| *greatest != least);
            output.extend(greatest.map(|greatest| (greatest.to_vec(), 1)));
        }
    };
    let candidates = reduce(arranged, "BucketExtremes", candidates, context);
    let candidates = candidates.map(|((mut key, value), time, diff)| {
        key.pop();
        ((key, value), time, diff)
    });
    let arranged = arrange_rows(candidates, false, "ArrangeCandidates");
    let arranged = context.share(arranged);
    let extremes = move |_: &[u8], group: &GroupInput, output: &mut GroupOutput| {
        let mut present = present(group);
        if present.clone().next().is_some() {
            let least = present.clone().find(|value| wanted.is_value(value));
            let greatest = present.rfind(|value| wanted.is_value(value));
            output.push((wanted.row(least, greatest), 1));
        }
    };
    reduce(arranged, "Extremes", extremes, context)
}

/// The values that stand in a group, ascending.
fn present<'a>(
    group: &'a GroupInput<'a>,
) -> impl DoubleEndedIterator<Item = &'a [u8]> + Clone + 'a {
    group
        .iter()
        .filter(|(_, diff)| *diff > 0)
        .map(|(value, _)| *value)
}
