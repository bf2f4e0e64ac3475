//! The one place that decides times: what is visible together, and when.
//!
//! A single task owns all of it, so there are no locks and no races to think about. Everything
//! else (sessions, ingest threads, sinks) sends it a [`Request`]; workers answer with
//! [`Response`]s.
//!
//! ```text
//!   last binding          close              bound             complete
//!   ─────┬──────────────────┬──────────────────┬──────────────────┬─────> one time's life
//!        │ input is ready   │ workers drain    │ all offsets said │ every hydrated view has
//!        │ or a row written │ their queues     │ and made durable │ passed it: reads see it
//! ```
//!
//! *Bound before seen*: a time is visible only when what it holds (source partition → next
//! offset, rows written, DDL) is durable **and** all views are through it. The next time is closed
//! only then, so batches grow with load by themselves.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ruslo_dataflow::{Command, ObjectStats, Response, Workers};
use ruslo_repr::{Diff, Error, ErrorKind, ObjectId, Plan, Result, RowBytes, Schema, Time};
use tokio::sync::{Notify, mpsc, oneshot, watch};

use crate::durable::{
    Appender, Bound, Change, CheckpointEvent, Cut, Image, LogEvent, Part, TimeRecord,
};
use crate::layout::Layout;

/// Source input alone closes a time at most this often: fewer, larger steps cost less, and a
/// few milliseconds are far below what anybody sees. Written rows close a time at once.
const SOURCE_CLOSE_INTERVAL_MIN: Duration = Duration::from_millis(5);
/// How often arrangements are told that nobody will read below the visible time any more.
const COMPACTION_INTERVAL: Duration = Duration::from_millis(200);

/// Rows of an arrangement (in arranged order) with their multiplicities.
pub(crate) type PeekedRows = Vec<(RowBytes, Diff)>;

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
    pub(crate) rows: Vec<(ObjectId, PeekedRows)>,
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
        changes: mpsc::UnboundedSender<SinkChanges>,
    },
    Drop(Vec<ObjectId>),
    /// Brings a table or view of the server before back, as of a time of the past.
    Recover(Command),
    /// Goes through times of the past again; what they hold must be there already. Answered when
    /// every worker has closed them: from then on live input is of a time that gets a binding.
    Replay {
        times: Vec<Replayed>,
        reply: oneshot::Sender<()>,
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
        updates: PeekedRows,
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
        reply: oneshot::Sender<Result<PeekedRows>>,
    },
    Stats(oneshot::Sender<Vec<ObjectStats>>),
    Shutdown,
}

/// Keeps a time readable (not compacted away) until dropped.
pub(crate) struct ReadHold {
    pub(crate) time: Time,
    coordinator: Coordinator,
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
}

