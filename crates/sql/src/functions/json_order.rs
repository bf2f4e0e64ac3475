//! The order of jsonb as bytes: objects > arrays > booleans > numbers > strings > null.
//!
//! Of arrays and objects the longer one is greater; else their members decide, one by one. For
//! historical reasons an empty array is less than everything, at the top only.

use std::sync::Arc;

use arrow::array::cast::AsArray;
use arrow::array::{ArrayRef, BinaryArray};
use arrow::datatypes::DataType;
use ruslo_repr::schema::JSONB;
use ruslo_repr::text::json::Json;
use ruslo_repr::{Error, Numeric, Result};

use super::overload::Function;

/// A function from jsonb to bytea.
pub(super) fn function() -> Function {
    let typing = |types: &[DataType]| match types {
        [ty] if *ty == JSONB => Ok(DataType::Binary),
        _ => Err(Error::internal("json_order takes a jsonb")),
    };
    Function::generic("json_order", 1..=1, typing, |args| {
        let texts = args.columns[0].array.as_string::<i64>();
        let keys = texts.iter().map(|text| text.map(order_key).transpose());
        let keys = keys.collect::<Result<Vec<_>>>()?;
        Ok(Arc::new(BinaryArray::from_iter(keys)) as ArrayRef)
    })
}

fn order_key(text: &str) -> Result<Vec<u8>> {
    let json = Json::parse(text)?;
    let mut key = vec![];
    match &json {
        Json::Array(items) if items.is_empty() => key.push(0),
        json => write(json, &mut key),
    }
    Ok(key)
}

fn write(json: &Json, key: &mut Vec<u8>) {
    match json {
        Json::Null => key.push(1),
        Json::String(text) => {
            key.push(2);
            write_text(text, key);
        }
        Json::Number(digits) => {
            key.push(3);
            let out_of_range = match digits.starts_with('-') {
                true => Numeric::NegInfinity,
                false => Numeric::Infinity,
            };
            let number = digits.parse::<Numeric>().unwrap_or(out_of_range);
            key.extend(Numeric::key_bytes(&number.to_bytes()));
        }
        Json::Bool(value) => key.push(4 + u8::from(*value)),
        Json::Array(items) => {
            key.push(6);
            key.extend((items.len() as u32).to_be_bytes());
            items.iter().for_each(|item| write(item, key));
        }
        Json::Object(fields) => {
            key.push(7);
            key.extend((fields.len() as u32).to_be_bytes());
            for (name, value) in fields {
                write_text(name, key);
                write(value, key);
            }
        }
    }
}

/// A text of jsonb holds no zero character, so a zero can end it.
fn write_text(text: &str, key: &mut Vec<u8>) {
    key.extend(text.as_bytes());
    key.push(0);
}
