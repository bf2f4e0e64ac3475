//! `to_char`, and `to_number`.

use ruslo_repr::{Error, ErrorKind, Numeric, Result};

use super::datetime_pattern;
use super::numeric;
use super::overload::{Function, fn2, styled2};
use super::types::*;

pub(super) fn functions() -> Vec<Function> {
    vec![
        Function::new(
            "to_char",
            vec![
                fn2::<Timestamp, Text, Text, _>(|local, p| datetime_pattern::print(local, None, p)),
                styled2::<Timestamptz, Text, Text, _>(|style, utc, pattern| {
                    let zone = style.time_zone;
                    let name = zone_abbreviation(zone, utc);
                    let zone_at = Some((zone.offset_at(utc), name));
                    datetime_pattern::print(zone.to_local(utc), zone_at, pattern)
                }),
                fn2::<Interval, Text, Text, _>(datetime_pattern::print_interval),
                fn2::<Int4, Text, Text, _>(|v, p| print_number(Numeric::Finite(v.into()), p)),
                fn2::<Int8, Text, Text, _>(|v, p| print_number(Numeric::Finite(v.into()), p)),
                fn2::<Num, Text, Text, _>(print_number),
                fn2::<Float8, Text, Text, _>(|v, p| {
                    print_number(numeric::numeric_from_f64(v, 15)?, p)
                }),
            ],
        ),
        Function::new("to_number", vec![fn2::<Text, Text, Num, _>(read_number)]),
    ]
}

/// `UTC`, `CET` …, or the offset where the zone has no abbreviation.
fn zone_abbreviation(zone: ruslo_repr::text::Zone, utc: i64) -> String {
    use chrono::{DateTime, TimeZone};
    use chrono_tz::OffsetName;

    if let ruslo_repr::text::Zone::Named(zone) = zone
        && let Some(instant) = DateTime::from_timestamp_micros(utc)
    {
        let offset = zone.offset_from_utc_datetime(&instant.naive_utc());
        return offset.abbreviation().unwrap_or(zone.name()).to_string();
    }
    zone.to_string()
}

/// A number's pattern: places before and behind the point, and what stands around them.
#[derive(Default)]
struct Pattern {
    /// `9`, `0`, `,` or `G` before the point, in order.
    whole: Vec<char>,
    /// The same behind it.
    fraction: Vec<char>,
    has_point: bool,
    no_fill: bool,
    minus_behind: bool,
    sign_in_front: bool,
    angle: bool,
    plus_minus: bool,
    scientific: bool,
    prefix: String,
    suffix: String,
}

fn read_pattern(pattern: &str) -> Result<Pattern> {
    let mut read = Pattern::default();
    let mut rest = pattern;
    while let Some(first) = rest.chars().next() {
        let upper = rest.to_ascii_uppercase();
        let started = !read.whole.is_empty() || read.has_point;
        let len = match first {
            _ if upper.starts_with("FM") => {
                read.no_fill = true;
                2
            }
            _ if upper.starts_with("MI") => {
                read.minus_behind = true;
                2
            }
            _ if upper.starts_with("PR") => {
                read.angle = true;
                2
            }
            _ if upper.starts_with("SG") || upper.starts_with("PL") => {
                read.plus_minus = true;
                2
            }
            _ if upper.starts_with("EEEE") => {
                read.scientific = true;
                4
            }
            '9' | '0' => {
                match read.has_point {
                    true => read.fraction.push(first),
                    false => read.whole.push(first),
                }
                1
            }
            ',' | 'G' | 'g' if !read.has_point => {
                read.whole.push(',');
                1
            }
            '.' | 'D' | 'd' => {
                if std::mem::replace(&mut read.has_point, true) {
                    let message = "multiple decimal points";
                    return Err(Error::new(ErrorKind::Syntax, message));
                }
                1
            }
            'S' | 's' => {
                match started {
                    true => read.minus_behind = true,
                    false => read.sign_in_front = true,
                }
                read.plus_minus |= started;
                1
            }
            '"' => {
                let quoted = rest[1..].split('"').next().unwrap_or_default();
                let target = if started {
                    &mut read.suffix
                } else {
                    &mut read.prefix
                };
                target.push_str(quoted);
                (quoted.len() + 2).min(rest.len())
            }
            other => {
                let target = if started {
                    &mut read.suffix
                } else {
                    &mut read.prefix
                };
                target.push(other);
                other.len_utf8()
            }
        };
        rest = &rest[len..];
    }
    Ok(read)
}

