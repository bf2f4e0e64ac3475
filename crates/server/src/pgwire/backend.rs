//! What the server sends: messages gathered in a buffer, and errors in PostgreSQL's fields.

use bytes::{BufMut, BytesMut};
use pgwire::messages::Message;
use pgwire::messages::response::{ErrorResponse, NoticeResponse};
use ruslo_engine::{Error, Notice};

/// A breach of the protocol, or a refusal that no [`ruslo_engine::ErrorKind`] stands for.
#[derive(Debug, PartialEq)]
pub(super) struct ProtocolError {
    pub(super) sqlstate: &'static str,
    pub(super) message: String,
}

impl ProtocolError {
    /// `protocol_violation`.
    pub(super) fn new(message: impl Into<String>) -> Self {
        ProtocolError {
            sqlstate: "08P01",
            message: message.into(),
        }
    }
}

/// Why a message was answered with an ErrorResponse; the connection goes on.
#[derive(Debug)]
pub(super) enum Failure {
    Protocol(ProtocolError),
    Sql(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Sql(error)
    }
}

impl From<ProtocolError> for Failure {
    fn from(error: ProtocolError) -> Self {
        Failure::Protocol(error)
    }
}

impl Failure {
    pub(super) fn sqlstate(&self) -> &'static str {
        match self {
            Failure::Protocol(error) => error.sqlstate,
            Failure::Sql(error) => error.kind.sqlstate(),
        }
    }

    /// Shorthand for the refusals of the extended protocol.
    pub(super) fn state(sqlstate: &'static str, message: impl Into<String>) -> Self {
        Failure::Protocol(ProtocolError {
            sqlstate,
            message: message.into(),
        })
    }
}

/// Appends `message`, which is one of pgwire's whose length is bounded by what we put into it.
pub(super) fn put(output: &mut BytesMut, message: &impl Message) {
    if let Err(error) = message.encode(output) {
        // Only an over-long message fails, before a byte of it is written but its type and length.
        tracing::error!(%error, "a message to a client could not be encoded");
    }
}

/// Appends an ErrorResponse.
pub(super) fn put_failure(output: &mut BytesMut, severity: &str, failure: &Failure) {
    let (message, detail, hint) = match failure {
        Failure::Protocol(error) => (&error.message, None, None),
        Failure::Sql(error) => (&error.message, error.detail.as_ref(), error.hint.as_ref()),
    };
    let mut fields = fields(severity, failure.sqlstate(), message);
    fields.extend(detail.map(|text| (b'D', printable(text))));
    fields.extend(hint.map(|text| (b'H', printable(text))));
    put(output, &ErrorResponse::new(fields));
}

/// Appends a NoticeResponse.
pub(super) fn put_notice(output: &mut BytesMut, notice: &Notice) {
    let sqlstate = match notice.severity {
        "WARNING" => "01000",
        _ => "00000",
    };
    put(
        output,
        &NoticeResponse::new(fields(notice.severity, sqlstate, &notice.message)),
    );
}

fn fields(severity: &str, sqlstate: &str, message: &str) -> Vec<(u8, String)> {
    vec![
        (b'S', severity.to_string()),
        (b'V', severity.to_string()),
        (b'C', sqlstate.to_string()),
        (b'M', printable(message)),
    ]
}

/// A NUL would end the field early and garble the rest of the message.
fn printable(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

/// Starts a message of unknown length; [`end_message`] fills the length in.
pub(super) fn begin_message(output: &mut BytesMut, kind: u8) -> usize {
    output.put_u8(kind);
    let at = output.len();
    output.put_i32(0);
    at
}

/// Fills in the length of the message begun at `at`; false if it is too long to be sent, in
/// which case it is taken back.
pub(super) fn end_message(output: &mut BytesMut, at: usize) -> bool {
    match i32::try_from(output.len() - at) {
        Ok(length) => {
            output[at..at + 4].copy_from_slice(&length.to_be_bytes());
            true
        }
        Err(_) => {
            output.truncate(at - 1);
            false
        }
    }
}
