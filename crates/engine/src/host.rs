//! What the engine asks of its surroundings: brokers, systems that sinks write to, a store, and
//! threads for what blocks. The product has the real ones; a simulation stands in for all of them.
//!
//! ```text
//!              product                            simulation
//!   broker     librdkafka                         topics in memory, which may be away
//!   outlet     Redis                              a map, which may be away or not answer
//!   store      a folder, a bucket                 ruslo_state::sim
//!   work       a thread for each thing            tasks of one runtime, in one thread
//! ```

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use ruslo_connector::kafka::{self, KafkaReader};
pub use ruslo_connector::kafka::{
    Gap, KafkaOptions, LaneError, PartitionStatus, Probed, ReaderState, ReaderStatus, StartOffsets,
};
use ruslo_connector::redis::RedisWriter;
pub use ruslo_connector::redis::{RedisOp, RedisOptions, SinkError};
use ruslo_repr::{Error, Result};
use ruslo_state::Store;
use ruslo_state::log::LogFolder;
use tokio::runtime::Handle;

pub type Answer<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The client of a source, and its lanes.
pub type Opened = (Box<dyn Reader>, Vec<Box<dyn Lane>>);

/// Where the engine runs.
#[derive(Clone)]
pub struct Host {
    pub broker: Arc<dyn Broker>,
    pub outlet: Arc<dyn Outlet>,
    /// Taken in place of the one that the configuration names.
    pub store: Option<HostStore>,
    /// Whether what blocks has threads of its own. Without, nothing of a host may block, and
    /// workers go on by their pacers.
    pub threads: bool,
    pub plant: Plant,
}

/// A store, and the folder of its binding log if that is not in the store itself.
#[derive(Clone)]
pub struct HostStore {
    pub store: Store,
    pub log: Option<Arc<dyn LogFolder>>,
}

/// A fault built in on purpose, to show that a simulation finds it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Plant {
    #[default]
    Nothing,
    /// Times are made durable without the offsets they were bound to.
    SkipBinding,
    /// Times count as durable before they are handed to the log.
    AcknowledgeBeforeAppend,
    /// The store's own fault: its log says so before it is synced.
    AcknowledgeBeforeSync,
}

/// Where sources read.
pub trait Broker: Send + Sync {
    /// Where a source begins, see [`kafka::probe`]. May block.
    fn probe(&self, options: &KafkaOptions) -> Result<Probed>;

    /// What can be read of each partition, see [`kafka::watermarks`]. May block.
    fn watermarks(&self, options: &KafkaOptions) -> Result<BTreeMap<i32, (i64, i64)>>;

    /// Reads the partitions of `start`, up to `end` if there is one, see [`KafkaReader::open`].
    fn open(
        &self,
        options: &KafkaOptions,
        name: &str,
        start: &StartOffsets,
        end: Option<&StartOffsets>,
        lanes: usize,
    ) -> Result<Opened>;
}

/// The client of a source. Dropping it closes it.
pub trait Reader: Send + Sync {
    fn status(&self) -> ReaderStatus;
    fn close(&self);
}

/// One worker's share of a source, see [`kafka::Lane`].
pub trait Lane: Send {
    /// Hands up to `max` messages to `take`, each partition's in the order of their offsets.
    fn poll(
        &mut self,
        max: usize,
        timeout: Duration,
        take: &mut dyn FnMut(Polled<'_>),
    ) -> std::result::Result<usize, LaneError>;
    fn next_offsets(&self) -> &StartOffsets;
    fn finished(&self) -> bool;
    fn take_gaps(&mut self) -> Vec<Gap>;
}

/// A message of a topic.
#[derive(Clone, Copy)]
pub struct Polled<'a> {
    pub partition: i32,
    pub offset: i64,
    pub payload: Option<&'a [u8]>,
    pub timestamp_ms: Option<i64>,
}

/// Where sinks write.
pub trait Outlet: Send + Sync {
    /// A connection that is there.
    fn connect<'a>(&'a self, options: &'a RedisOptions) -> Answer<'a, Result<Box<dyn Writer>>>;
    /// A connection that is made when there is something to write.
    fn unconnected(&self, options: &RedisOptions) -> Result<Box<dyn Writer>>;
    /// How much of a view is read at once to be written, in bytes of rows on each worker.
    fn portion_bytes(&self) -> usize {
        1 << 20
    }
}

/// See [`RedisWriter`].
pub trait Writer: Send {
    fn write<'a>(
        &'a mut self,
        ops: &'a [RedisOp],
    ) -> Answer<'a, std::result::Result<(), SinkError>>;
    fn check(&mut self) -> Answer<'_, std::result::Result<(), SinkError>>;
    fn take_restarted(&mut self) -> bool;
}

