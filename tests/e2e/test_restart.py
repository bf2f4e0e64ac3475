"""The server is killed and started again on the same data: everything is as it was."""

import json
import random
import subprocess
import threading
import time

import psycopg
import pytest
from services import Kafka, free_port, generate, wait_until
from services.ruslo import binary
from test_outage import SELECT, in_redis, pipeline



def test_catalog_and_tables(ruslo):
    ruslo.execute(
        "CREATE SCHEMA app",
        "CREATE TABLE t (id int PRIMARY KEY, price numeric, at timestamptz, tags varchar[],"
        " doc jsonb, f float8, ok boolean, span interval)",
        "INSERT INTO t VALUES (1, 1.50, '2026-01-02 03:04:05.678+00', '{a,NULL,\"b c\"}',"
        " '{\"a\": [1, 2]}', 'NaN', true, '1 day 02:00:00'), (2, 'NaN', NULL, NULL, NULL, -0.0,"
        " NULL, NULL), (3, 3, NULL, '{}', 'null', 1e300, false, NULL)",
        "UPDATE t SET price = 2.500 WHERE id = 1",
        "DELETE FROM t WHERE id = 3",
        "CREATE MATERIALIZED VIEW m AS SELECT ok, count(*), sum(price) FROM t GROUP BY ok",
        "CREATE MATERIALIZED VIEW app.mm AS SELECT count(*) AS groups FROM m",
        "CREATE VIEW lost AS SELECT 1 AS one",
        "CREATE OR REPLACE VIEW lost AS SELECT 2 AS one",
        "DROP VIEW lost",
        "CREATE VIEW w AS SELECT id + 1 AS next FROM t",
        "CREATE OR REPLACE VIEW w AS SELECT id + 2 AS next FROM t",
    )
    # What names stand for depends on the session that said them.
    with ruslo.connect() as connection:
        connection.execute("SET search_path TO app")
        connection.execute("SET timezone TO 'Europe/Berlin'")
        connection.execute("CREATE TABLE twice (x int)")
        connection.execute("INSERT INTO twice VALUES (1), (1), (NULL)")
        connection.execute(
            "CREATE MATERIALIZED VIEW hours AS SELECT x,"
            " extract(hour FROM timestamptz '2026-01-01 00:30:00+00') AS hour FROM twice"
        )
    queries = [
        "SELECT * FROM t",
        "SELECT * FROM m",
        "SELECT * FROM app.mm",
        "SELECT * FROM w",
        "SELECT * FROM app.twice",
        "SELECT * FROM app.hours",
        "SHOW CREATE VIEW w",
        "SHOW CREATE MATERIALIZED VIEW m",
        "SELECT relname, relkind FROM pg_class WHERE relname IN ('t', 'm', 'w', 'mm', 'twice')",
        "SELECT schema_name FROM information_schema.schemata",
    ]
    before = {query: sorted(ruslo.rows(query), key=repr) for query in queries}
    for _ in range(2):
        ruslo.restart()
        after = {query: sorted(ruslo.rows(query), key=repr) for query in queries}
        # A NaN is not equal to itself.
        assert repr(after) == repr(before)
    ruslo.execute("INSERT INTO t (id, ok) VALUES (9, true)", "INSERT INTO app.twice VALUES (5)")
    assert ruslo.rows("SELECT count FROM m WHERE ok") == [(2,)]
    with pytest.raises(psycopg.errors.DuplicateTable):
        ruslo.execute("CREATE TABLE t (a int)")
    ruslo.execute("DROP TABLE t CASCADE", "DROP SCHEMA app CASCADE", "CREATE TABLE t (a int)")
    ruslo.restart()
    assert ruslo.rows("SELECT * FROM t") == []
    with pytest.raises(psycopg.errors.UndefinedTable):
        ruslo.rows("SELECT * FROM app.twice")


