//! String functions. Positions and lengths count characters.

use ruslo_repr::text::json::Json;
use ruslo_repr::text::{write_cast_text, write_text};
use ruslo_repr::{Error, ErrorKind, Result};

use super::array_concat::NullAs;
use super::overload::{Args, Function, Overload, fn1, fn2, fn3, over};
use super::types::*;
use super::{jsonb, string_format};

/// A text longer than this is refused before it is made.
pub(super) const MAX_TEXT_BYTES: usize = 64 << 20;

pub(super) fn too_long() -> Error {
    Error::new(ErrorKind::OutOfRange, "requested length too large")
        .with_detail("A text may have up to 64 MiB.")
}

pub(super) fn functions() -> Vec<Function> {
    let mut all = concatenation();
    all.extend(measures());
    all.extend(cutting());
    all.extend(changing());
    all.extend(string_format::functions());
    all
}

fn concatenation() -> Vec<Function> {
    vec![
        Function::generic(
            "op_concat",
            2..=2,
            super::array_concat::concat_type,
            concat_any,
        )
        .operator("||"),
        Function::generic(
            "concat",
            1..=usize::MAX,
            |_| Ok(Text::data_type()),
            |args| {
                let row_text = |row| {
                    let mut text = String::new();
                    args.columns.iter().for_each(|column| {
                        write_value(args, column, row, &mut text);
                    });
                    Some(text)
                };
                Text::collect((0..args.rows).map(row_text).collect())
            },
        ),
        Function::generic(
            "concat_ws",
            1..=usize::MAX,
            |_| Ok(Text::data_type()),
            concat_ws,
        ),
    ]
}

/// Appends a value as clients see it; false for NULL.
pub(super) fn write_value(args: &Args, column: &Column, row: usize, out: &mut String) -> bool {
    write_text(&column.array, column.at(row), &args.style, out)
}

/// Appends a value as a cast to text gives it; false for NULL.
pub(super) fn write_cast(args: &Args, column: &Column, row: usize, out: &mut String) -> bool {
    write_cast_text(&column.array, column.at(row), &args.style, out)
}

fn concat_ws(args: &Args) -> Result<arrow::array::ArrayRef> {
    let Some((separator, parts)) = args.columns.split_first() else {
        let message = "function concat_ws() does not exist";
        return Err(Error::new(ErrorKind::UndefinedFunction, message));
    };
    let joined = (0..args.rows).map(|row| {
        let mut glue = String::new();
        if !write_value(args, separator, row, &mut glue) {
            return None;
        }
        let mut text = String::new();
        let mut first = true;
        for part in parts {
            let before = text.len();
            if !first {
                text.push_str(&glue);
            }
            match write_value(args, part, row, &mut text) {
                true => first = false,
                false => text.truncate(before),
            }
        }
        Some(text)
    });
    Text::collect(joined.collect())
}

/// `a || b`: arrays and jsonb join by their own rules, everything else as text.
fn concat_any(args: &Args) -> Result<arrow::array::ArrayRef> {
    use arrow::datatypes::DataType;

    let types = args.columns.iter().map(|c| c.array.data_type().clone());
    let types: Vec<DataType> = types.collect();
    match super::array_concat::concat_type(&types)? {
        DataType::List(item) => super::array_concat::concat(args, &item, NullAs::List),
        DataType::LargeUtf8 => {
            let style = &args.style;
            let json = |i: usize| -> Result<Column> {
                let column: &Column = &args.columns[i];
                let array = super::cast::cast_array(&column.array, &Jsonb::data_type(), style)?;
                Ok(Column {
                    array,
                    constant: column.constant,
                })
            };
            let (a, b) = (json(0)?, json(1)?);
            let (a, b) = (a.reader::<Jsonb>()?, b.reader::<Jsonb>()?);
            let joined = (0..args.rows).map(|row| match (a.get(row), b.get(row)) {
                (Some(a), Some(b)) => jsonb::concat(a, b).map(Some),
                _ => Ok(None),
            });
            Jsonb::collect(joined.collect::<Result<_>>()?)
        }
        _ => {
            let joined = (0..args.rows).map(|row| {
                let mut text = String::new();
                let both = args
                    .columns
                    .iter()
                    .all(|c| write_cast(args, c, row, &mut text));
                both.then_some(text)
            });
            Text::collect(joined.collect())
        }
    }
}

