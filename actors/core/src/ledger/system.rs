//! The ledger's own accounts, which nobody has a key for, and what kind of account an id names.

use std::sync::LazyLock;

use cryptomind_protocol::AccountId;
use cryptomind_protocol::genesis::{ALLOCATION_PERCENT, BOUNTY, FEES, REWARD_FUND};
use serde::{Deserialize, Serialize};

/// System account that owes the supply to everybody else: the genesis mints from it.
pub const MINT: &str = "genesis";
/// System account that stands for what open holds have not earned yet. Only ever pending.
pub const ESCROW: &str = "escrow";
/// System account that stands for what locks keep back. Only ever pending.
pub const LOCKED: &str = "locked";

/// Names of the accounts that nobody has a key for.
pub fn system_names() -> impl Iterator<Item = &'static str> {
    KINDS.iter().map(|(name, _)| *name)
}

/// What an account is for. It follows from the id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Somebody's, who signs for it.
    User,
    /// Owes the supply: the only account with more debits than credits.
    Issuance,
    /// Stands for what open holds have not earned yet.
    Escrow,
    /// Stands for what locks keep back.
    Locked,
    /// Gathers the network's fees.
    Fees,
    /// Gathers the reward fund's share of the fees.
    RewardFund,
    /// A row of the white paper's table.
    Allocation,
}

impl Kind {
    /// What kind of account this id names.
    pub fn of(id: &AccountId) -> Self {
        let known = SYSTEM.kinds.iter().find(|(system, _)| system == id);
        known.map_or(Self::User, |(_, kind)| *kind)
    }

    /// Whether its counters take part in the ledger's own bookkeeping only.
    pub(super) const fn is_internal(self) -> bool {
        matches!(self, Self::Issuance | Self::Escrow | Self::Locked)
    }
}

/// The names of [`ALLOCATION_PERCENT`], and the ledger's own.
static KINDS: LazyLock<Vec<(&'static str, Kind)>> = LazyLock::new(|| {
    let allocated = ALLOCATION_PERCENT.iter();
    let allocated = allocated.map(|(name, _)| (*name, Kind::Allocation));
    let own = [
        (FEES, Kind::Fees),
        (REWARD_FUND, Kind::RewardFund),
        (MINT, Kind::Issuance),
        (ESCROW, Kind::Escrow),
        (LOCKED, Kind::Locked),
    ];
    allocated.chain(own).collect()
});

/// Ids of the system accounts: hashes of their names, computed once.
pub(super) struct System {
    pub mint: AccountId,
    pub escrow: AccountId,
    pub locked: AccountId,
    pub fees: AccountId,
    pub reward_fund: AccountId,
    pub bounty: AccountId,
    kinds: Vec<(AccountId, Kind)>,
}

pub(super) static SYSTEM: LazyLock<System> = LazyLock::new(|| System {
    mint: AccountId::of_system(MINT),
    escrow: AccountId::of_system(ESCROW),
    locked: AccountId::of_system(LOCKED),
    fees: AccountId::of_system(FEES),
    reward_fund: AccountId::of_system(REWARD_FUND),
    bounty: AccountId::of_system(BOUNTY),
    kinds: KINDS
        .iter()
        .map(|(name, kind)| (AccountId::of_system(name), *kind))
        .collect(),
});
