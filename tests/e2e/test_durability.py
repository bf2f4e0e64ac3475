"""Crashes at random moments, in a folder and in a bucket: what was seen or acknowledged stays.

`test_restart.py` has the simple form of most of this; here are load, chance and damage.
"""

import base64
import collections
import json
import random
import shutil
import signal
import threading
import time

import psycopg
import pytest
from services import Kafka, Ruslo, generate, wait_until
from services.redis import PASSWORD as REDIS_PASSWORD
from services.s3 import SECRET_KEY as S3_SECRET
from test_article import EVENTS, article_topic, counts_of, statements  # noqa: F401 a fixture
from watcher import Watcher

ARTICLE_SELECT = "SELECT event, count FROM events_statisics_mv"
EVERY_HOUR = ("serve", "--checkpoint-interval-ms", "3600000")


@pytest.fixture(params=["folder", "bucket"])
def stored(request, start_ruslo, authority):
    """A server that keeps its state in its folder, or in a bucket."""
    env = {"SSL_CERT_FILE": str(authority.ca)}
    if request.param == "folder":
        return start_ruslo(workers=2, env=env)
    s3, bucket = request.getfixturevalue("s3"), request.getfixturevalue("bucket")
    return start_ruslo(workers=2, env=env | s3.env(), store=f"s3://{bucket}/state")


def files(ruslo) -> dict[str, bytes]:
    """What the data folder holds, without the key, which nobody else may have."""
    everything = {str(path.relative_to(ruslo.data)): path for path in ruslo.data.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in everything.items() if name != "secret.key"}


def in_the_catalog(ruslo, name: str) -> bool:
    return (name,) in ruslo.rows("SELECT relname FROM pg_class UNION ALL SELECT name FROM ruslo.sinks")


def wait_for_checkpoint(ruslo):
    """Waits until a checkpoint holds all that is acknowledged now."""
    now = ruslo.value("SELECT now()")
    newest = "SELECT max(time) FROM ruslo.checkpoints"
    # Nothing that changes, no checkpoint.
    ruslo.execute("CREATE SCHEMA checkpoint_mark", "DROP SCHEMA checkpoint_mark")
    wait_until(lambda: ruslo.value(newest) >= now, 30, "a checkpoint")


# Statements ---------------------------------------------------------------------------------------

TYPES = """
    a boolean, b smallint, c int, d bigint, e real, f double precision, g numeric,
    h numeric(10,2), i varchar, j varchar(5), l bytea, m date, n time, o timestamp,
    p timestamptz, q interval, r jsonb, s int[], t varchar[], u struct<a int, b varchar>,
    v int[][], w timestamptz[], x numeric[]
"""
ROWS = [
    r"""true, 32767, 2147483647, 9223372036854775807, 1.5e-40, 'Infinity', 1.500, 2.5, 'ä€𝄞',
    'abcde', '\x00ff', '0044-03-15 BC', '23:59:59.999999', '2026-01-02 03:04:05.000001',
    '2026-01-02 03:04:05.678+00', '-1 month 2 days 03:00:00', '{"b": [1.50, null], "a": "x"}',
    '{1,NULL,3}', '{"a b",NULL,""}', ROW(1, 'x'), '{{1,2},{3,4}}', '{"2026-01-01 00:00:00+00"}',
    '{1.50,NaN}'""",
    r"""false, -32768, -2147483648, -9223372036854775808, 'NaN', -0.0, 'NaN', -0.01, E'\n\t''"\\',
    '', '\x', '9999-12-31', '00:00:00', '0001-01-01 00:00:00', '1969-12-31 23:59:59.999999+00',
    '100 years', 'null', '{}', '{}', ROW(NULL, NULL), NULL, '{NULL}', '{}'""",
    ", ".join(["NULL"] * 23),
]


def test_every_type_of_column(ruslo):
    ruslo.execute(
        f"CREATE TABLE keyed (id int PRIMARY KEY, {TYPES})",
        f"CREATE TABLE bag (id int, {TYPES})",
        *(f"INSERT INTO {table} VALUES ({id}, {row})"
          for table in ("keyed", "bag") for id, row in enumerate(ROWS + ROWS)),
        # A bag holds equal rows, and one of each goes with an update.
        "INSERT INTO bag SELECT * FROM bag",
        "UPDATE keyed SET c = 5, i = 'new' WHERE id >= 3",
        "UPDATE bag SET d = d + 1 WHERE id = 4",
        "DELETE FROM keyed WHERE id = 5",
        "DELETE FROM bag WHERE id = 5",
        "CREATE MATERIALIZED VIEW typed AS SELECT * FROM bag WHERE id <> 1",
        "CREATE MATERIALIZED VIEW grouped AS SELECT g, h, count(*), min(p), max(m) FROM bag"
        " GROUP BY g, h",
        "FLUSH",
    )  # fmt: skip
    names = ("keyed", "bag", "typed", "grouped")

    def shown() -> str:
        tables = [ruslo.psql(f"SELECT * FROM {name}", flags=("-At",)).stdout for name in names]
        described = ruslo.psql(*(f"\\d {name}" for name in names))
        assert described.returncode == 0, described.stderr
        return "\n".join([*("\n".join(sorted(t.splitlines())) for t in tables), described.stdout])

    before = shown()
    ruslo.restart()
    assert shown() == before
    wait_for_checkpoint(ruslo)
    ruslo.execute("INSERT INTO keyed (id) VALUES (50)", "DELETE FROM keyed WHERE id = 50")
    ruslo.restart()
    assert shown() == before


