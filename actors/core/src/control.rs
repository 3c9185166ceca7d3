//! Control tasks: what they ask, what may be spent on them, and what is known of each.
//!
//! A control task is one whose right answer the coordinator can say, since training is deterministic, and inference is: it
//! computes the same itself, when an answer is there. For a miner it is a task like others: posted by an account like others, on an item of the
//! catalog, for the market's price. What it asks is taken from what clients asked lately, a training with a seed of its own, so that no
//! answer is known from before; it is cut to what the coordinator can bear to compute again.
//!
//! Owned by the control actor, which stores a [`ControlRecord`] a task. When a miner gets one, and when an answer is wrong, is
//! decided in [`crate::check`].
//!
//! Not here: tasks of several miners, whose members check each other at every checkpoint; sessions, whose client sees every
//! answer; and single steps of clients' runs that
//! are computed again: they need the steps' commitments, and come to the same findings.

use std::collections::VecDeque;

use cryptomind_protocol::item::Access;
use cryptomind_protocol::item::{DataFormat, DatasetInfo, ModelInfo};
use cryptomind_protocol::model::{Layer, Loss, ModelSpec};
use cryptomind_protocol::task::{Conditions, Optimizer, Split, TaskSpec, TrainSpec, Work};
use cryptomind_protocol::{AccountId, Amount, ItemId, NodeId, TaskId, Timestamp};
use serde::{Deserialize, Serialize};

use crate::check::{Case, Next};
use crate::dice::Dice;

/// How long a question may be on its way to the ledger, milliseconds.
pub const POST_LIMIT_MS: u64 = 60_000;
/// What clients asked lately is remembered up to this many tasks.
const REMEMBERED: usize = 64;
/// Of one client.
const OF_ONE_CLIENT: usize = 4;
/// Of these, so many are drawn, and the one is taken that is nearest to what is wanted.
const DRAWN: usize = 4;
/// A case that found no further witness for so long is given up, milliseconds.
pub const CASE_LIMIT_MS: u64 = 24 * 3_600_000;
/// Hours over which what is spent is looked at.
const HOURS: usize = 24;
const HOUR_MS: u64 = 3_600_000;
const PPM: u128 = 1_000_000;
/// Bytes of an f32, and of a label.
const VALUE_BYTES: u128 = 4;
/// A line of an inference's answers above the class's name, bytes, at most.
const ANSWER_BYTES: u128 = 64;
/// Seeds are whole numbers that JSON of any language holds.
const SEED_BITS: u32 = 53;
/// Names that people give to such tasks.
const NAMES: [&str; 8] = [
    "baseline",
    "mlp",
    "trial",
    "first-run",
    "small",
    "sweep",
    "model",
    "run",
];

/// Who is asked, and in which task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// The task.
    pub task: TaskId,
    /// The miner.
    pub node: NodeId,
    /// Its owner.
    pub owner: AccountId,
    /// Since when.
    pub at: Timestamp,
}

/// Who was asked, and how the answer differs; nothing where it is right.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heard {
    /// Who.
    pub asked: Asked,
    /// How, for people.
    pub reason: String,
}

/// A question whose right answer the coordinator can say, and who was asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ControlRecord {
    /// Its id, which says nothing of the tasks.
    pub id: TaskId,
    /// What is asked. Each task has a name of its own.
    pub spec: TaskSpec,
    /// The most that one such task costs.
    pub cost: Amount,
    /// What was answered.
    pub case: Case,
    /// Who is asked now.
    pub asked: Option<Asked>,
    /// Who was asked before.
    pub heard: Vec<Heard>,
    /// When it was first asked.
    pub opened: Timestamp,
}

impl ControlRecord {
    /// Whether nothing is waited for: its case is closed, or nobody is asked and nobody doubted.
    pub fn is_over(&self) -> bool {
        self.case.next() == Next::Closed || (self.asked.is_none() && self.heard.is_empty())
    }
}

/// What clients asked lately, and what its miners earned. Of one client a few tasks are remembered: nobody alone decides what
/// control tasks are like.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Seen(VecDeque<(AccountId, TaskSpec, Amount)>);

