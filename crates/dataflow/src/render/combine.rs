//! Folds blocks into one change per group, before anything is sorted or sent.
//!
//! Eight thousand events on five keys leave here as five updates. Groups are kept over all blocks
//! of one activation and handed on at its end (or when there are many), so the state is empty
//! between activations. A single text column is grouped by its own bytes, and only the distinct
//! ones are encoded; other keys are encoded first and grouped by their encoding.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringArray};
use arrow::datatypes::DataType;
use ruslo_repr::{Result, RowCodec, Time};
use timely::container::CapacityContainerBuilder;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::Operator;

use super::Context;
use super::interner::Interner;
use crate::aggregate::{AddUp, Members, Sums};
use crate::block::{Block, BlockStream, Stamps};
use crate::spine::{KeyStream, KeyUpdate, State};

/// Groups that are kept before they are handed on in the middle of an activation.
const GROUPS_MAX: usize = 64 * 1024;

/// How rows change the state of their groups.
pub(crate) trait Absorb<R> {
    fn absorb(&self, block: &Block, members: &Members, states: &mut [R]) -> Result<()>;
}

/// Counts the rows of each group.
pub(crate) struct CountRows;

impl Absorb<i64> for CountRows {
    fn absorb(&self, _: &Block, members: &Members, states: &mut [i64]) -> Result<()> {
        members.for_each(|_, group, diff| states[group] += diff);
        Ok(())
    }
}

impl Absorb<Sums> for AddUp {
    fn absorb(&self, block: &Block, members: &Members, states: &mut [Sums]) -> Result<()> {
        AddUp::absorb(self, block, members, states)
    }
}

/// Renders the change of each group's state; groups are told apart by the columns `key`.
pub(crate) fn combine<'s, R: State>(
    blocks: BlockStream<'s>,
    types: &[DataType],
    key: &[usize],
    absorb: impl Absorb<R> + 'static,
    context: &Context<'_, 's>,
) -> Result<KeyStream<'s, R>> {
    let mut combiner = Combiner::new(types, key, absorb)?;
    let report = context.report.clone();
    type Output<R> = CapacityContainerBuilder<Vec<KeyUpdate<R>>>;
    let stream = blocks.unary::<Output<R>, _, _, _>(Pipeline, "Combine", move |_, _| {
        move |input, output| {
            // Times are totally ordered: the least capability covers everything that is held.
            let mut least: Option<Capability<Time>> = None;
            input.for_each(|capability, blocks| {
                if let Some(held) = capability.retain_least(0)
                    && least
                        .as_ref()
                        .is_none_or(|least| held.time() < least.time())
                {
                    least = Some(held);
                }
                for block in blocks.drain(..) {
                    report.unless_ok(combiner.absorb(&block));
                }
                if combiner.groups() >= GROUPS_MAX
                    && let Some(least) = &least
                {
                    let updates = report.unless_ok(combiner.drain()).unwrap_or_default();
                    output.session(least).give_iterator(updates.into_iter());
                }
            });
            if let Some(least) = &least {
                let updates = report.unless_ok(combiner.drain()).unwrap_or_default();
                output.session(least).give_iterator(updates.into_iter());
            }
        }
    });
    Ok(stream)
}

struct Combiner<R, A> {
    absorb: A,
    key: Vec<usize>,
    codec: RowCodec,
    /// Whether groups are told apart by the text itself.
    by_text: bool,
    times: BTreeMap<Time, Groups<R>>,
    /// Emptied groups, kept for their memory.
    spare: Option<Groups<R>>,
    members: Vec<u32>,
}

impl<R: State, A: Absorb<R>> Combiner<R, A> {
    fn new(types: &[DataType], key: &[usize], absorb: A) -> Result<Self> {
        let key_types: Vec<DataType> = key.iter().map(|&column| types[column].clone()).collect();
        Ok(Combiner {
            absorb,
            key: key.to_vec(),
            codec: RowCodec::new(&key_types)?,
            by_text: key_types == [DataType::Utf8],
            times: BTreeMap::new(),
            spare: None,
            members: vec![],
        })
    }

