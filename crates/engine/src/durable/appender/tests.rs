//! Tests of `durable/appender` with a log whose deletions take as long as the test says.

use super::*;
use async_trait::async_trait;
use ruslo_state::LogReader;
use std::sync::Mutex;
use tokio::sync::oneshot;

/// Tells of each truncation, and ends it when the answer comes.
struct Slow {
    last: Time,
    truncations: UnboundedSender<(Time, oneshot::Sender<()>)>,
    appended: Arc<Mutex<Vec<Time>>>,
}

#[async_trait]
impl BindingLog for Slow {
    async fn append(&mut self, records: &[Record]) -> ruslo_state::Result<()> {
        let times = records.iter().map(|record| record.time);
        self.appended.lock().unwrap().extend(times);
        self.last = records.last().map_or(self.last, |record| record.time);
        Ok(())
    }

    fn truncate_before(&mut self, time: Time) -> BoxFuture<'static, ruslo_state::Result<()>> {
        let (end, ended) = oneshot::channel();
        self.truncations.send((time, end)).unwrap();
        Box::pin(async move {
            let _ = ended.await;
            Ok(())
        })
    }

    fn last_time(&self) -> Time {
        self.last
    }

    fn read_after(&self, _time: Time) -> Box<dyn LogReader> {
        unreachable!("an appender only writes")
    }

    fn bytes(&self) -> u64 {
        0
    }
}

fn record(time: Time) -> TimeRecord {
    TimeRecord {
        time,
        offsets: ruslo_state::Offsets::new(),
        rows: vec![],
        changes: vec![],
    }
}

#[tokio::test]
async fn times_become_durable_while_a_bucket_deletes() {
    let (truncations, mut truncated) = unbounded_channel();
    let appended = Arc::new(Mutex::new(vec![]));
    let slow = Slow {
        last: 0,
        truncations,
        appended: appended.clone(),
    };
    let (jobs, queue) = unbounded_channel();
    let (_open, open) = watch::channel(());
    let (events, mut told) = unbounded_channel();
    let log = Log {
        log: Box::new(slow),
        plant: Plant::Nothing,
        open,
    };
    let serving = tokio::spawn(async move { log.serve(queue, &events).await });

    let mut append = async |time| {
        jobs.send(Job::Append(record(time))).ok().unwrap();
        match told.recv().await {
            Some(LogEvent::Durable(durable)) => assert_eq!(durable, time),
            _ => panic!("time {time} is not durable"),
        }
    };
    append(1).await;
    jobs.send(Job::Truncate(1)).ok().unwrap();
    let (time, end) = truncated.recv().await.unwrap();
    assert_eq!(time, 1);
    for time in 2..=9 {
        jobs.send(Job::Truncate(time)).ok().unwrap();
        append(time).await;
    }
    assert!(truncated.try_recv().is_err(), "two at a time");
    end.send(()).unwrap();
    let (time, end) = truncated.recv().await.unwrap();
    assert_eq!(time, 9, "the newest does for those before it");
    append(10).await;
    drop(jobs);
    serving.await.unwrap().unwrap();
    assert!(
        end.is_closed(),
        "an appender that ends waits for no deletion"
    );
    assert_eq!(*appended.lock().unwrap(), (1..=10).collect::<Vec<Time>>());
}
