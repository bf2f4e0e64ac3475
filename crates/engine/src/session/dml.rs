//! INSERT, UPDATE, DELETE and FLUSH.
//!
//! Writes to one table happen one after the other: a statement reads the table at the time just
//! before its own (under the table's lock), works out which rows go and which come, and is
//! acknowledged when their time is bound. The session's later reads never see less.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch};
use arrow::compute::{concat_batches, filter_record_batch};
use arrow::datatypes::DataType;
use ruslo_repr::row::batch_of;
use ruslo_repr::{CountedRows, Diff, Error, ErrorKind, Result, RowBytes};
use ruslo_sql::ast::{OnConflict, StatementKind};
use ruslo_sql::{DmlKind, DmlPlan, Relation};

use super::{Outcome, Session};
use crate::backpressure::{before_statement, check_size};
use crate::catalog::{Body, Table};
use crate::coordinator::{PeekTarget, ReadHold, Request};
use crate::layout::Layout;

/// What a statement does to a table.
struct Change {
    updates: Vec<(RowBytes, Diff)>,
    /// The rows that RETURNING sees, in the table's column order.
    returned: RecordBatch,
    count: usize,
}

impl Session {
    pub(super) fn plan_dml(
        &self,
        kind: &StatementKind,
        hints: &[Option<DataType>],
    ) -> Result<DmlPlan> {
        let catalog = &self.names();
        let context = self.context();
        match kind {
            StatementKind::Insert(insert) => {
                ruslo_sql::plan_insert(insert, catalog, &context, hints)
            }
            StatementKind::Update(update) => {
                ruslo_sql::plan_update(update, catalog, &context, hints)
            }
            StatementKind::Delete(delete) => {
                ruslo_sql::plan_delete(delete, catalog, &context, hints)
            }
            _ => Err(Error::internal("not a statement that writes rows")),
        }
    }

    pub(super) async fn write(
        &mut self,
        kind: &StatementKind,
        params: &[ArrayRef],
    ) -> Result<Outcome> {
        let hints: Vec<_> = params.iter().map(|p| Some(p.data_type().clone())).collect();
        let plan = self.plan_dml(kind, &hints)?;
        let table = self.table(&plan.table)?;
        if table.append_only && plan.kind != DmlKind::Insert {
            let message = format!("table \"{}\" is append-only", plan.table.name);
            return Err(Error::new(ErrorKind::WrongObjectType, message));
        }
        before_statement().await;
        self.shared.coordinator.wait_for_log().await;
        let mut last_write = table.write_lock.lock().await;
        let at_least = self.last_write.max(*last_write).max(table.readable_from);
        let (inputs, hold) = self.read_inputs(&plan.select, params, at_least).await?;
        let memory = &self.shared.query_memory;
        let rows = plan.select.execute(inputs, params, memory).await?;
        check_size(&rows)?;
        let rows = concat_batches(&plan.select.schema().to_arrow(), &rows)?;
        let change = self.change(&plan, &table, rows, &hold).await?;
        drop(hold);
        if !change.updates.is_empty() {
            let (table, updates) = (plan.table.id, change.updates);
            let write = |reply| Request::Write {
                table,
                updates,
                reply,
            };
            let time = self.shared.coordinator.ask(write).await?;
            self.shared.acknowledged.fetch_max(time, Ordering::AcqRel);
            *last_write = time;
            self.last_write = time;
            self.wrote = true;
        }
        drop(last_write);
        let tag = match plan.kind {
            DmlKind::Insert => format!("INSERT 0 {}", change.count),
            DmlKind::Update => format!("UPDATE {}", change.count),
            DmlKind::Delete => format!("DELETE {}", change.count),
        };
        match plan.returning_schema().cloned() {
            None => Ok(Outcome::Done { tag }),
            Some(schema) => {
                let batches = plan.returning(vec![change.returned], memory).await?;
                Ok(Outcome::Rows {
                    schema,
                    batches,
                    tag,
                })
            }
        }
    }

