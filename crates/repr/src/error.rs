//! The one error that crosses a border between crates, and its SQLSTATE.
//!
//! Kinds are named by what the reader of the message can do about it. Inside a crate finer
//! `thiserror` enums are fine; what leaves it is an [`Error`].

use std::fmt;

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What the user must do about an error; mapped once to SQLSTATE in [`ErrorKind::sqlstate`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum ErrorKind {
    /// The statement does not parse: correct the SQL.
    Syntax,
    /// A relation, source, sink … that is not there.
    UndefinedObject,
    /// A table, view or source that is not there.
    UndefinedTable,
    UndefinedColumn,
    UndefinedFunction,
    AmbiguousColumn,
    /// A schema that is not there.
    UndefinedSchema,
    /// The name is taken.
    DuplicateObject,
    DuplicateSchema,
    /// A table with two primary keys, or a column that stands in one twice.
    InvalidTable,
    /// A position in ORDER BY or GROUP BY where no column is.
    InvalidColumnReference,
    DuplicateColumn,
    /// Types do not fit each other.
    DatatypeMismatch,
    /// A value that its type cannot hold, as `'abc'::int`.
    InvalidText,
    OutOfRange,
    DivisionByZero,
    /// An argument for which there is no logarithm.
    Logarithm,
    /// An argument for which there is no root or power.
    Power,
    /// A substring of less than no length.
    Substring,
    /// A text that is longer than its column allows.
    TooLong,
    InvalidDatetime,
    /// A date, time or interval that its type cannot hold, as the 30th of February.
    DatetimeOverflow,
    NotNull,
    UniqueViolation,
    /// A subquery that stands for one value gave several rows.
    Cardinality,
    /// An aggregate or column used where grouping forbids it.
    Grouping,
    /// A parameter, option or setting with a value that is not allowed.
    InvalidParameter,
    /// Other objects depend on this one: drop them first or say CASCADE.
    DependentObjects,
    /// The object is of another kind than the statement needs.
    WrongObjectType,
    /// Not built (yet): say it another way.
    Unsupported,
    /// Deeper than there is room for: say it in fewer levels.
    TooComplex,
    /// The statement needs more memory than it may have.
    OutOfMemory,
    /// Wrong user or password.
    Authentication,
    /// Cancelled by the user.
    Cancelled,
    /// A broker, Redis or other system outside cannot be reached or refuses.
    External,
    /// The server is going down.
    ShuttingDown,
    /// The server does not answer yet, and will soon.
    StartingUp,
    /// The statement is not allowed in the state the session is in.
    InvalidState,
    /// The transaction has failed: ROLLBACK first.
    FailedTransaction,
    /// The statement needs a transaction block: BEGIN first.
    NoTransaction,
    UndefinedSavepoint,
    /// A prepared statement that is not there.
    UndefinedStatement,
    /// Our fault: please report it.
    Internal,
}

impl ErrorKind {
    /// The five-character code of PostgreSQL's Appendix A.
    pub fn sqlstate(self) -> &'static str {
        use ErrorKind::*;
        match self {
            Syntax => "42601",
            UndefinedObject => "42704",
            UndefinedTable => "42P01",
            UndefinedColumn => "42703",
            UndefinedFunction => "42883",
            AmbiguousColumn => "42702",
            UndefinedSchema => "3F000",
            DuplicateObject => "42P07",
            DuplicateSchema => "42P06",
            InvalidTable => "42P16",
            InvalidColumnReference => "42P10",
            DuplicateColumn => "42701",
            DatatypeMismatch => "42804",
            InvalidText => "22P02",
            OutOfRange => "22003",
            DivisionByZero => "22012",
            Logarithm => "2201E",
            Power => "2201F",
            Substring => "22011",
            TooLong => "22001",
            InvalidDatetime => "22007",
            DatetimeOverflow => "22008",
            NotNull => "23502",
            UniqueViolation => "23505",
            Cardinality => "21000",
            Grouping => "42803",
            InvalidParameter => "22023",
            DependentObjects => "2BP01",
            WrongObjectType => "42809",
            Unsupported => "0A000",
            TooComplex => "54001",
            OutOfMemory => "53200",
            Authentication => "28P01",
            Cancelled => "57014",
            External => "58000",
            ShuttingDown => "57P01",
            StartingUp => "57P03",
            InvalidState => "55000",
            FailedTransaction => "25P02",
            NoTransaction => "25P01",
            UndefinedSavepoint => "3B001",
            UndefinedStatement => "26000",
            Internal => "XX000",
        }
    }
}

/// An error as the user sees it. It never holds a secret.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Error {
    pub kind: ErrorKind,
    pub message: String,
    /// What happened in more words, PostgreSQL's `DETAIL`.
    pub detail: Option<String>,
    /// What to do, PostgreSQL's `HINT`.
    pub hint: Option<String>,
}

impl Error {
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Error {
            kind,
            message: message.into(),
            detail: None,
            hint: None,
        }
    }

    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, message)
    }

    pub fn unsupported(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unsupported, message)
    }

    pub fn with_detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

impl From<arrow::error::ArrowError> for Error {
    fn from(error: arrow::error::ArrowError) -> Self {
        use arrow::error::ArrowError::*;
        match error {
            DivideByZero => Error::new(ErrorKind::DivisionByZero, "division by zero"),
            ArithmeticOverflow(m) => Error::new(ErrorKind::OutOfRange, m),
            CastError(m) | ParseError(m) => Error::new(ErrorKind::InvalidText, m),
            other => Error::internal(other.to_string()),
        }
    }
}
