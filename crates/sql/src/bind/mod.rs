//! From an AST to a DataFusion `LogicalPlan` that means what PostgreSQL means.
//!
//! ```text
//!   Query ─rewrite─> Query ─SqlToRel─> LogicalPlan ─typing─> LogicalPlan ─Analyzer─> bound plan
//!          names,           context.rs:             casts, key forms,      DataFusion's own
//!          literals;        relations, functions    CASE, IN, UNION        functions coerce
//!          probe: stars,
//!          VALUES
//! ```

mod checks;
mod context;
mod forms;
mod grouping;
mod literals;
pub(crate) mod names;
mod ordering;
mod probe;
mod qualify;
pub(crate) mod registry;
pub(crate) mod rewrite;
mod session;
mod table_function;
mod typed;
mod typing;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::config::ConfigOptions;
use datafusion::logical_expr::expr::Placeholder;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder};
use datafusion::optimizer::Analyzer;
use datafusion::sql::planner::{ParserOptions, PlannerContext, SqlToRel};
use datafusion::sql::sqlparser::ast as sql;
use ruslo_repr::schema::{INTERVAL, JSONB, NUMERIC, TIME, TIMESTAMP, list_of, timestamptz};
use ruslo_repr::{Error, ErrorKind, Result, Schema};

pub(crate) use context::RelationSource;
pub use qualify::qualified;
pub use session::settings_changed;

use crate::catalog::{Catalog, Relation, SessionContext};
use crate::error::from_df;
use crate::stack::deep;
use context::Context;

/// What a query is bound for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// To run once, now.
    Once,
    /// To be kept up to date.
    View,
    /// To run once, with the hidden columns of tables in sight.
    Dml,
}

/// A query whose names and types are resolved.
pub(crate) struct Bound {
    pub(crate) plan: LogicalPlan,
    /// Output columns as the user sees them; names may repeat.
    pub(crate) schema: Schema,
    /// Relations read, each once, in order of first use.
    pub(crate) relations: Vec<Arc<Relation>>,
    /// The types of `$1`, `$2` ….
    pub(crate) params: Vec<DataType>,
}

/// Binds a query.
pub(crate) fn bind(
    query: &sql::Query,
    catalog: &dyn Catalog,
    session: &SessionContext,
    purpose: Purpose,
    hints: &[Option<DataType>],
) -> Result<Bound> {
    deep(|| bind_deep(query, catalog, session, purpose, hints))
}

fn bind_deep(
    query: &sql::Query,
    catalog: &dyn Catalog,
    session: &SessionContext,
    purpose: Purpose,
    hints: &[Option<DataType>],
) -> Result<Bound> {
    let context = Context::new(catalog, session, purpose);
    let plan = bind_query(query, &context, hints)?;
    let (plan, params) = settle_params(plan, hints)?;
    let plan = canonical_output(plan)?;
    let fields = plan.schema().fields().iter();
    let columns = fields.map(|f| (names::shown(f.name()).to_string(), f.data_type().clone()));
    Ok(Bound {
        schema: Schema::new(columns),
        plan,
        relations: context.into_relations(),
        params,
    })
}

/// Binds a query inside a context that may already hold others (a plain view's inside a query).
fn bind_query(
    query: &sql::Query,
    context: &Context<'_>,
    hints: &[Option<DataType>],
) -> Result<LogicalPlan> {
    let mut query = query.clone();
    if context.purpose != Purpose::View {
        crate::pg_compat::rewrite_query(&mut query);
    }
    rewrite::rewrite_query(&mut query, context.session, context.purpose)?;
    let options = ParserOptions::new()
        .with_map_string_types_to_utf8view(false)
        .with_enable_ident_normalization(true);
    let planner = SqlToRel::new_with_options(context, options);
    let fields = hints.iter().map(|hint| {
        let ty = hint.clone()?;
        Some(Arc::new(Field::new("", ty, true)))
    });
    let mut state = PlannerContext::new().with_prepare_param_data_types(fields.collect());
    probe::complete(&mut query, &|part| {
        let plan = planner.sql_statement_to_plan_with_context(
            sql::Statement::Query(Box::new(part)),
            &mut state.clone(),
        );
        plan.map_err(from_df)
    })?;
    let statement = sql::Statement::Query(Box::new(query));
    let plan = planner.sql_statement_to_plan_with_context(statement, &mut state);
    let plan = plan.map_err(from_df)?;
    let plan = typing::settle(plan).map_err(from_df)?;
    analyze(plan)
}

/// DataFusion's own analysis: GROUPING() and the coercion of its own functions' arguments.
fn analyze(plan: LogicalPlan) -> Result<LogicalPlan> {
    let config = ConfigOptions::default();
    let analyzed = Analyzer::new().execute_and_check(plan, &config, |_, _| {});
    analyzed.map_err(from_df)
}

