use super::*;
use crate::codec;

const HERE: GenesisHash = GenesisHash::new([7; 32]);
const ACCOUNT: AccountId = AccountId::new([6; 20]);

fn key(n: u8) -> SecretKey {
    SecretKey::from_seed([n; 32])
}

#[test]
fn a_new_key_consents_to_one_account_on_one_network() {
    let proof = sign_rotation(&HERE, &ACCOUNT, &key(1));
    let new = key(1).public();
    assert!(is_rotation_signed(&HERE, &ACCOUNT, &new, &proof));
    let elsewhere = GenesisHash::new([8; 32]);
    assert!(!is_rotation_signed(&elsewhere, &ACCOUNT, &new, &proof));
    let another = AccountId::new([8; 20]);
    assert!(!is_rotation_signed(&HERE, &another, &new, &proof));
    assert!(!is_rotation_signed(
        &HERE,
        &ACCOUNT,
        &key(2).public(),
        &proof
    ));
    let weak = PublicKey::new([0; 32]);
    assert!(!is_rotation_signed(
        &HERE,
        &ACCOUNT,
        &weak,
        &Signature::new([0; 64])
    ));
}

fn transaction(max_fee: Amount) -> Transaction {
    Transaction {
        version: 1,
        id: Nonce::new([1; 16]),
        account: ACCOUNT,
        valid_until: Timestamp::from_ms(9),
        max_fee,
        action: Action::Faucet {},
    }
}

/// A transaction of a network without fees does not name one.
#[test]
fn no_fee_takes_no_bytes() {
    let bytes = |fee| codec::encode(&transaction(Amount::from_base_units(fee)));
    let names_it = |bytes: &[u8]| bytes.windows(7).any(|key| key == b"max_fee");
    assert!(!names_it(&bytes(0)) && names_it(&bytes(1)));
    for fee in [0, 1, u64::MAX] {
        let read: Transaction = codec::decode(&bytes(fee)).unwrap();
        assert_eq!(read.max_fee, Amount::from_base_units(fee));
    }
}
