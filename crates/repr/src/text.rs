//! PostgreSQL's text form of every type: the border between Arrow arrays and psql, casts to
//! `varchar`, COPY and string literals.
//!
//! ```text
//!   array, row  ── write_text ──>  2024-01-31 10:00:00   ── parse_texts ──>  array
//! ```
//!
//! Printing follows PostgreSQL's default settings (`datestyle` ISO, `intervalstyle` postgres,
//! `extra_float_digits` 1, `bytea_output` hex). What is printed parses back to the same value.
//! No value panics, however extreme. jsonb is stored as the text that [`json::canonical`] makes,
//! so printing it is copying.

mod datetime;
mod datetime_parse;
mod interval;
pub mod json;
mod nested;
mod number;
mod scalar;
mod zone;

use std::fmt::Write;
use std::sync::Arc;

use arrow::array::cast::AsArray;
use arrow::array::types::{
    Date32Type, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type,
    IntervalMonthDayNanoType, Time64MicrosecondType, TimestampMicrosecondType,
};
use arrow::array::{
    Array, ArrayRef, BinaryArray, BooleanArray, FixedSizeBinaryArray, LargeStringArray,
    PrimitiveArray, StringArray, new_null_array,
};
use arrow::datatypes::{ArrowPrimitiveType, DataType};

use crate::{Error, Numeric, Result};

pub use datetime::{
    civil_from_days, days_from_civil, days_in_month, write_date, write_offset, write_time,
    write_timestamp, write_timestamptz,
};
pub use datetime_parse::{parse_date, parse_time, parse_timestamp, parse_timestamptz};
pub use interval::{interval_nanos, interval_order, parse_interval, write_interval};
pub use number::{parse_f32, parse_f64, parse_int, write_f32, write_f64};
pub use scalar::{parse_bool, parse_bytea, write_bytea};
pub use zone::Zone;

/// Microseconds in a day.
pub const DAY_US: i64 = 86_400_000_000;

/// The session settings that the text form depends on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TextStyle {
    /// In which `timestamptz` is printed, and read when the text names no zone.
    pub time_zone: Zone,
}

impl TextStyle {
    /// A style for a zone's IANA name (any case) or an offset such as `+02:00`.
    pub fn with_time_zone(name: &str) -> Result<Self> {
        let time_zone = name.parse()?;
        Ok(TextStyle { time_zone })
    }
}

/// Appends PostgreSQL's text form of value `row` of `array`; false (and nothing appended) for NULL.
///
/// A boolean prints as `t` or `f`, as it does on the wire; see [`write_cast_text`].
pub fn write_text(array: &dyn Array, row: usize, style: &TextStyle, out: &mut String) -> bool {
    // An array of the type Null has no null buffer that would tell.
    if array.is_null(row) || array.data_type().is_null() {
        return false;
    }
    match array.data_type() {
        DataType::Boolean => out.push(if array.as_boolean().value(row) {
            't'
        } else {
            'f'
        }),
        DataType::Int16 => write_int(array.as_primitive::<Int16Type>().value(row), out),
        DataType::Int32 => write_int(array.as_primitive::<Int32Type>().value(row), out),
        DataType::Int64 => write_int(array.as_primitive::<Int64Type>().value(row), out),
        DataType::Float32 => write_f32(array.as_primitive::<Float32Type>().value(row), out),
        DataType::Float64 => write_f64(array.as_primitive::<Float64Type>().value(row), out),
        DataType::FixedSizeBinary(16) => {
            let bytes = array.as_fixed_size_binary().value(row);
            let numeric = numeric_of(bytes);
            write_int(numeric, out);
        }
        DataType::Utf8 => out.push_str(array.as_string::<i32>().value(row)),
        DataType::LargeUtf8 => out.push_str(array.as_string::<i64>().value(row)),
        DataType::Utf8View => out.push_str(array.as_string_view().value(row)),
        DataType::Binary => write_bytea(array.as_binary::<i32>().value(row), out),
        DataType::Date32 => write_date(array.as_primitive::<Date32Type>().value(row), out),
        DataType::Time64(_) => write_time(
            array.as_primitive::<Time64MicrosecondType>().value(row),
            out,
        ),
        DataType::Timestamp(_, zone) => {
            let micros = array.as_primitive::<TimestampMicrosecondType>().value(row);
            match zone {
                None => write_timestamp(micros, out),
                Some(_) => write_timestamptz(micros, style, out),
            }
        }
        DataType::Interval(_) => {
            let value = array.as_primitive::<IntervalMonthDayNanoType>().value(row);
            write_interval(value, out)
        }
        DataType::List(_) => nested::write_list(&array.as_list::<i32>().value(row), style, out),
        DataType::Struct(_) => nested::write_struct(array.as_struct(), row, style, out),
        _ => write_foreign(array, row, out),
    }
    true
}

