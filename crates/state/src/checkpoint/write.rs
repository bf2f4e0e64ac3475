//! A checkpoint being put together.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use arrow_array::{Array, RecordBatch};
use parking_lot::Mutex;
use serde_json::Value;

use super::Checkpoints;
use super::merging::Merging;
use crate::Time;
use crate::collection::Collection;
use crate::crash;
use crate::error::{Error, Result};
use crate::manifest::{Manifest, Stored};
use crate::run::Run;
use crate::sim::Plant;
use crate::store::Upload;

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
            self.spill(&found).await?;
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
        // What was submitted stays as it is.
        if self.submitted.is_none() {
            let changed = self.pending.keys().chain(self.runs.keys());
            let changed: BTreeSet<u64> = changed.copied().collect();
            for id in changed {
                if let Some(collection) = self.find(id) {
                    self.complete(&collection).await?;
                }
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

    /// Writes what is pending as a run of its own, before the checkpoint is complete.
    async fn spill(&mut self, collection: &Arc<Collection>) -> Result<()> {
        if let Some((run, upload)) = self.merge_pending(collection, &[]).await? {
            upload.finish().await?;
            crash::point(crash::CHECKPOINT_WRITE);
            self.runs.entry(collection.id).or_default().added.push(run);
        }
        self.pending.remove(&collection.id);
        Ok(())
    }

    /// Writes the last of a collection's changes. Where they have no room beside what is there,
    /// both become one run: after the merge under way, for its files take room, too.
    async fn complete(&mut self, collection: &Arc<Collection>) -> Result<()> {
        let id = collection.id;
        let pending = self.pending.get(&id).map_or(0, |pending| pending.bytes);
        let runs = self.runs.entry(id).or_default();
        let spilled: u64 = runs.added.iter().map(|run| run.bytes).sum();
        let new_bytes = spilled + pending as u64;
        if runs.merging.is_none() && self.owner.is_crowded(id, new_bytes) {
            let merging = Merging::start(&self.owner, id).await;
            // That merge may have made room.
            if self.owner.is_crowded(id, new_bytes) {
                return self.take_all_in(collection, merging).await;
            }
        }
        if pending > 0 {
            let written = self.merge_pending(collection, &[]).await?;
            let run = self.upload(written).await?;
            self.runs.entry(id).or_default().added.extend(run);
            self.pending.remove(&id);
        }
        Ok(())
    }

    /// Makes one run of what is there, what was spilled and what is pending.
    async fn take_all_in(&mut self, collection: &Arc<Collection>, merging: Merging) -> Result<()> {
        let id = collection.id;
        let all = |runs: &[Run]| Some((0..runs.len()).collect());
        let present = merging.take(all).await?;
        let spilled = self.runs.entry(id).or_default().added.clone();
        let inputs = [&present.runs[..], &spilled].concat();
        let written = self.merge_pending(collection, &inputs).await?;
        let run = self.upload(written).await?;
        let runs = self.runs.entry(id).or_default();
        runs.added = run.into_iter().collect();
        let replaced = present.release().into_iter();
        runs.replaced = replaced.map(|run| run.file).collect();
        runs.merging = Some(merging);
        self.owner.discard(spilled);
        self.pending.remove(&id);
        Ok(())
    }

    /// Writes runs and what is pending as one run, whose upload is to be finished; None if nothing
    /// is left of them.
    async fn merge_pending(
        &self,
        collection: &Arc<Collection>,
        runs: &[Run],
    ) -> Result<Option<(Run, Upload)>> {
        let pending = self.pending.get(&collection.id);
        let batches = pending.map(|pending| &pending.batches[..]);
        let batches = batches.unwrap_or_default();
        self.owner.merge(collection, runs, batches).await
    }

    /// Finishes the upload of the last run of a collection.
    async fn upload(&mut self, written: Option<(Run, Upload)>) -> Result<Option<Run>> {
        let Some((run, upload)) = written else {
            return Ok(None);
        };
        match self.owner.0.plant {
            Plant::ManifestBeforeRuns => self.late.get_mut().push(upload),
            _ => upload.finish().await?,
        }
        crash::point(crash::CHECKPOINT_WRITE);
        Ok(Some(run))
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

impl Drop for Checkpoint {
    /// What was written for nothing is garbage. What was submitted is not, if only by doubt.
    fn drop(&mut self) {
        let runs = std::mem::take(&mut self.runs).into_values();
        if self.submitted.is_none() {
            self.owner.discard(runs.flat_map(|runs| runs.added));
        }
    }
}
