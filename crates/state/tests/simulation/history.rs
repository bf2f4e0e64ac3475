//! One history: lives of a server, each ended by a crash, in a world that outlives them.

use std::sync::Arc;

use futures::executor::block_on;
use ruslo_state::log::LogFolder;
use ruslo_state::sim::{Crash, Faults, Plant, Random, SimFolder, SimObjects, World};
use ruslo_state::{
    BindingLog, Checkpoint, Checkpoints, Entry, Error, LogSizes, Opened, Options, Record, Sizes,
    Snapshot, Store, Time, copy_with_folder, open, open_with_folder,
};
use serde_json::{Value, json};

use crate::model::{Model, Rows, State, apply, collection, replay};

/// Where the binding log is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Folder,
    Bucket,
}

/// What happened in histories, so that a test can tell whether they test anything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) appends: u64,
    pub(crate) checkpoints: u64,
    pub(crate) merges: u64,
    pub(crate) truncations: u64,
    pub(crate) backups: u64,
    pub(crate) backup_retries: u64,
    pub(crate) takeovers: u64,
    pub(crate) fenced: u64,
    pub(crate) crashes: u64,
    pub(crate) crashes_in_open: u64,
    pub(crate) retries: u64,
    pub(crate) torn_tails: u64,
    pub(crate) doubts_there: u64,
    pub(crate) doubts_gone: u64,
    pub(crate) steps: u64,
}

impl Totals {
    fn all(&self) -> [u64; 15] {
        [
            self.appends,
            self.checkpoints,
            self.merges,
            self.truncations,
            self.backups,
            self.backup_retries,
            self.takeovers,
            self.fenced,
            self.crashes,
            self.crashes_in_open,
            self.retries,
            self.torn_tails,
            self.doubts_there,
            self.doubts_gone,
            self.steps,
        ]
    }

    pub(crate) fn add(&mut self, other: &Totals) {
        let [a, b, c, d, e, r, f, g, h, i, j, k, l, m, n] = other.all();
        self.appends += a;
        self.checkpoints += b;
        self.merges += c;
        self.truncations += d;
        self.backups += e;
        self.backup_retries += r;
        self.takeovers += f;
        self.fenced += g;
        self.crashes += h;
        self.crashes_in_open += i;
        self.retries += j;
        self.torn_tails += k;
        self.doubts_there += l;
        self.doubts_gone += m;
        self.steps += n;
    }

    pub(crate) fn check_that_everything_happened(&self) {
        let all = self.all();
        assert!(
            all.iter().all(|n| *n > 0),
            "something never happened: {self:?}"
        );
    }
}

/// Why a life ends.
enum End {
    /// The world crashed, or an operation was given up: the next life begins.
    Life,
    /// Something is not as it must be.
    Wrong(String),
}

type Outcome<T = ()> = Result<T, End>;

fn wrong<T>(text: impl Into<String>) -> Outcome<T> {
    Err(End::Wrong(text.into()))
}

/// A server that is running.
struct Server {
    checkpoints: Checkpoints,
    log: Box<dyn BindingLog>,
}

struct History {
    world: World,
    random: Random,
    mode: Mode,
    plant: Plant,
    store: Store,
    model: Model,
    totals: Totals,
    /// Servers that were taken over and do not know it.
    zombies: Vec<Server>,
    openings: u64,
}

/// Runs one history; what happened, or what was wrong.
pub(crate) fn run(seed: u64, mode: Mode, plant: Plant) -> Result<Totals, String> {
    let world = World::new(seed);
    let objects = Arc::new(SimObjects::new(&world));
    let mut history = History {
        store: Store::from_objects(objects, "sim").with_part_bytes(1500),
        world,
        random: Random::new(seed ^ 0xdead_beef),
        mode,
        plant,
        model: Model::default(),
        totals: Totals::default(),
        zombies: vec![],
        openings: 0,
    };
    let lives = 2 + history.random.below(5);
    for _ in 0..lives {
        block_on(history.life())?;
    }
    block_on(history.last_life())?;
    history.totals.steps = history.world.steps();
    Ok(history.totals)
}

impl History {
    fn options(&mut self) -> Options {
        self.openings += 1;
        Options {
            writer: self.openings,
            sizes: Sizes {
                batch_rows: 7,
                batch_bytes: 400,
                spill_bytes: 20_000,
                small_run_bytes: 2000,
            },
            log_sizes: LogSizes {
                segment_bytes_min: 3000,
                segment_bytes_max: 9000,
            },
            plant: self.plant,
        }
    }

