"""What the machine does to a server: full disks, stores that are away, clocks that go back.

Each ends in a clear error, or in waiting and going on; what was acknowledged stays either way.
Mounting small disks takes root or a password-less sudo.
"""

import errno
import glob
import os
import signal
import subprocess
import threading
import time

import psycopg
import pytest
from services import generate, wait_until
from watcher import Watcher

DISK_MB = 16
FAKETIME = "/usr/lib/*/faketime/libfaketimeMT.so.1"


def as_root(*command: str):
    sudo = [] if os.geteuid() == 0 else ["sudo", "-n"]
    done = subprocess.run([*sudo, *command], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.fail(f"{' '.join(command)} takes root or a password-less sudo: {done.stderr}")


@pytest.fixture
def disk(tmp_path):
    """A folder that is a disk of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    options = f"size={DISK_MB}m,mode=700,uid={os.geteuid()},gid={os.getegid()}"
    as_root("mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder))
    yield folder
    as_root("umount", "--lazy", str(folder))


class Inserting:
    """A thread that inserts 1, 2, 3 … into `t` and knows what was acknowledged."""

    def __init__(self, ruslo):
        self.ruslo = ruslo
        self.acknowledged = 0
        self.failure = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join(60)
        assert not self._thread.is_alive(), "an INSERT still waits"

    def wait_for_more(self, count: int = 20, timeout_s: float = 30):
        wanted = self.acknowledged + count
        wait_until(lambda: self.acknowledged >= wanted or self.failure, timeout_s, "more rows")
        assert self.failure is None, self.failure

    def _run(self):
        try:
            with self.ruslo.connect() as connection:
                while not self._stop.is_set():
                    row = (self.acknowledged + 1, "x" * 500)
                    connection.execute("INSERT INTO t VALUES (%s, %s)", row)
                    self.acknowledged += 1
        except psycopg.Error as error:
            self.failure = error


def check_rows(ruslo, acknowledged: int):
    """All that was acknowledged is there; one more may be, of which nobody was told."""
    # Another session sees a row some milliseconds after the one that wrote it.
    wait_until(lambda: ruslo.value("SELECT count(*) FROM t") >= acknowledged, 5, "the last row")
    ids = sorted(row[0] for row in ruslo.rows("SELECT id FROM t"))
    assert ids == list(range(1, len(ids) + 1))
    assert len(ids) in (acknowledged, acknowledged + 1)
    assert ruslo.rows("SELECT n, ids FROM m") == [(len(ids), sum(ids))]


TABLE = (
    "CREATE TABLE t (id bigint, text varchar)",
    "CREATE MATERIALIZED VIEW m AS SELECT count(*) AS n, sum(id)::bigint AS ids FROM t",
)


@pytest.fixture
def pipeline(kafka, topic, redis):
    """Statements that create a way from Kafka to Redis, beside the table."""
    columns = ", ".join(f"column_{number} varchar" for number in range(10))
    return (
        *TABLE,
        f"CREATE SOURCE s (event varchar, {columns}) WITH (connector='kafka', topic='{topic}',"
        f" properties.bootstrap.server='{kafka.address()}') FORMAT PLAIN ENCODE JSON",
        "CREATE MATERIALIZED VIEW v AS SELECT event, count(*) AS n FROM s GROUP BY event",
        f"CREATE SINK k FROM v WITH (connector='redis', primary_key='event',"
        f" redis.url='{redis.url}') FORMAT UPSERT ENCODE TEMPLATE"
        " (key_format='{event}', value_format='{n}')",
    )


# Disks --------------------------------------------------------------------------------------------


def fill(ballast):
    """Writes into a file until the disk has no room for a byte."""
    with open(ballast, "ab", buffering=0) as file:
        for size in (1 << 16, 1 << 12, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError as error:
                assert error.errno == errno.ENOSPC, error


def test_a_full_disk(disk, start_ruslo):
    ruslo = start_ruslo(data=disk / "data")
    ruslo.execute(*TABLE)
    ballast = disk / "ballast"

    def full():
        # Checkpoints and their old files make room now and then.
        fill(ballast)
        status, text = ruslo.http("/healthz")
        assert status == 200, text
        return "No space left" in text

    with Inserting(ruslo) as inserting:
        for _ in range(2):
            inserting.wait_for_more()
            wait_until(full, 30, "a full disk in /healthz")
            waits_at = inserting.acknowledged
            # Reads go on, and what is shown is durable.
            for _ in range(10):
                check_rows(ruslo, waits_at)
            assert inserting.acknowledged == waits_at and inserting.failure is None
            ballast.unlink()
            inserting.wait_for_more()
            assert ruslo.http("/healthz") == (200, "ok\n")
        wait_until(full, 30, "a full disk in /healthz")
        ruslo.kill()
    assert ruslo.log().count("nothing can be made durable now") >= 3
    assert ruslo.log().count("the store can be written again") == 2
    fill(ballast)
    with pytest.raises(RuntimeError, match="No space left"):
        ruslo.start()
    ballast.unlink()
    ruslo.start()
    check_rows(ruslo, inserting.acknowledged)
    ruslo.restart()
    check_rows(ruslo, inserting.acknowledged)


@pytest.mark.parametrize("what", ["an empty folder", "a folder with data"])
def test_a_read_only_disk(disk, start_ruslo, what):
    ruslo = start_ruslo(data=disk / "data")
    if what == "a folder with data":
        ruslo.execute("CREATE TABLE t (id int)", "INSERT INTO t VALUES (1)")
        ruslo.stop()
    else:
        ruslo.stop()
        ruslo.data = disk / "other"
    as_root("mount", "-o", "remount,ro", str(disk))
    with pytest.raises(RuntimeError) as refused:
        ruslo.start()
    message = str(refused.value)
    assert str(ruslo.data) in message and "Read-only file system" in message, message
    assert "panicked" not in message
    as_root("mount", "-o", "remount,rw", str(disk))
    ruslo.start()
    if what == "a folder with data":
        assert ruslo.rows("SELECT * FROM t") == [(1,)]


# A store that is away -----------------------------------------------------------------------------


SEEN = "SELECT sum(n)::bigint FROM v"


def test_a_bucket_away_for_30_seconds(start_ruslo, s3, bucket, pipeline, kafka, topic, redis):
    ruslo = start_ruslo(workers=2, env=s3.env(), store=f"s3://{bucket}/state")
    ruslo.execute(*pipeline)
    total = 1000
    generate(kafka.address(), topic, count=total)
    ruslo.wait_rows(SEEN, [(total,)])

    def in_redis():
        return sum(int(n) for n in redis.contents().values())

    wait_until(lambda: in_redis() == total)

    def stands_still():
        """Whether nothing is acknowledged any more."""
        before = inserting.acknowledged
        time.sleep(0.5)
        return inserting.acknowledged == before

    with Inserting(ruslo) as inserting:
        inserting.wait_for_more()
        s3.process.send_signal(signal.SIGSTOP)
        away_until = time.monotonic() + 31
        try:
            wait_until(stands_still, 10, "the bucket away")
            generate(kafka.address(), topic, count=1000, seed=2)
            waits_at, looks = inserting.acknowledged, 0
            while time.monotonic() < away_until:
                check_rows(ruslo, waits_at)
                assert ruslo.value(SEEN) == in_redis() == total
                looks += 1
                time.sleep(0.05)
            assert inserting.acknowledged == waits_at and looks > 20
            status, text = ruslo.http("/healthz")
            assert status == 200 and "nothing can be written now" in text, text
        finally:
            s3.process.send_signal(signal.SIGCONT)
        inserting.wait_for_more(timeout_s=60)
        total += 1000
        ruslo.wait_rows(SEEN, [(total,)])
        wait_until(lambda: in_redis() == total)
        wait_until(lambda: ruslo.http("/healthz") == (200, "ok\n"))
        assert "nothing can be made durable now" in ruslo.log()
        # Killed while it waits. What it had sent may be carried out when another has taken over.
        s3.process.send_signal(signal.SIGSTOP)
        try:
            wait_until(stands_still, 10, "the bucket away")
            ruslo.kill()
        finally:
            s3.process.send_signal(signal.SIGCONT)
    ruslo.start()
    check_rows(ruslo, inserting.acknowledged)
    assert ruslo.value(SEEN) == in_redis() == total


# Clocks -------------------------------------------------------------------------------------------


@pytest.fixture
def clock(tmp_path):
    return Clock(tmp_path / "clock")


class Clock:
    """The clock of one process, which can be set while that runs; what measures time goes on."""

    def __init__(self, file):
        (library,) = glob.glob(FAKETIME) or pytest.fail(f"{FAKETIME} is missing: run scripts/setup")
        self.file = file
        self.set(0)
        self.env = {
            "LD_PRELOAD": library,
            "FAKETIME_TIMESTAMP_FILE": str(file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def set(self, ahead_s: int):
        """Sets it to so many seconds after the true time."""
        staged = self.file.with_suffix(".new")
        staged.write_text(f"{ahead_s:+d}\n")
        staged.rename(self.file)


HOUR_S = 3600


def ahead_s(ruslo) -> float:
    """How far the server's clock is ahead of the true one."""
    return ruslo.metrics()["ruslo_clock_seconds"] - time.time()


def visible_ahead_s(ruslo) -> float:
    """The same of the newest time that everybody sees."""
    return ruslo.metrics()["ruslo_visible_time_seconds"] - time.time()


def goes_on(ruslo, kafka, topic, redis, number: int):
    """The `number`th row and event are seen at once, and reach Redis and a checkpoint."""
    began = time.monotonic()
    too_long = threading.Timer(20, ruslo.kill)
    too_long.start()
    # Whoever reads the source for others waits for messages, and must now read one more column.
    query = f"SELECT count(column_{number}) AS n FROM s"
    ruslo.execute(f"CREATE MATERIALIZED VIEW later_{number} AS {query}")
    ruslo.execute(f"INSERT INTO t VALUES ({number}, 'x')")
    check_rows(ruslo, number)
    kafka.produce(topic, ['{"event": "a"}'])
    ruslo.wait_rows("SELECT * FROM v", [("a", number)])
    wait_until(lambda: redis.contents() == {"a": str(number)})
    ruslo.execute("FLUSH")
    too_long.cancel()
    assert time.monotonic() - began < 20


def test_a_clock_set_back_before_a_restart(start_ruslo, clock, pipeline, kafka, topic, redis):
    clock.set(HOUR_S)
    ruslo = start_ruslo(workers=2, env=clock.env)
    ruslo.execute(*pipeline)
    goes_on(ruslo, kafka, topic, redis, 1)
    assert ahead_s(ruslo) > HOUR_S - 60 and visible_ahead_s(ruslo) > HOUR_S - 60
    seen = ruslo.metrics()["ruslo_visible_time_seconds"]
    ruslo.kill()
    ruslo.env = {}
    for number in (2, 3):
        ruslo.start()
        assert abs(ahead_s(ruslo)) < 60
        check_rows(ruslo, number - 1)
        goes_on(ruslo, kafka, topic, redis, number)
        # The times go on from where they were.
        before, seen = seen, ruslo.metrics()["ruslo_visible_time_seconds"]
        assert seen > before
        ruslo.kill()
    ruslo.start()
    check_rows(ruslo, 3)


def test_a_clock_set_back_while_the_server_runs(start_ruslo, clock, pipeline, kafka, topic, redis):
    ruslo = start_ruslo(workers=2, env=clock.env)
    ruslo.execute(*pipeline)
    times = [0]

    def look(connection):
        times.append(ruslo.metrics()["ruslo_visible_time_seconds"])
        assert times[-1] >= times[-2]

    with Watcher(ruslo.connect, look, interval_s=0.05):
        for number, ahead in enumerate([0, HOUR_S, 0, -HOUR_S, 0], start=1):
            clock.set(ahead)
            assert abs(ahead_s(ruslo) - ahead) < 60
            goes_on(ruslo, kafka, topic, redis, number)
    assert visible_ahead_s(ruslo) > HOUR_S - 60
    ruslo.restart()
    check_rows(ruslo, 5)


def test_going_on_after_a_restart_with_times_ahead(start_ruslo, clock, pipeline, kafka, topic, redis):
    """As above, and one more row and view when the server is back."""
    ruslo = start_ruslo(workers=2, env=clock.env)
    ruslo.execute(*pipeline)
    for number, ahead in enumerate([0, HOUR_S, 0, -HOUR_S, 0], start=1):
        clock.set(ahead)
        goes_on(ruslo, kafka, topic, redis, number)
    ruslo.restart()
    check_rows(ruslo, 5)
    goes_on(ruslo, kafka, topic, redis, 6)
