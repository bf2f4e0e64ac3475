//! From the state of groups to the columns of results.
//!
//! A sum over no non-NULL row is NULL. A result that its type cannot hold is NULL too, and is
//! reported as a [`Failure`] so that it is never silently wrong.

use std::sync::Arc;

use arrow::array::{ArrayRef, FixedSizeBinaryBuilder, Float32Array, Float64Array, Int64Array};
use arrow::datatypes::DataType;
use ruslo_repr::numeric::quotient;
use ruslo_repr::schema::NUMERIC;
use ruslo_repr::{AggregateFunction, Error, Numeric, Result};
use rust_decimal::Decimal;

use super::{
    AddUp, BINS, FLOAT_SPECIAL, FRACTION, INFINITY, INTEGER, Kind, NAN, NEG_INFINITY, NON_NULL,
    NUMERIC_SPECIAL, Output, SCALES, Sums, float, numeric,
};

const BIGINT_OVERFLOW: &str = "bigint out of range";
const NUMERIC_OVERFLOW: &str = "value overflows numeric format";

/// An aggregate of one group that could not be computed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// The position of the group among those that were finished.
    pub(crate) group: usize,
    pub(crate) expression: String,
    pub(crate) message: String,
}

impl AddUp {
    /// One column per aggregate, a row per state. States count `base` rows that do not exist.
    pub(crate) fn finish(
        &self,
        states: &[&Sums],
        base: i64,
    ) -> Result<(Vec<ArrayRef>, Vec<Failure>)> {
        let mut failures = vec![];
        let columns = self.outputs.iter().map(|output| {
            let mut messages = vec![None; states.len()];
            let column = output.column(states, base, &mut messages)?;
            for (group, message) in messages.into_iter().enumerate() {
                failures.extend(message.map(|message: &str| Failure {
                    group,
                    expression: output.text.clone(),
                    message: message.to_string(),
                }));
            }
            Ok(column)
        });
        let columns = columns.collect::<Result<_>>()?;
        Ok((columns, failures))
    }
}

/// A result, NULL, or why there is none.
type Outcome<T> = std::result::Result<Option<T>, &'static str>;

