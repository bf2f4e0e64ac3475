//! What a run took: wall and CPU seconds and the peak of memory of this process.

use std::time::Instant;

use anyhow::{Context, Result};

/// Started first thing in `main`.
pub struct Run {
    started: Instant,
}

impl Run {
    #[expect(clippy::new_without_default, reason = "it starts a clock")]
    pub fn new() -> Run {
        Run {
            started: Instant::now(),
        }
    }

    /// Prints one line of `key=value` figures for bench.py.
    pub fn report(&self, events: u64, more: &[(&str, u64)]) -> Result<()> {
        let wall_s = self.started.elapsed().as_secs_f64();
        print!(
            "events={events} wall_s={wall_s:.4} cpu_s={:.2}",
            cpu_seconds()?
        );
        for (key, value) in more {
            print!(" {key}={value}");
        }
        println!();
        Ok(())
    }
}

/// User and system time of all threads, in the kernel's ticks of 10 ms.
fn cpu_seconds() -> Result<f64> {
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    // The second field, the name in brackets, may hold spaces.
    let (_, fields) = stat
        .rsplit_once(')')
        .context("/proc/self/stat has another form")?;
    let ticks: f64 = fields
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(|field| field.parse::<f64>().context("a field of /proc/self/stat"))
        .sum::<Result<f64>>()?;
    Ok(ticks / TICKS_PER_SECOND)
}
