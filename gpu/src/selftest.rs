//! The self-test: what a machine does with a challenge, whether it does it right, and how fast it stays.
//!
//! Its parts, the first three from a challenge that nobody can answer beforehand:
//!
//! - **products** of several sizes, each checked by Freivalds' method (1979): for random x, A·(B·x) is C·x. That takes n²
//!   steps where the product took n³, and finds what is wrong by more than rounding in all but a few of many challenges;
//! - **training**: three small models learn a rule that the challenge draws, and their loss must fall into the band that other
//!   machines reach, whatever the challenge; so a wrong gradient, a wrong exp or memory that forgets shows;
//! - **memory**: as much as the machine claims is filled with what follows from the challenge, and read back;
//! - **paces**: how fast it trains in steps of several sizes;
//! - **endurance**: steps of a fixed model for as long as is asked for, whose speed at the end shows throttling.
//!
//! Not here: cores, disks and networks; what is concluded from it.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use cryptomind_protocol::model::{Layer, Loss, ModelSpec};
use cryptomind_protocol::selftest::{BANDS, Endurance, Product, Training, Work};
use cryptomind_protocol::task::{Optimizer, TrainSpec};

use crate::bench::{ENDURANCE, PACES, Stepper, mflops, pace};
use crate::dataset::Samples;
use crate::determinism;
use crate::error::EngineError;
use crate::filling::fill;
use crate::inference::most_probable;
use crate::product::{Matrix, Update, multiply};
use crate::random::Stream;
use crate::session::Session;

/// Rows and columns of the products: within a cache, beyond it, and no power of two.
const SIZES: [usize; 3] = [128, 515, 1024];
const PRODUCTS: &str = "cryptomind selftest product/1";
/// A sum of n products of numbers below 1 is off by less than this times n in f32: some times what is seen.
const TOLERANCE: f64 = 2e-6;
const RULES: &str = "cryptomind selftest rule/1";
/// Values of a sample, classes, samples.
const INPUTS: usize = 32;
const CLASSES: usize = 4;
const SAMPLES: usize = 1024;
/// Samples a step, and steps.
const BATCH: usize = 64;
const STEPS: usize = 200;
/// Of so many steps the mean loss is looked at, the last ones.
const JUDGED: usize = 32;
/// Bytes that are copied to measure memory.
const COPIED: usize = 64 << 20;
/// For so long speed is measured in steps of each size.
const PACE: Duration = Duration::from_millis(400);
/// The shortest form fills no more memory than this, bytes.
const SHORTEST_FILLED: u64 = 1 << 30;
const SHORTEST_PACE: Duration = Duration::from_millis(20);
/// The least time that speed is measured for.
const SHORTEST: Duration = Duration::from_millis(200);

/// How much of a self-test is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// For how long it trains to see whether it slows down. Zero is the shortest form: the large product is left out, and
    /// speeds are measured for moments.
    pub endure: Duration,
    /// Threads to compute with.
    pub threads: usize,
    /// Memory to fill, bytes: what the machine will claim.
    pub memory: u64,
}

impl Extent {
    const fn is_shortest(&self) -> bool {
        self.endure.is_zero()
    }

    fn sizes(&self) -> &'static [usize] {
        &SIZES[..if self.is_shortest() { 2 } else { 3 }]
    }

    /// How much memory is filled at most, bytes.
    pub const fn filled(&self) -> u64 {
        if self.is_shortest() && self.memory > SHORTEST_FILLED {
            SHORTEST_FILLED
        } else {
            self.memory
        }
    }

    const fn copied(&self) -> usize {
        if self.is_shortest() {
            COPIED / 8
        } else {
            COPIED
        }
    }

    /// For how long speed is measured in steps of each size.
    const fn pace(&self) -> Duration {
        if self.is_shortest() {
            SHORTEST_PACE
        } else {
            PACE
        }
    }

    fn endure(&self) -> Duration {
        self.endure.max(SHORTEST)
    }
}

