//! Every row of the table of a hold's states, and the timers.

use super::*;

/// The owner of an item has no record yet when the hold opens, and gives its first key to another account.
#[test]
fn a_payee_whose_key_went_to_another_account_is_paid_there() {
    let key = PublicKey::new([77; 32]);
    let (payee, heir) = (AccountId::of_key(&key), account(4));
    let mut l = ledger();
    let terms = HoldTerms {
        items: vec![(payee, units(30))],
        storage_per_mib: units(7),
        storage_max: units(7),
        ..terms(60)
    };
    done(&mut l, NOW, [open(1, 1, 500, terms)]);
    let before = l.balance(&heir).available;
    done(&mut l, NOW, [Op::RotateKey { account: heir, key }]);
    let by = Share {
        account: payee,
        ..share(9, 50)
    };
    done(&mut l, NOW, [earn(1, 1, vec![by])]);
    assert_eq!(l.balance(&heir).earning, units(50));
    let ending = Ending {
        items_used: true,
        stored: vec![(payee, 1 << 20)],
        ..Ending::default()
    };
    done(&mut l, NOW, [settle(1, ending)]);
    let paid = l.balance(&heir).available.checked_sub(before);
    assert_eq!(paid, Some(units(50 + 30 + 7)));
    assert_eq!(l.account(&payee), None);
}

#[test]
fn a_task_is_paid_in_one_group_and_the_rest_comes_back() {
    let mut l = ledger();
    done(&mut l, NOW, [open(1, 1, 600, full_terms())]);
    assert_eq!((available(&l, 1), l.held()), (400, units(600)));
    done(
        &mut l,
        NOW,
        [earn(1, 10, vec![share(3, 100), share(4, 99)])],
    );
    done(&mut l, NOW, [earn(1, 20, vec![share(3, 50), share(5, 0)])]);
    assert_eq!(l.balance(&account(3)).earning, units(150));
    assert_eq!(l.hold(&task(1)).unwrap().free(), units(351));

    let ending = Ending {
        items_used: true,
        stored: vec![(account(8), 2 << 20), (account(9), 1)],
        withheld: Vec::new(),
    };
    let changes = done(&mut l, NOW.plus_ms(5), [settle(1, ending)]);

    // 249 for work, 41 for items, 21 for storage: 311; 31 on top, of which 3 for the reward fund.
    let expected = [
        (account(3), 150, Reason::Work, Some(node(3))),
        (account(4), 99, Reason::Work, Some(node(4))),
        (account(6), 30, Reason::ItemFee, None),
        (account(7), 11, Reason::ItemFee, None),
        (account(8), 21, Reason::Storage, None),
        (system(FEES), 28, Reason::NetworkFee, None),
        (system(REWARD_FUND), 3, Reason::RewardFund, None),
        (account(1), 258, Reason::Refund, None),
    ];
    assert_eq!(paid(&changes), expected);
    let all = changes.transfers.iter();
    assert!(
        all.clone()
            .all(|t| t.task == Some(task(1)) && t.payer == account(1))
    );
    assert_eq!(changes.holds, [(task(1), None)]);
    assert_eq!(l.hold(&task(1)), None);
    let balances: Vec<u64> = (1..=5).map(|n| available(&l, n)).collect();
    assert_eq!(balances, [658, 50, 150, 99, 0]);
    assert_eq!((l.held(), l.supply()), (Amount::ZERO, SUPPLY));
    assert_eq!((l.hold_count(), l.next_due()), (0, None));
}

