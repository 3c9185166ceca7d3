//! Whom a self-test lets in: a report that its own node signed, made before now, of a machine that computes rightly.
//!
//! The coordinator asks when a miner joins; the miner asks the same of the report that it keeps. What a report says of
//! speeds goes to [`market::speed`](crate::market::speed).
//!
//! Is not: how a self-test computes, nor where its report is kept.

use cryptomind_protocol::selftest::{Machine, Pace, Report, VERSION, Work};
use cryptomind_protocol::signed::VerifyError;
use cryptomind_protocol::{ErrorBody, ErrorClass, GenesisHash, NodeId, Signed, Timestamp};

/// By how much a node's clock may be ahead, milliseconds.
pub const AHEAD_LIMIT_MS: u64 = 60_000;
/// What is free differs from day to day; so many times as much is another machine, or another owner's wish.
const MUCH_MORE: u64 = 2;

/// What lasted less says nothing of heat, milliseconds.
const LASTED_MS: u64 = 4_000;
/// Millionths in a whole.
const WHOLE_PPM: u64 = 1_000_000;

/// Why a miner is not let in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It shows none.
    #[error("a miner joins with the report of its self-test")]
    None,
    /// The bytes are no report that its signer signed for this network.
    #[error("no report of a self-test: {0}")]
    Forged(#[from] VerifyError),
    /// Of a version that is not known here.
    #[error("a self-test's report of version {0}: this network speaks {VERSION}")]
    Version(u8),
    /// Longer lists or texts than any self-test makes.
    #[error("no self-test makes as long a report")]
    Long,
    /// It is about another node, or another one signed it.
    #[error("the self-test's report is another node's")]
    OtherNode,
    /// It was made later than now.
    #[error("the self-test was made {ahead_s} s from now")]
    FromTheFuture {
        /// By the coordinator's clock.
        ahead_s: u64,
    },
    /// Something was computed wrongly, or not at all.
    #[error("the self-test found that this machine computes wrongly: {0}")]
    Wrong(String),
}

impl Refusal {
    const fn code(&self) -> &'static str {
        match self {
            Self::None => "no_selftest",
            Self::Forged(_) | Self::Version(_) | Self::Long => "bad_selftest",
            Self::OtherNode => "foreign_selftest",
            Self::FromTheFuture { .. } => "selftest_from_the_future",
            Self::Wrong(_) => "computes_wrongly",
        }
    }

    const fn class(&self) -> ErrorClass {
        match self {
            Self::Forged(_) | Self::OtherNode => ErrorClass::Auth,
            _ => ErrorClass::User,
        }
    }

    const fn help(&self) -> &'static str {
        match self {
            Self::None | Self::Forged(_) | Self::Version(_) | Self::Long => {
                "start the miner with the coordinator's release: it takes the self-test and joins with its report"
            }
            Self::OtherNode => "delete selftest.json in the miner's data folder and start it again",
            Self::FromTheFuture { .. } => {
                "set the clock by the network (timedatectl set-ntp true), then start the miner again"
            }
            Self::Wrong(_) => {
                "undo its overclocking, test its memory (memtest86+), then: cryptomind miner selftest, and start the miner again"
            }
        }
    }
}

impl From<Refusal> for ErrorBody {
    fn from(refusal: Refusal) -> Self {
        Self::new(refusal.class(), refusal.code(), &refusal).with_help(refusal.help())
    }
}

/// Verifies a report that `node` joins with, and reads it.
pub fn open(
    signed: Option<&Signed>,
    network: &GenesisHash,
    node: NodeId,
    now: Timestamp,
) -> Result<Report, Refusal> {
    let signed = signed.ok_or(Refusal::None)?;
    let report: Report = signed.verify(network)?;
    if report.version != VERSION {
        return Err(Refusal::Version(report.version));
    }
    if !report.fits() {
        return Err(Refusal::Long);
    }
    if report.node != node || NodeId::of_key(&signed.signer) != node {
        return Err(Refusal::OtherNode);
    }
    let ahead_ms = report.made.ms_since(now);
    if ahead_ms > AHEAD_LIMIT_MS {
        let ahead_s = ahead_ms / 1000;
        return Err(Refusal::FromTheFuture { ahead_s });
    }
    match wrong(&report) {
        Some(what) => Err(Refusal::Wrong(what)),
        None => Ok(report),
    }
}

