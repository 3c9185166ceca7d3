//! Each refusal has its own code, and none changes a byte of state: see [`super::refused`].

use super::*;

#[test]
fn what_an_account_lacks_is_refused_with_the_amounts() {
    let mut l = ledger();
    let short = |needed, available| Refusal::InsufficientFunds {
        account: account(1),
        needed: units(needed),
        available: units(available),
    };
    refused(&mut l, send(1, 2, 1001), short(1001, 1000));
    refused(&mut l, send(1, 2, u64::MAX), short(u64::MAX, 1000));
    refused(&mut l, open_hold(1, 1, 1001), short(1001, 1000));
    done(&mut l, NOW, [open_hold(1, 1, 600)]);
    refused(&mut l, send(1, 2, 401), short(401, 400));
    refused(&mut l, open_hold(2, 1, u64::MAX), short(u64::MAX, 400));
    let fee = units(401);
    let charge = Op::Charge {
        account: account(1),
        fee,
    };
    refused(&mut l, charge, short(401, 400));

    let body = ErrorBody::from(short(1_500_000_000, 250_000_000));
    assert_eq!(
        (body.code.as_str(), body.class),
        ("insufficient_funds", ErrorClass::Funds)
    );
    assert!(body.message.contains("1.5 CTM") && body.message.contains("0.25 CTM"));
    assert!(body.help.unwrap().contains("1.25 CTM"));
}

#[test]
fn test_money_ends_and_other_networks_have_none() {
    let mut l = ledger();
    let faucet = || Op::Faucet { to: account(1) };
    done(&mut l, NOW, [faucet(), faucet()]);
    let (needed, available) = (units(3), units(1));
    refused(&mut l, faucet(), Refusal::FaucetEmpty { needed, available });
    l.rules.faucet = Amount::ZERO;
    refused(&mut l, faucet(), Refusal::NoFaucet);
}

#[test]
fn nothing_and_dust_are_refused() {
    let mut l = ledger();
    let dust = || Refusal::DustAmount {
        amount: units(1),
        least: units(2),
    };
    refused(&mut l, send(1, 2, 0), Refusal::ZeroAmount);
    refused(&mut l, send(1, 2, 1), dust());
    refused(&mut l, open_hold(1, 1, 0), Refusal::ZeroAmount);
    refused(&mut l, open_hold(1, 1, 1), dust());
    done(&mut l, NOW, [send(1, 2, 2)]);
    refused(&mut l, send(1, 1, 5), Refusal::SameAccount);
    l.rules.fees.least = Amount::ZERO;
    refused(&mut l, send(1, 2, 0), Refusal::ZeroAmount);
}

#[test]
fn accounts_without_a_key_get_nothing_and_pay_nothing() {
    for name in system_names() {
        let mut l = ledger();
        let id = system(name);
        let refusal = || Refusal::SystemAccount(id);
        let amount = units(2);
        let (from, to) = (id, account(1));
        refused(&mut l, Op::Send { from, to, amount }, refusal());
        let (from, to) = (account(1), id);
        refused(&mut l, Op::Send { from, to, amount }, refusal());
        refused(&mut l, Op::Faucet { to }, refusal());
        let charge = Op::Charge {
            account: id,
            fee: amount,
        };
        refused(&mut l, charge, refusal());
        let hold = Op::OpenHold {
            task: task(1),
            payer: id,
            amount,
            terms: terms(2),
        };
        refused(&mut l, hold, refusal());
        let items = vec![(id, units(1))];
        let owned = HoldTerms { items, ..terms(2) };
        refused(&mut l, open(1, 1, 9, owned), refusal());
        let key = PublicKey::new([1; 32]);
        refused(&mut l, Op::RotateKey { account: id, key }, refusal());
        done(&mut l, NOW, [open_hold(1, 1, 10)]);
        let shares = vec![Share {
            account: id,
            ..share(3, 1)
        }];
        refused(&mut l, earn(1, 1, shares), refusal());
        let stored = vec![(id, 1)];
        let ending = Ending {
            stored,
            ..Ending::default()
        };
        refused(&mut l, settle(1, ending), refusal());
    }
}

#[test]
fn a_hold_that_is_not_there_does_nothing() {
    let mut l = ledger();
    let none = || Refusal::HoldNotOpen(task(1));
    refused(&mut l, earn(1, 0, vec![]), none());
    refused(&mut l, settle_plainly(1), none());
    done(&mut l, NOW, [open_hold(1, 1, 10)]);
    refused(&mut l, open_hold(1, 2, 10), Refusal::HoldExists(task(1)));
}

#[test]
fn a_cap_below_what_the_terms_can_pay_is_refused() {
    let mut l = ledger();
    // 300 + 41 + 50, and a tenth on top.
    assert_eq!(most(&full_terms()), Some(units(430)));
    let low = Refusal::CapTooLow {
        task: task(1),
        amount: units(429),
        needed: units(430),
    };
    refused(&mut l, open(1, 1, 429, full_terms()), low.clone());
    assert_eq!(ErrorBody::from(low).class, ErrorClass::Funds);
    let huge = HoldTerms {
        storage_max: units(u64::MAX),
        ..full_terms()
    };
    refused(&mut l, open(1, 1, 1000, huge), Refusal::Overflow);
    let late = HoldTerms {
        expires: NOW,
        ..full_terms()
    };
    let expired = Refusal::TermsExpired(task(1));
    refused(&mut l, open(1, 1, 1000, late), expired);
    let crowd = HoldTerms {
        items: vec![(account(6), Amount::ZERO); Hold::MAX_PAYEES + 1],
        ..full_terms()
    };
    let (what, most) = ("items", Hold::MAX_PAYEES);
    refused(
        &mut l,
        open(1, 1, 1000, crowd),
        Refusal::TooMany { what, most },
    );
    done(&mut l, NOW, [open(1, 1, 430, full_terms())]);
}

