//! A copy of one checkpoint and what the log holds after it, made while the server runs.
//!
//! Restoring is opening the copy. Its manifest is written last, so a copy that was not finished
//! does not open.

use std::sync::Arc;

use crate::Time;
use crate::error::{Error, Result};
use crate::lock::FolderLock;
use crate::log::{BindingLog, DiskFolder, FileLog, LogReader, LogSizes, ObjectLog};
use crate::manifest::{self, Manifest};
use crate::run::{Run, RunReader};
use crate::sim::Plant;
use crate::snapshot::Snapshot;
use crate::store::Store;

/// Bytes that are copied at once.
const COPY_BYTES: u64 = 4 << 20;
/// Records that go into the copy's log at once.
const RECORDS_AT_ONCE: usize = 256;

impl Snapshot {
    /// Copies this checkpoint and the records after it to an empty store, checks the copy, and
    /// returns the last time in it. An unfinished copy must be deleted by the caller.
    ///
    /// To have no gap between the two, ask the log for `tail` first, from a time no later than
    /// this checkpoint's, and only then for the snapshot.
    pub async fn backup(&self, tail: &mut dyn LogReader, target: &Store) -> Result<Time> {
        if !target.list("").await?.is_empty() {
            let text = format!("{target} is not empty: a backup needs a place of its own");
            return Err(Error::InvalidUse(text));
        }
        let _lock = target.folder_path().map(FolderLock::take).transpose()?;
        for stored in self.manifest().collections.values() {
            let schema = stored.collection.schema();
            for run in &stored.runs {
                copy(self.owner().store(), target, run).await?;
                let copied = RunReader::open(target, run, &schema, COPY_BYTES);
                copied.await?.verify().await?;
            }
        }
        let last = self.copy_log(tail, target).await?;
        self.put_manifest(target).await?;
        Ok(last)
    }

    async fn copy_log(&self, tail: &mut dyn LogReader, target: &Store) -> Result<Time> {
        let start = self.time();
        let mut log: Box<dyn BindingLog> = match target.folder_path() {
            None => Box::new(ObjectLog::create(target, start, self.manifest().writer).await?),
            Some(path) => {
                let failed = |error| Error::io(&format!("creating the log of {target}"), &error);
                let folder = Arc::new(DiskFolder::new(&path.join("log")).map_err(failed)?);
                let sizes = LogSizes::default();
                Box::new(FileLog::create(folder, start, sizes, Plant::Nothing)?)
            }
        };
        let mut records = vec![];
        while let Some(record) = tail.next().await? {
            if record.time > start {
                records.push(record);
            }
            if records.len() >= RECORDS_AT_ONCE {
                log.append(&records).await?;
                records.clear();
            }
        }
        log.append(&records).await?;
        Ok(log.last_time())
    }

    async fn put_manifest(&self, target: &Store) -> Result<()> {
        let manifest: Manifest = (**self.manifest()).clone();
        let path = manifest::path(manifest.number);
        match target.put_new(&path, manifest.encode()?).await? {
            true => Ok(()),
            false => Err(Error::InvalidUse(format!("{target} was written by others"))),
        }
    }
}

async fn copy(from: &Store, to: &Store, run: &Run) -> Result<()> {
    let mut upload = to.upload(run.file.clone());
    let mut start = 0;
    while start < run.bytes {
        let end = run.bytes.min(start + COPY_BYTES);
        let bytes = from.get_range(&run.file, run.bytes, start..end).await?;
        upload.write(&bytes).await?;
        start = end;
    }
    upload.finish().await
}
