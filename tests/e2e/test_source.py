"""Where a source starts, what it finds later, and views that come late."""

import os
import signal
import time

import pytest

from services import generate, wait_until

COUNT = "SELECT n FROM v"
NUMBERS = "id int"


def numbers(start: int, end: int) -> list[dict]:
    return [{"id": i} for i in range(start, end)]


def count_view(ruslo, source: str = "s", view: str = "v"):
    ruslo.execute(
        f"CREATE MATERIALIZED VIEW {view} AS SELECT count(*) AS n, sum(id) AS total FROM {source}"
    )


def test_earliest_is_the_default(ruslo, kafka, topic, source):
    kafka.produce(topic, numbers(0, 100))
    source("s", topic, NUMBERS)
    count_view(ruslo)
    ruslo.wait_rows("SELECT * FROM v", [(100, 4950)])


def test_latest_is_fixed_when_the_source_is_created(ruslo, kafka, topic, source):
    kafka.produce(topic, numbers(0, 100))
    source("s", topic, NUMBERS, scan__startup__mode="LATEST")
    kafka.produce(topic, numbers(100, 110))
    count_view(ruslo)
    ruslo.wait_rows("SELECT * FROM v", [(10, 1045)])
    count_view(ruslo, view="later")
    ruslo.wait_rows("SELECT * FROM later", [(10, 1045)])


def test_start_at_a_timestamp(ruslo, kafka, topic, source):
    kafka.produce(topic, numbers(0, 100))
    # Kafka's timestamps are milliseconds: the border must fall between two of them.
    border_ms = int(time.time() * 1000) + 2
    wait_until(lambda: time.time() * 1000 > border_ms + 2)
    kafka.produce(topic, numbers(100, 110))
    source(
        "s", topic, NUMBERS, scan__startup__timestamp__millis=str(border_ms),
        scan__startup__mode="earliest",
    )  # fmt: skip
    count_view(ruslo)
    ruslo.wait_rows("SELECT * FROM v", [(10, 1045)])


def test_partitions_added_later_are_found(ruslo, kafka, source):
    topic = kafka.create_topic("growing")
    source("s", topic, NUMBERS)
    count_view(ruslo)
    kafka.produce(topic, numbers(0, 10))
    ruslo.wait_rows(COUNT, [(10,)])
    kafka.add_partitions(topic, 3)
    for partition in (1, 2):
        kafka.produce(topic, numbers(0, 10), partition)
    ruslo.wait_rows(COUNT, [(30,)], timeout_s=60)
    count_view(ruslo, view="later")
    ruslo.wait_rows("SELECT n FROM later", [(30,)])


def test_partitions_added_later_are_found_from_latest(ruslo, kafka, source):
    """A new partition is read from its beginning: what it holds came after the source."""
    topic = kafka.create_topic("growing-latest")
    kafka.produce(topic, numbers(0, 10))
    source("s", topic, NUMBERS, scan__startup__mode="latest")
    count_view(ruslo)
    kafka.add_partitions(topic, 2)
    kafka.produce(topic, numbers(0, 7), 1)
    ruslo.wait_rows(COUNT, [(7,)], timeout_s=60)


def test_many_partitions_and_four_workers(start_ruslo, kafka):
    server = start_ruslo(workers=4)
    topic = kafka.create_topic("wide", 16)
    server.execute(
        "CREATE SOURCE s (event varchar) WITH (connector='kafka', topic='wide',"
        f" properties.bootstrap.servers='{kafka.address()}') FORMAT PLAIN ENCODE JSON",
        "CREATE MATERIALIZED VIEW v AS SELECT count(*) AS n FROM s",
    )
    generate(kafka.address(), topic, count=20_000)
    server.wait_rows(COUNT, [(20_000,)])


def test_two_sources_on_one_topic(ruslo, kafka, topic, source):
    kafka.produce(topic, numbers(0, 50))
    source("a", topic, NUMBERS)
    source("b", topic, NUMBERS, scan__startup__mode="latest")
    count_view(ruslo, "a", "va")
    count_view(ruslo, "b", "vb")
    kafka.produce(topic, numbers(50, 60))
    ruslo.wait_rows("SELECT va.n, vb.n FROM va, vb", [(60, 10)])


