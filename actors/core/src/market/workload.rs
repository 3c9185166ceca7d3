//! What a task asks of its group: work, exchange, memory, files.
//!
//! Follows from the task and its terms alone; whoever computes it, it is the same. What a node has to fetch depends on
//! what it has, and is said of the node.

use cryptomind_protocol::task::{TaskSpec, Work};

use super::speed::{Engine, Sort, Step, WorkKind};
use crate::price::Terms;

/// Bytes of an f32.
const F32_BYTES: u64 = 4;
/// Arenas as large as the parameters that a step needs besides parameters and moments: gradients, and the ring's scratch.
const STEP_ARENAS: u64 = 2;
/// A step is written beside the state before it, so that it can be redone.
const STATES: u64 = 2;

/// A task's demands on a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Workload {
    /// What kind of work.
    pub kind: WorkKind,
    /// Floating-point operations in all, as the graph counts them.
    pub flops: u128,
    /// Steps; each ends with an exchange of gradients.
    pub steps: u64,
    /// Parameters that each step changes. 0 where nothing is trained.
    pub parameters: u64,
    /// Gradients that each step sums over the group, bytes in the format in which they travel. 0 where nothing is exchanged.
    pub gradient_bytes: u64,
    /// Checkpoints, the last one included.
    pub checkpoints: u64,
    /// A checkpoint's file: parameters and moments, bytes.
    pub checkpoint_bytes: u64,
    /// The result's files, bytes.
    pub result_bytes: u64,
    /// Memory that a member needs for the model's state and for what lies between the layers of its share of a step, bytes;
    /// the dataset comes on top.
    pub memory_bytes: u64,
}

impl Workload {
    /// What `spec` with these terms asks for.
    pub fn of(spec: &TaskSpec, terms: &Terms) -> Self {
        let extent = &terms.extent;
        let base = Self {
            kind: WorkKind::Infer,
            flops: extent.flops(),
            steps: extent.steps,
            parameters: 0,
            gradient_bytes: 0,
            checkpoints: 0,
            checkpoint_bytes: 0,
            result_bytes: extent.result_bytes_max,
            memory_bytes: 0,
        };
        match &spec.work {
            Work::Infer { .. } | Work::Serve { .. } => base,
            Work::Train { model, train, .. } => {
                let parameters = model.parameter_count();
                let arena = parameters.saturating_mul(F32_BYTES);
                let state = arena.saturating_mul(1 + train.optimizer.moments() as u64);
                let scratch = arena.saturating_mul(STEP_ARENAS);
                let gradients = usize::try_from(parameters).unwrap_or(usize::MAX / 8);
                let share = train.global_batch.div_ceil(spec.miners.max(1));
                let between = model
                    .kept_values()
                    .saturating_mul(F32_BYTES)
                    .saturating_mul(share.into());
                Self {
                    kind: WorkKind::Train,
                    parameters,
                    gradient_bytes: train.wire.bytes(gradients) as u64,
                    checkpoints: extent.steps.div_ceil(train.checkpoint_steps.max(1).into()),
                    checkpoint_bytes: state,
                    memory_bytes: state
                        .saturating_mul(STATES)
                        .saturating_add(scratch)
                        .saturating_add(between),
                    ..base
                }
            }
        }
    }

    /// Of what a node's speed is asked that computes with this engine.
    pub fn sort(&self, engine: Engine) -> Sort {
        Sort {
            kind: self.kind,
            engine,
            step: self.step(),
        }
    }

    /// One of its steps, over the whole group: the mean, as the last one of an epoch may be smaller.
    pub fn step(&self) -> Step {
        let flops = self.flops / u128::from(self.steps.max(1));
        Step {
            flops: u64::try_from(flops).unwrap_or(u64::MAX),
            parameters: self.parameters,
        }
    }
}

