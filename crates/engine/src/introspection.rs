//! The `ruslo` schema: how the running database is doing, as relations.
//!
//! | relation | a row per |
//! | --- | --- |
//! | `ruslo.decode_errors` | message or field that could not be decoded |
//! | `ruslo.expression_errors` | failed expression of a view, while its input is there |
//! | `ruslo.sources` | source: state, messages, bytes, failures |
//! | `ruslo.source_partitions` | source and partition: position, end, lag |
//! | `ruslo.sinks` | sink: state, last error, how far it is acknowledged |
//! | `ruslo.memory` | table and view: rows, and updates and bytes of its arrangements |
//! | | source and sink: bytes that wait in it |
//! | `ruslo.checkpoints` | one of the last 100 checkpoints of this server |
//! | `ruslo.storage` | collection of the last checkpoint: its files, updates and bytes |

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{SystemTime, UNIX_EPOCH};

use arrow::array::{
    ArrayRef, BinaryArray, Int32Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use arrow::datatypes::DataType;
use ruslo_repr::row::batch_of;
use ruslo_repr::schema::timestamptz;
use ruslo_repr::{CountedRows, Error, Result, RowCodec, Schema};

use crate::Shared;
use crate::catalog::{Body, Object};
use crate::coordinator::{PeekTarget, Request};
use crate::durable;
use crate::figures;
use crate::ingest::Source;

/// The schema these relations are in.
pub(crate) const SCHEMA: &str = "ruslo";

/// Name and columns of every relation of the schema.
pub(crate) fn relations() -> Vec<(&'static str, Schema)> {
    use DataType::{Binary, Int32, Int64, Utf8};
    vec![
        (
            "decode_errors",
            Schema::new([
                ("source", Utf8),
                ("partition", Int32),
                ("offset", Int64),
                ("element", Int32),
                ("column", Utf8),
                ("reason", Utf8),
                ("payload", Binary),
                ("time", timestamptz()),
                ("payload_bytes", Int64),
            ]),
        ),
        (
            "expression_errors",
            Schema::new([
                ("view", Utf8),
                ("expression", Utf8),
                ("message", Utf8),
                ("rows", Int64),
            ]),
        ),
        (
            "sources",
            Schema::new([
                ("name", Utf8),
                ("state", Utf8),
                ("detail", Utf8),
                ("messages", Int64),
                ("rows", Int64),
                ("bytes", Int64),
                ("decode_errors", Int64),
            ]),
        ),
        (
            "source_partitions",
            Schema::new([
                ("source", Utf8),
                ("partition", Int32),
                ("start_offset", Int64),
                ("next_offset", Int64),
                ("end_offset", Int64),
                ("lag", Int64),
            ]),
        ),
        (
            "sinks",
            Schema::new([
                ("name", Utf8),
                ("connector", Utf8),
                ("state", Utf8),
                ("error", Utf8),
                ("acknowledged", timestamptz()),
                ("operations", Int64),
                ("retries", Int64),
                ("waiting", Int64),
                ("resends", Int64),
            ]),
        ),
        (
            "memory",
            Schema::new([
                ("name", Utf8),
                ("rows", Int64),
                ("updates", Int64),
                ("bytes", Int64),
            ]),
        ),
        (
            "checkpoints",
            Schema::new([
                ("time", timestamptz()),
                ("changes", Int64),
                ("milliseconds", Int64),
            ]),
        ),
        (
            "storage",
            Schema::new([
                ("object", Utf8),
                ("collection", Utf8),
                ("runs", Int64),
                ("updates", Int64),
                ("bytes", Int64),
            ]),
        ),
    ]
}

/// The rows of one relation, now.
pub(crate) async fn rows(shared: &Shared, name: &str) -> Result<RecordBatch> {
    let schema = relations().into_iter().find(|(known, _)| *known == name);
    let Some((_, schema)) = schema else {
        return Err(Error::internal(format!("no relation ruslo.{name}")));
    };
    let objects = shared.catalog.objects();
    let columns = match name {
        "decode_errors" => decode_errors(&objects),
        "expression_errors" => expression_errors(shared, &objects).await?,
        "sources" => sources(&objects),
        "source_partitions" => source_partitions(&objects),
        "sinks" => sinks(&objects),
        "checkpoints" => checkpoints(shared),
        "storage" => storage(shared, &objects),
        _ => memory(shared, &objects).await?,
    };
    let len = columns.first().map_or(0, |column| column.len());
    batch_of(&schema, columns, len)
}

fn checkpoints(shared: &Shared) -> Vec<ArrayRef> {
    let last = shared.statuses.last();
    let millis = |seconds: f64| Some((seconds * 1000.0).round() as i64);
    vec![
        times(
            last.iter()
                .map(|c| i64::try_from(c.time).ok()?.checked_mul(1000)),
        ),
        ints(last.iter().map(|c| i64::try_from(c.rows).ok())),
        ints(last.iter().map(|c| millis(c.seconds))),
    ]
}

fn storage(shared: &Shared, objects: &[Arc<Object>]) -> Vec<ArrayRef> {
    let durable = shared.durable.as_ref();
    let stored = durable.map(|durable| durable.checkpoints.snapshot().status());
    let stored = stored.unwrap_or_default();
    let owner = |collection: u64| {
        let id = durable::object_of(collection);
        let object = objects.iter().find(|object| match &object.body {
            Body::Sink {
                view: Some((view, _)),
                ..
            } => *view == id || object.id == id,
            _ => object.id == id,
        });
        object.map(|object| object.name.clone())
    };
    let count = |n: u64| i64::try_from(n).ok();
    vec![
        texts(stored.iter().map(|c| owner(c.id))),
        texts(stored.iter().map(|c| Some(c.name.as_str()))),
        ints(stored.iter().map(|c| count(c.runs as u64))),
        ints(stored.iter().map(|c| count(c.rows))),
        ints(stored.iter().map(|c| count(c.bytes))),
    ]
}

fn sources_of(objects: &[Arc<Object>]) -> impl Iterator<Item = &Arc<Source>> {
    objects.iter().filter_map(|object| match &object.body {
        Body::Source { source, .. } => Some(source),
        _ => None,
    })
}

fn texts<T: AsRef<str>>(values: impl IntoIterator<Item = Option<T>>) -> ArrayRef {
    Arc::new(values.into_iter().collect::<StringArray>())
}

fn ints(values: impl IntoIterator<Item = Option<i64>>) -> ArrayRef {
    Arc::new(values.into_iter().collect::<Int64Array>())
}

fn times(values: impl IntoIterator<Item = Option<i64>>) -> ArrayRef {
    let array: TimestampMicrosecondArray = values.into_iter().collect();
    Arc::new(array.with_timezone("UTC"))
}

fn decode_errors(objects: &[Arc<Object>]) -> Vec<ArrayRef> {
    let rows = sources_of(objects).flat_map(|source| {
        source
            .bad
            .rows()
            .into_iter()
            .map(move |row| (source.clone(), row))
    });
    let rows: Vec<_> = rows.collect();
    let micros = |time: SystemTime| {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
    };
    let column_name = |source: &Source, column: Option<usize>| {
        column
            .and_then(|c| source.schema.columns.get(c))
            .map(|c| c.name.clone())
    };
    vec![
        texts(rows.iter().map(|(source, _)| Some(source.name.as_str()))),
        Arc::new(Int32Array::from_iter_values(
            rows.iter().map(|(_, row)| row.error.partition),
        )),
        ints(rows.iter().map(|(_, row)| Some(row.error.offset))),
        Arc::new(
            rows.iter()
                .map(|(_, row)| row.error.element.and_then(|e| i32::try_from(e).ok()))
                .collect::<Int32Array>(),
        ),
        texts(
            rows.iter()
                .map(|(source, row)| column_name(source, row.error.column)),
        ),
        texts(rows.iter().map(|(_, row)| Some(row.error.reason.as_str()))),
        Arc::new(BinaryArray::from_iter_values(
            rows.iter().map(|(_, row)| row.error.payload.as_ref()),
        )),
        times(rows.iter().map(|(_, row)| Some(micros(row.time)))),
        ints(
            rows.iter()
                .map(|(_, row)| i64::try_from(row.error.payload_bytes).ok()),
        ),
    ]
}

async fn expression_errors(shared: &Shared, objects: &[Arc<Object>]) -> Result<Vec<ArrayRef>> {
    let codec = RowCodec::new(&[DataType::Utf8, DataType::Utf8])?;
    let mut views: Vec<String> = vec![];
    let mut rows = CountedRows::default();
    let newest = objects
        .iter()
        .filter_map(|object| object.readable_from().ok())
        .max()
        .unwrap_or(0);
    let hold = shared
        .coordinator
        .ask(|reply| Request::Read {
            at_least: newest,
            reply,
        })
        .await?;
    for object in objects {
        if !matches!(object.body, Body::MaterializedView { .. }) || object.readable_from().is_err()
        {
            continue;
        }
        let target = PeekTarget {
            id: object.id,
            errors: true,
            keys: None,
            limit: None,
            portion: None,
        };
        let peeked = shared.coordinator.peek(target, &hold).await?;
        views.extend(std::iter::repeat_n(object.name.clone(), peeked.len()));
        rows.append(&peeked);
    }
    let mut columns = codec.decode(rows.iter().map(|(row, _)| row))?;
    columns.insert(0, texts(views.iter().map(Some)));
    columns.push(ints(rows.iter().map(|(_, diff)| Some(diff))));
    Ok(columns)
}

fn sources(objects: &[Arc<Object>]) -> Vec<ArrayRef> {
    let sources: Vec<_> = sources_of(objects)
        .map(|source| (source, source.state()))
        .collect();
    let count = |value: u64| Some(i64::try_from(value).unwrap_or(i64::MAX));
    vec![
        texts(sources.iter().map(|(source, _)| Some(source.name.as_str()))),
        texts(sources.iter().map(|(_, (state, _))| Some(*state))),
        texts(sources.iter().map(|(_, (_, detail))| detail.as_deref())),
        ints(
            sources
                .iter()
                .map(|(s, _)| count(s.counts.messages.load(Ordering::Relaxed))),
        ),
        ints(
            sources
                .iter()
                .map(|(s, _)| count(s.counts.rows.load(Ordering::Relaxed))),
        ),
        ints(
            sources
                .iter()
                .map(|(s, _)| count(s.counts.bytes.load(Ordering::Relaxed))),
        ),
        ints(sources.iter().map(|(s, _)| count(s.bad.count()))),
    ]
}

fn source_partitions(objects: &[Arc<Object>]) -> Vec<ArrayRef> {
    let rows = sources_of(objects).flat_map(|source| {
        source
            .partitions()
            .into_iter()
            .map(move |partition| (source.clone(), partition))
    });
    let rows: Vec<_> = rows.collect();
    vec![
        texts(rows.iter().map(|(source, _)| Some(source.name.as_str()))),
        Arc::new(Int32Array::from_iter_values(
            rows.iter().map(|(_, p)| p.partition),
        )),
        ints(rows.iter().map(|(_, p)| Some(p.start))),
        ints(rows.iter().map(|(_, p)| Some(p.next))),
        ints(rows.iter().map(|(_, p)| p.end)),
        ints(
            rows.iter()
                .map(|(_, p)| p.end.map(|end| (end - p.next).max(0))),
        ),
    ]
}

fn sinks(objects: &[Arc<Object>]) -> Vec<ArrayRef> {
    let sinks = objects.iter().filter_map(|object| match &object.body {
        Body::Sink { sink, .. } => Some((sink.clone(), sink.status.lock().clone())),
        _ => None,
    });
    let sinks: Vec<_> = sinks.collect();
    let count = |value: u64| Some(i64::try_from(value).unwrap_or(i64::MAX));
    let state = |failing: bool| if failing { "retrying" } else { "running" };
    vec![
        texts(sinks.iter().map(|(sink, _)| Some(sink.name.as_str()))),
        texts(sinks.iter().map(|(sink, _)| Some(sink.connector))),
        texts(
            sinks
                .iter()
                .map(|(_, status)| Some(state(status.error.is_some()))),
        ),
        texts(sinks.iter().map(|(_, status)| status.error.as_deref())),
        times(sinks.iter().map(|(_, status)| {
            match status.acknowledged {
                0 => None,
                millis => i64::try_from(millis)
                    .ok()
                    .and_then(|ms| ms.checked_mul(1000)),
            }
        })),
        ints(sinks.iter().map(|(_, status)| count(status.operations))),
        ints(sinks.iter().map(|(_, status)| count(status.retries))),
        ints(sinks.iter().map(|(_, status)| count(status.waiting as u64))),
        ints(sinks.iter().map(|(_, status)| count(status.resends))),
    ]
}

async fn memory(shared: &Shared, objects: &[Arc<Object>]) -> Result<Vec<ArrayRef>> {
    let stats = shared.coordinator.ask(Request::Stats).await?;
    let count = |value: u64| Some(i64::try_from(value).unwrap_or(i64::MAX));
    // Name, rows, updates, bytes.
    let rows = objects.iter().filter_map(|object| {
        let name = object.name.as_str();
        match &object.body {
            Body::Source { source, .. } => {
                let waiting = figures::queued_bytes(shared, source);
                Some((name, None, None, count(waiting)))
            }
            Body::Sink { sink, .. } => {
                let waiting = sink.status.lock().bytes;
                Some((name, None, None, count(waiting as u64)))
            }
            _ => {
                let stats = stats.iter().find(|stats| stats.id == object.id)?;
                let (updates, bytes) = (stats.records as u64, stats.bytes as u64);
                Some((name, Some(stats.rows), count(updates), count(bytes)))
            }
        }
    });
    let rows: Vec<_> = rows.collect();
    Ok(vec![
        texts(rows.iter().map(|row| Some(row.0))),
        ints(rows.iter().map(|row| row.1)),
        ints(rows.iter().map(|row| row.2)),
        ints(rows.iter().map(|row| row.3)),
    ])
}
