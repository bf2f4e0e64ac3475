//! Writes batches to Redis and gets them there through outages.
//!
//! ```text
//!   ops ──> pipelines of at most 1,000 commands or 1 MiB ──> server
//!                 │ error or no answer: the connection is given up
//!                 └──> backoff 50 ms … 5 s ──> new connection ──> the whole batch again
//! ```
//!
//! A batch is a set of final values, so writing it twice does no harm. What would do harm is a
//! late write of an older value: a connection given up without an answer may have commands in
//! flight. So the next connection first makes the server drop the one before it, named by id and
//! address, before it writes anything. A writer owns its connection alone and has one pipeline
//! under way at a time, which keeps order and bounds memory.
//!
//! A server that was started anew, or another one in its place, may not have what was written
//! before. It tells a run id that is new with every start: the writer compares, its owner decides.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt, stream};
use redis::aio::MultiplexedConnection;
use redis::cluster::{ClusterClient, ClusterConfig};
use redis::cluster_async::ClusterConnection;
use redis::{AsyncConnectionConfig, Client, Cmd, ErrorKind, Pipeline, RedisError};
use ruslo_repr::{Error, ErrorKind as Kind};

use super::RedisOptions;

const PIPELINE_COMMANDS_MAX: usize = 1_000;
const PIPELINE_BYTES_MAX: usize = 1 << 20;
const CLUSTER_COMMANDS_IN_FLIGHT: usize = 128;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);
const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// One change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RedisOp {
    Set { key: Vec<u8>, value: Vec<u8> },
    Del { key: Vec<u8> },
}

impl RedisOp {
    pub fn key(&self) -> &[u8] {
        match self {
            RedisOp::Set { key, .. } | RedisOp::Del { key } => key,
        }
    }

    fn size(&self) -> usize {
        match self {
            RedisOp::Set { key, value } => key.len() + value.len(),
            RedisOp::Del { key } => key.len(),
        }
    }

    fn command(&self) -> Cmd {
        match self {
            RedisOp::Set { key, value } => Cmd::set(&key[..], &value[..]),
            RedisOp::Del { key } => Cmd::del(&key[..]),
        }
    }
}

/// Why a batch was not written, without secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SinkError {
    pub message: String,
    /// Whether writing the batch again can help.
    pub retry: bool,
}

impl fmt::Display for SinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for SinkError {}

impl From<SinkError> for Error {
    fn from(error: SinkError) -> Self {
        Error::new(Kind::External, error.message)
    }
}

/// How writing goes, told while [`RedisWriter::write_with_retry`] is at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SinkState {
    /// The last batch got through after one that did not.
    Running,
    /// The `attempt`th try failed; the next comes after a pause.
    Retrying { attempt: u32, error: String },
}

/// A connection to one Redis or one cluster. To be used by one task at a time.
pub struct RedisWriter {
    options: RedisOptions,
    target: Target,
    connection: Option<Connection>,
    /// Connections that were given up and may have commands in flight.
    abandoned: Vec<ServerSide>,
    run_id: Option<String>,
    restarted: bool,
}

enum Target {
    Single(Box<Client>),
    Cluster(Box<ClusterClient>),
}

enum Connection {
    Single(MultiplexedConnection, Option<ServerSide>),
    Cluster(ClusterConnection),
}

/// How the server knows one of our connections. After a restart of the server the id may be
/// somebody else's; together with the address it is not.
#[derive(Clone, Debug)]
struct ServerSide {
    id: String,
    address: String,
}

impl RedisWriter {
    /// Connects and asks for a sign of life; fails when the server cannot be reached, refuses the
    /// user, or does not pass for itself (TLS).
    pub async fn connect(options: &RedisOptions) -> Result<Self, Error> {
        let mut writer = Self::unconnected(options)?;
        writer.reconnect().await?;
        if writer.run_id.is_none() {
            tracing::info!(
                server = writer.options.address(),
                "INFO does not tell a run id: a server that comes back empty is not noticed"
            );
        }
        Ok(writer)
    }

    /// A writer that connects when it first has something to do.
    pub fn unconnected(options: &RedisOptions) -> Result<Self, Error> {
        install_crypto_provider();
        let target = Target::new(options).map_err(|error| describe(&error, options))?;
        Ok(RedisWriter {
            options: options.clone(),
            target,
            connection: None,
            abandoned: Vec::new(),
            run_id: None,
            restarted: false,
        })
    }

    /// Whether the server was started anew since the last call. Never true of a cluster, nor of a
    /// server that keeps its run id from the user.
    pub fn take_restarted(&mut self) -> bool {
        std::mem::take(&mut self.restarted)
    }

