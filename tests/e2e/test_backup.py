"""`ruslo backup` and `ruslo restore`, while the server works and when it does not."""

import contextlib
import os
import random
import subprocess
import threading

import pytest
from services import Ruslo, generate, wait_until
from services.redis import PASSWORD as REDIS_PASSWORD
from services.ruslo import binary
from services.s3 import SECRET_KEY as S3_SECRET
from test_article import counts_of

CLIENTS = 3
ACCOUNTS = 20
OPENING = 1000
COUNTS = "SELECT event, count FROM events"


def command(*arguments: str, env=None) -> subprocess.CompletedProcess:
    done = subprocess.run(
        [binary(), *map(str, arguments)],
        env=os.environ | (env or {}),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    shown = done.stdout + done.stderr
    assert "panicked" not in shown
    for secret in (S3_SECRET, REDIS_PASSWORD):
        assert secret not in shown
    return done


def succeeds(*arguments: str, env=None) -> str:
    done = command(*arguments, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def refused(*arguments: str, env=None) -> str:
    done = command(*arguments, env=env)
    assert done.returncode == 1 and done.stdout == "", done
    return done.stderr


def place(ruslo) -> list[str]:
    """The flags that name what a server keeps."""
    store = ["--store", ruslo.store] if ruslo.store else []
    return ["--data-dir", str(ruslo.data), *store]


def everything(folder) -> dict[str, bytes]:
    """The files that belong to the data."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != "lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


class Load:
    """Clients that count up, each its own rows, and that move money between accounts."""

    def __init__(self, ruslo):
        self.ruslo = ruslo
        self.acknowledged = [0] * CLIENTS
        self.tried = [0] * CLIENTS
        self.stop = threading.Event()
        self.failures = []
        ruslo.execute(
            "CREATE TABLE journal (client int, n int)",
            "CREATE TABLE accounts (id int PRIMARY KEY, balance int)",
            "CREATE MATERIALIZED VIEW counted AS SELECT client, count(*) AS n, max(n) AS newest"
            " FROM journal GROUP BY client",
            "CREATE MATERIALIZED VIEW total AS SELECT sum(balance) AS balance FROM accounts",
            f"INSERT INTO accounts SELECT i, {OPENING} FROM generate_series(1, {ACCOUNTS}) AS g(i)",
        )

    @contextlib.contextmanager
    def running(self):
        threads = [threading.Thread(target=self.run, args=(i,)) for i in range(CLIENTS)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self.stop.set()
            for thread in threads:
                thread.join(60)
        assert not self.failures, self.failures

    def run(self, client: int):
        rng = random.Random(client)
        try:
            with self.ruslo.connect() as connection:
                while not self.stop.is_set():
                    self.tried[client] += 1
                    connection.execute(f"INSERT INTO journal VALUES ({client}, {self.tried[client]})")
                    self.acknowledged[client] += 1
                    payer, payee = rng.sample(range(1, ACCOUNTS + 1), 2)
                    # Both in one statement.
                    connection.execute(
                        "UPDATE accounts SET balance = balance + CASE id WHEN"
                        f" {payer} THEN -7 ELSE 7 END WHERE id IN ({payer}, {payee})"
                    )
        except Exception as error:  # noqa: BLE001 the test raises it
            self.failures.append(error)

    def check(self, restored, least: list[int], most: list[int]):
        counted = {client: (n, newest) for client, n, newest in restored.rows("SELECT * FROM counted")}
        for client in range(CLIENTS):
            query = f"SELECT n FROM journal WHERE client = {client} ORDER BY n"
            rows = [n for (n,) in restored.rows(query)]
            assert rows == list(range(1, len(rows) + 1))
            assert least[client] <= len(rows) <= most[client]
            assert counted.get(client, (0, 0)) == (len(rows), len(rows))
        expected = [(ACCOUNTS * OPENING,)]
        assert restored.rows("SELECT sum(balance) FROM accounts") == expected
        assert restored.rows("SELECT balance FROM total") == expected


@pytest.fixture(params=["folder", "bucket"])
def busy(request, start_ruslo, authority, s3):
    """A server that makes ten checkpoints a second."""
    store = None
    if request.param == "bucket":
        store = f"s3://{request.getfixturevalue('bucket')}/state"
    return start_ruslo(
        workers=2,
        env=s3.env() | {"SSL_CERT_FILE": str(authority.ca)},
        arguments=("serve", "--checkpoint-interval-ms", "100"),
        store=store,
    )


def test_backups_of_a_server_at_work(busy, start_ruslo, s3, kafka, topic, tmp_path):
    """Several in a row, into folders and buckets: all that was acknowledged, and nothing by half."""
    load = Load(busy)
    busy.execute(
        f"CREATE SOURCE s (event varchar) WITH (connector='kafka', topic='{topic}',"
        f" properties.bootstrap.server='{kafka.address()}') FORMAT PLAIN ENCODE JSON",
        "CREATE MATERIALIZED VIEW events AS SELECT event, count(*) FROM s GROUP BY event",
    )
    sending = generate(kafka.address(), topic, count=8000, rate=1500, wait=False)
    wait_until(lambda: busy.value("SELECT sum(count) FROM events") > 100, 30, "events")
    backups = []
    other = s3.create_bucket(f"backups-{topic}")
    with load.running():
        wait_until(lambda: min(load.acknowledged) > 5, 30, "work of all clients")
        for number in range(4):
            target = tmp_path / f"b{number}" if number % 2 else f"s3://{other}/b{number}"
            least = list(load.acknowledged)
            shown = succeeds("backup", *place(busy), "--to", target, env=s3.env())
            assert f"to {target}" in shown and "secret.key is not in the backup" in shown
            backups.append((target, least, list(load.tried)))
    checkpoints = busy.value("SELECT count(*) FROM ruslo.checkpoints")
    assert checkpoints > 10, "the backups were alone"
    out, err = sending.communicate(timeout=120)
    assert sending.returncode == 0, out + err
    expected = list(counts_of(kafka.payloads(topic)).items())
    busy.wait_rows(COUNTS, expected)

    for number, (target, least, most) in enumerate(backups):
        data = tmp_path / f"restored-{number}"
        store = None if number % 3 else f"s3://{other}/restored-{number}"
        to = ["--data-dir", data, *(["--store", store] if store else [])]
        assert "The backup has no key" in succeeds("restore", "--from", target, *to, env=s3.env())
        restored = start_ruslo(workers=2, env=s3.env(), data=data, store=store)
        load.check(restored, least, most)
        restored.wait_rows(COUNTS, expected)
        if number < len(backups) - 1:
            assert restored.stop() == 0
    # Each message once, also those that come now.
    kafka.produce(topic, ['{"event": "after"}'] * 10)
    expected.append(("after", 10))
    for server in (restored, busy):
        server.wait_rows(COUNTS, expected)
    restored.restart()
    assert sorted(restored.rows(COUNTS)) == sorted(expected)


def test_a_backup_takes_part_in_nothing(busy, start_ruslo, s3, tmp_path):
    """The server does not notice one, and what it does afterwards is not in it."""
    busy.execute("CREATE TABLE t (id int)", "INSERT INTO t VALUES (1)")
    succeeds("backup", *place(busy), "--to", tmp_path / "b", env=s3.env())
    before = everything(tmp_path / "b")
    busy.execute("INSERT INTO t VALUES (2)")
    restored = tmp_path / "restored"
    succeeds("restore", "--from", tmp_path / "b", "--data-dir", restored)
    server = start_ruslo(data=restored)
    assert server.rows("SELECT * FROM t") == [(1,)]
    server.execute("INSERT INTO t VALUES (3)")
    assert everything(tmp_path / "b") == before
    busy.restart()
    assert sorted(busy.rows("SELECT * FROM t")) == [(1,), (2,)]


@pytest.mark.parametrize("end", ["killed", "stopped"])
def test_a_backup_of_a_server_that_is_down(start_ruslo, tmp_path, end):
    ruslo = start_ruslo(arguments=("serve", "--checkpoint-interval-ms", "3600000"))
    ruslo.execute(
        "CREATE TABLE t (id int)",
        "CREATE MATERIALIZED VIEW m AS SELECT count(*) AS n FROM t",
        "INSERT INTO t SELECT i FROM generate_series(1, 1000) AS g(i)",
    )
    ruslo.kill() if end == "killed" else ruslo.stop()
    before = everything(ruslo.data)
    succeeds("backup", *place(ruslo), "--to", tmp_path / "b")
    # A backup only reads.
    assert everything(ruslo.data) == before
    succeeds("restore", "--from", tmp_path / "b", "--data-dir", tmp_path / "restored")
    restored = start_ruslo(data=tmp_path / "restored")
    assert restored.rows("SELECT n FROM m") == [(1000,)]
    ruslo.start()
    assert ruslo.rows("SELECT n FROM m") == [(1000,)]


def test_the_end_of_a_log_that_was_never_finished(start_ruslo, tmp_path):
    """As a crash leaves it: nobody was told of that row, and the file stays as it is."""
    ruslo = start_ruslo(arguments=("serve", "--checkpoint-interval-ms", "3600000"))
    ruslo.execute("CREATE TABLE t (id int)", "INSERT INTO t VALUES (1)", "INSERT INTO t VALUES (2)")
    ruslo.kill()
    log = max((ruslo.data / "log").iterdir())
    log.write_bytes(log.read_bytes()[:-3])
    before = everything(ruslo.data)
    succeeds("backup", *place(ruslo), "--to", tmp_path / "b")
    assert everything(ruslo.data) == before
    restored = start_ruslo(data=tmp_path / "b")
    assert restored.rows("SELECT * FROM t") == [(1,)]
    ruslo.start()
    assert ruslo.rows("SELECT * FROM t") == [(1,)]


# Refusals -----------------------------------------------------------------------------------------


def test_only_empty_places_are_written(ruslo, s3, bucket, tmp_path):
    ruslo.execute("CREATE TABLE t (id int)", "INSERT INTO t VALUES (1)")
    backup, second = tmp_path / "b", tmp_path / "second"
    for target in (backup, second):
        succeeds("backup", *place(ruslo), "--to", target)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").write_text("mine")
    succeeds("backup", *place(ruslo), "--to", f"s3://{bucket}/b", env=s3.env())
    before = everything(tmp_path), s3.contents(bucket)
    for target, found in (
        (backup, ""),
        (tmp_path / "other", "mine.txt"),
        (f"s3://{bucket}/b", ""),
    ):
        for error in (
            refused("backup", *place(ruslo), "--to", target, env=s3.env()),
            refused("restore", "--from", second, "--store", target, "--key-file", tmp_path / "k",
                    env=s3.env()),
        ):  # fmt: skip
            assert str(target) in error and "not empty" in error and found in error
    # Nor the folder of a server, running or not.
    assert "not empty" in refused("restore", "--from", backup, "--data-dir", ruslo.data)
    assert (everything(tmp_path), s3.contents(bucket)) == before
    assert ruslo.rows("SELECT * FROM t") == [(1,)]


def test_what_cannot_be_copied(ruslo, s3, bucket, tmp_path):
    def backup(to, *source, env=None):
        return refused("backup", *(source or place(ruslo)), "--to", to, env=env)

    nowhere, empty, file = tmp_path / "nowhere", tmp_path / "empty", tmp_path / "file"
    empty.mkdir()
    file.write_text("in the way")
    target = tmp_path / "b"
    assert str(nowhere) in backup(target, "--data-dir", nowhere)
    assert "holds no data" in backup(target, "--data-dir", empty)
    assert "holds no data" in backup(target, "--store", f"s3://{bucket}/no", env=s3.env())
    assert "s3://nowhere" in backup("s3://nowhere/b", env=s3.env())
    assert str(file / "b") in backup(file / "b")
    assert "within" in backup(ruslo.data / "backups" / "b")
    assert not (ruslo.data / "backups").exists()
    assert "memory" in backup("memory")
    assert "memory" in backup(target, "--store", "memory")
    assert not nowhere.exists() and everything(empty) == {}
    assert str(nowhere) in refused("restore", "--from", nowhere, "--data-dir", target)
    assert "holds no data" in refused("restore", "--from", empty, "--data-dir", target)


def test_a_damaged_backup_is_refused(start_ruslo, tmp_path):
    """And leaves nothing behind that a server could start on."""
    ruslo = start_ruslo()
    ruslo.execute(
        "CREATE TABLE t (id int, text varchar)",
        "INSERT INTO t SELECT i, 'in the checkpoint' FROM generate_series(1, 1000) AS g(i)",
    )
    assert ruslo.stop() == 0
    backup, target = tmp_path / "b", tmp_path / "restored"
    succeeds("backup", *place(ruslo), "--to", backup)
    whole = everything(backup)
    assert {name.split("/")[0] for name in whole} == {"log", "manifests", "runs"}
    for name, content in whole.items():
        path = backup / name
        middle = len(content) // 2
        for damaged in (
            content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :],
            None,
        ):
            path.unlink()
            if damaged is not None:
                path.write_bytes(damaged)
            error = refused("restore", "--from", backup, "--data-dir", target)
            assert path.name in error or damaged is None, error
            assert everything(target) == {} if target.exists() else True
            path.write_bytes(content)
    succeeds("restore", "--from", backup, "--data-dir", target)
    assert start_ruslo(data=target).value("SELECT count(*) FROM t") == 1000


# The key ------------------------------------------------------------------------------------------


def test_the_key_goes_only_where_it_is_sent(start_ruslo, s3, bucket, redis_acl, tmp_path):
    ruslo = start_ruslo()
    ruslo.execute(
        "CREATE TABLE t (id int PRIMARY KEY, v int)",
        "CREATE MATERIALIZED VIEW m AS SELECT * FROM t",
        f"CREATE SINK k FROM m WITH (connector='redis', primary_key='id',"
        f" redis.url='{redis_acl.url}') FORMAT UPSERT ENCODE TEMPLATE"
        " (key_format='{id}', value_format='{v}')",
        "INSERT INTO t VALUES (1, 10)",
    )
    key = (ruslo.data / "secret.key").read_text()
    error = refused("backup", *place(ruslo), "--with-key", "--to", f"s3://{bucket}/b", env=s3.env())
    assert "next to what it seals" in error and s3.contents(bucket) == {}

    without, with_key = tmp_path / "without", tmp_path / "with"
    succeeds("backup", *place(ruslo), "--to", without)
    shown = succeeds("backup", *place(ruslo), "--to", with_key, "--with-key")
    assert f"{with_key}/secret.key: whoever has it" in shown
    assert (with_key / "secret.key").read_text() == key
    assert (with_key / "secret.key").stat().st_mode & 0o777 == 0o600
    assert with_key.stat().st_mode & 0o777 == 0o700
    for content in (everything(without) | everything(with_key)).values():
        assert REDIS_PASSWORD.encode() not in content
    assert all(key.strip().encode() not in content for content in everything(without).values())

    # Two servers would write the same keys.
    assert ruslo.stop() == 0
    restored = tmp_path / "restored"
    shown = succeeds("restore", "--from", with_key, "--data-dir", restored)
    assert "The key was in the backup" in shown
    assert (restored / "secret.key").stat().st_mode & 0o777 == 0o600
    server = start_ruslo(data=restored)
    server.execute("UPDATE t SET v = 11")
    wait_until(lambda: redis_acl.contents() == {"1": "11"}, 30, "Redis equal to the view")
    assert server.stop() == 0

    # Without its key the data says so; with it everything is there.
    bare = tmp_path / "bare"
    assert f"{bare}/secret.key before" in succeeds("restore", "--from", without, "--data-dir", bare)
    server = Ruslo(tmp_path / "without-key", data=bare).start(wait=False)
    assert server.wait_ended() == 1
    assert "cannot be read with the key" in server.log()
    (bare / "secret.key").write_text(key)
    server = start_ruslo(data=bare)
    server.execute("UPDATE t SET v = 12")
    wait_until(lambda: redis_acl.contents() == {"1": "12"}, 30, "Redis equal to the view")

    # A key that is there already is not lost to another one.
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "secret.key").write_text("0" * 64)
    error = refused("restore", "--from", with_key, "--data-dir", tmp_path / "kept")
    assert "another key" in error
    assert everything(tmp_path / "kept") == {"secret.key": b"0" * 64}
