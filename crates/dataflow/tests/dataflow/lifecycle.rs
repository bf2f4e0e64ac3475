//! Objects come and go while others go on; sinks, peeks, compaction, faults.

use arrow::datatypes::DataType::{Int64, Utf8};
use ruslo_dataflow::{Command, Faults};
use ruslo_repr::{Aggregate, AggregateFunction, ErrorKind, JoinKind, Plan, Schema};

use crate::harness::{Cluster, Object, Random, RandomTable, batch, consolidate, int, text};

fn count_by(input: Plan, key: usize) -> Plan {
    let ty = input.schema().columns[key].ty.clone();
    Plan::Reduce {
        input: Box::new(input),
        keys: vec![key],
        aggregates: vec![Aggregate {
            function: AggregateFunction::Count,
            args: vec![],
            distinct: false,
            filter: None,
            ty: Int64,
            text: "count(*)".into(),
        }],
        schema: Schema::new([("key", ty), ("count", Int64)]),
    }
}

fn self_join(object: &Object) -> Plan {
    let columns = object.schema.columns.iter().chain(&object.schema.columns);
    Plan::Join {
        kind: JoinKind::Inner,
        left: Box::new(object.get()),
        right: Box::new(object.get()),
        on: vec![(0, 0)],
        residual: None,
        null_equal: false,
        schema: Schema {
            columns: columns.cloned().collect(),
        },
    }
}

fn random_table(cluster: &mut Cluster) -> RandomTable {
    RandomTable {
        object: cluster.table(&[("k", Int64), ("v", Int64)], &[0]),
        rows: Default::default(),
    }
}

fn random_row(random: &mut Random) -> Vec<crate::harness::V> {
    vec![int(random.below(6) as i64), int(random.below(4) as i64)]
}

#[test]
fn a_sink_reports_every_change_after_its_time() {
    for workers in [1, 2] {
        let mut cluster = Cluster::new(workers);
        let mut table = random_table(&mut cluster);
        let mut random = Random::new(3);
        for _ in 0..5 {
            table.change(&mut cluster, &mut random, random_row);
            cluster.tick();
        }
        let view = cluster.view(count_by(table.object.get(), 0), &[0]);
        let sink = cluster.sink(&view);
        cluster.wait_sink(sink, cluster.time + 1);
        let snapshot = cluster.peek(&view, cluster.time);
        assert!(!snapshot.is_empty() && cluster.sink_updates.is_empty());
        for _ in 0..10 {
            table.change(&mut cluster, &mut random, random_row);
            let time = cluster.tick();
            cluster.wait_sink(sink, time + 1);
            let changes = cluster.sink_rows(sink, &view);
            let rows = consolidate(snapshot.clone().into_iter().chain(changes));
            assert_eq!(rows, cluster.peek(&view, time));
        }
    }
}

/// The same rows in the same order as in one piece, however small the portions are; also within
/// the values of one key.
#[test]
fn portions_make_up_the_whole() {
    for (workers, key) in [(1, vec![0]), (2, vec![0]), (1, vec![]), (2, vec![0, 1])] {
        let mut cluster = Cluster::new(workers);
        let table = cluster.table(&[("k", Int64), ("v", Int64)], &[0, 1]);
        let view = cluster.view(table.get(), &key);
        let mut random = Random::new(workers as u64);
        for _ in 0..20 {
            let mut row = || vec![int(random.below(6) as i64), int(random.below(40) as i64)];
            let updates: Vec<_> = (0..30).map(|_| (row(), 1)).collect();
            cluster.write(&table, &updates);
            cluster.tick();
        }
        let (whole, end) = cluster.peek_portion(&view, None, usize::MAX);
        assert!(whole.len() > 200 && end.is_none());
        for bytes in [1, 100, 500] {
            let (mut rows, mut after, mut portions) = (vec![], None, 0);
            loop {
                let (portion, left_off) = cluster.peek_portion(&view, after, bytes);
                rows.extend(portion);
                portions += 1;
                if left_off.is_none() {
                    break;
                }
                after = left_off;
            }
            assert!(portions > 3);
            assert_eq!(rows, whole, "{workers} workers, {key:?}, {bytes} bytes");
        }
    }
}

