//! Stateless plans, distinct, union, constants, views on views, errors.

use arrow::datatypes::DataType::{self, Int64, Utf8};
use ruslo_repr::{Expr, Plan, Schema};
use serde_json::json;

use crate::evaluator::{column, condition, number};
use crate::harness::{
    Cluster, Object, Random, RandomTable, V, consolidate, encode, int, opt, text,
};

pub(crate) fn map(input: Plan, filters: Vec<Expr>, outputs: Vec<Expr>) -> Plan {
    let columns = outputs.iter().enumerate();
    let schema = Schema::new(columns.map(|(i, o)| (format!("o{i}"), o.ty.clone())));
    Plan::Map {
        input: Box::new(input),
        filters,
        outputs,
        schema,
    }
}

fn pairs(cluster: &mut Cluster) -> Object {
    cluster.table(&[("a", Int64), ("b", Int64)], &[0, 1])
}

#[test]
fn a_table_holds_what_was_written() {
    for workers in [1, 2] {
        let mut cluster = Cluster::new(workers);
        let table = cluster.table(&[("name", Utf8), ("n", Int64)], &[1]);
        cluster.write(
            &table,
            &[(vec![text("x"), int(1)], 1), (vec![V::Null, int(2)], 2)],
        );
        let first = cluster.tick();
        cluster.write(
            &table,
            &[(vec![text("x"), int(1)], -1), (vec![V::Null, int(2)], -1)],
        );
        let second = cluster.tick();
        let before = consolidate([(vec![text("x"), int(1)], 1), (vec![V::Null, int(2)], 2)]);
        assert_eq!(cluster.peek(&table, first), before);
        let after = consolidate([(vec![V::Null, int(2)], 1)]);
        assert_eq!(cluster.peek(&table, second), after);
        let keys = Some(vec![vec![int(2)], vec![int(7)], vec![int(2)]]);
        assert_eq!(cluster.try_peek(&table, second, keys, None).0, after);
    }
}

#[test]
fn filters_and_projections_follow_their_input() {
    let mut cluster = Cluster::new(2);
    let table = pairs(&mut cluster);
    let sum = number(json!({"add": [{"column": 0}, {"column": 1}]}));
    let small = condition(json!({"less": [{"column": 0}, 5]}));
    let view = cluster.view(
        map(table.get(), vec![small], vec![sum, column(0, Int64)]),
        &[0],
    );
    // The same columns in another order, which nothing needs to be computed for.
    let swapped = map(
        table.get(),
        vec![],
        vec![column(1, Int64), column(0, Int64)],
    );
    let swapped = cluster.view(swapped, &[1]);
    let mut table = RandomTable {
        object: table,
        rows: Default::default(),
    };
    let mut random = Random::new(1);
    for _ in 0..30 {
        table.change(&mut cluster, &mut random, |r| {
            vec![opt(r.nullable(9)), opt(r.nullable(9))]
        });
        let time = cluster.tick();
        let expected = table
            .rows
            .iter()
            .filter_map(|(row, diff)| match (&row[0], &row[1]) {
                (V::Int(a), V::Int(b)) if *a < 5 => Some((vec![int(a + b), int(*a)], *diff)),
                (V::Int(a), V::Null) if *a < 5 => Some((vec![V::Null, int(*a)], *diff)),
                _ => None,
            });
        assert_eq!(cluster.peek(&view, time), consolidate(expected));
        let turned = table
            .rows
            .iter()
            .map(|(row, d)| (vec![row[1].clone(), row[0].clone()], *d));
        assert_eq!(cluster.peek(&swapped, time), consolidate(turned));
    }
}

