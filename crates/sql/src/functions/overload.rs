//! Functions of ours as DataFusion's `ScalarUDF`s: overloads, their choice, and the loop over rows.
//!
//! A function accepts any argument types and finds its overload by PostgreSQL's rules, when the
//! expression gets its type and again when it runs. So a name and the argument types fix the
//! meaning, DataFusion never inserts a cast of its own, and a serialised plan needs only names.

use std::hash::{Hash, Hasher};
use std::ops::RangeInclusive;
use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::config::ConfigOptions;
use datafusion::error::{DataFusionError, Result as DfResult};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use ruslo_repr::schema::type_name;
use ruslo_repr::text::TextStyle;
use ruslo_repr::{Error, ErrorKind, Result};

use super::cast::cast_array;
use super::coerce::implicit_cost;
use super::types::{Column, SqlType};

/// Our error as DataFusion carries it; the binder takes it out again.
pub(super) fn to_df(error: Error) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

/// What a call is given: arguments in the overload's types, each with `rows` values or one.
pub(super) struct Args {
    pub(super) columns: Vec<Column>,
    pub(super) rows: usize,
    pub(super) style: TextStyle,
}

pub(super) type Eval = Arc<dyn Fn(&Args) -> Result<ArrayRef> + Send + Sync>;

/// One signature of a function, and what computes it.
#[derive(Clone)]
pub(super) struct Overload {
    params: Vec<DataType>,
    /// The last parameter may be given any number of times, also never.
    variadic: bool,
    returns: DataType,
    eval: Eval,
}

/// The type of a call's result from its argument types, for functions over any type.
pub(super) type Typing = fn(&[DataType]) -> Result<DataType>;

#[derive(Clone)]
enum Body {
    Overloads(Vec<Overload>),
    /// Arguments come as they are.
    Generic {
        /// How many arguments there may be.
        arity: RangeInclusive<usize>,
        typing: Typing,
        eval: Eval,
    },
}

/// A scalar function of ours.
#[derive(Clone)]
pub(super) struct Function {
    name: String,
    /// For an operator its symbol, which error messages show.
    symbol: Option<&'static str>,
    signature: Signature,
    aliases: Vec<String>,
    body: Body,
}

impl Function {
    pub(super) fn new(name: &str, overloads: Vec<Overload>) -> Self {
        Self::with_body(name, Body::Overloads(overloads))
    }

    pub(super) fn generic(
        name: &str,
        arity: RangeInclusive<usize>,
        typing: Typing,
        eval: impl Fn(&Args) -> Result<ArrayRef> + Send + Sync + 'static,
    ) -> Self {
        let eval = Arc::new(eval);
        let body = Body::Generic {
            arity,
            typing,
            eval,
        };
        Self::with_body(name, body)
    }

    fn with_body(name: &str, body: Body) -> Self {
        Function {
            name: name.to_string(),
            symbol: None,
            signature: Signature::user_defined(Volatility::Immutable),
            aliases: vec![],
            body,
        }
    }

    pub(super) fn operator(mut self, symbol: &'static str) -> Self {
        self.symbol = Some(symbol);
        self
    }

    pub(super) fn alias(mut self, alias: &str) -> Self {
        self.aliases.push(alias.to_string());
        self
    }

    pub(super) fn udf(self) -> Arc<ScalarUDF> {
        Arc::new(ScalarUDF::new_from_impl(self))
    }

    /// The function under each of its names, so that errors and columns show the one in use.
    pub(super) fn udfs(self) -> Vec<Arc<ScalarUDF>> {
        let aliases = self.aliases.iter().map(|alias| {
            let mut named = self.clone();
            named.name.clone_from(alias);
            named.symbol = None;
            named.udf()
        });
        let mut all: Vec<_> = aliases.collect();
        all.push(self.udf());
        all
    }

    /// The overload for these types: fewest arguments to convert, then the cheapest conversions.
    fn choose<'a>(&self, overloads: &'a [Overload], types: &[DataType]) -> Result<&'a Overload> {
        let mut best: Option<((usize, u32), &Overload)> = None;
        for overload in overloads {
            if let Some(rank) = overload.rank(types)
                && best.as_ref().is_none_or(|(least, _)| rank < *least)
            {
                best = Some((rank, overload));
            }
        }
        best.map(|(_, overload)| overload)
            .ok_or_else(|| self.undefined(types))
    }

    fn undefined(&self, types: &[DataType]) -> Error {
        match (self.symbol, types) {
            (Some(symbol), [left, right]) => undefined_operator(symbol, left, right),
            (Some(symbol), [operand]) => {
                let message = format!("operator does not exist: {symbol} {}", type_name(operand));
                Error::new(ErrorKind::UndefinedFunction, message).with_hint(OPERATOR_HINT)
            }
            _ => {
                let types: Vec<String> = types.iter().map(type_name).collect();
                let call = format!("{}({})", self.name, types.join(", "));
                let message = format!("function {call} does not exist");
                Error::new(ErrorKind::UndefinedFunction, message).with_hint(
                    "No function matches the given name and argument types. \
                     You might need to add explicit type casts.",
                )
            }
        }
    }
}

