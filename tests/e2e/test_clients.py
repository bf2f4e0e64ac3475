"""psql, psycopg 3, SQLAlchemy and pgJDBC as people use them."""

import datetime
import decimal
import pathlib
import subprocess
import threading
import time

import psycopg
import pytest
import sqlalchemy

from services import wait_until
from services.process import cache_dir


@pytest.fixture
def tables(ruslo):
    ruslo.execute(
        "CREATE TABLE people (id int PRIMARY KEY, name varchar, born date)",
        "CREATE VIEW adults AS SELECT name FROM people WHERE born < '2000-01-01'",
        "CREATE MATERIALIZED VIEW per_year AS"
        " SELECT extract(year FROM born) AS year, count(*) FROM people GROUP BY 1",
        "INSERT INTO people VALUES (1, 'Anna', '1990-05-01'), (2, 'Boris', '2005-01-31')",
        "FLUSH",
    )


# psql ---------------------------------------------------------------------------------------------


def psql(ruslo, *commands: str, **options) -> str:
    done = ruslo.psql(*commands, **options)
    assert done.returncode == 0 and not done.stderr, done.stdout + done.stderr
    return done.stdout


def test_psql_lists_relations(ruslo, tables):
    for command, names in {
        r"\d": ["people", "adults", "per_year"],
        r"\dt": ["people"],
        r"\dv": ["adults"],
        r"\dm": ["per_year"],
        r"\dn": ["public"],
        r"\l": ["dev"],
    }.items():
        out = psql(ruslo, command)
        for name in names:
            assert name in out, f"{command}:\n{out}"
    assert "adults" not in psql(ruslo, r"\dt")


def test_psql_describes_a_relation(ruslo, tables):
    out = psql(ruslo, r"\d people")
    columns = [
        tuple(part.strip() for part in line.split("|")[:2])
        for line in out.splitlines()
        if "|" in line
    ]
    assert columns == [
        ("Column", "Type"),
        ("id", "integer"),
        ("name", "character varying"),
        ("born", "date"),
    ], out
    assert "count" in psql(ruslo, r"\d per_year") and "bigint" in psql(ruslo, r"\d per_year")
    assert "Did not find" in ruslo.psql(r"\d nothing").stderr


def test_psql_prints_rows_tags_notices_and_errors(ruslo, tables):
    out = psql(ruslo, "SELECT id, name FROM people ORDER BY id")
    assert out == " id | name  \n----+-------\n  1 | Anna\n  2 | Boris\n(2 rows)\n\n"
    assert psql(ruslo, "INSERT INTO people VALUES (3, 'Vera', NULL)") == "INSERT 0 1\n"
    assert psql(ruslo, "UPDATE people SET name = 'Vera P.' WHERE id = 3") == "UPDATE 1\n"
    assert psql(ruslo, "DELETE FROM people WHERE id = 3") == "DELETE 1\n"
    again = ruslo.psql("CREATE TABLE IF NOT EXISTS people (id int)")
    assert again.returncode == 0 and "NOTICE" in again.stderr and "people" in again.stderr
    failed = ruslo.psql("SELECT nothing FROM people")
    assert failed.returncode == 1 and "ERROR" in failed.stderr and "nothing" in failed.stderr


def test_psql_runs_many_statements_of_one_string(ruslo):
    made = "CREATE TABLE t (a int); INSERT INTO t VALUES (1), (2); FLUSH"
    out = psql(ruslo, f"{made}; SELECT * FROM t")
    assert out.endswith("(2 rows)\n\n")
    failed = ruslo.psql("SELECT 1; SELECT broken; SELECT 3")
    assert "ERROR" in failed.stderr and "3" not in failed.stdout


# psycopg ------------------------------------------------------------------------------------------

VALUES = {
    "boolean": True,
    "smallint": -3,
    "integer": 7,
    "bigint": 2**40,
    "real": 1.5,
    "double precision": 2.25,
    "numeric": decimal.Decimal("123.4500"),
    "varchar": "текст",
    "bytea": b"\x00\xff",
    "date": datetime.date(2026, 11, 22),
    "time": datetime.time(10, 20, 30, 400),
    "timestamp": datetime.datetime(2026, 11, 22, 10, 20, 30, 123456),
    "timestamptz": datetime.datetime(2026, 11, 22, 10, 20, 30, tzinfo=datetime.UTC),
    "interval": datetime.timedelta(days=3, seconds=4),
    "jsonb": {"a": [1, None]},
    "integer[]": [1, None, 3],
    "varchar[]": ["a", None, 'quo"te'],
}


