//! `bench ring`: how fast a group sums, each rank in a process of its own, over real links.
//!
//! The baseline of the run is what the same streams move where nobody looks at the bytes, both ways at once, in turn with
//! the sums. With `--netns` each of two ranks is in a network namespace of its own, on a link that is shaped, and what iperf3
//! moves over it both ways is the baseline too. With `--gloo` the same buffer is summed by Gloo on the same links after that.
//!
//! Bus bandwidth, as everybody counts it since NVIDIA's nccl-tests (doc/PERFORMANCE.md): S/t · 2(N−1)/N for a buffer of S bytes of
//! f32, whatever format it travels in.

use std::path::{Path, PathBuf};

use anyhow::Result;
use cryptomind_protocol::ring::Wire;
use cryptomind_protocol::{ErrorBody, ErrorClass};
use serde::Serialize;
use tokio::process::Command;

use super::netns::Namespaces;
use super::rank::{self, Rank};
use crate::cli::bench::{BenchRingArgs, RankArgs, RingProfileName};
use crate::exit;
use crate::output::{Output, table};
use member::{Order, Timed};

mod gloo;
mod member;

/// What starts a rank.
const COMMAND: &str = "ring-member";
const GIB: f64 = (1u64 << 30) as f64;
const VALUES_A_MIB: f64 = (1 << 20) as f64 / size_of::<f32>() as f64;

/// What was measured; one JSON object.
#[derive(Debug, Serialize)]
struct Report {
    world: usize,
    mib: f64,
    wire: Wire,
    profile: RingProfileName,
    /// Sums that were timed.
    rounds: u32,
    /// A sum, milliseconds: the median over the rounds of the slowest rank's.
    ms: f64,
    /// Of the f32 buffer, GiB/s at the median.
    bus_gib_s: f64,
    /// Bytes of UDP that a rank sent, headers, acknowledgements and pings included, over 2(N−1)/N · S in this format: the most of
    /// any rank.
    wire_bytes_ratio: f64,
    /// Whether all ranks ended every sum with the same bits.
    bits_equal: bool,
    /// The largest error of a value, over the largest value.
    error: f64,
    /// What the same streams moved both ways at once without a look at it, GiB/s: the median.
    raw_gib_s: f64,
    /// What sums moved over that.
    of_raw: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    shaped: Option<Shaped>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gloo: Option<Gloo>,
}

/// A link that is shaped.
#[derive(Debug, Serialize)]
struct Shaped {
    /// Its rate each way.
    link_gbit_s: f64,
    /// What `iperf3 --bidir` moved over it, the slower way, Gbit/s.
    iperf3_gbit_s: f64,
    /// What sums moved over that.
    of_iperf3: f64,
}

/// The same buffer, summed by Gloo.
#[derive(Debug, Serialize)]
struct Gloo {
    /// The version of the PyTorch that it is part of.
    pytorch: String,
    /// A sum of it in f32, milliseconds: the median over the rounds of the slowest rank's.
    f32_ms: f64,
    /// What a sum takes here over that.
    of_gloo: f64,
}

/// Runs the benchmark.
pub async fn run(output: Output, args: BenchRingArgs) -> Result<()> {
    tokio::select! {
        measured = measure(output, args) => {
            let report = measured?;
            output.value(&report, || report.table())?;
            report.verdict()?;
            Ok(())
        }
        // The processes and the namespaces go with what measures.
        _ = tokio::signal::ctrl_c() => Err(exit::interrupted("interrupted").into()),
    }
}

/// One rank, in this process: told on standard input what to do, and telling on standard output what it measured.
pub async fn member(args: RankArgs) -> Result<()> {
    Ok(member::run(args).await?)
}

async fn measure(output: Output, args: BenchRingArgs) -> Result<Report, ErrorBody> {
    let link = match args.netns {
        Some(rate) => {
            if args.world != 2 {
                let message = "two namespaces are one link, of two ranks";
                return Err(ErrorBody::user("wrong_world", message).with_help("leave --world at 2"));
            }
            let link = Namespaces::new(rate)?;
            // A file that fails to be written is no reason to stop.
            let _ = output.note("iperf3 both ways for 5 s …");
            let iperf3 = move || link.iperf3().map(|gbit_s| (link, gbit_s));
            let measured = tokio::task::spawn_blocking(iperf3).await;
            Some(measured.map_err(ErrorBody::internal)??)
        }
        None => None,
    };
    let mut ranks = start(args.world, link.as_ref().map(|(link, _)| link)).await?;
    let _ = output.note(format!("{} ranks sum {} MiB …", args.world, args.mib));
    let timed = sum(&mut ranks, &args).await?;
    drop(ranks);
    let mut report = report(&args, &timed);
    if let Some(python) = &args.gloo {
        let _ = output.note("Gloo sums the same …");
        let link = link.as_ref().map(|(link, _)| link);
        report.gloo = Some(held_against_gloo(&args, report.ms, python, link).await?);
    }
    if let Some((link, iperf3_gbit_s)) = link {
        let moved = moved_gib_s(&args, report.ms) * GIB * 8.0 / 1e9;
        report.shaped = Some(Shaped {
            link_gbit_s: link.gbit_s(),
            iperf3_gbit_s,
            of_iperf3: moved / iperf3_gbit_s,
        });
    }
    Ok(report)
}

