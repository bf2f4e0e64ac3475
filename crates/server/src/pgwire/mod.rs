//! The Postgres wire protocol (version 3.0), simple and extended.
//!
//! ```text
//!   TCP/TLS ─> wire (bounded buffers) ─> frontend (decode) ─> connection ─> engine::Session
//!                                                              │  └ extended: statements, portals
//!   client  <─ wire <────────── backend (messages), rows (text, binary) <──┘
//! ```
//!
//! One task per connection; it owns its [`ruslo_engine::Session`]. pgwire's message codec is used
//! for what we send; its handlers and its decoder are not, because rows are written straight from
//! Arrow arrays in either format, portals suspend, and bytes from outside must never panic.
//! Absent on purpose: COPY FROM, replication, function calls, GSS encryption.

mod backend;
mod binary;
mod cancel;
mod connection;
mod extended;
mod frontend;
mod params;
mod rows;
mod startup;
mod tls;
mod types;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use pgwire::tokio::TlsAcceptor;
use ruslo_engine::Engine;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;

use crate::shutdown::{Shutdown, ended};
use cancel::Cancels;
pub use tls::acceptor as tls_acceptor;

/// After this long without a byte from a silent peer, the kernel asks whether it is still there.
const KEEPALIVE: Duration = Duration::from_secs(60);
/// How long connections have to say goodbye when the server goes down.
const GOODBYE: Duration = Duration::from_secs(5);
/// How long to wait after accept fails, as it does when file descriptors run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What all connections share.
pub struct Server {
    engine: Engine,
    tls: Option<TlsAcceptor>,
    cancels: Arc<Cancels>,
    shutdown: Shutdown,
    connections_max: usize,
    slots: Arc<Semaphore>,
}

impl Server {
    /// `shutdown` turning true ends every connection. With `tls` clients may ask for TLS.
    pub fn new(
        engine: Engine,
        tls: Option<TlsAcceptor>,
        connections_max: usize,
        shutdown: Shutdown,
    ) -> Self {
        Server {
            engine,
            tls,
            cancels: Arc::default(),
            shutdown,
            connections_max,
            slots: Arc::new(Semaphore::new(connections_max)),
        }
    }

    /// Accepts connections until shutdown, then waits a little for the open ones to end.
    pub async fn serve(self, listener: TcpListener) {
        let mut shutdown = self.shutdown.clone();
        let server = Arc::new(self);
        let mut tasks = JoinSet::new();
        loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((socket, _)) => {
                        tasks.spawn(server.clone().connection(socket));
                    }
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept a connection");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
                Some(ended) = tasks.join_next() => report(ended),
                () = ended(&mut shutdown) => break,
            }
        }
        drop(listener);
        let all_ended = async { while tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(GOODBYE, all_ended).await.is_err() {
            tracing::warn!("connections still open at shutdown are cut");
        }
    }

    async fn connection(self: Arc<Self>, socket: TcpStream) {
        if let Err(error) = prepare(&socket) {
            tracing::debug!(%error, "cannot set socket options");
        }
        let _open = Open::new();
        let slot = self.slots.clone().try_acquire_owned().ok();
        if let Err(error) = startup::run(&self, socket, slot).await {
            tracing::debug!(%error, "connection lost");
        }
    }
}

/// A connection's slot; cancel requests need none.
type Slot = Option<OwnedSemaphorePermit>;

fn prepare(socket: &TcpStream) -> std::io::Result<()> {
    socket.set_nodelay(true)?;
    let keepalive = socket2::TcpKeepalive::new()
        .with_time(KEEPALIVE)
        .with_interval(KEEPALIVE / 6);
    socket2::SockRef::from(socket).set_tcp_keepalive(&keepalive)
}

fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a connection's task failed; this is a defect, please report it");
    }
}

/// Counts a connection for as long as it lives, also if its task panics.
struct Open;

impl Open {
    fn new() -> Self {
        metrics::counter!("ruslo_pg_connections_total").increment(1);
        metrics::gauge!("ruslo_pg_connections").increment(1.0);
        Open
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        metrics::gauge!("ruslo_pg_connections").decrement(1.0);
    }
}
