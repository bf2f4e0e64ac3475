//! Tests of `log/file` on real folders and in memory; the simulation adds faults and crashes.

use super::*;
use crate::log::{DiskFolder, Entry};
use futures::executor::block_on;

fn record(time: Time) -> Record {
    let change = serde_json::json!({ "text": "x".repeat(100) });
    Record {
        time,
        entries: vec![Entry::Catalog { change }],
    }
}

fn open(path: &std::path::Path, start: Time) -> Result<(FileLog, Option<TornTail>)> {
    let sizes = LogSizes {
        segment_bytes_min: 500,
        segment_bytes_max: 1000,
    };
    let folder = Arc::new(DiskFolder::new(path).unwrap());
    FileLog::open(folder, start, sizes, Plant::Nothing)
}

fn times(log: &FileLog, after: Time) -> Vec<Time> {
    let mut reader = log.read_after(after);
    let mut times = vec![];
    while let Some(record) = block_on(reader.next()).unwrap() {
        times.push(record.time);
    }
    times
}

fn append(log: &mut FileLog, time: Time) {
    block_on(log.append(&[record(time)])).unwrap();
}

fn files(path: &std::path::Path) -> Vec<std::path::PathBuf> {
    let files = std::fs::read_dir(path).unwrap();
    let mut files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn records_are_there_after_a_restart_and_segments_roll() {
    let folder = tempfile::tempdir().unwrap();
    let (mut log, torn) = open(folder.path(), 0).unwrap();
    assert_eq!(torn, None);
    for time in 1..=30 {
        append(&mut log, time);
    }
    drop(log);
    assert!(files(folder.path()).len() > 3);
    let (mut log, torn) = open(folder.path(), 0).unwrap();
    assert_eq!((torn, log.last_time()), (None, 30));
    append(&mut log, 31);
    assert_eq!(times(&log, 0), (1..=31).collect::<Vec<_>>());
    assert_eq!(times(&log, 29), [30, 31]);
    assert_eq!(times(&log, 31), [0; 0]);
}

#[test]
fn times_must_grow() {
    let folder = tempfile::tempdir().unwrap();
    let (mut log, _) = open(folder.path(), 0).unwrap();
    append(&mut log, 5);
    for bad in [vec![record(5)], vec![record(4)], vec![record(7), record(6)]] {
        let error = block_on(log.append(&bad)).unwrap_err();
        assert!(matches!(error, Error::InvalidUse(_)), "{error}");
    }
    append(&mut log, 6);
    assert_eq!(times(&log, 0), [5, 6]);
}

#[test]
fn truncation_frees_segments_but_not_what_is_needed_or_read() {
    let folder = tempfile::tempdir().unwrap();
    let (mut log, _) = open(folder.path(), 0).unwrap();
    for time in 1..=30 {
        append(&mut log, time);
    }
    let mut reader = log.read_after(3);
    block_on(log.truncate_before(31)).unwrap();
    assert_eq!(times(&log, 3).len(), 27, "a reader needs them");
    assert_eq!(block_on(reader.next()).unwrap().unwrap().time, 4);
    drop(reader);
    block_on(log.truncate_before(20)).unwrap();
    assert_eq!(times(&log, 19), (20..=30).collect::<Vec<_>>());
    for time in 31..=34 {
        append(&mut log, time);
    }
    block_on(log.truncate_before(35)).unwrap();
    assert_eq!(log.bytes(), HEADER_BYTES as u64);
    append(&mut log, 35);
    drop(log);
    let (log, _) = open(folder.path(), 34).unwrap();
    assert_eq!(times(&log, 34), [35]);
    let error = open(folder.path(), 33).err().unwrap();
    assert!(matches!(&error, Error::Corrupt(text) if text.contains("does not reach back")));
}

#[test]
fn a_log_that_never_rests_stays_small() {
    let folder = tempfile::tempdir().unwrap();
    let sizes = LogSizes {
        segment_bytes_min: 500,
        segment_bytes_max: 1 << 20,
    };
    let disk = Arc::new(DiskFolder::new(folder.path()).unwrap());
    let (mut log, _) = FileLog::open(disk, 0, sizes, Plant::Nothing).unwrap();
    let mut most = 0;
    for time in 1..=500 {
        append(&mut log, time);
        // When a checkpoint is through, the log is ahead of it again.
        if time % 5 == 0 {
            block_on(log.truncate_before(time - 2)).unwrap();
            assert_eq!(times(&log, time - 3), [time - 2, time - 1, time]);
        }
        most = most.max(log.bytes());
    }
    assert!(most < 4000, "{most} bytes");
}

#[test]
fn a_torn_tail_is_cut_and_reported() {
    let folder = tempfile::tempdir().unwrap();
    let (mut log, _) = open(folder.path(), 0).unwrap();
    append(&mut log, 1);
    append(&mut log, 2);
    drop(log);
    let file = files(folder.path()).pop().unwrap();
    let bytes = std::fs::read(&file).unwrap();
    std::fs::write(&file, &bytes[..bytes.len() - 7]).unwrap();
    let (mut log, torn) = open(folder.path(), 0).unwrap();
    let torn = torn.unwrap();
    assert!(
        torn.bytes > 0 && torn.to_string().contains("cut off"),
        "{torn}"
    );
    assert_eq!(times(&log, 0), [1]);
    append(&mut log, 3);
    drop(log);
    let (log, torn) = open(folder.path(), 0).unwrap();
    assert_eq!((times(&log, 0), torn), (vec![1, 3], None));
}

#[test]
fn what_is_broken_before_the_tail_is_an_error_that_names_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let (mut log, _) = open(folder.path(), 0).unwrap();
    for time in 1..=30 {
        append(&mut log, time);
    }
    drop(log);
    let all = files(folder.path());
    let first = std::fs::read(&all[0]).unwrap();
    let broken_ways = [first[..first.len() - 1].to_vec(), {
        let mut bytes = first.clone();
        bytes[60] ^= 1;
        bytes
    }];
    for broken in broken_ways {
        std::fs::write(&all[0], broken).unwrap();
        let error = open(folder.path(), 0).err().unwrap();
        let name = all[0].file_name().unwrap().to_str().unwrap();
        assert!(
            matches!(&error, Error::Corrupt(text) if text.contains(name)),
            "{error}"
        );
    }
    std::fs::write(&all[0], &first).unwrap();
    std::fs::rename(&all[1], folder.path().join("elsewhere")).unwrap();
    let error = open(folder.path(), 0).err().unwrap();
    assert!(matches!(&error, Error::Corrupt(text) if text.contains("is missing")));
}
