//! Sorted inputs in, one sorted output out: diffs added, zeros dropped.
//!
//! ```text
//!   run ──batch──┐
//!   run ──batch──┼── heap by row ── equal rows add up ── picks ──interleave──> batch
//!   memory ──────┘
//! ```
//!
//! Memory is bounded by the inputs' current batches plus one output batch, whatever the size of
//! the collection. Rows are compared by keys made on the spot; see [`crate::order`].

use std::sync::Arc;

use arrow_array::{Array, ArrayRef, Decimal128Array, Int64Array, RecordBatch};
use arrow_schema::SchemaRef;
use arrow_select::interleave::interleave;

use crate::collection::{Collection, SUM_TYPE};
use crate::error::{Error, Result};
use crate::order::{Keys, RowOrder, column, unexpected};
use crate::run::RunReader;

/// Where a merge reads.
pub(crate) enum Source {
    Run(Box<RunReader>),
    /// A batch in order; None once it is taken.
    Memory(Option<RecordBatch>),
}

/// Why a merge ends early.
#[derive(Debug)]
pub(crate) enum Stop {
    Failed(Error),
    /// This source is not in the order of this program.
    Unordered(usize),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Stop {
        Stop::Failed(error)
    }
}

struct Loaded {
    batch: RecordBatch,
    keys: Keys,
    diffs: Int64Array,
    sums: Vec<Decimal128Array>,
    /// Its place among the batches that the output is picked from.
    slot: Option<usize>,
}

struct Cursor {
    source: Source,
    loaded: Option<Loaded>,
    row: usize,
    /// The last key of the batch before.
    last_key: Vec<u8>,
}

impl Cursor {
    fn key(&self) -> &[u8] {
        match &self.loaded {
            Some(loaded) => loaded.keys.row(self.row),
            None => &[],
        }
    }

    /// Goes to the next row; false at the end. `Err(None)` if it is not in order.
    async fn advance(&mut self, order: &RowOrder) -> Result<bool, Option<Error>> {
        if let Some(loaded) = &self.loaded {
            if self.row + 1 < loaded.batch.num_rows() {
                self.row += 1;
                let ordered = loaded.keys.row(self.row - 1) <= loaded.keys.row(self.row);
                return if ordered { Ok(true) } else { Err(None) };
            }
            self.last_key.clear();
            self.last_key.extend(loaded.keys.row(self.row));
        }
        let first = self.loaded.take().is_none();
        let batch = loop {
            let next = match &mut self.source {
                Source::Memory(batch) => batch.take(),
                Source::Run(reader) => reader.next().await.map_err(Some)?,
            };
            match next {
                None => return Ok(false),
                Some(batch) if batch.num_rows() > 0 => break batch,
                Some(_) => {}
            }
        };
        let loaded = Loaded::new(batch, order).map_err(Some)?;
        let ordered = first || self.last_key.as_slice() <= loaded.keys.row(0);
        self.row = 0;
        self.loaded = Some(loaded);
        if ordered { Ok(true) } else { Err(None) }
    }
}

impl Loaded {
    fn new(batch: RecordBatch, order: &RowOrder) -> Result<Loaded> {
        let keys = order.keys(&batch)?;
        let add_up = &batch.columns()[order.columns()..];
        let (diffs, sums) = add_up
            .split_first()
            .ok_or_else(|| Error::InvalidUse("updates lack the column diff".into()))?;
        let diffs = column(diffs, "diff")?;
        let sums = sums.iter().map(|sum| column(sum, "of sums"));
        Ok(Loaded {
            diffs,
            sums: sums.collect::<Result<_>>()?,
            batch,
            keys,
            slot: None,
        })
    }
}

/// How large the batches of the output are at most, about.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BatchSize {
    pub(crate) rows: usize,
    pub(crate) bytes: usize,
}

/// A merge under way.
pub(crate) struct Merge {
    order: RowOrder,
    schema: SchemaRef,
    size: BatchSize,
    cursors: Vec<Cursor>,
    /// Cursors that have a row, the least first.
    heap: Vec<usize>,
    batches: Vec<RecordBatch>,
    picks: Vec<(usize, usize)>,
    diffs: Vec<i64>,
    sums: Vec<Vec<i128>>,
    key_bytes: usize,
}

