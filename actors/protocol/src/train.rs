//! How a model is trained: the passes over the data, and how parameters follow gradients.

use serde::{Deserialize, Serialize};

use crate::ring::Wire;
use crate::task::{TaskError, value};

/// How parameters follow gradients.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Optimizer {
    /// AdamW (Loshchilov and Hutter, 2019), decoupled weight decay, as `torch.optim.AdamW`.
    Adamw {
        /// Learning rate.
        lr: f32,
        /// Decay of the first moment.
        beta1: f32,
        /// Decay of the second moment.
        beta2: f32,
        /// Added to the root of the second moment.
        eps: f32,
        /// Decoupled weight decay.
        weight_decay: f32,
    },
    /// Adam (Kingma and Ba, 2015), weight decay by the gradient, as `torch.optim.Adam`.
    Adam {
        /// Learning rate.
        lr: f32,
        /// Decay of the first moment.
        beta1: f32,
        /// Decay of the second moment.
        beta2: f32,
        /// Added to the root of the second moment.
        eps: f32,
        /// Of each parameter, added to its gradient.
        weight_decay: f32,
    },
    /// Stochastic gradient descent with momentum, as `torch.optim.SGD` without dampening.
    Sgd {
        /// Learning rate.
        lr: f32,
        /// Momentum; 0 is none.
        momentum: f32,
        /// Nesterov's momentum in the form of Sutskever et al., 2013. Left out where it is not.
        #[serde(default, skip_serializing_if = "is_false")]
        nesterov: bool,
        /// Of each parameter, added to its gradient. Left out where it is 0.
        #[serde(default, skip_serializing_if = "is_zero")]
        weight_decay: f32,
    },
}

/// How the learning rate goes from step to step, as a function of the steps done. Nothing else
/// enters it, so that who resumes a run goes on at the same rate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Schedule {
    /// The optimizer's rate throughout.
    #[default]
    Constant,
    /// Linear warm-up, then half a cosine down to a rate that stays (Loshchilov and Hutter, 2017),
    /// step for step as nanoGPT's `get_lr`. With s steps done, lr·(s + 1) / (warmup + 1) while s <
    /// warmup; then min + (lr − min)·(1 + cos(π·(s − warmup) / (decay − warmup))) / 2 while s <
    /// decay; then min.
    Cosine {
        /// Steps that warm up; 0 is none.
        warmup_steps: u32,
        /// Steps until the rate is at its least, warm-up included.
        decay_steps: u32,
        /// The least rate, absolute as `lr` is.
        min_lr: f32,
    },
    /// lr·factorᵏ after k times `every_steps` steps, as `torch.optim.lr_scheduler.StepLR`.
    Step {
        /// Steps from one fall to the next.
        every_steps: u32,
        /// What is left of the rate at each fall.
        factor: f32,
    },
}

/// Which parameters weight decay is for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DecayGroup {
    /// All of them, as PyTorch's optimizers do unless told otherwise.
    #[default]
    All,
    /// Tensors of two dimensions and more: neither biases nor the weights of norms, as nanoGPT does.
    Matrices,
}

/// When the members of a group learn from each other. One way is built; those for links that are too slow for it, of which
/// members train many steps apart, have their place here: whoever does not know one refuses the task.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exchange {
    /// At every step they sum their gradients, and have computed what one machine would have.
    #[default]
    EveryStep,
}

impl Exchange {
    // The type of the argument is serde's.
    const fn is_every_step(&self) -> bool {
        matches!(self, Self::EveryStep)
    }
}

/// Hyper-parameters of a training run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainSpec {
    /// Passes over the training split.
    pub epochs: u32,
    /// Samples a step, over all members of the group. The last step of an epoch may have fewer.
    pub global_batch: u32,
    /// How parameters follow gradients.
    pub optimizer: Optimizer,
    /// Whence all randomness of the run comes.
    pub seed: u64,
    /// Steps from one checkpoint to the next: what is earned at once, and what a failure may cost.
    pub checkpoint_steps: u32,
    /// The most that the norm of a step's mean gradient, over all parameters, may be: a longer one
    /// is scaled down as `torch.nn.utils.clip_grad_norm_` does (Pascanu et al., 2013). Left out
    /// where it may be any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clip_norm: Option<f32>,
    /// How the learning rate goes. Left out where it stays.
    #[serde(default, skip_serializing_if = "Schedule::is_constant")]
    pub schedule: Schedule,
    /// Which parameters weight decay is for. Left out where it is for all.
    #[serde(default, skip_serializing_if = "DecayGroup::is_all")]
    pub decay: DecayGroup,
    /// How gradients travel between the members of a group. Left out where they travel whole.
    #[serde(default, skip_serializing_if = "Wire::is_exact")]
    pub wire: Wire,
    /// When members learn from each other. Left out where they do at every step.
    #[serde(default, skip_serializing_if = "Exchange::is_every_step")]
    pub exchange: Exchange,
}

