//! Operations in small numbers, so that the same accounts, tasks and keys meet often.

use cryptomind_protocol::genesis::Vesting;
use proptest::prelude::*;

use super::*;

/// What the genesis of these tests gives to four accounts, the third one's vesting; and for test money.
pub const GIVEN: [(u8, u64); 5] = [(1, 3000), (2, 900), (3, 60), (4, 300), (BOUNTY_NUMBER, 10)];
/// Who has the rest of the supply.
pub const RICH: u8 = 9;
pub const VESTING: Vesting = Vesting {
    first_ms: 500,
    every_ms: 700,
    parts: 3,
};

/// From here on, numbers name system accounts.
pub const FIRST_SYSTEM: u8 = 100;
const NAMES: [&str; 6] = [FEES, REWARD_FUND, BOUNTY, MINT, ESCROW, LOCKED];
pub const FEES_NUMBER: u8 = FIRST_SYSTEM;
pub const FUND_NUMBER: u8 = FIRST_SYSTEM + 1;
pub const BOUNTY_NUMBER: u8 = FIRST_SYSTEM + 2;

#[derive(Debug, Clone)]
pub enum Cap {
    Exactly(u64),
    /// This much above the most of the terms, or below.
    Most(i8),
}

#[derive(Debug, Clone)]
pub struct SmallTerms {
    pub expires: u64,
    pub work: u64,
    pub items: Vec<(u8, u64)>,
    pub per_mib: u64,
    pub storage: u64,
    pub ppm: u32,
}

#[derive(Debug, Clone)]
pub enum Small {
    Mint,
    Faucet(u8),
    Send(u8, u8, u64),
    Charge(u8, u64),
    Open(u8, u8, Cap, SmallTerms),
    /// Shares: owner, node, amount.
    Earn(u8, u64, Vec<(u8, u8, u64)>),
    /// Whether items were used; owner and bytes of what is stored; node and millionths withheld.
    Settle(u8, bool, Vec<(u8, u64)>, Vec<(u8, u32)>),
    /// Account, node.
    Forfeit(u8, u8),
    Due,
    Rotate(u8, u8),
    /// Account, node, as what, how long.
    Delegate(u8, u8, Role, u64),
    Revoke(u8, u8),
}

/// A group, and how long after the last one its block is made.
pub type Group = (u64, Vec<Small>);

fn amounts() -> impl Strategy<Value = u64> {
    prop_oneof![
        30 => 0u64..40,
        8 => 0u64..400,
        1 => prop_oneof![Just(u64::MAX), Just(SUPPLY.base_units()), Just(1u64 << 63)],
    ]
}

/// A number's account is the one whose first key has that number. 5 and above have nothing at first.
fn people() -> impl Strategy<Value = u8> {
    prop_oneof![50 => 1u8..5, 20 => 5u8..9, 1 => FIRST_SYSTEM..FIRST_SYSTEM + 6]
}

fn caps() -> impl Strategy<Value = Cap> {
    prop_oneof![
        1 => amounts().prop_map(Cap::Exactly),
        9 => (-1i8..30).prop_map(Cap::Most),
    ]
}

fn small_terms() -> impl Strategy<Value = SmallTerms> {
    let usual = prop_oneof![Just(0), Just(50_000), Just(1_000_000)];
    let ppm = prop_oneof![30 => usual, 1 => Just(u32::MAX)];
    let work = prop_oneof![30 => 0u64..60, 1 => amounts()];
    let items = prop::collection::vec((people(), 0u64..20), 0..2);
    let parts = (
        prop_oneof![1 => Just(0), 20 => 0u64..400, 80 => 0u64..20_000],
        work,
        items,
        0u64..9,
        0u64..30,
        ppm,
    );
    parts.prop_map(|(expires, work, items, per_mib, storage, ppm)| SmallTerms {
        expires,
        work,
        items,
        per_mib,
        storage,
        ppm,
    })
}

fn settles() -> impl Strategy<Value = Small> {
    let bytes = prop_oneof![Just(0), 1u64..5 << 20, Just(u64::MAX)];
    let stored = prop::collection::vec((people(), bytes), 0..3);
    let ppm = prop_oneof![40 => 0u32..250_001, 1 => Just(250_001), 1 => Just(u32::MAX)];
    let withheld = prop::collection::vec((1u8..5, ppm), 0..4);
    (1u8..5, any::<bool>(), stored, withheld)
        .prop_map(|(task, used, stored, withheld)| Small::Settle(task, used, stored, withheld))
}

fn roles() -> impl Strategy<Value = Role> {
    prop_oneof![9 => Just(Role::Miner), 9 => Just(Role::Storage), 1 => Just(Role::Client)]
}

