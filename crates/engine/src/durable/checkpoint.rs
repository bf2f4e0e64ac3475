//! Checkpoints: everything up to one time in one atomic step, so that the log can be cut and a
//! restart does not begin with the first message.
//!
//! ```text
//!   coordinator ── Begin at T ──┐
//!   workers ── Changes ≤ T ─────┼──> Checkpointer ──> runs, manifest ──> Done ──> log is cut
//!   sinks ── deletes not acked ─┤          │
//!   sources ── bad data, gaps ──┘          └──> merges runs beside it
//! ```
//!
//! One at a time, and never in the way of the dataflow: the workers hand over what changed, and a
//! task of its own does the rest.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{BinaryArray, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema as ArrowSchema};
use ruslo_dataflow::DurablePoint;
use ruslo_repr::{Error, ObjectId, Result, Time};
use ruslo_state::{Checkpoint, Checkpoints, Collection};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};

use super::status::{CheckpointStatus, Statuses};
use super::{Bound, Deletes, Image, bad_rows, refused};
use crate::Shared;
use crate::bad_data::Covered;
use crate::catalog::Body;
use crate::gaps::SavedGaps;

const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// Collections of one object are numbered from its id on.
const POINTS_MAX: u64 = 1 << 16;

/// What the coordinator and the workers say of a checkpoint, in this order.
pub(crate) enum Part {
    Begin(Box<Cut>),
    Changes {
        id: ObjectId,
        point: DurablePoint,
        updates: RecordBatch,
    },
    End,
}

/// Everything that was so at one time.
pub(crate) struct Cut {
    pub(crate) time: Time,
    pub(crate) image: Image,
    pub(crate) bound: Bound,
    /// Tables and views whose changes come.
    pub(crate) objects: Vec<ObjectId>,
}

/// What became of a checkpoint.
pub(crate) enum CheckpointEvent {
    Done(Time),
    Failed(Error),
}

/// What stands beside the collections of a checkpoint.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct Metadata {
    /// An [`Image`], with its version.
    catalog: Value,
    bound: BTreeMap<u64, BTreeMap<i32, i64>>,
    /// Tables and views whose state is here, with or without collections of their own.
    objects: Vec<u64>,
    /// By collection.
    points: BTreeMap<u64, StoredPoint>,
    sources: BTreeMap<u64, SourceNotes>,
}

#[derive(Clone, Serialize, Deserialize)]
struct StoredPoint {
    object: u64,
    point: DurablePoint,
}

/// What a source remembers beside its offsets.
#[derive(Clone, Default, Serialize, Deserialize)]
pub(crate) struct SourceNotes {
    pub(crate) decode_errors: u64,
    pub(crate) covered: Vec<Covered>,
    pub(crate) gaps: SavedGaps,
}

impl Metadata {
    pub(crate) fn read(value: &Value) -> Result<Metadata> {
        if value.is_null() {
            let catalog = Image::default().to_json()?;
            return Ok(Metadata {
                catalog,
                ..Metadata::default()
            });
        }
        Metadata::deserialize(value).map_err(|error| {
            let message = "the metadata of the last checkpoint cannot be read";
            Error::new(ruslo_repr::ErrorKind::InvalidState, message).with_detail(error.to_string())
        })
    }

    /// The catalog. Ids that have state here count as given out, also if the crash came before
    /// their objects were in the catalog: nobody must find somebody else's state.
    ///
    /// `place` is the manifest it is from.
    pub(crate) fn image(&self, place: &str) -> Result<Image> {
        let mut image = Image::from_json(place, &self.catalog)?;
        let last = self.objects.iter().max().copied().unwrap_or(0);
        image.next_id = image.next_id.max(last + 1);
        Ok(image)
    }

    pub(crate) fn bound(&self) -> Bound {
        let bound = self.bound.iter();
        bound.map(|(id, b)| (ObjectId(*id), b.clone())).collect()
    }

    /// The durable points of each table and view, in order. One that is computed of others alone
    /// has none.
    pub(crate) fn points(&self) -> HashMap<ObjectId, Vec<DurablePoint>> {
        let objects = self.objects.iter();
        let mut points: HashMap<ObjectId, Vec<DurablePoint>> =
            objects.map(|id| (ObjectId(*id), vec![])).collect();
        for stored in self.points.values() {
            let of_object = points.entry(ObjectId(stored.object)).or_default();
            of_object.push(stored.point.clone());
        }
        points
    }

    pub(crate) fn notes(&self, source: ObjectId) -> Option<&SourceNotes> {
        self.sources.get(&source.0)
    }
}

/// The collection of a durable point.
pub(crate) fn collection_of(object: ObjectId, point: u32) -> u64 {
    object.0 * POINTS_MAX + u64::from(point)
}

/// The object that a collection belongs to.
pub(crate) fn object_of(collection: u64) -> ObjectId {
    ObjectId(collection / POINTS_MAX)
}

