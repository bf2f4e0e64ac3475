//! Texts and states of errors.

use expect_test::{Expect, expect};

use super::{Fixture, query, session};
use crate::{parse, plan_select, plan_view};

fn show(error: ruslo_repr::Error) -> String {
    let mut text = format!("{} {}", error.kind.sqlstate(), error.message);
    if let Some(detail) = error.detail {
        text += &format!("\ndetail: {detail}");
    }
    if let Some(hint) = error.hint {
        text += &format!("\nhint: {hint}");
    }
    text + "\n"
}

fn select(sql: &str, expected: Expect) {
    let planned = plan_select(&query(sql), &Fixture::new(), &session(), &[]);
    expected.assert_eq(&show(planned.unwrap_err()));
}

fn view(sql: &str, expected: Expect) {
    let planned = plan_view(&query(sql), &Fixture::new(), &session());
    expected.assert_eq(&show(planned.unwrap_err()));
}

fn syntax(sql: &str, expected: Expect) {
    expected.assert_eq(&show(parse(sql).unwrap_err()));
}

#[test]
fn names_and_types() {
    select(
        "SELECT * FROM nothing",
        expect![[r#"
        42P01 relation "nothing" does not exist
    "#]],
    );
    select(
        "SELECT nope FROM orders",
        expect![[r#"
        42703 column "nope" does not exist
    "#]],
    );
    select(
        "SELECT o.nope FROM orders o",
        expect![[r#"
        42703 column o.nope does not exist
    "#]],
    );
    select(
        "SELECT x.id FROM orders o",
        expect![[r#"
        42P01 missing FROM-clause entry for table "x"
    "#]],
    );
    select(
        "SELECT name FROM customers a, customers b",
        expect![[r#"
        42702 column reference "name" is ambiguous
    "#]],
    );
    select(
        "SELECT frobnicate(id) FROM orders",
        expect![[r#"
        42883 function frobnicate does not exist
        hint: Check the name; \df lists the functions there are.
    "#]],
    );
    select(
        "SELECT upper(id, id) FROM orders",
        expect![[r#"
        42883 function upper(integer, integer) does not exist
        hint: No function matches the given name and argument types. You might need to add explicit type casts.
    "#]],
    );
    select(
        "SELECT ordered + true FROM orders",
        expect![[r#"
        42883 operator does not exist: timestamp without time zone + boolean
        hint: No operator matches the given name and argument types. You might need to add explicit type casts.
    "#]],
    );
    select(
        "SELECT id FROM orders WHERE customer",
        expect![[r#"
            42804 argument of WHERE must be type boolean
        "#]],
    );
    select(
        "SELECT id FROM orders WHERE id = 'x'",
        expect![[r#"
        22P02 invalid input syntax for type integer: "x"
    "#]],
    );
    select(
        "SELECT customer, count(*) FROM orders",
        expect![[r#"
            42803 column "orders.customer" must appear in the GROUP BY clause or be used in an aggregate function
        "#]],
    );
    select(
        "SELECT id::frob FROM orders",
        expect![[r#"
        42704 type "frob" does not exist
    "#]],
    );
    select(
        "SELECT id FROM orders WHERE ordered = id",
        expect![[r#"
        42883 operator does not exist: timestamp without time zone = integer
        hint: No operator matches the given name and argument types. You might need to add explicit type casts.
    "#]],
    );
    select(
        "SELECT 1 UNION SELECT 1, 2",
        expect![[r#"
            42601 each UNION query must have the same number of columns
        "#]],
    );
    select(
        "SELECT id FROM orders UNION SELECT ordered FROM orders",
        expect![[r#"
            42804 UNION types integer and timestamp without time zone cannot be matched
        "#]],
    );
    select(
        "SELECT 1 FROM orders FULL JOIN totals USING (id)",
        expect![[r#"
            0A000 FULL JOIN with USING or NATURAL is not supported yet
            hint: Write ON a.x = b.x and select COALESCE(a.x, b.x).
        "#]],
    );
}

#[test]
fn views() {
    view(
        "SELECT id, id FROM orders",
        expect![[r#"
        42701 column "id" specified more than once
        hint: Give one of the columns another name with AS.
    "#]],
    );
    view(
        "SELECT id FROM orders LIMIT 3",
        expect![[r#"
        0A000 LIMIT is not supported in a view yet
        hint: Leave it out here and say it in the query that reads the view.
    "#]],
    );
    view(
        "SELECT id, rank() OVER (ORDER BY id) FROM orders",
        expect![[r#"
            0A000 window functions (OVER) are not supported in a view yet
            hint: Use the window function in a query on the view, or GROUP BY with a join.
        "#]],
    );
    view(
        "SELECT now() AS t FROM orders",
        expect![[r#"
        0A000 now() is not supported in a view yet
        hint: A view is kept up to date by its inputs alone. Use the function in a query on the view, or a column of the input that holds the time.
    "#]],
    );
    view(
        "SELECT random() AS r FROM orders",
        expect![[r#"
        0A000 random() is not supported in a view
        hint: Its value changes from call to call, so the view could not be kept exact. Use it in a query on the view.
    "#]],
    );
    view(
        "SELECT * FROM pg_things",
        expect![[r#"
        0A000 "pg_things" is a system catalog and cannot be used in a view
    "#]],
    );
    view(
        "SELECT DISTINCT ON (customer) * FROM orders",
        expect![[r#"
        0A000 DISTINCT ON is not supported in a view yet
        hint: Use GROUP BY with min or max, or DISTINCT ON in a query on the view.
    "#]],
    );
    view(
        "SELECT id FROM orders WHERE customer NOT IN (SELECT name FROM customers)",
        expect![[r#"
            0A000 NOT IN with a subquery is not supported in a view yet
            hint: Write NOT EXISTS (SELECT … WHERE …): it means the same without NULLs.
        "#]],
    );
    view(
        "SELECT id FROM orders WHERE price > (SELECT price FROM orders)",
        expect![[r#"
            0A000 a subquery that may return more than one row cannot be used as a value in a view
            hint: Aggregate it, as in (SELECT max(x) FROM …), or join it.
        "#]],
    );
    view(
        "SELECT customer, count(*) FROM orders GROUP BY ROLLUP (customer)",
        expect![[r#"
            0A000 GROUPING SETS, ROLLUP and CUBE are not supported in a view yet
            hint: Write one GROUP BY for each set and join them with UNION ALL.
        "#]],
    );
    view(
        "SELECT id FROM orders WHERE id = $1",
        expect![[r#"
        22023 a view's query cannot have parameters
    "#]],
    );
}

#[test]
fn mistakes_in_syntax() {
    syntax(
        "SELEC 1",
        expect![[r#"
        42601 syntax error at or near "SELEC" (line 1, column 1)
        detail: Expected a statement.
    "#]],
    );
    syntax(
        "SELECT 1 FRM t",
        expect![[r#"
        42601 syntax error at or near "t" (line 1, column 14)
        detail: Expected end of statement.
    "#]],
    );
    syntax(
        "SELECT 1 +",
        expect![[r#"
            42601 syntax error at end of input
            detail: Expected an expression.
        "#]],
    );
    syntax(
        "SELECT 'abc",
        expect![[r#"
        42601 syntax error: Unterminated string literal
        detail: At line 1, column 8.
    "#]],
    );
    syntax(
        "CREATE SOURCE s (a int) WITH (connector 'kafka')",
        expect![[r#"
            42601 syntax error at or near "'kafka'" (line 1, column 41)
            detail: Expected "=".
        "#]],
    );
    syntax(
        "CREATE SOURCE s (a frob) WITH (connector='kafka')",
        expect![[r#"
            42704 type "frob" does not exist
        "#]],
    );
    syntax(
        "CREATE TABLE t (a int, a int)",
        expect![[r#"
        42701 column "a" specified more than once
    "#]],
    );
    syntax(
        "CREATE SOURCE s (a int) WITH (a=1) FORMAT PLANE ENCODE JSON",
        expect![[r#"
            42601 syntax error at or near "PLANE" (line 1, column 43)
            detail: Expected a format: PLAIN, UPSERT or DEBEZIUM.
        "#]],
    );
    syntax(
        "CREATE INDEX i ON t (a)",
        expect![[r#"
        0A000 CREATE INDEX is not supported yet
    "#]],
    );
    syntax(
        "SELECT (1",
        expect![[r#"
            42601 syntax error at end of input
            detail: Expected ).
        "#]],
    );
    syntax(
        "DROP NOTHING x",
        expect![[r#"
        42601 syntax error at or near "NOTHING" (line 1, column 6)
        detail: Expected SOURCE, TABLE, MATERIALIZED VIEW, VIEW or SINK.
    "#]],
    );
}
