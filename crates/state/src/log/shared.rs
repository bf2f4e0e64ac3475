//! What a log and its readers share: which segments there are, and which are being read.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::Time;

/// A segment that holds durable records.
#[derive(Clone, Debug)]
pub(super) struct SegmentInfo {
    pub(super) first_sequence: u64,
    pub(super) last_time: Time,
    /// Bytes that are durable.
    pub(super) bytes: u64,
    /// Keeps its place when the rest is truncated; see [`super::object`].
    pub(super) fence: bool,
}

#[derive(Default)]
struct State {
    segments: VecDeque<SegmentInfo>,
    /// Truncated segments that may still be there: nobody reads them any more.
    retired: VecDeque<SegmentInfo>,
    /// First sequence that a reader needs → how many readers do.
    holds: BTreeMap<u64, usize>,
}

/// The segments of a log, oldest first.
#[derive(Clone, Default)]
pub(super) struct Segments(Arc<Mutex<State>>);

impl Segments {
    pub(super) fn push(&self, segment: SegmentInfo) {
        self.0.lock().segments.push_back(segment);
    }

    pub(super) fn last(&self) -> Option<SegmentInfo> {
        self.0.lock().segments.back().cloned()
    }

    pub(super) fn update_last(&self, last_time: Time, bytes: u64) {
        if let Some(last) = self.0.lock().segments.back_mut() {
            last.last_time = last_time;
            last.bytes = bytes;
        }
    }

    pub(super) fn bytes(&self) -> u64 {
        let state = self.0.lock();
        let all = state.segments.iter().chain(&state.retired);
        all.map(|segment| segment.bytes).sum()
    }

    /// Retires the oldest segments that nobody needs: not the last one, none with a time at or
    /// after `time`, none that a reader holds. All that are retired and not deleted, oldest first.
    pub(super) fn retire(&self, time: Time) -> Vec<SegmentInfo> {
        let mut state = self.0.lock();
        let held = state.holds.keys().next().copied().unwrap_or(u64::MAX);
        while state.segments.len() > 1 {
            let old = |s: &mut SegmentInfo| s.last_time < time && s.first_sequence < held;
            match state.segments.pop_front_if(old) {
                Some(segment) => state.retired.push_back(segment),
                None => break,
            }
        }
        state.retired.iter().cloned().collect()
    }

    /// A retired segment is deleted.
    pub(super) fn deleted(&self, first_sequence: u64) {
        let mut state = self.0.lock();
        state.retired.retain(|s| s.first_sequence != first_sequence);
    }

    /// The segments with records after `time`, which stay until the hold is dropped.
    pub(super) fn hold_after(&self, time: Time) -> Hold {
        let mut state = self.0.lock();
        let needed = state.segments.iter().filter(|s| s.last_time > time);
        let needed: VecDeque<SegmentInfo> = needed.cloned().collect();
        let first = needed.front().map_or(u64::MAX, |s| s.first_sequence);
        *state.holds.entry(first).or_default() += 1;
        Hold {
            segments: self.clone(),
            first,
            needed,
        }
    }
}

/// Keeps segments from being truncated.
pub(super) struct Hold {
    segments: Segments,
    first: u64,
    /// What is still to be read.
    pub(super) needed: VecDeque<SegmentInfo>,
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut state = self.segments.0.lock();
        if let Some(count) = state.holds.get_mut(&self.first) {
            *count -= 1;
            if *count == 0 {
                state.holds.remove(&self.first);
            }
        }
    }
}
