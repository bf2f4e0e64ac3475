//! Filters and computed columns, on blocks.
//!
//! A program runs over the whole block. If it fails, the block is halved until the failing rows
//! stand alone, so that one bad row in a thousand costs little. A failing output becomes NULL, a
//! failing filter drops its row, and both leave an error row with the time and diff of the input,
//! which takes itself back when the input does.

use std::cell::OnceCell;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, new_null_array};
use arrow::compute;
use arrow::datatypes::{DataType, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use ruslo_repr::eval::{Evaluator, Program};
use ruslo_repr::{Error, Expr, Plan, Result, Schema};

use super::errors::ErrorRows;
use super::flow::Flow;
use super::{Context, fallible, is_raw};
use crate::block::{Block, is_true};
use crate::spine::RowUpdate;

/// Renders [`Plan::Map`].
pub(crate) fn render_map<'s>(
    input: &Plan,
    filters: &[Expr],
    outputs: &[Expr],
    context: &mut Context<'_, 's>,
) -> Result<Flow<'s>> {
    let mut flow = context.render(input)?;
    let columns: Option<Vec<usize>> = outputs.iter().map(|output| output.column).collect();
    if filters.is_empty()
        && let Some(columns) = &columns
        && flow.project(columns)
    {
        return Ok(flow);
    }
    let blocks = flow.into_blocks(context)?;
    let mapper = Mapper::new(filters, Some(outputs), input.schema(), &context.evaluator)?;
    let named = ("Map", is_raw(input));
    Ok(Flow::Blocks(render_mapper(blocks, mapper, named, context)?))
}

/// Keeps the rows of blocks for which `filter` is true.
pub(crate) fn render_filter<'s>(
    blocks: crate::block::BlockStream<'s>,
    filter: &Expr,
    schema: &Schema,
    context: &mut Context<'_, 's>,
) -> Result<crate::block::BlockStream<'s>> {
    let filters = std::slice::from_ref(filter);
    let mapper = Mapper::new(filters, None, schema, &context.evaluator)?;
    render_mapper(blocks, mapper, ("Filter", false), context)
}

fn render_mapper<'s>(
    blocks: crate::block::BlockStream<'s>,
    mapper: Mapper,
    (name, raw): (&str, bool),
    context: &mut Context<'_, 's>,
) -> Result<crate::block::BlockStream<'s>> {
    let report = context.report.clone();
    let drop_retractions = context.faults.retraction;
    let can_fail = mapper.can_fail();
    let (blocks, errors) = fallible(blocks, name, move |block, blocks, errors| {
        let block = match drop_retractions {
            true => report
                .unless_ok(without_retractions(block))
                .unwrap_or_default(),
            false => Some(block),
        };
        if let Some(block) = block
            && let Some(mapped) = report.unless_ok(mapper.apply(&block, errors))
            && mapped.len > 0
        {
            blocks.push(mapped);
        }
    });
    if can_fail {
        match raw {
            true => context.raw_errors.push(errors),
            false => context.errors.push(errors),
        }
    }
    Ok(blocks)
}

/// The planted fault that tests must notice: rows that are taken away stay.
fn without_retractions(block: Block) -> Result<Option<Block>> {
    let keep = (0..block.len).map(|row| Some(block.stamps.get(row).1 > 0));
    let kept = block.filter(&keep.collect::<BooleanArray>())?;
    Ok((kept.len > 0).then_some(kept))
}

struct Mapper {
    filters: Option<Exprs>,
    /// `None` hands the columns through.
    outputs: Option<Exprs>,
    errors: ErrorRows,
}

impl Mapper {
    fn new(
        filters: &[Expr],
        outputs: Option<&[Expr]>,
        input: &Schema,
        evaluator: &Arc<dyn Evaluator>,
    ) -> Result<Mapper> {
        let filters = match filters {
            [] => None,
            _ => Some(Exprs::new(filters, input, evaluator)?),
        };
        let outputs = outputs.map(|outputs| Exprs::new(outputs, input, evaluator));
        Ok(Mapper {
            filters,
            outputs: outputs.transpose()?,
            errors: ErrorRows::new()?,
        })
    }

