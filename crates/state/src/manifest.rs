//! Manifests: one checkpoint each, numbered, put only if the number is free.
//!
//! The file is JSON with a checksum of its own body:
//! `{"ruslo_manifest":1,"crc32c":"…","body":{…}}`. Numbers only grow. A manifest whose number is
//! its epoch is a *claim*: what a writer puts first when it opens the store. The writer before it
//! would use that number next, finds it taken, and stops. So a claim's name stays for good, as a
//! short tombstone, when later manifests have taken its place.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::sync::Arc;

use arrow_ipc::reader::StreamReader;
use arrow_ipc::writer::StreamWriter;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::collection::{Collection, Kind};
use crate::error::{Error, Result};
use crate::order::unexpected;
use crate::run::Run;
use crate::{FORMAT_VERSION, Time};

pub(crate) const FOLDER: &str = "manifests";

/// A collection and its runs, the oldest first.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    pub(crate) collection: Arc<Collection>,
    pub(crate) runs: Vec<Run>,
}

/// One checkpoint.
#[derive(Clone, Debug)]
pub(crate) struct Manifest {
    pub(crate) number: u64,
    /// The number of the claim of the writer that put it.
    pub(crate) epoch: u64,
    pub(crate) writer: u64,
    pub(crate) time: Time,
    pub(crate) collections: BTreeMap<u64, Stored>,
    pub(crate) metadata: Value,
}

#[derive(Serialize, Deserialize)]
struct Body {
    number: u64,
    epoch: u64,
    /// In hexadecimal: JSON's numbers are too short.
    writer: String,
    time: Time,
    collections: Vec<CollectionBody>,
    metadata: Value,
}

#[derive(Serialize, Deserialize)]
struct CollectionBody {
    id: u64,
    name: String,
    kind: String,
    /// For people; `schema` is what counts.
    columns: Vec<String>,
    /// The columns as an Arrow IPC stream without batches, in base64.
    schema: String,
    /// How many columns at the end add up beside `diff`.
    sums: usize,
    runs: Vec<Run>,
}

/// The name of a manifest; names sort as numbers do.
pub(crate) fn path(number: u64) -> String {
    format!("{FOLDER}/{number:020}.json")
}

/// The number in a manifest's name; None for other files.
pub(crate) fn number(path: &str) -> Option<u64> {
    let name = path.rsplit('/').next()?.strip_suffix(".json")?;
    (name.len() == 20).then(|| name.parse().ok()).flatten()
}

/// What takes the place of a claim that is not the newest manifest any more.
pub(crate) fn tombstone() -> Bytes {
    Bytes::from(format!(
        "{{\"ruslo_manifest\":{FORMAT_VERSION},\"superseded\":true}}\n"
    ))
}

impl Manifest {
    pub(crate) fn is_claim(&self) -> bool {
        self.number == self.epoch
    }

    /// Every run of every collection.
    pub(crate) fn runs(&self) -> impl Iterator<Item = &Run> {
        self.collections.values().flat_map(|stored| &stored.runs)
    }

    pub(crate) fn encode(&self) -> Result<Bytes> {
        let collections = self.collections.values().map(CollectionBody::of);
        let body = Body {
            number: self.number,
            epoch: self.epoch,
            writer: format!("{:016x}", self.writer),
            time: self.time,
            collections: collections.collect::<Result<_>>()?,
            metadata: self.metadata.clone(),
        };
        let body = serde_json::to_string_pretty(&body)
            .map_err(|error| Error::InvalidUse(format!("a manifest: {error}")))?;
        let prefix = prefix(crc32c::crc32c(body.as_bytes()));
        Ok(Bytes::from(format!("{prefix}{body}}}\n")))
    }

    /// Reads a manifest back; `place` is what an error calls it.
    pub(crate) fn decode(place: &str, bytes: &[u8]) -> Result<Manifest> {
        let corrupt = |what: &str| Error::Corrupt(format!("{place}: {what}"));
        refuse_other_versions(place, bytes)?;
        let length = prefix(0).len();
        let split = bytes.len().checked_sub(2).filter(|end| length <= *end);
        let end = split.ok_or_else(|| corrupt("it is too short"))?;
        let body = &bytes[length..end];
        let whole = bytes[..length] == *prefix(crc32c::crc32c(body)).as_bytes();
        if !whole || &bytes[end..] != b"}\n" {
            return Err(corrupt("its checksum is wrong"));
        }
        let body: Body = serde_json::from_slice(body)
            .map_err(|error| corrupt(&format!("it cannot be read: {error}")))?;
        let writer = u64::from_str_radix(&body.writer, 16);
        let mut collections = BTreeMap::new();
        for collection in body.collections {
            let stored = collection.into_stored().map_err(|e| corrupt(&e))?;
            collections.insert(stored.collection.id, stored);
        }
        Ok(Manifest {
            number: body.number,
            epoch: body.epoch,
            writer: writer.map_err(|_| corrupt("its writer is no number"))?,
            time: body.time,
            collections,
            metadata: body.metadata,
        })
    }
}

