//! Which types stand for which without being asked: PostgreSQL's implicit casts and common types.

use arrow::datatypes::{DataType, Field};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::{Expr, Operator, binary_expr};
use ruslo_repr::schema::{INTERVAL, NUMERIC, TIMESTAMP, list_of, timestamptz, type_name};
use ruslo_repr::text::parse_f64;
use ruslo_repr::{Error, ErrorKind, Numeric, Result};

use super::cast::cast;
use super::key::{key_form, order_form};
use super::overload::undefined_operator;

/// What it costs to give `from` where `to` is wanted; `None` if only an explicit cast may.
///
/// Types that PostgreSQL prefers in their category (double precision, timestamptz) are nearest.
/// `varchar` goes anywhere at a high price, since a string literal may stand for any type.
pub(super) fn implicit_cost(from: &DataType, to: &DataType) -> Option<u32> {
    if from == to {
        return Some(0);
    }
    match (from, to) {
        (DataType::Null, _) => Some(1),
        (DataType::Utf8, DataType::Float64) => Some(49),
        (DataType::Utf8, to) if *to == timestamptz() => Some(49),
        (DataType::Utf8, _) => Some(50),
        (DataType::Utf8View, DataType::Utf8) => Some(1),
        (DataType::Date32, DataType::Timestamp(_, zone)) => {
            Some(if zone.is_some() { 1 } else { 2 })
        }
        (DataType::Timestamp(_, None), DataType::Timestamp(_, Some(_))) => Some(1),
        (DataType::Time64(_), to) if *to == INTERVAL => Some(2),
        (DataType::List(from), DataType::List(to)) => {
            implicit_cost(from.data_type(), to.data_type())
        }
        (DataType::Struct(from), DataType::Struct(to)) if from.len() == to.len() => {
            let costs = from.iter().zip(to.iter());
            costs
                .map(|(f, t)| implicit_cost(f.data_type(), t.data_type()))
                .sum()
        }
        _ => {
            let (low, high) = (number_rank(from)?, number_rank(to)?);
            match (low < high, to) {
                (true, DataType::Float64) => Some(1),
                (true, _) => Some(2 + high - low),
                (false, _) => None,
            }
        }
    }
}

/// Position on the ladder of numbers, on which every step up is implicit.
fn number_rank(ty: &DataType) -> Option<u32> {
    Some(match ty {
        DataType::Int16 => 0,
        DataType::Int32 => 1,
        DataType::Int64 => 2,
        DataType::FixedSizeBinary(16) => 3,
        DataType::Float32 => 4,
        DataType::Float64 => 5,
        _ => return None,
    })
}

pub(super) fn is_number(ty: &DataType) -> bool {
    number_rank(ty).is_some()
}

/// The type in which values of two types meet in CASE, COALESCE, UNION, VALUES and ARRAY.
pub fn common_type(a: &DataType, b: &DataType) -> Option<DataType> {
    match (a, b) {
        (a, b) if a == b => Some(a.clone()),
        (DataType::Null, other) | (other, DataType::Null) => Some(other.clone()),
        (DataType::List(a), DataType::List(b)) => {
            common_type(a.data_type(), b.data_type()).map(list_of)
        }
        (DataType::Struct(a), DataType::Struct(b)) if a.len() == b.len() => {
            let fields = a.iter().zip(b.iter()).map(|(a, b)| {
                let ty = common_type(a.data_type(), b.data_type())?;
                Some(Field::new(a.name(), ty, true))
            });
            Some(DataType::Struct(fields.collect::<Option<_>>()?))
        }
        (DataType::Utf8, _) | (_, DataType::Utf8) => None,
        _ if implicit_cost(a, b).is_some() => Some(b.clone()),
        _ if implicit_cost(b, a).is_some() => Some(a.clone()),
        _ => None,
    }
}

/// As [`common_type`] over expressions: string literals take the type of the others.
pub fn common_type_of(exprs: &[(Expr, DataType)], what: &str) -> Result<DataType> {
    let mut common = DataType::Null;
    let typed = exprs.iter().filter(|(expr, _)| !is_unknown(expr));
    for (_, ty) in typed {
        common = common_type(&common, ty).ok_or_else(|| {
            let (a, b) = (type_name(&common), type_name(ty));
            let message = format!("{what} types {a} and {b} cannot be matched");
            Error::new(ErrorKind::DatatypeMismatch, message)
        })?;
    }
    let untyped = exprs.iter().any(|(_, ty)| *ty == DataType::Utf8);
    match common {
        DataType::Null if untyped => Ok(DataType::Utf8),
        ty => Ok(ty),
    }
}

