//! Reads of an arrangement, a slice of work at a time.

use differential_dataflow::trace::cursor::{CursorList, cursor_list};
use differential_dataflow::trace::{Cursor, Navigable, TraceReader};
use ruslo_repr::{CountedRows, RowBytes, Time};
use timely::progress::Antichain;

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
    cursor: RowCursor,
    storage: Vec<RowBatch>,
    rows: CountedRows,
}

impl Walk {
    /// `None` if the trace's batches cannot be had, which no compaction we allow leads to.
    pub(crate) fn new(peek: PeekRequest, trace: &mut RowTrace) -> Option<Walk> {
        let batches = trace.batches_through(Antichain::new().borrow())?;
        let (cursor, storage) = cursor_list(batches);
        let keys = peek.keys.map(|mut keys| {
            keys.sort();
            keys.dedup();
            keys.reverse();
            keys
        });
        Some(Walk {
            request: peek.request,
            time: peek.time,
            keys,
            in_key: false,
            limit: peek.limit.unwrap_or(usize::MAX),
            cursor,
            storage,
            rows: CountedRows::default(),
        })
    }

    /// Does one slice of work; the rows when all is done.
    pub(crate) fn step(&mut self) -> Option<CountedRows> {
        let mut budget = SLICE_ROWS;
        while budget > 0 {
            if self.rows.len() >= self.limit || !self.seek() {
                return Some(std::mem::take(&mut self.rows));
            }
            self.read_values(&mut budget);
        }
        None
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
            if *budget == 0 || self.rows.len() >= self.limit {
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
                self.rows.push(key, value, count);
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
