//! What clients send: frames cut from the byte stream and decoded into [`Frontend`] messages.
//!
//! Decoding is total: every read is checked against the frame, so bytes that are no message end
//! as an [`Error`] (SQLSTATE 08P01) and never as a panic or a read past the frame. A frame is
//! only buffered as its bytes arrive, so a length that lies costs no memory.

use bytes::{Buf, Bytes, BytesMut};

use super::backend::ProtocolError;

/// The largest message accepted; a longer one ends the connection.
const MESSAGE_BYTES_MAX: usize = 256 << 20;
/// The largest startup packet accepted, as in PostgreSQL.
const STARTUP_BYTES_MAX: usize = 10_000;

const SSL_REQUEST: u32 = 80_877_103;
const GSS_REQUEST: u32 = 80_877_104;
const CANCEL_REQUEST: u32 = 80_877_102;

type Result<T> = std::result::Result<T, ProtocolError>;

/// The first packet of a connection, which has no type byte.
#[derive(Debug, PartialEq)]
pub(super) enum Opening {
    Ssl,
    Gss,
    Cancel {
        process: i32,
        secret: i32,
    },
    /// `minor` is the protocol's minor version; the major one is 3.
    Startup {
        minor: u16,
        parameters: Vec<(String, String)>,
    },
}

/// What Describe and Close name.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Target {
    Statement,
    Portal,
}

/// The Bind message: values for a prepared statement's parameters.
#[derive(Debug, PartialEq)]
pub(super) struct Bind {
    pub(super) portal: String,
    pub(super) statement: String,
    pub(super) formats: Vec<i16>,
    /// `None` is NULL.
    pub(super) values: Vec<Option<Bytes>>,
    pub(super) result_formats: Vec<i16>,
}

/// A message of a client that has started up.
#[derive(Debug, PartialEq)]
pub(super) enum Frontend {
    Query(String),
    Parse {
        name: String,
        sql: String,
        types: Vec<u32>,
    },
    Bind(Bind),
    Describe {
        target: Target,
        name: String,
    },
    /// `max_rows` of zero means all of them.
    Execute {
        portal: String,
        max_rows: usize,
    },
    Close {
        target: Target,
        name: String,
    },
    Flush,
    Sync,
    Terminate,
    FunctionCall,
    /// COPY data, completion or failure with no COPY going on; ignored as PostgreSQL does.
    StrayCopy,
}

/// Cuts and decodes the opening packet, or `None` when more bytes are needed.
pub(super) fn opening(input: &mut BytesMut) -> Result<Option<Opening>> {
    let Some(length) = peek_length(input, 0) else {
        return Ok(None);
    };
    if !(8..=STARTUP_BYTES_MAX).contains(&length) {
        return Err(ProtocolError::new("invalid length of startup packet"));
    }
    if input.len() < length {
        return Ok(None);
    }
    let mut body = Reader(input.split_to(length).freeze());
    body.u32()?;
    let code = body.u32()?;
    match code {
        SSL_REQUEST => Ok(Some(Opening::Ssl)),
        GSS_REQUEST => Ok(Some(Opening::Gss)),
        CANCEL_REQUEST => {
            let (process, secret) = (body.i32()?, body.i32()?);
            Ok(Some(Opening::Cancel { process, secret }))
        }
        _ if code >> 16 == 3 => startup(body, (code & 0xffff) as u16).map(Some),
        _ => Err(ProtocolError {
            sqlstate: "0A000",
            message: format!(
                "unsupported frontend protocol {}.{}: server supports 3.0",
                code >> 16,
                code & 0xffff
            ),
        }),
    }
}

fn startup(mut body: Reader, minor: u16) -> Result<Opening> {
    let mut parameters = vec![];
    loop {
        let name = body.string()?;
        if name.is_empty() {
            break;
        }
        parameters.push((name, body.string()?));
    }
    Ok(Opening::Startup { minor, parameters })
}

/// Cuts and decodes the next message, or `None` when more bytes are needed.
pub(super) fn message(input: &mut BytesMut) -> Result<Option<Frontend>> {
    let Some(length) = peek_length(input, 1) else {
        return Ok(None);
    };
    if !(4..=MESSAGE_BYTES_MAX).contains(&length) {
        return Err(ProtocolError::new("invalid message length"));
    }
    if input.len() < length + 1 {
        return Ok(None);
    }
    let mut frame = input.split_to(length + 1).freeze();
    let kind = frame.get_u8();
    frame.advance(4);
    decode(kind, Reader(frame)).map(Some)
}

fn decode(kind: u8, mut body: Reader) -> Result<Frontend> {
    let message = match kind {
        b'Q' => Frontend::Query(body.string()?),
        b'P' => Frontend::Parse {
            name: body.string()?,
            sql: body.string()?,
            types: body.counted(Reader::u32)?,
        },
        b'B' => Frontend::Bind(Bind {
            portal: body.string()?,
            statement: body.string()?,
            formats: body.counted(Reader::i16)?,
            values: body.counted(Reader::value)?,
            result_formats: body.counted(Reader::i16)?,
        }),
        b'D' => Frontend::Describe {
            target: body.target()?,
            name: body.string()?,
        },
        b'E' => Frontend::Execute {
            portal: body.string()?,
            max_rows: usize::try_from(body.i32()?).unwrap_or(0),
        },
        b'C' => Frontend::Close {
            target: body.target()?,
            name: body.string()?,
        },
        b'H' => Frontend::Flush,
        b'S' => Frontend::Sync,
        b'X' => Frontend::Terminate,
        b'F' => return Ok(Frontend::FunctionCall),
        b'd' | b'c' | b'f' => return Ok(Frontend::StrayCopy),
        _ => {
            return Err(ProtocolError::new(format!(
                "invalid frontend message type {kind}"
            )));
        }
    };
    match body.0.is_empty() {
        true => Ok(message),
        false => Err(ProtocolError::new("invalid message format")),
    }
}