/// Hears what is done and how much of it, and says whether to go on.
pub type Progress<'a> = &'a mut dyn FnMut(&'static str, f32) -> ControlFlow<()>;

/// Takes a challenge; steps for as long as is asked for, the rest takes seconds.
///
/// # Errors
/// What an engine refuses, and [`EngineError::Stopped`] where `say` breaks off.
pub fn run(challenge: u64, extent: Extent, say: Progress<'_>) -> Result<Work, EngineError> {
    let mut say = |what, part| match say(what, part) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(EngineError::Stopped),
    };
    let part = |at: usize, of: usize| at as f32 / of as f32;
    let (threads, sizes) = (extent.threads, extent.sizes());
    let mut products = Vec::new();
    for (at, size) in sizes.iter().enumerate() {
        say("products", part(at, sizes.len()))?;
        products.push(product(challenge, *size, threads));
    }
    say("memory", 0.0)?;
    let copy_bytes_per_s = copy(extent.copied());
    let filled = fill(challenge, extent.filled(), threads, &mut |part| {
        say("memory", part)
    })?;
    let samples = rule(challenge);
    let mut trainings = Vec::new();
    for (at, (model, layers)) in models().into_iter().enumerate() {
        say("training", part(at, 3))?;
        let loss = train(challenge, layers, &samples, threads)?;
        let model = model.to_owned();
        trainings.push(Training { model, loss });
    }
    let mut paces = Vec::new();
    for (at, shape) in PACES.into_iter().enumerate() {
        say("paces", part(at, PACES.len()))?;
        paces.push(pace(shape, threads, extent.pace())?);
    }
    let endurance = endured(extent.endure(), threads, &mut |done| say("endurance", done))?;
    // After the machine grew hot: one that is not sound shows it now.
    let class = determinism::class(threads)?;
    let determinism_class = (class == determinism::class(1)?).then_some(class);
    Ok(Work {
        challenge,
        products,
        copy_bytes_per_s,
        filled,
        trainings,
        paces,
        endurance,
        determinism_class,
    })
}

fn product(challenge: u64, size: usize, threads: usize) -> Product {
    let matrix = |name: &str| -> Vec<f32> {
        let mut stream = Stream::new(PRODUCTS, challenge, &format!("{name}{size}"));
        (0..size * size).map(|_| stream.signed_unit()).collect()
    };
    let (a, b) = (matrix("a"), matrix("b"));
    let mut c = vec![0.0; size * size];
    let whole = |values| Matrix::new(values, size, size);
    let mut times = [0, 1, 2].map(|_| {
        let begin = Instant::now();
        multiply(&mut c, Update::Replace, whole(&a), whole(&b), threads);
        begin.elapsed()
    });
    times.sort_unstable();
    let x = matrix("x");
    Product {
        size: size as u32,
        mflops: mflops(2 * (size as u128).pow(3), times[1]),
        right: is_product(&a, &b, &c, &x[..size]),
    }
}

/// Freivalds' check of C = A·B with this x, in f64.
fn is_product(a: &[f32], b: &[f32], c: &[f32], x: &[f32]) -> bool {
    let size = x.len();
    let times = |m: &[f32], x: &[f64]| -> Vec<f64> {
        let row = |row: &[f32]| row.iter().zip(x).map(|(v, x)| f64::from(*v) * x).sum();
        m.chunks_exact(size).map(row).collect()
    };
    let x: Vec<f64> = x.iter().map(|v| f64::from(*v)).collect();
    let expected = times(a, &times(b, &x));
    let found = times(c, &x);
    let limit = TOLERANCE * size as f64;
    // What is not a number is not within the limit either.
    expected
        .iter()
        .zip(&found)
        .all(|(e, f)| (e - f).abs() < limit)
}

