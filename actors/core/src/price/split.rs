//! Dividing an amount by shares, exactly.

use std::cmp::Reverse;

use cryptomind_protocol::Amount;

/// Divides `amount` by `shares`, to the last base unit: everybody gets the share rounded down, and
/// the base units that are left go, one each, to the largest remainders (Hamilton's method); among
/// equal ones to those that come first. Shares that are all zero count as equal ones. One amount a share, in
/// their order; none where there are none.
pub fn split(amount: Amount, shares: &[u64]) -> Vec<Amount> {
    let total: u128 = shares.iter().map(|s| u128::from(*s)).sum();
    if total == 0 {
        return split_by(amount, &vec![1; shares.len()], shares.len() as u128);
    }
    split_by(amount, shares, total)
}

fn split_by(amount: Amount, shares: &[u64], total: u128) -> Vec<Amount> {
    let whole = u128::from(amount.base_units());
    let products = shares.iter().map(|share| whole * u128::from(*share));
    let mut parts: Vec<u64> = products.clone().map(|p| (p / total) as u64).collect();
    let mut order: Vec<usize> = (0..shares.len()).collect();
    let remainders: Vec<u128> = products.map(|p| p % total).collect();
    order.sort_by_key(|index| (Reverse(remainders[*index]), *index));
    let left = amount.base_units() - parts.iter().sum::<u64>();
    for index in order.into_iter().take(left as usize) {
        parts[index] += 1;
    }
    parts.into_iter().map(Amount::from_base_units).collect()
}
