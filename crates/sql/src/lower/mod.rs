//! A view's query as a `repr::Plan`.
//!
//! ```text
//!   LogicalPlan ── optimizer.rs ──> LogicalPlan ── lower ──> Lowered { plan, schema }
//!      (bound)     rules that keep     (joins have keys,       aggregate.rs, join.rs, expr.rs
//!                  plans incremental    subqueries are joins)
//! ```
//!
//! A lowered node's columns stand where the logical node's fields stand, in types of
//! `repr::schema` only; expressions are compiled against those types, not DataFusion's.

mod aggregate;
mod expr;
mod join;
mod key;
mod optimizer;
mod simplify;

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema as ArrowSchema};
use datafusion::common::DFSchema;
use datafusion::logical_expr::logical_plan::{
    Distinct, EmptyRelation, Filter, Projection, TableScan, Union, Values,
};
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{Expr as DfExpr, LogicalPlan};
use ruslo_repr::{Column, Error, ErrorKind, Expr, Plan, Result, RowCodec, Schema};

use crate::ast::Query;
use crate::bind::{Bound, Purpose, RelationSource, bind, canonical, names};
use crate::catalog::{Catalog, RelationKind, SessionContext};
use crate::error::from_df;
use crate::stack::deep;
pub(crate) use expr::decode_expr;
use expr::{column, lower_expr, renamed};

/// How a view is computed, and what is known of its rows.
#[derive(Clone, Debug)]
pub struct ViewPlan {
    pub plan: Plan,
    pub schema: Schema,
    /// Columns that tell rows apart: group keys, a primary key passed through; else all columns.
    /// Empty for a view of exactly one row.
    pub key: Vec<usize>,
    /// Whether no two rows have the same key.
    pub key_is_unique: bool,
    /// Rows are only ever added.
    pub append_only: bool,
}

impl ViewPlan {
    /// The same view with its columns renamed, as `CREATE VIEW v (a, b) AS …` asks.
    pub fn with_columns(mut self, columns: &[String]) -> Result<ViewPlan> {
        if columns.len() > self.schema.len() {
            let message = "CREATE VIEW specifies more column names than columns";
            return Err(Error::new(ErrorKind::Syntax, message));
        }
        for (column, name) in self.schema.columns.iter_mut().zip(columns) {
            column.name = name.clone();
        }
        check_names(&self.schema)?;
        self.plan = simplify::with_schema(self.plan, &self.schema)?;
        Ok(self)
    }
}

/// Binds, optimises and lowers the query of a materialized view.
pub fn plan_view(
    query: &Query,
    catalog: &dyn Catalog,
    session: &SessionContext,
) -> Result<ViewPlan> {
    deep(|| plan_bound(bind(query, catalog, session, Purpose::View, &[])?))
}

fn plan_bound(bound: Bound) -> Result<ViewPlan> {
    if !bound.params.is_empty() {
        let message = "a view's query cannot have parameters";
        return Err(Error::new(ErrorKind::InvalidParameter, message));
    }
    check_names(&bound.schema)?;
    let plan = optimizer::optimize(bound.plan)?;
    optimizer::check_volatile(&plan)?;
    let lowered = lower(&plan)?;
    let plan = simplify::simplify(renamed(lowered, &bound.schema)?)?;
    let relation = |id| bound.relations.iter().find(|r| r.id == id);
    let unique = key::unique_key(&plan, &|id| relation(id).map(|r| r.key.clone()));
    let append_only = key::is_append_only(&plan, &|id| relation(id).is_some_and(|r| r.append_only));
    let key_is_unique = unique.is_some();
    let schema = plan.schema().clone();
    Ok(ViewPlan {
        key: unique.unwrap_or_else(|| (0..schema.len()).collect()),
        key_is_unique,
        append_only,
        schema,
        plan,
    })
}

/// A view's columns need names of their own.
fn check_names(schema: &Schema) -> Result<()> {
    for (i, column) in schema.columns.iter().enumerate() {
        if schema.columns[..i]
            .iter()
            .any(|other| other.name == column.name)
        {
            return Err(crate::parse::duplicate_column(&column.name)
                .with_hint("Give one of the columns another name with AS."));
        }
    }
    Ok(())
}

