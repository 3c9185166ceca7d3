use super::*;
use cryptomind_protocol::money::SUPPLY;
use cryptomind_protocol::task::Reason;
use cryptomind_protocol::{ErrorBody, ErrorClass, NodeId, codec};

mod reference;

const NOW: Timestamp = Timestamp::from_ms(1_000);

fn units(units: u64) -> Amount {
    Amount::from_base_units(units)
}

fn account(number: u8) -> AccountId {
    AccountId::new([number; 20])
}

fn task(number: u8) -> TaskId {
    TaskId::new([number; 16])
}

fn node(number: u8) -> NodeId {
    NodeId::new([number; 32])
}

fn share(owner: u8, amount: u64) -> Share {
    Share {
        account: account(owner),
        node: node(owner),
        amount: units(amount),
    }
}

fn fee(payee: u8, amount: u64, reason: Reason) -> Fee {
    Fee {
        payee: account(payee),
        amount: units(amount),
        reason,
    }
}

fn send(from: u8, to: u8, amount: u64) -> Op {
    Op::Send {
        from: account(from),
        to: account(to),
        amount: units(amount),
    }
}

fn open_hold(number: u8, payer: u8, amount: u64) -> Op {
    Op::OpenHold {
        task: task(number),
        payer: account(payer),
        amount: units(amount),
    }
}

fn earn(number: u8, checkpoint: u64, shares: Vec<Share>) -> Op {
    Op::Earn {
        task: task(number),
        checkpoint,
        shares,
    }
}

fn settle(number: u8, fees: Vec<Fee>) -> Op {
    Op::Settle {
        task: task(number),
        fees,
    }
}

/// Account 1 has 1000 base units, account 2 has 50, the bounty account 7, another one the rest.
fn ledger() -> Ledger {
    let rest = SUPPLY.checked_sub(units(1057)).unwrap();
    let bounty = AccountId::of_system(BOUNTY);
    let allocations = vec![
        (account(1), units(1000)),
        (account(2), units(50)),
        (bounty, units(7)),
        (account(99), rest),
    ];
    let mut ledger = Ledger::default();
    ledger.apply(Op::Genesis { allocations }, NOW).unwrap();
    ledger
}

/// `op` is refused as `refusal`, and nothing at all has changed.
fn refused(ledger: &mut Ledger, op: Op, refusal: Refusal) {
    let before = ledger.clone();
    assert_eq!(ledger.apply(op, NOW), Err(refusal));
    assert_eq!(*ledger, before);
    ledger.check_invariants().unwrap();
}

fn available(ledger: &Ledger, number: u8) -> u64 {
    ledger.balance(&account(number)).available.base_units()
}

#[test]
fn a_task_is_paid_in_one_group_and_the_rest_comes_back() {
    let mut l = ledger();
    l.apply(open_hold(1, 1, 600), NOW).unwrap();
    assert_eq!((available(&l, 1), l.held()), (400, units(600)));
    l.apply(earn(1, 10, vec![share(3, 100), share(4, 99)]), NOW)
        .unwrap();
    l.apply(earn(1, 20, vec![share(3, 50), share(5, 0)]), NOW)
        .unwrap();
    assert_eq!(l.balance(&account(3)).earning, units(150));
    assert_eq!(l.hold(&task(1)).unwrap().free(), units(351));
    l.check_invariants().unwrap();

    let fees = vec![fee(2, 30, Reason::ItemFee), fee(6, 0, Reason::Storage)];
    let changes = l.apply(settle(1, fees), NOW.plus_ms(5)).unwrap();
    l.check_invariants().unwrap();

    let paid: Vec<_> = changes
        .transfers
        .iter()
        .map(|t| (t.payee, t.amount.base_units(), t.reason, t.node, t.index))
        .collect();
    assert_eq!(
        paid,
        [
            (account(3), 150, Reason::Work, Some(node(3)), 0),
            (account(4), 99, Reason::Work, Some(node(4)), 1),
            (account(2), 30, Reason::ItemFee, None, 2),
            (account(1), 321, Reason::Refund, None, 3),
        ]
    );
    let hold = l.hold(&task(1)).unwrap();
    assert_eq!((hold.paid(), hold.returned()), (units(279), units(321)));
    assert_eq!(hold.payments().len(), 4);
    assert_eq!(changes.holds, std::slice::from_ref(hold));
    let balances: Vec<u64> = (1..=5).map(|n| available(&l, n)).collect();
    assert_eq!(balances, [721, 80, 150, 99, 0]);
    assert_eq!((l.held(), l.supply()), (Amount::ZERO, SUPPLY));
    assert!(l.open_holds().next().is_none());
}

