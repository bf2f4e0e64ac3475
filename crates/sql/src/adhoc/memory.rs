//! How much memory one-time queries may take, and where the rest of what they hold goes.
//!
//! ```text
//!   sorts, groups     beyond the query's share: written out as spilled runs, then merged
//!   the rest of it    beyond the share: run again, with another plan where there is one (frugal.rs)
//!                     beyond it again, or where the process runs short: error 53200
//! ```
//!
//! A spilled run is no file of its own but a list of large pieces of memory: the process's
//! allocator knows whether they are better in a file.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use bytes::Bytes;
use datafusion::common::Result as DfResult;
use datafusion::execution::disk_manager::DiskManagerBuilder;
use datafusion::execution::memory_pool::{
    FairSpillPool, GreedyMemoryPool, MemoryConsumer, MemoryPool, MemoryReservation,
};
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::execution::spill_file::{SpillFile, SpillWriter, TempFileFactory};
use futures::Stream;
use parking_lot::Mutex;
use ruslo_repr::{Error, ErrorKind, Result};

use crate::error::from_df;

/// The part of the process's memory limit that queries may take for their work.
const PART_OF_LIMIT: usize = 8;
/// What a query has in any case.
const SHARE_MIN: usize = 4 << 20;
/// The part of a query's share that a sort keeps for merging what it spilled.
const PART_TO_MERGE: usize = 16;
const TO_MERGE_MAX: usize = 10 << 20;
/// Spilled runs that are merged at once: a sort would else leave nothing to another beside it.
const MERGED_AT_ONCE: usize = 4;
/// Bytes of a piece of a spilled run, and of results that are put together.
const PIECE: usize = 1 << 20;

/// What one-time queries may take of memory. Clones are the same.
#[derive(Clone, Debug)]
pub struct QueryMemory {
    /// Bytes; None: no limit.
    limit: Option<usize>,
    running: Arc<AtomicUsize>,
    runtime: RuntimeEnv,
}

impl QueryMemory {
    /// For a process that may take `limit` bytes in all; None: as much as it wants.
    pub fn new(limit: Option<u64>) -> Result<QueryMemory> {
        let disk = DiskManagerBuilder::default()
            .with_temp_file_factory(Arc::new(Pieces))
            .with_max_spill_merge_fan_in(MERGED_AT_ONCE);
        let runtime = RuntimeEnvBuilder::new().with_disk_manager_builder(disk);
        let limit = limit.map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
        Ok(QueryMemory {
            limit: limit.map(|bytes| bytes / PART_OF_LIMIT),
            running: Arc::default(),
            runtime: runtime.build().map_err(from_df)?,
        })
    }

    /// The share of a query that begins now: all there is for the first, half of it for one that
    /// comes while another runs, and so on.
    pub(super) fn share(&self) -> Share {
        let running = self.running.fetch_add(1, Ordering::Relaxed) + 1;
        let bytes = self.limit.map(|limit| (limit / running).max(SHARE_MIN));
        let mut runtime = self.runtime.clone();
        if let Some(bytes) = bytes {
            runtime.memory_pool = Arc::new(Parts::new(bytes));
        }
        Share {
            bytes,
            runtime: Arc::new(runtime),
            running: self.running.clone(),
            heap_before: ruslo_memory::usage().heap,
        }
    }
}

/// What one query may take of memory, as long as it runs.
pub(super) struct Share {
    bytes: Option<usize>,
    pub(super) runtime: Arc<RuntimeEnv>,
    running: Arc<AtomicUsize>,
    /// Bytes of the process's heap when the query began.
    heap_before: u64,
}

impl Share {
    /// Bytes that a sort keeps for merging.
    pub(super) fn to_merge(&self) -> usize {
        let part = self.bytes.map_or(TO_MERGE_MAX, |b| b / PART_TO_MERGE);
        part.min(TO_MERGE_MAX)
    }

    /// `work`, or an error as soon as it is seen to take more memory than the process has. What
    /// operators do not count is seen in this way too.
    pub(super) async fn bound<T>(&self, work: impl Future<Output = T>) -> Result<T> {
        let mut work = std::pin::pin!(work);
        std::future::poll_fn(|context| match ruslo_memory::must_end(self.heap_before) {
            true => Poll::Ready(Err(out_of_memory())),
            false => work.as_mut().poll(context).map(Ok),
        })
        .await
    }

