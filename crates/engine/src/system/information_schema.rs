//! `information_schema`, as far as tools read it.

use ruslo_repr::schema::type_name;

use super::pg_catalog::SYSTEM_SCHEMAS;
use super::table::{Definition, Row, Value};
use super::{CatalogSnapshot, SystemKind, SystemObject, pg_types};
use crate::introspection;

const SCHEMA: &str = "information_schema";

pub(super) const DEFINITIONS: &[Definition] = &[
    Definition {
        schema: SCHEMA,
        name: "schemata",
        columns: "catalog_name text, schema_name text, schema_owner text=root, \
            default_character_set_catalog text, default_character_set_schema text, \
            default_character_set_name text, sql_path text",
        rows: schemata,
    },
    Definition {
        schema: SCHEMA,
        name: "tables",
        columns: "table_catalog text, table_schema text, table_name text, table_type text, \
            self_referencing_column_name text, reference_generation text, \
            user_defined_type_catalog text, user_defined_type_schema text, \
            user_defined_type_name text, is_insertable_into text, is_typed text=NO, \
            commit_action text",
        rows: tables,
    },
    Definition {
        schema: SCHEMA,
        name: "views",
        columns: "table_catalog text, table_schema text, table_name text, view_definition text, \
            check_option text=NONE, is_updatable text=NO, is_insertable_into text=NO, \
            is_trigger_updatable text=NO, is_trigger_deletable text=NO, \
            is_trigger_insertable_into text=NO",
        rows: views,
    },
    Definition {
        schema: SCHEMA,
        name: "columns",
        columns: "table_catalog text, table_schema text, table_name text, column_name text, \
            ordinal_position int4, column_default text, is_nullable text, data_type text, \
            character_maximum_length int4, character_octet_length int4, numeric_precision int4, \
            numeric_precision_radix int4, numeric_scale int4, datetime_precision int4, \
            interval_type text, interval_precision int4, character_set_name text, \
            collation_name text, domain_name text, udt_catalog text, \
            udt_schema text=pg_catalog, udt_name text, is_self_referencing text=NO, \
            is_identity text=NO, identity_generation text, is_generated text=NEVER, \
            generation_expression text, is_updatable text",
        rows: columns,
    },
    Definition {
        schema: SCHEMA,
        name: "table_constraints",
        columns: "constraint_catalog text, constraint_schema text, constraint_name text, \
            table_catalog text, table_schema text, table_name text, \
            constraint_type text=PRIMARY KEY, is_deferrable text=NO, initially_deferred text=NO, \
            enforced text=YES",
        rows: table_constraints,
    },
    Definition {
        schema: SCHEMA,
        name: "key_column_usage",
        columns: "constraint_catalog text, constraint_schema text, constraint_name text, \
            table_catalog text, table_schema text, table_name text, column_name text, \
            ordinal_position int4, position_in_unique_constraint int4",
        rows: key_column_usage,
    },
    Definition {
        schema: SCHEMA,
        name: "referential_constraints",
        columns: "constraint_catalog text, constraint_schema text, constraint_name text, \
            unique_constraint_catalog text, unique_constraint_schema text, \
            unique_constraint_name text, match_option text, update_rule text, delete_rule text",
        rows: super::table::no_rows,
    },
    Definition {
        schema: SCHEMA,
        name: "sequences",
        columns: "sequence_catalog text, sequence_schema text, sequence_name text, \
            data_type text, start_value text, minimum_value text, maximum_value text, \
            increment text, cycle_option text",
        rows: super::table::no_rows,
    },
    Definition {
        schema: SCHEMA,
        name: "routines",
        columns: "specific_catalog text, specific_schema text, specific_name text, \
            routine_catalog text, routine_schema text, routine_name text, routine_type text, \
            data_type text, routine_definition text",
        rows: super::table::no_rows,
    },
];

fn schemata(snapshot: &CatalogSnapshot) -> Vec<Row> {
    let mut names: Vec<&str> = SYSTEM_SCHEMAS.to_vec();
    names.extend(snapshot.schemas.iter().map(String::as_str));
    names.sort();
    names.dedup();
    let row = |name: &str| {
        vec![
            ("catalog_name", snapshot.database.as_str().into()),
            ("schema_name", name.into()),
        ]
    };
    names.into_iter().map(row).collect()
}

