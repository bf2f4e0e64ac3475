//! Where bytes live: a local folder, a bucket, or memory.
//!
//! Everything but the local binding log goes through the [`ObjectStore`] in here, so a simulation
//! can stand in for any store. What this crate asks of one: a put is atomic and durable when it
//! returns, a put of a new name fails if the name is taken, and a list shows every finished put.
//! Local folders keep that by a staged file, fsync, a link, and fsync of the folder.

use std::ops::Range;
use std::path::{Path as FsPath, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::aws::AmazonS3Builder;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{
    GetOptions, GetRange, MultipartUpload, ObjectStore, ObjectStoreExt, PutMode, PutOptions,
    PutPayload, RetryConfig,
};

use crate::error::{Error, Kind, Result, io_cause, kind_of};

/// How long the client of a bucket repeats a request before it reports an error.
const RETRY_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(30);
/// Bytes of one part of a large upload; S3 asks for 5 MiB at least.
const PART_BYTES: usize = 8 << 20;

/// What may be in a folder beside a store.
const BESIDE: [&str; 2] = ["lock", "secret.key"];

/// A place for durable state. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    objects: Arc<dyn ObjectStore>,
    name: String,
    folder: Option<PathBuf>,
    /// Texts that no error may show.
    secrets: Arc<Vec<String>>,
    part_bytes: usize,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Store({})", self.name)
    }
}

/// The address, as a user may see it.
impl std::fmt::Display for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name)
    }
}

/// One object of a listing.
pub(crate) struct Listed {
    pub(crate) path: String,
    pub(crate) bytes: u64,
}

impl Store {
    /// Understands `memory`, `s3://bucket/prefix` (credentials, region and endpoint from the
    /// usual `AWS_…` environment variables), `file:///path`, and a path.
    pub fn parse(address: &str) -> Result<Store> {
        if address == "memory" {
            return Ok(Store::memory());
        }
        match address.split_once("://") {
            Some(("s3", rest)) => Store::s3(rest),
            Some(("file", path)) => Store::folder(path),
            Some((scheme, _)) => Err(Error::InvalidUse(format!(
                "no store is called \"{scheme}://\": use a folder, s3://bucket/prefix or memory"
            ))),
            None if address.is_empty() => {
                Err(Error::InvalidUse("the store's address is empty".into()))
            }
            None => Store::folder(address),
        }
    }

    /// A local folder, which is created if it is not there. Everything is written with fsync.
    pub fn folder(path: impl AsRef<FsPath>) -> Result<Store> {
        let path = path.as_ref();
        let name = path.display().to_string();
        let failed = |error: &std::io::Error| Error::io(&format!("data folder {name}"), error);
        std::fs::create_dir_all(path).map_err(|error| failed(&error))?;
        let path = path.canonicalize().map_err(|error| failed(&error))?;
        let objects = LocalFileSystem::new_with_prefix(&path)
            .map_err(|error| fail(&[], "data folder", &name, &error))?
            .with_fsync(true);
        Ok(Store {
            folder: Some(path),
            ..Store::from_objects(Arc::new(objects), &name)
        })
    }

    /// Forgets everything with the process.
    pub fn memory() -> Store {
        Store::from_objects(Arc::new(InMemory::new()), "memory")
    }

    /// Any store with atomic puts; `name` is what errors call it.
    pub fn from_objects(objects: Arc<dyn ObjectStore>, name: &str) -> Store {
        Store {
            objects,
            name: name.to_string(),
            folder: None,
            secrets: Arc::default(),
            part_bytes: PART_BYTES,
        }
    }

    /// Uploads objects larger than this in parts of this size; for tests.
    pub fn with_part_bytes(mut self, part_bytes: usize) -> Store {
        self.part_bytes = part_bytes.max(1);
        self
    }

