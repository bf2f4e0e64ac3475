//! The options of a Redis sink: WITH (…) and those behind FORMAT … ENCODE …
//!
//! What keys and values look like is the `format` crate's business; here options are checked for
//! being known, complete and fitting each other.

use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo, RedisError};
use ruslo_repr::{Error, Result};

use crate::options::{OptionReader, Secret, invalid, scrub};

/// FORMAT of a sink: whether deletes are handed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SinkFormat {
    Plain,
    Upsert,
}

/// ENCODE of a sink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SinkEncode {
    Json,
    Template,
}

/// `redis_value_type`: what a row becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueType {
    String,
}

/// What a Redis sink was created with, checked. Its `Debug` shows no secrets.
#[derive(Clone, Debug)]
pub struct RedisOptions {
    /// Every part of the URLs that may not be seen, the URLs themselves included.
    secrets: Vec<Secret>,
    urls: Vec<Secret>,
    cluster: bool,
    address: String,
    pub primary_key: Vec<String>,
    pub format: SinkFormat,
    pub encode: SinkEncode,
    pub value_type: ValueType,
    /// `force_append_only`, also `ignore_delete`: deletes are dropped.
    pub force_append_only: bool,
    /// Given exactly when ENCODE is TEMPLATE.
    pub key_format: Option<String>,
    pub value_format: Option<String>,
    pub timestamptz_handling: Option<&'static str>,
    pub jsonb_handling: Option<&'static str>,
}

const FORCE_APPEND_ONLY: &[&str] = &["force_append_only", "ignore_delete"];
const URL: &str = "redis.url";

impl RedisOptions {
    /// Reads both clauses. `connector` may be among `with`; it is the caller's to judge.
    pub fn parse(
        with: &[(String, String)],
        format: SinkFormat,
        encode: SinkEncode,
        encode_options: &[(String, String)],
    ) -> Result<Self> {
        let mut reader = OptionReader::new("WITH clause", with)?;
        reader.take_present("connector");
        let primary_key = parse_primary_key(reader.take(&["primary_key"])?)?;
        let target = Target::parse(&reader.require(&[URL])?)?;
        reader.finish()?;

        let mut reader = OptionReader::new("ENCODE clause", encode_options)?;
        let value_type = take_value_type(&mut reader)?;
        let force_append_only = reader.take_bool(FORCE_APPEND_ONLY)?.unwrap_or(false);
        let timestamptz = ["utc_string", "utc_without_suffix", "milli", "micro"];
        let timestamptz = reader.take_choice(&["timestamptz.handling.mode"], &timestamptz)?;
        let jsonb = reader.take_choice(&["jsonb.handling.mode"], &["string", "dynamic"])?;
        let key_format = reader.take(&["key_format"])?;
        let value_format = reader.take(&["value_format"])?;
        reader.finish()?;
        check_formats(encode, key_format.as_deref(), value_format.as_deref())?;
        Ok(RedisOptions {
            secrets: target.secrets,
            urls: target.urls,
            cluster: target.cluster,
            address: target.address,
            primary_key,
            format,
            encode,
            value_type,
            force_append_only,
            key_format,
            value_format,
            timestamptz_handling: timestamptz,
            jsonb_handling: jsonb,
        })
    }

    /// `host:port` of the servers, fit to be printed.
    pub fn address(&self) -> &str {
        &self.address
    }

    pub(super) fn is_cluster(&self) -> bool {
        self.cluster
    }

    pub(super) fn urls(&self) -> impl Iterator<Item = &str> {
        self.urls.iter().map(Secret::expose)
    }

    /// What to try when connecting fails as it does where one side speaks TLS and the other not.
    pub(super) fn tls_hint(&self, error: &RedisError) -> &'static str {
        const HANDSHAKE: [&str; 4] = ["InvalidContentType", "corrupt message", "handshake", "eof"];
        let text = error.to_string();
        if self.urls().any(|url| url.starts_with("rediss://")) {
            // A plain Redis waits for the end of a line that never comes.
            let other_language =
                error.is_timeout() || HANDSHAKE.iter().any(|words| text.contains(words));
            return match other_language && !error.is_connection_refusal() {
                true => "; does the port speak TLS? redis:// connects without",
                false => "",
            };
        }
        match error.is_connection_dropped() && !error.is_connection_refusal() {
            true => "; does the port expect TLS? rediss:// connects with it",
            false => "",
        }
    }

    /// Blanks this sink's secrets in a text of the client library.
    pub(super) fn scrub(&self, text: &str) -> String {
        scrub(text, &self.secrets)
    }
}

