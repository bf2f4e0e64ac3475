//! Key form: where equal values have equal bytes and Arrow's order is PostgreSQL's.
//!
//! | type | what differs though it is equal | key form |
//! | --- | --- | --- |
//! | numeric | the display scale | last byte zero |
//! | real, double precision | -0 and 0, the kinds of NaN | 0, one NaN |
//! | interval | a month and 30 days, a day and 24 hours | carried as far as it goes |
//! | jsonb | trailing zeros of numbers | none |

use std::sync::Arc;

use arrow::array::cast::AsArray;
use arrow::array::types::{Float32Type, Float64Type, IntervalMonthDayNanoType};
use arrow::array::{
    Array, ArrayRef, FixedSizeBinaryArray, LargeStringArray, ListArray, StructArray,
};
use arrow::buffer::Buffer;
use arrow::datatypes::{DataType, IntervalUnit};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::Expr;
use ruslo_repr::text::interval_order;
use ruslo_repr::text::json::Json;
use ruslo_repr::{Error, Result};

use super::overload::Function;

pub(super) const NAME: &str = "key_form";

/// The key form of `expr`, which has the type `ty`: a call of `key_form`, or `expr` where bytes
/// already compare as values do.
pub fn key_form(expr: Expr, ty: &DataType) -> Expr {
    if !has_key_form(ty) {
        return expr;
    }
    if let Expr::Literal(value, metadata) = &expr
        && let Ok(array) = value.to_array()
        && let Ok(key) = key_array(&array)
        && let Ok(key) = ScalarValue::try_from_array(&key, 0)
    {
        return Expr::Literal(key, metadata.clone());
    }
    match &expr {
        Expr::ScalarFunction(call) if call.func.name() == NAME => expr,
        _ => function().udf().call(vec![expr]),
    }
}

/// As [`key_form`], where besides the order matters: that of jsonb is not its text's.
pub fn order_form(expr: Expr, ty: &DataType) -> Expr {
    match ty {
        DataType::LargeUtf8 => super::json_order::function().udf().call(vec![expr]),
        ty => key_form(expr, ty),
    }
}

/// Whether values of this type may be equal in different bytes.
pub fn has_key_form(ty: &DataType) -> bool {
    match ty {
        DataType::FixedSizeBinary(16) | DataType::Float32 | DataType::Float64 => true,
        DataType::Interval(_) | DataType::LargeUtf8 => true,
        DataType::List(item) => has_key_form(item.data_type()),
        DataType::Struct(fields) => fields.iter().any(|f| has_key_form(f.data_type())),
        _ => false,
    }
}

pub(super) fn function() -> Function {
    let typing = |types: &[DataType]| match types {
        [ty] => Ok(ty.clone()),
        _ => Err(Error::internal("key_form takes one argument")),
    };
    Function::generic(NAME, 1..=1, typing, |args| {
        key_array(&args.columns[0].array)
    })
}

/// The key form of every value of an array.
pub fn key_array(array: &ArrayRef) -> Result<ArrayRef> {
    Ok(match array.data_type() {
        DataType::FixedSizeBinary(16) => {
            let source = array.as_fixed_size_binary();
            let mut bytes = source.value_data().to_vec();
            bytes
                .iter_mut()
                .skip(15)
                .step_by(16)
                .for_each(|scale| *scale = 0);
            let nulls = source.nulls().cloned();
            Arc::new(FixedSizeBinaryArray::try_new(
                16,
                Buffer::from_vec(bytes),
                nulls,
            )?)
        }
        DataType::Float32 => {
            let floats = array.as_primitive::<Float32Type>();
            Arc::new(
                floats.unary::<_, Float32Type>(|v| if v.is_nan() { f32::NAN } else { v + 0.0 }),
            )
        }
        DataType::Float64 => {
            let floats = array.as_primitive::<Float64Type>();
            Arc::new(
                floats.unary::<_, Float64Type>(|v| if v.is_nan() { f64::NAN } else { v + 0.0 }),
            )
        }
        DataType::Interval(IntervalUnit::MonthDayNano) => {
            let intervals = array.as_primitive::<IntervalMonthDayNanoType>();
            Arc::new(intervals.unary::<_, IntervalMonthDayNanoType>(interval_order))
        }
        DataType::LargeUtf8 => {
            let keys = array
                .as_string::<i64>()
                .iter()
                .map(|text| text.map(json_key).transpose());
            Arc::new(keys.collect::<Result<LargeStringArray>>()?)
        }
        DataType::List(item) if has_key_form(item.data_type()) => {
            let list = array.as_list::<i32>();
            let (offsets, nulls) = (list.offsets().clone(), list.nulls().cloned());
            let values = key_array(list.values())?;
            Arc::new(ListArray::try_new(item.clone(), offsets, values, nulls)?)
        }
        DataType::Struct(fields) if has_key_form(array.data_type()) => {
            let source = array.as_struct();
            let columns = source
                .columns()
                .iter()
                .map(key_array)
                .collect::<Result<_>>()?;
            let nulls = source.nulls().cloned();
            let length = array.len();
            Arc::new(StructArray::try_new_with_length(
                fields.clone(),
                columns,
                nulls,
                length,
            )?)
        }
        _ => array.clone(),
    })
}

fn json_key(text: &str) -> Result<String> {
    fn strip(json: &mut Json) {
        match json {
            Json::Number(digits) if digits.contains('.') => {
                let kept = digits.trim_end_matches('0').trim_end_matches('.').len();
                digits.truncate(kept);
            }
            Json::Array(items) => items.iter_mut().for_each(strip),
            Json::Object(fields) => fields.iter_mut().for_each(|(_, value)| strip(value)),
            _ => {}
        }
    }
    // Only a number with a fraction can have zeros to lose.
    if !text.contains('.') {
        return Ok(text.to_string());
    }
    let mut json = Json::parse(text)?;
    strip(&mut json);
    Ok(json.to_string())
}
