//! COALESCE, NULLIF, GREATEST and LEAST: values of several types meet in a common one.

use arrow::array::{Array, ArrayRef};
use arrow::compute::interleave;
use arrow::datatypes::DataType;
use arrow::row::{RowConverter, SortField};
use ruslo_repr::schema::type_name;
use ruslo_repr::{Error, ErrorKind, Result};

use super::cast::cast_array;
use super::coerce::common_type;
use super::key::key_array;
use super::overload::{Args, Function};

pub(super) fn functions() -> Vec<Function> {
    vec![
        Function::generic("coalesce", 1..=usize::MAX, common, |args| {
            pick(args, |keys, row| {
                (0..keys.columns.len()).find(|i| !keys.is_null(*i, row))
            })
        }),
        Function::generic("greatest", 1..=usize::MAX, common, |args| {
            pick(args, |keys, row| {
                keys.known(row)
                    .max_by_key(|i| (keys.key(*i, row), usize::MAX - i))
            })
        }),
        Function::generic("least", 1..=usize::MAX, common, |args| {
            pick(args, |keys, row| {
                keys.known(row).min_by_key(|i| keys.key(*i, row))
            })
        }),
        Function::generic("nullif", 2..=2, nullif_type, nullif),
    ]
}

/// Text gives way to any other type, since it mostly is a literal.
fn common(types: &[DataType]) -> Result<DataType> {
    let typed = types.iter().filter(|ty| **ty != DataType::Utf8);
    let mut common = DataType::Null;
    for ty in typed {
        common = common_type(&common, ty).ok_or_else(|| {
            let (a, b) = (type_name(&common), type_name(ty));
            let message = format!("types {a} and {b} cannot be matched");
            Error::new(ErrorKind::DatatypeMismatch, message)
        })?;
    }
    match common {
        DataType::Null => Ok(DataType::Utf8),
        ty => Ok(ty),
    }
}

/// NULLIF has the type of its first argument.
fn nullif_type(types: &[DataType]) -> Result<DataType> {
    match types {
        [DataType::Null, _] => Ok(DataType::Utf8),
        [a, b] => common(types)
            .map(|_| a.clone())
            .map_err(|_| super::overload::undefined_operator("=", a, b)),
        _ => Err(Error::new(
            ErrorKind::UndefinedFunction,
            "nullif takes two arguments",
        )),
    }
}

/// The arguments in their common type, with keys that compare as they do.
struct Keys<'a> {
    args: &'a Args,
    columns: Vec<ArrayRef>,
    keys: Vec<arrow::row::Rows>,
}

impl Keys<'_> {
    fn of(args: &Args) -> Result<Keys<'_>> {
        let types: Vec<_> = args
            .columns
            .iter()
            .map(|c| c.array.data_type().clone())
            .collect();
        let common = common(&types)?;
        let columns = args
            .columns
            .iter()
            .map(|c| cast_array(&c.array, &common, &args.style));
        let columns = columns.collect::<Result<Vec<_>>>()?;
        let converter = RowConverter::new(vec![SortField::new(common)])?;
        let keys = columns
            .iter()
            .map(|c| Ok(converter.convert_columns(&[key_array(c)?])?));
        Ok(Keys {
            args,
            keys: keys.collect::<Result<_>>()?,
            columns,
        })
    }

    fn is_null(&self, i: usize, row: usize) -> bool {
        self.columns[i].is_null(self.args.columns[i].at(row))
    }

    fn key(&self, i: usize, row: usize) -> arrow::row::Row<'_> {
        self.keys[i].row(self.args.columns[i].at(row))
    }

    /// The arguments that are not NULL.
    fn known(&self, row: usize) -> impl Iterator<Item = usize> {
        (0..self.columns.len()).filter(move |i| !self.is_null(*i, row))
    }
}

/// Takes from each row the argument that `choose` names; none gives NULL.
fn pick(args: &Args, choose: impl Fn(&Keys, usize) -> Option<usize>) -> Result<ArrayRef> {
    let keys = Keys::of(args)?;
    let Some(first) = keys.columns.first() else {
        return Err(Error::new(
            ErrorKind::Syntax,
            "at least one argument is needed",
        ));
    };
    let null = arrow::array::new_null_array(first.data_type(), 1);
    let picks = (0..args.rows).map(|row| match choose(&keys, row) {
        Some(i) => (i, args.columns[i].at(row)),
        None => (keys.columns.len(), 0),
    });
    let picks: Vec<_> = picks.collect();
    let mut sources: Vec<&dyn Array> = keys.columns.iter().map(|c| c.as_ref()).collect();
    sources.push(null.as_ref());
    Ok(interleave(&sources, &picks)?)
}

fn nullif(args: &Args) -> Result<ArrayRef> {
    let keys = Keys::of(args)?;
    let types: Vec<_> = args
        .columns
        .iter()
        .map(|c| c.array.data_type().clone())
        .collect();
    let first = cast_array(&args.columns[0].array, &nullif_type(&types)?, &args.style)?;
    let null = arrow::array::new_null_array(first.data_type(), 1);
    let picks = (0..args.rows).map(|row| {
        let equal =
            !keys.is_null(0, row) && !keys.is_null(1, row) && keys.key(0, row) == keys.key(1, row);
        if equal {
            (1, 0)
        } else {
            (0, args.columns[0].at(row))
        }
    });
    Ok(interleave(
        &[first.as_ref(), null.as_ref()],
        &picks.collect::<Vec<_>>(),
    )?)
}
