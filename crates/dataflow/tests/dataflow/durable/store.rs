//! What a checkpoint store does, as plainly as can be: adds up rows by point.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Decimal128Array, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Decimal128Type, Int64Type};
use ruslo_dataflow::{DurablePoint, SourceBatch};
use ruslo_repr::{Diff, ObjectId};

use crate::harness::{Cluster, Row, arrays, cell};

/// Every point's rows with their diffs and sums.
#[derive(Clone, Default, PartialEq, Debug)]
pub(crate) struct Store(pub(crate) BTreeMap<(ObjectId, u32), (DurablePoint, Content)>);

type Content = BTreeMap<Row, (Diff, Vec<i128>)>;

impl Store {
    /// Takes in all that a cluster has handed over.
    pub(crate) fn take(&mut self, cluster: &mut Cluster) {
        for (id, point, updates) in std::mem::take(&mut cluster.changes) {
            let place = self.0.entry((id, point.index));
            let (known, rows) = place.or_insert_with(|| (point.clone(), Content::new()));
            assert_eq!(*known, point);
            add(rows, &point, &updates);
        }
    }

    /// The points of an object, in order.
    pub(crate) fn points(&self, id: ObjectId) -> Vec<DurablePoint> {
        let points = self.0.iter().filter(|((of, _), _)| *of == id);
        points.map(|(_, (point, _))| point.clone()).collect()
    }

    /// Hands an object's content to the restore queues, spread over the workers.
    pub(crate) fn feed(&self, cluster: &Cluster, id: ObjectId) {
        let workers = cluster.workers.workers();
        for ((_, index), (point, rows)) in self.0.iter().filter(|((of, _), _)| *of == id) {
            let rows: Vec<_> = rows.iter().collect();
            for (i, some) in rows.chunks(7).enumerate() {
                let queue = cluster.workers.restore_queue(i % workers, id, *index);
                queue.push(batch(point, some)).unwrap();
            }
            for worker in 0..workers {
                cluster.workers.restore_queue(worker, id, *index).finish();
            }
        }
    }
}

fn add(rows: &mut Content, point: &DurablePoint, updates: &RecordBatch) {
    let width = point.rows.len();
    assert_eq!(updates.num_columns(), width + 1 + point.sums.len());
    assert!(updates.num_rows() <= 65_536);
    let diffs = updates.column(width).as_primitive::<Int64Type>();
    for row in 0..updates.num_rows() {
        let columns = updates.columns()[..width].iter();
        let key: Row = columns.map(|column| cell(column, row)).collect();
        let sums = updates.columns()[width + 1..].iter();
        let sums = sums.map(|column| column.as_primitive::<Decimal128Type>().value(row));
        let zero = || (0, vec![0; point.sums.len()]);
        let total = rows.entry(key.clone()).or_insert_with(zero);
        total.0 += diffs.value(row);
        total
            .1
            .iter_mut()
            .zip(sums)
            .for_each(|(total, sum)| *total += sum);
        if *total == zero() {
            rows.remove(&key);
        }
    }
}

fn batch(point: &DurablePoint, rows: &[(&Row, &(Diff, Vec<i128>))]) -> SourceBatch {
    let keys: Vec<Row> = rows.iter().map(|(row, _)| (*row).clone()).collect();
    let mut columns = arrays(&point.rows.types(), &keys);
    let mut schema = point.rows.clone();
    let mut push = |name: &str, column: ArrayRef| {
        let ty: DataType = column.data_type().clone();
        schema.columns.push(ruslo_repr::Column {
            name: name.to_string(),
            ty,
        });
        columns.push(column);
    };
    let diffs = rows.iter().map(|(_, (diff, _))| *diff);
    push("diff", Arc::new(Int64Array::from_iter_values(diffs)));
    for (i, name) in point.sums.iter().enumerate() {
        let sums = rows.iter().map(|(_, (_, sums))| sums[i]);
        let sums = Decimal128Array::from_iter_values(sums).with_precision_and_scale(38, 0);
        push(name, Arc::new(sums.unwrap()));
    }
    SourceBatch {
        batch: ruslo_repr::row::batch_of(&schema, columns, rows.len()).unwrap(),
        columns: vec![],
        offsets: vec![],
        time: None,
    }
}
