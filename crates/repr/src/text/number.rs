//! Text of integers and floats.

use std::fmt::{LowerExp, Write};

use crate::{Error, ErrorKind, Result};

/// An optionally signed decimal integer in `min..=max`, white space around it allowed; `ty` is
/// the type's name for the error.
pub fn parse_int(text: &str, min: i64, max: i64, ty: &str) -> Result<i64> {
    let trimmed = text.trim_matches(|c: char| c.is_ascii_whitespace());
    let digits = trimmed.strip_prefix(['+', '-']).unwrap_or(trimmed);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        let message = format!("invalid input syntax for type {ty}: \"{text}\"");
        return Err(Error::new(ErrorKind::InvalidText, message));
    }
    match trimmed.parse::<i64>() {
        Ok(value) if (min..=max).contains(&value) => Ok(value),
        _ => {
            let message = format!("value \"{text}\" is out of range for type {ty}");
            Err(Error::new(ErrorKind::OutOfRange, message))
        }
    }
}

/// Shortest digits that read back as the same value, with an exponent from 1e+15 on.
pub fn write_f64(value: f64, out: &mut String) {
    match special(value) {
        Some(text) => out.push_str(text),
        None => write_shortest(value, 15, out),
    }
}

/// Shortest digits that read back as the same value, with an exponent from 1e+06 on.
pub fn write_f32(value: f32, out: &mut String) {
    match special(value.into()) {
        Some(text) => out.push_str(text),
        None => write_shortest(value, 6, out),
    }
}

fn special(value: f64) -> Option<&'static str> {
    match value {
        v if v.is_nan() => Some("NaN"),
        f64::INFINITY => Some("Infinity"),
        f64::NEG_INFINITY => Some("-Infinity"),
        _ => None,
    }
}

/// Lays out the digits of a finite value as C's `%g` does: plain between 1e-4 and 10^`plain_until`.
fn write_shortest(value: impl LowerExp, plain_until: i32, out: &mut String) {
    let scientific = format!("{value:e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let digits = match mantissa.strip_prefix('-') {
        Some(digits) => {
            out.push('-');
            digits
        }
        None => mantissa,
    };
    if exponent < -4 || exponent >= plain_until {
        let sign = if exponent < 0 { '-' } else { '+' };
        // Writing to a String cannot fail.
        let _ = write!(out, "{digits}e{sign}{:02}", exponent.abs());
        return;
    }
    let digits = digits.replace('.', "");
    if exponent < 0 {
        out.push_str("0.");
        out.extend(std::iter::repeat_n(
            '0',
            exponent.unsigned_abs() as usize - 1,
        ));
        out.push_str(&digits);
        return;
    }
    let before_point = exponent as usize + 1;
    if digits.len() <= before_point {
        out.push_str(&digits);
        out.extend(std::iter::repeat_n('0', before_point - digits.len()));
    } else {
        out.push_str(&digits[..before_point]);
        out.push('.');
        out.push_str(&digits[before_point..]);
    }
}

pub fn parse_f64(text: &str) -> Result<f64> {
    let value: f64 = parse_float(text, "double precision")?;
    check_range(text, value.is_infinite(), value == 0.0, "double precision")?;
    Ok(value)
}

pub fn parse_f32(text: &str) -> Result<f32> {
    let value: f32 = parse_float(text, "real")?;
    check_range(text, value.is_infinite(), value == 0.0, "real")?;
    Ok(value)
}

/// Rust reads the same forms as PostgreSQL does, `nan`, `inf` and `infinity` in any case included.
fn parse_float<T: std::str::FromStr>(text: &str, ty: &str) -> Result<T> {
    let trimmed = text.trim_matches(|c: char| c.is_ascii_whitespace());
    trimmed.parse().map_err(|_| {
        let message = format!("invalid input syntax for type {ty}: \"{text}\"");
        Error::new(ErrorKind::InvalidText, message)
    })
}

/// Refuses digits that became infinity or zero only because the type cannot hold them.
fn check_range(text: &str, infinite: bool, zero: bool, ty: &str) -> Result<()> {
    let says_infinity = text.contains(['n', 'N']);
    let mantissa = text.split(['e', 'E']).next().unwrap_or_default();
    let says_zero = !mantissa.bytes().any(|b| (b'1'..=b'9').contains(&b));
    if (infinite && !says_infinity) || (zero && !says_zero) {
        let message = format!("\"{}\" is out of range for type {ty}", text.trim());
        return Err(Error::new(ErrorKind::OutOfRange, message));
    }
    Ok(())
}
