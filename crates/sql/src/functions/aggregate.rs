//! Aggregates whose result types or values differ from DataFusion's own.
//!
//! An aggregate is a [`Fold`]: it takes rows in, may take them out again (for sliding window
//! frames), and shows its result and its state at any time. DISTINCT is a fold around another.

mod collect;
mod extremum;
mod ordered;
mod sum;
mod variance;

use std::fmt::Debug;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::cast::AsArray;
use arrow::array::{Array, ArrayRef};
use arrow::compute::take;
use arrow::datatypes::{DataType, Field, FieldRef};
use arrow::row::{RowConverter, SortField};
use datafusion::common::ScalarValue;
use datafusion::common::utils::SingleRowListArrayBuilder;
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::{AggregateOrderSensitivity, format_state_name};
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, Signature, Volatility,
};
use ruslo_repr::schema::{list_of, type_name};
use ruslo_repr::text::TextStyle;
use ruslo_repr::{Error, ErrorKind, Result};

use super::key::key_array;
use super::overload::to_df;

pub use extremum::{ALIKE, shows_key};

pub(super) fn functions() -> Vec<Arc<AggregateUDF>> {
    let all = [
        sum::functions(),
        extremum::functions(),
        variance::functions(),
        collect::functions(),
    ];
    all.into_iter()
        .flatten()
        .map(|f| Arc::new(AggregateUDF::new_from_impl(f)))
        .collect()
}

/// The running value of an aggregate over one group.
trait Fold: Debug + Send + Sync {
    /// Takes rows in; the columns are the arguments.
    fn add(&mut self, columns: &[ArrayRef]) -> Result<()>;

    /// Takes rows out that were taken in before.
    fn remove(&mut self, _columns: &[ArrayRef]) -> Result<()> {
        Err(Error::internal("this aggregate cannot take rows back"))
    }

    fn can_remove(&self) -> bool {
        false
    }

    fn result(&mut self) -> Result<ScalarValue>;

    /// Values from which another fold can go on, always of the same types.
    fn state(&mut self) -> Result<Vec<ScalarValue>>;

    /// Takes in states of others, a column for each value of [`Fold::state`].
    fn merge(&mut self, states: &[ArrayRef]) -> Result<()>;

    fn size(&self) -> usize {
        size_of_val(self)
    }
}

/// Bytes that a row, or an array, takes beside its values.
const ROW_BYTES: usize = 64;

/// The result's type from the argument types, or `None` if there is no such aggregate.
type Typing = fn(&[DataType]) -> Option<DataType>;
type Start = fn(&[DataType]) -> Result<Box<dyn Fold>>;

/// An aggregate of ours.
struct Aggregate {
    name: &'static str,
    aliases: Vec<String>,
    signature: Signature,
    typing: Typing,
    start: Start,
    ordered: bool,
}

impl Aggregate {
    fn new(name: &'static str, typing: Typing, start: Start) -> Self {
        Aggregate {
            name,
            aliases: vec![],
            signature: Signature::user_defined(Volatility::Immutable),
            typing,
            start,
            ordered: false,
        }
    }

    fn alias(mut self, alias: &str) -> Self {
        self.aliases.push(alias.to_string());
        self
    }

    /// The result depends on the order of rows.
    fn ordered(mut self) -> Self {
        self.ordered = true;
        self
    }

    fn fold(&self, types: &[DataType], distinct: bool) -> Result<Box<dyn Fold>> {
        let inner = (self.start)(types)?;
        match distinct {
            true => Ok(Box::new(Distinct::new(types, inner)?)),
            false => Ok(inner),
        }
    }
}

