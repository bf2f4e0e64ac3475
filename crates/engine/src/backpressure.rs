//! Waiting while memory is short, so that what was taken in goes to files first.
//!
//! Nobody waits for ever: whatever else holds the memory, things go on, if slowly.

use std::time::{Duration, Instant};

/// How long a statement waits before it writes.
pub(crate) const STATEMENT_WAIT_MAX: Duration = Duration::from_secs(2);
/// How long somebody waits before a few MiB more are taken in.
const PORTION_WAIT_MAX: Duration = Duration::from_millis(250);
const PAUSE: Duration = Duration::from_millis(5);

/// Waits before a statement.
pub(crate) async fn before_statement() {
    wait(STATEMENT_WAIT_MAX).await;
}

/// Waits before some MiB.
pub(crate) async fn before_portion() {
    wait(PORTION_WAIT_MAX).await;
}

/// The same on a thread that may block.
pub(crate) fn before_portion_blocking() {
    let began = Instant::now();
    while ruslo_memory::is_tight() && began.elapsed() < PORTION_WAIT_MAX {
        std::thread::sleep(PAUSE);
    }
}

async fn wait(longest: Duration) {
    let began = Instant::now();
    while ruslo_memory::is_tight() && began.elapsed() < longest {
        tokio::time::sleep(PAUSE).await;
    }
}
