//! Who may merge a collection's runs: one at a time, in the order in which they asked.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::OwnedMutexGuard;

use super::Checkpoints;
use crate::error::Result;
use crate::run::Run;

/// Merges under way, by collection.
#[derive(Default)]
pub(super) struct Merges(Mutex<HashMap<u64, Place>>);

#[derive(Default)]
struct Place {
    turn: Arc<tokio::sync::Mutex<()>>,
    /// Files that become one.
    files: HashSet<String>,
}

impl Merges {
    /// The files of a collection that become one just now.
    pub(super) fn files(&self, collection: u64) -> HashSet<String> {
        let places = self.0.lock();
        let place = places.get(&collection);
        place.map(|place| place.files.clone()).unwrap_or_default()
    }

    fn turn(&self, collection: u64) -> Arc<tokio::sync::Mutex<()>> {
        let mut places = self.0.lock();
        places.entry(collection).or_default().turn.clone()
    }
}

/// The right to merge a collection's runs, until dropped.
pub(super) struct Merging {
    owner: Checkpoints,
    collection: u64,
    _turn: OwnedMutexGuard<()>,
}

impl Merging {
    /// None if somebody else has it, or waits for it.
    pub(super) fn try_start(owner: &Checkpoints, collection: u64) -> Option<Merging> {
        let turn = owner.0.merges.turn(collection).try_lock_owned().ok()?;
        Some(Merging::new(owner, collection, turn))
    }

    /// Waits for the merge under way.
    pub(super) async fn start(owner: &Checkpoints, collection: u64) -> Merging {
        let turn = owner.0.merges.turn(collection).lock_owned().await;
        Merging::new(owner, collection, turn)
    }

    fn new(owner: &Checkpoints, collection: u64, turn: OwnedMutexGuard<()>) -> Merging {
        Merging {
            owner: owner.clone(),
            collection,
            _turn: turn,
        }
    }

    /// Takes up those of the collection's runs that are chosen, by position.
    pub(super) async fn take(
        &self,
        choose: impl FnOnce(&[Run]) -> Option<Vec<usize>>,
    ) -> Result<Inputs> {
        // A merge or checkpoint before us may be in doubt. With this right, none can follow.
        self.owner.settle_doubt().await?;
        // Pinned under the same lock that a new manifest needs, so that no file goes in between.
        let current = self.owner.0.current.lock();
        let stored = current.collections.get(&self.collection);
        let runs = stored.map(|stored| &stored.runs[..]).unwrap_or_default();
        let chosen = choose(runs).unwrap_or_default();
        let runs: Vec<Run> = chosen.into_iter().map(|run| runs[run].clone()).collect();
        let files = runs.iter().map(|run| run.file.as_str());
        self.owner.0.pins.lock().pin(files.clone());
        if let Some(place) = self.owner.0.merges.0.lock().get_mut(&self.collection) {
            place.files = files.map(String::from).collect();
        }
        Ok(Inputs {
            owner: self.owner.clone(),
            runs,
        })
    }
}

impl Drop for Merging {
    fn drop(&mut self) {
        let mut places = self.owner.0.merges.0.lock();
        if let Some(place) = places.get_mut(&self.collection) {
            place.files.clear();
            // The place and this have it; who waits has it, too.
            if Arc::strong_count(&place.turn) == 2 {
                places.remove(&self.collection);
            }
        }
    }
}

/// Runs to be read, whose files stay until this is dropped.
pub(super) struct Inputs {
    owner: Checkpoints,
    pub(super) runs: Vec<Run>,
}

impl Inputs {
    /// The runs, whose files may go now.
    pub(super) fn release(mut self) -> Vec<Run> {
        self.unpin();
        std::mem::take(&mut self.runs)
    }

    fn unpin(&self) {
        self.owner
            .unpin(self.runs.iter().map(|run| run.file.as_str()));
    }
}

impl Drop for Inputs {
    fn drop(&mut self) {
        self.unpin();
    }
}
