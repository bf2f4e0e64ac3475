"""The process: its command line, its figures, its rest and its end."""

import contextlib
import ctypes
import os
import pathlib
import signal
import subprocess
import time

import pytest

from services import free_port, generate, wait_until
from services.ruslo import binary


@contextlib.contextmanager
def frozen_threads(pid: int, names: tuple[str, ...]):
    """Stops the threads of a process whose names begin so, wherever they are."""
    seize, interrupt, detach = 0x4206, 0x4207, 17
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]

    def ptrace(request: int, thread: int):
        if libc.ptrace(request, thread, None, None):
            raise OSError(ctypes.get_errno(), f"ptrace {request:#x} of thread {thread}")

    tasks = pathlib.Path(f"/proc/{pid}/task").iterdir()
    threads = [int(t.name) for t in tasks if (t / "comm").read_text().startswith(names)]
    wait_all = 0x40000000
    for thread in threads:
        ptrace(seize, thread)
        ptrace(interrupt, thread)
        os.waitpid(thread, wait_all)
    try:
        yield threads
    finally:
        for thread in threads:
            with contextlib.suppress(OSError):
                ptrace(detach, thread)
            # A thread that ended meanwhile is the tracer's to bury.
            with contextlib.suppress(ChildProcessError):
                os.waitpid(thread, wait_all | os.WNOHANG)


def test_help():
    top = subprocess.run([binary(), "--help"], capture_output=True, text=True, check=True).stdout
    for command in ("serve", "run", "generate", "demo"):
        assert command in top
        shown = subprocess.run([binary(), command, "--help"], capture_output=True, text=True)
        assert shown.returncode == 0 and "Usage" in shown.stdout
    serve = subprocess.run([binary(), "serve", "--help"], capture_output=True, text=True).stdout
    for flag in ("--listen", "--http", "--workers", "--config"):
        assert flag in serve
    wrong = subprocess.run([binary(), "serve", "--colour"], capture_output=True, text=True)
    assert wrong.returncode == 2 and "--colour" in wrong.stderr


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_ends_cleanly(start_ruslo, kafka, topic, how):
    server = start_ruslo(workers=2)
    server.execute(
        f"CREATE SOURCE s (event varchar) WITH (connector='kafka', topic='{topic}',"
        f" properties.bootstrap.server='{kafka.address()}') FORMAT PLAIN ENCODE JSON",
        "CREATE MATERIALIZED VIEW v AS SELECT event, count(*) FROM s GROUP BY event",
    )
    generate(kafka.address(), topic, count=1000)
    # An open connection does not hold the server back.
    connection = server.connect()
    connection.execute("SELECT 1")
    assert server.children() == []
    began = time.monotonic()
    assert server.stop(how) == 0
    assert time.monotonic() - began < 10
    connection.close()


def test_threads_that_hang_in_the_kafka_client_hold_up_nobody(start_ruslo, kafka, topic):
    """All threads that call the client library stand still: SQL, HTTP and the end go on."""
    server = start_ruslo(workers=2)
    server.execute(
        f"CREATE SOURCE s (event varchar) WITH (connector='kafka', topic='{topic}',"
        f" properties.bootstrap.server='{kafka.address()}') FORMAT PLAIN ENCODE JSON",
        "CREATE MATERIALIZED VIEW v AS SELECT event, count(*) AS n FROM s GROUP BY event",
    )
    kafka.produce(topic, [{"event": "a"}] * 3)
    server.wait_rows("SELECT * FROM v", [("a", 3)])
    with frozen_threads(server.pid, ("kafka ", "rdk:", "live-")) as frozen:
        assert len(frozen) >= 4, frozen
        assert server.rows("SELECT * FROM v") == [("a", 3)]
        assert server.rows("SELECT state FROM ruslo.sources") == [("running",)]
        assert len(server.rows("SELECT * FROM ruslo.source_partitions")) == 2
        assert server.http("/healthz")[0] == 200
        assert server.metrics()['ruslo_source_messages_total{source="s"}'] == 3
        server.execute("DROP MATERIALIZED VIEW v")
        began = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: "ended" in server.log().splitlines()[-1], 12, "the last log line")
        assert time.monotonic() - began < 12


