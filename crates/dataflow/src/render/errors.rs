//! Error rows: what a view could not compute, kept beside its rows.

use std::rc::Rc;
use std::sync::Arc;

use arrow::array::{ArrayRef, StringArray};
use ruslo_repr::{Error, Result, RowBytes, RowCodec};

use crate::protocol::error_schema;

/// Encodes error rows.
pub(crate) struct ErrorRows(RowCodec);

impl ErrorRows {
    pub(crate) fn new() -> Result<ErrorRows> {
        Ok(ErrorRows(RowCodec::new(&error_schema().types())?))
    }

    pub(crate) fn encode(&self, expression: &str, message: &str) -> Result<RowBytes> {
        let column = |text: &str| -> ArrayRef { Arc::new(StringArray::from(vec![text])) };
        let rows = self.0.encode(&[column(expression), column(message)], 1)?;
        Ok(rows.row(0).to_vec())
    }
}

/// Tells the engine about what no view can go on from: a fault of ours, not of the data.
#[derive(Clone)]
pub(crate) struct Reporter(Rc<dyn Fn(Error)>);

impl Reporter {
    pub(crate) fn new(report: impl Fn(Error) + 'static) -> Self {
        Reporter(Rc::new(report))
    }

    pub(crate) fn report(&self, error: Error) {
        (self.0)(error);
    }

    /// The value, or `None` and a report.
    pub(crate) fn unless_ok<T>(&self, result: Result<T>) -> Option<T> {
        result.map_err(|error| self.report(error)).ok()
    }
}
