//! The catalogs that clients ask for: `pg_catalog`, `information_schema`, `rw_catalog`.
//!
//! Every relation is a line in a list: schema, name, columns, and a function from a
//! [`CatalogSnapshot`] to rows. Nothing is stored; rows are made when a query reads them.
//!
//! ```text
//!   engine's catalog ──> CatalogSnapshot ──rows(schema, name)──> RecordBatch ──> DataFusion
//! ```
//!
//! Object ids: a user object has its own (from 16384 on, by its id), the index that stands for
//! a primary key has that plus `INDEX_OIDS`; types and namespaces of PostgreSQL keep
//! PostgreSQL's. A source is shown as a foreign table (`relkind` `f`), since its rows live
//! elsewhere; a sink is no relation and is listed in `rw_catalog.rw_sinks` only.
//! Relations that describe what Ruslo does not have (triggers, policies, publications …) exist
//! and are empty, because clients join with them.

mod information_schema;
mod pg_catalog;
mod pg_empty;
mod pg_objects;
mod pg_types;
mod rw_catalog;
mod table;

#[cfg(test)]
mod tests;

use arrow::record_batch::RecordBatch;
use ruslo_repr::{Error, Result, Schema};

use table::{Definition, batch, columns};

/// Added to a table's oid it gives the oid of its primary key's index.
const INDEX_OIDS: i32 = 1 << 30;
/// Objects of users have oids from here on, as in PostgreSQL.
const FIRST_OID: i32 = 16_384;
/// Schemas and users have oids from here on, made from their names.
const HASHED_OIDS: i32 = 1 << 29;
/// The oid of the user who owns what nobody else owns.
const ROOT_OID: i32 = 10;
const ROOT: &str = "root";

/// What an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SystemKind {
    Source,
    Table,
    MaterializedView,
    View,
    Sink,
}

/// One user object as the catalogs show it.
#[derive(Clone, Debug)]
pub struct SystemObject {
    /// The catalog's id.
    pub id: u64,
    /// The schema it is in.
    pub schema: String,
    pub name: String,
    pub kind: SystemKind,
    /// Its columns without hidden ones; empty for a sink.
    pub columns: Schema,
    /// The columns that are unique together: a table's primary key.
    pub key: Vec<usize>,
    /// The statement that made it, without secrets.
    pub definition: String,
    pub owner: String,
}

/// All that the catalogs are made from, at one moment.
#[derive(Clone, Debug, Default)]
pub struct CatalogSnapshot {
    pub database: String,
    pub user: String,
    /// Schemas that users made, `public` among them.
    pub schemas: Vec<String>,
    pub objects: Vec<SystemObject>,
}

/// A relation of the catalogs.
#[derive(Clone, Debug)]
pub struct SystemRelation {
    pub schema: String,
    pub name: String,
    pub columns: Schema,
}

impl SystemObject {
    /// The id that PostgreSQL's clients see.
    fn oid(&self) -> i32 {
        // Ids are given out one by one, so they stay far below those of schemas and users.
        FIRST_OID + (self.id % (HASHED_OIDS - FIRST_OID) as u64) as i32
    }

    /// Whether a column refuses NULL; the key of a view is unique but may hold NULL.
    fn refuses_null(&self, column: usize) -> bool {
        self.kind == SystemKind::Table && self.key.contains(&column)
    }

    /// The query of a view: what its statement has behind AS.
    fn query(&self) -> &str {
        let mut rest = self.definition.as_str();
        while let Some((before, after)) = split_word(rest, "as") {
            let body = after.trim_start();
            let is_word = |word: &str| {
                body.get(..word.len())
                    .is_some_and(|start| start.eq_ignore_ascii_case(word))
            };
            if !before.is_empty() && (body.starts_with('(') || BODIES.into_iter().any(is_word)) {
                return body.trim_end().trim_end_matches(';');
            }
            rest = after;
        }
        &self.definition
    }

