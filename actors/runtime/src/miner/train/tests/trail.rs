//! What ranks say of their steps, as a run of the coordinator's takes it.

use cryptomind_core::audit;
use cryptomind_core::market::{Ability, Offer, Surroundings};
use cryptomind_core::price::{Extent, Prices, Terms};
use cryptomind_core::run::{Input, Limits, Run};
use cryptomind_protocol::audit::{Commitments, Part, VERSION};
use cryptomind_protocol::item::Access;
use cryptomind_protocol::speed::Engine;
use cryptomind_protocol::task::{Conditions, Member, TaskSpec, Work};
use cryptomind_protocol::{AccountId, Amount, ItemId, Signed, Timestamp};

use super::*;

const NETWORK: GenesisHash = GenesisHash::new([1; 32]);
const NOW: Timestamp = Timestamp::from_ms(1_000);

fn spec(plan: &Plan, miners: u32) -> TaskSpec {
    TaskSpec {
        name: "digits".into(),
        work: Work::Train {
            dataset: ItemId::new([1; 16]),
            model: plan.model.clone(),
            train: plan.train.clone(),
        },
        miners,
        max_cost: Amount::from_base_units(1 << 40),
        access: Access::Owner,
        conditions: Conditions::default(),
    }
}

fn offer(rank: u32) -> Offer {
    Offer {
        member: Member {
            node: NodeId::of_key(&key(rank).public()),
            name: format!("rank {rank}"),
            owner: AccountId::new([rank as u8; 20]),
        },
        ring_address: format!("host:{rank}"),
        engine: Engine::Cpu,
        ability: Ability::new(100, 3500),
    }
}

fn tell(run: &mut Run, input: Input, now: Timestamp) {
    run.apply(input, &Surroundings::default(), now);
}

/// The run of this plan by so many ranks, matched.
fn run(plan: &Plan, world: u32) -> Run {
    let spec = spec(plan, world);
    let extent = Extent::of(&spec, &plan.info, None).unwrap();
    let prices = Prices {
        unit_price: Amount::from_base_units(1),
        storage_per_mib: Amount::from_base_units(1),
        network_fee_ppm: 0,
    };
    let terms = Terms::new(extent, Vec::new(), prices).unwrap();
    let limits = Limits {
        offer_window_ms: 400,
        wait_ms: 60_000,
        prepare_ms: 20_000,
        hold_ms: 3_600_000,
    };
    let (task, client) = (TaskId::new([1; 16]), AccountId::new([99; 20]));
    let offers: Vec<Offer> = (0..world).map(offer).collect();
    let nodes = offers.iter().map(|offer| offer.member.node).collect();
    let (mut run, _) = Run::open(task, client, spec, terms, limits, nodes, NOW);
    for offer in offers {
        tell(&mut run, Input::Offered(offer), NOW);
    }
    tell(&mut run, Input::Tick, NOW.plus_ms(500));
    assert_eq!(run.group.len() as u32, world);
    run
}

/// Signed and shown, as the miner does it and the coordinator's door takes it.
fn show(run: &mut Run, rank: u32, (first, steps): (u64, Vec<Commitment>)) {
    let node = run.group[rank as usize];
    let keys = (0..run.group.len() as u32).map(key);
    let key = keys
        .into_iter()
        .find(|key| NodeId::of_key(&key.public()) == node);
    let (task, attempt) = (run.task, run.attempt);
    let said = Commitments {
        version: VERSION,
        task,
        attempt,
        rank,
        first,
        steps,
    };
    let signed = Signed::sign(&said, &NETWORK, &key.unwrap());
    let opened = audit::open(signed, &NETWORK, node, (task, attempt)).unwrap();
    let opened = Box::new(opened);
    tell(run, Input::Committed { node, opened }, NOW.plus_ms(600));
}

/// A group of three that says what it computed, all but the last rank having begun with `state`.
async fn shown(plan: impl Fn() -> Plan, state: &[u8], of_the_last: &[u8]) -> Run {
    let footing = |rank| {
        let state = if rank == 2 { of_the_last } else { state };
        Some(Footing::Restore(state.to_vec()))
    };
    let heard = group_from(Shares::equal(3), &plan, footing).await;
    let mut run = run(&plan(), 3);
    for (heard, rank) in heard.into_iter().zip(0..) {
        for words in heard.words {
            show(&mut run, rank, words);
        }
    }
    run
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_whose_parameters_were_changed_is_named() {
    let (dir, info) = digits();
    let mut first = started(plan(dir.path(), &info, 3e-3)).await;
    let state = alone(&mut first).await.states.swap_remove(1);
    let plan = || {
        let mut plan = plan(dir.path(), &info, 3e-3);
        plan.train.checkpoint_steps = 1;
        plan
    };

    let run = shown(plan, &state, &state).await;
    let view = run.trail.view().unwrap();
    assert_eq!((view.compared, view.last), (TOTAL - 20, TOTAL));
    assert_eq!(view.parted, []);

    let mut changed = state.clone();
    let header = u64::from_le_bytes(*changed.first_chunk().unwrap());
    // The least bit of the first parameter.
    changed[8 + header as usize] ^= 1;
    let run = shown(plan, &state, &changed).await;
    let view = run.trail.view().unwrap();
    assert_eq!(view.compared, TOTAL - 20);
    let named: Vec<_> = view
        .parted
        .iter()
        .map(|p| (p.node, p.step, p.part))
        .collect();
    assert_eq!(named, [(run.group[2], 21, Part::Parameters)]);
}