/// As [`write_text`], but as a cast to `varchar` does it: a boolean is `true` or `false`.
pub fn write_cast_text(array: &dyn Array, row: usize, style: &TextStyle, out: &mut String) -> bool {
    match array.as_boolean_opt() {
        Some(booleans) if booleans.is_valid(row) => {
            out.push_str(if booleans.value(row) { "true" } else { "false" });
            true
        }
        _ => write_text(array, row, style, out),
    }
}

/// Parses PostgreSQL's text input form into an array of length one, never NULL.
///
/// Fails with `InvalidText`, `InvalidDatetime`, `DatetimeOverflow` or `OutOfRange` and PostgreSQL's message.
pub fn parse_text(text: &str, ty: &DataType, style: &TextStyle) -> Result<ArrayRef> {
    parse_texts(&[Some(text)], ty, style)
}

/// Parses a column of texts; `None` becomes NULL.
pub fn parse_texts(texts: &[Option<&str>], ty: &DataType, style: &TextStyle) -> Result<ArrayRef> {
    Ok(match ty {
        DataType::Boolean => {
            let values = texts.iter().map(|t| t.map(parse_bool).transpose());
            Arc::new(values.collect::<Result<BooleanArray>>()?)
        }
        DataType::Int16 => primitives::<Int16Type>(texts, |t| {
            parse_int(t, i16::MIN.into(), i16::MAX.into(), "smallint").map(|v| v as i16)
        })?,
        DataType::Int32 => primitives::<Int32Type>(texts, |t| {
            parse_int(t, i32::MIN.into(), i32::MAX.into(), "integer").map(|v| v as i32)
        })?,
        DataType::Int64 => {
            primitives::<Int64Type>(texts, |t| parse_int(t, i64::MIN, i64::MAX, "bigint"))?
        }
        DataType::Float32 => primitives::<Float32Type>(texts, parse_f32)?,
        DataType::Float64 => primitives::<Float64Type>(texts, parse_f64)?,
        DataType::FixedSizeBinary(16) => {
            let values = texts.iter();
            let values =
                values.map(|t| t.map(|t| Ok(t.parse::<Numeric>()?.to_bytes())).transpose());
            let values = values.collect::<Result<Vec<_>>>()?;
            let values =
                FixedSizeBinaryArray::try_from_sparse_iter_with_size(values.into_iter(), 16);
            Arc::new(values?)
        }
        DataType::Utf8 => Arc::new(texts.iter().copied().collect::<StringArray>()),
        DataType::LargeUtf8 => {
            let values = texts.iter().map(|t| t.map(json::canonical).transpose());
            Arc::new(values.collect::<Result<LargeStringArray>>()?)
        }
        DataType::Binary => {
            let values = texts.iter().map(|t| t.map(parse_bytea).transpose());
            Arc::new(
                values
                    .collect::<Result<Vec<_>>>()?
                    .into_iter()
                    .collect::<BinaryArray>(),
            )
        }
        DataType::Date32 => primitives::<Date32Type>(texts, parse_date)?,
        DataType::Time64(_) => primitives::<Time64MicrosecondType>(texts, parse_time)?,
        DataType::Timestamp(_, None) => {
            primitives::<TimestampMicrosecondType>(texts, parse_timestamp)?
        }
        DataType::Timestamp(_, Some(_)) => {
            let parse = |t: &str| parse_timestamptz(t, style);
            let values = texts.iter().map(|t| t.map(parse).transpose());
            let values = values.collect::<Result<Vec<_>>>()?;
            let array = PrimitiveArray::<TimestampMicrosecondType>::from(values);
            Arc::new(array.with_data_type(ty.clone()))
        }
        DataType::Interval(_) => primitives::<IntervalMonthDayNanoType>(texts, parse_interval)?,
        DataType::List(item) => nested::parse_lists(texts, item, style)?,
        DataType::Struct(fields) => nested::parse_structs(texts, fields, style)?,
        DataType::Null => new_null_array(ty, texts.len()),
        other => {
            let message = format!("type {} has no text form", crate::schema::type_name(other));
            return Err(Error::unsupported(message));
        }
    })
}

fn primitives<T: ArrowPrimitiveType>(
    texts: &[Option<&str>],
    parse: impl Fn(&str) -> Result<T::Native>,
) -> Result<ArrayRef> {
    let values = texts.iter().map(|t| t.map(&parse).transpose());
    let values = values.collect::<Result<Vec<_>>>()?;
    Ok(Arc::new(values.into_iter().collect::<PrimitiveArray<T>>()))
}

fn write_int(value: impl std::fmt::Display, out: &mut String) {
    // Writing to a String cannot fail.
    let _ = write!(out, "{value}");
}

fn numeric_of(bytes: &[u8]) -> Numeric {
    bytes.try_into().map_or(Numeric::NaN, Numeric::from_bytes)
}

/// Types outside our type system, which only DataFusion's own functions make.
fn write_foreign(array: &dyn Array, row: usize, out: &mut String) {
    let text = arrow::util::display::array_value_to_string(array, row);
    out.push_str(&text.unwrap_or_else(|_| "?".to_string()));
}

#[cfg(test)]
mod tests;
