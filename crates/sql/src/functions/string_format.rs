//! `format()`, `encode`/`decode` and digests.

use arrow::array::ArrayRef;
use ruslo_repr::{Error, ErrorKind, Result};

use super::overload::{Args, Function, fn1, fn2};
use super::string::{MAX_TEXT_BYTES, quote_ident, quote_literal, too_long, write_value};
use super::types::*;

pub(super) fn functions() -> Vec<Function> {
    let mut all = vec![
        Function::generic(
            "format",
            1..=usize::MAX,
            |_| Ok(Text::data_type()),
            format_rows,
        ),
        Function::new("encode", vec![fn2::<Bytea, Text, Text, _>(encode)]),
        Function::new("decode", vec![fn2::<Text, Text, Bytea, _>(decode)]),
        Function::new(
            "convert_from",
            vec![fn2::<Bytea, Text, Text, _>(convert_from)],
        ),
        Function::new(
            "convert_to",
            vec![fn2::<Text, Text, Bytea, _>(|s, encoding| {
                is_utf8(encoding).map(|()| s.as_bytes().to_vec())
            })],
        ),
        Function::new(
            "crc32",
            vec![
                fn1::<Bytea, Int8, _>(crc32),
                fn1::<Text, Int8, _>(|s| crc32(s.as_bytes())),
            ],
        ),
    ];
    all.extend(super::digest::functions());
    all
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidParameter, message)
}

fn format_rows(args: &Args) -> Result<ArrayRef> {
    let Some(pattern) = args.columns.first() else {
        let message = "function format() does not exist";
        return Err(Error::new(ErrorKind::UndefinedFunction, message));
    };
    let formatted = (0..args.rows).map(|row| {
        let mut text = String::new();
        match write_value(args, pattern, row, &mut text) {
            true => format_row(args, row, &text).map(Some),
            false => Ok(None),
        }
    });
    Text::collect(formatted.collect::<Result<_>>()?)
}

/// `%s`, `%I`, `%L` and `%%`, with `position$`, `-` and a width.
fn format_row(args: &Args, row: usize, pattern: &str) -> Result<String> {
    let mut out = String::new();
    let mut next = 1;
    let mut rest = pattern.chars().peekable();
    while let Some(c) = rest.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        if rest.next_if_eq(&'%').is_some() {
            out.push('%');
            continue;
        }
        let mut width = take_int(&mut rest)?;
        if rest.next_if_eq(&'$').is_some() {
            next = match width.take() {
                Some(position) if position > 0 => position,
                _ => {
                    return Err(invalid(
                        "format specifies argument 0, but arguments are numbered from 1",
                    ));
                }
            };
        }
        let left = rest.next_if_eq(&'-').is_some();
        if width.is_none() {
            width = take_int(&mut rest)?;
        }
        let Some(kind) = rest.next() else {
            return Err(invalid("unterminated format() type specifier")
                .with_hint("For a single \"%\" use \"%%\"."));
        };
        let column = args.columns.get(next);
        let column = column.ok_or_else(|| invalid("too few arguments for format()"))?;
        next += 1;
        let mut value = String::new();
        let known = write_value(args, column, row, &mut value);
        let text = match (kind, known) {
            ('s', _) => value,
            ('L', true) => quote_literal(&value),
            ('L', false) => "NULL".to_string(),
            ('I', true) => quote_ident(&value),
            ('I', false) => {
                return Err(invalid(
                    "null values cannot be formatted as an SQL identifier",
                ));
            }
            (other, _) => {
                let message = format!("unrecognized format() type specifier \"{other}\"");
                return Err(invalid(message).with_hint("For a single \"%\" use \"%%\"."));
            }
        };
        let padding = width.unwrap_or(0).saturating_sub(text.chars().count());
        if left {
            out.push_str(&text);
        }
        out.extend(std::iter::repeat_n(' ', padding));
        if !left {
            out.push_str(&text);
        }
    }
    Ok(out)
}

fn take_int(rest: &mut std::iter::Peekable<std::str::Chars>) -> Result<Option<usize>> {
    let mut value = None;
    while let Some(digit) = rest.peek().and_then(|c| c.to_digit(10)) {
        rest.next();
        let sum = value.unwrap_or(0usize) * 10 + digit as usize;
        if sum > MAX_TEXT_BYTES {
            return Err(too_long());
        }
        value = Some(sum);
    }
    Ok(value)
}

