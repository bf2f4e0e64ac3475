//! Texts that PostgreSQL 15 was given, and what it printed.

use arrow::array::{
    Array, ArrayRef, Int32Array, StringArray, StructArray, TimestampMicrosecondArray,
};
use arrow::array::{BooleanArray, Date32Array, IntervalMonthDayNanoArray};
use arrow::datatypes::{DataType, Field, IntervalMonthDayNano};
use std::sync::Arc;

use super::*;
use crate::schema::{INTERVAL, JSONB, NUMERIC, TIME, TIMESTAMP, list_of, timestamptz};

fn type_named(name: &str) -> DataType {
    if let Some(item) = name.strip_suffix("[]") {
        return list_of(type_named(item));
    }
    match name {
        "boolean" => DataType::Boolean,
        "smallint" => DataType::Int16,
        "integer" => DataType::Int32,
        "bigint" => DataType::Int64,
        "real" => DataType::Float32,
        "double precision" => DataType::Float64,
        "numeric" => NUMERIC,
        "bytea" => DataType::Binary,
        "date" => DataType::Date32,
        "time" => TIME,
        "timestamp" => TIMESTAMP,
        "timestamptz" => timestamptz(),
        "interval" => INTERVAL,
        "jsonb" => JSONB,
        "text" => DataType::Utf8,
        other => panic!("unknown type {other}"),
    }
}

fn printed(array: &dyn Array, row: usize, style: &TextStyle) -> String {
    let mut text = String::new();
    write_text(array, row, style, &mut text);
    text
}

