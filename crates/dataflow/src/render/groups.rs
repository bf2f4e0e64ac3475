//! Aggregates that are recomputed over their group when it changes.
//!
//! differential's `reduce` hands over the group's values whenever one of them changes; they are
//! decoded into a batch and every aggregate is computed from scratch.

use arrow::array::{ArrayRef, new_null_array};
use arrow::datatypes::DataType;
use ruslo_repr::eval::GroupProgram;
use ruslo_repr::row::unnamed_batch;
use ruslo_repr::{Aggregate, AggregateFunction, Diff, Error, Result, RowCodec};

use super::Context;
use super::errors::{ErrorRows, Reporter};
use super::portions::rows_of;
use super::reduce::masked;
use crate::block::Shape;
use crate::spine::{RowBuilder, RowSpine, RowStream, RowUpdate, SharedRows};

pub(crate) type GroupInput<'a> = [(&'a [u8], Diff)];
pub(crate) type GroupOutput = Vec<(Vec<u8>, Diff)>;

/// Renders a function of each group's values, which come in the order of their bytes.
pub(crate) fn reduce<'s>(
    arranged: SharedRows<'s>,
    name: &str,
    mut logic: impl FnMut(&[u8], &GroupInput, &mut GroupOutput) + 'static,
    context: &mut Context<'_, 's>,
) -> RowStream<'s> {
    let reduced = arranged.reduce_abelian::<_, RowBuilder, RowSpine, _, _>(
        name,
        move |key, group, output| logic(key, group, output),
        |buffer: &mut Vec<RowUpdate>, key, updates| {
            buffer.clear();
            let updates = updates.drain(..);
            buffer.extend(updates.map(|(value, time, diff)| ((key.to_vec(), value), time, diff)));
        },
    );
    rows_of(context.share(reduced))
}

/// The columns that aggregates read, ascending.
pub(crate) fn needed_columns(aggregates: &[Aggregate]) -> Vec<usize> {
    let columns = aggregates
        .iter()
        .flat_map(|a| a.args.iter().copied().chain(a.filter));
    let mut columns: Vec<usize> = columns.collect();
    columns.sort();
    columns.dedup();
    columns
}

/// Renders aggregates over an arrangement whose values are the columns `needed`.
pub(crate) fn over_needed<'s>(
    arranged: SharedRows<'s>,
    value: Vec<DataType>,
    aggregates: &[Aggregate],
    needed: &[usize],
    keyless: bool,
    context: &mut Context<'_, 's>,
) -> Result<RowStream<'s>> {
    let reader = GroupReader {
        key: None,
        columns: (0..needed.len()).collect(),
        value: RowCodec::new(&value)?,
        keyless,
    };
    recompute(arranged, reader, value, aggregates, needed, context)
}

/// Renders aggregates over an arrangement of whole rows by the group key.
pub(crate) fn over_arrangement<'s>(
    arranged: SharedRows<'s>,
    shape: &Shape,
    aggregates: &[Aggregate],
    types: &[DataType],
    context: &mut Context<'_, 's>,
) -> Result<RowStream<'s>> {
    let needed = needed_columns(aggregates);
    let places: Vec<usize> = needed.iter().map(|&column| shape.columns[column]).collect();
    let reads_key = places.iter().any(|&place| place < shape.key.len());
    let skipped = if reads_key { 0 } else { shape.key.len() };
    let reader = GroupReader {
        key: reads_key.then(|| RowCodec::new(&shape.key)).transpose()?,
        columns: places.iter().map(|&place| place - skipped).collect(),
        value: RowCodec::new(&shape.value)?,
        keyless: false,
    };
    let read = needed.iter().map(|&column| types[column].clone()).collect();
    recompute(arranged, reader, read, aggregates, &needed, context)
}

fn recompute<'s>(
    arranged: SharedRows<'s>,
    reader: GroupReader,
    read: Vec<DataType>,
    aggregates: &[Aggregate],
    needed: &[usize],
    context: &mut Context<'_, 's>,
) -> Result<RowStream<'s>> {
    let outputs = aggregates
        .iter()
        .map(|a| GroupAggregate::new(a, needed, &read, context));
    let outputs = outputs.collect::<Result<Vec<_>>>()?;
    let types: Vec<DataType> = aggregates.iter().map(|a| a.ty.clone()).collect();
    let recompute = Recompute {
        reader,
        outputs,
        codec: RowCodec::new(&types)?,
        errors: ErrorRows::new()?,
        report: context.report.clone(),
    };
    let logic = move |key: &[u8], group: &GroupInput, output: &mut GroupOutput| {
        if let Some(Some(value)) = recompute.report.unless_ok(recompute.row(key, group)) {
            output.push((value, 1));
        }
    };
    let tagged = reduce(arranged, "Recompute", logic, context);
    use timely::dataflow::operators::vec::Map;
    let outcomes = tagged.flat_map(|((key, tagged), time, diff)| {
        let (row, errors) = untag(&tagged);
        let row = Ok(((key, row.to_vec()), time, diff));
        let errors = errors.into_iter();
        let errors = errors.map(move |error| Err(((error, vec![]), time, diff)));
        [row].into_iter().chain(errors).collect::<Vec<_>>()
    });
    Ok(context.split_errors(outcomes))
}

/// Decodes the rows of a group.
struct GroupReader {
    /// Set when aggregates read columns of the key.
    key: Option<RowCodec>,
    value: RowCodec,
    /// The needed columns among the decoded ones.
    columns: Vec<usize>,
    keyless: bool,
}

