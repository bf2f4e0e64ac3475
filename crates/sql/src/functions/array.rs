//! Array functions. Items are picked from their source arrays by position, so they work for every
//! item type; equality of items is that of key forms.

use std::sync::Arc;

use arrow::array::cast::AsArray;
use arrow::array::{Array, ArrayRef, Int32Array, ListArray, StructArray, new_null_array};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::compute::interleave;
use arrow::datatypes::{DataType, Field, FieldRef};
use arrow::row::{RowConverter, Rows, SortField};
use ruslo_repr::schema::list_of;
use ruslo_repr::{Error, ErrorKind, Result};

use super::cast::cast_array;
use super::coerce::common_type;
use super::key::key_array;
use super::overload::{Args, Function, over};
use super::string::write_cast;
use super::types::*;

pub(super) fn functions() -> Vec<Function> {
    vec![
        make_array(),
        Function::generic(
            "cardinality",
            1..=1,
            |types| list_to(types, Int4::data_type()),
            |args| lengths(args, |list| Some(flat_len(list))),
        ),
        Function::generic(
            "array_length",
            2..=2,
            |types| list_to(types, Int4::data_type()),
            |args| lengths(args, |list| (!list.is_empty()).then(|| list.len())),
        )
        .alias("array_upper"),
        Function::generic(
            "array_ndims",
            1..=1,
            |types| list_to(types, Int4::data_type()),
            |args| {
                lengths(args, |list| {
                    (!list.is_empty()).then(|| dimensions(list.data_type()))
                })
            },
        ),
        Function::generic(
            "array_lower",
            2..=2,
            |types| list_to(types, Int4::data_type()),
            |args| lengths(args, |list| (!list.is_empty()).then_some(1)),
        ),
        Function::generic(
            "array_position",
            2..=2,
            |types| list_to(types, Int4::data_type()),
            position,
        ),
        Function::generic(
            "array_positions",
            2..=2,
            |types| list_to(types, list_of(Int4::data_type())),
            positions,
        ),
        Function::generic("array_remove", 2..=2, first_type, |args| {
            edit(args, &Edit::Remove)
        }),
        Function::generic("array_replace", 3..=3, first_type, |args| {
            edit(args, &Edit::Replace)
        }),
        Function::generic("array_distinct", 1..=1, first_type, |args| {
            edit(args, &Edit::Distinct)
        }),
        Function::generic("array_sort", 1..=1, first_type, |args| {
            edit(args, &Edit::Sort)
        }),
        Function::generic("array_reverse", 1..=1, first_type, |args| {
            edit(args, &Edit::Reverse)
        }),
        Function::generic(
            "op_array_contains",
            2..=2,
            |types| list_to(types, DataType::Boolean),
            contains,
        )
        .operator("@>"),
        Function::generic(
            "array_to_string",
            2..=3,
            |types| list_to(types, Text::data_type()),
            to_string,
        )
        .alias("array_join"),
        string_to_array(),
    ]
}

pub(super) fn no_array(types: &[DataType]) -> Error {
    let types: Vec<_> = types.iter().map(ruslo_repr::schema::type_name).collect();
    let message = format!("no array function takes ({})", types.join(", "));
    Error::new(ErrorKind::UndefinedFunction, message)
        .with_hint("You might need to add explicit type casts.")
}

/// Functions that stand for syntax, and for what only drivers ask.
pub(super) fn internal_functions() -> Vec<Function> {
    vec![
        // What ARRAY(SELECT …) gives for no rows.
        Function::generic("array_or_empty", 1..=1, first_type, |args| {
            let array = &args.columns[0].array;
            match array.as_list_opt::<i32>() {
                Some(list) => Ok(without_nulls(list)),
                None => Ok(array.clone()),
            }
        }),
        // What drivers unnest to learn an index's columns and their places in it.
        Function::generic(
            "array_with_positions",
            1..=1,
            |types| list_to(types, list_of(item_with_position(types))),
            |args| with_positions(&args.columns[0].array),
        ),
    ]
}

