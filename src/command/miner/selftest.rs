//! `miner selftest`: whether this machine can work, whether it computes rightly, how fast it is and how fast it stays.
//!
//! Where a miner is configured here, it is that miner which is tested, and its report is kept: it joins with it.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Result;
use cryptomind_actors::miner::selftest as kept;
use cryptomind_config::{Layers, Miner, Settings, key, load};
use cryptomind_gpu::selftest::{self, Extent};
use cryptomind_protocol::selftest::{Product, Training, Work};
use cryptomind_protocol::{ErrorBody, NodeId};
use tokio::sync::mpsc;

use super::speed;
use crate::cli::SelftestArgs;
use crate::command::check::{Check, Verdict, show, verdict};
use crate::command::{doctor, interruptible};
use crate::context::Context;
use crate::follow::size;
use crate::output::Output;
use crate::{exit, roles};

mod reach;

/// Less speed is kept where a machine grows hot, in millionths.
const KEPT_PPM: u64 = 850_000;
/// Less is hardly ever chosen.
const LEAST_THREADS: usize = 2;
/// Less is too little for many tasks, bytes.
const LEAST_MEMORY: u64 = 2 << 30;
/// Parts of the bar.
const BAR: u64 = 1000;
/// What to do about a machine that computes wrongly.
const WRONG: &str = "this machine computes wrongly: undo its overclocking, test its memory (memtest86+), then run it again";

/// Runs every check and prints it; an error where one is bad.
pub async fn run(context: &Context, args: SelftestArgs) -> Result<()> {
    let output = context.output;
    let miner = configured(args.miner.clone())?;
    let extent = Extent {
        endure: Duration::from_secs(args.seconds),
        threads: threads_of(miner.as_ref()),
        memory: kept::fill_bytes(miner.as_ref().and_then(|miner| miner.compute.max_memory)),
    };
    let settings = miner.as_ref();
    let folder = settings.map_or_else(doctor::folder, |miner| doctor::room(&miner.node.data_dir));
    let mut checks = vec![
        threads(extent.threads),
        memory(settings),
        doctor::devices(),
        folder,
    ];
    checks.extend(interruptible(async { Ok(network(context, settings).await) }).await?);
    checks.iter().try_for_each(|check| show(output, check))?;
    let challenge = args.challenge.map_or_else(kept::challenge, Ok)?;
    let work = interruptible(compute(output, challenge, extent)).await?;
    let mut computed = judge(&work);
    output.value(&work, || {
        format!(
            "It trains at {}. Once more with the same challenge: cryptomind miner selftest --challenge {challenge}",
            speed(work.mflops())
        )
    })?;
    computed.extend(miner.map(|miner| keep(&miner, extent.threads, work)));
    computed.iter().try_for_each(|check| show(output, check))?;
    checks.extend(computed);
    verdict(&checks)
}

/// The way to the coordinator and back, and its clock.
async fn network(context: &Context, miner: Option<&Miner>) -> Vec<Check> {
    let named = miner.map_or_else(
        || context.coordinator(),
        |miner| Ok(miner.coordinator.clone()),
    );
    let (mut checks, client) = doctor::reach(context, named.clone()).await;
    if let (Some(client), Ok(coordinator)) = (client, named) {
        checks.extend(reach::checks(&client, coordinator.node, miner).await);
        client.close().await;
    }
    checks
}

/// The settings of the miner that is named, or of the one that was joined by hand on this machine.
fn configured(file: Option<PathBuf>) -> Result<Option<Miner>, ErrorBody> {
    let by_hand = || {
        let file = roles::default_dir("miner")?.join(Miner::FILE_NAME);
        file.exists().then_some(file)
    };
    let Some(file) = file.or_else(by_hand) else {
        return Ok(None);
    };
    Ok(Some(load(&Layers::of_process(Some(file)))?.value))
}

fn threads_of(miner: Option<&Miner>) -> usize {
    let all = || std::thread::available_parallelism().map_or(1, usize::from);
    miner.map_or_else(all, kept::threads)
}

/// Keeps the report where that miner looks for it when it starts.
fn keep(miner: &Miner, threads: usize, work: Work) -> Check {
    const NAME: &str = "report";
    const NEEDED: &str = "kept for the miner, which joins with it";
    let file = kept::file(miner);
    match kept_for(miner, &file, threads, work) {
        Ok(()) => Check::new(NAME, NEEDED, Verdict::Good, file.display()),
        Err(error) => {
            let check = Check::new(NAME, NEEDED, Verdict::Notice, &error.message);
            check.remedy("run it as the user that the miner runs as; or leave it: the miner takes a short test itself when it starts")
        }
    }
}

fn kept_for(
    miner: &Miner,
    file: &std::path::Path,
    threads: usize,
    work: Work,
) -> Result<(), ErrorBody> {
    let seed = *cryptomind_sdk::new_key()?.seed();
    let key = key::read_or_create(&miner.node.key_file, seed)?;
    let node = NodeId::of_key(&key.public());
    let report = kept::report(node, kept::machine(threads), work);
    kept::keep(file, &report).map_err(|error| exit::file(file, &error))
}

