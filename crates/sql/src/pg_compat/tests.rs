//! What clients write, and what is left of it to bind.

use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::parser::Parser;

use super::*;

/// The SQL of `text` after [`rewrite`].
fn rewritten(text: &str) -> String {
    let mut statements = Parser::parse_sql(&PostgreSqlDialect {}, text).unwrap();
    statements.iter_mut().for_each(rewrite);
    statements
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("; ")
}

fn lookup(value: &str, key: &str, relation: &str, wanted: &str) -> String {
    format!(
        "(SELECT max(__value) FROM (SELECT {key} AS __key, {value} AS __value \
         FROM pg_catalog.{relation}) AS __lookup WHERE __key = {wanted})"
    )
}

#[test]
fn schemas_of_functions_operators_and_types_go() {
    assert_eq!(
        rewritten(
            "SELECT pg_catalog.format_type(a.atttypid, NULL), a.x::pg_catalog.text FROM a \
             WHERE a.relname OPERATOR(pg_catalog.~) '^(t)$' COLLATE pg_catalog.default"
        ),
        "SELECT format_type(a.atttypid, NULL) AS \"format_type\", a.x::VARCHAR AS \"x\" FROM a \
         WHERE a.relname ~ '^(t)$'"
    );
    assert_eq!(
        rewritten("SELECT a || E'\\n' FROM t WHERE b::pg_catalog.int2[] IS NULL"),
        "SELECT a || '\n' FROM t WHERE b::SMALLINT[] IS NULL"
    );
}

#[test]
fn names_and_oids_are_looked_up() {
    let oid = lookup("oid", "relname", "pg_class", "'t'");
    assert_eq!(
        rewritten("SELECT 'public.t'::pg_catalog.regclass::pg_catalog.oid"),
        format!("SELECT oid_or_missing({oid}, 'relation', 'public.t')::INTEGER AS \"oid\"")
    );
    let name = lookup("relname", "oid", "pg_class", "c.oid");
    assert_eq!(
        rewritten("SELECT c.oid::pg_catalog.regclass FROM c"),
        format!("SELECT {name} AS \"oid\" FROM c")
    );
    let owner = lookup("rolname", "oid", "pg_roles", "n.nspowner");
    assert_eq!(
        rewritten("SELECT pg_catalog.pg_get_userbyid(n.nspowner) AS \"Owner\" FROM n"),
        format!("SELECT {owner} AS \"Owner\" FROM n")
    );
    let view = lookup("ev_action", "ev_class", "pg_rewrite", "'16385'::INTEGER");
    assert_eq!(
        rewritten("SELECT pg_catalog.pg_get_viewdef('16385'::pg_catalog.oid, true)"),
        format!("SELECT {view} AS \"pg_get_viewdef\"")
    );
}

#[test]
fn a_scalar_subquery_over_the_catalogs_is_seen_to_have_one_row() {
    assert_eq!(
        rewritten("SELECT 1 WHERE (SELECT c.relkind = 'c' FROM pg_catalog.pg_class c)"),
        "SELECT 1 WHERE (SELECT bool_or(c.relkind = 'c') FROM pg_catalog.pg_class c)"
    );
    assert_eq!(
        rewritten("SELECT a <= (SELECT i.n FROM pg_index i WHERE i.x = y) AS b FROM t"),
        "SELECT a <= (SELECT max(i.n) FROM pg_index i WHERE i.x = y) AS b FROM t"
    );
}

#[test]
fn exists_among_select_items_is_an_aggregate() {
    assert_eq!(
        rewritten("SELECT a AND EXISTS (SELECT 1 FROM pg_index i WHERE i.x = y) AS b FROM t"),
        "SELECT a AND (SELECT bool_or(true) AS \"bool_or\" FROM pg_index i WHERE i.x = y) IS TRUE \
         AS b FROM t"
    );
    let inside = "SELECT a FROM t WHERE EXISTS (SELECT 1 FROM pg_index i WHERE i.x = y)";
    assert_eq!(rewritten(inside), inside);
}

#[test]
fn queries_over_what_there_is_not_lose_their_expressions() {
    assert_eq!(
        rewritten(
            "SELECT oid, 'd' = any(stxkind) AS nd, pg_get_x(oid) FROM pg_catalog.pg_statistic_ext \
             WHERE stxrelid = '1' ORDER BY weird(oid)"
        ),
        "SELECT oid, NULL::VARCHAR AS nd, NULL::VARCHAR AS \"pg_get_x\" \
         FROM pg_catalog.pg_statistic_ext WHERE false"
    );
    assert_eq!(
        rewritten("SELECT a, EXISTS(SELECT 1 FROM pg_trigger) AS e FROM t"),
        "SELECT a, false AS e FROM t"
    );
    let counted = "SELECT count(*) AS \"count\" FROM pg_catalog.pg_policy";
    assert_eq!(
        rewritten("SELECT count(*) FROM pg_catalog.pg_policy"),
        counted
    );
    let outer = "SELECT f(x) AS \"f\" FROM t LEFT JOIN pg_policy ON true";
    assert_eq!(
        rewritten("SELECT f(x) FROM t LEFT JOIN pg_policy ON true"),
        outer
    );
}

#[test]
fn statements_without_such_constructs_stay() {
    for text in [
        "SELECT event, count(*) AS count FROM user_events GROUP BY event",
        "INSERT INTO t (a) VALUES (1)",
        "SELECT a FROM t WHERE a IN (SELECT b FROM u)",
        "SELECT (SELECT b FROM u) AS c FROM t",
    ] {
        assert_eq!(rewritten(text), text);
    }
}
