//! Queries that run once, over batches that the caller has read at one time.
//!
//! Binding happens once; execution puts parameters and batches in place of placeholders and
//! scans and lets DataFusion optimise and run the rest, so ad-hoc SQL is as wide as DataFusion's.

mod frugal;
mod memory;

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::datasource::{MemTable, provider_as_source};
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::execution::{SessionStateDefaults, TaskContext};
use datafusion::logical_expr::expr::Placeholder;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::logical_plan::TableScan;
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{BinaryExpr, Expr, LogicalPlan, Operator};
use datafusion::optimizer::Optimizer;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use datafusion::prelude::SessionConfig;
use futures::StreamExt;
use ruslo_repr::row::batch_of;
use ruslo_repr::{Error, ErrorKind, ObjectId, Result, Schema};

use self::frugal::{FrugalJoins, FrugalSorts};
pub use self::memory::QueryMemory;
use self::memory::Share;
pub(crate) use self::memory::out_of_memory;
use crate::ast::Query;
use crate::bind::{Bound, Purpose, RelationSource, bind};
use crate::catalog::{Catalog, Relation, SessionContext};
use crate::error::{from_df, to_df};
use crate::stack::{Deep, OnDeepStack, deep};

/// A bound query: knows what it reads, takes and gives.
pub struct SelectPlan {
    plan: Deep<LogicalPlan>,
    inputs: Vec<Arc<Relation>>,
    schema: Schema,
    params: Vec<DataType>,
    time_zone: String,
    lookups: HashMap<ObjectId, Vec<KeyPart>>,
}

/// What one key column of an input must equal.
#[derive(Clone, Debug)]
enum KeyPart {
    Value(ScalarValue),
    /// The parameter at this position, counted from zero.
    Param(usize),
}

/// DataFusion's state for one-time queries: one partition, nothing registered, and no analysis,
/// because plans come here bound.
pub(crate) fn base_state() -> &'static SessionState {
    static BASE: OnceLock<SessionState> = OnceLock::new();
    BASE.get_or_init(|| {
        let config = SessionConfig::new()
            // A join looks for a cancel every 128 batches: small ones keep that prompt.
            .with_batch_size(1024)
            .with_target_partitions(1)
            .with_create_default_catalog_and_schema(false)
            .with_information_schema(false);
        // It computes sum(x) beside count(DISTINCT y) in two steps, but the second by DataFusion's
        // rules of what a sum's type is.
        let mut rules = Optimizer::new().rules;
        rules.retain(|rule| rule.name() != "single_distinct_aggregation_to_group_by");
        SessionStateBuilder::new()
            .with_config(config)
            .with_optimizer_rules(rules)
            .with_analyzer_rules(vec![])
            // DISTINCT ON becomes an aggregation by first_value, which is looked up here.
            .with_aggregate_functions(SessionStateDefaults::default_aggregate_functions())
            .build()
    })
}

/// The same for a query that had too little memory for what usually is fastest.
fn frugal_state() -> &'static SessionState {
    static FRUGAL: OnceLock<SessionState> = OnceLock::new();
    FRUGAL.get_or_init(|| {
        let mut rules = base_state().physical_optimizers().to_vec();
        rules.insert(0, Arc::new(FrugalJoins));
        rules.push(Arc::new(FrugalSorts));
        // Of long rows a few fill a batch, and merging takes several batches of each run.
        let config = base_state().config().clone().with_batch_size(128);
        SessionStateBuilder::new_from_existing(base_state().clone())
            .with_config(config)
            .with_physical_optimizer_rules(rules)
            .build()
    })
}

impl std::fmt::Debug for SelectPlan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let inputs = self.inputs.iter().map(|relation| &relation.name);
        f.debug_struct("SelectPlan")
            .field("inputs", &inputs.collect::<Vec<_>>())
            .field("schema", &self.schema)
            .field("params", &self.params)
            .finish_non_exhaustive()
    }
}

