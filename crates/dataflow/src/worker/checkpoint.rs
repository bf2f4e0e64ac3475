//! Handing over what changed, and taking back what was handed over.

use std::collections::VecDeque;

use ruslo_repr::{ObjectId, Time};

use super::Worker;
use crate::durable::Extraction;
use crate::protocol::Response;

/// Batches of one restore queue that are taken between two steps.
const RESTORE_BATCHES: usize = 4;

/// A checkpoint for which this worker has not said everything.
pub(super) struct HandOver {
    time: Time,
    parts: VecDeque<(ObjectId, Extraction)>,
}

impl Worker<'_> {
    pub(super) fn begin_checkpoint(&mut self, time: Time, objects: &[ObjectId]) {
        let mut parts = VecDeque::new();
        for id in objects {
            let collection = self.collections.get_mut(id);
            for tap in collection.into_iter().flat_map(|c| &mut c.taps) {
                let extraction = tap.extract(time);
                // A fault on purpose, which tests must notice.
                if !(self.ends.faults.durable && extraction.point.index == 0) {
                    parts.push_back((*id, extraction));
                }
            }
        }
        self.checkpoints.push_back(HandOver { time, parts });
    }

    /// Does a slice of the oldest checkpoint under way; whether there is more to do.
    pub(super) fn step_checkpoint(&mut self) -> bool {
        let Some(mut checkpoint) = self.checkpoints.pop_front() else {
            return false;
        };
        let (worker, time) = (self.index, checkpoint.time);
        let Some((id, extraction)) = checkpoint.parts.front_mut() else {
            self.respond(Response::Checkpointed { worker, time });
            return !self.checkpoints.is_empty();
        };
        match extraction.step() {
            Ok(Some(updates)) => {
                let (id, point) = (*id, extraction.point.clone());
                self.respond(Response::Changes {
                    worker,
                    time,
                    id,
                    point,
                    updates,
                });
            }
            Ok(None) => drop(checkpoint.parts.pop_front()),
            Err(error) => self.fail(error),
        }
        self.checkpoints.push_front(checkpoint);
        true
    }

    /// Feeds some stored state to objects that get theirs back; whether there may be more at once.
    pub(super) fn feed_restores(&mut self) -> bool {
        let mut fed = false;
        let mut result = Ok(());
        for (object, collection) in &mut self.collections {
            let queues = &self.ends.shared.queues;
            collection.restores.retain_mut(|(input, queue)| {
                // Asked first: what is pushed before the end is then taken below.
                let exhausted = queue.is_exhausted();
                for batch in queue.take(RESTORE_BATCHES) {
                    fed = true;
                    let taken = std::mem::replace(&mut result, Ok(()));
                    result = taken.and_then(|()| (input.feed)(&batch.batch));
                }
                if exhausted {
                    queues.forget_restore(self.index, *object, input.point);
                }
                !exhausted
            });
        }
        if let Err(error) = result {
            self.fail(error);
        }
        fed
    }
}
