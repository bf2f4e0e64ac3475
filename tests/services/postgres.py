"""A PostgreSQL server to compare with."""

import glob
import os
import pathlib
import pwd
import shutil
import subprocess

from .process import Server, free_port


class Postgres(Server):
    """PostgreSQL refuses to run as root: there, the user that Debian's package made runs it."""

    name = "postgres"

    def __init__(self, directory: pathlib.Path):
        super().__init__(directory)
        self.port = free_port()
        self.user = "postgres" if os.getuid() == 0 else None
        self.data = directory / "data"
        self.data.mkdir()
        if self.user:
            owner = pwd.getpwnam(self.user)
            os.chown(self.data, owner.pw_uid, owner.pw_gid)
        done = subprocess.run(
            [
                _program("initdb"), "-D", str(self.data), "-U", "ruslo", "--auth=trust",
                "--encoding=UTF8", "--locale=C", "--no-sync",
            ],  # fmt: skip
            user=self.user,
            group=self.user,
            cwd="/",
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(f"initdb failed:\n{done.stdout}{done.stderr}")

    @property
    def url(self) -> str:
        return f"postgresql://ruslo@127.0.0.1:{self.port}/postgres"

    def command(self):
        return [
            _program("postgres"), "-D", str(self.data), "-p", str(self.port),
            "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=",
            "-c", "fsync=off",
        ]  # fmt: skip

    def ready(self):
        probe = subprocess.run(
            ["psql", self.url, "-qAtc", "select 1"], capture_output=True, check=False
        )
        return probe.returncode == 0


def _program(name: str) -> str:
    installed = sorted(glob.glob(f"/usr/lib/postgresql/*/bin/{name}"))
    found = installed[-1] if installed else shutil.which(name)
    if not found:
        raise RuntimeError(f"{name} is missing: run scripts/setup")
    return found
