//! Dates and times as messages write them: ISO 8601 text, and integers since 1970.
//!
//! Everything ends in microseconds (days for a date). Fractions finer than that are cut off, not
//! rounded, so that no event moves into the next second. Instants beyond chrono's calendar (about
//! 262,000 years either way) do not fit: whatever prints or computes with them later could not.
//!
//! ```text
//!   2026-11-22[T| ]10:00[:00[.123456]][[ ]Z | UTC | ±hh[[:]mm]]
//! ```

use chrono::{DateTime, NaiveDate, Utc};

use super::TimestampMode;

const SECOND_US: i64 = 1_000_000;
const DAY_US: i64 = 86_400 * SECOND_US;
const MIN_US: i64 = DateTime::<Utc>::MIN_UTC.timestamp_micros();
const MAX_US: i64 = DateTime::<Utc>::MAX_UTC.timestamp_micros();
/// 1970-01-01 counted from the first day of the common era.
const EPOCH_DAYS_CE: i32 = 719_163;

/// What a text says about a point in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Civil {
    /// Microseconds since 1970 on the clock that the text reads.
    local_us: i64,
    /// How far that clock is ahead of UTC, if the text names a zone.
    offset_us: Option<i64>,
}

impl Civil {
    /// The clock's reading, whatever its zone: PostgreSQL's `timestamp`.
    pub(super) fn local(self) -> i64 {
        self.local_us
    }

    /// The instant, if the text names a zone.
    pub(super) fn instant(self) -> Option<i64> {
        self.offset_us.map(|offset| self.local_us - offset)
    }
}

/// `YYYY-MM-DD` as days since 1970.
pub(super) fn date(text: &str) -> Option<i32> {
    let (days, rest) = leading_date(text.as_bytes())?;
    rest.is_empty().then_some(days)
}

/// Days since 1970 as a date, if the calendar reaches it.
pub(super) fn date_of_days(days: i64) -> Option<i32> {
    let days = i32::try_from(days).ok()?;
    let days_ce = days.checked_add(EPOCH_DAYS_CE)?;
    NaiveDate::from_num_days_from_ce_opt(days_ce).map(|_| days)
}

/// `HH:MM[:SS[.f…]][Z]` as microseconds of the day.
pub(super) fn time(text: &str) -> Option<i64> {
    let (micros, rest) = leading_time(text.as_bytes())?;
    matches!(rest, b"" | b"Z").then_some(micros)
}

/// Microseconds of the day, if there are as many in a day.
pub(super) fn time_of_micros(micros: i64) -> Option<i64> {
    (0..DAY_US).contains(&micros).then_some(micros)
}

/// A date, or date and time, with or without a zone.
pub(super) fn civil(text: &str) -> Option<Civil> {
    let (days, rest) = leading_date(text.as_bytes())?;
    let midnight_us = i64::from(days) * DAY_US;
    let (micros, rest) = match rest {
        [] => (0, rest),
        [b'T' | b't' | b' ', rest @ ..] => leading_time(rest)?,
        _ => return None,
    };
    Some(Civil {
        local_us: midnight_us + micros,
        offset_us: zone(rest)?,
    })
}

/// An integer as an instant, in the unit that `mode` says; None if it does not fit.
pub(super) fn instant_of_number(number: i64, mode: TimestampMode) -> Option<i64> {
    const E11: u64 = 100_000_000_000;
    const E14: u64 = 1_000 * E11;
    const E17: u64 = 1_000 * E14;
    let micros = match mode {
        TimestampMode::Milli => number.checked_mul(1_000)?,
        TimestampMode::Micro => number,
        TimestampMode::UtcString | TimestampMode::UtcWithoutSuffix => return None,
        TimestampMode::GuessNumberUnit => match number.unsigned_abs() {
            0..E11 => number * SECOND_US,
            E11..E14 => number * 1_000,
            E14..E17 => number,
            E17.. => number.div_euclid(1_000),
        },
    };
    (MIN_US..=MAX_US).contains(&micros).then_some(micros)
}

/// Reads `YYYY-MM-DD`; returns the days since 1970 and what follows.
fn leading_date(text: &[u8]) -> Option<(i32, &[u8])> {
    let (date, rest) = text.split_first_chunk::<10>()?;
    let [y0, y1, y2, y3, b'-', m0, m1, b'-', d0, d1] = *date else {
        return None;
    };
    let year = two_digits(y0, y1)? * 100 + two_digits(y2, y3)?;
    let (month, day) = (two_digits(m0, m1)?, two_digits(d0, d1)?);
    Some((days_since_epoch(year, month, day)?, rest))
}

