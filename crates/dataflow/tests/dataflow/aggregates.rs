//! Aggregates of every class against recomputation, with random updates and retractions.

use std::collections::{BTreeMap, BTreeSet};

use arrow::datatypes::DataType::{self, Boolean, Float64, Int32, Int64};
use ruslo_repr::schema::NUMERIC;
use ruslo_repr::{Aggregate, AggregateFunction, Plan, Schema};
use rust_decimal::Decimal;

use crate::harness::{Cluster, Object, Random, RandomTable, Row, Rows, V, consolidate};
use crate::harness::{float, int, num, text};

use AggregateFunction::{Avg, Count, Max, Min, Sum};

// The columns of the table under test.
const GROUP: usize = 0;
const SMALL: usize = 1;
const BIG: usize = 2;
const FLOAT: usize = 3;
const NUM: usize = 4;
const FLAG: usize = 5;

pub(crate) fn aggregate(
    function: AggregateFunction,
    argument: Option<usize>,
    ty: DataType,
) -> Aggregate {
    Aggregate {
        text: format!("{function:?}({argument:?})"),
        function,
        args: argument.into_iter().collect(),
        distinct: false,
        filter: None,
        ty,
    }
}

pub(crate) fn distinct(aggregate: Aggregate) -> Aggregate {
    Aggregate {
        distinct: true,
        ..aggregate
    }
}

pub(crate) fn filtered(aggregate: Aggregate) -> Aggregate {
    Aggregate {
        filter: Some(FLAG),
        ..aggregate
    }
}

pub(crate) fn spread(argument: usize) -> Aggregate {
    aggregate(
        AggregateFunction::Other { code: vec![] },
        Some(argument),
        Int64,
    )
}

/// Sets of aggregates, each of them one view.
fn sets() -> Vec<Vec<Aggregate>> {
    vec![
        vec![],
        vec![aggregate(Count, None, Int64)],
        vec![
            aggregate(Count, None, Int64),
            aggregate(Count, Some(SMALL), Int64),
            aggregate(Sum, Some(SMALL), Int64),
            aggregate(Avg, Some(SMALL), NUMERIC),
            aggregate(Sum, Some(BIG), NUMERIC),
            aggregate(Avg, Some(BIG), NUMERIC),
        ],
        vec![
            aggregate(Sum, Some(FLOAT), Float64),
            aggregate(Avg, Some(FLOAT), Float64),
            aggregate(Sum, Some(NUM), NUMERIC),
            aggregate(Avg, Some(NUM), NUMERIC),
            filtered(aggregate(Count, None, Int64)),
            filtered(aggregate(Sum, Some(NUM), NUMERIC)),
        ],
        vec![
            aggregate(Min, Some(SMALL), Int32),
            aggregate(Max, Some(SMALL), Int32),
        ],
        vec![
            aggregate(Max, Some(FLOAT), Float64),
            filtered(aggregate(Min, Some(BIG), Int64)),
            aggregate(Min, Some(NUM), NUMERIC),
        ],
        vec![
            distinct(aggregate(Count, Some(SMALL), Int64)),
            distinct(aggregate(Sum, Some(SMALL), Int64)),
            filtered(distinct(aggregate(Sum, Some(BIG), NUMERIC))),
        ],
        vec![spread(BIG)],
        vec![
            spread(BIG),
            aggregate(Max, Some(BIG), Int64),
            aggregate(Count, None, Int64),
            distinct(aggregate(Count, Some(BIG), Int64)),
        ],
    ]
}

pub(crate) fn reduce(input: Plan, keys: &[usize], aggregates: &[Aggregate]) -> Plan {
    let keyed = keys
        .iter()
        .map(|&key| input.schema().columns[key].ty.clone());
    let types: Vec<_> = keyed
        .chain(aggregates.iter().map(|a| a.ty.clone()))
        .collect();
    let columns = types.into_iter().enumerate();
    Plan::Reduce {
        schema: Schema::new(columns.map(|(i, ty)| (format!("c{i}"), ty))),
        input: Box::new(input),
        keys: keys.to_vec(),
        aggregates: aggregates.to_vec(),
    }
}

