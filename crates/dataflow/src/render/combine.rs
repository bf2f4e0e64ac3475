//! Folds blocks into one change per group, before anything is sorted or sent.
//!
//! Eight thousand events on five keys leave here as five updates. The groups of the time that is
//! still open are kept until it closes (or there are many), so a view over a topic's past sorts and
//! sends each group about once, however many events it had; those of later times are handed on at
//! the end of an activation. A single text column is grouped by its own bytes, and only the
//! distinct ones are encoded; other keys are encoded first and grouped by their encoding.

use std::collections::BTreeMap;
use std::ops::Range;
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

/// Bytes of groups that are kept before they are handed on although their time is open, and when
/// memory is short.
const HELD_BYTES_MAX: usize = 64 * 1024 * 1024;
const HELD_BYTES_SHORT: usize = 2 * 1024 * 1024;
/// Bytes of emptied groups that are kept for the next time.
const SPARE_BYTES_MAX: usize = 1024 * 1024;
/// Groups that are encoded at once.
const ENCODED_GROUPS: usize = 8192;

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
    let stream = blocks.unary_frontier::<Output<R>, _, _, _>(Pipeline, "Combine", move |_, _| {
        // Times are totally ordered: the least capability covers everything that is held.
        let mut held: Option<Capability<Time>> = None;
        move |(input, frontier), output| {
            input.for_each(|capability, blocks| {
                if let Some(capability) = capability.retain_least(0)
                    && held
                        .as_ref()
                        .is_none_or(|held| capability.time() < held.time())
                {
                    held = Some(capability);
                }
                for block in blocks.drain(..) {
                    report.unless_ok(combiner.absorb(&block));
                }
                let held_max = match ruslo_memory::is_spilling() {
                    true => HELD_BYTES_SHORT,
                    false => HELD_BYTES_MAX,
                };
                if combiner.bytes() >= held_max
                    && let Some(held) = &held
                {
                    let mut session = output.session(held);
                    report.unless_ok(combiner.drain(None, |update| session.give(update)));
                }
            });
            let open = frontier.frontier().first().copied();
            if let Some(capability) = &mut held {
                let mut session = output.session(capability);
                report.unless_ok(combiner.drain(open, |update| session.give(update)));
                drop(session);
                match open.filter(|_| !combiner.times.is_empty()) {
                    Some(open) => capability.downgrade(&open),
                    None => held = None,
                }
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

    /// Bytes of all groups, roughly.
    fn bytes(&self) -> usize {
        let groups = self.times.values();
        groups
            .map(|groups| groups.keys.heap_bytes() + groups.states.len() * size_of::<R>())
            .sum()
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

    /// Takes the changes out, but for those of the time `open`.
    fn drain(&mut self, open: Option<Time>, mut give: impl FnMut(KeyUpdate<R>)) -> Result<()> {
        let closed = |time: &Time| open != Some(*time);
        while let Some(time) = self.times.keys().copied().find(closed) {
            let Some(mut groups) = self.times.remove(&time) else {
                break;
            };
            let mut states = std::mem::take(&mut groups.states).into_iter();
            if self.by_text {
                for first in (0..groups.keys.len()).step_by(ENCODED_GROUPS) {
                    let some = first..groups.keys.len().min(first + ENCODED_GROUPS);
                    let len = some.len();
                    let encoded = self.codec.encode(&[groups.texts(some)], len)?;
                    for (key, state) in encoded.iter().zip(states.by_ref().take(len)) {
                        if !state.is_zero() {
                            give(((key.to_vec(), ()), time, state));
                        }
                    }
                }
            } else {
                for (group, state) in states.enumerate() {
                    if !state.is_zero() {
                        give(((groups.keys.get(group).to_vec(), ()), time, state));
                    }
                }
            }
            if groups.keys.heap_bytes() <= SPARE_BYTES_MAX {
                groups.keys.clear();
                groups.null = None;
                self.spare = Some(groups);
            }
        }
        Ok(())
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

    /// The texts of some groups.
    fn texts(&self, groups: Range<usize>) -> ArrayRef {
        let texts = groups.map(|group| {
            let is_null = self.null == Some(group as u32);
            // Texts came from a text array, so they are never invalid.
            (!is_null).then(|| String::from_utf8_lossy(self.keys.get(group)))
        });
        Arc::new(texts.collect::<StringArray>())
    }
}
