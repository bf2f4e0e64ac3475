//! What all Kafka clients of ours share: base settings, trust store, and what they tell us.
//!
//! librdkafka reports connection trouble as events beside the data. [`Events`] keeps the last one
//! of them in words, and passes log lines on to `tracing`, a few per second at most.

use std::path::Path;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::metadata::Metadata;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientConfig, ClientContext};
use ruslo_repr::{Error, ErrorKind, Result};

/// Tests may wait for a line.
const LOG_LINES_PER_SECOND_MAX: u32 = if cfg!(test) { 10_000 } else { 10 };

/// The settings every client of ours starts from.
pub(crate) fn base_config(bootstrap_servers: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", bootstrap_servers)
        .set("client.id", "ruslo")
        .set("socket.keepalive.enable", "true")
        .set("socket.nagle.disable", "true")
        // Back within two seconds after an outage instead of ten.
        .set("reconnect.backoff.ms", "100")
        .set("reconnect.backoff.max.ms", "2000")
        .set("topic.metadata.refresh.interval.ms", "10000")
        .set_log_level(RDKafkaLogLevel::Info);
    config
}

/// Points a TLS client without a CA of its own at the system's: the vendored OpenSSL knows no
/// certificates by itself. `SSL_CERT_FILE` counts first, else librdkafka looks around.
pub(crate) fn set_trust_store(config: &mut ClientConfig) {
    let protocol = config.get("security.protocol").unwrap_or_default();
    let encrypted = protocol.to_ascii_uppercase().ends_with("SSL");
    let has_ca = config.get("ssl.ca.location").is_some() || config.get("ssl.ca.pem").is_some();
    if !encrypted || has_ca {
        return;
    }
    let file = std::env::var("SSL_CERT_FILE").unwrap_or_default();
    let location = if !file.is_empty() && Path::new(&file).is_file() {
        file
    } else {
        "probe".to_owned()
    };
    config.set("ssl.ca.location", location);
}

/// What a client said about its connections, without secrets.
#[derive(Clone, Debug)]
pub(crate) struct Complaint {
    pub code: RDKafkaErrorCode,
    pub reason: String,
}

#[derive(Default)]
struct Told {
    /// The last complaint that names a cause.
    cause: Option<Complaint>,
    /// No broker at all can be reached, or credentials are refused: nothing works right now.
    down: bool,
}

struct LogWindow {
    start: Instant,
    lines: u32,
}

/// The callbacks of one client, shared with whoever wants to know how it is doing.
#[derive(Clone)]
pub(crate) struct Events(Arc<EventsInner>);

struct EventsInner {
    /// Which source or tool the log lines are about.
    name: String,
    told: Mutex<Told>,
    log: Mutex<LogWindow>,
}

impl Events {
    pub(crate) fn new(name: &str) -> Self {
        let log = Mutex::new(LogWindow {
            start: Instant::now(),
            lines: 0,
        });
        let told = Mutex::default();
        Events(Arc::new(EventsInner {
            name: name.to_owned(),
            told,
            log,
        }))
    }

    /// Set while nothing works, until [`recovered`](Self::recovered) says otherwise.
    pub(crate) fn is_down(&self) -> bool {
        lock(&self.0.told).down
    }

    /// The last known cause of trouble in words.
    pub(crate) fn cause(&self) -> Option<Complaint> {
        lock(&self.0.told).cause.clone()
    }

    /// To be called when a broker has answered.
    pub(crate) fn recovered(&self) {
        *lock(&self.0.told) = Told::default();
    }

    /// Takes a broker's silence as being down; a cause that is known already is kept.
    pub(crate) fn unanswered(&self, code: RDKafkaErrorCode, reason: String) {
        let mut told = lock(&self.0.told);
        told.down = true;
        told.cause.get_or_insert(Complaint { code, reason });
    }

    fn complain(&self, code: RDKafkaErrorCode, reason: &str) {
        let mut told = lock(&self.0.told);
        told.down |= matches!(
            code,
            RDKafkaErrorCode::AllBrokersDown | RDKafkaErrorCode::Authentication
        );
        // "1/1 brokers are down" says less than whatever came before it.
        if code == RDKafkaErrorCode::AllBrokersDown {
            let reason = "no broker answers".to_owned();
            told.cause.get_or_insert(Complaint { code, reason });
        } else {
            let reason = reason.to_owned();
            told.cause = Some(Complaint { code, reason });
        }
    }

    /// A broker that hangs up on us is only logged, with the likely reason: the wrong protocol.
    /// That is taken for the cause while there is no better one.
    fn hung_up(&self, message: &str) {
        let mut told = lock(&self.0.told);
        let known = told.cause.as_ref().map(|cause| cause.code);
        if matches!(known, None | Some(RDKafkaErrorCode::AllBrokersDown)) {
            let code = RDKafkaErrorCode::BrokerTransportFailure;
            let reason = readable(message);
            told.cause = Some(Complaint { code, reason });
        }
    }

    fn may_log(&self) -> bool {
        let mut window = lock(&self.0.log);
        if window.start.elapsed() >= Duration::from_secs(1) {
            *window = LogWindow {
                start: Instant::now(),
                lines: 0,
            };
        }
        window.lines += 1;
        window.lines <= LOG_LINES_PER_SECOND_MAX
    }
}

