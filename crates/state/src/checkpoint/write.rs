//! A checkpoint being put together.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use arrow_array::{Array, RecordBatch};
use parking_lot::Mutex;
use serde_json::Value;

use super::Checkpoints;
use super::compact::Merging;
use crate::Time;
use crate::collection::Collection;
use crate::crash;
use crate::error::{Error, Result};
use crate::manifest::{Manifest, Stored};
use crate::run::Run;
use crate::sim::Plant;
use crate::store::Upload;
use crate::tiers;

/// Updates of one collection that are not in a run yet.
#[derive(Default)]
struct Pending {
    batches: Vec<RecordBatch>,
    bytes: usize,
}

/// What a collection gets and loses.
#[derive(Default)]
struct Runs {
    added: Vec<Run>,
    /// Files that a run in `added` has taken in.
    replaced: HashSet<String>,
    /// Keeps others from merging the same files meanwhile.
    merging: Option<Merging>,
}

/// A checkpoint that is being put together; nothing of it is there before [`Self::commit`].
///
/// After an error that can be retried, call the same function again. Dropping it without a commit
/// gives it up, and then the same changes go into the next one, unless the commit has failed:
/// that one must be repeated until it is through or fails for good.
pub struct Checkpoint {
    owner: Checkpoints,
    since: Time,
    created: BTreeMap<u64, Arc<Collection>>,
    removed: BTreeSet<u64>,
    pending: BTreeMap<u64, Pending>,
    runs: BTreeMap<u64, Runs>,
    /// What a planted fault uploads too late.
    late: Mutex<Vec<Upload>>,
    /// The number that a commit may have got.
    submitted: Option<u64>,
}

impl std::fmt::Debug for Checkpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Checkpoint(since {})", self.since)
    }
}

impl Checkpoint {
    pub(super) fn new(owner: Checkpoints, since: Time) -> Checkpoint {
        Checkpoint {
            owner,
            since,
            created: BTreeMap::new(),
            removed: BTreeSet::new(),
            pending: BTreeMap::new(),
            runs: BTreeMap::new(),
            late: Mutex::default(),
            submitted: None,
        }
    }

    /// Adds a collection, empty so far, whose id was never used before.
    pub fn create(&mut self, collection: Collection) -> Result<()> {
        self.check_open()?;
        collection.check()?;
        if self.removed.contains(&collection.id) || self.find(collection.id).is_some() {
            return Err(Error::InvalidUse(format!(
                "collection {} is there already",
                collection.id
            )));
        }
        self.created.insert(collection.id, Arc::new(collection));
        Ok(())
    }

    /// Removes a collection with all its rows; one that is not there is fine.
    pub fn remove(&mut self, collection: u64) {
        self.removed.insert(collection);
        self.pending.remove(&collection);
        let runs = self.runs.remove(&collection).unwrap_or_default();
        self.owner.discard(runs.added);
    }

    /// Adds updates to a collection: its row columns in order, `diff`, then its sums, in any
    /// number and order of rows. Writes a run when there are many.
    pub async fn add(&mut self, collection: u64, updates: RecordBatch) -> Result<()> {
        self.check_open()?;
        let found = self.find(collection).ok_or_else(|| {
            Error::InvalidUse(format!("there is no collection {collection} to add to"))
        })?;
        let updates = found.take(&updates)?;
        let spill_bytes = self.owner.0.sizes.spill_bytes;
        let pending = self.pending.get(&collection);
        // Before the updates are taken in: after an error they are given again.
        if pending.is_some_and(|pending| pending.bytes >= spill_bytes) {
            self.flush(&found, false).await?;
        }
        if updates.num_rows() > 0 {
            let pending = self.pending.entry(collection).or_default();
            pending.bytes += bytes_of(&updates);
            pending.batches.push(updates);
        }
        Ok(())
    }

    /// Makes the checkpoint durable, at `time`, with `metadata` beside the collections.
    ///
    /// When it returns, the log may be truncated before `time + 1`. An error with
    /// [`Error::InvalidUse`] says that there is another checkpoint than `since`: take the changes
    /// since that one.
    pub async fn commit(&mut self, time: Time, metadata: &Value) -> Result<()> {
        let pending: Vec<u64> = self.pending.keys().copied().collect();
        for collection in pending {
            if let Some(found) = self.find(collection) {
                self.flush(&found, true).await?;
            }
        }
        let owner = self.owner.clone();
        let submitted = self.submitted;
        let mut change = |manifest: &mut Manifest| {
            self.apply(manifest, time, metadata)?;
            Ok(true)
        };
        let (number, published) = owner.publish(submitted, &mut change).await;
        self.submitted = number;
        if published.is_ok() {
            for runs in self.runs.values_mut() {
                runs.merging = None;
            }
            for late in std::mem::take(self.late.get_mut()) {
                late.finish().await?;
            }
        }
        published
    }

