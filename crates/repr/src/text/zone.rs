//! Time zones, and the way between local time and UTC.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, LocalResult, Offset, TimeDelta, TimeZone};

use super::datetime::write_offset;
use crate::{Error, ErrorKind, Result};

/// A named zone with its history, or a fixed distance from UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Zone {
    Named(chrono_tz::Tz),
    /// Seconds east of UTC.
    Offset(i32),
}

/// Abbreviations people write in literals, in seconds east of UTC.
const ABBREVIATIONS: [(&str, i32); 19] = [
    ("Z", 0),
    ("ZULU", 0),
    ("UT", 0),
    ("WET", 0),
    ("BST", 3600),
    ("CET", 3600),
    ("CEST", 7200),
    ("EET", 7200),
    ("EEST", 10800),
    ("MSK", 10800),
    ("JST", 32400),
    ("EDT", -14400),
    ("EST", -18000),
    ("CDT", -18000),
    ("CST", -21600),
    ("MDT", -21600),
    ("MST", -25200),
    ("PDT", -25200),
    ("PST", -28800),
];

const SECOND_US: i64 = 1_000_000;
const MAX_OFFSET_SECONDS: i32 = 16 * 3600;

impl Default for Zone {
    fn default() -> Self {
        Zone::Named(chrono_tz::UTC)
    }
}

impl Zone {
    /// The zone of this name or offset; unlike PostgreSQL's, `+02` is always east of Greenwich.
    pub fn parse(name: &str) -> Option<Zone> {
        let name = name.trim();
        if name.starts_with(['+', '-']) {
            return parse_offset(name).map(Zone::Offset);
        }
        let abbreviation = ABBREVIATIONS
            .iter()
            .find(|(n, _)| n.eq_ignore_ascii_case(name));
        if let Some((_, seconds)) = abbreviation {
            return Some(Zone::Offset(*seconds));
        }
        if let Ok(zone) = name.parse() {
            return Some(Zone::Named(zone));
        }
        let mut zones = chrono_tz::TZ_VARIANTS.iter();
        let zone = zones.find(|zone| zone.name().eq_ignore_ascii_case(name));
        zone.map(|zone| Zone::Named(*zone))
    }

    /// Seconds east of UTC at an instant, in microseconds since 1970.
    pub fn offset_at(self, utc_us: i64) -> i32 {
        match self {
            Zone::Offset(seconds) => seconds,
            Zone::Named(chrono_tz::UTC) => 0,
            Zone::Named(zone) => {
                // Beyond what chrono can hold (the year 262142) the rules of its last day hold.
                let instant = DateTime::from_timestamp_micros(clamp(utc_us)).unwrap_or_default();
                zone.offset_from_utc_datetime(&instant.naive_utc())
                    .fix()
                    .local_minus_utc()
            }
        }
    }

    /// Local time, in microseconds, of an instant; saturates at the ends of the type.
    pub fn to_local(self, utc_us: i64) -> i64 {
        utc_us.saturating_add(i64::from(self.offset_at(utc_us)) * SECOND_US)
    }

    /// The instant of a local time. A time that the clock shows twice is the later one (standard
    /// time), and one that it skips is read with the offset from before the gap, as in PostgreSQL.
    pub fn to_utc(self, local_us: i64) -> i64 {
        let seconds = match self {
            Zone::Offset(seconds) => seconds,
            Zone::Named(chrono_tz::UTC) => 0,
            Zone::Named(zone) => {
                let local = DateTime::from_timestamp_micros(clamp(local_us)).unwrap_or_default();
                let local = local.naive_utc();
                match zone.offset_from_local_datetime(&local) {
                    LocalResult::Single(offset) => offset.fix().local_minus_utc(),
                    LocalResult::Ambiguous(_, later) => later.fix().local_minus_utc(),
                    LocalResult::None => {
                        let before = local - TimeDelta::hours(6);
                        let before = zone.offset_from_local_datetime(&before).latest();
                        before.map_or(0, |offset| offset.fix().local_minus_utc())
                    }
                }
            }
        };
        local_us.saturating_sub(i64::from(seconds) * SECOND_US)
    }
}

/// Keeps an instant within what chrono can hold, a day from its ends.
fn clamp(us: i64) -> i64 {
    const LIMIT_US: i64 = 8_000_000_000_000 * SECOND_US;
    us.clamp(-LIMIT_US, LIMIT_US)
}

/// `+hh`, `+hh:mm`, `+hhmm` or `+hh:mm:ss`, in seconds east of UTC.
pub(super) fn parse_offset(text: &str) -> Option<i32> {
    let (sign, digits) = match text.as_bytes().first()? {
        b'+' => (1, &text[1..]),
        b'-' => (-1, &text[1..]),
        _ => return None,
    };
    let number = |s: &str| match s.bytes().all(|b| b.is_ascii_digit()) {
        true => s.parse::<i32>().ok(),
        false => None,
    };
    let (hours, minutes, seconds) = match *digits.split(':').collect::<Vec<_>>() {
        [h, m, s] => (number(h)?, number(m)?, number(s)?),
        [h, m] => (number(h)?, number(m)?, 0),
        [hm] if hm.len() == 4 || hm.len() == 3 => {
            let hm = number(hm)?;
            (hm / 100, hm % 100, 0)
        }
        [h] => (number(h)?, 0, 0),
        _ => return None,
    };
    if hours > 16 || minutes > 59 || seconds > 59 {
        return None;
    }
    let total = hours * 3600 + minutes * 60 + seconds;
    (total < MAX_OFFSET_SECONDS).then_some(sign * total)
}

impl FromStr for Zone {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Zone::parse(name).ok_or_else(|| {
            let message = format!("time zone \"{name}\" not recognized");
            Error::new(ErrorKind::InvalidParameter, message)
                .with_hint("Use an IANA name such as Europe/Berlin, or an offset as +02:00.")
        })
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Zone::Named(zone) => f.write_str(zone.name()),
            Zone::Offset(seconds) => {
                let mut text = String::new();
                write_offset(*seconds, &mut text);
                if text.len() == 3 {
                    text.push_str(":00");
                }
                f.write_str(&text)
            }
        }
    }
}
