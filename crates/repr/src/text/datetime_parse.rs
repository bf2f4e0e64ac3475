//! Reading of date, time and timestamps.
//!
//! ISO 8601 takes a short way. Everything else is cut into fields that mostly tell by their
//! looks what they are, as in PostgreSQL: `31 January 2024 10 pm`, `1/31/2024` (month first),
//! `20240131T101500Z`, `Jan-31-2024 10:15 America/New_York`.

use super::datetime::{days_from_civil, days_in_month};
use super::zone::{Zone, parse_offset};
use super::{DAY_US, TextStyle};
use crate::{Error, ErrorKind, Result};

/// Days since 1970-01-01; a time of day in the text is ignored.
pub fn parse_date(text: &str) -> Result<i32> {
    let read = read(text, "date")?;
    let days = read.date.ok_or_else(|| invalid(text, "date"))?;
    i32::try_from(days).map_err(|_| {
        Error::new(
            ErrorKind::DatetimeOverflow,
            format!("date out of range: \"{text}\""),
        )
    })
}

/// Microseconds since midnight, up to and with `24:00:00`; a date and a zone are ignored.
pub fn parse_time(text: &str) -> Result<i64> {
    let ty = "time";
    let micros = read(text, ty)?.time.ok_or_else(|| invalid(text, ty))?;
    match micros <= DAY_US {
        true => Ok(micros),
        false => Err(out_of_range(text)),
    }
}

/// Microseconds since 1970 of the local time as written; a zone in the text is ignored.
pub fn parse_timestamp(text: &str) -> Result<i64> {
    let read = read(text, "timestamp")?;
    local_micros(&read, text, "timestamp")
}

/// Microseconds since 1970 of an instant; without a zone in the text the style's holds.
pub fn parse_timestamptz(text: &str, style: &TextStyle) -> Result<i64> {
    let ty = "timestamp with time zone";
    let read = read(text, ty)?;
    let local = local_micros(&read, text, ty)?;
    Ok(read.zone.unwrap_or(style.time_zone).to_utc(local))
}

fn local_micros(read: &Read, text: &str, ty: &str) -> Result<i64> {
    let days = read.date.ok_or_else(|| invalid(text, ty))?;
    let micros = days.checked_mul(DAY_US);
    let micros = micros.and_then(|m| m.checked_add(read.time.unwrap_or(0)));
    micros.ok_or_else(|| {
        Error::new(
            ErrorKind::DatetimeOverflow,
            format!("timestamp out of range: \"{text}\""),
        )
    })
}

fn invalid(text: &str, ty: &str) -> Error {
    let message = format!("invalid input syntax for type {ty}: \"{text}\"");
    Error::new(ErrorKind::InvalidDatetime, message)
}

fn out_of_range(text: &str) -> Error {
    let message = format!("date/time field value out of range: \"{text}\"");
    Error::new(ErrorKind::DatetimeOverflow, message)
}

/// What a text says, each part at most once.
#[derive(Clone, Copy, Debug, Default)]
struct Read {
    /// Days since 1970-01-01.
    date: Option<i64>,
    /// Microseconds since midnight, may reach into the next day's first second.
    time: Option<i64>,
    zone: Option<Zone>,
}

/// Why a text was not read.
enum Fault {
    Syntax,
    Range,
    Zone(String),
}

fn read(text: &str, ty: &str) -> Result<Read> {
    if let Some(read) = read_iso(text.as_bytes()) {
        return Ok(read);
    }
    let fields = Fields {
        // A time alone may be written as hhmmss; anywhere else that is a date.
        time_follows: ty == "time",
        ..Fields::default()
    };
    let fields = fields.read(text);
    fields
        .and_then(Fields::finish)
        .map_err(|fault| match fault {
            Fault::Syntax => invalid(text, ty),
            Fault::Range => out_of_range(text),
            Fault::Zone(name) => {
                let message = format!("time zone \"{name}\" not recognized");
                Error::new(ErrorKind::InvalidParameter, message)
            }
        })
}

