//! A broker in memory: one topic, which is away at times and hands out what it likes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;
use ruslo_engine::host::{
    Broker, Gap, KafkaOptions, Lane, LaneError, Opened, PartitionStatus, Polled, Probed, Reader,
    ReaderState, ReaderStatus, StartOffsets,
};
use ruslo_engine::{Error, ErrorKind, Result};
use ruslo_state::sim::Random;

/// Messages handed out at once at most.
const BATCH_MAX: u64 = 12;

struct State {
    random: Random,
    partitions: Vec<Vec<String>>,
    away: bool,
    /// Polls that find nothing although there is something, in a thousand.
    slow: u64,
}

/// The topic and its broker; outlives the engine.
#[derive(Clone)]
pub(crate) struct SimBroker(Arc<Mutex<State>>);

impl SimBroker {
    pub(crate) fn new(seed: u64, partitions: usize) -> SimBroker {
        SimBroker(Arc::new(Mutex::new(State {
            random: Random::new(seed),
            partitions: vec![vec![]; partitions],
            away: false,
            slow: 0,
        })))
    }

    pub(crate) fn produce(&self, partition: usize, message: String) {
        self.0.lock().partitions[partition].push(message);
    }

    pub(crate) fn set_away(&self, away: bool) {
        self.0.lock().away = away;
    }

    pub(crate) fn set_slow(&self, slow: u64) {
        self.0.lock().slow = slow;
    }

    fn asked(&self) -> Result<BTreeMap<i32, (i64, i64)>> {
        let state = self.0.lock();
        if state.away {
            return Err(Error::new(ErrorKind::External, "the broker is away"));
        }
        let partitions = state.partitions.iter().enumerate();
        Ok(partitions
            .map(|(p, messages)| (p as i32, (0, messages.len() as i64)))
            .collect())
    }
}

impl Broker for SimBroker {
    fn probe(&self, _: &KafkaOptions) -> Result<Probed> {
        let known = self.asked()?;
        Ok(Probed {
            start: known.keys().map(|&partition| (partition, 0)).collect(),
            topic_id: None,
        })
    }

    fn watermarks(&self, _: &KafkaOptions) -> Result<BTreeMap<i32, (i64, i64)>> {
        self.asked()
    }

    fn open(
        &self,
        _: &KafkaOptions,
        _: &str,
        start: &StartOffsets,
        end: Option<&StartOffsets>,
        lanes: usize,
    ) -> Result<Opened> {
        let closed = Arc::new(AtomicBool::new(false));
        let named = end.unwrap_or(start).keys();
        let next: StartOffsets = named
            .map(|&partition| (partition, start.get(&partition).copied().unwrap_or(0)))
            .collect();
        let lanes = (0..lanes).map(|index| {
            let mine = next.iter().filter(|(p, _)| **p as usize % lanes == index);
            Box::new(SimLane {
                broker: self.clone(),
                closed: closed.clone(),
                next: mine.map(|(p, offset)| (*p, *offset)).collect(),
                end: end.cloned(),
            }) as _
        });
        let lanes = lanes.collect();
        let broker = self.clone();
        Ok((Box::new(SimReader { broker, closed }), lanes))
    }
}

struct SimReader {
    broker: SimBroker,
    closed: Arc<AtomicBool>,
}

impl Reader for SimReader {
    fn status(&self) -> ReaderStatus {
        let error = "the broker is away".to_string();
        let state = match self.broker.0.lock().away {
            true => ReaderState::Retrying { error },
            false => ReaderState::Running,
        };
        ReaderStatus {
            state,
            partitions: BTreeMap::<i32, PartitionStatus>::new(),
            bytes: 0,
            messages: 0,
            errors: 0,
            gaps: vec![],
            fetched_bytes: 0,
        }
    }

    fn close(&self) {
        self.closed.store(true, Relaxed);
    }
}

impl Drop for SimReader {
    fn drop(&mut self) {
        self.close();
    }
}

struct SimLane {
    broker: SimBroker,
    closed: Arc<AtomicBool>,
    next: StartOffsets,
    end: Option<StartOffsets>,
}

impl SimLane {
    fn end_of(&self, partition: i32) -> i64 {
        let end = self.end.as_ref().and_then(|end| end.get(&partition));
        end.copied().unwrap_or(i64::MAX)
    }
}

impl Lane for SimLane {
    fn poll(
        &mut self,
        max: usize,
        _: Duration,
        take: &mut dyn FnMut(Polled<'_>),
    ) -> std::result::Result<usize, LaneError> {
        if self.closed.load(Relaxed) {
            return Err(LaneError::Closed);
        }
        let broker = self.broker.clone();
        let state = &mut *broker.0.lock();
        if state.away || state.random.per_mille(state.slow) {
            return Ok(0);
        }
        let mut taken = 0;
        let partitions: Vec<i32> = self.next.keys().copied().collect();
        for partition in partitions {
            let messages = &state.partitions[partition as usize];
            let from = self.next[&partition];
            let to = (messages.len() as i64).min(self.end_of(partition));
            let some = from + state.random.below(BATCH_MAX + 1).min(max as u64) as i64;
            let to = to.min(some);
            for offset in from..to {
                take(Polled {
                    partition,
                    offset,
                    payload: Some(messages[offset as usize].as_bytes()),
                    timestamp_ms: None,
                });
                taken += 1;
            }
            if to > from {
                self.next.insert(partition, to);
            }
        }
        Ok(taken)
    }

    fn next_offsets(&self) -> &StartOffsets {
        &self.next
    }

    fn finished(&self) -> bool {
        self.end.is_some() && self.next.iter().all(|(p, next)| *next >= self.end_of(*p))
    }

    fn take_gaps(&mut self) -> Vec<Gap> {
        vec![]
    }
}
