//! What the state of a point looks like as columns.
//!
//! | state | row columns | diff | sums |
//! | --- | --- | --- | --- |
//! | rows of a key and a value | both | their diff | |
//! | counts by key | key | the count | |
//! | [`Sums`] by key | key, `slot` | row count, in slot -1 | `value` of each other slot |
//! | [`Extremes`] by key | key, each value | 1 | |

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Decimal128Array, Int32Array, Int64Array, RecordBatch,
};
use arrow::datatypes::{DataType, Decimal128Type, Int32Type, Int64Type};
use ruslo_repr::row::batch_of;
use ruslo_repr::{Diff, Error, Result, RowCodec, Schema, Time};

use super::Form;
use crate::aggregate::{Extremes, Sums};
use crate::spine::{KeyUpdate, RowUpdate, State};

/// The column that tells the slots of one group apart, and the slot that counts its rows.
const SLOT: &str = "slot";
const ROWS: i32 = -1;

/// A row (key and value), and its diff.
pub(crate) type RowChange = ((Vec<u8>, Vec<u8>), Diff);

/// A form of accumulated states.
pub(crate) trait KeyForm<R: State>: Form<Update = KeyUpdate<R>> + Clone + 'static {
    /// States by key as columns.
    fn batch(&self, states: &[(Vec<u8>, R)]) -> Result<RecordBatch>;
}

fn columns(types: &[DataType], first: usize) -> Vec<(String, DataType)> {
    let types = types.iter().enumerate();
    types
        .map(|(i, ty)| (format!("c{}", first + i), ty.clone()))
        .collect()
}

/// Puts `diff`, and the sums if there are any, behind the row columns.
fn with_diffs(
    rows: &Schema,
    mut columns: Vec<ArrayRef>,
    diffs: Int64Array,
    sums: Option<Decimal128Array>,
) -> Result<RecordBatch> {
    let mut named = rows.columns.iter();
    let mut named: Vec<(String, DataType)> = named
        .by_ref()
        .map(|c| (c.name.clone(), c.ty.clone()))
        .collect();
    let len = diffs.len();
    named.push(("diff".into(), DataType::Int64));
    columns.push(Arc::new(diffs));
    if let Some(sums) = sums {
        named.push(("value".into(), sums.data_type().clone()));
        columns.push(Arc::new(sums));
    }
    batch_of(&Schema::new(named), columns, len)
}

fn diffs_of(batch: &RecordBatch, at: usize) -> Result<&Int64Array> {
    let column = batch.columns().get(at);
    let diffs = column.and_then(|column| column.as_primitive_opt::<Int64Type>());
    diffs.ok_or_else(|| Error::internal("stored state without diffs"))
}

/// Rows of a key and a value.
#[derive(Clone)]
pub(crate) struct RowForm {
    schema: Schema,
    key: Arc<RowCodec>,
    value: Arc<RowCodec>,
}

impl RowForm {
    pub(crate) fn new(key: &[DataType], value: &[DataType]) -> Result<RowForm> {
        let mut named = columns(key, 0);
        named.extend(columns(value, key.len()));
        Self::named(Schema::new(named), key.len())
    }

    /// The first `key` columns are the key.
    pub(crate) fn named(schema: Schema, key: usize) -> Result<RowForm> {
        let types = schema.types();
        Ok(RowForm {
            key: Arc::new(RowCodec::new(&types[..key])?),
            value: Arc::new(RowCodec::new(&types[key..])?),
            schema,
        })
    }

    /// Whether this is no row of the form, which would have bytes for its columns, but what makes
    /// the group of a reduce without keys exist.
    pub(crate) fn is_marker(&self, key: &[u8], value: &[u8]) -> bool {
        key.is_empty() && value.is_empty() && !self.schema.is_empty()
    }

    pub(crate) fn batch(&self, rows: &[RowChange]) -> Result<RecordBatch> {
        let mut columns = self.key.decode(rows.iter().map(|((key, _), _)| &key[..]))?;
        columns.extend(self.value.decode(rows.iter().map(|((_, v), _)| &v[..]))?);
        let diffs = rows.iter().map(|(_, diff)| *diff).collect();
        with_diffs(&self.schema, columns, diffs, None)
    }
}

impl Form for RowForm {
    type Update = RowUpdate;

    fn shape(&self) -> (Schema, Vec<String>) {
        (self.schema.clone(), vec![])
    }

    fn updates(&self, batch: &RecordBatch, time: Time) -> Result<Vec<RowUpdate>> {
        let (len, keys) = (batch.num_rows(), self.key.types().len());
        let diffs = diffs_of(batch, self.schema.len())?;
        let key = self.key.encode(&batch.columns()[..keys], len)?;
        let value = self
            .value
            .encode(&batch.columns()[keys..self.schema.len()], len)?;
        let rows = key.iter().zip(value.iter()).zip(diffs.values());
        let rows = rows.map(|((key, value), diff)| ((key.to_vec(), value.to_vec()), time, *diff));
        Ok(rows.collect())
    }
}

/// Counts by key.
#[derive(Clone)]
pub(crate) struct CountForm {
    schema: Schema,
    key: Arc<RowCodec>,
}

impl CountForm {
    pub(crate) fn new(key: &[DataType]) -> Result<CountForm> {
        Ok(CountForm {
            schema: Schema::new(columns(key, 0)),
            key: Arc::new(RowCodec::new(key)?),
        })
    }
}

impl Form for CountForm {
    type Update = KeyUpdate<i64>;

    fn shape(&self) -> (Schema, Vec<String>) {
        (self.schema.clone(), vec![])
    }

