//! A data folder of format version 1 that was written once and must stay readable.
//!
//! `UPDATE_FIXTURE=1 cargo test -p ruslo-state --test fixture` writes it anew, which only a new
//! format version makes right.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::{ArrayRef, Decimal128Array, Int64Array, RecordBatch, StringArray};
use arrow_schema::{DataType, Field, Schema};
use futures::executor::block_on;
use ruslo_state::{Collection, Entry, Options, Record, SUM_TYPE, Store, open};
use serde_json::json;

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/v1")
}

fn collection() -> Collection {
    let fields = vec![
        Field::new("word", DataType::Utf8, true),
        Field::new("length", DataType::Int64, true),
    ];
    Collection::sum(3, "words", Arc::new(Schema::new(fields))).with_sums(["total"])
}

fn updates(rows: &[(&str, i64, i64, i128)]) -> RecordBatch {
    let words: ArrayRef = Arc::new(StringArray::from_iter_values(rows.iter().map(|r| r.0)));
    let lengths: ArrayRef = Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| r.1)));
    let diffs: ArrayRef = Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| r.2)));
    let totals = Decimal128Array::from_iter_values(rows.iter().map(|r| r.3));
    let totals: ArrayRef = Arc::new(totals.with_data_type(SUM_TYPE));
    let columns = vec![words, lengths, diffs, totals];
    RecordBatch::try_new(collection().schema(), columns).unwrap()
}

fn record(time: u64) -> Record {
    Record {
        time,
        entries: vec![
            Entry::Binding {
                offsets: [(1, [(0, 100 + time as i64), (1, -1)].into())].into(),
            },
            Entry::Catalog {
                change: json!({"version": 1, "sql": "CREATE TABLE t (word varchar)"}),
            },
            Entry::Rows {
                table: 9,
                updates: updates(&[("русло", 5, 1, 1 << 100), ("", 0, -1, -1)]),
            },
        ],
    }
}

/// Two runs, a checkpoint at 20, and the records of 21 and 22 after it.
async fn write(path: &Path) {
    let store = Store::folder(path).unwrap();
    let mut opened = open(&store, Options::new(0xfeed)).await.unwrap();
    for time in [10, 20, 21, 22] {
        opened.log.append(&[record(time)]).await.unwrap();
        if time > 20 {
            continue;
        }
        let mut checkpoint = opened.checkpoints.begin(opened.checkpoints.time());
        let changed = match time {
            10 => {
                checkpoint.create(collection()).unwrap();
                updates(&[("stream", 6, 2, 20), ("bed", 3, 1, 7)])
            }
            _ => updates(&[("bed", 3, -1, -7), ("river", 5, 4, 1 << 90)]),
        };
        checkpoint.add(3, changed).await.unwrap();
        let metadata = json!({"offsets": {"1": {"0": time}}});
        checkpoint.commit(time, &metadata).await.unwrap();
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        match path.is_dir() {
            true => copy(&path, &target),
            false => drop(fs::copy(&path, &target).unwrap()),
        }
    }
}

#[test]
fn version_1_is_read() {
    if std::env::var("UPDATE_FIXTURE").is_ok_and(|update| update == "1") {
        let _ = fs::remove_dir_all(fixture());
        block_on(write(&fixture()));
        fs::remove_file(fixture().join("lock")).unwrap();
    }
    let folder = tempfile::tempdir().unwrap();
    copy(&fixture(), folder.path());
    block_on(async {
        let store = Store::folder(folder.path()).unwrap();
        let mut opened = open(&store, Options::new(1)).await.unwrap();
        assert_eq!(opened.checkpoint.time(), 20);
        let metadata = json!({"offsets": {"1": {"0": 20}}});
        assert_eq!(opened.checkpoint.metadata(), &metadata);
        let found = opened.checkpoint.collections().next().unwrap();
        assert_eq!(**found, collection());
        let mut batches = vec![];
        let mut scan = opened.checkpoint.scan(3).unwrap();
        while let Some(batch) = scan.next().await.unwrap() {
            batches.push(batch);
        }
        let expected = [
            updates(&[("bed", 3, 1, 7), ("stream", 6, 2, 20)]),
            updates(&[("bed", 3, -1, -7), ("river", 5, 4, 1 << 90)]),
        ];
        assert_eq!(batches, expected);
        for time in [21, 22] {
            let found = opened.records.next().await.unwrap();
            assert_eq!(found, Some(record(time)));
        }
        assert_eq!(opened.records.next().await.unwrap(), None);
    });
}
