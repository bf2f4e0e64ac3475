//! What sinks write to: a map that is away at times, answers late, and may have done what it did
//! not acknowledge.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use ruslo_engine::host::{Answer, Outlet, RedisOp, RedisOptions, SinkError, Writer};
use ruslo_engine::{Error, ErrorKind, Result};
use ruslo_state::sim::Random;

struct State {
    random: Random,
    values: BTreeMap<String, String>,
    /// Every change in its order; None deletes.
    applied: Vec<(String, Option<String>)>,
    away: bool,
    /// Writes that are not acknowledged, in a thousand.
    faults: u64,
    /// How often the server was started anew, without what it had.
    starts: u64,
}

/// Outlives the engine.
#[derive(Clone)]
pub(crate) struct SimOutlet(Arc<Mutex<State>>);

impl SimOutlet {
    pub(crate) fn new(seed: u64) -> SimOutlet {
        SimOutlet(Arc::new(Mutex::new(State {
            random: Random::new(seed),
            values: BTreeMap::new(),
            applied: vec![],
            away: false,
            faults: 0,
            starts: 0,
        })))
    }

    pub(crate) fn set_away(&self, away: bool) {
        self.0.lock().away = away;
    }

    pub(crate) fn set_faults(&self, faults: u64) {
        self.0.lock().faults = faults;
    }

    /// Starts the server anew, with nothing.
    pub(crate) fn lose(&self) {
        let mut state = self.0.lock();
        state.values.clear();
        state.starts += 1;
    }

    pub(crate) fn values(&self) -> BTreeMap<String, String> {
        self.0.lock().values.clone()
    }

    /// What was applied since the last call.
    pub(crate) fn take_applied(&self) -> Vec<(String, Option<String>)> {
        std::mem::take(&mut self.0.lock().applied)
    }
}

impl State {
    fn apply(&mut self, ops: &[RedisOp]) {
        for op in ops {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            match op {
                RedisOp::Set { key, value } => {
                    self.values.insert(text(key), text(value));
                    self.applied.push((text(key), Some(text(value))));
                }
                RedisOp::Del { key } => {
                    self.values.remove(&text(key));
                    self.applied.push((text(key), None));
                }
            }
        }
    }
}

fn failed() -> SinkError {
    SinkError {
        message: "the outlet is away".into(),
        retry: true,
    }
}

impl Outlet for SimOutlet {
    fn connect<'a>(&'a self, options: &'a RedisOptions) -> Answer<'a, Result<Box<dyn Writer>>> {
        let away = self.0.lock().away;
        let writer = match away {
            true => Err(Error::new(ErrorKind::External, "the outlet is away")),
            false => self.unconnected(options),
        };
        Box::pin(std::future::ready(writer))
    }

    fn unconnected(&self, _: &RedisOptions) -> Result<Box<dyn Writer>> {
        Ok(Box::new(SimWriter {
            outlet: self.clone(),
            starts: None,
            restarted: false,
        }))
    }

    /// A few rows, so that a view takes several portions.
    fn portion_bytes(&self) -> usize {
        64
    }
}

struct SimWriter {
    outlet: SimOutlet,
    /// Which start of the server it is connected to.
    starts: Option<u64>,
    restarted: bool,
}

impl SimWriter {
    /// The way there or back.
    async fn travel(&self) {
        let micros = self.outlet.0.lock().random.below(3000);
        tokio::time::sleep(Duration::from_micros(micros)).await;
    }
}

impl SimWriter {
    /// Finds the server, or that it is away, or that it is another than before.
    fn reach(&mut self) -> std::result::Result<(), SinkError> {
        let state = self.outlet.0.lock();
        if state.away {
            return Err(failed());
        }
        let before = self.starts.replace(state.starts);
        if before.is_some_and(|before| before != state.starts) {
            // The connection broke; the next try has a new one.
            self.restarted = true;
            return Err(failed());
        }
        Ok(())
    }
}

impl Writer for SimWriter {
    fn write<'a>(
        &'a mut self,
        ops: &'a [RedisOp],
    ) -> Answer<'a, std::result::Result<(), SinkError>> {
        Box::pin(async move {
            self.travel().await;
            self.reach()?;
            let acknowledged = {
                let state = &mut *self.outlet.0.lock();
                let fails = state.random.per_mille(state.faults);
                let done = match fails {
                    true => state.random.below(ops.len() as u64 + 1) as usize,
                    false => ops.len(),
                };
                state.apply(&ops[..done]);
                !fails
            };
            self.travel().await;
            acknowledged.then_some(()).ok_or_else(failed)
        })
    }

    fn check(&mut self) -> Answer<'_, std::result::Result<(), SinkError>> {
        Box::pin(async move {
            self.travel().await;
            self.reach()
        })
    }

    fn take_restarted(&mut self) -> bool {
        std::mem::take(&mut self.restarted)
    }
}
