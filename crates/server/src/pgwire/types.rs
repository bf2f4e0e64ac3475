//! Our types as PostgreSQL's type oids, and back.

use arrow::datatypes::DataType;
use ruslo_repr::schema;

/// Element and array oids of the types that have a PostgreSQL type of their own.
const OIDS: [(u32, u32); 15] = [
    (16, 1000),   // bool
    (21, 1005),   // int2
    (23, 1007),   // int4
    (20, 1016),   // int8
    (700, 1021),  // float4
    (701, 1022),  // float8
    (1700, 1231), // numeric
    (1043, 1015), // varchar
    (17, 1001),   // bytea
    (1082, 1182), // date
    (1083, 1183), // time
    (1114, 1115), // timestamp
    (1184, 1185), // timestamptz
    (1186, 1187), // interval
    (3802, 3807), // jsonb
];

const RECORD: u32 = 2249;
const RECORD_ARRAY: u32 = 2287;
const TEXT: u32 = 25;
const TEXT_ARRAY: u32 = 1009;

/// The type at the same place in [`OIDS`].
fn scalars() -> [DataType; 15] {
    [
        DataType::Boolean,
        DataType::Int16,
        DataType::Int32,
        DataType::Int64,
        DataType::Float32,
        DataType::Float64,
        schema::NUMERIC,
        DataType::Utf8,
        DataType::Binary,
        DataType::Date32,
        schema::TIME,
        schema::TIMESTAMP,
        schema::timestamptz(),
        schema::INTERVAL,
        schema::JSONB,
    ]
}

/// The oid a column of this type is announced with. A type without one of its own is text;
/// arrays of arrays have the oid of the innermost array, as PostgreSQL's do.
pub(super) fn oid(ty: &DataType) -> u32 {
    match ty {
        DataType::Struct(_) => RECORD,
        DataType::List(item) => array_oid(item.data_type()),
        DataType::Timestamp(_, Some(_)) => 1184,
        _ => element(ty).map_or(TEXT, |(own, _)| own),
    }
}

fn array_oid(item: &DataType) -> u32 {
    match item {
        DataType::Struct(_) => RECORD_ARRAY,
        DataType::List(inner) => array_oid(inner.data_type()),
        DataType::Timestamp(_, Some(_)) => 1185,
        _ => element(item).map_or(TEXT_ARRAY, |(_, array)| array),
    }
}

fn element(ty: &DataType) -> Option<(u32, u32)> {
    let at = scalars().iter().position(|scalar| scalar == ty)?;
    Some(OIDS[at])
}

/// The type of a parameter that the client declared with `oid`; `None` leaves it to us.
///
/// Types that PostgreSQL has and we don't, but whose text is read the same way, stand for ours.
pub(super) fn from_oid(oid: u32) -> Option<DataType> {
    match oid {
        // text, bpchar, name, "char", uuid
        TEXT | 1042 | 19 | 18 | 2950 => return Some(DataType::Utf8),
        TEXT_ARRAY | 1002 | 1003 | 1014 | 2951 => return Some(schema::list_of(DataType::Utf8)),
        // oid, regclass, regtype: unsigned in PostgreSQL, so the next wider type holds them
        26 | 2205 | 2206 => return Some(DataType::Int64),
        1028 => return Some(schema::list_of(DataType::Int64)),
        // json
        114 => return Some(schema::JSONB),
        199 => return Some(schema::list_of(schema::JSONB)),
        _ => {}
    }
    let at = OIDS
        .iter()
        .position(|&(own, array)| own == oid || array == oid)?;
    let scalar = scalars()[at].clone();
    match OIDS[at].0 == oid {
        true => Some(scalar),
        false => Some(schema::list_of(scalar)),
    }
}

/// Whether a binary value declared with `oid` has the form that the engine reads for `ty`.
pub(super) fn is_canonical(declared: u32, ty: &DataType) -> bool {
    // The text types share one binary form: the text itself.
    let is_text = matches!(declared, TEXT | 1042 | 19 | 18);
    let is_array = matches!(ty, DataType::List(_));
    !is_array && (declared == 0 || declared == oid(ty) || is_text)
}

/// The size PostgreSQL gives a type in RowDescription; -1 for those of variable length.
pub(super) fn size(ty: &DataType) -> i16 {
    match ty {
        DataType::Boolean => 1,
        DataType::Int16 => 2,
        DataType::Int32 | DataType::Float32 | DataType::Date32 => 4,
        DataType::Int64 | DataType::Float64 | DataType::Time64(_) | DataType::Timestamp(..) => 8,
        DataType::Interval(_) => 16,
        _ => -1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_comes_back_from_its_oid() {
        for ty in scalars() {
            assert_eq!(from_oid(oid(&ty)), Some(ty.clone()));
            let array = schema::list_of(ty);
            assert_eq!(from_oid(oid(&array)), Some(array));
        }
        assert_eq!(oid(&schema::list_of(schema::NUMERIC)), 1231);
        assert_eq!(
            oid(&schema::list_of(schema::list_of(DataType::Int32))),
            1007
        );
        assert_eq!(oid(&DataType::Null), TEXT);
        assert_eq!(from_oid(0), None);
        assert_eq!(from_oid(705), None);
    }
}
