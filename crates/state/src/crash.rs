//! Places where a test can have the process killed, as by a power cut in the middle of a step.
//!
//! ```text
//!   RUSLO_CRASH_AT="checkpoint write:3" ──> the third passing of that point is the last thing
//!                                           that the process does: SIGKILL, by itself
//! ```
//!
//! A test that kills from outside hits a step of some microseconds by luck alone. For tests only:
//! without debug assertions, as in a release, [`due`] is always false and nothing of this is there.
//! It is in this crate because most of the points are; whoever builds on it may have its own.

pub const BINDING_APPEND: &str = "binding append";
pub const CHECKPOINT_WRITE: &str = "checkpoint write";
pub const MANIFEST_PUT: &str = "manifest put";
/// A view reads the past of a source for the first time.
pub const HYDRATION: &str = "hydration";
/// A table or view of the server before gets its state, or reads on from there.
pub const RESTORE: &str = "restore";
pub const SINK_FLUSH: &str = "sink flush";

/// Counts a passing of `point`; true if the process is to end here. The caller may then do one half
/// of its step before it calls [`now`].
#[cfg(debug_assertions)]
pub fn due(point: &str) -> bool {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    static ASKED: OnceLock<Option<(String, AtomicU64)>> = OnceLock::new();
    let asked = ASKED.get_or_init(|| {
        let asked = std::env::var("RUSLO_CRASH_AT").ok()?;
        let (name, passings) = asked.rsplit_once(':')?;
        Some((name.to_string(), AtomicU64::new(passings.parse().ok()?)))
    });
    match asked {
        Some((name, passings)) if name == point => passings.fetch_sub(1, Ordering::SeqCst) == 1,
        _ => false,
    }
}

#[cfg(not(debug_assertions))]
pub fn due(_: &str) -> bool {
    false
}

/// Ends the process at `point`. One line on stderr says so, for the test to count.
#[cfg(debug_assertions)]
pub fn now(point: &str) -> ! {
    const SIGKILL: i32 = 9;
    unsafe extern "C" {
        fn kill(process: i32, signal: i32) -> i32;
    }
    // Not buffered, and in one write.
    eprintln!("killed at: {point}");
    loop {
        // SAFETY: `kill` takes two numbers, and the process is this one.
        unsafe { kill(std::process::id() as i32, SIGKILL) };
    }
}

#[cfg(not(debug_assertions))]
pub fn now(_: &str) {}

/// Ends the process here if that is due.
pub fn point(point: &str) {
    if due(point) {
        now(point);
    }
}