#[test]
fn a_failing_expression_is_null_and_leaves_an_error_while_its_row_is_there() {
    let mut cluster = Cluster::new(2);
    let table = pairs(&mut cluster);
    let quotient = number(json!({"divide": [{"column": 0}, {"column": 1}]}));
    let text_of = quotient.text.clone();
    let plan = map(
        table.get(),
        vec![],
        vec![column(0, Int64), quotient.clone()],
    );
    let view = cluster.view(plan, &[0]);
    // Conditions are taken in order: where the first is false the second is not looked at.
    let nonzero = condition(json!({"less": [0, {"column": 1}]}));
    let large = condition(json!({"less": [1, {"divide": [{"column": 0}, {"column": 1}]}]}));
    let guarded = cluster.view(
        map(
            table.get(),
            vec![nonzero, large.clone()],
            vec![column(0, Int64)],
        ),
        &[0],
    );
    let bare = cluster.view(map(table.get(), vec![large], vec![column(0, Int64)]), &[0]);
    let rows: Vec<_> = (0..50).map(|i| (vec![int(i), int(i % 10)], 1)).collect();
    cluster.write(&table, &rows);
    let time = cluster.tick();
    let expected = (0..50).map(|i| (vec![int(i), opt(i.checked_div(i % 10))], 1));
    assert_eq!(cluster.peek(&view, time), consolidate(expected));
    let error = vec![text(&text_of), text("division by zero")];
    assert_eq!(cluster.errors(&view, time), consolidate([(error, 5)]));
    assert!(cluster.errors(&guarded, time).is_empty());
    let kept = (0..50i64).filter(|i| i.checked_div(i % 10).is_some_and(|q| q > 1));
    let kept = consolidate(kept.map(|i| (vec![int(i)], 1)));
    assert_eq!(cluster.peek(&guarded, time), kept);
    assert_eq!(cluster.peek(&bare, time), kept);
    assert_eq!(cluster.errors(&bare, time).values().sum::<i64>(), 5);
    let undo: Vec<_> = rows.into_iter().map(|(row, diff)| (row, -diff)).collect();
    cluster.write(&table, &undo);
    let time = cluster.tick();
    assert!(cluster.peek(&view, time).is_empty());
    assert!(cluster.errors(&view, time).is_empty());
    assert!(cluster.errors(&bare, time).is_empty());
}

#[test]
fn distinct_union_and_constants() {
    for workers in [1, 2] {
        let mut cluster = Cluster::new(workers);
        let table = pairs(&mut cluster);
        let schema = table.schema.clone();
        let constant = vec![int(1), int(1)];
        let values = Plan::Values {
            rows: encode(&schema, &[], &[constant.clone(), constant.clone()]),
            schema: schema.clone(),
        };
        let union = Plan::Union {
            inputs: vec![table.get(), values],
            schema,
        };
        let all = cluster.view(union.clone(), &[0]);
        let distinct = Plan::Distinct {
            input: Box::new(union),
        };
        let once = cluster.view(distinct, &[]);
        let mut table = RandomTable {
            object: table,
            rows: Default::default(),
        };
        let mut random = Random::new(2);
        for _ in 0..20 {
            table.change(&mut cluster, &mut random, |r| {
                vec![opt(r.nullable(3)), opt(r.nullable(3))]
            });
            let time = cluster.tick();
            let rows = table
                .rows
                .clone()
                .into_iter()
                .chain([(constant.clone(), 2)]);
            let rows = consolidate(rows);
            assert_eq!(cluster.peek(&all, time), rows);
            let rows = rows.into_keys().map(|row| (row, 1));
            assert_eq!(cluster.peek(&once, time), consolidate(rows));
        }
    }
}

#[test]
fn constants_alone_move_with_time() {
    let mut cluster = Cluster::new(2);
    cluster.tick();
    let schema = Schema::new([("n", DataType::Int64)]);
    let rows = encode(&schema, &[], &[vec![int(4)], vec![V::Null]]);
    let view = cluster.view(Plan::Values { rows, schema }, &[0]);
    for _ in 0..3 {
        let time = cluster.tick();
        let expected = consolidate([(vec![int(4)], 1), (vec![V::Null], 1)]);
        assert_eq!(cluster.peek(&view, time), expected);
    }
}

#[test]
fn a_view_that_cannot_be_rendered_is_refused_and_nothing_else_suffers() {
    for workers in [1, 2] {
        let mut cluster = Cluster::new(workers);
        let table = pairs(&mut cluster);
        let good = cluster.view(map(table.get(), vec![], vec![column(0, Int64)]), &[0]);
        let broken = Expr {
            code: b"no code".to_vec(),
            column: None,
            ..column(0, Int64)
        };
        let bad = cluster.view(map(table.get(), vec![], vec![broken]), &[0]);
        cluster.wait("the refusal", |c| c.rejected.get(&bad.id) == Some(&workers));
        cluster.write(&table, &[(vec![int(1), int(2)], 1)]);
        let time = cluster.tick();
        assert_eq!(cluster.peek(&good, time), consolidate([(vec![int(1)], 1)]));
    }
}
