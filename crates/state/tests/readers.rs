//! What is read while the store fails now and then: each failed call is asked again, and nothing
//! may be missing or come twice.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{ArrayRef, Int64Array, RecordBatch};
use arrow_schema::{DataType, Field, Schema};
use futures::executor::block_on;
use ruslo_state::sim::{Faults, SimFolder, SimObjects, World};
use ruslo_state::{
    Collection, Entry, LogReader, LogSizes, Opened, Options, Record, Result, Scan, Sizes, Store,
    open, open_with_folder,
};
use serde_json::json;

const ID: u64 = 5;
/// So that each test sees failures, and reaches its end.
const FAULTS: Faults = Faults {
    errors: 300,
    delays: 0,
};

fn options() -> Options {
    Options {
        sizes: Sizes {
            batch_rows: 10,
            ..Sizes::default()
        },
        log_sizes: LogSizes {
            segment_bytes_min: 300,
            segment_bytes_max: 900,
        },
        ..Options::new(1)
    }
}

fn store(world: &World) -> Store {
    Store::from_objects(Arc::new(SimObjects::new(world)), "sim")
}

/// Calls until it works; how often it did not.
async fn insist<T>(failures: &mut u32, mut call: impl AsyncFnMut() -> Result<T>) -> T {
    loop {
        match call().await {
            Ok(done) => return done,
            Err(error) if error.can_retry() => *failures += 1,
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn a_scan_has_every_row_once() {
    let numbers = || {
        let rows = Schema::new(vec![Field::new("key", DataType::Int64, false)]);
        Collection::sum(ID, "numbers", Arc::new(rows))
    };
    let mut failures = 0;
    for seed in 0..20 {
        let world = World::new(seed);
        block_on(async {
            let opened = open(&store(&world), options()).await.unwrap();
            let mut checkpoint = opened.checkpoints.begin(0);
            checkpoint.create(numbers()).unwrap();
            let keys: ArrayRef = Arc::new(Int64Array::from_iter_values(0..500));
            let diffs: ArrayRef = Arc::new(Int64Array::from_iter_values([1; 500]));
            let batch = RecordBatch::try_new(numbers().schema(), vec![keys, diffs]);
            checkpoint.add(ID, batch.unwrap()).await.unwrap();
            checkpoint.commit(7, &json!({})).await.unwrap();
            let mut scan: Scan = opened.checkpoints.snapshot().scan(ID).unwrap();
            world.set_faults(FAULTS);
            let mut seen = vec![];
            while let Some(batch) = insist(&mut failures, async || scan.next().await).await {
                seen.extend_from_slice(batch.column(0).as_primitive::<Int64Type>().values());
            }
            assert_eq!(seen, (0..500).collect::<Vec<_>>(), "seed {seed}");
        });
    }
    assert!(failures > 0);
}

async fn times(failures: &mut u32, reader: &mut dyn LogReader) -> Vec<u64> {
    let mut times = vec![];
    while let Some(record) = insist(failures, async || reader.next().await).await {
        times.push(record.time);
    }
    times
}

fn reads_every_record_once(open: impl AsyncFn(&World) -> Opened) {
    let mut failures = 0;
    for seed in 0..20 {
        let world = World::new(seed);
        block_on(async {
            let mut opened = open(&world).await;
            for time in 1..=100 {
                let change = json!({ "text": "x".repeat(100) });
                let entries = vec![Entry::Catalog { change }];
                opened
                    .log
                    .append(&[Record { time, entries }])
                    .await
                    .unwrap();
            }
            let mut reader = opened.log.read_after(40);
            world.set_faults(FAULTS);
            let seen = times(&mut failures, reader.as_mut()).await;
            assert_eq!(seen, (41..=100).collect::<Vec<_>>(), "seed {seed}");
        });
    }
    assert!(failures > 0);
}

#[test]
fn a_log_in_a_folder_has_every_record_once() {
    reads_every_record_once(async |world| {
        let folder = Arc::new(SimFolder::new(world));
        let opened = open_with_folder(&store(world), folder, options()).await;
        opened.unwrap()
    });
}

#[test]
fn a_log_in_a_bucket_has_every_record_once() {
    reads_every_record_once(async |world| open(&store(world), options()).await.unwrap());
}
