//! How fast this machine trains: real steps of a fixed model, not a peak figure.

use std::time::{Duration, Instant};

use cryptomind_protocol::model::{Layer, ModelSpec};
use cryptomind_protocol::task::{Optimizer, TrainSpec};

use crate::dataset::Samples;
use crate::session::Session;

/// Samples a step.
const BATCH: u32 = 128;
const CLASSES: u32 = 10;
const INPUTS: u32 = 784;

/// Speed of training an MLP 784-512-512-10 with batches of 128, in 10⁶ floating-point operations a
/// second as [`ModelSpec::training_flops`] counts them: one step to warm up, then the lower
/// quartile of the times of those that end within `limit`, at least one: what the machine can do, not
/// what others happened to leave of it.
pub fn measure_mflops(limit: Duration) -> u64 {
    let start = Instant::now();
    let mut stepper = Stepper::new();
    stepper.step();
    let mut times = vec![stepper.step()];
    // The next step will take as long as the last: begin it only if it ends in time.
    while start.elapsed() + times[times.len() - 1] < limit {
        times.push(stepper.step());
    }
    times.sort_unstable();
    let nanos = times[times.len() / 4].as_nanos().max(1);
    u64::try_from(stepper.flops() * 1000 / nanos)
        .unwrap_or(u64::MAX)
        .max(1)
}

/// Real steps of that model, one after the other.
pub(crate) struct Stepper {
    session: Session,
    data: Samples,
    batch: Vec<u32>,
}

impl Stepper {
    pub(crate) fn new() -> Self {
        Self {
            session: Session::new(&model(), &train())
                .expect("the model of this module passes its check"),
            data: data(),
            batch: (0..BATCH).collect(),
        }
    }

    /// What one took.
    pub(crate) fn step(&mut self) -> Duration {
        let begin = Instant::now();
        self.session
            .grad_step(&self.data, &self.batch, &mut |_| ())
            .expect("the data of this module fits");
        self.session
            .apply(BATCH)
            .expect("gradients of bounded data are finite");
        self.session.commit();
        begin.elapsed()
    }

    /// Floating-point operations of one.
    pub(crate) fn flops(&self) -> u128 {
        u128::from(model().training_flops()) * u128::from(BATCH)
    }
}

fn model() -> ModelSpec {
    let hidden = Layer::Linear { out: 512 };
    ModelSpec {
        input: vec![INPUTS],
        layers: vec![
            hidden.clone(),
            Layer::Relu {},
            hidden,
            Layer::Relu {},
            Layer::Linear { out: CLASSES },
        ],
    }
}

fn train() -> TrainSpec {
    TrainSpec {
        epochs: 1,
        global_batch: BATCH,
        optimizer: Optimizer::adamw(1e-3),
        seed: 0,
        checkpoint_steps: 1,
    }
}

/// A pattern without meaning: the time of a step does not depend on the values.
fn data() -> Samples {
    let values = BATCH * INPUTS;
    Samples {
        inputs: (0..values).map(|i| (i * 37 % 256) as f32 / 255.0).collect(),
        labels: (0..BATCH).map(|i| i % CLASSES).collect(),
        input_len: INPUTS as usize,
        classes: CLASSES as usize,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_measurement_ends_and_is_plausible() {
        let mflops = measure_mflops(Duration::from_millis(100));
        println!("{mflops} mflops");
        // The slowest machine that could run this at all, and more than any ten CPUs.
        assert!((10..100_000_000).contains(&mflops), "{mflops}");
    }
}
