"""`make services` and `make services-down`: the same servers for hands-on work.

    python -m services up      starts them in the background, prints shell assignments
    python -m services down    ends them

A supervisor process holds the servers: they end with it, whatever happens to it.
"""

import os
import pathlib
import shlex
import shutil
import signal
import sys
import tempfile
import time

from .kafka import Kafka
from .postgres import Postgres
from .process import cache_dir, wait_until
from .redis import Redis
from .tls import Authority

STATE = cache_dir() / "services"
PID_FILE = STATE / "supervisor.pid"
ASSIGNMENTS = STATE / "assignments.sh"
FAILURE = STATE / "failure.txt"


def main(arguments: list[str]) -> int:
    match arguments:
        case ["up"]:
            return up()
        case ["down"]:
            return down()
        case _:
            print(__doc__, file=sys.stderr)
            return 2


def up() -> int:
    STATE.mkdir(parents=True, exist_ok=True)
    if supervisor() is None:
        for old in (ASSIGNMENTS, FAILURE):
            old.unlink(missing_ok=True)
        if os.fork() == 0:
            supervise()
    wait_until(lambda: ASSIGNMENTS.exists() or FAILURE.exists(), 180, "services")
    if FAILURE.exists():
        print(FAILURE.read_text(), file=sys.stderr)
        return 1
    print(ASSIGNMENTS.read_text(), end="")
    return 0


def down() -> int:
    pid = supervisor()
    if pid is None:
        print("no services run", file=sys.stderr)
        return 0
    os.kill(pid, signal.SIGTERM)
    wait_until(lambda: supervisor() is None, 60, "end of services")
    return 0


def supervisor() -> int | None:
    """The supervisor's process id, if it runs: a stale file may name a stranger."""
    try:
        pid = int(PID_FILE.read_text())
        command = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (OSError, ValueError):
        return None
    return pid if b"services" in command and b"up" in command else None


def supervise():
    """Runs in a session of its own until SIGTERM; never returns."""
    os.setsid()
    PID_FILE.write_text(str(os.getpid()))
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)
    stopping = []
    signal.signal(signal.SIGTERM, lambda *_: stopping.append(True))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    directory = pathlib.Path(tempfile.mkdtemp(prefix="ruslo-services-"))
    directory.chmod(0o755)
    servers = []
    try:
        start(directory, servers)
        while not stopping:
            time.sleep(0.2)
    except BaseException as error:  # noqa: BLE001 the parent prints it
        FAILURE.write_text(f"{type(error).__name__}: {error}\n")
    finally:
        for server in servers:
            server.stop()
        shutil.rmtree(directory, ignore_errors=True)
        ASSIGNMENTS.unlink(missing_ok=True)
        PID_FILE.unlink(missing_ok=True)
        os._exit(0)


def start(directory: pathlib.Path, servers: list):
    authority = Authority(directory / "tls")
    kafka = Kafka(directory / "kafka", authority, fast_start=False)
    redis = Redis(directory / "redis")
    redis_acl = Redis(directory / "redis-acl", "redis-acl", acl=True)
    redis_tls = Redis(directory / "redis-tls", "redis-tls", acl=True, tls=authority)
    postgres = Postgres(directory / "postgres")
    for server in (kafka, redis, redis_acl, redis_tls, postgres):
        servers.append(server)
        server.start(wait=False)
    for server in servers:
        server.wait_ready()
    values = {
        "KAFKA_PLAINTEXT": kafka.address("PLAINTEXT"),
        "KAFKA_SSL": kafka.address("SSL"),
        "KAFKA_SASL_PLAINTEXT": kafka.address("SASL_PLAINTEXT"),
        "KAFKA_SASL_SSL": kafka.address("SASL_SSL"),
        "KAFKA_USERNAME": kafka.username,
        "KAFKA_PASSWORD": kafka.password,
        "KAFKA_CA": str(authority.ca),
        "REDIS_URL": redis.url,
        "REDIS_ACL_URL": redis_acl.url,
        "REDIS_TLS_URL": redis_tls.url,
        "REDIS_CA": str(authority.ca),
        "POSTGRES_URL": postgres.url,
    }
    text = "".join(f"{name}={shlex.quote(value)}\n" for name, value in values.items())
    unfinished = ASSIGNMENTS.with_suffix(".new")
    unfinished.write_text(text)
    unfinished.rename(ASSIGNMENTS)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
