//! Which runs to merge, so that the work stays in proportion to what changed.
//!
//! ```text
//!   live    ████████████████████████   the largest run
//!   recent  ████ █ █ ▌ ▌ ▌             tiers of four: four of about a size become one
//!           └──────────┘ reaches a quarter of the largest: everything becomes one
//! ```
//!
//! An update is rewritten about once for each tier and then a few times with the largest run. The
//! largest run holds nothing that cancels out but what the others take back from it, so the files
//! are at most about 1.25 times the live state, and 2.5 times while the new run is being written.

/// Runs of one tier are merged when there are this many.
const FANOUT: usize = 4;
/// The share of the largest run that the others may reach: a quarter.
const RECENT_SHARE: u64 = 4;

/// The runs to merge next, by position; None if nothing is due. Runs up to `small` bytes are all
/// one size.
pub(crate) fn due(sizes: &[u64], small: u64) -> Option<Vec<usize>> {
    let largest = (0..sizes.len()).max_by_key(|run| sizes[*run])?;
    let recent: u64 = sizes.iter().sum::<u64>() - sizes[largest];
    if sizes.len() > 1 && outgrown(sizes[largest], recent, small) {
        return Some((0..sizes.len()).collect());
    }
    let tier = |run: &usize| {
        let times = sizes[*run] / small.max(1);
        times.checked_ilog2().map_or(0, |log| log / 2 + 1)
    };
    let mut runs: Vec<usize> = (0..sizes.len()).collect();
    runs.sort_by_key(tier);
    let mut tiers = runs.chunk_by(|a, b| tier(a) == tier(b));
    let full = tiers.find(|tier| tier.len() >= FANOUT)?;
    Some(full.to_vec())
}

/// Whether `recent` bytes beside a run of `largest` bytes are so many that all become one.
pub(crate) fn outgrown(largest: u64, recent: u64, small: u64) -> bool {
    recent > small && recent.saturating_mul(RECENT_SHARE) >= largest
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn four_of_a_size_become_one_and_a_quarter_becomes_all() {
        assert_eq!(due(&[], 10), None);
        assert_eq!(due(&[1000, 5, 5, 5], 10), None);
        assert_eq!(due(&[1000, 5, 5, 5, 5], 10), Some(vec![1, 2, 3, 4]));
        assert_eq!(due(&[1000, 200, 50], 10), Some(vec![0, 1, 2]));
        assert_eq!(due(&[1000, 200, 49], 10), None);
    }

    /// Appends runs and merges what is due; the sizes left and the bytes written by merging.
    fn run(live: u64, deltas: &[u64]) -> (Vec<u64>, u64) {
        let (mut sizes, mut written) = (vec![live], 0);
        for delta in deltas {
            sizes.push(*delta);
            while let Some(runs) = due(&sizes, 64) {
                let all = runs.len() == sizes.len();
                let sum: u64 = runs.iter().map(|run| sizes[*run]).sum();
                let merged = if all { live } else { sum };
                written += merged;
                let mut at = 0..;
                sizes.retain(|_| !runs.contains(&at.next().unwrap_or(usize::MAX)));
                sizes.push(merged);
            }
        }
        (sizes, written)
    }

    proptest! {
        /// Endless updates of a state that does not grow: space and work stay bounded.
        #[test]
        fn space_and_work_stay_bounded(
            live in 10_000u64..10_000_000,
            deltas in proptest::collection::vec(1u64..5_000, 1..400),
        ) {
            let (sizes, written) = run(live, &deltas);
            prop_assert!(sizes.iter().sum::<u64>() <= live + live / 4 + 5_000);
            let changed: u64 = deltas.iter().map(|d| (*d).max(64)).sum();
            prop_assert!(written <= changed * 16 + live);
            prop_assert!(sizes.len() <= 3 * 10 + 1);
        }
    }
}
