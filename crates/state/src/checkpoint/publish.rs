//! How a manifest becomes the newest one, and what goes when it is.
//!
//! A put whose answer was lost leaves it *in doubt* whether the manifest is there. Whoever comes
//! next puts the same bytes again first: either they are there then, or another writer is.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, stream};
use serde_json::Value;

use super::{Checkpoints, epoch_of, fenced};
use crate::crash;
use crate::error::{Error, Result};
use crate::manifest::{self, Manifest};
use crate::store::Store;

/// The folder of run files.
pub(crate) const RUNS: &str = "runs";
/// Deletes under way at once.
const CONCURRENCY: usize = 16;

#[derive(Default)]
pub(super) struct State {
    in_doubt: Option<(Arc<Manifest>, Bytes)>,
    fenced: bool,
}

/// What a change makes of the newest manifest; false if there is nothing to change.
pub(super) type Change<'a> = dyn FnMut(&mut Manifest) -> Result<bool> + Send + 'a;

impl Checkpoints {
    /// Publishes the newest manifest with a change made to it; the number it got or, if the put
    /// failed, may have got, and how that went.
    ///
    /// `submitted` is the number that an earlier try of the same change may have got.
    pub(super) async fn publish(
        &self,
        submitted: Option<u64>,
        change: &mut Change<'_>,
    ) -> (Option<u64>, Result<()>) {
        let mut state = self.0.publishing.lock().await;
        if let Err(error) = self.settle(&mut state).await {
            return (submitted, Err(error));
        }
        if submitted.is_some() {
            // It was in doubt, and settled by now, maybe long ago.
            drop(state);
            self.collect_garbage().await;
            return (submitted, Ok(()));
        }
        let mut manifest = (*self.current()).clone();
        manifest.number += 1;
        manifest.epoch = self.0.epoch;
        manifest.writer = self.0.writer;
        let number = manifest.number;
        let bytes = match change(&mut manifest) {
            Ok(true) => manifest.encode(),
            Ok(false) => return (None, Ok(())),
            Err(error) => return (None, Err(error)),
        };
        let bytes = match bytes {
            Ok(bytes) => bytes,
            Err(error) => return (None, Err(error)),
        };
        state.in_doubt = Some((Arc::new(manifest), bytes));
        let settled = self.settle(&mut state).await;
        drop(state);
        if settled.is_ok() {
            self.collect_garbage().await;
        }
        (Some(number), settled)
    }

    /// Finds out whether a manifest that was put is there.
    pub(super) async fn settle_doubt(&self) -> Result<()> {
        let mut state = self.0.publishing.lock().await;
        if state.in_doubt.is_none() && !state.fenced {
            return Ok(());
        }
        self.settle(&mut state).await?;
        drop(state);
        self.collect_garbage().await;
        Ok(())
    }

    /// Makes sure that a manifest in doubt is the newest one.
    async fn settle(&self, state: &mut State) -> Result<()> {
        if state.fenced {
            return Err(fenced(self.store()));
        }
        let Some((manifest, bytes)) = &state.in_doubt else {
            return Ok(());
        };
        let path = manifest::path(manifest.number);
        crash::point(crash::MANIFEST_PUT);
        if !self.store().put_new(&path, bytes.clone()).await? {
            state.fenced = true;
            return Err(fenced(self.store()));
        }
        crash::point(crash::MANIFEST_PUT);
        self.replace(manifest.clone());
        state.in_doubt = None;
        Ok(())
    }

    /// Makes a durable manifest the newest one in memory, too.
    fn replace(&self, manifest: Arc<Manifest>) {
        let mut current = self.0.current.lock();
        let kept: HashSet<&str> = manifest.runs().map(|run| run.file.as_str()).collect();
        let mut garbage = vec![manifest::path(current.number)];
        let old = current.runs().map(|run| run.file.as_str());
        garbage.extend(old.filter(|file| !kept.contains(file)).map(String::from));
        self.0.pins.lock().discard(garbage);
        *current = manifest;
    }