/// The collection of a source's bad rows, or of a sink's deletes.
pub(crate) fn collection_beside(object: ObjectId) -> u64 {
    collection_of(object, 0)
}

/// The task that makes checkpoints.
pub(crate) struct Checkpointer {
    shared: Arc<Shared>,
    checkpoints: Checkpoints,
    statuses: Arc<Statuses>,
    points: BTreeMap<u64, StoredPoint>,
    /// Collections that are there, of whatever kind.
    collections: HashSet<u64>,
    /// The deletes of each sink that the last checkpoint holds.
    deletes: Deletes,
    merging: Arc<tokio::sync::Mutex<()>>,
}

impl Checkpointer {
    /// Starts the task; it ends with `parts`.
    pub(crate) fn start(
        shared: Arc<Shared>,
        checkpoints: Checkpoints,
        deletes: Deletes,
        mut parts: UnboundedReceiver<Part>,
        events: UnboundedSender<CheckpointEvent>,
    ) -> Result<()> {
        let snapshot = checkpoints.snapshot();
        let mut checkpointer = Checkpointer {
            statuses: shared.statuses.clone(),
            points: Metadata::read(snapshot.metadata())?.points,
            collections: snapshot.collections().map(|c| c.id).collect(),
            shared,
            checkpoints,
            deletes,
            merging: Arc::default(),
        };
        tokio::spawn(async move {
            while let Some(part) = parts.recv().await {
                let Part::Begin(cut) = part else { continue };
                let time = cut.time;
                let event = match checkpointer.take(*cut, &mut parts).await {
                    Ok(()) => CheckpointEvent::Done(time),
                    Err(error) => CheckpointEvent::Failed(error),
                };
                let failed = matches!(event, CheckpointEvent::Failed(_));
                if events.send(event).is_err() || failed {
                    return;
                }
                checkpointer.merge();
            }
        });
        Ok(())
    }

    async fn take(&mut self, cut: Cut, parts: &mut UnboundedReceiver<Part>) -> Result<()> {
        let began = Instant::now();
        let mut rows = 0;
        let mut checkpoint = self.checkpoints.begin(self.checkpoints.time());
        loop {
            match parts.recv().await {
                Some(Part::Changes { id, point, updates }) => {
                    rows += updates.num_rows() as u64;
                    self.add_changes(&mut checkpoint, id, point, updates)
                        .await?;
                }
                Some(Part::End) => break,
                Some(Part::Begin(_)) | None => {
                    return Err(Error::internal("no end of a checkpoint"));
                }
            }
        }
        self.add_sinks(&mut checkpoint, cut.time).await?;
        let sources = self.add_sources(&mut checkpoint).await?;
        self.remove_what_is_gone(&mut checkpoint, &cut);
        let metadata = Metadata {
            catalog: cut.image.to_json()?,
            bound: cut.bound.into_iter().map(|(id, b)| (id.0, b)).collect(),
            objects: cut.objects.iter().map(|id| id.0).collect(),
            points: self.points.clone(),
            sources,
        };
        let metadata = serde_json::to_value(metadata)
            .map_err(|error| Error::internal(format!("a checkpoint cannot be written: {error}")))?;
        let mut waiting = Waiting::new("a checkpoint cannot be written now");
        while let Err(error) = checkpoint.commit(cut.time, &metadata).await {
            waiting.after(error).await?;
        }
        waiting.over();
        self.statuses.add(CheckpointStatus {
            time: cut.time,
            rows,
            seconds: began.elapsed().as_secs_f64(),
        });
        Ok(())
    }

    async fn add_changes(
        &mut self,
        checkpoint: &mut Checkpoint,
        id: ObjectId,
        point: DurablePoint,
        updates: RecordBatch,
    ) -> Result<()> {
        let collection = collection_of(id, point.index);
        if self.collections.insert(collection) {
            let name = match self.shared.catalog.get(id) {
                Some(object) => format!("{}: {}", object.name, point.name),
                None => point.name.clone(),
            };
            let rows = point.rows.to_arrow();
            let new = Collection::sum(collection, &name, rows).with_sums(point.sums.clone());
            checkpoint.create(new).map_err(|error| refused(&error))?;
            let object = id.0;
            self.points
                .insert(collection, StoredPoint { object, point });
        }
        add(checkpoint, collection, updates).await
    }

