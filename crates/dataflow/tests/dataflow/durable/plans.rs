//! Plans with every kind of durable point.

use arrow::datatypes::DataType::{self, Boolean, Float64, Int64, Utf8};
use ruslo_repr::schema::NUMERIC;
use ruslo_repr::{Aggregate, AggregateFunction, JoinKind, ObjectId, Plan, RowCodec, Schema};
use serde_json::json;

use crate::aggregates::{aggregate, distinct, filtered, reduce, spread};
use crate::evaluator::{column, condition, number};
use crate::harness::{Object, Random, Row, V, arrays, float, int, num, opt, text};
use crate::views::map;

use AggregateFunction::{Avg, Count, Max, Min, Sum};

pub(crate) const KEY: usize = 0;
const BIG: usize = 1;
const REAL: usize = 2;
const NUM: usize = 3;
const TEXT: usize = 4;

/// The columns of both sources; the last is what `filtered` looks at.
pub(crate) fn columns() -> Schema {
    Schema::new([
        ("k", Int64),
        ("diff", Int64),
        ("f", Float64),
        ("n", NUMERIC),
        ("s", Utf8),
        ("flag", Boolean),
    ])
}

/// A row whose key is below `keys`, or NULL.
pub(crate) fn random_row(random: &mut Random, keys: u64) -> Row {
    let reals = [1.5, -0.0, 0.1, f64::NAN, f64::INFINITY, 1e300];
    let numbers = ["1.50", "-7", "0.001", "NaN", "123456789012345678"];
    vec![
        opt(random.nullable(keys)),
        opt(random.nullable(1500)),
        float(reals[random.below(6) as usize]),
        num(numbers[random.below(5) as usize]),
        random
            .nullable(4)
            .map_or(V::Null, |i| text(&format!("t{i}"))),
        match random.below(3) {
            0 => V::Null,
            flag => V::Bool(flag == 1),
        },
    ]
}

fn source(id: ObjectId) -> Plan {
    Plan::Source {
        id,
        columns: (0..6).collect(),
        schema: columns(),
    }
}

/// Some of the columns, which are all integers.
fn integers(input: Plan) -> Plan {
    map(input, vec![], vec![column(KEY, Int64), column(BIG, Int64)])
}

/// Fails for rows where the key is zero.
fn failing(input: Plan) -> Plan {
    let quotient = number(json!({"divide": [{"column": BIG}, {"column": KEY}]}));
    map(input, vec![], vec![column(KEY, Int64), quotient])
}

fn union(inputs: Vec<Plan>) -> Plan {
    Plan::Union {
        schema: inputs[0].schema().clone(),
        inputs,
    }
}

fn sums() -> Vec<Aggregate> {
    vec![
        aggregate(Count, None, Int64),
        aggregate(Sum, Some(BIG), NUMERIC),
        aggregate(Avg, Some(NUM), NUMERIC),
        aggregate(Sum, Some(REAL), Float64),
        filtered(aggregate(Sum, Some(NUM), NUMERIC)),
        filtered(aggregate(Count, None, Int64)),
    ]
}

fn extremes() -> Vec<Aggregate> {
    vec![
        aggregate(Min, Some(BIG), Int64),
        aggregate(Max, Some(BIG), Int64),
        filtered(aggregate(Max, Some(TEXT), Utf8)),
    ]
}

fn mixture() -> Vec<Aggregate> {
    vec![
        aggregate(Count, None, Int64),
        distinct(aggregate(Count, Some(TEXT), Int64)),
        distinct(aggregate(Sum, Some(BIG), NUMERIC)),
        aggregate(Max, Some(BIG), Int64),
        spread(BIG),
    ]
}

fn join(kind: JoinKind, left: Plan, right: Plan, bits: u32) -> Plan {
    let columns = match kind {
        JoinKind::Semi | JoinKind::Anti => left.schema().columns.clone(),
        _ => [
            left.schema().columns.clone(),
            right.schema().columns.clone(),
        ]
        .concat(),
    };
    let width = left.schema().len();
    let residual = condition(json!({"less": [{"column": 1}, {"column": width + 1}]}));
    Plan::Join {
        kind,
        left: Box::new(left),
        right: Box::new(right),
        on: if bits & 4 > 0 {
            vec![]
        } else {
            vec![(KEY, KEY)]
        },
        residual: (bits & 1 > 0).then_some(residual),
        null_equal: bits & 2 > 0,
        schema: Schema { columns },
    }
}