impl Seen {
    /// A client's task has ended.
    pub fn add(&mut self, client: AccountId, spec: TaskSpec, earned: Amount) {
        let of_client = |seen: &(AccountId, TaskSpec, Amount)| seen.0 == client;
        if self.0.iter().filter(|seen| of_client(seen)).count() >= OF_ONE_CLIENT {
            let oldest = self.0.iter().position(of_client);
            oldest.map(|at| self.0.remove(at));
        }
        if self.0.len() == REMEMBERED {
            self.0.pop_front();
        }
        self.0.push_back((client, spec, earned));
    }

    /// A task that earned about so much: of some that are drawn, the nearest. So what is asked is like what is paid for,
    /// and not the last thing that the miner did.
    pub fn like(&self, earned: Amount, dice: &mut Dice) -> Option<TaskSpec> {
        let some = dice.some(DRAWN, self.0.len());
        let apart = |at: &usize| self.0[*at].2.base_units().abs_diff(earned.base_units());
        let nearest = some.into_iter().min_by_key(apart)?;
        Some(self.0[nearest].1.clone())
    }
}

/// What a drawn task asks is bounded by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// The most work, in floating-point operations.
    pub most_flops: u128,
    /// The most steps: rounding has little time to grow.
    pub most_steps: u64,
    /// The most parameters of a model.
    pub most_parameters: u64,
    /// The most bytes of an item's files, of samples in memory, and of answers.
    pub most_bytes: u64,
}

/// A task like one that a client asked, for one miner, within the bounds; `model` is what an inference runs. Nothing where it
/// does not fit them, or where its answer cannot be computed again: a session's depends on what its client asks. Any training can be,
/// whatever its model answers: what is compared are its weights.
pub fn like(
    seen: &TaskSpec,
    info: &DatasetInfo,
    model: Option<&ModelInfo>,
    bounds: Bounds,
    dice: &mut Dice,
) -> Option<TaskSpec> {
    let work = match &seen.work {
        Work::Train { .. } if bytes_of(info, Split::Train) > bounds.most_bytes.into() => {
            return None;
        }
        Work::Train {
            dataset,
            model,
            train,
        } => Work::Train {
            dataset: *dataset,
            model: model.clone(),
            train: shortened(model, train, info, bounds, dice)?,
        },
        Work::Infer {
            model: item,
            dataset,
            ..
        } => {
            // Not always what a client asked: its answer may be known from then.
            let mut splits = [Split::Train, Split::Test];
            splits.rotate_left(dice.below(2) as usize);
            let model = model?;
            let mut splits = splits.into_iter();
            Work::Infer {
                model: *item,
                dataset: *dataset,
                split: splits.find(|split| can_infer(model, info, *split, bounds))?,
            }
        }
        Work::Serve { .. } => return None,
    };
    // Whoever is asked may answer, whatever its rating.
    let conditions = Conditions {
        min_rating_milli: 0,
        ..seen.conditions
    };
    Some(TaskSpec {
        work,
        miners: 1,
        conditions,
        ..seen.clone()
    })
}

/// Whether a model's answer to a sample is one row of class probabilities, which is what a table of predictions holds and what is
/// judged. A sequence has many; other losses give numbers.
fn tells_classes(model: &ModelSpec, info: &DatasetInfo) -> bool {
    let is_one = matches!(model.output().as_deref(), Some([_]));
    is_one && model.loss == Loss::CrossEntropy && has_a_class(info)
}

/// Whether each sample has one class: of a text each token has one, and numbers have none.
const fn has_a_class(info: &DatasetInfo) -> bool {
    !info.classes.is_empty() && !matches!(info.format, DataFormat::Text { .. })
}

