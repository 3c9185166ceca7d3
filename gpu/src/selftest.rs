//! The self-test: what a machine does with a challenge, whether it does it right, and how fast it stays.
//!
//! Three parts, each from a challenge that nobody can answer beforehand:
//!
//! - **products** of several sizes, each checked by Freivalds' method (1979): for random x, A·(B·x) is C·x. That takes n²
//!   steps where the product took n³, and finds what is wrong by more than rounding in all but a few of many challenges;
//! - **training**: three small models learn a rule that the challenge draws, and their loss must fall into the band that other
//!   machines reach, whatever the challenge; so a wrong gradient, a wrong exp or memory that forgets shows;
//! - **endurance**: steps of a fixed model for as long as is asked for, whose speed at the end shows throttling.
//!
//! Not here: cores, disks and networks; what is concluded from it.

use std::time::{Duration, Instant};

use cryptomind_protocol::model::{Layer, ModelSpec};
use cryptomind_protocol::task::{Optimizer, TrainSpec};
use serde::Serialize;

use crate::bench::Stepper;
use crate::dataset::Samples;
use crate::error::EngineError;
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

/// A product.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Product {
    /// Rows and columns.
    pub size: usize,
    /// 10⁶ floating-point operations a second.
    pub mflops: u64,
    /// Whether it is the product.
    pub right: bool,
}

/// A training run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Training {
    /// Which model.
    pub model: &'static str,
    /// Mean loss of the last 32 steps.
    pub loss: f32,
    /// What other machines reached, whatever the challenge.
    pub band: (f32, f32),
}

impl Training {
    /// Whether the loss is in the band.
    pub fn is_right(&self) -> bool {
        (self.band.0..=self.band.1).contains(&self.loss)
    }
}

/// How fast it stays.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Endurance {
    /// For how long, milliseconds.
    pub ms: u64,
    /// In the first quarter of the time: the median, 10⁶ floating-point operations a second.
    pub first_mflops: u64,
    /// In the last quarter.
    pub last_mflops: u64,
}

impl Endurance {
    /// The last quarter's speed as a part of the first one's, in millionths.
    pub const fn kept_ppm(&self) -> u64 {
        self.last_mflops.saturating_mul(1_000_000)
            / (self.first_mflops + (self.first_mflops == 0) as u64)
    }
}

/// What a machine did.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// What it was challenged with.
    pub challenge: u64,
    /// Products, by size.
    pub products: Vec<Product>,
    /// Memory that is read and written, bytes a second.
    pub copy_bytes_per_s: u64,
    /// Training runs.
    pub trainings: Vec<Training>,
    /// How fast it stays.
    pub endurance: Endurance,
}

impl Report {
    /// The speed of training that it keeps, 10⁶ floating-point operations a second.
    pub const fn mflops(&self) -> u64 {
        self.endurance.last_mflops
    }
}

