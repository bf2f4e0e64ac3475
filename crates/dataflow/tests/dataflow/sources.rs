//! Batches from sources: combined, drained at Close, hydrated beside the live flow.

use arrow::datatypes::DataType::{Int64, Utf8};
use ruslo_repr::{Aggregate, AggregateFunction, ObjectId, Plan, Schema};

use crate::harness::{Cluster, Random, Row, V, batch, consolidate, int, opt, text};

fn types() -> Vec<arrow::datatypes::DataType> {
    vec![Utf8, Int64]
}

fn counts(source: ObjectId) -> Plan {
    Plan::Reduce {
        input: Box::new(Plan::Source {
            id: source,
            columns: vec![0, 1],
            schema: Schema::new([("event", Utf8), ("n", Int64)]),
        }),
        keys: vec![0],
        aggregates: vec![Aggregate {
            function: AggregateFunction::Count,
            args: vec![],
            distinct: false,
            filter: None,
            ty: Int64,
            text: "count(*)".into(),
        }],
        schema: Schema::new([("event", Utf8), ("count", Int64)]),
    }
}

fn rows(events: &[(Option<&str>, usize)]) -> Vec<Row> {
    let rows = events.iter().flat_map(|(event, count)| {
        let event = event.map_or(V::Null, text);
        (0..*count).map(move |i| vec![event.clone(), opt(Some(i as i64))])
    });
    rows.collect()
}

#[test]
fn live_batches_are_counted_at_the_next_close() {
    for workers in [1, 2] {
        let mut cluster = Cluster::new(workers);
        let source = cluster.source();
        let view = cluster.view(counts(source), &[0]);
        let first = rows(&[(Some("click"), 700), (None, 3), (Some(""), 2)]);
        cluster.push(source, workers - 1, &types(), &first, 705);
        let time = cluster.tick();
        assert_eq!(cluster.offsets(time), [(source, workers as i32 - 1, 705)]);
        let expected = [
            (vec![text("click"), int(700)], 1),
            (vec![V::Null, int(3)], 1),
            (vec![text(""), int(2)], 1),
        ];
        assert_eq!(cluster.peek(&view, time), consolidate(expected));
        for worker in 0..workers {
            cluster.push(source, worker, &types(), &rows(&[(Some("click"), 1)]), 1);
        }
        let next = cluster.tick();
        let clicks = cluster
            .try_peek(&view, next, Some(vec![vec![text("click")]]), None)
            .0;
        let expected = (vec![text("click"), int(700 + workers as i64)], 1);
        assert_eq!(clicks, consolidate([expected]));
        assert_eq!(cluster.peek(&view, next).len(), 3);
    }
}

#[test]
fn a_view_hydrates_beside_the_live_flow_and_nobody_waits_for_it() {
    for workers in [1, 2] {
        let mut cluster = Cluster::new(workers);
        let source = cluster.source();
        let old = cluster.view(counts(source), &[0]);
        let past = rows(&[(Some("a"), 500), (Some("b"), 20)]);
        cluster.push(source, 0, &types(), &past, 520);
        let as_of = cluster.tick();
        let new = cluster.hydrating_view(counts(source), &[0], vec![source]);
        let on_top = cluster.view(new.get(), &[1]);
        cluster.push(source, 0, &types(), &rows(&[(Some("b"), 5)]), 525);
        let live = cluster.tick();
        assert!(!cluster.is_hydrated(new.id));
        let queue = |w| cluster.workers.hydration_queue(w, new.id, source);
        let (first, second) = past.split_at(300);
        queue(0).push(batch(&types(), first, 0, 300)).unwrap();
        queue(workers - 1)
            .push(batch(&types(), second, 0, 520))
            .unwrap();
        (0..workers).for_each(|worker| queue(worker).finish());
        cluster.wait_hydrated(new.id);
        cluster.wait_hydrated(on_top.id);
        cluster.push(source, 0, &types(), &rows(&[(Some("c"), 1)]), 526);
        let last = cluster.tick();
        for time in [as_of, live, last] {
            let expected = cluster.peek(&old, time);
            assert_eq!(cluster.peek(&new, time), expected);
            assert_eq!(cluster.peek(&on_top, time), expected);
        }
        // The queues of a finished hydration take nothing more.
        let queue = cluster.workers.hydration_queue(0, new.id, source);
        drop(queue);
    }
}