/// A plan, and its columns under the names by which expressions above refer to them.
pub(crate) struct Lowered {
    pub(crate) plan: Plan,
    pub(crate) schema: DFSchema,
}

impl Lowered {
    /// Takes over the names of a logical node's schema and the types of the lowered plan's.
    fn new(plan: Plan, names: &DFSchema) -> Result<Lowered> {
        let types = plan.schema().types();
        let schema = schema_of(names, &types)?;
        Ok(Lowered { plan, schema })
    }

    fn width(&self) -> usize {
        self.plan.schema().len()
    }
}

/// The qualified names of `names` with other types.
fn schema_of(names: &DFSchema, types: &[DataType]) -> Result<DFSchema> {
    let fields = names.iter().zip(types).map(|((qualifier, field), ty)| {
        let field = Field::new(field.name(), ty.clone(), true);
        (qualifier.cloned(), Arc::new(field))
    });
    DFSchema::new_with_metadata(fields.collect(), Default::default()).map_err(from_df)
}

/// The columns of a logical node in types of ours.
fn columns_of(schema: &DFSchema) -> Schema {
    let fields = schema.fields().iter();
    Schema::new(fields.map(|f| {
        let name = names::shown(f.name()).to_string();
        (name, canonical(f.data_type()))
    }))
}

pub(crate) fn lower(plan: &LogicalPlan) -> Result<Lowered> {
    match plan {
        LogicalPlan::TableScan(scan) => lower_scan(scan),
        LogicalPlan::Projection(projection) => lower_projection(projection),
        LogicalPlan::Filter(filter) => lower_filter(filter),
        LogicalPlan::Aggregate(node) => aggregate::lower_aggregate(node),
        LogicalPlan::Join(node) => join::lower_join(node),
        LogicalPlan::Distinct(Distinct::All(input)) => {
            let input = lower(input)?;
            if key::unique_key(&input.plan, &|_| None).is_some() {
                return Ok(input);
            }
            Ok(Lowered {
                plan: Plan::Distinct {
                    input: Box::new(input.plan),
                },
                schema: input.schema,
            })
        }
        LogicalPlan::Union(union) => lower_union(union),
        LogicalPlan::SubqueryAlias(alias) => {
            let input = lower(&alias.input)?;
            Lowered::new(input.plan, &alias.schema)
        }
        LogicalPlan::Values(values) => lower_values(values),
        LogicalPlan::EmptyRelation(empty) => lower_empty(empty),
        // The order of a view's rows means nothing: who reads the view orders them.
        LogicalPlan::Sort(sort) if sort.fetch.is_none() => lower(&sort.input),
        other => Err(unsupported_node(other)),
    }
}

fn unsupported_node(plan: &LogicalPlan) -> Error {
    let (what, hint) = match plan {
        LogicalPlan::Sort(_) | LogicalPlan::Limit(_) => (
            "LIMIT is",
            "Leave it out here and say it in the query that reads the view.",
        ),
        LogicalPlan::Window(_) => (
            "window functions (OVER) are",
            "Use the window function in a query on the view, or GROUP BY with a join.",
        ),
        LogicalPlan::Distinct(_) => (
            "DISTINCT ON is",
            "Use GROUP BY with min or max, or DISTINCT ON in a query on the view.",
        ),
        LogicalPlan::Unnest(_) => ("UNNEST is", "Use it in a query on the view."),
        LogicalPlan::RecursiveQuery(_) => ("WITH RECURSIVE is", "Use it in a query on the view."),
        LogicalPlan::Subquery(_) => (
            "this correlated subquery is",
            "Write it as a join with GROUP BY.",
        ),
        _ => (
            "this query is",
            "Write it with joins, GROUP BY and UNION ALL.",
        ),
    };
    Error::unsupported(format!("{what} not supported in a view yet")).with_hint(hint)
}

