"""A control group of limited memory, where the machine allows one to be made."""

import pathlib

ROOT = pathlib.Path("/sys/fs/cgroup")


class MemoryGroup:
    """Processes in it are killed when they take more than `limit_mb`."""

    def __init__(self, name: str, limit_mb: int):
        old = (ROOT / "memory").is_dir()
        self.folder = (ROOT / "memory" if old else ROOT) / name
        self.folder.mkdir()
        limit = "memory.limit_in_bytes" if old else "memory.max"
        (self.folder / limit).write_text(str(limit_mb << 20))

    def prefix(self) -> tuple[str, ...]:
        """Before a command, makes it run in the group."""
        enter = f'echo $$ > {self.folder}/cgroup.procs && exec "$@"'
        return ("sh", "-c", enter, "sh")

    def remove(self):
        self.folder.rmdir()


def memory_group(name: str, limit_mb: int) -> MemoryGroup | None:
    """None where this process may not make one."""
    try:
        return MemoryGroup(name, limit_mb)
    except OSError:
        return None