fn list_to(types: &[DataType], result: DataType) -> Result<DataType> {
    match types.first() {
        Some(DataType::List(_) | DataType::Null) => Ok(result),
        _ => Err(no_array(types)),
    }
}

fn first_type(types: &[DataType]) -> Result<DataType> {
    match types.first() {
        Some(ty @ DataType::List(_)) => Ok(ty.clone()),
        _ => Err(no_array(types)),
    }
}

/// Lists under construction: which items of which source go into which list.
pub(super) struct Picks {
    items: Vec<(usize, usize)>,
    lengths: Vec<usize>,
    valid: Vec<bool>,
}

impl Picks {
    pub(super) fn new() -> Self {
        Picks {
            items: vec![],
            lengths: vec![],
            valid: vec![],
        }
    }

    pub(super) fn push_list(&mut self, items: impl IntoIterator<Item = (usize, usize)>) {
        let before = self.items.len();
        self.items.extend(items);
        self.lengths.push(self.items.len() - before);
        self.valid.push(true);
    }

    pub(super) fn push_null(&mut self) {
        self.lengths.push(0);
        self.valid.push(false);
    }

    /// `sources` are what the picks' first numbers count.
    pub(super) fn finish(self, sources: &[&dyn Array], item: &FieldRef) -> Result<ArrayRef> {
        let values = match sources {
            [] => new_null_array(item.data_type(), 0),
            sources => interleave(sources, &self.items)?,
        };
        let offsets = OffsetBuffer::from_lengths(self.lengths);
        let nulls = NullBuffer::from(self.valid);
        Ok(Arc::new(ListArray::try_new(
            item.clone(),
            offsets,
            values,
            Some(nulls),
        )?))
    }
}

/// `ARRAY[…]`: arguments of one type, which the binder has seen to.
fn make_array() -> Function {
    let typing = |types: &[DataType]| {
        let common = types
            .iter()
            .try_fold(DataType::Null, |common, ty| common_type(&common, ty));
        match common {
            Some(DataType::Null) => Ok(list_of(Text::data_type())),
            Some(ty) => Ok(list_of(ty)),
            None => Err(no_array(types)),
        }
    };
    Function::generic("make_array", 0..=usize::MAX, typing, move |args| {
        let types: Vec<_> = args
            .columns
            .iter()
            .map(|c| c.array.data_type().clone())
            .collect();
        let DataType::List(item) = typing(&types)? else {
            return Err(Error::internal("an array has no item type"));
        };
        let columns = args.columns.iter();
        let columns = columns.map(|c| cast_array(&c.array, item.data_type(), &args.style));
        let columns = columns.collect::<Result<Vec<_>>>()?;
        let mut picks = Picks::new();
        for row in 0..args.rows {
            picks.push_list(args.columns.iter().enumerate().map(|(i, c)| (i, c.at(row))));
        }
        let sources: Vec<&dyn Array> = columns.iter().map(|c| c.as_ref()).collect();
        picks.finish(&sources, &item)
    })
}

pub(super) fn list_at(column: &Column, row: usize) -> Option<ArrayRef> {
    let at = column.at(row);
    let list = column.array.as_list_opt::<i32>()?;
    list.is_valid(at).then(|| list.value(at))
}

fn lengths(args: &Args, f: impl Fn(&ArrayRef) -> Option<usize>) -> Result<ArrayRef> {
    let dimension = args
        .columns
        .get(1)
        .map(|c| c.reader::<Int4>())
        .transpose()?;
    let values = (0..args.rows).map(|row| {
        let mut list = list_at(&args.columns[0], row)?;
        let dimension = dimension.as_ref().map_or(Some(1), |d| d.get(row))?;
        for _ in 1..dimension {
            list = match list.as_list_opt::<i32>() {
                Some(inner) if !inner.is_empty() && inner.is_valid(0) => inner.value(0),
                _ => return None,
            };
        }
        if dimension < 1 {
            return None;
        }
        f(&list).and_then(|n| i32::try_from(n).ok())
    });
    Int4::collect(values.collect())
}