/// A literal whose type the context decides: `'…'` or NULL.
pub fn is_unknown(expr: &Expr) -> bool {
    match expr {
        Expr::Literal(ScalarValue::Utf8(_) | ScalarValue::Null, _) => true,
        Expr::Alias(alias) => is_unknown(&alias.expr),
        _ => false,
    }
}

/// The type in which `left op right` compares, or the error that there is none.
fn comparison_type(
    symbol: &str,
    left: &(Expr, DataType),
    right: &(Expr, DataType),
) -> Result<DataType> {
    let ty = match (is_unknown(&left.0), is_unknown(&right.0)) {
        (true, false) => Some(right.1.clone()),
        (false, true) => Some(left.1.clone()),
        _ => match (&left.1, &right.1) {
            (DataType::Null, DataType::Null) => Some(DataType::Utf8),
            // An integer that a real cannot hold exactly must not compare equal to it.
            (DataType::Float32, DataType::Float32) => Some(DataType::Float32),
            (DataType::Float32, n) | (n, DataType::Float32) if is_number(n) => {
                Some(DataType::Float64)
            }
            (a, b) => common_type(a, b),
        },
    };
    ty.ok_or_else(|| undefined_operator(symbol, &left.1, &right.1))
}

/// `left op right` for a comparison: both sides cast to one type and brought into key form, so
/// that Arrow's comparison of the bytes is PostgreSQL's of the values.
pub fn compare(op: Operator, left: (Expr, DataType), right: (Expr, DataType)) -> Result<Expr> {
    let ty = comparison_type(&op.to_string(), &left, &right)?;
    let form = match op {
        Operator::Lt | Operator::LtEq | Operator::Gt | Operator::GtEq => order_form,
        _ => key_form,
    };
    let left = form(cast(left.0, &left.1, &ty, false)?, &ty);
    let right = form(cast(right.0, &right.1, &ty, false)?, &ty);
    Ok(binary_expr(left, op, right))
}

/// A number as written in SQL: integer, bigint, numeric or, where that overflows, double
/// precision; the first that holds it.
pub fn number_literal(text: &str) -> Result<ScalarValue> {
    let digits = text.replace('_', "");
    if let Ok(value) = digits.parse::<i32>() {
        return Ok(ScalarValue::Int32(Some(value)));
    }
    if let Ok(value) = digits.parse::<i64>() {
        return Ok(ScalarValue::Int64(Some(value)));
    }
    match digits.parse::<Numeric>() {
        Ok(value) => Ok(numeric_scalar(value)),
        Err(error) if error.kind == ErrorKind::OutOfRange => {
            Ok(ScalarValue::Float64(Some(parse_f64(&digits)?)))
        }
        Err(error) => Err(error),
    }
}

pub(super) fn numeric_scalar(value: Numeric) -> ScalarValue {
    ScalarValue::FixedSizeBinary(16, Some(value.to_bytes().to_vec()))
}

/// Whether a cast is allowed: in an assignment, or only if it is written (`explicit`).
pub fn can_cast(from: &DataType, to: &DataType, explicit: bool) -> bool {
    if implicit_cost(from, to).is_some() || *to == DataType::Utf8 {
        return true;
    }
    match (from, to) {
        (DataType::List(from), DataType::List(to)) => {
            return can_cast(from.data_type(), to.data_type(), explicit);
        }
        (DataType::Struct(from), DataType::Struct(to)) => {
            return from.len() == to.len()
                && from
                    .iter()
                    .zip(to.iter())
                    .all(|(f, t)| can_cast(f.data_type(), t.data_type(), explicit));
        }
        _ if is_number(from) && is_number(to) => return true,
        _ => {}
    }
    let moment = |ty: &DataType| matches!(ty, DataType::Timestamp(..));
    match (from, to) {
        (from, DataType::Date32) if moment(from) => true,
        (from, DataType::Time64(_)) if moment(from) || *from == INTERVAL => true,
        (from, to) if moment(from) && *to == TIMESTAMP => true,
        (DataType::LargeUtf8, DataType::Boolean) => explicit,
        (DataType::LargeUtf8, to) if is_number(to) => explicit,
        (DataType::Boolean, DataType::Int32) | (DataType::Int32, DataType::Boolean) => explicit,
        // Types that only DataFusion's own functions make.
        (DataType::UInt8 | DataType::UInt16 | DataType::UInt32 | DataType::UInt64, to)
        | (DataType::Decimal128(..) | DataType::Int8, to) => is_number(to) || *to == NUMERIC,
        _ => false,
    }
}
