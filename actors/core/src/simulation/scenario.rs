//! What is simulated. A file describes it: see `cryptomind-config`'s scenarios.

use cryptomind_protocol::Amount;

/// A scenario.
#[derive(Debug, Clone, PartialEq)]
pub struct Scenario {
    /// Its name.
    pub name: String,
    /// For how long tasks are posted, milliseconds; what was posted is then played to its end.
    pub duration_ms: u64,
    /// The miners.
    pub miners: Miners,
    /// How they are connected.
    pub network: Network,
    /// What tasks ask for.
    pub job: Job,
    /// When tasks are posted.
    pub demand: Demand,
    /// How the price floats; nothing: it stands still, and everybody works for it.
    pub price: Option<Price>,
}

/// A price that floats.
#[derive(Debug, Clone, PartialEq)]
pub struct Price {
    /// What one CU costs at first, and what half of the miners work for.
    pub start: Amount,
    /// Deviation of the logarithm of what miners want for one CU at least.
    pub reserve_sigma: f64,
    /// Accounts that post, in turn.
    pub clients: u32,
    /// What half of the clients pay for one CU at most.
    pub limit: Amount,
    /// Deviation of the logarithm of what clients pay at most.
    pub limit_sigma: f64,
    /// What one account counts for at most, in millionths of the supply.
    pub account_share_ppm: u32,
}

/// The miners of a scenario.
#[derive(Debug, Clone, PartialEq)]
pub struct Miners {
    /// Local networks.
    pub lans: u32,
    /// Miners in each.
    pub per_lan: u32,
    /// Median speed, in 10⁶ floating-point operations a second.
    pub mflops: u64,
    /// Deviation of a speed's logarithm among miners.
    pub speed_sigma: f64,
    /// Deviation of the logarithm by which a start test errs.
    pub start_test_sigma: f64,
    /// Deviation of a speed's logarithm from one stretch of work to the next.
    pub load_sigma: f64,
    /// How long a miner stays on average, milliseconds; nothing: for ever. Half of them stay three times as long as the
    /// others.
    pub stay_ms: Option<u64>,
    /// How long it is away then, on average, milliseconds.
    pub away_ms: u64,
}

/// How parties are connected.
#[derive(Debug, Clone, PartialEq)]
pub struct Network {
    /// Inside a local network.
    pub inside: Wire,
    /// Between local networks, and to stores.
    pub between: Wire,
    /// Deviation of the logarithm of a link's values among links of one kind.
    pub scatter: f64,
    /// Deviation of the logarithm by which a measurement errs.
    pub noise: f64,
    /// Peers drawn by lot that each miner measures.
    pub random_peers: u32,
    /// Near peers that each miner measures besides.
    pub near_peers: u32,
    /// Share of miners that report all their links as ten times as good, from 0 to 1.
    pub flatterers: f64,
    /// Storage nodes.
    pub stores: u32,
}

/// A kind of link.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Wire {
    /// Throughput either way, bytes a second.
    pub bytes_per_s: u64,
    /// Round trip, microseconds.
    pub rtt_us: u64,
}

/// What each task asks for: a model of one hidden layer, trained on its own dataset.
#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    /// Parameters of the model, about: the hidden layer is as wide as they allow.
    pub parameters: u64,
    /// Steps.
    pub steps: u32,
    /// Samples a step, over the group.
    pub batch: u32,
    /// Steps from one checkpoint to the next.
    pub checkpoint_steps: u32,
    /// Members of the group.
    pub miners: u32,
    /// The dataset's files, bytes.
    pub dataset_bytes: u64,
}

/// When tasks are posted.
#[derive(Debug, Clone, PartialEq)]
pub struct Demand {
    /// When the first task is posted, milliseconds.
    pub first_ms: u64,
    /// From one task to the next on average, milliseconds; nothing: there is one task.
    pub gap_ms: Option<u64>,
    /// A time of more demand.
    pub surge: Option<Surge>,
}

/// A time of more demand.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Surge {
    /// From when, milliseconds.
    pub from_ms: u64,
    /// Until when, milliseconds.
    pub until_ms: u64,
    /// By how much tasks come more often.
    pub factor: f64,
}

impl Scenario {
    /// Miners in all.
    pub const fn count(&self) -> usize {
        self.miners.lans as usize * self.miners.per_lan as usize
    }

    /// The mean gap to the next task, at a time, milliseconds.
    pub(super) fn gap_ms(&self, at_ms: u64) -> Option<f64> {
        let gap = self.demand.gap_ms? as f64;
        let surge = self.demand.surge;
        let surge = surge.filter(|s| (s.from_ms..s.until_ms).contains(&at_ms));
        Some(surge.map_or(gap, |surge| gap / surge.factor))
    }
}
