//! Functions over dates and times: `age`, `make_…`, `date_bin`, `timezone`, `to_timestamp`.

use arrow::datatypes::{DataType, IntervalMonthDayNano};
use ruslo_repr::text::{DAY_US, TextStyle, Zone, civil_from_days, days_from_civil, days_in_month};
use ruslo_repr::{Error, ErrorKind, Result};

use super::datetime_arith::timestamp_out_of_range;
use super::overload::{Function, Overload, fn1, fn2, fn3, over, styled2};
use super::types::*;

pub(super) fn functions() -> Vec<Function> {
    vec![
        Function::new(
            "age",
            vec![
                fn2::<Timestamp, Timestamp, Interval, _>(age),
                styled2::<Timestamptz, Timestamptz, Interval, _>(|style, a, b| {
                    age(style.time_zone.to_local(a), style.time_zone.to_local(b))
                }),
            ],
        ),
        Function::new(
            "make_date",
            vec![fn3::<Int4, Int4, Int4, Date, _>(make_date)],
        ),
        Function::new(
            "make_time",
            vec![fn3::<Int4, Int4, Float8, Time, _>(make_time)],
        ),
        make_timestamp(),
        make_timestamptz(),
        Function::new(
            "date_bin",
            vec![
                fn3::<Interval, Timestamp, Timestamp, Timestamp, _>(bin),
                fn3::<Interval, Timestamptz, Timestamptz, Timestamptz, _>(bin),
            ],
        ),
        Function::new(
            "timezone",
            vec![
                fn2::<Text, Timestamp, Timestamptz, _>(|zone, local| {
                    Ok(zone.parse::<Zone>()?.to_utc(local))
                }),
                fn2::<Text, Timestamptz, Timestamp, _>(|zone, utc| {
                    Ok(zone.parse::<Zone>()?.to_local(utc))
                }),
                fn2::<Interval, Timestamp, Timestamptz, _>(|offset, local| {
                    Ok(zone_of(offset)?.to_utc(local))
                }),
                fn2::<Interval, Timestamptz, Timestamp, _>(|offset, utc| {
                    Ok(zone_of(offset)?.to_local(utc))
                }),
            ],
        ),
        Function::new("to_timestamp", to_timestamps()),
        Function::new(
            "to_date",
            vec![fn2::<Text, Text, Date, _>(|text, pattern| {
                let (local, _) = super::datetime_pattern::parse(text, pattern)?;
                i32::try_from(local.div_euclid(DAY_US)).map_err(|_| timestamp_out_of_range())
            })],
        ),
        Function::new(
            "isfinite",
            vec![
                fn1::<Date, Bool, _>(|_| true),
                fn1::<Timestamp, Bool, _>(|_| true),
                fn1::<Timestamptz, Bool, _>(|_| true),
                fn1::<Interval, Bool, _>(|_| true),
            ],
        ),
    ]
}

/// Years, months, days and time from `b` to `a`, counted on the calendar.
fn age(a: i64, b: i64) -> Result<IntervalMonthDayNano> {
    if a < b {
        return super::interval::negate(age(b, a)?);
    }
    let parts = |us: i64| {
        let (year, month, day) = civil_from_days(us.div_euclid(DAY_US));
        (
            year * 12 + i64::from(month) - 1,
            i64::from(day),
            us.rem_euclid(DAY_US),
        )
    };
    let ((a_months, a_day, a_time), (b_months, b_day, b_time)) = (parts(a), parts(b));
    let (mut months, mut days, mut time) = (a_months - b_months, a_day - b_day, a_time - b_time);
    if time < 0 {
        time += DAY_US;
        days -= 1;
    }
    if days < 0 {
        // A borrowed month is as long as the month that `b` stands in.
        let (year, month) = (b_months.div_euclid(12), b_months.rem_euclid(12) as u32 + 1);
        days += i64::from(days_in_month(year, month));
        months -= 1;
    }
    let months = i32::try_from(months).map_err(|_| super::interval::out_of_range())?;
    Ok(IntervalMonthDayNano::new(months, days as i32, time * 1000))
}

fn make_date(year: i32, month: i32, day: i32) -> Result<i32> {
    let error = || {
        let message = format!("date field value out of range: {year}-{month:02}-{day:02}");
        Error::new(ErrorKind::DatetimeOverflow, message)
    };
    // A negative year is before Christ; there is no year 0.
    let astronomical = i64::from(year) + i64::from(year < 0);
    let (Ok(month), Ok(day)) = (u32::try_from(month), u32::try_from(day)) else {
        return Err(error());
    };
    let valid = year != 0
        && (1..=12).contains(&month)
        && (1..=days_in_month(astronomical, month)).contains(&day);
    match valid {
        true => i32::try_from(days_from_civil(astronomical, month, day)).map_err(|_| error()),
        false => Err(error()),
    }
}