#[cfg(test)]
mod tests {
    use cryptomind_protocol::item::{Access, DataFormat, DatasetInfo};
    use cryptomind_protocol::model::{Layer, Loss, ModelSpec};
    use cryptomind_protocol::ring::Wire;
    use cryptomind_protocol::task::{Conditions, Optimizer, TrainSpec};
    use cryptomind_protocol::{Amount, ItemId};

    use super::*;
    use crate::price::{Extent, Prices};

    const PARAMETERS: u64 = 4 * 2 + 2;

    fn workload(optimizer: Optimizer) -> Workload {
        of(optimizer, Wire::F32)
    }

    fn of(optimizer: Optimizer, wire: Wire) -> Workload {
        let train = TrainSpec {
            epochs: 3,
            global_batch: 10,
            optimizer,
            seed: 1,
            checkpoint_steps: 7,
            wire,
            ..TrainSpec::default()
        };
        let model = ModelSpec {
            input: vec![4],
            layers: vec![Layer::linear(2)],
            loss: Loss::default(),
        };
        let dataset = DatasetInfo {
            format: DataFormat::Csv {
                file: "a.csv".into(),
                label: "y".into(),
                split_seed: 0,
                targets: Vec::new(),
            },
            train_samples: 100,
            test_samples: 10,
            input: vec![4],
            classes: vec!["a".into(), "b".into()],
            values: Vec::new(),
        };
        let spec = TaskSpec {
            name: "test".into(),
            work: Work::Train {
                dataset: ItemId::new([1; 16]),
                model,
                train,
            },
            miners: 2,
            max_cost: Amount::ZERO,
            access: Access::Owner,
            conditions: Conditions::default(),
        };
        let prices = Prices {
            unit_price: Amount::ZERO,
            storage_per_mib: Amount::ZERO,
            network_fee_ppm: 0,
        };
        let extent = Extent::of(&spec, &dataset, None).unwrap();
        Workload::of(&spec, &Terms::new(extent, Vec::new(), prices).unwrap())
    }

    #[test]
    fn a_training_task_exchanges_its_gradients_and_stores_its_state() {
        let adamw = workload(Optimizer::adamw(1e-3));
        assert_eq!(adamw.steps, 30);
        assert_eq!(adamw.gradient_bytes, PARAMETERS * 4);
        let coarse = of(Optimizer::adamw(1e-3), Wire::Int8);
        assert_eq!(
            coarse.gradient_bytes,
            PARAMETERS + 4,
            "a byte each, and a scale"
        );
        assert_eq!(
            coarse.step(),
            adamw.step(),
            "what is computed stays the same"
        );
        assert_eq!(adamw.checkpoints, 5, "four of 7 steps, and the last");
        assert_eq!(adamw.checkpoint_bytes, PARAMETERS * 4 * 3);
        let between = 5 * (4 + 2) * 4;
        let states = PARAMETERS * 4 * (2 * 3 + 2);
        assert_eq!(adamw.memory_bytes, states + between, "half of a step each");
    }

    #[test]
    fn optimisers_differ_in_what_they_keep() {
        let sgd = |momentum| workload(Optimizer::sgd(0.1, momentum));
        assert_eq!(sgd(0.9).checkpoint_bytes, PARAMETERS * 4 * 2);
        assert_eq!(sgd(0.0).checkpoint_bytes, PARAMETERS * 4);
        let adam = workload(Optimizer::adam(1e-3));
        assert_eq!(adam.checkpoint_bytes, PARAMETERS * 4 * 3);
    }

    #[test]
    fn a_step_is_a_part_of_the_whole() {
        let workload = workload(Optimizer::adamw(1e-3));
        let step = workload.step();
        assert_eq!(u128::from(step.flops), workload.flops / 30);
        assert_eq!(step.parameters, PARAMETERS);
        let class = |flops| Step { flops, ..step }.size_class();
        assert_eq!((class(0), class(1), class(1023)), (0, 0, 9));
    }
}
