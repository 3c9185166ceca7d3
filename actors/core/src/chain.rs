//! The chain: entries carried out on the ledger, gathered into blocks, each naming the one before.
//!
//! Owned by the ledger actor, which carries out entries as they come and stores each block before anyone hears of
//! what is in it; and by whoever re-executes a chain made elsewhere (`ledger verify`, `ledger follow`). Both run
//! these lines, so a chain that was made can be made again.
//!
//! ```text
//!   begin(now)          execute(work), any number of times           propose()
//! ───────────▶ open at a block time ─────────────────────────▶ open ──────────▶ a proposal, closed
//! ```
//!
//! **Invariants**: a block's time is above its parent's and fixed before its first entry; where something is due at
//! that time (a hold's expiry, a lock's end), the block's first entry is `Due`, and nowhere else; an entry that is
//! refused leaves no trace; the state hash in a header is that of all records after the block's last entry.
//! Nothing here iterates over an unordered map.
//!
//! **Is not**: the choice of which block is next ([`crate::consensus`]), nor what is stored where.

use std::collections::BTreeSet;

use cryptomind_protocol::block::{Block, Decision, Entry, Header, MAX_BLOCK_BYTES, Receipt};
use cryptomind_protocol::genesis::{Genesis, NetworkKind};
use cryptomind_protocol::key::Nonce;
use cryptomind_protocol::transaction::Action;
use cryptomind_protocol::{
    AccountId, Amount, ErrorBody, GenesisHash, ReceiptId, TaskId, Timestamp, codec,
};
use serde::{Deserialize, Serialize};

use crate::consensus::{Executor, Proposal, Solo};
use crate::ledger::{
    Account, Changes, Delegation, DelegationKey, Hold, Kind, Ledger, Lock, LockKey, Op, Rules,
};
use crate::merkle;
use crate::state_hash::StateHash;
use crate::transaction::{self, Verified};

mod verify;

pub use verify::{Divergence, Opened, Seen};

/// The version of headers.
pub const VERSION: u8 = 1;

/// When a block holds this much it is closed, whatever else waits: with its last entry it stays below
/// [`MAX_BLOCK_BYTES`].
const FULL_BYTES: usize = 256 * 1024;

/// What shall happen, all or nothing.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Work {
    /// An account's transaction.
    pub transaction: Option<Verified>,
    /// The coordinator's decisions that go with it, carried out after it.
    pub decisions: Vec<Decision>,
}

/// What happened.
#[derive(Debug, Clone, PartialEq)]
pub struct Executed {
    /// Where in the chain.
    pub id: ReceiptId,
    /// The block's time.
    pub time: Timestamp,
    /// What it did.
    pub receipt: Receipt,
}

/// The last closed block, and the state after it: what a restart needs besides the records.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Head {
    /// Its header.
    pub header: Header,
    /// The state that the header's hash is of.
    pub state: StateHash,
}

/// Records as a closed block left them; `None` where one is gone.
#[derive(Debug, Default)]
pub struct Touched {
    /// Accounts.
    pub accounts: Vec<Account>,
    /// Holds.
    pub holds: Vec<(TaskId, Option<Hold>)>,
    /// Locks.
    pub locks: Vec<(LockKey, Option<Lock>)>,
    /// Delegations.
    pub delegations: Vec<(DelegationKey, Option<Delegation>)>,
}

/// The ledger with its blocks.
#[derive(Debug)]
pub struct Chain {
    genesis: Genesis,
    network: GenesisHash,
    ledger: Ledger,
    state: StateHash,
    /// `None` before block 0.
    head: Option<Header>,
    open: Option<Open>,
    touched: Touched,
}

/// The block being made.
#[derive(Debug)]
struct Open {
    height: u64,
    time: Timestamp,
    entries: Vec<Entry>,
    receipts: Vec<Receipt>,
    /// CBOR of the entries and of the receipts.
    leaves: (Vec<Vec<u8>>, Vec<Vec<u8>>),
    bytes: usize,
    /// Records that this block changed: taken out of the state hash, put back as they are when it closes.
    accounts: BTreeSet<AccountId>,
    holds: BTreeSet<TaskId>,
    locks: BTreeSet<LockKey>,
    delegations: BTreeSet<DelegationKey>,
}

