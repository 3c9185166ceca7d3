//! `miner selftest`: whether this machine can work, whether it computes rightly, how fast it is and how fast it stays.

use std::time::{Duration, Instant};

use anyhow::Result;
use cryptomind_gpu::selftest::{self, Report, Training};
use cryptomind_protocol::ErrorBody;
use tokio::sync::mpsc;

use super::speed;
use crate::cli::SelftestArgs;
use crate::command::check::{Check, Verdict, show, verdict};
use crate::command::{doctor, interruptible};
use crate::context::Context;
use crate::follow::size;
use crate::output::Output;

/// Less speed is kept where a machine grows hot, in millionths.
const KEPT_PPM: u64 = 850_000;
/// Less is hardly ever chosen.
const LEAST_THREADS: usize = 2;
/// Parts of the bar.
const BAR: u64 = 1000;
/// What to do about a machine that computes wrongly.
const WRONG: &str = "this machine computes wrongly: undo its overclocking, test its memory (memtest86+), then run it again";

/// Runs every check and prints it; an error where one is bad.
pub async fn run(context: &Context, args: SelftestArgs) -> Result<()> {
    let output = context.output;
    let mut checks = vec![threads(), doctor::devices(), doctor::folder()];
    interruptible(async {
        checks.extend(doctor::network(context).await);
        Ok(())
    })
    .await?;
    checks.iter().try_for_each(|check| show(output, check))?;
    let challenge = match args.challenge {
        Some(challenge) => challenge,
        None => random()?,
    };
    let endure = Duration::from_secs(args.seconds);
    let report = interruptible(compute(output, challenge, endure)).await?;
    let computed = judge(&report);
    computed.iter().try_for_each(|check| show(output, check))?;
    output.value(&report, || {
        format!(
            "It trains at {}. Once more with the same challenge: cryptomind miner selftest --challenge {challenge}",
            speed(report.mflops())
        )
    })?;
    checks.extend(computed);
    verdict(&checks)
}

fn random() -> Result<u64, ErrorBody> {
    let key = cryptomind_sdk::new_key()?;
    let bytes = key.seed().first_chunk().copied().unwrap_or_default();
    // What JSON of any language holds.
    Ok(u64::from_be_bytes(bytes) >> 11)
}

async fn compute(output: Output, challenge: u64, endure: Duration) -> Result<Report> {
    let bar = output.bar(BAR, "{msg:10} {wide_bar} {percent:>3} %");
    let (said, mut hear) = mpsc::unbounded_channel();
    let work = tokio::task::spawn_blocking(move || {
        let mut last = Instant::now();
        let mut say = |what: &'static str, part: f32| {
            if last.elapsed() > Duration::from_millis(100) || part == 0.0 {
                last = Instant::now();
                // Whoever was interrupted does not look any more.
                let _ = said.send((what, part));
            }
        };
        selftest::run(challenge, endure, &mut say)
    });
    while let Some((what, part)) = hear.recv().await {
        bar.set_message(what);
        bar.set_position((part * BAR as f32) as u64);
    }
    bar.finish_and_clear();
    Ok(work.await?.map_err(ErrorBody::from)?)
}

fn threads() -> Check {
    const NEEDED: &str = "2 or more are chosen more often";
    let found = std::thread::available_parallelism().map_or(1, usize::from);
    let good = if found < LEAST_THREADS {
        Verdict::Notice
    } else {
        Verdict::Good
    };
    Check::new("threads", NEEDED, good, found)
}

/// What the report says, as checks.
fn judge(report: &Report) -> Vec<Check> {
    let sizes = report.products.iter();
    let product = |p: &selftest::Product| format!("{}: {}", p.size, speed(p.mflops));
    let found: Vec<String> = sizes.clone().map(product).collect();
    let products = right(
        "products",
        "equal to what Freivalds' check says",
        sizes.clone().all(|product| product.right),
        found.join(", "),
    );
    let runs = report.trainings.iter();
    let loss = |t: &Training| format!("{} {:.3} ({} to {})", t.model, t.loss, t.band.0, t.band.1);
    let found: Vec<String> = runs.clone().map(loss).collect();
    let training = right(
        "training",
        "losses within the band of other machines",
        runs.clone().all(Training::is_right),
        found.join(", "),
    );
    let memory = Check::new(
        "bandwidth",
        "measured",
        Verdict::Good,
        format!(
            "{} read and written a second",
            size(report.copy_bytes_per_s)
        ),
    );
    vec![products, memory, training, endurance(report)]
}

fn right(name: &'static str, needed: &'static str, is_right: bool, found: String) -> Check {
    match is_right {
        true => Check::new(name, needed, Verdict::Good, found),
        false => Check::new(name, needed, Verdict::Bad, found).remedy(WRONG),
    }
}

fn endurance(report: &Report) -> Check {
    const NEEDED: &str = "85 % of the first quarter's speed in the last one";
    let endurance = &report.endurance;
    let found = format!(
        "{} at first, {} after {} s",
        speed(endurance.first_mflops),
        speed(endurance.last_mflops),
        endurance.ms / 1000
    );
    if endurance.kept_ppm() >= KEPT_PPM {
        return Check::new("endurance", NEEDED, Verdict::Good, found);
    }
    Check::new("endurance", NEEDED, Verdict::Notice, found).remedy(
        "it grows hot, or something else runs on it: cool it better, or give fewer threads (compute.threads in miner.toml)",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use cryptomind_gpu::selftest::{Endurance, Product};

    fn report() -> Report {
        Report {
            challenge: 1,
            products: vec![Product {
                size: 128,
                mflops: 20_000,
                right: true,
            }],
            copy_bytes_per_s: 10 << 30,
            trainings: vec![Training {
                model: "linear",
                loss: 0.2,
                band: (0.1, 0.3),
            }],
            endurance: Endurance {
                ms: 60_000,
                first_mflops: 10_000,
                last_mflops: 9_000,
            },
        }
    }

    #[test]
    fn whatever_is_wrong_says_what_to_do() {
        let good = judge(&report());
        assert!(
            good.iter().all(|check| check.verdict == Verdict::Good),
            "{good:?}"
        );
        let (mut product, mut loss, mut hot) = (report(), report(), report());
        product.products[0].right = false;
        loss.trainings[0].loss = f32::NAN;
        hot.endurance.last_mflops = 8_000;
        for (report, name, verdict) in [
            (product, "products", Verdict::Bad),
            (loss, "training", Verdict::Bad),
            (hot, "endurance", Verdict::Notice),
        ] {
            let checks = judge(&report);
            let odd: Vec<_> = checks
                .iter()
                .filter(|c| c.verdict != Verdict::Good)
                .collect();
            assert_eq!((odd[0].name, odd[0].verdict), (name, verdict));
            assert!(odd.len() == 1 && odd[0].remedy.is_some());
        }
    }
}
