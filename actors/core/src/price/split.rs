//! Dividing an amount by shares, exactly.

use cryptomind_protocol::Amount;

use crate::division::divide;

/// Divides `amount` by `shares`, to the last base unit: see [`divide`]. One amount a share, in their order.
pub fn split(amount: Amount, shares: &[u64]) -> Vec<Amount> {
    let parts = divide(amount.base_units(), shares).into_iter();
    parts.map(Amount::from_base_units).collect()
}