def test_what_a_session_was_when_it_created(ruslo, redis, source, topic):
    """Owner, schema and search path belong to the object; ids are never used again."""
    source("events", topic)
    alice = psycopg.connect(ruslo.dsn.replace("user=root", "user=alice"), autocommit=True)
    with alice as connection:
        for statement in (
            "CREATE SCHEMA app",
            "SET search_path TO app, public",
            "SET timezone TO 'Asia/Tokyo'",
            "CREATE TABLE t (id int PRIMARY KEY, at timestamptz)",
            "CREATE VIEW plain AS SELECT id, at::varchar AS text FROM t",
            "CREATE MATERIALIZED VIEW kept AS SELECT id, at::varchar AS text,"
            " date_trunc('day', at) AS day FROM t",
            "CREATE MATERIALIZED VIEW on_plain AS SELECT count(*) AS n FROM plain",
            "CREATE SINK out FROM kept WITH (connector='redis', primary_key='id',"
            f" redis.url='{redis.url}') FORMAT UPSERT ENCODE JSON",
            "INSERT INTO t VALUES (1, '2026-01-01 20:00:00+00')",
        ):
            connection.execute(statement)
    ruslo.execute("CREATE TABLE t (other varchar)", "CREATE VIEW public_t AS SELECT * FROM t")
    ruslo.wait_rows("SELECT id FROM app.kept", [(1,)])
    queries = [
        "\\d", "\\dn", "\\dv *.*", "\\dm *.*", "\\d app.t", "\\d app.kept", "\\d+ app.plain", "\\d t",
        "SELECT * FROM app.plain", "SELECT * FROM app.kept", "SELECT * FROM app.on_plain",
        "SHOW CREATE TABLE app.t", "SHOW CREATE VIEW app.plain",
        "SHOW CREATE MATERIALIZED VIEW app.kept", "SHOW CREATE SOURCE events",
        "SHOW CREATE SINK app.out", "SHOW SOURCES", "SHOW SINKS", "SHOW TABLES", "DESCRIBE app.kept",
        "SELECT relname, relkind, oid, relowner, pg_get_userbyid(relowner) FROM pg_class"
        " WHERE relname IN ('t', 'plain', 'kept', 'on_plain', 'out', 'events') ORDER BY oid",
    ]  # fmt: skip

    def shown() -> dict[str, str]:
        answers = {query: ruslo.psql(query) for query in queries}
        assert all(a.returncode == 0 for a in answers.values()), answers
        return {query: answer.stdout for query, answer in answers.items()}

    def oid(name: str) -> int:
        return ruslo.value("SELECT oid FROM pg_class WHERE relname = %s", (name,))

    before = shown()
    assert "alice" in before[queries[-1]] and "root" in before[queries[-1]]
    ruslo.execute("CREATE TABLE newest (id int)")
    newest = oid("newest")
    ruslo.execute("DROP TABLE newest")
    for checkpoint in (False, True):
        if checkpoint:
            wait_for_checkpoint(ruslo)
        ruslo.restart()
        assert shown() == before
    # Equal rows look equal, before and after.
    ruslo.execute("INSERT INTO app.t VALUES (2, '2026-01-01 20:00:00+00')")
    ruslo.wait_rows("SELECT count(*) FROM app.kept GROUP BY text, day", [(2,)])
    ruslo.wait_rows("SELECT count(*) FROM app.plain GROUP BY text", [(2,)])
    ruslo.execute("CREATE TABLE later (id int)")
    assert oid("later") > newest


def test_each_statement_is_there_after_a_kill(ruslo, redis, source, topic):
    """Every DDL statement is followed by a kill at once."""

    def there(*names: str):
        for name in ("t", "v", "m", "s", "k", "app_t"):
            assert in_the_catalog(ruslo, name) == (name in names), name

    def then_killed(statement: str, *names: str):
        ruslo.execute(statement)
        ruslo.restart()
        there(*names)

    then_killed("CREATE TABLE t (id int PRIMARY KEY)", "t")
    then_killed("CREATE VIEW v AS SELECT id FROM t", "t", "v")
    then_killed("CREATE OR REPLACE VIEW v AS SELECT id + 1 AS id FROM t", "t", "v")
    then_killed("CREATE MATERIALIZED VIEW m AS SELECT id FROM v", "t", "v", "m")
    then_killed("INSERT INTO t VALUES (1)", "t", "v", "m")
    assert ruslo.rows("SELECT * FROM m") == [(2,)]
    then_killed(
        "CREATE SINK k FROM m WITH (connector='redis', primary_key='id',"
        f" redis.url='{redis.url}') FORMAT UPSERT ENCODE TEMPLATE"
        " (key_format='{id}', value_format='{id}')",
        "t", "v", "m", "k",
    )  # fmt: skip
    wait_until(lambda: redis.contents() == {"2": "2"}, 30, "Redis equal to the view")
    source("s", topic)
    ruslo.restart()
    there("t", "v", "m", "k", "s")
    ruslo.execute("CREATE SCHEMA app")
    then_killed("CREATE TABLE app.app_t (id int)", "t", "v", "m", "k", "s", "app_t")
    then_killed("DROP SINK k", "t", "v", "m", "s", "app_t")
    then_killed("DROP MATERIALIZED VIEW m", "t", "v", "s", "app_t")
    then_killed("DROP SCHEMA app CASCADE", "t", "v", "s")
    then_killed("DROP SOURCE s", "t", "v")
    then_killed("DROP TABLE t CASCADE")
    then_killed("CREATE TABLE t (other varchar)", "t")
    assert ruslo.rows("SELECT other FROM t") == []


class Client:
    """Does random statements to objects of its own, and knows what may be there after a crash."""

    def __init__(self, ruslo, number: int):
        self.ruslo = ruslo
        self.name = f"c{number}"
        self.rng = random.Random(number)
        self.acknowledged = 0
        # The rows, None without the table; and whether there is a view.
        self.state: tuple[dict | None, bool] = (None, False)
        self.possible = [self.state]

    def choose(self) -> tuple[str, tuple]:
        rows, view = self.state
        name, rng = self.name, self.rng
        if rows is None:
            return f"CREATE TABLE {name} (id int PRIMARY KEY, v int)", ({}, False)
        id, v = rng.randrange(50), rng.randrange(1000)
        kind = rng.random()
        if kind < 0.02:
            return f"DROP TABLE {name} CASCADE", (None, False)
        if kind < 0.08 and not view:
            query = f"SELECT count(*) AS n, sum(v) AS v FROM {name}"
            return f"CREATE MATERIALIZED VIEW {name}_v AS {query}", (rows, True)
        if kind < 0.08:
            return f"DROP MATERIALIZED VIEW {name}_v", (rows, False)
        if kind < 0.5:
            added = {id: v, id + 100: v}
            values = ", ".join(f"({id}, {v})" for id, v in added.items() if id not in rows)
            if values:
                return f"INSERT INTO {name} VALUES {values}", (added | rows, view)
        if kind < 0.8:
            changed = {i: w + 1 if i < id else w for i, w in rows.items()}
            return f"UPDATE {name} SET v = v + 1 WHERE id < {id}", (changed, view)
        left = {i: w for i, w in rows.items() if i % 10 != id % 10}
        return f"DELETE FROM {name} WHERE id % 10 = {id % 10}", (left, view)

    def run(self):
        """Until the server is gone."""
        try:
            with self.ruslo.connect() as connection:
                while True:
                    statement, after = self.choose()
                    self.possible = [self.state, after]
                    connection.execute(statement)
                    self.acknowledged += 1
                    self.state = after
        except psycopg.OperationalError:
            pass

    def check(self):
        view = in_the_catalog(self.ruslo, f"{self.name}_v")
        rows = None
        if in_the_catalog(self.ruslo, self.name):
            listed = self.ruslo.rows(f"SELECT id, v FROM {self.name}")
            rows = dict(listed)
            assert len(rows) == len(listed)
        assert (rows, view) in self.possible
        if view:
            total = sum(rows.values()) if rows else None
            assert self.ruslo.rows(f"SELECT * FROM {self.name}_v") == [(len(rows), total)]
        self.state = (rows, view)


