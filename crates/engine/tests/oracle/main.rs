//! The oracle: random views over tables that change at random, held against recomputation.
//!
//! After every statement that writes, so at every closed time, each view's rows (kept up to date
//! by the workers) must be exactly the rows of the view's own query, run from scratch by
//! DataFusion over the tables as they are. The two share the binder but neither aggregates, joins
//! nor state. Planted faults show that the comparison can fail.
//!
//! Every history runs once more with crashes in its middle, between checkpoints that begin every few
//! milliseconds: what comes back must be what was there, and be kept up to date from there on.

mod queries;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use ruslo_engine::{Config, Engine, ErrorKind, Faults, Outcome, Session, Storage};
use ruslo_repr::text::{TextStyle, write_text};

use queries::{Operator, View, random_view};

const TABLES: [(&str, &str); 3] = [
    (
        "a",
        "CREATE TABLE a (id int PRIMARY KEY, k int, s varchar, v bigint, n numeric, f double)",
    ),
    ("b", "CREATE TABLE b (k int, s varchar, w bigint)"),
    (
        "c",
        "CREATE TABLE c (k int PRIMARY KEY, t varchar, x numeric)",
    ),
];

/// What was checked, per operator.
#[derive(Default)]
struct Checked {
    plans: BTreeMap<Operator, usize>,
    times: BTreeMap<Operator, usize>,
    updates: BTreeMap<Operator, usize>,
}

struct Oracle {
    rng: StdRng,
    config: Config,
    faults: Faults,
    /// None only while it is being started again.
    running: Option<(Engine, Session)>,
    views: Vec<View>,
    checked: Checked,
    /// How many writes are left until the next crash; None: there is none.
    crash_after: Option<u32>,
    crashes: u32,
}

/// A view whose rows were not what its query gives.
#[derive(Debug)]
#[expect(dead_code, reason = "read by Debug, when a test fails")]
struct Difference {
    view: String,
    after: String,
    only_in_view: Vec<String>,
    only_in_query: Vec<String>,
}

impl Oracle {
    async fn start(seed: u64, workers: usize, faults: Faults) -> Oracle {
        let storage = Storage::Memory;
        Self::with(seed, Config { workers, storage }, faults).await
    }

    /// One that crashes now and then, with its data in `folder`.
    async fn crashing(seed: u64, workers: usize, faults: Faults, folder: &Path) -> Oracle {
        let storage = Storage::Store {
            url: folder.display().to_string(),
            key_file: folder.join("key"),
            checkpoint_interval: Duration::from_millis(20),
        };
        let mut oracle = Self::with(seed, Config { workers, storage }, faults).await;
        oracle.crash_after = Some(3);
        oracle
    }

    async fn with(seed: u64, config: Config, faults: Faults) -> Oracle {
        let running = Some(start(&config, faults).await);
        Oracle {
            rng: StdRng::seed_from_u64(seed),
            config,
            faults,
            running,
            views: vec![],
            checked: Checked::default(),
            crash_after: None,
            crashes: 0,
        }
    }

    async fn crash(&mut self) {
        if let Some((engine, session)) = self.running.take() {
            drop(session);
            engine.crash().await;
        }
        self.running = Some(start(&self.config, self.faults).await);
        self.crashes += 1;
    }

    async fn run(&mut self, sql: &str) -> Outcome {
        let (_, session) = self.running.as_mut().expect("an engine that runs");
        let statements = session.parse(sql).unwrap();
        let mut last = Outcome::Empty;
        for statement in &statements {
            let outcome = session.execute(statement, &[], &[]).await;
            last = outcome.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        }
        last
    }

    /// The rows of a query as sorted text.
    async fn rows(&mut self, sql: &str) -> Vec<String> {
        let Outcome::Rows { batches, .. } = self.run(sql).await else {
            panic!("{sql}: no rows")
        };
        let mut rows = vec![];
        for batch in &batches {
            for row in 0..batch.num_rows() {
                let mut text = String::new();
                for column in batch.columns() {
                    if !write_text(column, row, &TextStyle::default(), &mut text) {
                        text.push_str("NULL");
                    }
                    text.push('|');
                }
                rows.push(text);
            }
        }
        rows.sort();
        rows
    }

    async fn history(&mut self, views: usize, writes: usize) -> Result<(), Difference> {
        for (_, create) in TABLES {
            self.run(create).await;
        }
        for i in 0..views {
            // Half of the views are made on tables that have rows already.
            if i == views / 2 {
                for _ in 0..writes / 2 {
                    self.write_and_check().await?;
                }
            }
            let view = random_view(&mut self.rng, i, &self.views);
            self.run(&format!(
                "CREATE MATERIALIZED VIEW {} AS {}",
                view.name, view.query
            ))
            .await;
            for operator in &view.operators {
                *self.checked.plans.entry(*operator).or_default() += 1;
            }
            self.views.push(view);
            self.check("CREATE", 0).await?;
        }
        for _ in 0..writes {
            self.write_and_check().await?;
        }
        Ok(())
    }

