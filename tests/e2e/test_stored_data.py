"""Data of this format version is read, by the server and by pyarrow; a newer version is refused."""

import decimal
import json
import pathlib
import re
import shutil
import struct
import sys

import pytest
from services import Redis, Ruslo, wait_until
from services.redis import PASSWORD as REDIS_PASSWORD

TESTS = pathlib.Path(__file__).parents[1]
FIXTURES = TESTS / "fixtures"
DOCS = (TESTS.parent / "docs" / "storage.md").read_text()
sys.path.insert(0, str(FIXTURES))

from make_data_v1 import ANSWERS, FOLDER, REDIS_PORT, answers  # noqa: E402


@pytest.fixture
def folder(tmp_path):
    """A copy of the stored folder, under the name that the documentation uses."""
    copied = shutil.copytree(FOLDER, tmp_path / "ruslo-data")
    copied.chmod(0o700)
    return copied


def test_version_1_is_read(start_ruslo, folder, tmp_path):
    """Everything as it was, without the broker and the Redis that it was made with."""
    expected = json.loads(ANSWERS.read_text())
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()) < 200_000
    ruslo = start_ruslo(workers=2, data=folder)
    found = answers(ruslo)
    for query, rows in expected.items():
        assert found[query] == rows, query
    assert found.keys() == expected.keys()
    # What is away is said to be.
    wait_until(lambda: ruslo.value("SELECT state FROM ruslo.sources") != "running")
    wait_until(lambda: ruslo.value("SELECT error FROM ruslo.sinks"), 30, "the error of the sink")
    # And it goes on from there.
    ruslo.execute("UPDATE keyed SET c = 7 WHERE id = 0", "INSERT INTO app.small VALUES (5)")
    assert ruslo.stop() == 0
    ruslo.start()
    assert ruslo.value("SELECT c FROM keyed WHERE id = 0") == 7
    changed = {"SELECT * FROM keyed", "SELECT * FROM app.small"}
    found = answers(ruslo)
    assert {query for query in expected if found[query] != expected[query]} == changed
    # A Redis with the sealed password, and a key that was still to be deleted. The server sees it
    # only when it has that key: at its own port before.
    redis = Redis(tmp_path / "redis", acl=True)
    with redis, redis.client() as client:
        client.set("3", "three")
    assert any(b"three" in path.read_bytes() for path in redis.directory.rglob("*.aof"))
    redis.port = REDIS_PORT
    with redis:
        wait_until(lambda: redis.contents() == {"1": "one", "2": "two"}, 30, "Redis as the view")


# Other programs -----------------------------------------------------------------------------------


def blocks() -> list[str]:
    return re.findall(r"```python\n(.*?)```", DOCS, re.DOTALL)


@pytest.fixture
def collections(folder, monkeypatch):
    """The rows of the stored collections by name, as the program in the documentation prints them."""
    printed = {}

    def capture(name, rows):
        values = {row: diff for row, diff in rows.items()}
        printed.setdefault(name, {}).update(values)

    monkeypatch.chdir(folder.parent)
    exec(blocks()[0], {"print": capture})
    return printed


def test_pyarrow_reads_the_rows_that_sql_shows(start_ruslo, folder, collections):
    ruslo = start_ruslo(data=folder)
    # All but what Python's types cannot show: real, numeric, interval, struct with names.
    columns = "id, a, b, c, d, f, i, j, l, n, o, r::text, s, t, v"
    at = [0, 1, 2, 3, 4, 6, 9, 10, 11, 13, 14, 17, 18, 19, 21]
    for table in ("keyed", "bag"):
        stored = []
        for row, diff in collections[f"{table}: rows"].items():
            row = json.loads(row)
            stored += [json.dumps([row[i] for i in at])] * diff
        shown = [json.dumps(row, default=str) for row in ruslo.rows(f"SELECT {columns} FROM {table}")]
        assert len(shown) > 5 and sorted(stored) == sorted(shown)
    counts = {json.dumps([event]): n for event, n in ruslo.rows("SELECT * FROM counts")}
    assert counts and collections["counts: groups"] == counts
    assert collections["upserts: keys to delete"] == {json.dumps([str(b"3")]): 1}
    errors = ruslo.value("SELECT decode_errors FROM ruslo.sources")
    assert len(collections["events: messages that could not be decoded"]) == errors == 4


def test_numerics_are_as_documented(start_ruslo, folder):
    import pyarrow as pa

    found = {}
    exec(blocks()[1], found)
    ruslo = start_ruslo(data=folder)
    newest = max((FOLDER / "manifests").glob("*.json"))
    stored = json.loads(newest.read_text())["body"]["collections"]
    (keyed,) = (entry for entry in stored if entry["name"] == "keyed: rows")
    (run,) = keyed["runs"]
    table = pa.ipc.open_file(FOLDER / run["file"]).read_all()
    seen = 0
    for at, name in ((7, "g"), (8, "h")):
        shown = dict(ruslo.rows(f"SELECT id, {name} FROM keyed"))
        for id, value in zip(table.column(0).to_pylist(), table.column(at).to_pylist(), strict=True):
            if value is None:
                assert shown[id] is None
                continue
            value = found["numeric"](value)
            assert value == shown[id] or (value.is_nan() and shown[id].is_nan())
            seen += 1
    assert seen == 8
    # The classes that are not in the fixture, and the order of the bytes.
    ruslo.execute("CREATE TABLE n (id int, x numeric)")
    values = ["-Infinity", "-1e20", "-12.5", "-12.25", "-0.001", "0", "0.001", "1", "9.99", "10",
              "1234567890123456789012345678", "Infinity"]  # fmt: skip
    for id, value in enumerate(values):
        ruslo.execute(f"INSERT INTO n VALUES ({id}, '{value}')")
    assert ruslo.stop() == 0
    newest = max((folder / "manifests").glob("*.json"))
    stored = json.loads(newest.read_text())["body"]["collections"]
    (entry,) = (entry for entry in stored if entry["name"] == "n: rows")
    rows = []
    for run in entry["runs"]:
        table = pa.ipc.open_file(folder / run["file"]).read_all()
        rows += zip(table.column(0).to_pylist(), table.column(1).to_pylist(), strict=True)
    assert [id for id, _ in sorted(rows, key=lambda row: row[1])] == list(range(len(values)))
    with decimal.localcontext() as context:
        context.prec = 40
        assert {id: found["numeric"](x) for id, x in rows} == {
            id: decimal.Decimal(value) for id, value in enumerate(values)
        }


