//! Parameter values on their way from Bind to the engine.
//!
//! The engine reads PostgreSQL's text form of every type, and the binary form of its own scalar
//! types. Binary values of other types, and arrays, become text here.

use bytes::{Buf, Bytes};
use ruslo_engine::Param;

use super::backend::Failure;

const BOOL: u32 = 16;
const CHAR: u32 = 18;
const NAME: u32 = 19;
const INT8: u32 = 20;
const INT2: u32 = 21;
const INT4: u32 = 23;
const TEXT: u32 = 25;
const OID: u32 = 26;
const JSON: u32 = 114;
const FLOAT4: u32 = 700;
const FLOAT8: u32 = 701;
const BPCHAR: u32 = 1042;
const VARCHAR: u32 = 1043;
const REGCLASS: u32 = 2205;
const REGTYPE: u32 = 2206;
const UUID: u32 = 2950;

/// A value sent as text, for parameter `index` (from zero).
pub(super) fn from_text(index: usize, bytes: &[u8]) -> Result<Param, Failure> {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.contains('\0') => Ok(Param::Text(text.to_string())),
        _ => {
            let message = format!(
                "invalid byte sequence for encoding \"UTF8\" in ${}",
                index + 1
            );
            Err(Failure::state("22021", message))
        }
    }
}

/// A binary value that the engine does not read: an array, or of the `declared` foreign type.
///
/// What is not understood is handed on, so that the engine says what is wrong with it.
pub(super) fn from_foreign(bytes: &Bytes, declared: u32, is_array: bool) -> Param {
    let text = match is_array {
        true => array_text(bytes.clone()),
        false => scalar_text(bytes, declared),
    };
    match text {
        Some(text) if !text.contains('\0') => Param::Text(text),
        _ => Param::Binary(bytes.to_vec()),
    }
}

/// PostgreSQL's text form of a binary scalar; `None` if length and type don't fit.
fn scalar_text(bytes: &[u8], oid: u32) -> Option<String> {
    let text = match oid {
        BOOL => if *bytes.first()? == 0 { "f" } else { "t" }.to_string(),
        INT2 => i16::from_be_bytes(bytes.try_into().ok()?).to_string(),
        INT4 => i32::from_be_bytes(bytes.try_into().ok()?).to_string(),
        INT8 => i64::from_be_bytes(bytes.try_into().ok()?).to_string(),
        OID | REGCLASS | REGTYPE => u32::from_be_bytes(bytes.try_into().ok()?).to_string(),
        FLOAT4 => f32::from_be_bytes(bytes.try_into().ok()?).to_string(),
        FLOAT8 => f64::from_be_bytes(bytes.try_into().ok()?).to_string(),
        TEXT | VARCHAR | BPCHAR | NAME | CHAR | JSON => String::from_utf8(bytes.to_vec()).ok()?,
        UUID if bytes.len() == 16 => {
            let digits = hex::encode(bytes);
            let parts = [
                &digits[..8],
                &digits[8..12],
                &digits[12..16],
                &digits[16..20],
            ];
            format!("{}-{}", parts.join("-"), &digits[20..])
        }
        _ => return None,
    };
    Some(text)
}

/// The array literal of a binary array of one dimension.
fn array_text(mut bytes: Bytes) -> Option<String> {
    const HEADER_BYTES: usize = 12;
    const DIMENSION_BYTES: usize = 8;
    if bytes.len() < HEADER_BYTES {
        return None;
    }
    let dimensions = bytes.get_i32();
    bytes.get_i32(); // Whether there are NULLs, which the lengths say too.
    let element = bytes.get_u32();
    match dimensions {
        0 => return Some("{}".into()),
        1 if bytes.len() >= DIMENSION_BYTES => {}
        _ => return None,
    }
    let count = bytes.get_i32();
    bytes.get_i32(); // The lower bound, which our arrays don't have.
    let mut items = vec![];
    for _ in 0..count {
        items.push(item_text(&mut bytes, element)?);
    }
    bytes.is_empty().then(|| format!("{{{}}}", items.join(",")))
}

fn item_text(bytes: &mut Bytes, element: u32) -> Option<String> {
    const NULL_LENGTH: i32 = -1;
    let length = bytes.try_get_i32().ok()?;
    if length == NULL_LENGTH {
        return Some("NULL".into());
    }
    let length = usize::try_from(length)
        .ok()
        .filter(|&length| length <= bytes.len())?;
    let text = scalar_text(&bytes.split_to(length), element)?;
    Some(format!(
        "\"{}\"",
        text.replace('\\', "\\\\").replace('"', "\\\"")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn words(words: &[i32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_be_bytes()).collect()
    }

    fn text(bytes: impl Into<Bytes>, declared: u32, is_array: bool) -> Option<String> {
        match from_foreign(&bytes.into(), declared, is_array) {
            Param::Text(text) => Some(text),
            _ => None,
        }
    }

    #[test]
    fn foreign_scalars_become_text() {
        assert_eq!(text(words(&[-1]), OID, false).unwrap(), "4294967295");
        assert_eq!(text(&b"{}"[..], JSON, false).unwrap(), "{}");
        let uuid = text(&[0x11; 16][..], UUID, false).unwrap();
        assert_eq!(uuid, "11111111-1111-1111-1111-111111111111");
        assert_eq!(text(&b"abc"[..], OID, false), None);
        assert!(from_text(0, b"a\0b").is_err());
        assert!(from_text(0, b"\xff").is_err());
    }

    #[test]
    fn arrays_become_literals() {
        let numbers = words(&[1, 1, INT4 as i32, 3, 1, 4, 7, -1, 4, -2]);
        assert_eq!(text(numbers, 0, true).unwrap(), "{\"7\",NULL,\"-2\"}");
        assert_eq!(text(words(&[0, 0, INT4 as i32]), 0, true).unwrap(), "{}");
        let mut quoted = words(&[1, 0, TEXT as i32, 1, 1, 4]);
        quoted.extend_from_slice(b"a\"\\,");
        assert_eq!(text(quoted, 0, true).unwrap(), "{\"a\\\"\\\\,\"}");
        let lying = words(&[1, 0, INT4 as i32, i32::MAX, 1, 4, 7]);
        assert_eq!(text(lying, 0, true), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken(
            bytes in proptest::collection::vec(any::<u8>(), 0..80),
            declared in any::<u32>(),
            is_array in any::<bool>(),
        ) {
            from_foreign(&Bytes::from(bytes), declared, is_array);
        }
    }
}
