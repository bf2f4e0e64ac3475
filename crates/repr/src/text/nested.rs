//! Text of arrays, `{1,NULL,"a b"}`, and of structs (PostgreSQL's records), `(1,"a b",)`.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ListArray, StructArray};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{DataType, FieldRef, Fields};

use super::{TextStyle, parse_texts, write_text};
use crate::{Error, ErrorKind, Result};

/// Arrays and structs within each other deeper than this are refused, for the stack's sake.
const MAX_DEPTH: usize = 64;

pub(super) fn write_list(items: &dyn Array, style: &TextStyle, out: &mut String) {
    let nested = matches!(items.data_type(), DataType::List(_));
    let mut item = String::new();
    out.push('{');
    for row in 0..items.len() {
        if row > 0 {
            out.push(',');
        }
        item.clear();
        if !write_text(items, row, style, &mut item) {
            out.push_str("NULL");
        } else if nested || !item_needs_quotes(&item) {
            out.push_str(&item);
        } else {
            out.push('"');
            for c in item.chars() {
                if matches!(c, '"' | '\\') {
                    out.push('\\');
                }
                out.push(c);
            }
            out.push('"');
        }
    }
    out.push('}');
}

fn item_needs_quotes(item: &str) -> bool {
    item.is_empty()
        || item.eq_ignore_ascii_case("null")
        || item.contains(|c: char| is_space(c) || matches!(c, '{' | '}' | ',' | '"' | '\\'))
}

pub(super) fn write_struct(array: &StructArray, row: usize, style: &TextStyle, out: &mut String) {
    let mut field = String::new();
    out.push('(');
    for (position, column) in array.columns().iter().enumerate() {
        if position > 0 {
            out.push(',');
        }
        field.clear();
        if !write_text(column, row, style, &mut field) {
            continue;
        }
        let special = |c: char| is_space(c) || matches!(c, '(' | ')' | ',' | '"' | '\\');
        if !field.is_empty() && !field.contains(special) {
            out.push_str(&field);
            continue;
        }
        out.push('"');
        for c in field.chars() {
            if matches!(c, '"' | '\\') {
                out.push(c);
            }
            out.push(c);
        }
        out.push('"');
    }
    out.push(')');
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r' | '\x0b' | '\x0c')
}

fn depth(ty: &DataType) -> usize {
    match ty {
        DataType::List(item) => 1 + depth(item.data_type()),
        DataType::Struct(fields) => {
            1 + fields
                .iter()
                .map(|f| depth(f.data_type()))
                .max()
                .unwrap_or(0)
        }
        _ => 0,
    }
}

/// Parses array literals of items of the field `item`.
pub(super) fn parse_lists(
    texts: &[Option<&str>],
    item: &FieldRef,
    style: &TextStyle,
) -> Result<ArrayRef> {
    if depth(item.data_type()) > MAX_DEPTH {
        return Err(Error::unsupported("arrays are nested too deeply"));
    }
    let nested = matches!(item.data_type(), DataType::List(_));
    let mut items: Vec<Option<String>> = vec![];
    let mut lengths = vec![];
    for text in texts {
        let before = items.len();
        if let Some(text) = text {
            split_list(text, nested, &mut items)?;
        }
        lengths.push(items.len() - before);
    }
    let items: Vec<Option<&str>> = items.iter().map(|i| i.as_deref()).collect();
    let values = parse_texts(&items, item.data_type(), style)?;
    Ok(Arc::new(ListArray::try_new(
        item.clone(),
        OffsetBuffer::from_lengths(lengths),
        values,
        Some(NullBuffer::from_iter(texts.iter().map(Option::is_some))),
    )?))
}

/// Appends the items of `{…}`, unquoted; with `nested`, an item is itself a `{…}`, kept whole.
fn split_list(text: &str, nested: bool, items: &mut Vec<Option<String>>) -> Result<()> {
    let malformed = |detail: &str| {
        let message = format!("malformed array literal: \"{text}\"");
        Error::new(ErrorKind::InvalidText, message).with_detail(detail)
    };
    let body = text.trim_matches(is_space);
    let body = body.strip_prefix('{').and_then(|b| b.strip_suffix('}'));
    let body =
        body.ok_or_else(|| malformed("Array value must start with \"{\" and end with \"}\"."))?;
    if body.trim_matches(is_space).is_empty() {
        return Ok(());
    }
    let mut rest = body.chars().peekable();
    loop {
        while rest.next_if(|&c| is_space(c)).is_some() {}
        let item = match rest.peek() {
            Some('{') if nested => take_braced(&mut rest).map(Some),
            Some('"') if !nested => take_quoted(&mut rest).map(Some),
            _ => take_plain(&mut rest),
        };
        items.push(item.ok_or_else(|| malformed("Unexpected array element."))?);
        while rest.next_if(|&c| is_space(c)).is_some() {}
        match rest.next() {
            None => return Ok(()),
            Some(',') => {}
            Some(_) => return Err(malformed("Unexpected array element.")),
        }
    }
}

