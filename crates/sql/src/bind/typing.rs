//! The pass over a bound plan that settles what DataFusion's binder leaves to its own rules.
//!
//! After it every cast is one of ours, values that meet (IN, CASE, UNION, join keys) have one
//! type, and wherever DataFusion would compare bytes of a type whose equal values may differ in
//! bytes (numeric, float, interval, jsonb) it compares key forms.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema, NullEquality};
use datafusion::error::Result as DfResult;
use datafusion::functions_window::expr_fn::row_number;
use datafusion::logical_expr::expr::{Between, Case, Cast, InList, InSubquery, ScalarFunction};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::logical_plan::{Join, Union, Values};
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    BinaryExpr, Expr, ExprFunctionExt, ExprSchemable, LogicalPlan, LogicalPlanBuilder, Operator,
};
use ruslo_repr::schema::{list_of, type_name};
use ruslo_repr::{Error, ErrorKind};

use super::grouping::{settle_aggregate, settle_aggregate_call, settle_distinct};
use super::literals::typed_placeholder;
use super::ordering::{order_all, settle_window};
use super::{canonical, typed};
use crate::error::to_df;
use crate::functions::{cast, common_type, common_type_of, compare, has_key_form, key_form};

/// Settles every node from the leaves up, also inside subqueries.
pub(super) fn settle(plan: LogicalPlan) -> DfResult<LogicalPlan> {
    Ok(plan.transform_up_with_subqueries(settle_node)?.data)
}

fn settle_node(plan: LogicalPlan) -> DfResult<Transformed<LogicalPlan>> {
    let schema = merge_schema(&plan.inputs());
    let names = NamePreserver::new(&plan);
    let settled = plan.map_expressions(|expr| {
        let name = names.save(&expr);
        let settled = settle_expr(expr, &schema)?;
        Ok(settled.update_data(|expr| name.restore(expr)))
    })?;
    let plan = match settled.data {
        LogicalPlan::Union(union) => settle_union(union)?,
        LogicalPlan::Join(join) => settle_join(join)?,
        LogicalPlan::Aggregate(aggregate) => settle_aggregate(aggregate)?,
        LogicalPlan::Distinct(distinct) => settle_distinct(distinct)?,
        LogicalPlan::Sort(mut sort) => {
            order_all(&mut sort.expr, &schema)?;
            LogicalPlan::Sort(sort)
        }
        LogicalPlan::Filter(filter) => {
            check_condition(&filter.predicate, &schema, "WHERE")?;
            LogicalPlan::Filter(filter)
        }
        other => other,
    };
    Ok(Transformed::yes(plan.recompute_schema()?))
}

/// PostgreSQL's error for a condition that is no boolean.
pub(super) fn check_condition(expr: &Expr, schema: &DFSchema, clause: &str) -> DfResult<()> {
    match expr.get_type(schema)? {
        DataType::Boolean | DataType::Null => Ok(()),
        other => {
            let ty = type_name(&other);
            let message = format!("argument of {clause} must be type boolean, not type {ty}");
            Err(to_df(Error::new(ErrorKind::DatatypeMismatch, message)))
        }
    }
}

fn settle_expr(expr: Expr, schema: &DFSchema) -> DfResult<Transformed<Expr>> {
    expr.transform_up(|expr| {
        let settled = match expr {
            Expr::Cast(cast) => settle_cast(cast, schema)?,
            Expr::ScalarFunction(call) => settle_call(call, schema)?,
            Expr::InList(list) => settle_in_list(list, schema)?,
            Expr::Between(between) => settle_between(between, schema)?,
            Expr::BinaryExpr(binary) => settle_binary(binary, schema)?,
            Expr::InSubquery(subquery) => settle_in_subquery(subquery, schema)?,
            Expr::AggregateFunction(function) => settle_aggregate_call(function, schema)?,
            Expr::WindowFunction(window) => settle_window(window, schema)?,
            other => return Ok(Transformed::no(other)),
        };
        Ok(Transformed::yes(settled))
    })
}

/// A cast of a literal as the literal it gives; anything else as it is.
pub(super) fn fold_literal(expr: Expr) -> DfResult<Expr> {
    match expr {
        Expr::Cast(Cast { expr, field }) if matches!(*expr, Expr::Literal(..)) => {
            let from = expr.get_type(&DFSchema::empty())?;
            cast(*expr, &from, field.data_type(), true).map_err(to_df)
        }
        other => Ok(other),
    }
}

/// From a type that only DataFusion's functions make to the one of ours that carries it.
pub(super) fn canonical_cast(expr: Expr, from: &DataType, to: &DataType) -> Expr {
    match cast(expr.clone(), from, to, true) {
        Ok(ours) => ours,
        Err(_) => Expr::Cast(Cast::new(Box::new(expr), to.clone())),
    }
}

