//! The nouns every other crate shares: types, rows, plans, ids and errors.
//!
//! Nothing here does I/O and nothing here knows Kafka, DataFusion or timely: `sql` writes a
//! [`Plan`], `dataflow` renders it, and they meet only in this crate. A value exists in three
//! shapes, and this crate owns the borders between them:
//!
//! ```text
//!   wire text  <── text ──>  Arrow arrays  <── row::RowCodec ──>  row bytes
//!   (psql, JSON)             (vectors)                            (arrangements)
//! ```

pub mod error;
pub mod eval;
pub mod numeric;
pub mod plan;
pub mod row;
pub mod schema;
pub mod text;

pub use error::{Error, ErrorKind, Result};
pub use numeric::Numeric;
pub use plan::{Aggregate, AggregateFunction, Expr, JoinKind, Plan};
pub use row::{CountedRows, RowBytes, RowCodec};
pub use schema::{Column, Schema};

/// Milliseconds since 1970 at which a set of input changes became visible, all of them at once.
///
/// Times are chosen by the coordinator alone and only ever grow, also when the clock is set back.
pub type Time = u64;

/// How many copies of a row an update adds (positive) or takes away (negative).
pub type Diff = i64;

/// Identifies one object of the catalog (source, table, view, sink) for as long as it lives.
///
/// Ids are never given out twice, so a dropped and created-again name is a new object.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
pub struct ObjectId(pub u64);

impl std::fmt::Display for ObjectId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "o{}", self.0)
    }
}
