//! GROUP BY: a Map that computes keys, arguments and filters, and a Reduce over its columns.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::logical_expr::expr::AggregateFunction as DfAggregate;
use datafusion::logical_expr::logical_plan::Aggregate as AggregateNode;
use datafusion::logical_expr::{Expr as DfExpr, ExprSchemable};
use datafusion::physical_expr::aggregate::AggregateExprBuilder;
use datafusion::physical_expr::{PhysicalExpr, PhysicalSortExpr};
use datafusion::physical_plan::expressions::Column as PhysicalColumn;
use datafusion_proto::physical_plan::DefaultPhysicalProtoConverter;
use datafusion_proto::physical_plan::to_proto::serialize_physical_aggr_expr;
use prost::Message;
use ruslo_repr::schema::{JSONB, NUMERIC};
use ruslo_repr::{Aggregate, AggregateFunction, Column, Error, Expr, Plan, Result, Schema};

use super::expr::{lower_expr, text_over};
use super::{Lowered, lower};
use crate::bind::canonical;
use crate::bind::registry::Codec;
use crate::error::from_df;
use crate::functions::{ALIKE, key_form};

pub(super) fn lower_aggregate(node: &AggregateNode) -> Result<Lowered> {
    let input = lower(&node.input)?;
    let mut columns = InputColumns::new(input);
    let mut keys = vec![];
    for key in &node.group_expr {
        if matches!(key.clone().unalias(), DfExpr::GroupingSet(_)) {
            let message = "GROUPING SETS, ROLLUP and CUBE are not supported in a view yet";
            return Err(Error::unsupported(message)
                .with_hint("Write one GROUP BY for each set and join them with UNION ALL."));
        }
        keys.push(columns.add(key)?);
    }
    let mut aggregates = vec![];
    for aggregate in &node.aggr_expr {
        let DfExpr::AggregateFunction(function) = aggregate.clone().unalias() else {
            return Err(Error::internal("an aggregate that is no function"));
        };
        aggregates.push(lower_function(&function, &keys, &mut columns)?);
    }
    let schema = output_schema(&keys, &columns, &aggregates);
    let (plan, keys, aggregates) = columns.into_map(keys, aggregates)?;
    let plan = Plan::Reduce {
        input: Box::new(plan),
        keys,
        aggregates,
        schema,
    };
    Lowered::new(plan, &node.schema)
}

/// Keys under their columns' names, aggregates under their text.
fn output_schema(keys: &[usize], columns: &InputColumns, aggregates: &[Aggregate]) -> Schema {
    let keys = keys.iter().map(|&key| {
        let (expr, name) = &columns.outputs[key];
        (name.clone(), expr.ty.clone())
    });
    let aggregates = aggregates.iter().map(|a| (a.text.clone(), a.ty.clone()));
    Schema::new(keys.chain(aggregates))
}

/// The columns that the Reduce will read, each computed once.
struct InputColumns {
    input: Lowered,
    /// Expression over the input, and the column's name.
    outputs: Vec<(Expr, String)>,
}

impl InputColumns {
    fn new(input: Lowered) -> Self {
        let outputs = vec![];
        InputColumns { input, outputs }
    }

    /// The position of the column for this expression.
    fn add(&mut self, expr: &DfExpr) -> Result<usize> {
        let lowered = lower_expr(expr, &self.input)?;
        if let Some(known) = self.position(&lowered) {
            return Ok(known);
        }
        let name = lowered.text.clone();
        self.outputs.push((lowered, name));
        Ok(self.outputs.len() - 1)
    }

    /// The position of a column that is computed already.
    fn position(&self, lowered: &Expr) -> Option<usize> {
        let mut outputs = self.outputs.iter();
        outputs.position(|(known, _)| known.code == lowered.code)
    }

    fn text(&self, expr: &DfExpr) -> Result<String> {
        text_over(expr, &self.input.schema, self.input.plan.schema())
    }

    /// The Reduce's input: the lowered input itself when all its columns are plain, else a Map.
    fn into_map(
        self,
        keys: Vec<usize>,
        mut aggregates: Vec<Aggregate>,
    ) -> Result<(Plan, Vec<usize>, Vec<Aggregate>)> {
        let plain: Option<Vec<usize>> = self.outputs.iter().map(|(e, _)| e.column).collect();
        if let Some(plain) = plain {
            let place = |position: usize| plain[position];
            for aggregate in &mut aggregates {
                aggregate.args.iter_mut().for_each(|arg| *arg = place(*arg));
                aggregate.filter = aggregate.filter.map(place);
            }
            let keys = keys.into_iter().map(place).collect();
            return Ok((self.input.plan, keys, aggregates));
        }
        let columns = self.outputs.iter().map(|(expr, name)| Column {
            name: name.clone(),
            ty: expr.ty.clone(),
        });
        let schema = Schema {
            columns: columns.collect(),
        };
        let plan = Plan::Map {
            input: Box::new(self.input.plan),
            filters: vec![],
            outputs: self.outputs.into_iter().map(|(expr, _)| expr).collect(),
            schema,
        };
        Ok((plan, keys, aggregates))
    }
}

