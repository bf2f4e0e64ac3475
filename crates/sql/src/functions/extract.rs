//! `extract`, `date_part` and `date_trunc`: parts of dates, times, timestamps and intervals.

use arrow::datatypes::IntervalMonthDayNano;
use ruslo_repr::schema::type_name;
use ruslo_repr::text::{DAY_US, TextStyle, Zone, civil_from_days, days_from_civil};
use ruslo_repr::{Error, ErrorKind, Numeric, Result};
use rust_decimal::Decimal;

use super::datetime_arith::timestamp_out_of_range;
use super::numeric::numeric_to_f64;
use super::overload::{Function, Overload, fn2, over, styled2};
use super::types::*;

pub(super) fn functions() -> Vec<Function> {
    vec![
        Function::new(
            "extract",
            vec![
                fn2::<Text, Date, Num, _>(part_of_date),
                fn2::<Text, Time, Num, _>(part_of_time),
                fn2::<Text, Timestamp, Num, _>(|field, us| part_of_local(field, us, None)),
                styled2::<Text, Timestamptz, Num, _>(part_of_instant),
                fn2::<Text, Interval, Num, _>(part_of_interval),
            ],
        ),
        Function::new(
            "date_part",
            vec![
                fn2::<Text, Date, Float8, _>(|f, days| part_of_date(f, days).map(numeric_to_f64)),
                fn2::<Text, Time, Float8, _>(|f, us| part_of_time(f, us).map(numeric_to_f64)),
                fn2::<Text, Timestamp, Float8, _>(|f, us| {
                    part_of_local(f, us, None).map(numeric_to_f64)
                }),
                styled2::<Text, Timestamptz, Float8, _>(|style, f, us| {
                    part_of_instant(style, f, us).map(numeric_to_f64)
                }),
                fn2::<Text, Interval, Float8, _>(|f, v| part_of_interval(f, v).map(numeric_to_f64)),
            ],
        ),
        Function::new("date_trunc", truncations()),
    ]
}

/// A field by any of its names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Microseconds,
    Milliseconds,
    Second,
    Minute,
    Hour,
    Day,
    Week,
    Month,
    Quarter,
    Year,
    Decade,
    Century,
    Millennium,
    Dow,
    IsoDow,
    Doy,
    IsoYear,
    Epoch,
    Julian,
    TimeZone,
    TimeZoneHour,
    TimeZoneMinute,
}

fn field(name: &str, ty: &arrow::datatypes::DataType) -> Result<Field> {
    use Field::*;
    Ok(match name.to_ascii_lowercase().as_str() {
        "microseconds" | "microsecond" | "us" | "usec" | "usecs" => Microseconds,
        "milliseconds" | "millisecond" | "ms" | "msec" | "msecs" => Milliseconds,
        "second" | "seconds" | "sec" | "secs" | "s" => Second,
        "minute" | "minutes" | "min" | "mins" | "m" => Minute,
        "hour" | "hours" | "hr" | "hrs" | "h" => Hour,
        "day" | "days" | "d" => Day,
        "week" | "weeks" | "w" => Week,
        "month" | "months" | "mon" | "mons" => Month,
        "quarter" | "qtr" => Quarter,
        "year" | "years" | "yr" | "yrs" | "y" => Year,
        "decade" | "decades" | "dec" | "decs" => Decade,
        "century" | "centuries" | "cent" | "c" => Century,
        "millennium" | "millennia" | "mil" | "mils" => Millennium,
        "dow" => Dow,
        "isodow" => IsoDow,
        "doy" => Doy,
        "isoyear" => IsoYear,
        "epoch" => Epoch,
        "julian" => Julian,
        "timezone" => TimeZone,
        "timezone_hour" => TimeZoneHour,
        "timezone_minute" => TimeZoneMinute,
        _ => {
            let name = name.to_ascii_lowercase();
            let message = format!("unit \"{name}\" not recognized for type {}", type_name(ty));
            return Err(Error::new(ErrorKind::InvalidParameter, message));
        }
    })
}

fn unsupported(name: &str, ty: &arrow::datatypes::DataType) -> Error {
    let name = name.to_ascii_lowercase();
    let message = format!("unit \"{name}\" not supported for type {}", type_name(ty));
    Error::new(ErrorKind::Unsupported, message)
}

fn int(value: i64) -> Numeric {
    Numeric::Finite(value.into())
}

fn scaled(value: i128, scale: u32) -> Numeric {
    Numeric::Finite(Decimal::from_i128_with_scale(value, scale))
}

fn part_of_date(name: &str, days: i32) -> Result<Numeric> {
    let ty = Date::data_type();
    match field(name, &ty)? {
        Field::Epoch => Ok(int(i64::from(days) * 86_400)),
        Field::Julian => Ok(int(i64::from(days) + JULIAN_1970)),
        field => match calendar_part(field, days.into()) {
            Some(value) => Ok(int(value)),
            None => Err(unsupported(name, &ty)),
        },
    }
}

