//! Values in PostgreSQL's binary form, straight from Arrow arrays.
//!
//! The forms are those of each type's `send` function in PostgreSQL: big endian, dates and
//! timestamps counted from 2000-01-01, numerics as groups of four decimal digits.

use arrow::array::{Array, AsArray, GenericListArray, StructArray};
use arrow::datatypes::{
    DataType, Date32Type, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type,
    IntervalMonthDayNanoType, IntervalUnit, Time64MicrosecondType, TimeUnit,
    TimestampMicrosecondType,
};
use bytes::{BufMut, BytesMut};
use ruslo_engine::{Error, ErrorKind, Result};
use ruslo_repr::Numeric;

use super::types;

const DAYS_TO_2000: i32 = 10_957;
const MICROS_TO_2000: i64 = 946_684_800_000_000;
const JSONB_VERSION: u8 = 1;
/// More dimensions than PostgreSQL allows in an array.
const DIMENSIONS_MAX: usize = 6;

/// Appends length and value of `array[row]`, -1 and nothing for NULL.
pub(super) fn put_value(output: &mut BytesMut, array: &dyn Array, row: usize) -> Result<()> {
    if array.is_null(row) || array.data_type() == &DataType::Null {
        output.put_i32(-1);
        return Ok(());
    }
    let at = output.len();
    output.put_i32(0);
    put_body(output, array, row)?;
    let length = i32::try_from(output.len() - at - 4).map_err(|_| too_long())?;
    output[at..at + 4].copy_from_slice(&length.to_be_bytes());
    Ok(())
}

fn too_long() -> Error {
    Error::new(ErrorKind::OutOfRange, "a value is too long to be sent")
}

fn put_body(output: &mut BytesMut, array: &dyn Array, row: usize) -> Result<()> {
    match array.data_type() {
        DataType::Boolean => output.put_u8(array.as_boolean().value(row).into()),
        DataType::Int16 => output.put_i16(array.as_primitive::<Int16Type>().value(row)),
        DataType::Int32 => output.put_i32(array.as_primitive::<Int32Type>().value(row)),
        DataType::Int64 => output.put_i64(array.as_primitive::<Int64Type>().value(row)),
        DataType::Float32 => output.put_f32(array.as_primitive::<Float32Type>().value(row)),
        DataType::Float64 => output.put_f64(array.as_primitive::<Float64Type>().value(row)),
        DataType::FixedSizeBinary(16) => {
            let mut bytes = [0; 16];
            bytes.copy_from_slice(array.as_fixed_size_binary().value(row));
            put_numeric(output, Numeric::from_bytes(&bytes));
        }
        DataType::Utf8 => output.put_slice(array.as_string::<i32>().value(row).as_bytes()),
        DataType::Utf8View => output.put_slice(array.as_string_view().value(row).as_bytes()),
        DataType::LargeUtf8 => {
            output.put_u8(JSONB_VERSION);
            output.put_slice(array.as_string::<i64>().value(row).as_bytes());
        }
        DataType::Binary => output.put_slice(array.as_binary::<i32>().value(row)),
        DataType::Date32 => {
            let days = array.as_primitive::<Date32Type>().value(row);
            output.put_i32(days.checked_sub(DAYS_TO_2000).ok_or_else(out_of_range)?);
        }
        DataType::Time64(TimeUnit::Microsecond) => {
            output.put_i64(array.as_primitive::<Time64MicrosecondType>().value(row));
        }
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            let micros = array.as_primitive::<TimestampMicrosecondType>().value(row);
            output.put_i64(
                micros
                    .checked_sub(MICROS_TO_2000)
                    .ok_or_else(out_of_range)?,
            );
        }
        DataType::Interval(IntervalUnit::MonthDayNano) => {
            let value = array.as_primitive::<IntervalMonthDayNanoType>().value(row);
            output.put_i64(value.nanoseconds / 1000);
            output.put_i32(value.days);
            output.put_i32(value.months);
        }
        DataType::List(_) => return put_array(output, array.as_list::<i32>(), row),
        DataType::Struct(_) => return put_record(output, array.as_struct(), row),
        other => {
            let message = format!("type {other} has no binary form");
            return Err(Error::unsupported(message).with_hint("Ask for results in text format."));
        }
    }
    Ok(())
}

fn out_of_range() -> Error {
    Error::new(
        ErrorKind::OutOfRange,
        "date or timestamp out of range for the binary format",
    )
}

