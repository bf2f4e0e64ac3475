//! Tests of `checkpoint` on real folders and in memory; the simulation adds faults and crashes.

use std::collections::BTreeMap;

use arrow_array::{ArrayRef, Int64Array, RecordBatch};
use arrow_schema::{DataType, Field, Schema};
use futures::executor::block_on;
use serde_json::{Value, json};

use super::merging::Merging;
use super::*;
use crate::Options;
use crate::collection::Collection;
use crate::run::RunWriter;
use crate::sim::{Faults, Random, SimObjects, World};

const ID: u64 = 5;

fn numbers() -> Collection {
    let fields = vec![
        Field::new("key", DataType::Int64, true),
        Field::new("value", DataType::Int64, true),
    ];
    Collection::sum(ID, "numbers", Arc::new(Schema::new(fields)))
}

fn batch(updates: &[(i64, i64, i64)]) -> RecordBatch {
    let column = |pick: fn(&(i64, i64, i64)) -> i64| -> ArrayRef {
        Arc::new(Int64Array::from_iter_values(updates.iter().map(pick)))
    };
    let columns = vec![column(|u| u.0), column(|u| u.1), column(|u| u.2)];
    RecordBatch::try_new(numbers().schema(), columns).unwrap()
}

async fn claim(store: &Store, sizes: Sizes) -> Checkpoints {
    let claim = Claim {
        store: store.clone(),
        writer: Options::new(9).writer,
        sizes,
        plant: Plant::Nothing,
        lock: None,
    };
    Checkpoints::claim(claim).await.unwrap()
}

fn small() -> Sizes {
    Sizes {
        batch_rows: 100,
        batch_bytes: 2000,
        spill_bytes: 1 << 20,
        small_run_bytes: 1000,
    }
}

async fn write(checkpoints: &Checkpoints, updates: &[(i64, i64, i64)]) -> Result<()> {
    let since = checkpoints.time();
    let mut checkpoint = checkpoints.begin(since);
    if since == 0 {
        checkpoint.create(numbers())?;
    }
    checkpoint.add(ID, batch(updates)).await?;
    checkpoint.commit(since + 1, &json!(since + 1)).await
}

async fn read(snapshot: &Arc<Snapshot>) -> Result<BTreeMap<(i64, i64), i64>> {
    let mut rows = BTreeMap::new();
    let mut scan = snapshot.scan(ID)?;
    while let Some(batch) = scan.next().await? {
        let columns: Vec<&Int64Array> = batch
            .columns()
            .iter()
            .map(|c| c.as_any().downcast_ref().unwrap())
            .collect();
        for row in 0..batch.num_rows() {
            let key = (columns[0].value(row), columns[1].value(row));
            *rows.entry(key).or_default() += columns[2].value(row);
        }
    }
    rows.retain(|_, diff| *diff != 0);
    Ok(rows)
}

async fn bytes_below(store: &Store, folder: &str) -> u64 {
    let listed = store.list(folder).await.unwrap();
    listed.iter().map(|listed| listed.bytes).sum()
}

/// Counts the bytes of every run that ever was.
#[derive(Default)]
struct Seen {
    files: std::collections::HashSet<String>,
    bytes: u64,
}

impl Seen {
    /// The bytes that are new.
    async fn look(&mut self, store: &Store) -> u64 {
        let before = self.bytes;
        for listed in store.list(RUNS).await.unwrap() {
            if self.files.insert(listed.path) {
                self.bytes += listed.bytes;
            }
        }
        self.bytes - before
    }
}

#[test]
fn a_checkpoint_is_there_for_the_next_writer() {
    let store = Store::memory();
    block_on(async {
        let checkpoints = claim(&store, small()).await;
        write(&checkpoints, &[(2, 0, 1), (1, 0, 1), (2, 0, 1)])
            .await
            .unwrap();
        write(&checkpoints, &[(1, 0, -1), (3, 0, 1)]).await.unwrap();
        let checkpoints = claim(&store, small()).await;
        let snapshot = checkpoints.snapshot();
        assert_eq!((snapshot.time(), snapshot.metadata()), (2, &json!(2)));
        assert_eq!(**snapshot.collections().next().unwrap(), numbers());
        let expected = [((2, 0), 2), ((3, 0), 1)].into();
        assert_eq!(read(&snapshot).await.unwrap(), expected);
    });
}

#[test]
fn the_writer_before_is_fenced_for_good_and_harms_nothing() {
    let store = Store::memory();
    block_on(async {
        let old = claim(&store, small()).await;
        write(&old, &[(1, 0, 1)]).await.unwrap();
        let new = claim(&store, small()).await;
        write(&new, &[(2, 0, 1)]).await.unwrap();
        write(&new, &[(3, 0, 1)]).await.unwrap();
        for _ in 0..2 {
            let error = write(&old, &[(9, 0, 1)]).await.unwrap_err();
            assert!(matches!(error, Error::Fenced(_)), "{error}");
        }
        let found = read(&claim(&store, small()).await.snapshot())
            .await
            .unwrap();
        assert_eq!(found, [((1, 0), 1), ((2, 0), 1), ((3, 0), 1)].into());
    });
}

