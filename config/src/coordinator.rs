//! `coordinator.toml`: the network, its market, its limits.

use std::net::IpAddr;

use cryptomind_protocol::genesis::{FeeTable, Genesis, NetworkKind, Withholding};
use cryptomind_protocol::{AccountId, Amount, PublicKey, Timestamp};

use crate::convert::{Converted, amount, name, parsed, problem, spanned_texts, whole};
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
    /// Control tasks.
    pub control: Control,
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
    /// `[network.fees]`: what is charged. The file's `network_ppm` is the table's `network_fee_ppm`.
    pub fees: FeeTable,
    /// `[network.withholding]`: how a miner's earnings are withheld.
    pub withholding: Withholding,
    /// `[network.allocations]`: who gets the first tokens.
    pub allocations: Allocations,
}

/// `[network.allocations]`: the accounts of the white paper's table. A part that nobody is named for goes to a
/// system account, for which nobody can sign.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Allocations {
    /// 70 %.
    pub investors: Option<AccountId>,
    /// 10 %.
    pub reserve: Option<AccountId>,
    /// 15 %, released over four years.
    pub team: Option<AccountId>,
    /// 3 %. On a development network it pays the test money, so nobody else can have it there.
    pub bounty: Option<AccountId>,
    /// 2 %.
    pub advisors: Option<AccountId>,
}

impl Allocations {
    fn account(&self, name: &str) -> Option<AccountId> {
        match name {
            "investors" => self.investors,
            "reserve" => self.reserve,
            "team" => self.team,
            "bounty" => self.bounty,
            "advisors" => self.advisors,
            _ => None,
        }
    }
}

/// `[market]`: prices and time limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Market {
    /// What a class of work costs at first, for one CU (10¹² floating-point operations). From there it floats.
    pub unit_price: Amount,
    /// The least that it ever costs. Not above `unit_price`.
    pub floor: Amount,
    /// The most that it ever costs. Not below `unit_price`.
    pub ceiling: Amount,
    /// What one account counts for at most when prices move, in millionths of the supply.
    pub account_share_ppm: u32,
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
    /// Tasks of one account that may be open at once.
    pub open_tasks_per_account: usize,
    /// Tasks in a row that an account may cancel before anything was earned, without waiting for the next.
    pub free_cancels: u32,
}

/// `[control]`: tasks whose answer is known, which show whether miners are honest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Control {
    /// Accounts that post them; none: there are no control tasks.
    pub accounts: u32,
    /// The most work of one, in 10⁻³ CU.
    pub max_milli_cu: u64,
    /// What they may cost, in millionths of what clients paid for work in the last day.
    pub share_ppm: u32,
    /// What they may cost a day besides.
    pub daily: Amount,
    /// What the network is ready to lose to somebody of whom it knows nothing.
    pub allowance: Amount,
    /// Owners whose miners may be asked for a second answer whatever they have shown.
    pub trusted: Vec<AccountId>,
}

/// `[limits]`: what is admitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once.
    pub max_connections: usize,
    /// Of these, from one IP address.
    pub max_per_address: usize,
    /// Addresses to which `max_per_address` does not apply.
    pub exempt_addresses: Vec<IpAddr>,
}

/// `[faucet]`: test money on a development network, fixed in the genesis too. A main network has none, whatever
/// this says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Faucet {
    /// What one request gives.
    pub amount: Amount,
}

/// Each of them is a key file.
const MAX_CONTROL_ACCOUNTS: u32 = 1000;
/// A network trusts few.
const MAX_TRUSTED: usize = 64;
/// Exemptions are for a few machines.
const MAX_EXEMPT: usize = 64;
/// A year.
const MAX_WITHHOLDING_S: u64 = 365 * 24 * 3600;

const fn ctm_thousandths(n: u64) -> Amount {
    Amount::from_base_units(n * 1_000_000)
}

impl Network {
    /// What a network of this kind has where the file is silent.
    fn of_kind(kind: NetworkKind) -> Self {
        let is_main = matches!(kind, NetworkKind::Main);
        let fee = if is_main {
            ctm_thousandths(1)
        } else {
            Amount::ZERO
        };
        Self {
            name: "cryptomind-dev".into(),
            kind,
            fees: FeeTable {
                send: fee,
                post: fee,
                least: Amount::from_base_units(1000),
                network_fee_ppm: 10_000,
                reward_fund_ppm: 100_000,
            },
            withholding: Withholding {
                period_ms: if is_main { 7 * 24 * 3_600_000 } else { 60_000 },
                max_ppm: 200_000,
            },
            allocations: Allocations::default(),
        }
    }
}

impl Default for Control {
    fn default() -> Self {
        Self::of_kind(NetworkKind::Development)
    }
}

