//! Aggregates computed from scratch over the rows of one group.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, RecordBatch, UInt32Array};
use arrow::compute::{SortColumn, filter_record_batch, lexsort_to_indices, take_record_batch};
use arrow::datatypes::DataType;
use datafusion::logical_expr::AggregateUDF;
use datafusion::physical_expr::aggregate::{AggregateExprBuilder, AggregateFunctionExpr};
use datafusion::physical_expr::{PhysicalExpr, PhysicalSortExpr};
use datafusion::physical_plan::expressions::{Column, Literal};
use datafusion_proto::physical_plan::from_proto::parse_physical_expr;
use datafusion_proto::protobuf::physical_aggregate_expr_node::AggregateFunction as FunctionNode;
use datafusion_proto::protobuf::physical_expr_node::ExprType;
use datafusion_proto::protobuf::{PhysicalAggregateExprNode, PhysicalExprNode};
use prost::Message;
use ruslo_repr::eval::GroupProgram;
use ruslo_repr::row::unnamed_batch;
use ruslo_repr::{Aggregate, AggregateFunction, Error, Result, RowCodec};

use super::{in_type, unnamed};
use crate::bind::registry::{Codec, functions, task_context};
use crate::error::from_df;

pub(super) fn compile(aggregate: &Aggregate, input: &[DataType]) -> Result<Box<dyn GroupProgram>> {
    let types: Vec<DataType> = aggregate
        .args
        .iter()
        .map(|&arg| input[arg].clone())
        .collect();
    let compiled = match &aggregate.function {
        AggregateFunction::Other { code } => decode(code, &types)?,
        known => known_function(known, &types)?,
    };
    Ok(Box::new(Group {
        function: compiled.function,
        args: compiled.args,
        order_by: compiled.order_by,
        columns: aggregate.args.clone(),
        filter: aggregate.filter,
        distinct: match aggregate.distinct {
            true => Some(RowCodec::new(&types)?),
            false => None,
        },
        ty: aggregate.ty.clone(),
    }))
}

struct Compiled {
    function: AggregateFunctionExpr,
    args: Vec<Arc<dyn PhysicalExpr>>,
    order_by: Vec<PhysicalSortExpr>,
}

fn named(name: &str) -> Result<Arc<AggregateUDF>> {
    functions().aggregates.get(name).cloned().ok_or_else(|| {
        let message = format!("a plan computes the aggregate {name}, which is not known here");
        Error::internal(message)
    })
}

/// The functions that have special code elsewhere, computed the general way.
fn known_function(function: &AggregateFunction, types: &[DataType]) -> Result<Compiled> {
    let name = match function {
        AggregateFunction::Count => "count",
        AggregateFunction::Sum => "sum",
        AggregateFunction::Avg => "avg",
        AggregateFunction::Min => "min",
        // Bytes of equal numerics are in the order of their scales.
        AggregateFunction::Max | AggregateFunction::Alike { .. } => "max",
        AggregateFunction::Other { .. } => return Err(Error::internal("code was expected")),
    };
    let mut args: Vec<Arc<dyn PhysicalExpr>> = vec![];
    for i in 0..types.len() {
        args.push(Arc::new(Column::new(&format!("c{i}"), i)));
    }
    if args.is_empty() {
        let one = datafusion::common::ScalarValue::Int64(Some(1));
        args.push(Arc::new(Literal::new(one)));
    }
    build(named(name)?, args, vec![], false, types)
}

fn decode(code: &[u8], types: &[DataType]) -> Result<Compiled> {
    let unreadable =
        |what: String| Error::internal(format!("an aggregate of a plan cannot be read: {what}"));
    let node = PhysicalExprNode::decode(code).map_err(|error| unreadable(error.to_string()))?;
    let Some(ExprType::AggregateExpr(node)) = node.expr_type else {
        return Err(unreadable("it is another kind of expression".into()));
    };
    let PhysicalAggregateExprNode {
        aggregate_function: Some(FunctionNode::UserDefinedAggrFunction(name)),
        expr,
        ordering_req,
        ignore_nulls,
        ..
    } = node
    else {
        return Err(unreadable("it has no name".into()));
    };
    let schema = unnamed(types).to_arrow();
    let parse = |node: &PhysicalExprNode| {
        parse_physical_expr(node, task_context(), &schema, &Codec).map_err(from_df)
    };
    let args = expr.iter().map(parse).collect::<Result<Vec<_>>>()?;
    let mut order_by = vec![];
    for sort in ordering_req {
        let Some(expr) = &sort.expr else {
            return Err(unreadable("an ORDER BY without an expression".into()));
        };
        order_by.push(PhysicalSortExpr {
            expr: parse(expr)?,
            options: arrow::compute::SortOptions {
                descending: !sort.asc,
                nulls_first: sort.nulls_first,
            },
        });
    }
    build(named(&name)?, args, order_by, ignore_nulls, types)
}

