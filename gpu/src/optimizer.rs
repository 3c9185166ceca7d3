//! How parameters follow gradients: AdamW and SGD with momentum by PyTorch's formulas, each in one
//! pass over the arenas that reads one state and writes the next.
//!
//! Only additions, multiplications, divisions and square roots: each is exact to the last bit on
//! every machine (IEEE 754), so members with different processors keep equal states. Multiply-adds
//! are never fused here for that reason.

use cryptomind_protocol::task::Optimizer;
use pulp::Arch;

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

/// An optimizer with its constants in the precision in which PyTorch takes them.
pub(crate) enum Rule {
    /// Loshchilov and Hutter, 2019, as `torch.optim.AdamW` computes it.
    Adamw(Adamw),
    /// `torch.optim.SGD` without dampening.
    Sgd { lr: f32, momentum: f32 },
}

pub(crate) struct Adamw {
    lr: f64,
    beta1: f64,
    beta2: f64,
    eps: f64,
    weight_decay: f64,
}

impl Rule {
    /// The rule for these hyper-parameters.
    pub(crate) fn new(optimizer: &Optimizer) -> Self {
        match *optimizer {
            Optimizer::Adamw {
                lr,
                beta1,
                beta2,
                eps,
                weight_decay,
            } => Self::Adamw(Adamw {
                lr: as_written(lr),
                beta1: as_written(beta1),
                beta2: as_written(beta2),
                eps: as_written(eps),
                weight_decay: as_written(weight_decay),
            }),
            Optimizer::Sgd { lr, momentum } => Self::Sgd { lr, momentum },
        }
    }

    /// Names of the moments that it keeps, as in a checkpoint.
    pub(crate) const fn moments(&self) -> &'static [&'static str] {
        match self {
            Self::Adamw(_) => &["adamw.exp_avg", "adamw.exp_avg_sq"],
            Self::Sgd { momentum: 0.0, .. } => &[],
            Self::Sgd { .. } => &["sgd.momentum_buffer"],
        }
    }

    /// Writes to `to` what becomes of `from` by `gradients`, sums over `count` samples. Both states
    /// were made for this rule.
    pub(crate) fn apply(&self, from: &State, gradients: &[f32], count: u32, to: &mut State) {
        to.step = from.step + 1;
        let mean = 1.0 / count as f32;
        let parameters = (&from.parameters[..], &mut to.parameters[..]);
        match self {
            Self::Adamw(rule) => {
                let step = rule.step(to.step, mean);
                let (first, second) = to.moments.split_at_mut(1);
                let first = (&from.moments[0][..], &mut first[0][..]);
                let second = (&from.moments[1][..], &mut second[0][..]);
                Arch::new().dispatch(|| adamw(&step, gradients, parameters, first, second));
            }
            Self::Sgd { lr, momentum } => {
                let buffer = from.moments.first().zip(to.moments.first_mut());
                let buffer = buffer.map(|(from, to)| (&from[..], &mut to[..]));
                let (lr, momentum) = (*lr, *momentum);
                Arch::new().dispatch(|| sgd(lr, momentum, mean, gradients, parameters, buffer));
            }
        }
    }
}

impl Adamw {
    /// The scalars of one step, computed in f64 and rounded once.
    fn step(&self, step: u64, mean: f32) -> AdamwStep {
        AdamwStep {
            mean,
            decay: (1.0 - self.lr * self.weight_decay) as f32,
            first: (1.0 - self.beta1) as f32,
            keep_second: self.beta2 as f32,
            second: (1.0 - self.beta2) as f32,
            root_bias: (1.0 - power(self.beta2, step)).sqrt() as f32,
            eps: self.eps as f32,
            step_size: (self.lr / (1.0 - power(self.beta1, step))) as f32,
        }
    }
}

struct AdamwStep {
    mean: f32,
    decay: f32,
    first: f32,
    keep_second: f32,
    second: f32,
    root_bias: f32,
    eps: f32,
    step_size: f32,
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

#[inline(always)]
fn adamw(
    s: &AdamwStep,
    gradients: &[f32],
    (parameters, next): (&[f32], &mut [f32]),
    (m, m_next): (&[f32], &mut [f32]),
    (v, v_next): (&[f32], &mut [f32]),
) {
    // Equal lengths said once: the loop below then needs no bounds checks and runs on vectors.
    let n = next.len();
    let (gradients, parameters) = (&gradients[..n], &parameters[..n]);
    let (m, v) = (&m[..n], &v[..n]);
    let (m_next, v_next) = (&mut m_next[..n], &mut v_next[..n]);
    for i in 0..n {
        let g = gradients[i] * s.mean;
        let first = m[i] + (g - m[i]) * s.first;
        let second = v[i] * s.keep_second + g * g * s.second;
        let denominator = second.sqrt() / s.root_bias + s.eps;
        m_next[i] = first;
        v_next[i] = second;
        next[i] = parameters[i] * s.decay - s.step_size * (first / denominator);
    }
}

#[inline(always)]
fn sgd(
    lr: f32,
    momentum: f32,
    mean: f32,
    gradients: &[f32],
    (parameters, next): (&[f32], &mut [f32]),
    buffer: Option<(&[f32], &mut [f32])>,
) {
    let n = next.len();
    let (gradients, parameters) = (&gradients[..n], &parameters[..n]);
    match buffer {
        None => {
            for i in 0..n {
                next[i] = parameters[i] - lr * (gradients[i] * mean);
            }
        }
        Some((buffer, buffer_next)) => {
            let (buffer, buffer_next) = (&buffer[..n], &mut buffer_next[..n]);
            for i in 0..n {
                buffer_next[i] = momentum * buffer[i] + gradients[i] * mean;
                next[i] = parameters[i] - lr * buffer_next[i];
            }
        }
    }
}

#[cfg(test)]
mod tests;
