//! CREATE of sources, tables and schemas.

use std::sync::Arc;

use ruslo_connector::kafka::{KafkaOptions, TopicId};
use ruslo_dataflow::Command;
use ruslo_format::JsonOptions;
use ruslo_repr::{Error, ErrorKind, ObjectId, Result, Schema, Time};
use ruslo_sql::ast::{self, Encode, Format, OnConflict, Options};
use ruslo_sql::{Relation, RelationKind};

use super::create::NewObject;
use super::{Outcome, Session};
use crate::catalog::{Body, Table, duplicate_schema};
use crate::coordinator::Request;
use crate::durable::{Change, SourceStart};
use crate::host::Host;
use crate::ingest::Source;

impl Session {
    pub(super) async fn create_source(
        &mut self,
        create: &ast::CreateSource,
        text: &str,
    ) -> Result<Outcome> {
        let shared = self.shared.clone();
        let _ddl = shared.ddl.lock().await;
        let name = &create.name.name;
        let Some(schema) = self.place(&create.name, create.if_not_exists)? else {
            return Outcome::done("CREATE_SOURCE");
        };
        check_source(create)?;
        let options = KafkaOptions::parse(&create.options.0)?;
        let json = json_options(create)?;
        let start = match self
            .recovering
            .as_ref()
            .map(|r| r.definition.source.clone())
        {
            Some(start) => start.unwrap_or_default(),
            None => probe(&shared.host, &options).await?,
        };
        let topic_id = start.topic_id.as_deref().and_then(TopicId::parse);
        let options = options.for_topic(topic_id);
        let columns = create
            .columns
            .iter()
            .map(|c| (c.name.clone(), c.ty.clone()));
        let columns = Schema::new(columns);
        let id = self.new_id();
        let relation = Relation::new(id, &schema, name, columns.clone(), RelationKind::Source);
        let offsets = start.offsets.clone();
        let host = shared.host.clone();
        let source = Arc::new(Source::new(id, name, options, columns, json, offsets, host));
        shared.coordinator.send(Request::CreateSource(id));
        let body = Body::Source {
            relation: Arc::new(relation),
            source,
        };
        let new = NewObject {
            id,
            schema,
            name,
            text,
            options: Some(&create.options),
            depends_on: vec![],
            body,
            source: Some(start),
            replaces: None,
        };
        self.add(new).await?;
        Outcome::done("CREATE_SOURCE")
    }

    pub(super) async fn create_table(
        &mut self,
        create: &ast::CreateTable,
        text: &str,
    ) -> Result<Outcome> {
        let shared = self.shared.clone();
        let _ddl = shared.ddl.lock().await;
        let name = &create.name.name;
        let Some(schema) = self.place(&create.name, create.if_not_exists)? else {
            return Outcome::done("CREATE_TABLE");
        };
        check_table(create)?;
        let columns = create
            .columns
            .iter()
            .map(|c| (c.name.clone(), c.ty.clone()));
        let columns = Schema::new(columns);
        let id = self.new_id();
        let key = create.primary_key.clone();
        let arranged_by = match key.is_empty() {
            true => (0..columns.len()).collect(),
            false => key.clone(),
        };
        let mut relation = Relation::new(id, &schema, name, columns.clone(), RelationKind::Table);
        relation.key = key;
        relation.append_only = create.append_only;
        relation.modifiers = create.columns.iter().map(|c| c.modifier).collect();
        let not_null = create
            .columns
            .iter()
            .enumerate()
            .filter(|(_, c)| c.not_null);
        relation.not_null = not_null.map(|(i, _)| i).collect();
        let defaults = create
            .columns
            .iter()
            .map(|c| c.default.as_ref().map(|d| d.to_string()));
        relation.defaults = defaults.collect();
        let (readable_from, last_write) = self.start_table(id, columns, &arranged_by).await?;
        let table = Arc::new(Table {
            readable_from,
            arranged_by,
            write_lock: tokio::sync::Mutex::new(last_write),
            on_conflict: create.on_conflict.unwrap_or(OnConflict::Overwrite),
            append_only: create.append_only,
        });
        let body = Body::Table {
            relation: Arc::new(relation),
            table,
        };
        let new = NewObject {
            id,
            schema,
            name,
            text,
            options: None,
            depends_on: vec![],
            body,
            source: None,
            replaces: None,
        };
        self.add(new).await?;
        Outcome::done("CREATE_TABLE")
    }

    /// Gives a table its input; from when on it can be read, and no write came later than.
    async fn start_table(
        &self,
        id: ObjectId,
        schema: Schema,
        arranged_by: &[usize],
    ) -> Result<(Time, Time)> {
        let (coordinator, key) = (&self.shared.coordinator, arranged_by.to_vec());
        if let Some(recovering) = &self.recovering {
            let as_of = recovering.checkpoint.time;
            let points = recovering.points(id).cloned();
            coordinator.send(Request::Recover(Command::CreateTable {
                id,
                schema,
                key,
                as_of,
                restore: points.is_some(),
            }));
            if let Some(points) = points {
                recovering.feed(&self.shared, id, points)?;
            }
            recovering.pasts.lock().push((id, vec![]));
            return Ok((as_of, recovering.last));
        }
        let create_it = |reply| Request::CreateTable {
            id,
            schema,
            key,
            reply,
        };
        let readable_from = coordinator.ask(create_it).await?;
        Ok((readable_from, readable_from))
    }

