//! The changes of a table or view, handed over as its frontier moves.

use std::cell::Cell;
use std::rc::Rc;

use differential_dataflow::consolidation::consolidate_updates;
use differential_dataflow::trace::{Cursor, Navigable};
use ruslo_repr::{Diff, RowBytes, Time};
use timely::container::CapacityContainerBuilder;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::Operator;

use crate::spine::SharedRows;

/// The time up to which a sink has reported, not including.
pub(crate) type SinkProgress = Rc<Cell<Time>>;

/// Calls `emit` with all changes after `as_of` and before a time, whenever that time moves.
pub(crate) fn render_sink(
    arranged: SharedRows<'_>,
    as_of: Time,
    progress: SinkProgress,
    mut emit: impl FnMut(Vec<(RowBytes, Time, Diff)>, Time) + 'static,
) {
    type Nothing = CapacityContainerBuilder<Vec<()>>;
    arranged
        .stream
        .unary_frontier::<Nothing, _, _, _>(Pipeline, "Sink", move |_, _| {
            let mut pending: Vec<(RowBytes, Time, Diff)> = vec![];
            move |(input, frontier), _output| {
                input.for_each(|_capability, spans| {
                    for span in spans.drain(..) {
                        // What was there before may be large, and is not looked at.
                        let upper = span.upper().elements().first();
                        let old = upper.is_some_and(|upper| *upper <= as_of + 1);
                        let Some(batch) = span.inner.filter(|_| !old) else {
                            continue;
                        };
                        let mut cursor = batch.cursor();
                        while let Some(key) = cursor.get_key(&batch) {
                            while let Some(value) = cursor.get_val(&batch) {
                                cursor.map_times(&batch, |time, diff| {
                                    if *time > as_of {
                                        pending.push(([key, value].concat(), *time, *diff));
                                    }
                                });
                                cursor.step_val(&batch);
                            }
                            cursor.step_key(&batch);
                        }
                    }
                });
                let upper = frontier.frontier().first().copied();
                // The input ends only when the sink or what it reads is dropped.
                let Some(upper) = upper.filter(|upper| *upper > as_of && *upper > progress.get())
                else {
                    return;
                };
                consolidate_updates(&mut pending);
                let (ready, later) = pending.drain(..).partition(|(_, time, _)| *time < upper);
                pending = later;
                progress.set(upper);
                emit(ready, upper);
            }
        });
}
