//! The bytes of every sample are pinned, so that a change of the codec's library cannot change them unseen, and
//! a library that shares no code with ours reads them.
//!
//! After a wanted change of the protocol: `UPDATE_VECTORS=1 cargo test -p cryptomind-protocol golden`, and
//! read the difference before you commit it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Once;

use ciborium::Value;
use data_encoding::HEXLOWER;

use crate::samples;

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/it/vectors.txt")
}

/// Name → bytes, as pinned.
fn pinned() -> BTreeMap<String, Vec<u8>> {
    static UPDATE: Once = Once::new();
    if std::env::var_os("UPDATE_VECTORS").is_some() {
        UPDATE.call_once(update);
    }
    let text = std::fs::read_to_string(path()).unwrap();
    let line = |line: &str| {
        let (name, hex) = line.split_once(' ').expect("a name and hex");
        (name.to_owned(), HEXLOWER.decode(hex.as_bytes()).unwrap())
    };
    text.lines()
        .filter(|l| !l.starts_with('#'))
        .map(line)
        .collect()
}

fn update() {
    let mut text = String::from("# name, and the CBOR of that sample in hex: see samples.rs\n");
    for sample in samples::all() {
        writeln!(text, "{} {}", sample.name, HEXLOWER.encode(&sample.bytes)).unwrap();
    }
    std::fs::write(path(), text).unwrap();
}

#[test]
fn bytes_are_those_that_are_pinned() {
    let mut pinned = pinned();
    for sample in samples::all() {
        let expected = pinned.remove(&sample.name);
        let expected = expected.unwrap_or_else(|| panic!("{} is not pinned", sample.name));
        let hex = |bytes: &[u8]| HEXLOWER.encode(bytes);
        assert_eq!(hex(&sample.bytes), hex(&expected), "{}", sample.name);
        assert_eq!((sample.is_read)(&expected), Ok(()), "{}", sample.name);
    }
    let gone: Vec<_> = pinned.keys().collect();
    assert!(gone.is_empty(), "pinned, but no sample any more: {gone:?}");
}

#[test]
fn an_independent_decoder_reads_the_pinned_bytes() {
    let pinned = pinned();
    for sample in samples::all() {
        let bytes = &pinned[&sample.name];
        assert_eq!(
            (sample.is_read_by_foreign)(bytes),
            Ok(()),
            "{}",
            sample.name
        );
        assert_eq!(
            (sample.is_read)(&sample.foreign_bytes),
            Ok(()),
            "{}",
            sample.name
        );
    }
}

/// Another language's map has another order.
#[test]
fn keys_are_read_in_any_order() {
    fn reverse(value: &mut Value) {
        match value {
            Value::Map(entries) => {
                entries.reverse();
                entries.iter_mut().for_each(|(_, value)| reverse(value));
            }
            Value::Array(items) => items.iter_mut().for_each(reverse),
            _ => {}
        }
    }
    for sample in samples::all() {
        let mut value: Value = ciborium::from_reader(&sample.bytes[..]).unwrap();
        reverse(&mut value);
        let mut bytes = Vec::new();
        ciborium::into_writer(&value, &mut bytes).unwrap();
        assert_eq!((sample.is_read)(&bytes), Ok(()), "{}", sample.name);
    }
}

/// Written by hand from the description: a map in a map, an id as bytes, an option as null, a float in its
/// shortest form.
#[test]
fn the_form_is_the_described_one() {
    let pinned = pinned();
    let value = |name: &str| ciborium::from_reader::<Value, _>(&pinned[name][..]).unwrap();
    let text = |s: &str| Value::Text(s.into());
    let map = |entries: &[(&str, Value)]| {
        Value::Map(entries.iter().map(|(k, v)| (text(k), v.clone())).collect())
    };
    let account = map(&[
        ("account", Value::Bytes(vec![6; 20])),
        ("nickname", Value::Null),
    ]);
    let expected = map(&[("method", text("account.get")), ("params", account)]);
    assert_eq!(value("api-request:2"), expected);
    let status = map(&[("method", text("network.status")), ("params", map(&[]))]);
    assert_eq!(value("api-request:0"), status);
    let settled = map(&[
        ("step", Value::Integer(100.into())),
        ("earned", Value::Integer(1_000_000_000u64.into())),
    ]);
    let event = map(&[
        ("number", Value::Integer(9.into())),
        ("at", Value::Integer(1_800_000_000_000u64.into())),
        ("event", map(&[("checkpoint", settled)])),
    ]);
    assert_eq!(value("task-event:9"), event);
    // What is kept by the million has no keys: payer, payee, amount, reason, no task, no node.
    let amount = Value::Integer(5_000_000_000u64.into());
    let moved = map(&[("moved", map(&[("amount", amount.clone())]))]);
    let parties = [6, 8].map(|n| Value::Bytes(vec![n; 20]));
    let rest = [amount, text("send"), Value::Null, Value::Null];
    let transfer = Value::Array([&parties[..], &rest].concat());
    let receipt = Value::Array(vec![moved, Value::Array(vec![transfer])]);
    assert_eq!(value("receipt:sent"), receipt);
    // 16.0 is a half float (f9 4c00), 0.1 as f32 a single one (fa 3dcccccd).
    let hex = |name: &str| HEXLOWER.encode(&pinned[name]);
    assert!(hex("item-view:idx").contains("657363616c65f94c00"));
    assert!(hex("task-spec:sgd").contains("626c72fa3dcccccd"));
}
