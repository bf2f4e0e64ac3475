//! `+ - * /` on dates, times, timestamps and intervals.
//!
//! An interval's months and days are added on the calendar (in the session's zone for an
//! instant), a day past the month's end becoming its last; its time is added to the instant.

use arrow::datatypes::IntervalMonthDayNano;
use ruslo_repr::text::{DAY_US, TextStyle, civil_from_days, days_from_civil, days_in_month};
use ruslo_repr::{Error, ErrorKind, Result};

use super::arith::divide8;
use super::interval;
use super::overload::{Overload, fn2, styled2};
use super::types::*;

pub(super) fn additions() -> Vec<Overload> {
    vec![
        fn2::<Date, Interval, Timestamp, _>(add_to_date),
        fn2::<Interval, Date, Timestamp, _>(|i, d| add_to_date(d, i)),
        fn2::<Date, Int4, Date, _>(add_days),
        fn2::<Int4, Date, Date, _>(|n, d| add_days(d, n)),
        fn2::<Date, Time, Timestamp, _>(add_time),
        fn2::<Time, Date, Timestamp, _>(|t, d| add_time(d, t)),
        fn2::<Timestamp, Interval, Timestamp, _>(add_to_timestamp),
        fn2::<Interval, Timestamp, Timestamp, _>(|i, t| add_to_timestamp(t, i)),
        styled2::<Timestamptz, Interval, Timestamptz, _>(add_to_instant),
        styled2::<Interval, Timestamptz, Timestamptz, _>(|s, i, t| add_to_instant(s, t, i)),
        fn2::<Time, Interval, Time, _>(|t, i| (t + i.nanoseconds / 1000).rem_euclid(DAY_US)),
        fn2::<Interval, Time, Time, _>(|i, t| (t + i.nanoseconds / 1000).rem_euclid(DAY_US)),
        fn2::<Interval, Interval, Interval, _>(interval::add),
    ]
}

pub(super) fn subtractions() -> Vec<Overload> {
    vec![
        fn2::<Date, Date, Int4, _>(|a, b| a.checked_sub(b).ok_or_else(date_out_of_range)),
        fn2::<Date, Int4, Date, _>(|a, b| a.checked_sub(b).ok_or_else(date_out_of_range)),
        fn2::<Date, Interval, Timestamp, _>(|d, i| add_to_date(d, interval::negate(i)?)),
        fn2::<Timestamp, Timestamp, Interval, _>(difference),
        fn2::<Timestamptz, Timestamptz, Interval, _>(difference),
        fn2::<Timestamp, Interval, Timestamp, _>(|t, i| add_to_timestamp(t, interval::negate(i)?)),
        styled2::<Timestamptz, Interval, Timestamptz, _>(|s, t, i| {
            add_to_instant(s, t, interval::negate(i)?)
        }),
        fn2::<Time, Time, Interval, _>(|a, b| IntervalMonthDayNano::new(0, 0, (a - b) * 1000)),
        fn2::<Time, Interval, Time, _>(|t, i| (t - i.nanoseconds / 1000).rem_euclid(DAY_US)),
        fn2::<Interval, Interval, Interval, _>(interval::sub),
    ]
}

pub(super) fn multiplications() -> Vec<Overload> {
    vec![
        fn2::<Interval, Float8, Interval, _>(interval::multiply),
        fn2::<Float8, Interval, Interval, _>(|f, i| interval::multiply(i, f)),
    ]
}

pub(super) fn divisions() -> Vec<Overload> {
    vec![fn2::<Interval, Float8, Interval, _>(|i, by| {
        interval::multiply(i, divide8(1.0, by)?)
    })]
}

pub(super) fn date_out_of_range() -> Error {
    Error::new(ErrorKind::DatetimeOverflow, "date out of range")
}

pub(super) fn timestamp_out_of_range() -> Error {
    Error::new(ErrorKind::DatetimeOverflow, "timestamp out of range")
}

fn add_days(date: i32, days: i32) -> Result<i32> {
    date.checked_add(days).ok_or_else(date_out_of_range)
}

fn add_time(date: i32, time: i64) -> Result<i64> {
    let micros = i64::from(date).checked_mul(DAY_US);
    micros
        .and_then(|m| m.checked_add(time))
        .ok_or_else(timestamp_out_of_range)
}

fn add_to_date(date: i32, interval: IntervalMonthDayNano) -> Result<i64> {
    add_to_timestamp(add_time(date, 0)?, interval)
}

/// Adds an interval to a local time.
pub(super) fn add_to_timestamp(local: i64, interval: IntervalMonthDayNano) -> Result<i64> {
    let moved = add_calendar(local, interval)?;
    let moved = moved.checked_add(interval.nanoseconds / 1000);
    moved.ok_or_else(timestamp_out_of_range)
}

/// Adds an interval to an instant: months and days in the zone, time on the instant.
pub(super) fn add_to_instant(
    style: &TextStyle,
    utc: i64,
    interval: IntervalMonthDayNano,
) -> Result<i64> {
    let moved = match (interval.months, interval.days) {
        (0, 0) => utc,
        _ => style
            .time_zone
            .to_utc(add_calendar(style.time_zone.to_local(utc), interval)?),
    };
    let moved = moved.checked_add(interval.nanoseconds / 1000);
    moved.ok_or_else(timestamp_out_of_range)
}

/// Adds the months and days of an interval.
fn add_calendar(local: i64, interval: IntervalMonthDayNano) -> Result<i64> {
    let mut days = local.div_euclid(DAY_US);
    if interval.months != 0 {
        let (year, month, day) = civil_from_days(days);
        let months = year * 12 + i64::from(month) - 1 + i64::from(interval.months);
        let (year, month) = (months.div_euclid(12), months.rem_euclid(12) as u32 + 1);
        days = days_from_civil(year, month, day.min(days_in_month(year, month)));
    }
    let days = days + i64::from(interval.days);
    let micros = days.checked_mul(DAY_US);
    let micros = micros.and_then(|m| m.checked_add(local.rem_euclid(DAY_US)));
    micros.ok_or_else(timestamp_out_of_range)
}

/// Days and time between two moments.
pub(super) fn difference(a: i64, b: i64) -> Result<IntervalMonthDayNano> {
    let micros = a.checked_sub(b).ok_or_else(interval::out_of_range)?;
    let days = i32::try_from(micros / DAY_US).map_err(|_| interval::out_of_range())?;
    Ok(IntervalMonthDayNano::new(0, days, micros % DAY_US * 1000))
}
