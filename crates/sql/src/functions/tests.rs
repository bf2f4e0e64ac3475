//! Expressions through the whole front end, held against what PostgreSQL 15 gives for them.
//!
//! `cases.txt` was made by PostgreSQL. Where Ruslo differs on purpose the line says so: behind
//! `=>` stands what PostgreSQL gives, behind `!=` what we give.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use ruslo_repr::Result;
use ruslo_repr::text::{TextStyle, write_text};

use crate::ast::{Query, StatementKind};
use crate::{Catalog, Relation, SessionContext};

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
fn printed(sql: &str) -> Result<String> {
    let session = SessionContext::default();
    let plan = crate::plan_select(&*query(sql)?, &Nothing, &session, &[])?;
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let batches = runtime.block_on(plan.execute(HashMap::new(), &[]))?;
    let mut lines = vec![];
    for batch in &batches {
        for row in 0..batch.num_rows() {
            let values = batch.columns().iter().map(|column| {
                let mut text = String::new();
                match write_text(column, row, &TextStyle::default(), &mut text) {
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
    let result = std::panic::catch_unwind(|| printed(&sql));
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
