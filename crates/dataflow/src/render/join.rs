//! Joins on equal keys: glued row bytes, never decoded on the way.
//!
//! ```text
//!   pairs(l, r)   = rows of l and r with equal keys         (and a true residual)
//!   unmatched(l)  = l − (l ⋈ keys of r)                     without residual
//!                 = l − (l ⋈ distinct left rows of pairs)   with residual
//!   left join     = pairs + unmatched(l) padded with NULLs; full adds unmatched(r)
//! ```
//!
//! A NULL key matches nothing (unless `null_equal`): such rows are taken out before a side is
//! arranged and, on a preserved side, put back among the unmatched. An imported arrangement may
//! hold them, so then the other side's missing NULLs or a check of the key keeps them apart.

use arrow::array::{Array, ArrayRef, BooleanArray, new_null_array};
use arrow::compute;
use arrow::datatypes::DataType;
use differential_dataflow::AsCollection;
use ruslo_repr::{Diff, Error, Expr, JoinKind, Plan, Result, RowCodec, Schema};
use timely::dataflow::operators::vec::{Filter, Map};
use timely::dataflow::operators::{Concat, Concatenate};

use super::accumulate::present;
use super::flow::{Flow, Rows, encode_blocks};
use super::portions::{in_portions, join_rows, rows_of};
use super::{Context, distinct, is_raw, map, two_outputs};
use crate::block::{Block, BlockStream, Shape};
use crate::spine::{KeyUpdate, RowStream, SharedRows, arrange_keys, arrange_rows, route};

/// One input of a join.
struct Side<'s> {
    flow: Flow<'s>,
    types: Vec<DataType>,
    key: Vec<usize>,
    /// Whether rows without a match are kept.
    preserved: bool,
    /// Whether its rows must be kept over a restart: see [`is_raw`].
    raw: bool,
}

/// An input, arranged by the join's key.
struct Arranged<'s> {
    rows: SharedRows<'s>,
    shape: Shape,
    /// Rows of a preserved side whose key has a NULL, not in the arrangement.
    null_keys: Option<RowStream<'s>>,
    /// Whether keys with a NULL may be in the arrangement, where they must not match.
    holds_nulls: bool,
}

struct Join<'p> {
    kind: JoinKind,
    residual: Option<&'p Expr>,
    null_equal: bool,
    /// Left then right columns, also for Semi and Anti.
    pair_schema: Schema,
}

/// Renders [`Plan::Join`].
pub(crate) fn render_join<'s>(plan: &Plan, context: &mut Context<'_, 's>) -> Result<Flow<'s>> {
    let Plan::Join {
        kind,
        left,
        right,
        on,
        residual,
        null_equal,
        ..
    } = plan
    else {
        return Err(Error::internal("not a join"));
    };
    check_key_types(left.schema(), right.schema(), on)?;
    let columns = left.schema().columns.iter().chain(&right.schema().columns);
    let join = Join {
        kind: *kind,
        residual: residual.as_ref(),
        null_equal: *null_equal,
        pair_schema: Schema {
            columns: columns.cloned().collect(),
        },
    };
    use JoinKind::*;
    let mut left = Side {
        flow: context.render(left)?,
        types: left.schema().types(),
        key: on.iter().map(|(left, _)| *left).collect(),
        preserved: matches!(kind, Left | Full | Anti),
        raw: is_raw(left),
    };
    let mut right = Side {
        flow: context.render(right)?,
        types: right.schema().types(),
        key: on.iter().map(|(_, right)| *right).collect(),
        preserved: matches!(kind, Right | Full),
        raw: is_raw(right),
    };
    if residual.is_some() {
        return join.with_residual(left, right, context);
    }
    let l = join.arrange(&mut left, context)?;
    let r = join.arrange(&mut right, context)?;
    join.by_key(l, r, &left, &right, context)
}

fn check_key_types(left: &Schema, right: &Schema, on: &[(usize, usize)]) -> Result<()> {
    for (l, r) in on {
        let (l, r) = (&left.columns[*l], &right.columns[*r]);
        if l.ty != r.ty {
            let message = format!(
                "join key {} has type {}, {} has {}",
                l.name, l.ty, r.name, r.ty
            );
            return Err(Error::internal(message));
        }
    }
    Ok(())
}

