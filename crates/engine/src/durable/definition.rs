//! The durable form of the catalog: each object as the statement that made it, and what was
//! resolved when it was made.
//!
//! At a restart the statements are executed again, so only what a second execution could not find
//! out is kept beside them: ids, start offsets, the session's settings.

use std::collections::{BTreeMap, BTreeSet};

use ruslo_repr::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::OTHER_VERSION;
use crate::catalog::DEFAULT_SCHEMA;

/// The version of what is stored here. Other versions are refused.
const VERSION: u32 = 1;

/// Where a source begins, resolved at its creation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SourceStart {
    pub(crate) offsets: BTreeMap<i32, i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) topic_id: Option<String>,
}

/// One object of the catalog.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Definition {
    pub(crate) id: u64,
    /// The id of the view that belongs to a sink alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) view: Option<u64>,
    pub(crate) schema: String,
    pub(crate) name: String,
    pub(crate) owner: String,
    pub(crate) database: String,
    /// The session's settings that were not the defaults, since names and times depend on them.
    pub(crate) settings: BTreeMap<String, String>,
    /// The statement, secrets blotted out.
    pub(crate) statement: String,
    /// The whole statement, sealed, where something was blotted out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) sealed: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) source: Option<SourceStart>,
}

/// A change of the catalog.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Change {
    Create(Box<Definition>),
    Drop(Vec<u64>),
    CreateSchema(String),
    DropSchema(String),
}

impl Change {
    pub(crate) fn to_json(&self) -> Result<Value> {
        versioned(self)
    }

    pub(crate) fn from_json(place: &str, value: &Value) -> Result<Change> {
        from_versioned(place, value)
    }
}

/// The whole catalog at one time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Image {
    /// Ids from here on were never given out.
    pub(crate) next_id: u64,
    pub(crate) schemas: BTreeSet<String>,
    pub(crate) objects: BTreeMap<u64, Definition>,
}

impl Default for Image {
    fn default() -> Image {
        Image {
            next_id: 1,
            schemas: BTreeSet::from([DEFAULT_SCHEMA.to_string()]),
            objects: BTreeMap::new(),
        }
    }
}

impl Image {
    pub(crate) fn apply(&mut self, change: &Change) {
        match change {
            Change::Create(definition) => {
                let ids = [Some(definition.id), definition.view];
                let last = ids.into_iter().flatten().max().unwrap_or(0);
                self.next_id = self.next_id.max(last + 1);
                self.objects
                    .insert(definition.id, definition.as_ref().clone());
            }
            Change::Drop(ids) => {
                for id in ids {
                    self.objects.remove(id);
                }
            }
            Change::CreateSchema(name) => {
                self.schemas.insert(name.clone());
            }
            Change::DropSchema(name) => {
                self.schemas.remove(name);
            }
        }
    }

    pub(crate) fn to_json(&self) -> Result<Value> {
        versioned(self)
    }

    pub(crate) fn from_json(place: &str, value: &Value) -> Result<Image> {
        from_versioned(place, value)
    }
}

#[derive(Serialize, Deserialize)]
struct Versioned<T> {
    version: u32,
    catalog: T,
}

fn versioned<T: Serialize>(content: &T) -> Result<Value> {
    let versioned = Versioned {
        version: VERSION,
        catalog: content,
    };
    serde_json::to_value(versioned)
        .map_err(|error| Error::internal(format!("the catalog cannot be written: {error}")))
}

/// `place` is the file it is from.
fn from_versioned<T: for<'de> Deserialize<'de>>(place: &str, value: &Value) -> Result<T> {
    let broken = |what: String| {
        let message = format!("{place}: the catalog in it {what}");
        Error::new(ErrorKind::InvalidState, message)
    };
    match value.get("version").and_then(Value::as_u64) {
        Some(version) if version == u64::from(VERSION) => {}
        Some(other) => {
            let what = format!("has version {other}; this program reads {VERSION}");
            return Err(broken(what).with_hint(OTHER_VERSION));
        }
        None => return Err(broken("has no version".to_string())),
    }
    let read: Versioned<T> = Versioned::deserialize(value)
        .map_err(|error| broken(format!("cannot be read: {error}")))?;
    Ok(read.catalog)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition(id: u64, view: Option<u64>) -> Change {
        Change::Create(Box::new(Definition {
            id,
            view,
            schema: "public".into(),
            name: format!("o{id}"),
            owner: "root".into(),
            database: "dev".into(),
            settings: BTreeMap::from([("timezone".into(), "UTC".into())]),
            statement: "CREATE …".into(),
            sealed: None,
            source: Some(SourceStart {
                offsets: BTreeMap::from([(0, 7), (11, 3)]),
                topic_id: None,
            }),
        }))
    }

    #[test]
    fn changes_and_images_come_back_as_they_were() {
        let mut image = Image::default();
        let changes = [
            Change::CreateSchema("s".into()),
            definition(1, None),
            definition(5, Some(9)),
            Change::Drop(vec![1]),
        ];
        for change in &changes {
            let read = Change::from_json("f", &change.to_json().unwrap()).unwrap();
            assert_eq!(&read, change);
            image.apply(change);
        }
        assert_eq!(image.next_id, 10);
        assert_eq!(image.objects.keys().collect::<Vec<_>>(), [&5]);
        let read = Image::from_json("f", &image.to_json().unwrap());
        assert_eq!(read.unwrap(), image);
    }

    #[test]
    fn another_version_is_refused() {
        let mut value = Change::Drop(vec![]).to_json().unwrap();
        value["version"] = 2.into();
        let error = Change::from_json("7.log", &value).unwrap_err();
        let expected = "7.log: the catalog in it has version 2; this program reads 1";
        assert_eq!(error.to_string(), expected);
    }
}