/// Whether the answers for a split can be judged and computed again: neither they nor the samples, nor what lies between the
/// layers, take more memory than a dataset's files may.
fn can_infer(model: &ModelInfo, info: &DatasetInfo, split: Split, bounds: Bounds) -> bool {
    if !tells_classes(&model.spec, info) {
        return false;
    }
    let samples = u128::from(info.samples(split));
    let flops = samples * u128::from(model.spec.forward_flops());
    let longest = model.classes.iter().map(|class| class.len() as u128).max();
    let answers = samples * (ANSWER_BYTES + longest.unwrap_or(0));
    let outputs = model.spec.output_len().unwrap_or(0) as u128;
    let probabilities = samples.saturating_mul(outputs).saturating_mul(VALUE_BYTES);
    let between = kept_bytes(&model.spec, 1);
    let bytes = answers.max(probabilities).max(between);
    let bytes = bytes.max(bytes_of(info, split));
    flops <= bounds.most_flops
        && bytes <= bounds.most_bytes.into()
        && model.spec.parameter_count() <= bounds.most_parameters
}

/// What a split's samples take in memory, with their labels, bytes: files may be compressed.
fn bytes_of(info: &DatasetInfo, split: Split) -> u128 {
    let values = info
        .input
        .iter()
        .map(|size| u128::from(*size))
        .product::<u128>();
    let predicted = info.values.len().max(1) as u128;
    let each = values.saturating_add(predicted).saturating_mul(VALUE_BYTES);
    each.saturating_mul(info.samples(split).into())
}

/// What lies between the layers while so many samples are computed at once, bytes.
fn kept_bytes(model: &ModelSpec, samples: u32) -> u128 {
    u128::from(model.kept_values()) * u128::from(samples) * VALUE_BYTES
}

/// A training with a seed of its own, in as many epochs as the bounds allow; nothing where that is less than one. Clients' seeds
/// are random too, unless they say one.
fn shortened(
    model: &ModelSpec,
    train: &TrainSpec,
    info: &DatasetInfo,
    bounds: Bounds,
    dice: &mut Dice,
) -> Option<TrainSpec> {
    let an_epoch = u128::from(model.training_flops()) * u128::from(info.train_samples);
    let epochs = bounds.most_flops.checked_div(an_epoch)?;
    let steps = bounds
        .most_steps
        .checked_div(train.steps_per_epoch(info.train_samples))?;
    let epochs = epochs.min(steps.into());
    let epochs = train.epochs.min(u32::try_from(epochs).unwrap_or(u32::MAX));
    // A step computes its whole batch at once.
    let is_large = kept_bytes(model, train.global_batch) > bounds.most_bytes.into();
    if epochs == 0 || is_large || model.parameter_count() > bounds.most_parameters {
        return None;
    }
    Some(TrainSpec {
        epochs,
        seed: seed(dice),
        ..train.clone()
    })
}

/// A task as a beginner would ask it of this dataset, where no client asked anything lately. Nothing of a dataset whose
/// samples have no class each.
pub fn usual(
    dataset: ItemId,
    info: &DatasetInfo,
    bounds: Bounds,
    dice: &mut Dice,
) -> Option<TaskSpec> {
    if !has_a_class(info) {
        return None;
    }
    let hidden = Layer::linear(16 << dice.below(4));
    let classes = u32::try_from(info.classes.len()).ok()?;
    let model = ModelSpec {
        input: info.input.clone(),
        layers: vec![hidden, Layer::Relu {}, Layer::linear(classes)],
        loss: Loss::default(),
    };
    let train = TrainSpec {
        epochs: 1 + dice.below(5) as u32,
        global_batch: 32 << dice.below(3),
        optimizer: Optimizer::adamw(1e-3),
        seed: 0,
        checkpoint_steps: 100,
        ..TrainSpec::default()
    };
    like(&task(dataset, model, train, dice), info, None, bounds, dice)
}

/// The most that a task may cost, as people say it: what its client said, where that is enough; otherwise the next of 1, 2
/// or 5 and zeros. Exactly what a task costs is what nobody says.
pub fn cap(said: Amount, needed: Amount) -> Amount {
    let needed = needed.base_units();
    if said.base_units() >= needed {
        return said;
    }
    let tens = std::iter::successors(Some(1u64), |ten| ten.checked_mul(10));
    let round = tens.flat_map(|ten| [1, 2, 5].map(|n| ten.saturating_mul(n)));
    let enough = round.into_iter().find(|round| *round >= needed);
    Amount::from_base_units(enough.unwrap_or(needed))
}

