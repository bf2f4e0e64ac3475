//! Every kind of join against a nested loop, at every time.

use arrow::datatypes::DataType::Int64;
use ruslo_repr::{Diff, Expr, JoinKind, Plan, Schema};
use serde_json::json;

use crate::evaluator::{column, condition};
use crate::harness::{Cluster, Object, Random, RandomTable, Row, Rows, V, consolidate, opt};

const KINDS: [JoinKind; 6] = [
    JoinKind::Inner,
    JoinKind::Left,
    JoinKind::Right,
    JoinKind::Full,
    JoinKind::Semi,
    JoinKind::Anti,
];

#[derive(Clone, Copy, Debug)]
struct Case {
    kind: JoinKind,
    residual: bool,
    null_equal: bool,
    /// Whether any equal column is asked for.
    keyed: bool,
    /// Whether the sides are read through a projection, so that no arrangement can be shared.
    projected: bool,
}

fn cases() -> Vec<Case> {
    let mut cases = vec![];
    for kind in KINDS {
        for bits in 0..16 {
            let bit = |i: u32| bits >> i & 1 == 1;
            cases.push(Case {
                kind,
                residual: bit(0),
                null_equal: bit(1),
                keyed: bit(2),
                projected: bit(3),
            });
        }
    }
    cases
}

impl Case {
    fn plan(&self, left: &Object, right: &Object) -> Plan {
        let columns = match self.kind {
            JoinKind::Semi | JoinKind::Anti => left.schema.columns.clone(),
            _ => [left.schema.columns.clone(), right.schema.columns.clone()].concat(),
        };
        Plan::Join {
            kind: self.kind,
            left: Box::new(self.side(left)),
            right: Box::new(self.side(right)),
            on: if self.keyed { vec![(1, 0)] } else { vec![] },
            residual: self.residual.then(residual),
            null_equal: self.null_equal,
            schema: Schema { columns },
        }
    }

    fn side(&self, object: &Object) -> Plan {
        if !self.projected {
            return object.get();
        }
        Plan::Map {
            input: Box::new(object.get()),
            filters: vec![condition(json!(1))],
            outputs: (0..object.schema.len()).map(|i| column(i, Int64)).collect(),
            schema: object.schema.clone(),
        }
    }

    fn matches(&self, left: &Row, right: &Row) -> bool {
        let keys = match (&left[1], &right[0]) {
            _ if !self.keyed => true,
            (V::Null, V::Null) => self.null_equal,
            (l, r) => l == r && *l != V::Null,
        };
        let residual = match (&left[0], &right[1]) {
            _ if !self.residual => true,
            (V::Int(l), V::Int(r)) => l < r,
            _ => false,
        };
        keys && residual
    }

    fn expected(&self, left: &Rows, right: &Rows) -> Rows {
        let mut out: Vec<(Row, Diff)> = vec![];
        let nulls = vec![V::Null; 2];
        for (l, copies) in left {
            let matching: Vec<_> = right.iter().filter(|(r, _)| self.matches(l, r)).collect();
            match self.kind {
                JoinKind::Semi if !matching.is_empty() => out.push((l.clone(), *copies)),
                JoinKind::Anti if matching.is_empty() => out.push((l.clone(), *copies)),
                JoinKind::Semi | JoinKind::Anti => {}
                kind => {
                    let pairs = matching.iter();
                    out.extend(pairs.map(|(r, c)| ([&l[..], r].concat(), copies * **c)));
                    if matching.is_empty() && matches!(kind, JoinKind::Left | JoinKind::Full) {
                        out.push(([&l[..], &nulls].concat(), *copies));
                    }
                }
            }
        }
        if matches!(self.kind, JoinKind::Right | JoinKind::Full) {
            for (r, copies) in right {
                if !left.keys().any(|l| self.matches(l, r)) {
                    out.push(([&nulls[..], r].concat(), *copies));
                }
            }
        }
        consolidate(out)
    }
}

/// left.0 < right.1
fn residual() -> Expr {
    condition(json!({"less": [{"column": 0}, {"column": 3}]}))
}

fn check(workers: usize, seed: u64) {
    let mut cluster = Cluster::new(workers);
    let mut table = |name: &str, key: &[usize]| RandomTable {
        object: cluster.table(&[(name, Int64), ("x", Int64)], key),
        rows: Default::default(),
    };
    // The left table is arranged by the join key, the right one too.
    let mut left = table("l", &[1]);
    let mut right = table("r", &[0]);
    let mut views = vec![];
    let mut random = Random::new(seed);
    let row = |r: &mut Random| vec![opt(r.nullable(4)), opt(r.nullable(4))];
    for (i, case) in cases().into_iter().enumerate() {
        if i % 12 == 0 {
            // Views made later start from a snapshot.
            left.change(&mut cluster, &mut random, row);
            right.change(&mut cluster, &mut random, row);
            cluster.tick();
        }
        views.push((
            case,
            cluster.view(case.plan(&left.object, &right.object), &[0]),
        ));
    }
    for _ in 0..15 {
        left.change(&mut cluster, &mut random, row);
        right.change(&mut cluster, &mut random, row);
        let time = cluster.tick();
        for (case, view) in &views {
            let expected = case.expected(&left.rows, &right.rows);
            assert_eq!(cluster.peek(view, time), expected, "{case:?} at {time}");
        }
    }
}

#[test]
fn joins_equal_nested_loops_on_one_worker() {
    check(1, 11);
}

#[test]
fn joins_equal_nested_loops_on_two_workers() {
    check(2, 12);
}

#[test]
fn a_join_of_views_by_their_keys_arranges_nothing_again() {
    let mut cluster = Cluster::new(1);
    let left = cluster.table(&[("k", Int64), ("v", Int64)], &[0]);
    let right = cluster.table(&[("k", Int64), ("w", Int64)], &[0]);
    let case = Case {
        kind: JoinKind::Inner,
        residual: false,
        null_equal: false,
        keyed: true,
        projected: false,
    };
    let Plan::Join {
        left: l, right: r, ..
    } = case.plan(&left, &right)
    else {
        panic!("not a join");
    };
    let plan = Plan::Join {
        kind: JoinKind::Inner,
        left: l,
        right: r,
        on: vec![(0, 0)],
        residual: None,
        null_equal: false,
        schema: Schema::new(["k", "v", "k2", "w"].map(|name| (name, Int64))),
    };
    let view = cluster.view(plan, &[0]);
    // Half of the keys have a match: the view's own arrangement is all the memory it takes.
    let rows = |from: i64| (from..from + 2000).map(|i| (vec![opt(Some(i)), opt(Some(i))], 1));
    cluster.write(&left, &rows(0).collect::<Vec<_>>());
    cluster.write(&right, &rows(1000).collect::<Vec<_>>());
    let time = cluster.tick();
    assert_eq!(cluster.peek(&view, time).len(), 1000);
    cluster
        .workers
        .send(ruslo_dataflow::Command::Stats { request: 1 });
    cluster.wait("stats", |c| c.stats.len() == 3);
    let of = |id| cluster.stats.iter().find(|s| s.id == id).cloned().unwrap();
    assert_eq!(of(view.id).records, 1000);
    assert!(of(view.id).bytes < of(left.id).bytes, "{:?}", cluster.stats);
}