async fn held_against_gloo(
    args: &BenchRingArgs,
    ms: f64,
    python: &Path,
    link: Option<&Namespaces>,
) -> Result<Gloo, ErrorBody> {
    let sums = gloo::Sums {
        world: args.world,
        values: values(args),
        rounds: args.rounds,
    };
    let timed = gloo::sum(python, sums, link).await?;
    let f32_ms = median_ms(&timed, |rank| &rank.sum_ms);
    let pytorch = timed.into_iter().next().map(|rank| rank.pytorch);
    Ok(Gloo {
        pytorch: pytorch.unwrap_or_default(),
        f32_ms,
        of_gloo: ms / f32_ms,
    })
}

async fn start(world: usize, link: Option<&Namespaces>) -> Result<Vec<Rank>, ErrorBody> {
    let program =
        std::env::current_exe().map_err(|e| exit::file(&PathBuf::from("cryptomind"), &e))?;
    let mut ranks = Vec::new();
    for rank in 0..world {
        ranks.push(match link {
            Some(link) => {
                let program = link.command(rank, &program);
                Rank::start(rank, link.address(rank), COMMAND, program)?
            }
            None => {
                let program = Command::new(&program);
                Rank::start(rank, [127, 0, 0, 1].into(), COMMAND, program)?
            }
        });
    }
    Ok(ranks)
}

async fn sum(ranks: &mut [Rank], args: &BenchRingArgs) -> Result<Vec<Timed>, ErrorBody> {
    let order = |addresses| Order {
        addresses,
        values: values(args),
        wire: args.wire.into(),
        profile: args.profile,
        rounds: args.rounds,
    };
    rank::ask(ranks, order).await
}

fn values(args: &BenchRingArgs) -> usize {
    (args.mib * VALUES_A_MIB) as usize
}

/// What a rank sends at least for a sum, bytes: 2(N−1)/N of the buffer.
fn least_bytes(world: usize, bytes: f64) -> f64 {
    2.0 * (world - 1) as f64 / world as f64 * bytes
}

/// What a rank moves each way in its format where a sum takes so long, GiB/s.
fn moved_gib_s(args: &BenchRingArgs, ms: f64) -> f64 {
    let bytes = Wire::from(args.wire).bytes(values(args)) as f64;
    least_bytes(args.world, bytes) / (ms / 1e3) / GIB
}

/// The median over the rounds of the slowest rank's time.
fn median_ms<T>(timed: &[T], of: impl Fn(&T) -> &[f64]) -> f64 {
    let rounds = timed.iter().map(|rank| of(rank).len()).min().unwrap_or(0);
    let slowest = |round: usize| timed.iter().map(|rank| of(rank)[round]).fold(0.0, f64::max);
    let mut times: Vec<f64> = (0..rounds).map(slowest).collect();
    times.sort_by(f64::total_cmp);
    times.get(rounds / 2).copied().unwrap_or(f64::NAN)
}

fn report(args: &BenchRingArgs, timed: &[Timed]) -> Report {
    let wire = Wire::from(args.wire);
    let f32_bytes = (values(args) * size_of::<f32>()) as f64;
    // Scales are overhead.
    let wire_bytes = match wire {
        Wire::F32 => f32_bytes,
        Wire::Bf16 => f32_bytes / 2.0,
        Wire::Int8 => f32_bytes / 4.0,
    };
    let ms = median_ms(timed, |rank| &rank.sum_ms);
    let raw_gib_s = moved_gib_s(args, median_ms(timed, |rank| &rank.raw_ms));
    let sent = timed.iter().map(|rank| rank.udp_bytes).max().unwrap_or(0) as f64;
    Report {
        world: args.world,
        mib: args.mib,
        wire,
        profile: args.profile,
        rounds: args.rounds,
        ms,
        bus_gib_s: least_bytes(args.world, f32_bytes) / (ms / 1e3) / GIB,
        wire_bytes_ratio: sent / f64::from(args.rounds) / least_bytes(args.world, wire_bytes),
        bits_equal: timed.windows(2).all(|pair| pair[0].bits == pair[1].bits),
        error: timed.iter().map(|rank| rank.error).fold(0.0, f64::max),
        raw_gib_s,
        of_raw: moved_gib_s(args, ms) / raw_gib_s,
        shaped: None,
        gloo: None,
    }
}

