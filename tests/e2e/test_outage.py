"""Kafka and Redis go away in the middle and come back: nothing lost, nothing twice."""

import signal

import pytest

from services import generate, wait_until

SELECT = "SELECT sum(n)::bigint FROM v"


def pipeline(ruslo, source, topic, redis=None):
    source("s", topic)
    ruslo.execute("CREATE MATERIALIZED VIEW v AS SELECT event, count(*) AS n FROM s GROUP BY event")
    if redis:
        ruslo.execute(
            "CREATE SINK k FROM v WITH (connector='redis', primary_key='event',"
            f" redis.url='{redis.url}') FORMAT PLAIN ENCODE TEMPLATE"
            " (force_append_only='true', key_format='{event}', value_format='{n}')"
        )


def in_redis(redis) -> int:
    return sum(int(value) for value in redis.contents().values())


@pytest.mark.no_kill("a server that starts waits for what it had read, and Kafka is away")
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL], ids=["stopped", "killed"])
def test_kafka_restarts(ruslo, kafka, topic, source, redis, how):
    pipeline(ruslo, source, topic, redis)
    generate(kafka.address(), topic, count=5000)
    ruslo.wait_rows(SELECT, [(5000,)])
    kafka.stop(how)
    # Reads go on without the broker.
    assert ruslo.rows(SELECT) == [(5000,)]
    kafka.start()
    generate(kafka.address(), topic, count=5000, seed=2)
    ruslo.wait_rows(SELECT, [(10_000,)], timeout_s=60)
    wait_until(lambda: in_redis(redis) == 10_000)


def test_kafka_restarts_while_events_flow(ruslo, kafka, topic, source):
    pipeline(ruslo, source, topic)
    sending = generate(kafka.address(), topic, count=20_000, rate=4000, wait=False)
    wait_until(lambda: ruslo.rows(SELECT)[0][0] or 0 > 2000)
    kafka.stop()
    kafka.start()
    out, err = sending.communicate(timeout=120)
    assert sending.returncode == 0, out + err
    # The producer may have sent a message twice: the topic says what is right.
    produced = sum(kafka.end_offsets(topic).values())
    assert produced >= 20_000
    ruslo.wait_rows(SELECT, [(produced,)], timeout_s=60)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL], ids=["stopped", "killed"])
def test_redis_restarts(ruslo, kafka, topic, source, redis, how):
    pipeline(ruslo, source, topic, redis)
    generate(kafka.address(), topic, count=3000)
    wait_until(lambda: in_redis(redis) == 3000)
    redis.stop(how)
    generate(kafka.address(), topic, count=3000, seed=2)
    ruslo.wait_rows(SELECT, [(6000,)])
    wait_until(lambda: sink_state(ruslo) != "running", 30, "the outage visible in SQL")
    redis.start()
    wait_until(lambda: in_redis(redis) == 6000, 30, "Redis caught up")
    wait_until(lambda: sink_state(ruslo) == "running", 30, "the recovery visible in SQL")


def sink_state(ruslo) -> str:
    return ruslo.value("SELECT state FROM ruslo.sinks WHERE name = 'k'")


def test_redis_restarts_while_events_flow(ruslo, kafka, topic, source, redis):
    pipeline(ruslo, source, topic, redis)
    sending = generate(kafka.address(), topic, count=20_000, rate=5000, wait=False)
    wait_until(lambda: in_redis(redis) > 1000)
    redis.stop()
    redis.start()
    assert sending.wait(120) == 0
    ruslo.wait_rows(SELECT, [(20_000,)])
    wait_until(lambda: in_redis(redis) == 20_000, 30, "Redis caught up")


def test_stop_during_outage(start_ruslo, kafka, redis):
    """SIGTERM ends the server although both neighbours are gone; the fixture checks the status."""
    server = start_ruslo()
    topic = kafka.create_topic("outage-stop")
    server.execute(
        "CREATE SOURCE s (event varchar) WITH (connector='kafka', topic='outage-stop',"
        f" properties.bootstrap.server='{kafka.address()}') FORMAT PLAIN ENCODE JSON",
        "CREATE MATERIALIZED VIEW v AS SELECT event, count(*) FROM s GROUP BY event",
        "CREATE SINK k FROM v WITH (connector='redis', primary_key='event',"
        f" redis.url='{redis.url}') FORMAT UPSERT ENCODE JSON",
    )
    kafka.produce(topic, [{"event": "a"}] * 10)
    server.wait_rows("SELECT * FROM v", [("a", 10)])
    kafka.stop(signal.SIGKILL)
    redis.stop(signal.SIGKILL)
    assert server.stop() == 0
