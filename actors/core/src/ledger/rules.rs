//! The rules of a network's money: what the genesis says once and for all.

use cryptomind_protocol::genesis::{FeeTable, Genesis, Withholding};
use cryptomind_protocol::{Amount, Timestamp};

/// Millionths in a whole.
pub(super) const PPM: u32 = 1_000_000;

/// Locks of withheld earnings end on multiples of this part of the period, so that they merge.
const LOCKS_IN_A_PERIOD: u64 = 100;

/// What the genesis fixes about money.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// What the network charges.
    pub fees: FeeTable,
    /// How earnings are withheld.
    pub withholding: Withholding,
    /// What one request for test money gives; nothing where there is none.
    pub faucet: Amount,
}

impl Rules {
    /// The rules of this genesis.
    pub const fn of(genesis: &Genesis) -> Self {
        Self {
            fees: genesis.fees,
            withholding: genesis.withholding,
            faucet: genesis.faucet,
        }
    }

    /// A fee's two parts: what stays with the network, and the reward fund's share, rounded down.
    pub(super) fn divide_fee(&self, fee: Amount) -> (Amount, Amount) {
        let fund = self.share(fee, self.fees.reward_fund_ppm);
        let rest = fee.checked_sub(fund).expect("a share of at most all of it");
        (rest, fund)
    }

    /// This many millionths of an amount, at most all of it, rounded down.
    pub(super) fn share(&self, amount: Amount, ppm: u32) -> Amount {
        let share = amount.mul_div(ppm.min(PPM).into(), PPM.into());
        share.expect("no more than the whole fits")
    }

    /// The largest share of earnings that may be withheld, in millionths.
    pub(super) fn withheld_max_ppm(&self) -> u32 {
        self.withholding.max_ppm.min(PPM)
    }

    /// When what is withheld at `now` is free again: a period later, rounded up so that the locks of many
    /// settlements end together.
    pub(super) fn withheld_until(&self, now: Timestamp) -> Timestamp {
        let period = self.withholding.period_ms;
        let grain = (period / LOCKS_IN_A_PERIOD).max(1);
        let grains = now.plus_ms(period).as_ms().div_ceil(grain);
        Timestamp::from_ms(grains.saturating_mul(grain))
    }
}