/// The number of items of arrays of arrays, all levels taken together.
fn flat_len(list: &ArrayRef) -> usize {
    match list.as_list_opt::<i32>() {
        None => list.len(),
        Some(inner) => {
            let valid = (0..inner.len()).filter(|i| inner.is_valid(*i));
            valid.map(|i| flat_len(&inner.value(i))).sum()
        }
    }
}

/// The dimensions of an array whose items have this type.
fn dimensions(item: &DataType) -> usize {
    match item {
        DataType::List(inner) => 1 + dimensions(inner.data_type()),
        _ => 1,
    }
}

/// Bytes that are equal when the items are, and sort as they do, NULL last.
fn keys(converter: &RowConverter, items: &ArrayRef) -> Result<Rows> {
    Ok(converter.convert_columns(&[key_array(items)?])?)
}

fn converter(item: &DataType) -> Result<RowConverter> {
    let options = arrow::compute::SortOptions {
        descending: false,
        nulls_first: false,
    };
    Ok(RowConverter::new(vec![SortField::new_with_options(
        item.clone(),
        options,
    )])?)
}

fn item_type(column: &Column) -> Result<FieldRef> {
    match column.array.data_type() {
        DataType::List(item) => Ok(item.clone()),
        other => Err(no_array(std::slice::from_ref(other))),
    }
}

/// Calls `f` for every row with the list, its keys and the keys of the items in `args[1..]`.
fn with_keys<T>(
    args: &Args,
    mut f: impl FnMut(usize, Option<(&ArrayRef, &Rows)>, &[Rows]) -> Result<T>,
) -> Result<Vec<T>> {
    let item = item_type(&args.columns[0])?;
    let converter = converter(item.data_type())?;
    let wanted = args.columns[1..].iter().map(|column| {
        let cast = cast_array(&column.array, item.data_type(), &args.style)?;
        keys(&converter, &cast)
    });
    let wanted = wanted.collect::<Result<Vec<_>>>()?;
    let rows = (0..args.rows).map(|row| match list_at(&args.columns[0], row) {
        None => f(row, None, &wanted),
        Some(list) => {
            let keys = keys(&converter, &list)?;
            f(row, Some((&list, &keys)), &wanted)
        }
    });
    rows.collect()
}

fn found_at(args: &Args) -> Result<Vec<Option<Vec<i32>>>> {
    with_keys(args, |row, list, wanted| {
        let (Some((_, keys)), Some(wanted)) = (list, wanted.first()) else {
            return Ok(None);
        };
        let wanted = wanted.row(args.columns[1].at(row));
        let found = keys.iter().enumerate().filter(|(_, key)| *key == wanted);
        Ok(Some(found.map(|(i, _)| i as i32 + 1).collect()))
    })
}

fn position(args: &Args) -> Result<ArrayRef> {
    let first = found_at(args)?
        .into_iter()
        .map(|all| all.and_then(|all| all.first().copied()));
    Int4::collect(first.collect())
}

fn positions(args: &Args) -> Result<ArrayRef> {
    let found = found_at(args)?;
    let nulls = NullBuffer::from_iter(found.iter().map(Option::is_some));
    let lengths: Vec<usize> = found
        .iter()
        .map(|f| f.as_ref().map_or(0, Vec::len))
        .collect();
    let items = Int4::collect(found.into_iter().flatten().flatten().map(Some).collect())?;
    let DataType::List(field) = list_of(Int4::data_type()) else {
        return Err(Error::internal("a list is no list"));
    };
    let offsets = OffsetBuffer::from_lengths(lengths);
    Ok(Arc::new(ListArray::try_new(
        field,
        offsets,
        items,
        Some(nulls),
    )?))
}

/// What is done to the items of one list.
enum Edit {
    Remove,
    Replace,
    Distinct,
    Sort,
    Reverse,
}