#[test]
fn a_repeated_report_earns_once_and_a_hold_settles_once() {
    let mut l = ledger();
    done(&mut l, NOW, [open_hold(1, 1, 600)]);
    refused(&mut l, open_hold(1, 1, 2), Refusal::HoldExists(task(1)));
    done(&mut l, NOW, [earn(1, 7, vec![share(3, 100)])]);
    for checkpoint in [7, 6, 0] {
        let again = l.apply([earn(1, checkpoint, vec![share(3, 100)])], NOW);
        assert!(again.unwrap().is_empty());
    }
    assert_eq!(l.balance(&account(3)).earning, units(100));
    done(&mut l, NOW, [settle_plainly(1)]);
    let gone = || Refusal::HoldNotOpen(task(1));
    refused(&mut l, settle_plainly(1), gone());
    refused(&mut l, earn(1, 8, vec![share(3, 1)]), gone());
    assert!(l.apply([Op::Due], EXPIRES).unwrap().is_empty());
}

#[test]
fn a_hold_that_nobody_earned_in_comes_back_whole() {
    let mut l = ledger();
    done(&mut l, NOW, [open(1, 1, 1000, full_terms())]);
    assert_eq!(available(&l, 1), 0);
    let changes = done(&mut l, NOW, [settle_plainly(1)]);
    assert_eq!(paid(&changes), [(account(1), 1000, Reason::Refund, None)]);
    assert_eq!(available(&l, 1), 1000);
}

/// A lost coordinator strands nothing: whoever makes the next block pays the miners and the client.
#[test]
fn what_nobody_settles_is_settled_when_it_expires() {
    let mut l = ledger();
    done(&mut l, NOW, [open(1, 1, 500, full_terms())]);
    done(&mut l, NOW, [open(2, 1, 500, full_terms())]);
    done(&mut l, NOW, [earn(1, 1, vec![share(3, 100)])]);
    assert_eq!(l.next_due(), Some(EXPIRES));
    let early = Timestamp::from_ms(EXPIRES.as_ms() - 1);
    assert!(l.apply([Op::Due], early).unwrap().is_empty());

    // From its expiry on, nothing else moves it.
    let gone = || Refusal::HoldNotOpen(task(1));
    refused_at(&mut l, EXPIRES, settle_plainly(1), gone());
    refused_at(&mut l, EXPIRES, earn(1, 2, vec![share(3, 9)]), gone());

    // The items were used, as something was earned: 100 + 41, 14 for the network, 1 of them for the fund.
    let changes = done(&mut l, EXPIRES, [Op::Due]);
    let expected = [
        (account(3), 100, Reason::Work, Some(node(3))),
        (account(6), 30, Reason::ItemFee, None),
        (account(7), 11, Reason::ItemFee, None),
        (system(FEES), 13, Reason::NetworkFee, None),
        (system(REWARD_FUND), 1, Reason::RewardFund, None),
        (account(1), 345, Reason::Refund, None),
        (account(1), 500, Reason::Refund, None),
    ];
    assert_eq!(paid(&changes), expected);
    assert_eq!((l.hold_count(), l.next_due()), (0, None));
    assert_eq!(l.balance(&account(3)).available, units(100));
}

#[test]
fn holds_expire_in_order_of_time_then_task() {
    let mut l = ledger();
    for (number, expires) in [(1, 300), (2, 200), (3, 200), (4, 301)] {
        let terms = HoldTerms {
            expires: NOW.plus_ms(expires),
            ..terms(10)
        };
        done(&mut l, NOW, [open(number, 1, 10, terms)]);
    }
    let tasks = |changes: Changes| -> Vec<TaskId> {
        let transfers = changes.transfers.iter();
        transfers.filter_map(|t| t.task).collect()
    };
    let due = done(&mut l, NOW.plus_ms(300), [Op::Due]);
    assert_eq!(tasks(due), [task(2), task(3), task(1)]);
    assert_eq!(l.next_due(), Some(NOW.plus_ms(301)));
    assert_eq!(tasks(done(&mut l, EXPIRES, [Op::Due])), [task(4)]);
}