#[test]
fn a_repeated_report_earns_once_and_a_hold_settles_once() {
    let mut l = ledger();
    l.apply(open_hold(1, 1, 600), NOW).unwrap();
    l.apply(earn(1, 7, vec![share(3, 100)]), NOW).unwrap();
    for checkpoint in [7, 6, 0] {
        let again = l.apply(earn(1, checkpoint, vec![share(3, 100)]), NOW);
        assert!(again.unwrap().is_empty());
    }
    assert_eq!(l.balance(&account(3)).earning, units(100));
    let first = l.apply(settle(1, vec![]), NOW).unwrap();
    refused(&mut l, settle(1, vec![]), Refusal::AlreadySettled(task(1)));
    let more_fees = vec![fee(2, 1, Reason::Storage)];
    refused(
        &mut l,
        settle(1, more_fees),
        Refusal::AlreadySettled(task(1)),
    );
    let late = earn(1, 8, vec![share(3, 1)]);
    refused(&mut l, late, Refusal::AlreadySettled(task(1)));
    let hold = l.hold(&task(1)).unwrap();
    assert_eq!(hold.payments().len(), first.transfers.len());
    refused(&mut l, open_hold(1, 1, 1), Refusal::HoldExists(task(1)));
}

#[test]
fn a_hold_that_nobody_earned_in_comes_back_whole() {
    let mut l = ledger();
    l.apply(open_hold(1, 1, 1000), NOW).unwrap();
    assert_eq!(available(&l, 1), 0);
    l.apply(settle(1, vec![]), NOW).unwrap();
    assert_eq!(available(&l, 1), 1000);
    l.check_invariants().unwrap();
}

#[test]
fn what_an_account_lacks_is_refused_with_the_amounts() {
    let mut l = ledger();
    let short = |needed, available| Refusal::InsufficientFunds {
        account: account(1),
        needed: units(needed),
        available: units(available),
    };
    refused(&mut l, send(1, 2, 1001), short(1001, 1000));
    refused(&mut l, open_hold(1, 1, 1001), short(1001, 1000));
    l.apply(open_hold(1, 1, 600), NOW).unwrap();
    refused(&mut l, send(1, 2, 401), short(401, 400));
    refused(&mut l, open_hold(2, 1, u64::MAX), short(u64::MAX, 400));

    let body = ErrorBody::from(short(1_500_000_000, 250_000_000));
    assert_eq!(
        (body.code.as_str(), body.class),
        ("insufficient_funds", ErrorClass::Funds)
    );
    assert!(body.message.contains("1.5 CTM") && body.message.contains("0.25 CTM"));
    assert!(body.help.unwrap().contains("1.25 CTM"));

    let faucet = |amount| Op::Faucet {
        to: account(1),
        amount: units(amount),
    };
    l.apply(faucet(3), NOW).unwrap();
    let (needed, available) = (units(5), units(4));
    refused(
        &mut l,
        faucet(5),
        Refusal::FaucetEmpty { needed, available },
    );
}

#[test]
fn what_makes_no_sense_is_refused() {
    let mut l = ledger();
    let system = AccountId::of_system(ESCROW);
    refused(&mut l, send(1, 2, 0), Refusal::ZeroAmount);
    refused(&mut l, open_hold(1, 1, 0), Refusal::ZeroAmount);
    refused(&mut l, send(1, 1, 5), Refusal::SameAccount);
    let to_escrow = Op::Send {
        from: account(1),
        to: system,
        amount: units(1),
    };
    refused(&mut l, to_escrow, Refusal::SystemAccount(system));
    let by_mint = Op::OpenHold {
        task: task(1),
        payer: AccountId::of_system(MINT),
        amount: units(1),
    };
    let mint = AccountId::of_system(MINT);
    refused(&mut l, by_mint, Refusal::SystemAccount(mint));
    refused(&mut l, earn(1, 0, vec![]), Refusal::HoldNotFound(task(1)));
    refused(&mut l, settle(1, vec![]), Refusal::HoldNotFound(task(1)));
    l.apply(open_hold(1, 1, 10), NOW).unwrap();
    refused(&mut l, open_hold(1, 2, 10), Refusal::HoldExists(task(1)));
    for reason in [Reason::Work, Reason::Refund, Reason::Genesis, Reason::Send] {
        let fees = vec![fee(2, 1, reason)];
        refused(&mut l, settle(1, fees), Refusal::NotAFee(reason));
    }
}

#[test]
fn a_hold_never_pays_more_than_its_amount() {
    let mut l = ledger();
    l.apply(open_hold(1, 1, 100), NOW).unwrap();
    l.apply(earn(1, 1, vec![share(3, 60)]), NOW).unwrap();
    let exceeded = |wanted| Refusal::HoldExceeded {
        task: task(1),
        wanted: units(wanted),
        free: units(40),
    };
    refused(
        &mut l,
        earn(1, 2, vec![share(3, 20), share(4, 21)]),
        exceeded(41),
    );
    let fees = vec![fee(2, 40, Reason::ItemFee), fee(2, 1, Reason::NetworkFee)];
    refused(&mut l, settle(1, fees), exceeded(41));
    let huge = vec![share(3, u64::MAX), share(4, 1)];
    refused(&mut l, earn(1, 2, huge), Refusal::Overflow);
    let fees = vec![
        fee(2, u64::MAX, Reason::Storage),
        fee(2, 1, Reason::Storage),
    ];
    refused(&mut l, settle(1, fees), Refusal::Overflow);
    // A refused checkpoint was not earned: its number is still free.
    l.apply(earn(1, 2, vec![share(3, 40)]), NOW).unwrap();
    l.apply(settle(1, vec![]), NOW).unwrap();
    assert_eq!(available(&l, 3), 100);
}

