//! One line per option rule: what is accepted, what it becomes, what is refused with which words.

use ruslo_repr::ErrorKind;

use super::*;

fn parse(extra: &[(&str, &str)]) -> Result<KafkaOptions> {
    let minimal = [
        ("connector", "kafka"),
        ("topic", "test"),
        ("properties.bootstrap.server", "localhost:9092"),
    ];
    let named = |name: &str| extra.iter().any(|(extra, _)| *extra == name);
    let minimal = minimal.iter().filter(|(name, _)| !named(name));
    let owned = |(name, value): &(&str, &str)| (name.to_string(), value.to_string());
    let options: Vec<_> = minimal.chain(extra).map(owned).collect();
    KafkaOptions::parse(&options)
}

fn refused(extra: &[(&str, &str)]) -> String {
    parse(extra).unwrap_err().message
}

fn property(options: &KafkaOptions, name: &str) -> Option<String> {
    options.client_config().get(name).map(str::to_owned)
}

#[test]
fn names_aliases_and_defaults() {
    let options = parse(&[]).unwrap();
    assert_eq!(options.topic(), "test");
    assert_eq!(options.bootstrap_servers(), "localhost:9092");
    assert_eq!(options.start_position(), StartPosition::Earliest);
    assert_eq!(options.call_timeout(), Duration::from_secs(5));
    assert_eq!(options.group_id_prefix(), "rw-consumer");
    assert_eq!(
        property(&options, "isolation.level").unwrap(),
        "read_committed"
    );
    assert_eq!(
        property(&options, "socket.keepalive.enable").unwrap(),
        "true"
    );

    let aliased = [
        ("kafka.topic".to_owned(), "t".to_owned()),
        ("kafka.brokers".to_owned(), "b:1,c:2".to_owned()),
    ];
    let options = KafkaOptions::parse(&aliased).unwrap();
    assert_eq!(
        (options.topic(), options.bootstrap_servers()),
        ("t", "b:1,c:2")
    );
    assert_eq!(
        refused(&[("properties.bootstrap.servers", "x:1")]),
        "options 'properties.bootstrap.server' and 'properties.bootstrap.servers' mean the \
         same: give only one"
    );
}

#[test]
fn required_options() {
    let topic_only = [("topic".to_owned(), "t".to_owned())];
    let error = KafkaOptions::parse(&topic_only).unwrap_err();
    assert_eq!(
        error.message,
        "missing option 'properties.bootstrap.server'"
    );
    assert_eq!(error.kind, ErrorKind::InvalidParameter);
    assert_eq!(refused(&[("topic", " ")]), "option 'topic' is empty");
}

#[test]
fn start_positions() {
    let start = |extra: &[(&str, &str)]| parse(extra).unwrap().start_position();
    let mode = "scan.startup.mode";
    assert_eq!(start(&[(mode, "LATEST")]), StartPosition::Latest);
    assert_eq!(
        start(&[("kafka.scan.startup.mode", "Earliest")]),
        StartPosition::Earliest
    );
    let timestamp = StartPosition::Timestamp(1_700_000_000_000);
    for name in STARTUP_TIMESTAMP {
        assert_eq!(
            start(&[(mode, "latest"), (name, "1700000000000")]),
            timestamp
        );
    }
    assert_eq!(
        refused(&[(mode, "newest")]),
        "invalid value 'newest' for option 'scan.startup.mode': expected one of earliest, latest"
    );
    assert_eq!(
        refused(&[("scan.startup.timestamp.millis", "yesterday")]),
        "invalid value 'yesterday' for option 'scan.startup.timestamp.millis': expected \
         milliseconds since 1970"
    );
}

