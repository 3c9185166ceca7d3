//! How fast this machine trains: real steps of fixed models, not a peak figure.

use std::time::{Duration, Instant};

use cryptomind_protocol::model::{Layer, ModelSpec};
use cryptomind_protocol::selftest::Pace;
use cryptomind_protocol::task::{Optimizer, TrainSpec};

use crate::dataset::Samples;
use crate::error::EngineError;
use crate::session::Session;

const CLASSES: u32 = 10;

/// A model of dense layers with ReLU between them, and the samples of a step.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    inputs: u32,
    hidden: &'static [u32],
    batch: u32,
}

/// What endurance is measured with: 784-512-512-10 in batches of 128.
pub(crate) const ENDURANCE: Shape = Shape {
    inputs: 784,
    hidden: &[512, 512],
    batch: 128,
};

/// Steps of 0.5 to 1600 million operations, each about eight times the one before: the smaller, the less of the time is
/// spent in products.
///
/// The gradient of a model's inputs is counted and not computed, so a model of one layer looks 1.5 times as fast as one of
/// many. In these the first layer has half of the operations: any other model is off by a fifth at most for that reason.
pub(crate) const PACES: [Shape; 5] = [
    shape(32, &[32, 32], 32),
    shape(64, &[64, 64], 64),
    shape(128, &[128, 128], 128),
    shape(256, &[256, 256], 256),
    shape(512, &[512, 512], 512),
];

const fn shape(inputs: u32, hidden: &'static [u32], batch: u32) -> Shape {
    Shape {
        inputs,
        hidden,
        batch,
    }
}

/// How fast it trains in steps of this shape: one to warm up, then the mean of those that begin within `limit`, three at
/// least. The mean, not the best: a task gets what others leave of the machine.
pub(crate) fn pace(shape: Shape, threads: usize, limit: Duration) -> Result<Pace, EngineError> {
    let start = Instant::now();
    let mut stepper = Stepper::new(shape, threads)?;
    stepper.step()?;
    let (mut took, mut steps) = (Duration::ZERO, 0);
    while steps < 3 || start.elapsed() < limit {
        took += stepper.step()?;
        steps += 1;
    }
    let flops = stepper.flops();
    Ok(Pace {
        flops_per_step: u64::try_from(flops).unwrap_or(u64::MAX),
        mflops: mflops(flops, took / steps),
    })
}

/// 10⁶ operations a second, at least 1.
pub(crate) fn mflops(flops: u128, took: Duration) -> u64 {
    let nanos = took.as_nanos().max(1);
    u64::try_from(flops * 1000 / nanos)
        .unwrap_or(u64::MAX)
        .max(1)
}

/// Real steps of one shape, one after the other.
pub(crate) struct Stepper {
    session: Session,
    data: Samples,
    batch: Vec<u32>,
    flops: u128,
}

impl Stepper {
    pub(crate) fn new(shape: Shape, threads: usize) -> Result<Self, EngineError> {
        let model = shape.model();
        Ok(Self {
            session: Session::with_threads(&model, &shape.train(), threads)?,
            data: shape.data(),
            batch: (0..shape.batch).collect(),
            flops: u128::from(model.training_flops()) * u128::from(shape.batch),
        })
    }

    /// What one took.
    pub(crate) fn step(&mut self) -> Result<Duration, EngineError> {
        let begin = Instant::now();
        self.session
            .grad_step(&self.data, &self.batch, &mut |_| ())?;
        self.session.apply(self.batch.len() as u32)?;
        self.session.commit();
        Ok(begin.elapsed())
    }

    /// Floating-point operations of one.
    pub(crate) const fn flops(&self) -> u128 {
        self.flops
    }
}

impl Shape {
    fn model(self) -> ModelSpec {
        let hidden = self.hidden.iter();
        let mut layers: Vec<Layer> = hidden
            .flat_map(|out| [Layer::Linear { out: *out }, Layer::Relu {}])
            .collect();
        layers.push(Layer::Linear { out: CLASSES });
        ModelSpec {
            input: vec![self.inputs],
            layers,
        }
    }

    fn train(self) -> TrainSpec {
        TrainSpec {
            epochs: 1,
            global_batch: self.batch,
            optimizer: Optimizer::adamw(1e-3),
            seed: 0,
            checkpoint_steps: 1,
        }
    }

    /// A pattern without meaning: the time of a step does not depend on the values.
    fn data(self) -> Samples {
        let values = self.batch * self.inputs;
        Samples {
            inputs: (0..values).map(|i| (i * 37 % 256) as f32 / 255.0).collect(),
            labels: (0..self.batch).map(|i| i % CLASSES).collect(),
            input_len: self.inputs as usize,
            classes: CLASSES as usize,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_measurement_ends_and_is_plausible() {
        let mut before = 0;
        for shape in PACES {
            let pace = pace(shape, 1, Duration::from_millis(20)).unwrap();
            println!("{pace:?}");
            // The slowest machine that could run this at all, and more than any ten CPUs.
            assert!((1..100_000_000).contains(&pace.mflops), "{pace:?}");
            assert!(pace.flops_per_step > 4 * before, "the smallest first");
            before = pace.flops_per_step;
        }
    }
}
