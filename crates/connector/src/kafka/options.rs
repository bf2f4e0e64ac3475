//! The WITH options of a Kafka source: names, aliases, defaults and allowed values.
//!
//! Names under `properties.` are librdkafka's own with that prefix. They are listed here one by
//! one, so that a misspelt option fails the statement instead of being ignored.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::ClientConfig;
use ruslo_repr::{Error, Result};

use super::TopicId;
use super::client::base_config;
use crate::options::{OptionReader, Secret, invalid, parse_bool, parse_duration, scrub};

/// Where a source begins in every partition that exists when it is created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartPosition {
    Earliest,
    Latest,
    /// The first message at or after this time, in milliseconds since 1970.
    Timestamp(i64),
}

/// What a Kafka source was created with, checked. Its `Debug` shows no secrets.
#[derive(Clone, Debug)]
pub struct KafkaOptions {
    topic: String,
    bootstrap_servers: String,
    start: StartPosition,
    call_timeout: Duration,
    group_id_prefix: String,
    topic_id: Option<TopicId>,
    /// librdkafka's names to values.
    plain: BTreeMap<&'static str, String>,
    secret: BTreeMap<&'static str, Secret>,
}

enum Kind {
    Text,
    Secret,
    Bool,
    /// A whole number; librdkafka checks its range.
    Integer,
    /// Accepted for compatibility, checked as a bool or number, and not handed to the client.
    IgnoredBool,
    IgnoredInteger,
}

use Kind::{Bool, IgnoredBool, IgnoredInteger, Integer, Text};

/// Every option that librdkafka gets as it is, without its prefix `properties.`.
const CLIENT_PROPERTIES: &[(&str, Kind)] = &[
    ("client.id", Text),
    ("message.max.bytes", Integer),
    ("receive.message.max.bytes", Integer),
    ("statistics.interval.ms", Integer),
    ("reconnect.backoff.ms", Integer),
    ("reconnect.backoff.max.ms", Integer),
    ("retry.backoff.ms", Integer),
    ("retry.backoff.max.ms", Integer),
    ("socket.connection.setup.timeout.ms", Integer),
    ("socket.keepalive.enable", Bool),
    ("queued.min.messages", Integer),
    ("queued.max.messages.kbytes", Integer),
    ("fetch.wait.max.ms", Integer),
    ("fetch.min.bytes", Integer),
    ("fetch.message.max.bytes", Integer),
    ("fetch.queue.backoff.ms", Integer),
    ("fetch.max.bytes", Integer),
    // Offsets live in the database, so nothing is ever committed to Kafka.
    ("enable.auto.commit", IgnoredBool),
    ("auto.commit.interval.ms", IgnoredInteger),
    ("ssl.ca.location", Text),
    ("ssl.ca.pem", Text),
    ("ssl.certificate.location", Text),
    ("ssl.certificate.pem", Text),
    ("ssl.key.location", Text),
    ("ssl.key.pem", Kind::Secret),
    ("ssl.key.password", Kind::Secret),
    ("enable.ssl.certificate.verification", Bool),
    ("sasl.username", Text),
    ("sasl.password", Kind::Secret),
];

const UNSUPPORTED_PROPERTIES: &[&str] = &[
    "properties.sasl.oauthbearer.config",
    "properties.sasl.kerberos.service.name",
    "properties.sasl.kerberos.keytab",
    "properties.sasl.kerberos.principal",
    "properties.sasl.kerberos.kinit.cmd",
    "properties.sasl.kerberos.min.time.before.relogin",
];

const TOPIC: &[&str] = &["topic", "kafka.topic"];
const BOOTSTRAP: &[&str] = &[
    "properties.bootstrap.server",
    "properties.bootstrap.servers",
    "kafka.brokers",
];
const STARTUP_MODE: &[&str] = &["scan.startup.mode", "kafka.scan.startup.mode"];
const STARTUP_TIMESTAMP: &[&str] = &[
    "scan.startup.timestamp.millis",
    "kafka.time.offset",
    "scan.startup.timestamp_millis",
];
const PROTOCOL: &str = "properties.security.protocol";
const MECHANISM: &str = "properties.sasl.mechanism";
const ENDPOINT_IDENTIFICATION: &str = "ssl.endpoint.identification.algorithm";