/// `YYYY-MM-DD`, then optionally ` ` or `T`, `HH:MM:SS`, a fraction, and `Z` or `±HH[:MM]`.
/// `None` sends everything else, wrong values included, to the long way.
fn read_iso(text: &[u8]) -> Option<Read> {
    let number = |from: usize, len: usize| {
        let digits = text.get(from..from + len)?;
        digits.iter().try_fold(0u32, |n, b| match b {
            b'0'..=b'9' => Some(n * 10 + u32::from(b - b'0')),
            _ => None,
        })
    };
    let separator = |at: usize, wanted: u8| (text.get(at) == Some(&wanted)).then_some(());
    let (year, month, day) = (number(0, 4)?, number(5, 2)?, number(8, 2)?);
    separator(4, b'-').and(separator(7, b'-'))?;
    if year == 0 || !(1..=12).contains(&month) {
        return None;
    }
    if day == 0 || day > days_in_month(year.into(), month) {
        return None;
    }
    let mut read = Read {
        date: Some(days_from_civil(year.into(), month, day)),
        ..Read::default()
    };
    if text.len() == 10 {
        return Some(read);
    }
    if !matches!(text[10], b' ' | b'T') {
        return None;
    }
    let (hour, minute, second) = (number(11, 2)?, number(14, 2)?, number(17, 2)?);
    separator(13, b':').and(separator(16, b':'))?;
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let mut micros = i64::from(hour * 3600 + minute * 60 + second) * 1_000_000;
    let mut rest = &text[19..];
    if let Some((b'.', digits)) = rest.split_first() {
        let len = digits.iter().take_while(|b| b.is_ascii_digit()).count();
        micros += fraction_micros(&digits[..len]);
        rest = &digits[len..];
    }
    read.time = Some(micros);
    read.zone = match rest {
        [] => None,
        b"Z" => Some(Zone::default()),
        _ => Some(Zone::Offset(parse_offset(std::str::from_utf8(rest).ok()?)?)),
    };
    Some(read)
}

/// Microseconds of the digits behind a decimal point, rounded.
fn fraction_micros(digits: &[u8]) -> i64 {
    let digit = |i: usize| digits.get(i).map_or(0, |b| i64::from(b - b'0'));
    let micros = (0..6).fold(0, |n, i| n * 10 + digit(i));
    micros + i64::from(digit(6) >= 5)
}

/// The parts of a text as they are found.
#[derive(Default)]
struct Fields {
    year: Option<i64>,
    month: Option<u32>,
    day: Option<u32>,
    time: Option<i64>,
    zone: Option<Zone>,
    /// A `T` was seen: what follows is a time.
    time_follows: bool,
    /// A year of two digits, which may be short for one of four.
    short_year: bool,
    before_christ: bool,
    afternoon: Option<bool>,
    epoch: bool,
}

type Step<T = ()> = std::result::Result<T, Fault>;

impl Fields {
    fn read(mut self, text: &str) -> Step<Fields> {
        let mut rest = text.trim_matches(|c: char| c.is_ascii_whitespace());
        while let Some(first) = rest.chars().next() {
            let len = token_len(rest, first);
            let (token, tail) = rest.split_at(len);
            match first {
                '0'..='9' => self.take_number(token)?,
                '+' | '-' => self.take_offset(token)?,
                c if c.is_alphabetic() => self.take_word(token)?,
                c if c.is_ascii_whitespace() || c == ',' => {}
                _ => return Err(Fault::Syntax),
            }
            rest = tail;
        }
        Ok(self)
    }

    fn has_date(&self) -> bool {
        self.year.is_some() && self.month.is_some() && self.day.is_some()
    }

    fn take_offset(&mut self, token: &str) -> Step {
        if self.zone.is_some() || (self.time.is_none() && !self.has_date()) {
            return Err(Fault::Syntax);
        }
        self.zone = Some(Zone::Offset(parse_offset(token).ok_or(Fault::Syntax)?));
        Ok(())
    }

    fn take_number(&mut self, token: &str) -> Step {
        if token.contains(':') {
            return self.take_clock(token);
        }
        let parts: Vec<&str> = token.split(['-', '/', '.']).collect();
        if parts.len() == 3 {
            return self.take_date(&parts);
        }
        if self.time_follows || self.has_date() {
            return self.take_packed_clock(token);
        }
        if !token.bytes().all(|b| b.is_ascii_digit()) {
            return Err(Fault::Syntax);
        }
        match token.len() {
            8 => self.take_date(&[&token[..4], &token[4..6], &token[6..]]),
            6 if self.month.is_none() => self.take_date(&[&token[2..4], &token[4..], &token[..2]]),
            1 | 2 if self.day.is_none() && self.month.is_some() | self.year.is_none() => {
                self.day = Some(token.parse().map_err(|_| Fault::Range)?);
                Ok(())
            }
            _ => self.take_year(token),
        }
    }

    fn take_year(&mut self, token: &str) -> Step {
        if self.year.is_some() || token.len() > 7 {
            return Err(Fault::Syntax);
        }
        self.year = Some(token.parse().map_err(|_| Fault::Syntax)?);
        self.short_year = token.len() <= 2;
        Ok(())
    }

