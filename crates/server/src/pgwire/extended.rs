//! The extended query protocol: prepared statements and portals.
//!
//! ```text
//!   Parse ──> Prepared (statement, parameter and column types)
//!               │ Bind (values, formats)
//!               v
//!             Portal: Bound ──Execute──> Suspended ──Execute──> Finished
//! ```

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::DataType;
use pgwire::messages::data::{NoData, ParameterDescription};
use pgwire::messages::extendedquery::{
    BindComplete, CloseComplete, ParseComplete, PortalSuspended,
};
use pgwire::messages::response::{CommandComplete, EmptyQueryResponse};
use ruslo_engine::{Error, ErrorKind, Outcome, Param, Schema, Statement};

use super::backend::{Failure, put};
use super::connection::{Answer, Connection};
use super::frontend::{Bind, Frontend, Target};
use super::rows::{Cursor, Form, Format, put_description};
use super::{params, types};

/// A parsed statement; `statement` is `None` for an empty query string.
struct Prepared {
    statement: Option<Statement>,
    /// What the client declared each parameter as; zero where it left that to us.
    declared: Vec<u32>,
    params: Vec<DataType>,
    columns: Option<Schema>,
}

/// A statement with its parameters' values, on its way through execution.
struct Portal {
    prepared: Arc<Prepared>,
    params: Vec<Param>,
    formats: Vec<Format>,
    state: State,
}

enum State {
    Bound,
    Suspended {
        cursor: Cursor,
        tag: String,
    },
    /// Rows were returned to their end; a further Execute gives none.
    Drained {
        tag: String,
    },
    /// A statement without rows has run; it can't run again.
    Done,
}

/// What executing a bound portal began with.
enum Started {
    /// Rows to be sent, and the command tag.
    Rows(Cursor, String),
    /// Rows to be copied.
    Copy(Outcome),
    /// There are no rows, and the client knows.
    Answered,
}

/// One connection's prepared statements and portals, by name; the empty name is the unnamed one.
#[derive(Default)]
pub(super) struct Portals {
    statements: HashMap<String, Arc<Prepared>>,
    portals: HashMap<String, Portal>,
}

impl Portals {
    /// Drops what lives no longer than a transaction.
    pub(super) fn end_transaction(&mut self) {
        self.portals.clear();
    }

    /// A simple query takes the unnamed statement and portal away.
    pub(super) fn forget_unnamed(&mut self) {
        self.statements.remove("");
        self.portals.remove("");
    }

    fn statement(&self, name: &str) -> Result<&Arc<Prepared>, Failure> {
        self.statements.get(name).ok_or_else(|| {
            let message = format!("prepared statement \"{name}\" does not exist");
            Failure::state("26000", message)
        })
    }

    fn bind(&mut self, bind: Bind) -> Result<(), Failure> {
        let prepared = self.statement(&bind.statement)?.clone();
        if !bind.portal.is_empty() && self.portals.contains_key(&bind.portal) {
            let message = format!("cursor \"{}\" already exists", bind.portal);
            return Err(Failure::state("42P03", message));
        }
        let params = parameters(&prepared, &bind)?;
        let columns = prepared.columns.as_ref().map_or(0, Schema::len);
        let formats = formats(&bind.result_formats, columns, "result")?;
        let portal = Portal {
            prepared,
            params,
            formats,
            state: State::Bound,
        };
        self.portals.insert(bind.portal, portal);
        Ok(())
    }
}

impl Connection {
    /// Answers one message of the extended protocol other than Sync and Flush.
    pub(super) async fn extended(&mut self, message: Frontend) -> Answer {
        match message {
            Frontend::Parse { name, sql, types } => {
                let parsed = self.parse(name, &sql, types).await;
                Ok(parsed.map(|()| put(&mut self.wire.output, &ParseComplete::new())))
            }
            Frontend::Bind(bind) => {
                let bound = self.portals.bind(bind);
                Ok(bound.map(|()| put(&mut self.wire.output, &BindComplete::new())))
            }
            Frontend::Describe { target, name } => Ok(self.describe(target, &name)),
            Frontend::Execute { portal, max_rows } => self.execute_portal(portal, max_rows).await,
            Frontend::Close { target, name } => {
                // Closing what is not there is no error.
                match target {
                    Target::Statement => drop(self.portals.statements.remove(&name)),
                    Target::Portal => drop(self.portals.portals.remove(&name)),
                }
                put(&mut self.wire.output, &CloseComplete::new());
                Ok(Ok(()))
            }
            other => {
                let message = format!("unexpected message {other:?}");
                Ok(Err(Error::internal(message).into()))
            }
        }
    }