/// What an aggregate is over rows; an error where it has none.
fn compute(aggregate: &Aggregate, group: &[&Row]) -> Result<V, &'static str> {
    let rows = group.iter().filter(|row| match aggregate.filter {
        Some(filter) => row[filter] == V::Bool(true),
        None => true,
    });
    let Some(&argument) = aggregate.args.first() else {
        return Ok(int(rows.count() as i64));
    };
    let mut values: Vec<&V> = rows
        .map(|row| &row[argument])
        .filter(|v| **v != V::Null)
        .collect();
    if aggregate.distinct {
        values = values
            .into_iter()
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect();
    }
    if aggregate.function == Count {
        return Ok(int(values.len() as i64));
    }
    if values.is_empty() {
        return Ok(V::Null);
    }
    let by_size = |a: &&&V, b: &&&V| size(a).total_cmp(&size(b));
    match &aggregate.function {
        Min => Ok((*values.iter().min_by(by_size).unwrap()).clone()),
        Max => Ok((*values.iter().max_by(by_size).unwrap()).clone()),
        AggregateFunction::Other { .. } => {
            let sizes = || values.iter().map(|v| size(v) as i64);
            match sizes().max().unwrap() - sizes().min().unwrap() {
                spread if spread > 1000 => Err("spread too large"),
                spread => Ok(int(spread)),
            }
        }
        function => Ok(total(&values, *function == Avg, &aggregate.ty)),
    }
}

fn size(value: &V) -> f64 {
    match value {
        V::Int(i) => *i as f64,
        V::Float(text) | V::Num(text) => text.parse().unwrap(),
        other => panic!("no size of {other:?}"),
    }
}

fn total(values: &[&V], average: bool, ty: &DataType) -> V {
    let count = values.len();
    if *ty == Float64 {
        // Multiples of a quarter add up exactly in any order.
        let sum: f64 = values.iter().map(|v| size(v)).sum();
        return float(if average { sum / count as f64 } else { sum });
    }
    if *ty == Int64 {
        return int(values.iter().map(|v| size(v) as i64).sum());
    }
    let decimal = |v: &&V| match v {
        V::Int(i) => Decimal::from(*i),
        V::Num(text) => text.parse().unwrap(),
        other => panic!("no number: {other:?}"),
    };
    let sum: Decimal = values.iter().map(decimal).sum();
    num(&if average {
        sum / Decimal::from(count)
    } else {
        sum
    }
    .to_string())
}

/// Averages are compared as numbers: how many digits they have is a unit test's matter.
fn same(expected: &V, actual: &V) -> bool {
    match (expected, actual) {
        (V::Num(a), V::Num(b)) => {
            let [a, b]: [Decimal; 2] = [a, b].map(|text| text.parse().unwrap());
            (a - b).abs() < Decimal::new(1, 12)
        }
        (expected, actual) => expected == actual,
    }
}

fn random_row(random: &mut Random) -> Row {
    let small = random.nullable(5).map_or(V::Null, |v| int(v - 2));
    // Sometimes beyond what the spread can take.
    let big = random.nullable(4).map_or(V::Null, |v| int(v * 450));
    let float = random
        .nullable(40)
        .map_or(V::Null, |v| float(v as f64 / 4.0 - 5.0));
    let numeric = random.nullable(30).map_or(V::Null, |v| {
        num(&Decimal::new(v - 10, random_scale(v)).to_string())
    });
    let flag = random.nullable(2).map_or(V::Null, |v| V::Bool(v == 1));
    vec![
        random.nullable(3).map_or(V::Null, int),
        small,
        big,
        float,
        numeric,
        flag,
    ]
}

fn random_scale(v: i64) -> u32 {
    (v % 3) as u32
}

struct Views {
    keys: Vec<usize>,
    aggregates: Vec<Aggregate>,
    view: Object,
}

impl Views {
    fn check(&self, cluster: &mut Cluster, rows: &Rows, time: u64) {
        let copies = rows.iter().flat_map(|(row, n)| (0..*n).map(move |_| row));
        let mut groups: BTreeMap<Row, Vec<&Row>> = BTreeMap::new();
        if self.keys.is_empty() {
            groups.insert(vec![], vec![]);
        }
        for row in copies {
            let key = self.keys.iter().map(|&key| row[key].clone()).collect();
            groups.entry(key).or_default().push(row);
        }
        let mut errors = vec![];
        let expected: BTreeMap<Row, Row> = groups
            .into_iter()
            .map(|(key, group)| {
                let results = self.aggregates.iter().map(|a| {
                    compute(a, &group).unwrap_or_else(|message| {
                        errors.push((vec![text(&a.text), text(message)], 1));
                        V::Null
                    })
                });
                (key, results.collect())
            })
            .collect();
        let actual = cluster.peek(&self.view, time);
        assert_eq!(
            actual.len(),
            expected.len(),
            "{:?}\n{actual:?}\n{expected:?}",
            self.aggregates
        );
        for (row, copies) in &actual {
            let (key, results) = row.split_at(self.keys.len());
            let expected = &expected[key];
            assert_eq!(*copies, 1);
            let equal = results.iter().zip(expected).all(|(a, e)| same(e, a));
            assert!(
                equal,
                "{:?} at {time}: {results:?}, not {expected:?}",
                self.aggregates
            );
        }
        assert_eq!(cluster.errors(&self.view, time), consolidate(errors));
    }
}

