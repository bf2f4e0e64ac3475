//! A view's expressions and the same query run ad hoc give the same rows in the same types.

use arrow::array::{ArrayRef, AsArray, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use ruslo_repr::row::batch_of;
use ruslo_repr::{ObjectId, Plan};

use super::queries::rows;
use super::{Fixture, query, session, unlimited};
use crate::{evaluator, plan_select, plan_view};

/// Scalar shapes over a column `{c}` of any type.
const ANY: [&str; 12] = [
    "{c}",
    "{c}::text",
    "coalesce({c}, {c})",
    "CASE WHEN b THEN {c} END",
    "CASE WHEN NOT b THEN NULL ELSE {c} END",
    "{c} = {c}",
    "{c} < {c}",
    "{c} IS NULL",
    "{c} IS DISTINCT FROM {c}",
    "nullif({c}, {c})",
    "{c} IN ({c}, NULL)",
    "{c} BETWEEN {c} AND {c}",
];

/// Shapes over a number.
const NUMBER: [&str; 8] = [
    "{c} / 2",
    "{c} * 1.5",
    "-{c}",
    "{c} > 1",
    "abs({c})",
    "{c} - i",
    "CASE WHEN b THEN {c} ELSE 0.5 END",
    "{c}::numeric",
];

/// Rows of `kinds` through the plan, which must be Maps over the table.
fn evaluate(plan: &Plan, table: &RecordBatch) -> ruslo_repr::Result<RecordBatch> {
    let Plan::Map {
        input,
        filters,
        outputs,
        schema,
    } = plan
    else {
        return Ok(table.clone());
    };
    let mut batch = evaluate(input, table)?;
    let types = input.schema().types();
    for kept in evaluator().compile(filters, &types)?.evaluate(&batch)? {
        let kept: BooleanArray = kept
            .as_boolean()
            .iter()
            .map(|k| Some(k == Some(true)))
            .collect();
        batch = filter_record_batch(&batch, &kept)?;
    }
    let columns = evaluator().compile(outputs, &types)?.evaluate(&batch)?;
    let found: Vec<_> = columns
        .iter()
        .map(|c: &ArrayRef| c.data_type().clone())
        .collect();
    assert_eq!(found, schema.types());
    batch_of(schema, columns, batch.num_rows())
}

fn agree(sql: &str) {
    let fixture = Fixture::new();
    let session = session();
    let query = query(sql);
    let view = plan_view(&query, &fixture, &session);
    let select = plan_select(&query, &fixture, &session, &[]);
    let (view, select) = match (view, select) {
        (Ok(view), Ok(select)) => (view, select),
        (Err(view), Err(select)) => {
            assert_eq!(view.message, select.message, "{sql}");
            return;
        }
        (view, select) => panic!("{sql}: {:?} but {:?}", view.err(), select.err()),
    };
    assert_eq!(&view.schema, select.schema(), "{sql}");
    let mut inputs = rows(&fixture);
    inputs.retain(|id, _| *id == ObjectId(4));
    let table = inputs[&ObjectId(4)][0].clone();
    let kept = evaluate(&view.plan, &table);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let read = runtime.block_on(select.execute(inputs, &[], &unlimited()));
    match (kept, read) {
        (Ok(kept), Ok(read)) => {
            let read = arrow::compute::concat_batches(&kept.schema(), &read).unwrap();
            assert_eq!(format!("{kept:?}"), format!("{read:?}"), "{sql}");
        }
        (Err(kept), Err(read)) => assert_eq!(kept.kind, read.kind, "{sql}"),
        (kept, read) => panic!("{sql}: {kept:?} but {read:?}"),
    }
}

#[test]
fn views_and_queries_agree_on_every_type() {
    for column in ["b", "i", "n", "f", "t", "span", "j"] {
        for shape in ANY {
            let expr = shape.replace("{c}", column);
            agree(&format!("SELECT {expr} AS x FROM kinds"));
        }
    }
    for column in ["i", "n", "f", "i::smallint", "i::bigint", "f::real"] {
        for shape in NUMBER {
            let expr = shape.replace("{c}", column);
            agree(&format!("SELECT {expr} AS x FROM kinds WHERE i < 1000"));
            agree(&format!("SELECT {expr} AS x FROM kinds"));
        }
    }
}
