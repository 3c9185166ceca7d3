//! `bench scale`: how much faster a group trains than one miner, each member a process of its own that is tied to a core of its
//! own.
//!
//! Training and ring are those of miners: the training thread, QUIC, gradients that leave during the backward pass. The global batch is
//! the same however many members share it. The baseline is one miner alone, measured the same way in turn with the groups, as the
//! speed of a machine changes from minute to minute.

use std::path::{Path, PathBuf};

use anyhow::Result;
use cryptomind_protocol::ErrorBody;
use cryptomind_protocol::ring::Wire;
use serde::Serialize;
use tokio::process::Command;

use super::cores;
use super::netns::Namespaces;
use super::rank::{self, Rank};
use super::shapes::Shape;
use crate::cli::bench::{BenchScaleArgs, RankArgs, TrainedModel};
use crate::exit;
use crate::output::Output;
use member::{Order, Step, Timed};
use text::Text;

mod member;
mod text;

/// What starts a rank.
const COMMAND: &str = "scale-member";

/// What was measured of a group; one JSON object.
#[derive(Debug, Serialize)]
struct Report {
    world: usize,
    model: &'static str,
    wire: Wire,
    /// Of the link between two members each way, Gbit/s; nothing within the machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    link_gbit_s: Option<f64>,
    /// Of a member, all on its one core.
    threads: usize,
    /// Samples of a step, over the group.
    global_batch: u32,
    /// Steps of a run that were timed.
    steps: u32,
    runs: usize,
    /// A step of the slowest member, milliseconds: of each run the median, of these the median.
    ms_per_step: f64,
    /// At the median.
    samples_per_s: f64,
    /// Over one miner alone in the same turn: the median of the runs, the least and the most.
    speedup: f64,
    speedup_least: f64,
    speedup_most: f64,
    /// The same of as many processes that compute as much at the same time, and exchange nothing: more than that this machine does not
    /// give. The median of the runs.
    ceiling: f64,
    /// What a member computes of a step, milliseconds, and the share of it in which it waits for the ring: medians over all steps.
    compute_ms: f64,
    ring_share: f64,
}

/// Runs the benchmark.
pub async fn run(output: Output, args: BenchScaleArgs) -> Result<()> {
    let reports = tokio::select! {
        measured = measure(output, args) => measured?,
        // The processes and the namespaces go with what measures.
        _ = tokio::signal::ctrl_c() => return Err(exit::interrupted("interrupted").into()),
    };
    output.rows(&reports, &Report::HEADER, Report::cells, "")?;
    Ok(())
}

/// One rank, in this process: told on standard input what to do, and telling on standard output what it measured.
pub async fn member(args: RankArgs) -> Result<()> {
    Ok(member::run(args).await?)
}

/// What is trained.
fn shape() -> Shape {
    Shape::of(TrainedModel::Gpt)
}

/// The group's sizes, ascending: with one alone, to compare them with.
fn worlds(args: &BenchScaleArgs) -> Vec<usize> {
    let mut worlds = args.worlds.clone();
    worlds.push(1);
    worlds.sort_unstable();
    worlds.dedup();
    worlds
}

async fn measure(output: Output, args: BenchScaleArgs) -> Result<Vec<Report>, ErrorBody> {
    let worlds = worlds(&args);
    let place = Place::new(&args, &worlds)?;
    let text = Text::write(&shape())?;
    let mut measured: Vec<Vec<Run>> = worlds.iter().map(|_| Vec::new()).collect();
    let mut apart: Vec<Vec<Run>> = worlds.iter().map(|_| Vec::new()).collect();
    for turn in 1..=args.runs {
        let groups = worlds.iter().zip(measured.iter_mut().zip(&mut apart));
        for (world, (together, apart)) in groups {
            // A file that fails to be written is no reason to stop.
            let _ = output.note(format!("turn {turn} of {}: {world} …", args.runs));
            for (is_apart, runs) in [(false, together), (true, apart)] {
                let mut ranks = place.start(*world)?;
                let order = |addresses| Order {
                    addresses,
                    is_apart,
                    text: text.path().to_owned(),
                    wire: args.wire.into(),
                    steps: args.steps,
                };
                runs.push(Run(rank::ask(&mut ranks, order).await?));
                agree(runs)?;
            }
        }
    }
    let alone: Vec<f64> = measured[0].iter().map(Run::ms_per_step).collect();
    let groups = worlds.into_iter().zip(measured.iter().zip(&apart));
    Ok(groups
        .map(|(world, runs)| report(&args, world, runs, &alone))
        .collect())
}

