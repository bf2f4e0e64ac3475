//! From a plan to operators: import → build → export.
//!
//! One view is one dataflow. Leaves are inputs (sources, constant rows) or imported arrangements
//! (tables, other views); every node above hands on a [`Flow`]; the top is arranged by the view's
//! key and exported as a trace. What a row could not compute goes to a second arrangement.
//!
//! ```text
//!   sources ─> blocks ─┐
//!   traces  ─> import ─┴─> map, join, reduce, … ─┬─> arrange by key ─> rows trace
//!                                                └─> arrange ────────> errors trace
//! ```

mod accumulate;
mod combine;
mod distinct;
mod errors;
mod extremes;
mod flow;
mod groups;
mod interner;
mod join;
mod map;
mod portions;
mod reduce;
mod sink;

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use differential_dataflow::operators::arrange::{Arranged, ShutdownButton};
use ruslo_repr::eval::Evaluator;
use ruslo_repr::{ObjectId, Plan, Result, RowCodec, Schema, Time};
use timely::container::CapacityContainerBuilder;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::dataflow::operators::generic::{OutputBuilder, source};
use timely::dataflow::operators::vec::Map;
use timely::dataflow::operators::{CapabilitySet, Concatenate, Input};
use timely::dataflow::{InputHandle, Scope, Stream};
use timely::progress::Antichain;
use timely::progress::operate::FrontierInterest;

use crate::block::{Block, BlockStream, Shape, Stamps};
use crate::durable::{Points, RowForm};
use crate::protocol::error_schema;
use crate::spine::{
    KeyTrace, RowCount, RowStream, RowTrace, RowUpdate, SharedRows, State, arrange_rows,
    count_rows, share,
};
use crate::workers::Faults;

pub(crate) use errors::Reporter;
pub(crate) use flow::{Flow, Rows};
use portions::rows_of;
pub(crate) use sink::{SinkProgress, render_sink};

pub(crate) type BlockInput = InputHandle<Time, CapacityContainerBuilder<Vec<Block>>>;
pub(crate) type Button = ShutdownButton<CapabilitySet<Time>>;

/// An input of a view: the live rows of a source, or constants.
pub(crate) struct LiveInput {
    /// `None` for constants, which only move with time.
    pub(crate) source: Option<ObjectId>,
    pub(crate) columns: Vec<usize>,
    pub(crate) schema: Schema,
    pub(crate) handle: BlockInput,
    /// Constant rows of the view's first time.
    constants: Option<Block>,
}

impl LiveInput {
    /// Hands over the constants and moves past the view's first time.
    pub(crate) fn start(&mut self) {
        if let Some(constants) = self.constants.take() {
            self.handle.send(constants);
        }
        let as_of = *self.handle.time();
        self.handle.advance_to(as_of + 1);
    }
}

/// An input for the rows a source had before the view was created.
pub(crate) struct HydrationInput {
    pub(crate) source: ObjectId,
    pub(crate) columns: Vec<usize>,
    pub(crate) schema: Schema,
    pub(crate) handle: BlockInput,
}

/// What the worker keeps of a rendered dataflow, besides its traces.
#[derive(Default)]
pub(crate) struct Parts {
    pub(crate) inputs: Vec<LiveInput>,
    pub(crate) hydrations: Vec<HydrationInput>,
    /// End the imports of other objects' arrangements.
    pub(crate) buttons: Vec<Button>,
    /// Estimated heap bytes of each inner arrangement, which they do not keep alive.
    pub(crate) memory: Vec<Box<dyn Fn() -> usize>>,
}

/// Gives the trace of a table or view, and the key it is arranged by.
pub(crate) type Imports<'c> = dyn FnMut(ObjectId) -> Result<(RowTrace, Vec<usize>)> + 'c;

