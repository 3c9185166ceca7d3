//! Blocks as bytes: they come back as they went, are small, and no changed bit in them goes unseen.

use cryptomind_protocol::block::{Block, Entry, Receipt, Share, Transfer};
use cryptomind_protocol::codec;

use crate::samples::chain;

/// Whether someone who checks a stored block's form, its names and its signature notices that `bytes` are not
/// what the coordinator stored.
fn is_noticed(bytes: &[u8], stored: &Block) -> bool {
    let Ok(block) = codec::decode::<Block>(bytes) else {
        return true;
    };
    let hash = block.header.hash();
    let coordinator = chain::coordinator().public();
    codec::encode(&block) != bytes
        || hash != stored.header.hash()
        || !block.certificate.is_signed_by(&coordinator, &hash)
        // The header's roots are over these.
        || codec::encode(&block.entries) != codec::encode(&stored.entries)
        || codec::encode(&block.receipts) != codec::encode(&stored.receipts)
}

#[test]
fn no_flipped_bit_goes_unseen() {
    let block = chain::block();
    let mut bytes = codec::encode(&block);
    assert!(!is_noticed(&bytes, &block));
    let (mut decoded, mut different) = (0, 0);
    for bit in 0..bytes.len() * 8 {
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(is_noticed(&bytes, &block), "bit {bit}");
        if let Ok(changed) = codec::decode::<Block>(&bytes) {
            // Two forms of one value are told apart by encoding it again.
            assert!(changed != block || codec::encode(&changed) != bytes);
            decoded += 1;
            different += u32::from(changed != block);
        }
        bytes[bit / 8] ^= 1 << (bit % 8);
    }
    // Most of a block is names, hashes and signatures: each value of them is well-formed.
    assert!(decoded > 5000 && different > 5000, "{decoded} {different}");
}

/// Arrays have no keys that could be unknown: their length is their version.
#[test]
fn an_array_with_one_item_more_or_less_is_refused() {
    fn refuses<T: serde::de::DeserializeOwned>(bytes: &[u8]) {
        let value: ciborium::Value = ciborium::from_reader(bytes).unwrap();
        let items = value.into_array().unwrap();
        let read = |items: &[ciborium::Value]| {
            let mut bytes = Vec::new();
            ciborium::into_writer(&items, &mut bytes).unwrap();
            codec::decode::<T>(&bytes).map(drop)
        };
        assert_eq!(read(&items), Ok(()));
        let more = [&items[..], &[ciborium::Value::Null]].concat();
        assert!(read(&more).is_err());
        assert!(read(&items[..items.len() - 1]).is_err());
    }
    let receipt = chain::sent_for_a_fee();
    refuses::<Entry>(&codec::encode(&chain::send()));
    refuses::<Receipt>(&codec::encode(&receipt));
    refuses::<Transfer>(&codec::encode(&receipt.transfers[0]));
    let shares = chain::decisions().into_iter().find_map(|d| match d {
        cryptomind_protocol::block::Decision::Earn { shares, .. } => Some(shares),
        _ => None,
    });
    refuses::<Share>(&codec::encode(&shares.unwrap()[0]));
}

/// A million transactions fit the disk: what is kept of one is small.
#[test]
fn a_sending_takes_few_bytes() {
    let entry = codec::encode(&chain::send()).len();
    let receipt = codec::encode(&chain::sent()).len();
    let with_fee = codec::encode(&chain::sent_for_a_fee()).len();
    let file = codec::encode(&chain::receipt_file()).len();
    println!("entry {entry}, receipt {receipt}, with a fee {with_fee}, receipt file {file} bytes");
    assert!(entry <= 310, "{entry}");
    assert!(receipt <= 110, "{receipt}");
    assert!(entry + with_fee <= 520, "{with_fee}");
    assert!(file <= 2048, "{file}");
}
