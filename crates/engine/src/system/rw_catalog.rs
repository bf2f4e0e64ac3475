//! `rw_catalog`: RisingWave's own catalogs, those that people query.

use ruslo_repr::schema::type_name;

use super::pg_catalog::SYSTEM_SCHEMAS;
use super::table::{Definition, Row, Value, no_rows};
use super::{CatalogSnapshot, ROOT_OID, SystemKind, SystemObject, pg_types, schema_oid, user_oid};

const SCHEMA: &str = "rw_catalog";

/// A relation of RisingWave's that lists objects of one kind.
const fn listing(
    name: &'static str,
    columns: &'static str,
    rows: fn(&CatalogSnapshot) -> Vec<Row>,
) -> Definition {
    Definition {
        schema: SCHEMA,
        name,
        columns,
        rows,
    }
}

pub(super) const DEFINITIONS: &[Definition] = &[
    listing(
        "rw_sources",
        "id int4, name text, schema_id int4, owner int4, connector text, columns text[], \
         format text, row_encode text, append_only bool=t, associated_table_id int4, \
         connection_id int4, definition text, acl text[], initialized_at timestamptz, \
         created_at timestamptz, is_shared bool=f",
        |snapshot| of_kind(snapshot, SystemKind::Source, source_extra),
    ),
    listing(
        "rw_tables",
        "id int4, name text, schema_id int4, owner int4, definition text, append_only bool=f, \
         acl text[], initialized_at timestamptz, created_at timestamptz",
        |snapshot| of_kind(snapshot, SystemKind::Table, no_extra),
    ),
    listing(
        "rw_materialized_views",
        "id int4, name text, schema_id int4, owner int4, definition text, append_only bool=f, \
         acl text[], initialized_at timestamptz, created_at timestamptz, background_ddl bool=f",
        |snapshot| of_kind(snapshot, SystemKind::MaterializedView, no_extra),
    ),
    listing(
        "rw_views",
        "id int4, name text, schema_id int4, owner int4, definition text, acl text[]",
        |snapshot| {
            let views = snapshot
                .objects
                .iter()
                .filter(|o| o.kind == SystemKind::View);
            views.map(common).collect()
        },
    ),
    listing(
        "rw_sinks",
        "id int4, name text, schema_id int4, owner int4, connector text, sink_type text, \
         connection_id int4, definition text, acl text[], initialized_at timestamptz, \
         created_at timestamptz",
        |snapshot| of_kind(snapshot, SystemKind::Sink, connector_extra),
    ),
    listing(
        "rw_indexes",
        "id int4, name text, primary_table_id int4, key_columns text[], include_columns text[], \
         schema_id int4, owner int4, definition text, acl text[], initialized_at timestamptz, \
         created_at timestamptz",
        no_rows,
    ),
    listing(
        "rw_relations",
        "id int4, name text, relation_type text, schema_id int4, owner int4, definition text, \
         acl text[]",
        rw_relations,
    ),
    listing(
        "rw_relation_info",
        "schemaname text, relationname text, relationowner int4, definition text, \
         relationtype text, relationid int4, relationtimezone text, fragments text, \
         initialized_at timestamptz, created_at timestamptz",
        rw_relation_info,
    ),
    listing(
        "rw_columns",
        "relation_id int4, name text, position int4, is_hidden bool=f, is_primary_key bool, \
         is_distribution_key bool=f, is_generated bool=f, is_nullable bool, \
         generation_expression text, data_type text, type_oid int4, type_len int2, udt_type text",
        rw_columns,
    ),
    listing(
        "rw_users",
        "id int4, name text, is_super bool=t, create_db bool=t, create_user bool=t, \
         can_login bool=t, is_admin bool=f",
        |snapshot| {
            let users = snapshot.users().into_iter();
            users
                .map(|u| vec![("id", user_oid(&u).into()), ("name", u.into())])
                .collect()
        },
    ),
    listing(
        "rw_schemas",
        "id int4, name text, owner int4, acl text[]",
        rw_schemas,
    ),
    listing(
        "rw_databases",
        "id int4, name text, owner int4, acl text[], resource_group text=default, \
         barrier_interval_ms int4, checkpoint_frequency int8",
        |snapshot| {
            vec![vec![
                ("id", 1.into()),
                ("name", snapshot.database.as_str().into()),
                ("owner", ROOT_OID.into()),
            ]]
        },
    ),
    listing(
        "rw_functions",
        "id int4, name text, schema_id int4, owner int4, type text, arg_type_ids text[], \
         return_type_id int4, language text, link text, acl text[]",
        no_rows,
    ),
    listing(
        "rw_connections",
        "id int4, name text, schema_id int4, owner int4, type text, provider text, acl text[], \
         connection_params text",
        no_rows,
    ),
    listing(
        "rw_secrets",
        "id int4, name text, owner int4, acl text[]",
        no_rows,
    ),
    listing(
        "rw_subscriptions",
        "id int4, name text, schema_id int4, owner int4, definition text, retention_seconds int8, \
         acl text[], initialized_at timestamptz, created_at timestamptz",
        no_rows,
    ),
    listing(
        "rw_ddl_progress",
        "ddl_id int8, ddl_statement text, progress text, initialized_at timestamptz, \
         create_type text, is_serverless bool=f",
        no_rows,
    ),
];

