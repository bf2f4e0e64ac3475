//! Arithmetic of intervals, and the functions that carry their parts into each other.

use arrow::datatypes::IntervalMonthDayNano;
use ruslo_repr::text::interval_nanos;
use ruslo_repr::{Error, ErrorKind, Result};

use super::overload::{Function, fn1, over};
use super::types::*;

const DAY_SECONDS: f64 = 86_400.0;
pub(super) const DAY_NS: i64 = 86_400_000_000_000;

pub(super) fn out_of_range() -> Error {
    Error::new(ErrorKind::DatetimeOverflow, "interval out of range")
}

pub(super) fn negate(v: IntervalMonthDayNano) -> Result<IntervalMonthDayNano> {
    let (months, days) = (v.months.checked_neg(), v.days.checked_neg());
    match (months, days, v.nanoseconds.checked_neg()) {
        (Some(m), Some(d), Some(n)) => Ok(IntervalMonthDayNano::new(m, d, n)),
        _ => Err(out_of_range()),
    }
}

pub(super) fn add(
    a: IntervalMonthDayNano,
    b: IntervalMonthDayNano,
) -> Result<IntervalMonthDayNano> {
    let months = a.months.checked_add(b.months);
    let days = a.days.checked_add(b.days);
    match (months, days, a.nanoseconds.checked_add(b.nanoseconds)) {
        (Some(m), Some(d), Some(n)) => Ok(IntervalMonthDayNano::new(m, d, n)),
        _ => Err(out_of_range()),
    }
}

pub(super) fn sub(
    a: IntervalMonthDayNano,
    b: IntervalMonthDayNano,
) -> Result<IntervalMonthDayNano> {
    add(a, negate(b)?)
}

/// Every part times the factor; what is not whole flows down into days and time.
pub(super) fn multiply(v: IntervalMonthDayNano, factor: f64) -> Result<IntervalMonthDayNano> {
    let micros = |x: f64| (x * 1e6).round_ties_even() / 1e6;
    let to_int = |x: f64| match x.is_finite() && x.abs() < f64::from(i32::MAX) {
        true => Ok(x as i32),
        false => Err(out_of_range()),
    };
    let months = f64::from(v.months) * factor;
    let days = f64::from(v.days) * factor;
    let (whole_months, whole_days) = (to_int(months)?, to_int(days)?);
    let month_days = micros((months - f64::from(whole_months)) * 30.0);
    let mut seconds =
        micros((days - f64::from(whole_days) + month_days - month_days.trunc()) * DAY_SECONDS);
    let mut carried = month_days.trunc();
    // Two fractions of a day may make a whole one.
    if seconds.abs() >= DAY_SECONDS {
        let more = (seconds / DAY_SECONDS).trunc();
        carried += more;
        seconds -= more * DAY_SECONDS;
    }
    let time = (v.nanoseconds as f64 / 1e3 * factor + seconds * 1e6).round_ties_even();
    if time.is_nan() || time.abs() >= i64::MAX as f64 / 1e3 {
        return Err(out_of_range());
    }
    let days = whole_days
        .checked_add(to_int(carried)?)
        .ok_or_else(out_of_range)?;
    Ok(IntervalMonthDayNano::new(
        whole_months,
        days,
        time as i64 * 1000,
    ))
}

/// 24 hours become a day.
pub(super) fn justify_hours(v: IntervalMonthDayNano) -> Result<IntervalMonthDayNano> {
    let carried = i32::try_from(v.nanoseconds / DAY_NS).map_err(|_| out_of_range())?;
    let days = v.days.checked_add(carried).ok_or_else(out_of_range)?;
    let (days, nanos) = same_sign(days, v.nanoseconds % DAY_NS, DAY_NS);
    Ok(IntervalMonthDayNano::new(v.months, days, nanos))
}