#[test]
fn changes_go_only_on_top_of_the_checkpoint_they_follow() {
    block_on(async {
        let checkpoints = claim(&Store::memory(), small()).await;
        write(&checkpoints, &[(1, 0, 1)]).await.unwrap();
        let mut late = checkpoints.begin(0);
        late.add(ID, batch(&[(1, 0, 1)])).await.unwrap();
        let error = late.commit(5, &Value::Null).await.unwrap_err();
        assert!(matches!(error, Error::InvalidUse(_)), "{error}");
        let mut backwards = checkpoints.begin(1);
        let error = backwards.commit(0, &Value::Null).await.unwrap_err();
        assert!(matches!(error, Error::InvalidUse(_)), "{error}");
        let mut unknown = checkpoints.begin(1);
        let error = unknown.add(77, batch(&[])).await.unwrap_err();
        assert!(matches!(error, Error::InvalidUse(_)), "{error}");
    });
}

#[test]
fn endless_updates_take_bounded_space_and_work() {
    const KEYS: i64 = 20_000;
    const CHANGED: i64 = 200;
    let store = Store::memory();
    block_on(async {
        let checkpoints = claim(&store, small()).await;
        let all: Vec<_> = (0..KEYS).map(|key| (key, 0, 1)).collect();
        write(&checkpoints, &all).await.unwrap();
        let live = bytes_below(&store, RUNS).await;
        let mut seen = Seen::default();
        seen.look(&store).await;
        let (mut peak, mut delta) = (0, 0);
        for round in 0..300i64 {
            let mut updates = vec![];
            for i in 0..CHANGED {
                let key = (round * CHANGED + i) * 7919 % KEYS;
                let old = (round * CHANGED) / KEYS;
                updates.extend([(key, old, -1), (key, old + 1, 1)]);
            }
            write(&checkpoints, &updates).await.unwrap();
            let written = seen.look(&store).await;
            delta = if round == 0 { written } else { delta };
            while checkpoints.compact().await.unwrap() {
                seen.look(&store).await;
            }
            peak = peak.max(bytes_below(&store, RUNS).await);
        }
        let (deltas, written) = (300 * delta, seen.bytes - live);
        let rows = read(&checkpoints.snapshot()).await.unwrap();
        assert_eq!(rows.len(), KEYS as usize);
        assert!(
            rows.iter()
                .all(|((_, round), diff)| *round == 3 && *diff == 1)
        );
        println!("live {live}, peak {peak}, changed {deltas}, written {written} bytes");
        assert!(peak < live * 2, "{peak} bytes at most, {live} live");
        assert!(
            written < deltas * 12,
            "{written} bytes written for {deltas}"
        );
        assert_eq!(store.list(manifest::FOLDER).await.unwrap().len(), 2);
    });
}

#[test]
fn a_large_change_becomes_one_run_with_what_was_there() {
    let store = Store::memory();
    block_on(async {
        let checkpoints = claim(&store, small()).await;
        let all: Vec<_> = (0..5000).map(|key| (key, 0, 1)).collect();
        write(&checkpoints, &all).await.unwrap();
        let moved: Vec<_> = (0..5000)
            .flat_map(|key| [(key, 0, -1), (key, 1, 1)])
            .collect();
        write(&checkpoints, &moved).await.unwrap();
        let snapshot = checkpoints.snapshot();
        let status = &snapshot.status()[0];
        assert_eq!((status.runs, status.rows), (1, 5000));
        assert_eq!(read(&snapshot).await.unwrap().len(), 5000);
    });
}