/// RisingWave's word for what an object is.
fn relation_type(kind: SystemKind) -> &'static str {
    match kind {
        SystemKind::Source => "source",
        SystemKind::Table => "table",
        SystemKind::MaterializedView => "materialized view",
        SystemKind::View => "view",
        SystemKind::Sink => "sink",
    }
}

fn common(object: &SystemObject) -> Row {
    vec![
        ("id", object.oid().into()),
        ("name", object.name.as_str().into()),
        ("schema_id", schema_oid(&object.schema).into()),
        ("owner", user_oid(&object.owner).into()),
        ("definition", object.definition.as_str().into()),
    ]
}

fn of_kind(
    snapshot: &CatalogSnapshot,
    kind: SystemKind,
    extra: fn(&SystemObject) -> Row,
) -> Vec<Row> {
    let objects = snapshot.objects.iter().filter(|object| object.kind == kind);
    objects
        .map(|object| {
            let mut row = common(object);
            row.extend(extra(object));
            row
        })
        .collect()
}

fn no_extra(_: &SystemObject) -> Row {
    vec![]
}

fn connector_extra(object: &SystemObject) -> Row {
    vec![("connector", object.connector().into())]
}

fn source_extra(object: &SystemObject) -> Row {
    let names = object
        .columns
        .columns
        .iter()
        .map(|column| column.name.clone());
    vec![
        ("connector", object.connector().into()),
        ("columns", Value::Texts(names.collect())),
    ]
}

fn rw_relations(snapshot: &CatalogSnapshot) -> Vec<Row> {
    let row = |object: &SystemObject| {
        let mut row = common(object);
        row.push(("relation_type", relation_type(object.kind).into()));
        row
    };
    snapshot.objects.iter().map(row).collect()
}

fn rw_relation_info(snapshot: &CatalogSnapshot) -> Vec<Row> {
    let row = |object: &SystemObject| {
        vec![
            ("schemaname", object.schema.as_str().into()),
            ("relationname", object.name.as_str().into()),
            ("relationowner", user_oid(&object.owner).into()),
            ("definition", object.definition.as_str().into()),
            (
                "relationtype",
                relation_type(object.kind).to_uppercase().into(),
            ),
            ("relationid", object.oid().into()),
        ]
    };
    snapshot.objects.iter().map(row).collect()
}

fn rw_columns(snapshot: &CatalogSnapshot) -> Vec<Row> {
    let mut rows = vec![];
    for object in snapshot.readable() {
        for (at, column) in object.columns.columns.iter().enumerate() {
            let in_key = object.key.contains(&at);
            rows.push(vec![
                ("relation_id", object.oid().into()),
                ("name", column.name.as_str().into()),
                ("position", (at + 1).into()),
                ("is_primary_key", in_key.into()),
                ("is_nullable", (!object.refuses_null(at)).into()),
                ("data_type", type_name(&column.ty).into()),
                ("type_oid", pg_types::oid(&column.ty).into()),
                ("type_len", pg_types::len(&column.ty).into()),
                ("udt_type", pg_types::udt_name(&column.ty).into()),
            ]);
        }
    }
    rows
}

fn rw_schemas(snapshot: &CatalogSnapshot) -> Vec<Row> {
    let mut names: Vec<&str> = SYSTEM_SCHEMAS.to_vec();
    names.extend(snapshot.schemas.iter().map(String::as_str));
    names.sort();
    names.dedup();
    let row = |name: &str| {
        vec![
            ("id", schema_oid(name).into()),
            ("name", name.into()),
            ("owner", ROOT_OID.into()),
        ]
    };
    names.into_iter().map(row).collect()
}
