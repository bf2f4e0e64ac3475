//! One started connection: the loop over its messages and the simple query protocol.

use std::io;
use std::time::Instant;

use pgwire::messages::copy::CopyDone;
use pgwire::messages::response::{
    CommandComplete, EmptyQueryResponse, ReadyForQuery, TransactionStatus,
};
use pgwire::messages::startup::ParameterStatus;
use ruslo_engine::{Error, Outcome, Param, Schema, Session, Statement};
use ruslo_repr::text::TextStyle;

use super::backend::{Failure, put, put_failure, put_notice};
use super::cancel::Registration;
use super::extended::Portals;
use super::frontend::{self, Frontend};
use super::rows::{Cursor, Form, Format, Sent, put_copy_begin, put_description};
use super::wire::{Event, Wire};

/// What the client is told if the session doesn't say otherwise: settings that never change.
const FIXED_PARAMETERS: [(&str, &str); 6] = [
    ("server_encoding", "UTF8"),
    ("client_encoding", "UTF8"),
    ("DateStyle", "ISO, MDY"),
    ("IntervalStyle", "postgres"),
    ("integer_datetimes", "on"),
    ("standard_conforming_strings", "on"),
];

pub(super) struct Connection {
    pub(super) wire: Wire,
    pub(super) session: Session,
    pub(super) registration: Registration,
    pub(super) portals: Portals,
    /// After an error in the extended protocol everything up to Sync is skipped.
    skipping: bool,
    /// Settings as last reported to the client.
    reported: Vec<(String, String)>,
}

/// A failed statement in the inner result, a broken connection in the outer.
pub(super) type Answer<T = ()> = io::Result<Result<T, Failure>>;

impl Connection {
    pub(super) fn new(wire: Wire, session: Session, registration: Registration) -> Self {
        Connection {
            wire,
            session,
            registration,
            portals: Portals::default(),
            skipping: false,
            reported: vec![],
        }
    }

    /// Answers messages until the client leaves or the server goes down.
    pub(super) async fn run(mut self) -> io::Result<()> {
        self.ready().await?;
        loop {
            let message = match frontend::message(&mut self.wire.input) {
                Ok(Some(message)) => message,
                Ok(None) => match self.wire.read().await? {
                    Event::Bytes => continue,
                    Event::Closed => return Ok(()),
                    Event::Shutdown => {
                        let message = "terminating connection due to administrator command";
                        return self.end(Failure::state("57P01", message)).await;
                    }
                },
                // The stream's frames are lost, so there is no going on.
                Err(error) => return self.end(error.into()).await,
            };
            match message {
                Frontend::Terminate => return Ok(()),
                Frontend::Sync => {
                    self.skipping = false;
                    self.ready().await?;
                }
                _ if self.skipping => {}
                Frontend::Query(sql) => self.simple_query(&sql).await?,
                Frontend::Flush => self.wire.flush().await?,
                Frontend::StrayCopy => {}
                Frontend::FunctionCall => {
                    let message = "the function call protocol is not supported";
                    self.fail(&Failure::state("0A000", message)).await?;
                    self.ready().await?;
                }
                message => {
                    if let Err(failure) = self.extended(message).await? {
                        self.skipping = true;
                        self.fail(&failure).await?;
                    }
                }
            }
        }
    }

    /// Tells the client why the connection ends.
    async fn end(&mut self, failure: Failure) -> io::Result<()> {
        put_failure(&mut self.wire.output, "FATAL", &failure);
        self.wire.flush().await
    }

    async fn fail(&mut self, failure: &Failure) -> io::Result<()> {
        metrics::counter!("ruslo_pg_errors_total", "sqlstate" => failure.sqlstate()).increment(1);
        self.put_notices();
        put_failure(&mut self.wire.output, "ERROR", failure);
        self.wire.flush().await
    }

    /// Ends a round: changed settings, ReadyForQuery, everything out.
    async fn ready(&mut self) -> io::Result<()> {
        self.put_notices();
        self.put_parameters();
        let status = match self.session.transaction_status() {
            'T' => TransactionStatus::Transaction,
            'E' => TransactionStatus::Error,
            _ => TransactionStatus::Idle,
        };
        if status == TransactionStatus::Idle {
            // Portals live as long as their transaction.
            self.portals.end_transaction();
        }
        put(&mut self.wire.output, &ReadyForQuery::new(status));
        self.wire.flush().await
    }

    fn put_parameters(&mut self) {
        let mut current: Vec<(String, String)> = self.session.parameters();
        for (name, value) in FIXED_PARAMETERS {
            if !current
                .iter()
                .any(|(known, _)| known.eq_ignore_ascii_case(name))
            {
                current.push((name.to_string(), value.to_string()));
            }
        }
        for (name, value) in current
            .iter()
            .filter(|entry| !self.reported.contains(entry))
        {
            let status = ParameterStatus::new(name.replace('\0', ""), value.replace('\0', ""));
            put(&mut self.wire.output, &status);
        }
        self.reported = current;
    }

