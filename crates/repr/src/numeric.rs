//! `numeric`: up to 28 significant digits with a scale per value, NaN and both infinities.
//!
//! Carried in Arrow as `FixedSizeBinary(16)`. Bytes compare as values do; the last byte is the
//! display scale, so that `1.50` prints as it was written. Two numerics are equal when all bytes
//! but the last are: a key (group, join, distinct) goes through [`Numeric::key_bytes`].
//!
//! ```text
//!   byte 0      1          2 ........ 14              15
//!        class  exponent   29 digits, big endian      display scale (0..=28)
//!        (negative values: bytes 1..=14 inverted)
//! ```

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use rust_decimal::Decimal;

use crate::{Error, ErrorKind, Result};

const NEG_INFINITY: u8 = 0x10;
const NEGATIVE: u8 = 0x40;
const ZERO: u8 = 0x80;
const POSITIVE: u8 = 0xC0;
const INFINITY: u8 = 0xE0;
const NAN: u8 = 0xF0;

/// Digits that the mantissa is padded to, so that equal exponents compare by mantissa.
const DIGITS: u32 = 29;
const EXPONENT_BIAS: i32 = 64;
const MAX_SCALE: u32 = 28;

/// A SQL numeric. Arithmetic on finite values is `rust_decimal`'s.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Numeric {
    NegInfinity,
    /// Equality here is by value: `1.5 == 1.50`.
    Finite(Decimal),
    Infinity,
    NaN,
}

impl Numeric {
    /// The 16 bytes of the module's layout.
    pub fn to_bytes(self) -> [u8; 16] {
        let mut bytes = [0u8; 16];
        let decimal = match self {
            Numeric::NegInfinity => return special(NEG_INFINITY),
            Numeric::Infinity => return special(INFINITY),
            Numeric::NaN => return special(NAN),
            Numeric::Finite(decimal) => decimal,
        };
        bytes[15] = decimal.scale() as u8;
        let mantissa = decimal.mantissa().unsigned_abs();
        if mantissa == 0 {
            bytes[0] = ZERO;
            return bytes;
        }
        let digits = mantissa.ilog10() + 1;
        let padded = mantissa * 10u128.pow(DIGITS - digits);
        let exponent = digits as i32 - 1 - decimal.scale() as i32;
        bytes[1] = (exponent + EXPONENT_BIAS) as u8;
        bytes[2..15].copy_from_slice(&padded.to_be_bytes()[3..]);
        bytes[0] = POSITIVE;
        if decimal.is_sign_negative() {
            bytes[0] = NEGATIVE;
            bytes[1..15].iter_mut().for_each(|b| *b = !*b);
        }
        bytes
    }

    /// Reads what [`Numeric::to_bytes`] or [`Numeric::key_bytes`] wrote; other bytes give NaN.
    pub fn from_bytes(bytes: &[u8; 16]) -> Numeric {
        let mut body = *bytes;
        match bytes[0] {
            NEG_INFINITY => return Numeric::NegInfinity,
            INFINITY => return Numeric::Infinity,
            ZERO => {
                let scale = u32::from(bytes[15]).min(MAX_SCALE);
                return Numeric::Finite(Decimal::new(0, scale));
            }
            POSITIVE => {}
            NEGATIVE => body[1..15].iter_mut().for_each(|b| *b = !*b),
            _ => return Numeric::NaN,
        }
        let mut wide = [0u8; 16];
        wide[3..].copy_from_slice(&body[2..15]);
        let mut mantissa = i128::from_be_bytes(wide);
        // The value is mantissa × 10^-scale; drop padding zeros down to the display scale.
        let mut scale = DIGITS as i32 - 1 - (i32::from(body[1]) - EXPONENT_BIAS);
        let display = i32::from(bytes[15]);
        while scale > display && mantissa % 10 == 0 {
            mantissa /= 10;
            scale -= 1;
        }
        while scale < 0 {
            mantissa *= 10;
            scale += 1;
        }
        if bytes[0] == NEGATIVE {
            mantissa = -mantissa;
        }
        Decimal::try_from_i128_with_scale(mantissa, scale as u32)
            .map_or(Numeric::NaN, Numeric::Finite)
    }

    /// The bytes without the display scale: equal exactly when the values are.
    pub fn key_bytes(bytes: &[u8; 16]) -> [u8; 16] {
        let mut key = *bytes;
        key[15] = 0;
        key
    }
}

/// `a / b` with up to 28 significant digits, without zeros at the end beyond the larger of both
/// scales; None for a zero divisor or a quotient that is too large.
pub fn quotient(a: Decimal, b: Decimal) -> Option<Decimal> {
    let mut quotient = a.checked_div(b)?.normalize();
    let scale = a.scale().max(b.scale());
    if quotient.scale() < scale {
        quotient.rescale(scale);
    }
    Some(quotient)
}

fn special(class: u8) -> [u8; 16] {
    let mut bytes = [0u8; 16];
    bytes[0] = class;
    bytes
}

