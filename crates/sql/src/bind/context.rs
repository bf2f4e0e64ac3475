//! What DataFusion's binder asks us: relations by name, functions by name, types by name.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::{Mutex, MutexGuard};

use arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::TableReference;
use datafusion::config::ConfigOptions;
use datafusion::datasource::{TableType, empty::EmptyTable, provider_as_source};
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::planner::{ContextProvider, ExprPlanner, TypePlanner};
use datafusion::logical_expr::{
    AggregateUDF, Expr, HigherOrderUDF, LogicalPlan, LogicalPlanBuilder, ScalarUDF, TableSource,
    WindowUDF,
};
use ruslo_repr::{Error, ErrorKind, Result};

use super::literals::PostgresTypes;
use super::registry::{Functions, functions};
use super::{Purpose, bind_query, table_function, typed};
use crate::catalog::{Catalog, Relation, RelationKind, SessionContext};
use crate::error::{from_df, to_df};
use crate::parse::parse_query;
use crate::stack::deep;

/// Plain views inside plain views beyond this depth are taken for a mistake.
const VIEW_DEPTH_MAX: usize = 32;

pub(super) struct Context<'a> {
    catalog: &'a dyn Catalog,
    pub(super) session: &'a SessionContext,
    pub(super) purpose: Purpose,
    functions: &'static Functions,
    options: ConfigOptions,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    relations: Vec<Arc<Relation>>,
    view_depth: usize,
}

impl<'a> Context<'a> {
    pub(super) fn new(
        catalog: &'a dyn Catalog,
        session: &'a SessionContext,
        purpose: Purpose,
    ) -> Self {
        Context {
            catalog,
            session,
            purpose,
            functions: functions(),
            options: ConfigOptions::default(),
            seen: Mutex::default(),
        }
    }

    pub(super) fn into_relations(self) -> Vec<Arc<Relation>> {
        let seen = self.seen.into_inner();
        seen.unwrap_or_else(|poisoned| poisoned.into_inner())
            .relations
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn relation_source(&self, reference: &TableReference) -> Result<Arc<dyn TableSource>> {
        let (schema, name) = (reference.schema(), reference.table());
        let Some(relation) = self.catalog.resolve(schema, name) else {
            let shown = match schema {
                Some(schema) => format!("{schema}.{name}"),
                None => name.to_string(),
            };
            let message = format!("relation \"{shown}\" does not exist");
            return Err(Error::new(ErrorKind::UndefinedTable, message));
        };
        let plan = match &relation.kind {
            RelationKind::View { text } => Some(self.expand_view(&relation, text)?),
            RelationKind::System if self.purpose == Purpose::View => {
                let message =
                    format!("\"{name}\" is a system catalog and cannot be used in a view");
                return Err(Error::unsupported(message));
            }
            _ => {
                let mut seen = self.seen();
                if !seen.relations.iter().any(|r| r.id == relation.id) {
                    seen.relations.push(relation.clone());
                }
                None
            }
        };
        let hidden = match self.purpose {
            Purpose::Dml => 0,
            Purpose::Once | Purpose::View => relation.hidden,
        };
        Ok(Arc::new(RelationSource::new(relation, hidden, plan)))
    }

    /// A plain view's query, bound and with the view's column names.
    fn expand_view(&self, view: &Relation, text: &str) -> Result<LogicalPlan> {
        let query = parse_query(text)?;
        self.seen().view_depth += 1;
        if self.seen().view_depth > VIEW_DEPTH_MAX {
            let message = format!("views are nested too deeply at \"{}\"", view.name);
            return Err(Error::new(ErrorKind::InvalidState, message));
        }
        let plan = deep(|| bind_query(&query, self, &[]))?;
        self.seen().view_depth -= 1;
        let columns = plan.schema().columns();
        let exprs = columns.into_iter().zip(&view.schema.columns);
        let exprs = exprs.map(|(column, shown)| Expr::Column(column).alias(&shown.name));
        let exprs: Vec<Expr> = exprs.collect();
        let renamed = LogicalPlanBuilder::from(plan).project(exprs);
        renamed.and_then(|b| b.build()).map_err(from_df)
    }
}

impl ContextProvider for Context<'_> {
    fn get_table_source(&self, name: TableReference) -> DfResult<Arc<dyn TableSource>> {
        self.relation_source(&name).map_err(to_df)
    }

    fn get_table_function_source(
        &self,
        name: &str,
        args: Vec<Expr>,
    ) -> DfResult<Arc<dyn TableSource>> {
        table_function::source(name, args, self.purpose).map_err(to_df)
    }

    fn create_cte_work_table(
        &self,
        name: &str,
        schema: SchemaRef,
    ) -> DfResult<Arc<dyn TableSource>> {
        if self.purpose == Purpose::View {
            let message = "WITH RECURSIVE is not supported in a view yet";
            return Err(to_df(Error::unsupported(message)));
        }
        let table = datafusion::catalog::cte_worktable::CteWorkTable::new(name, schema);
        Ok(provider_as_source(Arc::new(table)))
    }

    fn get_expr_planners(&self) -> &[Arc<dyn ExprPlanner>] {
        &self.functions.planners
    }

    fn get_type_planner(&self) -> Option<Arc<dyn TypePlanner>> {
        Some(Arc::new(PostgresTypes))
    }

    fn get_function_meta(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        typed::stand_in(name).or_else(|| self.functions.scalar(name))
    }

    fn get_higher_order_meta(&self, _name: &str) -> Option<Arc<HigherOrderUDF>> {
        None
    }

    fn get_aggregate_meta(&self, name: &str) -> Option<Arc<AggregateUDF>> {
        self.functions.aggregates.get(name).cloned()
    }

    fn get_window_meta(&self, name: &str) -> Option<Arc<WindowUDF>> {
        self.functions.windows.get(name).cloned()
    }

    fn get_variable_type(&self, _names: &[String]) -> Option<DataType> {
        None
    }

    fn options(&self) -> &ConfigOptions {
        &self.options
    }

    fn udf_names(&self) -> Vec<String> {
        self.functions.scalars.keys().cloned().collect()
    }

    fn higher_order_function_names(&self) -> Vec<String> {
        vec![]
    }

    fn udaf_names(&self) -> Vec<String> {
        self.functions.aggregates.keys().cloned().collect()
    }

    fn udwf_names(&self) -> Vec<String> {
        self.functions.windows.keys().cloned().collect()
    }
}

/// A relation of the catalog inside a DataFusion plan; hidden columns are left out.
pub(crate) struct RelationSource {
    pub(crate) relation: Arc<Relation>,
    schema: SchemaRef,
    /// The query of a plain view, which takes the relation's place.
    plan: Option<LogicalPlan>,
}

impl RelationSource {
    fn new(relation: Arc<Relation>, hidden: usize, plan: Option<LogicalPlan>) -> Self {
        let visible = relation.schema.len().saturating_sub(hidden);
        let columns: Vec<usize> = (0..visible).collect();
        let schema = relation.schema.project(&columns).to_arrow();
        RelationSource {
            relation,
            schema,
            plan,
        }
    }

    /// An empty table of the relation's visible columns, for planning without rows.
    pub(crate) fn empty(&self) -> Arc<dyn TableSource> {
        provider_as_source(Arc::new(EmptyTable::new(self.schema.clone())))
    }
}

impl TableSource for RelationSource {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn get_logical_plan(&self) -> Option<Cow<'_, LogicalPlan>> {
        self.plan.as_ref().map(Cow::Borrowed)
    }
}