fn measures() -> Vec<Function> {
    let count = |n: usize| i32::try_from(n).map_err(|_| too_long());
    vec![
        Function::new(
            "char_length",
            vec![
                fn1::<Text, Int4, _>(move |s| count(s.chars().count())),
                fn1::<Bytea, Int4, _>(move |b| count(b.len())),
            ],
        )
        .alias("length")
        .alias("character_length"),
        Function::new(
            "octet_length",
            vec![
                fn1::<Text, Int4, _>(move |s| count(s.len())),
                fn1::<Bytea, Int4, _>(move |b| count(b.len())),
            ],
        ),
        Function::new(
            "bit_length",
            vec![
                fn1::<Text, Int4, _>(move |s| count(s.len() * 8)),
                fn1::<Bytea, Int4, _>(move |b| count(b.len() * 8)),
            ],
        ),
        Function::new(
            "ascii",
            vec![fn1::<Text, Int4, _>(|s| {
                s.chars().next().map_or(0, |c| u32::from(c) as i32)
            })],
        ),
        Function::new(
            "strpos",
            vec![fn2::<Text, Text, Int4, _>(|s, part| match s.find(part) {
                Some(at) => s[..at].chars().count() as i32 + 1,
                None => 0,
            })],
        )
        .alias("position")
        .alias("instr"),
        Function::new(
            "starts_with",
            vec![fn2::<Text, Text, Bool, _>(|s, p| s.starts_with(p))],
        )
        .operator("^@"),
        Function::new(
            "ends_with",
            vec![fn2::<Text, Text, Bool, _>(|s, p| s.ends_with(p))],
        ),
    ]
}

/// The byte at which the `n`th character starts, the text's end if there are fewer.
fn byte_of(s: &str, n: usize) -> usize {
    s.char_indices().nth(n).map_or(s.len(), |(at, _)| at)
}

/// `substring(s from start for len)`: start may lie before the text, and counts then too.
fn substring(s: &str, start: i32, len: Option<i32>) -> Result<String> {
    let start = i64::from(start) - 1;
    let end = match len {
        Some(len) if len < 0 => {
            let message = "negative substring length not allowed";
            return Err(Error::new(ErrorKind::Substring, message));
        }
        Some(len) => start + i64::from(len),
        None => i64::MAX,
    };
    let from = start.max(0) as usize;
    let count = (end.max(0) as usize).saturating_sub(from);
    Ok(s.chars().skip(from).take(count).collect())
}

fn byte_substring(bytes: &[u8], start: i32, len: Option<i32>) -> Result<Vec<u8>> {
    let start = i64::from(start) - 1;
    let end = match len {
        Some(len) if len < 0 => {
            let message = "negative substring length not allowed";
            return Err(Error::new(ErrorKind::Substring, message));
        }
        Some(len) => start + i64::from(len),
        None => i64::MAX,
    };
    let from = start.max(0) as usize;
    let count = (end.max(0) as usize).saturating_sub(from);
    Ok(bytes.iter().skip(from).take(count).copied().collect())
}

/// The first `n` characters; with a negative `n` all but the last.
fn left(s: &str, n: i32) -> String {
    let count = match n {
        0.. => n as usize,
        _ => s.chars().count().saturating_sub(n.unsigned_abs() as usize),
    };
    s[..byte_of(s, count)].to_string()
}

fn right(s: &str, n: i32) -> String {
    let skipped = match n {
        0.. => s.chars().count().saturating_sub(n as usize),
        _ => n.unsigned_abs() as usize,
    };
    s[byte_of(s, skipped)..].to_string()
}

/// Part `n` (from the end if negative) between separators.
fn split_part(s: &str, separator: &str, n: i32) -> Result<String> {
    if n == 0 {
        let message = "field position must not be zero";
        return Err(Error::new(ErrorKind::InvalidParameter, message));
    }
    let at = n.unsigned_abs() as usize - 1;
    let part = match (separator, n > 0) {
        ("", _) => (at == 0).then_some(s),
        (separator, true) => s.split(separator).nth(at),
        (separator, false) => s.rsplit(separator).nth(at),
    };
    Ok(part.unwrap_or_default().to_string())
}

fn cutting() -> Vec<Function> {
    vec![
        Function::new(
            "substr",
            vec![
                fn2::<Text, Int4, Text, _>(|s, start| substring(s, start, None)),
                fn3::<Text, Int4, Int4, Text, _>(|s, start, len| substring(s, start, Some(len))),
                fn2::<Bytea, Int4, Bytea, _>(|s, start| byte_substring(s, start, None)),
                fn3::<Bytea, Int4, Int4, Bytea, _>(|s, start, len| {
                    byte_substring(s, start, Some(len))
                }),
                fn2::<Text, Text, Text, _>(super::regex::substring),
            ],
        )
        .alias("substring"),
        Function::new("left", vec![fn2::<Text, Int4, Text, _>(left)]),
        Function::new("right", vec![fn2::<Text, Int4, Text, _>(right)]),
        Function::new(
            "split_part",
            vec![fn3::<Text, Text, Int4, Text, _>(split_part)],
        ),
        trim("btrim", |s, set| s.trim_matches(|c| set.contains(c))).alias("trim"),
        trim("ltrim", |s, set| s.trim_start_matches(|c| set.contains(c))),
        trim("rtrim", |s, set| s.trim_end_matches(|c| set.contains(c))),
    ]
}

