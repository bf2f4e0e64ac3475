//! Workers under test: send, close, wait, peek; values in a form that tests can write down.

use std::collections::{BTreeMap, HashMap};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, FixedSizeBinaryBuilder, Float64Array, Int32Array,
    Int64Array, StringArray,
};
use arrow::datatypes::{DataType, Float64Type, Int32Type, Int64Type};
use arrow::record_batch::RecordBatch;
use ruslo_dataflow::{
    Command, DurablePoint, Faults, Place, Portion, Response, SourceBatch, Workers, WorkersConfig,
    arranged_columns,
};
use ruslo_repr::row::batch_of;
use ruslo_repr::schema::NUMERIC;
use ruslo_repr::{Diff, Error, Numeric, ObjectId, Plan, RowBytes, RowCodec, Schema, Time};

use crate::evaluator::TestEvaluator;

const PATIENCE: Duration = Duration::from_secs(60);

/// A value of a row.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum V {
    Null,
    Int(i64),
    /// A float, as Rust prints it.
    Float(String),
    /// A numeric, as it is printed.
    Num(String),
    Text(String),
    Bool(bool),
}

pub(crate) type Row = Vec<V>;
pub(crate) type Rows = BTreeMap<Row, Diff>;

pub(crate) fn int(value: i64) -> V {
    V::Int(value)
}

pub(crate) fn text(value: &str) -> V {
    V::Text(value.to_string())
}

pub(crate) fn float(value: f64) -> V {
    V::Float(format!("{value:?}"))
}

pub(crate) fn num(value: &str) -> V {
    V::Num(value.to_string())
}

pub(crate) fn opt(value: Option<i64>) -> V {
    value.map_or(V::Null, V::Int)
}

/// Adds up updates and forgets what cancels out.
pub(crate) fn consolidate(updates: impl IntoIterator<Item = (Row, Diff)>) -> Rows {
    let mut rows = Rows::new();
    for (row, diff) in updates {
        *rows.entry(row).or_default() += diff;
    }
    rows.retain(|_, diff| *diff != 0);
    rows
}

/// One column of values as an array.
fn array(ty: &DataType, values: Vec<&V>) -> ArrayRef {
    let ints = || {
        values
            .iter()
            .map(|v| if let V::Int(i) = v { Some(*i) } else { None })
    };
    match ty {
        DataType::Int64 => Arc::new(ints().collect::<Int64Array>()),
        DataType::Int32 => Arc::new(ints().map(|i| i.map(|i| i as i32)).collect::<Int32Array>()),
        DataType::Boolean => {
            let flags = values
                .iter()
                .map(|v| if let V::Bool(b) = v { Some(*b) } else { None });
            Arc::new(flags.collect::<BooleanArray>())
        }
        DataType::Float64 => {
            let floats = values.iter().map(|v| match v {
                V::Float(text) => Some(text.parse::<f64>().unwrap()),
                _ => None,
            });
            Arc::new(floats.collect::<Float64Array>())
        }
        DataType::Utf8 => {
            let texts = values.iter().map(|v| match v {
                V::Text(text) => Some(text.as_str()),
                _ => None,
            });
            Arc::new(texts.collect::<StringArray>())
        }
        ty if *ty == NUMERIC => {
            let mut builder = FixedSizeBinaryBuilder::new(16);
            for value in values {
                match value {
                    V::Num(text) => {
                        let numeric: Numeric = text.parse().unwrap();
                        builder.append_value(numeric.to_bytes()).unwrap();
                    }
                    _ => builder.append_null(),
                }
            }
            Arc::new(builder.finish())
        }
        other => panic!("no test values of type {other}"),
    }
}

pub(crate) fn arrays(types: &[DataType], rows: &[Row]) -> Vec<ArrayRef> {
    let columns = types.iter().enumerate();
    columns
        .map(|(i, ty)| array(ty, rows.iter().map(|row| &row[i]).collect()))
        .collect()
}

pub(crate) fn cell(array: &ArrayRef, row: usize) -> V {
    if array.is_null(row) {
        return V::Null;
    }
    match array.data_type() {
        DataType::Int64 => V::Int(array.as_primitive::<Int64Type>().value(row)),
        DataType::Int32 => V::Int(array.as_primitive::<Int32Type>().value(row).into()),
        DataType::Float64 => float(array.as_primitive::<Float64Type>().value(row)),
        DataType::Utf8 => text(array.as_string::<i32>().value(row)),
        DataType::Boolean => V::Bool(array.as_boolean().value(row)),
        ty if *ty == NUMERIC => {
            let bytes = array.as_fixed_size_binary().value(row).try_into().unwrap();
            num(&Numeric::from_bytes(bytes).to_string())
        }
        other => panic!("no test values of type {other}"),
    }
}