impl KafkaOptions {
    /// Reads a WITH clause. `connector` may be among the options; it is the caller's to judge.
    pub fn parse(options: &[(String, String)]) -> Result<Self> {
        let mut reader = OptionReader::new("WITH clause", options)?;
        reader.take_present("connector");
        let mut parsed = KafkaOptions {
            topic: reader.require(TOPIC)?,
            bootstrap_servers: reader.require(BOOTSTRAP)?,
            start: take_start(&mut reader)?,
            call_timeout: Duration::from_secs(5),
            group_id_prefix: "rw-consumer".to_owned(),
            topic_id: None,
            plain: BTreeMap::new(),
            secret: BTreeMap::new(),
        };
        if let Some(prefix) = reader.take(&["group.id.prefix"])? {
            parsed.group_id_prefix = prefix;
        }
        if let Some(text) = reader.take(&["properties.sync.call.timeout"])? {
            parsed.call_timeout = parse_duration("properties.sync.call.timeout", &text)?;
        }
        parsed.take_security(&mut reader)?;
        for (name, kind) in CLIENT_PROPERTIES {
            parsed.take_property(&mut reader, name, kind)?;
        }
        reader.finish()?;
        parsed.check_credentials()?;
        parsed.check_with_client()?;
        Ok(parsed)
    }

    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// The same options for this very topic: readers fail when its name stands for another one.
    pub fn for_topic(mut self, id: Option<TopicId>) -> Self {
        self.topic_id = id;
        self
    }

    /// Makes the client tell more, for tests of what it does.
    #[cfg(test)]
    pub(super) fn with_debug(mut self, contexts: &str) -> Self {
        self.plain.insert("debug", contexts.to_owned());
        self
    }

    pub(super) fn topic_id(&self) -> Option<TopicId> {
        self.topic_id
    }

    pub fn bootstrap_servers(&self) -> &str {
        &self.bootstrap_servers
    }

    pub fn start_position(&self) -> StartPosition {
        self.start
    }

    /// How long a question to the brokers may take (`properties.sync.call.timeout`).
    pub fn call_timeout(&self) -> Duration {
        self.call_timeout
    }

    /// `group.id.prefix`, kept for `SHOW CREATE` and tools: no consumer group is joined.
    pub fn group_id_prefix(&self) -> &str {
        &self.group_id_prefix
    }

    /// Blanks this source's secrets in a text of librdkafka.
    pub(super) fn scrub(&self, text: &str) -> String {
        scrub(text, self.secret.values())
    }

    /// The configuration of a client for this source, trust store included.
    pub(super) fn client_config(&self) -> ClientConfig {
        let mut config = base_config(&self.bootstrap_servers);
        for (name, value) in consumer_defaults() {
            config.set(*name, *value);
        }
        config.set(
            "queued.max.messages.kbytes",
            queued_kbytes(ruslo_memory::usage().limit).to_string(),
        );
        for (name, value) in &self.plain {
            config.set(*name, value);
        }
        for (name, value) in &self.secret {
            config.set(*name, value.expose());
        }
        #[cfg(test)]
        if self.plain.contains_key("debug") {
            config.set_log_level(rdkafka::config::RDKafkaLogLevel::Debug);
        }
        super::client::set_trust_store(&mut config);
        config
    }

    /// Fails when a file that an option names is not there. This is asked when connecting, not
    /// when parsing: a statement stays valid while a file is away.
    pub(super) fn check_files(&self) -> Result<()> {
        for name in [
            "ssl.ca.location",
            "ssl.certificate.location",
            "ssl.key.location",
        ] {
            let Some(path) = self.plain.get(name).filter(|path| *path != "probe") else {
                continue;
            };
            std::fs::metadata(path).map_err(|error| {
                invalid(format!(
                    "cannot read '{path}', given as properties.{name}: {error}"
                ))
                .with_hint("The path is one on the machine that runs the server.")
            })?;
        }
        Ok(())
    }

    fn take_security(&mut self, reader: &mut OptionReader) -> Result<()> {
        let protocols = ["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"];
        if let Some(protocol) = reader.take_choice(&[PROTOCOL], &protocols)? {
            self.plain.insert("security.protocol", protocol.to_owned());
        }
        let mechanisms = [
            "PLAIN",
            "SCRAM-SHA-256",
            "SCRAM-SHA-512",
            "OAUTHBEARER",
            "GSSAPI",
            "AWS_MSK_IAM",
        ];
        match reader.take_choice(&[MECHANISM], &mechanisms)? {
            Some(mechanism @ ("OAUTHBEARER" | "GSSAPI" | "AWS_MSK_IAM")) => {
                return Err(Error::unsupported(format!(
                    "SASL mechanism {mechanism} is not supported yet"
                ))
                .with_hint("Use PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512."));
            }
            Some(mechanism) => {
                self.plain.insert("sasl.mechanism", mechanism.to_owned());
            }
            None => {}
        }
        for name in UNSUPPORTED_PROPERTIES {
            if reader.take_present(name) {
                return Err(Error::unsupported(format!(
                    "option '{name}' is not supported yet"
                )));
            }
        }
        let option = format!("properties.{ENDPOINT_IDENTIFICATION}");
        // Java clients switch the check off with an empty text, librdkafka with the word none.
        let algorithm = reader.take_choice(&[&option], &["https", "none", ""])?;
        if let Some(algorithm) = algorithm {
            let algorithm = if algorithm.is_empty() {
                "none"
            } else {
                algorithm
            };
            self.plain
                .insert(ENDPOINT_IDENTIFICATION, algorithm.to_owned());
        }
        Ok(())
    }

