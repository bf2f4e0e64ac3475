//! The article's statements and one of every other kind.

use expect_test::{Expect, expect};

use super::parse;
use crate::ast::{Statement, StatementKind};

fn one(sql: &str) -> Statement {
    let mut statements = parse(sql).unwrap();
    assert_eq!(statements.len(), 1);
    statements.remove(0)
}

fn check(sql: &str, expected: Expect) {
    expected.assert_eq(&format!("{:#?}\n", one(sql).kind));
}

const SOURCE: &str = "CREATE SOURCE IF NOT EXISTS user_events (
    event_timestamp TIMESTAMP,
    user VARCHAR,
    page VARCHAR,
    event VARCHAR
) WITH (
    connector='kafka',
    topic='test',
    properties.bootstrap.server='your-host:your-port',
    scan.startup.mode='latest',
    properties.sasl.mechanism='SCRAM-SHA-256',
    properties.security.protocol='SASL_SSL',
    properties.sasl.username='your-username',
    properties.sasl.password='your-password'
) FORMAT PLAIN ENCODE JSON";

const VIEW: &str = "CREATE MATERIALIZED VIEW IF NOT EXISTS events_statisics_mv AS
SELECT event, COUNT(*)
FROM
    user_events
GROUP BY event";

const SINK: &str = "CREATE SINK IF NOT EXISTS redis_sink
FROM events_statisics_mv WITH (
    connector = 'redis',
    primary_key = 'event',
    redis.url= 'redis://your-username:your-password@your-host:your-host'
) FORMAT PLAIN ENCODE TEMPLATE (
    force_append_only='true',
    key_format = '{event}',
    value_format = '{count}'
)";

#[test]
fn the_article_splits_into_its_statements() {
    let script = format!("{SOURCE};\n\n{VIEW};\n{SINK};\nSELECT * FROM events_statisics_mv;");
    let statements = parse(&script).unwrap();
    let texts: Vec<&str> = statements.iter().map(|s| s.text.as_str()).collect();
    assert_eq!(
        texts,
        [SOURCE, VIEW, SINK, "SELECT * FROM events_statisics_mv"]
    );
}

