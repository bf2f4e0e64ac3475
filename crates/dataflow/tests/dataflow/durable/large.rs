//! What a checkpoint hands over of much state, and of little change.

use arrow::datatypes::DataType::Int64;
use ruslo_dataflow::Command;
use ruslo_repr::schema::NUMERIC;
use ruslo_repr::{Aggregate, AggregateFunction, ObjectId, Plan, Schema};

use super::store::Store;
use crate::aggregates::{aggregate, reduce};
use crate::harness::{Cluster, Object, Row, int};

const GROUPS: i64 = 50_000;

fn sum(source: ObjectId) -> (Plan, Vec<Aggregate>) {
    let input = Plan::Source {
        id: source,
        columns: vec![0, 1],
        schema: Schema::new([("k", Int64), ("v", Int64)]),
    };
    let aggregates = vec![aggregate(AggregateFunction::Sum, Some(1), NUMERIC)];
    (input, aggregates)
}

fn view(cluster: &mut Cluster, source: ObjectId) -> Object {
    let (input, aggregates) = sum(source);
    cluster.view(reduce(input, &[0], &aggregates), &[0])
}

fn push(cluster: &Cluster, source: ObjectId, groups: std::ops::Range<i64>) {
    let rows: Vec<Row> = groups.map(|i| vec![int(i), int(i * 3)]).collect();
    cluster.push(source, 0, &[Int64, Int64], &rows, 1);
}

#[test]
fn a_checkpoint_hands_over_what_changed_and_no_more() {
    let mut cluster = Cluster::new(2);
    let source = cluster.source();
    let view = view(&mut cluster, source);
    push(&cluster, source, 0..GROUPS);
    let time = cluster.tick();
    cluster.checkpoint(time, vec![view.id]);
    let rows = |cluster: &Cluster| -> usize {
        let batches = cluster.changes.iter();
        batches.map(|(_, _, batch)| batch.num_rows()).sum()
    };
    // A row count, a count of values and a sum for each group but the first, whose sum is zero.
    assert_eq!(rows(&cluster), GROUPS as usize * 3 - 1);
    let mut store = Store::default();
    store.take(&mut cluster);
    for _ in 0..50 {
        push(&cluster, source, 0..5);
        cluster.tick();
    }
    let time = cluster.time;
    // Not even the changes of fifty times are more than those of the groups that changed.
    cluster.checkpoint(time, vec![view.id]);
    assert!(rows(&cluster) <= 2 * (5 * 3 - 1), "{}", rows(&cluster));
    store.take(&mut cluster);
    let (_, content) = &store.0[&(view.id, 0)];
    assert_eq!(content[&vec![int(4), int(-1)]], (51, vec![0]));
    assert_eq!(content[&vec![int(4), int(1)]], (0, vec![51 * 12]));
    cluster.tick();
    let time = cluster.time;
    cluster.checkpoint(time, vec![view.id]);
    assert!(cluster.changes.is_empty(), "nothing has changed");
}

#[test]
fn an_object_that_goes_does_not_hold_a_checkpoint() {
    let mut cluster = Cluster::new(2);
    let source = cluster.source();
    let goes = view(&mut cluster, source);
    let stays = view(&mut cluster, source);
    push(&cluster, source, 0..GROUPS);
    let time = cluster.tick();
    let objects = vec![goes.id, stays.id];
    cluster.workers.send(Command::Checkpoint { time, objects });
    cluster.workers.send(Command::Drop { id: goes.id });
    cluster.checkpoint(time + 10, vec![]);
    let mut store = Store::default();
    store.take(&mut cluster);
    assert_eq!(store.0[&(stays.id, 0)].1.len(), GROUPS as usize * 3 - 1);
}

#[test]
fn without_durability_a_checkpoint_is_over_at_once() {
    let mut cluster = Cluster::without_durability(2);
    let source = cluster.source();
    let view = view(&mut cluster, source);
    push(&cluster, source, 0..10);
    let time = cluster.tick();
    cluster.checkpoint(time, vec![view.id]);
    assert!(cluster.changes.is_empty());
}
