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

proptest! {
    /// A receipt's id is a place in the chain, and ids sort as the places do.
    #[test]
    fn receipts_are_named_by_height_and_place(height: u64, index: u32, other_height: u64, other_index: u32) {
        let id = ReceiptId::at(height, index);
        prop_assert_eq!((id.height(), id.index()), (height, index));
        prop_assert_eq!(id.to_string().parse::<ReceiptId>().unwrap(), id);
        let other = ReceiptId::at(other_height, other_index);
        prop_assert_eq!(id.cmp(&other), (height, index).cmp(&(other_height, other_index)));
        // The alphabet of the text is not in the order of bytes, so texts sort otherwise: sort ids.
        let near = ReceiptId::at(height, index ^ 1);
        prop_assert_eq!(id.cmp(&near), index.cmp(&(index ^ 1)));
    }
}

#[test]
fn a_receipts_bytes_are_pinned() {
    let id = ReceiptId::at(0x0102_0304_0506_0708, 0x090a_0b0c);
    assert_eq!(id.as_bytes(), &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
    assert_eq!(id.to_string(), "cmr1aebagbafaydqqcikbmglidqw");
}
