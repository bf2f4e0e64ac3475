"""Threads that subscribe to a relation and keep its rows, also while the server is killed."""

import collections
import threading
import time

import psycopg
from services import wait_until
from watcher import is_away


class Follower:
    """Keeps the rows of a relation as a client of SUBSCRIBE would, until it is left.

    `look(rows)` is called with a Counter of all rows at each time that is told; what it raises
    fails the test. After a restart of the server it subscribes again, and begins anew.
    """

    def __init__(self, connect, relation: str, look=lambda rows: None):
        self.connect = connect
        self.relation = relation
        self.look = look
        # As of the last time that was told, in milliseconds since 1970.
        self.rows = collections.Counter()
        self.time = 0
        # How many times were told, and how often it began.
        self.steps = 0
        self.begins = 0
        self.failure = None
        self._stop = threading.Event()
        self._connection = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, kind, error, _):
        self._stop.set()
        deadline = time.monotonic() + 60
        while self._thread.is_alive() and time.monotonic() < deadline:
            connection = self._connection
            if connection is not None and not connection.closed:
                connection.cancel_safe()
            self._thread.join(0.2)
        if kind is None:
            assert not self._thread.is_alive(), "a cancelled subscription goes on"
            self.check()

    def check(self):
        if self.failure:
            raise self.failure

    def wait_rows(self, expected: list[tuple], timeout_s: float = 30):
        """Waits until the rows are exactly these."""
        wanted = collections.Counter(expected)

        def same():
            self.check()
            return self.rows == wanted

        try:
            wait_until(same, timeout_s, f"the rows of a subscription to {self.relation}")
        except TimeoutError:
            raise AssertionError(
                f"expected {sorted(wanted.items(), key=repr)}\n"
                f"    seen {sorted(self.rows.items(), key=repr)}"
            ) from None

    def _run(self):
        while not self._stop.is_set() and self.failure is None:
            self._connection = None
            try:
                self._connection = self.connect()
                self._follow(self._connection)
            except BaseException as error:  # noqa: BLE001 the test raises it
                ended = self._stop.is_set() and isinstance(error, psycopg.errors.QueryCanceled)
                if not ended and not is_away(error, self._connection):
                    self.failure = error
                time.sleep(0.02)
            finally:
                if self._connection is not None:
                    self._connection.close()

    def _follow(self, connection):
        rows = collections.Counter()
        begun = False
        statement = f"SUBSCRIBE {self.relation} WITH (PROGRESS)"
        for at, progressed, diff, *values in connection.cursor().stream(statement):
            # Nothing older than what was told is told again, by no server.
            assert at >= self.time, (at, self.time)
            if not progressed:
                row = tuple(values)
                rows[row] += diff
                # What goes is told first, and it was there.
                assert rows[row] >= 0 and diff != 0, (row, diff)
                if rows[row] == 0:
                    del rows[row]
                continue
            assert diff is None and not any(value is not None for value in values)
            if not begun:
                self.begins += 1
            begun = True
            self.look(rows)
            self.rows = rows.copy()
            self.time = at
            self.steps += 1
