"""SUBSCRIBE and COPY … TO STDOUT: what clients are told, and what becomes of slow and gone ones."""

import collections
import contextlib
import random
import socket
import subprocess
import threading
import time

import psycopg
import pytest
from follower import Follower
from services import wait_until

EVENTS = ["page_view", "click", "purchase", "search"]
GROUPED = "SELECT event, count(*) AS n FROM events GROUP BY event"
TABLE = "CREATE TABLE t (id int PRIMARY KEY, v varchar)"
WAITING = "ruslo_subscription_waiting_bytes"


@contextlib.contextmanager
def subscribed(ruslo, statement: str, **options):
    """A connection, and the rows that it is sent."""
    with ruslo.connect(**options) as connection:
        with contextlib.closing(connection.cursor().stream(statement)) as rows:
            yield connection, rows


def take(rows, count: int) -> list[tuple]:
    return [next(rows) for _ in range(count)]


def test_rows_then_changes(ruslo):
    ruslo.execute(TABLE, "INSERT INTO t VALUES (1, 'a'), (2, NULL)")
    with subscribed(ruslo, "SUBSCRIBE t") as (connection, rows):
        first = take(rows, 2)
        assert sorted(row[1:] for row in first) == [(1, 1, "a"), (1, 2, None)]
        assert len({row[0] for row in first}) == 1
        # Milliseconds since 1970.
        assert abs(first[0][0] / 1000 - time.time()) < 60
        ruslo.execute("UPDATE t SET v = 'b' WHERE id = 1")
        changed = take(rows, 2)
        # What goes comes first.
        assert [row[1:] for row in changed] == [(-1, 1, "a"), (1, 1, "b")]
        assert changed[0][0] == changed[1][0] > first[0][0]
        # A change that changes nothing is not told.
        ruslo.execute("UPDATE t SET v = 'b' WHERE id = 1", "DELETE FROM t WHERE id = 2")
        assert next(rows)[1:] == (-1, 2, None)
        connection.cancel_safe()
        with pytest.raises(psycopg.errors.QueryCanceled):
            next(rows)
        assert connection.execute("SELECT id FROM t").fetchall() == [(1,)]


def test_rows_that_are_equal_are_counted(ruslo):
    ruslo.execute("CREATE TABLE b (v varchar)", "INSERT INTO b VALUES ('x'), ('x'), ('y')")
    with subscribed(ruslo, "SUBSCRIBE TO b") as (connection, rows):
        assert sorted(row[1:] for row in take(rows, 2)) == [(1, "y"), (2, "x")]
        ruslo.execute("DELETE FROM b WHERE v = 'x'")
        assert next(rows)[1:] == (-2, "x")


def test_only_changes(ruslo):
    ruslo.execute(TABLE, "INSERT INTO t VALUES (1, 'a')")
    with subscribed(ruslo, "SUBSCRIBE t WITH (SNAPSHOT = false, PROGRESS)") as (connection, rows):
        at, progressed, *others = next(rows)
        assert progressed is True and others == [None, None, None]
        ruslo.execute("INSERT INTO t VALUES (2, 'b')")
        seen = next(row for row in rows if not row[1])
        assert seen[1:] == (False, 1, 2, "b") and seen[0] > at
        assert next(rows)[:2] == (seen[0], True)


def test_a_view_over_kafka(ruslo, kafka, topic, source):
    source("events", topic)
    ruslo.execute(f"CREATE MATERIALIZED VIEW counts AS {GROUPED}")
    rng = random.Random(5)
    produced = collections.Counter()

    def produce(count: int):
        events = rng.choices(EVENTS, k=count)
        kafka.produce(topic, [{"user": "u", "page": "p", "event": event} for event in events])
        produced.update(events)

    totals = []

    def look(rows: collections.Counter):
        # One row for each event, and counts only grow: also over kills.
        counts = dict(rows.keys())
        assert len(counts) == len(rows) == rows.total()
        total = sum(counts.values())
        assert not totals or total >= totals[-1], (total, totals[-1])
        totals.append(total)

    produce(200)
    with Follower(ruslo.connect, "counts", look) as follower:
        follower.wait_rows(list(produced.items()))
        for _ in range(3):
            for _ in range(20):
                produce(50)
            ruslo.restart()
            produce(50)
            follower.wait_rows(list(produced.items()), 60)
        assert follower.begins == 4 and follower.steps > 4
        assert sorted(follower.rows) == sorted(ruslo.rows("SELECT * FROM counts"))
    assert totals[-1] == produced.total()


