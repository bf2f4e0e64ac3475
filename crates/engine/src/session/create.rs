//! What all CREATE statements do: find a place, take an id, become durable, be in the catalog.
//!
//! One at a time, under the engine's DDL lock. An object gets into the catalog only when it works:
//! a source whose broker was reached, a view that has read its past, a sink that is connected. At
//! a restart the same statements are executed again, with what they found out the first time
//! (`Recovering`) in place of asking for it.

use std::sync::Arc;

use parking_lot::Mutex;
use ruslo_repr::{Error, ErrorKind, ObjectId, Result};
use ruslo_sql::ast::{Name, Options};
use ruslo_sql::{Catalog as BindCatalog, Relation, RelationKind};

use super::Session;
use super::names::Named;
use crate::catalog::{Body, Object};
use crate::coordinator::Request;
use crate::durable::{Change, Definition, SourceStart};
use crate::secrets;

/// What [`Session::add`] puts under a name.
pub(super) struct NewObject<'a> {
    pub(super) id: ObjectId,
    pub(super) schema: String,
    pub(super) name: &'a str,
    /// The statement.
    pub(super) text: &'a str,
    /// Its options, some of which may be secret.
    pub(super) options: Option<&'a Options>,
    pub(super) depends_on: Vec<ObjectId>,
    pub(super) body: Body,
    /// Where a source begins.
    pub(super) source: Option<SourceStart>,
    /// The object whose place it takes.
    pub(super) replaces: Option<ObjectId>,
}

impl Session {
    /// The schema for a new object; None if it is there already and IF NOT EXISTS was said.
    pub(super) fn place(&mut self, name: &Name, if_not_exists: bool) -> Result<Option<String>> {
        if let Some(recovering) = &self.recovering {
            return Ok(Some(recovering.definition.schema.clone()));
        }
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

    /// The id of the object that is being made.
    pub(super) fn new_id(&self) -> ObjectId {
        match &self.recovering {
            Some(recovering) => ObjectId(recovering.definition.id),
            None => self.shared.catalog.next_id(),
        }
    }

    /// The id of the view that the sink being made has for itself.
    pub(super) fn new_view_id(&self) -> ObjectId {
        let known = self.recovering.as_ref().and_then(|r| r.definition.view);
        known.map_or_else(|| self.shared.catalog.next_id(), ObjectId)
    }

    /// Makes an object durable and puts it into the catalog.
    pub(super) async fn add(&self, new: NewObject<'_>) -> Result<()> {
        let definition = match new.options {
            Some(options) => secrets::blot(new.text, options),
            None => new.text.to_string(),
        };
        if self.recovering.is_none() {
            let drop = new.replaces.map(|old| Change::Drop(vec![old.0]));
            let create = self.definition(&new, &definition)?;
            let create = create.map(|definition| Change::Create(Box::new(definition)));
            self.record(drop.into_iter().chain(create).collect())
                .await?;
        }
        if let Some(old) = new.replaces {
            self.shared.catalog.remove(old);
        }
        self.shared.catalog.insert(Object {
            id: new.id,
            schema: new.schema,
            name: new.name.to_string(),
            definition,
            owner: self.user.clone(),
            depends_on: new.depends_on,
            body: new.body,
        });
        Ok(())
    }

    /// Makes changes of the catalog durable, if anything is. They are not to be seen before.
    pub(super) async fn record(&self, changes: Vec<Change>) -> Result<()> {
        if self.shared.durable.is_some() {
            let record = |reply| Request::Record { changes, reply };
            self.shared.coordinator.ask(record).await?;
        }
        Ok(())
    }

    /// The durable form of a new object; None where nothing is durable.
    fn definition(&self, new: &NewObject<'_>, blotted: &str) -> Result<Option<Definition>> {
        let Some(durable) = &self.shared.durable else {
            return Ok(None);
        };
        let sealed = match new.text == blotted {
            true => None,
            false => Some(durable.sealer.seal(new.text)?),
        };
        let view = match &new.body {
            Body::Sink { view, .. } => view.as_ref().map(|(id, _)| id.0),
            _ => None,
        };
        Ok(Some(Definition {
            id: new.id.0,
            view,
            schema: new.schema.clone(),
            name: new.name.to_string(),
            owner: self.user.clone(),
            database: self.database.clone(),
            settings: self.settings.changed(),
            statement: blotted.to_string(),
            sealed,
            source: new.source.clone(),
        }))
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