struct Target {
    urls: Vec<Secret>,
    secrets: Vec<Secret>,
    cluster: bool,
    address: String,
}

impl Target {
    /// One URL, or a JSON array of the URLs of a cluster.
    fn parse(text: &str) -> Result<Self> {
        let text = text.trim();
        let cluster = text.starts_with('[');
        let urls: Vec<String> = if cluster {
            let urls = serde_json::from_str(text).map_err(|_| {
                invalid(format!(
                    "option '{URL}' must be a URL or a JSON array of URLs"
                ))
            })?;
            if Vec::is_empty(&urls) {
                return Err(invalid(format!("option '{URL}' names no server")));
            }
            urls
        } else {
            vec![text.to_owned()]
        };
        let mut addresses = Vec::new();
        let mut secrets = Vec::new();
        for url in &urls {
            let info = parse_url(url)?;
            addresses.push(display_address(info.addr()));
            secrets.push(Secret::new(url.clone()));
            secrets.extend(passwords(url, &info));
        }
        let urls = urls.into_iter().map(Secret::new).collect();
        Ok(Target {
            urls,
            secrets,
            cluster,
            address: addresses.join(", "),
        })
    }
}

fn parse_url(url: &str) -> Result<ConnectionInfo> {
    let wrong = || {
        // The library's own words may repeat the URL, and with it the password.
        invalid(format!("option '{URL}' is not a Redis URL"))
            .with_hint("Write redis://user:password@host:port/db, or rediss:// for TLS.")
    };
    if !url.starts_with("redis://") && !url.starts_with("rediss://") {
        return Err(wrong());
    }
    let info = url.into_connection_info().map_err(|_| wrong())?;
    if !info.addr().is_supported() {
        return Err(wrong());
    }
    Ok(info)
}

fn display_address(address: &ConnectionAddr) -> String {
    match address {
        ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => {
            format!("{host}:{port}")
        }
        other => other.to_string(),
    }
}

/// The password as it is and as the URL spells it, which differ when it is percent-encoded.
fn passwords(url: &str, info: &ConnectionInfo) -> Vec<Secret> {
    let mut found: Vec<Secret> = info
        .redis_settings()
        .password()
        .map(Secret::new)
        .into_iter()
        .collect();
    let user_info = url
        .split_once("://")
        .and_then(|(_, rest)| rest.rsplit_once('@'));
    if let Some((_, password)) = user_info.and_then(|(user_info, _)| user_info.split_once(':')) {
        found.push(Secret::new(password));
    }
    found
}

fn parse_primary_key(option: Option<String>) -> Result<Vec<String>> {
    let columns = option.unwrap_or_default();
    let columns = columns.split(',').map(|column| column.trim().to_owned());
    let columns: Vec<String> = columns.filter(|column| !column.is_empty()).collect();
    if columns.is_empty() {
        return Err(invalid("Redis Sink Primary Key must be specified.")
            .with_hint("Add primary_key = 'column, …' to the WITH clause."));
    }
    Ok(columns)
}

fn take_value_type(reader: &mut OptionReader) -> Result<ValueType> {
    let allowed = ["string", "geospatial", "pubsub", "stream", "hash"];
    let value_type = reader.take_choice(&["redis_value_type"], &allowed)?;
    if let Some(other) = value_type.filter(|value_type| *value_type != "string") {
        return Err(
            Error::unsupported(format!("redis_value_type '{other}' is not supported yet"))
                .with_hint("Use redis_value_type = 'string', which is also the default."),
        );
    }
    let of_other_types = [
        ("longitude", "geospatial"),
        ("latitude", "geospatial"),
        ("member", "geospatial"),
        ("channel", "pubsub"),
        ("channel_column", "pubsub"),
        ("stream", "stream"),
        ("stream_column", "stream"),
    ];
    for (option, value_type) in of_other_types {
        if reader.take_present(option) {
            return Err(invalid(format!(
                "option '{option}' belongs to redis_value_type '{value_type}', not to 'string'"
            )));
        }
    }
    Ok(ValueType::String)
}