/// The same question once more, under another name.
pub fn again(spec: &TaskSpec, dice: &mut Dice) -> TaskSpec {
    TaskSpec {
        name: name(dice),
        ..spec.clone()
    }
}

fn task(dataset: ItemId, model: ModelSpec, train: TrainSpec, dice: &mut Dice) -> TaskSpec {
    TaskSpec {
        name: name(dice),
        work: Work::Train {
            dataset,
            model,
            train,
        },
        miners: 1,
        max_cost: Amount::from_base_units(1),
        access: Access::Owner,
        conditions: Conditions::default(),
    }
}

fn seed(dice: &mut Dice) -> u64 {
    dice.bits() >> (u64::BITS - SEED_BITS)
}

fn name(dice: &mut Dice) -> String {
    let name = NAMES[dice.below(NAMES.len() as u64) as usize];
    format!("{name}-{}", 1 + dice.below(99))
}

/// An hour's work and what was spent on checking it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Hour {
    hour: u64,
    worked: u128,
    spent: u128,
}

/// What may be spent on control tasks: a share of what clients paid for work in the last day, and an allowance a day for a network
/// that is young. So whoever makes up accounts to be paid for control tasks gets no more than that out of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Budget {
    hours: VecDeque<Hour>,
}

/// How much that is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowance {
    /// Of clients' work, in millionths.
    pub share_ppm: u32,
    /// A day, whatever clients do.
    pub daily: Amount,
}

impl Budget {
    /// Clients paid so much for work.
    pub fn worked(&mut self, amount: Amount, now: Timestamp) {
        self.hour(now).worked += u128::from(amount.base_units());
    }

    /// So much is spent on a control task.
    pub fn spend(&mut self, amount: Amount, now: Timestamp) {
        self.hour(now).spent += u128::from(amount.base_units());
    }

    /// What was to be spent was not.
    pub fn give_back(&mut self, amount: Amount, now: Timestamp) {
        let hour = self.hour(now);
        hour.spent = hour.spent.saturating_sub(u128::from(amount.base_units()));
    }

    /// Whether so much may be spent now.
    pub fn allows(&mut self, amount: Amount, allowance: Allowance, now: Timestamp) -> bool {
        self.hour(now);
        let sum = |of: fn(&Hour) -> u128| self.hours.iter().map(of).sum::<u128>();
        let share = sum(|h| h.worked) * u128::from(allowance.share_ppm) / PPM;
        let most = share + u128::from(allowance.daily.base_units());
        sum(|h| h.spent) + u128::from(amount.base_units()) <= most
    }

    /// The present hour; what is older than a day is forgotten.
    fn hour(&mut self, now: Timestamp) -> &mut Hour {
        let hour = now.as_ms() / HOUR_MS;
        let is_new = self.hours.back().is_none_or(|last| last.hour < hour);
        if is_new {
            self.hours.push_back(Hour {
                hour,
                ..Hour::default()
            });
        }
        while self
            .hours
            .front()
            .is_some_and(|first| first.hour + HOURS as u64 <= hour)
        {
            self.hours.pop_front();
        }
        let last = self.hours.len() - 1;
        &mut self.hours[last]
    }
}

#[cfg(test)]
mod tests {
    use cryptomind_protocol::item::TextLevel;
    use cryptomind_protocol::model::Gpt;
    use cryptomind_protocol::task::Metrics;

    use super::*;

    const BOUNDS: Bounds = Bounds {
        most_flops: 1_000_000_000,
        most_steps: 2_000,
        most_parameters: 100_000,
        most_bytes: 1 << 20,
    };

    fn info() -> DatasetInfo {
        DatasetInfo {
            format: DataFormat::Csv {
                file: "a.csv".into(),
                label: "y".into(),
                split_seed: 0,
                targets: Vec::new(),
            },
            train_samples: 1000,
            test_samples: 10,
            input: vec![64],
            classes: (0..10).map(|c| c.to_string()).collect(),
            values: Vec::new(),
        }
    }