/// Even where the whole of every part falls due, the amount suffices to the last base unit.
#[test]
fn a_hold_pays_its_most_exactly() {
    let mut l = ledger();
    done(&mut l, NOW, [open(1, 1, 430, full_terms())]);
    done(&mut l, NOW, [earn(1, 1, vec![share(3, 300)])]);
    let ending = Ending {
        items_used: true,
        stored: vec![(account(8), u64::MAX)],
        withheld: Vec::new(),
    };
    let changes = done(&mut l, NOW, [settle(1, ending)]);
    assert!(changes.transfers.iter().all(|t| t.reason != Reason::Refund));
    let all = Amount::sum(changes.transfers.iter().map(|t| t.amount));
    assert_eq!(all, Some(units(430)));
}

#[test]
fn a_hold_never_pays_more_than_its_terms() {
    let mut l = ledger();
    done(&mut l, NOW, [open(1, 1, 500, terms(100))]);
    done(&mut l, NOW, [earn(1, 1, vec![share(3, 60)])]);
    let exceeded = |wanted| Refusal::HoldExceeded {
        task: task(1),
        wanted: units(wanted),
        free: units(40),
    };
    let shares = vec![share(3, 20), share(4, 21)];
    refused(&mut l, earn(1, 2, shares), exceeded(41));
    let huge = vec![share(3, u64::MAX), share(4, 1)];
    refused(&mut l, earn(1, 2, huge), Refusal::Overflow);
    // A refused checkpoint was not earned: its number is still free.
    done(&mut l, NOW, [earn(1, 2, vec![share(3, 40)])]);
    done(&mut l, NOW, [settle_plainly(1)]);
    assert_eq!(available(&l, 3), 100);
}

#[test]
fn the_lists_of_a_hold_have_a_length() {
    let mut l = ledger();
    let nodes = Hold::MAX_EARNINGS;
    let crowd = |count: usize| -> Vec<Share> {
        let by = |number: usize| Share {
            node: NodeId::new(std::array::from_fn(|i| (number >> (8 * (i % 2))) as u8)),
            ..share(3, 1)
        };
        (0..count).map(by).collect()
    };
    done(&mut l, NOW, [open_hold(1, 99, 10_000)]);
    let (what, most) = ("nodes that earn", nodes);
    let refusal = Refusal::TooMany { what, most };
    refused(&mut l, earn(1, 1, crowd(nodes + 1)), refusal);
    done(&mut l, NOW, [earn(1, 1, crowd(nodes))]);
    let stored = vec![(account(8), 1); Hold::MAX_PAYEES + 1];
    let ending = Ending {
        stored,
        ..Ending::default()
    };
    let (what, most) = ("storage nodes", Hold::MAX_PAYEES);
    refused(&mut l, settle(1, ending), Refusal::TooMany { what, most });
    assert_eq!(
        done(&mut l, NOW, [settle_plainly(1)]).transfers.len(),
        nodes + 1
    );
}

#[test]
fn no_more_is_withheld_than_the_rules_allow() {
    let mut l = ledger();
    done(&mut l, NOW, [open_hold(1, 1, 100)]);
    let ending = Ending {
        withheld: vec![(node(4), 250_000), (node(3), 250_001)],
        ..Ending::default()
    };
    let (ppm, max_ppm) = (250_001, 250_000);
    let refusal = Refusal::WithheldTooMuch { ppm, max_ppm };
    refused(&mut l, settle(1, ending), refusal);
}

/// Requests get codes that say what to change; what comes from the network's own decisions says so.
#[test]
fn each_refusal_has_its_own_code() {
    let (amount, id) = (units(1), account(1));
    let (needed, available, wanted, free, least) = (amount, amount, amount, amount, amount);
    let task = task(1);
    let all = [
        Refusal::InsufficientFunds {
            account: id,
            needed,
            available,
        },
        Refusal::NoFaucet,
        Refusal::FaucetEmpty { needed, available },
        Refusal::ZeroAmount,
        Refusal::DustAmount { amount, least },
        Refusal::SameAccount,
        Refusal::SystemAccount(id),
        Refusal::Unreachable(id),
        Refusal::HoldExists(task),
        Refusal::HoldNotOpen(task),
        Refusal::TermsExpired(task),
        Refusal::CapTooLow {
            task,
            amount,
            needed,
        },
        Refusal::HoldExceeded { task, wanted, free },
        Refusal::WithheldTooMuch { ppm: 2, max_ppm: 1 },
        Refusal::TooMany {
            what: "items",
            most: 1,
        },
        Refusal::KeyInUse,
        Refusal::KeyRetired,
        Refusal::TooManyKeys,
        Refusal::MintedTwice,
        Refusal::MintSum(None),
        Refusal::Vesting("team".into()),
        Refusal::Overflow,
        Refusal::Broken(Broken("sums".into())),
    ];
    let codes: BTreeSet<_> = all.iter().map(Refusal::code).collect();
    assert_eq!(codes.len(), all.len());
    let broken = ErrorBody::from(Refusal::Broken(Broken("sums".into())));
    assert_eq!(broken.class, ErrorClass::Internal);
}
