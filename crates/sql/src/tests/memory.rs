//! Queries that need more memory than they may have: the same rows, or an error that says so.

use std::collections::HashMap;

use ruslo_repr::text::{TextStyle, write_text};
use ruslo_repr::{ErrorKind, Result};

use super::{Fixture, query, session, unlimited};
use crate::{QueryMemory, plan_select};

/// The least limit that a process may have: an eighth of it is for queries.
const LIMIT: u64 = 64 << 20;

/// Several times as much as a query gets then.
const WITH: &str = "WITH t AS (SELECT i, i % 9000 AS k, i % 3 AS few, 'text ' || (i % 30000) || \
    repeat('.', 80) AS s, i::numeric / 8 AS n, (i % 9000)::float8 AS f FROM generate_series(1, \
    100000) AS g(i)), u AS (SELECT i * 2 AS i, i % 50 AS k, 'other ' || i || repeat('.', 80) AS s \
    FROM generate_series(1, 90000) AS g(i)), part AS (SELECT * FROM t WHERE i % 30000 < 4000) ";

/// The rows of a query as text, in their order.
fn rows(sql: &str, memory: &QueryMemory) -> Result<Vec<String>> {
    let plan = plan_select(
        &query(&format!("{WITH}{sql}")),
        &Fixture::new(),
        &session(),
        &[],
    )?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let batches = runtime.block_on(plan.execute(HashMap::new(), &[], memory))?;
    let style = TextStyle::with_time_zone("UTC")?;
    let mut lines = vec![];
    for batch in &batches {
        for row in 0..batch.num_rows() {
            let mut line = String::new();
            for column in batch.columns() {
                write_text(column, row, &style, &mut line);
                line.push('|');
            }
            lines.push(line);
        }
    }
    Ok(lines)
}

/// Whether it is ordered, and a query.
const QUERIES: &[(bool, &str)] = &[
    (true, "SELECT i, s, n FROM t ORDER BY s DESC, i"),
    (true, "SELECT s, i FROM t ORDER BY n DESC LIMIT 90000"),
    (
        true,
        "SELECT i, repeat(s, 30) FROM t WHERE i % 7 = 0 ORDER BY s, i",
    ),
    (
        false,
        "SELECT i, count(*), sum(n), avg(n), min(s), max(n), sum(i), avg(f), bool_and(k > 3) FROM part \
         GROUP BY i",
    ),
    (
        false,
        "SELECT s, sum(n), sum(f), count(DISTINCT few), max(f), stddev(i), var_pop(n) FROM part GROUP \
         BY s",
    ),
    (
        false,
        "SELECT s, few, string_agg(k::text, ',' ORDER BY i), array_agg(i ORDER BY n DESC), \
         jsonb_agg(k ORDER BY i) FROM part GROUP BY s, few",
    ),
    // One row in each group, as there is no order otherwise.
    (
        false,
        "SELECT i, string_agg(s, '-'), array_agg(k), jsonb_agg(n), jsonb_object_agg(s, k) FROM part \
         GROUP BY i",
    ),
    (
        false,
        "SELECT few, length(string_agg(s, '--')), cardinality(array_agg(k)) FROM part GROUP BY s, few",
    ),
    (
        false,
        "SELECT n, count(*) FILTER (WHERE few = 1), min(f), bit_or(k) FROM part GROUP BY n",
    ),
    (
        false,
        "SELECT s, sum(DISTINCT few), count(DISTINCT n) FROM part GROUP BY s HAVING count(*) > 1",
    ),
    (false, "SELECT DISTINCT s, few FROM t"),
    (
        true,
        "SELECT DISTINCT ON (s) s, i FROM t ORDER BY s, i DESC",
    ),
    (false, "SELECT t.i, t.s, u.s FROM t JOIN u ON t.i = u.i"),
    (
        false,
        "SELECT t.i, t.s, u.s FROM u JOIN t ON t.i = u.i AND t.few = u.k",
    ),
    (
        false,
        "SELECT t.i, t.s, u.s FROM t LEFT JOIN u ON t.i = u.i",
    ),
    (
        false,
        "SELECT t.i, t.s, u.s FROM t RIGHT JOIN u ON t.i = u.i AND t.k > 3",
    ),
    (
        false,
        "SELECT t.i, t.s, u.s FROM t FULL JOIN u ON t.i = u.i",
    ),
    (
        false,
        "SELECT i, s FROM t WHERE EXISTS (SELECT 1 FROM u WHERE u.i = t.i)",
    ),
    (
        false,
        "SELECT i, s FROM t WHERE NOT EXISTS (SELECT 1 FROM u WHERE u.i = t.i)",
    ),
    (false, "SELECT i, s FROM t WHERE i IN (SELECT u.i FROM u)"),
    (false, "SELECT t.n, x.s FROM t JOIN t AS x ON t.n = x.n"),
    (
        false,
        "SELECT count(*), sum(t.i) FROM (SELECT * FROM t WHERE i < 100000) AS t, (SELECT * FROM u \
         WHERE k = 1 LIMIT 20) AS u",
    ),
    (
        false,
        "SELECT t.i, u.i FROM t JOIN (SELECT * FROM u LIMIT 10) AS u ON t.i < u.i",
    ),
    (false, "SELECT s, i FROM t UNION SELECT s, i FROM u"),
    (false, "SELECT i FROM t INTERSECT SELECT i FROM u"),
    (
        false,
        "SELECT i, s FROM t EXCEPT SELECT i, 'other ' || i / 2 FROM u",
    ),
    (
        false,
        "SELECT i, row_number() OVER (PARTITION BY k ORDER BY i), sum(n) OVER (PARTITION BY few \
         ORDER BY i) FROM t",
    ),
    (
        true,
        "SELECT k, total, rank() OVER (ORDER BY total DESC, k) FROM (SELECT k, sum(n) AS total FROM \
         t GROUP BY k) AS x ORDER BY 3 LIMIT 100",
    ),
];

#[test]
fn queries_beyond_their_memory_give_the_same_rows() {
    let limited = QueryMemory::new(Some(LIMIT)).unwrap();
    for (is_ordered, sql) in QUERIES {
        let mut expected = rows(sql, &unlimited()).unwrap();
        let mut found = match rows(sql, &limited) {
            Ok(rows) => rows,
            Err(error) => panic!("{sql}: {error:?}"),
        };
        if !is_ordered {
            expected.sort_unstable();
            found.sort_unstable();
        }
        assert!(!expected.is_empty(), "{sql}");
        assert!(found == expected, "{sql}: other rows");
    }
}

#[test]
fn what_cannot_be_written_out_is_an_error() {
    let limited = QueryMemory::new(Some(LIMIT)).unwrap();
    for sql in [
        "SELECT array_agg(repeat(s, 10)) FROM t",
        "SELECT count(DISTINCT repeat(s, 10)) FROM t",
        "SELECT i FROM t WHERE repeat(s, 4) NOT IN (SELECT repeat(u.s, 4) FROM u)",
    ] {
        assert!(rows(sql, &unlimited()).is_ok(), "{sql}");
        let Err(error) = rows(sql, &limited) else {
            panic!("{sql}: no error");
        };
        assert_eq!(error.kind, ErrorKind::OutOfMemory, "{sql}: {error}");
        assert!(error.hint.unwrap().contains("--memory-limit"));
    }
    assert_eq!(rows("SELECT 1", &limited).unwrap(), ["1|"]);
}
