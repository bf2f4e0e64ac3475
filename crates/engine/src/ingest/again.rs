//! What is read again after a restart, and at which times.

use std::collections::HashMap;
use std::sync::Arc;

use ruslo_format::Position;
use ruslo_repr::Time;

use super::Offsets;

/// What a view has to read again after a restart: messages since the checkpoint.
#[derive(Clone, Default)]
pub(crate) struct Again {
    /// Where the checkpoint's offsets were.
    pub(crate) from: Offsets,
    pub(crate) times: Arc<Times>,
}

/// The time at which each message was bound.
#[derive(Default)]
pub(crate) struct Times {
    /// By partition: the offsets before which messages belong to a time, ascending.
    ends: HashMap<i32, Vec<(i64, Time)>>,
}

impl Times {
    /// Says that the messages before `next` which no earlier time has belong to `time`.
    pub(crate) fn add(&mut self, partition: i32, next: i64, time: Time) {
        self.ends.entry(partition).or_default().push((next, time));
    }

    pub(super) fn of(&self, position: Position) -> Option<Time> {
        let ends = self.ends.get(&position.partition)?;
        let at = ends.partition_point(|(end, _)| *end <= position.offset);
        ends.get(at).map(|(_, time)| *time)
    }
}
