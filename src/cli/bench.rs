//! The arguments of `cryptomind bench …`.

use std::path::PathBuf;

use clap::builder::TypedValueParser as _;
use clap::{Args, Subcommand, ValueEnum};
use cryptomind_protocol::ring::Wire;
use serde::{Deserialize, Serialize};

use super::examples;

/// What to measure.
#[derive(Debug, Subcommand)]
pub enum BenchCommand {
    /// The ledger: signed, durable transactions a second, over the real API
    #[command(after_help = examples::BENCH_LEDGER)]
    Ledger(BenchLedgerArgs),
    /// The market: how long one match among many ready miners takes, and how soon a coordinator with thousands of them
    /// answers
    #[command(after_help = examples::BENCH_MARKET)]
    Market(BenchMarketArgs),
    /// Calls to a model on a miner: how long one takes beyond the forward pass, and how many a second
    #[command(after_help = examples::BENCH_INFER)]
    Infer(BenchInferArgs),
    /// How fast the miners of a group sum their gradients, each in a process of its own
    #[command(after_help = examples::BENCH_RING)]
    Ring(BenchRingArgs),
    /// One rank of `bench ring`
    #[command(hide = true)]
    RingMember(RankArgs),
    /// How much faster a group trains than one miner, each member a process of its own on a core of its own
    #[command(after_help = examples::BENCH_SCALE)]
    Scale(BenchScaleArgs),
    /// One rank of `bench scale`
    #[command(hide = true)]
    ScaleMember(RankArgs),
    /// What one training step takes in this process, without a network
    #[command(after_help = examples::BENCH_TRAIN)]
    Train(BenchTrainArgs),
    /// What a batch takes in a trained model, in this process, without a network
    #[command(after_help = examples::BENCH_INFER_LOCAL)]
    InferLocal(BenchInferLocalArgs),
    /// How good models become that are trained on real data, and whether that is good enough
    #[command(after_help = examples::BENCH_QUALITY)]
    Quality(BenchQualityArgs),
    /// One rank of `bench quality`
    #[command(hide = true)]
    QualityMember(RankArgs),
    /// What a miner's self-test promises of training, and what its next tasks reach
    #[command(after_help = examples::BENCH_PROMISE)]
    Promise(BenchPromiseArgs),
    /// Kill a coordinator again and again under load: no token may be lost, created or doubled
    #[command(after_help = examples::BENCH_KILLS)]
    Kills(crate::bench::kills::KillsArgs),
}

/// How to measure the ledger.
#[derive(Debug, Clone, Args)]
pub struct BenchLedgerArgs {
    /// For how long payments are made, and after them holds
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub seconds: u64,

    /// Clients, each with its own key and connection and one request in flight
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=500))]
    pub clients: u32,

    /// Make this many payments instead, kill the coordinator, and measure until it serves again
    #[arg(long, value_name = "PAYMENTS", value_parser = clap::value_parser!(u64).range(1..))]
    pub recover: Option<u64>,

    /// The folder of the coordinator's data, on a disk; a fresh one by default. It is kept
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

/// How to measure the market.
#[derive(Debug, Clone, Default, Args)]
pub struct BenchMarketArgs {
    /// Ready miners
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    pub miners: u32,

    /// Members of the group
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=16))]
    pub group: u32,

    /// How often each is done; the medians count
    #[arg(long, default_value_t = 101, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub rounds: u32,

    /// Miners that are connected while tasks are posted; 0: post none, and measure the match alone
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(0..=20_000))]
    pub connections: u32,

    /// Tasks for one miner that are posted a second
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub posts: u32,

    /// For how long they are posted
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub seconds: u64,

    /// Then kill the coordinator, start it again, and measure until every miner is back
    #[arg(long)]
    pub restart: bool,

    /// The folder of the coordinator's data, on a disk; a fresh one by default. It is kept
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

/// How to measure inference.
#[derive(Debug, Clone, Args)]
pub struct BenchInferArgs {
    /// Calls of one sample in one session, one after the other
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub calls: u32,

    /// The folder of the network's data; a fresh one by default. It is kept
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

/// How to measure sums.
#[derive(Debug, Clone, Args)]
pub struct BenchRingArgs {
    /// Ranks, each a process of its own
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(2..=64).map(usize::from))]
    pub world: usize,

    /// The buffer that is summed, MiB of f32
    #[arg(long, default_value_t = 64.0, value_parser = mebibytes)]
    pub mib: f64,

    /// The format in which values travel
    #[arg(long, value_enum, default_value_t = WireName::F32)]
    pub wire: WireName,

    /// How packets travel
    #[arg(long, value_enum, default_value_t = RingProfileName::Auto)]
    pub profile: RingProfileName,

    /// Sums that count; the median is shown
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub rounds: u32,

    /// Two ranks in network namespaces of their own, on a link of this rate (needs root, iproute2 and iperf3)
    #[arg(long, value_enum, value_name = "RATE")]
    pub netns: Option<LinkRate>,

    /// Sums the same by Gloo too, with the PyTorch of this Python (not encrypted, f32)
    #[arg(long, value_name = "PYTHON")]
    pub gloo: Option<PathBuf>,
}

/// The most that `bench ring` sums.
const MAX_MIB: f64 = 4096.0;

