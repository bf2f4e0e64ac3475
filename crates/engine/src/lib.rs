//! The database without its front doors: catalog, coordinator, ingest and export.
//!
//! `server` talks to it only through [`Engine`] and [`Session`]; nothing here knows the Postgres
//! protocol or HTTP.
//!
//! ```text
//!  Session ──parse, plan (sql)──> Coordinator ──Command──> workers (dataflow)
//!                                   ^      │ <──Response──────┘
//!                    input is ready │      │ visible time, changes
//!  Kafka ──> ingest ──batches──> queues    └──> export ──> Redis
//! ```

mod bad_data;
mod catalog;
mod coordinator;
mod export;
mod figures;
mod gaps;
mod ingest;
mod introspection;
mod scan;
mod secrets;
mod session;
pub mod system;

use std::sync::Arc;
use std::time::Duration;

pub use figures::{Family, FigureKind};
#[doc(hidden)]
pub use ruslo_dataflow::Faults;
use ruslo_dataflow::{Workers, WorkersConfig};
pub use ruslo_repr::{Error, ErrorKind, Result, Schema};
pub use session::{CancelHandle, Description, Notice, Outcome, Param, Session, Statement};
use tokio::sync::{mpsc, watch};

use crate::catalog::{Body, Catalog};
use crate::coordinator::{Coordinator, Request};

/// How long the end of the engine waits for its workers.
const WORKERS_END_MAX: Duration = Duration::from_secs(2);

/// How the server is started; mirrors the flags of `ruslo serve`.
#[derive(Clone, Debug)]
pub struct Config {
    /// Timely workers in this process, at least one.
    pub workers: usize,
}

/// The running database. Cheap to clone; all clones are the same database.
#[derive(Clone)]
pub struct Engine {
    shared: Arc<Shared>,
}

/// What all sessions share.
struct Shared {
    catalog: Catalog,
    coordinator: Coordinator,
    workers: Workers,
    /// Statements that change the catalog run one after the other.
    ddl: tokio::sync::Mutex<()>,
}

impl Engine {
    /// Starts workers and coordinator. Must be called within a tokio runtime.
    pub async fn start(config: Config) -> Result<Engine> {
        Self::start_with_faults(config, Faults::default()).await
    }

    /// Starts with faults planted in operators: a test of the tests, never of use otherwise.
    #[doc(hidden)]
    pub async fn start_with_faults(config: Config, faults: Faults) -> Result<Engine> {
        let (respond, responses) = mpsc::unbounded_channel();
        let workers = Workers::start_with_faults(
            WorkersConfig {
                workers: config.workers.max(1),
                evaluator: ruslo_sql::evaluator(),
            },
            faults,
            Arc::new(move |response| {
                // The coordinator is gone only when the process ends.
                let _ = respond.send(response);
            }),
        )?;
        let coordinator = Coordinator::start(workers.clone(), responses);
        // The first time: from here on there is always something that can be read.
        coordinator.ask(Request::Tick).await?;
        let catalog = Catalog::new();
        let ddl = tokio::sync::Mutex::new(());
        let shared = Arc::new(Shared {
            catalog,
            coordinator,
            workers,
            ddl,
        });
        Ok(Engine { shared })
    }

    pub fn session(&self, user: &str, database: &str) -> Session {
        Session::new(self.shared.clone(), user, database)
    }

    /// Ends sinks, readers and workers. Waits up to `grace` for sinks to write what they hold.
    pub async fn shutdown(&self, grace: Duration) {
        let objects = self.shared.catalog.objects();
        let sinks = objects.iter().filter_map(|object| match &object.body {
            Body::Sink { sink, .. } => Some(sink.clone()),
            _ => None,
        });
        let sinks: Vec<_> = sinks.collect();
        let deadline = tokio::time::Instant::now() + grace;
        let busy = || sinks.iter().any(|sink| sink.status.lock().waiting > 0);
        while busy() && tokio::time::Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        for sink in &sinks {
            sink.stop();
        }
        self.shared.coordinator.send(Request::Shutdown);
        let workers = self.shared.workers.clone();
        let joined = tokio::task::spawn_blocking(move || workers.join());
        if tokio::time::timeout(WORKERS_END_MAX, joined).await.is_err() {
            tracing::warn!("workers did not end in time");
        }
    }

    /// Figures of all objects there are, for monitoring.
    pub async fn figures(&self) -> Vec<Family> {
        figures::collect(&self.shared).await
    }

    /// Ok when the server can answer queries; else why not.
    pub fn health(&self) -> Result<()> {
        match &*self.shared.coordinator.failure().borrow() {
            Some(error) => Err(error.clone()),
            None => Ok(()),
        }
    }

    /// Set once a worker has failed: the process should end with an error.
    pub fn failure(&self) -> watch::Receiver<Option<Error>> {
        self.shared.coordinator.failure()
    }
}
