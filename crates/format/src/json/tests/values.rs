//! What a column of each type takes, and what it refuses.

use super::*;

fn check(ty: &DataType, fitting: &[(&str, &str)], misfits: &[&str]) {
    for (json, expected) in fitting {
        let value = value_with(JsonOptions::default(), ty, json);
        assert_eq!(value.as_deref(), Ok(*expected), "{json}");
    }
    for json in misfits {
        let value = value_with(JsonOptions::default(), ty, json);
        assert!(value.is_err(), "{json} became {value:?}");
    }
}

#[test]
fn integers() {
    let fitting = [
        ("12", "12"),
        ("-0", "0"),
        ("\"12\"", "12"),
        ("\"+12\"", "12"),
        ("\"-7\"", "-7"),
        ("null", "NULL"),
    ];
    let misfits = [
        "1.5",
        "1.0",
        "1e3",
        "\"1.5\"",
        "\"1e3\"",
        "\"\"",
        "\"abc\"",
        "\" 1\"",
        "true",
        "[1]",
        "{}",
        "99999999999999999999999999",
        "\"99999999999999999999\"",
    ];
    for ty in [DataType::Int16, DataType::Int32, DataType::Int64] {
        check(&ty, &fitting, &misfits);
    }
    check(
        &DataType::Int16,
        &[("32767", "32767"), ("-32768", "-32768")],
        &["32768", "-32769"],
    );
    check(
        &DataType::Int32,
        &[("2147483647", "2147483647")],
        &["2147483648", "\"-2147483649\""],
    );
    let limits = [
        ("9223372036854775807", "9223372036854775807"),
        ("\"-9223372036854775808\"", "-9223372036854775808"),
    ];
    check(&DataType::Int64, &limits, &["9223372036854775808"]);
}

#[test]
fn floats() {
    let fitting = [
        ("1", "1"),
        ("1.5", "1.5"),
        ("-1.5e2", "-150"),
        ("\"1.5\"", "1.5"),
        ("\"1e2\"", "100"),
        ("\"NaN\"", "NaN"),
        ("\"-Infinity\"", "-Infinity"),
        ("\"inf\"", "Infinity"),
        ("0.1", "0.1"),
    ];
    let misfits = ["\"abc\"", "\"\"", "true", "[]", "1e999", "\"-1e999\""];
    check(&DataType::Float32, &fitting, &misfits);
    check(&DataType::Float64, &fitting, &misfits);
    check(
        &DataType::Float32,
        &[("16777217", "1.6777216e+07")],
        &["1e39"],
    );
    check(
        &DataType::Float64,
        &[
            ("9007199254740993", "9.007199254740992e+15"),
            ("1e39", "1e+39"),
        ],
        &[],
    );
}

#[test]
fn numeric_keeps_its_digits() {
    let fitting = [
        ("1", "1"),
        ("1.50", "1.50"),
        ("-0.10", "-0.10"),
        ("12345.67890", "12345.67890"),
        ("\"1.500\"", "1.500"),
        (
            "0.1234567890123456789012345678",
            "0.1234567890123456789012345678",
        ),
        (
            "1234567890123456789012345678",
            "1234567890123456789012345678",
        ),
        (
            "0.12345678901234567890123456789012",
            "0.1234567890123456789012345679",
        ),
        ("1e3", "1000"),
        ("1.50e1", "15.0"),
        ("1.5E-3", "0.0015"),
        ("\"1.5e-3\"", "0.0015"),
        ("1.2345678901234567e-15", "0.0000000000000012345678901235"),
        ("\"NAN\"", "NaN"),
        ("\"POSITIVE_INFINITY\"", "Infinity"),
        ("\"NEGATIVE_INFINITY\"", "-Infinity"),
        ("\"NaN\"", "NaN"),
    ];
    let misfits = [
        "\"abc\"",
        "\"\"",
        "true",
        "{}",
        "[]",
        "1e40",
        "100000000000000000000000000000",
        "1e99999999999",
        "\"1e40\"",
    ];
    check(&NUMERIC, &fitting, &misfits);
}

#[test]
fn booleans() {
    check(
        &DataType::Boolean,
        &[("true", "t"), ("false", "f")],
        &["1", "0", "\"true\"", "\"t\"", "[]"],
    );
}