#[test]
fn a_full_queue_holds_its_producer_back_until_close() {
    let mut cluster = Cluster::new(1);
    let source = cluster.source();
    let view = cluster.view(counts(source), &[0]);
    let queue = cluster.workers.live_queue(0, source);
    let (done, producer) = std::sync::mpsc::channel();
    let many = rows(&[(Some("x"), 100_000)]);
    std::thread::spawn(move || {
        for i in 1..=5 {
            queue.push(batch(&types(), &many, 0, i * 100_000)).unwrap();
            done.send(i).unwrap();
        }
    });
    let patience = std::time::Duration::from_secs(20);
    for _ in 0..3 {
        producer.recv_timeout(patience).unwrap();
    }
    let brief = std::time::Duration::from_millis(300);
    assert!(
        producer.recv_timeout(brief).is_err(),
        "the fourth push should wait"
    );
    cluster.tick();
    producer.recv_timeout(patience).unwrap();
    producer.recv_timeout(patience).unwrap();
    let time = cluster.tick();
    let expected = consolidate([(vec![text("x"), int(500_000)], 1)]);
    assert_eq!(cluster.peek(&view, time), expected);
}

#[test]
fn extremes_of_a_source_keep_one_pair_per_group() {
    for workers in [1, 2] {
        let mut cluster = Cluster::new(workers);
        let source = cluster.source();
        let extreme = |function: AggregateFunction| Aggregate {
            text: format!("{function:?}"),
            function,
            args: vec![1],
            distinct: false,
            filter: None,
            ty: Int64,
        };
        let Plan::Reduce { input, .. } = counts(source) else {
            panic!("not a reduce");
        };
        let plan = |keys: Vec<usize>| Plan::Reduce {
            input: input.clone(),
            schema: Schema::new(
                keys.iter()
                    .map(|_| ("event", Utf8))
                    .chain([("min", Int64), ("max", Int64)]),
            ),
            keys,
            aggregates: vec![
                extreme(AggregateFunction::Min),
                extreme(AggregateFunction::Max),
            ],
        };
        let by_event = cluster.view(plan(vec![0]), &[0]);
        let overall = cluster.view(plan(vec![]), &[]);
        let time = cluster.tick();
        assert!(cluster.peek(&by_event, time).is_empty());
        assert_eq!(
            cluster.peek(&overall, time),
            consolidate([(vec![V::Null, V::Null], 1)])
        );
        let mut random = Random::new(6);
        let mut all: Vec<Row> = vec![];
        for _ in 0..12 {
            for worker in 0..workers {
                let rows = (0..random.below(9)).map(|_| {
                    let event = random.nullable(3).map_or(V::Null, |e| text(&e.to_string()));
                    vec![event, opt(random.nullable(1000))]
                });
                let rows: Vec<Row> = rows.collect();
                cluster.push(source, worker, &types(), &rows, 0);
                all.extend(rows);
            }
            let time = cluster.tick();
            let of = |rows: Vec<&Row>| {
                let values = || rows.iter().map(|row| &row[1]).filter(|v| **v != V::Null);
                let pair = [values().min(), values().max()];
                pair.map(|value| value.cloned().unwrap_or(V::Null))
            };
            let events: std::collections::BTreeSet<&V> = all.iter().map(|row| &row[0]).collect();
            let expected = events.into_iter().map(|event| {
                let rows = all.iter().filter(|row| row[0] == *event).collect();
                ([&[event.clone()][..], &of(rows)].concat(), 1)
            });
            assert_eq!(cluster.peek(&by_event, time), consolidate(expected));
            let expected = of(all.iter().collect()).to_vec();
            assert_eq!(cluster.peek(&overall, time), consolidate([(expected, 1)]));
        }
    }
}
