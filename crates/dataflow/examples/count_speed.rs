//! How much a worker does per event of `SELECT event, count(*) … GROUP BY event`.
//!
//! Run with `cargo run --release -p ruslo-dataflow --example count_speed [groups] [millions]`.
//! Prints the wall time per event from the queue to the view, on one worker that has nothing
//! else to do.

use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Instant;

use arrow::array::StringArray;
use arrow::datatypes::DataType;
use ruslo_dataflow::{Command, Response, SourceBatch, Workers, WorkersConfig};
use ruslo_repr::eval::{Evaluator, GroupProgram, Program};
use ruslo_repr::row::batch_of;
use ruslo_repr::{Aggregate, AggregateFunction, Error, Expr, ObjectId, Plan, Result, Schema};

const ROWS: usize = 8192;
const BATCHES_PER_CLOSE: usize = 16;

/// The plan has no expressions.
struct NoExpressions;

impl Evaluator for NoExpressions {
    fn compile(&self, _: &[Expr], _: &[DataType]) -> Result<Box<dyn Program>> {
        Err(Error::internal("no expressions here"))
    }

    fn aggregate(&self, _: &Aggregate, _: &[DataType]) -> Result<Box<dyn GroupProgram>> {
        Err(Error::internal("no such aggregates here"))
    }
}

fn main() -> Result<()> {
    let mut arguments = std::env::args()
        .skip(1)
        .filter_map(|argument| argument.parse().ok());
    let groups: usize = arguments.next().unwrap_or(5);
    let millions: usize = arguments.next().unwrap_or(10);
    let (sender, responses) = channel();
    let config = WorkersConfig {
        workers: 1,
        evaluator: Arc::new(NoExpressions),
        durable: false,
    };
    let on_response = move |response| {
        let _ = sender.send(response);
    };
    let workers = Workers::start(config, Arc::new(on_response))?;
    let (source, view) = (ObjectId(1), ObjectId(2));
    workers.send(Command::CreateSource { id: source });
    workers.send(Command::CreateView {
        id: view,
        name: "counts".to_string(),
        plan: count_by_event(source),
        key: vec![0],
        as_of: 0,
        hydrate: vec![],
        restore: None,
    });
    let batches = (0..64)
        .map(|i| batch(i, groups))
        .collect::<Result<Vec<_>>>()?;
    let queue = workers.live_queue(0, source);
    let closes = millions * 1_000_000 / (ROWS * BATCHES_PER_CLOSE);
    let started = Instant::now();
    for close in 1..=closes as u64 {
        for i in 0..BATCHES_PER_CLOSE {
            let next = (close as usize * BATCHES_PER_CLOSE + i) % batches.len();
            if queue.push(batches[next].clone()).is_err() {
                return Err(Error::internal("the worker is gone"));
            }
        }
        workers.send(Command::Close { time: close });
        while let Ok(response) = responses.recv() {
            match response {
                Response::Complete { time, .. } if time == close => {
                    let since = time;
                    workers.send(Command::AllowCompaction { id: view, since });
                    break;
                }
                Response::Failed { error, .. } => return Err(error),
                _ => {}
            }
        }
    }
    let events = closes * BATCHES_PER_CLOSE * ROWS;
    let nanoseconds = started.elapsed().as_nanos() as f64 / events as f64;
    println!("{events} events, {groups} groups: {nanoseconds:.1} ns per event");
    Ok(())
}

fn count_by_event(source: ObjectId) -> Plan {
    Plan::Reduce {
        input: Box::new(Plan::Source {
            id: source,
            columns: vec![0],
            schema: Schema::new([("event", DataType::Utf8)]),
        }),
        keys: vec![0],
        aggregates: vec![Aggregate {
            function: AggregateFunction::Count,
            args: vec![],
            distinct: false,
            filter: None,
            ty: DataType::Int64,
            text: "count(*)".to_string(),
        }],
        schema: Schema::new([("event", DataType::Utf8), ("count", DataType::Int64)]),
    }
}

fn batch(number: usize, groups: usize) -> Result<SourceBatch> {
    let mut state = number as u64 + 1;
    let events = (0..ROWS).map(|_| {
        state = state
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        Some(format!("event_{}", (state >> 33) as usize % groups))
    });
    let schema = Schema::new([("event", DataType::Utf8)]);
    let column = Arc::new(events.collect::<StringArray>());
    Ok(SourceBatch {
        batch: batch_of(&schema, vec![column], ROWS)?,
        columns: vec![0],
        offsets: vec![(0, (number * ROWS) as i64)],
        time: None,
    })
}
