use super::fixture::{dataset, model, terms, training};
use super::*;
use crate::ledger::{Ledger, Op, Rules};
use cryptomind_protocol::block::{Ending, Share};
use cryptomind_protocol::genesis::{Allocation, FeeTable, Withholding};
use cryptomind_protocol::item::{DataFormat, DatasetInfo, ModelInfo, TextLevel};
use cryptomind_protocol::model::{Gpt, Loss, ModelSpec};
use cryptomind_protocol::money::SUPPLY;
use cryptomind_protocol::task::{Metrics, Reason, Split, Work};
use cryptomind_protocol::{AccountId, ItemId, NodeId, TaskId, Timestamp};
use proptest::prelude::*;

fn units(units: u64) -> Amount {
    Amount::from_base_units(units)
}

#[test]
fn one_cu_costs_the_unit_price() {
    let price = units(250);
    assert_eq!(work_cost(FLOPS_PER_CU, price), Ok(units(250)));
    assert_eq!(work_cost(1, price), Ok(units(1)));
    assert_eq!(work_cost(0, price), Ok(units(0)));
    assert_eq!(work_cost(u128::MAX, price), Err(PriceError::TooLarge));
    assert_eq!(storage_cost(0, price), Ok(units(0)));
    assert_eq!(storage_cost(1, price), Ok(units(250)));
    assert_eq!(storage_cost(MIB + 1, price), Ok(units(500)));
    assert_eq!(
        storage_cost(u64::MAX, units(u64::MAX)),
        Err(PriceError::TooLarge)
    );
}

#[test]
fn the_extent_follows_from_task_and_dataset() {
    let extent = Extent::of(&training(), &dataset(), None).unwrap();
    assert_eq!((extent.samples, extent.total_samples), (1437, 43_110));
    assert_eq!(extent.steps, 45 * 30);
    assert_eq!(
        extent.flops(),
        43_110 * u128::from(model().training_flops())
    );

    let info = ModelInfo {
        spec: model(),
        classes: dataset().classes,
        dataset: None,
        task: None,
        metrics: Metrics::default(),
    };
    let mut spec = training();
    spec.work = Work::Infer {
        model: ItemId::new([2; 16]),
        dataset: ItemId::new([1; 16]),
        split: Split::Test,
    };
    let extent = Extent::of(&spec, &dataset(), Some(&info)).unwrap();
    assert_eq!((extent.total_samples, extent.steps), (360, 1));
    Extent::of(&spec, &dataset(), None).unwrap_err();
}

