//! Figures for Prometheus, taken once a second from what runs.
//!
//! Counters that grow with the data (`ruslo_source_decode_errors_total`, …) are recorded where
//! it happens; here are the gauges that somebody has to go and look at.

use std::sync::Weak;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use metrics::{counter, gauge};

use crate::Shared;
use crate::catalog::Body;
use crate::coordinator::Request;

const INTERVAL: Duration = Duration::from_secs(1);

/// Starts the task; it ends with the engine.
pub(crate) fn spawn(shared: Weak<Shared>) {
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(INTERVAL).await;
            let Some(shared) = shared.upgrade() else {
                return;
            };
            record(&shared).await;
        }
    });
}

async fn record(shared: &Shared) {
    let clock = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let visible = *shared.coordinator.visible().borrow();
    let objects = shared.catalog.objects();
    let stats = match objects.iter().any(|object| object.arranged_by().is_some()) {
        true => shared
            .coordinator
            .ask(Request::Stats)
            .await
            .unwrap_or_default(),
        false => vec![],
    };
    for object in &objects {
        let name = object.name.clone();
        match &object.body {
            Body::Source { source, .. } => {
                let read = &source.counts;
                let total = |n: &std::sync::atomic::AtomicU64| n.load(Ordering::Relaxed);
                counter!("ruslo_source_messages_total", "source" => name.clone())
                    .absolute(total(&read.messages));
                counter!("ruslo_source_rows_total", "source" => name.clone())
                    .absolute(total(&read.rows));
                counter!("ruslo_source_bytes_total", "source" => name.clone())
                    .absolute(total(&read.bytes));
                let lag = source
                    .partitions()
                    .into_iter()
                    .filter_map(|p| Some(p.end? - p.next));
                let lag: i64 = lag.map(|lag| lag.max(0)).sum();
                gauge!("ruslo_source_lag_messages", "source" => name).set(lag as f64);
            }
            Body::Table { .. } | Body::MaterializedView { .. } => {
                if let Some(stats) = stats.iter().find(|stats| stats.id == object.id) {
                    gauge!("ruslo_object_rows", "object" => name.clone()).set(stats.rows as f64);
                    gauge!("ruslo_object_updates", "object" => name.clone())
                        .set(stats.records as f64);
                    gauge!("ruslo_object_bytes", "object" => name).set(stats.bytes as f64);
                }
            }
            Body::Sink { sink, .. } => {
                let status = sink.status.lock().clone();
                gauge!("ruslo_sink_waiting_keys", "sink" => name.clone())
                    .set(status.waiting as f64);
                let behind = visible.saturating_sub(status.acknowledged);
                gauge!("ruslo_sink_behind_seconds", "sink" => name).set(behind as f64 / 1000.0);
            }
            Body::View { .. } => {}
        }
    }
    gauge!("ruslo_visible_time_seconds").set(visible as f64 / 1000.0);
    gauge!("ruslo_clock_seconds").set(clock.as_secs_f64());
}