impl PartialOrd for Numeric {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// PostgreSQL's order: -Infinity, finite values, Infinity, NaN; NaN equals itself.
impl Ord for Numeric {
    fn cmp(&self, other: &Self) -> Ordering {
        fn rank(n: &Numeric) -> u8 {
            match n {
                Numeric::NegInfinity => 0,
                Numeric::Finite(_) => 1,
                Numeric::Infinity => 2,
                Numeric::NaN => 3,
            }
        }
        match (self, other) {
            (Numeric::Finite(a), Numeric::Finite(b)) => a.cmp(b),
            _ => rank(self).cmp(&rank(other)),
        }
    }
}

impl fmt::Display for Numeric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Numeric::NegInfinity => f.write_str("-Infinity"),
            Numeric::Infinity => f.write_str("Infinity"),
            Numeric::NaN => f.write_str("NaN"),
            Numeric::Finite(decimal) => fmt::Display::fmt(decimal, f),
        }
    }
}

impl FromStr for Numeric {
    type Err = Error;

    /// PostgreSQL's input form: digits with point and exponent, `NaN`, `[-]inf[inity]`; more
    /// digits than fit are rounded, a value too large is `OutOfRange`.
    fn from_str(text: &str) -> Result<Self> {
        let trimmed = text.trim();
        match trimmed.to_ascii_lowercase().as_str() {
            "nan" => return Ok(Numeric::NaN),
            "infinity" | "+infinity" | "inf" | "+inf" => return Ok(Numeric::Infinity),
            "-infinity" | "-inf" => return Ok(Numeric::NegInfinity),
            _ => {}
        }
        let invalid = || {
            let message = format!("invalid input syntax for type numeric: \"{text}\"");
            Error::new(ErrorKind::InvalidText, message)
        };
        let digits = trimmed.strip_prefix('+').unwrap_or(trimmed);
        let well_formed = digits.bytes().any(|b| b.is_ascii_digit())
            && digits
                .bytes()
                .all(|b| b.is_ascii_digit() || b"+-.eE".contains(&b));
        if !well_formed {
            return Err(invalid());
        }
        let parsed = match digits.contains(['e', 'E']) {
            true => Decimal::from_scientific(digits),
            false => Decimal::from_str(digits),
        };
        parsed.map(Numeric::Finite).map_err(|error| match error {
            rust_decimal::Error::ExceedsMaximumPossibleValue
            | rust_decimal::Error::LessThanMinimumPossibleValue
            | rust_decimal::Error::ScaleExceedsMaximumPrecision(_) => {
                Error::new(ErrorKind::OutOfRange, "value overflows numeric format")
            }
            // So many digits that the library does not name the reason.
            _ if is_plain(digits) => {
                Error::new(ErrorKind::OutOfRange, "value overflows numeric format")
            }
            _ => invalid(),
        })
    }
}

/// Digits with at most one point, and a sign before them.
fn is_plain(digits: &str) -> bool {
    let unsigned = digits.strip_prefix('-').unwrap_or(digits);
    let points = unsigned.bytes().filter(|b| *b == b'.').count();
    points <= 1 && unsigned.bytes().all(|b| b.is_ascii_digit() || b == b'.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_keep_value_scale_and_order() {
        let ordered = [
            "-Infinity",
            "-79228162514264337593543950335",
            "-10",
            "-9.99",
            "-1.50",
            "-0.001",
            "0",
            "0.0000000000000000000000000001",
            "0.10",
            "1",
            "1.5",
            "2.0",
            "10",
            "99999.5",
            "79228162514264337593543950335",
            "Infinity",
            "NaN",
        ];
        let bytes = ordered.map(|text| {
            let value: Numeric = text.parse().unwrap();
            assert_eq!(value.to_string(), text);
            assert_eq!(Numeric::from_bytes(&value.to_bytes()).to_string(), text);
            value.to_bytes()
        });
        assert!(bytes.is_sorted());
    }

    #[test]
    fn the_key_form_ignores_the_display_scale_only() {
        let key = |text: &str| Numeric::key_bytes(&text.parse::<Numeric>().unwrap().to_bytes());
        assert_eq!(key("1.5"), key("1.500"));
        assert_eq!(key("0"), key("0.00"));
        assert_ne!(key("1.5"), key("1.501"));
        assert_eq!(Numeric::from_bytes(&key("1.500")).to_string(), "1.5");
        assert_eq!(Numeric::from_bytes(&key("1000")).to_string(), "1000");
    }

    #[test]
    fn text_that_is_no_number_is_refused() {
        for text in ["", "abc", "1.2.3", "--1", "1e", "0x10", "1_000"] {
            assert!(text.parse::<Numeric>().is_err(), "{text}");
        }
        assert_eq!("1e3".parse::<Numeric>().unwrap().to_string(), "1000");
        assert_eq!(
            "1e400".parse::<Numeric>().unwrap_err().kind,
            ErrorKind::OutOfRange
        );
    }
}
