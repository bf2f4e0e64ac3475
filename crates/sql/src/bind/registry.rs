//! Every function there is, by name: ours first, DataFusion's where we have none.
//!
//! The same registry serves binding and, on whatever process, the decoding of a plan's
//! expressions: a name fixes what a function does.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use datafusion::error::Result as DfResult;
use datafusion::execution::SessionStateDefaults;
use datafusion::execution::TaskContext;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::logical_expr::planner::ExprPlanner;
use datafusion::logical_expr::{AggregateUDF, ScalarUDF, WindowUDF};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::prelude::SessionConfig;
use datafusion_proto::physical_plan::{PhysicalExtensionCodec, PhysicalProtoConverterExtension};
use ruslo_repr::Error;

use super::literals::LiteralPlanner;
use crate::error::to_df;

/// Functions by every name they have, and the planners that choose operators.
pub(crate) struct Functions {
    pub(crate) scalars: HashMap<String, Arc<ScalarUDF>>,
    pub(crate) aggregates: HashMap<String, Arc<AggregateUDF>>,
    pub(crate) windows: HashMap<String, Arc<WindowUDF>>,
    pub(crate) planners: Vec<Arc<dyn ExprPlanner>>,
}

impl Functions {
    /// A scalar function; also the casts, of which there are as many as types.
    pub(crate) fn scalar(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        let known = self.scalars.get(name).cloned();
        known.or_else(|| crate::functions::registry().scalar(name))
    }
}

/// The one registry of the process.
pub(crate) fn functions() -> &'static Functions {
    static FUNCTIONS: OnceLock<Functions> = OnceLock::new();
    FUNCTIONS.get_or_init(load)
}

/// DataFusion's functions, then ours over them.
fn load() -> Functions {
    let ours = crate::functions::registry();
    let mut scalars = HashMap::new();
    for function in SessionStateDefaults::default_scalar_functions() {
        for name in function.aliases() {
            scalars.insert(name.clone(), function.clone());
        }
        scalars.insert(function.name().to_string(), function);
    }
    for function in crate::pg_compat::functions::all() {
        scalars.insert(function.name().to_string(), function);
    }
    scalars.extend(ours.scalars().clone());
    let mut aggregates = HashMap::new();
    for function in SessionStateDefaults::default_aggregate_functions() {
        for name in function.aliases() {
            aggregates.insert(name.clone(), function.clone());
        }
        aggregates.insert(function.name().to_string(), function);
    }
    aggregates.extend(ours.aggregates().clone());
    let mut windows = HashMap::new();
    for function in SessionStateDefaults::default_window_functions() {
        for name in function.aliases() {
            windows.insert(name.clone(), function.clone());
        }
        windows.insert(function.name().to_string(), function);
    }
    windows.extend(ours.windows().clone());
    let mut planners: Vec<Arc<dyn ExprPlanner>> = vec![Arc::new(LiteralPlanner)];
    planners.extend(ours.planners().iter().cloned());
    planners.extend(SessionStateDefaults::default_expr_planners());
    Functions {
        scalars,
        aggregates,
        windows,
        planners,
    }
}

/// What datafusion-proto needs to read an expression back: the functions by name.
pub(crate) fn task_context() -> &'static TaskContext {
    static CONTEXT: OnceLock<TaskContext> = OnceLock::new();
    CONTEXT.get_or_init(|| {
        let functions = functions();
        TaskContext::new(
            None,
            "plan".into(),
            SessionConfig::new(),
            functions.scalars.clone(),
            HashMap::new(),
            functions.aggregates.clone(),
            functions.windows.clone(),
            Arc::new(RuntimeEnv::default()),
        )
    })
}

/// Functions travel as their names.
#[derive(Debug)]
pub(crate) struct Codec;

impl PhysicalExtensionCodec for Codec {
    fn try_decode(
        &self,
        _buf: &[u8],
        _inputs: &[Arc<dyn ExecutionPlan>],
        _ctx: &TaskContext,
        _converter: &dyn PhysicalProtoConverterExtension,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        Err(to_df(Error::internal(
            "a plan node where an expression was expected",
        )))
    }

    fn try_encode(
        &self,
        _node: Arc<dyn ExecutionPlan>,
        _buf: &mut Vec<u8>,
        _converter: &dyn PhysicalProtoConverterExtension,
    ) -> DfResult<()> {
        Err(to_df(Error::internal(
            "a plan node where an expression was expected",
        )))
    }

    fn try_decode_udf(&self, name: &str, _buf: &[u8]) -> DfResult<Arc<ScalarUDF>> {
        functions().scalar(name).ok_or_else(|| {
            let message = format!("a plan calls the function {name}, which is not known here");
            to_df(Error::internal(message))
        })
    }
}
