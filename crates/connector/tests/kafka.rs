//! Reading and writing topics of the embedded broker: order, bounds, outages, lost positions.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use ruslo_connector::generate::{self, EventKind, GenerateOptions, Progress, Rate, Summary};
use ruslo_connector::kafka::{
    self, Gap, GapReason, KafkaOptions, KafkaReader, Lane, LaneError, ReaderState, StartOffsets,
};
use ruslo_connector::mock::MockBroker;
use ruslo_repr::ErrorKind;

const PATIENCE: Duration = Duration::from_secs(30);

fn broker(topic: &str, partitions: i32) -> MockBroker {
    let broker = MockBroker::start().unwrap();
    broker.create_topic(topic, partitions).unwrap();
    broker
}

fn options(brokers: &str, topic: &str, extra: &[(&str, &str)]) -> KafkaOptions {
    let mut options = BTreeMap::from([
        ("topic", topic),
        ("properties.bootstrap.server", brokers),
        // A busy machine may let the embedded broker wait for its turn.
        ("properties.sync.call.timeout", "10s"),
    ]);
    options.extend(extra.iter().copied());
    let owned = |(name, value): (&str, &str)| (name.to_string(), value.to_string());
    let options: Vec<_> = options.into_iter().map(owned).collect();
    KafkaOptions::parse(&options).unwrap()
}

/// Sends `count` numbered messages to each of `partitions`, with `padding` bytes behind each.
fn produce(broker: &MockBroker, topic: &str, partitions: i32, count: usize, padding: usize) {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", broker.bootstrap_servers())
        .set("enable.idempotence", "true")
        .create()
        .unwrap();
    for number in 0..count {
        let payload = format!("{number} {}", "x".repeat(padding));
        for partition in 0..partitions {
            let record: BaseRecord<'_, str, str> =
                BaseRecord::to(topic).partition(partition).payload(&payload);
            producer.send(record).map_err(|(error, _)| error).unwrap();
        }
        producer.poll(Duration::ZERO);
    }
    producer.flush(PATIENCE).unwrap();
}

fn generate(broker: &MockBroker, topic: &str, count: u64, seed: u64) -> Summary {
    let mut options =
        GenerateOptions::new(EventKind::UserEvents, broker.bootstrap_servers(), topic);
    options.rate = Rate::Max;
    options.count = Some(count);
    options.seed = Some(seed);
    generate::run(&options, &AtomicBool::new(false), |_| {}).unwrap()
}

/// What a lane handed out: partition to (offset, payload).
type Read = BTreeMap<i32, Vec<(i64, String)>>;

fn poll_into(lane: &mut Lane, read: &mut Read) -> usize {
    lane.poll(1_000, Duration::from_millis(100), &mut |message| {
        let payload = String::from_utf8_lossy(message.payload().unwrap_or_default()).into_owned();
        assert!(message.timestamp_ms().is_some());
        read.entry(message.partition())
            .or_default()
            .push((message.offset(), payload));
    })
    .unwrap()
}

fn read_until(lanes: &mut [Lane], read: &mut Read, done: impl Fn(&[Lane], &Read) -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done(lanes, read) {
        assert!(Instant::now() < deadline, "not done in time");
        for lane in lanes.iter_mut() {
            poll_into(lane, read);
        }
    }
}

fn total(read: &Read) -> usize {
    read.values().map(Vec::len).sum()
}

fn assert_unbroken(read: &Read) {
    for (partition, messages) in read {
        let broken = messages.windows(2).find(|pair| pair[1].0 != pair[0].0 + 1);
        assert!(broken.is_none(), "partition {partition}: {broken:?}");
    }
}

