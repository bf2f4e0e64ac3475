//! The keys of a sink: what is to be written, and which rows share a key.
//!
//! Where several rows of a view print the same key, the greatest of them in arranged order is the
//! one that is written. When it goes away the next one takes its place; the key is deleted only
//! with the last.

use std::collections::HashMap;

use redb::backends::InMemoryBackend;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use ruslo_repr::{Diff, Error, Result, RowBytes};

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

/// Counts of rows, by the key that they print and the row.
const ROWS: TableDefinition<'_, (&[u8], &[u8]), Diff> = TableDefinition::new("rows");
/// Bytes of the store that are kept apart to be at hand.
const CACHE_BYTES: usize = 1 << 20;

/// A change of a row that prints a shared key.
pub(super) type KeyChange = (Vec<u8>, RowBytes, Diff);

/// The rows that are there, by the key that they print. They are in an embedded store over one
/// large piece of memory, so they can be in a file as states can.
#[derive(Default)]
pub(super) struct SharedKeys {
    /// Made when there are rows.
    store: Option<Database>,
    bytes: usize,
}

impl SharedKeys {
    /// Takes changes in. Returns the keys that another row stands for now, or none.
    pub(super) fn update(
        &mut self,
        mut changes: Vec<KeyChange>,
    ) -> Result<Vec<(Vec<u8>, Option<RowBytes>)>> {
        if changes.is_empty() {
            return Ok(vec![]);
        }
        changes.sort_unstable();
        let store = match &mut self.store {
            Some(store) => store,
            None => self.store.insert(new_store()?),
        };
        let transaction = kept(store.begin_write())?;
        let mut winners = vec![];
        {
            let mut rows = kept(transaction.open_table(ROWS))?;
            for of_key in changes.chunk_by(|a, b| a.0 == b.0) {
                let key = &of_key[0].0;
                let before = winner(&rows, key)?;
                for (_, row, diff) in of_key {
                    let place = (key.as_slice(), row.as_slice());
                    let count = kept(rows.get(place))?.map_or(0, |count| count.value());
                    if count == 0 {
                        self.bytes += row.len();
                    }
                    if count + diff == 0 {
                        self.bytes -= row.len();
                        kept(rows.remove(place))?;
                    } else {
                        kept(rows.insert(place, count + diff))?;
                    }
                }
                let now = winner(&rows, key)?;
                if now != before {
                    winners.push((key.clone(), now));
                }
            }
        }
        kept(transaction.commit())?;
        Ok(winners)
    }

    /// Whether there is a row of this key.
    pub(super) fn contains(&self, key: &[u8]) -> Result<bool> {
        let Some(store) = &self.store else {
            return Ok(false);
        };
        let transaction = kept(store.begin_read())?;
        let rows = kept(transaction.open_table(ROWS))?;
        Ok(winner(&rows, key)?.is_some())
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

fn new_store() -> Result<Database> {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES);
    kept(builder.create_with_backend(InMemoryBackend::new()))
}

/// The row that stands for a key; None when there is no row of it.
fn winner(
    rows: &impl ReadableTable<(&'static [u8], &'static [u8]), Diff>,
    key: &[u8],
) -> Result<Option<RowBytes>> {
    let next = [key, &[0]].concat();
    let nothing: &[u8] = &[];
    let of_key = kept(rows.range((key, nothing)..(next.as_slice(), nothing)))?;
    for found in of_key.rev() {
        let (place, count) = kept(found)?;
        if count.value() > 0 {
            return Ok(Some(place.value().1.to_vec()));
        }
    }
    Ok(None)
}

/// The store is in memory: that it fails is nobody's fault but ours.
fn kept<T>(result: std::result::Result<T, impl Into<redb::Error>>) -> Result<T> {
    result.map_err(|error| Error::internal(format!("the keys of a sink: {}", error.into())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_greatest_row_of_a_key_stands_for_it() {
        let mut keys = SharedKeys::default();
        let row = |byte: u8| vec![byte];
        let mut update = |changes: &[(u8, Diff)]| {
            let of_key = |key: &[u8]| {
                let changes = changes.iter();
                let changes = changes.map(|&(byte, diff)| (key.to_vec(), row(byte), diff));
                changes.collect::<Vec<_>>()
            };
            // The rows of one key are nothing to others, also not to those it begins with.
            let changes = [of_key(b"k"), of_key(b"kk"), of_key(b"")].concat();
            let winners = keys.update(changes).unwrap();
            let of = |key: &[u8]| winners.iter().find(|(k, _)| k == key).map(|(_, row)| row);
            assert!(of(b"k") == of(b"kk") && of(b"k") == of(b""));
            of(b"k").cloned()
        };
        assert_eq!(update(&[(1, 1), (3, 2), (2, 1)]), Some(Some(row(3))));
        assert_eq!(update(&[(3, -1)]), None, "one of two is left");
        assert_eq!(update(&[(3, -1)]), Some(Some(row(2))));
        assert_eq!(update(&[(2, -1), (4, 1)]), Some(Some(row(4))));
        assert_eq!(update(&[(1, -1)]), None);
        assert_eq!(update(&[(4, -1)]), Some(None));
        assert_eq!(keys.bytes(), 0);
        assert!(!keys.contains(b"k").unwrap());
        keys.update(vec![(b"k".to_vec(), row(1), 1)]).unwrap();
        assert!(keys.contains(b"k").unwrap() && !keys.contains(b"kk").unwrap());
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