    async fn life(&mut self) -> Result<(), String> {
        self.world.set_faults(Faults {
            errors: [0, 0, 10, 50][self.random.below(4) as usize],
            delays: [0, 300][self.random.below(2) as usize],
        });
        let crash_in = 1 + self.random.below(250);
        self.world.crash_in(Some(crash_in));
        let ended = self.work().await;
        self.totals.crashes += 1;
        self.zombies.clear();
        let crash = [Crash::Process, Crash::Machine][self.random.below(2) as usize];
        self.world.restart(crash);
        match ended {
            Ok(()) | Err(End::Life) => Ok(()),
            Err(End::Wrong(text)) => Err(text),
        }
    }

    async fn work(&mut self) -> Outcome {
        let mut server = self.open().await?;
        for _ in 0..self.random.below(60) {
            match self.random.below(100) {
                0..55 => self.append(&mut server).await?,
                55..70 => drop(self.checkpoint(&server).await?),
                70..78 => self.merge(&server).await?,
                78..84 => self.checkpoint_and_merge(&server).await?,
                84..91 => self.truncate(&mut server).await?,
                91..93 => self.backup(&mut server).await?,
                93..96 => server = self.take_over(server).await?,
                _ => self.poke_zombies().await?,
            }
        }
        Ok(())
    }

    /// Without faults, everything is there, and nothing else.
    async fn last_life(&mut self) -> Result<(), String> {
        self.world.set_faults(Faults::default());
        let ended = self.tidy().await;
        match ended {
            Ok(()) => Ok(()),
            Err(End::Life) => Err("a life without faults ended early".into()),
            Err(End::Wrong(text)) => Err(text),
        }
    }

    async fn tidy(&mut self) -> Outcome {
        let mut server = self.open().await?;
        self.append(&mut server).await?;
        self.checkpoint(&server).await?;
        self.merge(&server).await?;
        self.truncate(&mut server).await?;
        let snapshot = server.checkpoints.snapshot();
        let runs: usize = snapshot.status().iter().map(|status| status.runs).sum();
        let objects = self.world.objects();
        let below = |folder: &str| {
            let below = objects.iter().filter(|(path, _)| path.starts_with(folder));
            below.count()
        };
        if below("runs/") != runs {
            return wrong(format!("{runs} runs are named, not all of {objects:?}"));
        }
        let manifests = objects
            .iter()
            .filter(|(path, bytes)| path.starts_with("manifests/") && *bytes > 60);
        match manifests.count() {
            1 => Ok(()),
            count => wrong(format!("there are {count} manifests")),
        }
    }

    /// Decides what an error means; Ok to call again.
    fn judge(&mut self, doing: &str, error: &Error) -> Outcome {
        if self.world.is_crashed() {
            return Err(End::Life);
        }
        match error {
            Error::Reopen(_) => Err(End::Life),
            error if error.can_retry() => {
                self.totals.retries += 1;
                // Whoever loses patience starts anew.
                match self.random.below(12) {
                    0 => Err(End::Life),
                    _ => Ok(()),
                }
            }
            error => wrong(format!("{doing}: {error:?}")),
        }
    }

    async fn open(&mut self) -> Outcome<Server> {
        loop {
            let options = self.options();
            let opened = match self.mode {
                Mode::Bucket => open(&self.store, options).await,
                Mode::Folder => {
                    let folder = Arc::new(SimFolder::new(&self.world));
                    open_with_folder(&self.store, folder, options).await
                }
            };
            let checked = match opened {
                Ok(opened) => self.check(opened).await,
                Err(error) => Err(error),
            };
            match checked {
                Ok(server) => return server,
                Err(_) if self.world.is_crashed() => {
                    self.totals.crashes_in_open += 1;
                    let crash = [Crash::Process, Crash::Machine][self.random.below(2) as usize];
                    self.world.restart(crash);
                }
                Err(error) => match self.judge("opening", &error) {
                    Ok(()) | Err(End::Life) => {}
                    other => other?,
                },
            }
        }
    }

