//! Sends generated events to Kafka and counts what the broker has acknowledged.
//!
//! The producer is idempotent: what is acknowledged is in the topic exactly once, in order, also
//! when the broker goes away in between. Counts are taken from acknowledgements alone.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message as _};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _, ProducerContext, PurgeConfig};
use rdkafka::{ClientConfig, ClientContext};
use ruslo_repr::{Error, ErrorKind, Result};

use super::{
    Delivery, EventKind, GenerateOptions, Progress, Rate, Summary, UserEvents, UserProfiles,
};
use crate::kafka::{Events, base_config, preflight};
use crate::options::{Secret, scrub};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const FLUSH_TIMEOUT: Duration = Duration::from_secs(30);
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);
/// How often the acknowledgements are looked at while sending at full speed.
const MESSAGES_PER_POLL: u64 = 1_000;
/// After a standstill longer than this the missed events are left out, not sent in one go.
const CATCH_UP_MAX: Duration = Duration::from_secs(1);

/// Generates and sends until the count is reached or `stop` is set, then waits for what is under
/// way. Creates the topic when it is missing and the broker lets us.
///
/// Blocks. Fails when the broker cannot be reached at the start, when the topic cannot be made,
/// and when the client says that it cannot go on.
pub fn run(
    options: &GenerateOptions,
    stop: &AtomicBool,
    mut progress: impl FnMut(Progress),
) -> Result<Summary> {
    let mut source = Source::new(options);
    let count = options.count.or(source.natural_count());
    let settings = Settings::new(options);
    settings.ensure_topic(options)?;
    let labels = source.labels();
    let tally = Arc::new(Tally::new(&options.topic, labels.len(), options.verbose));
    let context = Acks {
        tally: Arc::clone(&tally),
    };
    let producer: BaseProducer<Acks> = settings
        .producer()
        .create_with_context(context)
        .map_err(|error| settings.error(&error))?;

    let started = Instant::now();
    let mut pace = Pace::new(options.rate, started);
    let mut report = Report {
        tally: &tally,
        started,
        told: started,
        progress: &mut progress,
    };
    let mut sent = 0;
    let left = |sent: u64| count.map_or(u64::MAX, |count| count - sent);
    while left(sent) > 0 && !stop.load(Relaxed) {
        let due = pace
            .due(sent, Instant::now())
            .min(left(sent))
            .min(MESSAGES_PER_POLL);
        for _ in 0..due {
            source.next();
            send(&producer, options, &source, stop).map_err(|error| settings.error(&error))?;
            sent += 1;
        }
        producer.poll(Duration::ZERO);
        settings.check(&producer)?;
        report.tell(sent);
        if due == 0 {
            thread::sleep(pace.pause(sent, Instant::now()));
        }
    }
    finish(&producer, &mut report, sent);
    settings.check(&producer)?;
    Ok(tally.summary(sent, started.elapsed(), labels))
}

/// Hands one message over, waiting while the client's buffer is full.
fn send(
    producer: &BaseProducer<Acks>,
    options: &GenerateOptions,
    source: &Source,
    stop: &AtomicBool,
) -> Result<(), KafkaError> {
    let mut record: BaseRecord<'_, [u8], [u8], usize> =
        BaseRecord::with_opaque_to(&options.topic, source.label).payload(&source.payload);
    if let Some(key) = source.key() {
        record = record.key(key);
    }
    loop {
        match producer.send(record) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back))
                if !stop.load(Relaxed) =>
            {
                producer.poll(Duration::from_millis(10));
                record = back;
            }
            Err((error, _)) => return Err(error),
        }
    }
}