    /// Year-month-day if the first part has more than two digits, else with a month's name
    /// day-month-year, else month-day-year.
    fn take_date(&mut self, parts: &[&str]) -> Step {
        if self.year.is_some() || self.month.is_some() || self.day.is_some() {
            return Err(Fault::Syntax);
        }
        let named = |part: &str| part.starts_with(|c: char| c.is_alphabetic());
        let (year, month, day) = match (parts[0].len() > 2 && !named(parts[0]), named(parts[1])) {
            (true, _) => (parts[0], parts[1], parts[2]),
            (false, true) => (parts[2], parts[1], parts[0]),
            (false, false) => (parts[2], parts[0], parts[1]),
        };
        self.take_year(year)?;
        self.month = Some(match named(month) {
            true => month_number(month).ok_or(Fault::Syntax)?,
            false => month.parse().map_err(|_| Fault::Syntax)?,
        });
        self.day = Some(day.parse().map_err(|_| Fault::Syntax)?);
        Ok(())
    }

    /// `h:mm`, `h:mm:ss` or `h:mm:ss.ffffff`.
    fn take_clock(&mut self, token: &str) -> Step {
        let (clock, fraction) = match token.split_once('.') {
            Some((clock, fraction)) => (clock, fraction),
            None => (token, ""),
        };
        let parts: Vec<&str> = clock.split(':').collect();
        match *parts {
            [h, m] if fraction.is_empty() => self.set_time(h, m, "0", ""),
            [h, m, s] => self.set_time(h, m, s, fraction),
            _ => Err(Fault::Syntax),
        }
    }

    /// `hhmm`, or `hhmmss` with a fraction.
    fn take_packed_clock(&mut self, token: &str) -> Step {
        let (digits, fraction) = token.split_once('.').unwrap_or((token, ""));
        match digits.len() {
            6 => self.set_time(&digits[..2], &digits[2..4], &digits[4..], fraction),
            4 if fraction.is_empty() => self.set_time(&digits[..2], &digits[2..], "0", ""),
            _ => Err(Fault::Syntax),
        }
    }

    fn set_time(&mut self, hour: &str, minute: &str, second: &str, fraction: &str) -> Step {
        if self.time.is_some() || !fraction.bytes().all(|b| b.is_ascii_digit()) {
            return Err(Fault::Syntax);
        }
        let number = |s: &str| match s.len() <= 4 && s.bytes().all(|b| b.is_ascii_digit()) {
            true => s.parse::<i64>().map_err(|_| Fault::Syntax),
            false => Err(Fault::Syntax),
        };
        let (h, m, s) = (number(hour)?, number(minute)?, number(second)?);
        let fraction = fraction_micros(fraction.as_bytes());
        if h > 24 || m > 59 || s > 60 || (h == 24 && m + s + fraction > 0) {
            return Err(Fault::Range);
        }
        self.time = Some((h * 3600 + m * 60 + s) * 1_000_000 + fraction);
        Ok(())
    }

    fn take_word(&mut self, token: &str) -> Step {
        let lower = token.to_ascii_lowercase();
        match lower.as_str() {
            "t" if self.time.is_none() => self.time_follows = true,
            "am" | "pm" if self.time.is_some() => self.afternoon = Some(lower == "pm"),
            "ad" => {}
            "bc" => self.before_christ = true,
            "at" | "on" => {}
            "epoch" => self.epoch = true,
            "allballs" => self.time = Some(0),
            _ => {
                if let Some(month) = month_number(&lower) {
                    return match self.month.replace(month) {
                        None => Ok(()),
                        Some(_) => Err(Fault::Syntax),
                    };
                }
                if is_weekday(&lower) {
                    return Ok(());
                }
                let zone = Zone::parse(token).ok_or_else(|| match token.contains('/') {
                    true => Fault::Zone(token.to_string()),
                    false => Fault::Syntax,
                })?;
                if self.zone.replace(zone).is_some() {
                    return Err(Fault::Syntax);
                }
            }
        }
        Ok(())
    }