fn edit(args: &Args, edit: &Edit) -> Result<ArrayRef> {
    let item = item_type(&args.columns[0])?;
    let lists = args.columns[0].array.as_list::<i32>();
    let replacement = match (edit, args.columns.get(2)) {
        (Edit::Replace, Some(column)) => cast_array(&column.array, item.data_type(), &args.style)?,
        _ => new_null_array(item.data_type(), 1),
    };
    let mut picks = Picks::new();
    with_keys(args, |row, list, wanted| {
        let Some((_, keys)) = list else {
            picks.push_null();
            return Ok(());
        };
        let start = lists.value_offsets()[args.columns[0].at(row)] as usize;
        let is_wanted = |i: &usize| {
            let wanted = wanted.first().map(|w| w.row(args.columns[1].at(row)));
            wanted.is_some_and(|wanted| keys.row(*i) == wanted)
        };
        let mut order: Vec<usize> = (0..keys.num_rows()).collect();
        match edit {
            Edit::Remove => order.retain(|i| !is_wanted(i)),
            Edit::Replace => {
                let at = args.columns.get(2).map_or(0, |c| c.at(row));
                let replaced = order.iter().map(|i| match is_wanted(i) {
                    true => (1, at),
                    false => (0, start + i),
                });
                picks.push_list(replaced);
                return Ok(());
            }
            Edit::Distinct => {
                let mut seen = std::collections::HashSet::new();
                order.retain(|i| seen.insert(keys.row(*i)));
            }
            Edit::Sort => order.sort_by(|a, b| keys.row(*a).cmp(&keys.row(*b))),
            Edit::Reverse => order.reverse(),
        }
        picks.push_list(order.into_iter().map(|i| (0, start + i)));
        Ok(())
    })?;
    picks.finish(&[lists.values().as_ref(), replacement.as_ref()], &item)
}

/// `a @> b`: every item of b stands in a; NULL items never do.
fn contains(args: &Args) -> Result<ArrayRef> {
    let item = item_type(&args.columns[0])?;
    let converter = converter(item.data_type())?;
    let wanted = cast_array(&args.columns[1].array, &DataType::List(item), &args.style)?;
    let wanted = Column {
        array: wanted,
        constant: args.columns[1].constant,
    };
    let values = (0..args.rows).map(|row| {
        let (Some(a), Some(b)) = (list_at(&args.columns[0], row), list_at(&wanted, row)) else {
            return Ok(None);
        };
        let all = keys(&converter, &a)?;
        let all: std::collections::HashSet<_> = all.iter().map(|key| key.owned()).collect();
        let wanted = keys(&converter, &b)?;
        let contained = (0..b.len()).all(|i| b.is_valid(i) && all.contains(&wanted.row(i).owned()));
        Ok(Some(contained))
    });
    Bool::collect(values.collect::<Result<_>>()?)
}

/// `array_to_string(list, separator[, text for NULL])`.
fn to_string(args: &Args) -> Result<ArrayRef> {
    let [list, separator, rest @ ..] = args.columns.as_slice() else {
        return Err(no_array(&[]));
    };
    let separator = separator.reader::<Text>()?;
    let for_null = rest.first().map(|c| c.reader::<Text>()).transpose()?;
    let values = (0..args.rows).map(|row| {
        let (list, separator) = (list_at(list, row)?, separator.get(row)?);
        let items = Column {
            array: list,
            constant: false,
        };
        let mut text = String::new();
        let mut first = true;
        for i in 0..items.array.len() {
            let mut item = String::new();
            if !write_cast(args, &items, i, &mut item) {
                match for_null.as_ref().and_then(|n| n.get(row)) {
                    Some(shown) => item.push_str(shown),
                    None => continue,
                }
            }
            if !std::mem::replace(&mut first, false) {
                text.push_str(separator);
            }
            text.push_str(&item);
        }
        Some(text)
    });
    Text::collect(values.collect())
}

