//! How parameters follow gradients: the rule of a training run, with its learning rates, its
//! clipping and what it spares from decay. The passes themselves are in [`crate::kernel::descent`].
//!
//! Only additions, multiplications, divisions and square roots: each is exact to the last bit on
//! every machine (IEEE 754), so members with different processors keep equal states. Multiply-adds
//! are never fused here for that reason. Scalars are computed in f64 and rounded once a step.

mod rate;

use std::ops::Range;

use cryptomind_protocol::task::{DecayGroup, Optimizer, TrainSpec};

use crate::kernel::descent::{self, Arena, Kind, Scale, Segment};
use crate::weights::Tensor;
use rate::Rate;

/// What PyTorch adds to a norm before it divides by it.
const NORM_EPS: f64 = 1e-6;
/// Ends of names of tensors that are no parameters but batch norm's running statistics.
const RUNNING: [&str; 2] = ["running_mean", "running_var"];

/// A training run's state after `step` steps: parameters and the optimiser's moments, arenas in
/// canonical order.
#[derive(Clone)]
pub(crate) struct State {
    /// Steps done.
    pub(crate) step: u64,
    /// The parameters.
    pub(crate) parameters: Vec<f32>,
    /// As many as [`Rule::moments`] names.
    pub(crate) moments: Vec<Vec<f32>>,
}

impl State {
    /// The state before the first step.
    pub(crate) fn new(parameters: Vec<f32>, rule: &Rule) -> Self {
        let moments = rule.moments().iter().map(|_| vec![0.0; parameters.len()]);
        Self {
            step: 0,
            moments: moments.collect(),
            parameters,
        }
    }
}

/// How the parameters of a training run follow their gradients.
pub(crate) struct Rule {
    formula: Formula,
    rate: Rate,
    /// The most that the mean gradient's norm may be.
    clip_norm: Option<f64>,
    segments: Vec<Segment>,
    threads: usize,
}

/// An optimizer with its constants in the precision in which PyTorch takes them.
enum Formula {
    Adam(Adam),
    Sgd(Sgd),
}

/// `torch.optim.AdamW` where weight decay is decoupled, `torch.optim.Adam` where it is not.
struct Adam {
    beta1: f64,
    beta2: f64,
    eps: f64,
    weight_decay: f64,
    is_decoupled: bool,
}

/// `torch.optim.SGD` without dampening.
struct Sgd {
    momentum: f32,
    nesterov: bool,
    weight_decay: f32,
}

impl Rule {
    /// The rule of such a run over these tensors, in the arena's order, on at most `threads`
    /// threads.
    pub(crate) fn new(train: &TrainSpec, tensors: &[Tensor], threads: usize) -> Self {
        Self {
            formula: Formula::of(&train.optimizer),
            rate: Rate::new(train),
            clip_norm: train.clip_norm.map(as_written),
            segments: segments(tensors, train.decay),
            threads,
        }
    }

    /// Names of the moments that it keeps, as in a checkpoint.
    pub(crate) const fn moments(&self) -> &'static [&'static str] {
        match &self.formula {
            Formula::Adam(rule) if rule.is_decoupled => &["adamw.exp_avg", "adamw.exp_avg_sq"],
            Formula::Adam(_) => &["adam.exp_avg", "adam.exp_avg_sq"],
            Formula::Sgd(Sgd { momentum: 0.0, .. }) => &[],
            Formula::Sgd(_) => &["sgd.momentum_buffer"],
        }
    }

    /// Which of the moments is a mean of squares, if one is.
    pub(crate) const fn squares(&self) -> Option<usize> {
        match &self.formula {
            Formula::Adam(_) => Some(1),
            Formula::Sgd(_) => None,
        }
    }

    /// The learning rate of the step that follows `done` steps.
    pub(crate) fn learning_rate(&self, done: u64) -> f64 {
        self.rate.after(done)
    }

    /// Whether a place of the next state follows from all gradients, not from its own alone: then it cannot be had
    /// before they are all there.
    pub(crate) const fn needs_all(&self) -> bool {
        self.clip_norm.is_some()
    }

    /// Writes to this part of `to` what becomes of that of `from` by `gradients`, the whole arena of sums over `count`
    /// samples; where not all of it is needed, the others' places are not read. Both states were made for this rule. Whatever
    /// the parts of a state, it gets the same bits.
    pub(crate) fn apply(
        &self,
        from: &State,
        gradients: &[f32],
        count: u32,
        part: Range<usize>,
        to: &mut State,
    ) {
        to.step = from.step + 1;
        let scale = self.scale(gradients, count);
        let lr = self.rate.after(from.step);
        let parameters = Arena {
            from: &from.parameters[part.clone()],
            to: &mut to.parameters[part.clone()],
        };
        let mut moments = from.moments.iter().zip(&mut to.moments);
        let mut moment = || {
            let (from, to) = moments.next()?;
            Some(Arena {
                from: &from[part.clone()],
                to: &mut to[part.clone()],
            })
        };
        let segments = &descent::part(&self.segments, part.clone());
        let (gradients, threads) = (&gradients[part.clone()], self.threads);
        match &self.formula {
            Formula::Adam(rule) => {
                let (Some(first), Some(second)) = (moment(), moment()) else {
                    unreachable!("a state made for Adam has two moments")
                };
                let step = rule.step(to.step, lr, scale);
                let moments = [first, second];
                descent::adam(&step, segments, gradients, parameters, moments, threads);
            }
            Formula::Sgd(rule) => {
                let step = rule.step(lr, scale);
                descent::sgd(&step, segments, gradients, parameters, moment(), threads);
            }
        }
    }

    /// What sums over `count` samples are multiplied by. The norm is that of the mean gradient.
    fn scale(&self, gradients: &[f32], count: u32) -> Scale {
        let count = f64::from(count);
        let clip = self.clip_norm.map_or(1.0, |most| {
            let squares = descent::squares(&self.segments, gradients, self.threads);
            (most / (squares.sqrt() / count + NORM_EPS)).min(1.0)
        });
        Scale {
            mean: (1.0 / count) as f32,
            clipped: (clip / count) as f32,
        }
    }
}