impl<'p> Join<'p> {
    /// Arranges a side by its key, or takes the arrangement that is there.
    fn arrange<'s>(
        &self,
        side: &mut Side<'s>,
        context: &mut Context<'_, 's>,
    ) -> Result<Arranged<'s>> {
        let shape = Shape::arranged(&side.types, &side.key);
        if let Flow::Arranged(rows, held) = &side.flow
            && held.is_arranged_by(&side.key)
        {
            return Ok(Arranged {
                rows: rows.clone(),
                shape,
                null_keys: None,
                holds_nulls: !self.null_equal,
            });
        }
        if self.null_equal || side.key.is_empty() {
            let rows =
                side.flow
                    .clone()
                    .into_arranged(&side.types, &side.key, side.raw, context)?;
            return Ok(Arranged {
                rows,
                shape,
                null_keys: None,
                holds_nulls: false,
            });
        }
        let blocks = side.flow.clone().into_blocks(context)?;
        let (with_key, without) = split_null_keys(blocks, &side.key, context);
        let rows = encode_blocks(with_key, &side.types, &side.key, context)?;
        let null_keys = match side.preserved {
            true => {
                let rows = encode_blocks(without, &side.types, &side.key, context)?;
                Some(kept(rows, side.raw, context)?)
            }
            false => None,
        };
        let rows = context.arrange_shape(rows, ("rows by key", side.raw))?;
        Ok(Arranged {
            rows: context.share(rows),
            shape,
            null_keys,
            holds_nulls: false,
        })
    }

    /// The join when equal keys are all that matters.
    fn by_key<'s>(
        &self,
        l: Arranged<'s>,
        r: Arranged<'s>,
        left: &Side<'s>,
        right: &Side<'s>,
        context: &mut Context<'_, 's>,
    ) -> Result<Flow<'s>> {
        if matches!(self.kind, JoinKind::Semi | JoinKind::Anti) {
            let keys = present_keys(&r, context)?;
            let matched = semi_join(l.rows.clone(), keys);
            let stream = match self.kind {
                JoinKind::Semi => matched,
                _ => minus(rows_of(l.rows), matched, l.null_keys),
            };
            return Ok(Flow::Rows(Rows {
                stream,
                shape: l.shape,
                partitioned: self.kind == JoinKind::Semi,
            }));
        }
        let full_rows = left.preserved || right.preserved;
        let pairs = self.pairs(&l, &r, full_rows, context)?;
        if !full_rows {
            return Ok(Flow::Rows(pairs));
        }
        let mut streams = vec![pairs.stream];
        if left.preserved {
            let keys = present_keys(&r, context)?;
            let matched = semi_join(l.rows.clone(), keys);
            let unmatched = minus(rows_of(l.rows.clone()), matched, l.null_keys.clone());
            let nulls = null_row(r.shape.key.iter().chain(&r.shape.value))?;
            streams.push(unmatched.map(move |((key, value), time, diff)| {
                ((key, [&value[..], &nulls].concat()), time, diff)
            }));
        }
        if right.preserved {
            let keys = present_keys(&l, context)?;
            let matched = semi_join(r.rows.clone(), keys);
            let unmatched = minus(rows_of(r.rows), matched, r.null_keys);
            let null_key = null_row(&l.shape.key)?;
            let nulls = null_row(&l.shape.value)?;
            streams.push(unmatched.map(move |((key, value), time, diff)| {
                let value = [&nulls[..], &key, &value].concat();
                ((null_key.clone(), value), time, diff)
            }));
        }
        Ok(Flow::Rows(Rows {
            stream: context.scope.concatenate(streams),
            shape: pairs.shape,
            partitioned: false,
        }))
    }

    /// Rows of both sides with equal keys. `full_rows` stores the right side's key by itself.
    fn pairs<'s>(
        &self,
        l: &Arranged<'s>,
        r: &Arranged<'s>,
        full_rows: bool,
        context: &Context<'_, 's>,
    ) -> Result<Rows<'s>> {
        let mut nulls = match l.holds_nulls && r.holds_nulls {
            true => Some(NullKeys::new(&l.shape.key)?),
            false => None,
        };
        let lose_matches = context.faults.join;
        let report = context.report.clone();
        let stream = join_rows(l.rows.clone(), r.rows.clone(), move |key, left, right| {
            let null = nulls.as_mut().map(|nulls| nulls.contains(key));
            if null
                .and_then(|null| report.unless_ok(null))
                .unwrap_or(false)
            {
                return None;
            }
            if lose_matches && route(right).is_multiple_of(3) {
                return None;
            }
            Some(match full_rows {
                true => [left, key, right],
                false => [left, &[], right],
            })
        });
        Ok(Rows {
            stream,
            shape: pair_shape(&l.shape, &r.shape, full_rows),
            partitioned: true,
        })
    }

    /// The join when a condition decides beyond equal keys.
    fn with_residual<'s>(
        &self,
        mut left: Side<'s>,
        mut right: Side<'s>,
        context: &mut Context<'_, 's>,
    ) -> Result<Flow<'s>> {
        let Some(residual) = self.residual else {
            return Err(Error::internal("a join without residual"));
        };
        let (left_preserved, right_preserved) = (left.preserved, right.preserved);
        // Unmatched rows are found by whole rows below, NULL keys among them.
        left.preserved = false;
        right.preserved = false;
        let l = self.arrange(&mut left, context)?;
        let r = self.arrange(&mut right, context)?;
        let pairs = Flow::Rows(self.pairs(&l, &r, false, context)?).into_blocks(context)?;
        let pairs = map::render_filter(pairs, residual, &self.pair_schema, context)?;
        let width = left.types.len();
        let all = width + right.types.len();
        match self.kind {
            JoinKind::Inner => Ok(Flow::Blocks(pairs)),
            JoinKind::Semi => Ok(Flow::Rows(by_match(&left, pairs, 0, true, context)?)),
            JoinKind::Anti => Ok(Flow::Rows(by_match(&left, pairs, 0, false, context)?)),
            _ => {
                let mut streams = vec![pairs.clone()];
                if left_preserved {
                    let rows = by_match(&left, pairs.clone(), 0, false, context)?;
                    let blocks = Flow::Rows(rows).into_blocks(context)?;
                    streams.push(padded(blocks, vec![], right.types.clone()));
                }
                if right_preserved {
                    let rows = by_match(&right, pairs, width, false, context)?;
                    let blocks = Flow::Rows(rows).into_blocks(context)?;
                    streams.push(padded(blocks, left.types.clone(), vec![]));
                }
                debug_assert_eq!(all, self.pair_schema.len());
                Ok(Flow::Blocks(context.scope.concatenate(streams)))
            }
        }
    }
}

