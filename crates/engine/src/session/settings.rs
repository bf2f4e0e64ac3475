//! `SET` and `SHOW`: the settings of one session.

use std::collections::BTreeMap;

use ruslo_repr::text::TextStyle;
use ruslo_repr::{Error, ErrorKind, Result};
use ruslo_sql::ast::Query;

use super::{Outcome, Session};

/// What is reported and compared when a client asks which PostgreSQL this is.
const SERVER_VERSION: &str = "15.0";

/// Every setting with its default and what it does. Those of PostgreSQL that change nothing here
/// are accepted, because drivers set them on every connection.
const KNOWN: &[(&str, &str, &str)] = &[
    ("application_name", "", "Name of the client, for the log"),
    (
        "bytea_output",
        "hex",
        "Form in which bytea is printed; only hex",
    ),
    (
        "client_encoding",
        "UTF8",
        "Encoding of the client; only UTF8",
    ),
    ("client_min_messages", "notice", "Accepted, without effect"),
    (
        "datestyle",
        "ISO, MDY",
        "Form in which dates are printed; only ISO",
    ),
    (
        "default_table_access_method",
        "heap",
        "What clients leave out when they describe a table; read-only",
    ),
    (
        "default_transaction_isolation",
        "read committed",
        "Accepted, without effect",
    ),
    (
        "default_transaction_read_only",
        "off",
        "Accepted, without effect",
    ),
    (
        "extra_float_digits",
        "1",
        "Floats are always printed so that they read back exactly",
    ),
    (
        "idle_in_transaction_session_timeout",
        "0",
        "Accepted, without effect",
    ),
    (
        "integer_datetimes",
        "on",
        "Timestamps are integers on the wire; read-only",
    ),
    (
        "intervalstyle",
        "postgres",
        "Form in which intervals are printed; only postgres",
    ),
    (
        "is_superuser",
        "on",
        "Whether the user may do anything; read-only",
    ),
    ("lock_timeout", "0", "Accepted, without effect"),
    ("max_identifier_length", "63", "Accepted, without effect"),
    ("query_mode", "auto", "Accepted, without effect"),
    (
        "rw_implicit_flush",
        "off",
        "Reads always see this session's writes, so without effect",
    ),
    (
        "search_path",
        "\"$user\", public",
        "Schemas in which names without one are looked for",
    ),
    (
        "server_encoding",
        "UTF8",
        "Encoding of the database; read-only",
    ),
    (
        "server_version",
        SERVER_VERSION,
        "PostgreSQL's version that clients see; read-only",
    ),
    (
        "server_version_num",
        "150000",
        "The same as a number; read-only",
    ),
    (
        "standard_conforming_strings",
        "on",
        "Backslashes in strings are plain; read-only",
    ),
    ("statement_timeout", "0", "Accepted, without effect"),
    ("synchronous_commit", "on", "Accepted, without effect"),
    (
        "timezone",
        "UTC",
        "Time zone in which timestamptz is printed and read",
    ),
    (
        "transaction_isolation",
        "read committed",
        "Accepted, without effect",
    ),
    ("transaction_read_only", "off", "Accepted, without effect"),
];

const READ_ONLY: &[&str] = &[
    "default_table_access_method",
    "integer_datetimes",
    "is_superuser",
    "max_identifier_length",
    "server_encoding",
    "server_version",
    "server_version_num",
    "standard_conforming_strings",
];

/// The settings that differ from their defaults, by lower-case name.
#[derive(Clone, Debug, Default)]
pub(super) struct Settings {
    changed: BTreeMap<String, String>,
}

impl Settings {
    pub(super) fn get(&self, name: &str) -> Result<&str> {
        let name = canonical_name(name);
        if let Some(value) = self.changed.get(&name) {
            return Ok(value);
        }
        let known = KNOWN.iter().find(|(known, _, _)| *known == name);
        known
            .map(|(_, default, _)| *default)
            .ok_or_else(|| unknown(&name))
    }

    /// None: back to the default.
    pub(super) fn set(&mut self, name: &str, value: Option<&str>) -> Result<()> {
        let name = canonical_name(name);
        // Names with a dot are a client's own, as in PostgreSQL.
        if !KNOWN.iter().any(|(known, _, _)| *known == name) && !name.contains('.') {
            return Err(unknown(&name));
        }
        let Some(value) = value else {
            self.changed.remove(&name);
            return Ok(());
        };
        if READ_ONLY.contains(&name.as_str()) && self.get(&name)? != value {
            let message = format!("parameter \"{name}\" cannot be changed");
            return Err(Error::new(ErrorKind::InvalidParameter, message));
        }
        check(&name, value)?;
        self.changed.insert(name, value.to_string());
        Ok(())
    }

