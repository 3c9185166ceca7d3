//! What nodes achieved in past runs, for clients.

use cryptomind_protocol::api::{MAX_ROWS, RunKey};
use cryptomind_protocol::speed::RunStatistic;
use cryptomind_protocol::{ErrorBody, NodeId};
use cryptomind_storage::run::statistic_key;

use super::Office;

/// Statistics that are looked at for one page, however few of them are of the wanted node.
const MAX_LOOKED_AT: usize = 50_000;

impl Office {
    /// A page of statistics, newest first.
    pub(super) fn runs(
        &self,
        node: Option<NodeId>,
        before: Option<RunKey>,
        limit: u32,
    ) -> Result<Vec<RunStatistic>, ErrorBody> {
        let limit = limit.min(MAX_ROWS) as usize;
        let to = before.as_ref().map(statistic_key).unwrap_or_default();
        let looked_at = if node.is_some() { MAX_LOOKED_AT } else { limit };
        let found = self.store.range::<RunStatistic>(&[], &to, looked_at, true);
        let mut runs = found.map_err(ErrorBody::internal)?;
        runs.retain(|run| node.is_none_or(|node| node == run.node));
        runs.truncate(limit);
        Ok(runs)
    }
}
