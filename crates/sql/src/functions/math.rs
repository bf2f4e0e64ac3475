//! Mathematical functions. Integers and numeric stay exact where PostgreSQL keeps them so.

use ruslo_repr::{Error, ErrorKind, Numeric, Result};

use super::arith::{checked8, float_overflow};
use super::numeric::{self, no_logarithm, no_power};
use super::overload::{Function, Overload, fn1, fn2, over};
use super::types::*;

pub(super) fn functions() -> Vec<Function> {
    let mut all = vec![
        absolute(),
        Function::new(
            "sign",
            vec![
                fn1::<Float8, Float8, _>(sign),
                fn1::<Num, Num, _>(numeric::sign),
            ],
        )
        .alias("signum"),
        rounding("round", f64::round_ties_even, numeric::round),
        rounding("trunc", f64::trunc, numeric::trunc),
        whole("ceil", f64::ceil, numeric::ceil).alias("ceiling"),
        whole("floor", f64::floor, numeric::floor),
        Function::new(
            "sqrt",
            vec![
                fn1::<Float8, Float8, _>(|x| match x < 0.0 {
                    true => Err(no_power("cannot take square root of a negative number")),
                    false => Ok(x.sqrt()),
                }),
                fn1::<Num, Num, _>(numeric::sqrt),
            ],
        ),
        Function::new("cbrt", vec![fn1::<Float8, Float8, _>(f64::cbrt)]),
        Function::new(
            "exp",
            vec![
                fn1::<Float8, Float8, _>(|x| checked8(x.exp(), x, 0.0)),
                fn1::<Num, Num, _>(numeric::exp),
            ],
        ),
        Function::new(
            "ln",
            vec![
                fn1::<Float8, Float8, _>(|x| logarithm(x, f64::ln)),
                fn1::<Num, Num, _>(numeric::ln),
            ],
        ),
        logarithms("log").alias("log10"),
        Function::new("power", powers()).alias("pow"),
        Function::new(
            "div",
            vec![fn2::<Num, Num, Num, _>(|a, b| {
                numeric::trunc(numeric::div(numeric::sub(a, numeric::rem(a, b)?)?, b)?, 0)
            })],
        ),
        Function::new(
            "gcd",
            vec![
                fn2::<Int4, Int4, Int4, _>(|a, b| to_i32(gcd(a.into(), b.into()))),
                fn2::<Int8, Int8, Int8, _>(|a, b| to_i64(gcd(a, b))),
            ],
        ),
        Function::new(
            "lcm",
            vec![
                fn2::<Int4, Int4, Int4, _>(|a, b| to_i32(lcm(a.into(), b.into()))),
                fn2::<Int8, Int8, Int8, _>(|a, b| to_i64(lcm(a, b))),
            ],
        ),
        Function::new(
            "scale",
            vec![fn1::<Num, Int4, _>(|v| match v {
                Numeric::Finite(d) => Some(d.scale() as i32),
                _ => None,
            })],
        ),
        Function::new(
            "trim_scale",
            vec![fn1::<Num, Num, _>(|v| match v {
                Numeric::Finite(d) => Numeric::Finite(d.normalize()),
                special => special,
            })],
        ),
        Function::new(
            "min_scale",
            vec![fn1::<Num, Int4, _>(|v| match v {
                Numeric::Finite(d) => Some(d.normalize().scale() as i32),
                _ => None,
            })],
        ),
        Function::new(
            "pi",
            vec![over(&[], Float8::data_type(), |args| {
                Float8::collect(vec![Some(std::f64::consts::PI); args.rows])
            })],
        ),
        numeric_typmod(),
        Function::new("factorial", vec![fn1::<Int8, Num, _>(factorial)]),
        width_bucket(),
    ];
    all.extend(trigonometry());
    all
}

fn domain(message: &str) -> Error {
    Error::new(ErrorKind::InvalidParameter, message)
}

fn absolute() -> Function {
    let out_of_range = |ty: &str| Error::new(ErrorKind::OutOfRange, format!("{ty} out of range"));
    let overloads = vec![
        fn1::<Int2, Int2, _>(move |v| v.checked_abs().ok_or_else(|| out_of_range("smallint"))),
        fn1::<Int4, Int4, _>(move |v| v.checked_abs().ok_or_else(|| out_of_range("integer"))),
        fn1::<Int8, Int8, _>(move |v| v.checked_abs().ok_or_else(|| out_of_range("bigint"))),
        fn1::<Float4, Float4, _>(f32::abs),
        fn1::<Float8, Float8, _>(f64::abs),
        fn1::<Num, Num, _>(numeric::abs),
    ];
    Function::new("abs", overloads)
}

fn sign(x: f64) -> f64 {
    match x {
        x if x > 0.0 => 1.0,
        x if x < 0.0 => -1.0,
        x if x.is_nan() => x,
        _ => 0.0,
    }
}

