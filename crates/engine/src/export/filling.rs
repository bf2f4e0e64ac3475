//! The writing of a whole view, a portion at a time.
//!
//! At its creation, after a restart, and when the server outside was started anew, a sink writes
//! all of its view. A view may be larger than memory, so it is read in portions, each at a time
//! of its own, and the next one when the one before is all but written:
//!
//! ```text
//!   rows in arranged order
//!   ├───────────────────┼───────────┼──────────────────────────────┤
//!    written; changes    a portion,   changes are passed over:
//!    go on as they come  read at t    a later portion has them
//! ```
//!
//! Changes up to `t` are taken before the portion of `t` is added, so no row is missed and none
//! is older than what was written of it.
//!
//! What went away meanwhile is deleted at the end: until then a row further on may print its key.

use std::collections::HashSet;
use std::future::Future;
use std::pin::Pin;

use ruslo_dataflow::{Place, Portion};
use ruslo_repr::{ErrorKind, ObjectId, Result, RowBytes, Time};

use super::{BATCH_OPS_MAX, CHUNK_ROWS, Export};
use crate::coordinator::{Coordinator, PeekTarget, Peeked, ReadHold, Request, RowChanges};

type Reading = Pin<Box<dyn Future<Output = Result<(ReadHold, Peeked)>> + Send>>;

/// Where the writing of the whole view stands.
#[derive(Default)]
pub(super) struct Filling {
    step: Step,
    /// The last row that was read, where there is one.
    after: Option<Place>,
    after_row: RowBytes,
    /// Keys that may be outside and of which no row has been seen since.
    suspects: HashSet<Vec<u8>>,
    suspects_bytes: usize,
}

#[derive(Default)]
enum Step {
    /// All of the view was read: its changes are enough.
    #[default]
    Done,
    /// The next portion is read when little is left to be written.
    Between,
    /// The view could not be read; tried again after a while.
    Paused,
    /// No change is taken meanwhile, so that the time that is read is not behind what was taken.
    Reading(Reading),
    /// Changes are taken up to the time of these rows.
    Read(ReadHold, Peeked),
}

impl Filling {
    pub(super) fn is_done(&self) -> bool {
        matches!(self.step, Step::Done)
    }

    /// Begins with the first row; one that is under way is given up for it.
    pub(super) fn start(&mut self) {
        self.step = Step::Between;
        self.after = None;
    }

    /// Whether a row is still to be read.
    pub(super) fn is_ahead(&self, row: &[u8]) -> bool {
        !self.is_done() && (self.after.is_none() || row > self.after_row.as_slice())
    }

    /// The key may be outside and is to go, unless a row of it comes.
    pub(super) fn suspect(&mut self, key: Vec<u8>) {
        let bytes = key.len();
        if self.suspects.insert(key) {
            self.suspects_bytes += bytes;
        }
    }

    /// A row of the key was seen.
    pub(super) fn acquit(&mut self, key: &[u8]) {
        if self.suspects.remove(key) {
            self.suspects_bytes -= key.len();
        }
    }

    pub(super) fn suspects(&self) -> &HashSet<Vec<u8>> {
        &self.suspects
    }

    pub(super) fn bytes(&self) -> usize {
        let portion = match &self.step {
            Step::Read(_, portion) => portion.rows.bytes(),
            _ => 0,
        };
        portion + self.suspects_bytes
    }

    /// Goes on where the view could not be read before.
    pub(super) fn try_again(&mut self) {
        if matches!(self.step, Step::Paused) {
            self.step = Step::Between;
        }
    }

    /// Resolves when a portion has been read; never where none is being read.
    pub(super) async fn read(&mut self) -> Result<(ReadHold, Peeked)> {
        match &mut self.step {
            Step::Reading(reading) => reading.await,
            _ => std::future::pending().await,
        }
    }
}

impl Export {
    /// Takes what everybody may see, and a portion of the view once that has been read.
    pub(super) fn advance(&mut self, visible: Time) -> Result<()> {
        match &self.filling.step {
            Step::Done => self.take(visible)?,
            Step::Between | Step::Paused => {
                self.take(visible)?;
                self.read_next();
            }
            Step::Reading(_) => {}
            Step::Read(hold, _) => {
                let time = hold.time;
                self.take(visible.min(time))?;
                if self.taken < time {
                    return Ok(());
                }
                // Should its rows fail to be encoded, they are read again.
                let read = std::mem::replace(&mut self.filling.step, Step::Paused);
                if let Step::Read(_, portion) = read {
                    self.add(portion)?;
                }
                self.take(visible)?;
                self.read_next();
            }
        }
        Ok(())
    }