impl Open {
    fn new(height: u64, time: Timestamp) -> Self {
        Self {
            height,
            time,
            entries: Vec::new(),
            receipts: Vec::new(),
            leaves: (Vec::new(), Vec::new()),
            bytes: 0,
            accounts: BTreeSet::new(),
            holds: BTreeSet::new(),
            locks: BTreeSet::new(),
            delegations: BTreeSet::new(),
        }
    }
}

impl Chain {
    /// A chain without blocks: for whoever carries out block 0 and all others after it.
    pub fn empty(genesis: Genesis) -> Self {
        Self {
            network: genesis.hash(),
            ledger: Ledger::new(Rules::of(&genesis)),
            genesis,
            state: StateHash::default(),
            head: None,
            open: None,
            touched: Touched::default(),
        }
    }

    /// A new chain with block 0 made and not closed: the supply is minted.
    ///
    /// # Errors
    /// Where the genesis does not mint exactly the supply, or its kind and its faucet contradict each other.
    pub fn found(genesis: Genesis) -> Result<Self, ErrorBody> {
        check_genesis(&genesis)?;
        let mut chain = Self::empty(genesis);
        chain.open = Some(Open::new(0, chain.genesis.created));
        chain.carry_out(None, vec![Decision::Mint {}])?;
        Ok(chain)
    }

    /// The chain whose last block and records these stored ones are.
    ///
    /// # Errors
    /// Where an invariant is broken, or the records are not those that the last block left.
    pub fn restore(genesis: Genesis, head: Head, ledger: Ledger) -> Result<Self, ErrorBody> {
        ledger.check_invariants().map_err(ErrorBody::internal)?;
        let state = state_of(&ledger);
        let stored = [head.state.digest(), state.digest()];
        if stored.iter().any(|digest| *digest != head.header.state) {
            let height = head.header.height;
            let message = format!("the stored records are not those that block {height} left");
            return Err(ErrorBody::internal(message));
        }
        Ok(Self {
            network: genesis.hash(),
            genesis,
            ledger,
            state,
            head: Some(head.header),
            open: None,
            touched: Touched::default(),
        })
    }

    /// Accounts, holds, locks and delegations as all entries left them, those of the open block too.
    pub const fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// What the network started from.
    pub const fn genesis(&self) -> &Genesis {
        &self.genesis
    }

    /// The network's id.
    pub const fn network(&self) -> &GenesisHash {
        &self.network
    }

    /// The last closed block; `None` before block 0.
    pub const fn head(&self) -> Option<&Header> {
        self.head.as_ref()
    }

    /// What a restart needs: the last closed block and its state. To be taken while no block is open.
    pub fn checkpoint(&self) -> Option<Head> {
        let header = self.head.clone()?;
        let state = self.state.clone();
        Some(Head { header, state })
    }

    /// When the ledger has to act by itself next.
    pub fn next_due(&self) -> Option<Timestamp> {
        self.ledger.next_due()
    }

    /// Entries that wait for the open block to close.
    pub fn waiting(&self) -> usize {
        self.open.as_ref().map_or(0, |open| open.entries.len())
    }

    /// Whether the open block takes no more.
    pub fn is_full(&self) -> bool {
        self.open
            .as_ref()
            .is_some_and(|open| open.bytes >= FULL_BYTES)
    }

    /// Fixes the next block's time, unless it has entries already, and does what is due at that time.
    ///
    /// # Errors
    /// When the ledger is broken: it must not be used.
    pub fn begin(&mut self, now: Timestamp) -> Result<Option<Executed>, ErrorBody> {
        if self.waiting() > 0 {
            return Ok(None);
        }
        let (height, earliest) = match &self.head {
            Some(head) => (head.height + 1, head.time.plus_ms(1)),
            None => return Err(ErrorBody::internal("block 0 is not closed yet")),
        };
        let time = earliest.max(now);
        self.open = Some(Open::new(height, time));
        match self.is_due(time) {
            true => self.carry_out(None, vec![Decision::Due {}]).map(Some),
            false => Ok(None),
        }
    }