/// The most bytes of runs at any step while every row changes in some checkpoints in a row, beside
/// merges of a store that is slow, over the bytes of the live state.
fn peak_over_live(seed: u64, sizes: Sizes, share: i64) -> f64 {
    const KEYS: i64 = 5000;
    let world = World::new(seed);
    let store = Store::from_objects(Arc::new(SimObjects::new(&world)), "slow");
    let bytes = || {
        let objects = world.objects();
        let runs = objects.iter().filter(|(path, _)| path.starts_with(RUNS));
        runs.map(|(_, bytes)| *bytes).sum::<usize>()
    };
    block_on(async {
        let checkpoints = claim(&store, sizes).await;
        let all: Vec<_> = (0..KEYS).map(|key| (key, 0, 1)).collect();
        write(&checkpoints, &all).await.unwrap();
        let live = bytes();
        world.set_faults(Faults {
            errors: 0,
            delays: 1000,
        });
        let done = std::cell::Cell::new(false);
        let changing = async {
            let mut random = Random::new(seed);
            let mut values = vec![0; KEYS as usize];
            for round in 1..40 {
                let mut updates = vec![];
                for (key, value) in (0..KEYS).zip(&mut values) {
                    if random.below(100) < share as u64 {
                        updates.extend([(key, *value, -1), (key, round, 1)]);
                        *value = round;
                    }
                }
                write(&checkpoints, &updates).await.unwrap();
            }
            done.set(true);
        };
        let merging = async {
            while !done.get() {
                checkpoints.compact().await.unwrap();
                pause().await;
            }
        };
        let mut most = live;
        let watching = async {
            while !done.get() {
                most = most.max(bytes());
                pause().await;
            }
        };
        futures::join!(changing, merging, watching);
        let rows = read(&checkpoints.snapshot()).await.unwrap();
        assert_eq!(rows.len(), KEYS as usize);
        most as f64 / live as f64
    })
}

/// Lets others go on for a step.
async fn pause() {
    let mut paused = false;
    futures::future::poll_fn(|context| {
        context.waker().wake_by_ref();
        match std::mem::replace(&mut paused, true) {
            true => std::task::Poll::Ready(()),
            false => std::task::Poll::Pending,
        }
    })
    .await;
}

#[test]
fn merges_and_large_changes_at_a_time_take_three_times_the_live_state_at_most() {
    for (seed, share) in [(1, 2), (2, 8), (3, 15), (4, 30), (5, 60), (6, 100)] {
        let peak = peak_over_live(seed, small(), share);
        println!("{share} % change: {peak:.2} times the live state");
        assert!(peak <= 3.0, "{share} % change: {peak}");
    }
}

#[test]
fn what_was_spilled_becomes_one_run_with_what_was_there() {
    let store = Store::memory();
    let sizes = Sizes {
        spill_bytes: 3000,
        ..small()
    };
    block_on(async {
        let checkpoints = claim(&store, sizes).await;
        let all: Vec<_> = (0..5000).map(|key| (key, 0, 1)).collect();
        write(&checkpoints, &all).await.unwrap();
        let mut checkpoint = checkpoints.begin(1);
        for keys in (0..5000).collect::<Vec<_>>().chunks(500) {
            let moved = keys.iter().flat_map(|key| [(*key, 0, -1), (*key, 1, 1)]);
            let moved: Vec<_> = moved.collect();
            checkpoint.add(ID, batch(&moved)).await.unwrap();
        }
        assert!(store.list(RUNS).await.unwrap().len() > 5, "nothing spilled");
        checkpoint.commit(2, &json!(2)).await.unwrap();
        let status = &checkpoints.snapshot().status()[0];
        assert_eq!((status.runs, status.rows), (1, 5000));
        assert_eq!(store.list(RUNS).await.unwrap().len(), 1);
        let rows = read(&checkpoints.snapshot()).await.unwrap();
        assert!(rows.len() == 5000 && rows.keys().all(|(_, value)| *value == 1));
    });
}

#[test]
fn a_merge_holds_the_files_of_its_own_collection_alone() {
    let store = Store::memory();
    block_on(async {
        let checkpoints = claim(&store, small()).await;
        write(&checkpoints, &[(1, 0, 1)]).await.unwrap();
        let mut other = checkpoints.begin(1);
        let id = ID + 1;
        other.create(Collection { id, ..numbers() }).unwrap();
        other.add(id, batch(&[(1, 0, 1)])).await.unwrap();
        other.commit(2, &Value::Null).await.unwrap();
        let merging = Merging::try_start(&checkpoints, ID).unwrap();
        let inputs = merging.take(|_| Some(vec![0])).await.unwrap();
        assert!(Merging::try_start(&checkpoints, ID).is_none());
        let mut removal = checkpoints.begin(2);
        removal.remove(ID);
        removal.remove(id);
        removal.commit(3, &Value::Null).await.unwrap();
        let listed = store.list(RUNS).await.unwrap();
        let files: Vec<&str> = listed.iter().map(|l| l.path.as_str()).collect();
        assert_eq!(files, [inputs.runs[0].file.as_str()]);
        drop((inputs, merging));
        checkpoints.collect_garbage().await;
        assert_eq!(store.list(RUNS).await.unwrap().len(), 0);
        assert!(Merging::try_start(&checkpoints, ID).is_some());
    });
}