def test_what_was_acknowledged_is_there(ruslo):
    ruslo.execute("CREATE TABLE t (id int)", "CREATE MATERIALIZED VIEW m AS SELECT count(*) FROM t")
    random.seed(7)
    acknowledged, tried = 0, 0
    for _ in range(5):
        end = threading.Timer(random.uniform(0.05, 0.6), ruslo.process.kill)
        end.start()
        try:
            with ruslo.connect() as connection:
                while True:
                    tried += 1
                    connection.execute("INSERT INTO t VALUES (%s)", (tried,))
                    acknowledged += 1
        except psycopg.OperationalError:
            pass
        end.join()
        ruslo.restart()
        ids = [row[0] for row in ruslo.rows("SELECT id FROM t")]
        # The last one of each round may be there although nobody was told.
        assert len(ids) == len(set(ids)) and set(ids) <= set(range(1, tried + 1))
        assert len(ids) >= acknowledged
        assert ruslo.rows("SELECT * FROM m") == [(len(ids),)]
        acknowledged = len(ids)
    assert acknowledged > 20


def test_counts_are_exact_over_kills(ruslo, kafka, topic, source, redis):
    pipeline(ruslo, source, topic, redis)
    total = 60_000
    sending = generate(kafka.address(), topic, count=total, rate=4000, wait=False)
    seen, stop = [0], threading.Event()

    def watch():
        while not stop.is_set():
            try:
                with ruslo.connect() as connection:
                    while not stop.is_set():
                        count = connection.execute(SELECT).fetchone()[0] or 0
                        assert count >= seen[-1], f"{count} after {seen[-1]}"
                        seen.append(count)
                        time.sleep(0.01)
            except psycopg.OperationalError:
                time.sleep(0.02)
            except AssertionError as error:
                seen.append(error)
                return

    watching = threading.Thread(target=watch)
    watching.start()
    random.seed(11)
    for _ in range(5):
        time.sleep(random.uniform(0.3, 2))
        ruslo.restart()
    out, err = sending.communicate(timeout=120)
    assert sending.returncode == 0, out + err
    ruslo.wait_rows(SELECT, [(total,)], timeout_s=60)
    wait_until(lambda: in_redis(redis) == total, 30, "Redis equal to the view")
    stop.set()
    watching.join()
    errors = [value for value in seen if isinstance(value, AssertionError)]
    assert not errors, errors
    assert len(set(seen)) > 20


def test_messages_that_wait_at_the_start_count_once(start_ruslo, kafka, topic):
    """They come while the times before are gone through again, and belong to none of these."""
    kafka.add_partitions(topic, 4)
    ruslo = start_ruslo(
        workers=2, arguments=("serve", "--checkpoint-interval-ms", "3600000")
    )
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
            for number in range(100):
                connection.execute(f"INSERT INTO t VALUES ({number})")
        ruslo.wait_rows("SELECT n FROM v", [(total,)])
        ruslo.kill()
        for partition in range(4):
            kafka.produce(topic, ['{"event": "a"}'] * 50, partition=partition)
        total += 200
        ruslo.start()
        ruslo.wait_rows("SELECT n FROM v", [(total,)])
        # The checkpoint of the end knows that they were read.
        assert ruslo.stop() == 0
        ruslo.start()
        kafka.produce(topic, ['{"event": "a"}'])
        total += 1
        wait_until(lambda: ruslo.value("SELECT n FROM v") >= total, 30, "the last message")
        assert ruslo.value("SELECT n FROM v") == total


def test_a_damaged_run_is_named(ruslo):
    ruslo.execute("CREATE TABLE t (a int)", "INSERT INTO t VALUES (1)")
    assert ruslo.stop() == 0
    (run,) = (ruslo.data / "runs").iterdir()
    whole = run.read_bytes()
    middle = len(whole) // 2
    run.write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
    with pytest.raises(RuntimeError, match=run.name):
        ruslo.start()
    run.write_bytes(whole)
    ruslo.start()
    assert ruslo.rows("SELECT * FROM t") == [(1,)]


