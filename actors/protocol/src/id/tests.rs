use super::*;
use proptest::prelude::*;

proptest! {
    /// Text and both serial forms lead back to the same id; one changed character never does.
    #[test]
    fn text_round_trips_and_catches_typing_errors(bytes: [u8; 20], at in 0usize..36, to in 0u8..32) {
        let id = AccountId::new(bytes);
        let text = id.to_string();
        prop_assert_eq!(text.parse::<AccountId>().unwrap(), id);
        prop_assert_eq!(crate::codec::decode::<AccountId>(&crate::codec::encode(&id)).unwrap(), id);
        let mut typo = text.clone().into_bytes();
        let at = 3 + at % (typo.len() - 3);
        typo[at] = b"abcdefghijklmnopqrstuvwxyz234567"[to as usize];
        let typo = String::from_utf8(typo).unwrap();
        if typo != text {
            prop_assert!(typo.parse::<AccountId>().is_err(), "{} passed for {}", typo, text);
        }
    }
}

#[test]
fn another_kind_is_refused_with_its_prefix() {
    let task = TaskId::new([7; 16]).to_string();
    let error = task.parse::<NodeId>().unwrap_err().to_string();
    assert!(error.contains("cmn1") && error.contains(&task), "{error}");
    assert!("cm1".parse::<AccountId>().is_err());
    assert!("".parse::<AccountId>().is_err());
}
