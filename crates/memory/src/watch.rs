//! The thread that looks how large the heap is, and decides what follows.

use std::io;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::{CRITICAL, HEAP, LIMIT, ROOM, SPILLING, TIGHT, arena};

/// How often it looks: at least as often as the heap can have grown to where pieces go to the file.
const INTERVAL_MIN: Duration = Duration::from_millis(20);
const INTERVAL_MAX: Duration = Duration::from_millis(500);
/// Bytes by which a heap grows at most in a millisecond, about.
const GROWTH_PER_MS: u64 = 2 << 20;
/// Shares of the limit, in percent: from where large pieces go to the file, and below which they
/// are memory again.
const SPILL_FROM: u64 = 50;
const SPILL_UNTIL: u64 = 45;
/// From where sources wait, and until where.
const TIGHT_FROM: u64 = 75;
const TIGHT_UNTIL: u64 = 65;
/// From where queries end.
const CRITICAL_FROM: u64 = 90;
/// Of the file's pages this share may stay in the process, and as much be not on disk yet.
const PAGES_MAX: u64 = 20;
/// Below this limit pages are small: of huge ones, each thread would have some that are half empty.
const HUGE_PAGES_FROM: u64 = 1 << 30;
/// How often a state that lasts is spoken of.
const REPORT_INTERVAL: Duration = Duration::from_secs(60);

/// Begins to keep the heap below `limit` bytes, with a file in `folder` for what does not fit.
///
/// # Errors
///
/// When there can be no such file, or there is one already; there is no limit then.
pub fn start(limit: u64, folder: &Path) -> io::Result<()> {
    arena::open(folder, limit / 100 * PAGES_MAX)?;
    if limit < HUGE_PAGES_FROM {
        // SAFETY: a system call that changes how later pages are given. Failing costs memory only.
        unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0) };
    }
    LIMIT.store(limit, Ordering::Relaxed);
    std::thread::Builder::new()
        .name("memory".into())
        .spawn(move || {
            let mut watch = Watch {
                limit,
                program: 0,
                spilling_told: None,
                tight_told: None,
            };
            loop {
                let heap = watch.look();
                std::thread::sleep(interval(heap, limit));
            }
        })?;
    Ok(())
}

/// How long nothing can happen that matters.
fn interval(heap: u64, limit: u64) -> Duration {
    let left = (limit / 100 * SPILL_UNTIL).saturating_sub(heap);
    let calm = Duration::from_millis(left / GROWTH_PER_MS);
    calm.clamp(INTERVAL_MIN, INTERVAL_MAX)
}

struct Watch {
    limit: u64,
    /// Pages of files while the arena had none, in bytes.
    program: u64,
    spilling_told: Option<Instant>,
    tight_told: Option<Instant>,
}

impl Watch {
    /// Bytes of the heap.
    fn look(&mut self) -> u64 {
        let Some(resident) = resident() else {
            return u64::MAX;
        };
        HEAP.store(resident.heap, Ordering::Relaxed);
        let percent = |share: u64| self.limit / 100 * share;
        let (was_spilling, was_tight) = (
            SPILLING.load(Ordering::Relaxed),
            TIGHT.load(Ordering::Relaxed),
        );
        let over =
            |was: bool, from, until| resident.heap >= percent(if was { until } else { from });
        let spilling = over(was_spilling, SPILL_FROM, SPILL_UNTIL);
        let tight = over(was_tight, TIGHT_FROM, TIGHT_UNTIL);
        SPILLING.store(spilling, Ordering::Relaxed);
        let room = if spilling {
            0
        } else {
            percent(SPILL_FROM).saturating_sub(resident.heap)
        };
        ROOM.store(i64::try_from(room).unwrap_or(i64::MAX), Ordering::Relaxed);
        TIGHT.store(tight, Ordering::Relaxed);
        let critical = resident.heap >= percent(CRITICAL_FROM);
        CRITICAL.store(critical, Ordering::Relaxed);
        if arena::bytes() == 0 {
            self.program = resident.of_files;
        } else {
            arena::write_out(false);
            if resident.of_files > self.program + percent(PAGES_MAX) {
                arena::let_go();
            }
        }
        let (limit_mb, heap_mb) = (self.limit >> 20, resident.heap >> 20);
        if spilling && !was_spilling && is_due(&mut self.spilling_told) {
            tracing::info!(limit_mb, heap_mb, "new state goes to files");
        }
        if tight && !was_tight && is_due(&mut self.tight_told) {
            tracing::warn!(limit_mb, heap_mb, "memory is short: sources wait");
        }
        resident.heap
    }
}

/// Whether something was not said lately; it then is said now.
fn is_due(told: &mut Option<Instant>) -> bool {
    let due = told.is_none_or(|at| at.elapsed() >= REPORT_INTERVAL);
    if due {
        *told = Some(Instant::now());
    }
    due
}

/// Bytes that the process holds.
struct Resident {
    heap: u64,
    /// Pages of files: the program's and the arena's.
    of_files: u64,
}

fn resident() -> Option<Resident> {
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    let mut pages = text.split_ascii_whitespace().skip(1).map(str::parse::<u64>);
    let (all, of_files) = (pages.next()?.ok()?, pages.next()?.ok()?);
    // SAFETY: asks a constant of the system.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as u64;
    Some(Resident {
        heap: all.saturating_sub(of_files) * page,
        of_files: of_files * page,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_looks_often_where_it_matters() {
        let limit = 16 << 30;
        assert_eq!(interval(0, limit), INTERVAL_MAX);
        assert_eq!(interval(limit / 2, limit), INTERVAL_MIN);
        assert_eq!(interval(u64::MAX, limit), INTERVAL_MIN);
        assert_eq!(interval(0, 64 << 20), INTERVAL_MIN);
        let almost = limit / 100 * SPILL_UNTIL - (200 << 20);
        assert_eq!(interval(almost, limit), Duration::from_millis(100));
    }
}
