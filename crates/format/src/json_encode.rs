//! `ENCODE JSON` of a sink: one row as a JSON object, as RisingWave's sinks write it.
//!
//! Keys stand in alphabetical order, also inside structs, and there is no white space.
//!
//! | type | written as |
//! | --- | --- |
//! | boolean, integers, floats | themselves; NaN and the infinities as `null` |
//! | numeric | string |
//! | date | days, where 0001-01-01 is 1 (1970-01-01 is 719163) |
//! | time, timestamp | milliseconds since midnight, since 1970 |
//! | timestamptz | by [`TimestamptzHandling`], RFC 3339 with microseconds and `Z` by default |
//! | interval | ISO 8601, all parts: `P1Y2M3DT4H5M6.78S` |
//! | bytea | base64 |
//! | jsonb | by [`JsonbHandling`], a string by default |
//! | array, struct | array, object |

use std::fmt::Write;

use arrow::array::cast::AsArray;
use arrow::array::types::{
    Date32Type, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type,
    IntervalMonthDayNanoType, Time64MicrosecondType, TimestampMicrosecondType,
};
use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, IntervalMonthDayNano};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ruslo_repr::schema::type_name;
use ruslo_repr::text::civil_from_days;
use ruslo_repr::text::json::write_string;
use ruslo_repr::{Error, Numeric, Result, Schema};

use crate::json::unrecognized;

const SECOND_US: i64 = 1_000_000;
const DAY_US: i64 = 86_400 * SECOND_US;
/// 1970-01-01, when 0001-01-01 is 1.
const EPOCH_DAYS_CE: i64 = 719_163;

/// How a sink writes `timestamptz`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TimestamptzHandling {
    /// `"2026-11-22T10:00:00.123456Z"`
    #[default]
    UtcString,
    /// `"2026-11-22 10:00:00.123456"`
    UtcWithoutSuffix,
    Milli,
    Micro,
}

/// How a sink writes `jsonb`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum JsonbHandling {
    /// Its text as a string.
    #[default]
    String,
    /// The value itself.
    Dynamic,
}

/// The options of a sink's `ENCODE JSON`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JsonEncodeOptions {
    pub timestamptz: TimestamptzHandling,
    pub jsonb: JsonbHandling,
}

impl JsonEncodeOptions {
    /// Sets the option `name`, as `jsonb.handling.mode`; false if there is none of that name.
    ///
    /// Fails with `InvalidParameter` for a value that the option does not have.
    pub fn set(&mut self, name: &str, value: &str) -> Result<bool> {
        match name {
            "timestamptz.handling.mode" => {
                self.timestamptz = match value {
                    "utc_string" => TimestamptzHandling::UtcString,
                    "utc_without_suffix" => TimestamptzHandling::UtcWithoutSuffix,
                    "milli" => TimestamptzHandling::Milli,
                    "micro" => TimestamptzHandling::Micro,
                    _ => {
                        let values = "utc_string, utc_without_suffix, milli, micro";
                        return Err(unrecognized(name, value, values));
                    }
                }
            }
            "jsonb.handling.mode" => {
                self.jsonb = match value {
                    "string" => JsonbHandling::String,
                    "dynamic" => JsonbHandling::Dynamic,
                    _ => return Err(unrecognized(name, value, "string, dynamic")),
                }
            }
            _ => return Ok(false),
        }
        Ok(true)
    }
}

/// Writes some columns of a schema's rows as JSON objects.
pub struct JsonEncoder {
    object: Object,
    options: JsonEncodeOptions,
}

/// The members of an object in the order in which they are written.
struct Object {
    members: Vec<Member>,
}

struct Member {
    /// The key as JSON, with the colon.
    key: String,
    /// The column's or field's position.
    position: usize,
    value: Value,
}

enum Value {
    Scalar,
    List(Box<Value>),
    Struct(Object),
}

impl JsonEncoder {
    /// `columns` are positions in `schema`, whose batches will be written.
    ///
    /// Fails with `Unsupported` for a type that has no JSON form.
    pub fn new(schema: &Schema, columns: &[usize], options: JsonEncodeOptions) -> Result<Self> {
        let mut members = vec![];
        for &position in columns {
            let column = schema.columns.get(position);
            let column = column
                .ok_or_else(|| Error::internal(format!("the sink has no column {position}")))?;
            members.push((column.name.as_str(), position, Value::of(&column.ty)?));
        }
        Ok(JsonEncoder {
            object: Object::new(members),
            options,
        })
    }

