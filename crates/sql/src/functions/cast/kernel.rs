//! The casts of arrays.

use std::sync::Arc;

use arrow::array::cast::AsArray;
use arrow::array::{Array, ArrayRef, ListArray, StringBuilder, StructArray, new_null_array};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, IntervalMonthDayNano, TimeUnit};
use ruslo_repr::schema::{INTERVAL, NUMERIC, type_name};
use ruslo_repr::text::json::Json;
use ruslo_repr::text::{DAY_US, TextStyle, parse_texts, write_cast_text};
use ruslo_repr::{Error, ErrorKind, Numeric, Result};

use super::super::arith::float_overflow;
use super::super::numeric::{numeric_from_f64, numeric_to_f64, numeric_to_int};
use super::super::types::*;
use super::cannot_cast;

/// The type's name in "… out of range".
fn out_of_range(ty: &DataType) -> Error {
    Error::new(
        ErrorKind::OutOfRange,
        format!("{} out of range", type_name(ty)),
    )
}

/// Casts every value, NULL to NULL. Whether the cast is allowed where it stands was asked before.
pub(in crate::functions) fn cast_array(
    array: &ArrayRef,
    to: &DataType,
    style: &TextStyle,
) -> Result<ArrayRef> {
    let from = array.data_type();
    if from == to {
        return Ok(array.clone());
    }
    match (from, to) {
        (DataType::Null, _) => Ok(new_null_array(to, array.len())),
        (_, DataType::Utf8) => to_text(array, style),
        (DataType::Utf8, _) => {
            let texts: Vec<_> = array.as_string::<i32>().iter().collect();
            parse_texts(&texts, to, style)
        }
        (DataType::LargeUtf8, _) => json_to_scalar(array, to),
        (DataType::List(_), DataType::List(item)) => {
            let list = array.as_list::<i32>();
            let values = cast_array(list.values(), item.data_type(), style)?;
            let (offsets, nulls) = (list.offsets().clone(), list.nulls().cloned());
            Ok(Arc::new(ListArray::try_new(
                item.clone(),
                offsets,
                values,
                nulls,
            )?))
        }
        (DataType::Struct(_), DataType::Struct(fields)) => {
            let source = array.as_struct();
            let columns = source.columns().iter().zip(fields.iter());
            let columns = columns.map(|(c, f)| cast_array(c, f.data_type(), style));
            let (columns, nulls) = (columns.collect::<Result<_>>()?, source.nulls().cloned());
            let length = array.len();
            let cast = StructArray::try_new_with_length(fields.clone(), columns, nulls, length)?;
            Ok(Arc::new(cast))
        }
        (_, DataType::Boolean) => map::<Int4, Bool>(array, |value| Ok(value != 0)),
        _ if is_datetime(from) || is_datetime(to) => cast_datetime(array, to, style),
        _ => cast_number(array, to),
    }
}

fn is_datetime(ty: &DataType) -> bool {
    *ty == INTERVAL
        || matches!(
            ty,
            DataType::Date32 | DataType::Time64(_) | DataType::Timestamp(..)
        )
}

