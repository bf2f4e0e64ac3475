//! JSON values as `jsonb` keeps them, and their canonical text.
//!
//! A jsonb column holds canonical text: a space behind `:` and `,`, keys of an object once each
//! (the last wins) in PostgreSQL's order (shorter first, then by bytes), numbers without exponent
//! but with the digits they were written with. So equal values have equal bytes, but for numbers
//! written with different trailing zeros.

use std::fmt;

use crate::{Error, ErrorKind, Result};

/// Deeper nesting is refused, for the stack's sake.
const MAX_DEPTH: usize = 200;
/// Most digits a number may take when its exponent is written out.
const MAX_DIGITS: usize = 1000;

/// Why a string with this character is refused: PostgreSQL's texts have none.
const NUL_CHARACTER: &str = "\\u0000 cannot be converted to text.";

/// A JSON value. Objects keep the canonical order of keys.
#[derive(Clone, Debug, PartialEq)]
pub enum Json {
    Null,
    Bool(bool),
    /// A number in canonical digits: `-12.50`, never an exponent.
    Number(String),
    String(String),
    Array(Vec<Json>),
    Object(Vec<(String, Json)>),
}

/// The canonical text of a JSON text; fails with `InvalidText` if it is none.
pub fn canonical(text: &str) -> Result<String> {
    Json::parse(text).map(|json| json.to_string())
}

impl Json {
    /// Parses a JSON text (RFC 8259); white space around it is allowed.
    pub fn parse(text: &str) -> Result<Json> {
        let mut parser = Parser { text, at: 0 };
        let parsed = parser.value(0).and_then(|json| match parser.peek() {
            None => Ok(json),
            Some(_) => Err(parser.unexpected()),
        });
        parsed.map_err(|detail| {
            let message = match detail == NUL_CHARACTER {
                true => "unsupported Unicode escape sequence",
                false => "invalid input syntax for type json",
            };
            Error::new(ErrorKind::InvalidText, message).with_detail(detail)
        })
    }

    /// An object of these fields: sorted, and of equal keys the last one.
    pub fn object(mut fields: Vec<(String, Json)>) -> Json {
        fields.sort_by(|(a, _), (b, _)| key_order(a).cmp(&key_order(b)));
        // The sort is stable: of equal keys keep the last by letting it overwrite the one before.
        fields.dedup_by(|later, kept| {
            let same = later.0 == kept.0;
            if same {
                std::mem::swap(&mut later.1, &mut kept.1);
            }
            same
        });
        Json::Object(fields)
    }

    /// A number from the text of an integer, a numeric or a float; what is not finite becomes a
    /// string, as in PostgreSQL.
    pub fn number(text: &str) -> Json {
        match expand(text) {
            Some(digits) => Json::Number(digits),
            None => Json::String(text.to_string()),
        }
    }

    /// The field of an object.
    pub fn get(&self, key: &str) -> Option<&Json> {
        match self {
            Json::Object(fields) => {
                let at = fields.binary_search_by(|(k, _)| key_order(k).cmp(&key_order(key)));
                at.ok().map(|at| &fields[at].1)
            }
            _ => None,
        }
    }

    /// The item of an array, counted from the end if negative.
    pub fn item(&self, index: i64) -> Option<&Json> {
        match self {
            Json::Array(items) => {
                let from_start = match index {
                    0.. => usize::try_from(index).ok()?,
                    _ => items
                        .len()
                        .checked_sub(usize::try_from(index.unsigned_abs()).ok()?)?,
                };
                items.get(from_start)
            }
            _ => None,
        }
    }

    /// `object`, `array`, `string`, `number`, `boolean` or `null`.
    pub fn type_name(&self) -> &'static str {
        match self {
            Json::Null => "null",
            Json::Bool(_) => "boolean",
            Json::Number(_) => "number",
            Json::String(_) => "string",
            Json::Array(_) => "array",
            Json::Object(_) => "object",
        }
    }

    /// The text that `->>` gives: strings without quotes, no value for null.
    pub fn into_text(self) -> Option<String> {
        match self {
            Json::Null => None,
            Json::String(text) => Some(text),
            other => Some(other.to_string()),
        }
    }
}

