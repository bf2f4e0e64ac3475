//! The vector side: rows as Arrow columns, with the time and diff of each beside them.
//!
//! What comes from a source has one time and diff for the whole block; what comes from an
//! arrangement has its own for every row. A [`Shape`] says how the columns of a collection lie in
//! its (key, value) bytes; [`Encoder`] and [`Decoder`] are the border between the two sides.
//!
//! ```text
//!   columns  c0 c1 c2 c3      arranged by [2]:  key = bytes(c2), value = bytes(c0 c1 c3)
//! ```

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, UInt32Array};
use arrow::compute;
use arrow::datatypes::DataType;
use ruslo_repr::{Diff, Result, RowCodec, Time};
use timely::dataflow::Stream;

use crate::protocol::arranged_columns;
use crate::spine::RowUpdate;

/// Rows that are decoded at once: enough for vectors to pay, small enough for the cache.
pub(crate) const BLOCK_ROWS: usize = 8192;

pub(crate) type BlockStream<'s> = Stream<'s, Time, Vec<Block>>;

/// The time and diff of each row of a block.
#[derive(Clone, Debug)]
pub(crate) enum Stamps {
    /// All rows have these.
    Same(Time, Diff),
    Each(Arc<[(Time, Diff)]>),
}

impl Stamps {
    pub(crate) fn get(&self, row: usize) -> (Time, Diff) {
        match self {
            Stamps::Same(time, diff) => (*time, *diff),
            Stamps::Each(stamps) => stamps[row],
        }
    }
}

/// Some rows of a collection, column by column.
#[derive(Clone, Debug)]
pub(crate) struct Block {
    pub(crate) columns: Vec<ArrayRef>,
    pub(crate) len: usize,
    pub(crate) stamps: Stamps,
}

impl Block {
    /// The block with other columns, which have the same length.
    pub(crate) fn with_columns(&self, columns: Vec<ArrayRef>) -> Block {
        Block {
            columns,
            len: self.len,
            stamps: self.stamps.clone(),
        }
    }

    pub(crate) fn slice(&self, offset: usize, len: usize) -> Block {
        let columns = self.columns.iter().map(|c| c.slice(offset, len));
        let stamps = match &self.stamps {
            Stamps::Each(stamps) => Stamps::Each(stamps[offset..offset + len].into()),
            same => same.clone(),
        };
        Block {
            columns: columns.collect(),
            len,
            stamps,
        }
    }

    /// The rows for which `keep` is true (not false, not NULL).
    pub(crate) fn filter(&self, keep: &BooleanArray) -> Result<Block> {
        let selected = only_true(keep);
        let len = selected.true_count();
        if len == self.len {
            return Ok(self.clone());
        }
        let predicate = compute::FilterBuilder::new(&selected).optimize().build();
        let columns = self.columns.iter().map(|column| predicate.filter(column));
        let stamps = match &self.stamps {
            Stamps::Each(stamps) => {
                let kept = stamps.iter().zip(selected.values().iter());
                Stamps::Each(kept.filter(|(_, keep)| *keep).map(|(s, _)| *s).collect())
            }
            same => same.clone(),
        };
        Ok(Block {
            columns: columns.collect::<Result<_, _>>()?,
            len,
            stamps,
        })
    }

    /// The rows at `indexes`, in that order.
    pub(crate) fn take(&self, indexes: Vec<u32>) -> Result<Block> {
        let stamps = match &self.stamps {
            Stamps::Each(stamps) => {
                Stamps::Each(indexes.iter().map(|&i| stamps[i as usize]).collect())
            }
            same => same.clone(),
        };
        let len = indexes.len();
        let indexes = UInt32Array::from(indexes);
        let columns = self.columns.iter();
        let columns = columns.map(|column| compute::take(column, &indexes, None));
        Ok(Block {
            columns: columns.collect::<Result<_, _>>()?,
            len,
            stamps,
        })
    }
}

