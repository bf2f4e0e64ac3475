//! Durable points: where a view's or table's state is handed over and given back.
//!
//! A point is an arrangement whose input comes from sources without another arrangement between
//! (or a table's rows). What changed in it is read from its sealed batches, in slices, and leaves
//! as Arrow batches: nothing of it depends on row bytes, hashes or the number of workers.
//!
//! ```text
//!   restore input ──┐
//!   live, past ─────┴──> [arrangement] ──> everything behind is computed again
//!                             │ sealed batches
//!                             └──> [tap] ──(Checkpoint at T)──> updates after the last one, ≤ T
//! ```
//!
//! Until its first checkpoint a tap holds only a handle to the trace, whose batches go on merging;
//! from then on it holds each batch until that is handed over.

mod forms;
mod taps;

use arrow::record_batch::RecordBatch;
use ruslo_repr::{Error, Result, Schema, Time};
use timely::container::CapacityContainerBuilder;
use timely::dataflow::operators::{Concat, Input};
use timely::dataflow::{InputHandle, Scope, Stream};

use crate::protocol::DurablePoint;
use crate::spine::{KeyStream, KeyTrace, RowStream, RowTrace, State, arrange_keys, arrange_rows};
use differential_dataflow::operators::arrange::Arranged;

pub(crate) use forms::{CountForm, ExtremesForm, KeyForm, RowForm, SumsForm};
pub(crate) use taps::{Extraction, Tap};

/// The durable points of one object, in the order in which they are rendered.
pub(crate) struct Points {
    /// False: nothing is durable, so there is nothing to do.
    pub(crate) wanted: bool,
    /// Set for an object that gets its state back.
    pub(crate) restored: Option<Restored>,
    pub(crate) taps: Vec<Tap>,
    pub(crate) inputs: Vec<RestoreInput>,
}

/// What an object was that gets its state back.
pub(crate) struct Restored {
    /// The time of the state.
    pub(crate) as_of: Time,
    pub(crate) points: Vec<DurablePoint>,
}

/// An input for the state of one point.
pub(crate) struct RestoreInput {
    pub(crate) point: u32,
    pub(crate) feed: Box<Feed>,
}

/// Takes a batch of stored state.
type Feed = dyn FnMut(&RecordBatch) -> Result<()>;

/// How updates of a stream become rows of a durable collection, and back.
pub(crate) trait Form {
    type Update: Clone + 'static;

    /// Columns and names of sums.
    fn shape(&self) -> (Schema, Vec<String>);

    /// The updates of a batch, all at one time.
    fn updates(&self, batch: &RecordBatch, time: Time) -> Result<Vec<Self::Update>>;
}

impl Points {
    pub(crate) fn none() -> Points {
        Points {
            wanted: false,
            restored: None,
            taps: vec![],
            inputs: vec![],
        }
    }

    pub(crate) fn is_restored(&self) -> bool {
        self.restored.is_some()
    }

    /// Fails if the state that is to be given back has other points than were rendered.
    pub(crate) fn check(&self) -> Result<()> {
        let rendered: Vec<&DurablePoint> = self.taps.iter().map(|tap| &tap.point).collect();
        match &self.restored {
            Some(restored) if restored.points.iter().collect::<Vec<_>>() != rendered => {
                let message = "the stored state does not fit the view's plan";
                Err(Error::new(ruslo_repr::ErrorKind::InvalidState, message))
            }
            _ => Ok(()),
        }
    }

    /// Arranges rows at a durable point.
    pub(crate) fn arrange_rows<'s>(
        &mut self,
        scope: Scope<'s, Time>,
        rows: RowStream<'s>,
        form: RowForm,
        name: &str,
    ) -> Arranged<'s, RowTrace> {
        let (rows, point, since) = self.begin(scope, rows, &form, name);
        let arranged = arrange_rows(rows, false, name);
        self.taps.push(Tap::of_rows(&arranged, form, point, since));
        arranged
    }

    /// Arranges counts by key at a durable point.
    pub(crate) fn arrange_keys<'s, R: State, F>(
        &mut self,
        scope: Scope<'s, Time>,
        keys: KeyStream<'s, R>,
        form: F,
        name: &str,
    ) -> Arranged<'s, KeyTrace<R>>
    where
        F: KeyForm<R>,
    {
        let (keys, point, since) = self.begin(scope, keys, &form, name);
        let arranged = arrange_keys(keys, false, name);
        self.taps.push(Tap::of_keys(&arranged, form, point, since));
        arranged
    }

    /// A point whose state is not what is arranged, but rows that come out behind it: those of
    /// `restored` go into the arrangement as `F` says, and the tap is put on by [`Self::tap`].
    pub(crate) fn begin<'s, F: Form + Clone + 'static>(
        &mut self,
        scope: Scope<'s, Time>,
        stream: Stream<'s, Time, Vec<F::Update>>,
        form: &F,
        name: &str,
    ) -> (Stream<'s, Time, Vec<F::Update>>, DurablePoint, Option<Time>) {
        let (rows, sums) = form.shape();
        let point = DurablePoint {
            index: self.taps.len() as u32,
            name: name.to_string(),
            rows,
            sums,
        };
        let Some(restored) = &self.restored else {
            return (stream, point, None);
        };
        let as_of = restored.as_of;
        type Builder<U> = CapacityContainerBuilder<Vec<U>>;
        let (mut handle, state): (InputHandle<Time, Builder<F::Update>>, _) =
            scope.new_input::<Vec<F::Update>>();
        handle.advance_to(as_of);
        let form = form.clone();
        self.inputs.push(RestoreInput {
            point: point.index,
            feed: Box::new(move |batch| {
                for update in form.updates(batch, as_of)? {
                    handle.send(update);
                }
                handle.flush();
                Ok(())
            }),
        });
        (stream.concat(state), point, Some(as_of))
    }

    /// Puts the tap of a point on a stream of rows.
    pub(crate) fn tap<'s>(
        &mut self,
        rows: RowStream<'s>,
        form: RowForm,
        point: DurablePoint,
        since: Option<Time>,
    ) -> RowStream<'s> {
        let (rows, tap) = Tap::of_stream(rows, form, point, since);
        self.taps.push(tap);
        rows
    }
}