/// Takes a challenge; steps for `endure`, the rest takes seconds. Says what it does, and how much of it is done.
pub fn run(
    challenge: u64,
    endure: Duration,
    say: &mut dyn FnMut(&'static str, f32),
) -> Result<Report, EngineError> {
    let part = |at: usize, of: usize| at as f32 / of as f32;
    let mut products = Vec::new();
    for (at, size) in SIZES.into_iter().enumerate() {
        say("products", part(at, SIZES.len()));
        products.push(product(challenge, size));
    }
    say("memory", 0.0);
    let copy_bytes_per_s = copy();
    let samples = rule(challenge);
    let mut trainings = Vec::new();
    for (at, (model, layers, band)) in models().into_iter().enumerate() {
        say("training", part(at, 3));
        let loss = train(challenge, layers, &samples)?;
        trainings.push(Training { model, loss, band });
    }
    let endurance = endured(endure, &mut |done| say("endurance", done))?;
    Ok(Report {
        challenge,
        products,
        copy_bytes_per_s,
        trainings,
        endurance,
    })
}

fn product(challenge: u64, size: usize) -> Product {
    let matrix = |name: &str| -> Vec<f32> {
        let mut stream = Stream::new(PRODUCTS, challenge, &format!("{name}{size}"));
        (0..size * size).map(|_| stream.signed_unit()).collect()
    };
    let (a, b) = (matrix("a"), matrix("b"));
    let mut c = vec![0.0; size * size];
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let whole = |values| Matrix::new(values, size, size);
    let mut times = [0, 1, 2].map(|_| {
        let begin = Instant::now();
        multiply(&mut c, Update::Replace, whole(&a), whole(&b), threads);
        begin.elapsed()
    });
    times.sort_unstable();
    let x = matrix("x");
    Product {
        size,
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
fn copy() -> u64 {
    let from = vec![1u8; COPIED];
    let mut to = vec![0u8; COPIED];
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
    u64::try_from(2 * COPIED as u128 * 1_000_000_000 / best).unwrap_or(u64::MAX)
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
    Samples {
        labels: inputs.chunks_exact(INPUTS).map(label).collect(),
        inputs,
        input_len: INPUTS,
        classes: CLASSES,
    }
}

/// Name, layers, and the band of the loss: see the test that holds it to 200 challenges.
fn models() -> [(&'static str, Vec<Layer>, (f32, f32)); 3] {
    let linear = |out: usize| Layer::Linear { out: out as u32 };
    let hidden = |between: Layer| vec![linear(64), between, linear(CLASSES)];
    [
        ("linear", vec![linear(CLASSES)], (0.31, 0.43)),
        ("relu", hidden(Layer::Relu {}), (0.01, 0.032)),
        ("tanh", hidden(Layer::Tanh {}), (0.022, 0.076)),
    ]
}

fn train(challenge: u64, layers: Vec<Layer>, samples: &Samples) -> Result<f32, EngineError> {
    let model = ModelSpec {
        input: vec![INPUTS as u32],
        layers,
    };
    let train = TrainSpec {
        epochs: 1,
        global_batch: BATCH as u32,
        optimizer: Optimizer::adamw(1e-2),
        seed: challenge,
        checkpoint_steps: STEPS as u32,
    };
    let mut session = Session::new(&model, &train)?;
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

fn endured(limit: Duration, say: &mut dyn FnMut(f32)) -> Result<Endurance, EngineError> {
    let mut stepper = Stepper::new();
    stepper.step();
    let (start, mut steps) = (Instant::now(), Vec::new());
    // One step at least in each quarter.
    while start.elapsed() < limit || steps.len() < 4 {
        let took = stepper.step();
        steps.push((start.elapsed(), took));
        say((start.elapsed().as_secs_f32() / limit.as_secs_f32()).min(1.0));
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

fn mflops(flops: u128, took: Duration) -> u64 {
    let nanos = took.as_nanos().max(1);
    u64::try_from(flops * 1000 / nanos).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

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
        for (model, layers, band) in models() {
            let of = |challenge| train(challenge, layers.clone(), &rule(challenge)).unwrap();
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
        let (_, layers, band) = models().into_iter().next().unwrap();
        let mut samples = rule(3);
        samples.labels.rotate_left(1);
        let loss = train(3, layers, &samples).unwrap();
        assert!(loss > band.1, "{loss}");
    }

    #[test]
    fn a_report_is_whole_and_says_where_it_is() {
        let mut said = Vec::new();
        let report = run(5, Duration::from_millis(200), &mut |what, part| {
            assert!((0.0..=1.0).contains(&part));
            said.push(what);
        });
        let report = report.unwrap();
        said.dedup();
        assert_eq!(said, ["products", "memory", "training", "endurance"]);
        assert!(report.products.iter().all(|p| p.right && p.mflops > 0));
        assert!(
            report.trainings.iter().all(Training::is_right),
            "{report:?}"
        );
        assert!(report.copy_bytes_per_s > 0 && report.mflops() > 0);
        assert!(report.endurance.kept_ppm() > 0);
    }
}