impl AggregateUDFImpl for Aggregate {
    fn name(&self) -> &str {
        self.name
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> DfResult<Vec<DataType>> {
        Ok(arg_types.to_vec())
    }

    fn return_type(&self, arg_types: &[DataType]) -> DfResult<DataType> {
        (self.typing)(arg_types).ok_or_else(|| {
            let types: Vec<String> = arg_types.iter().map(type_name).collect();
            let message = format!(
                "function {}({}) does not exist",
                self.name,
                types.join(", ")
            );
            let error = Error::new(ErrorKind::UndefinedFunction, message);
            to_df(error.with_hint(
                "No function matches the given name and argument types. \
                 You might need to add explicit type casts.",
            ))
        })
    }

    fn accumulator(&self, args: AccumulatorArgs) -> DfResult<Box<dyn Accumulator>> {
        let types = args.expr_fields.iter().map(|f| f.data_type().clone());
        let types: Vec<_> = types.collect();
        let fold = self.fold(&types, args.is_distinct).map_err(to_df)?;
        if !self.ordered || args.order_bys.is_empty() {
            let arguments = types.len();
            return Ok(Box::new(Running { fold, arguments }));
        }
        let sorting: Vec<_> = args.order_bys.iter().map(|sort| sort.options).collect();
        let sorted_by = args
            .order_bys
            .iter()
            .map(|sort| sort.expr.data_type(args.schema));
        let columns = types.into_iter().map(Ok).chain(sorted_by);
        let columns = columns.collect::<DfResult<Vec<_>>>()?;
        let arguments = columns.len();
        let fold = Box::new(ordered::Ordered::new(columns, sorting, fold));
        Ok(Box::new(Running { fold, arguments }))
    }

    fn state_fields(&self, args: StateFieldsArgs) -> DfResult<Vec<FieldRef>> {
        let types = args.input_fields.iter().map(|f| f.data_type().clone());
        let types: Vec<_> = types.collect();
        let mut fold = self.fold(&types, args.is_distinct).map_err(to_df)?;
        if self.ordered && !args.ordering_fields.is_empty() {
            let columns = types
                .iter()
                .chain(args.ordering_fields.iter().map(|f| f.data_type()));
            let fields = columns.enumerate().map(|(i, ty)| {
                let name = format_state_name(args.name, &format!("rows{i}"));
                Arc::new(Field::new(name, list_of(ty.clone()), true))
            });
            return Ok(fields.collect());
        }
        let state = fold.state().map_err(to_df)?;
        let fields = state.iter().enumerate().map(|(i, value)| {
            let name = format_state_name(args.name, &format!("state{i}"));
            Arc::new(Field::new(name, value.data_type(), true))
        });
        Ok(fields.collect())
    }

    /// Already sorted input gains nothing: the rows are kept all the same.
    fn with_beneficial_ordering(
        self: Arc<Self>,
        _beneficial_ordering: bool,
    ) -> DfResult<Option<Arc<dyn AggregateUDFImpl>>> {
        Ok(Some(self))
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        match self.ordered {
            // It sorts its rows itself, but must be given what to sort by.
            true => AggregateOrderSensitivity::SoftRequirement,
            false => AggregateOrderSensitivity::Insensitive,
        }
    }
}

// Aggregates are equal when their names are: the registry has one to a name.
impl PartialEq for Aggregate {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Aggregate {}

impl Hash for Aggregate {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl Debug for Aggregate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

/// A fold as DataFusion drives it.
#[derive(Debug)]
struct Running {
    fold: Box<dyn Fold>,
    /// DataFusion may hand over columns to sort by behind these.
    arguments: usize,
}

impl Running {
    fn arguments<'a>(&self, values: &'a [ArrayRef]) -> &'a [ArrayRef] {
        &values[..self.arguments.min(values.len())]
    }
}

impl Accumulator for Running {
    fn update_batch(&mut self, values: &[ArrayRef]) -> DfResult<()> {
        let values = self.arguments(values);
        self.fold.add(values).map_err(to_df)
    }

    fn evaluate(&mut self) -> DfResult<ScalarValue> {
        self.fold.result().map_err(to_df)
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.fold.size()
    }