/// A block has a limit: what does not fit is due still, and the next block does it.
#[test]
fn too_much_at_once_is_done_in_several_blocks() {
    let mut l = ledger();
    let opened = |number: usize| Op::OpenHold {
        task: TaskId::new((number as u128).to_be_bytes()),
        payer: account(99),
        amount: units(2),
        terms: terms(2),
    };
    l.apply((0..MAX_DUE_TRANSFERS + 3).map(opened), NOW)
        .unwrap();
    let due = done(&mut l, EXPIRES, [Op::Due]);
    assert_eq!(due.transfers.len(), MAX_DUE_TRANSFERS);
    assert_eq!((l.hold_count(), l.next_due()), (3, Some(EXPIRES)));
    done(&mut l, EXPIRES.plus_ms(1), [Op::Due]);
    assert_eq!((l.hold_count(), l.next_due()), (0, None));
}

/// It has no record at all before: it needs no money to start.
#[test]
fn a_miner_with_nothing_earns_and_is_paid() {
    let mut l = ledger();
    assert_eq!(l.account(&account(3)), None);
    done(&mut l, NOW, [open_hold(1, 1, 600)]);
    done(&mut l, NOW, [earn(1, 1, vec![share(3, 100)])]);
    let earning = Balance {
        earning: units(100),
        ..Balance::default()
    };
    assert_eq!(l.balance(&account(3)), earning);
    let short = Refusal::InsufficientFunds {
        account: account(3),
        needed: units(2),
        available: Amount::ZERO,
    };
    refused(&mut l, send(3, 2, 2), short);
    done(&mut l, NOW, [settle_plainly(1)]);
    done(&mut l, NOW, [send(3, 2, 100)]);
    assert_eq!(available(&l, 2), 150);
}

#[test]
fn withheld_earnings_are_paid_and_locked_for_a_period() {
    let mut l = ledger();
    done(&mut l, NOW, [open_hold(1, 1, 600)]);
    let shares = vec![share(3, 100), share(4, 99), share(5, 3)];
    done(&mut l, NOW, [earn(1, 1, shares)]);
    let ending = Ending {
        withheld: vec![(node(3), 250_000), (node(4), 50_000), (node(5), 250_000)],
        ..Ending::default()
    };
    let changes = done(&mut l, NOW, [settle(1, ending)]);
    assert_eq!(changes.transfers.len(), 4);

    // 4,600 ms rounded up to a multiple of 36; 4.95 and 0.75 rounded down.
    let until = Timestamp::from_ms(4_608);
    let locked = |owner: u8, amount: u64| Lock {
        account: account(owner),
        until,
        node: Some(node(owner)),
        amount: units(amount),
    };
    let (three, four) = (locked(3, 25), locked(4, 4));
    assert_eq!(l.locks().collect::<Vec<_>>(), [&three, &four]);
    assert_eq!(l.lock(&three.key()), Some(&three));
    let balance = Balance {
        available: units(75),
        locked: units(25),
        ..Balance::default()
    };
    assert_eq!(l.balance(&account(3)), balance);
    assert_eq!(l.locked(), units(29));
    assert_eq!(
        (l.unlocks(&account(3)), l.next_due()),
        (Some(until), Some(until))
    );
    let short = Refusal::InsufficientFunds {
        account: account(3),
        needed: units(76),
        available: units(75),
    };
    refused(&mut l, send(3, 2, 76), short);

    let early = Timestamp::from_ms(until.as_ms() - 1);
    assert!(l.apply([Op::Due], early).unwrap().is_empty());
    let released = done(&mut l, until, [Op::Due]);
    assert_eq!(released.locks, [(three.key(), None), (four.key(), None)]);
    assert!(released.transfers.is_empty());
    assert_eq!((l.locked(), l.unlocks(&account(3))), (Amount::ZERO, None));
    done(&mut l, until, [send(3, 2, 100)]);
}

