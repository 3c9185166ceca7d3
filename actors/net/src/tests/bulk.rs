//! Blobs between two ends, and what a sink does about a peer that lies.

use cryptomind_protocol::blob::{CHUNK_BYTES, GetOk, HasOk, METHODS, PutOk, Request};
use cryptomind_protocol::error::Answer;
use cryptomind_protocol::frame::ALPN_BLOB;
use cryptomind_protocol::transaction::StoredReceipt;
use cryptomind_protocol::{BlobId, ErrorBody, ErrorClass, Signature, Signed, Timestamp};

use super::{SOON, key, pair};
use crate::bulk::{self, Origin, Sink};
use crate::{Connection, Exchange, Receiver, Sender};

/// Verifies against hashes that it knows: what the crate of blobs does with a hash tree.
#[derive(Default)]
struct Memory {
    expected: Vec<[u8; 32]>,
    data: Vec<u8>,
    chunks: u64,
}

fn hash(data: &[u8]) -> [u8; 32] {
    *blake3::hash(data).as_bytes()
}

fn hashes(data: &[u8]) -> Vec<[u8; 32]> {
    data.chunks(CHUNK_BYTES).map(hash).collect()
}

impl Memory {
    fn expecting(data: &[u8]) -> Self {
        Self {
            expected: hashes(data),
            ..Self::default()
        }
    }
}

impl Sink for Memory {
    fn begin(&mut self, _bytes: u64, hashes: Vec<[u8; 32]>) -> Result<(), ErrorBody> {
        if hashes == self.expected {
            Ok(())
        } else {
            Err(ErrorBody::network("corrupt_blob", "other hashes"))
        }
    }

    fn chunk(&mut self, index: u64, data: &[u8]) -> Result<(), ErrorBody> {
        if hash(data) != self.expected[index as usize] {
            let message = format!("chunk {index} is corrupt");
            return Err(ErrorBody::network("corrupt_chunk", message));
        }
        self.data.extend_from_slice(data);
        self.chunks += 1;
        Ok(())
    }
}

/// Sends `data`, with the chunk `corrupt` falsified.
struct Source {
    data: Vec<u8>,
    corrupt: Option<u64>,
}

impl Origin for Source {
    fn bytes(&self) -> u64 {
        self.data.len() as u64
    }

    fn hashes(&self) -> Vec<[u8; 32]> {
        hashes(&self.data)
    }

    fn chunk(&mut self, index: u64) -> Result<Vec<u8>, ErrorBody> {
        let mut chunk = self
            .data
            .chunks(CHUNK_BYTES)
            .nth(index as usize)
            .unwrap()
            .to_vec();
        if self.corrupt == Some(index) {
            chunk[7] ^= 1;
        }
        Ok(chunk)
    }
}

fn source(len: usize) -> Source {
    let data = (0..len).map(|at| (at * 31 % 251) as u8).collect();
    Source {
        data,
        corrupt: None,
    }
}

fn ticket() -> Signed {
    Signed {
        payload: vec![],
        signer: key(9).public(),
        signature: Signature::new([0; 64]),
    }
}

async fn asked(connection: &Connection) -> (Request, Exchange) {
    let exchange = connection.accept_request().await.unwrap();
    (exchange.decode(&METHODS).unwrap(), exchange)
}

/// Serves one get from `origin`.
async fn serve_get(connection: &Connection, mut origin: Source) -> Result<(), ErrorBody> {
    let (request, exchange) = asked(connection).await;
    let Request::Get { first_chunk, .. } = request else {
        panic!("{request:?}")
    };
    let (mut sender, _receiver) = exchange.into_stream();
    let served = bulk::serve_get(&mut sender, first_chunk, &mut origin).await;
    sender.finish().await.unwrap();
    served
}

/// Serves one put into `sink`, whose first chunks up to `have` are there already.
async fn serve_put(connection: &Connection, have: u64, sink: &mut Memory) -> Result<(), ErrorBody> {
    let (request, exchange) = asked(connection).await;
    let Request::Put { blob, bytes, .. } = request else {
        panic!("{request:?}")
    };
    let (mut sender, mut receiver): (Sender, Receiver) = exchange.into_stream();
    let done = bulk::serve_put(&mut sender, &mut receiver, bytes, have, sink).await;
    let receipt = || StoredReceipt::sign(blob, bytes, Timestamp::from_ms(5), &key(1));
    let answer = Answer::from(done.clone().map(|()| receipt()));
    sender.frame(&answer).await.unwrap();
    sender.finish().await.unwrap();
    done
}

