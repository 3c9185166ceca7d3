//! A simulated task: its run, and how far its group really is.

use std::collections::BTreeMap;

use cryptomind_protocol::item::{Access, DataFormat, DatasetInfo};
use cryptomind_protocol::model::{Layer, Loss, ModelSpec};
use cryptomind_protocol::task::{Conditions, Optimizer, TaskSpec, TrainSpec, Work};
use cryptomind_protocol::{Amount, ItemId, TaskId, Timestamp};

use super::group::Step;
use super::scenario::Job;
use crate::market::{Expectation, Workload};
use crate::price::{Extent, Prices, Terms};
use crate::run::Run;

/// Values in a sample.
const INPUT: u32 = 1000;
/// Classes of the samples.
const CLASSES: u32 = 10;
/// What a CU costs where the price does not float.
pub const UNIT_PRICE: Amount = Amount::from_base_units(1_000_000);

/// A task and its group.
pub struct Task {
    /// Its life, as the market leads it.
    pub run: Run,
    /// What it asks for.
    pub workload: Workload,
    /// What one step asks for, in truth.
    pub step: Step,
    /// Steps that its group has really done.
    pub done: u64,
    /// Since when it does the next ones, what one takes, milliseconds, and how many they are.
    pub stretch: (Timestamp, f64, u64),
    /// The attempt whose members compute.
    pub computes: u32,
    /// How long each miner has computed in that attempt, milliseconds.
    pub computed_ms: BTreeMap<usize, f64>,
    /// Until when the first rank stores the checkpoint before.
    pub stores_until: Timestamp,
    /// When it was first matched, and what was expected then.
    pub first_match: Option<(Timestamp, Option<Expectation>)>,
    /// The timer that is set.
    pub timer: Option<Timestamp>,
}

/// A task's id.
pub fn id(number: usize) -> TaskId {
    TaskId::new((number as u128).to_be_bytes())
}

/// What a job comes to at this price for one CU: the task as its client posts it, and its terms.
///
/// # Panics
/// Where the job is not one that a scenario may have.
pub fn posted(job: &Job, unit_price: Amount) -> (TaskSpec, Terms) {
    let samples = u64::from(job.steps) * u64::from(job.batch);
    let dataset = DatasetInfo {
        format: DataFormat::Csv {
            file: "samples.csv".into(),
            label: "label".into(),
            split_seed: 0,
            targets: Vec::new(),
        },
        train_samples: samples,
        test_samples: 1,
        input: vec![INPUT],
        classes: (0..CLASSES).map(|class| class.to_string()).collect(),
        values: Vec::new(),
    };
    let spec = spec(job);
    let prices = Prices {
        unit_price,
        storage_per_mib: Amount::ZERO,
        network_fee_ppm: 0,
    };
    let extent = Extent::of(&spec, &dataset, None).expect("the model is made for the dataset");
    let terms = Terms::new(extent, Vec::new(), prices).expect("a job costs less than all tokens");
    (spec, terms)
}

fn spec(job: &Job) -> TaskSpec {
    TaskSpec {
        name: "job".into(),
        work: Work::Train {
            dataset: ItemId::new([0; 16]),
            model: model(job.parameters),
            train: TrainSpec {
                epochs: 1,
                global_batch: job.batch,
                optimizer: Optimizer::adamw(1e-3),
                seed: 0,
                checkpoint_steps: job.checkpoint_steps,
                ..TrainSpec::default()
            },
        },
        miners: job.miners,
        max_cost: Amount::from_base_units(u64::MAX),
        access: Access::Owner,
        conditions: Conditions::default(),
    }
}

/// One hidden layer h: (INPUT + 1) · h + (h + 1) · CLASSES parameters.
fn model(parameters: u64) -> ModelSpec {
    let each = u64::from(INPUT + 1 + CLASSES);
    let width = (parameters.saturating_sub(CLASSES.into()) / each).max(1);
    let hidden = Layer::linear(u32::try_from(width).unwrap_or(u32::MAX));
    ModelSpec {
        input: vec![INPUT],
        layers: vec![hidden, Layer::Relu {}, Layer::linear(CLASSES)],
        loss: Loss::default(),
    }
}

impl Task {
    /// As it was just posted.
    pub fn new(run: Run, job: &Job) -> Self {
        let workload = Workload::of(&run.spec, &run.terms);
        let step = Step {
            batch: job.batch.into(),
            flops_per_sample: run.terms.extent.flops_per_sample as f64,
            gradient_bytes: workload.gradient_bytes as f64,
        };
        Self {
            workload,
            step,
            done: 0,
            stretch: (Timestamp::default(), 1.0, 0),
            computes: 0,
            computed_ms: BTreeMap::new(),
            stores_until: run.posted,
            first_match: None,
            timer: None,
            run,
        }
    }
}
