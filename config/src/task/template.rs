//! A task file to start from, made for one dataset.

use cryptomind_protocol::item::DatasetInfo;

use super::TaskFile;

/// Hidden units: a few times the outputs, a power of two, no more than is quick to train.
fn hidden(info: &DatasetInfo) -> usize {
    (info.outputs() * 4).next_power_of_two().clamp(32, 512)
}

/// Enough passes for a few thousand samples to be learnt, and few for millions.
fn epochs(samples: u64) -> u64 {
    (50_000 / samples.max(1)).clamp(3, 30)
}

/// About ten checkpoints a run, at least 20 steps apart.
fn checkpoint_steps(samples: u64, batch: u64) -> u64 {
    (samples.div_ceil(batch) * epochs(samples) / 10).clamp(20, 10_000)
}

/// A batch that has at least some steps in an epoch.
fn batch(samples: u64) -> u64 {
    match samples {
        0..=2_000 => 32,
        2_001..=50_000 => 64,
        _ => 128,
    }
}

fn name_of(path: &str) -> String {
    let item = path.rsplit('/').next().unwrap_or(path);
    let short: String = item.chars().take(50).collect();
    format!("{short}-mlp")
}

impl TaskFile {
    /// A commented task file, ready to run, that trains a small network on the dataset at `path`
    /// (`nickname/name`) with this seed.
    pub fn template(path: &str, info: &DatasetInfo, seed: u64) -> String {
        let (samples, outputs) = (info.train_samples, info.outputs());
        let batch = batch(samples);
        let (learnt, each) = match info.values.is_empty() {
            true => ("classes", "class"),
            false => ("values to predict", "value"),
        };
        format!(
            r#"# Trains a small network on {path}: {samples} training and {test} test samples, {outputs} {learnt}.
# What it would cost:  cryptomind task quote FILE
# Do it:               cryptomind task submit FILE
kind = "train"
# The trained model is published as <your nickname>/<name>.
name = "{name}"
dataset = "{path}"

[model]
# The shape of one sample, as the dataset has it.
input = {input:?}
# First to last: "linear OUTPUTS", "relu", "tanh". The last one has an output for each {each}.
layers = ["linear {hidden}", "relu", "linear {outputs}"]

[train]
# Passes over the training samples.
epochs = {epochs}
# Samples a step, over all miners together.
global_batch = {batch}
# "adamw" or "adam" (lr, weight_decay), or "sgd" (lr, momentum, nesterov, weight_decay).
optimizer = "adamw"
lr = 0.001
weight_decay = 0.01
# All randomness comes from it: the same seed gives the same model. This one was drawn for this file.
seed = {seed}
# Steps from one checkpoint to the next: a failure costs at most the work since the last.
checkpoint_steps = {checkpoint_steps}

[group]
# How many miners train together, 1 to 16.
miners = 3

[budget]
# The most that it may cost. It is held while the task runs; what is not used comes back.
max_cost = "1 CTM"

[publish]
# Who may use the model: "owner" (you alone), "free", or "paid" with a fee a use.
access = "owner"
"#,
            test = info.test_samples,
            name = name_of(path),
            input = info.input,
            hidden = hidden(info),
            epochs = epochs(samples),
            checkpoint_steps = checkpoint_steps(samples, batch),
        )
    }
}