type Chars<'a> = std::iter::Peekable<std::str::Chars<'a>>;

/// An inner `{…}` with its braces, quotes and escapes as they stand.
fn take_braced(rest: &mut Chars) -> Option<String> {
    let mut item = String::new();
    let mut open = 0usize;
    let mut quoted = false;
    loop {
        let c = rest.next()?;
        item.push(c);
        match c {
            '\\' => item.push(rest.next()?),
            '"' => quoted = !quoted,
            '{' if !quoted => open += 1,
            '}' if !quoted => open -= 1,
            _ => {}
        }
        if open == 0 {
            return Some(item);
        }
    }
}

fn take_quoted(rest: &mut Chars) -> Option<String> {
    rest.next()?;
    let mut item = String::new();
    loop {
        match rest.next()? {
            '"' => return Some(item),
            '\\' => item.push(rest.next()?),
            c => item.push(c),
        }
    }
}

/// An unquoted item: `Some(None)` for NULL, `None` if it is malformed.
fn take_plain(rest: &mut Chars) -> Option<Option<String>> {
    let mut item = String::new();
    let mut escaped = false;
    while let Some(&c) = rest.peek() {
        match c {
            ',' => break,
            '{' | '}' | '"' => return None,
            '\\' => {
                rest.next();
                escaped = true;
                item.push(rest.next()?);
            }
            c => {
                rest.next();
                item.push(c);
            }
        }
    }
    item.truncate(item.trim_end_matches(is_space).len());
    if item.is_empty() {
        return None;
    }
    let null = !escaped && item.eq_ignore_ascii_case("null");
    Some((!null).then_some(item))
}

/// Parses record literals into the fields `fields`.
pub(super) fn parse_structs(
    texts: &[Option<&str>],
    fields: &Fields,
    style: &TextStyle,
) -> Result<ArrayRef> {
    if fields.iter().any(|f| depth(f.data_type()) > MAX_DEPTH) {
        return Err(Error::unsupported("structs are nested too deeply"));
    }
    let rows = texts.iter();
    let rows = rows.map(|text| {
        text.map(|text| split_struct(text, fields.len()))
            .transpose()
    });
    let rows = rows.collect::<Result<Vec<_>>>()?;
    let mut columns = vec![];
    for (position, field) in fields.iter().enumerate() {
        let values: Vec<Option<&str>> = rows
            .iter()
            .map(|row| row.as_ref().and_then(|row| row[position].as_deref()))
            .collect();
        columns.push(parse_texts(&values, field.data_type(), style)?);
    }
    let nulls = NullBuffer::from_iter(texts.iter().map(Option::is_some));
    Ok(Arc::new(StructArray::try_new_with_length(
        fields.clone(),
        columns,
        Some(nulls),
        texts.len(),
    )?))
}

fn split_struct(text: &str, width: usize) -> Result<Vec<Option<String>>> {
    let malformed = |detail: &str| {
        let message = format!("malformed record literal: \"{text}\"");
        Error::new(ErrorKind::InvalidText, message).with_detail(detail)
    };
    let body = text.trim_matches(is_space).strip_prefix('(');
    let body = body.ok_or_else(|| malformed("Missing left parenthesis."))?;
    let mut rest = body.chars().peekable();
    let mut fields = vec![];
    if width == 0 && rest.next_if_eq(&')').is_some() {
        return Ok(fields);
    }
    loop {
        fields.push(take_field(&mut rest).ok_or_else(|| malformed("Unexpected end of input."))?);
        match rest.next() {
            Some(',') => {}
            Some(')') => break,
            _ => return Err(malformed("Unexpected end of input.")),
        }
    }
    if rest.next().is_some() {
        return Err(malformed("Junk after right parenthesis."));
    }
    match fields.len().cmp(&width) {
        std::cmp::Ordering::Less => Err(malformed("Too few columns.")),
        std::cmp::Ordering::Greater => Err(malformed("Too many columns.")),
        std::cmp::Ordering::Equal => Ok(fields),
    }
}

/// One field up to its `,` or `)`; nothing at all is NULL, `""` the empty string.
fn take_field(rest: &mut Chars) -> Option<Option<String>> {
    let mut field = None::<String>;
    let mut quoted = false;
    loop {
        let c = *rest.peek()?;
        if !quoted && matches!(c, ',' | ')') {
            return Some(field);
        }
        rest.next();
        let field = field.get_or_insert_default();
        match c {
            '\\' => field.push(rest.next()?),
            '"' if !quoted => quoted = true,
            '"' if rest.next_if_eq(&'"').is_some() => field.push('"'),
            '"' => quoted = false,
            c => field.push(c),
        }
    }
}
