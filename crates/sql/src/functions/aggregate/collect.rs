//! Aggregates that put rows together: `string_agg`, `jsonb_agg`, `jsonb_object_agg`.

use arrow::array::cast::AsArray;
use arrow::array::{Array, ArrayRef};
use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use ruslo_repr::schema::JSONB;
use ruslo_repr::text::json::Json;
use ruslo_repr::text::write_cast_text;
use ruslo_repr::{Error, ErrorKind, Result};

use super::super::jsonb_build::value_of;
use super::{Aggregate, Fold, style};

pub(super) fn functions() -> Vec<Aggregate> {
    let text = |types: &[DataType]| match types {
        [
            DataType::Utf8 | DataType::Null,
            DataType::Utf8 | DataType::Null,
        ] => Some(DataType::Utf8),
        _ => None,
    };
    let array = |types: &[DataType]| (types.len() == 1).then_some(JSONB);
    let object = |types: &[DataType]| (types.len() == 2).then_some(JSONB);
    vec![
        Aggregate::new("string_agg", text, |_| Ok(Box::new(Texts::default()))).ordered(),
        Aggregate::new("jsonb_agg", array, |_| Ok(Box::new(Items { items: None })))
            .alias("json_agg")
            .ordered(),
        Aggregate::new("jsonb_object_agg", object, |_| {
            Ok(Box::new(Fields { fields: None }))
        })
        .alias("json_object_agg")
        .ordered(),
    ]
}

/// Texts with a separator in front of each but the first.
#[derive(Debug, Default)]
struct Texts {
    text: Option<String>,
    /// The separator of the first text: for when others turn out to come before it.
    first_separator: Option<String>,
}

impl Texts {
    fn push(&mut self, text: &str, separator: Option<&str>) {
        match &mut self.text {
            None => {
                self.text = Some(text.to_string());
                self.first_separator = separator.map(str::to_string);
            }
            Some(all) => {
                all.push_str(separator.unwrap_or_default());
                all.push_str(text);
            }
        }
    }
}

impl Fold for Texts {
    fn add(&mut self, columns: &[ArrayRef]) -> Result<()> {
        let [texts, separators] = columns else {
            return Err(Error::internal("string_agg takes two arguments"));
        };
        let Some(texts) = texts.as_string_opt::<i32>() else {
            return Ok(());
        };
        let separators = separators.as_string_opt::<i32>();
        for (row, text) in texts.iter().enumerate() {
            let separator = separators.filter(|s| s.is_valid(row));
            if let Some(text) = text {
                self.push(text, separator.map(|s| s.value(row)));
            }
        }
        Ok(())
    }

    fn result(&mut self) -> Result<ScalarValue> {
        Ok(ScalarValue::Utf8(self.text.clone()))
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let state = [&self.text, &self.first_separator];
        Ok(state.map(|text| ScalarValue::Utf8(text.clone())).into())
    }

    /// A state is a text among others.
    fn merge(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.add(states)
    }

    fn size(&self) -> usize {
        let texts = [&self.text, &self.first_separator].into_iter().flatten();
        size_of::<Self>() + texts.map(String::capacity).sum::<usize>()
    }
}

fn jsonb_scalar(json: Option<Json>) -> ScalarValue {
    ScalarValue::LargeUtf8(json.map(|json| json.to_string()))
}

/// The documents that states hold.
fn documents(states: &[ArrayRef]) -> Result<Vec<Json>> {
    let column = states.first().and_then(|s| s.as_string_opt::<i64>());
    let column = column.ok_or_else(|| Error::internal("a state is not jsonb"))?;
    column.iter().flatten().map(Json::parse).collect()
}

#[derive(Debug)]
struct Items {
    items: Option<Vec<Json>>,
}

impl Fold for Items {
    fn add(&mut self, columns: &[ArrayRef]) -> Result<()> {
        let column = &columns[0];
        let items = self.items.get_or_insert_default();
        for row in 0..column.len() {
            items.push(value_of(column, row, &style())?);
        }
        if items.is_empty() {
            self.items = None;
        }
        Ok(())
    }

    fn result(&mut self) -> Result<ScalarValue> {
        Ok(jsonb_scalar(self.items.clone().map(Json::Array)))
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![self.result()?])
    }

    fn merge(&mut self, states: &[ArrayRef]) -> Result<()> {
        for document in documents(states)? {
            if let Json::Array(items) = document {
                self.items.get_or_insert_default().extend(items);
            }
        }
        Ok(())
    }

    fn size(&self) -> usize {
        size_of::<Self>() + self.items.as_ref().map_or(0, |items| items.len() * 64)
    }
}

#[derive(Debug)]
struct Fields {
    fields: Option<Vec<(String, Json)>>,
}

impl Fold for Fields {
    fn add(&mut self, columns: &[ArrayRef]) -> Result<()> {
        let [keys, values] = columns else {
            return Err(Error::internal("jsonb_object_agg takes two arguments"));
        };
        for row in 0..keys.len() {
            let mut key = String::new();
            if !write_cast_text(keys, row, &style(), &mut key) {
                let message = "field name must not be null";
                return Err(Error::new(ErrorKind::InvalidParameter, message));
            }
            let value = value_of(values, row, &style())?;
            self.fields.get_or_insert_default().push((key, value));
        }
        Ok(())
    }

    fn result(&mut self) -> Result<ScalarValue> {
        Ok(jsonb_scalar(self.fields.clone().map(Json::object)))
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![self.result()?])
    }

    fn merge(&mut self, states: &[ArrayRef]) -> Result<()> {
        for document in documents(states)? {
            if let Json::Object(fields) = document {
                self.fields.get_or_insert_default().extend(fields);
            }
        }
        Ok(())
    }

    fn size(&self) -> usize {
        size_of::<Self>() + self.fields.as_ref().map_or(0, |fields| fields.len() * 96)
    }
}