    async fn write_and_check(&mut self) -> Result<(), Difference> {
        let statement = queries::random_write(&mut self.rng);
        let outcome = self.run(&statement).await;
        let Outcome::Done { tag } = outcome else {
            panic!("{statement}: {outcome:?}")
        };
        let updates = tag
            .rsplit(' ')
            .next()
            .and_then(|n| n.parse().ok())
            .unwrap_or(0);
        // What was acknowledged is there, whether or not a checkpoint has come by.
        if let Some(left) = self.crash_after {
            self.crash_after = Some(left.saturating_sub(1));
            if left == 0 {
                self.crash().await;
                self.crash_after = Some(self.rng.random_range(2..8));
                return self
                    .check(&format!("a crash after {statement}"), updates)
                    .await;
            }
        }
        self.check(&statement, updates).await
    }

    async fn check(&mut self, after: &str, updates: usize) -> Result<(), Difference> {
        for i in 0..self.views.len() {
            let View {
                name,
                query,
                operators,
                ..
            } = self.views[i].clone();
            let kept = self.rows(&format!("SELECT * FROM {name}")).await;
            let fresh = self.rows(&query).await;
            for operator in operators {
                *self.checked.times.entry(operator).or_default() += 1;
                *self.checked.updates.entry(operator).or_default() += updates;
            }
            if kept != fresh {
                return Err(Difference {
                    view: query,
                    after: after.to_string(),
                    only_in_view: minus(&kept, &fresh),
                    only_in_query: minus(&fresh, &kept),
                });
            }
        }
        Ok(())
    }
}

/// A store is free a little after the engine that crashed: its threads have to end.
async fn start(config: &Config, faults: Faults) -> (Engine, Session) {
    let began = Instant::now();
    loop {
        match Engine::start_with_faults(config.clone(), faults).await {
            Ok(engine) => {
                let session = engine.session("root", "dev");
                return (engine, session);
            }
            Err(error) if began.elapsed() > Duration::from_secs(10) => panic!("{error:?}"),
            Err(error) => assert_eq!(error.kind, ErrorKind::InvalidState, "{error:?}"),
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// The rows of `a` that are not in `b`, counted.
fn minus(a: &[String], b: &[String]) -> Vec<String> {
    let mut left = b.to_vec();
    let mut rest = vec![];
    for row in a {
        match left.iter().position(|other| other == row) {
            Some(at) => drop(left.swap_remove(at)),
            None => rest.push(row.clone()),
        }
    }
    rest
}

fn histories() -> u64 {
    let set = std::env::var("ORACLE_HISTORIES").ok();
    set.and_then(|n| n.parse().ok()).unwrap_or(12)
}

fn first_seed() -> u64 {
    let set = std::env::var("ORACLE_SEED").ok();
    set.map_or(1, |seed| seed.parse().unwrap())
}

fn workers(seed: u64) -> usize {
    1 + (seed % 2) as usize
}

fn replay(seed: u64, test: &str) -> String {
    format!(
        "again with: ORACLE_SEED={seed} ORACLE_HISTORIES=1 cargo test --workspace --test oracle \
         {test}"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn views_equal_recomputation_at_every_time() {
    let first = first_seed();
    let mut total = Checked::default();
    for seed in first..first + histories() {
        let mut oracle = Oracle::start(seed, workers(seed), Faults::default()).await;
        if let Err(difference) = oracle.history(10, 16).await {
            let replay = replay(seed, "at_every_time");
            panic!("seed {seed}: {difference:#?}\n{replay}");
        }
        for (operator, n) in oracle.checked.plans {
            *total.plans.entry(operator).or_default() += n;
        }
        for (operator, n) in oracle.checked.times {
            *total.times.entry(operator).or_default() += n;
        }
        for (operator, n) in oracle.checked.updates {
            *total.updates.entry(operator).or_default() += n;
        }
    }
    println!(
        "{:<18} {:>7} {:>9} {:>9}",
        "operator", "plans", "times", "updates"
    );
    for operator in Operator::ALL {
        let of = |map: &BTreeMap<Operator, usize>| map.get(&operator).copied().unwrap_or(0);
        let (plans, times, updates) = (of(&total.plans), of(&total.times), of(&total.updates));
        println!(
            "{:<18} {plans:>7} {times:>9} {updates:>9}",
            format!("{operator:?}")
        );
        assert!(
            plans > 0 || histories() < 12,
            "no plan with {operator:?} was checked"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn views_equal_recomputation_over_crashes() {
    let first = first_seed();
    let mut crashes = 0;
    for seed in first..first + histories() {
        let folder = tempfile::tempdir().unwrap();
        let (workers, faults) = (workers(seed), Faults::default());
        let mut oracle = Oracle::crashing(seed, workers, faults, folder.path()).await;
        if let Err(difference) = oracle.history(10, 16).await {
            let replay = replay(seed, "over_crashes");
            panic!("seed {seed}: {difference:#?}\n{replay}");
        }
        assert!(oracle.crashes >= 2, "seed {seed}: {}", oracle.crashes);
        crashes += oracle.crashes;
    }
    println!("{crashes} crashes");
}

async fn is_caught(faults: Faults) -> bool {
    for seed in 1..=10 {
        let mut oracle = Oracle::start(seed, 1, faults).await;
        if oracle.history(10, 12).await.is_err() {
            return true;
        }
    }
    false
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_count_is_caught() {
    assert!(
        is_caught(Faults {
            count: true,
            ..Faults::default()
        })
        .await
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_join_is_caught() {
    assert!(
        is_caught(Faults {
            join: true,
            ..Faults::default()
        })
        .await
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_retraction_is_caught() {
    assert!(
        is_caught(Faults {
            retraction: true,
            ..Faults::default()
        })
        .await
    );
}
