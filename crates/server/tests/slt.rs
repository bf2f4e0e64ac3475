//! Runs every file of `tests/slt/` over the wire, each against a server of its own.
//!
//! ```text
//!   cargo test -p ruslo-server --test slt -- joins      one file
//!   SLT_UPDATE=1 cargo test …                           writes what came back into the files
//!   SLT_POSTGRES='host=… port=… user=…' cargo test … -- plain
//! ```
//!
//! Without `SLT_POSTGRES` every file runs a second time (`… killed`), and in its middle the server is
//! killed and started again on its data: the answers are the same.
//!
//! The files below `plain/` hold nothing that PostgreSQL does not know, but for `FLUSH`: with
//! `SLT_POSTGRES` they run against a real PostgreSQL, where `FLUSH` refreshes the materialized
//! views. So the answers written there are PostgreSQL's own.
//!
//! An error is shown as `SQLSTATE: message`, with detail and hint on lines of their own, for
//! `statement error` to match any of them.

use std::fmt;
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use sqllogictest::harness::{self, Failed, Trial};
use sqllogictest::{DBOutput, DefaultColumnType, Runner};
use tokio::runtime::Runtime;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

/// From the directory of this crate, which is where cargo runs tests.
const FILES: &str = "../../tests/slt/**/*.slt";
const START_TIMEOUT: Duration = Duration::from_secs(30);

fn main() {
    let mut arguments = harness::Arguments::from_args();
    // On two cores more servers at a time only disturb each other.
    arguments.test_threads = arguments.test_threads.or(Some(2));
    let postgres = std::env::var("SLT_POSTGRES").ok();
    if postgres.is_some() {
        arguments.test_threads = Some(1);
    }
    let files = harness::glob(FILES).expect("the pattern is valid");
    let trials: Vec<Trial> = files
        .map(|file| file.expect("tests/slt can be listed"))
        .flat_map(|file| {
            let name = file.display().to_string();
            let name = name.rsplit("tests/slt/").next().unwrap_or_default();
            let (killed, again) = (format!("{name} killed"), file.clone());
            let postgres = postgres.clone();
            let killed = postgres
                .is_none()
                .then(|| Trial::test(killed, move || run_killed(&again)));
            let name = name.to_string();
            let whole = Trial::test(name, move || run_file(&file, postgres.as_deref()));
            std::iter::once(whole).chain(killed)
        })
        .collect();
    assert!(!trials.is_empty(), "no files match {FILES}");
    harness::run(&arguments, trials).exit();
}

fn run_file(file: &Path, postgres: Option<&str>) -> Result<(), Failed> {
    match postgres {
        Some(config) => {
            let mut session = Session::connect(config, true)?;
            session.simple("DROP SCHEMA public CASCADE; CREATE SCHEMA public")?;
            run_records(file, || async { Session::connect(config, true) })
        }
        None => {
            let server = Server::start()?;
            let config = server.config();
            let connect = || async { Session::connect(&config, false) };
            run_records(file, connect)
                .map_err(|error| format!("{error:?}\n{}", server.log()).into())
        }
    }
}

/// Runs a file with a crash of the server in its middle.
fn run_killed(file: &Path) -> Result<(), Failed> {
    if std::env::var_os("SLT_UPDATE").is_some() {
        return Ok(());
    }
    let records = sqllogictest::parse_file::<DefaultColumnType>(file);
    let statements = records.map_err(|error| error.to_string())?.into_iter();
    let statements = statements
        .filter(|record| {
            matches!(
                record,
                sqllogictest::Record::Statement { .. } | sqllogictest::Record::Query { .. }
            )
        })
        .count();
    let server = Arc::new(Mutex::new(Server::start()?));
    let connect = || async {
        let mut session = Session::connect(&lock(&server).config(), false)?;
        session.crash = Some(Crash {
            server: Arc::clone(&server),
            left: statements / 2,
            said: vec![],
        });
        Ok(session)
    };
    run_records(file, connect).map_err(|error| format!("{error:?}\n{}", lock(&server).log()).into())
}

