//! What should be there: the acknowledged records, and the collections they make.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::{Array, ArrayRef, Decimal128Array, Int64Array, RecordBatch, StringArray};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use ruslo_state::sim::Random;
use ruslo_state::{Collection, Entry, Record, SUM_TYPE, Time};
use serde_json::json;

type Row = (Option<i64>, String);
/// Row → diff and sum.
pub(crate) type Rows = BTreeMap<Row, (i64, i128)>;
/// Collection → rows.
pub(crate) type State = BTreeMap<u64, Rows>;

pub(crate) fn row_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("key", DataType::Int64, true),
        Field::new("word", DataType::Utf8, true),
    ]))
}

pub(crate) fn collection(id: u64) -> Collection {
    Collection::sum(id, &format!("c{id}"), row_schema()).with_sums(["total"])
}

/// Adds the updates of a batch to rows.
pub(crate) fn apply(rows: &mut Rows, batch: &RecordBatch) {
    let ints = |i: usize| -> &Int64Array { batch.column(i).as_any().downcast_ref().unwrap() };
    let (keys, diffs) = (ints(0), ints(2));
    let words: &StringArray = batch.column(1).as_any().downcast_ref().unwrap();
    let sums: &Decimal128Array = batch.column(3).as_any().downcast_ref().unwrap();
    for i in 0..batch.num_rows() {
        let key = keys.is_valid(i).then(|| keys.value(i));
        let row = (key, words.value(i).to_string());
        let entry = rows.entry(row.clone()).or_default();
        entry.0 += diffs.value(i);
        entry.1 += sums.value(i);
        if *entry == (0, 0) {
            rows.remove(&row);
        }
    }
}

/// What a record does to the collections, as the server would do it.
pub(crate) fn replay(state: &mut State, record: &Record) {
    for entry in &record.entries {
        match entry {
            Entry::Catalog { change } => {
                if let Some(id) = change["create"].as_u64() {
                    state.insert(id, Rows::new());
                }
                if let Some(id) = change["remove"].as_u64() {
                    state.remove(&id);
                }
            }
            Entry::Rows { table, updates } => apply(state.get_mut(table).unwrap(), updates),
            Entry::Binding { .. } => {}
        }
    }
}

/// The acknowledged past.
#[derive(Default)]
pub(crate) struct Model {
    pub(crate) records: Vec<Record>,
    /// After each record.
    pub(crate) states: BTreeMap<Time, State>,
    /// Of an append that failed or was cut off by a crash.
    pub(crate) in_doubt: Vec<Record>,
    /// The newest checkpoint that was acknowledged.
    pub(crate) checkpoint: Time,
    next_collection: u64,
}

impl Model {
    pub(crate) fn time(&self) -> Time {
        self.records.last().map_or(0, |record| record.time)
    }

    pub(crate) fn state_at(&self, time: Time) -> Option<State> {
        match time {
            0 => Some(State::new()),
            _ => self.states.get(&time).cloned(),
        }
    }

    pub(crate) fn acknowledge(&mut self, records: &[Record]) {
        for record in records {
            let mut state = self.state_at(self.time()).unwrap();
            replay(&mut state, record);
            self.records.push(record.clone());
            self.states.insert(record.time, state);
        }
    }

    /// One to three records that change anything.
    pub(crate) fn invent(&mut self, random: &mut Random) -> Vec<Record> {
        let mut state = self.state_at(self.time()).unwrap();
        let mut time = self.time();
        let count = 1 + random.below(3) / 2;
        let records = (0..count).map(|_| {
            time += 1 + random.below(1000);
            let entries = self.entries(random, &state);
            let record = Record { time, entries };
            replay(&mut state, &record);
            record
        });
        records.collect()
    }

    fn entries(&mut self, random: &mut Random, state: &State) -> Vec<Entry> {
        let partitions = (0..1 + random.below(3) as i32).map(|p| (p, random.below(1 << 40) as i64));
        let offsets = [(4, partitions.collect())].into();
        let mut entries = vec![Entry::Binding { offsets }];
        let mut ids: Vec<u64> = state.keys().copied().collect();
        if ids.len() < 3 && random.below(4) == 0 || ids.is_empty() {
            self.next_collection += 1;
            let id = self.next_collection;
            entries.push(Entry::Catalog {
                change: json!({ "create": id }),
            });
            ids.push(id);
        } else if random.below(15) == 0 {
            let id = ids.remove(random.below(ids.len() as u64) as usize);
            entries.push(Entry::Catalog {
                change: json!({ "remove": id }),
            });
        }
        for id in ids {
            if random.flip() {
                entries.push(Entry::Rows {
                    table: id,
                    updates: updates(random),
                });
            }
        }
        entries
    }
}

fn updates(random: &mut Random) -> RecordBatch {
    let (mut keys, mut words, mut diffs, mut sums) = (vec![], vec![], vec![], vec![]);
    for _ in 0..random.below(40) {
        let key = random.below(12) as i64;
        keys.push((key != 0).then_some(key));
        words.push(format!("word {}", random.below(2)));
        diffs.push(random.below(5) as i64 - 2);
        sums.push(i128::from(random.below(3) as i64 - 1) << 70);
    }
    let sums = Decimal128Array::from(sums).with_data_type(SUM_TYPE);
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from(keys)),
        Arc::new(StringArray::from(words)),
        Arc::new(Int64Array::from(diffs)),
        Arc::new(sums),
    ];
    RecordBatch::try_new(collection(0).schema(), columns).unwrap()
}
