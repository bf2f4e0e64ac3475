//! How a sink prints rows, and whether two rows of a view may print the same key.

use arrow::array::new_null_array;
use arrow::datatypes::DataType;
use arrow::record_batch::RecordBatch;
use ruslo_format::{JsonEncoder, Template};
use ruslo_repr::Result;
use ruslo_sql::{Relation, RelationKind};

/// How a sink turns rows into keys and values.
pub(crate) enum Encoding {
    Json {
        key: JsonEncoder,
        value: JsonEncoder,
    },
    Template {
        key: Template,
        value: Template,
    },
}

/// Which keys several rows of the view may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Clash {
    None,
    /// This one only: a column's NULL and a text that spells it.
    At(Vec<u8>),
    Any,
}

impl Clash {
    pub(super) fn concerns(&self, key: &[u8]) -> bool {
        match self {
            Clash::None => false,
            Clash::At(clashing) => clashing == key,
            Clash::Any => true,
        }
    }

    /// For keys printed from the columns `printed` of `relation`.
    ///
    /// Rows differ in the key of their relation. So keys differ where they are printed from all
    /// of its columns, in a form that tells all values apart.
    pub(crate) fn of(encoding: &Encoding, relation: &Relation, printed: &[usize]) -> Result<Clash> {
        let unique = &relation.key;
        if unique.is_empty() || !unique.iter().all(|column| printed.contains(column)) {
            return Ok(Clash::Any);
        }
        let ty = |column: &usize| &relation.schema.columns[*column].ty;
        match (encoding, printed) {
            (Encoding::Json { .. }, _) => Ok(match printed.iter().all(|c| is_exact_json(ty(c))) {
                true => Clash::None,
                false => Clash::Any,
            }),
            (Encoding::Template { key, .. }, [column]) => {
                if *ty(column) != DataType::Utf8 || refuses_null(relation, *column) {
                    return Ok(Clash::None);
                }
                let nulls = relation.schema.columns.iter();
                let nulls = nulls.map(|column| new_null_array(&column.ty, 1)).collect();
                let nulls = ruslo_repr::row::batch_of(&relation.schema, nulls, 1)?;
                let mut text = String::new();
                key.write(&nulls, 0, &mut text);
                Ok(Clash::At(text.into_bytes()))
            }
            // What stands between two columns may also stand in one of them.
            (Encoding::Template { .. }, _) => Ok(Clash::Any),
        }
    }
}

fn refuses_null(relation: &Relation, column: usize) -> bool {
    let in_primary_key = relation.kind == RelationKind::Table && relation.key.contains(&column);
    in_primary_key || relation.not_null.contains(&column)
}

/// Whether ENCODE JSON tells all values of a type apart: times lose digits, floats their NaN.
fn is_exact_json(ty: &DataType) -> bool {
    use DataType::{Binary, Boolean, Date32, FixedSizeBinary, Int16, Int32, Int64, Utf8};
    matches!(
        ty,
        Binary | Boolean | Date32 | FixedSizeBinary(_) | Int16 | Int32 | Int64 | Utf8
    )
}

impl Encoding {
    pub(super) fn key(&self, batch: &RecordBatch, row: usize) -> Vec<u8> {
        match self {
            Encoding::Template { key, .. } => {
                let mut text = String::new();
                key.write(batch, row, &mut text);
                text.into_bytes()
            }
            Encoding::Json { key, .. } => {
                let mut text = Vec::new();
                key.write(batch, row, &mut text);
                text
            }
        }
    }

    pub(super) fn value(&self, batch: &RecordBatch, row: usize) -> Vec<u8> {
        match self {
            Encoding::Template { value, .. } => {
                let mut text = String::new();
                value.write(batch, row, &mut text);
                text.into_bytes()
            }
            Encoding::Json { value, .. } => {
                let mut text = Vec::new();
                value.write(batch, row, &mut text);
                text
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use ruslo_format::JsonEncodeOptions;
    use ruslo_repr::schema::TIMESTAMP;
    use ruslo_repr::{ObjectId, Schema};

    use super::*;

    fn relation(unique: &[usize]) -> Relation {
        let columns = [
            ("id", DataType::Int32),
            ("name", DataType::Utf8),
            ("at", TIMESTAMP),
        ];
        let kind = RelationKind::MaterializedView;
        let mut relation = Relation::new(ObjectId(1), "public", "v", Schema::new(columns), kind);
        relation.key = unique.to_vec();
        relation
    }

    fn template(relation: &Relation, key: &str) -> Clash {
        let key = Template::parse(key, &relation.schema).unwrap();
        let printed = key.columns();
        let value = key.clone();
        Clash::of(&Encoding::Template { key, value }, relation, &printed).unwrap()
    }

    fn json(relation: &Relation, printed: &[usize]) -> Clash {
        let encoder = || JsonEncoder::new(&relation.schema, printed, JsonEncodeOptions::default());
        let (key, value) = (encoder().unwrap(), encoder().unwrap());
        Clash::of(&Encoding::Json { key, value }, relation, printed).unwrap()
    }

    #[test]
    fn keys_clash_where_they_do_not_tell_rows_apart() {
        assert_eq!(template(&relation(&[0]), "k{id}"), Clash::None);
        assert_eq!(template(&relation(&[2]), "{at}"), Clash::None);
        assert_eq!(
            template(&relation(&[1]), "k:{name}"),
            Clash::At(b"k:NULL".to_vec())
        );
        assert_eq!(template(&relation(&[]), "{id}"), Clash::Any);
        assert_eq!(template(&relation(&[0, 1]), "{id}"), Clash::Any);
        assert_eq!(template(&relation(&[0, 1]), "{id}{name}"), Clash::Any);
        assert_eq!(json(&relation(&[0, 1]), &[0, 1]), Clash::None);
        assert_eq!(json(&relation(&[0]), &[0, 1]), Clash::None);
        assert_eq!(json(&relation(&[0]), &[1]), Clash::Any);
        assert_eq!(json(&relation(&[2]), &[2]), Clash::Any);
    }
}
