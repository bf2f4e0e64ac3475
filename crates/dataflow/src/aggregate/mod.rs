//! Aggregates that add up: count, sum and avg without DISTINCT.
//!
//! [`AddUp`] folds the rows of a block into one [`Sums`] per group (a change of the group's
//! state), differential adds the changes up, and [`AddUp::finish`] turns states into result
//! columns. Aggregates over the same column and filter share their slots:
//!
//! ```text
//!   count(x)            non-null count
//!   sum, avg of ints    non-null count, sum
//!   … of numeric        non-null count, integer parts, fractions, NaN, +∞, -∞, 29 × scale count
//!   … of floats         non-null count, NaN, +∞, -∞, 64 × bin
//! ```

mod extremes;
mod finish;
pub(crate) mod float;
pub(crate) mod numeric;
mod sums;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::buffer::BooleanBuffer;
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type,
};
use ruslo_repr::schema::NUMERIC;
use ruslo_repr::{Aggregate, AggregateFunction, Diff, Error, Result};

use crate::block::{Block, Stamps, is_true};

pub(crate) use extremes::Extremes;
pub(crate) use sums::Sums;

/// The count of non-NULL arguments, first in every accumulator.
const NON_NULL: u16 = 0;
const INTEGER: u16 = 1;
const FRACTION: u16 = 2;
const NUMERIC_SPECIAL: u16 = 3;
const SCALES: u16 = 6;
const FLOAT_SPECIAL: u16 = 1;
const BINS: u16 = 4;
/// Places of the special values from the first special slot on.
const NAN: u16 = 0;
const INFINITY: u16 = 1;
const NEG_INFINITY: u16 = 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Counts rows whose argument is not NULL (all, without an argument).
    Count,
    Integer,
    Numeric,
    Float,
}

impl Kind {
    fn of(function: &AggregateFunction, argument: Option<&DataType>) -> Result<Kind> {
        let ty = match (function, argument) {
            (AggregateFunction::Count, _) => return Ok(Kind::Count),
            (_, Some(ty)) => ty,
            (_, None) => return Err(Error::internal("sum and avg need an argument")),
        };
        match ty {
            DataType::Int16 | DataType::Int32 | DataType::Int64 => Ok(Kind::Integer),
            DataType::Float32 | DataType::Float64 => Ok(Kind::Float),
            ty if *ty == NUMERIC => Ok(Kind::Numeric),
            other => {
                let ty = ruslo_repr::schema::type_name(other);
                Err(Error::unsupported(format!("sum or avg of type {ty}")))
            }
        }
    }

    /// Slots that an accumulator of this kind takes.
    fn width(self) -> u16 {
        match self {
            Kind::Count => 1,
            Kind::Integer => 2,
            Kind::Numeric => SCALES + numeric::SCALE_MAX as u16 + 1,
            Kind::Float => BINS + float::BINS,
        }
    }
}

/// Adds one column, where the filter is true, to the slots from `base` on.
#[derive(Debug)]
struct Accumulator {
    kind: Kind,
    argument: Option<usize>,
    filter: Option<usize>,
    base: u16,
}

/// Where an aggregate's result comes from.
#[derive(Debug)]
struct Output {
    function: AggregateFunction,
    ty: DataType,
    text: String,
    /// `None` for `count(*)`, which is the group's row count.
    accumulator: Option<(Kind, u16)>,
}

/// Compiled aggregates that add up.
#[derive(Debug)]
pub(crate) struct AddUp {
    accumulators: Vec<Accumulator>,
    outputs: Vec<Output>,
}

/// Rows of a block and the group of each.
pub(crate) struct Members<'a> {
    /// The group of each row.
    pub(crate) groups: &'a [u32],
    pub(crate) stamps: &'a Stamps,
}

impl Members<'_> {
    /// Calls `f` with row, group and diff of every row.
    #[inline]
    pub(crate) fn for_each(&self, mut f: impl FnMut(usize, usize, Diff)) {
        let members = self.groups.iter().enumerate();
        match self.stamps {
            Stamps::Same(_, diff) => members.for_each(|(row, &g)| f(row, g as usize, *diff)),
            Stamps::Each(stamps) => {
                members.for_each(|(row, &g)| f(row, g as usize, stamps[row].1));
            }
        }
    }
}

impl AddUp {
    /// Compiles aggregates over columns of the types `input`, none of them distinct.
    pub(crate) fn compile(aggregates: &[Aggregate], input: &[DataType]) -> Result<AddUp> {
        let mut compiled = AddUp {
            accumulators: vec![],
            outputs: vec![],
        };
        for aggregate in aggregates {
            let argument = aggregate.args.first().copied();
            let all_rows = aggregate.filter.is_none() && argument.is_none();
            let accumulator = if all_rows && aggregate.function == AggregateFunction::Count {
                None
            } else {
                let ty = argument.map(|column| &input[column]);
                let kind = Kind::of(&aggregate.function, ty)?;
                Some((kind, compiled.accumulator(kind, argument, aggregate.filter)))
            };
            compiled.outputs.push(Output {
                function: aggregate.function.clone(),
                ty: aggregate.ty.clone(),
                text: aggregate.text.clone(),
                accumulator,
            });
        }
        Ok(compiled)
    }

    /// The first slot of an accumulator, which may be shared or new.
    fn accumulator(&mut self, kind: Kind, argument: Option<usize>, filter: Option<usize>) -> u16 {
        let mut end = 0;
        for known in &self.accumulators {
            if (known.kind, known.argument, known.filter) == (kind, argument, filter) {
                return known.base;
            }
            end = known.base + known.kind.width();
        }
        self.accumulators.push(Accumulator {
            kind,
            argument,
            filter,
            base: end,
        });
        end
    }

