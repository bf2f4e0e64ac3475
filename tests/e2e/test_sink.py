"""The Redis sink: what each kind of change writes, in each format."""

import json

import pytest

from services import wait_until

TABLE = "CREATE TABLE t (id int PRIMARY KEY, name varchar, n bigint)"


def sink(redis, tail: str, key: str = "id") -> str:
    return (
        f"CREATE SINK k FROM t WITH (connector='redis', primary_key='{key}',"
        f" redis.url='{redis.url}') FORMAT {tail}"
    )


def assert_holds(redis, expected: dict[str, str]):
    wait_until(lambda: redis.contents() == expected, 30, f"Redis with {expected}")


@pytest.mark.parametrize("redis_kind", ["redis", "redis_acl", "redis_tls"])
def test_upsert_template(request, ruslo, redis_kind):
    redis = request.getfixturevalue(redis_kind)
    ruslo.execute(TABLE, "INSERT INTO t VALUES (1, 'one', 10), (2, NULL, 20)")
    template = r"(key_format='\{t\}:{id}', value_format='{name}={n}')"
    ruslo.execute(sink(redis, f"UPSERT ENCODE TEMPLATE {template}"))
    assert_holds(redis, {"{t}:1": "one=10", "{t}:2": "NULL=20"})
    ruslo.execute("UPDATE t SET n = 11 WHERE id = 1", "DELETE FROM t WHERE id = 2")
    assert_holds(redis, {"{t}:1": "one=11"})
    ruslo.execute("UPDATE t SET id = 3 WHERE id = 1")
    assert_holds(redis, {"{t}:3": "one=11"})


def test_plain_template_keeps_what_is_deleted(ruslo, redis):
    ruslo.execute(TABLE, "INSERT INTO t VALUES (1, 'one', 10), (2, 'two', 20)")
    ruslo.execute(
        sink(
            redis,
            "PLAIN ENCODE TEMPLATE"
            " (force_append_only='true', key_format='{id}', value_format='{n}')",
        )
    )
    assert_holds(redis, {"1": "10", "2": "20"})
    ruslo.execute("DELETE FROM t WHERE id = 2", "UPDATE t SET n = 11 WHERE id = 1")
    assert_holds(redis, {"1": "11", "2": "20"})
    ruslo.execute("UPDATE t SET id = 3 WHERE id = 1")
    assert_holds(redis, {"1": "11", "2": "20", "3": "11"})


@pytest.mark.parametrize("tail", ["UPSERT ENCODE JSON", "PLAIN ENCODE JSON (ignore_delete='true')"])
def test_json(ruslo, redis, tail):
    ruslo.execute(
        "CREATE TABLE t (id int PRIMARY KEY, a boolean, b real, c numeric, d date, e timestamp,"
        " f timestamptz, g jsonb, h bytea, i time, j varchar)",
        "INSERT INTO t VALUES (1, true, 1.5, 1.50, '1970-01-01', '1970-01-02 00:00:00.5',"
        " '2026-11-22 10:00:00.25+00', '{\"x\": [1]}', '\\x0102', '00:00:01', 'z')",
        "INSERT INTO t (id) VALUES (2)",
        sink(redis, tail),
    )
    wait_until(lambda: len(redis.contents()) == 2)
    contents = redis.contents()
    assert set(contents) == {'{"id":1}', '{"id":2}'}
    full = json.loads(contents['{"id":1}'])
    assert list(full) == sorted(full)
    assert full == {
        "id": 1,
        "a": True,
        "b": 1.5,
        "c": "1.50",
        "d": 719163,
        "e": 86_400_500,
        "f": "2026-11-22T10:00:00.250000Z",
        "g": full["g"],
        "h": "AQI=",
        "i": 1000,
        "j": "z",
    }
    assert json.loads(full["g"]) == {"x": [1]}
    assert json.loads(contents['{"id":2}']) == {k: None for k in "abcdefghij"} | {"id": 2}


def test_a_new_sink_writes_what_is_there_and_a_dropped_one_stops(ruslo, redis):
    ruslo.execute(
        TABLE,
        "INSERT INTO t SELECT i, 'x', i FROM generate_series(1, 5000) AS g(i)",
        sink(redis, "UPSERT ENCODE TEMPLATE (key_format='{id}', value_format='{n}')"),
    )
    assert_holds(redis, {str(i): str(i) for i in range(1, 5001)})
    ruslo.execute("DROP SINK k", "DELETE FROM t", "FLUSH")
    assert len(redis.contents()) == 5000
    ruslo.execute("DROP TABLE t")


def test_two_key_columns(ruslo, redis):
    ruslo.execute(
        "CREATE TABLE t (a int, b varchar, n int, PRIMARY KEY (a, b))",
        "INSERT INTO t VALUES (1, 'x', 1), (1, 'y', 2)",
        sink(redis, "UPSERT ENCODE JSON", key="a,b"),
    )
    assert_holds(
        redis,
        {
            '{"a":1,"b":"x"}': '{"a":1,"b":"x","n":1}',
            '{"a":1,"b":"y"}': '{"a":1,"b":"y","n":2}',
        },
    )