    /// Whether anything is computed, not just picked.
    fn can_fail(&self) -> bool {
        let mut exprs = self.filters.iter().chain(&self.outputs);
        exprs.any(|exprs| exprs.program.is_some())
    }

    fn apply(&self, block: &Block, errors: &mut Vec<RowUpdate>) -> Result<Block> {
        let kept;
        let mut block = block;
        if let Some(filters) = &self.filters {
            let (flags, failures) = filters.evaluate(block, OnFailure::DropRow)?;
            self.note(&failures, block, errors)?;
            kept = block.filter(&all_true(&flags)?)?;
            block = &kept;
        }
        let Some(outputs) = &self.outputs else {
            return Ok(block.clone());
        };
        if block.len == 0 {
            return Ok(block.clone());
        }
        let (columns, failures) = outputs.evaluate(block, OnFailure::NullCell)?;
        self.note(&failures, block, errors)?;
        Ok(block.with_columns(columns))
    }

    fn note(&self, failures: &[Failed], block: &Block, errors: &mut Vec<RowUpdate>) -> Result<()> {
        for failed in failures {
            let (time, diff) = block.stamps.get(failed.row);
            let row = self
                .errors
                .encode(&failed.expression, &failed.error.message)?;
            errors.push(((row, vec![]), time, diff));
        }
        Ok(())
    }
}

fn all_true(flags: &[ArrayRef]) -> Result<BooleanArray> {
    let no_boolean = || Error::internal("a filter is no boolean expression");
    let mut flags = flags
        .iter()
        .map(|flags| is_true(flags).ok_or_else(no_boolean));
    let first = flags.next().ok_or_else(no_boolean)??;
    flags.try_fold(first, |all, flags| Ok(compute::and(&all, &flags?)?))
}

/// An expression that failed for one row.
struct Failed {
    row: usize,
    expression: String,
    error: Error,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum OnFailure {
    /// The cell becomes NULL, the other cells are computed.
    NullCell,
    /// Expressions are conditions in order: the first that is not true ends the row.
    DropRow,
}

/// Expressions over one input, compiled.
struct Exprs {
    exprs: Vec<Expr>,
    /// Evaluates the expressions that are more than a column.
    program: Option<Box<dyn Program>>,
    /// Each expression alone, compiled when a row fails.
    single: Vec<OnceCell<Box<dyn Program>>>,
    evaluator: Arc<dyn Evaluator>,
    schema: SchemaRef,
    types: Vec<DataType>,
}

impl Exprs {
    fn new(exprs: &[Expr], input: &Schema, evaluator: &Arc<dyn Evaluator>) -> Result<Exprs> {
        let types = input.types();
        let computed: Vec<Expr> = computed(exprs).cloned().collect();
        let program = match computed.as_slice() {
            [] => None,
            computed => Some(evaluator.compile(computed, &types)?),
        };
        Ok(Exprs {
            exprs: exprs.to_vec(),
            program,
            single: exprs.iter().map(|_| OnceCell::new()).collect(),
            evaluator: evaluator.clone(),
            schema: input.to_arrow(),
            types,
        })
    }

    fn batch(&self, block: &Block) -> Result<RecordBatch> {
        let options = RecordBatchOptions::new().with_row_count(Some(block.len));
        let columns = block.columns.clone();
        let batch = RecordBatch::try_new_with_options(self.schema.clone(), columns, &options);
        Ok(batch?)
    }