def test_port_that_is_taken_is_an_error(ruslo):
    second = subprocess.run(
        [binary(), "serve", "--listen", f"127.0.0.1:{ruslo.port}", "--http", "127.0.0.1:0"],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert second.returncode not in (0, 101)
    assert str(ruslo.port) in second.stderr


def test_empty_variables_are_unset(start_ruslo):
    names = ("WORKERS", "CONFIG", "LOG", "TLS_CERT", "TLS_KEY", "MAX_CONNECTIONS")
    server = start_ruslo(env={f"RUSLO_{name}": "" for name in names})
    assert server.rows("SELECT 1") == [(1,)]


def test_environment_and_config_file_mirror_the_flags(tmp_path):
    port, http = free_port(), free_port()
    config = tmp_path / "ruslo.toml"
    config.write_text(f'listen = "127.0.0.1:{port}"\nworkers = 1\n')
    process = subprocess.Popen(
        [binary(), "serve", "--config", str(config)],
        cwd=tmp_path,
        env=os.environ | {"RUSLO_HTTP": f"127.0.0.1:{http}"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        command = ["psql", "-X", "-h", "127.0.0.1", "-p", str(port), "-d", "dev", "-U", "root"]
        wait_until(
            lambda: subprocess.run([*command, "-c", "SELECT 1"], capture_output=True).returncode == 0
        )
        wait_until(
            lambda: subprocess.run(
                ["python3", "-c", f"import socket; socket.create_connection(('127.0.0.1', {http}))"],
                capture_output=True,
            ).returncode
            == 0
        )
    finally:
        process.terminate()
        assert process.wait(15) == 0


def test_idle_server_rests(start_ruslo):
    server = start_ruslo(workers=2)
    before = server.cpu_seconds()
    time.sleep(5)
    used = server.cpu_seconds() - before
    assert used / 5 < 0.01, f"{used / 5:.1%} of a core"


def test_idle_pipeline_rests(ruslo, kafka, topic, source, redis):
    """With a source, a view and a sink that have nothing to do, little is spent too."""
    source("s", topic)
    ruslo.execute(
        "CREATE MATERIALIZED VIEW v AS SELECT event, count(*) AS n FROM s GROUP BY event",
        "CREATE SINK k FROM v WITH (connector='redis', primary_key='event',"
        f" redis.url='{redis.url}') FORMAT UPSERT ENCODE JSON",
    )
    kafka.produce(topic, [{"event": "x"}])
    ruslo.wait_rows("SELECT * FROM v", [("x", 1)])
    before = ruslo.cpu_seconds()
    time.sleep(5)
    used = ruslo.cpu_seconds() - before
    assert used / 5 < 0.05, f"{used / 5:.1%} of a core"


def test_metrics_and_health(ruslo, kafka, topic, source, redis):
    source("user_clicks", topic)
    ruslo.execute(
        "CREATE MATERIALIZED VIEW per_event AS"
        " SELECT event, count(*) AS n FROM user_clicks GROUP BY event",
        "CREATE SINK to_redis FROM per_event WITH (connector='redis', primary_key='event',"
        f" redis.url='{redis.url}') FORMAT UPSERT ENCODE JSON",
    )
    kafka.produce(topic, [{"event": "x", "user": "u", "page": "p"}] * 100 + [b"broken"])
    ruslo.wait_rows("SELECT * FROM per_event", [("x", 100)])
    wait_until(lambda: len(redis.contents()) == 1)
    assert ruslo.http("/healthz")[0] == 200


    def figure(name: str) -> float:
        return ruslo.metrics()[name]

    exact = {
        'ruslo_source_messages_total{source="user_clicks"}': 101,
        'ruslo_source_rows_total{source="user_clicks"}': 100,
        'ruslo_source_decode_errors_total{source="user_clicks"}': 1,
        'ruslo_source_lag_messages{source="user_clicks"}': 0,
        'ruslo_object_rows{object="per_event"}': 1,
        'ruslo_sink_waiting_bytes{sink="to_redis"}': 0,
    }
    for name, value in exact.items():
        wait_until(lambda n=name, v=value: figure(n) == v, 15, f"{name} {value}")
    for name in (
        'ruslo_source_bytes_total{source="user_clicks"}',
        'ruslo_object_updates{object="per_event"}',
        'ruslo_object_bytes{object="per_event"}',
        'ruslo_sink_operations_total{sink="to_redis"}',
        "process_resident_memory_bytes",
    ):
        wait_until(lambda n=name: figure(n) > 0, 15, name)
    assert 0 <= figure('ruslo_source_age_seconds{source="user_clicks"}') < 10
    wait_until(lambda: 0 <= figure('ruslo_sink_behind_seconds{sink="to_redis"}') < 5, 15)
    assert ruslo.http("/nothing")[0] == 404
    assert figure('ruslo_source_buffered_bytes{source="user_clicks"}') >= 0
    visible = figure('ruslo_object_visible_time_seconds{object="per_event"}')
    assert 0 <= time.time() - visible < 60
    assert {row[0] for row in ruslo.rows("SELECT name FROM ruslo.memory")} == {
        "user_clicks", "per_event", "to_redis"
    }  # fmt: skip

    text = ruslo.http("/metrics")[1]
    names = {line.split("{")[0].split()[0] for line in text.splitlines() if line[:1].isalpha()}
    described = {line.split()[2] for line in text.splitlines() if line.startswith("# HELP")}
    ends = ("_bucket", "_sum", "_count")
    families = {n.rsplit("_", 1)[0] if n.endswith(ends) else n for n in names}
    assert families <= described, families - described

    ruslo.execute("DROP SOURCE user_clicks CASCADE")
    left = ruslo.http("/metrics")[1]
    for name in ("user_clicks", "per_event", "to_redis"):
        assert f'"{name}"' not in left, f"a series of {name} outlives it"


def test_run_a_file(workdir, kafka, topic):
    """`ruslo run FILE.sql`: a pipeline in a file, in the foreground."""
    port = free_port()
    file = pathlib.Path(workdir) / "pipeline.sql"
    file.write_text(
        "-- A comment; with a semicolon.\n"
        f"CREATE SOURCE s (event varchar) WITH (connector='kafka', topic='{topic}',"
        f" properties.bootstrap.server='{kafka.address()}',) FORMAT PLAIN ENCODE JSON;\n"
        "CREATE MATERIALIZED VIEW v AS SELECT event, count(*) FROM s GROUP BY event;\n"
    )
    kafka.produce(topic, [{"event": "a;b"}] * 7)
    process = subprocess.Popen(
        [
            binary(), "run", str(file),
            "--listen", f"127.0.0.1:{port}", "--http", f"127.0.0.1:{free_port()}",
        ],  # fmt: skip
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    query = [
        "psql", "-X", "-h", "127.0.0.1", "-p", str(port), "-d", "dev", "-U", "root",
        "-qAtc", "SELECT * FROM v",
    ]  # fmt: skip
    try:
        wait_until(
            lambda: subprocess.run(query, capture_output=True, text=True).stdout == "a;b|7\n"
        )
    finally:
        process.terminate()
        assert process.wait(15) == 0, process.stderr.read()


def test_run_a_file_with_an_error(workdir):
    file = pathlib.Path(workdir) / "broken.sql"
    file.write_text("CREATE TABLE t (id int);\n\nSELECT * FROM nowhere;\n")
    done = subprocess.run(
        [binary(), "run", str(file), "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode not in (0, 101)
    assert "nowhere" in done.stderr and "broken.sql" in done.stderr


@pytest.mark.parametrize(
    "mistake",
    ["connectr='kafka'", "'hunter2'", "x=", "topic='t"],
    ids=["option", "near_a_password", "syntax", "quotes"],
)
def test_a_failing_file_keeps_its_passwords(workdir, mistake):
    file = pathlib.Path(workdir) / "secret.sql"
    file.write_text(
        "-- hunter2\nCREATE SOURCE s (a int) /* hunter2 */ WITH (connector='kafka',"
        f" {mistake}, topic='t', properties.sasl.password='hunter2' 'hunter2') FORMAT PLAIN\n"
    )
    done = subprocess.run(
        [binary(), "run", str(file), "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 1
    assert "CREATE SOURCE s" in done.stderr and "secret.sql:2" in done.stderr
    assert "hunter2" not in done.stderr + done.stdout
