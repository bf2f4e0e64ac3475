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

/// Rows kept per source for reading; counts go on beyond.
const ROWS_KEPT_MAX: usize = 10_000;
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// Offsets from (inclusive) and to (exclusive), disjoint and ascending.
type Ranges = Vec<(i64, i64)>;

/// One kept failure.
#[derive(Clone)]
pub(crate) struct BadRow {
    pub(crate) error: DecodeError,
    pub(crate) time: SystemTime,
}

/// The failures of one source.
pub(crate) struct BadData {
    source: String,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    rows: VecDeque<BadRow>,
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
                inner.rows.pop_front();
            }
            inner.rows.push_back(BadRow { error, time });
        }
    }

    pub(crate) fn count(&self) -> u64 {
        self.inner.lock().count
    }

    /// The newest failures, oldest of them first.
    pub(crate) fn rows(&self) -> Vec<BadRow> {
        self.inner.lock().rows.iter().cloned().collect()
    }
}

impl Inner {
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
}