/// Days since 1970-01-01 of a day of the Gregorian calendar, from the year 0 on.
fn days_since_epoch(year: u32, month: u32, day: u32) -> Option<i32> {
    let is_leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let month_days = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 => 28 + u32::from(is_leap),
        _ => return None,
    };
    if !(1..=month_days).contains(&day) {
        return None;
    }
    // Years that start in March have their leap day last, and their months repeat every five.
    let (year, month) = match month {
        1 | 2 => (year as i32 - 1, month + 9),
        _ => (year as i32, month - 3),
    };
    let day_of_year = (153 * month + 2) / 5 + day - 1;
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    const MARCH_OF_YEAR_0: i32 = -719_468;
    Some(year * 365 + leap_days + day_of_year as i32 + MARCH_OF_YEAR_0)
}

/// Reads `HH:MM[:SS[.f…]]`; returns the microseconds since midnight and what follows.
fn leading_time(text: &[u8]) -> Option<(i64, &[u8])> {
    let [h0, h1, b':', m0, m1, rest @ ..] = text else {
        return None;
    };
    let (hour, minute) = (two_digits(*h0, *h1)?, two_digits(*m0, *m1)?);
    let (second, rest) = match rest {
        [b':', s0, s1, rest @ ..] => (two_digits(*s0, *s1)?, rest),
        _ => (0, rest),
    };
    let (fraction_us, rest) = match rest {
        [b'.', rest @ ..] => leading_fraction(rest)?,
        _ => (0, rest),
    };
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let seconds = i64::from(hour * 3600 + minute * 60 + second);
    Some((seconds * SECOND_US + fraction_us, rest))
}

/// Reads one or more digits behind the point of a second; returns microseconds and what follows.
fn leading_fraction(text: &[u8]) -> Option<(i64, &[u8])> {
    let digits = text.iter().take_while(|b| b.is_ascii_digit()).count();
    if digits == 0 {
        return None;
    }
    let kept = text[..digits.min(6)].iter();
    let micros = kept.fold(0, |micros, digit| micros * 10 + i64::from(digit - b'0'));
    let missing = 6 - digits.min(6) as u32;
    Some((micros * 10i64.pow(missing), &text[digits..]))
}

/// The zone that `text` is, in microseconds ahead of UTC; the inner None for no text.
fn zone(text: &[u8]) -> Option<Option<i64>> {
    let seconds = match text.trim_ascii_start() {
        [] if text.is_empty() => return Some(None),
        b"Z" | b"z" => 0,
        name if name.eq_ignore_ascii_case(b"UTC") => 0,
        [sign @ (b'+' | b'-'), h0, h1, rest @ ..] => {
            let minutes = match rest {
                [] => 0,
                [b':', m0, m1] | [m0, m1] => two_digits(*m0, *m1)?,
                _ => return None,
            };
            let hours = two_digits(*h0, *h1)?;
            if hours > 23 || minutes > 59 {
                return None;
            }
            let ahead = i64::from(hours * 3600 + minutes * 60);
            if *sign == b'+' { ahead } else { -ahead }
        }
        _ => return None,
    };
    Some(Some(seconds * SECOND_US))
}

