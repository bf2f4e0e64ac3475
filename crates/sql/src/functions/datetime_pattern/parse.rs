//! Reading by a pattern.

use ruslo_repr::text::{DAY_US, Zone, days_from_civil, days_in_month};
use ruslo_repr::{Error, ErrorKind, Result};

use super::{DAYS, Key, MONTHS, Token, tokens};

/// What a text was found to say.
#[derive(Default)]
struct Found {
    year: Option<i64>,
    month: Option<i64>,
    day: Option<i64>,
    day_of_year: Option<i64>,
    iso_year: Option<i64>,
    iso_week: Option<i64>,
    iso_day: Option<i64>,
    julian: Option<i64>,
    hour: Option<i64>,
    twelve_hours: bool,
    minute: i64,
    second: i64,
    second_of_day: Option<i64>,
    micros: i64,
    afternoon: Option<bool>,
    before_christ: bool,
    zone_hours: Option<i64>,
    zone_minutes: i64,
}

/// Reads a text by a pattern: the local time in microseconds, and the zone if one was read.
pub(in crate::functions) fn parse(text: &str, pattern: &str) -> Result<(i64, Option<Zone>)> {
    let mut found = Found::default();
    let mut rest = text.trim_start();
    let tokens = tokens(pattern);
    for (i, token) in tokens.iter().enumerate() {
        match token {
            Token::Text(separator) => {
                for c in separator.chars() {
                    rest = skip_separator(rest, c);
                }
            }
            Token::Key { key, fill, .. } => {
                if rest.is_empty() {
                    break;
                }
                // Digits run on only if nothing tells where the number ends.
                let adjacent = matches!(tokens.get(i + 1), Some(Token::Key { .. }));
                let limited = *fill && adjacent;
                rest = read_key(&mut found, *key, rest.trim_start(), limited, text)?;
            }
        }
    }
    found.finish(text)
}

/// A separator in the pattern skips one in the text, of any kind; other text skips one character.
fn skip_separator(rest: &str, c: char) -> &str {
    let separates = |c: char| !c.is_alphanumeric();
    let mut chars = rest.chars();
    match chars.next() {
        Some(first) if separates(c) && !separates(first) => rest,
        Some(first) if c.is_whitespace() && !first.is_whitespace() && first == '-' => rest,
        Some(_) => chars.as_str(),
        None => rest,
    }
}

fn invalid(key: &str, value: &str) -> Error {
    let message = format!("invalid value \"{value}\" for \"{key}\"");
    Error::new(ErrorKind::InvalidDatetime, message)
}

fn out_of_range(text: &str) -> Error {
    let message = format!("date/time field value out of range: \"{text}\"");
    Error::new(ErrorKind::DatetimeOverflow, message)
}

fn read_key<'a>(
    found: &mut Found,
    key: Key,
    rest: &'a str,
    limited: bool,
    text: &str,
) -> Result<&'a str> {
    let mut after = rest;
    let mut number = |width: usize| -> Result<i64> {
        let sign = usize::from(after.starts_with(['-', '+']));
        let digits = after[sign..].bytes().take_while(u8::is_ascii_digit).count();
        let digits = if limited {
            digits.min(width)
        } else {
            digits.min(10)
        };
        let (value, tail) = after.split_at(sign + digits);
        after = tail;
        value.parse().map_err(|_| {
            let start: String = rest.chars().take(width).collect();
            invalid(&format!("{key:?}"), &start)
        })
    };
    match key {
        Key::Year(digits) => {
            let before = rest.len();
            let year = number(digits)?;
            let written = before - after.len();
            found.year = Some(full_year(
                year,
                if digits < 4 {
                    written.min(digits)
                } else {
                    written
                },
                digits,
            ));
        }
        Key::IsoYear(4) => found.iso_year = Some(number(4)?),
        Key::IsoWeek => found.iso_week = Some(number(2)?),
        Key::IsoDayOfWeek => found.iso_day = Some(number(1)?),
        Key::YearComma => {
            let (thousands, tail) = rest.split_once(',').ok_or_else(|| invalid("Y,YYY", rest))?;
            after = tail;
            let thousands: i64 = thousands.parse().map_err(|_| invalid("Y,YYY", rest))?;
            let width = after.bytes().take_while(u8::is_ascii_digit).count();
            let (low, tail) = after.split_at(width);
            let low: i64 = low.parse().map_err(|_| invalid("Y,YYY", rest))?;
            found.year = thousands.checked_mul(1000).and_then(|t| t.checked_add(low));
            return Ok(tail);
        }
        Key::MonthNumber => found.month = Some(number(2)?),
        Key::MonthName | Key::MonthShort => {
            let (month, tail) = take_name(rest, &MONTHS).ok_or_else(|| invalid("Mon", rest))?;
            found.month = Some(month as i64 + 1);
            return Ok(tail);
        }
        Key::DayName | Key::DayShort => {
            let (_, tail) = take_name(rest, &DAYS).ok_or_else(|| invalid("Dy", rest))?;
            return Ok(tail);
        }
        Key::DayOfMonth => found.day = Some(number(2)?),
        Key::DayOfYear => found.day_of_year = Some(number(3)?),
        Key::Julian => found.julian = Some(number(7)?),
        Key::Hour24 => found.hour = Some(number(2)?),
        Key::Hour12 => {
            found.hour = Some(number(2)?);
            found.twelve_hours = true;
        }
        Key::Minute => found.minute = number(2)?,
        Key::Second => found.second = number(2)?,
        Key::SecondOfDay => found.second_of_day = Some(number(5)?),
        Key::Fraction(width) => {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let digits = if limited {
                digits.min(width)
            } else {
                digits.min(6)
            };
            let value: i64 = rest[..digits].parse().map_err(|_| invalid("US", rest))?;
            found.micros = value * 10i64.pow(6 - digits as u32);
            return Ok(&rest[digits..]);
        }
        Key::Meridiem { .. } => {
            let marks = ["a.m.", "p.m.", "am", "pm"];
            let (mark, tail) = take_word(rest, &marks).ok_or_else(|| invalid("AM", rest))?;
            found.afternoon = Some(mark % 2 == 1);
            found.twelve_hours = true;
            return Ok(tail);
        }
        Key::Era { .. } => {
            let marks = ["a.d.", "b.c.", "ad", "bc"];
            let (mark, tail) = take_word(rest, &marks).ok_or_else(|| invalid("AD", rest))?;
            found.before_christ = mark % 2 == 1;
            return Ok(tail);
        }
        Key::ZoneHour => found.zone_hours = Some(number(2)?),
        Key::ZoneMinute => found.zone_minutes = number(2)?,
        Key::Century | Key::Quarter | Key::WeekOfYear | Key::WeekOfMonth | Key::DayOfWeek => {
            // Read over: the day is fixed by the other fields.
            number(2)?;
        }
        _ => {
            let message = format!("the pattern of \"{text}\" has a key that can only be printed");
            return Err(Error::unsupported(message));
        }
    }
    Ok(after)
}

