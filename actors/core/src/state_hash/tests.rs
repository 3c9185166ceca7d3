use std::collections::BTreeMap;

use cryptomind_protocol::codec;
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

type Record = (&'static str, Vec<u8>, Vec<u8>);

fn of<'a>(records: impl IntoIterator<Item = (&'a str, &'a [u8], &'a [u8])>) -> StateHash {
    let mut hash = StateHash::default();
    for (table, key, value) in records {
        hash.add(table, key, value);
    }
    hash
}

fn one(table: &str, key: &[u8], value: &[u8]) -> StateHash {
    of([(table, key, value)])
}

#[test]
fn what_is_added_and_removed_leaves_no_trace() {
    let before = one("accounts", b"a", b"1");
    let mut hash = before.clone();
    hash.add("holds", b"h", b"2");
    assert_ne!(hash, before);
    hash.remove("accounts", b"a", b"1");
    hash.add("accounts", b"a", b"1");
    hash.remove("holds", b"h", b"2");
    assert_eq!(hash, before);
    hash.remove("accounts", b"a", b"1");
    assert_eq!(hash, StateHash::default());
}

/// A value that is not the one that was added stays visible, and so does a record that was never there.
#[test]
fn a_wrong_removal_shows() {
    let mut hash = one("accounts", b"a", b"1");
    hash.remove("accounts", b"a", b"2");
    assert_ne!(hash, StateHash::default());
    assert_ne!(hash.digest(), StateHash::default().digest());
}

#[test]
fn a_record_added_twice_is_not_once_and_not_never() {
    let mut hash = one("accounts", b"a", b"1");
    let once = hash.clone();
    hash.add("accounts", b"a", b"1");
    assert_ne!(hash, once);
    assert_ne!(hash, StateHash::default());
}

/// One string of bytes, cut into table, key and value at every place: each cut is a record of its own.
#[test]
fn no_byte_can_move_between_table_key_and_value() {
    let whole = "\0\0\0\u{1}ab\0\0\0\u{1}cd";
    let mut seen = BTreeMap::new();
    for i in 0..=whole.len() {
        for j in i..=whole.len() {
            let (table, key, value) = (&whole[..i], &whole[i..j], &whole[j..]);
            let digest = one(table, key.as_bytes(), value.as_bytes()).digest();
            assert_eq!(seen.insert(digest, (i, j)), None, "({i}, {j})");
        }
    }
}

/// What a program written from the definition alone, in another language, computes.
#[test]
fn digests_are_what_another_program_says() {
    let accounts = one("accounts", &[1; 20], &[2; 150]);
    let both = of([
        ("accounts", &[1; 20][..], &[2; 150][..]),
        ("holds", b"", b""),
    ]);
    let mut less = StateHash::default();
    less.remove("accounts", &[1; 20], &[2; 150]);
    let digests = [StateHash::default(), accounts, both, less].map(|h| h.digest().to_string());
    let golden = [
        "1eeff6e96b745e54233c050e2c2b91121fb870e77aeb7bb249c688646dde5aad",
        "feead0db0f0f774baa5a2409fbe7e1e4daa90fe90bac173fe80d4fdc310c3e46",
        "87fdf4b3e8c60d4b9b5ebf09150441b00a84907c19599f2c2815402bb544b36f",
        "84feb4c512d7a8f669574a60317ba3008b261c6cb31c736bd79896be02fbcb93",
    ];
    assert_eq!(digests, golden);
}

#[test]
fn it_is_stored_as_2048_bytes_and_nothing_else_is_read() {
    let hash = of([("a", &b"b"[..], &b"c"[..]), ("d", b"e", b"f")]);
    let bytes = codec::encode(&hash);
    assert_eq!(bytes.len(), 3 + 2048);
    assert_eq!(codec::decode::<StateHash>(&bytes), Ok(hash));
    for len in [0, 1, 2047, 2049] {
        let other = codec::encode(&serde_bytes::ByteBuf::from(vec![0; len]));
        assert!(codec::decode::<StateHash>(&other).is_err(), "{len}");
    }
}

#[derive(Debug, Clone)]
enum Op {
    Put(Record),
    Delete(&'static str, Vec<u8>),
}

fn table() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["", "a", "ab", "holds"])
}

fn key() -> impl Strategy<Value = Vec<u8>> {
    vec(0..2_u8, 0..4)
}

fn record() -> impl Strategy<Value = Record> {
    (table(), key(), vec(any::<u8>(), 0..1500))
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        2 => record().prop_map(Op::Put),
        1 => (table(), key()).prop_map(|(table, key)| Op::Delete(table, key)),
    ]
}

type Tables = BTreeMap<(&'static str, Vec<u8>), Vec<u8>>;

fn recomputed(tables: &Tables) -> StateHash {
    of(tables.iter().map(|((t, k), v)| (*t, &k[..], &v[..])))
}

fn carry_out(op: Op, tables: &mut Tables, hash: &mut StateHash) {
    let (at, new) = match op {
        Op::Put((table, key, value)) => ((table, key), Some(value)),
        Op::Delete(table, key) => ((table, key), None),
    };
    if let Some(old) = tables.remove(&at) {
        hash.remove(at.0, &at.1, &old);
    }
    if let Some(new) = new {
        hash.add(at.0, &at.1, &new);
        tables.insert(at, new);
    }
}

proptest! {
    #[test]
    fn after_any_operations_it_is_that_of_a_recomputation(ops in vec(op(), 0..80)) {
        let (mut tables, mut hash) = (Tables::new(), StateHash::default());
        for op in ops {
            carry_out(op, &mut tables, &mut hash);
            prop_assert_eq!(&hash, &recomputed(&tables));
        }
        for ((table, key), value) in tables {
            hash.remove(table, &key, &value);
        }
        prop_assert_eq!(hash, StateHash::default());
    }

    #[test]
    fn order_does_not_matter(
        (one, other) in vec(record(), 0..20).prop_flat_map(|r| (Just(r.clone()), Just(r).prop_shuffle())),
    ) {
        let hash = |records: &[Record]| of(records.iter().map(|(t, k, v)| (*t, &k[..], &v[..])));
        prop_assert_eq!(hash(&one).digest(), hash(&other).digest());
    }

    #[test]
    fn any_changed_bit_is_another_state(
        key in vec(any::<u8>(), 1..40),
        value in vec(any::<u8>(), 1..1500),
        bit in any::<prop::sample::Index>(),
    ) {
        let whole = one("accounts", &key, &value);
        let bit = bit.index(8 * (key.len() + value.len()));
        let (mut other_key, mut other_value) = (key.clone(), value.clone());
        match (bit / 8).checked_sub(key.len()) {
            None => other_key[bit / 8] ^= 1 << (bit % 8),
            Some(at) => other_value[at] ^= 1 << (bit % 8),
        }
        prop_assert_ne!(whole.digest(), one("accounts", &other_key, &other_value).digest());
        prop_assert_ne!(whole.digest(), one("account", &key, &value).digest());
    }
}