    fn s3(rest: &str) -> Result<Store> {
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        if bucket.is_empty() || bucket.contains(['@', ':', '?']) {
            let message = "the address of a bucket is s3://bucket/prefix; credentials come from \
                           the environment";
            return Err(Error::InvalidUse(message.into()));
        }
        // reqwest takes the process's TLS provider; one that is there already is kept.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let secrets = s3_secrets();
        let name = format!("s3://{rest}");
        let retry = RetryConfig {
            retry_timeout: RETRY_TIMEOUT,
            ..RetryConfig::default()
        };
        let built = AmazonS3Builder::from_env()
            .with_bucket_name(bucket)
            .with_retry(retry)
            .build();
        let s3 = built.map_err(|error| fail(&secrets, "opening", &name, &error))?;
        let prefix =
            Path::parse(prefix).map_err(|error| Error::InvalidUse(format!("{name}: {error}")))?;
        Ok(Store {
            secrets: Arc::new(secrets),
            ..Store::from_objects(Arc::new(PrefixStore::new(s3, prefix)), &name)
        })
    }

    /// Something that is there, but for what a folder may have beside a store: its lock and a key.
    pub(crate) async fn any_content(&self) -> Result<Option<String>> {
        let Some(folder) = &self.folder else {
            let first = self.objects.list(None).try_next().await;
            let first = first.map_err(|error| self.fail("listing", "", &error))?;
            return Ok(first.map(|meta| meta.location.to_string()));
        };
        let failed = |error| Error::io(&format!("listing {}", self.name), &error);
        for entry in std::fs::read_dir(folder).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            if !BESIDE.iter().any(|beside| name == *beside) {
                return Ok(Some(name.to_string_lossy().into_owned()));
            }
        }
        Ok(None)
    }

    /// Whether `inner` is this store or within it.
    pub(crate) fn contains(&self, inner: &Store) -> bool {
        match (&self.folder, &inner.folder) {
            (Some(outer), Some(inner)) => inner.starts_with(outer),
            (None, None) => {
                let rest = inner.name.strip_prefix(self.name.trim_end_matches('/'));
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            }
            _ => false,
        }
    }

    /// The folder of a local store.
    pub fn folder_path(&self) -> Option<&FsPath> {
        self.folder.as_deref()
    }

    /// What a user should know as the place of one of our objects.
    pub(crate) fn locate(&self, path: &str) -> String {
        format!("{}/{path}", self.name)
    }

    fn fail(&self, doing: &str, path: &str, error: &object_store::Error) -> Error {
        fail(&self.secrets, doing, &self.locate(path), error)
    }

    /// Writes or overwrites an object.
    pub(crate) async fn put(&self, path: &str, bytes: Bytes) -> Result<()> {
        let put = self.objects.put(&Path::from(path), bytes.into()).await;
        put.map(drop)
            .map_err(|error| self.fail("writing", path, &error))
    }

    /// Writes an object unless its name is taken by other content; says whether it is ours.
    ///
    /// After an error that can be retried it is not known whether the object is there: the same
    /// call again finds out, because content that equals `bytes` counts as written by us.
    pub(crate) async fn put_new(&self, path: &str, bytes: Bytes) -> Result<bool> {
        let options = PutOptions::from(PutMode::Create);
        let location = Path::from(path);
        let put = self
            .objects
            .put_opts(&location, bytes.clone().into(), options);
        match put.await {
            Ok(_) => Ok(true),
            Err(
                object_store::Error::AlreadyExists { .. }
                | object_store::Error::Precondition { .. },
            ) => Ok(self.get_if_there(path).await?.as_deref() == Some(&*bytes)),
            Err(error) => Err(self.fail("writing", path, &error)),
        }
    }

    pub(crate) async fn get(&self, path: &str) -> Result<Bytes> {
        let found = self.get_if_there(path).await?;
        found.ok_or_else(|| Error::Corrupt(format!("{} is missing", self.locate(path))))
    }

    /// None if it is not there.
    pub(crate) async fn get_if_there(&self, path: &str) -> Result<Option<Bytes>> {
        let got = async { self.objects.get(&Path::from(path)).await?.bytes().await };
        match got.await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.fail("reading", path, &error)),
        }
    }

    /// A part of an object that must be there and have exactly `size` bytes.
    pub(crate) async fn get_range(
        &self,
        path: &str,
        size: u64,
        range: Range<u64>,
    ) -> Result<Bytes> {
        let options = GetOptions {
            range: Some(GetRange::Bounded(range.clone())),
            ..GetOptions::default()
        };
        let wrong_size = |found: u64| {
            let place = self.locate(path);
            Error::Corrupt(format!("{place} has {found} bytes and should have {size}"))
        };
        let location = Path::from(path);
        let result = match self.objects.get_opts(&location, options).await {
            Ok(result) => result,
            Err(object_store::Error::NotFound { .. }) => {
                return Err(Error::Corrupt(format!("{} is missing", self.locate(path))));
            }
            // A range past the end is an error of its own in each store: ask for the size.
            Err(error) => {
                return Err(match self.objects.head(&location).await {
                    Ok(meta) if meta.size != size => wrong_size(meta.size),
                    _ => self.fail("reading", path, &error),
                });
            }
        };
        if result.meta.size != size {
            return Err(wrong_size(result.meta.size));
        }
        let bytes = result.bytes().await;
        let bytes = bytes.map_err(|error| self.fail("reading", path, &error))?;
        match bytes.len() as u64 == range.end - range.start {
            true => Ok(bytes),
            false => Err(Error::Retry(format!(
                "{} was read in part",
                self.locate(path)
            ))),
        }
    }

    /// Everything below a folder, by name.
    pub(crate) async fn list(&self, folder: &str) -> Result<Vec<Listed>> {
        let prefix = Path::from(folder);
        let listed = self.objects.list(Some(&prefix)).map_ok(|meta| Listed {
            path: meta.location.to_string(),
            bytes: meta.size,
        });
        let listed: Result<Vec<Listed>, _> = listed.try_collect().await;
        let mut listed = listed.map_err(|error| self.fail("listing", folder, &error))?;
        listed.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(listed)
    }

    /// Deletes an object; one that is not there is fine.
    pub(crate) async fn delete(&self, path: &str) -> Result<()> {
        match self.objects.delete(&Path::from(path)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(self.fail("deleting", path, &error)),
        }
    }

    /// Starts writing an object of a size that is not known yet.
    pub(crate) fn upload(&self, path: String) -> Upload {
        Upload {
            store: self.clone(),
            path,
            buffer: vec![],
            parts: None,
        }
    }

    /// Removes what uploads that a crash ended have left in a local folder.
    ///
    /// They are called `name#number`, which no listing shows. The caller holds the folder's lock.
    pub(crate) fn remove_staged(&self, below: &str) {
        let Some(folder) = &self.folder else { return };
        let Ok(entries) = std::fs::read_dir(folder.join(below)) else {
            return;
        };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let staged = name.to_str().and_then(|name| name.rsplit_once('#'));
            if staged.is_some_and(|(_, number)| number.bytes().all(|b| b.is_ascii_digit())) {
                // What stays is tried again at the next start.
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }
}

