//! A copy of a store, made from outside while a server may be writing it: a backup, or back again.
//!
//! ```text
//!   newest manifest, of T ──> log after T ──> runs, small ones first ──> manifest of the copy
//!       ^                                           │
//!       └── a newer one is there, and a file gone <─┘    runs that were copied are kept
//! ```
//!
//! The copy is what a crash now would leave: a checkpoint, and every record after it. So it has all
//! that was acknowledged when it began, and the server need not know of it. Its manifest is
//! written last, so a copy that was not finished does not open.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};

use crate::Time;
use crate::checkpoint::{RUNS, newest_number, read_manifest};
use crate::error::{Error, Result};
use crate::lock::FolderLock;
use crate::log::{BindingLog, DiskFolder, FileLog, LogFolder, LogSizes, LogVisitor};
use crate::log::{ObjectLog, Record};
use crate::manifest::{self, Manifest};
use crate::run::{Run, RunReader};
use crate::sim::Plant;
use crate::store::Store;

const LOG: &str = "log";
/// Bytes that are copied at once.
const COPY_BYTES: u64 = 4 << 20;
/// Runs that are copied at once.
const CONCURRENCY: usize = 4;
/// Records that go into the copy's log at once.
const RECORDS_AT_ONCE: usize = 256;
/// How often files may be gone before they were copied.
const TRIES_MAX: usize = 100;

/// What was copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copied {
    /// The time of the checkpoint.
    pub checkpoint: Time,
    /// The last time, which the log has.
    pub last: Time,
    pub records: u64,
    pub runs: usize,
    /// The bytes of the runs.
    pub bytes: u64,
    /// How often the server was faster, and a newer checkpoint was taken instead.
    pub retries: usize,
}

/// Copies a store to another that must be empty, and checks the copy. After an error nothing of it
/// stays, as far as that can be helped.
pub async fn copy(from: &Store, to: &Store) -> Result<Copied> {
    let folder = from.folder_path().map(|path| path.join(LOG));
    // A log folder is made with the first segment; reading must not make one.
    let folder = match folder.filter(|path| path.is_dir()) {
        None if from.folder_path().is_some() => return Err(nothing(from)),
        None => None,
        Some(path) => Some(Arc::new(open_folder(from, &path)?) as Arc<dyn LogFolder>),
    };
    copy_with_folder(from, folder, to).await
}

/// Copies a store whose log is in a folder of its own kind, as a simulation needs it.
pub async fn copy_with_folder(
    from: &Store,
    folder: Option<Arc<dyn LogFolder>>,
    to: &Store,
) -> Result<Copied> {
    if from.contains(to) {
        let text = format!("{to} is within {from}: a copy needs a place of its own");
        return Err(Error::InvalidUse(text));
    }
    if let Some(found) = to.any_content().await? {
        let text = format!("{to} is not empty, it has {found}: choose an empty or new place");
        return Err(Error::InvalidUse(text));
    }
    let lock = to.folder_path().map(FolderLock::take).transpose()?;
    let mut copy = Copy {
        from,
        folder,
        to,
        runs: BTreeSet::new(),
    };
    let copied = copy.make().await;
    if copied.is_err() {
        copy.undo().await;
    }
    drop(lock);
    copied
}

fn nothing(from: &Store) -> Error {
    Error::InvalidUse(format!("{from} holds no data of a server"))
}

fn open_folder(store: &Store, path: &std::path::Path) -> Result<DiskFolder> {
    let failed = |error| Error::io(&format!("opening the log of {store}"), &error);
    DiskFolder::new(path).map_err(failed)
}

struct Copy<'a> {
    from: &'a Store,
    /// The log, if it is files.
    folder: Option<Arc<dyn LogFolder>>,
    to: &'a Store,
    /// Files that the copy has.
    runs: BTreeSet<String>,
}

