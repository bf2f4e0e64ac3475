//! The keys of a sink: what is to be written, and which rows share a key.
//!
//! Where several rows of a view print the same key, the greatest of them in arranged order is the
//! one that is written. When it goes away the next one takes its place; the key is deleted only
//! with the last.

use std::collections::{BTreeMap, HashMap};

use ruslo_repr::{Diff, RowBytes};

/// The last value of each key that is not written yet; None deletes the key.
#[derive(Default)]
pub(super) struct Dirty {
    keys: HashMap<Vec<u8>, Option<Vec<u8>>>,
    bytes: usize,
}

impl Dirty {
    pub(super) fn insert(&mut self, key: Vec<u8>, value: Option<Vec<u8>>) {
        let value_bytes = size(&value);
        match self.keys.get_mut(&key) {
            Some(old) => {
                self.bytes -= size(old);
                *old = value;
            }
            None => {
                self.bytes += key.len();
                self.keys.insert(key, value);
            }
        }
        self.bytes += value_bytes;
    }

    /// The keys that are to be deleted.
    pub(super) fn deletes(&self) -> impl Iterator<Item = &Vec<u8>> {
        let deleted = self.keys.iter().filter(|(_, value)| value.is_none());
        deleted.map(|(key, _)| key)
    }

    /// Takes out the keys that are to be deleted.
    pub(super) fn take_deletes(&mut self) -> Vec<Vec<u8>> {
        let deleted = self.keys.extract_if(|_, value| value.is_none());
        let deleted: Vec<_> = deleted.map(|(key, _)| key).collect();
        self.bytes -= deleted.iter().map(Vec::len).sum::<usize>();
        deleted
    }

    /// Takes up to `max` keys out.
    pub(super) fn take(&mut self, max: usize) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
        let keys: Vec<Vec<u8>> = self.keys.keys().take(max).cloned().collect();
        let taken = keys
            .into_iter()
            .filter_map(|key| self.keys.remove_entry(&key));
        let taken: Vec<_> = taken.collect();
        let bytes: usize = taken.iter().map(|(k, v)| k.len() + size(v)).sum();
        self.bytes -= bytes;
        taken
    }

    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

fn size(value: &Option<Vec<u8>>) -> usize {
    value.as_ref().map_or(0, Vec::len)
}

/// The rows that are there, by the key that they print.
#[derive(Default)]
pub(super) struct SharedKeys {
    rows: HashMap<Vec<u8>, BTreeMap<RowBytes, Diff>>,
    bytes: usize,
}

impl SharedKeys {
    pub(super) fn update(&mut self, key: &[u8], row: RowBytes, diff: Diff) {
        let rows = self.rows.entry(key.to_vec()).or_default();
        let row_bytes = row.len();
        match rows.get_mut(&row) {
            Some(count) => {
                *count += diff;
                if *count == 0 {
                    rows.remove(&row);
                    self.bytes -= row_bytes;
                }
            }
            None => {
                rows.insert(row, diff);
                self.bytes += row_bytes;
            }
        }
        if rows.is_empty() {
            self.rows.remove(key);
        }
    }

    /// The row that stands for a key; None when there is no row of it.
    pub(super) fn winner(&self, key: &[u8]) -> Option<&RowBytes> {
        let rows = self.rows.get(key)?.iter();
        rows.rev()
            .find(|(_, count)| **count > 0)
            .map(|(row, _)| row)
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_greatest_row_of_a_key_stands_for_it() {
        let mut keys = SharedKeys::default();
        let row = |byte: u8| vec![byte];
        keys.update(b"k", row(1), 1);
        keys.update(b"k", row(3), 2);
        keys.update(b"k", row(2), 1);
        assert_eq!(keys.winner(b"k"), Some(&row(3)));
        keys.update(b"k", row(3), -1);
        assert_eq!(keys.winner(b"k"), Some(&row(3)), "one of two is left");
        keys.update(b"k", row(3), -1);
        assert_eq!(keys.winner(b"k"), Some(&row(2)));
        keys.update(b"k", row(2), -1);
        keys.update(b"k", row(1), -1);
        assert_eq!(keys.winner(b"k"), None);
        assert_eq!((keys.rows.len(), keys.bytes()), (0, 0));
    }

    #[test]
    fn bytes_that_wait_are_counted() {
        let mut dirty = Dirty::default();
        dirty.insert(b"key".to_vec(), Some(b"value".to_vec()));
        dirty.insert(b"key".to_vec(), Some(b"v".to_vec()));
        dirty.insert(b"gone".to_vec(), None);
        assert_eq!((dirty.len(), dirty.bytes()), (2, 8));
        assert_eq!(dirty.take(10).len(), 2);
        assert_eq!((dirty.is_empty(), dirty.bytes()), (true, 0));
    }
}
