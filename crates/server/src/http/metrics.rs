//! The one metrics recorder of the process, and what is read from the kernel when asked.

use std::sync::OnceLock;

use anyhow::{Context, Result};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

/// Upper bounds of the buckets of every histogram named `*_seconds`.
const SECONDS: [f64; 14] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0,
];

static INSTALLED: OnceLock<Result<Metrics, String>> = OnceLock::new();

/// Reads the process's metrics.
#[derive(Clone)]
pub struct Metrics {
    handle: PrometheusHandle,
}

/// Makes metrics of this process visible; further calls give the same ones.
pub fn install() -> Result<Metrics> {
    let installed = INSTALLED.get_or_init(|| install_recorder().map_err(|e| format!("{e:#}")));
    installed.clone().map_err(anyhow::Error::msg)
}

fn install_recorder() -> Result<Metrics> {
    let recorder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &SECONDS)
        .context("metrics buckets")?
        .build_recorder();
    let handle = recorder.handle();
    metrics::set_global_recorder(recorder).context("cannot install the metrics recorder")?;
    metrics::gauge!("ruslo_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    Ok(Metrics { handle })
}

impl Metrics {
    /// All metrics in Prometheus's text format.
    pub fn render(&self) -> String {
        record_process();
        self.handle.run_upkeep();
        self.handle.render()
    }

    /// Folds recorded samples into buckets; to be called now and then when nobody asks.
    pub fn run_upkeep(&self) {
        self.handle.run_upkeep();
    }
}

/// Memory, processor time and descriptors, as far as `/proc` tells.
fn record_process() {
    if let Some(bytes) = resident_bytes() {
        metrics::gauge!("process_resident_memory_bytes").set(bytes as f64);
    }
    if let Some(seconds) = cpu_seconds() {
        metrics::gauge!("process_cpu_seconds_total").set(seconds);
    }
    if let Ok(entries) = std::fs::read_dir("/proc/self/fd") {
        metrics::gauge!("process_open_fds").set(entries.count() as f64);
    }
}

fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

fn cpu_seconds() -> Option<f64> {
    // The command's name in parentheses may hold spaces; fields are counted after it.
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks: u64 = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    /// Linux has reported in hundredths of a second on every architecture since 2.6.
    const TICKS_PER_SECOND: f64 = 100.0;
    Some(ticks as f64 / TICKS_PER_SECOND)
}
