"""The bank: money only moves, so at every time that anybody sees the total is the same.

Transfers come as one event with both sides, and as two events in two topics that a join brings
together. The server is killed while they flow, and views are created and dropped beside.
"""

import collections
import contextlib
import random
import threading
import time
from decimal import Decimal

import psycopg
from follower import Follower
from services import wait_until
from watcher import Watcher

ACCOUNTS = 40
OPENING = Decimal("1000.25")
TOTAL = ACCOUNTS * OPENING

VIEWS = {
    # One event holds both sides.
    "sides": 'SELECT "from" AS account, -amount AS amount FROM transfers UNION ALL'
    ' SELECT "to", amount FROM transfers',
    "moved": "SELECT account, sum(amount) AS amount FROM sides GROUP BY account",
    "balances": "SELECT account, sum(amount) AS balance FROM (SELECT id AS account, opening AS"
    " amount FROM accounts UNION ALL SELECT account, amount FROM sides) GROUP BY account",
    "total": "SELECT sum(balance) AS total FROM balances",
    "total_joined": "SELECT sum(a.opening + m.amount) AS total FROM accounts AS a JOIN (SELECT"
    " account, sum(amount) AS amount FROM (SELECT account, amount FROM sides UNION ALL SELECT id, 0"
    " FROM accounts) GROUP BY account) AS m ON a.id = m.account",
    "total_left_joined": "SELECT sum(a.opening + coalesce(m.amount, 0)) AS total FROM accounts AS a"
    " LEFT JOIN moved AS m ON a.id = m.account",
    # Two events make a transfer; one without the other does not count.
    "matched": "SELECT d.id, d.account AS payer, c.account AS payee, d.amount FROM debits AS d"
    " JOIN credits AS c ON d.id = c.id",
    "matched_balances": "SELECT account, sum(amount) AS balance FROM (SELECT id AS account, opening"
    " AS amount FROM accounts UNION ALL SELECT payer, -amount FROM matched UNION ALL SELECT payee,"
    " amount FROM matched) GROUP BY account",
    "total_matched": "SELECT sum(balance) AS total FROM matched_balances",
    "pending": "SELECT d.id, d.amount FROM debits AS d LEFT JOIN credits AS c ON d.id = c.id"
    " WHERE c.id IS NULL",
}
# Views of which each must be empty at every time.
DIFFERENCES = {
    "not_the_same": "SELECT account, balance FROM balances EXCEPT SELECT a.id, a.opening +"
    " coalesce(m.amount, 0) FROM accounts AS a LEFT JOIN moved AS m ON a.id = m.account",
    "unequal_totals": "SELECT t.total AS a, j.total AS b, l.total AS c, m.total AS d FROM total AS t"
    " CROSS JOIN total_joined AS j CROSS JOIN total_left_joined AS l CROSS JOIN total_matched AS m"
    " WHERE t.total <> j.total OR t.total <> l.total OR t.total <> m.total",
    "lost_debits": "SELECT d.n AS debits, m.n AS matched, p.n AS pending FROM (SELECT count(*) AS n"
    " FROM debits) AS d CROSS JOIN (SELECT count(*) AS n FROM matched) AS m CROSS JOIN"
    " (SELECT count(*) AS n FROM pending) AS p WHERE d.n <> m.n + p.n",
}
TOTALS = [name for name in VIEWS if name.startswith("total")]
# One SELECT is one time, over all views and tables in it.
AT_ONE_TIME = (
    f"SELECT {', '.join(f'{name}.total' for name in TOTALS)},"
    " (SELECT sum(balance) FROM balances), (SELECT sum(balance) FROM matched_balances),"
    " (SELECT sum(opening) FROM accounts), (SELECT sum(opening) FROM accounts)"
    " + coalesce((SELECT sum(amount) FROM sides), 0)"
    f" FROM {' CROSS JOIN '.join(TOTALS)}"
)


