//! The server's settings: flags and environment through clap, then the file, then defaults.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use ruslo_engine::{KEY_NAME, Storage};
use ruslo_memory::Limit;
use serde::Deserialize;

pub(super) const LISTEN: &str = "127.0.0.1:4566";
pub(super) const HTTP: &str = "127.0.0.1:5691";
const DATA_DIR: &str = "./ruslo-data";
/// The store that keeps nothing.
const MEMORY: &str = "memory";
const CHECKPOINT_INTERVAL_MS: u64 = 1000;
const LOG: &str = "info";
const CONNECTIONS_MAX: usize = 500;
/// More workers than this is a typing error.
const WORKERS_MAX: usize = 1024;

/// The flags of every command that starts a server.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Server")]
pub struct ServerArgs {
    /// Address of the Postgres protocol [default: 127.0.0.1:4566]
    #[arg(long, env = "RUSLO_LISTEN", value_name = "HOST:PORT")]
    pub listen: Option<String>,

    /// Address of HTTP (/healthz, /metrics), or "off" [default: 127.0.0.1:5691]
    #[arg(long, env = "RUSLO_HTTP", value_name = "HOST:PORT")]
    pub http: Option<String>,

    /// Threads that maintain views [default: one per processor]
    #[arg(long, env = "RUSLO_WORKERS", value_name = "N")]
    pub workers: Option<usize>,

    /// A TOML file with the same settings, underscores for dashes
    #[arg(long, env = "RUSLO_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// What to log to standard error, e.g. debug or info,ruslo_engine=debug [default: info]
    #[arg(long, env = "RUSLO_LOG", value_name = "FILTER")]
    pub log: Option<String>,

    /// Certificate chain (PEM) for TLS on the Postgres port
    #[arg(long, env = "RUSLO_TLS_CERT", value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,

    /// Private key (PEM) of --tls-cert
    #[arg(long, env = "RUSLO_TLS_KEY", value_name = "FILE")]
    pub tls_key: Option<PathBuf>,

    /// Client connections at one time [default: 500]
    #[arg(long, env = "RUSLO_MAX_CONNECTIONS", value_name = "N")]
    pub max_connections: Option<usize>,

    /// Folder in which everything is kept [default: ./ruslo-data for serve, else none]
    #[arg(long, env = "RUSLO_DATA_DIR", value_name = "FOLDER")]
    pub data_dir: Option<PathBuf>,

    /// Another place to keep everything: s3://BUCKET/PREFIX, or "memory" for none
    #[arg(long, env = "RUSLO_STORE", value_name = "URL")]
    pub store: Option<String>,

    /// Key that seals stored passwords, made if missing [default: secret.key in the data folder]
    #[arg(long, env = "RUSLO_KEY_FILE", value_name = "FILE")]
    pub key_file: Option<PathBuf>,

    /// Milliseconds between checkpoints, while something changes [default: 1000]
    #[arg(long, env = "RUSLO_CHECKPOINT_INTERVAL_MS", value_name = "N")]
    pub checkpoint_interval_ms: Option<u64>,

    /// Memory to stay below, e.g. 4GiB, 50% or "none"; state beyond it is kept in files [default: 80%]
    #[arg(long, env = "RUSLO_MEMORY_LIMIT", value_name = "SIZE")]
    pub memory_limit: Option<Limit>,

    /// Folder for state that memory does not hold [default: the data folder, else a temporary one]
    #[arg(long, env = "RUSLO_SPILL_DIR", value_name = "FOLDER")]
    pub spill_dir: Option<PathBuf>,
}

/// The flags of commands that work on what a server keeps, without starting one.
#[derive(Clone, Debug, Default, clap::Args)]
pub(super) struct PlaceArgs {
    /// The server's data folder [default: ./ruslo-data]
    #[arg(long, env = "RUSLO_DATA_DIR", value_name = "FOLDER")]
    pub data_dir: Option<PathBuf>,

