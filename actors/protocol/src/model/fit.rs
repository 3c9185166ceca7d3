//! Whether a model is for a dataset. What the engine would refuse on a miner is refused before anybody pays for it.

use super::{Layer, Loss, ModelSpec};
use crate::item::{DataFormat, DatasetInfo};

/// Classes that one output tells apart: one is 0, the other 1.
const TWO: u64 = 2;

/// What of a model does not fit a dataset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Misfit {
    /// The shape of a sample.
    Input,
    /// What the outputs are fitted by.
    Loss,
    /// How often it answers a sample: once, or for each token.
    Positions,
    /// How many outputs an answer has.
    Outputs,
    /// Which token numbers it takes.
    Tokens,
}

impl Misfit {
    /// The key in a task file.
    pub const fn key(self) -> &'static str {
        match self {
            Self::Input => "model.input",
            Self::Loss => "model.loss",
            Self::Positions | Self::Outputs | Self::Tokens => "model.layers",
        }
    }
}

/// Why a model is not for a dataset.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}; {cure}")]
pub struct ModelMisfit {
    /// What does not fit.
    pub misfit: Misfit,
    /// What it is, and what it would have to be.
    pub reason: String,
    /// What to write, as in a task file whose layers are written out.
    pub cure: String,
}

impl ModelSpec {
    /// Refuses a model that the engine would not train on this dataset, or not run over it. [`ModelSpec::check`] must have
    /// passed.
    ///
    /// Numbers are not looked at: whether those to predict lie in 0 to 1, and tensors are whole numbers, the miner sees.
    ///
    /// # Errors
    /// The first thing that does not fit, and what would.
    pub fn fits(&self, data: &DatasetInfo) -> Result<(), ModelMisfit> {
        self.fits_input(data)?;
        if data.values.is_empty() {
            self.fits_classes(data)?;
        } else {
            self.fits_values(data)?;
        }
        self.fits_tokens(data)
    }

    fn fits_input(&self, data: &DatasetInfo) -> Result<(), ModelMisfit> {
        let (ours, theirs) = (&self.input, &data.input);
        let values = |shape: &[u32]| shape.iter().map(|d| u128::from(*d)).product::<u128>();
        if values(ours) == values(theirs) {
            return Ok(());
        }
        Err(ModelMisfit {
            misfit: Misfit::Input,
            reason: format!("{ours:?} values a sample do not fit the dataset's {theirs:?}"),
            cure: format!("write input = {theirs:?}"),
        })
    }

    fn fits_values(&self, data: &DatasetInfo) -> Result<(), ModelMisfit> {
        let (width, output) = (data.outputs(), self.output().unwrap_or_default());
        let predicted = match width {
            1 => "1 value to predict".to_owned(),
            many => format!("{many} values to predict"),
        };
        if self.loss == Loss::CrossEntropy {
            return Err(ModelMisfit {
                misfit: Misfit::Loss,
                reason: format!(
                    "the dataset has {predicted}, but cross_entropy tells classes apart"
                ),
                cure: "write loss = \"mean_square\"".into(),
            });
        }
        let (positions, outputs) = answers(&output);
        if positions.saturating_mul(outputs) == width as u64 {
            return Ok(());
        }
        Err(ModelMisfit {
            misfit: Misfit::Outputs,
            reason: format!(
                "the model gives {output:?}, the dataset has {predicted}: one output each"
            ),
            cure: format!("write \"linear {width}\" as the last layer"),
        })
    }

    fn fits_classes(&self, data: &DatasetInfo) -> Result<(), ModelMisfit> {
        let (classes, output) = (data.outputs() as u64, self.output().unwrap_or_default());
        let (positions, outputs) = answers(&output);
        if positions != labels(data) {
            return Err(self.other_positions(data, &output));
        }
        let may_share = self.loss != Loss::CrossEntropy && classes == TWO;
        if outputs == classes || (may_share && outputs == 1) {
            return Ok(());
        }
        let (wanted, rule) = match may_share {
            true => (1, "one output for both, or one each"),
            false => (classes, "one output each"),
        };
        let each = if positions > 1 { " each" } else { "" };
        Err(ModelMisfit {
            misfit: Misfit::Outputs,
            reason: format!(
                "the model gives {output:?}, the dataset has {classes} classes: {rule}"
            ),
            cure: format!("write \"linear {wanted}{each}\" as the last layer"),
        })
    }

