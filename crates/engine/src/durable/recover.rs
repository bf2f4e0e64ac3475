//! Bringing back what the server before had.
//!
//! ```text
//!   statements, by id ──> tables, views, sinks     views read their sources' past up to the last
//!                              │                   binding, as a new view does
//!   the log's times  ──────────┴──> closed again ──> every view through the last time
//!                                                        └──> only then is anything served
//! ```
//!
//! The same times hold the same rows, so nothing that was seen is taken back. A view whose past
//! cannot be read any more is *broken*: reading it says why, and everything else goes on.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use ruslo_dataflow::DurablePoint;
use ruslo_repr::{Error, ObjectId, Plan, Result, Time};
use ruslo_state::Snapshot;
use tokio::sync::oneshot;

use super::{Bound, Definition, History, PastRows, restore};
use crate::Shared;
use crate::backpressure::before_portion;
use crate::catalog::{Body, Catalog, View};
use crate::coordinator::{Replayed, Request};
use crate::export::RecoveredSink;
use crate::ingest::{Again, Past, Source, Times};
use crate::layout::Layout;
use crate::session::Session;

/// How often a view that is waited for is looked at, and spoken of.
const CHECK_INTERVAL: Duration = Duration::from_millis(100);
const REPORT_INTERVAL: Duration = Duration::from_secs(5);
/// How often a live flow that could not be started is tried again.
const START_INTERVAL: Duration = Duration::from_secs(5);

/// Rows of tables that are handed to the workers together, in bytes.
const REPLAY_BYTES: usize = 4 << 20;

/// The pasts that a view reads, of each of its sources.
type Pasts = (ObjectId, Vec<(Arc<Source>, Past)>);

/// What an object needs to know that is made again.
#[derive(Clone)]
pub(crate) struct Recovering {
    pub(crate) definition: Definition,
    /// The last time of the server before: what is in no checkpoint begins there.
    pub(crate) last: Time,
    /// How far sources were bound then.
    pub(crate) bound: Arc<Bound>,
    pub(crate) checkpoint: Arc<Restorable>,
    /// The pasts that are being read; dropping them ends that.
    pub(crate) pasts: Arc<Mutex<Vec<Pasts>>>,
}

/// What the last checkpoint holds.
pub(crate) struct Restorable {
    pub(crate) time: Time,
    snapshot: Arc<Snapshot>,
    /// The durable points of tables and views, in order.
    points: HashMap<ObjectId, Vec<DurablePoint>>,
    bound: Bound,
    /// When the messages after it were bound.
    times: HashMap<ObjectId, Arc<Times>>,
    /// The keys that sinks had yet to delete.
    deletes: Deletes,
}

/// By sink.
pub(crate) type Deletes = HashMap<ObjectId, HashSet<Vec<u8>>>;

impl Recovering {
    /// The durable points of a table or view that is in the checkpoint.
    pub(crate) fn points(&self, id: ObjectId) -> Option<&Vec<DurablePoint>> {
        self.checkpoint.points.get(&id)
    }

    /// The same of a view, if all that it reads begins at the checkpoint, too.
    pub(crate) fn points_of_view(&self, id: ObjectId, plan: &Plan) -> Option<Vec<DurablePoint>> {
        let points = self.points(id)?;
        let mut all = true;
        plan.visit(&mut |node| {
            if let Plan::Get { id, .. } = node {
                all &= self.points(*id).is_some();
            }
        });
        all.then(|| points.clone())
    }

    /// What a view that is in the checkpoint has to read again of a source; None if nothing.
    pub(crate) fn again(&self, source: ObjectId) -> Option<Again> {
        let last = self.bound.get(&source)?;
        let from = self.checkpoint.bound.get(&source);
        if from == Some(last) {
            return None;
        }
        Some(Again {
            from: from.cloned().unwrap_or_default(),
            times: self
                .checkpoint
                .times
                .get(&source)
                .cloned()
                .unwrap_or_default(),
        })
    }

    /// Starts giving a table or view its state back.
    pub(crate) fn feed(
        &self,
        shared: &Arc<Shared>,
        id: ObjectId,
        points: Vec<DurablePoint>,
    ) -> Result<()> {
        let coordinator = shared.coordinator.clone();
        let failed = move |error| coordinator.send(Request::Fail(error));
        let snapshot = self.checkpoint.snapshot.clone();
        let from = (&shared.host, snapshot);
        restore::feed(from, shared.workers.clone(), id, points, failed)
    }

    /// What the sink being made may have left outside.
    pub(crate) fn sink(&self) -> RecoveredSink {
        let deletes = self.checkpoint.deletes.get(&ObjectId(self.definition.id));
        RecoveredSink {
            deletes: deletes.into_iter().flatten().cloned().collect(),
            last: self.last,
        }
    }
}