fn mebibytes(text: &str) -> Result<f64, String> {
    let mib: f64 = text.parse().map_err(|_| format!("`{text}` is no number"))?;
    match mib > 0.0 && mib <= MAX_MIB {
        true => Ok(mib),
        false => Err(format!("{text} MiB are not above 0 and at most {MAX_MIB}")),
    }
}

/// A format of values between ranks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum WireName {
    /// Exact
    F32,
    /// Half the bytes, eight significant bits
    Bf16,
    /// A quarter of the bytes, a scale for each 512 values
    Int8,
}

impl From<WireName> for Wire {
    fn from(name: WireName) -> Self {
        match name {
            WireName::F32 => Self::F32,
            WireName::Bf16 => Self::Bf16,
            WireName::Int8 => Self::Int8,
        }
    }
}

/// How packets of a ring travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RingProfileName {
    /// By where the other end is
    Auto,
    /// Packets of up to 65,000 bytes
    Loopback,
    /// Packets of an Ethernet frame
    Lan,
}

/// The rate of a shaped link, each way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LinkRate {
    /// 0.1 Gbit/s
    #[value(name = "100mbit")]
    Mbit100,
    /// 1 Gbit/s
    #[value(name = "1gbit")]
    Gbit1,
}

impl LinkRate {
    /// In tc's words.
    pub const fn tc(self) -> &'static str {
        match self {
            Self::Mbit100 => "100mbit",
            Self::Gbit1 => "1gbit",
        }
    }

    /// In Gbit/s.
    pub const fn gbit_s(self) -> f64 {
        match self {
            Self::Mbit100 => 0.1,
            Self::Gbit1 => 1.0,
        }
    }
}

/// How to measure groups.
#[derive(Debug, Clone, Args)]
pub struct BenchScaleArgs {
    /// Members of the groups, with commas between; one alone is always measured
    #[arg(long, value_delimiter = ',', default_value = "1,2", value_parser = clap::value_parser!(u8).range(1..=64).map(usize::from))]
    pub worlds: Vec<usize>,

    /// The format in which gradients travel
    #[arg(long, value_enum, default_value_t = WireName::F32)]
    pub wire: WireName,

    /// Steps of a run; the median counts
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub steps: u32,

    /// Runs of each group, in turn with those of the others; the medians count
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub runs: u32,

    /// Two members in network namespaces of their own, on a link of this rate (needs root and iproute2)
    #[arg(long, value_enum, value_name = "RATE")]
    pub netns: Option<LinkRate>,
}

/// One rank of a benchmark.
#[derive(Debug, Clone, Copy, Args)]
pub struct RankArgs {
    /// Which
    #[arg(long)]
    pub rank: usize,

    /// The address of its socket
    #[arg(long)]
    pub listen: std::net::IpAddr,
}

/// How to measure training.
#[derive(Debug, Clone, Copy, Args)]
pub struct BenchTrainArgs {
    /// Which model
    #[arg(long, value_enum, default_value_t = TrainedModel::Mlp)]
    pub model: TrainedModel,

    /// Threads; 0: all
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=4096))]
    pub threads: u16,

    /// Steps; the median counts
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub steps: u32,

    /// Say where the time goes, by operation
    #[arg(long)]
    pub profile: bool,
}

/// How to measure a batch in use.
#[derive(Debug, Clone, Copy, Args)]
pub struct BenchInferLocalArgs {
    /// Which model
    #[arg(long, value_enum, default_value_t = TrainedModel::Mlp)]
    pub model: TrainedModel,

    /// Threads; 0: all
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=4096))]
    pub threads: u16,

    /// Batches; the median counts
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub steps: u32,
}

/// What to train for quality.
#[derive(Debug, Clone, Args)]
pub struct BenchQualityArgs {
    /// The folder with digits/, mnist10k/ (four IDX files each) and tinyshakespeare/input.txt
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
    /// Threads; 0: all
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=4096))]
    pub threads: u16,
    /// Seeds: so often each model is trained, the language model once
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub seeds: u32,
    /// Members of the groups, with commas between; one alone is always measured
    #[arg(long, value_delimiter = ',', default_value = "1", value_parser = clap::value_parser!(u8).range(1..=16).map(usize::from))]
    pub worlds: Vec<usize>,
    /// The formats in which their gradients travel, with commas between
    #[arg(long, value_enum, value_delimiter = ',', default_value = "f32")]
    pub wires: Vec<WireName>,
}

/// A model of `bench train`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TrainedModel {
    /// 784-512-512-10 with ReLU, batches of 128
    Mlp,
    /// Two convolutions of 32 and 64 filters with pools, 128-10, on 28 × 28, batches of 64
    Cnn,
    /// 4 blocks of 4 heads, width 128, context 128, vocabulary 65, batches of 16
    Gpt,
}

/// How to hold a self-test to its word.
#[derive(Debug, Clone, Args)]
pub struct BenchPromiseArgs {
    /// Threads of the miner; 0: all
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=4096))]
    pub threads: u16,

    /// For how long its self-test trains to see whether it slows down
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub seconds: u64,

    /// How often it is done, each time with a self-test of its own; the medians count
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub rounds: u32,

    /// The folder of the networks' data; a fresh one by default. It is kept
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}