const LENGTHS: [usize; 6] = [
    0,
    1,
    CHUNK_BYTES - 1,
    CHUNK_BYTES,
    CHUNK_BYTES + 1,
    40 * CHUNK_BYTES + 17,
];

#[tokio::test]
async fn a_blob_arrives_whole_or_from_the_wanted_chunk_on() {
    let (caller, served) = pair(ALPN_BLOB).await;
    for len in LENGTHS {
        let all = source(len);
        let chunks = hashes(&all.data).len() as u64;
        for first in [0, chunks / 2, chunks] {
            let mut sink = Memory::expecting(&all.data);
            let id = BlobId::of_bytes(&all.data);
            let ticket = ticket();
            let (got, given) = tokio::join!(
                bulk::get(&caller, id, first, &ticket, &mut sink),
                serve_get(&served, source(len))
            );
            given.unwrap();
            let rest = &all.data[(first as usize * CHUNK_BYTES).min(len)..];
            assert_eq!(got, Ok(rest.len() as u64));
            assert_eq!(sink.data, rest);
        }
    }
}

#[tokio::test]
async fn a_corrupt_chunk_ends_a_get_with_the_sinks_word() {
    let (caller, served) = pair(ALPN_BLOB).await;
    let honest = source(20 * CHUNK_BYTES);
    let mut sink = Memory::expecting(&honest.data);
    let lying = Source {
        corrupt: Some(3),
        ..source(20 * CHUNK_BYTES)
    };
    let (id, ticket) = (BlobId::of_bytes(&honest.data), ticket());
    let (got, _) = tokio::join!(
        bulk::get(&caller, id, 0, &ticket, &mut sink),
        serve_get(&served, lying)
    );
    assert_eq!(got.unwrap_err().code, "corrupt_chunk");
    assert_eq!(sink.chunks, 3);
}

#[tokio::test]
async fn another_blobs_hashes_are_refused_before_any_chunk() {
    let (caller, served) = pair(ALPN_BLOB).await;
    let mut sink = Memory::expecting(b"what was asked for");
    let ticket = ticket();
    let (got, _) = tokio::join!(
        bulk::get(&caller, BlobId::new([1; 32]), 0, &ticket, &mut sink),
        serve_get(&served, source(3 * CHUNK_BYTES))
    );
    assert_eq!(
        (got.unwrap_err().code.as_str(), sink.chunks),
        ("corrupt_blob", 0)
    );
}

#[tokio::test]
async fn a_server_that_cannot_go_on_breaks_the_stream() {
    struct Failing(Source);
    impl Origin for Failing {
        fn bytes(&self) -> u64 {
            self.0.bytes()
        }
        fn hashes(&self) -> Vec<[u8; 32]> {
            self.0.hashes()
        }
        fn chunk(&mut self, index: u64) -> Result<Vec<u8>, ErrorBody> {
            match index {
                0 => self.0.chunk(0),
                _ => Err(ErrorBody::internal("the disk is gone")),
            }
        }
    }
    let (caller, served) = pair(ALPN_BLOB).await;
    let origin = source(4 * CHUNK_BYTES);
    let mut sink = Memory::expecting(&origin.data);
    let serving = async {
        let (_, exchange) = asked(&served).await;
        let (mut sender, _receiver) = exchange.into_stream();
        let done = bulk::serve_get(&mut sender, 0, &mut Failing(origin)).await;
        sender.finish().await.unwrap();
        done
    };
    let ticket = ticket();
    let (got, given) = tokio::join!(
        bulk::get(&caller, BlobId::new([1; 32]), 0, &ticket, &mut sink),
        serving
    );
    assert_eq!(given.unwrap_err().code, "internal");
    let error = got.unwrap_err();
    assert_eq!(
        (error.code.as_str(), error.class),
        ("stream_reset", ErrorClass::Network)
    );
}

