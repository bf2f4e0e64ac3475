//! SQL types as Rust types, so that a function's signature is written once, in generics.

use std::sync::Arc;

use arrow::array::types::{
    Date32Type, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type,
    IntervalMonthDayNanoType, Time64MicrosecondType, TimestampMicrosecondType,
};
use arrow::array::{
    Array, ArrayRef, BinaryArray, BooleanArray, FixedSizeBinaryArray, LargeStringArray,
    PrimitiveArray, StringArray,
};
use arrow::datatypes::{DataType, IntervalMonthDayNano};
use ruslo_repr::schema::{INTERVAL, JSONB, NUMERIC, TIME, TIMESTAMP, timestamptz};
use ruslo_repr::{Error, Numeric, Result};

/// A SQL type with its value in Rust and its array in Arrow.
pub(super) trait SqlType: 'static {
    type Array: Array + 'static;
    /// A value as it is read from an array.
    type Value<'a>;
    /// A value as a function makes it.
    type Owned;

    fn data_type() -> DataType;
    fn value(array: &Self::Array, row: usize) -> Self::Value<'_>;
    fn collect(values: Vec<Option<Self::Owned>>) -> Result<ArrayRef>;
}

pub(super) struct Bool;
pub(super) struct Int2;
pub(super) struct Int4;
pub(super) struct Int8;
pub(super) struct Float4;
pub(super) struct Float8;
pub(super) struct Num;
pub(super) struct Text;
pub(super) struct Bytea;
/// Days since 1970-01-01.
pub(super) struct Date;
/// Microseconds since midnight.
pub(super) struct Time;
/// Microseconds since 1970 in local time.
pub(super) struct Timestamp;
/// Microseconds since 1970 in UTC.
pub(super) struct Timestamptz;
pub(super) struct Interval;
/// Canonical JSON text.
pub(super) struct Jsonb;

// The nine types of Arrow primitives differ in two names only; a macro keeps them in one view.
macro_rules! primitive {
    ($sql:ident, $arrow:ident, $native:ty, $data_type:expr) => {
        impl SqlType for $sql {
            type Array = PrimitiveArray<$arrow>;
            type Value<'a> = $native;
            type Owned = $native;

            fn data_type() -> DataType {
                $data_type
            }

            fn value(array: &Self::Array, row: usize) -> $native {
                array.value(row)
            }

            fn collect(values: Vec<Option<$native>>) -> Result<ArrayRef> {
                let array = PrimitiveArray::<$arrow>::from_iter(values);
                Ok(Arc::new(array.with_data_type($data_type)))
            }
        }
    };
}

primitive!(Int2, Int16Type, i16, DataType::Int16);
primitive!(Int4, Int32Type, i32, DataType::Int32);
primitive!(Int8, Int64Type, i64, DataType::Int64);
primitive!(Float4, Float32Type, f32, DataType::Float32);
primitive!(Float8, Float64Type, f64, DataType::Float64);
primitive!(Date, Date32Type, i32, DataType::Date32);
primitive!(Time, Time64MicrosecondType, i64, TIME);
primitive!(Timestamp, TimestampMicrosecondType, i64, TIMESTAMP);
primitive!(Timestamptz, TimestampMicrosecondType, i64, timestamptz());
primitive!(
    Interval,
    IntervalMonthDayNanoType,
    IntervalMonthDayNano,
    INTERVAL
);

impl SqlType for Bool {
    type Array = BooleanArray;
    type Value<'a> = bool;
    type Owned = bool;

    fn data_type() -> DataType {
        DataType::Boolean
    }

    fn value(array: &Self::Array, row: usize) -> bool {
        array.value(row)
    }

    fn collect(values: Vec<Option<bool>>) -> Result<ArrayRef> {
        Ok(Arc::new(BooleanArray::from(values)))
    }
}

impl SqlType for Num {
    type Array = FixedSizeBinaryArray;
    type Value<'a> = Numeric;
    type Owned = Numeric;

    fn data_type() -> DataType {
        NUMERIC
    }

    fn value(array: &Self::Array, row: usize) -> Numeric {
        let bytes: Result<&[u8; 16], _> = array.value(row).try_into();
        bytes.map_or(Numeric::NaN, Numeric::from_bytes)
    }

    fn collect(values: Vec<Option<Numeric>>) -> Result<ArrayRef> {
        let bytes = values.into_iter().map(|v| v.map(Numeric::to_bytes));
        let array = FixedSizeBinaryArray::try_from_sparse_iter_with_size(bytes, 16)?;
        Ok(Arc::new(array))
    }
}

impl SqlType for Text {
    type Array = StringArray;
    type Value<'a> = &'a str;
    type Owned = String;

    fn data_type() -> DataType {
        DataType::Utf8
    }

    fn value(array: &Self::Array, row: usize) -> &str {
        array.value(row)
    }

    fn collect(values: Vec<Option<String>>) -> Result<ArrayRef> {
        Ok(Arc::new(StringArray::from(values)))
    }
}

impl SqlType for Jsonb {
    type Array = LargeStringArray;
    type Value<'a> = &'a str;
    type Owned = String;

    fn data_type() -> DataType {
        JSONB
    }

    fn value(array: &Self::Array, row: usize) -> &str {
        array.value(row)
    }

    fn collect(values: Vec<Option<String>>) -> Result<ArrayRef> {
        Ok(Arc::new(LargeStringArray::from(values)))
    }
}

impl SqlType for Bytea {
    type Array = BinaryArray;
    type Value<'a> = &'a [u8];
    type Owned = Vec<u8>;

    fn data_type() -> DataType {
        DataType::Binary
    }

    fn value(array: &Self::Array, row: usize) -> &[u8] {
        array.value(row)
    }

    fn collect(values: Vec<Option<Vec<u8>>>) -> Result<ArrayRef> {
        Ok(Arc::new(BinaryArray::from_iter(values)))
    }
}

/// One argument of a call: a value per row, or one value for all rows.
#[derive(Clone, Debug)]
pub(super) struct Column {
    pub(super) array: ArrayRef,
    pub(super) constant: bool,
}

impl Column {
    /// Where the value for `row` stands in the array.
    pub(super) fn at(&self, row: usize) -> usize {
        if self.constant { 0 } else { row }
    }

    pub(super) fn reader<T: SqlType>(&self) -> Result<Reader<'_, T>> {
        let array = self.array.as_any().downcast_ref::<T::Array>();
        let array = array.ok_or_else(|| {
            let (wanted, got) = (T::data_type(), self.array.data_type());
            Error::internal(format!("a function wants {wanted} but was given {got}"))
        })?;
        Ok(Reader {
            array,
            constant: self.constant,
        })
    }
}

/// Reads typed values of one argument.
pub(super) struct Reader<'a, T: SqlType> {
    array: &'a T::Array,
    constant: bool,
}

impl<'a, T: SqlType> Reader<'a, T> {
    pub(super) fn get(&self, row: usize) -> Option<T::Value<'a>> {
        let row = if self.constant { 0 } else { row };
        self.array.is_valid(row).then(|| T::value(self.array, row))
    }
}
