//! Collects updates until their times are closed, and seals them as batches.
//!
//! Updates of one time are sorted a chunk at a time and laid out as small batches, which are merged
//! like those of a spine: each at least twice the next. So what waits for its time to close, such
//! as a view's whole past, lies in few large allocations, and closing a time merges what is sorted.
//!
//! ```text
//!   time ─> unsorted ──(FRESH_…)──> run, run, run   (descending sizes)
//!                                      └── merged when the time is closed ──> batch
//! ```

use std::collections::BTreeMap;
use std::mem;

use differential_dataflow::batcher::{Batcher, Extract};
use differential_dataflow::consolidation::consolidate_updates;
use differential_dataflow::difference::Semigroup;
use differential_dataflow::trace::Builder;
use differential_dataflow::trace::implementations::spine_fueled::{Merger, SpineBatch};
use ruslo_repr::Time;
use timely::progress::Antichain;
use timely::progress::frontier::AntichainRef;

/// Updates of a time that are kept unsorted, and the bytes of their keys and values.
const FRESH_MAX: usize = 16 * 1024;
const FRESH_BYTES_MAX: usize = 2 << 20;

/// What has bytes of its own.
pub(crate) trait Bytes {
    fn bytes(&self) -> usize;
}

impl Bytes for (Vec<u8>, Vec<u8>) {
    fn bytes(&self) -> usize {
        self.0.len() + self.1.len()
    }
}

impl Bytes for (Vec<u8>, ()) {
    fn bytes(&self) -> usize {
        self.0.len()
    }
}

/// A batcher of updates `(D, Time, R)`, whose batches `B` builds.
pub(crate) struct RunBatcher<D, R, B: Builder> {
    /// What arrived, by time.
    open: BTreeMap<Time, Open<D, R, B::Output>>,
    /// The first open time.
    lower: Antichain<Time>,
    /// An emptied buffer, kept for its memory.
    spare: Vec<(D, Time, R)>,
}

/// The updates of one time.
struct Open<D, R, O> {
    fresh: Vec<(D, Time, R)>,
    fresh_bytes: usize,
    runs: Runs<O>,
}

/// Batches of descending sizes.
struct Runs<O>(Vec<O>);

impl<D, R, B: Builder> RunBatcher<D, R, B> {
    pub(crate) fn new() -> Self {
        RunBatcher {
            open: BTreeMap::new(),
            lower: Antichain::new(),
            spare: vec![],
        }
    }
}

impl<D, R, B> Batcher<Vec<(D, Time, R)>> for RunBatcher<D, R, B>
where
    D: Ord + Clone + Bytes,
    R: Semigroup + Ord,
    B: Builder<Input = Vec<(D, Time, R)>, Output: SpineBatch<Time = Time>>,
{
    fn insert(&mut self, container: &mut Vec<(D, Time, R)>) {
        let mut updates = container.drain(..).peekable();
        while let Some(&(_, time, _)) = updates.peek() {
            let spare = &mut self.spare;
            let open = self.open.entry(time).or_insert_with(|| Open {
                fresh: mem::take(spare),
                fresh_bytes: 0,
                runs: Runs(vec![]),
            });
            while let Some(update) = updates.next_if(|update| update.1 == time) {
                open.fresh_bytes += update.0.bytes();
                open.fresh.push(update);
                if open.fresh.len() >= FRESH_MAX || open.fresh_bytes >= FRESH_BYTES_MAX {
                    open.fresh_bytes = 0;
                    if let Some(run) = sorted::<D, R, B>(&mut open.fresh) {
                        open.runs.add(run);
                    }
                }
            }
        }
    }
}

impl<D, R, B> Extract for RunBatcher<D, R, B>
where
    D: Ord + Clone,
    R: Semigroup + Ord,
    B: Builder<Input = Vec<(D, Time, R)>, Output: SpineBatch<Time = Time>>,
{
    type Time = Time;
    type Output = B::Output;

    fn extract<'a>(
        &'a mut self,
        upper: AntichainRef<'_, Time>,
    ) -> (Option<B::Output>, AntichainRef<'a, Time>) {
        let later = match upper.first() {
            Some(upper) => self.open.split_off(upper),
            None => BTreeMap::new(),
        };
        let mut fresh = mem::take(&mut self.spare);
        let mut runs = Runs(vec![]);
        for (_, mut open) in mem::replace(&mut self.open, later) {
            fresh.append(&mut open.fresh);
            open.runs.0.into_iter().for_each(|run| runs.add(run));
        }
        if let Some(run) = sorted::<D, R, B>(&mut fresh) {
            runs.add(run);
        }
        if fresh.capacity() <= FRESH_MAX {
            self.spare = fresh;
        }
        self.lower.clear();
        self.lower.extend(self.open.keys().next().copied());
        (runs.merged(), self.lower.borrow())
    }
}

