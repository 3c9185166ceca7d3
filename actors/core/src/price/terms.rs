//! A task's terms: everything that its settlement depends on, settled when it is posted.

use cryptomind_protocol::block::HoldTerms;
use cryptomind_protocol::{AccountId, Amount, ErrorBody, ErrorClass, ItemId, Timestamp};
use serde::{Deserialize, Serialize};

use super::{Extent, PriceError, Prices, earned_after, network_fee, storage_cost, work_cost};

/// One use of an item, for a fee.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ItemUse {
    /// The item.
    pub item: ItemId,
    /// All its files, bytes.
    #[serde(default)]
    pub bytes: u64,
    /// Its owner.
    pub payee: AccountId,
    /// What this use costs; nothing for the owner and for free items.
    pub fee: Amount,
}

/// A task's terms.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    /// What the network charged when the task was posted.
    pub prices: Prices,
    /// What the task amounts to.
    pub extent: Extent,
    /// Paid for the work, all of it.
    pub work_cost: Amount,
    /// The items that it uses.
    pub items: Vec<ItemUse>,
    /// All item fees.
    pub item_fees: Amount,
    /// The most that is paid for storing results.
    pub storage_cost_max: Amount,
    /// The network's share of all that.
    pub network_fee_max: Amount,
    /// The least that the task costs when all goes well.
    pub cost_low: Amount,
    /// The most that it can cost.
    pub cost_high: Amount,
}

/// What is paid for work, items and storage, and the network's share on top.
fn with_network_fee(parts: [Amount; 3], ppm: u32) -> Result<(Amount, Amount), PriceError> {
    let net = Amount::sum(parts).ok_or(PriceError::TooLarge)?;
    let fee = network_fee(net, ppm)?;
    let gross = net.checked_add(fee).ok_or(PriceError::TooLarge)?;
    Ok((fee, gross))
}

impl Terms {
    /// The terms of a task of this extent that uses these items.
    pub fn new(extent: Extent, items: Vec<ItemUse>, prices: Prices) -> Result<Self, PriceError> {
        let work_cost = work_cost(extent.flops(), prices.unit_price)?;
        let fees = Amount::sum(items.iter().map(|item| item.fee));
        let item_fees = fees.ok_or(PriceError::TooLarge)?;
        let storage_min = storage_cost(extent.result_bytes_min, prices.storage_per_mib)?;
        let storage_cost_max = storage_cost(extent.result_bytes_max, prices.storage_per_mib)?;
        let ppm = prices.network_fee_ppm;
        let (_, cost_low) = with_network_fee([work_cost, item_fees, storage_min], ppm)?;
        let most = [work_cost, item_fees, storage_cost_max];
        let (network_fee_max, cost_high) = with_network_fee(most, ppm)?;
        Ok(Self {
            prices,
            extent,
            work_cost,
            items,
            item_fees,
            storage_cost_max,
            network_fee_max,
            cost_low,
            cost_high,
        })
    }

    /// Refuses a cap that might not suffice.
    pub fn check_cap(&self, cap: Amount) -> Result<(), ErrorBody> {
        let needed = self.cost_high;
        if cap >= needed {
            return Ok(());
        }
        let message = format!("the cap of {cap} is below what the task may cost, {needed}");
        let error = ErrorBody::new(ErrorClass::Funds, "cap_too_low", message);
        Err(error.with_help(format!("set budget.max_cost to {needed} or more")))
    }

    /// Refuses a price that is above the most that the client pays for one CU.
    pub fn check_unit_price(&self, most: Option<Amount>) -> Result<(), ErrorBody> {
        let price = self.prices.unit_price;
        let Some(most) = most.filter(|most| *most < price) else {
            return Ok(());
        };
        let message = format!("a CU costs {price} now, and you pay {most} at most");
        let error = ErrorBody::new(ErrorClass::Funds, "price_too_high", message);
        Err(error.with_help(
            "prices move once a minute: quote again, wait, or raise budget.max_unit_price",
        ))
    }

    /// What is earned, over all members and since the start, once the first `verified_samples` are verified.
    pub fn earned_after(&self, verified_samples: u64) -> Amount {
        earned_after(self.work_cost, verified_samples, self.extent.total_samples)
    }

    /// The terms that the ledger settles the task's hold by, at `expires` by itself. What they can pay never exceeds
    /// [`Terms::cost_high`].
    pub fn hold(&self, expires: Timestamp) -> HoldTerms {
        let due = |item: &&ItemUse| !item.fee.is_zero();
        let items = self.items.iter().filter(due);
        HoldTerms {
            expires,
            work_max: self.work_cost,
            items: items.map(|item| (item.payee, item.fee)).collect(),
            storage_per_mib: self.prices.storage_per_mib,
            storage_max: self.storage_cost_max,
            network_fee_ppm: self.prices.network_fee_ppm,
        }
    }
}
