use super::*;
use cryptomind_protocol::item::Access;
use cryptomind_protocol::model::{Layer, Loss, ModelSpec};
use cryptomind_protocol::task::{Conditions, Optimizer, TrainSpec};
use cryptomind_protocol::{Amount, ItemId};

fn task(out: u32) -> TaskSpec {
    TaskSpec {
        name: "t".into(),
        work: Work::Train {
            dataset: ItemId::new([1; 16]),
            model: ModelSpec {
                input: vec![1024],
                layers: vec![Layer::linear(out)],
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
        max_cost: Amount::from_base_units(1),
        access: Access::Owner,
        conditions: Conditions::default(),
    }
}

#[test]
fn a_task_that_does_not_fit_into_memory_is_declined_with_figures() {
    // 1024 × 65536 parameters are 256 MiB an arena; AdamW has seven.
    let big = task(65_536);
    let reason = enough_memory(&big, Some(1 << 30)).unwrap_err();
    assert!(reason.contains("1024 MiB are free"), "{reason}");
    assert_eq!(enough_memory(&big, Some(64 << 30)), Ok(()));
    assert_eq!(enough_memory(&big, None), Ok(()));
    assert_eq!(enough_memory(&task(10), Some(1 << 30)), Ok(()));
    assert!(enough_memory(&task(0), None).is_err());
    // Few parameters, but what lies between the layers of its batch is more than a gigabyte.
    let mut wide = task(10);
    if let Work::Train { model, train, .. } = &mut wide.work {
        *model = ModelSpec::cnn(vec![128, 128], &[64, 64], 64, 10);
        train.global_batch = 256;
    }
    let reason = enough_memory(&wide, Some(1 << 28)).unwrap_err();
    assert!(reason.contains("256 MiB are free"), "{reason}");
    wide.miners = 16;
    assert_eq!(enough_memory(&wide, Some(1 << 30)), Ok(()), "a share of it");
}
