//! `sum` and `avg`, exact for integers and numeric.

use arrow::array::cast::AsArray;
use arrow::array::types::{
    ArrowPrimitiveType, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type,
    IntervalMonthDayNanoType,
};
use arrow::array::{Array, ArrayRef};
use arrow::datatypes::{DataType, IntervalMonthDayNano};
use datafusion::common::ScalarValue;
use ruslo_repr::schema::{INTERVAL, NUMERIC};
use ruslo_repr::{Error, ErrorKind, Numeric, Result};
use rust_decimal::Decimal;

use super::super::coerce::{is_number, numeric_scalar};
use super::super::types::*;
use super::super::{interval, numeric};
use super::{Aggregate, Fold};

pub(super) fn functions() -> Vec<Aggregate> {
    let sum = |types: &[DataType]| match types {
        [DataType::Int16 | DataType::Int32] => Some(DataType::Int64),
        [DataType::Int64] => Some(NUMERIC),
        [ty] if is_number(ty) || *ty == INTERVAL => Some(ty.clone()),
        _ => None,
    };
    let avg = |types: &[DataType]| match types {
        [DataType::Float32 | DataType::Float64] => Some(DataType::Float64),
        [ty] if is_number(ty) => Some(NUMERIC),
        [ty] if *ty == INTERVAL => Some(INTERVAL),
        _ => None,
    };
    vec![
        Aggregate::new("sum", sum, |types| start(types, Finish::Sum)),
        Aggregate::new("avg", avg, |types| start(types, Finish::Average)).alias("mean"),
    ]
}

#[derive(Clone, Copy, Debug)]
enum Finish {
    Sum,
    Average,
}

fn start(types: &[DataType], finish: Finish) -> Result<Box<dyn Fold>> {
    Ok(match types {
        [DataType::Float32 | DataType::Float64] => Box::new(Floats {
            sum: 0.0,
            lost: 0.0,
            specials: Specials::default(),
            finish,
            single: types[0] == DataType::Float32,
        }),
        [ty] if *ty == INTERVAL => Box::new(Intervals {
            months: 0,
            days: 0,
            nanos: 0,
            count: 0,
            finish,
        }),
        [ty] => Box::new(Exact {
            sum: Decimal::ZERO,
            specials: Specials::default(),
            finish,
            bigint: matches!(ty, DataType::Int16 | DataType::Int32),
        }),
        _ => return Err(Error::internal("sum takes one argument")),
    })
}

/// How many values there were, and how many of the kinds that do not add up.
#[derive(Clone, Copy, Debug, Default)]
struct Specials {
    count: i64,
    nan: i64,
    infinity: i64,
    neg_infinity: i64,
}

impl Specials {
    fn state(&self) -> Vec<ScalarValue> {
        let counts = [self.count, self.nan, self.infinity, self.neg_infinity];
        counts.map(|n| ScalarValue::Int64(Some(n))).into()
    }

    fn merge(&mut self, columns: &[ArrayRef], row: usize) -> Result<()> {
        let at = |i: usize| {
            let column = columns
                .get(i)
                .and_then(|c| c.as_primitive_opt::<Int64Type>());
            column
                .map(|c| c.value(row))
                .ok_or_else(|| Error::internal("a state lacks a count"))
        };
        self.count += at(0)?;
        self.nan += at(1)?;
        self.infinity += at(2)?;
        self.neg_infinity += at(3)?;
        Ok(())
    }

    /// The sum if it is not a finite one.
    fn sum(&self) -> Option<Numeric> {
        match (self.nan, self.infinity, self.neg_infinity) {
            (0, 0, 0) => None,
            (0, _, 0) => Some(Numeric::Infinity),
            (0, 0, _) => Some(Numeric::NegInfinity),
            _ => Some(Numeric::NaN),
        }
    }
}

/// Sums of integers and numeric.
#[derive(Debug)]
struct Exact {
    sum: Decimal,
    specials: Specials,
    finish: Finish,
    /// The sum is shown as bigint.
    bigint: bool,
}

impl Exact {
    fn add_signed(&mut self, array: &ArrayRef, sign: i64) -> Result<()> {
        match array.data_type() {
            DataType::Int16 => self.add_integers::<Int16Type>(array, sign),
            DataType::Int32 => self.add_integers::<Int32Type>(array, sign),
            DataType::Int64 => self.add_integers::<Int64Type>(array, sign),
            _ => {
                let column = Column {
                    array: array.clone(),
                    constant: false,
                };
                let reader = column.reader::<Num>()?;
                for row in 0..array.len() {
                    if let Some(value) = reader.get(row) {
                        self.add_numeric(value, sign)?;
                    }
                }
                Ok(())
            }
        }
    }