    /// The connector of a source or sink, from its options.
    fn connector(&self) -> Option<&str> {
        let (_, after) = split_word(&self.definition, "connector")?;
        let value = after
            .trim_start()
            .strip_prefix('=')?
            .trim_start()
            .strip_prefix('\'')?;
        value.split('\'').next()
    }
}

/// What a view's query begins with, but for a parenthesis.
const BODIES: [&str; 3] = ["select", "with", "values"];

/// The text before and after the first `word` that stands alone, in any case.
fn split_word<'a>(text: &'a str, word: &str) -> Option<(&'a str, &'a str)> {
    let is_part = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.' | '"');
    let found = text.char_indices().map(|(at, _)| at).find(|&at| {
        let same = text
            .get(at..at + word.len())
            .is_some_and(|t| t.eq_ignore_ascii_case(word));
        same && !text[..at].ends_with(is_part) && !text[at + word.len()..].starts_with(is_part)
    })?;
    Some((&text[..found], &text[found + word.len()..]))
}

/// Every relation of the catalogs; the same at all times.
pub fn relations() -> Vec<SystemRelation> {
    definitions()
        .map(|definition| SystemRelation {
            schema: definition.schema.to_string(),
            name: definition.name.to_string(),
            columns: Schema::new(
                columns(definition.columns)
                    .into_iter()
                    .map(|c| (c.name, c.ty)),
            ),
        })
        .collect()
}

/// The rows of one relation.
pub fn rows(schema: &str, name: &str, snapshot: &CatalogSnapshot) -> Result<RecordBatch> {
    let wanted = |definition: &&Definition| definition.schema == schema && definition.name == name;
    let Some(definition) = definitions().find(wanted) else {
        return Err(Error::internal(format!(
            "there is no system relation {schema}.{name}"
        )));
    };
    batch(&columns(definition.columns), (definition.rows)(snapshot))
}

fn definitions() -> impl Iterator<Item = &'static Definition> {
    let lists = [
        pg_objects::DEFINITIONS,
        pg_types::DEFINITIONS,
        pg_catalog::DEFINITIONS,
        pg_empty::DEFINITIONS,
        information_schema::DEFINITIONS,
        rw_catalog::DEFINITIONS,
    ];
    lists.into_iter().flatten()
}

impl CatalogSnapshot {
    /// Objects that a query can name in FROM.
    fn readable(&self) -> impl Iterator<Item = &SystemObject> {
        self.objects
            .iter()
            .filter(|object| object.kind != SystemKind::Sink)
    }

    /// Users that own something or ask, `root` first.
    fn users(&self) -> Vec<String> {
        let mut users: Vec<String> = self.objects.iter().map(|o| o.owner.clone()).collect();
        users.push(self.user.clone());
        users.retain(|user| user != ROOT && !user.is_empty());
        users.sort();
        users.dedup();
        users.insert(0, ROOT.to_string());
        users
    }
}

/// A user's oid: PostgreSQL's for the first superuser, else made from the name.
fn user_oid(user: &str) -> i32 {
    match user {
        ROOT => ROOT_OID,
        other => hashed_oid(other),
    }
}

/// A schema's oid: PostgreSQL's where it has that schema, else made from the name.
fn schema_oid(schema: &str) -> i32 {
    match schema {
        "pg_catalog" => 11,
        "public" => 2200,
        "information_schema" => 13_000,
        other => hashed_oid(other),
    }
}

/// An oid that depends on the name alone, between those of user objects and of indexes.
fn hashed_oid(name: &str) -> i32 {
    const FNV_OFFSET: u32 = 0x811c_9dc5;
    const FNV_PRIME: u32 = 0x0100_0193;
    let hash = name.bytes().fold(FNV_OFFSET, |h, b| {
        (h ^ u32::from(b)).wrapping_mul(FNV_PRIME)
    });
    HASHED_OIDS + (hash % (1 << 28)) as i32
}
