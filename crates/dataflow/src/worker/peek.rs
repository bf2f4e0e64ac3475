//! Reads of an arrangement, a slice of work at a time.

use differential_dataflow::trace::cursor::CursorList;
use differential_dataflow::trace::{Cursor, Navigable, TraceReader};
use ruslo_repr::{CountedRows, RowBytes, Time};
use timely::progress::Antichain;

use crate::protocol::{Place, Portion};
use crate::spine::{RowBatch, RowTrace};

/// Rows looked at before a worker turns to other work.
const SLICE_ROWS: usize = 20_000;

type RowCursor = CursorList<<RowBatch as Navigable>::Cursor>;

/// A peek as it was asked for.
pub(crate) struct PeekRequest {
    pub(crate) request: u64,
    pub(crate) time: Time,
    pub(crate) keys: Option<Vec<RowBytes>>,
    pub(crate) limit: Option<usize>,
    pub(crate) portion: Option<Portion>,
}

/// What a peek found, and the last row where there are more.
#[derive(Default)]
pub(crate) struct Found {
    pub(crate) rows: CountedRows,
    pub(crate) left_off: Option<Place>,
}

/// A peek whose trace is through its time: walks the batches of that moment.
pub(crate) struct Walk {
    pub(crate) request: u64,
    time: Time,
    /// Keys still to be looked up, last first.
    keys: Option<Vec<RowBytes>>,
    /// Whether the cursor stands in the middle of a key's values; seeking would go back.
    in_key: bool,
    limit: usize,
    bytes: usize,
    cursor: RowCursor,
    storage: Vec<RowBatch>,
    found: Found,
}

impl Walk {
    /// `None` if the trace's batches cannot be had, which no compaction we allow leads to.
    pub(crate) fn new(peek: PeekRequest, trace: &mut RowTrace) -> Option<Walk> {
        let storage = trace.batches_through(Antichain::new().borrow())?;
        let keys = peek.keys.map(|mut keys| {
            keys.sort();
            keys.dedup();
            keys.reverse();
            keys
        });
        let (after, bytes) = match peek.portion {
            Some(portion) => (portion.after, portion.bytes),
            None => (None, usize::MAX),
        };
        let cursor = cursors_beyond(&storage, after.as_ref());
        Some(Walk {
            request: peek.request,
            time: peek.time,
            keys,
            in_key: false,
            limit: peek.limit.unwrap_or(usize::MAX),
            bytes,
            cursor,
            storage,
            found: Found::default(),
        })
    }

    /// Does one slice of work; what was found when all is done.
    pub(crate) fn step(&mut self) -> Option<Found> {
        let mut budget = SLICE_ROWS;
        while budget > 0 {
            if self.is_full() || !self.seek() {
                return Some(std::mem::take(&mut self.found));
            }
            self.read_values(&mut budget);
        }
        None
    }

    fn is_full(&self) -> bool {
        self.found.rows.len() >= self.limit || self.found.left_off.is_some()
    }

    /// Moves to the next key that was asked for; false when there is none.
    fn seek(&mut self) -> bool {
        if self.in_key {
            return true;
        }
        let Some(keys) = &mut self.keys else {
            return self.cursor.key_valid(&self.storage);
        };
        while let Some(key) = keys.last() {
            self.cursor.seek_key(&self.storage, key);
            if self.cursor.get_key(&self.storage) == Some(key) {
                return true;
            }
            keys.pop();
        }
        false
    }

    /// Reads values of the current key; steps past it when they are all read.
    fn read_values(&mut self, budget: &mut usize) {
        let Some(key) = self.cursor.get_key(&self.storage) else {
            return;
        };
        self.in_key = true;
        while let Some(value) = self.cursor.get_val(&self.storage) {
            if *budget == 0 || self.is_full() {
                return;
            }
            *budget -= 1;
            let (mut count, until) = (0, self.time);
            self.cursor.map_times(&self.storage, |time, diff| {
                if *time <= until {
                    count += diff;
                }
            });
            if count != 0 {
                let rows = &mut self.found.rows;
                rows.push(key, value, count);
                if rows.bytes() >= self.bytes {
                    let (key, value) = (key.to_vec(), value.to_vec());
                    self.found.left_off = Some(Place { key, value });
                }
            }
            self.cursor.step_val(&self.storage);
        }
        *budget = budget.saturating_sub(1);
        self.cursor.step_key(&self.storage);
        self.in_key = false;
        if let Some(keys) = &mut self.keys {
            keys.pop();
        }
    }
}

/// Cursors of the batches, at their first rows beyond `after`.
///
/// A list's own seek moves cursors that stand at other keys as well, so each one seeks alone.
fn cursors_beyond(batches: &[RowBatch], after: Option<&Place>) -> RowCursor {
    let cursors = batches.iter().map(|batch| {
        let mut cursor = batch.cursor();
        let Some(Place { key, value }) = after else {
            return cursor;
        };
        cursor.seek_key(batch, key);
        if cursor.get_key(batch) == Some(key) {
            cursor.seek_val(batch, value);
            if cursor.get_val(batch) == Some(value) {
                cursor.step_val(batch);
            }
        }
        cursor
    });
    CursorList::new(cursors.collect(), batches)
}