    fn add_integers<T: ArrowPrimitiveType>(&mut self, array: &ArrayRef, sign: i64) -> Result<()>
    where
        T::Native: Into<i64>,
    {
        let values = array.as_primitive::<T>();
        let sum: i128 = values.iter().flatten().map(|v| i128::from(v.into())).sum();
        self.specials.count += sign * (values.len() - values.null_count()) as i64;
        let sum = Decimal::try_from_i128_with_scale(sum * i128::from(sign), 0);
        let sum = sum.map_err(|_| numeric::overflow())?;
        self.sum = self.sum.checked_add(sum).ok_or_else(numeric::overflow)?;
        Ok(())
    }

    fn add_numeric(&mut self, value: Numeric, sign: i64) -> Result<()> {
        self.specials.count += sign;
        match value {
            Numeric::NaN => self.specials.nan += sign,
            Numeric::Infinity => self.specials.infinity += sign,
            Numeric::NegInfinity => self.specials.neg_infinity += sign,
            Numeric::Finite(value) => {
                let sum = match sign {
                    1 => self.sum.checked_add(value),
                    _ => self.sum.checked_sub(value),
                };
                self.sum = sum.ok_or_else(numeric::overflow)?;
            }
        }
        Ok(())
    }
}

impl Fold for Exact {
    fn add(&mut self, columns: &[ArrayRef]) -> Result<()> {
        self.add_signed(&columns[0], 1)
    }

    fn remove(&mut self, columns: &[ArrayRef]) -> Result<()> {
        self.add_signed(&columns[0], -1)
    }

    fn can_remove(&self) -> bool {
        true
    }

    fn result(&mut self) -> Result<ScalarValue> {
        let bigint = self.bigint && matches!(self.finish, Finish::Sum);
        if self.specials.count == 0 {
            return Ok(match bigint {
                true => ScalarValue::Int64(None),
                false => ScalarValue::FixedSizeBinary(16, None),
            });
        }
        let sum = self.specials.sum().unwrap_or(Numeric::Finite(self.sum));
        match self.finish {
            Finish::Sum if bigint => {
                numeric::numeric_to_int(sum, "bigint").map(|v| ScalarValue::Int64(Some(v)))
            }
            Finish::Sum => Ok(numeric_scalar(sum)),
            Finish::Average => {
                let count = Numeric::Finite(self.specials.count.into());
                numeric::div(sum, count).map(numeric_scalar)
            }
        }
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let mut state = vec![numeric_scalar(Numeric::Finite(self.sum))];
        state.extend(self.specials.state());
        Ok(state)
    }

    fn merge(&mut self, states: &[ArrayRef]) -> Result<()> {
        let column = Column {
            array: states[0].clone(),
            constant: false,
        };
        let sums = column.reader::<Num>()?;
        for row in 0..states[0].len() {
            if let Some(Numeric::Finite(sum)) = sums.get(row) {
                self.sum = self.sum.checked_add(sum).ok_or_else(numeric::overflow)?;
            }
            self.specials.merge(&states[1..], row)?;
        }
        Ok(())
    }
}

/// Sums of floats, with the digits that each addition loses kept apart.
#[derive(Debug)]
struct Floats {
    sum: f64,
    lost: f64,
    specials: Specials,
    finish: Finish,
    single: bool,
}

impl Floats {
    fn add_signed(&mut self, array: &ArrayRef, sign: i64) -> Result<()> {
        match array.data_type() {
            DataType::Float32 => {
                let values = array.as_primitive::<Float32Type>().iter().flatten();
                values.for_each(|v| self.add_value(v.into(), sign));
            }
            _ => {
                let values = array.as_primitive::<Float64Type>().iter().flatten();
                values.for_each(|v| self.add_value(v, sign));
            }
        }
        Ok(())
    }

    fn add_value(&mut self, value: f64, sign: i64) {
        self.specials.count += sign;
        match value {
            v if v.is_nan() => self.specials.nan += sign,
            f64::INFINITY => self.specials.infinity += sign,
            f64::NEG_INFINITY => self.specials.neg_infinity += sign,
            v => self.add_finite(v * sign as f64),
        }
    }

