//! When a checkpoint is taken, and what it takes in.

use std::time::{Duration, Instant};

use ruslo_dataflow::Command;
use ruslo_repr::{Diff, ObjectId, Time};
use tokio::sync::{mpsc, oneshot, watch};

use super::{RowChanges, State};
use crate::durable::{Bound, CheckpointEvent, Cut, Part};

/// Bytes of rows in the log from which a checkpoint is due at once, and from which writes wait for
/// it: what is in the log alone takes up disk, and time at a restart.
const LOG_BYTES_DUE: usize = 16 << 20;
const LOG_BYTES_MAX: usize = 32 << 20;

/// Where checkpoints stand.
pub(super) struct CheckpointState {
    pub(super) parts: Option<mpsc::UnboundedSender<Part>>,
    pub(super) interval: Duration,
    /// The time of the last one, and when it was begun.
    pub(super) done: Time,
    pub(super) begun_at: Instant,
    /// The one under way, and the workers that have not handed over all they have.
    pub(super) under_way: Option<(Time, usize)>,
    /// Those who wait for what is visible at that time.
    pub(super) waiting: Vec<(Time, oneshot::Sender<()>)>,
    /// Bytes of rows in the log since the last one was begun, and before it.
    pub(super) logged: usize,
    pub(super) logged_before: usize,
    /// Whether so many are in no checkpoint that writes should wait.
    pub(super) log_full: watch::Sender<bool>,
}

impl CheckpointState {
    pub(super) fn new(log_full: watch::Sender<bool>) -> CheckpointState {
        CheckpointState {
            parts: None,
            interval: Duration::MAX,
            done: 0,
            begun_at: Instant::now(),
            under_way: None,
            waiting: vec![],
            logged: 0,
            logged_before: 0,
            log_full,
        }
    }

    /// Counts rows that go into the log.
    pub(super) fn log(&mut self, rows: &RowChanges) {
        let bytes = rows.iter().map(|(row, _)| row.len() + size_of::<Diff>());
        self.logged += bytes.sum::<usize>();
        self.tell_log_full();
    }

    fn tell_log_full(&self) {
        // Without checkpoints, nobody would ever be done waiting.
        let logged = self.logged + self.logged_before;
        let full = self.parts.is_some() && logged >= LOG_BYTES_MAX;
        self.log_full
            .send_if_modified(|was| std::mem::replace(was, full) != full);
    }
}

impl State {
    /// When the next checkpoint should begin; None while there is nothing new, or the last one or
    /// a time is still under way.
    pub(super) fn checkpoint_due(&self) -> Option<Instant> {
        let checkpoints = &self.checkpoints;
        checkpoints.parts.as_ref()?;
        let visible = *self.visible.borrow();
        let settled = visible >= self.last_closed && checkpoints.under_way.is_none();
        if !settled || visible <= checkpoints.done {
            return None;
        }
        match checkpoints.waiting.is_empty() && checkpoints.logged < LOG_BYTES_DUE {
            false => Some(checkpoints.begun_at),
            true => checkpoints.begun_at.checked_add(checkpoints.interval),
        }
    }

    /// Cuts everything at the visible time, which is also the last that was closed: the catalog
    /// and the offsets are exactly that time's.
    pub(super) fn begin_checkpoint(&mut self) {
        let Some(parts) = &self.checkpoints.parts else {
            return;
        };
        let time = *self.visible.borrow();
        let ready = self.arranged.iter().copied();
        let ready = ready.filter(|id| !self.hydrating.contains_key(id));
        let objects: Vec<ObjectId> = ready.collect();
        let cut = Cut {
            time,
            image: self.image.clone(),
            bound: self.stored_offsets(),
            objects: objects.clone(),
        };
        let _ = parts.send(Part::Begin(Box::new(cut)));
        self.checkpoints.under_way = Some((time, self.workers.workers()));
        self.checkpoints.logged_before = std::mem::take(&mut self.checkpoints.logged);
        self.checkpoints.begun_at = Instant::now();
        self.workers.send(Command::Checkpoint { time, objects });
    }

    /// The offsets of sources that are still there.
    pub(super) fn stored_offsets(&self) -> Bound {
        let offsets = self.offsets.iter();
        let there = offsets.filter(|(id, _)| self.image.objects.contains_key(&id.0));
        there.map(|(id, bound)| (*id, bound.clone())).collect()
    }

    pub(super) fn handed_over(&mut self) {
        let Some((_, missing)) = &mut self.checkpoints.under_way else {
            return;
        };
        *missing -= 1;
        if *missing == 0
            && let Some(parts) = &self.checkpoints.parts
        {
            let _ = parts.send(Part::End);
        }
    }

    pub(super) fn checkpointed(&mut self, event: CheckpointEvent) {
        match event {
            CheckpointEvent::Done(time) => {
                self.checkpoints.under_way = None;
                self.checkpoints.done = time;
                self.checkpoints.logged_before = 0;
                self.checkpoints.tell_log_full();
                if let Some(log) = &self.log {
                    log.truncate_before(time + 1);
                }
                let waiting = std::mem::take(&mut self.checkpoints.waiting).into_iter();
                let (done, waiting) = waiting.partition(|(wanted, _)| *wanted <= time);
                self.checkpoints.waiting = waiting;
                let done: Vec<(Time, oneshot::Sender<()>)> = done;
                for (_, reply) in done {
                    let _ = reply.send(());
                }
            }
            CheckpointEvent::Failed(error) => {
                tracing::error!(%error, "no checkpoint can be made any more");
                self.failure.send_replace(Some(error));
            }
        }
    }
}