#[test]
fn the_supply_is_minted_once_and_exactly() {
    let mut l = ledger();
    let whole = vec![(account(1), SUPPLY)];
    let allocations = whole.clone();
    refused(&mut l, Op::Genesis { allocations }, Refusal::GenesisTwice);
    let mut empty = Ledger::default();
    empty.check_invariants().unwrap();
    let allocations = vec![(account(1), units(5))];
    refused(
        &mut empty,
        Op::Genesis { allocations },
        Refusal::GenesisSum(Some(units(5))),
    );
    let allocations = vec![(account(1), SUPPLY), (account(2), units(u64::MAX))];
    refused(
        &mut empty,
        Op::Genesis { allocations },
        Refusal::GenesisSum(None),
    );
    let short = Refusal::InsufficientFunds {
        account: account(1),
        needed: units(1),
        available: units(0),
    };
    refused(&mut empty, send(1, 2, 1), short);
    let allocations = cryptomind_protocol::genesis::Genesis::allocations();
    let allocations = allocations.into_iter().map(|(_, id, amount)| (id, amount));
    let op = Op::Genesis {
        allocations: allocations.collect(),
    };
    empty.apply(op, NOW).unwrap();
    assert_eq!(empty.supply(), SUPPLY);
    empty.check_invariants().unwrap();
}

#[test]
fn an_account_may_turn_over_more_than_an_amount_can_say() {
    let mut l = ledger();
    let most = available(&l, 99);
    for _ in 0..200 {
        l.apply(send(99, 98, most), NOW).unwrap();
        l.apply(send(98, 99, most), NOW).unwrap();
    }
    let posted = l.account(&account(99)).unwrap().debits_posted;
    assert!(posted.base_units() > u128::from(u64::MAX));
    assert_eq!(available(&l, 99), most);
    l.check_invariants().unwrap();
    let stored = codec::encode(l.account(&account(99)).unwrap());
    let read: Account = codec::decode(&stored).unwrap();
    assert_eq!(&read, l.account(&account(99)).unwrap());
}

#[test]
fn a_damaged_record_is_noticed() {
    let mut l = ledger();
    l.apply(open_hold(1, 1, 100), NOW).unwrap();
    l.apply(earn(1, 1, vec![share(3, 60)]), NOW).unwrap();
    let rebuilt = |change: fn(&mut Account), which: u8| {
        let mut accounts: Vec<_> = l.accounts.values().cloned().collect();
        let of = |a: &&mut Account| a.id == account(which);
        change(accounts.iter_mut().find(of).unwrap());
        Ledger::rebuild(accounts, l.holds.values().cloned()).check_invariants()
    };
    rebuilt(|_| (), 1).unwrap();
    rebuilt(|a| a.credits_posted = a.credits_posted.plus(units(1)), 1).unwrap_err();
    rebuilt(|a| a.debits_pending = units(99), 1).unwrap_err();
    rebuilt(|a| a.credits_pending = units(61), 3).unwrap_err();
    let mut hold = l.hold(&task(1)).unwrap().clone();
    hold.earnings[0].amount = units(u64::MAX);
    let accounts = l.accounts.values().cloned();
    Ledger::rebuild(accounts, [hold])
        .check_invariants()
        .unwrap_err();
}

/// Operations of a group see what earlier ones did; a refusal in the middle undoes all of them.
#[test]
fn a_group_is_carried_out_whole_or_not_at_all() {
    let (task, client, miner) = (
        TaskId::new([1; 16]),
        AccountId::new([1; 20]),
        AccountId::new([2; 20]),
    );
    let now = Timestamp::from_ms(1);
    let units = Amount::from_base_units;
    let mut ledger = Ledger::default();
    ledger
        .apply(
            Op::Genesis {
                allocations: vec![(client, SUPPLY)],
            },
            now,
        )
        .unwrap();
    let open = Op::OpenHold {
        task,
        payer: client,
        amount: units(100),
    };
    let shares = vec![Share {
        account: miner,
        node: NodeId::new([3; 32]),
        amount: units(40),
    }];
    let earn = Op::Earn {
        task,
        checkpoint: 1,
        shares,
    };
    let settle = Op::Settle {
        task,
        fees: Vec::new(),
    };
    let before = ledger.clone();
    let twice = [open.clone(), earn.clone(), settle.clone(), settle.clone()];
    assert!(ledger.apply_all(twice, now).is_err());
    assert_eq!(ledger, before);
    let all = Op::Send {
        from: client,
        to: miner,
        amount: SUPPLY,
    };
    assert!(ledger.apply_all([open.clone(), all], now).is_err());
    assert_eq!(ledger, before);
    ledger.apply_all([open, earn, settle], now).unwrap();
    assert_eq!(ledger.balance(&miner).available, units(40));
    ledger.check_invariants().unwrap();
}