class Bank:
    def __init__(self, ruslo, kafka, topics: dict[str, str]):
        self.ruslo = ruslo
        self.kafka = kafka
        self.topics = topics
        self.rng = random.Random(23)
        self.next_id = 0
        self.one_event: list[tuple] = []
        self.two_events: list[tuple] = []
        self.stop = threading.Event()
        self.failures: list[BaseException] = []

    def create(self, redis):
        common = f"connector='kafka', properties.bootstrap.server='{self.kafka.address()}'"
        columns = {
            "transfers": 'id bigint, "from" int, "to" int, amount numeric',
            "debits": "id bigint, account int, amount numeric",
            "credits": "id bigint, account int, amount numeric",
        }
        views = (VIEWS | DIFFERENCES).items()
        self.ruslo.execute(
            "CREATE TABLE accounts (id int PRIMARY KEY, opening numeric)",
            f"INSERT INTO accounts SELECT i, {OPENING} FROM generate_series(0, {ACCOUNTS - 1})"
            " AS g(i)",
            *(
                f"CREATE SOURCE {name} ({columns[name]}) WITH ({common}, topic='{topic}')"
                " FORMAT PLAIN ENCODE JSON"
                for name, topic in self.topics.items()
            ),
            *(f"CREATE MATERIALIZED VIEW {name} AS {query}" for name, query in views),
            "CREATE MATERIALIZED VIEW for_redis AS SELECT 'total' AS name, sum(balance) AS total"
            " FROM balances",
            "CREATE SINK s FROM for_redis WITH (connector='redis', primary_key='name',"
            f" redis.url='{redis.url}') FORMAT UPSERT ENCODE TEMPLATE"
            " (key_format='{name}', value_format='{total}')",
        )

    def transfer(self, count: int):
        """Sends `count` transfers each way; debits and credits in orders of their own."""

        def some() -> list[tuple]:
            made = []
            for _ in range(count):
                payer, payee = self.rng.sample(range(ACCOUNTS), 2)
                amount = Decimal(self.rng.randrange(1, 10**5)) / 100
                made.append((self.next_id, payer, payee, amount))
                self.next_id += 1
            return made

        one, two = some(), some()
        self.kafka.produce(
            self.topics["transfers"],
            [{"id": i, "from": a, "to": b, "amount": str(n)} for i, a, b, n in one],
        )
        debits = [{"id": i, "account": a, "amount": str(n)} for i, a, _, n in two]
        credits = [{"id": i, "account": b, "amount": str(n)} for i, _, b, n in two]
        self.rng.shuffle(credits)
        self.kafka.produce(self.topics["debits"], debits)
        self.kafka.produce(self.topics["credits"], credits)
        self.one_event += one
        self.two_events += two

    def move_openings(self, connection):
        """One UPDATE takes from one account what it gives to another."""
        a, b = self.rng.sample(range(ACCOUNTS), 2)
        moved = connection.execute(
            f"UPDATE accounts SET opening = opening + CASE id WHEN {a} THEN -7 ELSE 7 END"
            f" WHERE id IN ({a}, {b})"
        )
        assert moved.rowcount == 2

    def beside(self, work):
        """Does `work(connection)` again and again in a thread, over kills."""

        def run():
            while not self.stop.is_set():
                try:
                    with self.ruslo.connect() as connection:
                        while not self.stop.is_set():
                            work(connection)
                except psycopg.OperationalError:
                    time.sleep(0.05)
                except BaseException as error:  # noqa: BLE001 the test raises it
                    self.failures.append(error)
                    return

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        return thread

    def expected(self, transfers: list[tuple], openings: dict) -> dict[int, Decimal]:
        balances = collections.Counter(openings)
        for _, payer, payee, amount in transfers:
            balances[payer] -= amount
            balances[payee] += amount
        return dict(balances)


def look(connection):
    """One after the other, then all at one time."""
    for name in TOTALS:
        assert connection.execute(f"SELECT total FROM {name}").fetchall() == [(TOTAL,)], name
    for name in ("balances", "matched_balances"):
        balances = [row[0] for row in connection.execute(f"SELECT balance FROM {name}")]
        assert len(balances) == ACCOUNTS and sum(balances) == TOTAL, (name, balances)
    for name in DIFFERENCES:
        assert connection.execute(f"SELECT * FROM {name}").fetchall() == [], name
    row = connection.execute(AT_ONE_TIME).fetchone()
    assert set(row) == {TOTAL}, row


def total_of(column: int):
    """What a subscriber sees: the same total at each time, in whatever rows."""

    def look(rows):
        # The accounts are inserted in one statement: it sees none of them or all.
        total = sum(row[column] * count for row, count in rows.items())
        assert total == TOTAL, rows

    return look


