//! Seeded mutations of messages, and agreement with `serde_json` on what JSON is and means.

use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;

use super::*;

const MUTATIONS: usize = 150_000;

fn all_types() -> Schema {
    let inner = vec![
        Field::new("x", DataType::Int32, true),
        Field::new("y", list_of(DataType::Utf8), true),
    ];
    Schema::new([
        ("bool", DataType::Boolean),
        ("i16", DataType::Int16),
        ("i32", DataType::Int32),
        ("i64", DataType::Int64),
        ("f32", DataType::Float32),
        ("f64", DataType::Float64),
        ("num", NUMERIC),
        ("text", DataType::Utf8),
        ("bytes", DataType::Binary),
        ("day", DataType::Date32),
        ("time", TIME),
        ("ts", TIMESTAMP),
        ("tz", timestamptz()),
        ("iv", INTERVAL),
        ("doc", JSONB),
        ("obj", DataType::Struct(inner.into())),
        ("arr", list_of(list_of(DataType::Int64))),
    ])
}

const SEEDS: [&str; 6] = [
    r#"{"event_timestamp": "2026-11-22 10:00:00", "user": "a@b.c", "page": "http://x.y/", "event": "click"}"#,
    r#"{"bool":true,"i16":12,"i32":-345,"i64":"678","f32":1.25,"f64":-1e-3,"num":12.50,"text":"a\u00e9\n"}"#,
    r#"{"bytes":"\\x00ff","day":"2026-11-22","time":"10:00:00.5","ts":1795341600123,"tz":"2026-11-22T10:00:00Z"}"#,
    r#"{"iv":"1 day 02:00:00","doc":{"b":[1,2.50,{"c":"\ud83d\ude00"}],"a":null},"obj":{"x":1,"y":["p","q"]}}"#,
    r#"[{"arr":[[1,2],[],null,[3]]},{"obj":"{\"x\":2}","I32":5}, {"text":12.0,"num":"NAN","day":20000}]"#,
    "{\"text\":\"naïve 😀 \u{7f}\",\"i64\":9223372036854775807,\"f64\":1e308,\"num\":1e-20,\"doc\":\"\\u0000\"}",
];

/// Bytes that are likelier than others to matter.
const TELLING: &[u8] = b"{}[]\",:\\u0019.eE+-tfn \n\x00\x1f\x7f\x80\xc3\xa9\xed\xa0\xff";

fn mutate(message: &mut Vec<u8>, rng: &mut StdRng) {
    let at = rng.random_range(0..=message.len());
    let telling = TELLING[rng.random_range(0..TELLING.len())];
    match rng.random_range(0..7) {
        0 => message.insert(at, telling),
        1 => message.truncate(at),
        2 if at < message.len() => message[at] = telling,
        3 if at < message.len() => message[at] ^= 1 << rng.random_range(0..8),
        4 if at < message.len() => {
            message.remove(at);
        }
        5 => {
            let end = rng.random_range(at..=message.len());
            let piece = message[at..end].to_vec();
            let to = rng.random_range(0..=message.len());
            message.splice(to..to, piece);
        }
        _ => {
            let end = rng.random_range(at..=message.len());
            message.drain(at..end);
        }
    }
}

/// Rows and whole-message errors that `serde_json` says a message is worth.
fn expected(message: &[u8]) -> (usize, usize) {
    match serde_json::from_slice::<Value>(message) {
        Ok(Value::Object(_)) => (1, 0),
        Ok(Value::Array(elements)) => {
            let objects = elements.iter().filter(|e| e.is_object()).count();
            (objects, elements.len() - objects)
        }
        // It computes each number as a double, which the grammar does not ask for.
        Err(error) if error.to_string().starts_with("number out of range") => (usize::MAX, 0),
        _ => (0, 1),
    }
}

