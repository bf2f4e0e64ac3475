//! Tidying a lowered plan: Maps that change nothing go, columns get the view's names.

use ruslo_repr::{Plan, Schema};

/// Removes Maps that only pass their input on.
pub(super) fn simplify(plan: Plan) -> Plan {
    let schema = plan.schema().clone();
    with_schema(strip(plan), &schema)
}

/// The plan with other column names (the types are the same).
pub(super) fn with_schema(mut plan: Plan, names: &Schema) -> Plan {
    match &mut plan {
        Plan::Get { schema, .. } | Plan::Source { schema, .. } if schema != names => {
            return renaming_map(plan, names);
        }
        Plan::Get { .. } | Plan::Source { .. } => {}
        Plan::Distinct { input } => {
            let inner = std::mem::replace(
                input.as_mut(),
                Plan::Values {
                    rows: vec![],
                    schema: Schema::default(),
                },
            );
            **input = with_schema(inner, names);
        }
        Plan::Values { schema, .. }
        | Plan::Map { schema, .. }
        | Plan::Reduce { schema, .. }
        | Plan::Join { schema, .. }
        | Plan::Union { schema, .. } => *schema = names.clone(),
    }
    plan
}

/// A relation keeps its own names; a Map on top of it has the new ones.
fn renaming_map(plan: Plan, names: &Schema) -> Plan {
    let columns = 0..plan.schema().len();
    let outputs = columns.map(|i| super::expr::column(i, plan.schema()));
    let Ok(outputs) = outputs.collect::<ruslo_repr::Result<Vec<_>>>() else {
        return plan;
    };
    Plan::Map {
        input: Box::new(plan),
        filters: vec![],
        outputs,
        schema: names.clone(),
    }
}

fn strip(plan: Plan) -> Plan {
    match plan {
        Plan::Map {
            input,
            filters,
            outputs,
            schema,
        } => {
            let input = strip(*input);
            let identity = filters.is_empty()
                && outputs.len() == input.schema().len()
                && outputs.iter().enumerate().all(|(i, o)| o.column == Some(i));
            match identity {
                true => input,
                false => merge(input, filters, outputs, schema),
            }
        }
        Plan::Reduce {
            input,
            keys,
            aggregates,
            schema,
        } => Plan::Reduce {
            input: Box::new(strip(*input)),
            keys,
            aggregates,
            schema,
        },
        Plan::Distinct { input } => Plan::Distinct {
            input: Box::new(strip(*input)),
        },
        Plan::Join {
            kind,
            left,
            right,
            on,
            residual,
            null_equal,
            schema,
        } => Plan::Join {
            kind,
            left: Box::new(strip(*left)),
            right: Box::new(strip(*right)),
            on,
            residual,
            null_equal,
            schema,
        },
        Plan::Union { inputs, schema } => Plan::Union {
            inputs: inputs.into_iter().map(strip).collect(),
            schema,
        },
        leaf => leaf,
    }
}

/// A Map over a Map as one, where the upper only chooses columns of the lower.
fn merge(
    input: Plan,
    filters: Vec<ruslo_repr::Expr>,
    outputs: Vec<ruslo_repr::Expr>,
    schema: Schema,
) -> Plan {
    let chosen: Option<Vec<usize>> = outputs.iter().map(|o| o.column).collect();
    match (chosen, input) {
        (
            Some(chosen),
            Plan::Map {
                input,
                filters: below,
                outputs: inner,
                ..
            },
        ) if filters.is_empty() => Plan::Map {
            input,
            filters: below,
            outputs: chosen.into_iter().map(|i| inner[i].clone()).collect(),
            schema,
        },
        (_, input) => Plan::Map {
            input: Box::new(input),
            filters,
            outputs,
            schema,
        },
    }
}