    fn other_positions(&self, data: &DatasetInfo, output: &[u32]) -> ModelMisfit {
        let (classes, tokens) = (data.outputs(), labels(data));
        let starts_with_tokens = matches!(self.layers.first(), Some(Layer::Embedding { .. }));
        let (reason, cure) = match (is_text(data), starts_with_tokens) {
            (false, _) => (
                format!(
                    "the model gives {output:?}, but a sample has one class: [{classes}] is wanted"
                ),
                format!("write \"linear {classes}\" as the last layer, without `each`"),
            ),
            (true, true) => (
                said_of_text(output, tokens, classes),
                format!(
                    "write \"linear {classes} each\" as the last layer, and no \"flatten\" before it"
                ),
            ),
            (true, false) => (
                said_of_text(output, tokens, classes),
                format!(
                    "begin with \"embedding {classes} 64 positions\" and end with \"linear {classes} each\", or use preset = \"gpt\""
                ),
            ),
        };
        ModelMisfit {
            misfit: Misfit::Positions,
            reason,
            cure,
        }
    }

    fn fits_tokens(&self, data: &DatasetInfo) -> Result<(), ModelMisfit> {
        let Some(Layer::Embedding {
            rows,
            width,
            positions,
        }) = self.layers.first()
        else {
            return Ok(());
        };
        let refuse = |reason, cure| {
            Err(ModelMisfit {
                misfit: Misfit::Tokens,
                reason,
                cure,
            })
        };
        let tokens = u32::try_from(data.classes.len()).unwrap_or(u32::MAX);
        match data.format {
            DataFormat::Text { .. } if *rows < tokens => {
                let enough = Layer::Embedding {
                    rows: tokens,
                    width: *width,
                    positions: *positions,
                };
                refuse(
                    format!("an embedding of {rows} tokens, but the text has {tokens}"),
                    format!("write \"{enough}\" as the first layer"),
                )
            }
            DataFormat::Csv { .. } => refuse(
                "`embedding` takes whole numbers, but the columns of a table are scaled".into(),
                "leave it out, or publish the numbers as tensors (dataset add --safetensors)"
                    .into(),
            ),
            // Grey values and tensors may be whole numbers.
            DataFormat::Text { .. } | DataFormat::Idx { .. } | DataFormat::Safetensors { .. } => {
                Ok(())
            }
        }
    }
}

fn said_of_text(output: &[u32], tokens: u64, classes: usize) -> String {
    format!(
        "the model gives {output:?}, but a text wants [{tokens}, {classes}]: the next token after each of {tokens}"
    )
}

/// How often a model with this output answers a sample, and how many outputs an answer has.
fn answers(output: &[u32]) -> (u64, u64) {
    match output {
        [before @ .., outputs] => {
            let positions = before.iter().map(|size| u64::from(*size));
            (positions.fold(1, u64::saturating_mul), u64::from(*outputs))
        }
        [] => (0, 0),
    }
}

const fn is_text(data: &DatasetInfo) -> bool {
    matches!(data.format, DataFormat::Text { .. })
}