/// Applies a function to every value of an array of the type `A`.
fn map<A: SqlType, R: SqlType>(
    array: &ArrayRef,
    f: impl Fn(A::Value<'_>) -> Result<R::Owned>,
) -> Result<ArrayRef> {
    let column = Column {
        array: array.clone(),
        constant: false,
    };
    let reader = column
        .reader::<A>()
        .map_err(|_| cannot_cast(array.data_type(), &R::data_type()))?;
    let values = (0..array.len()).map(|row| reader.get(row).map(&f).transpose());
    R::collect(values.collect::<Result<_>>()?)
}

/// Arrow's kernel, for casts that lose nothing and can only fail by range.
fn widen(array: &ArrayRef, to: &DataType) -> Result<ArrayRef> {
    let options = CastOptions {
        safe: false,
        ..CastOptions::default()
    };
    cast_with_options(array, to, &options).map_err(|_| out_of_range(to))
}

fn to_text(array: &ArrayRef, style: &TextStyle) -> Result<ArrayRef> {
    let mut builder = StringBuilder::with_capacity(array.len(), array.len() * 8);
    let mut text = String::new();
    for row in 0..array.len() {
        text.clear();
        match write_cast_text(array, row, style, &mut text) {
            true => builder.append_value(&text),
            false => builder.append_null(),
        }
    }
    Ok(Arc::new(builder.finish()))
}

fn cast_number(array: &ArrayRef, to: &DataType) -> Result<ArrayRef> {
    use DataType::{
        Boolean, Decimal128, Decimal256, FixedSizeBinary, Float32, Float64, Int16, Int32, Int64,
        UInt64, Utf8View,
    };
    match (array.data_type(), to) {
        (FixedSizeBinary(16), Int16) => {
            map::<Num, Int2>(array, |v| narrow(numeric_to_int(v, "smallint")?, to))
        }
        (FixedSizeBinary(16), Int32) => {
            map::<Num, Int4>(array, |v| narrow(numeric_to_int(v, "integer")?, to))
        }
        (FixedSizeBinary(16), Int64) => map::<Num, Int8>(array, |v| numeric_to_int(v, "bigint")),
        (FixedSizeBinary(16), Float32) => {
            map::<Num, Float4>(array, |v| Ok(numeric_to_f64(v) as f32))
        }
        (FixedSizeBinary(16), Float64) => map::<Num, Float8>(array, |v| Ok(numeric_to_f64(v))),
        (Float32, FixedSizeBinary(16)) => {
            map::<Float4, Num>(array, |v| numeric_from_f64(v.into(), 6))
        }
        (Float64, FixedSizeBinary(16)) => map::<Float8, Num>(array, |v| numeric_from_f64(v, 15)),
        (Float64, Float32) => map::<Float8, Float4>(array, |v| {
            let narrow = v as f32;
            match (narrow.is_infinite() && v.is_finite()) || (narrow == 0.0 && v != 0.0) {
                true => Err(float_overflow()),
                false => Ok(narrow),
            }
        }),
        (Float32, Int16 | Int32 | Int64) => cast_number(&widen(array, &Float64)?, to),
        (Float64, Int16) => map::<Float8, Int2>(array, |v| narrow(float_to_int(v, to)?, to)),
        (Float64, Int32) => map::<Float8, Int4>(array, |v| narrow(float_to_int(v, to)?, to)),
        (Float64, Int64) => map::<Float8, Int8>(array, |v| float_to_int(v, to)),
        (Decimal128(..) | Decimal256(..) | UInt64, FixedSizeBinary(16)) => cast_array(
            &to_text(array, &TextStyle::default())?,
            to,
            &TextStyle::default(),
        ),
        (Int64, FixedSizeBinary(16)) => map::<Int8, Num>(array, |v| Ok(Numeric::Finite(v.into()))),
        (from, FixedSizeBinary(16)) if from.is_integer() => {
            cast_number(&widen(array, &Int64)?, &NUMERIC)
        }
        (from, to) if from.is_numeric() && to.is_numeric() => widen(array, to),
        (Boolean, Int32) => widen(array, to),
        (Utf8View, _) | (_, Utf8View) => widen(array, to),
        (from, to) => Err(cannot_cast(from, to)),
    }
}

fn narrow<T: TryFrom<i64>>(value: i64, to: &DataType) -> Result<T> {
    T::try_from(value).map_err(|_| out_of_range(to))
}

/// To the nearest integer, halves to even.
fn float_to_int(value: f64, to: &DataType) -> Result<i64> {
    let rounded = value.round_ties_even();
    // -2^63 is exact as a float; 2^63 is the first that does not fit. NaN fails both.
    const LIMIT: f64 = 9_223_372_036_854_775_808.0;
    match (-LIMIT..LIMIT).contains(&rounded) {
        true => Ok(rounded as i64),
        false => Err(out_of_range(to)),
    }
}

fn cast_datetime(array: &ArrayRef, to: &DataType, style: &TextStyle) -> Result<ArrayRef> {
    let zone = style.time_zone;
    let days_to_micros = |days: i32| {
        i64::from(days).checked_mul(DAY_US).ok_or_else(|| {
            Error::new(
                ErrorKind::DatetimeOverflow,
                "date out of range for timestamp",
            )
        })
    };
    let date_of = |micros: i64| {
        i32::try_from(micros.div_euclid(DAY_US))
            .map_err(|_| Error::new(ErrorKind::DatetimeOverflow, "date out of range"))
    };
    match (array.data_type(), to) {
        (DataType::Timestamp(unit, _), _) if *unit != TimeUnit::Microsecond => {
            let zone = match array.data_type() {
                DataType::Timestamp(_, zone) => zone.clone(),
                _ => None,
            };
            let micros = DataType::Timestamp(TimeUnit::Microsecond, zone.map(|_| "UTC".into()));
            cast_array(&widen(array, &micros)?, to, style)
        }
        (DataType::Timestamp(_, Some(name)), _) if name.as_ref() != "UTC" => {
            let utc = ruslo_repr::schema::timestamptz();
            cast_array(&widen(array, &utc)?, to, style)
        }
        (DataType::Date32, DataType::Timestamp(_, None)) => {
            map::<Date, Timestamp>(array, days_to_micros)
        }
        (DataType::Date32, DataType::Timestamp(_, Some(_))) => {
            map::<Date, Timestamptz>(array, |days| Ok(zone.to_utc(days_to_micros(days)?)))
        }
        (DataType::Timestamp(_, None), DataType::Timestamp(_, Some(_))) => {
            map::<Timestamp, Timestamptz>(array, |local| Ok(zone.to_utc(local)))
        }
        (DataType::Timestamp(_, Some(_)), DataType::Timestamp(_, None)) => {
            map::<Timestamptz, Timestamp>(array, |utc| Ok(zone.to_local(utc)))
        }
        (DataType::Timestamp(_, None), DataType::Date32) => map::<Timestamp, Date>(array, date_of),
        (DataType::Timestamp(_, Some(_)), DataType::Date32) => {
            map::<Timestamptz, Date>(array, |utc| date_of(zone.to_local(utc)))
        }
        (DataType::Timestamp(_, None), DataType::Time64(_)) => {
            map::<Timestamp, Time>(array, |local| Ok(local.rem_euclid(DAY_US)))
        }
        (DataType::Timestamp(_, Some(_)), DataType::Time64(_)) => {
            map::<Timestamptz, Time>(array, |utc| Ok(zone.to_local(utc).rem_euclid(DAY_US)))
        }
        (DataType::Time64(TimeUnit::Microsecond), DataType::Interval(_)) => {
            map::<Time, Interval>(array, |us| Ok(IntervalMonthDayNano::new(0, 0, us * 1000)))
        }
        (DataType::Interval(_), DataType::Time64(_)) => {
            map::<Interval, Time>(array, |v| Ok((v.nanoseconds / 1000).rem_euclid(DAY_US)))
        }
        (DataType::Time64(_), DataType::Time64(_)) | (DataType::Date64, _) => widen(array, to),
        (from, to) => Err(cannot_cast(from, to)),
    }
}

fn json_to_scalar(array: &ArrayRef, to: &DataType) -> Result<ArrayRef> {
    let texts = array.as_string::<i64>();
    let mut scalars = Vec::with_capacity(array.len());
    for text in texts.iter() {
        let scalar = match text.map(Json::parse).transpose()? {
            None => None,
            Some(Json::Number(digits)) if *to != DataType::Boolean => Some(digits),
            Some(Json::Bool(value)) if *to == DataType::Boolean => Some(value.to_string()),
            Some(other) => {
                let what = match other.type_name() {
                    "number" => "numeric",
                    name => name,
                };
                let message = format!("cannot cast jsonb {what} to type {}", type_name(to));
                return Err(Error::new(ErrorKind::InvalidParameter, message));
            }
        };
        scalars.push(scalar);
    }
    let scalars: Vec<Option<&str>> = scalars.iter().map(|s| s.as_deref()).collect();
    match to {
        DataType::Boolean => parse_texts(&scalars, to, &TextStyle::default()),
        _ => cast_array(
            &parse_texts(&scalars, &NUMERIC, &TextStyle::default())?,
            to,
            &TextStyle::default(),
        ),
    }
}
