"""What a wrong statement says: soon, clearly, and without a secret."""

import time

import psycopg
import pytest

from services import Kafka, free_port

WRONG = "wrong-secret-9Zq"


def fails(ruslo, statement: str, within_s: float = 15) -> psycopg.Error:
    began = time.monotonic()
    with pytest.raises(psycopg.Error) as caught:
        ruslo.execute(statement)
    assert time.monotonic() - began < within_s, "the error came late"
    text = f"{caught.value} {caught.value.diag.message_detail} {caught.value.diag.message_hint}"
    for secret in (WRONG, Kafka.password, "redis-secret"):
        assert secret not in text
    return caught.value


def source_statement(**options: str) -> str:
    options = {"connector": "kafka"} | {k.replace("__", "."): v for k, v in options.items()}
    pairs = ", ".join(f"{key}='{value}'" for key, value in options.items())
    return f"CREATE SOURCE s (event varchar) WITH ({pairs}) FORMAT PLAIN ENCODE JSON"


def secured(kafka, topic: str, **options: str) -> str:
    return source_statement(
        **{
            "topic": topic,
            "properties.bootstrap.server": kafka.address("SASL_SSL"),
            "properties.security.protocol": "SASL_SSL",
            "properties.sasl.mechanism": "SCRAM-SHA-256",
            "properties.sasl.username": kafka.username,
            "properties.sasl.password": kafka.password,
        }
        | options
    )


def assert_nothing_was_made(ruslo):
    assert ruslo.rows("SHOW SOURCES") == []


def test_wrong_kafka_password(ruslo, kafka, topic):
    statement = secured(kafka, topic, **{"properties.sasl.password": WRONG})
    error = str(fails(ruslo, statement)).lower()
    assert "authentication" in error or "password" in error or "credentials" in error
    assert_nothing_was_made(ruslo)


def test_untrusted_certificate(start_ruslo, kafka, topic):
    """Without the run's authority in the trust store the broker is not believed."""
    server = start_ruslo(env={"SSL_CERT_FILE": "/etc/ssl/certs/ca-certificates.crt"})
    error = str(fails(server, secured(kafka, topic))).lower()
    assert "certificate" in error or "ssl" in error or "tls" in error


def test_unknown_topic(ruslo, kafka):
    statement = source_statement(
        topic="no_such_topic", **{"properties.bootstrap.server": kafka.address()}
    )
    assert "topic no_such_topic not found" in str(fails(ruslo, statement))
    assert_nothing_was_made(ruslo)


def test_unreachable_kafka(ruslo):
    statement = source_statement(
        topic="t", **{"properties.bootstrap.server": f"127.0.0.1:{free_port()}"}
    )
    fails(ruslo, statement)
    assert_nothing_was_made(ruslo)


def test_unknown_options(ruslo, kafka, topic):
    options = {"topic": topic, "properties.bootstrap.server": kafka.address()}
    error = str(fails(ruslo, source_statement(**options, colour="red")))
    assert "Unknown fields in the WITH clause" in error and "colour" in error
    fails(ruslo, source_statement(**options, scan__startup__mode="yesterday"))
    fails(ruslo, source_statement(**options, **{"properties.no.such.setting": "1"}))
    fails(ruslo, source_statement(topic=topic))
    fails(ruslo, source_statement(**{"properties.bootstrap.server": kafka.address()}))
    assert_nothing_was_made(ruslo)


UPSERT_JSON = "FORMAT UPSERT ENCODE JSON"


def sink_statement(url: str, tail: str = UPSERT_JSON, key: str | None = "id") -> str:
    key = f" primary_key='{key}'," if key else ""
    return f"CREATE SINK k FROM t WITH (connector='redis',{key} redis.url='{url}') {tail}"


@pytest.fixture
def table(ruslo):
    ruslo.execute("CREATE TABLE t (id int PRIMARY KEY, name varchar)")


def test_unreachable_redis(ruslo, table):
    fails(ruslo, sink_statement(f"redis://ruslo:{WRONG}@127.0.0.1:{free_port()}"))
    assert ruslo.rows("SHOW SINKS") == []