fn key_order(key: &str) -> (usize, &[u8]) {
    (key.len(), key.as_bytes())
}

impl fmt::Display for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Json::Null => f.write_str("null"),
            Json::Bool(value) => write!(f, "{value}"),
            Json::Number(digits) => f.write_str(digits),
            Json::String(text) => write_string(text, f),
            Json::Array(items) => {
                for (i, item) in items.iter().enumerate() {
                    f.write_str(if i == 0 { "[" } else { ", " })?;
                    item.fmt(f)?;
                }
                f.write_str(if items.is_empty() { "[]" } else { "]" })
            }
            Json::Object(fields) => {
                for (i, (key, value)) in fields.iter().enumerate() {
                    f.write_str(if i == 0 { "{" } else { ", " })?;
                    write_string(key, f)?;
                    f.write_str(": ")?;
                    value.fmt(f)?;
                }
                f.write_str(if fields.is_empty() { "{}" } else { "}" })
            }
        }
    }
}

/// Writes a JSON string with quotes, escaping only what must be.
pub fn write_string(text: &str, out: &mut impl fmt::Write) -> fmt::Result {
    out.write_char('"')?;
    let mut plain_from = 0;
    for (at, byte) in text.bytes().enumerate() {
        let escape = match byte {
            b'"' => "\\\"",
            b'\\' => "\\\\",
            b'\n' => "\\n",
            b'\r' => "\\r",
            b'\t' => "\\t",
            0x08 => "\\b",
            0x0c => "\\f",
            0..0x20 => "",
            _ => continue,
        };
        out.write_str(&text[plain_from..at])?;
        match escape {
            "" => write!(out, "\\u{byte:04x}")?,
            escape => out.write_str(escape)?,
        }
        plain_from = at + 1;
    }
    out.write_str(&text[plain_from..])?;
    out.write_char('"')
}

/// Writes out the exponent of a decimal number; `None` if it is no number or has too many digits.
fn expand(text: &str) -> Option<String> {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (sign, mantissa) = match mantissa.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", mantissa),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if whole.is_empty()
        || !whole
            .bytes()
            .chain(fraction.bytes())
            .all(|b| b.is_ascii_digit())
    {
        return None;
    }
    if exponent.unsigned_abs() as usize + mantissa.len() > MAX_DIGITS {
        return None;
    }
    let digits = format!("{whole}{fraction}");
    let point = whole.len() as i32 + exponent;
    let (whole, fraction) = if point <= 0 {
        (
            String::new(),
            format!("{}{digits}", "0".repeat(point.unsigned_abs() as usize)),
        )
    } else if point as usize >= digits.len() {
        let zeros = "0".repeat(point as usize - digits.len());
        (format!("{digits}{zeros}"), String::new())
    } else {
        let (whole, fraction) = digits.split_at(point as usize);
        (whole.to_string(), fraction.to_string())
    };
    let whole = match whole.trim_start_matches('0') {
        "" => "0",
        digits => digits,
    };
    let zero = !whole.bytes().chain(fraction.bytes()).any(|b| b != b'0');
    let sign = if zero { "" } else { sign };
    Some(match fraction.is_empty() {
        true => format!("{sign}{whole}"),
        false => format!("{sign}{whole}.{fraction}"),
    })
}

/// Recursive descent; faults are sentences for the error's detail.
struct Parser<'a> {
    text: &'a str,
    at: usize,
}

type Parsed<T> = std::result::Result<T, String>;