impl Control {
    /// What a network of this kind has where the file is silent.
    const fn of_kind(kind: NetworkKind) -> Self {
        Self {
            accounts: if matches!(kind, NetworkKind::Main) {
                8
            } else {
                0
            },
            max_milli_cu: 500,
            share_ppm: 60_000,
            daily: ctm_thousandths(1_000_000),
            allowance: ctm_thousandths(100_000),
            trusted: Vec::new(),
        }
    }

    fn read(reader: &mut Reader<'_>, kind: NetworkKind) -> Self {
        let default = Self::of_kind(kind);
        Self {
            accounts: reader.take("control.accounts", default.accounts, |e| {
                whole(e, 0..=MAX_CONTROL_ACCOUNTS)
            }),
            max_milli_cu: reader.take("control.max_milli_cu", default.max_milli_cu, |e| {
                whole(e, 1..=1_000_000)
            }),
            share_ppm: reader.take("control.share_ppm", default.share_ppm, |e| {
                whole(e, 0..=1_000_000)
            }),
            daily: reader.take("control.daily", default.daily, amount),
            allowance: reader.take("control.allowance", default.allowance, positive),
            trusted: reader.take("control.trusted", default.trusted, trusted),
        }
    }
}

impl Default for Network {
    fn default() -> Self {
        Self::of_kind(NetworkKind::Development)
    }
}