/// What rendering a view needs and collects.
pub(crate) struct Context<'c, 's> {
    pub(crate) scope: Scope<'s, Time>,
    pub(crate) as_of: Time,
    pub(crate) evaluator: Arc<dyn Evaluator>,
    pub(crate) report: Reporter,
    pub(crate) faults: Faults,
    pub(crate) imports: &'c mut Imports<'c>,
    pub(crate) hydrate: &'c [ObjectId],
    pub(crate) parts: &'c mut Parts,
    pub(crate) points: &'c mut Points,
    /// Streams of error rows.
    pub(crate) errors: Vec<RowStream<'s>>,
    /// The same of what comes from sources without an arrangement between.
    pub(crate) raw_errors: Vec<RowStream<'s>>,
    /// Inputs that several nodes of the plan read.
    pub(crate) sources: HashMap<(ObjectId, Vec<usize>), BlockStream<'s>>,
}

/// The exported traces of a view.
pub(crate) struct Exports {
    pub(crate) rows: RowTrace,
    pub(crate) row_count: RowCount,
    /// `None` for a plan that cannot fail.
    pub(crate) errors: Option<RowTrace>,
}

/// Renders a whole view, arranged by `key`.
pub(crate) fn render_view(
    plan: &Plan,
    key: &[usize],
    mut context: Context<'_, '_>,
) -> Result<Exports> {
    let flow = context.render(plan)?;
    let types = plan.schema().types();
    let rows = flow.arrange(&types, key, ("rows", is_raw(plan)), &mut context)?;
    let row_count = count_rows(&rows);
    Ok(Exports {
        rows: rows.trace,
        row_count,
        errors: context.arrange_errors()?,
    })
}

/// Whether rows come from sources with no arrangement on the way: nothing but a durable point
/// keeps them over a restart.
pub(crate) fn is_raw(plan: &Plan) -> bool {
    match plan {
        Plan::Source { .. } => true,
        Plan::Map { input, .. } => is_raw(input),
        Plan::Union { inputs, .. } => inputs.iter().all(is_raw),
        _ => false,
    }
}