#[test]
fn a_small_slice_of_a_large_batch_is_a_small_change() {
    block_on(async {
        let checkpoints = claim(&Store::memory(), small()).await;
        let all: Vec<_> = (0..5000).map(|key| (key, 0, 1)).collect();
        write(&checkpoints, &all).await.unwrap();
        let mut checkpoint = checkpoints.begin(1);
        let slice = batch(&all).slice(7, 3);
        checkpoint.add(ID, slice).await.unwrap();
        checkpoint.commit(2, &Value::Null).await.unwrap();
        let status = &checkpoints.snapshot().status()[0];
        assert_eq!((status.runs, status.rows), (2, 5003));
    });
}

#[test]
fn files_stay_while_they_are_read_and_go_afterwards() {
    let store = Store::memory();
    let roomy = Sizes {
        small_run_bytes: 100_000,
        ..small()
    };
    block_on(async {
        let checkpoints = claim(&store, roomy).await;
        for key in 0..3 {
            write(&checkpoints, &[(key, 0, 1)]).await.unwrap();
        }
        let snapshot = checkpoints.snapshot();
        write(&checkpoints, &[(3, 0, 1)]).await.unwrap();
        assert!(checkpoints.compact().await.unwrap());
        assert_eq!(store.list(RUNS).await.unwrap().len(), 4);
        assert_eq!(read(&snapshot).await.unwrap().len(), 3);
        drop(snapshot);
        let mut removal = checkpoints.begin(4);
        removal.remove(ID);
        removal.commit(5, &Value::Null).await.unwrap();
        assert_eq!(store.list(RUNS).await.unwrap().len(), 0);
    });
}

#[test]
fn what_a_crash_left_is_removed_when_the_store_is_opened() {
    let store = Store::memory();
    block_on(async {
        let checkpoints = claim(&store, small()).await;
        write(&checkpoints, &[(1, 0, 1)]).await.unwrap();
        let orphan = "runs/0000000001-0000000077.arrow";
        store.put(orphan, "torn".into()).await.unwrap();
        let later = "runs/0000000099-0000000001.arrow";
        store.put(later, "of a later writer".into()).await.unwrap();
        claim(&store, small()).await;
        let listed = store.list(RUNS).await.unwrap();
        let names: Vec<&str> = listed.iter().map(|l| l.path.as_str()).collect();
        assert!(!names.contains(&orphan) && names.contains(&later));
        assert_eq!(names.len(), 2);
    });
}

#[test]
fn a_run_in_another_order_is_sorted_again() {
    let store = Store::memory();
    block_on(async {
        let checkpoints = claim(&store, small()).await;
        let collection = Arc::new(numbers());
        let (file, schema) = ("runs/odd.arrow".to_string(), collection.schema());
        let mut writer = RunWriter::new(&store, file, &schema, &batch(&[])).unwrap();
        for key in [3, 2, 2, 1] {
            writer
                .write(&batch(&[(key, 1, 1), (key, 0, 1)]))
                .await
                .unwrap();
        }
        let (run, upload) = writer.finish().await.unwrap();
        upload.finish().await.unwrap();
        let more = [batch(&[(2, 0, -2)])];
        let merged = checkpoints.merge(&collection, &[run], &more).await;
        let (merged, upload) = merged.unwrap().unwrap();
        upload.finish().await.unwrap();
        assert_eq!(merged.rows, 5);
        let merged = checkpoints
            .merge(&collection, &[merged], &[])
            .await
            .unwrap();
        assert_eq!(merged.unwrap().0.rows, 5, "now it is in order");
    });
}

#[test]
fn no_broken_byte_of_a_run_becomes_wrong_data() {
    let store = Store::memory();
    block_on(async {
        let checkpoints = claim(&store, small()).await;
        let all: Vec<_> = (0..250).map(|key| (key, key % 3, 1)).collect();
        write(&checkpoints, &all).await.unwrap();
        let snapshot = checkpoints.snapshot();
        let right = read(&snapshot).await.unwrap();
        let file = checkpoints.current().runs().next().unwrap().file.clone();
        let bytes = store.get(&file).await.unwrap();
        for at in (0..bytes.len()).step_by(3) {
            let mut broken = bytes.to_vec();
            broken[at] ^= 1 << (at % 8);
            store.put(&file, broken.into()).await.unwrap();
            match read(&snapshot).await {
                Ok(rows) => assert_eq!(rows, right, "byte {at}"),
                Err(Error::Corrupt(text)) => assert!(text.contains(&file), "{text}"),
                Err(error) => panic!("byte {at}: {error:?}"),
            }
            store.put(&file, bytes.slice(..at)).await.unwrap();
            let error = read(&snapshot).await.unwrap_err();
            assert!(matches!(error, Error::Corrupt(_)), "cut at {at}: {error:?}");
        }
        store.delete(&file).await.unwrap();
        let error = read(&snapshot).await.unwrap_err();
        assert!(matches!(&error, Error::Corrupt(text) if text.contains("missing")));
    });
}
