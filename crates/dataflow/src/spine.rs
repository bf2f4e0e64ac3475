//! How encoded rows lie in memory, and how they find their worker.
//!
//! Arrangements hold keys and values as byte strings, one after the other in one allocation
//! ([`ByteVec`]), which takes two thirds of the memory of a `Vec<Vec<u8>>` and merges faster.
//!
//! ```text
//!   RowSpine      key bytes ─> value bytes ─> (time, i64)   tables, views, join inputs
//!   KeySpine<R>   key bytes ─> (time, R)                    aggregates and counts as diffs
//! ```
//!
//! Every arrangement of a key lives on the worker [`route`] says, so arrangements with equal keys
//! join without moving rows.

use std::cell::Cell;
use std::marker::PhantomData;
use std::rc::Rc;

use crate::batcher::RunBatcher;
use differential_dataflow::difference::Semigroup;
use differential_dataflow::operators::arrange::arrangement::arrange_core;
use differential_dataflow::operators::arrange::{Arranged, TraceAgent};
use differential_dataflow::trace::implementations::ord_neu::{
    OrdKeyBatch, OrdKeyBuilder, OrdValBatch, OrdValBuilder,
};
use differential_dataflow::trace::implementations::spine_fueled::Spine;
use differential_dataflow::trace::implementations::{
    BatchContainer, Layout as SpineLayout, OffsetList,
};
use differential_dataflow::trace::wrappers::frontier::{BatchFrontier, TraceFrontier};
use differential_dataflow::trace::{Cursor, Navigable, Span, TraceReader};
use ruslo_repr::{Diff, Time};
use serde::Serialize;
use serde::de::DeserializeOwned;
use timely::container::{CapacityContainerBuilder, PushInto};
use timely::dataflow::Stream;
use timely::dataflow::channels::pact::{Exchange, Pipeline};
use timely::dataflow::operators::generic::Operator;
use timely::dataflow::operators::vec::Map;
use timely::progress::Antichain;

/// A change of one (key, value) pair.
pub(crate) type RowUpdate = ((Vec<u8>, Vec<u8>), Time, Diff);
/// A change of what is accumulated for one key.
pub(crate) type KeyUpdate<R> = ((Vec<u8>, ()), Time, R);

pub(crate) type RowStream<'s> = Stream<'s, Time, Vec<RowUpdate>>;
pub(crate) type KeyStream<'s, R> = Stream<'s, Time, Vec<KeyUpdate<R>>>;

type RowLayout = Bytes<ByteVec, Diff>;
pub(crate) type RowBatch = Rc<OrdValBatch<RowLayout>>;
pub(crate) type RowSpine = Spine<RowBatch>;
pub(crate) type RowBuilder = OrdValBuilder<RowLayout, Vec<RowUpdate>>;
type RowBatcher = RunBatcher<(Vec<u8>, Vec<u8>), Diff, RowBuilder>;

type KeyLayout<R> = Bytes<Vec<()>, R>;
pub(crate) type KeyBatch<R> = Rc<OrdKeyBatch<KeyLayout<R>>>;
pub(crate) type KeySpine<R> = Spine<KeyBatch<R>>;
type KeyBuilder<R> = OrdKeyBuilder<KeyLayout<R>, Vec<KeyUpdate<R>>>;
type KeyBatcher<R> = RunBatcher<(Vec<u8>, ()), R, KeyBuilder<R>>;

/// The handle to an arrangement of rows made in this or another dataflow.
pub(crate) type RowTrace = TraceAgent<RowSpine>;
pub(crate) type KeyTrace<R> = TraceAgent<KeySpine<R>>;
/// An arrangement inside a dataflow, imported or made there: operators know only this one.
pub(crate) type SharedTrace = TraceFrontier<RowTrace>;
pub(crate) type SharedRows<'s> = Arranged<'s, SharedTrace>;

/// What a [`KeySpine`] can hold as diff.
pub(crate) trait State:
    Semigroup + Ord + Default + Serialize + DeserializeOwned + Send + Sync + 'static
{
}

impl<R> State for R where
    R: Semigroup + Ord + Default + Serialize + DeserializeOwned + Send + Sync + 'static
{
}

/// Byte strings one after the other.
pub(crate) struct ByteVec {
    offsets: OffsetList,
    bytes: Vec<u8>,
}

impl ByteVec {
    /// Heap bytes in use.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.bytes.capacity() + offsets_bytes(&self.offsets)
    }
}