fn wait_for(reader: &KafkaReader, what: impl Fn(&ReaderState) -> bool) -> ReaderState {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let state = reader.status().state;
        if what(&state) {
            return state;
        }
        assert!(Instant::now() < deadline, "still {state:?}");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn lanes_share_the_partitions_and_read_everything_once() {
    let broker = broker("events", 4);
    let summary = generate(&broker, "events", 20_000, 1);
    assert_eq!(
        (summary.sent, summary.acked, summary.failed),
        (20_000, 20_000, 0)
    );

    let options = options(broker.bootstrap_servers(), "events", &[]);
    let start = kafka::probe(&options).unwrap().start;
    assert_eq!(start, StartOffsets::from([(0, 0), (1, 0), (2, 0), (3, 0)]));
    let (reader, mut lanes) = KafkaReader::open(&options, "test", &start, None, 2).unwrap();
    let mut read = Read::new();
    read_until(&mut lanes, &mut read, |_, read| total(read) >= 20_000);
    assert_unbroken(&read);
    for (index, lane) in lanes.iter().enumerate() {
        assert!(
            lane.next_offsets()
                .keys()
                .all(|partition| *partition as usize % 2 == index)
        );
        assert!(!lane.finished(), "a lane without an end never finishes");
    }

    let mut per_event = BTreeMap::new();
    for (_, payload) in read.values().flatten() {
        let event: serde_json::Value = serde_json::from_str(payload).unwrap();
        *per_event
            .entry(event["event"].as_str().unwrap().to_owned())
            .or_insert(0) += 1;
    }
    assert_eq!(per_event, summary.per_event);

    let status = reader.status();
    assert_eq!(status.state, ReaderState::Running);
    assert_eq!(
        (status.messages, status.errors, status.lag()),
        (20_000, 0, 0)
    );
    assert_eq!(status.gaps, []);
    let high = kafka::watermarks(&options, &[]).unwrap();
    for (partition, status) in status.partitions {
        assert_eq!(high[&partition], (0, status.position));
    }
}

#[test]
fn a_bounded_reader_stops_before_its_ends() {
    let broker = broker("bounded", 3);
    produce(&broker, "bounded", 3, 1_000, 0);
    let options = options(broker.bootstrap_servers(), "bounded", &[]);
    let start = StartOffsets::from([(0, 100), (1, 0), (2, 500)]);
    let end = StartOffsets::from([(0, 600), (1, 1_000), (2, 500)]);
    let (_reader, mut lanes) = KafkaReader::open(&options, "test", &start, Some(&end), 3).unwrap();
    assert!(lanes[2].finished(), "nothing to read in partition 2");
    let mut read = Read::new();
    read_until(&mut lanes, &mut read, |lanes, _| {
        lanes.iter().all(Lane::finished)
    });
    assert_unbroken(&read);
    assert_eq!(read[&0].first().unwrap().0, 100);
    assert_eq!(read[&0].last().unwrap().0, 599);
    assert_eq!(read[&1].len(), 1_000);
    assert_eq!(read.get(&2), None);
    for lane in &lanes {
        for (partition, next) in lane.next_offsets() {
            assert_eq!(*next, end[partition]);
        }
    }
}

#[test]
fn more_lanes_than_partitions() {
    let broker = broker("few", 1);
    produce(&broker, "few", 1, 10, 0);
    let options = options(broker.bootstrap_servers(), "few", &[]);
    let start = kafka::probe(&options).unwrap().start;
    let end = StartOffsets::from([(0, 10)]);
    let (_reader, mut lanes) = KafkaReader::open(&options, "test", &start, Some(&end), 4).unwrap();
    let mut read = Read::new();
    read_until(&mut lanes, &mut read, |lanes, _| {
        lanes.iter().all(Lane::finished)
    });
    assert_eq!(total(&read), 10);
}

#[test]
fn latest_starts_behind_what_is_there() {
    let broker = broker("latest", 2);
    produce(&broker, "latest", 2, 50, 0);
    let mode = [("scan.startup.mode", "latest")];
    let options = options(broker.bootstrap_servers(), "latest", &mode);
    let start = kafka::probe(&options).unwrap().start;
    assert_eq!(start, StartOffsets::from([(0, 50), (1, 50)]));
}

#[test]
fn a_partition_that_appears_later_is_read_from_its_start() {
    let broker = broker("growing", 2);
    produce(&broker, "growing", 2, 100, 0);
    let options = options(broker.bootstrap_servers(), "growing", &[]);
    // As it looked when the source was created, before partition 1 was added.
    let start = StartOffsets::from([(0, 40)]);
    let (reader, mut lanes) = KafkaReader::open(&options, "test", &start, None, 2).unwrap();
    let mut read = Read::new();
    read_until(&mut lanes, &mut read, |_, read| total(read) >= 160);
    assert_unbroken(&read);
    assert_eq!((read[&0][0].0, read[&1][0].0), (40, 0));
    assert_eq!(reader.partitions(), [0, 1]);
    assert_eq!(lanes[1].next_offsets(), &StartOffsets::from([(1, 100)]));
}

#[test]
fn an_outage_is_shown_and_survived() {
    let broker = broker("outage", 2);
    produce(&broker, "outage", 2, 500, 0);
    let options = options(broker.bootstrap_servers(), "outage", &[]);
    let start = kafka::probe(&options).unwrap().start;
    let (reader, mut lanes) = KafkaReader::open(&options, "test", &start, None, 1).unwrap();
    let mut read = Read::new();
    read_until(&mut lanes, &mut read, |_, read| total(read) >= 1_000);

    broker.set_down(true).unwrap();
    let state = wait_for(&reader, |state| {
        matches!(state, ReaderState::Retrying { .. })
    });
    let ReaderState::Retrying { error } = state else {
        unreachable!()
    };
    assert!(!error.is_empty());
    broker.set_down(false).unwrap();
    produce(&broker, "outage", 2, 500, 0);
    read_until(&mut lanes, &mut read, |_, read| total(read) >= 2_000);
    assert_unbroken(&read);
    wait_for(&reader, |state| *state == ReaderState::Running);
    assert_eq!(poll_into(&mut lanes[0], &mut read), 0);
}

#[test]
fn what_retention_took_is_a_gap_and_not_a_silent_jump() {
    let broker = broker("short", 1);
    // The embedded broker keeps 5 MB of a partition.
    produce(&broker, "short", 1, 8_000, 1_000);
    let options = options(broker.bootstrap_servers(), "short", &[]);
    let (low, high) = kafka::watermarks(&options, &[0]).unwrap()[&0];
    assert!(low > 100 && high == 8_000, "{low} {high}");

    let start = StartOffsets::from([(0, 7)]);
    let (reader, mut lanes) = KafkaReader::open(&options, "test", &start, None, 1).unwrap();
    let mut read = Read::new();
    read_until(&mut lanes, &mut read, |_, read| {
        total(read) as i64 >= high - low
    });
    assert_unbroken(&read);
    assert_eq!(read[&0][0].0, low);
    let gap = Gap {
        partition: 0,
        from: 7,
        to: low,
        reason: GapReason::Retention,
    };
    assert_eq!(lanes[0].take_gaps(), std::slice::from_ref(&gap));
    assert_eq!(lanes[0].take_gaps(), []);
    assert_eq!(reader.status().gaps, [gap]);
    assert_eq!(reader.status().state, ReaderState::Running);

    // A hydration whose whole range is gone ends, and says what it missed.
    let end = StartOffsets::from([(0, 100)]);
    let (_reader, mut lanes) = KafkaReader::open(&options, "test", &start, Some(&end), 1).unwrap();
    let mut read = Read::new();
    read_until(&mut lanes, &mut read, |lanes, _| lanes[0].finished());
    assert_eq!(total(&read), 0);
    let gap = Gap {
        partition: 0,
        from: 7,
        to: 100,
        reason: GapReason::Retention,
    };
    assert_eq!(lanes[0].take_gaps(), [gap]);
}

#[test]
fn a_position_past_the_end_fails_with_advice() {
    let broker = broker("anew", 1);
    produce(&broker, "anew", 1, 10, 0);
    let options = options(broker.bootstrap_servers(), "anew", &[]);
    let start = StartOffsets::from([(0, 500)]);
    let (reader, mut lanes) = KafkaReader::open(&options, "test", &start, None, 1).unwrap();
    let deadline = Instant::now() + PATIENCE;
    let error = loop {
        assert!(Instant::now() < deadline);
        match lanes[0].poll(10, Duration::from_millis(50), &mut |_| panic!("a message")) {
            Ok(_) => {}
            Err(error) => break error.to_string(),
        }
    };
    assert!(
        error.contains("the position 500 is past the end 10"),
        "{error}"
    );
    assert_eq!(reader.status().state, ReaderState::Failed { error });

    let end = StartOffsets::from([(0, 20)]);
    let start = StartOffsets::from([(0, 0)]);
    let (_reader, mut lanes) = KafkaReader::open(&options, "test", &start, Some(&end), 1).unwrap();
    let deadline = Instant::now() + PATIENCE;
    while lanes[0]
        .poll(100, Duration::from_millis(50), &mut |_| {})
        .is_ok()
    {
        assert!(Instant::now() < deadline && !lanes[0].finished());
    }
}

#[test]
fn closing_wakes_a_waiting_lane() {
    let broker = broker("idle", 1);
    let options = options(broker.bootstrap_servers(), "idle", &[]);
    let start = kafka::probe(&options).unwrap().start;
    let (reader, mut lanes) = KafkaReader::open(&options, "test", &start, None, 1).unwrap();
    let mut lane = lanes.remove(0);
    let waiting = thread::spawn(move || {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Err(error) = lane.poll(10, PATIENCE, &mut |_| {}) {
                return error;
            }
        }
        LaneError::Failed("never woken".to_owned())
    });
    thread::sleep(Duration::from_millis(300));
    let closing = Instant::now();
    reader.close();
    assert_eq!(waiting.join().unwrap(), LaneError::Closed);
    assert!(
        closing.elapsed() < Duration::from_secs(2),
        "{:?}",
        closing.elapsed()
    );
}

