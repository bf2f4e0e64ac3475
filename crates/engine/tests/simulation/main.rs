//! The whole engine in a world that follows from a seed: its clock, its random numbers, its
//! threads' turns, its broker, its store and what its sinks write to.
//!
//! ```text
//!   history ── lives ── rounds         broker, outlet, store: outlive each life
//!      │         └ ended by a crash at any step, or a clean end
//!      └ each read, and in the end each sink, is held against a naive recomputation
//! ```
//!
//! Each history runs in a process of its own: what a process draws once (the seeds of hash maps,
//! counters of libraries) is then the same each time, so that one command replays a seed.

mod broker;
mod checks;
mod clock;
mod history;
mod life;
mod model;
mod outlet;
mod steps;

use std::process::{Command, Output};

use history::History;
use ruslo_engine::host::Plant;

/// Without a number in the environment.
const HISTORIES: u64 = 250;
/// How many are tried at most to catch a fault that was built in.
const PLANTED: u64 = 60;
/// Processes at a time.
const AT_ONCE: usize = 2;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn plant() -> Plant {
    match std::env::var("RUSLO_PLANT").as_deref() {
        Ok("skip-binding") => Plant::SkipBinding,
        Ok("before-append") => Plant::AcknowledgeBeforeAppend,
        Ok("before-sync") => Plant::AcknowledgeBeforeSync,
        _ => Plant::Nothing,
    }
}

/// The history of RUSLO_HISTORY in this process, which the other tests start for each of theirs;
/// without it, one in a process that is started here.
#[test]
fn one_history() {
    match number("RUSLO_HISTORY") {
        Some(seed) => live(seed),
        None => {
            let output = run(HISTORIES, "");
            let wrong = line(&output, "wrong: ");
            assert!(output.status.success(), "{wrong:?}");
            assert!(line(&output, "history: trace").is_some());
        }
    }
}

fn live(seed: u64) {
    clock::simulate();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_path_buf();
    let thread = std::thread::Builder::new().stack_size(256 << 20);
    let ran = thread.spawn(move || {
        let history = History::new(seed, plant(), &path);
        let result = history.run();
        let counts = history.counts.borrow();
        println!(
            "history: trace {:016x} lives {} killed {} rounds {} statements {} reads {} told {}",
            history.trace(),
            counts.lives,
            counts.killed,
            counts.rounds,
            counts.statements,
            counts.reads,
            counts.told
        );
        result
    });
    let result = ran.unwrap().join();
    match result {
        Ok(Ok(())) => {}
        Ok(Err(wrong)) => panic!("wrong: {wrong}"),
        Err(_) => panic!("wrong: a panic"),
    }
}

/// Runs one history in a process of its own.
fn run(seed: u64, plant: &str) -> Output {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "one_history", "--nocapture"]);
    command.env("RUSLO_HISTORY", seed.to_string());
    command.env("RUSLO_PLANT", plant);
    command.output().unwrap()
}

fn line<'a>(output: &'a Output, with: &str) -> Option<&'a str> {
    let text = |bytes| std::str::from_utf8(bytes).unwrap_or_default();
    let mut lines = text(&output.stdout)
        .lines()
        .chain(text(&output.stderr).lines());
    lines.find(|line| line.contains(with))
}

/// Runs histories side by side, in the order of their seeds, until `stop` says so.
fn run_all(seeds: std::ops::Range<u64>, plant: &str, stop: impl Fn(u64, &Output) -> bool + Sync) {
    let next = std::sync::atomic::AtomicU64::new(seeds.start);
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    if stop(seed, &run(seed, plant)) {
                        next.store(seeds.end, std::sync::atomic::Ordering::Relaxed);
                    }
                }
            });
        }
    });
}

#[test]
fn views_and_sinks_are_right_in_every_history() {
    let seeds = match number("RUSLO_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("RUSLO_HISTORIES").unwrap_or(HISTORIES),
    };
    let wrong = std::sync::Mutex::new(vec![]);
    let totals = std::sync::Mutex::new([0u64; 6]);
    run_all(seeds.clone(), "", |seed, output| {
        if !output.status.success() {
            let what = line(output, "wrong: ")
                .unwrap_or("the process died")
                .to_string();
            println!("seed {seed}: {what}");
            wrong.lock().unwrap().push((seed, what));
        }
        let numbers = line(output, "history: trace")
            .unwrap_or_default()
            .split(' ');
        let numbers = numbers
            .skip(4)
            .step_by(2)
            .filter_map(|n| n.parse::<u64>().ok());
        for (total, number) in totals.lock().unwrap().iter_mut().zip(numbers) {
            *total += number;
        }
        false
    });
    let [lives, killed, rounds, statements, reads, told] = *totals.lock().unwrap();
    println!(
        "{} histories: {lives} lives, {killed} killed, {rounds} rounds, {statements} statements, \
         {reads} reads, {told} times told to subscribers",
        seeds.end - seeds.start
    );
    let mut wrong = wrong.into_inner().unwrap();
    wrong.sort();
    if let Some((seed, what)) = wrong.first() {
        panic!(
            "{} histories are wrong, the first is {seed}: {what}\nreplay it with: \
             RUSLO_TRACE=1 RUSLO_HISTORY={seed} cargo test --workspace --test simulation -- \
             --exact one_history --nocapture",
            wrong.len()
        );
    }
}

/// The first seed that notices a fault that was built in.
fn caught(plant: &str) -> Option<u64> {
    let caught = std::sync::Mutex::new(None);
    run_all(0..PLANTED, plant, |seed, output| {
        let noticed = line(output, "wrong: ");
        if let Some(what) = noticed {
            println!("{plant}: seed {seed}: {what}");
            caught.lock().unwrap().get_or_insert(seed);
        }
        noticed.is_some()
    });
    caught.into_inner().unwrap()
}

#[test]
fn a_binding_without_offsets_is_caught() {
    assert!(caught("skip-binding").is_some());
}

#[test]
fn an_acknowledgement_before_the_append_is_caught() {
    assert!(caught("before-append").is_some());
}

#[test]
fn an_acknowledgement_before_the_sync_is_caught() {
    assert!(caught("before-sync").is_some());
}

#[test]
fn the_same_seed_makes_the_same_history() {
    for seed in [1, 2, 3] {
        let [one, two] = [(), ()].map(|()| run(seed, ""));
        let trace = line(&one, "history: trace");
        assert!(trace.is_some());
        assert_eq!(trace, line(&two, "history: trace"), "seed {seed}");
    }
}