    /// Asks for a sign of life. Connects anew where the connection is gone.
    pub async fn check(&mut self) -> Result<(), SinkError> {
        if self.connection.is_none() {
            return self.reconnect().await;
        }
        let ping = Cmd::ping();
        let answered = match self.connection.as_mut() {
            Some(Connection::Single(connection, _)) => ping.exec_async(connection).await,
            Some(Connection::Cluster(connection)) => ping.exec_async(connection).await,
            None => return Ok(()),
        };
        answered.map_err(|error| {
            self.give_up_connection();
            describe(&error, &self.options)
        })
    }

    /// Writes all of `ops` in order, or fails; what was written then is unknown, and the whole
    /// batch is to be written again. Connects anew where the connection is gone.
    pub async fn write(&mut self, ops: &[RedisOp]) -> Result<(), SinkError> {
        if ops.is_empty() {
            return Ok(());
        }
        if self.connection.is_none() {
            self.reconnect().await?;
        }
        let written = match self.connection.as_mut() {
            Some(Connection::Single(connection, _)) => write_pipelined(connection, ops).await,
            Some(Connection::Cluster(connection)) => write_to_cluster(connection, ops).await,
            None => return Ok(()),
        };
        written.map_err(|error| {
            self.give_up_connection();
            describe(&error, &self.options)
        })
    }

    /// Writes all of `ops`, again and again until they are through, pausing 50 ms to 5 s between
    /// tries. Fails only where trying again cannot help.
    ///
    /// To give up, drop the future: the batch is then written, partly written or not, and the
    /// writer can still be used. `on_state` hears of every failure and of the recovery.
    pub async fn write_with_retry(
        &mut self,
        ops: &[RedisOp],
        on_state: &mut (dyn FnMut(SinkState) + Send),
    ) -> Result<(), SinkError> {
        let mut backoff = BACKOFF_MIN;
        let mut attempt: u32 = 0;
        loop {
            match self.write(ops).await {
                Ok(()) => {
                    if attempt > 0 {
                        on_state(SinkState::Running);
                    }
                    return Ok(());
                }
                Err(error) if !error.retry => return Err(error),
                Err(SinkError { message: error, .. }) => {
                    attempt = attempt.saturating_add(1);
                    on_state(SinkState::Retrying { attempt, error });
                }
            }
            tokio::time::sleep(backoff).await;
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }

    fn give_up_connection(&mut self) {
        if let Some(Connection::Single(_, Some(server_side))) = self.connection.take() {
            self.abandoned.push(server_side);
        }
    }

    async fn reconnect(&mut self) -> Result<(), SinkError> {
        let connected = match &self.target {
            Target::Single(client) => connect_single(client, &self.abandoned).await,
            Target::Cluster(client) => connect_cluster(client).await,
        };
        let (connection, run_id) = connected.map_err(|error| {
            let mut described = describe(&error, &self.options);
            described.message.push_str(self.options.tls_hint(&error));
            described
        })?;
        self.connection = Some(connection);
        self.abandoned.clear();
        if let Some(run_id) = run_id {
            let before = self.run_id.replace(run_id);
            self.restarted |= before.is_some() && before != self.run_id;
        }
        Ok(())
    }
}

impl Target {
    fn new(options: &RedisOptions) -> Result<Self, RedisError> {
        if options.is_cluster() {
            let urls: Vec<&str> = options.urls().collect();
            return Ok(Target::Cluster(Box::new(ClusterClient::new(urls)?)));
        }
        let url = options.urls().next().unwrap_or_default();
        Ok(Target::Single(Box::new(Client::open(url)?)))
    }
}

/// The connection, and the server's run id if it tells.
type Connected = (Connection, Option<String>);

async fn connect_single(
    client: &Client,
    abandoned: &[ServerSide],
) -> Result<Connected, RedisError> {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECT_TIMEOUT))
        .set_response_timeout(Some(RESPONSE_TIMEOUT));
    let mut connection = client
        .get_multiplexed_async_connection_with_config(&config)
        .await?;
    Cmd::ping().exec_async(&mut connection).await?;
    for ServerSide { id, address } in abandoned {
        let mut kill = redis::cmd("CLIENT");
        kill.arg("KILL").arg("ID").arg(id).arg("ADDR").arg(address);
        survive_refusal(kill.query_async::<i64>(&mut connection).await)?;
    }
    let mut info = redis::cmd("CLIENT");
    let info = info
        .arg("INFO")
        .query_async::<String>(&mut connection)
        .await;
    let server_side = survive_refusal(info)?.and_then(|info| ServerSide::parse(&info));
    let mut info = redis::cmd("INFO");
    let info = info
        .arg("server")
        .query_async::<String>(&mut connection)
        .await;
    let run_id = survive_refusal(info)?.and_then(|info| run_id(&info));
    Ok((Connection::Single(connection, server_side), run_id))
}