    fn put_notices(&mut self) {
        for notice in self.session.take_notices() {
            put_notice(&mut self.wire.output, &notice);
        }
    }

    /// The simple protocol: all statements of the string, text results, the first error ends it.
    async fn simple_query(&mut self, sql: &str) -> io::Result<()> {
        self.portals.forget_unnamed();
        match self.session.parse(sql) {
            Ok(statements) if statements.is_empty() => {
                put(&mut self.wire.output, &EmptyQueryResponse::new());
            }
            Ok(statements) => {
                for statement in &statements {
                    if let Err(failure) = self.simple_statement(statement).await? {
                        self.fail(&failure).await?;
                        break;
                    }
                }
            }
            Err(error) => self.fail(&error.into()).await?,
        }
        self.ready().await
    }

    async fn simple_statement(&mut self, statement: &Statement) -> Answer {
        match self.execute(statement, &[], &[], "simple").await {
            Err(failure) => Ok(Err(failure)),
            Ok(Outcome::Rows {
                schema,
                batches,
                tag,
            }) => self.simple_rows(&schema, Cursor::new(batches), &tag).await,
            Ok(Outcome::Changes(changes)) => {
                let schema = changes.schema().clone();
                let rows = Cursor::of_changes(changes);
                self.simple_rows(&schema, rows, "SUBSCRIBE").await
            }
            Ok(Outcome::Copy(rows)) => self.copy_out(*rows).await,
            Ok(Outcome::Done { tag }) => {
                put(&mut self.wire.output, &CommandComplete::new(tag));
                Ok(Ok(()))
            }
            Ok(Outcome::Empty) => {
                put(&mut self.wire.output, &EmptyQueryResponse::new());
                Ok(Ok(()))
            }
        }
    }

    async fn simple_rows(&mut self, schema: &Schema, mut rows: Cursor, tag: &str) -> Answer {
        let formats = vec![Format::Text; schema.len()];
        put_description(&mut self.wire.output, schema, &formats);
        match self
            .send_rows(&mut rows, Form::Data(&formats), None)
            .await?
        {
            Ok(rows) => self.complete(tag, rows.unwrap_or(0)),
            Err(failure) => return Ok(Err(failure)),
        }
        Ok(Ok(()))
    }

    /// Sends what is to be copied.
    pub(super) async fn copy_out(&mut self, rows: Outcome) -> Answer {
        let (columns, mut rows) = match rows {
            Outcome::Rows {
                schema, batches, ..
            } => (schema.len(), Cursor::new(batches)),
            Outcome::Changes(changes) => (changes.schema().len(), Cursor::of_changes(changes)),
            _ => return Ok(Err(Error::internal("there is nothing to copy").into())),
        };
        put_copy_begin(&mut self.wire.output, columns);
        match self.send_rows(&mut rows, Form::Copy, None).await? {
            Ok(rows) => {
                put(&mut self.wire.output, &CopyDone::new());
                self.complete("COPY", rows.unwrap_or(0));
                Ok(Ok(()))
            }
            Err(failure) => Ok(Err(failure)),
        }
    }

    /// Executes a statement, attending to cancellation, and passes on its notices.
    pub(super) async fn execute(
        &mut self,
        statement: &Statement,
        params: &[Param],
        types: &[arrow::datatypes::DataType],
        protocol: &'static str,
    ) -> Result<Outcome, Failure> {
        self.registration.begin();
        let started = Instant::now();
        let work = self.session.execute(statement, params, types);
        let outcome = self.wire.attend(&self.registration.handle, work).await;
        metrics::counter!("ruslo_pg_statements_total", "protocol" => protocol).increment(1);
        metrics::histogram!("ruslo_pg_statement_seconds").record(started.elapsed());
        self.put_notices();
        outcome.map_err(Failure::from)
    }

    /// Sends rows up to `limit`; `None` if there are more.
    pub(super) async fn send_rows(
        &mut self,
        cursor: &mut Cursor,
        form: Form<'_>,
        limit: Option<u64>,
    ) -> Answer<Option<u64>> {
        let style = TextStyle::with_time_zone(&self.session.time_zone()).unwrap_or_default();
        match cursor
            .send(&mut self.wire, form, &style, limit, &self.registration)
            .await?
        {
            Sent::All(rows) => Ok(Ok(Some(rows))),
            Sent::Suspended => Ok(Ok(None)),
            Sent::Failed(error) => {
                self.session.statement_failed();
                Ok(Err(error.into()))
            }
        }
    }

    /// CommandComplete of a statement that returned rows.
    pub(super) fn complete(&mut self, tag: &str, rows: u64) {
        let tag = match tag {
            // Only these words are followed by the number of rows sent; `INSERT 0 n` has it.
            "SELECT" | "FETCH" | "MOVE" | "COPY" => format!("{tag} {rows}"),
            other => other.to_string(),
        };
        put(&mut self.wire.output, &CommandComplete::new(tag));
    }
}
