"""The server under test, started as a user would start it."""

import os
import pathlib
import re
import subprocess
import urllib.error
import urllib.request

from .process import Server, cache_dir, free_port, wait_until

_CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


def binary(profile: str = "debug") -> str:
    """The built `ruslo`: $RUSLO_BIN, else where cargo puts it."""
    target = os.environ.get("CARGO_TARGET_DIR", cache_dir() / "target")
    path = os.environ.get("RUSLO_BIN", f"{target}/{profile}/ruslo")
    if not os.access(path, os.X_OK):
        raise RuntimeError(f"{path} is missing: run cargo test --workspace --no-run")
    return path


class Ruslo(Server):
    """`ruslo serve` on free ports."""

    name = "ruslo"
    # A restart may have much to read again.
    start_timeout_s = 60
    stop_timeout_s = 15

    def __init__(
        self,
        directory: pathlib.Path,
        workers: int | None = None,
        profile: str = "debug",
        env: dict[str, str] | None = None,
        arguments: tuple[str, ...] = ("serve",),
        store: str | None = None,
        prefix: tuple[str, ...] = (),
        data: pathlib.Path | None = None,
    ):
        super().__init__(directory)
        self.port = free_port()
        self.http_port = free_port()
        self.workers = workers
        self.profile = profile
        self.env = env or {}
        self.arguments = arguments
        self.data = data or directory / "data"
        self.store = store
        # Goes before the command.
        self.prefix = prefix
        # How many more statements there are before one that a kill and a restart come before.
        self.kill_after: int | None = None
        self.on_kill = lambda: None
        self.was_killed = False

    def command(self):
        command = [
            *self.prefix, binary(self.profile), *self.arguments,
            "--listen", f"127.0.0.1:{self.port}",
            "--http", f"127.0.0.1:{self.http_port}",
            "--data-dir", str(self.data),
        ]  # fmt: skip
        if self.store:
            command += ["--store", self.store]
        if self.workers:
            command += ["--workers", str(self.workers)]
        return command

    def environment(self):
        # The machine's own trust store must not decide a test.
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("SSL_CERT_")}
        return inherited | self.env

    def kill(self):
        """Ends the process as a crash would, at once."""
        self.process.kill()
        self.process.wait()

    def wait_ended(self, timeout_s: float = 30) -> int:
        """Waits for a process that is to end by itself; its exit status."""
        status = self.process.wait(timeout_s)
        self.process = None
        return status

    def restart(self):
        """Kills the process and starts it again on the same data and ports."""
        self.kill()
        return self.start()

    def kill_if_due(self) -> bool:
        """Counts a statement; kills the server and starts it again if that is to come now."""
        if self.kill_after is None:
            return False
        self.kill_after -= 1
        if self.kill_after >= 0:
            return False
        self.kill_after = None
        if not self.running():
            return False
        self.was_killed = True
        self.on_kill()
        self.restart()
        return True

    def ready(self):
        if self.http("/healthz")[0] != 200:
            return False
        with self.connect() as connection:
            return connection.execute("SELECT 1").fetchall() == [(1,)]

    # SQL --------------------------------------------------------------------------------------

    @property
    def dsn(self) -> str:
        return f"host=127.0.0.1 port={self.port} dbname=dev user=root"

    @property
    def url(self) -> str:
        return f"postgresql://root@127.0.0.1:{self.port}/dev"

    def connect(self, **options):
        import psycopg

        options = {"autocommit": True, "connect_timeout": 10} | options
        return psycopg.connect(self.dsn, **options)

    def execute(self, *statements: str):
        connection = self.connect()
        try:
            for statement in statements:
                if self.kill_if_due():
                    connection.close()
                    connection = self.connect()
                connection.execute(statement)
        finally:
            connection.close()

    def rows(self, query: str, parameters=None) -> list[tuple]:
        self.kill_if_due()
        with self.connect() as connection:
            return connection.execute(query, parameters).fetchall()

    def value(self, query: str, parameters=None):
        """The first column of the first row."""
        return self.rows(query, parameters)[0][0]

    def wait_rows(self, query: str, expected: list[tuple], timeout_s: float = 30):
        """Waits until `query` gives exactly `expected`, in any order."""
        self.kill_if_due()
        wanted = sorted(expected, key=repr)
        seen = None
        with self.connect() as connection:

            def same():
                nonlocal seen
                seen = connection.execute(query).fetchall()
                return sorted(seen, key=repr) == wanted

            try:
                wait_until(same, timeout_s, query)
            except TimeoutError:
                raise AssertionError(
                    f"{query}\nexpected {wanted}\n    seen {sorted(seen or [], key=repr)}"
                ) from None

    def psql(self, *commands: str, flags: tuple[str, ...] = ()) -> subprocess.CompletedProcess:
        arguments = [argument for command in commands for argument in ("-c", command)]
        return subprocess.run(
            [
                "psql", "-X", "-h", "127.0.0.1", "-p", str(self.port), "-d", "dev", "-U", "root",
                *flags, *arguments,
            ],  # fmt: skip
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    # Figures ----------------------------------------------------------------------------------

    def http(self, path: str) -> tuple[int, str]:
        url = f"http://127.0.0.1:{self.http_port}{path}"
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def metrics(self) -> dict[str, float]:
        """Each sample of /metrics by its name with labels."""
        status, text = self.http("/metrics")
        assert status == 200, text
        samples = re.findall(r"^([a-zA-Z_:][^#\s]*(?:\{.*\})?) (\S+)$", text, re.MULTILINE)
        return {name: float(value) for name, value in samples}

    def cpu_seconds(self) -> float:
        """User and system time of the process since its start."""
        fields = pathlib.Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _CLOCK_TICKS

    def memory_mb(self) -> float:
        status = pathlib.Path(f"/proc/{self.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) / 1024

    def memory_peak_mb(self) -> float:
        status = pathlib.Path(f"/proc/{self.pid}/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1024

    def children(self) -> list[int]:
        tasks = pathlib.Path(f"/proc/{self.pid}/task").glob("*/children")
        return [int(pid) for task in tasks for pid in task.read_text().split()]


def generate(
    brokers: str,
    topic: str,
    count: int,
    rate: str | int = "max",
    seed: int = 1,
    partitions: int | None = None,
    properties: dict[str, str] | None = None,
    extra: tuple[str, ...] = (),
    env: dict[str, str] | None = None,
    profile: str = "debug",
    wait: bool = True,
):
    """Runs `ruslo generate user-events`; gives the finished (or running) process."""
    command = [
        binary(profile), "generate", "user-events", "--brokers", brokers, "--topic", topic,
        "--count", str(count), "--rate", str(rate), "--seed", str(seed), *extra,
    ]  # fmt: skip
    if partitions:
        command += ["--partitions", str(partitions)]
    for key, value in (properties or {}).items():
        command += ["-X", f"{key}={value}"]
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("SSL_CERT_")}
    process = subprocess.Popen(
        command,
        env=inherited | (env or {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    if not wait:
        return process
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, f"ruslo generate failed:\n{out}\n{err}"
    return subprocess.CompletedProcess(command, 0, out, err)
