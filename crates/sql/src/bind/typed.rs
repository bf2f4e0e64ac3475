//! Calls that stand for CASE and COALESCE while a query is bound.
//!
//! DataFusion takes the type of the first branch; PostgreSQL finds a type common to all. As a
//! function with a signature of ours the common type is there from the start, so that operators
//! around it are chosen rightly. `typing.rs` turns the call back into a CASE, which is lazy.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use ruslo_repr::schema::{NUMERIC, TIMESTAMP, timestamptz, type_name};
use ruslo_repr::{Error, ErrorKind, Result};

use crate::error::to_df;
use crate::parse::types::type_from_text;

pub(super) const CASE: &str = "__case";
/// Before the text of a type: a cast to it, which its name tells from other casts.
pub(super) const CAST: &str = "__cast ";
pub(super) const COALESCE: &str = "coalesce";

/// The stand-in for this name, if it is one.
pub(super) fn stand_in(name: &str) -> Option<Arc<ScalarUDF>> {
    if let Some(ty) = name.strip_prefix(CAST) {
        return Some(Arc::new(ScalarUDF::new_from_impl(WrittenCast {
            name: name.to_string(),
            ty: type_from_text(ty).ok()?,
            signature: Signature::any(1, Volatility::Immutable),
        })));
    }
    let known = [CASE, COALESCE];
    let name = known.into_iter().find(|known| *known == name)?;
    Some(Arc::new(ScalarUDF::new_from_impl(StandIn {
        name,
        signature: Signature::variadic_any(Volatility::Immutable),
    })))
}

/// Which arguments of a stand-in are values (the others are conditions).
pub(super) fn is_value(name: &str, count: usize, position: usize) -> bool {
    name != CASE || position % 2 == 1 || position + 1 == count
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct StandIn {
    name: &'static str,
    signature: Signature,
}

impl ScalarUDFImpl for StandIn {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> DfResult<DataType> {
        let values = types.iter().enumerate();
        let values = values.filter(|(i, _)| is_value(self.name, types.len(), *i));
        let what = match self.name {
            CASE => "CASE",
            other => other,
        };
        common_type(what, values.map(|(_, ty)| ty)).map_err(to_df)
    }

    fn invoke_with_args(&self, _args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let message = format!("{} was not resolved before it ran", self.name);
        Err(to_df(Error::internal(message)))
    }
}

/// A cast as it was written.
#[derive(Debug, PartialEq, Eq, Hash)]
struct WrittenCast {
    name: String,
    ty: DataType,
    signature: Signature,
}

impl ScalarUDFImpl for WrittenCast {
    fn name(&self) -> &str {
        &self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _types: &[DataType]) -> DfResult<DataType> {
        Ok(self.ty.clone())
    }

    fn invoke_with_args(&self, _args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let message = format!("{} was not resolved before it ran", self.name);
        Err(to_df(Error::internal(message)))
    }
}

/// The type that all values are converted to, as PostgreSQL's `select_common_type` finds it.
pub(crate) fn common_type<'a>(
    what: &str,
    types: impl Iterator<Item = &'a DataType>,
) -> Result<DataType> {
    let mut common = DataType::Null;
    for ty in types {
        common = wider(&common, ty).ok_or_else(|| {
            let (a, b) = (type_name(&common), type_name(ty));
            let message = format!("{what} types {a} and {b} cannot be matched");
            Error::new(ErrorKind::DatatypeMismatch, message)
                .with_hint("Add an explicit cast to one of them.")
        })?;
    }
    Ok(common)
}

/// Text gives way to any other type: mostly it is a literal whose type is not yet known.
fn wider(a: &DataType, b: &DataType) -> Option<DataType> {
    if a == b || b.is_null() {
        return Some(a.clone());
    }
    if a.is_null() {
        return Some(b.clone());
    }
    if let (Some(x), Some(y)) = (numeric_rank(a), numeric_rank(b)) {
        return Some(if x >= y { a.clone() } else { b.clone() });
    }
    match (a, b) {
        (DataType::Utf8, other) | (other, DataType::Utf8) => Some(other.clone()),
        (DataType::Date32, DataType::Timestamp(..)) => Some(b.clone()),
        (DataType::Timestamp(..), DataType::Date32) => Some(a.clone()),
        (DataType::Timestamp(_, x), DataType::Timestamp(_, y)) => {
            let zoned = x.is_some() || y.is_some();
            Some(if zoned { timestamptz() } else { TIMESTAMP })
        }
        (DataType::List(x), DataType::List(y)) => {
            let item = wider(x.data_type(), y.data_type())?;
            Some(ruslo_repr::schema::list_of(item))
        }
        _ => None,
    }
}

fn numeric_rank(ty: &DataType) -> Option<u8> {
    match ty {
        DataType::Int16 => Some(1),
        DataType::Int32 => Some(2),
        DataType::Int64 | DataType::UInt64 => Some(3),
        ty if *ty == NUMERIC => Some(4),
        DataType::Float32 => Some(5),
        DataType::Float64 => Some(6),
        _ => None,
    }
}
