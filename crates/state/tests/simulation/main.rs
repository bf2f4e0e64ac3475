//! Histories that follow from a seed: random changes, checkpoints, merges, faults and crashes,
//! and after each crash what is there must be what was acknowledged.
//!
//! `STATE_SEED=17 cargo test -p ruslo-state --test simulation` replays one history,
//! `STATE_HISTORIES=10000` runs more than usual.

mod history;
mod model;

use history::{Mode, run};
use ruslo_state::sim::Plant;

/// Of each kind, without a number in the environment.
const HISTORIES: u64 = 150;
/// How many are tried to catch a fault that was built in.
const PLANTED: u64 = 20;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn what_was_acknowledged_is_there_after_any_crash() {
    let seeds = match number("STATE_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("STATE_HISTORIES").unwrap_or(HISTORIES),
    };
    let mut totals = history::Totals::default();
    for seed in seeds.clone() {
        for mode in [Mode::Folder, Mode::Bucket] {
            match run(seed, mode, Plant::Nothing) {
                Ok(counts) => totals.add(&counts),
                Err(wrong) => panic!(
                    "history {seed} on a {mode:?}: {wrong}\nreplay it with: STATE_SEED={seed} \
                     cargo test -p ruslo-state --test simulation"
                ),
            }
        }
    }
    println!("{totals:?}");
    if seeds.end - seeds.start >= HISTORIES {
        totals.check_that_everything_happened();
    }
}

/// How many of the first histories notice a fault that was built in.
fn caught(mode: Mode, plant: Plant) -> usize {
    let histories = (0..PLANTED).filter(|seed| run(*seed, mode, plant).is_err());
    histories.count()
}

#[test]
fn a_log_that_acknowledges_before_it_syncs_is_caught() {
    let caught = caught(Mode::Folder, Plant::AcknowledgeBeforeSync);
    println!("{caught} of {PLANTED} histories");
    assert!(caught > 0);
}

#[test]
fn a_manifest_before_its_runs_is_caught() {
    for mode in [Mode::Folder, Mode::Bucket] {
        let caught = caught(mode, Plant::ManifestBeforeRuns);
        println!("{caught} of {PLANTED} histories on a {mode:?}");
        assert!(caught > 0);
    }
}

#[test]
fn the_same_seed_makes_the_same_history() {
    for mode in [Mode::Folder, Mode::Bucket] {
        let first = run(7, mode, Plant::Nothing).unwrap();
        assert_eq!(first, run(7, mode, Plant::Nothing).unwrap());
    }
}