fn run_records<F>(file: &Path, connect: impl FnMut() -> F) -> Result<(), Failed>
where
    F: Future<Output = Result<Session, SessionError>>,
{
    let mut runner = Runner::new(connect);
    if std::env::var_os("SLT_UPDATE").is_some() {
        let update = runner.update_test_file(
            file,
            " ",
            sqllogictest::default_validator,
            sqllogictest::default_normalizer,
            sqllogictest::default_column_validator,
        );
        return futures::executor::block_on(update).map_err(|error| error.to_string().into());
    }
    runner
        .run_file(file)
        .map_err(|error| error.display(false).to_string())?;
    runner.shutdown();
    Ok(())
}

/// `ruslo serve` on free ports, ended when dropped.
struct Server {
    process: Child,
    port: u16,
    directory: tempfile::TempDir,
}

impl Server {
    fn start() -> Result<Server, Failed> {
        Self::start_on(tempfile::tempdir()?)
    }

    /// Kills the process and starts another on the same data.
    fn restart(&mut self) -> Result<(), Failed> {
        self.process.kill()?;
        self.process.wait()?;
        let directory = std::mem::replace(&mut self.directory, tempfile::tempdir()?);
        *self = Self::start_on(directory)?;
        Ok(())
    }

    fn start_on(directory: tempfile::TempDir) -> Result<Server, Failed> {
        let log = File::create(directory.path().join("log"))?;
        let mut command = Command::new(env!("CARGO_BIN_EXE_ruslo"));
        command
            .args(["serve", "--workers", "2"])
            .args(["--listen", "127.0.0.1:0", "--http", "off"])
            .arg("--data-dir")
            .arg(directory.path().join("data"))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        // SAFETY: prctl is safe to call between fork and exec. The server ends with the thread
        // that runs its file, also when the test program is killed.
        unsafe {
            command.pre_exec(
                || match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) {
                    0 => Ok(()),
                    _ => Err(std::io::Error::last_os_error()),
                },
            );
        }
        let mut server = Server {
            process: command.spawn()?,
            port: 0,
            directory,
        };
        server.wait_until_it_is_ready()?;
        Ok(server)
    }

    /// The server chooses its port, so that nobody else can have it, and says it in its log.
    fn wait_until_it_is_ready(&mut self) -> Result<(), Failed> {
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            let log = self.log();
            let said = log.rsplit_once("ready: psql ").map(|(_, said)| said);
            let port = said.and_then(|said| said.split_once("-p "));
            let port = port.and_then(|(_, rest)| rest.split(' ').next()?.parse().ok());
            if let Some(port) = port {
                self.port = port;
                return Ok(());
            }
            if let Some(status) = self.process.try_wait()? {
                return Err(format!("ruslo ended: {status}\n{log}").into());
            }
            if Instant::now() > deadline {
                return Err(format!("ruslo is not ready\n{log}").into());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn config(&self) -> String {
        format!("host=127.0.0.1 port={} user=root dbname=dev", self.port)
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A crash to come, after some more statements.
struct Crash {
    server: Arc<Mutex<Server>>,
    left: usize,
    /// What the session said that only it knows: settings and prepared statements.
    said: Vec<String>,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|broken| broken.into_inner())
}

/// One connection, speaking the simple query protocol.
struct Session {
    runtime: Runtime,
    client: Client,
    is_postgres: bool,
    crash: Option<Crash>,
    in_transaction: bool,
}

/// PostgreSQL's stand-in for FLUSH. A view's oid is higher than those of the views it reads.
const REFRESH_ALL: &str = "DO $$ DECLARE view record; BEGIN \
    FOR view IN SELECT oid::regclass AS name FROM pg_class WHERE relkind = 'm' ORDER BY oid LOOP \
    EXECUTE 'REFRESH MATERIALIZED VIEW ' || view.name; END LOOP; END $$";

impl Session {
    fn connect(config: &str, is_postgres: bool) -> Result<Session, SessionError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| SessionError(error.to_string()))?;
        let (client, connection) = runtime.block_on(tokio_postgres::connect(config, NoTls))?;
        // It makes progress whenever the runtime is entered, which is when a statement runs.
        runtime.spawn(connection);
        let mut session = Session {
            runtime,
            client,
            is_postgres,
            crash: None,
            in_transaction: false,
        };
        if is_postgres {
            session.simple("SET timezone = 'UTC'; SET client_min_messages = 'error'")?;
        }
        Ok(session)
    }

    /// Notes what a statement does to the session, and lets the server crash if it is time.
    fn before(&mut self, sql: &str) -> Result<(), SessionError> {
        let first = sql.split_whitespace().next().unwrap_or_default();
        let first = first.trim_end_matches(';').to_ascii_uppercase();
        let in_transaction = self.in_transaction;
        match first.as_str() {
            "BEGIN" | "START" => self.in_transaction = true,
            "COMMIT" | "ROLLBACK" | "END" | "ABORT" => self.in_transaction = false,
            _ => {}
        }
        let Some(crash) = &mut self.crash else {
            return Ok(());
        };
        if crash.left > 0 || in_transaction {
            crash.left = crash.left.saturating_sub(1);
            if ["SET", "RESET", "PREPARE", "DEALLOCATE"].contains(&first.as_str()) {
                crash.said.push(sql.to_string());
            }
            return Ok(());
        }
        let Some(Crash { server, said, .. }) = self.crash.take() else {
            return Ok(());
        };
        let mut server = lock(&server);
        server
            .restart()
            .map_err(|error| SessionError(format!("{error:?}")))?;
        let again = Session::connect(&server.config(), false)?;
        (self.runtime, self.client) = (again.runtime, again.client);
        for sql in said {
            // One that failed before fails again.
            let _ = self.simple(&sql);
        }
        Ok(())
    }

    fn simple(&mut self, sql: &str) -> Result<Vec<SimpleQueryMessage>, SessionError> {
        Ok(self.runtime.block_on(self.client.simple_query(sql))?)
    }
}