fn settle_cast(written: Cast, schema: &DFSchema) -> DfResult<Expr> {
    let to = written.field.data_type().clone();
    let expr = typed_placeholder(*written.expr, to.clone());
    let from = expr.get_type(schema)?;
    let ours = canonical(&from);
    if from != ours && !from.is_null() && ours == to {
        return Ok(canonical_cast(expr, &from, &to));
    }
    cast(expr, &from, &to, true).map_err(to_df)
}

/// `__case(c1, v1, …)` as a CASE, `coalesce(a, b)` as one too: both compute only what they need.
fn settle_call(mut call: ScalarFunction, schema: &DFSchema) -> DfResult<Expr> {
    let name = call.func.name().to_string();
    if name.starts_with(typed::CAST)
        && let Some(value) = call.args.pop()
    {
        let ty = call.func.return_type(&[])?;
        return settle_cast(Cast::new(Box::new(value), ty), schema);
    }
    match name.as_str() {
        typed::CASE => {
            let count = call.args.len();
            let is_value = |i: usize| typed::is_value(typed::CASE, count, i);
            let mut args = unify(call.args, &is_value, "CASE", schema)?;
            let else_expr = match count % 2 {
                1 => args.pop().map(Box::new),
                _ => None,
            };
            let mut branches = vec![];
            let mut args = args.into_iter();
            while let (Some(when), Some(then)) = (args.next(), args.next()) {
                check_condition(&when, schema, "CASE/WHEN")?;
                branches.push((Box::new(when), Box::new(then)));
            }
            Ok(Expr::Case(Case::new(None, branches, else_expr)))
        }
        typed::COALESCE => {
            let mut args = unify(call.args, &|_| true, "COALESCE", schema)?;
            let Some(last) = args.pop() else {
                let message = "COALESCE needs an argument";
                return Err(to_df(Error::new(ErrorKind::Syntax, message)));
            };
            if args.is_empty() {
                return Ok(last);
            }
            let branches = args
                .into_iter()
                .map(|arg| (Box::new(arg.clone().is_not_null()), Box::new(arg)));
            Ok(Expr::Case(Case::new(
                None,
                branches.collect(),
                Some(Box::new(last)),
            )))
        }
        name if name.starts_with("op_any_") || name.starts_with("op_all_") => {
            Ok(Expr::ScalarFunction(type_quantified(call, schema)?))
        }
        _ => Ok(Expr::ScalarFunction(call)),
    }
}

/// In `x = ANY ($1)` the parameter is a list of what `x` is; in `$1 = ANY (list)` it is an item.
fn type_quantified(mut call: ScalarFunction, schema: &DFSchema) -> DfResult<ScalarFunction> {
    if let [left, right] = call.args.as_mut_slice() {
        match right.get_type(schema)? {
            DataType::List(item) => {
                *left = typed_placeholder(std::mem::take(left), item.data_type().clone());
            }
            _ => {
                let item = canonical_type(left, schema)?;
                *right = typed_placeholder(std::mem::take(right), list_of(canonical(&item)));
            }
        }
    }
    Ok(call)
}

/// Casts the arguments that are values to a type common to them.
fn unify(
    args: Vec<Expr>,
    is_value: &dyn Fn(usize) -> bool,
    what: &str,
    schema: &DFSchema,
) -> DfResult<Vec<Expr>> {
    let mut values = vec![];
    for (i, arg) in args.iter().enumerate() {
        if is_value(i) {
            values.push((arg.clone(), canonical_type(arg, schema)?));
        }
    }
    let common = common_type_of(&values, what).map_err(to_df)?;
    let cast_value = |(i, arg): (usize, Expr)| match is_value(i) {
        true => cast_to(arg, &common, schema),
        false => Ok(arg),
    };
    args.into_iter().enumerate().map(cast_value).collect()
}

/// An expression's type, where only our types are told apart.
fn canonical_type(expr: &Expr, schema: &DFSchema) -> DfResult<DataType> {
    let ty = expr.get_type(schema)?;
    Ok(if ty.is_null() { ty } else { canonical(&ty) })
}

/// `expr` as a `ty`, by an implicit cast.
fn cast_to(expr: Expr, ty: &DataType, schema: &DFSchema) -> DfResult<Expr> {
    let expr = typed_placeholder(expr, ty.clone());
    let from = expr.get_type(schema)?;
    if from == *ty {
        return Ok(expr);
    }
    if canonical(&from) == *ty && !from.is_null() {
        return Ok(canonical_cast(expr, &from, ty));
    }
    cast(expr, &from, ty, false).map_err(to_df)
}

