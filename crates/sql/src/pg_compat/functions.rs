//! Functions of PostgreSQL's that clients call on the catalogs, where the answer is the same for
//! every database: nothing is hidden, nothing is commented, everything is UTF-8.
//!
//! Those that look something up are subqueries by the time a query is bound; `format_type` and
//! others that people call too are among the crate's own functions.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature,
    Volatility,
};

/// Always true: whatever is listed is visible, and everybody may do everything.
const TRUE: [&str; 16] = [
    "pg_operator_is_visible",
    "pg_opclass_is_visible",
    "pg_opfamily_is_visible",
    "pg_collation_is_visible",
    "pg_conversion_is_visible",
    "pg_statistics_obj_is_visible",
    "pg_ts_config_is_visible",
    "pg_ts_dict_is_visible",
    "has_any_column_privilege",
    "has_column_privilege",
    "has_function_privilege",
    "has_sequence_privilege",
    "has_type_privilege",
    "has_tablespace_privilege",
    "pg_has_role",
    "pg_relation_is_updatable",
];

const FALSE: [&str; 5] = [
    "pg_is_in_recovery",
    "pg_is_other_temp_schema",
    "pg_relation_is_publishable",
    "row_security_active",
    "pg_is_wal_replay_paused",
];

/// Always NULL: comments, defaults, rules and other things that there are none of.
const NULL_TEXT: [&str; 15] = [
    "pg_get_constraintdef",
    "pg_get_indexdef",
    "pg_get_ruledef",
    "pg_get_triggerdef",
    "pg_get_functiondef",
    "pg_get_function_result",
    "pg_get_function_arguments",
    "pg_get_function_identity_arguments",
    "pg_get_function_sqlbody",
    "pg_get_partkeydef",
    "pg_get_partition_constraintdef",
    "pg_get_statisticsobjdef_columns",
    "pg_get_serial_sequence",
    "pg_tablespace_location",
    "pg_describe_object",
];

/// Sizes, which mean bytes on PostgreSQL's disk.
const ZERO: [&str; 6] = [
    "pg_table_size",
    "pg_relation_size",
    "pg_total_relation_size",
    "pg_indexes_size",
    "pg_database_size",
    "pg_my_temp_schema",
];

const ENCODING: &str = "UTF8";
const ENCODING_NUMBER: i32 = 6;

/// All of them.
pub fn all() -> Vec<Arc<ScalarUDF>> {
    let each = |names: &[&'static str], value: ScalarValue| -> Vec<Constant> {
        names
            .iter()
            .map(|name| Constant::new(name, value.clone()))
            .collect()
    };
    let lists = [
        each(&TRUE, ScalarValue::Boolean(Some(true))),
        each(&FALSE, ScalarValue::Boolean(Some(false))),
        each(&NULL_TEXT, ScalarValue::Utf8(None)),
        each(&ZERO, ScalarValue::Int64(Some(0))),
        each(
            &["getdatabaseencoding", "pg_client_encoding"],
            ScalarValue::Utf8(Some(ENCODING.into())),
        ),
        // There is one encoding, so whoever asks can only mean that.
        each(
            &["pg_char_to_encoding"],
            ScalarValue::Int32(Some(ENCODING_NUMBER)),
        ),
    ];
    let constants = lists.into_iter().flatten();
    constants
        .map(|constant| Arc::new(ScalarUDF::new_from_impl(constant)))
        .collect()
}

/// A function of any arguments with one value.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Constant {
    name: &'static str,
    value: ScalarValue,
    signature: Signature,
}

impl Constant {
    fn new(name: &'static str, value: ScalarValue) -> Self {
        let any = vec![TypeSignature::Nullary, TypeSignature::VariadicAny];
        Constant {
            name,
            value,
            signature: Signature::one_of(any, Volatility::Stable),
        }
    }
}

impl ScalarUDFImpl for Constant {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(self.value.data_type())
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        Ok(ColumnarValue::Scalar(self.value.clone()))
    }
}
