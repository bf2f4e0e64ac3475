//! From one JSON value to one SQL value, type by type; what does not fit becomes a [`Misfit`].
//!
//! The rules are RisingWave's for `ENCODE JSON`. Where it loses something we do not: a `numeric`
//! and a number read as `varchar` keep their digits as written, and integers of any length are
//! looked at whole. An integer column takes `12` and `"12"`, but not `12.0` or `12e0`.

use std::fmt::Display;
use std::str::FromStr;

use arrow::datatypes::{DataType, IntervalMonthDayNano};
use ruslo_repr::schema::type_name;
use ruslo_repr::text::json::Json;
use ruslo_repr::text::{parse_bytea, parse_interval};
use ruslo_repr::{ErrorKind, Numeric};
use rust_decimal::Decimal;

use super::scan::{Invalid, Kind, Token};
use super::time;
use super::{JsonOptions, TimeMode, TimestampMode};

/// Longest piece of a value that a reason quotes, in characters.
const QUOTED_MAX: usize = 64;

/// Why a value does not fit its column.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Misfit {
    /// The way from the column to the value, as `.address.tags[3]`; empty for the column itself.
    path: String,
    message: String,
}

impl Misfit {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Misfit {
            path: String::new(),
            message: message.into(),
        }
    }

    pub(super) fn in_field(mut self, name: &str) -> Self {
        self.path.insert_str(0, &format!(".{name}"));
        self
    }

    pub(super) fn in_element(mut self, index: usize) -> Self {
        self.path.insert_str(0, &format!("[{index}]"));
        self
    }
}

/// Of text inside a string; the message itself has been scanned when its values are looked at.
impl From<Invalid> for Misfit {
    fn from(invalid: Invalid) -> Self {
        Misfit::new(format!("the string is no JSON: {invalid}"))
    }
}

impl Display for Misfit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.path.is_empty() {
            true => f.write_str(&self.message),
            false => write!(f, "{}: {}", self.path, self.message),
        }
    }
}

/// A scalar of a message: its token, and its text with a string's escapes resolved.
#[derive(Clone, Copy)]
pub(super) struct Scalar<'a> {
    kind: Kind,
    text: &'a str,
}

impl<'a> Scalar<'a> {
    /// `scratch` holds the text of a string with escapes.
    pub(super) fn new(source: &'a str, token: Token, scratch: &'a mut String) -> Self {
        Scalar {
            kind: token.kind,
            text: token.string(source, scratch),
        }
    }

    fn is_string(self) -> bool {
        matches!(self.kind, Kind::String | Kind::EscapedString)
    }

    /// The value as an integer, if it is a number without point and exponent.
    fn integer(self) -> Option<i64> {
        (self.kind == Kind::Number).then(|| self.text.parse().ok())?
    }

    #[cold]
    pub(super) fn misfit(self, ty: &DataType) -> Misfit {
        Misfit::new(format!("{} does not fit {}", self.quoted(), type_name(ty)))
    }

    #[cold]
    fn out_of_range(self, ty: &DataType) -> Misfit {
        Misfit::new(format!(
            "{} is out of range for {}",
            self.quoted(),
            type_name(ty)
        ))
    }

    /// The value for a reason: its kind, and as much of it as is worth reading.
    fn quoted(self) -> String {
        let kind = match self.kind {
            Kind::Null => return "null".into(),
            Kind::True | Kind::False => "boolean",
            Kind::Number => "number",
            Kind::String | Kind::EscapedString => "string",
            Kind::Array => "array",
            Kind::Object => "object",
        };
        let cut = self.text.char_indices().nth(QUOTED_MAX);
        let (text, dots) = match cut {
            Some((at, _)) => (&self.text[..at], "…"),
            None => (self.text, ""),
        };
        match self.is_string() {
            true => format!("{kind} {text:?}{dots}"),
            false => format!("{kind} {text}{dots}"),
        }
    }
}

pub(super) fn boolean(value: Scalar) -> Result<bool, Misfit> {
    match value.kind {
        Kind::True => Ok(true),
        Kind::False => Ok(false),
        _ => Err(value.misfit(&DataType::Boolean)),
    }
}

pub(super) fn integer<T: FromStr>(value: Scalar, ty: &DataType) -> Result<T, Misfit> {
    if value.kind != Kind::Number && !value.is_string() {
        return Err(value.misfit(ty));
    }
    value.text.parse().map_err(|_| {
        let digits = value.text.strip_prefix(['-', '+']).unwrap_or(value.text);
        match !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) {
            true => value.out_of_range(ty),
            false => value.misfit(ty),
        }
    })
}

/// Any number, or a string that Rust reads as one: also `NaN` and `inf`, in any case.
pub(super) fn float<T>(value: Scalar, ty: &DataType) -> Result<T, Misfit>
where
    T: FromStr + Into<f64> + Copy,
{
    if value.kind != Kind::Number && !value.is_string() {
        return Err(value.misfit(ty));
    }
    let float: T = value.text.parse().map_err(|_| value.misfit(ty))?;
    let says_infinity = value.text.contains(['i', 'I']);
    match float.into().is_infinite() && !says_infinity {
        true => Err(value.out_of_range(ty)),
        false => Ok(float),
    }
}

