//! Arrow columns as they are built from JSON values.
//!
//! A column grows by exactly one entry per [`Column::push`], whatever the value is: one that does
//! not fit leaves a NULL behind. What a list's items had taken by then is taken back, which
//! Arrow's own builders cannot do.

use std::sync::Arc;

use arrow::array::builder::NullBufferBuilder;
use arrow::array::types::{
    ArrowPrimitiveType, Date32Type, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type,
    IntervalMonthDayNanoType, Time64MicrosecondType, TimestampMicrosecondType,
};
use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, BooleanBufferBuilder, FixedSizeBinaryArray,
    LargeStringArray, ListArray, OffsetSizeTrait, PrimitiveArray, StringArray, StructArray,
};
use arrow::buffer::{Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{ArrowNativeType, DataType, FieldRef, Fields, IntervalMonthDayNano};
use ruslo_repr::schema::type_name;
use ruslo_repr::text::json::canonical;
use ruslo_repr::{Error, Result};

use super::JsonOptions;
use super::object::{ObjectReader, Slot};
use super::scalar::{self, Misfit, Scalar};
use super::scan::{Kind, Scanner, Token};

/// What decoding a value needs besides the value.
pub(super) struct Context {
    pub(super) options: JsonOptions,
    /// Holds the value of a string with escapes.
    scratch: String,
}

impl Context {
    pub(super) fn new(options: JsonOptions) -> Self {
        Context {
            options,
            scratch: String::new(),
        }
    }
}

/// One column, or the items of a list, or one field of a struct.
pub(super) struct Column {
    ty: DataType,
    nulls: NullBufferBuilder,
    values: Values,
}

enum Values {
    Boolean(BooleanBufferBuilder),
    Int16(Vec<i16>),
    Int32(Vec<i32>),
    Int64(Vec<i64>),
    Float32(Vec<f32>),
    Float64(Vec<f64>),
    Numeric(Vec<u8>),
    Varchar(Bytes<i32>),
    Jsonb(Bytes<i64>),
    Bytea(Bytes<i32>),
    Date(Vec<i32>),
    Time(Vec<i64>),
    Timestamp(Vec<i64>),
    Timestamptz(Vec<i64>),
    Interval(Vec<IntervalMonthDayNano>),
    List(Box<List>),
    Struct(Box<Struct>),
}

/// Values of any length, one after the other.
struct Bytes<O> {
    /// Where each value ends, after a leading zero.
    offsets: Vec<O>,
    bytes: Vec<u8>,
}

struct List {
    field: FieldRef,
    offsets: Vec<i32>,
    items: Column,
}

struct Struct {
    fields: Fields,
    columns: Vec<Column>,
    reader: ObjectReader,
    slots: Vec<Slot>,
}

impl Column {
    /// Fails with `Unsupported` for a type outside our own.
    pub(super) fn new(ty: &DataType) -> Result<Self> {
        let values = match ty {
            DataType::Boolean => Values::Boolean(BooleanBufferBuilder::new(0)),
            DataType::Int16 => Values::Int16(vec![]),
            DataType::Int32 => Values::Int32(vec![]),
            DataType::Int64 => Values::Int64(vec![]),
            DataType::Float32 => Values::Float32(vec![]),
            DataType::Float64 => Values::Float64(vec![]),
            DataType::FixedSizeBinary(16) => Values::Numeric(vec![]),
            DataType::Utf8 => Values::Varchar(Bytes::new()),
            DataType::LargeUtf8 => Values::Jsonb(Bytes::new()),
            DataType::Binary => Values::Bytea(Bytes::new()),
            DataType::Date32 => Values::Date(vec![]),
            DataType::Time64(_) => Values::Time(vec![]),
            DataType::Timestamp(_, None) => Values::Timestamp(vec![]),
            DataType::Timestamp(_, Some(_)) => Values::Timestamptz(vec![]),
            DataType::Interval(_) => Values::Interval(vec![]),
            DataType::List(field) => Values::List(Box::new(List::new(field)?)),
            DataType::Struct(fields) => Values::Struct(Box::new(Struct::new(fields)?)),
            other => {
                let message = format!(
                    "a column of type {} cannot come from JSON",
                    type_name(other)
                );
                return Err(Error::unsupported(message));
            }
        };
        Ok(Column {
            ty: ty.clone(),
            nulls: NullBufferBuilder::new(0),
            values,
        })
    }

    pub(super) fn len(&self) -> usize {
        self.nulls.len()
    }

    /// Appends the value `token` of `source`, or NULL if it is null or does not fit.
    pub(super) fn push(
        &mut self,
        source: &str,
        token: Token,
        context: &mut Context,
    ) -> Result<(), Misfit> {
        if token.kind == Kind::Null {
            self.push_null();
            return Ok(());
        }
        match self.push_value(source, token, context) {
            Ok(()) => {
                self.nulls.append_non_null();
                Ok(())
            }
            Err(misfit) => {
                self.push_null();
                Err(misfit)
            }
        }
    }

    /// Appends to the values alone, or fails and leaves them as they were.
    fn push_value(
        &mut self,
        source: &str,
        token: Token,
        context: &mut Context,
    ) -> Result<(), Misfit> {
        match &mut self.values {
            Values::List(list) => return list.push(source, token, context),
            Values::Struct(columns) => return columns.push(source, token, context),
            Values::Jsonb(texts) => return push_jsonb(source, token, texts),
            _ => {}
        }
        let (ty, options) = (&self.ty, &context.options);
        let value = Scalar::new(source, token, &mut context.scratch);
        match &mut self.values {
            Values::Boolean(values) => values.append(scalar::boolean(value)?),
            Values::Int16(values) => values.push(scalar::integer(value, ty)?),
            Values::Int32(values) => values.push(scalar::integer(value, ty)?),
            Values::Int64(values) => values.push(scalar::integer(value, ty)?),
            Values::Float32(values) => values.push(scalar::float(value, ty)?),
            Values::Float64(values) => values.push(scalar::float(value, ty)?),
            Values::Numeric(values) => {
                values.extend_from_slice(&scalar::numeric(value, ty)?.to_bytes());
            }
            Values::Varchar(texts) => texts.push(scalar::varchar(value)?.as_bytes())?,
            Values::Bytea(values) => values.push(&scalar::bytea(value)?)?,
            Values::Date(values) => values.push(scalar::date(value)?),
            Values::Time(values) => values.push(scalar::time(value, options, ty)?),
            Values::Timestamp(values) => {
                values.push(scalar::timestamp(value, options.timestamp, ty)?);
            }
            Values::Timestamptz(values) => {
                values.push(scalar::timestamptz(value, options.timestamptz, ty)?);
            }
            Values::Interval(values) => values.push(scalar::interval(value, ty)?),
            Values::List(_) | Values::Struct(_) | Values::Jsonb(_) => {}
        }
        Ok(())
    }

    pub(super) fn push_null(&mut self) {
        self.nulls.append_null();
        match &mut self.values {
            Values::Boolean(values) => values.append(false),
            Values::Int16(values) => values.push(0),
            Values::Int32(values) | Values::Date(values) => values.push(0),
            Values::Int64(values)
            | Values::Time(values)
            | Values::Timestamp(values)
            | Values::Timestamptz(values) => values.push(0),
            Values::Float32(values) => values.push(0.0),
            Values::Float64(values) => values.push(0.0),
            Values::Numeric(values) => values.extend_from_slice(&[0; 16]),
            Values::Varchar(values) | Values::Bytea(values) => values.push_empty(),
            Values::Jsonb(values) => values.push_empty(),
            Values::Interval(values) => values.push(IntervalMonthDayNano::ZERO),
            Values::List(list) => list.push_empty(),
            Values::Struct(columns) => columns.columns.iter_mut().for_each(Column::push_null),
        }
    }

    /// Takes back all entries from `len` on.
    fn truncate(&mut self, len: usize) {
        self.nulls.truncate(len);
        match &mut self.values {
            Values::Boolean(values) => values.truncate(len),
            Values::Int16(values) => values.truncate(len),
            Values::Int32(values) | Values::Date(values) => values.truncate(len),
            Values::Int64(values)
            | Values::Time(values)
            | Values::Timestamp(values)
            | Values::Timestamptz(values) => values.truncate(len),
            Values::Float32(values) => values.truncate(len),
            Values::Float64(values) => values.truncate(len),
            Values::Numeric(values) => values.truncate(16 * len),
            Values::Varchar(values) | Values::Bytea(values) => values.truncate(len),
            Values::Jsonb(values) => values.truncate(len),
            Values::Interval(values) => values.truncate(len),
            Values::List(list) => list.truncate(len),
            Values::Struct(columns) => columns.columns.iter_mut().for_each(|c| c.truncate(len)),
        }
    }

    /// The entries so far as an array; the column starts anew.
    pub(super) fn finish(&mut self) -> ArrayRef {
        let len = self.len();
        let nulls = self.nulls.finish();
        match &mut self.values {
            Values::Boolean(values) => Arc::new(BooleanArray::new(values.finish(), nulls)),
            Values::Int16(values) => primitive::<Int16Type>(values, nulls),
            Values::Int32(values) => primitive::<Int32Type>(values, nulls),
            Values::Int64(values) => primitive::<Int64Type>(values, nulls),
            Values::Float32(values) => primitive::<Float32Type>(values, nulls),
            Values::Float64(values) => primitive::<Float64Type>(values, nulls),
            Values::Numeric(values) => {
                let values = Buffer::from_vec(taken(values));
                Arc::new(FixedSizeBinaryArray::new(16, values, nulls))
            }
            Values::Varchar(values) => {
                let (offsets, bytes) = values.finish();
                Arc::new(StringArray::new(offsets, bytes, nulls))
            }
            Values::Jsonb(values) => {
                let (offsets, bytes) = values.finish();
                Arc::new(LargeStringArray::new(offsets, bytes, nulls))
            }
            Values::Bytea(values) => {
                let (offsets, bytes) = values.finish();
                Arc::new(BinaryArray::new(offsets, bytes, nulls))
            }
            Values::Date(values) => primitive::<Date32Type>(values, nulls),
            Values::Time(values) => primitive::<Time64MicrosecondType>(values, nulls),
            Values::Timestamp(values) => primitive::<TimestampMicrosecondType>(values, nulls),
            Values::Timestamptz(values) => {
                let values = ScalarBuffer::from(taken(values));
                let array = PrimitiveArray::<TimestampMicrosecondType>::new(values, nulls);
                Arc::new(array.with_data_type(self.ty.clone()))
            }
            Values::Interval(values) => primitive::<IntervalMonthDayNanoType>(values, nulls),
            Values::List(list) => Arc::new(list.finish(nulls)),
            Values::Struct(columns) => Arc::new(columns.finish(nulls, len)),
        }
    }
}

/// What was gathered; what comes next will probably be as much.
fn taken<T>(values: &mut Vec<T>) -> Vec<T> {
    let next = Vec::with_capacity(values.len());
    std::mem::replace(values, next)
}

fn primitive<T: ArrowPrimitiveType>(
    values: &mut Vec<T::Native>,
    nulls: Option<NullBuffer>,
) -> ArrayRef {
    Arc::new(PrimitiveArray::<T>::new(taken(values).into(), nulls))
}

/// Anything may be missing in a message, so a type that forbids NULL inside cannot be decoded to.
fn check_nullable(field: &FieldRef) -> Result<()> {
    match field.is_nullable() {
        true => Ok(()),
        false => Err(Error::internal(format!(
            "field {} is not nullable",
            field.name()
        ))),
    }
}

fn push_jsonb(source: &str, token: Token, texts: &mut Bytes<i64>) -> Result<(), Misfit> {
    let text = canonical(token.json(source)).map_err(|error| {
        let why = error.detail.unwrap_or(error.message);
        Misfit::new(format!("the value does not fit jsonb: {why}"))
    })?;
    texts.push(text.as_bytes())
}

impl<O: OffsetSizeTrait> Bytes<O> {
    fn new() -> Self {
        Bytes {
            offsets: vec![O::default()],
            bytes: vec![],
        }
    }

    fn push(&mut self, value: &[u8]) -> Result<(), Misfit> {
        let end = O::from_usize(self.bytes.len() + value.len());
        let end = end.ok_or_else(|| Misfit::new("one batch holds at most 2 GiB of a column"))?;
        self.bytes.extend_from_slice(value);
        self.offsets.push(end);
        Ok(())
    }

    fn push_empty(&mut self) {
        self.offsets.extend(self.offsets.last().copied());
    }

    fn truncate(&mut self, len: usize) {
        self.offsets.truncate(len + 1);
        let end = self.offsets.last().map_or(0, |end| end.as_usize());
        self.bytes.truncate(end);
    }

    fn finish(&mut self) -> (OffsetBuffer<O>, Buffer) {
        let offsets = taken(&mut self.offsets);
        self.offsets.push(O::default());
        let bytes = taken(&mut self.bytes);
        (OffsetBuffer::new(offsets.into()), Buffer::from_vec(bytes))
    }
}

impl List {
    fn new(field: &FieldRef) -> Result<Self> {
        check_nullable(field)?;
        Ok(List {
            field: field.clone(),
            offsets: vec![0],
            items: Column::new(field.data_type())?,
        })
    }

    fn push(&mut self, source: &str, token: Token, context: &mut Context) -> Result<(), Misfit> {
        if token.kind != Kind::Array {
            let ty = DataType::List(self.field.clone());
            return Err(Scalar::new(source, token, &mut context.scratch).misfit(&ty));
        }
        let before = self.items.len();
        let pushed = self.push_items(token.text(source), context);
        let end = pushed.and_then(|()| {
            let end = i32::try_from(self.items.len());
            end.map_err(|_| Misfit::new("one batch holds at most 2^31 elements of a column"))
        });
        match end {
            Ok(end) => {
                self.offsets.push(end);
                Ok(())
            }
            Err(misfit) => {
                self.items.truncate(before);
                Err(misfit)
            }
        }
    }

    fn push_items(&mut self, array: &str, context: &mut Context) -> Result<(), Misfit> {
        let mut scanner = Scanner::new(array);
        scanner.open_array()?;
        let mut index = 0;
        while scanner.next_element(index == 0)? {
            let item = scanner.value()?;
            let pushed = self.items.push(array, item, context);
            pushed.map_err(|misfit| misfit.in_element(index))?;
            index += 1;
        }
        Ok(())
    }

    fn push_empty(&mut self) {
        self.offsets.extend(self.offsets.last().copied());
    }

    fn truncate(&mut self, len: usize) {
        self.offsets.truncate(len + 1);
        let end = self.offsets.last().map_or(0, |end| end.as_usize());
        self.items.truncate(end);
    }

    fn finish(&mut self, nulls: Option<NullBuffer>) -> ListArray {
        let offsets = taken(&mut self.offsets);
        self.offsets.push(0);
        let offsets = OffsetBuffer::new(offsets.into());
        ListArray::new(self.field.clone(), offsets, self.items.finish(), nulls)
    }
}

impl Struct {
    fn new(fields: &Fields) -> Result<Self> {
        let columns = fields.iter().map(|field| {
            check_nullable(field)?;
            Column::new(field.data_type())
        });
        Ok(Struct {
            fields: fields.clone(),
            columns: columns.collect::<Result<_>>()?,
            reader: ObjectReader::new(fields.iter().map(|f| f.name().clone()).collect()),
            slots: vec![],
        })
    }

    fn push(&mut self, source: &str, token: Token, context: &mut Context) -> Result<(), Misfit> {
        let before = self.columns.first().map_or(0, Column::len);
        let pushed = match token.kind {
            Kind::Object => self.push_fields(token.text(source), context),
            Kind::String | Kind::EscapedString => {
                let text = token.string(source, &mut context.scratch).to_owned();
                self.push_fields(&text, context)
            }
            _ => {
                let ty = DataType::Struct(self.fields.clone());
                Err(Scalar::new(source, token, &mut context.scratch).misfit(&ty))
            }
        };
        if pushed.is_err() {
            self.columns
                .iter_mut()
                .for_each(|column| column.truncate(before));
        }
        pushed
    }

    /// `object` may be anything if it was the content of a string.
    fn push_fields(&mut self, object: &str, context: &mut Context) -> Result<(), Misfit> {
        self.slots.clear();
        self.slots.resize(self.columns.len(), Slot::MISSING);
        let mut scanner = Scanner::new(object);
        self.reader.read(object, &mut scanner, &mut self.slots)?;
        scanner.finish()?;
        for ((column, slot), field) in self.columns.iter_mut().zip(&self.slots).zip(&self.fields) {
            let pushed = column.push(object, slot.value, context);
            pushed.map_err(|misfit| misfit.in_field(field.name()))?;
        }
        Ok(())
    }

    fn finish(&mut self, nulls: Option<NullBuffer>, len: usize) -> StructArray {
        let columns = self
            .columns
            .iter_mut()
            .map(Column::finish)
            .collect::<Vec<_>>();
        match columns.is_empty() {
            true => StructArray::new_empty_fields(len, nulls),
            false => StructArray::new(self.fields.clone(), columns, nulls),
        }
    }
}
