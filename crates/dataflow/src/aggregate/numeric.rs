//! Exact sums of `numeric`.
//!
//! A value is split at the decimal point: its integer part and its fraction in units of 10^-28
//! add up separately. The display scale of a result is the largest among the values that are in
//! it, so each scale is counted.

use ruslo_repr::Numeric;
use rust_decimal::Decimal;

/// Digits after the point that a numeric can have.
pub(crate) const SCALE_MAX: u32 = 28;
const FRACTION_UNITS: i128 = 10i128.pow(SCALE_MAX);
/// The largest mantissa of a decimal.
const MANTISSA_MAX: u128 = (1 << 96) - 1;

/// A numeric as (integer part, fraction in units of 10^-28, scale), or what it is else.
pub(crate) enum Part {
    Finite {
        integer: i128,
        fraction: i128,
        scale: u16,
    },
    NaN,
    Infinity,
    NegInfinity,
}

pub(crate) fn split(bytes: &[u8; 16]) -> Part {
    let decimal = match Numeric::from_bytes(bytes) {
        Numeric::Finite(decimal) => decimal,
        Numeric::NaN => return Part::NaN,
        Numeric::Infinity => return Part::Infinity,
        Numeric::NegInfinity => return Part::NegInfinity,
    };
    let unit = 10i128.pow(decimal.scale());
    Part::Finite {
        integer: decimal.mantissa() / unit,
        fraction: decimal.mantissa() % unit * (FRACTION_UNITS / unit),
        scale: decimal.scale() as u16,
    }
}

/// The decimal of summed parts, with `scale` digits after the point if they fit, else fewer.
///
/// `None` when the integer part alone is too large.
pub(crate) fn join(integer: i128, fraction: i128, scale: u32) -> Option<Decimal> {
    let integer = integer.checked_add(fraction.div_euclid(FRACTION_UNITS))?;
    let fraction = fraction.rem_euclid(FRACTION_UNITS);
    let (negative, integer, fraction) = match (integer < 0, fraction > 0) {
        (true, true) => (true, -(integer + 1), FRACTION_UNITS - fraction),
        (negative, _) => (negative, integer.checked_abs()?, fraction),
    };
    let (integer, fraction) = (integer.unsigned_abs(), fraction.unsigned_abs());
    for scale in (0..=scale.min(SCALE_MAX)).rev() {
        let unit = 10u128.pow(SCALE_MAX - scale);
        let rounded = (fraction + unit / 2) / unit;
        let mantissa = integer.checked_mul(10u128.pow(scale));
        let mantissa = mantissa.and_then(|m| m.checked_add(rounded));
        let Some(mantissa) = mantissa.filter(|m| *m <= MANTISSA_MAX) else {
            continue;
        };
        let mantissa = mantissa as i128;
        let signed = if negative { -mantissa } else { mantissa };
        return Decimal::try_from_i128_with_scale(signed, scale).ok();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(texts: &[&str]) -> Option<String> {
        let (mut integers, mut fractions, mut scales) = (0, 0, 0);
        for text in texts {
            let numeric: Numeric = text.parse().unwrap();
            let Part::Finite {
                integer,
                fraction,
                scale,
            } = split(&numeric.to_bytes())
            else {
                panic!("{text} is not finite");
            };
            integers += integer;
            fractions += fraction;
            scales = scales.max(u32::from(scale));
        }
        join(integers, fractions, scales).map(|d| d.to_string())
    }

    #[test]
    fn sums_are_exact_and_keep_the_largest_scale() {
        assert_eq!(sum(&["1.5", "2.25"]).unwrap(), "3.75");
        assert_eq!(sum(&["1.50", "2.5"]).unwrap(), "4.00");
        assert_eq!(sum(&["-1.5", "1"]).unwrap(), "-0.5");
        assert_eq!(sum(&["-0.7", "-0.7"]).unwrap(), "-1.4");
        assert_eq!(sum(&["0.1", "-0.1"]).unwrap(), "0.0");
        let largest = "79228162514264337593543950335";
        assert_eq!(
            sum(&[largest, "-1.5"]).unwrap(),
            "79228162514264337593543950334"
        );
        assert_eq!(sum(&[largest, "1"]), None);
        assert_eq!(
            sum(&["0.0000000000000000000000000001", "1"]).unwrap(),
            "1.0000000000000000000000000001"
        );
    }
}
