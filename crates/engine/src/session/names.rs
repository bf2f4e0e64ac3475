//! Names without a schema: where this session's `search_path` looks for them.

use std::sync::Arc;

use ruslo_repr::{Error, ErrorKind, Result};
use ruslo_sql::ast::Name;
use ruslo_sql::{Catalog as BindCatalog, Relation};

use super::Session;
use crate::catalog::{Catalog, Object};

/// The catalog as the session's names see it.
pub(super) struct Named<'a> {
    catalog: &'a Catalog,
    path: Vec<String>,
}

impl BindCatalog for Named<'_> {
    fn resolve(&self, schema: Option<&str>, name: &str) -> Option<Arc<Relation>> {
        if schema.is_some() {
            return self.catalog.resolve(schema, name);
        }
        // As in PostgreSQL, the system's own relations need not be on the path.
        let path = self.path.iter().map(String::as_str);
        let mut path = path.chain(["pg_catalog"]);
        path.find_map(|schema| self.catalog.resolve(Some(schema), name))
    }
}

impl Session {
    pub(super) fn names(&self) -> Named<'_> {
        Named {
            catalog: &self.shared.catalog,
            path: self.search_path(),
        }
    }

    /// The schemas of `search_path` that there are, in order.
    pub(super) fn search_path(&self) -> Vec<String> {
        let value = self.settings.get("search_path").unwrap_or_default();
        let catalog = &self.shared.catalog;
        let schemas = parts(value).into_iter().map(|part| match part.as_str() {
            "$user" => self.user.clone(),
            _ => part,
        });
        schemas.filter(|name| catalog.has_schema(name)).collect()
    }

    /// The name with the schema that a new object of this name goes to.
    pub(super) fn placed(&self, name: &Name) -> Result<Name> {
        if name.schema.is_some() {
            return Ok(name.clone());
        }
        match self.search_path().into_iter().next() {
            Some(schema) => Ok(within(schema, name)),
            None => {
                let message = "no schema has been selected to create in";
                let error = Error::new(ErrorKind::UndefinedSchema, message);
                Err(error.with_hint("Set search_path to a schema that exists."))
            }
        }
    }

    /// The name with the schema in which its object is found first, or as it is.
    pub(super) fn found(&self, name: &Name) -> Name {
        if name.schema.is_some() {
            return name.clone();
        }
        let path = self.search_path().into_iter();
        let mut path = path.map(|schema| within(schema, name));
        let found = path.find(|name| self.shared.catalog.find(name).is_some());
        found.unwrap_or_else(|| name.clone())
    }

    pub(super) fn find(&self, name: &Name) -> Option<Arc<Object>> {
        self.shared.catalog.find(&self.found(name))
    }
}

fn within(schema: String, name: &Name) -> Name {
    Name {
        schema: Some(schema),
        name: name.name.clone(),
    }
}

/// The names in a list as `search_path` has it: lower case unless quoted.
fn parts(list: &str) -> Vec<String> {
    let mut names = vec![];
    let (mut name, mut quoted, mut any_quotes) = (String::new(), false, false);
    for character in list.chars().chain([',']) {
        match character {
            '"' => (quoted, any_quotes) = (!quoted, true),
            ',' if !quoted => {
                let plain = std::mem::take(&mut name);
                let plain = match std::mem::take(&mut any_quotes) {
                    true => plain.trim().to_string(),
                    false => plain.trim().to_lowercase(),
                };
                names.extend((!plain.is_empty()).then_some(plain));
            }
            other => name.push(other),
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::parts;

    #[test]
    fn a_path_is_a_list_of_names() {
        assert_eq!(
            parts("\"$user\", Public,\"A,b\" "),
            ["$user", "public", "A,b"]
        );
        assert!(parts("").is_empty());
        assert!(parts("\"\"").is_empty());
    }
}
