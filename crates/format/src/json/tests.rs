//! The contract of `ENCODE JSON`, line by line, and what fuzzing must never break.

mod fuzz;

use arrow::array::Array;
use arrow::datatypes::{DataType, Field};
use ruslo_repr::schema::{INTERVAL, JSONB, NUMERIC, TIME, TIMESTAMP, list_of, timestamptz};
use ruslo_repr::text::{TextStyle, write_text};

use super::*;

const AT: Position = Position {
    partition: 3,
    offset: 42,
};

/// Decodes messages whose columns are all of `schema`.
fn decode(schema: &Schema, options: JsonOptions, messages: &[&[u8]]) -> Decoded {
    let columns = (0..schema.len()).collect::<Vec<_>>();
    let mut decoder = JsonDecoder::new(schema, &columns, options).unwrap();
    for message in messages {
        decoder.push(Some(message), AT);
    }
    decoder.finish()
}

/// The rows as PostgreSQL prints them, columns between bars.
fn rows(decoded: &Decoded) -> Vec<String> {
    let style = TextStyle::default();
    let row = |row: usize| {
        let values = decoded.columns.iter().map(|column| {
            assert_eq!(column.len(), decoded.rows);
            let mut text = String::new();
            match write_text(column.as_ref(), row, &style, &mut text) {
                true => text,
                false => "NULL".into(),
            }
        });
        values.collect::<Vec<_>>().join("|")
    };
    (0..decoded.rows).map(row).collect()
}

fn reasons(decoded: &Decoded) -> Vec<&str> {
    decoded.errors.iter().map(|e| e.reason.as_str()).collect()
}

/// What the value `json` becomes in a column of the type: its text, or the reason why not.
fn value_with(options: JsonOptions, ty: &DataType, json: &str) -> Result<String, String> {
    let schema = Schema::new([("v", ty.clone())]);
    let message = format!("{{\"v\":{json}}}");
    let decoded = decode(&schema, options, &[message.as_bytes()]);
    assert_eq!(decoded.rows, 1, "{json}");
    assert_eq!(decoded.columns[0].data_type(), ty);
    match decoded.errors.as_slice() {
        [] => Ok(rows(&decoded).remove(0)),
        [error] => {
            assert_eq!((error.column, error.element), (Some(0), None));
            assert_eq!(rows(&decoded), ["NULL"]);
            Err(error.reason.clone())
        }
        more => panic!("{more:?}"),
    }
}

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
fn what_a_misfit_had_taken_is_taken_back() {
    let inner = DataType::Struct(
        vec![
            Field::new("n", list_of(DataType::Int32), true),
            Field::new("s", DataType::Utf8, true),
        ]
        .into(),
    );
    let schema = Schema::new([("v", list_of(inner)), ("w", DataType::Int32)]);
    let messages = [
        r#"{"v":[{"n":[1],"s":"a"}],"w":1}"#,
        r#"{"v":[{"n":[2],"s":"b"},{"n":[3,4,"x"],"s":"c"}],"w":2}"#,
        r#"{"v":[{"n":[5],"s":{}}],"w":3}"#,
        r#"{"v":[{"n":[6,7],"s":"d"}],"w":4}"#,
    ];
    let decoded = decode(
        &schema,
        JsonOptions::default(),
        &messages.map(str::as_bytes),
    );
    assert_eq!(
        rows(&decoded),
        [
            "{\"({1},a)\"}|1",
            "NULL|2",
            "NULL|3",
            "{\"(\\\"{6,7}\\\",d)\"}|4"
        ]
    );
    assert_eq!(decoded.errors.len(), 2);
    decoded
        .columns
        .iter()
        .for_each(|c| c.to_data().validate_full().unwrap());
}

#[test]
fn names_match_in_any_case() {
    let schema = Schema::new([
        ("User", DataType::Utf8),
        ("n", DataType::Int32),
        ("N", DataType::Int32),
    ]);
    let messages = [
        r#"{"User":"a","n":1,"N":2}"#,
        r#"{"USER":"b","N":3}"#,
        r#"{"uSeR":"c","n":4}"#,
        // Escaped, exact before any-case whatever the order, last of equals, and keys remembered
        // from the message before in other places.
        r#"{"n":5,"\u0055ser":"d","user":"e"}"#,
        r#"{"n":6,"n":7,"user":"f","USER":"g"}"#,
        r#"{ "n" : 8 , "user":"h"}"#,
        r#"{"userr":"i","use":"j","":"k"}"#,
        "{}",
    ];
    let decoded = decode(
        &schema,
        JsonOptions::default(),
        &messages.map(str::as_bytes),
    );
    let expected = [
        "a|1|2",
        "b|3|3",
        "c|4|4",
        "d|5|5",
        "g|7|7",
        "h|8|8",
        "NULL|NULL|NULL",
        "NULL|NULL|NULL",
    ];
    assert_eq!(rows(&decoded), expected);
    assert!(decoded.errors.is_empty());
}

