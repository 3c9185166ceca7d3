//! What a task costs, when its parts are earned, and how an amount is divided.
//!
//! Used by the market (quotes, caps), the run (earnings), the ledger (settlements) and the clients' `quote`. Pure
//! integer arithmetic.
//!
//! The unit price is so much for one CU (10¹² floating-point operations as the model's graph counts them). Each class of
//! work has its own ([`class_of`]), and it floats ([`floating`]) with what is asked for and offered ([`sample`]); what it was is
//! in the [`history`]. A task's [`Terms`] are settled when it is posted and never change afterwards:
//!
//! - the *work* costs its CU times the unit price, rounded up; it is earned by verified samples,
//!   cumulatively and rounded down, so that the checkpoints of a whole run sum to the work's cost
//!   exactly, however often a run was interrupted;
//! - each used *item* costs its fee once, and *storage* so much for each begun MiB of results;
//! - the *network* takes its share of what is paid for all of these.
//!
//! Invariant: however a run ends, earned + fees ≤ [`Terms::cost_high`]. A cap that is not below it
//! always suffices.

mod board;
mod class;
mod extent;
#[cfg(test)]
pub(crate) mod fixture;
pub mod floating;
pub mod history;
mod no_shows;
pub mod sample;
mod split;
mod terms;

pub use board::PriceBoard;
pub use class::{class_of, tier_of};
pub use extent::Extent;
pub use floating::{FloatingRule, INTERVAL_MS};
pub use history::PriceRecord;
pub use no_shows::NoShows;
pub use sample::{Demand, Market, Sample, Supplier};
pub use split::split;
pub use terms::{ItemUse, Terms};

use cryptomind_protocol::{Amount, ErrorBody};
use serde::{Deserialize, Serialize};

/// Floating-point operations in one CU.
pub const FLOPS_PER_CU: u128 = 1_000_000_000_000;
/// Floating-point operations in 10⁻⁶ CU.
pub const FLOPS_PER_MICRO_CU: u128 = 1_000_000;
/// Bytes of one MiB.
const MIB: u64 = 1 << 20;
/// Millionths in a whole.
const PPM: u128 = 1_000_000;

/// What the network charges.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prices {
    /// For one CU.
    pub unit_price: Amount,
    /// For each begun MiB of a task's results.
    pub storage_per_mib: Amount,
    /// The network's share of a settlement, in millionths of what is paid for work, items and storage.
    pub network_fee_ppm: u32,
}

/// Why something has no price.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PriceError {
    /// The cost does not fit an amount.
    #[error("the task costs more than all tokens that exist")]
    TooLarge,
    /// The task does not fit its dataset or model; `field` as in the task file.
    #[error("{field}: {reason}")]
    Misfit {
        /// The key in the task file.
        field: &'static str,
        /// What does not fit what.
        reason: String,
    },
}

impl From<PriceError> for ErrorBody {
    fn from(error: PriceError) -> Self {
        match &error {
            PriceError::TooLarge => Self::user("task_too_large", &error)
                .with_help("train for fewer epochs, or a smaller model"),
            PriceError::Misfit { .. } => Self::user("task_misfit", &error),
        }
    }
}

/// What `flops` floating-point operations cost at `unit_price` a CU, rounded up.
pub fn work_cost(flops: u128, unit_price: Amount) -> Result<Amount, PriceError> {
    let cost = unit_price.mul_div_ceil(flops, FLOPS_PER_CU);
    cost.ok_or(PriceError::TooLarge)
}

/// What is earned, over all members and since the start, once `verified_samples` of `total_samples`
/// are verified: rounded down, and all of `work_cost` at the end. A checkpoint earns the difference to
/// what was earned before it.
pub fn earned_after(work_cost: Amount, verified_samples: u64, total_samples: u64) -> Amount {
    let verified = u128::from(verified_samples.min(total_samples));
    work_cost
        .mul_div(verified, total_samples.into())
        .unwrap_or(Amount::ZERO)
}

/// What storing `bytes` of results costs: each begun MiB once.
pub fn storage_cost(bytes: u64, per_mib: Amount) -> Result<Amount, PriceError> {
    let cost = per_mib.mul_div(bytes.div_ceil(MIB).into(), 1);
    cost.ok_or(PriceError::TooLarge)
}

/// The network's share of `amount`, rounded down: never more of a smaller amount.
pub fn network_fee(amount: Amount, ppm: u32) -> Result<Amount, PriceError> {
    let fee = amount.mul_div(ppm.into(), PPM);
    fee.ok_or(PriceError::TooLarge)
}

#[cfg(test)]
mod tests;