    /// An empty result of the query.
    pub(super) fn results(&self) -> Results {
        Results {
            whole: vec![],
            small: vec![],
            small_bytes: 0,
            is_limited: self.bytes.is_some(),
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.running.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A query's memory: a quarter for the rows of operators that can spill, a fair part for each; the
/// rest for what cannot. A sort needs some of that: for all its rows the keys, to merge them.
#[derive(Debug)]
struct Parts {
    spillable: FairSpillPool,
    other: GreedyMemoryPool,
}

impl Parts {
    fn new(bytes: usize) -> Parts {
        Parts {
            spillable: FairSpillPool::new(bytes / 4),
            other: GreedyMemoryPool::new(bytes / 4 * 3),
        }
    }

    fn of(&self, consumer: &MemoryConsumer) -> &dyn MemoryPool {
        match consumer.can_spill() {
            true => &self.spillable,
            false => &self.other,
        }
    }
}

impl fmt::Display for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}", self.spillable, self.other)
    }
}

impl MemoryPool for Parts {
    fn name(&self) -> &str {
        "parts"
    }

    fn register(&self, consumer: &MemoryConsumer) {
        self.of(consumer).register(consumer);
    }

    fn unregister(&self, consumer: &MemoryConsumer) {
        self.of(consumer).unregister(consumer);
    }

    fn grow(&self, reservation: &MemoryReservation, additional: usize) {
        self.of(reservation.consumer())
            .grow(reservation, additional);
    }

    fn shrink(&self, reservation: &MemoryReservation, shrink: usize) {
        self.of(reservation.consumer()).shrink(reservation, shrink);
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> DfResult<()> {
        self.of(reservation.consumer())
            .try_grow(reservation, additional)
    }

    fn reserved(&self) -> usize {
        self.spillable.reserved() + self.other.reserved()
    }
}

/// The error of a query that needs more than there is.
pub(crate) fn out_of_memory() -> Error {
    Error::new(
        ErrorKind::OutOfMemory,
        "the query needs more memory than there is",
    )
    .with_hint(
        "Read less, with WHERE, LIMIT or fewer columns; let a materialized view keep the result; \
         or raise --memory-limit.",
    )
}

/// The rows of a result, in batches that are large pieces once there are many.
pub(super) struct Results {
    whole: Vec<RecordBatch>,
    small: Vec<RecordBatch>,
    small_bytes: usize,
    is_limited: bool,
}

impl Results {
    pub(super) fn push(&mut self, batch: RecordBatch) -> Result<()> {
        let bytes = batch.get_array_memory_size();
        if !self.is_limited || bytes >= PIECE {
            self.whole.append(&mut self.small);
            self.small_bytes = 0;
            self.whole.push(batch);
            return Ok(());
        }
        self.small.push(batch);
        self.small_bytes += bytes;
        if self.small_bytes >= PIECE {
            let schema = self.small[0].schema();
            self.whole.push(concat_batches(&schema, &self.small)?);
            self.small.clear();
            self.small_bytes = 0;
        }
        Ok(())
    }

    pub(super) fn finish(mut self) -> Vec<RecordBatch> {
        self.whole.append(&mut self.small);
        self.whole
    }
}

/// Makes spilled runs.
struct Pieces;

impl TempFileFactory for Pieces {
    fn create_temp_file(&self, _description: &str) -> DfResult<Arc<dyn SpillFile>> {
        Ok(Arc::new(Run::default()))
    }
}

/// A spilled run: pieces of bytes, in order.
#[derive(Default)]
struct Run {
    pieces: Arc<Mutex<Vec<Bytes>>>,
}

impl SpillFile for Run {
    fn size(&self) -> Option<u64> {
        let pieces = self.pieces.lock();
        Some(pieces.iter().map(|piece| piece.len() as u64).sum())
    }

    fn read_stream(&self) -> DfResult<Pin<Box<dyn Stream<Item = DfResult<Bytes>> + Send>>> {
        let pieces = self.pieces.lock().clone();
        Ok(Box::pin(futures::stream::iter(pieces.into_iter().map(Ok))))
    }

    fn open_writer(&self) -> DfResult<Box<dyn SpillWriter>> {
        Ok(Box::new(RunWriter {
            pieces: self.pieces.clone(),
            piece: vec![],
        }))
    }
}

/// Fills one piece after the other.
struct RunWriter {
    pieces: Arc<Mutex<Vec<Bytes>>>,
    piece: Vec<u8>,
}

impl io::Write for RunWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.piece.is_empty() {
            self.piece.reserve_exact(PIECE);
        }
        let taken = bytes.len().min(PIECE - self.piece.len());
        self.piece.extend_from_slice(&bytes[..taken]);
        if self.piece.len() == PIECE {
            self.flush()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        if !self.piece.is_empty() {
            let piece = std::mem::take(&mut self.piece);
            self.pieces.lock().push(Bytes::from(piece));
        }
        Ok(())
    }
}

impl SpillWriter for RunWriter {
    fn finish(&mut self) -> DfResult<()> {
        Ok(io::Write::flush(self)?)
    }
}
