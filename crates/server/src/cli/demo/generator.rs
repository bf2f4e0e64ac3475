//! The demo's producers: a thread per topic, and what Kafka has acknowledged so far.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use anyhow::{Context, Result, anyhow};
use ruslo_connector::generate::{EventKind, GenerateOptions, Progress, Rate, Summary, run};

use super::{PARTITIONS, Topics, USERS};

/// Running producers; they stop when this is dropped.
pub(super) struct Generator {
    shared: Arc<Shared>,
    events: Option<JoinHandle<Option<Summary>>>,
    others: Vec<JoinHandle<Option<Summary>>>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    /// Events that Kafka has acknowledged.
    acked: AtomicU64,
    /// Why a producer has ended before it was told to.
    failure: Mutex<Option<String>>,
}

/// Makes a topic if it is not there.
pub(super) async fn ensure_topic(kind: EventKind, brokers: &str, topic: &str) -> Result<()> {
    let mut options = GenerateOptions::new(kind, brokers, topic);
    options.count = Some(0);
    options.partitions = PARTITIONS;
    let make = move || run(&options, &AtomicBool::new(false), |_| {});
    let made = tokio::task::spawn_blocking(make).await?;
    made.with_context(|| format!("cannot make the topic {topic} on {brokers}"))?;
    Ok(())
}

impl Generator {
    /// Starts to produce: events at `rate` a second, anything else once and at full speed.
    pub(super) fn start(brokers: &str, topics: &Topics, rate: f64) -> Self {
        let shared = Arc::new(Shared::default());
        let (mut events, mut others) = (None, vec![]);
        for (kind, topic) in topics {
            let mut options = GenerateOptions::new(*kind, brokers, topic);
            options.users = USERS;
            options.rate = match kind {
                EventKind::UserEvents => Rate::PerSecond(rate),
                EventKind::UserProfiles => Rate::Max,
            };
            let shared = shared.clone();
            let thread = std::thread::spawn(move || shared.produce(&options));
            match kind {
                EventKind::UserEvents => events = Some(thread),
                EventKind::UserProfiles => others.push(thread),
            }
        }
        Generator {
            shared,
            events,
            others,
        }
    }

    /// Events acknowledged so far.
    pub(super) fn acked(&self) -> u64 {
        self.shared.acked.load(Ordering::Relaxed)
    }

    pub(super) fn failure(&self) -> Option<String> {
        self.shared
            .failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Tells the producers to end.
    pub(super) fn stop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }

    /// Ends the producers and waits until every event is acknowledged or given up.
    pub(super) async fn finish(&mut self) -> Result<Summary> {
        self.stop();
        let (events, others) = (self.events.take(), std::mem::take(&mut self.others));
        let join = move || {
            others.into_iter().for_each(|thread| drop(thread.join()));
            events.and_then(|thread| thread.join().ok().flatten())
        };
        let summary = tokio::task::spawn_blocking(join).await?;
        summary.ok_or_else(|| {
            let why = self
                .failure()
                .unwrap_or_else(|| "it has ended already".into());
            anyhow!("the generator failed: {why}")
        })
    }
}

impl Drop for Generator {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn produce(&self, options: &GenerateOptions) -> Option<Summary> {
        let summary = run(options, &self.stop, |progress| match progress {
            Progress::Totals { acked, .. } if options.kind == EventKind::UserEvents => {
                self.acked.store(acked, Ordering::Relaxed);
            }
            Progress::Trouble(trouble) => tracing::warn!("generator: {trouble}"),
            _ => {}
        });
        match summary {
            Ok(summary) => Some(summary),
            Err(error) => {
                let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
                *failure = Some(error.to_string());
                None
            }
        }
    }
}
