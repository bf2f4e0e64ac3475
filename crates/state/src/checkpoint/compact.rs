//! Merging runs, beside checkpoints and inside them.

use std::sync::Arc;

use arrow_array::RecordBatch;

use super::Checkpoints;
use super::merging::Merging;
use crate::collection::Collection;
use crate::error::{Error, Result};
use crate::manifest::Manifest;
use crate::merge::{Merge, Source, Stop};
use crate::order::RowOrder;
use crate::run::{Run, RunReader, RunWriter};
use crate::store::Upload;
use crate::tiers;

/// Bytes that one request of a merge brings for each run, about.
const READ_BYTES: u64 = 1 << 20;

impl Checkpoints {
    /// Merges the runs of one collection if that is due; false if nothing was.
    ///
    /// Call it after each checkpoint until it says false, beside checkpoints if you like. It holds
    /// a few MiB for each run it merges. An error leaves everything as it was.
    pub async fn compact(&self) -> Result<bool> {
        let Some((collection, merging)) = self.due() else {
            return Ok(false);
        };
        let due = |runs: &[Run]| self.due_of(runs);
        let inputs = merging.take(due).await?;
        if inputs.runs.is_empty() {
            // Others were faster: look again.
            return Ok(true);
        }
        let merged = match self.merge(&collection, &inputs.runs, &[]).await? {
            None => None,
            Some((run, upload)) => {
                upload.finish().await?;
                Some(run)
            }
        };
        let inputs = inputs.release();
        let mut change = |manifest: &mut Manifest| {
            let Some(stored) = manifest.collections.get_mut(&collection.id) else {
                return Ok(false);
            };
            stored.runs.retain(|run| !inputs.contains(run));
            stored.runs.splice(0..0, merged.clone());
            Ok(true)
        };
        let (number, published) = self.publish(None, &mut change).await;
        if number.is_none() {
            self.discard(merged);
        }
        published.map(|()| true)
    }

    /// A collection whose runs are due, and nobody merges them.
    fn due(&self) -> Option<(Arc<Collection>, Merging)> {
        let current = self.current();
        current.collections.values().find_map(|stored| {
            self.due_of(&stored.runs)?;
            let merging = Merging::try_start(self, stored.collection.id)?;
            Some((stored.collection.clone(), merging))
        })
    }

    fn due_of(&self, runs: &[Run]) -> Option<Vec<usize>> {
        let sizes: Vec<u64> = runs.iter().map(|run| run.bytes).collect();
        tiers::due(&sizes, self.0.sizes.small_run_bytes)
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