    fn table(&self, relation: &Relation) -> Result<Arc<Table>> {
        let object = self.shared.catalog.get(relation.id);
        match object.as_ref().map(|object| &object.body) {
            Some(Body::Table { table, .. }) => Ok(table.clone()),
            _ => {
                let message = format!("cannot change \"{}\": it is not a table", relation.name);
                Err(Error::new(ErrorKind::WrongObjectType, message))
            }
        }
    }

    async fn change(
        &self,
        plan: &DmlPlan,
        table: &Table,
        rows: RecordBatch,
        hold: &ReadHold,
    ) -> Result<Change> {
        let layout = Layout::new(plan.table.schema.clone(), &table.arranged_by)?;
        let width = plan.table.schema.len();
        let rows = match plan.kind {
            DmlKind::Update | DmlKind::Delete => once_per_key(plan, &layout, rows)?,
            DmlKind::Insert => rows,
        };
        let count = rows.num_rows();
        let columns = |range: std::ops::Range<usize>| {
            batch_of(&plan.table.schema, rows.columns()[range].to_vec(), count)
        };
        match plan.kind {
            DmlKind::Delete => {
                let returned = columns(0..width)?;
                let updates = layout.encode(&returned)?.into_iter().map(|row| (row, -1));
                Ok(Change {
                    updates: updates.collect(),
                    returned,
                    count,
                })
            }
            DmlKind::Update => {
                let (old, new) = (columns(0..width)?, columns(width..2 * width)?);
                check_not_null(&plan.table, &new)?;
                if !plan.table.key.is_empty() {
                    self.check_moved_keys(plan, &layout, (&old, &new), hold)
                        .await?;
                }
                let gone = layout.encode(&old)?.into_iter().map(|row| (row, -1));
                let come = layout.encode(&new)?.into_iter().map(|row| (row, 1));
                Ok(Change {
                    updates: gone.chain(come).collect(),
                    returned: new,
                    count,
                })
            }
            DmlKind::Insert => {
                let new = columns(0..width)?;
                check_not_null(&plan.table, &new)?;
                let updates = match plan.table.key.is_empty() {
                    true => layout
                        .encode(&new)?
                        .into_iter()
                        .map(|row| (row, 1))
                        .collect(),
                    false => self.upsert(plan, table, &layout, &new, hold).await?,
                };
                Ok(Change {
                    updates,
                    returned: new,
                    count,
                })
            }
        }
    }

    /// Rows with a key: what happens to a row of the same key is the table's ON CONFLICT.
    async fn upsert(
        &self,
        plan: &DmlPlan,
        table: &Table,
        layout: &Layout,
        new: &RecordBatch,
        hold: &ReadHold,
    ) -> Result<Vec<(RowBytes, Diff)>> {
        let keys = layout.keys_of(new)?;
        let mut before = self.rows_with(&keys, plan, layout, hold).await?;
        let mut after: HashMap<RowBytes, RowBytes> = HashMap::new();
        for (i, (key, row)) in keys.into_iter().zip(layout.encode(new)?).enumerate() {
            let current = after.get(&key).or_else(|| before.get(&key));
            let row = match (current, table.on_conflict) {
                (Some(_), OnConflict::DoNothing) => continue,
                (Some(current), OnConflict::UpdateIfNotNull) => {
                    merge_not_null(layout, current, &new.slice(i, 1))?
                }
                _ => row,
            };
            after.insert(key, row);
        }
        let mut updates = vec![];
        for (key, row) in after {
            match before.remove(&key) {
                Some(old) if old == row => {}
                Some(old) => updates.extend([(old, -1), (row, 1)]),
                None => updates.push((row, 1)),
            }
        }
        Ok(updates)
    }

    /// The table's rows that have one of these keys.
    async fn rows_with(
        &self,
        keys: &[RowBytes],
        plan: &DmlPlan,
        layout: &Layout,
        hold: &ReadHold,
    ) -> Result<BTreeMap<RowBytes, RowBytes>> {
        let mut wanted = keys.to_vec();
        wanted.sort();
        wanted.dedup();
        let target = PeekTarget {
            id: plan.table.id,
            errors: false,
            keys: Some(wanted),
            limit: None,
            portion: None,
        };
        let found = self.shared.coordinator.peek(target, hold).await?;
        let mut rows = BTreeMap::new();
        for batch in layout.decode(&found)? {
            let keys = layout.keys_of(&batch)?;
            rows.extend(keys.into_iter().zip(layout.encode(&batch)?));
        }
        Ok(rows)
    }

