//! Grouping: one output row per group, made of parts that are each kept the cheapest way.
//!
//! | aggregates | state of a group |
//! | --- | --- |
//! | count(*) alone | its row count, as diff |
//! | count, sum, avg | one [`Sums`] as diff |
//! | min, max | its extremes as diff, or all values if rows may go |
//! | count, sum, avg of DISTINCT | the distinct values, then as above |
//! | any other | the argument columns of its rows, recomputed on change |
//!
//! Each kind gives one row per group that has rows, so the parts join on the group's key. Without
//! keys there is one group that always exists: a marker row, which no aggregate sees, is put into
//! it at the view's first time.

use arrow::array::{Array, ArrayRef};
use arrow::compute;
use arrow::datatypes::DataType;
use ruslo_repr::{Aggregate, AggregateFunction, Error, Plan, Result, RowCodec};
use timely::dataflow::operators::Concat;
use timely::dataflow::operators::vec::Map;

use super::accumulate::{Change, Outcome, accumulate, rows_only};
use super::combine::{Absorb, CountRows, combine};
use super::errors::ErrorRows;
use super::extremes::Wanted;
use super::flow::{Flow, Rows, encode_blocks};
use super::portions::join_rows;
use super::{Context, distinct, extremes, groups, is_raw};
use crate::aggregate::{AddUp, Sums};
use crate::block::{Block, BlockStream, Shape, is_true};
use crate::durable::{CountForm, KeyForm, SumsForm};
use crate::spine::{RowStream, State, arrange_keys, arrange_rows};

/// The value bytes of some aggregates, by group key.
pub(crate) struct Part<'s> {
    pub(crate) rows: RowStream<'s>,
    /// The aggregates that the value holds, in order.
    pub(crate) aggregates: Vec<usize>,
}

/// Aggregates over the same argument and filter.
type ByArgument = ((usize, Option<usize>), Vec<usize>);

/// The aggregates of a reduce, by the way they are kept.
#[derive(Default)]
struct Classes {
    add_up: Vec<usize>,
    distinct: Vec<ByArgument>,
    extremes: Vec<ByArgument>,
    others: Vec<usize>,
}

impl Classes {
    fn are_empty(&self) -> bool {
        self.add_up.is_empty()
            && self.distinct.is_empty()
            && self.extremes.is_empty()
            && self.others.is_empty()
    }
}

/// Renders [`Plan::Reduce`].
pub(crate) fn render_reduce<'s>(
    input: &Plan,
    keys: &[usize],
    aggregates: &[Aggregate],
    context: &mut Context<'_, 's>,
) -> Result<Flow<'s>> {
    let types = input.schema().types();
    let flow = context.render(input)?;
    let classes = classify(aggregates)?;
    let mut reduce = Reduce {
        types: &types,
        keys,
        aggregates,
        append_only: input.is_append_only(),
        raw: is_raw(input),
        context,
    };
    let parts = reduce.parts(classes, flow)?;
    let part = reduce.join(parts)?;
    let value: Vec<_> = part
        .aggregates
        .iter()
        .map(|&i| aggregates[i].ty.clone())
        .collect();
    let place = |i| {
        part.aggregates
            .iter()
            .position(|&a| a == i)
            .unwrap_or_default()
    };
    let aggregate_places = (0..aggregates.len()).map(|i| keys.len() + place(i));
    let shape = Shape {
        key: keys.iter().map(|&column| types[column].clone()).collect(),
        value,
        columns: (0..keys.len()).chain(aggregate_places).collect(),
    };
    Ok(Flow::Rows(Rows {
        stream: part.rows,
        shape,
        partitioned: true,
    }))
}

fn classify(aggregates: &[Aggregate]) -> Result<Classes> {
    let mut classes = Classes::default();
    for (i, aggregate) in aggregates.iter().enumerate() {
        use AggregateFunction::*;
        let argument = match (&aggregate.function, aggregate.args.as_slice()) {
            (Other { .. }, _) => {
                classes.others.push(i);
                continue;
            }
            (Count, []) if !aggregate.distinct => None,
            (_, [argument]) => Some(*argument),
            _ => {
                let message = format!("wrong number of arguments in {}", aggregate.text);
                return Err(Error::unsupported(message));
            }
        };
        let by_argument = match (&aggregate.function, argument, aggregate.distinct) {
            (Min | Max, Some(argument), _) => (&mut classes.extremes, argument),
            (_, Some(argument), true) => (&mut classes.distinct, argument),
            _ => {
                classes.add_up.push(i);
                continue;
            }
        };
        let (list, argument) = by_argument;
        let kind = (argument, aggregate.filter);
        match list.iter_mut().find(|(known, _)| *known == kind) {
            Some((_, members)) => members.push(i),
            None => list.push((kind, vec![i])),
        }
    }
    Ok(classes)
}