impl<'s> Context<'_, 's> {
    /// Renders one node and all below it.
    pub(crate) fn render(&mut self, plan: &Plan) -> Result<Flow<'s>> {
        match plan {
            Plan::Get { id, schema } => self.render_get(*id, schema),
            Plan::Source {
                id,
                columns,
                schema,
            } => Ok(Flow::Blocks(self.render_source(*id, columns, schema))),
            Plan::Values { rows, schema } => self.render_values(rows, schema),
            Plan::Map {
                input,
                filters,
                outputs,
                ..
            } => map::render_map(input, filters, outputs, self),
            Plan::Reduce {
                input,
                keys,
                aggregates,
                ..
            } => reduce::render_reduce(input, keys, aggregates, self),
            Plan::Distinct { input } => distinct::render_distinct(input, self),
            Plan::Join { .. } => join::render_join(plan, self),
            Plan::Union { inputs, .. } => {
                let inputs = inputs
                    .iter()
                    .map(|input| self.render_part(input, is_raw(plan)));
                let inputs = inputs.collect::<Result<Vec<_>>>()?;
                Ok(Flow::Blocks(self.scope.concatenate(inputs)))
            }
        }
    }

    /// One part of a union. Where others are computed again after a restart, raw rows are kept.
    fn render_part(&mut self, part: &Plan, all_raw: bool) -> Result<BlockStream<'s>> {
        let flow = self.render(part)?;
        if all_raw || !is_raw(part) || !self.points.wanted {
            return flow.into_blocks(self);
        }
        let types = part.schema().types();
        let all: Vec<usize> = (0..types.len()).collect();
        let arranged = flow.arrange(&types, &all, ("rows", true), self)?;
        let shape = Shape::arranged(&types, &all);
        Flow::Arranged(self.share(arranged), shape).into_blocks(self)
    }

    /// Arranges the error rows of the view; None for a plan that cannot fail.
    fn arrange_errors(&mut self) -> Result<Option<RowTrace>> {
        let mut errors = std::mem::take(&mut self.errors);
        let raw = std::mem::take(&mut self.raw_errors);
        if !raw.is_empty() {
            let raw = self.scope.concatenate(raw);
            let schema = error_schema();
            let width = schema.len();
            let form = RowForm::named(schema, width)?;
            let arranged = self.arrange_raw_rows(raw, form, "errors");
            if errors.is_empty() {
                return Ok(Some(arranged.trace));
            }
            let kept = self.share(arranged);
            errors.push(rows_of(kept));
        }
        if errors.is_empty() {
            return Ok(None);
        }
        let errors = self.scope.concatenate(errors);
        Ok(Some(arrange_rows(errors, false, "ArrangeErrors").trace))
    }

    /// Arranges rows that come from sources: a durable point.
    pub(crate) fn arrange_raw_rows(
        &mut self,
        rows: RowStream<'s>,
        form: RowForm,
        name: &str,
    ) -> Arranged<'s, RowTrace> {
        match self.points.wanted {
            true => self.points.arrange_rows(self.scope, rows, form, name),
            false => arrange_rows(rows, false, name),
        }
    }

    /// Arranges rows of a shape; `raw` ones at a durable point.
    pub(crate) fn arrange_shape(
        &mut self,
        rows: Rows<'s>,
        (name, raw): (&str, bool),
    ) -> Result<Arranged<'s, RowTrace>> {
        if !raw {
            return Ok(arrange_rows(rows.stream, rows.partitioned, name));
        }
        let form = RowForm::new(&rows.shape.key, &rows.shape.value)?;
        Ok(self.arrange_raw_rows(rows.stream, form, name))
    }

    /// Imports the arrangement of a table or view as of the new view's first time.
    fn render_get(&mut self, id: ObjectId, schema: &Schema) -> Result<Flow<'s>> {
        let (mut trace, key) = (self.imports)(id)?;
        let since = Antichain::from_elem(self.as_of);
        let name = format!("Import {id}");
        let (arranged, button) =
            trace.import_frontier_core(self.scope, &name, since, Antichain::new());
        self.parts.buttons.push(button);
        Ok(Flow::Arranged(
            arranged,
            Shape::arranged(&schema.types(), &key),
        ))
    }

    fn render_source(
        &mut self,
        source: ObjectId,
        columns: &[usize],
        schema: &Schema,
    ) -> BlockStream<'s> {
        let reader = (source, columns.to_vec());
        if let Some(stream) = self.sources.get(&reader) {
            return stream.clone();
        }
        let (mut handle, mut stream) = self.scope.new_input::<Vec<Block>>();
        handle.advance_to(self.as_of);
        self.parts.inputs.push(LiveInput {
            source: Some(source),
            columns: columns.to_vec(),
            schema: schema.clone(),
            handle,
            constants: None,
        });
        if self.hydrate.contains(&source) {
            let (mut handle, past) = self.scope.new_input::<Vec<Block>>();
            handle.advance_to(self.as_of);
            self.parts.hydrations.push(HydrationInput {
                source,
                columns: columns.to_vec(),
                schema: schema.clone(),
                handle,
            });
            stream = self.scope.concatenate([stream, past]);
        }
        self.sources.insert(reader, stream.clone());
        stream
    }

    /// Constant rows, put in by the first worker at the view's first time.
    fn render_values(&mut self, rows: &[Vec<u8>], schema: &Schema) -> Result<Flow<'s>> {
        let (mut handle, stream) = self.scope.new_input::<Vec<Block>>();
        handle.advance_to(self.as_of);
        let mut constants = None;
        if self.scope.index() == 0 && !rows.is_empty() {
            let codec = RowCodec::new(&schema.types())?;
            constants = Some(Block {
                columns: codec.decode(rows.iter().map(Vec::as_slice))?,
                len: rows.len(),
                stamps: Stamps::Same(self.as_of, 1),
            });
        }
        self.parts.inputs.push(LiveInput {
            source: None,
            columns: vec![],
            schema: schema.clone(),
            handle,
            constants,
        });
        Ok(Flow::Blocks(stream))
    }

    /// A stream of one item, put in by the first worker.
    pub(crate) fn once<D: Clone + 'static>(&self, item: D) -> Stream<'s, Time, Vec<D>> {
        let first_worker = self.scope.index() == 0;
        type Output<D> = CapacityContainerBuilder<Vec<D>>;
        source::<_, Output<D>, _, _>(self.scope, "Once", move |capability, _| {
            let mut pending = first_worker.then_some((capability, item));
            move |output| {
                if let Some((capability, item)) = pending.take() {
                    output.session(&capability).give(item);
                }
            }
        })
    }

    /// Takes the error rows out of a stream and keeps them for the view.
    pub(crate) fn split_errors(
        &mut self,
        outcomes: Stream<'s, Time, Vec<std::result::Result<RowUpdate, RowUpdate>>>,
    ) -> RowStream<'s> {
        self.errors
            .push(outcomes.clone().flat_map(|outcome| outcome.err()));
        outcomes.flat_map(|outcome| outcome.ok())
    }

    /// Makes an arrangement of this dataflow look like an imported one, and counts its memory.
    pub(crate) fn share(&mut self, arranged: Arranged<'s, RowTrace>) -> SharedRows<'s> {
        self.watch_rows(&arranged.trace);
        share(arranged)
    }

    /// Counts the memory of an inner arrangement of rows.
    pub(crate) fn watch_rows(&mut self, trace: &RowTrace) {
        let trace = Rc::downgrade(&trace.trace_box_unstable());
        self.parts.memory.push(Box::new(move || {
            let bytes = trace
                .upgrade()
                .map(|t| crate::spine::row_bytes(t.borrow().trace()));
            bytes.unwrap_or(0)
        }));
    }

    /// Counts the memory of an inner arrangement of states.
    pub(crate) fn watch_keys<R: State>(&mut self, trace: &KeyTrace<R>) {
        let trace = Rc::downgrade(&trace.trace_box_unstable());
        self.parts.memory.push(Box::new(move || {
            let bytes = trace
                .upgrade()
                .map(|t| crate::spine::key_bytes(t.borrow().trace()));
            bytes.unwrap_or(0)
        }));
    }
}

