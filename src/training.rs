//! Training in this process, without a network: the loop over a run's steps.
//!
//! The samples of a step, the randomness and the arithmetic are those of miners, so the same task comes to the same
//! bits as on a machine of this kind.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use cryptomind_core::batch::{self, Epoch};
use cryptomind_gpu::dataset::Samples;
use cryptomind_gpu::inference::Model;
use cryptomind_gpu::session::Session;
use cryptomind_gpu::{EngineError, Evaluation, Scaling};
use cryptomind_protocol::model::ModelSpec;
use cryptomind_protocol::task::TrainSpec;

/// What is trained on what.
pub struct Training<'a> {
    pub model: &'a ModelSpec,
    pub train: &'a TrainSpec,
    pub samples: &'a Samples,
    /// What checkpoints are to be of; without it, any that fits is gone on from.
    pub run: Option<String>,
    /// At most so many steps; by default all epochs.
    pub most_steps: Option<u64>,
    pub threads: usize,
}

/// How far it is.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    /// Steps done, of how many.
    pub step: u64,
    pub steps: u64,
    /// Mean loss of the last step's batch.
    pub loss: f64,
    /// Of this process, over all its steps.
    pub samples_per_s: f64,
}

/// Whence a run begins.
#[derive(Debug, Clone, Copy)]
pub enum Start<'a> {
    /// With parameters that follow from the seed.
    Fresh,
    /// With a model's weights.
    Weights(&'a [u8]),
    /// Where another run was.
    Checkpoint(&'a [u8]),
}

/// What to do after a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    GoOn,
    Stop,
}

/// A run as far as it went.
pub struct Trained {
    session: Session,
    /// The last step's progress; none where nothing was left to do.
    pub progress: Option<Progress>,
    /// In steps.
    pub took: Duration,
    /// Whether all steps are done.
    pub is_whole: bool,
}

impl Training<'_> {
    /// Trains, and calls `after` each step.
    ///
    /// # Errors
    /// What the engine refuses.
    pub fn run(
        &self,
        start: Start<'_>,
        after: &mut dyn FnMut(&Session, Progress) -> Result<Next, EngineError>,
    ) -> Result<Trained, EngineError> {
        let mut session = Session::with_threads(self.model, self.train, self.threads)?;
        if let Some(run) = &self.run {
            session.of_run(run.clone());
        }
        match start {
            Start::Fresh => {}
            Start::Weights(weights) => session.load(weights)?,
            Start::Checkpoint(checkpoint) => session.restore(checkpoint)?,
        }
        let samples = self.samples.len() as u64;
        let all = self.train.total_steps(samples);
        let steps = self.most_steps.map_or(all, |most| all.min(most));
        let mut epoch: Option<(u64, Epoch)> = None;
        let mut trained = Trained {
            is_whole: session.step() >= steps,
            session,
            progress: None,
            took: Duration::ZERO,
        };
        let mut seen = 0;
        while !trained.is_whole {
            let session = &mut trained.session;
            let per_epoch = self.train.steps_per_epoch(samples);
            let (number, place) = batch::place(session.step(), per_epoch);
            let present = epoch.take().filter(|(present, _)| *present == number);
            let fresh = || (number, Epoch::new(self.train.seed, number, samples as u32));
            let (_, order) = epoch.insert(present.unwrap_or_else(fresh));
            let rows = order.step(place, self.train.global_batch);
            let begin = Instant::now();
            let loss = session.grad_step(self.samples, rows, &mut |_| ())?;
            session.apply(rows.len() as u32)?;
            session.commit();
            trained.took += begin.elapsed();
            seen += rows.len();
            let progress = Progress {
                step: session.step(),
                steps,
                loss: loss / rows.len() as f64,
                samples_per_s: seen as f64 / trained.took.as_secs_f64(),
            };
            trained.is_whole = session.step() >= steps;
            trained.progress = Some(progress);
            if after(session, progress)? == Next::Stop {
                break;
            }
        }
        Ok(trained)
    }
}

impl Trained {
    /// Optimizer state and all: what a run goes on from.
    pub fn checkpoint(&self) -> Vec<u8> {
        self.session.checkpoint()
    }

    /// Steps done, in all processes that it took.
    pub fn step(&self) -> u64 {
        self.session.step()
    }

    /// The model's file, which says how its inputs were scaled.
    pub fn weights(&self, scaling: &Scaling) -> Vec<u8> {
        let mut metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
        metadata.extend(scaling.metadata());
        self.session.export(&metadata)
    }
}

/// How good a model's file is on samples.
///
/// # Errors
/// Weights or samples that do not fit the model.
pub fn evaluate(
    model: &ModelSpec,
    weights: &[u8],
    samples: &Samples,
    threads: usize,
) -> Result<Evaluation, EngineError> {
    Model::load(model, weights)?
        .with_threads(threads)
        .evaluate(samples)
}

/// So many threads, or all where it is 0.
pub fn threads(asked: u16) -> usize {
    match asked {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        threads => threads.into(),
    }
}
