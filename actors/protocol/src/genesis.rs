//! The genesis: what a network starts from. Its hash names the network.

use serde::{Deserialize, Serialize};

use crate::money::SUPPLY;
use crate::{AccountId, Amount, GenesisHash, PublicKey, Timestamp, codec};

/// Where the first tokens go, by the white paper's table, in percent of [`SUPPLY`].
pub const ALLOCATION_PERCENT: [(&str, u64); 5] = [
    ("investors", 70),
    ("reserve", 10),
    ("team", 15),
    ("bounty", 3),
    ("advisors", 2),
];

/// The account that gathers the network's fees.
pub const FEES: &str = "fees";

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
    /// The coordinator's node key: whose signatures tickets carry.
    pub coordinator: PublicKey,
    /// Share of a task's settlement that goes to the network, in millionths.
    pub network_fee_ppm: u32,
}

impl Genesis {
    /// The network's id.
    pub fn hash(&self) -> GenesisHash {
        GenesisHash::new(blake3::derive_key(
            "cryptomind/genesis/1",
            &codec::encode(self),
        ))
    }

    /// The first accounts and what each is minted: exactly the supply.
    pub fn allocations() -> Vec<(&'static str, AccountId, Amount)> {
        ALLOCATION_PERCENT
            .iter()
            .map(|(name, percent)| {
                let amount = SUPPLY
                    .mul_div(u128::from(*percent), 100)
                    .expect("a share of the supply fits");
                (*name, AccountId::of_system(name), amount)
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_allocations_are_the_supply() {
        let amounts = Genesis::allocations()
            .into_iter()
            .map(|(_, _, amount)| amount);
        assert_eq!(Amount::sum(amounts), Some(SUPPLY));
    }
}