fn part_of_time(name: &str, us: i64) -> Result<Numeric> {
    let ty = Time::data_type();
    match field(name, &ty)? {
        Field::Epoch => Ok(scaled(us.into(), 6)),
        field => clock_part(field, us).ok_or_else(|| unsupported(name, &ty)),
    }
}

fn part_of_instant(style: &TextStyle, name: &str, us: i64) -> Result<Numeric> {
    let ty = Timestamptz::data_type();
    let field = field(name, &ty)?;
    if field == Field::Epoch {
        return Ok(scaled(us.into(), 6));
    }
    let offset = style.time_zone.offset_at(us);
    part_of_local(name, style.time_zone.to_local(us), Some(offset))
}

/// Part of a local time; `offset` is given for an instant's.
fn part_of_local(name: &str, us: i64, offset: Option<i32>) -> Result<Numeric> {
    let ty = match offset {
        Some(_) => Timestamptz::data_type(),
        None => Timestamp::data_type(),
    };
    let (days, time) = (us.div_euclid(DAY_US), us.rem_euclid(DAY_US));
    let field = field(name, &ty)?;
    let zone_part = |divide: i32, modulo: i32| match offset {
        Some(offset) => Ok(int((offset / divide % modulo).into())),
        None => Err(unsupported(name, &ty)),
    };
    match field {
        Field::Epoch => Ok(scaled(us.into(), 6)),
        Field::Julian => {
            let day = Decimal::from(days + JULIAN_1970);
            let part = Decimal::from(time) / Decimal::from(DAY_US);
            Ok(Numeric::Finite((day + part).round_dp(20)))
        }
        Field::TimeZone => zone_part(1, i32::MAX),
        Field::TimeZoneHour => zone_part(3600, i32::MAX),
        Field::TimeZoneMinute => zone_part(60, 60),
        field => match (clock_part(field, time), calendar_part(field, days)) {
            (Some(value), _) => Ok(value),
            (None, Some(value)) => Ok(int(value)),
            (None, None) => Err(unsupported(name, &ty)),
        },
    }
}

/// The Julian day of 1970-01-01.
const JULIAN_1970: i64 = 2_440_588;

fn clock_part(field: Field, us: i64) -> Option<Numeric> {
    let in_minute = us % 60_000_000;
    Some(match field {
        Field::Microseconds => int(in_minute),
        Field::Milliseconds => scaled(in_minute.into(), 3),
        Field::Second => scaled(in_minute.into(), 6),
        Field::Minute => int(us / 60_000_000 % 60),
        Field::Hour => int(us / 3_600_000_000),
        _ => return None,
    })
}

fn calendar_part(field: Field, days: i64) -> Option<i64> {
    let (year, month, day) = civil_from_days(days);
    let month = i64::from(month);
    // The year as counted by people: 1 BC is -1.
    let shown_year = if year > 0 { year } else { year - 1 };
    Some(match field {
        Field::Day => day.into(),
        Field::Month => month,
        Field::Quarter => (month - 1) / 3 + 1,
        Field::Year => shown_year,
        Field::Decade => year.div_euclid(10),
        Field::Century => hundreds(year, 100),
        Field::Millennium => hundreds(year, 1000),
        Field::Dow => (days + 4).rem_euclid(7),
        Field::IsoDow => (days + 3).rem_euclid(7) + 1,
        Field::Doy => days - days_from_civil(year, 1, 1) + 1,
        Field::Week => iso_week(days).1,
        Field::IsoYear => {
            let year = iso_week(days).0;
            if year > 0 { year } else { year - 1 }
        }
        _ => return None,
    })
}

/// Centuries start with year 1, and before it with year -1.
fn hundreds(year: i64, size: i64) -> i64 {
    match year {
        1.. => (year + size - 1) / size,
        _ => -((size - 1 - (year - 1)) / size),
    }
}

/// ISO 8601's year and week.
pub(super) fn iso_week(days: i64) -> (i64, i64) {
    // The week belongs to the year of its Thursday.
    let thursday = days - (days + 3).rem_euclid(7) + 3;
    let (year, ..) = civil_from_days(thursday);
    (year, (thursday - days_from_civil(year, 1, 1)) / 7 + 1)
}

