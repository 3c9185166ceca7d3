//! The crash matrix over the real ledger: blocks with every kind of entry, each one transaction.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use cryptomind_core::chain::{Chain, Head, Work};
use cryptomind_core::consensus::{Consensus as _, Executor as _, Solo, Step};
use cryptomind_core::ledger::{Account, Delegation, Hold, Lock};
use cryptomind_core::transaction::{self, Verified};
use cryptomind_protocol::block::{Block, Decision, Ending, HoldTerms, Share};
use cryptomind_protocol::genesis::{FeeTable, Genesis, NetworkKind, Withholding};
use cryptomind_protocol::item::Access;
use cryptomind_protocol::key::Nonce;
use cryptomind_protocol::role::Role;
use cryptomind_protocol::task::{Conditions, Split, TaskSpec, Work as TaskWork};
use cryptomind_protocol::transaction::{Action, Transaction};
use cryptomind_protocol::{
    AccountId, Amount, ItemId, NodeId, SecretKey, Signed, TaskId, Timestamp, codec,
};
use cryptomind_storage::chain::{self, Passage, Position};
use cryptomind_storage::state::{Batch, Record, StateStore};

use crate::matrix::{Script, Workload};
use crate::trace::Loss;

/// One operation a step, and the genesis before them.
const STEPS: usize = 501;
/// A task is posted, earned in and settled every so many steps; of every other one nobody hears again.
const CYCLE: usize = 5;
const CREATED: Timestamp = Timestamp::from_ms(1_000_000);
/// So that tasks nobody settles expire while later ones come.
const HOLD_MS: u64 = 60;

fn units(units: u64) -> Amount {
    Amount::from_base_units(units)
}

fn key(number: usize) -> SecretKey {
    SecretKey::from_seed([number as u8; 32])
}

fn account(number: usize) -> AccountId {
    AccountId::of_key(&key(number).public())
}

fn genesis() -> Genesis {
    Genesis {
        version: 1,
        name: "matrix".into(),
        kind: NetworkKind::Development,
        created: CREATED,
        coordinator: key(200).public(),
        allocations: Genesis::standard_allocations(),
        fees: FeeTable {
            send: units(3),
            post: units(7),
            least: units(1),
            network_fee_ppm: 50_000,
            reward_fund_ppm: 100_000,
        },
        withholding: Withholding {
            period_ms: 40,
            max_ppm: 250_000,
        },
        faucet: units(1_000_000),
    }
}

fn at(step: usize) -> Timestamp {
    CREATED.plus_ms(10 * step as u64)
}

struct Market;

fn id(step: usize) -> Nonce {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&(step as u64).to_be_bytes());
    Nonce::new(id)
}

fn signed(step: usize, by: usize, action: Action) -> Verified {
    let network = genesis().hash();
    let transaction = Transaction {
        version: 1,
        id: id(step),
        account: account(by),
        valid_until: at(step + 1),
        max_fee: units(7),
        action,
    };
    let signed = Signed::sign(&transaction, &network, &key(by));
    transaction::open(signed, &network).unwrap()
}

fn post(step: usize) -> Work {
    let spec = TaskSpec {
        name: "task".into(),
        work: TaskWork::Infer {
            model: ItemId::new([1; 16]),
            dataset: ItemId::new([2; 16]),
            split: Split::Test,
        },
        miners: 1,
        max_cost: units(2_000),
        access: Access::Owner,
        conditions: Conditions::default(),
    };
    let terms = HoldTerms {
        expires: at(step).plus_ms(HOLD_MS),
        work_max: units(900),
        items: vec![(account(7), units(50))],
        storage_per_mib: units(2),
        storage_max: units(20),
        network_fee_ppm: 50_000,
    };
    Work {
        transaction: Some(signed(step, 1, Action::Post { spec })),
        decisions: vec![Decision::OpenHold { terms }],
    }
}

fn asked(step: usize, action: Action) -> Work {
    Work {
        transaction: Some(signed(step, 1, action)),
        decisions: Vec::new(),
    }
}

fn decided(decision: Decision) -> Work {
    Work {
        transaction: None,
        decisions: vec![decision],
    }
}