    /// The server's store, if it is another place: s3://BUCKET/PREFIX
    #[arg(long, env = "RUSLO_STORE", value_name = "URL")]
    pub store: Option<String>,

    /// The server's key file [default: secret.key in the data folder]
    #[arg(long, env = "RUSLO_KEY_FILE", value_name = "FILE")]
    pub key_file: Option<PathBuf>,

    /// The server's TOML file, for the settings above
    #[arg(long, env = "RUSLO_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
}

impl PlaceArgs {
    /// The address of the store, and the key file.
    pub(super) fn place(&self) -> Result<(String, PathBuf)> {
        let file = match &self.config {
            None => File::default(),
            Some(path) => read(path)?,
        };
        let given = self.clone();
        let (store, folder) = (given.store.or(file.store), given.data_dir.or(file.data_dir));
        let key_file = given.key_file.or(file.key_file);
        match storage(store, folder, key_file, Duration::ZERO, true) {
            Storage::Store { url, key_file, .. } => Ok((url, key_file)),
            Storage::Memory => bail!("with --store memory nothing is kept"),
        }
    }
}

/// The keys of the configuration file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    listen: Option<String>,
    http: Option<String>,
    workers: Option<usize>,
    log: Option<String>,
    tls_cert: Option<PathBuf>,
    tls_key: Option<PathBuf>,
    max_connections: Option<usize>,
    data_dir: Option<PathBuf>,
    store: Option<String>,
    key_file: Option<PathBuf>,
    checkpoint_interval_ms: Option<u64>,
    memory_limit: Option<String>,
    spill_dir: Option<PathBuf>,
}

/// Settings after all places were looked at.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    pub listen: String,
    /// `None`: no HTTP.
    pub http: Option<String>,
    pub workers: usize,
    pub log: String,
    /// Certificate chain and key.
    pub tls: Option<(PathBuf, PathBuf)>,
    pub connections_max: usize,
    pub storage: Storage,
    pub memory: Memory,
}

/// How much memory the process may take.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Memory {
    /// `None`: not said.
    pub limit: Option<Limit>,
    /// Where state goes beyond it.
    pub folder: PathBuf,
}

impl ServerArgs {
    /// Reads the file, fills in what no flag or variable gave, and checks values.
    ///
    /// `keep` says whether everything is kept in a folder if nothing was said about it.
    pub fn settings(&self, keep: bool) -> Result<Settings> {
        let file = match &self.config {
            None => File::default(),
            Some(path) => read(path)?,
        };
        let given = self.clone();
        let workers = given.workers.or(file.workers).unwrap_or_else(processors);
        ensure!(
            (1..=WORKERS_MAX).contains(&workers),
            "workers must be between 1 and {WORKERS_MAX}, not {workers}"
        );
        let connections_max = given.max_connections.or(file.max_connections);
        let connections_max = connections_max.unwrap_or(CONNECTIONS_MAX);
        ensure!(connections_max > 0, "max-connections must be at least 1");
        let cert = given.tls_cert.or(file.tls_cert);
        let key = given.tls_key.or(file.tls_key);
        ensure!(
            cert.is_some() == key.is_some(),
            "TLS needs both --tls-cert and --tls-key, only one of them is set"
        );
        let interval = given.checkpoint_interval_ms;
        let interval = interval.or(file.checkpoint_interval_ms);
        let of_file = file.memory_limit.map(|limit| limit.parse());
        let of_file = of_file.transpose().map_err(anyhow::Error::msg)?;
        let data_dir = given.data_dir.or(file.data_dir);
        let store = given.store.or(file.store);
        let storage = storage(
            store,
            data_dir.clone(),
            given.key_file.or(file.key_file),
            Duration::from_millis(interval.unwrap_or(CHECKPOINT_INTERVAL_MS)),
            keep,
        );
        let kept = match &storage {
            Storage::Memory => None,
            Storage::Store { .. } => Some(data_dir.unwrap_or_else(|| DATA_DIR.into())),
        };
        let memory = Memory {
            limit: given.memory_limit.or(of_file),
            folder: given
                .spill_dir
                .or(file.spill_dir)
                .or(kept)
                .unwrap_or_else(std::env::temp_dir),
        };
        let http = given.http.or(file.http).unwrap_or_else(|| HTTP.into());
        Ok(Settings {
            listen: given
                .listen
                .or(file.listen)
                .unwrap_or_else(|| LISTEN.into()),
            http: (http != "off").then_some(http),
            workers,
            log: given.log.or(file.log).unwrap_or_else(|| LOG.into()),
            tls: cert.zip(key),
            connections_max,
            storage,
            memory,
        })
    }
}