fn unknown_encoding(format: &str) -> Error {
    invalid(format!("unrecognized encoding: \"{format}\"")).with_hint("Use base64, hex or escape.")
}

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

fn encode(bytes: &[u8], format: &str) -> Result<String> {
    match format.to_ascii_lowercase().as_str() {
        "hex" => Ok(hex::encode(bytes)),
        "base64" => Ok(to_base64(bytes)),
        "escape" => Ok(bytes.iter().fold(String::new(), |mut out, byte| {
            match byte {
                b'\\' => out.push_str("\\\\"),
                0 | 128.. => out.push_str(&format!("\\{byte:03o}")),
                _ => out.push(char::from(*byte)),
            }
            out
        })),
        _ => Err(unknown_encoding(format)),
    }
}

/// With line breaks after 76 characters, as MIME has them.
fn to_base64(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() * 4 / 3 + 4);
    for (i, chunk) in bytes.chunks(3).enumerate() {
        if i > 0 && i % 19 == 0 {
            out.push('\n');
        }
        let byte = |i: usize| u32::from(chunk.get(i).copied().unwrap_or(0));
        let word = byte(0) << 16 | byte(1) << 8 | byte(2);
        for place in 0..4 {
            match place <= chunk.len() {
                true => out.push(char::from(BASE64[(word >> (18 - 6 * place) & 63) as usize])),
                false => out.push('='),
            }
        }
    }
    out
}

fn decode(text: &str, format: &str) -> Result<Vec<u8>> {
    match format.to_ascii_lowercase().as_str() {
        "hex" => ruslo_repr::text::parse_bytea(&format!("\\x{text}")),
        "base64" => from_base64(text),
        "escape" => match text.starts_with("\\x") {
            true => Err(invalid("invalid input syntax for type bytea")),
            false => ruslo_repr::text::parse_bytea(text),
        },
        _ => Err(unknown_encoding(format)),
    }
}

fn from_base64(text: &str) -> Result<Vec<u8>> {
    let bad = |c: char| {
        invalid(format!(
            "invalid symbol \"{c}\" found while decoding base64 sequence"
        ))
    };
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut word, mut digits, mut ended) = (0u32, 0, 0);
    for c in text.chars().filter(|c| !c.is_ascii_whitespace()) {
        if c == '=' {
            ended += 1;
            if digits + ended > 4 || digits < 2 {
                return Err(bad(c));
            }
            continue;
        }
        let digit = BASE64.iter().position(|b| char::from(*b) == c);
        let digit = digit.filter(|_| ended == 0).ok_or_else(|| bad(c))?;
        word = word << 6 | digit as u32;
        digits += 1;
        if digits == 4 {
            bytes.extend_from_slice(&word.to_be_bytes()[1..]);
            (word, digits) = (0, 0);
        }
    }
    match (digits, ended) {
        (0, 0) => {}
        (3, 1) => bytes.extend_from_slice(&(word << 6).to_be_bytes()[1..3]),
        (2, 2) => bytes.extend_from_slice(&(word << 12).to_be_bytes()[1..2]),
        _ => return Err(invalid("invalid base64 end sequence")),
    }
    Ok(bytes)
}

fn is_utf8(encoding: &str) -> Result<()> {
    let name: String = encoding
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .collect();
    match name.eq_ignore_ascii_case("utf8") {
        true => Ok(()),
        false => Err(invalid(format!("invalid encoding name \"{encoding}\""))
            .with_hint("Only UTF8 is supported.")),
    }
}

fn convert_from(bytes: &[u8], encoding: &str) -> Result<String> {
    is_utf8(encoding)?;
    String::from_utf8(bytes.to_vec()).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let byte = bytes.get(at).copied().unwrap_or(0);
        invalid(format!(
            "invalid byte sequence for encoding \"UTF8\": 0x{byte:02x}"
        ))
    })
}

fn crc32(bytes: &[u8]) -> i64 {
    let sum = bytes.iter().fold(u32::MAX, |mut sum, byte| {
        sum ^= u32::from(*byte);
        for _ in 0..8 {
            sum = if sum & 1 == 1 {
                sum >> 1 ^ 0xEDB8_8320
            } else {
                sum >> 1
            };
        }
        sum
    });
    i64::from(!sum)
}