/// Fewer than four digits of a year, where the pattern has fewer, mean one near 2020.
fn full_year(year: i64, written: usize, width: usize) -> i64 {
    if width == 4 || written >= 4 || year < 0 {
        return year;
    }
    match year {
        0..70 => year + 2000,
        70..100 => year + 1900,
        100..520 => year + 2000,
        520..1000 => year + 1000,
        _ => year,
    }
}

/// The position of the full or short name that the text starts with.
fn take_name<'a>(text: &'a str, names: &[&str]) -> Option<(usize, &'a str)> {
    take_word(text, names).or_else(|| {
        let short: Vec<&str> = names.iter().map(|name| &name[..3]).collect();
        take_word(text, &short)
    })
}

fn take_word<'a>(text: &'a str, words: &[&str]) -> Option<(usize, &'a str)> {
    let starts = |word: &str| {
        text.get(..word.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(word))
    };
    let at = words.iter().position(|word| starts(word))?;
    Some((at, &text[words[at].len()..]))
}

impl Found {
    fn finish(self, text: &str) -> Result<(i64, Option<Zone>)> {
        let days = self.days().ok_or_else(|| out_of_range(text))?;
        let mut hour = self.hour.unwrap_or(0);
        if self.twelve_hours {
            if !(1..=12).contains(&hour) && self.hour.is_some() {
                let message = format!("hour \"{hour}\" is invalid for the 12-hour clock");
                return Err(Error::new(ErrorKind::InvalidDatetime, message)
                    .with_hint("Use the 24-hour clock, or give an hour between 1 and 12."));
            }
            hour = hour % 12 + if self.afternoon == Some(true) { 12 } else { 0 };
        }
        let in_range = (0..=24).contains(&hour)
            && (0..60).contains(&self.minute)
            && (0..=60).contains(&self.second);
        if !in_range {
            return Err(out_of_range(text));
        }
        let seconds = self
            .second_of_day
            .unwrap_or(hour * 3600 + self.minute * 60 + self.second);
        let time = seconds * 1_000_000 + self.micros;
        let local = days.checked_mul(DAY_US).and_then(|us| us.checked_add(time));
        let zone = self.zone_hours.map(|hours| {
            let minutes = if hours < 0 {
                -self.zone_minutes
            } else {
                self.zone_minutes
            };
            Zone::Offset((hours * 3600 + minutes * 60) as i32)
        });
        Ok((local.ok_or_else(|| out_of_range(text))?, zone))
    }

    /// Days since 1970; what was not said is the first.
    fn days(&self) -> Option<i64> {
        if let Some(julian) = self.julian {
            return Some(julian - 2_440_588);
        }
        if let (Some(year @ 1..=9999), Some(week)) = (self.iso_year, self.iso_week) {
            let fourth = days_from_civil(year, 1, 4);
            let monday = fourth - (fourth + 3).rem_euclid(7);
            let day = self.iso_day.unwrap_or(1);
            let valid = (1..=53).contains(&week) && (1..=7).contains(&day);
            return valid.then_some(monday + (week - 1) * 7 + day - 1);
        }
        let year = match (self.year, self.before_christ) {
            (None, _) => 0,
            (Some(year), true) => 1 - year,
            (Some(0), false) => 0,
            (Some(year), false) => year,
        };
        if year.abs() > 5_000_000 {
            return None;
        }
        if let Some(day) = self.day_of_year {
            return (1..=366)
                .contains(&day)
                .then(|| days_from_civil(year, 1, 1) + day - 1);
        }
        let month = u32::try_from(self.month.unwrap_or(1)).ok()?;
        let day = u32::try_from(self.day.unwrap_or(1)).ok()?;
        let valid = (1..=12).contains(&month) && day >= 1 && day <= days_in_month(year, month);
        valid.then(|| days_from_civil(year, month, day))
    }
}
