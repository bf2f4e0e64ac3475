//! Functions that tell about types, the server and the catalog, as clients ask them.

use arrow::datatypes::DataType;
use ruslo_repr::schema::type_name;
use ruslo_repr::{Error, ErrorKind};

use super::overload::{Function, fn1, fn2, over};
use super::types::*;

/// What `version()` says first: the dialect that clients should expect.
const POSTGRES_VERSION: &str = "15.0";

pub(super) fn functions() -> Vec<Function> {
    let mut all = vec![
        Function::generic(
            "pg_typeof",
            1..=1,
            |_| Ok(Text::data_type()),
            |args| {
                let name = args.columns.first().map(|c| type_name(c.array.data_type()));
                Text::collect(vec![name; args.rows])
            },
        ),
        Function::new(
            "version",
            vec![over(&[], Text::data_type(), |args| {
                let version = env!("CARGO_PKG_VERSION");
                let text = format!("PostgreSQL {POSTGRES_VERSION} (Ruslo {version})");
                Text::collect(vec![Some(text); args.rows])
            })],
        ),
        Function::new("pg_size_pretty", vec![fn1::<Int8, Text, _>(size_pretty)]),
        Function::new(
            "pg_encoding_to_char",
            vec![fn1::<Int4, Text, _>(|encoding| {
                if encoding == 6 { "UTF8" } else { "" }.to_string()
            })],
        ),
        Function::new(
            "pg_get_expr",
            vec![
                fn2::<Text, Int4, Text, _>(|text, _| text.to_string()),
                super::overload::fn3::<Text, Int4, Bool, Text, _>(|text, _, _| text.to_string()),
            ],
        ),
        format_type(),
        oid_or_missing(),
    ];
    // Everything in the catalog is on the search path.
    for name in [
        "pg_table_is_visible",
        "pg_type_is_visible",
        "pg_function_is_visible",
    ] {
        all.push(Function::new(name, vec![fn1::<Int4, Bool, _>(|_| true)]));
    }
    // There are no comments on objects.
    for name in ["obj_description", "col_description", "shobj_description"] {
        all.push(Function::generic(
            name,
            1..=3,
            |_| Ok(Text::data_type()),
            |args| Text::collect(vec![None; args.rows]),
        ));
    }
    // Every user may do everything.
    for name in [
        "has_table_privilege",
        "has_schema_privilege",
        "has_database_privilege",
    ] {
        all.push(Function::generic(
            name,
            1..=3,
            |_| Ok(DataType::Boolean),
            |args| Bool::collect(vec![Some(true); args.rows]),
        ));
    }
    all
}

/// As PostgreSQL rounds sizes: up to ten thousand of a unit.
fn size_pretty(bytes: i64) -> String {
    const UNITS: [&str; 6] = ["bytes", "kB", "MB", "GB", "TB", "PB"];
    const LIMIT: i64 = 10 * 1024;
    let round_half = |v: i64| (v + v.signum()) / 2;
    if bytes.abs() < LIMIT {
        return format!("{bytes} bytes");
    }
    // One bit more than shown is kept until the end, to round by.
    let mut size = bytes >> 9;
    let last = UNITS.len() - 1;
    for unit in &UNITS[1..last] {
        if size.abs() < LIMIT * 2 - 1 {
            return format!("{} {unit}", round_half(size));
        }
        size >>= 10;
    }
    format!("{} {}", round_half(size), UNITS[last])
}

/// `format_type(oid, modifier)`: the type's SQL name; modifiers are not kept.
fn format_type() -> Function {
    let named = |oid: i32| match type_of_oid(oid) {
        Some(name) => name,
        None => "???".to_string(),
    };
    Function::new(
        "format_type",
        vec![over(
            &[Int4::data_type(), Int4::data_type()],
            Text::data_type(),
            move |args| {
                let oids = args.columns[0].reader::<Int4>()?;
                Text::collect((0..args.rows).map(|row| oids.get(row).map(named)).collect())
            },
        )],
    )
}

/// An oid that was looked up by name, or the error that there is no such relation or type.
fn oid_or_missing() -> Function {
    let params = [Int4::data_type(), Text::data_type(), Text::data_type()];
    Function::new(
        "oid_or_missing",
        vec![over(&params, Int4::data_type(), |args| {
            let oids = args.columns[0].reader::<Int4>()?;
            let kinds = args.columns[1].reader::<Text>()?;
            let names = args.columns[2].reader::<Text>()?;
            for row in 0..args.rows {
                if oids.get(row).is_some() {
                    continue;
                }
                let kind = kinds.get(row).unwrap_or_default();
                let name = names.get(row).unwrap_or_default();
                let error = match kind {
                    "relation" => ErrorKind::UndefinedTable,
                    _ => ErrorKind::UndefinedObject,
                };
                return Err(Error::new(
                    error,
                    format!("{kind} \"{name}\" does not exist"),
                ));
            }
            Ok(args.columns[0].array.clone())
        })],
    )
}

/// The names of PostgreSQL's types by oid, those of arrays included.
fn type_of_oid(oid: i32) -> Option<String> {
    const TYPES: [(i32, i32, &str); 22] = [
        (16, 1000, "boolean"),
        (17, 1001, "bytea"),
        (18, 1002, "\"char\""),
        (19, 1003, "name"),
        (20, 1016, "bigint"),
        (21, 1005, "smallint"),
        (23, 1007, "integer"),
        (25, 1009, "text"),
        (26, 1028, "oid"),
        (114, 199, "json"),
        (700, 1021, "real"),
        (701, 1022, "double precision"),
        (1043, 1015, "character varying"),
        (1082, 1182, "date"),
        (1083, 1183, "time without time zone"),
        (1114, 1115, "timestamp without time zone"),
        (1184, 1185, "timestamp with time zone"),
        (1186, 1187, "interval"),
        (1700, 1231, "numeric"),
        (2205, 2210, "regclass"),
        (2249, 2287, "record"),
        (3802, 3807, "jsonb"),
    ];
    TYPES.iter().find_map(|(scalar, array, name)| match oid {
        oid if oid == *scalar => Some(name.to_string()),
        oid if oid == *array => Some(format!("{name}[]")),
        _ => None,
    })
}
