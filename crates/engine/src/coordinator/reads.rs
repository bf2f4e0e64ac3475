//! Reads of what is visible: holds, peeks, counts, and what nobody reads any more.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use ruslo_dataflow::{Command, ObjectStats, Place};
use ruslo_repr::{CountedRows, Error, ObjectId, Result, Time};
use tokio::sync::oneshot;

use super::{PeekTarget, Peeked, ReadHold, State};

/// How often arrangements are told that nobody will read below the visible time any more.
const COMPACTION_INTERVAL: Duration = Duration::from_millis(200);

pub(super) struct PendingPeek {
    pub(super) found: Peeked,
    pub(super) missing: usize,
    pub(super) reply: oneshot::Sender<Result<Peeked>>,
}

pub(super) struct PendingStats {
    pub(super) objects: BTreeMap<ObjectId, ObjectStats>,
    pub(super) missing: usize,
    pub(super) reply: oneshot::Sender<Vec<ObjectStats>>,
}

impl State {
    pub(super) fn read(&mut self, at_least: Time, reply: oneshot::Sender<ReadHold>) {
        let visible = *self.visible.borrow();
        if at_least <= visible {
            *self.holds.entry(visible).or_default() += 1;
            // A reader that has gone drops the hold, which releases it again.
            let _ = reply.send(ReadHold {
                time: visible,
                coordinator: self.handle.clone(),
            });
        } else {
            self.readers.push((at_least, reply));
        }
    }

    pub(super) fn release(&mut self, time: Time) {
        if let Some(count) = self.holds.get_mut(&time) {
            *count -= 1;
            if *count == 0 {
                self.holds.remove(&time);
            }
        }
    }

    pub(super) fn peek(
        &mut self,
        target: PeekTarget,
        time: Time,
        reply: oneshot::Sender<Result<Peeked>>,
    ) {
        // Those whose client has gone are not worth their work any more.
        let gone = self.peeks.iter().filter(|(_, peek)| peek.reply.is_closed());
        let gone: Vec<u64> = gone.map(|(request, _)| *request).collect();
        for request in gone {
            self.peeks.remove(&request);
            self.workers.send(Command::CancelPeek { request });
        }
        let request = self.next_request();
        let missing = self.workers.workers();
        self.peeks.insert(
            request,
            PendingPeek {
                found: Peeked::default(),
                missing,
                reply,
            },
        );
        let PeekTarget {
            id,
            errors,
            keys,
            limit,
            portion,
        } = target;
        self.workers.send(Command::Peek {
            request,
            id,
            time,
            errors,
            keys,
            limit,
            portion,
        });
    }

    pub(super) fn next_request(&mut self) -> u64 {
        self.next_request += 1;
        self.next_request
    }

    pub(super) fn peeked(
        &mut self,
        request: u64,
        (rows, left_off): (CountedRows, Option<Place>),
        error: Option<Error>,
    ) {
        let Some(peek) = self.peeks.get_mut(&request) else {
            return;
        };
        peek.missing -= 1;
        let found = &mut peek.found;
        match found.rows.is_empty() {
            true => found.rows = rows,
            false => found.rows.append(&rows),
        }
        let places = [found.left_off.take(), left_off].into_iter().flatten();
        found.left_off = places.min();
        let done = peek.missing == 0;
        if done || error.is_some() {
            let Some(peek) = self.peeks.remove(&request) else {
                return;
            };
            let _ = peek.reply.send(error.map_or(Ok(peek.found), Err));
        }
    }

    pub(super) fn counted(&mut self, request: u64, objects: Vec<ObjectStats>) {
        let Some(stats) = self.stats.get_mut(&request) else {
            return;
        };
        stats.missing -= 1;
        for object in objects {
            match stats.objects.get_mut(&object.id) {
                None => drop(stats.objects.insert(object.id, object)),
                Some(sum) => {
                    sum.rows += object.rows;
                    sum.records += object.records;
                    sum.bytes += object.bytes;
                    sum.batches += object.batches;
                }
            }
        }
        if stats.missing == 0
            && let Some(stats) = self.stats.remove(&request)
        {
            let _ = stats.reply.send(stats.objects.into_values().collect());
        }
    }

    pub(super) fn allow_compaction(&mut self) {
        let oldest_hold = self.holds.keys().next().copied().unwrap_or(Time::MAX);
        let since = (*self.visible.borrow()).min(oldest_hold);
        let (done, at) = self.compacted;
        if since <= done || at.elapsed() < COMPACTION_INTERVAL {
            return;
        }
        for &id in &self.arranged {
            self.workers.send(Command::AllowCompaction { id, since });
        }
        self.compacted = (since, Instant::now());
    }
}
