//! Text of interval: months, days and time, which never carry into each other.
//!
//! Printed in PostgreSQL's default style, `1 year 2 mons -3 days +04:05:06.789`. Read in that
//! style, in words (`@ 1 hour 2 min ago`), as SQL's `1-2 3 04:05:06` and as ISO 8601's
//! `P1Y2M3DT4H5M6S`.

use std::fmt::Write;

use arrow::datatypes::IntervalMonthDayNano;

use super::datetime::write_fraction;
use crate::{Error, ErrorKind, Result};

const DAY_NS: i128 = 86_400_000_000_000;
const SECOND_NS: f64 = 1e9;

/// The length that intervals are compared by: a month is 30 days, a day 24 hours.
pub fn interval_nanos(value: IntervalMonthDayNano) -> i128 {
    let days = i128::from(value.months) * 30 + i128::from(value.days);
    days * DAY_NS + i128::from(value.nanoseconds)
}

/// The one interval among those of equal length that stands for them all as a key.
///
/// Its parts have one sign and are carried as far as they go, so equal lengths give equal bits.
pub fn interval_order(value: IntervalMonthDayNano) -> IntervalMonthDayNano {
    let nanos = interval_nanos(value);
    let months = nanos / (30 * DAY_NS);
    // Only intervals of many million years can exceed the months; their days take the rest.
    let months = months.clamp(i32::MIN.into(), i32::MAX.into());
    let rest = nanos - months * 30 * DAY_NS;
    let days = (rest / DAY_NS).clamp(i32::MIN.into(), i32::MAX.into());
    let rest = rest - days * DAY_NS;
    IntervalMonthDayNano::new(months as i32, days as i32, rest as i64)
}

/// Appends the interval in the style `postgres`; nanoseconds below a microsecond are cut off.
pub fn write_interval(value: IntervalMonthDayNano, out: &mut String) {
    let start = out.len();
    let mut after_negative = false;
    let parts = [
        (value.months / 12, "year"),
        (value.months % 12, "mon"),
        (value.days, "day"),
    ];
    for (count, unit) in parts.into_iter().filter(|(count, _)| *count != 0) {
        let space = if out.len() > start { " " } else { "" };
        let sign = if after_negative && count > 0 { "+" } else { "" };
        let plural = if count == 1 { "" } else { "s" };
        // Writing to a String cannot fail, here and below.
        let _ = write!(out, "{space}{sign}{count} {unit}{plural}");
        after_negative = count < 0;
    }
    let micros = value.nanoseconds / 1000;
    if micros == 0 && out.len() > start {
        return;
    }
    if out.len() > start {
        out.push(' ');
    }
    if micros < 0 {
        out.push('-');
    } else if after_negative {
        out.push('+');
    }
    let micros = micros.unsigned_abs();
    let seconds = micros / 1_000_000;
    let (h, m, s) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let _ = write!(out, "{h:02}:{m:02}:{s:02}");
    write_fraction((micros % 1_000_000) as i64, out);
}

pub fn parse_interval(text: &str) -> Result<IntervalMonthDayNano> {
    let lower = text.trim().to_ascii_lowercase();
    let mut sum = Sum::default();
    let read = match lower.strip_prefix('p') {
        Some(iso) => read_iso(iso, &mut sum),
        None => read_words(&lower, &mut sum),
    };
    if read.is_none() {
        let message = format!("invalid input syntax for type interval: \"{text}\"");
        return Err(Error::new(ErrorKind::InvalidDatetime, message));
    }
    sum.finish().ok_or_else(|| {
        let message = format!("interval field value out of range: \"{text}\"");
        Error::new(ErrorKind::DatetimeOverflow, message)
    })
}

/// The parts so far. What is not whole flows down: half a month is 15 days.
#[derive(Default)]
struct Sum {
    months: f64,
    days: f64,
    nanos: i128,
    /// The units seen so far, none of which may come twice.
    seen: Vec<Unit>,
}

#[derive(Clone, Copy, PartialEq)]
enum Unit {
    Months(f64),
    Days(f64),
    /// Nanoseconds.
    Time(i64),
}

/// A decimal number as written: the whole part exact, the fraction with the number's sign.
#[derive(Clone, Copy)]
struct Amount {
    whole: i64,
    fraction: f64,
}