impl Default for Market {
    fn default() -> Self {
        Self {
            unit_price: ctm_thousandths(10_000),
            floor: ctm_thousandths(1_000),
            ceiling: ctm_thousandths(100_000),
            account_share_ppm: 100_000,
            storage_price_per_mib: ctm_thousandths(1),
            offer_window_ms: 400,
            wait_limit_s: 600,
            prepare_limit_s: 60,
            hold_limit_s: 7 * 24 * 3600,
            open_tasks_per_account: 100,
            free_cancels: 3,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: 4096,
            max_per_address: 256,
            exempt_addresses: Vec::new(),
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

fn positive(entry: &crate::reader::Entry<'_>) -> Converted<Amount> {
    let amount = amount(entry)?;
    if amount.is_zero() {
        return Err(problem("0 CTM: give more than nothing"));
    }
    Ok(amount)
}

/// Where prices stop falling, unless the file says otherwise.
fn a_tenth(unit_price: Amount) -> Amount {
    unit_price.mul_div_ceil(1, 10).unwrap_or(unit_price)
}

/// Where prices stop rising, unless the file says otherwise.
fn tenfold(unit_price: Amount) -> Amount {
    unit_price.mul_div(10, 1).unwrap_or(unit_price)
}

fn not_above(entry: &crate::reader::Entry<'_>, unit_price: Amount) -> Converted<Amount> {
    let floor = positive(entry)?;
    if floor > unit_price {
        let message = format!("{floor} is above market.unit_price, {unit_price}");
        return Err(problem(message).help("lower the floor, or start higher"));
    }
    Ok(floor)
}

fn not_below(entry: &crate::reader::Entry<'_>, unit_price: Amount) -> Converted<Amount> {
    let ceiling = amount(entry)?;
    if ceiling < unit_price {
        let message = format!("{ceiling} is below market.unit_price, {unit_price}");
        return Err(problem(message).help("raise the ceiling, or start lower"));
    }
    Ok(ceiling)
}

impl Network {
    fn read(reader: &mut Reader<'_>) -> Self {
        let kinds = [
            ("development", NetworkKind::Development),
            ("main", NetworkKind::Main),
        ];
        let kind = reader.choice("network.kind", NetworkKind::Development, &kinds);
        let default = Self::of_kind(kind);
        Self {
            name: reader.take("network.name", default.name, name),
            kind,
            fees: read_fees(reader, default.fees),
            withholding: read_withholding(reader, default.withholding),
            allocations: Allocations::read(reader, kind),
        }
    }
}

fn read_fees(reader: &mut Reader<'_>, default: FeeTable) -> FeeTable {
    let share = |most: u32| move |entry: &crate::reader::Entry<'_>| whole(entry, 0..=most);
    FeeTable {
        send: reader.take("network.fees.send", default.send, amount),
        post: reader.take("network.fees.post", default.post, amount),
        least: reader.take("network.fees.least", default.least, positive),
        network_fee_ppm: reader.take(
            "network.fees.network_ppm",
            default.network_fee_ppm,
            share(500_000),
        ),
        reward_fund_ppm: reader.take(
            "network.fees.reward_fund_ppm",
            default.reward_fund_ppm,
            share(1_000_000),
        ),
    }
}

fn read_withholding(reader: &mut Reader<'_>, default: Withholding) -> Withholding {
    let in_ms = |entry: &crate::reader::Entry<'_>| {
        whole(entry, 1..=MAX_WITHHOLDING_S).map(|seconds| seconds * 1000)
    };
    Withholding {
        period_ms: reader.take("network.withholding.period_s", default.period_ms, in_ms),
        max_ppm: reader.take("network.withholding.max_ppm", default.max_ppm, |e| {
            whole(e, 0..=500_000)
        }),
    }
}

impl Allocations {
    fn read(reader: &mut Reader<'_>, kind: NetworkKind) -> Self {
        let mut account = |key| reader.optional(key, |e| parsed(e, "cm1…"));
        let allocations = Self {
            investors: account("network.allocations.investors"),
            reserve: account("network.allocations.reserve"),
            team: account("network.allocations.team"),
            bounty: account("network.allocations.bounty"),
            advisors: account("network.allocations.advisors"),
        };
        if kind == NetworkKind::Development {
            reader.forbid(
                "network.allocations.bounty",
                "on a development network the bounty pays the test money",
                "leave it out, or set kind = \"main\"",
            );
        }
        allocations
    }
}

impl Coordinator {
    /// The genesis that these settings ask for. It is made once, at the first start: a stored one stands,
    /// whatever the settings say later.
    pub fn genesis(&self, created: Timestamp, coordinator: PublicKey) -> Genesis {
        let network = &self.network;
        let mut allocations = Genesis::standard_allocations();
        for part in &mut allocations {
            part.account = network
                .allocations
                .account(&part.name)
                .unwrap_or(part.account);
        }
        Genesis {
            version: 1,
            name: network.name.clone(),
            kind: network.kind,
            created,
            coordinator,
            allocations,
            fees: network.fees,
            withholding: network.withholding,
            faucet: match network.kind {
                NetworkKind::Main => Amount::ZERO,
                NetworkKind::Development => self.faucet.amount,
            },
        }
    }
}

impl Market {
    fn read(reader: &mut Reader<'_>) -> Self {
        let default = Self::default();
        let unit_price = reader.take("market.unit_price", default.unit_price, positive);
        Self {
            unit_price,
            floor: reader.take("market.floor", a_tenth(unit_price), |e| {
                not_above(e, unit_price)
            }),
            ceiling: reader.take("market.ceiling", tenfold(unit_price), |e| {
                not_below(e, unit_price)
            }),
            account_share_ppm: reader.take(
                "market.account_share_ppm",
                default.account_share_ppm,
                |e| whole(e, 10_000..=1_000_000),
            ),
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
            open_tasks_per_account: reader.take(
                "market.open_tasks_per_account",
                default.open_tasks_per_account,
                |e| whole(e, 1..=1_000_000u32).map(|n| n as usize),
            ),
            free_cancels: reader.take("market.free_cancels", default.free_cancels, |e| {
                whole(e, 0..=u32::MAX)
            }),
        }
    }
}

/// IP addresses of single machines.
fn addresses(entry: &crate::reader::Entry<'_>) -> Converted<Vec<IpAddr>> {
    let texts = spanned_texts(entry)?;
    if texts.len() > MAX_EXEMPT {
        return Err(problem(format!("more than {MAX_EXEMPT} addresses")));
    }
    let address = |(text, span): (String, _)| {
        let parsed: Option<IpAddr> = text.trim().parse().ok();
        let one = parsed.filter(|ip| !ip.is_unspecified() && !ip.is_multicast());
        one.ok_or_else(|| {
            let shown: String = text.chars().take(80).collect();
            let problem = problem(format!("`{shown}` is not the IP address of a machine"));
            problem.help("for example \"192.0.2.7\"").at(span)
        })
    };
    texts.into_iter().map(address).collect()
}

fn trusted(entry: &crate::reader::Entry<'_>) -> Converted<Vec<AccountId>> {
    let texts = spanned_texts(entry)?;
    if texts.len() > MAX_TRUSTED {
        return Err(problem(format!("more than {MAX_TRUSTED} accounts")));
    }
    let account = |(text, span): (String, _)| {
        let parsed = text.trim().parse::<AccountId>();
        parsed.map_err(|error| {
            problem(error.to_string())
                .help("give accounts, cm1…")
                .at(span)
        })
    };
    texts.into_iter().map(account).collect()
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
            exempt_addresses: reader.take(
                "limits.exempt_addresses",
                default.exempt_addresses,
                addresses,
            ),
        }
    }
}

impl Settings for Coordinator {
    const SAMPLE: &'static str = include_str!("../coordinator.toml");
    const FILE_NAME: &'static str = "coordinator.toml";

    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let (node, network) = (CoordinatorNode::read(reader), Network::read(reader));
        let kind = network.kind;
        Some(Self {
            node,
            network,
            market: Market::read(reader),
            control: Control::read(reader, kind),
            limits: Limits::read(reader),
            faucet: Faucet {
                amount: reader.take("faucet.amount", Faucet::default().amount, positive),
            },
        })
    }
}
