//! Waiting while memory is short, so that what was taken in goes to files first.
//!
//! Nobody waits for ever: whatever else holds the memory, things go on, if slowly.

use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use ruslo_repr::{Error, ErrorKind, Result};

/// The part of the memory limit that the rows of one statement may take: they are held several
/// times over until they are in the log and with the workers.
const PART_OF_LIMIT: u64 = 8;
/// Bytes that a row takes beside its values.
const ROW_BYTES: u64 = 64;

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

/// Refuses what a statement writes if there is no room for all of it at once.
pub(crate) fn check_size(rows: &[RecordBatch]) -> Result<()> {
    let Some(limit) = ruslo_memory::usage().limit else {
        return Ok(());
    };
    let count: u64 = rows.iter().map(|batch| batch.num_rows() as u64).sum();
    let values = rows
        .iter()
        .map(|batch| batch.get_array_memory_size() as u64);
    let bytes = values.sum::<u64>() + count * ROW_BYTES;
    let most = limit / PART_OF_LIMIT;
    if bytes <= most {
        return Ok(());
    }
    let mib = |bytes: u64| bytes.div_ceil(1 << 20);
    let error = Error::new(
        ErrorKind::OutOfMemory,
        "the statement writes more rows than there is memory for",
    );
    let detail = format!(
        "{count} rows take about {} MiB; one statement may write {} MiB.",
        mib(bytes),
        most >> 20
    );
    let error = error.with_detail(detail);
    Err(error.with_hint("Write fewer rows at a time, or raise --memory-limit."))
}

async fn wait(longest: Duration) {
    let began = Instant::now();
    while ruslo_memory::is_tight() && began.elapsed() < longest {
        tokio::time::sleep(PAUSE).await;
    }
}
