use super::*;

fn check(text: &str) -> Result<Token, Invalid> {
    let mut scanner = Scanner::new(text);
    let token = scanner.value()?;
    scanner.finish()?;
    Ok(token)
}

#[test]
fn accepts_exactly_json() {
    let valid = [
        "null",
        " true ",
        "false",
        "0",
        "-0",
        "-0.0e-0",
        "10.25E+7",
        "\"\"",
        "\"a b\"",
        "[]",
        "{}",
        "[[[]]]",
        "[1, \"a\", null, {\"a\": [true]}]",
        "{\"a\":{\"b\":{}},\"c\":[{}]}",
        "\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u12aF\"",
        "\"\\ud83d\\ude00\"",
        "\"äöü 😀 \u{7f}\"",
        "\t\r\n[\t\r\n1\t\r\n,\t\r\n2\t\r\n]\t\r\n",
    ];
    for text in valid {
        assert!(check(text).is_ok(), "{text}");
        assert!(
            serde_json::from_str::<serde_json::Value>(text).is_ok(),
            "{text}"
        );
    }
    let invalid = [
        "",
        " ",
        "nul",
        "nulll",
        "True",
        "NaN",
        "Infinity",
        "+1",
        "01",
        "-",
        "1.",
        ".5",
        "1e",
        "1e+",
        "0x1",
        "1 2",
        "[",
        "]",
        "[1",
        "[1,",
        "[1,]",
        "[,1]",
        "[1 2]",
        "[1}",
        "{",
        "}",
        "{\"a\"",
        "{\"a\":",
        "{\"a\":1",
        "{\"a\":1,",
        "{\"a\":1,}",
        "{,}",
        "{a:1}",
        "{1:1}",
        "{\"a\" 1}",
        "{\"a\":1]",
        "{\"a\":1 \"b\":2}",
        "{\"a\":}",
        "\"",
        "\"a",
        "\"\n\"",
        "\"\t\"",
        "\"\u{1f}\"",
        "\"\\\"",
        "\"\\x\"",
        "\"\\u12\"",
        "\"\\u12g4\"",
        "\"\\ud800\"",
        "\"\\ud800a\"",
        "\"\\ud800\\u0041\"",
        "\"\\udc00\"",
        "\u{feff}1",
        "\u{a0}1",
        "1,",
        "{}{}",
        "// a\n1",
        "'a'",
    ];
    for text in invalid {
        assert!(check(text).is_err(), "{text}");
        assert!(
            serde_json::from_str::<serde_json::Value>(text).is_err(),
            "{text}"
        );
    }
}

#[test]
fn nesting_has_a_limit_that_serde_json_shares() {
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        let nested = |depth: usize| [&open.repeat(depth), "1", &close.repeat(depth)].concat();
        let depth_max = DEPTH_MAX as usize;
        assert!(check(&nested(depth_max)).is_ok());
        assert!(serde_json::from_str::<serde_json::Value>(&nested(depth_max)).is_ok());
        assert!(check(&nested(depth_max + 1)).is_err());
        assert!(serde_json::from_str::<serde_json::Value>(&nested(depth_max + 1)).is_err());
        assert!(check(&open.repeat(1_000_000)).is_err());
    }
    // Brackets that closed do not count.
    let wide = format!("[{}1]", "[[]],".repeat(1000));
    assert!(check(&wide).is_ok());
}

#[test]
fn a_quote_is_found_at_every_offset() {
    for before in 0..40 {
        for special in ["\"", "\\n", "\\\"", "\u{1}"] {
            let text = format!("\"{}{special}é", "é".repeat(before));
            let expected = special == "\"";
            let mut scanner = Scanner::new(&text);
            assert_eq!(scanner.value().is_ok(), expected, "{text}");
        }
        let text = format!("\"{}\"", "x".repeat(before));
        assert_eq!(check(&text).unwrap().text(&text), "x".repeat(before));
    }
}

#[test]
fn strings_mean_what_serde_json_says() {
    let strings = [
        r#""""#,
        r#""a""#,
        r#""\u0041\u00e9""#,
        r#""x\ud83d\ude00y""#,
        r#""\\u0041""#,
        r#""\"\\\/\b\f\n\r\t""#,
        r#""é\né""#,
        r#""\u0000""#,
    ];
    for text in strings {
        let token = check(text).unwrap();
        let mut scratch = String::new();
        let value = token.string(text, &mut scratch);
        assert_eq!(value, serde_json::from_str::<String>(text).unwrap());
    }
}

#[test]
fn errors_say_where_and_what() {
    let message = |text: &str| check(text).unwrap_err().to_string();
    assert_eq!(message("{\"a\" 1}"), "expected ':' at byte 5");
    assert_eq!(
        message("{\"a\":1"),
        "the text ends at byte 6, expected ',' or '}'"
    );
    assert_eq!(message("{} x"), "expected the end of the text at byte 3");
}
