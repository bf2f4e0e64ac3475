"""Disk space under endless updates, and what a checkpoint writes: both follow what is there."""

import threading
import time

from services import wait_until
from test_backup import everything

ROWS = 20_000
# Text that no compression makes small, so that sizes are those of the rows.
TEXT = " || ".join(f"md5((i * 8 + {part})::varchar)" for part in range(8))
FILL = f"INSERT INTO t SELECT i, 0, {TEXT} FROM generate_series(1, {ROWS}) AS g(i)"
OFTEN = ("serve", "--checkpoint-interval-ms", "100")


def disk_bytes(ruslo) -> int:
    total = 0
    for path in ruslo.data.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except FileNotFoundError:
            pass
    return total


def stored_bytes(ruslo, table: str) -> int:
    return ruslo.value("SELECT sum(bytes)::bigint FROM ruslo.storage WHERE object = %s", (table,))


def wait_for_checkpoint(ruslo, since=None):
    """Waits for a checkpoint that holds everything up to a time, or up to now."""
    if since is None:
        since = ruslo.value("SELECT now()")
        # Where nothing changes, there is none.
        ruslo.execute("CREATE SCHEMA mark", "DROP SCHEMA mark")
    newest = "SELECT max(time) FROM ruslo.checkpoints"
    wait_until(lambda: ruslo.value(newest) >= since, 60, "a checkpoint")


def test_disk_space_under_endless_updates(start_ruslo):
    """The log never rests, and each row is updated several times over."""
    ruslo = start_ruslo(workers=2, arguments=OFTEN)
    ruslo.execute("CREATE TABLE t (id int PRIMARY KEY, v int, text varchar)", FILL)
    ruslo.execute("CREATE TABLE trickle (id int PRIMARY KEY, v int)", "INSERT INTO trickle VALUES (1, 1)")
    wait_for_checkpoint(ruslo)
    live = stored_bytes(ruslo, "t")
    assert live > ROWS * 200
    stop, samples, failures = threading.Event(), [], []

    def trickle():
        try:
            with ruslo.connect() as connection:
                while not stop.is_set():
                    connection.execute("UPDATE trickle SET v = v + 1")
                    samples.append(disk_bytes(ruslo))
        except Exception as error:  # noqa: BLE001 the test raises it
            failures.append(error)

    trickling = threading.Thread(target=trickle)
    trickling.start()
    try:
        # However slow the machine is, a few rounds are ahead of the checkpoints at most.
        rounds, before = 50, ruslo.value("SELECT now()")
        for number in range(rounds):
            now = ruslo.value("SELECT now()")
            ruslo.execute(f"UPDATE t SET v = v + 1 WHERE id % 40 = {number % 40}")
            wait_for_checkpoint(ruslo, before)
            before = now
    finally:
        stop.set()
        trickling.join(60)
    assert not failures, failures
    assert len(samples) > rounds
    print(f"disk over live: at most {max(samples) / live:.2f}, last {samples[-1] / live:.2f}")
    assert max(samples) <= 3 * live
    # The same rows in one piece have the size that was taken for the live state.
    ruslo.execute(
        "CREATE TABLE again (id int PRIMARY KEY, v int, text varchar)",
        "INSERT INTO again SELECT * FROM t",
        "FLUSH",
    )
    assert ruslo.value("SELECT sum(v) FROM again") == rounds * ROWS // 40
    wait_for_checkpoint(ruslo)
    assert abs(stored_bytes(ruslo, "again") / live - 1) < 0.1
    ruslo.execute("DROP TABLE again")
    wait_until(lambda: disk_bytes(ruslo) <= 1.5 * live, 30, "the end of merging and truncation")


def test_what_is_dropped_takes_no_space(start_ruslo):
    """Also when nothing else changes afterwards."""
    ruslo = start_ruslo(workers=2, arguments=OFTEN)
    for _ in range(3):
        ruslo.execute(
            "CREATE TABLE t (id int PRIMARY KEY, v int, text varchar)",
            FILL.replace(str(ROWS), "2000"),
        )
        wait_for_checkpoint(ruslo)
        assert ruslo.rows("SELECT object FROM ruslo.storage") == [("t",)]
        ruslo.execute("DROP TABLE t")
        wait_until(lambda: ruslo.rows("SELECT * FROM ruslo.storage") == [], 10, "no collections")
        wait_until(lambda: not any((ruslo.data / "runs").iterdir()), 10, "no runs")


def test_a_checkpoint_writes_what_changed(start_ruslo):
    ruslo = start_ruslo(workers=2, arguments=OFTEN)
    ruslo.execute(
        "CREATE TABLE t (id int PRIMARY KEY, v int, text varchar)",
        "CREATE MATERIALIZED VIEW m AS SELECT id, count(*) AS n, sum(v) AS v FROM t GROUP BY id",
        FILL,
    )
    wait_for_checkpoint(ruslo)
    before = {name: content for name, content in everything(ruslo.data).items() if "runs/" in name}
    ruslo.execute("UPDATE t SET v = v + 1 WHERE id % 100 = 0")
    wait_for_checkpoint(ruslo)
    time.sleep(0.5)
    after = {name: content for name, content in everything(ruslo.data).items() if "runs/" in name}
    assert before.keys() <= after.keys(), "what had not changed was written again"
    written = sum(len(after[name]) for name in after.keys() - before.keys())
    # Each row goes and comes.
    assert 0 < written < 0.03 * sum(map(len, before.values()))


def test_what_is_written_at_full_speed_does_not_wait_in_the_log(start_ruslo):
    """A checkpoint is taken when the log is large, and writes wait for it."""
    hour = ("serve", "--checkpoint-interval-ms", "3600000")
    ruslo = start_ruslo(workers=2, arguments=hour)
    ruslo.execute("CREATE TABLE t (id int PRIMARY KEY, v int, text varchar)", FILL)
    with ruslo.connect() as connection:
        largest = 0
        for _ in range(20):
            connection.execute("UPDATE t SET v = v + 1")
            largest = max(largest, sum(f.stat().st_size for f in (ruslo.data / "log").iterdir()))
    # 20,000 rows of about 270 bytes that go and come, 20 times.
    assert largest < 100 << 20, largest
    checkpoints = ruslo.value("SELECT count(*) FROM ruslo.checkpoints")
    assert checkpoints >= 5
    ruslo.restart()
    assert ruslo.rows("SELECT count(*), sum(v) FROM t") == [(ROWS, 20 * ROWS)]
