//! A rank of `bench ring`, in its own process.

use std::time::Instant;

use bytes::Bytes;
use cryptomind_net::ring::{Buffer, Profile, Ring, RingError, RingPlan, RingSocket};
use cryptomind_protocol::ErrorBody;
use cryptomind_protocol::key::Hash;
use cryptomind_protocol::ring::Wire;
use serde::{Deserialize, Serialize};

use crate::bench::rank;
use crate::cli::bench::{RankArgs, RingProfileName};

/// Sums before those that count.
const WARM_UP: u32 = 3;

/// What it is told.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Order {
    /// Of all ranks.
    pub(super) addresses: Vec<String>,
    pub(super) values: usize,
    pub(super) wire: Wire,
    pub(super) profile: RingProfileName,
    pub(super) rounds: u32,
}

/// What it answers.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Timed {
    /// Each sum, milliseconds.
    pub(super) sum_ms: Vec<f64>,
    /// As many bytes each way without a look at them, in turn with the sums.
    pub(super) raw_ms: Vec<f64>,
    /// Of UDP, sent for all sums that were timed.
    pub(super) udp_bytes: u64,
    /// Of the bits of all sums.
    pub(super) bits: Hash,
    /// The largest error of a value, over the largest value.
    pub(super) error: f64,
}

/// See [`super::member`].
pub(super) async fn run(args: RankArgs) -> Result<(), ErrorBody> {
    let number = args.rank;
    let work = async |socket: &RingSocket, order: Order| sum(number, socket, &order).await;
    rank::serve(args, work).await
}

async fn sum(rank: usize, socket: &RingSocket, order: &Order) -> Result<Timed, ErrorBody> {
    let world = order.addresses.len();
    let ring = socket.join(plan(rank, order)).await.map_err(failed)?;
    let own: Vec<f32> = (0..order.values).map(|at| value(rank, at)).collect();
    let mut bench = Bench {
        raw: vec![1; order.wire.bytes(order.values) * 2 * (world - 1) / world].into(),
        ring,
        order,
        buffer: Buffer::of(own.clone()),
        own,
    };
    let mut timed = Timed {
        sum_ms: Vec::new(),
        raw_ms: Vec::new(),
        udp_bytes: 0,
        bits: Hash::new([0; 32]),
        error: 0.0,
    };
    for _ in 0..WARM_UP {
        bench.raw().await.map_err(failed)?;
        bench.sum().await.map_err(failed)?;
    }
    let error = error(world, &bench.buffer.values);
    for _ in 0..order.rounds {
        timed.raw_ms.push(bench.raw().await.map_err(failed)?);
        let before = bench.ring.sent().udp_bytes;
        timed.sum_ms.push(bench.sum().await.map_err(failed)?);
        timed.udp_bytes += bench.ring.sent().udp_bytes - before;
        timed.bits = bits(timed.bits, &bench.buffer.values);
    }
    bench.ring.leave().await;
    Ok(Timed { error, ..timed })
}

fn failed(error: RingError) -> ErrorBody {
    ErrorBody::internal(error)
}

fn plan(rank: usize, order: &Order) -> RingPlan {
    let profile = match order.profile {
        RingProfileName::Auto => None,
        RingProfileName::Loopback => Some(Profile::Loopback),
        RingProfileName::Lan => Some(Profile::Lan),
    };
    rank::plan(rank, order.addresses.clone(), order.wire, profile)
}

struct Bench<'a> {
    ring: Ring,
    order: &'a Order,
    own: Vec<f32>,
    buffer: Buffer,
    raw: Bytes,
}

impl Bench<'_> {
    /// Everybody's values, from the same beginning on all ranks. Milliseconds.
    async fn sum(&mut self) -> Result<f64, RingError> {
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.values.copy_from_slice(&self.own);
        self.ring.barrier().await?;
        let begin = Instant::now();
        self.buffer = self.ring.sum(self.order.wire, buffer).await?;
        Ok(ms(begin))
    }

    async fn raw(&mut self) -> Result<f64, RingError> {
        self.ring.barrier().await?;
        let begin = Instant::now();
        self.ring.raw(self.raw.clone()).await?;
        Ok(ms(begin))
    }
}

fn ms(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

/// Values of either sign and several magnitudes, which add up without loss in f64.
fn value(rank: usize, at: usize) -> f32 {
    let noise = (at as u64 * 2_654_435_761 + rank as u64 * 40_503) % 65_521;
    (noise as f32 / 65_521.0 - 0.5) * ((at % 7) as f32 + 0.1)
}

/// The largest error, over the largest sum.
fn error(world: usize, sums: &[f32]) -> f64 {
    let exact = |at| {
        (0..world)
            .map(|rank| f64::from(value(rank, at)))
            .sum::<f64>()
    };
    let (mut worst, mut largest) = (0.0f64, f64::MIN_POSITIVE);
    for (at, sum) in sums.iter().enumerate() {
        let exact = exact(at);
        worst = worst.max((exact - f64::from(*sum)).abs());
        largest = largest.max(exact.abs());
    }
    worst / largest
}

/// A hash of the bits before and of these, which takes no memory of their size: fresh pages are cleared by the system, which on some
/// virtual machines takes longer than the sum.
fn bits(before: Hash, values: &[f32]) -> Hash {
    const VALUES_AT_ONCE: usize = 16 * 1024;
    values
        .chunks(VALUES_AT_ONCE)
        .fold(before, |before, values| {
            let values = values.iter().flat_map(|value| value.to_le_bytes());
            let all: Vec<u8> = before.as_bytes().iter().copied().chain(values).collect();
            Hash::of(&all)
        })
}
