//! CREATE SINK.

use std::sync::Arc;

use ruslo_connector::redis::{RedisOptions, SinkEncode, SinkFormat};
use ruslo_format::{JsonEncodeOptions, JsonEncoder, Template};
use ruslo_repr::{Error, ErrorKind, ObjectId, Result, Time};
use ruslo_sql::ast::{self, Encode, Format, Options, SinkFrom};
use ruslo_sql::{Relation, RelationKind};
use tokio::sync::mpsc;

use super::create::{NewObject, Recorder};
use super::ddl::{check_connector, check_unique_names};
use super::running::Unfinished;
use super::{Outcome, Session};
use crate::catalog::{Body, View};
use crate::coordinator::Request;
use crate::durable::Recovering;
use crate::export::{Clash, Encoding, Export, ExportConfig, Sink};

/// What a sink reads.
struct SinkInput {
    id: ObjectId,
    relation: Arc<Relation>,
    arranged_by: Vec<usize>,
    readable_from: Time,
    depends_on: Vec<ObjectId>,
    /// Set when the view belongs to the sink alone.
    view: Option<Arc<View>>,
    warnings: Vec<String>,
}

impl Session {
    pub(super) async fn create_sink(
        &mut self,
        create: &ast::CreateSink,
        text: &str,
    ) -> Result<Outcome> {
        let shared = self.shared.clone();
        let _ddl = shared.ddl.lock().await;
        let name = &create.name.name;
        let Some(schema) = self.place(&create.name, create.if_not_exists)? else {
            return Outcome::done("CREATE_SINK");
        };
        check_connector("sink", &create.options, "redis")?;
        let input = self.sink_input(&create.from, name).await?;
        // Until the sink is there, its own view (if it has one) is nobody's.
        let sources = input
            .view
            .iter()
            .flat_map(|view| view.sources.clone())
            .collect();
        let done = input.view.is_none();
        let mut unfinished = Unfinished {
            session: self,
            id: input.id,
            sources,
            done,
        };
        let (options, output) = redis_sink(create, &input.relation)?;
        let writer = match &self.recovering {
            // It connects when it has something to write: a server that is away is waited for.
            Some(_) => shared.host.outlet.unconnected(&options)?,
            None => shared.host.outlet.connect(&options).await?,
        };
        if output.deletes && self.recovering.is_none() {
            self.checkpoint_of(input.readable_from).await?;
        }
        let id = self.new_id();
        let sink = Arc::new(Sink::new(name));
        let (changes, receive) = mpsc::unbounded_channel();
        let config = ExportConfig {
            from: input.id,
            readable_from: input.readable_from,
            schema: input.relation.schema.clone(),
            arranged_by: input.arranged_by,
            encoding: output.encoding,
            deletes: output.deletes,
            clash: output.clash,
            workers: shared.workers.workers(),
            portion_bytes: shared.host.outlet.portion_bytes(),
            coordinator: shared.coordinator.clone(),
            recovered: self.recovering.as_ref().map(Recovering::sink),
        };
        let visible = shared.coordinator.visible();
        Export::spawn(sink.clone(), config, writer, receive, visible)?;
        let (from, at_least) = (input.id, input.readable_from);
        shared.coordinator.send(Request::CreateSink {
            id,
            from,
            at_least,
            changes,
        });
        unfinished.done = true;
        drop(unfinished);
        self.warn_all(input.warnings);
        let body = Body::Sink {
            sink,
            view: input.view.map(|view| (from, view)),
        };
        let new = NewObject {
            id,
            schema,
            name,
            text,
            options: Some(&create.options),
            depends_on: input.depends_on,
            body,
            source: None,
            replaces: None,
        };
        self.add(new).await?;
        Outcome::done("CREATE_SINK")
    }

    /// Waits for a checkpoint with what was there at `time`: which rows go away from there on can be
    /// told after a crash, so that no key is forgotten outside.
    async fn checkpoint_of(&self, time: Time) -> Result<()> {
        let coordinator = &self.shared.coordinator;
        let read = |reply| Request::Read {
            at_least: time,
            reply,
        };
        drop(coordinator.ask(read).await?);
        coordinator.ask(Request::CheckpointNow).await
    }

    /// The arrangement that a sink reads: one that is there, or a view of its own.
    async fn sink_input(&self, from: &SinkFrom, sink: &str) -> Result<SinkInput> {
        match from {
            SinkFrom::Query(query) => {
                let recorder = Recorder::new(self.names());
                let plan = ruslo_sql::plan_view(query, &recorder, &self.context())?;
                check_unique_names(&plan.schema)?;
                let id = self.new_view_id();
                let kind = RelationKind::MaterializedView;
                let mut relation = Relation::new(id, "", sink, plan.schema.clone(), kind);
                relation.append_only = plan.append_only;
                if plan.key_is_unique {
                    relation.key = plan.key.clone();
                }
                let (view, warnings) = self.run_view(id, sink, plan).await?;
                let view = Arc::new(view);
                Ok(SinkInput {
                    id,
                    relation: Arc::new(relation),
                    arranged_by: view.arranged_by.clone(),
                    readable_from: view.readable_from,
                    depends_on: recorder.seen(),
                    view: Some(view),
                    warnings,
                })
            }
            SinkFrom::Relation(from) => {
                let object = self.find(from).ok_or_else(|| {
                    let message = format!("relation \"{from}\" does not exist");
                    Error::new(ErrorKind::UndefinedTable, message)
                })?;
                let (Some(relation), Some(key)) = (object.relation(), object.arranged_by()) else {
                    let message = format!("cannot create a sink from \"{from}\"");
                    let hint = "A sink reads a materialized view, a table or AS SELECT ….";
                    return Err(Error::new(ErrorKind::WrongObjectType, message).with_hint(hint));
                };
                Ok(SinkInput {
                    id: object.id,
                    relation: relation.clone(),
                    arranged_by: key.to_vec(),
                    readable_from: object.readable_from()?,
                    depends_on: vec![object.id],
                    view: None,
                    warnings: vec![],
                })
            }
        }
    }
}

