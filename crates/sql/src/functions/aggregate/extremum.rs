//! `min` and `max` over every type, by the order of key forms, and what is shown of equal values.

use arrow::array::{Array, ArrayRef};
use arrow::compute::SortOptions;
use arrow::datatypes::DataType;
use arrow::row::{OwnedRow, RowConverter, SortField};
use datafusion::common::ScalarValue;
use ruslo_repr::schema::NUMERIC;
use ruslo_repr::{Error, Result};

use super::super::key::key_array;
use super::{Aggregate, Fold, scalar_of};

/// The numeric that its arguments are equal to, with the largest display scale among them.
pub const ALIKE: &str = "alike";

/// The aggregate that shows one of the values of type `ty` that have the same key form; None where
/// any of them will do.
pub fn shows_key(ty: &DataType) -> Option<&'static str> {
    match ty {
        ty if *ty == NUMERIC => Some(ALIKE),
        DataType::Interval(_) => Some("max"),
        _ => None,
    }
}

pub(super) fn functions() -> Vec<Aggregate> {
    let same = |types: &[DataType]| match types {
        [DataType::Boolean] => None,
        [DataType::Null] => Some(DataType::Utf8),
        [ty] => Some(ty.clone()),
        _ => None,
    };
    let of_numeric = |types: &[DataType]| match types {
        [ty] if *ty == NUMERIC => Some(NUMERIC),
        _ => None,
    };
    vec![
        Aggregate::new("min", same, |types| start(types, false)),
        Aggregate::new("max", same, |types| start(types, true)),
        Aggregate::new(ALIKE, of_numeric, |types| start(types, true)),
    ]
}

fn start(types: &[DataType], largest: bool) -> Result<Box<dyn Fold>> {
    let ty = types
        .first()
        .ok_or_else(|| Error::internal("min and max take an argument"))?;
    let empty = ScalarValue::try_from(ty).map_err(|error| Error::internal(error.to_string()))?;
    // Of equal values (1.5 and 1.50) the one with the greatest bytes, whatever the order of rows.
    let tie = SortOptions {
        descending: !largest,
        nulls_first: true,
    };
    let fields = vec![
        SortField::new(ty.clone()),
        SortField::new_with_options(ty.clone(), tie),
    ];
    Ok(Box::new(Extremum {
        converter: RowConverter::new(fields)?,
        best: None,
        value: empty,
        largest,
    }))
}

#[derive(Debug)]
struct Extremum {
    converter: RowConverter,
    /// The key of `value`, once there is one.
    best: Option<OwnedRow>,
    value: ScalarValue,
    largest: bool,
}

impl Fold for Extremum {
    fn add(&mut self, columns: &[ArrayRef]) -> Result<()> {
        let column = &columns[0];
        if matches!(column.data_type(), DataType::Null) {
            return Ok(());
        }
        let rows = self
            .converter
            .convert_columns(&[key_array(column)?, column.clone()])?;
        let known = (0..column.len()).filter(|i| column.is_valid(*i));
        let best = match self.largest {
            true => known.max_by_key(|i| rows.row(*i)),
            false => known.min_by_key(|i| rows.row(*i)),
        };
        let Some(best) = best else {
            return Ok(());
        };
        let row = rows.row(best);
        let better = match &self.best {
            None => true,
            Some(old) if self.largest => row > old.row(),
            Some(old) => row < old.row(),
        };
        if better {
            self.best = Some(row.owned());
            self.value = scalar_of(&column.slice(best, 1))?;
        }
        Ok(())
    }

    fn result(&mut self) -> Result<ScalarValue> {
        Ok(self.value.clone())
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![self.value.clone()])
    }

    fn merge(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.add(states)
    }

    fn size(&self) -> usize {
        size_of::<Self>() + self.converter.size() + self.value.size()
    }
}