/// What a host has begun.
pub(crate) enum Running {
    Thread(JoinHandle<()>),
    Task(tokio::task::JoinHandle<()>),
}

impl Host {
    /// Kafka, Redis, and as many threads as are wanted.
    pub(crate) fn real() -> Host {
        Host {
            broker: Arc::new(Kafka),
            outlet: Arc::new(Redis),
            store: None,
            threads: true,
            plant: Plant::Nothing,
        }
    }

    /// Waits for what blocks (connecting, joining threads), off the async threads.
    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        if !self.threads {
            return work();
        }
        let done = tokio::task::spawn_blocking(work).await;
        done.map_err(|_| Error::internal("a background step failed"))?
    }

    /// The same where nobody waits for it.
    pub(crate) fn blocking_beside(&self, work: impl FnOnce() + Send + 'static) {
        match self.threads {
            true => drop(tokio::task::spawn_blocking(work)),
            false => work(),
        }
    }

    /// Runs what blocks between its awaits in a thread of its own. Must be called within the
    /// runtime, which drives what it waits for.
    pub(crate) fn spawn(
        &self,
        name: &str,
        work: impl Future<Output = ()> + Send + 'static,
    ) -> Result<Running> {
        if !self.threads {
            return Ok(Running::Task(tokio::spawn(work)));
        }
        let runtime = Handle::current();
        self.spawn_thread(name, move || runtime.block_on(work))
    }

    pub(crate) fn spawn_thread(
        &self,
        name: &str,
        work: impl FnOnce() + Send + 'static,
    ) -> Result<Running> {
        let thread = std::thread::Builder::new().name(name.into()).spawn(work);
        let failed = |error| Error::internal(format!("cannot start a thread: {error}"));
        thread.map(Running::Thread).map_err(failed)
    }
}

struct Kafka;

impl Broker for Kafka {
    fn probe(&self, options: &KafkaOptions) -> Result<Probed> {
        kafka::probe(options)
    }

    fn watermarks(&self, options: &KafkaOptions) -> Result<BTreeMap<i32, (i64, i64)>> {
        kafka::watermarks(options, &[])
    }

    fn open(
        &self,
        options: &KafkaOptions,
        name: &str,
        start: &StartOffsets,
        end: Option<&StartOffsets>,
        lanes: usize,
    ) -> Result<Opened> {
        let (reader, lanes) = KafkaReader::open(options, name, start, end, lanes)?;
        let lanes = lanes.into_iter().map(|lane| Box::new(lane) as _).collect();
        Ok((Box::new(reader), lanes))
    }
}

impl Reader for KafkaReader {
    fn status(&self) -> ReaderStatus {
        KafkaReader::status(self)
    }

    fn close(&self) {
        KafkaReader::close(self);
    }
}

impl Lane for kafka::Lane {
    fn poll(
        &mut self,
        max: usize,
        timeout: Duration,
        take: &mut dyn FnMut(Polled<'_>),
    ) -> std::result::Result<usize, LaneError> {
        kafka::Lane::poll(self, max, timeout, &mut |message| {
            take(Polled {
                partition: message.partition(),
                offset: message.offset(),
                payload: message.payload(),
                timestamp_ms: message.timestamp_ms(),
            });
        })
    }

    fn next_offsets(&self) -> &StartOffsets {
        kafka::Lane::next_offsets(self)
    }

    fn finished(&self) -> bool {
        kafka::Lane::finished(self)
    }

    fn take_gaps(&mut self) -> Vec<Gap> {
        kafka::Lane::take_gaps(self)
    }
}

struct Redis;

impl Outlet for Redis {
    fn connect<'a>(&'a self, options: &'a RedisOptions) -> Answer<'a, Result<Box<dyn Writer>>> {
        Box::pin(async move { Ok(Box::new(RedisWriter::connect(options).await?) as _) })
    }

    fn unconnected(&self, options: &RedisOptions) -> Result<Box<dyn Writer>> {
        Ok(Box::new(RedisWriter::unconnected(options)?))
    }
}

impl Writer for RedisWriter {
    fn write<'a>(
        &'a mut self,
        ops: &'a [RedisOp],
    ) -> Answer<'a, std::result::Result<(), SinkError>> {
        Box::pin(RedisWriter::write(self, ops))
    }

    fn check(&mut self) -> Answer<'_, std::result::Result<(), SinkError>> {
        Box::pin(RedisWriter::check(self))
    }

    fn take_restarted(&mut self) -> bool {
        RedisWriter::take_restarted(self)
    }
}