def test_latest_is_resolved_once(ruslo, kafka, topic, source):
    kafka.produce(topic, ['{"event": "before"}'] * 10)
    source("s", topic, scan__startup__mode="latest")
    ruslo.restart()
    kafka.produce(topic, ['{"event": "after"}'] * 5)
    ruslo.restart()
    ruslo.execute("CREATE MATERIALIZED VIEW v AS SELECT event, count(*) AS n FROM s GROUP BY event")
    ruslo.wait_rows("SELECT * FROM v", [("after", 5)])
    kafka.add_partitions(topic, 4)
    kafka.produce(topic, ['{"event": "new"}'] * 7, partition=3)
    ruslo.wait_rows("SELECT * FROM v", [("after", 5), ("new", 7)])
    ruslo.restart()
    ruslo.wait_rows("SELECT * FROM v", [("after", 5), ("new", 7)])
    # A view made later has the same past.
    ruslo.execute("CREATE MATERIALIZED VIEW w AS SELECT event, count(*) AS n FROM s GROUP BY event")
    ruslo.wait_rows("SELECT * FROM w", [("after", 5), ("new", 7)])


def test_redis_away_at_the_start(ruslo, kafka, topic, source, redis):
    pipeline(ruslo, source, topic, redis)
    generate(kafka.address(), topic, count=1000)
    wait_until(lambda: in_redis(redis) == 1000)
    redis.stop()
    ruslo.restart()
    generate(kafka.address(), topic, count=1000, seed=2)
    ruslo.wait_rows(SELECT, [(2000,)])
    wait_until(lambda: ruslo.value("SELECT state FROM ruslo.sinks") != "running")
    redis.start()
    wait_until(lambda: in_redis(redis) == 2000, 30, "Redis equal to the view")


def test_kafka_away_at_the_start(ruslo, kafka, topic, source):
    pipeline(ruslo, source, topic)
    generate(kafka.address(), topic, count=1000)
    ruslo.wait_rows(SELECT, [(1000,)])
    ruslo.kill()
    kafka.stop()
    ruslo.start(wait=False)
    try:
        wait_until(lambda: "recovering" in ruslo.http("/healthz")[1], 20, "the wait in /healthz")
        with pytest.raises(psycopg.OperationalError, match="recovering"):
            ruslo.connect()
    finally:
        kafka.start()
    ruslo.wait_ready()
    ruslo.wait_rows(SELECT, [(1000,)])


def test_secrets_are_sealed(ruslo, kafka, authority, source, topic, redis_acl):
    ruslo.execute(
        f"CREATE SOURCE s (event varchar) WITH (connector='kafka', topic='{topic}',"
        f" properties.bootstrap.server='{kafka.address('SASL_SSL')}',"
        " properties.security.protocol='SASL_SSL', properties.sasl.mechanism='SCRAM-SHA-256',"
        f" properties.sasl.username='{kafka.username}',"
        f" properties.sasl.password='{kafka.password}') FORMAT PLAIN ENCODE JSON",
        "CREATE MATERIALIZED VIEW v AS SELECT event, count(*) AS n FROM s GROUP BY event",
        "CREATE SINK k FROM v WITH (connector='redis', primary_key='event',"
        f" redis.url='{redis_acl.url}') FORMAT PLAIN ENCODE JSON (force_append_only='true')",
    )
    kafka.produce(topic, ['{"event": "a"}'] * 3)
    ruslo.wait_rows("SELECT * FROM v", [("a", 3)])
    for _ in range(2):
        ruslo.restart()
        ruslo.wait_rows("SELECT * FROM v", [("a", 3)])
    for path in ruslo.data.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert Kafka.password.encode() not in content, path
            assert b"redis-secret" not in content, path
    assert (ruslo.data / "secret.key").stat().st_mode & 0o777 == 0o600
    assert ruslo.data.stat().st_mode & 0o777 == 0o700
    # Without its key the data says so and is left alone.
    ruslo.kill()
    key = (ruslo.data / "secret.key").read_text()
    (ruslo.data / "secret.key").unlink()
    with pytest.raises(RuntimeError, match="cannot be read with the key"):
        ruslo.start()
    (ruslo.data / "secret.key").write_text(key)
    ruslo.start()
    assert ruslo.rows("SELECT * FROM v") == [("a", 3)]


