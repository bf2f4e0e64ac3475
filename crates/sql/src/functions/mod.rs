//! The functions, operators, casts and aggregates of SQL, as PostgreSQL and RisingWave have them.
//!
//! ```text
//!   a + b, a = b, a -> 'k'  ── planner ──┐
//!   CAST, -a, BETWEEN, IN   ── resolve ──┼──> calls of ScalarUDFs by name ──> physical expressions
//!   f(x), sum(x)            ── registry ─┘         (overload by argument types)
//! ```
//!
//! Three rules hold for everything in here. A name and the argument types fix a call's meaning, so
//! a plan that went through datafusion-proto means the same. Functions convert their arguments
//! themselves, DataFusion's own coercions never apply. And no type leaves that is not in
//! [`ruslo_repr::schema`]'s table.

mod aggregate;
mod arith;
mod array;
mod array_concat;
pub mod cast;
mod coerce;
mod conditional;
mod datetime;
mod datetime_arith;
mod datetime_pattern;
mod digest;
mod extract;
mod interval;
mod json_order;
mod jsonb;
mod jsonb_build;
mod key;
mod math;
mod numeric;
mod overload;
mod pg_info;
mod planner;
mod quantified;
mod regex;
mod string;
mod string_format;
mod to_char;
mod types;

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use datafusion::functions::string::uuid;
use datafusion::functions_aggregate::bool_and_or::bool_and_udaf;
use datafusion::logical_expr::planner::ExprPlanner;
use datafusion::logical_expr::{AggregateUDF, ScalarUDF, WindowUDF};

pub use aggregate::{ALIKE, shows_key};
pub use cast::{cast, cast_scalar};
pub use coerce::{can_cast, common_type, common_type_of, compare, is_unknown, number_literal};
pub use key::{has_key_form, key_array, key_form, order_form};

/// Our functions by name; DataFusion's stand in for what is not here. One per process.
pub struct Registry {
    scalars: HashMap<String, Arc<ScalarUDF>>,
    aggregates: HashMap<String, Arc<AggregateUDF>>,
    windows: HashMap<String, Arc<WindowUDF>>,
    planners: Vec<Arc<dyn ExprPlanner>>,
}

/// The registry of the process.
pub fn registry() -> &'static Registry {
    static REGISTRY: OnceLock<Registry> = OnceLock::new();
    REGISTRY.get_or_init(Registry::build)
}

impl Registry {
    fn build() -> Registry {
        let mut registry = Registry {
            scalars: HashMap::new(),
            aggregates: HashMap::new(),
            windows: HashMap::new(),
            planners: vec![Arc::new(planner::OperatorPlanner)],
        };
        let ours = [
            arith::functions(),
            array::functions(),
            array::internal_functions(),
            array_concat::functions(),
            conditional::functions(),
            datetime::functions(),
            extract::functions(),
            interval::functions(),
            jsonb::functions(),
            jsonb_build::functions(),
            math::functions(),
            pg_info::functions(),
            quantified::functions(),
            regex::functions(),
            string::functions(),
            to_char::functions(),
            vec![key::function(), json_order::function()],
        ];
        for function in ours.into_iter().flatten() {
            for udf in function.udfs() {
                registry.scalars.insert(udf.name().to_string(), udf);
            }
        }
        for function in aggregate::functions() {
            registry.add_aggregate(function);
        }
        registry.aggregates.insert("every".into(), bool_and_udaf());
        for name in ["uuid", "gen_random_uuid"] {
            registry.scalars.insert(name.into(), uuid());
        }
        registry
    }

    fn add_aggregate(&mut self, udaf: Arc<AggregateUDF>) {
        for alias in udaf.aliases() {
            self.aggregates.insert(alias.clone(), udaf.clone());
        }
        self.aggregates.insert(udaf.name().to_string(), udaf);
    }

    /// The scalar function of this name; casts are found by their names too.
    pub fn scalar(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        let found = self.scalars.get(name).cloned();
        found.or_else(|| cast::cast_function_named(name))
    }

    pub fn aggregate(&self, name: &str) -> Option<Arc<AggregateUDF>> {
        self.aggregates.get(name).cloned()
    }

    pub fn window(&self, name: &str) -> Option<Arc<WindowUDF>> {
        self.windows.get(name).cloned()
    }

    /// Every scalar function by each of its names, without casts.
    pub fn scalars(&self) -> &HashMap<String, Arc<ScalarUDF>> {
        &self.scalars
    }

    pub fn aggregates(&self) -> &HashMap<String, Arc<AggregateUDF>> {
        &self.aggregates
    }

    pub fn windows(&self) -> &HashMap<String, Arc<WindowUDF>> {
        &self.windows
    }

    /// What DataFusion's binder asks about operators and special syntax, in this order.
    pub fn planners(&self) -> &[Arc<dyn ExprPlanner>] {
        &self.planners
    }
}

#[cfg(test)]
mod tests;
