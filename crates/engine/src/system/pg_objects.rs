//! Relations of `pg_catalog` about user objects: classes, attributes, keys, views.

use ruslo_repr::Schema;
use ruslo_repr::schema::type_name;

use super::table::{Definition, Row, Value};
use super::{
    CatalogSnapshot, INDEX_OIDS, SystemKind, SystemObject, definitions, pg_types, schema_oid,
    table, user_oid,
};
use crate::introspection;

/// The access method of everything that holds rows.
const HEAP: i32 = 2;
const BTREE: i32 = 403;
/// System relations have oids from here on, in the order of their definitions.
const SYSTEM_OIDS: i32 = 12_000;

pub(super) const DEFINITIONS: &[Definition] = &[
    Definition {
        schema: "pg_catalog",
        name: "pg_class",
        columns: "oid oid, relname text, relnamespace oid, reltype oid=0, reloftype oid=0, \
            relowner oid, relam oid=0, relfilenode oid=0, reltablespace oid=0, relpages int4=0, \
            reltuples int4=-1, relallvisible int4=0, reltoastrelid oid=0, relhasindex bool=f, \
            relisshared bool=f, relpersistence text=p, relkind text, relnatts int2, \
            relchecks int2=0, relhasrules bool=f, relhastriggers bool=f, relhassubclass bool=f, \
            relrowsecurity bool=f, relforcerowsecurity bool=f, relispopulated bool=t, \
            relreplident text=d, relispartition bool=f, relrewrite oid=0, relfrozenxid int8=0, \
            relminmxid int8=0, relacl text[], reloptions text[], relpartbound text, \
            tableoid oid=1259",
        rows: pg_class,
    },
    Definition {
        schema: "pg_catalog",
        name: "pg_attribute",
        columns: "attrelid oid, attname text, atttypid oid, attstattarget int4=-1, attlen int2, \
            attnum int2, attndims int4=0, attcacheoff int4=-1, atttypmod int4=-1, \
            attbyval bool=f, attalign text=i, attstorage text=p, attcompression text=, \
            attnotnull bool=f, atthasdef bool=f, atthasmissing bool=f, attidentity text=, \
            attgenerated text=, attisdropped bool=f, attislocal bool=t, attinhcount int4=0, \
            attcollation oid=0, attacl text[], attoptions text[], attfdwoptions text[], \
            attmissingval text, tableoid oid=1249",
        rows: pg_attribute,
    },
    Definition {
        schema: "pg_catalog",
        name: "pg_index",
        columns: "indexrelid oid, indrelid oid, indnatts int2, indnkeyatts int2, \
            indisunique bool=t, indnullsnotdistinct bool=f, indisprimary bool=t, \
            indisexclusion bool=f, indimmediate bool=t, indisclustered bool=f, indisvalid bool=t, \
            indcheckxmin bool=f, indisready bool=t, indislive bool=t, indisreplident bool=f, \
            indkey int2[], indcollation oid[], indclass oid[], indoption int2[], indexprs text, \
            indpred text",
        rows: pg_index,
    },
    Definition {
        schema: "pg_catalog",
        name: "pg_constraint",
        columns: "oid oid, conname text, connamespace oid, contype text=p, condeferrable bool=f, \
            condeferred bool=f, convalidated bool=t, conrelid oid, contypid oid=0, conindid oid, \
            conparentid oid=0, confrelid oid=0, confupdtype text=, confdeltype text=, \
            confmatchtype text=, conislocal bool=t, coninhcount int4=0, connoinherit bool=t, \
            conkey int2[], confkey int2[], conpfeqop oid[], conppeqop oid[], conffeqop oid[], \
            confdelsetcols int2[], conexclop oid[], conbin text, tableoid oid=2606",
        rows: pg_constraint,
    },
    Definition {
        schema: "pg_catalog",
        name: "pg_tables",
        columns: "schemaname text, tablename text, tableowner text, tablespace text, \
            hasindexes bool=f, hasrules bool=f, hastriggers bool=f, rowsecurity bool=f",
        rows: pg_tables,
    },
    Definition {
        schema: "pg_catalog",
        name: "pg_views",
        columns: "schemaname text, viewname text, viewowner text, definition text",
        rows: |snapshot| views(snapshot, SystemKind::View, "viewname", "viewowner"),
    },
    Definition {
        schema: "pg_catalog",
        name: "pg_matviews",
        columns: "schemaname text, matviewname text, matviewowner text, tablespace text, \
            hasindexes bool=f, ispopulated bool=t, definition text",
        rows: |snapshot| {
            views(
                snapshot,
                SystemKind::MaterializedView,
                "matviewname",
                "matviewowner",
            )
        },
    },
    Definition {
        schema: "pg_catalog",
        name: "pg_indexes",
        columns: "schemaname text, tablename text, indexname text, tablespace text, indexdef text",
        rows: pg_indexes,
    },
    Definition {
        schema: "pg_catalog",
        name: "pg_rewrite",
        columns: "oid oid, rulename text=_RETURN, ev_class oid, ev_type text=1, \
            ev_enabled text=O, is_instead bool=t, ev_qual text=<>, ev_action text, \
            tableoid oid=2618",
        rows: pg_rewrite,
    },
];

