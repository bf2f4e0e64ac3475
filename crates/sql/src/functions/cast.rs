//! Casts, as ScalarUDFs named after their target: `cast_to_integer`, `cast_to_numeric`, ….
//!
//! PostgreSQL rounds where Arrow cuts off, refuses where Arrow gives NULL, and knows types that
//! Arrow does not, so no cast is left to Arrow's kernel but widening ones.

mod kernel;

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use ruslo_repr::schema::{
    INTERVAL, JSONB, NUMERIC, TIME, TIMESTAMP, list_of, timestamptz, type_name,
};
use ruslo_repr::text::TextStyle;
use ruslo_repr::{Error, ErrorKind, Result};

use super::coerce::can_cast;
use super::overload::{style_of, to_df};

pub(super) use kernel::cast_array;

const PREFIX: &str = "cast_to_";

/// `expr` of type `from` as a `to`: the expression itself, a literal or a call of `cast_to_…`.
///
/// `explicit` tells a written cast from one that an assignment or an operator asks for. Fails with
/// `DatatypeMismatch` if PostgreSQL has no such cast, and for a literal with the cast's own error.
pub fn cast(expr: Expr, from: &DataType, to: &DataType, explicit: bool) -> Result<Expr> {
    if from == to {
        return Ok(expr);
    }
    if !can_cast(from, to, explicit) {
        return Err(cannot_cast(from, to));
    }
    match &expr {
        Expr::Literal(value, metadata) if !depends_on_zone(from, to) => {
            let cast = cast_scalar(value, to, &TextStyle::default())?;
            Ok(Expr::Literal(cast, metadata.clone()))
        }
        _ => Ok(cast_function(to).call(vec![expr])),
    }
}

fn cannot_cast(from: &DataType, to: &DataType) -> Error {
    let message = format!("cannot cast type {} to {}", type_name(from), type_name(to));
    Error::new(ErrorKind::DatatypeMismatch, message)
}

/// Whether a cast means different things in different sessions.
fn depends_on_zone(from: &DataType, to: &DataType) -> bool {
    fn has_zone(ty: &DataType) -> bool {
        match ty {
            DataType::Timestamp(_, zone) => zone.is_some(),
            DataType::List(item) => has_zone(item.data_type()),
            DataType::Struct(fields) => fields.iter().any(|f| has_zone(f.data_type())),
            _ => false,
        }
    }
    (has_zone(from) || has_zone(to)) && *from != DataType::Null
}

/// Casts one value.
pub fn cast_scalar(value: &ScalarValue, to: &DataType, style: &TextStyle) -> Result<ScalarValue> {
    let internal = |error: datafusion::error::DataFusionError| Error::internal(error.to_string());
    let array = cast_array(&value.to_array().map_err(internal)?, to, style)?;
    ScalarValue::try_from_array(&array, 0).map_err(internal)
}

/// The function that casts to `to`.
pub(super) fn cast_function(to: &DataType) -> Arc<ScalarUDF> {
    let volatility = match depends_on_zone(&DataType::Utf8, to) {
        true => Volatility::Stable,
        false => Volatility::Immutable,
    };
    Arc::new(ScalarUDF::new_from_impl(Cast {
        name: format!("{PREFIX}{}", target_name(to)),
        to: to.clone(),
        signature: Signature::user_defined(volatility),
    }))
}

/// The function of this name if it is a cast's: the name tells the target.
pub(super) fn cast_function_named(name: &str) -> Option<Arc<ScalarUDF>> {
    target_named(name.strip_prefix(PREFIX)?).map(|ty| cast_function(&ty))
}

/// Types without parts, by the names that function names use.
fn simple_types() -> [(&'static str, DataType); 16] {
    [
        ("boolean", DataType::Boolean),
        ("smallint", DataType::Int16),
        ("integer", DataType::Int32),
        ("bigint", DataType::Int64),
        ("real", DataType::Float32),
        ("double", DataType::Float64),
        ("numeric", NUMERIC),
        ("varchar", DataType::Utf8),
        ("bytea", DataType::Binary),
        ("date", DataType::Date32),
        ("time", TIME),
        ("timestamp", TIMESTAMP),
        ("timestamptz", timestamptz()),
        ("interval", INTERVAL),
        ("jsonb", JSONB),
        ("unknown", DataType::Null),
    ]
}

fn target_name(ty: &DataType) -> String {
    if let Some((name, _)) = simple_types().iter().find(|(_, simple)| simple == ty) {
        return name.to_string();
    }
    match ty {
        DataType::List(item) if *ty == list_of(item.data_type().clone()) => {
            format!("{}[]", target_name(item.data_type()))
        }
        // A struct has names of any spelling in it; JSON quotes them.
        _ => serde_json::to_string(ty).unwrap_or_else(|_| ty.to_string()),
    }
}

fn target_named(name: &str) -> Option<DataType> {
    if let Some(item) = name.strip_suffix("[]") {
        return target_named(item).map(list_of);
    }
    let simple = simple_types()
        .into_iter()
        .find(|(simple, _)| *simple == name);
    simple
        .map(|(_, ty)| ty)
        .or_else(|| serde_json::from_str(name).ok())
}

struct Cast {
    name: String,
    to: DataType,
    signature: Signature,
}

impl ScalarUDFImpl for Cast {
    fn name(&self) -> &str {
        &self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> DfResult<Vec<DataType>> {
        Ok(arg_types.to_vec())
    }

    fn return_type(&self, arg_types: &[DataType]) -> DfResult<DataType> {
        match arg_types {
            [from] if can_cast(from, &self.to, true) => Ok(self.to.clone()),
            [from] => Err(to_df(cannot_cast(from, &self.to))),
            _ => Err(to_df(Error::internal(format!(
                "{} takes one argument",
                self.name
            )))),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let style = style_of(&args.config_options).map_err(to_df)?;
        match args.args.first() {
            Some(ColumnarValue::Array(array)) => {
                let cast = cast_array(array, &self.to, &style).map_err(to_df)?;
                Ok(ColumnarValue::Array(cast))
            }
            Some(ColumnarValue::Scalar(value)) => {
                let cast = cast_scalar(value, &self.to, &style).map_err(to_df)?;
                Ok(ColumnarValue::Scalar(cast))
            }
            None => Err(to_df(Error::internal(format!(
                "{} takes one argument",
                self.name
            )))),
        }
    }
}

impl PartialEq for Cast {
    fn eq(&self, other: &Self) -> bool {
        self.to == other.to
    }
}

impl Eq for Cast {}

impl Hash for Cast {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.to.hash(state);
    }
}

impl std::fmt::Debug for Cast {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name)
    }
}
