//! What a history does to its server: messages, statements, reads.

use std::collections::BTreeMap;

use arrow::array::RecordBatch;
use ruslo_engine::{Error, ErrorKind, Outcome, Session, Subscription};
use ruslo_repr::text::{TextStyle, write_text};

use crate::checks::Presence;
use crate::history::History;
use crate::model::{Message, Seen, VIEWS, relation};

const SOURCE: &str = "CREATE SOURCE IF NOT EXISTS s (p int, k int, v bigint) WITH \
     (connector='kafka', topic='t', properties.bootstrap.server='sim:9092', \
     scan.startup.mode='earliest') FORMAT PLAIN ENCODE JSON";
const TABLE: &str = "CREATE TABLE IF NOT EXISTS a (id int PRIMARY KEY, w int)";
const KEYS: u64 = 8;

/// The values of each row.
fn texts_of(batch: &RecordBatch) -> impl Iterator<Item = Vec<String>> {
    let text = |column, row| {
        let mut text = String::new();
        write_text(column, row, &TextStyle::default(), &mut text);
        text
    };
    let row = move |row| batch.columns().iter().map(|c| text(c, row)).collect();
    (0..batch.num_rows()).map(row)
}

impl History {
    async fn execute(
        &self,
        session: &mut Session,
        sql: &str,
    ) -> Result<Outcome, ruslo_engine::Error> {
        self.counts.borrow_mut().statements += 1;
        self.note(sql);
        let statements = session.parse(sql)?;
        let mut last = Outcome::Empty;
        for statement in &statements {
            last = session.execute(statement, &[], &[]).await?;
        }
        self.note("done");
        Ok(last)
    }

    /// Executes what changes the catalog; whether it did. A broker or an outlet may be away.
    async fn ddl(&self, session: &mut Session, sql: &str) -> Result<bool, String> {
        match self.execute(session, sql).await {
            Ok(_) => Ok(true),
            Err(error) if error.kind == ErrorKind::External => {
                self.note(&error.to_string());
                Ok(false)
            }
            Err(error) => Err(format!("{sql}: {error:?}")),
        }
    }

    pub(crate) fn produce(&self) {
        let count = 1 + self.draw(20);
        self.note(&format!("produce {count}"));
        for _ in 0..count {
            let (k, v) = (self.draw(KEYS) as i64, self.draw(100) as i64);
            let p = self.checks.borrow_mut().produced(Message { k, v });
            self.broker
                .produce(p, format!("{{\"p\": {p}, \"k\": {k}, \"v\": {v}}}"));
            if self.draw(20) == 0 {
                self.checks.borrow_mut().spoilt();
                self.broker.produce(p, format!("{{\"p\": {p}, "));
            }
        }
    }

    pub(crate) async fn write(&self, session: &mut Session) -> Result<(), String> {
        let mut table = self.checks.borrow().table();
        let (id, w) = (self.draw(KEYS) as i64, self.draw(4) as i64);
        let sql = match self.draw(4) {
            0 => {
                table.remove(&id);
                format!("DELETE FROM a WHERE id = {id}")
            }
            1 => {
                table.range_mut(..id).for_each(|(_, w)| *w += 1);
                format!("UPDATE a SET w = w + 1 WHERE id < {id}")
            }
            2 => {
                table.insert(id, w);
                table.insert(id + 1, w);
                format!("INSERT INTO a VALUES ({id}, {w}), ({}, {w})", id + 1)
            }
            _ => {
                table.insert(id, w);
                format!("INSERT INTO a VALUES ({id}, {w})")
            }
        };
        if !self.is_set_up.get() {
            return Ok(());
        }
        self.checks.borrow_mut().begin_write(table);
        let written = self.execute(session, &sql).await;
        written.map_err(|error| format!("{sql}: {error:?}"))?;
        self.checks.borrow_mut().acknowledge();
        Ok(())
    }

    /// Reads all relations in one statement, so at one time.
    pub(crate) async fn read(&self, session: &mut Session) -> Result<(), String> {
        if !self.is_set_up.get() {
            return Ok(());
        }
        let names = self.checks.borrow().readable();
        let parts = names.iter().map(|name| {
            let [x, y, z] = match *name {
                "a" => ["id", "w", "0"],
                name => relation(name).columns,
            };
            format!(
                "SELECT '{name}' AS o, {x}::varchar AS x, {y}::varchar AS y, {z}::varchar AS z \
                 FROM {name}"
            )
        });
        let parts: Vec<String> = parts.collect();
        self.counts.borrow_mut().reads += 1;
        let sql = parts.join(" UNION ALL ");
        let begun = self.checks.borrow_mut().begin_read(&self.outlet);
        let outcome = self.execute(session, &sql).await;
        let Outcome::Rows { batches, .. } = outcome.map_err(|error| format!("{sql}: {error:?}"))?
        else {
            return Err("a read without rows".into());
        };
        let mut seen: Seen = names
            .iter()
            .map(|name| (name.to_string(), vec![]))
            .collect();
        for batch in &batches {
            for texts in texts_of(batch) {
                seen.entry(texts[0].clone())
                    .or_default()
                    .push(texts[1..].join("|"));
            }
        }
        seen.values_mut().for_each(|rows| rows.sort());
        self.note(&format!("seen {seen:?}"));
        self.checks.borrow_mut().read(&begun, &seen)
    }

    /// Subscribes to a relation again and again, and holds against the promises what is told, until
    /// the server ends.
    pub(crate) async fn follow(&self, session: &mut Session, name: &str) -> Result<(), String> {
        let sql = format!("SUBSCRIBE {name} WITH (PROGRESS)");
        loop {
            let outcome = self.execute(session, &sql).await;
            let outcome = outcome.map_err(|error| format!("{sql}: {error:?}"))?;
            let Outcome::Changes(changes) = outcome else {
                return Err("a subscription without changes".into());
            };
            match self.follow_one(changes, name).await {
                Ok(()) => {}
                Err(error) if error.kind == ErrorKind::ShuttingDown => return Ok(()),
                Err(error) => return Err(format!("{sql}: {error:?}")),
            }
        }
    }

