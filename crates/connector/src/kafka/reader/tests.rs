//! A client library that hangs.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;

use tracing::field::{Field, Visit};
use tracing::span;

use super::*;
use crate::mock::MockBroker;

const PATIENCE: Duration = Duration::from_secs(20);
/// The client whose log lines are not taken.
const STUCK: &str = "stuck";

static HELD: AtomicBool = AtomicBool::new(false);
static REACHED: AtomicBool = AtomicBool::new(false);

/// Keeps librdkafka in the log line that it writes while it has its own lock.
struct Hold;

struct IsHeld {
    of_client: bool,
    under_lock: bool,
}

impl Visit for IsHeld {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let value = format!("{value:?}");
        self.of_client |= field.name() == "client" && value.contains(STUCK);
        self.under_lock |= field.name() == "facility" && value.contains("CLUSTERID");
    }
}

impl tracing::Subscriber for Hold {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }
    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn event(&self, event: &tracing::Event<'_>) {
        let mut seen = IsHeld {
            of_client: false,
            under_lock: false,
        };
        event.record(&mut seen);
        while seen.of_client && seen.under_lock && HELD.load(Ordering::SeqCst) {
            REACHED.store(true, Ordering::SeqCst);
            thread::sleep(Duration::from_millis(10));
        }
    }
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

fn options(brokers: &str) -> KafkaOptions {
    let options = [("topic", "t"), ("properties.bootstrap.server", brokers)];
    let owned = options.map(|(name, value)| (name.to_string(), value.to_string()));
    KafkaOptions::parse(&owned).unwrap()
}

fn wait_for(what: &str, done: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "{what}");
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_library_that_hangs_keeps_nobody_waiting() {
    tracing::subscriber::set_global_default(Hold).unwrap();
    let broker = MockBroker::start().unwrap();
    broker.create_topic("t", 1).unwrap();
    HELD.store(true, Ordering::SeqCst);
    let options = options(broker.bootstrap_servers()).with_debug("broker,generic");
    let start = StartOffsets::from([(0, 0)]);
    let (reader, lanes) = KafkaReader::open(&options, STUCK, &start, None, 1).unwrap();
    wait_for("the library has its lock", || {
        REACHED.load(Ordering::SeqCst)
    });
    let (answer, answered) = mpsc::channel();
    let asking = thread::spawn(move || {
        let status = reader.status();
        assert_eq!(reader.partitions(), [0]);
        reader.close();
        drop(reader);
        answer.send(status).unwrap();
    });
    let status = answered.recv_timeout(Duration::from_secs(2));
    HELD.store(false, Ordering::SeqCst);
    assert!(
        status.is_ok(),
        "asking for the status waits for the library"
    );
    asking.join().unwrap();
    drop(lanes);
}