    fn is_due(&self, time: Timestamp) -> bool {
        self.next_due().is_some_and(|due| due <= time)
    }

    /// Carries out all of `work` in the open block, or refuses it and changes nothing. The caller has begun the block,
    /// and has looked whether the transaction was answered before.
    ///
    /// # Errors
    /// Whatever forbids it, each with its own code.
    pub fn execute(&mut self, work: Work) -> Result<Executed, ErrorBody> {
        let reserved = |d: &Decision| matches!(d, Decision::Mint {} | Decision::Due {});
        if work.decisions.iter().any(reserved) {
            return Err(ErrorBody::internal(
                "nobody decides when to mint, nor what is due",
            ));
        }
        self.carry_out(work.transaction, work.decisions)
    }

    fn carry_out(
        &mut self,
        transaction: Option<Verified>,
        decisions: Vec<Decision>,
    ) -> Result<Executed, ErrorBody> {
        let open = self.open.as_ref();
        let open = open.ok_or_else(|| ErrorBody::internal("no block was begun"))?;
        let (height, time, index) = (open.height, open.time, open.entries.len() as u32);
        let ops = self.ops(transaction.as_ref(), &decisions, time)?;
        let changes = self.ledger.plan(ops, time)?;
        let receipt = Receipt {
            outcome: transaction.as_ref().map(|t| t.outcome(self.genesis.faucet)),
            transfers: changes.transfers.clone(),
        };
        let entry = Entry {
            transaction: transaction.map(Verified::into_signed),
            decisions,
        };
        let leaves = (codec::encode(&entry), codec::encode(&receipt));
        if open.bytes + leaves.0.len() + leaves.1.len() > MAX_BLOCK_BYTES {
            let message = format!("the entry does not fit a block of {MAX_BLOCK_BYTES} bytes");
            return Err(ErrorBody::user("entry_too_large", message)
                .with_help("send less at once, or send it again: the next block is empty"));
        }
        self.forget_old(&changes);
        self.ledger.absorb(&changes);
        self.append(entry, receipt.clone(), leaves);
        let id = ReceiptId::at(height, index);
        Ok(Executed { id, time, receipt })
    }

    /// What an entry does to money.
    fn ops(
        &self,
        transaction: Option<&Verified>,
        decisions: &[Decision],
        time: Timestamp,
    ) -> Result<Vec<Op>, ErrorBody> {
        let mut ops = Vec::with_capacity(1 + decisions.len());
        if let Some(verified) = transaction {
            self.ops_of_transaction(verified, time, &mut ops)?;
        }
        let posts =
            transaction.is_some_and(|t| matches!(t.transaction().action, Action::Post { .. }));
        let opens = decisions
            .iter()
            .filter(|d| matches!(d, Decision::OpenHold { .. }));
        if opens.count() != usize::from(posts) {
            return Err(ErrorBody::internal(
                "a posted task has one hold, and nothing else has",
            ));
        }
        for decision in decisions {
            ops.push(self.op(transaction, decision)?);
        }
        Ok(ops)
    }

    fn ops_of_transaction(
        &self,
        verified: &Verified,
        time: Timestamp,
        ops: &mut Vec<Op>,
    ) -> Result<(), ErrorBody> {
        verified.check(self.ledger.account_of(&verified.signed().signer), time)?;
        let account = verified.account();
        let fee = verified.fee(&self.genesis.fees)?;
        if !fee.is_zero() {
            ops.push(Op::Charge { account, fee });
        }
        match &verified.transaction().action {
            Action::Faucet {} => ops.push(Op::Faucet { to: account }),
            Action::Send { to, amount } => ops.push(Op::Send {
                from: account,
                to: *to,
                amount: *amount,
            }),
            Action::RotateKey { key, proof } => {
                transaction::check_rotation(&self.network, &account, key, proof)?;
                ops.push(Op::RotateKey { account, key: *key });
            }
            Action::Delegate {
                node,
                role,
                expires,
            } => ops.push(Op::Delegate(Delegation {
                account,
                node: *node,
                role: *role,
                expires: *expires,
            })),
            Action::Revoke { node } => ops.push(Op::Revoke {
                account,
                node: *node,
            }),
            Action::Register { .. }
            | Action::Publish { .. }
            | Action::Post { .. }
            | Action::Cancel { .. }
            | Action::Rate { .. } => {}
        }
        Ok(())
    }

