//! What a worker keeps for each table, view and sink, and how they are made and unmade.
//!
//! An object's traces stand still at their `since` until the engine allows compaction; `upper` is
//! how far the worker's share is sealed:
//!
//! ```text
//!        since              upper
//!   ───────┼──────────────────┼────────> time
//!   merged │ can be read      │ not yet complete
//! ```

use std::rc::Rc;

use differential_dataflow::trace::TraceReader;
use ruslo_repr::{Diff, Error, ErrorKind, ObjectId, Result, RowBytes, RowCodec, Schema, Time};
use timely::container::CapacityContainerBuilder;
use timely::dataflow::InputHandle;
use timely::dataflow::operators::Input;
use timely::progress::Antichain;
use timely::progress::frontier::AntichainRef;

use super::Worker;
use crate::block::Shape;
use crate::durable::{Points, RestoreInput, Restored, RowForm, Tap};
use crate::protocol::{DurablePoint, ObjectStats, Response, arranged_columns};
use crate::queue::{BatchQueue, SourceBatch};
use crate::render::{Context, LiveInput, Parts, Reporter, SinkProgress, render_sink, render_view};
use crate::spine::{RowCount, RowTrace, RowUpdate, arrange_rows, count_rows, row_bytes};

/// A table or view: something that has a trace.
pub(crate) struct Collection {
    pub(crate) key: Vec<usize>,
    pub(crate) rows: RowTrace,
    row_count: RowCount,
    pub(crate) errors: Option<RowTrace>,
    pub(crate) as_of: Time,
    pub(crate) hydrated: bool,
    pub(crate) parts: Parts,
    pub(crate) table: Option<TableInput>,
    /// Queues of past batches that are still being read.
    pub(crate) hydrations: Vec<(ObjectId, BatchQueue)>,
    pub(crate) taps: Vec<Tap>,
    /// Inputs of stored state that is still being read.
    pub(crate) restores: Vec<(RestoreInput, BatchQueue)>,
}

/// The input of a table.
pub(crate) struct TableInput {
    handle: InputHandle<Time, CapacityContainerBuilder<Vec<RowUpdate>>>,
    splitter: RowSplitter,
    /// Written since the last Close.
    pending: Vec<(RowBytes, Diff)>,
}

/// A sink's dataflow.
pub(crate) struct Sink {
    pub(crate) parts: Parts,
    pub(crate) progress: SinkProgress,
    pub(crate) as_of: Time,
}

impl Collection {
    /// The first time that is not sealed in rows or errors; `None` when no more will come.
    pub(crate) fn upper(&mut self) -> Option<Time> {
        let rows = upper_of(&mut self.rows);
        let errors = self.errors.as_mut().and_then(upper_of);
        match (rows, errors) {
            (Some(rows), Some(errors)) => Some(rows.min(errors)),
            (rows, errors) => rows.or(errors),
        }
    }

    /// Whether the rows at `time` are sealed.
    pub(crate) fn is_through(&mut self, time: Time) -> bool {
        self.upper().is_none_or(|upper| upper > time)
    }

    /// The first time that can be read.
    pub(crate) fn since(&mut self) -> Time {
        self.rows
            .get_logical_compaction()
            .first()
            .copied()
            .unwrap_or(0)
    }

    /// Lets the traces forget what tells apart times before `since`.
    pub(crate) fn allow_compaction(&mut self, since: Time) {
        for trace in [Some(&mut self.rows), self.errors.as_mut()]
            .into_iter()
            .flatten()
        {
            // Batches that are not there yet cannot be merged, and a join must find its place.
            let merged = upper_of(trace).map_or(since, |upper| upper.min(since));
            trace.set_logical_compaction(AntichainRef::new(&[since]));
            trace.set_physical_compaction(AntichainRef::new(&[merged]));
        }
    }

    /// Ends the dataflow; what it reads from is left as it is.
    pub(crate) fn shut_down(mut self) {
        press_all(&mut self.parts);
    }

    pub(crate) fn stats(&self, id: ObjectId) -> ObjectStats {
        let mut stats = ObjectStats {
            id,
            rows: self.row_count.get(),
            records: 0,
            bytes: self.parts.memory.iter().map(|bytes| bytes()).sum(),
            batches: 0,
        };
        for trace in [Some(&self.rows), self.errors.as_ref()]
            .into_iter()
            .flatten()
        {
            trace.map_spans(|span| {
                if let Some(batch) = &span.inner {
                    stats.records += batch.updates;
                    stats.batches += 1;
                }
            });
            stats.bytes += row_bytes(trace.trace_box_unstable().borrow().trace());
        }
        stats
    }
}

fn upper_of(trace: &mut RowTrace) -> Option<Time> {
    let mut upper = Antichain::new();
    trace.read_upper(&mut upper);
    upper.first().copied()
}