    /// One array per expression, and the failures.
    fn evaluate(
        &self,
        block: &Block,
        on_failure: OnFailure,
    ) -> Result<(Vec<ArrayRef>, Vec<Failed>)> {
        let Some(program) = &self.program else {
            let columns = self.exprs.iter().filter_map(|expr| expr.column);
            return Ok((columns.map(|c| block.columns[c].clone()).collect(), vec![]));
        };
        let batch = self.batch(block)?;
        if let Ok(computed) = program.evaluate(&batch) {
            return Ok((self.with_columns(block, computed), vec![]));
        }
        let mut pieces = vec![];
        let mut failures = vec![];
        self.bisect(block, 0, block.len, on_failure, &mut pieces, &mut failures)?;
        let arrays = (0..self.exprs.len()).map(|i| {
            let parts: Vec<&dyn Array> = pieces.iter().map(|piece| piece[i].as_ref()).collect();
            Ok(compute::concat(&parts)?)
        });
        Ok((arrays.collect::<Result<_>>()?, failures))
    }

    /// Puts the columns that need no evaluation between the computed ones.
    fn with_columns(&self, block: &Block, computed: Vec<ArrayRef>) -> Vec<ArrayRef> {
        let mut computed = computed.into_iter();
        let all = self.exprs.iter().filter_map(|expr| match expr.column {
            Some(column) => Some(block.columns[column].clone()),
            None => computed.next(),
        });
        all.collect()
    }

    fn bisect(
        &self,
        block: &Block,
        offset: usize,
        len: usize,
        on_failure: OnFailure,
        pieces: &mut Vec<Vec<ArrayRef>>,
        failures: &mut Vec<Failed>,
    ) -> Result<()> {
        let part = block.slice(offset, len);
        let evaluated = match &self.program {
            Some(program) => program.evaluate(&self.batch(&part)?).ok(),
            None => Some(vec![]),
        };
        if let Some(computed) = evaluated {
            pieces.push(self.with_columns(&part, computed));
        } else if len > 1 {
            let half = len / 2;
            self.bisect(block, offset, half, on_failure, pieces, failures)?;
            self.bisect(
                block,
                offset + half,
                len - half,
                on_failure,
                pieces,
                failures,
            )?;
        } else {
            pieces.push(self.evaluate_row(&part, offset, on_failure, failures)?);
        }
        Ok(())
    }

    /// Evaluates expression by expression on a block of one row.
    fn evaluate_row(
        &self,
        block: &Block,
        row: usize,
        on_failure: OnFailure,
        failures: &mut Vec<Failed>,
    ) -> Result<Vec<ArrayRef>> {
        let batch = self.batch(block)?;
        let mut arrays: Vec<ArrayRef> = Vec::with_capacity(self.exprs.len());
        let mut ended = false;
        for (i, expr) in self.exprs.iter().enumerate() {
            if ended {
                arrays.push(new_null_array(&expr.ty, 1));
                continue;
            }
            let value = match expr.column {
                Some(column) => Ok(block.columns[column].clone()),
                None => self.evaluate_single(i, &batch),
            };
            let value = value.unwrap_or_else(|error| {
                failures.push(Failed {
                    row,
                    expression: expr.text.clone(),
                    error,
                });
                new_null_array(&expr.ty, 1)
            });
            if on_failure == OnFailure::DropRow {
                ended = is_true(&value).is_none_or(|flag| flag.true_count() == 0);
            }
            arrays.push(value);
        }
        Ok(arrays)
    }

    fn evaluate_single(&self, i: usize, batch: &RecordBatch) -> Result<ArrayRef> {
        let expr = std::slice::from_ref(&self.exprs[i]);
        let program = match self.single[i].get() {
            Some(program) => program,
            None => {
                let program = self.evaluator.compile(expr, &self.types)?;
                self.single[i].get_or_init(|| program)
            }
        };
        let arrays = program.evaluate(batch)?;
        let missing = || Error::internal("an expression gave no array");
        arrays.into_iter().next().ok_or_else(missing)
    }
}

fn computed(exprs: &[Expr]) -> impl Iterator<Item = &Expr> {
    exprs.iter().filter(|expr| expr.column.is_none())
}
