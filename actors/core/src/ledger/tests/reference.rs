//! The ledger against a naive one: balances as signed numbers, every rule written out plainly.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

#[derive(Default)]
struct NaiveHold {
    payer: u8,
    amount: i128,
    last: Option<u64>,
    earned: BTreeMap<(u8, u8), i128>,
    settled: bool,
}

#[derive(Default)]
struct Naive {
    free: BTreeMap<u8, i128>,
    holds: BTreeMap<u8, NaiveHold>,
}

/// An operation in small numbers, so that the same accounts and tasks meet often.
#[derive(Debug, Clone)]
enum Small {
    Send(u8, u8, u64),
    Open(u8, u8, u64),
    Earn(u8, u64, Vec<(u8, u8, u64)>),
    Settle(u8, Vec<(u8, u64)>),
}

fn amounts() -> impl Strategy<Value = u64> {
    prop_oneof![
        8 => 0u64..60,
        2 => 0u64..1200,
        1 => prop_oneof![Just(u64::MAX), Just(SUPPLY.base_units()), Just(1u64 << 63)],
    ]
}

fn ops() -> impl Strategy<Value = Small> {
    let shares = prop::collection::vec((1u8..6, 1u8..4, amounts()), 0..4);
    let fees = prop::collection::vec((1u8..6, amounts()), 0..3);
    prop_oneof![
        (1u8..6, 1u8..6, amounts()).prop_map(|(from, to, n)| Small::Send(from, to, n)),
        (1u8..5, 1u8..6, amounts()).prop_map(|(task, payer, n)| Small::Open(task, payer, n)),
        (1u8..5, 0u64..8, shares).prop_map(|(task, at, s)| Small::Earn(task, at, s)),
        (1u8..5, fees).prop_map(|(task, fees)| Small::Settle(task, fees)),
    ]
}

fn real(op: &Small) -> Op {
    match op {
        Small::Send(from, to, amount) => send(*from, *to, *amount),
        Small::Open(task, payer, amount) => open_hold(*task, *payer, *amount),
        Small::Earn(task, checkpoint, shares) => {
            let shares = shares.iter().map(|(owner, by, amount)| Share {
                account: account(*owner),
                node: node(*by),
                amount: units(*amount),
            });
            earn(*task, *checkpoint, shares.collect())
        }
        Small::Settle(task, fees) => {
            let fees = fees
                .iter()
                .map(|(payee, n)| fee(*payee, *n, Reason::ItemFee));
            settle(*task, fees.collect())
        }
    }
}

impl Naive {
    fn of(ledger: &Ledger) -> Self {
        let free = (1..6).map(|n| (n, available(ledger, n).into()));
        Self {
            free: free.collect(),
            holds: BTreeMap::new(),
        }
    }

    /// Whether the operation is carried out.
    fn apply(&mut self, op: &Small) -> bool {
        match op {
            Small::Send(from, to, amount) => self.send(*from, *to, i128::from(*amount)),
            Small::Open(task, payer, amount) => self.open(*task, *payer, i128::from(*amount)),
            Small::Earn(task, checkpoint, shares) => self.earn(*task, *checkpoint, shares),
            Small::Settle(task, fees) => self.settle(*task, fees),
        }
    }

    fn send(&mut self, from: u8, to: u8, amount: i128) -> bool {
        let done = from != to && amount > 0 && self.free[&from] >= amount;
        if done {
            *self.free.get_mut(&from).unwrap() -= amount;
            *self.free.get_mut(&to).unwrap() += amount;
        }
        done
    }

    fn open(&mut self, task: u8, payer: u8, amount: i128) -> bool {
        let done = amount > 0 && !self.holds.contains_key(&task) && self.free[&payer] >= amount;
        if done {
            *self.free.get_mut(&payer).unwrap() -= amount;
            let hold = NaiveHold {
                payer,
                amount,
                ..NaiveHold::default()
            };
            self.holds.insert(task, hold);
        }
        done
    }

    fn earn(&mut self, task: u8, checkpoint: u64, shares: &[(u8, u8, u64)]) -> bool {
        let Some(hold) = self.holds.get_mut(&task).filter(|hold| !hold.settled) else {
            return false;
        };
        if hold.last.is_some_and(|last| checkpoint <= last) {
            return true;
        }
        let wanted: i128 = shares.iter().map(|(_, _, n)| i128::from(*n)).sum();
        if hold.earned.values().sum::<i128>() + wanted > hold.amount {
            return false;
        }
        for (owner, by, amount) in shares {
            *hold.earned.entry((*owner, *by)).or_default() += i128::from(*amount);
        }
        hold.last = Some(checkpoint);
        true
    }

    fn settle(&mut self, task: u8, fees: &[(u8, u64)]) -> bool {
        let Some(hold) = self.holds.get_mut(&task).filter(|hold| !hold.settled) else {
            return false;
        };
        let fee_sum: i128 = fees.iter().map(|(_, n)| i128::from(*n)).sum();
        let rest = hold.amount - hold.earned.values().sum::<i128>() - fee_sum;
        if rest < 0 {
            return false;
        }
        hold.settled = true;
        *self.free.get_mut(&hold.payer).unwrap() += rest;
        for ((owner, _), amount) in &hold.earned {
            *self.free.get_mut(owner).unwrap() += amount;
        }
        for (payee, amount) in fees {
            *self.free.get_mut(payee).unwrap() += i128::from(*amount);
        }
        true
    }

    fn balance(&self, number: u8) -> (i128, i128, i128) {
        let open = || self.holds.values().filter(|hold| !hold.settled);
        let held = open().filter(|h| h.payer == number).map(|h| h.amount).sum();
        let earned = open().flat_map(|h| &h.earned);
        let earning = earned.filter(|((owner, _), _)| *owner == number);
        (self.free[&number], held, earning.map(|(_, n)| n).sum())
    }
}

fn seen(ledger: &Ledger, number: u8) -> (i128, i128, i128) {
    let b = ledger.balance(&account(number));
    let n = |amount: Amount| i128::from(amount.base_units());
    (n(b.available), n(b.held), n(b.earning))
}

proptest! {
    // 400 cases of 80 operations: 32,000.
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn it_does_what_a_naive_ledger_does(ops in prop::collection::vec(ops(), 80)) {
        let mut ledger = ledger();
        let mut naive = Naive::of(&ledger);
        let mut stored = ledger.clone();
        let mut ids = BTreeSet::new();
        for op in &ops {
            let before = ledger.clone();
            let result = ledger.apply(real(op), NOW);
            prop_assert_eq!(result.is_ok(), naive.apply(op), "{:?}: {:?}", op, result);
            match result {
                Ok(changes) => {
                    for transfer in &changes.transfers {
                        prop_assert!(ids.insert(transfer.id), "two transfers share an id");
                        prop_assert!(!transfer.amount.is_zero());
                    }
                    stored.absorb(&changes);
                }
                Err(_) => prop_assert_eq!(&ledger, &before),
            }
            for number in 1..6 {
                prop_assert_eq!(seen(&ledger, number), naive.balance(number));
            }
            prop_assert_eq!(ledger.check_invariants(), Ok(()));
            prop_assert_eq!(ledger.supply(), SUPPLY);
        }
        // The changed records are all that there is to store.
        let accounts = stored.accounts.into_values();
        prop_assert_eq!(Ledger::rebuild(accounts, stored.holds.into_values()), ledger);
    }
}