def test_acknowledged_statements_of_many_clients(stored):
    clients = [Client(stored, number) for number in range(4)]
    rng = random.Random(3)
    for _ in range(5):
        threads = [threading.Thread(target=client.run) for client in clients]
        for thread in threads:
            thread.start()
        time.sleep(rng.uniform(0.1, 2))
        stored.restart()
        for thread in threads:
            thread.join()
        for client in clients:
            client.check()
    assert sum(client.acknowledged for client in clients) > 100


# The article ---------------------------------------------------------------------------------------


class Rising:
    """Asserts that no number it is shown falls, and that none goes away."""

    def __init__(self):
        self.highest: dict[str, int] = {}

    def see(self, numbers: dict[str, int]):
        for name, highest in self.highest.items():
            assert numbers.get(name, -1) >= highest, f"{name}: {numbers} after {self.highest}"
        self.highest = numbers


def test_article_over_kills(stored, kafka, redis, authority, article_topic):  # noqa: F811
    *creates, _ = statements(kafka, redis.url)
    stored.execute(*creates)
    start = kafka.end_offsets(article_topic)
    total = 60_000
    sending = generate(
        kafka.address("SASL_SSL"),
        article_topic,
        count=total,
        rate=4000,
        properties=kafka.login(),
        env={"SSL_CERT_FILE": str(authority.ca)},
        wait=False,
    )
    in_view, in_redis, summed = Rising(), Rising(), Rising()

    def look_at_view(connection):
        in_view.see(dict(connection.execute(ARTICLE_SELECT).fetchall()))
        (count,) = connection.execute("SELECT sum(count) FROM events_statisics_mv").fetchone()
        summed.see({"sum": int(count or 0)})

    def look_at_redis(client):
        values = zip(EVENTS, client.mget(EVENTS), strict=True)
        in_redis.see({event: int(value) for event, value in values if value is not None})

    rng = random.Random(5)
    with Watcher(stored.connect, look_at_view) as view, Watcher(redis.client, look_at_redis):
        for _ in range(5):
            time.sleep(rng.uniform(0.3, 2))
            stored.restart()
        out, err = sending.communicate(timeout=120)
        assert sending.returncode == 0, out + err
        counts = counts_of(kafka.payloads(article_topic, start))
        assert sum(counts.values()) == total
        stored.wait_rows(ARTICLE_SELECT, list(counts.items()), timeout_s=60)
        wanted = {event: str(count) for event, count in counts.items()}
        wait_until(lambda: redis.contents() == wanted, 30, "Redis equal to the view")
    assert view.looks > 20
    # And once more, when nothing is new.
    stored.restart()
    assert sorted(stored.rows(ARTICLE_SELECT)) == sorted(counts.items())


def test_latest_that_was_never_read(ruslo, kafka, topic, source):
    """It begins where the topic ended at CREATE SOURCE, whatever came while no server ran."""
    kafka.produce(topic, [{"event": "before"}] * 10)
    source("s", topic, scan__startup__mode="latest")
    ruslo.kill()
    kafka.produce(topic, [{"event": "while it was down"}] * 5)
    # A new partition is read from its start.
    kafka.add_partitions(topic, 3)
    kafka.produce(topic, [{"event": "new partition"}] * 3, partition=2)
    ruslo.start()
    kafka.produce(topic, [{"event": "after"}] * 2)
    create = "AS SELECT event, count(*) AS n FROM s GROUP BY event"
    ruslo.execute(f"CREATE MATERIALIZED VIEW v {create}")
    expected = [("while it was down", 5), ("new partition", 3), ("after", 2)]
    ruslo.wait_rows("SELECT * FROM v", expected)
    ruslo.kill()
    kafka.add_partitions(topic, 4)
    kafka.produce(topic, [{"event": "after"}] * 4, partition=3)
    ruslo.start()
    expected[2] = ("after", 6)
    ruslo.wait_rows("SELECT * FROM v", expected)
    ruslo.execute(f"CREATE MATERIALIZED VIEW w {create}")
    ruslo.wait_rows("SELECT * FROM w", expected)


def test_partitions_added_under_load(ruslo, kafka, topic, source):
    source("s", topic)
    ruslo.execute("CREATE MATERIALIZED VIEW v AS SELECT event, count(*) AS n FROM s GROUP BY event")
    total = Rising()

    def look(connection):
        (count,) = connection.execute("SELECT sum(n) FROM v").fetchone()
        total.see({"sum": int(count or 0)})

    rng = random.Random(9)
    with Watcher(ruslo.connect, look):
        for partitions in (3, 5, 8):
            sending = generate(
                kafka.address(), topic, count=6000, rate=3000, seed=partitions, wait=False
            )
            time.sleep(rng.uniform(0, 1))
            kafka.add_partitions(topic, partitions)
            kafka.produce(topic, [{"event": "last"}] * 100, partition=partitions - 1)
            time.sleep(rng.uniform(0, 1))
            ruslo.restart()
            out, err = sending.communicate(timeout=60)
            assert sending.returncode == 0, out + err
        expected = list(counts_of(kafka.payloads(topic)).items())
        ruslo.wait_rows("SELECT * FROM v", expected, timeout_s=60)
    assert sum(n for _, n in expected) == 18_300


def test_messages_that_wait_at_the_start_count_once(start_ruslo, kafka, topic):
    """They come while the times before are gone through again, and belong to none of these."""
    kafka.add_partitions(topic, 4)
    ruslo = start_ruslo(workers=2, arguments=EVERY_HOUR)
    ruslo.execute(
        "CREATE SOURCE s (event varchar, page varchar) WITH (connector='kafka',"
        f" topic='{topic}', properties.bootstrap.server='{kafka.address()}')"
        " FORMAT PLAIN ENCODE JSON",
        "CREATE TABLE t (id int)",
        "CREATE MATERIALIZED VIEW v AS SELECT count(*) AS n FROM s",
        # Enough to do for each time.
        *(
            f"CREATE MATERIALIZED VIEW w{number} AS SELECT s.page, t.id FROM s LEFT JOIN t ON"
            f" length(s.page) % 50 = t.id % 50 AND t.id < {number}"
            for number in range(10)
        ),
    )
    total = 0
    for _ in range(3):
        generate(kafka.address(), topic, count=1000)
        total += 1000
        with ruslo.connect() as connection:
            # Each is a time to be gone through again.
            for id in range(100):
                connection.execute(f"INSERT INTO t VALUES ({id})")
        ruslo.wait_rows("SELECT n FROM v", [(total,)])
        ruslo.kill()
        for partition in range(4):
            kafka.produce(topic, [{"event": "a"}] * 50, partition=partition)
        total += 200
        ruslo.start()
        ruslo.wait_rows("SELECT n FROM v", [(total,)])
        # The checkpoint of the end knows that they were read.
        assert ruslo.stop() == 0
        ruslo.start()
        kafka.produce(topic, [{"event": "a"}])
        total += 1
        wait_until(lambda: ruslo.value("SELECT n FROM v") >= total, 30, "the last message")
        assert ruslo.value("SELECT n FROM v") == total