@pytest.mark.parametrize("tail", ["JSON", "TEMPLATE (key_format='{name}', value_format='{id}={n}')"])
def test_a_key_that_rows_share_stays_while_one_is_left(ruslo, redis, tail):
    """The greatest row of a key is written; when it goes the next one takes its place."""
    ruslo.execute(
        TABLE,
        "INSERT INTO t VALUES (1, 'a', 10), (2, 'a', 20), (3, 'b', 30)",
        sink(redis, f"UPSERT ENCODE {tail}", key="name"),
    )

    def key(name: str) -> str:
        return name if "TEMPLATE" in tail else json.dumps({"name": name}, separators=(",", ":"))

    def value(id: int, name: str, n: int) -> str:
        row = {"id": id, "n": n, "name": name}
        return f"{id}={n}" if "TEMPLATE" in tail else json.dumps(row, separators=(",", ":"))

    b = {key("b"): value(3, "b", 30)}
    assert_holds(redis, {key("a"): value(2, "a", 20)} | b)
    ruslo.execute("DELETE FROM t WHERE id = 2")
    assert_holds(redis, {key("a"): value(1, "a", 10)} | b)
    ruslo.execute("INSERT INTO t VALUES (0, 'a', 5), (4, 'a', 40)")
    assert_holds(redis, {key("a"): value(4, "a", 40)} | b)
    ruslo.execute("DELETE FROM t WHERE id > 0 AND name = 'a'")
    assert_holds(redis, {key("a"): value(0, "a", 5)} | b)
    ruslo.execute("DELETE FROM t WHERE name = 'a'")
    assert_holds(redis, b)


def test_null_and_the_text_null_share_a_key(ruslo, redis):
    ruslo.execute(
        "CREATE TABLE t (id int PRIMARY KEY, name varchar)",
        "INSERT INTO t VALUES (1, NULL), (2, 'NULL'), (3, 'x')",
        "CREATE MATERIALIZED VIEW v AS SELECT name, count(*) AS n FROM t GROUP BY name",
        sink(redis, "UPSERT ENCODE TEMPLATE (key_format='{name}', value_format='{n}')", "name")
        .replace("FROM t", "FROM v"),
    )
    assert_holds(redis, {"NULL": "1", "x": "1"})
    ruslo.execute("DELETE FROM t WHERE id = 2")
    wait_until(lambda: ruslo.value("SELECT waiting FROM ruslo.sinks") == 0)
    assert_holds(redis, {"NULL": "1", "x": "1"})
    ruslo.execute("DELETE FROM t WHERE id = 1")
    assert_holds(redis, {"x": "1"})


FORMATS = [
    "UPSERT ENCODE TEMPLATE (key_format='{id}', value_format='{n}')",
    "PLAIN ENCODE TEMPLATE (force_append_only='true', key_format='{id}', value_format='{n}')",
]


@pytest.mark.parametrize("busy", [True, False], ids=["busy", "idle"])
@pytest.mark.parametrize("tail", FORMATS, ids=["upsert", "plain"])
def test_a_redis_that_comes_back_empty_is_filled_again(ruslo, forgetful_redis, tail, busy):
    redis = forgetful_redis
    ruslo.execute(
        TABLE,
        "INSERT INTO t SELECT i, 'x', i FROM generate_series(1, 3000) AS g(i)",
        sink(redis, tail),
    )
    expected = {str(i): str(i) for i in range(1, 3001)}
    assert_holds(redis, expected)
    with redis.client() as client:
        client.set("of another program", "forgotten")
    redis.stop()
    if busy:
        ruslo.execute("UPDATE t SET n = n + 1 WHERE id <= 10")
    redis.start()
    # It came back empty; the sink's own keys may all be there again by now.
    assert "of another program" not in redis.contents()
    if busy:
        for _ in range(5):
            ruslo.execute("UPDATE t SET n = n + 1 WHERE id <= 10")
        expected |= {str(i): str(i + 6) for i in range(1, 11)}
    assert_holds(redis, expected)
    if ruslo.was_killed:
        return  # It counts since its start, and wrote all of the view then.
    resends, operations = ruslo.rows("SELECT resends, operations FROM ruslo.sinks")[0]
    assert resends == 1 and operations >= 6000
    assert ruslo.metrics()['ruslo_sink_resends_total{sink="k"}'] == 1


def test_sinks_are_visible(ruslo, redis):
    ruslo.execute(TABLE, sink(redis, "UPSERT ENCODE JSON"))
    assert "k" in str(ruslo.rows("SHOW SINKS"))
    wait_until(
        lambda: ruslo.value("SELECT state FROM ruslo.sinks WHERE name = 'k'") == "running"
    )
