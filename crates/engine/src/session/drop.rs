//! DROP, with what depends on it.

use std::sync::Arc;

use ruslo_repr::{Error, ErrorKind, Result};
use ruslo_sql::ast::{Name, ObjectKind};

use super::{Outcome, Session};
use crate::catalog::{Body, Catalog, Object, undefined};
use crate::coordinator::Request;
use crate::durable::Change;

impl Session {
    pub(super) async fn drop_objects(
        &mut self,
        kind: ObjectKind,
        names: &[Name],
        if_exists: bool,
        cascade: bool,
    ) -> Result<Outcome> {
        let shared = self.shared.clone();
        let _ddl = shared.ddl.lock().await;
        let tag = format!("DROP_{}", kind.noun().to_uppercase().replace(' ', "_"));
        let mut objects = vec![];
        for name in names {
            if kind == ObjectKind::Schema {
                self.drop_schema(&name.name, if_exists, cascade).await?;
                continue;
            }
            let found = self.found(name);
            match shared.catalog.find(&found) {
                None if if_exists => {
                    let noun = kind.noun();
                    self.notice(format!("{noun} \"{name}\" does not exist, skipping"));
                }
                None => return Err(undefined(kind, name)),
                Some(_) => objects.push(shared.catalog.find_kind(&found, kind)?),
            }
        }
        let mut doomed: Vec<Arc<Object>> = vec![];
        for object in &objects {
            for dependent in shared.catalog.dependents(object.id) {
                let named = objects.iter().any(|named| named.id == dependent.id);
                if !cascade && !named {
                    return Err(still_needed(&shared.catalog, object));
                }
                if !doomed.iter().any(|other| other.id == dependent.id) {
                    doomed.push(dependent);
                }
            }
        }
        for object in objects {
            if !doomed.iter().any(|other| other.id == object.id) {
                doomed.push(object);
            }
        }
        // Younger objects stand on older ones, never the other way round.
        doomed.sort_by_key(|object| std::cmp::Reverse(object.id));
        self.drop_all(&doomed).await?;
        Outcome::done(&tag)
    }

    /// Drops a schema, with all that is in it and all that reads that if CASCADE was said.
    async fn drop_schema(&mut self, name: &str, if_exists: bool, cascade: bool) -> Result<()> {
        let catalog = &self.shared.catalog;
        if !catalog.schemas().iter().any(|schema| schema == name) && if_exists {
            self.notice(format!("schema \"{name}\" does not exist, skipping"));
            return Ok(());
        }
        let mut doomed: Vec<Arc<Object>> = vec![];
        let inside = catalog.objects().into_iter();
        for object in inside.filter(|object| object.schema == name) {
            doomed.extend(catalog.dependents(object.id));
            doomed.push(object);
        }
        doomed.sort_by_key(|object| std::cmp::Reverse(object.id));
        doomed.dedup_by_key(|object| object.id);
        if !doomed.is_empty() && !cascade {
            let message = format!("cannot drop schema {name} because other objects depend on it");
            let lines = doomed.iter().rev().map(|object| {
                let noun = object.kind().noun();
                format!(
                    "{noun} {}.{} depends on schema {name}",
                    object.schema, object.name
                )
            });
            let lines: Vec<String> = lines.collect();
            return Err(Error::new(ErrorKind::DependentObjects, message)
                .with_detail(lines.join("\n"))
                .with_hint("Use DROP ... CASCADE to drop the dependent objects too."));
        }
        self.drop_all(&doomed).await?;
        self.shared.catalog.check_droppable(name)?;
        self.record(vec![Change::DropSchema(name.to_string())])
            .await?;
        self.shared.catalog.drop_schema(name);
        Ok(())
    }

    async fn drop_all(&self, doomed: &[Arc<Object>]) -> Result<()> {
        if doomed.is_empty() {
            return Ok(());
        }
        let ids = doomed.iter().map(|object| object.id.0).collect();
        self.record(vec![Change::Drop(ids)]).await?;
        let mut ids = vec![];
        let mut views = vec![];
        for object in doomed {
            self.shared.catalog.remove(object.id);
            ids.push(object.id);
            match &object.body {
                Body::Sink { sink, view } => {
                    sink.stop();
                    ids.extend(view.iter().map(|(id, _)| *id));
                    views.extend(view.clone());
                }
                Body::MaterializedView { view, .. } => views.push((object.id, view.clone())),
                _ => {}
            }
        }
        self.shared.coordinator.send(Request::Drop(ids));
        let remove = move || {
            for (id, view) in views {
                view.sources
                    .iter()
                    .for_each(|source| source.remove_reader(id));
            }
            Ok(())
        };
        self.shared.host.blocking(remove).await
    }
}

fn still_needed(catalog: &Catalog, object: &Object) -> Error {
    let noun = object.kind().noun();
    let message = format!(
        "cannot drop {noun} {} because other objects depend on it",
        object.name
    );
    let mut dependents = catalog.dependents(object.id);
    dependents.reverse();
    let details = dependents.iter().map(|dependent| {
        let on = dependent
            .depends_on
            .iter()
            .filter_map(|id| catalog.get(*id));
        let on: Vec<String> = on
            .map(|on| format!("{} {}", on.kind().noun(), on.name))
            .collect();
        let noun = dependent.kind().noun();
        format!("{noun} {} depends on {}", dependent.name, on.join(", "))
    });
    Error::new(ErrorKind::DependentObjects, message)
        .with_detail(details.collect::<Vec<_>>().join("\n"))
        .with_hint("Use DROP ... CASCADE to drop the dependent objects too.")
}