/// What was computed wrongly, for people.
fn wrong(report: &Report) -> Option<String> {
    let work = &report.work;
    if let Some(product) = work.products.iter().find(|product| !product.right) {
        let size = product.size;
        return Some(format!("a product of {size} rows is none"));
    }
    if !work.filled.right {
        return Some("its memory gives back other bytes than were written".to_owned());
    }
    if let Some(run) = work.trainings.iter().find(|run| !run.is_right()) {
        let (model, loss) = (&run.model, run.loss);
        return Some(match run.band() {
            Some((least, most)) => {
                format!("the loss of `{model}` is {loss:.3}, right is {least} to {most}")
            }
            None => format!("nobody knows the model `{model}`"),
        });
    }
    (!work.is_right()).then(|| "a part of the test is missing".to_owned())
}

/// How fast a machine trains in steps of several sizes for as long as a task takes: what it measured in moments, less what it
/// lost by growing hot.
pub fn kept_paces(work: &Work) -> Vec<Pace> {
    let lasted = work.endurance.ms >= LASTED_MS;
    let kept = match lasted {
        true => work.endurance.kept_ppm().min(WHOLE_PPM),
        false => WHOLE_PPM,
    };
    let longer = |nanos: u64| {
        let nanos = u128::from(nanos) * u128::from(WHOLE_PPM) / u128::from(kept.max(1));
        u64::try_from(nanos).unwrap_or(u64::MAX)
    };
    let slowed = |pace: &Pace| Pace {
        gradients_ns: longer(pace.gradients_ns),
        update_ns: longer(pace.update_ns),
        ..*pace
    };
    work.paces.iter().map(slowed).collect()
}

/// The memory that a node may claim, bytes: what it says that it can give now, and no more than its self-test filled.
pub fn memory(claimed: Option<u64>, report: &Report) -> Option<u64> {
    claimed.map(|claimed| claimed.min(report.work.filled.bytes))
}

/// What a kept report is held against.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Present {
    /// Whose it must be.
    pub node: NodeId,
    /// The program's release.
    pub release: String,
    /// What there is to compute with.
    pub machine: Machine,
    /// How long the machine must have shown that it keeps its speed, milliseconds.
    pub endure_ms: u64,
    /// How much memory a test would fill now, bytes.
    pub fill_bytes: u64,
    /// After this the report says little, milliseconds.
    pub age_limit_ms: u64,
}

/// A kernel keeps some more or less memory to itself at each start: a sixteenth is no change.
fn is_same(one: &Machine, other: &Machine) -> bool {
    let differs = one.memory_bytes.abs_diff(other.memory_bytes);
    (one.threads, &one.devices) == (other.threads, &other.devices)
        && differs <= one.memory_bytes / 16
}

/// Why a kept report does not hold and the self-test is taken anew; nothing where it holds.
pub fn stale(report: &Report, present: &Present, now: Timestamp) -> Option<&'static str> {
    let reasons = [
        (report.node != present.node, "it is another node's"),
        (
            report.version != VERSION || report.release != present.release,
            "it is another release's",
        ),
        (
            !is_same(&report.machine, &present.machine),
            "threads, devices or memory have changed",
        ),
        (
            report.made.ms_since(now) > 0 || now.ms_since(report.made) >= present.age_limit_ms,
            "it is too old, or from the future",
        ),
        (
            report.work.endurance.ms < present.endure_ms,
            "it was shorter than is asked for now",
        ),
        (
            present.fill_bytes / MUCH_MORE > report.work.filled.wanted,
            "there is much more memory than it was to fill",
        ),
        (
            report.work.filled.was_cut_short()
                && present.fill_bytes / MUCH_MORE > report.work.filled.bytes,
            "there was less memory than there is now",
        ),
        (!report.work.is_right(), "it failed"),
    ];
    let mut stale = reasons.into_iter().filter(|(applies, _)| *applies);
    stale.next().map(|(_, reason)| reason)
}

#[cfg(test)]
mod tests;