    fn finish(self) -> Step<Read> {
        if self.epoch {
            let alone = self.year.is_none() && self.month.is_none() && self.day.is_none();
            let zone = Some(Zone::default());
            let read = Read {
                date: Some(0),
                time: Some(0),
                zone,
            };
            return if alone { Ok(read) } else { Err(Fault::Syntax) };
        }
        let date = match (self.year, self.month, self.day) {
            (None, None, None) => None,
            (Some(year), Some(month), Some(day)) => Some(self.days(year, month, day)?),
            _ => return Err(Fault::Syntax),
        };
        let time = match (self.time, self.afternoon) {
            (Some(time), Some(afternoon)) => {
                const HOUR_US: i64 = 3_600_000_000;
                if time >= 13 * HOUR_US {
                    return Err(Fault::Range);
                }
                Some(time % (12 * HOUR_US) + if afternoon { 12 * HOUR_US } else { 0 })
            }
            (time, _) => time,
        };
        match (date, time) {
            (None, None) => Err(Fault::Syntax),
            _ => Ok(Read {
                date,
                time,
                zone: self.zone,
            }),
        }
    }

    fn days(&self, year: i64, month: u32, day: u32) -> Step<i64> {
        let year = match (self.before_christ, self.short_year) {
            (true, _) => 1 - year,
            (false, true) if year < 70 => year + 2000,
            (false, true) => year + 1900,
            (false, false) => year,
        };
        // There is no year 0: the year before 1 is 1 BC, which is 0 only in our count.
        let no_such_year = if self.before_christ {
            year > 0
        } else {
            year < 1
        };
        if no_such_year || !(1..=12).contains(&month) {
            return Err(Fault::Range);
        }
        if day == 0 || day > days_in_month(year, month) {
            return Err(Fault::Range);
        }
        Ok(days_from_civil(year, month, day))
    }
}

/// The length of the field that `rest` starts with, whose first character is `first`.
fn token_len(rest: &str, first: char) -> usize {
    let until = |stop: &dyn Fn(char) -> bool| rest.find(stop).unwrap_or(rest.len());
    match first {
        '0'..='9' => number_len(rest),
        '+' | '-' => {
            1 + rest[1..]
                .find(|c: char| !c.is_ascii_digit() && c != ':')
                .unwrap_or(rest.len() - 1)
        }
        't' | 'T' if rest[1..].starts_with(|c: char| c.is_ascii_digit()) => 1,
        c if c.is_alphabetic() => {
            let word = until(&|c| !(c.is_alphanumeric() || matches!(c, '_' | '/')));
            // Only the names with a slash have signs in them: Etc/GMT+5.
            match rest[..word].contains('/') {
                true => until(&|c| !(c.is_alphanumeric() || matches!(c, '_' | '/' | '+' | '-'))),
                false => word,
            }
        }
        c => c.len_utf8(),
    }
}

/// Digits with the separators of a date or a time between them: `2024-01-31`, `31-Jan-2024`,
/// `10:15:00.5`. A separator counts only while it can still belong: `10:15-08` ends at the sign.
fn number_len(rest: &str) -> usize {
    let bytes = rest.as_bytes();
    let digits_from = |at: usize| {
        bytes[at..]
            .iter()
            .take_while(|b| b.is_ascii_digit())
            .count()
    };
    let mut at = digits_from(0);
    let is_clock = bytes.get(at) == Some(&b':');
    for _ in 0..3 {
        let Some(separator) = bytes.get(at) else {
            break;
        };
        let fits = match is_clock {
            true => matches!(separator, b':' | b'.'),
            false => matches!(separator, b'-' | b'/' | b'.'),
        };
        if !fits {
            break;
        }
        let digits = digits_from(at + 1);
        let letters = bytes[at + 1..]
            .iter()
            .take_while(|b| b.is_ascii_alphabetic())
            .count();
        match (digits, letters) {
            (0, 0) => break,
            (0, letters) if !is_clock && *separator != b'.' => at += 1 + letters,
            (0, _) => break,
            (digits, _) => at += 1 + digits,
        }
    }
    at
}

fn month_number(word: &str) -> Option<u32> {
    const MONTHS: [&str; 12] = [
        "january",
        "february",
        "march",
        "april",
        "may",
        "june",
        "july",
        "august",
        "september",
        "october",
        "november",
        "december",
    ];
    let word = word.to_ascii_lowercase();
    let matches = |month: &&str| {
        **month == word || month[..3] == word || (word == "sept" && *month == "september")
    };
    MONTHS.iter().position(matches).map(|i| i as u32 + 1)
}

fn is_weekday(word: &str) -> bool {
    const DAYS: [&str; 7] = [
        "monday",
        "tuesday",
        "wednesday",
        "thursday",
        "friday",
        "saturday",
        "sunday",
    ];
    let short = matches!(word, "tues" | "wednes" | "weds" | "thur" | "thurs");
    short || DAYS.iter().any(|day| *day == word || day[..3] == *word)
}
