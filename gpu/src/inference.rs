//! Trained weights at work: the forward pass by candle's layers, without gradients.
//!
//! A model is loaded once and shared; every call is a function of its arguments. This path shares
//! nothing with the training step but the file, so an accuracy measured here also checks that step.

use std::ops::Range;

use candle_core::{D, Device, Module, Tensor};
use candle_nn::{Linear, ops};
use cryptomind_protocol::model::{Layer, ModelSpec};

use crate::dataset::Samples;
use crate::error::EngineError;
use crate::scaling::Scaling;
use crate::weights;

/// The most values of one layer's output that are computed at once.
const MAX_BLOCK_VALUES: usize = 1 << 22;
/// The most samples that are computed at once.
const MAX_BLOCK_SAMPLES: usize = 1024;

enum Step {
    Linear(Linear),
    Relu,
    Tanh,
}

/// A model with its weights.
pub struct Model {
    steps: Vec<Step>,
    inputs: usize,
    outputs: usize,
    samples_at_once: usize,
    scaling: Option<Scaling>,
}

impl Model {
    /// Reads weights that must be exactly those of `spec`, as [`crate::session::Session::export`]
    /// writes them. Bytes of strangers are safe to pass.
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
        let mut rest = &file.values[..];
        let mut width = spec.input_len();
        let mut widest = width;
        let mut steps = Vec::with_capacity(spec.layers.len());
        for layer in &spec.layers {
            steps.push(match layer {
                Layer::Linear { out } => {
                    let out = *out as usize;
                    let bias = tensor(&mut rest, &[out])?;
                    let weight = tensor(&mut rest, &[out, width])?;
                    width = out;
                    Step::Linear(Linear::new(weight, Some(bias)))
                }
                Layer::Relu {} => Step::Relu,
                Layer::Tanh {} => Step::Tanh,
            });
            widest = widest.max(width);
        }
        Ok(Self {
            steps,
            inputs: spec.input_len(),
            outputs: width,
            samples_at_once: (MAX_BLOCK_VALUES / widest).clamp(1, MAX_BLOCK_SAMPLES),
            scaling,
        })
    }

    /// How the samples were scaled that it was trained on; `None` where its file does not say.
    pub fn scaling(&self) -> Option<&Scaling> {
        self.scaling.as_ref()
    }

    /// Samples as people have them, made what [`Model::probabilities`] takes: `values` are row-major, samples × inputs.
    pub fn scale(&self, values: &mut [f32]) {
        if let Some(scaling) = &self.scaling {
            scaling.samples(self.inputs, values);
        }
    }

    /// Classes that the model tells apart: values of one sample's answer.
    pub fn classes(&self) -> usize {
        self.outputs
    }

    /// Class probabilities of these samples (softmax), row-major, samples × [`Model::classes`]. Inputs are scaled already.
    /// Refused: a range beyond the samples, samples of another width, answers that are not finite.
    pub fn probabilities(
        &self,
        data: &Samples,
        range: Range<usize>,
    ) -> Result<Vec<f32>, EngineError> {
        data.check(self.inputs, self.outputs)?;
        if range.start > range.end || range.end > data.len() {
            return Err(EngineError::Data(format!(
                "samples {range:?} are asked for, there are {}",
                data.len()
            )));
        }
        let mut answers = Vec::with_capacity(range.len() * self.outputs);
        for start in range.clone().step_by(self.samples_at_once) {
            let block = start..range.end.min(start + self.samples_at_once);
            answers.extend(self.block(data, block)?);
        }
        match answers.iter().position(|p| !p.is_finite()) {
            Some(place) => Err(EngineError::Data(format!(
                "the answer for sample {} is not a number",
                range.start + place / self.outputs
            ))),
            None => Ok(answers),
        }
    }

    /// Share of samples whose most probable class is their label, 0 to 1. Refused as
    /// [`Model::probabilities`] refuses, and where there are no samples.
    pub fn accuracy(&self, data: &Samples) -> Result<f64, EngineError> {
        if data.is_empty() {
            return Err(EngineError::Data(
                "no samples to measure accuracy on".into(),
            ));
        }
        let answers = self.probabilities(data, 0..data.len())?;
        let mut labels = Vec::new();
        data.labels_of(&rows(0..data.len()), &mut labels);
        let answers = answers.chunks_exact(self.outputs).zip(&labels);
        let right = answers
            .filter(|(row, label)| most_probable(row) == **label as usize)
            .count();
        Ok(right as f64 / data.len() as f64)
    }

    fn block(&self, data: &Samples, range: Range<usize>) -> Result<Vec<f32>, EngineError> {
        let mut inputs = Vec::new();
        data.inputs_of(&rows(range.clone()), &mut inputs)?;
        let mut x = Tensor::from_vec(inputs, (range.len(), self.inputs), &Device::Cpu)?;
        for step in &self.steps {
            x = match step {
                Step::Linear(linear) => linear.forward(&x)?,
                Step::Relu => x.relu()?,
                Step::Tanh => x.tanh()?,
            };
        }
        Ok(ops::softmax(&x, D::Minus1)?.flatten_all()?.to_vec1()?)
    }
}

/// Index of the largest value; the first of equals.
pub fn most_probable(row: &[f32]) -> usize {
    let larger = |best: usize, at: usize| if row[at] > row[best] { at } else { best };
    (0..row.len()).fold(0, larger)
}

/// Numbers of samples, of which there are no more than fit.
fn rows(range: Range<usize>) -> Vec<u32> {
    range.map(|row| row as u32).collect()
}

/// Takes a tensor of this shape off the front of `rest`, which holds it.
fn tensor(rest: &mut &[f32], shape: &[usize]) -> Result<Tensor, EngineError> {
    let (values, after) = rest.split_at(shape.iter().product());
    *rest = after;
    Ok(Tensor::from_slice(values, shape, &Device::Cpu)?)
}

#[cfg(test)]
mod tests;