/// Heap bytes of a list of offsets.
pub(crate) fn offsets_bytes(offsets: &OffsetList) -> usize {
    offsets.smol.capacity() * 4 + offsets.chonk.capacity() * 8
}

impl Default for ByteVec {
    fn default() -> Self {
        Self::with_capacity(0)
    }
}

impl PushInto<&[u8]> for ByteVec {
    fn push_into(&mut self, item: &[u8]) {
        self.bytes.extend_from_slice(item);
        self.offsets.push(self.bytes.len());
    }
}

impl PushInto<Vec<u8>> for ByteVec {
    fn push_into(&mut self, item: Vec<u8>) {
        self.push_into(item.as_slice());
    }
}

impl BatchContainer for ByteVec {
    type Owned = Vec<u8>;
    type ReadItem<'a> = &'a [u8];

    fn into_owned(item: &[u8]) -> Vec<u8> {
        item.to_vec()
    }

    fn clone_onto(item: &[u8], other: &mut Vec<u8>) {
        other.clear();
        other.extend_from_slice(item);
    }

    fn push_ref(&mut self, item: &[u8]) {
        self.push_into(item);
    }

    fn push_own(&mut self, item: &Vec<u8>) {
        self.push_into(item.as_slice());
    }

    fn clear(&mut self) {
        self.offsets.clear();
        self.offsets.push(0);
        self.bytes.clear();
    }

    fn with_capacity(size: usize) -> Self {
        let mut offsets = OffsetList::with_capacity(size + 1);
        offsets.push(0);
        ByteVec {
            offsets,
            bytes: Vec::new(),
        }
    }

    fn merge_capacity(a: &Self, b: &Self) -> Self {
        let mut merged = Self::with_capacity(a.len() + b.len());
        merged.bytes.reserve(a.bytes.len() + b.bytes.len());
        merged
    }

    fn reborrow<'b, 'a: 'b>(item: &'a [u8]) -> &'b [u8] {
        item
    }

    fn index(&self, index: usize) -> &[u8] {
        &self.bytes[self.offsets.index(index)..self.offsets.index(index + 1)]
    }

    fn len(&self) -> usize {
        self.offsets.len() - 1
    }
}

/// The layout of a batch with byte keys, values in `V` and diffs `R`.
pub(crate) struct Bytes<V, R>(PhantomData<(V, R)>);

impl<V, R> SpineLayout for Bytes<V, R>
where
    V: BatchContainer,
    R: Semigroup + Ord + 'static,
{
    type KeyContainer = ByteVec;
    type ValContainer = V;
    type TimeContainer = Vec<Time>;
    type DiffContainer = Vec<R>;
    type OffsetContainer = OffsetList;
}

/// The number whose remainder by the count of workers says where a key lives.
///
/// Equal in all processes of one cluster; nothing durable depends on it.
pub(crate) fn route(bytes: &[u8]) -> u64 {
    const MULTIPLIER: u64 = 0x9E37_79B9_7F4A_7C15;
    let mix = |hash: u64, word: u64| (hash ^ word).wrapping_mul(MULTIPLIER).rotate_left(29);
    let mut hash = (bytes.len() as u64).wrapping_mul(MULTIPLIER);
    let mut rest = bytes;
    while let Some((word, tail)) = rest.split_first_chunk::<8>() {
        hash = mix(hash, u64::from_le_bytes(*word));
        rest = tail;
    }
    if let Some((word, _)) = rest.split_first_chunk::<4>() {
        hash = mix(hash, u64::from(u32::from_le_bytes(*word)));
        if let Some(last) = rest.last_chunk::<4>() {
            hash = mix(hash, u64::from(u32::from_le_bytes(*last)));
        }
    } else {
        let tail = rest
            .iter()
            .fold(0u64, |tail, byte| tail << 8 | u64::from(*byte));
        hash = mix(hash, tail);
    }
    hash ^= hash >> 32;
    hash = hash.wrapping_mul(MULTIPLIER);
    hash ^ (hash >> 29)
}

/// Arranges rows by key; `partitioned` says that each row is on its key's worker already.
pub(crate) fn arrange_rows<'s>(
    rows: RowStream<'s>,
    partitioned: bool,
    name: &str,
) -> Arranged<'s, RowTrace> {
    let batcher = |_, _| RowBatcher::new();
    if partitioned {
        return arrange_core::<_, _, RowBatcher, RowSpine>(rows, Pipeline, name, batcher);
    }
    let exchange = Exchange::new(|((key, _), _, _): &RowUpdate| route(key));
    arrange_core::<_, _, RowBatcher, RowSpine>(rows, exchange, name, batcher)
}

