//! The check of the touched rows: whatever is wrong with changes, they are not taken over.

use super::*;

/// Ledgers with a change of each kind that would be carried out next.
fn planned() -> Vec<(Ledger, Changes)> {
    let mut all = Vec::new();
    let mut l = ledger();
    let ending = Ending {
        items_used: true,
        stored: vec![(account(8), 1)],
        withheld: vec![(node(3), 200_000)],
    };
    let ops = [
        open(1, 1, 500, full_terms()),
        earn(1, 1, vec![share(3, 60)]),
        earn(1, 2, vec![share(3, 30), share(4, 10)]),
        settle(1, ending),
        send(1, 2, 20),
        Op::Faucet { to: account(5) },
        Op::Charge {
            account: account(1),
            fee: units(20),
        },
        open_hold(2, 1, 30),
    ];
    for op in ops {
        let changes = l.plan([op.clone()], NOW).unwrap();
        all.push((l.clone(), changes));
        done(&mut l, NOW, [op]);
    }
    let due = l.plan([Op::Due], EXPIRES).unwrap();
    assert_eq!((due.holds.len(), due.locks.len()), (1, 1));
    all.push((l, due));
    all
}

/// `spoil` changes each of the planned changes, or says that there is nothing to spoil.
fn caught(spoil: impl Fn(&mut Changes) -> bool) -> usize {
    let mut count = 0;
    for (ledger, mut changes) in planned() {
        assert_eq!(touched::check(&ledger, &changes), Ok(()));
        if spoil(&mut changes) {
            count += 1;
            let spoilt = touched::check(&ledger, &changes);
            assert!(spoilt.is_err(), "{changes:#?}");
        }
    }
    count
}

#[test]
fn a_counter_that_is_off_by_one_is_a_breach() {
    let one = units(1);
    type Counter = fn(&mut Account) -> &mut Amount;
    let counters: [Counter; 2] = [|a| &mut a.debits_pending, |a| &mut a.credits_pending];
    for (place, counter) in (0..3).flat_map(|p| counters.iter().map(move |c| (p, c))) {
        let off = |changes: &mut Changes| {
            let Some(account) = changes.accounts.get_mut(place) else {
                return false;
            };
            let counter = counter(account);
            *counter = sum(*counter, one);
            true
        };
        assert!(caught(off) > 0);
    }
    for place in 0..3 {
        let credited = |changes: &mut Changes| {
            let account = changes.accounts.get_mut(place);
            let credit = |a: &mut Account| a.credits_posted = a.credits_posted.plus(one);
            account.map(credit).is_some()
        };
        assert!(caught(credited) > 0);
        let debited = |changes: &mut Changes| {
            let account = changes.accounts.get_mut(place);
            let debit = |a: &mut Account| a.debits_posted = a.debits_posted.plus(one);
            account.map(debit).is_some()
        };
        assert!(caught(debited) > 0);
    }
}

#[test]
fn a_missing_or_doubled_row_is_a_breach() {
    assert_eq!(caught(|c| c.accounts.pop().is_some()), planned().len());
    assert_eq!(caught(|c| c.holds.pop().is_some()), 6);
    assert_eq!(caught(|c| c.locks.pop().is_some()), 2);
    assert_eq!(caught(|c| c.transfers.pop().is_some()), 5);
    let again = |c: &mut Changes| {
        let last = c.transfers.last().cloned();
        c.transfers.extend(last.clone());
        last.is_some()
    };
    assert_eq!(caught(again), 5);
}

#[test]
fn a_hold_that_changes_what_it_is_for_is_a_breach() {
    let spoilt = |change: fn(&mut Hold)| {
        caught(move |c| {
            let hold = c.holds.first_mut().and_then(|(_, hold)| hold.as_mut());
            hold.map(change).is_some()
        })
    };
    assert_eq!(spoilt(|h| h.amount = sum(h.amount, units(1))), 4);
    assert_eq!(spoilt(|h| h.payer = account(99)), 4);
    assert_eq!(spoilt(|h| h.terms.work_max = units(u64::MAX)), 4);
    assert_eq!(spoilt(|h| h.terms.storage_max = units(1000)), 4);
    let earned = |h: &mut Hold| h.earn(&share(9, 1)).unwrap();
    assert_eq!(spoilt(earned), 4);
}

#[test]
fn a_hold_that_pays_and_stays_is_a_breach() {
    let mut l = ledger();
    done(&mut l, NOW, [open_hold(1, 1, 600)]);
    done(&mut l, NOW, [earn(1, 1, vec![share(3, 60)])]);
    // A transfer of the client's free tokens, in the hold's name.
    let mut changes = l.plan([send(1, 2, 20)], NOW).unwrap();
    changes.transfers[0].task = Some(task(1));
    assert!(touched::check(&l, &changes).is_err());
    let hold = l.hold(&task(1)).cloned();
    changes.holds.push((task(1), hold));
    assert!(touched::check(&l, &changes).is_err());
}

#[test]
fn an_account_that_overspends_or_changes_its_kind_is_a_breach() {
    let l = ledger();
    let mut changes = l.plan([send(1, 2, 20)], NOW).unwrap();
    changes.accounts[0].kind = Kind::Fees;
    assert!(touched::check(&l, &changes).is_err());
    // Equal debits and credits, but of tokens that the payer does not have.
    let mut changes = l.plan([send(1, 2, 20)], NOW).unwrap();
    let more = units(2000);
    let [payer, payee] = changes.accounts.as_mut_slice() else {
        panic!("two accounts");
    };
    payer.debits_posted = payer.debits_posted.plus(more);
    payee.credits_posted = payee.credits_posted.plus(more);
    changes.transfers[0].amount = sum(changes.transfers[0].amount, more);
    let broken = touched::check(&l, &changes).unwrap_err();
    assert!(broken.to_string().contains("spent more than it has"));
}
