//! Text of boolean and bytea.

use crate::{Error, ErrorKind, Result};

/// Any unambiguous prefix of true, false, yes, no, on, off, or 1 or 0, in any case.
pub fn parse_bool(text: &str) -> Result<bool> {
    let word = text.trim().to_ascii_lowercase();
    let prefix_of = |full: &str, least: usize| word.len() >= least && full.starts_with(&word);
    if word == "1" || prefix_of("true", 1) || prefix_of("yes", 1) || prefix_of("on", 2) {
        Ok(true)
    } else if word == "0" || prefix_of("false", 1) || prefix_of("no", 1) || prefix_of("off", 2) {
        Ok(false)
    } else {
        let message = format!("invalid input syntax for type boolean: \"{text}\"");
        Err(Error::new(ErrorKind::InvalidText, message))
    }
}

/// Appends `\x` and two hexadecimal digits for each byte.
pub fn write_bytea(bytes: &[u8], out: &mut String) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    out.push_str("\\x");
    for byte in bytes {
        out.push(char::from(DIGITS[usize::from(byte >> 4)]));
        out.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
}

/// The hex form (`\x0aff`, white space between bytes allowed) or the older escape form (`a\\\001`).
pub fn parse_bytea(text: &str) -> Result<Vec<u8>> {
    match text.strip_prefix("\\x") {
        Some(hex) => parse_hex(hex),
        None => parse_escaped(text.as_bytes()),
    }
}

fn parse_hex(hex: &str) -> Result<Vec<u8>> {
    let invalid = |message: String| Error::new(ErrorKind::InvalidParameter, message);
    let mut bytes = Vec::with_capacity(hex.len() / 2);
    let mut high = None;
    for c in hex.chars() {
        if high.is_none() && c.is_ascii_whitespace() {
            continue;
        }
        let digit = c.to_digit(16);
        let digit = digit.ok_or_else(|| invalid(format!("invalid hexadecimal digit: \"{c}\"")))?;
        high = match high {
            None => Some(digit),
            Some(high) => {
                bytes.push((high << 4 | digit) as u8);
                None
            }
        };
    }
    match high {
        None => Ok(bytes),
        Some(_) => Err(invalid(
            "invalid hexadecimal data: odd number of digits".into(),
        )),
    }
}

fn parse_escaped(text: &[u8]) -> Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, tail)) = rest.split_first() {
        let is_octal = |b: &u8| (b'0'..=b'7').contains(b);
        rest = match (first, tail) {
            (b'\\', [b'\\', tail @ ..]) => {
                bytes.push(b'\\');
                tail
            }
            (b'\\', [a @ b'0'..=b'3', b, c, tail @ ..]) if is_octal(b) && is_octal(c) => {
                bytes.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                tail
            }
            (b'\\', _) => {
                let message = "invalid input syntax for type bytea";
                return Err(Error::new(ErrorKind::InvalidText, message)
                    .with_hint("Write bytes as \\x followed by pairs of hexadecimal digits."));
            }
            _ => {
                bytes.push(first);
                tail
            }
        };
    }
    Ok(bytes)
}