/// The updates as a batch, if they do not cancel; the buffer is left empty.
fn sorted<D, R, B>(updates: &mut Vec<(D, Time, R)>) -> Option<B::Output>
where
    D: Ord + Clone,
    R: Semigroup + Ord,
    B: Builder<Input = Vec<(D, Time, R)>>,
{
    consolidate_updates(updates);
    let mut builder = B::default();
    builder.push(updates);
    updates.clear();
    builder.done()
}

impl<O: SpineBatch<Time = Time>> Runs<O> {
    /// Adds a run, and merges those that are less than twice the next.
    fn add(&mut self, run: O) {
        let place = self.0.partition_point(|known| known.len() > run.len());
        self.0.insert(place, run);
        while let [.., larger, smaller] = self.0.as_slice()
            && larger.len() < 2 * smaller.len()
        {
            self.merge_last();
        }
    }

    fn merged(mut self) -> Option<O> {
        while self.0.len() > 1 {
            self.merge_last();
        }
        self.0.pop()
    }

    /// Merges the last two; what cancels leaves nothing.
    fn merge_last(&mut self) {
        let (Some(one), Some(other)) = (self.0.pop(), self.0.pop()) else {
            return;
        };
        let every_time = Antichain::from_elem(0);
        let mut merger = O::Merger::new(&other, &one, every_time.borrow());
        let mut fuel = isize::MAX;
        merger.work(&other, &one, &mut fuel);
        self.0.extend(merger.done());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spine::{RowBuilder, RowUpdate};
    use differential_dataflow::trace::{Cursor, Navigable};
    use ruslo_repr::Diff;

    type Rows = RunBatcher<(Vec<u8>, Vec<u8>), Diff, RowBuilder>;

    fn update(number: u64, time: Time, diff: Diff) -> RowUpdate {
        let value = (number % 3).to_be_bytes().to_vec();
        ((number.to_be_bytes().to_vec(), value), time, diff)
    }

    fn extract(batcher: &mut Rows, upper: &[Time]) -> (Vec<RowUpdate>, Vec<Time>) {
        let upper: Antichain<Time> = upper.iter().copied().collect();
        let (batch, lower) = batcher.extract(upper.borrow());
        let lower = lower.to_vec();
        let mut updates = vec![];
        if let Some(batch) = batch {
            let mut cursor = batch.cursor();
            while cursor.key_valid(&batch) {
                while cursor.val_valid(&batch) {
                    let (key, value) = (cursor.key(&batch).to_vec(), cursor.val(&batch).to_vec());
                    cursor.map_times(&batch, |time, diff| {
                        updates.push(((key.clone(), value.clone()), *time, *diff));
                    });
                    cursor.step_val(&batch);
                }
                cursor.step_key(&batch);
            }
        }
        (updates, lower)
    }

    /// Many more updates than are kept unsorted, of three times, in no order; half cancel.
    #[test]
    fn batches_hold_what_was_inserted_and_is_closed() {
        let total = 7 * FRESH_MAX as u64;
        let mut batcher = Rows::new();
        let mut expected = vec![];
        let mut container = vec![];
        for i in 0..total {
            let number = i.wrapping_mul(0x9E37_79B9_7F4A_7C15) % total;
            let time = 10 + 10 * (i % 3);
            container.push(update(number, time, 1));
            match number % 2 {
                0 => container.push(update(number, time, -1)),
                _ => expected.push(update(number, time, 1)),
            }
            if container.len() >= 1000 {
                batcher.insert(&mut container);
                assert!(container.is_empty());
            }
        }
        batcher.insert(&mut container);
        consolidate_updates(&mut expected);
        let of = |times: &[Time]| -> Vec<RowUpdate> {
            let updates = expected.iter().filter(|update| times.contains(&update.1));
            updates.cloned().collect()
        };
        assert_eq!(extract(&mut batcher, &[10]), (vec![], vec![10]));
        assert_eq!(extract(&mut batcher, &[21]), (of(&[10, 20]), vec![30]));
        batcher.insert(&mut vec![update(1, 25, 1), update(1, 25, -1)]);
        assert_eq!(extract(&mut batcher, &[30]), (vec![], vec![30]));
        assert_eq!(extract(&mut batcher, &[]), (of(&[30]), vec![]));
    }

    #[test]
    fn runs_stay_few() {
        let mut batcher = Rows::new();
        for chunk in 0..40u64 {
            let numbers = chunk * FRESH_MAX as u64..(chunk + 1) * FRESH_MAX as u64;
            let mut updates: Vec<_> = numbers.map(|number| update(number, 5, 1)).collect();
            batcher.insert(&mut updates);
            assert!(batcher.open[&5].runs.0.len() <= 6);
        }
    }
}
