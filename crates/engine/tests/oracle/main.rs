//! The oracle: random views over tables that change at random, held against recomputation.
//!
//! After every statement that writes, so at every closed time, each view's rows (kept up to date
//! by the workers) must be exactly the rows of the view's own query, run from scratch by
//! DataFusion over the tables as they are. The two share the binder but neither aggregates, joins
//! nor state. Planted faults show that the comparison can fail.

mod queries;

use std::collections::BTreeMap;

use rand::SeedableRng;
use rand::rngs::StdRng;
use ruslo_engine::{Config, Engine, Faults, Outcome, Session, Storage};
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
    session: Session,
    views: Vec<View>,
    checked: Checked,
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
        let engine = Engine::start_with_faults(
            Config {
                workers,
                storage: Storage::Memory,
            },
            faults,
        )
        .await
        .unwrap();
        let session = engine.session("root", "dev");
        let rng = StdRng::seed_from_u64(seed);
        Oracle {
            rng,
            session,
            views: vec![],
            checked: Checked::default(),
        }
    }

    async fn run(&mut self, sql: &str) -> Outcome {
        let statements = self.session.parse(sql).unwrap();
        let mut last = Outcome::Empty;
        for statement in &statements {
            let outcome = self.session.execute(statement, &[], &[]).await;
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn views_equal_recomputation_at_every_time() {
    let first: u64 = std::env::var("ORACLE_SEED")
        .ok()
        .map_or(1, |seed| seed.parse().unwrap());
    let mut total = Checked::default();
    for seed in first..first + histories() {
        let workers = 1 + (seed % 2) as usize;
        let mut oracle = Oracle::start(seed, workers, Faults::default()).await;
        if let Err(difference) = oracle.history(10, 16).await {
            panic!(
                "seed {seed}: {difference:#?}\nagain with: \
                 ORACLE_SEED={seed} ORACLE_HISTORIES=1 cargo test -p ruslo-engine --test oracle"
            );
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
