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
use crate::aggregate::{AddUp, Members, Sums};
use crate::block::{Block, BlockStream, Stamps};
use crate::spine::{ByteMap, KeyStream, KeyUpdate, State};

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
                    .extend(encoded.iter().map(|key| groups.of(key)));
            }
        }
        let members = Members {
            groups: &self.members,
            stamps: &block.stamps,
        };
        self.absorb.absorb(block, &members, &mut groups.states)
    }

    /// Takes all changes out.
    fn drain(&mut self) -> Result<Vec<KeyUpdate<R>>> {
        let mut updates = vec![];
        while let Some((time, mut groups)) = self.times.pop_first() {
            if self.by_text {
                self.drain_texts(time, &mut groups, &mut updates)?;
            } else {
                for (key, group) in groups.index.drain() {
                    let state = std::mem::take(&mut groups.states[group as usize]);
                    updates.push(((key.into_vec(), ()), time, state));
                }
            }
            groups.clear();
            self.spare = Some(groups);
        }
        updates.retain(|(_, _, state)| !state.is_zero());
        Ok(updates)
    }

    fn drain_texts(
        &self,
        time: Time,
        groups: &mut Groups<R>,
        updates: &mut Vec<KeyUpdate<R>>,
    ) -> Result<()> {
        let mut texts: Vec<Option<String>> = vec![None; groups.states.len()];
        for (text, group) in groups.index.drain() {
            // The bytes come from a text array, so this never replaces anything.
            texts[group as usize] = Some(String::from_utf8_lossy(&text).into_owned());
        }
        let column: ArrayRef = Arc::new(StringArray::from(texts));
        let encoded = self.codec.encode(&[column], groups.states.len())?;
        for (key, state) in encoded.iter().zip(groups.states.drain(..)) {
            updates.push(((key.to_vec(), ()), time, state));
        }
        Ok(())
    }
}

/// The groups of one time and their states.
struct Groups<R> {
    index: ByteMap<u32>,
    /// The group of the text NULL.
    null: Option<u32>,
    states: Vec<R>,
}

impl<R> Default for Groups<R> {
    fn default() -> Self {
        Groups {
            index: ByteMap::default(),
            null: None,
            states: vec![],
        }
    }
}

impl<R: Default> Groups<R> {
    #[inline]
    fn of(&mut self, key: &[u8]) -> u32 {
        if let Some(&group) = self.index.get(key) {
            return group;
        }
        let group = self.new_group();
        self.index.insert(key.into(), group);
        group
    }

    fn new_group(&mut self) -> u32 {
        self.states.push(R::default());
        self.states.len() as u32 - 1
    }

    fn of_texts(&mut self, texts: &StringArray, members: &mut Vec<u32>) {
        let bytes = texts.value_data();
        let nulls = texts.nulls().filter(|nulls| nulls.null_count() > 0);
        for (row, bounds) in texts.value_offsets().windows(2).enumerate() {
            let group = match nulls {
                Some(nulls) if nulls.is_null(row) => self.of_null(),
                _ => self.of(&bytes[bounds[0] as usize..bounds[1] as usize]),
            };
            members.push(group);
        }
    }

    fn of_null(&mut self) -> u32 {
        if let Some(group) = self.null {
            return group;
        }
        let group = self.new_group();
        self.null = Some(group);
        group
    }

    fn clear(&mut self) {
        self.index.clear();
        self.null = None;
        self.states.clear();
    }
}