/// `numeric_send`: count of digits, weight of the first, sign, display scale, digits base 10000.
fn put_numeric(output: &mut BytesMut, value: Numeric) {
    const NEGATIVE: u16 = 0x4000;
    const NAN: u16 = 0xC000;
    const INFINITY: u16 = 0xD000;
    const NEG_INFINITY: u16 = 0xF000;
    let decimal = match value {
        Numeric::Finite(decimal) => decimal,
        special => {
            let sign = match special {
                Numeric::Infinity => INFINITY,
                Numeric::NegInfinity => NEG_INFINITY,
                _ => NAN,
            };
            output.put_slice(&[0; 4]);
            output.put_u16(sign);
            output.put_u16(0);
            return;
        }
    };
    let scale = decimal.scale();
    // The point falls between groups of four digits: at most 28 + 3 digits, far below u128.
    let fraction_groups = scale.div_ceil(4) as i16;
    let mut rest = decimal.mantissa().unsigned_abs() * 10u128.pow((4 - scale % 4) % 4);
    let mut groups = [0u16; 10];
    let mut count = 0;
    while rest > 0 {
        groups[count] = (rest % 10_000) as u16;
        rest /= 10_000;
        count += 1;
    }
    let zeros = groups[..count]
        .iter()
        .take_while(|&&group| group == 0)
        .count();
    let digits = &groups[zeros..count];
    let weight = match digits.is_empty() {
        true => 0,
        false => count as i16 - 1 - fraction_groups,
    };
    output.put_i16(digits.len() as i16);
    output.put_i16(weight);
    output.put_u16(match decimal.is_sign_negative() && !digits.is_empty() {
        true => NEGATIVE,
        false => 0,
    });
    output.put_u16(scale as u16);
    digits.iter().rev().for_each(|&group| output.put_u16(group));
}

/// `array_send`: dimensions, null flag, element oid, (length, lower bound) each, elements.
fn put_array(output: &mut BytesMut, array: &GenericListArray<i32>, row: usize) -> Result<()> {
    let mut dimensions = vec![];
    let mut has_null = false;
    shape(&*array.value(row), 0, &mut dimensions, &mut has_null)?;
    if dimensions.contains(&0) {
        dimensions.clear();
    }
    output.put_i32(dimensions.len() as i32);
    output.put_i32(has_null.into());
    output.put_u32(types::oid(innermost(array.data_type())));
    for &length in &dimensions {
        output.put_i32(i32::try_from(length).map_err(|_| too_long())?);
        output.put_i32(1);
    }
    match dimensions.is_empty() {
        true => Ok(()),
        false => put_elements(output, &*array.value(row)),
    }
}

/// Finds the lengths of all dimensions, refusing arrays that are not rectangular.
fn shape(
    items: &dyn Array,
    depth: usize,
    dimensions: &mut Vec<usize>,
    has_null: &mut bool,
) -> Result<()> {
    let ragged = || {
        let message = "an array of arrays of different lengths has no binary form";
        Error::new(ErrorKind::InvalidParameter, message)
            .with_hint("Ask for results in text format.")
    };
    match dimensions.get(depth) {
        None if depth >= DIMENSIONS_MAX => return Err(ragged()),
        None => dimensions.push(items.len()),
        Some(&length) if length != items.len() => return Err(ragged()),
        Some(_) => {}
    }
    let Some(lists) = items.as_list_opt::<i32>() else {
        *has_null |= items.null_count() > 0;
        return Ok(());
    };
    if lists.null_count() > 0 {
        return Err(ragged());
    }
    (0..lists.len()).try_for_each(|i| shape(&*lists.value(i), depth + 1, dimensions, has_null))
}

fn put_elements(output: &mut BytesMut, items: &dyn Array) -> Result<()> {
    match items.as_list_opt::<i32>() {
        Some(lists) => (0..lists.len()).try_for_each(|i| put_elements(output, &*lists.value(i))),
        None => (0..items.len()).try_for_each(|i| put_value(output, items, i)),
    }
}

fn innermost(ty: &DataType) -> &DataType {
    match ty {
        DataType::List(item) => innermost(item.data_type()),
        other => other,
    }
}