impl Report {
    /// Sums that differ are none, however fast.
    fn verdict(&self) -> Result<(), ErrorBody> {
        match self.bits_equal {
            true => Ok(()),
            false => Err(ErrorBody::new(
                ErrorClass::Internal,
                "bits_differ",
                "the ranks ended with different sums",
            )),
        }
    }

    fn table(&self) -> String {
        let row = |what: &str, value: String| vec![what.to_owned(), value];
        let format = format!("{} MiB of f32, as {}", self.mib, self.wire);
        let same = if self.bits_equal { "yes" } else { "NO" };
        let mut rows = vec![
            row("ranks", self.world.to_string()),
            row("buffer", format),
            row("a sum, ms (median)", format!("{:.3}", self.ms)),
            row("bus bandwidth, GiB/s", format!("{:.3}", self.bus_gib_s)),
            row("raw QUIC, GiB/s", format!("{:.3}", self.raw_gib_s)),
            row("of that, a sum", format!("{:.2}", self.of_raw)),
            row(
                "bytes over the least",
                format!("{:.4}", self.wire_bytes_ratio),
            ),
            row("same bits", same.into()),
            row("largest error", format!("{:.1e}", self.error)),
        ];
        if let Some(shaped) = &self.shaped {
            let (iperf3, of) = (shaped.iperf3_gbit_s, shaped.of_iperf3);
            rows.push(row("iperf3 both ways, Gbit/s", format!("{iperf3:.3}")));
            rows.push(row("of that, a sum", format!("{of:.3}")));
        }
        if let Some(gloo) = &self.gloo {
            let what = format!("Gloo of PyTorch {}, f32, ms", gloo.pytorch);
            rows.push(row(&what, format!("{:.3}", gloo.f32_ms)));
            rows.push(row("a sum over that", format!("{:.3}", gloo.of_gloo)));
        }
        table(&["measured", "value"], rows)
    }
}

#[cfg(test)]
mod tests {
    use cryptomind_protocol::key::Hash;

    use super::*;
    use crate::cli::bench::WireName;

    fn args(wire: WireName) -> BenchRingArgs {
        BenchRingArgs {
            world: 4,
            mib: 1.0,
            wire,
            profile: RingProfileName::Auto,
            rounds: 3,
            netns: None,
            gloo: None,
        }
    }

    #[test]
    fn figures_follow_from_times_and_bytes() {
        let rank = |sum_ms: [f64; 3], udp_bytes, bits| Timed {
            sum_ms: sum_ms.to_vec(),
            raw_ms: vec![0.5, 1.0, 2.0],
            udp_bytes,
            bits: Hash::new([bits; 32]),
            error: 0.0,
        };
        let timed = [
            rank([1.0, 9.0, 2.0], 3 << 20, 1),
            rank([4.0, 2.0, 2.0], 0, 1),
        ];
        let f32 = report(&args(WireName::F32), &timed);
        // Of 4, 9 and 2 ms; a rank of four moves one and a half times the buffer.
        assert_eq!(f32.ms, 4.0);
        assert!((f32.bus_gib_s - 1.5 / 1024.0 / 4e-3).abs() < 1e-9);
        assert!((f32.wire_bytes_ratio - 1.0 / 1.5).abs() < 1e-9);
        assert!((f32.of_raw - 0.25).abs() < 1e-9);
        assert!(f32.bits_equal && f32.verdict().is_ok());
        let int8 = report(&args(WireName::Int8), &timed);
        assert_eq!(int8.bus_gib_s, f32.bus_gib_s);
        assert!((int8.wire_bytes_ratio - 4.0 / 1.5).abs() < 1e-9);
        assert!((int8.of_raw - 0.25).abs() < 1e-9);
        let torn = [rank([1.0; 3], 0, 1), rank([1.0; 3], 0, 2)];
        assert!(report(&args(WireName::F32), &torn).verdict().is_err());
    }
}
