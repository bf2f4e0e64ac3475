//! Scalar expressions: from DataFusion's logical form to the code that a plan carries.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Schema as ArrowSchema};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column as DfColumn, DFSchema};
use datafusion::logical_expr::execution_props::ExecutionProps;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{Expr as DfExpr, ExprSchemable};
use datafusion::physical_expr::{PhysicalExpr, create_physical_expr};
use datafusion::physical_plan::expressions::Column as PhysicalColumn;
use datafusion_proto::physical_plan::from_proto::parse_physical_expr;
use datafusion_proto::physical_plan::to_proto::serialize_physical_expr;
use datafusion_proto::protobuf::PhysicalExprNode;
use prost::Message;
use ruslo_repr::{Error, Expr, Plan, Result, Schema};

use super::Lowered;
use crate::bind::canonical;
use crate::bind::registry::{Codec, task_context};
use crate::error::from_df;
use crate::explain::expr_text;
use crate::functions::cast;

/// An expression over the columns of `input`, in a type of ours.
pub(super) fn lower_expr(expr: &DfExpr, input: &Lowered) -> Result<Expr> {
    lower_over(expr, &input.schema, input.plan.schema())
}

/// As [`lower_expr`], over columns that `schema` resolves and `shown` names for people.
pub(super) fn lower_over(expr: &DfExpr, schema: &DFSchema, shown: &Schema) -> Result<Expr> {
    let expr = expr.clone().unalias();
    let ty = expr.get_type(schema).map_err(from_df)?;
    let ours = canonical(&ty);
    let expr = match ty == ours {
        true => expr,
        false => cast(expr, &ty, &ours, true)?,
    };
    let physical = physical(&expr, schema)?;
    let column = physical
        .downcast_ref::<PhysicalColumn>()
        .map(PhysicalColumn::index);
    Ok(Expr {
        code: encode_expr(&physical)?,
        ty: ours,
        text: text_over(&expr, schema, shown)?,
        column,
    })
}

/// The text of an expression with columns under the names they are shown by.
pub(super) fn text_over(expr: &DfExpr, schema: &DFSchema, shown: &Schema) -> Result<String> {
    let named = expr.clone().transform_up(|expr| {
        let DfExpr::Column(column) = &expr else {
            return Ok(Transformed::no(expr));
        };
        let position = schema.maybe_index_of_column(column);
        match position.and_then(|i| shown.columns.get(i)) {
            Some(field) => Ok(Transformed::yes(DfExpr::Column(DfColumn::from_name(
                &field.name,
            )))),
            None => Ok(Transformed::no(expr)),
        }
    });
    Ok(expr_text(&named.map_err(from_df)?.data))
}

/// The column at a position, as an expression.
pub(super) fn column(position: usize, schema: &Schema) -> Result<Expr> {
    let column = &schema.columns[position];
    let physical: Arc<dyn PhysicalExpr> = Arc::new(PhysicalColumn::new(&column.name, position));
    Ok(Expr {
        code: encode_expr(&physical)?,
        ty: column.ty.clone(),
        text: column.name.clone(),
        column: Some(position),
    })
}

pub(super) fn physical(expr: &DfExpr, schema: &DFSchema) -> Result<Arc<dyn PhysicalExpr>> {
    let (props, planning) = (ExecutionProps::new(), PhysicalPlanningContext::default());
    create_physical_expr(expr, schema, &props, &planning).map_err(from_df)
}

/// A physical expression as bytes that mean the same in any process.
pub(super) fn encode_expr(expr: &Arc<dyn PhysicalExpr>) -> Result<Vec<u8>> {
    let node = serialize_physical_expr(expr, &Codec).map_err(from_df)?;
    Ok(node.encode_to_vec())
}

/// The way back, over an input of this schema.
pub(crate) fn decode_expr(code: &[u8], input: &ArrowSchema) -> Result<Arc<dyn PhysicalExpr>> {
    let node = PhysicalExprNode::decode(code).map_err(|error| {
        Error::internal(format!("an expression of a plan cannot be read: {error}"))
    })?;
    parse_physical_expr(&node, task_context(), input, &Codec).map_err(from_df)
}

/// The value of an expression without columns, as an array of length one.
pub(super) fn constant(expr: &DfExpr, empty: &DFSchema, ty: &DataType) -> Result<ArrayRef> {
    let from = expr.get_type(empty).map_err(from_df)?;
    let expr = match from == *ty {
        true => expr.clone(),
        false => cast(expr.clone(), &from, ty, true)?,
    };
    let options = RecordBatchOptions::new().with_row_count(Some(1));
    let row = RecordBatch::try_new_with_options(Arc::new(ArrowSchema::empty()), vec![], &options)?;
    let value = physical(&expr, empty)?.evaluate(&row).map_err(from_df)?;
    value.into_array(1).map_err(from_df)
}

/// The plan with the names of `schema` on its columns and its types, if they are not already.
pub(super) fn renamed(input: Lowered, schema: &Schema) -> Result<Plan> {
    if input.plan.schema() == schema {
        return Ok(input.plan);
    }
    cast_all(input.plan, schema)
}

/// The plan with columns in the types of `schema`.
pub(super) fn cast_columns(input: Lowered, schema: &Schema) -> Result<Plan> {
    if input.plan.schema().types() == schema.types() {
        return Ok(input.plan);
    }
    cast_all(input.plan, schema)
}

fn cast_all(plan: Plan, schema: &Schema) -> Result<Plan> {
    let from = plan.schema().clone();
    let fields = from.to_arrow();
    let unqualified = from.columns.iter().enumerate();
    let names = unqualified.map(|(i, _)| format!("c{i}"));
    let fields = fields
        .fields()
        .iter()
        .zip(names)
        .map(|(field, name)| (None, Arc::new(field.as_ref().clone().with_name(name))));
    let df = DFSchema::new_with_metadata(fields.collect(), Default::default()).map_err(from_df)?;
    let mut outputs = vec![];
    for (i, (source, target)) in from.columns.iter().zip(&schema.columns).enumerate() {
        if source.ty == target.ty {
            outputs.push(column(i, &from)?);
            continue;
        }
        let field = DfExpr::Column(DfColumn::from_name(format!("c{i}")));
        let expr = cast(field, &source.ty, &target.ty, true)?;
        outputs.push(lower_over(&expr, &df, &from)?);
    }
    Ok(Plan::Map {
        input: Box::new(plan),
        filters: vec![],
        outputs,
        schema: schema.clone(),
    })
}
