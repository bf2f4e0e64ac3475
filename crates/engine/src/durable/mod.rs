//! What survives the process: the catalog, rows of tables, how far sources were read.
//!
//! ```text
//!   coordinator ──what a time holds──> Appender ──> binding log      before the time is visible
//!
//!   start ──> Store ──> History ──> objects as of the last time ──> the same times again
//! ```
//!
//! Everything durable goes through `ruslo_state`; what its bytes mean to the engine is said here.
//! Secrets are sealed before they get there, see [`seal`].

mod appender;
mod backup;
mod bad_rows;
mod checkpoint;
mod definition;
mod history;
mod recover;
mod restore;
mod seal;
mod status;

use std::path::{Path, PathBuf};
use std::time::Duration;

use ruslo_repr::{Error, ErrorKind, Result};
use ruslo_state::{Checkpoints, Opened, Options, Store};

use crate::host::{Host, Plant};

pub(crate) use appender::{Appender, LogEvent, TimeRecord};
pub use backup::{Backup, KEY_NAME, backup, restore};
use checkpoint::Metadata;
pub(crate) use checkpoint::{CheckpointEvent, Checkpointer, Cut, Part, object_of};
pub(crate) use definition::{Change, Definition, Image, SourceStart};
pub(crate) use history::{Bound, History, PastRows};
pub(crate) use recover::{Deletes, Recovering, is_something_broken, recover};
pub(crate) use seal::Sealer;
pub(crate) use status::Statuses;

/// What to do with data of a version that is not ours.
const OTHER_VERSION: &str = "Start the version that wrote the data, or a newer one.";

/// Where a server keeps what must survive it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Storage {
    /// Nowhere: a restart begins with nothing.
    Memory,
    Store {
        /// A folder, or an `s3://bucket/prefix`.
        url: String,
        /// The key that seals secrets; made at the first start. Readable by the owner only.
        key_file: PathBuf,
        /// How often what has changed goes into a checkpoint.
        checkpoint_interval: Duration,
    },
}

/// The open store of a server.
pub(crate) struct Durable {
    pub(crate) checkpoints: Checkpoints,
    pub(crate) sealer: Sealer,
    pub(crate) checkpoint_interval: Duration,
}

/// Opens the store and reads everything that happened since its last checkpoint.
pub(crate) async fn open(
    url: &str,
    key_file: &Path,
    checkpoint_interval: Duration,
    host: &Host,
) -> Result<(Durable, Box<dyn ruslo_state::BindingLog>, History)> {
    // First, since it makes the folder readable by its owner alone.
    let sealer = Sealer::open(key_file)?;
    let (store, folder) = match &host.store {
        Some(given) => (given.store.clone(), given.log.clone()),
        None => (Store::parse(url).map_err(|error| refused(&error))?, None),
    };
    let found = ruslo_state::glance(&store).await;
    if let Some(found) = found.map_err(|error| refused(&error))? {
        Metadata::read(&found.metadata)?.image(&found.place)?;
    }
    let mut options = Options::new(seal::random_number()?);
    if host.plant == Plant::AcknowledgeBeforeSync {
        options.plant = ruslo_state::sim::Plant::AcknowledgeBeforeSync;
    }
    let opened = match folder {
        Some(folder) => ruslo_state::open_with_folder(&store, folder, options).await,
        None => ruslo_state::open(&store, options).await,
    };
    let Opened {
        checkpoints,
        log,
        checkpoint,
        records,
        torn: _,
    } = opened.map_err(|error| refused(&error))?;
    let again = log.read_after(checkpoint.time());
    let history = History::read(&checkpoint, records, again).await?;
    let durable = Durable {
        checkpoints,
        sealer,
        checkpoint_interval,
    };
    Ok((durable, log, history))
}

/// An error of the store, with what to do about it.
pub(crate) fn refused(error: &ruslo_state::Error) -> Error {
    use ruslo_state::Error::*;
    let (kind, hint) = match error {
        Retry(_) => (ErrorKind::External, None),
        NoSpace(_) => (ErrorKind::External, Some("Free some space.")),
        Denied(_) => (
            ErrorKind::External,
            Some("Give this user the right to read and write there, or choose another --data-dir."),
        ),
        InUse(_) => (
            ErrorKind::InvalidState,
            Some("Stop the other server, or choose another --data-dir."),
        ),
        Fenced(_) => (
            ErrorKind::InvalidState,
            Some("Only one server may write to a store."),
        ),
        Corrupt(_) => (
            ErrorKind::InvalidState,
            Some("Restore a backup of the data."),
        ),
        UnsupportedVersion(_) => (ErrorKind::InvalidState, Some(OTHER_VERSION)),
        Reopen(_) => (ErrorKind::External, Some("Start the server again.")),
        InvalidUse(_) => (ErrorKind::InvalidParameter, None),
    };
    let error = Error::new(kind, error.to_string());
    match hint {
        Some(hint) => error.with_hint(hint),
        None => error,
    }
}
