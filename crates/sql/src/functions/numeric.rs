//! Arithmetic of numeric: `rust_decimal`'s on finite values, IEEE's rules for NaN and infinities.
//!
//! A sum has the larger scale of its operands, a product the sum of their scales. A quotient has
//! up to 28 digits, without zeros at its end that neither operand had.

use std::str::FromStr;

use ruslo_repr::numeric::quotient;
use ruslo_repr::{Error, ErrorKind, Numeric, Result};
use rust_decimal::{Decimal, MathematicalOps, RoundingStrategy};

use Numeric::{Finite, Infinity, NaN, NegInfinity};

/// The most digits behind the point.
pub(super) const MAX_SCALE: u32 = 28;

/// Significant digits to which quotients and powers by logarithms are good.
const IRRATIONAL_DIGITS: u32 = 22;

pub(super) fn division_by_zero() -> Error {
    Error::new(ErrorKind::DivisionByZero, "division by zero")
}

pub(super) fn overflow() -> Error {
    Error::new(ErrorKind::OutOfRange, "numeric out of range")
        .with_detail("A numeric holds up to 28 significant digits.")
}

fn finite(value: Option<Decimal>) -> Result<Numeric> {
    value.map(Finite).ok_or_else(overflow)
}

/// -1, 0 or 1; NaN has none.
fn signum(value: Numeric) -> i8 {
    match value {
        NegInfinity => -1,
        Infinity => 1,
        NaN => 0,
        Finite(d) if d.is_zero() => 0,
        Finite(d) if d.is_sign_negative() => -1,
        Finite(_) => 1,
    }
}

fn infinity(sign: i8) -> Numeric {
    match sign {
        1.. => Infinity,
        0 => NaN,
        _ => NegInfinity,
    }
}

pub(super) fn negate(value: Numeric) -> Numeric {
    match value {
        Finite(d) if d.is_zero() => value,
        Finite(d) => Finite(-d),
        Infinity => NegInfinity,
        NegInfinity => Infinity,
        NaN => NaN,
    }
}

pub(super) fn add(a: Numeric, b: Numeric) -> Result<Numeric> {
    match (a, b) {
        (Finite(a), Finite(b)) => {
            let sum = finite(a.checked_add(b))?;
            Ok(at_scale(sum, a.scale().max(b.scale())))
        }
        (NaN, _) | (_, NaN) | (Infinity, NegInfinity) | (NegInfinity, Infinity) => Ok(NaN),
        (Finite(_), special) | (special, _) => Ok(special),
    }
}

/// The value with at least this many decimals, as far as there is room for zeros.
///
/// The library's shortcuts for zero forget the decimals, which PostgreSQL prints.
fn at_scale(value: Numeric, scale: u32) -> Numeric {
    match value {
        Finite(mut d) if d.scale() < scale => {
            let exact = d;
            d.rescale(scale.min(28));
            Finite(if d == exact { d } else { exact })
        }
        other => other,
    }
}

pub(super) fn sub(a: Numeric, b: Numeric) -> Result<Numeric> {
    add(a, negate(b))
}

pub(super) fn mul(a: Numeric, b: Numeric) -> Result<Numeric> {
    match (a, b) {
        (Finite(a), Finite(b)) => {
            let product = finite(a.checked_mul(b))?;
            Ok(at_scale(product, a.scale() + b.scale()))
        }
        (NaN, _) | (_, NaN) => Ok(NaN),
        _ => Ok(infinity(signum(a) * signum(b))),
    }
}

pub(super) fn div(a: Numeric, b: Numeric) -> Result<Numeric> {
    match (a, b) {
        (NaN, _) | (_, NaN) => Ok(NaN),
        (_, Finite(b)) if b.is_zero() => Err(division_by_zero()),
        (Finite(a), Finite(b)) => finite(quotient(a, b)),
        (Finite(_), _) => Ok(Finite(Decimal::ZERO)),
        (_, Finite(_)) => Ok(infinity(signum(a) * signum(b))),
        _ => Ok(NaN),
    }
}

pub(super) fn rem(a: Numeric, b: Numeric) -> Result<Numeric> {
    match (a, b) {
        (NaN, _) | (_, NaN) => Ok(NaN),
        (_, Finite(b)) if b.is_zero() => Err(division_by_zero()),
        (Finite(a), Finite(b)) => finite(a.checked_rem(b)),
        (Finite(_), _) => Ok(a),
        _ => Ok(NaN),
    }
}

