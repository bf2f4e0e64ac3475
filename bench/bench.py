"""`make bench`: Ruslo beside hand-written programs, on one machine, one Kafka, one set of settings.

Every figure is the median of BENCH_RUNS runs (5) over BENCH_EVENTS events (10,000,000), taken in
turn: (a) raw consume, (b) hand-written count, (c) Ruslo. It ends with one line of key=value
figures; ratios are of events per second, so 1 means as fast.
"""

import math
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

from services import Authority, Kafka, Redis, Ruslo, generate, wait_until
from services.process import cache_dir

EVENTS = int(os.environ.get("BENCH_EVENTS", 10_000_000))
RUNS = int(os.environ.get("BENCH_RUNS", 5))
FRESHNESS_SECONDS = int(os.environ.get("BENCH_FRESHNESS_SECONDS", 20))
FRESHNESS_RATE = 10_000
IDLE_SECONDS = 10
PARTITIONS = 2
DISK_GROUPS = 200_000
CHECKPOINT_GROUPS = 1_000_000
GROUPS = {"10k": 10_000, "1m": 1_000_000}

# The client's settings, the same for all three. They are Ruslo's own defaults, written out.
CLIENT = {
    "queued.min.messages": "50000",
    "queued.max.messages.kbytes": "16384",
    "fetch.message.max.bytes": "1048576",
    "fetch.max.bytes": "8388608",
    "fetch.wait.max.ms": "50",
    "fetch.queue.backoff.ms": "2",
}
HAND_WRITTEN_MIN = 0.35
PARSERS = ("serde_json", "sonic-rs")


def main():
    directory = pathlib.Path(tempfile.mkdtemp(prefix="ruslo-bench-"))
    directory.chmod(0o755)
    try:
        authority = Authority(directory / "tls")
        kafka = Kafka(directory / "kafka", authority, heap_mb=1024, fast_start=False)
        with kafka, Redis(directory / "redis") as redis:
            Bench(directory, kafka, redis).run()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def note(text: str):
    print(text, file=sys.stderr, flush=True)


