//! Printing of date, time and timestamps, and the calendar behind it.
//!
//! The calendar is the Gregorian one in both directions without end, in plain integers: every
//! value that Arrow's types can hold has a text.

use std::fmt::Write;

use super::{DAY_US, TextStyle};

/// Year (0 is 1 BC), month and day of a day counted from 1970-01-01.
pub fn civil_from_days(days: i64) -> (i64, u32, u32) {
    // The year is counted from March, so that the leap day is its last one.
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month as u32, day as u32)
}

/// The inverse of [`civil_from_days`]; the year must be within some billions of 0.
pub fn days_from_civil(year: i64, month: u32, day: u32) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let month_from_march = i64::from((month + 9) % 12);
    let day_of_year = (153 * month_from_march + 2) / 5 + i64::from(day) - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

pub fn days_in_month(year: i64, month: u32) -> u32 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => 31,
    }
}

/// Appends `2024-01-31`, for years before 1 with ` BC` at the end.
pub fn write_date(days: i32, out: &mut String) {
    if write_ymd(days.into(), out) {
        out.push_str(" BC");
    }
}

/// Appends `10:00:00.25` for microseconds since midnight.
pub fn write_time(micros: i64, out: &mut String) {
    write_clock(micros.rem_euclid(DAY_US + 1), out);
}

/// Appends `2024-01-31 10:00:00.25` for microseconds since 1970.
pub fn write_timestamp(micros: i64, out: &mut String) {
    let before_christ = write_ymd(micros.div_euclid(DAY_US), out);
    out.push(' ');
    write_clock(micros.rem_euclid(DAY_US), out);
    if before_christ {
        out.push_str(" BC");
    }
}

/// Appends `2024-01-31 10:00:00.25+00` in the style's time zone.
pub fn write_timestamptz(micros: i64, style: &TextStyle, out: &mut String) {
    let local = style.time_zone.to_local(micros);
    let before_christ = write_ymd(local.div_euclid(DAY_US), out);
    out.push(' ');
    write_clock(local.rem_euclid(DAY_US), out);
    write_offset(style.time_zone.offset_at(micros), out);
    if before_christ {
        out.push_str(" BC");
    }
}

/// Appends `+02`, with minutes and seconds only if they are not zero.
pub fn write_offset(seconds: i32, out: &mut String) {
    let sign = if seconds < 0 { '-' } else { '+' };
    let seconds = seconds.abs();
    // Writing to a String cannot fail, here and below.
    let _ = write!(out, "{sign}{:02}", seconds / 3600);
    if seconds % 3600 != 0 {
        let _ = write!(out, ":{:02}", seconds / 60 % 60);
    }
    if seconds % 60 != 0 {
        let _ = write!(out, ":{:02}", seconds % 60);
    }
}

/// Appends year, month and day; true if the year is before Christ.
fn write_ymd(days: i64, out: &mut String) -> bool {
    let (year, month, day) = civil_from_days(days);
    let shown = if year > 0 { year } else { 1 - year };
    let _ = write!(out, "{shown:04}-{month:02}-{day:02}");
    year <= 0
}

fn write_clock(micros: i64, out: &mut String) {
    let seconds = micros / 1_000_000;
    let (h, m, s) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let _ = write!(out, "{h:02}:{m:02}:{s:02}");
    write_fraction(micros % 1_000_000, out);
}

/// Appends a point and up to six digits without trailing zeros; nothing for zero.
pub(super) fn write_fraction(micros: i64, out: &mut String) {
    if micros != 0 {
        let digits = format!("{micros:06}");
        out.push('.');
        out.push_str(digits.trim_end_matches('0'));
    }
}
