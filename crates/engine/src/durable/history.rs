//! What the store knew when it was opened: the last checkpoint, and each time after it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use ruslo_repr::{ObjectId, Result, Time};
use ruslo_state::{Entry, LogReader, Snapshot};

use super::checkpoint::Metadata;
use super::{Change, Image, refused};

/// Source → partition → next offset.
pub(crate) type Bound = HashMap<ObjectId, BTreeMap<i32, i64>>;

/// One time after the checkpoint.
pub(crate) struct PastTime {
    pub(crate) time: Time,
    /// What was written to tables.
    pub(crate) rows: Vec<(ObjectId, RecordBatch)>,
    /// Sources that moved.
    pub(crate) offsets: Bound,
}

/// The past of a server that is started again.
pub(crate) struct History {
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) metadata: Metadata,
    /// The times after the checkpoint, oldest first.
    pub(crate) times: Vec<PastTime>,
    /// The catalog as of the last time.
    pub(crate) image: Image,
    /// How far sources were bound at the last time.
    pub(crate) bound: Bound,
}

impl History {
    pub(crate) async fn read(
        snapshot: &Arc<Snapshot>,
        mut records: Box<dyn LogReader>,
    ) -> Result<History> {
        let metadata = Metadata::read(snapshot.metadata())?;
        let mut history = History {
            snapshot: snapshot.clone(),
            times: vec![],
            image: metadata.image(&snapshot.place())?,
            bound: metadata.bound(),
            metadata,
        };
        while let Some(record) = records.next().await.map_err(|error| refused(&error))? {
            let mut past = PastTime {
                time: record.time,
                rows: vec![],
                offsets: Bound::default(),
            };
            for entry in record.entries {
                match entry {
                    Entry::Binding { offsets } => {
                        for (source, offsets) in offsets {
                            let source = ObjectId(source);
                            let bound = history.bound.entry(source).or_default();
                            bound.extend(offsets.clone());
                            past.offsets.insert(source, offsets);
                        }
                    }
                    Entry::Rows { table, updates } => past.rows.push((ObjectId(table), updates)),
                    Entry::Catalog { change } => {
                        let change = Change::from_json(&records.place(), &change)?;
                        history.image.apply(&change);
                    }
                }
            }
            history.times.push(past);
        }
        Ok(history)
    }

    /// The time of the checkpoint; 0 if there never was one.
    pub(crate) fn checkpoint(&self) -> Time {
        self.snapshot.time()
    }

    /// The last time that may have been seen.
    pub(crate) fn last(&self) -> Time {
        self.times
            .last()
            .map_or(self.checkpoint(), |past| past.time)
    }
}
