//! Where the catalog is stored: nicknames and items.

use cryptomind_core::catalog::{ItemRecord, Nickname};

use crate::state::Record;

impl Record for Nickname {
    const TABLE: &'static str = "nicknames/1";

    fn key(&self) -> Vec<u8> {
        self.account.as_bytes().to_vec()
    }
}

impl Record for ItemRecord {
    const TABLE: &'static str = "items/1";

    fn key(&self) -> Vec<u8> {
        self.item.as_bytes().to_vec()
    }
}
