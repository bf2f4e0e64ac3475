//! Backups: a copy of everything that is stored, also while a server runs, and the way back.
//!
//! Both directions are the same copy, made without the server's help; see [`ruslo_state::copy`].
//! The key that seals secrets is not part of a store. A bucket never gets it, and a folder only if
//! that is asked for: a copy that travels should not open what it seals.

use std::fs;
use std::io::{ErrorKind as IoKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use ruslo_repr::{Error, ErrorKind, Result};
use ruslo_state::{Copied, Store};

use super::refused;

/// What the key is called in a folder.
pub const KEY_NAME: &str = "secret.key";

/// A backup or a restore that is done.
#[derive(Clone, Debug)]
pub struct Backup {
    pub copied: Copied,
    /// Where the key was written, if it was.
    pub key: Option<PathBuf>,
}

/// Copies the store at `url` to `target`, an empty or new folder or an empty place in a bucket.
///
/// Everything acknowledged before is in it. `key_file` goes with it if that is given.
pub async fn backup(url: &str, target: &str, key_file: Option<&Path>) -> Result<Backup> {
    let from = existing(url)?;
    let key = key_file.map(read_key).transpose()?;
    let to = new_place(&from, target)?;
    let key = match (key, to.folder_path()) {
        (Some(_), None) => {
            let message = format!("the key may not go to {target}, next to what it seals");
            return Err(Error::new(ErrorKind::InvalidParameter, message));
        }
        (key, path) => key.zip(path.map(|path| path.join(KEY_NAME))),
    };
    copy(&from, &to, key).await
}

/// Copies a backup to `url`, an empty or new folder or an empty place in a bucket. A key that is
/// in the backup is written to `key_file`.
pub async fn restore(backup: &str, url: &str, key_file: &Path) -> Result<Backup> {
    let from = existing(backup)?;
    let kept = from.folder_path().map(|path| path.join(KEY_NAME));
    let key = match kept.filter(|kept| kept.exists()) {
        Some(kept) => Some(read_key(&kept)?),
        None => None,
    };
    let to = new_place(&from, url)?;
    copy(&from, &to, key.map(|key| (key, key_file.to_path_buf()))).await
}

/// The key is there before what needs it.
async fn copy(from: &Store, to: &Store, key: Option<(String, PathBuf)>) -> Result<Backup> {
    let written = match &key {
        Some((key, path)) => write_key(path, key)?,
        None => false,
    };
    match ruslo_state::copy(from, to).await {
        Ok(copied) => Ok(Backup {
            copied,
            key: key.map(|(_, path)| path),
        }),
        Err(error) => {
            if let Some((_, path)) = key.filter(|_| written) {
                let _ = fs::remove_file(path);
            }
            Err(refused(&error))
        }
    }
}

/// A store that is to be read: a folder is not made.
fn existing(url: &str) -> Result<Store> {
    if !url.contains("://") && !Path::new(url).is_dir() {
        let message = format!("there is no folder {url}");
        return Err(Error::new(ErrorKind::InvalidParameter, message));
    }
    Store::parse(url).map_err(|error| refused(&error))
}

/// A store that is to be written. A folder that is not there is made, for its owner alone.
fn new_place(from: &Store, url: &str) -> Result<Store> {
    let invalid = |message: String| Error::new(ErrorKind::InvalidParameter, message);
    if url == "memory" {
        return Err(invalid(
            "a copy in memory would be gone at once".to_string(),
        ));
    }
    if !url.contains("://") {
        let failed = |error| {
            let message = format!("cannot make the folder {url}: {error}");
            Error::new(ErrorKind::External, message)
        };
        let path = std::path::absolute(url).map_err(failed)?;
        if from
            .folder_path()
            .is_some_and(|from| path.starts_with(from))
        {
            let message = format!("{url} is within {from}: a copy needs a place of its own");
            return Err(invalid(message));
        }
        let mut builder = fs::DirBuilder::new();
        builder
            .recursive(true)
            .mode(0o700)
            .create(&path)
            .map_err(failed)?;
    }
    Store::parse(url).map_err(|error| refused(&error))
}

fn read_key(path: &Path) -> Result<String> {
    fs::read_to_string(path).map_err(|error| {
        let message = format!("cannot read the key file {}: {error}", path.display());
        Error::new(ErrorKind::External, message)
    })
}

/// Writes a key for its owner alone; false if the same one is there. Another one stays.
fn write_key(path: &Path, key: &str) -> Result<bool> {
    let failed = |error| {
        let message = format!("cannot write the key file {}: {error}", path.display());
        Error::new(ErrorKind::External, message)
    };
    match fs::read_to_string(path) {
        Ok(there) if there.trim() == key.trim() => return Ok(false),
        Ok(_) => {
            let message = format!("{} holds another key: move it away first", path.display());
            return Err(Error::new(ErrorKind::InvalidState, message));
        }
        Err(error) if error.kind() == IoKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    if let Some(folder) = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
    {
        let mut builder = fs::DirBuilder::new();
        builder
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(failed)?;
    }
    let mut file = options.open(path).map_err(failed)?;
    let written = file
        .write_all(key.as_bytes())
        .and_then(|()| file.sync_all());
    written.map_err(failed).map(|()| true)
}
