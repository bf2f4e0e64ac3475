//! Numbers for byte strings, given in the order of their first appearance.
//!
//! A hash table for some batches of rows: strings lie one after the other in one buffer, so a new
//! one costs no allocation, and a batch of them can become an Arrow array as it is.

use crate::spine::route;

const TABLE_MIN: usize = 1024;

#[derive(Default)]
pub(crate) struct Interner {
    /// Number + 1 of the string at each place; a power of two long, at most half full.
    table: Vec<u32>,
    hashes: Vec<u64>,
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Interner {
    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    /// Bytes of the strings and the table.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.bytes.len() + self.len() * 16 + self.table.len() * 4
    }

    /// The string of a number that was given.
    pub(crate) fn get(&self, number: usize) -> &[u8] {
        let start = if number == 0 {
            0
        } else {
            self.ends[number - 1]
        };
        &self.bytes[start..self.ends[number]]
    }

    /// The number of a string, which is the next one if it is new.
    #[inline]
    pub(crate) fn intern(&mut self, string: &[u8]) -> u32 {
        if self.len() * 2 >= self.table.len() {
            self.grow();
        }
        let hash = route(string);
        let mask = self.table.len() - 1;
        let mut place = hash as usize & mask;
        loop {
            match self.table[place] {
                0 => break,
                entry => {
                    let number = entry as usize - 1;
                    if self.hashes[number] == hash && self.get(number) == string {
                        return number as u32;
                    }
                }
            }
            place = (place + 1) & mask;
        }
        self.table[place] = self.len() as u32 + 1;
        self.push(string, hash)
    }

    /// Gives out a number that no string finds.
    pub(crate) fn reserve(&mut self) -> u32 {
        self.push(&[], 0)
    }

    fn push(&mut self, string: &[u8], hash: u64) -> u32 {
        self.bytes.extend_from_slice(string);
        self.ends.push(self.bytes.len());
        self.hashes.push(hash);
        self.len() as u32 - 1
    }

    fn grow(&mut self) {
        let mut larger = vec![0; (self.table.len() * 2).max(TABLE_MIN)];
        let mask = larger.len() - 1;
        for entry in self.table.drain(..).filter(|entry| *entry != 0) {
            let mut place = self.hashes[entry as usize - 1] as usize & mask;
            while larger[place] != 0 {
                place = (place + 1) & mask;
            }
            larger[place] = entry;
        }
        self.table = larger;
    }

    /// Forgets all strings. Memory is kept, but not for much larger batches than the last.
    pub(crate) fn clear(&mut self) {
        let needed = (self.len() * 2).next_power_of_two().max(TABLE_MIN);
        self.table.truncate(needed);
        self.table.fill(0);
        self.hashes.clear();
        self.bytes.clear();
        self.ends.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_strings_have_one_number() {
        let mut interner = Interner::default();
        for round in 0..3 {
            let strings: Vec<String> = (0..5000).map(|i| format!("{round}-{i}")).collect();
            for (i, string) in strings.iter().enumerate() {
                assert_eq!(interner.intern(string.as_bytes()), i as u32);
            }
            let reserved = interner.reserve();
            assert_eq!(interner.intern(b""), reserved + 1);
            for (i, string) in strings.iter().enumerate() {
                assert_eq!(interner.intern(string.as_bytes()), i as u32);
                assert_eq!(interner.get(i), string.as_bytes());
            }
            interner.clear();
            assert_eq!(interner.len(), 0);
        }
    }
}