/// The boolean column's rows that are true, with NULL counted as false.
pub(crate) fn is_true(column: &dyn Array) -> Option<BooleanArray> {
    let flags = column.as_any().downcast_ref::<BooleanArray>()?;
    Some(only_true(flags))
}

fn only_true(flags: &BooleanArray) -> BooleanArray {
    match flags.null_count() {
        0 => flags.clone(),
        _ => compute::prep_null_mask_filter(flags),
    }
}

/// Where the columns of a collection are in its encoded (key, value) pairs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) key: Vec<DataType>,
    pub(crate) value: Vec<DataType>,
    /// For each column, its place among the key's columns followed by the value's.
    pub(crate) columns: Vec<usize>,
}

impl Shape {
    /// The shape of a collection with columns of `types` that is arranged by `key`.
    pub(crate) fn arranged(types: &[DataType], key: &[usize]) -> Shape {
        let order = arranged_columns(types.len(), key);
        let mut columns = vec![0; types.len()];
        for (place, &column) in order.iter().enumerate() {
            columns[column] = place;
        }
        let (key, value) = order.split_at(key.len());
        let pick = |columns: &[usize]| columns.iter().map(|&c| types[c].clone()).collect();
        Shape {
            key: pick(key),
            value: pick(value),
            columns,
        }
    }

    /// The types of the columns, in order.
    pub(crate) fn types(&self) -> Vec<DataType> {
        let encoded: Vec<_> = self.key.iter().chain(&self.value).collect();
        self.columns.iter().map(|&i| encoded[i].clone()).collect()
    }

    /// Whether the pairs are just what an arrangement by `key` would hold.
    pub(crate) fn is_arranged_by(&self, key: &[usize]) -> bool {
        let complete = self.key.len() + self.value.len() == self.columns.len();
        complete && *self == Shape::arranged(&self.types(), key)
    }

    /// The shape of a projection: column i is this one's column `columns[i]`.
    pub(crate) fn project(&self, columns: &[usize]) -> Shape {
        Shape {
            columns: columns.iter().map(|&c| self.columns[c]).collect(),
            ..self.clone()
        }
    }
}

/// Turns blocks into (key, value) pairs of an arrangement.
pub(crate) struct Encoder {
    key: RowCodec,
    value: RowCodec,
    key_columns: Vec<usize>,
    value_columns: Vec<usize>,
}

impl Encoder {
    /// Fails for a type that has no row form.
    pub(crate) fn new(types: &[DataType], key: &[usize]) -> Result<Encoder> {
        let shape = Shape::arranged(types, key);
        let order = arranged_columns(types.len(), key);
        Ok(Encoder {
            key: RowCodec::new(&shape.key)?,
            value: RowCodec::new(&shape.value)?,
            key_columns: order[..key.len()].to_vec(),
            value_columns: order[key.len()..].to_vec(),
        })
    }

    /// Hands every row of the block to `give`.
    pub(crate) fn encode(&self, block: &Block, mut give: impl FnMut(RowUpdate)) -> Result<()> {
        let pick = |columns: &[usize]| -> Vec<ArrayRef> {
            columns.iter().map(|&c| block.columns[c].clone()).collect()
        };
        let keys = self.key.encode(&pick(&self.key_columns), block.len)?;
        let values = self.value.encode(&pick(&self.value_columns), block.len)?;
        for row in 0..block.len {
            let (time, diff) = block.stamps.get(row);
            let pair = (keys.row(row).to_vec(), values.row(row).to_vec());
            give((pair, time, diff));
        }
        Ok(())
    }
}

/// Turns (key, value) pairs back into columns.
pub(crate) struct Decoder {
    key: RowCodec,
    value: RowCodec,
    columns: Vec<usize>,
}

impl Decoder {
    pub(crate) fn new(shape: &Shape) -> Result<Decoder> {
        Ok(Decoder {
            key: RowCodec::new(&shape.key)?,
            value: RowCodec::new(&shape.value)?,
            columns: shape.columns.clone(),
        })
    }