/// A restart closes the checkpoint's own time again, and times may follow each other without a gap.
#[test]
fn rows_are_in_the_time_they_are_closed_with() {
    for workers in [1, 2] {
        let mut cluster = Cluster::new(workers);
        let table = cluster.table(&[("k", Int64)], &[0]);
        let first = cluster.time;
        cluster.workers.send(Command::Close { time: first });
        for number in 1..=20 {
            cluster.write(&table, &[(vec![int(number as i64)], 1)]);
            cluster.time = first + number;
            cluster.workers.send(Command::Close { time: cluster.time });
            cluster.wait_complete(cluster.time);
            assert_eq!(cluster.peek(&table, cluster.time).len(), number as usize);
        }
    }
}

#[test]
fn views_come_and_go_while_data_flows() {
    for workers in [1, 2] {
        let mut cluster = Cluster::new(workers);
        let mut table = random_table(&mut cluster);
        let mut random = Random::new(4);
        let stays = cluster.view(count_by(table.object.get(), 1), &[0]);
        for i in 0..40 {
            let plan = match i % 2 {
                0 => count_by(table.object.get(), 0),
                _ => self_join(&table.object),
            };
            let view = cluster.view(plan, &[1, 0]);
            let on_top = cluster.view(count_by(view.get(), 0), &[0]);
            let sink = cluster.sink(&on_top);
            table.change(&mut cluster, &mut random, random_row);
            if i % 3 == 0 {
                cluster.tick();
            } else {
                cluster.close();
            }
            for id in [sink, on_top.id, view.id] {
                cluster.workers.send(Command::Drop { id });
            }
            let since = cluster.time;
            for id in [table.object.id, stays.id] {
                cluster.workers.send(Command::AllowCompaction { id, since });
            }
        }
        let time = cluster.tick();
        assert_eq!(cluster.peek(&table.object, time), table.rows);
        let counts = cluster.peek(&stays, time);
        let total: i64 = counts
            .keys()
            .map(|row| match &row[1] {
                crate::harness::V::Int(count) => *count,
                other => panic!("a count is {other:?}"),
            })
            .sum();
        assert_eq!(total, table.rows.values().sum::<i64>());
    }
}

