//! What planning asks of its surroundings: relations by name and facts of the session.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use ruslo_repr::{ObjectId, Schema};

/// What stands behind a name in FROM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RelationKind {
    /// Append-only input; read by `Plan::Source`.
    Source,
    Table,
    MaterializedView,
    /// A plain view: `text` is its query, expanded wherever the view is named.
    View {
        text: String,
    },
    /// A catalog table whose rows the engine makes on demand; not allowed in views.
    System,
}

/// What a column's type says beyond [`DataType`](arrow::datatypes::DataType): kept by INSERT and
/// UPDATE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Modifier {
    /// At most so many characters.
    Length(u32),
    /// So many digits, and how many of them are decimals.
    Precision(u32, u32),
}

impl std::fmt::Display for Modifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Modifier::Length(length) => write!(f, "({length})"),
            Modifier::Precision(precision, scale) => write!(f, "({precision},{scale})"),
        }
    }
}

/// A relation as the catalog knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relation {
    pub id: ObjectId,
    pub schema_name: String,
    pub name: String,
    pub schema: Schema,
    pub kind: RelationKind,
    /// Columns that are unique per row (primary key of a table, key of a view); may be empty.
    pub key: Vec<usize>,
    /// Rows are only ever added.
    pub append_only: bool,
    /// The last so many columns are left out of `*` and of INSERT without a column list.
    pub hidden: usize,
    /// Columns that refuse NULL in DML.
    pub not_null: Vec<usize>,
    /// DEFAULT expressions as SQL text, per column; shorter than the schema means none.
    pub defaults: Vec<Option<String>>,
    /// Lengths and precisions, per column; shorter than the schema means none.
    pub modifiers: Vec<Option<Modifier>>,
}

impl Relation {
    /// A relation with no key, nothing hidden and no defaults.
    pub fn new(
        id: ObjectId,
        schema_name: impl Into<String>,
        name: impl Into<String>,
        schema: Schema,
        kind: RelationKind,
    ) -> Self {
        let append_only = matches!(kind, RelationKind::Source);
        Relation {
            id,
            schema_name: schema_name.into(),
            name: name.into(),
            schema,
            kind,
            key: vec![],
            append_only,
            hidden: 0,
            not_null: vec![],
            defaults: vec![],
            modifiers: vec![],
        }
    }

    pub fn with_key(mut self, key: Vec<usize>) -> Self {
        self.key = key;
        self
    }
}

/// Finds relations. The search path for names without a schema is the implementor's business.
pub trait Catalog: Send + Sync {
    fn resolve(&self, schema: Option<&str>, name: &str) -> Option<Arc<Relation>>;
}

/// What a statement may know of the session it runs in.
#[derive(Clone, Debug)]
pub struct SessionContext {
    pub user: String,
    pub database: String,
    /// An IANA name, as `Europe/Moscow`.
    pub time_zone: String,
    /// The schemas that there are of those that names without a schema are looked for in.
    pub search_path: Vec<String>,
    /// The session's settings by lower-case name.
    pub settings: BTreeMap<String, String>,
    /// The time of the statement, which `now()` gives in ad-hoc queries.
    pub now: DateTime<Utc>,
}

impl Default for SessionContext {
    fn default() -> Self {
        SessionContext {
            user: "root".into(),
            database: "dev".into(),
            time_zone: "UTC".into(),
            search_path: vec!["public".into()],
            settings: BTreeMap::new(),
            now: Utc::now(),
        }
    }
}
