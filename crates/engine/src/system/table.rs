//! The small language in which system relations are written down.
//!
//! Columns are one string, `name type` or `name type=default`, separated by commas; a row names
//! only the columns whose value is not the default. Without a default the value is NULL.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanBuilder, Int16Builder, Int32Builder, Int64Builder, ListBuilder, StringBuilder,
    new_null_array,
};
use arrow::datatypes::{DataType, Field};
use arrow::record_batch::RecordBatch;
use ruslo_repr::row::batch_of;
use ruslo_repr::schema::{list_of, timestamptz};
use ruslo_repr::{Error, Result, Schema};

use super::CatalogSnapshot;

/// A relation: where it is, its columns, and how its rows are made.
pub(super) struct Definition {
    pub(super) schema: &'static str,
    pub(super) name: &'static str,
    pub(super) columns: &'static str,
    pub(super) rows: fn(&CatalogSnapshot) -> Vec<Row>,
}

/// The values of a row that differ from the defaults.
pub(super) type Row = Vec<(&'static str, Value)>;

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Text(String),
    Texts(Vec<String>),
    Ints(Vec<i64>),
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Value::Bool(value)
    }
}

impl From<i32> for Value {
    fn from(value: i32) -> Self {
        Value::Int(value.into())
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Value::Int(value)
    }
}

impl From<usize> for Value {
    fn from(value: usize) -> Self {
        Value::Int(i64::try_from(value).unwrap_or(i64::MAX))
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Value::Text(value.to_string())
    }
}

impl From<String> for Value {
    fn from(value: String) -> Self {
        Value::Text(value)
    }
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Value::Null, Into::into)
    }
}

pub(super) struct Column {
    pub(super) name: &'static str,
    pub(super) ty: DataType,
    default: Value,
}

/// For relations that are always empty.
pub(super) fn no_rows(_: &CatalogSnapshot) -> Vec<Row> {
    vec![]
}

/// Reads a column list; a type that is not known is text.
pub(super) fn columns(spec: &'static str) -> Vec<Column> {
    let parts = spec
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty());
    parts
        .map(|part| {
            let (name, rest) = part.split_once(' ').unwrap_or((part, "text"));
            let (ty, default) = match rest.split_once('=') {
                Some((ty, default)) => (data_type(ty), Some(default)),
                None => (data_type(rest), None),
            };
            let default = default.map_or(Value::Null, |text| parse_default(text, &ty));
            Column { name, ty, default }
        })
        .collect()
}

fn data_type(name: &str) -> DataType {
    match name {
        "bool" => DataType::Boolean,
        "int2" => DataType::Int16,
        // An oid is shown and compared as an integer.
        "int4" | "oid" => DataType::Int32,
        "int8" => DataType::Int64,
        "timestamptz" => timestamptz(),
        "int2[]" => list_of(DataType::Int16),
        "oid[]" => list_of(DataType::Int32),
        "text[]" => list_of(DataType::Utf8),
        _ => DataType::Utf8,
    }
}

fn parse_default(text: &str, ty: &DataType) -> Value {
    match ty {
        DataType::Boolean => Value::Bool(text == "t"),
        DataType::Int16 | DataType::Int32 | DataType::Int64 => {
            text.parse().map_or(Value::Null, Value::Int)
        }
        _ => Value::Text(text.to_string()),
    }
}

/// Makes rows into a batch; a value that does not fit its column is a defect of a definition.
pub(super) fn batch(columns: &[Column], rows: Vec<Row>) -> Result<RecordBatch> {
    for (name, _) in rows.iter().flatten() {
        if !columns.iter().any(|column| column.name == *name) {
            return Err(Error::internal(format!(
                "system relation without a column {name}"
            )));
        }
    }
    let schema = Schema::new(
        columns
            .iter()
            .map(|column| (column.name, column.ty.clone())),
    );
    let arrays = columns
        .iter()
        .map(|column| array(column, &rows))
        .collect::<Result<Vec<_>>>()?;
    batch_of(&schema, arrays, rows.len())
}

/// Appends every row's value of a column through one builder. A macro, because Arrow's builders
/// share no trait for appending.
macro_rules! collect {
    ($builder:expr, $column:expr, $rows:expr, $pattern:pat => $value:expr) => {{
        let mut builder = $builder;
        for row in $rows {
            match value($column, row) {
                Value::Null => builder.append_null(),
                $pattern => builder.append_value($value),
                other => return Err(misfit($column, other)),
            }
        }
        Ok(Arc::new(builder.finish()))
    }};
}

fn array(column: &Column, rows: &[Row]) -> Result<ArrayRef> {
    let item = |ty| Field::new("item", ty, true);
    match &column.ty {
        DataType::Boolean => collect!(BooleanBuilder::new(), column, rows, Value::Bool(v) => *v),
        DataType::Int16 => collect!(Int16Builder::new(), column, rows, Value::Int(v) => *v as i16),
        DataType::Int32 => collect!(Int32Builder::new(), column, rows, Value::Int(v) => *v as i32),
        DataType::Int64 => collect!(Int64Builder::new(), column, rows, Value::Int(v) => *v),
        // Nothing has a time yet.
        DataType::Timestamp(..) => Ok(new_null_array(&column.ty, rows.len())),
        DataType::List(field) => match field.data_type() {
            DataType::Int16 => {
                let builder = ListBuilder::new(Int16Builder::new());
                let builder = builder.with_field(item(DataType::Int16));
                collect!(builder, column, rows, Value::Ints(v) => v.iter().map(|&i| Some(i as i16)))
            }
            DataType::Int32 => {
                let builder = ListBuilder::new(Int32Builder::new());
                let builder = builder.with_field(item(DataType::Int32));
                collect!(builder, column, rows, Value::Ints(v) => v.iter().map(|&i| Some(i as i32)))
            }
            _ => {
                let builder = ListBuilder::new(StringBuilder::new());
                let builder = builder.with_field(item(DataType::Utf8));
                collect!(builder, column, rows, Value::Texts(v) => v.iter().map(Some))
            }
        },
        _ => collect!(StringBuilder::new(), column, rows, Value::Text(v) => v),
    }
}

fn value<'a>(column: &'a Column, row: &'a Row) -> &'a Value {
    let given = row.iter().find(|(name, _)| *name == column.name);
    given.map_or(&column.default, |(_, value)| value)
}

fn misfit(column: &Column, value: &Value) -> Error {
    Error::internal(format!(
        "system column {} cannot hold {value:?}",
        column.name
    ))
}
