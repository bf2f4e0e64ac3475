//! Every object by id and by name, and who depends on whom.
//!
//! Invariants: a name stands for one object within its schema, whatever its kind; an object's
//! dependencies exist as long as it does; a stored definition holds no secret.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, OnceLock};

use parking_lot::RwLock;
use ruslo_repr::{Error, ErrorKind, ObjectId, Result, Time};
use ruslo_sql::ast::{Name, ObjectKind};
use ruslo_sql::{Catalog as BindCatalog, Relation, RelationKind};

use crate::export::Sink;
use crate::ingest::Source;
use crate::introspection;
use crate::system::{self, CatalogSnapshot, SystemKind, SystemObject};

/// The schema of objects named without one.
pub(crate) const DEFAULT_SCHEMA: &str = "public";
/// Ids of system relations start here; user objects never get so far.
const SYSTEM_IDS: u64 = 1 << 40;

/// One object, immutable once made.
pub(crate) struct Object {
    pub(crate) id: ObjectId,
    pub(crate) schema: String,
    pub(crate) name: String,
    /// The statement that made it, secrets blotted out.
    pub(crate) definition: String,
    pub(crate) owner: String,
    /// What it reads directly.
    pub(crate) depends_on: Vec<ObjectId>,
    pub(crate) body: Body,
}

/// What an object is, with what only its kind has.
pub(crate) enum Body {
    Source {
        relation: Arc<Relation>,
        source: Arc<Source>,
    },
    Table {
        relation: Arc<Relation>,
        table: Arc<Table>,
    },
    MaterializedView {
        relation: Arc<Relation>,
        view: Arc<View>,
    },
    View {
        relation: Arc<Relation>,
    },
    Sink {
        sink: Arc<Sink>,
        /// The view of a sink made with AS SELECT, which is nobody else's.
        view: Option<(ObjectId, Arc<View>)>,
    },
}

/// What is known of a running view.
pub(crate) struct View {
    pub(crate) readable_from: Time,
    /// The columns by which its output is arranged.
    pub(crate) arranged_by: Vec<usize>,
    /// Sources it reads itself; their live flow runs while somebody does.
    pub(crate) sources: Vec<Arc<Source>>,
    /// Why it could not be brought back after a restart.
    pub(crate) broken: OnceLock<Error>,
}

/// A table's own state: writes that read the table first are done one after the other.
pub(crate) struct Table {
    pub(crate) readable_from: Time,
    /// The primary key, or all columns of a table without one.
    pub(crate) arranged_by: Vec<usize>,
    /// Held from the read to the write; holds the time of the last write.
    pub(crate) write_lock: tokio::sync::Mutex<Time>,
    pub(crate) on_conflict: ruslo_sql::ast::OnConflict,
    pub(crate) append_only: bool,
}

impl Object {
    pub(crate) fn kind(&self) -> ObjectKind {
        match self.body {
            Body::Source { .. } => ObjectKind::Source,
            Body::Table { .. } => ObjectKind::Table,
            Body::MaterializedView { .. } => ObjectKind::MaterializedView,
            Body::View { .. } => ObjectKind::View,
            Body::Sink { .. } => ObjectKind::Sink,
        }
    }

    /// What a query sees of it; None for a sink.
    pub(crate) fn relation(&self) -> Option<&Arc<Relation>> {
        match &self.body {
            Body::Source { relation, .. }
            | Body::Table { relation, .. }
            | Body::MaterializedView { relation, .. }
            | Body::View { relation } => Some(relation),
            Body::Sink { .. } => None,
        }
    }

    /// The columns by which its arrangement is keyed; None if it has none.
    pub(crate) fn arranged_by(&self) -> Option<&[usize]> {
        match &self.body {
            Body::Table { table, .. } => Some(&table.arranged_by),
            Body::MaterializedView { view, .. } => Some(&view.arranged_by),
            _ => None,
        }
    }

    /// The first time at which its arrangement can be read; fails for a view that was lost.
    pub(crate) fn readable_from(&self) -> Result<Time> {
        match &self.body {
            Body::Table { table, .. } => Ok(table.readable_from),
            Body::MaterializedView { view, .. } => match view.broken.get() {
                Some(error) => Err(error.clone()),
                None => Ok(view.readable_from),
            },
            _ => Ok(0),
        }
    }
}

