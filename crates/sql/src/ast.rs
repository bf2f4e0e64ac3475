//! What a statement says, before any name in it is looked up.
//!
//! Statements of RisingWave's dialect that change the catalog or the session have shapes of our
//! own; queries and DML keep sqlparser's tree, because the binder works on that. Names are
//! already normalised here (unquoted ones are lower case).

use datafusion::sql::sqlparser::ast as sql;

use crate::catalog::Modifier;
pub use datafusion::sql::sqlparser::ast::{Expr as SqlExpr, Query};
use ruslo_repr::schema::type_name;

use arrow::datatypes::DataType;

/// One statement and the text it was written as (without the closing semicolon).
#[derive(Clone, Debug, PartialEq)]
pub struct Statement {
    /// Source text from the first to the last token, comments inside kept.
    pub text: String,
    pub kind: StatementKind,
}

/// The name of a catalog object, `schema.name` or `name`. A database before it is dropped.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name {
    pub schema: Option<String>,
    pub name: String,
}

impl Name {
    pub fn bare(name: impl Into<String>) -> Self {
        let name = name.into();
        Name { schema: None, name }
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(schema) = &self.schema {
            write!(f, "{schema}.")?;
        }
        f.write_str(&self.name)
    }
}

#[derive(Clone, Debug, PartialEq)]
pub enum StatementKind {
    /// Nothing between two semicolons.
    Empty,
    Query(Box<Query>),
    Insert(Box<sql::Insert>),
    Update(Box<sql::Update>),
    Delete(Box<sql::Delete>),
    /// A relation's rows, and then what changes, without end.
    Subscribe(Subscribe),
    /// The rows of a query or SUBSCRIBE in COPY's text form.
    CopyOut(Box<Statement>),
    /// Wait until all DML before it is visible.
    Flush,
    CreateSource(CreateSource),
    CreateTable(CreateTable),
    CreateMaterializedView(CreateView),
    CreateView(CreateView),
    CreateSink(CreateSink),
    CreateSchema {
        if_not_exists: bool,
        name: String,
    },
    Drop {
        kind: ObjectKind,
        names: Vec<Name>,
        if_exists: bool,
        cascade: bool,
    },
    Rename {
        kind: ObjectKind,
        name: Name,
        to: String,
    },
    Show(Show),
    Describe(Name),
    Explain(Explain),
    Set {
        name: String,
        /// None: `DEFAULT`.
        value: Option<String>,
        /// `SET LOCAL`: until the end of the transaction.
        local: bool,
    },
    /// `RESET name`; None: `RESET ALL`.
    Reset(Option<String>),
    Begin,
    Commit,
    Rollback,
    /// `SAVEPOINT name`
    Savepoint(String),
    /// `RELEASE SAVEPOINT name`
    Release(String),
    /// `ROLLBACK TO SAVEPOINT name`
    RollbackTo(String),
    Prepare {
        name: String,
        types: Vec<DataType>,
        statement: Box<Statement>,
    },
    Execute {
        name: String,
        args: Vec<sql::Expr>,
    },
    /// None: `DEALLOCATE ALL`.
    Deallocate(Option<String>),
    /// `DISCARD ALL`, `DISCARD PLANS` …
    Discard,
    Use(String),
}

/// `SUBSCRIBE [TO] name [WITH (…)]`
#[derive(Clone, Debug, PartialEq)]
pub struct Subscribe {
    pub name: Name,
    /// Whether it begins with all rows, or with the first change.
    pub snapshot: bool,
    /// Whether it says how far it is.
    pub progress: bool,
}

/// One column of CREATE TABLE or CREATE SOURCE.
#[derive(Clone, Debug, PartialEq)]
pub struct ColumnDef {
    pub name: String,
    pub ty: DataType,
    pub modifier: Option<Modifier>,
    pub not_null: bool,
    pub default: Option<sql::Expr>,
}

impl std::fmt::Display for ColumnDef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.name, type_name(&self.ty))?;
        if let Some(modifier) = &self.modifier {
            write!(f, "{modifier}")?;
        }
        if self.not_null {
            f.write_str(" NOT NULL")?;
        }
        match &self.default {
            Some(default) => write!(f, " DEFAULT {default}"),
            None => Ok(()),
        }
    }
}

/// Options of a WITH clause or of an encoding, in the order written, keys in lower case.
///
/// Values may hold secrets: `Debug` shows keys only.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Options(pub Vec<(String, String)>);

impl Options {
    /// The value of the first option of this key.
    pub fn get(&self, key: &str) -> Option<&str> {
        let found = self.0.iter().find(|(k, _)| k == key);
        found.map(|(_, v)| v.as_str())
    }