#[test]
fn only_wanted_columns_are_decoded_but_everything_is_checked() {
    let schema = Schema::new([
        ("a", DataType::Int32),
        ("b", DataType::Int32),
        ("c", DataType::Int32),
    ]);
    let mut decoder = JsonDecoder::new(&schema, &[1], JsonOptions::default()).unwrap();
    decoder.push(Some(br#"{"a":"no integer","b":2,"c":[1,{"d":tru}]}"#), AT);
    decoder.push(Some(br#"{"a":"no integer","b":2,"c":[1,{"d":true}]}"#), AT);
    decoder.push(Some(br#"{"a":1,"b":"x"}"#), AT);
    let decoded = decoder.finish();
    assert_eq!(rows(&decoded), ["2", "NULL"]);
    let columns = decoded.errors.iter().map(|e| e.column).collect::<Vec<_>>();
    assert_eq!(columns, [None, Some(1)]);
    assert!(JsonDecoder::new(&schema, &[3], JsonOptions::default()).is_err());
}

#[test]
fn without_columns_rows_are_counted() {
    let schema = Schema::new([("a", DataType::Int32)]);
    let mut decoder = JsonDecoder::new(&schema, &[], JsonOptions::default()).unwrap();
    for message in ["{}", "{\"a\":[]}", "[{},{\"a\":1}]", "[]", "{\"a\":1", "1"] {
        decoder.push(Some(message.as_bytes()), AT);
    }
    decoder.push(None, AT);
    assert_eq!((decoder.rows(), decoder.bytes()), (4, 31));
    let decoded = decoder.finish();
    assert_eq!(
        (decoded.rows, decoded.columns.len(), decoded.errors.len()),
        (4, 0, 2)
    );
    assert_eq!((decoder.rows(), decoder.bytes()), (0, 0));
    assert!(decoder.finish().errors.is_empty());
}

#[test]
fn a_message_that_is_no_json_leaves_one_error_and_no_row() {
    let schema = Schema::new([("a", DataType::Int32)]);
    let cases: [(&[u8], &str); 14] = [
        (b"", "the message is empty"),
        (b"  ", "the message is empty"),
        (b"abc", "not JSON: expected a value at byte 0"),
        (
            b"{\"a\":1",
            "not JSON: the text ends at byte 6, expected ',' or '}'",
        ),
        (
            b"{\"a\":1}}",
            "not JSON: expected the end of the text at byte 7",
        ),
        (
            b"{\"a\":1} {\"a\":2}",
            "not JSON: expected the end of the text at byte 8",
        ),
        (b"{\"a\":1,\"b\":\"\xff\"}", "not UTF-8 at byte 12"),
        (
            b"{\"a\":1,\"b\":{\"c\":[01]}}",
            "not JSON: expected ',' or ']' at byte 18",
        ),
        (
            b"{\"a\":1,\"b\":\"\\ud800\"}",
            "not JSON: expected a low surrogate after a high one at byte 18",
        ),
        (
            b"[{\"a\":1},{\"a\":}]",
            "not JSON: expected a value at byte 14",
        ),
        (b"1.5", "the message is a number, not an object"),
        (b"\"{}\"", "the message is a string, not an object"),
        (b"null", "the message is null, not an object"),
        (
            b"true x",
            "not JSON: expected the end of the text at byte 5",
        ),
    ];
    for (message, reason) in cases {
        let decoded = decode(&schema, JsonOptions::default(), &[message]);
        assert_eq!(reasons(&decoded), [reason]);
        assert_eq!(rows(&decoded), [""; 0]);
        let error = &decoded.errors[0];
        assert_eq!((error.partition, error.offset), (3, 42));
        assert_eq!((error.element, error.column), (None, None));
        assert_eq!(error.payload.as_ref(), message);
        assert!(!error.is_truncated());
    }
}

#[test]
fn an_array_gives_a_row_per_object() {
    let schema = Schema::new([("a", DataType::Int32)]);
    let message = br#" [ {"a":1}, 5, {"a":"x"}, [{"a":2}], null, {"A":3} ] "#;
    let decoded = decode(&schema, JsonOptions::default(), &[message, b"[]", b"[[]]"]);
    assert_eq!(rows(&decoded), ["1", "NULL", "3"]);
    let errors = decoded
        .errors
        .iter()
        .map(|e| (e.element, e.column, e.reason.as_str()));
    let expected = [
        (Some(1), None, "the element is a number, not an object"),
        (Some(2), Some(0), "string \"x\" does not fit integer"),
        (Some(3), None, "the element is an array, not an object"),
        (Some(4), None, "the element is null, not an object"),
        (Some(0), None, "the element is an array, not an object"),
    ];
    assert_eq!(errors.collect::<Vec<_>>(), expected);
    assert!(Arc::ptr_eq(
        &decoded.errors[0].payload,
        &decoded.errors[1].payload
    ));
}

#[test]
fn a_tombstone_is_neither_row_nor_error() {
    let schema = Schema::new([("a", DataType::Int32)]);
    let mut decoder = JsonDecoder::new(&schema, &[0], JsonOptions::default()).unwrap();
    decoder.push(None, AT);
    let decoded = decoder.finish();
    assert_eq!((decoded.rows, decoded.errors.len()), (0, 0));
}

#[test]
fn long_payloads_and_values_are_cut_in_errors() {
    let schema = Schema::new([("a", DataType::Int32)]);
    let message = format!("{{\"a\":\"{}\"}}", "é".repeat(50_000));
    let decoded = decode(&schema, JsonOptions::default(), &[message.as_bytes()]);
    let error = &decoded.errors[0];
    assert_eq!(error.payload.len(), PAYLOAD_KEPT_MAX);
    assert_eq!(error.payload_bytes, message.len());
    assert!(error.is_truncated());
    assert!(error.reason.len() < 200, "{}", error.reason);
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
