//! When a checkpoint is taken, and what it takes in.

use std::time::{Duration, Instant};

use ruslo_dataflow::Command;
use ruslo_repr::{ObjectId, Time};
use tokio::sync::{mpsc, oneshot};

use super::State;
use crate::durable::{Bound, CheckpointEvent, Cut, Part};

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
        match checkpoints.waiting.is_empty() {
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
