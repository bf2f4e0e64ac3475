//! What the store knew when it was opened: the last checkpoint, and each time after it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use ruslo_repr::{Error, ObjectId, Result, Time};
use ruslo_state::{Entry, LogReader, Snapshot};

use super::checkpoint::{Metadata, Waiting};
use super::{Change, Image, refused};

/// Source → partition → next offset.
pub(crate) type Bound = HashMap<ObjectId, BTreeMap<i32, i64>>;

/// One time after the checkpoint.
pub(crate) struct PastTime {
    pub(crate) time: Time,
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
    /// The same times once more, with what was written to tables: too much to be held at once.
    pub(crate) rows: PastRows,
}

/// Reads what was written to tables, time by time. None: nothing was.
pub(crate) struct PastRows(Option<Box<dyn LogReader>>);

impl PastRows {
    /// The tables' changes as of `time`; must be asked for every time, in order.
    pub(crate) async fn of(&mut self, time: Time) -> Result<Vec<(ObjectId, RecordBatch)>> {
        let Some(records) = &mut self.0 else {
            return Ok(vec![]);
        };
        let mut waiting = Waiting::new("the log cannot be read now");
        let record = loop {
            match records.next().await {
                Ok(record) => break record,
                Err(error) => waiting.after(error).await?,
            }
        };
        waiting.over();
        let Some(record) = record.filter(|record| record.time == time) else {
            return Err(Error::internal("the log is not what it was"));
        };
        let rows = record.entries.into_iter().filter_map(|entry| match entry {
            Entry::Rows { table, updates } => Some((ObjectId(table), updates)),
            Entry::Binding { .. } | Entry::Catalog { .. } => None,
        });
        Ok(rows.collect())
    }
}

impl History {
    /// Reads `records`; `again` gives the same ones.
    pub(crate) async fn read(
        snapshot: &Arc<Snapshot>,
        mut records: Box<dyn LogReader>,
        again: Box<dyn LogReader>,
    ) -> Result<History> {
        let metadata = Metadata::read(snapshot.metadata())?;
        let mut history = History {
            snapshot: snapshot.clone(),
            times: vec![],
            image: metadata.image(&snapshot.place())?,
            bound: metadata.bound(),
            metadata,
            rows: PastRows(None),
        };
        let mut has_rows = false;
        while let Some(record) = records.next().await.map_err(|error| refused(&error))? {
            let mut past = PastTime {
                time: record.time,
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
                    Entry::Rows { .. } => has_rows = true,
                    Entry::Catalog { change } => {
                        let change = Change::from_json(&records.place(), &change)?;
                        history.image.apply(&change);
                    }
                }
            }
            history.times.push(past);
        }
        if has_rows {
            history.rows = PastRows(Some(again));
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