    async fn parse(&mut self, name: String, sql: &str, declared: Vec<u32>) -> Result<(), Failure> {
        if name.is_empty() {
            self.portals.statements.remove("");
        } else if self.portals.statements.contains_key(&name) {
            let message = format!("prepared statement \"{name}\" already exists");
            return Err(Failure::state("42P05", message));
        }
        let mut statements = self.session.parse(sql)?;
        if statements.len() > 1 {
            let message = "cannot insert multiple commands into a prepared statement";
            return Err(Failure::state("42601", message));
        }
        let hints: Vec<Option<DataType>> = declared.iter().map(|&o| types::from_oid(o)).collect();
        let prepared = match statements.pop() {
            None => Prepared {
                statement: None,
                declared,
                params: vec![],
                columns: None,
            },
            Some(statement) => {
                self.registration.begin();
                let work = self.session.describe(&statement, &hints);
                let description = self.wire.attend(&self.registration.handle, work).await?;
                let mut params = description.params;
                // A client may declare more parameters than the statement has.
                for hint in hints.into_iter().skip(params.len()) {
                    params.push(hint.unwrap_or(DataType::Utf8));
                }
                let columns = description.columns;
                Prepared {
                    statement: Some(statement),
                    declared,
                    params,
                    columns,
                }
            }
        };
        self.portals.statements.insert(name, Arc::new(prepared));
        Ok(())
    }

    fn describe(&mut self, target: Target, name: &str) -> Result<(), Failure> {
        let output = &mut self.wire.output;
        let (columns, formats) = match target {
            Target::Statement => {
                let prepared = self.portals.statement(name)?;
                put(
                    output,
                    &ParameterDescription::new(prepared.parameter_oids()),
                );
                let count = prepared.columns.as_ref().map_or(0, Schema::len);
                (&prepared.columns, vec![Format::Text; count])
            }
            Target::Portal => {
                let portal = self
                    .portals
                    .portals
                    .get(name)
                    .ok_or_else(|| no_portal(name))?;
                (&portal.prepared.columns, portal.formats.clone())
            }
        };
        match columns {
            Some(schema) => put_description(output, schema, &formats),
            None => put(output, &NoData::new()),
        }
        Ok(())
    }

    async fn execute_portal(&mut self, name: String, max_rows: usize) -> Answer {
        let Some(mut portal) = self.portals.portals.remove(&name) else {
            return Ok(Err(no_portal(&name)));
        };
        let answer = self.advance(&mut portal, max_rows).await;
        self.portals.portals.insert(name, portal);
        answer
    }

    /// Runs a portal up to `max_rows` further rows; zero means to the end.
    async fn advance(&mut self, portal: &mut Portal, max_rows: usize) -> Answer {
        let (mut cursor, tag) = match std::mem::replace(&mut portal.state, State::Done) {
            State::Bound => match self.start(portal).await {
                Ok(Started::Rows(cursor, tag)) => (cursor, tag),
                Ok(Started::Answered) => return Ok(Ok(())),
                Ok(Started::Copy(rows)) => return self.copy_out(rows).await,
                Err(failure) => return Ok(Err(failure)),
            },
            State::Suspended { mut cursor, tag } => {
                self.registration.begin();
                cursor.resume();
                (cursor, tag)
            }
            State::Drained { tag } => {
                self.complete(&tag, 0);
                portal.state = State::Drained { tag };
                return Ok(Ok(()));
            }
            State::Done => {
                let message = "portal cannot be run";
                let hint = "Bind it again to run its statement once more.";
                let error = Error::new(ErrorKind::InvalidState, message).with_hint(hint);
                return Ok(Err(error.into()));
            }
        };
        let limit = (max_rows > 0).then_some(max_rows as u64);
        let form = Form::Data(&portal.formats);
        match self.send_rows(&mut cursor, form, limit).await? {
            Ok(Some(rows)) => {
                self.complete(&tag, rows);
                portal.state = State::Drained { tag };
            }
            Ok(None) => {
                put(&mut self.wire.output, &PortalSuspended::new());
                portal.state = State::Suspended { cursor, tag };
            }
            Err(failure) => return Ok(Err(failure)),
        }
        Ok(Ok(()))
    }

