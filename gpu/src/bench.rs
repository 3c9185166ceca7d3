//! How fast this machine trains: real steps of fixed models, not a peak figure.

use std::time::{Duration, Instant};

use cryptomind_protocol::model::{Layer, Loss, ModelSpec};
use cryptomind_protocol::selftest::Pace;
use cryptomind_protocol::speed::Step;
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

/// Steps of 2,000 to 1400 million operations over 200 to 1.1 million parameters: the smaller, the less of the time is spent
/// in products; the more parameters, the more in memory. Batches are such as are usual, as the products of small ones are
/// slower.
pub(crate) const PACES: [Shape; 7] = [
    shape(8, &[8], 4),
    shape(32, &[32, 32], 32),
    shape(64, &[64, 64], 64),
    shape(128, &[128, 128], 128),
    shape(256, &[256, 256], 128),
    shape(512, &[512, 512], 128),
    shape(512, &[1024, 512], 256),
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
    let (mut gradients, mut update, mut steps) = (Duration::ZERO, Duration::ZERO, 0);
    while steps < 3 || start.elapsed() < limit {
        let took = stepper.step()?;
        gradients += took.gradients;
        update += took.update;
        steps += 1;
    }
    let nanos = |took: Duration| u64::try_from((took / steps).as_nanos()).unwrap_or(u64::MAX);
    Ok(Pace {
        step: Step {
            flops: u64::try_from(stepper.flops()).unwrap_or(u64::MAX),
            parameters: stepper.session.parameter_count() as u64,
        },
        gradients_ns: nanos(gradients),
        update_ns: nanos(update),
    })
}

/// 10⁶ operations a second, at least 1.
pub(crate) fn mflops(flops: u128, took: Duration) -> u64 {
    let nanos = took.as_nanos().max(1);
    u64::try_from(flops * 1000 / nanos)
        .unwrap_or(u64::MAX)
        .max(1)
}

/// What the parts of a step took.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Took {
    gradients: Duration,
    update: Duration,
}

impl Took {
    pub(crate) fn whole(self) -> Duration {
        self.gradients + self.update
    }
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
    pub(crate) fn step(&mut self) -> Result<Took, EngineError> {
        let begin = Instant::now();
        self.session
            .grad_step(&self.data, &self.batch, &mut |_| ())?;
        let gradients = begin.elapsed();
        self.session.apply(self.batch.len() as u32)?;
        self.session.commit();
        Ok(Took {
            gradients,
            update: begin.elapsed() - gradients,
        })
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
            .flat_map(|out| [Layer::linear(*out), Layer::Relu {}])
            .collect();
        layers.push(Layer::linear(CLASSES));
        ModelSpec {
            input: vec![self.inputs],
            layers,
            loss: Loss::default(),
        }
    }

    fn train(self) -> TrainSpec {
        TrainSpec {
            epochs: 1,
            global_batch: self.batch,
            optimizer: Optimizer::adamw(1e-3),
            seed: 0,
            checkpoint_steps: 1,
            ..TrainSpec::default()
        }
    }

    /// A pattern without meaning: the time of a step does not depend on the values.
    fn data(self) -> Samples {
        let values = self.batch * self.inputs;
        let inputs = (0..values).map(|i| (i * 37 % 256) as f32 / 255.0).collect();
        let labels = (0..self.batch).map(|i| i % CLASSES).collect();
        Samples::labelled(inputs, labels, self.inputs as usize, CLASSES as usize)
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
            assert!((1..100_000_000).contains(&pace.mflops()), "{pace:?}");
            assert!(pace.step.flops > 3 * before, "the smallest first");
            before = pace.step.flops;
        }
    }
}