#[test]
fn security() {
    let scram = [
        ("properties.security.protocol", "sasl_ssl"),
        ("properties.sasl.mechanism", "scram-sha-256"),
        ("properties.sasl.username", "ann"),
        ("properties.sasl.password", "hunter2"),
    ];
    let options = parse(&scram).unwrap();
    assert_eq!(property(&options, "security.protocol").unwrap(), "SASL_SSL");
    assert_eq!(
        property(&options, "sasl.mechanism").unwrap(),
        "SCRAM-SHA-256"
    );
    assert_eq!(property(&options, "sasl.password").unwrap(), "hunter2");
    assert!(!format!("{options:?}").contains("hunter2"));
    assert_eq!(options.scrub("bad hunter2"), "bad ***");

    assert_eq!(
        refused(&scram[..3]),
        "missing option 'properties.sasl.password': properties.security.protocol = 'SASL_SSL' \
         needs it"
    );
    assert_eq!(
        refused(&[("properties.security.protocol", "TLS")]),
        "invalid value 'TLS' for option 'properties.security.protocol': expected one of \
         PLAINTEXT, SSL, SASL_PLAINTEXT, SASL_SSL"
    );
    for mechanism in ["OAUTHBEARER", "GSSAPI", "AWS_MSK_IAM"] {
        let error = parse(&[("properties.sasl.mechanism", mechanism)]).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Unsupported);
    }
}

#[test]
fn trust_store() {
    let ssl = ("properties.security.protocol", "SSL");
    let own = parse(&[ssl, ("properties.ssl.ca.location", "/ca.pem")]).unwrap();
    assert_eq!(property(&own, "ssl.ca.location").unwrap(), "/ca.pem");
    let pem = parse(&[ssl, ("properties.ssl.ca.pem", "-----BEGIN")]).unwrap();
    assert_eq!(property(&pem, "ssl.ca.location"), None);
    // Neither given: SSL_CERT_FILE or probing, whatever this machine has.
    assert!(property(&parse(&[ssl]).unwrap(), "ssl.ca.location").is_some());
    assert_eq!(property(&parse(&[]).unwrap(), "ssl.ca.location"), None);

    let name = "properties.ssl.endpoint.identification.algorithm";
    let off = parse(&[ssl, (name, "")]).unwrap();
    assert_eq!(property(&off, ENDPOINT_IDENTIFICATION).unwrap(), "none");
}

#[test]
fn client_properties() {
    for (name, kind) in CLIENT_PROPERTIES {
        let value = match kind {
            Bool | IgnoredBool => "true",
            Integer | IgnoredInteger => "5000",
            Text | Kind::Secret => "text",
        };
        let option = format!("properties.{name}");
        let options = parse(&[(&option, value)]).unwrap_or_else(|e| panic!("{option}: {e}"));
        if matches!(kind, IgnoredBool | IgnoredInteger) {
            assert_ne!(property(&options, name).as_deref(), Some(value), "{option}");
        } else {
            assert_eq!(property(&options, name).as_deref(), Some(value), "{option}");
        }
    }
    let timeout = parse(&[("properties.sync.call.timeout", "750ms")]).unwrap();
    assert_eq!(timeout.call_timeout(), Duration::from_millis(750));
    assert_eq!(
        refused(&[("properties.fetch.min.bytes", "many")]),
        "invalid value 'many' for option 'properties.fetch.min.bytes': expected a whole number"
    );
    assert!(
        refused(&[("properties.fetch.min.bytes", "-5")])
            .starts_with("invalid value for option 'properties.fetch.min.bytes':")
    );
    assert_eq!(
        refused(&[("properties.sasl.passwort", "hunter2"), ("group.id", "g")]),
        r#"Unknown fields in the WITH clause: {"group.id", "properties.sasl.passwort"}"#
    );
}

#[test]
fn a_small_limit_of_memory_means_short_queues() {
    assert_eq!(queued_kbytes(None), 16 << 10);
    assert_eq!(queued_kbytes(Some(24 << 30)), 16 << 10);
    assert_eq!(queued_kbytes(Some(1 << 30)), 8 << 10);
    assert_eq!(queued_kbytes(Some(64 << 20)), 1 << 10);
}