fn run_id(info: &str) -> Option<String> {
    let mut ids = info.lines().filter_map(|line| line.strip_prefix("run_id:"));
    ids.next().map(|id| id.trim().to_owned())
}

/// An old server or a user with few rights may refuse the commands that only add safety.
fn survive_refusal<T>(answer: Result<T, RedisError>) -> Result<Option<T>, RedisError> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.is_unrecoverable_error() || error.is_timeout() => Err(error),
        Err(_) => Ok(None),
    }
}

impl ServerSide {
    /// Reads `id=3 addr=127.0.0.1:49152 laddr=…`.
    fn parse(info: &str) -> Option<Self> {
        let field = |name: &str| {
            let fields = info
                .split_ascii_whitespace()
                .filter_map(|field| field.split_once('='));
            let mut values = fields
                .filter(|(field, _)| *field == name)
                .map(|(_, value)| value);
            values.next().map(str::to_owned)
        };
        Some(ServerSide {
            id: field("id")?,
            address: field("addr")?,
        })
    }
}

async fn connect_cluster(client: &ClusterClient) -> Result<Connected, RedisError> {
    let config = ClusterConfig::new()
        .set_connection_timeout(CONNECT_TIMEOUT)
        .set_response_timeout(RESPONSE_TIMEOUT);
    let mut connection = client.get_async_connection_with_config(config).await?;
    Cmd::ping().exec_async(&mut connection).await?;
    Ok((Connection::Cluster(connection), None))
}

async fn write_pipelined(
    connection: &mut MultiplexedConnection,
    ops: &[RedisOp],
) -> Result<(), RedisError> {
    let mut rest = ops;
    while !rest.is_empty() {
        let (chunk, later) = rest.split_at(chunk_length(rest));
        let mut pipeline = Pipeline::with_capacity(chunk.len());
        for op in chunk {
            pipeline.add_command(op.command()).ignore();
        }
        pipeline.exec_async(connection).await?;
        rest = later;
    }
    Ok(())
}

/// How many of the first ops go into one pipeline; at least one, however large.
fn chunk_length(ops: &[RedisOp]) -> usize {
    let mut bytes = 0;
    let fits = |op: &&RedisOp| {
        bytes += op.size();
        bytes <= PIPELINE_BYTES_MAX
    };
    ops.iter()
        .take(PIPELINE_COMMANDS_MAX)
        .take_while(fits)
        .count()
        .max(1)
}

/// A cluster's pipeline may hold keys of one slot only, so commands go one by one, many at a
/// time. Their order is not kept: only the last change of each key is sent.
async fn write_to_cluster(
    connection: &ClusterConnection,
    ops: &[RedisOp],
) -> Result<(), RedisError> {
    let last: HashMap<&[u8], &RedisOp> = ops.iter().map(|op| (op.key(), op)).collect();
    let commands: Vec<Cmd> = last.into_values().map(RedisOp::command).collect();
    stream::iter(commands)
        .map(|command| {
            let mut connection = connection.clone();
            async move { command.exec_async(&mut connection).await }
        })
        .buffer_unordered(CLUSTER_COMMANDS_IN_FLIGHT)
        .try_collect()
        .await
}

fn describe(error: &RedisError, options: &RedisOptions) -> SinkError {
    let retry = error.kind() != ErrorKind::InvalidClientConfig;
    let reason = options.scrub(&error.to_string());
    SinkError {
        message: format!("cannot write to Redis at {}: {reason}", options.address()),
        retry,
    }
}

/// rustls wants to be told which cryptography to use where more than one is compiled in.
fn install_crypto_provider() {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // A second installer at the same time chose the same.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_cut_by_count_and_by_size() {
        let set = |size| RedisOp::Set {
            key: b"k".to_vec(),
            value: vec![b'v'; size],
        };
        assert_eq!(chunk_length(&vec![set(1); 2_500]), PIPELINE_COMMANDS_MAX);
        assert_eq!(chunk_length(&vec![set(300_000); 10]), 3);
        assert_eq!(chunk_length(&[set(5_000_000), set(1)]), 1);
    }

    #[test]
    fn a_connection_is_known_by_id_and_address() {
        let info = "id=7 addr=127.0.0.1:49152 laddr=127.0.0.1:6379 fd=8 name= db=0\n";
        let parsed = ServerSide::parse(info).unwrap();
        assert_eq!(
            (parsed.id.as_str(), parsed.address.as_str()),
            ("7", "127.0.0.1:49152")
        );
        assert!(ServerSide::parse("nothing").is_none());
        let info = "# Server\r\nredis_version:8.0.0\r\nrun_id:ab12\r\ntcp_port:1\r\n";
        assert_eq!(run_id(info).as_deref(), Some("ab12"));
        assert_eq!(run_id("# Server"), None);
    }
}