/// Waits for acknowledgements; gives up after a while, so that a stop does not hang for ever on
/// a broker that is gone.
fn finish(producer: &BaseProducer<Acks>, report: &mut Report<'_, impl FnMut(Progress)>, sent: u64) {
    let deadline = Instant::now() + FLUSH_TIMEOUT;
    while producer.in_flight_count() > 0 && Instant::now() < deadline {
        // Timing out here only means that another round is needed.
        let _ = producer.flush(Duration::from_millis(100));
        report.tell(sent);
    }
    if producer.in_flight_count() > 0 {
        producer.purge(PurgeConfig::default().queue().inflight());
        producer.poll(Duration::from_millis(100));
    }
    report.tell_deliveries();
}

/// The generator that was asked for, and its last event.
struct Source {
    kind: SourceKind,
    label: usize,
    key: Vec<u8>,
    payload: Vec<u8>,
}

enum SourceKind {
    Events(Box<UserEvents>),
    Profiles(Box<UserProfiles>),
}

impl Source {
    fn new(options: &GenerateOptions) -> Self {
        let GenerateOptions {
            users, pages, seed, ..
        } = *options;
        let kind = match options.kind {
            EventKind::UserEvents => {
                SourceKind::Events(Box::new(UserEvents::new(users, pages, seed)))
            }
            EventKind::UserProfiles => {
                SourceKind::Profiles(Box::new(UserProfiles::new(users, seed)))
            }
        };
        Source {
            kind,
            label: 0,
            key: Vec::new(),
            payload: Vec::with_capacity(256),
        }
    }

    fn next(&mut self) {
        self.label = match &mut self.kind {
            SourceKind::Events(events) => events.next(&mut self.payload),
            SourceKind::Profiles(profiles) => profiles.next(&mut self.key, &mut self.payload),
        };
    }

    fn key(&self) -> Option<&[u8]> {
        matches!(self.kind, SourceKind::Profiles(_)).then_some(&self.key)
    }

    fn labels(&self) -> &'static [&'static str] {
        match self.kind {
            SourceKind::Events(_) => &UserEvents::EVENTS,
            SourceKind::Profiles(_) => &UserProfiles::PLANS,
        }
    }

    fn natural_count(&self) -> Option<u64> {
        match &self.kind {
            SourceKind::Events(_) => None,
            SourceKind::Profiles(profiles) => Some(profiles.users() as u64),
        }
    }
}

/// When events are due.
struct Pace {
    rate: Rate,
    start: Instant,
    /// How many had been sent at `start`.
    base: u64,
}

impl Pace {
    fn new(rate: Rate, start: Instant) -> Self {
        Pace {
            rate,
            start,
            base: 0,
        }
    }

    /// How many more should have been sent by `now`; the first is due at once.
    fn due(&mut self, sent: u64, now: Instant) -> u64 {
        let Rate::PerSecond(rate) = self.rate else {
            return u64::MAX;
        };
        let until_now = (now.duration_since(self.start).as_secs_f64() * rate) as u64 + 1;
        let due = (self.base + until_now).saturating_sub(sent);
        if due as f64 > rate * CATCH_UP_MAX.as_secs_f64() + 1.0 {
            (self.start, self.base) = (now, sent);
            return 1;
        }
        due
    }

    /// How long until the next one is due, short enough to notice a stop.
    fn pause(&self, sent: u64, now: Instant) -> Duration {
        let Rate::PerSecond(rate) = self.rate else {
            return Duration::ZERO;
        };
        let due_at = self.start + Duration::from_secs_f64((sent - self.base) as f64 / rate);
        let pause = due_at.saturating_duration_since(now);
        pause.clamp(Duration::from_millis(1), Duration::from_millis(50))
    }
}

/// The client's settings, and the secrets in them.
struct Settings {
    config: ClientConfig,
    overrides: Vec<(String, String)>,
    secrets: Vec<Secret>,
    brokers: String,
}

