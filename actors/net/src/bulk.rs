//! Blobs over a stream: the protocol `cryptomind-blob/1`, both sides of it.
//!
//! After [`GetOk`], and on a put after [`PutOk`], the blob's chunk hashes travel raw, 32 bytes a chunk and all of
//! them, then the chunks from the first wanted one on, then FIN. Whoever receives hands both to a [`Sink`], which
//! verifies: this module counts, bounds and times, and knows nothing of hash trees or files.
//!
//! Invariants: no chunk reaches a sink before its `begin` has accepted the hashes; a sink's refusal ends the
//! transfer at once; memory is one chunk and the hashes (1/2048 of the blob) however large the blob is; a peer
//! that moves no chunk for [`STALL_LIMIT`] is given up. Sinks and origins are called on the caller's own
//! task: their work is one chunk of 64 KiB at a time.

use std::time::Duration;

use cryptomind_protocol::blob::{CHUNK_BYTES, GetOk, HasOk, PutOk, Request};
use cryptomind_protocol::error::Answer;
use cryptomind_protocol::item::MAX_FILE_BYTES;
use cryptomind_protocol::transaction::StoredReceipt;
use cryptomind_protocol::{BlobId, ErrorBody, Signed};
use serde::de::DeserializeOwned;

use crate::connection::Connection;
use crate::stream::{Receiver, Sender};

/// A peer that moves no chunk for this long has stalled.
pub const STALL_LIMIT: Duration = crate::stream::STALL_LIMIT;
/// Answers that need no more than an index or a disk's acknowledgement.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);
/// Bytes of a chunk's hash.
const HASH_BYTES: usize = 32;
/// Hashes that are read or written at a time.
const HASHES_AT_ONCE: usize = 1024;

/// Where received chunks go.
pub trait Sink: Send {
    /// Takes the blob's length and the hashes of all its chunks, before any chunk.
    ///
    /// # Errors
    /// Where the hashes are not those of the wanted blob; the transfer ends with this error.
    fn begin(&mut self, bytes: u64, hashes: Vec<[u8; 32]>) -> Result<(), ErrorBody>;

    /// Takes chunk number `index`. Chunks come in order.
    ///
    /// # Errors
    /// Where the chunk does not have its hash or cannot be kept; the transfer ends with this error.
    fn chunk(&mut self, index: u64, data: &[u8]) -> Result<(), ErrorBody>;
}

/// Where sent chunks come from.
pub trait Origin: Send {
    /// The blob's length.
    fn bytes(&self) -> u64;

    /// The hashes of all its chunks.
    fn hashes(&self) -> Vec<[u8; 32]>;

    /// Chunk number `index`: 64 KiB, the last one what is left.
    ///
    /// # Errors
    /// Where it cannot be read any more; the transfer breaks off with this error.
    fn chunk(&mut self, index: u64) -> Result<Vec<u8>, ErrorBody>;
}

impl<T: Origin> Origin for &mut T {
    fn bytes(&self) -> u64 {
        (**self).bytes()
    }

    fn hashes(&self) -> Vec<[u8; 32]> {
        (**self).hashes()
    }

    fn chunk(&mut self, index: u64) -> Result<Vec<u8>, ErrorBody> {
        (**self).chunk(index)
    }
}

/// Whether the peer has a blob.
///
/// # Errors
/// The peer's own, or one of class network.
pub async fn has(
    connection: &Connection,
    blob: BlobId,
    ticket: &Signed,
) -> Result<HasOk, ErrorBody> {
    let ticket = ticket.clone();
    connection
        .request(&Request::Has { blob, ticket }, ANSWER_LIMIT)
        .await
}

/// Fetches a blob's chunks from `first_chunk` on into `sink`. Returns the bytes of chunks that came.
///
/// # Errors
/// The peer's refusal, the sink's, or one of class network: `timeout`, `cut_short`, `stream_reset`, `connection_lost`,
/// `malformed_transfer`.
pub async fn get(
    connection: &Connection,
    blob: BlobId,
    first_chunk: u64,
    ticket: &Signed,
    sink: &mut dyn Sink,
) -> Result<u64, ErrorBody> {
    let (mut sender, mut receiver) = connection.open().await?;
    let request = Request::Get {
        blob,
        first_chunk,
        ticket: ticket.clone(),
    };
    sender.frame(&request).await?;
    sender.finish().await?;
    let GetOk { bytes } = answer(&mut receiver).await?;
    receive(&mut receiver, bytes, first_chunk, sink).await
}

/// Stores a blob: sends what the peer lacks of it, and returns the peer's receipt.
///
/// # Errors
/// The peer's refusal, the origin's, or one of class network.
pub async fn put(
    connection: &Connection,
    blob: BlobId,
    ticket: &Signed,
    origin: &mut dyn Origin,
) -> Result<StoredReceipt, ErrorBody> {
    let (mut sender, mut receiver) = connection.open().await?;
    let request = Request::Put {
        blob,
        bytes: origin.bytes(),
        ticket: ticket.clone(),
    };
    sender.frame(&request).await?;
    let PutOk { first_chunk } = answer(&mut receiver).await?;
    match send(&mut sender, first_chunk, origin).await {
        Ok(()) => sender.finish().await?,
        // The peer wants no more of it: why not is in its answer.
        Err(error) if error.code == "stream_stopped" => {}
        Err(error) => {
            sender.abandon();
            return Err(error);
        }
    }
    answer(&mut receiver).await
}