fn build(
    function: Arc<AggregateUDF>,
    args: Vec<Arc<dyn PhysicalExpr>>,
    order_by: Vec<PhysicalSortExpr>,
    ignore_nulls: bool,
    types: &[DataType],
) -> Result<Compiled> {
    // Order and distinctness are seen to here, so the accumulator need not know of them.
    let name = function.name().to_string();
    let function = AggregateExprBuilder::new(function, args.clone())
        .schema(unnamed(types).to_arrow())
        .alias(name)
        .with_ignore_nulls(ignore_nulls)
        .build()
        .map_err(from_df)?;
    Ok(Compiled {
        function,
        args,
        order_by,
    })
}

struct Group {
    function: AggregateFunctionExpr,
    args: Vec<Arc<dyn PhysicalExpr>>,
    order_by: Vec<PhysicalSortExpr>,
    /// Columns of the reduce input that the code knows as `c0`, `c1` ….
    columns: Vec<usize>,
    filter: Option<usize>,
    distinct: Option<RowCodec>,
    ty: DataType,
}

impl GroupProgram for Group {
    fn evaluate(&self, group: &RecordBatch) -> Result<ArrayRef> {
        let rows = self.rows(group)?;
        let args = self.args.iter().map(|arg| {
            let value = arg.evaluate(&rows).map_err(from_df)?;
            value.into_array(rows.num_rows()).map_err(from_df)
        });
        let args = args.collect::<Result<Vec<_>>>()?;
        let mut accumulator = self.function.create_accumulator().map_err(from_df)?;
        accumulator.update_batch(&args).map_err(from_df)?;
        let value = accumulator.evaluate().map_err(from_df)?;
        in_type(value.to_array().map_err(from_df)?, &self.ty)
    }
}

impl Group {
    /// The argument columns of the rows that count, in order.
    fn rows(&self, group: &RecordBatch) -> Result<RecordBatch> {
        let filtered;
        let group = match self.filter {
            None => group,
            Some(filter) => {
                let keep = group.column(filter).as_boolean();
                let keep: BooleanArray = keep.iter().map(|k| Some(k == Some(true))).collect();
                filtered = filter_record_batch(group, &keep)?;
                &filtered
            }
        };
        let columns = self.columns.iter().map(|&c| group.column(c).clone());
        let rows = unnamed_batch(columns.collect(), group.num_rows())?;
        self.ordered(self.distinct_rows(rows)?)
    }

    fn distinct_rows(&self, rows: RecordBatch) -> Result<RecordBatch> {
        let Some(codec) = &self.distinct else {
            return Ok(rows);
        };
        let encoded = codec.encode(rows.columns(), rows.num_rows())?;
        let mut seen = HashSet::new();
        let first = (0..rows.num_rows()).filter(|&i| seen.insert(encoded.row(i)));
        let first: UInt32Array = first.map(|i| i as u32).collect();
        Ok(take_record_batch(&rows, &first)?)
    }

    fn ordered(&self, rows: RecordBatch) -> Result<RecordBatch> {
        if self.order_by.is_empty() || rows.num_rows() < 2 {
            return Ok(rows);
        }
        let columns = self.order_by.iter().map(|sort| {
            let values = sort.expr.evaluate(&rows).map_err(from_df)?;
            Ok(SortColumn {
                values: values.into_array(rows.num_rows()).map_err(from_df)?,
                options: Some(sort.options),
            })
        });
        let columns = columns.collect::<Result<Vec<_>>>()?;
        let order = lexsort_to_indices(&columns, None)?;
        Ok(take_record_batch(&rows, &order)?)
    }
}
