//! PostgreSQL's patterns for dates and times: `to_char` prints by them, `to_timestamp` and
//! `to_date` read by them.

use arrow::datatypes::IntervalMonthDayNano;
use ruslo_repr::text::{
    DAY_US, Zone, civil_from_days, days_from_civil, days_in_month, write_offset,
};
use ruslo_repr::{Error, ErrorKind, Result};

use super::extract::iso_week;

/// What a pattern asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Key {
    Year(usize),
    IsoYear(usize),
    YearComma,
    Century,
    Quarter,
    MonthNumber,
    MonthName,
    MonthShort,
    MonthRoman,
    IsoWeek,
    WeekOfYear,
    WeekOfMonth,
    DayOfYear,
    IsoDayOfYear,
    DayOfMonth,
    DayName,
    DayShort,
    DayOfWeek,
    IsoDayOfWeek,
    Julian,
    Hour24,
    Hour12,
    Minute,
    Second,
    SecondOfDay,
    /// So many digits of the fraction of a second.
    Fraction(usize),
    Meridiem {
        dots: bool,
    },
    Era {
        dots: bool,
    },
    ZoneName,
    ZoneOffset,
    ZoneHour,
    ZoneMinute,
}

/// How letters are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Case {
    Upper,
    Lower,
    Capital,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Key {
        key: Key,
        case: Case,
        fill: bool,
        ordinal: Option<Case>,
    },
    Text(String),
}

/// Longest first, where one is the start of another.
const KEYS: [(&str, Key); 53] = [
    ("Y,YYY", Key::YearComma),
    ("YYYY", Key::Year(4)),
    ("IYYY", Key::IsoYear(4)),
    ("YYY", Key::Year(3)),
    ("IYY", Key::IsoYear(3)),
    ("YY", Key::Year(2)),
    ("IY", Key::IsoYear(2)),
    ("Y", Key::Year(1)),
    ("SSSSS", Key::SecondOfDay),
    ("SSSS", Key::SecondOfDay),
    ("SS", Key::Second),
    ("MONTH", Key::MonthName),
    ("MON", Key::MonthShort),
    ("MM", Key::MonthNumber),
    ("MI", Key::Minute),
    ("MS", Key::Fraction(3)),
    ("US", Key::Fraction(6)),
    ("FF1", Key::Fraction(1)),
    ("FF2", Key::Fraction(2)),
    ("FF3", Key::Fraction(3)),
    ("FF4", Key::Fraction(4)),
    ("FF5", Key::Fraction(5)),
    ("FF6", Key::Fraction(6)),
    ("HH24", Key::Hour24),
    ("HH12", Key::Hour12),
    ("HH", Key::Hour12),
    ("IDDD", Key::IsoDayOfYear),
    ("DDD", Key::DayOfYear),
    ("DD", Key::DayOfMonth),
    ("DAY", Key::DayName),
    ("DY", Key::DayShort),
    ("ID", Key::IsoDayOfWeek),
    ("IW", Key::IsoWeek),
    ("I", Key::IsoYear(1)),
    ("D", Key::DayOfWeek),
    ("WW", Key::WeekOfYear),
    ("W", Key::WeekOfMonth),
    ("CC", Key::Century),
    ("J", Key::Julian),
    ("Q", Key::Quarter),
    ("RM", Key::MonthRoman),
    ("A.M.", Key::Meridiem { dots: true }),
    ("P.M.", Key::Meridiem { dots: true }),
    ("AM", Key::Meridiem { dots: false }),
    ("PM", Key::Meridiem { dots: false }),
    ("TZH", Key::ZoneHour),
    ("TZM", Key::ZoneMinute),
    ("TZ", Key::ZoneName),
    ("OF", Key::ZoneOffset),
    ("AD", Key::Era { dots: false }),
    ("BC", Key::Era { dots: false }),
    ("A.D.", Key::Era { dots: true }),
    ("B.C.", Key::Era { dots: true }),
];

pub(super) const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = [
    "Sunday",
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
];
const ROMAN: [&str; 12] = [
    "I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX", "X", "XI", "XII",
];

/// Cuts a pattern into keys and text; in double quotes everything is text.
fn tokens(pattern: &str) -> Vec<Token> {
    let mut tokens: Vec<Token> = vec![];
    let mut rest = pattern;
    let push_text = |tokens: &mut Vec<Token>, c: char| match tokens.last_mut() {
        Some(Token::Text(text)) => text.push(c),
        _ => tokens.push(Token::Text(c.to_string())),
    };
    while let Some(first) = rest.chars().next() {
        if first == '"' {
            let mut quoted = rest[1..].chars();
            while let Some(c) = quoted.next() {
                match c {
                    '"' => break,
                    '\\' => quoted
                        .next()
                        .into_iter()
                        .for_each(|c| push_text(&mut tokens, c)),
                    c => push_text(&mut tokens, c),
                }
            }
            rest = quoted.as_str();
            continue;
        }
        match take_key(rest) {
            Some((token, tail)) => {
                tokens.push(token);
                rest = tail;
            }
            None => {
                let escaped = first == '\\' && rest[1..].starts_with('"');
                rest = &rest[first.len_utf8()..];
                push_text(&mut tokens, if escaped { '"' } else { first });
                rest = if escaped { &rest[1..] } else { rest };
            }
        }
    }
    tokens
}

