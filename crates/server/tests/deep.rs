//! Statements of a thousand terms work, deeper ones are refused: neither ends the process.

mod common;

use common::{connect, start, texts};
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

fn chain(term: &str, operator: &str, terms: usize) -> String {
    vec![term; terms].join(operator)
}

fn alternatives(terms: usize) -> String {
    let term = |i| format!("(a = {i} AND b = 'x')");
    (0..terms).map(term).collect::<Vec<_>>().join(" OR ")
}

/// Queries on `t (a INT, b VARCHAR)`, whose one row is (5, 'x').
fn queries(terms: usize) -> Vec<String> {
    let excluded: Vec<_> = (0..terms).map(|i| format!("a <> {}", i + 6)).collect();
    vec![
        format!("SELECT {}", chain("1", "+", terms)),
        format!("SELECT {} FROM t", chain("b", "||", terms)),
        format!("SELECT 1{}", "::int".repeat(terms)),
        format!("SELECT a FROM t WHERE {}", excluded.join(" AND ")),
        format!("SELECT a FROM t WHERE {}", alternatives(terms)),
    ]
}

async fn setup(client: &Client) {
    let sql = "CREATE TABLE t (a INT, b VARCHAR); INSERT INTO t VALUES (5, 'x'); FLUSH";
    client.simple_query(sql).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn chains_of_a_thousand_terms_work() {
    let running = start().await;
    let client = connect(&running).await;
    setup(&client).await;
    let expected = [
        "1000".into(),
        "x".repeat(1000),
        "1".into(),
        "5".into(),
        "5".to_string(),
    ];
    for (sql, expected) in queries(1000).iter().zip(expected) {
        assert_eq!(texts(&client, sql).await, [[expected]], "{}", &sql[..60]);
    }
    let mixed = format!("SELECT 1{}", " - 1 + 1".repeat(100));
    assert_eq!(texts(&client, &mixed).await, [["1"]]);
    let nots = format!("SELECT {} true", "NOT ".repeat(100));
    assert_eq!(texts(&client, &nots).await, [["t"]]);
    let nested = format!(
        "SELECT * FROM {}t{}",
        "(SELECT * FROM ".repeat(20),
        ") s".repeat(20)
    );
    assert_eq!(texts(&client, &nested).await, [["5", "x"]]);
    let union = chain("SELECT 1", " UNION ALL ", 300);
    assert_eq!(texts(&client, &union).await.len(), 300);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_may_be_deep_too() {
    let running = start().await;
    let client = connect(&running).await;
    setup(&client).await;
    let sum = chain("a", " + ", 1000);
    let view = format!("CREATE MATERIALIZED VIEW m AS SELECT {sum} AS s FROM t");
    client.simple_query(&view).await.unwrap();
    let alternatives = alternatives(1000);
    let view = format!("CREATE MATERIALIZED VIEW n AS SELECT a FROM t WHERE {alternatives}");
    client.simple_query(&view).await.unwrap();
    client
        .simple_query("INSERT INTO t VALUES (7, 'y')")
        .await
        .unwrap();
    client.simple_query("FLUSH").await.unwrap();
    assert_eq!(
        texts(&client, "SELECT s FROM m ORDER BY s").await,
        [["5000"], ["7000"]]
    );
    assert_eq!(texts(&client, "SELECT a FROM n").await, [["5"]]);
    client.simple_query("DROP TABLE t CASCADE").await.unwrap();
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_deep_is_refused() {
    let running = start().await;
    let client = connect(&running).await;
    setup(&client).await;
    let mut refused = queries(100_000);
    let mixed: String = (0..2000)
        .map(|i| if i % 2 == 0 { " - 1" } else { " + 1" })
        .collect();
    refused.push(format!("SELECT 1{mixed}"));
    let casts: String = (0..500).map(|_| "::int::text").collect();
    refused.push(format!("SELECT 1{casts}"));
    refused.push(format!("SELECT {} true", "NOT ".repeat(1000)));
    refused.push(format!(
        "SELECT {}1{}",
        "(".repeat(100_000),
        ")".repeat(100_000)
    ));
    refused.push(format!(
        "SELECT * FROM {}t{}",
        "(SELECT * FROM ".repeat(5000),
        ") s".repeat(5000)
    ));
    refused.push(chain("SELECT 1, 2", " UNION ALL ", 20_000));
    for sql in refused {
        let error = client.simple_query(&sql).await.unwrap_err();
        assert_eq!(
            error.code(),
            Some(&SqlState::STATEMENT_TOO_COMPLEX),
            "{}",
            &sql[..60]
        );
    }
    assert_eq!(texts(&client, "SELECT a FROM t").await, [["5"]]);
    running.stop().await;
}