/// Lets joins give way now and then: one that makes a million rows of each row it reads would
/// else compute on, deaf to a cancel, between two looks at its input.
fn cooperative(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    let wrapped = plan.transform_up(|node| match node.name().contains("Join") {
        true => Ok(Transformed::yes(Arc::new(CooperativeExec::new(node)) as _)),
        false => Ok(Transformed::no(node)),
    });
    Ok(wrapped.map_err(from_df)?.data)
}

/// Binds a query. `hints` are parameter types the client has fixed.
pub fn plan_select(
    query: &Query,
    catalog: &dyn Catalog,
    session: &SessionContext,
    hints: &[Option<DataType>],
) -> Result<SelectPlan> {
    deep(|| {
        let bound = bind(query, catalog, session, Purpose::Once, hints)?;
        Ok(SelectPlan::new(bound, session))
    })
}

impl SelectPlan {
    pub(crate) fn new(bound: Bound, session: &SessionContext) -> SelectPlan {
        SelectPlan {
            lookups: find_lookups(&bound),
            plan: Deep::new(bound.plan),
            inputs: bound.relations,
            schema: bound.schema,
            params: bound.params,
            time_zone: session.time_zone.clone(),
        }
    }

    /// Every source, table, view and system relation it reads, each once.
    pub fn inputs(&self) -> &[Arc<Relation>] {
        &self.inputs
    }

    pub fn schema(&self) -> &Schema {
        &self.schema
    }

    /// The types of `$1`, `$2` ….
    pub fn param_types(&self) -> &[DataType] {
        &self.params
    }

    /// The optimised plan as DataFusion prints it, a line per node, for EXPLAIN of a query.
    pub fn explain(&self) -> Result<Vec<String>> {
        deep(|| self.explain_deep())
    }

    fn explain_deep(&self) -> Result<Vec<String>> {
        let plan = self.with_inputs((*self.plan).clone(), &mut HashMap::new())?;
        let plan = self
            .state(base_state(), 0)
            .optimize(&plan)
            .map_err(from_df)?;
        let text = plan.display_indent().to_string();
        Ok(text
            .lines()
            .map(|line| line.replace('\u{1}', "#"))
            .collect())
    }

    /// For an input that is only read where key columns equal constants: arrays of length one,
    /// one per column of [`Relation::key`], in the column's type.
    pub fn key_lookup(&self, input: ObjectId, params: &[ArrayRef]) -> Option<Vec<ArrayRef>> {
        let parts = self.lookups.get(&input)?.iter();
        let parts = parts.map(|part| match part {
            KeyPart::Value(value) => value.to_array().ok(),
            KeyPart::Param(position) => params.get(*position).cloned(),
        });
        parts.collect()
    }

    /// Runs it. `inputs` has batches of all columns (also hidden ones) for every input; one that
    /// is missing counts as empty. `params` are arrays of length one in the types of
    /// [`SelectPlan::param_types`].
    ///
    /// Must run inside a tokio runtime. Dropping the future cancels the query.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::OutOfMemory`] where it needs more than `memory` has for it.
    pub async fn execute(
        &self,
        inputs: HashMap<ObjectId, Vec<RecordBatch>>,
        params: &[ArrayRef],
        memory: &QueryMemory,
    ) -> Result<Vec<RecordBatch>> {
        OnDeepStack::new(self.execute_deep(inputs, params, memory)).await
    }

    async fn execute_deep(
        &self,
        mut inputs: HashMap<ObjectId, Vec<RecordBatch>>,
        params: &[ArrayRef],
        memory: &QueryMemory,
    ) -> Result<Vec<RecordBatch>> {
        let plan = self.with_params((*self.plan).clone(), params)?;
        let plan = self.with_inputs(plan, &mut inputs)?;
        let share = memory.share();
        match self.run(&plan, base_state(), &share).await {
            Err(error) if error.kind == ErrorKind::OutOfMemory => {
                self.run(&plan, frugal_state(), &share).await
            }
            done => done,
        }
    }