impl Copy<'_> {
    async fn make(&mut self) -> Result<Copied> {
        let mut retries = 0;
        loop {
            let number = newest_number(self.from).await?;
            let number = number.ok_or_else(|| nothing(self.from))?;
            match self.attempt(number).await {
                Ok(copied) => return Ok(Copied { retries, ..copied }),
                Err(Error::Corrupt(text)) => {
                    // Whatever is gone or cut off belongs to the past by now, or is really broken.
                    if newest_number(self.from).await? == Some(number) {
                        return Err(Error::Corrupt(text));
                    }
                    retries += 1;
                    if retries == TRIES_MAX {
                        return Err(Error::Retry(format!(
                            "files of {} went {TRIES_MAX} times before they were copied, last: \
                             {text}; try again when less changes, or with a larger checkpoint \
                             interval",
                            self.from
                        )));
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn attempt(&mut self, number: u64) -> Result<Copied> {
        let manifest = read_manifest(self.from, number).await?;
        let start = manifest.time;
        let mut tail = LogVisitor::new(self.from, self.folder.clone(), start).await?;
        self.remove(LOG).await?;
        let (last, records) = self.copy_log(&manifest, &mut tail).await?;
        self.copy_runs(&manifest).await?;
        let path = manifest::path(number);
        if !self.to.put_new(&path, manifest.encode()?).await? {
            let text = format!("{} was written by others", self.to);
            return Err(Error::InvalidUse(text));
        }
        Ok(Copied {
            checkpoint: start,
            last,
            records,
            runs: manifest.runs().count(),
            bytes: manifest.runs().map(|run| run.bytes).sum(),
            retries: 0,
        })
    }

    /// The last time in the log, and how many records it has.
    async fn copy_log(&self, manifest: &Manifest, tail: &mut LogVisitor) -> Result<(Time, u64)> {
        let mut log: Box<dyn BindingLog> = match self.to.folder_path() {
            None => Box::new(ObjectLog::create(self.to, manifest.time, manifest.writer).await?),
            Some(path) => {
                let folder = Arc::new(open_folder(self.to, &path.join(LOG))?);
                let sizes = LogSizes::default();
                let log = FileLog::create(folder, manifest.time, sizes, Plant::Nothing)?;
                Box::new(log)
            }
        };
        let mut count = 0;
        let mut records: Vec<Record> = vec![];
        while let Some(record) = tail.next().await? {
            records.push(record);
            count += 1;
            if records.len() >= RECORDS_AT_ONCE {
                log.append(&records).await?;
                records.clear();
            }
        }
        log.append(&records).await?;
        Ok((log.last_time(), count))
    }

    /// Copies the runs that are not there yet. Those that are merged soonest come first.
    async fn copy_runs(&mut self, manifest: &Manifest) -> Result<()> {
        let stored = manifest.collections.values();
        let runs = stored.flat_map(|stored| stored.runs.iter().map(move |run| (run, stored)));
        let mut runs: Vec<_> = runs.collect();
        runs.sort_by_key(|(run, _)| run.bytes);
        let named: BTreeSet<String> = manifest.runs().map(|run| run.file.clone()).collect();
        let missing = runs
            .iter()
            .filter(|(run, _)| !self.runs.contains(&run.file));
        let (from, to) = (self.from, self.to);
        let copies = missing.map(|(run, stored)| {
            let schema = stored.collection.schema();
            async move {
                copy_run(from, to, run).await?;
                let copied = RunReader::open(to, run, &schema, COPY_BYTES).await?;
                copied.verify().await?;
                Ok::<_, Error>(run.file.clone())
            }
        });
        let copies: Vec<_> = copies.collect();
        let mut copies = stream::iter(copies).buffer_unordered(CONCURRENCY);
        while let Some(file) = copies.try_next().await? {
            self.runs.insert(file);
        }
        drop(copies);
        for file in self.runs.difference(&named) {
            self.to.delete(file).await?;
        }
        self.runs = named;
        Ok(())
    }

    async fn remove(&self, folder: &str) -> Result<()> {
        for listed in self.to.list(folder).await? {
            self.to.delete(&listed.path).await?;
        }
        Ok(())
    }

    /// Removes what was copied. The error before it is the one to be told.
    async fn undo(&self) {
        for below in [manifest::FOLDER, RUNS, LOG] {
            let removed = self.remove(below).await;
            if let Some(path) = self.to.folder_path() {
                self.to.remove_staged(below);
                // It stays if there is something else in it.
                let _ = std::fs::remove_dir(path.join(below));
            }
            if let Err(error) = removed {
                tracing::warn!(%error, "a part of the copy stays");
            }
        }
    }
}

async fn copy_run(from: &Store, to: &Store, run: &Run) -> Result<()> {
    let mut upload = to.upload(run.file.clone());
    let mut start = 0;
    while start < run.bytes {
        let end = run.bytes.min(start + COPY_BYTES);
        let written = match from.get_range(&run.file, run.bytes, start..end).await {
            Ok(bytes) => upload.write(&bytes).await,
            Err(error) => Err(error),
        };
        if let Err(error) = written {
            upload.abort().await;
            return Err(error);
        }
        start = end;
    }
    upload.finish().await
}