fn two_digits(tens: u8, ones: u8) -> Option<u32> {
    let (tens, ones) = (tens.wrapping_sub(b'0'), ones.wrapping_sub(b'0'));
    (tens <= 9 && ones <= 9).then(|| u32::from(tens) * 10 + u32::from(ones))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-22 10:00:00 UTC.
    const TEN: i64 = 1_795_341_600 * SECOND_US;

    #[test]
    fn every_day_is_the_day_that_chrono_says() {
        let first = NaiveDate::from_ymd_opt(0, 1, 1).unwrap();
        let last = NaiveDate::from_ymd_opt(9999, 12, 31).unwrap();
        let days = first.iter_days().take_while(|day| *day <= last);
        for (since_epoch, day) in (-719_528..).zip(days) {
            assert_eq!(date(&day.format("%Y-%m-%d").to_string()), Some(since_epoch));
        }
        assert_eq!(date("1970-01-01"), Some(0));
    }

    #[test]
    fn dates_that_are_none() {
        let texts = [
            "",
            "2026",
            "2026-11",
            "2026-11-2",
            "2026-1-22",
            "26-11-22",
            "2026-11-221",
            " 2026-11-22",
            "2026/11/22",
            "2026-00-22",
            "2026-13-22",
            "2026-11-00",
            "2026-11-31",
            "2026-02-29",
            "1900-02-29",
            "2026-11-2x",
            "2026-11-22 ",
        ];
        for text in texts {
            assert_eq!(date(text), None, "{text}");
        }
        assert_eq!(date("2000-02-29"), Some(11_016));
    }

    #[test]
    fn times_of_day() {
        let cases = [
            ("00:00", Some(0)),
            ("10:30", Some(37_800 * SECOND_US)),
            ("10:30:01", Some(37_801 * SECOND_US)),
            ("10:30:01.5", Some(37_801_500_000)),
            ("23:59:59.999999999Z", Some(DAY_US - 1)),
            ("24:00", None),
            ("10:60", None),
            ("10:30:60", None),
            ("10:30:", None),
            ("10:30:01.", None),
            ("1:30", None),
            ("10", None),
            ("", None),
        ];
        for (text, expected) in cases {
            assert_eq!(time(text), expected, "{text}");
        }
    }

    #[test]
    fn timestamps_with_and_without_zone() {
        let local = |text: &str| civil(text).map(Civil::local);
        let instant = |text: &str| civil(text).and_then(Civil::instant);
        for text in [
            "2026-11-22 10:00:00",
            "2026-11-22T10:00:00",
            "2026-11-22t10:00",
            "2026-11-22 10:00:00.000000000000",
            "2026-11-22T10:00:00Z",
            "2026-11-22T10:00:00+05:30",
        ] {
            assert_eq!(local(text), Some(TEN), "{text}");
        }
        for text in [
            "2026-11-22T10:00:00Z",
            "2026-11-22 10:00z",
            "2026-11-22 10:00:00 UTC",
            "2026-11-22 15:30:00+05:30",
            "2026-11-22 15:30:00 +0530",
            "2026-11-22 08:00:00.0-02",
            "2026-11-22 10:00:00-00:00",
            "2026-11-23 09:59:00+23:59",
        ] {
            assert_eq!(instant(text), Some(TEN), "{text}");
        }
        assert_eq!(local("2026-11-22"), Some(TEN - 36_000 * SECOND_US));
        assert_eq!(instant("2026-11-22 10:00:00"), None);
        assert_eq!(
            instant("2026-11-22 10:00:00.123456789Z"),
            Some(TEN + 123_456)
        );
        for text in [
            "2026-11-22 ",
            "2026-11-22T",
            "2026-11-22 10",
            "2026-11-22 10:00:00 ",
            "2026-11-22 10:00:00+1",
            "2026-11-22 10:00:00+24:00",
            "2026-11-22 10:00:00+01:60",
            "2026-11-22 10:00:00ZZ",
            "2026-11-22 10:00:00 CET",
            "2026-11-22_10:00:00",
            "2026-11-22 10:00:00+01:00:00",
        ] {
            assert_eq!(civil(text), None, "{text}");
        }
    }

    #[test]
    fn the_unit_of_a_number_is_guessed_by_its_size() {
        use TimestampMode::*;
        let cases = [
            (1_666_666_666, GuessNumberUnit, Some(1_666_666_666_000_000)),
            (
                1_666_666_666_666,
                GuessNumberUnit,
                Some(1_666_666_666_666_000),
            ),
            (
                1_666_666_666_666_666,
                GuessNumberUnit,
                Some(1_666_666_666_666_666),
            ),
            (
                1_666_666_666_666_666_666,
                GuessNumberUnit,
                Some(1_666_666_666_666_666),
            ),
            (
                99_999_999_999,
                GuessNumberUnit,
                Some(99_999_999_999_000_000),
            ),
            (100_000_000_000, GuessNumberUnit, Some(100_000_000_000_000)),
            (
                -99_999_999_999,
                GuessNumberUnit,
                Some(-99_999_999_999_000_000),
            ),
            (
                -1_666_666_666_666_666_001,
                GuessNumberUnit,
                Some(-1_666_666_666_666_667),
            ),
            (i64::MIN, GuessNumberUnit, Some(i64::MIN.div_euclid(1000))),
            (1_712_800_800_123, Milli, Some(1_712_800_800_123_000)),
            (-1, Milli, Some(-1_000)),
            (1, Micro, Some(1)),
            (i64::MAX, Milli, None),
            (i64::MAX, Micro, None),
            (MAX_US, Micro, Some(MAX_US)),
            (MIN_US, Micro, Some(MIN_US)),
            (1, UtcString, None),
            (1, UtcWithoutSuffix, None),
        ];
        for (number, mode, expected) in cases {
            assert_eq!(
                instant_of_number(number, mode),
                expected,
                "{number} {mode:?}"
            );
        }
    }

    #[test]
    fn days_beyond_the_calendar_do_not_fit() {
        assert_eq!(date_of_days(0), Some(0));
        assert_eq!(date_of_days(-25_567), Some(-25_567));
        for days in [
            i64::MAX,
            i64::from(i32::MAX),
            i64::from(i32::MIN),
            100_000_000,
        ] {
            assert_eq!(date_of_days(days), None);
        }
        assert_eq!(time_of_micros(DAY_US), None);
        assert_eq!(time_of_micros(-1), None);
    }
}