const OPERATOR_HINT: &str = "No operator matches the given name and argument types. \
                             You might need to add explicit type casts.";

pub(super) fn undefined_operator(symbol: &str, left: &DataType, right: &DataType) -> Error {
    let (left, right) = (type_name(left), type_name(right));
    let message = format!("operator does not exist: {left} {symbol} {right}");
    Error::new(ErrorKind::UndefinedFunction, message).with_hint(OPERATOR_HINT)
}

impl Overload {
    /// How well argument types fit: arguments that need a conversion, and what those cost.
    fn rank(&self, types: &[DataType]) -> Option<(usize, u32)> {
        let fits = match self.variadic {
            true => types.len() + 1 >= self.params.len(),
            false => types.len() == self.params.len(),
        };
        if !fits {
            return None;
        }
        let mut rank = (0, 0);
        for (i, ty) in types.iter().enumerate() {
            let param = self.param(i)?;
            if ty == param {
                continue;
            }
            // A text that stands for a value of yet unknown type is most likely of the other's.
            let like_other = types.len() == 2 && *param == types[1 - i];
            let cost = implicit_cost(ty, param)?;
            rank.0 += 1;
            rank.1 += if like_other && cost >= 10 {
                cost - 10
            } else {
                cost
            };
        }
        Some(rank)
    }

    fn param(&self, i: usize) -> Option<&DataType> {
        match self.variadic {
            true => self.params.get(i).or(self.params.last()),
            false => self.params.get(i),
        }
    }

    pub(super) fn variadic(mut self) -> Self {
        self.variadic = true;
        self
    }
}

/// An overload that computes whole arrays.
pub(super) fn over(
    params: &[DataType],
    returns: DataType,
    eval: impl Fn(&Args) -> Result<ArrayRef> + Send + Sync + 'static,
) -> Overload {
    Overload {
        params: params.to_vec(),
        variadic: false,
        returns,
        eval: Arc::new(eval),
    }
}

/// What the function of one row may return: a value, maybe none (NULL), maybe an error.
pub(super) trait Outcome<T> {
    fn outcome(self) -> Result<Option<T>>;
}

impl<T> Outcome<T> for T {
    fn outcome(self) -> Result<Option<T>> {
        Ok(Some(self))
    }
}

impl<T> Outcome<T> for Option<T> {
    fn outcome(self) -> Result<Option<T>> {
        Ok(self)
    }
}

impl<T> Outcome<T> for Result<T> {
    fn outcome(self) -> Result<Option<T>> {
        self.map(Some)
    }
}

impl<T> Outcome<T> for Result<Option<T>> {
    fn outcome(self) -> Result<Option<T>> {
        self
    }
}

/// An overload of one argument, computed row by row; NULL gives NULL.
pub(super) fn fn1<A: SqlType, R: SqlType, O: Outcome<R::Owned>>(
    f: impl for<'a> Fn(A::Value<'a>) -> O + Send + Sync + 'static,
) -> Overload {
    styled1::<A, R, O>(move |_, a| f(a))
}

/// As [`fn1`], with the session's style.
pub(super) fn styled1<A: SqlType, R: SqlType, O: Outcome<R::Owned>>(
    f: impl for<'a> Fn(&TextStyle, A::Value<'a>) -> O + Send + Sync + 'static,
) -> Overload {
    over(&[A::data_type()], R::data_type(), move |args| {
        let a = args.columns[0].reader::<A>()?;
        let rows = 0..args.rows;
        let values = rows.map(|row| match a.get(row) {
            Some(a) => f(&args.style, a).outcome(),
            None => Ok(None),
        });
        R::collect(values.collect::<Result<_>>()?)
    })
}

pub(super) fn fn2<A: SqlType, B: SqlType, R: SqlType, O: Outcome<R::Owned>>(
    f: impl for<'a, 'b> Fn(A::Value<'a>, B::Value<'b>) -> O + Send + Sync + 'static,
) -> Overload {
    styled2::<A, B, R, O>(move |_, a, b| f(a, b))
}