async fn answer<T: DeserializeOwned>(receiver: &mut Receiver) -> Result<T, ErrorBody> {
    let answer: Option<Answer<T>> = receiver.frame(ANSWER_LIMIT).await?;
    answer.ok_or_else(no_answer)?.into()
}

fn no_answer() -> ErrorBody {
    ErrorBody::network("cut_short", "the peer ended the stream without an answer")
}

/// Answers a get: [`GetOk`], all hashes, the chunks from `first_chunk` on. On an error the peer sees a broken
/// stream, never a short blob. The caller finishes the sender.
///
/// # Errors
/// `chunk_out_of_range`, which has been answered; the origin's; one of class network.
pub async fn serve_get(
    sender: &mut Sender,
    first_chunk: u64,
    origin: &mut dyn Origin,
) -> Result<(), ErrorBody> {
    let bytes = origin.bytes();
    if let Err(error) = in_range(bytes, first_chunk) {
        sender.frame(&Answer::<GetOk>::Error(error.clone())).await?;
        return Err(error);
    }
    sender.frame(&Answer::Ok(GetOk { bytes })).await?;
    let sent = send(sender, first_chunk, origin).await;
    if sent.is_err() {
        sender.reset();
    }
    sent
}

/// Carries out a put: [`PutOk`] with the first chunk that is missing here, then hashes and chunks into `sink`. The
/// caller answers with the receipt, or with the error.
///
/// # Errors
/// `blob_too_large`, `chunk_out_of_range`, `malformed_transfer`; the sink's; one of class network.
pub async fn serve_put(
    sender: &mut Sender,
    receiver: &mut Receiver,
    bytes: u64,
    first_chunk: u64,
    sink: &mut dyn Sink,
) -> Result<(), ErrorBody> {
    in_range(bytes, first_chunk)?;
    sender.frame(&Answer::Ok(PutOk { first_chunk })).await?;
    let received = receive(receiver, bytes, first_chunk, sink).await;
    if received.is_err() {
        receiver.stop();
    }
    received.map(drop)
}

const fn chunk_count(bytes: u64) -> u64 {
    bytes.div_ceil(CHUNK_BYTES as u64)
}

/// Bytes of chunk number `index`, which exists.
fn chunk_len(bytes: u64, index: u64) -> usize {
    let rest = bytes - index * CHUNK_BYTES as u64;
    rest.min(CHUNK_BYTES as u64) as usize
}

fn in_range(bytes: u64, first_chunk: u64) -> Result<(), ErrorBody> {
    if bytes > MAX_FILE_BYTES {
        let message = format!("a blob of {bytes} bytes, at most {MAX_FILE_BYTES} are taken");
        return Err(ErrorBody::user("blob_too_large", message));
    }
    let chunks = chunk_count(bytes);
    if first_chunk > chunks {
        let message = format!("chunk {first_chunk} of a blob that has {chunks}");
        return Err(ErrorBody::user("chunk_out_of_range", message));
    }
    Ok(())
}

fn malformed(message: &str) -> ErrorBody {
    ErrorBody::network("malformed_transfer", message)
}

/// Hashes and chunks into the sink. Returns the bytes of chunks.
async fn receive(
    receiver: &mut Receiver,
    bytes: u64,
    first_chunk: u64,
    sink: &mut dyn Sink,
) -> Result<u64, ErrorBody> {
    in_range(bytes, first_chunk)?;
    sink.begin(bytes, read_hashes(receiver, chunk_count(bytes)).await?)?;
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut received = 0;
    for index in first_chunk..chunk_count(bytes) {
        let chunk = &mut buffer[..chunk_len(bytes, index)];
        receiver.exact(chunk, STALL_LIMIT).await?;
        sink.chunk(index, chunk)?;
        received += chunk.len() as u64;
    }
    if receiver.ended(STALL_LIMIT).await? {
        Ok(received)
    } else {
        Err(malformed("more bytes came than the blob has"))
    }
}

/// Memory grows with what has come: an announced length alone takes none.
async fn read_hashes(receiver: &mut Receiver, count: u64) -> Result<Vec<[u8; 32]>, ErrorBody> {
    let mut hashes = Vec::new();
    let mut buffer = vec![0; HASHES_AT_ONCE * HASH_BYTES];
    while (hashes.len() as u64) < count {
        let now = (count - hashes.len() as u64).min(HASHES_AT_ONCE as u64) as usize;
        let part = &mut buffer[..now * HASH_BYTES];
        receiver.exact(part, STALL_LIMIT).await?;
        hashes.extend_from_slice(part.as_chunks::<HASH_BYTES>().0);
    }
    Ok(hashes)
}

/// Hashes and chunks out of the origin. The caller ends the stream.
async fn send(
    sender: &mut Sender,
    first_chunk: u64,
    origin: &mut dyn Origin,
) -> Result<(), ErrorBody> {
    let (bytes, hashes) = (origin.bytes(), origin.hashes());
    in_range(bytes, first_chunk)?;
    if hashes.len() as u64 != chunk_count(bytes) {
        return Err(ErrorBody::internal(
            "a blob with another number of hashes than chunks",
        ));
    }
    for part in hashes.chunks(HASHES_AT_ONCE) {
        sender.bytes(part.as_flattened()).await?;
    }
    for index in first_chunk..chunk_count(bytes) {
        let chunk = origin.chunk(index)?;
        if chunk.len() != chunk_len(bytes, index) {
            return Err(ErrorBody::internal(format!(
                "chunk {index} has a wrong length"
            )));
        }
        sender.bytes(&chunk).await?;
    }
    Ok(())
}
