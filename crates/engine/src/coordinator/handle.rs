//! The coordinator as others see it: what can be asked of it.

use std::sync::Arc;
use std::time::Duration;

use ruslo_dataflow::{Command, ObjectStats, Place, Portion, Response, Workers};
use ruslo_repr::{
    CountedRows, Diff, Error, ErrorKind, ObjectId, Plan, Result, RowBytes, Schema, Time,
};
use tokio::sync::{Notify, mpsc, oneshot, watch};

use super::{State, Told, run};
use crate::backpressure::STATEMENT_WAIT_MAX;
use crate::durable::{Appender, Bound, Change, CheckpointEvent, Image, LogEvent, Part};

/// Changes of a relation's rows, which are in arranged order.
pub(crate) type RowChanges = Vec<(RowBytes, Diff)>;

/// Where a view begins: its first time, and how far each source partition was bound at it.
pub(crate) struct ViewStart {
    pub(crate) as_of: Time,
    pub(crate) bound: Bound,
}

/// Where a coordinator begins: with nothing, or where the server before it ended.
#[derive(Default)]
pub(crate) struct Beginning {
    /// The last time that may have been seen, and what was bound and in the catalog then.
    pub(crate) last: Time,
    pub(crate) bound: Bound,
    pub(crate) image: Image,
    /// What makes times durable, and what it tells. None: nothing is.
    pub(crate) log: Option<(Appender, mpsc::UnboundedReceiver<LogEvent>)>,
    /// The time of the last checkpoint.
    pub(crate) checkpoint: Time,
}

/// Where checkpoints go, and how often they are due.
pub(crate) struct CheckpointEnds {
    pub(crate) parts: mpsc::UnboundedSender<Part>,
    pub(crate) events: mpsc::UnboundedReceiver<CheckpointEvent>,
    pub(crate) interval: Duration,
}

/// One time of the past, to be gone through again.
pub(crate) struct Replayed {
    pub(crate) time: Time,
    pub(crate) rows: Vec<(ObjectId, RowChanges)>,
}

/// Changes of a view for a sink; `upper` is per worker.
pub(crate) struct SinkChanges {
    pub(crate) worker: usize,
    pub(crate) updates: Vec<(RowBytes, Time, Diff)>,
    pub(crate) upper: Time,
}

/// What to peek; see [`Command::Peek`].
pub(crate) struct PeekTarget {
    pub(crate) id: ObjectId,
    pub(crate) errors: bool,
    pub(crate) keys: Option<Vec<RowBytes>>,
    pub(crate) limit: Option<usize>,
    pub(crate) portion: Option<Portion>,
}

/// What a peek found on all workers.
#[derive(Default)]
pub(crate) struct Peeked {
    pub(crate) rows: CountedRows,
    /// Of a portion: where the first worker left off. Rows beyond it may be missing.
    pub(crate) left_off: Option<Place>,
}

pub(crate) enum Request {
    CreateSource(ObjectId),
    /// Answered with the first time at which the table can be read.
    CreateTable {
        id: ObjectId,
        schema: Schema,
        key: Vec<usize>,
        reply: oneshot::Sender<Time>,
    },
    CreateView {
        id: ObjectId,
        name: String,
        plan: Plan,
        key: Vec<usize>,
        hydrate: Vec<ObjectId>,
        reply: oneshot::Sender<ViewStart>,
    },
    /// Answered when every worker has the view's first time complete.
    WaitHydrated {
        id: ObjectId,
        reply: oneshot::Sender<Result<()>>,
    },
    CreateSink {
        id: ObjectId,
        from: ObjectId,
        /// The sink starts with all that is there at this or a later time.
        at_least: Time,
        /// Ends when `from` is dropped.
        changes: mpsc::UnboundedSender<SinkChanges>,
    },
    Drop(Vec<ObjectId>),
    /// Brings a table or view of the server before back, as of a time of the past.
    Recover(Command),
    /// Goes through times of the past again; what they hold must be there already. The last ones
    /// have a `reply`, answered when every worker has closed them: from then on live input is of a
    /// time that gets a binding.
    Replay {
        times: Vec<Replayed>,
        reply: Option<oneshot::Sender<()>>,
    },
    /// From now on there are checkpoints: everything of the server before is back.
    TakeCheckpoints(CheckpointEnds),
    /// Answered when everything visible now is in a checkpoint.
    CheckpointNow(oneshot::Sender<()>),
    /// Ends everything: the server cannot go on.
    Fail(Error),
    /// Makes changes of the catalog durable; answered with their time.
    Record {
        changes: Vec<Change>,
        reply: oneshot::Sender<Time>,
    },
    /// Answered with the rows' time once that time is bound.
    Write {
        table: ObjectId,
        updates: RowChanges,
        reply: oneshot::Sender<Time>,
    },
    /// Closes a time even if nothing came in; answered with it once it is bound.
    Tick(oneshot::Sender<Time>),
    /// Answered once a time of at least `at_least` is visible; the hold keeps it readable.
    Read {
        at_least: Time,
        reply: oneshot::Sender<ReadHold>,
    },
    Release(Time),
    Peek {
        target: PeekTarget,
        time: Time,
        reply: oneshot::Sender<Result<Peeked>>,
    },
    Stats(oneshot::Sender<Vec<ObjectStats>>),
    Shutdown,
}