fn trim(name: &str, cut: for<'a> fn(&'a str, &str) -> &'a str) -> Function {
    Function::new(
        name,
        vec![
            fn1::<Text, Text, _>(move |s| cut(s, " ").to_string()),
            fn2::<Text, Text, Text, _>(move |s, set| cut(s, set).to_string()),
        ],
    )
}

fn changing() -> Vec<Function> {
    vec![
        Function::new("upper", vec![fn1::<Text, Text, _>(str::to_uppercase)]),
        Function::new("lower", vec![fn1::<Text, Text, _>(str::to_lowercase)]),
        Function::new("initcap", vec![fn1::<Text, Text, _>(initcap)]),
        Function::new(
            "reverse",
            vec![fn1::<Text, Text, _>(|s| {
                s.chars().rev().collect::<String>()
            })],
        ),
        Function::new("repeat", vec![fn2::<Text, Int4, Text, _>(repeat)]),
        Function::new(
            "replace",
            vec![fn3::<Text, Text, Text, Text, _>(|s, from, to| match from {
                "" => s.to_string(),
                from => s.replace(from, to),
            })],
        ),
        Function::new(
            "translate",
            vec![fn3::<Text, Text, Text, Text, _>(translate)],
        ),
        Function::new("overlay", overlays()),
        pad("lpad", true),
        pad("rpad", false),
        Function::new("chr", vec![fn1::<Int4, Text, _>(chr)]),
        Function::new(
            "to_hex",
            vec![
                fn1::<Int4, Text, _>(|v| format!("{v:x}")),
                fn1::<Int8, Text, _>(|v| format!("{v:x}")),
            ],
        ),
        Function::new(
            "to_ascii",
            vec![fn1::<Text, Text, _>(|s| {
                s.chars().filter(char::is_ascii).collect::<String>()
            })],
        ),
        Function::new("like_escape", vec![fn2::<Text, Text, Text, _>(like_escape)]),
        Function::new("varchar_assign", vec![fn2::<Text, Int4, Text, _>(assign)]),
        Function::new("varchar_typmod", vec![fn2::<Text, Int4, Text, _>(left)]),
        Function::new("quote_literal", vec![fn1::<Text, Text, _>(quote_literal)]),
        Function::generic(
            "quote_nullable",
            1..=1,
            |_| Ok(Text::data_type()),
            |args| {
                let quoted = (0..args.rows).map(|row| {
                    let mut text = String::new();
                    let known = write_cast(args, &args.columns[0], row, &mut text);
                    Some(if known {
                        quote_literal(&text)
                    } else {
                        "NULL".to_string()
                    })
                });
                Text::collect(quoted.collect())
            },
        ),
        Function::new("quote_ident", vec![fn1::<Text, Text, _>(quote_ident)]),
        Function::new(
            "json_quote",
            vec![fn1::<Text, Text, _>(|s| {
                Json::String(s.to_string()).to_string()
            })],
        ),
    ]
}

fn initcap(s: &str) -> String {
    let mut in_word = false;
    let mut out = String::with_capacity(s.len());
    for c in s.chars() {
        match in_word {
            true => out.extend(c.to_lowercase()),
            false => out.extend(c.to_uppercase()),
        }
        in_word = c.is_alphanumeric();
    }
    out
}

fn repeat(s: &str, count: i32) -> Result<String> {
    let count = count.max(0) as usize;
    match s.len().saturating_mul(count) <= MAX_TEXT_BYTES {
        true => Ok(s.repeat(count)),
        false => Err(too_long()),
    }
}

fn translate(s: &str, from: &str, to: &str) -> String {
    let mapped = |c: char| match from.chars().position(|f| f == c) {
        None => Some(c),
        Some(at) => to.chars().nth(at),
    };
    s.chars().filter_map(mapped).collect()
}