impl Coordinator {
    pub(crate) fn start(
        workers: Workers,
        responses: mpsc::UnboundedReceiver<Response>,
        mut beginning: Beginning,
    ) -> Coordinator {
        let (requests, request_queue) = mpsc::unbounded_channel();
        let (visible_tx, visible) = watch::channel(0);
        let (failure_tx, failure) = watch::channel(None);
        let input_ready = Arc::new(Notify::new());
        let handle = Coordinator {
            requests,
            input_ready: input_ready.clone(),
            visible,
            failure,
        };
        let (log, events) = beginning.log.take().unzip();
        let mut state = State::new(workers, handle.clone(), visible_tx, failure_tx);
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

    pub(crate) async fn peek(&self, target: PeekTarget, hold: &ReadHold) -> Result<PeekedRows> {
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

    /// Why nothing is answered any more.
    pub(crate) fn gone(&self) -> Error {
        match &*self.failure.borrow() {
            Some(error) => error.clone(),
            None => Error::new(ErrorKind::ShuttingDown, "the server is shutting down"),
        }
    }
}

struct PendingPeek {
    rows: PeekedRows,
    missing: usize,
    reply: oneshot::Sender<Result<PeekedRows>>,
}

struct PendingStats {
    objects: BTreeMap<ObjectId, ObjectStats>,
    missing: usize,
    reply: oneshot::Sender<Vec<ObjectStats>>,
}

/// A time that was closed but is not bound yet: workers have not all answered, or what it holds
/// is not durable.
#[derive(Default)]
struct Closing {
    workers: usize,
    offsets: Bound,
    rows: Vec<(ObjectId, PeekedRows)>,
    changes: Vec<Change>,
    writers: Vec<oneshot::Sender<Time>>,
    views: Vec<oneshot::Sender<ViewStart>>,
}

/// Where checkpoints stand.
struct CheckpointState {
    parts: Option<mpsc::UnboundedSender<Part>>,
    interval: Duration,
    /// The time of the last one, and when it was begun.
    done: Time,
    begun_at: Instant,
    /// The one under way, and the workers that have not handed over all they have.
    under_way: Option<(Time, usize)>,
    /// Those who wait for what is visible at that time.
    waiting: Vec<(Time, oneshot::Sender<()>)>,
}

struct State {
    workers: Workers,
    handle: Coordinator,
    last_closed: Time,
    closed_at: Instant,
    /// Times closed and not yet bound, oldest first.
    closing: BTreeMap<Time, Closing>,
    bound: Time,
    /// The binding: for each source, the next offset of each partition.
    offsets: Bound,
    /// The durable catalog.
    image: Image,
    log: Option<Appender>,
    /// How rows of tables are written to the log.
    tables: HashMap<ObjectId, Arc<Layout>>,
    /// Written since the last close.
    rows: Vec<(ObjectId, PeekedRows)>,
    changes: Vec<Change>,
    complete: Vec<Time>,
    visible: watch::Sender<Time>,
    /// The last time of the server before: nothing older is shown.
    floor: Time,
    /// The last time of the past that is gone through, and the workers that are not through it.
    replaying: Option<(Time, usize, oneshot::Sender<()>)>,
    checkpoints: CheckpointState,
    failure: watch::Sender<Option<Error>>,
    source_input: bool,
    writers: Vec<oneshot::Sender<Time>>,
    readers: Vec<(Time, oneshot::Sender<ReadHold>)>,
    holds: BTreeMap<Time, usize>,
    next_request: u64,
    peeks: HashMap<u64, PendingPeek>,
    stats: HashMap<u64, PendingStats>,
    /// Objects with an arrangement, which must be told how far they may compact.
    arranged: Vec<ObjectId>,
    compacted: (Time, Instant),
    /// How many workers have not yet said that a view is hydrated.
    hydrating: HashMap<ObjectId, usize>,
    hydration_waits: Vec<(ObjectId, oneshot::Sender<Result<()>>)>,
    /// Views that the workers could not render, until they are dropped.
    rejected: HashMap<ObjectId, Error>,
    sinks: HashMap<ObjectId, mpsc::UnboundedSender<SinkChanges>>,
}

async fn run(
    mut state: State,
    mut requests: mpsc::UnboundedReceiver<Request>,
    (mut responses, mut log): (
        mpsc::UnboundedReceiver<Response>,
        mpsc::UnboundedReceiver<LogEvent>,
    ),
    input_ready: Arc<Notify>,
) {
    let mut checkpoints = mpsc::unbounded_channel().1;
    loop {
        let due_at = [state.close_due(), state.checkpoint_due()];
        let due_at = due_at.into_iter().flatten().min();
        let due = async {
            match due_at {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Some(response) = responses.recv() => state.respond(response),
            Some(event) = log.recv() => state.logged(event),
            Some(event) = checkpoints.recv() => state.checkpointed(event),
            Some(request) = requests.recv() => match request {
                Request::Shutdown => break,
                Request::TakeCheckpoints(ends) => {
                    checkpoints = ends.events;
                    state.checkpoints.parts = Some(ends.parts);
                    state.checkpoints.interval = ends.interval;
                }
                request => state.request(request),
            },
            () = input_ready.notified() => state.source_input = true,
            () = due => {}
        }
        if state.failure.borrow().is_some() {
            break;
        }
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= Instant::now());
        // First, since under load the next time is closed as soon as the last one is visible.
        if due(state.checkpoint_due()) {
            state.begin_checkpoint();
        }
        if due(state.close_due()) {
            state.close(Closing::default());
        }
        state.allow_compaction();
    }
    state.workers.send(Command::Shutdown);
    // The log's thread needs the runtime to its end.
    state.log = None;
    while log.recv().await.is_some() {}
}

impl State {
    fn new(
        workers: Workers,
        handle: Coordinator,
        visible: watch::Sender<Time>,
        failure: watch::Sender<Option<Error>>,
    ) -> State {
        let now = Instant::now();
        State {
            complete: vec![0; workers.workers()],
            workers,
            handle,
            last_closed: 0,
            closed_at: now,
            closing: BTreeMap::new(),
            bound: 0,
            offsets: Bound::new(),
            image: Image::default(),
            log: None,
            tables: HashMap::new(),
            rows: vec![],
            changes: vec![],
            visible,
            floor: 0,
            replaying: None,
            checkpoints: CheckpointState {
                parts: None,
                interval: Duration::MAX,
                done: 0,
                begun_at: now,
                under_way: None,
                waiting: vec![],
            },
            failure,
            source_input: false,
            writers: vec![],
            readers: vec![],
            holds: BTreeMap::new(),
            next_request: 0,
            peeks: HashMap::new(),
            stats: HashMap::new(),
            arranged: vec![],
            compacted: (0, now),
            hydrating: HashMap::new(),
            hydration_waits: vec![],
            rejected: HashMap::new(),
            sinks: HashMap::new(),
        }
    }

    /// When the next time should be closed; None while there is nothing to show or the last one
    /// is still on its way.
    fn close_due(&self) -> Option<Instant> {
        if *self.visible.borrow() < self.last_closed {
            return None;
        }
        if !self.writers.is_empty() {
            return Some(self.closed_at);
        }
        self.source_input
            .then(|| self.closed_at + SOURCE_CLOSE_INTERVAL_MIN)
    }

    /// Cuts all inputs at a new time and returns it.
    fn close(&mut self, mut closing: Closing) -> Time {
        let clock = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let time = (clock.as_millis() as Time).max(self.last_closed + 1);
        closing.writers.append(&mut self.writers);
        closing.rows.append(&mut self.rows);
        closing.changes.append(&mut self.changes);
        self.source_input = false;
        self.closing.insert(time, closing);
        self.workers.send(Command::Close { time });
        self.last_closed = time;
        self.closed_at = Instant::now();
        time
    }

    fn request(&mut self, request: Request) {
        match request {
            Request::CreateSource(id) => self.workers.send(Command::CreateSource { id }),
            Request::CreateTable {
                id,
                schema,
                key,
                reply,
            } => {
                let as_of = self.last_closed + 1;
                self.bring_back(Command::CreateTable {
                    id,
                    schema,
                    key,
                    as_of,
                    restore: false,
                });
                // The table exists from the next time on; close it so that reads find it.
                self.writers.push(reply);
                self.close(Closing::default());
            }
            Request::CreateView {
                id,
                name,
                plan,
                key,
                hydrate,
                reply,
            } => {
                let as_of = self.close(Closing {
                    views: vec![reply],
                    ..Closing::default()
                });
                self.bring_back(Command::CreateView {
                    id,
                    name,
                    plan,
                    key,
                    as_of,
                    hydrate,
                    restore: None,
                });
            }
            Request::Recover(command) => self.bring_back(command),
            Request::Replay { times, reply } => self.replay(times, reply),
            Request::Record { changes, reply } => {
                self.changes.extend(changes);
                self.writers.push(reply);
            }
            Request::WaitHydrated { id, reply } => {
                if let Some(error) = self.rejected.get(&id) {
                    drop(reply.send(Err(error.clone())));
                } else if self.hydrating.contains_key(&id) {
                    self.hydration_waits.push((id, reply));
                } else {
                    drop(reply.send(Ok(())));
                }
            }
            Request::CreateSink {
                id,
                from,
                at_least,
                changes,
            } => {
                self.sinks.insert(id, changes);
                let as_of = (*self.visible.borrow()).max(at_least);
                self.workers.send(Command::CreateSink { id, from, as_of });
            }
            Request::Drop(ids) => self.drop_objects(ids),
            Request::Write {
                table,
                updates,
                reply,
            } => {
                if self.log.is_some() {
                    self.rows.push((table, updates.clone()));
                }
                self.workers.send(Command::Write { table, updates });
                self.writers.push(reply);
            }
            Request::Tick(reply) => self.writers.push(reply),
            Request::Read { at_least, reply } => self.read(at_least, reply),
            Request::Release(time) => self.release(time),
            Request::Peek {
                target,
                time,
                reply,
            } => self.peek(target, time, reply),
            Request::Stats(reply) => {
                let request = self.next_request();
                let missing = self.workers.workers();
                let pending = PendingStats {
                    objects: BTreeMap::new(),
                    missing,
                    reply,
                };
                self.stats.insert(request, pending);
                self.workers.send(Command::Stats { request });
            }
            Request::CheckpointNow(reply) => {
                let visible = *self.visible.borrow();
                match self.checkpoints.parts.is_some() && visible > self.checkpoints.done {
                    true => self.checkpoints.waiting.push((visible, reply)),
                    false => drop(reply.send(())),
                }
            }
            Request::Fail(error) => drop(self.failure.send_replace(Some(error))),
            Request::TakeCheckpoints(_) | Request::Shutdown => {}
        }
    }

    /// When the next checkpoint should begin; None while there is nothing new, or the last one or
    /// a time is still under way.
    fn checkpoint_due(&self) -> Option<Instant> {
        let checkpoints = &self.checkpoints;
        checkpoints.parts.as_ref()?;
        let visible = *self.visible.borrow();
        let settled = visible >= self.last_closed && checkpoints.under_way.is_none();
        if !settled || visible <= checkpoints.done {
            return None;
        }
        match checkpoints.waiting.is_empty() {
            false => Some(checkpoints.begun_at),
            true => checkpoints.begun_at.checked_add(checkpoints.interval),
        }
    }

    /// Cuts everything at the visible time, which is also the last that was closed: the catalog
    /// and the offsets are exactly that time's.
    fn begin_checkpoint(&mut self) {
        let Some(parts) = &self.checkpoints.parts else {
            return;
        };
        let time = *self.visible.borrow();
        let ready = self.arranged.iter().copied();
        let ready = ready.filter(|id| !self.hydrating.contains_key(id));
        let objects: Vec<ObjectId> = ready.collect();
        let cut = Cut {
            time,
            image: self.image.clone(),
            bound: self.stored_offsets(),
            objects: objects.clone(),
        };
        let _ = parts.send(Part::Begin(Box::new(cut)));
        self.checkpoints.under_way = Some((time, self.workers.workers()));
        self.checkpoints.begun_at = Instant::now();
        self.workers.send(Command::Checkpoint { time, objects });
    }

    /// The offsets of sources that are still there.
    fn stored_offsets(&self) -> Bound {
        let offsets = self.offsets.iter();
        let there = offsets.filter(|(id, _)| self.image.objects.contains_key(&id.0));
        there.map(|(id, bound)| (*id, bound.clone())).collect()
    }

    fn handed_over(&mut self) {
        let Some((_, missing)) = &mut self.checkpoints.under_way else {
            return;
        };
        *missing -= 1;
        if *missing == 0
            && let Some(parts) = &self.checkpoints.parts
        {
            let _ = parts.send(Part::End);
        }
    }

    fn checkpointed(&mut self, event: CheckpointEvent) {
        match event {
            CheckpointEvent::Done(time) => {
                self.checkpoints.under_way = None;
                self.checkpoints.done = time;
                if let Some(log) = &self.log {
                    log.truncate_before(time + 1);
                }
                let waiting = std::mem::take(&mut self.checkpoints.waiting).into_iter();
                let (done, waiting) = waiting.partition(|(wanted, _)| *wanted <= time);
                self.checkpoints.waiting = waiting;
                let done: Vec<(Time, oneshot::Sender<()>)> = done;
                for (_, reply) in done {
                    let _ = reply.send(());
                }
            }
            CheckpointEvent::Failed(error) => {
                tracing::error!(%error, "no checkpoint can be made any more");
                self.failure.send_replace(Some(error));
            }
        }
    }

    /// Gives the workers a table or view, and waits for what must be waited for.
    fn bring_back(&mut self, command: Command) {
        match &command {
            Command::CreateTable {
                id,
                schema,
                key,
                restore,
                ..
            } => {
                self.arranged.push(*id);
                if *restore {
                    self.hydrating.insert(*id, self.workers.workers());
                }
                match Layout::new(schema.clone(), key) {
                    Ok(layout) => drop(self.tables.insert(*id, Arc::new(layout))),
                    Err(error) => drop(self.failure.send_replace(Some(error))),
                }
            }
            Command::CreateView { id, .. } => {
                self.arranged.push(*id);
                self.hydrating.insert(*id, self.workers.workers());
            }
            _ => {}
        }
        self.workers.send(command);
    }

    fn replay(&mut self, times: Vec<Replayed>, reply: oneshot::Sender<()>) {
        let last = times.last().map_or(self.bound, |replayed| replayed.time);
        self.replaying = Some((last, self.workers.workers(), reply));
        for Replayed { time, rows } in times {
            for (table, updates) in rows {
                self.workers.send(Command::Write { table, updates });
            }
            self.workers.send(Command::Close { time });
        }
    }

    fn drop_objects(&mut self, ids: Vec<ObjectId>) {
        for id in ids {
            self.sinks.remove(&id);
            self.offsets.remove(&id);
            self.tables.remove(&id);
            self.hydrating.remove(&id);
            self.rejected.remove(&id);
            self.hydration_waits.retain(|(waited, _)| *waited != id);
            self.arranged.retain(|arranged| *arranged != id);
            self.workers.send(Command::Drop { id });
        }
    }

    fn read(&mut self, at_least: Time, reply: oneshot::Sender<ReadHold>) {
        let visible = *self.visible.borrow();
        if at_least <= visible {
            *self.holds.entry(visible).or_default() += 1;
            // A reader that has gone drops the hold, which releases it again.
            let _ = reply.send(ReadHold {
                time: visible,
                coordinator: self.handle.clone(),
            });
        } else {
            self.readers.push((at_least, reply));
        }
    }

    fn release(&mut self, time: Time) {
        if let Some(count) = self.holds.get_mut(&time) {
            *count -= 1;
            if *count == 0 {
                self.holds.remove(&time);
            }
        }
    }

    fn peek(&mut self, target: PeekTarget, time: Time, reply: oneshot::Sender<Result<PeekedRows>>) {
        // Those whose client has gone are not worth their work any more.
        let gone = self.peeks.iter().filter(|(_, peek)| peek.reply.is_closed());
        let gone: Vec<u64> = gone.map(|(request, _)| *request).collect();
        for request in gone {
            self.peeks.remove(&request);
            self.workers.send(Command::CancelPeek { request });
        }
        let request = self.next_request();
        let missing = self.workers.workers();
        self.peeks.insert(
            request,
            PendingPeek {
                rows: vec![],
                missing,
                reply,
            },
        );
        let PeekTarget {
            id,
            errors,
            keys,
            limit,
        } = target;
        self.workers.send(Command::Peek {
            request,
            id,
            time,
            errors,
            keys,
            limit,
        });
    }

    fn next_request(&mut self) -> u64 {
        self.next_request += 1;
        self.next_request
    }

    fn respond(&mut self, response: Response) {
        match response {
            Response::Closed { time, offsets, .. } => self.closed(time, offsets),
            Response::Complete { worker, time } => {
                self.complete[worker] = self.complete[worker].max(time);
                self.advance_visible();
            }
            Response::Hydrated { id, .. } => self.hydrated(id),
            Response::Rejected { id, error, .. } => self.rejected(id, error),
            Response::Peek {
                request,
                rows,
                error,
                ..
            } => self.peeked(request, rows, error),
            Response::SinkUpdates {
                worker,
                id,
                updates,
                upper,
            } => {
                if let Some(sink) = self.sinks.get(&id) {
                    let _ = sink.send(SinkChanges {
                        worker,
                        updates,
                        upper,
                    });
                }
            }
            Response::Stats {
                request, objects, ..
            } => self.counted(request, objects),
            Response::Changes {
                id, point, updates, ..
            } => {
                if let Some(parts) = &self.checkpoints.parts {
                    let _ = parts.send(Part::Changes { id, point, updates });
                }
            }
            Response::Checkpointed { .. } => self.handed_over(),
            Response::Failed { worker, error } => {
                tracing::error!(worker, %error, "a worker failed; the server must be restarted");
                self.failure.send_replace(Some(error));
            }
        }
    }

    fn closed(&mut self, time: Time, offsets: Vec<(ObjectId, i32, i64)>) {
        let Some(closing) = self.closing.get_mut(&time) else {
            return self.replayed(time, &offsets);
        };
        for (source, partition, next) in offsets {
            let bound = closing.offsets.entry(source).or_default();
            bound.insert(partition, next);
        }
        closing.workers += 1;
        if closing.workers < self.workers.workers() {
            return;
        }
        match &self.log {
            None => self.durable(time),
            Some(log) => {
                let offsets = closing.offsets.iter();
                let rows = std::mem::take(&mut closing.rows).into_iter();
                let rows = rows.filter_map(|(table, rows)| {
                    // A table that is gone needs its rows no more.
                    Some((table, self.tables.get(&table)?.clone(), rows))
                });
                log.append(TimeRecord {
                    time,
                    offsets: offsets.map(|(id, bound)| (id.0, bound.clone())).collect(),
                    rows: rows.collect(),
                    changes: closing.changes.clone(),
                });
            }
        }
    }

    /// A worker has gone through a time of the past, which is bound already.
    fn replayed(&mut self, time: Time, offsets: &[(ObjectId, i32, i64)]) {
        if !offsets.is_empty() {
            // They would be in the state and in no binding, and be read twice after a crash.
            let error = Error::internal("live messages were taken for a time of the past");
            self.failure.send_replace(Some(error));
        }
        let Some((last, missing, _)) = &mut self.replaying else {
            return;
        };
        if time < *last {
            return;
        }
        *missing -= 1;
        if *missing == 0
            && let Some((_, _, reply)) = self.replaying.take()
        {
            let _ = reply.send(());
        }
    }

    fn logged(&mut self, event: LogEvent) {
        match event {
            LogEvent::Durable(time) => self.durable(time),
            LogEvent::Failed(error) => {
                tracing::error!(%error, "nothing can be made durable any more");
                self.failure.send_replace(Some(error));
            }
        }
    }

    /// All that was closed up to `time` is bound: writers may be told, and views begin.
    fn durable(&mut self, time: Time) {
        let later = self.closing.split_off(&(time + 1));
        let bound = std::mem::replace(&mut self.closing, later);
        for (time, closing) in bound {
            self.bound = time;
            for (source, offsets) in closing.offsets {
                self.offsets.entry(source).or_default().extend(offsets);
            }
            for change in &closing.changes {
                self.image.apply(change);
            }
            for view in closing.views {
                let _ = view.send(ViewStart {
                    as_of: time,
                    bound: self.offsets.clone(),
                });
            }
            for writer in closing.writers {
                let _ = writer.send(time);
            }
        }
        self.advance_visible();
    }

    fn advance_visible(&mut self) {
        let complete = self.complete.iter().copied().min().unwrap_or(0);
        let visible = complete.min(self.bound);
        if visible <= *self.visible.borrow() || visible < self.floor {
            return;
        }
        self.visible.send_replace(visible);
        let waiting = std::mem::take(&mut self.readers);
        for (at_least, reply) in waiting {
            self.read(at_least, reply);
        }
        if visible >= self.last_closed {
            metrics::histogram!("ruslo_close_seconds").record(self.closed_at.elapsed());
        }
    }

    fn hydrated(&mut self, id: ObjectId) {
        let Some(missing) = self.hydrating.get_mut(&id) else {
            return;
        };
        *missing -= 1;
        if *missing == 0 {
            self.hydrating.remove(&id);
            self.end_waits(id, Ok(()));
        }
    }

    fn rejected(&mut self, id: ObjectId, error: Error) {
        self.hydrating.remove(&id);
        self.arranged.retain(|arranged| *arranged != id);
        self.end_waits(id, Err(error.clone()));
        self.rejected.insert(id, error);
    }

    fn end_waits(&mut self, id: ObjectId, result: Result<()>) {
        for (waited, reply) in std::mem::take(&mut self.hydration_waits) {
            match waited == id {
                true => drop(reply.send(result.clone())),
                false => self.hydration_waits.push((waited, reply)),
            }
        }
    }

    fn peeked(&mut self, request: u64, mut rows: PeekedRows, error: Option<Error>) {
        let Some(peek) = self.peeks.get_mut(&request) else {
            return;
        };
        peek.missing -= 1;
        peek.rows.append(&mut rows);
        let done = peek.missing == 0;
        if done || error.is_some() {
            let Some(peek) = self.peeks.remove(&request) else {
                return;
            };
            let _ = peek.reply.send(error.map_or(Ok(peek.rows), Err));
        }
    }

    fn counted(&mut self, request: u64, objects: Vec<ObjectStats>) {
        let Some(stats) = self.stats.get_mut(&request) else {
            return;
        };
        stats.missing -= 1;
        for object in objects {
            match stats.objects.get_mut(&object.id) {
                None => drop(stats.objects.insert(object.id, object)),
                Some(sum) => {
                    sum.rows += object.rows;
                    sum.records += object.records;
                    sum.bytes += object.bytes;
                    sum.batches += object.batches;
                }
            }
        }
        if stats.missing == 0
            && let Some(stats) = self.stats.remove(&request)
        {
            let _ = stats.reply.send(stats.objects.into_values().collect());
        }
    }

    fn allow_compaction(&mut self) {
        let oldest_hold = self.holds.keys().next().copied().unwrap_or(Time::MAX);
        let since = (*self.visible.borrow()).min(oldest_hold);
        let (done, at) = self.compacted;
        if since <= done || at.elapsed() < COMPACTION_INTERVAL {
            return;
        }
        for &id in &self.arranged {
            self.workers.send(Command::AllowCompaction { id, since });
        }
        self.compacted = (since, Instant::now());
    }
}
