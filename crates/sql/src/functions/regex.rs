//! Regular expressions, by the `regex` crate: linear time, no back references or look-around.

use std::cell::RefCell;
use std::collections::HashMap;

use arrow::array::{Array, ArrayRef, ListArray, StringArray};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{DataType, Field};
use regex::{Regex, RegexBuilder};
use ruslo_repr::schema::list_of;
use ruslo_repr::{Error, ErrorKind, Result};
use std::sync::Arc;

use super::overload::{Args, Function, Overload, fn2, fn3, over};
use super::types::*;

/// Compiled expressions that a thread keeps; beyond so many it starts anew.
const MAX_CACHED: usize = 64;

thread_local! {
    /// By pattern, then by flags.
    static CACHE: RefCell<HashMap<String, HashMap<String, Regex>>> = RefCell::new(HashMap::new());
}

/// The expression with PostgreSQL's flags (`i`, `c`, `n`, `m`, `s`, `x`; `g` is the caller's).
fn compile(pattern: &str, flags: &str) -> Result<Regex> {
    let known = CACHE.with_borrow(|cache| cache.get(pattern)?.get(flags).cloned());
    if let Some(regex) = known {
        return Ok(regex);
    }
    let mut builder = RegexBuilder::new(pattern);
    // A point matches line ends too unless the flag n (or m) says otherwise.
    builder.dot_matches_new_line(true).size_limit(1 << 20);
    for flag in flags.chars() {
        match flag {
            'i' => builder.case_insensitive(true),
            'c' => builder.case_insensitive(false),
            'n' | 'm' => builder.multi_line(true).dot_matches_new_line(false),
            's' => builder.dot_matches_new_line(true),
            'x' => builder.ignore_whitespace(true),
            'g' => &mut builder,
            other => {
                let message = format!("invalid regular expression option: \"{other}\"");
                return Err(Error::new(ErrorKind::InvalidParameter, message));
            }
        };
    }
    let regex = builder.build().map_err(|error| {
        let message = "invalid regular expression";
        Error::new(ErrorKind::InvalidParameter, message).with_detail(error.to_string())
    })?;
    CACHE.with_borrow_mut(|cache| {
        if cache.len() >= MAX_CACHED {
            cache.clear();
        }
        let by_flags = cache.entry(pattern.to_string()).or_default();
        by_flags.insert(flags.to_string(), regex.clone());
    });
    Ok(regex)
}

pub(super) fn functions() -> Vec<Function> {
    let matches = |s: &str, pattern: &str, flags: &str| Ok(compile(pattern, flags)?.is_match(s));
    let count = |s: &str, pattern: &str| Ok(compile(pattern, "")?.find_iter(s).count() as i32);
    let operator = |name: &str, symbol, flags: &'static str, wanted: bool| {
        let matches = move |s: &str, p: &str| Ok(compile(p, flags)?.is_match(s) == wanted);
        Function::new(name, vec![fn2::<Text, Text, Bool, Result<bool>>(matches)]).operator(symbol)
    };
    vec![
        operator("op_regex_match", "~", "", true),
        operator("op_regex_imatch", "~*", "i", true),
        operator("op_regex_not_match", "!~", "", false),
        operator("op_regex_not_imatch", "!~*", "i", false),
        Function::new(
            "regexp_like",
            vec![
                fn2::<Text, Text, Bool, Result<bool>>(move |s, p| matches(s, p, "")),
                fn3::<Text, Text, Text, Bool, Result<bool>>(matches),
            ],
        ),
        Function::new(
            "regexp_count",
            vec![fn2::<Text, Text, Int4, Result<i32>>(count)],
        ),
        Function::new("regexp_match", lists(first_match)),
        Function::new("regexp_split_to_array", lists(split)),
        Function::new("regexp_replace", replacements()),
        Function::new("regexp_substr", vec![fn2::<Text, Text, Text, _>(substring)]),
    ]
}

/// The first group's match, or without groups the whole match.
pub(super) fn substring(s: &str, pattern: &str) -> Result<Option<String>> {
    let captures = compile(pattern, "")?;
    let captures = captures.captures(s);
    Ok(captures.and_then(|captures| {
        let group = if captures.len() > 1 {
            captures.get(1)
        } else {
            captures.get(0)
        };
        group.map(|found| found.as_str().to_string())
    }))
}

