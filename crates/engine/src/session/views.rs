//! CREATE of views: plain ones, which are a query by name, and those that are kept up to date.

use std::sync::Arc;

use ruslo_repr::{Error, ErrorKind, ObjectId, Result, Schema};
use ruslo_sql::ast::{self, Name};
use ruslo_sql::{Relation, RelationKind};

use super::create::{NewObject, Recorder};
use super::ddl::check_unique_names;
use super::{Outcome, Session};
use crate::catalog::{Body, Object};

impl Session {
    pub(super) async fn create_view(
        &mut self,
        create: &ast::CreateView,
        text: &str,
    ) -> Result<Outcome> {
        let shared = self.shared.clone();
        let _ddl = shared.ddl.lock().await;
        let name = &create.name.name;
        let replaced = match create.or_replace && self.recovering.is_none() {
            true => self.replaceable(&create.name)?,
            false => None,
        };
        let schema = match &replaced {
            Some(old) => old.schema.clone(),
            None => match self.place(&create.name, create.if_not_exists)? {
                Some(schema) => schema,
                None => return Outcome::done("CREATE_VIEW"),
            },
        };
        let recorder = Recorder::new(self.names());
        let plan = ruslo_sql::plan_select(&create.query, &recorder, &self.context(), &[])?;
        let columns = renamed(plan.schema(), &create.columns)?;
        check_unique_names(&columns)?;
        let text_of_query = ruslo_sql::qualified(&create.query, &recorder);
        let depends_on = recorder.seen();
        if let Some(old) = &replaced {
            check_replacement(old, &columns, &depends_on)?;
        }
        let id = self.new_id();
        let kind = RelationKind::View {
            text: text_of_query,
        };
        let relation = Relation::new(id, &schema, name, columns, kind);
        let body = Body::View {
            relation: Arc::new(relation),
        };
        let new = NewObject {
            id,
            schema,
            name,
            text,
            options: None,
            depends_on,
            body,
            source: None,
            replaces: replaced.map(|old| old.id),
        };
        self.add(new).await?;
        Outcome::done("CREATE_VIEW")
    }

    /// The plain view that CREATE OR REPLACE takes the place of.
    fn replaceable(&self, name: &Name) -> Result<Option<Arc<Object>>> {
        let catalog = &self.shared.catalog;
        let Some(old) = catalog.find(&self.placed(name)?) else {
            return Ok(None);
        };
        if !matches!(old.body, Body::View { .. }) {
            let message = format!("\"{}\" is not a view", name.name);
            return Err(Error::new(ErrorKind::WrongObjectType, message));
        }
        if catalog.dependents(old.id).is_empty() {
            return Ok(Some(old));
        }
        let message = format!(
            "CREATE OR REPLACE VIEW is not supported for view \"{}\": other objects depend on it",
            name.name
        );
        Err(Error::unsupported(message).with_hint("Drop them first, or give the view a new name."))
    }

    pub(super) async fn create_materialized_view(
        &mut self,
        create: &ast::CreateView,
        text: &str,
    ) -> Result<Outcome> {
        let shared = self.shared.clone();
        let _ddl = shared.ddl.lock().await;
        let name = &create.name.name;
        let Some(schema) = self.place(&create.name, create.if_not_exists)? else {
            return Outcome::done("CREATE_MATERIALIZED_VIEW");
        };
        if create.or_replace {
            let message = "CREATE OR REPLACE MATERIALIZED VIEW is not supported";
            return Err(Error::unsupported(message).with_hint("Drop the view and create it anew."));
        }
        if create.emit_on_window_close {
            return Err(Error::unsupported(
                "EMIT ON WINDOW CLOSE is not supported yet",
            ));
        }
        if let Some((option, _)) = create.options.iter().next() {
            let message = format!("unknown option \"{option}\" of a materialized view");
            return Err(Error::new(ErrorKind::InvalidParameter, message));
        }
        let recorder = Recorder::new(self.names());
        let plan = ruslo_sql::plan_view(&create.query, &recorder, &self.context())?;
        let columns = renamed(&plan.schema, &create.columns)?;
        check_unique_names(&columns)?;
        let depends_on = recorder.seen();
        let id = self.new_id();
        let mut relation =
            Relation::new(id, &schema, name, columns, RelationKind::MaterializedView);
        if plan.key_is_unique {
            relation.key = plan.key.clone();
        }
        relation.append_only = plan.append_only;
        let (view, warnings) = self.run_view(id, name, plan).await?;
        self.warn_all(warnings);
        let body = Body::MaterializedView {
            relation: Arc::new(relation),
            view: Arc::new(view),
        };
        let new = NewObject {
            id,
            schema,
            name,
            text,
            options: None,
            depends_on,
            body,
            source: None,
            replaces: None,
        };
        self.add(new).await?;
        Outcome::done("CREATE_MATERIALIZED_VIEW")
    }
}

/// A view that takes another's place shows at least its columns, and does not read itself.
fn check_replacement(old: &Object, columns: &Schema, depends_on: &[ObjectId]) -> Result<()> {
    if depends_on.contains(&old.id) {
        let message = format!("infinite recursion detected in view \"{}\"", old.name);
        return Err(Error::new(ErrorKind::InvalidState, message));
    }
    let before = old.relation().map(|relation| &relation.schema.columns);
    for (i, column) in before.into_iter().flatten().enumerate() {
        let message = match columns.columns.get(i) {
            Some(new) if new == column => continue,
            None => "cannot drop columns from view".to_string(),
            Some(new) if new.name != column.name => format!(
                "cannot change name of view column \"{}\" to \"{}\"",
                column.name, new.name
            ),
            Some(_) => format!("cannot change data type of view column \"{}\"", column.name),
        };
        return Err(Error::new(ErrorKind::InvalidTable, message));
    }
    Ok(())
}

fn renamed(schema: &Schema, names: &[String]) -> Result<Schema> {
    if names.len() > schema.len() {
        let message = "CREATE VIEW specifies more column names than columns";
        return Err(Error::new(ErrorKind::Syntax, message));
    }
    let mut schema = schema.clone();
    for (column, name) in schema.columns.iter_mut().zip(names) {
        column.name.clone_from(name);
    }
    Ok(schema)
}