fn joins(a: &Plan, b: &Plan, table: &Plan) -> Vec<(String, Plan)> {
    use JoinKind::*;
    let mut plans = vec![];
    let few = |source: &Plan| {
        let small = condition(json!({"less": [{"column": BIG}, 700]}));
        let outputs = vec![column(KEY, Int64), column(BIG, Int64)];
        map(source.clone(), vec![small], outputs)
    };
    for kind in [Inner, Left, Right, Full, Semi, Anti] {
        for bits in 0..5 {
            let plan = join(kind, few(a), integers(b.clone()), bits);
            plans.push((format!("{kind:?} join {bits}"), plan));
        }
        let plan = join(kind, few(a), table.clone(), 0);
        plans.push((format!("{kind:?} join of a table"), plan));
    }
    plans
}

fn constants() -> Plan {
    let schema = Schema::new([("k", Int64), ("v", Int64)]);
    let rows = arrays(
        &schema.types(),
        &[vec![int(1), int(7)], vec![int(99), V::Null]],
    );
    let codec = RowCodec::new(&schema.types()).unwrap();
    let rows = codec.encode(&rows, 2).unwrap();
    Plan::Values {
        rows: rows.iter().map(<[u8]>::to_vec).collect(),
        schema,
    }
}

/// Every plan with the view's key; the table has two integers.
pub(crate) fn plans(a: ObjectId, b: ObjectId, table: &Object) -> Vec<(String, Plan)> {
    let (a, b, table) = (source(a), source(b), table.get());
    let both = || union(vec![a.clone(), b.clone()]);
    let mixed = || {
        union(vec![
            integers(a.clone()),
            table.clone(),
            integers(b.clone()),
        ])
    };
    let with_constants = || union(vec![constants(), integers(a.clone())]);
    let count = || vec![aggregate(Count, None, Int64)];
    let pair_extremes = || {
        let of = |function| aggregate(function, Some(1), Int64);
        vec![of(Min), of(Max)]
    };
    let dedup = |plan: Plan| Plan::Distinct {
        input: Box::new(plan),
    };
    let mut plans = vec![
        ("rows", a.clone()),
        ("rows of both", both()),
        ("failing rows", failing(a.clone())),
        (
            "failing rows of both",
            union(vec![failing(a.clone()), failing(b.clone())]),
        ),
        ("count", reduce(a.clone(), &[KEY], &count())),
        ("count by text", reduce(both(), &[TEXT], &count())),
        ("count of all", reduce(a.clone(), &[], &count())),
        ("groups", reduce(both(), &[TEXT, KEY], &[])),
        ("sums", reduce(a.clone(), &[KEY], &sums())),
        ("sums of all", reduce(a.clone(), &[], &sums())),
        ("extremes", reduce(a.clone(), &[KEY], &extremes())),
        ("extremes of all", reduce(a.clone(), &[], &extremes())),
        (
            "extremes of distinct",
            reduce(dedup(integers(a.clone())), &[0], &pair_extremes()),
        ),
        (
            "extremes with a table",
            reduce(mixed(), &[0], &pair_extremes()),
        ),
        (
            "extremes with constants",
            reduce(with_constants(), &[], &pair_extremes()),
        ),
        ("distinct", dedup(integers(both()))),
        ("mixture", reduce(a.clone(), &[KEY], &mixture())),
        ("mixture of all", reduce(both(), &[], &mixture())),
        ("spread", reduce(a.clone(), &[TEXT, KEY], &[spread(BIG)])),
        (
            "failing spread",
            reduce(failing(a.clone()), &[0], &[spread(1)]),
        ),
        ("source and table", mixed()),
        ("source and constants", with_constants()),
        (
            "distinct failing with a table",
            dedup(union(vec![failing(a.clone()), table.clone()])),
        ),
    ];
    let nested = reduce(reduce(a.clone(), &[KEY, TEXT], &count()), &[0], &count());
    plans.push(("count of groups", nested));
    let named = plans
        .into_iter()
        .map(|(name, plan)| (name.to_string(), plan));
    named.chain(joins(&a, &b, &table)).collect()
}

/// The types of the sources' columns.
pub(crate) fn types() -> Vec<DataType> {
    columns().types()
}