/// Rounds halves away from zero, as PostgreSQL does; a negative scale rounds whole digits.
pub(super) fn round(value: Numeric, scale: i32) -> Result<Numeric> {
    rescale(value, scale, RoundingStrategy::MidpointAwayFromZero)
}

pub(super) fn trunc(value: Numeric, scale: i32) -> Result<Numeric> {
    rescale(value, scale, RoundingStrategy::ToZero)
}

fn rescale(value: Numeric, scale: i32, strategy: RoundingStrategy) -> Result<Numeric> {
    let Finite(decimal) = value else {
        return Ok(value);
    };
    if scale >= 0 {
        let scale = scale.unsigned_abs().min(MAX_SCALE);
        let mut rounded = decimal.round_dp_with_strategy(scale, strategy);
        // Writes the zeros that the scale asks for, as far as the digits fit.
        rounded.rescale(scale);
        return Ok(Finite(rounded));
    }
    let digits = scale.unsigned_abs();
    if digits > MAX_SCALE {
        return Ok(Finite(Decimal::ZERO));
    }
    let unit = Decimal::from_i128_with_scale(10i128.pow(digits), 0);
    let units = decimal.checked_div(unit).ok_or_else(overflow)?;
    let whole = units.round_dp_with_strategy(0, strategy);
    let mut rounded = whole.checked_mul(unit).ok_or_else(overflow)?;
    rounded.rescale(0);
    Ok(Finite(rounded))
}

pub(super) fn floor(value: Numeric) -> Numeric {
    match value {
        Finite(d) => Finite(d.floor()),
        special => special,
    }
}

pub(super) fn ceil(value: Numeric) -> Numeric {
    match value {
        Finite(d) => Finite(d.ceil()),
        special => special,
    }
}

pub(super) fn abs(value: Numeric) -> Numeric {
    match value {
        Finite(d) => Finite(d.abs()),
        NegInfinity => Infinity,
        special => special,
    }
}

pub(super) fn sign(value: Numeric) -> Numeric {
    match value {
        NaN => NaN,
        value => Finite(signum(value).into()),
    }
}

pub(super) fn no_logarithm(message: &str) -> Error {
    Error::new(ErrorKind::Logarithm, message)
}

pub(super) fn no_power(message: &str) -> Error {
    Error::new(ErrorKind::Power, message)
}

pub(super) fn sqrt(value: Numeric) -> Result<Numeric> {
    match value {
        Finite(d) => match d.sqrt() {
            Some(root) => Ok(Finite(root.normalize())),
            None => Err(no_power("cannot take square root of a negative number")),
        },
        NegInfinity => Err(no_power("cannot take square root of a negative number")),
        special => Ok(special),
    }
}

pub(super) fn exp(value: Numeric) -> Result<Numeric> {
    match value {
        // Below this the result has no digit that a numeric can show.
        Finite(d) if d < Decimal::from(-65) => Ok(Finite(Decimal::ZERO)),
        Finite(d) => finite(d.checked_exp_with_tolerance(Decimal::new(1, MAX_SCALE))),
        NegInfinity => Ok(Finite(Decimal::ZERO)),
        special => Ok(special),
    }
}

pub(super) fn ln(value: Numeric) -> Result<Numeric> {
    match value {
        Finite(d) if d.is_zero() => Err(no_logarithm("cannot take logarithm of zero")),
        Finite(d) => match d.checked_ln() {
            Some(ln) => Ok(Finite(ln)),
            None => Err(no_logarithm("cannot take logarithm of a negative number")),
        },
        NegInfinity => Err(no_logarithm("cannot take logarithm of a negative number")),
        special => Ok(special),
    }
}

/// The logarithm to any base; base 10 of a power of ten is exact.
pub(super) fn log(base: Numeric, value: Numeric) -> Result<Numeric> {
    if let (Finite(b), Finite(d)) = (base, value)
        && b == Decimal::TEN
        && let Some(log) = d.checked_log10()
        && d > Decimal::ZERO
    {
        return Ok(Finite(log));
    }
    // The last digits of a quotient of logarithms are noise: of 64 to base 2 it must be 6.
    match div(ln(value)?, ln(base)?)? {
        Finite(log) => {
            let rounded = log.round_sf(IRRATIONAL_DIGITS).unwrap_or(log);
            Ok(Finite(rounded.normalize()))
        }
        special => Ok(special),
    }
}

