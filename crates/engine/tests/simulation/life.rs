//! One life of a server: everything runs in one thread, round by round, until its script is
//! through or it is killed.
//!
//! ```text
//!   round: worker 0? ── worker 1? ── time passes ── tasks of the runtime ── the script
//!            └ one turn each, or none, by the seed
//! ```
//!
//! Workers have threads because timely wants them, but each waits until it is its turn.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use ruslo_engine::{Engine, Pacer};
use ruslo_state::sim::{Random, World};
use tokio::runtime::Builder;

use crate::clock;

/// Rounds without an end: something waits for what never comes.
const ROUNDS_MAX: u64 = 400_000;
/// Simulated time without an end.
const LIFE_MAX: Duration = Duration::from_secs(1200);

/// How a life ended.
pub(crate) enum End {
    /// The script is through.
    Done,
    /// It was killed, or could not go on with a store that fails.
    Killed,
    Wrong(String),
}

/// What a script has: where it notes the engine that it starts.
#[derive(Clone, Default)]
pub(crate) struct Started {
    pub(crate) engine: Rc<RefCell<Option<Engine>>>,
    pub(crate) pacers: Rc<RefCell<Vec<Pacer>>>,
    /// Set when the store could not be opened, which ends the process.
    pub(crate) may_give_up: Rc<Cell<bool>>,
}

impl Started {
    /// Whether the engine says that it cannot go on: the process would end.
    fn has_failed(&self) -> bool {
        let engine = self.engine.borrow();
        engine
            .as_ref()
            .is_some_and(|engine| engine.failure().borrow().is_some())
    }
}

/// What decides how a life goes.
pub(crate) struct Fate {
    pub(crate) random: Random,
    pub(crate) world: World,
    /// Killed after so many rounds.
    pub(crate) rounds: Option<u64>,
    /// How often a worker gets its turn, in a thousand rounds.
    pub(crate) turns: Vec<u64>,
}

/// Runs `script`; what it leaves running ends with it. Also says how many rounds it took.
pub(crate) fn live(
    fate: &mut Fate,
    script: impl AsyncFnOnce(Started) -> Result<(), String>,
) -> (End, u64) {
    let runtime = Builder::new_current_thread().enable_time().build();
    let runtime = runtime.expect("a runtime of one thread");
    let started = Started::default();
    let begun = clock::passed();
    let (mut rounds, mut idle) = (0, 0);
    let end = {
        let mut script = pin!(script(started.clone()));
        runtime.block_on(poll_fn(|context| {
            rounds += 1;
            if fate.world.is_crashed() || fate.rounds.is_some_and(|max| rounds > max) {
                return Poll::Ready(End::Killed);
            }
            if let Poll::Ready(result) = script.as_mut().poll(context) {
                let killed =
                    fate.world.is_crashed() || started.has_failed() || started.may_give_up.get();
                return Poll::Ready(match result {
                    Ok(()) => End::Done,
                    Err(_) if killed => End::Killed,
                    Err(wrong) => End::Wrong(wrong),
                });
            }
            if started.has_failed() {
                return Poll::Ready(End::Killed);
            }
            if rounds > ROUNDS_MAX || clock::passed() - begun > LIFE_MAX {
                return Poll::Ready(End::Wrong("nothing goes on any more".into()));
            }
            let mut busy = false;
            for (pacer, turns) in started.pacers.borrow_mut().iter_mut().zip(&fate.turns) {
                busy |= fate.random.per_mille(*turns) && pacer.turn();
            }
            idle = if busy { 0 } else { idle + 1 };
            clock::advance(step(idle, &mut fate.random));
            context.waker().wake_by_ref();
            Poll::Pending
        }))
    };
    // First, so that workers do not wait for a turn while they are waited for.
    started.pacers.borrow_mut().clear();
    started.engine.borrow_mut().take();
    drop(runtime);
    (end, rounds)
}

/// How much time passes in a round: more where nothing happens.
fn step(idle: u64, random: &mut Random) -> Duration {
    let micros = match idle {
        0..10 => random.below(150),
        10..50 => 500,
        50..200 => 2_000,
        _ => 20_000,
    };
    Duration::from_micros(micros)
}
