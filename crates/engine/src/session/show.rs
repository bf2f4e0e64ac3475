//! SHOW, DESCRIBE and EXPLAIN.

use std::sync::Arc;

use arrow::array::{ArrayRef, StringArray};
use arrow::datatypes::DataType;
use ruslo_repr::row::batch_of;
use ruslo_repr::schema::type_name;
use ruslo_repr::{Error, ErrorKind, ObjectId, Result, Schema};
use ruslo_sql::Catalog as _;
use ruslo_sql::ast::{Explain, Name, ObjectKind, Query, Show, StatementKind};

use super::{Outcome, Session};
use crate::catalog::Object;

/// Rows of text columns.
struct TextRows {
    schema: Schema,
    rows: Vec<Vec<String>>,
}

impl TextRows {
    fn outcome(self, tag: &str) -> Result<Outcome> {
        let columns = (0..self.schema.len()).map(|column| {
            let values = self.rows.iter().map(|row| row[column].as_str());
            Arc::new(StringArray::from_iter_values(values)) as ArrayRef
        });
        let batch = batch_of(&self.schema, columns.collect(), self.rows.len())?;
        Ok(Outcome::Rows {
            schema: self.schema,
            batches: vec![batch],
            tag: tag.to_string(),
        })
    }
}

fn text_schema(names: &[&str]) -> Schema {
    Schema::new(names.iter().map(|name| (*name, DataType::Utf8)))
}

pub(super) fn columns_schema() -> Schema {
    text_schema(&["Name", "Type", "Is Hidden", "Description"])
}

pub(super) fn explain_schema() -> Schema {
    text_schema(&["QUERY PLAN"])
}

/// The columns that a SHOW answers with.
pub(super) fn show_schema(show: &Show) -> Schema {
    match show {
        Show::Objects {
            kind: ObjectKind::Sink,
            ..
        } => text_schema(&["Name", "Connector", "State", "Acknowledged", "Error"]),
        Show::Objects { .. } => text_schema(&["Name"]),
        Show::Columns(_) => columns_schema(),
        Show::Indexes(_) => text_schema(&["Name", "On", "Key", "Include", "Distributed By"]),
        Show::Create { .. } => text_schema(&["Name", "Create Sql"]),
        Show::Variable(name) => text_schema(&[name]),
        Show::All => text_schema(&["Name", "Setting", "Description"]),
        Show::Jobs => text_schema(&["Id", "Statement", "Progress"]),
        Show::Processlist => text_schema(&["Id", "User", "Info"]),
        Show::Cluster => text_schema(&["Id", "State"]),
    }
}

impl Session {
    pub(super) async fn show(&mut self, show: &Show) -> Result<Outcome> {
        let schema = show_schema(show);
        let rows = match show {
            Show::Objects { kind, schema, like } => {
                self.object_rows(*kind, schema.as_deref(), like.as_deref())
            }
            Show::Columns(name) => self.column_rows(name)?,
            Show::Create { kind, name } => {
                let object = self.shared.catalog.find_kind(&self.found(name), *kind)?;
                let shown = format!("{}.{}", object.schema, object.name);
                vec![vec![shown, object.definition.clone()]]
            }
            Show::Variable(name) => vec![vec![self.settings.get(name)?.to_string()]],
            Show::All => {
                let all = self.settings.all().into_iter();
                all.map(|(name, value, what)| vec![name, value, what])
                    .collect()
            }
            Show::Indexes(name) => {
                self.relation(name)?;
                vec![]
            }
            Show::Jobs | Show::Processlist | Show::Cluster => {
                return Err(Error::unsupported("this SHOW is not supported yet"));
            }
        };
        TextRows { schema, rows }.outcome("SHOW")
    }

    fn object_rows(
        &self,
        kind: ObjectKind,
        schema: Option<&str>,
        like: Option<&str>,
    ) -> Vec<Vec<String>> {
        let mut rows: Vec<Vec<String>> = match kind {
            ObjectKind::Schema => self
                .shared
                .catalog
                .schemas()
                .into_iter()
                .map(|name| vec![name])
                .collect(),
            ObjectKind::Database => vec![vec![self.database.clone()]],
            ObjectKind::User => vec![vec![self.user.clone()]],
            _ => {
                let objects = self.shared.catalog.objects();
                let current = self.search_path().into_iter().next();
                let wanted = schema.or(current.as_deref());
                let shown = objects
                    .iter()
                    .filter(|o| o.kind() == kind && Some(o.schema.as_str()) == wanted);
                shown.map(|object| object_row(object)).collect()
            }
        };
        if let Some(pattern) = like {
            rows.retain(|row| is_like(&row[0], pattern));
        }
        rows.sort();
        rows
    }