    /// Appends the object of row `row` to `out`. Panics if the batch is not of the schema.
    pub fn write(&self, batch: &RecordBatch, row: usize, out: &mut Vec<u8>) {
        let mut text = String::new();
        self.object
            .write(batch.columns(), row, self.options, &mut text);
        out.extend_from_slice(text.as_bytes());
    }
}

impl Object {
    fn new(mut members: Vec<(&str, usize, Value)>) -> Self {
        members.sort_by_key(|(name, ..)| *name);
        let members = members.into_iter().map(|(name, position, value)| {
            let mut key = String::new();
            push_string(name, &mut key);
            key.push(':');
            Member {
                key,
                position,
                value,
            }
        });
        Object {
            members: members.collect(),
        }
    }

    fn write(
        &self,
        columns: &[ArrayRef],
        row: usize,
        options: JsonEncodeOptions,
        out: &mut String,
    ) {
        out.push('{');
        for (i, member) in self.members.iter().enumerate() {
            if i > 0 {
                out.push(',');
            }
            out.push_str(&member.key);
            let column = columns[member.position].as_ref();
            member.value.write(column, row, options, out);
        }
        out.push('}');
    }
}

impl Value {
    fn of(ty: &DataType) -> Result<Self> {
        Ok(match ty {
            DataType::Boolean
            | DataType::Int16
            | DataType::Int32
            | DataType::Int64
            | DataType::Float32
            | DataType::Float64
            | DataType::FixedSizeBinary(16)
            | DataType::Utf8
            | DataType::LargeUtf8
            | DataType::Binary
            | DataType::Date32
            | DataType::Time64(_)
            | DataType::Timestamp(..)
            | DataType::Interval(_)
            | DataType::Null => Value::Scalar,
            DataType::List(item) => Value::List(Box::new(Value::of(item.data_type())?)),
            DataType::Struct(fields) => {
                let members = fields.iter().enumerate().map(|(i, field)| {
                    Ok((field.name().as_str(), i, Value::of(field.data_type())?))
                });
                Value::Struct(Object::new(members.collect::<Result<_>>()?))
            }
            other => {
                let message = format!("type {} cannot be written as JSON", type_name(other));
                return Err(Error::unsupported(message));
            }
        })
    }

    fn write(&self, array: &dyn Array, row: usize, options: JsonEncodeOptions, out: &mut String) {
        match self {
            _ if array.is_null(row) => out.push_str("null"),
            Value::Scalar => write_scalar(array, row, options, out),
            Value::Struct(object) => object.write(array.as_struct().columns(), row, options, out),
            Value::List(value) => {
                let items = array.as_list::<i32>().value(row);
                out.push('[');
                for i in 0..items.len() {
                    if i > 0 {
                        out.push(',');
                    }
                    value.write(items.as_ref(), i, options, out);
                }
                out.push(']');
            }
        }
    }
}