/// The key form of an expression that stands where DataFusion compares bytes.
pub(super) fn keyed(expr: Expr, schema: &DFSchema) -> DfResult<Expr> {
    let ty = expr.get_type(schema)?;
    if !has_key_form(&ty) {
        return Ok(expr);
    }
    let (relation, name) = expr.qualified_name();
    Ok(key_form(expr.unalias(), &ty).alias_qualified(relation, name))
}

fn settle_in_list(list: InList, schema: &DFSchema) -> DfResult<Expr> {
    let mut values = vec![*list.expr];
    values.extend(list.list);
    let mut values = unify(values, &|_| true, "IN", schema)?.into_iter();
    let key = |expr: Expr| -> DfResult<Expr> {
        let ty = expr.get_type(schema)?;
        Ok(key_form(expr, &ty))
    };
    let first = values.next().map(key).transpose()?.unwrap_or_default();
    let rest = values.map(key).collect::<DfResult<Vec<_>>>()?;
    Ok(Expr::InList(InList::new(
        Box::new(first),
        rest,
        list.negated,
    )))
}

fn settle_between(between: Between, schema: &DFSchema) -> DfResult<Expr> {
    let Between {
        expr,
        negated,
        low,
        high,
    } = between;
    let (low_op, high_op) = match negated {
        false => (Operator::GtEq, Operator::LtEq),
        true => (Operator::Lt, Operator::Gt),
    };
    let low = comparison(low_op, (*expr).clone(), *low, schema)?;
    let high = comparison(high_op, *expr, *high, schema)?;
    Ok(match negated {
        false => low.and(high),
        true => low.or(high),
    })
}

/// `left op right` with both sides in one type and in key form.
fn comparison(op: Operator, left: Expr, right: Expr, schema: &DFSchema) -> DfResult<Expr> {
    let right = match left.get_type(schema)? {
        DataType::Null => right,
        ty => typed_placeholder(right, canonical(&ty)),
    };
    let left = match right.get_type(schema)? {
        DataType::Null => left,
        ty => typed_placeholder(left, canonical(&ty)),
    };
    let left_type = canonical_type(&left, schema)?;
    let right_type = canonical_type(&right, schema)?;
    let left = ours(left, &left_type, schema)?;
    let right = ours(right, &right_type, schema)?;
    compare(op, (left, left_type), (right, right_type)).map_err(to_df)
}

fn ours(expr: Expr, ty: &DataType, schema: &DFSchema) -> DfResult<Expr> {
    let from = expr.get_type(schema)?;
    Ok(if from == *ty {
        expr
    } else {
        canonical_cast(expr, &from, ty)
    })
}

fn settle_binary(binary: BinaryExpr, schema: &DFSchema) -> DfResult<Expr> {
    use Operator::*;
    let BinaryExpr { left, op, right } = binary;
    match op {
        Eq | NotEq | Lt | LtEq | Gt | GtEq | IsDistinctFrom | IsNotDistinctFrom => {
            comparison(op, *left, *right, schema)
        }
        _ => Ok(Expr::BinaryExpr(BinaryExpr { left, op, right })),
    }
}

/// `x IN (SELECT …)`: both columns in one type and in key form.
fn settle_in_subquery(mut test: InSubquery, schema: &DFSchema) -> DfResult<Expr> {
    let plan = &test.subquery.subquery;
    let field = plan.schema().field(0);
    let inner_type = canonical(field.data_type());
    let outer_type = canonical_type(&test.expr, schema)?;
    let common = match common_type(&outer_type, &inner_type) {
        Some(common) => common,
        None if crate::functions::is_unknown(&test.expr) => inner_type.clone(),
        None => {
            let (a, b) = (type_name(&outer_type), type_name(&inner_type));
            let message = format!("operator does not exist: {a} = {b}");
            return Err(to_df(Error::new(ErrorKind::UndefinedFunction, message)));
        }
    };
    let outer = cast_to(*test.expr, &common, schema)?;
    test.expr = Box::new(key_form(outer, &common));
    if *field.data_type() != common || has_key_form(&common) {
        let column = Column::from(plan.schema().qualified_field(0));
        let inner = cast_to(Expr::Column(column.clone()), &common, plan.schema())?;
        let inner = key_form(inner, &common).alias_qualified(column.relation, column.name);
        let projected = LogicalPlanBuilder::from(Arc::unwrap_or_clone(plan.clone()));
        test.subquery.subquery = Arc::new(projected.project([inner])?.build()?);
    }
    Ok(Expr::InSubquery(test))
}

