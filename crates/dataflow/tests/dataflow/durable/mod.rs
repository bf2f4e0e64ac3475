//! Checkpoints and restores, against a run that was never interrupted.

mod large;
mod plans;
mod store;

use std::collections::{BTreeMap, BTreeSet};

use arrow::datatypes::DataType::Int64;
use ruslo_dataflow::{Command, Faults};
use ruslo_repr::{Diff, ObjectId, Plan, Schema, Time};

use crate::harness::{Cluster, Object, Random, Row, Rows, batch, consolidate, opt};
use plans::{plans, random_row, types};
use store::Store;

/// What comes in until one Close.
struct Step {
    sources: [Vec<Row>; 2],
    table: Vec<(Row, Diff)>,
}

/// Steps before the views are made, which they read as their past.
const PAST: usize = 2;

fn script(seed: u64, steps: usize) -> Vec<Step> {
    let mut random = Random::new(seed);
    let mut written: Vec<Row> = vec![];
    let steps = (0..steps).map(|_| {
        // Keys of either that the other does not have.
        let sources = [6, 4].map(|keys| {
            let count = random.below(9);
            (0..count).map(|_| random_row(&mut random, keys)).collect()
        });
        let mut table = vec![];
        for _ in 0..random.below(4) {
            if random.below(3) == 0 && !written.is_empty() {
                let victim = random.below(written.len() as u64) as usize;
                table.push((written.swap_remove(victim), -1));
            } else {
                let row = vec![opt(random.nullable(5)), opt(random.nullable(400))];
                written.push(row.clone());
                table.push((row, 1));
            }
        }
        Step { sources, table }
    });
    steps.collect()
}

/// A run over the steps, from the start or from a checkpoint.
struct Run {
    cluster: Cluster,
    sources: [ObjectId; 2],
    table: Object,
    views: Vec<(String, Object)>,
    /// All that was handed over.
    store: Store,
    /// Rows and errors of every view and the table, by time.
    seen: BTreeMap<Time, Vec<(String, Rows, Rows)>>,
    /// The store after each checkpoint.
    stores: BTreeMap<usize, Store>,
}

/// What the first has more than the second.
fn difference(some: &Rows, others: &Rows) -> Rows {
    let others = others.iter().map(|(row, diff)| (row.clone(), -diff));
    let some = some.iter().map(|(row, diff)| (row.clone(), *diff));
    consolidate(some.chain(others))
}

fn time_after(steps: usize) -> Time {
    steps as Time * 10
}

impl Run {
    /// Makes all objects; restored ones at the checkpoint after `from` steps.
    fn new(workers: usize, restore: Option<(&Store, usize)>, faults: Faults) -> Run {
        let mut cluster = Cluster::with_faults(workers, faults);
        cluster.time = time_after(restore.map_or(0, |(_, from)| from));
        let sources = [cluster.source(), cluster.source()];
        let columns = [("k", Int64), ("v", Int64)];
        let table = Object {
            id: cluster.new_id(),
            schema: Schema::new(columns),
            key: vec![0],
        };
        cluster.workers.send(Command::CreateTable {
            id: table.id,
            schema: table.schema.clone(),
            key: vec![0],
            as_of: cluster.time,
            restore: restore.is_some(),
        });
        let store = restore.map_or_else(Store::default, |(store, _)| store.clone());
        Run {
            cluster,
            sources,
            table,
            views: vec![],
            store,
            seen: BTreeMap::new(),
            stores: BTreeMap::new(),
        }
    }

    fn create_views(&mut self, restoring: bool) {
        let mut first = None;
        for (name, plan) in plans(self.sources[0], self.sources[1], &self.table) {
            let object = self.create_view(plan, restoring);
            first.get_or_insert(object.clone());
            self.views.push((name, object));
        }
        let on_view = crate::aggregates::reduce(first.unwrap().get(), &[0], &[]);
        let object = self.create_view(on_view, restoring);
        self.views.push(("view on view".into(), object));
    }

    fn create_view(&mut self, plan: Plan, restoring: bool) -> Object {
        let object = Object {
            id: self.cluster.new_id(),
            schema: plan.schema().clone(),
            key: vec![0],
        };
        self.cluster.workers.send(Command::CreateView {
            id: object.id,
            name: object.id.to_string(),
            plan,
            key: object.key.clone(),
            as_of: self.cluster.time,
            hydrate: self.sources.to_vec(),
            restore: restoring.then(|| self.store.points(object.id)),
        });
        object
    }