fn check(workers: usize, seed: u64) {
    let columns = [
        ("g", Int64),
        ("small", Int32),
        ("big", Int64),
        ("float", Float64),
        ("num", NUMERIC),
        ("flag", Boolean),
    ];
    let mut cluster = Cluster::new(workers);
    // Arranged by the group key, so that some aggregates read the table's own arrangement.
    let mut table = RandomTable {
        object: cluster.table(&columns, &[GROUP]),
        rows: Rows::new(),
    };
    let mut random = Random::new(seed);
    let mut views = vec![];
    for late in [false, true] {
        for keys in [vec![], vec![GROUP], vec![FLAG, GROUP]] {
            for aggregates in sets() {
                let plan = reduce(table.object.get(), &keys, &aggregates);
                let view = cluster.view(plan, &(0..keys.len()).collect::<Vec<_>>());
                views.push(Views {
                    keys: keys.clone(),
                    aggregates,
                    view,
                });
            }
        }
        for _ in 0..if late { 12 } else { 4 } {
            table.change(&mut cluster, &mut random, random_row);
            let time = cluster.tick();
            views
                .iter()
                .for_each(|view| view.check(&mut cluster, &table.rows, time));
        }
    }
    let undo: Vec<_> = table
        .rows
        .iter()
        .map(|(row, diff)| (row.clone(), -diff))
        .collect();
    cluster.write(&table.object, &undo);
    let time = cluster.tick();
    views
        .iter()
        .for_each(|view| view.check(&mut cluster, &Rows::new(), time));
}

#[test]
fn aggregates_equal_recomputation_on_one_worker() {
    check(1, 21);
}

#[test]
fn aggregates_equal_recomputation_on_two_workers() {
    check(2, 22);
}

#[test]
fn a_sum_too_large_for_its_type_is_null_and_an_error() {
    let mut cluster = Cluster::new(1);
    let table = cluster.table(&[("n", Int32)], &[0]);
    let sum = aggregate(Sum, Some(0), Int64);
    let view = cluster.view(reduce(table.get(), &[], std::slice::from_ref(&sum)), &[]);
    let large = (vec![int(i32::MAX.into())], 1 << 40);
    cluster.write(&table, std::slice::from_ref(&large));
    let time = cluster.tick();
    assert_eq!(cluster.peek(&view, time), consolidate([(vec![V::Null], 1)]));
    let error = vec![text(&sum.text), text("bigint out of range")];
    assert_eq!(cluster.errors(&view, time), consolidate([(error, 1)]));
    cluster.write(&table, &[(large.0, 2 - (1 << 40))]);
    let time = cluster.tick();
    let twice = int(2 * i64::from(i32::MAX));
    assert_eq!(cluster.peek(&view, time), consolidate([(vec![twice], 1)]));
    assert!(cluster.errors(&view, time).is_empty());
}

#[test]
fn special_floats_come_and_go() {
    let mut cluster = Cluster::new(2);
    let table = cluster.table(&[("f", Float64)], &[0]);
    let aggregates = [
        aggregate(Sum, Some(0), Float64),
        aggregate(Max, Some(0), Float64),
    ];
    let view = cluster.view(reduce(table.get(), &[], &aggregates), &[]);
    let steps = [
        (1.5, 1, 1.5, 1.5),
        (f64::INFINITY, 1, f64::INFINITY, f64::INFINITY),
        (f64::NEG_INFINITY, 1, f64::NAN, f64::INFINITY),
        (f64::INFINITY, -1, f64::NEG_INFINITY, 1.5),
        (f64::NAN, 1, f64::NAN, f64::NAN),
        (f64::NAN, -1, f64::NEG_INFINITY, 1.5),
        (f64::NEG_INFINITY, -1, 1.5, 1.5),
    ];
    for (value, diff, sum, max) in steps {
        cluster.write(&table, &[(vec![float(value)], diff)]);
        let time = cluster.tick();
        let expected = consolidate([(vec![float(sum), float(max)], 1)]);
        assert_eq!(
            cluster.peek(&view, time),
            expected,
            "after {value} × {diff}"
        );
    }
}
