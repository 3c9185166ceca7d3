use super::*;
use cryptomind_protocol::block::{Ending, HoldTerms, Share, Transfer};
use cryptomind_protocol::genesis::{Allocation, BOUNTY, FEES, FeeTable, REWARD_FUND, Withholding};
use cryptomind_protocol::money::SUPPLY;
use cryptomind_protocol::role::Role;
use cryptomind_protocol::task::Reason;
use cryptomind_protocol::{ErrorBody, ErrorClass, codec};

mod bad_input;
mod breaches;
mod delegations;
mod disorder;
mod holds;
mod keys;
mod minting;
mod naive;
mod records;
mod reference;
mod small;

const NOW: Timestamp = Timestamp::from_ms(1_000);
/// When the holds of [`terms`] expire.
const EXPIRES: Timestamp = Timestamp::from_ms(100_000);
/// A thousandth of an hour: locks end on multiples of 36 ms.
const PERIOD_MS: u64 = 3_600;

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

fn system(name: &str) -> AccountId {
    AccountId::of_system(name)
}

fn rules() -> Rules {
    Rules {
        fees: FeeTable {
            least: units(2),
            reward_fund_ppm: 100_000,
            ..FeeTable::default()
        },
        withholding: Withholding {
            period_ms: PERIOD_MS,
            max_ppm: 250_000,
        },
        faucet: units(3),
    }
}

/// Terms that pay for work alone, at most `work`.
fn terms(work: u64) -> HoldTerms {
    HoldTerms {
        expires: EXPIRES,
        work_max: units(work),
        items: Vec::new(),
        storage_per_mib: Amount::ZERO,
        storage_max: Amount::ZERO,
        network_fee_ppm: 0,
    }
}

/// Terms with everything: 300 of work, 30 and 11 for items, 7 a MiB up to 50, 10 % for the network.
fn full_terms() -> HoldTerms {
    HoldTerms {
        items: vec![(account(6), units(30)), (account(7), units(11))],
        storage_per_mib: units(7),
        storage_max: units(50),
        network_fee_ppm: 100_000,
        ..terms(300)
    }
}

fn share(owner: u8, amount: u64) -> Share {
    Share {
        account: account(owner),
        node: node(owner),
        amount: units(amount),
    }
}

fn send(from: u8, to: u8, amount: u64) -> Op {
    Op::Send {
        from: account(from),
        to: account(to),
        amount: units(amount),
    }
}

fn open(number: u8, payer: u8, amount: u64, terms: HoldTerms) -> Op {
    Op::OpenHold {
        task: task(number),
        payer: account(payer),
        amount: units(amount),
        terms,
    }
}

/// A hold whose whole amount may be earned.
fn open_hold(number: u8, payer: u8, amount: u64) -> Op {
    open(number, payer, amount, terms(amount))
}

fn earn(number: u8, checkpoint: u64, shares: Vec<Share>) -> Op {
    Op::Earn {
        task: task(number),
        checkpoint,
        shares,
    }
}

fn settle(number: u8, ending: Ending) -> Op {
    Op::Settle {
        task: task(number),
        ending,
    }
}

/// The task ended and nothing is to be said about it.
fn settle_plainly(number: u8) -> Op {
    settle(number, Ending::default())
}

fn delegation(owner: u8, number: u8, ms: u64) -> Delegation {
    Delegation {
        account: account(owner),
        node: node(number),
        role: Role::Miner,
        expires: NOW.plus_ms(ms),
    }
}

fn delegate(owner: u8, number: u8, ms: u64) -> Op {
    Op::Delegate(delegation(owner, number, ms))
}

fn allocation(account: AccountId, amount: Amount) -> Allocation {
    Allocation {
        name: "somebody".into(),
        account,
        amount,
        vesting: None,
    }
}

/// Account 1 has 1000 base units, account 2 has 50, the bounty account 7, another one the rest.
fn ledger() -> Ledger {
    let rest = SUPPLY.checked_sub(units(1057)).unwrap();
    let allocations = vec![
        allocation(account(1), units(1000)),
        allocation(account(2), units(50)),
        allocation(system(BOUNTY), units(7)),
        allocation(account(99), rest),
    ];
    let mut ledger = Ledger::new(rules());
    let created = NOW;
    let mint = Op::Mint {
        allocations,
        created,
    };
    done(&mut ledger, NOW, [mint]);
    ledger
}

/// `ops` are carried out, and every invariant holds.
fn done<const N: usize>(ledger: &mut Ledger, now: Timestamp, ops: [Op; N]) -> Changes {
    let changes = ledger.apply(ops, now).unwrap();
    ledger.check_invariants().unwrap();
    changes
}

/// `op` is refused as `refusal`, and nothing at all has changed.
fn refused(ledger: &mut Ledger, op: Op, refusal: Refusal) {
    refused_at(ledger, NOW, op, refusal);
}

fn refused_at(ledger: &mut Ledger, now: Timestamp, op: Op, refusal: Refusal) {
    let before = ledger.clone();
    assert_eq!(ledger.apply([op], now), Err(refusal));
    assert_eq!(*ledger, before);
    ledger.check_invariants().unwrap();
}

fn available(ledger: &Ledger, number: u8) -> u64 {
    ledger.balance(&account(number)).available.base_units()
}

/// Payee, amount, reason, node of each.
fn paid(changes: &Changes) -> Vec<(AccountId, u64, Reason, Option<NodeId>)> {
    let part = |t: &Transfer| (t.payee, t.amount.base_units(), t.reason, t.node);
    changes.transfers.iter().map(part).collect()
}