impl ClientContext for Events {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        if facility == "FAIL" {
            self.hung_up(message);
        }
        if self.may_log() {
            tracing::debug!(client = %self.0.name, ?level, facility, "{message}");
        }
    }

    fn stats_raw(&self, _statistics: &[u8]) {}

    fn error(&self, error: KafkaError, reason: &str) {
        let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail);
        if self.may_log() {
            tracing::debug!(client = %self.0.name, ?code, "{reason}");
        }
        self.complain(code, &readable(reason));
    }
}

impl ConsumerContext for Events {}

/// A reason as the user should read it: without the name of librdkafka's thread, which precedes
/// some as `[thrd:main]: …`, and with what it usually means when a broker hangs up at once.
fn readable(reason: &str) -> String {
    let reason = match reason.split_once("]: ") {
        Some((prefix, rest)) if prefix.starts_with("[thrd:") => rest,
        _ => reason,
    };
    if reason.contains("APIVERSION_QUERY") && !reason.contains("security.protocol") {
        return format!("{reason}; does the listener expect another security.protocol?");
    }
    reason.to_owned()
}

/// Locks a mutex whose data is whole after every statement, so a panic elsewhere does not matter.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Connects, and fetches the topic's metadata within `timeout`.
///
/// Refused credentials and, once no broker is left to try, TLS and name errors end the wait at
/// once; anything else may be passing and is retried until the time is over. The topic's own
/// error code is left to the caller.
pub(crate) fn preflight(
    config: &ClientConfig,
    events: Events,
    topic: &str,
    timeout: Duration,
) -> Result<(Arc<BaseConsumer<Events>>, Metadata), Complaint> {
    let consumer: BaseConsumer<Events> = config
        .create_with_context(events.clone())
        .map_err(creation_complaint)?;
    let consumer = Arc::new(consumer);
    let deadline = Instant::now() + timeout;
    let (sender, receiver) = mpsc::channel();
    let (asking, topic) = (Arc::clone(&consumer), topic.to_owned());
    // The question blocks without saying why. It is asked from a thread of its own, which the
    // early return below leaves behind; it ends by itself within the same timeout.
    thread::spawn(move || {
        let answer = loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let answer = asking.fetch_metadata(Some(&topic), left.max(Duration::from_millis(1)));
            if answer.is_ok() || Instant::now() >= deadline {
                break answer;
            }
            thread::sleep(Duration::from_millis(50));
        };
        // Nobody listens any more after an early return.
        let _ = sender.send(answer);
    });
    loop {
        // Serves the error events; without a group no message ever comes this way.
        let _ = consumer.poll(Duration::from_millis(10));
        match receiver.recv_timeout(Duration::from_millis(10)) {
            Ok(Ok(metadata)) => {
                events.recovered();
                return Ok((consumer, metadata));
            }
            Ok(Err(error)) => return Err(events.cause().unwrap_or_else(|| complaint(&error))),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                return Err(complaint(&KafkaError::Canceled));
            }
        }
        if let Some(cause) = events.cause().filter(|_| events.is_down())
            && is_final(cause.code)
        {
            return Err(cause);
        }
    }
}

fn is_final(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode::{Authentication, Resolve, SSL, SaslAuthenticationFailed};
    matches!(
        code,
        Authentication | SaslAuthenticationFailed | SSL | Resolve
    )
}

pub(super) fn complaint(error: &KafkaError) -> Complaint {
    let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail);
    let reason = match error.rdkafka_error_code() {
        Some(code) => code.to_string(),
        None => error.to_string(),
    };
    Complaint { code, reason }
}

fn creation_complaint(error: KafkaError) -> Complaint {
    let reason = match &error {
        // The display of this variant holds the value, which may be a password.
        KafkaError::ClientConfig(_, reason, name, _) => format!("{name}: {reason}"),
        KafkaError::ClientCreation(reason) => reason.clone(),
        other => other.to_string(),
    };
    Complaint {
        code: RDKafkaErrorCode::InvalidArgument,
        reason,
    }
}

impl Complaint {
    /// As an error for the user. `reason` has had its secrets blanked by the caller.
    pub(crate) fn into_error(self, brokers: &str) -> Error {
        let message = format!("cannot use Kafka at {brokers}: {}", self.reason);
        let hint = match self.code {
            RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SaslAuthenticationFailed => {
                "Check the options properties.sasl.mechanism, .username and .password."
            }
            RDKafkaErrorCode::SSL => {
                "Check properties.security.protocol and the options under properties.ssl: which \
                 certificate authority signed the broker's certificate?"
            }
            RDKafkaErrorCode::InvalidArgument => "Check the options under properties.",
            RDKafkaErrorCode::TopicAuthorizationFailed => "Let the user read the topic.",
            _ => {
                "Check properties.bootstrap.server and properties.security.protocol, and that \
                 the broker runs and is reachable from here."
            }
        };
        Error::new(ErrorKind::External, message).with_hint(hint)
    }
}

/// A topic's error code in words, `None` when there is none.
pub(super) fn topic_error(code: Option<RDKafkaRespErr>) -> Option<RDKafkaErrorCode> {
    code.map(RDKafkaErrorCode::from)
        .filter(|code| *code != RDKafkaErrorCode::NoError)
}