    /// Keys that a sink has yet to delete: nothing else would know of them after a restart.
    async fn add_sinks(&mut self, checkpoint: &mut Checkpoint, time: Time) -> Result<()> {
        for object in self.shared.catalog.objects() {
            let Body::Sink { sink, .. } = &object.body else {
                continue;
            };
            // A sink that has ended meanwhile has no deletes to come.
            let now: HashSet<Vec<u8>> = sink.deletes_at(time).await.into_iter().collect();
            let before = self.deletes.entry(object.id).or_default();
            let gone = before.difference(&now).map(|key| (key, -1));
            let come = now.difference(before).map(|key| (key, 1));
            let changes: Vec<(&Vec<u8>, i64)> = gone.chain(come).collect();
            if changes.is_empty() {
                continue;
            }
            let schema = Arc::new(ArrowSchema::new(vec![
                Field::new("key", DataType::Binary, false),
                Field::new("diff", DataType::Int64, false),
            ]));
            let keys: BinaryArray = changes.iter().map(|(key, _)| Some(key)).collect();
            let diffs: Int64Array = changes.iter().map(|(_, diff)| *diff).collect();
            let columns = vec![Arc::new(keys) as _, Arc::new(diffs) as _];
            let updates = RecordBatch::try_new(schema, columns)?;
            let collection = collection_beside(object.id);
            if self.collections.insert(collection) {
                let rows = ArrowSchema::new(vec![Field::new("key", DataType::Binary, false)]);
                let name = format!("{}: keys to delete", object.name);
                let new = Collection::sum(collection, &name, Arc::new(rows));
                checkpoint.create(new).map_err(|error| refused(&error))?;
            }
            add(checkpoint, collection, updates).await?;
            self.deletes.insert(object.id, now);
        }
        Ok(())
    }

    async fn add_sources(
        &mut self,
        checkpoint: &mut Checkpoint,
    ) -> Result<BTreeMap<u64, SourceNotes>> {
        let mut notes = BTreeMap::new();
        for object in self.shared.catalog.objects() {
            let Body::Source { source, .. } = &object.body else {
                continue;
            };
            let saved = source.bad.save();
            notes.insert(
                object.id.0,
                SourceNotes {
                    decode_errors: saved.count,
                    covered: saved.covered,
                    gaps: source.saved_gaps(),
                },
            );
            if saved.come.is_empty() && saved.gone.is_empty() {
                continue;
            }
            let collection = collection_beside(object.id);
            if self.collections.insert(collection) {
                let name = format!("{}: messages that could not be decoded", object.name);
                let new = Collection::sum(collection, &name, bad_rows::schema());
                checkpoint.create(new).map_err(|error| refused(&error))?;
            }
            let updates = bad_rows::encode(&saved.come, &saved.gone)?;
            add(checkpoint, collection, updates).await?;
        }
        Ok(notes)
    }

    /// Lets go of the collections of objects that are gone.
    fn remove_what_is_gone(&mut self, checkpoint: &mut Checkpoint, cut: &Cut) {
        let objects: HashSet<u64> = cut.objects.iter().map(|id| id.0).collect();
        let stays = |collection: &u64| {
            let object = collection / POINTS_MAX;
            objects.contains(&object) || cut.image.objects.contains_key(&object)
        };
        let (stay, gone): (HashSet<u64>, HashSet<u64>) =
            self.collections.iter().copied().partition(stays);
        for collection in &gone {
            checkpoint.remove(*collection);
            self.points.remove(collection);
            self.deletes.remove(&ObjectId(collection / POINTS_MAX));
        }
        self.collections = stay;
    }

    /// Merges runs that are due, beside whatever comes next.
    fn merge(&self) {
        let (checkpoints, merging) = (self.checkpoints.clone(), self.merging.clone());
        tokio::spawn(async move {
            let Ok(_alone) = merging.try_lock() else {
                return;
            };
            loop {
                match checkpoints.compact().await {
                    Ok(true) => {}
                    Ok(false) => return,
                    Err(error) => {
                        tracing::warn!(%error, "runs could not be merged; trying again later");
                        return;
                    }
                }
            }
        });
    }
}

async fn add(checkpoint: &mut Checkpoint, collection: u64, updates: RecordBatch) -> Result<()> {
    let mut waiting = Waiting::new("a checkpoint cannot be written now");
    while let Err(error) = checkpoint.add(collection, updates.clone()).await {
        waiting.after(error).await?;
    }
    waiting.over();
    Ok(())
}

/// Pauses between tries of what may succeed later.
pub(super) struct Waiting {
    what: &'static str,
    tries: u32,
}

impl Waiting {
    /// `what` cannot be done now.
    pub(super) fn new(what: &'static str) -> Waiting {
        Waiting { what, tries: 0 }
    }

    /// Waits a little; fails if trying again cannot help.
    pub(super) async fn after(&mut self, error: ruslo_state::Error) -> Result<()> {
        if !error.can_retry() {
            return Err(refused(&error));
        }
        if self.tries == 0 {
            tracing::error!(%error, "{}; trying again", self.what);
        }
        let pause = BACKOFF_MIN.saturating_mul(1 << self.tries.min(10));
        self.tries += 1;
        tokio::time::sleep(pause.min(BACKOFF_MAX)).await;
        Ok(())
    }

    pub(super) fn over(&self) {
        if self.tries > 0 {
            tracing::info!("the store answers again");
        }
    }
}
