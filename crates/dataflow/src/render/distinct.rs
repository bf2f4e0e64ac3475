//! Every row once, however often it stands in the input.

use arrow::datatypes::DataType;
use ruslo_repr::{Plan, Result};

use super::accumulate::present;
use super::combine::{CountRows, combine};
use super::flow::{Flow, Rows};
use super::{Context, is_raw};
use crate::block::{BlockStream, Shape};
use crate::durable::CountForm;
use crate::spine::arrange_keys;

/// Renders [`Plan::Distinct`].
pub(crate) fn render_distinct<'s>(input: &Plan, context: &mut Context<'_, 's>) -> Result<Flow<'s>> {
    let types = input.schema().types();
    let blocks = context.render(input)?.into_blocks(context)?;
    distinct(blocks, &types, is_raw(input), context)
}

/// The distinct rows of blocks, each on the worker of the whole row.
pub(crate) fn distinct<'s>(
    blocks: BlockStream<'s>,
    types: &[DataType],
    raw: bool,
    context: &mut Context<'_, 's>,
) -> Result<Flow<'s>> {
    let all: Vec<usize> = (0..types.len()).collect();
    let counts = combine(blocks, types, &all, CountRows, context)?;
    let name = "distinct";
    let arranged = match raw && context.points.wanted {
        true => {
            let form = CountForm::new(types)?;
            context
                .points
                .arrange_keys(context.scope, counts, form, name)
        }
        false => arrange_keys(counts, false, name),
    };
    context.watch_keys(&arranged.trace);
    Ok(Flow::Rows(Rows {
        stream: present(arranged, "Distinct", context),
        shape: Shape::arranged(types, &all),
        partitioned: true,
    }))
}
