//! `pg_type`, and what else names types.

use arrow::datatypes::DataType;

use super::table::{Definition, Row};
use super::{CatalogSnapshot, ROOT_OID, schema_oid};

pub(super) const DEFINITIONS: &[Definition] = &[Definition {
    schema: "pg_catalog",
    name: "pg_type",
    columns: "oid oid, typname text, typnamespace oid, typowner oid, typlen int2, typbyval bool=f, \
        typtype text=b, typcategory text, typispreferred bool=f, typisdefined bool=t, \
        typdelim text, typrelid oid=0, typsubscript text, typelem oid=0, typarray oid=0, \
        typinput text, typoutput text, typreceive text, typsend text, typmodin text, \
        typmodout text, typanalyze text, typalign text=i, typstorage text=p, typnotnull bool=f, \
        typbasetype oid=0, typtypmod int4=-1, typndims int4=0, typcollation oid=0, \
        typdefaultbin text, typdefault text, typacl text[], tableoid oid=1247",
    rows,
}];

/// A type of PostgreSQL's: name, oid, oid of its array, length, category.
pub(super) struct Type {
    pub(super) name: &'static str,
    pub(super) oid: i32,
    pub(super) array: i32,
    len: i16,
    category: char,
}

const fn ty(name: &'static str, oid: i32, array: i32, len: i16, category: char) -> Type {
    Type {
        name,
        oid,
        array,
        len,
        category,
    }
}

/// Those that columns and parameters can have, and those that clients look up.
pub(super) const TYPES: [Type; 28] = [
    ty("bool", 16, 1000, 1, 'B'),
    ty("bytea", 17, 1001, -1, 'U'),
    ty("char", 18, 1002, 1, 'Z'),
    ty("name", 19, 1003, 64, 'S'),
    ty("int8", 20, 1016, 8, 'N'),
    ty("int2", 21, 1005, 2, 'N'),
    ty("int4", 23, 1007, 4, 'N'),
    ty("regproc", 24, 1008, 4, 'N'),
    ty("text", 25, 1009, -1, 'S'),
    ty("oid", 26, 1028, 4, 'N'),
    ty("json", 114, 199, -1, 'U'),
    ty("float4", 700, 1021, 4, 'N'),
    ty("float8", 701, 1022, 8, 'N'),
    ty("unknown", 705, 0, -2, 'X'),
    ty("bpchar", 1042, 1014, -1, 'S'),
    ty("varchar", 1043, 1015, -1, 'S'),
    ty("date", 1082, 1182, 4, 'D'),
    ty("time", 1083, 1183, 8, 'D'),
    ty("timestamp", 1114, 1115, 8, 'D'),
    ty("timestamptz", 1184, 1185, 8, 'D'),
    ty("interval", 1186, 1187, 16, 'T'),
    ty("numeric", 1700, 1231, -1, 'N'),
    ty("regclass", 2205, 2210, 4, 'N'),
    ty("regtype", 2206, 2211, 4, 'N'),
    ty("record", 2249, 2287, -1, 'P'),
    ty("uuid", 2950, 2951, 16, 'U'),
    ty("jsonb", 3802, 3807, -1, 'U'),
    ty("regnamespace", 4089, 4090, 4, 'N'),
];

/// The oid `pg_attribute` gives for a column of this type; text for what has none.
pub(super) fn oid(ty: &DataType) -> i32 {
    match ty {
        DataType::List(item) => {
            let mut item = item.data_type();
            while let DataType::List(inner) = item {
                item = inner.data_type();
            }
            let element = oid(item);
            TYPES
                .iter()
                .find(|t| t.oid == element)
                .map_or(1009, |t| t.array)
        }
        DataType::Struct(_) => 2249,
        other => named(other).map_or(25, |t| t.oid),
    }
}

/// The length `pg_attribute` gives for a column of this type.
pub(super) fn len(ty: &DataType) -> i32 {
    named(ty).map_or(-1, |t| t.len.into())
}

/// PostgreSQL's short name of a type, as `int4`; arrays begin with `_`.
pub(super) fn udt_name(ty: &DataType) -> String {
    let oid = oid(ty);
    let scalar = TYPES
        .iter()
        .find(|t| t.oid == oid)
        .map(|t| t.name.to_string());
    let array = || {
        TYPES
            .iter()
            .find(|t| t.array == oid)
            .map(|t| format!("_{}", t.name))
    };
    scalar.or_else(array).unwrap_or_else(|| "text".to_string())
}

fn named(ty: &DataType) -> Option<&'static Type> {
    let name = match ty {
        DataType::Boolean => "bool",
        DataType::Int16 => "int2",
        DataType::Int32 => "int4",
        DataType::Int64 => "int8",
        DataType::Float32 => "float4",
        DataType::Float64 => "float8",
        DataType::FixedSizeBinary(16) => "numeric",
        DataType::Utf8 => "varchar",
        DataType::LargeUtf8 => "jsonb",
        DataType::Binary => "bytea",
        DataType::Date32 => "date",
        DataType::Time64(_) => "time",
        DataType::Timestamp(_, None) => "timestamp",
        DataType::Timestamp(_, Some(_)) => "timestamptz",
        DataType::Interval(_) => "interval",
        _ => return None,
    };
    TYPES.iter().find(|t| t.name == name)
}

fn rows(_: &CatalogSnapshot) -> Vec<Row> {
    let scalars = TYPES.iter().map(scalar_row);
    let arrays = TYPES.iter().filter(|t| t.array != 0).map(array_row);
    scalars.chain(arrays).collect()
}

fn scalar_row(t: &Type) -> Row {
    let mut row = common(t.name.to_string(), t.oid);
    let pseudo = matches!(t.name, "record" | "unknown");
    let is_text = matches!(t.name, "text" | "varchar" | "bpchar" | "name");
    row.extend([
        ("typlen", i32::from(t.len).into()),
        ("typbyval", (1..=8).contains(&t.len).into()),
        ("typtype", if pseudo { "p" } else { "b" }.into()),
        ("typcategory", t.category.to_string().into()),
        (
            "typispreferred",
            matches!(t.name, "bool" | "text" | "float8" | "timestamptz").into(),
        ),
        ("typarray", t.array.into()),
        ("typinput", format!("{}in", t.name).into()),
        ("typoutput", format!("{}out", t.name).into()),
        ("typreceive", format!("{}recv", t.name).into()),
        ("typsend", format!("{}send", t.name).into()),
        ("typcollation", if is_text { 100 } else { 0 }.into()),
    ]);
    row
}

fn array_row(t: &Type) -> Row {
    let mut row = common(format!("_{}", t.name), t.array);
    row.extend([
        ("typlen", (-1).into()),
        ("typcategory", "A".into()),
        ("typelem", t.oid.into()),
        ("typinput", "array_in".into()),
        ("typoutput", "array_out".into()),
        ("typreceive", "array_recv".into()),
        ("typsend", "array_send".into()),
        ("typsubscript", "array_subscript_handler".into()),
    ]);
    row
}

fn common(name: String, oid: i32) -> Row {
    vec![
        ("oid", oid.into()),
        ("typname", name.into()),
        ("typnamespace", schema_oid("pg_catalog").into()),
        ("typowner", ROOT_OID.into()),
        // A comma in a column list would end the column, so it stands here.
        ("typdelim", ",".into()),
    ]
}
