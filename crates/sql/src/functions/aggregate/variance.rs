//! `variance` and `stddev`: numeric for integers and numeric, floats for floats.

use arrow::array::cast::AsArray;
use arrow::array::types::{Float64Type, Int64Type};
use arrow::array::{Array, ArrayRef};
use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use ruslo_repr::schema::NUMERIC;
use ruslo_repr::{Error, Numeric, Result};

use super::super::cast::cast_array;
use super::super::coerce::{is_number, numeric_scalar};
use super::super::numeric;
use super::super::types::*;
use super::{Aggregate, Fold, style};

pub(super) fn functions() -> Vec<Aggregate> {
    let typing = |types: &[DataType]| match types {
        [DataType::Float32 | DataType::Float64] => Some(DataType::Float64),
        [ty] if is_number(ty) => Some(NUMERIC),
        _ => None,
    };
    vec![
        Aggregate::new("var_samp", typing, |types| start(types, SAMPLE_VARIANCE))
            .alias("variance")
            .alias("var")
            .alias("var_sample"),
        Aggregate::new("var_pop", typing, |types| start(types, POPULATION_VARIANCE))
            .alias("var_population"),
        Aggregate::new("stddev_samp", typing, |types| {
            start(types, SAMPLE_DEVIATION)
        })
        .alias("stddev"),
        Aggregate::new("stddev_pop", typing, |types| {
            start(types, POPULATION_DEVIATION)
        }),
    ]
}

/// Which of the four is asked for.
#[derive(Clone, Copy, Debug)]
struct Measure {
    sample: bool,
    root: bool,
}

const SAMPLE_VARIANCE: Measure = Measure {
    sample: true,
    root: false,
};
const POPULATION_VARIANCE: Measure = Measure {
    sample: false,
    root: false,
};
const SAMPLE_DEVIATION: Measure = Measure {
    sample: true,
    root: true,
};
const POPULATION_DEVIATION: Measure = Measure {
    sample: false,
    root: true,
};

fn start(types: &[DataType], measure: Measure) -> Result<Box<dyn Fold>> {
    Ok(match types {
        [DataType::Float32 | DataType::Float64] => Box::new(Floats {
            count: 0,
            sum: 0.0,
            squares: 0.0,
            measure,
        }),
        _ => Box::new(Exact {
            count: 0,
            sum: Numeric::Finite(0.into()),
            squares: Numeric::Finite(0.into()),
            measure,
        }),
    })
}

impl Measure {
    /// What the squares are divided by; `None` if there are too few values.
    fn divisor(self, count: i64) -> Option<i64> {
        let divisor = if self.sample { count - 1 } else { count };
        (divisor > 0).then_some(divisor)
    }
}

/// The sum of values and of their squares.
#[derive(Debug)]
struct Exact {
    count: i64,
    sum: Numeric,
    squares: Numeric,
    measure: Measure,
}

impl Fold for Exact {
    fn add(&mut self, columns: &[ArrayRef]) -> Result<()> {
        let array = cast_array(&columns[0], &NUMERIC, &style())?;
        let column = Column {
            array,
            constant: false,
        };
        let values = column.reader::<Num>()?;
        for row in 0..columns[0].len() {
            if let Some(value) = values.get(row) {
                self.count += 1;
                self.sum = numeric::add(self.sum, value)?;
                self.squares = numeric::add(self.squares, numeric::mul(value, value)?)?;
            }
        }
        Ok(())
    }

    fn result(&mut self) -> Result<ScalarValue> {
        let Some(divisor) = self.measure.divisor(self.count) else {
            return Ok(ScalarValue::FixedSizeBinary(16, None));
        };
        let number = |n: i64| Numeric::Finite(n.into());
        // (n·Σx² − (Σx)²) / (n·divisor)
        let spread = numeric::sub(
            numeric::mul(number(self.count), self.squares)?,
            numeric::mul(self.sum, self.sum)?,
        )?;
        let weight = numeric::mul(number(self.count), number(divisor))?;
        let variance = numeric::div(spread, weight)?;
        Ok(numeric_scalar(match self.measure.root {
            true => numeric::sqrt(variance)?,
            false => variance,
        }))
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![
            ScalarValue::Int64(Some(self.count)),
            numeric_scalar(self.sum),
            numeric_scalar(self.squares),
        ])
    }

    fn merge(&mut self, states: &[ArrayRef]) -> Result<()> {
        let [counts, sums, squares] = states else {
            return Err(Error::internal("a state of a variance has three columns"));
        };
        let column = |array: &ArrayRef| Column {
            array: array.clone(),
            constant: false,
        };
        let (sums, squares) = (column(sums), column(squares));
        let (sums, squares) = (sums.reader::<Num>()?, squares.reader::<Num>()?);
        for row in 0..counts.len() {
            self.count += counts.as_primitive::<Int64Type>().value(row);
            if let (Some(sum), Some(square)) = (sums.get(row), squares.get(row)) {
                self.sum = numeric::add(self.sum, sum)?;
                self.squares = numeric::add(self.squares, square)?;
            }
        }
        Ok(())
    }
}

/// The sum of values, and of squared distances from their mean, carried along value by value:
/// plain sums of squares would cancel out.
#[derive(Debug)]
struct Floats {
    count: i64,
    sum: f64,
    squares: f64,
    measure: Measure,
}

impl Floats {
    fn add_value(&mut self, value: f64) {
        self.count += 1;
        self.sum += value;
        if self.count > 1 {
            let count = self.count as f64;
            let distance = value * count - self.sum;
            self.squares += distance * distance / (count * (count - 1.0));
        }
    }

    fn merge_one(&mut self, count: i64, sum: f64, squares: f64) {
        if count == 0 {
            return;
        }
        if self.count > 0 {
            let (a, b) = (self.count as f64, count as f64);
            let distance = self.sum / a - sum / b;
            self.squares += a * b * distance * distance / (a + b);
        }
        self.count += count;
        self.sum += sum;
        self.squares += squares;
    }
}

impl Fold for Floats {
    fn add(&mut self, columns: &[ArrayRef]) -> Result<()> {
        let values = cast_array(&columns[0], &DataType::Float64, &style())?;
        let values = values.as_primitive::<Float64Type>().iter().flatten();
        values.for_each(|value| self.add_value(value));
        Ok(())
    }

    fn result(&mut self) -> Result<ScalarValue> {
        let divisor = self.measure.divisor(self.count);
        let variance = divisor.map(|by| self.squares / by as f64);
        let result = variance.map(|v| if self.measure.root { v.sqrt() } else { v });
        Ok(ScalarValue::Float64(result))
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![
            ScalarValue::Int64(Some(self.count)),
            ScalarValue::Float64(Some(self.sum)),
            ScalarValue::Float64(Some(self.squares)),
        ])
    }

    fn merge(&mut self, states: &[ArrayRef]) -> Result<()> {
        let [counts, sums, squares] = states else {
            return Err(Error::internal("a state of a variance has three columns"));
        };
        for row in 0..counts.len() {
            self.merge_one(
                counts.as_primitive::<Int64Type>().value(row),
                sums.as_primitive::<Float64Type>().value(row),
                squares.as_primitive::<Float64Type>().value(row),
            );
        }
        Ok(())
    }
}