/// 30 days become a month.
fn justify_days(v: IntervalMonthDayNano) -> Result<IntervalMonthDayNano> {
    let months = v.months.checked_add(v.days / 30).ok_or_else(out_of_range)?;
    let (months, days) = same_sign(months, i64::from(v.days % 30), 30);
    Ok(IntervalMonthDayNano::new(
        months,
        days as i32,
        v.nanoseconds,
    ))
}

fn justify_interval(v: IntervalMonthDayNano) -> Result<IntervalMonthDayNano> {
    let mut v = justify_days(justify_hours(v)?)?;
    // The sign of the whole is the sign of every part.
    let negative = interval_nanos(v) < 0;
    if negative && v.nanoseconds > 0 {
        v = IntervalMonthDayNano::new(v.months, v.days + 1, v.nanoseconds - DAY_NS);
    } else if !negative && v.nanoseconds < 0 {
        v = IntervalMonthDayNano::new(v.months, v.days - 1, v.nanoseconds + DAY_NS);
    }
    let (months, days) = same_sign(v.months, v.days.into(), 30);
    Ok(IntervalMonthDayNano::new(
        months,
        days as i32,
        v.nanoseconds,
    ))
}

/// Gives `low` the sign of `high` by moving one unit, of which `low` is `size` parts.
fn same_sign(high: i32, low: i64, size: i64) -> (i32, i64) {
    match (high, low) {
        (h, l) if h > 0 && l < 0 => (h - 1, l + size),
        (h, l) if h < 0 && l > 0 => (h + 1, l - size),
        _ => (high, low),
    }
}

pub(super) fn functions() -> Vec<Function> {
    vec![
        Function::new(
            "justify_hours",
            vec![fn1::<Interval, Interval, _>(justify_hours)],
        ),
        Function::new(
            "justify_days",
            vec![fn1::<Interval, Interval, _>(justify_days)],
        ),
        Function::new(
            "justify_interval",
            vec![fn1::<Interval, Interval, _>(justify_interval)],
        ),
        make_interval(),
    ]
}

/// `make_interval(years, months, weeks, days, hours, mins, secs)`, any number of them.
fn make_interval() -> Function {
    let mut params = vec![Int4::data_type(); 6];
    params.push(Float8::data_type());
    let overloads = (0..=params.len()).map(|count| {
        over(&params[..count], Interval::data_type(), move |args| {
            let ints = (0..count.min(6)).map(|i| args.columns[i].reader::<Int4>());
            let ints = ints.collect::<Result<Vec<_>>>()?;
            let seconds = args
                .columns
                .get(6)
                .map(|c| c.reader::<Float8>())
                .transpose()?;
            let values = (0..args.rows).map(|row| {
                let parts = ints
                    .iter()
                    .map(|part| part.get(row))
                    .collect::<Option<Vec<_>>>();
                let seconds = seconds.as_ref().map_or(Some(0.0), |s| s.get(row));
                let (Some(parts), Some(seconds)) = (parts, seconds) else {
                    return Ok(None);
                };
                from_parts(&parts, seconds).map(Some)
            });
            Interval::collect(values.collect::<Result<_>>()?)
        })
    });
    Function::new("make_interval", overloads.collect())
}

fn from_parts(parts: &[i32], seconds: f64) -> Result<IntervalMonthDayNano> {
    let part = |i: usize| i64::from(parts.get(i).copied().unwrap_or(0));
    let months = i32::try_from(part(0) * 12 + part(1)).map_err(|_| out_of_range())?;
    let days = i32::try_from(part(2) * 7 + part(3)).map_err(|_| out_of_range())?;
    let micros = (seconds * 1e6).round();
    if micros.is_nan() || micros.abs() > 9e15 {
        return Err(out_of_range());
    }
    let minutes = (part(4) * 60 + part(5)).checked_mul(60_000_000_000);
    let nanos = minutes.and_then(|m| m.checked_add(micros as i64 * 1000));
    Ok(IntervalMonthDayNano::new(
        months,
        days,
        nanos.ok_or_else(out_of_range)?,
    ))
}
