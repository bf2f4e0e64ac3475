//! Random views and random writes.
//!
//! Values come from small ranges, NULL among them, so that groups, matches and duplicates are
//! frequent. Floats are quarters: their sums are exact in any order.

use rand::Rng;
use rand::rngs::StdRng;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Operator {
    Filter,
    Project,
    CountSum,
    MinMax,
    DistinctAggregate,
    FilterAggregate,
    OtherAggregate,
    Having,
    GlobalAggregate,
    InnerJoin,
    LeftJoin,
    RightJoin,
    FullJoin,
    CrossJoin,
    SemiJoin,
    AntiJoin,
    UnionAll,
    Distinct,
    ViewOnView,
}

impl Operator {
    pub(crate) const ALL: [Operator; 19] = [
        Operator::Filter,
        Operator::Project,
        Operator::CountSum,
        Operator::MinMax,
        Operator::DistinctAggregate,
        Operator::FilterAggregate,
        Operator::OtherAggregate,
        Operator::Having,
        Operator::GlobalAggregate,
        Operator::InnerJoin,
        Operator::LeftJoin,
        Operator::RightJoin,
        Operator::FullJoin,
        Operator::CrossJoin,
        Operator::SemiJoin,
        Operator::AntiJoin,
        Operator::UnionAll,
        Operator::Distinct,
        Operator::ViewOnView,
    ];
}

/// A view to be checked.
#[derive(Clone)]
pub(crate) struct View {
    pub(crate) name: String,
    pub(crate) query: String,
    pub(crate) operators: Vec<Operator>,
    /// Whether it has columns `g` (int) and `c` (bigint), so that others can be made on it.
    has_group: bool,
}

fn pick<'a>(rng: &mut StdRng, choices: &[&'a str]) -> &'a str {
    choices[rng.random_range(0..choices.len())]
}

pub(crate) fn random_view(rng: &mut StdRng, number: usize, views: &[View]) -> View {
    let mut operators = vec![];
    let below: Vec<&View> = views.iter().filter(|view| view.has_group).collect();
    let kind = rng.random_range(0..if below.is_empty() { 7 } else { 9 });
    let mut has_group = false;
    let query = match kind {
        0 => stateless(rng, &mut operators),
        1 | 2 => {
            has_group = true;
            grouped(rng, &mut operators)
        }
        3 | 4 => joined(rng, &mut operators),
        5 => union(rng, &mut operators),
        6 => global(rng, &mut operators),
        _ => {
            operators.push(Operator::ViewOnView);
            let below = &below[rng.random_range(0..below.len())].name;
            match rng.random_range(0..3) {
                0 => format!("SELECT c, count(*) AS n, min(g) AS m FROM {below} GROUP BY c"),
                1 => format!("SELECT v.g, v.c, c.t FROM {below} v LEFT JOIN c ON v.g = c.k"),
                _ => format!("SELECT g + 1 AS h, c FROM {below} WHERE c > 1"),
            }
        }
    };
    View {
        name: format!("v{number}"),
        query,
        operators,
        has_group,
    }
}

fn filter(rng: &mut StdRng) -> &'static str {
    pick(
        rng,
        &[
            "v > 2",
            "k IS NOT NULL",
            "s LIKE 'x%' OR n < 1.5",
            "f BETWEEN -1 AND 2",
            "k IN (1, 2, 5)",
            "NOT (v = 3)",
            "coalesce(v, 0) % 2 = 0",
        ],
    )
}

fn stateless(rng: &mut StdRng, operators: &mut Vec<Operator>) -> String {
    operators.extend([Operator::Filter, Operator::Project]);
    let columns = pick(
        rng,
        &[
            "id, k * 2 AS d, s || '!' AS e",
            "k, v + 1 AS w, n * 2 AS m",
            "upper(s) AS u, f / 2 AS h, n",
            "CASE WHEN v > 1 THEN 'many' ELSE 'few' END AS c, k",
        ],
    );
    format!("SELECT {columns} FROM a WHERE {}", filter(rng))
}

fn aggregates(rng: &mut StdRng, operators: &mut Vec<Operator>) -> String {
    const CHOICES: [(&str, Operator); 16] = [
        ("count(v)", Operator::CountSum),
        ("sum(v)", Operator::CountSum),
        ("sum(k)", Operator::CountSum),
        ("sum(n)", Operator::CountSum),
        ("sum(f)", Operator::CountSum),
        ("avg(v)", Operator::CountSum),
        ("avg(f)", Operator::CountSum),
        ("min(v)", Operator::MinMax),
        ("max(n)", Operator::MinMax),
        ("min(s)", Operator::MinMax),
        ("max(f)", Operator::MinMax),
        ("count(DISTINCT v)", Operator::DistinctAggregate),
        ("sum(DISTINCT v)", Operator::DistinctAggregate),
        ("count(*) FILTER (WHERE v > 2)", Operator::FilterAggregate),
        ("sum(n) FILTER (WHERE s = 'x')", Operator::FilterAggregate),
        ("bool_or(v > 3)", Operator::OtherAggregate),
    ];
    let mut list = vec!["count(*) AS c".to_string()];
    operators.push(Operator::CountSum);
    for i in 0..rng.random_range(0..4) {
        let (aggregate, operator) = CHOICES[rng.random_range(0..CHOICES.len())];
        list.push(format!("{aggregate} AS a{i}"));
        operators.push(operator);
    }
    list.join(", ")
}