/// The length word after `skip` bytes, if it has arrived; a negative one becomes too large.
fn peek_length(input: &BytesMut, skip: usize) -> Option<usize> {
    let word: [u8; 4] = input.get(skip..skip + 4)?.try_into().ok()?;
    Some(usize::try_from(i32::from_be_bytes(word)).unwrap_or(usize::MAX))
}

/// Reads a frame's fields; every read checks that the frame holds them.
struct Reader(Bytes);

impl Reader {
    fn take(&mut self, len: usize) -> Result<Bytes> {
        if self.0.len() < len {
            return Err(ProtocolError::new("insufficient data left in message"));
        }
        Ok(self.0.split_to(len))
    }

    fn u32(&mut self) -> Result<u32> {
        Ok(self.take(4)?.get_u32())
    }

    fn i32(&mut self) -> Result<i32> {
        Ok(self.take(4)?.get_i32())
    }

    fn i16(&mut self) -> Result<i16> {
        Ok(self.take(2)?.get_i16())
    }

    fn string(&mut self) -> Result<String> {
        let Some(end) = self.0.iter().position(|&b| b == 0) else {
            return Err(ProtocolError::new("invalid string in message"));
        };
        let text = self.take(end)?;
        self.0.advance(1);
        String::from_utf8(text.into()).map_err(|_| ProtocolError {
            sqlstate: "22021",
            message: "invalid byte sequence for encoding \"UTF8\"".into(),
        })
    }

    fn value(&mut self) -> Result<Option<Bytes>> {
        match self.i32()? {
            -1 => Ok(None),
            len => {
                let len = usize::try_from(len)
                    .map_err(|_| ProtocolError::new("invalid parameter length in message"))?;
                self.take(len).map(Some)
            }
        }
    }

    fn target(&mut self) -> Result<Target> {
        match self.take(1)?[0] {
            b'S' => Ok(Target::Statement),
            b'P' => Ok(Target::Portal),
            other => {
                let message = format!("invalid subtype {other} in DESCRIBE or CLOSE message");
                Err(ProtocolError::new(message))
            }
        }
    }

    fn counted<T>(&mut self, read: fn(&mut Reader) -> Result<T>) -> Result<Vec<T>> {
        let count = self.i16()? as u16;
        (0..count).map(|_| read(self)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn framed(kind: u8, body: &[u8]) -> BytesMut {
        let mut bytes = BytesMut::from(&[kind][..]);
        bytes.extend_from_slice(&(body.len() as i32 + 4).to_be_bytes());
        bytes.extend_from_slice(body);
        bytes
    }

    #[test]
    fn a_message_is_decoded_once_it_is_whole() {
        let whole = framed(b'Q', b"select 1\0");
        for cut in 0..whole.len() {
            let mut part = BytesMut::from(&whole[..cut]);
            assert_eq!(message(&mut part).unwrap(), None, "{cut}");
        }
        let mut input = whole.clone();
        input.extend_from_slice(&framed(b'S', b""));
        assert_eq!(
            message(&mut input).unwrap(),
            Some(Frontend::Query("select 1".into()))
        );
        assert_eq!(message(&mut input).unwrap(), Some(Frontend::Sync));
        assert!(input.is_empty());
    }

    #[test]
    fn counts_and_lengths_that_lie_are_refused() {
        let short_types = framed(b'P', b"\0select 1\0\xff\xff\0\0\0\x17");
        let long_value = framed(b'B', b"\0\0\0\0\0\x01\x7f\xff\xff\xff");
        let negative_value = framed(b'B', b"\0\0\0\0\0\x01\xff\xff\xff\xf0\0\0");
        let no_terminator = framed(b'Q', b"select 1");
        let trailing = framed(b'S', b"x");
        for mut input in [
            short_types,
            long_value,
            negative_value,
            no_terminator,
            trailing,
        ] {
            assert!(message(&mut input).is_err());
        }
        assert!(message(&mut BytesMut::from(&b"Q\xff\xff\xff\xff"[..])).is_err());
        assert!(message(&mut BytesMut::from(&b"Q\0\0\0\x03"[..])).is_err());
    }

    #[test]
    fn the_opening_packet_names_user_and_database() {
        let body = b"\0\x03\0\0user\0root\0database\0dev\0\0";
        let mut input = BytesMut::from(&(body.len() as i32 + 4).to_be_bytes()[..]);
        input.extend_from_slice(body);
        let parameters = vec![
            ("user".to_string(), "root".to_string()),
            ("database".to_string(), "dev".to_string()),
        ];
        assert_eq!(
            opening(&mut input).unwrap(),
            Some(Opening::Startup {
                minor: 0,
                parameters
            })
        );
    }

    proptest! {
        #[test]
        fn any_bytes_decode_or_fail(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut input = BytesMut::from(&bytes[..]);
            while let Ok(Some(_)) = message(&mut input) {}
            let _ = opening(&mut BytesMut::from(&bytes[..]));
        }

        #[test]
        fn any_body_decodes_or_fails(kind in any::<u8>(), body in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = message(&mut framed(kind, &body));
        }
    }
}
