//! The self-test's report: what a machine did with a challenge, and what it was made on.
//!
//! A miner keeps it, signs it with its node's key when it joins, and is taken in with it alone: it says whether the machine
//! computes rightly, and how fast it trains. What is concluded from it says `cryptomind-core`; how the parts are computed,
//! `cryptomind-gpu`.

use serde::{Deserialize, Serialize};

use crate::key::Hash;
use crate::signed::Payload;
use crate::speed::Step;
use crate::{NodeId, Timestamp};

/// The version of a [`Report`].
pub const VERSION: u8 = 2;
/// For so long memory is filled, milliseconds.
pub const FILL_LIMIT_MS: u64 = 12_000;
/// The most entries of each of a report's lists.
pub const MAX_PARTS: usize = 16;
/// The most devices that a report names.
pub const MAX_DEVICES: usize = 32;
/// The most bytes of a text in a report.
pub const MAX_TEXT_BYTES: usize = 128;

/// The models that are trained, by name, and the band of the mean loss of their last 32 steps on any right machine, whatever
/// the challenge: see the test of `cryptomind-gpu` that holds it to 200 challenges.
pub const BANDS: [(&str, (f32, f32)); 3] = [
    ("linear", (0.31, 0.43)),
    ("relu", (0.01, 0.032)),
    ("tanh", (0.022, 0.076)),
];

/// A self-test, as its node signs it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// [`VERSION`].
    pub version: u8,
    /// Whose.
    pub node: NodeId,
    /// When it was over, by the node's clock.
    pub made: Timestamp,
    /// Of which release of the program.
    pub release: String,
    /// On what.
    pub machine: Machine,
    /// What was done.
    pub work: Work,
}

impl Payload for Report {
    const TAG: &'static str = "cryptomind/selftest/1";
    const MAX_BYTES: usize = 8 * 1024;
}

/// What a self-test was made on. Where it differs, another one is due.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    /// Threads that computed.
    pub threads: u32,
    /// Its devices, for people.
    pub devices: Vec<String>,
    /// Its memory, bytes; 0 where the system does not say.
    pub memory_bytes: u64,
}

/// What a machine did with a challenge.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Work {
    /// What it was challenged with.
    pub challenge: u64,
    /// Products, by size.
    pub products: Vec<Product>,
    /// Memory that is read and written, bytes a second.
    pub copy_bytes_per_s: u64,
    /// Memory that was filled: a node claims no more than that.
    pub filled: Filled,
    /// Training runs.
    pub trainings: Vec<Training>,
    /// How fast it trains in steps of several sizes, the smallest first.
    pub paces: Vec<Pace>,
    /// How fast it stays.
    pub endurance: Endurance,
    /// The hash of a fixed computation: machines with equal ones compute equal bits. Nothing where it came out otherwise
    /// on one thread than on all, and in reports of older releases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub determinism_class: Option<Hash>,
}

/// A product.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Product {
    /// Rows and columns.
    pub size: u32,
    /// 10⁶ floating-point operations a second.
    pub mflops: u64,
    /// Whether it is the product.
    pub right: bool,
}

/// Memory that was filled with numbers that follow from the challenge, then read back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Filled {
    /// How much was to be.
    pub wanted: u64,
    /// How much was, all of it at once: what the system gave in time.
    pub bytes: u64,
    /// For how long, milliseconds.
    pub ms: u64,
    /// Whether all of it was read as it was written.
    pub right: bool,
}

impl Filled {
    /// Whether much less was filled than was to be though there was time: somebody else needed the memory then.
    pub const fn was_cut_short(&self) -> bool {
        self.bytes < self.wanted / 2 && self.ms < FILL_LIMIT_MS
    }
}

/// A training run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Training {
    /// Which model: one of [`BANDS`].
    pub model: String,
    /// Mean loss of the last 32 steps.
    pub loss: f32,
}

/// How fast a machine trains in steps of one size: means, nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pace {
    /// What a step is.
    pub step: Step,
    /// Its gradients: what the processor computes.
    pub gradients_ns: u64,
    /// The update of its parameters: what the memory moves.
    pub update_ns: u64,
}

impl Pace {
    /// 10⁶ floating-point operations a second, over all of the step.
    pub fn mflops(&self) -> u64 {
        let nanos = u128::from(self.gradients_ns) + u128::from(self.update_ns);
        u64::try_from(u128::from(self.step.flops) * 1000 / nanos.max(1)).unwrap_or(u64::MAX)
    }
}

/// How fast it stays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Endurance {
    /// For how long, milliseconds.
    pub ms: u64,
    /// In the first quarter of the time: the median, 10⁶ floating-point operations a second.
    pub first_mflops: u64,
    /// In the last quarter.
    pub last_mflops: u64,
}

impl Training {
    /// The band of this model's loss; nothing for a model that nobody knows.
    pub fn band(&self) -> Option<(f32, f32)> {
        let of = BANDS.iter().find(|(model, _)| *model == self.model);
        of.map(|(_, band)| *band)
    }

    /// Whether the loss is in the band.
    pub fn is_right(&self) -> bool {
        self.band()
            .is_some_and(|(least, most)| (least..=most).contains(&self.loss))
    }
}

impl Endurance {
    /// The last quarter's speed as a part of the first one's, in millionths.
    pub const fn kept_ppm(&self) -> u64 {
        self.last_mflops.saturating_mul(1_000_000)
            / (self.first_mflops + (self.first_mflops == 0) as u64)
    }
}

impl Work {
    /// The speed of training that the machine keeps, 10⁶ floating-point operations a second.
    pub const fn mflops(&self) -> u64 {
        self.endurance.last_mflops
    }

    /// Whether all of it was computed, and rightly.
    pub fn is_right(&self) -> bool {
        let trained = |name: &str| self.trainings.iter().any(|run| run.model == name);
        !self.products.is_empty()
            && self.products.iter().all(|product| product.right)
            && self.filled.right
            && BANDS.iter().all(|(name, _)| trained(name))
            && self.trainings.iter().all(Training::is_right)
            && self.mflops() > 0
    }
}

impl Report {
    /// Whether its lists and texts are as long as they may be at most.
    pub fn fits(&self) -> bool {
        let fits = |text: &String| text.len() <= MAX_TEXT_BYTES;
        let Work {
            products,
            trainings,
            paces,
            ..
        } = &self.work;
        let longest = products.len().max(trainings.len()).max(paces.len());
        longest <= MAX_PARTS
            && self.machine.devices.len() <= MAX_DEVICES
            && fits(&self.release)
            && self.machine.devices.iter().all(fits)
            && trainings.iter().all(|run| fits(&run.model))
    }
}
