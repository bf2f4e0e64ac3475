//! The arithmetic operators, `+ - * / % ^` and unary minus, as functions `op_…`.
//!
//! Results that do not fit are errors, never wrapped or infinite.

use arrow::array::{ArrayRef, Datum, Scalar};
use arrow::compute::kernels::numeric as kernel;
use arrow::datatypes::DataType;
use arrow::error::ArrowError;
use ruslo_repr::schema::type_name;
use ruslo_repr::{Error, ErrorKind, Result};

use super::datetime_arith as datetime;
use super::numeric::{self, division_by_zero};
use super::overload::{Args, Function, Overload, fn1, fn2, over};
use super::types::*;
use super::{jsonb, math};

pub(super) fn functions() -> Vec<Function> {
    vec![
        Function::new("op_add", additions()).operator("+"),
        Function::new("op_subtract", subtractions()).operator("-"),
        Function::new("op_multiply", multiplications()).operator("*"),
        Function::new("op_divide", divisions()).operator("/"),
        Function::new("op_modulo", remainders())
            .operator("%")
            .alias("mod"),
        Function::new("op_power", math::powers()).operator("^"),
        Function::new("op_negate", negations()).operator("-"),
    ]
}

type Kernel = fn(&dyn Datum, &dyn Datum) -> Result<ArrayRef, ArrowError>;

/// The integer types' overloads of a checked kernel of Arrow's.
fn integers(kernel: Kernel) -> Vec<Overload> {
    [DataType::Int16, DataType::Int32, DataType::Int64]
        .map(|ty| over(&[ty.clone(), ty.clone()], ty, move |args| run(kernel, args)))
        .into()
}

fn run(kernel: Kernel, args: &Args) -> Result<ArrayRef> {
    let [left, right] = args.columns.as_slice() else {
        return Err(Error::internal("an operator takes two arguments"));
    };
    let ty = left.array.data_type().clone();
    let scalar = |column: &Column| Scalar::new(column.array.clone());
    let result = match (left.constant, right.constant) {
        (false, true) => kernel(&left.array, &scalar(right)),
        (true, false) => kernel(&scalar(left), &right.array),
        _ => kernel(&left.array, &right.array),
    };
    result.map_err(|error| match error {
        ArrowError::DivideByZero => division_by_zero(),
        ArrowError::ArithmeticOverflow(_) => Error::new(
            ErrorKind::OutOfRange,
            format!("{} out of range", type_name(&ty)),
        ),
        other => other.into(),
    })
}

/// Overloads over floats; the result of two different sizes is the larger.
fn floats(small: fn(f32, f32) -> Result<f32>, large: fn(f64, f64) -> Result<f64>) -> Vec<Overload> {
    vec![
        fn2::<Float4, Float4, Float4, _>(small),
        fn2::<Float8, Float8, Float8, _>(large),
        fn2::<Float4, Float8, Float8, _>(move |a, b| large(a.into(), b)),
        fn2::<Float8, Float4, Float8, _>(move |a, b| large(a, b.into())),
    ]
}

/// A finite result of an operation that went beyond the type.
pub(super) fn float_overflow() -> Error {
    Error::new(ErrorKind::OutOfRange, "value out of range: overflow")
}

fn float_underflow() -> Error {
    Error::new(ErrorKind::OutOfRange, "value out of range: underflow")
}

fn checked4(result: f32, a: f32, b: f32) -> Result<f32> {
    match result.is_infinite() && a.is_finite() && b.is_finite() {
        true => Err(float_overflow()),
        false => Ok(result),
    }
}

pub(super) fn checked8(result: f64, a: f64, b: f64) -> Result<f64> {
    match result.is_infinite() && a.is_finite() && b.is_finite() {
        true => Err(float_overflow()),
        false => Ok(result),
    }
}

fn multiply4(a: f32, b: f32) -> Result<f32> {
    match a * b == 0.0 && a != 0.0 && b != 0.0 {
        true => Err(float_underflow()),
        false => checked4(a * b, a, b),
    }
}

