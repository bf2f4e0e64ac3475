"""Everything is killed under load, again and again, and each event still counts exactly once.

Most kills of the server are aimed: RUSLO_CRASH_AT lets it kill itself in the middle of a step
(`crates/state/src/crash.rs`), and its log says where. RUSLO_TEST_SEED repeats a run's choices.
"""

import collections
import json
import os
import random
import signal
import subprocess
import threading
import time

import psycopg
import pytest
from services import generate, wait_until
from watcher import Watcher

# Where the server is killed, and at which passing at most: what comes rarely must come soon.
POINTS = {
    "binding append": 60,
    "checkpoint write": 8,
    "manifest put": 6,
    "hydration": 12,
    "restore": 2,
    "sink flush": 20,
}
KILLS_OF_EACH = 3
# One more comes before all others.
KILLS_AT_ANY_MOMENT = 6
OTHER_KILLS = 3
EVENTS_PER_SECOND = 1500

VIEWS = {
    "counts": "SELECT event, count(*) AS n FROM s GROUP BY event",
    "total": "SELECT sum(n)::bigint AS n FROM counts",
    "users": 'SELECT "user" AS name, count(*) AS n FROM s GROUP BY "user"',
    # Its rows come and go.
    "thirds": "SELECT name, n FROM users WHERE n % 3 = 0",
}
SINKS = {
    "k_counts": "counts WITH ({common}, primary_key='event') FORMAT PLAIN ENCODE TEMPLATE"
    " (force_append_only='true', key_format='event:{{event}}', value_format='{{n}}')",
    "k_thirds": "thirds WITH ({common}, primary_key='name') FORMAT UPSERT ENCODE TEMPLATE"
    " (key_format='third:{{name}}', value_format='{{n}}')",
}


@pytest.fixture
def pipeline(start_ruslo, kafka, topic, redis):
    ruslo = start_ruslo(workers=2, arguments=("serve", "--checkpoint-interval-ms", "500"))
    common = f"connector='redis', redis.url='{redis.url}'"
    ruslo.execute(
        'CREATE SOURCE s ("user" varchar, page varchar, event varchar) WITH (connector=\'kafka\','
        f" topic='{topic}', properties.bootstrap.server='{kafka.address()}')"
        " FORMAT PLAIN ENCODE JSON",
        *(f"CREATE MATERIALIZED VIEW {name} AS {query}" for name, query in VIEWS.items()),
        *(f"CREATE SINK {name} FROM {sink.format(common=common)}" for name, sink in SINKS.items()),
    )
    return ruslo


@pytest.fixture
def load(kafka, topic, pipeline):
    """Events that come until `stop`."""
    sending = generate(
        kafka.address(), topic, count=10_000_000, rate=EVENTS_PER_SECOND, wait=False,
        # A broker that is away for some seconds is waited for.
        properties={"enable.idempotence": "true", "message.timeout.ms": "120000"},
    )  # fmt: skip
    yield sending
    sending.kill()
    sending.communicate()


class Killer:
    """Kills the server, Redis and Kafka, and has the server always come back."""

    def __init__(self, ruslo, redis, kafka, rng):
        self.ruslo = ruslo
        self.redis = redis
        self.kafka = kafka
        self.rng = rng
        self.hits = collections.Counter()
        self.views_made = 0

    def schedule(self) -> list[tuple[str, str | None]]:
        """For each life of the server: how it ends, and who else is killed meanwhile."""
        ends = [point for point in POINTS for _ in range(KILLS_OF_EACH)]
        ends += ["any moment"] * KILLS_AT_ANY_MOMENT
        self.rng.shuffle(ends)
        lives = range(1, len(ends))
        lives = self.rng.sample(lives, 2 * OTHER_KILLS)
        others = dict(zip(lives, ["redis", "kafka"] * OTHER_KILLS))
        return [(end, others.get(life)) for life, end in enumerate(ends)]

    def live(self, end: str, other: str | None):
        """Starts the server and sees it killed at `end`."""
        passings = self.rng.randint(1, POINTS.get(end, 1))
        said = f"killed at: {end}\n"
        before = self.ruslo.log().count(said)
        if end in POINTS:
            self.ruslo.env["RUSLO_CRASH_AT"] = f"{end}:{passings}"
        self.ruslo.start(wait=False)
        self.ruslo.env.pop("RUSLO_CRASH_AT", None)
        if other:
            self.kill_other(other)
        if end not in POINTS:
            time.sleep(self.rng.uniform(0.05, 2))
            self.ruslo.kill()
        elif end == "hydration":
            self.create_views()
        try:
            status = self.ruslo.wait_ended(40)
        except subprocess.TimeoutExpired:
            pytest.fail(f"not killed at {end}:{passings}\n{self.ruslo.log_tail()}")
        assert status == -signal.SIGKILL, self.ruslo.log_tail()
        assert end not in POINTS or self.ruslo.log().count(said) == before + 1
        self.hits[end] += 1

    def kill_other(self, name: str):
        other = getattr(self, name)
        other.wait_ready()
        other.stop(signal.SIGKILL)
        time.sleep(self.rng.uniform(0.1, 0.6))
        # A broker takes seconds to come back, in which the server is killed as well.
        other.start(wait=name == "redis")
        self.hits[name] += 1

    def create_view(self):
        self.views_made += 1
        query = "SELECT page, count(*) AS n FROM s GROUP BY page"
        self.ruslo.execute(f"CREATE MATERIALIZED VIEW beside_{self.views_made} AS {query}")

    def create_views(self):
        """Creates views, which read all of the past, until the server is gone."""
        wait_until(lambda: not self.ruslo.running() or self.ruslo.ready(), 60, "ready or killed")
        try:
            while True:
                self.create_view()
        except psycopg.OperationalError as error:
            # No answer at all, or no connection.
            assert error.sqlstate is None, error


