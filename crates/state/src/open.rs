//! Opening a store: take it over, read what is there.
//!
//! ```text
//!   lock the folder ──> claim the checkpoints ──> take the log over ──> Opened
//!   (local)             old writer: no more       old writer: no more
//!                       manifests                 records
//! ```
//!
//! Only then is the log read, so nothing can be acknowledged by anybody that is not seen here.

use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

use crate::checkpoint::{Checkpoints, Claim, Sizes, newest_number, read_manifest};
use crate::error::{Error, Result};
use crate::lock::FolderLock;
use crate::log::{self, TornTail};
use crate::log::{BindingLog, DiskFolder, FileLog, LogFolder, LogReader, LogSizes, ObjectLog};
use crate::manifest;
use crate::sim::Plant;
use crate::snapshot::Snapshot;
use crate::store::Store;

/// The folder of the log inside a local store.
const LOG: &str = "log";

/// What an opening needs from outside.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// A number unlike that of any other opening, as a random one.
    pub writer: u64,
    pub sizes: Sizes,
    pub log_sizes: LogSizes,
    /// A fault on purpose, for tests of tests.
    #[doc(hidden)]
    pub plant: Plant,
}

impl Options {
    /// The usual sizes.
    pub fn new(writer: u64) -> Options {
        Options {
            writer,
            ..Options::default()
        }
    }
}

/// A store that this process has taken over, and what was in it.
pub struct Opened {
    pub checkpoints: Checkpoints,
    pub log: Box<dyn BindingLog>,
    /// The newest checkpoint: its time, metadata and collections.
    pub checkpoint: Arc<Snapshot>,
    /// The records after it.
    pub records: Box<dyn LogReader>,
    /// What a crash left of an append, if it did; worth a line in the log.
    pub torn: Option<TornTail>,
}

impl std::fmt::Debug for Opened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Opened({:?})", self.checkpoint)
    }
}

/// Opens a store for writing, or creates it. Blocks for short times while a local log is read.
///
/// A local folder that another process has is [`Error::InUse`]; a bucket is taken over, and the
/// server that had it gets [`Error::Fenced`].
pub async fn open(store: &Store, options: Options) -> Result<Opened> {
    let Some(path) = store.folder_path() else {
        return open_with(store, None, None, options).await;
    };
    let lock = Arc::new(FolderLock::take(path)?);
    let path = path.join(LOG);
    let folder = open_folder(&path)?;
    open_with(store, Some(Arc::new(folder)), Some(lock), options).await
}

fn open_folder(path: &Path) -> Result<DiskFolder> {
    DiskFolder::new(path).map_err(|e| Error::io(&format!("creating {}", path.display()), &e))
}

/// Opens a store whose log is in a folder of its own kind, as a simulation needs it.
pub async fn open_with_folder(
    store: &Store,
    folder: Arc<dyn LogFolder>,
    options: Options,
) -> Result<Opened> {
    open_with(store, Some(folder), None, options).await
}

/// What can be told of a store without taking it over.
#[derive(Clone, Debug)]
pub struct Glance {
    /// The newest manifest, as a user knows it.
    pub place: String,
    /// What the last checkpoint has beside the collections.
    pub metadata: Value,
}

/// Looks at a store before it is opened, so that a program which is too old for it changes nothing
/// and ends no server that is not. None if the store is empty, or a server is just writing what
/// was to be looked at: opening it tells more.
pub async fn glance(store: &Store) -> Result<Option<Glance>> {
    let looked = async {
        let Some(number) = newest_number(store).await? else {
            return Ok(None);
        };
        let manifest = read_manifest(store, number).await?;
        let folder = store.folder_path().map(|path| path.join(LOG));
        match folder.filter(|path| path.is_dir()) {
            Some(path) => log::check_version(store, Some(&open_folder(&path)?)).await?,
            None => log::check_version(store, None).await?,
        }
        Ok(Some(Glance {
            place: store.locate(&manifest::path(number)),
            metadata: manifest.metadata,
        }))
    };
    match looked.await {
        Err(Error::Corrupt(_)) => Ok(None),
        looked => looked,
    }
}

async fn open_with(
    store: &Store,
    folder: Option<Arc<dyn LogFolder>>,
    lock: Option<Arc<FolderLock>>,
    options: Options,
) -> Result<Opened> {
    let checkpoints = Checkpoints::claim(Claim {
        store: store.clone(),
        writer: options.writer,
        sizes: options.sizes,
        plant: options.plant,
        lock,
    });
    let checkpoints = checkpoints.await?;
    let start = checkpoints.time();
    let (log, torn): (Box<dyn BindingLog>, _) = match folder {
        Some(folder) => {
            let (log, torn) = FileLog::open(folder, start, options.log_sizes, options.plant)?;
            (Box::new(log), torn)
        }
        None => (
            Box::new(ObjectLog::open(store, start, options.writer).await?),
            None,
        ),
    };
    if let Some(torn) = &torn {
        tracing::warn!("{torn}");
    }
    Ok(Opened {
        checkpoint: checkpoints.snapshot(),
        records: log.read_after(start),
        checkpoints,
        log,
        torn,
    })
}

#[cfg(test)]
mod tests;