def test_wrong_redis_password(ruslo, table, redis_acl, redis_tls):
    for server in (redis_acl, redis_tls):
        error = str(fails(ruslo, sink_statement(server.url.replace("redis-secret-4Zk", WRONG))))
        assert "password" in error.lower() or "auth" in error.lower()
    assert ruslo.rows("SHOW SINKS") == []


def test_redis_with_and_without_tls(ruslo, table, redis, redis_tls):
    """Who takes one for the other is told so."""
    plain = str(fails(ruslo, sink_statement(redis.url.replace("redis://", "rediss://"))))
    assert "does the port speak TLS" in plain, plain
    tls = str(fails(ruslo, sink_statement(redis_tls.url.replace("rediss://", "redis://"))))
    assert "does the port expect TLS" in tls, tls


def test_sink_options(ruslo, table, redis):
    def error(tail, **options):
        return str(fails(ruslo, sink_statement(redis.url, tail, **options)))

    template = "FORMAT UPSERT ENCODE TEMPLATE"
    assert "Redis Sink Primary Key must be specified" in error(
        "FORMAT UPSERT ENCODE JSON", key=None
    )
    assert "Cannot find 'key_format'" in error(f"{template} (value_format='{{name}}')")
    assert "force_append_only" in error("FORMAT PLAIN ENCODE JSON")
    assert "missing" in error(f"{template} (key_format='{{missing}}', value_format='{{name}}')")
    assert "name" in error(f"{template} (key_format='{{name}}', value_format='{{name}}')")
    assert "colour" in error("FORMAT UPSERT ENCODE JSON (colour='red')")
    assert "nothing" in error("FORMAT UPSERT ENCODE JSON", key="nothing")
    named = fails(ruslo, sink_statement(redis.url, "FORMAT UPSERT ENCODE JSON", key="ID"))
    assert "id, name" in named.diag.message_hint
    assert ruslo.rows("SHOW SINKS") == []


def test_secrets_stay_hidden(ruslo, kafka, topic, redis_acl):
    """Neither catalogs nor definitions nor metrics show a password; the fixture reads the log."""
    ruslo.execute(
        secured(kafka, topic),
        "CREATE MATERIALIZED VIEW v AS SELECT event, count(*) FROM s GROUP BY event",
        "CREATE SINK k FROM v WITH (connector='redis', /* redis-secret */ primary_key='event',"
        f" redis.url='{redis_acl.url}') -- {kafka.password}\n FORMAT UPSERT ENCODE JSON",
    )
    shown = [str(ruslo.rows(f"SHOW CREATE {what}")) for what in ("SOURCE s", "SINK k")]
    relations = ruslo.rows(
        "SELECT n.nspname, c.relname FROM pg_catalog.pg_class c"
        " JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
        " WHERE n.nspname <> 'public'"
    )
    assert ("ruslo", "sources") in relations and ("ruslo", "sinks") in relations
    shown += [str(ruslo.rows(f'SELECT * FROM "{s}"."{r}"')) for s, r in relations]
    shown += [ruslo.http(path)[1] for path in ("/metrics", "/healthz")]
    for text in shown:
        assert kafka.password not in text and "redis-secret" not in text, text[:2000]


@pytest.mark.parametrize(
    "statement, sqlstate",
    [
        ("SELEC 1", "42601"),
        ("SELECT * FROM nowhere", "42P01"),
        ("SELECT nothing FROM t", "42703"),
        ("SELECT no_such_function(1)", "42883"),
        ("SELECT 1/0", "22012"),
        ("SELECT 'x'::int", "22P02"),
        ("SELECT 2147483647 + 1", "22003"),
        ("CREATE TABLE t (id int)", "42P07"),
        ("INSERT INTO t VALUES (1, 'a', 'b')", "42601"),
        ("DROP TABLE nowhere", "42P01"),
    ],
)
def test_sqlstate(ruslo, table, statement, sqlstate):
    assert fails(ruslo, statement).sqlstate == sqlstate