/// Encodes rows in arranged order.
pub(crate) fn encode(schema: &Schema, key: &[usize], rows: &[Row]) -> Vec<RowBytes> {
    let order = arranged_columns(schema.len(), key);
    let columns = arrays(&schema.types(), rows);
    let columns: Vec<ArrayRef> = order.iter().map(|&c| columns[c].clone()).collect();
    let codec = RowCodec::new(&schema.project(&order).types()).unwrap();
    let encoded = codec.encode(&columns, rows.len()).unwrap();
    encoded.iter().map(<[u8]>::to_vec).collect()
}

/// Decodes rows in arranged order.
pub(crate) fn decode(schema: &Schema, key: &[usize], rows: &[RowBytes]) -> Vec<Row> {
    let order = arranged_columns(schema.len(), key);
    let codec = RowCodec::new(&schema.project(&order).types()).unwrap();
    let columns = codec.decode(rows.iter().map(Vec::as_slice)).unwrap();
    let place = |column: usize| order.iter().position(|&c| c == column).unwrap();
    let row = |i: usize| {
        (0..schema.len())
            .map(|c| cell(&columns[place(c)], i))
            .collect()
    };
    (0..rows.len()).map(row).collect()
}

/// A collection under test.
#[derive(Clone)]
pub(crate) struct Object {
    pub(crate) id: ObjectId,
    pub(crate) schema: Schema,
    pub(crate) key: Vec<usize>,
}

impl Object {
    pub(crate) fn get(&self) -> Plan {
        Plan::Get {
            id: self.id,
            schema: self.schema.clone(),
        }
    }
}

/// What each worker drained for each time.
type Closed = HashMap<(usize, Time), Vec<(ObjectId, i32, i64)>>;
/// A worker's answer to a peek.
type Answer = (Vec<(RowBytes, Diff)>, Option<Place>, Option<Error>);

/// Workers and everything they have answered.
pub(crate) struct Cluster {
    pub(crate) workers: Workers,
    responses: Mutex<Receiver<Response>>,
    next_id: u64,
    next_request: u64,
    pub(crate) time: Time,
    complete: HashMap<usize, Time>,
    hydrated: HashMap<ObjectId, usize>,
    closed: Closed,
    pub(crate) sink_updates: Vec<(ObjectId, RowBytes, Time, Diff)>,
    sink_uppers: HashMap<(usize, ObjectId), Time>,
    peeks: HashMap<u64, Vec<Answer>>,
    /// What checkpoints have handed over.
    pub(crate) changes: Vec<(ObjectId, DurablePoint, RecordBatch)>,
    /// How many workers have handed all over, by the checkpoint's time.
    checkpointed: HashMap<Time, usize>,
    pub(crate) stats: Vec<ruslo_dataflow::ObjectStats>,
    pub(crate) failures: Vec<Error>,
    /// How many workers could not render a view.
    pub(crate) rejected: HashMap<ObjectId, usize>,
}

impl Cluster {
    pub(crate) fn new(workers: usize) -> Cluster {
        Self::with_faults(workers, Faults::default())
    }

    pub(crate) fn with_faults(workers: usize, faults: Faults) -> Cluster {
        Self::start(workers, faults, true)
    }

    /// Workers that will never be asked for more than the end of a checkpoint.
    pub(crate) fn without_durability(workers: usize) -> Cluster {
        Self::start(workers, Faults::default(), false)
    }

    fn start(workers: usize, faults: Faults, durable: bool) -> Cluster {
        let (sender, responses) = channel();
        let sender = Mutex::new(sender);
        let config = WorkersConfig {
            workers,
            evaluator: Arc::new(TestEvaluator),
            durable,
        };
        let on_response = Arc::new(move |response| {
            let _ = sender.lock().unwrap().send(response);
        });
        Cluster {
            workers: Workers::start_with_faults(config, faults, on_response).unwrap(),
            responses: Mutex::new(responses),
            next_id: 1,
            next_request: 1,
            time: 0,
            complete: HashMap::new(),
            hydrated: HashMap::new(),
            closed: HashMap::new(),
            sink_updates: vec![],
            sink_uppers: HashMap::new(),
            peeks: HashMap::new(),
            changes: vec![],
            checkpointed: HashMap::new(),
            stats: vec![],
            failures: vec![],
            rejected: HashMap::new(),
        }
    }