    pub(super) fn relation(&self, name: &Name) -> Result<Arc<ruslo_sql::Relation>> {
        let found = self.names().resolve(name.schema.as_deref(), &name.name);
        found.ok_or_else(|| {
            let message = format!("relation \"{name}\" does not exist");
            Error::new(ErrorKind::UndefinedTable, message)
        })
    }

    fn column_rows(&self, name: &Name) -> Result<Vec<Vec<String>>> {
        let relation = self.relation(name)?;
        let columns = relation.schema.columns.iter().enumerate();
        let modifier = |i: usize| relation.modifiers.get(i).copied().flatten();
        let mut rows: Vec<Vec<String>> = columns
            .map(|(i, c)| {
                let modifier = modifier(i).map(|modifier| modifier.to_string());
                vec![
                    c.name.clone(),
                    type_name(&c.ty) + &modifier.unwrap_or_default(),
                    "false".into(),
                    String::new(),
                ]
            })
            .collect();
        if !relation.key.is_empty() {
            let key = relation
                .key
                .iter()
                .map(|&c| relation.schema.columns[c].name.clone());
            let key = key.collect::<Vec<_>>().join(", ");
            rows.push(vec![
                "primary key".into(),
                key,
                String::new(),
                String::new(),
            ]);
        }
        Ok(rows)
    }

    pub(super) fn describe_relation(&self, name: &Name) -> Result<Outcome> {
        let rows = self.column_rows(name)?;
        TextRows {
            schema: columns_schema(),
            rows,
        }
        .outcome("DESCRIBE")
    }

    pub(super) async fn explain(&mut self, explain: &Explain) -> Result<Outcome> {
        if explain.analyze {
            return Err(Error::unsupported("EXPLAIN ANALYZE is not supported yet"));
        }
        let lines = match &explain.statement.kind {
            StatementKind::CreateMaterializedView(create) => self.explain_view(&create.query)?,
            StatementKind::Query(query) => self.explain_view(query)?,
            _ => {
                let message = "EXPLAIN takes a query or CREATE MATERIALIZED VIEW";
                return Err(Error::unsupported(message));
            }
        };
        let rows = lines.into_iter().map(|line| vec![line]).collect();
        TextRows {
            schema: explain_schema(),
            rows,
        }
        .outcome("EXPLAIN")
    }

    fn explain_view(&self, query: &Query) -> Result<Vec<String>> {
        let catalog = &self.shared.catalog;
        let plan = ruslo_sql::plan_view(query, &self.names(), &self.context())?;
        let name = |id: ObjectId| match catalog.get(id) {
            Some(object) => object.name.clone(),
            None => id.to_string(),
        };
        Ok(ruslo_sql::explain(&plan.plan, &name))
    }
}

fn object_row(object: &Object) -> Vec<String> {
    match &object.body {
        crate::catalog::Body::Sink { sink, .. } => {
            let status = sink.status.lock().clone();
            let state = if status.error.is_some() {
                "retrying"
            } else {
                "running"
            };
            vec![
                object.name.clone(),
                sink.connector.to_string(),
                state.to_string(),
                status.acknowledged.to_string(),
                status.error.unwrap_or_default(),
            ]
        }
        _ => vec![object.name.clone()],
    }
}

/// SQL's LIKE without escapes: `%` any run, `_` any one character.
fn is_like(text: &str, pattern: &str) -> bool {
    fn matches(text: &[char], pattern: &[char]) -> bool {
        match pattern.split_first() {
            None => text.is_empty(),
            Some(('%', rest)) => (0..=text.len()).any(|skip| matches(&text[skip..], rest)),
            Some(('_', rest)) => !text.is_empty() && matches(&text[1..], rest),
            Some((c, rest)) => text.first() == Some(c) && matches(&text[1..], rest),
        }
    }
    let text: Vec<char> = text.chars().collect();
    let pattern: Vec<char> = pattern.chars().collect();
    matches(&text, &pattern)
}
