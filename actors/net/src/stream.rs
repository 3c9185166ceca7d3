//! Streams: frames and raw bytes, each with a cap and a deadline.
//!
//! A [`Sender`] or [`Receiver`] keeps its connection open while it lives.

use std::sync::Arc;
use std::time::Duration;

use cryptomind_protocol::frame::{self, FrameTooLarge, LENGTH_BYTES, MAX_FRAME};
use cryptomind_protocol::{ErrorBody, codec};
use quinn::{ReadError, RecvStream, SendStream, VarInt};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::connection::Shared;
use crate::fault;

/// A peer that takes no byte for this long has stalled.
pub(crate) const STALL_LIMIT: Duration = Duration::from_secs(30);

/// Why there is no frame.
#[derive(Debug)]
pub(crate) enum FrameError {
    /// The stream or its connection broke.
    Read(ReadError),
    TooLarge(FrameTooLarge),
    /// The stream ended in the middle of a frame.
    CutShort,
}

impl From<FrameError> for ErrorBody {
    fn from(error: FrameError) -> Self {
        match error {
            FrameError::Read(e) => fault::read(&e),
            FrameError::TooLarge(e) => fault::too_large(e),
            FrameError::CutShort => fault::cut_short(),
        }
    }
}

/// Reads frames of at most `max` bytes. Dropping a read in the middle loses nothing: the next one goes on.
pub(crate) struct FrameReader {
    pub(crate) stream: RecvStream,
    max: usize,
    partial: Vec<u8>,
}

impl FrameReader {
    pub(crate) fn new(stream: RecvStream, max: usize) -> Self {
        Self {
            stream,
            max,
            partial: Vec::new(),
        }
    }

    /// Gathers bytes until there are `wanted`; false where the stream ends before. Memory grows with what has
    /// come, never with what was announced.
    async fn fill(&mut self, wanted: usize) -> Result<bool, FrameError> {
        while self.partial.len() < wanted {
            let missing = wanted - self.partial.len();
            match self.stream.read_chunk(missing, true).await {
                Ok(Some(chunk)) => self.partial.extend_from_slice(&chunk.bytes),
                Ok(None) => return Ok(false),
                Err(e) => return Err(FrameError::Read(e)),
            }
        }
        Ok(true)
    }

    /// The next frame's announced length; nothing where the stream ends before it.
    pub(crate) async fn length(&mut self) -> Result<Option<usize>, FrameError> {
        if !self.fill(LENGTH_BYTES).await? {
            return if self.partial.is_empty() {
                Ok(None)
            } else {
                Err(FrameError::CutShort)
            };
        }
        let mut header = [0; LENGTH_BYTES];
        header.copy_from_slice(&self.partial[..LENGTH_BYTES]);
        frame::length(header, self.max)
            .map(Some)
            .map_err(FrameError::TooLarge)
    }

    /// The frame whose length was read before.
    pub(crate) async fn body(&mut self, length: usize) -> Result<Vec<u8>, FrameError> {
        if !self.fill(LENGTH_BYTES + length).await? {
            return Err(FrameError::CutShort);
        }
        let body = self.partial.split_off(LENGTH_BYTES);
        self.partial.clear();
        Ok(body)
    }

    /// The next frame's bytes; nothing at FIN.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<u8>>, FrameError> {
        match self.length().await? {
            Some(length) => self.body(length).await.map(Some),
            None => Ok(None),
        }
    }

    /// The next frame as a message, which must come.
    pub(crate) async fn message<T: DeserializeOwned>(&mut self) -> Result<T, ErrorBody> {
        let bytes = self.next().await?.ok_or_else(fault::cut_short)?;
        decode(&bytes)
    }
}

/// Reads a message that is no request.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ErrorBody> {
    codec::decode(bytes).map_err(|e| ErrorBody::network("malformed_frame", e))
}

/// A message in its frame.
pub(crate) fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, ErrorBody> {
    let message = codec::encode(value);
    if message.len() > MAX_FRAME {
        let message = format!(
            "a message of {} bytes does not fit a frame of {MAX_FRAME}",
            message.len()
        );
        return Err(ErrorBody::internal(message).with_help("ask for a smaller part of it"));
    }
    Ok(frame::wrap(&message))
}

/// Writes all of `bytes` within `limit`.
pub(crate) async fn write(
    stream: &mut SendStream,
    bytes: &[u8],
    limit: Duration,
) -> Result<(), ErrorBody> {
    fault::within(limit, "room for sending", async {
        stream.write_all(bytes).await.map_err(|e| fault::write(&e))
    })
    .await
}

/// The sending half of a stream.
pub struct Sender {
    stream: SendStream,
    connection: Arc<Shared>,
}