impl Restorable {
    async fn new(history: &History) -> Result<Restorable> {
        let mut times: HashMap<ObjectId, Times> = HashMap::new();
        for past in &history.times {
            for (source, offsets) in &past.offsets {
                let times = times.entry(*source).or_default();
                for (&partition, &next) in offsets {
                    times.add(partition, next, past.time);
                }
            }
        }
        let mut deletes = Deletes::new();
        for (id, definition) in &history.image.objects {
            if definition.source.is_none()
                && !history.metadata.points().contains_key(&ObjectId(*id))
            {
                let keys = restore::deletes(&history.snapshot, ObjectId(*id)).await?;
                deletes.insert(ObjectId(*id), keys);
            }
        }
        Ok(Restorable {
            time: history.checkpoint(),
            snapshot: history.snapshot.clone(),
            points: history.metadata.points(),
            bound: history.metadata.bound(),
            times: times.into_iter().map(|(id, t)| (id, Arc::new(t))).collect(),
            deletes,
        })
    }
}

/// Makes all objects again and waits until they are where they were; what sinks had yet to delete
/// at the last checkpoint.
pub(crate) async fn recover(shared: &Arc<Shared>, history: History) -> Result<Deletes> {
    let began = Instant::now();
    let last = history.last();
    let checkpoint = Arc::new(Restorable::new(&history).await?);
    let History {
        times,
        image,
        bound,
        metadata,
        snapshot,
        rows,
    } = history;
    let objects = image.objects.len();
    shared.catalog.begin(&image.schemas, image.next_id);
    let bound = Arc::new(bound);
    let pasts = Arc::new(Mutex::new(vec![]));
    for definition in image.objects.into_values() {
        shared.progress(format!("making {} again", definition.name));
        let id = ObjectId(definition.id);
        let recovering = Recovering {
            definition,
            last,
            bound: bound.clone(),
            checkpoint: checkpoint.clone(),
            pasts: pasts.clone(),
        };
        make_again(shared, recovering).await?;
        let object = shared.catalog.get(id);
        if let Some(Body::Source { source, .. }) = object.as_ref().map(|object| &object.body)
            && let Some(notes) = metadata.notes(id)
        {
            let rows = restore::bad_rows(&snapshot, id).await?;
            source
                .bad
                .restore(rows, notes.decode_errors, notes.covered.clone());
            source.restore_gaps(notes.gaps.clone());
        }
    }
    let times = match times.is_empty() {
        true => vec![last],
        false => times.iter().map(|past| past.time).collect(),
    };
    replay(shared, times, rows).await?;
    start_live_flows(shared, &bound);
    let pasts = std::mem::take(&mut *pasts.lock());
    for (view, pasts) in pasts {
        wait_hydrated(shared, view, pasts).await?;
    }
    shared.progress("waiting for the last time to be complete".to_string());
    let read = |reply| Request::Read {
        at_least: last,
        reply,
    };
    shared.coordinator.ask(read).await?;
    tracing::info!(
        objects,
        seconds = began.elapsed().as_secs_f32(),
        "everything is back as it was at time {last}"
    );
    Ok(checkpoint.deletes.clone())
}

/// Goes through the times after the checkpoint again, with what was written to tables. Memory holds
/// a portion of that at once, and what the workers have not got through.
async fn replay(shared: &Arc<Shared>, times: Vec<Time>, mut rows: PastRows) -> Result<()> {
    shared.progress("going through what came after the last checkpoint".to_string());
    let (mut portion, mut bytes) = (vec![], 0);
    for time in times {
        if bytes >= REPLAY_BYTES {
            let times = std::mem::take(&mut portion);
            bytes = 0;
            let reply = None;
            shared.coordinator.send(Request::Replay { times, reply });
            before_portion().await;
        }
        let mut writes = vec![];
        for (table, changes) in rows.of(time).await? {
            let object = shared.catalog.get(table);
            // None: it was dropped later.
            if let Some(layout) = object.and_then(|object| Layout::of(&object)) {
                bytes += changes.get_array_memory_size();
                writes.push((table, layout?.encode_changes(&changes)?));
            }
        }
        portion.push(Replayed { time, rows: writes });
    }
    let replay = |reply| Request::Replay {
        times: portion,
        reply: Some(reply),
    };
    shared.coordinator.ask(replay).await
}

/// Whether a view could not be brought back. There are no checkpoints then: they would leave its
/// state out.
pub(crate) fn is_something_broken(shared: &Shared) -> bool {
    let objects = shared.catalog.objects();
    objects.iter().any(|object| {
        view_of(&shared.catalog, object.id).is_some_and(|(_, view)| view.broken.get().is_some())
    })
}