impl Formula {
    fn of(optimizer: &Optimizer) -> Self {
        let is_decoupled = matches!(optimizer, Optimizer::Adamw { .. });
        match *optimizer {
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
            } => Self::Adam(Adam {
                beta1: as_written(beta1),
                beta2: as_written(beta2),
                eps: as_written(eps),
                weight_decay: as_written(weight_decay),
                is_decoupled,
            }),
            Optimizer::Sgd {
                momentum,
                nesterov,
                weight_decay,
                ..
            } => Self::Sgd(Sgd {
                momentum,
                nesterov,
                weight_decay,
            }),
        }
    }
}

impl Adam {
    /// The scalars of a step, of which there are `step` with it.
    fn step(&self, step: u64, lr: f64, scale: Scale) -> descent::Adam {
        let (decoupled, coupled) = match self.is_decoupled {
            true => (self.weight_decay, 0.0),
            false => (0.0, self.weight_decay),
        };
        descent::Adam {
            scale,
            keep: (1.0 - lr * decoupled) as f32,
            coupled: coupled as f32,
            first: (1.0 - self.beta1) as f32,
            keep_second: self.beta2 as f32,
            second: (1.0 - self.beta2) as f32,
            root_bias: (1.0 - power(self.beta2, step)).sqrt() as f32,
            eps: self.eps as f32,
            step_size: (lr / (1.0 - power(self.beta1, step))) as f32,
        }
    }
}

impl Sgd {
    const fn step(&self, lr: f64, scale: Scale) -> descent::Sgd {
        descent::Sgd {
            scale,
            lr: lr as f32,
            momentum: self.momentum,
            nesterov: self.nesterov,
            coupled: self.weight_decay,
        }
    }
}

/// What a step does to each part of the arena. Neighbours that are treated alike are one segment.
fn segments(tensors: &[Tensor], decay: DecayGroup) -> Vec<Segment> {
    let mut segments: Vec<Segment> = Vec::new();
    let mut place = 0;
    for tensor in tensors {
        let (start, kind) = (place, kind(tensor, decay));
        place += tensor.len();
        match segments.last_mut() {
            Some(last) if last.kind == kind => last.range.end = place,
            _ => segments.push(Segment {
                range: start..place,
                kind,
            }),
        }
    }
    segments
}

fn kind(tensor: &Tensor, decay: DecayGroup) -> Kind {
    if RUNNING.iter().any(|end| tensor.name.ends_with(end)) {
        return Kind::Follow;
    }
    match decay {
        DecayGroup::Matrices if tensor.shape.len() < 2 => Kind::Plain,
        DecayGroup::All | DecayGroup::Matrices => Kind::Decay,
    }
}

/// The number that people meant: 0.999 is 0.999 in f64 too, not the nearest f32 widened, as
/// 1 − β₂ would otherwise be off by 5·10⁻⁵.
fn as_written(value: f32) -> f64 {
    // A finite f32's shortest decimal form always parses.
    value.to_string().parse().unwrap_or(f64::from(value))
}

/// `base` to the power of `exponent` by squaring: the same bits on every machine, which `powi` and
/// `powf` do not promise.
fn power(base: f64, mut exponent: u64) -> f64 {
    let (mut result, mut square) = (1.0, base);
    while exponent > 0 {
        if exponent & 1 == 1 {
            result *= square;
        }
        square *= square;
        exponent >>= 1;
    }
    result
}

#[cfg(test)]
mod tests;