/// `string_to_array(text, separator[, text for NULL])`; a NULL separator cuts into characters.
fn string_to_array() -> Function {
    let text = Text::data_type();
    let eval = |args: &Args| {
        let text = args.columns[0].reader::<Text>()?;
        let separator = args.columns[1].reader::<Text>()?;
        let for_null = args
            .columns
            .get(2)
            .map(|c| c.reader::<Text>())
            .transpose()?;
        let lists = (0..args.rows).map(|row| {
            let text = text.get(row)?;
            let null = for_null.as_ref().and_then(|n| n.get(row));
            let parts: Vec<String> = match separator.get(row) {
                _ if text.is_empty() => vec![],
                None => text.chars().map(String::from).collect(),
                Some("") => vec![text.to_string()],
                Some(separator) => text.split(separator).map(String::from).collect(),
            };
            let kept = parts
                .into_iter()
                .map(|part| (Some(part.as_str()) != null).then_some(part));
            Some(kept.collect())
        });
        super::regex::text_lists(lists.collect())
    };
    let two = [text.clone(), text.clone()];
    let three = [text.clone(), text.clone(), text.clone()];
    let overloads = vec![
        over(&two, list_of(text.clone()), eval),
        over(&three, list_of(text), eval),
    ];
    Function::new("string_to_array", overloads)
}

/// The lists with an empty one in the place of each NULL.
fn without_nulls(list: &ListArray) -> ArrayRef {
    let empty = list.value_type();
    let empty = arrow::array::new_empty_array(&empty);
    let items = (0..list.len()).map(|row| match list.is_null(row) {
        true => empty.clone(),
        false => list.value(row),
    });
    let items: Vec<ArrayRef> = items.collect();
    let offsets = OffsetBuffer::from_lengths(items.iter().map(|item| item.len()));
    let parts: Vec<&dyn Array> = items.iter().map(AsRef::as_ref).collect();
    let values = match parts.is_empty() {
        true => Ok(empty),
        false => arrow::compute::concat(&parts),
    };
    let field = match list.data_type() {
        DataType::List(field) => field.clone(),
        other => Arc::new(Field::new_list_field(other.clone(), true)),
    };
    match values {
        Ok(values) => Arc::new(ListArray::new(field, offsets, values, None)),
        Err(_) => Arc::new(list.clone()),
    }
}

fn item_with_position(types: &[DataType]) -> DataType {
    let item = match types.first() {
        Some(DataType::List(item)) => item.data_type().clone(),
        _ => DataType::Null,
    };
    let fields = [("x", item), ("n", DataType::Int32)];
    DataType::Struct(
        fields
            .map(|(name, ty)| Field::new(name, ty, true))
            .to_vec()
            .into(),
    )
}

/// Each item `x` with its place `n` in its list, counted from one.
fn with_positions(array: &ArrayRef) -> Result<ArrayRef> {
    let list = array
        .as_list_opt::<i32>()
        .ok_or_else(|| Error::internal("array_with_positions takes an array"))?;
    let item = item_with_position(&[array.data_type().clone()]);
    let DataType::Struct(fields) = &item else {
        return Err(Error::internal("an item with its place is a struct"));
    };
    let (offsets, nulls) = (list.offsets().clone(), list.nulls().cloned());
    let mut places = vec![0; list.values().len()];
    for range in offsets.windows(2) {
        let (start, end) = (range[0] as usize, range[1] as usize);
        let numbered = places[start..end].iter_mut().zip(1..);
        numbered.for_each(|(place, n)| *place = n);
    }
    let places: ArrayRef = Arc::new(Int32Array::from(places));
    let columns = vec![list.values().clone(), places];
    let items = StructArray::try_new(fields.clone(), columns, None)?;
    let field = Arc::new(Field::new_list_field(item.clone(), true));
    Ok(Arc::new(ListArray::try_new(
        field,
        offsets,
        Arc::new(items),
        nulls,
    )?))
}
