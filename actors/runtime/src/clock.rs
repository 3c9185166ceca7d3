//! The clock: the one place where this crate reads the time of day.

use std::time::{SystemTime, UNIX_EPOCH};

use cryptomind_protocol::Timestamp;

/// Milliseconds since 1970; zero on a machine whose clock stands before.
pub fn now() -> Timestamp {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp::from_ms(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
