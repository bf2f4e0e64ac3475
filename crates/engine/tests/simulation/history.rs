//! One history: lives of a server that follow from a seed, and what each of them does.

use std::cell::{Cell, RefCell};
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{Either, select, try_join_all};
use ruslo_engine::host::{Host, HostStore, Plant};
use ruslo_engine::{Config, Engine, Faults, Session, Storage};
use ruslo_state::Store;
use ruslo_state::sim::{self, Crash, Random, SimFolder, SimObjects, World};

use crate::broker::SimBroker;
use crate::checks::Checks;
use crate::clock;
use crate::life::{End, Fate, Started, live};
use crate::outlet::SimOutlet;

/// How long the last life may take to show everything.
const CATCH_UP_MAX: Duration = Duration::from_secs(120);

/// What happened, so that a test can tell whether histories test anything.
#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) lives: u64,
    pub(crate) killed: u64,
    pub(crate) rounds: u64,
    pub(crate) statements: u64,
    pub(crate) reads: u64,
    /// Times that subscriptions told of.
    pub(crate) told: u64,
}

/// Everything that outlives a life.
pub(crate) struct History {
    pub(crate) random: RefCell<Random>,
    pub(crate) world: World,
    pub(crate) broker: SimBroker,
    pub(crate) outlet: SimOutlet,
    pub(crate) checks: RefCell<Checks>,
    trace: RefCell<DefaultHasher>,
    verbose: bool,
    pub(crate) counts: RefCell<Counts>,
    /// Whether source, table and the first view are there.
    pub(crate) is_set_up: Cell<bool>,
    workers: Cell<usize>,
    is_bucket: bool,
    key_file: std::path::PathBuf,
    plant: Plant,
}

impl History {
    pub(crate) fn new(seed: u64, plant: Plant, folder: &Path) -> History {
        let mut random = Random::new(seed);
        let partitions = 1 + random.below(3) as usize;
        History {
            world: World::new(random.next_u64()),
            broker: SimBroker::new(random.next_u64(), partitions),
            outlet: SimOutlet::new(random.next_u64()),
            checks: RefCell::new(Checks::new(partitions)),
            trace: RefCell::default(),
            verbose: std::env::var_os("RUSLO_TRACE").is_some(),
            counts: RefCell::default(),
            is_set_up: Cell::new(false),
            workers: Cell::new(1),
            is_bucket: random.below(3) == 0,
            key_file: folder.join("key"),
            plant,
            random: RefCell::new(random),
        }
    }

    pub(crate) fn draw(&self, bound: u64) -> u64 {
        self.random.borrow_mut().below(bound)
    }

    pub(crate) fn pick<T: Copy>(&self, of: &[T]) -> T {
        of[self.draw(of.len() as u64) as usize]
    }

    /// Notes what happens: the same seed must note the same.
    pub(crate) fn note(&self, text: &str) {
        text.hash(&mut *self.trace.borrow_mut());
        clock::passed().hash(&mut *self.trace.borrow_mut());
        if self.verbose {
            println!("{:>14.6} {text}", clock::passed().as_secs_f64());
        }
    }

    pub(crate) fn trace(&self) -> u64 {
        self.trace.borrow().finish()
    }

    /// Lives until everything was seen, or something is wrong.
    pub(crate) fn run(&self) -> Result<(), String> {
        for _ in 0..2 + self.draw(3) {
            self.live(false)?;
            let shift = self.pick(&[0, 0, 0, -3600, -3600, 3600, -5]);
            clock::shift_wall(shift);
            clock::advance(Duration::from_millis(self.draw(2000)));
            let crash = self.pick(&[Crash::Process, Crash::Machine]);
            self.note(&format!("restart after {crash:?}, clock {shift:+} s"));
            self.world.restart(crash);
        }
        self.live(true)
    }

    fn live(&self, is_last: bool) -> Result<(), String> {
        let faults = match is_last {
            true => sim::Faults::default(),
            false => sim::Faults {
                errors: self.pick(&[0, 0, 0, 20, 80]),
                delays: self.pick(&[0, 300, 900]),
            },
        };
        self.world.set_faults(faults);
        self.broker.set_away(false);
        self.outlet.set_away(false);
        self.broker.set_slow(self.pick(&[0, 300, 900]));
        self.workers.set(1 + self.draw(2) as usize);
        self.outlet
            .set_faults(if is_last { 0 } else { self.pick(&[0, 0, 200]) });
        let seed = self.random.borrow_mut().next_u64();
        let mut fate = Fate {
            random: Random::new(seed),
            world: self.world.clone(),
            rounds: None,
            turns: (0..self.workers.get())
                .map(|_| self.pick(&[1000, 600, 150]))
                .collect(),
        };
        if !is_last {
            match self.draw(5) {
                0 | 1 => self.world.crash_in(Some(self.draw(80))),
                2 | 3 => fate.rounds = Some(self.draw(500)),
                _ => {}
            }
        }
        self.note(&format!("a life with {faults:?}, turns {:?}", fate.turns));
        let script = async |started| self.script(started, is_last).await;
        let (end, rounds) = live(&mut fate, script);
        self.world.crash_in(None);
        let mut counts = self.counts.borrow_mut();
        counts.lives += 1;
        counts.rounds += rounds;
        match end {
            End::Done => {}
            End::Killed if is_last => return Err("the last life ended by itself".into()),
            End::Killed => counts.killed += 1,
            End::Wrong(wrong) => return Err(wrong),
        }
        self.note(&format!("ended after {rounds} rounds"));
        Ok(())
    }

