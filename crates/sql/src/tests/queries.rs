//! Ad-hoc queries and DML over given rows.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, FixedSizeBinaryArray, Float64Array, Int32Array, Int64Array,
    LargeStringArray, RecordBatch, StringArray, new_null_array,
};
use arrow::datatypes::DataType;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use expect_test::{Expect, expect};
use ruslo_repr::row::batch_of;
use ruslo_repr::schema::{INTERVAL, NUMERIC, TIMESTAMP, type_name};
use ruslo_repr::{Numeric, ObjectId, Schema};

use super::{Fixture, query, session, unlimited};
use crate::ast::StatementKind;
use crate::{DmlPlan, SelectPlan, plan_delete, plan_insert, plan_select, plan_update};

fn numerics(values: &[Option<&str>]) -> ArrayRef {
    let bytes = values
        .iter()
        .map(|v| v.map(|v| v.parse::<Numeric>().unwrap().to_bytes()));
    Arc::new(FixedSizeBinaryArray::try_from_sparse_iter_with_size(bytes, 16).unwrap())
}

pub(super) fn rows(fixture: &Fixture) -> HashMap<ObjectId, Vec<RecordBatch>> {
    let batch = |id: u64, columns: Vec<ArrayRef>| {
        let relation = fixture
            .relations
            .iter()
            .find(|r| r.id == ObjectId(id))
            .unwrap();
        let rows = columns[0].len();
        (
            ObjectId(id),
            vec![batch_of(&relation.schema, columns, rows).unwrap()],
        )
    };
    HashMap::from([
        batch(
            2,
            vec![
                Arc::new(Int32Array::from(vec![1, 2, 3])),
                Arc::new(StringArray::from(vec![Some("ann"), Some("bob"), None])),
                numerics(&[Some("1.50"), Some("1.5"), None]),
                Arc::new(Int32Array::from(vec![Some(2), Some(3), Some(4)])),
                new_null_array(&TIMESTAMP, 3),
            ],
        ),
        batch(
            4,
            vec![
                Arc::new(BooleanArray::from(vec![true, false])),
                Arc::new(Int32Array::from(vec![10, i32::MAX])),
                numerics(&[Some("0.1"), Some("NaN")]),
                Arc::new(Float64Array::from(vec![-0.0, f64::NAN])),
                Arc::new(StringArray::from(vec!["x", "y"])),
                new_null_array(&INTERVAL, 2),
                Arc::new(LargeStringArray::from(vec![r#"{"a":1}"#, "null"])),
                Arc::new(Int64Array::from(vec![100, 200])),
            ],
        ),
    ])
}

fn cell(array: &ArrayRef, row: usize) -> String {
    if array.is_null(row) {
        return "NULL".into();
    }
    if *array.data_type() == NUMERIC {
        let bytes = array
            .as_any()
            .downcast_ref::<FixedSizeBinaryArray>()
            .unwrap()
            .value(row);
        return Numeric::from_bytes(bytes.try_into().unwrap()).to_string();
    }
    let formatter = ArrayFormatter::try_new(array, &FormatOptions::default()).unwrap();
    formatter.value(row).to_string()
}

fn render(schema: &Schema, batches: &[RecordBatch]) -> String {
    let columns = schema
        .columns
        .iter()
        .map(|c| format!("{} {}", c.name, type_name(&c.ty)));
    let mut text = columns.collect::<Vec<_>>().join(", ") + "\n";
    for batch in batches {
        assert_eq!(batch.schema(), schema.to_arrow());
        for row in 0..batch.num_rows() {
            let cells = batch.columns().iter().map(|c| cell(c, row));
            text += &(cells.collect::<Vec<_>>().join(" | ") + "\n");
        }
    }
    text
}

fn run(select: &SelectPlan, params: &[ArrayRef]) -> String {
    let inputs = rows(&Fixture::new());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    match runtime.block_on(select.execute(inputs, params, &unlimited())) {
        Ok(batches) => render(select.schema(), &batches),
        Err(error) => format!("{}: {}\n", error.kind.sqlstate(), error.message),
    }
}

fn check(sql: &str, expected: Expect) {
    let text = match plan_select(&query(sql), &Fixture::new(), &session(), &[]) {
        Ok(select) => run(&select, &[]),
        Err(error) => format!("{}: {}\n", error.kind.sqlstate(), error.message),
    };
    expected.assert_eq(&text);
}

fn dml(sql: &str) -> ruslo_repr::Result<DmlPlan> {
    let (fixture, session) = (Fixture::new(), session());
    match crate::parse(sql)?.remove(0).kind {
        StatementKind::Insert(insert) => plan_insert(&insert, &fixture, &session, &[]),
        StatementKind::Update(update) => plan_update(&update, &fixture, &session, &[]),
        StatementKind::Delete(delete) => plan_delete(&delete, &fixture, &session, &[]),
        other => panic!("no DML: {other:?}"),
    }
}

fn check_dml(sql: &str, expected: Expect) {
    let text = match dml(sql) {
        Ok(plan) => run(&plan.select, &[]),
        Err(error) => format!("{}: {}\n", error.kind.sqlstate(), error.message),
    };
    expected.assert_eq(&text);
}

#[test]
fn literals_have_postgres_types_and_names() {
    check(
        "SELECT 1, 2.50, 'x', 3000000000, true, NULL, -7",
        expect![[r#"
            ?column? integer, ?column? numeric, ?column? character varying, ?column? bigint, ?column? boolean, ?column? character varying, ?column? integer
            1 | 2.50 | x | 3000000000 | true | NULL | -7
        "#]],
    );
    check(
        "SELECT 1::bigint, '2026-01-02'::date, 1.5::float8 AS f, INTERVAL '1 day'",
        expect![[r#"
            int8 bigint, date date, f double precision, interval interval
            1 | 2026-01-02 | 1.5 | 1 days
        "#]],
    );
    check(
        "SELECT now(), current_date, user, current_database()",
        expect![[r#"
            now timestamp with time zone, current_date date, user character varying, current_database character varying
            2026-11-22T10:00:00Z | 2026-11-22 | root | dev
        "#]],
    );
    check(
        "SELECT 1 + 1 AS two, 7 / 2, 7 / 2.0, 2 - 3, 10 % 3",
        expect![[r#"
            two integer, ?column? integer, ?column? numeric, ?column? integer, ?column? integer
            2 | 3 | 3.5 | -1 | 1
        "#]],
    );
}

#[test]
fn rows_are_read_ordered_and_limited() {
    check(
        "SELECT * FROM orders ORDER BY id DESC LIMIT 2",
        expect![[r#"
        id integer, customer character varying, price numeric, quantity integer, ordered timestamp without time zone
        3 | NULL | NULL | 4 | NULL
        2 | bob | 1.5 | 3 | NULL
    "#]],
    );
    check(
        "SELECT id, id FROM orders ORDER BY 1 LIMIT 1",
        expect![[r#"
        id integer, id integer
        1 | 1
    "#]],
    );
    check(
        "SELECT *, id FROM orders WHERE id = 1",
        expect![[r#"
        id integer, customer character varying, price numeric, quantity integer, ordered timestamp without time zone, id integer
        1 | ann | 1.50 | 2 | NULL | 1
    "#]],
    );
    check(
        "SELECT * FROM kinds",
        expect![[r#"
        b boolean, i integer, n numeric, f double precision, t character varying, span interval, j jsonb
        true | 10 | 0.1 | -0.0 | x | NULL | {"a":1}
        false | 2147483647 | NaN | NaN | y | NULL | null
    "#]],
    );
    check(
        "SELECT id, row_number() OVER (ORDER BY id DESC) FROM orders ORDER BY id",
        expect![[r#"
            id integer, row_number bigint
            1 | 3
            2 | 2
            3 | 1
        "#]],
    );
    check(
        "SELECT id FROM orders WHERE customer IS NULL OR price > 1.4 ORDER BY id",
        expect![[r#"
            id integer
            1
            2
            3
        "#]],
    );
}

#[test]
fn numerics_are_equal_by_value() {
    check(
        "SELECT price, count(*) FROM orders GROUP BY price ORDER BY 1",
        expect![[r#"
            price numeric, count bigint
            1.50 | 2
            NULL | 1
        "#]],
    );
    check(
        "SELECT DISTINCT price FROM orders ORDER BY price",
        expect![[r#"
            price numeric
            1.50
            NULL
        "#]],
    );
    check(
        "SELECT count(DISTINCT price) FROM orders",
        expect![[r#"
        count bigint
        1
    "#]],
    );
    check(
        "SELECT id FROM orders WHERE price = 1.500 ORDER BY id",
        expect![[r#"
            id integer
            1
            2
        "#]],
    );
    check(
        "SELECT id FROM orders WHERE price IN (1.500, 3) ORDER BY id",
        expect![[r#"
            id integer
            1
            2
        "#]],
    );
    check(
        "SELECT a.id, b.id FROM orders a JOIN orders b ON a.price = b.price ORDER BY 1, 2",
        expect![[r#"
            id integer, id integer
            1 | 1
            1 | 2
            2 | 1
            2 | 2
        "#]],
    );
    check(
        "SELECT sum(price), avg(quantity), max(id), sum(quantity) FROM orders",
        expect![[r#"
            sum numeric, avg numeric, max integer, sum bigint
            3.00 | 3 | 3 | 9
        "#]],
    );
    check(
        "SELECT n, n = n FROM kinds ORDER BY n",
        expect![[r#"
        n numeric, ?column? boolean
        0.1 | true
        NaN | true
    "#]],
    );
    check(
        "SELECT f, f = 0 FROM kinds",
        expect![[r#"
        f double precision, ?column? boolean
        -0.0 | true
        NaN | false
    "#]],
    );
}

#[test]
fn case_and_coalesce_are_lazy_and_typed() {
    check(
        "SELECT CASE WHEN id = 1 THEN 0 ELSE 10 / (id - 1) END FROM orders ORDER BY id",
        expect![[r#"
            case integer
            0
            10
            5
        "#]],
    );
    check(
        "SELECT coalesce(price, 0), coalesce(customer, 'nobody') FROM orders ORDER BY id",
        expect![[r#"
            coalesce numeric, coalesce character varying
            1.50 | ann
            1.5 | bob
            0 | nobody
        "#]],
    );
    check(
        "SELECT nullif(id, 2) FROM orders ORDER BY id",
        expect![[r#"
        nullif integer
        1
        NULL
        3
    "#]],
    );
    check(
        "SELECT CASE WHEN true THEN 1 ELSE 2.5 END + 1",
        expect![[r#"
        ?column? numeric
        2
    "#]],
    );
}

#[test]
fn errors_while_running_have_a_state() {
    check(
        "SELECT 1 / (id - 1) FROM orders",
        expect![[r#"
        22012: division by zero
    "#]],
    );
    check(
        "SELECT i + 1 FROM kinds",
        expect![[r#"
        22003: integer out of range
    "#]],
    );
    check(
        "SELECT t::int FROM kinds",
        expect![[r#"
        22P02: invalid input syntax for type integer: "x"
    "#]],
    );
    check(
        "SELECT (SELECT id FROM orders)",
        expect![[r#"
        21000: more than one row returned by a subquery used as an expression
    "#]],
    );
}

#[test]
fn sets() {
    check(
        "SELECT 1 UNION ALL SELECT 2.5 ORDER BY 1",
        expect![[r#"
        ?column? numeric
        1
        2.5
    "#]],
    );
    check(
        "VALUES (1, 'a'), (2, NULL)",
        expect![[r#"
        column1 integer, column2 character varying
        1 | a
        2 | NULL
    "#]],
    );
    check(
        "SELECT id FROM orders EXCEPT SELECT 2 ORDER BY 1",
        expect![[r#"
            id integer
            1
            3
        "#]],
    );
}

#[test]
fn bare_user_is_the_session_and_qualified_user_the_column() {
    check(
        "SELECT user, u.user FROM (SELECT 'x' AS \"user\") u",
        expect![[r#"
            user character varying, user character varying
            root | x
        "#]],
    );
}

#[test]
fn distinct_on_and_percentiles() {
    check(
        "SELECT DISTINCT ON (price) price, id FROM orders ORDER BY price, id DESC",
        expect![[r#"
            price numeric, id integer
            1.5 | 2
            NULL | 3
        "#]],
    );
    check(
        "SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY quantity) FROM orders",
        expect![[r#"
            percentile_cont double precision
            3.0
        "#]],
    );
    check(
        "TABLE orders",
        expect![[r#"
        id integer, customer character varying, price numeric, quantity integer, ordered timestamp without time zone
        1 | ann | 1.50 | 2 | NULL
        2 | bob | 1.5 | 3 | NULL
        3 | NULL | NULL | 4 | NULL
    "#]],
    );
    check(
        "SELECT (r).c0, (r).c1 FROM (SELECT ROW(1, 'a') AS r) x",
        expect![[r#"
            c0 integer, c1 character varying
            1 | a
        "#]],
    );
    check(
        "SELECT EXISTS (SELECT 1 FROM orders)",
        expect![[r#"
        0A000: EXISTS and IN with a subquery are supported in WHERE only
    "#]],
    );
}

#[test]
fn series() {
    check(
        "SELECT * FROM generate_series(1, 3)",
        expect![[r#"
        generate_series integer
        1
        2
        3
    "#]],
    );
    check(
        "SELECT g * 2 AS d FROM generate_series(1, 2) AS t(g)",
        expect![[r#"
            d integer
            2
            4
        "#]],
    );
}

#[test]
fn parameters_get_their_types() {
    let plan = |sql: &str| plan_select(&query(sql), &Fixture::new(), &session(), &[]).unwrap();
    let select = plan("SELECT id, $2 FROM orders WHERE id = $1");
    assert_eq!(select.param_types(), [DataType::Int32, DataType::Utf8]);
    let one: ArrayRef = Arc::new(Int32Array::from(vec![2]));
    let text: ArrayRef = Arc::new(StringArray::from(vec!["hi"]));
    expect![[r#"
        id integer, ?column? character varying
        2 | hi
    "#]]
    .assert_eq(&run(&select, &[one.clone(), text]));
    let found = select.key_lookup(ObjectId(2), &[one.clone(), one]).unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(
        plan("SELECT $1::bigint + 1").param_types(),
        [DataType::Int64]
    );
    assert_eq!(
        plan("SELECT price + $1 FROM orders").param_types(),
        [NUMERIC]
    );
}

#[test]
fn inserts_are_typed_by_the_table() {
    check_dml(
        "INSERT INTO orders VALUES (1, 'ann', 2.50, 3, '2026-01-01')",
        expect![[r#"
            new_0 integer, new_1 character varying, new_2 numeric, new_3 integer, new_4 timestamp without time zone
            1 | ann | 2.50 | 3 | 2026-01-01T00:00:00
        "#]],
    );
    check_dml(
        "INSERT INTO orders (price, id) VALUES ('1.0', 4), (NULL, 5)",
        expect![[r#"
            new_0 integer, new_1 character varying, new_2 numeric, new_3 integer, new_4 timestamp without time zone
            4 | NULL | 1.0 | NULL | NULL
            5 | NULL | NULL | NULL | NULL
        "#]],
    );
    check_dml(
        "INSERT INTO kinds (b, j) VALUES (true, '{\"b\": 2}')",
        expect![[r#"
            new_0 boolean, new_1 integer, new_2 numeric, new_3 double precision, new_4 character varying, new_5 interval, new_6 jsonb
            true | 7 | NULL | NULL | NULL | NULL | {"b": 2}
        "#]],
    );
    check_dml(
        "INSERT INTO kinds (i) VALUES (DEFAULT)",
        expect![[r#"
        new_0 boolean, new_1 integer, new_2 numeric, new_3 double precision, new_4 character varying, new_5 interval, new_6 jsonb
        NULL | 7 | NULL | NULL | NULL | NULL | NULL
    "#]],
    );
    check_dml(
        "INSERT INTO orders (id) SELECT i FROM kinds",
        expect![[r#"
        new_0 integer, new_1 character varying, new_2 numeric, new_3 integer, new_4 timestamp without time zone
        10 | NULL | NULL | NULL | NULL
        2147483647 | NULL | NULL | NULL | NULL
    "#]],
    );
    check_dml(
        "INSERT INTO orders (id) VALUES (1, 2)",
        expect![[r#"
        42601: INSERT has more expressions than target columns
    "#]],
    );
    check_dml(
        "INSERT INTO orders (nope) VALUES (1)",
        expect![[r#"
        42703: column "nope" of relation "orders" does not exist
    "#]],
    );
    check_dml(
        "INSERT INTO user_events VALUES (NULL)",
        expect![[r#"
        42809: cannot insert into source "user_events"
    "#]],
    );
    check_dml(
        "INSERT INTO nothing VALUES (1)",
        expect![[r#"
        42P01: relation "nothing" does not exist
    "#]],
    );
}

#[test]
fn updates_and_deletes_name_old_and_new_rows() {
    check_dml(
        "UPDATE orders SET quantity = quantity + 1 WHERE id = 1",
        expect![[r#"
            old_0 integer, old_1 character varying, old_2 numeric, old_3 integer, old_4 timestamp without time zone, new_0 integer, new_1 character varying, new_2 numeric, new_3 integer, new_4 timestamp without time zone
            1 | ann | 1.50 | 2 | NULL | 1 | ann | 1.50 | 3 | NULL
        "#]],
    );
    check_dml(
        "UPDATE kinds SET i = DEFAULT, t = 'z' WHERE b",
        expect![[r#"
        old_0 boolean, old_1 integer, old_2 numeric, old_3 double precision, old_4 character varying, old_5 interval, old_6 jsonb, old_7 bigint, new_0 boolean, new_1 integer, new_2 numeric, new_3 double precision, new_4 character varying, new_5 interval, new_6 jsonb, new_7 bigint
        true | 10 | 0.1 | -0.0 | x | NULL | {"a":1} | 100 | true | 7 | 0.1 | -0.0 | z | NULL | {"a":1} | 100
    "#]],
    );
    check_dml(
        "DELETE FROM kinds WHERE i = 10",
        expect![[r#"
        old_0 boolean, old_1 integer, old_2 numeric, old_3 double precision, old_4 character varying, old_5 interval, old_6 jsonb, old_7 bigint
        true | 10 | 0.1 | -0.0 | x | NULL | {"a":1} | 100
    "#]],
    );
    check_dml(
        "DELETE FROM orders o USING kinds k WHERE o.id = k.i",
        expect![[r#"
            old_0 integer, old_1 character varying, old_2 numeric, old_3 integer, old_4 timestamp without time zone
        "#]],
    );
    check_dml(
        "UPDATE orders SET nope = 1",
        expect![[r#"
        42703: column "nope" of relation "orders" does not exist
    "#]],
    );
}

#[test]
fn returning_reads_the_new_rows() {
    let plan = dml("INSERT INTO orders (id) VALUES (1) RETURNING id + 1 AS next, *").unwrap();
    let schema = plan.returning_schema().unwrap().clone();
    let fixture = Fixture::new();
    let new = rows(&fixture).remove(&ObjectId(2)).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let batches = runtime.block_on(plan.returning(new, &unlimited())).unwrap();
    expect![[r#"
        next integer, id integer, customer character varying, price numeric, quantity integer, ordered timestamp without time zone
        2 | 1 | ann | 1.50 | 2 | NULL
        3 | 2 | bob | 1.5 | 3 | NULL
        4 | 3 | NULL | NULL | 4 | NULL
    "#]].assert_eq(&render(&schema, &batches));
}