#[test]
fn locks_of_one_node_that_end_together_are_one() {
    let mut l = ledger();
    let withheld = Ending {
        withheld: vec![(node(3), 200_000)],
        ..Ending::default()
    };
    for number in 1..=3 {
        let now = NOW.plus_ms(number.into());
        done(&mut l, now, [open_hold(number, 1, 50)]);
        done(&mut l, now, [earn(number, 1, vec![share(3, 50)])]);
        done(&mut l, now, [settle(number, withheld.clone())]);
    }
    let lock = l.locks().next().unwrap();
    assert_eq!((l.lock_count(), lock.amount), (1, units(30)));
}

/// A wrong answer costs what is withheld of all nodes of the owner's, and nothing else of what anybody has.
#[test]
fn what_is_withheld_can_be_forfeited_and_nothing_else() {
    let mut l = ledger();
    let forfeit = |by: u8| Op::Forfeit {
        account: account(by),
        node: node(by),
    };
    let two = vec![
        share(3, 400),
        Share {
            node: node(4),
            ..share(3, 200)
        },
        share(5, 300),
    ];
    done(&mut l, NOW, [open_hold(1, 1, 1000), earn(1, 1, two)]);
    assert!(
        done(&mut l, NOW, [forfeit(3)]).is_empty(),
        "what is earned in a hold is not withheld"
    );
    let ending = Ending {
        withheld: [3, 4, 5].map(|by| (node(by), 100_000)).into(),
        ..Ending::default()
    };
    done(&mut l, NOW, [settle(1, ending)]);
    let before = l.balance(&account(5));
    assert_eq!(
        (l.balance(&account(3)).locked, before.locked),
        (units(60), units(30))
    );
    let changes = done(&mut l, NOW, [forfeit(3)]);
    let fund = (system(REWARD_FUND), 60, Reason::Forfeit, Some(node(3)));
    assert_eq!(paid(&changes), [fund]);
    assert_eq!(
        (available(&l, 3), l.balance(&account(3)).locked),
        (540, Amount::ZERO)
    );
    assert_eq!(l.balance(&account(5)), before);
    // Once; and what is due is its owner's.
    assert!(done(&mut l, NOW, [forfeit(3)]).is_empty());
    let due = l.next_due().unwrap();
    assert!(done(&mut l, due, [forfeit(5)]).is_empty());
    refused(
        &mut l,
        Op::Forfeit {
            account: system(FEES),
            node: node(3),
        },
        Refusal::SystemAccount(system(FEES)),
    );
}

#[test]
fn what_vests_is_not_forfeited() {
    let mut l = super::small::begun();
    let vesting = super::small::id(3);
    let locked = l.balance(&vesting).locked;
    let forfeit = Op::Forfeit {
        account: vesting,
        node: node(1),
    };
    assert!(done(&mut l, NOW, [forfeit]).is_empty());
    assert_eq!((l.balance(&vesting).locked, locked), (locked, units(60)));
}

#[test]
fn without_a_period_nothing_is_withheld() {
    let mut l = Ledger {
        rules: Rules {
            withholding: Withholding {
                period_ms: 0,
                max_ppm: 1_000_000,
            },
            ..rules()
        },
        ..ledger()
    };
    done(&mut l, NOW, [open_hold(1, 1, 50)]);
    done(&mut l, NOW, [earn(1, 1, vec![share(3, 50)])]);
    let ending = Ending {
        withheld: vec![(node(3), 1_000_000)],
        ..Ending::default()
    };
    done(&mut l, NOW, [settle(1, ending)]);
    assert_eq!((available(&l, 3), l.lock_count()), (50, 0));
}

