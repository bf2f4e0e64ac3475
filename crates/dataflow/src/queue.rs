//! Bounded queues through which ingest threads hand decoded batches to a worker.
//!
//! There is one live queue per (worker, source) and one hydration queue per (worker, view,
//! source). Either end may ask for a queue first: the registry makes it. A queue is closed when
//! its consumer is gone, and a closed queue stays closed, so that a late producer never waits
//! for a worker that will not come.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::Thread;

use arrow::record_batch::RecordBatch;
use ruslo_repr::{ObjectId, Time};

/// A producer waits while a queue holds more than this many rows or bytes.
const ROWS_MAX: usize = 256 * 1024;
const BYTES_MAX: usize = 32 << 20;
/// The same of a queue of the past. There is one for each partition or durable point, and nobody
/// waits for a Close to take from it.
const PAST_BYTES_MAX: usize = 4 << 20;

/// Decoded messages of one source.
#[derive(Clone, Debug)]
pub struct SourceBatch {
    pub batch: RecordBatch,
    /// The source's column number of each array in `batch`.
    pub columns: Vec<usize>,
    /// Partitions and the offset after the last message that is in here.
    pub offsets: Vec<(i32, i64)>,
    /// The exact time of the rows, in a hydration queue; None: the view's first time.
    pub time: Option<Time>,
}

/// The consumer is gone: the view was dropped or the workers are shutting down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed;

impl std::fmt::Display for Closed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the queue's consumer is gone")
    }
}

impl std::error::Error for Closed {}

#[derive(Default)]
struct State {
    batches: VecDeque<(SourceBatch, usize)>,
    rows: usize,
    bytes: usize,
    finished: bool,
    closed: bool,
}

struct Inner {
    state: Mutex<State>,
    space: Condvar,
    /// The worker to wake on a push; live queues are drained by the next Close and wake nobody.
    wake: Option<Waker>,
}

/// Wakes one worker, also before it has started.
#[derive(Clone, Default)]
pub(crate) struct Waker(Arc<std::sync::OnceLock<Thread>>);

impl Waker {
    pub(crate) fn register_current_thread(&self) {
        let _ = self.0.set(std::thread::current());
    }

    pub(crate) fn wake(&self) {
        if let Some(thread) = self.0.get() {
            thread.unpark();
        }
    }
}

/// A queue of batches from one producer to one worker.
#[derive(Clone)]
pub struct BatchQueue(Arc<Inner>);

impl BatchQueue {
    fn new(wake: Option<Waker>, closed: bool) -> Self {
        let state = State {
            closed,
            ..State::default()
        };
        BatchQueue(Arc::new(Inner {
            state: Mutex::new(state),
            space: Condvar::new(),
            wake,
        }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.0.state)
    }

    /// Appends a batch; waits while the queue is full, and fails once the consumer is gone.
    pub fn push(&self, batch: SourceBatch) -> Result<(), Closed> {
        let bytes = batch.batch.get_array_memory_size();
        let bytes_max = match self.0.wake {
            Some(_) => PAST_BYTES_MAX,
            None => BYTES_MAX,
        };
        let mut state = self.lock();
        while !state.closed && (state.rows > ROWS_MAX || state.bytes > bytes_max) {
            let waited = self.0.space.wait(state);
            state = waited.unwrap_or_else(PoisonError::into_inner);
        }
        if state.closed {
            return Err(Closed);
        }
        state.rows += batch.batch.num_rows();
        state.bytes += bytes;
        state.batches.push_back((batch, bytes));
        let first = state.batches.len() == 1;
        drop(state);
        if first && let Some(waker) = &self.0.wake {
            waker.wake();
        }
        Ok(())
    }

    /// Bytes of the batches that wait.
    pub fn bytes(&self) -> usize {
        self.lock().bytes
    }

    /// Says that no batch will follow: the hydration is complete on this worker.
    pub fn finish(&self) {
        self.lock().finished = true;
        if let Some(waker) = &self.0.wake {
            waker.wake();
        }
    }

    /// Ends the queue at once: what it holds is dropped and every push fails.
    pub fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.batches.clear();
        state.rows = 0;
        state.bytes = 0;
        drop(state);
        self.0.space.notify_all();
    }