pub(super) fn power(base: Numeric, exponent: Numeric) -> Result<Numeric> {
    let zero_base = signum(base) == 0 && base != NaN;
    match (base, exponent) {
        (_, Finite(e)) if e.is_zero() => Ok(Finite(Decimal::ONE)),
        (Finite(b), _) if b == Decimal::ONE => Ok(Finite(Decimal::ONE)),
        (NaN, _) | (_, NaN) => Ok(NaN),
        (_, _) if zero_base && signum(exponent) < 0 => {
            Err(no_power("zero raised to a negative power is undefined"))
        }
        (Finite(b), Finite(e)) => {
            if e.fract().is_zero() {
                return integer_power(b, e);
            }
            if b.is_sign_negative() && !b.is_zero() {
                let message =
                    "a negative number raised to a non-integer power yields a complex result";
                return Err(no_power(message));
            }
            let power = b.checked_powd(e).ok_or_else(overflow)?;
            // It comes out of logarithms, whose last digits are noise.
            let rounded = power.round_sf(IRRATIONAL_DIGITS).unwrap_or(power);
            Ok(Finite(rounded.normalize()))
        }
        _ => numeric_from_f64(numeric_to_f64(base).powf(numeric_to_f64(exponent)), 15),
    }
}

fn integer_power(base: Decimal, exponent: Decimal) -> Result<Numeric> {
    let count = i64::try_from(exponent).map_err(|_| overflow())?;
    let mut result = Decimal::ONE;
    let mut square = base;
    let mut rest = count.unsigned_abs();
    while rest > 0 {
        if rest & 1 == 1 {
            result = result.checked_mul(square).ok_or_else(overflow)?;
        }
        rest >>= 1;
        if rest > 0 {
            square = square.checked_mul(square).ok_or_else(overflow)?;
        }
    }
    match count < 0 {
        true => div(Finite(Decimal::ONE), Finite(result)),
        false => Ok(Finite(result)),
    }
}

/// A float as numeric, with as many significant digits as the float type is good for.
pub(super) fn numeric_from_f64(value: f64, digits: usize) -> Result<Numeric> {
    if value.is_nan() {
        return Ok(NaN);
    }
    if value.is_infinite() {
        return Ok(if value > 0.0 { Infinity } else { NegInfinity });
    }
    if value.abs() < 1e-29 {
        return Ok(Finite(Decimal::ZERO));
    }
    let scientific = format!("{value:.*e}", digits - 1);
    let decimal = Decimal::from_scientific(&scientific).map_err(|_| overflow());
    match decimal {
        Ok(decimal) => Ok(Finite(decimal.normalize())),
        // Too many places behind the point: what is left of the digits is what fits.
        Err(error) => match value.abs() < 1.0 {
            true => {
                let fixed = format!("{value:.28}");
                Decimal::from_str(&fixed)
                    .map(|d| Finite(d.normalize()))
                    .map_err(|_| error)
            }
            false => Err(error),
        },
    }
}

pub(super) fn numeric_to_f64(value: Numeric) -> f64 {
    match value {
        NaN => f64::NAN,
        Infinity => f64::INFINITY,
        NegInfinity => f64::NEG_INFINITY,
        // The way over the text rounds once, and right.
        Finite(decimal) => decimal.to_string().parse().unwrap_or(f64::NAN),
    }
}

/// To the nearest integer, halves away from zero; `ty` is the wanted type, for errors.
pub(super) fn numeric_to_int(value: Numeric, ty: &str) -> Result<i64> {
    let out_of_range = || Error::new(ErrorKind::OutOfRange, format!("{ty} out of range"));
    match value {
        NaN => Err(Error::unsupported(format!("cannot convert NaN to {ty}"))),
        Infinity | NegInfinity => Err(Error::unsupported(format!(
            "cannot convert infinity to {ty}"
        ))),
        Finite(decimal) => {
            let whole = decimal.round_dp_with_strategy(0, RoundingStrategy::MidpointAwayFromZero);
            i64::try_from(whole).map_err(|_| out_of_range())
        }
    }
}
