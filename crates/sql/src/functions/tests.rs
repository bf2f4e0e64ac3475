//! Expressions through the whole front end, held against what PostgreSQL 15 gives for them.
//!
//! `cases.txt` was made by PostgreSQL. Where Ruslo differs on purpose the line says so: behind
//! `=>` stands what PostgreSQL gives, behind `!=` what we give.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use arrow::datatypes::{DataType, Field};
use ruslo_repr::Result;
use ruslo_repr::schema::NUMERIC;
use ruslo_repr::text::{TextStyle, write_text};

use crate::ast::{Query, StatementKind};
use crate::{Catalog, QueryMemory, Relation, SessionContext};

/// No relations.
struct Nothing;

impl Catalog for Nothing {
    fn resolve(&self, _schema: Option<&str>, _name: &str) -> Option<Arc<Relation>> {
        None
    }
}

fn query(sql: &str) -> Result<Box<Query>> {
    match crate::parse(sql)?.remove(0).kind {
        StatementKind::Query(query) => Ok(query),
        other => panic!("not a query: {other:?}"),
    }
}

/// What psql prints for a query: rows apart by `\n`, columns by `|`.
fn printed(sql: &str, zone: &str) -> Result<String> {
    let session = SessionContext {
        time_zone: zone.into(),
        ..SessionContext::default()
    };
    let style = TextStyle::with_time_zone(zone)?;
    let plan = crate::plan_select(&*query(sql)?, &Nothing, &session, &[])?;
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let batches = runtime.block_on(plan.execute(HashMap::new(), &[], &QueryMemory::new(None)?))?;
    let mut lines = vec![];
    for batch in &batches {
        for row in 0..batch.num_rows() {
            let values = batch.columns().iter().map(|column| {
                let mut text = String::new();
                match write_text(column, row, &style, &mut text) {
                    true => text.replace('\n', "\\n"),
                    false => "NULL".into(),
                }
            });
            lines.push(values.collect::<Vec<_>>().join("|"));
        }
    }
    Ok(lines.join("\\n"))
}

fn shown(sql: &str) -> String {
    let sql = sql.to_string();
    let result = std::panic::catch_unwind(|| printed(&sql, "UTC"));
    match result {
        Ok(Ok(text)) => text,
        Ok(Err(error)) => format!("! {} {}", error.kind.sqlstate(), error.message),
        Err(_) => "! panic".into(),
    }
}

/// One expectation of `cases.txt`.
struct Case<'a> {
    expression: &'a str,
    expected: &'a str,
}

fn cases(text: &str) -> impl Iterator<Item = Case<'_>> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| {
        let (expression, given) = line.rsplit_once(" => ").expect("a case has an arrow");
        let expected = given.rsplit_once(" != ").map_or(given, |(_, ours)| ours);
        Case {
            expression,
            expected,
        }
    })
}

/// Equal, or errors with one message whose codes are of one class: ours tell fewer codes apart.
fn agree(expected: &str, got: &str) -> bool {
    let class = |text: &str| text.get(..4).map(str::to_string);
    let message = |text: &str| text.get(8..).map(str::to_string);
    let errors = expected.starts_with("! ") && got.starts_with("! ");
    expected == got
        || (errors && class(expected) == class(got) && message(expected) == message(got))
}

