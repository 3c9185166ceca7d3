//! Receipts: storage nodes' words that an item's files are there.

use std::collections::BTreeSet;

use cryptomind_protocol::item::{MAX_FILES, Manifest};
use cryptomind_protocol::transaction::StoredReceipt;
use cryptomind_protocol::{BlobId, ErrorBody, NodeId};

/// Refuses a manifest unless each file has a receipt: of a storage node of this network, signed by
/// it, over the file's address and length. Each signature is verified once.
pub(super) fn check(
    manifest: &Manifest,
    receipts: &[StoredReceipt],
    is_storage: impl Fn(&NodeId) -> bool,
) -> Result<(), ErrorBody> {
    if receipts.len() > MAX_FILES {
        let message = format!(
            "{} receipts: one a file, at most {MAX_FILES}",
            receipts.len()
        );
        return Err(ErrorBody::user("too_many_receipts", message));
    }
    let stored = acknowledged(receipts, is_storage);
    let missing = |bytes, blob| !stored.contains(&(blob, bytes));
    match manifest
        .files
        .iter()
        .find(|file| missing(file.bytes, file.blob))
    {
        None => Ok(()),
        Some(file) => {
            let message = format!(
                "no storage node of this network has acknowledged `{}` ({} bytes, {})",
                file.name, file.bytes, file.blob
            );
            Err(ErrorBody::user("file_not_stored", message)
                .with_help("upload it, and publish with the receipt that the upload returned"))
        }
    }
}

fn acknowledged(
    receipts: &[StoredReceipt],
    is_storage: impl Fn(&NodeId) -> bool,
) -> BTreeSet<(BlobId, u64)> {
    let good = |r: &&StoredReceipt| r.version == 1 && is_storage(&r.node) && r.is_signed();
    let good = receipts.iter().filter(good);
    good.map(|receipt| (receipt.blob, receipt.bytes)).collect()
}
