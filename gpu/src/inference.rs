//! Trained weights at work: the forward pass on the kernels of training, without what only a backward
//! pass needs.
//!
//! A model is loaded once and shared; every call is a function of its arguments. candle and plain loops
//! are the oracles of the tests.

use std::ops::{ControlFlow, Range};
use std::sync::Mutex;

use cryptomind_protocol::model::{Loss, ModelSpec};

use crate::dataset::Samples;
use crate::error::EngineError;
use crate::forward::{Forward, Room};
use crate::goal::{Evaluation, Goal, Tally, Targets, largest};
use crate::graph::{Graph, Purpose};
use crate::kernel::activation::{self, Activation};
use crate::kernel::softmax;
use crate::node::{Draw, Pass, lay_out_for_use};
use crate::scaling::Scaling;
use crate::team::Team;
use crate::weights;

/// The most values that lie between layers at once.
const MAX_BLOCK_VALUES: usize = 1 << 22;
/// The most samples that are computed at once.
const MAX_BLOCK_SAMPLES: usize = 1024;
/// Rooms that are kept for the next calls.
const MAX_ROOMS: usize = 16;

/// A model with its weights.
pub struct Model {
    forward: Forward,
    parameters: Vec<f32>,
    loss: Loss,
    samples_at_once: usize,
    team: Team,
    scaling: Option<Scaling>,
    /// Buffers of calls that ended.
    rooms: Mutex<Vec<Room>>,
}

impl Model {
    /// Reads weights that must be exactly those of `spec`, as [`crate::session::Session::export`]
    /// writes them. Bytes of strangers are safe to pass. It computes on all processors; see
    /// [`Model::with_threads`].
    pub fn load(spec: &ModelSpec, safetensors: &[u8]) -> Result<Self, EngineError> {
        Self::load_changed(spec, safetensors, &mut |_| ())
    }

    /// The same, with weights that `change` was given first: as another machine rounds, for one.
    pub fn load_changed(
        spec: &ModelSpec,
        safetensors: &[u8],
        change: &mut dyn FnMut(&mut [f32]),
    ) -> Result<Self, EngineError> {
        spec.check()?;
        let mut file = weights::read(safetensors, &weights::tensors(spec))?;
        change(&mut file.values);
        let scaling = Scaling::read(&file.metadata, spec.input_len())?;
        Ok(Self {
            scaling,
            ..Self::of_parameters(spec, file.values)?
        })
    }

    /// A model of a checked graph with these parameters, in canonical order.
    fn of_parameters(spec: &ModelSpec, mut parameters: Vec<f32>) -> Result<Self, EngineError> {
        let forward = Forward::new(Graph::new(spec, Purpose::Use), false);
        forward.check_room(forward.plan.values())?;
        lay_out_for_use(&forward.graph, &mut parameters);
        let values = usize::try_from(forward.plan.values()).unwrap_or(usize::MAX);
        Ok(Self {
            samples_at_once: (MAX_BLOCK_VALUES / values.max(1)).clamp(1, MAX_BLOCK_SAMPLES),
            forward,
            parameters,
            loss: spec.loss,
            team: Team::new(std::thread::available_parallelism().map_or(1, usize::from)),
            scaling: None,
            rooms: Mutex::new(Vec::new()),
        })
    }

    /// The same on at most so many threads. The number changes no bit.
    pub fn with_threads(self, threads: usize) -> Self {
        Self {
            team: Team::new(threads),
            ..self
        }
    }

    /// How the samples were scaled that it was trained on; `None` where its file does not say.
    pub fn scaling(&self) -> Option<&Scaling> {
        self.scaling.as_ref()
    }

    /// Samples as people have them, made what [`Model::probabilities`] takes: `values` are row-major, samples × inputs.
    pub fn scale(&self, values: &mut [f32]) {
        if let Some(scaling) = &self.scaling {
            scaling.samples(self.inputs(), values);
        }
    }

    fn inputs(&self) -> usize {
        self.forward.graph.inputs()
    }

    /// Classes that the model tells apart, or values that it predicts: numbers of one sample's answer.
    pub fn classes(&self) -> usize {
        self.forward.graph.outputs
    }

    /// Answers for these samples, row-major, samples × [`Model::classes`]: class probabilities (softmax), or of each
    /// output (logistic function), or the predicted values, by the model's loss. Of a sequence, for its last token.
    /// Inputs are scaled already.
    /// Refused: a range beyond the samples, samples of another width, answers that are not finite.
    pub fn probabilities(
        &self,
        data: &Samples,
        range: Range<usize>,
    ) -> Result<Vec<f32>, EngineError> {
        data.check_inputs(&self.goal())?;
        if range.start > range.end || range.end > data.len() {
            return Err(EngineError::Data(format!(
                "samples {range:?} are asked for, there are {}",
                data.len()
            )));
        }
        let mut answers = Vec::with_capacity(range.len() * self.classes());
        self.each_block(data, range.clone(), |_, outputs| {
            self.answer(outputs, &mut answers)
        })?;
        match answers.iter().position(|p| !p.is_finite()) {
            Some(place) => Err(EngineError::Data(format!(
                "the answer for sample {} is not a number",
                range.start + place / self.classes()
            ))),
            None => Ok(answers),
        }
    }