#[test]
fn expressions_give_what_postgres_gives() {
    let wrong = Mutex::new(vec![]);
    for case in cases(include_str!("cases.txt")) {
        let got = match case.expression.starts_with("SELECT") {
            true => shown(case.expression),
            false => shown(&format!("SELECT {}", case.expression)),
        };
        if !agree(case.expected, &got) {
            let Case {
                expression,
                expected,
            } = case;
            let line = format!("{expression}\n  expected {expected}\n  got      {got}");
            wrong.lock().unwrap().push(line);
        }
    }
    let wrong = wrong.into_inner().unwrap();
    assert!(
        wrong.is_empty(),
        "{} differ:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

/// What has no form in PostgreSQL's SQL, or depends on the session.
#[test]
fn expressions_follow_the_session_zone() {
    let cases = [
        ("timestamptz '2024-01-31 10:00'", "2024-01-31 10:00:00-05"),
        (
            "'2024-07-31 10:00'::timestamptz::timestamp",
            "2024-07-31 10:00:00",
        ),
        ("timestamptz '2024-07-31 10:00+00'::date", "2024-07-31"),
        ("timestamptz '2024-07-31 02:00+00'::date", "2024-07-30"),
        (
            "timestamptz '2024-07-31 02:00+00'::text",
            "2024-07-30 22:00:00-04",
        ),
        ("extract(hour from timestamptz '2024-07-31 02:00+00')", "22"),
        (
            "extract(timezone_hour from timestamptz '2024-07-31 02:00+00')",
            "-4",
        ),
        (
            "date_trunc('day', timestamptz '2024-07-31 02:00+00')",
            "2024-07-30 00:00:00-04",
        ),
        (
            "timestamptz '2024-03-09 12:00' + interval '1 day'",
            "2024-03-10 12:00:00-04",
        ),
        (
            "timestamptz '2024-03-09 12:00' + interval '24 hours'",
            "2024-03-10 13:00:00-04",
        ),
        (
            "to_char(timestamptz '2024-07-31 02:00+00', 'HH24 TZ OF')",
            "22 EDT -04",
        ),
        (
            "to_timestamp('2024-07-31', 'YYYY-MM-DD')",
            "2024-07-31 00:00:00-04",
        ),
        (
            "make_timestamptz(2024, 1, 31, 10, 0, 0)",
            "2024-01-31 10:00:00-05",
        ),
        (
            "to_jsonb(timestamptz '2024-07-31 02:00+00')",
            "\"2024-07-30T22:00:00-04:00\"",
        ),
        (
            "timestamp '2024-07-31' < timestamptz '2024-07-31 03:00+00'",
            "f",
        ),
        ("date '2024-07-31' = timestamptz '2024-07-31 04:00+00'", "t"),
    ];
    for (expression, expected) in cases {
        let got = printed(&format!("SELECT {expression}"), "America/New_York");
        assert_eq!(got.unwrap(), expected, "{expression}");
    }
}

#[test]
fn functions_behind_syntax_work_by_name() {
    let cases = [
        ("op_any_eq(1.0, ARRAY[1, 2])", "t"),
        ("op_any_eq(1, ARRAY[2, NULL])", "NULL"),
        ("op_any_eq(1, ARRAY[1, NULL])", "t"),
        ("op_any_lt(3, ARRAY[1, 2])", "f"),
        ("op_all_ge(3, ARRAY[1, 2.5])", "t"),
        ("op_all_ne(3, ARRAY[1, NULL])", "NULL"),
        ("op_all_eq(1, ARRAY[]::int[])", "t"),
        ("op_any_eq('a', ARRAY['a'])", "t"),
        ("numeric_typmod(12.345, 5, 2)", "12.35"),
        (
            "numeric_typmod(12345.678, 5, 2)",
            "! 22003 numeric field overflow",
        ),
        ("varchar_typmod('abcdef', 3)", "abc"),
        ("key_form(1.500)", "1.5"),
        ("op_add(1, 2.5)", "3.5"),
        ("mod(7, 0)", "! 22012 division by zero"),
        ("to_jsonb()", "! 42883 function to_jsonb() does not exist"),
        (
            "array_position(ARRAY[1])",
            "! 42883 function array_position(integer[]) does not exist",
        ),
    ];
    for (expression, expected) in cases {
        assert_eq!(
            shown(&format!("SELECT {expression}")),
            expected,
            "{expression}"
        );
    }
}

#[test]
fn every_function_is_found_by_its_name() {
    let registry = super::registry();
    for (name, function) in registry.scalars() {
        let found = registry.scalar(function.name()).unwrap();
        assert_eq!(found.name(), function.name(), "{name}");
    }
    let ours = |name: &str| registry.scalar(name).is_some_and(|f| f.name() == name);
    for target in [
        "integer",
        "numeric",
        "varchar[]",
        "timestamptz",
        "interval[][]",
    ] {
        assert!(ours(&format!("cast_to_{target}")), "{target}");
    }
    let row = DataType::Struct(vec![Field::new("a b", NUMERIC, true)].into());
    let cast = super::cast::cast_function(&row);
    assert!(ours(cast.name()), "{}", cast.name());
    assert!(registry.scalar("cast_to_nothing").is_none());
}
