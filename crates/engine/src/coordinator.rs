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

mod checkpoints;
mod handle;
mod objects;
mod reads;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ruslo_dataflow::{Command, Response, Workers};
use ruslo_repr::{Error, ObjectId, Result, Time};
use tokio::sync::{Notify, mpsc, oneshot, watch};

use crate::durable::{Appender, Bound, Change, Image, LogEvent, Part, TimeRecord};
use crate::layout::Layout;
use checkpoints::CheckpointState;
pub(crate) use handle::{
    Beginning, CheckpointEnds, Coordinator, PeekTarget, Peeked, ReadHold, Replayed, Request,
    RowChanges, SinkChanges, ViewStart,
};
use reads::{PendingPeek, PendingStats};

/// Source input alone closes a time at most this often: fewer, larger steps cost less, and a
/// few milliseconds are far below what anybody sees. Written rows close a time at once.
const SOURCE_CLOSE_INTERVAL_MIN: Duration = Duration::from_millis(5);

/// A time that was closed but is not bound yet: workers have not all answered, or what it holds
/// is not durable.
#[derive(Default)]
struct Closing {
    workers: usize,
    offsets: Bound,
    rows: Vec<(ObjectId, RowChanges)>,
    changes: Vec<Change>,
    writers: Vec<oneshot::Sender<Time>>,
    views: Vec<oneshot::Sender<ViewStart>>,
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
    rows: Vec<(ObjectId, RowChanges)>,
    changes: Vec<Change>,
    complete: Vec<Time>,
    visible: watch::Sender<Time>,
    /// The last time of the server before: nothing older is shown.
    floor: Time,
    /// The last time of the past that is gone through, and the workers that are not through it.
    replaying: Option<(Time, usize, oneshot::Sender<()>)>,
    checkpoints: CheckpointState,
    failure: watch::Sender<Option<Error>>,
    /// Why nothing can be made durable now.
    stalled: watch::Sender<Option<String>>,
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
    sinks: HashMap<ObjectId, SinkEnd>,
}

/// Where a sink's or a subscription's changes go.
struct SinkEnd {
    from: ObjectId,
    changes: mpsc::UnboundedSender<SinkChanges>,
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

/// What the coordinator tells everybody who looks.
struct Told {
    visible: watch::Sender<Time>,
    failure: watch::Sender<Option<Error>>,
    stalled: watch::Sender<Option<String>>,
    log_full: watch::Sender<bool>,
}

impl State {
    fn new(workers: Workers, handle: Coordinator, told: Told) -> State {
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
            visible: told.visible,
            floor: 0,
            replaying: None,
            checkpoints: CheckpointState::new(told.log_full),
            failure: told.failure,
            stalled: told.stalled,
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
                // What is gone by now has no changes: `changes` ends.
                if self.arranged.contains(&from) {
                    self.sinks.insert(id, SinkEnd { from, changes });
                    let as_of = (*self.visible.borrow()).max(at_least);
                    self.workers.send(Command::CreateSink { id, from, as_of });
                }
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
                left_off,
                error,
                ..
            } => self.peeked(request, (rows, left_off), error),
            Response::SinkUpdates {
                worker,
                id,
                updates,
                upper,
            } => {
                if let Some(sink) = self.sinks.get(&id) {
                    let _ = sink.changes.send(SinkChanges {
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
                    let layout = self.tables.get(&table)?.clone();
                    self.checkpoints.log(&rows);
                    Some((table, layout, rows))
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

    fn logged(&mut self, event: LogEvent) {
        match event {
            LogEvent::Durable(time) => {
                self.stalled
                    .send_if_modified(|stalled| stalled.take().is_some());
                self.durable(time);
            }
            LogEvent::Waiting(reason) => drop(self.stalled.send_replace(Some(reason))),
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
                if let Change::Drop(ids) = change {
                    self.leave_out(ids);
                }
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
}
