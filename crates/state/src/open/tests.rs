//! Tests of `open` on real folders and in memory; the simulation adds faults and crashes.

use arrow_array::{ArrayRef, Int64Array, RecordBatch};
use arrow_schema::{DataType, Field, Schema};
use futures::executor::block_on;
use serde_json::json;

use super::*;
use crate::backup::copy;
use crate::collection::Collection;
use crate::log::{Entry, Record};

fn collection() -> Collection {
    let fields = vec![Field::new("key", DataType::Int64, true)];
    Collection::sum(1, "keys", Arc::new(Schema::new(fields)))
}

fn updates(keys: &[i64]) -> RecordBatch {
    let keys: ArrayRef = Arc::new(Int64Array::from(keys.to_vec()));
    let diffs: ArrayRef = Arc::new(Int64Array::from(vec![1; keys.len()]));
    RecordBatch::try_new(collection().schema(), vec![keys, diffs]).unwrap()
}

fn record(time: u64) -> Record {
    Record {
        time,
        entries: vec![Entry::Rows {
            table: 1,
            updates: updates(&[time as i64]),
        }],
    }
}

/// Records 1 to 4, and a checkpoint at 2.
async fn fill(opened: &mut Opened) {
    for time in 1..=4 {
        opened.log.append(&[record(time)]).await.unwrap();
        if time == 2 {
            let mut checkpoint = opened.checkpoints.begin(0);
            checkpoint.create(collection()).unwrap();
            checkpoint.add(1, updates(&[1, 2])).await.unwrap();
            checkpoint.commit(2, &json!({"at": 2})).await.unwrap();
        }
    }
}

/// The keys in the checkpoint, and the times of the records after it.
async fn read(opened: &mut Opened) -> Result<(Vec<i64>, Vec<u64>)> {
    let mut scan = opened.checkpoint.scan(1)?;
    let mut keys = vec![];
    while let Some(batch) = scan.next().await? {
        let column: &Int64Array = batch.column(0).as_any().downcast_ref().unwrap();
        keys.extend(column.values());
    }
    let mut times = vec![];
    while let Some(record) = opened.records.next().await? {
        assert_eq!(record, self::record(record.time));
        times.push(record.time);
    }
    Ok((keys, times))
}

#[test]
fn everything_is_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let memory = Store::memory();
    for store in [Store::folder(folder.path()).unwrap(), memory] {
        block_on(async {
            let mut opened = open(&store, Options::new(1)).await.unwrap();
            assert_eq!(opened.checkpoint.time(), 0);
            fill(&mut opened).await;
            drop(opened);
            let mut opened = open(&store, Options::new(2)).await.unwrap();
            assert_eq!(opened.checkpoint.metadata(), &json!({"at": 2}));
            let (keys, times) = read(&mut opened).await.unwrap();
            assert_eq!((keys, times), (vec![1, 2], vec![3, 4]));
            assert_eq!(opened.log.last_time(), 4);
        });
    }
}

#[test]
fn a_folder_has_one_server_and_a_bucket_the_last_one() {
    let folder = tempfile::tempdir().unwrap();
    let local = Store::folder(folder.path()).unwrap();
    let bucket = Store::memory();
    block_on(async {
        let first = open(&local, Options::new(1)).await.unwrap();
        let error = open(&local, Options::new(2)).await.unwrap_err();
        assert!(matches!(error, Error::InUse(_)), "{error}");
        drop(first);
        open(&local, Options::new(3)).await.unwrap();

        let mut first = open(&bucket, Options::new(1)).await.unwrap();
        fill(&mut first).await;
        let mut second = open(&bucket, Options::new(2)).await.unwrap();
        let error = first.log.append(&[record(9)]).await.unwrap_err();
        assert!(matches!(error, Error::Fenced(_)), "{error}");
        let commit = first.checkpoints.begin(2).commit(4, &json!(1)).await;
        assert!(matches!(commit, Err(Error::Fenced(_))), "{commit:?}");
        second.log.append(&[record(5)]).await.unwrap();
    });
}