    fn take_property(
        &mut self,
        reader: &mut OptionReader,
        name: &'static str,
        kind: &Kind,
    ) -> Result<()> {
        let option = format!("properties.{name}");
        let Some(value) = reader.take(&[&option])? else {
            return Ok(());
        };
        match kind {
            Kind::Secret => {
                self.secret.insert(name, Secret::new(value));
                return Ok(());
            }
            Bool | IgnoredBool => {
                parse_bool(&option, &value)?;
            }
            Integer | IgnoredInteger => {
                value.trim().parse::<i64>().map_err(|_| {
                    invalid(format!(
                        "invalid value '{value}' for option '{option}': expected a whole number"
                    ))
                })?;
            }
            Text => {}
        }
        if !matches!(kind, IgnoredBool | IgnoredInteger) {
            self.plain.insert(name, value.trim().to_owned());
        }
        Ok(())
    }

    /// SASL needs a mechanism, a user and a password: librdkafka would fall back to Kerberos.
    fn check_credentials(&self) -> Result<()> {
        let protocol = self.plain.get("security.protocol");
        let Some(protocol) = protocol.filter(|protocol| protocol.starts_with("SASL")) else {
            return Ok(());
        };
        let needed = [
            (MECHANISM, self.plain.contains_key("sasl.mechanism")),
            (
                "properties.sasl.username",
                self.plain.contains_key("sasl.username"),
            ),
            (
                "properties.sasl.password",
                self.secret.contains_key("sasl.password"),
            ),
        ];
        for (option, given) in needed {
            if !given {
                return Err(invalid(format!(
                    "missing option '{option}': {PROTOCOL} = '{protocol}' needs it"
                )));
            }
        }
        Ok(())
    }

    /// Lets librdkafka check names and ranges without making a connection.
    fn check_with_client(&self) -> Result<()> {
        match self.client_config().create_native_config() {
            Ok(_) => Ok(()),
            Err(rdkafka::error::KafkaError::ClientConfig(_, reason, name, _)) => {
                Err(invalid(self.scrub(&format!(
                    "invalid value for option 'properties.{name}': {reason}"
                ))))
            }
            Err(other) => Err(invalid(self.scrub(&other.to_string()))),
        }
    }
}

fn take_start(reader: &mut OptionReader) -> Result<StartPosition> {
    let mode = reader.take_choice(STARTUP_MODE, &["earliest", "latest"])?;
    if let Some(text) = reader.take(STARTUP_TIMESTAMP)? {
        let millis = text
            .trim()
            .parse::<i64>()
            .ok()
            .filter(|millis| *millis >= 0);
        return millis.map(StartPosition::Timestamp).ok_or_else(|| {
            invalid(format!(
                "invalid value '{text}' for option '{}': expected milliseconds since 1970",
                STARTUP_TIMESTAMP[0]
            ))
        });
    }
    Ok(match mode {
        Some("latest") => StartPosition::Latest,
        _ => StartPosition::Earliest,
    })
}

/// What a consumer of ours is set to unless an option says otherwise.
fn consumer_defaults() -> &'static [(&'static str, &'static str)] {
    &[
        ("enable.auto.commit", "false"),
        ("enable.auto.offset.store", "false"),
        // A position that is no longer there is an error that the reader handles in the open.
        ("auto.offset.reset", "error"),
        ("isolation.level", "read_committed"),
        // The end of a partition tells the position after control records, too.
        ("enable.partition.eof", "true"),
        ("allow.auto.create.topics", "false"),
        // A broker that has just started may not know its topics yet. After that the client would
        // not fetch for this long, 30 s by default.
        ("topic.metadata.propagation.max.ms", "1000"),
        // The default of a second starves a consumer that empties its queue faster.
        ("fetch.queue.backoff.ms", "2"),
        ("fetch.error.backoff.ms", "200"),
        // Brokers answer at once when there is something; this only bounds how long a full
        // partition's fetch can wait behind that of an idle one.
        ("fetch.wait.max.ms", "50"),
        // Per lane. An entry costs librdkafka about 400 bytes beside its payload.
        ("queued.min.messages", "50000"),
        ("fetch.message.max.bytes", "1048576"),
        ("fetch.max.bytes", "8388608"),
    ]
}

/// What a lane may have fetched and not handed on, where memory has this limit in bytes: there can
/// be many lanes.
fn queued_kbytes(limit: Option<u64>) -> u64 {
    const MOST: u64 = 16 << 10;
    const LEAST: u64 = 1 << 10;
    let share = limit.map_or(MOST, |limit| limit / 128 / 1024);
    share.clamp(LEAST, MOST)
}

#[cfg(test)]
mod tests;
