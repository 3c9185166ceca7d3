//! The section `[train]` of a task file.

use cryptomind_protocol::ring::Wire;
use cryptomind_protocol::task::{DecayGroup, Exchange, Optimizer, Schedule, TrainSpec};

use crate::convert::{decimal, truth, whole};
use crate::reader::{Entry, Reader};

#[derive(Clone, Copy)]
enum OptimizerName {
    Adamw,
    Adam,
    Sgd,
}

#[derive(Clone, Copy)]
enum ScheduleName {
    Constant,
    Cosine,
    Step,
}

/// What is left of the rate at each fall, where a file does not say: PyTorch's default.
const STEP_FACTOR: f32 = 0.1;

/// Reads the section, which must be there.
pub(super) fn read(reader: &mut Reader<'_>) -> Option<TrainSpec> {
    let count = |e: &Entry<'_>| whole(e, 0..=u32::MAX);
    let usual = TrainSpec::default();
    let epochs = reader.required("train.epochs", "for example epochs = 30", count);
    let global_batch = reader.take("train.global_batch", usual.global_batch, count);
    let optimizer = optimizer(reader, usual.optimizer.lr());
    let seed = reader.take("train.seed", usual.seed, |e| whole(e, 0..=i64::MAX as u64));
    let checkpoint_steps = reader.take("train.checkpoint_steps", usual.checkpoint_steps, count);
    let clip_norm = reader.optional("train.clip_norm", decimal);
    let schedule = schedule(reader);
    let decays = [("all", DecayGroup::All), ("matrices", DecayGroup::Matrices)];
    let decay = reader.choice("train.decay", usual.decay, &decays);
    let wires = [
        ("f32", Wire::F32),
        ("bf16", Wire::Bf16),
        ("int8", Wire::Int8),
    ];
    let wire = reader.choice("train.wire", usual.wire, &wires);
    let exchanges = [("every_step", Exchange::EveryStep)];
    let exchange = reader.choice("train.exchange", usual.exchange, &exchanges);
    Some(TrainSpec {
        epochs: epochs?,
        global_batch,
        optimizer,
        seed,
        checkpoint_steps,
        clip_norm,
        schedule: schedule?,
        decay,
        wire,
        exchange,
    })
}

fn optimizer(reader: &mut Reader<'_>, usual_lr: f32) -> Optimizer {
    let names = [
        ("adamw", OptimizerName::Adamw),
        ("adam", OptimizerName::Adam),
        ("sgd", OptimizerName::Sgd),
    ];
    let name = reader.choice("train.optimizer", OptimizerName::Adamw, &names);
    let lr = reader.take("train.lr", usual_lr, decimal);
    match name {
        OptimizerName::Adamw => {
            forbid_descent(reader, "adamw");
            fill(reader, Optimizer::adamw(lr))
        }
        OptimizerName::Adam => {
            forbid_descent(reader, "adam");
            fill(reader, Optimizer::adam(lr))
        }
        OptimizerName::Sgd => {
            forbid_moments(reader);
            fill(reader, Optimizer::sgd(lr, 0.0))
        }
    }
}

/// Replaces the numbers that the file gives.
fn fill(reader: &mut Reader<'_>, mut optimizer: Optimizer) -> Optimizer {
    let mut give = |key, value: &mut f32| *value = reader.take(key, *value, decimal);
    match &mut optimizer {
        Optimizer::Adamw {
            beta1,
            beta2,
            eps,
            weight_decay,
            ..
        }
        | Optimizer::Adam {
            beta1,
            beta2,
            eps,
            weight_decay,
            ..
        } => {
            give("train.beta1", beta1);
            give("train.beta2", beta2);
            give("train.eps", eps);
            give("train.weight_decay", weight_decay);
        }
        Optimizer::Sgd {
            momentum,
            nesterov,
            weight_decay,
            ..
        } => {
            give("train.momentum", momentum);
            give("train.weight_decay", weight_decay);
            *nesterov = reader.take("train.nesterov", *nesterov, truth);
        }
    }
    optimizer
}

fn forbid_descent(reader: &mut Reader<'_>, name: &str) {
    for key in ["train.momentum", "train.nesterov"] {
        let message = format!("`{}` is for optimizer = \"sgd\"", short(key));
        let help = format!("{name} has beta1 and beta2 (0.9 and 0.999 by default)");
        reader.forbid(key, &message, &help);
    }
}

fn forbid_moments(reader: &mut Reader<'_>) {
    for key in ["train.beta1", "train.beta2", "train.eps"] {
        let message = format!("`{}` is for optimizer = \"adamw\" and \"adam\"", short(key));
        let help = "sgd has lr, momentum, nesterov and weight_decay";
        reader.forbid(key, &message, help);
    }
}

fn schedule(reader: &mut Reader<'_>) -> Option<Schedule> {
    let names = [
        ("constant", ScheduleName::Constant),
        ("cosine", ScheduleName::Cosine),
        ("step", ScheduleName::Step),
    ];
    let name = reader.choice("train.schedule", ScheduleName::Constant, &names);
    let count = |e: &Entry<'_>| whole(e, 0..=u32::MAX);
    if !matches!(name, ScheduleName::Cosine) {
        let keys = ["train.warmup_steps", "train.decay_steps", "train.min_lr"];
        forbid_schedule(reader, &keys, "cosine");
    }
    if !matches!(name, ScheduleName::Step) {
        let keys = ["train.step_every", "train.step_factor"];
        forbid_schedule(reader, &keys, "step");
    }
    match name {
        ScheduleName::Constant => Some(Schedule::Constant),
        ScheduleName::Cosine => {
            let help = "the steps until the rate is at its least, for example decay_steps = 5000";
            let decay_steps = reader.required("train.decay_steps", help, count);
            Some(Schedule::Cosine {
                warmup_steps: reader.take("train.warmup_steps", 0, count),
                min_lr: reader.take("train.min_lr", 0.0, decimal),
                decay_steps: decay_steps?,
            })
        }
        ScheduleName::Step => {
            let help =
                "the steps from one fall of the rate to the next, for example step_every = 1000";
            let every_steps = reader.required("train.step_every", help, count);
            Some(Schedule::Step {
                factor: reader.take("train.step_factor", STEP_FACTOR, decimal),
                every_steps: every_steps?,
            })
        }
    }
}

fn forbid_schedule(reader: &mut Reader<'_>, keys: &[&'static str], name: &str) {
    for key in keys {
        let message = format!("`{}` is for schedule = \"{name}\"", short(key));
        let help = format!("write schedule = \"{name}\", or leave it out");
        reader.forbid(key, &message, &help);
    }
}

fn short(key: &str) -> &str {
    key.trim_start_matches("train.")
}