impl Default for TrainSpec {
    /// One pass, and for the rest what a task file means that does not say.
    fn default() -> Self {
        Self {
            epochs: 1,
            global_batch: 32,
            optimizer: Optimizer::adamw(1e-3),
            seed: 0,
            checkpoint_steps: 100,
            clip_norm: None,
            schedule: Schedule::Constant,
            decay: DecayGroup::All,
            wire: Wire::F32,
            exchange: Exchange::EveryStep,
        }
    }
}

// The type of the argument is serde's.
const fn is_false(value: &bool) -> bool {
    !*value
}

/// Of +0 alone: −0, which nobody writes, must come back from the wire as it went.
const fn is_zero(value: &f32) -> bool {
    value.to_bits() == 0
}

fn positive(field: &'static str, v: f32) -> Result<(), TaskError> {
    match v.is_finite() && v > 0.0 {
        true => Ok(()),
        false => Err(value(field, format!("{v} is not above 0"))),
    }
}

fn fraction(field: &'static str, v: f32) -> Result<(), TaskError> {
    match (0.0..1.0).contains(&v) {
        true => Ok(()),
        false => Err(value(field, format!("{v} is not in 0..1"))),
    }
}

impl Optimizer {
    /// The usual AdamW at this learning rate.
    pub const fn adamw(lr: f32) -> Self {
        Self::Adamw {
            lr,
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            weight_decay: 0.01,
        }
    }

    /// The usual Adam at this learning rate.
    pub const fn adam(lr: f32) -> Self {
        Self::Adam {
            lr,
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            weight_decay: 0.0,
        }
    }

    /// Descent with this momentum; 0 is none.
    pub const fn sgd(lr: f32, momentum: f32) -> Self {
        Self::Sgd {
            lr,
            momentum,
            nesterov: false,
            weight_decay: 0.0,
        }
    }

    /// The learning rate, which a [`Schedule`] may lower.
    pub const fn lr(&self) -> f32 {
        match self {
            Self::Adamw { lr, .. } | Self::Adam { lr, .. } | Self::Sgd { lr, .. } => *lr,
        }
    }

    /// Values that it keeps for each parameter from step to step.
    pub const fn moments(&self) -> usize {
        match self {
            Self::Adamw { .. } | Self::Adam { .. } => 2,
            Self::Sgd { momentum: 0.0, .. } => 0,
            Self::Sgd { .. } => 1,
        }
    }

    fn check(&self) -> Result<(), TaskError> {
        positive("train.lr", self.lr())?;
        match self {
            Self::Adamw {
                beta1,
                beta2,
                eps,
                weight_decay,
                ..
            }
            | Self::Adam {
                beta1,
                beta2,
                eps,
                weight_decay,
                ..
            } => {
                fraction("train.beta1", *beta1)?;
                fraction("train.beta2", *beta2)?;
                positive("train.eps", *eps)?;
                fraction("train.weight_decay", *weight_decay)
            }
            Self::Sgd {
                momentum,
                nesterov,
                weight_decay,
                ..
            } => {
                fraction("train.momentum", *momentum)?;
                fraction("train.weight_decay", *weight_decay)?;
                if *nesterov && *momentum == 0.0 {
                    return Err(value(
                        "train.nesterov",
                        "there is no momentum: give train.momentum, such as 0.9",
                    ));
                }
                Ok(())
            }
        }
    }
}

impl Schedule {
    fn is_constant(&self) -> bool {
        *self == Self::Constant
    }

