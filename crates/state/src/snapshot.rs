//! One checkpoint to read from, while later ones come and go.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use serde_json::Value;

use crate::Time;
use crate::checkpoint::Checkpoints;
use crate::collection::Collection;
use crate::error::{Error, Result};
use crate::manifest::{self, Manifest};
use crate::run::{Run, RunReader};

/// Bytes that one request of a scan brings, about.
const SCAN_BYTES: u64 = 4 << 20;

/// What a collection takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CollectionStatus {
    pub id: u64,
    pub name: String,
    pub runs: usize,
    /// Updates in all runs, also those that cancel each other.
    pub rows: u64,
    pub bytes: u64,
}

/// A checkpoint whose files stay until this is dropped.
pub struct Snapshot {
    owner: Checkpoints,
    manifest: Arc<Manifest>,
}

impl std::fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Snapshot({} at {})", self.number(), self.time())
    }
}

impl Snapshot {
    pub(crate) fn new(owner: Checkpoints, manifest: Arc<Manifest>) -> Snapshot {
        Snapshot { owner, manifest }
    }

    /// The number of the manifest.
    pub fn number(&self) -> u64 {
        self.manifest.number
    }

    /// The manifest, as a user knows it.
    pub fn place(&self) -> String {
        let path = manifest::path(self.manifest.number);
        self.owner.store().locate(&path)
    }

    /// The checkpoint's time; 0 if there never was one.
    pub fn time(&self) -> Time {
        self.manifest.time
    }

    /// What the caller put beside the collections; Null if there never was a checkpoint.
    pub fn metadata(&self) -> &Value {
        &self.manifest.metadata
    }

    pub fn collections(&self) -> impl Iterator<Item = &Arc<Collection>> {
        self.manifest.collections.values().map(|s| &s.collection)
    }

    /// What each collection takes.
    pub fn status(&self) -> Vec<CollectionStatus> {
        let stored = self.manifest.collections.values();
        let status = stored.map(|stored| CollectionStatus {
            id: stored.collection.id,
            name: stored.collection.name.clone(),
            runs: stored.runs.len(),
            rows: stored.runs.iter().map(|run| run.rows).sum(),
            bytes: stored.runs.iter().map(|run| run.bytes).sum(),
        });
        status.collect()
    }

    /// The updates that add up to a collection. Fails if there is no such collection.
    pub fn scan(self: &Arc<Self>, collection: u64) -> Result<Scan> {
        let stored = self.manifest.collections.get(&collection);
        let stored = stored.ok_or_else(|| {
            Error::InvalidUse(format!("there is no collection {collection} to read"))
        })?;
        Ok(Scan {
            schema: stored.collection.schema(),
            runs: stored.runs.iter().cloned().collect(),
            reader: None,
            snapshot: self.clone(),
        })
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        let files = self.manifest.runs().map(|run| run.file.as_str());
        self.owner.unpin(files);
    }
}

/// Reads a collection run by run: each run is sorted and has a row once, but the same row may be
/// in several runs, and its diffs add up. Holds about 4 MiB.
pub struct Scan {
    snapshot: Arc<Snapshot>,
    schema: SchemaRef,
    runs: VecDeque<Run>,
    reader: Option<RunReader>,
}

impl Scan {
    /// The row columns, `diff`, then the sums.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The next batch; None at the end. After an error that [can be retried](Error::can_retry) the
    /// next call goes on where this one was.
    pub async fn next(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            if let Some(reader) = &mut self.reader {
                if let Some(batch) = reader.next().await? {
                    return Ok(Some(batch));
                }
                self.reader = None;
            }
            let Some(run) = self.runs.pop_front() else {
                return Ok(None);
            };
            let store = self.snapshot.owner.store();
            let reader = RunReader::open(store, &run, &self.schema, SCAN_BYTES).await;
            if reader.is_err() {
                self.runs.push_front(run);
            }
            self.reader = Some(reader?);
        }
    }
}
