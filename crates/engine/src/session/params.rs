//! Query parameters as clients send them, in PostgreSQL's text or binary form.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, FixedSizeBinaryArray, Float32Array,
    Float64Array, Int16Array, Int32Array, Int64Array, IntervalMonthDayNanoArray, LargeStringArray,
    StringArray, Time64MicrosecondArray, TimestampMicrosecondArray, new_null_array,
};
use arrow::datatypes::{DataType, IntervalMonthDayNano};
use ruslo_repr::text::json::canonical;
use ruslo_repr::text::{TextStyle, parse_text};
use ruslo_repr::{Error, ErrorKind, Numeric, Result};

use super::Param;

const DAYS_TO_2000: i32 = 10_957;
const MICROS_TO_2000: i64 = 946_684_800_000_000;

/// Arrays of length one in the types given.
pub(super) fn decode(
    params: &[Param],
    types: &[DataType],
    style: &TextStyle,
) -> Result<Vec<ArrayRef>> {
    if params.len() != types.len() {
        let message = format!(
            "bind message supplies {} parameters, but the statement requires {}",
            params.len(),
            types.len()
        );
        return Err(Error::new(ErrorKind::InvalidParameter, message));
    }
    let decoded = params.iter().zip(types).map(|(param, ty)| match param {
        Param::Null => Ok(new_null_array(ty, 1)),
        Param::Text(text) => parse_text(text, ty, style),
        Param::Binary(bytes) => binary(bytes, ty),
    });
    decoded.collect()
}

fn binary(bytes: &[u8], ty: &DataType) -> Result<ArrayRef> {
    let array: ArrayRef = match ty {
        DataType::Boolean => Arc::new(BooleanArray::from(vec![fixed::<1>(bytes)?[0] != 0])),
        DataType::Int16 => Arc::new(Int16Array::from(vec![i16::from_be_bytes(fixed(bytes)?)])),
        DataType::Int32 => Arc::new(Int32Array::from(vec![i32::from_be_bytes(fixed(bytes)?)])),
        DataType::Int64 => Arc::new(Int64Array::from(vec![i64::from_be_bytes(fixed(bytes)?)])),
        DataType::Float32 => Arc::new(Float32Array::from(vec![f32::from_be_bytes(fixed(bytes)?)])),
        DataType::Float64 => Arc::new(Float64Array::from(vec![f64::from_be_bytes(fixed(bytes)?)])),
        DataType::Utf8 => Arc::new(StringArray::from(vec![text(bytes)?])),
        DataType::LargeUtf8 => {
            // jsonb: a version byte, then text.
            let body = bytes.strip_prefix(&[1]).ok_or_else(invalid)?;
            Arc::new(LargeStringArray::from(vec![canonical(text(body)?)?]))
        }
        DataType::Binary => Arc::new(BinaryArray::from(vec![bytes])),
        DataType::Date32 => {
            let days = i32::from_be_bytes(fixed(bytes)?);
            Arc::new(Date32Array::from(vec![days.saturating_add(DAYS_TO_2000)]))
        }
        DataType::Time64(_) => Arc::new(Time64MicrosecondArray::from(vec![i64::from_be_bytes(
            fixed(bytes)?,
        )])),
        DataType::Timestamp(_, zone) => {
            let micros = i64::from_be_bytes(fixed(bytes)?).saturating_add(MICROS_TO_2000);
            let array = TimestampMicrosecondArray::from(vec![micros]);
            Arc::new(array.with_timezone_opt(zone.clone()))
        }
        DataType::Interval(_) => {
            let raw: [u8; 16] = fixed(bytes)?;
            let micros = i64::from_be_bytes(fixed(&raw[..8])?);
            let days = i32::from_be_bytes(fixed(&raw[8..12])?);
            let months = i32::from_be_bytes(fixed(&raw[12..])?);
            let nanos = micros.checked_mul(1000).ok_or_else(invalid)?;
            let value = IntervalMonthDayNano::new(months, days, nanos);
            Arc::new(IntervalMonthDayNanoArray::from(vec![value]))
        }
        DataType::FixedSizeBinary(16) => {
            let value = numeric(bytes)?.to_bytes();
            Arc::new(FixedSizeBinaryArray::try_from_iter(std::iter::once(value))?)
        }
        other => {
            let message = format!(
                "binary parameters of type {} are not supported",
                ruslo_repr::schema::type_name(other)
            );
            return Err(Error::unsupported(message).with_hint("Send the parameter as text."));
        }
    };
    Ok(array)
}

/// Groups of four decimal digits: count, weight of the first, sign, display scale, groups.
fn numeric(bytes: &[u8]) -> Result<Numeric> {
    let words: Vec<u16> = bytes
        .chunks_exact(2)
        .map(|pair| u16::from_be_bytes([pair[0], pair[1]]))
        .collect();
    let [groups, weight, sign, scale, digits @ ..] = words.as_slice() else {
        return Err(invalid());
    };
    match sign {
        0xC000 => return Ok(Numeric::NaN),
        0xD000 => return Ok(Numeric::Infinity),
        0xF000 => return Ok(Numeric::NegInfinity),
        _ => {}
    }
    if digits.len() != usize::from(*groups) || *scale > 1000 {
        return Err(invalid());
    }
    let weight = *weight as i16;
    let digit_group = |at: i16| {
        let index = i32::from(weight) - i32::from(at);
        usize::try_from(index)
            .ok()
            .and_then(|i| digits.get(i))
            .copied()
            .unwrap_or(0)
    };
    let mut text = if *sign == 0x4000 {
        "-".to_string()
    } else {
        String::new()
    };
    for at in (0..=weight.max(0)).rev() {
        text.push_str(&format!("{:04}", digit_group(at)));
    }
    text.push('.');
    let fraction_groups = scale.div_ceil(4) as i16;
    let fraction: String = (1..=fraction_groups)
        .map(|at| format!("{:04}", digit_group(-at)))
        .collect();
    text.push_str(fraction.get(..usize::from(*scale)).unwrap_or(&fraction));
    text.trim_end_matches('.').parse()
}

fn text(bytes: &[u8]) -> Result<&str> {
    std::str::from_utf8(bytes).map_err(|_| {
        Error::new(
            ErrorKind::InvalidText,
            "invalid byte sequence for encoding \"UTF8\"",
        )
    })
}

fn fixed<const N: usize>(bytes: &[u8]) -> Result<[u8; N]> {
    bytes.try_into().map_err(|_| invalid())
}

fn invalid() -> Error {
    Error::new(
        ErrorKind::InvalidText,
        "incorrect binary data format in bind parameter",
    )
}