    fn check(&self, lr: f32) -> Result<(), TaskError> {
        match *self {
            Self::Constant => Ok(()),
            Self::Cosine {
                warmup_steps,
                decay_steps,
                min_lr,
            } => {
                if decay_steps == 0 {
                    return Err(value("train.decay_steps", "0: give 1 or more"));
                }
                if warmup_steps >= decay_steps {
                    let reason = format!("{warmup_steps} is not below decay_steps, {decay_steps}");
                    return Err(value("train.warmup_steps", reason));
                }
                if !(0.0..=lr).contains(&min_lr) {
                    let reason = format!("{min_lr} is not in 0 to lr, {lr}");
                    return Err(value("train.min_lr", reason));
                }
                Ok(())
            }
            Self::Step {
                every_steps,
                factor,
            } => {
                if every_steps == 0 {
                    return Err(value("train.step_every", "0: give 1 or more"));
                }
                positive("train.step_factor", factor)?;
                if factor > 1.0 {
                    let reason = format!("{factor}: the rate falls, give 1 at most");
                    return Err(value("train.step_factor", reason));
                }
                Ok(())
            }
        }
    }
}

impl DecayGroup {
    fn is_all(&self) -> bool {
        *self == Self::All
    }
}

impl TrainSpec {
    /// Refuses hyper-parameters that make no sense, by field.
    pub fn check(&self) -> Result<(), TaskError> {
        if !(1..=100_000).contains(&self.epochs) {
            return Err(value(
                "train.epochs",
                format!("{}: give 1 to 100000", self.epochs),
            ));
        }
        if !(1..=1 << 20).contains(&self.global_batch) {
            return Err(value(
                "train.global_batch",
                format!("{}: give 1 to 1048576", self.global_batch),
            ));
        }
        if self.checkpoint_steps == 0 {
            return Err(value("train.checkpoint_steps", "0: give 1 or more"));
        }
        self.optimizer.check()?;
        if let Some(norm) = self.clip_norm {
            positive("train.clip_norm", norm)?;
        }
        self.schedule.check(self.optimizer.lr())
    }

    /// Steps of one epoch over `samples` samples.
    pub const fn steps_per_epoch(&self, samples: u64) -> u64 {
        samples.div_ceil(self.global_batch as u64)
    }

    /// Steps of the whole run over `samples` samples.
    pub const fn total_steps(&self, samples: u64) -> u64 {
        self.steps_per_epoch(samples)
            .saturating_mul(self.epochs as u64)
    }

    /// Samples that the first `steps` steps of the run process; all of them where it has no more.
    pub fn samples_after(&self, steps: u64, samples: u64) -> u64 {
        let per_epoch = self.steps_per_epoch(samples);
        if per_epoch == 0 {
            return 0;
        }
        let steps = steps.min(self.total_steps(samples));
        let (epochs, rest) = (steps / per_epoch, steps % per_epoch);
        let begun = rest
            .saturating_mul(u64::from(self.global_batch))
            .min(samples);
        epochs.saturating_mul(samples).saturating_add(begun)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec;
    use proptest::prelude::*;

    fn refused(train: &TrainSpec) -> &'static str {
        match train.check() {
            Err(TaskError::Value { field, .. }) => field,
            other => panic!("{other:?}"),
        }
    }

    fn with(change: impl FnOnce(&mut TrainSpec)) -> TrainSpec {
        let mut train = TrainSpec::default();
        change(&mut train);
        train
    }

    fn optimizer(optimizer: Optimizer) -> TrainSpec {
        with(|t| t.optimizer = optimizer)
    }

    fn schedule(schedule: Schedule) -> TrainSpec {
        with(|t| t.schedule = schedule)
    }

    const fn cosine(warmup_steps: u32, decay_steps: u32, min_lr: f32) -> Schedule {
        Schedule::Cosine {
            warmup_steps,
            decay_steps,
            min_lr,
        }
    }

    const fn falls(every_steps: u32, factor: f32) -> Schedule {
        Schedule::Step {
            every_steps,
            factor,
        }
    }

    const fn descent(momentum: f32, nesterov: bool, weight_decay: f32) -> Optimizer {
        Optimizer::Sgd {
            lr: 0.1,
            momentum,
            nesterov,
            weight_decay,
        }
    }

    #[test]
    fn an_optimizer_that_makes_no_sense_is_refused_by_field() {
        optimizer(Optimizer::adam(1e-3)).check().unwrap();
        optimizer(Optimizer::sgd(0.1, 0.0)).check().unwrap();
        optimizer(descent(0.9, true, 1e-4)).check().unwrap();
        assert_eq!(refused(&optimizer(Optimizer::adam(0.0))), "train.lr");
        assert_eq!(
            refused(&optimizer(descent(0.0, true, 0.0))),
            "train.nesterov"
        );
        for decay in [-0.1, 1.0, f32::NAN] {
            let spec = optimizer(descent(0.9, false, decay));
            assert_eq!(refused(&spec), "train.weight_decay");
        }
    }

