//! Where the history of prices is stored.

use cryptomind_core::price::PriceRecord;

use crate::state::Record;

impl Record for PriceRecord {
    const TABLE: &'static str = "prices/1";

    fn key(&self) -> Vec<u8> {
        PriceRecord::key(self)
    }
}