def test_a_folder_has_one_server(ruslo):
    ruslo.execute("CREATE TABLE t (a int)")
    second = subprocess.run(
        [
            binary(), "serve", "--data-dir", str(ruslo.data),
            "--listen", f"127.0.0.1:{free_port()}", "--http", "off",
        ],  # fmt: skip
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert second.returncode not in (0, 101)
    assert str(ruslo.pid) in second.stderr and str(ruslo.data) in second.stderr
    ruslo.execute("INSERT INTO t VALUES (1)")
    ruslo.restart()
    assert ruslo.rows("SELECT * FROM t") == [(1,)]


def test_memory_keeps_nothing(start_ruslo):
    ruslo = start_ruslo(store="memory")
    ruslo.execute("CREATE TABLE t (a int)")
    ruslo.restart()
    with pytest.raises(psycopg.errors.UndefinedTable):
        ruslo.rows("SELECT * FROM t")
    assert not ruslo.data.exists()


def test_sigterm_keeps_everything(ruslo, kafka, topic, source):
    pipeline(ruslo, source, topic)
    generate(kafka.address(), topic, count=2000)
    ruslo.wait_rows(SELECT, [(2000,)])
    assert ruslo.stop() == 0
    ruslo.start()
    assert ruslo.rows(SELECT) == [(2000,)]


def test_the_end_is_a_checkpoint_although_redis_is_away(start_ruslo, redis):
    """What a sink waits for must not take the time that the checkpoint needs."""
    ruslo = start_ruslo(arguments=("serve", "--checkpoint-interval-ms", "3600000"))
    ruslo.execute(
        "CREATE TABLE t (id int PRIMARY KEY, v int)",
        "CREATE MATERIALIZED VIEW m AS SELECT * FROM t",
        "CREATE SINK k FROM m WITH (connector='redis', primary_key='id',"
        f" redis.url='{redis.url}') FORMAT UPSERT ENCODE TEMPLATE"
        " (key_format='{id}', value_format='{v}')",
        "INSERT INTO t VALUES (1, 1)",
    )
    wait_until(lambda: redis.contents() == {"1": "1"})
    redis.stop()
    # The first is being tried, the others wait behind it.
    for id in range(2, 1001, 333):
        ruslo.execute(f"INSERT INTO t SELECT i, i FROM generate_series({id}, {id + 332}) AS g(i)")
    wait_until(lambda: ruslo.value("SELECT waiting FROM ruslo.sinks") > 0)
    assert ruslo.stop() == 0
    assert "not through in time" not in ruslo.log()
    newest = max((ruslo.data / "manifests").iterdir())
    stored = json.loads(newest.read_text())["body"]["collections"]
    (table,) = (entry for entry in stored if entry["name"] == "t: rows")
    assert sum(run["rows"] for run in table["runs"]) == 1000
    redis.start()
    ruslo.start()
    wait_until(lambda: len(redis.contents()) == 1000, 30, "Redis equal to the view")


def test_broken_files_are_named(start_ruslo):
    ruslo = start_ruslo()
    ruslo.execute("CREATE TABLE t (a int)")
    for i in range(20):
        ruslo.execute(f"INSERT INTO t VALUES ({i})")
    ruslo.kill()
    log = max((ruslo.data / "log").iterdir())
    whole = log.read_bytes()
    # The end of the log may be torn: what was acknowledged before is there.
    log.write_bytes(whole[:-3])
    ruslo.start()
    assert ruslo.value("SELECT count(*) FROM t") in (19, 20)
    ruslo.kill()
    log = sorted((ruslo.data / "log").iterdir())[0]
    whole = log.read_bytes()
    middle = len(whole) // 2
    log.write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
    with pytest.raises(RuntimeError, match=log.name):
        ruslo.start()
    log.write_bytes(whole)
    ruslo.start()
    assert ruslo.value("SELECT count(*) FROM t") in (19, 20)


@pytest.mark.parametrize("what", ["a file", "a folder of a file"])
def test_a_folder_that_cannot_be_written(tmp_path, what):
    place = tmp_path / "file"
    place.write_text("in the way")
    folder = place if what == "a file" else place / "data"
    started = subprocess.run(
        [binary(), "serve", "--data-dir", str(folder), "--listen", f"127.0.0.1:{free_port()}",
         "--http", "off"],  # fmt: skip
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert started.returncode not in (0, 101)
    assert str(folder) in started.stderr


KINDS = {
    "groups": "SELECT a, count(*) AS n, sum(i) AS i, avg(f) AS f, sum(p) AS p FROM x GROUP BY a",
    "counts": "SELECT a, count(*) AS n FROM x GROUP BY a",
    "total": "SELECT count(*) AS n, sum(f) AS f FROM x",
    "extremes": "SELECT a, min(i) AS low, max(i) AS high, max(p) AS p FROM x GROUP BY a",
    "extreme": "SELECT max(s) AS s, min(f) AS f FROM x",
    "distinct_values": "SELECT a, count(DISTINCT i) AS n FROM x GROUP BY a",
    "distinct_rows": "SELECT DISTINCT a, s FROM x",
    "rows": "SELECT i, upper(s) AS s, p FROM x WHERE i % 7 = 0",
    "generic": "SELECT a, stddev(f) AS f, string_agg(s, ',' ORDER BY s) AS s FROM x WHERE i < 50"
    " GROUP BY a",
    "inner_join": "SELECT x.i, x.s, y.s AS t FROM x JOIN y ON x.i = y.i WHERE x.a = 1",
    "left_join": "SELECT x.i, x.a, y.s FROM x LEFT JOIN y ON x.i = y.i WHERE x.a = 2",
    "full_join": "SELECT x.s, y.s AS t FROM x FULL JOIN y ON x.s = y.s AND x.a = 0",
    "residual": "SELECT x.i, y.i AS j FROM x LEFT JOIN y ON x.a = y.a AND x.i > y.i + 990",
    "cross": "SELECT count(*) AS n FROM x CROSS JOIN (SELECT count(*) AS m FROM y) AS z",
    "union_of_sources": "SELECT a FROM x UNION ALL SELECT a FROM y",
    "union_with_table": "SELECT i FROM x WHERE a = 3 UNION ALL SELECT i FROM t",
    "union_with_values": "SELECT i FROM x WHERE a = 4 UNION ALL SELECT 7",
    "join_with_table": "SELECT x.a, t.name, count(*) AS n FROM x JOIN t ON x.a = t.i GROUP BY 1, 2",
    "semi": "SELECT i FROM x WHERE a = 1 AND i IN (SELECT i FROM y)",
    "anti": "SELECT i FROM x WHERE a = 1 AND NOT EXISTS (SELECT FROM y WHERE y.i = x.i)",
    "on_a_view": "SELECT n, count(*) AS groups FROM counts GROUP BY n",
    "failing": "SELECT a, count(*) AS n FROM x WHERE 100 / (i % 3) > 0 GROUP BY a",
    "failing_rows": "SELECT i, 100 / (i % 100) AS q FROM x",
}


def make_kinds(ruslo, source, topics):
    columns = "a int, i int, f double precision, p numeric, s varchar"
    for name, topic in zip("xy", topics, strict=True):
        source(name, topic, columns)
    ruslo.execute(
        "CREATE TABLE t (i int PRIMARY KEY, name varchar)",
        "INSERT INTO t VALUES (1, 'one'), (2, 'two'), (3, 'three')",
        *(f"CREATE MATERIALIZED VIEW {name} AS {query}" for name, query in KINDS.items()),
    )


def produce_kinds(kafka, topics, seed: int):
    rng = random.Random(seed)
    for topic in topics:
        lines = []
        for _ in range(300):
            i = rng.choice([rng.randrange(1000), None])
            f = rng.choice([rng.uniform(-1e9, 1e9), 0.1, None])
            s = rng.choice(["red", "green", "blue", None])
            p = rng.choice([f"{rng.uniform(-9, 9):.{rng.randrange(5)}f}", "NaN", None])
            message = {"a": rng.randrange(5), "i": i, "f": f, "p": p, "s": s}
            lines.append(json.dumps(message))
        lines.insert(rng.randrange(300), "{broken")
        lines.insert(rng.randrange(300), '{"a": "not a number", "i": 5}')
        kafka.produce(topic, lines)


def contents(ruslo) -> dict:
    all_rows = {name: ruslo.rows(f"SELECT * FROM {name}") for name in KINDS}
    all_rows["errors"] = ruslo.rows(
        "SELECT view, expression, message, rows FROM ruslo.expression_errors"
    )
    all_rows["bad"] = ruslo.rows(
        'SELECT source, "partition", "offset", "column", reason FROM ruslo.decode_errors'
    )
    return {name: sorted(rows, key=repr) for name, rows in all_rows.items()}


def test_views_of_every_kind(ruslo, start_ruslo, kafka, source, authority):
    """Killed at several places; in the end it holds what a server holds that never was."""
    topics = [kafka.create_topic(f"kinds-{i}-{random.randrange(10**9)}", 2) for i in range(2)]
    make_kinds(ruslo, source, topics)
    for step in range(4):
        produce_kinds(kafka, topics, seed=step)
        ruslo.wait_rows("SELECT n FROM total", [(301 * (step + 1),)])
        if step != 1:
            # Some kills come after a checkpoint of just this, and some before.
            time.sleep([1.3, 0, 0.2, 1.3][step])
        ruslo.restart()
        assert ruslo.rows("SELECT n FROM total") == [(301 * (step + 1),)]
        ruslo.execute(f"INSERT INTO t VALUES ({step + 10}, 'later')", "DELETE FROM t WHERE i = 1")
    after = contents(ruslo)
    other = start_ruslo(workers=1, env={"SSL_CERT_FILE": str(authority.ca)})
    options = f"connector='kafka', properties.bootstrap.server='{kafka.address()}'"
    columns = "a int, i int, f double precision, p numeric, s varchar"
    for name, topic in zip("xy", topics, strict=True):
        other.execute(
            f"CREATE SOURCE {name} ({columns}) WITH ({options}, topic='{topic}')"
            " FORMAT PLAIN ENCODE JSON"
        )
    other.execute(
        "CREATE TABLE t (i int PRIMARY KEY, name varchar)",
        "INSERT INTO t VALUES (2, 'two'), (3, 'three'), (10, 'later'), (11, 'later'),"
        " (12, 'later'), (13, 'later')",
        *(f"CREATE MATERIALIZED VIEW {name} AS {query}" for name, query in KINDS.items()),
    )
    other.wait_rows("SELECT n FROM total", [(301 * 4,)])
    expected = contents(other)
    for name, rows in expected.items():
        assert repr(after[name]) == repr(rows), name
    assert len(expected["bad"]) == 16 and expected["errors"]


def test_deletes_reach_redis_over_a_crash(ruslo, redis):
    ruslo.execute(
        "CREATE TABLE t (id int PRIMARY KEY, v int)",
        "CREATE MATERIALIZED VIEW m AS SELECT id, sum(v) AS v FROM t GROUP BY id",
        "CREATE SINK k FROM m WITH (connector='redis', primary_key='id',"
        f" redis.url='{redis.url}') FORMAT UPSERT ENCODE TEMPLATE"
        " (key_format='{id}', value_format='{v}')",
        "INSERT INTO t SELECT i, i FROM generate_series(1, 100) AS g(i)",
    )
    wait_until(lambda: len(redis.contents()) == 100)
    for pause in (0, 2):
        # Gone while Redis is away, before or after a checkpoint.
        redis.stop()
        ruslo.execute(f"DELETE FROM t WHERE id <= {40 if pause else 20}", "UPDATE t SET v = v + 1")
        time.sleep(pause)
        ruslo.kill()
        redis.start()
        ruslo.start()
        expected = {str(i): str(v) for i, v in ruslo.rows("SELECT * FROM m")}
        wait_until(lambda: redis.contents() == expected, 30, "Redis equal to the view")
    # Rows that came and went between two checkpoints were in Redis and must not stay there.
    ruslo.execute("INSERT INTO t VALUES (1000, 1)")
    wait_until(lambda: redis.contents().get("1000") == "1")
    redis.stop()
    ruslo.execute("DELETE FROM t WHERE id = 1000")
    ruslo.kill()
    redis.start()
    ruslo.start()
    wait_until(lambda: "1000" not in redis.contents(), 30, "the key is gone")