impl Parser<'_> {
    /// The next byte that is not white space, without taking it.
    fn peek(&mut self) -> Option<u8> {
        let bytes = self.text.as_bytes();
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = bytes.get(self.at) {
            self.at += 1;
        }
        bytes.get(self.at).copied()
    }

    fn unexpected(&self) -> String {
        match self.text[self.at..].chars().next() {
            None => "The input string ended unexpectedly.".to_string(),
            Some(c) => format!("Unexpected character \"{c}\" at byte {}.", self.at + 1),
        }
    }

    fn value(&mut self, depth: usize) -> Parsed<Json> {
        if depth > MAX_DEPTH {
            return Err(format!("Nesting is deeper than {MAX_DEPTH} levels."));
        }
        match self.peek() {
            Some(b'{') => self.object(depth),
            Some(b'[') => self.array(depth),
            Some(b'"') => self.string().map(Json::String),
            Some(b'-' | b'0'..=b'9') => self.number(),
            _ => self.word(),
        }
    }

    fn word(&mut self) -> Parsed<Json> {
        let words = [
            ("true", Json::Bool(true)),
            ("false", Json::Bool(false)),
            ("null", Json::Null),
        ];
        for (word, json) in words {
            if self.text[self.at..].starts_with(word) {
                self.at += word.len();
                return Ok(json);
            }
        }
        Err(self.unexpected())
    }

    fn object(&mut self, depth: usize) -> Parsed<Json> {
        self.at += 1;
        let mut fields = vec![];
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(Json::Object(fields));
        }
        loop {
            if self.peek() != Some(b'"') {
                return Err(self.unexpected());
            }
            let key = self.string()?;
            if self.peek() != Some(b':') {
                return Err(self.unexpected());
            }
            self.at += 1;
            fields.push((key, self.value(depth + 1)?));
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b'}') => break,
                _ => return Err(self.unexpected()),
            }
        }
        self.at += 1;
        Ok(Json::object(fields))
    }

    fn array(&mut self, depth: usize) -> Parsed<Json> {
        self.at += 1;
        let mut items = vec![];
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(Json::Array(items));
        }
        loop {
            items.push(self.value(depth + 1)?);
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b']') => break,
                _ => return Err(self.unexpected()),
            }
        }
        self.at += 1;
        Ok(Json::Array(items))
    }

    fn string(&mut self) -> Parsed<String> {
        let start = self.at + 1;
        let mut at = start;
        let mut escaped = false;
        let bytes = self.text.as_bytes();
        loop {
            match bytes.get(at) {
                None => return Err("The input string ended unexpectedly.".to_string()),
                Some(b'"') => break,
                Some(b'\\') => {
                    escaped = true;
                    at += 2;
                }
                Some(0..0x20) => return Err("Control characters must be escaped.".to_string()),
                Some(_) => at += 1,
            }
        }
        let quoted = &self.text[self.at..=at];
        self.at = at + 1;
        let text = match escaped {
            false => self.text[start..at].to_string(),
            true => serde_json::from_str::<String>(quoted)
                .map_err(|_| "An escape sequence is not valid.".to_string())?,
        };
        match text.contains('\0') {
            true => Err(NUL_CHARACTER.to_string()),
            false => Ok(text),
        }
    }

    fn number(&mut self) -> Parsed<Json> {
        let start = self.at;
        let bytes = self.text.as_bytes();
        let digits = |at: usize| {
            bytes[at..]
                .iter()
                .take_while(|b| b.is_ascii_digit())
                .count()
        };
        let mut at = start + usize::from(bytes[start] == b'-');
        let whole = digits(at);
        let leading_zero = whole > 1 && bytes[at] == b'0';
        at += whole;
        let mut well_formed = whole > 0 && !leading_zero;
        if bytes.get(at) == Some(&b'.') {
            let fraction = digits(at + 1);
            well_formed &= fraction > 0;
            at += 1 + fraction;
        }
        if let Some(b'e' | b'E') = bytes.get(at) {
            at += 1 + usize::from(matches!(bytes.get(at + 1), Some(b'+' | b'-')));
            let exponent = digits(at.min(bytes.len()));
            well_formed &= exponent > 0;
            at += exponent;
        }
        self.at = at;
        let text = &self.text[start..at];
        if !well_formed {
            return Err(format!("Token \"{text}\" is invalid."));
        }
        let expanded = expand(text);
        let expanded = expanded.ok_or_else(|| format!("The number \"{text}\" is too large."))?;
        Ok(Json::Number(expanded))
    }
}