    fn op(&self, transaction: Option<&Verified>, decision: &Decision) -> Result<Op, ErrorBody> {
        Ok(match decision {
            Decision::Mint {} => Op::Mint {
                allocations: self.genesis.allocations.clone(),
                created: self.genesis.created,
            },
            Decision::Due {} => Op::Due,
            Decision::OpenHold { terms } => {
                if terms.network_fee_ppm != self.genesis.fees.network_fee_ppm {
                    return Err(ErrorBody::internal(
                        "the network's share is not the genesis'",
                    ));
                }
                let (task, payer, amount) = posted(transaction)?;
                Op::OpenHold {
                    task,
                    payer,
                    amount,
                    terms: terms.clone(),
                }
            }
            Decision::Earn {
                task,
                checkpoint,
                shares,
            } => Op::Earn {
                task: *task,
                checkpoint: *checkpoint,
                shares: shares.clone(),
            },
            Decision::Settle { task, ending } => Op::Settle {
                task: *task,
                ending: ending.clone(),
            },
            Decision::Forfeit { account, node, .. } => Op::Forfeit {
                account: *account,
                node: *node,
            },
        })
    }

    /// Takes records that are about to change for the first time in this block out of the state hash.
    fn forget_old(&mut self, changes: &Changes) {
        let Some(open) = &mut self.open else { return };
        for account in &changes.accounts {
            if open.accounts.insert(account.id)
                && let Some(old) = self.ledger.account(&account.id)
            {
                self.state
                    .remove(ACCOUNTS, old.id.as_bytes(), &codec::encode(old));
            }
        }
        for (task, _) in &changes.holds {
            if open.holds.insert(*task)
                && let Some(old) = self.ledger.hold(task)
            {
                self.state
                    .remove(HOLDS, task.as_bytes(), &codec::encode(old));
            }
        }
        for (key, _) in &changes.locks {
            if open.locks.insert(*key)
                && let Some(old) = self.ledger.lock(key)
            {
                self.state
                    .remove(LOCKS, &key.to_bytes(), &codec::encode(old));
            }
        }
        for (key, _) in &changes.delegations {
            if open.delegations.insert(*key)
                && let Some(old) = self.ledger.delegation(key)
            {
                let key = Delegation::key_bytes(key);
                self.state.remove(DELEGATIONS, &key, &codec::encode(old));
            }
        }
    }

    /// `leaves` are the entry's and the receipt's CBOR.
    fn append(&mut self, entry: Entry, receipt: Receipt, leaves: (Vec<u8>, Vec<u8>)) {
        let Some(open) = &mut self.open else { return };
        open.bytes += leaves.0.len() + leaves.1.len();
        open.leaves.0.push(leaves.0);
        open.leaves.1.push(leaves.1);
        open.entries.push(entry);
        open.receipts.push(receipt);
    }

    /// Puts what a block changed back into the state hash, as it is now, and notes it for the store.
    fn remember_new(&mut self, open: &Open) {
        let mut touched = Touched::default();
        for id in &open.accounts {
            if let Some(account) = self.ledger.account(id) {
                self.state
                    .add(ACCOUNTS, id.as_bytes(), &codec::encode(account));
                touched.accounts.push(account.clone());
            }
        }
        for task in &open.holds {
            let hold = self.ledger.hold(task);
            if let Some(hold) = hold {
                self.state.add(HOLDS, task.as_bytes(), &codec::encode(hold));
            }
            touched.holds.push((*task, hold.cloned()));
        }
        for key in &open.locks {
            let lock = self.ledger.lock(key);
            if let Some(lock) = lock {
                self.state.add(LOCKS, &key.to_bytes(), &codec::encode(lock));
            }
            touched.locks.push((*key, lock.cloned()));
        }
        for key in &open.delegations {
            let delegation = self.ledger.delegation(key);
            if let Some(delegation) = delegation {
                let key = Delegation::key_bytes(key);
                self.state
                    .add(DELEGATIONS, &key, &codec::encode(delegation));
            }
            touched.delegations.push((*key, delegation.cloned()));
        }
        self.touched = touched;
    }