    /// Adds the answers that a block's outputs make.
    fn answer(&self, outputs: &[f32], answers: &mut Vec<f32>) {
        let (width, start) = (self.classes(), answers.len());
        let samples = outputs.chunks_exact(width * self.forward.graph.positions);
        for sample in samples {
            answers.extend_from_slice(&sample[sample.len() - width..]);
        }
        let own = &mut answers[start..];
        match self.loss {
            Loss::CrossEntropy => {
                let scores = own.to_vec();
                softmax::forward(&scores, width, own, self.team.threads());
            }
            Loss::BinaryCrossEntropy => {
                activation::forward_in_place(Activation::Sigmoid, own, self.team.threads());
            }
            Loss::MeanSquare => {}
        }
    }

    /// Shows the outputs of some samples after the other.
    fn each_block(
        &self,
        data: &Samples,
        range: Range<usize>,
        see: impl FnMut(&[u32], &[f32]) + Send,
    ) -> Result<(), EngineError> {
        self.team.run(|| self.blocks(data, range, see))
    }

    fn blocks(
        &self,
        data: &Samples,
        range: Range<usize>,
        mut see: impl FnMut(&[u32], &[f32]),
    ) -> Result<(), EngineError> {
        let mut room = self.room();
        for start in range.clone().step_by(self.samples_at_once) {
            let block = rows(start..range.end.min(start + self.samples_at_once));
            self.gather(data, &block, &mut room)?;
            let tokens = std::mem::take(&mut room.tokens);
            let pass = Pass {
                parameters: &self.parameters,
                rows: block.len(),
                tokens: &tokens,
                draw: Draw::default(),
                is_training: false,
                threads: self.team.threads(),
            };
            let to_its_end = |_: &_, _: &_| ControlFlow::Continue(());
            let _ = self.forward.run(pass, &mut room, &mut None, to_its_end);
            room.tokens = tokens;
            see(&block, self.forward.outputs(&room));
        }
        self.put_back(room);
        Ok(())
    }

    fn gather(&self, data: &Samples, rows: &[u32], room: &mut Room) -> Result<(), EngineError> {
        let inputs = self.forward.inputs(room, rows.len());
        data.inputs_of(rows, inputs)?;
        self.forward.graph.check_tokens(inputs, rows)?;
        self.forward.take_tokens(room);
        Ok(())
    }

    /// A room that another call left, or a new one. A call that panicked left none.
    fn room(&self) -> Room {
        let left = self.rooms.lock().ok().and_then(|mut rooms| rooms.pop());
        left.unwrap_or_else(|| self.forward.room())
    }

    fn put_back(&self, room: Room) {
        if let Ok(mut rooms) = self.rooms.lock()
            && rooms.len() < MAX_ROOMS
        {
            rooms.push(room);
        }
    }

    /// Share of labels whose class is the most probable one, 0 to 1. Refused as [`Model::evaluate`] refuses, and where
    /// numbers are predicted.
    pub fn accuracy(&self, data: &Samples) -> Result<f64, EngineError> {
        let accuracy = self.evaluate(data)?.accuracy;
        accuracy.ok_or_else(|| EngineError::Data("numbers are predicted, not classes".into()))
    }

    /// How good the answers are. Refused: samples that do not fit the model, none, and outputs that are not finite.
    pub fn evaluate(&self, data: &Samples) -> Result<Evaluation, EngineError> {
        let goal = self.goal();
        data.check(&goal)?;
        if data.is_empty() {
            return Err(EngineError::Data("no samples to evaluate on".into()));
        }
        let (mut tally, mut targets) = (Tally::default(), Targets::default());
        let mut gradient = Vec::new();
        self.each_block(data, 0..data.len(), |rows, outputs| {
            targets.gather(&goal, data, rows);
            tally.add(&goal, &targets, outputs, &mut gradient, self.team.threads());
        })?;
        let evaluation = tally.evaluation(self.loss);
        match evaluation.loss.is_finite() {
            true => Ok(evaluation),
            false => Err(EngineError::Data("an answer is not a number".into())),
        }
    }

    fn goal(&self) -> Goal {
        self.forward.graph.goal(self.loss)
    }
}

/// Index of the largest value; the first of equals.
pub fn most_probable(row: &[f32]) -> usize {
    largest(row)
}

/// Numbers of samples, of which there are no more than fit.
fn rows(range: Range<usize>) -> Vec<u32> {
    range.map(|row| row as u32).collect()
}

#[cfg(test)]
mod tests;