fn settle_join(mut join: Join) -> DfResult<LogicalPlan> {
    let (left, right) = (join.left.schema().clone(), join.right.schema().clone());
    let mut on = vec![];
    for (l, r) in join.on {
        let (lt, rt) = (canonical_type(&l, &left)?, canonical_type(&r, &right)?);
        let common = common_type(&lt, &rt).ok_or_else(|| {
            let (a, b) = (type_name(&lt), type_name(&rt));
            let message = format!("operator does not exist: {a} = {b}");
            to_df(Error::new(ErrorKind::UndefinedFunction, message))
        })?;
        let l = key_form(cast_to(l, &common, &left)?, &common);
        let r = key_form(cast_to(r, &common, &right)?, &common);
        on.push((l, r));
    }
    join.on = on;
    if let Some(filter) = &join.filter {
        let both = left.join(&right)?;
        check_condition(filter, &both, "JOIN/ON")?;
    }
    let set_operation = join.null_equality == NullEquality::NullEqualsNull;
    let distinct = matches!(join.left.as_ref(), LogicalPlan::Distinct(_));
    match set_operation && !distinct {
        true => settle_counted(join),
        false => Ok(LogicalPlan::Join(join)),
    }
}

/// INTERSECT ALL and EXCEPT ALL, which come as a semi or anti join of all columns: the copies of
/// a row are numbered on both sides, so that the first copy meets the first, and so on.
fn settle_counted(join: Join) -> DfResult<LogicalPlan> {
    let (left_keys, right_keys): (Vec<_>, Vec<_>) = join.on.iter().cloned().unzip();
    let columns = join.left.schema().columns();
    let (left, left_number) = numbered(Arc::unwrap_or_clone(join.left), left_keys)?;
    let (right, right_number) = numbered(Arc::unwrap_or_clone(join.right), right_keys)?;
    let mut on = join.on;
    on.push((left_number, right_number));
    let joined = Join::try_new(
        Arc::new(left),
        Arc::new(right),
        on,
        join.filter,
        join.join_type,
        join.join_constraint,
        join.null_equality,
        join.null_aware,
    )?;
    LogicalPlanBuilder::from(LogicalPlan::Join(joined))
        .project(columns.into_iter().map(Expr::Column))?
        .build()
}

/// The plan with one more column: the position among the rows whose `keys` are equal.
fn numbered(plan: LogicalPlan, keys: Vec<Expr>) -> DfResult<(LogicalPlan, Expr)> {
    let number = row_number().partition_by(keys).build()?;
    let plan = LogicalPlanBuilder::from(plan).window([number])?.build()?;
    let last = plan.schema().fields().len() - 1;
    let column = Column::from(plan.schema().qualified_field(last));
    Ok((plan, Expr::Column(column)))
}

/// Brings all inputs of a UNION to one type per column.
fn settle_union(union: Union) -> DfResult<LogicalPlan> {
    let mut inputs = union
        .inputs
        .into_iter()
        .map(Arc::unwrap_or_clone)
        .collect::<Vec<_>>();
    let width = inputs
        .first()
        .map_or(0, |input| input.schema().fields().len());
    let mut types = vec![];
    for i in 0..width {
        let values = inputs.iter().map(|input| {
            let ty = input.schema().field(i).data_type();
            let ty = if ty.is_null() {
                ty.clone()
            } else {
                canonical(ty)
            };
            (output_expr(input, i), ty)
        });
        let values: Vec<_> = values.collect();
        types.push(common_type_of(&values, "UNION").map_err(to_df)?);
    }
    for input in &mut inputs {
        let schema = input.schema().clone();
        let fits = schema
            .fields()
            .iter()
            .zip(&types)
            .all(|(f, ty)| f.data_type() == ty);
        if fits {
            continue;
        }
        let mut exprs = vec![];
        for (column, ty) in schema.columns().into_iter().zip(&types) {
            let expr = cast_to(Expr::Column(column.clone()), ty, &schema)?;
            exprs.push(expr.alias_qualified(column.relation, column.name));
        }
        let plan = std::mem::take(input);
        *input = LogicalPlanBuilder::from(plan).project(exprs)?.build()?;
    }
    let inputs = inputs.into_iter().map(Arc::new).collect();
    Ok(LogicalPlan::Union(Union::try_new_with_loose_types(inputs)?))
}

/// What a plan's column is computed by, so that a literal's type can still be decided.
fn output_expr(plan: &LogicalPlan, position: usize) -> Expr {
    match plan {
        LogicalPlan::Projection(projection) => projection.expr[position].clone().unalias(),
        LogicalPlan::Values(Values { values, .. }) if values.len() == 1 => {
            values[0][position].clone()
        }
        _ => Expr::Column(Column::from(plan.schema().qualified_field(position))),
    }
}