fn lower_scan(scan: &TableScan) -> Result<Lowered> {
    let Some(source) = scan.source.downcast_ref::<RelationSource>() else {
        return Err(Error::internal("a scan of something that is no relation"));
    };
    let relation = &source.relation;
    let visible = relation.schema.len().saturating_sub(relation.hidden);
    let columns = match &scan.projection {
        Some(projection) => projection.clone(),
        None => (0..visible).collect(),
    };
    let schema = relation.schema.project(&columns);
    let id = relation.id;
    let plan = match relation.kind {
        RelationKind::Source => Plan::Source {
            id,
            columns,
            schema,
        },
        _ => {
            let whole = Plan::Get {
                id,
                schema: relation.schema.clone(),
            };
            if columns.len() == relation.schema.len() {
                whole
            } else {
                let outputs = columns.iter().map(|&i| column(i, &relation.schema));
                Plan::Map {
                    outputs: outputs.collect::<Result<_>>()?,
                    input: Box::new(whole),
                    filters: vec![],
                    schema,
                }
            }
        }
    };
    Lowered::new(plan, &scan.projected_schema)
}

/// Projection over any number of filters becomes one Map: filters leave the schema as it is.
fn lower_projection(projection: &Projection) -> Result<Lowered> {
    let (filters, input) = peel_filters(&projection.input);
    let input = lower(input)?;
    let outputs = projection.expr.iter().map(|e| lower_expr(e, &input));
    let outputs = outputs.collect::<Result<Vec<_>>>()?;
    let filters = lower_filters(&filters, &input)?;
    let fields = columns_of(&projection.schema).columns;
    let columns = fields
        .into_iter()
        .zip(&outputs)
        .map(|(field, output)| Column {
            name: field.name,
            ty: output.ty.clone(),
        });
    let plan = Plan::Map {
        schema: Schema {
            columns: columns.collect(),
        },
        input: Box::new(input.plan),
        filters,
        outputs,
    };
    Lowered::new(plan, &projection.schema)
}

fn peel_filters(plan: &LogicalPlan) -> (Vec<&DfExpr>, &LogicalPlan) {
    let mut filters = vec![];
    let mut input = plan;
    while let LogicalPlan::Filter(filter) = input {
        filters.extend(split_conjunction(&filter.predicate));
        input = &filter.input;
    }
    (filters, input)
}

fn lower_filters(filters: &[&DfExpr], input: &Lowered) -> Result<Vec<Expr>> {
    let filters = filters.iter().map(|filter| {
        let filter = lower_expr(filter, input)?;
        match filter.ty {
            DataType::Boolean => Ok(filter),
            _ => Err(Error::internal("a filter that is not boolean")),
        }
    });
    filters.collect()
}

fn lower_filter(filter: &Filter) -> Result<Lowered> {
    let mut filters: Vec<&DfExpr> = split_conjunction(&filter.predicate);
    let (below, input) = peel_filters(&filter.input);
    filters.extend(below);
    let input = lower(input)?;
    let filters = lower_filters(&filters, &input)?;
    let schema = input.plan.schema().clone();
    let outputs = (0..schema.len()).map(|i| column(i, &schema));
    Ok(Lowered {
        plan: Plan::Map {
            outputs: outputs.collect::<Result<_>>()?,
            input: Box::new(input.plan),
            filters,
            schema,
        },
        schema: input.schema,
    })
}

fn lower_union(union: &Union) -> Result<Lowered> {
    let schema = columns_of(&union.schema);
    let inputs = union.inputs.iter().map(|input| {
        let input = lower(input)?;
        expr::cast_columns(input, &schema)
    });
    let plan = Plan::Union {
        inputs: inputs.collect::<Result<_>>()?,
        schema,
    };
    Lowered::new(plan, &union.schema)
}

/// Rows are computed here and now: their expressions are constant.
fn lower_values(values: &Values) -> Result<Lowered> {
    let schema = columns_of(&values.schema);
    let types = schema.types();
    let codec = RowCodec::new(&types)?;
    let empty = DFSchema::try_from(ArrowSchema::empty()).map_err(from_df)?;
    let mut rows = vec![];
    for row in &values.values {
        let cells = row
            .iter()
            .zip(&types)
            .map(|(e, ty)| expr::constant(e, &empty, ty));
        let cells = cells.collect::<Result<Vec<_>>>()?;
        rows.push(codec.encode(&cells, 1)?.row(0).to_vec());
    }
    Lowered::new(Plan::Values { rows, schema }, &values.schema)
}

fn lower_empty(empty: &EmptyRelation) -> Result<Lowered> {
    let schema = columns_of(&empty.schema);
    let rows = match empty.produce_one_row {
        true => vec![vec![]],
        false => vec![],
    };
    Lowered::new(Plan::Values { rows, schema }, &empty.schema)
}
