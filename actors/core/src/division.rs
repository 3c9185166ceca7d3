//! Dividing a whole by shares, exactly: money among those who earned it, a batch among those who compute it.

use std::cmp::Reverse;

/// Divides `whole` by `shares`: everybody gets the share rounded down, and the units that are left go, one each, to the
/// largest remainders (Hamilton's method); among equal ones to those that come first. Shares that are all zero count as equal
/// ones. One part a share, in their order; none where there are none.
pub fn divide(whole: u64, shares: &[u64]) -> Vec<u64> {
    let total: u128 = shares.iter().map(|s| u128::from(*s)).sum();
    if total == 0 {
        return divide_by(whole, &vec![1; shares.len()], shares.len() as u128);
    }
    divide_by(whole, shares, total)
}

fn divide_by(whole: u64, shares: &[u64], total: u128) -> Vec<u64> {
    let products = shares.iter();
    let products = products.map(|share| u128::from(whole) * u128::from(*share));
    let mut parts: Vec<u64> = products.clone().map(|p| (p / total) as u64).collect();
    let mut order: Vec<usize> = (0..shares.len()).collect();
    let remainders: Vec<u128> = products.map(|p| p % total).collect();
    order.sort_by_key(|index| (Reverse(remainders[*index]), *index));
    let left = whole - parts.iter().sum::<u64>();
    for index in order.into_iter().take(left as usize) {
        parts[index] += 1;
    }
    parts
}
