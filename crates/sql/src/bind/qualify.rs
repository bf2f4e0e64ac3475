//! A plain view's query with every relation's schema in it, so that it means the same wherever
//! its reader looks for names.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast as sql;
use datafusion::sql::sqlparser::ast::{VisitMut, VisitorMut};

use super::names::normalised;
use crate::catalog::Catalog;
use crate::stack::deep;

/// The query's text with relations under their full names.
pub fn qualified(query: &sql::Query, catalog: &dyn Catalog) -> String {
    deep(|| {
        let mut query = query.clone();
        let mut names = CteNames::default();
        let ControlFlow::Continue(()) = query.visit(&mut names);
        let tables = names.0;
        let mut qualifier = Qualifier { catalog, tables };
        let ControlFlow::Continue(()) = query.visit(&mut qualifier);
        query.to_string()
    })
}

type Flow = ControlFlow<std::convert::Infallible>;

/// Tables of WITH, wherever they stand: their names are left alone.
#[derive(Default)]
struct CteNames(BTreeSet<String>);

impl VisitorMut for CteNames {
    type Break = std::convert::Infallible;

    fn pre_visit_query(&mut self, query: &mut sql::Query) -> Flow {
        let tables = query.with.iter().flat_map(|with| &with.cte_tables);
        self.0.extend(tables.map(|cte| normalised(&cte.alias.name)));
        ControlFlow::Continue(())
    }
}

struct Qualifier<'a> {
    catalog: &'a dyn Catalog,
    tables: BTreeSet<String>,
}

impl VisitorMut for Qualifier<'_> {
    type Break = std::convert::Infallible;

    fn pre_visit_table_factor(&mut self, factor: &mut sql::TableFactor) -> Flow {
        let sql::TableFactor::Table {
            name,
            alias,
            args: None,
            ..
        } = factor
        else {
            return ControlFlow::Continue(());
        };
        let [part] = &name.0[..] else {
            return ControlFlow::Continue(());
        };
        let Some(ident) = part.as_ident().cloned() else {
            return ControlFlow::Continue(());
        };
        let table = normalised(&ident);
        if !self.tables.contains(&table)
            && let Some(relation) = self.catalog.resolve(None, &table)
        {
            let schema = sql::Ident::with_quote('"', &relation.schema_name);
            // The alias keeps `t.x` and `t.*` what they were.
            alias.get_or_insert_with(|| sql::TableAlias {
                explicit: true,
                name: ident.clone(),
                columns: vec![],
                at: None,
            });
            *name = sql::ObjectName::from(vec![schema, ident]);
        }
        ControlFlow::Continue(())
    }
}
