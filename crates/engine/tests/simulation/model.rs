//! What must be seen: a naive recomputation of every relation.

use std::collections::BTreeMap;

/// Everything that a read shows, by relation: its rows as text, sorted.
pub(crate) type Seen = BTreeMap<String, Vec<String>>;

/// The rows of table `a`.
pub(crate) type Table = BTreeMap<i64, i64>;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Message {
    pub(crate) k: i64,
    pub(crate) v: i64,
}

/// A relation of a history: what makes it, what it needs, and how it is read as three texts.
pub(crate) struct Relation {
    pub(crate) name: &'static str,
    pub(crate) query: &'static str,
    pub(crate) needs: &'static [&'static str],
    pub(crate) columns: [&'static str; 3],
}

/// How far each partition is read is told by `progress`, which is always there.
pub(crate) const VIEWS: [Relation; 7] = [
    Relation {
        name: "progress",
        query: "SELECT p, count(*) AS n FROM s GROUP BY p",
        needs: &[],
        columns: ["p", "n", "0"],
    },
    Relation {
        name: "groups",
        query: "SELECT k, count(*) AS n, sum(v) AS t FROM s GROUP BY k",
        needs: &[],
        columns: ["k", "n", "t"],
    },
    Relation {
        name: "joined",
        query: "SELECT a.w AS w, count(*) AS n, sum(s.v) AS t FROM s JOIN a ON s.k = a.id \
                GROUP BY a.w",
        needs: &[],
        columns: ["w", "n", "t"],
    },
    Relation {
        name: "upon",
        query: "SELECT n, count(*) AS c, sum(t) AS t FROM groups GROUP BY n",
        needs: &["groups"],
        columns: ["n", "c", "t"],
    },
    Relation {
        name: "tabled",
        query: "SELECT w, count(*) AS n, sum(id) AS t FROM a GROUP BY w",
        needs: &[],
        columns: ["w", "n", "t"],
    },
    Relation {
        name: "rows",
        query: "SELECT k, v FROM s WHERE v > 50",
        needs: &[],
        columns: ["k", "v", "0"],
    },
    Relation {
        name: "again",
        query: "SELECT k, max(v) AS m, count(DISTINCT v) AS d FROM s GROUP BY k",
        needs: &[],
        columns: ["k", "m", "d"],
    },
];

pub(crate) fn relation(name: &str) -> &'static Relation {
    let found = VIEWS.iter().find(|view| view.name == name);
    found.expect("a relation of this history")
}

/// What `name` holds when the first so many messages of each partition are read.
pub(crate) fn expected(
    name: &str,
    topic: &[Vec<Message>],
    read: &[usize],
    a: &Table,
) -> Vec<String> {
    let parts = topic.iter().zip(read).map(|(part, read)| &part[..*read]);
    let messages: Vec<Message> = parts.flatten().copied().collect();
    let mut rows = match name {
        "progress" => {
            let counts = read.iter().enumerate().filter(|(_, n)| **n > 0);
            counts.map(|(p, n)| format!("{p}|{n}|0")).collect()
        }
        "groups" => print(&groups(&messages)),
        "joined" => {
            let matches = messages.iter().filter_map(|m| Some((*a.get(&m.k)?, m.v)));
            print(&counted(matches))
        }
        "upon" => {
            let groups = groups(&messages);
            print(&counted(groups.values().copied()))
        }
        "tabled" => print(&counted(a.iter().map(|(id, w)| (*w, *id)))),
        "rows" => {
            let rows = messages.iter().filter(|m| m.v > 50);
            rows.map(|m| format!("{}|{}|0", m.k, m.v)).collect()
        }
        "again" => {
            let mut values: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
            messages
                .iter()
                .for_each(|m| values.entry(m.k).or_default().push(m.v));
            let print = |(k, mut v): (i64, Vec<i64>)| {
                v.sort_unstable();
                v.dedup();
                format!("{k}|{}|{}", v[v.len() - 1], v.len())
            };
            values.into_iter().map(print).collect()
        }
        "a" => a.iter().map(|(id, w)| format!("{id}|{w}|0")).collect(),
        other => unreachable!("no relation {other}"),
    };
    rows.sort();
    rows
}

/// Key → count and sum.
fn counted(rows: impl Iterator<Item = (i64, i64)>) -> BTreeMap<i64, (i64, i64)> {
    let mut groups: BTreeMap<i64, (i64, i64)> = BTreeMap::new();
    for (key, value) in rows {
        let (count, sum) = groups.entry(key).or_default();
        *count += 1;
        *sum += value;
    }
    groups
}

pub(crate) fn groups(messages: &[Message]) -> BTreeMap<i64, (i64, i64)> {
    counted(messages.iter().map(|m| (m.k, m.v)))
}

fn print(groups: &BTreeMap<i64, (i64, i64)>) -> Vec<String> {
    let rows = groups.iter();
    rows.map(|(key, (count, sum))| format!("{key}|{count}|{sum}"))
        .collect()
}