def look_at_views():
    """What was seen never goes away, and one SELECT sees one time."""
    seen = [0]

    def look(connection):
        counts, users, total = connection.execute(
            "SELECT (SELECT sum(n) FROM counts), (SELECT sum(n) FROM users), (SELECT n FROM total)"
        ).fetchone()
        assert counts == users == total, (counts, users, total)
        assert total >= seen[-1], f"{total} after {seen[-1]}"
        seen.append(total)

    look.seen = seen
    return look


def test_every_event_counts_once_over_kills(pipeline, load, kafka, topic, redis, capsys):
    ruslo, began = pipeline, time.monotonic()
    seed = int(os.environ.get("RUSLO_TEST_SEED", random.randrange(10**6)))
    print(f"RUSLO_TEST_SEED={seed}")
    killer = Killer(ruslo, redis, kafka, random.Random(seed))
    wait_until(lambda: ruslo.value("SELECT n FROM total") > 2 * EVENTS_PER_SECOND)
    look = look_at_views()
    with Watcher(ruslo.connect, look) as watcher:
        ruslo.kill()
        killer.hits["any moment"] += 1
        for end, other in killer.schedule():
            killer.live(end, other)
            watcher.check()
        kafka.wait_ready()
        ruslo.start()
        killing_s = time.monotonic() - began
        assert load.poll() is None, load.communicate()
        killer.create_view()
        load.terminate()
        load.wait(60)
        check(ruslo, [json.loads(payload) for payload in kafka.payloads(topic)], redis)
    hits = killer.hits
    with capsys.disabled():
        print(
            f"\nseed {seed}: {look.seen[-1]} events, {watcher.looks} looks, killed in"
            f" {killing_s:.0f} s of {time.monotonic() - began:.0f} s:"
            f" {', '.join(f'{name} {hits[name]}' for name in sorted(hits))}"
        )
    assert sum(hits[end] for end in [*POINTS, "any moment"]) == 25
    assert all(hits[point] > 0 for point in POINTS)
    assert hits["redis"] == hits["kafka"] == OTHER_KILLS
    assert len(set(look.seen)) > 20


def check(ruslo, events: list[dict], redis):
    """Everything is as the topic says."""
    counts, users, pages = (
        collections.Counter(event[key] for event in events) for key in ("event", "user", "page")
    )
    thirds = {name: n for name, n in users.items() if n % 3 == 0}
    ruslo.wait_rows("SELECT n FROM total", [(len(events),)], timeout_s=60)
    expected = {"counts": counts, "users": users, "thirds": thirds}
    beside = ruslo.rows("SELECT relname FROM pg_class WHERE relname LIKE 'beside%'")
    assert beside
    expected |= {name: pages for (name,) in beside}
    for view, rows in expected.items():
        assert dict(ruslo.rows(f"SELECT * FROM {view}")) == dict(rows), view
    in_redis = {f"event:{event}": str(n) for event, n in counts.items()}
    in_redis |= {f"third:{name}": str(n) for name, n in thirds.items()}
    wait_until(lambda: redis.contents() == in_redis, 60, "Redis equal to the views")
