"""Messages and fields that can't be decoded: kept, counted, and no harm to the rest."""

from services import wait_until

COLUMNS = "id int, event varchar, amount int"


def errors(ruslo, source: str):
    return ruslo.rows(
        'SELECT "partition", "offset", "column", reason FROM ruslo.decode_errors'
        f" WHERE source = '{source}' ORDER BY 1, 2, 3"
    )


def test_poison_messages(ruslo, kafka, source):
    topic = kafka.create_topic("poison")
    messages = []
    for i in range(2000):
        messages.append({"id": i, "event": "click" if i % 2 else "scroll", "amount": 1})
        if i % 100 == 0:
            messages.append(b"{ this is no JSON")
        if i % 200 == 0:
            messages.append({"id": i, "event": "click", "amount": "not a number"})
    messages.insert(500, b"\xff\xfe\x00binary")
    messages.insert(700, None)
    messages.insert(900, b"")
    source("s", topic, COLUMNS)
    ruslo.execute(
        "CREATE MATERIALIZED VIEW v AS SELECT event, count(*), sum(amount) FROM s GROUP BY event"
    )
    kafka.produce(topic, messages, partition=0)
    # Ten good rows more for the events whose amount is unreadable, which is NULL then.
    ruslo.wait_rows("SELECT * FROM v", [("click", 1010, 1000), ("scroll", 1000, 1000)])

    seen = wait_until(lambda: len(errors(ruslo, "s")) >= 31 and errors(ruslo, "s"))
    broken = [(offset, column) for _, offset, column, _ in seen]
    assert {offset for offset, column in broken if column == "amount"} == {
        i for i, m in enumerate(messages) if isinstance(m, dict) and m["amount"] != 1
    }
    no_json = {i for i, m in enumerate(messages) if isinstance(m, bytes) and m}
    assert no_json <= {offset for offset, column in broken if column is None}
    assert all(reason for *_, reason in seen)


def test_two_views_do_not_repeat_an_error(ruslo, kafka, source):
    topic = kafka.create_topic("poison-twice")
    source("s", topic, COLUMNS)
    ruslo.execute("CREATE MATERIALIZED VIEW first AS SELECT count(*) AS n, sum(id) AS ids FROM s")
    kafka.produce(topic, [{"id": 1}, {"id": "x"}, b"broken", {"id": 4}])
    ruslo.wait_rows("SELECT * FROM first", [(3, 5)])
    wait_until(lambda: len(errors(ruslo, "s")) == 2)
    ruslo.execute("CREATE MATERIALIZED VIEW second AS SELECT count(*) AS n, max(id) AS m FROM s")
    ruslo.wait_rows("SELECT * FROM second", [(3, 4)])
    assert len(errors(ruslo, "s")) == 2


def test_payload_and_time_are_kept(ruslo, kafka, source):
    topic = kafka.create_topic("poison-kept")
    source("s", topic, COLUMNS)
    ruslo.execute("CREATE MATERIALIZED VIEW v AS SELECT count(*) FROM s")
    kafka.produce(topic, [b"no json at all"])
    wait_until(lambda: errors(ruslo, "s"))
    payload, recent = ruslo.rows(
        "SELECT payload, now() - time < interval '5 minutes' FROM ruslo.decode_errors"
    )[0]
    assert bytes(payload) == b"no json at all" and recent
    metrics = ruslo.metrics()
    counted = [v for name, v in metrics.items() if "decode_errors" in name and '"s"' in name]
    assert counted == [1.0], metrics


def test_a_long_payload_is_cut_and_says_so(ruslo, kafka, source):
    topic = kafka.create_topic("poison-long")
    source("s", topic, COLUMNS)
    ruslo.execute("CREATE MATERIALIZED VIEW v AS SELECT count(*) FROM s")
    kafka.produce(topic, [b"x" * 100_000, b"short"])
    wait_until(lambda: len(errors(ruslo, "s")) == 2)
    lengths = ruslo.rows(
        'SELECT octet_length(payload), payload_bytes FROM ruslo.decode_errors ORDER BY "offset"'
    )
    assert lengths == [(65_536, 100_000), (5, 5)]
    columns = ruslo.rows(
        "SELECT column_name FROM information_schema.columns"
        " WHERE table_schema = 'ruslo' AND table_name = 'decode_errors' ORDER BY ordinal_position"
    )
    assert ("payload_bytes",) in columns and columns[0] == ("source",)


def test_failed_expression_gives_null(ruslo):
    ruslo.execute(
        "CREATE TABLE t (id int PRIMARY KEY, text varchar)",
        "CREATE MATERIALIZED VIEW v AS SELECT id, text::int AS number FROM t",
        "INSERT INTO t VALUES (1, '10'), (2, 'ten')",
        "FLUSH",
    )
    assert sorted(ruslo.rows("SELECT * FROM v")) == [(1, 10), (2, None)]
