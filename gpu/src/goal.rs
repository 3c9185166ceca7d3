//! What a model's outputs are fitted to: which targets it takes, the loss, and how good answers are.

use cryptomind_protocol::model::Loss;

use crate::dataset::Samples;
use crate::forward::empty;
use crate::kernel::{add, loss};

/// What is asked of samples and outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Goal {
    pub(crate) loss: Loss,
    /// Values of a sample.
    pub(crate) inputs: usize,
    /// Classes, or values.
    pub(crate) outputs: usize,
    /// Tokens of a sample that each have such outputs.
    pub(crate) positions: usize,
}

impl Goal {
    /// Classes that a dataset may have at most, where numbers are fitted to its labels: two are 0 and 1 of one output,
    /// else each class has one.
    pub(crate) fn classes(&self) -> usize {
        match self.loss {
            Loss::CrossEntropy => self.outputs,
            Loss::MeanSquare | Loss::BinaryCrossEntropy => self.outputs.max(2),
        }
    }
}

/// The targets of some rows.
#[derive(Default)]
pub(crate) struct Targets {
    pub(crate) labels: Vec<u32>,
    pub(crate) values: Vec<f32>,
}

impl Targets {
    /// Fetches those of these rows, which the samples' check let pass.
    pub(crate) fn gather(&mut self, goal: &Goal, data: &Samples, rows: &[u32]) {
        empty(&mut self.labels, rows.len() * data.labels_per_sample());
        data.labels_of(rows, &mut self.labels);
        if goal.loss == Loss::CrossEntropy {
            return;
        }
        empty(&mut self.values, rows.len() * goal.outputs * goal.positions);
        if data.target_width() > 0 {
            return data.values_of(rows, &mut self.values);
        }
        for label in &self.labels {
            match goal.outputs {
                1 => self.values.push(*label as f32),
                width => {
                    let is_it = |class: usize| f32::from(u8::from(class == *label as usize));
                    self.values.extend((0..width).map(is_it));
                }
            }
        }
    }

    /// Values of one sample: labels, and the numbers that a loss is fitted to.
    pub(crate) fn values_of_one(goal: &Goal) -> usize {
        match goal.loss {
            Loss::CrossEntropy => goal.positions,
            Loss::MeanSquare | Loss::BinaryCrossEntropy => goal.positions * (1 + goal.outputs),
        }
    }

    /// Bytes of its buffers, filled or not.
    #[cfg(test)]
    pub(crate) fn held_bytes(&self) -> usize {
        self.labels.capacity() * size_of::<u32>() + self.values.capacity() * size_of::<f32>()
    }

    /// The sum of the losses of these outputs, with the gradient by each. Of a sequence, the mean over its tokens.
    pub(crate) fn loss(
        &self,
        goal: &Goal,
        outputs: &[f32],
        gradient: &mut [f32],
        threads: usize,
    ) -> f64 {
        let width = goal.outputs;
        let values = &self.values;
        let sum = match goal.loss {
            Loss::CrossEntropy => {
                loss::cross_entropy(outputs, &self.labels, width, gradient, threads)
            }
            Loss::MeanSquare => loss::mean_square(outputs, values, width, gradient, threads),
            Loss::BinaryCrossEntropy => {
                loss::binary_cross_entropy(outputs, values, width, gradient, threads)
            }
        };
        if goal.positions > 1 {
            add::scale(gradient, 1.0 / goal.positions as f32, threads);
        }
        sum / goal.positions as f64
    }
}

/// How good a model is on samples that it was not fitted to, or was.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Evaluation {
    /// Samples.
    pub samples: usize,
    /// Mean loss: of cross-entropy, nats a label.
    pub loss: f64,
    /// Share of labels whose class, or of values on whose side of one half, the answer is most probably. None where
    /// numbers are predicted.
    pub accuracy: Option<f64>,
    /// e to the loss, of cross-entropy: among how many classes as likely as each other it would have to choose.
    pub perplexity: Option<f64>,
    /// Mean of the absolute differences, where numbers are predicted.
    pub mean_absolute_error: Option<f64>,
}

/// Sums over samples, of which an [`Evaluation`] comes.
#[derive(Default)]
pub(crate) struct Tally {
    samples: usize,
    loss: f64,
    right: u64,
    judged: u64,
    absolute: f64,
}

impl Tally {
    /// Counts the outputs of some samples.
    pub(crate) fn add(
        &mut self,
        goal: &Goal,
        targets: &Targets,
        outputs: &[f32],
        gradient: &mut Vec<f32>,
        threads: usize,
    ) {
        gradient.resize(outputs.len(), 0.0);
        self.loss += targets.loss(goal, outputs, gradient, threads);
        self.samples += outputs.len() / (goal.outputs * goal.positions);
        let rows = outputs.chunks_exact(goal.outputs);
        let pairs = || outputs.iter().zip(&targets.values);
        let (right, judged) = match goal.loss {
            Loss::CrossEntropy => {
                let rows = rows.zip(&targets.labels);
                let right = rows.filter(|(row, label)| largest(row) == **label as usize);
                (right.count(), targets.labels.len())
            }
            Loss::BinaryCrossEntropy => {
                let right = pairs().filter(|(x, target)| (**x > 0.0) == (**target > 0.5));
                (right.count(), outputs.len())
            }
            Loss::MeanSquare => {
                let off = pairs().map(|(x, target)| f64::from((x - target).abs()));
                self.absolute += off.sum::<f64>();
                (0, outputs.len())
            }
        };
        self.right += right as u64;
        self.judged += judged as u64;
    }

    /// What it comes to; `loss` is the model's.
    pub(crate) fn evaluation(&self, loss: Loss) -> Evaluation {
        let mean = self.loss / self.samples as f64;
        let judged = self.judged as f64;
        let is_value = loss == Loss::MeanSquare;
        Evaluation {
            samples: self.samples,
            loss: mean,
            accuracy: (!is_value).then(|| self.right as f64 / judged),
            perplexity: (loss == Loss::CrossEntropy).then(|| mean.exp()),
            mean_absolute_error: is_value.then(|| self.absolute / judged),
        }
    }
}

/// Index of the largest value; the first of equals.
pub(crate) fn largest(row: &[f32]) -> usize {
    let larger = |best: usize, at: usize| if row[at] > row[best] { at } else { best };
    (0..row.len()).fold(0, larger)
}
