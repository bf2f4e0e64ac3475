//! Printing by a pattern.

use arrow::datatypes::IntervalMonthDayNano;
use ruslo_repr::text::{DAY_US, civil_from_days, days_from_civil, write_offset};

use super::super::extract::iso_week;
use super::{Case, DAYS, Key, MONTHS, ROMAN, Token, tokens};

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
pub(in crate::functions) fn print(
    local: i64,
    zone: Option<(i32, String)>,
    pattern: &str,
) -> String {
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

pub(in crate::functions) fn print_interval(v: IntervalMonthDayNano, pattern: &str) -> String {
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