impl sqllogictest::DB for Session {
    type Error = SessionError;
    type ColumnType = DefaultColumnType;

    fn run(&mut self, sql: &str) -> Result<DBOutput<DefaultColumnType>, SessionError> {
        self.before(sql)?;
        let is_flush = sql
            .trim_end_matches(';')
            .trim()
            .eq_ignore_ascii_case("flush");
        let sql = if self.is_postgres && is_flush {
            REFRESH_ALL
        } else {
            sql
        };
        let mut types = None;
        let mut rows = Vec::new();
        let mut count = 0;
        for message in self.simple(sql)? {
            match message {
                SimpleQueryMessage::RowDescription(columns) => {
                    types = Some(vec![DefaultColumnType::Any; columns.len()]);
                }
                SimpleQueryMessage::Row(row) => {
                    rows.push((0..row.len()).map(|i| shown(row.get(i))).collect());
                }
                SimpleQueryMessage::CommandComplete(affected) => count = affected,
                _ => {}
            }
        }
        Ok(match types {
            Some(types) => DBOutput::Rows { types, rows },
            None => DBOutput::StatementComplete(count),
        })
    }

    fn engine_name(&self) -> &str {
        if self.is_postgres {
            "postgres"
        } else {
            "ruslo"
        }
    }

    fn error_sql_state(error: &SessionError) -> Option<String> {
        error.0.split_once(": ").map(|(code, _)| code.to_string())
    }
}

/// A value as the files write it: whitespace separates values, so none may be invisible.
fn shown(value: Option<&str>) -> String {
    match value {
        None => "NULL".into(),
        Some("") => "(empty)".into(),
        Some(text) => text.into(),
    }
}

#[derive(Debug)]
struct SessionError(String);

impl fmt::Display for SessionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for SessionError {}

impl From<tokio_postgres::Error> for SessionError {
    fn from(error: tokio_postgres::Error) -> Self {
        let Some(db) = error.as_db_error() else {
            return SessionError(error.to_string());
        };
        let mut text = format!("{}: {}", db.code().code(), db.message());
        for (label, more) in [("DETAIL", db.detail()), ("HINT", db.hint())] {
            if let Some(more) = more {
                text.push_str(&format!("\n{label}: {more}"));
            }
        }
        SessionError(text)
    }
}
