//! Checkpoints: what changed in all collections up to one time, in one atomic step.
//!
//! ```text
//!   add ──> pending batches ──sort, add up──> run files ┐
//!                 (32 MiB spill early)                  ├─ durable, then ──> manifest N+1
//!   create, remove, time, metadata ─────────────────────┘      put only if absent
//!                                                                  │
//!   compact ──> merges runs that are due ──────────────> manifest ─┤
//!                                                                  v
//!                                        files of N alone are deleted, unless read
//! ```
//!
//! Everything that publishes a manifest goes through [`publish`], one at a time. Merging runs
//! beside it: a collection that is being merged gets new runs meanwhile, until there are so many
//! that a checkpoint waits for the merge and becomes one run with what is there ([`tiers`]).

mod compact;
mod merging;
mod pins;
mod publish;
mod write;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::Time;
use crate::crash;
use crate::error::{Error, Result};
use crate::lock::FolderLock;
use crate::manifest::{self, Manifest};
use crate::merge::BatchSize;
use crate::run::Run;
use crate::sim::Plant;
use crate::snapshot::Snapshot;
use crate::store::Store;
use crate::tiers;
use merging::Merges;
use pins::Pins;

pub(crate) use publish::{RUNS, newest_number, read as read_manifest};
pub use write::Checkpoint;

/// Sizes that are worth choosing in tests alone.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Rows of a batch in a run at most.
    pub batch_rows: usize,
    /// Bytes of the rows of such a batch at most, about.
    pub batch_bytes: usize,
    /// Updates of a collection that are written before the checkpoint is complete.
    pub spill_bytes: usize,
    /// Runs up to this are all one size.
    pub small_run_bytes: u64,
}

impl Default for Sizes {
    fn default() -> Sizes {
        Sizes {
            batch_rows: 8192,
            batch_bytes: 1 << 20,
            spill_bytes: 32 << 20,
            small_run_bytes: 64 << 10,
        }
    }
}

impl Sizes {
    fn batch(&self) -> BatchSize {
        BatchSize {
            rows: self.batch_rows.max(1),
            bytes: self.batch_bytes.max(1),
        }
    }
}

/// The checkpoints of a store that this process has claimed. Cheap to clone.
#[derive(Clone)]
pub struct Checkpoints(Arc<Inner>);

struct Inner {
    store: Store,
    epoch: u64,
    writer: u64,
    sizes: Sizes,
    plant: Plant,
    next_file: AtomicU64,
    current: Mutex<Arc<Manifest>>,
    pins: Mutex<Pins>,
    merges: Merges,
    /// Held while a manifest is put.
    publishing: tokio::sync::Mutex<publish::State>,
    /// Keeps the folder for as long as anybody may write.
    _lock: Option<Arc<FolderLock>>,
}

impl std::fmt::Debug for Checkpoints {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Checkpoints({:?}, epoch {})", self.0.store, self.0.epoch)
    }
}

impl Checkpoints {
    /// The newest checkpoint, to read from.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        // Pinned under the same lock that a new manifest needs, so that no file goes in between.
        let current = self.0.current.lock();
        let files = current.runs().map(|run| run.file.as_str());
        self.0.pins.lock().pin(files);
        Arc::new(Snapshot::new(self.clone(), current.clone()))
    }

    /// The newest checkpoint's time; 0 if there is none.
    pub fn time(&self) -> Time {
        self.0.current.lock().time
    }

    /// Begins a checkpoint with what changed since the one at `since`, which must be the newest.
    pub fn begin(&self, since: Time) -> Checkpoint {
        Checkpoint::new(self.clone(), since)
    }

    pub(crate) fn store(&self) -> &Store {
        &self.0.store
    }

    fn current(&self) -> Arc<Manifest> {
        self.0.current.lock().clone()
    }

    /// Whether a collection's runs leave no room for so many new bytes as a run of their own.
    fn is_crowded(&self, collection: u64, new_bytes: u64) -> bool {
        let merging = self.0.merges.files(collection);
        let current = self.current();
        let stored = current.collections.get(&collection);
        let runs = stored.map(|stored| &stored.runs[..]).unwrap_or_default();
        let Some(largest) = runs.iter().max_by_key(|run| run.bytes) else {
            return false;
        };
        // What is just becoming one with the largest run is no longer beside it.
        let becomes_one =
            |run: &Run| merging.contains(&largest.file) && merging.contains(&run.file);
        let beside = runs
            .iter()
            .filter(|run| *run != largest && !becomes_one(run));
        let beside: u64 = beside.map(|run| run.bytes).sum();
        tiers::is_crowded(
            largest.bytes,
            beside + new_bytes,
            self.0.sizes.small_run_bytes,
        )
    }

    fn new_file(&self) -> String {
        let number = self.0.next_file.fetch_add(1, Ordering::Relaxed);
        format!("{RUNS}/{:010}-{number:010}.arrow", self.0.epoch)
    }

    pub(crate) fn unpin<'a>(&self, files: impl Iterator<Item = &'a str>) {
        self.0.pins.lock().unpin(files);
    }

    fn discard(&self, runs: impl IntoIterator<Item = Run>) {
        // Taken apart before the lock is: what is dropped on the way may need it, too.
        let files: Vec<String> = runs.into_iter().map(|run| run.file).collect();
        self.0.pins.lock().discard(files);
    }
}

/// The epoch in the name of a run's file.
fn epoch_of(file: &str) -> Option<u64> {
    let name = file.rsplit('/').next()?;
    name.split_once('-')?.0.parse().ok()
}

fn fenced(store: &Store) -> Error {
    Error::Fenced(format!(
        "another server has taken over {store}: this one may not write any more"
    ))
}

/// What every opening needs to know.
pub(crate) struct Claim {
    pub(crate) store: Store,
    pub(crate) writer: u64,
    pub(crate) sizes: Sizes,
    pub(crate) plant: Plant,
    pub(crate) lock: Option<Arc<FolderLock>>,
}

impl Checkpoints {
    /// Takes the store over: puts a manifest like the newest one under the next number.
    ///
    /// From then on no other writer that is open can publish.
    pub(crate) async fn claim(claim: Claim) -> Result<Checkpoints> {
        let store = claim.store;
        let (current, older) = loop {
            let mut found = publish::newest(&store).await?;
            let older = std::mem::take(&mut found.older);
            let next = found.next();
            let mut manifest = found.manifest;
            manifest.number = next;
            manifest.epoch = next;
            manifest.writer = claim.writer;
            let bytes = manifest.encode()?;
            crash::point(crash::MANIFEST_PUT);
            if store.put_new(&manifest::path(next), bytes).await? {
                crash::point(crash::MANIFEST_PUT);
                break (manifest, older);
            }
        };
        let checkpoints = Checkpoints(Arc::new(Inner {
            epoch: current.epoch,
            writer: claim.writer,
            sizes: claim.sizes,
            plant: claim.plant,
            next_file: AtomicU64::new(0),
            current: Mutex::new(Arc::new(current)),
            pins: Mutex::default(),
            merges: Merges::default(),
            publishing: tokio::sync::Mutex::default(),
            store,
            _lock: claim.lock,
        }));
        checkpoints.remove_orphans(older).await?;
        Ok(checkpoints)
    }
}

#[cfg(test)]
mod tests;