def test_a_view_that_hydrates_at_the_kill(ruslo, kafka, topic, source):
    """Afterwards it is not there, or it is there as a whole."""
    total = 200_000
    generate(kafka.address(), topic, count=total)
    source("s", topic)

    def create(name: str):
        ruslo.execute(
            f"CREATE MATERIALIZED VIEW {name} AS SELECT event, count(*) AS n FROM s GROUP BY event"
        )

    create("whole")
    ruslo.wait_rows("SELECT sum(n)::bigint FROM whole", [(total,)])
    began = time.monotonic()
    create("another")
    seconds = time.monotonic() - began
    unfinished = 0
    for number, share in enumerate((0.05, 0.3, 0.6, 0.9, 1.0)):
        name = f"v{number}"
        acknowledged = []

        def create_it(name=name, acknowledged=acknowledged):
            try:
                create(name)
                acknowledged.append(name)
            except psycopg.OperationalError:
                pass

        creating = threading.Thread(target=create_it)
        creating.start()
        time.sleep(seconds * share)
        ruslo.restart()
        creating.join()
        if not in_the_catalog(ruslo, name):
            assert not acknowledged
            unfinished += 1
            create(name)
        assert ruslo.value(f"SELECT sum(n)::bigint FROM {name}") == total
    assert unfinished > 0
    for name in ("whole", "another"):
        assert ruslo.value(f"SELECT sum(n)::bigint FROM {name}") == total


# Views ---------------------------------------------------------------------------------------------

COLUMNS = "id int, grp int, i int, f double precision, p numeric, at timestamp, s varchar"
VIEWS = {
    "plain": "SELECT id, grp, i, f, p, at, s FROM a",
    "totals": "SELECT count(*) AS n, count(i) AS i, sum(i) AS s, avg(p) AS p FROM a",
    "floats": "SELECT grp, sum(f) AS f, avg(f) AS g FROM a GROUP BY grp",
    "numerics": "SELECT grp, sum(p) AS p, avg(p) AS q, min(p) AS r, max(p) AS t FROM a GROUP BY grp",
    "extremes": "SELECT s, min(at) AS first, max(at) AS last, min(f) AS f, max(s) AS t FROM a"
    " GROUP BY s",
    "filtered": "SELECT grp, count(*) FILTER (WHERE i > 500) AS high, bool_or(i = 7) AS seven,"
    " count(DISTINCT s) AS s, count(DISTINCT p) AS p FROM a GROUP BY grp",
    "having": "SELECT i, count(*) AS n FROM a GROUP BY i HAVING count(*) > 2",
    "per_hour": "SELECT date_trunc('hour', at) AS hour, count(*) AS n, sum(p) AS p FROM a GROUP BY 1",
    "joined": "SELECT a.id, a.i, b.s FROM a JOIN b ON a.id = b.id",
    "left_joined": "SELECT a.id, b.i, b.p FROM a LEFT JOIN b ON a.id = b.id AND b.grp = 1",
    "right_joined": "SELECT a.id, b.id AS other FROM a RIGHT JOIN b ON a.id = b.id AND a.grp > 2",
    "full_joined": "SELECT a.s, b.s AS t FROM a FULL JOIN b ON a.id = b.id",
    "joined_thrice": "SELECT t.name, count(*) AS n FROM a JOIN b ON a.id = b.id JOIN t ON"
    " t.grp = b.grp GROUP BY t.name",
    "self_joined": "SELECT x.id, y.id AS other FROM a AS x JOIN a AS y ON x.i = y.i AND x.id < y.id",
    "together": "SELECT grp, s FROM a UNION SELECT grp, s FROM b",
    "all_together": "SELECT id, 'a' AS topic FROM a UNION ALL SELECT id, 'b' FROM b",
    "only_in_a": "SELECT grp, i FROM a EXCEPT SELECT grp, i FROM b",
    "in_both": "SELECT i FROM a INTERSECT SELECT i FROM b",
    "above": "SELECT id FROM a WHERE p > (SELECT avg(p) FROM b WHERE p <> 'NaN')",
    "without": "SELECT s, count(*) AS n FROM a WHERE NOT EXISTS (SELECT FROM b WHERE b.id = a.id)"
    " GROUP BY s",
    "of_views": "SELECT high, count(*) AS n FROM filtered GROUP BY high",
    "of_views_joined": "SELECT f.grp, f.high, n.p FROM filtered AS f JOIN numerics AS n"
    " ON f.grp = n.grp",
    "failing": "SELECT id, 1000 / (i % 50) AS q FROM a WHERE i % 5 = 0",
    "failing_joined": "SELECT a.id, 10 / (a.i - b.i) AS q FROM a JOIN b ON a.grp = b.i",
    "failing_groups": "SELECT grp, sum(1 / (i % 9)) AS n FROM a GROUP BY grp",
}
TABLE = ["CREATE TABLE t (grp int PRIMARY KEY, name varchar)", "CREATE TABLE marks (id int)"]
WRITES = [f"INSERT INTO t VALUES ({i}, 'name {i % 3}')" for i in range(6)]
WRITES += ["UPDATE t SET name = 'new' WHERE grp < 2", "DELETE FROM t WHERE grp = 4"]


def messages(rng: random.Random, ids: range) -> list:
    """Mostly good ones: some fields and whole messages cannot be decoded."""

    def message(id: int):
        if rng.random() < 0.01:
            return rng.choice(["{broken", "7", "", '{"id": 1', '[{"id": 9, "grp": 1}, {"id": "x"}]'])
        maybe = lambda value: value if rng.random() > 0.05 else None  # noqa: E731
        fields = {
            "id": id,
            "grp": rng.randrange(5),
            "i": maybe(rng.randrange(1000)),
            # Sums of these are exact in every order.
            "f": maybe(rng.randrange(-4000, 4000) / 4),
            "p": maybe(rng.choice(["NaN", "1.0", "-3.25", f"{rng.uniform(-99, 99):.3f}"])),
            "at": maybe(f"2026-01-{rng.randrange(1, 3):02} {rng.randrange(24):02}:00:00.125"),
            "s": maybe(rng.choice(["red", "green", "", "ä"])),
        }
        if rng.random() < 0.01:
            fields["i"] = "not a number"
        return fields

    return [message(id) for id in ids]


