//! `coordinator.toml`: the network, its market, its limits.

use cryptomind_protocol::Amount;
use cryptomind_protocol::genesis::NetworkKind;

use crate::convert::{amount, name, whole};
use crate::{CoordinatorNode, Reader, Settings};

/// A coordinator's settings.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Coordinator {
    /// Who it is and where it listens.
    pub node: CoordinatorNode,
    /// The network that it starts. Read once, when its genesis is made.
    pub network: Network,
    /// Prices and time limits.
    pub market: Market,
    /// What it admits.
    pub limits: Limits,
    /// Test money.
    pub faucet: Faucet,
}

/// `[network]`: what the genesis says. Later changes have no effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    /// Its name, for people.
    pub name: String,
    /// Real money or test money.
    pub kind: NetworkKind,
    /// Share of a task's settlement that goes to the network, in millionths.
    pub fee_ppm: u32,
}

/// `[market]`: prices and time limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Market {
    /// Price of one CU (10¹² floating-point operations).
    pub unit_price: Amount,
    /// Price of storing a task's results, per MiB begun.
    pub storage_price_per_mib: Amount,
    /// After the first offer that completes a group: how long better ones are waited for, milliseconds.
    pub offer_window_ms: u64,
    /// A task that nobody takes expires after this, seconds.
    pub wait_limit_s: u64,
    /// A matched group that is not ready after this is dissolved, seconds.
    pub prepare_limit_s: u64,
    /// A task that has not ended after this ends: what was earned is paid, the rest comes back, seconds.
    pub hold_limit_s: u64,
}

/// `[limits]`: what is admitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once.
    pub max_connections: usize,
    /// Of these, from one IP address.
    pub max_per_address: usize,
}

/// `[faucet]`: test money on a development network. A main network has none, whatever this says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Faucet {
    /// What one request gives.
    pub amount: Amount,
}

const fn ctm_thousandths(n: u64) -> Amount {
    Amount::from_base_units(n * 1_000_000)
}

impl Default for Network {
    fn default() -> Self {
        Self {
            name: "cryptomind-dev".into(),
            kind: NetworkKind::Development,
            fee_ppm: 10_000,
        }
    }
}

impl Default for Market {
    fn default() -> Self {
        Self {
            unit_price: ctm_thousandths(10_000),
            storage_price_per_mib: ctm_thousandths(1),
            offer_window_ms: 400,
            wait_limit_s: 600,
            prepare_limit_s: 60,
            hold_limit_s: 7 * 24 * 3600,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: 4096,
            max_per_address: 256,
        }
    }
}

impl Default for Faucet {
    fn default() -> Self {
        Self {
            amount: ctm_thousandths(100_000),
        }
    }
}

fn positive(entry: &crate::reader::Entry<'_>) -> crate::convert::Converted<Amount> {
    let amount = amount(entry)?;
    if amount.is_zero() {
        return Err(crate::convert::problem("0 CTM: give more than nothing"));
    }
    Ok(amount)
}

impl Network {
    fn read(reader: &mut Reader<'_>) -> Self {
        let default = Self::default();
        let kinds = [
            ("development", NetworkKind::Development),
            ("main", NetworkKind::Main),
        ];
        Self {
            name: reader.take("network.name", default.name, name),
            kind: reader.choice("network.kind", default.kind, &kinds),
            fee_ppm: reader.take("network.fee_ppm", default.fee_ppm, |e| {
                whole(e, 0..=500_000)
            }),
        }
    }
}

impl Market {
    fn read(reader: &mut Reader<'_>) -> Self {
        let default = Self::default();
        Self {
            unit_price: reader.take("market.unit_price", default.unit_price, positive),
            storage_price_per_mib: reader.take(
                "market.storage_price_per_mib",
                default.storage_price_per_mib,
                amount,
            ),
            offer_window_ms: reader.take("market.offer_window_ms", default.offer_window_ms, |e| {
                whole(e, 0..=60_000)
            }),
            wait_limit_s: reader.take("market.wait_limit_s", default.wait_limit_s, |e| {
                whole(e, 1..=604_800)
            }),
            prepare_limit_s: reader.take("market.prepare_limit_s", default.prepare_limit_s, |e| {
                whole(e, 1..=86_400)
            }),
            hold_limit_s: reader.take("market.hold_limit_s", default.hold_limit_s, |e| {
                whole(e, 1..=31_536_000)
            }),
        }
    }
}

impl Limits {
    fn read(reader: &mut Reader<'_>) -> Self {
        let default = Self::default();
        let mut count = |key, default: usize| {
            reader.take(key, default, |e| {
                whole(e, 1..=1_000_000u32).map(|n| n as usize)
            })
        };
        Self {
            max_connections: count("limits.max_connections", default.max_connections),
            max_per_address: count("limits.max_per_address", default.max_per_address),
        }
    }
}

impl Settings for Coordinator {
    const SAMPLE: &'static str = include_str!("../coordinator.toml");
    const FILE_NAME: &'static str = "coordinator.toml";

    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        Some(Self {
            node: CoordinatorNode::read(reader),
            network: Network::read(reader),
            market: Market::read(reader),
            limits: Limits::read(reader),
            faucet: Faucet {
                amount: reader.take("faucet.amount", Faucet::default().amount, positive),
            },
        })
    }
}