    pub(crate) fn new_id(&mut self) -> ObjectId {
        self.next_id += 1;
        ObjectId(self.next_id)
    }

    pub(crate) fn table(&mut self, columns: &[(&str, DataType)], key: &[usize]) -> Object {
        let object = Object {
            id: self.new_id(),
            schema: Schema::new(columns.iter().map(|(name, ty)| (*name, ty.clone()))),
            key: key.to_vec(),
        };
        self.workers.send(Command::CreateTable {
            id: object.id,
            schema: object.schema.clone(),
            key: key.to_vec(),
            as_of: self.time,
            restore: false,
        });
        object
    }

    pub(crate) fn source(&mut self) -> ObjectId {
        let id = self.new_id();
        self.workers.send(Command::CreateSource { id });
        id
    }

    pub(crate) fn view(&mut self, plan: Plan, key: &[usize]) -> Object {
        self.hydrating_view(plan, key, vec![])
    }

    pub(crate) fn hydrating_view(
        &mut self,
        plan: Plan,
        key: &[usize],
        hydrate: Vec<ObjectId>,
    ) -> Object {
        let object = Object {
            id: self.new_id(),
            schema: plan.schema().clone(),
            key: key.to_vec(),
        };
        // Every plan must survive the way to another process.
        let plan = serde_json::from_str(&serde_json::to_string(&plan).unwrap()).unwrap();
        self.workers.send(Command::CreateView {
            id: object.id,
            name: format!("view_{}", object.id),
            plan,
            key: key.to_vec(),
            as_of: self.time,
            hydrate,
            restore: None,
        });
        object
    }

    pub(crate) fn sink(&mut self, from: &Object) -> ObjectId {
        let id = self.new_id();
        self.workers.send(Command::CreateSink {
            id,
            from: from.id,
            as_of: self.time,
        });
        id
    }

    pub(crate) fn write(&mut self, table: &Object, updates: &[(Row, Diff)]) {
        let rows: Vec<Row> = updates.iter().map(|(row, _)| row.clone()).collect();
        let encoded = encode(&table.schema, &table.key, &rows);
        let updates = encoded
            .into_iter()
            .zip(updates)
            .map(|(row, (_, diff))| (row, *diff));
        self.workers.send(Command::Write {
            table: table.id,
            updates: updates.collect(),
        });
    }

    /// Closes the next time without waiting for it.
    pub(crate) fn close(&mut self) -> Time {
        self.time += 10;
        self.workers.send(Command::Close { time: self.time });
        self.time
    }

    /// Closes the next time and waits until everything is through it.
    pub(crate) fn tick(&mut self) -> Time {
        let time = self.close();
        self.wait_complete(time);
        time
    }

    pub(crate) fn wait_complete(&mut self, time: Time) {
        self.wait("complete", |c| c.complete_at(time));
    }

    fn complete_at(&self, time: Time) -> bool {
        let complete = self.complete.values().filter(|t| **t >= time);
        complete.count() == self.workers.workers()
    }

    pub(crate) fn wait_hydrated(&mut self, id: ObjectId) {
        self.wait("hydrated", |c| c.is_hydrated(id));
    }

    pub(crate) fn is_hydrated(&self, id: ObjectId) -> bool {
        self.hydrated.get(&id).copied().unwrap_or(0) == self.workers.workers()
    }

    pub(crate) fn offsets(&mut self, time: Time) -> Vec<(ObjectId, i32, i64)> {
        let workers = self.workers.workers();
        self.wait("closed", |c| {
            (0..workers).all(|w| c.closed.contains_key(&(w, time)))
        });
        let mut offsets: Vec<_> = (0..workers)
            .flat_map(|w| self.closed[&(w, time)].clone())
            .collect();
        offsets.sort();
        offsets
    }

    /// Takes a checkpoint of objects; what changed is added to `changes`.
    pub(crate) fn checkpoint(&mut self, time: Time, objects: Vec<ObjectId>) {
        self.workers.send(Command::Checkpoint { time, objects });
        let workers = self.workers.workers();
        self.wait("checkpoint", |c| {
            c.checkpointed.get(&time).copied().unwrap_or(0) >= workers
        });
        self.checkpointed.remove(&time);
    }

