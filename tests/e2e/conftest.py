"""Servers for the whole session, and a fresh `ruslo` for each test.

With `--kill` every test's server is killed and started again once, in the middle of the test, and
nothing else may change. Tests that cannot stand it say why: `@pytest.mark.no_kill("…")`.
"""

import collections
import itertools
import os
import pathlib
import random
import shutil
import tempfile

import pytest

from services import S3, Authority, Kafka, Postgres, Redis, Ruslo

ARTICLE = pathlib.Path(__file__).with_name("article.sql").read_text()
_numbers = itertools.count(1)


# They kill servers by themselves, or have none of these.
KILL_THEMSELVES = ("backup", "bank", "demo", "disk", "durability", "faults", "kills", "memory",
                   "restart", "stored_data", "subscribe")  # fmt: skip
_kills = collections.Counter()


def pytest_addoption(parser):
    parser.addoption("--kill", action="store_true", help="kill servers in the middle of tests")


def pytest_configure(config):
    config.addinivalue_line("markers", "no_kill(reason): not to be run with --kill")


def pytest_collection_modifyitems(config, items):
    if not config.getoption("--kill"):
        return
    left_out = [
        item
        for item in items
        if item.get_closest_marker("no_kill")
        or item.path.stem.removeprefix("test_") in KILL_THEMSELVES
    ]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]
    _kills.update({item.path.stem: 0 for item in items})


def pytest_terminal_summary(terminalreporter, config):
    if config.getoption("--kill"):
        terminalreporter.section("kills in the middle of tests")
        for file, kills in sorted(_kills.items()):
            terminalreporter.write_line(f"{kills:4} {file}")


def pytest_sessionfinish(session, exitstatus):
    # A run of some tests may choose those without a kill; a file as a whole may not.
    if exitstatus == 0 and not all(_kills.values()):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.when == "call":
        item.failed = report.failed
    return report


@pytest.fixture(scope="session")
def workdir():
    """One directory for all data; kept when RUSLO_KEEP is set."""
    directory = pathlib.Path(tempfile.mkdtemp(prefix="ruslo-e2e-"))
    directory.chmod(0o755)
    yield directory
    if not os.environ.get("RUSLO_KEEP"):
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def authority(workdir):
    return Authority(workdir / "tls")


@pytest.fixture(scope="session")
def _kafka(workdir, authority):
    with Kafka(workdir / "kafka", authority) as server:
        yield server


@pytest.fixture
def kafka(_kafka):
    """The broker, brought back if the test before left it down."""
    yield _kafka
    if not _kafka.running():
        _kafka.start()


@pytest.fixture
def topic(kafka):
    """A new topic of two partitions."""
    return kafka.create_topic(f"events-{next(_numbers)}", 2)


def _redis_fixture(name: str, acl: bool, tls: bool):
    @pytest.fixture(scope="session", name=f"_{name}")
    def session(workdir, authority):
        with Redis(workdir / name, name, acl, authority if tls else None) as server:
            yield server

    @pytest.fixture(name=name)
    def empty(request):
        server = request.getfixturevalue(f"_{name}")
        if not server.running():
            server.start()
        with server.client() as client:
            client.flushall()
        return server

    return session, empty


_redis, redis = _redis_fixture("redis", acl=False, tls=False)
_redis_acl, redis_acl = _redis_fixture("redis_acl", acl=True, tls=False)
_redis_tls, redis_tls = _redis_fixture("redis_tls", acl=True, tls=True)


@pytest.fixture
def forgetful_redis(workdir):
    """A Redis that has lost everything when it is started again."""
    with Redis(workdir / f"forgetful-{next(_numbers)}", durable=False) as server:
        yield server


@pytest.fixture(scope="session")
def postgres(workdir):
    with Postgres(workdir / "postgres") as server:
        yield server


@pytest.fixture(scope="session")
def s3(workdir):
    with S3(workdir / "s3") as server:
        yield server


@pytest.fixture
def bucket(s3):
    """The name of a new bucket."""
    return s3.create_bucket(f"bucket-{next(_numbers)}")


@pytest.fixture(scope="module")
def kill_in_the_middle(request):
    """Has a server killed and started again after so many statements, with `--kill`."""

    def arm(server: Ruslo, statements: int):
        if request.config.getoption("--kill"):
            server.kill_after = statements
            server.on_kill = lambda: _kills.update([request.path.stem])

    return arm


@pytest.fixture
def start_ruslo(request, workdir, kill_in_the_middle):
    """Starts servers; at the end each must stop cleanly and have kept its secrets."""
    servers = []

    def start(**options) -> Ruslo:
        server = Ruslo(workdir / f"ruslo-{next(_numbers)}", **options)
        servers.append(server)
        server.start()
        # The same each time, and in another place in each test.
        kill_in_the_middle(server, random.Random(request.node.nodeid).randint(1, 5))
        return server

    yield start
    failed = getattr(request.node, "failed", False)
    for server in servers:
        status = server.stop()
        if failed:
            print(server.log_tail())
            continue
        log = server.log()
        # None: the test itself has looked at its end.
        assert status in (0, None), f"exit status {status}\n{server.log_tail()}"
        assert "panicked" not in log, server.log_tail()
        for secret in (Kafka.password, "redis-secret"):
            assert secret not in log, f"the log shows a password:\n{server.log_tail()}"


@pytest.fixture
def ruslo(start_ruslo, authority):
    """A server with two workers whose system trust store is the run's own authority."""
    return start_ruslo(workers=2, env={"SSL_CERT_FILE": str(authority.ca)})


@pytest.fixture
def source(kafka, ruslo):
    """Creates a source of the article's columns (or `columns`) on a topic."""

    def create(name: str, topic: str, columns: str | None = None, **options: str) -> str:
        columns = columns or '"user" varchar, page varchar, event varchar'
        options = {
            "connector": "kafka",
            "topic": topic,
            "properties.bootstrap.server": kafka.address(),
        } | {key.replace("__", "."): value for key, value in options.items()}
        with_options = ", ".join(f"{key}='{value}'" for key, value in options.items())
        ruslo.execute(
            f"CREATE SOURCE {name} ({columns}) WITH ({with_options}) FORMAT PLAIN ENCODE JSON"
        )
        return name

    return create