    pub(super) async fn create_schema(
        &mut self,
        if_not_exists: bool,
        name: &str,
    ) -> Result<Outcome> {
        let shared = self.shared.clone();
        let _ddl = shared.ddl.lock().await;
        if shared.catalog.has_schema(name) {
            if !if_not_exists {
                return Err(duplicate_schema(name));
            }
            self.notice(format!("schema \"{name}\" already exists, skipping"));
        } else {
            self.record(vec![Change::CreateSchema(name.to_string())])
                .await?;
            shared.catalog.create_schema(name);
        }
        Outcome::done("CREATE_SCHEMA")
    }
}

/// Asks the broker where a source on this topic begins.
async fn probe(host: &Host, options: &KafkaOptions) -> Result<SourceStart> {
    let (broker, options) = (host.broker.clone(), options.clone());
    let probed = host.blocking(move || broker.probe(&options)).await?;
    Ok(SourceStart {
        offsets: probed.start,
        topic_id: probed.topic_id.map(|id| id.to_string()),
    })
}

pub(super) fn check_unique_names(schema: &Schema) -> Result<()> {
    let mut seen = std::collections::BTreeSet::new();
    for column in &schema.columns {
        if !seen.insert(&column.name) {
            let message = format!("column \"{}\" specified more than once", column.name);
            let hint = "Give each column a name of its own with AS.";
            return Err(Error::new(ErrorKind::DuplicateColumn, message).with_hint(hint));
        }
    }
    Ok(())
}

pub(super) fn check_connector(what: &str, options: &Options, connector: &str) -> Result<()> {
    match options.get("connector") {
        Some(given) if given.eq_ignore_ascii_case(connector) => Ok(()),
        Some(given) => {
            let message = format!("connector \"{given}\" is not supported for a {what}");
            let hint = format!("Supported: {connector}.");
            Err(Error::unsupported(message).with_hint(hint))
        }
        None => {
            let message = format!("missing field \"connector\" in the WITH clause of the {what}");
            let hint = format!("Say WITH (connector = '{connector}', …).");
            Err(Error::new(ErrorKind::InvalidParameter, message).with_hint(hint))
        }
    }
}

fn check_source(create: &ast::CreateSource) -> Result<()> {
    check_connector("source", &create.options, "kafka")?;
    if create.columns.is_empty() {
        let message = "a source with ENCODE JSON needs its columns";
        return Err(Error::new(ErrorKind::Syntax, message));
    }
    if let Some(column) = create.columns.iter().find(|c| c.modifier.is_some()) {
        let message = format!(
            "the column \"{}\" of a source cannot have a length or precision",
            column.name
        );
        return Err(Error::unsupported(message)
            .with_hint("Leave it out, and cast in a materialized view where it is needed."));
    }
    if !create.include.is_empty() {
        return Err(Error::unsupported("INCLUDE columns are not supported yet"));
    }
    if !create.primary_key.is_empty() {
        let message = "a source has no PRIMARY KEY";
        return Err(Error::new(ErrorKind::Syntax, message));
    }
    match &create.format {
        Some(format) if format.format == Format::Plain && format.encode == Encode::Json => Ok(()),
        Some(_) => {
            let message = "this FORMAT … ENCODE … is not supported for a Kafka source yet";
            Err(Error::unsupported(message).with_hint("Supported: FORMAT PLAIN ENCODE JSON."))
        }
        None => {
            let message = "a Kafka source needs FORMAT … ENCODE …";
            let hint = "Say FORMAT PLAIN ENCODE JSON after the WITH clause.";
            Err(Error::new(ErrorKind::Syntax, message).with_hint(hint))
        }
    }
}

fn json_options(create: &ast::CreateSource) -> Result<JsonOptions> {
    let mut json = JsonOptions::default();
    for (name, value) in create
        .format
        .iter()
        .flat_map(|format| format.options.iter())
    {
        if !json.set(name, value)? {
            let message = format!("unknown option \"{name}\" of ENCODE JSON");
            let hint = "Known: timestamp.handling.mode, timestamptz.handling.mode, \
                        time.handling.mode.";
            return Err(Error::new(ErrorKind::InvalidParameter, message).with_hint(hint));
        }
    }
    Ok(json)
}

fn check_table(create: &ast::CreateTable) -> Result<()> {
    if !create.options.is_empty() || create.format.is_some() {
        let message = "a table with a connector is not supported yet";
        let hint = "Use CREATE SOURCE and a materialized view.";
        return Err(Error::unsupported(message).with_hint(hint));
    }
    if create.query.is_some() {
        return Err(Error::unsupported("CREATE TABLE … AS is not supported yet"));
    }
    if !create.include.is_empty() {
        return Err(Error::unsupported("INCLUDE columns need a connector"));
    }
    if create.columns.is_empty() {
        return Err(Error::new(
            ErrorKind::Syntax,
            "a table needs at least one column",
        ));
    }
    Ok(())
}