def nothing(rows):
    assert not rows, rows


def look_at_redis():
    seen = []

    def look(client):
        total = client.get("total")
        # At first it is not there yet.
        if total is not None or seen:
            assert total is not None and Decimal(total) == TOTAL, total
            seen.append(total)

    return look


def create_and_drop():
    """Views that come and go, on sources, tables and views, over all that is there."""
    queries = [
        "SELECT account, count(*) AS n, sum(amount) AS amount FROM sides GROUP BY account",
        "SELECT sum(amount) AS amount FROM (SELECT amount FROM debits UNION ALL SELECT -amount FROM"
        " debits)",
        "SELECT a.id, b.balance FROM accounts AS a JOIN balances AS b ON a.id = b.account",
        'SELECT "to", max(amount) AS amount FROM transfers GROUP BY "to"',
    ]
    made = []

    def work(connection):
        number = len(made)
        made.append(number)
        connection.execute(f"DROP MATERIALIZED VIEW IF EXISTS beside_{number % 3}")
        query = queries[number % len(queries)]
        connection.execute(f"CREATE MATERIALIZED VIEW beside_{number % 3} AS {query}")
        if number % len(queries) == 1:
            # It has read all of the past when it is there.
            rows = connection.execute(f"SELECT amount FROM beside_{number % 3}").fetchall()
            assert rows in ([(0,)], [(None,)]), rows

    work.made = made
    return work


def test_the_total_never_changes(ruslo, kafka, topic, redis):
    topics = {name: kafka.create_topic(f"{topic}-{name}", 2) for name in ("transfers", "debits")}
    topics["credits"] = kafka.create_topic(f"{topic}-credits", 3)
    bank = Bank(ruslo, kafka, topics)
    bank.create(redis)
    kill = random.Random(29)
    views_beside = create_and_drop()
    look_at_total = look_at_redis()
    followers = [
        *(Follower(ruslo.connect, name, total_of(0)) for name in TOTALS),
        *(Follower(ruslo.connect, name, total_of(1)) for name in ("balances", "matched_balances")),
        *(Follower(ruslo.connect, name, nothing) for name in DIFFERENCES),
    ]
    with (
        contextlib.ExitStack() as subscribers,
        Watcher(ruslo.connect, look) as reader,
        Watcher(redis.client, look_at_total) as cache,
    ):
        for follower in followers:
            subscribers.enter_context(follower)
        threads = [bank.beside(views_beside), bank.beside(bank.move_openings)]
        threads.append(threading.Thread(target=flow, args=(bank,), daemon=True))
        threads[-1].start()
        for _ in range(3):
            time.sleep(kill.uniform(1.5, 4))
            for watcher in (reader, cache, *followers):
                watcher.check()
            ruslo.restart()
        time.sleep(1)
        bank.stop.set()
        for thread in threads:
            thread.join(60)
        assert not bank.failures, bank.failures
        openings = dict(ruslo.rows("SELECT id, opening FROM accounts"))
        assert sum(openings.values()) == TOTAL
        for name, transfers in (
            ("balances", bank.one_event),
            ("matched_balances", bank.two_events),
        ):
            expected = bank.expected(transfers, openings)
            wait_until(
                lambda name=name, expected=expected: dict(ruslo.rows(f"SELECT * FROM {name}"))
                == expected,
                60,
                name,
            )
            (follower,) = (follower for follower in followers if follower.relation == name)
            follower.wait_rows(list(expected.items()), 60)
        assert ruslo.rows("SELECT * FROM pending") == []
    assert all(follower.begins > 1 for follower in followers)
    assert all(follower.steps > 10 for follower in followers if follower.look is not nothing)
    assert reader.looks > 10 and cache.looks > 10 and len(views_beside.made) > 3
    wait_until(lambda: Decimal(redis.contents()["total"]) == TOTAL)
    ruslo.restart()
    with ruslo.connect() as connection:
        look(connection)
    assert dict(ruslo.rows("SELECT * FROM matched_balances")) == bank.expected(
        bank.two_events, openings
    )


def flow(bank: Bank):
    try:
        while not bank.stop.is_set():
            bank.transfer(150)
    except BaseException as error:  # noqa: BLE001 the test raises it
        bank.failures.append(error)
