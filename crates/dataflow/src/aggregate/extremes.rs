//! min and max as a diff, for input that only ever grows.
//!
//! Where no row is ever taken away, the smallest and largest value of two parts are those of the
//! whole: one value per group is all that must be kept, instead of all of them. Encoded values
//! sort as their bytes do.

use differential_dataflow::difference::{IsZero, Semigroup};
use serde::{Deserialize, Serialize};

/// Row count and extreme values of one group.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Extremes {
    pub(crate) rows: i64,
    /// Encoded; `None` when all values so far were NULL.
    pub(crate) least: Option<Box<[u8]>>,
    pub(crate) greatest: Option<Box<[u8]>>,
}

impl Extremes {
    /// Takes in an encoded value that is not NULL.
    pub(crate) fn add(&mut self, value: &[u8]) {
        if self.least.as_deref().is_none_or(|least| value < least) {
            self.least = Some(value.into());
        }
        if self
            .greatest
            .as_deref()
            .is_none_or(|greatest| value > greatest)
        {
            self.greatest = Some(value.into());
        }
    }
}

impl IsZero for Extremes {
    fn is_zero(&self) -> bool {
        self.rows == 0
    }
}

impl Semigroup for Extremes {
    fn plus_equals(&mut self, other: &Extremes) {
        self.rows += other.rows;
        for value in [&other.least, &other.greatest].into_iter().flatten() {
            self.add(value);
        }
    }
}