/// `round` and `trunc`: of floats to integers, of numeric also to a scale.
fn rounding(
    name: &str,
    float: fn(f64) -> f64,
    scaled: fn(Numeric, i32) -> Result<Numeric>,
) -> Function {
    Function::new(
        name,
        vec![
            fn1::<Float8, Float8, _>(float),
            fn1::<Num, Num, _>(move |v| scaled(v, 0)),
            fn2::<Num, Int4, Num, _>(scaled),
        ],
    )
}

fn whole(name: &str, float: fn(f64) -> f64, decimal: fn(Numeric) -> Numeric) -> Function {
    Function::new(
        name,
        vec![fn1::<Float8, Float8, _>(float), fn1::<Num, Num, _>(decimal)],
    )
}

fn logarithm(x: f64, log: fn(f64) -> f64) -> Result<f64> {
    match x {
        0.0 => Err(no_logarithm("cannot take logarithm of zero")),
        x if x < 0.0 => Err(no_logarithm("cannot take logarithm of a negative number")),
        x => Ok(log(x)),
    }
}

fn logarithms(name: &str) -> Function {
    Function::new(
        name,
        vec![
            fn1::<Float8, Float8, _>(|x| logarithm(x, f64::log10)),
            fn1::<Num, Num, _>(|v| numeric::log(Numeric::Finite(10.into()), v)),
            fn2::<Num, Num, Num, _>(numeric::log),
        ],
    )
}

pub(super) fn powers() -> Vec<Overload> {
    vec![
        fn2::<Float8, Float8, Float8, _>(power),
        fn2::<Num, Num, Num, _>(numeric::power),
    ]
}

fn power(base: f64, exponent: f64) -> Result<f64> {
    if base == 0.0 && exponent < 0.0 {
        return Err(no_power("zero raised to a negative power is undefined"));
    }
    if base < 0.0 && base.is_finite() && exponent.is_finite() && exponent.fract() != 0.0 {
        let message = "a negative number raised to a non-integer power yields a complex result";
        return Err(no_power(message));
    }
    checked8(base.powf(exponent), base, exponent)
}