impl Merge {
    pub(crate) async fn new(
        collection: &Collection,
        sources: Vec<Source>,
        size: BatchSize,
    ) -> Result<Merge, Stop> {
        let cursors = sources.into_iter().map(|source| Cursor {
            source,
            loaded: None,
            row: 0,
            last_key: vec![],
        });
        let mut merge = Merge {
            order: RowOrder::new(&collection.rows)?,
            schema: collection.schema(),
            size,
            cursors: cursors.collect(),
            heap: vec![],
            batches: vec![],
            picks: vec![],
            diffs: vec![],
            sums: vec![vec![]; collection.sums.len()],
            key_bytes: 0,
        };
        for cursor in 0..merge.cursors.len() {
            if merge.advance(cursor).await? {
                merge.heap.push(cursor);
            }
        }
        for place in (0..merge.heap.len() / 2).rev() {
            merge.sift_down(place);
        }
        Ok(merge)
    }

    async fn advance(&mut self, cursor: usize) -> Result<bool, Stop> {
        let advanced = self.cursors[cursor].advance(&self.order).await;
        advanced.map_err(|error| error.map_or(Stop::Unordered(cursor), Stop::Failed))
    }

    fn sift_down(&mut self, mut place: usize) {
        loop {
            let mut least = place;
            for child in [2 * place + 1, 2 * place + 2] {
                let less = child < self.heap.len()
                    && self.cursors[self.heap[child]].key() < self.cursors[self.heap[least]].key();
                if less {
                    least = child;
                }
            }
            if least == place {
                return;
            }
            self.heap.swap(place, least);
            place = least;
        }
    }

    /// The next batch of the output; None at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<RecordBatch>, Stop> {
        let batches_max = 2 * self.cursors.len() + 8;
        let mut key: Vec<u8> = vec![];
        let mut sums = vec![0i128; self.sums.len()];
        while let Some(&top) = self.heap.first() {
            let full = self.picks.len() >= self.size.rows
                || self.key_bytes >= self.size.bytes
                || self.batches.len() >= batches_max;
            if full && !self.picks.is_empty() {
                break;
            }
            key.clear();
            key.extend(self.cursors[top].key());
            let pick = self.pick(top);
            let mut diff = 0i64;
            sums.fill(0);
            while let Some(&top) = self.heap.first() {
                if self.cursors[top].key() != key.as_slice() {
                    break;
                }
                self.add(top, &mut diff, &mut sums);
                if !self.advance(top).await? {
                    self.heap.swap_remove(0);
                }
                self.sift_down(0);
            }
            if diff != 0 || sums.iter().any(|sum| *sum != 0) {
                self.picks.push(pick);
                self.diffs.push(diff);
                for (all, sum) in self.sums.iter_mut().zip(&sums) {
                    all.push(*sum);
                }
                self.key_bytes += key.len() + 8;
            }
        }
        match self.picks.is_empty() {
            true => Ok(None),
            false => Ok(Some(self.flush()?)),
        }
    }

    /// The row at which a cursor stands, as the output finds it.
    fn pick(&mut self, cursor: usize) -> (usize, usize) {
        let cursor = &mut self.cursors[cursor];
        let batches = &mut self.batches;
        let slot = cursor.loaded.as_mut().map_or(0, |loaded| {
            *loaded.slot.get_or_insert_with(|| {
                batches.push(loaded.batch.clone());
                batches.len() - 1
            })
        });
        (slot, cursor.row)
    }

    fn add(&self, cursor: usize, diff: &mut i64, sums: &mut [i128]) {
        let cursor = &self.cursors[cursor];
        let Some(loaded) = &cursor.loaded else { return };
        *diff = diff.wrapping_add(loaded.diffs.value(cursor.row));
        for (sum, column) in sums.iter_mut().zip(&loaded.sums) {
            *sum = sum.wrapping_add(column.value(cursor.row));
        }
    }

    fn flush(&mut self) -> Result<RecordBatch> {
        let mut columns: Vec<ArrayRef> = vec![];
        for column in 0..self.order.columns() {
            let arrays = self.batches.iter().map(|batch| batch.column(column));
            let arrays: Vec<&dyn Array> = arrays.map(|array| array.as_ref()).collect();
            columns.push(interleave(&arrays, &self.picks).map_err(unexpected)?);
        }
        columns.push(Arc::new(Int64Array::from(std::mem::take(&mut self.diffs))));
        for sums in &mut self.sums {
            let sums = Decimal128Array::from(std::mem::take(sums)).with_data_type(SUM_TYPE);
            columns.push(Arc::new(sums));
        }
        self.batches.clear();
        self.picks.clear();
        self.key_bytes = 0;
        for cursor in &mut self.cursors {
            if let Some(loaded) = &mut cursor.loaded {
                loaded.slot = None;
            }
        }
        RecordBatch::try_new(self.schema.clone(), columns).map_err(unexpected)
    }
}

#[cfg(test)]
mod tests;
