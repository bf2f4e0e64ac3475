//! A bucket whose puts are atomic, and whose answers get lost.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::Poll;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use chrono::DateTime;
use futures::stream::{self, BoxStream, StreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload,
    ObjectMeta, ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult,
    Result, UploadPart,
};

use super::world::{State, Step, World};

/// An object store in a [`World`].
#[derive(Clone, Debug)]
pub struct SimObjects(World);

impl SimObjects {
    pub fn new(world: &World) -> SimObjects {
        SimObjects(world.clone())
    }

    /// Lets others go on for a while, sometimes.
    async fn delay(&self) {
        let mut turns = {
            let state = &mut *self.0.lock();
            let delays = state.faults.delays;
            match state.random.per_mille(delays) {
                true => state.random.below(8),
                false => 0,
            }
        };
        poll_fn(|context| match turns {
            0 => Poll::Ready(()),
            _ => {
                turns -= 1;
                context.waker().wake_by_ref();
                Poll::Pending
            }
        })
        .await;
    }

    /// Runs one step; a call that fails may have done its work all the same.
    async fn step<T>(&self, work: impl FnOnce(&mut State) -> Result<T>) -> Result<T> {
        self.delay().await;
        let state = &mut *self.0.lock();
        match state.step().map_err(failed)? {
            Step::Works => work(state),
            step => {
                if state.random.flip() {
                    let _ = work(state);
                }
                Err(failed(state.error(step)))
            }
        }
    }
}

impl std::fmt::Display for SimObjects {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SimObjects")
    }
}

fn failed(error: io::Error) -> Error {
    Error::Generic {
        store: "SimObjects",
        source: Box::new(error),
    }
}

fn not_found(path: &Path) -> Error {
    Error::NotFound {
        path: path.to_string(),
        source: "no such object".into(),
    }
}

fn put(state: &mut State, path: &Path, bytes: Bytes, mode: &PutMode) -> Result<PutResult> {
    let name = path.to_string();
    if *mode != PutMode::Overwrite && state.objects.contains_key(&name) {
        return Err(Error::AlreadyExists {
            path: name,
            source: "the name is taken".into(),
        });
    }
    state.deleted.remove(&name);
    state.objects.insert(name, bytes);
    Ok(PutResult {
        e_tag: None,
        version: None,
        extensions: Default::default(),
    })
}

fn meta(path: Path, bytes: usize) -> ObjectMeta {
    ObjectMeta {
        location: path,
        last_modified: DateTime::UNIX_EPOCH,
        size: bytes as u64,
        e_tag: None,
        version: None,
    }
}

#[async_trait]
impl ObjectStore for SimObjects {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        let bytes = Bytes::from(payload);
        self.step(|state| put(state, location, bytes, &options.mode))
            .await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        _: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.step(|_| Ok(())).await?;
        Ok(Box::new(SimUpload {
            store: self.clone(),
            location: location.clone(),
            bytes: Arc::default(),
        }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let found = self.step(|state| {
            let found = state.objects.get(location.as_ref()).cloned();
            found.ok_or_else(|| not_found(location))
        });
        let bytes = found.await?;
        let size = bytes.len() as u64;
        let range = match &options.range {
            None => 0..size,
            Some(range) => range.as_range(size).map_err(|error| Error::Generic {
                store: "SimObjects",
                source: Box::new(error),
            })?,
        };
        let part = bytes.slice(range.start as usize..range.end as usize);
        Ok(GetResult {
            payload: GetResultPayload::Stream(stream::iter([Ok(part)]).boxed()),
            meta: meta(location.clone(), bytes.len()),
            range,
            attributes: Default::default(),
            extensions: Default::default(),
        })
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let store = self.clone();
        let deleted = locations.then(move |location| {
            let store = store.clone();
            async move {
                let location = location?;
                let delete = |state: &mut State| {
                    let name = location.to_string();
                    if let Some(bytes) = state.objects.remove(&name) {
                        state.deleted.insert(name, bytes);
                    }
                    Ok(())
                };
                store.step(delete).await?;
                Ok(location)
            }
        });
        deleted.boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let store = self.clone();
        let prefix = prefix
            .map(|prefix| format!("{prefix}/"))
            .unwrap_or_default();
        let listed = async move {
            let list = |state: &mut State| {
                let objects = state.objects.iter();
                let below =
                    objects.filter(|(name, _)| name.starts_with(prefix.trim_start_matches('/')));
                let metas =
                    below.map(|(name, bytes)| Ok(meta(Path::from(name.as_str()), bytes.len())));
                Ok(metas.collect::<Vec<Result<ObjectMeta>>>())
            };
            match store.step(list).await {
                Ok(metas) => stream::iter(metas),
                Err(error) => stream::iter(vec![Err(error)]),
            }
        };
        stream::once(listed).flatten().boxed()
    }

    async fn list_with_delimiter(&self, _: Option<&Path>) -> Result<ListResult> {
        Err(Error::NotImplemented {
            operation: "list_with_delimiter".into(),
            implementer: self.to_string(),
        })
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        Err(Error::NotImplemented {
            operation: "copy_opts".into(),
            implementer: self.to_string(),
        })
    }
}

/// An upload in parts: nothing is there before it is complete.
#[derive(Debug)]
struct SimUpload {
    store: SimObjects,
    location: Path,
    bytes: Arc<parking_lot::Mutex<BytesMut>>,
}

#[async_trait]
impl MultipartUpload for SimUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let (store, bytes) = (self.store.clone(), self.bytes.clone());
        Box::pin(async move {
            let part = Bytes::from(data);
            store.step(|_| Ok(())).await?;
            bytes.lock().extend_from_slice(&part);
            Ok(())
        })
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let bytes = self.bytes.lock().split().freeze();
        let location = self.location.clone();
        let complete = |state: &mut State| put(state, &location, bytes, &PutMode::Overwrite);
        self.store.step(complete).await
    }

    async fn abort(&mut self) -> Result<()> {
        self.store.step(|_| Ok(())).await
    }
}
