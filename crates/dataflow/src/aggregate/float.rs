//! Exact sums of floats: the same for every order, and a row taken away is really gone.
//!
//! A finite float is an integer times a power of two. The exponents fall into bins 32 apart; the
//! integers of one bin, shifted to its lowest exponent, take at most 84 bits, so an `i128` holds
//! the sum of 2^43 of them. Only the final result is rounded, once, to the nearest even.

const MANTISSA_BITS: u32 = 52;
const BIN_EXPONENTS: u32 = 32;
/// Bins that a 64-bit float can fall into.
pub(crate) const BINS: u16 = 64;
/// 32-bit limbs that hold every bin's sum at its place.
const LIMBS: usize = BINS as usize + 6;

/// A float as (bin, integer in units of the bin's lowest exponent), or what it is else.
pub(crate) enum Part {
    Finite { bin: u16, value: i128 },
    NaN,
    Infinity,
    NegInfinity,
}

/// Splits a float into what can be added exactly.
pub(crate) fn split(float: f64) -> Part {
    if float.is_nan() {
        return Part::NaN;
    }
    if float.is_infinite() {
        return match float > 0.0 {
            true => Part::Infinity,
            false => Part::NegInfinity,
        };
    }
    let bits = float.to_bits();
    let fraction = bits & ((1 << MANTISSA_BITS) - 1);
    let exponent = (bits >> MANTISSA_BITS) as u32 & 0x7ff;
    let (mantissa, shift) = match exponent {
        0 => (fraction, 0),
        _ => (fraction | 1 << MANTISSA_BITS, exponent - 1),
    };
    let value = i128::from(mantissa) << (shift % BIN_EXPONENTS);
    Part::Finite {
        bin: (shift / BIN_EXPONENTS) as u16,
        value: if float.is_sign_negative() {
            -value
        } else {
            value
        },
    }
}

/// The float nearest to the sum of bins; infinite if it is out of range.
pub(crate) fn join(bins: impl Iterator<Item = (u16, i128)>) -> f64 {
    let mut limbs = [0u32; LIMBS];
    for (bin, value) in bins {
        add_at(&mut limbs, usize::from(bin), value);
    }
    let negative = limbs[LIMBS - 1] >> 31 == 1;
    if negative {
        negate(&mut limbs);
    }
    let magnitude = round(&limbs);
    if negative { -magnitude } else { magnitude }
}

/// Adds a signed value to a two's complement number from limb `at` on.
fn add_at(limbs: &mut [u32; LIMBS], at: usize, value: i128) {
    let mut carry = 0u64;
    for (i, limb) in limbs.iter_mut().enumerate().skip(at) {
        // Beyond its own four limbs the value is all sign bits.
        let shift = 32 * (i - at).min(3) as u32;
        let part = match i - at {
            0..=3 => (value >> shift) as u32,
            _ => (value >> 127) as u32,
        };
        let sum = u64::from(*limb) + u64::from(part) + carry;
        *limb = sum as u32;
        carry = sum >> 32;
    }
}

fn negate(limbs: &mut [u32; LIMBS]) {
    let mut carry = true;
    for limb in limbs.iter_mut() {
        let (sum, overflow) = (!*limb).overflowing_add(u32::from(carry));
        *limb = sum;
        carry = overflow;
    }
}

/// Rounds a number in units of 2^-1074 to the nearest float, ties to even.
fn round(limbs: &[u32; LIMBS]) -> f64 {
    let Some(top) = limbs.iter().rposition(|&limb| limb != 0) else {
        return 0.0;
    };
    let high_bit = top as u32 * 32 + 31 - limbs[top].leading_zeros();
    let bit = |i: u32| u64::from(limbs[(i / 32) as usize] >> (i % 32) & 1);
    let bits = |from: u32, to: u32| (from..=to).rev().fold(0, |acc, i| acc << 1 | bit(i));
    if high_bit <= MANTISSA_BITS {
        // The unit is the smallest float, so small numbers are their own bit patterns.
        return f64::from_bits(bits(0, high_bit));
    }
    let dropped = high_bit - MANTISSA_BITS;
    let mut mantissa = bits(dropped, high_bit);
    let half = bit(dropped - 1) == 1;
    let beyond_half = (0..dropped - 1).any(|i| bit(i) == 1);
    if half && (beyond_half || mantissa & 1 == 1) {
        mantissa += 1;
    }
    // A mantissa that rounded up to the next power of two carries into the exponent by itself.
    let pattern = (u64::from(dropped) << MANTISSA_BITS) + mantissa;
    match pattern < f64::INFINITY.to_bits() {
        true => f64::from_bits(pattern),
        false => f64::INFINITY,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(floats: &[f64]) -> f64 {
        let mut bins = [0i128; BINS as usize];
        for &float in floats {
            if let Part::Finite { bin, value } = split(float) {
                bins[usize::from(bin)] += value;
            }
        }
        join(
            bins.iter()
                .enumerate()
                .map(|(bin, value)| (bin as u16, *value)),
        )
    }

    #[test]
    fn one_float_is_its_own_sum() {
        let floats = [
            0.0,
            1.0,
            -1.5,
            0.1,
            1e300,
            -1e-300,
            f64::MAX,
            f64::MIN,
            f64::MIN_POSITIVE,
            5e-324,
            -5e-324,
            2.225_073_858_507_201e-308,
            123_456_789.123_456_79,
        ];
        for float in floats {
            assert_eq!(sum(&[float]).to_bits(), float.to_bits(), "{float}");
        }
    }

    #[test]
    fn sums_are_exact_and_rounded_once() {
        assert_eq!(sum(&[1e16, 1.0, -1e16]), 1.0);
        assert_eq!(sum(&[0.1; 10]), 1.0);
        assert_eq!(sum(&[f64::MAX, f64::MAX, -f64::MAX]), f64::MAX);
        assert_eq!(sum(&[f64::MAX, f64::MAX]), f64::INFINITY);
        assert_eq!(sum(&[9007199254740992.0, 1.0]), 9007199254740992.0);
        assert_eq!(sum(&[9007199254740992.0, 1.0, 5e-324]), 9007199254740994.0);
        assert_eq!(sum(&[3.5, -3.5]), 0.0);
    }
}