    pub(crate) fn wait_sink(&mut self, id: ObjectId, upper: Time) {
        let workers = self.workers.workers();
        self.wait("sink", |c| {
            (0..workers).all(|w| c.sink_uppers.get(&(w, id)).is_some_and(|u| *u >= upper))
        });
    }

    /// The sink's rows, all updates added up.
    pub(crate) fn sink_rows(&self, id: ObjectId, object: &Object) -> Rows {
        let updates = self.sink_updates.iter().filter(|(sink, ..)| *sink == id);
        let updates: Vec<_> = updates.collect();
        let rows: Vec<RowBytes> = updates.iter().map(|(_, row, ..)| row.clone()).collect();
        let rows = decode(&object.schema, &object.key, &rows);
        consolidate(rows.into_iter().zip(updates.iter().map(|(.., diff)| *diff)))
    }

    pub(crate) fn peek(&mut self, object: &Object, time: Time) -> Rows {
        let (rows, error) = self.try_peek(object, time, None, None);
        assert_eq!(error, None);
        rows
    }

    pub(crate) fn start_peek(
        &mut self,
        object: &Object,
        time: Time,
        errors: bool,
        keys: Option<Vec<RowBytes>>,
        limit: Option<usize>,
    ) -> u64 {
        self.next_request += 1;
        self.workers.send(Command::Peek {
            request: self.next_request,
            id: object.id,
            time,
            errors,
            keys,
            limit,
            portion: None,
        });
        self.next_request
    }

    /// The next rows beyond `after` in encoded form, and the last where there are more. A worker
    /// leaves off after `bytes`; rows that are not through on all of them are left out.
    pub(crate) fn peek_portion(
        &mut self,
        object: &Object,
        after: Option<Place>,
        bytes: usize,
    ) -> (Vec<(RowBytes, Diff)>, Option<Place>) {
        self.next_request += 1;
        self.workers.send(Command::Peek {
            request: self.next_request,
            id: object.id,
            time: self.time,
            errors: false,
            keys: None,
            limit: None,
            portion: Some(Portion { after, bytes }),
        });
        let (mut rows, left_off, error) = self.finish_peek(self.next_request);
        assert_eq!(error, None);
        if let Some(Place { key, value }) = &left_off {
            let end = [&key[..], value].concat();
            rows.retain(|(row, _)| *row <= end);
        }
        rows.sort();
        (rows, left_off)
    }

    fn finish_peek(&mut self, request: u64) -> Answer {
        let workers = self.workers.workers();
        self.wait("peek", |c| {
            c.peeks.get(&request).is_some_and(|p| p.len() == workers)
        });
        let answers = self.peeks.remove(&request).unwrap();
        let error = answers.iter().find_map(|(.., error)| error.clone());
        let left_off = answers
            .iter()
            .filter_map(|(_, place, _)| place.clone())
            .min();
        let rows = answers.into_iter().flat_map(|(rows, ..)| rows).collect();
        (rows, left_off, error)
    }

    pub(crate) fn try_peek(
        &mut self,
        object: &Object,
        time: Time,
        keys: Option<Vec<Row>>,
        limit: Option<usize>,
    ) -> (Rows, Option<Error>) {
        let key_schema = object.schema.project(&object.key);
        let all: Vec<usize> = (0..object.key.len()).collect();
        let keys = keys.map(|keys| encode(&key_schema, &all, &keys));
        let request = self.start_peek(object, time, false, keys, limit);
        let (rows, _, error) = self.finish_peek(request);
        let (rows, diffs): (Vec<_>, Vec<_>) = rows.into_iter().unzip();
        let rows = decode(&object.schema, &object.key, &rows);
        (consolidate(rows.into_iter().zip(diffs)), error)
    }

    pub(crate) fn errors(&mut self, object: &Object, time: Time) -> Rows {
        let request = self.start_peek(object, time, true, None, None);
        let (rows, _, error) = self.finish_peek(request);
        assert_eq!(error, None);
        let (rows, diffs): (Vec<_>, Vec<_>) = rows.into_iter().unzip();
        let rows = decode(&ruslo_dataflow::error_schema(), &[], &rows);
        consolidate(rows.into_iter().zip(diffs))
    }

    /// Pushes rows of a source to one worker.
    pub(crate) fn push(
        &self,
        source: ObjectId,
        worker: usize,
        types: &[DataType],
        rows: &[Row],
        at: i64,
    ) {
        let queue = self.workers.live_queue(worker, source);
        queue.push(batch(types, rows, worker as i32, at)).unwrap();
    }

