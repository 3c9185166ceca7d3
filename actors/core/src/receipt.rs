//! Receipts as files: a payment that anyone can prove, years later, without a node.
//!
//! A [`ReceiptFile`] carries the genesis, one header with its certificate, one entry with its receipt, and their paths in the
//! header's two trees. Whoever knows the network's id checks all of it with [`prove`]: the genesis is the one
//! that the id names; its coordinator made the block final; the entry and what it did are in that block; the
//! transaction in it, where there is one, is signed by whom it names.

use cryptomind_protocol::block::{Block, ReceiptFile};
use cryptomind_protocol::genesis::Genesis;
use cryptomind_protocol::{GenesisHash, ReceiptId, codec};

use crate::consensus::{Consensus, Solo};
use crate::merkle::{self, Path};
use crate::transaction;

/// The version of receipt files.
pub const VERSION: u8 = 1;

/// The proof of one entry of `block`; `None` where it has no such entry.
pub fn of(block: Block, index: u32, genesis: Genesis) -> Option<ReceiptFile> {
    let at = index as usize;
    let entry = block.entries.get(at)?.clone();
    let receipt = block.receipts.get(at)?.clone();
    let entry_path = merkle::path(block.entries.iter().map(codec::encode), index.into());
    let receipt_path = merkle::path(block.receipts.iter().map(codec::encode), index.into());
    Some(ReceiptFile {
        version: VERSION,
        id: ReceiptId::at(block.header.height, index),
        genesis,
        header: block.header,
        certificate: block.certificate,
        entry,
        receipt,
        entry_path: entry_path.into(),
        receipt_path: receipt_path.into(),
    })
}

/// Why a file proves nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unproven {
    /// Made by another version of this software.
    #[error("a receipt file of version {0}; this software reads {VERSION}")]
    Version(u8),
    /// It is of another network, or its genesis was edited.
    #[error("its genesis is {found}, not {expected}")]
    Network {
        /// The network that was asked for.
        expected: GenesisHash,
        /// Hash of the genesis in the file.
        found: GenesisHash,
    },
    /// The header was not made final by the network's coordinator.
    #[error("its block was not signed by the network's coordinator")]
    Certificate,
    /// The header is not of this network, height or size.
    #[error("its header does not fit: {0}")]
    Header(&'static str),
    /// The entry is not in the block.
    #[error("the entry is not in the block")]
    Entry,
    /// The entry did something else.
    #[error("the entry did not do that")]
    Receipt,
    /// The transaction is not signed by its account.
    #[error("its transaction: {0}")]
    Transaction(String),
}

/// Checks a file against the network's id, which the reader has from elsewhere.
///
/// # Errors
/// At the first thing that does not hold.
pub fn prove(file: &ReceiptFile, network: &GenesisHash) -> Result<(), Unproven> {
    if file.version != VERSION {
        return Err(Unproven::Version(file.version));
    }
    let found = file.genesis.hash();
    if found != *network {
        let expected = *network;
        return Err(Unproven::Network { expected, found });
    }
    prove_header(file)?;
    let (index, count) = (file.id.index().into(), file.header.count.into());
    let leads = |path: &[_], root, leaf: Vec<u8>| {
        let path = Path::try_from(path.to_vec());
        path.is_ok_and(|path| path.leads(root, &leaf, index, count))
    };
    let header = &file.header;
    if !leads(
        &file.entry_path,
        &header.entries,
        codec::encode(&file.entry),
    ) {
        return Err(Unproven::Entry);
    }
    if !leads(
        &file.receipt_path,
        &header.receipts,
        codec::encode(&file.receipt),
    ) {
        return Err(Unproven::Receipt);
    }
    let signed = file.entry.transaction.clone();
    let opened = signed.map(|signed| transaction::open(signed, network));
    let opened = opened.transpose().map(drop);
    opened.map_err(|error| Unproven::Transaction(error.message))
}

fn prove_header(file: &ReceiptFile) -> Result<(), Unproven> {
    let header = &file.header;
    if header.network != file.genesis.hash() {
        return Err(Unproven::Header("it is of another network"));
    }
    if header.height != file.id.height() {
        return Err(Unproven::Header(
            "it is of another height than the receipt's id",
        ));
    }
    if file.id.index() >= header.count {
        return Err(Unproven::Header(
            "it has fewer entries than the receipt's id says",
        ));
    }
    let engine = Solo::follower(file.genesis.coordinator);
    if engine.is_final(header, &file.certificate) {
        Ok(())
    } else {
        Err(Unproven::Certificate)
    }
}