fn prefix(crc: u32) -> String {
    format!("{{\"ruslo_manifest\":{FORMAT_VERSION},\"crc32c\":\"{crc:08x}\",\"body\":")
}

/// A newer manifest may have any other shape but must still say its version as ours does.
fn refuse_other_versions(place: &str, bytes: &[u8]) -> Result<()> {
    let version = serde_json::from_slice::<Value>(bytes).ok();
    let version = version.and_then(|value| value.get("ruslo_manifest")?.as_u64());
    match version {
        Some(version) if version != u64::from(FORMAT_VERSION) => Err(Error::UnsupportedVersion(
            format!("{place} has format version {version}; this program reads {FORMAT_VERSION}"),
        )),
        _ => Ok(()),
    }
}

impl CollectionBody {
    fn of(stored: &Stored) -> Result<CollectionBody> {
        let collection = &stored.collection;
        let schema = collection.schema();
        let mut encoded = vec![];
        StreamWriter::try_new(&mut encoded, &schema)
            .and_then(|mut writer| writer.finish())
            .map_err(unexpected)?;
        let columns = schema.fields().iter();
        let columns = columns.map(|field| format!("{}: {}", field.name(), field.data_type()));
        Ok(CollectionBody {
            id: collection.id,
            name: collection.name.clone(),
            kind: match collection.kind {
                Kind::Sum => "sum".into(),
            },
            columns: columns.collect(),
            schema: BASE64.encode(encoded),
            sums: collection.sums.len(),
            runs: stored.runs.clone(),
        })
    }

    fn into_stored(self) -> Result<Stored, String> {
        let broken = |what: &str| format!("collection {}: {what}", self.id);
        if self.kind != "sum" {
            return Err(broken(&format!("\"{}\" is no kind", self.kind)));
        }
        let schema = BASE64.decode(&self.schema);
        let schema = schema.map_err(|_| broken("its schema is no base64"))?;
        let schema = StreamReader::try_new(Cursor::new(schema), None);
        let schema = schema.map_err(|error| broken(&error.to_string()))?.schema();
        let collection = Collection::from_schema(self.id, self.name.clone(), &schema, self.sums);
        let collection = collection.ok_or_else(|| broken("it has too few columns"))?;
        Ok(Stored {
            collection: Arc::new(collection),
            runs: self.runs,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow_schema::{DataType, Field, Schema};

    fn manifest() -> Manifest {
        let fields = vec![
            Field::new("word", DataType::Utf8, true),
            Field::new("word", DataType::FixedSizeBinary(16), true),
        ];
        let collection = Collection::sum(7, "counts", Arc::new(Schema::new(fields)));
        let run = Run {
            file: "runs/1.arrow".into(),
            bytes: 5,
            rows: 1,
            footer_bytes: 2,
            footer_crc32c: 9,
        };
        let stored = Stored {
            collection: Arc::new(collection.with_sums(["total"])),
            runs: vec![run],
        };
        Manifest {
            number: 12,
            epoch: 3,
            writer: u64::MAX,
            time: 99,
            collections: [(7, stored)].into(),
            metadata: serde_json::json!({"offsets": {"4": [1, 2]}}),
        }
    }

    #[test]
    fn a_manifest_comes_back_as_it_was_and_is_json() {
        let bytes = manifest().encode().unwrap();
        let back = Manifest::decode("m", &bytes).unwrap();
        assert_eq!(format!("{back:?}"), format!("{:?}", manifest()));
        let json: Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(json["body"]["collections"][0]["columns"][0], "word: Utf8");
    }

    #[test]
    fn every_broken_byte_and_every_cut_is_noticed() {
        let bytes = manifest().encode().unwrap();
        for at in 0..bytes.len() {
            assert!(Manifest::decode("m", &bytes[..at]).is_err(), "cut at {at}");
            let mut broken = bytes.to_vec();
            broken[at] ^= 4;
            assert!(Manifest::decode("m", &broken).is_err(), "byte {at}");
        }
    }

    #[test]
    fn a_newer_version_is_refused_whatever_its_shape() {
        let error = Manifest::decode("manifests/1", br#"{"other":[],"ruslo_manifest":2}"#);
        let error = error.unwrap_err();
        assert!(matches!(&error, Error::UnsupportedVersion(text) if text.contains("manifests/1")));
    }
}