impl Output {
    fn column(
        &self,
        states: &[&Sums],
        base: i64,
        messages: &mut [Option<&'static str>],
    ) -> Result<ArrayRef> {
        let Some((kind, slot)) = self.accumulator else {
            let counts = states.iter().map(|state| state.rows - base);
            return Ok(Arc::new(Int64Array::from_iter_values(counts)));
        };
        if self.function == AggregateFunction::Count {
            let counts = states.iter().map(|state| state.get(slot + NON_NULL) as i64);
            return Ok(Arc::new(Int64Array::from_iter_values(counts)));
        }
        let mut note = |group: usize, message| messages[group] = Some(message);
        match (&self.ty, kind) {
            (DataType::Int64, Kind::Integer) => {
                let sums = states.iter().enumerate().map(|(group, state)| {
                    integer_sum(state, slot).unwrap_or_else(|message| {
                        note(group, message);
                        None
                    })
                });
                Ok(Arc::new(Int64Array::from_iter(sums)))
            }
            (ty, Kind::Integer | Kind::Numeric) if *ty == NUMERIC => {
                let mut builder = FixedSizeBinaryBuilder::with_capacity(states.len(), 16);
                for (group, state) in states.iter().enumerate() {
                    match self.numeric(kind, state, slot) {
                        Ok(Some(value)) => builder.append_value(value.to_bytes())?,
                        Ok(None) => builder.append_null(),
                        Err(message) => {
                            note(group, message);
                            builder.append_null();
                        }
                    }
                }
                Ok(Arc::new(builder.finish()))
            }
            (DataType::Float64, Kind::Float) => {
                let values = states.iter().map(|state| self.float(state, slot));
                Ok(Arc::new(Float64Array::from_iter(values)))
            }
            (DataType::Float32, Kind::Float) => {
                let values = states.iter().map(|state| self.float(state, slot));
                Ok(Arc::new(Float32Array::from_iter(
                    values.map(|v| v.map(|v| v as f32)),
                )))
            }
            (ty, _) => Err(Error::internal(format!(
                "aggregate {} cannot give type {ty}",
                self.text
            ))),
        }
    }

    fn numeric(&self, kind: Kind, state: &Sums, slot: u16) -> Outcome<Numeric> {
        let count = state.get(slot + NON_NULL);
        if count == 0 {
            return Ok(None);
        }
        if kind == Kind::Numeric
            && let Some(special) = special(state, slot + NUMERIC_SPECIAL)
        {
            return Ok(Some(special.into()));
        }
        if matches!(self.function, AggregateFunction::Alike { .. }) {
            let value = joined(state, slot, |sum| sum / count)?;
            return Ok(Some(Numeric::Finite(value)));
        }
        let sum = match kind {
            Kind::Numeric => joined(state, slot, |sum| sum)?,
            _ => plain_decimal(state.get(slot + INTEGER))?,
        };
        if self.function != AggregateFunction::Avg {
            return Ok(Some(Numeric::Finite(sum)));
        }
        let average = quotient(sum, Decimal::from(count as i64));
        average
            .map(|a| Some(Numeric::Finite(a)))
            .ok_or(NUMERIC_OVERFLOW)
    }

    fn float(&self, state: &Sums, slot: u16) -> Option<f64> {
        let count = state.get(slot + NON_NULL);
        if count == 0 {
            return None;
        }
        if let Some(special) = special(state, slot + FLOAT_SPECIAL) {
            return Some(special.into());
        }
        let first = slot + BINS;
        let bins = state.range(first, first + float::BINS);
        let sum = float::join(bins.map(|(number, value)| (number - first, value)));
        Some(match self.function {
            AggregateFunction::Avg => sum / count as f64,
            _ => sum,
        })
    }
}

#[derive(Clone, Copy)]
enum Special {
    NaN,
    Infinity,
    NegInfinity,
}

impl From<Special> for f64 {
    fn from(special: Special) -> f64 {
        match special {
            Special::NaN => f64::NAN,
            Special::Infinity => f64::INFINITY,
            Special::NegInfinity => f64::NEG_INFINITY,
        }
    }
}

impl From<Special> for Numeric {
    fn from(special: Special) -> Numeric {
        match special {
            Special::NaN => Numeric::NaN,
            Special::Infinity => Numeric::Infinity,
            Special::NegInfinity => Numeric::NegInfinity,
        }
    }
}

/// What a sum is when special values are among its terms.
fn special(state: &Sums, first: u16) -> Option<Special> {
    let [nan, positive, negative] =
        [NAN, INFINITY, NEG_INFINITY].map(|place| state.get(first + place) != 0);
    match (nan, positive, negative) {
        (true, _, _) | (_, true, true) => Some(Special::NaN),
        (_, true, _) => Some(Special::Infinity),
        (_, _, true) => Some(Special::NegInfinity),
        _ => None,
    }
}

fn integer_sum(state: &Sums, slot: u16) -> Outcome<i64> {
    if state.get(slot + NON_NULL) == 0 {
        return Ok(None);
    }
    let sum = i64::try_from(state.get(slot + INTEGER));
    sum.map(Some).map_err(|_| BIGINT_OVERFLOW)
}

fn plain_decimal(value: i128) -> Result<Decimal, &'static str> {
    Decimal::try_from_i128_with_scale(value, 0).map_err(|_| NUMERIC_OVERFLOW)
}

/// The sum, each part changed by `part`, with the largest display scale of its terms.
fn joined(state: &Sums, slot: u16, part: impl Fn(i128) -> i128) -> Result<Decimal, &'static str> {
    let first = slot + SCALES;
    let scales = state.range(first, first + numeric::SCALE_MAX as u16 + 1);
    let scale = scales
        .map(|(number, _)| u32::from(number - first))
        .max()
        .unwrap_or(0);
    let [integer, fraction] = [INTEGER, FRACTION].map(|place| part(state.get(slot + place)));
    numeric::join(integer, fraction, scale).ok_or(NUMERIC_OVERFLOW)
}
