//! Which nodes work for which account.

use super::*;

fn revoke(owner: u8, number: u8) -> Op {
    Op::Revoke {
        account: account(owner),
        node: node(number),
    }
}

fn nodes_of(l: &Ledger, owner: u8) -> Vec<NodeId> {
    l.delegations_of(&account(owner)).map(|d| d.node).collect()
}

#[test]
fn a_node_works_for_whom_it_names_and_until_then() {
    let mut l = ledger();
    done(&mut l, NOW, [delegate(4, 7, 1000), delegate(3, 7, 500)]);
    let word = l.delegation(&(account(4), node(7))).unwrap().clone();
    assert!(word.covers(Role::Miner, NOW.plus_ms(999)));
    assert!(!word.covers(Role::Miner, NOW.plus_ms(1000)));
    assert!(!word.covers(Role::Storage, NOW));
    // Another account's word takes nothing from the first one's.
    done(&mut l, NOW, [revoke(3, 7)]);
    assert_eq!(l.delegation(&(account(4), node(7))), Some(&word));
    assert_eq!((nodes_of(&l, 3), nodes_of(&l, 4)), (vec![], vec![node(7)]));
    // Said again, it replaces what was said before.
    done(&mut l, NOW, [delegate(4, 7, 2000)]);
    let word = l.delegation(&(account(4), node(7))).unwrap();
    assert_eq!(word.expires, NOW.plus_ms(2000));
    done(&mut l, NOW, [revoke(4, 7)]);
    refused(&mut l, revoke(4, 7), Refusal::NotDelegated(node(7)));
    refused(
        &mut l,
        delegate(4, 7, 0),
        Refusal::DelegationExpired(node(7)),
    );
}

#[test]
fn only_miners_and_storage_nodes_are_delegated_and_so_many() {
    let mut l = ledger();
    for role in [Role::Coordinator, Role::Client] {
        let op = Op::Delegate(Delegation {
            role,
            ..delegation(4, 7, 1000)
        });
        refused(&mut l, op, Refusal::RoleNotDelegated(role));
    }
    let numbered = |n: usize| {
        let mut id = [0; NodeId::LEN];
        id[..8].copy_from_slice(&(n as u64).to_be_bytes());
        Op::Delegate(Delegation {
            node: NodeId::new(id),
            ..delegation(4, 7, 1000)
        })
    };
    let most = Delegation::MAX_OF_ACCOUNT;
    done(&mut l, NOW, [send(1, 4, 2)]);
    l.apply((0..most).map(numbered), NOW).unwrap();
    refused(&mut l, numbered(most), Refusal::TooManyNodes { most });
    // In one group too, and one that is known already is no other.
    done(&mut l, NOW, [numbered(0)]);
    let mut fresh = ledger();
    done(&mut fresh, NOW, [send(1, 4, 2)]);
    let refusal = fresh.apply((0..=most).map(numbered), NOW).unwrap_err();
    assert_eq!(refusal, Refusal::TooManyNodes { most });
    // An account that never had a token has room for its first machines.
    let poor = |n: u8| Op::Delegate(delegation(77, n, 1000));
    let most = Delegation::MAX_WITHOUT_TOKENS;
    fresh.apply((0..most as u8).map(poor), NOW).unwrap();
    refused(&mut fresh, poor(99), Refusal::TooManyNodes { most });
    done(&mut fresh, NOW, [send(1, 77, 2)]);
    done(&mut fresh, NOW, [poor(99)]);
}

/// Or its owner could never end the delegation: nobody signs for an account whose first key another one took.
#[test]
fn the_key_of_an_account_with_nodes_is_in_use() {
    let key = PublicKey::new([77; 32]);
    let mut l = ledger();
    let own = Delegation {
        account: AccountId::of_key(&key),
        ..delegation(4, 7, 1000)
    };
    let rotate = || Op::RotateKey {
        account: account(4),
        key,
    };
    let revoke = Op::Revoke {
        account: own.account,
        node: own.node,
    };
    let in_one = l.apply([Op::Delegate(own.clone()), rotate()], NOW);
    assert_eq!(in_one.unwrap_err(), Refusal::KeyInUse);
    done(&mut l, NOW, [Op::Delegate(own)]);
    refused(&mut l, rotate(), Refusal::KeyInUse);
    done(&mut l, NOW, [revoke]);
    done(&mut l, NOW, [rotate()]);
}