fn make_time(hour: i32, minute: i32, second: f64) -> Result<i64> {
    let in_day =
        (0..=23).contains(&hour) && (0..60).contains(&minute) && (0.0..=60.0).contains(&second);
    let end_of_day = hour == 24 && minute == 0 && second == 0.0;
    if !(in_day || end_of_day) {
        let message = format!("time field value out of range: {hour}:{minute:02}:{second:02}");
        return Err(Error::new(ErrorKind::DatetimeOverflow, message));
    }
    let micros = (second * 1e6).round_ties_even() as i64;
    Ok((i64::from(hour) * 60 + i64::from(minute)) * 60_000_000 + micros)
}

/// `(year, month, day, hour, minute, second[, zone])`.
fn make_timestamp_params() -> Vec<DataType> {
    let mut params = vec![Int4::data_type(); 5];
    params.push(Float8::data_type());
    params
}

fn local_at(args: &super::overload::Args, row: usize) -> Result<Option<i64>> {
    let ints = (0..5).map(|i| Ok(args.columns[i].reader::<Int4>()?.get(row)));
    let ints = ints.collect::<Result<Option<Vec<i32>>>>()?;
    let second = args.columns[5].reader::<Float8>()?.get(row);
    let (Some(ints), Some(second)) = (ints, second) else {
        return Ok(None);
    };
    let days = i64::from(make_date(ints[0], ints[1], ints[2])?);
    let time = make_time(ints[3], ints[4], second)?;
    let local = days.checked_mul(DAY_US).and_then(|us| us.checked_add(time));
    local.map(Some).ok_or_else(timestamp_out_of_range)
}

fn make_timestamp() -> Function {
    let eval = |args: &super::overload::Args| {
        let values = (0..args.rows).map(|row| local_at(args, row));
        Timestamp::collect(values.collect::<Result<_>>()?)
    };
    let overload = over(&make_timestamp_params(), Timestamp::data_type(), eval);
    Function::new("make_timestamp", vec![overload])
}

fn make_timestamptz() -> Function {
    let mut params = make_timestamp_params();
    let eval = |args: &super::overload::Args| {
        let zone = args
            .columns
            .get(6)
            .map(|c| c.reader::<Text>())
            .transpose()?;
        let values = (0..args.rows).map(|row| {
            let zone = match &zone {
                None => Some(args.style.time_zone),
                Some(zone) => zone.get(row).map(|name| name.parse()).transpose()?,
            };
            let local = local_at(args, row)?;
            Ok(zone
                .zip(local)
                .map(|(zone, local): (Zone, i64)| zone.to_utc(local)))
        });
        Timestamptz::collect(values.collect::<Result<_>>()?)
    };
    let short = over(&params, Timestamptz::data_type(), eval);
    params.push(Text::data_type());
    Function::new(
        "make_timestamptz",
        vec![short, over(&params, Timestamptz::data_type(), eval)],
    )
}

/// The start of the stride that a moment lies in, counted from the origin.
fn bin(stride: IntervalMonthDayNano, moment: i64, origin: i64) -> Result<i64> {
    if stride.months != 0 {
        let message = "timestamps cannot be binned into intervals containing months or years";
        return Err(Error::unsupported(message));
    }
    let days = i64::from(stride.days).checked_mul(DAY_US);
    let width = days.and_then(|d| d.checked_add(stride.nanoseconds / 1000));
    match width {
        Some(width) if width > 0 => {
            let since = moment
                .checked_sub(origin)
                .ok_or_else(timestamp_out_of_range)?;
            Ok(moment - since.rem_euclid(width))
        }
        _ => {
            let message = "stride must be greater than zero";
            Err(Error::new(ErrorKind::OutOfRange, message))
        }
    }
}

fn zone_of(offset: IntervalMonthDayNano) -> Result<Zone> {
    let seconds = offset.nanoseconds / 1_000_000_000;
    match offset.months == 0 && offset.days == 0 && seconds.abs() < 86_400 {
        true => Ok(Zone::Offset(seconds as i32)),
        false => {
            let message = "interval time zone must not include months or days";
            Err(Error::new(ErrorKind::InvalidParameter, message))
        }
    }
}

fn to_timestamps() -> Vec<Overload> {
    vec![
        fn1::<Float8, Timestamptz, _>(|seconds| {
            let micros = (seconds * 1e6).round_ties_even();
            match micros.is_finite() && micros.abs() < 9.2e18 {
                true => Ok(micros as i64),
                false => Err(timestamp_out_of_range()),
            }
        }),
        styled2::<Text, Text, Timestamptz, _>(|style: &TextStyle, text: &str, pattern: &str| {
            let (local, zone) = super::datetime_pattern::parse(text, pattern)?;
            Ok(zone.unwrap_or(style.time_zone).to_utc(local))
        }),
    ]
}