def contents(ruslo) -> dict[str, list]:
    found = {name: ruslo.rows(f"SELECT * FROM {name}") for name in [*VIEWS, "t"]}
    found["expression errors"] = ruslo.rows(
        "SELECT view, expression, message, rows FROM ruslo.expression_errors"
    )
    found["decode errors"] = ruslo.rows(
        'SELECT source, "partition", "offset", "column", reason, payload FROM ruslo.decode_errors'
    )
    found["how many decode errors"] = ruslo.rows("SELECT name, decode_errors FROM ruslo.sources")
    return {name: sorted(rows, key=repr) for name, rows in found.items()}


def assert_same(ruslo, expected: dict[str, list]):
    wrong = []
    for name, rows in contents(ruslo).items():
        found, wanted = (
            collections.Counter(repr(row) for row in rows) for rows in (rows, expected[name])
        )
        for what, rows in (("too much", found - wanted), ("missing", wanted - found)):
            if rows:
                wrong.append(f"{name}: {len(rows)} {what}, as {rows.most_common(3)}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("checkpoints_ms", [100, 1000, 3_600_000])
def test_views_killed_while_events_flow(start_ruslo, kafka, topic, checkpoints_ms):
    """In the end a server that was killed holds what one holds that reads all of it at once."""
    topics = {"a": topic, "b": kafka.create_topic(f"{topic}-b", 3)}
    creates = TABLE + [
        f"CREATE SOURCE {name} ({COLUMNS}) WITH (connector='kafka', topic='{topic}',"
        f" properties.bootstrap.server='{kafka.address()}') FORMAT PLAIN ENCODE JSON"
        for name, topic in topics.items()
    ]
    creates += [f"CREATE MATERIALIZED VIEW {name} AS {query}" for name, query in VIEWS.items()]
    ruslo = start_ruslo(
        workers=2, arguments=("serve", "--checkpoint-interval-ms", str(checkpoints_ms))
    )
    ruslo.execute(*creates)
    steps, size = 12, 150
    failure = []

    def produce():
        try:
            rng = random.Random(13)
            for step in range(steps):
                ids = range(step * size, (step + 1) * size)
                kafka.produce(topics["a"], messages(rng, ids))
                kafka.produce(topics["b"], messages(rng, ids))
        except Exception as error:  # noqa: BLE001 the test raises it
            failure.append(error)

    producing = threading.Thread(target=produce)
    producing.start()
    rng = random.Random(checkpoints_ms)
    for statement in WRITES:
        time.sleep(rng.uniform(0, 0.6))
        ruslo.execute(statement)
        if rng.random() < 0.6:
            # State finds its way also to another number of workers.
            ruslo.workers = rng.choice([1, 2, 3])
            ruslo.restart()
    producing.join()
    assert not failure, failure

    def all_read(server) -> bool:
        ends = sum(sum(kafka.end_offsets(name).values()) for name in topics.values())
        read = server.value("SELECT sum(next_offset) FROM ruslo.source_partitions")
        # A session sees its own row at a time that holds all that was read before.
        server.execute("INSERT INTO marks VALUES (1)", "FLUSH")
        return read == ends

    whole = start_ruslo(workers=1)
    whole.execute(*creates, *WRITES)
    for server in (ruslo, whole):
        wait_until(lambda server=server: all_read(server), 60, "everything read")
    expected = contents(whole)
    assert expected["expression errors"] and len(expected["decode errors"]) > 20
    assert_same(ruslo, expected)
    ruslo.restart()
    assert_same(ruslo, expected)


# Redis ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [1, 2])
def test_upsert_over_outages_and_kills(ruslo, redis, seed):
    """Rows come and go while Redis, the server or both are away: in the end Redis has the view."""
    ruslo.execute(
        "CREATE TABLE t (id int PRIMARY KEY, v int)",
        "CREATE MATERIALIZED VIEW m AS SELECT id, sum(v) AS v FROM t GROUP BY id",
        "CREATE SINK k FROM m WITH (connector='redis', primary_key='id',"
        f" redis.url='{redis.url}') FORMAT UPSERT ENCODE TEMPLATE"
        " (key_format='{id}', value_format='{v}')",
        # Over a table itself, with keys that rows share.
        "CREATE SINK l FROM t WITH (connector='redis', primary_key='v',"
        f" redis.url='{redis.url}') FORMAT UPSERT ENCODE TEMPLATE"
        " (key_format='v{v}', value_format='{id}')",
    )
    rng = random.Random(seed)
    model: dict[int, int] = {}

    def write():
        id, v = rng.randrange(200), rng.randrange(50)
        if id in model and rng.random() < 0.7:
            ruslo.execute(f"DELETE FROM t WHERE id = {id}")
            del model[id]
        elif id in model:
            ruslo.execute(f"UPDATE t SET v = {v} WHERE id = {id}")
            model[id] = v
        else:
            ruslo.execute(f"INSERT INTO t VALUES ({id}, {v})")
            model[id] = v

    def expected() -> dict[str, str]:
        # The greatest row of a key is written.
        shared = {f"v{v}": str(id) for id, v in sorted(model.items())}
        return {str(id): str(v) for id, v in model.items()} | shared

    for round in range(8):
        for _ in range(30):
            write()
        if rng.random() < 0.3:
            time.sleep(rng.uniform(0, 1.5))
        redis_first = rng.random() < 0.5
        if redis_first:
            redis.stop(rng.choice([signal.SIGTERM, signal.SIGKILL]))
            for _ in range(rng.randrange(20)):
                write()
        ruslo.kill()
        if redis_first:
            redis.start()
        ruslo.start()
        assert dict(ruslo.rows("SELECT * FROM t")) == model
        for _ in range(rng.randrange(3)):
            write()
        wait_until(
            lambda: redis.contents() == expected(), 30, f"Redis equal to the view, round {round}"
        )


def test_a_sink_says_why_it_waits(ruslo, redis, forgetful_redis):
    """Another sink does not wait for it, also at the start of the server."""
    forgetful_redis.stop()
    forgetful_redis.start()
    ruslo.execute("CREATE TABLE t (id int PRIMARY KEY)")
    for name, server in (("up", redis), ("down", forgetful_redis)):
        ruslo.execute(
            f"CREATE SINK {name} FROM t WITH (connector='redis', primary_key='id',"
            f" redis.url='{server.url}') FORMAT UPSERT ENCODE TEMPLATE"
            " (key_format='{id}', value_format='{id}')"
        )
    ruslo.execute("INSERT INTO t VALUES (1)")
    wait_until(lambda: forgetful_redis.contents() == {"1": "1"})
    ruslo.kill()
    forgetful_redis.stop()
    ruslo.start()
    ruslo.execute("INSERT INTO t VALUES (2)")
    wait_until(lambda: redis.contents() == {"1": "1", "2": "2"}, 30, "the sink that can write")

    def state(name: str) -> tuple:
        return ruslo.rows("SELECT state, error FROM ruslo.sinks WHERE name = %s", (name,))[0]

    wait_until(lambda: state("down")[0] != "running", 30, "the outage visible")
    wait_until(lambda: str(forgetful_redis.port) in state("down")[1], 30, "the address named")
    assert state("up") == ("running", None)
    forgetful_redis.start()
    # It came back empty.
    wait_until(lambda: forgetful_redis.contents() == {"1": "1", "2": "2"}, 30, "all of the table")
    wait_until(lambda: state("down") == ("running", None), 30, "the recovery visible")


# Kafka ---------------------------------------------------------------------------------------------


def test_kafka_away_at_the_start(ruslo, kafka, topic, source):
    source("s", topic)
    ruslo.execute("CREATE MATERIALIZED VIEW v AS SELECT event, count(*) AS n FROM s GROUP BY event")
    kafka.produce(topic, [{"event": "a"}] * 10)
    ruslo.wait_rows("SELECT * FROM v", [("a", 10)])
    # More than the last checkpoint has, so that the topic must be read again.
    wait_for_checkpoint(ruslo)
    kafka.produce(topic, [{"event": "a"}] * 10)
    ruslo.wait_rows("SELECT * FROM v", [("a", 20)])
    ruslo.kill()
    kafka.stop()
    try:
        ruslo.start(wait=False)
        wait_until(lambda: ruslo.http("/healthz")[0] == 503, 20, "503 of /healthz")
        wait_until(lambda: "recovering" in ruslo.http("/healthz")[1], 20, "the wait in /healthz")
        waiting = f"source s: {kafka.address()}"
        wait_until(lambda: waiting in ruslo.http("/healthz")[1], 30, "the source in /healthz")
        wait_until(lambda: waiting in ruslo.log(), 30, "the source in the log")
        with pytest.raises(psycopg.OperationalError) as refused:
            ruslo.connect()
        assert "recovering" in str(refused.value)
        # It can be ended while it waits.
        assert ruslo.stop() == 0
        ruslo.start(wait=False)
        wait_until(lambda: "recovering" in ruslo.http("/healthz")[1], 20, "the wait in /healthz")
    finally:
        kafka.start()
    ruslo.wait_ready()
    ruslo.wait_rows("SELECT * FROM v", [("a", 20)])
    kafka.produce(topic, [{"event": "a"}] * 5)
    ruslo.wait_rows("SELECT * FROM v", [("a", 25)])


# What is stored ------------------------------------------------------------------------------------


def test_no_file_shows_a_secret(request, stored, kafka, topic, redis_acl):
    stored.execute(
        "CREATE SOURCE s (event varchar) WITH (connector='kafka', "
        f"topic='{topic}', properties.bootstrap.server='{kafka.address('SASL_SSL')}',"
        " properties.security.protocol='SASL_SSL', properties.sasl.mechanism='SCRAM-SHA-256',"
        f" properties.sasl.username='{kafka.username}',"
        f" properties.sasl.password='{kafka.password}') FORMAT PLAIN ENCODE JSON"
        f" /* {kafka.password} */",
        "CREATE MATERIALIZED VIEW v AS SELECT event, count(*) AS n FROM s GROUP BY event",
        "CREATE SINK k FROM v WITH (connector='redis', primary_key='event',"
        f" redis.url='{redis_acl.url}') FORMAT UPSERT ENCODE JSON",
        "CREATE SINK gone FROM v WITH (connector='redis', primary_key='event',"
        f" redis.url='{redis_acl.url}') FORMAT UPSERT ENCODE JSON",
    )
    secrets = [text.encode() for text in (Kafka.password, REDIS_PASSWORD, S3_SECRET)]
    # At every offset modulo 3 a text has another form in base64, all but its ends the same.
    encoded = [base64.b64encode(b"x" * i + secret)[4:-4] for secret in secrets for i in range(3)]

    def look():
        stored_bytes = {f"folder: {name}": content for name, content in files(stored).items()}
        if stored.store:
            s3, bucket = request.getfixturevalue("s3"), request.getfixturevalue("bucket")
            stored_bytes |= {f"bucket: {name}": c for name, c in s3.contents(bucket).items()}
        stored_bytes["log"] = stored.log().encode()
        assert len(stored_bytes) > 2
        for place, content in stored_bytes.items():
            for secret in secrets + encoded:
                assert secret not in content, f"{place} shows {secret}"

    # In the log of times only, in checkpoints, after a drop, and as a second server writes it.
    look()
    kafka.produce(topic, [{"event": "a"}] * 3)
    stored.wait_rows("SELECT * FROM v", [("a", 3)])
    wait_for_checkpoint(stored)
    look()
    stored.execute("DROP SINK gone")
    stored.restart()
    stored.wait_rows("SELECT * FROM v", [("a", 3)])
    wait_for_checkpoint(stored)
    look()
    assert (stored.data / "secret.key").stat().st_mode & 0o777 == 0o600


DAMAGES = {
    "flipped": lambda content: content[: len(content) // 2]
    + bytes([content[len(content) // 2] ^ 1])
    + content[len(content) // 2 + 1 :],
    "halved": lambda content: content[: len(content) // 2],
    "emptied": lambda _: b"",
    "zeroed": lambda content: bytes(len(content)),
    "removed": lambda _: None,
}


@pytest.fixture
def damaged(start_ruslo, tmp_path):
    """A killed server with a checkpoint and a log after it; `start(kind, damage)` plays a damage."""
    ruslo = start_ruslo(arguments=EVERY_HOUR)
    ruslo.execute(
        "CREATE TABLE t (id int, text varchar)",
        "CREATE MATERIALIZED VIEW m AS SELECT count(*) AS n FROM t",
        "INSERT INTO t SELECT i, 'in the checkpoint' FROM generate_series(1, 1000) AS g(i)",
    )
    # The end of a server makes a checkpoint.
    assert ruslo.stop() == 0
    ruslo.start()
    for id in range(1001, 1031):
        ruslo.execute(f"INSERT INTO t VALUES ({id}, 'in the log')")
    ruslo.kill()
    shutil.copytree(ruslo.data, tmp_path / "whole")

    def restore():
        shutil.rmtree(ruslo.data)
        shutil.copytree(tmp_path / "whole", ruslo.data)

    def start(path, damage: str) -> str | None:
        """The refusal; None if the server comes up."""
        restore()
        path = ruslo.data / path.relative_to(tmp_path / "whole")
        content = DAMAGES[damage](path.read_bytes())
        path.unlink()
        if content is not None:
            path.write_bytes(content)
        ruslo.log_path.unlink()
        try:
            ruslo.start()
        except RuntimeError as error:
            return str(error)
        return None

    yield ruslo, tmp_path / "whole", start
    restore()
    ruslo.start()
    assert ruslo.value("SELECT count(*) FROM t") == 1030
    assert ruslo.rows("SELECT n FROM m") == [(1030,)]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_manifest_is_refused(damaged, damage):
    _, whole, start = damaged
    newest = max((whole / "manifests").iterdir())
    refusal = start(newest, damage)
    assert refusal, "the server came up"
    assert "panicked" not in refusal
    # One that is away has no name; then the log says that it begins too late.
    assert newest.name in refusal or damage == "removed", refusal


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_run_is_refused(damaged, damage):
    """Nobody gets a part of the data for all of it."""
    _, whole, start = damaged
    manifest = json.loads(max((whole / "manifests").iterdir()).read_text())["body"]
    runs = {run["file"] for stored in manifest["collections"] for run in stored["runs"]}
    assert runs
    refusals = {run: start(whole / run, damage) for run in runs}
    for run, refusal in refusals.items():
        assert refusal, f"{run}: the server came up"
        assert "panicked" not in refusal
    for run, refusal in refusals.items():
        assert run.rpartition("/")[2] in refusal, refusal


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_log_is_refused_or_ends_earlier(damaged, damage):
    ruslo, whole, start = damaged
    for path in sorted((whole / "log").iterdir()):
        refusal = start(path, damage)
        if refusal:
            assert "panicked" not in refusal
            assert path.name in refusal or damage == "removed", refusal
            continue
        # What a cut takes away are the last rows.
        ids = sorted(id for (id,) in ruslo.rows("SELECT id FROM t"))
        assert ids == list(range(1, len(ids) + 1)) and len(ids) >= 1000
        assert ruslo.rows("SELECT n FROM m") == [(len(ids),)]
        assert damage in ("halved", "emptied", "zeroed"), f"{path.name} {damage} went unnoticed"
        assert len(ids) == 1030 or path.name in ruslo.log(), "a cut that is not in the log"
        ruslo.kill()


def test_every_cut_of_the_log_is_a_prefix(damaged):
    """As a crash leaves it: the log ends anywhere."""
    ruslo, whole, start = damaged
    path = max((whole / "log").iterdir(), key=lambda path: path.stat().st_size)
    size = path.stat().st_size
    rng = random.Random(17)
    seen = set()
    for end in sorted(rng.randrange(100, size) for _ in range(8)):
        DAMAGES["cut"] = lambda content, end=end: content[:end]
        try:
            assert start(path, "cut") is None
        finally:
            del DAMAGES["cut"]
        ids = sorted(id for (id,) in ruslo.rows("SELECT id FROM t"))
        assert ids == list(range(1, len(ids) + 1)) and len(ids) >= 1000
        assert ruslo.rows("SELECT n FROM m") == [(len(ids),)]
        # And it goes on from there.
        ruslo.execute("INSERT INTO t VALUES (0, 'after the cut')")
        ruslo.restart()
        assert ruslo.rows("SELECT n FROM m") == [(len(ids) + 1,)]
        ruslo.kill()
        seen.add(len(ids))
    assert len(seen) > 2


def test_the_end_of_a_server_is_a_checkpoint(start_ruslo, kafka, topic, authority):
    """SIGTERM: everything is there again, and nothing has to be read from Kafka again."""
    ruslo = start_ruslo(workers=2, arguments=EVERY_HOUR)
    ruslo.execute(
        f"CREATE SOURCE s (event varchar) WITH (connector='kafka', topic='{topic}',"
        f" properties.bootstrap.server='{kafka.address()}') FORMAT PLAIN ENCODE JSON",
        "CREATE MATERIALIZED VIEW v AS SELECT event, count(*) AS n FROM s GROUP BY event",
        "CREATE TABLE t (id int PRIMARY KEY)",
        "INSERT INTO t SELECT i FROM generate_series(1, 1000) AS g(i)",
        "DELETE FROM t WHERE id % 2 = 0",
        "CREATE MATERIALIZED VIEW m AS SELECT count(*) AS n FROM t",
    )
    generate(kafka.address(), topic, count=5000)
    ruslo.wait_rows("SELECT sum(n)::bigint FROM v", [(5000,)])
    counts = sorted(ruslo.rows("SELECT * FROM v"))
    for _ in range(2):
        assert ruslo.stop() == 0
        newest = max((ruslo.data / "manifests").iterdir())
        metadata = json.loads(newest.read_text())["body"]["metadata"]
        (bound,) = metadata["bound"].values()
        # A partition that no message went to may have no offset.
        ends = {p: end for p, end in kafka.end_offsets(topic).items() if end}
        assert {int(p): next for p, next in bound.items() if next} == ends
        ruslo.start()
        assert sorted(ruslo.rows("SELECT * FROM v")) == counts
        assert ruslo.rows("SELECT n FROM m") == [(500,)]


def test_a_restart_reads_only_what_no_checkpoint_has(ruslo, kafka, topic, source):
    """Also when the topic has forgotten what the checkpoint holds."""
    source("s", topic)
    ruslo.execute("CREATE MATERIALIZED VIEW v AS SELECT event, count(*) AS n FROM s GROUP BY event")
    kafka.produce(topic, [{"event": "a"}] * 1000)
    ruslo.wait_rows("SELECT * FROM v", [("a", 1000)])
    wait_for_checkpoint(ruslo)
    kafka.delete_records(topic, kafka.end_offsets(topic))
    kafka.produce(topic, [{"event": "a"}] * 10)
    ruslo.wait_rows("SELECT * FROM v", [("a", 1010)])
    ruslo.restart()
    assert ruslo.rows("SELECT * FROM v") == [("a", 1010)]


def test_a_topic_that_has_lost_what_no_checkpoint_holds(start_ruslo, kafka, topic):
    """Messages deleted before a checkpoint had them are gone: the source says so, the rest goes on."""
    ruslo = start_ruslo(arguments=EVERY_HOUR)
    columns = "(event varchar) WITH (connector='kafka',"
    address = f"properties.bootstrap.server='{kafka.address()}') FORMAT PLAIN ENCODE JSON"
    view = "CREATE MATERIALIZED VIEW v AS SELECT event, count(*) AS n FROM s GROUP BY event"
    ruslo.execute(
        f"CREATE SOURCE s {columns} topic='{topic}', {address}",
        view,
        "CREATE TABLE t (id int)",
        "CREATE MATERIALIZED VIEW other AS SELECT count(*) AS n FROM t",
        "INSERT INTO t VALUES (1)",
    )
    kafka.produce(topic, [{"event": "a"}] * 1000)
    ruslo.wait_rows("SELECT * FROM v", [("a", 1000)])
    ruslo.kill()
    ends = kafka.end_offsets(topic)
    kafka.delete_records(topic, ends)
    ruslo.start()
    assert ruslo.rows("SELECT n FROM other") == [(1,)]
    state = "SELECT state, detail FROM ruslo.sources WHERE name = 's'"
    wait_until(lambda: ruslo.rows(state)[0][0] == "data_lost", 30, "the state of the source")
    lost = [f"partition {p}: offsets 0 to {end} were not read" for p, end in ends.items()]
    assert all(gap in ruslo.rows(state)[0][1] and gap in ruslo.log() for gap in lost)
    ruslo.execute("INSERT INTO t VALUES (2)")
    kafka.produce(topic, [{"event": "a"}] * 7)
    ruslo.wait_rows("SELECT * FROM v", [("a", 7)])
    ruslo.restart()
    assert ruslo.rows("SELECT * FROM v") == [("a", 7)]
    assert ruslo.rows("SELECT n FROM other") == [(2,)]


# Two servers ---------------------------------------------------------------------------------------


def test_of_two_servers_started_at_once_one_has_the_folder(start_ruslo):
    ruslo = start_ruslo()
    ruslo.execute("CREATE TABLE t (id int)")
    for id in range(3):
        ruslo.kill()
        rivals = [Ruslo(ruslo.directory / f"rival-{id}-{i}") for i in range(3)]
        for rival in rivals:
            rival.data = ruslo.data
            rival.start(wait=False)
        try:
            wait_until(lambda: sum(not rival.running() for rival in rivals) == 2, 30, "one left")
            (winner,) = [rival for rival in rivals if rival.running()]
            winner.wait_ready()
            winner.execute(f"INSERT INTO t VALUES ({id})")
            for rival in rivals:
                if rival is not winner:
                    assert rival.process.returncode not in (0, 101)
                    assert str(ruslo.data) in rival.log() and "in use" in rival.log()
        finally:
            for rival in rivals:
                rival.stop()
        ruslo.start()
        assert ruslo.value("SELECT count(*) FROM t") == id + 1


def another(start_ruslo, s3, bucket, key_file):
    return start_ruslo(
        env=s3.env(),
        store=f"s3://{bucket}/state",
        arguments=("serve", "--key-file", str(key_file)),
    )


@pytest.mark.parametrize("busy", [True, False], ids=["busy", "idle"])
def test_a_bucket_belongs_to_its_last_server(start_ruslo, s3, bucket, kafka, topic, tmp_path, busy):
    first = another(start_ruslo, s3, bucket, tmp_path / "key")
    first.execute(
        f"CREATE SOURCE s (event varchar) WITH (connector='kafka', topic='{topic}',"
        f" properties.bootstrap.server='{kafka.address()}') FORMAT PLAIN ENCODE JSON",
        "CREATE MATERIALIZED VIEW v AS SELECT event, count(*) AS n FROM s GROUP BY event",
        "CREATE TABLE t (id int)",
        "INSERT INTO t VALUES (1)",
    )
    kafka.produce(topic, [{"event": "a"}] * 10)
    first.wait_rows("SELECT * FROM v", [("a", 10)])
    sending = generate(kafka.address(), topic, count=4000, rate=1000, wait=False) if busy else None
    second = another(start_ruslo, s3, bucket, tmp_path / "key")
    assert second.rows("SELECT * FROM t") == [(1,)]
    if not busy:
        # What the first one cannot keep, it does not acknowledge.
        with pytest.raises(psycopg.Error):
            first.execute("INSERT INTO t VALUES (2)")
    assert first.wait_ended() not in (0, 101)
    assert "taken over" in first.log()
    second.execute("INSERT INTO t VALUES (3)")
    if sending:
        out, err = sending.communicate(timeout=60)
        assert sending.returncode == 0, out + err
    expected = list(counts_of(kafka.payloads(topic)).items())
    second.wait_rows("SELECT * FROM v", expected)
    second.restart()
    assert sorted(second.rows("SELECT * FROM v")) == sorted(expected)
    assert sorted(second.rows("SELECT * FROM t")) == [(1,), (3,)]


def test_a_bucket_that_does_not_answer(start_ruslo, s3, bucket, tmp_path):
    """Reads go on; what is written is acknowledged when the bucket has it."""
    ruslo = another(start_ruslo, s3, bucket, tmp_path / "key")
    ruslo.execute("CREATE TABLE t (id int)", "INSERT INTO t VALUES (1)", "FLUSH")
    acknowledged = threading.Event()

    def insert():
        ruslo.execute("INSERT INTO t VALUES (2)")
        acknowledged.set()

    inserting = threading.Thread(target=insert)
    s3.process.send_signal(signal.SIGSTOP)
    try:
        inserting.start()
        for _ in range(10):
            assert ruslo.rows("SELECT * FROM t") == [(1,)]
            assert not acknowledged.wait(0.1)
    finally:
        s3.process.send_signal(signal.SIGCONT)
    inserting.join(60)
    assert acknowledged.is_set()
    ruslo.restart()
    assert sorted(ruslo.rows("SELECT * FROM t")) == [(1,), (2,)]


@pytest.mark.parametrize("mistake", ["no such bucket", "nobody answers", "no bucket named"])
def test_a_bucket_that_cannot_be_used(workdir, s3, mistake):
    ruslo = Ruslo(workdir / f"no-bucket-{mistake}".replace(" ", "-"))
    ruslo.env = s3.env()
    ruslo.store = "s3://nowhere/state"
    if mistake == "nobody answers":
        ruslo.env |= {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{ruslo.port}"}
    if mistake == "no bucket named":
        ruslo.store = "s3://"
    ruslo.start(wait=False)
    try:
        assert ruslo.wait_ended(60) not in (0, 101)
    finally:
        ruslo.stop()
    assert ruslo.store in ruslo.log() and S3_SECRET not in ruslo.log()
