//! From an accepted socket to a session: TLS, cancel requests, the startup packet.

use std::io;
use std::time::Duration;

use pgwire::messages::startup::{
    Authentication, BackendKeyData, NegotiateProtocolVersion, SecretKey, Startup,
};
use ruslo_engine::{ErrorKind, Session};
use tokio::net::TcpStream;

use super::backend::{Failure, put, put_failure};
use super::connection::Connection;
use super::frontend::{self, Opening};
use super::wire::{Event, Wire};
use super::{Server, Slot};

/// A client that has not started up by then is cut off.
const STARTUP_TIMEOUT: Duration = Duration::from_secs(30);
const DEFAULT_USER: &str = "root";
const DEFAULT_DATABASE: &str = "dev";
const TLS_ACCEPTED: u8 = b'S';
const REFUSED: u8 = b'N';

/// Serves one connection to its end.
pub(super) async fn run(server: &Server, socket: TcpStream, slot: Slot) -> io::Result<()> {
    let started = tokio::time::timeout(STARTUP_TIMEOUT, start(server, socket, slot.is_some()));
    match started.await {
        Ok(Ok(Some(connection))) => connection.run().await,
        Ok(Ok(None)) => Ok(()),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "no startup packet in time",
        )),
    }
}

/// Everything before the first statement; `None` if the connection has ended by itself.
async fn start(
    server: &Server,
    socket: TcpStream,
    has_slot: bool,
) -> io::Result<Option<Connection>> {
    let mut wire = Wire::new(Box::new(socket), server.shutdown.clone());
    let mut secured = false;
    loop {
        let opening = match next_opening(&mut wire).await? {
            Some(Ok(opening)) => opening,
            Some(Err(failure)) => return refuse(wire, &failure).await,
            None => return Ok(None),
        };
        match (opening, &server.tls) {
            (Opening::Cancel { process, secret }, _) => {
                server.cancels.cancel(process, secret);
                return Ok(None);
            }
            (Opening::Ssl, Some(tls)) if !secured => {
                wire.output.extend_from_slice(&[TLS_ACCEPTED]);
                wire.flush().await?;
                if !wire.input.is_empty() {
                    // Plain bytes sent ahead of the handshake come from somebody in between.
                    let message = "received unencrypted data after SSL request";
                    return refuse(wire, &Failure::state("08P01", message)).await;
                }
                let (stream, shutdown) = wire.into_stream();
                wire = Wire::new(Box::new(tls.accept(stream).await?), shutdown);
                secured = true;
            }
            (Opening::Ssl | Opening::Gss, _) => {
                wire.output.extend_from_slice(&[REFUSED]);
                wire.flush().await?;
            }
            (Opening::Startup { minor, parameters }, _) => {
                if !has_slot {
                    let message = format!(
                        "sorry, too many clients already (the limit is {})",
                        server.connections_max
                    );
                    return refuse(wire, &Failure::state("53300", message)).await;
                }
                return welcome(server, wire, minor, parameters).await;
            }
        }
    }
}

async fn next_opening(wire: &mut Wire) -> io::Result<Option<Result<Opening, Failure>>> {
    loop {
        match frontend::opening(&mut wire.input) {
            Ok(Some(opening)) => return Ok(Some(Ok(opening))),
            Ok(None) => {}
            Err(error) => return Ok(Some(Err(error.into()))),
        }
        match wire.read().await? {
            Event::Bytes => {}
            Event::Closed | Event::Shutdown => return Ok(None),
        }
    }
}

async fn refuse(mut wire: Wire, failure: &Failure) -> io::Result<Option<Connection>> {
    put_failure(&mut wire.output, "FATAL", failure);
    wire.flush().await?;
    Ok(None)
}

