//! Taps: what changed at a durable point since it was last asked for.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use arrow::record_batch::RecordBatch;
use differential_dataflow::consolidation::{consolidate, consolidate_updates};
use differential_dataflow::operators::arrange::Arranged;
use differential_dataflow::trace::{Cursor, Navigable, Span, TraceReader};
use ruslo_repr::{Result, Time};
use timely::container::CapacityContainerBuilder;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::Operator;
use timely::progress::frontier::AntichainRef;

use super::forms::RowChange;
use super::{KeyForm, RowForm};
use crate::protocol::DurablePoint;
use crate::spine::{KeyBatch, KeyTrace, RowBatch, RowStream, RowTrace, RowUpdate, State};

/// Updates looked at before a worker turns to other work, those that leave together, and the bytes
/// of their keys and values.
const SLICE_UPDATES: usize = 20_000;
const SLICE_BYTES: usize = 4 << 20;

/// What collects at one point.
pub(crate) struct Tap {
    pub(crate) point: DurablePoint,
    collect: Box<dyn Collect>,
    /// Whether it was never asked: then it answers even if it has nothing.
    first: bool,
}

/// What hands over the changes of one tap, in slices.
pub(crate) struct Extraction {
    pub(crate) point: DurablePoint,
    slices: Box<dyn Slices>,
    /// Whether something must come although there is nothing.
    owed: bool,
}

trait Collect {
    /// Takes the updates up to `time` that were not taken before.
    fn take(&mut self, time: Time) -> Box<dyn Slices>;
}

trait Slices {
    /// The next updates, maybe none; None when all is said.
    fn next(&mut self) -> Result<Option<RecordBatch>>;
    /// No updates.
    fn nothing(&self) -> Result<RecordBatch>;
}

impl Extraction {
    /// Does a slice of work; None when all is done.
    pub(crate) fn step(&mut self) -> Result<Option<RecordBatch>> {
        let batch = match self.slices.next()? {
            Some(batch) => batch,
            None if self.owed => self.slices.nothing()?,
            None => return Ok(None),
        };
        self.owed = false;
        Ok(Some(batch))
    }
}

impl Tap {
    fn new(point: DurablePoint, collect: impl Collect + 'static) -> Tap {
        Tap {
            point,
            collect: Box::new(collect),
            first: true,
        }
    }

    /// Begins to hand over what changed up to `time`.
    pub(crate) fn extract(&mut self, time: Time) -> Extraction {
        Extraction {
            point: self.point.clone(),
            slices: self.collect.take(time),
            owed: std::mem::take(&mut self.first),
        }
    }

    /// A tap on an arrangement of rows. `since` is the time of the state it was given back.
    pub(super) fn of_rows(
        arranged: &Arranged<'_, RowTrace>,
        form: RowForm,
        point: DurablePoint,
        since: Option<Time>,
    ) -> Tap {
        let held = Rc::new(RefCell::new(Held::new(&arranged.trace, since)));
        hold(arranged, held.clone());
        Tap::new(point, RowTap { form, held })
    }

    /// A tap on an arrangement of states.
    pub(super) fn of_keys<R: State, F: KeyForm<R>>(
        arranged: &Arranged<'_, KeyTrace<R>>,
        form: F,
        point: DurablePoint,
        since: Option<Time>,
    ) -> Tap {
        let held = Rc::new(RefCell::new(Held::new(&arranged.trace, since)));
        hold(arranged, held.clone());
        Tap::new(point, KeyTap { form, held })
    }

    /// A tap on a stream of rows.
    pub(super) fn of_stream<'s>(
        rows: RowStream<'s>,
        form: RowForm,
        point: DurablePoint,
        since: Option<Time>,
    ) -> (RowStream<'s>, Tap) {
        let seen: Rc<RefCell<Vec<RowUpdate>>> = Rc::default();
        let tap = StreamTap {
            form,
            seen: seen.clone(),
        };
        type Rows = CapacityContainerBuilder<Vec<RowUpdate>>;
        let rows = rows.unary::<Rows, _, _, _>(Pipeline, "Tap", move |_, _| {
            let mut worth_adding_up = SLICE_UPDATES;
            move |input, output| {
                input.for_each(|capability, rows| {
                    let mut seen = seen.borrow_mut();
                    let new = rows.iter().filter(|(_, time, _)| Some(*time) > since);
                    seen.extend(new.cloned());
                    if seen.len() >= worth_adding_up {
                        consolidate_updates(&mut seen);
                        worth_adding_up = (seen.len() * 2).max(SLICE_UPDATES);
                    }
                    output.session(&capability).give_container(rows);
                });
            }
        });
        (rows, Tap::new(point, tap))
    }
}

