//! The one metrics recorder of the process, and what is read from the kernel when asked.

use std::sync::OnceLock;

use anyhow::{Context, Result};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use ruslo_engine::{Family, FigureKind};

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
    describe();
    metrics::gauge!("ruslo_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    Ok(Metrics { handle })
}

/// The `# HELP` of what is recorded in this process.
fn describe() {
    use metrics::{describe_counter, describe_gauge, describe_histogram};
    describe_gauge!("ruslo_pg_connections", "Open client connections.");
    describe_counter!("ruslo_pg_connections_total", "Connections ever accepted.");
    describe_counter!("ruslo_pg_statements_total", "Statements executed.");
    describe_histogram!(
        "ruslo_pg_statement_seconds",
        "Execution time of statements, sending rows not included."
    );
    describe_counter!("ruslo_pg_errors_total", "Errors reported to clients.");
    describe_histogram!(
        "ruslo_close_seconds",
        "How long a time takes from its close until it is visible."
    );
    describe_gauge!("ruslo_build_info", "Always 1; the version is a label.");
    describe_gauge!("process_resident_memory_bytes", "Memory the process holds.");
    describe_gauge!(
        "ruslo_memory_limit_bytes",
        "Memory the process is to stay below."
    );
    describe_gauge!(
        "ruslo_memory_heap_bytes",
        "Memory of the process that is no file's."
    );
    describe_gauge!(
        "ruslo_memory_file_bytes",
        "State that memory does not hold and files do."
    );
    describe_gauge!(
        "process_cpu_seconds_total",
        "Processor time the process has used."
    );
    describe_gauge!("process_open_fds", "Open files and sockets.");
}

/// Appends the engine's figures in Prometheus's text format.
pub(super) fn write_families(families: &[Family], out: &mut String) {
    for family in families {
        let kind = match family.kind {
            FigureKind::Counter => "counter",
            FigureKind::Gauge => "gauge",
        };
        let name = family.name;
        out.push_str(&format!(
            "# HELP {name} {}\n# TYPE {name} {kind}\n",
            family.help
        ));
        for (object, value) in &family.values {
            match family.label {
                None => out.push_str(&format!("{name} {value}\n")),
                Some(label) => {
                    let object = escaped(object);
                    out.push_str(&format!("{name}{{{label}=\"{object}\"}} {value}\n"));
                }
            }
        }
        out.push('\n');
    }
}

/// A label's value as the format wants it.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
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
    let memory = ruslo_memory::usage();
    if let Some(limit) = memory.limit {
        metrics::gauge!("ruslo_memory_limit_bytes").set(limit as f64);
        metrics::gauge!("ruslo_memory_heap_bytes").set(memory.heap as f64);
        metrics::gauge!("ruslo_memory_file_bytes").set(memory.in_file as f64);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_written_with_help_and_escaped_labels() {
        let family = Family {
            name: "ruslo_sink_waiting_keys",
            kind: FigureKind::Gauge,
            help: "Keys.",
            label: Some("sink"),
            values: vec![("a\"b\\c\nd".into(), 3.0)],
        };
        let mut text = String::new();
        write_families(&[family], &mut text);
        assert_eq!(
            text,
            "# HELP ruslo_sink_waiting_keys Keys.\n# TYPE ruslo_sink_waiting_keys gauge\n\
             ruslo_sink_waiting_keys{sink=\"a\\\"b\\\\c\\nd\"} 3\n\n"
        );
    }
}