fn press_all(parts: &mut Parts) {
    parts.buttons.iter_mut().for_each(|button| button.press());
}

impl TableInput {
    pub(crate) fn write(&mut self, updates: &[(RowBytes, Diff)]) {
        self.pending.extend_from_slice(updates);
    }

    /// Hands over what was written as of `time` and moves past it.
    pub(crate) fn close(&mut self, time: Time) -> Result<()> {
        if time < *self.handle.time() {
            // It was empty then. The input stays where it is: moved on, it would be ahead of the
            // times to come, and rows would be later than the time they are acknowledged with.
            return match self.pending.is_empty() {
                true => Ok(()),
                false => Err(Error::internal(
                    "rows of a table are of a time before its first",
                )),
            };
        }
        self.handle.advance_to(time);
        let pending = std::mem::take(&mut self.pending);
        for update in self.splitter.split(pending, time)? {
            self.handle.send(update);
        }
        self.handle.advance_to(time + 1);
        Ok(())
    }
}

/// Finds where the key ends in a whole row.
struct RowSplitter {
    row: RowCodec,
    key: RowCodec,
}

impl RowSplitter {
    fn new(schema: &Schema, key: &[usize]) -> Result<RowSplitter> {
        let shape = Shape::arranged(&schema.types(), key);
        let row: Vec<_> = shape.key.iter().chain(&shape.value).cloned().collect();
        Ok(RowSplitter {
            row: RowCodec::new(&row)?,
            key: RowCodec::new(&shape.key)?,
        })
    }

    fn split(&self, rows: Vec<(RowBytes, Diff)>, time: Time) -> Result<Vec<RowUpdate>> {
        if rows.is_empty() {
            return Ok(vec![]);
        }
        let columns = self
            .row
            .decode(rows.iter().map(|(row, _)| row.as_slice()))?;
        let keys = &columns[..self.key.types().len()];
        let keys = self.key.encode(keys, rows.len())?;
        let split = rows
            .into_iter()
            .zip(keys.iter())
            .map(|((mut row, diff), key)| {
                let value = row.split_off(key.len().min(row.len()));
                ((row, value), time, diff)
            });
        Ok(split.collect())
    }
}