    /// Whether the row count of a group is all there is to know.
    pub(crate) fn counts_rows_only(&self) -> bool {
        self.accumulators.is_empty()
    }

    /// Whether a result can be out of its type's range.
    pub(crate) fn can_fail(&self) -> bool {
        self.outputs.iter().any(|output| {
            let kind = output.accumulator.map(|(kind, _)| kind);
            matches!(kind, Some(Kind::Integer | Kind::Numeric))
                && !matches!(output.function, AggregateFunction::Alike { .. })
        })
    }

    /// Adds rows of a block to the states of their groups.
    pub(crate) fn absorb(
        &self,
        block: &Block,
        members: &Members,
        states: &mut [Sums],
    ) -> Result<()> {
        members.for_each(|_, group, diff| states[group].rows += diff);
        for accumulator in &self.accumulators {
            accumulator.absorb(block, members, states)?;
        }
        Ok(())
    }
}

impl Accumulator {
    fn absorb(&self, block: &Block, members: &Members, states: &mut [Sums]) -> Result<()> {
        let argument = self.argument.map(|column| &block.columns[column]);
        let counted = self.counted_rows(block, argument)?;
        let base = self.base;
        members.for_each(|row, group, diff| {
            if counted.as_ref().is_none_or(|counted| counted.value(row)) {
                states[group].add(base + NON_NULL, i128::from(diff));
            }
        });
        let Some(argument) = argument else {
            return Ok(());
        };
        let rows = Rows {
            members,
            counted: counted.as_ref(),
            base,
        };
        match (self.kind, argument.data_type()) {
            (Kind::Integer, DataType::Int16) => rows.integers::<Int16Type>(argument, states),
            (Kind::Integer, DataType::Int32) => rows.integers::<Int32Type>(argument, states),
            (Kind::Integer, _) => rows.integers::<Int64Type>(argument, states),
            (Kind::Float, DataType::Float32) => rows.floats::<Float32Type>(argument, states),
            (Kind::Float, _) => rows.floats::<Float64Type>(argument, states),
            (Kind::Numeric, _) => rows.numerics(argument, states),
            (Kind::Count, _) => {}
        }
        Ok(())
    }

    /// The rows that count: the filter is true and the argument not NULL. `None` means all.
    fn counted_rows(
        &self,
        block: &Block,
        argument: Option<&ArrayRef>,
    ) -> Result<Option<BooleanBuffer>> {
        let valid = argument
            .and_then(|a| a.logical_nulls())
            .map(|nulls| nulls.into_inner());
        let Some(filter) = self.filter else {
            return Ok(valid);
        };
        let filter = is_true(&block.columns[filter])
            .ok_or_else(|| Error::internal("the filter of an aggregate is no boolean"))?;
        let passing = filter.values();
        Ok(Some(match valid {
            Some(valid) => passing & &valid,
            None => passing.clone(),
        }))
    }
}

/// The counted rows of a block, about to be added to slots from `base` on.
struct Rows<'a> {
    members: &'a Members<'a>,
    counted: Option<&'a BooleanBuffer>,
    base: u16,
}

impl Rows<'_> {
    #[inline]
    fn for_each(&self, mut f: impl FnMut(usize, usize, Diff)) {
        match self.counted {
            None => self.members.for_each(f),
            Some(counted) => self.members.for_each(|row, group, diff| {
                if counted.value(row) {
                    f(row, group, diff);
                }
            }),
        }
    }

    fn integers<T>(&self, column: &ArrayRef, states: &mut [Sums])
    where
        T: ArrowPrimitiveType,
        i64: From<T::Native>,
    {
        let values = column.as_primitive::<T>().values();
        self.for_each(|row, group, diff| {
            let value = i128::from(i64::from(values[row]));
            states[group].add(self.base + INTEGER, value * i128::from(diff));
        });
    }

    fn floats<T>(&self, column: &ArrayRef, states: &mut [Sums])
    where
        T: ArrowPrimitiveType,
        f64: From<T::Native>,
    {
        let values = column.as_primitive::<T>().values();
        self.for_each(|row, group, diff| {
            let diff = i128::from(diff);
            let special = self.base + FLOAT_SPECIAL;
            let (slot, value) = match float::split(f64::from(values[row])) {
                float::Part::Finite { bin, value } => {
                    (self.base + BINS + bin, value.wrapping_mul(diff))
                }
                float::Part::NaN => (special + NAN, diff),
                float::Part::Infinity => (special + INFINITY, diff),
                float::Part::NegInfinity => (special + NEG_INFINITY, diff),
            };
            states[group].add(slot, value);
        });
    }

    fn numerics(&self, column: &ArrayRef, states: &mut [Sums]) {
        let values = column.as_fixed_size_binary();
        self.for_each(|row, group, diff| {
            let diff = i128::from(diff);
            let special = self.base + NUMERIC_SPECIAL;
            let Ok(bytes) = values.value(row).try_into() else {
                return;
            };
            let state = &mut states[group];
            match numeric::split(bytes) {
                numeric::Part::Finite {
                    integer,
                    fraction,
                    scale,
                } => {
                    state.add(self.base + INTEGER, integer.wrapping_mul(diff));
                    state.add(self.base + FRACTION, fraction.wrapping_mul(diff));
                    state.add(self.base + SCALES + scale, diff);
                }
                numeric::Part::NaN => state.add(special + NAN, diff),
                numeric::Part::Infinity => state.add(special + INFINITY, diff),
                numeric::Part::NegInfinity => state.add(special + NEG_INFINITY, diff),
            }
        });
    }
}