def test_late_view_agrees_while_events_flow(ruslo, kafka, topic, source):
    """Both views are read at one time, so they must agree in every single read."""
    source("s", topic)
    view = "AS SELECT event, count(*) AS n FROM s GROUP BY event"
    ruslo.execute(f"CREATE MATERIALIZED VIEW v {view}")
    generate(kafka.address(), topic, count=50_000)
    sending = generate(kafka.address(), topic, count=20_000, rate=5000, seed=3, wait=False)
    wait_until(lambda: ruslo.value("SELECT coalesce(sum(n), 0)::bigint FROM v") > 51_000)
    ruslo.execute(f"CREATE MATERIALIZED VIEW late {view}")
    both = "SELECT (SELECT sum(n) FROM v)::bigint, (SELECT sum(n) FROM late)::bigint"
    reads = set()

    def compare():
        first, second = ruslo.rows(both)[0]
        assert first == second, "views over one source differ at one time"
        reads.add(first)
        return first == 70_000

    deadline = time.monotonic() + 60
    while not compare():
        assert time.monotonic() < deadline, sorted(reads)[-1]
    assert sending.wait(30) == 0
    assert len(reads) > 1, "no read fell into the flow"
    assert sorted(ruslo.rows("SELECT * FROM v")) == sorted(ruslo.rows("SELECT * FROM late"))


def test_retention_that_ran_over_the_position_is_seen(ruslo, kafka, topic, source):
    """A view can't read the topic's past when that is gone: CREATE warns, the state says so."""
    source("s", topic, NUMBERS)
    kafka.produce(topic, numbers(0, 100), 0)
    kafka.produce(topic, numbers(0, 100), 1)
    kafka.delete_records(topic, {0: 60})
    with ruslo.connect() as connection:
        notices = []
        connection.add_notice_handler(lambda notice: notices.append(notice.message_primary))
        connection.execute("CREATE MATERIALIZED VIEW v AS SELECT count(*) AS n FROM s")
    assert any("partition" in notice and "0" in notice for notice in notices), notices
    ruslo.wait_rows(COUNT, [(140,)])
    state, detail = source_state(ruslo)
    assert state == "data_lost" and "60" in detail


def source_state(ruslo) -> tuple[str, str | None]:
    return ruslo.rows("SELECT state, detail FROM ruslo.sources WHERE name = 's'")[0]


@pytest.mark.no_kill("what retention deletes before a checkpoint has it is lost by a kill")
def test_a_loss_that_only_a_later_view_has_is_seen(ruslo, kafka, topic, source):
    """The first view has read what retention then takes; the second one's past begins later."""
    source("s", topic, NUMBERS)
    kafka.produce(topic, numbers(0, 100), 0)
    count_view(ruslo)
    ruslo.wait_rows(COUNT, [(100,)])
    assert source_state(ruslo) == ("running", None)
    kafka.delete_records(topic, {0: 70})
    count_view(ruslo, view="later")
    ruslo.wait_rows("SELECT n FROM later", [(30,)])
    wait_until(lambda: source_state(ruslo)[0] == "data_lost", 10, "the loss as a state")
    assert "0 to 70" in source_state(ruslo)[1]
    assert ruslo.rows(COUNT) == [(100,)]


def test_retention_that_is_met_is_no_error(ruslo, kafka, topic, source):
    """From running to data_lost, without an error between that is none."""
    source("s", topic, NUMBERS)
    kafka.produce(topic, numbers(0, 100), 0)
    kafka.delete_records(topic, {0: 60})
    with ruslo.connect() as connection, ruslo.connect() as other:
        connection.execute("CREATE MATERIALIZED VIEW v AS SELECT count(*) AS n FROM s")
        seen = set()

        def lost():
            seen.add(other.execute("SELECT state FROM ruslo.sources").fetchone()[0])
            return "data_lost" in seen

        wait_until(lost, 20, interval_s=0)
    assert "retrying" not in seen


def recreate(kafka, topic: str, messages: list):
    kafka.delete_topic(topic)
    wait_until(lambda: try_create(kafka, topic), 30, f"{topic} again")
    kafka.produce(topic, messages)


def try_create(kafka, topic: str) -> bool:
    kafka.create_topic(topic)
    return True


