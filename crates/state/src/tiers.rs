//! Which runs to merge, so that the work stays in proportion to what changed.
//!
//! ```text
//!   live    ████████████████████████   the largest run
//!   recent  ████ █ █ ▌ ▌ ▌             tiers of four: four of about a size become one
//!           └──────────┘ reaches a quarter of the largest: everything becomes one
//! ```
//!
//! An update is rewritten about once for each tier and then a few times with the largest run. The
//! largest run holds nothing that cancels out but what the others take back from it.
//!
//! Merging takes time, and changes come meanwhile. A checkpoint puts them beside the largest run up
//! to three eighths of it; if there are more it waits for the merge under way and then writes
//! everything as one run. So the files are at most 2.75 times the live state: what a merge reads is
//! 1 3/8, what it writes 1, and what has come since it began 3/8. Changes of one checkpoint that do
//! not fit into memory add their own size.

/// Runs of one tier are merged when there are this many.
const FANOUT: usize = 4;
/// The share of the largest run, in eighths, at which all becomes one beside checkpoints.
const MERGE_EIGHTHS: u64 = 2;
/// The share, in eighths, that checkpoints leave alone.
const BESIDE_EIGHTHS: u64 = 3;

/// The runs to merge next, by position; None if nothing is due. Runs up to `small` bytes are all
/// one size.
pub(crate) fn due(sizes: &[u64], small: u64) -> Option<Vec<usize>> {
    let largest = (0..sizes.len()).max_by_key(|run| sizes[*run])?;
    let recent: u64 = sizes.iter().sum::<u64>() - sizes[largest];
    if sizes.len() > 1 && is_share(sizes[largest], recent, MERGE_EIGHTHS, small) {
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

/// Whether a checkpoint may not leave so many bytes beside a run of `largest` bytes.
pub(crate) fn is_crowded(largest: u64, beside: u64, small: u64) -> bool {
    is_share(largest, beside, BESIDE_EIGHTHS, small)
}

fn is_share(largest: u64, recent: u64, eighths: u64, small: u64) -> bool {
    recent > small && recent.saturating_mul(8) >= largest.saturating_mul(eighths)
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

    /// The most bytes there are when merges of everything last so many checkpoints.
    fn peak(live: u64, deltas: &[(u64, usize)]) -> u64 {
        let (mut recent, mut merging, mut ends, mut most) = (0, 0, None, live);
        for (now, (delta, lasts)) in deltas.iter().enumerate() {
            let crowded = is_crowded(live, recent + delta, 64);
            if ends.is_some_and(|ends| ends <= now) || crowded {
                (merging, ends) = (0, None);
            }
            if crowded {
                most = most.max(2 * live + recent);
                recent = 0;
            } else {
                recent += delta;
            }
            if ends.is_none() && is_share(live, recent, MERGE_EIGHTHS, 64) {
                (merging, recent, ends) = (recent, 0, Some(now + lasts));
            }
            let output = if ends.is_some() { live } else { 0 };
            most = most.max(live + merging + recent + output);
        }
        most
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

        /// Also while merges last, and whatever share changes meanwhile.
        #[test]
        fn merges_that_last_take_no_more_than_what_is_promised(
            live in 10_000u64..100_000,
            deltas in proptest::collection::vec((1u64..200_000, 0usize..20), 1..400),
        ) {
            prop_assert!(peak(live, &deltas) <= live * 11 / 4);
        }
    }
}
