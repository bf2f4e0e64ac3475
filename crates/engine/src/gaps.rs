//! Messages of a source that nobody could read, whichever of its readers missed them.
//!
//! The live flow and the pasts of several views may miss the same offsets: what overlaps is kept
//! as one range. The record stays as long as the source, since its views stay without the rows.

use parking_lot::Mutex;
use ruslo_connector::kafka::{Gap, GapReason};
use serde::{Deserialize, Serialize};

/// Ranges kept; the count goes on beyond.
const KEPT_MAX: usize = 1_000;

/// A source's gaps as they are kept over a restart.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SavedGaps {
    count: u64,
    /// Partition, from, to, and the reason if it was not the topic's retention.
    gaps: Vec<(i32, i64, i64, Option<String>)>,
}

/// The gaps of one source.
#[derive(Default)]
pub(crate) struct Gaps(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    gaps: Vec<Gap>,
    count: u64,
}

impl Gaps {
    pub(crate) fn record(&self, mut gap: Gap) {
        let mut inner = self.0.lock();
        inner.count += 1;
        inner.gaps.retain(|known| {
            let touches = known.partition == gap.partition
                && known.reason == gap.reason
                && known.from <= gap.to
                && gap.from <= known.to;
            if touches {
                gap.from = gap.from.min(known.from);
                gap.to = gap.to.max(known.to);
            }
            !touches
        });
        if inner.gaps.len() < KEPT_MAX {
            inner.gaps.push(gap);
        }
    }

    pub(crate) fn save(&self) -> SavedGaps {
        let inner = self.0.lock();
        let gaps = inner.gaps.iter().map(|gap| {
            let reason = match &gap.reason {
                GapReason::Retention => None,
                GapReason::Unreadable(reason) => Some(reason.clone()),
            };
            (gap.partition, gap.from, gap.to, reason)
        });
        SavedGaps {
            count: inner.count,
            gaps: gaps.collect(),
        }
    }

    pub(crate) fn restore(&self, saved: SavedGaps) {
        let gaps = saved.gaps.into_iter();
        let gaps = gaps.map(|(partition, from, to, reason)| Gap {
            partition,
            from,
            to,
            reason: reason.map_or(GapReason::Retention, GapReason::Unreadable),
        });
        let mut inner = self.0.lock();
        inner.gaps = gaps.collect();
        inner.count = saved.count;
    }

    pub(crate) fn count(&self) -> u64 {
        self.0.lock().count
    }

    /// All of them in words; None when nothing was lost.
    pub(crate) fn describe(&self) -> Option<String> {
        let inner = self.0.lock();
        let mut gaps: Vec<&Gap> = inner.gaps.iter().collect();
        gaps.sort_by_key(|gap| (gap.partition, gap.from));
        let texts: Vec<String> = gaps.into_iter().map(describe).collect();
        (!texts.is_empty()).then(|| texts.join("; "))
    }
}

pub(crate) fn describe(gap: &Gap) -> String {
    let Gap {
        partition,
        from,
        to,
        reason,
    } = gap;
    let reason = match reason {
        GapReason::Retention => "deleted by the topic's retention before they were read",
        GapReason::Unreadable(reason) => reason,
    };
    format!("partition {partition}: offsets {from} to {to} were not read: {reason}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_several_readers_missed_is_told_once_and_whole() {
        let gaps = Gaps::default();
        assert_eq!(gaps.describe(), None);
        let gap = |partition, from, to| Gap {
            partition,
            from,
            to,
            reason: GapReason::Retention,
        };
        gaps.record(gap(1, 0, 60));
        gaps.record(gap(0, 5, 7));
        gaps.record(gap(1, 0, 80));
        gaps.record(gap(1, 90, 95));
        let text = gaps.describe().unwrap();
        let ranges: Vec<&str> = text
            .split("; ")
            .filter_map(|text| text.split(" were").next())
            .collect();
        assert_eq!(
            ranges,
            [
                "partition 0: offsets 5 to 7",
                "partition 1: offsets 0 to 80",
                "partition 1: offsets 90 to 95",
            ]
        );
        assert_eq!(gaps.count(), 4);
        let again = Gaps::default();
        again.restore(gaps.save());
        assert_eq!(again.describe(), gaps.describe());
        assert_eq!(again.save(), gaps.save());
    }
}
