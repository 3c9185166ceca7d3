//! Whether two models are the same work: one that was trained, and one that was trained again.
//!
//! Training is deterministic, so on machines of one kind both have the same bits. Machines of different kinds round
//! differently; what is then compared is how far apart the two ended, as a part of the way that training went:
//!
//! ```text
//! d = ‖a − b‖ ÷ ‖b − start‖
//! ```
//!
//! Rounding every gradient otherwise moves d by far less than [`NEAR`] in the hundreds of steps of a control task (a test says by
//! how much); a run that left out a tenth of its steps moves it by far more. What is not trained cannot be near: to know
//! where b ends is to have gone there.

use std::collections::HashMap;

use cryptomind_protocol::key::Hash;
use cryptomind_protocol::model::ModelSpec;
use cryptomind_protocol::task::TrainSpec;

use crate::error::EngineError;
use crate::initial;
use crate::weights::{self, Weights};

/// The largest d of what counts as the same.
pub const NEAR: f64 = 1e-2;
/// Says which task a file is of, and nothing of the model.
const TASK: &str = "task";

/// A training in which rounding alone comes to more than this is chaotic: nothing can be said of who is right.
pub const CALM: f64 = NEAR / 10.0;

/// What became of a comparison.
#[derive(Debug, Clone, PartialEq)]
pub enum Agreement {
    /// The same, bit by bit.
    Same,
    /// The same but for rounding: d.
    Near(f64),
    /// Something else.
    Other {
        /// What it is, so that two that are equally wrong are known by it.
        digest: Hash,
        /// How it differs, for people.
        reason: String,
    },
}

impl Agreement {
    /// Whether what differs is as little as rounding makes in a training that is not chaotic.
    pub fn is_calm(&self) -> bool {
        match self {
            Self::Same => true,
            Self::Near(apart) => *apart <= CALM,
            Self::Other { .. } => false,
        }
    }

    /// Whether both are the same work.
    pub const fn is_same(&self) -> bool {
        !matches!(self, Self::Other { .. })
    }
}

/// Compares a trained model with what training it again came to, `expected`; both are safetensors files as
/// [`Session::export`](crate::session::Session::export) writes them. `answer` may be anything.
///
/// # Errors
/// Where `expected` is no such file.
pub fn compare(
    model: &ModelSpec,
    train: &TrainSpec,
    expected: &[u8],
    answer: &[u8],
) -> Result<Agreement, EngineError> {
    let tensors = weights::tensors(model);
    let expected = weights::read(expected, &tensors)?;
    let digest = Hash::of(answer);
    let other = |reason: String| Ok(Agreement::Other { digest, reason });
    let answer = match weights::read(answer, &tensors) {
        Ok(answer) => answer,
        Err(error) => return other(error.to_string()),
    };
    if said(&expected) != said(&answer) {
        return other("it says other things of its inputs".into());
    }
    let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
    let (wanted, found) = (bits(&expected.values), bits(&answer.values));
    if wanted == found {
        return Ok(Agreement::Same);
    }
    // Of the values alone: the file names its task.
    let found: Vec<u8> = found.into_iter().flat_map(u32::to_le_bytes).collect();
    let digest = Hash::of(&found);
    let other = |reason: String| Ok(Agreement::Other { digest, reason });
    let start = initial::parameters(model, train.seed);
    let apart = distance(&expected.values, &answer.values) / distance(&expected.values, &start);
    // A way of no length has no parts.
    if apart <= NEAR {
        return Ok(Agreement::Near(apart));
    }
    other(format!(
        "its weights are {:.1} % of the way apart",
        apart * 100.0
    ))
}

/// What a file says of its model: how its inputs are scaled.
fn said(file: &Weights) -> HashMap<&str, &str> {
    let entries = file.metadata.iter().map(|(k, v)| (k.as_str(), v.as_str()));
    entries.filter(|(key, _)| *key != TASK).collect()
}