def test_many_subscribers_see_the_same(ruslo):
    ruslo.execute(
        TABLE, "CREATE MATERIALIZED VIEW c AS SELECT v, count(*) AS n FROM t GROUP BY v"
    )
    rng = random.Random(3)
    followers = [Follower(ruslo.connect, name) for name in ["t", "c"] * 8]
    for follower in followers:
        follower.__enter__()
    expected = {}
    for _ in range(100):
        id, v = rng.randrange(20), rng.choice("xyz")
        ruslo.execute(f"INSERT INTO t VALUES ({id}, '{v}')")
        expected[id] = v
    counts = collections.Counter(expected.values())
    for follower in followers:
        follower.wait_rows(list((expected if follower.relation == "t" else counts).items()))
    assert ruslo.metrics()["ruslo_subscriptions"] == len(followers)
    for follower in followers:
        follower.__exit__(None, None, None)
    wait_until(lambda: ruslo.metrics()["ruslo_subscriptions"] == 0)


# Slow clients -------------------------------------------------------------------------------------


def test_a_slow_client_gets_fewer_and_larger_steps(ruslo):
    """200 MB of changes of 1 MB of rows: the client is sent a part, and the rows are right."""
    ruslo.execute(TABLE, "INSERT INTO t SELECT i, repeat('x', 50000) FROM generate_series(1, 20) g(i)")
    with subscribed(ruslo, "SUBSCRIBE t") as (connection, rows):
        state = collections.Counter(row[2:] for row in take(rows, 20))
        for number in range(200):
            ruslo.execute(f"UPDATE t SET v = repeat('{number % 10}', 50000) || '{number}'")
        told = 0
        last = {(id, "9" * 50000 + "199") for id in range(1, 21)}
        for _, diff, *row in rows:
            told += 1
            state[tuple(row)] += diff
            if state[tuple(row)] == 0:
                del state[tuple(row)]
            if set(state) == last and state.total() == 20:
                break
        # The buffers of the connection hold some steps; all would be 8,000 rows.
        assert told < 4000, told
        wait_until(lambda: ruslo.metrics()[WAITING] == 0)


def test_a_client_that_is_too_slow_is_told(start_ruslo):
    ruslo = start_ruslo(arguments=("serve", "--memory-limit", "128MiB"))
    ruslo.execute(TABLE, "CREATE MATERIALIZED VIEW c AS SELECT count(*) AS n FROM t")
    subscription = subscribed(ruslo, "SUBSCRIBE t WITH (PROGRESS)")
    with subscription as (connection, rows), Follower(ruslo.connect, "c") as other:
        assert next(rows)[1] is True
        # Far more than the buffers of the connection and a sixteenth of the limit.
        for start in range(300):
            ruslo.execute(
                f"INSERT INTO t SELECT {start} * 10 + i, repeat(md5(i::text), 400)"
                " FROM generate_series(0, 9) AS g(i)"
            )
        wait_until(lambda: ruslo.metrics()["ruslo_subscriptions"] == 1)
        with pytest.raises(psycopg.errors.OutOfMemory, match="more slowly") as raised:
            for _ in rows:
                pass
        assert 'changes of "t"' in raised.value.diag.message_detail
        assert "--memory-limit" in raised.value.diag.message_hint
        # Its connection goes on, and so does who reads.
        assert connection.execute("SELECT count(*) FROM t").fetchone() == (3000,)
        other.wait_rows([(3000,)])
        assert other.begins == 1
    wait_until(lambda: ruslo.metrics()[WAITING] == 0)


# Ends ---------------------------------------------------------------------------------------------


def test_a_client_that_is_gone_leaves_nothing(ruslo):
    ruslo.execute(TABLE)
    for _ in range(5):
        connection = ruslo.connect()
        assert next(connection.cursor().stream("SUBSCRIBE t WITH (PROGRESS)"))
        # Without a goodbye.
        socket.socket(fileno=connection.fileno()).shutdown(socket.SHUT_RDWR)
        del connection
    wait_until(lambda: ruslo.metrics()["ruslo_subscriptions"] == 0)


def test_a_dropped_relation_ends_its_subscriptions(ruslo):
    ruslo.execute(TABLE, "CREATE MATERIALIZED VIEW c AS SELECT v, count(*) AS n FROM t GROUP BY v")
    with (
        subscribed(ruslo, "SUBSCRIBE c WITH (PROGRESS)") as (one, on_view),
        subscribed(ruslo, "SUBSCRIBE t WITH (PROGRESS)") as (_, on_table),
    ):
        assert next(on_view)[1] and next(on_table)[1]
        ruslo.execute("DROP MATERIALIZED VIEW c")
        with pytest.raises(psycopg.errors.UndefinedTable, match='"c" was dropped'):
            collections.deque(on_view)
        # The other one goes on.
        ruslo.execute("INSERT INTO t VALUES (1, 'a')")
        assert next(row for row in on_table if not row[1])[2:] == (1, 1, "a")
        ruslo.execute("DROP TABLE t")
        with pytest.raises(psycopg.errors.UndefinedTable):
            collections.deque(on_table)
        assert one.execute("SELECT 1").fetchone() == (1,)


