//! A plan as an indented tree of text, one node a line.

use ruslo_repr::{ObjectId, Plan};

/// `names` gives the name of a relation to show.
pub fn explain(_plan: &Plan, _names: &dyn Fn(ObjectId) -> String) -> Vec<String> {
    vec![]
}