    /// Holds what one subscription tells against the promises, for a while.
    async fn follow_one(&self, mut changes: Box<Subscription>, name: &str) -> Result<(), Error> {
        let mut rows: BTreeMap<String, i64> = BTreeMap::new();
        loop {
            let batch = changes.next().await?;
            for row in texts_of(&batch) {
                let [_, progressed, diff, values @ ..] = &row[..] else {
                    return Err(Error::internal(format!("told {row:?}")));
                };
                if progressed == "t" {
                    let told: Vec<String> = rows.keys().cloned().collect();
                    self.note(&format!("told {name} {told:?}"));
                    self.counts.borrow_mut().told += 1;
                    let checked = self.checks.borrow_mut().told(name, &told);
                    checked.map_err(Error::internal)?;
                    if self.draw(6) == 0 {
                        return Ok(());
                    }
                    continue;
                }
                // As a read shows it.
                let text = format!("{}|0", values.join("|"));
                let count = rows.entry(text.clone()).or_default();
                *count += diff.parse::<i64>().unwrap_or(0);
                match *count {
                    0 => drop(rows.remove(&text)),
                    1 => {}
                    count => return Err(Error::internal(format!("told {text} {count} times"))),
                }
            }
        }
    }

    /// Makes the first objects, and finds out what became of statements that a crash cut off.
    pub(crate) async fn settle_ddl(&self, session: &mut Session, must: bool) -> Result<(), String> {
        if !self.is_set_up.get() {
            let view = format!(
                "CREATE MATERIALIZED VIEW IF NOT EXISTS progress AS {}",
                relation("progress").query
            );
            for sql in [SOURCE, TABLE, &view] {
                if !self.ddl(session, sql).await? {
                    return Err(format!("{sql}: refused"));
                }
            }
            self.is_set_up.set(true);
        }
        let unsure = self.checks.borrow().unsure();
        for name in unsure {
            // Of views that others need, whoever needs them is there first to go.
            let sql = match name.starts_with("sink") {
                true => format!("DROP SINK IF EXISTS {name}"),
                false => format!("DROP MATERIALIZED VIEW IF EXISTS {name} CASCADE"),
            };
            if self.ddl(session, &sql).await? {
                self.checks.borrow_mut().gone(&name);
            } else if must {
                return Err(format!("{sql}: refused"));
            }
        }
        Ok(())
    }

    pub(crate) async fn create_view(&self, session: &mut Session) -> Result<(), String> {
        let view = &VIEWS[1 + self.draw(VIEWS.len() as u64 - 1) as usize];
        let possible = self.checks.borrow().may_create(view.name, view.needs);
        if !possible || !self.is_set_up.get() {
            return Ok(());
        }
        self.checks.borrow_mut().set(view.name, Presence::Unsure);
        let sql = format!("CREATE MATERIALIZED VIEW {} AS {}", view.name, view.query);
        let created = self.ddl(session, &sql).await?;
        let mut checks = self.checks.borrow_mut();
        match created {
            true => checks.set(view.name, Presence::Present),
            false => checks.gone(view.name),
        }
        Ok(())
    }

    pub(crate) async fn drop_view(&self, session: &mut Session) -> Result<(), String> {
        let names = self.checks.borrow().droppable();
        if names.is_empty() {
            return Ok(());
        }
        let name = self.pick(&names);
        self.checks.borrow_mut().set(name, Presence::Unsure);
        let sql = format!("DROP MATERIALIZED VIEW {name}");
        if self.ddl(session, &sql).await? {
            self.checks.borrow_mut().gone(name);
        }
        Ok(())
    }

    /// How many messages are told to be undecodable.
    pub(crate) async fn undecoded(&self, session: &mut Session) -> Result<usize, String> {
        let sql = "SELECT * FROM ruslo.decode_errors";
        let outcome = self.execute(session, sql).await;
        match outcome.map_err(|error| format!("{sql}: {error:?}"))? {
            Outcome::Rows { batches, .. } => Ok(batches.iter().map(|b| b.num_rows()).sum()),
            _ => Err(format!("{sql}: no rows")),
        }
    }

    pub(crate) async fn drop_sink(&self, session: &mut Session) -> Result<(), String> {
        let Some(name) = self.checks.borrow().a_sink() else {
            return Ok(());
        };
        self.checks.borrow_mut().set(&name, Presence::Unsure);
        if self.ddl(session, &format!("DROP SINK {name}")).await? {
            self.checks.borrow_mut().gone(&name);
        }
        Ok(())
    }

    pub(crate) async fn create_sink(&self, session: &mut Session) -> Result<(), String> {
        let from = self.pick(&["a", "groups"]);
        let Some(name) = self.checks.borrow_mut().new_sink(from) else {
            return Ok(());
        };
        let (key, value) = match from {
            "a" => ("id", "{w}"),
            _ => ("k", "{n}/{t}"),
        };
        let sql = format!(
            "CREATE SINK {name} FROM {from} WITH (connector='redis', primary_key='{key}', \
             redis.url='redis://sim') FORMAT UPSERT ENCODE TEMPLATE \
             (key_format='{name}:{{{key}}}', value_format='{value}')"
        );
        let created = self.ddl(session, &sql).await?;
        let mut checks = self.checks.borrow_mut();
        match created {
            true => checks.set(&name, Presence::Present),
            false => checks.gone(&name),
        }
        Ok(())
    }
}