impl Sender {
    pub(crate) fn new(stream: SendStream, connection: Arc<Shared>) -> Self {
        Self { stream, connection }
    }

    /// Sends one frame, within the connection's frame deadline.
    ///
    /// # Errors
    /// `timeout`, `stream_stopped`, `connection_lost`, `connection_closed`; `internal` for a message above 1 MiB.
    pub async fn frame<T: Serialize>(&mut self, value: &T) -> Result<(), ErrorBody> {
        let frame = encode(value)?;
        write(&mut self.stream, &frame, self.connection.frame_deadline).await
    }

    /// Sends raw bytes. The peer must take them within 30 seconds: send large things in pieces.
    ///
    /// # Errors
    /// As for [`Sender::frame`].
    pub async fn bytes(&mut self, bytes: &[u8]) -> Result<(), ErrorBody> {
        write(&mut self.stream, bytes, STALL_LIMIT).await
    }

    /// Says that nothing more comes. What was sent still arrives, as long as the connection is open.
    ///
    /// # Errors
    /// None today: a peer that is gone shows at the next read.
    pub async fn finish(mut self) -> Result<(), ErrorBody> {
        // Already finished or stopped: the peer knows all that there is to know.
        let _ = self.stream.finish();
        Ok(())
    }

    /// Ends the stream, and waits until the peer has all of it, has lost interest in it, or is gone.
    pub async fn finish_and_wait(mut self) {
        let _ = self.stream.finish();
        self.stopped().await;
    }

    /// Breaks off: the peer sees a broken stream and not an ended one.
    pub fn abandon(mut self) {
        let _ = self.stream.reset(VarInt::from_u32(1));
    }

    /// Waits until the peer has lost interest in this stream, or is gone.
    pub async fn stopped(&mut self) {
        // Every outcome means that nobody listens any more.
        let _ = self.stream.stopped().await;
    }

    pub(crate) fn reset(&mut self) {
        let _ = self.stream.reset(VarInt::from_u32(1));
    }
}

/// The receiving half of a stream. Dropping it tells the peer that nobody listens any more.
pub struct Receiver {
    reader: FrameReader,
    _connection: Arc<Shared>,
}

impl Receiver {
    pub(crate) fn new(reader: FrameReader, connection: Arc<Shared>) -> Self {
        Self {
            reader,
            _connection: connection,
        }
    }

    /// The next frame, which must come whole within `limit`; nothing at FIN. Dropping the future loses nothing.
    ///
    /// # Errors
    /// `timeout`, `cut_short`, `frame_too_large`, `malformed_frame`, `stream_reset`, `connection_lost`,
    /// `connection_closed`.
    pub async fn frame<T: DeserializeOwned>(
        &mut self,
        limit: Duration,
    ) -> Result<Option<T>, ErrorBody> {
        let bytes = fault::within(limit, "a frame", self.reader.next()).await?;
        bytes.map(|bytes| decode(&bytes)).transpose()
    }

    /// Fills `buf` with raw bytes within `limit`. After a failure, or a future dropped in the middle, the stream
    /// is of no more use.
    ///
    /// # Errors
    /// As for [`Receiver::frame`].
    pub async fn exact(&mut self, buf: &mut [u8], limit: Duration) -> Result<(), ErrorBody> {
        fault::within(limit, "the next bytes", async {
            match self.reader.stream.read_exact(buf).await {
                Ok(()) => Ok(()),
                Err(quinn::ReadExactError::FinishedEarly(_)) => Err(fault::cut_short()),
                Err(quinn::ReadExactError::ReadError(e)) => Err(fault::read(&e)),
            }
        })
        .await
    }

    /// Waits for the next frame however long it takes; once its length has come, the rest must within `limit`.
    pub(crate) async fn awaited(&mut self, limit: Duration) -> Result<Option<Vec<u8>>, ErrorBody> {
        match self.reader.length().await? {
            Some(length) => fault::within(limit, "the rest of a frame", self.reader.body(length))
                .await
                .map(Some),
            None => Ok(None),
        }
    }

    /// Whether the stream ends here; waits for FIN or a byte, at most `limit`.
    pub(crate) async fn ended(&mut self, limit: Duration) -> Result<bool, ErrorBody> {
        fault::within(limit, "the end of the stream", async {
            match self.reader.stream.read_chunk(1, true).await {
                Ok(more) => Ok(more.is_none()),
                Err(e) => Err(fault::read(&e)),
            }
        })
        .await
    }

    /// Tells the peer that nobody listens any more.
    pub(crate) fn stop(&mut self) {
        // Fails only where the stream has ended by itself.
        let _ = self.reader.stream.stop(VarInt::from_u32(1));
    }
}
