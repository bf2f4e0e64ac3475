//! `x op ANY (array)` and `x op ALL (array)`: `op_any_eq`, `op_all_lt`, ….

use std::cmp::Ordering;

use arrow::array::{Array, ArrayRef};
use arrow::datatypes::DataType;
use arrow::row::{RowConverter, SortField};
use ruslo_repr::{Error, Result};

use super::array::list_at;
use super::cast::cast_array;
use super::coerce::common_type;
use super::key::key_array;
use super::overload::{Args, Function, undefined_operator};
use super::types::*;

type Test = fn(Ordering) -> bool;

const COMPARISONS: [(&str, &str, Test); 6] = [
    ("eq", "=", Ordering::is_eq),
    ("ne", "<>", Ordering::is_ne),
    ("lt", "<", Ordering::is_lt),
    ("le", "<=", Ordering::is_le),
    ("gt", ">", Ordering::is_gt),
    ("ge", ">=", Ordering::is_ge),
];

pub(super) fn functions() -> Vec<Function> {
    let all = COMPARISONS.iter().flat_map(|(name, symbol, test)| {
        [("any", true), ("all", false)].map(|(quantifier, decisive)| {
            let name = format!("op_{quantifier}_{name}");
            let test = *test;
            let function = Function::generic(&name, 2..=2, typing, move |args| {
                quantify(args, test, decisive)
            });
            function.operator(symbol)
        })
    });
    all.collect()
}

fn typing(types: &[DataType]) -> Result<DataType> {
    match types {
        [a, DataType::List(item)] => match common(a, item.data_type()) {
            Some(_) => Ok(DataType::Boolean),
            None => Err(undefined_operator("=", a, item.data_type())),
        },
        [_, DataType::Utf8 | DataType::Null] => Ok(DataType::Boolean),
        _ => Err(Error::unsupported(
            "op ANY/ALL (array) requires array on right side",
        )),
    }
}

/// A literal takes the type of the items.
fn common(a: &DataType, item: &DataType) -> Option<DataType> {
    match a {
        DataType::Utf8 => Some(item.clone()),
        a => common_type(a, item),
    }
}

/// Whether the comparison holds for an item (ANY, `decisive` is true) or for all of them. NULL if
/// that hangs on a NULL.
fn quantify(args: &Args, test: Test, decisive: bool) -> Result<ArrayRef> {
    let left = &args.columns[0];
    // A text stands for an array literal of the left side's type.
    let right = match args.columns[1].array.data_type() {
        DataType::List(_) => args.columns[1].clone(),
        _ => {
            let list = ruslo_repr::schema::list_of(left.array.data_type().clone());
            let array = cast_array(&args.columns[1].array, &list, &args.style)?;
            Column {
                array,
                constant: args.columns[1].constant,
            }
        }
    };
    let DataType::List(item) = right.array.data_type().clone() else {
        return Err(Error::internal("a list is no list"));
    };
    let common = common(left.array.data_type(), item.data_type());
    let common = common.ok_or_else(|| Error::internal("types that do not compare"))?;
    let converter = RowConverter::new(vec![SortField::new(common.clone())])?;
    let keys = |array: &ArrayRef| -> Result<_> {
        let cast = cast_array(array, &common, &args.style)?;
        Ok(converter.convert_columns(&[key_array(&cast)?])?)
    };
    let needles = keys(&left.array)?;
    let left_is_null = |at: usize| left.array.is_null(at) || left.array.data_type().is_null();
    let values = (0..args.rows).map(|row| {
        let Some(items) = list_at(&right, row) else {
            return Ok(None);
        };
        let at = left.at(row);
        let needle = needles.row(at);
        let item_keys = keys(&items)?;
        let mut unknown = false;
        for i in 0..items.len() {
            if left_is_null(at) || items.is_null(i) {
                unknown = true;
            } else if test(needle.cmp(&item_keys.row(i))) == decisive {
                return Ok(Some(decisive));
            }
        }
        Ok((!unknown).then_some(!decisive))
    });
    Bool::collect(values.collect::<Result<_>>()?)
}
