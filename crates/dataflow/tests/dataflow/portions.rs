//! Batches that are larger than what is read at once: every row counts once all the same.

use arrow::datatypes::DataType::{Int64, Utf8};
use ruslo_repr::{JoinKind, Plan, Schema};

use crate::evaluator::column;
use crate::harness::{Cluster, Object, Row, Rows, V, consolidate, int, text};
use crate::views::map;

/// Some 13 MB in a table, several times of what is read at once, also by each of two workers.
const ROWS: i64 = 3200;
const TEXT_BYTES: usize = 4096;

fn row(id: i64) -> Row {
    // Few of them, so that DISTINCT has something to do.
    vec![
        int(id),
        text(&format!("{:04}", id / 2).repeat(TEXT_BYTES / 4)),
    ]
}

fn join(kind: JoinKind, left: &Object, right: &Object) -> Plan {
    let columns = match kind {
        JoinKind::Anti => left.schema.columns.clone(),
        _ => [left.schema.columns.clone(), right.schema.columns.clone()].concat(),
    };
    Plan::Join {
        kind,
        left: Box::new(left.get()),
        right: Box::new(right.get()),
        on: vec![(0, 0)],
        residual: None,
        null_equal: false,
        schema: Schema { columns },
    }
}

fn rows(ids: impl Iterator<Item = i64>, make: impl Fn(i64) -> Row) -> Rows {
    consolidate(ids.map(|id| (make(id), 1)))
}

#[test]
fn large_batches_are_read_once() {
    for workers in [1, 2] {
        let mut cluster = Cluster::new(workers);
        let left = cluster.table(&[("id", Int64), ("text", Utf8)], &[0]);
        let right = cluster.table(&[("id", Int64), ("text", Utf8)], &[0]);
        let all: Vec<_> = (0..ROWS).map(|id| (row(id), 1)).collect();
        cluster.write(&left, &all);
        let even: Vec<_> = (0..ROWS).step_by(2).map(|id| (row(id), 1)).collect();
        cluster.write(&right, &even);
        cluster.tick();
        // Made over what is there already, in one batch.
        let texts = map(left.get(), vec![], vec![column(1, Utf8)]);
        let distinct = Plan::Distinct {
            input: Box::new(texts),
        };
        let distinct = cluster.view(distinct, &[0]);
        let inner = cluster.view(join(JoinKind::Inner, &left, &right), &[0]);
        let outer = cluster.view(join(JoinKind::Left, &left, &right), &[0]);
        let anti = cluster.view(join(JoinKind::Anti, &left, &right), &[0]);
        let time = cluster.tick();
        let once = |id| vec![row(id)[1].clone()];
        let both = |id| [row(id), row(id)].concat();
        let padded = |id| match id % 2 {
            0 => both(id),
            _ => [row(id), vec![V::Null, V::Null]].concat(),
        };
        let even = || (0..ROWS).step_by(2);
        assert!(cluster.peek(&distinct, time) == rows(even(), once));
        assert!(cluster.peek(&inner, time) == rows(even(), both));
        assert!(cluster.peek(&outer, time) == rows(0..ROWS, padded));
        assert!(cluster.peek(&anti, time) == rows((1..ROWS).step_by(2), row));
    }
}

#[test]
fn a_key_may_have_very_many_pairs() {
    const EACH: i64 = 300;
    for workers in [1, 2] {
        let mut cluster = Cluster::new(workers);
        let columns = [("key", Int64), ("id", Int64), ("text", Utf8)];
        let left = cluster.table(&columns, &[0, 1]);
        let right = cluster.table(&columns, &[0, 1]);
        let row = |id: i64| vec![int(7), int(id), text(&format!("{id:040}"))];
        let some = |ids: std::ops::Range<i64>| ids.map(|id| (row(id), 1)).collect::<Vec<_>>();
        cluster.write(&left, &some(0..EACH));
        cluster.tick();
        let inner = cluster.view(join(JoinKind::Inner, &left, &right), &[0]);
        cluster.write(&right, &some(0..EACH));
        cluster.tick();
        let gone: Vec<_> = some(0..1).into_iter().map(|(row, _)| (row, -1)).collect();
        cluster.write(&left, &gone);
        let time = cluster.tick();
        let pairs = (1..EACH).flat_map(|l| (0..EACH).map(move |r| (l, r)));
        let pairs = pairs.map(|(l, r)| ([row(l), row(r)].concat(), 1));
        assert!(cluster.peek(&inner, time) == consolidate(pairs));
    }
}
