//! Records as they are stored, and what a damaged one does.

use super::*;

fn rebuilt(l: &Ledger) -> Ledger {
    let (accounts, holds, locks) = (l.accounts(), l.holds(), l.locks());
    let delegations = l.delegations();
    Ledger::rebuild(
        rules(),
        accounts.map(|r| codec::decode(&codec::encode(r)).unwrap()),
        holds.map(|r| codec::decode(&codec::encode(r)).unwrap()),
        locks.map(|r| codec::decode(&codec::encode(r)).unwrap()),
        delegations.map(|r| codec::decode(&codec::encode(r)).unwrap()),
    )
}

/// A ledger with a record of each sort.
fn busy() -> Ledger {
    let mut l = ledger();
    done(
        &mut l,
        NOW,
        [open(1, 1, 500, full_terms()), open_hold(2, 1, 100)],
    );
    done(&mut l, NOW, [earn(1, 1, vec![share(3, 60)])]);
    done(&mut l, NOW, [earn(2, 1, vec![share(4, 60)])]);
    let ending = Ending {
        withheld: vec![(node(4), 200_000)],
        ..Ending::default()
    };
    done(&mut l, NOW, [settle(2, ending)]);
    let key = PublicKey::new([8; 32]);
    let account = account(4);
    done(&mut l, NOW, [Op::RotateKey { account, key }]);
    done(&mut l, NOW, [delegate(4, 7, 60_000)]);
    l
}

#[test]
fn the_stored_records_are_the_whole_ledger() {
    let l = busy();
    assert_eq!(rebuilt(&l), l);
}

#[test]
fn an_account_may_turn_over_more_than_an_amount_can_say() {
    let mut l = ledger();
    let most = available(&l, 99);
    for _ in 0..200 {
        l.apply([send(99, 98, most), send(98, 99, most)], NOW)
            .unwrap();
    }
    let posted = l.account(&account(99)).unwrap().debits_posted;
    assert!(posted.base_units() > u128::from(u64::MAX));
    assert_eq!(available(&l, 99), most);
    l.check_invariants().unwrap();
    assert_eq!(rebuilt(&l), l);
}

#[test]
fn a_damaged_account_is_noticed() {
    let damage = |which: AccountId, change: fn(&mut Account)| {
        let mut l = busy();
        change(l.accounts.get_mut(&which).unwrap());
        rebuilt(&l).check_invariants()
    };
    damage(account(1), |_| ()).unwrap();
    let more = |a: &mut Account| a.credits_posted = a.credits_posted.plus(units(1));
    damage(account(1), more).unwrap_err();
    damage(account(1), |a| {
        a.debits_posted = a.debits_posted.plus(units(1))
    })
    .unwrap_err();
    damage(account(1), |a| a.debits_pending = units(499)).unwrap_err();
    damage(account(3), |a| a.credits_pending = units(61)).unwrap_err();
    damage(account(4), |a| a.kind = Kind::Fees).unwrap_err();
    damage(account(4), |a| a.keys.push(a.keys[0])).unwrap_err();
    damage(system(MINT), more).unwrap_err();
    damage(system(ESCROW), more).unwrap_err();
}

#[test]
fn a_damaged_hold_or_lock_is_noticed() {
    let damage = |change: fn(&mut Hold)| {
        let mut l = busy();
        change(l.holds.get_mut(&task(1)).unwrap());
        rebuilt(&l).check_invariants()
    };
    damage(|_| ()).unwrap();
    damage(|h| h.earnings[0].amount = units(u64::MAX)).unwrap_err();
    damage(|h| h.earnings[0].account = account(4)).unwrap_err();
    damage(|h| h.amount = units(501)).unwrap_err();
    damage(|h| h.payer = account(2)).unwrap_err();
    damage(|h| h.terms.work_max = units(59)).unwrap_err();
    damage(|h| h.terms.storage_max = units(500)).unwrap_err();
    let damage = |change: fn(&mut Lock)| {
        let mut l = busy();
        let key = *l.locks.keys().next().unwrap();
        change(l.locks.get_mut(&key).unwrap());
        (rebuilt(&l).check_invariants(), l.check_invariants())
    };
    assert_eq!(damage(|_| ()), (Ok(()), Ok(())));
    damage(|l| l.amount = units(11)).0.unwrap_err();
    damage(|l| l.account = account(3)).0.unwrap_err();
    damage(|l| l.until = NOW).1.unwrap_err();
}

#[test]
fn a_missing_record_is_noticed() {
    let mut l = busy();
    l.holds.clear();
    l.check_invariants().unwrap_err();
    let mut l = busy();
    l.locks.clear();
    l.check_invariants().unwrap_err();
    for id in busy().accounts.keys() {
        let mut l = busy();
        l.accounts.remove(id);
        l.check_invariants().unwrap_err();
    }
    type Index = fn(&mut Ledger);
    let indexes: [Index; 5] = [
        |l| l.expiries.clear(),
        |l| l.unlocks.clear(),
        |l| l.keys.clear(),
        |l| l.unreachable.clear(),
        |l| l.held = Amount::ZERO,
    ];
    for damage in indexes {
        let mut l = busy();
        damage(&mut l);
        l.check_invariants().unwrap_err();
    }
}