@pytest.mark.parametrize("binary", [False, True], ids=["text", "binary"])
def test_psycopg_reads_every_type(ruslo, binary):
    columns = ", ".join(f"c{i} {kind}" for i, kind in enumerate(VALUES))
    literals = [
        "true", "-3", "7", "1099511627776", "1.5", "2.25", "123.4500", "'текст'", r"'\x00ff'",
        "'2026-11-22'", "'10:20:30.0004'", "'2026-11-22 10:20:30.123456'",
        "'2026-11-22 10:20:30+00'", "'3 days 00:00:04'", "'{\"a\": [1, null]}'",
        "ARRAY[1, NULL, 3]", "ARRAY['a', NULL, 'quo\"te']",
    ]  # fmt: skip
    ruslo.execute(
        f"CREATE TABLE t (id int PRIMARY KEY, {columns})",
        f"INSERT INTO t VALUES (1, {', '.join(literals)}), (2{', NULL' * len(VALUES)})",
        "CREATE MATERIALIZED VIEW v AS SELECT * FROM t",
        "FLUSH",
    )
    with ruslo.connect() as connection, connection.cursor(binary=binary) as cursor:
        for relation in ("t", "v"):
            cursor.execute(f"SELECT * FROM {relation} WHERE id = %s", (1,))
            assert cursor.fetchone()[1:] == tuple(VALUES.values())
            cursor.execute(f"SELECT * FROM {relation} WHERE id = %s", (2,))
            assert cursor.fetchone()[1:] == (None,) * len(VALUES)


def test_psycopg_sends_every_type(ruslo):
    with ruslo.connect() as connection:
        for kind, value in VALUES.items():
            if kind == "jsonb":
                value = psycopg.types.json.Jsonb(value)
            for form in ("%s", "%b"):
                if form == "%b" and kind in ("varchar[]",):
                    continue
                row = connection.execute(f"SELECT {form}::{kind}", (value,)).fetchone()
                assert row == (VALUES[kind],), kind


def test_psycopg_prepares_and_sends_many(ruslo, tables):
    with ruslo.connect() as connection:
        for i in range(10):
            row = connection.execute(
                "SELECT name FROM people WHERE id = %s", (i % 2 + 1,), prepare=True
            ).fetchone()
            assert row == (["Anna", "Boris"][i % 2],)
        with connection.cursor() as cursor:
            cursor.executemany(
                "INSERT INTO people VALUES (%s, %s, %s)",
                [(i, f"name {i}", datetime.date(1980, 1, 1)) for i in range(10, 60)],
            )
            assert cursor.rowcount == 50
        with connection.pipeline():
            cursors = [connection.execute("SELECT %s::int", (i,)) for i in range(20)]
        assert [cursor.fetchone() for cursor in cursors] == [(i,) for i in range(20)]
    assert ruslo.value("SELECT count(*) FROM adults") == 51


def test_an_error_leaves_the_connection_usable(ruslo):
    with ruslo.connect() as connection:
        for _ in range(3):
            with pytest.raises(psycopg.Error):
                connection.execute("SELECT nothing")
            with pytest.raises(psycopg.Error):
                connection.execute("SELECT %s::int / 0", (1,))
            assert connection.execute("SELECT 1").fetchone() == (1,)


def test_transaction_blocks(ruslo, tables):
    """Drivers open them for everything: the statements must go through."""
    with ruslo.connect(autocommit=False) as connection:
        assert connection.execute("SELECT count(*) FROM people").fetchone() == (2,)
        connection.execute("INSERT INTO people VALUES (9, 'Gleb', NULL)")
        connection.commit()
        assert connection.execute("SELECT count(*) FROM people").fetchone() == (3,)
        connection.rollback()


def test_cancel(ruslo):
    """A query that would run for hours ends soon after the request, and its work with it."""
    with ruslo.connect() as connection:
        timer = threading.Timer(0.5, connection.cancel)
        began = time.monotonic()
        timer.start()
        with pytest.raises(psycopg.errors.QueryCanceled):
            connection.execute(
                "SELECT count(*) FROM generate_series(1, 1000000) AS a(i),"
                " generate_series(1, 1000000) AS b(i) WHERE (a.i + b.i) % 7 = 3"
            )
        assert time.monotonic() - began < 5
        assert connection.execute("SELECT 1").fetchone() == (1,)

    def idle():
        before = ruslo.cpu_seconds()
        time.sleep(0.5)
        return ruslo.cpu_seconds() - before < 0.1

    wait_until(idle, 10, "the cancelled query gives the CPU back")


