//! A task file to start from, made for one dataset.

use cryptomind_core::control::cap;
use cryptomind_core::price::work_cost;
use cryptomind_protocol::Amount;
use cryptomind_protocol::item::{DataFormat, DatasetInfo};
use cryptomind_protocol::model::{Gpt, ModelSpec};
use cryptomind_protocol::money::BASE_UNITS_PER_CTM;

use super::TaskFile;

/// Windows of a text in a batch, and in a run: the 2,000 steps of nanoGPT for characters on a processor.
const TEXT_BATCH: u64 = 12;
const TEXT_SAMPLES: u64 = 2_000 * TEXT_BATCH;
/// The least side of an image that convolutions are worth.
const IMAGE_SIDE: u32 = 16;
/// What a task may cost at least.
const LEAST_COST: Amount = Amount::from_base_units(BASE_UNITS_PER_CTM);
/// Twice the price of a CU that a network starts with by default.
const UNIT_PRICE: Amount = Amount::from_base_units(20 * BASE_UNITS_PER_CTM);

/// Hidden units: a few times the outputs, a power of two, no more than is quick to train.
fn hidden(info: &DatasetInfo) -> usize {
    (info.outputs() * 4).next_power_of_two().clamp(32, 512)
}

/// Enough passes for a few thousand samples to be learnt, and few for millions.
fn epochs(samples: u64) -> u64 {
    (50_000 / samples.max(1)).clamp(3, 30)
}

/// About ten checkpoints a run, at least 20 steps apart.
fn checkpoint_steps(samples: u64, batch: u64, epochs: u64) -> u64 {
    let steps = samples.div_ceil(batch).saturating_mul(epochs);
    (steps / 10).clamp(20, 10_000)
}

/// A batch that has at least some steps in an epoch.
fn batch(samples: u64) -> u64 {
    match samples {
        0..=2_000 => 32,
        2_001..=50_000 => 64,
        _ => 128,
    }
}

/// The network that a template trains.
struct Plan {
    /// Ends the model's name.
    suffix: &'static str,
    /// As the file says it, for its cost.
    spec: ModelSpec,
    /// The section `[model]`.
    model: String,
    epochs: u64,
    batch: u64,
    /// The keys of `[train]` that say how the rate goes and what decays.
    rate: String,
}

impl Plan {
    fn of(info: &DatasetInfo) -> Self {
        match info.format {
            DataFormat::Text { .. } => Self::gpt(info),
            _ => Self::mlp(info),
        }
    }

    /// A hidden layer; for images the convolutions beside it.
    fn mlp(info: &DatasetInfo) -> Self {
        let (input, outputs, hidden) = (&info.input, info.outputs(), hidden(info));
        let (each, loss) = match info.values.is_empty() {
            true => ("class", ""),
            false => (
                "value",
                "# What the outputs are fitted by: numbers, in place of classes.\nloss = \"mean_square\"\n",
            ),
        };
        let convolutions = match is_image(input) {
            true => cnn(outputs),
            false => String::new(),
        };
        let sizes = [hidden, outputs].map(|size| u32::try_from(size).unwrap_or(u32::MAX));
        let samples = info.train_samples;
        Self {
            suffix: "mlp",
            spec: ModelSpec::mlp(input.clone(), &sizes[..1], sizes[1]),
            model: format!(
                r#"# The shape of one sample, as the dataset has it.
input = {input:?}
{loss}# First to last: "linear OUTPUTS", "relu", "tanh" and others. The last one has an output for each {each}.
layers = ["linear {hidden}", "relu", "linear {outputs}"]
{convolutions}"#
            ),
            epochs: epochs(samples),
            batch: batch(samples),
            rate: r#"# "adamw" or "adam" (lr, weight_decay), or "sgd" (lr, momentum, nesterov, weight_decay).
optimizer = "adamw"
lr = 0.001
weight_decay = 0.01
"#
            .into(),
        }
    }