#[test]
fn asking_for_what_is_not_there() {
    let broker = broker("known", 1);
    let missing = options(broker.bootstrap_servers(), "unknown", &[]);
    let error = kafka::probe(&missing).unwrap_err();
    assert_eq!(error.message, "topic unknown not found");
    assert_eq!(error.kind, ErrorKind::UndefinedObject);

    let file = [("properties.ssl.ca.location", "/no/such/ca.pem")];
    let error = kafka::probe(&options(broker.bootstrap_servers(), "known", &file)).unwrap_err();
    assert_eq!(error.kind, ErrorKind::InvalidParameter);
    assert!(
        error.message.starts_with("cannot read '/no/such/ca.pem'"),
        "{error}"
    );

    let patience = [("properties.sync.call.timeout", "1s")];
    let nobody = options("127.0.0.1:1", "known", &patience);
    let asking = Instant::now();
    let error = kafka::probe(&nobody).unwrap_err();
    assert_eq!(error.kind, ErrorKind::External);
    assert!(
        error
            .message
            .starts_with("cannot use Kafka at 127.0.0.1:1: "),
        "{error}"
    );
    assert!(error.message.contains("refused"), "{error}");
    assert!(
        asking.elapsed() < Duration::from_secs(4),
        "{:?}",
        asking.elapsed()
    );
}

