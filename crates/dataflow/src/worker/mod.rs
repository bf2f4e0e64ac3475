//! The loop of one worker thread: commands, queues, operators, answers.
//!
//! A worker sleeps when nothing is to be done; a command, a hydration batch or a message from
//! another worker wakes it. Long work (hydration, peeks) is done in slices between steps of the
//! dataflows, so that nothing waits for it.

mod checkpoint;
mod objects;
mod peek;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, mpsc};

use ruslo_repr::eval::Evaluator;
use ruslo_repr::{Error, ErrorKind, ObjectId, Result, Time};

use crate::block::{Block, Stamps};
use crate::protocol::{Command, Response};
use crate::queue::{BatchQueue, SourceBatch};
use crate::spine::RowTrace;
use crate::workers::{Faults, OnResponse, Pace, Shared};
use checkpoint::HandOver;
use objects::{Collection, Sink, project_batch};
use peek::{Found, PeekRequest, Walk};

/// Batches of one hydration that are taken between two steps.
const HYDRATION_BATCHES: usize = 8;

/// What connects a worker with the rest of the process.
pub(crate) struct WorkerEnds {
    pub(crate) commands: mpsc::Receiver<Arc<Command>>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) evaluator: Arc<dyn Evaluator>,
    pub(crate) on_response: OnResponse,
    pub(crate) faults: Faults,
    pub(crate) durable: bool,
    /// Set when somebody else says when the worker goes on.
    pub(crate) pace: Option<Pace>,
}

/// A peek that waits for its trace to be through its time, holding compaction back.
struct WaitingPeek {
    id: ObjectId,
    trace: RowTrace,
    peek: PeekRequest,
}

/// One worker's objects and unfinished work.
pub(crate) struct Worker<'w> {
    timely: &'w mut timely::worker::Worker,
    index: usize,
    ends: WorkerEnds,
    sources: HashMap<ObjectId, BatchQueue>,
    collections: BTreeMap<ObjectId, Collection>,
    sinks: BTreeMap<ObjectId, Sink>,
    waiting: Vec<WaitingPeek>,
    walks: Vec<Walk>,
    checkpoints: VecDeque<HandOver>,
    /// The time of the last Close.
    closed: Time,
    /// What was last reported complete.
    complete: Time,
    /// The collection that held completeness back when that was last looked at.
    laggard: Option<ObjectId>,
}

impl<'w> Worker<'w> {
    pub(crate) fn new(timely: &'w mut timely::worker::Worker, ends: WorkerEnds) -> Self {
        Worker {
            index: timely.index(),
            timely,
            ends,
            sources: HashMap::new(),
            collections: BTreeMap::new(),
            sinks: BTreeMap::new(),
            waiting: vec![],
            walks: vec![],
            checkpoints: VecDeque::new(),
            closed: 0,
            complete: 0,
            laggard: None,
        }
    }

    /// Works until [`Command::Shutdown`].
    pub(crate) fn run(mut self) {
        let pace = self.ends.pace.take();
        loop {
            if pace.as_ref().is_some_and(|pace| !pace.wait()) {
                return self.shut_down();
            }
            let Some(busy) = self.turn(pace.is_none()) else {
                return self.shut_down();
            };
            if let Some(pace) = &pace {
                pace.done(busy);
            }
        }
    }

    /// Does what there is to do, and sleeps for more if it `may_park`; whether there was something.
    /// None after [`Command::Shutdown`].
    fn turn(&mut self, may_park: bool) -> Option<bool> {
        let mut busy = false;
        while let Ok(command) = self.ends.commands.try_recv() {
            if matches!(*command, Command::Shutdown) {
                return None;
            }
            self.handle(&command);
            busy = true;
        }
        busy |= self.feed_hydrations();
        busy |= self.feed_restores();
        busy |= self.step_peeks();
        busy |= self.step_checkpoint();
        if busy || !may_park {
            self.timely.step();
        } else {
            self.timely.step_or_park(None);
        }
        self.report_progress();
        self.start_peeks();
        Some(busy)
    }

    fn respond(&self, response: Response) {
        (self.ends.on_response)(response);
    }

    fn fail(&self, error: Error) {
        let worker = self.index;
        self.respond(Response::Failed { worker, error });
    }

