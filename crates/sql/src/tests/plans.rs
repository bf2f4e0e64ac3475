//! Views as plans.

use expect_test::{Expect, expect};

use super::{Fixture, query, session};
use crate::{explain, plan_view};
use ruslo_repr::schema::type_name;

fn check(sql: &str, expected: Expect) {
    let fixture = Fixture::new();
    let text = match plan_view(&query(sql), &fixture, &session()) {
        Err(error) => format!(
            "{}: {}\n{:?}\n",
            error.kind.sqlstate(),
            error.message,
            error.hint
        ),
        Ok(view) => {
            let mut text = explain(&view.plan, &|id| fixture.name(id)).join("\n");
            let columns = view.schema.columns.iter();
            let columns = columns.map(|c| format!("{} {}", c.name, type_name(&c.ty)));
            text += &format!("\n({})", columns.collect::<Vec<_>>().join(", "));
            text += &format!(" key {:?}", view.key);
            text += if view.key_is_unique { " unique" } else { "" };
            text += if view.append_only {
                " append-only\n"
            } else {
                "\n"
            };
            check_types(&view.plan);
            text
        }
    };
    expected.assert_eq(&text);
}

/// Every node's input types are what its expressions were compiled for.
fn check_types(plan: &ruslo_repr::Plan) {
    let evaluator = crate::evaluator();
    plan.visit(&mut |node| {
        if let ruslo_repr::Plan::Map {
            input,
            filters,
            outputs,
            schema,
        } = node
        {
            let types = input.schema().types();
            evaluator.compile(filters, &types).unwrap();
            evaluator.compile(outputs, &types).unwrap();
            let outputs: Vec<_> = outputs.iter().map(|o| o.ty.clone()).collect();
            assert_eq!(outputs, schema.types());
            let empty = ruslo_repr::row::unnamed_batch(
                types.iter().map(arrow::array::new_empty_array).collect(),
                0,
            );
            let program = evaluator.compile(filters, &types).unwrap();
            program.evaluate(&empty.unwrap()).unwrap();
        }
    });
}

