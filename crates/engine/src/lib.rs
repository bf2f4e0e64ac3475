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

mod backpressure;
mod bad_data;
mod catalog;
mod coordinator;
mod durable;
mod export;
mod figures;
mod gaps;
#[doc(hidden)]
pub mod host;
mod ingest;
mod introspection;
mod layout;
mod scan;
mod secrets;
mod session;
mod subscription;
pub mod system;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

pub use figures::{Family, FigureKind};
#[doc(hidden)]
pub use ruslo_dataflow::{Faults, Pacer};
use ruslo_dataflow::{Workers, WorkersConfig};
pub use ruslo_repr::{Error, ErrorKind, Result, Schema};
use ruslo_sql::QueryMemory;
pub use session::{CancelHandle, Description, Notice, Outcome, Param, Session, Statement};
pub use subscription::Subscription;
use tokio::sync::{mpsc, watch};

use parking_lot::Mutex;

use crate::catalog::{Body, Catalog};
use crate::coordinator::{Beginning, CheckpointEnds, Coordinator, Request};
use crate::durable::{Appender, Checkpointer, Deletes, Durable, History, Statuses};
pub use crate::durable::{Backup, KEY_NAME, Storage, backup, restore};
use crate::host::Host;
use crate::subscription::Subscriptions;

/// How long the end of the engine waits for its workers.
const WORKERS_END_MAX: Duration = Duration::from_secs(2);

/// How long the end of the engine waits for what is being made durable.
const LOG_END_MAX: Duration = Duration::from_secs(2);

/// How the server is started; mirrors the flags of `ruslo serve`.
#[derive(Clone, Debug)]
pub struct Config {
    /// Timely workers in this process, at least one.
    pub workers: usize,
    pub storage: Storage,
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
    /// The last time of an acknowledged write: every later read sees it, whoever wrote it.
    acknowledged: AtomicU64,
    /// Statements that change the catalog run one after the other.
    ddl: tokio::sync::Mutex<()>,
    /// None: nothing survives.
    durable: Option<Durable>,
    /// What the server before left, until it is brought back.
    history: Mutex<Option<History>>,
    /// What the bringing back is at; None once it is done.
    recovering: Mutex<Option<String>>,
    /// The last checkpoints.
    statuses: Arc<Statuses>,
    query_memory: QueryMemory,
    subscriptions: Arc<Subscriptions>,
    host: Host,
}

impl Shared {
    fn progress(&self, text: String) {
        *self.recovering.lock() = Some(text);
    }
}

impl Engine {
    /// Opens the store, starts all there is, and brings back what was there. Must be called
    /// within a tokio runtime.
    pub async fn start(config: Config) -> Result<Engine> {
        let engine = Self::open(config).await?;
        engine.recover().await?;
        Ok(engine)
    }

    /// Opens the store and starts workers and coordinator. Nothing can be asked of the engine
    /// before [`Self::recover`] is through, but [`Self::health`] says how far that is.
    pub async fn open(config: Config) -> Result<Engine> {
        Self::open_with_faults(config, Faults::default()).await
    }

    /// Starts with faults planted in operators: a test of the tests, never of use otherwise.
    #[doc(hidden)]
    pub async fn start_with_faults(config: Config, faults: Faults) -> Result<Engine> {
        let engine = Self::open_with_faults(config, faults).await?;
        engine.recover().await?;
        Ok(engine)
    }

    async fn open_with_faults(config: Config, faults: Faults) -> Result<Engine> {
        let (engine, _) = Self::open_on(config, faults, Host::real()).await?;
        Ok(engine)
    }

    /// Opens an engine on a host that is maybe no real one. Without threads of its own its workers
    /// go on by their pacers, which must not outlive a runtime that is dropped.
    #[doc(hidden)]
    pub async fn open_on(
        config: Config,
        faults: Faults,
        host: Host,
    ) -> Result<(Engine, Vec<Pacer>)> {
        let mut beginning = Beginning::default();
        let (mut durable, mut history) = (None, None);
        if let Storage::Store {
            url,
            key_file,
            checkpoint_interval,
        } = &config.storage
        {
            let (opened, log, past) = {
                let interval = *checkpoint_interval;
                durable::open(url, key_file, interval, &host).await?
            };
            let (events, told) = mpsc::unbounded_channel();
            beginning = Beginning {
                last: past.last(),
                bound: past.bound.clone(),
                image: past.image.clone(),
                log: Some((Appender::start(log, events, &host)?, told)),
                checkpoint: past.checkpoint(),
            };
            (durable, history) = (Some(opened), Some(past));
        }
        let (respond, responses) = mpsc::unbounded_channel();
        let workers = WorkersConfig {
            workers: config.workers.max(1),
            evaluator: ruslo_sql::evaluator(),
            durable: durable.is_some(),
        };
        let on_response = Arc::new(move |response| {
            // The coordinator is gone only when the process ends.
            let _ = respond.send(response);
        });
        let (workers, pacers) = match host.threads {
            true => (
                Workers::start_with_faults(workers, faults, on_response)?,
                vec![],
            ),
            false => Workers::start_in_turns(workers, faults, on_response)?,
        };
        let shared = Shared {
            catalog: Catalog::new(),
            coordinator: Coordinator::start(workers.clone(), responses, beginning),
            workers,
            acknowledged: AtomicU64::new(0),
            ddl: tokio::sync::Mutex::new(()),
            durable,
            history: Mutex::new(history),
            recovering: Mutex::new(Some("starting".to_string())),
            statuses: Arc::default(),
            query_memory: QueryMemory::new(ruslo_memory::usage().limit)?,
            subscriptions: Arc::default(),
            host,
        };
        let shared = Arc::new(shared);
        Ok((Engine { shared }, pacers))
    }