    /// Pushes steps to the hydration queues; with their own times if `exact`.
    fn hydrate(&mut self, script: &[Step], steps: std::ops::Range<usize>, exact: bool) {
        let workers = self.cluster.workers.workers();
        for (_, view) in &self.views {
            for (i, source) in self.sources.iter().enumerate() {
                let queue = |w| self.cluster.workers.hydration_queue(w, view.id, *source);
                for step in steps.clone() {
                    let mut batch = batch(&types(), &script[step].sources[i], 0, 0);
                    batch.time = exact.then(|| time_after(step + 1));
                    queue(step % workers).push(batch).unwrap();
                }
                (0..workers).for_each(|worker| queue(worker).finish());
            }
        }
        for id in self
            .views
            .iter()
            .map(|(_, view)| view.id)
            .collect::<Vec<_>>()
        {
            self.cluster.wait_hydrated(id);
        }
    }

    /// Writes to the table, and to the live queues if `live`, and closes.
    fn step(&mut self, script: &[Step], step: usize, live: bool) {
        let worker = step % self.cluster.workers.workers();
        for (source, rows) in self.sources.iter().zip(&script[step].sources) {
            if live {
                self.cluster.push(*source, worker, &types(), rows, 1);
            }
        }
        self.cluster.write(&self.table, &script[step].table);
        let time = self.cluster.close();
        assert_eq!(time, time_after(step + 1));
        // Only then is it sure that the next batches are of the next time.
        self.cluster.offsets(time);
    }

    fn look(&mut self, time: Time) {
        let mut objects = self.views.clone();
        objects.push(("table".into(), self.table.clone()));
        let seen = objects.into_iter().map(|(name, object)| {
            let rows = self.cluster.peek(&object, time);
            let errors = self.cluster.errors(&object, time);
            (name, rows, errors)
        });
        let seen = seen.collect();
        self.seen.insert(time, seen);
    }

    fn checkpoint(&mut self, steps: usize) {
        let mut objects: Vec<ObjectId> = self.views.iter().map(|(_, view)| view.id).collect();
        objects.push(self.table.id);
        // What a checkpoint leaves out comes with the next.
        objects.retain(|id| !steps.is_multiple_of(4) || !id.0.is_multiple_of(3));
        self.cluster.checkpoint(time_after(steps), objects);
        self.store.take(&mut self.cluster);
        self.stores.insert(steps, self.store.clone());
    }

    /// Takes the steps live, with checkpoints after some of them.
    fn live(&mut self, script: &[Step], from: usize, checkpoints: &[usize]) {
        for step in from..script.len() {
            self.step(script, step, true);
            // The checkpoint comes when later times are closed already.
            if checkpoints.contains(&step) {
                self.cluster.wait_complete(time_after(step));
                self.checkpoint(step);
            }
        }
        let time = self.cluster.time;
        self.cluster.wait_complete(time);
        if checkpoints.contains(&script.len()) {
            self.checkpoint(script.len());
        }
    }

    fn from_start(workers: usize, script: &[Step], checkpoints: &[usize], faults: Faults) -> Run {
        let mut run = Run::new(workers, None, faults);
        (0..PAST).for_each(|step| run.step(script, step, true));
        run.create_views(false);
        run.hydrate(script, 0..PAST, false);
        run.live(script, PAST, checkpoints);
        for steps in PAST..=script.len() {
            run.look(time_after(steps));
        }
        run
    }

    /// Restores what was handed over until `from`, reads up to `live` again and goes on.
    fn from_checkpoint(
        workers: usize,
        script: &[Step],
        (store, from, live): (&Store, usize, usize),
        checkpoints: &[usize],
    ) -> Run {
        let mut run = Run::new(workers, Some((store, from)), Faults::default());
        run.create_views(true);
        // Times are closed before, while and after what was stored comes in.
        let between = (from + live) / 2;
        (from..between).for_each(|step| run.step(script, step, false));
        assert!(!run.cluster.is_hydrated(run.table.id));
        let ids: Vec<ObjectId> = run.views.iter().map(|(_, view)| view.id).collect();
        for id in ids.into_iter().chain([run.table.id]) {
            store.feed(&run.cluster, id);
        }
        (between..live).for_each(|step| run.step(script, step, false));
        run.hydrate(script, from..live, true);
        run.cluster.wait_hydrated(run.table.id);
        // Nothing that was restored is handed over again, and nothing that is later.
        run.checkpoint(from);
        run.live(script, live, checkpoints);
        for steps in from..=script.len() {
            run.look(time_after(steps));
        }
        run
    }

