use proptest::prelude::*;

use super::*;
use crate::key::Nonce;

fn header() -> Header {
    Header {
        version: 1,
        network: GenesisHash::new([7; 32]),
        height: 258,
        time: Timestamp::from_ms(1_800_000_000_000),
        parent: Hash::new([1; 32]),
        entries: Hash::new([2; 32]),
        receipts: Hash::new([3; 32]),
        state: Hash::new([4; 32]),
        count: 3,
        total: 1 << 33,
    }
}

fn key(n: u8) -> SecretKey {
    SecretKey::from_seed([n; 32])
}

/// Whoever changes what a header's hash covers, or how, makes another network.
#[test]
fn a_headers_hash_is_pinned() {
    let pinned = "aa5a7ff2d002889601ac6a33c28ab08e8cc69f3cd80f9bb558da690b6019548c";
    assert_eq!(header().hash().to_string(), pinned);
    let first = Header::parent_of_first(&header().network);
    assert_eq!(first.as_bytes(), header().network.as_bytes());
}

#[test]
fn every_part_of_a_header_is_in_its_hash() {
    let (hash, other) = (header().hash(), Hash::new([9; 32]));
    let changes: [fn(&mut Header, Hash); 10] = [
        |h, _| h.version = 2,
        |h, other| h.network = GenesisHash::new(*other.as_bytes()),
        |h, _| h.height += 1,
        |h, _| h.time = Timestamp::from_ms(7),
        |h, other| h.parent = other,
        |h, other| h.entries = other,
        |h, other| h.receipts = other,
        |h, other| h.state = other,
        |h, _| h.count += 1,
        |h, _| h.total += 1,
    ];
    for (number, change) in changes.into_iter().enumerate() {
        let mut changed = header();
        change(&mut changed, other);
        assert_ne!(changed.hash(), hash, "{number}");
    }
}

#[test]
fn a_certificate_is_one_signers_over_one_header() {
    let hash = header().hash();
    let certificate = Certificate::sign(&hash, &key(1));
    assert!(certificate.is_signed_by(&key(1).public(), &hash));
    assert!(!certificate.is_signed_by(&key(2).public(), &hash));
    assert!(!certificate.is_signed_by(&key(1).public(), &Hash::new([9; 32])));
    // Another's signature under one's own name, and a signature over the bare hash, are none.
    let (_, signature) = certificate.signatures[0];
    let renamed = |signature| Certificate {
        signatures: vec![(key(2).public(), signature)],
    };
    assert!(!renamed(signature).is_signed_by(&key(2).public(), &hash));
    let bare = key(2).sign(hash.as_bytes());
    assert!(!renamed(bare).is_signed_by(&key(2).public(), &hash));
    let nothing = Certificate { signatures: vec![] };
    assert!(!nothing.is_signed_by(&key(1).public(), &hash));
}

/// Among several signatures each signer's own is found.
#[test]
fn several_may_sign_one_header() {
    let hash = header().hash();
    let signed = |n| Certificate::sign(&hash, &key(n)).signatures[0];
    let both = Certificate {
        signatures: vec![signed(1), signed(2)],
    };
    assert!(
        [1, 2]
            .map(key)
            .iter()
            .all(|k| both.is_signed_by(&k.public(), &hash))
    );
    assert!(!both.is_signed_by(&key(3).public(), &hash));
}

fn account() -> impl Strategy<Value = AccountId> {
    any::<[u8; 20]>().prop_map(AccountId::new)
}

fn node() -> impl Strategy<Value = NodeId> {
    any::<[u8; 32]>().prop_map(NodeId::new)
}

fn task() -> impl Strategy<Value = TaskId> {
    any::<[u8; 16]>().prop_map(TaskId::new)
}

fn amount() -> impl Strategy<Value = Amount> {
    any::<u64>().prop_map(Amount::from_base_units)
}

fn share() -> impl Strategy<Value = Share> {
    (account(), node(), amount()).prop_map(Share::from)
}

fn terms() -> impl Strategy<Value = HoldTerms> {
    let items = proptest::collection::vec((account(), amount()), 0..3);
    (
        any::<u64>(),
        items,
        [amount(), amount(), amount()],
        any::<u32>(),
    )
        .prop_map(
            |(expires, items, [work_max, storage_per_mib, storage_max], network_fee_ppm)| {
                HoldTerms {
                    expires: Timestamp::from_ms(expires),
                    work_max,
                    items,
                    storage_per_mib,
                    storage_max,
                    network_fee_ppm,
                }
            },
        )
}

