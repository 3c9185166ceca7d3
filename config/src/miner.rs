//! `miner.toml`: a machine that computes, and what its owner lets it do.

use std::net::{Ipv4Addr, SocketAddr};
use std::str::FromStr;

use cryptomind_protocol::{Amount, NodeAddress};

use crate::convert::{Converted, PortRange, amount, bytes, parsed, problem, texts, whole, words};
use crate::reader::Entry;
use crate::{MinerNode, Reader, Settings};

const EXAMPLE_ADDRESS: &str = "cm://cmn1…@203.0.113.5:7700";
/// What to do about a coordinator that is not named.
pub(crate) const NO_COORDINATOR: &str =
    "write coordinator = \"cm://…\" above the first section, or start with --join cm://…";

/// A miner's settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Miner {
    /// The coordinator that it works with.
    pub coordinator: NodeAddress,
    /// Who it is and whom it earns for.
    pub node: MinerNode,
    /// What it computes with.
    pub compute: Compute,
    /// Where neighbours reach it.
    pub ring: Ring,
    /// Whether others measure how far it is.
    pub probe: Probe,
    /// How it tests itself.
    pub selftest: Selftest,
    /// What it works for.
    pub market: Asking,
    /// What it does otherwise.
    pub idle: Idle,
    /// What it keeps of datasets and models.
    pub cache: Cache,
}

/// `[compute]`: what it computes with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Compute {
    /// Threads; 0 is all that the machine has.
    pub threads: usize,
    /// The most memory that a task may take, bytes; by default what is free when the miner starts.
    pub max_memory: Option<u64>,
}

impl RingProfile {
    /// Its word in a file.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Loopback => "loopback",
            Self::Lan => "lan",
        }
    }
}

/// Words for `ring.profile`.
const PROFILES: [(&str, Option<RingProfile>); 3] = [
    ("auto", None),
    (RingProfile::Loopback.name(), Some(RingProfile::Loopback)),
    (RingProfile::Lan.name(), Some(RingProfile::Lan)),
];

/// `[ring]`: where other miners of a group reach this one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ring {
    /// Host name or IP address; by default the local address of the connection to the coordinator.
    pub host: Option<String>,
    /// UDP ports that may be bound; by default any free one.
    pub ports: Option<PortRange>,
    /// How packets travel to other miners; by default as the path to each allows.
    pub profile: Option<RingProfile>,
}

/// How packets of a ring travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RingProfile {
    /// As large as one machine takes them from itself.
    Loopback,
    /// As large as an Ethernet frame.
    Lan,
}

/// `[probe]`: whether, and where, other miners measure their links to this one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Probe {
    /// The UDP port for it, and on which address.
    pub listen: ProbePort,
}

/// Where a miner lets others measure their links to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProbePort {
    /// Nowhere: what is not measured is taken to be as bad as the worse quartile.
    Off,
    /// Here; port 0 takes a free one.
    At(SocketAddr),
}

impl Default for ProbePort {
    fn default() -> Self {
        Self::At((Ipv4Addr::UNSPECIFIED, 0).into())
    }
}

impl FromStr for ProbePort {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "off" => Ok(Self::Off),
            address => address
                .parse()
                .map(Self::At)
                .map_err(|_| format!("`{address}` is neither address:port nor off")),
        }
    }
}

impl std::fmt::Display for ProbePort {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::At(address) => address.fmt(f),
        }
    }
}

/// `[selftest]`: what it shows before it may join, made anew where the machine has changed, and at intervals.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selftest {
    /// For how long it trains to see whether it slows down, seconds; 0 is the shortest form of the whole test.
    pub seconds: u64,
    /// After so many hours a report says little of a machine: dust, heat, another kernel.
    pub hours: u64,
}

impl Default for Selftest {
    fn default() -> Self {
        Self {
            seconds: 5,
            hours: 7 * 24,
        }
    }
}

/// `[market]`: what it works for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Asking {
    /// The least for one CU. Tasks that pay less go to others; those that pay more pay what the market says.
    pub reserve: Amount,
}

/// `[idle]`: the owner's usual program, running while there is no task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Idle {
    /// The program and its arguments, without a shell; empty is none.
    pub command: Vec<String>,
    /// After this, seconds, its processes are killed rather than asked to stop.
    pub stop_limit_s: u64,
}