/// Storage is charged once over all results, up to what was quoted; bytes divide it.
#[test]
fn storage_is_divided_by_bytes_and_has_a_most() {
    let parts = |stored: Vec<(AccountId, u64)>| {
        let mut l = ledger();
        done(&mut l, NOW, [open(1, 1, 600, full_terms())]);
        let ending = Ending {
            stored,
            ..Ending::default()
        };
        let changes = done(&mut l, NOW, [settle(1, ending)]);
        let storage = changes.transfers.into_iter();
        let storage = storage.filter(|t| t.reason == Reason::Storage);
        storage
            .map(|t| (t.payee, t.amount.base_units()))
            .collect::<Vec<_>>()
    };
    let mib = 1 << 20;
    assert_eq!(parts(vec![(account(8), 0)]), []);
    assert_eq!(parts(vec![(account(8), 1)]), [(account(8), 7)]);
    let halves = vec![(account(8), mib), (account(9), mib)];
    assert_eq!(parts(halves), [(account(8), 7), (account(9), 7)]);
    let all = vec![(account(8), u64::MAX), (account(9), u64::MAX / 4)];
    assert_eq!(parts(all), [(account(8), 40), (account(9), 10)]);
}

/// Operations of a group see what earlier ones did; a refusal in the middle undoes all of them.
#[test]
fn a_group_is_carried_out_whole_or_not_at_all() {
    let mut l = ledger();
    let before = l.clone();
    let group = || {
        let shares = vec![share(3, 40)];
        [open_hold(1, 1, 100), earn(1, 1, shares), settle_plainly(1)]
    };
    let twice = group().into_iter().chain([settle_plainly(1)]);
    assert_eq!(l.apply(twice, NOW), Err(Refusal::HoldNotOpen(task(1))));
    assert_eq!(l, before);
    let too_much = [open_hold(1, 1, 100), send(1, 2, 901)];
    assert!(l.apply(too_much, NOW).is_err());
    assert_eq!(l, before);
    done(&mut l, NOW, group());
    assert_eq!((available(&l, 1), available(&l, 3)), (960, 40));
    done(&mut l, NOW, [send(1, 5, 960), send(5, 3, 960)]);
    assert_eq!(available(&l, 3), 1000);
}

/// Whoever signs whatever: a hold's money stays where it is, but for the hold's own rules.
#[test]
fn nothing_but_a_holds_own_rules_moves_what_it_holds() {
    let mut l = ledger();
    done(&mut l, NOW, [open_hold(1, 1, 600)]);
    done(&mut l, NOW, [earn(1, 1, vec![share(3, 100)])]);
    let names = system_names().map(system);
    let signers: Vec<AccountId> = names.chain([1, 2, 3, 99].map(account)).collect();
    let hold = l.hold(&task(1)).unwrap().clone();
    for (from, to) in signers
        .iter()
        .flat_map(|a| signers.iter().map(move |b| (*a, *b)))
    {
        for amount in [1, 2, 100, 400, 500, 501, 600, 1000] {
            let amount = units(amount);
            let key = PublicKey::new([9; 32]);
            for op in [
                Op::Faucet { to },
                Op::Send { from, to, amount },
                Op::Charge {
                    account: from,
                    fee: amount,
                },
                Op::RotateKey { account: from, key },
                Op::OpenHold {
                    task: task(2),
                    payer: from,
                    amount,
                    terms: terms(2),
                },
                Op::OpenHold {
                    task: task(1),
                    payer: from,
                    amount,
                    terms: terms(2),
                },
                Op::Mint {
                    allocations: vec![allocation(from, SUPPLY)],
                    created: NOW,
                },
                Op::Due,
            ] {
                let mut after = l.clone();
                let result = after.apply([op.clone()], NOW);
                assert_eq!(after.hold(&task(1)), Some(&hold), "{op:?}: {result:?}");
                assert!(after.balance(&account(1)).held >= units(600), "{op:?}");
                assert_eq!(after.balance(&account(3)).earning, units(100));
                let of_hold = |t: &&Transfer| t.task.is_some();
                let moved = result.iter().flat_map(|c| &c.transfers).find(of_hold);
                assert_eq!(moved, None, "{op:?}");
                after.check_invariants().unwrap();
                assert!(after.apply([settle_plainly(1)], NOW).is_ok());
            }
        }
    }
}
