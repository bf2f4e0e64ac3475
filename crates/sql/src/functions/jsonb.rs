//! Operators on jsonb: fields, paths, containment, concatenation and deletion.

use ruslo_repr::text::json::Json;
use ruslo_repr::{Error, ErrorKind, Result};

use super::overload::{Args, Function, Overload, fn2, over};
use super::types::*;

pub(super) fn functions() -> Vec<Function> {
    vec![
        Function::new(
            "op_json_get",
            vec![
                fn2::<Jsonb, Text, Jsonb, _>(|json, key| {
                    Ok(Json::parse(json)?.get(key).map(Json::to_string))
                }),
                fn2::<Jsonb, Int4, Jsonb, _>(|json, index| {
                    Ok(item_of(&Json::parse(json)?, index).map(Json::to_string))
                }),
            ],
        )
        .operator("->")
        .alias("jsonb_object_field")
        .alias("jsonb_array_element"),
        Function::new(
            "op_json_get_text",
            vec![
                fn2::<Jsonb, Text, Text, _>(|json, key| {
                    Ok(Json::parse(json)?
                        .get(key)
                        .cloned()
                        .and_then(Json::into_text))
                }),
                fn2::<Jsonb, Int4, Text, _>(|json, index| {
                    let json = Json::parse(json)?;
                    Ok(item_of(&json, index).cloned().and_then(Json::into_text))
                }),
            ],
        )
        .operator("->>")
        .alias("jsonb_object_field_text")
        .alias("jsonb_array_element_text"),
        Function::new(
            "op_json_path",
            vec![by_path(Jsonb::data_type(), |json| Some(json.to_string()))],
        )
        .operator("#>"),
        Function::new(
            "op_json_path_text",
            vec![by_path(Text::data_type(), |json| json.clone().into_text())],
        )
        .operator("#>>"),
        Function::new(
            "op_json_contains",
            vec![fn2::<Jsonb, Jsonb, Bool, _>(|a, b| {
                Ok(contains(&Json::parse(a)?, &Json::parse(b)?, true))
            })],
        )
        .operator("@>")
        .alias("jsonb_contains"),
        Function::new(
            "op_json_exists",
            vec![fn2::<Jsonb, Text, Bool, _>(|json, key| {
                Ok(exists(&Json::parse(json)?, key))
            })],
        )
        .operator("?")
        .alias("jsonb_exists"),
        exists_many("op_json_exists_any", "?|", |found| found.contains(&true)),
        exists_many("op_json_exists_all", "?&", |found| !found.contains(&false)),
        Function::new("op_json_delete_path", vec![delete_path()])
            .operator("#-")
            .alias("jsonb_delete_path"),
    ]
}

/// The item of an array; a scalar counts as an array of one.
fn item_of(json: &Json, index: i32) -> Option<&Json> {
    match json {
        Json::Array(_) => json.item(index.into()),
        Json::Object(_) => None,
        scalar => matches!(index, 0 | -1).then_some(scalar),
    }
}

/// The texts of a `varchar[]` in one row; `None` if the array is NULL.
pub(super) fn texts_at(column: &Column, row: usize) -> Result<Option<Vec<Option<String>>>> {
    use arrow::array::Array;
    use arrow::array::cast::AsArray;

    let list = column.array.as_list_opt::<i32>();
    let list = list.ok_or_else(|| Error::internal("a function wants an array of texts"))?;
    let at = column.at(row);
    if list.is_null(at) {
        return Ok(None);
    }
    let items = list.value(at);
    let texts = items.as_string_opt::<i32>();
    let texts = texts.ok_or_else(|| Error::internal("a function wants an array of texts"))?;
    Ok(Some(
        texts.iter().map(|text| text.map(str::to_string)).collect(),
    ))
}

fn text_list() -> arrow::datatypes::DataType {
    ruslo_repr::schema::list_of(Text::data_type())
}

