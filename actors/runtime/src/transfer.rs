//! Blobs from and to storage nodes, for whoever holds a ticket.
//!
//! A download goes into a file that is verified chunk by chunk and can be taken up again; every source is tried in turn.
//! An upload comes from memory and ends with a receipt that is checked before anybody relies on it. The wire is
//! the business of `cryptomind_net::bulk`, the hashes that of `cryptomind-blob`. How fast each went is kept as a
//! [sample](Samples) of the link.

use std::path::Path;
use std::sync::Arc;

use cryptomind_blob::{CHUNK_BYTES, FileWriter, HashTree};
use cryptomind_net::samples::{Metered, Samples};
use cryptomind_net::{Connection, Endpoint, bulk};
use cryptomind_protocol::blob::Source;
use cryptomind_protocol::frame::ALPN_BLOB;
use cryptomind_protocol::transaction::StoredReceipt;
use cryptomind_protocol::{BlobId, ErrorBody, NodeAddress, SecretKey, Signed};
use tracing::debug;

/// Moves blobs as one node.
#[derive(Clone)]
pub struct Transfer {
    endpoint: Endpoint,
    key: SecretKey,
    samples: Arc<Samples>,
}

/// A blob in memory, ready to be put.
#[derive(Clone)]
pub struct Packed {
    bytes: Arc<[u8]>,
    tree: Arc<HashTree>,
}

impl Packed {
    /// Hashes the bytes.
    pub fn new(bytes: Vec<u8>) -> Self {
        let tree = Arc::new(HashTree::of_bytes(&bytes));
        Self {
            bytes: bytes.into(),
            tree,
        }
    }

    /// The blob's id.
    pub fn id(&self) -> BlobId {
        self.tree.root()
    }

    /// Its length, bytes.
    pub fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

/// A blob in memory, as it is sent.
pub(crate) struct Reading<'a>(pub(crate) &'a Packed);

impl bulk::Origin for Reading<'_> {
    fn bytes(&self) -> u64 {
        self.0.len()
    }

    fn hashes(&self) -> Vec<[u8; 32]> {
        self.0.tree.chunks().to_vec()
    }

    fn chunk(&mut self, index: u64) -> Result<Vec<u8>, ErrorBody> {
        let whole = &self.0.bytes;
        let start = usize::try_from(index)
            .ok()
            .and_then(|i| i.checked_mul(CHUNK_BYTES));
        let start = start.filter(|at| *at < whole.len());
        let start = start.ok_or_else(|| ErrorBody::internal(format!("no chunk {index}")))?;
        Ok(whole[start..(start + CHUNK_BYTES).min(whole.len())].to_vec())
    }
}

/// A download of a blob whose length is known.
struct Writing {
    writer: FileWriter,
    blob: BlobId,
    bytes: u64,
}

impl bulk::Sink for Writing {
    fn begin(&mut self, bytes: u64, hashes: Vec<[u8; 32]>) -> Result<(), ErrorBody> {
        if bytes != self.bytes {
            return Err(ErrorBody::network(
                "wrong_length",
                format!(
                    "{} has {} bytes by its manifest, the source says {bytes}",
                    self.blob, self.bytes
                ),
            ));
        }
        Ok(self.writer.begin(bytes, hashes)?)
    }

    fn chunk(&mut self, index: u64, data: &[u8]) -> Result<(), ErrorBody> {
        Ok(self.writer.chunk(index, data)?)
    }
}

fn no_source(what: &str, blob: &BlobId) -> ErrorBody {
    ErrorBody::network(
        "no_source",
        format!("there is no storage node to {what} {blob}"),
    )
}

impl Transfer {
    /// Moves blobs over `endpoint`, as the node with `key`: tickets must name it.
    pub fn new(endpoint: Endpoint, key: SecretKey) -> Self {
        Self {
            endpoint,
            key,
            samples: Arc::default(),
        }
    }

