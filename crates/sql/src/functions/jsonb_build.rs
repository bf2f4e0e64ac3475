//! jsonb made from SQL values, and functions over whole documents.

use arrow::array::cast::AsArray;
use arrow::array::{Array, ArrayRef};
use arrow::datatypes::DataType;
use ruslo_repr::schema::list_of;
use ruslo_repr::text::json::{Json, write_string};
use ruslo_repr::text::{TextStyle, write_cast_text, write_text};
use ruslo_repr::{Error, ErrorKind, Result};

use super::jsonb::{texts_at, walk};
use super::overload::{Args, Function, fn1, over};
use super::types::*;

pub(super) fn functions() -> Vec<Function> {
    let jsonb = |_: &[DataType]| Ok(Jsonb::data_type());
    vec![
        Function::generic("to_jsonb", 1..=1, jsonb, |args| {
            let column = &args.columns[0];
            each_row(args, |row| {
                if column.array.is_null(column.at(row)) || column.array.data_type().is_null() {
                    return Ok(None);
                }
                value_of(&column.array, column.at(row), &args.style).map(Some)
            })
        })
        .alias("to_json")
        .alias("row_to_json")
        .alias("array_to_json"),
        Function::generic("jsonb_build_array", 0..=usize::MAX, jsonb, |args| {
            each_row(args, |row| {
                let items = args.columns.iter();
                let items = items.map(|c| value_of(&c.array, c.at(row), &args.style));
                Ok(Some(Json::Array(items.collect::<Result<_>>()?)))
            })
        })
        .alias("json_build_array"),
        Function::generic("jsonb_build_object", 0..=usize::MAX, jsonb, build_object)
            .alias("json_build_object"),
        Function::new("jsonb_object", object_overloads()).alias("json_object"),
        Function::new(
            "jsonb_typeof",
            vec![fn1::<Jsonb, Text, _>(|json| {
                Ok(Json::parse(json)?.type_name().to_string())
            })],
        )
        .alias("json_typeof"),
        Function::new(
            "jsonb_array_length",
            vec![fn1::<Jsonb, Int4, _>(array_length)],
        )
        .alias("json_array_length"),
        Function::new(
            "jsonb_strip_nulls",
            vec![fn1::<Jsonb, Jsonb, _>(|json| {
                let mut json = Json::parse(json)?;
                strip_nulls(&mut json);
                Ok(json.to_string())
            })],
        )
        .alias("json_strip_nulls"),
        Function::new(
            "jsonb_pretty",
            vec![fn1::<Jsonb, Text, _>(|json| {
                let mut out = String::new();
                pretty(&Json::parse(json)?, 0, &mut out);
                Ok(out)
            })],
        ),
        extract_path("jsonb_extract_path", Jsonb::data_type()).alias("json_extract_path"),
        extract_path("jsonb_extract_path_text", Text::data_type()).alias("json_extract_path_text"),
        set_path("jsonb_set"),
        set_path("jsonb_insert"),
        Function::new(
            "jsonb_object_keys_array",
            vec![over(
                &[Jsonb::data_type()],
                list_of(Text::data_type()),
                object_keys,
            )],
        ),
    ]
}

fn each_row(args: &Args, f: impl Fn(usize) -> Result<Option<Json>>) -> Result<ArrayRef> {
    let values = (0..args.rows).map(|row| Ok(f(row)?.map(|json| json.to_string())));
    Jsonb::collect(values.collect::<Result<_>>()?)
}

/// A SQL value as JSON: NULL as null, dates and times in ISO 8601, what JSON lacks as text.
pub(super) fn value_of(array: &ArrayRef, row: usize, style: &TextStyle) -> Result<Json> {
    if array.is_null(row) || array.data_type().is_null() {
        return Ok(Json::Null);
    }
    let text = |array: &ArrayRef| {
        let mut text = String::new();
        write_text(array, row, style, &mut text);
        text
    };
    Ok(match array.data_type() {
        DataType::Boolean => Json::Bool(array.as_boolean().value(row)),
        DataType::LargeUtf8 => Json::parse(array.as_string::<i64>().value(row))?,
        ty if super::coerce::is_number(ty) => Json::number(&text(array)),
        DataType::Timestamp(_, None) => Json::String(text(array).replacen(' ', "T", 1)),
        DataType::Timestamp(_, Some(_)) => {
            // ISO 8601 in JSON wants the minutes of the offset.
            let micros = array.as_primitive::<arrow::array::types::TimestampMicrosecondType>();
            let offset = style.time_zone.offset_at(micros.value(row));
            let mut short = String::new();
            ruslo_repr::text::write_offset(offset, &mut short);
            let mut iso = text(array).replacen(' ', "T", 1);
            if short.len() == 3 {
                iso.push_str(":00");
            }
            Json::String(iso)
        }
        DataType::List(_) => {
            let items = array.as_list::<i32>().value(row);
            let items = (0..items.len()).map(|i| value_of(&items, i, style));
            Json::Array(items.collect::<Result<_>>()?)
        }
        DataType::Struct(fields) => {
            let columns = array.as_struct().columns().iter().zip(fields.iter());
            let fields = columns
                .map(|(column, field)| Ok((field.name().clone(), value_of(column, row, style)?)));
            Json::object(fields.collect::<Result<_>>()?)
        }
        _ => Json::String(text(array)),
    })
}

