use super::*;
use proptest::prelude::*;
use serde::{Deserialize, Serialize};

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Strict {
    a: u64,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Lax {
    a: u64,
}

#[test]
fn hostile_forms_are_named() {
    let cases: [(&[u8], DecodeError); 9] = [
        (&[], DecodeError::Truncated { at: 0 }),
        (&[0xa1, 0x61], DecodeError::Truncated { at: 2 }),
        (
            &[0x5b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
            DecodeError::Truncated { at: 9 },
        ),
        (
            &[0x9b, 0, 0, 0, 1, 0, 0, 0, 0],
            DecodeError::Truncated { at: 0 },
        ),
        (
            &[0x9f, 0xff],
            DecodeError::Form {
                form: "an indefinite length",
                at: 0,
            },
        ),
        (
            &[0xc0, 0x00],
            DecodeError::Form {
                form: "a tag",
                at: 0,
            },
        ),
        (
            &[0xa1, 0x00, 0x00],
            DecodeError::Form {
                form: "a key that is not text",
                at: 1,
            },
        ),
        (&[0x00, 0x00], DecodeError::Trailing { extra: 1 }),
        (
            &[0xa2, 0x61, b'a', 1, 0x61, b'a', 2],
            DecodeError::DuplicateKey { key: "a".into() },
        ),
    ];
    for (bytes, error) in cases {
        assert_eq!(check(bytes), Err(error), "{bytes:02x?}");
    }
    let deep = vec![0x81; 100_000];
    assert_eq!(check(&deep), Err(DecodeError::TooDeep));
}

#[test]
fn unknown_keys_are_ignored_unless_denied() {
    let bytes = [0xa2, 0x61, b'a', 7, 0x61, b'b', 8];
    assert_eq!(decode::<Lax>(&bytes), Ok(Lax { a: 7 }));
    assert!(matches!(
        decode::<Strict>(&bytes),
        Err(DecodeError::Shape(_))
    ));
}

proptest! {
    /// Whatever comes in: an answer, no panic. What the check passes, the independent decoder reads too.
    #[test]
    fn no_bytes_break_the_decoder(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
        if check(&bytes).is_ok() {
            prop_assert!(ciborium::from_reader::<ciborium::Value, _>(&bytes[..]).is_ok(), "{:02x?}", bytes);
        }
        let _ = decode::<crate::api::Request>(&bytes);
        let _ = decode::<crate::Signed>(&bytes);
        let _ = decode::<crate::transaction::Transaction>(&bytes);
    }
}
