//! Tests of `log/object` on real folders and in memory; the simulation adds faults and crashes.

use super::*;
use crate::log::Entry;
use futures::executor::block_on;

fn record(time: Time) -> Record {
    let change = serde_json::json!({ "text": "x".repeat(300) });
    Record {
        time,
        entries: vec![Entry::Catalog { change }],
    }
}

fn append(log: &mut ObjectLog, time: Time) -> Result<()> {
    block_on(log.append(&[record(time)]))
}

fn times(log: &ObjectLog, after: Time) -> Vec<Time> {
    let mut reader = log.read_after(after);
    let mut times = vec![];
    while let Some(record) = block_on(reader.next()).unwrap() {
        times.push(record.time);
    }
    times
}

#[test]
fn records_are_there_for_the_next_writer_and_truncation_frees_them() {
    let store = Store::memory();
    let mut log = block_on(ObjectLog::open(&store, 0, 1)).unwrap();
    for time in 1..=40 {
        append(&mut log, time).unwrap();
    }
    let mut log = block_on(ObjectLog::open(&store, 0, 2)).unwrap();
    assert_eq!(log.last_time(), 40);
    assert_eq!(times(&log, 0), (1..=40).collect::<Vec<_>>());
    block_on(log.truncate_before(31)).unwrap();
    append(&mut log, 41).unwrap();
    let log = block_on(ObjectLog::open(&store, 30, 3)).unwrap();
    assert_eq!(times(&log, 30), (31..=41).collect::<Vec<_>>());
    let error = block_on(ObjectLog::open(&store, 29, 4)).err().unwrap();
    assert!(matches!(error, Error::Corrupt(_)), "{error}");
}

#[test]
fn appends_go_on_while_old_objects_are_deleted() {
    let store = Store::memory();
    let mut log = block_on(ObjectLog::open(&store, 0, 1)).unwrap();
    for time in 1..=40 {
        append(&mut log, time).unwrap();
    }
    let before = log.bytes();
    drop(log.truncate_before(21));
    assert_eq!(log.bytes(), before, "given up before anything was deleted");
    let deletion = log.truncate_before(31);
    append(&mut log, 41).unwrap();
    block_on(deletion).unwrap();
    assert!(log.bytes() < before / 2);
    let log = block_on(ObjectLog::open(&store, 30, 2)).unwrap();
    assert_eq!(times(&log, 30), (31..=41).collect::<Vec<_>>());
}

#[test]
fn the_writer_before_is_fenced_also_when_its_number_was_truncated() {
    let store = Store::memory();
    let mut old = block_on(ObjectLog::open(&store, 0, 1)).unwrap();
    append(&mut old, 1).unwrap();
    let mut new = block_on(ObjectLog::open(&store, 0, 2)).unwrap();
    for time in 2..=9 {
        append(&mut new, time).unwrap();
    }
    block_on(new.truncate_before(9)).unwrap();
    let error = append(&mut old, 10).unwrap_err();
    assert!(matches!(error, Error::Fenced(_)), "{error}");
    let error = append(&mut old, 11).unwrap_err();
    assert!(matches!(error, Error::Fenced(_)), "{error}");
    append(&mut new, 10).unwrap();
    let log = block_on(ObjectLog::open(&store, 8, 3)).unwrap();
    assert_eq!(times(&log, 8), [9, 10]);
}

#[test]
fn left_overs_of_a_truncation_that_crashed_are_removed() {
    let store = Store::memory();
    let mut log = block_on(ObjectLog::open(&store, 0, 1)).unwrap();
    for time in 1..=9 {
        append(&mut log, time).unwrap();
    }
    // The fence is 1, the record of time t is t + 1; 3 is left, 2, 4 and 5 are gone.
    for number in [2, 4, 5] {
        block_on(store.delete(&path(number))).unwrap();
    }
    let log = block_on(ObjectLog::open(&store, 4, 2)).unwrap();
    assert_eq!(times(&log, 4), [5, 6, 7, 8, 9]);
    let listed = block_on(store.list(FOLDER)).unwrap();
    assert!(listed.iter().all(|object| object.path != path(3)));
    assert!(listed.iter().any(|object| object.path == path(1)));
}
