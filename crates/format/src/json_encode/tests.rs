use std::sync::Arc;

use arrow::array::{
    BinaryArray, BooleanArray, Date32Array, FixedSizeBinaryArray, Float32Array, Float64Array,
    Int16Array, Int32Array, Int64Array, IntervalMonthDayNanoArray, LargeStringArray, ListArray,
    StringArray, StructArray, Time64MicrosecondArray, TimestampMicrosecondArray, new_null_array,
};
use arrow::datatypes::Field;
use ruslo_repr::row::batch_of;
use ruslo_repr::schema::{INTERVAL, JSONB, NUMERIC, TIME, TIMESTAMP, list_of, timestamptz};

use super::*;

fn encoded_with(options: JsonEncodeOptions, ty: DataType, array: ArrayRef, row: usize) -> String {
    let schema = Schema::new([("v", ty)]);
    let encoder = JsonEncoder::new(&schema, &[0], options).unwrap();
    let len = array.len();
    let batch = batch_of(&schema, vec![array], len).unwrap();
    let mut out = vec![];
    encoder.write(&batch, row, &mut out);
    let text = String::from_utf8(out).unwrap();
    assert!(
        serde_json::from_str::<serde_json::Value>(&text).is_ok(),
        "{text}"
    );
    text.strip_prefix("{\"v\":")
        .unwrap()
        .strip_suffix('}')
        .unwrap()
        .to_string()
}

fn encoded(ty: DataType, array: impl Array + 'static) -> String {
    encoded_with(JsonEncodeOptions::default(), ty, Arc::new(array), 0)
}

#[test]
fn every_type_has_its_form() {
    assert_eq!(
        encoded(DataType::Boolean, BooleanArray::from(vec![true])),
        "true"
    );
    assert_eq!(encoded(DataType::Int16, Int16Array::from(vec![-3])), "-3");
    assert_eq!(encoded(DataType::Int32, Int32Array::from(vec![7])), "7");
    assert_eq!(
        encoded(DataType::Int64, Int64Array::from(vec![i64::MIN])),
        "-9223372036854775808"
    );
    assert_eq!(
        encoded(DataType::Float32, Float32Array::from(vec![1.1])),
        "1.1"
    );
    assert_eq!(
        encoded(DataType::Float64, Float64Array::from(vec![100.0])),
        "100.0"
    );
    assert_eq!(
        encoded(DataType::Float64, Float64Array::from(vec![f64::NAN])),
        "null"
    );
    assert_eq!(
        encoded(DataType::Float32, Float32Array::from(vec![f32::INFINITY])),
        "null"
    );
    assert_eq!(
        encoded(DataType::Utf8, StringArray::from(vec!["a\"é\n"])),
        "\"a\\\"é\\n\""
    );
    assert_eq!(
        encoded(DataType::Binary, BinaryArray::from(vec![&b"\x00\xffa"[..]])),
        "\"AP9h\""
    );
    assert_eq!(
        encoded(DataType::Date32, Date32Array::from(vec![0])),
        "719163"
    );
    assert_eq!(
        encoded(TIME, Time64MicrosecondArray::from(vec![36_000_001_999])),
        "36000001"
    );
    assert_eq!(
        encoded(TIMESTAMP, TimestampMicrosecondArray::from(vec![1_500_999])),
        "1500"
    );
    assert_eq!(
        encoded(TIMESTAMP, TimestampMicrosecondArray::from(vec![-1])),
        "-1"
    );
    let numeric = |text: &str| {
        let bytes = text.parse::<Numeric>().unwrap().to_bytes();
        FixedSizeBinaryArray::try_from_iter([bytes].into_iter()).unwrap()
    };
    assert_eq!(encoded(NUMERIC, numeric("12.50")), "\"12.50\"");
    assert_eq!(encoded(NUMERIC, numeric("NaN")), "\"NaN\"");
}

#[test]
fn null_is_null_in_every_type() {
    for ty in [
        DataType::Boolean,
        DataType::Int64,
        DataType::Utf8,
        NUMERIC,
        JSONB,
        TIMESTAMP,
        timestamptz(),
        INTERVAL,
        list_of(DataType::Int32),
        DataType::Struct(vec![Field::new("a", DataType::Int32, true)].into()),
    ] {
        let array = new_null_array(&ty, 1);
        assert_eq!(
            encoded_with(JsonEncodeOptions::default(), ty, array, 0),
            "null"
        );
    }
}