fn build_object(args: &Args) -> Result<ArrayRef> {
    if !args.columns.len().is_multiple_of(2) {
        let message = "argument list must have even number of elements";
        return Err(Error::new(ErrorKind::InvalidParameter, message).with_hint(
            "The arguments of jsonb_build_object() must consist of alternating keys and values.",
        ));
    }
    each_row(args, |row| {
        let pairs = args.columns.chunks_exact(2).enumerate();
        let fields = pairs.map(|(i, pair)| {
            let mut key = String::new();
            if !write_cast_text(&pair[0].array, pair[0].at(row), &args.style, &mut key) {
                let message = format!("argument {}: key must not be null", 2 * i + 1);
                return Err(Error::new(ErrorKind::InvalidParameter, message));
            }
            let value = value_of(&pair[1].array, pair[1].at(row), &args.style)?;
            Ok((key, value))
        });
        Ok(Some(Json::object(fields.collect::<Result<_>>()?)))
    })
}

/// `jsonb_object(keys_and_values)` and `jsonb_object(keys, values)` over arrays of texts.
fn object_overloads() -> Vec<super::overload::Overload> {
    fn object(keys: Vec<Option<String>>, values: Vec<Option<String>>) -> Result<Json> {
        if keys.len() != values.len() {
            let message = "mismatched array dimensions";
            return Err(Error::new(ErrorKind::InvalidParameter, message));
        }
        let fields = keys.into_iter().zip(values).map(|(key, value)| {
            let key = key.ok_or_else(|| {
                let message = "null value not allowed for object key";
                Error::new(ErrorKind::InvalidParameter, message)
            })?;
            Ok((key, value.map_or(Json::Null, Json::String)))
        });
        Ok(Json::object(fields.collect::<Result<_>>()?))
    }
    let texts = list_of(Text::data_type());
    vec![
        over(std::slice::from_ref(&texts), Jsonb::data_type(), |args| {
            each_row(args, |row| {
                let Some(all) = texts_at(&args.columns[0], row)? else {
                    return Ok(None);
                };
                if !all.len().is_multiple_of(2) {
                    let message = "array must have even number of elements";
                    return Err(Error::new(ErrorKind::InvalidParameter, message));
                }
                let keys = all.iter().step_by(2).cloned().collect();
                let values = all.iter().skip(1).step_by(2).cloned().collect();
                object(keys, values).map(Some)
            })
        }),
        over(&[texts.clone(), texts], Jsonb::data_type(), |args| {
            each_row(args, |row| {
                let keys = texts_at(&args.columns[0], row)?;
                match (keys, texts_at(&args.columns[1], row)?) {
                    (Some(keys), Some(values)) => object(keys, values).map(Some),
                    _ => Ok(None),
                }
            })
        }),
    ]
}

fn array_length(json: &str) -> Result<i32> {
    let error = |what: &str| {
        let message = format!("cannot get array length of {what}");
        Err(Error::new(ErrorKind::InvalidParameter, message))
    };
    match Json::parse(json)? {
        Json::Array(items) => Ok(items.len() as i32),
        Json::Object(_) => error("a non-array"),
        _ => error("a scalar"),
    }
}

fn strip_nulls(json: &mut Json) {
    match json {
        Json::Object(fields) => {
            fields.retain(|(_, value)| *value != Json::Null);
            fields.iter_mut().for_each(|(_, value)| strip_nulls(value));
        }
        Json::Array(items) => items.iter_mut().for_each(strip_nulls),
        _ => {}
    }
}

/// One value per line, four spaces to a level.
fn pretty(json: &Json, depth: usize, out: &mut String) {
    let indent = |out: &mut String, depth: usize| {
        out.push('\n');
        out.extend(std::iter::repeat_n(' ', depth * 4));
    };
    match json {
        Json::Array(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                indent(out, depth + 1);
                pretty(item, depth + 1, out);
            }
            indent(out, depth);
            out.push(']');
        }
        Json::Object(fields) => {
            out.push('{');
            for (i, (key, value)) in fields.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                indent(out, depth + 1);
                // Writing to a String cannot fail.
                let _ = write_string(key, out);
                out.push_str(": ");
                pretty(value, depth + 1, out);
            }
            indent(out, depth);
            out.push('}');
        }
        scalar => out.push_str(&scalar.to_string()),
    }
}