    pub fn iter(&self) -> impl Iterator<Item = &(String, String)> {
        self.0.iter()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set()
            .entries(self.0.iter().map(|(k, _)| k))
            .finish()
    }
}

/// `FORMAT … ENCODE … (…) [KEY ENCODE …]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FormatEncode {
    pub format: Format,
    pub encode: Encode,
    pub options: Options,
    pub key_encode: Option<Encode>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Plain,
    Upsert,
    Debezium,
    DebeziumMongo,
    Maxwell,
    Canal,
    Native,
    None,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encode {
    Json,
    Template,
    Avro,
    Protobuf,
    Csv,
    Bytes,
    Text,
    Parquet,
    Native,
    None,
}

/// `INCLUDE what [inner] [type] [AS alias]`: a message's metadata as a column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IncludeColumn {
    /// `key`, `partition`, `offset`, `timestamp`, `header`, `payload` …
    pub what: String,
    /// The header's name in `INCLUDE header 'name'`.
    pub inner: Option<String>,
    pub alias: Option<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct CreateSource {
    pub if_not_exists: bool,
    pub name: Name,
    pub columns: Vec<ColumnDef>,
    /// Positions of the columns of PRIMARY KEY, if any.
    pub primary_key: Vec<usize>,
    pub include: Vec<IncludeColumn>,
    pub options: Options,
    pub format: Option<FormatEncode>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct CreateTable {
    pub if_not_exists: bool,
    pub name: Name,
    pub columns: Vec<ColumnDef>,
    /// Positions of the columns of PRIMARY KEY, if any.
    pub primary_key: Vec<usize>,
    pub append_only: bool,
    pub on_conflict: Option<OnConflict>,
    pub include: Vec<IncludeColumn>,
    /// Empty for a plain table; with a connector the table is filled by it.
    pub options: Options,
    pub format: Option<FormatEncode>,
    /// `CREATE TABLE … AS query`.
    pub query: Option<Box<Query>>,
}

/// What an INSERT does with a row whose primary key is there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnConflict {
    /// `OVERWRITE`, the default.
    Overwrite,
    /// `DO NOTHING` or `IGNORE`: the old row stays.
    DoNothing,
    /// `DO UPDATE IF NOT NULL`: NULLs of the new row leave the old value.
    UpdateIfNotNull,
}

/// CREATE VIEW and CREATE MATERIALIZED VIEW.
#[derive(Clone, Debug, PartialEq)]
pub struct CreateView {
    pub if_not_exists: bool,
    pub or_replace: bool,
    pub name: Name,
    /// `CREATE VIEW v (a, b) AS …`; empty: names come from the query.
    pub columns: Vec<String>,
    pub query: Box<Query>,
    /// The query's own text, for catalogs and `RelationKind::View`.
    pub query_text: String,
    pub options: Options,
    pub emit_on_window_close: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub struct CreateSink {
    pub if_not_exists: bool,
    pub name: Name,
    pub from: SinkFrom,
    pub options: Options,
    pub format: Option<FormatEncode>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum SinkFrom {
    Relation(Name),
    Query(Box<Query>),
}

/// Kinds of catalog objects that statements name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ObjectKind {
    Source,
    Table,
    MaterializedView,
    View,
    Sink,
    Index,
    Schema,
    Database,
    Connection,
    Secret,
    Subscription,
    Function,
    User,
}

impl ObjectKind {
    /// Lower case, as in messages: `materialized view`.
    pub fn noun(self) -> &'static str {
        match self {
            ObjectKind::Source => "source",
            ObjectKind::Table => "table",
            ObjectKind::MaterializedView => "materialized view",
            ObjectKind::View => "view",
            ObjectKind::Sink => "sink",
            ObjectKind::Index => "index",
            ObjectKind::Schema => "schema",
            ObjectKind::Database => "database",
            ObjectKind::Connection => "connection",
            ObjectKind::Secret => "secret",
            ObjectKind::Subscription => "subscription",
            ObjectKind::Function => "function",
            ObjectKind::User => "user",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Show {
    /// `SHOW SOURCES`, `SHOW TABLES FROM schema LIKE '…'` …
    Objects {
        kind: ObjectKind,
        schema: Option<String>,
        like: Option<String>,
    },
    Columns(Name),
    Indexes(Name),
    /// `SHOW CREATE MATERIALIZED VIEW name`.
    Create {
        kind: ObjectKind,
        name: Name,
    },
    /// A setting by name, as `server_version`; `SHOW TIME ZONE` gives `timezone`.
    Variable(String),
    /// All settings.
    All,
    Jobs,
    Processlist,
    Cluster,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Explain {
    pub analyze: bool,
    pub verbose: bool,
    /// `EXPLAIN (logical, format json) …`: lower-case words as written.
    pub options: Vec<(String, String)>,
    pub statement: Box<Statement>,
}
