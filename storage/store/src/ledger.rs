//! Where the ledger's state is stored: accounts, holds, locks, delegations.

use cryptomind_core::ledger::{Account, Delegation, Hold, Lock};

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

impl Record for Lock {
    const TABLE: &'static str = "locks/1";

    fn key(&self) -> Vec<u8> {
        self.key().to_bytes()
    }
}

impl Record for Delegation {
    const TABLE: &'static str = "delegations/2";

    fn key(&self) -> Vec<u8> {
        Self::key_bytes(&self.key())
    }
}