    fn host(&self) -> Host {
        let objects = Arc::new(SimObjects::new(&self.world));
        Host {
            broker: Arc::new(self.broker.clone()),
            outlet: Arc::new(self.outlet.clone()),
            store: Some(HostStore {
                store: Store::from_objects(objects, "sim"),
                log: (!self.is_bucket).then(|| Arc::new(SimFolder::new(&self.world)) as _),
            }),
            threads: false,
            plant: self.plant,
        }
    }

    async fn start(&self, started: &Started) -> Result<Engine, String> {
        let interval = self.pick(&[50, 300, 3000]);
        let config = Config {
            workers: self.workers.get(),
            storage: Storage::Store {
                url: "sim".into(),
                key_file: self.key_file.clone(),
                checkpoint_interval: Duration::from_millis(interval),
            },
        };
        let opened = Engine::open_on(config, Faults::default(), self.host()).await;
        let (engine, pacers) = opened.map_err(|error| {
            started.may_give_up.set(true);
            format!("open: {error}")
        })?;
        *started.pacers.borrow_mut() = pacers;
        *started.engine.borrow_mut() = Some(engine.clone());
        let recovered = engine.recover().await;
        recovered.map_err(|error| format!("recover: {error}"))?;
        Ok(engine)
    }

    async fn script(&self, started: Started, is_last: bool) -> Result<(), String> {
        let engine = self.start(&started).await?;
        self.note("started");
        let mut sessions = [0, 1].map(|_| engine.session("root", "dev"));
        let [one, two] = &mut sessions;
        if self.is_set_up.get() {
            self.read(one).await?;
            self.checks.borrow_mut().settle();
        }
        self.settle_ddl(one, is_last).await?;
        self.checks.borrow_mut().begin_following();
        let mut followers = ["progress", "a"].map(|name| (name, engine.session("root", "dev")));
        let following = followers
            .iter_mut()
            .map(|(name, session)| self.follow(session, name));
        let following = pin!(try_join_all(following));
        let steps = pin!(self.steps(&engine, one, two, is_last));
        match select(steps, following).await {
            Either::Left((result, _)) => result,
            Either::Right((followed, steps)) => {
                followed?;
                steps.await
            }
        }
    }

    /// What one life does.
    async fn steps(
        &self,
        engine: &Engine,
        one: &mut Session,
        two: &mut Session,
        is_last: bool,
    ) -> Result<(), String> {
        if is_last {
            self.catch_up(one).await?;
            if self.draw(2) == 0 {
                self.note("the outlet loses what it had");
                self.outlet.lose();
                self.catch_up(one).await?;
            }
            engine.shutdown(Duration::from_secs(5)).await;
            return Ok(());
        }
        for _ in 0..3 + self.draw(12) {
            self.step(one, two).await?;
        }
        if self.draw(3) == 0 {
            self.note("shut down");
            engine
                .shutdown(Duration::from_millis(self.draw(1000)))
                .await;
        }
        Ok(())
    }

    async fn step(&self, one: &mut Session, two: &mut Session) -> Result<(), String> {
        match self.draw(17) {
            0 | 1 => self.produce(),
            2 | 3 => self.write(one).await?,
            4 => self.read(one).await?,
            5 => {
                self.produce();
                self.read(one).await?;
            }
            6 => {
                let (read, written) = futures::join!(self.read(one), self.write(two));
                read.and(written)?;
            }
            7 => {
                let (read, created) = futures::join!(self.read(one), self.create_view(two));
                read.and(created)?;
            }
            8 => {
                self.create_view(one).await?;
                self.write(one).await?;
                self.read(one).await?;
            }
            9 => self.drop_view(one).await?,
            14 => {
                // A past and a live flow at once.
                self.produce();
                let (created, written) = futures::join!(self.create_view(one), async {
                    tokio::time::sleep(Duration::from_millis(self.draw(5))).await;
                    self.produce();
                    self.write(two).await
                });
                created.and(written)?;
            }
            15 => {
                for _ in 0..4 {
                    self.write(one).await?;
                }
                self.read(one).await?;
            }
            16 => self.drop_sink(one).await?,
            10 => self.create_sink(one).await?,
            11 => {
                let shift = self.pick(&[-3600, -1, 1, 3600]);
                self.note(&format!("clock {shift:+} s"));
                clock::shift_wall(shift);
            }
            12 => {
                self.broker.set_away(self.draw(3) == 0);
                self.outlet.set_away(self.draw(3) == 0);
            }
            _ => {
                let millis = self.pick(&[1, 20, 300, 3000]);
                tokio::time::sleep(Duration::from_millis(millis)).await;
            }
        }
        self.checks.borrow_mut().sinks(&self.outlet)
    }

    /// Waits until all that was produced is seen, and every sink has it.
    async fn catch_up(&self, session: &mut Session) -> Result<(), String> {
        let begun = clock::passed();
        loop {
            self.read(session).await?;
            self.checks.borrow_mut().sinks(&self.outlet)?;
            let undecoded = self.undecoded(session).await?;
            let missing = self.checks.borrow().missing(&self.outlet, undecoded);
            let Some(missing) = missing else {
                return Ok(());
            };
            if clock::passed() - begun > CATCH_UP_MAX {
                return Err(format!("never came: {missing}"));
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}