    /// What this run has other than the longer one.
    fn differences(&self, whole: &Run) -> Vec<String> {
        let mut differences = vec![];
        for (time, seen) in &self.seen {
            for (seen, expected) in seen.iter().zip(&whole.seen[time]) {
                if seen != expected {
                    let rows = difference(&seen.1, &expected.1);
                    let errors = difference(&seen.2, &expected.2);
                    differences.push(format!("at {time}: {}: {rows:?} {errors:?}", seen.0));
                }
            }
        }
        for (steps, store) in &self.stores {
            for (point, content) in &whole.stores[steps].0 {
                if store.0.get(point) != Some(content) {
                    let stored = store.0.get(point);
                    differences.push(format!("after {steps}: {stored:?} not {content:?}"));
                }
            }
        }
        differences
    }
}

#[test]
fn a_restored_run_is_like_one_that_was_never_interrupted() {
    for (seed, workers, read_again) in [(1, [1, 2, 1], 2), (2, [2, 1, 3], 0)] {
        let script = script(seed, 15);
        let checkpoints = [4, 5, 8, 11, 15];
        let whole = Run::from_start(workers[0], &script, &checkpoints, Faults::default());
        let place = (&whole.stores[&5], 5, 7);
        let second = Run::from_checkpoint(workers[1], &script, place, &[8, 11, 15]);
        assert_eq!(second.differences(&whole), Vec::<String>::new());
        // The store goes on from where it was, with the changes of another run.
        let place = (&second.stores[&11], 11, 11 + read_again);
        let third = Run::from_checkpoint(workers[2], &script, place, &[15]);
        assert_eq!(third.differences(&whole), Vec::<String>::new());
    }
}

#[test]
fn every_point_is_needed() {
    let script = script(4, 13);
    let whole = Run::from_start(1, &script, &[11], Faults::default());
    let store = &whole.stores[&11];
    let names: BTreeSet<&str> = store.0.values().map(|(p, _)| p.name.as_str()).collect();
    let expected = [
        "distinct",
        "errors",
        "extremes",
        "group rows",
        "groups",
        "rows",
        "rows by key",
        "rows without key",
    ];
    assert!(names.into_iter().eq(expected));
    let last = store.0.keys().map(|(_, index)| *index).max().unwrap();
    let mut unneeded = vec![];
    for left_out in 0..=last {
        let mut broken = store.clone();
        let mut emptied = BTreeSet::new();
        for ((id, index), (_, content)) in &mut broken.0 {
            if *index == left_out && !content.is_empty() {
                content.clear();
                emptied.insert(*id);
            }
        }
        let run = Run::from_checkpoint(1, &script, (&broken, 11, 12), &[]);
        let differences = run.differences(&whole);
        let broken = run
            .views
            .iter()
            .filter(|(_, view)| emptied.contains(&view.id));
        for (name, _) in broken {
            let noticed = differences
                .iter()
                .any(|d| d.contains(&format!(": {name}: ")));
            if !noticed {
                unneeded.push((name.clone(), left_out));
            }
        }
    }
    // Without keys, any one row of the other side leaves no row without a match.
    assert_eq!(unneeded, [("Anti join 4".to_string(), 0)]);
}

#[test]
fn a_point_that_hands_over_nothing_is_noticed() {
    let script = script(6, 7);
    let faults = Faults {
        durable: true,
        ..Faults::default()
    };
    let whole = Run::from_start(1, &script, &[5, 7], Faults::default());
    let broken = Run::from_start(1, &script, &[5, 7], faults);
    assert!(!broken.differences(&whole).is_empty());
}

#[test]
fn points_that_do_not_fit_are_refused() {
    let script = script(5, 5);
    let whole = Run::from_start(2, &script, &[5], Faults::default());
    let mut run = Run::new(2, Some((&whole.stores[&5], 5)), Faults::default());
    let plan = |run: &Run, name: &str| {
        let plans = plans(run.sources[0], run.sources[1], &run.table);
        plans.into_iter().find(|(of, _)| of == name).unwrap().1
    };
    let points = |name: &str| {
        let (_, view) = whole.views.iter().find(|(of, _)| of == name).unwrap();
        whole.store.points(view.id)
    };
    for (name, stored, fits) in [
        ("count", "count", true),
        ("count", "sums", false),
        ("count", "view on view", false),
        ("mixture", "count", false),
    ] {
        let id = run.cluster.new_id();
        run.cluster.workers.send(Command::CreateView {
            id,
            name: name.into(),
            plan: plan(&run, name),
            key: vec![0],
            as_of: run.cluster.time,
            hydrate: vec![],
            restore: Some(points(stored)),
        });
        if !fits {
            run.cluster
                .wait("rejection", |c| c.rejected.get(&id) == Some(&2));
            let queue = run.cluster.workers.restore_queue(0, id, 0);
            assert!(queue.push(batch(&types(), &[], 0, 0)).is_err());
        }
        run.cluster.workers.send(Command::Drop { id });
    }
    run.cluster.close();
}
