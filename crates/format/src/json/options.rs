//! The options of `ENCODE JSON` that say how numbers and text become times.

use ruslo_repr::{Error, ErrorKind, Result};

/// How a `timestamp` or `timestamptz` is written in messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TimestampMode {
    /// A number's unit follows from its size: seconds, milli-, micro- or nanoseconds.
    #[default]
    GuessNumberUnit,
    Milli,
    Micro,
    /// Only text; for `timestamptz` with a zone.
    UtcString,
    /// Only text; without a zone it means UTC.
    UtcWithoutSuffix,
}

/// The unit of a `time` that is written as a number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TimeMode {
    #[default]
    Micro,
    Milli,
}

/// How messages write times. Text is understood in every mode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JsonOptions {
    pub timestamp: TimestampMode,
    pub timestamptz: TimestampMode,
    pub time: TimeMode,
}

impl JsonOptions {
    /// Sets the option `name`, as `timestamptz.handling.mode`; false if there is none of that
    /// name.
    ///
    /// Fails with `InvalidParameter` for a value that the option does not have.
    pub fn set(&mut self, name: &str, value: &str) -> Result<bool> {
        match name {
            "timestamp.handling.mode" => self.timestamp = timestamp_mode(name, value)?,
            "timestamptz.handling.mode" => self.timestamptz = timestamp_mode(name, value)?,
            "time.handling.mode" => {
                self.time = match value {
                    "micro" => TimeMode::Micro,
                    "milli" => TimeMode::Milli,
                    _ => return Err(unrecognized(name, value, "micro, milli")),
                }
            }
            _ => return Ok(false),
        }
        Ok(true)
    }
}

fn timestamp_mode(name: &str, value: &str) -> Result<TimestampMode> {
    match value {
        "guess_number_unit" => Ok(TimestampMode::GuessNumberUnit),
        "milli" => Ok(TimestampMode::Milli),
        "micro" => Ok(TimestampMode::Micro),
        "utc_string" => Ok(TimestampMode::UtcString),
        "utc_without_suffix" => Ok(TimestampMode::UtcWithoutSuffix),
        _ => {
            let values = "guess_number_unit, milli, micro, utc_string, utc_without_suffix";
            Err(unrecognized(name, value, values))
        }
    }
}

/// The error for an option's value, which names those that there are.
pub(crate) fn unrecognized(name: &str, value: &str, values: &str) -> Error {
    let message = format!("unrecognized {name} value {value}");
    Error::new(ErrorKind::InvalidParameter, message).with_hint(format!("Use one of {values}."))
}