/// The value at a path of keys and positions; a NULL in the path finds nothing.
pub(super) fn walk<'a>(json: &'a Json, path: &[Option<String>]) -> Option<&'a Json> {
    path.iter().try_fold(json, |json, step| {
        let step = step.as_deref()?;
        match json {
            Json::Array(_) => json.item(step.parse().ok()?),
            _ => json.get(step),
        }
    })
}

fn by_path(
    returns: arrow::datatypes::DataType,
    show: impl Fn(&Json) -> Option<String> + Send + Sync + 'static,
) -> Overload {
    let as_text = returns == Text::data_type();
    over(&[Jsonb::data_type(), text_list()], returns, move |args| {
        let json = args.columns[0].reader::<Jsonb>()?;
        let values = (0..args.rows).map(|row| {
            let (Some(json), Some(path)) = (json.get(row), texts_at(&args.columns[1], row)?) else {
                return Ok(None);
            };
            Ok(walk(&Json::parse(json)?, &path).and_then(&show))
        });
        let values = values.collect::<Result<Vec<_>>>()?;
        if as_text {
            Text::collect(values)
        } else {
            Jsonb::collect(values)
        }
    })
}

/// PostgreSQL's `@>`: objects by field, arrays as sets; at the top an array also contains a scalar.
fn contains(a: &Json, b: &Json, top: bool) -> bool {
    match (a, b) {
        (Json::Object(_), Json::Object(fields)) => fields
            .iter()
            .all(|(key, b)| a.get(key).is_some_and(|a| contains(a, b, false))),
        (Json::Array(items), Json::Array(wanted)) => wanted
            .iter()
            .all(|b| items.iter().any(|a| contains(a, b, false))),
        (Json::Array(items), b) if top && !matches!(b, Json::Object(_)) => {
            items.iter().any(|a| same(a, b))
        }
        (a, b) => same(a, b),
    }
}

/// Equality of scalars; numbers by value.
fn same(a: &Json, b: &Json) -> bool {
    match (a, b) {
        (Json::Number(a), Json::Number(b)) => {
            let plain = |digits: &str| match digits.contains('.') {
                true => digits
                    .trim_end_matches('0')
                    .trim_end_matches('.')
                    .to_string(),
                false => digits.to_string(),
            };
            plain(a) == plain(b)
        }
        (Json::Object(_) | Json::Array(_), _) | (_, Json::Object(_) | Json::Array(_)) => false,
        (a, b) => a == b,
    }
}

/// A key of an object, a string of an array, or the string itself.
fn exists(json: &Json, key: &str) -> bool {
    match json {
        Json::Object(_) => json.get(key).is_some(),
        Json::Array(items) => items
            .iter()
            .any(|i| matches!(i, Json::String(s) if s == key)),
        Json::String(text) => text == key,
        _ => false,
    }
}

fn exists_many(name: &str, symbol: &'static str, fold: fn(&[bool]) -> bool) -> Function {
    let eval = move |args: &Args| {
        let json = args.columns[0].reader::<Jsonb>()?;
        let values = (0..args.rows).map(|row| {
            let (Some(json), Some(keys)) = (json.get(row), texts_at(&args.columns[1], row)?) else {
                return Ok(None);
            };
            let json = Json::parse(json)?;
            let found = keys.iter().flatten().map(|key| exists(&json, key));
            let found: Vec<bool> = found.collect();
            Ok(Some(fold(&found)))
        });
        Bool::collect(values.collect::<Result<_>>()?)
    };
    let params = [Jsonb::data_type(), text_list()];
    Function::new(name, vec![over(&params, Bool::data_type(), eval)]).operator(symbol)
}

/// `||`: objects merge, the right one wins; arrays join; a scalar counts as an array of one.
pub(super) fn concat(a: &str, b: &str) -> Result<String> {
    let joined = match (Json::parse(a)?, Json::parse(b)?) {
        (Json::Object(mut a), Json::Object(b)) => {
            a.extend(b);
            Json::object(a)
        }
        (a, b) => {
            let mut items = into_items(a);
            items.extend(into_items(b));
            Json::Array(items)
        }
    };
    Ok(joined.to_string())
}

