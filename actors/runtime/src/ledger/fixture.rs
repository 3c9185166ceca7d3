//! Chains for tests: made as the actor makes them, and kept in a store in memory.

use cryptomind_core::chain::{Chain, Executed, Work};
use cryptomind_core::consensus::{Consensus as _, Executor as _, Solo, Step};
use cryptomind_core::transaction::{self, Verified};
use cryptomind_protocol::block::{Block, Decision, Ending, HoldTerms, Share};
use cryptomind_protocol::genesis::{FeeTable, Genesis, NetworkKind, Vesting, Withholding};
use cryptomind_protocol::item::Access;
use cryptomind_protocol::key::Nonce;
use cryptomind_protocol::role::Role;
use cryptomind_protocol::task::{Conditions, Split, TaskSpec, Work as TaskWork};
use cryptomind_protocol::transaction::{Action, Transaction, sign_rotation};
use cryptomind_protocol::{
    AccountId, Amount, ErrorBody, ItemId, NodeId, SecretKey, Signed, TaskId, Timestamp,
};
use cryptomind_storage::chain::{note, put};
use cryptomind_storage::state::{Batch, StateStore};

use cryptomind_core::journal::GenesisRecord;

const CREATED: Timestamp = Timestamp::from_ms(1_000_000);

pub(super) const fn units(units: u64) -> Amount {
    Amount::from_base_units(units)
}

pub(super) fn key(number: u8) -> SecretKey {
    SecretKey::from_seed([number; 32])
}

pub(super) fn account(number: u8) -> AccountId {
    AccountId::of_key(&key(number).public())
}

pub(super) const fn at(ms: u64) -> Timestamp {
    CREATED.plus_ms(ms)
}

pub(super) fn genesis() -> Genesis {
    let mut allocations = Genesis::standard_allocations();
    for vesting in allocations.iter_mut().filter_map(|a| a.vesting.as_mut()) {
        *vesting = Vesting {
            parts: 2,
            ..*vesting
        };
    }
    Genesis {
        version: 1,
        name: "test".into(),
        kind: NetworkKind::Development,
        created: CREATED,
        coordinator: key(200).public(),
        allocations,
        fees: FeeTable {
            send: units(10),
            post: units(20),
            least: units(5),
            network_fee_ppm: 100_000,
            reward_fund_ppm: 200_000,
        },
        withholding: Withholding {
            period_ms: 10_000,
            max_ppm: 250_000,
        },
        faucet: units(1_000_000),
    }
}

/// Makes a chain and keeps it.
pub(super) struct Maker {
    pub(super) store: StateStore,
    pub(super) blocks: Vec<Block>,
    chain: Chain,
    engine: Solo,
    batch: Batch,
    next_id: u64,
}

impl Maker {
    pub(super) fn new() -> Self {
        let mut batch = Batch::new();
        batch.put(&GenesisRecord { genesis: genesis() });
        let mut maker = Self {
            store: StateStore::in_memory().unwrap(),
            chain: Chain::found(genesis()).unwrap(),
            engine: Solo::maker(key(200)),
            blocks: Vec::new(),
            batch,
            next_id: 0,
        };
        maker.close();
        maker
    }

    /// The block, to the store.
    pub(super) fn close(&mut self) {
        let proposal = self.chain.propose().unwrap();
        let steps = self.engine.propose(proposal, CREATED);
        let [Step::Decided(block)] = steps.as_slice() else {
            panic!("{steps:?}")
        };
        put(block, &mut self.chain, &mut self.batch).unwrap();
        let batch = std::mem::take(&mut self.batch);
        self.store.commit(batch).wait().unwrap();
        self.blocks.push(block.as_ref().clone());
    }

    pub(super) fn sign(&mut self, by: u8, action: Action, now: Timestamp) -> Verified {
        self.next_id += 1;
        let mut id = [0; 16];
        id[..8].copy_from_slice(&self.next_id.to_be_bytes());
        let transaction = Transaction {
            version: 1,
            id: Nonce::new(id),
            account: account(by),
            valid_until: now.plus_ms(60_000),
            max_fee: units(20),
            action,
        };
        let signed = Signed::sign(&transaction, self.chain.network(), &key(by));
        transaction::open(signed, self.chain.network()).unwrap()
    }

    pub(super) fn submit(&mut self, by: u8, action: Action, now: Timestamp) {
        let transaction = self.sign(by, action, now);
        self.work(Some(transaction), Vec::new(), now).unwrap();
    }

    pub(super) fn work(
        &mut self,
        transaction: Option<Verified>,
        decisions: Vec<Decision>,
        now: Timestamp,
    ) -> Result<Executed, ErrorBody> {
        if let Some(due) = self.chain.begin(now)? {
            note(due.id, &due.receipt, None, &mut self.batch);
        }
        let by = transaction.as_ref().map(|t| (t.account(), t.id()));
        let done = self.chain.execute(Work {
            transaction,
            decisions,
        })?;
        note(done.id, &done.receipt, by, &mut self.batch);
        Ok(done)
    }

    pub(super) fn post(&mut self, by: u8, expires: Timestamp, now: Timestamp) -> TaskId {
        let spec = TaskSpec {
            name: "task".into(),
            work: TaskWork::Infer {
                model: ItemId::new([1; 16]),
                dataset: ItemId::new([2; 16]),
                split: Split::Test,
            },
            miners: 1,
            max_cost: units(5_000),
            access: Access::Owner,
            conditions: Conditions::default(),
        };
        let terms = HoldTerms {
            expires,
            work_max: units(1000),
            items: vec![(account(7), units(100))],
            storage_per_mib: units(1),
            storage_max: units(10),
            network_fee_ppm: 100_000,
        };
        let transaction = self.sign(by, Action::Post { spec }, now);
        let (account, id) = (transaction.account(), transaction.id());
        let open = vec![Decision::OpenHold { terms }];
        self.work(Some(transaction), open, now).unwrap();
        TaskId::of_transaction(&account, id.as_bytes())
    }
}

/// A chain with every kind of entry in it, an open hold, locks and a delegation.
pub(super) fn busy() -> Maker {
    let mut m = Maker::new();
    m.submit(1, Action::Faucet {}, at(10));
    m.submit(2, Action::Faucet {}, at(10));
    m.close();
    let (to, amount) = (account(2), units(500));
    m.submit(1, Action::Send { to, amount }, at(20));
    let task = m.post(1, at(50_000), at(20));
    m.post(2, at(9_000), at(20));
    m.post(1, at(60_000), at(20));
    m.close();
    let shares = vec![Share {
        account: account(4),
        node: NodeId::new([4; 32]),
        amount: units(800),
    }];
    let earn = Decision::Earn {
        task,
        checkpoint: 10,
        shares,
    };
    m.work(None, vec![earn], at(30)).unwrap();
    let ending = Ending {
        items_used: true,
        stored: vec![(account(5), 3 << 20)],
        withheld: vec![(NodeId::new([4; 32]), 250_000)],
    };
    m.work(None, vec![Decision::Settle { task, ending }], at(30))
        .unwrap();
    m.close();
    let proof = sign_rotation(m.chain.network(), &account(2), &key(9));
    let key = key(9).public();
    m.submit(2, Action::RotateKey { key, proof }, at(9_100));
    let (node, role, expires) = (NodeId::new([30; 32]), Role::Miner, at(90_000));
    let delegate = Action::Delegate {
        node,
        role,
        expires,
    };
    m.submit(1, delegate, at(9_100));
    m.close();
    m
}