/// `[cache]`: datasets and models that stay on disk for the next task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cache {
    /// Bytes of disk; the least recently used goes first.
    pub max_bytes: u64,
}

impl Default for Idle {
    fn default() -> Self {
        Self {
            command: Vec::new(),
            stop_limit_s: 10,
        }
    }
}

impl Default for Cache {
    fn default() -> Self {
        Self {
            max_bytes: 20 << 30,
        }
    }
}

impl Miner {
    /// The defaults with this coordinator, which has none.
    pub fn new(coordinator: NodeAddress) -> Self {
        Self {
            coordinator,
            node: MinerNode::default(),
            compute: Compute::default(),
            ring: Ring::default(),
            probe: Probe::default(),
            selftest: Selftest::default(),
            market: Asking::default(),
            idle: Idle::default(),
            cache: Cache::default(),
        }
    }
}

/// The address of the coordinator, which must be given.
pub(crate) fn coordinator(reader: &mut Reader<'_>) -> Option<NodeAddress> {
    reader.required("coordinator", NO_COORDINATOR, |e| {
        parsed(e, EXAMPLE_ADDRESS)
    })
}

/// The address of the coordinator, where one is given.
pub(crate) fn optional_coordinator(reader: &mut Reader<'_>) -> Option<NodeAddress> {
    reader.optional("coordinator", |e| parsed(e, EXAMPLE_ADDRESS))
}

fn host(entry: &Entry<'_>) -> Converted<String> {
    let text = words(entry)?;
    let is_host = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':');
    let is_address = text.parse::<std::net::IpAddr>().is_ok();
    if text.chars().all(is_host) && (is_address || !text.contains(':')) {
        return Ok(text);
    }
    Err(
        problem(format!("`{text}` is not a host name or IP address"))
            .help("give it without a port: ports are in `ring.ports`"),
    )
}

fn command(entry: &Entry<'_>) -> Converted<Vec<String>> {
    let command = texts(entry)?;
    match command.first() {
        Some(program) if program.trim().is_empty() => {
            Err(problem("the program's name is empty").help("[] is no command at all"))
        }
        _ => Ok(command),
    }
}

impl Idle {
    fn read(reader: &mut Reader<'_>) -> Self {
        let default = Self::default();
        Self {
            command: reader.take("idle.command", default.command, command),
            stop_limit_s: reader.take("idle.stop_limit_s", default.stop_limit_s, |e| {
                whole(e, 1..=600)
            }),
        }
    }
}

impl Settings for Miner {
    const SAMPLE: &'static str = include_str!("../miner.toml");
    const FILE_NAME: &'static str = "miner.toml";

    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let coordinator = coordinator(reader);
        let node = MinerNode::read(reader);
        let compute = Compute {
            threads: reader.take("compute.threads", 0, |e| {
                whole(e, 0..=4096u16).map(usize::from)
            }),
            max_memory: reader.optional("compute.max_memory", bytes),
        };
        let ring = Ring {
            host: reader.optional("ring.host", host),
            ports: reader.optional("ring.ports", |e| parsed(e, "7710-7719")),
            profile: reader.choice("ring.profile", None, &PROFILES),
        };
        let probe = Probe {
            listen: reader.take("probe.listen", ProbePort::default(), |e| {
                parsed(e, "0.0.0.0:7720")
            }),
        };
        let selftest = Selftest {
            seconds: reader.take("selftest.seconds", Selftest::default().seconds, |e| {
                whole(e, 0..=600)
            }),
            hours: reader.take("selftest.hours", Selftest::default().hours, |e| {
                whole(e, 1..=30 * 24)
            }),
        };
        let market = Asking {
            reserve: reader.take("market.reserve", Amount::ZERO, amount),
        };
        let idle = Idle::read(reader);
        let cache = Cache {
            max_bytes: reader.take("cache.max_bytes", Cache::default().max_bytes, bytes),
        };
        Some(Self {
            coordinator: coordinator?,
            node,
            compute,
            ring,
            probe,
            selftest,
            market,
            idle,
            cache,
        })
    }
}
