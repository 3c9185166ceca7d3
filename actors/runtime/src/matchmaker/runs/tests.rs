//! What is found of open runs without looking at each.

use cryptomind_core::market::{Ability, Offer, Surroundings};
use cryptomind_core::price::{Extent, Prices, Terms};
use cryptomind_core::run::{Input, Limits};
use cryptomind_protocol::item::{DataFormat, DatasetInfo};
use cryptomind_protocol::model::{Layer, Loss, ModelSpec};
use cryptomind_protocol::speed::Engine;
use cryptomind_protocol::task::{Conditions, Member, Optimizer, TaskSpec, TrainSpec, Work};
use cryptomind_protocol::{AccountId, Amount, ItemId};

use super::*;

const LIMITS: Limits = Limits {
    offer_window_ms: 400,
    wait_ms: 60_000,
    prepare_ms: 20_000,
    hold_ms: 3_600_000,
};

fn node(n: u8) -> NodeId {
    NodeId::new([n; 32])
}

fn at(ms: u64) -> Timestamp {
    Timestamp::from_ms(ms)
}

/// A task for one miner, posted then, for which these were asked.
fn run(n: u8, posted: u64, asked: &[u8]) -> Run {
    let spec = TaskSpec {
        name: "t".to_owned(),
        work: Work::Train {
            dataset: ItemId::new([1; 16]),
            model: ModelSpec {
                input: vec![1],
                layers: vec![Layer::linear(2)],
                loss: Loss::default(),
            },
            train: TrainSpec {
                epochs: 1,
                global_batch: 1,
                optimizer: Optimizer::adamw(0.1),
                seed: 1,
                checkpoint_steps: 1,
                ..TrainSpec::default()
            },
        },
        miners: 1,
        max_cost: Amount::from_base_units(1_000_000),
        access: cryptomind_protocol::item::Access::Owner,
        conditions: Conditions::default(),
    };
    let data = DatasetInfo {
        format: DataFormat::Csv {
            file: "f".to_owned(),
            label: "l".to_owned(),
            split_seed: 1,
            targets: Vec::new(),
        },
        train_samples: 1,
        test_samples: 1,
        input: vec![1],
        classes: vec!["a".to_owned(), "b".to_owned()],
        values: Vec::new(),
    };
    let extent = Extent::of(&spec, &data, None).unwrap();
    let prices = Prices {
        unit_price: Amount::from_base_units(1),
        storage_per_mib: Amount::ZERO,
        network_fee_ppm: 0,
    };
    let terms = Terms::new(extent, Vec::new(), prices).unwrap();
    let free = asked.iter().map(|n| node(*n)).collect();
    let (task, client) = (TaskId::new([n; 16]), AccountId::new([1; 20]));
    Run::open(task, client, spec, terms, LIMITS, free, at(posted)).0
}

fn tasks(runs: &Runs) -> Vec<u8> {
    runs.waiting().map(|task| task.as_bytes()[0]).collect()
}

#[test]
fn timers_waiting_tasks_and_owed_answers_follow_the_runs() {
    let mut runs: Runs = [run(1, 50, &[1, 2]), run(2, 20, &[2])]
        .into_iter()
        .collect();
    assert_eq!(tasks(&runs), [2, 1], "the oldest first");
    assert_eq!([1, 2, 3].map(|n| runs.owed(&node(n))), [1, 2, 0]);
    assert!(runs.due(at(419)).is_empty());
    assert_eq!(runs.due(at(420)).len(), 1);
    assert_eq!(runs.due(at(450)).len(), 2);

    let mut first = runs.get(&TaskId::new([1; 16])).unwrap().clone();
    let (around, now) = (Surroundings::default(), at(60));
    for n in [1, 2] {
        let offer = Offer {
            member: Member {
                node: node(n),
                name: "m".to_owned(),
                owner: AccountId::new([n; 20]),
            },
            ring_address: "127.0.0.1:9".to_owned(),
            engine: Engine::Cpu,
            ability: Ability::new(1_000, 3_500),
        };
        first.apply(Input::Offered(offer), &around, now);
    }
    assert_eq!(first.state, TaskState::Matched, "{}", first.reason);
    runs.keep(first);
    assert_eq!(tasks(&runs), [2]);
    assert_eq!([1, 2].map(|n| runs.owed(&node(n))), [0, 1]);
    assert_eq!(runs.due(at(450)).len(), 1, "it prepares now");
    let seated = runs.seated(&TaskId::new([1; 16]));
    assert!(seated.len() == 1 && runs.is_member(&seated[0]));

    for n in [1, 2] {
        runs.forget(&TaskId::new([n; 16]));
    }
    assert!(tasks(&runs).is_empty() && runs.due(at(u64::MAX)).is_empty());
    assert_eq!(runs.owed(&node(2)), 0);
    assert!(!runs.is_member(&seated[0]) && runs.len() == 0);
}