    async fn run(
        &self,
        plan: &LogicalPlan,
        state: &SessionState,
        share: &Share,
    ) -> Result<Vec<RecordBatch>> {
        let state = self.state(state, share.to_merge());
        let plan = state.create_physical_plan(plan).await.map_err(from_df)?;
        let context = TaskContext::from(&state).with_runtime(share.runtime.clone());
        let mut rows = execute_stream(cooperative(plan)?, Arc::new(context)).map_err(from_df)?;
        let mut results = share.results();
        while let Some(batch) = share.bound(rows.next()).await? {
            results.push(self.output(batch.map_err(from_df)?)?)?;
        }
        Ok(results.finish())
    }

    /// `base` with what this query sets; a sort keeps `to_merge` bytes.
    fn state(&self, base: &SessionState, to_merge: usize) -> SessionState {
        let mut state = base.clone();
        let options = &mut state.config_mut().options_mut().execution;
        options.time_zone = Some(self.time_zone.clone());
        options.sort_spill_reservation_bytes = to_merge;
        state
    }

    fn with_params(&self, plan: LogicalPlan, params: &[ArrayRef]) -> Result<LogicalPlan> {
        if params.len() != self.params.len() {
            let message = format!(
                "the query has {} parameters, but {} were given",
                self.params.len(),
                params.len()
            );
            return Err(Error::new(ErrorKind::InvalidParameter, message));
        }
        if params.is_empty() {
            return Ok(plan);
        }
        let values = params.iter().zip(&self.params).map(|(param, ty)| {
            let param = cast_if_needed(param, ty)?;
            ScalarValue::try_from_array(&param, 0).map_err(from_df)
        });
        let values = values.collect::<Result<Vec<_>>>()?;
        let value_of = |expr: Expr| {
            let Expr::Placeholder(placeholder) = &expr else {
                return Ok(Transformed::no(expr));
            };
            let value = param_position(placeholder).and_then(|i| values.get(i));
            let value = value.ok_or_else(|| {
                let message = format!("there is no parameter {}", placeholder.id);
                to_df(Error::new(ErrorKind::InvalidParameter, message))
            })?;
            Ok(Transformed::yes(Expr::Literal(value.clone(), None)))
        };
        let filled = plan.transform_up_with_subqueries(|node| {
            let names = NamePreserver::new(&node);
            let filled = node.map_expressions(|expr| {
                let name = names.save(&expr);
                let filled = expr.transform_up(value_of)?;
                Ok(filled.update_data(|expr| name.restore(expr)))
            })?;
            filled.map_data(LogicalPlan::recompute_schema)
        });
        Ok(filled.map_err(from_df)?.data)
    }

    /// Puts tables of the given batches in the place of relations.
    fn with_inputs(
        &self,
        plan: LogicalPlan,
        inputs: &mut HashMap<ObjectId, Vec<RecordBatch>>,
    ) -> Result<LogicalPlan> {
        let filled = plan.transform_up_with_subqueries(|node| {
            let LogicalPlan::TableScan(mut scan) = node else {
                return Ok(Transformed::no(node));
            };
            let Some(source) = scan.source.downcast_ref::<RelationSource>() else {
                return Ok(Transformed::no(LogicalPlan::TableScan(scan)));
            };
            scan.source = match inputs.get(&source.relation.id) {
                None => source.empty(),
                Some(batches) => {
                    let schema = datafusion::logical_expr::TableSource::schema(source);
                    let visible: Vec<usize> = (0..schema.fields().len()).collect();
                    let batches = batches.iter().map(|batch| {
                        let batch = batch.project(&visible)?;
                        let (_, columns, rows) = batch.into_parts();
                        let options = arrow::array::RecordBatchOptions::new();
                        let options = options.with_row_count(Some(rows));
                        RecordBatch::try_new_with_options(schema.clone(), columns, &options)
                    });
                    let batches = batches.collect::<Result<Vec<_>, _>>()?;
                    let table = MemTable::try_new(schema.clone(), vec![batches])?;
                    provider_as_source(Arc::new(table))
                }
            };
            Ok(Transformed::yes(LogicalPlan::TableScan(scan)))
        });
        Ok(filled.map_err(from_df)?.data)
    }