/// A number keeps digits and scale as written; beyond 28 digits the fraction is rounded.
pub(super) fn numeric(value: Scalar, ty: &DataType) -> Result<Numeric, Misfit> {
    let text = match (value.kind, value.text) {
        (Kind::Number, text) => text,
        (Kind::String | Kind::EscapedString, "NAN") => return Ok(Numeric::NaN),
        (Kind::String | Kind::EscapedString, "POSITIVE_INFINITY") => return Ok(Numeric::Infinity),
        (Kind::String | Kind::EscapedString, "NEGATIVE_INFINITY") => {
            return Ok(Numeric::NegInfinity);
        }
        (Kind::String | Kind::EscapedString, text) => text,
        _ => return Err(value.misfit(ty)),
    };
    if value.kind == Kind::Number && !text.contains(['e', 'E']) {
        // The grammar has left only one way to fail.
        let decimal = Decimal::from_str(text).map_err(|_| value.out_of_range(ty))?;
        return Ok(Numeric::Finite(decimal));
    }
    // `numeric`'s own text form bounds the exponent by its scale; written out it is rounded.
    let plain = match text.contains(['e', 'E']).then(|| Json::number(text)) {
        Some(Json::Number(plain)) => Some(plain),
        _ => None,
    };
    let is_number = value.kind == Kind::Number || plain.is_some();
    let parsed = plain.as_deref().unwrap_or(text).parse::<Numeric>();
    parsed.map_err(
        |error| match is_number || error.kind == ErrorKind::OutOfRange {
            true => value.out_of_range(ty),
            false => value.misfit(ty),
        },
    )
}

/// Strings; numbers and booleans as they are written.
pub(super) fn varchar<'a>(value: Scalar<'a>) -> Result<&'a str, Misfit> {
    match value.kind {
        // Only an escape can write U+0000.
        Kind::EscapedString if value.text.contains('\0') => {
            Err(Misfit::new("a string cannot hold U+0000"))
        }
        Kind::Array | Kind::Object => Err(value.misfit(&DataType::Utf8)),
        _ => Ok(value.text),
    }
}

pub(super) fn bytea(value: Scalar) -> Result<Vec<u8>, Misfit> {
    let bytes = value.is_string().then(|| parse_bytea(value.text).ok());
    bytes
        .flatten()
        .ok_or_else(|| value.misfit(&DataType::Binary))
}

pub(super) fn interval(value: Scalar, ty: &DataType) -> Result<IntervalMonthDayNano, Misfit> {
    let interval = value.is_string().then(|| parse_interval(value.text).ok());
    interval.flatten().ok_or_else(|| value.misfit(ty))
}

/// An ISO date, or an integer of days since 1970.
pub(super) fn date(value: Scalar) -> Result<i32, Misfit> {
    let date = match value.is_string() {
        true => time::date(value.text),
        false => value.integer().and_then(time::date_of_days),
    };
    date.ok_or_else(|| value.misfit(&DataType::Date32))
}

/// An ISO time, or an integer since midnight in the unit of `time.handling.mode`.
pub(super) fn time(value: Scalar, options: &JsonOptions, ty: &DataType) -> Result<i64, Misfit> {
    let unit_us = match options.time {
        TimeMode::Micro => 1,
        TimeMode::Milli => 1_000,
    };
    let time = match value.is_string() {
        true => time::time(value.text),
        false => value
            .integer()
            .and_then(|number| number.checked_mul(unit_us))
            .and_then(time::time_of_micros),
    };
    time.ok_or_else(|| value.misfit(ty))
}

/// An ISO timestamp, of which a zone is read over as PostgreSQL does, or an integer since 1970.
pub(super) fn timestamp(value: Scalar, mode: TimestampMode, ty: &DataType) -> Result<i64, Misfit> {
    let micros = match value.is_string() {
        true => time::civil(value.text).map(time::Civil::local),
        false => value
            .integer()
            .and_then(|number| time::instant_of_number(number, mode)),
    };
    micros.ok_or_else(|| value.misfit(ty))
}

/// An ISO timestamp that names its zone, or an integer since 1970. Only the mode
/// `utc_without_suffix` takes text without a zone, and reads it as UTC.
pub(super) fn timestamptz(
    value: Scalar,
    mode: TimestampMode,
    ty: &DataType,
) -> Result<i64, Misfit> {
    if !value.is_string() {
        return timestamp(value, mode, ty);
    }
    let civil = time::civil(value.text).ok_or_else(|| value.misfit(ty))?;
    match (civil.instant(), mode) {
        (Some(instant), _) => Ok(instant),
        (None, TimestampMode::UtcWithoutSuffix) => Ok(civil.local()),
        (None, _) => Err(Misfit::new(format!(
            "{} names no time zone; timestamptz.handling.mode = 'utc_without_suffix' reads it as UTC",
            value.quoted()
        ))),
    }
}