/// `pg_class.relkind`; a source's rows live elsewhere, so it is a foreign table.
fn relkind(kind: SystemKind) -> &'static str {
    match kind {
        SystemKind::Table => "r",
        SystemKind::MaterializedView => "m",
        SystemKind::View => "v",
        SystemKind::Source | SystemKind::Sink => "f",
    }
}

fn pg_class(snapshot: &CatalogSnapshot) -> Vec<Row> {
    let objects = snapshot.readable().map(|object| {
        let holds_rows = matches!(
            object.kind,
            SystemKind::Table | SystemKind::MaterializedView
        );
        vec![
            ("oid", object.oid().into()),
            ("relname", object.name.as_str().into()),
            ("relnamespace", schema_oid(&object.schema).into()),
            ("relowner", user_oid(&object.owner).into()),
            ("relam", if holds_rows { HEAP } else { 0 }.into()),
            ("relkind", relkind(object.kind).into()),
            ("relnatts", object.columns.len().into()),
            ("relhasindex", has_primary_key(object).into()),
        ]
    });
    let indexes = snapshot
        .readable()
        .filter(|o| has_primary_key(o))
        .map(|object| {
            vec![
                ("oid", (object.oid() + INDEX_OIDS).into()),
                ("relname", index_name(object).into()),
                ("relnamespace", schema_oid(&object.schema).into()),
                ("relowner", user_oid(&object.owner).into()),
                ("relam", BTREE.into()),
                ("relkind", "i".into()),
                ("relnatts", object.key.len().into()),
            ]
        });
    let system = system_relations()
        .into_iter()
        .map(|(oid, schema, name, columns)| {
            let is_table = schema == "pg_catalog";
            vec![
                ("oid", oid.into()),
                ("relname", name.into()),
                ("relnamespace", schema_oid(&schema).into()),
                ("relowner", super::ROOT_OID.into()),
                ("relkind", if is_table { "r" } else { "v" }.into()),
                ("relnatts", columns.len().into()),
            ]
        });
    objects.chain(indexes).chain(system).collect()
}

/// Oid, schema, name and columns of the relations in here and of those of `ruslo`.
fn system_relations() -> Vec<(i32, String, String, Schema)> {
    let own = introspection::relations().into_iter();
    let own = own.map(|(name, columns)| (introspection::SCHEMA.into(), name.into(), columns));
    let ours = definitions().map(|definition| {
        let columns = table::columns(definition.columns)
            .into_iter()
            .map(|c| (c.name, c.ty));
        (
            definition.schema.to_string(),
            definition.name.to_string(),
            Schema::new(columns),
        )
    });
    let numbered = ours.chain(own).zip(SYSTEM_OIDS..);
    numbered
        .map(|((schema, name, columns), next)| {
            let oid = match name.as_str() {
                // Those whose oid clients have written into their queries.
                "pg_type" => 1247,
                "pg_attribute" => 1249,
                "pg_proc" => 1255,
                "pg_class" => 1259,
                "pg_database" => 1262,
                "pg_namespace" => 2615,
                "pg_constraint" => 2606,
                "pg_extension" => 3079,
                _ => next,
            };
            (oid, schema, name, columns)
        })
        .collect()
}

fn pg_attribute(snapshot: &CatalogSnapshot) -> Vec<Row> {
    let mut rows = vec![];
    for object in snapshot.readable() {
        let mut of_object = attributes(object.oid(), &object.columns);
        for (at, row) in of_object.iter_mut().enumerate() {
            if object.refuses_null(at) {
                row.push(("attnotnull", true.into()));
            }
        }
        rows.extend(of_object);
        if has_primary_key(object) {
            rows.extend(attributes(
                object.oid() + INDEX_OIDS,
                &object.columns.project(&object.key),
            ));
        }
    }
    for (oid, _, _, columns) in system_relations() {
        rows.extend(attributes(oid, &columns));
    }
    rows
}