    /// What it learnt of links.
    pub(crate) fn samples(&self) -> &Samples {
        &self.samples
    }

    async fn dial(&self, source: &Source) -> Result<Connection, ErrorBody> {
        let address = format!("cm://{}@{}", source.node, source.address);
        let address: NodeAddress = address
            .parse()
            .map_err(|e| ErrorBody::network("bad_source", e))?;
        self.endpoint.dial(&address, ALPN_BLOB, &self.key).await
    }

    /// Fetches a blob of `bytes` bytes into `path` from the first source that has it, going on where an earlier try
    /// was broken off. Returns the bytes that came over the network.
    ///
    /// # Errors
    /// The last source's, where none could give the whole blob.
    pub async fn get(
        &self,
        sources: &[Source],
        ticket: &Signed,
        (blob, bytes): (BlobId, u64),
        path: &Path,
    ) -> Result<u64, ErrorBody> {
        let mut last = no_source("fetch", &blob);
        let mut received = 0;
        for source in sources {
            match self.get_from(source, ticket, (blob, bytes), path).await {
                Ok(more) => return Ok(received + more),
                Err((more, error)) => {
                    debug!("{blob} from {}: {error}", source.address);
                    received += more;
                    last = error;
                }
            }
        }
        Err(last)
    }

    async fn get_from(
        &self,
        source: &Source,
        ticket: &Signed,
        (blob, bytes): (BlobId, u64),
        path: &Path,
    ) -> Result<u64, (u64, ErrorBody)> {
        let none = |error: ErrorBody| (0, error);
        let connection = self.dial(source).await.map_err(none)?;
        let disk = |e| none(ErrorBody::internal(format!("{}: {e}", path.display())));
        let writer = FileWriter::create(path, blob).map_err(disk)?;
        let first = writer.first_missing_chunk();
        let mut sink = Metered::new(Writing {
            writer,
            blob,
            bytes,
        });
        let outcome = bulk::get(&connection, blob, first, ticket, &mut sink).await;
        if outcome.is_ok() {
            self.samples.add(&connection, sink.bytes, sink.took());
        }
        connection.close("done");
        let sink = sink.inner;
        let received = outcome.map_err(|error| {
            let more = sink.writer.first_missing_chunk().saturating_sub(first);
            (more * CHUNK_BYTES as u64, error)
        })?;
        match sink.writer.finish() {
            Ok(_) => Ok(received),
            Err(e) => Err((received, e.into())),
        }
    }

    /// Stores a blob at the first source that takes it, and returns that node's checked receipt.
    ///
    /// # Errors
    /// The last source's, where none took it.
    pub async fn put(
        &self,
        sources: &[Source],
        ticket: &Signed,
        blob: &Packed,
    ) -> Result<StoredReceipt, ErrorBody> {
        let mut last = no_source("store", &blob.id());
        for source in sources {
            match self.put_to(source, ticket, blob).await {
                Ok(receipt) => return Ok(receipt),
                Err(error) => {
                    debug!("{} to {}: {error}", blob.id(), source.address);
                    last = error;
                }
            }
        }
        Err(last)
    }

    async fn put_to(
        &self,
        source: &Source,
        ticket: &Signed,
        blob: &Packed,
    ) -> Result<StoredReceipt, ErrorBody> {
        let connection = self.dial(source).await?;
        let mut origin = Metered::new(Reading(blob));
        let receipt = bulk::put(&connection, blob.id(), ticket, &mut origin).await;
        if receipt.is_ok() {
            self.samples.add(&connection, origin.bytes, origin.took());
        }
        connection.close("done");
        let receipt = receipt?;
        let fits = receipt.blob == blob.id()
            && receipt.bytes == blob.len()
            && receipt.node == source.node
            && receipt.is_signed();
        if fits {
            Ok(receipt)
        } else {
            Err(ErrorBody::network(
                "false_receipt",
                format!("{} acknowledges something else", source.node.short()),
            ))
        }
    }
}