/// Arranges accumulated diffs by key.
pub(crate) fn arrange_keys<'s, R: State>(
    keys: KeyStream<'s, R>,
    partitioned: bool,
    name: &str,
) -> Arranged<'s, KeyTrace<R>> {
    let batcher = |_, _| KeyBatcher::new();
    if partitioned {
        return arrange_core::<_, _, KeyBatcher<R>, KeySpine<R>>(keys, Pipeline, name, batcher);
    }
    let exchange = Exchange::new(|((key, ()), _, _): &KeyUpdate<R>| route(key));
    arrange_core::<_, _, KeyBatcher<R>, KeySpine<R>>(keys, exchange, name, batcher)
}

/// Estimated heap bytes of an arrangement of rows.
pub(crate) fn row_bytes(spine: &RowSpine) -> usize {
    let mut bytes = 0;
    spine.map_spans(|span| {
        let Some(batch) = &span.inner else { return };
        let (vals, upds) = (&batch.storage.vals, &batch.storage.upds);
        bytes += batch.storage.keys.heap_bytes() + vals.vals.heap_bytes();
        bytes += offsets_bytes(&vals.offs) + offsets_bytes(&upds.offs);
        bytes += upds.times.capacity() * size_of::<Time>();
        bytes += upds.diffs.capacity() * size_of::<Diff>();
    });
    bytes
}

/// Estimated heap bytes of an arrangement of states.
pub(crate) fn key_bytes<R: State>(spine: &KeySpine<R>) -> usize {
    let mut bytes = 0;
    spine.map_spans(|span| {
        let Some(batch) = &span.inner else { return };
        let upds = &batch.storage.upds;
        bytes += batch.storage.keys.heap_bytes() + offsets_bytes(&upds.offs);
        bytes += upds.times.capacity() * size_of::<Time>();
        bytes += upds.diffs.capacity() * size_of::<R>();
    });
    bytes
}

/// How many rows an arrangement holds on this worker; see [`count_rows`].
pub(crate) type RowCount = Rc<Cell<Diff>>;

/// Keeps the sum of all diffs that were sealed: the rows as of the arrangement's upper.
pub(crate) fn count_rows(arranged: &Arranged<'_, RowTrace>) -> RowCount {
    let count = RowCount::default();
    let sum = Rc::clone(&count);
    type Nothing = CapacityContainerBuilder<Vec<()>>;
    let stream = arranged.stream.clone();
    stream.unary::<Nothing, _, _, _>(Pipeline, "CountRows", move |_, _| {
        move |input, _output| {
            input.for_each(|_capability, spans| {
                for batch in spans.drain(..).filter_map(|span| span.inner) {
                    let mut cursor = batch.cursor();
                    while cursor.key_valid(&batch) {
                        while cursor.val_valid(&batch) {
                            cursor.map_times(&batch, |_, diff| sum.set(sum.get() + diff));
                            cursor.step_val(&batch);
                        }
                        cursor.step_key(&batch);
                    }
                }
            });
        }
    });
    count
}

/// Gives an arrangement made in this dataflow the type of an imported one.
pub(crate) fn share(arranged: Arranged<'_, RowTrace>) -> SharedRows<'_> {
    let since = Antichain::from_elem(0);
    let until = Antichain::new();
    let trace = TraceFrontier::make_from(arranged.trace, since.borrow(), until.borrow());
    let stream = arranged.stream.map(move |span| {
        let wrap = |batch| BatchFrontier::make_from(batch, since.borrow(), until.borrow());
        Span::new(span.desc, span.inner.map(wrap))
    });
    Arranged { stream, trace }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_spread_over_workers() {
        for workers in [2u64, 3, 4, 8] {
            let mut counts = vec![0u32; workers as usize];
            for i in 0..8000u64 {
                let key = [&[1u8][..], &i.to_be_bytes()].concat();
                counts[(route(&key) % workers) as usize] += 1;
            }
            let expected = 8000 / workers as u32;
            assert!(
                counts.iter().all(|&c| c.abs_diff(expected) < expected / 5),
                "{counts:?}"
            );
        }
    }

    #[test]
    fn byte_vec_keeps_strings_apart() {
        let mut bytes = ByteVec::default();
        for item in [&b"a"[..], b"", b"long enough"] {
            bytes.push_ref(item);
        }
        assert_eq!(bytes.len(), 3);
        assert_eq!(bytes.index(1), b"");
        assert_eq!(bytes.index(2), b"long enough");
    }
}