#[test]
fn what_does_not_fit_its_dataset_is_refused_by_field() {
    let field = |change: fn(&mut DatasetInfo)| {
        let mut data = dataset();
        change(&mut data);
        match Extent::of(&training(), &data, None) {
            Err(PriceError::Misfit { field, .. }) => field,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(field(|d| d.input = vec![28, 28]), "model.input");
    assert_eq!(field(|d| d.input = vec![u32::MAX; 4]), "model.input");
    assert_eq!(field(|d| d.classes.truncate(9)), "model.layers");
    assert_eq!(field(|d| d.train_samples = 0), "dataset");
    assert_eq!(field(|d| d.train_samples = u64::MAX), "dataset");
    let mut numbers = dataset();
    numbers.values = std::mem::take(&mut numbers.classes);
    let said = |loss, data: &DatasetInfo| {
        let mut spec = training();
        if let Work::Train { model, .. } = &mut spec.work {
            model.loss = loss;
        }
        Extent::of(&spec, data, None)
            .map(|_| ())
            .map_err(|e| e.to_string())
    };
    let unfit = said(Loss::CrossEntropy, &numbers).unwrap_err();
    assert!(unfit.starts_with("model.loss: "), "{unfit}");
    assert!(unfit.ends_with("write loss = \"mean_square\""), "{unfit}");
    assert_eq!(said(Loss::MeanSquare, &numbers), Ok(()));
    numbers.values.pop();
    let unfit = said(Loss::MeanSquare, &numbers).unwrap_err();
    assert!(unfit.contains("9 values to predict"), "{unfit}");
}

/// A model that was trained on a text runs over another with the same tokens, and over no other.
#[test]
fn an_inference_is_held_to_the_same() {
    let text = |tokens: usize| DatasetInfo {
        format: DataFormat::Text {
            file: "a.txt".into(),
            level: TextLevel::Character,
            held_out_ppm: 100_000,
        },
        input: vec![16],
        classes: (0..tokens).map(|n| n.to_string()).collect(),
        ..dataset()
    };
    let spec = ModelSpec::gpt(Gpt {
        vocabulary: 20,
        context: 16,
        width: 8,
        heads: 2,
        blocks: 1,
        dropout_ppm: 0,
    });
    let forward = spec.forward_flops();
    let info = ModelInfo {
        spec,
        classes: text(20).classes,
        dataset: None,
        task: None,
        metrics: Metrics::default(),
    };
    let mut task = training();
    task.work = Work::Infer {
        model: ItemId::new([2; 16]),
        dataset: ItemId::new([1; 16]),
        split: Split::Test,
    };
    let extent = Extent::of(&task, &text(20), Some(&info)).unwrap();
    assert_eq!((extent.samples, extent.flops_per_sample), (360, forward));
    for other in [text(21), dataset()] {
        Extent::of(&task, &other, Some(&info)).unwrap_err();
    }
}

#[test]
fn a_cap_below_the_quote_is_refused_with_the_needed_amount() {
    let terms = terms();
    terms.check_cap(terms.cost_high).unwrap();
    let below = terms.cost_high.checked_sub(units(1)).unwrap();
    let error = terms.check_cap(below).unwrap_err();
    assert_eq!(error.code, "cap_too_low");
    assert!(error.help.unwrap().contains(&terms.cost_high.to_string()));
}

proptest! {
    #[test]
    fn a_split_is_exact_and_fair(amount: u64, shares in prop::collection::vec(any::<u64>(), 1..20)) {
        let parts = split(units(amount), &shares);
        prop_assert_eq!(parts.len(), shares.len());
        prop_assert_eq!(Amount::sum(parts.iter().copied()), Some(units(amount)));
        let total: u128 = shares.iter().map(|s| u128::from(*s)).sum();
        prop_assume!(total > 0);
        for (part, share) in parts.iter().zip(&shares) {
            let exact = u128::from(amount) * u128::from(*share);
            let part = u128::from(part.base_units());
            prop_assert!(part == exact / total || part == exact / total + 1);
            prop_assert!(*share > 0 || part == 0);
        }
    }

    #[test]
    fn checkpoints_sum_to_the_cost_of_the_work(
        cost: u64,
        total in 1u64..1_000_000,
        mut cuts in prop::collection::vec(0u64..1_000_000, 0..20),
    ) {
        cuts.push(total);
        cuts.sort_unstable();
        let mut before = Amount::ZERO;
        let mut sum = Amount::ZERO;
        for cut in cuts {
            let earned = earned_after(units(cost), cut, total);
            sum = sum.checked_add(earned.checked_sub(before).unwrap()).unwrap();
            before = earned;
        }
        prop_assert_eq!(sum, units(cost));
    }

    /// Whatever a run has verified, used and stored when it ends, the quoted cap pays for it.
    #[test]
    fn the_cap_suffices_however_a_run_ends(
        unit_price in 0u64..1 << 40,
        storage_per_mib in 0u64..1 << 36,
        network_fee_ppm in 0u32..1_000_000,
        fees in prop::collection::vec(0u64..1 << 40, 0..3),
        verified in 0u64..60_000,
        items_used: bool,
        stored in prop::collection::vec(prop_oneof![0u64..1 << 22, any::<u64>()], 0..4),
    ) {
        let prices = Prices { unit_price: units(unit_price), storage_per_mib: units(storage_per_mib), network_fee_ppm };
        let extent = Extent::of(&training(), &dataset(), None).unwrap();
        let item = |fee| ItemUse { item: ItemId::new([0; 16]), bytes: 0, payee: AccountId::new([9; 20]), fee: units(fee) };
        let terms = Terms::new(extent, fees.into_iter().map(item).collect(), prices).unwrap();
        prop_assume!(!terms.cost_high.is_zero() && terms.cost_high <= SUPPLY);
        let ending = Ending {
            items_used,
            stored: stored.into_iter().map(|bytes| (AccountId::new([8; 20]), bytes)).collect(),
            withheld: Vec::new(),
        };
        let paid = settle(&terms, terms.earned_after(verified), ending);
        prop_assert!(paid <= terms.cost_high, "{} > {}", paid, terms.cost_high);
        // When all goes well, it is not below the lower bound either.
        let well = Ending {
            items_used: true,
            stored: vec![(AccountId::new([8; 20]), terms.extent.result_bytes_min)],
            withheld: Vec::new(),
        };
        let paid = settle(&terms, terms.work_cost, well);
        prop_assert!(paid >= terms.cost_low && paid <= terms.cost_high);
    }
}

/// What a hold of the quoted cap pays to others than its payer, at the latest moment.
fn settle(terms: &Terms, earned: Amount, ending: Ending) -> Amount {
    let (task, payer, now) = (
        TaskId::new([1; 16]),
        AccountId::new([7; 20]),
        Timestamp::from_ms(1),
    );
    let rules = Rules {
        fees: FeeTable::default(),
        withholding: Withholding {
            period_ms: 0,
            max_ppm: 0,
        },
        faucet: Amount::ZERO,
    };
    let all = Allocation {
        name: "all".into(),
        account: payer,
        amount: SUPPLY,
        vesting: None,
    };
    let share = Share {
        account: AccountId::new([6; 20]),
        node: NodeId::new([6; 32]),
        amount: earned,
    };
    let (amount, terms) = (terms.cost_high, terms.hold(now.plus_ms(1)));
    let ops = [
        Op::Mint {
            allocations: vec![all],
            created: now,
        },
        Op::OpenHold {
            task,
            payer,
            amount,
            terms,
        },
        Op::Earn {
            task,
            checkpoint: 1,
            shares: vec![share],
        },
        Op::Settle { task, ending },
    ];
    let mut ledger = Ledger::new(rules);
    let transfers = ledger.apply(ops, now).unwrap().transfers.into_iter();
    let paid = transfers.filter(|t| t.task == Some(task) && t.reason != Reason::Refund);
    Amount::sum(paid.map(|t| t.amount)).unwrap()
}
