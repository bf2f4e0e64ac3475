//! The shapes in which a collection travels between the operators of one view.
//!
//! A node hands on what it has, and the next asks for what it needs: blocks to evaluate on,
//! or an arrangement to join and reduce. Only a real change of shape costs an operator.
//!
//! ```text
//!            ┌── encode, exchange, arrange ──┐
//!   Blocks ──┤                               ├──> Arranged
//!      ^     └───────── Rows ────────────────┘       │
//!      └───────────────── decode <───────────────────┘
//! ```

use arrow::datatypes::DataType;
use differential_dataflow::operators::arrange::Arranged;
use ruslo_repr::Result;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::Operator;

use super::Context;
use super::portions::{in_portions, rows_of};
use crate::block::{BlockStream, Decoder, Encoder, Gather, Shape};
use crate::spine::{RowStream, RowTrace, SharedRows};

/// A collection of one view's dataflow.
#[derive(Clone)]
pub(crate) enum Flow<'s> {
    Blocks(BlockStream<'s>),
    Rows(Rows<'s>),
    Arranged(SharedRows<'s>, Shape),
}

/// Encoded rows that are not arranged.
#[derive(Clone)]
pub(crate) struct Rows<'s> {
    pub(crate) stream: RowStream<'s>,
    pub(crate) shape: Shape,
    /// Whether every row is on the worker of its key.
    pub(crate) partitioned: bool,
}

impl<'s> Flow<'s> {
    /// The rows as blocks.
    pub(crate) fn into_blocks(self, context: &Context<'_, 's>) -> Result<BlockStream<'s>> {
        match self {
            Flow::Blocks(blocks) => Ok(blocks),
            Flow::Rows(rows) => decode_rows(rows, context),
            Flow::Arranged(arranged, shape) => decode_arranged(arranged, &shape, context),
        }
    }

    /// Keeps the columns at `columns`, if that costs no operator; false if it does.
    pub(crate) fn project(&mut self, columns: &[usize]) -> bool {
        match self {
            Flow::Rows(Rows { shape, .. }) | Flow::Arranged(_, shape) => {
                *shape = shape.project(columns);
                true
            }
            Flow::Blocks(_) => false,
        }
    }

    /// The arrangement of the rows by `key`: the one that is there if it fits, else a new one.
    pub(crate) fn into_arranged(
        self,
        types: &[DataType],
        key: &[usize],
        raw: bool,
        context: &mut Context<'_, 's>,
    ) -> Result<SharedRows<'s>> {
        match self {
            Flow::Arranged(arranged, shape) if shape.is_arranged_by(key) => Ok(arranged),
            other => {
                let arranged = other.arrange(types, key, ("rows by key", raw), context)?;
                Ok(context.share(arranged))
            }
        }
    }

    /// A new arrangement of the rows by `key`, of this name, durable if they are raw.
    pub(crate) fn arrange(
        self,
        types: &[DataType],
        key: &[usize],
        named: (&str, bool),
        context: &mut Context<'_, 's>,
    ) -> Result<Arranged<'s, RowTrace>> {
        let rows = match self {
            Flow::Rows(rows) if rows.shape.is_arranged_by(key) => rows,
            Flow::Arranged(arranged, shape) if shape.is_arranged_by(key) => Rows {
                stream: rows_of(arranged),
                shape,
                partitioned: true,
            },
            other => {
                let blocks = other.into_blocks(context)?;
                encode_blocks(blocks, types, key, context)?
            }
        };
        context.arrange_shape(rows, named)
    }
}

/// Encodes blocks as pairs of an arrangement by `key`.
pub(crate) fn encode_blocks<'s>(
    blocks: BlockStream<'s>,
    types: &[DataType],
    key: &[usize],
    context: &Context<'_, 's>,
) -> Result<Rows<'s>> {
    let encoder = Encoder::new(types, key)?;
    let report = context.report.clone();
    type Output = CapacityContainerBuilder<Vec<crate::spine::RowUpdate>>;
    let stream = blocks.unary::<Output, _, _, _>(Pipeline, "Encode", move |_, _| {
        move |input, output| {
            input.for_each(|capability, blocks| {
                let mut session = output.session(&capability);
                for block in blocks.drain(..) {
                    report.unless_ok(encoder.encode(&block, |row| session.give(row)));
                }
            });
        }
    });
    Ok(Rows {
        stream,
        shape: Shape::arranged(types, key),
        partitioned: false,
    })
}

fn decode_rows<'s>(rows: Rows<'s>, context: &Context<'_, 's>) -> Result<BlockStream<'s>> {
    let decoder = Decoder::new(&rows.shape)?;
    let report = context.report.clone();
    type Output = CapacityContainerBuilder<Vec<crate::block::Block>>;
    Ok(rows
        .stream
        .unary::<Output, _, _, _>(Pipeline, "Decode", move |_, _| {
            move |input, output| {
                input.for_each(|capability, rows| {
                    let mut gather = Gather::new(&decoder);
                    for ((key, value), time, diff) in rows.iter() {
                        report.unless_ok(gather.push(key, value, *time, *diff));
                    }
                    let mut blocks = report.unless_ok(gather.finish()).unwrap_or_default();
                    output.session(&capability).give_container(&mut blocks);
                });
            }
        }))
}

fn decode_arranged<'s>(
    arranged: SharedRows<'s>,
    shape: &Shape,
    context: &Context<'_, 's>,
) -> Result<BlockStream<'s>> {
    let decoder = Decoder::new(shape)?;
    let report = context.report.clone();
    Ok(in_portions(
        arranged,
        "DecodeArranged",
        move |batch, place| {
            let mut gather = Gather::new(&decoder);
            place.read(batch, |key, value, time, diff| {
                report.unless_ok(gather.push(key, value, time, diff));
            });
            report.unless_ok(gather.finish()).unwrap_or_default()
        },
    ))
}