#[test]
fn mutated_messages_never_panic_and_agree_with_serde_json() {
    let schema = all_types();
    let columns = (0..schema.len()).collect::<Vec<_>>();
    let mut decoder = JsonDecoder::new(&schema, &columns, JsonOptions::default()).unwrap();
    let mut counter = JsonDecoder::new(&schema, &[], JsonOptions::default()).unwrap();
    let mut rng = StdRng::seed_from_u64(20_261_122);
    let (mut valid, mut misfits) = (0, 0);
    for round in 0..MUTATIONS {
        let mut message = SEEDS[round % SEEDS.len()].as_bytes().to_vec();
        for _ in 0..rng.random_range(0..4) {
            mutate(&mut message, &mut rng);
        }
        let shown = String::from_utf8_lossy(&message).into_owned();
        let (rows_before, errors_before) = (decoder.rows(), decoder.errors.len());
        decoder.push(Some(&message), AT);
        counter.push(Some(&message), AT);
        let rows = decoder.rows() - rows_before;
        let errors = &decoder.errors[errors_before..];
        let refused = errors.iter().filter(|e| e.column.is_none()).count();
        let (rows_expected, refused_expected) = expected(&message);
        if rows_expected != usize::MAX {
            assert_eq!(
                (rows, refused),
                (rows_expected, refused_expected),
                "{shown}"
            );
        }
        valid += rows.min(1);
        misfits += errors.len() - refused;
        if round % 1000 == 999 {
            let (decoded, counted) = (decoder.finish(), counter.finish());
            assert_eq!(decoded.rows, counted.rows);
            for column in &decoded.columns {
                assert_eq!(column.len(), decoded.rows);
                column.to_data().validate_full().unwrap();
            }
        }
    }
    assert!(
        valid > MUTATIONS / 10,
        "the seeds were mutated beyond use: {valid} of {MUTATIONS}"
    );
    assert!(
        misfits > MUTATIONS / 100,
        "hardly a field failed to fit: {misfits}"
    );
}

#[test]
fn no_part_of_a_message_can_be_left_out() {
    let schema = all_types();
    for seed in SEEDS {
        for end in 0..seed.len() {
            let decoded = decode(&schema, JsonOptions::default(), &[&seed.as_bytes()[..end]]);
            assert_eq!(
                (decoded.rows, decoded.errors.len()),
                (0, 1),
                "{}",
                &seed[..end.min(9)]
            );
        }
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,20}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map(".{0,8}", inner, 0..6)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// Whether two values are equal but for the last bits of doubles, which `serde_json` may lose.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(k, a)| b.get(k).is_some_and(|b| same(a, b)))
        }
        (Value::Number(a), Value::Number(b)) if a != b => {
            let (a, b) = (a.as_f64().unwrap(), b.as_f64().unwrap());
            (a - b).abs() <= a.abs() * 4.0 * f64::EPSILON
        }
        _ => a == b,
    }
}

proptest! {
    #[test]
    fn what_serde_json_writes_is_read_as_it_reads_it(value in any_json(), pretty in any::<bool>()) {
        let text = match pretty {
            true => serde_json::to_string_pretty(&value).unwrap(),
            false => serde_json::to_string(&value).unwrap(),
        };
        let schema = Schema::new([("doc", JSONB), ("text", DataType::Utf8), ("f", DataType::Float64)]);
        let message = format!("{{\"text\":{text},\"doc\":{text},\"f\":{text},\"extra\":{text}}}");
        let decoded = decode(&schema, JsonOptions::default(), &[message.as_bytes()]);
        prop_assert_eq!(decoded.rows, 1);
        let row = |column: usize| {
            let mut out = String::new();
            let column = decoded.columns[column].as_ref();
            write_text(column, 0, &TextStyle::default(), &mut out).then_some(out)
        };
        let holds_nul = text.contains("\\u0000");
        if let (Some(doc), false) = (row(0), holds_nul) {
            let read = serde_json::from_str(&doc).unwrap();
            prop_assert!(same(&read, &value), "{doc}");
        }
        if let (Value::String(string), false) = (&value, holds_nul) {
            prop_assert_eq!(row(1), Some(string.clone()));
        }
        if let Value::Number(number) = &value {
            let read = row(2).unwrap().parse::<f64>().unwrap();
            prop_assert_eq!(Some(read), number.as_f64());
        }
    }

    #[test]
    fn arbitrary_text_agrees_with_serde_json(text in r#"[\{\}\[\]":,0-9eE\.\+\-truefalsn\\ ua]{0,24}"#) {
        let schema = Schema::new([("a", JSONB)]);
        let decoded = decode(&schema, JsonOptions::default(), &[text.as_bytes()]);
        let refused = decoded.errors.iter().filter(|e| e.column.is_none()).count();
        let (rows, errors) = expected(text.as_bytes());
        if rows != usize::MAX {
            prop_assert_eq!((decoded.rows, refused), (rows, errors));
        }
    }
}
