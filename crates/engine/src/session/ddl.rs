//! CREATE of sources, tables and views.
//!
//! One at a time, under the engine's DDL lock. An object gets into the catalog only when it works:
//! a source whose broker was reached, a view that has read its past, a sink that is connected.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use ruslo_connector::kafka::{self, KafkaOptions};
use ruslo_format::JsonOptions;
use ruslo_repr::{Error, ErrorKind, ObjectId, Plan, Result, Schema};
use ruslo_sql::ast::{self, Encode, Format, Name, OnConflict, Options};
use ruslo_sql::{Catalog as BindCatalog, Relation, RelationKind, ViewPlan};

use super::names::Named;
use super::{Outcome, Session};
use crate::catalog::{Body, Object, Table, View};
use crate::coordinator::{Request, ViewStart};
use crate::ingest::{Past, Source};
use crate::secrets;

/// How often a view that reads its past looks whether the readers still live.
const HYDRATION_CHECK: Duration = Duration::from_millis(200);

impl Session {
    /// The schema for a new object; None if it is there already and IF NOT EXISTS was said.
    pub(super) fn place(&mut self, name: &Name, if_not_exists: bool) -> Result<Option<String>> {
        let (schema, taken) = self.shared.catalog.place(&self.placed(name)?)?;
        match (taken, if_not_exists) {
            (false, _) => Ok(Some(schema)),
            (true, true) => {
                self.notice(format!(
                    "relation \"{}\" already exists, skipping",
                    name.name
                ));
                Ok(None)
            }
            (true, false) => {
                let message = format!("relation \"{}\" already exists", name.name);
                Err(Error::new(ErrorKind::DuplicateObject, message))
            }
        }
    }

    pub(super) fn add(&self, id: ObjectId, schema: String, name: &str, new: NewObject) {
        self.shared.catalog.insert(Object {
            id,
            schema,
            name: name.to_string(),
            definition: new.definition,
            owner: self.user.clone(),
            depends_on: new.depends_on,
            body: new.body,
        });
    }

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
        let probed = options.clone();
        let probed = blocking(move || kafka::probe(&probed)).await?;
        let options = options.for_topic(probed.topic_id);
        let columns = create
            .columns
            .iter()
            .map(|c| (c.name.clone(), c.ty.clone()));
        let columns = Schema::new(columns);
        let id = shared.catalog.next_id();
        let relation = Relation::new(id, &schema, name, columns.clone(), RelationKind::Source);
        let source = Arc::new(Source::new(id, name, options, columns, json, probed.start));
        shared.coordinator.send(Request::CreateSource(id));
        let body = Body::Source {
            relation: Arc::new(relation),
            source,
        };
        let definition = secrets::blot(text, &create.options);
        self.add(
            id,
            schema,
            name,
            NewObject {
                definition,
                depends_on: vec![],
                body,
            },
        );
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
        let id = shared.catalog.next_id();
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
        let (schema_of_rows, key) = (columns, arranged_by.clone());
        let create_it = |reply| Request::CreateTable {
            id,
            schema: schema_of_rows,
            key,
            reply,
        };
        let readable_from = shared.coordinator.ask(create_it).await?;
        let table = Arc::new(Table {
            readable_from,
            arranged_by,
            write_lock: tokio::sync::Mutex::new(readable_from),
            on_conflict: create.on_conflict.unwrap_or(OnConflict::Overwrite),
            append_only: create.append_only,
        });
        let body = Body::Table {
            relation: Arc::new(relation),
            table,
        };
        let definition = text.to_string();
        self.add(
            id,
            schema,
            name,
            NewObject {
                definition,
                depends_on: vec![],
                body,
            },
        );
        Outcome::done("CREATE_TABLE")
    }

    /// Starts a view's dataflow and waits until it has read all that was there before it.
    ///
    /// When this fails or is abandoned, nothing of the view stays behind. The view may come with
    /// warnings, about messages that its sources no longer have.
    pub(super) async fn run_view(
        &self,
        id: ObjectId,
        name: &str,
        plan: ViewPlan,
    ) -> Result<(View, Vec<String>)> {
        let shared = &self.shared;
        let reads = source_columns(&plan.plan);
        let mut sources = vec![];
        for (source_id, columns) in &reads {
            let object = shared.catalog.get(*source_id);
            match object.as_ref().map(|object| &object.body) {
                Some(Body::Source { source, .. }) => sources.push((source.clone(), columns)),
                _ => return Err(Error::internal("a view reads a source that is not there")),
            }
        }
        let mut unfinished = Unfinished {
            session: self,
            id,
            sources: vec![],
            done: false,
        };
        for (source, columns) in &sources {
            unfinished.sources.push(source.clone());
            source.add_reader(id, columns).await;
        }
        let hydrate: Vec<ObjectId> = sources
            .iter()
            .filter(|(s, _)| s.was_started())
            .map(|(s, _)| s.id)
            .collect();
        let (plan_sent, key) = (plan.plan.clone(), plan.key.clone());
        let (name, hydrating) = (name.to_string(), hydrate.clone());
        let create = |reply| Request::CreateView {
            id,
            name,
            plan: plan_sent,
            key,
            hydrate: hydrating,
            reply,
        };
        let start = shared.coordinator.ask(create).await?;
        let warnings = self.missing_messages(&sources, &hydrate, &start).await?;
        let pasts = self.read_sources(id, &sources, &hydrate, &start).await?;
        self.wait_hydrated(id, &pasts).await?;
        unfinished.done = true;
        let view = View {
            readable_from: start.as_of,
            arranged_by: plan.key,
            sources: sources.into_iter().map(|(source, _)| source).collect(),
        };
        Ok((view, warnings))
    }

    /// Which messages the new view should read and its sources' topics no longer have.
    async fn missing_messages(
        &self,
        sources: &[(Arc<Source>, &Vec<usize>)],
        hydrate: &[ObjectId],
        start: &ViewStart,
    ) -> Result<Vec<String>> {
        let mut warnings = vec![];
        for (source, _) in sources {
            let reads_past = hydrate.contains(&source.id);
            if source.status().is_some() && !reads_past {
                continue;
            }
            let mut from = source.start.clone();
            if !reads_past {
                from.extend(start.bound.get(&source.id).into_iter().flatten());
            }
            let options = source.options.clone();
            let kept = blocking(move || kafka::watermarks(&options, &[])).await?;
            for (partition, (low, _)) in kept {
                let from = from.get(&partition).copied().unwrap_or(0);
                if from < low {
                    warnings.push(format!(
                        "source \"{}\": offsets {from} to {low} of partition {partition} are no \
                         longer in topic \"{}\"; the view begins after them",
                        source.name,
                        source.options.topic()
                    ));
                }
            }
        }
        Ok(warnings)
    }

    pub(super) fn warn_all(&mut self, warnings: Vec<String>) {
        warnings
            .into_iter()
            .for_each(|warning| self.warning(warning));
    }

    /// Starts the live flow where it does not run, and the reading of the past where there is one.
    async fn read_sources(
        &self,
        view: ObjectId,
        sources: &[(Arc<Source>, &Vec<usize>)],
        hydrate: &[ObjectId],
        start: &ViewStart,
    ) -> Result<Vec<(Arc<Source>, Past)>> {
        let mut pasts = vec![];
        for (source, columns) in sources {
            let bound = start.bound.get(&source.id).cloned();
            let (workers, coordinator) =
                (self.shared.workers.clone(), self.shared.coordinator.clone());
            let (opened, columns) = (source.clone(), columns.to_vec());
            let has_past = hydrate.contains(&source.id);
            let past = blocking(move || {
                opened.start_live(bound.as_ref(), &workers, &coordinator)?;
                let bound = bound.unwrap_or_default();
                match has_past {
                    true => opened.hydrate(view, &columns, &bound, &workers).map(Some),
                    false => Ok(None),
                }
            });
            if let Some(past) = past.await? {
                pasts.push((source.clone(), past));
            }
        }
        Ok(pasts)
    }

    async fn wait_hydrated(&self, id: ObjectId, pasts: &[(Arc<Source>, Past)]) -> Result<()> {
        let hydrated = self
            .shared
            .coordinator
            .ask(|reply| Request::WaitHydrated { id, reply });
        tokio::pin!(hydrated);
        loop {
            tokio::select! {
                result = &mut hydrated => return result?,
                () = tokio::time::sleep(HYDRATION_CHECK) => {}
            }
            for (source, past) in pasts {
                if let Some(error) = past.failure() {
                    let message = format!("cannot read the past of source \"{}\"", source.name);
                    return Err(Error::new(ErrorKind::External, message).with_detail(error));
                }
            }
        }
    }

    pub(super) fn create_schema(&mut self, if_not_exists: bool, name: &str) -> Result<Outcome> {
        match self.shared.catalog.create_schema(name) {
            Err(_) if if_not_exists => {
                self.notice(format!("schema \"{name}\" already exists, skipping"));
            }
            result => result?,
        }
        Outcome::done("CREATE_SCHEMA")
    }
}