    /// Takes in responses until the condition holds.
    pub(crate) fn wait(&mut self, what: &str, until: impl Fn(&Cluster) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !until(self) {
            let left = deadline.saturating_duration_since(Instant::now());
            let response = self.responses.lock().unwrap().recv_timeout(left);
            match response {
                Ok(response) => self.take(response),
                Err(_) => panic!("waited in vain for {what}"),
            }
            assert!(
                self.failures.is_empty(),
                "workers failed: {:?}",
                self.failures
            );
        }
    }

    pub(crate) fn drain(&mut self) {
        loop {
            let response = self.responses.lock().unwrap().try_recv();
            match response {
                Ok(response) => self.take(response),
                Err(_) => return,
            }
        }
    }

    fn take(&mut self, response: Response) {
        match response {
            Response::Closed {
                worker,
                time,
                offsets,
            } => {
                self.closed.insert((worker, time), offsets);
            }
            Response::Complete { worker, time } => {
                let known = self.complete.insert(worker, time);
                assert!(
                    known.is_none_or(|known| known < time),
                    "completeness goes back"
                );
            }
            Response::Hydrated { id, .. } => *self.hydrated.entry(id).or_default() += 1,
            Response::Peek {
                request,
                rows,
                left_off,
                error,
                ..
            } => {
                let rows = rows.iter().map(|(row, diff)| (row.to_vec(), diff));
                let answer = (rows.collect(), left_off, error);
                self.peeks.entry(request).or_default().push(answer);
            }
            Response::SinkUpdates {
                worker,
                id,
                updates,
                upper,
            } => {
                let known = self.sink_uppers.insert((worker, id), upper);
                assert!(
                    known.is_none_or(|known| known < upper),
                    "a sink's upper goes back"
                );
                for (row, time, diff) in updates {
                    assert!(time < upper && known.is_none_or(|known| time >= known));
                    self.sink_updates.push((id, row, time, diff));
                }
            }
            Response::Changes {
                id, point, updates, ..
            } => self.changes.push((id, point, updates)),
            Response::Checkpointed { time, .. } => {
                *self.checkpointed.entry(time).or_default() += 1;
            }
            Response::Stats { objects, .. } => self.stats.extend(objects),
            Response::Failed { error, .. } => self.failures.push(error),
            Response::Rejected { id, .. } => *self.rejected.entry(id).or_default() += 1,
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.workers.send(Command::Shutdown);
        self.workers.clone().join();
        if !std::thread::panicking() {
            self.drain();
            assert!(
                self.failures.is_empty(),
                "workers failed: {:?}",
                self.failures
            );
        }
    }
}

pub(crate) fn batch(
    types: &[DataType],
    rows: &[Row],
    partition: i32,
    next_offset: i64,
) -> SourceBatch {
    let schema = Schema::new(
        types
            .iter()
            .enumerate()
            .map(|(i, ty)| (format!("c{i}"), ty.clone())),
    );
    SourceBatch {
        batch: batch_of(&schema, arrays(types, rows), rows.len()).unwrap(),
        columns: (0..types.len()).collect(),
        offsets: vec![(partition, next_offset)],
        time: None,
    }
}

/// Small pseudo-random numbers, the same in every run of a seed.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % limit
    }

    /// A number below `limit`, or NULL one time in eight.
    pub(crate) fn nullable(&mut self, limit: u64) -> Option<i64> {
        (self.below(8) > 0).then(|| self.below(limit) as i64)
    }
}

/// Rows of a table that change at random; what was added may be taken away later.
pub(crate) struct RandomTable {
    pub(crate) object: Object,
    pub(crate) rows: Rows,
}

impl RandomTable {
    /// Writes some random updates and remembers them.
    pub(crate) fn change(
        &mut self,
        cluster: &mut Cluster,
        random: &mut Random,
        mut row: impl FnMut(&mut Random) -> Row,
    ) {
        let mut updates = vec![];
        for _ in 0..random.below(12) {
            let take_away = random.below(3) == 0;
            if take_away && !self.rows.is_empty() {
                let index = random.below(self.rows.len() as u64) as usize;
                let victim = self.rows.keys().nth(index).unwrap().clone();
                updates.push((victim, -1));
            } else {
                updates.push((row(random), 1));
            }
            let (row, diff) = updates.last().unwrap().clone();
            let rows = std::mem::take(&mut self.rows);
            self.rows = consolidate(rows.into_iter().chain([(row, diff)]));
        }
        cluster.write(&self.object, &updates);
    }
}