    /// An UPDATE may move rows to other keys, if afterwards every key is there once: no two rows
    /// go to one key, and a row that stays where it was is in nobody's way.
    async fn check_moved_keys(
        &self,
        plan: &DmlPlan,
        layout: &Layout,
        (old, new): (&RecordBatch, &RecordBatch),
        hold: &ReadHold,
    ) -> Result<()> {
        let (old_keys, new_keys) = (layout.keys_of(old)?, layout.keys_of(new)?);
        if old_keys == new_keys {
            return Ok(());
        }
        let left: HashSet<&RowBytes> = old_keys.iter().collect();
        let mut taken = HashSet::new();
        if !new_keys.iter().all(|key| taken.insert(key)) {
            return Err(duplicate_key(&plan.table));
        }
        let others: Vec<RowBytes> = taken.difference(&left).map(|&key| key.clone()).collect();
        if others.is_empty() {
            return Ok(());
        }
        match self.rows_with(&others, plan, layout, hold).await? {
            there if there.is_empty() => Ok(()),
            _ => Err(duplicate_key(&plan.table)),
        }
    }

    pub(super) async fn flush(&mut self) -> Result<Outcome> {
        let coordinator = &self.shared.coordinator;
        let at_least = coordinator.ask(Request::Tick).await?;
        coordinator
            .ask(|reply| Request::Read { at_least, reply })
            .await?;
        Outcome::done("FLUSH")
    }
}

/// A row that joins several others in UPDATE … FROM or DELETE … USING is changed once, by the
/// first of them. Without a key it cannot be told from its copies.
fn once_per_key(plan: &DmlPlan, layout: &Layout, rows: RecordBatch) -> Result<RecordBatch> {
    if plan.table.key.is_empty() {
        return Ok(rows);
    }
    let width = plan.table.schema.len();
    let old = rows.columns()[..width].to_vec();
    let old = batch_of(&plan.table.schema, old, rows.num_rows())?;
    let mut seen = HashSet::new();
    let first = layout
        .keys_of(&old)?
        .into_iter()
        .map(|key| seen.insert(key));
    let first: Vec<bool> = first.collect();
    Ok(filter_record_batch(&rows, &BooleanArray::from(first))?)
}

/// `new` (one row) with the values of `current` where it is NULL.
fn merge_not_null(layout: &Layout, current: &RowBytes, new: &RecordBatch) -> Result<RowBytes> {
    let mut one = CountedRows::default();
    one.push(current, &[], 1);
    let current = layout.decode(&one)?;
    let current = current
        .first()
        .ok_or_else(|| Error::internal("a row was not decoded"))?;
    let merged = new.columns().iter().zip(current.columns());
    let merged = merged.map(|(new, old)| {
        if new.is_null(0) {
            old.clone()
        } else {
            new.clone()
        }
    });
    let merged = RecordBatch::try_new(new.schema(), merged.collect())?;
    let row = layout.encode(&merged)?.pop();
    row.ok_or_else(|| Error::internal("a row was not encoded"))
}

fn duplicate_key(table: &Relation) -> Error {
    let message = format!(
        "duplicate key value violates unique constraint \"{}_pkey\"",
        table.name
    );
    Error::new(ErrorKind::UniqueViolation, message)
}

fn check_not_null(table: &Relation, rows: &RecordBatch) -> Result<()> {
    for &column in table.not_null.iter().chain(&table.key) {
        if rows.column(column).null_count() > 0 {
            let message = format!(
                "null value in column \"{}\" of relation \"{}\" violates not-null constraint",
                table.schema.columns[column].name, table.name
            );
            return Err(Error::new(ErrorKind::NotNull, message));
        }
    }
    Ok(())
}