fn storage(
    store: Option<String>,
    folder: Option<PathBuf>,
    key_file: Option<PathBuf>,
    checkpoint_interval: Duration,
    keep: bool,
) -> Storage {
    if store.as_deref() == Some(MEMORY) || (store.is_none() && folder.is_none() && !keep) {
        return Storage::Memory;
    }
    let folder = folder.unwrap_or_else(|| DATA_DIR.into());
    Storage::Store {
        key_file: key_file.unwrap_or_else(|| folder.join(KEY_NAME)),
        url: store.unwrap_or_else(|| folder.display().to_string()),
        checkpoint_interval,
    }
}

fn read(path: &Path) -> Result<File> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read the configuration file {}", path.display()))?;
    toml::from_str(&text).with_context(|| format!("in the configuration file {}", path.display()))
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn file(text: &str) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file
    }

    #[test]
    fn flags_win_over_the_file_and_the_file_over_defaults() {
        let file = file("workers = 3\nlisten = \"0.0.0.0:1\"\nhttp = \"off\"\n");
        let args = ServerArgs {
            config: Some(file.path().into()),
            listen: Some("127.0.0.1:2".into()),
            ..ServerArgs::default()
        };
        let settings = args.settings(true).unwrap();
        assert_eq!(settings.workers, 3);
        assert_eq!(settings.listen, "127.0.0.1:2");
        assert_eq!(settings.http, None);
        assert_eq!(settings.log, LOG);
    }

    #[test]
    fn what_is_kept_is_asked_for_or_the_servers_default() {
        let kept = |store: Option<&str>, folder: Option<&str>, keep| {
            let (store, folder) = (store.map(Into::into), folder.map(Into::into));
            match storage(store, folder, None, Duration::ZERO, keep) {
                Storage::Memory => "nothing".to_string(),
                Storage::Store { url, key_file, .. } => format!("{url} {}", key_file.display()),
            }
        };
        assert_eq!(kept(None, None, false), "nothing");
        assert_eq!(kept(Some("memory"), Some("d"), true), "nothing");
        let default = "./ruslo-data ./ruslo-data/secret.key";
        assert_eq!(kept(None, None, true), default);
        assert_eq!(kept(None, Some("d"), false), "d d/secret.key");
        assert_eq!(
            kept(Some("s3://b/p"), Some("d"), false),
            "s3://b/p d/secret.key"
        );
    }

    #[test]
    fn mistakes_are_named() {
        let error = |args: ServerArgs| format!("{:#}", args.settings(true).unwrap_err());
        let unknown = file("wrokers = 3\n");
        let args = ServerArgs {
            config: Some(unknown.path().into()),
            ..ServerArgs::default()
        };
        assert!(error(args).contains("wrokers"));
        let args = ServerArgs {
            workers: Some(0),
            ..ServerArgs::default()
        };
        assert!(error(args).contains("workers must be between"));
        let args = ServerArgs {
            tls_cert: Some("a".into()),
            ..ServerArgs::default()
        };
        assert!(error(args).contains("--tls-key"));
    }
}
