//! Columns and their types.
//!
//! Ruslo's type system is a subset of Arrow's, chosen so that the `DataType` alone tells the SQL
//! type and no field metadata is ever needed (plans lose metadata on their way):
//!
//! | SQL | Arrow |
//! | --- | --- |
//! | boolean | Boolean |
//! | smallint, integer, bigint | Int16, Int32, Int64 |
//! | real, double precision | Float32, Float64 |
//! | numeric | FixedSizeBinary(16), see [`crate::numeric`] |
//! | varchar | Utf8 |
//! | bytea | Binary |
//! | date, time | Date32, Time64(µs) |
//! | timestamp, timestamptz | Timestamp(µs), Timestamp(µs, "UTC") |
//! | interval | Interval(MonthDayNano) |
//! | jsonb | LargeUtf8 holding canonical text, used for nothing else |
//! | struct, array | Struct, List (item field named `item`) |

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, IntervalUnit, SchemaRef, TimeUnit};
use serde::{Deserialize, Serialize};

/// `numeric`: 16 bytes in the layout of [`crate::Numeric::to_bytes`].
pub const NUMERIC: DataType = DataType::FixedSizeBinary(16);
/// `jsonb`: canonical JSON text.
pub const JSONB: DataType = DataType::LargeUtf8;
pub const TIMESTAMP: DataType = DataType::Timestamp(TimeUnit::Microsecond, None);
pub const TIME: DataType = DataType::Time64(TimeUnit::Microsecond);
pub const INTERVAL: DataType = DataType::Interval(IntervalUnit::MonthDayNano);

/// `timestamptz`: an instant; the session's time zone matters only when it is printed or read.
pub fn timestamptz() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some(Arc::from("UTC")))
}

/// An array of `item`s, all of them nullable.
pub fn list_of(item: DataType) -> DataType {
    DataType::List(Arc::new(Field::new("item", item, true)))
}

/// One column: a name (as the user sees it, case kept) and a type. Every column may hold NULL.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Column {
    pub name: String,
    pub ty: DataType,
}

/// The columns of a collection, in order. Names may repeat, as PostgreSQL allows in a SELECT.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Schema {
    pub columns: Vec<Column>,
}

impl Schema {
    pub fn new(columns: impl IntoIterator<Item = (impl Into<String>, DataType)>) -> Self {
        let columns = columns
            .into_iter()
            .map(|(name, ty)| Column {
                name: name.into(),
                ty,
            })
            .collect();
        Schema { columns }
    }

    pub fn len(&self) -> usize {
        self.columns.len()
    }

    pub fn is_empty(&self) -> bool {
        self.columns.is_empty()
    }

    pub fn types(&self) -> Vec<DataType> {
        self.columns.iter().map(|c| c.ty.clone()).collect()
    }

    /// The position of the first column of this exact name.
    pub fn position(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|c| c.name == name)
    }

    /// The columns at `indexes`, in that order.
    pub fn project(&self, indexes: &[usize]) -> Schema {
        Schema {
            columns: indexes.iter().map(|&i| self.columns[i].clone()).collect(),
        }
    }

    /// The Arrow schema that record batches of this collection carry; every field is nullable.
    pub fn to_arrow(&self) -> SchemaRef {
        let fields = self
            .columns
            .iter()
            .map(|c| Field::new(&c.name, c.ty.clone(), true));
        Arc::new(arrow::datatypes::Schema::new(fields.collect::<Vec<_>>()))
    }
}

/// The name PostgreSQL (and `format_type`) gives a type, as `timestamp without time zone`.
pub fn type_name(ty: &DataType) -> String {
    let name = match ty {
        DataType::Boolean => "boolean",
        DataType::Int16 => "smallint",
        DataType::Int32 => "integer",
        DataType::Int64 => "bigint",
        DataType::Float32 => "real",
        DataType::Float64 => "double precision",
        DataType::FixedSizeBinary(16) => "numeric",
        DataType::Utf8 | DataType::Utf8View => "character varying",
        DataType::LargeUtf8 => "jsonb",
        DataType::Binary => "bytea",
        DataType::Date32 => "date",
        DataType::Time64(_) => "time without time zone",
        DataType::Timestamp(_, None) => "timestamp without time zone",
        DataType::Timestamp(_, Some(_)) => "timestamp with time zone",
        DataType::Interval(_) => "interval",
        DataType::List(item) => return format!("{}[]", type_name(item.data_type())),
        DataType::Struct(fields) => {
            let fields = fields.iter();
            let fields = fields.map(|f| format!("{} {}", f.name(), type_name(f.data_type())));
            return format!("struct<{}>", fields.collect::<Vec<_>>().join(", "));
        }
        DataType::Null => "unknown",
        other => return other.to_string(),
    };
    name.to_string()
}