/// What can be read: the users' objects, and the relations that tell how the server is doing.
fn readable(snapshot: &CatalogSnapshot) -> Vec<SystemObject> {
    let own = introspection::relations().into_iter();
    let own = own.map(|(name, columns)| SystemObject {
        id: 0,
        schema: introspection::SCHEMA.into(),
        name: name.into(),
        kind: SystemKind::View,
        columns,
        key: vec![],
        definition: String::new(),
        owner: super::ROOT.into(),
    });
    snapshot.readable().cloned().chain(own).collect()
}

/// The three columns that every relation here begins with.
fn place(snapshot: &CatalogSnapshot, object: &SystemObject) -> Row {
    vec![
        ("table_catalog", snapshot.database.as_str().into()),
        ("table_schema", object.schema.as_str().into()),
        ("table_name", object.name.as_str().into()),
    ]
}

fn yes_or_no(yes: bool) -> Value {
    if yes { "YES" } else { "NO" }.into()
}

fn tables(snapshot: &CatalogSnapshot) -> Vec<Row> {
    let row = |object: &SystemObject| {
        let kind = match object.kind {
            SystemKind::Table => "BASE TABLE",
            // RisingWave's name for them; PostgreSQL leaves them out.
            SystemKind::MaterializedView => "MATERIALIZED VIEW",
            SystemKind::View => "VIEW",
            SystemKind::Source | SystemKind::Sink => "FOREIGN",
        };
        let mut row = place(snapshot, object);
        row.push(("table_type", kind.into()));
        row.push((
            "is_insertable_into",
            yes_or_no(object.kind == SystemKind::Table),
        ));
        row
    };
    readable(snapshot).iter().map(row).collect()
}

fn views(snapshot: &CatalogSnapshot) -> Vec<Row> {
    let views = snapshot
        .objects
        .iter()
        .filter(|object| object.kind == SystemKind::View);
    views
        .map(|object| {
            let mut row = place(snapshot, object);
            row.push(("view_definition", object.query().into()));
            row
        })
        .collect()
}

fn columns(snapshot: &CatalogSnapshot) -> Vec<Row> {
    let mut rows = vec![];
    for object in &readable(snapshot) {
        for (at, column) in object.columns.columns.iter().enumerate() {
            let name = type_name(&column.ty);
            let name = match name.ends_with("[]") {
                true => "ARRAY".to_string(),
                false => name,
            };
            let mut row = place(snapshot, object);
            row.extend([
                ("column_name", column.name.as_str().into()),
                ("ordinal_position", (at + 1).into()),
                ("is_nullable", yes_or_no(!object.refuses_null(at))),
                ("data_type", name.into()),
                ("udt_catalog", snapshot.database.as_str().into()),
                ("udt_name", pg_types::udt_name(&column.ty).into()),
                ("is_updatable", yes_or_no(object.kind == SystemKind::Table)),
            ]);
            rows.push(row);
        }
    }
    rows
}

fn constrained(snapshot: &CatalogSnapshot) -> impl Iterator<Item = (&SystemObject, Row)> {
    let tables = snapshot.objects.iter();
    let tables = tables.filter(|o| o.kind == SystemKind::Table && !o.key.is_empty());
    tables.map(|object| {
        let mut row = place(snapshot, object);
        row.extend([
            ("constraint_catalog", snapshot.database.as_str().into()),
            ("constraint_schema", object.schema.as_str().into()),
            ("constraint_name", format!("{}_pkey", object.name).into()),
        ]);
        (object, row)
    })
}

fn table_constraints(snapshot: &CatalogSnapshot) -> Vec<Row> {
    constrained(snapshot).map(|(_, row)| row).collect()
}

fn key_column_usage(snapshot: &CatalogSnapshot) -> Vec<Row> {
    let mut rows = vec![];
    for (object, common) in constrained(snapshot) {
        let columns = object
            .key
            .iter()
            .filter_map(|&at| object.columns.columns.get(at));
        for (column, position) in columns.zip(1i32..) {
            let mut row = common.clone();
            row.push(("column_name", column.name.as_str().into()));
            row.push(("ordinal_position", position.into()));
            rows.push(row);
        }
    }
    rows
}