fn print_number(value: Numeric, pattern: &str) -> Result<String> {
    let pattern = read_pattern(pattern)?;
    if pattern.scientific {
        return Ok(print_scientific(value, &pattern));
    }
    let places = pattern.fraction.len() as i32;
    let Numeric::Finite(_) = value else {
        return Ok(overflowed(&pattern));
    };
    let Numeric::Finite(decimal) = numeric::round(value, places)? else {
        return Ok(overflowed(&pattern));
    };
    let negative = decimal.is_sign_negative() && !decimal.is_zero();
    let text = decimal.abs().to_string();
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    let whole = if whole == "0" { "" } else { whole };
    let slots = pattern.whole.iter().filter(|c| **c != ',').count();
    let digits = match whole.len() > slots {
        true => return Ok(signed(&overflowed(&pattern), negative, &pattern)),
        false => print_whole(whole, &pattern, slots),
    };
    let mut number = digits;
    if pattern.has_point {
        number.push('.');
        let fraction = format!("{fraction:0<width$}", width = pattern.fraction.len());
        let kept = match pattern.no_fill {
            true => {
                let least = pattern
                    .fraction
                    .iter()
                    .rposition(|c| *c == '0')
                    .map_or(0, |at| at + 1);
                let kept = fraction.trim_end_matches('0').len();
                kept.max(least)
            }
            false => fraction.len(),
        };
        number.push_str(&fraction[..kept]);
    }
    Ok(signed(&number, negative, &pattern))
}

/// The digits before the point in their places, with separators from the first digit on.
fn print_whole(whole: &str, pattern: &Pattern, slots: usize) -> String {
    let mut out = String::new();
    let mut slot = 0;
    let mut begun = false;
    let first_digit = slots - whole.len();
    let last = slots;
    for c in &pattern.whole {
        if *c == ',' {
            match (begun, pattern.no_fill) {
                (true, _) => out.push(','),
                (false, false) => out.push(' '),
                (false, true) => {}
            }
            continue;
        }
        begun |= slot >= first_digit || *c == '0';
        // A number below one shows its zero only if there is nothing behind the point.
        let lonely = slot + 1 == last && whole.is_empty() && pattern.fraction.is_empty();
        match begun || lonely {
            true if slot >= first_digit => {
                out.push(char::from(whole.as_bytes()[slot - first_digit]));
            }
            true => out.push('0'),
            false if !pattern.no_fill => out.push(' '),
            false => {}
        }
        slot += 1;
    }
    out
}

fn overflowed(pattern: &Pattern) -> String {
    let mut out: String = pattern
        .whole
        .iter()
        .map(|c| if *c == ',' { ',' } else { '#' })
        .collect();
    if pattern.has_point {
        out.push('.');
        out.extend(pattern.fraction.iter().map(|_| '#'));
    }
    out
}

/// Puts the sign in front of the first digit, or where the pattern wants it.
fn signed(number: &str, negative: bool, pattern: &Pattern) -> String {
    let blanks = number.len() - number.trim_start_matches(' ').len();
    let (fill, digits) = number.split_at(blanks);
    let body = match () {
        _ if pattern.angle => match (negative, pattern.no_fill) {
            (true, _) => format!("{fill}<{digits}>"),
            (false, true) => digits.to_string(),
            (false, false) => format!("{fill} {digits} "),
        },
        _ if pattern.minus_behind => {
            let sign = match (negative, pattern.plus_minus) {
                (true, _) => "-",
                (false, true) => "+",
                (false, false) if pattern.no_fill => "",
                (false, false) => " ",
            };
            format!("{fill}{digits}{sign}")
        }
        _ if pattern.sign_in_front || pattern.plus_minus => {
            format!("{fill}{}{digits}", if negative { '-' } else { '+' })
        }
        _ => {
            let sign = match (negative, pattern.no_fill) {
                (true, _) => "-",
                (false, true) => "",
                (false, false) => " ",
            };
            format!("{fill}{sign}{digits}")
        }
    };
    format!("{}{body}{}", pattern.prefix, pattern.suffix)
}

fn print_scientific(value: Numeric, pattern: &Pattern) -> String {
    let places = pattern.fraction.len();
    let float = numeric::numeric_to_f64(value);
    let text = format!("{float:.places$e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let sign = if exponent < 0 { '-' } else { '+' };
    let blank = if float < 0.0 || pattern.no_fill {
        ""
    } else {
        " "
    };
    format!("{blank}{mantissa}e{sign}{:02}", exponent.abs())
}

/// Reads the digits, sign and point that a text has, whatever stands between them.
fn read_number(text: &str, pattern: &str) -> Result<Numeric> {
    let pattern = read_pattern(pattern)?;
    let mut digits = String::new();
    let negative = text.contains('-') || (pattern.angle && text.contains('<'));
    for c in text.chars() {
        match c {
            '0'..='9' => digits.push(c),
            '.' if pattern.has_point && !digits.contains('.') => digits.push(c),
            _ => {}
        }
    }
    if !digits.bytes().any(|b| b.is_ascii_digit()) {
        let message = format!("invalid input syntax for type numeric: \"{text}\"");
        return Err(Error::new(ErrorKind::InvalidText, message));
    }
    let value: Numeric = digits.trim_end_matches('.').parse()?;
    Ok(if negative {
        numeric::negate(value)
    } else {
        value
    })
}