    /// A result batch under the names and in the types that were announced.
    fn output(&self, batch: RecordBatch) -> Result<RecordBatch> {
        let (_, columns, rows) = batch.into_parts();
        let columns = columns.iter().zip(&self.schema.columns);
        let columns = columns.map(|(array, column)| cast_if_needed(array, &column.ty));
        batch_of(&self.schema, columns.collect::<Result<_>>()?, rows)
    }
}

fn cast_if_needed(array: &ArrayRef, ty: &DataType) -> Result<ArrayRef> {
    match array.data_type() == ty {
        true => Ok(array.clone()),
        false => Ok(cast(array, ty)?),
    }
}

fn param_position(placeholder: &Placeholder) -> Option<usize> {
    let number: usize = placeholder.id.strip_prefix('$')?.parse().ok()?;
    number.checked_sub(1)
}

/// Inputs that are read once, under a filter that fixes every key column.
fn find_lookups(bound: &Bound) -> HashMap<ObjectId, Vec<KeyPart>> {
    let mut found: HashMap<ObjectId, Option<Vec<KeyPart>>> = HashMap::new();
    visit_scans(&bound.plan, &mut vec![], &mut |scan, filters| {
        let Some(source) = scan.source.downcast_ref::<RelationSource>() else {
            return;
        };
        let parts = key_parts(&source.relation, filters);
        let entry = found.entry(source.relation.id);
        // A second reader may need other rows, so two readers get the whole relation.
        entry.and_modify(|known| *known = None).or_insert(parts);
    });
    found
        .into_iter()
        .filter_map(|(id, parts)| Some((id, parts?)))
        .collect()
}

type OnScan<'f> = dyn FnMut(&TableScan, &[Expr]) + 'f;

/// Calls `on_scan` for each scan with the filters that stand directly above it.
fn visit_scans(plan: &LogicalPlan, filters: &mut Vec<Expr>, on_scan: &mut OnScan<'_>) {
    match plan {
        LogicalPlan::TableScan(scan) => on_scan(scan, filters),
        LogicalPlan::Filter(filter) => {
            filters.extend(split_conjunction(&filter.predicate).into_iter().cloned());
            visit_scans(&filter.input, filters, on_scan);
        }
        LogicalPlan::SubqueryAlias(alias) => visit_scans(&alias.input, filters, on_scan),
        other => other
            .inputs()
            .into_iter()
            .for_each(|input| visit_scans(input, &mut vec![], on_scan)),
    }
    // Subqueries inside expressions read relations too.
    let _ = plan.apply_subqueries(|subquery| {
        visit_scans(subquery, &mut vec![], on_scan);
        Ok(datafusion::common::tree_node::TreeNodeRecursion::Continue)
    });
}

fn key_parts(relation: &Relation, filters: &[Expr]) -> Option<Vec<KeyPart>> {
    if relation.key.is_empty() {
        return None;
    }
    let part = |&column: &usize| {
        let column = &relation.schema.columns[column];
        filters.iter().find_map(|filter| {
            let Expr::BinaryExpr(BinaryExpr { left, op, right }) = filter else {
                return None;
            };
            if *op != Operator::Eq {
                return None;
            }
            let is_column = |e: &Expr| matches!(e, Expr::Column(c) if c.name == column.name);
            let value = match (is_column(left), is_column(right)) {
                (true, false) => right,
                (false, true) => left,
                _ => return None,
            };
            match value.as_ref() {
                Expr::Literal(value, _) if value.data_type() == column.ty => {
                    Some(KeyPart::Value(value.clone()))
                }
                Expr::Placeholder(placeholder) => {
                    let ty = placeholder.field.as_ref()?.data_type();
                    (*ty == column.ty)
                        .then(|| param_position(placeholder).map(KeyPart::Param))
                        .flatten()
                }
                _ => None,
            }
        })
    };
    relation.key.iter().map(part).collect()
}
