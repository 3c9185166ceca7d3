//! The genesis: what a network starts from. Its hash names the network.

use serde::{Deserialize, Serialize};

use crate::money::SUPPLY;
use crate::transaction::Action;
use crate::{AccountId, Amount, GenesisHash, PublicKey, Timestamp, codec};

/// Where the first tokens go, by the white paper's table, in percent of [`SUPPLY`].
pub const ALLOCATION_PERCENT: [(&str, u64); 5] = [
    ("investors", 70),
    ("reserve", 10),
    ("team", 15),
    ("bounty", 3),
    ("advisors", 2),
];

/// The allocation that is released over time: "15 million CTM will be reserved for team and partners".
const VESTED: &str = "team";

/// How long after the genesis the team's first part is released, and each further one: a year, then monthly, over
/// three years more.
const TEAM_VESTING: Vesting = Vesting {
    first_ms: 365 * DAY_MS,
    every_ms: 30 * DAY_MS,
    parts: 36,
};

const DAY_MS: u64 = 24 * 3600 * 1000;

/// The account that gathers the network's fees.
pub const FEES: &str = "fees";
/// The account that gathers the reward fund's share of the fees, for the month's best items.
pub const REWARD_FUND: &str = "reward_fund";
/// The account that pays test money on development networks.
pub const BOUNTY: &str = "bounty";

/// Which part of an allocation may be spent when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vesting {
    /// From the genesis to the first part, milliseconds.
    pub first_ms: u64,
    /// From one part to the next, milliseconds.
    pub every_ms: u64,
    /// How many equal parts; the last one takes what division leaves. At least 1, at most [`Vesting::MAX_PARTS`].
    pub parts: u32,
}

impl Vesting {
    /// The most parts of an allocation.
    pub const MAX_PARTS: u32 = 1200;
}

/// Who starts with what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Allocation {
    /// What it is called in the white paper's table.
    pub name: String,
    /// Whose it is.
    pub account: AccountId,
    /// How much.
    pub amount: Amount,
    /// When it may be spent; at once where nothing is said.
    pub vesting: Option<Vesting>,
}

/// What the network charges. All of it may be zero.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FeeTable {
    /// For sending tokens.
    pub send: Amount,
    /// For posting a task.
    pub post: Amount,
    /// The least that may be sent or held: less is dust.
    pub least: Amount,
    /// Share of what a settlement pays, on top of it, in millionths.
    pub network_fee_ppm: u32,
    /// The reward fund's share of all fees, in millionths of them.
    pub reward_fund_ppm: u32,
}

impl FeeTable {
    /// What carrying out `action` costs.
    pub const fn of(&self, action: &Action) -> Amount {
        match action {
            Action::Send { .. } => self.send,
            Action::Post { .. } => self.post,
            Action::Register { .. }
            | Action::Faucet {}
            | Action::Publish { .. }
            | Action::Cancel { .. }
            | Action::Rate { .. }
            | Action::RotateKey { .. }
            | Action::Delegate { .. }
            | Action::Revoke { .. } => Amount::ZERO,
        }
    }
}

/// How earnings are withheld.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Withholding {
    /// For how long, milliseconds.
    pub period_ms: u64,
    /// The largest share, in millionths.
    pub max_ppm: u32,
}

/// Whether a network's tokens are meant to be worth something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NetworkKind {
    /// Real.
    Main,
    /// Test money, handed out from the bounty account on request.
    Development,
}

/// What a network starts from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Genesis {
    /// 1.
    pub version: u8,
    /// The network's name, for people.
    pub name: String,
    /// Real or test money.
    pub kind: NetworkKind,
    /// When it was made.
    pub created: Timestamp,
    /// The coordinator's node key: whose signatures tickets and blocks carry.
    pub coordinator: PublicKey,
    /// Who starts with what; together exactly the supply.
    pub allocations: Vec<Allocation>,
    /// What the network charges.
    pub fees: FeeTable,
    /// How earnings are withheld.
    pub withholding: Withholding,
    /// What one request for test money gives; nothing where there is none.
    pub faucet: Amount,
}

impl Genesis {
    /// The network's id.
    pub fn hash(&self) -> GenesisHash {
        GenesisHash::new(blake3::derive_key(
            "cryptomind/genesis/1",
            &codec::encode(self),
        ))
    }

    /// The white paper's table, into accounts that nobody has a key for.
    pub fn standard_allocations() -> Vec<Allocation> {
        ALLOCATION_PERCENT
            .iter()
            .map(|(name, percent)| {
                let amount = SUPPLY
                    .mul_div(u128::from(*percent), 100)
                    .expect("a share of the supply fits");
                Allocation {
                    name: (*name).to_owned(),
                    account: AccountId::of_system(name),
                    amount,
                    vesting: (*name == VESTED).then_some(TEAM_VESTING),
                }
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_allocations_are_the_supply() {
        let table = Genesis::standard_allocations();
        assert_eq!(Amount::sum(table.iter().map(|a| a.amount)), Some(SUPPLY));
        let vested: Vec<_> = table.iter().filter(|a| a.vesting.is_some()).collect();
        assert_eq!(vested.len(), 1);
        assert_eq!(vested[0].amount, SUPPLY.mul_div(15, 100).unwrap());
    }

    #[test]
    fn only_moving_value_and_posting_cost() {
        let (send, post) = (Amount::from_base_units(5), Amount::from_base_units(7));
        let fees = FeeTable {
            send,
            post,
            ..FeeTable::default()
        };
        let sending = Action::Send {
            to: AccountId::new([1; 20]),
            amount: Amount::from_base_units(1_000_000),
        };
        assert_eq!(fees.of(&sending), send);
        let task = crate::TaskId::new([1; 16]);
        for free in [
            Action::Faucet {},
            Action::Cancel { task },
            Action::Rate { task, stars: 5 },
            Action::Register {
                nickname: "ada".into(),
            },
        ] {
            assert_eq!(fees.of(&free), Amount::ZERO, "{free:?}");
            assert_eq!(FeeTable::default().of(&free), Amount::ZERO);
        }
        assert_eq!(FeeTable::default().of(&sending), Amount::ZERO);
    }
}