/// Sealed batches of one arrangement that were not handed over, or all that it has.
struct Held<T: TraceReader> {
    /// Until the first checkpoint: everything, merging as it goes.
    trace: Option<T>,
    batches: Vec<(Time, T::Batch)>,
    /// Batches that end here were in the trace.
    seen: Time,
    /// Up to this time all was handed over.
    done: Option<Time>,
}

impl<T> Held<T>
where
    T: TraceReader<Time = Time> + Clone,
    T::Batch: Clone,
{
    fn new(trace: &T, since: Option<Time>) -> Held<T> {
        let mut own = trace.clone();
        // Times stay apart, but batches may be merged.
        own.set_physical_compaction(AntichainRef::new(&[]));
        Held {
            trace: since.is_none().then_some(own),
            batches: vec![],
            seen: 0,
            done: since,
        }
    }

    fn add(&mut self, upper: Time, batch: T::Batch) {
        if self.trace.is_none() && upper > self.seen {
            self.batches.push((upper, batch));
        }
    }

    /// The batches with updates up to `time`, and the time up to which all was taken before.
    fn take(&mut self, time: Time) -> (VecDeque<T::Batch>, Option<Time>) {
        if let Some(trace) = self.trace.take() {
            trace.map_spans(|span| {
                let upper = upper_of(&span.desc);
                self.seen = self.seen.max(upper);
                if let Some(batch) = &span.inner {
                    self.batches.push((upper, batch.clone()));
                }
            });
        }
        let taken = self
            .batches
            .iter()
            .map(|(_, batch)| batch.clone())
            .collect();
        self.batches
            .retain(|(upper, _)| *upper > time.saturating_add(1));
        (taken, self.done.replace(time))
    }
}

fn upper_of(desc: &differential_dataflow::trace::Description<Time>) -> Time {
    desc.upper().first().copied().unwrap_or(Time::MAX)
}