    fn train_of(spec: &TaskSpec) -> (&ModelSpec, &TrainSpec) {
        match &spec.work {
            Work::Train { model, train, .. } => (model, train),
            _ => panic!("no training"),
        }
    }

    fn flops(spec: &TaskSpec) -> u128 {
        let (model, train) = train_of(spec);
        u128::from(model.training_flops()) * 1000 * u128::from(train.epochs)
    }

    #[test]
    fn what_is_drawn_is_a_task_within_bounds_and_never_the_same_twice() {
        let mut dice = Dice::new(1);
        let mut seeds = std::collections::BTreeSet::new();
        for _ in 0..200 {
            let drawn = usual(ItemId::new([1; 16]), &info(), BOUNDS, &mut dice).unwrap();
            let drawn = TaskSpec {
                max_cost: Amount::from_base_units(1),
                ..drawn
            };
            drawn.check().unwrap();
            assert!(flops(&drawn) <= BOUNDS.most_flops && drawn.miners == 1);
            assert!(seeds.insert(train_of(&drawn).1.seed));
        }
    }

    #[test]
    fn an_inference_is_asked_of_either_split_or_not_at_all() {
        let mut dice = Dice::new(3);
        let dataset = ItemId::new([1; 16]);
        let trained = usual(dataset, &info(), BOUNDS, &mut dice).unwrap();
        let model = ModelInfo {
            spec: train_of(&trained).0.clone(),
            classes: info().classes,
            dataset: None,
            task: None,
            metrics: Metrics::default(),
        };
        let mut seen = trained.clone();
        seen.conditions.min_rating_milli = 4_000;
        seen.work = Work::Infer {
            model: ItemId::new([2; 16]),
            dataset,
            split: Split::Test,
        };
        let mut splits = [0; 2];
        for _ in 0..100 {
            let drawn = like(&seen, &info(), Some(&model), BOUNDS, &mut dice).unwrap();
            assert_eq!((drawn.miners, drawn.conditions.min_rating_milli), (1, 0));
            match drawn.work {
                Work::Infer {
                    split, dataset: of, ..
                } if of == dataset => splits[usize::from(split == Split::Test)] += 1,
                work => panic!("{work:?}"),
            }
        }
        assert!(splits.iter().all(|count| *count > 20), "{splits:?}");
        assert_eq!(like(&seen, &info(), None, BOUNDS, &mut dice), None);
        let huge = DatasetInfo {
            train_samples: 1 << 28,
            test_samples: 1 << 28,
            ..info()
        };
        let boundless = Bounds {
            most_flops: u128::MAX,
            most_steps: u64::MAX,
            ..BOUNDS
        };
        let refused = |spec: &TaskSpec| {
            like(spec, &huge, Some(&model), boundless, &mut Dice::new(4)).is_none()
        };
        assert!(
            refused(&seen) && refused(&trained),
            "what files take says nothing of what they hold"
        );
        let mut wide = model.clone();
        wide.spec.layers.push(Layer::linear(4_000));
        let of_wide = |info: &DatasetInfo| {
            let bounds = Bounds {
                most_parameters: u64::MAX,
                ..boundless
            };
            like(&seen, info, Some(&wide), bounds, &mut Dice::new(4))
        };
        let drawn = of_wide(&info()).unwrap().work;
        assert!(
            matches!(
                drawn,
                Work::Infer {
                    split: Split::Test,
                    ..
                }
            ),
            "a thousand times four thousand probabilities are too many, ten times are not"
        );
        let long = DatasetInfo {
            test_samples: 1000,
            ..info()
        };
        assert_eq!(of_wide(&long), None);
        let flops = u128::from(model.spec.forward_flops()) * 1000;
        let bounds = |most_flops, most_parameters| Bounds {
            most_flops,
            most_parameters,
            ..BOUNDS
        };
        let parameters = model.spec.parameter_count();
        let info = || DatasetInfo {
            test_samples: 1000,
            ..info()
        };
        let mut fits = |bounds| like(&seen, &info(), Some(&model), bounds, &mut dice).is_some();
        assert!(fits(bounds(flops, parameters)));
        assert!(!fits(bounds(flops - 1, parameters)) && !fits(bounds(flops, parameters - 1)));
    }

