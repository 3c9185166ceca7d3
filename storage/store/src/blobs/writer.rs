//! Taking a blob in.

use cryptomind_blob::{BlobError, HashTree, Part, VerifyError, chunk_count};
use cryptomind_protocol::BlobId;

use super::room::Reservation;
use crate::StoreError;

/// Writes one blob. Dropped before [`BlobWriter::finish`], it leaves what came for the next writer
/// of the same blob, unless there were two at once: then only the first one's part is kept.
#[derive(Debug)]
pub struct BlobWriter {
    id: BlobId,
    bytes: u64,
    /// `None` when the blob is stored already.
    upload: Option<Upload>,
}

/// The part is closed before its reservation ends and another writer may open it.
#[derive(Debug)]
struct Upload {
    part: Part,
    reservation: Reservation,
}

impl BlobWriter {
    pub(super) const fn of_stored(id: BlobId, bytes: u64) -> Self {
        Self {
            id,
            bytes,
            upload: None,
        }
    }

    pub(super) fn open(reservation: Reservation) -> Result<Self, StoreError> {
        let (id, bytes) = (reservation.id(), reservation.bytes());
        let path = reservation.part();
        let part = Part::open(path, id).map_err(StoreError::io("open", path))?;
        Ok(Self {
            id,
            bytes,
            upload: Some(Upload { part, reservation }),
        })
    }

    /// The blob that is written.
    pub const fn id(&self) -> BlobId {
        self.id
    }

    /// Its length in bytes, as announced.
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The first chunk that is wanted; the number of chunks when none is.
    pub fn first_missing_chunk(&self) -> u64 {
        match &self.upload {
            Some(upload) => upload.part.first_missing_chunk(),
            None => chunk_count(self.bytes),
        }
    }

    /// Takes the hashes of all chunks.
    ///
    /// # Errors
    /// When they are not those of this blob at the announced length, or cannot be written.
    pub fn begin(&mut self, hashes: Vec<[u8; 32]>) -> Result<(), StoreError> {
        match &mut self.upload {
            Some(upload) => Ok(upload.part.begin(self.bytes, hashes)?),
            None => check_hashes(self.id, self.bytes, hashes),
        }
    }

    /// Verifies the next chunk and writes it; one that is here already is verified and left.
    ///
    /// # Errors
    /// When it is damaged, leaves a gap, comes before the hashes, or cannot be written.
    pub fn chunk(&mut self, index: u64, data: &[u8]) -> Result<(), StoreError> {
        match &mut self.upload {
            Some(upload) => Ok(upload.part.chunk(index, data)?),
            None => refuse_chunk(index, chunk_count(self.bytes)),
        }
    }

    /// Stores the blob: when this returns, it survives a power cut and may be acknowledged.
    ///
    /// # Errors
    /// When chunks are missing or the disk fails. What came stays for the next writer.
    pub fn finish(self) -> Result<(), StoreError> {
        self.upload.map_or(Ok(()), Upload::finish)
    }
}

impl Upload {
    fn finish(self) -> Result<(), StoreError> {
        // In this order, so that the part is closed first on every way out.
        let Self { reservation, part } = self;
        let shared = reservation.shared();
        let (id, layout) = (part.id(), &shared.layout);
        let _held = shared.hold(id);
        if shared.lock().stored.contains_key(&id) {
            let path = reservation.part();
            return part.discard().map_err(StoreError::io("remove", path));
        }
        layout.make_shelf(&id)?;
        let tree = part.finish(&layout.data(&id), Some(&layout.tree(&id)))?;
        shared.record(id, tree.bytes())
    }
}

/// The sender of a blob that is stored already may still send its hashes: no harm, but no lie.
fn check_hashes(expected: BlobId, bytes: u64, hashes: Vec<[u8; 32]>) -> Result<(), StoreError> {
    let got = HashTree::from_chunks(bytes, hashes)
        .map_err(BlobError::from)?
        .root();
    if got == expected {
        Ok(())
    } else {
        Err(BlobError::WrongRoot { expected, got }.into())
    }
}

fn refuse_chunk(index: u64, count: u64) -> Result<(), StoreError> {
    if index < count {
        return Ok(());
    }
    Err(BlobError::from(VerifyError::NoSuchChunk { index, count }).into())
}