    /// Takes up to `max` batches.
    pub(crate) fn take(&self, max: usize) -> Vec<SourceBatch> {
        let mut state = self.lock();
        let count = state.batches.len().min(max);
        let mut taken = Vec::with_capacity(count);
        for _ in 0..count {
            if let Some((batch, bytes)) = state.batches.pop_front() {
                state.rows -= batch.batch.num_rows();
                state.bytes -= bytes;
                taken.push(batch);
            }
        }
        drop(state);
        if count > 0 {
            self.0.space.notify_all();
        }
        taken
    }

    /// Whether everything that will ever be pushed has been taken.
    pub(crate) fn is_exhausted(&self) -> bool {
        let state = self.lock();
        state.closed || (state.finished && state.batches.is_empty())
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum QueueKey {
    Live(usize, ObjectId),
    Hydration(usize, ObjectId, ObjectId),
    /// The state of one durable point of an object.
    Restore(usize, ObjectId, u32),
}

#[derive(Default)]
struct Queues {
    open: HashMap<QueueKey, BatchQueue>,
    /// Objects that one worker has dropped; ids are never used again.
    dropped: HashSet<(usize, ObjectId)>,
    shut_down: bool,
}

/// All queues of this process.
#[derive(Default)]
pub(crate) struct Registry {
    queues: Mutex<Queues>,
}

impl Registry {
    pub(crate) fn live(&self, worker: usize, source: ObjectId) -> BatchQueue {
        self.get(QueueKey::Live(worker, source), worker, source, None)
    }

    pub(crate) fn hydration(
        &self,
        worker: usize,
        view: ObjectId,
        source: ObjectId,
        wake: Waker,
    ) -> BatchQueue {
        let key = QueueKey::Hydration(worker, view, source);
        self.get(key, worker, view, Some(wake))
    }

    pub(crate) fn restore(
        &self,
        worker: usize,
        object: ObjectId,
        point: u32,
        wake: Waker,
    ) -> BatchQueue {
        let key = QueueKey::Restore(worker, object, point);
        self.get(key, worker, object, Some(wake))
    }

    fn get(
        &self,
        key: QueueKey,
        worker: usize,
        owner: ObjectId,
        wake: Option<Waker>,
    ) -> BatchQueue {
        let mut queues = lock(&self.queues);
        if queues.shut_down || queues.dropped.contains(&(worker, owner)) {
            return BatchQueue::new(None, true);
        }
        let queue = queues.open.entry(key);
        queue
            .or_insert_with(|| BatchQueue::new(wake, false))
            .clone()
    }

    /// Closes the queues of a source (live) or of a view (hydrations) on one worker.
    pub(crate) fn close(&self, worker: usize, owner: ObjectId) {
        let mut queues = lock(&self.queues);
        queues.dropped.insert((worker, owner));
        queues.open.retain(|key, queue| {
            let owned = match *key {
                QueueKey::Live(w, source) => w == worker && source == owner,
                QueueKey::Hydration(w, view, _) => w == worker && view == owner,
                QueueKey::Restore(w, object, _) => w == worker && object == owner,
            };
            if owned {
                queue.close();
            }
            !owned
        });
    }

    /// Forgets one hydration queue that is exhausted.
    pub(crate) fn forget_hydration(&self, worker: usize, view: ObjectId, source: ObjectId) {
        self.forget(QueueKey::Hydration(worker, view, source));
    }

    /// Forgets one restore queue that is exhausted.
    pub(crate) fn forget_restore(&self, worker: usize, object: ObjectId, point: u32) {
        self.forget(QueueKey::Restore(worker, object, point));
    }

    fn forget(&self, key: QueueKey) {
        if let Some(queue) = lock(&self.queues).open.remove(&key) {
            queue.close();
        }
    }

    pub(crate) fn shut_down(&self) {
        let mut queues = lock(&self.queues);
        queues.shut_down = true;
        queues.open.drain().for_each(|(_, queue)| queue.close());
    }
}

/// A lock that a panic elsewhere does not take away: the state is valid at every step.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