    /// What holds no row of class probabilities a sample would make a wrong answer of a right one.
    #[test]
    fn nothing_is_asked_that_cannot_be_judged() {
        let text = DatasetInfo {
            format: DataFormat::Text {
                file: "a.txt".into(),
                level: TextLevel::Character,
                held_out_ppm: 100_000,
            },
            ..info()
        };
        let mut numbers = info();
        numbers.values = std::mem::take(&mut numbers.classes);
        let classifier = ModelSpec::mlp(vec![64], &[16], 10);
        let with = |loss| ModelSpec {
            loss,
            ..classifier.clone()
        };
        let gpt = ModelSpec::gpt(Gpt {
            vocabulary: 10,
            context: 64,
            width: 8,
            heads: 2,
            blocks: 1,
            dropout_ppm: 0,
        });
        let drawn = |spec: &ModelSpec, info: &DatasetInfo| {
            let model = ModelInfo {
                spec: spec.clone(),
                classes: info.classes.clone(),
                dataset: None,
                task: None,
                metrics: Metrics::default(),
            };
            can_infer(&model, info, Split::Test, BOUNDS)
        };
        assert!(drawn(&classifier, &info()));
        assert!(!drawn(&with(Loss::MeanSquare), &info()));
        assert!(!drawn(&with(Loss::BinaryCrossEntropy), &info()));
        assert!(!drawn(&with(Loss::MeanSquare), &numbers));
        assert!(!drawn(&gpt, &text) && !drawn(&classifier, &text));
        assert!(!drawn(&gpt, &info()));
        let mut dice = Dice::new(5);
        for info in [&text, &numbers] {
            assert_eq!(usual(ItemId::new([1; 16]), info, BOUNDS, &mut dice), None);
        }
    }

    #[test]
    fn a_step_that_takes_too_much_memory_is_not_asked() {
        let (mut dice, samples) = (Dice::new(6), info());
        let model = ModelSpec::mlp(vec![64], &[16], 10);
        let mut within = |global_batch| {
            let train = TrainSpec {
                global_batch,
                ..TrainSpec::default()
            };
            shortened(&model, &train, &samples, BOUNDS, &mut dice).is_some()
        };
        let most = BOUNDS.most_bytes / (model.kept_values() * 4);
        assert!(within(most as u32) && !within(most as u32 + 1));
    }

    #[test]
    fn a_clients_task_is_cut_to_what_can_be_computed_again() {
        let mut dice = Dice::new(2);
        let mut seen = usual(ItemId::new([1; 16]), &info(), BOUNDS, &mut dice).unwrap();
        seen.miners = 4;
        seen.conditions.min_rating_milli = 4_000;
        if let Work::Train { train, .. } = &mut seen.work {
            train.epochs = 90_000;
        }
        let drawn = like(&seen, &info(), None, BOUNDS, &mut dice).unwrap();
        let (model, train) = train_of(&drawn);
        assert_eq!((drawn.miners, model), (1, train_of(&seen).0));
        assert_eq!((drawn.max_cost, drawn.access), (seen.max_cost, seen.access));
        assert_eq!(
            drawn.conditions.min_rating_milli, 0,
            "whoever is asked may answer"
        );
        assert!(flops(&drawn) <= BOUNDS.most_flops);
        assert!(flops(&drawn) + u128::from(model.training_flops()) * 1000 > BOUNDS.most_flops);
        assert_ne!(train.seed, train_of(&seen).1.seed);
        let tight = Bounds {
            most_flops: 1000,
            ..BOUNDS
        };
        assert_eq!(like(&seen, &info(), None, tight, &mut dice), None);
        let serve = TaskSpec {
            work: Work::Serve {
                model: ItemId::new([2; 16]),
                samples_max: 1,
            },
            ..seen.clone()
        };
        assert_eq!(like(&serve, &info(), None, BOUNDS, &mut dice), None);
        let few = Bounds {
            most_steps: 100,
            ..BOUNDS
        };
        let drawn = like(&seen, &info(), None, few, &mut dice).unwrap();
        assert!(train_of(&drawn).1.total_steps(1000) <= 100);
        let second = again(&drawn, &mut dice);
        assert_eq!(second.work, drawn.work);
    }