fn lower_function(
    call: &DfAggregate,
    keys: &[usize],
    columns: &mut InputColumns,
) -> Result<Aggregate> {
    let returns = DfExpr::AggregateFunction(call.clone());
    let returns = returns.get_type(&columns.input.schema).map_err(from_df)?;
    let ty = canonical(&returns);
    let params = &call.params;
    let mut text = columns.text(&DfExpr::AggregateFunction(call.clone()))?;
    let counts_rows = call.func.name() == "count" && params.args.iter().all(is_constant);
    if counts_rows {
        text = text.replace("count(1)", "count(*)");
    }
    let arg_type = match params.args.first() {
        Some(arg) if !counts_rows => {
            let ty = arg.get_type(&columns.input.schema).map_err(from_df)?;
            Some(canonical(&ty))
        }
        _ => None,
    };
    let mut args = vec![];
    let known = match call.func.name() {
        ALIKE => Some(alike(call, keys, columns)?),
        _ => known_function(call, arg_type.as_ref(), &ty),
    };
    let function = match known {
        Some(function) => {
            for arg in params.args.iter().filter(|_| !counts_rows) {
                args.push(columns.add(arg)?);
            }
            function
        }
        None => other_function(call, &mut args, columns, &returns)?,
    };
    let filter = match &params.filter {
        Some(filter) => Some(columns.add(filter)?),
        None => None,
    };
    Ok(Aggregate {
        function,
        args,
        distinct: params.distinct && !counts_rows,
        filter,
        ty,
        text,
    })
}

/// `count(*)` arrives as the count of a constant that is not NULL.
fn is_constant(arg: &DfExpr) -> bool {
    matches!(arg, DfExpr::Literal(value, _) if !value.is_null() && *value != ScalarValue::Null)
}

/// What is shown of a numeric key; of a numeric that is no key, its maximum is the same.
fn alike(call: &DfAggregate, keys: &[usize], columns: &InputColumns) -> Result<AggregateFunction> {
    let key = match call.params.args.first() {
        Some(arg) => {
            let key = key_form(arg.clone(), &NUMERIC);
            columns.position(&lower_expr(&key, &columns.input)?)
        }
        None => None,
    };
    let key = key.and_then(|column| keys.iter().position(|key| *key == column));
    Ok(
        key.map_or(AggregateFunction::Max, |key| AggregateFunction::Alike {
            key,
        }),
    )
}

/// The functions that dataflow computes by adding up or by order, for the types it knows.
fn known_function(
    call: &DfAggregate,
    arg: Option<&DataType>,
    ty: &DataType,
) -> Option<AggregateFunction> {
    let Some(arg) = arg else {
        return (call.func.name() == "count").then_some(AggregateFunction::Count);
    };
    if call.params.args.len() != 1 {
        return None;
    }
    let float = matches!(arg, DataType::Float32 | DataType::Float64);
    let small = matches!(arg, DataType::Int16 | DataType::Int32);
    let exact = small || *arg == DataType::Int64 || *arg == NUMERIC;
    match call.func.name() {
        "count" => Some(AggregateFunction::Count),
        "sum" if small && *ty == DataType::Int64 => Some(AggregateFunction::Sum),
        "sum" if exact && !small && *ty == NUMERIC => Some(AggregateFunction::Sum),
        "sum" if float && ty == arg => Some(AggregateFunction::Sum),
        "avg" if exact && *ty == NUMERIC => Some(AggregateFunction::Avg),
        "avg" if float && *ty == DataType::Float64 => Some(AggregateFunction::Avg),
        "min" if ty == arg && *arg != JSONB => Some(AggregateFunction::Min),
        "max" if ty == arg && *arg != JSONB => Some(AggregateFunction::Max),
        _ => None,
    }
}

/// Any other function: its code reads `c0`, `c1` … in the order of `args`, to which the columns
/// of its ORDER BY are added.
fn other_function(
    call: &DfAggregate,
    args: &mut Vec<usize>,
    columns: &mut InputColumns,
    returns: &DataType,
) -> Result<AggregateFunction> {
    if *returns != canonical(returns) {
        let name = call.func.name();
        return Err(Error::unsupported(format!(
            "the aggregate {name} gives a type that views do not support yet"
        )));
    }
    let mut order_by = vec![];
    let mut exprs: Vec<Arc<dyn PhysicalExpr>> = vec![];
    for arg in &call.params.args {
        // A constant argument (a percentile, a separator) is part of the function.
        if matches!(arg, DfExpr::Literal(..)) {
            exprs.push(super::expr::physical(arg, &columns.input.schema)?);
            continue;
        }
        let place = args.len();
        args.push(columns.add(arg)?);
        exprs.push(Arc::new(PhysicalColumn::new(&format!("c{place}"), place)));
    }
    for sort in &call.params.order_by {
        let position = columns.add(&sort.expr)?;
        args.push(position);
        let place = args.len() - 1;
        order_by.push(PhysicalSortExpr {
            expr: Arc::new(PhysicalColumn::new(&format!("c{place}"), place)),
            options: arrow::compute::SortOptions {
                descending: !sort.asc,
                nulls_first: sort.nulls_first,
            },
        });
    }
    let types = args.iter().map(|&arg| columns.outputs[arg].0.ty.clone());
    let schema = Schema::new(types.enumerate().map(|(i, ty)| (format!("c{i}"), ty)));
    let ignore_nulls = matches!(
        call.params.null_treatment,
        Some(datafusion::logical_expr::expr::NullTreatment::IgnoreNulls)
    );
    let aggregate = AggregateExprBuilder::new(call.func.clone(), exprs)
        .schema(schema.to_arrow())
        .alias(call.func.name())
        .order_by(order_by)
        .with_distinct(call.params.distinct)
        .with_ignore_nulls(ignore_nulls)
        .build()
        .map_err(from_df)?;
    let converter = DefaultPhysicalProtoConverter {};
    let node = serialize_physical_aggr_expr(Arc::new(aggregate), &Codec, &converter);
    Ok(AggregateFunction::Other {
        code: node.map_err(from_df)?.encode_to_vec(),
    })
}
