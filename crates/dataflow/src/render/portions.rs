//! Reading batches a portion at a time.
//!
//! A sealed batch can be a whole state: that of a table when a view is made over it, or what comes
//! back after a restart. Read at once, all its rows would be on their way together, in memory. So
//! an operator leaves off after a portion and is scheduled again; in between, what is behind it
//! takes in what it made.

use std::collections::VecDeque;

use bytes::Buf;
use differential_dataflow::operators::join::join_traces;
use differential_dataflow::trace::{Cursor, Navigable, TraceReader};
use ruslo_repr::{Diff, Time};
use timely::Accountable;
use timely::container::{CapacityContainerBuilder, ContainerBuilder};
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
/// Bytes of a join's output in one piece: enough for it to be in a file.
const PACKED_BYTES: usize = 256 << 10;

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

/// Renders the pairs of rows with equal keys, under that key. `pair` is called with the key, the
/// left and the right value, and returns the parts of which the pair's value is put together.
pub(super) fn join_rows<'s>(
    left: SharedRows<'s>,
    right: SharedRows<'s>,
    mut pair: impl for<'a> FnMut(&'a [u8], &'a [u8], &'a [u8]) -> Option<[&'a [u8]; 3]> + 'static,
) -> RowStream<'s> {
    let joined = join_traces::<_, _, _, _, Pack>(
        left,
        right,
        "Join",
        move |key: &[u8], left: &[u8], right: &[u8], time, diff: &Diff, other: &Diff, out| {
            if let Some(parts) = pair(key, left, right) {
                out.push(key, parts, time, diff * other);
            }
        },
    );
    type Output = CapacityContainerBuilder<Vec<RowUpdate>>;
    joined.unary::<Output, _, _, _>(Pipeline, "Joined", move |_, _| {
        move |input, output| {
            input.for_each(|capability, packed| {
                let packed = std::mem::take(packed);
                output.session(&capability).give_iterator(packed.rows());
            });
        }
    })
}

/// Rows one after the other in one piece. A join makes all pairs of a key at once: in pieces like
/// this they can be in a file, however many there are.
#[derive(Default)]
struct Packed {
    /// Each row: the lengths of key and value, time and diff, key, value.
    bytes: Vec<u8>,
    rows: usize,
}

impl Packed {
    fn push(&mut self, key: &[u8], value: [&[u8]; 3], time: Time, diff: Diff) {
        let value_len = value.iter().map(|part| part.len()).sum::<usize>();
        for number in [key.len() as u64, value_len as u64, time, diff as u64] {
            self.bytes.extend_from_slice(&number.to_le_bytes());
        }
        self.bytes.extend_from_slice(key);
        for part in value {
            self.bytes.extend_from_slice(part);
        }
        self.rows += 1;
    }

    fn rows(&self) -> impl Iterator<Item = RowUpdate> {
        let mut left = self.bytes.as_slice();
        (0..self.rows).map(move |_| {
            let mut number = || left.get_u64_le();
            let (key_len, value_len) = (number() as usize, number() as usize);
            let (time, diff) = (number(), number() as Diff);
            let (key, rest) = left.split_at(key_len);
            let (value, rest) = rest.split_at(value_len);
            left = rest;
            ((key.to_vec(), value.to_vec()), time, diff)
        })
    }
}

impl Accountable for Packed {
    fn record_count(&self) -> i64 {
        (self.rows + self.bytes.len() / RECORD_BYTES) as i64
    }
}

/// Makes [`Packed`] containers.
#[derive(Default)]
struct Pack {
    filling: Packed,
    full: VecDeque<Packed>,
    given: Packed,
}

impl Pack {
    fn push(&mut self, key: &[u8], value: [&[u8]; 3], time: Time, diff: Diff) {
        self.filling.push(key, value, time, diff);
        if self.filling.bytes.len() >= PACKED_BYTES {
            self.full.push_back(std::mem::take(&mut self.filling));
        }
    }
}

impl ContainerBuilder for Pack {
    type Container = Packed;

    fn extract(&mut self) -> Option<&mut Packed> {
        self.given = self.full.pop_front()?;
        Some(&mut self.given)
    }

    fn finish(&mut self) -> Option<&mut Packed> {
        if self.filling.rows > 0 {
            self.full.push_back(std::mem::take(&mut self.filling));
        }
        self.extract()
    }
}
