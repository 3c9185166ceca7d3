//! Where money is stored: accounts, holds, transfers.

use cryptomind_core::ledger::{Account, Hold, Transfer};

use crate::state::Record;

impl Record for Account {
    const TABLE: &'static str = "accounts/1";

    fn key(&self) -> Vec<u8> {
        self.id.as_bytes().to_vec()
    }
}

impl Record for Hold {
    const TABLE: &'static str = "holds/1";

    fn key(&self) -> Vec<u8> {
        self.task.as_bytes().to_vec()
    }
}

impl Record for Transfer {
    const TABLE: &'static str = "transfers/1";

    /// By time, then place within its group, then id: a range is a history.
    fn key(&self) -> Vec<u8> {
        let mut key = self.at.as_ms().to_be_bytes().to_vec();
        key.extend_from_slice(&self.index.to_be_bytes());
        key.extend_from_slice(self.id.as_bytes());
        key
    }
}