    /// The records that the last closed block changed.
    pub fn take_touched(&mut self) -> Touched {
        std::mem::take(&mut self.touched)
    }
}

impl Executor for Chain {
    fn propose(&mut self) -> Option<Proposal> {
        let open = self.open.take_if(|open| !open.entries.is_empty())?;
        self.remember_new(&open);
        let before = self.head.as_ref();
        let count = open.entries.len() as u32;
        let header = Header {
            version: VERSION,
            network: self.network,
            height: open.height,
            time: open.time,
            parent: before.map_or(Header::parent_of_first(&self.network), Header::hash),
            entries: merkle::root(&open.leaves.0),
            receipts: merkle::root(&open.leaves.1),
            state: self.state.digest(),
            count,
            total: before.map_or(0, |head| head.total) + u64::from(count),
        };
        self.head = Some(header.clone());
        Some(Proposal {
            header,
            entries: open.entries,
            receipts: open.receipts,
        })
    }

    fn check(
        &mut self,
        block: &Block,
        seen: &dyn Fn(&AccountId, &Nonce) -> bool,
    ) -> Result<(), Divergence> {
        let maker = Solo::follower(self.genesis.coordinator);
        self.check_block(block, &maker, seen).map(drop)
    }
}

/// Records are hashed and stored under these names.
const ACCOUNTS: &str = "accounts";
const HOLDS: &str = "holds";
const LOCKS: &str = "locks";
const DELEGATIONS: &str = "delegations";

/// The hash of all records from scratch.
fn state_of(ledger: &Ledger) -> StateHash {
    let mut state = StateHash::default();
    for account in ledger.accounts() {
        state.add(ACCOUNTS, account.id.as_bytes(), &codec::encode(account));
    }
    for hold in ledger.holds() {
        state.add(HOLDS, hold.task.as_bytes(), &codec::encode(hold));
    }
    for lock in ledger.locks() {
        state.add(LOCKS, &lock.key().to_bytes(), &codec::encode(lock));
    }
    for delegation in ledger.delegations() {
        let key = Delegation::key_bytes(&delegation.key());
        state.add(DELEGATIONS, &key, &codec::encode(delegation));
    }
    state
}

/// The task that the entry's transaction posts, who pays, and the cap.
fn posted(transaction: Option<&Verified>) -> Result<(TaskId, AccountId, Amount), ErrorBody> {
    let posting = transaction.and_then(|verified| match &verified.transaction().action {
        Action::Post { spec } => {
            let (account, id) = (verified.account(), verified.id());
            let task = TaskId::of_transaction(&account, id.as_bytes());
            Some((task, account, spec.max_cost))
        }
        _ => None,
    });
    posting.ok_or_else(|| ErrorBody::internal("a hold is opened by the task's own client alone"))
}

/// A whole, in millionths.
const WHOLE_PPM: u32 = 1_000_000;

fn check_genesis(genesis: &Genesis) -> Result<(), ErrorBody> {
    let refuse = |message: &str| Err(ErrorBody::user("bad_genesis", message));
    if genesis.kind == NetworkKind::Main && !genesis.faucet.is_zero() {
        return refuse("a main network gives no test money: its faucet must be zero");
    }
    let (fees, withholding) = (&genesis.fees, &genesis.withholding);
    let shares = [
        fees.network_fee_ppm,
        fees.reward_fund_ppm,
        withholding.max_ppm,
    ];
    if shares.iter().any(|ppm| *ppm > WHOLE_PPM) {
        return refuse("a share exceeds the whole, 1000000 millionths");
    }
    let owners = |kind| matches!(kind, Kind::User | Kind::Allocation);
    let mut kinds = genesis.allocations.iter().map(|a| Kind::of(&a.account));
    if !kinds.all(owners) {
        return refuse("an allocation goes to an account of the ledger's own");
    }
    Ok(())
}

#[cfg(test)]
mod tests;
