//! Reading a source directly: `SELECT … FROM source` takes what its topic holds now.
//!
//! A source keeps no rows, so this reads the topic from the source's start to its end of this
//! moment. It is for a look at the data; what is asked again and again belongs in a view.

use std::collections::BTreeMap;
use std::time::Duration;

use arrow::record_batch::RecordBatch;
use ruslo_format::{JsonDecoder, Position};
use ruslo_repr::row::batch_of;
use ruslo_repr::{Error, ErrorKind, Result};

use crate::ingest::{Offsets, Source};

const BATCH_MESSAGES_MAX: usize = 8192;
const POLL_TIMEOUT: Duration = Duration::from_millis(100);
/// More payload than this is refused: it would have to be held in memory whole.
const BYTES_MAX: usize = 1 << 30;

/// All rows of a source, all columns. Blocks; messages that cannot be decoded are left out (views
/// report them).
pub(crate) fn scan(source: &Source) -> Result<Vec<RecordBatch>> {
    let mut from = Offsets::new();
    let mut end = BTreeMap::new();
    for (partition, (low, high)) in source.host.broker.watermarks(&source.options)? {
        let start = source.start.get(&partition).copied().unwrap_or(0);
        from.insert(partition, start.max(low));
        end.insert(partition, high);
    }
    let columns: Vec<usize> = (0..source.schema.len()).collect();
    let mut decoder = JsonDecoder::new(&source.schema, &columns, source.json)?;
    let name = format!("{}-scan", source.name);
    let broker = &source.host.broker;
    let (_reader, lanes) = broker.open(&source.options, &name, &from, Some(&end), 1)?;
    let mut batches = vec![];
    let mut bytes = 0;
    for mut lane in lanes {
        while !lane.finished() {
            lane.poll(BATCH_MESSAGES_MAX, POLL_TIMEOUT, &mut |message| {
                bytes += message.payload.map_or(0, <[u8]>::len);
                let position = Position {
                    partition: message.partition,
                    offset: message.offset,
                };
                decoder.push(message.payload, position);
            })?;
            if bytes > BYTES_MAX {
                let message = format!("source \"{}\" holds more than 1 GiB", source.name);
                let hint = "CREATE MATERIALIZED VIEW … FROM it and query the view.";
                return Err(Error::new(ErrorKind::OutOfRange, message).with_hint(hint));
            }
            if decoder.rows() > 0 {
                let decoded = decoder.finish();
                batches.push(batch_of(&source.schema, decoded.columns, decoded.rows)?);
            }
        }
    }
    Ok(batches)
}
