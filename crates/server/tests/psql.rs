//! psql itself against a running server: the backslash commands people type.

mod common;

use std::process::Command;

use common::{connect, start};
use ruslo_server::cli::Running;

/// What psql prints for one command; fails if it reports an error.
async fn psql(running: &Running, command: &str) -> String {
    let (port, command) = (running.sql.port().to_string(), command.to_string());
    let run = move || {
        Command::new("psql")
            .args([
                "-X",
                "-h",
                "127.0.0.1",
                "-p",
                &port,
                "-U",
                "root",
                "-d",
                "dev",
            ])
            .args(["-v", "ON_ERROR_STOP=1", "-P", "pager=off", "-c", &command])
            .output()
            .map(|output| (command, output))
    };
    let (command, output) = tokio::task::spawn_blocking(run)
        .await
        .unwrap()
        .expect("psql runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && !errors.contains("ERROR"),
        "{command}: {errors}"
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

async fn with_objects() -> Running {
    let running = start().await;
    let client = connect(&running).await;
    for sql in [
        "CREATE TABLE orders (id INT PRIMARY KEY, item VARCHAR, price NUMERIC, tags VARCHAR[])",
        "CREATE MATERIALIZED VIEW per_item AS SELECT item, COUNT(*) FROM orders GROUP BY item",
        "CREATE VIEW cheap AS SELECT id FROM orders WHERE price < 10",
    ] {
        client.simple_query(sql).await.unwrap();
    }
    running
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_show_objects_with_their_kinds() {
    let running = with_objects().await;
    let all = psql(&running, "\\d").await;
    for line in [
        " public | cheap    | view              | root",
        " public | orders   | table             | root",
        " public | per_item | materialized view | root",
    ] {
        assert!(all.contains(line), "{all}");
    }
    let tables = psql(&running, "\\dt").await;
    assert!(
        tables.contains("orders") && !tables.contains("per_item"),
        "{tables}"
    );
    let views = psql(&running, "\\dm").await;
    assert!(
        views.contains("per_item") && !views.contains("orders"),
        "{views}"
    );
    assert!(psql(&running, "\\dv").await.contains("cheap"));
    assert!(psql(&running, "\\dn").await.contains("public"));
    assert!(psql(&running, "\\l").await.contains("dev"));
    assert!(psql(&running, "\\du").await.contains("root"));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_is_described_with_columns_and_key() {
    let running = with_objects().await;
    let table = psql(&running, "\\d orders").await;
    assert!(table.contains("Table \"public.orders\""), "{table}");
    assert!(
        table.contains(" id     | integer             |           | not null |"),
        "{table}"
    );
    assert!(table.contains(" tags   | character varying[] |"), "{table}");
    assert!(
        table.contains("\"orders_pkey\" PRIMARY KEY, btree (id)"),
        "{table}"
    );
    let view = psql(&running, "\\d+ per_item").await;
    assert!(
        view.contains("Materialized view \"public.per_item\""),
        "{view}"
    );
    assert!(view.contains("count"), "{view}");
    assert!(view.contains("GROUP BY item"), "{view}");
    assert!(psql(&running, "\\sv cheap").await.contains("price < 10"));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_other_list_is_answered() {
    let running = with_objects().await;
    for command in [
        "\\d+",
        "\\dt+",
        "\\dm+",
        "\\dv+",
        "\\di",
        "\\ds",
        "\\dE",
        "\\dn+",
        "\\du+",
        "\\l+",
        "\\dT",
        "\\df",
        "\\da",
        "\\dx",
        "\\dp",
        "\\z",
        "\\db",
        "\\dD",
        "\\drds",
        "\\dC",
        "\\des",
        "\\det",
        "\\do",
        "\\dO",
        "\\dc",
        "\\dy",
        "\\dRp",
        "\\dRs",
        "\\ddp",
        "\\dA",
        "\\dd",
        "\\conninfo",
        "\\dt public.*",
        "\\d public.orders",
        "\\d+ orders",
        "\\d cheap",
        "\\d+ cheap",
        "\\d orders_pkey",
        "\\d pg_catalog.pg_class",
    ] {
        psql(&running, command).await;
    }
    running.stop().await;
}
