//! Randomness from the operating system: keys and the ids of transactions.

use cryptomind_protocol::key::Nonce;
use cryptomind_protocol::{ErrorBody, SecretKey};

/// A new secret key. Fails only where the operating system has no randomness to give.
pub fn new_key() -> Result<SecretKey, ErrorBody> {
    random().map(SecretKey::from_seed)
}

/// A new number used once: 128 random bits.
pub fn new_nonce() -> Result<Nonce, ErrorBody> {
    random().map(Nonce::new)
}

/// A number below `bound`, for the jitter of pauses; 0 where there is no randomness or no bound.
pub(crate) fn below(bound: u64) -> u64 {
    let drawn = random().map(u64::from_be_bytes).unwrap_or_default();
    drawn.checked_rem(bound).unwrap_or_default()
}

fn random<const N: usize>() -> Result<[u8; N], ErrorBody> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)
        .map_err(|e| ErrorBody::internal(format!("no randomness from the system: {e}")))?;
    Ok(bytes)
}
