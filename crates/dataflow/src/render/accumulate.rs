//! From accumulated diffs to the changes of what they mean.
//!
//! The operator reads each sealed batch of a [`KeySpine`](crate::spine::KeySpine), looks up what
//! was accumulated for its keys before, and hands the state before and after every change to a
//! finisher. The work is per changed key, however large a group is. Times are totally ordered.
//! What a batch changes is worked off in portions, see [`super::portions`].

use std::collections::VecDeque;

use differential_dataflow::operators::arrange::Arranged;
use differential_dataflow::trace::cursor::{CursorList, cursor_list};
use differential_dataflow::trace::{Cursor, Navigable, TraceReader};
use ruslo_repr::{Result, Time};
use timely::container::CapacityContainerBuilder;
use timely::dataflow::Stream;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::CapabilitySet;
use timely::dataflow::operators::generic::Operator;
use timely::progress::Antichain;
use timely::scheduling::Activator;

use super::Context;
use super::portions::PORTION_BYTES;
use crate::block::BLOCK_ROWS;
use crate::spine::{KeyBatch, KeyTrace, RowStream, RowUpdate, State};

/// The state of one key before and after a time.
pub(crate) struct Change<R> {
    pub(crate) key: Vec<u8>,
    pub(crate) time: Time,
    pub(crate) old: R,
    pub(crate) new: R,
}

/// Rows, or error rows.
pub(crate) type Outcome = std::result::Result<RowUpdate, RowUpdate>;

/// Renders what `finish` makes of the changes, some thousand at a time.
pub(crate) fn accumulate<'s, R: State>(
    arranged: Arranged<'s, KeyTrace<R>>,
    name: &str,
    mut finish: impl FnMut(Vec<Change<R>>, &mut Vec<Outcome>) -> Result<()> + 'static,
    context: &Context<'_, 's>,
) -> Stream<'s, Time, Vec<Outcome>> {
    let mut trace = arranged.trace;
    let report = context.report.clone();
    type Output = CapacityContainerBuilder<Vec<Outcome>>;
    let scope = arranged.stream.scope();
    arranged
        .stream
        .unary_frontier::<Output, _, _, _>(Pipeline, name, move |_, info| {
            let activator = Activator::new(info.address, scope.activations());
            let mut lower = Antichain::from_elem(0);
            let mut upper = Antichain::from_elem(0);
            let mut unread: VecDeque<(CapabilitySet<Time>, Changes<R>)> = VecDeque::new();
            move |(input, _), output| {
                lower.clone_from(&upper);
                let mut capabilities = CapabilitySet::new();
                let mut batches = vec![];
                input.for_each(|capability, spans| {
                    for capability in capability.retain_stamp(0).iter() {
                        capabilities.insert(capability.clone());
                    }
                    for span in spans.drain(..) {
                        upper.clone_from(span.upper());
                        batches.extend(span.inner);
                    }
                });
                let before = match batches.is_empty() {
                    true => None,
                    false => trace.batches_through(lower.borrow()),
                };
                if let Some(before) = before {
                    unread.push_back((capabilities, Changes::new(batches, before)));
                }
                let mut left = PORTION_BYTES;
                while left > 0
                    && let Some((capabilities, changes)) = unread.front_mut()
                {
                    let block = changes.next_block(&mut left);
                    if block.is_empty() {
                        unread.pop_front();
                        continue;
                    }
                    let mut outcomes = vec![];
                    report.unless_ok(finish(block, &mut outcomes));
                    let mut session = output.session(&*capabilities);
                    session.give_iterator(outcomes.into_iter());
                }
                if !unread.is_empty() {
                    activator.activate();
                }
                trace.advance_upper(&mut upper);
                trace.set_logical_compaction(upper.borrow());
                trace.set_physical_compaction(upper.borrow());
            }
        })
}

type Batches<R> = Vec<KeyBatch<R>>;
type BatchesCursor<R> = CursorList<<KeyBatch<R> as Navigable>::Cursor>;

/// The changes that batches make to what was accumulated before.
struct Changes<R: State> {
    new: (BatchesCursor<R>, Batches<R>),
    old: (BatchesCursor<R>, Batches<R>),
    updates: Vec<(Time, R)>,
}

impl<R: State> Changes<R> {
    fn new(batches: Batches<R>, before: Batches<R>) -> Changes<R> {
        Changes {
            new: cursor_list(batches),
            old: cursor_list(before),
            updates: vec![],
        }
    }

    /// The next changes, while there are bytes `left`; none at the end.
    fn next_block(&mut self, left: &mut usize) -> Vec<Change<R>> {
        let (new, new_storage) = &mut self.new;
        let (old, old_storage) = &mut self.old;
        let mut changes = vec![];
        while let Some(key) = new.get_key(new_storage) {
            let mut state = R::default();
            old.seek_key(old_storage, key);
            if old.get_key(old_storage) == Some(key) {
                old.map_times(old_storage, |_, diff| state.plus_equals(diff));
            }
            let updates = &mut self.updates;
            new.map_times(new_storage, |time, diff| {
                updates.push((*time, diff.clone()))
            });
            updates.sort_by_key(|(time, _)| *time);
            let mut updates = updates.drain(..).peekable();
            while let Some((time, diff)) = updates.next() {
                let old = state.clone();
                state.plus_equals(&diff);
                while let Some((_, diff)) = updates.next_if(|(next, _)| *next == time) {
                    state.plus_equals(&diff);
                }
                if state != old {
                    *left = left.saturating_sub(key.len() + size_of::<Change<R>>());
                    changes.push(Change {
                        key: key.to_vec(),
                        time,
                        old,
                        new: state.clone(),
                    });
                }
            }
            new.step_key(new_storage);
            if changes.len() >= BLOCK_ROWS || *left == 0 {
                break;
            }
        }
        changes
    }
}

/// Renders the keys whose count is positive, each once, with no value.
pub(crate) fn present<'s>(
    arranged: Arranged<'s, KeyTrace<i64>>,
    name: &str,
    context: &Context<'_, 's>,
) -> RowStream<'s> {
    let outcomes = accumulate(
        arranged,
        name,
        |changes: Vec<Change<i64>>, outcomes| {
            for change in changes {
                let diff = i64::from(change.new > 0) - i64::from(change.old > 0);
                if diff != 0 {
                    outcomes.push(Ok(((change.key, vec![]), change.time, diff)));
                }
            }
            Ok(())
        },
        context,
    );
    rows_only(outcomes)
}

/// Drops the error side of outcomes that have none.
pub(crate) fn rows_only<'s>(outcomes: Stream<'s, Time, Vec<Outcome>>) -> RowStream<'s> {
    use timely::dataflow::operators::vec::Map;
    outcomes.flat_map(Result::ok)
}
