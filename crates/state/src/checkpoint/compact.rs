//! Merging runs, beside checkpoints and inside them.

use std::sync::Arc;

use arrow_array::RecordBatch;

use super::Checkpoints;
use crate::collection::Collection;
use crate::error::{Error, Result};
use crate::manifest::{Manifest, Stored};
use crate::merge::{Merge, Source, Stop};
use crate::order::RowOrder;
use crate::run::{Run, RunReader, RunWriter};
use crate::store::Upload;
use crate::tiers;

/// Bytes that one request of a merge brings for each run, about.
const READ_BYTES: u64 = 1 << 20;

/// The right to merge a collection's runs, until dropped.
pub(super) struct Merging {
    owner: Checkpoints,
    collection: u64,
}

impl Merging {
    pub(super) fn start(owner: &Checkpoints, collection: u64) -> Option<Merging> {
        let free = owner.0.pins.lock().start_merging(collection);
        free.then(|| Merging {
            owner: owner.clone(),
            collection,
        })
    }
}

impl Drop for Merging {
    fn drop(&mut self) {
        self.owner.0.pins.lock().end_merging(self.collection);
    }
}

/// Runs to become one.
struct Due {
    collection: Arc<Collection>,
    runs: Vec<Run>,
    _merging: Merging,
}

impl Checkpoints {
    /// Merges the runs of one collection if that is due; false if nothing was.
    ///
    /// Call it after each checkpoint until it says false, beside checkpoints if you like. It holds
    /// a few MiB for each run it merges. An error leaves everything as it was.
    pub async fn compact(&self) -> Result<bool> {
        let Some(due) = self.due() else {
            return Ok(false);
        };
        // A merge or checkpoint before us may be in doubt, or just through: look again, now that
        // nobody else may merge.
        self.settle_doubt().await?;
        let now = self.runs_of(due.collection.id);
        if !due.runs.iter().all(|run| now.contains(run)) {
            return Ok(true);
        }
        // The files stay while they are read, also if the collection is removed.
        let snapshot = self.snapshot();
        let merged = match self.merge(&due.collection, &due.runs, &[]).await? {
            None => None,
            Some((run, upload)) => {
                upload.finish().await?;
                Some(run)
            }
        };
        drop(snapshot);
        let id = due.collection.id;
        let mut used = false;
        let mut change = |manifest: &mut Manifest| {
            if let Some(stored) = manifest.collections.get_mut(&id) {
                used = due.runs.iter().all(|run| stored.runs.contains(run));
                if used {
                    stored.runs.retain(|run| !due.runs.contains(run));
                    stored.runs.splice(0..0, merged.clone());
                }
            }
            Ok(used)
        };
        let (number, published) = self.publish(None, &mut change).await;
        if number.is_none() {
            self.discard(merged);
        }
        published.map(|()| true)
    }

    fn due(&self) -> Option<Due> {
        let current = self.current();
        current.collections.values().find_map(|stored| {
            let Stored { collection, runs } = stored;
            let sizes: Vec<u64> = runs.iter().map(|run| run.bytes).collect();
            let chosen = tiers::due(&sizes, self.0.sizes.small_run_bytes)?;
            Some(Due {
                _merging: Merging::start(self, collection.id)?,
                collection: collection.clone(),
                runs: chosen.into_iter().map(|run| runs[run].clone()).collect(),
            })
        })
    }

    /// Writes the sum of runs and batches as one run, whose upload is to be finished; None if
    /// nothing is left.
    pub(super) async fn merge(
        &self,
        collection: &Arc<Collection>,
        runs: &[Run],
        batches: &[RecordBatch],
    ) -> Result<Option<(Run, Upload)>> {
        let order = RowOrder::new(&collection.rows)?;
        let sorted = batches.iter().map(|batch| order.sort(batch));
        let sorted: Vec<RecordBatch> = sorted.collect::<Result<_>>()?;
        let mut resorted = vec![false; runs.len()];
        loop {
            let sources = self.sources(collection, runs, &resorted).await?;
            let (mut sources, origins): (Vec<Source>, Vec<Option<usize>>) =
                sources.into_iter().unzip();
            let memory = sorted.iter().cloned();
            sources.extend(memory.map(|batch| Source::Memory(Some(batch))));
            match self.write_run(collection, sources).await {
                Ok(written) => return Ok(written),
                Err(Stop::Failed(error)) => return Err(error),
                Err(Stop::Unordered(source)) => {
                    let run = origins.get(source).copied().flatten().ok_or_else(|| {
                        Error::InvalidUse("sorted updates are not in order".into())
                    })?;
                    let file = &runs[run].file;
                    tracing::warn!(
                        file,
                        "a run is in another order than ours; sorting it again"
                    );
                    resorted[run] = true;
                }
            }
        }
    }

    /// The inputs of a merge and the run each is, so far as it is read in its own order.
    async fn sources(
        &self,
        collection: &Collection,
        runs: &[Run],
        resorted: &[bool],
    ) -> Result<Vec<(Source, Option<usize>)>> {
        let schema = collection.schema();
        let order = RowOrder::new(&collection.rows)?;
        let mut sources = vec![];
        for (i, run) in runs.iter().enumerate() {
            let mut reader = RunReader::open(self.store(), run, &schema, READ_BYTES).await?;
            if !resorted[i] {
                sources.push((Source::Run(Box::new(reader)), Some(i)));
                continue;
            }
            while let Some(batch) = reader.next().await? {
                sources.push((Source::Memory(Some(order.sort(&batch)?)), None));
            }
        }
        Ok(sources)
    }

    async fn write_run(
        &self,
        collection: &Collection,
        sources: Vec<Source>,
    ) -> Result<Option<(Run, Upload)>, Stop> {
        let mut merge = Merge::new(collection, sources, self.0.sizes.batch()).await?;
        let Some(first) = merge.next().await? else {
            return Ok(None);
        };
        let schema = collection.schema();
        let mut writer = RunWriter::new(self.store(), self.new_file(), &schema, &first)?;
        match write_all(&mut writer, &mut merge, first).await {
            Ok(()) => Ok(Some(writer.finish().await?)),
            Err(stop) => {
                writer.abort().await;
                Err(stop)
            }
        }
    }
}

async fn write_all(
    writer: &mut RunWriter,
    merge: &mut Merge,
    first: RecordBatch,
) -> Result<(), Stop> {
    let mut next = Some(first);
    while let Some(batch) = next {
        writer.write(&batch).await?;
        next = merge.next().await?;
    }
    Ok(())
}