#[test]
fn the_articles_source() {
    check(
        SOURCE,
        expect![[r#"
        CreateSource(
            CreateSource {
                if_not_exists: true,
                name: Name {
                    schema: None,
                    name: "user_events",
                },
                columns: [
                    ColumnDef {
                        name: "event_timestamp",
                        ty: Timestamp(
                            Microsecond,
                            None,
                        ),
                        modifier: None,
                        not_null: false,
                        default: None,
                    },
                    ColumnDef {
                        name: "user",
                        ty: Utf8,
                        modifier: None,
                        not_null: false,
                        default: None,
                    },
                    ColumnDef {
                        name: "page",
                        ty: Utf8,
                        modifier: None,
                        not_null: false,
                        default: None,
                    },
                    ColumnDef {
                        name: "event",
                        ty: Utf8,
                        modifier: None,
                        not_null: false,
                        default: None,
                    },
                ],
                primary_key: [],
                include: [],
                options: {
                    "connector",
                    "topic",
                    "properties.bootstrap.server",
                    "scan.startup.mode",
                    "properties.sasl.mechanism",
                    "properties.security.protocol",
                    "properties.sasl.username",
                    "properties.sasl.password",
                },
                format: Some(
                    FormatEncode {
                        format: Plain,
                        encode: Json,
                        options: {},
                        key_encode: None,
                    },
                ),
            },
        )
    "#]],
    );
    let StatementKind::CreateSource(source) = one(SOURCE).kind else {
        panic!("no source");
    };
    assert_eq!(source.options.get("scan.startup.mode"), Some("latest"));
    assert_eq!(
        source.options.get("properties.sasl.password"),
        Some("your-password")
    );
}

#[test]
fn the_articles_view() {
    let StatementKind::CreateMaterializedView(view) = one(VIEW).kind else {
        panic!("no view");
    };
    assert!(view.if_not_exists);
    assert_eq!(view.name.to_string(), "events_statisics_mv");
    assert_eq!(
        view.query_text,
        "SELECT event, COUNT(*)\nFROM\n    user_events\nGROUP BY event"
    );
}

#[test]
fn the_articles_sink() {
    check(
        SINK,
        expect![[r#"
        CreateSink(
            CreateSink {
                if_not_exists: true,
                name: Name {
                    schema: None,
                    name: "redis_sink",
                },
                from: Relation(
                    Name {
                        schema: None,
                        name: "events_statisics_mv",
                    },
                ),
                options: {
                    "connector",
                    "primary_key",
                    "redis.url",
                },
                format: Some(
                    FormatEncode {
                        format: Plain,
                        encode: Template,
                        options: {
                            "force_append_only",
                            "key_format",
                            "value_format",
                        },
                        key_encode: None,
                    },
                ),
            },
        )
    "#]],
    );
    let StatementKind::CreateSink(sink) = one(SINK).kind else {
        panic!("no sink");
    };
    let options = sink.format.unwrap().options;
    assert_eq!(options.get("key_format"), Some("{event}"));
    assert_eq!(options.get("force_append_only"), Some("true"));
}

#[test]
fn options_take_what_users_write() {
    let sql = "CREATE SOURCE s WITH (a.b.c = 1, d = -2, e = TRUE, \"Quoted.Key\" = 'x', \
               f = $$raw$$, g = E'a\\nb', ) FORMAT UPSERT ENCODE JSON (x = 'y') KEY ENCODE BYTES";
    let StatementKind::CreateSource(source) = one(sql).kind else {
        panic!("no source");
    };
    let options: Vec<(&str, &str)> = source
        .options
        .iter()
        .map(|(k, v)| (k.as_str(), v.as_str()))
        .collect();
    assert_eq!(
        options,
        [
            ("a.b.c", "1"),
            ("d", "-2"),
            ("e", "true"),
            ("Quoted.Key", "x"),
            ("f", "raw"),
            ("g", "a\nb"),
        ]
    );
    expect![[r#"Some(FormatEncode { format: Upsert, encode: Json, options: {"x"}, key_encode: Some(Bytes) })"#]].assert_eq(&format!("{:?}", source.format));
}

#[test]
fn tables() {
    check(
        "CREATE TABLE IF NOT EXISTS s.t (id int PRIMARY KEY, v numeric(10, 2) NOT NULL \
         DEFAULT 1.5, st struct<a int, b varchar[]>) ON CONFLICT DO NOTHING",
        expect![[r#"
            CreateTable(
                CreateTable {
                    if_not_exists: true,
                    name: Name {
                        schema: Some(
                            "s",
                        ),
                        name: "t",
                    },
                    columns: [
                        ColumnDef {
                            name: "id",
                            ty: Int32,
                            modifier: None,
                            not_null: false,
                            default: None,
                        },
                        ColumnDef {
                            name: "v",
                            ty: FixedSizeBinary(
                                16,
                            ),
                            modifier: Some(
                                Precision(
                                    10,
                                    2,
                                ),
                            ),
                            not_null: true,
                            default: Some(
                                Value(
                                    ValueWithSpan {
                                        value: Number(
                                            "1.5",
                                            false,
                                        ),
                                        span: Span(Location(1,87)..Location(1,90)),
                                    },
                                ),
                            ),
                        },
                        ColumnDef {
                            name: "st",
                            ty: Struct(
                                [
                                    Field {
                                        name: "a",
                                        data_type: Int32,
                                        nullable: true,
                                    },
                                    Field {
                                        name: "b",
                                        data_type: List(
                                            Field {
                                                data_type: Utf8,
                                                nullable: true,
                                            },
                                        ),
                                        nullable: true,
                                    },
                                ],
                            ),
                            modifier: None,
                            not_null: false,
                            default: None,
                        },
                    ],
                    primary_key: [
                        0,
                    ],
                    append_only: false,
                    on_conflict: Some(
                        DoNothing,
                    ),
                    include: [],
                    options: {},
                    format: None,
                    query: None,
                },
            )
        "#]],
    );
    check(
        "CREATE TABLE t (a int, b int, PRIMARY KEY (b, a)) APPEND ONLY",
        expect![[r#"
            CreateTable(
                CreateTable {
                    if_not_exists: false,
                    name: Name {
                        schema: None,
                        name: "t",
                    },
                    columns: [
                        ColumnDef {
                            name: "a",
                            ty: Int32,
                            modifier: None,
                            not_null: false,
                            default: None,
                        },
                        ColumnDef {
                            name: "b",
                            ty: Int32,
                            modifier: None,
                            not_null: false,
                            default: None,
                        },
                    ],
                    primary_key: [
                        1,
                        0,
                    ],
                    append_only: true,
                    on_conflict: None,
                    include: [],
                    options: {},
                    format: None,
                    query: None,
                },
            )
        "#]],
    );
    check(
        "CREATE TABLE t (a int) INCLUDE key AS k INCLUDE header 'h' WITH (connector = 'kafka') \
         FORMAT PLAIN ENCODE JSON",
        expect![[r#"
            CreateTable(
                CreateTable {
                    if_not_exists: false,
                    name: Name {
                        schema: None,
                        name: "t",
                    },
                    columns: [
                        ColumnDef {
                            name: "a",
                            ty: Int32,
                            modifier: None,
                            not_null: false,
                            default: None,
                        },
                    ],
                    primary_key: [],
                    append_only: false,
                    on_conflict: None,
                    include: [
                        IncludeColumn {
                            what: "key",
                            inner: None,
                            alias: Some(
                                "k",
                            ),
                        },
                        IncludeColumn {
                            what: "header",
                            inner: Some(
                                "h",
                            ),
                            alias: None,
                        },
                    ],
                    options: {
                        "connector",
                    },
                    format: Some(
                        FormatEncode {
                            format: Plain,
                            encode: Json,
                            options: {},
                            key_encode: None,
                        },
                    ),
                    query: None,
                },
            )
        "#]],
    );
}

#[test]
fn session_statements() {
    for (sql, expected) in [
        ("FLUSH", expect!["Flush"]),
        (
            "SHOW SOURCES",
            expect!["Show(Objects { kind: Source, schema: None, like: None })"],
        ),
        (
            "SHOW MATERIALIZED VIEWS FROM public LIKE 'a%'",
            expect![[
                r#"Show(Objects { kind: MaterializedView, schema: Some("public"), like: Some("a%") })"#
            ]],
        ),
        (
            "SHOW CREATE MATERIALIZED VIEW v",
            expect![[
                r#"Show(Create { kind: MaterializedView, name: Name { schema: None, name: "v" } })"#
            ]],
        ),
        (
            "SHOW COLUMNS FROM s.t",
            expect![[r#"Show(Columns(Name { schema: Some("s"), name: "t" }))"#]],
        ),
        ("SHOW TIME ZONE", expect![[r#"Show(Variable("timezone"))"#]]),
        (
            "SHOW server_version",
            expect![[r#"Show(Variable("server_version"))"#]],
        ),
        ("SHOW ALL", expect!["Show(All)"]),
        (
            "DESCRIBE t",
            expect![[r#"Describe(Name { schema: None, name: "t" })"#]],
        ),
        (
            "SET rw_implicit_flush = true",
            expect![[r#"Set { name: "rw_implicit_flush", value: Some("true"), local: false }"#]],
        ),
        (
            "SET search_path TO a, \"B\"",
            expect![[r#"Set { name: "search_path", value: Some("a, B"), local: false }"#]],
        ),
        (
            "SET LOCAL TIME ZONE 'Europe/Moscow'",
            expect![[r#"Set { name: "timezone", value: Some("Europe/Moscow"), local: true }"#]],
        ),
        (
            "SET x.y = DEFAULT",
            expect![[r#"Set { name: "x.y", value: None, local: false }"#]],
        ),
        ("RESET ALL", expect!["Reset(None)"]),
        ("BEGIN ISOLATION LEVEL READ COMMITTED", expect!["Begin"]),
        ("START TRANSACTION READ ONLY", expect!["Begin"]),
        ("COMMIT WORK", expect!["Commit"]),
        ("ROLLBACK", expect!["Rollback"]),
        ("DISCARD ALL", expect!["Discard"]),
        ("DEALLOCATE ALL", expect!["Deallocate(None)"]),
        (
            "DROP MATERIALIZED VIEW IF EXISTS a, b.c CASCADE",
            expect![[
                r#"Drop { kind: MaterializedView, names: [Name { schema: None, name: "a" }, Name { schema: Some("b"), name: "c" }], if_exists: true, cascade: true }"#
            ]],
        ),
        (
            "ALTER TABLE a RENAME TO b",
            expect![[r#"Rename { kind: Table, name: Name { schema: None, name: "a" }, to: "b" }"#]],
        ),
        (
            "CREATE SCHEMA IF NOT EXISTS x",
            expect![[r#"CreateSchema { if_not_exists: true, name: "x" }"#]],
        ),
        ("USE dev", expect![[r#"Use("dev")"#]]),
        (
            "SUBSCRIBE TO s.\"V\" WITH (PROGRESS, SNAPSHOT = false)",
            expect![[
                r#"Subscribe(Subscribe { name: Name { schema: Some("s"), name: "V" }, snapshot: false, progress: true })"#
            ]],
        ),
        (
            "SUBSCRIBE v WITH (SNAPSHOT on, PROGRESS false)",
            expect![[
                r#"Subscribe(Subscribe { name: Name { schema: None, name: "v" }, snapshot: true, progress: false })"#
            ]],
        ),
        ("", expect!["Empty"]),
    ] {
        expected.assert_eq(&format!("{:?}", one(sql).kind));
    }
}

#[test]
fn explain_prepare_and_execute() {
    let StatementKind::Explain(explain) = one("EXPLAIN (VERBOSE, FORMAT json) SELECT 1").kind
    else {
        panic!("no explain");
    };
    assert!(explain.verbose && !explain.analyze);
    assert_eq!(explain.statement.text, "SELECT 1");
    let StatementKind::Explain(explain) = one(&format!("EXPLAIN {VIEW}")).kind else {
        panic!("no explain");
    };
    assert_eq!(explain.statement.text, VIEW);
    let StatementKind::Prepare { types, .. } = one("PREPARE p (int, text) AS SELECT $1").kind
    else {
        panic!("no prepare");
    };
    assert_eq!(types.len(), 2);
    let StatementKind::Execute { args, .. } = one("EXECUTE p (1, 'x')").kind else {
        panic!("no execute");
    };
    assert_eq!(args.len(), 2);
}

#[test]
fn copies() {
    for (sql, copied) in [
        ("COPY (SUBSCRIBE v) TO STDOUT", "SUBSCRIBE v"),
        (
            "COPY (SELECT 1, (2)) TO STDOUT WITH (FORMAT text)",
            "SELECT 1, (2)",
        ),
        ("COPY ((SELECT 1)) TO STDOUT (FORMAT text)", "(SELECT 1)"),
        ("COPY s.\"T x\" TO STDOUT", "SELECT * FROM s.\"T x\""),
        (
            "COPY t ( a, \"(B)\" ) TO STDOUT",
            "SELECT  a, \"(B)\"  FROM t",
        ),
    ] {
        let StatementKind::CopyOut(statement) = one(sql).kind else {
            panic!("no COPY: {sql}");
        };
        assert_eq!(statement.text, copied);
    }
    for sql in [
        "COPY t",
        "COPY t TO",
        "COPY (t) TO STDOUT",
        "COPY (SELECT 1 TO STDOUT",
        "COPY () TO STDOUT",
        "COPY t () TO STDOUT",
        "SUBSCRIBE",
        "SUBSCRIBE v WITH",
        "SUBSCRIBE v WITH ()",
        "SUBSCRIBE v WITH (PROGRESS",
    ] {
        assert!(parse(sql).is_err(), "{sql}");
    }
}

#[test]
fn comments_dollar_quotes_and_empty_statements() {
    let sql = "-- first\n;; SELECT $$;$$ /* ; */ ; /* a /* nested */ one */ SELECT 2; -- end";
    let statements = parse(sql).unwrap();
    let texts: Vec<&str> = statements.iter().map(|s| s.text.as_str()).collect();
    assert_eq!(texts, ["SELECT $$;$$", "SELECT 2"]);
    assert_eq!(one("-- nothing").kind, StatementKind::Empty);
}

#[test]
fn statements_keep_their_text_beyond_ascii() {
    let sql = "SELECT 'событие' AS \"имя\"; SELECT 'ещё'";
    let statements = parse(sql).unwrap();
    assert_eq!(statements[0].text, "SELECT 'событие' AS \"имя\"");
    assert_eq!(statements[1].text, "SELECT 'ещё'");
}