    async fn start(&mut self, portal: &Portal) -> Result<Started, Failure> {
        let prepared = portal.prepared.clone();
        let outcome = match &prepared.statement {
            None => Outcome::Empty,
            Some(statement) => {
                self.execute(statement, &portal.params, &prepared.params, "extended")
                    .await?
            }
        };
        match outcome {
            Outcome::Empty => put(&mut self.wire.output, &EmptyQueryResponse::new()),
            Outcome::Done { tag } => put(&mut self.wire.output, &CommandComplete::new(tag)),
            Outcome::Rows {
                schema,
                batches,
                tag,
            } => {
                prepared.check(&schema)?;
                return Ok(Started::Rows(Cursor::new(batches), tag));
            }
            Outcome::Changes(changes) => {
                prepared.check(changes.schema())?;
                let tag = "SUBSCRIBE".to_string();
                return Ok(Started::Rows(Cursor::of_changes(changes), tag));
            }
            Outcome::Copy(rows) => return Ok(Started::Copy(*rows)),
        }
        Ok(Started::Answered)
    }
}

impl Prepared {
    /// The client reads rows as they were described; a view dropped and created anew since then
    /// may have others.
    fn check(&self, schema: &Schema) -> Result<(), Failure> {
        if self.columns.as_ref().map(Schema::types) == Some(schema.types()) {
            return Ok(());
        }
        let error = Error::unsupported("cached plan must not change result type");
        Err(error.with_hint("Prepare the statement again.").into())
    }

    /// Parameter types as the client is told: its own where it declared them.
    fn parameter_oids(&self) -> Vec<u32> {
        let declared = self.declared.iter().copied().chain(std::iter::repeat(0));
        let pairs = self.params.iter().zip(declared);
        pairs
            .map(|(ty, declared)| match types::from_oid(declared) {
                Some(_) => declared,
                None => types::oid(ty),
            })
            .collect()
    }
}

fn no_portal(name: &str) -> Failure {
    Failure::state("34000", format!("portal \"{name}\" does not exist"))
}

/// One format per column or parameter from none, one or all of them.
fn formats(codes: &[i16], count: usize, what: &str) -> Result<Vec<Format>, Failure> {
    let format = |&code: &i16| match code {
        0 => Ok(Format::Text),
        1 => Ok(Format::Binary),
        other => Err(Failure::state(
            "22023",
            format!("unsupported format code: {other}"),
        )),
    };
    match codes {
        [] => Ok(vec![Format::Text; count]),
        [one] => Ok(vec![format(one)?; count]),
        codes if codes.len() == count => codes.iter().map(format).collect(),
        codes => Err(Failure::state(
            "08P01",
            format!(
                "bind message has {} {what} formats but needs {count}",
                codes.len()
            ),
        )),
    }
}

fn parameters(prepared: &Prepared, bind: &Bind) -> Result<Vec<Param>, Failure> {
    let wanted = prepared.params.len();
    if bind.values.len() != wanted {
        let message = format!(
            "bind message supplies {} parameters, but prepared statement \"{}\" requires {wanted}",
            bind.values.len(),
            bind.statement
        );
        return Err(Failure::state("08P01", message));
    }
    let formats = formats(&bind.formats, wanted, "parameter")?;
    let declared = prepared
        .declared
        .iter()
        .copied()
        .chain(std::iter::repeat(0));
    let values = bind
        .values
        .iter()
        .zip(formats)
        .zip(prepared.params.iter().zip(declared));
    values
        .enumerate()
        .map(
            |(i, ((value, format), (ty, declared)))| match (value, format) {
                (None, _) => Ok(Param::Null),
                (Some(bytes), Format::Text) => params::from_text(i, bytes),
                (Some(bytes), Format::Binary) if types::is_canonical(declared, ty) => {
                    Ok(Param::Binary(bytes.to_vec()))
                }
                (Some(bytes), Format::Binary) => Ok(params::from_foreign(
                    bytes,
                    declared,
                    matches!(ty, DataType::List(_)),
                )),
            },
        )
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn format_codes_spread_over_columns() {
        assert_eq!(formats(&[], 2, "result").unwrap(), [Format::Text; 2]);
        assert_eq!(formats(&[1], 2, "result").unwrap(), [Format::Binary; 2]);
        let both = formats(&[0, 1], 2, "result").unwrap();
        assert_eq!(both, [Format::Text, Format::Binary]);
        assert!(formats(&[0, 1], 3, "result").is_err());
        assert!(formats(&[2], 1, "result").is_err());
    }
}
