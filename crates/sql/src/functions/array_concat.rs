//! `||` on arrays, and what else puts arrays and items together.

use arrow::array::cast::AsArray;
use arrow::array::{Array, ArrayRef};
use arrow::datatypes::{DataType, FieldRef};
use ruslo_repr::schema::list_of;
use ruslo_repr::{Error, Result};

use super::array::{Picks, no_array};
use super::cast::cast_array;
use super::coerce::common_type;
use super::overload::{Args, Function, undefined_operator};
use super::types::*;

pub(super) fn functions() -> Vec<Function> {
    let function = |name: &str, null: NullAs| {
        Function::generic(name, 2..=2, concat_typing, move |args| {
            concat_as(args, null)
        })
    };
    vec![
        function("array_cat", NullAs::List).alias("array_concat"),
        function("array_append", NullAs::Item),
        function("array_prepend", NullAs::Item),
    ]
}

/// The type of `a || b`.
pub(super) fn concat_type(types: &[DataType]) -> Result<DataType> {
    let [a, b] = types else {
        return Err(Error::internal("|| takes two arguments"));
    };
    let undefined = || undefined_operator("||", a, b);
    match (a, b) {
        (DataType::List(x), DataType::List(y)) => {
            if let Some(item) = common_type(x.data_type(), y.data_type()) {
                return Ok(list_of(item));
            }
            // An array of arrays and one of its items.
            let appended = common_type(x.data_type(), b).or(common_type(a, y.data_type()));
            appended.map(list_of).ok_or_else(undefined)
        }
        (DataType::List(item), other) | (other, DataType::List(item)) => {
            common_type(item.data_type(), other)
                .map(list_of)
                .ok_or_else(undefined)
        }
        (DataType::LargeUtf8, DataType::LargeUtf8 | DataType::Utf8 | DataType::Null)
        | (DataType::Utf8 | DataType::Null, DataType::LargeUtf8) => Ok(Jsonb::data_type()),
        (DataType::Binary, DataType::Binary) => Err(undefined()),
        (DataType::Utf8 | DataType::Null, _) | (_, DataType::Utf8 | DataType::Null) => {
            Ok(Text::data_type())
        }
        _ => Err(undefined()),
    }
}

fn concat_typing(types: &[DataType]) -> Result<DataType> {
    match concat_type(types)? {
        ty @ DataType::List(_) => Ok(ty),
        _ => Err(no_array(types)),
    }
}

/// What an untyped NULL beside an array stands for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum NullAs {
    List,
    Item,
}

fn concat_as(args: &Args, null: NullAs) -> Result<ArrayRef> {
    let types: Vec<_> = args
        .columns
        .iter()
        .map(|c| c.array.data_type().clone())
        .collect();
    match concat_type(&types)? {
        DataType::List(item) => concat(args, &item, null),
        _ => Err(no_array(&types)),
    }
}

/// One side of `||`: a list whose items are taken, or an item itself.
struct Side<'a> {
    column: &'a Column,
    /// For a list its items, for an item the column, in the result's item type.
    values: ArrayRef,
    is_list: bool,
}

impl Side<'_> {
    fn of<'a>(args: &'a Args, i: usize, item: &FieldRef, null: NullAs) -> Result<Side<'a>> {
        let column = &args.columns[i];
        let wanted = DataType::List(item.clone());
        let is_list = match column.array.data_type() {
            DataType::List(inner) => {
                common_type(inner.data_type(), item.data_type()).as_ref() == Some(item.data_type())
            }
            DataType::Null => null == NullAs::List,
            _ => false,
        };
        let values = match is_list {
            true => cast_array(&column.array, &wanted, &args.style)?,
            false => cast_array(&column.array, item.data_type(), &args.style)?,
        };
        Ok(Side {
            column,
            values,
            is_list,
        })
    }

    fn is_null(&self, row: usize) -> bool {
        self.values.is_null(self.column.at(row))
    }

    fn items(&self, row: usize) -> std::ops::Range<usize> {
        let at = self.column.at(row);
        match self.values.as_list_opt::<i32>() {
            Some(list) if self.is_list => {
                if list.is_null(at) {
                    return 0..0;
                }
                let offsets = list.value_offsets();
                offsets[at] as usize..offsets[at + 1] as usize
            }
            _ => at..at + 1,
        }
    }

    fn source(&self) -> &dyn Array {
        match self.values.as_list_opt::<i32>() {
            Some(list) if self.is_list => list.values().as_ref(),
            _ => self.values.as_ref(),
        }
    }
}

/// `a || b` where the result's items have the field `item`. A NULL array is as good as an empty
/// one, unless both are NULL.
pub(super) fn concat(args: &Args, item: &FieldRef, null: NullAs) -> Result<ArrayRef> {
    let (a, b) = (
        Side::of(args, 0, item, null)?,
        Side::of(args, 1, item, null)?,
    );
    let mut picks = Picks::new();
    for row in 0..args.rows {
        if a.is_list && b.is_list && a.is_null(row) && b.is_null(row) {
            picks.push_null();
            continue;
        }
        let left = a.items(row).map(|at| (0, at));
        picks.push_list(left.chain(b.items(row).map(|at| (1, at))));
    }
    picks.finish(&[a.source(), b.source()], item)
}