/// The best of three: what the memory can, not what others left of it.
fn copy(bytes: usize) -> u64 {
    let from = vec![1u8; bytes];
    let mut to = vec![0u8; bytes];
    let times = [0, 1, 2].map(|_| {
        let begin = Instant::now();
        to.copy_from_slice(std::hint::black_box(&from));
        std::hint::black_box(&mut to);
        begin.elapsed()
    });
    let best = times
        .into_iter()
        .min()
        .unwrap_or_default()
        .as_nanos()
        .max(1);
    // Read and written.
    u64::try_from(2 * bytes as u128 * 1_000_000_000 / best).unwrap_or(u64::MAX)
}

/// Random samples, each of the class whose direction it is nearest to.
fn rule(challenge: u64) -> Samples {
    let mut stream = Stream::new(RULES, challenge, "");
    let mut values =
        |count: usize| -> Vec<f32> { (0..count).map(|_| stream.signed_unit()).collect() };
    let (directions, inputs) = (values(CLASSES * INPUTS), values(SAMPLES * INPUTS));
    let label = |sample: &[f32]| {
        let along =
            |direction: &[f32]| -> f32 { direction.iter().zip(sample).map(|(d, v)| d * v).sum() };
        let scores: Vec<f32> = directions.chunks_exact(INPUTS).map(along).collect();
        most_probable(&scores) as u32
    };
    let labels = inputs.chunks_exact(INPUTS).map(label).collect();
    Samples::labelled(inputs, labels, INPUTS, CLASSES)
}

