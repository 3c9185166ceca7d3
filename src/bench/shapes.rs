//! The models that engines are timed with: those of PyTorch that ours are held against.

use std::time::Duration;

use cryptomind_gpu::dataset::Samples;
use cryptomind_protocol::model::{Gpt, Layer, ModelSpec};

use crate::cli::bench::TrainedModel;

const CLASSES: u32 = 10;
const VOCABULARY: u32 = 65;

/// A model and the batch that it is timed on.
pub(super) struct Shape {
    pub(super) name: &'static str,
    pub(super) model: ModelSpec,
    /// Samples of a step.
    pub(super) batch: u32,
}

impl Shape {
    pub(super) fn of(model: TrainedModel) -> Self {
        let (name, model, batch) = match model {
            TrainedModel::Mlp => ("mlp", mlp(), 128),
            TrainedModel::Cnn => ("cnn", cnn(), 64),
            TrainedModel::Gpt => ("gpt", gpt(), 16),
        };
        Self { name, model, batch }
    }

    /// Values that mean nothing, as the time of a step does not depend on them. The loss falls all the same, as the
    /// labels can be learnt by heart.
    pub(super) fn samples(&self) -> Samples {
        let values = self.batch * self.model.input_len() as u32;
        match self.name {
            "gpt" => {
                let token = |place: u32| (place * 7 % VOCABULARY) as f32;
                let label = |place: u32| place * 11 % VOCABULARY;
                self.labelled((0..values).map(token), (0..values).map(label))
            }
            _ => self.labelled(
                (0..values).map(noise),
                (0..self.batch).map(|row| row % CLASSES),
            ),
        }
    }

    fn labelled(
        &self,
        inputs: impl Iterator<Item = f32>,
        labels: impl Iterator<Item = u32>,
    ) -> Samples {
        let classes = self.model.output_len().unwrap_or(0);
        let input_len = self.model.input_len();
        Samples::labelled(inputs.collect(), labels.collect(), input_len, classes)
    }
}

/// The median of what was timed.
pub(super) fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or(Duration::MAX)
}

/// From 0 to 1, without a pattern that a batch shares (Knuth's multiplicative hash of the place).
fn noise(place: u32) -> f32 {
    (place.wrapping_mul(2_654_435_761) >> 8) as f32 / (1 << 24) as f32
}

fn mlp() -> ModelSpec {
    ModelSpec::mlp(vec![784], &[512, 512], CLASSES)
}

fn cnn() -> ModelSpec {
    ModelSpec::cnn(vec![28, 28], &[32, 64], 128, CLASSES)
}

/// The preset without its last norm, which the peer has not.
fn gpt() -> ModelSpec {
    let mut model = ModelSpec::gpt(Gpt {
        vocabulary: VOCABULARY,
        context: 128,
        width: 128,
        heads: 4,
        blocks: 4,
        dropout_ppm: 0,
    });
    let norms = |layer: &Layer| !matches!(layer, Layer::LayerNorm { .. });
    model.layers.retain(norms);
    model
}