    fn updates(&self, batch: &RecordBatch, time: Time) -> Result<Vec<KeyUpdate<i64>>> {
        let diffs = diffs_of(batch, self.schema.len())?;
        let keys = self
            .key
            .encode(&batch.columns()[..self.schema.len()], batch.num_rows())?;
        let counts = keys.iter().zip(diffs.values());
        Ok(counts
            .map(|(key, diff)| ((key.to_vec(), ()), time, *diff))
            .collect())
    }
}

impl KeyForm<i64> for CountForm {
    fn batch(&self, states: &[(Vec<u8>, i64)]) -> Result<RecordBatch> {
        let columns = self.key.decode(states.iter().map(|(key, _)| &key[..]))?;
        let diffs = states.iter().map(|(_, count)| *count).collect();
        with_diffs(&self.schema, columns, diffs, None)
    }
}

/// [`Sums`] by key: a row for each slot.
#[derive(Clone)]
pub(crate) struct SumsForm {
    schema: Schema,
    key: Arc<RowCodec>,
}

impl SumsForm {
    pub(crate) fn new(key: &[DataType]) -> Result<SumsForm> {
        let mut named = columns(key, 0);
        named.push((SLOT.into(), DataType::Int32));
        Ok(SumsForm {
            schema: Schema::new(named),
            key: Arc::new(RowCodec::new(key)?),
        })
    }
}

impl Form for SumsForm {
    type Update = KeyUpdate<Sums>;

    fn shape(&self) -> (Schema, Vec<String>) {
        (self.schema.clone(), vec!["value".into()])
    }

    fn updates(&self, batch: &RecordBatch, time: Time) -> Result<Vec<KeyUpdate<Sums>>> {
        let (len, width) = (batch.num_rows(), self.schema.len());
        let keys = self.key.encode(&batch.columns()[..width - 1], len)?;
        let (slots, values) = (
            batch.columns().get(width - 1),
            batch.columns().get(width + 1),
        );
        let slots = slots.and_then(|column| column.as_primitive_opt::<Int32Type>());
        let values = values.and_then(|column| column.as_primitive_opt::<Decimal128Type>());
        let (Some(slots), Some(values)) = (slots, values) else {
            return Err(Error::internal("stored sums without slots"));
        };
        let diffs = diffs_of(batch, width)?;
        let updates = keys.iter().enumerate().map(|(row, key)| {
            let mut sums = Sums::of_rows(diffs.value(row));
            if let Ok(slot) = u16::try_from(slots.value(row)) {
                sums.add(slot, values.value(row));
            }
            ((key.to_vec(), ()), time, sums)
        });
        Ok(updates.collect())
    }
}

impl KeyForm<Sums> for SumsForm {
    fn batch(&self, states: &[(Vec<u8>, Sums)]) -> Result<RecordBatch> {
        let mut keys = vec![];
        let (mut slots, mut diffs, mut values) = (vec![], vec![], vec![]);
        for (key, sums) in states {
            let mut add = |slot: i32, diff: i64, value: i128| {
                keys.push(&key[..]);
                slots.push(slot);
                diffs.push(diff);
                values.push(value);
            };
            add(ROWS, sums.rows, 0);
            for (slot, value) in sums.range(0, u16::MAX) {
                add(i32::from(slot), 0, value);
            }
        }
        let mut columns = self.key.decode(keys)?;
        columns.push(Arc::new(Int32Array::from(slots)));
        // Sums are all of 128 bits, also where that is more than the digits of the type.
        let values = Decimal128Array::from(values).with_precision_and_scale(38, 0)?;
        with_diffs(&self.schema, columns, Int64Array::from(diffs), Some(values))
    }
}

/// [`Extremes`] by key: given back from the rows that came of them.
#[derive(Clone)]
pub(crate) struct ExtremesForm {
    pub(crate) rows: RowForm,
    /// Encodes one value.
    value: Arc<RowCodec>,
}

impl ExtremesForm {
    /// Rows of `wanted` values of a type by key.
    pub(crate) fn new(key: &[DataType], ty: &DataType, wanted: usize) -> Result<ExtremesForm> {
        Ok(ExtremesForm {
            rows: RowForm::new(key, &vec![ty.clone(); wanted])?,
            value: Arc::new(RowCodec::new(std::slice::from_ref(ty))?),
        })
    }
}

impl Form for ExtremesForm {
    type Update = KeyUpdate<Extremes>;

    fn shape(&self) -> (Schema, Vec<String>) {
        self.rows.shape()
    }

    /// A diff below zero takes back what another run of the collection says: both cancel before
    /// this is called only within a run, so they are carried as rows of the group. Values that
    /// were replaced are never better than those that replaced them.
    fn updates(&self, batch: &RecordBatch, time: Time) -> Result<Vec<KeyUpdate<Extremes>>> {
        let (len, keys) = (batch.num_rows(), self.rows.key.types().len());
        let diffs = diffs_of(batch, self.rows.schema.len())?;
        let key = self.rows.key.encode(&batch.columns()[..keys], len)?;
        let mut values = vec![];
        for column in &batch.columns()[keys..self.rows.schema.len()] {
            let nulls = column.logical_nulls();
            values.push((self.value.encode(std::slice::from_ref(column), len)?, nulls));
        }
        let updates = key.iter().enumerate().map(|(row, key)| {
            let mut state = Extremes {
                rows: diffs.value(row),
                ..Extremes::default()
            };
            for (encoded, nulls) in &values {
                if nulls.as_ref().is_none_or(|nulls| nulls.is_valid(row)) {
                    state.add(encoded.row(row));
                }
            }
            ((key.to_vec(), ()), time, state)
        });
        Ok(updates.collect())
    }
}
