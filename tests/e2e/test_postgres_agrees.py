"""Plain SQL gives what PostgreSQL gives, digit by digit: both are asked with psql.

Where the two differ on purpose, the query is written so that both can say the same: a quotient of
numerics has fewer digits there, and a numeric group key is shown in its shortest form here.
"""

import functools
import os
import pathlib
import subprocess

import pytest

SETUP = """
CREATE TABLE a (id int PRIMARY KEY, k varchar, n int, x double precision, d numeric, t timestamp);
INSERT INTO a VALUES
  (1, 'one', 10, 1.5, 1.50, '2026-01-31 10:00:00'),
  (2, 'two', 20, 2.25, 0.001, '2026-02-28 23:59:59.999999'),
  (3, 'two', NULL, NULL, 100, NULL),
  (4, NULL, 7, -0.5, -2.675, '1999-12-31 00:00:00'),
  (5, 'five', 7, 1e100, 12345678901234567890.12, '2026-02-28 00:00:00');
CREATE TABLE b (k varchar, v int);
INSERT INTO b VALUES ('one', 1), ('two', 2), ('two', 22), (NULL, 0), ('six', 6);
"""

QUERIES = """
SELECT k, count(*), count(n) AS n, sum(n), round(avg(n), 6), min(n), max(n) FROM a GROUP BY k ORDER BY k
SELECT sum(d), round(avg(d), 2), min(d), max(d) FROM a
SELECT sum(x), avg(x), min(x), max(x) FROM a WHERE x < 1000
SELECT count(DISTINCT k), sum(DISTINCT n), count(*) FILTER (WHERE n = 7) FROM a
SELECT k, sum(n) AS s FROM a GROUP BY k HAVING count(*) > 1
SELECT a.id, b.v FROM a JOIN b ON a.k = b.k ORDER BY 1, 2
SELECT a.id, b.v FROM a LEFT JOIN b ON a.k = b.k ORDER BY 1, 2
SELECT a.id, b.k FROM a RIGHT JOIN b ON a.k = b.k ORDER BY 2, 1
SELECT a.k, a.id, b.v FROM a FULL JOIN b ON a.k = b.k ORDER BY 1, 2, 3
SELECT k FROM a UNION ALL SELECT k FROM b ORDER BY 1
SELECT k FROM a UNION SELECT k FROM b ORDER BY 1
SELECT k FROM b EXCEPT SELECT k FROM a ORDER BY 1
SELECT k FROM b INTERSECT ALL SELECT k FROM a ORDER BY 1
SELECT k FROM b EXCEPT ALL SELECT k FROM a ORDER BY 1
SELECT DISTINCT n FROM a ORDER BY 1
SELECT id FROM a WHERE k IN (SELECT k FROM b WHERE v > 1) ORDER BY id
SELECT id FROM a WHERE NOT EXISTS (SELECT 1 FROM b WHERE b.k = a.k) ORDER BY id
SELECT id, (SELECT max(v) FROM b WHERE b.k = a.k) FROM a ORDER BY id
WITH x AS (SELECT k, count(*) AS c FROM b GROUP BY k) SELECT * FROM x ORDER BY 1
SELECT id, row_number() OVER (PARTITION BY k ORDER BY id) FROM a ORDER BY id
SELECT id FROM a ORDER BY n DESC, id LIMIT 2 OFFSET 1
SELECT 1, 'text', NULL, true, false, 1.0, 1.50, 1e3, -0.0
SELECT 7 / 2, -7 / 2, 7 % 3, -7 % 3, round(7.0 / 2, 9), round(1.0 / 3, 9), 2 ^ 10
SELECT 1.10 + 2.2, 1.10 * 2.20, 5.00 - 5, round(10.0 / 4, 9), round(2.5), round(-2.675, 2)
SELECT 0.1::real, 0.1::double precision, 1e20::double precision, 1e-7::double precision, 'NaN'::double precision
SELECT round(1::numeric / 7, 9), round(100::numeric / 3, 9), 2::numeric, 2.000::numeric
SELECT '10'::int + 1, 10::varchar || 'x', '2.50'::numeric, 't'::boolean
SELECT date '2026-02-28' + 1, date '2026-03-01' - date '2026-02-01'
SELECT timestamp '2026-01-31 10:00:00' + interval '1 month', timestamp '2026-01-31' - timestamp '2025-12-30 12:00'
SELECT interval '1 day 2 hours', interval '90 minutes', interval '1 year 2 months 3 days', interval '-1 day'
SELECT date_trunc('hour', timestamp '2026-01-31 10:20:30'), extract(day FROM date '2026-01-31'), extract(epoch FROM timestamp '1970-01-02')
SELECT timestamptz '2026-01-31 10:00:00+03', timestamptz '2026-01-31 10:00:00+03' AT TIME ZONE 'UTC'
SELECT time '10:20:30.5', date '2026-01-31', timestamp '2026-01-31 10:00:00.120000'
SELECT upper('aB'), lower('AB'), length('текст'), substring('abcdef' FROM 2 FOR 3), position('c' IN 'abc'), trim('  x '), replace('aXbX', 'X', '-')
SELECT concat('a', NULL, 1), 'a' || NULL, coalesce(NULL, 2), nullif(1, 1), greatest(1, NULL, 3), least(2, 1)
SELECT CASE WHEN n > 8 THEN 'big' WHEN n IS NULL THEN 'none' ELSE 'small' END, id FROM a ORDER BY id
SELECT 'abc' LIKE 'a%', 'abc' ILIKE 'A_C', 'abc' ~ '^a', 'a' < 'B', 'x' IN ('x', NULL)
SELECT NULL = NULL, NULL IS NULL, NULL AND false, NULL OR true, 1 IS DISTINCT FROM NULL, n BETWEEN 7 AND 10 FROM a WHERE id < 3 ORDER BY id
SELECT array[1, 2, NULL], array['a', 'b c', 'd"e', NULL], (array[10, 20])[2]
SELECT '{"a": {"b": [1, 2]}}'::jsonb -> 'a' -> 'b' ->> 1, '{"b": 1, "a": 2}'::jsonb, '{"a": null}'::jsonb ->> 'a'
SELECT '\\x00ff'::bytea, abs(-5), sign(-2.5), floor(-1.5), ceil(1.2), power(2, 3), sqrt(2)
SELECT string_agg(k, ',' ORDER BY id), bool_and(n > 5), bool_or(n > 15) FROM a
SELECT id, x FROM a WHERE x IS NOT NULL ORDER BY x
SELECT id, d FROM a ORDER BY d DESC
SELECT round(d, 1), count(*) FROM (VALUES (1.0), (1.00), (2.0)) AS v(d) GROUP BY d ORDER BY 1
SELECT count(*) FROM a, b
SELECT count(*) FROM a WHERE t >= '2026-02-28' AND t < '2026-03-01'
"""


