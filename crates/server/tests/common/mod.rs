//! A whole server in the test's process, on free ports.

#![allow(dead_code)] // Each test binary uses its own part of this.

use ruslo_engine::Storage;
use ruslo_server::cli::{Memory, Running, Settings};
use tokio_postgres::{Client, NoTls};

pub(crate) fn settings() -> Settings {
    Settings {
        listen: "127.0.0.1:0".into(),
        http: Some("127.0.0.1:0".into()),
        workers: 2,
        log: "warn".into(),
        tls: None,
        connections_max: 20,
        storage: Storage::Memory,
        memory: Memory::default(),
    }
}

pub(crate) async fn start() -> Running {
    Running::start(&settings())
        .await
        .expect("the server starts")
}

/// A client with its connection running in the background.
pub(crate) async fn connect(running: &Running) -> Client {
    try_connect(running)
        .await
        .expect("the server accepts a client")
}

pub(crate) async fn try_connect(running: &Running) -> Result<Client, tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::Config::new()
        .host(running.sql.ip().to_string())
        .port(running.sql.port())
        .user("root")
        .dbname("dev")
        .connect(NoTls)
        .await?;
    tokio::spawn(connection);
    Ok(client)
}

/// The rows of the last statement as text, NULL as `NULL`.
pub(crate) async fn texts(client: &Client, sql: &str) -> Vec<Vec<String>> {
    let messages = client
        .simple_query(sql)
        .await
        .unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    let rows = messages.iter().filter_map(|message| match message {
        tokio_postgres::SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    rows.map(|row| {
        (0..row.len())
            .map(|at| row.get(at).unwrap_or("NULL").to_string())
            .collect()
    })
    .collect()
}