fn grouped(rng: &mut StdRng, operators: &mut Vec<Operator>) -> String {
    let list = aggregates(rng, operators);
    let mut query = match rng.random_range(0..3) {
        0 => format!("SELECT k AS g, {list} FROM a GROUP BY k"),
        1 => format!(
            "SELECT k AS g, s, {list} FROM a WHERE {} GROUP BY k, s",
            filter(rng)
        ),
        _ => format!("SELECT n AS key, k % 2 AS g, {list} FROM a GROUP BY n, k % 2"),
    };
    if rng.random_bool(0.3) {
        operators.push(Operator::Having);
        query.push_str(pick(rng, &[" HAVING count(*) > 1", " HAVING sum(v) > 3"]));
    }
    query
}

fn global(rng: &mut StdRng, operators: &mut Vec<Operator>) -> String {
    operators.push(Operator::GlobalAggregate);
    let list = aggregates(rng, operators);
    format!("SELECT {list} FROM a WHERE {}", filter(rng))
}

fn joined(rng: &mut StdRng, operators: &mut Vec<Operator>) -> String {
    let on = pick(
        rng,
        &[
            "a.k = b.k",
            "a.k = b.k AND a.s = b.s",
            "a.k = b.k AND a.v > b.w",
        ],
    );
    match rng.random_range(0..8) {
        0 => {
            operators.push(Operator::InnerJoin);
            format!("SELECT a.id, a.s, b.w FROM a JOIN b ON {on}")
        }
        1 => {
            operators.push(Operator::LeftJoin);
            format!("SELECT a.id, b.s, b.w FROM a LEFT JOIN b ON {on}")
        }
        2 => {
            operators.push(Operator::RightJoin);
            format!("SELECT a.id, b.k, b.w FROM a RIGHT JOIN b ON {on}")
        }
        3 => {
            operators.push(Operator::FullJoin);
            "SELECT a.id, b.k, b.w FROM a FULL JOIN b ON a.k = b.k".to_string()
        }
        4 => {
            operators.push(Operator::CrossJoin);
            "SELECT b.w, c.t FROM b CROSS JOIN c".to_string()
        }
        5 => {
            operators.push(Operator::SemiJoin);
            "SELECT id, k FROM a WHERE k IN (SELECT k FROM b)".to_string()
        }
        6 => {
            operators.push(Operator::AntiJoin);
            "SELECT id, k FROM a WHERE NOT EXISTS (SELECT 1 FROM b WHERE b.k = a.k)".to_string()
        }
        _ => {
            operators.extend([Operator::LeftJoin, Operator::InnerJoin]);
            "SELECT a.id, b.w, c.t FROM a JOIN b ON a.k = b.k LEFT JOIN c ON c.x = a.n".to_string()
        }
    }
}

fn union(rng: &mut StdRng, operators: &mut Vec<Operator>) -> String {
    match rng.random_range(0..3) {
        0 => {
            operators.push(Operator::UnionAll);
            "SELECT k, s FROM a UNION ALL SELECT k, s FROM b".to_string()
        }
        1 => {
            operators.push(Operator::Distinct);
            "SELECT DISTINCT k, s FROM a".to_string()
        }
        _ => {
            operators.extend([Operator::UnionAll, Operator::Distinct]);
            "SELECT k FROM a UNION SELECT k FROM c".to_string()
        }
    }
}

fn int(rng: &mut StdRng, range: std::ops::Range<i64>) -> String {
    match rng.random_bool(0.15) {
        true => "NULL".to_string(),
        false => rng.random_range(range).to_string(),
    }
}

fn text(rng: &mut StdRng) -> &'static str {
    pick(rng, &["NULL", "'x'", "'y'", "'xy'", "''"])
}

fn numeric(rng: &mut StdRng) -> &'static str {
    pick(rng, &["NULL", "0", "1.5", "1.50", "-2.25", "10"])
}

fn row(rng: &mut StdRng, table: &str) -> String {
    match table {
        "a" => {
            let id = rng.random_range(0..12);
            let float = rng.random_range(-8..8) as f64 / 4.0;
            let (k, v) = (int(rng, 0..4), int(rng, -2..6));
            format!("({id}, {k}, {}, {v}, {}, {float})", text(rng), numeric(rng))
        }
        "b" => {
            let (k, w) = (int(rng, 0..4), int(rng, 0..5));
            format!("({k}, {}, {w})", text(rng))
        }
        _ => {
            let k = rng.random_range(0..5);
            format!("({k}, {}, {})", text(rng), numeric(rng))
        }
    }
}

pub(crate) fn random_write(rng: &mut StdRng) -> String {
    let table = pick(rng, &["a", "a", "b", "c"]);
    match rng.random_range(0..10) {
        0..=5 => {
            let rows = (0..rng.random_range(1..6)).map(|_| row(rng, table));
            let rows: Vec<String> = rows.collect();
            format!("INSERT INTO {table} VALUES {}", rows.join(", "))
        }
        6 | 7 => {
            let k = rng.random_range(0..4);
            match table {
                "a" => format!("UPDATE a SET v = v + 1, n = n * 2 WHERE k = {k}"),
                "b" => format!("UPDATE b SET w = w - 1, k = {k} WHERE w > 2"),
                _ => format!("UPDATE c SET t = 'x', x = 1.50 WHERE k = {k}"),
            }
        }
        _ => {
            let k = rng.random_range(0..4);
            format!("DELETE FROM {table} WHERE k = {k}")
        }
    }
}