/// Where members run.
struct Place {
    program: PathBuf,
    cores: Vec<usize>,
    link: Option<Namespaces>,
}

impl Place {
    fn new(args: &BenchScaleArgs, worlds: &[usize]) -> Result<Self, ErrorBody> {
        let program = std::env::current_exe();
        let program = program.map_err(|e| exit::file(Path::new("cryptomind"), &e))?;
        let cores = cores::usable()?;
        let largest = worlds.iter().copied().max().unwrap_or(1);
        enough(largest, cores.len())?;
        let link = match args.netns {
            Some(_) if largest > 2 => {
                let message = "two namespaces are one link, of two members";
                return Err(
                    ErrorBody::user("wrong_world", message).with_help("leave --worlds at 1,2")
                );
            }
            Some(rate) => Some(Namespaces::new(rate)?),
            None => None,
        };
        Ok(Self {
            program,
            cores,
            link,
        })
    }

    fn start(&self, world: usize) -> Result<Vec<Rank>, ErrorBody> {
        let start = |(rank, core): (usize, &usize)| {
            cores::on(*core, || match &self.link {
                Some(link) => {
                    let program = link.command(rank, &self.program);
                    Rank::start(rank, link.address(rank), COMMAND, program)
                }
                None => {
                    let program = Command::new(&self.program);
                    Rank::start(rank, [127, 0, 0, 1].into(), COMMAND, program)
                }
            })
        };
        self.cores
            .iter()
            .take(world)
            .enumerate()
            .map(start)
            .collect()
    }
}

fn enough(members: usize, cores: usize) -> Result<(), ErrorBody> {
    if members <= cores {
        return Ok(());
    }
    let message = format!("{members} members take a core each, and this process may use {cores}");
    Err(ErrorBody::user("too_few_cores", message)
        .with_help("name smaller groups with --worlds, or measure on a machine with more cores"))
}

/// What the members of a group measured in one run.
struct Run(Vec<Timed>);

impl Run {
    /// Of the slowest member in each step.
    fn ms_per_step(&self) -> f64 {
        let count = self.0.iter().map(|member| member.steps.len()).min();
        let slowest = |step: usize| {
            let times = self.0.iter().map(|member| member.steps[step].wall_ms);
            times.fold(0.0, f64::max)
        };
        median((0..count.unwrap_or(0)).map(slowest))
    }
}

/// The same work ends in the same bits, run after run.
fn agree(runs: &[Run]) -> Result<(), ErrorBody> {
    let members = runs.iter().flat_map(|run| &run.0);
    super::member::agree(members.map(|member| &member.fingerprint))
}