    #[test]
    fn a_norm_to_clip_at_is_above_zero() {
        with(|t| t.clip_norm = Some(1.0)).check().unwrap();
        for norm in [0.0, -1.0, f32::INFINITY, f32::NAN] {
            let spec = with(|t| t.clip_norm = Some(norm));
            assert_eq!(refused(&spec), "train.clip_norm");
        }
    }

    #[test]
    fn a_schedule_that_makes_no_sense_is_refused_by_field() {
        for right in [
            cosine(0, 1, 0.0),
            cosine(9, 10, 1e-3),
            falls(1, 1.0),
            falls(u32::MAX, 0.1),
        ] {
            schedule(right).check().unwrap();
        }
        let cases = [
            (cosine(0, 0, 0.0), "train.decay_steps"),
            (cosine(10, 10, 0.0), "train.warmup_steps"),
            (cosine(0, 10, 1.1e-3), "train.min_lr"),
            (cosine(0, 10, -1e-9), "train.min_lr"),
            (cosine(0, 10, f32::NAN), "train.min_lr"),
            (falls(0, 0.1), "train.step_every"),
            (falls(1, 0.0), "train.step_factor"),
            (falls(1, 1.5), "train.step_factor"),
        ];
        for (wrong, field) in cases {
            assert_eq!(refused(&schedule(wrong)), field, "{wrong:?}");
        }
    }

    /// Whoever signed a task before these fields were there must find its bytes again.
    #[test]
    fn what_is_not_asked_for_is_not_sent() {
        let keys = |train: &TrainSpec| {
            let bytes = codec::encode(train);
            assert_eq!(codec::decode::<TrainSpec>(&bytes).as_ref(), Ok(train));
            let value: ciborium::Value = ciborium::from_reader(&bytes[..]).unwrap();
            value.as_map().unwrap().len()
        };
        assert_eq!(keys(&TrainSpec::default()), 5);
        assert_eq!(keys(&schedule(falls(1, 0.5))), 6);
        assert_eq!(keys(&with(|t| t.decay = DecayGroup::Matrices)), 6);
        assert_eq!(keys(&with(|t| t.clip_norm = Some(0.5))), 6);
        let bytes =
            |momentum, nesterov, decay| codec::encode(&descent(momentum, nesterov, decay)).len();
        let plain = bytes(0.5, false, 0.0);
        assert!(plain < bytes(0.5, true, 0.0) && plain < bytes(0.5, false, 0.5));
        assert!(plain < bytes(0.5, false, -0.0));
    }

    #[test]
    fn an_exchange_that_is_not_known_is_refused_by_name() {
        let asking = |exchange: &str| {
            let bytes = codec::encode(&TrainSpec::default());
            let mut value: ciborium::Value = ciborium::from_reader(&bytes[..]).unwrap();
            let key = (ciborium::Value::from("exchange"), exchange.into());
            value.as_map_mut().unwrap().push(key);
            let mut bytes = Vec::new();
            ciborium::into_writer(&value, &mut bytes).unwrap();
            codec::decode::<TrainSpec>(&bytes)
        };
        assert_eq!(asking("every_step"), Ok(TrainSpec::default()));
        let refusal = asking("every_hour").unwrap_err().to_string();
        assert!(refusal.contains("every_hour"), "{refusal}");
    }

    proptest! {
        /// The closed form agrees with counting step by step.
        #[test]
        fn samples_after_counts_each_step(samples in 1u64..500, batch in 1u32..64, epochs in 1u32..4) {
            let train = TrainSpec { epochs, global_batch: batch, ..TrainSpec::default() };
            let mut seen = 0;
            for step in 0..train.total_steps(samples) {
                prop_assert_eq!(train.samples_after(step, samples), seen);
                let within = (step % train.steps_per_epoch(samples)) * u64::from(batch);
                seen += u64::from(batch).min(samples - within);
            }
            prop_assert_eq!(train.samples_after(train.total_steps(samples), samples), seen);
            prop_assert_eq!(seen, samples * u64::from(epochs));
        }
    }
}
