"""The article's pipeline, word for word, exact to the event."""

import ast
import collections
import json
import pathlib
import subprocess
import sys

import pytest
from conftest import ARTICLE

from services import generate, wait_until

EVENTS = {"click", "scroll", "submit", "download", "focus"}


@pytest.fixture
def article_topic(kafka):
    """The article's topic is called `test`. Events of earlier tests stay: it reads the latest."""
    try:
        kafka.create_topic("test", 2)
    except Exception as error:  # noqa: BLE001 the client's own class differs by version
        if "exists" not in str(error):
            raise
    kafka.produce("test", ['{"event": "before the source"}'] * 10)
    return "test"


def statements(kafka, redis_url: str) -> list[str]:
    """The article's statements; only host, port and credentials are replaced."""
    text = ARTICLE.replace(
        "redis://your-username:your-password@your-host:your-host", redis_url
    )
    text = text.replace("your-host:your-port", kafka.address("SASL_SSL"))
    text = text.replace("your-username", kafka.username)
    text = text.replace("your-password", kafka.password)
    assert "your-" not in text
    return [part.strip() for part in text.split(";") if part.strip()]


def counts_of(payloads: list[bytes]) -> dict[str, int]:
    return dict(collections.Counter(json.loads(payload)["event"] for payload in payloads))


def assert_exact(ruslo, redis, select: str, counts: dict[str, int]):
    ruslo.wait_rows(select, list(counts.items()))
    wanted = {event: str(count) for event, count in counts.items()}
    wait_until(lambda: redis.contents() == wanted, 30, "Redis equal to the view")


@pytest.mark.parametrize("redis_kind", ["redis", "redis_acl", "redis_tls"])
def test_generated_events(request, ruslo, kafka, authority, article_topic, redis_kind):
    redis = request.getfixturevalue(redis_kind)
    *creates, select = statements(kafka, redis.url)
    ruslo.execute(*creates)
    start = kafka.end_offsets(article_topic)
    generate(
        kafka.address("SASL_SSL"),
        article_topic,
        count=20_000,
        properties=kafka.login(),
        env={"SSL_CERT_FILE": str(authority.ca)},
    )
    counts = counts_of(kafka.payloads(article_topic, start))
    assert sum(counts.values()) == 20_000 and set(counts) == EVENTS
    assert_exact(ruslo, redis, select, counts)
    # Run again, every statement is a notice and changes nothing.
    ruslo.execute(*creates)
    assert_exact(ruslo, redis, select, counts)


def test_article_in_one_psql_script(ruslo, kafka, redis, article_topic, tmp_path):
    script = tmp_path / "article.sql"
    script.write_text(";\n".join(statements(kafka, redis.url)) + ";\n")
    done = ruslo.psql(flags=("-f", str(script), "-v", "ON_ERROR_STOP=1"))
    assert done.returncode == 0, done.stderr
    assert "(0 rows)" in done.stdout
    header = [name.strip() for name in done.stdout.splitlines()[-4].split("|")]
    assert header == ["event", "count"], done.stdout


def test_python_producer(ruslo, kafka, redis, authority, article_topic, monkeypatch):
    *creates, select = statements(kafka, redis.url)
    ruslo.execute(*creates)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.ca))
    script = pathlib.Path(__file__).with_name("article_producer.py")
    login = (kafka.username, kafka.password)
    done = subprocess.run(
        [sys.executable, script, kafka.address("SASL_SSL"), *login, article_topic, "300"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    sent = [
        ast.literal_eval(line.partition("Payload ")[2])
        for line in done.stdout.splitlines()
        if "Payload" in line
    ]
    assert len(sent) == 300
    assert_exact(ruslo, redis, select, dict(collections.Counter(e["event"] for e in sent)))


def test_generator_is_the_articles(kafka, topic):
    """Same fields and kinds of value as the article's script; a seed repeats them."""
    options = {"count": 500, "seed": 7, "extra": ("--users", "50", "--pages", "10")}
    done = generate(kafka.address(), topic, **options, rate=5000)
    events = [json.loads(payload) for payload in kafka.payloads(topic)]
    assert len(events) == 500, done.stderr
    assert all(list(e) == ["event_timestamp", "user", "page", "event"] for e in events)
    assert {e["event"] for e in events} == EVENTS
    assert len({e["user"] for e in events}) <= 50 and len({e["page"] for e in events}) <= 10
    assert all("@" in e["user"] and e["page"].startswith("http") for e in events)
    again = kafka.create_topic(f"{topic}-again", 2)
    generate(kafka.address(), again, **options)
    repeated = [json.loads(payload) for payload in kafka.payloads(again)]

    def without_time(events):
        return sorted((e["user"], e["page"], e["event"]) for e in events)

    assert without_time(events) == without_time(repeated)


def test_generator_shows_messages(kafka, topic):
    done = generate(kafka.address(), topic, count=5, extra=("--verbose",))
    shown = done.stdout + done.stderr
    assert shown.count('"event_timestamp"') + shown.count("'event_timestamp'") == 5, shown
