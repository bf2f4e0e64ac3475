//! Messages and fields that could not be decoded, kept where the user can query them.
//!
//! A failure is counted once however often its message is read: two views read the same topic,
//! and a view created later reads its past again. So per column and partition the store knows
//! which offsets it has seen decoded; only failures outside of those are new.
//!
//! ```text
//!   column `age`, partition 0:   [0 ......... 500)            [900 .... 1200)   covered
//!   a batch decodes [400, 950)       ^^^^ known  ^^^^^^^ new  ^^^ known
//! ```

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;
use ruslo_format::DecodeError;
use serde::{Deserialize, Serialize};

/// Rows kept per source for reading; counts go on beyond.
const ROWS_KEPT_MAX: usize = 10_000;
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// Offsets from (inclusive) and to (exclusive), disjoint and ascending.
type Ranges = Vec<(i64, i64)>;

/// One kept failure.
#[derive(Clone, Debug)]
pub(crate) struct BadRow {
    pub(crate) error: DecodeError,
    pub(crate) time: SystemTime,
}

/// Which offsets of a partition were decoded, for one column or (None) as whole messages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Covered {
    column: Option<usize>,
    partition: i32,
    ranges: Ranges,
}

/// What changed since it was last saved, and what stands.
pub(crate) struct Saved {
    pub(crate) come: Vec<BadRow>,
    pub(crate) gone: Vec<BadRow>,
    pub(crate) count: u64,
    pub(crate) covered: Vec<Covered>,
}

/// The failures of one source.
pub(crate) struct BadData {
    source: String,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    rows: VecDeque<BadRow>,
    /// How many of the first rows were saved, and which saved ones have gone since.
    saved: usize,
    gone: Vec<BadRow>,
    count: u64,
    /// By (column, partition): offsets decoded so far. Column None stands for whole messages.
    covered: BTreeMap<(Option<usize>, i32), Ranges>,
    logged: Option<Instant>,
    unlogged: u64,
}

impl BadData {
    pub(crate) fn new(source: &str) -> BadData {
        BadData {
            source: source.to_string(),
            inner: Mutex::default(),
        }
    }

    /// Takes in what decoding `columns` of the offsets `read` (partition, from, to) gave.
    pub(crate) fn record(
        &self,
        columns: &[usize],
        read: &[(i32, i64, i64)],
        errors: Vec<DecodeError>,
    ) {
        let mut inner = self.inner.lock();
        let new: Vec<DecodeError> = errors
            .into_iter()
            .filter(|error| !inner.is_covered(error))
            .collect();
        for &(partition, from, to) in read {
            inner.cover((None, partition), from, to);
            for &column in columns {
                inner.cover((Some(column), partition), from, to);
            }
        }
        if new.is_empty() {
            return;
        }
        inner.count += new.len() as u64;
        inner.log(&self.source, &new);
        let time = SystemTime::now();
        for error in new {
            if inner.rows.len() == ROWS_KEPT_MAX {
                inner.forget_first();
            }
            inner.rows.push_back(BadRow { error, time });
        }
    }

    pub(crate) fn count(&self) -> u64 {
        self.inner.lock().count
    }

    /// What is to be made durable, which then counts as saved.
    pub(crate) fn save(&self) -> Saved {
        let mut inner = self.inner.lock();
        let come = inner.rows.iter().skip(inner.saved).cloned().collect();
        inner.saved = inner.rows.len();
        let covered = inner.covered.iter();
        let covered = covered.map(|(&(column, partition), ranges)| Covered {
            column,
            partition,
            ranges: ranges.clone(),
        });
        Saved {
            come,
            covered: covered.collect(),
            count: inner.count,
            gone: std::mem::take(&mut inner.gone),
        }
    }

    /// Takes in what was saved before a restart.
    pub(crate) fn restore(&self, mut rows: Vec<BadRow>, count: u64, covered: Vec<Covered>) {
        rows.sort_by_key(|row| (row.time, row.error.partition, row.error.offset));
        let mut inner = self.inner.lock();
        inner.saved = rows.len();
        inner.rows = rows.into();
        inner.count = count;
        let covered = covered.into_iter();
        inner.covered = covered
            .map(|c| ((c.column, c.partition), c.ranges))
            .collect();
    }