    #[test]
    fn what_is_asked_is_about_as_large_as_what_was_done() {
        let (mut seen, mut dice) = (Seen::default(), Dice::new(3));
        assert_eq!(seen.like(Amount::ZERO, &mut dice), None);
        let usual = usual(ItemId::new([1; 16]), &info(), BOUNDS, &mut dice).unwrap();
        for number in 0..200 {
            let spec = TaskSpec {
                name: number.to_string(),
                ..usual.clone()
            };
            let client = AccountId::new([number as u8; 20]);
            seen.add(client, spec, Amount::from_base_units(number));
        }
        let mut drawn = |wanted| {
            let like = |_| seen.like(Amount::from_base_units(wanted), &mut dice);
            let names = (0..100)
                .filter_map(like)
                .map(|spec| spec.name.parse::<u64>().unwrap());
            names.collect::<std::collections::BTreeSet<_>>()
        };
        let (small, large) = (drawn(0), drawn(1_000));
        assert!(small.first() >= Some(&136), "only the last are remembered");
        assert!(small.len() > 10 && large.len() > 10, "not always the same");
        let mean = |of: &std::collections::BTreeSet<u64>| of.iter().sum::<u64>() / of.len() as u64;
        assert!(mean(&small) < mean(&large));
    }

    #[test]
    fn no_client_decides_alone_what_is_asked() {
        let (mut seen, mut dice) = (Seen::default(), Dice::new(4));
        let usual = usual(ItemId::new([1; 16]), &info(), BOUNDS, &mut dice).unwrap();
        let [honest, flood] = [1, 2].map(|n| AccountId::new([n; 20]));
        for client in [honest, honest] {
            seen.add(client, usual.clone(), Amount::from_base_units(500));
        }
        for _ in 0..1_000 {
            seen.add(flood, usual.clone(), Amount::ZERO);
        }
        assert_eq!(seen.0.len(), 2 + OF_ONE_CLIENT);
    }

    #[test]
    fn a_cap_is_what_people_say() {
        let of = |said, needed| {
            let [said, needed] = [said, needed].map(Amount::from_base_units);
            cap(said, needed).base_units()
        };
        assert_eq!(of(1_000, 999), 1_000);
        assert_eq!(of(1, 1_001), 2_000);
        assert_eq!(of(1, 2_000), 2_000);
        assert_eq!(of(1, 2_001), 5_000);
        assert_eq!(of(0, u64::MAX - 1), u64::MAX);
    }

    #[test]
    fn a_day_has_its_budget() {
        let (units, at) = (Amount::from_base_units, |h: u64| {
            Timestamp::from_ms(h * HOUR_MS)
        });
        let allowance = Allowance {
            share_ppm: 50_000,
            daily: units(10),
        };
        let mut budget = Budget::default();
        assert!(budget.allows(units(10), allowance, at(0)));
        assert!(!budget.allows(units(11), allowance, at(0)));
        budget.worked(units(200), at(0));
        assert!(budget.allows(units(20), allowance, at(5)));
        budget.spend(units(15), at(5));
        assert!(budget.allows(units(5), allowance, at(6)));
        assert!(!budget.allows(units(6), allowance, at(6)));
        // What clients paid is forgotten first, then what was spent.
        assert!(!budget.allows(units(1), allowance, at(24)));
        assert!(budget.allows(units(10), allowance, at(29)));
        assert!(!budget.allows(units(11), allowance, at(29)));
        budget.spend(units(10), at(30));
        budget.give_back(units(10), at(30));
        assert!(budget.allows(units(10), allowance, at(30)));
        // A clock that was set back opens no hour of its own.
        assert!(!budget.allows(units(11), allowance, at(2)));
    }
}
