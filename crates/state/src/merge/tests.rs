//! Tests that merging adds up, in order, whatever the inputs.

use std::collections::BTreeMap;

use super::*;
use arrow_array::StringArray;
use arrow_schema::{DataType, Field, Schema};
use futures::executor::block_on;
use proptest::prelude::*;

const SIZE: BatchSize = BatchSize {
    rows: 4,
    bytes: 1000,
};

fn collection() -> Collection {
    let fields = vec![
        Field::new("key", DataType::Int64, true),
        Field::new("word", DataType::Utf8, true),
    ];
    Collection::sum(1, "c", Arc::new(Schema::new(fields))).with_sums(["s"])
}

type Update = (Option<i64>, Option<String>, i64, i64);

fn batch(updates: &[Update]) -> RecordBatch {
    let keys: Int64Array = updates.iter().map(|u| u.0).collect();
    let words: StringArray = updates.iter().map(|u| u.1.as_deref()).collect();
    let diffs = Int64Array::from_iter_values(updates.iter().map(|u| u.2));
    let sums = Decimal128Array::from_iter_values(updates.iter().map(|u| i128::from(u.3) << 80));
    let sums = sums.with_data_type(SUM_TYPE);
    let columns: Vec<ArrayRef> = vec![
        Arc::new(keys),
        Arc::new(words),
        Arc::new(diffs),
        Arc::new(sums),
    ];
    RecordBatch::try_new(collection().schema(), columns).unwrap()
}

fn merge(collection: &Collection, batches: &[RecordBatch]) -> Vec<RecordBatch> {
    let order = RowOrder::new(&collection.rows).unwrap();
    let sorted = batches.iter().map(|batch| order.sort(batch).unwrap());
    let sources = sorted.map(|batch| Source::Memory(Some(batch))).collect();
    block_on(async {
        let mut merge = Merge::new(collection, sources, SIZE).await.unwrap();
        let mut merged = vec![];
        while let Some(batch) = merge.next().await.unwrap() {
            merged.push(batch);
        }
        merged
    })
}

fn update() -> impl Strategy<Value = Update> {
    let key = proptest::option::of(-3i64..3);
    let word = proptest::option::of("[ab]{0,2}");
    (key, word, -2i64..3, -1i64..2)
}

proptest! {
    #[test]
    fn merging_is_adding_up_in_order(
        inputs in proptest::collection::vec(proptest::collection::vec(update(), 0..20), 0..6),
    ) {
        let mut expected: BTreeMap<(Option<i64>, Option<String>), (i64, i64)> = BTreeMap::new();
        for (key, word, diff, sum) in inputs.iter().flatten() {
            let entry = expected.entry((*key, word.clone())).or_default();
            *entry = (entry.0 + diff, entry.1 + sum);
        }
        expected.retain(|_, added| *added != (0, 0));
        let expected: Vec<Update> = expected
            .into_iter()
            .map(|((key, word), (diff, sum))| (key, word, diff, sum))
            .collect();
        let inputs: Vec<RecordBatch> = inputs.iter().map(|input| batch(input)).collect();
        let merged = merge(&collection(), &inputs);
        prop_assert!(merged.iter().all(|batch| batch.num_rows() <= SIZE.rows));
        let merged = arrow_select::concat::concat_batches(&collection().schema(), &merged).unwrap();
        prop_assert_eq!(merged, batch(&expected));
    }
}

#[test]
fn rows_without_columns_are_counted() {
    let nothing = Collection::sum(1, "all", Arc::new(Schema::empty()));
    let counts = |diffs: Vec<i64>| {
        let diffs: ArrayRef = Arc::new(Int64Array::from(diffs));
        RecordBatch::try_new(nothing.schema(), vec![diffs]).unwrap()
    };
    let merged = merge(&nothing, &[counts(vec![1, 5]), counts(vec![-2])]);
    assert_eq!(merged, [counts(vec![4])]);
    let merged = merge(&nothing, &[counts(vec![1, 5]), counts(vec![-6])]);
    assert_eq!(merged, []);
}

#[test]
fn an_input_out_of_order_is_noticed() {
    let wrong = batch(&[(Some(2), None, 1, 0), (Some(1), None, 1, 0)]);
    let right = batch(&[(Some(0), None, 1, 0)]);
    let sources = [right, wrong].map(|batch| Source::Memory(Some(batch)));
    let stopped = block_on(async {
        let mut merge = Merge::new(&collection(), sources.into(), SIZE).await?;
        while merge.next().await?.is_some() {}
        Ok::<(), Stop>(())
    });
    assert!(matches!(stopped, Err(Stop::Unordered(1))), "{stopped:?}");
}
