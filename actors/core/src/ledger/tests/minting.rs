//! The supply, what vests, and the fees of transactions.

use cryptomind_protocol::genesis::{Genesis, Vesting};

use super::*;

fn mint(allocations: Vec<Allocation>) -> Op {
    Op::Mint {
        allocations,
        created: NOW,
    }
}

#[test]
fn the_supply_is_minted_once_and_exactly() {
    let mut l = ledger();
    let whole = || mint(vec![allocation(account(1), SUPPLY)]);
    refused(&mut l, whole(), Refusal::MintedTwice);
    let mut empty = Ledger::new(rules());
    empty.check_invariants().unwrap();
    let twice = empty.clone().apply([whole(), whole()], NOW);
    assert_eq!(twice, Err(Refusal::MintedTwice));
    let few = mint(vec![allocation(account(1), units(5))]);
    refused(&mut empty, few, Refusal::MintSum(Some(units(5))));
    let many = [SUPPLY, units(u64::MAX)].map(|n| allocation(account(1), n));
    refused(&mut empty, mint(many.into()), Refusal::MintSum(None));
    let none = [SUPPLY, Amount::ZERO].map(|n| allocation(account(1), n));
    refused(&mut empty, mint(none.into()), Refusal::ZeroAmount);
    for name in [MINT, ESCROW, LOCKED] {
        let to_itself = mint(vec![allocation(system(name), SUPPLY)]);
        refused(&mut empty, to_itself, Refusal::SystemAccount(system(name)));
    }
    let short = Refusal::InsufficientFunds {
        account: account(1),
        needed: units(2),
        available: units(0),
    };
    refused(&mut empty, send(1, 2, 2), short);
    assert_eq!(empty.supply(), Amount::ZERO);
    done(&mut empty, NOW, [mint(Genesis::standard_allocations())]);
    assert_eq!(empty.supply(), SUPPLY);
}

fn vesting(parts: u32) -> Op {
    let vesting = Vesting {
        first_ms: 1000,
        every_ms: 10,
        parts,
    };
    let rest = SUPPLY.checked_sub(units(100)).unwrap();
    let team = Allocation {
        vesting: Some(vesting),
        ..allocation(account(1), units(100))
    };
    mint(vec![team, allocation(account(99), rest)])
}

#[test]
fn a_schedule_has_parts() {
    let mut l = Ledger::new(rules());
    for parts in [0, Vesting::MAX_PARTS + 1] {
        refused(&mut l, vesting(parts), Refusal::Vesting("somebody".into()));
    }
    // More parts than base units: the last one has them all.
    let mut many = l.clone();
    done(&mut many, NOW, [vesting(101)]);
    assert_eq!(many.unlocks(&account(1)), Some(NOW.plus_ms(2000)));
    done(&mut l, NOW, [vesting(3)]);
    let parts: Vec<_> = l.locks_of(&account(1)).map(|l| l.amount).collect();
    assert_eq!(parts, [33, 33, 34].map(units));
}

/// The team's tokens of the white paper's table, over four years of block time.
#[test]
fn the_teams_share_is_released_by_its_schedule() {
    let team = system("team");
    let mut l = Ledger::new(rules());
    done(&mut l, NOW, [mint(Genesis::standard_allocations())]);
    let share = l.account(&team).unwrap().owned();
    let allocations = Genesis::standard_allocations();
    let schedule = allocations.iter().find_map(|a| a.vesting).unwrap();
    assert_eq!((l.locked(), l.lock_count()), (share, 36));
    assert_eq!(l.balance(&team).available, Amount::ZERO);

    let part = share.base_units() / u64::from(schedule.parts);
    for number in 0..schedule.parts {
        let at = schedule.first_ms + u64::from(number) * schedule.every_ms;
        let at = NOW.plus_ms(at);
        assert_eq!((l.next_due(), l.unlocks(&team)), (Some(at), Some(at)));
        let before = Timestamp::from_ms(at.as_ms() - 1);
        assert!(l.apply([Op::Due], before).unwrap().is_empty());
        let released = done(&mut l, at, [Op::Due]);
        assert!(released.transfers.is_empty());
        let expected = match number + 1 {
            36 => share.base_units(),
            done => part * u64::from(done),
        };
        assert_eq!(l.balance(&team).available.base_units(), expected);
        assert_eq!(l.supply(), SUPPLY);
    }
    assert_eq!((l.locked(), l.next_due()), (Amount::ZERO, None));
}

/// A chain that slept for years releases everything at once.
#[test]
fn late_is_not_lost() {
    let mut l = Ledger::new(rules());
    done(&mut l, NOW, [vesting(3)]);
    done(&mut l, Timestamp::from_ms(u64::MAX), [Op::Due]);
    assert_eq!((available(&l, 1), l.lock_count()), (100, 0));
}

#[test]
fn a_transactions_fee_goes_to_the_network_and_the_reward_fund() {
    let mut l = ledger();
    let fee = |fee| Op::Charge {
        account: account(1),
        fee: units(fee),
    };
    assert!(l.apply([fee(0)], NOW).unwrap().is_empty());
    let charged = done(&mut l, NOW, [send(1, 2, 100), fee(29)]);
    let expected = [
        (account(2), 100, Reason::Send, None),
        (system(FEES), 27, Reason::TransactionFee, None),
        (system(REWARD_FUND), 2, Reason::RewardFund, None),
    ];
    assert_eq!(paid(&charged), expected);
    assert_eq!(available(&l, 1), 871);
    // A tenth of 9, rounded down: no part of nothing.
    assert_eq!(done(&mut l, NOW, [fee(9)]).transfers.len(), 1);
    l.rules.fees.reward_fund_ppm = u32::MAX;
    let charged = done(&mut l, NOW, [fee(9)]);
    assert_eq!(
        paid(&charged),
        [(system(REWARD_FUND), 9, Reason::RewardFund, None)]
    );
}