/// Hands every batch of an arrangement to `held`.
fn hold<T>(arranged: &Arranged<'_, T>, held: Rc<RefCell<Held<T>>>)
where
    T: TraceReader<Time = Time> + Clone + 'static,
    T::Batch: Clone,
{
    type Nothing = CapacityContainerBuilder<Vec<()>>;
    let stream = arranged.stream.clone();
    stream.unary::<Nothing, _, _, _>(Pipeline, "Tap", move |_, _| {
        move |input, _output| {
            input.for_each(|_capability, spans| {
                for Span { desc, inner } in spans.drain(..) {
                    if let Some(batch) = inner {
                        held.borrow_mut().add(upper_of(&desc), batch);
                    }
                }
            });
        }
    });
}

struct RowTap {
    form: RowForm,
    held: Rc<RefCell<Held<RowTrace>>>,
}

impl Collect for RowTap {
    fn take(&mut self, time: Time) -> Box<dyn Slices> {
        let (batches, done) = self.held.borrow_mut().take(time);
        Box::new(RowSlices {
            form: self.form.clone(),
            batches,
            at: None,
            after: done,
            until: time,
        })
    }
}

struct RowSlices {
    form: RowForm,
    batches: VecDeque<RowBatch>,
    at: Option<<RowBatch as Navigable>::Cursor>,
    after: Option<Time>,
    until: Time,
}

impl Slices for RowSlices {
    fn next(&mut self) -> Result<Option<RecordBatch>> {
        let mut rows: Vec<RowChange> = vec![];
        let (mut looked_at, mut bytes) = (0, 0);
        while let Some(batch) = self.batches.front() {
            let cursor = self.at.get_or_insert_with(|| batch.cursor());
            while cursor.key_valid(batch) && looked_at < SLICE_UPDATES && bytes < SLICE_BYTES {
                while let Some(value) = cursor.get_val(batch) {
                    let mut sum = 0;
                    let (after, until) = (self.after, self.until);
                    cursor.map_times(batch, |time, diff| {
                        if Some(*time) > after && *time <= until {
                            sum += diff;
                        }
                    });
                    looked_at += 1;
                    let key = cursor.key(batch);
                    // The marker of a reduce without keys is put in again by itself.
                    let marker = self.form.is_marker(key, value);
                    if sum != 0 && !marker {
                        bytes += key.len() + value.len();
                        rows.push(((key.to_vec(), value.to_vec()), sum));
                    }
                    cursor.step_val(batch);
                }
                cursor.step_key(batch);
            }
            if cursor.key_valid(batch) {
                break;
            }
            self.at = None;
            self.batches.pop_front();
        }
        // What changed at many times leaves once.
        consolidate(&mut rows);
        match rows.is_empty() && self.batches.is_empty() {
            true => Ok(None),
            false => self.form.batch(&rows).map(Some),
        }
    }

    fn nothing(&self) -> Result<RecordBatch> {
        self.form.batch(&[])
    }
}

struct KeyTap<R: State, F> {
    form: F,
    held: Rc<RefCell<Held<KeyTrace<R>>>>,
}

impl<R: State, F: KeyForm<R>> Collect for KeyTap<R, F> {
    fn take(&mut self, time: Time) -> Box<dyn Slices> {
        let (batches, done) = self.held.borrow_mut().take(time);
        Box::new(KeySlices {
            form: self.form.clone(),
            batches,
            at: None,
            after: done,
            until: time,
        })
    }
}

struct KeySlices<R: State, F> {
    form: F,
    batches: VecDeque<KeyBatch<R>>,
    at: Option<<KeyBatch<R> as Navigable>::Cursor>,
    after: Option<Time>,
    until: Time,
}

impl<R: State, F: KeyForm<R>> Slices for KeySlices<R, F> {
    fn next(&mut self) -> Result<Option<RecordBatch>> {
        let mut states: Vec<(Vec<u8>, R)> = vec![];
        let mut looked_at = 0;
        while let Some(batch) = self.batches.front() {
            let cursor = self.at.get_or_insert_with(|| batch.cursor());
            while cursor.key_valid(batch) && looked_at < SLICE_UPDATES {
                let mut sum = R::default();
                let (after, until) = (self.after, self.until);
                cursor.map_times(batch, |time, state| {
                    if Some(*time) > after && *time <= until {
                        sum.plus_equals(state);
                    }
                });
                looked_at += 1;
                if !sum.is_zero() {
                    states.push((cursor.key(batch).to_vec(), sum));
                }
                cursor.step_key(batch);
            }
            if cursor.key_valid(batch) {
                break;
            }
            self.at = None;
            self.batches.pop_front();
        }
        consolidate(&mut states);
        match states.is_empty() && self.batches.is_empty() {
            true => Ok(None),
            false => self.form.batch(&states).map(Some),
        }
    }

    fn nothing(&self) -> Result<RecordBatch> {
        self.form.batch(&[])
    }
}

/// Collects the rows of a stream, added up from time to time.
struct StreamTap {
    form: RowForm,
    seen: Rc<RefCell<Vec<RowUpdate>>>,
}

impl Collect for StreamTap {
    fn take(&mut self, time: Time) -> Box<dyn Slices> {
        let mut seen = self.seen.borrow_mut();
        let (taken, later) = seen.drain(..).partition(|(_, at, _)| *at <= time);
        *seen = later;
        let taken: Vec<RowUpdate> = taken;
        let mut rows: Vec<RowChange> = taken
            .into_iter()
            .map(|(row, _, diff)| (row, diff))
            .collect();
        consolidate(&mut rows);
        Box::new(StreamSlices {
            form: self.form.clone(),
            rows,
        })
    }
}

struct StreamSlices {
    form: RowForm,
    rows: Vec<RowChange>,
}

impl Slices for StreamSlices {
    fn next(&mut self) -> Result<Option<RecordBatch>> {
        let mut bytes = 0;
        let fits = |((key, value), _): &&RowChange| {
            bytes += key.len() + value.len();
            bytes < SLICE_BYTES
        };
        let last = self.rows.iter().rev().take(SLICE_UPDATES);
        // One leaves in any case.
        let count = last.take_while(fits).count().max(1);
        let rest = self.rows.len().saturating_sub(count);
        let rows = self.rows.split_off(rest);
        match rows.is_empty() {
            true => Ok(None),
            false => self.form.batch(&rows).map(Some),
        }
    }

    fn nothing(&self) -> Result<RecordBatch> {
        self.form.batch(&[])
    }
}
