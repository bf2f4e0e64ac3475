//! SELECT: one read time for all inputs, their rows, then DataFusion for the rest.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use arrow::array::{ArrayRef, RecordBatch};
use ruslo_repr::{Error, ErrorKind, ObjectId, Result, Time};
use ruslo_sql::ast::Query;
use ruslo_sql::{Relation, RelationKind, SelectPlan};

use super::{Outcome, Session};
use crate::catalog::Body;
use crate::coordinator::{PeekTarget, ReadHold, Request};
use crate::layout::Layout;
use crate::{introspection, scan, system};

impl Session {
    pub(super) async fn select(&mut self, query: &Query, params: &[ArrayRef]) -> Result<Outcome> {
        let hints: Vec<_> = params.iter().map(|p| Some(p.data_type().clone())).collect();
        self.apply_set_config(query)?;
        let plan = ruslo_sql::plan_select(query, &self.names(), &self.context(), &hints)?;
        let (inputs, _hold) = self.read_inputs(&plan, params, self.last_write).await?;
        let batches = plan
            .execute(inputs, params, &self.shared.query_memory)
            .await?;
        let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
        let schema = plan.schema().clone();
        Ok(Outcome::Rows {
            schema,
            batches,
            tag: format!("SELECT {rows}"),
        })
    }

    /// The rows of every input at one time, not before `at_least`.
    pub(super) async fn read_inputs(
        &self,
        plan: &SelectPlan,
        params: &[ArrayRef],
        at_least: Time,
    ) -> Result<(HashMap<ObjectId, Vec<RecordBatch>>, ReadHold)> {
        let mut at_least = at_least;
        if !plan.inputs().is_empty() {
            at_least = at_least.max(self.shared.acknowledged.load(Ordering::Acquire));
        }
        for relation in plan.inputs() {
            if let Some(object) = self.shared.catalog.get(relation.id) {
                at_least = at_least.max(object.readable_from()?);
            }
        }
        let coordinator = &self.shared.coordinator;
        let hold = coordinator
            .ask(|reply| Request::Read { at_least, reply })
            .await?;
        let mut inputs = HashMap::new();
        for relation in plan.inputs() {
            let batches = match &relation.kind {
                RelationKind::Table | RelationKind::MaterializedView => {
                    let keys = plan.key_lookup(relation.id, params);
                    self.read_arrangement(relation, keys, &hold).await?
                }
                RelationKind::System => vec![self.system_rows(relation).await?],
                RelationKind::Source => self.read_source(relation).await?,
                RelationKind::View { .. } => {
                    return Err(Error::internal("a view was not expanded"));
                }
            };
            inputs.insert(relation.id, batches);
        }
        Ok((inputs, hold))
    }

    async fn system_rows(&self, relation: &Relation) -> Result<RecordBatch> {
        if relation.schema_name == introspection::SCHEMA {
            return introspection::rows(&self.shared, &relation.name).await;
        }
        let snapshot = self.shared.catalog.snapshot(&self.user, &self.database);
        system::rows(&relation.schema_name, &relation.name, &snapshot)
    }

    async fn read_source(&self, relation: &Relation) -> Result<Vec<RecordBatch>> {
        let object = self.shared.catalog.get(relation.id);
        let Some(Body::Source { source, .. }) = object.as_ref().map(|object| &object.body) else {
            let message = format!("source \"{}\" was dropped", relation.name);
            return Err(Error::new(ErrorKind::UndefinedTable, message));
        };
        let source = source.clone();
        let host = &self.shared.host;
        host.blocking(move || scan::scan(&source)).await
    }

    async fn read_arrangement(
        &self,
        relation: &Arc<Relation>,
        keys: Option<Vec<ArrayRef>>,
        hold: &ReadHold,
    ) -> Result<Vec<RecordBatch>> {
        let object = self.shared.catalog.get(relation.id);
        let layout = object.as_deref().and_then(Layout::of).ok_or_else(|| {
            let message = format!("relation \"{}\" was dropped", relation.name);
            Error::new(ErrorKind::UndefinedTable, message)
        })??;
        let keys = keys.map(|keys| layout.encode_keys(&keys, 1)).transpose()?;
        let target = PeekTarget {
            id: relation.id,
            errors: false,
            keys,
            limit: None,
            portion: None,
        };
        let rows = self.shared.coordinator.peek(target, hold).await?;
        layout.decode(&rows)
    }
}