fn ending() -> impl Strategy<Value = Ending> {
    let stored = proptest::collection::vec((account(), any::<u64>()), 0..3);
    let withheld = proptest::collection::vec((node(), any::<u32>()), 0..3);
    (any::<bool>(), stored, withheld).prop_map(|(items_used, stored, withheld)| Ending {
        items_used,
        stored,
        withheld,
    })
}

fn decision() -> impl Strategy<Value = Decision> {
    let shares = proptest::collection::vec(share(), 0..3);
    prop_oneof![
        Just(Decision::Mint {}),
        Just(Decision::Due {}),
        terms().prop_map(|terms| Decision::OpenHold { terms }),
        (task(), any::<u64>(), shares).prop_map(|(task, checkpoint, shares)| Decision::Earn {
            task,
            checkpoint,
            shares
        }),
        (task(), ending()).prop_map(|(task, ending)| Decision::Settle { task, ending }),
        (account(), node(), task()).prop_map(|(account, node, task)| Decision::Forfeit {
            account,
            node,
            task
        }),
    ]
}

fn entry() -> impl Strategy<Value = Entry> {
    let signed = (any::<Vec<u8>>(), any::<[u8; 32]>(), any::<[u8; 32]>()).prop_map(
        |(payload, signer, half)| Signed {
            payload,
            signer: PublicKey::new(signer),
            signature: Signature::new(std::array::from_fn(|i| half[i % 32])),
        },
    );
    let decisions = proptest::collection::vec(decision(), 0..3);
    (proptest::option::of(signed), decisions).prop_map(|(transaction, decisions)| Entry {
        transaction,
        decisions,
    })
}

fn transfer() -> impl Strategy<Value = Transfer> {
    let reason = prop_oneof![
        Just(Reason::Send),
        Just(Reason::Work),
        Just(Reason::RewardFund)
    ];
    let (task, node) = (proptest::option::of(task()), proptest::option::of(node()));
    (account(), account(), amount(), reason, task, node).prop_map(Transfer::from)
}

fn receipt() -> impl Strategy<Value = Receipt> {
    let outcome = prop_oneof![
        amount().prop_map(|amount| Outcome::Moved { amount }),
        (task(), amount()).prop_map(|(task, held)| Outcome::Posted { task, held }),
        ".*".prop_map(|nickname| Outcome::Registered { nickname }),
    ];
    let transfers = proptest::collection::vec(transfer(), 0..4);
    (proptest::option::of(outcome), transfers)
        .prop_map(|(outcome, transfers)| Receipt { outcome, transfers })
}

fn block() -> impl Strategy<Value = Block> {
    let entries = proptest::collection::vec(entry(), 0..4);
    let receipts = proptest::collection::vec(receipt(), 0..4);
    (any::<u64>(), any::<u32>(), entries, receipts).prop_map(
        |(height, count, entries, receipts)| {
            let header = Header {
                height,
                count,
                ..header()
            };
            Block {
                certificate: Certificate::sign(&header.hash(), &key(1)),
                header,
                entries,
                receipts,
            }
        },
    )
}

proptest! {
    /// A block that was stored and read is the same value and the same bytes, and so are its parts alone.
    #[test]
    fn blocks_come_back_as_they_went(block in block()) {
        let bytes = codec::encode(&block);
        let read: Block = codec::decode(&bytes).unwrap();
        prop_assert_eq!(codec::encode(&read), bytes);
        prop_assert_eq!(&read, &block);
        for entry in &block.entries {
            let bytes = codec::encode(entry);
            prop_assert_eq!(codec::encode(&codec::decode::<Entry>(&bytes).unwrap()), bytes);
        }
        for receipt in &block.receipts {
            let bytes = codec::encode(receipt);
            prop_assert_eq!(codec::encode(&codec::decode::<Receipt>(&bytes).unwrap()), bytes);
        }
    }
}

/// The bytes that an account signed lie in the chain as they came, whatever order their keys have.
#[test]
fn a_payload_is_kept_as_it_was_signed() {
    let nonce = codec::encode(&Nonce::new([1; 16]));
    let payload = [&[0xa1, 0x61, b'z'][..], &nonce].concat();
    let signed = Signed {
        payload: payload.clone(),
        signer: key(1).public(),
        signature: Signature::new([5; 64]),
    };
    let entry = Entry {
        transaction: Some(signed.clone()),
        decisions: vec![],
    };
    let read: Entry = codec::decode(&codec::encode(&entry)).unwrap();
    assert_eq!(read.transaction, Some(signed));
}
