//! Settings by key, as text: what `config show` lists.

use std::path::Path;

use cryptomind_config::{Client, Coordinator, Format, Miner, MinerNode, RingProfile, Storage};
use cryptomind_protocol::genesis::NetworkKind;

type Pairs = Vec<(&'static str, String)>;

/// Settings that can be listed: one entry for each key of the file.
pub(super) trait Values {
    fn values(&self) -> Pairs;
}

fn path(path: &Path) -> String {
    path.display().to_string()
}

fn optional<T: ToString>(value: &Option<T>) -> String {
    value.as_ref().map_or_else(|| "-".to_owned(), T::to_string)
}

impl Values for Client {
    fn values(&self) -> Pairs {
        let format = match self.format {
            Format::Auto => "auto",
            Format::Human => "human",
            Format::Json => "json",
        };
        vec![
            ("coordinator", optional(&self.coordinator)),
            ("key_file", path(&self.key_file)),
            ("history_file", path(&self.history_file)),
            ("format", format.to_owned()),
            (
                "rented",
                format!(
                    "{:?}",
                    self.rented
                        .iter()
                        .map(ToString::to_string)
                        .collect::<Vec<_>>()
                ),
            ),
        ]
    }
}

impl Values for Coordinator {
    fn values(&self) -> Pairs {
        let kind = match self.network.kind {
            NetworkKind::Development => "development",
            NetworkKind::Main => "main",
        };
        let (market, given) = (&self.market, &self.network.allocations);
        let control = &self.control;
        vec![
            ("node.name", self.node.name.clone()),
            ("node.data_dir", path(&self.node.data_dir)),
            ("node.key_file", path(&self.node.key_file)),
            ("node.listen", self.node.listen.to_string()),
            ("network.name", self.network.name.clone()),
            ("network.kind", kind.to_owned()),
            ("network.fees.send", self.network.fees.send.to_string()),
            ("network.fees.post", self.network.fees.post.to_string()),
            ("network.fees.least", self.network.fees.least.to_string()),
            (
                "network.fees.network_ppm",
                self.network.fees.network_fee_ppm.to_string(),
            ),
            (
                "network.fees.reward_fund_ppm",
                self.network.fees.reward_fund_ppm.to_string(),
            ),
            ("network.allocations.investors", optional(&given.investors)),
            ("network.allocations.reserve", optional(&given.reserve)),
            ("network.allocations.team", optional(&given.team)),
            ("network.allocations.bounty", optional(&given.bounty)),
            ("network.allocations.advisors", optional(&given.advisors)),
            (
                "network.withholding.period_s",
                (self.network.withholding.period_ms / 1000).to_string(),
            ),
            (
                "network.withholding.max_ppm",
                self.network.withholding.max_ppm.to_string(),
            ),
            ("market.unit_price", market.unit_price.to_string()),
            ("market.floor", market.floor.to_string()),
            ("market.ceiling", market.ceiling.to_string()),
            (
                "market.account_share_ppm",
                market.account_share_ppm.to_string(),
            ),
            (
                "market.storage_price_per_mib",
                market.storage_price_per_mib.to_string(),
            ),
            ("market.offer_window_ms", market.offer_window_ms.to_string()),
            ("market.wait_limit_s", market.wait_limit_s.to_string()),
            ("market.prepare_limit_s", market.prepare_limit_s.to_string()),
            (
                "market.open_tasks_per_account",
                self.market.open_tasks_per_account.to_string(),
            ),
            ("market.free_cancels", self.market.free_cancels.to_string()),
            ("market.hold_limit_s", market.hold_limit_s.to_string()),
            ("control.accounts", control.accounts.to_string()),
            ("control.max_milli_cu", control.max_milli_cu.to_string()),
            ("control.share_ppm", control.share_ppm.to_string()),
            ("control.daily", control.daily.to_string()),
            ("control.allowance", control.allowance.to_string()),
            (
                "control.trusted",
                format!(
                    "{:?}",
                    control
                        .trusted
                        .iter()
                        .map(ToString::to_string)
                        .collect::<Vec<_>>()
                ),
            ),
            (
                "limits.max_connections",
                self.limits.max_connections.to_string(),
            ),
            (
                "limits.max_per_address",
                self.limits.max_per_address.to_string(),
            ),
            (
                "limits.exempt_addresses",
                format!("{:?}", self.limits.exempt_addresses),
            ),
            ("faucet.amount", self.faucet.amount.to_string()),
        ]
    }
}

fn miner_node(node: &MinerNode) -> Pairs {
    vec![
        ("node.name", node.name.clone()),
        ("node.data_dir", path(&node.data_dir)),
        ("node.key_file", path(&node.key_file)),
        ("node.account", optional(&node.account)),
    ]
}

impl Values for Miner {
    fn values(&self) -> Pairs {
        let profile = self.ring.profile.map_or("auto", RingProfile::name);
        let ports = self.ring.ports.as_ref().map(|ports| format!("{ports}"));
        let mut values = vec![("coordinator", self.coordinator.to_string())];
        values.extend(miner_node(&self.node));
        values.extend([
            ("compute.threads", self.compute.threads.to_string()),
            ("compute.max_memory", optional(&self.compute.max_memory)),
            ("market.reserve", self.market.reserve.to_string()),
            ("ring.host", optional(&self.ring.host)),
            ("ring.ports", optional(&ports)),
            ("ring.profile", profile.to_string()),
            ("probe.listen", self.probe.listen.to_string()),
            ("selftest.seconds", self.selftest.seconds.to_string()),
            ("selftest.hours", self.selftest.hours.to_string()),
            ("idle.command", format!("{:?}", self.idle.command)),
            ("idle.stop_limit_s", self.idle.stop_limit_s.to_string()),
            ("cache.max_bytes", self.cache.max_bytes.to_string()),
        ]);
        values
    }
}

impl Values for Storage {
    fn values(&self) -> Pairs {
        let node = &self.node;
        vec![
            ("coordinator", self.coordinator.to_string()),
            ("node.name", node.name.clone()),
            ("node.data_dir", path(&node.data_dir)),
            ("node.key_file", path(&node.key_file)),
            ("node.account", optional(&node.account)),
            ("node.listen", node.listen.to_string()),
            ("node.advertise", optional(&node.advertise)),
            ("store.max_bytes", self.store.max_bytes.to_string()),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cryptomind_config::{Layers, Settings, load};

    fn listed_as_known<T: Settings + Values>() {
        let node = cryptomind_protocol::NodeId::new([7; 32]);
        let address = format!("cm://{node}@h:1");
        let layers = Layers::default().with_override("coordinator", address);
        let layers = if T::FILE_NAME == "coordinator.toml" {
            Layers::default()
        } else {
            layers
        };
        let loaded = load::<T>(&layers).unwrap();
        let mut listed: Vec<_> = loaded.value.values().into_iter().map(|v| v.0).collect();
        listed.sort_unstable();
        let known: Vec<_> = loaded.origins.keys().copied().collect();
        assert_eq!(listed, known, "{}", T::FILE_NAME);
    }

    #[test]
    fn every_key_is_listed() {
        listed_as_known::<Client>();
        listed_as_known::<Coordinator>();
        listed_as_known::<Miner>();
        listed_as_known::<Storage>();
    }
}