fn attributes(oid: i32, columns: &Schema) -> Vec<Row> {
    let columns = columns.columns.iter().zip(1i32..);
    columns
        .map(|(column, number)| {
            let is_array = type_name(&column.ty).ends_with("[]");
            let is_text = pg_types::oid(&column.ty) == 1043;
            vec![
                ("attrelid", oid.into()),
                ("attname", column.name.as_str().into()),
                ("atttypid", pg_types::oid(&column.ty).into()),
                ("attlen", pg_types::len(&column.ty).into()),
                ("attnum", number.into()),
                ("attndims", i32::from(is_array).into()),
                ("attcollation", if is_text { 100 } else { 0 }.into()),
            ]
        })
        .collect()
}

fn has_primary_key(object: &SystemObject) -> bool {
    object.kind == SystemKind::Table && !object.key.is_empty()
}

fn index_name(object: &SystemObject) -> String {
    format!("{}_pkey", object.name)
}

/// Positions of the key's columns, counted from one as PostgreSQL does.
fn key_numbers(object: &SystemObject) -> Value {
    Value::Ints(object.key.iter().map(|&at| at as i64 + 1).collect())
}

fn with_keys(snapshot: &CatalogSnapshot) -> impl Iterator<Item = &SystemObject> {
    snapshot.readable().filter(|object| has_primary_key(object))
}

fn pg_index(snapshot: &CatalogSnapshot) -> Vec<Row> {
    let zeros = |object: &SystemObject| Value::Ints(vec![0; object.key.len()]);
    let row = |object: &SystemObject| {
        vec![
            ("indexrelid", (object.oid() + INDEX_OIDS).into()),
            ("indrelid", object.oid().into()),
            ("indnatts", object.key.len().into()),
            ("indnkeyatts", object.key.len().into()),
            ("indkey", key_numbers(object)),
            ("indcollation", zeros(object)),
            ("indclass", zeros(object)),
            ("indoption", zeros(object)),
        ]
    };
    with_keys(snapshot).map(row).collect()
}

fn pg_constraint(snapshot: &CatalogSnapshot) -> Vec<Row> {
    let row = |object: &SystemObject| {
        vec![
            ("oid", (object.oid() + INDEX_OIDS).into()),
            ("conname", index_name(object).into()),
            ("connamespace", schema_oid(&object.schema).into()),
            ("conrelid", object.oid().into()),
            ("conindid", (object.oid() + INDEX_OIDS).into()),
            ("conkey", key_numbers(object)),
        ]
    };
    with_keys(snapshot).map(row).collect()
}

fn pg_indexes(snapshot: &CatalogSnapshot) -> Vec<Row> {
    let row = |object: &SystemObject| {
        let names: Vec<&str> = object
            .key
            .iter()
            .filter_map(|&at| object.columns.columns.get(at))
            .map(|column| column.name.as_str())
            .collect();
        let definition = format!(
            "CREATE UNIQUE INDEX {} ON {}.{} USING btree ({})",
            index_name(object),
            object.schema,
            object.name,
            names.join(", ")
        );
        vec![
            ("schemaname", object.schema.as_str().into()),
            ("tablename", object.name.as_str().into()),
            ("indexname", index_name(object).into()),
            ("indexdef", definition.into()),
        ]
    };
    with_keys(snapshot).map(row).collect()
}

fn pg_tables(snapshot: &CatalogSnapshot) -> Vec<Row> {
    let tables = snapshot
        .objects
        .iter()
        .filter(|object| object.kind == SystemKind::Table);
    tables
        .map(|object| {
            vec![
                ("schemaname", object.schema.as_str().into()),
                ("tablename", object.name.as_str().into()),
                ("tableowner", object.owner.as_str().into()),
                ("hasindexes", has_primary_key(object).into()),
            ]
        })
        .collect()
}

fn views(
    snapshot: &CatalogSnapshot,
    kind: SystemKind,
    name: &'static str,
    owner: &'static str,
) -> Vec<Row> {
    let views = snapshot.objects.iter().filter(|object| object.kind == kind);
    views
        .map(|object| {
            vec![
                ("schemaname", object.schema.as_str().into()),
                (name, object.name.as_str().into()),
                (owner, object.owner.as_str().into()),
                ("definition", object.query().into()),
            ]
        })
        .collect()
}

/// The rule behind each view; its action is the view's query, which `pg_get_viewdef` shows.
fn pg_rewrite(snapshot: &CatalogSnapshot) -> Vec<Row> {
    let is_view =
        |o: &&SystemObject| matches!(o.kind, SystemKind::View | SystemKind::MaterializedView);
    let views = snapshot.objects.iter().filter(is_view);
    views
        .map(|object| {
            vec![
                ("oid", (object.oid() + INDEX_OIDS).into()),
                ("ev_class", object.oid().into()),
                ("ev_action", object.query().into()),
            ]
        })
        .collect()
}