#[test]
fn timestamptz_by_mode() {
    let array = |micros| {
        Arc::new(TimestampMicrosecondArray::from(vec![micros]).with_timezone("UTC")) as ArrayRef
    };
    let with = |mode: &str, micros: i64| {
        let mut options = JsonEncodeOptions::default();
        assert!(options.set("timestamptz.handling.mode", mode).unwrap());
        encoded_with(options, timestamptz(), array(micros), 0)
    };
    let micros = 1_712_800_800_123_456;
    assert_eq!(
        with("utc_string", micros),
        "\"2024-04-11T02:00:00.123456Z\""
    );
    assert_eq!(
        with("utc_without_suffix", micros),
        "\"2024-04-11 02:00:00.123456\""
    );
    assert_eq!(with("milli", micros), "1712800800123");
    assert_eq!(with("micro", micros), "1712800800123456");
    assert_eq!(with("utc_string", 0), "\"1970-01-01T00:00:00.000000Z\"");
    assert_eq!(with("utc_string", -1), "\"1969-12-31T23:59:59.999999Z\"");
    assert_eq!(
        with("utc_string", 253_402_300_800_000_000),
        "\"+10000-01-01T00:00:00.000000Z\""
    );
    assert!(with("utc_string", i64::MIN).ends_with("Z\""));
    assert!(with("utc_string", i64::MAX).ends_with("Z\""));
}

#[test]
fn intervals_are_iso_8601() {
    let interval = |months, days, micros: i64| {
        let value = IntervalMonthDayNano::new(months, days, micros * 1000);
        encoded(INTERVAL, IntervalMonthDayNanoArray::from(vec![value]))
    };
    assert_eq!(interval(14, 3, 14_706_780_000), "\"P1Y2M3DT4H5M6.78S\"");
    assert_eq!(interval(0, 0, 0), "\"P0Y0M0DT0H0M0S\"");
    assert_eq!(interval(-14, -3, -3_600_000_000), "\"P-1Y-2M-3DT-1H0M0S\"");
    assert_eq!(interval(0, 0, -500_000), "\"P0Y0M0DT0H0M-0.5S\"");
}

#[test]
fn jsonb_is_a_string_or_itself() {
    let array: ArrayRef = Arc::new(LargeStringArray::from(vec!["{\"a\": [1, \"x\"]}"]));
    let mut options = JsonEncodeOptions::default();
    let text = encoded_with(options, JSONB, array.clone(), 0);
    assert_eq!(text, "\"{\\\"a\\\": [1, \\\"x\\\"]}\"");
    assert!(options.set("jsonb.handling.mode", "dynamic").unwrap());
    assert_eq!(
        encoded_with(options, JSONB, array, 0),
        "{\"a\": [1, \"x\"]}"
    );
    assert!(options.set("jsonb.handling.mode", "text").is_err());
    assert_eq!(options.set("force_append_only", "true"), Ok(false));
}

#[test]
fn arrays_and_structs_nest_with_keys_in_order() {
    let fields = vec![
        Field::new("z", DataType::Int32, true),
        Field::new("a", DataType::Utf8, true),
    ];
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int32Array::from(vec![Some(1), None, Some(3)])),
        Arc::new(StringArray::from(vec![None, Some("x"), Some("y")])),
    ];
    let structs = StructArray::new(fields.clone().into(), columns, None);
    let ty = DataType::Struct(fields.into());
    let item = Arc::new(Field::new("item", ty.clone(), true));
    let offsets = arrow::buffer::OffsetBuffer::from_lengths([2, 0, 1]);
    let lists: ArrayRef = Arc::new(ListArray::new(item, offsets, Arc::new(structs), None));
    let at = |row| {
        encoded_with(
            JsonEncodeOptions::default(),
            list_of(ty.clone()),
            lists.clone(),
            row,
        )
    };
    assert_eq!(at(0), "[{\"a\":null,\"z\":1},{\"a\":\"x\",\"z\":null}]");
    assert_eq!(at(1), "[]");
    assert_eq!(at(2), "[{\"a\":\"y\",\"z\":3}]");
}

#[test]
fn chosen_columns_in_alphabetical_order() {
    let schema = Schema::new([
        ("b", DataType::Int32),
        ("c", DataType::Int32),
        ("a\"", DataType::Int32),
    ]);
    let column = |v: i32| Arc::new(Int32Array::from(vec![v])) as ArrayRef;
    let batch = batch_of(&schema, vec![column(1), column(2), column(3)], 1).unwrap();
    let write = |columns: &[usize]| {
        let mut out = b">".to_vec();
        let encoder = JsonEncoder::new(&schema, columns, JsonEncodeOptions::default()).unwrap();
        encoder.write(&batch, 0, &mut out);
        String::from_utf8(out).unwrap()
    };
    assert_eq!(write(&[0, 1, 2]), ">{\"a\\\"\":3,\"b\":1,\"c\":2}");
    assert_eq!(write(&[1]), ">{\"c\":2}");
    assert_eq!(write(&[]), ">{}");
    assert!(JsonEncoder::new(&schema, &[3], JsonEncodeOptions::default()).is_err());
}