/// Name and layers: those of [`BANDS`], in its order.
fn models() -> [(&'static str, Vec<Layer>); 3] {
    let linear = |out: usize| Layer::linear(out as u32);
    let hidden = |between: Layer| vec![linear(64), between, linear(CLASSES)];
    let layers = [
        vec![linear(CLASSES)],
        hidden(Layer::Relu {}),
        hidden(Layer::Tanh {}),
    ];
    let mut names = BANDS.into_iter().map(|(name, _)| name);
    layers.map(|layers| (names.next().unwrap_or_default(), layers))
}

fn train(
    challenge: u64,
    layers: Vec<Layer>,
    samples: &Samples,
    threads: usize,
) -> Result<f32, EngineError> {
    let model = ModelSpec {
        input: vec![INPUTS as u32],
        layers,
        loss: Loss::default(),
    };
    let train = TrainSpec {
        epochs: 1,
        global_batch: BATCH as u32,
        optimizer: Optimizer::adamw(1e-2),
        seed: challenge,
        checkpoint_steps: STEPS as u32,
        ..TrainSpec::default()
    };
    let mut session = Session::with_threads(&model, &train, threads)?;
    let mut judged = 0.0;
    for step in 0..STEPS {
        let first = step * BATCH % SAMPLES;
        let batch: Vec<u32> = (first as u32..(first + BATCH) as u32).collect();
        let loss = session.grad_step(samples, &batch, &mut |_| ())?;
        session.apply(BATCH as u32)?;
        session.commit();
        if step >= STEPS - JUDGED {
            judged += loss / BATCH as f64;
        }
    }
    Ok((judged / JUDGED as f64) as f32)
}

fn endured(
    limit: Duration,
    threads: usize,
    say: &mut dyn FnMut(f32) -> Result<(), EngineError>,
) -> Result<Endurance, EngineError> {
    let mut stepper = Stepper::new(ENDURANCE, threads)?;
    stepper.step()?;
    let (start, mut steps) = (Instant::now(), Vec::new());
    // One step at least in each quarter.
    while start.elapsed() < limit || steps.len() < 4 {
        let took = stepper.step()?.whole();
        steps.push((start.elapsed(), took));
        say((start.elapsed().as_secs_f32() / limit.as_secs_f32()).min(1.0))?;
    }
    let whole = start.elapsed();
    let quarter = |range: std::ops::Range<u32>| {
        let within = |at: Duration| at * 4 > whole * range.start && at * 4 <= whole * range.end;
        let times = steps.iter().filter(|(at, _)| within(*at));
        let mut times: Vec<Duration> = times.map(|(_, took)| *took).collect();
        times.sort_unstable();
        // A step may be longer than a quarter.
        let took = times
            .get(times.len() / 2)
            .copied()
            .unwrap_or(whole / steps.len() as u32);
        mflops(stepper.flops(), took)
    };
    Ok(Endurance {
        ms: whole.as_millis() as u64,
        first_mflops: quarter(0..1),
        last_mflops: quarter(3..4),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Extent = Extent {
        endure: Duration::ZERO,
        threads: 1,
        memory: 64 << 20,
    };

    #[test]
    fn a_product_is_told_from_what_is_none() {
        let size = 65;
        let mut stream = Stream::new("test", 1, "");
        let mut matrix =
            || -> Vec<f32> { (0..size * size).map(|_| stream.signed_unit()).collect() };
        let (a, b, x) = (matrix(), matrix(), matrix());
        let mut c = vec![0.0; size * size];
        let whole = |values| Matrix::new(values, size, size);
        multiply(&mut c, Update::Replace, whole(&a), whole(&b), 1);
        assert!(is_product(&a, &b, &c, &x[..size]));
        for at in [0, 7, size * size - 1] {
            for wrong in [c[at] + 0.5, f32::NAN, f32::INFINITY] {
                let mut c = c.clone();
                c[at] = wrong;
                assert!(!is_product(&a, &b, &c, &x[..size]), "{wrong} at {at}");
            }
        }
        let other = is_product(&b, &a, &c, &x[..size]);
        assert!(!other, "products do not commute");
    }

    /// The bands are those of 200 challenges, and half as wide again on either side.
    #[test]
    fn whatever_the_challenge_the_loss_is_in_its_band() {
        for ((model, layers), (_, band)) in models().into_iter().zip(BANDS) {
            let of = |challenge| train(challenge, layers.clone(), &rule(challenge), 1).unwrap();
            let losses: Vec<f32> = (0..200).map(of).collect();
            let least = losses.iter().copied().fold(f32::MAX, f32::min);
            let most = losses.iter().copied().fold(f32::MIN, f32::max);
            let slack = (most - least) / 2.0;
            assert!(
                (band.0 - (least - slack).max(0.0)).abs() < slack / 4.0,
                "{model}: {least} to {most}"
            );
            assert!(
                (band.1 - (most + slack)).abs() < slack / 4.0,
                "{model}: {least} to {most}"
            );
        }
    }

    /// Where there is no rule there is nothing to learn: so does a machine look that computes wrongly.
    #[test]
    fn who_does_not_learn_is_out_of_the_band() {
        let (_, layers) = models().into_iter().next().unwrap();
        let (samples, rows) = (rule(3), (0..SAMPLES as u32).collect::<Vec<_>>());
        let (mut inputs, mut labels) = (Vec::new(), Vec::new());
        samples.inputs_of(&rows, &mut inputs).unwrap();
        samples.labels_of(&rows, &mut labels);
        labels.rotate_left(1);
        let samples = Samples::labelled(inputs, labels, INPUTS, CLASSES);
        let loss = train(3, layers, &samples, 1).unwrap();
        assert!(loss > BANDS[0].1.1, "{loss}");
    }

    #[test]
    fn a_report_is_whole_and_says_where_it_is() {
        let mut said = Vec::new();
        let work = run(5, SHORT, &mut |what, part| {
            assert!((0.0..=1.0).contains(&part));
            said.push(what);
            ControlFlow::Continue(())
        });
        let work = work.unwrap();
        said.dedup();
        assert_eq!(
            said,
            ["products", "memory", "training", "paces", "endurance"]
        );
        assert!(work.products.iter().all(|p| p.right && p.mflops > 0));
        assert!(work.is_right(), "{work:?}");
        assert!(work.copy_bytes_per_s > 0 && work.mflops() > 0);
        assert!(work.endurance.kept_ppm() > 0);
    }

    #[test]
    fn who_is_told_to_stop_stops() {
        for at in ["products", "memory", "training", "paces", "endurance"] {
            let stopped = run(5, SHORT, &mut |what, _| match what == at {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            });
            assert!(matches!(stopped, Err(EngineError::Stopped)), "{at}");
        }
    }
}
