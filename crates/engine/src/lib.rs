//! The database without its front doors: catalog, coordinator, ingest and export.
//!
//! `server` talks to it only through [`Engine`] and [`Session`]; nothing here knows the Postgres
//! protocol or HTTP.

use std::time::Duration;

use arrow::datatypes::DataType;
use arrow::record_batch::RecordBatch;
pub use ruslo_repr::{Error, ErrorKind, Result, Schema};

/// How the server is started; mirrors the flags of `ruslo serve`.
#[derive(Clone, Debug)]
pub struct Config {
    /// Timely workers in this process, at least one.
    pub workers: usize,
}

/// The running database. Cheap to clone; all clones are the same database.
#[derive(Clone)]
pub struct Engine {}

/// One client's conversation: settings, prepared statements' catalog view, cancellation.
pub struct Session {}

/// A parsed statement, ready to be described or executed any number of times.
#[derive(Clone, Debug)]
pub struct Statement {}

/// What a statement takes and gives, for the extended protocol.
#[derive(Clone, Debug)]
pub struct Description {
    pub params: Vec<DataType>,
    /// None: the statement returns no rows.
    pub columns: Option<Schema>,
}

/// A message beside the result, PostgreSQL's NOTICE or WARNING.
#[derive(Clone, Debug)]
pub struct Notice {
    /// `NOTICE` or `WARNING`.
    pub severity: &'static str,
    pub message: String,
}

/// What executing a statement gave.
#[derive(Debug)]
pub enum Outcome {
    /// Rows; `tag` is the word of the command tag (`SELECT`, `SHOW`, `EXPLAIN`, `INSERT 0 n` …).
    Rows { schema: Schema, batches: Vec<RecordBatch>, tag: String },
    /// No rows: the whole command tag, as `CREATE_SOURCE` or `INSERT 0 3`.
    Done { tag: String },
    /// The statement was empty.
    Empty,
}

/// Cancels what a session is executing, from another connection.
#[derive(Clone)]
pub struct CancelHandle {}

impl CancelHandle {
    pub fn cancel(&self) {}
}

/// A query parameter as the client sent it.
#[derive(Clone, Debug)]
pub enum Param {
    Null,
    /// PostgreSQL's text form.
    Text(String),
    /// PostgreSQL's binary form of the described parameter type.
    Binary(Vec<u8>),
}

impl Engine {
    /// Starts workers and coordinator.
    pub async fn start(_config: Config) -> Result<Engine> {
        Ok(Engine {})
    }

    pub fn session(&self, _user: &str, _database: &str) -> Session {
        Session {}
    }

    /// Ends everything cleanly: in-flight sink batches are flushed within `grace`.
    pub async fn shutdown(&self, _grace: Duration) {}

    /// Ok when the server can answer queries; else why not.
    pub fn health(&self) -> Result<()> {
        Ok(())
    }
}

impl Session {
    /// Splits and parses a query string of any number of statements.
    pub fn parse(&self, _sql: &str) -> Result<Vec<Statement>> {
        Ok(vec![])
    }

    /// `hints` are parameter types the client fixed, in order; `None` where it left them open.
    pub async fn describe(
        &self,
        _statement: &Statement,
        _hints: &[Option<DataType>],
    ) -> Result<Description> {
        Err(Error::unsupported("not built"))
    }

    pub async fn execute(
        &mut self,
        _statement: &Statement,
        _params: &[Param],
        _param_types: &[DataType],
    ) -> Result<Outcome> {
        Err(Error::unsupported("not built"))
    }

    /// Notices since the last call, oldest first.
    pub fn take_notices(&mut self) -> Vec<Notice> {
        vec![]
    }

    /// Settings to report to the client (`ParameterStatus`), as TimeZone, server_version …
    pub fn parameters(&self) -> Vec<(String, String)> {
        vec![]
    }

    /// The session's time zone, in which timestamptz is printed.
    pub fn time_zone(&self) -> String {
        "UTC".into()
    }

    /// 'I' idle, 'T' in a transaction block, 'E' in a failed one.
    pub fn transaction_status(&self) -> char {
        'I'
    }

    pub fn cancel_handle(&self) -> CancelHandle {
        CancelHandle {}
    }
}