fn distance(a: &[f32], b: &[f32]) -> f64 {
    let square = |(a, b): (&f32, &f32)| (f64::from(*a) - f64::from(*b)).powi(2);
    a.iter().zip(b).map(square).sum::<f64>().sqrt()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use cryptomind_protocol::model::{Layer, Loss};
    use cryptomind_protocol::task::Optimizer;

    use super::*;
    use crate::dataset::Samples;
    use crate::session::Session;

    fn model() -> ModelSpec {
        ModelSpec {
            input: vec![8],
            layers: vec![Layer::linear(16), Layer::Relu {}, Layer::linear(3)],
            loss: Loss::default(),
        }
    }

    fn train(seed: u64) -> TrainSpec {
        TrainSpec {
            epochs: 1,
            global_batch: 16,
            optimizer: Optimizer::adamw(1e-2),
            seed,
            checkpoint_steps: 100,
            ..TrainSpec::default()
        }
    }

    /// A model after so many steps.
    fn trained(seed: u64, steps: usize, task: &str) -> Vec<u8> {
        trained_by(&mut |_| (), seed, steps, task)
    }

    /// The same, on a machine that does this to each gradient.
    fn trained_by(
        round: &mut dyn FnMut(&mut [f32]),
        seed: u64,
        steps: usize,
        task: &str,
    ) -> Vec<u8> {
        let inputs = (0..64 * 8).map(|i| (i * 37 % 101) as f32 / 101.0).collect();
        let data = Samples::labelled(inputs, (0..64).map(|i| i % 3).collect(), 8, 3);
        let mut session = Session::with_threads(&model(), &train(seed), 1).unwrap();
        for step in 0..steps {
            let batch: Vec<u32> = (0..16).map(|i| ((step * 16 + i) % 64) as u32).collect();
            session.grad_step(&data, &batch, &mut |_| ()).unwrap();
            round(session.gradients());
            session.apply(16).unwrap();
            session.commit();
        }
        let said = [("task", task), ("format", "pt")];
        session.export(&BTreeMap::from(said.map(|(k, v)| (k.into(), v.into()))))
    }

    fn agreement(answer: &[u8]) -> Agreement {
        let expected = trained(1, 100, "again");
        compare(&model(), &train(1), &expected, answer).unwrap()
    }

    #[test]
    fn the_same_work_for_another_task_is_the_same() {
        assert_eq!(agreement(&trained(1, 100, "first")), Agreement::Same);
    }

    #[test]
    fn rounding_is_near_and_whatever_was_not_computed_is_other() {
        let mut rounded = trained(1, 100, "first");
        // The last bits of a hundred values.
        let end = rounded.len();
        (1..=100).for_each(|value| rounded[end - 4 * value] ^= 1);
        assert!(matches!(agreement(&rounded), Agreement::Near(d) if d < 1e-5));
        for other in [
            trained(1, 90, "lazy"),
            trained(1, 0, "start"),
            trained(2, 100, "another seed"),
        ] {
            let found = agreement(&other);
            assert!(!found.is_same(), "{found:?}");
        }
    }

    /// Another order of additions is off by some parts in 10⁷ of a gradient.
    #[test]
    fn a_machine_that_rounds_otherwise_in_every_step_is_near() {
        let mut count = 0u32;
        let mut round = |gradients: &mut [f32]| {
            for value in gradients {
                count = count.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                *value *= 1.0 + ((count >> 16) as f32 / 65536.0 - 0.5) * 1e-6;
            }
        };
        let expected = trained(1, 1000, "again");
        let other = trained_by(&mut round, 1, 1000, "other");
        let found = compare(&model(), &train(1), &expected, &other).unwrap();
        println!("{found:?}");
        assert!(found.is_calm() && found != Agreement::Same, "{found:?}");
    }

    #[test]
    fn what_is_no_model_or_says_other_things_is_other() {
        assert!(!agreement(b"no model").is_same());
        assert!(!agreement(&[]).is_same());
        let mut says = trained(1, 100, "first");
        let at = says.windows(4).position(|w| w == b"\"pt\"").unwrap();
        says[at + 1..at + 3].copy_from_slice(b"xx");
        let (a, b) = (agreement(&says), agreement(&says));
        assert!(!a.is_same());
        assert_eq!(a, b, "equally wrong answers are known by their digest");
    }

    #[test]
    fn a_run_of_no_steps_is_judged_by_its_bits() {
        let (start, moved) = (trained(1, 0, "a"), trained(1, 1, "b"));
        let same = |answer| {
            compare(&model(), &train(1), &start, answer)
                .unwrap()
                .is_same()
        };
        assert!(same(&start) && !same(&moved));
    }
}
