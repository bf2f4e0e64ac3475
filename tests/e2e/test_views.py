"""Views over Kafka: joins of topics, views on views, tables beside them, what depends on what."""

import psycopg
import pytest


def test_join_of_two_topics_and_a_view_on_a_view(ruslo, kafka, source):
    clicks = kafka.create_topic("clicks", 2)
    people = kafka.create_topic("people", 2)
    source("clicks", clicks, "person int, page varchar")
    source("people", people, "id int, city varchar")
    ruslo.execute(
        "CREATE MATERIALIZED VIEW clicks_by_city AS SELECT p.city, count(*) AS n"
        " FROM clicks c JOIN people p ON c.person = p.id GROUP BY p.city",
        "CREATE MATERIALIZED VIEW busy AS SELECT city FROM clicks_by_city WHERE n > 200",
        "CREATE MATERIALIZED VIEW all_clicks AS SELECT c.person, count(p.id) AS known"
        " FROM clicks c LEFT JOIN people p ON c.person = p.id GROUP BY c.person",
    )
    kafka.produce(clicks, [{"person": i % 10, "page": "/"} for i in range(1000)])
    ruslo.wait_rows("SELECT * FROM all_clicks", [(i, 0) for i in range(10)])
    # The other side comes late, and a person's row changes what was joined before.
    kafka.produce(people, [{"id": i, "city": "Perm" if i < 3 else "Omsk"} for i in range(5)])
    ruslo.wait_rows("SELECT * FROM clicks_by_city", [("Perm", 300), ("Omsk", 200)])
    ruslo.wait_rows("SELECT * FROM busy", [("Perm",)])
    ruslo.wait_rows(
        "SELECT * FROM all_clicks", [(i, 100 if i < 5 else 0) for i in range(10)]
    )
    kafka.produce(people, [{"id": 7, "city": "Omsk"}])
    ruslo.wait_rows("SELECT * FROM busy", [("Perm",), ("Omsk",)])


def test_late_join_hydrates_both_sides(ruslo, kafka, source):
    left = kafka.create_topic("late-left", 2)
    right = kafka.create_topic("late-right", 2)
    source("l", left, "id int")
    source("r", right, "id int")
    ruslo.execute("CREATE MATERIALIZED VIEW early AS SELECT count(*) AS n FROM l JOIN r USING (id)")
    for topic in (left, right):
        kafka.produce(topic, [{"id": i} for i in range(3000)])
    ruslo.wait_rows("SELECT n FROM early", [(3000,)])
    ruslo.execute("CREATE MATERIALIZED VIEW late AS SELECT count(*) AS n FROM l JOIN r USING (id)")
    kafka.produce(left, [{"id": 1}] * 5)
    ruslo.wait_rows("SELECT early.n, late.n FROM early, late", [(3005, 3005)])


def test_topic_joined_with_a_table(ruslo, kafka, topic, source):
    ruslo.execute("CREATE TABLE names (event varchar PRIMARY KEY, title varchar)")
    source("s", topic)
    ruslo.execute(
        "CREATE MATERIALIZED VIEW v AS SELECT n.title, count(*) AS n FROM s"
        " JOIN names n ON s.event = n.event GROUP BY n.title",
        "INSERT INTO names VALUES ('click', 'Click'), ('scroll', 'Scroll')",
    )
    kafka.produce(topic, [{"event": "click"}] * 3 + [{"event": "scroll"}, {"event": "other"}])
    ruslo.wait_rows("SELECT * FROM v", [("Click", 3), ("Scroll", 1)])
    ruslo.execute("UPDATE names SET title = 'Any'", "FLUSH")
    assert ruslo.rows("SELECT * FROM v") == [("Any", 4)]
    ruslo.execute("DELETE FROM names WHERE event = 'click'", "FLUSH")
    assert ruslo.rows("SELECT * FROM v") == [("Any", 1)]


def test_dml_is_visible_after_flush(ruslo):
    ruslo.execute(
        "CREATE TABLE t (id int PRIMARY KEY, n int)",
        "CREATE MATERIALIZED VIEW v AS SELECT sum(n) AS total FROM t",
    )
    for i in range(50):
        ruslo.execute(f"INSERT INTO t VALUES ({i}, {i})", "FLUSH")
        assert ruslo.value("SELECT total FROM v") == sum(range(i + 1))
    with ruslo.connect() as connection:
        connection.execute("SET rw_implicit_flush = true")
        for i in range(50):
            connection.execute("UPDATE t SET n = n + 1 WHERE id = %s", (i,))
            total = connection.execute("SELECT total FROM v").fetchone()[0]
            assert total == sum(range(50)) + i + 1


def test_drop_names_what_depends(ruslo, kafka, topic, source, redis):
    source("s", topic)
    ruslo.execute(
        "CREATE MATERIALIZED VIEW base AS SELECT event, count(*) AS n FROM s GROUP BY event",
        "CREATE MATERIALIZED VIEW upper_view AS SELECT event FROM base WHERE n > 1",
        "CREATE SINK k FROM base WITH (connector='redis', primary_key='event',"
        f" redis.url='{redis.url}') FORMAT UPSERT ENCODE JSON",
    )
    with pytest.raises(psycopg.Error) as caught:
        ruslo.execute("DROP SOURCE s")
    assert caught.value.sqlstate == "2BP01"
    assert "base" in f"{caught.value} {caught.value.diag.message_detail}"
    with pytest.raises(psycopg.Error) as caught:
        ruslo.execute("DROP MATERIALIZED VIEW base")
    text = f"{caught.value} {caught.value.diag.message_detail}"
    assert "upper_view" in text and "k" in text
    ruslo.execute("DROP SOURCE s CASCADE")
    for what in ("SOURCES", "MATERIALIZED VIEWS", "SINKS"):
        assert ruslo.rows(f"SHOW {what}") == []
    # The names are free again, and the topic can be read anew.
    source("s", topic)
    ruslo.execute("CREATE MATERIALIZED VIEW base AS SELECT count(*) AS n FROM s")
    kafka.produce(topic, [{"event": "x"}])
    ruslo.wait_rows("SELECT n FROM base", [(1,)])


def test_adding_and_dropping_views_stops_nobody(ruslo, kafka, topic, source):
    source("s", topic)
    ruslo.execute("CREATE MATERIALIZED VIEW v AS SELECT count(*) AS n FROM s")
    for round_number in range(1, 6):
        ruslo.execute(
            f"CREATE MATERIALIZED VIEW x{round_number} AS SELECT event, count(*) FROM s GROUP BY event"
        )
        kafka.produce(topic, [{"event": "a"}] * 10)
        ruslo.wait_rows("SELECT n FROM v", [(10 * round_number,)])
        ruslo.wait_rows(f"SELECT * FROM x{round_number}", [("a", 10 * round_number)])
        if round_number > 1:
            ruslo.execute(f"DROP MATERIALIZED VIEW x{round_number - 1}")


def test_generic_aggregate(ruslo, kafka, topic, source):
    """An aggregate that nothing special was written for."""
    source("s", topic, "k varchar, x double precision")
    ruslo.execute(
        "CREATE MATERIALIZED VIEW v AS SELECT k, median(x) AS m, stddev_pop(x) AS d"
        " FROM s GROUP BY k"
    )
    kafka.produce(topic, [{"k": "a", "x": x} for x in (1, 2, 3, 4, 10)])
    ruslo.wait_rows("SELECT k, m, round(d::numeric, 3)::varchar FROM v", [("a", 3.0, "3.162")])