def psql(url: str, *arguments: str) -> str:
    done = subprocess.run(
        ["psql", "-X", "-q", "-A", url, "-v", "ON_ERROR_STOP=1", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.stdout if done.returncode == 0 else f"failed: {done.stderr}"


@pytest.fixture(scope="module")
def pair(postgres, workdir, kill_in_the_middle):
    """The same tables in both servers: what asks each with psql."""
    from services import Ruslo

    with Ruslo(workdir / "ruslo-compared", workers=2) as server:
        for url in (postgres.url, server.url):
            assert psql(url, "-c", "SET timezone = 'UTC'", "-c", SETUP) == ""
        server.execute("FLUSH")
        kill_in_the_middle(server, len(QUERIES.strip().splitlines()) // 2)

        def ask_ruslo(*arguments):
            server.kill_if_due()
            return psql(server.url, *arguments)

        yield functools.partial(psql, postgres.url), ask_ruslo


@pytest.mark.parametrize("query", QUERIES.strip().splitlines())
def test_same_answer(pair, query):
    zone = ("-c", "SET timezone = 'UTC'")
    expected, seen = (ask(*zone, "-c", query) for ask in pair)
    assert not expected.startswith("failed"), expected
    assert seen == expected


@pytest.mark.parametrize(
    "query",
    [q for q in QUERIES.strip().splitlines() if "GROUP BY k" in q or "JOIN b ON" in q],
)
def test_same_answer_as_a_view(pair, query):
    """The maintained result is the recomputed one."""
    ask_postgres, ask_ruslo = pair
    expected = ask_postgres("-t", "-c", query)
    body = query.rsplit(" ORDER BY", 1)[0]
    ask_ruslo("-c", "DROP MATERIALIZED VIEW IF EXISTS same")
    assert ask_ruslo("-c", f"CREATE MATERIALIZED VIEW same AS {body}") == ""
    seen = ask_ruslo("-t", "-c", "SELECT * FROM same")
    assert sorted(seen.splitlines()) == sorted(expected.splitlines())


def test_plain_slt_files_are_postgres(postgres):
    """The answers written in tests/slt/plain are PostgreSQL's own."""
    config = f"host=127.0.0.1 port={postgres.port} user=ruslo dbname=postgres"
    done = subprocess.run(
        ["cargo", "test", "--quiet", "--workspace", "--test", "slt", "--", "plain"],
        cwd=pathlib.Path(__file__).parents[2],
        env=os.environ | {"SLT_POSTGRES": config},
        capture_output=True,
        text=True,
        timeout=540,
        check=False,
    )
    assert done.returncode == 0 and "0 failed" in done.stdout, done.stdout + done.stderr