/// Keeps a time readable (not compacted away) until dropped.
pub(crate) struct ReadHold {
    pub(crate) time: Time,
    pub(super) coordinator: Coordinator,
}

impl Drop for ReadHold {
    fn drop(&mut self) {
        let _ = self.coordinator.requests.send(Request::Release(self.time));
    }
}

/// The coordinator as others see it. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Coordinator {
    requests: mpsc::UnboundedSender<Request>,
    input_ready: Arc<Notify>,
    visible: watch::Receiver<Time>,
    failure: watch::Receiver<Option<Error>>,
    stalled: watch::Receiver<Option<String>>,
    log_full: watch::Receiver<bool>,
}

impl Coordinator {
    pub(crate) fn start(
        workers: Workers,
        responses: mpsc::UnboundedReceiver<Response>,
        mut beginning: Beginning,
    ) -> Coordinator {
        let (requests, request_queue) = mpsc::unbounded_channel();
        let (visible, failure, stalled, log_full) = (
            watch::Sender::new(0),
            watch::Sender::new(None),
            watch::Sender::new(None),
            watch::Sender::new(false),
        );
        let input_ready = Arc::new(Notify::new());
        let handle = Coordinator {
            requests,
            input_ready: input_ready.clone(),
            visible: visible.subscribe(),
            failure: failure.subscribe(),
            stalled: stalled.subscribe(),
            log_full: log_full.subscribe(),
        };
        let (log, events) = beginning.log.take().unzip();
        let told = Told {
            visible,
            failure,
            stalled,
            log_full,
        };
        let mut state = State::new(workers, handle.clone(), told);
        state.last_closed = beginning.last;
        state.bound = beginning.last;
        state.floor = beginning.last;
        state.checkpoints.done = beginning.checkpoint;
        state.offsets = beginning.bound;
        state.image = beginning.image;
        state.log = log;
        // Without a log there is a channel on which nothing comes.
        let events = events.unwrap_or_else(|| mpsc::unbounded_channel().1);
        tokio::spawn(run(state, request_queue, (responses, events), input_ready));
        handle
    }

    /// Called by ingest threads after they queued a batch: there is something to show.
    pub(crate) fn input_ready(&self) {
        self.input_ready.notify_one();
    }

    /// The newest time that everybody may see.
    pub(crate) fn visible(&self) -> watch::Receiver<Time> {
        self.visible.clone()
    }

    /// Set when a worker died: nothing can be answered any more.
    pub(crate) fn failure(&self) -> watch::Receiver<Option<Error>> {
        self.failure.clone()
    }

    /// Set while nothing can be made durable: why not.
    pub(crate) fn stalled(&self) -> Option<String> {
        self.stalled.borrow().clone()
    }

    /// Waits, but not for ever, while so much was written that checkpoints have to catch up.
    pub(crate) async fn wait_for_log(&self) {
        let mut full = self.log_full.clone();
        // It has ended: the caller sees that by itself.
        let _ = tokio::time::timeout(STATEMENT_WAIT_MAX, full.wait_for(|full| !full)).await;
    }

    pub(crate) fn send(&self, request: Request) {
        // A closed channel means that the coordinator ended; callers see it by their reply.
        let _ = self.requests.send(request);
    }

    /// Sends a request made from a reply channel and waits for the answer.
    pub(crate) async fn ask<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<T>) -> Request,
    ) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        self.send(request(reply));
        answer.await.map_err(|_| self.gone())
    }

    pub(crate) async fn peek(&self, target: PeekTarget, hold: &ReadHold) -> Result<CountedRows> {
        Ok(self.peek_portion(target, hold).await?.rows)
    }

    pub(crate) async fn peek_portion(&self, target: PeekTarget, hold: &ReadHold) -> Result<Peeked> {
        self.ask(|reply| Request::Peek {
            target,
            time: hold.time,
            reply,
        })
        .await?
    }

    /// Resolves when it has ended, and with it what makes times durable.
    pub(crate) async fn ended(&self) {
        self.requests.closed().await;
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.requests.is_closed()
    }

    /// Why nothing is answered any more.
    pub(crate) fn gone(&self) -> Error {
        match &*self.failure.borrow() {
            Some(error) => error.clone(),
            None => Error::new(ErrorKind::ShuttingDown, "the server is shutting down"),
        }
    }
}