fn into_items(json: Json) -> Vec<Json> {
    match json {
        Json::Array(items) => items,
        other => vec![other],
    }
}

/// `jsonb - key`, `jsonb - keys` and `jsonb - position`.
pub(super) fn subtractions() -> Vec<Overload> {
    vec![
        fn2::<Jsonb, Text, Jsonb, _>(|json, key| delete_keys(json, &[Some(key.to_string())])),
        fn2::<Jsonb, Int4, Jsonb, _>(|json, at| {
            let mut json = Json::parse(json)?;
            delete_item(&mut json, at.into())?;
            Ok(json.to_string())
        }),
        over(
            &[Jsonb::data_type(), text_list()],
            Jsonb::data_type(),
            |args| {
                let json = args.columns[0].reader::<Jsonb>()?;
                let values = (0..args.rows).map(|row| {
                    match (json.get(row), texts_at(&args.columns[1], row)?) {
                        (Some(json), Some(keys)) => delete_keys(json, &keys).map(Some),
                        _ => Ok(None),
                    }
                });
                Jsonb::collect(values.collect::<Result<_>>()?)
            },
        ),
    ]
}

fn cannot_delete(what: &str) -> Error {
    Error::new(ErrorKind::InvalidParameter, format!("cannot delete {what}"))
}

fn delete_keys(json: &str, keys: &[Option<String>]) -> Result<String> {
    let wanted = |key: &str| keys.iter().flatten().any(|k| k == key);
    let mut json = Json::parse(json)?;
    match &mut json {
        Json::Object(fields) => fields.retain(|(key, _)| !wanted(key)),
        Json::Array(items) => {
            items.retain(|item| !matches!(item, Json::String(text) if wanted(text)))
        }
        _ => return Err(cannot_delete("from scalar")),
    }
    Ok(json.to_string())
}

fn delete_item(json: &mut Json, at: i64) -> Result<()> {
    match json {
        Json::Array(items) => {
            let from_start = if at < 0 { at + items.len() as i64 } else { at };
            if let Ok(at) = usize::try_from(from_start)
                && at < items.len()
            {
                items.remove(at);
            }
            Ok(())
        }
        Json::Object(_) => Err(cannot_delete("from object using integer index")),
        _ => Err(cannot_delete("from scalar")),
    }
}

fn delete_path() -> Overload {
    over(
        &[Jsonb::data_type(), text_list()],
        Jsonb::data_type(),
        |args| {
            let json = args.columns[0].reader::<Jsonb>()?;
            let values = (0..args.rows).map(|row| {
                let (Some(json), Some(path)) = (json.get(row), texts_at(&args.columns[1], row)?)
                else {
                    return Ok(None);
                };
                let mut json = Json::parse(json)?;
                if matches!(json, Json::Object(_) | Json::Array(_)) {
                    delete_at(&mut json, &path)?;
                } else {
                    return Err(cannot_delete("path in scalar"));
                }
                Ok(Some(json.to_string()))
            });
            Jsonb::collect(values.collect::<Result<_>>()?)
        },
    )
}

fn delete_at(json: &mut Json, path: &[Option<String>]) -> Result<()> {
    let Some((Some(step), rest)) = path.split_first() else {
        return Ok(());
    };
    match json {
        Json::Object(fields) => match rest {
            [] => fields.retain(|(key, _)| key != step),
            _ => {
                if let Some((_, value)) = fields.iter_mut().find(|(key, _)| key == step) {
                    delete_at(value, rest)?;
                }
            }
        },
        Json::Array(items) => {
            let at: i64 = step.parse().map_err(|_| {
                let message = format!("path element at position 1 is not an integer: \"{step}\"");
                Error::new(ErrorKind::InvalidText, message)
            })?;
            if rest.is_empty() {
                return delete_item(json, at);
            }
            let at = if at < 0 { at + items.len() as i64 } else { at };
            if let Some(item) = usize::try_from(at).ok().and_then(|at| items.get_mut(at)) {
                delete_at(item, rest)?;
            }
        }
        _ => {}
    }
    Ok(())
}