/// What [`Session::add`] puts under a name.
pub(super) struct NewObject {
    pub(super) definition: String,
    pub(super) depends_on: Vec<ObjectId>,
    pub(super) body: Body,
}

/// Takes a view that did not come to be back out of everything.
pub(super) struct Unfinished<'a> {
    pub(super) session: &'a Session,
    pub(super) id: ObjectId,
    pub(super) sources: Vec<Arc<Source>>,
    pub(super) done: bool,
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        self.session
            .shared
            .coordinator
            .send(Request::Drop(vec![self.id]));
        let (sources, id) = (std::mem::take(&mut self.sources), self.id);
        tokio::task::spawn_blocking(move || {
            sources.iter().for_each(|source| source.remove_reader(id));
        });
    }
}

/// Notes which relations a query names, for the catalog's dependencies.
pub(super) struct Recorder<'a> {
    catalog: Named<'a>,
    seen: Mutex<Vec<ObjectId>>,
}

impl<'a> Recorder<'a> {
    pub(super) fn new(catalog: Named<'a>) -> Recorder<'a> {
        Recorder {
            catalog,
            seen: Mutex::default(),
        }
    }

    pub(super) fn seen(&self) -> Vec<ObjectId> {
        let mut seen = self.seen.lock().clone();
        seen.sort();
        seen.dedup();
        seen
    }
}

impl BindCatalog for Recorder<'_> {
    fn resolve(&self, schema: Option<&str>, name: &str) -> Option<Arc<Relation>> {
        let relation = self.catalog.resolve(schema, name)?;
        if relation.kind != RelationKind::System {
            self.seen.lock().push(relation.id);
        }
        Some(relation)
    }
}

/// Which columns a plan reads of each source.
fn source_columns(plan: &Plan) -> Vec<(ObjectId, Vec<usize>)> {
    let mut reads =
        std::collections::BTreeMap::<ObjectId, std::collections::BTreeSet<usize>>::new();
    plan.visit(&mut |node| {
        if let Plan::Source { id, columns, .. } = node {
            reads.entry(*id).or_default().extend(columns);
        }
    });
    reads
        .into_iter()
        .map(|(id, columns)| (id, columns.into_iter().collect()))
        .collect()
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

/// Runs what blocks (connecting, joining threads) off the async threads.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|_| Error::internal("a background step failed"))?
}