fn gcd(a: i64, b: i64) -> u64 {
    let (mut a, mut b) = (a.unsigned_abs(), b.unsigned_abs());
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// Too large a result saturates, which no integer type holds.
fn lcm(a: i64, b: i64) -> u64 {
    match gcd(a, b) {
        0 => 0,
        gcd => (a.unsigned_abs() / gcd).saturating_mul(b.unsigned_abs()),
    }
}

fn to_i32(value: u64) -> Result<i32> {
    i32::try_from(value).map_err(|_| Error::new(ErrorKind::OutOfRange, "integer out of range"))
}

fn to_i64(value: u64) -> Result<i64> {
    i64::try_from(value).map_err(|_| Error::new(ErrorKind::OutOfRange, "bigint out of range"))
}

fn factorial(n: i64) -> Result<Numeric> {
    if n < 0 {
        return Err(Error::new(
            ErrorKind::OutOfRange,
            "factorial of a negative number is undefined",
        ));
    }
    // 27! is the last that a numeric holds.
    if n > 27 {
        return Err(numeric::overflow());
    }
    (1..=n).try_fold(Numeric::Finite(1.into()), |product, i| {
        numeric::mul(product, Numeric::Finite(i.into()))
    })
}

/// `numeric(precision, scale)`: rounds to the scale, refuses more digits than the precision.
fn numeric_typmod() -> Function {
    Function::new(
        "numeric_typmod",
        vec![super::overload::fn3::<Num, Int4, Int4, Num, _>(
            |value, precision, scale| {
                let rounded = numeric::round(value, scale)?;
                let Numeric::Finite(decimal) = rounded else {
                    return Ok(rounded);
                };
                let limit = 10i128.checked_pow(precision.max(0).unsigned_abs());
                match limit {
                    Some(limit) if decimal.mantissa().abs() >= limit => {
                        let whole = precision - scale;
                        Err(Error::new(ErrorKind::OutOfRange, "numeric field overflow").with_detail(
                        format!(
                            "A field with precision {precision}, scale {scale} must round to an \
                             absolute value less than 10^{whole}."
                        ),
                    ))
                    }
                    _ => Ok(rounded),
                }
            },
        )],
    )
}

fn width_bucket() -> Function {
    let params = [
        Float8::data_type(),
        Float8::data_type(),
        Float8::data_type(),
        Int4::data_type(),
    ];
    let eval = |args: &super::overload::Args| {
        let floats = (0..3).map(|i| args.columns[i].reader::<Float8>());
        let floats = floats.collect::<Result<Vec<_>>>()?;
        let count = args.columns[3].reader::<Int4>()?;
        let values = (0..args.rows).map(|row| {
            let parts = (
                floats[0].get(row),
                floats[1].get(row),
                floats[2].get(row),
                count.get(row),
            );
            match parts {
                (Some(x), Some(low), Some(high), Some(count)) => {
                    bucket(x, low, high, count).map(Some)
                }
                _ => Ok(None),
            }
        });
        Int4::collect(values.collect::<Result<_>>()?)
    };
    Function::new("width_bucket", vec![over(&params, Int4::data_type(), eval)])
}

fn bucket(x: f64, low: f64, high: f64, count: i32) -> Result<i32> {
    if count <= 0 {
        return Err(domain("count must be greater than zero"));
    }
    if !low.is_finite() || !high.is_finite() || low == high || x.is_nan() {
        return Err(domain("lower bound cannot equal upper bound"));
    }
    let part = (x - low) / (high - low);
    let bucket = match part {
        p if p < 0.0 => 0,
        p if p >= 1.0 => i64::from(count) + 1,
        p => (p * f64::from(count)) as i64 + 1,
    };
    i32::try_from(bucket).map_err(|_| Error::new(ErrorKind::OutOfRange, "integer out of range"))
}

type Real = fn(f64) -> f64;

fn trigonometry() -> Vec<Function> {
    let checked: [(&str, Real); 6] = [
        ("asin", f64::asin),
        ("acos", f64::acos),
        ("acosh", f64::acosh),
        ("atanh", f64::atanh),
        ("asind", asind),
        ("acosd", |x| 90.0 - asind(x)),
    ];
    let plain: [(&str, Real); 15] = [
        ("sin", f64::sin),
        ("cos", f64::cos),
        ("tan", f64::tan),
        ("cot", |x| 1.0 / x.tan()),
        ("atan", f64::atan),
        ("sinh", f64::sinh),
        ("cosh", f64::cosh),
        ("tanh", f64::tanh),
        ("asinh", f64::asinh),
        ("atand", |x| x.atan() / 1f64.atan() * 45.0),
        ("degrees", f64::to_degrees),
        ("radians", f64::to_radians),
        ("sind", sind),
        ("cosd", |x| sind(90.0 - x % 360.0)),
        ("tand", tand),
    ];
    let mut all: Vec<Function> = vec![];
    for (name, f) in checked {
        // Outside of the domain these give NaN.
        let checked = move |x: f64| match f(x) {
            y if y.is_nan() && !x.is_nan() => {
                Err(Error::new(ErrorKind::OutOfRange, "input is out of range"))
            }
            y => Ok(y),
        };
        all.push(Function::new(name, vec![fn1::<Float8, Float8, _>(checked)]));
    }
    for (name, f) in plain {
        all.push(Function::new(name, vec![fn1::<Float8, Float8, _>(f)]));
    }
    all.push(Function::new(
        "cotd",
        vec![fn1::<Float8, Float8, _>(|x| match tand(x) {
            0.0 => Err(float_overflow()),
            tangent => Ok(1.0 / tangent),
        })],
    ));
    all.push(Function::new(
        "atan2",
        vec![fn2::<Float8, Float8, Float8, _>(f64::atan2)],
    ));
    all.push(Function::new(
        "atan2d",
        vec![fn2::<Float8, Float8, Float8, _>(|y, x| {
            y.atan2(x).to_degrees()
        })],
    ));
    all
}

/// The inverse of [`sind`], exact where that is.
fn asind(x: f64) -> f64 {
    match x.abs() <= 0.5 {
        true => x.asin() / 0.5f64.asin() * 30.0,
        false => (90.0 - x.abs().acos() / 0.5f64.acos() * 60.0).copysign(x),
    }
}

/// The sine of degrees, exact at the multiples of 30 where it is rational.
fn sind(degrees: f64) -> f64 {
    let turn = degrees % 360.0;
    let turn = if turn < 0.0 { turn + 360.0 } else { turn };
    let (sign, half) = if turn >= 180.0 {
        (-1.0, turn - 180.0)
    } else {
        (1.0, turn)
    };
    let quarter = if half > 90.0 { 180.0 - half } else { half };
    // Scaled by what the library gives for 30 and 60 degrees, so that those come out exact.
    let sine = if quarter <= 30.0 {
        quarter.to_radians().sin() / 30f64.to_radians().sin() / 2.0
    } else {
        let short_of_one = |degrees: f64| 1.0 - degrees.to_radians().cos();
        1.0 - short_of_one(90.0 - quarter) / short_of_one(60.0) / 2.0
    };
    // Never -0.
    sign * sine + 0.0
}

fn tand(degrees: f64) -> f64 {
    match degrees % 180.0 {
        45.0 | -135.0 => 1.0,
        135.0 | -45.0 => -1.0,
        turn => sind(turn) / sind(90.0 - turn),
    }
}