/// How the columns of both sides lie in glued pairs.
fn pair_shape(l: &Shape, r: &Shape, full_rows: bool) -> Shape {
    let (key, left) = (l.key.len(), l.value.len());
    let right = r.columns.iter().map(|&place| match full_rows {
        true => key + left + place,
        false if place < key => place,
        false => left + place,
    });
    let mut value = l.value.clone();
    if full_rows {
        value.extend_from_slice(&r.key);
    }
    value.extend_from_slice(&r.value);
    Shape {
        key: l.key.clone(),
        value,
        columns: l.columns.iter().copied().chain(right).collect(),
    }
}

/// The keys that stand in an arrangement, arranged with no value.
fn present_keys<'s>(side: &Arranged<'s>, context: &mut Context<'_, 's>) -> Result<SharedRows<'s>> {
    let mut keys = in_portions(side.rows.clone(), "Keys", |batch, place| {
        let mut keys: Vec<KeyUpdate<Diff>> = vec![];
        place.read(batch, |key, _, time, diff| {
            keys.push(((key.to_vec(), ()), time, diff));
        });
        keys
    });
    if side.holds_nulls {
        let mut nulls = NullKeys::new(&side.shape.key)?;
        let report = context.report.clone();
        keys = keys.filter(move |((key, ()), _, _)| {
            let contains = nulls.contains(key);
            !report.unless_ok(contains).unwrap_or(true)
        });
    }
    let counts = arrange_keys(keys, true, "ArrangeKeys");
    context.watch_keys(&counts.trace);
    let keys = present(counts, "Present", context);
    let keys = arrange_rows(keys, true, "ArrangePresent");
    Ok(context.share(keys))
}

/// The rows, by way of an arrangement if they must be kept over a restart.
fn kept<'s>(rows: Rows<'s>, raw: bool, context: &mut Context<'_, 's>) -> Result<RowStream<'s>> {
    if !raw || !context.points.wanted {
        return Ok(rows.stream);
    }
    let arranged = context.arrange_shape(rows, ("rows without key", true))?;
    Ok(rows_of(context.share(arranged)))
}

/// Rows whose key is among `keys`.
fn semi_join<'s>(rows: SharedRows<'s>, keys: SharedRows<'s>) -> RowStream<'s> {
    join_rows(rows, keys, |_, value, _| Some([value, &[], &[]]))
}

