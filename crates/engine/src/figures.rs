//! Figures of the objects that are there, collected when somebody asks for them.
//!
//! What is dropped is gone from the next answer, and nothing ticks while nobody asks. Everything
//! comes from plain memory but what the workers count, and for that nobody waits long.

use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ruslo_dataflow::ObjectStats;

use crate::Shared;
use crate::catalog::{Body, DEFAULT_SCHEMA, Object};
use crate::coordinator::Request;
use crate::durable::Durable;
use crate::export::Sink;
use crate::ingest::Source;

/// How long an answer waits for the workers' counts before it does without them.
const WORKERS_MAX: Duration = Duration::from_secs(1);

/// How a figure moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FigureKind {
    /// Only ever grows.
    Counter,
    Gauge,
}

/// Figures of one name.
#[derive(Clone, Debug)]
pub struct Family {
    pub name: &'static str,
    pub kind: FigureKind,
    pub help: &'static str,
    /// The name of the label that says which object a value is of.
    pub label: Option<&'static str>,
    /// The object's name, empty without a label, and the value.
    pub values: Vec<(String, f64)>,
}

use FigureKind::{Counter, Gauge};

type Described = (&'static str, FigureKind, Option<&'static str>, &'static str);

const SOURCE: Option<&str> = Some("source");
const OBJECT: Option<&str> = Some("object");
const SINK: Option<&str> = Some("sink");

const FAMILIES: &[Described] = &[
    (
        "ruslo_source_messages_total",
        Counter,
        SOURCE,
        "Messages read live.",
    ),
    (
        "ruslo_source_rows_total",
        Counter,
        SOURCE,
        "Rows decoded from live messages.",
    ),
    (
        "ruslo_source_bytes_total",
        Counter,
        SOURCE,
        "Payload bytes read live.",
    ),
    (
        "ruslo_source_decode_errors_total",
        Counter,
        SOURCE,
        "Messages and fields not decoded.",
    ),
    (
        "ruslo_source_gaps_total",
        Counter,
        SOURCE,
        "Times that messages could not be read.",
    ),
    (
        "ruslo_source_lag_messages",
        Gauge,
        SOURCE,
        "Messages in the topic not read yet.",
    ),
    (
        "ruslo_source_age_seconds",
        Gauge,
        SOURCE,
        "How old the newest message of the last batch was when it was read.",
    ),
    (
        "ruslo_source_buffered_bytes",
        Gauge,
        SOURCE,
        "Memory of messages fetched (estimated) and rows queued for the workers.",
    ),
    (
        "ruslo_object_rows",
        Gauge,
        OBJECT,
        "Rows of a table or view.",
    ),
    (
        "ruslo_object_updates",
        Gauge,
        OBJECT,
        "Updates in the arrangement of a table or view.",
    ),
    (
        "ruslo_object_bytes",
        Gauge,
        OBJECT,
        "Memory of the arrangements of a table or view.",
    ),
    (
        "ruslo_object_visible_time_seconds",
        Gauge,
        OBJECT,
        "The time, since 1970, that a read of the table or view sees.",
    ),
    (
        "ruslo_sink_operations_total",
        Counter,
        SINK,
        "Keys set or deleted.",
    ),
    (
        "ruslo_sink_retries_total",
        Counter,
        SINK,
        "Writes that failed and were tried again.",
    ),
    (
        "ruslo_sink_resends_total",
        Counter,
        SINK,
        "Times that all of the view was written again.",
    ),
    (
        "ruslo_sink_waiting_keys",
        Gauge,
        SINK,
        "Keys that changed and are not written yet.",
    ),
    (
        "ruslo_sink_waiting_bytes",
        Gauge,
        SINK,
        "Memory of changes not written yet and of rows that share keys.",
    ),
    (
        "ruslo_sink_behind_seconds",
        Gauge,
        SINK,
        "The visible time less the acknowledged one.",
    ),
    (
        "ruslo_subscriptions",
        Gauge,
        None,
        "Subscriptions that are open.",
    ),
    (
        "ruslo_subscription_waiting_bytes",
        Gauge,
        None,
        "Memory of changes that subscribers have not taken yet.",
    ),
    (
        "ruslo_checkpoints_total",
        Counter,
        None,
        "Checkpoints made since the start.",
    ),
    (
        "ruslo_checkpoint_seconds",
        Gauge,
        None,
        "How long the last checkpoint took.",
    ),
    (
        "ruslo_stored_bytes",
        Gauge,
        None,
        "Bytes of the last checkpoint's collections.",
    ),
    (
        "ruslo_visible_time_seconds",
        Gauge,
        None,
        "The newest time, since 1970, that reads see.",
    ),
    (
        "ruslo_clock_seconds",
        Gauge,
        None,
        "The server's clock, in seconds since 1970.",
    ),
];

/// What is being collected.
struct Figures(Vec<Family>);

impl Figures {
    fn add(&mut self, name: &str, object: &str, value: f64) {
        if let Some(family) = self.0.iter_mut().find(|family| family.name == name) {
            family.values.push((object.to_string(), value));
        }
    }
}

fn add_storage(figures: &mut Figures, shared: &Shared, durable: &Durable) {
    let count = shared.statuses.count();
    figures.add("ruslo_checkpoints_total", "", count as f64);
    if let Some(last) = shared.statuses.last().last() {
        figures.add("ruslo_checkpoint_seconds", "", last.seconds);
    }
    let stored = durable.checkpoints.snapshot().status();
    let bytes: u64 = stored.iter().map(|collection| collection.bytes).sum();
    figures.add("ruslo_stored_bytes", "", bytes as f64);
}

pub(crate) async fn collect(shared: &Shared) -> Vec<Family> {
    let family = |&(name, kind, label, help): &Described| Family {
        name,
        kind,
        help,
        label,
        values: vec![],
    };
    let mut figures = Figures(FAMILIES.iter().map(family).collect());
    let visible = *shared.coordinator.visible().borrow();
    let objects = shared.catalog.objects();
    if let Some(durable) = &shared.durable {
        add_storage(&mut figures, shared, durable);
    }
    let subscriptions = &shared.subscriptions;
    figures.add("ruslo_subscriptions", "", subscriptions.open() as f64);
    let waiting = subscriptions.bytes() as f64;
    figures.add("ruslo_subscription_waiting_bytes", "", waiting);
    let counted = match objects.iter().any(|object| object.arranged_by().is_some()) {
        true => tokio::time::timeout(WORKERS_MAX, shared.coordinator.ask(Request::Stats)).await,
        false => Ok(Ok(vec![])),
    };
    let counted = counted.ok().and_then(Result::ok).unwrap_or_default();
    for object in &objects {
        let name = label_of(object);
        match &object.body {
            Body::Source { source, .. } => {
                let queued = queued_bytes(shared, source);
                add_source(&mut figures, &name, source, queued);
            }
            Body::Table { .. } | Body::MaterializedView { .. } => {
                let counted = counted.iter().find(|counted| counted.id == object.id);
                if let Some(counted) = counted {
                    add_object(&mut figures, &name, counted);
                }
                if let Ok(first) = object.readable_from() {
                    let time = visible.max(first) as f64 / 1000.0;
                    figures.add("ruslo_object_visible_time_seconds", &name, time);
                }
            }
            Body::Sink { sink, .. } => add_sink(&mut figures, &name, sink, visible),
            Body::View { .. } => {}
        }
    }
    let clock = SystemTime::now().duration_since(UNIX_EPOCH);
    let clock = clock.unwrap_or_default().as_secs_f64();
    figures.add("ruslo_visible_time_seconds", "", visible as f64 / 1000.0);
    figures.add("ruslo_clock_seconds", "", clock);
    figures.0.retain(|family| !family.values.is_empty());
    figures.0
}

/// Bytes of decoded rows that wait for the workers, and of messages that wait to be decoded.
pub(crate) fn queued_bytes(shared: &Shared, source: &Source) -> u64 {
    let queues = 0..shared.workers.workers();
    let queued: usize = queues
        .map(|worker| shared.workers.live_queue(worker, source.id).bytes())
        .sum();
    source.fetched_bytes() + queued as u64
}

/// Names are unique within a schema only.
fn label_of(object: &Object) -> String {
    match object.schema == DEFAULT_SCHEMA {
        true => object.name.clone(),
        false => format!("{}.{}", object.schema, object.name),
    }
}

fn add_source(figures: &mut Figures, name: &str, source: &Source, queued: u64) {
    let counts = &source.counts;
    let mut add = |figure, value| figures.add(figure, name, value);
    add(
        "ruslo_source_messages_total",
        counts.messages.load(Relaxed) as f64,
    );
    add("ruslo_source_rows_total", counts.rows.load(Relaxed) as f64);
    add(
        "ruslo_source_bytes_total",
        counts.bytes.load(Relaxed) as f64,
    );
    add(
        "ruslo_source_decode_errors_total",
        source.bad.count() as f64,
    );
    add("ruslo_source_gaps_total", source.gap_count() as f64);
    let partitions = source.partitions().into_iter();
    let lag = partitions.filter_map(|p| Some((p.end? - p.next).max(0)));
    add("ruslo_source_lag_messages", lag.sum::<i64>() as f64);
    let age_ms = counts.age_ms.load(Relaxed);
    if age_ms >= 0 {
        add("ruslo_source_age_seconds", age_ms as f64 / 1000.0);
    }
    add("ruslo_source_buffered_bytes", queued as f64);
}

fn add_object(figures: &mut Figures, name: &str, counted: &ObjectStats) {
    figures.add("ruslo_object_rows", name, counted.rows as f64);
    figures.add("ruslo_object_updates", name, counted.records as f64);
    figures.add("ruslo_object_bytes", name, counted.bytes as f64);
}

fn add_sink(figures: &mut Figures, name: &str, sink: &Sink, visible: ruslo_repr::Time) {
    let status = sink.status.lock().clone();
    let behind = visible.saturating_sub(status.acknowledged);
    let mut add = |figure, value| figures.add(figure, name, value);
    add("ruslo_sink_operations_total", status.operations as f64);
    add("ruslo_sink_retries_total", status.retries as f64);
    add("ruslo_sink_resends_total", status.resends as f64);
    add("ruslo_sink_waiting_keys", status.waiting as f64);
    add("ruslo_sink_waiting_bytes", status.bytes as f64);
    add("ruslo_sink_behind_seconds", behind as f64 / 1000.0);
}