fn overlays() -> Vec<Overload> {
    fn overlay(s: &str, part: &str, start: i32, len: i32) -> Result<String> {
        if start <= 0 {
            let message = "negative substring length not allowed";
            return Err(Error::new(ErrorKind::Substring, message));
        }
        let before = substring(s, 1, Some(start - 1))?;
        let after = substring(s, start.saturating_add(len), None)?;
        Ok(format!("{before}{part}{after}"))
    }
    let params = [
        Text::data_type(),
        Text::data_type(),
        Int4::data_type(),
        Int4::data_type(),
    ];
    vec![
        fn3::<Text, Text, Int4, Text, _>(|s, part, start| {
            overlay(s, part, start, part.chars().count() as i32)
        }),
        over(&params, Text::data_type(), |args| {
            let (s, part) = (
                args.columns[0].reader::<Text>()?,
                args.columns[1].reader::<Text>()?,
            );
            let (at, len) = (
                args.columns[2].reader::<Int4>()?,
                args.columns[3].reader::<Int4>()?,
            );
            let laid = (0..args.rows).map(|row| {
                match (s.get(row), part.get(row), at.get(row), len.get(row)) {
                    (Some(s), Some(part), Some(at), Some(len)) => {
                        overlay(s, part, at, len).map(Some)
                    }
                    _ => Ok(None),
                }
            });
            Text::collect(laid.collect::<Result<_>>()?)
        }),
    ]
}

fn pad(name: &str, in_front: bool) -> Function {
    let padded = move |s: &str, width: i32, fill: &str| {
        let width = width.max(0) as usize;
        if width.saturating_mul(4) > MAX_TEXT_BYTES {
            return Err(too_long());
        }
        let length = s.chars().count();
        if length >= width || fill.is_empty() {
            return Ok(s[..byte_of(s, width)].to_string());
        }
        let filling: String = fill.chars().cycle().take(width - length).collect();
        Ok(match in_front {
            true => filling + s,
            false => s.to_string() + &filling,
        })
    };
    Function::new(
        name,
        vec![
            fn2::<Text, Int4, Text, _>(move |s, width| padded(s, width, " ")),
            fn3::<Text, Int4, Text, Text, _>(padded),
        ],
    )
}

fn chr(code: i32) -> Result<String> {
    let invalid = |message: &str| Error::new(ErrorKind::OutOfRange, message.to_string());
    match u32::try_from(code) {
        Ok(0) => Err(invalid("null character not permitted")),
        Ok(code) => match char::from_u32(code) {
            Some(c) => Ok(c.to_string()),
            None => Err(invalid("requested character not valid for encoding")),
        },
        Err(_) => Err(invalid("character number must be positive")),
    }
}

pub(super) fn quote_literal(s: &str) -> String {
    let doubled = s.replace('\'', "''");
    match doubled.contains('\\') {
        true => format!("E'{}'", doubled.replace('\\', "\\\\")),
        false => format!("'{doubled}'"),
    }
}

pub(super) fn quote_ident(s: &str) -> String {
    let plain =
        |(i, c): (usize, char)| c.is_ascii_lowercase() || c == '_' || (i > 0 && c.is_ascii_digit());
    match !s.is_empty() && s.chars().enumerate().all(plain) && !is_reserved(s) {
        true => s.to_string(),
        false => format!("\"{}\"", s.replace('"', "\"\"")),
    }
}

/// The reserved words that people use as names.
fn is_reserved(word: &str) -> bool {
    const WORDS: [&str; 40] = [
        "all", "and", "any", "array", "as", "asc", "both", "case", "cast", "check", "column",
        "create", "default", "desc", "distinct", "do", "else", "end", "false", "for", "from",
        "grant", "group", "having", "in", "into", "limit", "not", "null", "offset", "on", "or",
        "order", "select", "table", "then", "true", "union", "user", "where",
    ];
    WORDS.contains(&word)
}

/// A pattern of LIKE whose escape is another character, with backslash as the escape.
fn like_escape(pattern: &str, escape: &str) -> String {
    let mut backslashed = String::with_capacity(pattern.len());
    let mut escaped = false;
    for character in pattern.chars() {
        if !escaped && escape.starts_with(character) {
            escaped = true;
            continue;
        }
        if escaped || character == '\\' {
            backslashed.push('\\');
        }
        escaped = false;
        backslashed.push(character);
    }
    backslashed
}

/// A text that goes to a column of at most so many characters; blanks at its end may be lost.
fn assign(text: &str, length: i32) -> Result<String> {
    let length = usize::try_from(length).unwrap_or(0);
    let end = text.char_indices().nth(length).map(|(at, _)| at);
    match end {
        None => Ok(text.to_string()),
        Some(end) if text[end..].chars().all(|c| c == ' ') => Ok(text[..end].to_string()),
        Some(_) => {
            let message = format!("value too long for type character varying({length})");
            Err(Error::new(ErrorKind::TooLong, message))
        }
    }
}