/// Opens the session and tells the client about it.
async fn welcome(
    server: &Server,
    mut wire: Wire,
    minor: u16,
    parameters: Vec<(String, String)>,
) -> io::Result<Option<Connection>> {
    let unknown = parameters.iter().map(|(name, _)| name.clone());
    let unknown: Vec<String> = unknown.filter(|name| name.starts_with("_pq_.")).collect();
    if minor > 0 || !unknown.is_empty() {
        let newest = Startup::PROTOCOL_VERSION_3_0;
        put(
            &mut wire.output,
            &NegotiateProtocolVersion::new(newest, unknown),
        );
    }
    let given = |wanted: &str| {
        let found = parameters
            .iter()
            .find(|(name, value)| name == wanted && !value.is_empty());
        found.map(|(_, value)| value.as_str())
    };
    let user = given("user").unwrap_or(DEFAULT_USER);
    let database = given("database").unwrap_or(DEFAULT_DATABASE);
    if let Err(error) = server.engine.health() {
        return refuse(wire, &error.into()).await;
    }
    let mut session = server.engine.session(user, database);
    for (name, value) in settings(&parameters) {
        if let Err(failure) = set(&mut session, &name, &value).await {
            return refuse(wire, &failure).await;
        }
    }
    let registration = server.cancels.register(session.cancel_handle());
    put(&mut wire.output, &Authentication::Ok);
    let key = BackendKeyData::new(registration.process, SecretKey::I32(registration.secret));
    put(&mut wire.output, &key);
    Ok(Some(Connection::new(wire, session, registration)))
}

/// The settings among the startup parameters, those inside `options` (`-c name=value`) too.
fn settings(parameters: &[(String, String)]) -> Vec<(String, String)> {
    let mut settings = vec![];
    for (name, value) in parameters {
        match name.as_str() {
            "user" | "database" | "replication" => {}
            "options" => settings.extend(option_settings(value)),
            name if name.starts_with("_pq_.") => {}
            name => settings.push((name.to_string(), value.clone())),
        }
    }
    settings
}

fn option_settings(options: &str) -> Vec<(String, String)> {
    let mut settings = vec![];
    let mut words = split_options(options).into_iter();
    while let Some(word) = words.next() {
        let setting = match (word.strip_prefix("--"), word.strip_prefix("-c")) {
            (Some(setting), _) => setting.to_string(),
            (None, Some("")) => words.next().unwrap_or_default(),
            (None, Some(setting)) => setting.to_string(),
            (None, None) => continue,
        };
        if let Some((name, value)) = setting.split_once('=') {
            settings.push((name.replace('-', "_"), value.to_string()));
        }
    }
    settings
}

/// Splits at white space; a backslash takes the next character as it is.
fn split_options(options: &str) -> Vec<String> {
    let mut words = vec![];
    let mut word = String::new();
    let mut characters = options.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => word.extend(characters.next()),
            c if c.is_whitespace() => words.push(std::mem::take(&mut word)),
            c => word.push(c),
        }
    }
    words.push(word);
    words.retain(|word| !word.is_empty());
    words
}

/// Sets one setting. One that we don't have is passed over: drivers send many.
async fn set(session: &mut Session, name: &str, value: &str) -> Result<(), Failure> {
    let well_formed = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
    if name.is_empty() || !name.chars().all(well_formed) {
        return Err(Failure::state(
            "42704",
            format!("invalid configuration parameter \"{name}\""),
        ));
    }
    let sql = format!("SET {name} TO '{}'", value.replace('\'', "''"));
    for statement in session.parse(&sql)? {
        match session.execute(&statement, &[], &[]).await {
            Ok(_) => {}
            Err(e) if matches!(e.kind, ErrorKind::UndefinedObject | ErrorKind::Unsupported) => {
                tracing::debug!(name, "startup parameter is not known");
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_split_as_postgresql_does() {
        let pairs = |options: &str| {
            option_settings(options)
                .into_iter()
                .map(|(n, v)| format!("{n}:{v}"))
                .collect::<Vec<_>>()
        };
        assert_eq!(
            pairs("-c search_path=a,b -cstatement_timeout=5"),
            ["search_path:a,b", "statement_timeout:5"]
        );
        assert_eq!(
            pairs(r"--time-zone=Europe/Berlin -c a=x\ y"),
            ["time_zone:Europe/Berlin", "a:x y"]
        );
        assert_eq!(pairs("-c"), Vec::<String>::new());
    }
}