/// The type of ours in which values of an Arrow type are carried; the same for ours.
pub(crate) fn canonical(ty: &DataType) -> DataType {
    match ty {
        DataType::Int8 | DataType::UInt8 => DataType::Int16,
        DataType::UInt16 => DataType::Int32,
        DataType::UInt32 | DataType::UInt64 => DataType::Int64,
        DataType::Null | DataType::Utf8View => DataType::Utf8,
        DataType::BinaryView | DataType::LargeBinary => DataType::Binary,
        DataType::Decimal32(..)
        | DataType::Decimal64(..)
        | DataType::Decimal128(..)
        | DataType::Decimal256(..) => NUMERIC,
        DataType::Float16 => DataType::Float32,
        DataType::Date64 => DataType::Date32,
        DataType::Time32(_) | DataType::Time64(_) => TIME,
        DataType::Timestamp(_, None) => TIMESTAMP,
        DataType::Timestamp(_, Some(_)) => timestamptz(),
        DataType::Interval(_) | DataType::Duration(_) => INTERVAL,
        DataType::LargeUtf8 => JSONB,
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::FixedSizeList(item, _)
        | DataType::ListView(item) => list_of(canonical(item.data_type())),
        DataType::Struct(fields) => {
            let fields = fields.iter();
            let fields = fields.map(|f| Field::new(f.name(), canonical(f.data_type()), true));
            DataType::Struct(fields.collect())
        }
        DataType::Dictionary(_, value) => canonical(value),
        other => other.clone(),
    }
}

/// Casts output columns of types that are not ours (a rank's UInt64, an untyped NULL).
fn canonical_output(plan: LogicalPlan) -> Result<LogicalPlan> {
    let fields = plan.schema().fields();
    if fields
        .iter()
        .all(|f| canonical(f.data_type()) == *f.data_type())
    {
        return Ok(plan);
    }
    let columns = plan.schema().columns();
    let exprs = columns
        .into_iter()
        .zip(fields.iter())
        .map(|(column, field)| {
            let ty = canonical(field.data_type());
            let expr = Expr::Column(column.clone());
            if ty == *field.data_type() || matches!(plan, LogicalPlan::Statement(_)) {
                return expr;
            }
            let cast = typing::canonical_cast(expr, field.data_type(), &ty);
            cast.alias_qualified(column.relation, column.name)
        });
    let exprs: Vec<Expr> = exprs.collect();
    let projected = LogicalPlanBuilder::from(plan).project(exprs);
    projected.and_then(|b| b.build()).map_err(from_df)
}

/// Fixes the types of parameters: the hint, else what the context asked for, else text.
fn settle_params(
    plan: LogicalPlan,
    hints: &[Option<DataType>],
) -> Result<(LogicalPlan, Vec<DataType>)> {
    let found = plan.get_parameter_types().map_err(from_df)?;
    if found.is_empty() && hints.is_empty() {
        return Ok((plan, vec![]));
    }
    let mut types: BTreeMap<usize, DataType> = BTreeMap::new();
    for (id, ty) in found {
        let Some(number) = id.strip_prefix('$').and_then(|n| n.parse::<usize>().ok()) else {
            let message = format!("parameter {id} is not supported: write $1, $2 …");
            return Err(Error::new(ErrorKind::Syntax, message));
        };
        let hint = hints.get(number.wrapping_sub(1)).cloned().flatten();
        let ty = hint.or(ty).unwrap_or(DataType::Utf8);
        types.insert(number, canonical(&ty));
    }
    let count = types.keys().max().copied().unwrap_or(0).max(hints.len());
    let all = (1..=count).map(|number| {
        let hint = hints.get(number - 1).cloned().flatten();
        types
            .get(&number)
            .cloned()
            .or(hint)
            .unwrap_or(DataType::Utf8)
    });
    let all: Vec<DataType> = all.collect();
    let typed = plan.transform_up_with_subqueries(|node| {
        let typed =
            node.map_expressions(|expr| expr.transform_up(|e| Ok(with_param_type(e, &all))))?;
        typed.map_data(LogicalPlan::recompute_schema)
    });
    Ok((typed.map_err(from_df)?.data, all))
}

fn with_param_type(expr: Expr, types: &[DataType]) -> Transformed<Expr> {
    match expr {
        Expr::Placeholder(Placeholder { id, field: None }) => {
            let number = id.trim_start_matches('$').parse::<usize>().unwrap_or(0);
            let ty = types
                .get(number.wrapping_sub(1))
                .cloned()
                .unwrap_or(DataType::Utf8);
            let field = Some(Arc::new(Field::new("", ty, true)));
            Transformed::yes(Expr::Placeholder(Placeholder { id, field }))
        }
        other => Transformed::no(other),
    }
}
