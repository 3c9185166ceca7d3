use std::collections::BTreeMap;
use std::thread;

use cryptomind_protocol::block::Certificate;
use cryptomind_protocol::money::SUPPLY;
use cryptomind_protocol::transaction::Action;
use cryptomind_storage::state::Batch;

use super::super::fixture::{Maker, account, at, busy, key, units};
use super::*;

fn checked(store: &StateStore) -> Result<Report, Fault> {
    audit(store, |_| ())
}

#[test]
fn a_chain_that_holds_is_reported_as_it_is() {
    let maker = busy();
    let mut heights = Vec::new();
    let report = audit(&maker.store, |height| heights.push(height)).unwrap();
    assert_eq!(heights, [0, 1, 2, 3, 4]);
    assert_eq!(
        (report.blocks, report.entries, report.transactions),
        (5, 12, 8)
    );
    assert_eq!(report.supply, SUPPLY);
    assert_eq!((report.open_holds, report.held), (1, units(5_000)));
    assert_eq!((report.first, report.last), (at(0), at(9_100)));
    assert_eq!(report.head, maker.blocks[4].header.hash());
    let bytes = maker.blocks.iter().map(|b| b.value().len() as u64);
    assert_eq!(report.block_bytes, bytes.sum::<u64>());
}

/// Where a row lies, and what is in it.
struct Place {
    name: &'static str,
    rows: fn(&StateStore) -> Vec<KeyValue>,
    put: fn(&mut Batch, Vec<u8>, Vec<u8>),
    delete: fn(&mut Batch, &[u8]),
}

impl Place {
    fn of<R: Record>() -> Self {
        Self {
            name: R::TABLE,
            rows: |store| {
                let rows = Rows::<R>::of(store).map(Result::unwrap);
                rows.map(|row| (row.key, row.value)).collect()
            },
            put: |batch, key, value| batch.put(&Row::<R>::new(key, value)),
            delete: |batch, key| batch.delete::<R>(key),
        }
    }

    fn all() -> [Self; 9] {
        [
            Self::of::<GenesisRecord>(),
            Self::of::<Head>(),
            Self::of::<Block>(),
            Self::of::<Account>(),
            Self::of::<Hold>(),
            Self::of::<Lock>(),
            Self::of::<Delegation>(),
            Self::of::<Position>(),
            Self::of::<Passage>(),
        ]
    }

    fn change(&self, store: &StateStore, from: &[u8], to: Option<KeyValue>) {
        let mut batch = Batch::new();
        (self.delete)(&mut batch, from);
        if let Some((key, value)) = to {
            (self.put)(&mut batch, key, value);
        }
        store.commit(batch).wait().unwrap();
    }
}

/// Every byte of every row, its key included, with one bit of it changed: which one turns with the byte.
fn flip_a_bit_of_each_byte(part: usize, parts: usize) -> BTreeMap<&'static str, usize> {
    let maker = busy();
    let store = &maker.store;
    let mut flipped = BTreeMap::new();
    let mut number = 0;
    for place in Place::all() {
        for (key, value) in (place.rows)(store) {
            for byte in 0..key.len() + value.len() {
                number += 1;
                if number % parts != part {
                    continue;
                }
                let bit = 1 << ((byte + byte / 8) % 8);
                let (mut other_key, mut other) = (key.clone(), value.clone());
                match byte.checked_sub(key.len()) {
                    Some(at) => other[at] ^= bit,
                    None => other_key[byte] ^= bit,
                }
                place.change(store, &key, Some((other_key.clone(), other)));
                let found = checked(store).err();
                let fault = found.unwrap_or_else(|| panic!("{} byte {byte}", place.name));
                if place.name == Block::TABLE {
                    let height = u64::from_be_bytes(key.as_slice().try_into().unwrap());
                    assert_eq!(fault.height, Some(height), "{fault}");
                }
                place.change(store, &other_key, Some((key.clone(), value.clone())));
                *flipped.entry(place.name).or_insert(0) += 1;
            }
        }
    }
    checked(store).unwrap();
    flipped
}

#[test]
fn one_changed_bit_is_found_wherever_it_is() {
    const PARTS: usize = 2;
    let parts: Vec<_> = thread::scope(|scope| {
        let start = |part| scope.spawn(move || flip_a_bit_of_each_byte(part, PARTS));
        let threads: Vec<_> = (0..PARTS).map(start).collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    let tables = parts[0].len();
    assert_eq!(
        tables,
        Place::all().len(),
        "every table has rows: {parts:?}"
    );
}

#[test]
fn a_row_too_few_or_too_many_is_found_in_every_table() {
    let maker = busy();
    let store = &maker.store;
    for place in Place::all() {
        for (key, value) in (place.rows)(store) {
            place.change(store, &key, None);
            assert!(checked(store).is_err(), "{} without {key:?}", place.name);
            place.change(store, &key, Some((key.clone(), value.clone())));
            // In the order of keys after this one, and at the very end.
            for other in [[key.as_slice(), &[0]].concat(), vec![0xff; 40]] {
                place.change(store, &other, Some((other.clone(), value.clone())));
                assert!(checked(store).is_err(), "{} with {other:?}", place.name);
                place.change(store, &other, None);
            }
        }
    }
    checked(store).unwrap();
}

/// A maker of blocks that lies can sign its lies, but cannot make them hold.
#[test]
fn a_doctored_block_is_found_at_its_height_though_it_is_signed() {
    let edits: [fn(&mut Block); 4] = [
        |b| b.receipts[0].transfers[0].amount = units(1),
        |b| b.entries.swap(0, 1),
        |b| b.header.state = Hash::of(b"x"),
        |b| b.header.total += 1,
    ];
    for edit in edits {
        let maker = busy();
        let mut block = maker.blocks[2].clone();
        edit(&mut block);
        block.certificate = Certificate::sign(&block.header.hash(), &key(200));
        let mut batch = Batch::new();
        batch.put(&block);
        maker.store.commit(batch).wait().unwrap();
        assert_eq!(checked(&maker.store).unwrap_err().height, Some(2));
    }
}

#[test]
fn a_transaction_that_stands_twice_is_found_at_the_second_place() {
    let mut maker = Maker::new();
    let faucet = maker.sign(1, Action::Faucet {}, at(10));
    for now in [10, 20] {
        maker
            .work(Some(faucet.clone()), Vec::new(), at(now))
            .unwrap();
        maker.close();
    }
    // Each row can point at one of the two only.
    for (receipt, height) in [(1, 2), (2, 1)] {
        let mut batch = Batch::new();
        batch.put(&Position {
            account: account(1),
            id: faucet.id(),
            receipt: cryptomind_protocol::ReceiptId::at(receipt, 0),
        });
        maker.store.commit(batch).wait().unwrap();
        assert_eq!(checked(&maker.store).unwrap_err().height, Some(height));
    }
}

#[test]
fn a_chain_without_its_last_block_is_found_at_that() {
    let maker = busy();
    let mut batch = Batch::new();
    batch.delete::<Block>(&4u64.to_be_bytes());
    maker.store.commit(batch).wait().unwrap();
    let fault = checked(&maker.store).unwrap_err();
    assert_eq!(fault.height, Some(4), "{fault}");
    assert_eq!(ErrorBody::from(fault).code, "ledger_fault");
}

#[test]
fn a_store_of_nothing_has_no_chain() {
    let store = StateStore::in_memory().unwrap();
    assert_eq!(checked(&store).unwrap_err().height, None);
}