    /// A small decoder: half as wide and deep as that of nanoGPT for characters on a processor, trained as that is.
    fn gpt(info: &DatasetInfo) -> Self {
        let (input, outputs) = (&info.input, info.outputs());
        let samples = info.train_samples;
        let epochs = TEXT_SAMPLES.div_ceil(samples.max(1)).clamp(1, 30);
        let steps = samples.div_ceil(TEXT_BATCH).saturating_mul(epochs);
        let sizes = Gpt {
            vocabulary: u32::try_from(outputs).unwrap_or(u32::MAX),
            context: input.iter().copied().fold(1, u32::saturating_mul),
            width: 64,
            heads: 4,
            blocks: 2,
            dropout_ppm: 0,
        };
        let Gpt {
            width,
            heads,
            blocks,
            ..
        } = sizes;
        Self {
            suffix: "gpt",
            spec: ModelSpec::gpt(sizes),
            model: format!(
                r#"# Tokens of one sample, as the dataset has it.
input = {input:?}
# A transformer that says the next token after each. In place of a preset, layers can be written out.
preset = "gpt"
# Tokens that there are.
outputs = {outputs}
# Values of a token between the layers, heads that divide them, and blocks: the more, the better and the slower.
width = {width}
heads = {heads}
blocks = {blocks}
# How much is dropped at random in training; about 0.2 helps where a text is small.
dropout = 0.0
"#
            ),
            epochs,
            batch: TEXT_BATCH,
            rate: format!(
                r#"# "adamw" or "adam" (lr, weight_decay), or "sgd" (lr, momentum, nesterov, weight_decay).
optimizer = "adamw"
lr = 0.001
beta2 = 0.99
weight_decay = 0.1
# What decays: "matrices" spares biases and norms.
decay = "matrices"
# The rate rises for warmup_steps and falls to min_lr at decay_steps: so many steps these epochs have.
schedule = "cosine"
warmup_steps = {warmup}
decay_steps = {steps}
min_lr = 0.0001
# Gradients whose norm is greater are scaled down to it.
clip_norm = 1.0
"#,
                warmup = (steps / 10).min(100),
            ),
        }
    }

    /// More than it costs where a CU has twice the price that a network starts with by default.
    fn max_cost(&self, samples: u64) -> Amount {
        let passes = u128::from(samples) * u128::from(self.epochs);
        let flops = passes.saturating_mul(self.spec.training_flops().into());
        let needed = work_cost(flops, UNIT_PRICE).unwrap_or(LEAST_COST);
        cap(LEAST_COST, needed)
    }
}

/// Convolutions take the place of the layers where the user says so.
fn cnn(outputs: usize) -> String {
    format!(
        r#"# For images convolutions are better, and slower. In place of the layers above:
#preset = "cnn"
#outputs = {outputs}
#filters = [16, 32]
#hidden = 64
"#
    )
}

/// Height and width, with channels before or not, of a size that convolutions are worth.
const fn is_image(input: &[u32]) -> bool {
    match *input {
        [height, width] | [_, height, width] => height >= IMAGE_SIDE && width >= IMAGE_SIDE,
        _ => false,
    }
}

fn name_of(path: &str, suffix: &str) -> String {
    let item = path.rsplit('/').next().unwrap_or(path);
    let short: String = item.chars().take(50).collect();
    format!("{short}-{suffix}")
}

/// What a sample is learnt to be.
const fn learnt(info: &DatasetInfo) -> &'static str {
    match (&info.format, info.values.is_empty()) {
        (_, false) => "values to predict",
        (DataFormat::Text { .. }, true) => "tokens",
        (_, true) => "classes",
    }
}

impl TaskFile {
    /// A commented task file, ready to run, that trains a small network on the dataset at `path`
    /// (`nickname/name`) with this seed.
    pub fn template(path: &str, info: &DatasetInfo, seed: u64) -> String {
        let (samples, outputs) = (info.train_samples, info.outputs());
        let plan = Plan::of(info);
        let Plan {
            model,
            epochs,
            batch,
            rate,
            ..
        } = &plan;
        format!(
            r#"# Trains a small network on {path}: {samples} training and {test} test samples, {outputs} {learnt}.
# What it would cost:  cryptomind task quote FILE
# Do it:               cryptomind task submit FILE
kind = "train"
# The trained model is published as <your nickname>/<name>.
name = "{name}"
dataset = "{path}"

[model]
{model}
[train]
# Passes over the training samples.
epochs = {epochs}
# Samples a step, over all miners together.
global_batch = {batch}
{rate}# All randomness comes from it: the same seed gives the same model. This one was drawn for this file.
seed = {seed}
# Steps from one checkpoint to the next: a failure costs at most the work since the last.
checkpoint_steps = {checkpoint_steps}

[group]
# How many miners train together, 1 to 16.
miners = 3

[budget]
# The most that it may cost. It is held while the task runs; what is not used comes back.
max_cost = "{max_cost}"

[publish]
# Who may use the model: "owner" (you alone), "free", or "paid" with a fee a use.
access = "owner"
"#,
            test = info.test_samples,
            name = name_of(path, plan.suffix),
            learnt = learnt(info),
            checkpoint_steps = checkpoint_steps(samples, *batch, *epochs),
            max_cost = plan.max_cost(samples),
        )
    }
}