#[test]
fn a_copy_made_while_running_opens_as_what_it_was() {
    let (folder, copies) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let local = |name: &str| Store::folder(copies.path().join(name)).unwrap();
    block_on(async {
        for (store, name) in [
            (Store::folder(folder.path()).unwrap(), "from a folder"),
            (Store::memory(), "from a bucket"),
        ] {
            let mut opened = open(&store, Options::new(1)).await.unwrap();
            fill(&mut opened).await;
            let bucket = Store::from_objects(Arc::new(object_store::memory::InMemory::new()), "b");
            for target in [local(name), bucket] {
                let copied = copy(&store, &target).await.unwrap();
                let of = (copied.checkpoint, copied.last, copied.records, copied.runs);
                assert_eq!(of, (2, 4, 2, 1));
                let again = copy(&store, &target).await.unwrap_err();
                assert!(again.to_string().contains("not empty"), "{again}");
                let mut copy = open(&target, Options::new(2)).await.unwrap();
                let found = read(&mut copy).await.unwrap();
                assert_eq!(found, (vec![1, 2], vec![3, 4]));
            }
            // The server has not noticed.
            opened.log.append(&[record(5)]).await.unwrap();
        }
    });
}

#[test]
fn a_copy_of_nothing_or_into_itself_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let empty = Store::folder(folder.path().join("empty")).unwrap();
    let store = Store::folder(folder.path().join("data")).unwrap();
    block_on(async {
        let error = copy(&empty, &Store::memory()).await.unwrap_err();
        assert!(error.to_string().contains("no data"), "{error}");
        fill(&mut open(&store, Options::new(1)).await.unwrap()).await;
        let inside = Store::folder(folder.path().join("data/copy")).unwrap();
        let error = copy(&store, &inside).await.unwrap_err();
        assert!(error.to_string().contains("within"), "{error}");
    });
}

#[test]
fn a_copy_of_something_broken_is_an_error_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::memory();
    block_on(async {
        fill(&mut open(&store, Options::new(1)).await.unwrap()).await;
        let run = store.list("runs").await.unwrap().pop().unwrap();
        let mut bytes = store.get(&run.path).await.unwrap().to_vec();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        store.put(&run.path, bytes.into()).await.unwrap();
        let target = Store::folder(folder.path().join("copy")).unwrap();
        let error = copy(&store, &target).await.unwrap_err();
        assert!(
            matches!(&error, Error::Corrupt(text) if text.contains(&run.path)),
            "{error}"
        );
        assert_eq!(target.any_content().await.unwrap(), None);
    });
}

#[test]
fn missing_parts_are_errors_and_newer_versions_are_refused() {
    block_on(async {
        let store = Store::memory();
        let mut opened = open(&store, Options::new(1)).await.unwrap();
        fill(&mut opened).await;
        for object in store.list("log").await.unwrap() {
            store.delete(&object.path).await.unwrap();
        }
        let error = open(&store, Options::new(2)).await.unwrap_err();
        assert!(
            matches!(&error, Error::Corrupt(text) if text.contains("log")),
            "{error}"
        );

        for object in store.list("manifests").await.unwrap() {
            store.delete(&object.path).await.unwrap();
        }
        let error = open(&store, Options::new(3)).await.unwrap_err();
        assert!(matches!(&error, Error::Corrupt(text) if text.contains("no manifest")));

        let newer = r#"{"ruslo_manifest":2,"crc32c":"00000000","body":{}}"#;
        let path = "manifests/00000000000000000009.json";
        store.put(path, newer.into()).await.unwrap();
        let error = open(&store, Options::new(4)).await.unwrap_err();
        assert!(matches!(error, Error::UnsupportedVersion(_)), "{error}");
    });
}

#[test]
fn a_folder_that_cannot_be_written_is_a_clear_error() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    let error = Store::folder(file.join("data")).unwrap_err();
    assert!(error.to_string().contains("file/data"), "{error}");
}