/// The catalog. Reads are short and never wait for statements that take long: those hold the
/// engine's DDL lock instead.
pub(crate) struct Catalog {
    inner: RwLock<Inner>,
    system: HashMap<(String, String), Arc<Relation>>,
}

struct Inner {
    schemas: BTreeSet<String>,
    objects: BTreeMap<ObjectId, Arc<Object>>,
    names: HashMap<(String, String), ObjectId>,
    next_id: u64,
}

impl Catalog {
    pub(crate) fn new() -> Catalog {
        let inner = Inner {
            schemas: BTreeSet::from([DEFAULT_SCHEMA.to_string()]),
            objects: BTreeMap::new(),
            names: HashMap::new(),
            next_id: 1,
        };
        let catalogs = system::relations()
            .into_iter()
            .map(|r| (r.schema, r.name, r.columns));
        let own = introspection::relations().into_iter();
        let own = own.map(|(name, columns)| (introspection::SCHEMA.into(), name.into(), columns));
        let system = catalogs
            .chain(own)
            .enumerate()
            .map(|(i, (schema, name, columns))| {
                let schema: String = schema;
                let name: String = name;
                let id = ObjectId(SYSTEM_IDS + i as u64);
                let relation = Relation::new(id, &schema, &name, columns, RelationKind::System);
                ((schema, name), Arc::new(relation))
            });
        Catalog {
            inner: RwLock::new(inner),
            system: system.collect(),
        }
    }

    pub(crate) fn next_id(&self) -> ObjectId {
        let mut inner = self.inner.write();
        inner.next_id += 1;
        ObjectId(inner.next_id - 1)
    }

    pub(crate) fn schemas(&self) -> Vec<String> {
        self.inner.read().schemas.iter().cloned().collect()
    }

    /// Whether there is this schema, also one of the system's.
    pub(crate) fn has_schema(&self, name: &str) -> bool {
        let system = || self.system.keys().any(|(schema, _)| schema == name);
        self.inner.read().schemas.contains(name) || system()
    }

    pub(crate) fn create_schema(&self, name: &str) {
        self.inner.write().schemas.insert(name.to_string());
    }

    /// Begins with the schemas of the server before, and with ids that it never gave out.
    pub(crate) fn begin(&self, schemas: &BTreeSet<String>, next_id: u64) {
        let mut inner = self.inner.write();
        inner.schemas.clone_from(schemas);
        inner.next_id = inner.next_id.max(next_id);
    }

    /// Fails while there is something in the schema, or if there is none of this name.
    pub(crate) fn check_droppable(&self, name: &str) -> Result<()> {
        let inner = self.inner.read();
        if inner.names.keys().any(|(schema, _)| schema == name) {
            let message = format!("cannot drop schema {name} because other objects depend on it");
            let hint = "Drop the objects in it first.";
            return Err(Error::new(ErrorKind::DependentObjects, message).with_hint(hint));
        }
        match inner.schemas.contains(name) {
            true => Ok(()),
            false => Err(undefined_schema(name)),
        }
    }

    pub(crate) fn drop_schema(&self, name: &str) {
        self.inner.write().schemas.remove(name);
    }

    /// Whether a new object may have this name; the schema it will be in.
    pub(crate) fn place(&self, name: &Name) -> Result<(String, bool)> {
        let schema = name
            .schema
            .clone()
            .unwrap_or_else(|| DEFAULT_SCHEMA.to_string());
        let inner = self.inner.read();
        if !inner.schemas.contains(&schema) {
            return Err(undefined_schema(&schema));
        }
        let taken = inner
            .names
            .contains_key(&(schema.clone(), name.name.clone()));
        Ok((schema, taken))
    }

    pub(crate) fn insert(&self, object: Object) {
        let mut inner = self.inner.write();
        inner
            .names
            .insert((object.schema.clone(), object.name.clone()), object.id);
        inner.objects.insert(object.id, Arc::new(object));
    }

    pub(crate) fn remove(&self, id: ObjectId) {
        let mut inner = self.inner.write();
        if let Some(object) = inner.objects.remove(&id) {
            inner
                .names
                .remove(&(object.schema.clone(), object.name.clone()));
        }
    }

    pub(crate) fn get(&self, id: ObjectId) -> Option<Arc<Object>> {
        self.inner.read().objects.get(&id).cloned()
    }