    /// Compares what was found with the model, and goes on from there.
    async fn check(&mut self, opened: Opened) -> Result<Outcome<Server>, Error> {
        let Opened {
            checkpoints,
            log,
            checkpoint,
            mut records,
            torn,
        } = opened;
        self.totals.torn_tails += u64::from(torn.is_some());
        let found = read(&checkpoint).await?;
        let mut tail = vec![];
        while let Some(record) = records.next().await? {
            tail.push(record);
        }
        if let Err(text) = self.compare(checkpoint.time(), checkpoint.metadata(), &found, &tail) {
            return Ok(wrong(text));
        }
        self.model.checkpoint = checkpoint.time();
        if log.last_time() != self.model.time() {
            return Ok(wrong("the log ends at another time"));
        }
        Ok(Ok(Server { checkpoints, log }))
    }

    fn compare(
        &mut self,
        time: Time,
        metadata: &Value,
        found: &State,
        tail: &[Record],
    ) -> Result<(), String> {
        if time < self.model.checkpoint {
            let newest = self.model.checkpoint;
            return Err(format!("checkpoint {newest} is gone, {time} is there"));
        }
        let expected = self.model.state_at(time);
        if expected.as_ref() != Some(found) {
            return Err(format!(
                "at {time} there is {found:?} and should be {expected:?}"
            ));
        }
        if time > 0 && *metadata != json!({ "time": time }) {
            return Err(format!("at {time} the metadata is {metadata}"));
        }
        let acknowledged = self.model.records.iter().filter(|r| r.time > time);
        let acknowledged: Vec<Record> = acknowledged.cloned().collect();
        let doubt = std::mem::take(&mut self.model.in_doubt);
        let with_doubt = [acknowledged.clone(), doubt.clone()].concat();
        if !doubt.is_empty() && tail == with_doubt {
            self.totals.doubts_there += 1;
            self.model.acknowledge(&doubt);
        } else if tail == acknowledged {
            self.totals.doubts_gone += u64::from(!doubt.is_empty());
        } else {
            let times = |records: &[Record]| records.iter().map(|r| r.time).collect::<Vec<_>>();
            return Err(format!(
                "after {time} the log has {:?} and should have {:?}, perhaps {:?}",
                times(tail),
                times(&acknowledged),
                times(&doubt)
            ));
        }
        Ok(())
    }

    async fn append(&mut self, server: &mut Server) -> Outcome {
        let records = self.model.invent(&mut self.random);
        self.model.in_doubt = records.clone();
        loop {
            match server.log.append(&records).await {
                Ok(()) => break,
                Err(error) => self.judge("appending", &error)?,
            }
        }
        self.model.in_doubt.clear();
        self.model.acknowledge(&records);
        self.totals.appends += 1;
        Ok(())
    }

    /// A checkpoint with all changes up to now.
    fn begin(&self, server: &Server) -> (Checkpoint, Vec<Entry>) {
        let since = server.checkpoints.time();
        let after = self.model.records.iter().filter(|r| r.time > since);
        let entries = after.flat_map(|record| record.entries.clone());
        (server.checkpoints.begin(since), entries.collect())
    }

    async fn checkpoint(&mut self, server: &Server) -> Outcome {
        let (mut checkpoint, entries) = self.begin(server);
        let time = self.model.time();
        for entry in entries {
            loop {
                match fill(&mut checkpoint, &entry).await {
                    Ok(()) => break,
                    Err(error) => self.judge("filling a checkpoint", &error)?,
                }
            }
        }
        loop {
            match checkpoint.commit(time, &json!({ "time": time })).await {
                Ok(()) => break,
                Err(error) => self.judge("committing", &error)?,
            }
        }
        self.model.checkpoint = time;
        self.totals.checkpoints += 1;
        if server.checkpoints.time() != time {
            return wrong("a checkpoint is not the newest");
        }
        Ok(())
    }

    async fn merge(&mut self, server: &Server) -> Outcome {
        loop {
            match server.checkpoints.compact().await {
                Ok(true) => self.totals.merges += 1,
                Ok(false) => return Ok(()),
                Err(error) => self.judge("merging", &error)?,
            }
        }
    }

    async fn checkpoint_and_merge(&mut self, server: &Server) -> Outcome {
        let checkpoints = server.checkpoints.clone();
        let snapshot = checkpoints.snapshot();
        let before = self.model.state_at(snapshot.time());
        let merged = async {
            let merged = checkpoints.compact().await;
            let read = read(&snapshot).await;
            (merged, read)
        };
        let (done, (merged, read)) = futures::join!(self.checkpoint(server), merged);
        done?;
        match merged {
            Ok(merged) => self.totals.merges += u64::from(merged),
            Err(error) => self.judge("merging beside a checkpoint", &error)?,
        }
        match read {
            Ok(read) if Some(&read) == before.as_ref() => Ok(()),
            Ok(_) => wrong("a snapshot changed while it was read"),
            Err(error) => self.judge("reading beside a checkpoint", &error),
        }
    }

