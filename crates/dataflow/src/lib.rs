//! Renders plans to timely and differential operators and runs them on worker threads.
//!
//! The engine talks to the workers through three things only: [`Command`]s, broadcast in one
//! order; [`BatchQueue`]s, into which ingest threads push decoded batches; and [`Response`]s,
//! which come back by a callback. Nothing here is async and nothing here knows Kafka, SQL or
//! DataFusion: expressions run through [`ruslo_repr::eval::Evaluator`].
//!
//! ```text
//!   BatchQueue ──> Block ── map, combine ──> (key, value, time, diff) ──> operators ──> trace
//!   (per worker)   └── Arrow vectors ──┘     └────────── row bytes ──────────┘           │
//!                                                                    peeks, sinks, views ┘
//! ```
//!
//! Where to look: `worker` is the loop of one thread, `render` turns one plan into operators,
//! `spine` fixes how rows lie in memory, `block` is the vector side of the border.

mod aggregate;
mod batcher;
mod block;
mod durable;
mod protocol;
mod queue;
mod render;
mod spine;
mod worker;
mod workers;

pub use protocol::{
    Command, DurablePoint, ObjectStats, Place, Portion, Response, arranged_columns, error_schema,
};
pub use queue::{BatchQueue, Closed, SourceBatch};
#[doc(hidden)]
pub use workers::Pacer;
pub use workers::{Faults, Workers, WorkersConfig};