struct Reduce<'r, 'c, 's> {
    types: &'r [DataType],
    keys: &'r [usize],
    aggregates: &'r [Aggregate],
    /// Whether no row of the input is ever taken away.
    append_only: bool,
    /// Whether its state must be kept: see [`is_raw`].
    raw: bool,
    context: &'r mut Context<'c, 's>,
}

impl<'s> Reduce<'_, '_, 's> {
    fn parts(&mut self, mut classes: Classes, flow: Flow<'s>) -> Result<Vec<Part<'s>>> {
        let mut parts = vec![];
        if let Flow::Arranged(arranged, shape) = &flow
            && !self.keys.is_empty()
            && shape.is_arranged_by(self.keys)
        {
            let extremes = classes.extremes.drain(..).flat_map(|(_, members)| members);
            let mut members: Vec<usize> = extremes.collect();
            members.append(&mut classes.others);
            if !members.is_empty() {
                let aggregates = self.pick(&members);
                let rows = arranged.clone();
                let rows =
                    groups::over_arrangement(rows, shape, &aggregates, self.types, self.context)?;
                parts.push(Part {
                    rows,
                    aggregates: members,
                });
            }
        }
        if !parts.is_empty() && classes.are_empty() {
            return Ok(parts);
        }
        let blocks = flow.into_blocks(self.context)?;
        for ((argument, filter), members) in classes.extremes {
            parts.push(self.extremes(blocks.clone(), argument, filter, members)?);
        }
        for ((argument, filter), members) in classes.distinct {
            parts.push(self.distinct(blocks.clone(), argument, filter, members)?);
        }
        if !classes.others.is_empty() {
            parts.push(self.others(blocks.clone(), classes.others)?);
        }
        if !classes.add_up.is_empty() || parts.is_empty() {
            let aggregates = self.pick(&classes.add_up);
            let rows = self.add_up((blocks, self.raw), self.types, self.keys, &aggregates)?;
            parts.push(Part {
                rows,
                aggregates: classes.add_up,
            });
        }
        Ok(parts)
    }

    fn pick(&self, members: &[usize]) -> Vec<Aggregate> {
        members
            .iter()
            .map(|&i| self.aggregates[i].clone())
            .collect()
    }

    /// Types of the group key followed by those of `columns`.
    fn key_and(&self, columns: &[usize]) -> Vec<DataType> {
        let columns = self.keys.iter().chain(columns);
        columns.map(|&column| self.types[column].clone()).collect()
    }

    fn add_up(
        &mut self,
        blocks: (BlockStream<'s>, bool),
        types: &[DataType],
        keys: &[usize],
        aggregates: &[Aggregate],
    ) -> Result<RowStream<'s>> {
        let add_up = AddUp::compile(aggregates, types)?;
        let finisher = Finisher::new(aggregates, keys.is_empty(), self.context)?;
        match add_up.counts_rows_only() {
            true => self.accumulate(blocks, types, keys, CountRows, (add_up, finisher)),
            false => {
                let output = AddUp::compile(aggregates, types)?;
                self.accumulate(blocks, types, keys, add_up, (output, finisher))
            }
        }
    }

    fn accumulate<R: GroupState>(
        &mut self,
        (blocks, raw): (BlockStream<'s>, bool),
        types: &[DataType],
        keys: &[usize],
        absorb: impl Absorb<R> + 'static,
        (add_up, finisher): (AddUp, Finisher),
    ) -> Result<RowStream<'s>> {
        let mut changes = combine(blocks, types, keys, absorb, self.context)?;
        let durable = raw && self.context.points.wanted;
        // What is given back has the marker in it.
        if keys.is_empty() && !(durable && self.context.points.is_restored()) {
            let marker = R::of_rows(finisher.base);
            changes = changes.concat(
                self.context
                    .once(((vec![], ()), self.context.as_of, marker)),
            );
        }
        let (name, scope) = ("groups", self.context.scope);
        let arranged = match durable {
            true => {
                let key_types: Vec<_> = keys.iter().map(|&key| types[key].clone()).collect();
                let form = R::form(&key_types)?;
                self.context.points.arrange_keys(scope, changes, form, name)
            }
            false => arrange_keys(changes, false, name),
        };
        self.context.watch_keys(&arranged.trace);
        let can_fail = add_up.can_fail();
        let finish = move |changes: Vec<Change<R>>, outcomes: &mut Vec<Outcome>| {
            finisher.finish(&add_up, changes, outcomes)
        };
        let outcomes = accumulate(arranged, "Accumulate", finish, self.context);
        Ok(match can_fail {
            true => self.context.split_errors(outcomes),
            false => rows_only(outcomes),
        })
    }

    /// min and max of one column.
    fn extremes(
        &mut self,
        blocks: BlockStream<'s>,
        argument: usize,
        filter: Option<usize>,
        members: Vec<usize>,
    ) -> Result<Part<'s>> {
        let blocks = self.project(blocks, argument, filter);
        let types = self.key_and(&[argument]);
        let largest = members.iter();
        let largest = largest.map(|&i| self.aggregates[i].function == AggregateFunction::Max);
        let wanted = Wanted::new(largest.collect(), &self.types[argument])?;
        let rows = if self.append_only {
            extremes::monotonic(blocks, &types, wanted, self.raw, self.context)?
        } else {
            let key: Vec<usize> = (0..self.keys.len()).collect();
            let rows = encode_blocks(blocks, &types, &key, self.context)?.stream;
            extremes::hierarchical(self.with_marker(rows), wanted, self.context)
        };
        Ok(Part {
            rows,
            aggregates: members,
        })
    }