/// What a sink makes of its view's rows.
struct Output {
    encoding: Encoding,
    /// Whether a row that goes away takes its key along.
    deletes: bool,
    clash: Clash,
}

/// The options of a Redis sink, checked against the view it reads.
fn redis_sink(create: &ast::CreateSink, relation: &Relation) -> Result<(RedisOptions, Output)> {
    let Some(format) = &create.format else {
        let message = "a Redis sink needs FORMAT … ENCODE …";
        let hint = "For example FORMAT PLAIN ENCODE JSON (force_append_only = 'true').";
        return Err(Error::new(ErrorKind::Syntax, message).with_hint(hint));
    };
    let kind = match format.format {
        Format::Plain => SinkFormat::Plain,
        Format::Upsert => SinkFormat::Upsert,
        _ => {
            return Err(Error::unsupported(
                "a Redis sink takes FORMAT PLAIN or UPSERT",
            ));
        }
    };
    let encode = match format.encode {
        Encode::Json => SinkEncode::Json,
        Encode::Template => SinkEncode::Template,
        _ => {
            return Err(Error::unsupported(
                "a Redis sink takes ENCODE JSON or TEMPLATE",
            ));
        }
    };
    let options = RedisOptions::parse(&create.options.0, kind, encode, &format.options.0)?;
    let key = key_columns(&options, relation)?;
    let deletes = match kind {
        SinkFormat::Upsert => true,
        SinkFormat::Plain if relation.append_only || options.force_append_only => false,
        SinkFormat::Plain => {
            let message = format!(
                "the sink cannot be append-only: rows of \"{}\" are updated or deleted",
                relation.name
            );
            let hint = "Set force_append_only = 'true' to pass deletes over, or use FORMAT UPSERT.";
            return Err(Error::new(ErrorKind::InvalidParameter, message).with_hint(hint));
        }
    };
    let encoded = encoding(&options, &format.options, relation, key)?;
    let (encoding, printed) = encoded;
    let clash = Clash::of(&encoding, relation, &printed)?;
    let output = Output {
        encoding,
        deletes,
        clash,
    };
    Ok((options, output))
}

/// The columns that `primary_key` names.
fn key_columns(options: &RedisOptions, relation: &Relation) -> Result<Vec<usize>> {
    let schema = &relation.schema;
    let columns = options.primary_key.iter().map(|name| {
        schema.position(name).ok_or_else(|| {
            let message = format!(
                "primary key column \"{name}\" is not in \"{}\"",
                relation.name
            );
            let names = schema.columns.iter().map(|column| column.name.as_str());
            let names = names.collect::<Vec<_>>().join(", ");
            Error::new(ErrorKind::UndefinedColumn, message).with_hint(format!(
                "The columns are {names}; capital letters count here."
            ))
        })
    });
    columns.collect()
}

/// How rows are printed, and the columns that their keys are printed from.
fn encoding(
    options: &RedisOptions,
    modes_given: &Options,
    relation: &Relation,
    key: Vec<usize>,
) -> Result<(Encoding, Vec<usize>)> {
    let schema = &relation.schema;
    match (&options.key_format, &options.value_format) {
        (Some(key_format), Some(value_format)) => {
            let key_template = Template::parse(key_format, schema)?;
            let foreign = key_template
                .columns()
                .iter()
                .find(|c| !key.contains(c))
                .copied();
            if let Some(column) = foreign {
                let message = format!(
                    "key_format names \"{}\", which is not a primary key column",
                    schema.columns[column].name
                );
                return Err(Error::new(ErrorKind::InvalidParameter, message));
            }
            let printed = key_template.columns();
            let encoding = Encoding::Template {
                key: key_template,
                value: Template::parse(value_format, schema)?,
            };
            Ok((encoding, printed))
        }
        _ => {
            let all: Vec<usize> = (0..schema.len()).collect();
            let mut modes = JsonEncodeOptions::default();
            for (name, value) in modes_given.iter() {
                modes.set(name, value)?;
            }
            let encoding = Encoding::Json {
                key: JsonEncoder::new(schema, &key, modes)?,
                value: JsonEncoder::new(schema, &all, modes)?,
            };
            Ok((encoding, key))
        }
    }
}
