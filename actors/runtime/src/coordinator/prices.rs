//! What computing costs and cost, for clients.

use cryptomind_core::price::history;
use cryptomind_protocol::api::MAX_ROWS;
use cryptomind_protocol::price::{PriceClass, PricePoint, PriceRing};
use cryptomind_protocol::{ErrorBody, Timestamp};

use super::Office;
use crate::clock;
use crate::matchmaker::{MATCHMAKER_LIMIT, MatchmakerMsg, points};

impl Office {
    /// Every class as it stands.
    pub(super) async fn prices(&self) -> Result<Vec<PricePoint>, ErrorBody> {
        let question = MatchmakerMsg::PricesOf;
        self.matchmaker.call(question, MATCHMAKER_LIMIT).await
    }

    /// A page of a class's history.
    pub(super) fn price_history(
        &self,
        class: PriceClass,
        every: PriceRing,
        from: Timestamp,
        limit: u32,
    ) -> Result<Vec<PricePoint>, ErrorBody> {
        let stored = points(&self.store, class, every).map_err(ErrorBody::internal)?;
        let mut points = history::in_order(stored, every, clock::now());
        points.retain(|point| point.at >= from);
        points.truncate(limit.min(MAX_ROWS) as usize);
        Ok(points)
    }
}