    /// Deletes what nobody needs. What cannot be deleted now is tried again later.
    pub(super) async fn collect_garbage(&self) {
        let files = self.0.pins.lock().collectable();
        let deleted = stream::iter(files).map(|file| async move {
            let deleted = match manifest::number(&file) {
                Some(number) => self.retire(number).await,
                None => self.store().delete(&file).await,
            };
            match deleted {
                Ok(()) => self.0.pins.lock().collected(&file),
                Err(error) => tracing::warn!(%error, "an old file stays for now"),
            }
        });
        let mut deleted = deleted.buffer_unordered(CONCURRENCY);
        while deleted.next().await.is_some() {}
    }

    /// Removes a manifest that is not the newest; a claim's name stays taken.
    async fn retire(&self, number: u64) -> Result<()> {
        let path = manifest::path(number);
        match number == self.0.epoch {
            true => self.store().put(&path, manifest::tombstone()).await,
            false => self.store().delete(&path).await,
        }
    }

    /// Removes what crashes have left: old manifests, and runs of earlier writers that the newest
    /// manifest does not name. Runs of later writers are none of our business.
    pub(super) async fn remove_orphans(&self, older: Vec<u64>) -> Result<()> {
        for number in older {
            let path = manifest::path(number);
            let place = self.store().locate(&path);
            match Manifest::decode(&place, &self.store().get(&path).await?) {
                Ok(old) if old.is_claim() => {
                    self.store().put(&path, manifest::tombstone()).await?;
                }
                // Also one that is broken: no manifest but the newest is ever read.
                _ => self.store().delete(&path).await?,
            }
        }
        self.store().remove_staged(manifest::FOLDER);
        self.store().remove_staged(RUNS);
        let current = self.current();
        let named: HashSet<&str> = current.runs().map(|run| run.file.as_str()).collect();
        let listed = self.store().list(RUNS).await?;
        let orphans = listed.into_iter().map(|listed| listed.path).filter(|file| {
            let ours = epoch_of(file).is_some_and(|epoch| epoch < self.0.epoch);
            ours && !named.contains(file.as_str())
        });
        self.0.pins.lock().discard(orphans);
        self.collect_garbage().await;
        Ok(())
    }
}

/// The newest manifest of a store.
pub(super) struct Newest {
    /// Empty if there is none.
    pub(super) manifest: Manifest,
    /// Its number and those of older manifests that were not removed.
    pub(super) older: Vec<u64>,
}

impl Newest {
    /// The number after the newest.
    pub(super) fn next(&self) -> u64 {
        self.manifest.number + 1
    }
}

/// Finds the newest manifest. A store without any must be empty.
pub(super) async fn newest(store: &Store) -> Result<Newest> {
    let listed = store.list(manifest::FOLDER).await?;
    let tombstone = manifest::tombstone().len() as u64;
    let numbered = listed.iter().filter_map(|listed| {
        let number = manifest::number(&listed.path)?;
        Some((number, listed.bytes == tombstone))
    });
    let mut numbered: Vec<(u64, bool)> = numbered.collect();
    let Some((number, _)) = numbered.pop() else {
        if let Some(run) = store.list(RUNS).await?.first() {
            let text = format!("{store} has {} but no manifest", run.path);
            return Err(Error::Corrupt(text));
        }
        return Ok(Newest {
            manifest: Manifest {
                number: 0,
                epoch: 0,
                writer: 0,
                time: 0,
                collections: BTreeMap::new(),
                metadata: Value::Null,
            },
            older: vec![],
        });
    };
    let manifest = read(store, number).await?;
    let older = numbered.iter().filter(|(_, tombstone)| !tombstone);
    let older = older.map(|(number, _)| *number).chain([number]);
    Ok(Newest {
        manifest,
        older: older.collect(),
    })
}

/// The number of the newest manifest; None if there is none.
pub(crate) async fn newest_number(store: &Store) -> Result<Option<u64>> {
    let listed = store.list(manifest::FOLDER).await?;
    let mut numbers = listed.iter().rev();
    Ok(numbers.find_map(|listed| manifest::number(&listed.path)))
}

/// The manifest of a number.
pub(crate) async fn read(store: &Store, number: u64) -> Result<Manifest> {
    let path = manifest::path(number);
    let place = store.locate(&path);
    let manifest = Manifest::decode(&place, &store.get(&path).await?)?;
    match manifest.number == number {
        true => Ok(manifest),
        false => Err(Error::Corrupt(format!(
            "{place} says that its number is {}",
            manifest.number
        ))),
    }
}