/// `jsonb_extract_path(json, step, …)`.
fn extract_path(name: &str, returns: DataType) -> Function {
    let as_text = returns == Text::data_type();
    let eval = move |args: &Args| {
        let json = args.columns[0].reader::<Jsonb>()?;
        let steps = args.columns[1..].iter().map(|c| c.reader::<Text>());
        let steps = steps.collect::<Result<Vec<_>>>()?;
        let values = (0..args.rows).map(|row| {
            let path = steps
                .iter()
                .map(|s| s.get(row).map(|s| Some(s.to_string())));
            let (Some(json), Some(path)) = (json.get(row), path.collect::<Option<Vec<_>>>()) else {
                return Ok(None);
            };
            let json = Json::parse(json)?;
            let found = walk(&json, &path);
            Ok(match as_text {
                true => found.cloned().and_then(Json::into_text),
                false => found.map(Json::to_string),
            })
        });
        let values = values.collect::<Result<Vec<_>>>()?;
        if as_text {
            Text::collect(values)
        } else {
            Jsonb::collect(values)
        }
    };
    let params = [Jsonb::data_type(), Text::data_type()];
    Function::new(name, vec![over(&params, returns, eval).variadic()])
}

/// `jsonb_set` and `jsonb_insert`: `(target, path, value[, flag])`.
fn set_path(name: &'static str) -> Function {
    let insert = name == "jsonb_insert";
    let eval = move |args: &Args| {
        let target = args.columns[0].reader::<Jsonb>()?;
        let value = args.columns[2].reader::<Jsonb>()?;
        let flag = args
            .columns
            .get(3)
            .map(|c| c.reader::<Bool>())
            .transpose()?;
        each_row(args, |row| {
            let path = texts_at(&args.columns[1], row)?;
            let (Some(target), Some(path), Some(value)) = (target.get(row), path, value.get(row))
            else {
                return Ok(None);
            };
            // For jsonb_set: create what is missing. For jsonb_insert: behind, not before.
            let flag = match &flag {
                Some(flag) => match flag.get(row) {
                    Some(flag) => flag,
                    None => return Ok(None),
                },
                None => !insert,
            };
            let mut json = Json::parse(target)?;
            if !matches!(json, Json::Object(_) | Json::Array(_)) {
                let message = "cannot set path in scalar";
                return Err(Error::new(ErrorKind::InvalidParameter, message));
            }
            let how = Placing { insert, flag };
            place(&mut json, &path, Json::parse(value)?, how)?;
            Ok(Some(json))
        })
    };
    let params = [
        Jsonb::data_type(),
        list_of(Text::data_type()),
        Jsonb::data_type(),
        DataType::Boolean,
    ];
    let overloads = vec![
        over(&params[..3], Jsonb::data_type(), eval),
        over(&params, Jsonb::data_type(), eval),
    ];
    Function::new(name, overloads)
}

#[derive(Clone, Copy)]
struct Placing {
    insert: bool,
    flag: bool,
}

fn place(json: &mut Json, path: &[Option<String>], value: Json, how: Placing) -> Result<()> {
    let Some((Some(step), rest)) = path.split_first() else {
        return Ok(());
    };
    match json {
        Json::Object(fields) => {
            let found = fields.iter_mut().find(|(key, _)| key == step);
            match (found, rest) {
                (Some(_), []) if how.insert => {
                    let message = "cannot replace existing key";
                    return Err(Error::new(ErrorKind::InvalidParameter, message)
                        .with_hint("Try using the function jsonb_set to replace key value."));
                }
                (Some((_, old)), []) => *old = value,
                (Some((_, inner)), rest) => place(inner, rest, value, how)?,
                (None, []) if how.insert || how.flag => {
                    let mut all = std::mem::take(fields);
                    all.push((step.clone(), value));
                    *json = Json::object(all);
                }
                (None, _) => {}
            }
        }
        Json::Array(items) => place_item(items, step, rest, value, how)?,
        _ => {}
    }
    Ok(())
}

fn place_item(
    items: &mut Vec<Json>,
    step: &str,
    rest: &[Option<String>],
    value: Json,
    how: Placing,
) -> Result<()> {
    let at: i64 = step.parse().map_err(|_| {
        let message = format!("path element at position 1 is not an integer: \"{step}\"");
        Error::new(ErrorKind::InvalidText, message)
    })?;
    let length = items.len() as i64;
    let from_start = if at < 0 { at + length } else { at };
    let inside = (0..length).contains(&from_start);
    match (rest, inside) {
        ([], true) if how.insert => {
            items.insert((from_start + i64::from(how.flag)) as usize, value);
        }
        ([], true) => items[from_start as usize] = value,
        ([], false) if how.insert || how.flag => {
            let end = if from_start < 0 { 0 } else { items.len() };
            items.insert(end, value);
        }
        (rest, true) => place(&mut items[from_start as usize], rest, value, how)?,
        _ => {}
    }
    Ok(())
}

fn object_keys(args: &Args) -> Result<ArrayRef> {
    let json = args.columns[0].reader::<Jsonb>()?;
    let lists = (0..args.rows).map(|row| match json.get(row).map(Json::parse).transpose()? {
        None => Ok(None),
        Some(Json::Object(fields)) => {
            Ok(Some(fields.into_iter().map(|(key, _)| Some(key)).collect()))
        }
        Some(other) => {
            let what = if matches!(other, Json::Array(_)) {
                "an array"
            } else {
                "a scalar"
            };
            let message = format!("cannot call jsonb_object_keys on {what}");
            Err(Error::new(ErrorKind::InvalidParameter, message))
        }
    });
    super::regex::text_lists(lists.collect::<Result<_>>()?)
}