impl Amount {
    fn parse(text: &str) -> Option<Amount> {
        let (negative, digits) = match text.strip_prefix(['+', '-']) {
            Some(digits) => (text.starts_with('-'), digits),
            None => (false, text),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let all_digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
        if whole.len() + fraction.len() == 0 || !all_digits(whole) || !all_digits(fraction) {
            return None;
        }
        let whole = if whole.is_empty() {
            0
        } else {
            whole.parse().ok()?
        };
        let fraction = match fraction {
            "" => 0.0,
            digits => format!("0.{digits}").parse().ok()?,
        };
        Some(match negative {
            true => Amount {
                whole: -whole,
                fraction: -fraction,
            },
            false => Amount { whole, fraction },
        })
    }
}

impl Sum {
    /// `None` if the unit was there before.
    fn add(&mut self, amount: Amount, unit: Unit) -> Option<()> {
        if self.seen.contains(&unit) {
            return None;
        }
        self.seen.push(unit);
        let value = amount.whole as f64 + amount.fraction;
        match unit {
            // A fraction of a year is rounded to whole months, one of a month flows into days.
            Unit::Months(1.0) => {
                self.months += amount.whole as f64;
                self.add_days(amount.fraction * 30.0);
            }
            Unit::Months(size) => {
                self.months +=
                    amount.whole as f64 * size + (amount.fraction * size).round_ties_even();
            }
            Unit::Days(1.0) => {
                self.days += amount.whole as f64;
                self.add_time(amount.fraction * DAY_NS as f64);
            }
            Unit::Days(size) => self.add_days(value * size),
            Unit::Time(size) => {
                self.nanos += i128::from(amount.whole) * i128::from(size);
                self.add_time(amount.fraction * size as f64);
            }
        }
        Some(())
    }

    fn add_days(&mut self, days: f64) {
        self.days += days.trunc();
        self.add_time((days - days.trunc()) * DAY_NS as f64);
    }

    /// Time is kept in whole microseconds.
    fn add_time(&mut self, nanos: f64) {
        self.nanos += (nanos / 1000.0).round_ties_even() as i128 * 1000;
    }

    fn finish(self) -> Option<IntervalMonthDayNano> {
        let int = |value: f64| {
            let fits = value >= f64::from(i32::MIN) && value <= f64::from(i32::MAX);
            fits.then_some(value as i32)
        };
        let nanos = i64::try_from(self.nanos).ok()?;
        Some(IntervalMonthDayNano::new(
            int(self.months)?,
            int(self.days)?,
            nanos,
        ))
    }
}

fn read_words(text: &str, sum: &mut Sum) -> Option<()> {
    let mut tokens = tokenize(text)?;
    let ago = tokens.last() == Some(&"ago");
    if ago {
        tokens.pop();
    }
    let mut pending: Option<Amount> = None;
    for token in tokens {
        if token.contains(':') {
            if let Some(days) = pending.take() {
                sum.add(days, Unit::Days(1.0))?;
            }
            read_clock(token, sum)?;
        } else if let Some((years, months)) = year_month(token) {
            sum.add(years, Unit::Months(12.0))?;
            sum.add(months, Unit::Months(1.0))?;
        } else if token.starts_with(|c: char| c.is_ascii_alphabetic()) {
            sum.add(pending.take()?, unit(token)?)?;
        } else {
            // A number behind a number: `1 2:03` has days first, else the first lacks a unit.
            if pending.replace(Amount::parse(token)?).is_some() {
                return None;
            }
        }
    }
    if let Some(seconds) = pending {
        sum.add(seconds, Unit::Time(SECOND_NS as i64))?;
    }
    if ago {
        (sum.months, sum.days, sum.nanos) = (-sum.months, -sum.days, -sum.nanos);
    }
    (!sum.seen.is_empty()).then_some(())
}

/// Cuts `1day-2:03` into numbers, words and clocks; `@` and white space separate.
fn tokenize(text: &str) -> Option<Vec<&str>> {
    let mut tokens = vec![];
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let len = match first {
            c if c.is_ascii_alphabetic() => rest
                .find(|c: char| !c.is_ascii_alphabetic())
                .unwrap_or(rest.len()),
            '0'..='9' | '.' | '+' | '-' => {
                let body = rest[1..].find(|c: char| !(c.is_ascii_digit() || ".:-".contains(c)));
                1 + body.unwrap_or(rest.len() - 1)
            }
            c if c.is_ascii_whitespace() || matches!(c, '@' | ',') => {
                rest = &rest[1..];
                continue;
            }
            _ => return None,
        };
        let (token, tail) = rest.split_at(len);
        tokens.push(token);
        rest = tail;
    }
    Some(tokens)
}