    /// What differs from the defaults.
    pub(super) fn changed(&self) -> BTreeMap<String, String> {
        self.changed.clone()
    }

    pub(super) fn reset(&mut self) {
        self.changed.clear();
    }

    pub(super) fn time_zone(&self) -> &str {
        self.get("timezone").unwrap_or("UTC")
    }

    pub(super) fn text_style(&self) -> Result<TextStyle> {
        TextStyle::with_time_zone(self.time_zone())
    }

    /// Name, value and description of every known setting.
    pub(super) fn all(&self) -> Vec<(String, String, String)> {
        let all = KNOWN.iter().map(|(name, default, what)| {
            let value = self.changed.get(*name).map_or(*default, String::as_str);
            (name.to_string(), value.to_string(), what.to_string())
        });
        all.collect()
    }

    /// Every setting's value, also those of the client's own names.
    pub(super) fn values(&self) -> std::collections::BTreeMap<String, String> {
        let known = self.all().into_iter().map(|(name, value, _)| (name, value));
        let mut values: std::collections::BTreeMap<_, _> = known.collect();
        values.extend(self.changed.clone());
        values
    }

    pub(super) fn reported(&self, user: &str) -> Vec<(String, String)> {
        const REPORTED: &[(&str, &str)] = &[
            ("application_name", "application_name"),
            ("client_encoding", "client_encoding"),
            ("DateStyle", "datestyle"),
            ("integer_datetimes", "integer_datetimes"),
            ("IntervalStyle", "intervalstyle"),
            ("is_superuser", "is_superuser"),
            ("server_encoding", "server_encoding"),
            ("server_version", "server_version"),
            ("standard_conforming_strings", "standard_conforming_strings"),
            ("TimeZone", "timezone"),
        ];
        let reported = REPORTED.iter().filter_map(|(shown, name)| {
            Some((shown.to_string(), self.get(name).ok()?.to_string()))
        });
        let mut reported: Vec<_> = reported.collect();
        reported.push(("session_authorization".into(), user.into()));
        reported
    }
}

fn canonical_name(name: &str) -> String {
    match name.to_ascii_lowercase().as_str() {
        "time zone" | "time_zone" => "timezone".into(),
        "transaction isolation level" => "transaction_isolation".into(),
        other => other.to_string(),
    }
}

fn unknown(name: &str) -> Error {
    let message = format!("unrecognized configuration parameter \"{name}\"");
    Error::new(ErrorKind::UndefinedObject, message)
}

fn check(name: &str, value: &str) -> Result<()> {
    let fits = match name {
        "timezone" => return TextStyle::with_time_zone(value).map(drop),
        "client_encoding" => {
            let value = value.to_ascii_lowercase().replace(['-', '_'], "");
            ["utf8", "unicode", "sqlascii"].contains(&value.as_str())
        }
        "bytea_output" => value.eq_ignore_ascii_case("hex"),
        "intervalstyle" => value.eq_ignore_ascii_case("postgres"),
        "datestyle" => value.to_ascii_lowercase().starts_with("iso"),
        _ => true,
    };
    if fits {
        return Ok(());
    }
    let message = format!("invalid value for parameter \"{name}\": \"{value}\"");
    Err(Error::new(ErrorKind::InvalidParameter, message))
}

impl Session {
    /// `SELECT set_config('name', 'value', false)` is a SET that looks like a query.
    pub(super) fn apply_set_config(&mut self, query: &Query) -> Result<()> {
        for (name, value) in ruslo_sql::settings_changed(query) {
            self.settings.set(&name, Some(&value))?;
        }
        Ok(())
    }

    pub(super) fn set(&mut self, name: &str, value: Option<&str>) -> Result<Outcome> {
        // Every statement is a transaction here, whatever was asked of transactions.
        if name != "transaction" {
            self.settings.set(name, value)?;
        }
        Outcome::done("SET")
    }

    pub(super) fn reset(&mut self, name: Option<&str>) -> Result<Outcome> {
        match name {
            Some(name) => self.settings.set(name, None)?,
            None => self.settings.reset(),
        }
        Outcome::done("RESET")
    }
}