@pytest.mark.no_kill("what a checkpoint does not have yet goes with the topic")
@pytest.mark.parametrize("read_on", [True, False], ids=["while_read", "while_idle"])
def test_a_topic_created_anew_is_not_read_on(ruslo, kafka, source, read_on):
    """Its offsets reach beyond the old position, but they stand for other messages."""
    topic = kafka.create_topic(f"anew-{read_on}".lower())
    kafka.produce(topic, numbers(0, 50))
    source("s", topic, NUMBERS)
    count_view(ruslo)
    ruslo.wait_rows(COUNT, [(50,)])
    if not read_on:
        ruslo.execute("DROP MATERIALIZED VIEW v")
    recreate(kafka, topic, numbers(1000, 1200))
    if not read_on:
        with pytest.raises(Exception, match="cannot read the past"):
            count_view(ruslo)
        return
    wait_until(lambda: source_state(ruslo)[0] == "failed", 60, "the new topic as a state")
    assert "deleted and created again" in source_state(ruslo)[1]
    assert ruslo.rows(COUNT) == [(50,)]
    ruslo.execute("DROP SOURCE s CASCADE")
    source("s", topic, NUMBERS)
    count_view(ruslo)
    ruslo.wait_rows(COUNT, [(200,)])


def test_a_topic_created_anew_while_no_server_runs(ruslo, kafka, source):
    """What the checkpoint has stays, and says that it is not read on."""
    topic = kafka.create_topic("anew-meanwhile")
    kafka.produce(topic, numbers(0, 50))
    source("s", topic, NUMBERS)
    count_view(ruslo)
    ruslo.wait_rows(COUNT, [(50,)])
    ruslo.stop()
    recreate(kafka, topic, numbers(1000, 1200))
    ruslo.start()
    assert ruslo.rows(COUNT) == [(50,)]
    wait_until(lambda: source_state(ruslo)[0] == "failed", 60, "the new topic as a state")
    assert "deleted and created again" in source_state(ruslo)[1]


def test_retention_during_an_outage_is_seen(ruslo, kafka, source):
    """The records that were lost while nobody read are named, and reading goes on.

    The messages are as large as a client's fetch, so that few were on their way already.
    """
    topic = kafka.create_topic("short-memory")
    source("s", topic, NUMBERS, properties__fetch__message__max__bytes="10000")
    ruslo.execute("CREATE MATERIALIZED VIEW v AS SELECT count(*) AS n FROM s")
    kafka.produce(topic, numbers(0, 10))
    ruslo.wait_rows(COUNT, [(10,)])
    # The server can't read between: it is halted meanwhile.
    os.kill(ruslo.pid, signal.SIGSTOP)
    try:
        kafka.produce(topic, [{"id": i, "pad": "x" * 1000} for i in range(10, 5000)])
        kafka.delete_records(topic, {0: 4000})
    finally:
        os.kill(ruslo.pid, signal.SIGCONT)
    kafka.produce(topic, numbers(5000, 5010))
    # What the broker had sent before the deletion is counted; the rest may not miss silently.
    wait_until(lambda: ruslo.value(COUNT) >= 1020, 60)
    wait_until(lambda: source_state(ruslo)[0] == "data_lost", 10, "the loss as a state")
    assert "4000" in source_state(ruslo)[1]


@pytest.mark.parametrize(
    "listener, options",
    [
        ("PLAINTEXT", {}),
        ("SSL", {"properties.security.protocol": "SSL"}),
        (
            "SASL_PLAINTEXT",
            {
                "properties.security.protocol": "SASL_PLAINTEXT",
                "properties.sasl.mechanism": "PLAIN",
            },
        ),
        (
            "SASL_SSL",
            {
                "properties.security.protocol": "SASL_SSL",
                "properties.sasl.mechanism": "SCRAM-SHA-512",
            },
        ),
    ],
)
@pytest.mark.parametrize("ca", ["file", "pem"])
def test_ways_to_connect(start_ruslo, kafka, topic, authority, listener, options, ca):
    """The CA is named in the statement; the server's own trust store knows nothing of it."""
    if "SASL" in listener:
        options = options | {
            "properties.sasl.username": kafka.username,
            "properties.sasl.password": kafka.password,
        }
    if "SSL" in listener and ca == "file":
        options = options | {"properties.ssl.ca.location": str(authority.ca)}
    if "SSL" in listener and ca == "pem":
        options = options | {"properties.ssl.ca.pem": authority.ca.read_text()}
    kafka.produce(topic, numbers(0, 10))
    server = start_ruslo(env={"SSL_CERT_FILE": "/etc/ssl/certs/ca-certificates.crt"})
    with_options = "".join(f", {key}='{value}'" for key, value in options.items())
    server.execute(
        f"CREATE SOURCE s (id int) WITH (connector='kafka', topic='{topic}',"
        f" properties.bootstrap.server='{kafka.address(listener)}'{with_options})"
        " FORMAT PLAIN ENCODE JSON",
        "CREATE MATERIALIZED VIEW v AS SELECT count(*) AS n FROM s",
    )
    server.wait_rows(COUNT, [(10,)])