fn multiply8(a: f64, b: f64) -> Result<f64> {
    match a * b == 0.0 && a != 0.0 && b != 0.0 {
        true => Err(float_underflow()),
        false => checked8(a * b, a, b),
    }
}

fn divide4(a: f32, b: f32) -> Result<f32> {
    match () {
        _ if b == 0.0 && !a.is_nan() => Err(division_by_zero()),
        _ if a / b == 0.0 && a != 0.0 && b.is_finite() => Err(float_underflow()),
        _ => checked4(a / b, a, b),
    }
}

pub(super) fn divide8(a: f64, b: f64) -> Result<f64> {
    match () {
        _ if b == 0.0 && !a.is_nan() => Err(division_by_zero()),
        _ if a / b == 0.0 && a != 0.0 && b.is_finite() => Err(float_underflow()),
        _ => checked8(a / b, a, b),
    }
}

fn additions() -> Vec<Overload> {
    let mut all = integers(kernel::add);
    all.extend(floats(
        |a, b| checked4(a + b, a, b),
        |a, b| checked8(a + b, a, b),
    ));
    all.push(fn2::<Num, Num, Num, _>(numeric::add));
    all.extend(datetime::additions());
    all
}

fn subtractions() -> Vec<Overload> {
    let mut all = integers(kernel::sub);
    all.extend(floats(
        |a, b| checked4(a - b, a, b),
        |a, b| checked8(a - b, a, b),
    ));
    all.push(fn2::<Num, Num, Num, _>(numeric::sub));
    all.extend(datetime::subtractions());
    all.extend(jsonb::subtractions());
    all
}

fn multiplications() -> Vec<Overload> {
    let mut all = integers(kernel::mul);
    all.extend(floats(multiply4, multiply8));
    all.push(fn2::<Num, Num, Num, _>(numeric::mul));
    all.extend(datetime::multiplications());
    all
}

fn divisions() -> Vec<Overload> {
    let mut all = integers(kernel::div);
    all.extend(floats(divide4, divide8));
    all.push(fn2::<Num, Num, Num, _>(numeric::div));
    all.extend(datetime::divisions());
    all
}

fn remainders() -> Vec<Overload> {
    // -2^31 % -1 is 0, though the quotient would not fit: so not Arrow's kernel.
    fn rem<T: Copy + PartialEq + Default>(a: T, b: T, rem: fn(T, T) -> T) -> Result<T> {
        match b == T::default() {
            true => Err(division_by_zero()),
            false => Ok(rem(a, b)),
        }
    }
    vec![
        fn2::<Int2, Int2, Int2, _>(|a, b| rem(a, b, i16::wrapping_rem)),
        fn2::<Int4, Int4, Int4, _>(|a, b| rem(a, b, i32::wrapping_rem)),
        fn2::<Int8, Int8, Int8, _>(|a, b| rem(a, b, i64::wrapping_rem)),
        fn2::<Num, Num, Num, _>(numeric::rem),
    ]
}

fn negations() -> Vec<Overload> {
    let integer = |ty: DataType| {
        over(std::slice::from_ref(&ty), ty.clone(), |args| {
            let array = &args.columns[0].array;
            kernel::neg(array.as_ref()).map_err(|error| match error {
                ArrowError::ArithmeticOverflow(_) => {
                    let message = format!("{} out of range", type_name(array.data_type()));
                    Error::new(ErrorKind::OutOfRange, message)
                }
                other => other.into(),
            })
        })
    };
    vec![
        integer(DataType::Int16),
        integer(DataType::Int32),
        integer(DataType::Int64),
        fn1::<Float4, Float4, _>(|a| -a),
        fn1::<Float8, Float8, _>(|a| -a),
        fn1::<Num, Num, _>(numeric::negate),
        fn1::<Interval, Interval, _>(super::interval::negate),
    ]
}