/// SQL's `years-months`.
fn year_month(token: &str) -> Option<(Amount, Amount)> {
    let unsigned = token.strip_prefix(['+', '-']).unwrap_or(token);
    let (years, months) = unsigned.split_once('-')?;
    let sign = &token[..token.len() - unsigned.len()];
    let years = Amount::parse(&format!("{sign}{years}"))?;
    let months = Amount::parse(&format!("{sign}{months}"))?;
    (months.whole.abs() < 12).then_some((years, months))
}

/// `h:mm`, `h:mm:ss.f` or `mm:ss.f`, with one sign for all.
fn read_clock(token: &str, sum: &mut Sum) -> Option<()> {
    let unsigned = token.strip_prefix(['+', '-']).unwrap_or(token);
    let sign = &token[..token.len() - unsigned.len()];
    let amount = |digits: &str| Amount::parse(&format!("{sign}{digits}"));
    let second = SECOND_NS as i64;
    let parts: Vec<&str> = unsigned.split(':').collect();
    let (h, m, s) = match *parts {
        [m, s] if s.contains('.') => ("0", m, s),
        [h, m] => (h, m, "0"),
        [h, m, s] => (h, m, s),
        _ => return None,
    };
    let (h, m, s) = (amount(h)?, amount(m)?, amount(s)?);
    let whole = h.fraction == 0.0 && m.fraction == 0.0;
    if !whole || m.whole.abs() > 59 || s.whole.abs() > 60 {
        return None;
    }
    sum.add(h, Unit::Time(3600 * second))?;
    sum.add(m, Unit::Time(60 * second))?;
    sum.add(s, Unit::Time(second))
}

fn unit(word: &str) -> Option<Unit> {
    let second = SECOND_NS as i64;
    Some(match word {
        "millennium" | "millennia" | "millenniums" | "mil" | "mils" => Unit::Months(12_000.0),
        "century" | "centuries" | "cent" | "c" => Unit::Months(1200.0),
        "decade" | "decades" | "dec" | "decs" => Unit::Months(120.0),
        "year" | "years" | "yr" | "yrs" | "y" => Unit::Months(12.0),
        "month" | "months" | "mon" | "mons" => Unit::Months(1.0),
        "week" | "weeks" | "w" => Unit::Days(7.0),
        "day" | "days" | "d" => Unit::Days(1.0),
        "hour" | "hours" | "hr" | "hrs" | "h" => Unit::Time(3600 * second),
        "minute" | "minutes" | "min" | "mins" | "m" => Unit::Time(60 * second),
        "second" | "seconds" | "sec" | "secs" | "s" => Unit::Time(second),
        "millisecond" | "milliseconds" | "msecond" | "mseconds" | "msec" | "msecs" | "ms" => {
            Unit::Time(second / 1000)
        }
        "microsecond" | "microseconds" | "usecond" | "useconds" | "usec" | "usecs" | "us" => {
            Unit::Time(second / 1_000_000)
        }
        _ => return None,
    })
}

/// What follows the `P` of ISO 8601, with designators.
fn read_iso(text: &str, sum: &mut Sum) -> Option<()> {
    let mut rest = text;
    let mut in_time = false;
    while !rest.is_empty() {
        if let Some(time) = rest.strip_prefix('t') {
            if std::mem::replace(&mut in_time, true) {
                return None;
            }
            rest = time;
            continue;
        }
        let len = rest.find(|c: char| c.is_ascii_alphabetic())?;
        let amount = Amount::parse(&rest[..len])?;
        let unit = match (&rest[len..len + 1], in_time) {
            ("y", false) => Unit::Months(12.0),
            ("m", false) => Unit::Months(1.0),
            ("w", false) => Unit::Days(7.0),
            ("d", false) => Unit::Days(1.0),
            ("h", true) => Unit::Time(3600 * SECOND_NS as i64),
            ("m", true) => Unit::Time(60 * SECOND_NS as i64),
            ("s", true) => Unit::Time(SECOND_NS as i64),
            _ => return None,
        };
        sum.add(amount, unit)?;
        rest = &rest[len + 1..];
    }
    (!sum.seen.is_empty()).then_some(())
}
