//! Starting and ending a whole server: engine, Postgres port, HTTP port.

use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ruslo_engine::{Config, Engine};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::settings::{Memory, ServerArgs, Settings};
use crate::shutdown::{Shutdown, ended};
use crate::{http, pgwire};

/// How long sinks have to write out what they hold when the server ends.
const GRACE: Duration = Duration::from_secs(5);
/// How long the whole end may take.
const END_MAX: Duration = Duration::from_secs(10);
/// Less than this is not enough for an empty server.
const MEMORY_MIN: u64 = 64 << 20;
const UPKEEP: Duration = Duration::from_secs(5);

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ruslo serve
  ruslo serve --listen 0.0.0.0:4566 --workers 4 --log debug
  RUSLO_HTTP=off ruslo serve --config /etc/ruslo.toml")]
pub(super) struct ServeArgs {
    #[command(flatten)]
    pub(super) server: ServerArgs,
}

/// A server that runs in this process.
pub struct Running {
    pub engine: Engine,
    /// Where the Postgres protocol is spoken.
    pub sql: SocketAddr,
    /// Where HTTP is spoken, if it is.
    pub http: Option<SocketAddr>,
    shutdown: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Running {
    /// Binds the ports, then starts the engine; what was kept is there when this returns. Until
    /// then both ports say that it is being brought back.
    pub async fn start(settings: &Settings) -> Result<Running> {
        let metrics = http::install_metrics()?;
        let tls = match &settings.tls {
            None => None,
            Some((certificates, key)) => Some(pgwire::tls_acceptor(certificates, key)?),
        };
        let sql_listener = bind(&settings.listen, "--listen").await?;
        let http_listener = match &settings.http {
            None => None,
            Some(address) => Some(bind(address, "--http").await?),
        };
        let engine = Engine::open(Config {
            workers: settings.workers,
            storage: settings.storage.clone(),
        })
        .await?;
        let (shutdown, down) = watch::channel(false);
        let sql = sql_listener.local_addr()?;
        let http = http_listener
            .as_ref()
            .map(TcpListener::local_addr)
            .transpose()?;
        let limit = settings.connections_max;
        let server = pgwire::Server::new(engine.clone(), tls, limit, down.clone());
        let mut tasks = vec![tokio::spawn(server.serve(sql_listener))];
        if let Some(listener) = http_listener {
            let serving = http::serve(listener, engine.clone(), metrics.clone(), down.clone());
            tasks.push(tokio::spawn(serving));
        }
        tasks.push(tokio::spawn(upkeep(metrics, down)));
        let running = Running {
            engine,
            sql,
            http,
            shutdown,
            tasks,
        };
        tokio::select! {
            recovered = running.engine.recover() => recovered?,
            error = running.failed() => return Err(error),
        }
        Ok(running)
    }

    /// Resolves, with the reason, once the engine can't go on.
    pub async fn failed(&self) -> anyhow::Error {
        let mut failure = self.engine.failure();
        let error = match failure.wait_for(Option::is_some).await {
            Ok(error) => error.clone(),
            Err(_) => None,
        };
        match error {
            Some(error) => anyhow::Error::new(error).context("the engine failed"),
            None => anyhow::anyhow!("the engine has ended"),
        }
    }

    /// Ends clients' connections, then the engine.
    pub async fn stop(self) {
        let _ended = end_in_any_case();
        self.shutdown.send_replace(true);
        for task in self.tasks {
            if let Err(error) = task.await {
                tracing::error!(%error, "a server task failed");
            }
        }
        self.engine.shutdown(GRACE).await;
    }

    /// The `psql` line that connects to this server.
    pub fn psql_line(&self) -> String {
        let host = match self.sql.ip() {
            ip if ip.is_unspecified() => "localhost".to_string(),
            ip => ip.to_string(),
        };
        format!("psql -h {host} -p {} -d dev -U root", self.sql.port())
    }
}

/// Ends the process when the guard is still there after `END_MAX`. It is a thread of its own,
/// because what hangs may hang in the runtime's threads.
fn end_in_any_case() -> mpsc::Sender<()> {
    let (guard, ended) = mpsc::channel();
    std::thread::spawn(move || {
        if ended.recv_timeout(END_MAX) == Err(mpsc::RecvTimeoutError::Timeout) {
            tracing::error!("not everything ended within {END_MAX:?}; ending anyway");
            super::leave(1);
        }
    });
    guard
}

async fn bind(address: &str, flag: &str) -> Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!("cannot listen on {address}; is it in use? Choose another with {flag} HOST:PORT")
    })
}

/// Keeps histograms small also when nobody reads them.
async fn upkeep(metrics: http::Metrics, mut down: Shutdown) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(UPKEEP) => metrics.run_upkeep(),
            () = ended(&mut down) => return,
        }
    }
}

/// Keeps the process below its memory limit. That this is not possible is an error only when a
/// limit was asked for.
pub(super) fn limit_memory(memory: &Memory) -> Result<()> {
    let Some(bytes) = memory.limit.unwrap_or_default().bytes() else {
        return Ok(());
    };
    ensure!(
        bytes >= MEMORY_MIN,
        "the memory limit must be at least {} MiB",
        MEMORY_MIN >> 20
    );
    let folder = &memory.folder;
    let started = std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .and_then(|()| ruslo_memory::start(bytes, folder))
        .with_context(|| {
            format!(
                "cannot keep state that memory does not hold in {}",
                folder.display()
            )
        });
    match started {
        Err(error) if memory.limit.is_none() => {
            tracing::warn!("there is no memory limit: {error:#}; try --spill-dir");
            Ok(())
        }
        other => other,
    }
}

/// `ruslo serve`: runs until SIGTERM or Ctrl-C.
pub(super) async fn serve(settings: Settings) -> Result<()> {
    let stop = stop_signal()?;
    tokio::pin!(stop);
    limit_memory(&settings.memory)?;
    let running = tokio::select! {
        running = Running::start(&settings) => running?,
        () = &mut stop => return Ok(()),
    };
    announce(&running);
    let ended = tokio::select! {
        () = stop => Ok(()),
        error = running.failed() => Err(error),
    };
    running.stop().await;
    tracing::info!("ended");
    ended
}

/// Logs where the server can be reached.
pub(super) fn announce(running: &Running) {
    if let Some(http) = running.http {
        tracing::info!("metrics on http://{http}/metrics, health on http://{http}/healthz");
    }
    tracing::info!("ready: {}", running.psql_line());
}

/// Resolves at the first SIGTERM or SIGINT; a second one ends the process at once.
///
/// Must be called inside the runtime; signals are caught from the call on.
pub(super) fn stop_signal() -> Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot catch SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot catch SIGINT")?;
    let (first, stopped) = tokio::sync::oneshot::channel();
    tokio::spawn(async move {
        next(&mut terminate, &mut interrupt).await;
        let _ = first.send(());
        let code = next(&mut terminate, &mut interrupt).await;
        eprintln!("ruslo: ended before everything was written out");
        super::leave(128 + code);
    });
    Ok(async move {
        let _ = stopped.await;
    })
}

type Signal = tokio::signal::unix::Signal;

async fn next(terminate: &mut Signal, interrupt: &mut Signal) -> i32 {
    tokio::select! {
        _ = terminate.recv() => SignalKind::terminate().as_raw_value(),
        _ = interrupt.recv() => SignalKind::interrupt().as_raw_value(),
    }
}
