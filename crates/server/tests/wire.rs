//! The Postgres protocol as drivers use it, against a running server.

mod common;

use std::time::Duration;

use common::{connect, settings, start, texts, try_connect};
use futures::{StreamExt, TryStreamExt};
use ruslo_server::cli::Running;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;
use tokio_postgres::{AsyncMessage, NoTls, SimpleQueryMessage};

#[tokio::test(flavor = "multi_thread")]
async fn statements_of_one_string_run_until_the_first_error() {
    let running = start().await;
    let client = connect(&running).await;
    let messages = client
        .simple_query("SELECT 1 AS a; SELECT 'x' AS b, NULL AS c")
        .await
        .unwrap();
    let complete = messages
        .iter()
        .filter(|m| matches!(m, SimpleQueryMessage::CommandComplete(1)))
        .count();
    assert_eq!(complete, 2);
    assert_eq!(
        texts(&client, "SELECT 1; SELECT 'x', NULL").await,
        [vec!["1"], vec!["x", "NULL"]]
    );
    assert!(
        client
            .simple_query("")
            .await
            .unwrap()
            .iter()
            .all(|m| { !matches!(m, SimpleQueryMessage::Row(_)) })
    );

    client
        .simple_query("CREATE TABLE t (a INT PRIMARY KEY)")
        .await
        .unwrap();
    let sql = "INSERT INTO t VALUES (1); SELECT no_such_column FROM t; INSERT INTO t VALUES (2)";
    let error = client.simple_query(sql).await.unwrap_err();
    assert_eq!(error.code(), Some(&SqlState::UNDEFINED_COLUMN));
    client.simple_query("FLUSH").await.unwrap();
    assert_eq!(texts(&client, "SELECT a FROM t").await, [vec!["1"]]);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn values_travel_in_binary_both_ways() {
    let running = start().await;
    let client = connect(&running).await;
    let sql = "SELECT $1::smallint, $2::integer, $3::bigint, $4::real, $5::double precision, \
               $6::boolean, $7::varchar, $8::bytea, $9::integer[]";
    let array = vec![Some(1i32), None, Some(3)];
    let row = client
        .query_one(
            sql,
            &[
                &-7i16,
                &70_000i32,
                &(1i64 << 40),
                &1.5f32,
                &-2.25f64,
                &true,
                &"текст",
                &&b"\x00\xff"[..],
                &array,
            ],
        )
        .await
        .unwrap();
    assert_eq!(row.get::<_, i16>(0), -7);
    assert_eq!(row.get::<_, i32>(1), 70_000);
    assert_eq!(row.get::<_, i64>(2), 1 << 40);
    assert_eq!(row.get::<_, f32>(3), 1.5);
    assert_eq!(row.get::<_, f64>(4), -2.25);
    assert!(row.get::<_, bool>(5));
    assert_eq!(row.get::<_, &str>(6), "текст");
    assert_eq!(row.get::<_, &[u8]>(7), b"\x00\xff");
    assert_eq!(row.get::<_, Vec<Option<i32>>>(8), array);
    let nulls = client
        .query_one("SELECT $1::integer", &[&None::<i32>])
        .await
        .unwrap();
    assert_eq!(nulls.get::<_, Option<i32>>(0), None);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_is_described_before_it_runs() {
    let running = start().await;
    let client = connect(&running).await;
    client
        .simple_query("CREATE TABLE t (a INT, b NUMERIC, c TIMESTAMPTZ, d VARCHAR[])")
        .await
        .unwrap();
    let statement = client
        .prepare("SELECT * FROM t WHERE a = $1")
        .await
        .unwrap();
    let types: Vec<&Type> = statement.columns().iter().map(|c| c.type_()).collect();
    assert_eq!(
        types,
        [
            &Type::INT4,
            &Type::NUMERIC,
            &Type::TIMESTAMPTZ,
            &Type::VARCHAR_ARRAY
        ]
    );
    assert_eq!(statement.params(), [Type::INT4]);
    assert!(client.query(&statement, &[&1i32]).await.unwrap().is_empty());

    client
        .simple_query("DROP TABLE t; CREATE TABLE t (a INT)")
        .await
        .unwrap();
    let error = client.query(&statement, &[&1i32]).await.unwrap_err();
    assert_eq!(error.code(), Some(&SqlState::FEATURE_NOT_SUPPORTED));
    let error = client.prepare("SELECT 1; SELECT 2").await.unwrap_err();
    assert_eq!(error.code(), Some(&SqlState::SYNTAX_ERROR));
    // The connection goes on after errors in the extended protocol.
    assert_eq!(client.query("SELECT 1", &[]).await.unwrap().len(), 1);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_portal_gives_its_rows_in_portions() {
    let running = start().await;
    let mut client = connect(&running).await;
    let transaction = client.transaction().await.unwrap();
    let portal = transaction
        .bind("SELECT * FROM generate_series(1, 5)", &[])
        .await
        .unwrap();
    let mut sizes = vec![];
    for _ in 0..4 {
        sizes.push(transaction.query_portal(&portal, 2).await.unwrap().len());
    }
    assert_eq!(sizes, [2, 2, 1, 0]);
    transaction.commit().await.unwrap();
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_result_is_streamed() {
    let running = start().await;
    let client = connect(&running).await;
    let rows = client.query_raw(
        "SELECT * FROM generate_series(1, 200000)",
        Vec::<i32>::new(),
    );
    let rows = rows.await.unwrap();
    let count = rows
        .try_fold(0, |count, _| async move { Ok(count + 1) })
        .await
        .unwrap();
    assert_eq!(count, 200_000);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_statement_can_be_cancelled() {
    let running = start().await;
    let client = connect(&running).await;
    let token = client.cancel_token();
    let slow = "SELECT count(*) FROM generate_series(1, 100000) a, generate_series(1, 100000) b";
    let cancel = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        token.cancel_query(NoTls).await.unwrap();
    };
    let (result, ()) = tokio::join!(client.simple_query(slow), cancel);
    assert_eq!(result.unwrap_err().code(), Some(&SqlState::QUERY_CANCELED));
    assert_eq!(texts(&client, "SELECT 1").await, [vec!["1"]]);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn notices_reach_the_client() {
    let running = start().await;
    let (client, mut connection) = tokio_postgres::Config::new()
        .host(running.sql.ip().to_string())
        .port(running.sql.port())
        .user("root")
        .connect(NoTls)
        .await
        .unwrap();
    let (send, notices) = futures::channel::mpsc::unbounded();
    let messages = futures::stream::poll_fn(move |context| connection.poll_message(context));
    tokio::spawn(messages.for_each(move |message| {
        if let Ok(AsyncMessage::Notice(notice)) = message {
            let _ = send.unbounded_send(notice.message().to_string());
        }
        futures::future::ready(())
    }));
    client.simple_query("CREATE TABLE t (a INT)").await.unwrap();
    client
        .simple_query("CREATE TABLE IF NOT EXISTS t (a INT)")
        .await
        .unwrap();
    drop(client);
    let notices: Vec<String> = notices.collect().await;
    assert!(
        notices
            .iter()
            .any(|notice| notice.contains("already exists")),
        "{notices:?}"
    );
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_client_too_many_is_told_so() {
    let mut settings = settings();
    settings.connections_max = 1;
    let running = Running::start(&settings).await.unwrap();
    let first = connect(&running).await;
    let error = try_connect(&running).await.err().unwrap();
    assert_eq!(error.code(), Some(&SqlState::TOO_MANY_CONNECTIONS));
    drop(first);
    for _ in 0..50 {
        if try_connect(&running).await.is_ok() {
            running.stop().await;
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the place of a client that left is not given to the next");
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_is_refused_in_plain_words_and_settings_come_from_the_startup_packet() {
    let running = start().await;
    let mut socket = TcpStream::connect(running.sql).await.unwrap();
    socket
        .write_all(&[0, 0, 0, 8, 4, 210, 22, 47])
        .await
        .unwrap();
    assert_eq!(socket.read_u8().await.unwrap(), b'N');

    let (client, connection) = tokio_postgres::Config::new()
        .host(running.sql.ip().to_string())
        .port(running.sql.port())
        .user("root")
        .options("-c TimeZone=Europe/Berlin")
        .connect(NoTls)
        .await
        .unwrap();
    tokio::spawn(connection);
    assert_eq!(
        texts(&client, "SHOW TimeZone").await,
        [vec!["Europe/Berlin"]]
    );
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_the_server_says_goodbye() {
    let running = start().await;
    let client = connect(&running).await;
    running.stop().await;
    let error = client.simple_query("SELECT 1").await.unwrap_err();
    assert!(
        error.is_closed() || error.code() == Some(&SqlState::ADMIN_SHUTDOWN),
        "{error:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn http_tells_health_and_metrics() {
    let running = start().await;
    let client = connect(&running).await;
    client.simple_query("SELECT 1").await.unwrap();
    let http = running.http.unwrap();
    let get = async |path: &str| {
        let mut socket = TcpStream::connect(http).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.unwrap();
        answer
    };
    let health = get("/healthz").await;
    assert!(health.starts_with("HTTP/1.1 200"), "{health}");
    let metrics = get("/metrics").await;
    for name in [
        "ruslo_pg_connections",
        "ruslo_pg_statement_seconds_bucket",
        "process_cpu",
    ] {
        assert!(metrics.contains(name), "{name} is missing from {metrics}");
    }
    assert!(get("/").await.contains("\"endpoints\""));
    running.stop().await;
}