/// `record_send`: count of fields, then oid and value of each.
fn put_record(output: &mut BytesMut, array: &StructArray, row: usize) -> Result<()> {
    output.put_i32(array.num_columns() as i32);
    for column in array.columns() {
        output.put_u32(types::oid(column.data_type()));
        put_value(output, column, row)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{
        ArrayRef, Int32Array, Int32Builder, ListBuilder, StructArray, TimestampMicrosecondArray,
    };
    use arrow::datatypes::Field;
    use std::sync::Arc;

    fn numeric(text: &str) -> Vec<u8> {
        let mut output = BytesMut::new();
        put_numeric(&mut output, text.parse().unwrap());
        output.to_vec()
    }

    /// ndigits, weight, sign, dscale and digits as PostgreSQL 15's `numeric_send` gives them.
    #[test]
    fn numerics_have_postgresqls_groups() {
        let words = |text: &str| -> Vec<u16> {
            let bytes = numeric(text);
            bytes
                .chunks(2)
                .map(|pair| u16::from_be_bytes([pair[0], pair[1]]))
                .collect()
        };
        assert_eq!(words("0"), [0, 0, 0, 0]);
        assert_eq!(words("0.00"), [0, 0, 0, 2]);
        assert_eq!(words("1"), [1, 0, 0, 0, 1]);
        assert_eq!(words("10000"), [1, 1, 0, 0, 1]);
        assert_eq!(words("-12345.678"), [3, 1, 0x4000, 3, 1, 2345, 6780]);
        assert_eq!(words("0.00012"), [2, 0xffff, 0, 5, 1, 2000]);
        assert_eq!(words("0.0000001"), [1, 0xfffe, 0, 7, 10]);
        assert_eq!(words("NaN"), [0, 0, 0xC000, 0]);
        assert_eq!(words("Infinity"), [0, 0, 0xD000, 0]);
        assert_eq!(words("-Infinity"), [0, 0, 0xF000, 0]);
        let largest = "79228162514264337593543950335";
        assert_eq!(
            words(largest),
            [8, 7, 0, 0, 7, 9228, 1625, 1426, 4337, 5935, 4395, 335]
        );
        assert_eq!(words("7.9228162514264337593543950335").len(), 4 + 8);
    }

    #[test]
    fn arrays_carry_dimensions_nulls_and_element_type() {
        let mut builder = ListBuilder::new(Int32Builder::new());
        builder.append_value([Some(7), None]);
        builder.append_value([]);
        let lists: ArrayRef = Arc::new(builder.finish());
        let mut output = BytesMut::new();
        put_value(&mut output, &lists, 0).unwrap();
        let expected: Vec<u8> = [32, 1, 1, 23, 2, 1, 4, 7, -1i32]
            .iter()
            .flat_map(|word| word.to_be_bytes())
            .collect();
        assert_eq!(output[..], expected);
        output.clear();
        put_value(&mut output, &lists, 1).unwrap();
        let expected: Vec<u8> = [12, 0, 0, 23i32]
            .iter()
            .flat_map(|word| word.to_be_bytes())
            .collect();
        assert_eq!(output[..], expected);
    }

    #[test]
    fn ragged_arrays_are_refused() {
        let mut builder = ListBuilder::new(ListBuilder::new(Int32Builder::new()));
        builder.values().append_value([Some(1)]);
        builder.values().append_value([Some(1), Some(2)]);
        builder.append(true);
        let ragged: ArrayRef = Arc::new(builder.finish());
        assert!(put_value(&mut BytesMut::new(), &ragged, 0).is_err());
    }

    #[test]
    fn records_and_timestamps() {
        let at: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![MICROS_TO_2000 + 5]));
        let number: ArrayRef = Arc::new(Int32Array::from(vec![None]));
        let field = |name: &str, array: &ArrayRef| {
            Arc::new(Field::new(name, array.data_type().clone(), true))
        };
        let record: ArrayRef = Arc::new(StructArray::from(vec![
            (field("a", &at), at),
            (field("b", &number), number),
        ]));
        let mut output = BytesMut::new();
        put_value(&mut output, &record, 0).unwrap();
        let expected: Vec<u8> = [28, 2, 1114, 8, 0, 5, 23, -1i32]
            .iter()
            .flat_map(|word| word.to_be_bytes())
            .collect();
        assert_eq!(output[..], expected);
        let early: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![i64::MIN]));
        assert!(put_value(&mut output, &early, 0).is_err());
    }
}
