//! The seed, the faults and the moment of the crash.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};

use super::disk::Disk;

/// Numbers that follow from a seed (SplitMix64).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, which is not zero.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next_u64() % bound.max(1)
    }

    /// True so many times in a thousand.
    pub fn per_mille(&mut self, per_mille: u64) -> bool {
        self.below(1000) < per_mille
    }

    pub fn flip(&mut self) -> bool {
        self.below(2) == 0
    }
}

/// How often calls fail, in a thousand.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// Calls that report an error, with or without having done their work.
    pub errors: u64,
    /// Calls that take long: others go on meanwhile.
    pub delays: u64,
}

/// How a history's process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// The process alone: what the system was told stays.
    Process,
    /// The machine: what was not synced may be lost, in part or whole.
    Machine,
}

pub(super) struct State {
    pub(super) random: Random,
    pub(super) faults: Faults,
    /// Steps until the crash.
    crash_in: Option<u64>,
    crashed: bool,
    steps: u64,
    pub(super) objects: BTreeMap<String, Bytes>,
    /// Deleted objects that a crash of the machine may bring back.
    pub(super) deleted: BTreeMap<String, Bytes>,
    pub(super) disk: Disk,
}

/// What happens in a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Works,
    /// An error is reported; the work may be done, in part or whole.
    Fails,
    /// The process ends in the middle of it.
    Crashes,
}

/// Everything that outlives a process. Cheap to clone.
#[derive(Clone)]
pub struct World(Arc<Mutex<State>>);

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "World(step {})", self.steps())
    }
}

impl World {
    /// An empty world without faults.
    pub fn new(seed: u64) -> World {
        World(Arc::new(Mutex::new(State {
            random: Random::new(seed),
            faults: Faults::default(),
            crash_in: None,
            crashed: false,
            steps: 0,
            objects: BTreeMap::new(),
            deleted: BTreeMap::new(),
            disk: Disk::default(),
        })))
    }

    pub fn set_faults(&self, faults: Faults) {
        self.lock().faults = faults;
    }

    /// Crashes in the step after so many more.
    pub fn crash_in(&self, steps: Option<u64>) {
        self.lock().crash_in = steps;
    }

    /// Whether it has crashed: every call fails until [`Self::restart`].
    pub fn is_crashed(&self) -> bool {
        self.lock().crashed
    }

    /// How many calls there were.
    pub fn steps(&self) -> u64 {
        self.lock().steps
    }

    /// Starts again after a crash, or crashes between two steps and starts again.
    pub fn restart(&self, crash: Crash) {
        let state = &mut *self.lock();
        state.crashed = false;
        state.crash_in = None;
        if crash == Crash::Machine {
            for (path, bytes) in std::mem::take(&mut state.deleted) {
                if state.random.flip() {
                    state.objects.entry(path).or_insert(bytes);
                }
            }
            state.disk.lose_power(&mut state.random);
        }
    }

    /// Names and sizes of all objects.
    pub fn objects(&self) -> Vec<(String, usize)> {
        let state = self.lock();
        let objects = state.objects.iter();
        objects.map(|(path, o)| (path.clone(), o.len())).collect()
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock()
    }
}

impl State {
    /// Decides what happens to the next call. After a crash nothing does.
    pub(super) fn step(&mut self) -> io::Result<Step> {
        if self.crashed {
            return Err(crashed());
        }
        self.steps += 1;
        if let Some(left) = &mut self.crash_in {
            if *left == 0 {
                self.crashed = true;
                return Ok(Step::Crashes);
            }
            *left -= 1;
        }
        match self.random.per_mille(self.faults.errors) {
            true => Ok(Step::Fails),
            false => Ok(Step::Works),
        }
    }

    /// The error that a failing step reports.
    pub(super) fn error(&mut self, step: Step) -> io::Error {
        match step {
            Step::Crashes => crashed(),
            _ if self.random.flip() => io::Error::from(io::ErrorKind::StorageFull),
            _ => io::Error::other("simulated I/O error"),
        }
    }
}

fn crashed() -> io::Error {
    io::Error::other("the simulated process has ended")
}
