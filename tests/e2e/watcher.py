"""Threads that look at a server all the time, also while it is killed and started again."""

import threading
import time


class Watcher:
    """Calls `look(connection)` again and again until it is left; what `look` raises fails the test.

    A server that is away is waited for: `connect` and `look` may lose the connection.
    """

    def __init__(self, connect, look, interval_s: float = 0.01):
        self.connect = connect
        self.look = look
        self.interval_s = interval_s
        self.looks = 0
        self.failure = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, kind, error, _):
        self._stop.set()
        self._thread.join(60)
        if kind is None:
            self.check()

    def check(self):
        if self.failure:
            raise self.failure

    def _run(self):
        while not self._stop.is_set() and self.failure is None:
            connection = None
            try:
                connection = self.connect()
                while not self._stop.is_set():
                    self.look(connection)
                    self.looks += 1
                    time.sleep(self.interval_s)
            except BaseException as error:  # noqa: BLE001 the test raises it
                if not is_away(error, connection):
                    self.failure = error
                time.sleep(0.02)
            finally:
                if connection is not None:
                    connection.close()


def is_away(error: BaseException, connection) -> bool:
    """Whether the server went away or is not up yet: no answer of its own can mean that."""
    import psycopg
    import redis

    if isinstance(error, redis.ConnectionError):
        return True
    if not isinstance(error, psycopg.OperationalError):
        return False
    if connection is None:
        return error.sqlstate in (None, "57P03")
    return connection.closed