fn take_key(pattern: &str) -> Option<(Token, &str)> {
    let starts = |text: &str, prefix: &str| {
        text.get(..prefix.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(prefix))
    };
    let (fill, text) = match starts(pattern, "FM") {
        true => (false, &pattern[2..]),
        false => (true, pattern),
    };
    let known = KEYS.iter().find(|(name, _)| starts(text, name));
    let Some((name, key)) = known else {
        // FM in front of nothing known is dropped.
        return (!fill).then(|| (Token::Text(String::new()), text));
    };
    let (written, mut rest) = text.split_at(name.len());
    let mut letters = written.chars().filter(|c| c.is_ascii_alphabetic());
    let case = match (letters.next(), letters.next()) {
        (Some(a), _) if a.is_ascii_lowercase() => Case::Lower,
        (Some(_), Some(b)) if b.is_ascii_lowercase() => Case::Capital,
        _ => Case::Upper,
    };
    let ordinal = match rest.get(..2) {
        Some("TH") => Some(Case::Upper),
        Some("th") => Some(Case::Lower),
        _ => None,
    };
    if ordinal.is_some() {
        rest = &rest[2..];
    }
    Some((
        Token::Key {
            key: *key,
            case,
            fill,
            ordinal,
        },
        rest,
    ))
}

/// A moment taken apart for printing.
struct Parts {
    year: i64,
    month: u32,
    day: u32,
    /// Days since 1970-01-01.
    days: i64,
    /// Microseconds since midnight; of an interval all of its time.
    time: i64,
    /// Seconds east of UTC and the zone's name; an instant has them.
    zone: Option<(i32, String)>,
    interval: bool,
}

/// A local time by a pattern; `zone` is an instant's.
pub(super) fn print(local: i64, zone: Option<(i32, String)>, pattern: &str) -> String {
    let days = local.div_euclid(DAY_US);
    let (year, month, day) = civil_from_days(days);
    let time = local.rem_euclid(DAY_US);
    let parts = Parts {
        year,
        month,
        day,
        days,
        time,
        zone,
        interval: false,
    };
    print_parts(&parts, pattern)
}

pub(super) fn print_interval(v: IntervalMonthDayNano, pattern: &str) -> String {
    let parts = Parts {
        year: (v.months / 12).into(),
        month: (v.months % 12).unsigned_abs(),
        day: v.days.unsigned_abs(),
        days: v.days.into(),
        time: v.nanoseconds / 1000,
        zone: None,
        interval: true,
    };
    print_parts(&parts, pattern)
}

fn print_parts(parts: &Parts, pattern: &str) -> String {
    let mut out = String::new();
    for token in tokens(pattern) {
        match token {
            Token::Text(text) => out.push_str(&text),
            Token::Key {
                key,
                case,
                fill,
                ordinal,
            } => {
                let text = print_key(parts, key, case, fill);
                out.push_str(&text);
                if let Some(case) = ordinal {
                    out.push_str(&ordinal_suffix(&text, case));
                }
            }
        }
    }
    out
}

fn ordinal_suffix(number: &str, case: Case) -> String {
    let digits: Vec<u8> = number.bytes().filter(u8::is_ascii_digit).collect();
    let teen = digits.len() > 1 && digits[digits.len() - 2] == b'1';
    let suffix = match digits.last() {
        _ if teen => "TH",
        Some(b'1') => "ST",
        Some(b'2') => "ND",
        Some(b'3') => "RD",
        _ => "TH",
    };
    cased(suffix, case)
}

fn cased(text: &str, case: Case) -> String {
    match case {
        Case::Upper => text.to_ascii_uppercase(),
        Case::Lower => text.to_ascii_lowercase(),
        Case::Capital => text.to_string(),
    }
}