    /// The collection's columns for pairs of equally many keys and values.
    pub(crate) fn decode(&self, keys: &[&[u8]], values: &[&[u8]]) -> Result<Vec<ArrayRef>> {
        let mut encoded = self.key.decode(keys.iter().copied())?;
        encoded.extend(self.value.decode(values.iter().copied())?);
        Ok(self.columns.iter().map(|&i| encoded[i].clone()).collect())
    }
}

/// Collects borrowed pairs and decodes them block by block.
pub(crate) struct Gather<'a> {
    decoder: &'a Decoder,
    keys: Vec<&'a [u8]>,
    values: Vec<&'a [u8]>,
    stamps: Vec<(Time, Diff)>,
    blocks: Vec<Block>,
}

impl<'a> Gather<'a> {
    pub(crate) fn new(decoder: &'a Decoder) -> Self {
        Gather {
            decoder,
            keys: vec![],
            values: vec![],
            stamps: vec![],
            blocks: vec![],
        }
    }

    pub(crate) fn push(
        &mut self,
        key: &'a [u8],
        value: &'a [u8],
        time: Time,
        diff: Diff,
    ) -> Result<()> {
        self.keys.push(key);
        self.values.push(value);
        self.stamps.push((time, diff));
        if self.keys.len() >= BLOCK_ROWS {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        if self.keys.is_empty() {
            return Ok(());
        }
        let columns = self.decoder.decode(&self.keys, &self.values)?;
        self.blocks.push(Block {
            columns,
            len: self.keys.len(),
            stamps: stamps_of(&self.stamps),
        });
        self.keys.clear();
        self.values.clear();
        self.stamps.clear();
        Ok(())
    }

    pub(crate) fn finish(mut self) -> Result<Vec<Block>> {
        self.flush()?;
        Ok(self.blocks)
    }
}

fn stamps_of(stamps: &[(Time, Diff)]) -> Stamps {
    match stamps.first() {
        Some(&(time, diff)) if stamps.iter().all(|s| *s == (time, diff)) => {
            Stamps::Same(time, diff)
        }
        _ => Stamps::Each(stamps.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Int64Array, StringArray};

    fn sample() -> (Block, Vec<DataType>) {
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), None, Some(3)]));
        let texts: ArrayRef = Arc::new(StringArray::from(vec![Some("a"), Some(""), None]));
        let block = Block {
            columns: vec![numbers, texts],
            len: 3,
            stamps: Stamps::Each([(5, 1), (5, -1), (6, 2)].into()),
        };
        (block, vec![DataType::Int64, DataType::Utf8])
    }

    #[test]
    fn rows_come_back_from_their_arranged_form() {
        let (block, types) = sample();
        for key in [vec![], vec![1], vec![1, 0]] {
            let mut rows = vec![];
            let encoder = Encoder::new(&types, &key).unwrap();
            encoder.encode(&block, |row| rows.push(row)).unwrap();
            let shape = Shape::arranged(&types, &key);
            assert!(shape.is_arranged_by(&key));
            let decoder = Decoder::new(&shape).unwrap();
            let mut gather = Gather::new(&decoder);
            for ((key, value), time, diff) in &rows {
                gather.push(key, value, *time, *diff).unwrap();
            }
            let blocks = gather.finish().unwrap();
            assert_eq!(blocks[0].columns, block.columns);
            assert_eq!(blocks[0].stamps.get(2), (6, 2));
        }
    }

    #[test]
    fn a_filter_keeps_times_and_diffs_with_their_rows() {
        let (block, _) = sample();
        let keep = BooleanArray::from(vec![None, Some(true), Some(true)]);
        let kept = block.filter(&keep).unwrap();
        assert_eq!(
            (kept.len, kept.stamps.get(0), kept.stamps.get(1)),
            (2, (5, -1), (6, 2))
        );
    }
}
