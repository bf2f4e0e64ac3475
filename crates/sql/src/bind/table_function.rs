//! Functions in FROM: `generate_series`, in queries that run once.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::datatypes::{DataType, SchemaRef};
use datafusion::catalog::TableFunctionArgs;
use datafusion::common::ScalarValue;
use datafusion::datasource::provider_as_source;
use datafusion::execution::SessionStateDefaults;
use datafusion::logical_expr::expr::Cast;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, TableSource, col, lit};
use ruslo_repr::{Error, ErrorKind, Result};

use super::Purpose;
use super::typing::fold_literal;
use crate::error::from_df;

/// The rows of a call `name(args)` in FROM.
pub(super) fn source(
    name: &str,
    args: Vec<Expr>,
    purpose: Purpose,
) -> Result<Arc<dyn TableSource>> {
    if purpose == Purpose::View {
        let message = format!("the table function {name} is not supported in a view yet");
        return Err(Error::unsupported(message).with_hint("Use it in a query on the view."));
    }
    if name == "pg_get_keywords" {
        return keywords();
    }
    let mut functions = SessionStateDefaults::default_table_functions().into_iter();
    let Some(function) = functions.find(|f| f.name() == name && name == "generate_series") else {
        let message = format!("function {name} in FROM does not exist");
        return Err(Error::new(ErrorKind::UndefinedFunction, message));
    };
    let args = args
        .into_iter()
        .map(fold_literal)
        .collect::<Result<Vec<_>, _>>();
    let args = args.map_err(from_df)?;
    let wide = args
        .iter()
        .any(|a| matches!(a, Expr::Literal(ScalarValue::Int64(_), _)));
    let args = args
        .into_iter()
        .map(as_bigint)
        .collect::<Result<Vec<_>>>()?;
    let session = crate::adhoc::base_state();
    let table = function.create_table_provider_with_args(TableFunctionArgs::new(&args, session));
    let table = provider_as_source(table.map_err(from_df)?);
    let ty = if wide {
        DataType::Int64
    } else {
        DataType::Int32
    };
    let value = Expr::Cast(Cast::new(Box::new(col("value")), ty));
    let plan = LogicalPlanBuilder::scan("series", table, None)
        .and_then(|scan| scan.project([value.alias(name)]))
        .and_then(|plan| plan.build())
        .map_err(from_df)?;
    Ok(Arc::new(PlanSource {
        schema: Arc::new(plan.schema().as_arrow().clone()),
        plan,
    }))
}

/// The words that only PostgreSQL reserves, as drivers ask for them.
fn keywords() -> Result<Arc<dyn TableSource>> {
    const WORDS: [&str; 9] = [
        "analyse",
        "analyze",
        "concurrently",
        "freeze",
        "ilike",
        "isnull",
        "notnull",
        "returning",
        "variadic",
    ];
    let rows = WORDS.map(|word| vec![lit(word), lit("R"), lit("reserved")]);
    let names = ["word", "catcode", "catdesc"];
    let named = |(i, name): (usize, &&str)| col(format!("column{}", i + 1)).alias(*name);
    let plan = LogicalPlanBuilder::values(rows.to_vec())
        .and_then(|values| values.project(names.iter().enumerate().map(named)))
        .and_then(|plan| plan.build())
        .map_err(from_df)?;
    Ok(Arc::new(PlanSource {
        schema: Arc::new(plan.schema().as_arrow().clone()),
        plan,
    }))
}

fn as_bigint(arg: Expr) -> Result<Expr> {
    let value = match arg {
        Expr::Literal(ScalarValue::Int16(v), _) => v.map(i64::from),
        Expr::Literal(ScalarValue::Int32(v), _) => v.map(i64::from),
        Expr::Literal(ScalarValue::Int64(v), _) => v,
        Expr::Literal(ScalarValue::Null, _) => None,
        _ => {
            let message = "generate_series is supported for constant integers only";
            return Err(Error::unsupported(message));
        }
    };
    Ok(Expr::Literal(ScalarValue::Int64(value), None))
}

/// A relation that is nothing but a plan.
struct PlanSource {
    schema: SchemaRef,
    plan: LogicalPlan,
}

impl TableSource for PlanSource {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn get_logical_plan(&self) -> Option<Cow<'_, LogicalPlan>> {
        Some(Cow::Borrowed(&self.plan))
    }
}