#[test]
fn texts_read_and_print_as_in_postgres() {
    let style = TextStyle::default();
    let mut wrong = vec![];
    for line in include_str!("cases.txt")
        .lines()
        .filter(|l| !l.starts_with('#'))
    {
        let (ty, rest) = line.split_once('|').unwrap();
        let (text, expected) = rest.rsplit_once('|').unwrap();
        let got = match parse_text(text, &type_named(ty), &style) {
            Ok(array) => {
                let once = printed(&array, 0, &style);
                let again = parse_text(&once, &type_named(ty), &style).unwrap();
                assert_eq!(printed(&again, 0, &style), once, "{ty} {text} reads back");
                once
            }
            // Our errors tell fewer codes of the class apart than PostgreSQL's.
            Err(error) => match expected.get(..3)
                == error
                    .kind
                    .sqlstate()
                    .get(..2)
                    .map(|c| format!("!{c}"))
                    .as_deref()
            {
                true => format!("{} {}", &expected[..6], error.message),
                false => format!("!{} {}", error.kind.sqlstate(), error.message),
            },
        };
        if got != expected {
            wrong.push(format!(
                "{ty}|{text}\n  expected {expected}\n  got      {got}"
            ));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} differ:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

#[test]
fn instants_print_in_the_session_zone() {
    let utc = TimestampMicrosecondArray::from(vec![1_706_696_430_500_000, -3_000_000_000_000_000]);
    let utc = utc.with_timezone("UTC");
    let print = |zone: &str, row| printed(&utc, row, &TextStyle::with_time_zone(zone).unwrap());
    assert_eq!(print("UTC", 0), "2024-01-31 10:20:30.5+00");
    assert_eq!(print("europe/berlin", 0), "2024-01-31 11:20:30.5+01");
    assert_eq!(print("Asia/Kolkata", 0), "2024-01-31 15:50:30.5+05:30");
    assert_eq!(print("-03:30", 0), "2024-01-31 06:50:30.5-03:30");
    // Before zones were introduced, local mean time.
    assert_eq!(print("Europe/Berlin", 1), "1874-12-07 19:33:28+00:53:28");
    let error = TextStyle::with_time_zone("Mars/Olympus").unwrap_err();
    assert_eq!(error.message, "time zone \"Mars/Olympus\" not recognized");
}

#[test]
fn a_text_without_zone_is_read_in_the_session_zone() {
    let style = TextStyle::with_time_zone("America/New_York").unwrap();
    let read = |text: &str| {
        let array = parse_text(text, &timestamptz(), &style).unwrap();
        printed(&array, 0, &TextStyle::default())
    };
    assert_eq!(read("2024-01-31 10:00"), "2024-01-31 15:00:00+00");
    assert_eq!(read("2024-07-31 10:00"), "2024-07-31 14:00:00+00");
    // Skipped by the clock, shown twice by the clock.
    assert_eq!(read("2024-03-10 02:30"), "2024-03-10 07:30:00+00");
    assert_eq!(read("2024-11-03 01:30"), "2024-11-03 06:30:00+00");
}

#[test]
fn structs_print_and_read_as_records() {
    let fields: arrow::datatypes::Fields = vec![
        Field::new("a", DataType::Int32, true),
        Field::new("b", DataType::Utf8, true),
        Field::new("c", DataType::Boolean, true),
    ]
    .into();
    let texts = vec![Some("a \"b\" \\"), Some(""), None, Some("plain")];
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int32Array::from(vec![Some(1), None, None, Some(-4)])),
        Arc::new(StringArray::from(texts)),
        Arc::new(BooleanArray::from(vec![
            Some(true),
            Some(false),
            None,
            None,
        ])),
    ];
    let array = StructArray::new(fields.clone(), columns, None);
    let style = TextStyle::default();
    let printed: Vec<String> = (0..4).map(|row| printed(&array, row, &style)).collect();
    assert_eq!(
        printed,
        [r#"(1,"a ""b"" \\",t)"#, r#"(,"",f)"#, "(,,)", "(-4,plain,)"]
    );
    let ty = DataType::Struct(fields);
    let inputs: Vec<Option<&str>> = printed.iter().map(|text| Some(text.as_str())).collect();
    let read = parse_texts(&inputs, &ty, &style).unwrap();
    assert_eq!(read.as_ref(), &array as &dyn Array);
    for malformed in [
        "",
        "1,2,3",
        "(1,2)",
        "(1,2,t,4)",
        "(1,2,t",
        "(1,2,t)x",
        "(1,\"2,t)",
    ] {
        let error = parse_text(malformed, &ty, &style).unwrap_err();
        assert_eq!(
            error.message,
            format!("malformed record literal: \"{malformed}\"")
        );
    }
}

#[test]
fn the_ends_of_every_type_have_a_text() {
    let style = TextStyle::with_time_zone("Asia/Tokyo").unwrap();
    let stamps = TimestampMicrosecondArray::from(vec![i64::MIN, i64::MAX]);
    assert_eq!(
        printed(&stamps, 0, &style),
        "290309-12-21 19:59:05.224192 BC"
    );
    assert_eq!(printed(&stamps, 1, &style), "294247-01-10 04:00:54.775807");
    let stamps = stamps.with_timezone("UTC");
    assert!(!printed(&stamps, 0, &style).is_empty() && !printed(&stamps, 1, &style).is_empty());
    let dates = Date32Array::from(vec![i32::MIN, i32::MAX]);
    assert_eq!(printed(&dates, 0, &style), "5877642-06-23 BC");
    assert_eq!(printed(&dates, 1, &style), "5881580-07-11");
    let ends = [i32::MIN, i32::MAX]
        .map(|n| IntervalMonthDayNano::new(n, n, if n < 0 { i64::MIN } else { i64::MAX }));
    let intervals = IntervalMonthDayNanoArray::from(ends.to_vec());
    assert_eq!(
        printed(&intervals, 0, &style),
        "-178956970 years -8 mons -2147483648 days -2562047:47:16.854775"
    );
    assert!(ends.map(interval_order)[0] < ends.map(interval_order)[1]);
}

#[test]
fn a_cast_spells_booleans_out() {
    let array = BooleanArray::from(vec![Some(true), Some(false), None]);
    let cast = |row| {
        let mut text = String::new();
        write_cast_text(&array, row, &TextStyle::default(), &mut text).then_some(text)
    };
    assert_eq!(cast(0).as_deref(), Some("true"));
    assert_eq!(cast(1).as_deref(), Some("false"));
    assert_eq!(cast(2), None);
}

#[test]
fn intervals_of_equal_length_have_one_key() {
    let key = |text: &str| interval_order(parse_interval(text).unwrap());
    assert_eq!(key("1 month"), key("30 days"));
    assert_eq!(key("1 day"), key("24:00"));
    assert_eq!(key("1 month -1 day"), key("29 days"));
    assert_eq!(key("-1 month"), key("-29 days -24:00"));
    let ordered = [
        "-1 year", "-1 day", "-1 sec", "0", "1 sec", "23:59:59", "1 day", "1 month",
    ];
    assert!(ordered.map(key).is_sorted());
}

#[test]
fn damaged_texts_are_refused_without_panic() {
    let style = TextStyle::with_time_zone("Europe/Berlin").unwrap();
    let alphabet: Vec<char> = "0123456789:-+/. {}\",\\()eETZpm'[]aäu".chars().collect();
    let mut seed = 1u64;
    let mut random = |below: usize| {
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as usize % below
    };
    for line in include_str!("cases.txt")
        .lines()
        .filter(|l| !l.starts_with('#'))
    {
        let (ty, rest) = line.split_once('|').unwrap();
        let ty = type_named(ty);
        let (text, _) = rest.rsplit_once('|').unwrap();
        for _ in 0..100 {
            let mut chars: Vec<char> = text.chars().collect();
            for _ in 0..1 + random(3) {
                let at = random(chars.len() + 1);
                match random(3) {
                    0 if at < chars.len() => chars[at] = alphabet[random(alphabet.len())],
                    1 if at < chars.len() => drop(chars.remove(at)),
                    _ => chars.insert(at, alphabet[random(alphabet.len())]),
                }
            }
            let damaged: String = chars.into_iter().collect();
            if let Ok(array) = parse_text(&damaged, &ty, &style) {
                let once = printed(&array, 0, &style);
                let again = parse_text(&once, &ty, &style).unwrap();
                assert_eq!(printed(&again, 0, &style), once, "{ty} {damaged}");
            }
        }
    }
}
