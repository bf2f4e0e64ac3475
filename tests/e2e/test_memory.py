"""State larger than memory: it is kept in files, sources wait, and nobody is killed."""

import concurrent.futures
import hashlib
import os
import re
import subprocess

import psycopg
import pytest
from services import wait_until
from services.cgroup import memory_group
from services.ruslo import binary

LIMIT_MB = 160
# The share of a group's memory that a server takes if nothing is said.
DEFAULT_SHARE = 0.8
ROWS = 28_000
STEP = 2_000


@pytest.fixture
def small_group():
    group = memory_group(f"ruslo-test-{os.getpid()}", LIMIT_MB)
    yield group
    if group:
        group.remove()


@pytest.fixture
def small_ruslo(small_group, start_ruslo):
    """A server in a small control group, or with that limit where there can be none."""
    limit = f"{int(LIMIT_MB * DEFAULT_SHARE)}MiB"
    ruslo = start_ruslo(
        prefix=small_group.prefix() if small_group else (),
        arguments=("serve",) if small_group else ("serve", "--memory-limit", limit),
    )
    ruslo.start_timeout_s = 240
    return ruslo


def test_a_join_and_groups_of_three_times_the_limit(small_ruslo):
    ruslo = small_ruslo
    limit_mb = ruslo.metrics()["ruslo_memory_limit_bytes"] / 2**20
    assert abs(limit_mb - LIMIT_MB * DEFAULT_SHARE) < 2
    ruslo.execute(
        "CREATE TABLE a (id int, pad varchar)",
        "CREATE TABLE b (id int, pad varchar)",
        "CREATE MATERIALIZED VIEW grouped AS SELECT pad, count(*) AS n FROM a GROUP BY pad",
        "CREATE MATERIALIZED VIEW joined AS"
        " SELECT a.id, a.pad AS x, b.pad AS y FROM a JOIN b ON a.id = b.id",
        "CREATE MATERIALIZED VIEW total AS SELECT count(*) AS n, sum(id) AS ids FROM joined",
    )
    with ruslo.connect() as connection:
        for start in range(0, ROWS, STEP):
            for table in "ab":
                connection.execute(
                    f"INSERT INTO {table} SELECT i, repeat(md5('{table}' || i::text), 60)"
                    f" FROM generate_series({start}, {start + STEP - 1}) AS g(i)"
                )
    assert ruslo.rows("SELECT * FROM total") == [(ROWS, ROWS * (ROWS - 1) // 2)]
    metrics = ruslo.metrics()
    of_objects = [v for name, v in metrics.items() if re.match(r"ruslo_object_bytes\{", name)]
    assert sum(of_objects) / 2**20 >= 3 * limit_mb
    assert metrics["ruslo_memory_file_bytes"] / 2**20 > limit_mb
    assert metrics["ruslo_memory_heap_bytes"] / 2**20 < limit_mb
    # Reading all of a view that memory does not hold.
    assert ruslo.rows("SELECT count(*), sum(n), min(length(pad)) FROM grouped") == [(ROWS, ROWS, 1920)]
    ruslo.execute(f"DELETE FROM a WHERE id >= {ROWS - STEP}")
    left = ROWS - STEP
    assert ruslo.rows("SELECT * FROM total") == [(left, left * (left - 1) // 2)]
    assert ruslo.rows("SELECT count(*) FROM grouped") == [(left,)]
    assert "new state goes to files" in ruslo.log()
    # What comes back fits no better.
    ruslo.restart()
    assert ruslo.rows("SELECT * FROM total") == [(left, left * (left - 1) // 2)]
    assert ruslo.rows("SELECT count(*), sum(n) FROM grouped") == [(left, left)]
    assert ruslo.metrics()["ruslo_memory_file_bytes"] / 2**20 > limit_mb


@pytest.fixture
def limited_ruslo(start_ruslo):
    """Starts a server with a limit in a control group that is larger, both in MB."""
    groups = []

    def start(limit_mb, group_mb):
        group = memory_group(f"ruslo-limited-{os.getpid()}", group_mb)
        if group:
            groups.append(group)
        ruslo = start_ruslo(
            prefix=group.prefix() if group else (),
            arguments=("serve", "--memory-limit", f"{limit_mb}MiB"),
        )
        ruslo.start_timeout_s = 240
        servers.append(ruslo)
        return ruslo

    servers = []
    yield start
    for server in servers:
        server.stop()
    for group in groups:
        group.remove()


def test_a_sink_of_three_times_the_limit(limited_ruslo, redis):
    """What it has to write at first, and again after a restart, does not fit into memory; nor do
    the rows among which the one is found that stands for a key."""
    ruslo = limited_ruslo(64, group_mb=LIMIT_MB)
    step = 3000
    rows = 35 * step
    ruslo.execute("CREATE TABLE t (id int PRIMARY KEY, n int, half int, pad varchar)")
    for start in range(0, rows, step):
        ruslo.execute(
            "INSERT INTO t SELECT i, i, i / 2, repeat(md5(i::text), 60)"
            f" FROM generate_series({start}, {start + step - 1}) AS g(i)"
        )
    metrics = ruslo.metrics()
    of_table = sum(v for name, v in metrics.items() if name.startswith("ruslo_object_bytes{"))
    assert of_table >= 3 * metrics["ruslo_memory_limit_bytes"]
    sink = "WITH (connector='redis', redis.url='{}', primary_key='{}') FORMAT UPSERT ENCODE TEMPLATE"
    ruslo.execute(
        f"CREATE SINK s FROM t {sink.format(redis.url, 'id')}"
        " (key_format='{id}', value_format='{n}')",
        f"CREATE SINK shared FROM t {sink.format(redis.url, 'half')}"
        " (key_format='half {half}', value_format='{id}')",
        "UPDATE t SET n = -n WHERE id = 1",
        f"UPDATE t SET n = -n WHERE id = {rows - 1}",
        "DELETE FROM t WHERE id = 2",
        "DELETE FROM t WHERE id = 5",
        f"DELETE FROM t WHERE id = {rows - 2}",
    )
    expected = {str(i): str(-i if i in (1, rows - 1) else i) for i in range(rows)}
    for gone in (2, 5, rows - 2):
        del expected[str(gone)]
    expected |= {f"half {i // 2}": str(i) for i in range(rows) if str(i) in expected}

    def is_written():
        return ruslo.value("SELECT sum(waiting) FROM ruslo.sinks") == 0

    wait_until(is_written, 240, "the table in Redis")
    assert redis.contents() == expected
    assert ruslo.value("SELECT bytes FROM ruslo.memory WHERE name = 'shared'") > 2 * 64 * 2**20
    with redis.client() as client:
        client.flushall()
    ruslo.restart()
    wait_until(is_written, 240, "the table in Redis again")
    assert redis.contents() == expected
    assert ruslo.metrics()["ruslo_memory_file_bytes"] >= metrics["ruslo_memory_limit_bytes"]


def test_queries_of_three_times_the_limit(limited_ruslo):
    """They write out what memory does not hold, or say that they cannot; the server stays."""
    ruslo = limited_ruslo(64, group_mb=LIMIT_MB)
    step, rows = 40_000, 400_000
    ruslo.execute("CREATE TABLE t (id int PRIMARY KEY, pad varchar)")
    for start in range(0, rows, step):
        ruslo.execute(
            "INSERT INTO t SELECT i, md5(i::text)"
            f" FROM generate_series({start}, {start + step - 1}) AS g(i)"
        )
    # Some 200 MB of text, made as they run, and as many rows as are too many in small pieces.
    texts = (
        "(SELECT i, repeat(md5((i % 250000)::text), 22) AS pad FROM generate_series(1, 300000) AS g(i))"
        " AS x"
    )
    many = "(SELECT i, md5(i::text) AS pad FROM generate_series(1, 2000000) AS g(i)) AS x"
    pid = ruslo.pid
    right = {
        f"SELECT i FROM {texts} ORDER BY pad, i OFFSET 1000 LIMIT 1": None,
        f"SELECT count(*), sum(n) FROM (SELECT pad, count(*) AS n FROM {texts} GROUP BY pad)"
        " AS y": [(250_000, 300_000)],
        f"SELECT count(*), max(x.i) FROM {texts} JOIN {texts[:-1]}y ON x.pad = y.pad AND"
        " x.i = y.i": [(300_000, 300_000)],
        "SELECT count(*), sum(x.id) FROM t AS x JOIN t AS y ON x.pad = y.pad": [
            (rows, rows * (rows - 1) // 2)
        ],
        "SELECT count(DISTINCT n) FROM (SELECT row_number() OVER (ORDER BY pad) % 7 AS n FROM t)"
        " AS x": [(7,)],
    }
    for query, expected in right.items():
        found = ruslo.rows(query)
        assert expected is None or found == expected, query
    # All of a large result, as it is sent.
    with ruslo.connect() as connection, connection.cursor() as cursor:
        ids = [i for (i,) in cursor.stream("SELECT id FROM t ORDER BY pad")]
        assert len(ids) == rows and sorted(ids) == list(range(rows))
        assert ids == sorted(ids, key=lambda i: hashlib.md5(str(i).encode()).hexdigest())
    too_much = [
        f"SELECT array_agg(pad) FROM {texts}",
        "SELECT i, sum(i) OVER (ORDER BY pad ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED"
        f" FOLLOWING) FROM {many}",
        f"INSERT INTO t SELECT i, pad FROM {texts}",
        "UPDATE t SET pad = pad || 'x'",
        "DELETE FROM t",
    ]
    for statement in too_much:
        with pytest.raises(psycopg.errors.OutOfMemory) as raised:
            ruslo.execute(statement)
        assert "--memory-limit" in raised.value.diag.message_hint, statement
    # A tenth of the rows is not too much, also where they are read without being touched.
    ruslo.execute(
        "CREATE TABLE u (id int PRIMARY KEY, pad varchar)",
        f"INSERT INTO u SELECT * FROM t WHERE id < {step}",
        "UPDATE u SET pad = pad",
        "DELETE FROM u",
    )
    # Many at once have less each.
    with concurrent.futures.ThreadPoolExecutor() as pool:
        query = "SELECT count(*), max(pad) FROM (SELECT * FROM t ORDER BY pad DESC) AS x"
        found = set(map(tuple, pool.map(ruslo.rows, [query] * 4)))
        assert len(found) == 1
    assert ruslo.rows("SELECT count(*), min(length(pad)), max(length(pad)) FROM t") == [(rows, 32, 32)]
    assert ruslo.pid == pid and ruslo.running()


def test_a_past_of_three_times_the_limit(limited_ruslo, kafka):
    """All of it is read at once, at one time, by views over topics and by views over views."""
    # There is room for what many lanes bring in at a time.
    ruslo = limited_ruslo(int(LIMIT_MB * DEFAULT_SHARE), group_mb=256)
    limit_mb = ruslo.metrics()["ruslo_memory_limit_bytes"] / 2**20
    for name in "ab":
        topic = kafka.create_topic(f"past-{name}", 2)
        pads = (hashlib.md5(f"{name}{i}".encode()).hexdigest() * 60 for i in range(ROWS))
        kafka.produce(topic, ({"id": i, "pad": pad} for i, pad in enumerate(pads)))
        ruslo.execute(
            f"CREATE SOURCE {name} (id int, pad varchar) WITH (connector='kafka',"
            f" topic='{topic}', properties.bootstrap.server='{kafka.address()}')"
            " FORMAT PLAIN ENCODE JSON"
        )
    ruslo.execute(
        "CREATE MATERIALIZED VIEW grouped AS SELECT pad, count(*) AS n FROM a GROUP BY pad",
        "CREATE MATERIALIZED VIEW joined AS"
        " SELECT a.id, a.pad AS x, b.pad AS y FROM a JOIN b ON a.id = b.id",
        "CREATE MATERIALIZED VIEW total AS SELECT count(*) AS n, sum(id) AS ids FROM joined",
        "CREATE MATERIALIZED VIEW found AS SELECT count(*) AS n, sum(grouped.n) AS events"
        " FROM joined LEFT JOIN grouped ON joined.x = grouped.pad",
    )

    def check():
        assert ruslo.rows("SELECT * FROM total") == [(ROWS, ROWS * (ROWS - 1) // 2)]
        assert ruslo.rows("SELECT count(*), sum(n) FROM grouped") == [(ROWS, ROWS)]
        assert ruslo.rows("SELECT * FROM found") == [(ROWS, ROWS)]
        assert ruslo.metrics()["ruslo_memory_file_bytes"] / 2**20 > limit_mb

    check()
    of_objects = [v for n, v in ruslo.metrics().items() if re.match(r"ruslo_object_bytes\{", n)]
    assert sum(of_objects) / 2**20 >= 3 * limit_mb
    ruslo.restart()
    check()


def test_sources_wait_when_memory_is_short(start_ruslo, kafka, topic):
    """So little that memory is short from the first message on: slow, and right in the end."""
    ruslo = start_ruslo(arguments=("serve", "--memory-limit", "64MiB"))
    messages = [{"id": i, "text": f"{i:06}" * 600} for i in range(12_000)]
    kafka.produce(topic, messages)
    kafka.produce(topic, messages)
    ruslo.execute(
        "CREATE SOURCE s (id int, text varchar) WITH (connector='kafka',"
        f" topic='{topic}', properties.bootstrap.server='{kafka.address()}')"
        " FORMAT PLAIN ENCODE JSON",
        "CREATE MATERIALIZED VIEW v AS SELECT id, text FROM s",
        "CREATE MATERIALIZED VIEW n AS SELECT count(*) AS n, sum(id) AS ids FROM v",
    )
    states = set()

    def state():
        states.update(ruslo.rows("SELECT state, detail FROM ruslo.sources WHERE name = 's'"))

    expected = [(24_000, 2 * sum(range(12_000)))]

    def all_there():
        state()
        return ruslo.rows("SELECT * FROM n") == expected

    wait_until(all_there, 60, "every message counted")
    assert "memory is short: sources wait" in ruslo.log()
    assert any(name == "waiting" and "memory is short" in detail for name, detail in states), states


@pytest.mark.parametrize(
    "arguments, said",
    [
        (("--memory-limit", "1MiB"), "at least 64 MiB"),
        (("--memory-limit", "many"), "write 4GiB, 512MiB, 50% or none"),
        (("--memory-limit", "1GiB", "--spill-dir", "/proc"), "cannot keep state that memory"),
    ],
)
def test_a_limit_that_cannot_be_kept_is_refused(tmp_path, arguments, said):
    command = [binary(), "serve", "--listen", "127.0.0.1:0", "--data-dir", tmp_path / "data", *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert ended.returncode != 0 and said in ended.stderr, ended