fn check_formats(encode: SinkEncode, key: Option<&str>, value: Option<&str>) -> Result<()> {
    match encode {
        SinkEncode::Template => {
            if key.is_none() {
                return Err(invalid(
                    "Cannot find 'key_format', please set it or use JSON",
                ));
            }
            if value.is_none() {
                return Err(invalid(
                    "Cannot find 'value_format', please set it or use JSON",
                ));
            }
        }
        SinkEncode::Json => {
            let given = [(key, "key_format"), (value, "value_format")];
            if let Some((_, option)) = given.iter().find(|(given, _)| given.is_some()) {
                return Err(invalid(format!(
                    "option '{option}' needs ENCODE TEMPLATE, not JSON"
                )));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use ruslo_repr::ErrorKind;

    use super::*;

    fn pairs(options: &[(&str, &str)]) -> Vec<(String, String)> {
        let owned = |(name, value): &(&str, &str)| (name.to_string(), value.to_string());
        options.iter().map(owned).collect()
    }

    const WITH: &[(&str, &str)] = &[
        ("connector", "redis"),
        ("primary_key", "event, page"),
        ("redis.url", "redis://ann:s%40crit@localhost:6380/2"),
    ];
    const TEMPLATE: &[(&str, &str)] = &[("key_format", "{event}"), ("value_format", "{count}")];

    fn parse(with: &[(&str, &str)], encode: &[(&str, &str)]) -> Result<RedisOptions> {
        let (with, encode) = (pairs(with), pairs(encode));
        RedisOptions::parse(&with, SinkFormat::Plain, SinkEncode::Template, &encode)
    }

    #[test]
    fn a_whole_sink() {
        let encode = [TEMPLATE, &[("force_append_only", "true")]].concat();
        let options = parse(WITH, &encode).unwrap();
        assert_eq!(options.primary_key, ["event", "page"]);
        assert_eq!(options.address(), "localhost:6380");
        assert!(options.force_append_only);
        assert!(!options.is_cluster());
        let printed = format!("{options:?}");
        assert!(
            !printed.contains("s%40crit") && !printed.contains("s@crit"),
            "{printed}"
        );
        assert_eq!(options.scrub("no s%40crit, no s@crit"), "no ***, no ***");
    }

    #[test]
    fn clusters_and_urls() {
        let with = |url| [&WITH[..2], &[("redis.url", url)]].concat();
        let cluster = parse(&with(r#"["redis://a:1", "rediss://b:2"]"#), TEMPLATE).unwrap();
        assert!(cluster.is_cluster());
        assert_eq!(cluster.address(), "a:1, b:2");
        for bad in [
            "http://x",
            "redis://:hunter2@",
            "[1]",
            "[]",
            "localhost",
            "[\"x\"]",
        ] {
            let error = parse(&with(bad), TEMPLATE).unwrap_err();
            assert_eq!(error.kind, ErrorKind::InvalidParameter, "{bad}");
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn what_is_missing_unknown_or_does_not_fit() {
        fn refused(with: &[(&str, &str)], encode: &[(&str, &str)]) -> String {
            parse(with, encode).unwrap_err().message
        }
        assert_eq!(
            refused(&[("redis.url", "redis://x")], TEMPLATE),
            "Redis Sink Primary Key must be specified."
        );
        assert_eq!(
            refused(&[("primary_key", "a")], TEMPLATE),
            "missing option 'redis.url'"
        );
        assert_eq!(
            refused(WITH, &TEMPLATE[1..]),
            "Cannot find 'key_format', please set it or use JSON"
        );
        assert_eq!(
            refused(WITH, &TEMPLATE[..1]),
            "Cannot find 'value_format', please set it or use JSON"
        );
        assert_eq!(
            refused(&[WITH, &[("redis.uri", "x")]].concat(), TEMPLATE),
            r#"Unknown fields in the WITH clause: {"redis.uri"}"#
        );
        assert_eq!(
            refused(WITH, &[TEMPLATE, &[("keyformat", "x")]].concat()),
            r#"Unknown fields in the ENCODE clause: {"keyformat"}"#
        );
        assert_eq!(
            refused(WITH, &[TEMPLATE, &[("channel", "x")]].concat()),
            "option 'channel' belongs to redis_value_type 'pubsub', not to 'string'"
        );
        let stream = [TEMPLATE, &[("redis_value_type", "stream")]].concat();
        assert_eq!(
            parse(WITH, &stream).unwrap_err().kind,
            ErrorKind::Unsupported
        );

        let (with, encode) = (pairs(WITH), pairs(TEMPLATE));
        let json = RedisOptions::parse(&with, SinkFormat::Upsert, SinkEncode::Json, &encode);
        assert_eq!(
            json.unwrap_err().message,
            "option 'key_format' needs ENCODE TEMPLATE, not JSON"
        );
        assert!(RedisOptions::parse(&with, SinkFormat::Upsert, SinkEncode::Json, &[]).is_ok());
    }
}
