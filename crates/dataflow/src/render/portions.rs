//! Reading batches a portion at a time.
//!
//! A sealed batch can be a whole state: that of a table when a view is made over it, or what comes
//! back after a restart. Read at once, all its rows would be on their way together, in memory. So
//! an operator leaves off after a portion and is scheduled again; in between, what is behind it
//! takes in what it made.

use std::collections::VecDeque;

use differential_dataflow::consolidation::ConsolidatingContainerBuilder;
use differential_dataflow::operators::join::join_traces;
use differential_dataflow::trace::{Cursor, Navigable, TraceReader};
use ruslo_repr::{Diff, Time};
use timely::Accountable;
use timely::container::{CapacityContainerBuilder, ContainerBuilder, PushInto};
use timely::dataflow::Stream;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::CapabilitySet;
use timely::dataflow::operators::generic::Operator;
use timely::scheduling::Activator;

use crate::spine::{RowStream, RowUpdate, SharedRows, SharedTrace};

/// Bytes of keys and values that are read before others have their turn.
pub(super) const PORTION_BYTES: usize = 4 << 20;
/// Bytes that count as one record of a join's output: differential's join leaves off after a
/// million of them.
const RECORD_BYTES: usize = 8;

pub(super) type SharedBatch = <SharedTrace as TraceReader>::Batch;
type SharedCursor = <SharedBatch as Navigable>::Cursor;

/// The place in a batch up to which it was read.
pub(super) struct Place {
    cursor: SharedCursor,
    /// Bytes that may be read in this turn.
    left: usize,
}

impl Place {
    /// Hands the next rows to `give`, until there are none or this turn is over.
    pub(super) fn read<'b>(
        &mut self,
        batch: &'b SharedBatch,
        mut give: impl FnMut(&'b [u8], &'b [u8], Time, Diff),
    ) {
        while let Some(key) = self.cursor.get_key(batch) {
            while let Some(value) = self.cursor.get_val(batch) {
                if self.left == 0 {
                    return;
                }
                self.cursor.map_times(batch, |time, diff| {
                    give(key, value, *time, *diff);
                });
                self.cursor.step_val(batch);
                // Rows without bytes are rows, too.
                let bytes = key.len() + value.len() + size_of::<RowUpdate>();
                self.left = self.left.saturating_sub(bytes);
            }
            self.cursor.step_key(batch);
        }
    }
}

/// Renders what `make` makes of the changes of an arrangement. It is called with a batch until the
/// batch is read to its end.
pub(super) fn in_portions<'s, D: Clone + 'static>(
    arranged: SharedRows<'s>,
    name: &str,
    mut make: impl FnMut(&SharedBatch, &mut Place) -> Vec<D> + 'static,
) -> Stream<'s, Time, Vec<D>> {
    type Output<D> = CapacityContainerBuilder<Vec<D>>;
    let scope = arranged.stream.scope();
    let stream = arranged.stream;
    stream.unary::<Output<D>, _, _, _>(Pipeline, name, move |_, info| {
        let activator = Activator::new(info.address, scope.activations());
        let mut unread: VecDeque<(CapabilitySet<Time>, SharedBatch, SharedCursor)> =
            VecDeque::new();
        move |input, output| {
            input.for_each(|capability, spans| {
                let capabilities = capability.retain_stamp(0);
                for batch in spans.drain(..).filter_map(|span| span.inner) {
                    let cursor = batch.cursor();
                    unread.push_back((capabilities.clone(), batch, cursor));
                }
            });
            let mut left = PORTION_BYTES;
            while let Some((capabilities, batch, cursor)) = unread.pop_front() {
                let mut place = Place { cursor, left };
                let made = make(&batch, &mut place);
                let given = made.into_iter();
                output.session(&capabilities).give_iterator(given);
                left = place.left;
                if place.cursor.key_valid(&batch) {
                    unread.push_front((capabilities, batch, place.cursor));
                    activator.activate();
                    break;
                }
            }
        }
    })
}

/// The changes of an arrangement, as pairs.
pub(super) fn rows_of(arranged: SharedRows<'_>) -> RowStream<'_> {
    in_portions(arranged, "Rows", |batch, place| {
        let mut rows = vec![];
        place.read(batch, |key, value, time, diff| {
            rows.push(((key.to_vec(), value.to_vec()), time, diff));
        });
        rows
    })
}

/// Renders the pairs that `pair` makes of rows with equal keys: key, left value, right value.
pub(super) fn join_rows<'s>(
    left: SharedRows<'s>,
    right: SharedRows<'s>,
    mut pair: impl FnMut(&[u8], &[u8], &[u8]) -> Option<(Vec<u8>, Vec<u8>)> + 'static,
) -> RowStream<'s> {
    let joined = join_traces::<_, _, _, _, Weigh>(
        left,
        right,
        "Join",
        move |key: &[u8], left: &[u8], right: &[u8], time, diff: &Diff, other: &Diff, out| {
            if let Some(row) = pair(key, left, right) {
                out.rows.push_into((row, time, diff * other));
            }
        },
    );
    type Output = CapacityContainerBuilder<Vec<RowUpdate>>;
    joined.unary::<Output, _, _, _>(Pipeline, "Joined", move |_, _| {
        move |input, output| {
            input.for_each(|capability, weighed| {
                let mut session = output.session(&capability);
                session.give_container(&mut weighed.rows);
            });
        }
    })
}

/// Rows that count by their bytes.
#[derive(Default)]
struct Weighed {
    rows: Vec<RowUpdate>,
    records: i64,
}

impl Weighed {
    fn new(rows: Vec<RowUpdate>) -> Weighed {
        let bytes = |((key, value), ..): &RowUpdate| key.len() + value.len();
        let records = rows.iter().map(|row| 1 + bytes(row) / RECORD_BYTES);
        Weighed {
            records: records.sum::<usize>() as i64,
            rows,
        }
    }
}

impl Accountable for Weighed {
    fn record_count(&self) -> i64 {
        self.records
    }
}

/// Makes [`Weighed`] containers.
#[derive(Default)]
struct Weigh {
    rows: ConsolidatingContainerBuilder<Vec<RowUpdate>>,
    ready: Weighed,
}

impl PushInto<RowUpdate> for Weigh {
    fn push_into(&mut self, row: RowUpdate) {
        self.rows.push_into(row);
    }
}

impl ContainerBuilder for Weigh {
    type Container = Weighed;

    fn extract(&mut self) -> Option<&mut Weighed> {
        let rows = std::mem::take(self.rows.extract()?);
        self.ready = Weighed::new(rows);
        Some(&mut self.ready)
    }

    fn finish(&mut self) -> Option<&mut Weighed> {
        let rows = std::mem::take(self.rows.finish()?);
        self.ready = Weighed::new(rows);
        Some(&mut self.ready)
    }
}