def test_many_connections(ruslo):
    connections = [ruslo.connect() for _ in range(100)]
    for connection in connections:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    for connection in connections:
        connection.close()


def test_an_acknowledged_write_is_seen_by_everybody(ruslo):
    ruslo.execute(
        "CREATE TABLE t (id int PRIMARY KEY)",
        "CREATE MATERIALIZED VIEW n AS SELECT count(*) AS n FROM t",
        "CREATE TABLE copy (n bigint)",
    )
    with ruslo.connect() as writer, ruslo.connect() as reader:
        for i in range(1, 101):
            writer.execute(f"INSERT INTO t VALUES ({i})")
            assert reader.execute("SELECT n FROM n").fetchall() == [(i,)]
            reader.execute("INSERT INTO copy SELECT n FROM n")
            assert writer.execute("SELECT max(n), count(*) FROM copy").fetchall() == [(i, i)]


def test_a_read_sees_one_time(ruslo):
    """Money moves between two tables' views; every read must see the same sum."""
    ruslo.execute(
        "CREATE TABLE t (id int PRIMARY KEY, side varchar, n int)",
        "INSERT INTO t VALUES (1, 'left', 500), (2, 'right', 500)",
        "CREATE MATERIALIZED VIEW l AS SELECT sum(n) AS n FROM t WHERE side = 'left'",
        "CREATE MATERIALIZED VIEW r AS SELECT sum(n) AS n FROM t WHERE side = 'right'",
        "FLUSH",
    )
    done = threading.Event()

    def move():
        with ruslo.connect() as connection:
            for i in range(200):
                connection.execute(
                    "UPDATE t SET n = CASE WHEN side = 'left' THEN n - 1 ELSE n + 1 END"
                )
        done.set()

    mover = threading.Thread(target=move)
    mover.start()
    seen = set()
    with ruslo.connect() as connection:
        while not done.is_set():
            left, right = connection.execute("SELECT l.n, r.n FROM l, r").fetchone()
            assert left + right == 1000
            seen.add(left)
    mover.join()
    assert len(seen) > 1
    ruslo.execute("FLUSH")
    assert ruslo.rows("SELECT l.n, r.n FROM l, r") == [(300, 700)]


# SQLAlchemy, pgJDBC -------------------------------------------------------------------------------


def test_sqlalchemy(ruslo, tables):
    engine = sqlalchemy.create_engine(ruslo.url.replace("postgresql://", "postgresql+psycopg://"))
    with engine.connect() as connection:
        query = sqlalchemy.text("SELECT name FROM people WHERE id = :id")
        assert connection.execute(query, {"id": 2}).scalar_one() == "Boris"
    inspector = sqlalchemy.inspect(engine)
    assert "people" in inspector.get_table_names()
    assert "adults" in inspector.get_view_names()
    columns = {c["name"]: type(c["type"]).__name__ for c in inspector.get_columns("people")}
    assert columns == {"id": "INTEGER", "name": "VARCHAR", "born": "DATE"}
    assert inspector.get_pk_constraint("people")["constrained_columns"] == ["id"]
    metadata = sqlalchemy.MetaData()
    people = sqlalchemy.Table("people", metadata, autoload_with=engine)
    with engine.connect() as connection:
        rows = connection.execute(sqlalchemy.select(people.c.name).where(people.c.id == 1)).all()
        assert rows == [("Anna",)]
    engine.dispose()


def test_pgjdbc(ruslo):
    program = pathlib.Path(__file__).with_name("jdbc") / "Smoke.java"
    done = subprocess.run(
        [
            "java", "-XX:TieredStopAtLevel=1", "-cp", f"{cache_dir()}/jars/*", str(program),
            f"jdbc:postgresql://127.0.0.1:{ruslo.port}/dev?sslmode=prefer",
        ],  # fmt: skip
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[:2] == ["product PostgreSQL", "inserted 2"]
    assert lines[2:14] == ["row one 1.50 2", "row null 2 3"] * 6
    assert lines[14] == "error 42P01"
    assert lines[15:18] == ["told 1 1", "told 1 2", "told 47 more"]
    assert lines[18:21] == ["column id int4", "column name varchar", "column price numeric"]
    assert lines[21:25] == ["key id 1", "schema public", "types true", "keywords true"]
    assert lines[-1] == "done"
