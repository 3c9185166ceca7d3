//! Engines: what a session computes its steps on.
//!
//! Engines share the model's [`Graph`](crate::graph::Graph), the arenas in canonical order and the randomness keyed by
//! (seed, tensor, step, sample), so that members with different engines train one model. Buffers and kernels are each
//! engine's own: that boundary is [`Compute`].

use cryptomind_protocol::model::ModelSpec;
use cryptomind_protocol::task::TrainSpec;

use crate::bucket::OnBucket;
use crate::devices::{self, DeviceInfo, Interface};
use crate::error::EngineError;
use crate::goal::Goal;
use crate::graph::Graph;
use crate::network::{Network, NotFinite, Step};
use crate::profile::Profile;
use crate::session::Session;

/// What a training takes of a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Estimate {
    /// Length of the arena.
    pub parameters: u64,
    /// Parameters, gradients and the optimizer's state, before and after a step, bytes.
    pub arena_bytes: u64,
    /// What lies between layers for a batch, and its gradients, bytes.
    pub batch_bytes: u64,
    /// What kernels are lent beside, bytes: more threads take more. Without what a matrix product
    /// packs, a few MiB a thread.
    pub scratch_bytes: u64,
    /// Floating-point operations of a step on the batch.
    pub step_flops: u64,
}

impl Estimate {
    /// All memory of a session, bytes.
    pub const fn memory_bytes(&self) -> u64 {
        let arenas = self.arena_bytes.saturating_add(self.batch_bytes);
        arenas.saturating_add(self.scratch_bytes)
    }
}

/// Asked between two operations of a step: once it says yes, the step is broken off.
pub type Brake = Box<dyn Fn() -> bool + Send + Sync>;

/// A kind of machine that trains.
pub trait Engine: Send + Sync {
    /// Its devices here.
    fn probe(&self) -> Vec<DeviceInfo>;

    /// What training takes on it, with so many samples a step.
    ///
    /// # Errors
    /// Why it cannot do this model.
    fn supports(
        &self,
        model: &ModelSpec,
        train: &TrainSpec,
        samples: u32,
    ) -> Result<Estimate, EngineError>;

    /// A session before its first step.
    ///
    /// # Errors
    /// As [`Engine::supports`].
    fn open(&self, model: &ModelSpec, train: &TrainSpec) -> Result<Session, EngineError>;
}

/// A model on an engine: from parameters and samples to gradients.
pub(crate) trait Compute: Send {
    /// The model's operations.
    fn graph(&self) -> &Graph;

    /// The sum of the losses of these samples; `gradients` receives the sums of the gradients, and `on_bucket` the
    /// bucket of each layer when it is final, last layer first.
    fn gradients(
        &mut self,
        step: Step<'_>,
        gradients: &mut [f32],
        on_bucket: OnBucket<'_>,
    ) -> Result<f64, Broken>;

    /// What the outputs are fitted to.
    fn goal(&self) -> &Goal;

    /// Where the time goes, where somebody wants to know.
    fn profile(&mut self) -> &mut Option<Profile>;

    /// What may break a step off.
    fn brake(&mut self) -> &mut Option<Brake>;
}

/// Why there are no gradients.
pub(crate) enum Broken {
    /// A number is none.
    NotFinite(NotFinite),
    /// Samples could not be had, or it was broken off.
    Engine(EngineError),
}

impl From<NotFinite> for Broken {
    fn from(broken: NotFinite) -> Self {
        Self::NotFinite(broken)
    }
}

impl From<EngineError> for Broken {
    fn from(error: EngineError) -> Self {
        Self::Engine(error)
    }
}

/// The processor, with the kernels of [`crate::kernel`].
#[derive(Debug, Clone, Copy)]
pub struct Cpu {
    threads: usize,
}

impl Default for Cpu {
    fn default() -> Self {
        Self::with_threads(std::thread::available_parallelism().map_or(1, usize::from))
    }
}

impl Cpu {
    /// On at most so many threads. The number changes no bit.
    pub fn with_threads(threads: usize) -> Self {
        Self {
            threads: threads.max(1),
        }
    }
}

impl Engine for Cpu {
    fn probe(&self) -> Vec<DeviceInfo> {
        let devices = devices::list().into_iter();
        devices
            .filter(|device| device.interface == Interface::Cpu)
            .collect()
    }

    fn supports(
        &self,
        model: &ModelSpec,
        train: &TrainSpec,
        samples: u32,
    ) -> Result<Estimate, EngineError> {
        train.check()?;
        let network = Network::new(model, self.threads)?;
        Ok(Estimate {
            parameters: model.parameter_count(),
            arena_bytes: Session::memory_bytes(model, train),
            batch_bytes: network.batch_bytes(samples),
            scratch_bytes: network.scratch_bytes(samples),
            step_flops: model.training_flops().saturating_mul(samples.into()),
        })
    }

    fn open(&self, model: &ModelSpec, train: &TrainSpec) -> Result<Session, EngineError> {
        Session::with_threads(model, train, self.threads)
    }
}

#[cfg(test)]
mod tests {
    use cryptomind_protocol::model::Layer;
    use cryptomind_protocol::task::Optimizer;

    use super::*;

    fn train() -> TrainSpec {
        TrainSpec {
            global_batch: 64,
            ..crate::session::tests::adamw()
        }
    }

    #[test]
    fn an_estimate_follows_from_model_and_batch() {
        let cnn = ModelSpec::cnn(vec![28, 28], &[32, 64], 128, 10);
        let engine = Cpu::with_threads(2);
        let estimate = engine.supports(&cnn, &train(), 64).unwrap();
        assert_eq!(estimate.parameters, 421_642);
        assert_eq!(estimate.arena_bytes, 421_642 * 4 * 7);
        assert_eq!(estimate.step_flops, 64 * cnn.training_flops());
        // The largest value alone, 64 images of 32 channels, is 6 MiB.
        assert!(
            (12..40).contains(&(estimate.batch_bytes >> 20)),
            "{estimate:?}"
        );
        let half = engine.supports(&cnn, &train(), 32).unwrap();
        assert_eq!(half.batch_bytes * 2, estimate.batch_bytes);
    }

    #[test]
    fn what_it_cannot_do_it_says() {
        let engine = Cpu::default();
        let wrong = ModelSpec::new(vec![3], vec![Layer::conv2d(1, 1, 0)]);
        assert!(matches!(
            engine.supports(&wrong, &train(), 1),
            Err(EngineError::Model(_))
        ));
        let wild = TrainSpec {
            optimizer: Optimizer::adamw(f32::NAN),
            ..train()
        };
        let fine = ModelSpec::mlp(vec![3], &[], 2);
        assert!(matches!(
            engine.supports(&fine, &wild, 1),
            Err(EngineError::Train(_))
        ));
        assert!(matches!(
            engine.open(&fine, &wild),
            Err(EngineError::Train(_))
        ));
        assert_eq!(engine.open(&fine, &train()).unwrap().parameter_count(), 8);
        assert_eq!(engine.probe().len(), 1);
    }
}