/// Writes a value that is not NULL.
fn write_scalar(array: &dyn Array, row: usize, options: JsonEncodeOptions, out: &mut String) {
    match array.data_type() {
        DataType::Boolean => push_display(array.as_boolean().value(row), out),
        DataType::Int16 => push_integer(array.as_primitive::<Int16Type>().value(row), out),
        DataType::Int32 => push_integer(array.as_primitive::<Int32Type>().value(row), out),
        DataType::Int64 => push_integer(array.as_primitive::<Int64Type>().value(row), out),
        DataType::Float32 => push_float(array.as_primitive::<Float32Type>().value(row), out),
        DataType::Float64 => push_float(array.as_primitive::<Float64Type>().value(row), out),
        DataType::FixedSizeBinary(16) => {
            let bytes = array.as_fixed_size_binary().value(row).try_into();
            let numeric = bytes.map_or(Numeric::NaN, Numeric::from_bytes);
            push_display(format_args!("\"{numeric}\""), out);
        }
        DataType::Utf8 => push_string(array.as_string::<i32>().value(row), out),
        DataType::LargeUtf8 => {
            let text = array.as_string::<i64>().value(row);
            match options.jsonb {
                JsonbHandling::String => push_string(text, out),
                JsonbHandling::Dynamic => out.push_str(text),
            }
        }
        DataType::Binary => {
            out.push('"');
            STANDARD.encode_string(array.as_binary::<i32>().value(row), out);
            out.push('"');
        }
        DataType::Date32 => {
            let days = i64::from(array.as_primitive::<Date32Type>().value(row));
            push_integer(days + EPOCH_DAYS_CE, out);
        }
        DataType::Time64(_) => {
            let micros = array.as_primitive::<Time64MicrosecondType>().value(row);
            push_integer(micros.div_euclid(1_000), out);
        }
        DataType::Timestamp(_, None) => {
            let micros = array.as_primitive::<TimestampMicrosecondType>().value(row);
            push_integer(micros.div_euclid(1_000), out);
        }
        DataType::Timestamp(_, Some(_)) => {
            let micros = array.as_primitive::<TimestampMicrosecondType>().value(row);
            push_timestamptz(micros, options.timestamptz, out);
        }
        DataType::Interval(_) => {
            push_interval(
                array.as_primitive::<IntervalMonthDayNanoType>().value(row),
                out,
            );
        }
        // `Value::of` lets only the null type come here, whose values are all NULL.
        _ => out.push_str("null"),
    }
}

/// Writing to a String cannot fail.
fn push_display(value: impl std::fmt::Display, out: &mut String) {
    let _ = write!(out, "{value}");
}

fn push_string(value: &str, out: &mut String) {
    let _ = write_string(value, out);
}

fn push_integer(value: impl itoa::Integer, out: &mut String) {
    out.push_str(itoa::Buffer::new().format(value));
}

/// The shortest digits that read back as the same value; JSON has no NaN and no infinity.
fn push_float<F: ryu::Float + Into<f64>>(value: F, out: &mut String) {
    match value.into().is_finite() {
        true => out.push_str(ryu::Buffer::new().format_finite(value)),
        false => out.push_str("null"),
    }
}

fn push_timestamptz(micros: i64, handling: TimestamptzHandling, out: &mut String) {
    let (separator, suffix) = match handling {
        TimestamptzHandling::UtcString => ('T', "Z"),
        TimestamptzHandling::UtcWithoutSuffix => (' ', ""),
        TimestamptzHandling::Milli => return push_integer(micros.div_euclid(1_000), out),
        TimestamptzHandling::Micro => return push_integer(micros, out),
    };
    let (year, month, day) = civil_from_days(micros.div_euclid(DAY_US));
    let time_us = micros.rem_euclid(DAY_US);
    let (seconds, fraction) = (time_us / SECOND_US, time_us % SECOND_US);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    out.push('"');
    match year {
        0..=9999 => push_display(format_args!("{year:04}"), out),
        _ => push_display(format_args!("{year:+05}"), out),
    }
    push_display(
        format_args!(
            "-{month:02}-{day:02}{separator}{hour:02}:{minute:02}:{second:02}.{fraction:06}{suffix}\""
        ),
        out,
    );
}

/// Each part carries its own sign.
fn push_interval(value: IntervalMonthDayNano, out: &mut String) {
    let (years, months) = (value.months / 12, value.months % 12);
    let micros = value.nanoseconds / 1_000;
    let sign = if micros < 0 { "-" } else { "" };
    let seconds = micros.unsigned_abs() / SECOND_US.unsigned_abs();
    let fraction = micros.unsigned_abs() % SECOND_US.unsigned_abs();
    push_display(format_args!("\"P{years}Y{months}M{}DT", value.days), out);
    for (part, unit) in [(seconds / 3600, 'H'), (seconds / 60 % 60, 'M')] {
        let sign = if part == 0 { "" } else { sign };
        push_display(format_args!("{sign}{part}{unit}"), out);
    }
    let seconds = seconds % 60;
    let sign = if (seconds, fraction) == (0, 0) {
        ""
    } else {
        sign
    };
    push_display(format_args!("{sign}{seconds}"), out);
    if fraction != 0 {
        let digits = format!("{fraction:06}");
        out.push('.');
        out.push_str(digits.trim_end_matches('0'));
    }
    out.push_str("S\"");
}

#[cfg(test)]
mod tests;