/// `rows` without `taken`, and with `more`.
fn minus<'s>(
    rows: RowStream<'s>,
    taken: RowStream<'s>,
    more: Option<RowStream<'s>>,
) -> RowStream<'s> {
    let taken = taken.as_collection().negate().inner;
    let rows = rows.concat(taken);
    match more {
        Some(more) => rows.concat(more),
        None => rows,
    }
}

/// Whole rows of a side that are (or are not) among the pairs, where its columns start at `from`.
fn by_match<'s>(
    side: &Side<'s>,
    pairs: BlockStream<'s>,
    from: usize,
    matching: bool,
    context: &mut Context<'_, 's>,
) -> Result<Rows<'s>> {
    let all: Vec<usize> = (0..side.types.len()).collect();
    let columns = from..from + side.types.len();
    let of_side = pairs.map(move |block: Block| {
        let columns = block.columns[columns.clone()].to_vec();
        block.with_columns(columns)
    });
    let matched = distinct::distinct(of_side, &side.types, false, context)?;
    let matched = matched.into_arranged(&side.types, &all, false, context)?;
    let rows = side
        .flow
        .clone()
        .into_arranged(&side.types, &all, side.raw, context)?;
    let found = semi_join(rows.clone(), matched);
    Ok(Rows {
        stream: if matching {
            found
        } else {
            minus(rows_of(rows), found, None)
        },
        shape: Shape::arranged(&side.types, &all),
        partitioned: true,
    })
}

/// Blocks with columns of NULLs before and after.
fn padded<'s>(
    blocks: BlockStream<'s>,
    before: Vec<DataType>,
    after: Vec<DataType>,
) -> BlockStream<'s> {
    blocks.map(move |block: Block| {
        let nulls = |types: &[DataType]| -> Vec<ArrayRef> {
            types
                .iter()
                .map(|ty| new_null_array(ty, block.len))
                .collect()
        };
        let mut columns = nulls(&before);
        columns.extend(block.columns.iter().cloned());
        columns.extend(nulls(&after));
        block.with_columns(columns)
    })
}

/// Blocks of rows whose key has no NULL, and of the others.
fn split_null_keys<'s>(
    blocks: BlockStream<'s>,
    key: &[usize],
    context: &Context<'_, 's>,
) -> (BlockStream<'s>, BlockStream<'s>) {
    let key = key.to_vec();
    let report = context.report.clone();
    two_outputs(blocks, "SplitNullKeys", move |block: Block, valid, null| {
        let Some((a, b)) = report.unless_ok(split_block(block, &key)) else {
            return;
        };
        valid.extend(Some(a).filter(|block| block.len > 0));
        null.extend(Some(b).filter(|block| block.len > 0));
    })
}

fn split_block(block: Block, key: &[usize]) -> Result<(Block, Block)> {
    let mut valid = BooleanArray::from(vec![true; block.len]);
    for &column in key {
        if block.columns[column].logical_null_count() > 0 {
            let not_null = compute::is_not_null(&block.columns[column])?;
            valid = compute::and(&valid, &not_null)?;
        }
    }
    if valid.true_count() == block.len {
        let none = block.slice(0, 0);
        return Ok((block, none));
    }
    Ok((block.filter(&valid)?, block.filter(&compute::not(&valid)?)?))
}

/// The bytes of a row of NULLs.
fn null_row<'t>(types: impl IntoIterator<Item = &'t DataType>) -> Result<Vec<u8>> {
    let types: Vec<DataType> = types.into_iter().cloned().collect();
    let columns: Vec<ArrayRef> = types.iter().map(|ty| new_null_array(ty, 1)).collect();
    Ok(RowCodec::new(&types)?.encode(&columns, 1)?.row(0).to_vec())
}

/// Tells whether an encoded key has a NULL. Equal keys come one after the other.
struct NullKeys {
    codec: RowCodec,
    last: Option<(Vec<u8>, bool)>,
}

impl NullKeys {
    fn new(types: &[DataType]) -> Result<NullKeys> {
        Ok(NullKeys {
            codec: RowCodec::new(types)?,
            last: None,
        })
    }

    fn contains(&mut self, key: &[u8]) -> Result<bool> {
        if let Some((last, null)) = &self.last
            && last == key
        {
            return Ok(*null);
        }
        let columns = self.codec.decode([key])?;
        let null = columns.iter().any(|column| column.logical_null_count() > 0);
        self.last = Some((key.to_vec(), null));
        Ok(null)
    }
}