    fn state(&mut self) -> DfResult<Vec<ScalarValue>> {
        self.fold.state().map_err(to_df)
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> DfResult<()> {
        self.fold.merge(states).map_err(to_df)
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> DfResult<()> {
        let values = self.arguments(values);
        self.fold.remove(values).map_err(to_df)
    }

    fn supports_retract_batch(&self) -> bool {
        self.fold.can_remove()
    }
}

/// Hands each distinct combination of arguments on once, in the order of first appearance.
#[derive(Debug)]
struct Distinct {
    converter: RowConverter,
    seen: std::collections::HashSet<Vec<u8>>,
    /// What was handed on, per argument, to be the state.
    kept: Vec<Vec<ArrayRef>>,
    types: Vec<DataType>,
    /// Bytes of all that.
    bytes: usize,
    inner: Box<dyn Fold>,
}

impl Distinct {
    fn new(types: &[DataType], inner: Box<dyn Fold>) -> Result<Self> {
        let fields = types.iter().cloned().map(SortField::new).collect();
        Ok(Distinct {
            converter: RowConverter::new(fields)?,
            seen: Default::default(),
            kept: vec![vec![]; types.len()],
            types: types.to_vec(),
            bytes: 0,
            inner,
        })
    }

    /// Whether a row is there for the first time.
    fn is_fresh(&mut self, row: &[u8]) -> bool {
        let is_fresh = self.seen.insert(row.to_vec());
        if is_fresh {
            self.bytes += row.len() + ROW_BYTES;
        }
        is_fresh
    }
}

impl Fold for Distinct {
    fn add(&mut self, columns: &[ArrayRef]) -> Result<()> {
        let keys = columns.iter().map(key_array).collect::<Result<Vec<_>>>()?;
        let rows = self.converter.convert_columns(&keys)?;
        let fresh = rows.iter().enumerate();
        let fresh = fresh.filter(|(_, row)| self.is_fresh(row.data()));
        let fresh: Vec<u64> = fresh.map(|(i, _)| i as u64).collect();
        if fresh.is_empty() {
            return Ok(());
        }
        let fresh = arrow::array::UInt64Array::from(fresh);
        let picked = columns.iter().map(|c| take(c, &fresh, None));
        let picked = picked.collect::<Result<Vec<_>, _>>()?;
        for (kept, column) in self.kept.iter_mut().zip(&picked) {
            self.bytes += bytes_of(column);
            kept.push(column.clone());
        }
        self.inner.add(&picked)
    }

    fn result(&mut self) -> Result<ScalarValue> {
        self.inner.result()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let columns = self.kept.iter().zip(&self.types);
        columns.map(|(kept, ty)| list_of_parts(kept, ty)).collect()
    }

    fn merge(&mut self, states: &[ArrayRef]) -> Result<()> {
        columns_of_lists(states)?
            .iter()
            .try_for_each(|columns| self.add(columns))
    }

    fn size(&self) -> usize {
        size_of::<Self>() + self.bytes + self.inner.size()
    }
}

/// Bytes of an array, without what others have of its buffers.
fn bytes_of(array: &ArrayRef) -> usize {
    array.to_data().get_slice_memory_size().unwrap_or(0) + ROW_BYTES
}

/// A state that is all values of a column so far.
fn list_of_parts(parts: &[ArrayRef], ty: &DataType) -> Result<ScalarValue> {
    let parts: Vec<&dyn Array> = parts.iter().map(|c| c.as_ref()).collect();
    let values = match parts.as_slice() {
        [] => arrow::array::new_empty_array(ty),
        parts => arrow::compute::concat(parts)?,
    };
    Ok(SingleRowListArrayBuilder::new(values).build_list_scalar())
}

/// The columns that states of [`list_of_parts`] hold, state by state.
fn columns_of_lists(states: &[ArrayRef]) -> Result<Vec<Vec<ArrayRef>>> {
    let rows = states.first().map_or(0, |first| first.len());
    let columns = (0..rows).map(|row| {
        let columns = states.iter().map(|lists| {
            let list = lists.as_list_opt::<i32>();
            let list = list.ok_or_else(|| Error::internal("a state is not a list"))?;
            Ok(list.value(row))
        });
        columns.collect()
    });
    columns.collect()
}

/// The one value of an array of length one.
fn scalar_of(array: &ArrayRef) -> Result<ScalarValue> {
    ScalarValue::try_from_array(array, 0).map_err(|error| Error::internal(error.to_string()))
}

/// Aggregates run apart from a session: texts in them are in UTC.
fn style() -> TextStyle {
    TextStyle::default()
}
