//! The byte stream of one connection with its two buffers.
//!
//! Both buffers are bounded: input stops being read while a statement runs and enough of the next
//! message has arrived, output is written out as soon as it passes [`OUTPUT_BYTES`], so a client
//! that doesn't read makes its own statement wait and costs no memory.

use std::future::Future;
use std::io;
use std::pin::pin;

use bytes::BytesMut;
use ruslo_engine::CancelHandle;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::shutdown::{Shutdown, ended};

/// Output is handed to the socket once it is this long.
pub(super) const OUTPUT_BYTES: usize = 64 << 10;
/// How much a client may send ahead while its statement runs.
const READ_AHEAD_BYTES: usize = 64 << 10;

/// A TCP or TLS stream.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send + Sync {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send + Sync> Stream for T {}

pub(super) struct Wire {
    stream: Box<dyn Stream>,
    pub(super) input: BytesMut,
    pub(super) output: BytesMut,
    /// Turns true when the server goes down.
    shutdown: Shutdown,
}

/// Why waiting for input ended.
pub(super) enum Event {
    /// More bytes are in the input buffer.
    Bytes,
    /// The client is gone.
    Closed,
    /// The server goes down.
    Shutdown,
}

impl Wire {
    pub(super) fn new(stream: Box<dyn Stream>, shutdown: Shutdown) -> Self {
        let (input, output) = (BytesMut::with_capacity(4096), BytesMut::with_capacity(4096));
        Wire {
            stream,
            input,
            output,
            shutdown,
        }
    }

    /// Gives the stream back, for a TLS handshake on it. Nothing may be buffered.
    pub(super) fn into_stream(self) -> (Box<dyn Stream>, Shutdown) {
        (self.stream, self.shutdown)
    }

    /// Waits for more input.
    pub(super) async fn read(&mut self) -> io::Result<Event> {
        let Wire {
            stream,
            input,
            shutdown,
            ..
        } = self;
        tokio::select! {
            read = stream.read_buf(input) => match read? {
                0 => Ok(Event::Closed),
                _ => Ok(Event::Bytes),
            },
            () = ended(shutdown) => Ok(Event::Shutdown),
        }
    }

    /// Writes out everything.
    pub(super) async fn flush(&mut self) -> io::Result<()> {
        self.stream.write_all(&self.output).await?;
        self.output.clear();
        if self.output.capacity() > 4 * OUTPUT_BYTES {
            self.output = BytesMut::with_capacity(4096);
        }
        self.stream.flush().await
    }

    /// Writes out the buffer if it is long enough.
    pub(super) async fn flush_if_full(&mut self) -> io::Result<()> {
        match self.output.len() >= OUTPUT_BYTES {
            true => self.flush().await,
            false => Ok(()),
        }
    }

    /// Runs a statement, cancelling it when the client hangs up or the server goes down.
    ///
    /// The statement is always run to its (then early) end, so its session stays usable.
    pub(super) async fn attend<T>(
        &mut self,
        cancel: &CancelHandle,
        work: impl Future<Output = T>,
    ) -> T {
        let mut work = pin!(work);
        let mut watching = true;
        loop {
            let may_read = watching && self.input.len() < READ_AHEAD_BYTES;
            tokio::select! {
                biased;
                done = &mut work => return done,
                event = self.read(), if may_read => {
                    if !matches!(event, Ok(Event::Bytes)) {
                        cancel.cancel();
                        watching = false;
                    }
                }
            }
        }
    }
}
