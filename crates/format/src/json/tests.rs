//! The contract of `ENCODE JSON`, line by line, and what fuzzing must never break.

mod fuzz;
mod values;

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