    pub(crate) fn find(&self, name: &Name) -> Option<Arc<Object>> {
        let schema = name
            .schema
            .clone()
            .unwrap_or_else(|| DEFAULT_SCHEMA.to_string());
        let inner = self.inner.read();
        let id = inner.names.get(&(schema, name.name.clone()))?;
        inner.objects.get(id).cloned()
    }

    /// The object of this name, which must be of this kind.
    pub(crate) fn find_kind(&self, name: &Name, kind: ObjectKind) -> Result<Arc<Object>> {
        let Some(object) = self.find(name) else {
            return Err(undefined(kind, name));
        };
        if object.kind() == kind {
            return Ok(object);
        }
        let message = format!("\"{name}\" is not a {}", kind.noun());
        let hint = format!(
            "Use DROP {} to remove it.",
            object.kind().noun().to_uppercase()
        );
        Err(Error::new(ErrorKind::WrongObjectType, message).with_hint(hint))
    }

    /// All objects in order of id, so that dependencies come first.
    pub(crate) fn objects(&self) -> Vec<Arc<Object>> {
        self.inner.read().objects.values().cloned().collect()
    }

    /// Everything that reads `id` directly or through others, dependents of dependents first.
    pub(crate) fn dependents(&self, id: ObjectId) -> Vec<Arc<Object>> {
        let mut reached = BTreeSet::from([id]);
        let mut dependents = vec![];
        for object in self.objects() {
            if object.depends_on.iter().any(|on| reached.contains(on)) {
                reached.insert(object.id);
                dependents.push(object);
            }
        }
        dependents.reverse();
        dependents
    }

    /// Everything, as the system catalogs show it to `user`.
    pub(crate) fn snapshot(&self, user: &str, database: &str) -> CatalogSnapshot {
        let objects = self.objects().into_iter().map(|object| {
            let relation = object.relation();
            SystemObject {
                id: object.id.0,
                schema: object.schema.clone(),
                name: object.name.clone(),
                kind: match object.body {
                    Body::Source { .. } => SystemKind::Source,
                    Body::Table { .. } => SystemKind::Table,
                    Body::MaterializedView { .. } => SystemKind::MaterializedView,
                    Body::View { .. } => SystemKind::View,
                    Body::Sink { .. } => SystemKind::Sink,
                },
                columns: relation.map(|r| r.schema.clone()).unwrap_or_default(),
                key: relation.map(|r| r.key.clone()).unwrap_or_default(),
                definition: object.definition.clone(),
                owner: object.owner.clone(),
            }
        });
        CatalogSnapshot {
            database: database.to_string(),
            user: user.to_string(),
            schemas: self.schemas(),
            objects: objects.collect(),
        }
    }

    fn resolve_in(&self, schema: &str, name: &str) -> Option<Arc<Relation>> {
        let key = (schema.to_string(), name.to_string());
        if let Some(relation) = self.system.get(&key) {
            return Some(relation.clone());
        }
        let inner = self.inner.read();
        let object = inner.objects.get(inner.names.get(&key)?)?;
        object.relation().cloned()
    }
}

/// Names without a schema are looked for in `public`, then in `pg_catalog`, as in PostgreSQL.
impl BindCatalog for Catalog {
    fn resolve(&self, schema: Option<&str>, name: &str) -> Option<Arc<Relation>> {
        match schema {
            Some(schema) => self.resolve_in(schema, name),
            None => {
                let found = self.resolve_in(DEFAULT_SCHEMA, name);
                found.or_else(|| self.resolve_in("pg_catalog", name))
            }
        }
    }
}

pub(crate) fn duplicate_schema(name: &str) -> Error {
    let message = format!("schema \"{name}\" already exists");
    Error::new(ErrorKind::DuplicateSchema, message)
}

/// As PostgreSQL words it, for relations; as RisingWave does for the rest.
pub(crate) fn undefined(kind: ObjectKind, name: &Name) -> Error {
    let (error, noun) = match kind {
        ObjectKind::Sink | ObjectKind::Schema => (ErrorKind::UndefinedObject, kind.noun()),
        _ => (ErrorKind::UndefinedTable, kind.noun()),
    };
    Error::new(error, format!("{noun} \"{name}\" does not exist"))
}

fn undefined_schema(name: &str) -> Error {
    Error::new(
        ErrorKind::UndefinedSchema,
        format!("schema \"{name}\" does not exist"),
    )
}