impl Worker<'_> {
    pub(crate) fn create_table(
        &mut self,
        id: ObjectId,
        schema: &Schema,
        key: &[usize],
        (as_of, restore): (Time, bool),
    ) -> Result<()> {
        let splitter = RowSplitter::new(schema, key)?;
        let arranged_schema = schema.project(&arranged_columns(schema.len(), key));
        let form = RowForm::named(arranged_schema, key.len())?;
        let mut points = Points::none();
        points.wanted = self.ends.durable;
        points.restored = restore.then_some(Restored {
            as_of,
            points: vec![],
        });
        let (mut handle, rows, row_count) =
            self.timely.dataflow_named(&format!("Table {id}"), |scope| {
                let (handle, rows) = scope.new_input::<Vec<RowUpdate>>();
                let arranged = match points.wanted {
                    true => points.arrange_rows(scope, rows, form, "rows"),
                    false => arrange_rows(rows, false, "ArrangeTable"),
                };
                let row_count = count_rows(&arranged);
                (handle, arranged.trace, row_count)
            });
        let restores = self.restores(id, std::mem::take(&mut points.inputs));
        handle.advance_to(as_of + 1);
        let table = TableInput {
            handle,
            splitter,
            pending: vec![],
        };
        self.collections.insert(
            id,
            Collection {
                key: key.to_vec(),
                rows,
                row_count,
                errors: None,
                as_of,
                hydrated: restores.is_empty(),
                parts: Parts::default(),
                table: Some(table),
                hydrations: vec![],
                taps: points.taps,
                restores,
            },
        );
        Ok(())
    }

    /// The queues by which inputs get stored state.
    fn restores(
        &self,
        object: ObjectId,
        inputs: Vec<RestoreInput>,
    ) -> Vec<(RestoreInput, BatchQueue)> {
        let inputs = inputs.into_iter().map(|input| {
            let (queues, waker) = (
                &self.ends.shared.queues,
                &self.ends.shared.wakers[self.index],
            );
            let queue = queues.restore(self.index, object, input.point, waker.clone());
            (input, queue)
        });
        inputs.collect()
    }

    pub(crate) fn create_view(
        &mut self,
        id: ObjectId,
        name: &str,
        plan: &ruslo_repr::Plan,
        key: &[usize],
        (as_of, hydrate, restore): (Time, &[ObjectId], Option<Vec<DurablePoint>>),
    ) -> Result<()> {
        let mut parts = Parts::default();
        let mut points = Points::none();
        points.wanted = self.ends.durable;
        points.restored = restore.map(|points| Restored { as_of, points });
        let report = self.reporter();
        let (evaluator, faults) = (self.ends.evaluator.clone(), self.ends.faults);
        let collections = &mut self.collections;
        let mut imports = |id| import(collections, id, as_of);
        let exports = self
            .timely
            .dataflow_named(&format!("View {name}"), |scope| {
                let context = Context {
                    scope,
                    as_of,
                    evaluator,
                    report,
                    faults,
                    imports: &mut imports,
                    hydrate,
                    parts: &mut parts,
                    points: &mut points,
                    errors: vec![],
                    raw_errors: vec![],
                    sources: Default::default(),
                };
                render_view(plan, key, context)
            });
        // Only now are there operators that take in what is sent.
        parts.inputs.iter_mut().for_each(LiveInput::start);
        let exports = exports.and_then(|exports| points.check().map(|()| exports));
        let exports = exports.inspect_err(|_| {
            press_all(&mut parts);
            self.ends.shared.queues.close(self.index, id);
        })?;
        let mut sources: Vec<ObjectId> = parts.hydrations.iter().map(|h| h.source).collect();
        sources.sort();
        sources.dedup();
        let hydrations = sources.into_iter().map(|source| {
            let waker = self.ends.shared.wakers[self.index].clone();
            (
                source,
                self.ends
                    .shared
                    .queues
                    .hydration(self.index, id, source, waker),
            )
        });
        let hydrations = hydrations.collect();
        let restores = self.restores(id, std::mem::take(&mut points.inputs));
        self.collections.insert(
            id,
            Collection {
                key: key.to_vec(),
                rows: exports.rows,
                row_count: exports.row_count,
                errors: exports.errors,
                as_of,
                hydrated: false,
                parts,
                table: None,
                hydrations,
                taps: points.taps,
                restores,
            },
        );
        Ok(())
    }

    pub(crate) fn create_sink(&mut self, id: ObjectId, from: ObjectId, as_of: Time) -> Result<()> {
        let (mut trace, _) = import(&mut self.collections, from, as_of)?;
        let progress = SinkProgress::default();
        let (worker, on_response) = (self.index, self.ends.on_response.clone());
        let shared_progress = Rc::clone(&progress);
        let button = self.timely.dataflow_named(&format!("Sink {id}"), |scope| {
            let since = Antichain::from_elem(as_of);
            let (rows, button) =
                trace.import_frontier_core(scope, "ImportSink", since, Antichain::new());
            render_sink(rows, as_of, shared_progress, move |updates, upper| {
                on_response(Response::SinkUpdates {
                    worker,
                    id,
                    updates,
                    upper,
                });
            });
            button
        });
        let parts = Parts {
            buttons: vec![button],
            ..Parts::default()
        };
        self.sinks.insert(
            id,
            Sink {
                parts,
                progress,
                as_of,
            },
        );
        Ok(())
    }

    /// Ends an object. Its queues are closed, so that producers notice.
    pub(crate) fn drop_object(&mut self, id: ObjectId) {
        self.ends.shared.queues.close(self.index, id);
        self.sources.remove(&id);
        if let Some(collection) = self.collections.remove(&id) {
            collection.shut_down();
        }
        if let Some(mut sink) = self.sinks.remove(&id) {
            press_all(&mut sink.parts);
        }
    }

    pub(crate) fn reporter(&self) -> Reporter {
        let (worker, on_response) = (self.index, self.ends.on_response.clone());
        Reporter::new(move |error| on_response(Response::Failed { worker, error }))
    }
}

/// A trace to import as of a time, and its key.
fn import(
    collections: &mut std::collections::BTreeMap<ObjectId, Collection>,
    id: ObjectId,
    as_of: Time,
) -> Result<(RowTrace, Vec<usize>)> {
    let missing = || Error::new(ErrorKind::UndefinedTable, format!("{id} does not exist"));
    let collection = collections.get_mut(&id).ok_or_else(missing)?;
    let since = collection.since();
    if since > as_of {
        let message = format!("{id} can no longer be read as of {as_of}, only from {since} on");
        return Err(Error::new(ErrorKind::InvalidState, message));
    }
    Ok((collection.rows.clone(), collection.key.clone()))
}

/// The rows of a batch as a source input of a plan has them.
pub(crate) fn project_batch(
    batch: &SourceBatch,
    columns: &[usize],
    schema: &Schema,
) -> Result<Vec<arrow::array::ArrayRef>> {
    let arrays = columns.iter().zip(&schema.columns).map(|(wanted, column)| {
        let place = batch.columns.iter().position(|have| have == wanted);
        let array = place
            .and_then(|place| batch.batch.columns().get(place))
            .ok_or_else(|| {
                let message = format!("a batch came without column {} ({wanted})", column.name);
                Error::internal(message)
            })?;
        if *array.data_type() != column.ty {
            let (have, want) = (array.data_type(), &column.ty);
            let message = format!("column {} came as {have}, not as {want}", column.name);
            return Err(Error::internal(message));
        }
        Ok(array.clone())
    });
    arrays.collect()
}