    fn groups(&self) -> usize {
        self.times.values().map(|groups| groups.states.len()).sum()
    }

    fn absorb(&mut self, block: &Block) -> Result<()> {
        match &block.stamps {
            Stamps::Same(time, _) => self.absorb_at(*time, block),
            Stamps::Each(stamps) => {
                let mut rows: Vec<u32> = (0..block.len as u32).collect();
                rows.sort_by_key(|&row| stamps[row as usize].0);
                let runs = rows.chunk_by(|a, b| stamps[*a as usize].0 == stamps[*b as usize].0);
                for run in runs {
                    let time = stamps[run[0] as usize].0;
                    match run.len() < block.len {
                        true => self.absorb_at(time, &block.take(run.to_vec())?)?,
                        false => self.absorb_at(time, block)?,
                    }
                }
                Ok(())
            }
        }
    }

    fn absorb_at(&mut self, time: Time, block: &Block) -> Result<()> {
        let spare = &mut self.spare;
        let groups = self.times.entry(time);
        let groups = groups.or_insert_with(|| spare.take().unwrap_or_default());
        let columns: Vec<ArrayRef> = self.key.iter().map(|&c| block.columns[c].clone()).collect();
        self.members.clear();
        match self.by_text {
            true => groups.of_texts(columns[0].as_string(), &mut self.members),
            false => {
                let encoded = self.codec.encode(&columns, block.len)?;
                self.members
                    .extend(encoded.iter().map(|key| groups.keys.intern(key)));
            }
        }
        groups.states.resize_with(groups.keys.len(), R::default);
        let members = Members {
            groups: &self.members,
            stamps: &block.stamps,
        };
        self.absorb.absorb(block, &members, &mut groups.states)
    }

    /// Takes all changes out.
    fn drain(&mut self) -> Result<Vec<KeyUpdate<R>>> {
        let mut updates = Vec::with_capacity(self.groups());
        while let Some((time, mut groups)) = self.times.pop_first() {
            let states = std::mem::take(&mut groups.states).into_iter().enumerate();
            let states = states.filter(|(_, state)| !state.is_zero());
            if self.by_text {
                let encoded = self.codec.encode(&[groups.texts()], groups.keys.len())?;
                let row = |(i, state)| ((encoded.row(i).to_vec(), ()), time, state);
                updates.extend(states.map(row));
            } else {
                let row = |(i, state)| ((groups.keys.get(i).to_vec(), ()), time, state);
                updates.extend(states.map(row));
            }
            groups.keys.clear();
            groups.null = None;
            self.spare = Some(groups);
        }
        Ok(updates)
    }
}

/// The groups of one time and their states.
struct Groups<R> {
    /// Encoded keys, or the texts that they are of.
    keys: Interner,
    /// The group of the text NULL.
    null: Option<u32>,
    states: Vec<R>,
}

impl<R> Default for Groups<R> {
    fn default() -> Self {
        Groups {
            keys: Interner::default(),
            null: None,
            states: vec![],
        }
    }
}

impl<R> Groups<R> {
    /// The group of each text, appended to `members`.
    fn of_texts(&mut self, texts: &StringArray, members: &mut Vec<u32>) {
        let bytes = texts.value_data();
        let nulls = texts.nulls().filter(|nulls| nulls.null_count() > 0);
        for (row, bounds) in texts.value_offsets().windows(2).enumerate() {
            let group = match nulls {
                Some(nulls) if nulls.is_null(row) => {
                    *self.null.get_or_insert_with(|| self.keys.reserve())
                }
                _ => self
                    .keys
                    .intern(&bytes[bounds[0] as usize..bounds[1] as usize]),
            };
            members.push(group);
        }
    }

    /// The texts of all groups.
    fn texts(&self) -> ArrayRef {
        let texts = (0..self.keys.len()).map(|group| {
            let is_null = self.null == Some(group as u32);
            // Texts came from a text array, so they are never invalid.
            (!is_null).then(|| String::from_utf8_lossy(self.keys.get(group)))
        });
        Arc::new(texts.collect::<StringArray>())
    }
}
