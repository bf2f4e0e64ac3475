//! Reads the members of one JSON object into slots, one slot per wanted column.
//!
//! Messages of a topic mostly have the same keys in the same order, so the reader remembers, for
//! each place in an object, the bytes from the key's opening quote to its value and which slots
//! they lead to. A message that repeats those bytes costs one comparison per key: equal bytes
//! parse equally. Any other key takes the long way and is remembered in its place.
//!
//! A key feeds the column of its exact name and, any-case, columns whose names differ from it
//! only in ASCII case. An exact key beats an any-case one; between equals the last wins.

use std::collections::HashMap;

use super::scan::{Invalid, Scanner, Token};

/// Places in an object for which a key is remembered.
const REMEMBERED_MAX: usize = 512;
/// Longest key that is remembered, in bytes with quotes, colon and white space.
const REMEMBERED_KEY_MAX: usize = 256;

/// What a message holds for one column.
#[derive(Clone, Copy)]
pub(super) struct Slot {
    pub(super) value: Token,
    exact: bool,
}

impl Slot {
    /// A column that the message does not name.
    pub(super) const MISSING: Slot = Slot {
        value: Token::NULL,
        exact: false,
    };
}

#[derive(Clone, Copy)]
struct Target {
    slot: usize,
    exact: bool,
}

/// A key as it was met, and where its value goes.
#[derive(Default)]
struct Known {
    /// From the opening quote to the value.
    raw: Vec<u8>,
    targets: Vec<Target>,
}

pub(super) struct ObjectReader {
    names: Vec<String>,
    /// Slots by their names in lower case.
    slots: HashMap<String, Vec<usize>>,
    longest_name: usize,
    /// The keys met last, by their place in the object.
    known: Vec<Known>,
    /// The key at hand when it is not remembered.
    passing: Known,
    scratch: String,
    lower_case: String,
}

impl ObjectReader {
    /// Slot `i` takes the values of `names[i]`.
    pub(super) fn new(names: Vec<String>) -> Self {
        let mut slots: HashMap<String, Vec<usize>> = HashMap::new();
        for (slot, name) in names.iter().enumerate() {
            slots
                .entry(name.to_ascii_lowercase())
                .or_default()
                .push(slot);
        }
        ObjectReader {
            longest_name: names.iter().map(String::len).max().unwrap_or(0),
            names,
            slots,
            known: vec![],
            passing: Known::default(),
            scratch: String::new(),
            lower_case: String::new(),
        }
    }

    /// Reads the object that is next in `scanner`, which walks `source`, into `slots`, one per
    /// name; those that the object does not name keep what they held.
    pub(super) fn read(
        &mut self,
        source: &str,
        scanner: &mut Scanner,
        slots: &mut [Slot],
    ) -> Result<(), Invalid> {
        scanner.open_object()?;
        let mut place = 0;
        while scanner.next_member(place == 0)? {
            let is_known = match self.known.get(place) {
                Some(known) => scanner.take(&known.raw),
                None => false,
            };
            let key = match is_known {
                true => &self.known[place],
                false => self.learn(place, source, scanner)?,
            };
            let value = scanner.value()?;
            for target in &key.targets {
                if let Some(slot) = slots.get_mut(target.slot)
                    && (target.exact || !slot.exact)
                {
                    slot.value = value;
                    slot.exact = target.exact;
                }
            }
            place += 1;
        }
        Ok(())
    }

    /// Reads the key that is next and remembers it for this place, if there is room.
    fn learn(
        &mut self,
        place: usize,
        source: &str,
        scanner: &mut Scanner,
    ) -> Result<&Known, Invalid> {
        let start = scanner.position();
        let key = scanner.key()?;
        let raw = scanner.since(start).as_bytes();
        let fits = place < REMEMBERED_MAX && raw.len() <= REMEMBERED_KEY_MAX;
        if fits && place == self.known.len() {
            self.known.push(Known::default());
        }
        let known = match self.known.get_mut(place) {
            Some(known) if fits => known,
            _ => &mut self.passing,
        };
        known.raw.clear();
        known.raw.extend_from_slice(raw);
        known.targets.clear();
        let name = key.string(source, &mut self.scratch);
        if name.len() > self.longest_name {
            return Ok(known);
        }
        self.lower_case.clear();
        self.lower_case.push_str(name);
        self.lower_case.make_ascii_lowercase();
        let slots = self.slots.get(&self.lower_case).map(Vec::as_slice);
        known
            .targets
            .extend(slots.unwrap_or_default().iter().map(|&slot| Target {
                slot,
                exact: self.names[slot] == name,
            }));
        Ok(known)
    }
}
