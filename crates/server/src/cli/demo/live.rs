//! The live table: what the view says over the Postgres port, and what Redis holds.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::time::Instant;

use anyhow::{Context, Result};
use tokio_postgres::{Client, NoTls};

use super::examples::Example;
use super::generator::Generator;
use super::resp::RedisReader;
use crate::cli::table::grid;

/// A client's view of the pipeline.
pub(super) struct Live {
    client: Client,
    example: Example,
    /// The counts of the last time and when that was, for rates.
    before: Option<(Instant, BTreeMap<String, i64>)>,
    /// Lines to go up before the next table, on a terminal.
    lines: usize,
}

impl Live {
    /// Connects as any client does.
    pub(super) async fn connect(sql: SocketAddr, example: &Example) -> Result<Self> {
        let (client, connection) = tokio_postgres::Config::new()
            .host(sql.ip().to_string())
            .port(sql.port())
            .user("root")
            .dbname("dev")
            .application_name("ruslo demo")
            .connect(NoTls)
            .await
            .context("cannot connect to the demo's own Postgres port")?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "the demo's connection ended");
            }
        });
        Ok(Live {
            client,
            example: *example,
            before: None,
            lines: 0,
        })
    }

    /// What a reader can try.
    pub(super) fn greet(&self, psql: &str, kafka: &str, redis: &str) {
        let (view, _) = self.example.view();
        println!("Kafka {kafka}, Redis {redis}. Look for yourself:");
        println!("  {psql} -c 'SELECT * FROM {view}'\n");
    }

    /// The view's rows: count by key.
    pub(super) async fn counts(&self) -> Result<BTreeMap<String, i64>> {
        let (view, key) = self.example.view();
        let sql = format!("SELECT {key}, count FROM {view}");
        let rows = self
            .client
            .query(&sql, &[])
            .await
            .context("reading the view failed")?;
        rows.iter()
            .map(|row| Ok((row.try_get(0)?, row.try_get(1)?)))
            .collect()
    }

    pub(super) fn example(&self) -> Example {
        self.example
    }

    /// Reads and shows everything once.
    pub(super) async fn show(
        &mut self,
        redis: &mut RedisReader,
        generator: &Generator,
    ) -> Result<()> {
        let counts = self.counts().await?;
        let keys: Vec<String> = counts.keys().cloned().collect();
        let held = match redis.get(&keys).await {
            Ok(values) => values,
            Err(error) => {
                tracing::warn!("{error:#}");
                vec![None; keys.len()]
            }
        };
        let now = Instant::now();
        let rate = |key: &str, count: i64| {
            let (then, before) = self.before.as_ref()?;
            let elapsed = now.duration_since(*then).as_secs_f64();
            Some((count - before.get(key).copied().unwrap_or(0)) as f64 / elapsed.max(0.001))
        };
        let rows = counts.iter().zip(held).map(|((key, count), held)| {
            let rate = rate(key, *count).map_or(String::new(), |rate| format!("{rate:.0}/s"));
            vec![
                key.clone(),
                count.to_string(),
                rate,
                held.unwrap_or_default(),
            ]
        });
        let rows: Vec<Vec<String>> = rows.collect();
        let total: i64 = counts.values().sum();
        self.draw(&rows, total, generator.acked());
        self.before = Some((now, counts));
        Ok(())
    }

    fn draw(&mut self, rows: &[Vec<String>], total: i64, acked: u64) {
        let (_, key) = self.example.view();
        let right = [false, true, true, true];
        let mut text = grid(&[key, "count", "rate", "in Redis"], &right, rows);
        text.push_str(&format!(
            "{total} events in the view, {acked} acknowledged by Kafka\n"
        ));
        let mut out = std::io::stdout().lock();
        let up = match out.is_terminal() && self.lines > 0 {
            // Back to the first line of the last table, which this one is drawn over.
            true => format!("\x1b[{}A\x1b[J", self.lines),
            false => String::new(),
        };
        self.lines = text.lines().count();
        // A reader that went away is no reason to stop the pipeline.
        let _ = write!(out, "{up}{text}");
        let _ = out.flush();
    }
}