pub(super) fn styled2<A: SqlType, B: SqlType, R: SqlType, O: Outcome<R::Owned>>(
    f: impl for<'a, 'b> Fn(&TextStyle, A::Value<'a>, B::Value<'b>) -> O + Send + Sync + 'static,
) -> Overload {
    over(
        &[A::data_type(), B::data_type()],
        R::data_type(),
        move |args| {
            let a = args.columns[0].reader::<A>()?;
            let b = args.columns[1].reader::<B>()?;
            let rows = 0..args.rows;
            let values = rows.map(|row| match (a.get(row), b.get(row)) {
                (Some(a), Some(b)) => f(&args.style, a, b).outcome(),
                _ => Ok(None),
            });
            R::collect(values.collect::<Result<_>>()?)
        },
    )
}

pub(super) fn fn3<A: SqlType, B: SqlType, C: SqlType, R: SqlType, O: Outcome<R::Owned>>(
    f: impl for<'a, 'b, 'c> Fn(A::Value<'a>, B::Value<'b>, C::Value<'c>) -> O + Send + Sync + 'static,
) -> Overload {
    let params = [A::data_type(), B::data_type(), C::data_type()];
    over(&params, R::data_type(), move |args| {
        let a = args.columns[0].reader::<A>()?;
        let b = args.columns[1].reader::<B>()?;
        let c = args.columns[2].reader::<C>()?;
        let rows = 0..args.rows;
        let values = rows.map(|row| match (a.get(row), b.get(row), c.get(row)) {
            (Some(a), Some(b), Some(c)) => f(a, b, c).outcome(),
            _ => Ok(None),
        });
        R::collect(values.collect::<Result<_>>()?)
    })
}

/// The session's settings that texts depend on, from DataFusion's configuration.
pub(super) fn style_of(config: &ConfigOptions) -> Result<TextStyle> {
    match config.execution.time_zone.as_deref() {
        None | Some("UTC" | "+00:00") => Ok(TextStyle::default()),
        Some(name) => TextStyle::with_time_zone(name),
    }
}

impl ScalarUDFImpl for Function {
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
        let returns = match &self.body {
            Body::Overloads(all) => self.choose(all, arg_types).map(|o| o.returns.clone()),
            Body::Generic { arity, typing, .. } => match arity.contains(&arg_types.len()) {
                true => typing(arg_types),
                false => Err(self.undefined(arg_types)),
            },
        };
        returns.map_err(to_df)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        self.invoke(args).map_err(to_df)
    }
}

impl Function {
    fn invoke(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let style = style_of(&args.config_options)?;
        let volatile = self.signature.volatility == Volatility::Volatile;
        let constant = !volatile
            && args
                .args
                .iter()
                .all(|a| matches!(a, ColumnarValue::Scalar(_)));
        let rows = if constant { 1 } else { args.number_rows };
        let mut columns = args
            .args
            .iter()
            .map(column_of)
            .collect::<Result<Vec<_>>>()?;
        let eval = match &self.body {
            Body::Generic { eval, .. } => eval,
            Body::Overloads(all) => {
                let types: Vec<_> = columns
                    .iter()
                    .map(|c| c.array.data_type().clone())
                    .collect();
                let overload = self.choose(all, &types)?;
                for (i, column) in columns.iter_mut().enumerate() {
                    if let Some(param) = overload.param(i)
                        && column.array.data_type() != param
                    {
                        column.array = cast_array(&column.array, param, &style)?;
                    }
                }
                &overload.eval
            }
        };
        let result = eval(&Args {
            columns,
            rows,
            style,
        })?;
        if !constant {
            return Ok(ColumnarValue::Array(result));
        }
        let value = ScalarValue::try_from_array(&result, 0);
        let value = value.map_err(|error| Error::internal(error.to_string()))?;
        Ok(ColumnarValue::Scalar(value))
    }
}

fn column_of(value: &ColumnarValue) -> Result<Column> {
    Ok(match value {
        ColumnarValue::Array(array) => Column {
            array: array.clone(),
            constant: false,
        },
        ColumnarValue::Scalar(scalar) => Column {
            array: scalar
                .to_array()
                .map_err(|error| Error::internal(error.to_string()))?,
            constant: true,
        },
    })
}

// Functions are equal when their names are: the registry has one function to a name.
impl PartialEq for Function {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Function {}

impl Hash for Function {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl std::fmt::Debug for Function {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name)
    }
}