    /// Begins to read the next portion if little is left to be written of the one before.
    fn read_next(&mut self) {
        let uppers = self.uppers.iter().copied().min().unwrap_or(0);
        let room = self.dirty.len() < BATCH_OPS_MAX && self.dirty.bytes() < self.portion_bytes;
        // Before every worker has said something it is not known which changes will be told.
        if !matches!(self.filling.step, Step::Between) || uppers == 0 || !room {
            return;
        }
        let last = self.recovered.as_ref().map_or(0, |r| r.last);
        let times = [self.taken, self.readable_from, last, uppers - 1];
        let at_least = times.into_iter().max().unwrap_or(0);
        let portion = Portion {
            after: self.filling.after.clone(),
            bytes: self.portion_bytes,
        };
        let reading = read(self.coordinator.clone(), self.from, at_least, portion);
        self.filling.step = Step::Reading(Box::pin(reading));
    }

    /// Notes what was read of the view.
    pub(super) fn note_read(&mut self, read: Result<(ReadHold, Peeked)>) {
        self.filling.step = match read {
            Ok((hold, portion)) => Step::Read(hold, portion),
            Err(error) => {
                if error.kind != ErrorKind::ShuttingDown {
                    tracing::error!(sink = self.sink.name, %error, "cannot read the view");
                    self.sink.status.lock().error = Some(error.to_string());
                }
                Step::Paused
            }
        };
    }

    /// Adds a portion's rows to what is to be written. All changes up to their time were taken.
    fn add(&mut self, portion: Peeked) -> Result<()> {
        let Peeked { rows, left_off } = portion;
        let end = left_off
            .as_ref()
            .map(|place| [&place.key[..], &place.value].concat());
        let is_in = |row: &[u8]| end.as_ref().is_none_or(|end| row <= end.as_slice());
        let rows = rows.iter().filter(|(row, _)| is_in(row));
        let mut rows: RowChanges = rows.map(|(row, diff)| (row.to_vec(), diff)).collect();
        // Where rows share a key the greatest comes last.
        rows.sort_unstable();
        match self.deletes {
            true => self.upsert(vec![], rows)?,
            false => self.set(&rows)?,
        }
        match end {
            Some(end) => {
                self.filling.step = Step::Between;
                self.filling.after = left_off;
                self.filling.after_row = end;
            }
            None => self.end_filling()?,
        }
        Ok(())
    }

    /// Deletes the keys that nothing has come of.
    fn end_filling(&mut self) -> Result<()> {
        let filling = std::mem::take(&mut self.filling);
        for key in filling.suspects {
            if !self.shared.contains(&key)? {
                self.dirty.insert(key, None);
            }
        }
        Ok(())
    }

    /// Begins to write the whole view again.
    pub(super) fn start_again(&mut self) {
        tracing::warn!(
            sink = self.sink.name,
            "the server was started anew and may have lost its data: writing all of the view again"
        );
        self.sink.status.lock().resends += 1;
        self.shared = Default::default();
        for key in self.dirty.take_deletes() {
            self.filling.suspect(key);
        }
        self.filling.start();
    }

    /// Keys of rows that went away.
    pub(super) fn suspect_keys_of(&mut self, rows: &RowChanges) -> Result<()> {
        for chunk in rows.chunks(CHUNK_ROWS) {
            let batch = self.decode(chunk)?;
            for row in 0..chunk.len() {
                let key = self.encoding.key(&batch, row);
                self.filling.suspect(key);
            }
        }
        Ok(())
    }
}

async fn read(
    coordinator: Coordinator,
    id: ObjectId,
    at_least: Time,
    portion: Portion,
) -> Result<(ReadHold, Peeked)> {
    let read = |reply| Request::Read { at_least, reply };
    let hold = coordinator.ask(read).await?;
    let target = PeekTarget {
        id,
        errors: false,
        keys: None,
        limit: None,
        portion: Some(portion),
    };
    let peeked = coordinator.peek_portion(target, &hold).await?;
    Ok((hold, peeked))
}