#[test]
fn a_listener_of_another_protocol_is_suspected() {
    // As a TLS listener does with a plain client: it reads and hangs up.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = std::io::Read::read(&mut stream, &mut [0; 4096]);
        }
    });
    let patience = [("properties.sync.call.timeout", "1s")];
    let error = kafka::probe(&options(&address, "any", &patience)).unwrap_err();
    assert_eq!(error.kind, ErrorKind::External);
    assert!(error.message.contains("security.protocol"), "{error}");
}

#[test]
fn the_generator_keeps_pace_tells_and_stops() {
    let broker = broker("paced", 1);
    let mut options =
        GenerateOptions::new(EventKind::UserEvents, broker.bootstrap_servers(), "paced");
    options.rate = "200".parse().unwrap();
    options.verbose = true;
    let stop = AtomicBool::new(false);
    let started = Instant::now();
    let mut printed = Vec::new();
    let mut totals = 0;
    let summary = generate::run(&options, &stop, |progress| {
        match progress {
            Progress::Delivered(delivery) => printed.push(delivery.to_string()),
            Progress::Totals { .. } => totals += 1,
            Progress::Trouble(trouble) => panic!("{trouble}"),
        }
        if started.elapsed() > Duration::from_millis(1_500) {
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
        }
    })
    .unwrap();
    assert!((250..=350).contains(&summary.sent), "{}", summary.sent);
    assert_eq!(summary.acked, summary.sent);
    assert_eq!(printed.len() as u64, summary.acked);
    assert!(printed[0].starts_with(" [x] Sent RecordMetadata(topic='paced', partition=0, offset="));
    assert!(
        printed[0].contains("\n [x] Payload {\"event_timestamp\": \""),
        "{}",
        printed[0]
    );
    assert!(totals >= 1);
}

#[test]
fn the_generator_survives_an_outage_exactly() {
    let broker = broker("shaky", 1);
    let mut options =
        GenerateOptions::new(EventKind::UserEvents, broker.bootstrap_servers(), "shaky");
    options.rate = Rate::PerSecond(500.0);
    options.count = Some(1_500);
    let generating =
        thread::spawn(move || generate::run(&options, &AtomicBool::new(false), |_| {}));
    thread::sleep(Duration::from_millis(800));
    broker.set_down(true).unwrap();
    thread::sleep(Duration::from_millis(800));
    broker.set_down(false).unwrap();
    let summary = generating.join().unwrap().unwrap();
    assert_eq!(
        (summary.sent, summary.acked, summary.failed),
        (1_500, 1_500, 0)
    );
    let options = self::options(broker.bootstrap_servers(), "shaky", &[]);
    assert_eq!(kafka::watermarks(&options, &[]).unwrap()[&0], (0, 1_500));
}

#[test]
fn profiles_end_after_one_round_and_carry_their_key() {
    let broker = broker("profiles", 1);
    let mut options = GenerateOptions::new(
        EventKind::UserProfiles,
        broker.bootstrap_servers(),
        "profiles",
    );
    options.rate = Rate::Max;
    options.users = 30;
    let summary = generate::run(&options, &AtomicBool::new(false), |_| {}).unwrap();
    assert_eq!(summary.acked, 30);
    let options = self::options(broker.bootstrap_servers(), "profiles", &[]);
    let start = kafka::probe(&options).unwrap().start;
    let (_reader, mut lanes) = KafkaReader::open(&options, "test", &start, None, 1).unwrap();
    let mut keys = Vec::new();
    let deadline = Instant::now() + PATIENCE;
    while keys.len() < 30 && Instant::now() < deadline {
        lanes[0]
            .poll(100, Duration::from_millis(100), &mut |message| {
                keys.push(message.key().unwrap().to_vec());
            })
            .unwrap();
    }
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), 30);
}