    /// Aggregates that add up, over the distinct values of one column.
    fn distinct(
        &mut self,
        blocks: BlockStream<'s>,
        argument: usize,
        filter: Option<usize>,
        members: Vec<usize>,
    ) -> Result<Part<'s>> {
        let blocks = self.project(blocks, argument, filter);
        let types = self.key_and(&[argument]);
        let flow = distinct::distinct(blocks, &types, self.raw, self.context)?;
        let blocks = flow.into_blocks(self.context)?;
        let mut aggregates = self.pick(&members);
        for aggregate in &mut aggregates {
            aggregate.args = vec![self.keys.len()];
            aggregate.distinct = false;
            aggregate.filter = None;
        }
        let key: Vec<usize> = (0..self.keys.len()).collect();
        let rows = self.add_up((blocks, false), &types, &key, &aggregates)?;
        Ok(Part {
            rows,
            aggregates: members,
        })
    }

    /// Any aggregates, recomputed over the columns they need.
    fn others(&mut self, blocks: BlockStream<'s>, members: Vec<usize>) -> Result<Part<'s>> {
        let aggregates = self.pick(&members);
        let needed = groups::needed_columns(&aggregates);
        let columns: Vec<usize> = self.keys.iter().chain(&needed).copied().collect();
        let picked = columns.clone();
        let blocks = blocks.map(move |block: Block| {
            let columns = picked.iter().map(|&column| block.columns[column].clone());
            block.with_columns(columns.collect())
        });
        let types = self.key_and(&needed);
        let key: Vec<usize> = (0..self.keys.len()).collect();
        let mut rows = encode_blocks(blocks, &types, &key, self.context)?;
        rows.stream = self.with_marker(rows.stream);
        let named = ("group rows", self.raw);
        let arranged = self.context.arrange_shape(rows, named)?;
        let arranged = self.context.share(arranged);
        let value = needed
            .iter()
            .map(|&column| self.types[column].clone())
            .collect();
        let keyless = self.keys.is_empty();
        let rows =
            groups::over_needed(arranged, value, &aggregates, &needed, keyless, self.context)?;
        Ok(Part {
            rows,
            aggregates: members,
        })
    }

    /// The group key and one column, which is NULL where the filter is not true.
    fn project(
        &self,
        blocks: BlockStream<'s>,
        argument: usize,
        filter: Option<usize>,
    ) -> BlockStream<'s> {
        let keys = self.keys.to_vec();
        let report = self.context.report.clone();
        blocks.flat_map(move |block: Block| {
            let keys = keys.iter().map(|&key| block.columns[key].clone());
            let argument = masked(&block.columns[argument], filter.map(|f| &block.columns[f]));
            let argument = report.unless_ok(argument)?;
            Some(block.with_columns(keys.chain([argument]).collect()))
        })
    }

    /// Adds the row with no value that makes the only group of a reduce without keys exist.
    fn with_marker(&self, rows: RowStream<'s>) -> RowStream<'s> {
        match self.keys {
            [] => rows.concat(self.context.once(((vec![], vec![]), self.context.as_of, 1))),
            _ => rows,
        }
    }

    /// Joins parts on the group key; all of them have the same groups.
    fn join(&mut self, parts: Vec<Part<'s>>) -> Result<Part<'s>> {
        let mut parts = parts.into_iter();
        let nothing = || Error::internal("a reduce without parts");
        let mut joined = parts.next().ok_or_else(nothing)?;
        for part in parts {
            let left = arrange_rows(joined.rows, true, "ArrangePart");
            let left = self.context.share(left);
            let right = arrange_rows(part.rows, true, "ArrangePart");
            let right = self.context.share(right);
            joined.rows = join_rows(left, right, |_, left, right| Some([left, &[], right]));
            joined.aggregates.extend(part.aggregates);
        }
        Ok(joined)
    }
}

/// The column with NULL where `filter` is not true.
pub(crate) fn masked(column: &ArrayRef, filter: Option<&ArrayRef>) -> Result<ArrayRef> {
    let Some(filter) = filter else {
        return Ok(column.clone());
    };
    let passing = is_true(filter);
    let passing =
        passing.ok_or_else(|| Error::internal("the filter of an aggregate is no boolean"))?;
    debug_assert_eq!(passing.len(), column.len());
    Ok(compute::nullif(column, &compute::not(&passing)?)?)
}

/// What a group's accumulated diff can be.
pub(crate) trait GroupState: State {
    type Form: KeyForm<Self>;

    fn form(key: &[DataType]) -> Result<Self::Form>;
    fn of_rows(rows: i64) -> Self;
    fn into_sums(self) -> Sums;
}

impl GroupState for i64 {
    type Form = CountForm;

    fn form(key: &[DataType]) -> Result<CountForm> {
        CountForm::new(key)
    }

    fn of_rows(rows: i64) -> i64 {
        rows
    }

    fn into_sums(self) -> Sums {
        Sums::of_rows(self)
    }
}

impl GroupState for Sums {
    type Form = SumsForm;

    fn form(key: &[DataType]) -> Result<SumsForm> {
        SumsForm::new(key)
    }

    fn of_rows(rows: i64) -> Sums {
        Sums::of_rows(rows)
    }

    fn into_sums(self) -> Sums {
        self
    }
}

/// Encodes the results of groups before and after each change.
struct Finisher {
    codec: RowCodec,
    errors: ErrorRows,
    /// Rows of a group that do not exist: the marker of a reduce without keys.
    base: i64,
    miscount: bool,
}

impl Finisher {
    fn new(aggregates: &[Aggregate], keyless: bool, context: &Context<'_, '_>) -> Result<Finisher> {
        let types: Vec<DataType> = aggregates.iter().map(|a| a.ty.clone()).collect();
        Ok(Finisher {
            codec: RowCodec::new(&types)?,
            errors: ErrorRows::new()?,
            base: i64::from(keyless),
            miscount: context.faults.count,
        })
    }

    fn finish<R: GroupState>(
        &self,
        add_up: &AddUp,
        changes: Vec<Change<R>>,
        outcomes: &mut Vec<Outcome>,
    ) -> Result<()> {
        let mut states = Vec::with_capacity(changes.len() * 2);
        let mut origins = Vec::with_capacity(changes.len() * 2);
        for change in changes {
            for (state, diff) in [(change.old, -1), (change.new, 1)] {
                let mut state = state.into_sums();
                if state.rows > 0 {
                    if self.miscount && state.rows == 3 {
                        state.rows += 1;
                    }
                    states.push(state);
                    origins.push((change.key.clone(), change.time, diff));
                }
            }
        }
        let references: Vec<&Sums> = states.iter().collect();
        let (columns, failures) = add_up.finish(&references, self.base)?;
        for failure in failures {
            let row = self.errors.encode(&failure.expression, &failure.message)?;
            let (_, time, diff) = &origins[failure.group];
            outcomes.push(Err(((row, vec![]), *time, *diff)));
        }
        let values = self.codec.encode(&columns, states.len())?;
        for ((key, time, diff), value) in origins.into_iter().zip(values.iter()) {
            outcomes.push(Ok(((key, value.to_vec()), time, diff)));
        }
        Ok(())
    }
}
