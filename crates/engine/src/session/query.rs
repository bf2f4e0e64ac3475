//! SELECT: one read time for all inputs, their rows, then DataFusion for the rest.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, UInt64Array};
use arrow::compute::take;
use ruslo_dataflow::arranged_columns;
use ruslo_repr::row::batch_of;
use ruslo_repr::{Error, ErrorKind, ObjectId, Result, RowCodec, Schema, Time};
use ruslo_sql::ast::Query;
use ruslo_sql::{Relation, RelationKind, SelectPlan};

use super::{Outcome, Session};
use crate::catalog::Body;
use crate::coordinator::{PeekTarget, PeekedRows, ReadHold, Request};
use crate::{introspection, scan, system};

/// Rows decoded into one batch.
const BATCH_ROWS: usize = 8192;

impl Session {
    pub(super) async fn select(&mut self, query: &Query, params: &[ArrayRef]) -> Result<Outcome> {
        let hints: Vec<_> = params.iter().map(|p| Some(p.data_type().clone())).collect();
        self.apply_set_config(query)?;
        let plan = ruslo_sql::plan_select(query, &self.names(), &self.context(), &hints)?;
        let (inputs, _hold) = self.read_inputs(&plan, params, self.last_write).await?;
        let batches = plan.execute(inputs, params).await?;
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
        let readable = plan
            .inputs()
            .iter()
            .filter_map(|r| self.shared.catalog.get(r.id));
        let readable = readable
            .map(|object| object.readable_from())
            .max()
            .unwrap_or(0);
        let at_least = at_least.max(readable);
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
        let scanned = tokio::task::spawn_blocking(move || scan::scan(&source)).await;
        scanned.map_err(|_| Error::internal("reading the source failed"))?
    }

    async fn read_arrangement(
        &self,
        relation: &Arc<Relation>,
        keys: Option<Vec<ArrayRef>>,
        hold: &ReadHold,
    ) -> Result<Vec<RecordBatch>> {
        let layout = Layout::of(&self.shared.catalog, relation)?;
        let keys = keys.map(|keys| layout.encode_keys(&keys, 1)).transpose()?;
        let target = PeekTarget {
            id: relation.id,
            errors: false,
            keys,
            limit: None,
        };
        let rows = self.shared.coordinator.peek(target, hold).await?;
        layout.decode(&rows)
    }
}

/// How a relation's rows lie in its arrangement: key columns first.
pub(super) struct Layout {
    schema: Schema,
    arranged: Vec<usize>,
    key_len: usize,
    codec: RowCodec,
}

impl Layout {
    pub(super) fn of(catalog: &crate::catalog::Catalog, relation: &Relation) -> Result<Layout> {
        let gone = || {
            let message = format!("relation \"{}\" was dropped", relation.name);
            Error::new(ErrorKind::UndefinedTable, message)
        };
        let object = catalog.get(relation.id).ok_or_else(gone)?;
        let key = object.arranged_by().ok_or_else(gone)?;
        Layout::new(relation.schema.clone(), key)
    }

    pub(super) fn new(schema: Schema, key: &[usize]) -> Result<Layout> {
        let arranged = arranged_columns(schema.len(), key);
        let codec = RowCodec::new(&schema.project(&arranged).types())?;
        Ok(Layout {
            schema,
            arranged,
            key_len: key.len(),
            codec,
        })
    }

    /// Encodes rows whose columns are in the relation's order.
    pub(super) fn encode(&self, batch: &RecordBatch) -> Result<Vec<Vec<u8>>> {
        let columns: Vec<ArrayRef> = self
            .arranged
            .iter()
            .map(|&c| batch.column(c).clone())
            .collect();
        let rows = self.codec.encode(&columns, batch.num_rows())?;
        Ok(rows.iter().map(<[u8]>::to_vec).collect())
    }

    /// Encodes `len` keys given column by column, in key order.
    pub(super) fn encode_keys(&self, columns: &[ArrayRef], len: usize) -> Result<Vec<Vec<u8>>> {
        let codec = RowCodec::new(&self.codec.types()[..self.key_len])?;
        Ok(codec
            .encode(columns, len)?
            .iter()
            .map(<[u8]>::to_vec)
            .collect())
    }

    /// The key columns of a batch in the relation's order.
    pub(super) fn keys_of(&self, batch: &RecordBatch) -> Result<Vec<Vec<u8>>> {
        let key = &self.arranged[..self.key_len];
        let columns: Vec<ArrayRef> = key.iter().map(|&c| batch.column(c).clone()).collect();
        self.encode_keys(&columns, batch.num_rows())
    }

    /// Batches in the relation's column order, each row as often as it stands there.
    pub(super) fn decode(&self, rows: &PeekedRows) -> Result<Vec<RecordBatch>> {
        let mut batches = Vec::with_capacity(rows.len().div_ceil(BATCH_ROWS));
        let mut positions = vec![0; self.arranged.len()];
        for (position, &column) in self.arranged.iter().enumerate() {
            positions[column] = position;
        }
        for rows in rows.chunks(BATCH_ROWS) {
            let decoded = self
                .codec
                .decode(rows.iter().map(|(row, _)| row.as_slice()))?;
            let mut columns: Vec<ArrayRef> = positions
                .iter()
                .map(|&position| decoded[position].clone())
                .collect();
            let mut len = rows.len();
            if rows.iter().any(|(_, diff)| *diff != 1) {
                let repeated = repeat(rows)?;
                len = repeated.len();
                for column in &mut columns {
                    *column = take(column, &repeated, None)?;
                }
            }
            batches.push(batch_of(&self.schema, columns, len)?);
        }
        Ok(batches)
    }
}

/// The index of each row, as often as it stands in the arrangement.
fn repeat(rows: &[(Vec<u8>, i64)]) -> Result<UInt64Array> {
    let mut indexes = vec![];
    for (index, (_, diff)) in rows.iter().enumerate() {
        let times = usize::try_from(*diff)
            .map_err(|_| Error::internal("a row stands in a collection less than zero times"))?;
        indexes.extend(std::iter::repeat_n(index as u64, times));
    }
    Ok(UInt64Array::from(indexes))
}
