//! Feeding the state of tables and views from a checkpoint.
//!
//! The updates of a durable point go to the workers in turn: each sends the rows on to where they
//! belong, so the number of workers may have changed.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use ruslo_dataflow::{BatchQueue, DurablePoint, SourceBatch, Workers};
use ruslo_repr::{Error, ObjectId, Result};
use ruslo_state::{Scan, Snapshot, crash};

use super::checkpoint::{Waiting, collection_beside, collection_of};
use super::{bad_rows, refused};
use crate::backpressure::before_portion;
use crate::bad_data::BadRow;
use crate::host::Host;

/// Starts feeding `points` of an object, in a thread of its own. A store that cannot be read ends
/// the server: what it holds is needed.
pub(crate) fn feed(
    (host, snapshot): (&Host, Arc<Snapshot>),
    workers: Workers,
    object: ObjectId,
    points: Vec<DurablePoint>,
    failed: impl Fn(Error) + Send + 'static,
) -> Result<()> {
    let work = async move {
        for point in &points {
            let queues = (0..workers.workers())
                .map(|worker| workers.restore_queue(worker, object, point.index));
            let queues: Vec<BatchQueue> = queues.collect();
            let collection = collection_of(object, point.index);
            if let Err(error) = feed_point(&snapshot, collection, &queues).await {
                // The queues stay open: nobody must take half of the state for all of it.
                return failed(error);
            }
            queues.iter().for_each(BatchQueue::finish);
        }
    };
    host.spawn(&format!("restore-{object}"), work).map(drop)
}

async fn feed_point(
    snapshot: &Arc<Snapshot>,
    collection: u64,
    queues: &[BatchQueue],
) -> Result<()> {
    let mut scan = snapshot.scan(collection).map_err(|error| refused(&error))?;
    let mut turn = queues.iter().cycle();
    while let Some(batch) = next_batch(&mut scan).await? {
        before_portion().await;
        let batch = SourceBatch {
            batch,
            columns: vec![],
            offsets: vec![],
            time: None,
        };
        // A closed queue: the object is gone, or the server ends.
        if turn.next().is_none_or(|queue| queue.push(batch).is_err()) {
            break;
        }
        crash::point(crash::RESTORE);
    }
    Ok(())
}

/// Reads on, however long the store is away.
async fn next_batch(scan: &mut Scan) -> Result<Option<RecordBatch>> {
    let mut waiting = Waiting::new("the last checkpoint cannot be read now");
    loop {
        match scan.next().await {
            Ok(batch) => {
                waiting.over();
                return Ok(batch);
            }
            Err(error) => waiting.after(error).await?,
        }
    }
}

/// The bad rows of a source.
pub(crate) async fn bad_rows(snapshot: &Arc<Snapshot>, source: ObjectId) -> Result<Vec<BadRow>> {
    type Place = (i32, i64, Option<u32>, Option<usize>);
    let mut rows: HashMap<Place, (BadRow, i64)> = HashMap::new();
    let collection = collection_beside(source);
    if !snapshot.collections().any(|c| c.id == collection) {
        return Ok(vec![]);
    }
    let mut scan = snapshot.scan(collection).map_err(|error| refused(&error))?;
    while let Some(batch) = next_batch(&mut scan).await? {
        for (row, diff) in bad_rows::decode(&batch)? {
            let error = &row.error;
            let key = (error.partition, error.offset, error.element, error.column);
            rows.entry(key).or_insert((row, 0)).1 += diff;
        }
    }
    let there = rows.into_values().filter(|(_, diff)| *diff > 0);
    Ok(there.map(|(row, _)| row).collect())
}

/// The keys that a sink had yet to delete.
pub(crate) async fn deletes(snapshot: &Arc<Snapshot>, sink: ObjectId) -> Result<HashSet<Vec<u8>>> {
    let mut keys: HashMap<Vec<u8>, i64> = HashMap::new();
    let collection = collection_beside(sink);
    if !snapshot.collections().any(|c| c.id == collection) {
        return Ok(HashSet::new());
    }
    let mut scan = snapshot.scan(collection).map_err(|error| refused(&error))?;
    while let Some(batch) = next_batch(&mut scan).await? {
        let (key, diff) = (
            batch.column(0).as_binary::<i32>(),
            batch.column(1).as_primitive::<Int64Type>(),
        );
        for row in 0..batch.num_rows() {
            *keys.entry(key.value(row).to_vec()).or_default() += diff.value(row);
        }
    }
    keys.retain(|_, diff| *diff > 0);
    Ok(keys.into_keys().collect())
}