fn part_of_interval(name: &str, v: IntervalMonthDayNano) -> Result<Numeric> {
    let ty = Interval::data_type();
    let us = v.nanoseconds / 1000;
    let years = i64::from(v.months / 12);
    Ok(match field(name, &ty)? {
        Field::Microseconds => int(us % 60_000_000),
        Field::Milliseconds => scaled((us % 60_000_000).into(), 3),
        Field::Second => scaled((us % 60_000_000).into(), 6),
        Field::Minute => int(us / 60_000_000 % 60),
        Field::Hour => int(us / 3_600_000_000),
        Field::Day => int(v.days.into()),
        Field::Month => int((v.months % 12).into()),
        Field::Quarter => int((v.months % 12 / 3 + 1).into()),
        Field::Year => int(years),
        Field::Decade => int(years / 10),
        Field::Century => int(years / 100),
        Field::Millennium => int(years / 1000),
        Field::Epoch => {
            // A year is 365.25 days here, a month of what is left 30 days.
            let days = i128::from(years) * 36_525 * 864 + i128::from(v.months % 12) * 30 * 86_400;
            let days = days + i128::from(v.days) * 86_400;
            scaled(days * 1_000_000 + i128::from(us), 6)
        }
        _ => return Err(unsupported(name, &ty)),
    })
}

fn truncations() -> Vec<Overload> {
    let params = [
        Text::data_type(),
        Timestamptz::data_type(),
        Text::data_type(),
    ];
    vec![
        fn2::<Text, Timestamp, Timestamp, _>(|field, us| {
            truncate(field, us, &Timestamp::data_type())
        }),
        styled2::<Text, Timestamptz, Timestamptz, _>(|style, field, us| {
            truncate_in(style.time_zone, field, us)
        }),
        fn2::<Text, Interval, Interval, _>(truncate_interval),
        over(&params, Timestamptz::data_type(), |args| {
            let field = args.columns[0].reader::<Text>()?;
            let us = args.columns[1].reader::<Timestamptz>()?;
            let zone = args.columns[2].reader::<Text>()?;
            let values =
                (0..args.rows).map(|row| match (field.get(row), us.get(row), zone.get(row)) {
                    (Some(field), Some(us), Some(zone)) => {
                        truncate_in(zone.parse()?, field, us).map(Some)
                    }
                    _ => Ok(None),
                });
            Timestamptz::collect(values.collect::<Result<_>>()?)
        }),
    ]
}

fn truncate_in(zone: Zone, field: &str, us: i64) -> Result<i64> {
    Ok(zone.to_utc(truncate(
        field,
        zone.to_local(us),
        &Timestamptz::data_type(),
    )?))
}

fn truncate(name: &str, us: i64, ty: &arrow::datatypes::DataType) -> Result<i64> {
    let days = us.div_euclid(DAY_US);
    let (year, month, _) = civil_from_days(days);
    let to = |unit: i64| Ok(us - us.rem_euclid(unit));
    let first = |year: i64, month: u32| {
        days_from_civil(year, month, 1)
            .checked_mul(DAY_US)
            .ok_or_else(timestamp_out_of_range)
    };
    // The first year of a decade ends in 0, of a century or a millennium in 1.
    let century = |size: i64| (year - 1).div_euclid(size) * size + 1;
    match field(name, ty)? {
        Field::Microseconds => Ok(us),
        Field::Milliseconds => to(1000),
        Field::Second => to(1_000_000),
        Field::Minute => to(60_000_000),
        Field::Hour => to(3_600_000_000),
        Field::Day => to(DAY_US),
        Field::Week => Ok((days - (days + 3).rem_euclid(7)) * DAY_US),
        Field::Month => first(year, month),
        Field::Quarter => first(year, (month - 1) / 3 * 3 + 1),
        Field::Year => first(year, 1),
        Field::Decade => first(year.div_euclid(10) * 10, 1),
        Field::Century => first(century(100), 1),
        Field::Millennium => first(century(1000), 1),
        _ => Err(unsupported(name, ty)),
    }
}

fn truncate_interval(name: &str, v: IntervalMonthDayNano) -> Result<IntervalMonthDayNano> {
    let ty = Interval::data_type();
    let months = |unit: i32| Ok(IntervalMonthDayNano::new(v.months / unit * unit, 0, 0));
    let time = |unit: i64| {
        Ok(IntervalMonthDayNano::new(
            v.months,
            v.days,
            v.nanoseconds / unit * unit,
        ))
    };
    match field(name, &ty)? {
        Field::Microseconds => time(1000),
        Field::Milliseconds => time(1_000_000),
        Field::Second => time(1_000_000_000),
        Field::Minute => time(60_000_000_000),
        Field::Hour => time(3_600_000_000_000),
        Field::Day => Ok(IntervalMonthDayNano::new(v.months, v.days, 0)),
        Field::Month => months(1),
        Field::Quarter => months(3),
        Field::Year => months(12),
        Field::Decade => months(120),
        Field::Century => months(1200),
        Field::Millennium => months(12_000),
        _ => Err(unsupported(name, &ty)),
    }
}