/// Of a group's runs, and of the same members' apart.
fn report(
    args: &BenchScaleArgs,
    world: usize,
    (runs, apart): (&Vec<Run>, &Vec<Run>),
    alone: &[f64],
) -> Report {
    let shape = shape();
    let ms_per_step = median(runs.iter().map(Run::ms_per_step));
    let over = |runs: &Vec<Run>| {
        let pairs = alone.iter().zip(runs);
        let each = pairs.map(|(alone, run)| alone / run.ms_per_step());
        each.collect::<Vec<_>>()
    };
    let speedups = || over(runs).into_iter();
    let steps = || {
        runs.iter()
            .flat_map(|run| &run.0)
            .flat_map(|member| &member.steps)
    };
    let waited = |step: &Step| 1.0 - step.compute_ms / step.wall_ms;
    Report {
        world,
        model: shape.name,
        wire: args.wire.into(),
        link_gbit_s: args.netns.map(|rate| rate.gbit_s()),
        threads: 1,
        global_batch: shape.batch,
        steps: args.steps,
        runs: runs.len(),
        ms_per_step,
        samples_per_s: f64::from(shape.batch) / ms_per_step * 1e3,
        speedup: median(speedups()),
        speedup_least: speedups().fold(f64::INFINITY, f64::min),
        speedup_most: speedups().fold(0.0, f64::max),
        ceiling: median(over(apart).into_iter()),
        compute_ms: median(steps().map(|step| step.compute_ms)),
        ring_share: median(steps().map(waited)),
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

impl Report {
    const HEADER: [&str; 7] = [
        "members",
        "a step, ms (median)",
        "times one alone",
        "from – to",
        "without exchange",
        "computing, ms",
        "waiting for the ring",
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            self.world.to_string(),
            format!("{:.2}", self.ms_per_step),
            format!("{:.2}", self.speedup),
            format!("{:.2} – {:.2}", self.speedup_least, self.speedup_most),
            format!("{:.2}", self.ceiling),
            format!("{:.2}", self.compute_ms),
            format!("{:.1} %", self.ring_share * 100.0),
        ]
    }
}

#[cfg(test)]
mod tests {
    use cryptomind_protocol::key::Hash;

    use super::*;
    use crate::cli::bench::WireName;

    fn args(worlds: &[usize]) -> BenchScaleArgs {
        BenchScaleArgs {
            worlds: worlds.to_vec(),
            wire: WireName::F32,
            steps: 3,
            runs: 2,
            netns: None,
        }
    }

    fn timed(walls: [f64; 3], compute_ms: f64, state: u8) -> Timed {
        let step = |wall_ms| Step {
            wall_ms,
            compute_ms,
        };
        Timed {
            steps: walls.map(step).to_vec(),
            fingerprint: Hash::new([state; 32]),
        }
    }

    #[test]
    fn figures_follow_from_the_slowest_members_of_runs_in_turn() {
        // Of 6, 9 and 8 ms, then of 4 ms.
        let runs = vec![
            Run(vec![
                timed([6.0, 9.0, 2.0], 2.0, 1),
                timed([4.0, 4.0, 8.0], 2.0, 1),
            ]),
            Run(vec![timed([4.0; 3], 2.0, 1), timed([4.0; 3], 2.0, 1)]),
        ];
        let apart = vec![
            Run(vec![timed([6.0; 3], 6.0, 1), timed([5.0; 3], 5.0, 1)]),
            Run(vec![timed([4.0; 3], 4.0, 1), timed([4.0; 3], 4.0, 1)]),
        ];
        let report = report(&args(&[2]), 2, (&runs, &apart), &[12.0, 10.0]);
        assert_eq!(report.ceiling, 2.5, "of 2.0 and 2.5");
        assert_eq!(report.ms_per_step, 8.0);
        assert_eq!((report.speedup_least, report.speedup_most), (1.5, 2.5));
        assert_eq!((report.compute_ms, report.ring_share), (2.0, 0.5));
        assert_eq!(report.samples_per_s, 2000.0);
        assert!(agree(&runs).is_ok());
        let torn = [Run(vec![timed([1.0; 3], 1.0, 1), timed([1.0; 3], 1.0, 2)])];
        assert_eq!(agree(&torn).unwrap_err().code, "states_differ");
    }

    #[test]
    fn one_alone_is_always_measured_and_each_member_has_a_core() {
        assert_eq!(worlds(&args(&[4, 2, 4])), [1, 2, 4]);
        assert!(enough(2, 2).is_ok());
        let refused = enough(3, 2).unwrap_err();
        assert_eq!(refused.code, "too_few_cores");
        assert!(refused.help.is_some());
    }
}
