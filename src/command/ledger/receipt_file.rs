//! Receipt files: written by `wallet receipt`, checked by `ledger verify-receipt` with nothing but the network's id.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::Path;

use anyhow::Result;
use cryptomind_core::receipt;
use cryptomind_protocol::block::ReceiptFile;
use cryptomind_protocol::{ErrorBody, GenesisHash, codec};
use serde_json::json;

use super::entry::{self, TransferRow};
use crate::output::Output;
use crate::{exit, moment};

/// No receipt file is longer: the largest entry of a block, with a genesis.
const MAX_BYTES: u64 = 1024 * 1024;

const AGAIN: &str = "ask whoever sent it for the file again, or for the receipt's id, and fetch it yourself: \
                     cryptomind wallet receipt cmr1… -o FILE";

/// Refuses what a coordinator, or a file, does not prove.
pub fn check(file: &ReceiptFile, network: &GenesisHash) -> Result<(), ErrorBody> {
    receipt::prove(file, network).map_err(|unproven| {
        ErrorBody::user(
            "receipt_unproven",
            format!("this proves nothing: {unproven}"),
        )
        .with_help(AGAIN)
    })
}

/// Writes a proven receipt into a new file, on the disk when this returns. Gives its length in bytes.
pub fn save(receipt: &ReceiptFile, path: &Path) -> Result<usize, ErrorBody> {
    let bytes = codec::encode(receipt);
    let write = || {
        let mut file = File::create_new(path)?;
        file.write_all(&bytes)?;
        file.sync_all()
    };
    write().map_err(|error| exit::file(path, &error))?;
    Ok(bytes.len())
}

/// Reads a receipt file that is whole and as this software writes it.
fn read(path: &Path) -> Result<ReceiptFile, ErrorBody> {
    let cannot = |error| exit::file(path, &error);
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(cannot)?;
    file.take(MAX_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(cannot)?;
    if bytes.len() as u64 > MAX_BYTES {
        let message = format!("{} has more than {MAX_BYTES} bytes", path.display());
        return Err(ErrorBody::user("receipt_too_large", message)
            .with_help("a receipt file has about 2 KB: is this one?"));
    }
    let damaged = |what: &dyn std::fmt::Display| {
        let message = format!("{} is no whole receipt file: {what}", path.display());
        ErrorBody::user("receipt_damaged", message).with_help(AGAIN)
    };
    let file: ReceiptFile = codec::decode(&bytes).map_err(|error| damaged(&error))?;
    if codec::encode(&file) != bytes {
        return Err(damaged(&"it is not written as this software writes it"));
    }
    Ok(file)
}

/// Checks a file and says what it proves.
pub fn verify(output: Output, path: &Path, network: &GenesisHash) -> Result<()> {
    let file = read(path)?;
    check(&file, network)?;
    let view = entry::view(file.id, &file.entry, &file.receipt);
    let header = &file.header;
    let proven = json!({
        "proven": true, "receipt": file.id, "network": network, "name": file.genesis.name,
        "height": header.height, "time": header.time, "block": header.hash(),
        "what": view.what, "by": view.by, "transfers": view.transfers,
    });
    output.value(&proven, || {
        let transfers = view.transfers.iter().map(TransferRow::cells);
        format!(
            "proven: the coordinator of {} put this into block {} on {} UTC\n\
             receipt  {}\nentry    {}{}\n\n{}",
            file.genesis.name,
            header.height,
            moment::text(header.time),
            file.id,
            view.what,
            view.signed_by(),
            crate::output::table(&TransferRow::HEADER, transfers),
        )
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(path: &Path) -> String {
        read(path).map_or_else(|error| error.code, |_| "ok".into())
    }

    #[test]
    fn what_is_no_receipt_file_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("r");
        assert_eq!(code(&path), "file");
        let write = |bytes: &[u8]| std::fs::write(&path, bytes).unwrap();
        for bytes in [&b""[..], b"x", &[0xa0], &[0xbf; 100]] {
            write(bytes);
            assert_eq!(code(&path), "receipt_damaged");
        }
        write(&vec![0; MAX_BYTES as usize + 1]);
        assert_eq!(code(&path), "receipt_too_large");
    }
}