    fn handle(&mut self, command: &Command) {
        let result = match command {
            Command::CreateSource { id } => {
                let queue = self.ends.shared.queues.live(self.index, *id);
                self.sources.insert(*id, queue);
                Ok(())
            }
            Command::CreateTable {
                id,
                schema,
                key,
                as_of,
                restore,
            } => self.create_table(*id, schema, key, (*as_of, *restore)),
            Command::CreateView {
                id,
                name,
                plan,
                key,
                as_of,
                hydrate,
                restore,
            } => {
                let begin = (*as_of, hydrate.as_slice(), restore.clone());
                let created = self.create_view(*id, name, plan, key, begin);
                if let Err(error) = created {
                    let (worker, id) = (self.index, *id);
                    self.respond(Response::Rejected { worker, id, error });
                }
                Ok(())
            }
            Command::CreateSink { id, from, as_of } => self.create_sink(*id, *from, *as_of),
            Command::Drop { id } => {
                self.drop_object(*id);
                Ok(())
            }
            Command::Write { table, updates } => {
                let table = self
                    .collections
                    .get_mut(table)
                    .and_then(|c| c.table.as_mut());
                if let Some(table) = table
                    && self.index == 0
                {
                    table.write(updates);
                }
                Ok(())
            }
            Command::Close { time } => self.close(*time),
            Command::Peek { .. } => {
                self.accept_peek(command);
                Ok(())
            }
            Command::CancelPeek { request } => {
                self.waiting
                    .retain(|waiting| waiting.peek.request != *request);
                self.walks.retain(|walk| walk.request != *request);
                Ok(())
            }
            Command::AllowCompaction { id, since } => {
                if let Some(collection) = self.collections.get_mut(id) {
                    collection.allow_compaction(*since);
                }
                Ok(())
            }
            Command::Checkpoint { time, objects } => {
                self.begin_checkpoint(*time, objects);
                Ok(())
            }
            Command::Stats { request } => {
                self.report_stats(*request);
                Ok(())
            }
            Command::Shutdown => Ok(()),
        };
        if let Err(error) = result {
            self.fail(error);
        }
    }

    /// Hands over all that was queued and written as of `time`, and moves every input past it.
    fn close(&mut self, time: Time) -> Result<()> {
        let mut result = Ok(());
        let mut offsets: BTreeMap<(ObjectId, i32), i64> = BTreeMap::new();
        for (source, queue) in &self.sources {
            let batches = queue.take(usize::MAX);
            for batch in &batches {
                for (partition, offset) in &batch.offsets {
                    let known = offsets.entry((*source, *partition)).or_insert(*offset);
                    *known = (*known).max(*offset);
                }
            }
            for collection in self.collections.values_mut() {
                result = result.and(feed_live(collection, *source, &batches, time));
            }
        }
        for collection in self.collections.values_mut() {
            if let Some(table) = &mut collection.table {
                result = result.and(table.close(time));
            }
            for input in &mut collection.parts.inputs {
                let next = (time + 1).max(*input.handle.time());
                input.handle.advance_to(next);
            }
        }
        self.closed = self.closed.max(time);
        let offsets = offsets.into_iter();
        self.respond(Response::Closed {
            worker: self.index,
            time,
            offsets: offsets
                .map(|((source, partition), next)| (source, partition, next))
                .collect(),
        });
        result
    }

    /// Feeds some past batches to views that hydrate; whether there may be more at once.
    fn feed_hydrations(&mut self) -> bool {
        let mut fed = false;
        let mut result = Ok(());
        for (view, collection) in &mut self.collections {
            let mut queues = std::mem::take(&mut collection.hydrations);
            queues.retain(|(source, queue)| {
                // Asked first: what is pushed before the end is then taken below.
                let exhausted = queue.is_exhausted();
                let batches = queue.take(HYDRATION_BATCHES);
                fed |= !batches.is_empty();
                result = std::mem::replace(&mut result, Ok(()))
                    .and(feed_hydration(collection, *source, &batches));
                if exhausted {
                    collection
                        .parts
                        .hydrations
                        .retain(|input| input.source != *source);
                    self.ends
                        .shared
                        .queues
                        .forget_hydration(self.index, *view, *source);
                }
                !exhausted
            });
            collection.hydrations = queues;
        }
        if let Err(error) = result {
            self.fail(error);
        }
        fed
    }

    fn accept_peek(&mut self, command: &Command) {
        let Command::Peek {
            request,
            id,
            time,
            errors,
            keys,
            limit,
            portion,
        } = command
        else {
            return;
        };
        let peek = PeekRequest {
            request: *request,
            time: *time,
            keys: keys.clone(),
            limit: *limit,
            portion: portion.clone(),
        };
        let Some(collection) = self.collections.get_mut(id) else {
            let error = Error::new(ErrorKind::UndefinedTable, format!("{id} does not exist"));
            return self.answer(*request, Found::default(), Some(error));
        };
        let since = collection.since();
        if since > *time {
            let message = format!("{id} can no longer be read as of {time}, only from {since} on");
            let error = Error::new(ErrorKind::InvalidState, message)
                .with_hint("Run the query again: it will take a newer time.");
            return self.answer(*request, Found::default(), Some(error));
        }
        let trace = match errors {
            false => Some(&collection.rows),
            true => collection.errors.as_ref(),
        };
        let Some(trace) = trace.cloned() else {
            // A plan that cannot fail has no error rows at any time.
            return self.answer(*request, Found::default(), None);
        };
        self.waiting.push(WaitingPeek {
            id: *id,
            trace,
            peek,
        });
        self.start_peeks();
    }

    fn answer(&self, request: u64, found: Found, error: Option<Error>) {
        self.respond(Response::Peek {
            request,
            worker: self.index,
            rows: found.rows,
            left_off: found.left_off,
            error,
        });
    }

