use super::*;
use crate::market::endurance::NEWCOMER_MTBF_MS;
use crate::price::fixture::{terms, training};
use crate::rating::{Rating, view};
use cryptomind_protocol::node::Capacity;
use cryptomind_protocol::role::Role;
use cryptomind_protocol::speed::Engine;
use cryptomind_protocol::{AccountId, Amount, TaskId, Timestamp};

fn record() -> NodeRecord {
    NodeRecord {
        node: NodeId::new([1; 32]),
        name: "rig".into(),
        role: Role::Miner,
        owner: AccountId::new([1; 20]),
        address: None,
        capacity: Capacity {
            mflops: 8_000,
            memory_bytes: Some(1 << 30),
            ..Capacity::default()
        },
        reserve: Amount::from_base_units(7),
        steps: Vec::new(),
        machine: None,
        seen: Timestamp::from_ms(0),
    }
}

#[test]
fn an_ability_is_what_the_past_and_the_join_say() {
    let (record, workload, items) = (record(), Workload::of(&training(), &terms()), terms().items);
    let newcomer = Rating::default();
    let mut rating = view(&newcomer, &newcomer, Timestamp::from_ms(0));
    let mut past = Past::default();
    let (ability, basis) = past.ability(&record, &rating, &workload, &items);
    assert_eq!((ability.mflops, basis), (8_000, SpeedBasis::StartTest {}));
    assert_eq!(ability.memory_bytes, Some(1 << 30));
    assert_eq!(ability.reserve, Amount::from_base_units(7));
    assert_eq!(ability.missing_bytes, 100_000);
    assert_eq!(ability.mtbf_ms, Some(NEWCOMER_MTBF_MS));

    past.joined(&record);
    past.ran(&RunStatistic {
        task: TaskId::new([1; 16]),
        node: record.node,
        kind: workload.kind,
        engine: Engine::Cpu,
        step: workload.step(),
        flops: 2_000_000_000,
        ms: 1_000,
        present_ms: NEWCOMER_MTBF_MS,
        at: Timestamp::from_ms(1),
    });
    past.has(record.node, [items[0].item]);
    rating.failed = 1;
    let (ability, basis) = past.ability(&record, &rating, &workload, &items);
    assert_eq!(basis, SpeedBasis::Runs { count: 1 });
    assert!(ability.mflops.abs_diff(2_000) <= 1, "{ability:?}");
    assert_eq!(ability.missing_bytes, 0);
    assert_eq!(ability.mtbf_ms, Some(NEWCOMER_MTBF_MS));
}