    /// Brings back what the server before had; what it was at can then be read.
    pub async fn recover(&self) -> Result<()> {
        let history = self.shared.history.lock().take();
        let mut deletes = Deletes::new();
        if let Some(history) = history.filter(|history| history.last() > 0) {
            deletes = durable::recover(&self.shared, history).await?;
        }
        self.start_checkpoints(deletes)?;
        // From here on there is always something that can be read.
        self.shared.coordinator.ask(Request::Tick).await?;
        *self.shared.recovering.lock() = None;
        Ok(())
    }

    fn start_checkpoints(&self, deletes: Deletes) -> Result<()> {
        let Some(durable) = &self.shared.durable else {
            return Ok(());
        };
        if durable::is_something_broken(&self.shared) {
            tracing::warn!("there are no checkpoints while a view cannot be brought back");
            return Ok(());
        }
        let (parts, queue) = mpsc::unbounded_channel();
        let (told, events) = mpsc::unbounded_channel();
        let checkpoints = durable.checkpoints.clone();
        Checkpointer::start(self.shared.clone(), checkpoints, deletes, queue, told)?;
        let interval = durable.checkpoint_interval;
        let ends = CheckpointEnds {
            parts,
            events,
            interval,
        };
        self.shared.coordinator.send(Request::TakeCheckpoints(ends));
        Ok(())
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
        let idle = async {
            while busy() && tokio::time::Instant::now() < deadline {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        // So that the next start reads nothing again. A sink whose Redis is away takes all of the
        // time, so the checkpoint does not wait for it; if there is time left, what came since gets
        // one, too.
        let checkpoint = || {
            let done = self.shared.coordinator.ask(Request::CheckpointNow);
            tokio::time::timeout_at(deadline, done)
        };
        let ((), mut last) = tokio::join!(idle, checkpoint());
        if !busy() {
            last = checkpoint().await;
        }
        if last.is_err() {
            tracing::warn!("the last checkpoint was not through in time; nothing is lost");
        }
        for sink in &sinks {
            sink.stop();
        }
        self.shared.coordinator.send(Request::Shutdown);
        let ended = self.shared.coordinator.ended();
        if tokio::time::timeout(LOG_END_MAX, ended).await.is_err() {
            tracing::warn!("the binding log did not end in time; nothing acknowledged is lost");
        }
        if !self.shared.host.threads {
            // Paced workers go on only where somebody paces them, who then also ends them.
            return;
        }
        let workers = self.shared.workers.clone();
        let joined = tokio::task::spawn_blocking(move || workers.join());
        if tokio::time::timeout(WORKERS_END_MAX, joined).await.is_err() {
            tracing::warn!("workers did not end in time");
        }
    }

    /// Ends as a crash would, for tests: no last checkpoint, and what is on its way is given up. The
    /// store can be opened again once all clones and sessions are gone.
    #[doc(hidden)]
    pub async fn crash(self) {
        self.shared.coordinator.send(Request::Shutdown);
        self.shared.coordinator.ended().await;
    }

    /// Figures of all objects there are, for monitoring.
    pub async fn figures(&self) -> Vec<Family> {
        figures::collect(&self.shared).await
    }

    /// Ok when the server can answer queries; else why not.
    pub fn health(&self) -> Result<()> {
        if let Some(error) = &*self.shared.coordinator.failure().borrow() {
            return Err(error.clone());
        }
        match &*self.shared.recovering.lock() {
            Some(progress) => Err(Error::new(
                ErrorKind::StartingUp,
                format!("recovering: {progress}"),
            )),
            None => Ok(()),
        }
    }

    /// Why nothing can be made durable now, if so: what is written waits, and reads go on with
    /// what was seen before.
    pub fn stalled(&self) -> Option<String> {
        self.shared.coordinator.stalled()
    }

    /// Set once a worker has failed: the process should end with an error.
    pub fn failure(&self) -> watch::Receiver<Option<Error>> {
        self.shared.coordinator.failure()
    }
}