#[test]
fn the_articles_view() {
    check(
        "SELECT event, COUNT(*)\nFROM\n    user_events\nGROUP BY event",
        expect![[r#"
            Reduce by [event] compute [count(*)]
              Source user_events [event]
            (event character varying, count bigint) key [0] unique
        "#]],
    );
}

#[test]
fn filters_and_expressions() {
    check(
        "SELECT upper(page) AS page, \"user\" FROM user_events WHERE event = 'click' \
         AND event_timestamp > '2026-01-01'",
        expect![[r#"
            Map [upper(page) AS page, user] where event = 'click' AND event_timestamp > '2026-01-01 00:00:00'
              Source user_events [event_timestamp, user, page, event]
            (page character varying, user character varying) key [0, 1] append-only
        "#]],
    );
    check(
        "SELECT * FROM user_events",
        expect![[r#"
        Source user_events [event_timestamp, user, page, event]
        (event_timestamp timestamp without time zone, user character varying, page character varying, event character varying) key [0, 1, 2, 3] append-only
    "#]],
    );
    check(
        "SELECT id, price * quantity AS total FROM orders WHERE quantity > 1",
        expect![[r#"
            Map [id, (price * quantity) AS total] where quantity > 1
              Get orders
            (id integer, total numeric) key [0] unique
        "#]],
    );
    check(
        "SELECT id, CASE WHEN price > 10 THEN 'dear' ELSE 'cheap' END FROM orders",
        expect![[r#"
            Map [id, CASE WHEN price > 10 THEN 'dear' ELSE 'cheap' END AS case]
              Get orders
            (id integer, case character varying) key [0] unique
        "#]],
    );
    check(
        "SELECT CASE quantity WHEN 1 THEN 1 ELSE 2.5 END AS x FROM orders",
        expect![[r#"
            Map [CASE WHEN quantity = 1 THEN 1 ELSE 2.5 END AS x]
              Get orders
            (x numeric) key [0]
        "#]],
    );
    check(
        "SELECT id FROM orders WHERE quantity IN (1, 2, 3) AND price IN (1, 2.5)",
        expect![[r#"
            Map [id] where (quantity = 1 OR quantity = 2 OR quantity = 3) AND price IN (1, 2.5)
              Get orders
            (id integer) key [0] unique
        "#]],
    );
    check(
        "SELECT id FROM orders WHERE quantity BETWEEN 1 AND 5",
        expect![[r#"
            Map [id] where quantity >= 1 AND quantity <= 5
              Get orders
            (id integer) key [0] unique
        "#]],
    );
    check(
        "SELECT id::text, customer FROM orders WHERE customer LIKE 'a%'",
        expect![[r#"
            Map [id::varchar AS id, customer] where customer LIKE 'a%'
              Get orders
            (id character varying, customer character varying) key [0, 1]
        "#]],
    );
}

#[test]
fn aggregates() {
    check(
        "SELECT customer, sum(quantity), sum(price) AS worth, avg(quantity), min(price), \
         max(ordered), count(DISTINCT id), count(*) FILTER (WHERE quantity > 2) AS big \
         FROM orders GROUP BY customer",
        expect![[r#"
            Reduce by [customer] compute [sum(quantity), sum(price), avg(quantity), min(price), max(ordered), count(DISTINCT id), count(*) FILTER (WHERE quantity > 2)]
              Map [customer, quantity, price, ordered, id, quantity > 2]
                Get orders
            (customer character varying, sum bigint, worth numeric, avg numeric, min numeric, max timestamp without time zone, count bigint, big bigint) key [0] unique
        "#]],
    );
    check(
        "SELECT count(*) FROM orders",
        expect![[r#"
        Reduce by [] compute [count(*)]
          Map []
            Get orders
        (count bigint) key [] unique
    "#]],
    );
    check(
        "SELECT price, count(*) FROM orders GROUP BY price",
        expect![[r#"
            Map [alike(price) AS price, count(*) AS count]
              Reduce by [price] compute [count(*), alike(price)]
                Map [price, price]
                  Get orders
            (price numeric, count bigint) key [0] unique
        "#]],
    );
    check(
        "SELECT date_trunc('day', ordered) AS day, sum(price * quantity) AS revenue FROM orders \
         GROUP BY date_trunc('day', ordered) HAVING sum(price * quantity) > 100",
        expect![[r#"
            Map [date_trunc('day', ordered) AS day, sum((price * quantity)) AS revenue] where sum((price * quantity)) > 100
              Reduce by [date_trunc('day', ordered)] compute [sum((price * quantity))]
                Map [date_trunc('day', ordered), (price * quantity)]
                  Get orders
            (day timestamp without time zone, revenue numeric) key [0] unique
        "#]],
    );
    check(
        "SELECT customer, stddev(quantity) FROM orders GROUP BY customer",
        expect![[r#"
            Reduce by [customer] compute [stddev_samp(quantity)]
              Map [customer, quantity]
                Get orders
            (customer character varying, stddev numeric) key [0] unique
        "#]],
    );
    check(
        "SELECT customer, string_agg(id::text, ',' ORDER BY id) FROM orders GROUP BY customer",
        expect![[r#"
            Reduce by [customer] compute [string_agg(id::varchar, ',')]
              Map [customer, id::varchar, id]
                Get orders
            (customer character varying, string_agg character varying) key [0] unique
        "#]],
    );
    check(
        "SELECT sum(big), avg(credit), sum(credit) AS credits FROM customers",
        expect![[r#"
            Reduce by [] compute [sum(big), avg(credit), sum(credit)]
              Map [credit, big]
                Get customers
            (sum numeric, avg double precision, credits double precision) key [] unique
        "#]],
    );
}

#[test]
fn joins() {
    check(
        "SELECT o.id, c.city FROM orders o JOIN customers c ON o.customer = c.name",
        expect![[r#"
            Map [id, city]
              Join inner on [customer = name]
                Map [id, customer]
                  Get orders
                Map [name, city]
                  Get customers
            (id integer, city character varying) key [0, 1]
        "#]],
    );
    check(
        "SELECT o.id, c.city FROM orders o LEFT JOIN customers c \
         ON o.customer = c.name AND o.quantity > 1",
        expect![[r#"
            Map [id, city]
              Join left on [customer = name] and quantity > 1
                Map [id, customer, quantity]
                  Get orders
                Map [name, city]
                  Get customers
            (id integer, city character varying) key [0, 1]
        "#]],
    );
    check(
        "SELECT o.id, c.name FROM orders o JOIN customers c ON o.price = c.big AND o.id < c.credit",
        expect![[r#"
            Map [id, name]
              Join inner on [price = big::numeric] and id::double < credit
                Map [id, price, price]
                  Get orders
                Map [name, credit, big, big::numeric]
                  Get customers
            (id integer, name character varying) key [0, 1] unique
        "#]],
    );
    check(
        "SELECT o.id, c.name FROM orders o CROSS JOIN customers c",
        expect![[r#"
            Join inner on []
              Map [id]
                Get orders
              Map [name]
                Get customers
            (id integer, name character varying) key [0, 1] unique
        "#]],
    );
    check(
        "SELECT id FROM orders WHERE customer IN (SELECT name FROM customers WHERE city = 'Rome')",
        expect![[r#"
            Map [id]
              Join semi on [customer = name]
                Map [id, customer]
                  Get orders
                Map [name] where city = 'Rome'
                  Get customers
            (id integer) key [0] unique
        "#]],
    );
    check(
        "SELECT id FROM orders o WHERE NOT EXISTS \
         (SELECT 1 FROM customers c WHERE c.name = o.customer)",
        expect![[r#"
            Map [id]
              Join anti on [customer = name]
                Map [id, customer]
                  Get orders
                Map [name]
                  Get customers
            (id integer) key [0] unique
        "#]],
    );
    check(
        "SELECT o.id, c.name FROM orders o FULL JOIN customers c ON o.customer = c.name",
        expect![[r#"
            Map [id, name]
              Join full on [customer = name]
                Map [id, customer]
                  Get orders
                Map [name]
                  Get customers
            (id integer, name character varying) key [0, 1] unique
        "#]],
    );
    check(
        "SELECT id, city FROM orders JOIN customers ON customer = name, totals",
        expect![[r#"
            Join inner on []
              Map [id, city]
                Join inner on [customer = name]
                  Map [id, customer]
                    Get orders
                  Map [name, city]
                    Get customers
              Map []
                Get totals
            (id integer, city character varying) key [0, 1]
        "#]],
    );
}

#[test]
fn sets_subqueries_and_views() {
    check(
        "SELECT id FROM orders UNION ALL SELECT big FROM customers",
        expect![[r#"
            Union
              Map [id::bigint AS id]
                Get orders
              Map [big]
                Get customers
            (id bigint) key [0]
        "#]],
    );
    check(
        "SELECT customer FROM orders UNION SELECT name FROM customers",
        expect![[r#"
            Distinct
              Union
                Map [customer]
                  Get orders
                Map [name]
                  Get customers
            (customer character varying) key [0] unique
        "#]],
    );
    check(
        "SELECT DISTINCT price, customer FROM orders",
        expect![[r#"
            Map [alike(price) AS price, customer]
              Reduce by [price, customer] compute [alike(price)]
                Map [price, customer, price]
                  Get orders
            (price numeric, customer character varying) key [0, 1] unique
        "#]],
    );
    check(
        "SELECT * FROM (VALUES (1, 'a'), (2, 'b')) AS v(x, y)",
        expect![[r#"
            Values 2 rows
            (x integer, y character varying) key [0, 1] append-only
        "#]],
    );
    check(
        "SELECT 1 AS one",
        expect![[r#"
        Map [1 AS one]
          Values 1 rows
        (one integer) key [] unique append-only
    "#]],
    );
    check(
        "SELECT * FROM totals WHERE count > 5",
        expect![[r#"
        Map [event, count] where count > 5
          Get totals
        (event character varying, count bigint) key [0] unique
    "#]],
    );
    check(
        "SELECT * FROM totals",
        expect![[r#"
        Get totals
        (event character varying, count bigint) key [0] unique
    "#]],
    );
    check(
        "SELECT * FROM clicks",
        expect![[r#"
        Reduce by [page] compute [count(*)]
          Map [page] where event = 'click'
            Source user_events [page, event]
        (page character varying, count bigint) key [0] unique
    "#]],
    );
    check(
        "WITH big AS (SELECT * FROM orders WHERE quantity > 5) \
         SELECT customer, count(*) FROM big GROUP BY customer",
        expect![[r#"
            Reduce by [customer] compute [count(*)]
              Map [customer] where quantity > 5
                Get orders
            (customer character varying, count bigint) key [0] unique
        "#]],
    );
    check(
        "SELECT id FROM orders WHERE price > (SELECT avg(price) FROM orders)",
        expect![[r#"
            Map [id] where price > avg
              Join left on []
                Map [id, price]
                  Get orders
                Reduce by [] compute [avg(price)]
                  Map [price]
                    Get orders
            (id integer) key [0] unique
        "#]],
    );
    check(
        "SELECT name FROM customers INTERSECT SELECT customer FROM orders",
        expect![[r#"
            Join semi on [name = customer] null = null
              Distinct
                Map [name]
                  Get customers
              Map [customer]
                Get orders
            (name character varying) key [0] unique
        "#]],
    );
}
