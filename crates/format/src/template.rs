//! `ENCODE TEMPLATE` of a sink: a text in which `{column}` stands for a row's value.
//!
//! Values are printed as PostgreSQL prints them, NULL as `NULL`. `\{` and `\}` stand for the
//! braces themselves; a brace that opens nothing, and any other backslash, stands for itself.

use arrow::array::RecordBatch;
use ruslo_repr::text::{TextStyle, write_text};
use ruslo_repr::{Error, ErrorKind, Result, Schema};

/// A parsed `key_format` or `value_format`.
#[derive(Clone, Debug)]
pub struct Template {
    parts: Vec<Part>,
    style: TextStyle,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    /// A position in the schema.
    Column(usize),
}

impl Template {
    /// Fails with `InvalidParameter` if the text names no column at all, or one that `schema`
    /// does not have.
    pub fn parse(text: &str, schema: &Schema) -> Result<Self> {
        let mut parts = vec![];
        let mut literal = String::new();
        let mut is_template = false;
        let mut rest = text;
        while let Some(at) = rest.find(['{', '\\']) {
            let (before, from) = rest.split_at(at);
            literal.push_str(before);
            if let Some(brace) = from.strip_prefix('\\') {
                // A backslash alone stays, and what follows it is looked at in its turn.
                let escaped = brace.chars().next().filter(|c| matches!(c, '{' | '}'));
                literal.push(escaped.unwrap_or('\\'));
                is_template |= escaped.is_some();
                rest = &from[1 + escaped.map_or(0, char::len_utf8)..];
            } else if let Some((name, after)) = from[1..].split_once('}') {
                if !literal.is_empty() {
                    parts.push(Part::Text(std::mem::take(&mut literal)));
                }
                parts.push(Part::Column(column(name, schema)?));
                is_template = true;
                rest = after;
            } else {
                literal.push('{');
                rest = &from[1..];
            }
        }
        if !is_template {
            let message = "Can't find {} in key_format or value_format";
            return Err(Error::new(ErrorKind::InvalidParameter, message)
                .with_hint("Name at least one column in braces, as in 'user:{id}'."));
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            parts.push(Part::Text(literal));
        }
        Ok(Template {
            parts,
            style: TextStyle::default(),
        })
    }

    /// The positions of the columns that the template names, each once, ascending.
    pub fn columns(&self) -> Vec<usize> {
        let named = self.parts.iter().filter_map(|part| match part {
            Part::Column(position) => Some(*position),
            Part::Text(_) => None,
        });
        let mut columns = named.collect::<Vec<_>>();
        columns.sort();
        columns.dedup();
        columns
    }

    /// Appends the text for row `row`. Panics if the batch is not of the schema.
    pub fn write(&self, batch: &RecordBatch, row: usize, out: &mut String) {
        for part in &self.parts {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Column(position) => {
                    let column = batch.column(*position).as_ref();
                    if !write_text(column, row, &self.style, out) {
                        out.push_str("NULL");
                    }
                }
            }
        }
    }
}

fn column(name: &str, schema: &Schema) -> Result<usize> {
    schema.position(name).ok_or_else(|| {
        let message = format!("Can't find field({name:?}) in key_format or value_format");
        let names = schema.columns.iter().map(|c| c.name.as_str());
        let names = names.collect::<Vec<_>>().join(", ");
        Error::new(ErrorKind::InvalidParameter, message).with_hint(format!(
            "The columns are {names}; \\{{ and \\}} stand for braces."
        ))
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{
        ArrayRef, BooleanArray, Int64Array, StringArray, TimestampMicrosecondArray,
    };
    use arrow::datatypes::DataType;
    use ruslo_repr::row::batch_of;
    use ruslo_repr::schema::TIMESTAMP;

    use super::*;

    fn schema() -> Schema {
        Schema::new([
            ("event", DataType::Utf8),
            ("count", DataType::Int64),
            ("is good", DataType::Boolean),
            ("at", TIMESTAMP),
        ])
    }

    fn written(text: &str, row: usize) -> String {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from(vec![Some("click {x}"), None])),
            Arc::new(Int64Array::from(vec![Some(-7), None])),
            Arc::new(BooleanArray::from(vec![true, false])),
            Arc::new(TimestampMicrosecondArray::from(vec![Some(1_500_000), None])),
        ];
        let batch = batch_of(&schema(), columns, 2).unwrap();
        let mut out = String::from(">");
        Template::parse(text, &schema())
            .unwrap()
            .write(&batch, row, &mut out);
        out
    }

    #[test]
    fn columns_are_printed_as_postgresql_does() {
        assert_eq!(written("{event}", 0), ">click {x}");
        assert_eq!(written("{count}{count}", 0), ">-7-7");
        assert_eq!(written("a {is good} b", 0), ">a t b");
        assert_eq!(written("{at}é", 0), ">1970-01-01 00:00:01.5é");
        assert_eq!(
            written("{event}:{count}:{is good}:{at}", 1),
            ">NULL:NULL:f:NULL"
        );
    }

    #[test]
    fn braces_can_be_escaped() {
        assert_eq!(written(r#"\{"n":{count}\}"#, 0), r#">{"n":-7}"#);
        assert_eq!(written(r"\\{event\}", 0), r">\{event}");
        assert_eq!(written(r"\n{count}\", 0), r">\n-7\");
        assert_eq!(written("} {count} { open", 0), ">} -7 { open");
        assert_eq!(written(r"\{constant\}", 0), ">{constant}");
    }

    #[test]
    fn a_template_knows_its_columns() {
        let template = Template::parse("{count}/{event}/{count}", &schema()).unwrap();
        assert_eq!(template.columns(), [0, 1]);
    }

    #[test]
    fn a_template_without_columns_or_with_unknown_ones_is_refused() {
        let error = |text: &str| Template::parse(text, &schema()).unwrap_err();
        for text in ["", "event", "{event", "event}"] {
            let message = "Can't find {} in key_format or value_format";
            assert_eq!(error(text).message, message, "{text}");
        }
        for (text, name) in [("{events}", "events"), ("{}", ""), ("a{ event}", " event")] {
            let message = format!("Can't find field({name:?}) in key_format or value_format");
            assert_eq!(error(text).message, message);
            assert_eq!(error(text).kind, ErrorKind::InvalidParameter);
            assert!(error(text).hint.unwrap().contains("event, count"));
        }
    }
}
