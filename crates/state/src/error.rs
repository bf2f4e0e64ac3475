//! What can go wrong with durable state, by what the caller must do about it.

use std::error::Error as StdError;
use std::io;

/// What the functions of this crate return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error named by what the caller must do. The texts name the file and never hold a secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The same call may succeed later: a network or device error that may pass.
    #[error("{0}")]
    Retry(String),
    /// The same call may succeed once there is space again.
    #[error("{0}")]
    NoSpace(String),
    /// The store refuses: somebody must correct permissions or credentials.
    #[error("{0}")]
    Denied(String),
    /// Another process holds the data folder: stop it, or use another folder.
    #[error("{0}")]
    InUse(String),
    /// Another writer has taken the store over: stop at once and write nothing more.
    #[error("{0}")]
    Fenced(String),
    /// Durable bytes are missing or not what was written: restore a backup.
    #[error("{0}")]
    Corrupt(String),
    /// The data was written by a newer version: use that one.
    #[error("{0}")]
    UnsupportedVersion(String),
    /// The log does not know its own tail any more: open the store anew.
    #[error("{0}")]
    Reopen(String),
    /// The caller broke the contract of the function, or gave an address that means nothing.
    #[error("{0}")]
    InvalidUse(String),
}

impl Error {
    /// Whether the same call, with the same arguments, may succeed later.
    pub fn can_retry(&self) -> bool {
        matches!(self, Error::Retry(_) | Error::NoSpace(_))
    }

    /// Classifies an error of the operating system met while `doing` something.
    pub(crate) fn io(doing: &str, error: &io::Error) -> Error {
        kind_of(error)(format!("{doing}: {error}"))
    }
}

/// A variant of [`Error`] that still lacks its text.
pub(crate) type Kind = fn(String) -> Error;

/// The kind that fits an error of the operating system.
pub(crate) fn kind_of(error: &io::Error) -> Kind {
    use io::ErrorKind::*;
    match error.kind() {
        StorageFull | QuotaExceeded | FileTooLarge => Error::NoSpace,
        PermissionDenied | ReadOnlyFilesystem => Error::Denied,
        _ => Error::Retry,
    }
}

/// The error of the operating system that caused `error`, if one did.
pub(crate) fn io_cause<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a io::Error> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            return Some(io);
        }
        cause = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_may_be_retried_and_a_read_only_one_not() {
        let full = Error::io("writing", &io::Error::from(io::ErrorKind::StorageFull));
        let fixed = Error::io(
            "writing",
            &io::Error::from(io::ErrorKind::ReadOnlyFilesystem),
        );
        assert!(matches!(full, Error::NoSpace(_)) && full.can_retry());
        assert!(matches!(fixed, Error::Denied(_)) && !fixed.can_retry());
    }
}