    fn check_open(&self) -> Result<()> {
        match self.submitted {
            None => Ok(()),
            Some(_) => Err(Error::InvalidUse(
                "a checkpoint whose commit was tried takes nothing more".into(),
            )),
        }
    }

    fn find(&self, collection: u64) -> Option<Arc<Collection>> {
        if self.removed.contains(&collection) {
            return None;
        }
        let created = self.created.get(&collection).cloned();
        created.or_else(|| {
            let current = self.owner.current();
            let stored = current.collections.get(&collection)?;
            Some(stored.collection.clone())
        })
    }

    /// Writes what is pending. If it is much beside what is there, and `last`, both become one
    /// run: that saves writing it twice and the space of it.
    async fn flush(&mut self, collection: &Arc<Collection>, last: bool) -> Result<()> {
        let Some(pending) = self.pending.get(&collection.id) else {
            return Ok(());
        };
        let runs = self.runs.entry(collection.id).or_default();
        let mut merging = None;
        let mut inputs = vec![];
        if last && runs.added.is_empty() {
            let bytes = pending.bytes as u64;
            if takes_all_in(&self.owner.runs_of(collection.id), bytes, &self.owner) {
                merging = Merging::start(&self.owner, collection.id);
            }
            if merging.is_some() {
                // A merge before us may be in doubt; with the right to merge, none can follow.
                self.owner.settle_doubt().await?;
                inputs = self.owner.runs_of(collection.id);
            }
        }
        let merged = self.owner.merge(collection, &inputs, &pending.batches);
        if let Some((run, upload)) = merged.await? {
            match self.owner.0.plant {
                Plant::ManifestBeforeRuns => self.late.get_mut().push(upload),
                _ => upload.finish().await?,
            }
            runs.added.push(run);
            crash::point(crash::CHECKPOINT_WRITE);
        }
        runs.replaced.extend(inputs.into_iter().map(|run| run.file));
        runs.merging = merging.or(runs.merging.take());
        self.pending.remove(&collection.id);
        Ok(())
    }

    fn apply(&self, manifest: &mut Manifest, time: Time, metadata: &Value) -> Result<()> {
        if manifest.time != self.since {
            return Err(Error::InvalidUse(format!(
                "changes since {} cannot go on top of the checkpoint at {}",
                self.since, manifest.time
            )));
        }
        if time < self.since || (time == self.since && !self.runs.is_empty()) {
            return Err(Error::InvalidUse(format!(
                "a checkpoint at {time} cannot follow the one at {}",
                self.since
            )));
        }
        manifest.time = time;
        manifest.metadata = metadata.clone();
        manifest
            .collections
            .retain(|id, _| !self.removed.contains(id));
        for (id, collection) in &self.created {
            if !self.removed.contains(id) {
                let stored = Stored {
                    collection: collection.clone(),
                    runs: vec![],
                };
                manifest.collections.insert(*id, stored);
            }
        }
        for (id, runs) in &self.runs {
            if let Some(stored) = manifest.collections.get_mut(id) {
                let before = stored.runs.len();
                stored.runs.retain(|run| !runs.replaced.contains(&run.file));
                if stored.runs.len() + runs.replaced.len() != before {
                    let text = format!("collection {id} was merged by others meanwhile");
                    return Err(Error::InvalidUse(text));
                }
                stored.runs.extend(runs.added.iter().cloned());
            }
        }
        Ok(())
    }
}

/// The bytes of a batch's own rows: it may be a small slice of something large.
fn bytes_of(batch: &RecordBatch) -> usize {
    let columns = batch.columns().iter();
    let bytes = columns.map(|column| {
        let own = column.to_data().get_slice_memory_size();
        own.unwrap_or_else(|_| column.get_array_memory_size())
    });
    bytes.sum()
}

/// Whether the runs and so many new bytes are worth becoming one run at once.
fn takes_all_in(runs: &[Run], new_bytes: u64, owner: &Checkpoints) -> bool {
    let largest = runs.iter().map(|run| run.bytes).max();
    largest.is_some_and(|largest| {
        let recent: u64 = runs.iter().map(|run| run.bytes).sum::<u64>() - largest;
        tiers::outgrown(largest, recent + new_bytes, owner.0.sizes.small_run_bytes)
    })
}

impl Drop for Checkpoint {
    /// What was written for nothing is garbage. What was submitted is not, if only by doubt.
    fn drop(&mut self) {
        let runs = std::mem::take(&mut self.runs).into_values();
        if self.submitted.is_none() {
            self.owner.discard(runs.flat_map(|runs| runs.added));
        }
    }
}