/// Classes that a sample has: one, or of a text one a token.
fn labels(data: &DatasetInfo) -> u64 {
    let sizes = data.input.iter().map(|size| u64::from(*size));
    match is_text(data) {
        true => sizes.fold(1, u64::saturating_mul),
        false => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::item::TextLevel;
    use crate::model::Gpt;

    fn data(format: DataFormat, input: &[u32], classes: usize, values: usize) -> DatasetInfo {
        DatasetInfo {
            format,
            train_samples: 1,
            test_samples: 1,
            input: input.to_vec(),
            classes: vec![String::new(); classes],
            values: vec![String::new(); values],
        }
    }

    fn table(classes: usize, values: usize) -> DatasetInfo {
        let format = DataFormat::Csv {
            file: String::new(),
            label: String::new(),
            split_seed: 0,
            targets: Vec::new(),
        };
        data(format, &[8], classes, values)
    }

    fn text(classes: usize) -> DatasetInfo {
        let format = DataFormat::Text {
            file: String::new(),
            level: TextLevel::Character,
            held_out_ppm: 1,
        };
        data(format, &[8], classes, 0)
    }

    fn tensors(classes: usize) -> DatasetInfo {
        let format = DataFormat::Safetensors {
            train: String::new(),
            test: String::new(),
        };
        data(format, &[8], classes, 0)
    }

    fn model(layers: Vec<Layer>, loss: Loss) -> ModelSpec {
        let model = ModelSpec {
            loss,
            ..ModelSpec::new(vec![8], layers)
        };
        model.check().unwrap();
        model
    }

    fn linear(out: u32, loss: Loss) -> ModelSpec {
        model(vec![Layer::linear(out)], loss)
    }

    fn gpt(vocabulary: u32) -> ModelSpec {
        ModelSpec::gpt(Gpt {
            vocabulary,
            context: 8,
            width: 4,
            heads: 2,
            blocks: 1,
            dropout_ppm: 0,
        })
    }

    /// A model over tokens whose embedding has so many rows.
    fn tokens(rows: u32, last: Layer) -> ModelSpec {
        let first = Layer::Embedding {
            rows,
            width: 4,
            positions: true,
        };
        model(vec![first, last], Loss::CrossEntropy)
    }

    #[test]
    fn what_the_engine_takes_fits() {
        use Loss::{BinaryCrossEntropy, CrossEntropy, MeanSquare};
        let sequence = |loss| {
            model(
                vec![Layer::Reshape { shape: vec![4, 2] }, Layer::linear_each(2)],
                loss,
            )
        };
        let one = |loss| {
            let layers = vec![Layer::Reshape { shape: vec![8, 1] }, Layer::linear_each(1)];
            model(layers, loss)
        };
        let cases = [
            (linear(3, CrossEntropy), table(3, 0)),
            (linear(3, MeanSquare), table(3, 0)),
            (linear(3, BinaryCrossEntropy), table(3, 0)),
            (linear(1, MeanSquare), table(2, 0)),
            (linear(1, BinaryCrossEntropy), table(2, 0)),
            (linear(2, BinaryCrossEntropy), table(2, 0)),
            (linear(3, MeanSquare), table(0, 3)),
            (linear(3, BinaryCrossEntropy), table(0, 3)),
            (sequence(MeanSquare), table(0, 8)),
            (gpt(5), text(5)),
            (tokens(9, Layer::linear_each(5)), text(5)),
            (one(BinaryCrossEntropy), text(2)),
            (tokens(9, Layer::linear(5)), tensors(5)),
        ];
        for (model, data) in cases {
            model.fits(&data).unwrap();
        }
        // As many values in another shape are taken as they lie.
        let mut square = table(3, 0);
        square.input = vec![2, 4];
        linear(3, CrossEntropy).fits(&square).unwrap();
    }

    #[test]
    fn what_the_engine_would_refuse_is_refused_with_its_cure() {
        use Loss::{BinaryCrossEntropy, CrossEntropy, MeanSquare};
        let flat = |layers| model(layers, CrossEntropy);
        let each = vec![Layer::Reshape { shape: vec![4, 2] }, Layer::linear_each(3)];
        let wide = ModelSpec::mlp(vec![9], &[], 3);
        let cases = [
            (
                wide,
                table(3, 0),
                Misfit::Input,
                "[9] values a sample",
                "input = [8]",
            ),
            (
                linear(3, CrossEntropy),
                table(0, 3),
                Misfit::Loss,
                "3 values to predict",
                "loss = \"mean_square\"",
            ),
            (
                linear(3, MeanSquare),
                table(0, 1),
                Misfit::Outputs,
                "1 value to predict",
                "\"linear 1\"",
            ),
            (
                linear(1, CrossEntropy),
                table(2, 0),
                Misfit::Outputs,
                "gives [1], the dataset has 2 classes: one output each",
                "\"linear 2\"",
            ),
            (
                linear(4, CrossEntropy),
                table(3, 0),
                Misfit::Outputs,
                "3 classes",
                "\"linear 3\"",
            ),
            (
                linear(1, MeanSquare),
                table(3, 0),
                Misfit::Outputs,
                "3 classes",
                "\"linear 3\"",
            ),
            (
                linear(3, BinaryCrossEntropy),
                table(2, 0),
                Misfit::Outputs,
                "one output for both",
                "\"linear 1\"",
            ),
            (
                flat(each),
                table(3, 0),
                Misfit::Positions,
                "gives [4, 3]",
                "\"linear 3\" as the last layer, without `each`",
            ),
            (
                linear(5, CrossEntropy),
                text(5),
                Misfit::Positions,
                "gives [5], but a text wants [8, 5]",
                "preset = \"gpt\"",
            ),
            (
                tokens(5, Layer::linear(5)),
                text(5),
                Misfit::Positions,
                "wants [8, 5]",
                "\"linear 5 each\"",
            ),
            (
                gpt(5),
                text(6),
                Misfit::Outputs,
                "gives [8, 5]",
                "\"linear 6 each\"",
            ),
            (
                tokens(4, Layer::linear_each(5)),
                text(5),
                Misfit::Tokens,
                "of 4 tokens, but the text has 5",
                "\"embedding 5 4 positions\"",
            ),
            (
                tokens(9, Layer::linear(5)),
                table(5, 0),
                Misfit::Tokens,
                "columns of a table are scaled",
                "--safetensors",
            ),
        ];
        for (model, data, misfit, reason, cure) in cases {
            let found = model.fits(&data).unwrap_err();
            assert_eq!(found.misfit, misfit, "{found}");
            assert!(found.reason.contains(reason), "{found} lacks {reason}");
            assert!(found.cure.contains(cure), "{found} lacks {cure}");
        }
    }
}