fn print_key(parts: &Parts, key: Key, case: Case, fill: bool) -> String {
    let number = |value: i64, width: usize| match fill {
        true if value < 0 => format!("{value:0width$}", width = width + 1),
        true => format!("{value:0width$}"),
        false => value.to_string(),
    };
    let name = |text: &str, width: usize| {
        let text = cased(text, case);
        if fill { format!("{text:width$}") } else { text }
    };
    // Years before Christ are printed by their number, with the era apart.
    let year = if parts.year > 0 || parts.interval {
        parts.year
    } else {
        1 - parts.year
    };
    let seconds = parts.time / 1_000_000;
    let dow = (parts.days + 4).rem_euclid(7);
    let month = (parts.month.max(1) - 1) as usize;
    let fraction = parts.time % 1_000_000;
    match key {
        Key::Year(4) => number(year, 4),
        Key::Year(digits) => number(year % 10i64.pow(digits as u32), digits),
        Key::YearComma => format!("{},{:03}", year / 1000, year % 1000),
        Key::IsoYear(digits) => {
            let (iso, _) = iso_week(parts.days);
            let iso = if iso > 0 { iso } else { 1 - iso };
            number(
                if digits == 4 {
                    iso
                } else {
                    iso % 10i64.pow(digits as u32)
                },
                digits,
            )
        }
        Key::Century if parts.interval => number(year / 100, 2),
        Key::Century => number((year + 99) / 100, 2),
        Key::Quarter => ((i64::from(parts.month) + 2) / 3).to_string(),
        Key::MonthNumber => number(parts.month.into(), 2),
        Key::MonthName => name(MONTHS[month], 9),
        Key::MonthShort => cased(&MONTHS[month][..3], case),
        Key::MonthRoman => name(ROMAN[month], 4),
        Key::IsoWeek => number(iso_week(parts.days).1, 2),
        Key::WeekOfYear => number((day_of_year(parts) - 1) / 7 + 1, 2),
        Key::WeekOfMonth => ((i64::from(parts.day) - 1) / 7 + 1).to_string(),
        Key::DayOfYear => number(day_of_year(parts), 3),
        Key::IsoDayOfYear => {
            let (iso, _) = iso_week(parts.days);
            let fourth = days_from_civil(iso, 1, 4);
            let monday = fourth - (fourth + 3).rem_euclid(7);
            number(parts.days - monday + 1, 3)
        }
        Key::DayOfMonth => number(parts.day.into(), 2),
        Key::DayName => name(DAYS[dow as usize], 9),
        Key::DayShort => cased(&DAYS[dow as usize][..3], case),
        Key::DayOfWeek => (dow + 1).to_string(),
        Key::IsoDayOfWeek => ((parts.days + 3).rem_euclid(7) + 1).to_string(),
        Key::Julian => (parts.days + 2_440_588).to_string(),
        Key::Hour24 => number(seconds / 3600, 2),
        Key::Hour12 => match seconds / 3600 % 12 {
            0 => "12".to_string(),
            hour => number(hour, 2),
        },
        Key::Minute => number(seconds / 60 % 60, 2),
        Key::Second => number(seconds % 60, 2),
        Key::SecondOfDay => seconds.to_string(),
        Key::Fraction(digits) => {
            let shown = fraction.abs() / 10i64.pow(6 - digits as u32);
            format!("{shown:0digits$}")
        }
        Key::Meridiem { dots } => {
            let morning = seconds / 3600 % 24 < 12;
            let text = match (morning, dots) {
                (true, true) => "A.M.",
                (false, true) => "P.M.",
                (true, false) => "AM",
                (false, false) => "PM",
            };
            cased(
                text,
                if case == Case::Lower {
                    case
                } else {
                    Case::Upper
                },
            )
        }
        Key::Era { dots } => {
            let text = match (parts.year > 0, dots) {
                (true, true) => "A.D.",
                (false, true) => "B.C.",
                (true, false) => "AD",
                (false, false) => "BC",
            };
            cased(
                text,
                if case == Case::Lower {
                    case
                } else {
                    Case::Upper
                },
            )
        }
        Key::ZoneName => {
            let name = parts.zone.as_ref().map_or("", |(_, name)| name.as_str());
            cased(
                name,
                if case == Case::Lower {
                    case
                } else {
                    Case::Upper
                },
            )
        }
        Key::ZoneOffset => {
            let mut text = String::new();
            write_offset(
                parts.zone.as_ref().map_or(0, |(offset, _)| *offset),
                &mut text,
            );
            text
        }
        Key::ZoneHour => {
            let offset = parts.zone.as_ref().map_or(0, |(offset, _)| *offset);
            format!(
                "{}{:02}",
                if offset < 0 { '-' } else { '+' },
                offset.abs() / 3600
            )
        }
        Key::ZoneMinute => {
            let offset = parts.zone.as_ref().map_or(0, |(offset, _)| *offset);
            format!("{:02}", offset.abs() / 60 % 60)
        }
    }
}

fn day_of_year(parts: &Parts) -> i64 {
    match parts.interval {
        true => parts.year * 365 + i64::from(parts.month) * 30 + i64::from(parts.day),
        false => parts.days - days_from_civil(parts.year, 1, 1) + 1,
    }
}

/// What a text was found to say.
#[derive(Default)]
struct Found {
    year: Option<i64>,
    month: Option<i64>,
    day: Option<i64>,
    day_of_year: Option<i64>,
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
pub(super) fn parse(text: &str, pattern: &str) -> Result<(i64, Option<Zone>)> {
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
    Error::new(ErrorKind::InvalidDatetime, message)
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
        Key::Century
        | Key::Quarter
        | Key::WeekOfYear
        | Key::WeekOfMonth
        | Key::DayOfWeek
        | Key::IsoDayOfWeek
        | Key::IsoWeek => {
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

/// Two or three digits of a year mean one near 2020.
fn full_year(year: i64, written: usize, width: usize) -> i64 {
    if width == 4 && written >= 4 || year < 0 || written >= 4 {
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
