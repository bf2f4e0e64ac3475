//! Tests of the whole crate: SQL in, plans, rows and errors out.

mod agreement;
mod errors;
mod memory;
mod plans;
mod queries;

use std::sync::Arc;

use chrono::{DateTime, Utc};
use ruslo_repr::schema::{INTERVAL, JSONB, NUMERIC, TIMESTAMP};
use ruslo_repr::{ObjectId, Schema};

use crate::ast::{Query, StatementKind};
use crate::{Catalog, QueryMemory, Relation, RelationKind, SessionContext};
use arrow::datatypes::DataType;

/// A catalog of one relation of each kind.
struct Fixture {
    relations: Vec<Arc<Relation>>,
}

impl Fixture {
    fn new() -> Self {
        let events = Schema::new([
            ("event_timestamp", TIMESTAMP),
            ("user", DataType::Utf8),
            ("page", DataType::Utf8),
            ("event", DataType::Utf8),
        ]);
        let orders = Schema::new([
            ("id", DataType::Int32),
            ("customer", DataType::Utf8),
            ("price", NUMERIC),
            ("quantity", DataType::Int32),
            ("ordered", TIMESTAMP),
        ]);
        let customers = Schema::new([
            ("name", DataType::Utf8),
            ("city", DataType::Utf8),
            ("credit", DataType::Float64),
            ("big", DataType::Int64),
        ]);
        let kinds = Schema::new([
            ("b", DataType::Boolean),
            ("i", DataType::Int32),
            ("n", NUMERIC),
            ("f", DataType::Float64),
            ("t", DataType::Utf8),
            ("span", INTERVAL),
            ("j", JSONB),
            ("_row_id", DataType::Int64),
        ]);
        let totals = Schema::new([("event", DataType::Utf8), ("count", DataType::Int64)]);
        let clicks = RelationKind::View {
            text: "SELECT page, count(*) FROM user_events WHERE event = 'click' GROUP BY page"
                .into(),
        };
        let clicks_schema = Schema::new([("page", DataType::Utf8), ("count", DataType::Int64)]);
        let relation = |id, name: &str, schema, kind| {
            Relation::new(ObjectId(id), "public", name, schema, kind)
        };
        let mut kinds = relation(4, "kinds", kinds, RelationKind::Table);
        kinds.hidden = 1;
        kinds.defaults = vec![None, Some("7".into())];
        let relations = vec![
            relation(1, "user_events", events, RelationKind::Source),
            relation(2, "orders", orders, RelationKind::Table).with_key(vec![0]),
            relation(3, "customers", customers, RelationKind::Table).with_key(vec![0]),
            kinds,
            relation(5, "totals", totals, RelationKind::MaterializedView).with_key(vec![0]),
            relation(6, "clicks", clicks_schema, clicks),
            relation(
                7,
                "pg_things",
                Schema::new([("oid", DataType::Int32)]),
                RelationKind::System,
            ),
        ];
        Fixture {
            relations: relations.into_iter().map(Arc::new).collect(),
        }
    }

    fn name(&self, id: ObjectId) -> String {
        let found = self.relations.iter().find(|r| r.id == id);
        found.map_or_else(|| id.to_string(), |r| r.name.clone())
    }
}

impl Catalog for Fixture {
    fn resolve(&self, schema: Option<&str>, name: &str) -> Option<Arc<Relation>> {
        let mut all = self.relations.iter();
        let found = all.find(|r| r.name == name && schema.is_none_or(|s| s == r.schema_name));
        found.cloned()
    }
}

fn session() -> SessionContext {
    let now: DateTime<Utc> = "2026-11-22T10:00:00Z".parse().unwrap();
    SessionContext {
        now,
        ..SessionContext::default()
    }
}

fn unlimited() -> QueryMemory {
    QueryMemory::new(None).unwrap()
}

fn query(sql: &str) -> Box<Query> {
    let statement = crate::parse(sql).unwrap().remove(0);
    match statement.kind {
        StatementKind::Query(query) => query,
        other => panic!("not a query: {other:?}"),
    }
}