#[test]
fn a_view_dropped_in_the_middle_of_its_hydration_closes_its_queue() {
    let mut cluster = Cluster::new(2);
    let source = cluster.source();
    let schema = Schema::new([("event", Utf8)]);
    let plan = Plan::Source {
        id: source,
        columns: vec![0],
        schema,
    };
    let view = cluster.hydrating_view(count_by(plan, 0), &[0], vec![source]);
    let queue = cluster.workers.hydration_queue(1, view.id, source);
    let one = || batch(&[Utf8], &[vec![text("x")]], 0, 1);
    queue.push(one()).unwrap();
    cluster.close();
    cluster.workers.send(Command::Drop { id: view.id });
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while queue.push(one()).is_ok() {
        assert!(std::time::Instant::now() < deadline, "the queue stays open");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    cluster.tick();
    let late = cluster.workers.hydration_queue(1, view.id, source);
    assert!(late.push(one()).is_err());
}

#[test]
fn a_peek_waits_for_its_time_and_respects_compaction() {
    let mut cluster = Cluster::new(2);
    let table = cluster.table(&[("k", Int64)], &[0]);
    let rows: Vec<_> = (0..30_000).map(|i| (vec![int(i)], 1)).collect();
    cluster.write(&table, &rows);
    let early = cluster.start_peek(&table, 10, false, None, None);
    let cancelled = cluster.start_peek(&table, 1000, false, None, None);
    cluster
        .workers
        .send(Command::CancelPeek { request: cancelled });
    let time = cluster.tick();
    assert_eq!(time, 10);
    assert_eq!(cluster.peek(&table, time), consolidate(rows));
    let keys: Vec<_> = (0..30_000).map(|i| vec![int(i * 2)]).collect();
    let even = cluster.try_peek(&table, time, Some(keys), None).0;
    assert_eq!(even.len(), 15_000);
    let limited = cluster.try_peek(&table, time, None, Some(7)).0;
    assert_eq!(limited.len(), 14, "each worker gives at most seven");
    cluster.tick();
    cluster.workers.send(Command::AllowCompaction {
        id: table.id,
        since: 20,
    });
    let (_, error) = cluster.try_peek(&table, 10, None, None);
    assert_eq!(error.map(|error| error.kind), Some(ErrorKind::InvalidState));
    assert_eq!(cluster.peek(&table, 20).len(), 30_000);
    let gone = Object {
        id: ruslo_repr::ObjectId(999),
        ..table.clone()
    };
    let (_, error) = cluster.try_peek(&gone, 20, None, None);
    assert_eq!(
        error.map(|error| error.kind),
        Some(ErrorKind::UndefinedTable)
    );
    let _ = early;
}

#[test]
fn a_key_with_very_many_rows_can_be_looked_up() {
    let mut cluster = Cluster::new(1);
    let table = cluster.table(&[("k", Int64), ("v", Int64)], &[0]);
    let rows: Vec<_> = (0..70_000).map(|i| (vec![int(i % 2), int(i)], 1)).collect();
    cluster.write(&table, &rows);
    let time = cluster.tick();
    let keys = Some(vec![vec![int(1)], vec![int(0)], vec![int(5)]]);
    assert_eq!(cluster.try_peek(&table, time, keys, None).0.len(), 70_000);
}

#[test]
fn memory_is_reported_by_object() {
    let mut cluster = Cluster::new(1);
    let table = cluster.table(&[("k", Int64)], &[0]);
    let view = cluster.view(count_by(table.get(), 0), &[0]);
    let rows: Vec<_> = (0..1000).map(|i| (vec![int(i)], 1)).collect();
    cluster.write(&table, &rows);
    cluster.write(&table, &[(vec![int(7)], -1), (vec![int(8)], -1)]);
    cluster.wait_hydrated(view.id);
    cluster.tick();
    cluster.workers.send(Command::Stats { request: 1 });
    cluster.wait("stats", |c| c.stats.len() == 2);
    let of = |id| cluster.stats.iter().find(|s| s.id == id).cloned().unwrap();
    assert_eq!(of(table.id).rows, 998);
    assert_eq!(of(view.id).rows, 998);
    assert_eq!(of(table.id).records, 998);
    assert!(of(table.id).bytes > 1000 * 9);
    // The view holds its counts twice: as diffs by group, and as rows.
    assert!(of(view.id).bytes > of(table.id).bytes * 3 / 2);
}

#[test]
fn planted_faults_are_noticed() {
    let wrong = |faults: Faults, plan: &dyn Fn(&Object) -> Plan| {
        let [mut right, mut broken] =
            [Faults::default(), faults].map(|f| Cluster::with_faults(1, f));
        let outcomes = [&mut right, &mut broken].map(|cluster| {
            let mut table = random_table(cluster);
            let view = cluster.view(plan(&table.object), &[0]);
            let mut random = Random::new(5);
            let at_each_time = (0..20).map(|_| {
                table.change(cluster, &mut random, random_row);
                let time = cluster.tick();
                cluster.peek(&view, time)
            });
            at_each_time.collect::<Vec<_>>()
        });
        outcomes[0] != outcomes[1]
    };
    let count = |table: &Object| count_by(table.get(), 1);
    let filter = |table: &Object| Plan::Map {
        input: Box::new(table.get()),
        filters: vec![crate::evaluator::condition(serde_json::json!(1))],
        outputs: vec![crate::evaluator::column(0, Int64)],
        schema: Schema::new([("k", Int64)]),
    };
    let faults = Faults::default();
    assert!(!wrong(faults, &count));
    assert!(wrong(
        Faults {
            count: true,
            ..faults
        },
        &count
    ));
    assert!(wrong(
        Faults {
            join: true,
            ..faults
        },
        &self_join
    ));
    assert!(wrong(
        Faults {
            retraction: true,
            ..faults
        },
        &filter
    ));
}
