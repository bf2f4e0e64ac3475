"""A child process with a log, a readiness check and an end: what every server here is."""

import ctypes
import os
import pathlib
import signal
import socket
import subprocess
import time

PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


def cache_dir() -> pathlib.Path:
    """Where scripts/setup puts jars and packages."""
    default = pathlib.Path.home() / ".cache" / "ruslo"
    return pathlib.Path(os.environ.get("RUSLO_CACHE", default))


_handed_out: set[int] = set()


def free_port() -> int:
    """A port of 127.0.0.1 that nothing listens on and that this process has not had before."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        if port not in _handed_out:
            _handed_out.add(port)
            return port


def wait_until(check, timeout_s: float = 30, what: str = "", interval_s: float = 0.05):
    """Calls `check` until it returns something true, and returns that.

    An exception of `check` counts as "not yet" and is shown when the time is over.
    """
    deadline = time.monotonic() + timeout_s
    seen = None
    while True:
        try:
            seen = check()
            if seen:
                return seen
        except Exception as error:  # noqa: BLE001 whatever it is, it is shown below
            seen = error
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what or check} not within {timeout_s} s; last: {seen!r}")
        time.sleep(interval_s)


def accepts(port: int) -> bool:
    """Whether something on 127.0.0.1 listens on `port`."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _die_with_parent():
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Server:
    """One child process whose output goes to a log file.

    Subclasses say `command()` and `ready()`. `stop` and `start` may alternate: ports and data
    stay the same, which is how an outage is played.
    """

    name = "server"
    start_timeout_s = 60
    stop_timeout_s = 30
    user: str | None = None

    def __init__(self, directory: pathlib.Path):
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self.log_path = directory / f"{self.name}.log"
        self.process: subprocess.Popen | None = None

    def command(self) -> list[str]:
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        return dict(os.environ)

    def ready(self) -> bool:
        raise NotImplementedError

    @property
    def pid(self) -> int:
        assert self.process is not None, f"{self.name} was not started"
        return self.process.pid

    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def start(self, wait: bool = True):
        assert not self.running(), f"{self.name} already runs"
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                self.command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self.environment(),
                user=self.user,
                group=self.user,
                preexec_fn=_die_with_parent,
            )
        if wait:
            self.wait_ready()
        return self

    def wait_ready(self):
        def ready_or_ended():
            return not self.running() or self.ready()

        try:
            wait_until(ready_or_ended, self.start_timeout_s, f"{self.name} ready")
        except TimeoutError as error:
            self.stop(signal.SIGKILL)
            raise RuntimeError(f"{error}\n{self.log_tail()}") from error
        if not self.running():
            status = self.process.returncode
            raise RuntimeError(f"{self.name} ended with {status}\n{self.log_tail()}")

    def stop(self, how: int = signal.SIGTERM) -> int | None:
        """Ends the process by its own id and returns its exit status."""
        if self.process is None:
            return None
        if self.process.poll() is None:
            self.process.send_signal(how)
            try:
                self.process.wait(self.stop_timeout_s)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        return self.process.returncode

    def log(self) -> str:
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def log_tail(self, lines: int = 60) -> str:
        tail = "\n".join(self.log().splitlines()[-lines:])
        return f"--- end of {self.log_path}\n{tail}"

    def __enter__(self):
        return self if self.running() else self.start()

    def __exit__(self, *_):
        self.stop()