/// Renders a stateless operator on blocks with a second output of error rows.
pub(crate) fn fallible<'s>(
    blocks: BlockStream<'s>,
    name: &str,
    mut logic: impl FnMut(Block, &mut Vec<Block>, &mut Vec<RowUpdate>) + 'static,
) -> (BlockStream<'s>, RowStream<'s>) {
    two_outputs(blocks, name, move |block, blocks, errors| {
        logic(block, blocks, errors)
    })
}

/// Renders a stateless operator with two outputs.
pub(crate) fn two_outputs<'s, A: Clone + 'static, B: Clone + 'static>(
    blocks: BlockStream<'s>,
    name: &str,
    mut logic: impl FnMut(Block, &mut Vec<A>, &mut Vec<B>) + 'static,
) -> (Stream<'s, Time, Vec<A>>, Stream<'s, Time, Vec<B>>) {
    let mut builder = OperatorBuilder::new(name.to_string(), blocks.scope());
    let mut input = builder.new_input(blocks, Pipeline);
    builder.set_notify_for(0, FrontierInterest::Never);
    let (first, first_stream) = builder.new_output();
    let (second, second_stream) = builder.new_output();
    let mut first = OutputBuilder::<_, CapacityContainerBuilder<Vec<A>>>::from(first);
    let mut second = OutputBuilder::<_, CapacityContainerBuilder<Vec<B>>>::from(second);
    builder.build(move |_| {
        let (mut a, mut b) = (vec![], vec![]);
        move |_frontiers| {
            let mut first = first.activate();
            let mut second = second.activate();
            input.for_each(|capability, blocks| {
                for block in blocks.drain(..) {
                    logic(block, &mut a, &mut b);
                }
                if !a.is_empty() {
                    first.session(&capability).give_container(&mut a);
                    a.clear();
                }
                if !b.is_empty() {
                    second.session(&capability).give_container(&mut b);
                    b.clear();
                }
            });
        }
    });
    (first_stream, second_stream)
}
