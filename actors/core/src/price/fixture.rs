//! A small training task and its terms, for tests.

use cryptomind_protocol::item::{Access, DataFormat, DatasetInfo};
use cryptomind_protocol::model::{Layer, Loss, ModelSpec};
use cryptomind_protocol::task::{Conditions, Optimizer, TaskSpec, TrainSpec, Work};
use cryptomind_protocol::{AccountId, Amount, ItemId};

use super::{Extent, ItemUse, Prices, Terms};

pub fn model() -> ModelSpec {
    let linear = |out| Layer::linear(out);
    ModelSpec {
        input: vec![64],
        layers: vec![linear(64), Layer::Relu {}, linear(10)],
        loss: Loss::default(),
    }
}

pub fn dataset() -> DatasetInfo {
    DatasetInfo {
        format: DataFormat::Csv {
            file: "digits.csv".into(),
            label: "digit".into(),
            split_seed: 0,
            targets: Vec::new(),
        },
        train_samples: 1437,
        test_samples: 360,
        input: vec![8, 8],
        classes: (0..10).map(|n| n.to_string()).collect(),
        values: Vec::new(),
    }
}

pub fn training() -> TaskSpec {
    TaskSpec {
        name: "digits".into(),
        work: Work::Train {
            dataset: ItemId::new([1; 16]),
            model: model(),
            train: TrainSpec {
                epochs: 30,
                global_batch: 32,
                optimizer: Optimizer::adamw(1e-3),
                seed: 1,
                checkpoint_steps: 45,
                ..TrainSpec::default()
            },
        },
        miners: 3,
        max_cost: Amount::from_base_units(u64::MAX),
        access: Access::Owner,
        conditions: Conditions::default(),
    }
}

pub const PRICES: Prices = Prices {
    unit_price: Amount::from_base_units(100_000_000),
    storage_per_mib: Amount::from_base_units(1_000_000),
    network_fee_ppm: 10_000,
};

pub fn terms() -> Terms {
    let extent = Extent::of(&training(), &dataset(), None).unwrap();
    let used = ItemUse {
        item: ItemId::new([1; 16]),
        bytes: 100_000,
        payee: AccountId::new([1; 20]),
        fee: Amount::from_base_units(5_000_000),
    };
    Terms::new(extent, vec![used], PRICES).unwrap()
}