def test_views_come_and_go_beside_subscribers(ruslo):
    """Subscribing races with dropping: the client is told, and the server goes on."""
    ruslo.execute(TABLE, "INSERT INTO t VALUES (1, 'a')")
    stop = threading.Event()
    failures, told = [], []

    def subscribe():
        with ruslo.connect() as connection:
            while not stop.is_set():
                try:
                    for row in connection.cursor().stream("SUBSCRIBE c"):
                        told.append(row)
                except psycopg.errors.UndefinedTable:
                    pass
                except BaseException as error:  # noqa: BLE001 the test raises it
                    failures.append(error)
                    return

    threads = [threading.Thread(target=subscribe, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(40):
        ruslo.execute("CREATE MATERIALIZED VIEW c AS SELECT v, count(*) AS n FROM t GROUP BY v")
        time.sleep(0.02)
        ruslo.execute("DROP MATERIALIZED VIEW c")
    stop.set()
    for thread in threads:
        thread.join(30)
    assert not failures and told
    wait_until(lambda: ruslo.metrics()["ruslo_subscriptions"] == 0)


def test_the_server_ends_while_somebody_subscribes(ruslo):
    ruslo.execute(TABLE)
    with subscribed(ruslo, "SUBSCRIBE t WITH (PROGRESS)") as (connection, rows):
        next(rows)
        started = time.monotonic()
        assert ruslo.stop() == 0
        assert time.monotonic() - started < 5
        with pytest.raises(psycopg.Error):
            collections.deque(rows)
    ruslo.start()


def test_a_subscription_fails_its_transaction(ruslo):
    ruslo.execute(TABLE)
    with subscribed(ruslo, "SUBSCRIBE t WITH (PROGRESS)", autocommit=False) as (connection, rows):
        next(rows)
        connection.cancel_safe()
        with pytest.raises(psycopg.errors.QueryCanceled):
            collections.deque(rows)
        assert connection.info.transaction_status == psycopg.pq.TransactionStatus.INERROR
        connection.rollback()
        assert connection.execute("SELECT count(*) FROM t").fetchone() == (0,)


# Statements ---------------------------------------------------------------------------------------


def test_what_cannot_be_subscribed_to(ruslo, kafka, topic, source):
    source("events", topic)
    ruslo.execute(TABLE, "CREATE VIEW plain AS SELECT v FROM t")
    for statement, error, text in (
        ("SUBSCRIBE nothing", psycopg.errors.UndefinedTable, "does not exist"),
        ("SUBSCRIBE events", psycopg.errors.WrongObjectType, "materialized view or a table"),
        ("SUBSCRIBE plain", psycopg.errors.WrongObjectType, "materialized view or a table"),
        ("SUBSCRIBE ruslo.sources", psycopg.errors.WrongObjectType, "materialized view or a"),
        ("SUBSCRIBE (SELECT 1)", psycopg.errors.FeatureNotSupported, "CREATE MATERIALIZED VIEW"),
        ("SUBSCRIBE t WITH (SPEED)", psycopg.errors.SyntaxError, "SNAPSHOT or PROGRESS"),
        ("SUBSCRIBE t WITH (PROGRESS = 3)", psycopg.errors.SyntaxError, "true or false"),
        ("SUBSCRIBE t AS OF 3", psycopg.errors.SyntaxError, "AS"),
        ("COPY t FROM STDIN", psycopg.errors.FeatureNotSupported, "INSERT"),
        ("COPY t TO '/tmp/t'", psycopg.errors.FeatureNotSupported, "STDOUT"),
        ("COPY t TO STDOUT WITH (FORMAT csv)", psycopg.errors.FeatureNotSupported, "text"),
        ("COPY t TO STDOUT CSV HEADER", psycopg.errors.FeatureNotSupported, "text"),
        ("COPY (DELETE FROM t) TO STDOUT", psycopg.errors.FeatureNotSupported, "query"),
        ("COPY nothing TO STDOUT", psycopg.errors.UndefinedTable, "does not exist"),
    ):
        with ruslo.connect() as connection, pytest.raises(error) as raised:
            connection.execute(statement)
        diagnosis = raised.value.diag
        said = f"{diagnosis.message_primary} {diagnosis.message_detail} {diagnosis.message_hint}"
        assert text in said, (statement, said)


def test_the_columns_are_described(ruslo):
    ruslo.execute(TABLE)
    for options, own in (
        ("", ["ruslo_time", "ruslo_diff"]),
        (" WITH (PROGRESS)", ["ruslo_time", "ruslo_progressed", "ruslo_diff"]),
    ):
        with ruslo.connect() as connection:
            connection.pgconn.prepare(b"s", f"SUBSCRIBE t{options}".encode())
            described = connection.pgconn.describe_prepared(b"s")
            names = [described.fname(i).decode() for i in range(described.nfields)]
            assert names == [*own, "id", "v"]


def test_a_subscription_by_name_and_prepared(ruslo):
    ruslo.execute(
        "CREATE SCHEMA app", 'CREATE TABLE app."T x" (id int)', 'INSERT INTO app."T x" VALUES (1)'
    )
    with ruslo.connect() as connection:
        for statement in ('SUBSCRIBE app."T x"', "EXECUTE followed"):
            if statement.startswith("EXECUTE"):
                connection.execute('PREPARE followed AS SUBSCRIBE TO app."T x" WITH (SNAPSHOT true)')
            with contextlib.closing(connection.cursor().stream(statement)) as rows:
                assert next(rows)[1:] == (1, 1)
            assert connection.execute("SELECT 1").fetchone() == (1,)


def test_psql_prints_changes_as_they_come(ruslo):
    """psql shows a result when it is complete, but what is copied at once."""
    ruslo.execute(TABLE, "INSERT INTO t VALUES (1, 'a')")
    command = ["psql", "-X", "-h", "127.0.0.1", "-p", str(ruslo.port), "-d", "dev", "-U", "root"]
    with subprocess.Popen(
        ["stdbuf", "-oL", *command, "-c", "COPY (SUBSCRIBE t) TO STDOUT"],
        stdout=subprocess.PIPE,
        text=True,
    ) as psql:
        assert psql.stdout.readline().split("\t")[1:] == ["1", "1", "a\n"]
        ruslo.execute("UPDATE t SET v = NULL")
        assert psql.stdout.readline().split("\t")[1:] == ["-1", "1", "a\n"]
        assert psql.stdout.readline().split("\t")[1:] == ["1", "1", "\\N\n"]
        psql.terminate()
    wait_until(lambda: ruslo.metrics()["ruslo_subscriptions"] == 0)


def test_copied_rows_are_as_postgres_copies_them(ruslo, postgres):
    table = (
        "CREATE TABLE c (id int PRIMARY KEY, t varchar, f double precision, n numeric, b boolean,"
        " y bytea, d date, ts timestamp, tz timestamptz, i interval, a int[], j jsonb)"
    )
    rows = (
        r"(1, E'tab\there \\ back', 1.5, 10.50, true, '\xdeadbeef', '2024-02-29',"
        " '2024-02-29 12:00:00.5', '2024-02-29 12:00:00+02', '1 day 02:03:04', ARRAY[1, NULL, 3],"
        ' \'{"a": [1, "\\\\x"]}\')',
        r"(2, E'line\nfeed\rreturn\b\f\v', 'NaN', NULL, NULL, '\x5c09', NULL, NULL, NULL, NULL,"
        " NULL, NULL)",
        "(3, '', 0, 0, false, '', NULL, NULL, NULL, NULL, NULL, 'null')",
        r"(4, '\N', 1e300, -0.001, false, NULL, NULL, NULL, NULL, NULL, NULL, '[]')",
    )
    statements = [table, *(f"INSERT INTO c VALUES {row}" for row in rows)]
    queries = [
        "COPY (SELECT * FROM c ORDER BY id) TO STDOUT",
        "COPY (SELECT id, t FROM c WHERE id < 3 ORDER BY id DESC) TO STDOUT WITH (FORMAT text)",
        "COPY (SELECT 1 AS a WHERE false) TO STDOUT",
        "COPY (VALUES (1, 'x'), (2, NULL)) TO STDOUT",
    ]
    ruslo.execute("SET timezone = 'UTC'", *statements)
    with psycopg.connect(postgres.url, autocommit=True) as theirs, ruslo.connect() as ours:
        theirs.execute("SET timezone = 'UTC'")
        theirs.execute("DROP TABLE IF EXISTS c")
        for statement in statements:
            theirs.execute(statement)
        for query in queries:
            copied = []
            for connection in (theirs, ours):
                cursor = connection.cursor()
                with cursor.copy(query) as copy:
                    copied.append(b"".join(copy))
                copied.append(cursor.statusmessage)
            assert copied[2:] == copied[:2], query
        theirs.execute("DROP TABLE c")
    copied = ruslo.psql("COPY c (t, id) TO STDOUT")
    assert copied.returncode == 0 and "\t3\n" in copied.stdout, copied