impl Settings {
    fn new(options: &GenerateOptions) -> Self {
        let overrides = options.properties.iter().map(|(name, value)| {
            let name = name.strip_prefix("properties.").unwrap_or(name);
            (name.to_owned(), value.clone())
        });
        let overrides: Vec<(String, String)> = overrides.collect();
        let is_secret = |name: &str| name.contains("password") || name.ends_with("key.pem");
        let secrets = overrides.iter().filter(|(name, _)| is_secret(name));
        let secrets = secrets
            .map(|(_, value)| Secret::new(value.clone()))
            .collect();
        let mut config = base_config(&options.brokers);
        config.extend(overrides.clone());
        crate::kafka::set_trust_store(&mut config);
        Settings {
            config,
            overrides,
            secrets,
            brokers: options.brokers.clone(),
        }
    }

    fn producer(&self) -> ClientConfig {
        let mut config = self.config.clone();
        config
            .set("enable.idempotence", "true")
            .set("linger.ms", "5")
            .set("batch.num.messages", "50000")
            .set("batch.size", "1000000")
            .set("queue.buffering.max.messages", "300000")
            .set("queue.buffering.max.kbytes", "131072");
        config.extend(self.overrides.clone());
        config
    }

    /// Fails when the broker cannot be reached; creates the topic when there is none.
    fn ensure_topic(&self, options: &GenerateOptions) -> Result<()> {
        let topic = &options.topic;
        let mut config = self.config.clone();
        config.set("allow.auto.create.topics", "false");
        let seen = preflight(&config, Events::new("generate"), topic, CONNECT_TIMEOUT);
        let (_, metadata) = seen.map_err(|mut complaint| {
            complaint.reason = scrub(&complaint.reason, &self.secrets);
            complaint.into_error(&self.brokers)
        })?;
        let found = metadata.topics().iter().any(|found| {
            found.name() == topic && found.error().is_none() && !found.partitions().is_empty()
        });
        if found {
            Ok(())
        } else {
            self.create_topic(options)
        }
    }

    fn create_topic(&self, options: &GenerateOptions) -> Result<()> {
        let admin: AdminClient<DefaultClientContext> =
            self.config.create().map_err(|error| self.error(&error))?;
        let partitions = options.partitions.max(1);
        let topic = NewTopic::new(&options.topic, partitions, TopicReplication::Fixed(-1));
        let timeouts = AdminOptions::new()
            .request_timeout(Some(CONNECT_TIMEOUT))
            .operation_timeout(Some(CONNECT_TIMEOUT));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .map_err(|error| Error::internal(format!("cannot start a runtime: {error}")))?;
        let created = runtime.block_on(admin.create_topics([&topic], &timeouts));
        let refused = match created {
            Ok(results) => results.into_iter().find_map(|result| result.err()),
            // A broker that knows no such request, as the embedded one, may create topics as they
            // are written to.
            Err(KafkaError::AdminOp(RDKafkaErrorCode::UnsupportedFeature)) => return Ok(()),
            Err(error) => return Err(self.error(&error)),
        };
        match refused {
            None | Some((_, RDKafkaErrorCode::TopicAlreadyExists)) => Ok(()),
            Some((name, code)) => Err(Error::new(
                ErrorKind::External,
                format!("cannot create topic {name}: {code}"),
            )),
        }
    }

    /// Fails when the client has come to a state that it cannot leave.
    fn check(&self, producer: &BaseProducer<Acks>) -> Result<()> {
        match producer.client().fatal_error() {
            None => Ok(()),
            Some((_, reason)) => Err(self.external(&reason)),
        }
    }

    fn error(&self, error: &KafkaError) -> Error {
        match error {
            // The display of this variant holds the value, which may be a password.
            KafkaError::ClientConfig(_, reason, name, _) => Error::new(
                ErrorKind::InvalidParameter,
                scrub(&format!("invalid setting {name}: {reason}"), &self.secrets),
            ),
            other => self.external(&other.to_string()),
        }
    }

    fn external(&self, reason: &str) -> Error {
        let reason = scrub(reason, &self.secrets);
        let message = format!("cannot write to Kafka at {}: {reason}", self.brokers);
        Error::new(ErrorKind::External, message)
    }
}