/// What step `step` does.
fn work(step: usize) -> Work {
    let task = |posted: usize| TaskId::of_transaction(&account(1), id(posted).as_bytes());
    let node = NodeId::new([4; 32]);
    let abandoned = step / CYCLE % 2 == 1;
    match step % CYCLE {
        1 if step == 1 => asked(step, Action::Faucet {}),
        // A node is delegated in one cycle and revoked in the next.
        0 if !abandoned => asked(step, Action::Revoke { node }),
        0 => {
            let expires = at(step).plus_ms(HOLD_MS);
            let role = Role::Miner;
            asked(
                step,
                Action::Delegate {
                    node,
                    role,
                    expires,
                },
            )
        }
        2 => post(step),
        3 => decided(Decision::Earn {
            task: task(step - 1),
            checkpoint: 1,
            shares: vec![Share {
                account: account(4),
                node,
                amount: units(700),
            }],
        }),
        4 if !abandoned => decided(Decision::Settle {
            task: task(step - 2),
            ending: Ending {
                items_used: true,
                stored: vec![(account(5), 1 << 21)],
                withheld: vec![(node, 200_000)],
            },
        }),
        _ => {
            let (to, amount) = (account(10 + step % 20), units(5));
            asked(step, Action::Send { to, amount })
        }
    }
}

fn close(chain: &mut Chain, batch: &mut Batch) {
    let proposal = chain.propose().unwrap();
    for step in Solo::maker(key(200)).propose(proposal, CREATED) {
        let Step::Decided(block) = step else {
            panic!("{step:?}")
        };
        chain::put(&block, chain, batch).unwrap();
    }
}

fn load<R: Record>(store: &StateStore) -> Result<Vec<R>, String> {
    store.load().map_err(|error| error.to_string())
}

impl Workload for Market {
    fn step(&self, store: &StateStore, number: usize) -> Batch {
        let mut batch = Batch::new();
        let mut chain = chain::chain(store, genesis()).unwrap();
        if number > 0 {
            if let Some(due) = chain.begin(at(number)).unwrap() {
                chain::note(due.id, &due.receipt, None, &mut batch);
            }
            let work = work(number);
            let stamp = work.transaction.as_ref().map(|t| (t.account(), t.id()));
            let done = chain.execute(work).unwrap();
            chain::note(done.id, &done.receipt, stamp, &mut batch);
        }
        close(&mut chain, &mut batch);
        batch
    }

    fn content(&self, store: &StateStore) -> Result<Vec<u8>, String> {
        let mut hasher = DefaultHasher::new();
        for record in load::<Head>(store)? {
            codec::encode(&record).hash(&mut hasher);
        }
        for record in load::<Account>(store)? {
            codec::encode(&record).hash(&mut hasher);
        }
        for record in load::<Hold>(store)? {
            codec::encode(&record).hash(&mut hasher);
        }
        for record in load::<Lock>(store)? {
            codec::encode(&record).hash(&mut hasher);
        }
        for record in load::<Delegation>(store)? {
            codec::encode(&record).hash(&mut hasher);
        }
        for record in load::<Position>(store)? {
            record.key().hash(&mut hasher);
            record.receipt.as_bytes().hash(&mut hasher);
        }
        for record in load::<Passage>(store)? {
            record.key().hash(&mut hasher);
        }
        for block in last_blocks(store)? {
            codec::encode(&block).hash(&mut hasher);
        }
        Ok(hasher.finish().to_be_bytes().into())
    }

    /// The chain can be opened (its invariants hold and its records are those that its last block left), and its
    /// last blocks follow one another.
    fn check(&self, store: &StateStore, steps: usize) -> Result<(), String> {
        if steps == 0 {
            return Ok(());
        }
        let chain = chain::chain(store, genesis()).map_err(|e| e.to_string())?;
        let head = chain.head().ok_or("no head")?;
        if head.height + 1 != steps as u64 {
            return Err(format!("height {} after {steps} steps", head.height));
        }
        let blocks = last_blocks(store)?;
        let follow = |pair: &[Block]| pair[1].header.hash() == pair[0].header.parent;
        match blocks.first() {
            Some(last) if last.header == *head && blocks.windows(2).all(follow) => Ok(()),
            _ => Err("the last blocks are not those that led to the head".into()),
        }
    }
}

/// The newest first: reading all of them at each of so many images would take minutes.
fn last_blocks(store: &StateStore) -> Result<Vec<Block>, String> {
    let blocks = store.range::<Block>(&[], &[], 4, true);
    blocks.map_err(|error| error.to_string())
}

#[test]
fn a_power_cut_at_any_sync_leaves_a_prefix_of_the_chain() {
    let script = Script::new(&Market, STEPS);
    let trace = script.record(|disk| disk);
    let torn = |unit| Loss::Torn { unit, seed: 3 };
    let losses = [
        Loss::Everything,
        Loss::Nothing,
        Loss::Subset(3),
        torn(512),
        torn(4096),
        Loss::Short(3),
    ];
    let report = script.matrix(&trace, &losses, &[Loss::Subset(5)]);
    println!("{report:?}");
    report.expect_none();
    assert!(report.cuts > 2 * STEPS / 2);
}
