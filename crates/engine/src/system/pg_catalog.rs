//! Relations of `pg_catalog` about the server: databases, schemas, users, settings.

use super::table::{Definition, Row};
use super::{CatalogSnapshot, ROOT_OID, schema_oid, user_oid};

/// Schemas that are always there.
pub(super) const SYSTEM_SCHEMAS: [&str; 4] =
    ["pg_catalog", "information_schema", "rw_catalog", "ruslo"];
const DATABASE_OID: i32 = 1;
const UTF8: i32 = 6;

pub(super) const DEFINITIONS: &[Definition] = &[
    Definition {
        schema: "pg_catalog",
        name: "pg_namespace",
        columns: "oid oid, nspname text, nspowner oid, nspacl text[], tableoid oid=2615",
        rows: pg_namespace,
    },
    Definition {
        schema: "pg_catalog",
        name: "pg_database",
        columns: "oid oid, datname text, datdba oid, encoding int4, datlocprovider text=c, \
            datistemplate bool=f, datallowconn bool=t, datconnlimit int4=-1, datfrozenxid int8=0, \
            datminmxid int8=0, dattablespace oid=1663, datcollate text=C.UTF-8, \
            datctype text=C.UTF-8, daticulocale text, datcollversion text, datacl text[], \
            tableoid oid=1262",
        rows: |snapshot| {
            vec![vec![
                ("oid", DATABASE_OID.into()),
                ("datname", snapshot.database.as_str().into()),
                ("datdba", ROOT_OID.into()),
                ("encoding", UTF8.into()),
            ]]
        },
    },
    Definition {
        schema: "pg_catalog",
        name: "pg_roles",
        columns: "oid oid, rolname text, rolsuper bool=t, rolinherit bool=t, rolcreaterole bool=t, \
            rolcreatedb bool=t, rolcanlogin bool=t, rolreplication bool=f, rolconnlimit int4=-1, \
            rolpassword text=********, rolvaliduntil timestamptz, rolbypassrls bool=t, \
            rolconfig text[]",
        rows: |snapshot| users(snapshot, "oid", "rolname"),
    },
    Definition {
        schema: "pg_catalog",
        name: "pg_authid",
        columns: "oid oid, rolname text, rolsuper bool=t, rolinherit bool=t, rolcreaterole bool=t, \
            rolcreatedb bool=t, rolcanlogin bool=t, rolreplication bool=f, rolbypassrls bool=t, \
            rolconnlimit int4=-1, rolpassword text, rolvaliduntil timestamptz",
        rows: |snapshot| users(snapshot, "oid", "rolname"),
    },
    Definition {
        schema: "pg_catalog",
        name: "pg_user",
        columns: "usename text, usesysid oid, usecreatedb bool=t, usesuper bool=t, \
            userepl bool=f, usebypassrls bool=t, passwd text=********, valuntil timestamptz, \
            useconfig text[]",
        rows: |snapshot| users(snapshot, "usesysid", "usename"),
    },
    Definition {
        schema: "pg_catalog",
        name: "pg_settings",
        columns: "name text, setting text, unit text, category text=Ruslo, short_desc text, \
            extra_desc text, context text=user, vartype text=string, source text=session, \
            min_val text, max_val text, enumvals text[], boot_val text, reset_val text, \
            sourcefile text, sourceline int4, pending_restart bool=f",
        rows: pg_settings,
    },
    Definition {
        schema: "pg_catalog",
        name: "pg_am",
        columns: "oid oid, amname text, amhandler text, amtype text",
        rows: |_| {
            let method = |oid: i32, name: &str, kind: &str| {
                vec![
                    ("oid", oid.into()),
                    ("amname", name.into()),
                    ("amtype", kind.into()),
                ]
            };
            vec![method(2, "heap", "t"), method(403, "btree", "i")]
        },
    },
    Definition {
        schema: "pg_catalog",
        name: "pg_collation",
        columns: "oid oid, collname text, collnamespace oid=11, collowner oid=10, \
            collprovider text, collisdeterministic bool=t, collencoding int4=-1, \
            collcollate text, collctype text, colliculocale text, collversion text",
        rows: |_| {
            let collation = |oid: i32, name: &str, provider: &str| {
                vec![
                    ("oid", oid.into()),
                    ("collname", name.into()),
                    ("collprovider", provider.into()),
                    ("collcollate", "C".into()),
                    ("collctype", "C".into()),
                ]
            };
            vec![collation(100, "default", "d"), collation(950, "C", "c")]
        },
    },
    Definition {
        schema: "pg_catalog",
        name: "pg_tablespace",
        columns: "oid oid, spcname text, spcowner oid=10, spcacl text[], spcoptions text[]",
        rows: |_| vec![vec![("oid", 1663.into()), ("spcname", "pg_default".into())]],
    },
];

fn pg_namespace(snapshot: &CatalogSnapshot) -> Vec<Row> {
    let mut names: Vec<&str> = SYSTEM_SCHEMAS.to_vec();
    names.extend(snapshot.schemas.iter().map(String::as_str));
    names.sort();
    names.dedup();
    let row = |name: &str| {
        vec![
            ("oid", schema_oid(name).into()),
            ("nspname", name.into()),
            ("nspowner", ROOT_OID.into()),
        ]
    };
    names.into_iter().map(row).collect()
}

fn users(snapshot: &CatalogSnapshot, oid: &'static str, name: &'static str) -> Vec<Row> {
    let users = snapshot.users().into_iter();
    users
        .map(|user| vec![(oid, user_oid(&user).into()), (name, user.into())])
        .collect()
}

/// What clients ask for before they have a session's SHOW.
fn pg_settings(_: &CatalogSnapshot) -> Vec<Row> {
    let settings = [
        (
            "default_table_access_method",
            "heap",
            "Sets the default table access method for new tables.",
        ),
        (
            "server_encoding",
            "UTF8",
            "Shows the server (database) character set encoding.",
        ),
        (
            "standard_conforming_strings",
            "on",
            "Causes '...' strings to treat backslashes literally.",
        ),
        (
            "integer_datetimes",
            "on",
            "Shows whether datetimes are integer based.",
        ),
        (
            "max_identifier_length",
            "63",
            "Shows the maximum identifier length.",
        ),
        (
            "max_index_keys",
            "32",
            "Shows the maximum number of index keys.",
        ),
    ];
    let row = |(name, value, description): (&str, &str, &str)| {
        vec![
            ("name", name.into()),
            ("setting", value.into()),
            ("short_desc", description.into()),
        ]
    };
    settings.into_iter().map(row).collect()
}
