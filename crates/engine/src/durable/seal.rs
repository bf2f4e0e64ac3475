//! Secrets at rest: sealed with a key that is a file of its own, never part of what is stored.
//!
//! ```text
//!   key file (0600, 32 random bytes as hex) ──> AES-256-GCM ──> base64(nonce ‖ sealed text ‖ tag)
//! ```

use std::fs;
use std::io::{ErrorKind as IoKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};
use ruslo_repr::{Error, ErrorKind, Result};

const KEY_BYTES: usize = 32;

/// Seals and opens texts with one key.
pub(crate) struct Sealer {
    key: LessSafeKey,
    key_file: String,
    random: SystemRandom,
}

impl Sealer {
    /// Reads the key file, or makes it with a new key if there is none.
    pub(crate) fn open(key_file: &Path) -> Result<Sealer> {
        let name = key_file.display().to_string();
        let failed = |doing: &str, error: std::io::Error| {
            let message = format!("cannot {doing} the key file {name}: {error}");
            Error::new(ErrorKind::External, message)
                .with_hint("Choose a folder this user may write with --data-dir, or --key-file.")
        };
        let random = SystemRandom::new();
        let text = match fs::read_to_string(key_file) {
            Ok(text) => text,
            Err(error) if error.kind() == IoKind::NotFound => {
                create(key_file, &random).map_err(|error| failed("create", error))?
            }
            Err(error) => return Err(failed("read", error)),
        };
        let key = from_hex(text.trim()).ok_or_else(|| {
            let message = format!("the key file {name} does not hold {KEY_BYTES} bytes as hex");
            Error::new(ErrorKind::InvalidState, message)
        })?;
        let key = UnboundKey::new(&AES_256_GCM, &key)
            .map_err(|_| Error::internal("a key was not taken"))?;
        Ok(Sealer {
            key: LessSafeKey::new(key),
            key_file: name,
            random,
        })
    }

    pub(crate) fn seal(&self, text: &str) -> Result<String> {
        let broken = |_| Error::internal("a secret could not be sealed");
        let mut nonce = [0; NONCE_LEN];
        self.random.fill(&mut nonce).map_err(broken)?;
        let mut sealed = text.as_bytes().to_vec();
        let unique = Nonce::assume_unique_for_key(nonce);
        self.key
            .seal_in_place_append_tag(unique, Aad::empty(), &mut sealed)
            .map_err(broken)?;
        Ok(STANDARD.encode([&nonce[..], &sealed].concat()))
    }

    pub(crate) fn open_sealed(&self, sealed: &str) -> Result<String> {
        let wrong = || {
            let message = format!(
                "stored secrets cannot be read with the key in {}",
                self.key_file
            );
            Error::new(ErrorKind::InvalidState, message)
                .with_hint("Bring back the key file that belongs to this data.")
        };
        let mut bytes = STANDARD.decode(sealed).map_err(|_| wrong())?;
        if bytes.len() < NONCE_LEN {
            return Err(wrong());
        }
        let mut text = bytes.split_off(NONCE_LEN);
        let nonce = Nonce::try_assume_unique_for_key(&bytes).map_err(|_| wrong())?;
        let opened = self
            .key
            .open_in_place(nonce, Aad::empty(), &mut text)
            .map_err(|_| wrong())?;
        String::from_utf8(opened.to_vec()).map_err(|_| wrong())
    }
}

/// A number that no other start of a server has.
pub(super) fn random_number() -> Result<u64> {
    let mut bytes = [0; 8];
    let filled = SystemRandom::new().fill(&mut bytes);
    filled.map_err(|_| Error::internal("the system gives no random numbers"))?;
    Ok(u64::from_le_bytes(bytes))
}

/// Makes the file whole or not at all: under another name first.
fn create(key_file: &Path, random: &SystemRandom) -> std::io::Result<String> {
    let mut key = [0; KEY_BYTES];
    let filled = random.fill(&mut key);
    filled.map_err(|_| std::io::Error::other("the system gives no random numbers"))?;
    let text: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
    if let Some(folder) = key_file.parent() {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)?;
    }
    let new = key_file.with_extension("new");
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = options.open(&new)?;
    file.write_all(format!("{text}\n").as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, key_file)?;
    if let Some(folder) = key_file.parent() {
        // The name must be as durable as what will be sealed with the key.
        fs::File::open(folder)?.sync_all()?;
    }
    Ok(text)
}

fn from_hex(text: &str) -> Option<[u8; KEY_BYTES]> {
    let mut key = [0; KEY_BYTES];
    if text.len() != 2 * KEY_BYTES || !text.is_ascii() {
        return None;
    }
    for (byte, at) in key.iter_mut().zip((0..).step_by(2)) {
        *byte = u8::from_str_radix(&text[at..at + 2], 16).ok()?;
    }
    Some(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_secret_comes_back_with_its_key_only() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("data/secret.key");
        let sealed = Sealer::open(&file).unwrap().seal("hunter2 é").unwrap();
        assert!(!sealed.contains("hunter2"));
        let mode = fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let again = Sealer::open(&file).unwrap();
        assert_eq!(again.open_sealed(&sealed).unwrap(), "hunter2 é");
        assert_ne!(again.seal("hunter2 é").unwrap(), sealed);
        let other = Sealer::open(&folder.path().join("other.key")).unwrap();
        let error = other.open_sealed(&sealed).unwrap_err();
        assert!(error.to_string().contains("other.key"), "{error}");
        for broken in ["", "AAAA", "not base64", &sealed[4..]] {
            assert!(again.open_sealed(broken).is_err());
        }
    }
}