#[tokio::test]
async fn impossible_ranges_and_sizes_are_refused_by_either_side() {
    let (caller, served) = pair(ALPN_BLOB).await;
    let mut sink = Memory::default();
    let ticket = ticket();
    let (got, given) = tokio::join!(
        bulk::get(&caller, BlobId::new([1; 32]), 9, &ticket, &mut sink),
        serve_get(&served, source(CHUNK_BYTES))
    );
    assert_eq!(got.unwrap_err().code, "chunk_out_of_range");
    assert_eq!(given.unwrap_err().code, "chunk_out_of_range");
    let lying = async {
        let (_, exchange) = asked(&served).await;
        exchange.answer(Ok(GetOk { bytes: u64::MAX })).await;
    };
    let (got, ()) = tokio::join!(
        bulk::get(&caller, BlobId::new([1; 32]), 0, &ticket, &mut sink),
        lying
    );
    assert_eq!(got.unwrap_err().code, "blob_too_large");
}

#[tokio::test]
async fn a_put_sends_what_is_missing_and_brings_a_receipt() {
    let (caller, served) = pair(ALPN_BLOB).await;
    for len in LENGTHS {
        let mut origin = source(len);
        let have = hashes(&origin.data).len() as u64 / 2;
        let id = BlobId::of_bytes(&origin.data);
        let mut sink = Memory::expecting(&origin.data);
        let ticket = ticket();
        let (receipt, done) = tokio::join!(
            bulk::put(&caller, id, &ticket, &mut origin),
            serve_put(&served, have, &mut sink)
        );
        done.unwrap();
        let receipt = receipt.unwrap();
        assert_eq!((receipt.blob, receipt.bytes), (id, len as u64));
        assert_eq!(sink.data, origin.data[have as usize * CHUNK_BYTES..]);
    }
}

#[tokio::test]
async fn a_corrupting_caller_is_refused_and_told_why() {
    let (caller, served) = pair(ALPN_BLOB).await;
    // Far more than fits the windows: the caller is still sending when it is refused.
    let mut lying = Source {
        corrupt: Some(2),
        ..source(300 * CHUNK_BYTES)
    };
    let mut sink = Memory::expecting(&lying.data);
    let ticket = ticket();
    let (receipt, done) = tokio::join!(
        bulk::put(&caller, BlobId::new([2; 32]), &ticket, &mut lying),
        serve_put(&served, 0, &mut sink)
    );
    assert_eq!(done.unwrap_err().code, "corrupt_chunk");
    assert_eq!(receipt.unwrap_err().code, "corrupt_chunk");
    assert_eq!(sink.chunks, 2);
}

#[tokio::test]
async fn bytes_beyond_the_blob_are_refused() {
    let (caller, served) = pair(ALPN_BLOB).await;
    let data = source(10).data;
    let mut sink = Memory::expecting(&data);
    let sending = async {
        let (mut sender, mut receiver) = caller.open().await.unwrap();
        let request = Request::Put {
            blob: BlobId::new([2; 32]),
            bytes: 10,
            ticket: ticket(),
        };
        sender.frame(&request).await.unwrap();
        let ok: Option<Answer<PutOk>> = receiver.frame(SOON).await.unwrap();
        assert_eq!(ok, Some(Answer::Ok(PutOk { first_chunk: 0 })));
        sender.bytes(hashes(&data).as_flattened()).await.unwrap();
        sender.bytes(&data).await.unwrap();
        sender.bytes(b"more").await.unwrap();
        sender.finish().await.unwrap();
        let _: Option<Answer<StoredReceipt>> = receiver.frame(SOON).await.unwrap();
    };
    let (done, ()) = tokio::join!(serve_put(&served, 0, &mut sink), sending);
    assert_eq!(done.unwrap_err().code, "malformed_transfer");
}

#[tokio::test]
async fn has_is_a_question_with_one_answer() {
    let (caller, served) = pair(ALPN_BLOB).await;
    let there = HasOk {
        present: true,
        bytes: 12,
    };
    let ticket = ticket();
    let (has, ()) = tokio::join!(bulk::has(&caller, BlobId::new([3; 32]), &ticket), async {
        let (request, exchange) = asked(&served).await;
        assert!(matches!(request, Request::Has { .. }));
        exchange.answer(Ok(there.clone())).await;
    });
    assert_eq!(has, Ok(there));
}
