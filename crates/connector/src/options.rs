//! Options as a statement gives them: names to texts, taken out one by one and checked.
//!
//! A parser takes every option it knows out of an [`OptionReader`]; what is left at the end is
//! unknown to it, and an unknown option is an error rather than a silent no-op. Error messages
//! name options and print values only where the value cannot be a secret.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use ruslo_repr::{Error, ErrorKind, Result};

/// A text that is never printed: passwords, keys, tokens.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn new(value: impl Into<String>) -> Self {
        Secret(value.into())
    }

    /// The text itself, to be handed to the system it belongs to and to nobody else.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Replaces every occurrence of a secret by `***`, for texts that come from a client library.
///
/// Secrets shorter than three characters are left alone: blanking every `a` of a message would
/// hide the message and tell the secret.
pub(crate) fn scrub<'a>(text: &str, secrets: impl IntoIterator<Item = &'a Secret>) -> String {
    secrets
        .into_iter()
        .filter(|secret| secret.0.len() >= 3)
        .fold(text.to_owned(), |text, secret| {
            text.replace(&secret.0, "***")
        })
}

pub(crate) fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidParameter, message)
}

/// The options of one clause that have not been taken yet.
pub(crate) struct OptionReader {
    clause: &'static str,
    values: BTreeMap<String, String>,
}

impl OptionReader {
    /// `clause` is how errors name the place, such as `WITH clause`. Names match in any case.
    pub(crate) fn new(clause: &'static str, options: &[(String, String)]) -> Result<Self> {
        let mut values = BTreeMap::new();
        for (name, value) in options {
            let name = name.to_ascii_lowercase();
            if values.insert(name.clone(), value.clone()).is_some() {
                return Err(invalid(format!(
                    "option '{name}' is given twice in the {clause}"
                )));
            }
        }
        Ok(OptionReader { clause, values })
    }

    /// Takes an option that goes by any of `names`, the first being the one to recommend.
    pub(crate) fn take(&mut self, names: &[&str]) -> Result<Option<String>> {
        let mut found: Option<(&str, String)> = None;
        for &name in names {
            let Some(value) = self.values.remove(name) else {
                continue;
            };
            if let Some((earlier, _)) = found {
                return Err(invalid(format!(
                    "options '{earlier}' and '{name}' mean the same: give only one"
                )));
            }
            found = Some((name, value));
        }
        Ok(found.map(|(_, value)| value))
    }

    /// As [`take`](Self::take), but missing or empty is an error.
    pub(crate) fn require(&mut self, names: &[&str]) -> Result<String> {
        match self.take(names)? {
            Some(value) if !value.trim().is_empty() => Ok(value),
            Some(_) => Err(invalid(format!("option '{}' is empty", names[0]))),
            None => Err(invalid(format!("missing option '{}'", names[0]))
                .with_hint(format!("Add {} = '…' to the {}.", names[0], self.clause))),
        }
    }

    pub(crate) fn take_bool(&mut self, names: &[&str]) -> Result<Option<bool>> {
        let Some(value) = self.take(names)? else {
            return Ok(None);
        };
        parse_bool(names[0], &value).map(Some)
    }

    /// Takes an option whose value is one of `allowed`, in any case, and gives it as listed there.
    pub(crate) fn take_choice(
        &mut self,
        names: &[&str],
        allowed: &[&'static str],
    ) -> Result<Option<&'static str>> {
        let Some(value) = self.take(names)? else {
            return Ok(None);
        };
        let choice = allowed
            .iter()
            .find(|choice| choice.eq_ignore_ascii_case(value.trim()));
        match choice {
            Some(choice) => Ok(Some(choice)),
            None => Err(invalid(format!(
                "invalid value '{value}' for option '{}': expected one of {}",
                names[0],
                allowed.join(", ")
            ))),
        }
    }

    /// Takes an option only to know whether it was there.
    pub(crate) fn take_present(&mut self, name: &str) -> bool {
        self.values.remove(name).is_some()
    }

    /// Ends the reading: whatever is left is unknown. Values are not printed, since a misspelt
    /// password option holds a password.
    pub(crate) fn finish(self) -> Result<()> {
        if self.values.is_empty() {
            return Ok(());
        }
        let names: BTreeSet<&String> = self.values.keys().collect();
        Err(invalid(format!(
            "Unknown fields in the {}: {names:?}",
            self.clause
        )))
    }
}

pub(crate) fn parse_bool(name: &str, value: &str) -> Result<bool> {
    match value.trim().to_ascii_lowercase().as_str() {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(invalid(format!(
            "invalid value '{value}' for option '{name}': expected one of true, false"
        ))),
    }
}

/// Parses `5s`, `500ms`, `2 min`; a bare number counts seconds.
pub(crate) fn parse_duration(name: &str, value: &str) -> Result<Duration> {
    let text = value.trim();
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let millis_per_unit = match unit.trim().to_ascii_lowercase().as_str() {
        "ms" | "millis" => 1,
        "" | "s" | "sec" | "secs" | "second" | "seconds" => 1_000,
        "m" | "min" | "mins" | "minute" | "minutes" => 60_000,
        _ => 0,
    };
    let millis = number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(millis_per_unit))
        .filter(|millis| (1..=3_600_000).contains(millis));
    millis.map(Duration::from_millis).ok_or_else(|| {
        invalid(format!(
            "invalid value '{value}' for option '{name}': expected a duration such as 5s or \
             500ms, at most an hour"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(options: &[(&str, &str)]) -> Vec<(String, String)> {
        let owned = |(name, value): &(&str, &str)| (name.to_string(), value.to_string());
        options.iter().map(owned).collect()
    }

    #[test]
    fn unknown_options_are_named_in_order_and_their_values_are_not() {
        let options = pairs(&[("zeta", "hunter2"), ("Alpha", "1"), ("known", "x")]);
        let mut reader = OptionReader::new("WITH clause", &options).unwrap();
        assert_eq!(reader.take(&["known"]).unwrap().as_deref(), Some("x"));
        let error = reader.finish().unwrap_err();
        assert_eq!(
            error.message,
            r#"Unknown fields in the WITH clause: {"alpha", "zeta"}"#
        );
        assert_eq!(error.kind, ErrorKind::InvalidParameter);
    }

    #[test]
    fn an_alias_beside_its_option_is_refused() {
        let options = pairs(&[("topic", "a"), ("kafka.topic", "b")]);
        let mut reader = OptionReader::new("WITH clause", &options).unwrap();
        let error = reader.take(&["topic", "kafka.topic"]).unwrap_err();
        assert_eq!(
            error.message,
            "options 'topic' and 'kafka.topic' mean the same: give only one"
        );
    }

    #[test]
    fn durations() {
        let parse = |text| parse_duration("d", text).map(|d| d.as_millis());
        assert_eq!(parse("5s").unwrap(), 5_000);
        assert_eq!(parse("500 ms").unwrap(), 500);
        assert_eq!(parse("7").unwrap(), 7_000);
        assert_eq!(parse("2min").unwrap(), 120_000);
        for bad in [
            "",
            "s",
            "-1s",
            "0",
            "5 parsecs",
            "99999999999999999999",
            "2 h",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn secrets_are_not_printed() {
        let secret = Secret::new("hunter2");
        assert_eq!(format!("{secret} {secret:?}"), "*** ***");
        assert_eq!(scrub("wrong pass hunter2!", [&secret]), "wrong pass ***!");
    }
}