fn s3_secrets() -> Vec<String> {
    let names = [
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN",
    ];
    let values = names.iter().filter_map(|name| std::env::var(name).ok());
    values.filter(|value| value.len() >= 4).collect()
}

fn fail(secrets: &[String], doing: &str, place: &str, error: &object_store::Error) -> Error {
    use object_store::Error as E;
    let kind: Kind = match (error, io_cause(error)) {
        (E::PermissionDenied { .. } | E::Unauthenticated { .. }, _) => Error::Denied,
        (
            E::InvalidPath { .. }
            | E::NotSupported { .. }
            | E::NotImplemented { .. }
            | E::UnknownConfigurationKey { .. },
            _,
        ) => Error::InvalidUse,
        (_, Some(io)) => kind_of(io),
        _ => Error::Retry,
    };
    let mut text = format!("{doing} {place}: {error}");
    for secret in secrets {
        text = text.replace(secret.as_str(), "***");
    }
    kind(text)
}

/// An object being written: one put if it is small, parts otherwise. Not there before `finish`.
pub(crate) struct Upload {
    store: Store,
    path: String,
    buffer: Vec<u8>,
    parts: Option<Box<dyn MultipartUpload>>,
}

impl Upload {
    pub(crate) async fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.buffer.extend_from_slice(bytes);
        while self.buffer.len() >= self.store.part_bytes {
            let rest = self.buffer.split_off(self.store.part_bytes);
            let part = std::mem::replace(&mut self.buffer, rest);
            self.part(part).await?;
        }
        Ok(())
    }

    async fn part(&mut self, bytes: Vec<u8>) -> Result<()> {
        let failed = |error| self.store.fail("writing", &self.path, &error);
        let parts = match &mut self.parts {
            Some(parts) => parts,
            none => {
                let location = Path::from(self.path.as_str());
                let started = self.store.objects.put_multipart(&location).await;
                none.insert(started.map_err(failed)?)
            }
        };
        let payload = PutPayload::from(Bytes::from(bytes));
        parts.put_part(payload).await.map_err(failed)
    }

    pub(crate) async fn finish(mut self) -> Result<()> {
        let rest = std::mem::take(&mut self.buffer);
        if self.parts.is_none() {
            return self.store.put(&self.path, rest.into()).await;
        }
        if !rest.is_empty() {
            self.part(rest).await?;
        }
        let Some(mut parts) = self.parts.take() else {
            return Ok(());
        };
        let done = parts.complete().await;
        done.map(drop)
            .map_err(|error| self.store.fail("writing", &self.path, &error))
    }

    /// Gives up what was written so far, as well as the store lets us.
    pub(crate) async fn abort(mut self) {
        if let Some(mut parts) = self.parts.take() {
            let _ = parts.abort().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::executor::block_on;

    #[test]
    fn addresses_name_folders_buckets_and_memory() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/data");
        let store = Store::parse(path.to_str().unwrap()).unwrap();
        assert!(store.folder_path().is_some() && path.is_dir());
        let url = format!("file://{}", path.display());
        assert!(Store::parse(&url).unwrap().folder_path().is_some());
        assert_eq!(Store::parse("memory").unwrap().to_string(), "memory");
        assert!(Store::parse("gopher://x").is_err());
        assert!(Store::parse("").is_err());
    }

    #[test]
    fn credentials_in_an_address_are_refused_and_not_repeated() {
        let error = Store::parse("s3://key:hunter2@bucket/prefix").unwrap_err();
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }

    #[test]
    fn errors_show_no_secret() {
        let source = "<AWSAccessKeyId>AKIAEXAMPLE</AWSAccessKeyId>".into();
        let error = object_store::Error::Generic {
            store: "S3",
            source,
        };
        let error = fail(&["AKIAEXAMPLE".into()], "reading", "s3://b/x", &error);
        assert!(!error.to_string().contains("AKIA"), "{error}");
        assert!(error.can_retry());
    }

    #[test]
    fn a_name_is_taken_once_and_repeating_the_same_put_is_no_conflict() {
        let folder = tempfile::tempdir().unwrap();
        for store in [Store::memory(), Store::folder(folder.path()).unwrap()] {
            block_on(async {
                assert!(store.put_new("m/1", "a".into()).await.unwrap());
                assert!(store.put_new("m/1", "a".into()).await.unwrap());
                assert!(!store.put_new("m/1", "b".into()).await.unwrap());
                assert_eq!(store.get("m/1").await.unwrap(), "a");
            });
        }
    }

    #[test]
    fn large_objects_go_up_in_parts_and_ranges_are_checked() {
        let folder = tempfile::tempdir().unwrap();
        for store in [Store::memory(), Store::folder(folder.path()).unwrap()] {
            block_on(async {
                let bytes: Vec<u8> = (0..PART_BYTES * 2 + 5).map(|i| i as u8).collect();
                let mut upload = store.upload("runs/x".into());
                for chunk in bytes.chunks(1 << 20) {
                    upload.write(chunk).await.unwrap();
                }
                upload.finish().await.unwrap();
                let size = bytes.len() as u64;
                let part = store.get_range("runs/x", size, 7..size).await.unwrap();
                assert_eq!(part[..], bytes[7..]);
                let longer = store.get_range("runs/x", size + 1, 7..size + 1).await;
                assert!(matches!(longer, Err(Error::Corrupt(_))), "{longer:?}");
                let missing = store.get_range("runs/y", 5, 0..5).await;
                assert!(matches!(missing, Err(Error::Corrupt(_))), "{missing:?}");
            });
        }
    }

    #[test]
    fn what_a_crashed_upload_left_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::folder(folder.path()).unwrap();
        std::fs::create_dir(folder.path().join("runs")).unwrap();
        for name in ["a.arrow", "a.arrow#3"] {
            std::fs::write(folder.path().join("runs").join(name), "x").unwrap();
        }
        store.remove_staged("runs");
        assert!(folder.path().join("runs/a.arrow").exists());
        assert!(!folder.path().join("runs/a.arrow#3").exists());
    }
}