/// What has been acknowledged, written by the client's callback and read by [`run`].
struct Tally {
    topic: String,
    acked: Vec<AtomicU64>,
    failed: AtomicU64,
    verbose: bool,
    deliveries: Mutex<Vec<Delivery>>,
    trouble: Mutex<Option<String>>,
}

impl Tally {
    fn new(topic: &str, labels: usize, verbose: bool) -> Self {
        Tally {
            topic: topic.to_owned(),
            acked: (0..labels).map(|_| AtomicU64::new(0)).collect(),
            failed: AtomicU64::new(0),
            verbose,
            deliveries: Mutex::default(),
            trouble: Mutex::default(),
        }
    }

    fn acked(&self) -> u64 {
        self.acked.iter().map(|acked| acked.load(Relaxed)).sum()
    }

    fn summary(&self, sent: u64, elapsed: Duration, labels: &[&str]) -> Summary {
        let counts = self.acked.iter().map(|acked| acked.load(Relaxed));
        let labels = labels.iter().map(|label| label.to_string());
        Summary {
            sent,
            acked: self.acked(),
            failed: self.failed.load(Relaxed),
            per_event: labels.zip(counts).collect(),
            elapsed,
        }
    }
}

fn take<T: Default>(mutex: &Mutex<T>) -> T {
    std::mem::take(&mut *mutex.lock().unwrap_or_else(PoisonError::into_inner))
}

fn put<T>(mutex: &Mutex<T>, change: impl FnOnce(&mut T)) {
    change(&mut mutex.lock().unwrap_or_else(PoisonError::into_inner));
}

/// The producer's callbacks.
struct Acks {
    tally: Arc<Tally>,
}

impl ClientContext for Acks {
    fn log(&self, level: rdkafka::config::RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(client = "generate", ?level, facility, "{message}");
    }

    fn stats_raw(&self, _statistics: &[u8]) {}

    fn error(&self, _error: KafkaError, reason: &str) {
        put(&self.tally.trouble, |trouble| {
            *trouble = Some(reason.to_owned())
        });
    }
}

impl ProducerContext for Acks {
    /// The index of the event's label.
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, label: usize) {
        let message = match result {
            Ok(message) => message,
            Err((error, _)) => {
                self.tally.failed.fetch_add(1, Relaxed);
                let reason = format!("a message was not delivered: {error}");
                return put(&self.tally.trouble, |trouble| *trouble = Some(reason));
            }
        };
        self.tally.acked[label].fetch_add(1, Relaxed);
        if self.tally.verbose {
            let payload = String::from_utf8_lossy(message.payload().unwrap_or_default());
            let delivery = Delivery {
                topic: self.tally.topic.clone(),
                partition: message.partition(),
                offset: message.offset(),
                payload: payload.into_owned(),
            };
            put(&self.tally.deliveries, |deliveries| {
                deliveries.push(delivery)
            });
        }
    }
}

/// Tells the caller how it goes.
struct Report<'a, F: FnMut(Progress)> {
    tally: &'a Tally,
    started: Instant,
    told: Instant,
    progress: &'a mut F,
}

impl<F: FnMut(Progress)> Report<'_, F> {
    fn tell(&mut self, sent: u64) {
        self.tell_deliveries();
        if self.told.elapsed() < PROGRESS_INTERVAL {
            return;
        }
        self.told = Instant::now();
        let (acked, elapsed) = (self.tally.acked(), self.started.elapsed());
        (self.progress)(Progress::Totals {
            sent,
            acked,
            elapsed,
        });
        if let Some(trouble) = take(&self.tally.trouble) {
            (self.progress)(Progress::Trouble(trouble));
        }
    }

    fn tell_deliveries(&mut self) {
        if self.tally.verbose {
            for delivery in take(&self.tally.deliveries) {
                (self.progress)(Progress::Delivered(delivery));
            }
        }
    }
}