async fn compute(output: Output, challenge: u64, extent: Extent) -> Result<Work> {
    let bar = output.bar(BAR, "{msg:10} {wide_bar} {percent:>3} %");
    let (said, mut hear) = mpsc::unbounded_channel();
    let work = tokio::task::spawn_blocking(move || {
        let mut last = Instant::now();
        let mut say = |what: &'static str, part: f32| {
            if last.elapsed() > Duration::from_millis(100) || part == 0.0 {
                last = Instant::now();
                // Whoever was interrupted does not look any more.
                if said.send((what, part)).is_err() {
                    return ControlFlow::Break(());
                }
            }
            ControlFlow::Continue(())
        };
        selftest::run(challenge, extent, &mut say)
    });
    while let Some((what, part)) = hear.recv().await {
        bar.set_message(what);
        bar.set_position((part * BAR as f32) as u64);
    }
    bar.finish_and_clear();
    Ok(work.await?.map_err(ErrorBody::from)?)
}

fn memory(miner: Option<&Miner>) -> Check {
    const NEEDED: &str = "2 GiB free: tasks that do not fit are declined";
    let most = miner.and_then(|miner| miner.compute.max_memory);
    let Some(bytes) = kept::free_memory(most) else {
        return Check::new(
            "memory",
            NEEDED,
            Verdict::Notice,
            "this system does not say",
        )
        .remedy("set compute.max_memory in miner.toml");
    };
    let check = |verdict| Check::new("memory", NEEDED, verdict, size(bytes));
    if bytes >= LEAST_MEMORY {
        return check(Verdict::Good);
    }
    check(Verdict::Notice).remedy("stop other programs, or raise compute.max_memory in miner.toml")
}

fn threads(found: usize) -> Check {
    const NEEDED: &str = "2 or more are chosen more often";
    if found >= LEAST_THREADS {
        return Check::new("threads", NEEDED, Verdict::Good, found);
    }
    Check::new("threads", NEEDED, Verdict::Notice, found)
        .remedy("give it more where the machine has them: compute.threads in miner.toml, 0 is all")
}

/// What the report says, as checks.
fn judge(report: &Work) -> Vec<Check> {
    let sizes = report.products.iter();
    let product = |p: &Product| format!("{}: {}", p.size, speed(p.mflops));
    let found: Vec<String> = sizes.clone().map(product).collect();
    let products = right(
        "products",
        "equal to what Freivalds' check says",
        sizes.clone().all(|product| product.right),
        found.join(", "),
    );
    let runs = report.trainings.iter();
    let loss = |t: &Training| match t.band() {
        Some((least, most)) => format!("{} {:.3} ({least} to {most})", t.model, t.loss),
        None => format!("{} {:.3}", t.model, t.loss),
    };
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
    let filled = &report.filled;
    let found = format!(
        "{} filled in {:.1} s",
        size(filled.bytes),
        filled.ms as f64 / 1e3
    );
    let remembers = right(
        "filled",
        "four fifths of what is free, read back as it was written: no more is offered",
        filled.right,
        found,
    );
    let steps = report.paces.iter().map(|pace| {
        let millions = pace.step.flops as f64 / 1e6;
        format!("{millions:.1}M: {}", speed(pace.mflops()))
    });
    let found: Vec<String> = steps.collect();
    let paces = Check::new("paces", "measured", Verdict::Good, found.join(", "));
    vec![
        products,
        memory,
        remembers,
        training,
        paces,
        endurance(report),
        determinism(report),
    ]
}

fn determinism(report: &Work) -> Check {
    let class = report.determinism_class;
    let found = class.map_or_else(|| "other bits".into(), |class| format!("class {class}"));
    right(
        "bits",
        "the same on one thread as on all, after the heat",
        class.is_some(),
        found,
    )
}

fn right(name: &'static str, needed: &'static str, is_right: bool, found: String) -> Check {
    match is_right {
        true => Check::new(name, needed, Verdict::Good, found),
        false => Check::new(name, needed, Verdict::Bad, found).remedy(WRONG),
    }
}

fn endurance(report: &Work) -> Check {
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
    use cryptomind_protocol::key::Hash;
    use cryptomind_protocol::selftest::{Endurance, Filled};

    fn report() -> Work {
        Work {
            challenge: 1,
            products: vec![Product {
                size: 128,
                mflops: 20_000,
                right: true,
            }],
            copy_bytes_per_s: 10 << 30,
            filled: Filled {
                wanted: 4 << 30,
                bytes: 4 << 30,
                ms: 2_000,
                right: true,
            },
            trainings: vec![Training {
                model: "linear".into(),
                loss: 0.35,
            }],
            paces: Vec::new(),
            endurance: Endurance {
                ms: 60_000,
                first_mflops: 10_000,
                last_mflops: 9_000,
            },
            determinism_class: Some(Hash::new([7; 32])),
        }
    }

    #[test]
    fn whatever_is_wrong_says_what_to_do() {
        let good = judge(&report());
        assert!(
            good.iter().all(|check| check.verdict == Verdict::Good),
            "{good:?}"
        );
        let (mut product, mut memory, mut loss, mut hot) = (report(), report(), report(), report());
        let mut bits = report();
        bits.determinism_class = None;
        memory.filled.right = false;
        product.products[0].right = false;
        loss.trainings[0].loss = f32::NAN;
        hot.endurance.last_mflops = 8_000;
        for (report, name, verdict) in [
            (product, "products", Verdict::Bad),
            (memory, "filled", Verdict::Bad),
            (loss, "training", Verdict::Bad),
            (hot, "endurance", Verdict::Notice),
            (bits, "bits", Verdict::Bad),
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