    async fn truncate(&mut self, server: &mut Server) -> Outcome {
        let time = self.model.checkpoint + 1;
        match server.log.truncate_before(time).await {
            Ok(()) => self.totals.truncations += 1,
            Err(error) => self.judge("truncating", &error)?,
        }
        Ok(())
    }

    /// Copies the store as another process does, while the server goes on.
    async fn backup(&mut self, server: &mut Server) -> Outcome {
        let target = Store::memory();
        let folder = match self.mode {
            Mode::Folder => Some(Arc::new(SimFolder::new(&self.world)) as Arc<dyn LogFolder>),
            Mode::Bucket => None,
        };
        let (store, before) = (self.store.clone(), self.model.time());
        let copy = copy_with_folder(&store, folder, &target);
        let work = async {
            for _ in 0..2 {
                self.append(server).await?;
                self.checkpoint(server).await?;
                self.truncate(server).await?;
                self.merge(server).await?;
            }
            Ok(())
        };
        let (copied, worked) = futures::join!(copy, work);
        worked?;
        let copied = match copied {
            Ok(copied) => copied,
            Err(error) => return self.judge("backing up", &error),
        };
        let restored = restore(&target).await;
        let restored = restored.map_err(|error| End::Wrong(format!("restoring: {error}")))?;
        if copied.last < before {
            return wrong("a backup lacks what was acknowledged before it");
        }
        if Some(restored) != self.model.state_at(copied.last) {
            return wrong("a backup is not what was there");
        }
        self.totals.backups += 1;
        self.totals.backup_retries += copied.retries as u64;
        Ok(())
    }

    /// Opens the store once more, while the server that has it still runs.
    async fn take_over(&mut self, server: Server) -> Outcome<Server> {
        if self.mode == Mode::Folder {
            return Ok(server);
        }
        self.zombies.push(server);
        let opened = self.open().await?;
        self.totals.takeovers += 1;
        Ok(opened)
    }

    /// Those who were taken over must notice, however late.
    async fn poke_zombies(&mut self) -> Outcome {
        let mut zombies = std::mem::take(&mut self.zombies);
        for zombie in &mut zombies {
            let time = self.model.time().max(zombie.log.last_time()) + 1;
            let record = Record {
                time,
                entries: vec![],
            };
            let appended = zombie.log.append(&[record]).await;
            let mut checkpoint = zombie.checkpoints.begin(zombie.checkpoints.time());
            let committed = checkpoint.commit(time, &Value::Null).await;
            for outcome in [appended, committed] {
                match outcome {
                    Ok(()) => return wrong("a server that was taken over goes on"),
                    Err(Error::Fenced(_)) => self.totals.fenced += 1,
                    // Later it says that the append in doubt must be given again.
                    Err(Error::InvalidUse(_)) => {}
                    Err(error) => self.judge("poking", &error)?,
                }
            }
        }
        self.zombies = zombies;
        Ok(())
    }
}

async fn fill(checkpoint: &mut Checkpoint, entry: &Entry) -> Result<(), Error> {
    match entry {
        Entry::Binding { .. } => {}
        Entry::Catalog { change } => {
            if let Some(id) = change["create"].as_u64() {
                checkpoint.create(collection(id))?;
            }
            if let Some(id) = change["remove"].as_u64() {
                checkpoint.remove(id);
            }
        }
        Entry::Rows { table, updates } => checkpoint.add(*table, updates.clone()).await?,
    }
    Ok(())
}

async fn read(snapshot: &Arc<Snapshot>) -> Result<State, Error> {
    let mut state = State::new();
    let ids: Vec<u64> = snapshot.collections().map(|c| c.id).collect();
    for id in ids {
        let mut rows = Rows::new();
        let mut scan = snapshot.scan(id)?;
        while let Some(batch) = scan.next().await? {
            apply(&mut rows, &batch);
        }
        state.insert(id, rows);
    }
    Ok(state)
}

async fn restore(store: &Store) -> Result<State, Error> {
    let mut opened = open(store, Options::new(1)).await?;
    let mut state = read(&opened.checkpoint).await?;
    while let Some(record) = opened.records.next().await? {
        replay(&mut state, &record);
    }
    Ok(state)
}