    fn add_finite(&mut self, value: f64) {
        let sum = self.sum + value;
        self.lost += match self.sum.abs() >= value.abs() {
            true => (self.sum - sum) + value,
            false => (value - sum) + self.sum,
        };
        self.sum = sum;
    }
}

impl Fold for Floats {
    fn add(&mut self, columns: &[ArrayRef]) -> Result<()> {
        self.add_signed(&columns[0], 1)
    }

    fn remove(&mut self, columns: &[ArrayRef]) -> Result<()> {
        self.add_signed(&columns[0], -1)
    }

    fn can_remove(&self) -> bool {
        true
    }

    fn result(&mut self) -> Result<ScalarValue> {
        let single = self.single && matches!(self.finish, Finish::Sum);
        if self.specials.count == 0 {
            return Ok(match single {
                true => ScalarValue::Float32(None),
                false => ScalarValue::Float64(None),
            });
        }
        let sum = match self.specials.sum() {
            Some(special) => numeric::numeric_to_f64(special),
            None => self.sum + self.lost,
        };
        if self.specials.sum().is_none() && !sum.is_finite() {
            return Err(super::super::arith::float_overflow());
        }
        Ok(match self.finish {
            Finish::Sum if single => ScalarValue::Float32(Some(sum as f32)),
            Finish::Sum => ScalarValue::Float64(Some(sum)),
            Finish::Average => ScalarValue::Float64(Some(sum / self.specials.count as f64)),
        })
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let floats = [self.sum, self.lost].map(|f| ScalarValue::Float64(Some(f)));
        let mut state = Vec::from(floats);
        state.extend(self.specials.state());
        Ok(state)
    }

    fn merge(&mut self, states: &[ArrayRef]) -> Result<()> {
        for row in 0..states[0].len() {
            for sums in &states[..2] {
                self.add_finite(sums.as_primitive::<Float64Type>().value(row));
            }
            self.specials.merge(&states[2..], row)?;
        }
        Ok(())
    }
}

#[derive(Debug)]
struct Intervals {
    months: i64,
    days: i64,
    nanos: i128,
    count: i64,
    finish: Finish,
}

impl Intervals {
    fn add_signed(&mut self, array: &ArrayRef, sign: i64) {
        for v in array
            .as_primitive::<IntervalMonthDayNanoType>()
            .iter()
            .flatten()
        {
            self.months += sign * i64::from(v.months);
            self.days += sign * i64::from(v.days);
            self.nanos += i128::from(sign) * i128::from(v.nanoseconds);
            self.count += sign;
        }
    }

    fn sum(&self) -> Result<IntervalMonthDayNano> {
        let months = i32::try_from(self.months).map_err(|_| interval::out_of_range())?;
        let days = i32::try_from(self.days).map_err(|_| interval::out_of_range())?;
        let nanos = i64::try_from(self.nanos).map_err(|_| interval::out_of_range())?;
        Ok(IntervalMonthDayNano::new(months, days, nanos))
    }
}

impl Fold for Intervals {
    fn add(&mut self, columns: &[ArrayRef]) -> Result<()> {
        self.add_signed(&columns[0], 1);
        Ok(())
    }

    fn remove(&mut self, columns: &[ArrayRef]) -> Result<()> {
        self.add_signed(&columns[0], -1);
        Ok(())
    }

    fn can_remove(&self) -> bool {
        true
    }

    fn result(&mut self) -> Result<ScalarValue> {
        if self.count == 0 {
            return Ok(ScalarValue::IntervalMonthDayNano(None));
        }
        let value = match self.finish {
            Finish::Sum => self.sum()?,
            Finish::Average => interval::multiply(self.sum()?, 1.0 / self.count as f64)?,
        };
        Ok(ScalarValue::IntervalMonthDayNano(Some(value)))
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![
            ScalarValue::IntervalMonthDayNano(Some(self.sum()?)),
            ScalarValue::Int64(Some(self.count)),
        ])
    }

    fn merge(&mut self, states: &[ArrayRef]) -> Result<()> {
        let counts = states
            .get(1)
            .and_then(|c| c.as_primitive_opt::<Int64Type>());
        let counts =
            counts.ok_or_else(|| Error::new(ErrorKind::Internal, "a state lacks a count"))?;
        let before = self.count;
        self.add_signed(&states[0], 1);
        self.count = before + counts.iter().flatten().sum::<i64>();
        Ok(())
    }
}