def program(name: str, *arguments: str) -> list[str]:
    target = os.environ.get("CARGO_TARGET_DIR", cache_dir() / "target")
    command = [f"{target}/release/{name}", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
    return done.stdout.splitlines()


def figures(line: str) -> dict[str, float]:
    return {key: float(value) for key, value in (part.split("=") for part in line.split())}


def runs(server: Ruslo) -> dict[str, int]:
    """The files of the collections and their bytes."""
    return {path.name: path.stat().st_size for path in server.data.glob("runs/*.arrow")}


def disk_bytes(server: Ruslo) -> int:
    """All that the data folder takes; files may go meanwhile."""
    total = 0
    for path in server.data.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except FileNotFoundError:
            pass
    return total


class Bench:
    def __init__(self, directory: pathlib.Path, kafka: Kafka, redis: Redis):
        self.directory = directory
        self.kafka = kafka
        self.redis = redis
        self.servers = 0
        self.parser = PARSERS[0]

    def run(self):
        note(f"producing {EVENTS:,} events")
        clean = self.kafka.create_topic("clean", PARTITIONS)
        generate(
            self.kafka.address(), clean, EVENTS, partitions=PARTITIONS, seed=1, profile="release"
        )
        bad = self.kafka.create_topic("bad", PARTITIONS)
        program("fill", "spoil", self.kafka.address(), clean, bad)

        self.parser = min(PARSERS, key=lambda parser: self.counted(clean, parser)["cpu_s"])
        note(f"(b) decodes with {self.parser}, the faster of {' and '.join(PARSERS)}")
        runs = {name: [] for name in ("a", "b", "c", "b_bad", "c_bad")}
        for number in range(1, RUNS + 1):
            runs["a"].append(self.hand_written("raw_consume", clean)[0])
            runs["b"].append(self.counted(clean))
            runs["c"].append(self.ruslo(clean, runs["b"][-1]))
            runs["b_bad"].append(self.counted(bad))
            runs["c_bad"].append(self.ruslo(bad, runs["b_bad"][-1]))
            walls = ", ".join(f"{name} {run[-1]['wall_s']:.2f} s" for name, run in runs.items())
            note(f"run {number} of {RUNS}: {walls}")
        for topic in (clean, bad):
            self.kafka.delete_topic(topic)
        groups = {name: self.groups(name, users) for name, users in GROUPS.items()}
        freshness = self.freshness()
        disk = self.disk()
        idle = self.idle()
        middle = {name: medians(several) for name, several in runs.items()}
        self.report(middle, groups, freshness, disk, idle)

    def hand_written(self, name: str, topic: str, *options: str) -> list:
        settings = [f"{key}={value}" for key, value in CLIENT.items()]
        first, *rest = program(name, self.kafka.address(), topic, *options, *settings)
        run = figures(first)
        assert run["events"] == EVENTS, f"{name} saw {run['events']:.0f} of {EVENTS} events"
        return [run, rest]

    def counted(self, topic: str, parser: str | None = None) -> dict:
        """(b), with the counts that (c) must reach."""
        run, lines = self.hand_written("hand_count", topic, parser or self.parser)
        counts = (line.rsplit(" ", 1) for line in lines)
        return run | {"counts": {event: int(count) for event, count in counts}}

    def server(self) -> Ruslo:
        self.servers += 1
        return Ruslo(self.directory / f"ruslo-{self.servers}", profile="release")

    def create_source(self, connection, topic: str):
        settings = "".join(f", properties.{key}='{value}'" for key, value in CLIENT.items())
        connection.execute(
            "CREATE SOURCE user_events (event_timestamp TIMESTAMP, user VARCHAR, page VARCHAR,"
            f" event VARCHAR) WITH (connector='kafka', topic='{topic}',"
            f" properties.bootstrap.server='{self.kafka.address()}'{settings})"
            " FORMAT PLAIN ENCODE JSON"
        )

    def create_view(self, connection, column: str = "event"):
        connection.execute(
            f'CREATE MATERIALIZED VIEW v AS SELECT "{column}", COUNT(*) FROM user_events'
            f' GROUP BY "{column}"'
        )

    def ruslo(self, topic: str, hand: dict) -> dict:
        """(c): the article's pipeline from its first CREATE until view and Redis are both exact."""
        wanted = hand["counts"]
        in_redis = {event: str(count) for event, count in wanted.items()}
        with self.redis.client() as client:
            client.flushall()
        with self.server() as server, server.connect() as connection:
            cpu_before, began = server.cpu_seconds(), time.monotonic()
            self.create_source(connection, topic)
            self.create_view(connection)
            connection.execute(
                "CREATE SINK k FROM v WITH (connector='redis', primary_key='event',"
                f" redis.url='{self.redis.url}') FORMAT PLAIN ENCODE TEMPLATE"
                " (force_append_only='true', key_format='{event}', value_format='{count}')"
            )
            query = "SELECT event, count FROM v"

            def exact():
                return dict(connection.execute(query).fetchall()) == wanted

            wait_until(exact, 600, "the view exact", interval_s=0.01)
            wait_until(lambda: self.redis.contents() == in_redis, 60, "Redis exact", 0.01)
            wall, cpu = time.monotonic() - began, server.cpu_seconds() - cpu_before
            errors = connection.execute("SELECT decode_errors FROM ruslo.sources").fetchone()[0]
            assert errors == hand["undecodable"], f"{errors} decode errors counted"
            return {"wall_s": wall, "cpu_s": cpu, "peak_mb": server.memory_peak_mb()}

    def groups(self, name: str, users: int) -> dict:
        """CPU of a count over many groups, until every event has been read and is counted."""
        topic = self.kafka.create_topic(f"groups-{name}", PARTITIONS)
        note(f"counting over {users:,} groups")
        program("fill", "groups", self.kafka.address(), topic, str(EVENTS), str(users))
        runs = []
        for _ in range(min(RUNS, 3)):
            with self.server() as server, server.connect() as connection:
                cpu_before, began = server.cpu_seconds(), time.monotonic()
                self.create_source(connection, topic)
                self.create_view(connection, "user")

                def all_read():
                    rows = connection.execute("SELECT rows FROM ruslo.sources").fetchone()[0]
                    return rows >= EVENTS

                # A SELECT over all groups is dear: it is asked only when everything was read.
                wait_until(all_read, 900, "the topic read", interval_s=0.1)
                query = "SELECT coalesce(sum(count), 0)::bigint FROM v"

                def all_counted():
                    return connection.execute(query).fetchone()[0] == EVENTS

                wait_until(all_counted, 300, query)
                runs.append(
                    {
                        "wall_s": time.monotonic() - began,
                        "cpu_s": server.cpu_seconds() - cpu_before,
                        "peak_mb": server.memory_peak_mb(),
                    }
                )
                if len(runs) == min(RUNS, 3):
                    restart = self.restart(server, query)
        self.kafka.delete_topic(topic)
        return medians(runs) | restart

    def restart(self, server: Ruslo, query: str) -> dict:
        """Kills a server and times the next one until its first right answer."""
        self.wait_for_rest(server)
        steady = server.memory_mb()
        disk_mb = disk_bytes(server) / 2**20
        server.kill()
        began = time.monotonic()
        server.start(wait=False)
        wait_until(lambda: server.value(query) == EVENTS, 600, query, interval_s=0.01)
        return {
            "restart_s": time.monotonic() - began,
            "restart_peak_over_steady": server.memory_peak_mb() / steady,
            "disk_mb": disk_mb,
        }

    def freshness(self) -> dict:
        note(f"freshness at {FRESHNESS_RATE:,} events/s for {FRESHNESS_SECONDS} s")
        # Gigabytes of the steps before would go to the disk, or from it, in the way of every fsync.
        time.sleep(5)
        os.sync()
        topic = self.kafka.create_topic("fresh", PARTITIONS)
        with self.server() as server, server.connect() as connection:
            # Default settings: the source names nothing but the broker and the topic.
            connection.execute(
                "CREATE SOURCE user_events (event VARCHAR) WITH (connector='kafka', topic='fresh',"
                f" properties.bootstrap.server='{self.kafka.address()}') FORMAT PLAIN ENCODE JSON"
            )
            self.create_view(connection)
            (line,) = program(
                "freshness", self.kafka.address(), topic, server.dsn, "v",
                str(FRESHNESS_RATE), str(FRESHNESS_SECONDS),
            )  # fmt: skip
        return figures(line)

    def disk(self) -> dict:
        """Bytes on disk while all groups change over and over, and what a checkpoint writes."""
        note(f"{EVENTS:,} updates of {DISK_GROUPS:,} groups")
        topic = self.kafka.create_topic("disk", PARTITIONS)
        with self.server() as server, server.connect() as connection:
            self.create_source(connection, topic)
            self.create_view(connection, "user")
            target = os.environ.get("CARGO_TARGET_DIR", cache_dir() / "target")
            filling = subprocess.Popen(
                [f"{target}/release/fill", "groups", self.kafka.address(), topic, str(EVENTS),
                 str(DISK_GROUPS)]
            )  # fmt: skip
            samples = []
            read = "SELECT rows FROM ruslo.sources"
            while filling.poll() is None or connection.execute(read).fetchone()[0] < EVENTS:
                samples.append(disk_bytes(server))
                time.sleep(0.02)
            assert filling.returncode == 0
            self.wait_for_rest(server)
            samples.append(disk_bytes(server))
            # The groups are all known early: what was merged last is the live state.
            live = max(runs(server).values())
            found = {"peak_over_live": max(samples) / live, "end_over_live": samples[-1] / live}
        self.kafka.delete_topic(topic)
        note(f"checkpoints of {CHECKPOINT_GROUPS:,} groups")
        topic = self.kafka.create_topic("checkpoints", PARTITIONS)
        with self.server() as server, server.connect() as connection:
            self.create_source(connection, topic)
            self.create_view(connection, "user")
            written, read = [], 0
            # The second time about one group in a hundred changes.
            for events in (CHECKPOINT_GROUPS, CHECKPOINT_GROUPS // 100):
                before = runs(server)
                program(
                    "fill", "groups", self.kafka.address(), topic, str(events),
                    str(CHECKPOINT_GROUPS),
                )  # fmt: skip
                read += events
                query = "SELECT coalesce(sum(count), 0)::bigint FROM v"
                wait_until(lambda read=read: server.value(query) == read, 300, query)
                self.wait_for_rest(server)
                after = runs(server)
                changed = min(events, server.value("SELECT count(*) FROM v"))
                written.append(sum(after[name] for name in after.keys() - before.keys()) / changed)
            found["bytes_per_row_all"], found["bytes_per_row_1_percent"] = written
        self.kafka.delete_topic(topic)
        return found

    def wait_for_rest(self, server: Ruslo):
        """Waits until nothing has changed since the last checkpoint."""
        recent = (
            "SELECT sum(changes) FROM ruslo.checkpoints"
            " WHERE time > now() - interval '2 seconds'"
        )
        time.sleep(2)
        wait_until(lambda: server.value(recent) in (0, None), 60, "the last checkpoint")

    def idle(self) -> float:
        with self.server() as server:
            before = server.cpu_seconds()
            time.sleep(IDLE_SECONDS)
            return 100 * (server.cpu_seconds() - before) / IDLE_SECONDS

    def report(self, runs: dict, groups: dict, freshness: dict, disk: dict, idle: float):
        rows = {
            "(a) raw consume": runs["a"],
            "(b) hand-written count": runs["b"],
            "(c) Ruslo": runs["c"],
            "(b) with 1 % broken": runs["b_bad"],
            "(c) with 1 % broken": runs["c_bad"],
            "Ruslo, 10 k groups": groups["10k"],
            "Ruslo, 1 M groups": groups["1m"],
        }
        print(f"\n{EVENTS:,} events, {PARTITIONS} partitions, medians of {RUNS} runs\n")
        print(f"{'':24}{'wall s':>9}{'M ev/s':>9}{'CPU s':>9}{'µs CPU/ev':>11}{'peak MB':>9}")
        for name, run in rows.items():
            print(
                f"{name:24}{run['wall_s']:9.2f}{EVENTS / run['wall_s'] / 1e6:9.2f}"
                f"{run['cpu_s']:9.2f}{run['cpu_s'] / EVENTS * 1e6:11.3f}"
                + (f"{run['peak_mb']:9.0f}" if "peak_mb" in run else f"{'':>9}")
            )
        print(
            f"\nfreshness at {FRESHNESS_RATE:,} events/s: p50 {freshness['p50_ms']:.1f} ms,"
            f" p99 {freshness['p99_ms']:.1f} ms, most {freshness['max_ms']:.1f} ms"
        )
        print(
            f"restart with 1 M groups: {groups['1m']['restart_s']:.2f} s to the first right answer,"
            f" {groups['1m']['disk_mb']:.0f} MB on disk"
        )
        print(
            f"disk over live state, {DISK_GROUPS:,} groups that all change: at most"
            f" {disk['peak_over_live']:.2f}, at the end {disk['end_over_live']:.2f}"
        )
        print(
            f"checkpoints write {disk['bytes_per_row_all']:.1f} bytes a group while"
            f" {CHECKPOINT_GROUPS:,} come, {disk['bytes_per_row_1_percent']:.1f} a group when 1 %"
            " of them change\n"
        )

        def faster(one: str, other: str, what: str) -> float:
            """How many events a second `one` makes of what `other` makes."""
            return runs[other][what] / runs[one][what] if runs[one][what] else math.nan

        last = {
            "b_over_a_wall": faster("b", "a", "wall_s"),
            "c_over_a_wall": faster("c", "a", "wall_s"),
            "c_over_b_wall": faster("c", "b", "wall_s"),
            "c_over_b_cpu": faster("c", "b", "cpu_s"),
            "bad_c_over_b_wall": faster("c_bad", "b_bad", "wall_s"),
            "groups_1m_over_10k_cpu": groups["1m"]["cpu_s"] / groups["10k"]["cpu_s"],
            "freshness_p50_ms": freshness["p50_ms"],
            "freshness_p99_ms": freshness["p99_ms"],
            "peak_mb": runs["c"]["peak_mb"],
            "idle_cpu_percent": idle,
            "restart_1m_groups_s": groups["1m"]["restart_s"],
            "restart_peak_over_steady": groups["1m"]["restart_peak_over_steady"],
            "disk_1m_groups_mb": groups["1m"]["disk_mb"],
            "disk_over_live": disk["peak_over_live"],
            "disk_over_live_end": disk["end_over_live"],
            "checkpoint_bytes_per_row": disk["bytes_per_row_all"],
            "checkpoint_bytes_per_changed_row": disk["bytes_per_row_1_percent"],
        }
        straw_man = last["b_over_a_wall"] < HAND_WRITTEN_MIN
        if straw_man:
            note(f"the hand-written program is no bar: slower than {HAND_WRITTEN_MIN} of (a)")
        print(" ".join(f"{key}={value:.2f}" for key, value in last.items()))
        if straw_man:
            raise SystemExit(1)


def medians(runs: list[dict]) -> dict:
    return {
        key: statistics.median(run[key] for run in runs)
        for key in ("wall_s", "cpu_s", "peak_mb")
        if key in runs[0]
    }


if __name__ == "__main__":
    main()