impl GroupReader {
    /// The needed columns and the number of rows; `None` for a group that is not there.
    fn read(&self, key: &[u8], group: &GroupInput) -> Result<Option<(Vec<ArrayRef>, usize)>> {
        let mut values = vec![];
        let mut exists = false;
        for &(value, diff) in group {
            exists |= diff > 0;
            let marker = i64::from(self.keyless && value.is_empty());
            let copies = usize::try_from(diff - marker).unwrap_or(0);
            values.extend(std::iter::repeat_n(value, copies));
        }
        if !exists {
            return Ok(None);
        }
        let len = values.len();
        let mut decoded = match &self.key {
            Some(codec) => codec.decode(std::iter::repeat_n(key, len))?,
            None => vec![],
        };
        decoded.extend(self.value.decode(values)?);
        let columns = self.columns.iter().map(|&i| decoded[i].clone());
        Ok(Some((columns.collect(), len)))
    }
}

/// An aggregate over the needed columns of one group.
enum GroupAggregate {
    Extreme {
        column: usize,
        filter: Option<usize>,
        largest: bool,
        codec: RowCodec,
    },
    Program {
        program: Box<dyn GroupProgram>,
        ty: DataType,
        text: String,
    },
}

impl GroupAggregate {
    fn new(
        aggregate: &Aggregate,
        needed: &[usize],
        types: &[DataType],
        context: &Context<'_, '_>,
    ) -> Result<GroupAggregate> {
        let place = |column: usize| {
            let place = needed.iter().position(|&n| n == column);
            place.ok_or_else(|| Error::internal("an aggregate reads a column that is not there"))
        };
        let mut local = aggregate.clone();
        for column in local.args.iter_mut().chain(local.filter.as_mut()) {
            *column = place(*column)?;
        }
        match local.function {
            AggregateFunction::Min | AggregateFunction::Max => Ok(GroupAggregate::Extreme {
                column: local.args[0],
                filter: local.filter,
                largest: local.function == AggregateFunction::Max,
                codec: RowCodec::new(&types[local.args[0]..=local.args[0]])?,
            }),
            _ => Ok(GroupAggregate::Program {
                program: context.evaluator.aggregate(&local, types)?,
                ty: local.ty,
                text: local.text,
            }),
        }
    }

    /// An array of one value; an error to note beside it when it could not be computed.
    fn evaluate(&self, columns: &[ArrayRef], len: usize) -> Result<(ArrayRef, Option<Error>)> {
        match self {
            GroupAggregate::Extreme {
                column,
                filter,
                largest,
                codec,
            } => {
                let column = masked(&columns[*column], filter.map(|f| &columns[f]))?;
                let encoded = codec.encode(std::slice::from_ref(&column), len)?;
                let valid = (0..len).filter(|&row| column.is_valid(row));
                let extreme = match largest {
                    true => valid.max_by_key(|&row| encoded.row(row)),
                    false => valid.min_by_key(|&row| encoded.row(row)),
                };
                let value = match extreme {
                    Some(row) => column.slice(row, 1),
                    None => new_null_array(column.data_type(), 1),
                };
                Ok((value, None))
            }
            GroupAggregate::Program { program, ty, .. } => {
                let batch = unnamed_batch(columns.to_vec(), len)?;
                match program.evaluate(&batch) {
                    Ok(value) => Ok((value, None)),
                    Err(error) => Ok((new_null_array(ty, 1), Some(error))),
                }
            }
        }
    }

    fn text(&self) -> &str {
        match self {
            GroupAggregate::Extreme { .. } => "",
            GroupAggregate::Program { text, .. } => text,
        }
    }
}

struct Recompute {
    reader: GroupReader,
    outputs: Vec<GroupAggregate>,
    codec: RowCodec,
    errors: ErrorRows,
    report: Reporter,
}

impl Recompute {
    /// The results of a group and its errors, tagged into one value.
    fn row(&self, key: &[u8], group: &GroupInput) -> Result<Option<Vec<u8>>> {
        let Some((columns, len)) = self.reader.read(key, group)? else {
            return Ok(None);
        };
        let mut results = vec![];
        let mut errors = vec![];
        for output in &self.outputs {
            let (value, error) = output.evaluate(&columns, len)?;
            results.push(value);
            if let Some(error) = error {
                errors.push(self.errors.encode(output.text(), &error.message)?);
            }
        }
        let encoded = self.codec.encode(&results, 1)?;
        Ok(Some(tag(encoded.row(0), &errors)))
    }
}

/// Puts a row and its errors into one byte string.
fn tag(row: &[u8], errors: &[Vec<u8>]) -> Vec<u8> {
    let mut tagged = vec![];
    for part in [row].into_iter().chain(errors.iter().map(Vec::as_slice)) {
        tagged.extend_from_slice(&(part.len() as u32).to_le_bytes());
        tagged.extend_from_slice(part);
    }
    tagged
}

fn untag(mut tagged: &[u8]) -> (&[u8], Vec<Vec<u8>>) {
    let mut parts = std::iter::from_fn(|| {
        let (len, rest) = tagged.split_first_chunk::<4>()?;
        let (part, rest) = rest.split_at_checked(u32::from_le_bytes(*len) as usize)?;
        tagged = rest;
        Some(part)
    });
    let row = parts.next().unwrap_or_default();
    (row, parts.map(<[u8]>::to_vec).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tagged_row_keeps_its_errors() {
        let tagged = tag(b"row", &[b"first".to_vec(), vec![]]);
        assert_eq!(
            untag(&tagged),
            (&b"row"[..], vec![b"first".to_vec(), vec![]])
        );
        assert_eq!(untag(&tag(b"", &[])), (&b""[..], vec![]));
    }
}
