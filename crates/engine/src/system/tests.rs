//! Every relation can be read, and what psql joins agrees.

use arrow::array::AsArray;
use arrow::datatypes::{DataType, Int32Type};
use ruslo_repr::schema::{NUMERIC, list_of};

use super::*;

fn snapshot() -> CatalogSnapshot {
    let object = |id: u64, name: &str, kind: SystemKind| SystemObject {
        id,
        schema: "public".into(),
        name: name.into(),
        kind,
        columns: Schema::new([("id", DataType::Int32), ("tags", list_of(NUMERIC))]),
        key: vec![0],
        definition: format!("CREATE VIEW {name} AS SELECT 1 AS as_is WITH (connector = 'kafka')"),
        owner: "ann".into(),
    };
    CatalogSnapshot {
        database: "dev".into(),
        user: "root".into(),
        schemas: vec!["public".into(), "sales".into()],
        objects: vec![
            object(1, "t", SystemKind::Table),
            object(2, "mv", SystemKind::MaterializedView),
            object(3, "s", SystemKind::Source),
            object(4, "v", SystemKind::View),
            object(5, "k", SystemKind::Sink),
        ],
    }
}

fn texts(schema: &str, name: &str, column: &str) -> Vec<String> {
    let batch = rows(schema, name, &snapshot()).unwrap();
    let column = batch
        .column_by_name(column)
        .unwrap()
        .as_string::<i32>()
        .clone();
    column
        .iter()
        .map(|text| text.unwrap_or("NULL").to_string())
        .collect()
}

#[test]
fn every_relation_gives_rows_of_its_columns() {
    for relation in relations() {
        for snapshot in [snapshot(), CatalogSnapshot::default()] {
            let batch = rows(&relation.schema, &relation.name, &snapshot).unwrap();
            assert_eq!(
                batch.schema(),
                relation.columns.to_arrow(),
                "{}",
                relation.name
            );
        }
    }
    assert!(rows("pg_catalog", "nothing", &snapshot()).is_err());
}

#[test]
fn relation_names_and_oids_are_given_once() {
    let mut names: Vec<String> = relations()
        .iter()
        .map(|r| format!("{}.{}", r.schema, r.name))
        .collect();
    names.sort();
    let count = names.len();
    names.dedup();
    assert_eq!(names.len(), count);
    let classes = rows("pg_catalog", "pg_class", &snapshot()).unwrap();
    let oids = classes
        .column_by_name("oid")
        .unwrap()
        .as_primitive::<Int32Type>()
        .clone();
    let mut distinct: Vec<i32> = oids.values().to_vec();
    distinct.sort();
    distinct.dedup();
    assert_eq!(distinct.len(), oids.len());
}

#[test]
fn kinds_are_those_that_psql_lists() {
    let names = texts("pg_catalog", "pg_class", "relname");
    let kinds = texts("pg_catalog", "pg_class", "relkind");
    let kind = |wanted: &str| {
        let at = names.iter().position(|name| name == wanted)?;
        Some(kinds[at].as_str())
    };
    assert_eq!(kind("t"), Some("r"));
    assert_eq!(kind("t_pkey"), Some("i"));
    assert_eq!(kind("mv"), Some("m"));
    assert_eq!(kind("s"), Some("f"));
    assert_eq!(kind("v"), Some("v"));
    assert_eq!(kind("k"), None);
    assert_eq!(texts("rw_catalog", "rw_sinks", "name"), ["k"]);
    assert_eq!(texts("pg_catalog", "pg_roles", "rolname"), ["root", "ann"]);
}

#[test]
fn relations_that_queries_are_hollowed_for_are_empty() {
    let empty: Vec<&str> = pg_empty::DEFINITIONS.iter().map(|d| d.name).collect();
    assert_eq!(empty, ruslo_sql::pg_compat::EMPTY_RELATIONS);
}

#[test]
fn definitions_are_taken_apart() {
    let query = "SELECT 1 AS as_is WITH (connector = 'kafka')";
    assert_eq!(texts("pg_catalog", "pg_views", "definition"), [query]);
    assert_eq!(
        texts("pg_catalog", "pg_rewrite", "ev_action"),
        [query, query]
    );
    assert_eq!(texts("rw_catalog", "rw_sources", "connector"), ["kafka"]);
}

#[test]
fn columns_have_postgresqls_type_oids() {
    let attributes = rows("pg_catalog", "pg_attribute", &snapshot()).unwrap();
    let of = |name: &str| attributes.column_by_name(name).unwrap().clone();
    let (relation, ty) = (of("attrelid"), of("atttypid"));
    let types: Vec<i32> = (0..attributes.num_rows())
        .filter(|&row| relation.as_primitive::<Int32Type>().value(row) == FIRST_OID + 1)
        .map(|row| ty.as_primitive::<Int32Type>().value(row))
        .collect();
    assert_eq!(types, [23, 1231]);
    let udt = texts("information_schema", "columns", "udt_name");
    assert_eq!(&udt[..2], ["int4", "_numeric"]);
}