fn smalls() -> impl Strategy<Value = Small> {
    let share = (
        people(),
        1u8..5,
        prop_oneof![20 => 0u64..12, 1 => amounts()],
    );
    let shares = prop::collection::vec(share, 0..3);
    prop_oneof![
        1 => Just(Small::Mint),
        2 => people().prop_map(Small::Faucet),
        16 => (people(), people(), amounts()).prop_map(|(a, b, n)| Small::Send(a, b, n)),
        6 => (people(), amounts()).prop_map(|(a, n)| Small::Charge(a, n)),
        30 => (1u8..5, people(), caps(), small_terms())
            .prop_map(|(task, payer, cap, terms)| Small::Open(task, payer, cap, terms)),
        40 => (1u8..5, 0u64..40, shares).prop_map(|(task, at, s)| Small::Earn(task, at, s)),
        12 => settles(),
        36 => (people(), 1u8..5).prop_map(|(account, by)| Small::Forfeit(account, by)),
        4 => Just(Small::Due),
        3 => (people(), 1u8..20).prop_map(|(account, key)| Small::Rotate(account, key)),
        3 => (people(), 1u8..12, roles(), prop_oneof![1 => Just(0), 9 => 0u64..900])
            .prop_map(|(account, by, role, ms)| Small::Delegate(account, by, role, ms)),
        1 => (people(), 1u8..12).prop_map(|(account, by)| Small::Revoke(account, by)),
    ]
}

/// `count` operations at least, most of them alone.
pub fn groups(count: usize) -> impl Strategy<Value = Vec<Group>> {
    let group = prop_oneof![6 => Just(1usize), 1 => 2usize..4];
    let group = group.prop_flat_map(|n| prop::collection::vec(smalls(), n));
    prop::collection::vec((0u64..400, group), count)
}

pub fn key(number: u8) -> PublicKey {
    PublicKey::new([number; 32])
}

pub fn id(number: u8) -> AccountId {
    match number.checked_sub(FIRST_SYSTEM) {
        Some(place) => system(NAMES[usize::from(place)]),
        None => AccountId::of_key(&key(number)),
    }
}

fn allocations() -> Vec<Allocation> {
    let given: u64 = GIVEN.iter().map(|(_, amount)| amount).sum();
    let rest = (RICH, SUPPLY.base_units() - given);
    let all = GIVEN.into_iter().chain([rest]);
    all.map(|(number, amount)| Allocation {
        vesting: (number == 3).then_some(VESTING),
        ..allocation(id(number), units(amount))
    })
    .collect()
}

/// A ledger after the genesis of these tests.
pub fn begun() -> Ledger {
    let mut ledger = Ledger::new(rules());
    let mint = real(&Small::Mint, NOW, 0);
    ledger.apply([mint], NOW).unwrap();
    ledger
}

/// The operation itself, at a block's time; `most` is the most that its terms can pay.
pub fn real(op: &Small, now: Timestamp, most: i128) -> Op {
    match op {
        Small::Mint => Op::Mint {
            allocations: allocations(),
            created: NOW,
        },
        Small::Faucet(to) => Op::Faucet { to: id(*to) },
        Small::Send(from, to, amount) => Op::Send {
            from: id(*from),
            to: id(*to),
            amount: units(*amount),
        },
        Small::Charge(account, fee) => Op::Charge {
            account: id(*account),
            fee: units(*fee),
        },
        Small::Open(number, payer, cap, terms) => Op::OpenHold {
            task: task(*number),
            payer: id(*payer),
            amount: units(cap.amount(most)),
            terms: terms.real(now),
        },
        Small::Earn(number, checkpoint, shares) => {
            let shares = shares.iter().map(|(owner, by, amount)| Share {
                account: id(*owner),
                node: node(*by),
                amount: units(*amount),
            });
            earn(*number, *checkpoint, shares.collect())
        }
        Small::Settle(number, items_used, stored, withheld) => {
            let stored = stored.iter().map(|(owner, bytes)| (id(*owner), *bytes));
            let withheld = withheld.iter().map(|(by, ppm)| (node(*by), *ppm));
            let ending = Ending {
                items_used: *items_used,
                stored: stored.collect(),
                withheld: withheld.collect(),
            };
            settle(*number, ending)
        }
        Small::Forfeit(account, by) => Op::Forfeit {
            account: id(*account),
            node: node(*by),
        },
        Small::Due => Op::Due,
        Small::Rotate(account, to) => Op::RotateKey {
            account: id(*account),
            key: key(*to),
        },
        Small::Delegate(account, by, role, ms) => Op::Delegate(Delegation {
            account: id(*account),
            node: node(*by),
            role: *role,
            expires: now.plus_ms(*ms),
        }),
        Small::Revoke(account, by) => Op::Revoke {
            account: id(*account),
            node: node(*by),
        },
    }
}

impl Cap {
    /// The amount; what no amount can say becomes the largest.
    pub fn amount(&self, most: i128) -> u64 {
        match self {
            Self::Exactly(amount) => *amount,
            Self::Most(more) => {
                let amount = (most + i128::from(*more)).max(0);
                u64::try_from(amount).unwrap_or(u64::MAX)
            }
        }
    }
}

impl SmallTerms {
    fn real(&self, now: Timestamp) -> HoldTerms {
        let items = self
            .items
            .iter()
            .map(|(owner, fee)| (id(*owner), units(*fee)));
        HoldTerms {
            expires: now.plus_ms(self.expires),
            work_max: units(self.work),
            items: items.collect(),
            storage_per_mib: units(self.per_mib),
            storage_max: units(self.storage),
            network_fee_ppm: self.ppm,
        }
    }
}