async fn make_again(shared: &Arc<Shared>, recovering: Recovering) -> Result<()> {
    let definition = &recovering.definition;
    let name = definition.name.clone();
    let text = match (&definition.sealed, &shared.durable) {
        (Some(sealed), Some(durable)) => durable.sealer.open_sealed(sealed)?,
        _ => definition.statement.clone(),
    };
    let made = Session::recover(shared.clone(), recovering, &text).await;
    made.map_err(|error| {
        let message = format!("\"{name}\" cannot be brought back: {error}");
        Error::new(error.kind, message)
    })
}

/// Reads sources on from where they were bound. One whose client cannot be made is tried again.
fn start_live_flows(shared: &Arc<Shared>, bound: &Arc<Bound>) {
    for object in shared.catalog.objects() {
        let Body::Source { source, .. } = &object.body else {
            continue;
        };
        source.note_started(bound.contains_key(&source.id));
        let (shared, source, bound) = (shared.clone(), source.clone(), bound.clone());
        tokio::spawn(async move {
            loop {
                let (reading, shared, bound) = (source.clone(), shared.clone(), bound.clone());
                let host = source.host.clone();
                let started = host.blocking(move || {
                    let bound = bound.get(&reading.id);
                    reading.start_live(bound, &shared.workers, &shared.coordinator)
                });
                match started.await {
                    Ok(()) => return,
                    Err(error) => {
                        tracing::error!(source = source.name, %error, "cannot read; trying again");
                    }
                }
                tokio::time::sleep(START_INTERVAL).await;
            }
        });
    }
}

/// Waits for a view to be through the last time. One that cannot get there is marked as broken,
/// and so is what reads it.
async fn wait_hydrated(
    shared: &Arc<Shared>,
    id: ObjectId,
    pasts: Vec<(Arc<Source>, Past)>,
) -> Result<()> {
    let (reply, hydrated) = oneshot::channel();
    shared.coordinator.send(Request::WaitHydrated { id, reply });
    let Some((name, view)) = view_of(&shared.catalog, id) else {
        // A table's rows are in the store, which is waited for.
        let done = hydrated.await;
        return done.map_err(|_| shared.coordinator.gone())?;
    };
    tokio::pin!(hydrated);
    let mut reported = Instant::now();
    shared.progress(format!("view {name} reads what it had read"));
    while view.broken.get().is_none() {
        let failure = tokio::select! {
            result = &mut hydrated => match result {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(error)) => Some(error.to_string()),
                Err(_) => return Err(shared.coordinator.gone()),
            },
            () = tokio::time::sleep(CHECK_INTERVAL) => failed_past(&pasts),
        };
        if let Some(reason) = failure {
            break_views(&shared.catalog, id, &name, &reason);
            return Ok(());
        }
        if reported.elapsed() >= REPORT_INTERVAL {
            let states = pasts
                .iter()
                .map(|(source, past)| past.describe(&source.name));
            let states: Vec<String> = states.collect();
            let text = format!("view {name} reads what it had read: {}", states.join("; "));
            tracing::info!("{text}");
            shared.progress(text);
            reported = Instant::now();
        }
    }
    Ok(())
}

fn failed_past(pasts: &[(Arc<Source>, Past)]) -> Option<String> {
    pasts.iter().find_map(|(source, past)| {
        let error = past.failure()?;
        Some(format!("source \"{}\": {error}", source.name))
    })
}

/// Marks a view, and every view that reads it, as lost.
fn break_views(catalog: &Catalog, id: ObjectId, name: &str, reason: &str) {
    let message = format!("view \"{name}\" could not be brought back after the restart");
    let error = Error::new(ruslo_repr::ErrorKind::InvalidState, message)
        .with_detail(reason)
        .with_hint("Correct the cause and start the server again, or drop the view.");
    tracing::error!(reason, "view {name} could not be brought back");
    let broken = catalog.dependents(id).into_iter().map(|object| object.id);
    for id in broken.chain([id]) {
        if let Some((_, view)) = view_of(catalog, id) {
            let _ = view.broken.set(error.clone());
        }
    }
}

/// A view by its id, also one that is a sink's own.
fn view_of(catalog: &Catalog, id: ObjectId) -> Option<(String, Arc<View>)> {
    let of_object = |object: &crate::catalog::Object| match &object.body {
        Body::MaterializedView { view, .. } if object.id == id => {
            Some((object.name.clone(), view.clone()))
        }
        Body::Sink {
            view: Some((own, view)),
            ..
        } if *own == id || object.id == id => Some((object.name.clone(), view.clone())),
        _ => None,
    };
    catalog
        .objects()
        .iter()
        .find_map(|object| of_object(object))
}