#[test]
fn varchar() {
    let fitting = [
        ("\"a\"", "a"),
        ("\"\"", ""),
        (r#""\u00e9\n\"""#, "é\n\""),
        (r#""\ud83d\ude00é""#, "😀é"),
        ("1.50", "1.50"),
        ("-1e3", "-1e3"),
        (
            "123456789012345678901234567890",
            "123456789012345678901234567890",
        ),
        ("true", "true"),
        ("false", "false"),
    ];
    check(&DataType::Utf8, &fitting, &["{}", "[1]", "\"a\\u0000b\""]);
}

#[test]
fn dates_and_times() {
    let dates = [
        ("\"2026-11-22\"", "2026-11-22"),
        ("0", "1970-01-01"),
        ("-1", "1969-12-31"),
        ("20000", "2024-10-04"),
    ];
    let misfits = [
        "\"2026-11-31\"",
        "\"22.11.2026\"",
        "\"2026-11-22 10:00:00\"",
        "1.5",
        "true",
        "1e3",
        "99999999999",
    ];
    check(&DataType::Date32, &dates, &misfits);
    let times = [
        ("\"10:00\"", "10:00:00"),
        ("\"10:00:00.5\"", "10:00:00.5"),
        ("36000000000", "10:00:00"),
        ("\"10:00:00Z\"", "10:00:00"),
    ];
    check(
        &TIME,
        &times,
        &["\"25:00\"", "-1", "86400000000", "1.5", "\"\""],
    );
    let milli = JsonOptions {
        time: TimeMode::Milli,
        ..JsonOptions::default()
    };
    assert_eq!(
        value_with(milli, &TIME, "36000001").as_deref(),
        Ok("10:00:00.001")
    );
    assert!(value_with(milli, &TIME, "86400000").is_err());
}

#[test]
fn timestamps() {
    let fitting = [
        ("\"2026-11-22 10:00:00\"", "2026-11-22 10:00:00"),
        (
            "\"2026-11-22T10:00:00.123456\"",
            "2026-11-22 10:00:00.123456",
        ),
        ("\"2026-11-22T10:00:00Z\"", "2026-11-22 10:00:00"),
        ("\"2026-11-22 10:00:00+02:00\"", "2026-11-22 10:00:00"),
        ("\"2026-11-22\"", "2026-11-22 00:00:00"),
        ("1795341600", "2026-11-22 10:00:00"),
        ("1795341600123", "2026-11-22 10:00:00.123"),
        ("1795341600123456", "2026-11-22 10:00:00.123456"),
        ("1795341600123456789", "2026-11-22 10:00:00.123456"),
        ("-1", "1969-12-31 23:59:59"),
        ("\"0001-01-01 00:00:00\"", "0001-01-01 00:00:00"),
        ("\"9999-12-31 23:59:59\"", "9999-12-31 23:59:59"),
    ];
    check(
        &TIMESTAMP,
        &fitting,
        &[
            "\"yesterday\"",
            "\"\"",
            "1.5",
            "1e9",
            "99999999999999999999",
            "true",
            "{}",
        ],
    );
}

#[test]
fn timestamptz_is_an_instant() {
    let ty = timestamptz();
    let fitting = [
        ("\"2026-11-22 10:00:00Z\"", "2026-11-22 10:00:00+00"),
        ("\"2026-11-22T12:00:00+02:00\"", "2026-11-22 10:00:00+00"),
        ("1795341600", "2026-11-22 10:00:00+00"),
        ("1795341600123", "2026-11-22 10:00:00.123+00"),
    ];
    check(
        &ty,
        &fitting,
        &["\"2026-11-22 10:00:00\"", "1.5", "\"soon\""],
    );
    let reason = value_with(JsonOptions::default(), &ty, "\"2026-11-22 10:00:00\"").unwrap_err();
    assert!(reason.contains("utc_without_suffix"), "{reason}");
}

#[test]
fn handling_modes_say_what_numbers_mean() {
    let with = |name: &str, mode: &str, ty: &DataType, json: &str| {
        let mut options = JsonOptions::default();
        assert!(options.set(name, mode).unwrap());
        value_with(options, ty, json).ok()
    };
    let (tz, plain) = ("timestamptz.handling.mode", "timestamp.handling.mode");
    for (name, ty, zone) in [(tz, timestamptz(), "+00"), (plain, TIMESTAMP, "")] {
        let read = |mode: &str, json: &str| with(name, mode, &ty, json);
        assert_eq!(
            read("milli", "1500"),
            Some(format!("1970-01-01 00:00:01.5{zone}"))
        );
        assert_eq!(
            read("micro", "1500"),
            Some(format!("1970-01-01 00:00:00.0015{zone}"))
        );
        assert_eq!(
            read("guess_number_unit", "1500"),
            Some(format!("1970-01-01 00:25:00{zone}"))
        );
        assert_eq!(read("utc_string", "1500"), None);
        assert_eq!(read("utc_without_suffix", "1500"), None);
        let text = "\"2026-11-22 10:00:00\"";
        assert_eq!(
            read("utc_without_suffix", text),
            Some(format!("2026-11-22 10:00:00{zone}"))
        );
        let text = "\"2026-11-22 10:00:00Z\"";
        for mode in [
            "milli",
            "micro",
            "guess_number_unit",
            "utc_string",
            "utc_without_suffix",
        ] {
            assert_eq!(
                read(mode, text),
                Some(format!("2026-11-22 10:00:00{zone}")),
                "{mode}"
            );
        }
    }
    let mut options = JsonOptions::default();
    assert_eq!(options.set("no.such.option", "x"), Ok(false));
    let error = options.set(tz, "nano").unwrap_err();
    assert_eq!(
        error.message,
        "unrecognized timestamptz.handling.mode value nano"
    );
}

#[test]
fn intervals_and_bytes() {
    let fitting = [
        ("\"P1Y2M3DT4H5M6S\"", "1 year 2 mons 3 days 04:05:06"),
        ("\"1 day\"", "1 day"),
        ("\"01:30:00\"", "01:30:00"),
    ];
    check(&INTERVAL, &fitting, &["\"soon\"", "1", "{}"]);
    let fitting = [
        (r#""\\x00ff""#, r"\x00ff"),
        (r#""\\xDEAD beef""#, r"\xdeadbeef"),
        (r#""\\x""#, r"\x"),
        ("\"abc\"", r"\x616263"),
    ];
    check(
        &DataType::Binary,
        &fitting,
        &[r#""\\x0""#, r#""\\x0g""#, "1", "[1]", r#""\\9""#],
    );
}

#[test]
fn jsonb_takes_any_value() {
    let fitting = [
        ("1.50", "1.50"),
        ("true", "true"),
        ("\"a\\u00e9\"", "\"aé\""),
        ("[1,{\"b\":1,\"a\":[]}]", "[1, {\"a\": [], \"b\": 1}]"),
        ("{\"bb\":1,\"a\":null,\"a\":2}", "{\"a\": 2, \"bb\": 1}"),
        ("\"\"", "\"\""),
        ("null", "NULL"),
        ("1e2", "100"),
    ];
    check(&JSONB, &fitting, &["\"\\u0000\"", "1e1000000"]);
}

#[test]
fn structs_and_arrays_nest() {
    let inner = DataType::Struct(
        vec![
            Field::new("x", DataType::Int32, true),
            Field::new("Tags", list_of(DataType::Utf8), true),
        ]
        .into(),
    );
    let fitting = [
        (
            r#"{"x":1,"tags":["a",null,"b"],"more":[{}]}"#,
            "(1,\"{a,NULL,b}\")",
        ),
        (r#"{"X":"2"}"#, "(2,)"),
        ("{}", "(,)"),
        (r#""{\"x\": 3, \"Tags\": []}""#, "(3,{})"),
    ];
    check(
        &inner,
        &fitting,
        &[
            "1",
            "[]",
            "\"\"",
            "\"x\"",
            "\"[]\"",
            r#"{"x":1.5}"#,
            r#"{"tags":[1,[]]}"#,
            r#""{\"x\":1} x""#,
        ],
    );
    let ints = list_of(DataType::Int32);
    check(
        &ints,
        &[("[]", "{}"), ("[1,null,\"2\"]", "{1,NULL,2}")],
        &["1", "{}", "\"[1]\"", "[1,1.5]"],
    );
    check(
        &list_of(ints),
        &[("[[1],[],null,[2,3]]", "{{1},{},NULL,{2,3}}")],
        &["[1]", "[[1],[true]]"],
    );
    let structs = list_of(inner);
    let reason = value_with(
        JsonOptions::default(),
        &structs,
        r#"[{"x":1},{"tags":["a",{}]}]"#,
    )
    .unwrap_err();
    assert_eq!(
        reason,
        "[1].Tags[1]: object {} does not fit character varying"
    );
}

#[test]
fn reasons_name_value_and_type() {
    let reason =
        |ty: &DataType, json: &str| value_with(JsonOptions::default(), ty, json).unwrap_err();
    assert_eq!(
        reason(&DataType::Int32, "1.5"),
        "number 1.5 does not fit integer"
    );
    assert_eq!(
        reason(&DataType::Int16, "70000"),
        "number 70000 is out of range for smallint"
    );
    assert_eq!(
        reason(&NUMERIC, "1e40"),
        "number 1e40 is out of range for numeric"
    );
    assert_eq!(
        reason(&DataType::Utf8, "{}"),
        "object {} does not fit character varying"
    );
    assert_eq!(
        reason(&DataType::Boolean, "\"\\n\""),
        "string \"\\n\" does not fit boolean"
    );
}
