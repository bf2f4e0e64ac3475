//! The last checkpoints, for `ruslo.checkpoints` and the metrics.

use std::collections::VecDeque;

use parking_lot::Mutex;
use ruslo_repr::Time;

const KEPT_MAX: usize = 100;

/// How one checkpoint went.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CheckpointStatus {
    pub(crate) time: Time,
    /// Changes that it took in.
    pub(crate) rows: u64,
    pub(crate) seconds: f64,
}

/// The last ones, and how many there were.
#[derive(Default)]
pub(crate) struct Statuses(Mutex<(u64, VecDeque<CheckpointStatus>)>);

impl Statuses {
    pub(crate) fn add(&self, status: CheckpointStatus) {
        let mut inner = self.0.lock();
        inner.0 += 1;
        if inner.1.len() == KEPT_MAX {
            inner.1.pop_front();
        }
        inner.1.push_back(status);
    }

    /// How many checkpoints this server has made.
    pub(crate) fn count(&self) -> u64 {
        self.0.lock().0
    }

    /// The last ones, newest last.
    pub(crate) fn last(&self) -> Vec<CheckpointStatus> {
        self.0.lock().1.iter().copied().collect()
    }
}