type Texts = Vec<Option<String>>;

fn first_match(s: &str, regex: &Regex) -> Option<Texts> {
    let captures = regex.captures(s)?;
    let text = |i: usize| captures.get(i).map(|found| found.as_str().to_string());
    Some(match captures.len() {
        1 => vec![text(0)],
        groups => (1..groups).map(text).collect(),
    })
}

fn split(s: &str, regex: &Regex) -> Option<Texts> {
    Some(regex.split(s).map(|part| Some(part.to_string())).collect())
}

/// Overloads `(text, pattern[, flags])` that give arrays of texts.
fn lists(f: fn(&str, &Regex) -> Option<Texts>) -> Vec<Overload> {
    let eval = move |args: &Args| -> Result<ArrayRef> {
        let (s, pattern) = (
            args.columns[0].reader::<Text>()?,
            args.columns[1].reader::<Text>()?,
        );
        let flags = args
            .columns
            .get(2)
            .map(|c| c.reader::<Text>())
            .transpose()?;
        let rows = (0..args.rows).map(|row| {
            let flags = flags.as_ref().map_or(Some(""), |flags| flags.get(row));
            match (s.get(row), pattern.get(row), flags) {
                (Some(s), Some(pattern), Some(flags)) => Ok(f(s, &compile(pattern, flags)?)),
                _ => Ok(None),
            }
        });
        text_lists(rows.collect::<Result<_>>()?)
    };
    let text = Text::data_type();
    vec![
        over(&[text.clone(), text.clone()], list_of(text.clone()), eval),
        over(
            &[text.clone(), text.clone(), text.clone()],
            list_of(text),
            eval,
        ),
    ]
}

/// An array of arrays of texts.
pub(super) fn text_lists(rows: Vec<Option<Texts>>) -> Result<ArrayRef> {
    let nulls = NullBuffer::from_iter(rows.iter().map(Option::is_some));
    let lengths: Vec<usize> = rows
        .iter()
        .map(|row| row.as_ref().map_or(0, Vec::len))
        .collect();
    let items: StringArray = rows.into_iter().flatten().flatten().collect();
    let field = Arc::new(Field::new("item", DataType::Utf8, true));
    let offsets = OffsetBuffer::from_lengths(lengths);
    let list = ListArray::try_new(field, offsets, Arc::new(items), Some(nulls))?;
    debug_assert_eq!(*list.data_type(), list_of(DataType::Utf8));
    Ok(Arc::new(list))
}

fn replacements() -> Vec<Overload> {
    let text = Text::data_type();
    let eval = |args: &Args| -> Result<ArrayRef> {
        let texts = args.columns.iter().map(|c| c.reader::<Text>());
        let texts = texts.collect::<Result<Vec<_>>>()?;
        let replaced = (0..args.rows).map(|row| {
            let values = texts.iter().map(|t| t.get(row)).collect::<Option<Vec<_>>>();
            let Some(values) = values else {
                return Ok(None);
            };
            let flags = values.get(3).copied().unwrap_or("");
            let regex = compile(values[1], flags)?;
            let template = rust_template(values[2]);
            Ok(Some(match flags.contains('g') {
                true => regex.replace_all(values[0], template.as_str()).into_owned(),
                false => regex.replace(values[0], template.as_str()).into_owned(),
            }))
        });
        Text::collect(replaced.collect::<Result<_>>()?)
    };
    let three = [text.clone(), text.clone(), text.clone()];
    let four = [text.clone(), text.clone(), text.clone(), text.clone()];
    vec![over(&three, text.clone(), eval), over(&four, text, eval)]
}

/// PostgreSQL's `\1` and `\&` as `${1}` and `${0}`.
fn rust_template(template: &str) -> String {
    let mut out = String::with_capacity(template.len());
    let mut rest = template.chars();
    while let Some(c) = rest.next() {
        match c {
            '$' => out.push_str("$$"),
            '\\' => match rest.next() {
                Some('&') => out.push_str("${0}"),
                Some(digit @ '0'..='9') => {
                    out.push_str("${");
                    out.push(digit);
                    out.push('}');
                }
                Some('\\') | None => out.push('\\'),
                Some(other) => {
                    out.push('\\');
                    out.push(other);
                }
            },
            c => out.push(c),
        }
    }
    out
}
