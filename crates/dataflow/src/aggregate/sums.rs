//! The diff that carries aggregates which add up.
//!
//! A group's state is its number of rows and a sparse list of numbered integers. All of it adds
//! and cancels exactly, whatever the order: what a sum means is said by [`super::AddUp`].

use differential_dataflow::difference::{IsZero, Semigroup};
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

/// A wide integer under a number; split in two so that it needs no alignment of sixteen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Slot {
    number: u16,
    high: i64,
    low: u64,
}

impl Slot {
    fn new(number: u16, value: i128) -> Slot {
        Slot {
            number,
            high: (value >> 64) as i64,
            low: value as u64,
        }
    }

    fn value(&self) -> i128 {
        (i128::from(self.high) << 64) | i128::from(self.low)
    }
}

/// Row count and slots of one group, or a change of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Sums {
    pub(crate) rows: i64,
    /// Ascending by number, without zeros, so that equal sums are equal values.
    slots: SmallVec<[Slot; 2]>,
}

impl Sums {
    pub(crate) fn of_rows(rows: i64) -> Sums {
        Sums {
            rows,
            slots: SmallVec::new(),
        }
    }

    pub(crate) fn get(&self, number: u16) -> i128 {
        let slot = self.slots.iter().find(|slot| slot.number == number);
        slot.map_or(0, Slot::value)
    }

    /// Adds to one slot. Sums wrap at 128 bits, which no count of 64-bit values reaches.
    pub(crate) fn add(&mut self, number: u16, value: i128) {
        if value == 0 {
            return;
        }
        let mut place = 0;
        while place < self.slots.len() && self.slots[place].number < number {
            place += 1;
        }
        match self.slots.get_mut(place) {
            Some(slot) if slot.number == number => {
                let sum = slot.value().wrapping_add(value);
                if sum == 0 {
                    self.slots.remove(place);
                } else {
                    *slot = Slot::new(number, sum);
                }
            }
            _ => self.slots.insert(place, Slot::new(number, value)),
        }
    }

    /// The slots numbered from `first` to before `end`, as (number, value).
    pub(crate) fn range(&self, first: u16, end: u16) -> impl Iterator<Item = (u16, i128)> + '_ {
        let slots = self.slots.iter();
        let slots = slots.filter(move |slot| (first..end).contains(&slot.number));
        slots.map(|slot| (slot.number, slot.value()))
    }
}

impl IsZero for Sums {
    fn is_zero(&self) -> bool {
        self.rows == 0 && self.slots.is_empty()
    }
}

impl Semigroup for Sums {
    fn plus_equals(&mut self, other: &Sums) {
        self.rows = self.rows.wrapping_add(other.rows);
        for slot in &other.slots {
            self.add(slot.number, slot.value());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_added_can_be_taken_away() {
        let mut sums = Sums::of_rows(1);
        sums.add(7, -5);
        sums.add(2, i128::from(i64::MAX) * 4);
        let mut inverse = Sums::of_rows(-1);
        inverse.add(2, i128::from(i64::MAX) * -4);
        inverse.add(7, 5);
        assert_eq!(sums.get(7), -5);
        assert_eq!(
            sums.range(0, 5).collect::<Vec<_>>(),
            [(2, i128::from(i64::MAX) * 4)]
        );
        sums.plus_equals(&inverse);
        assert!(sums.is_zero());
    }
}