    /// Starts the peeks whose objects are through their time.
    fn start_peeks(&mut self) {
        for mut waiting in std::mem::take(&mut self.waiting) {
            let Some(collection) = self.collections.get_mut(&waiting.id) else {
                let message = format!("{} was dropped", waiting.id);
                let error = Error::new(ErrorKind::UndefinedTable, message);
                self.answer(waiting.peek.request, Found::default(), Some(error));
                continue;
            };
            if !collection.is_through(waiting.peek.time) {
                self.waiting.push(waiting);
                continue;
            }
            let request = waiting.peek.request;
            match Walk::new(waiting.peek, &mut waiting.trace) {
                Some(walk) => self.walks.push(walk),
                None => {
                    let error = Error::internal("the batches of an arrangement are not there");
                    self.answer(request, Found::default(), Some(error));
                }
            }
        }
    }

    /// Does a slice of every peek under way; whether some go on.
    fn step_peeks(&mut self) -> bool {
        for mut walk in std::mem::take(&mut self.walks) {
            match walk.step() {
                Some(found) => self.answer(walk.request, found, None),
                None => self.walks.push(walk),
            }
        }
        !self.walks.is_empty()
    }

    /// Reports views that are through their first time, and how far everything is.
    fn report_progress(&mut self) {
        let hydrating = self.collections.values().any(|c| !c.hydrated);
        if !hydrating && (self.complete >= self.closed || self.still_held_back()) {
            return;
        }
        let mut complete = self.closed;
        self.laggard = None;
        let mut hydrated = vec![];
        for (id, collection) in &mut self.collections {
            let upper = collection.upper();
            if !collection.hydrated && upper.is_none_or(|upper| upper > collection.as_of) {
                collection.hydrated = true;
                hydrated.push(*id);
            }
            if collection.hydrated
                && let Some(upper) = upper
                && upper <= complete
            {
                complete = upper.saturating_sub(1);
                self.laggard = Some(*id);
            }
        }
        for sink in self.sinks.values() {
            let upper = sink.progress.get();
            if upper > sink.as_of {
                complete = complete.min(upper - 1);
            }
        }
        let worker = self.index;
        for id in hydrated {
            self.respond(Response::Hydrated { worker, id });
        }
        if complete > self.complete {
            self.complete = complete;
            self.respond(Response::Complete {
                worker,
                time: complete,
            });
        }
    }

    /// Whether what held completeness back last time still does, so that nothing has changed.
    fn still_held_back(&mut self) -> bool {
        let laggard = self.laggard.and_then(|id| self.collections.get_mut(&id));
        laggard.is_some_and(|laggard| !laggard.is_through(self.complete + 1))
    }

    fn report_stats(&self, request: u64) {
        let objects = self
            .collections
            .iter()
            .map(|(id, collection)| collection.stats(*id));
        self.respond(Response::Stats {
            request,
            worker: self.index,
            objects: objects.collect(),
        });
    }

    /// Drops everything, so that the dataflows come to their end.
    fn shut_down(mut self) {
        self.ends.shared.queues.shut_down();
        self.waiting.clear();
        self.walks.clear();
        let sinks: Vec<ObjectId> = self.sinks.keys().copied().collect();
        let views = self.collections.keys().rev().copied();
        let ids: Vec<ObjectId> = sinks.into_iter().chain(views).collect();
        ids.into_iter().for_each(|id| self.drop_object(id));
        // Nobody will read the rest, so nothing is computed to its end.
        for dataflow in self.timely.installed_dataflows() {
            self.timely.drop_dataflow(dataflow);
        }
    }
}

/// Feeds what was drained from a source to one view.
fn feed_live(
    collection: &mut Collection,
    source: ObjectId,
    batches: &[SourceBatch],
    time: Time,
) -> Result<()> {
    for input in &mut collection.parts.inputs {
        if input.source != Some(source) {
            continue;
        }
        let time = time.max(*input.handle.time());
        input.handle.advance_to(time);
        for batch in batches.iter().filter(|batch| batch.batch.num_rows() > 0) {
            let columns = project_batch(batch, &input.columns, &input.schema)?;
            input.handle.send(block_at(batch, columns, time));
        }
    }
    Ok(())
}

fn feed_hydration(
    collection: &mut Collection,
    source: ObjectId,
    batches: &[SourceBatch],
) -> Result<()> {
    for input in &mut collection.parts.hydrations {
        if input.source != source {
            continue;
        }
        for batch in batches.iter().filter(|batch| batch.batch.num_rows() > 0) {
            let columns = project_batch(batch, &input.columns, &input.schema)?;
            let time = batch.time.unwrap_or(collection.as_of);
            input.handle.send(block_at(batch, columns, time));
        }
        input.handle.flush();
    }
    Ok(())
}

fn block_at(batch: &SourceBatch, columns: Vec<arrow::array::ArrayRef>, time: Time) -> Block {
    Block {
        columns,
        len: batch.batch.num_rows(),
        stamps: Stamps::Same(time, 1),
    }
}
