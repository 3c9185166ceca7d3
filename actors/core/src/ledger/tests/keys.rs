//! Which key signs for which account.

use super::*;

fn key(number: u8) -> PublicKey {
    PublicKey::new([number; 32])
}

/// The account whose first key is `key(number)`.
fn owner(number: u8) -> AccountId {
    AccountId::of_key(&key(number))
}

fn rotate(owner_of: u8, to: u8) -> Op {
    Op::RotateKey {
        account: owner(owner_of),
        key: key(to),
    }
}

fn give(to: u8) -> Op {
    Op::Send {
        from: account(1),
        to: owner(to),
        amount: units(10),
    }
}

#[test]
fn the_last_key_signs_and_retired_ones_never_come_back() {
    let mut l = ledger();
    done(&mut l, NOW, [give(1), give(2)]);
    assert_eq!(
        (l.signer(&owner(1)), l.account_of(&key(1))),
        (None, Some(owner(1)))
    );
    done(&mut l, NOW, [rotate(1, 11)]);
    assert_eq!(l.signer(&owner(1)), Some(key(11)));
    assert_eq!(l.account_of(&key(11)), Some(owner(1)));
    assert_eq!(l.account_of(&key(1)), None);
    done(&mut l, NOW, [rotate(1, 12)]);
    assert_eq!(
        (l.account_of(&key(11)), l.account_of(&key(12))),
        (None, Some(owner(1)))
    );
    // An account that the ledger has never seen has a key too.
    assert_eq!(l.account_of(&key(77)), Some(owner(77)));

    for retired in [1, 11] {
        refused(&mut l, rotate(1, retired), Refusal::KeyRetired);
        refused(&mut l, rotate(2, retired), Refusal::KeyRetired);
    }
    for used in [12, 2] {
        refused(&mut l, rotate(1, used), Refusal::KeyInUse);
        refused(&mut l, rotate(2, used), Refusal::KeyInUse);
    }
    assert_eq!(l.balance(&owner(1)).available, units(10));
}

#[test]
fn a_group_sees_its_own_keys() {
    let l = ledger();
    let same = l.plan([rotate(1, 11), rotate(2, 11)], NOW);
    assert_eq!(same, Err(Refusal::KeyInUse));
    let back = l.plan([rotate(1, 11), rotate(1, 12), rotate(2, 11)], NOW);
    assert_eq!(back, Err(Refusal::KeyRetired));
    let first = l.plan([rotate(1, 11), rotate(2, 1)], NOW);
    assert_eq!(first, Err(Refusal::KeyRetired));
    let paid = [rotate(1, 11), give(11)];
    assert_eq!(l.plan(paid, NOW), Err(Refusal::Unreachable(owner(11))));
}

/// Key 11 signs for account 1: an account of its own would be nobody's, and its tokens stranded.
#[test]
fn an_account_whose_key_signs_for_another_gets_nothing() {
    let mut l = ledger();
    done(&mut l, NOW, [rotate(1, 11)]);
    refused(&mut l, give(11), Refusal::Unreachable(owner(11)));
    let faucet = Op::Faucet { to: owner(11) };
    refused(&mut l, faucet, Refusal::Unreachable(owner(11)));
    done(&mut l, NOW, [give(1)]);
}

#[test]
fn keys_are_given_a_number_of_times() {
    let mut l = ledger();
    let nth = |n: usize| PublicKey::new(std::array::from_fn(|i| (n >> (8 * (i % 4))) as u8));
    let rotate = |n: usize| Op::RotateKey {
        account: account(1),
        key: nth(n + 1000),
    };
    l.apply((0..Account::MAX_KEYS).map(rotate), NOW).unwrap();
    refused(&mut l, rotate(Account::MAX_KEYS), Refusal::TooManyKeys);
    assert_eq!(
        l.signer(&account(1)),
        Some(nth(1000 + Account::MAX_KEYS - 1))
    );
}
