//! One server to a data folder.
//!
//! The lock belongs to the operating system: it goes with the process, however that ends, so a
//! crash leaves nothing to clean up. Buckets have no locks; there the numbered manifests and log
//! objects fence off whoever came first.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::Path;

use crate::error::{Error, Result};

/// Holds a folder until dropped.
#[derive(Debug)]
pub(crate) struct FolderLock {
    _file: File,
}

impl FolderLock {
    /// Fails with [`Error::InUse`], naming the holder's process, if somebody has the folder.
    pub(crate) fn take(folder: &Path) -> Result<FolderLock> {
        let path = folder.join("lock");
        let failed = |error| Error::io(&format!("locking {}", path.display()), &error);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let mut file = options.open(&path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(in_use(folder, &mut file)),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        file.set_len(0).map_err(failed)?;
        file.rewind().map_err(failed)?;
        writeln!(file, "{}", std::process::id()).map_err(failed)?;
        Ok(FolderLock { _file: file })
    }
}

fn in_use(folder: &Path, file: &mut File) -> Error {
    let mut holder = String::new();
    let _ = file.read_to_string(&mut holder);
    let holder = match holder.trim().parse::<u32>() {
        Ok(pid) => format!("process {pid}"),
        Err(_) => "another process".to_string(),
    };
    Error::InUse(format!(
        "data folder {} is in use by {holder}: stop it first, or choose another folder",
        folder.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_holder_is_refused_and_told_who_has_it() {
        let folder = tempfile::tempdir().unwrap();
        let held = FolderLock::take(folder.path()).unwrap();
        let error = FolderLock::take(folder.path()).unwrap_err();
        let pid = format!("process {}", std::process::id());
        assert!(
            matches!(&error, Error::InUse(text) if text.contains(&pid)),
            "{error}"
        );
        drop(held);
        FolderLock::take(folder.path()).unwrap();
    }
}