    /// The newest failures, oldest of them first.
    pub(crate) fn rows(&self) -> Vec<BadRow> {
        self.inner.lock().rows.iter().cloned().collect()
    }
}

impl Inner {
    fn forget_first(&mut self) {
        let first = self.rows.pop_front();
        if self.saved > 0 {
            self.saved -= 1;
            self.gone.extend(first);
        }
    }

    fn is_covered(&self, error: &DecodeError) -> bool {
        let ranges = self.covered.get(&(error.column, error.partition));
        ranges.is_some_and(|ranges| {
            ranges
                .iter()
                .any(|&(from, to)| (from..to).contains(&error.offset))
        })
    }

    fn cover(&mut self, key: (Option<usize>, i32), from: i64, to: i64) {
        let ranges = self.covered.entry(key).or_default();
        // Nearly always the last range simply grows.
        if let Some(last) = ranges.last_mut()
            && last.0 <= from
            && from <= last.1
        {
            last.1 = last.1.max(to);
            return;
        }
        ranges.push((from, to));
        ranges.sort_unstable();
        let mut merged: Vec<(i64, i64)> = Vec::with_capacity(ranges.len());
        for &(from, to) in ranges.iter() {
            match merged.last_mut() {
                Some(last) if from <= last.1 => last.1 = last.1.max(to),
                _ => merged.push((from, to)),
            }
        }
        *ranges = merged;
    }

    fn log(&mut self, source: &str, new: &[DecodeError]) {
        self.unlogged += new.len() as u64;
        let due = self.logged.is_none_or(|at| at.elapsed() >= LOG_INTERVAL);
        if let (true, Some(first)) = (due, new.first()) {
            tracing::warn!(
                source,
                errors = self.unlogged,
                partition = first.partition,
                offset = first.offset,
                reason = first.reason,
                "messages could not be decoded; see ruslo.decode_errors"
            );
            self.logged = Some(Instant::now());
            self.unlogged = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(column: Option<usize>, offset: i64) -> DecodeError {
        DecodeError {
            partition: 0,
            offset,
            element: None,
            column,
            reason: "not an integer".into(),
            payload: b"{}".as_slice().into(),
            payload_bytes: 2,
        }
    }

    #[test]
    fn a_message_read_twice_is_counted_once() {
        let bad = BadData::new("s");
        bad.record(
            &[1],
            &[(0, 10, 20)],
            vec![error(Some(1), 12), error(None, 13)],
        );
        bad.record(
            &[1],
            &[(0, 0, 15)],
            vec![error(Some(1), 3), error(Some(1), 12), error(None, 13)],
        );
        assert_eq!(bad.count(), 3);
        bad.record(
            &[1, 2],
            &[(0, 0, 20)],
            vec![error(Some(2), 3), error(Some(1), 3)],
        );
        assert_eq!(bad.count(), 4);
        bad.record(&[1], &[(0, 20, 30)], vec![error(Some(1), 29)]);
        assert_eq!(bad.count(), 5);
    }

    #[test]
    fn what_was_saved_is_known_after_a_restart() {
        let bad = BadData::new("s");
        bad.record(&[1], &[(0, 0, 20)], vec![error(Some(1), 3)]);
        let first = bad.save();
        assert_eq!((first.come.len(), first.gone.len(), first.count), (1, 0, 1));
        bad.record(&[1], &[(0, 20, 30)], vec![error(Some(1), 25)]);
        assert_eq!(bad.save().come.len(), 1);
        assert!(bad.save().come.is_empty());
        let again = BadData::new("s");
        again.restore(first.come, first.count, first.covered);
        // What comes after the checkpoint is read again; what was before it is not counted twice.
        again.record(
            &[1],
            &[(0, 0, 30)],
            vec![error(Some(1), 3), error(Some(1), 25)],
        );
        assert_eq!(again.count(), 2);
        let saved = again.save();
        assert_eq!((saved.come.len(), saved.come[0].error.offset), (1, 25));
    }
}