# Newer versions -----------------------------------------------------------------------------------


def crc32c(content: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in content:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def newer_manifest(content: bytes) -> bytes:
    assert content.startswith(b'{"ruslo_manifest":1,')
    return content.replace(b'{"ruslo_manifest":1,', b'{"ruslo_manifest":2,', 1)


def newer_catalog(content: bytes) -> bytes:
    """The image in a manifest, whose checksum is right."""
    body = json.loads(content)["body"]
    assert body["metadata"]["catalog"]["version"] == 1
    body["metadata"]["catalog"]["version"] = 2
    body = json.dumps(body).encode()
    return b'{"ruslo_manifest":1,"crc32c":"%08x","body":%s}\n' % (crc32c(body), body)


def newer_segment(content: bytes) -> bytes:
    header = content[:8] + struct.pack("<I", 2) + content[12:28]
    return header + struct.pack("<I", crc32c(header)) + content[32:]


def newer_change(content: bytes) -> bytes:
    """The last change of the catalog in a segment, in a frame whose checksum is right."""
    frames, at = [], 32
    while at < len(content):
        (length,) = struct.unpack_from("<I", content, at + 4)
        frames.append((at, length))
        at += 12 + length
    change = b'"version":1'
    at, length = [frame for frame in frames if change in content[frame[0] : sum(frame) + 12]][-1]
    payload = content[at + 12 : at + 12 + length].replace(change, b'"version":2')
    crc = crc32c(struct.pack("<I", length) + payload)
    frame = b"FRM1" + struct.pack("<II", length, crc) + payload
    return content[:at] + frame + content[at + len(frame) :]


NEWER = {
    "manifest": ("manifests", newer_manifest),
    "catalog": ("manifests", newer_catalog),
    "segment": ("log", newer_segment),
    "change": ("log", newer_change),
}


def contents(folder) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != "lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def refusal(ruslo: Ruslo) -> str:
    """What a server says that does not come up."""
    ruslo.start(wait=False)
    assert ruslo.wait_ended() == 1
    log = ruslo.log()
    assert "panicked" not in log and REDIS_PASSWORD not in log
    return log


@pytest.mark.parametrize("kind", NEWER)
def test_a_newer_version_is_refused(tmp_path, folder, kind):
    below, newer = NEWER[kind]
    path = max((folder / below).iterdir())
    path.write_bytes(newer(path.read_bytes()))
    before = contents(folder)
    said = refusal(Ruslo(tmp_path / "ruslo", data=folder))
    assert str(path) in said, said
    assert "version 2" in said and "this program reads 1" in said, said
    assert "Start the version that wrote the data" in said, said
    after = contents(folder)
    if kind == "change":
        # It is found when the folder is taken already, which puts a manifest like the newest one.
        newest = str(max((folder / "manifests").iterdir()).relative_to(folder))
        claim = json.loads(after[newest])["body"]
        old = json.loads(before[max(name for name in before if name.startswith("manifests"))])["body"]
        assert all(claim[key] == old[key] for key in ("time", "collections", "metadata"))
        for files in (before, after):
            for name in [name for name in files if name.startswith("manifests")]:
                del files[name]
    assert after == before, "something was written"


@pytest.mark.parametrize("kind", ["manifest", "catalog", "segment"])
def test_a_program_that_is_too_old_ends_no_server(start_ruslo, s3, bucket, tmp_path, kind):
    """In a bucket the last server has it; one that cannot read it must not be that."""
    store = f"s3://{bucket}/state"
    ruslo = start_ruslo(
        env=s3.env(), store=store, arguments=("serve", "--checkpoint-interval-ms", "3600000")
    )
    ruslo.execute("CREATE TABLE t (id int)", "INSERT INTO t VALUES (1)")
    assert ruslo.stop() == 0
    ruslo.start()
    ruslo.execute("INSERT INTO t VALUES (2)")
    below, newer = NEWER[kind]
    objects = s3.contents(bucket)
    name = max(name for name in objects if name.startswith(f"state/{below}/"))
    client = s3._client()
    client.put_object(Bucket=bucket, Key=name, Body=newer(objects[name]))
    old = Ruslo(tmp_path / "old", env=s3.env(), store=store)
    said = refusal(old)
    assert name in said and "version 2" in said, said
    client.put_object(Bucket=bucket, Key=name, Body=objects[name])
    assert s3.contents(bucket) == objects
    ruslo.execute("INSERT INTO t VALUES (3)")
    assert ruslo.stop() == 0
    ruslo.start()
    assert sorted(ruslo.rows("SELECT * FROM t")) == [(1,), (2,), (3,)]
