//! The ledger actor: money moves here alone, and with it everything that must change in the same breath.
//!
//! **Owns**: the [`Chain`], the block being made, and the consensus engine. **Talked to by**: the other actors of the
//! coordinator and, for plain payments, the sessions.
//!
//! A [`Posting`] carries one entry of the chain and records of other nouns. The chain decides in memory at once; what it
//! did waits in the open block until the last block is durable; then the block is closed, and all of it goes to the
//! disk in one write transaction. Whoever tells the world waits for the posting's [`Durable`] first.
//!
//! ```text
//! Post ─▶ open block ─(last commit is back)─▶ closed ─▶ consensus ─▶ one redb transaction ─▶ Durable
//! Tick ─▶ open block with what is due, where the earliest expiry has come
//! ```
//!
//! **Invariant**: memory is what the store will hold once all closed blocks are committed and the open one is closed. A
//! restarted ledger waits for the former and reads; the open block is lost with all that waited for it, and
//! nobody was told.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cryptomind_core::chain::{Chain, Executed, Work};
use cryptomind_core::consensus::{Consensus, Executor, Solo, Step};
use cryptomind_core::transaction::Verified;
use cryptomind_protocol::block::{Block, Decision, Receipt};
use cryptomind_protocol::genesis::Genesis;
use cryptomind_protocol::key::{Hash, Nonce};
use cryptomind_protocol::task::Payment;
use cryptomind_protocol::transaction::Accepted;
use cryptomind_protocol::{AccountId, Amount, ErrorBody, ReceiptId, SecretKey, TaskId, Timestamp};
use cryptomind_storage::state::{Batch, StateStore};
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use tokio::sync::watch;

use crate::clock;
use crate::coordinator::directory::Directory;
use crate::matchmaker::{MatchmakerMsg, MatchmakerRef};
use crate::supervisor::Handle;

pub mod audit;

#[cfg(test)]
mod fixture;
pub mod folder;
mod pace;
pub mod replica;
mod sealing;

/// The chain as it lies in the store.
pub use cryptomind_storage::chain as archive;

pub use pace::NetworkClock;
use sealing::{Sealed, Sealing};

/// How long anybody waits for the ledger's decision. It decides in microseconds.
pub const LEDGER_LIMIT: Duration = Duration::from_secs(5);
/// How often the ledger looks whether something is due.
const TICK: Duration = Duration::from_millis(100);

/// Reaches the ledger.
pub type LedgerRef = Handle<LedgerMsg>;

/// Adds records that tell what the entry did.
pub type Then = Box<dyn FnOnce(&Receipt, &mut Batch) + Send>;

/// What changes together: one entry of the chain, with records of other nouns.
#[derive(Default)]
pub struct Posting {
    /// The transaction that it answers.
    pub transaction: Option<Verified>,
    /// What the coordinator decides with it, in order; all or none.
    pub decisions: Vec<Decision>,
    /// Records of other nouns.
    pub batch: Batch,
    /// Further records, made of what the entry did.
    pub then: Option<Then>,
    /// The ledger whose state it was decided on, where it was decided on any: see [`LedgerRef::settled`].
    pub life: Option<Life>,
}

/// One life of the ledger actor, from a start to its end. What was decided on the state of another may rest on entries
/// that were lost with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Life(u64);

impl Life {
    fn new() -> Self {
        static LIVES: AtomicU64 = AtomicU64::new(0);
        Self(LIVES.fetch_add(1, Ordering::Relaxed))
    }
}

/// A posting that was carried out. It holds once it is durable, and not before.
#[derive(Debug)]
pub struct Posted {
    /// Where in the chain.
    pub id: ReceiptId,
    /// What it did.
    pub receipt: Receipt,
    /// Resolves when its block is on the disk.
    pub durable: Durable,
}

impl Posted {
    /// What the transaction's sender is told, once it is durable.
    ///
    /// # Errors
    /// Where the entry carried no transaction.
    pub fn accepted(&self) -> Result<Accepted, ErrorBody> {
        let outcome = self.receipt.outcome.clone();
        let receipt = self.id;
        outcome
            .map(|outcome| Accepted { receipt, outcome })
            .ok_or_else(|| ErrorBody::internal("an entry without a transaction has no answer"))
    }
}

/// The wait for a block to be on the disk.
#[derive(Debug, Clone)]
pub struct Durable(watch::Receiver<bool>);

impl Durable {
    /// Returns when the block is on the disk.
    ///
    /// # Errors
    /// When the ledger ended before: whether the block is there shows when the same transaction is sent again.
    pub async fn wait(mut self) -> Result<(), ErrorBody> {
        let stored = self.0.wait_for(|stored| *stored).await;
        stored.map(drop).map_err(|_| {
            ErrorBody::internal("the ledger was restarted before this was stored")
                .with_help("send the same transaction again: it counts once")
                .with_retry_after_ms(100)
        })
    }
}

/// Why a posting changed nothing.
#[derive(Debug, Clone, PartialEq)]
pub enum Unposted {
    /// The same transaction was answered before: this is that answer, and it is durable.
    Answered(Accepted),
    /// A rule forbids it.
    Refused(ErrorBody),
    /// The ledger gave no answer in time, or was restarted: it may have been carried out. Whoever remembers anything
    /// of it reads the store again.
    Unknown(ErrorBody),
}

impl From<Unposted> for Result<Accepted, ErrorBody> {
    /// What the transaction's sender is told.
    fn from(unposted: Unposted) -> Self {
        match unposted {
            Unposted::Answered(accepted) => Ok(accepted),
            Unposted::Refused(error) | Unposted::Unknown(error) => Err(error),
        }
    }
}

/// What an account has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Balances {
    /// Free to spend.
    pub available: Amount,
    /// In its own open holds.
    pub held: Amount,
    /// Earned in others' open holds.
    pub earning: Amount,
    /// Its own, but not to be spent yet.
    pub locked: Amount,
    /// When the next part of that is released.
    pub unlocks: Option<Timestamp>,
    /// Of what is locked, what is withheld of its nodes' earnings.
    pub withheld: Amount,
}

/// What there is in all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Totals {
    /// Sum of everything.
    pub supply: Amount,
    /// In open holds.
    pub held: Amount,
    /// Accounts.
    pub accounts: u64,
    /// Holds that are not settled.
    pub open_holds: u64,
    /// Locks that have not ended.
    pub locks: u64,
    /// What makes blocks final, and how many of its makers may fail.
    pub engine: (&'static str, u32),
}

/// What the ledger is asked.
pub enum LedgerMsg {
    /// From actors and sessions: change this, all or nothing.
    Post(Box<Posting>, RpcReplyPort<Result<Posted, Unanswered>>),
    /// From actors: records that change without an entry of the chain, in order with what was posted before.
    Record(
        Option<Life>,
        Batch,
        RpcReplyPort<Result<Durable, ErrorBody>>,
    ),
    /// From actors: was this transaction answered before? A conflict is an error.
    AnswerOf(
        Box<Verified>,
        RpcReplyPort<Result<Option<Answered>, ErrorBody>>,
    ),
    /// From sessions: what has this account?
    BalancesOf(AccountId, RpcReplyPort<Balances>),
    /// From sessions: what is there in all?
    TotalsOf(RpcReplyPort<Totals>),
    /// From the matchmaker: which of these tasks have an open hold?
    OpenHolds(Vec<TaskId>, RpcReplyPort<Vec<bool>>),
    /// From actors that read the store: the wait for what was carried out so far.
    DurableOf(RpcReplyPort<(Life, Option<Durable>)>),
    /// From itself: the entries that came together make a block.
    Close,
    /// From itself: the block of this height is on the disk.
    Stored(u64),
    /// From its own timer.
    Tick,
}

/// An answer that was given before, and the wait for it to be durable.
#[derive(Debug)]
pub struct Answered {
    accepted: Accepted,
    durable: Option<Durable>,
}

impl Answered {
    /// The answer, once it is durable.
    async fn wait(self) -> Result<Accepted, ErrorBody> {
        match self.durable {
            Some(durable) => durable.wait().await.map(|()| self.accepted),
            None => Ok(self.accepted),
        }
    }
}

/// Why a posting changed nothing, as the actor says it: without waiting.
#[derive(Debug)]
pub enum Unanswered {
    /// The same transaction was answered before.
    Answered(Answered),
    /// A rule forbids it.
    Refused(ErrorBody),
    /// It was decided on the state of an earlier life.
    Lost(ErrorBody),
}

/// What the ledger actor needs.
#[derive(Clone)]
pub struct LedgerArguments {
    /// Where the chain lies.
    pub store: StateStore,
    /// What the network started from.
    pub genesis: Genesis,
    /// Makes blocks final.
    pub key: SecretKey,
    /// Who signs for whom, and which nodes work for them: kept up to date for the doors.
    pub directory: Directory,
    /// What time it is for blocks.
    pub clock: NetworkClock,
    /// Hears of holds that expired.
    pub matchmaker: MatchmakerRef,
    /// Says which block was stored last.
    pub grown: watch::Sender<u64>,
}

/// The actor. Its state is a [`Books`].
pub struct LedgerActor;

/// What the ledger holds in memory.
pub struct Books {
    world: LedgerArguments,
    chain: Chain,
    engine: Solo,
    sealing: Sealing,
    /// Answers that are not in the store yet, by account and client's id.
    answers: BTreeMap<(AccountId, Nonce), (Hash, Accepted, Durable)>,
    me: ActorRef<LedgerMsg>,
    life: Life,
}

impl Actor for LedgerActor {
    type Msg = LedgerMsg;
    type State = Books;
    type Arguments = LedgerArguments;

    async fn pre_start(
        &self,
        me: ActorRef<LedgerMsg>,
        world: LedgerArguments,
    ) -> Result<Books, ActorProcessingErr> {
        // What an earlier self closed is part of the state.
        world.store.commit(Batch::new()).await?;
        let mut books = Books::read(world, me.clone())?;
        books.found().await?;
        // Ends with the actor.
        drop(me.send_interval(TICK, || LedgerMsg::Tick));
        Ok(books)
    }

    async fn handle(
        &self,
        _: ActorRef<LedgerMsg>,
        message: LedgerMsg,
        books: &mut Books,
    ) -> Result<(), ActorProcessingErr> {
        // A caller that no longer waits is no concern of the ledger: hence the ignored sends.
        match message {
            LedgerMsg::Post(posting, reply) => drop(reply.send(books.post(*posting))),
            LedgerMsg::Record(life, batch, reply) => drop(reply.send(books.record(life, batch))),
            LedgerMsg::AnswerOf(verified, reply) => drop(reply.send(books.answer_of(&verified))),
            LedgerMsg::BalancesOf(account, reply) => drop(reply.send(books.balances_of(account))),
            LedgerMsg::TotalsOf(reply) => drop(reply.send(books.totals())),
            LedgerMsg::OpenHolds(tasks, reply) => drop(reply.send(books.open_holds(&tasks))),
            LedgerMsg::DurableOf(reply) => drop(reply.send((books.life, books.durable()))),
            LedgerMsg::Close => books.close()?,
            LedgerMsg::Stored(height) => books.stored(height)?,
            LedgerMsg::Tick => books.tick()?,
        }
        Ok(())
    }
}

impl Books {
    fn read(world: LedgerArguments, me: ActorRef<LedgerMsg>) -> Result<Self, ActorProcessingErr> {
        let chain = archive::chain(&world.store, world.genesis.clone())?;
        world.directory.replace(chain.ledger());
        let last = chain.head().map(|head| head.time);
        last.into_iter().for_each(|time| world.clock.reached(time));
        Ok(Self {
            engine: Solo::maker(world.key.clone()),
            world,
            chain,
            sealing: Sealing::default(),
            answers: BTreeMap::new(),
            me,
            life: Life::new(),
        })
    }

    /// Makes block 0 durable, at the first start.
    async fn found(&mut self) -> Result<(), ActorProcessingErr> {
        let durable = self.sealing.durable();
        if self.chain.waiting() > 0 {
            self.seal()?;
            durable.wait().await?;
        }
        Ok(())
    }

    fn post(&mut self, posting: Posting) -> Result<Posted, Unanswered> {
        if let Some(verified) = &posting.transaction {
            let before = self.answer_of(verified).map_err(Unanswered::Refused)?;
            if let Some(answered) = before {
                return Err(Unanswered::Answered(answered));
            }
        }
        self.check_life(posting.life).map_err(Unanswered::Lost)?;
        self.carry_out(posting).map_err(Unanswered::Refused)
    }

    /// What was decided on the state of an earlier life is not carried out: some of that may be lost.
    fn check_life(&self, life: Option<Life>) -> Result<(), ErrorBody> {
        if life.is_none_or(|life| life == self.life) {
            return Ok(());
        }
        Err(
            ErrorBody::internal("the ledger was restarted since this was decided")
                .with_help("ask again: it is decided anew")
                .with_retry_after_ms(200),
        )
    }

    fn carry_out(&mut self, posting: Posting) -> Result<Posted, ErrorBody> {
        let now = self.world.clock.now();
        if self.chain.is_full() {
            self.seal()?;
        }
        self.begin(now)?;
        if self.chain.is_full() {
            // So much was due that it fills a block of its own.
            self.seal()?;
            self.begin(now)?;
        }
        let stamp = posting
            .transaction
            .as_ref()
            .map(|t| (t.account(), t.id(), t.payload_hash()));
        let (transaction, decisions) = (posting.transaction, posting.decisions);
        let executed = self.chain.execute(Work {
            transaction,
            decisions,
        });
        // What was due may have happened even where this did not.
        self.close_soon();
        let Executed { id, receipt, .. } = executed.inspect_err(report_broken)?;
        let mut batch = posting.batch;
        if let Some(then) = posting.then {
            then(&receipt, &mut batch);
        }
        archive::note(
            id,
            &receipt,
            stamp.map(|(account, id, _)| (account, id)),
            &mut batch,
        );
        let durable = self.sealing.add(batch);
        let posted = Posted {
            id,
            receipt,
            durable,
        };
        if let Some((account, id, payload)) = stamp {
            let answer = (payload, posted.accepted()?, posted.durable.clone());
            self.sealing.answered((account, id), &answer.1.outcome);
            self.answers.insert((account, id), answer);
        }
        Ok(posted)
    }

    /// Records go with the open block, or to the disk at once where none is open: never before what was posted earlier.
    fn record(&mut self, life: Option<Life>, batch: Batch) -> Result<Durable, ErrorBody> {
        self.check_life(life)?;
        if self.chain.waiting() > 0 {
            return Ok(self.sealing.add(batch));
        }
        let (stored, durable) = watch::channel(false);
        let commit = self.world.store.commit(batch);
        tokio::spawn(async move {
            if commit.await.is_ok() {
                stored.send_replace(true);
            }
        });
        Ok(Durable(durable))
    }

    /// Begins a block, where none has entries, and does what is due at its time.
    fn begin(&mut self, now: Timestamp) -> Result<(), ErrorBody> {
        let Some(due) = self.chain.begin(now)? else {
            return Ok(());
        };
        let mut batch = Batch::new();
        archive::note(due.id, &due.receipt, None, &mut batch);
        let durable = self.sealing.add(batch);
        let expired = expired(&due.receipt);
        if !expired.is_empty() {
            let matchmaker = self.world.matchmaker.clone();
            tokio::spawn(async move {
                if durable.wait().await.is_ok() {
                    // A matchmaker that is being restarted asks which holds are open.
                    drop(matchmaker.cast(MatchmakerMsg::HoldsExpired(expired)));
                }
            });
        }
        Ok(())
    }

    /// Closes the block when the messages that are here already have been handled, unless one is on its way to the
    /// disk: then when that is back.
    fn close_soon(&mut self) {
        if self.chain.waiting() > 0 && self.sealing.may_close() {
            self.sealing.closing();
            // The actor itself is there as long as it handles messages.
            drop(self.me.cast(LedgerMsg::Close));
        }
    }

    fn close(&mut self) -> Result<(), ErrorBody> {
        self.sealing.closed();
        if self.chain.waiting() > 0 && !self.sealing.is_storing() {
            self.seal()?;
        }
        Ok(())
    }

    /// Closes the open block and sends it to the disk.
    fn seal(&mut self) -> Result<(), ErrorBody> {
        let Some(proposal) = self.chain.propose() else {
            return Ok(());
        };
        for step in self.engine.propose(proposal, clock::now()) {
            match step {
                Step::Decided(block) => self.store(&block)?,
                // One maker of blocks has nobody to ask, nobody to tell and nothing to wait for.
                Step::Judge(_) | Step::Send(..) | Step::Wake(_) => {}
                Step::Discard(height) => {
                    let message = format!("the proposal of block {height} lost");
                    return Err(ErrorBody::internal(message));
                }
            }
        }
        Ok(())
    }

    fn store(&mut self, block: &Block) -> Result<(), ErrorBody> {
        let (height, me, world) = (block.header.height, self.me.clone(), self.world.clone());
        let Sealed {
            mut batch,
            news,
            stored,
        } = self.sealing.take(height);
        archive::put(block, &mut self.chain, &mut batch)?;
        world.clock.reached(block.header.time);
        let commit = world.store.commit(batch);
        tokio::spawn(async move {
            if commit.await.is_ok() {
                // The doors know it before whoever asked for it is answered.
                for (account, outcome) in &news {
                    world.directory.follow(*account, outcome);
                }
                stored.send_replace(true);
                world.grown.send_replace(height);
                // An actor that was restarted meanwhile knows it from the store.
                drop(me.cast(LedgerMsg::Stored(height)));
            }
        });
        Ok(())
    }

    fn stored(&mut self, height: u64) -> Result<(), ErrorBody> {
        for answered in self.sealing.stored(height) {
            self.answers.remove(&answered);
        }
        self.close()
    }

    /// An empty block is made when the earliest expiry is due: an idle chain strands nothing.
    fn tick(&mut self) -> Result<(), ErrorBody> {
        let now = self.world.clock.now();
        if self.chain.next_due().is_some_and(|due| due <= now) {
            self.begin(now)?;
            self.close_soon();
        }
        Ok(())
    }

    fn answer_of(&self, verified: &Verified) -> Result<Option<Answered>, ErrorBody> {
        let (account, id, payload) = (verified.account(), verified.id(), verified.payload_hash());
        if let Some((first, accepted, durable)) = self.answers.get(&(account, id)) {
            let (accepted, durable) = (accepted.clone(), Some(durable.clone()));
            return check_same(*first, payload).map(|()| Some(Answered { accepted, durable }));
        }
        let accepted = stored_answer(&self.world.store, verified)?;
        let durable = None;
        Ok(accepted.map(|accepted| Answered { accepted, durable }))
    }

    fn balances_of(&self, account: AccountId) -> Balances {
        let ledger = self.chain.ledger();
        let balance = ledger.balance(&account);
        Balances {
            available: balance.available,
            held: balance.held,
            earning: balance.earning,
            locked: balance.locked,
            unlocks: ledger.unlocks(&account),
            withheld: ledger.withheld(&account),
        }
    }

    fn totals(&self) -> Totals {
        let ledger = self.chain.ledger();
        Totals {
            supply: ledger.supply(),
            held: ledger.held(),
            accounts: ledger.account_count() as u64,
            open_holds: ledger.hold_count() as u64,
            locks: ledger.lock_count() as u64,
            engine: (self.engine.name(), self.engine.tolerates()),
        }
    }

    fn durable(&self) -> Option<Durable> {
        (self.chain.waiting() > 0).then(|| self.sealing.durable())
    }

    fn open_holds(&self, tasks: &[TaskId]) -> Vec<bool> {
        let is_open = |task| self.chain.ledger().hold(task).is_some();
        tasks.iter().map(is_open).collect()
    }
}

/// A change that would have broken an invariant was not made, and must not have been planned.
fn report_broken(refusal: &ErrorBody) {
    if refusal.code == "ledger_broken" {
        tracing::error!(%refusal, "a fault in the ledger's own rules");
    }
}

/// What holds paid that were settled by what was due, by task.
fn expired(receipt: &Receipt) -> Vec<(TaskId, Vec<Payment>)> {
    let mut tasks: BTreeMap<TaskId, Vec<Payment>> = BTreeMap::new();
    for transfer in &receipt.transfers {
        if let Some(task) = transfer.task {
            tasks.entry(task).or_default().push(Payment {
                payer: transfer.payer,
                payee: transfer.payee,
                amount: transfer.amount,
                reason: transfer.reason,
                node: transfer.node,
            });
        }
    }
    tasks.into_iter().collect()
}

impl LedgerRef {
    /// Posts, and tells refusals from answers given before, for which it waits until they are durable.
    pub async fn post(&self, posting: Posting) -> Result<Posted, Unposted> {
        let message = |reply| LedgerMsg::Post(Box::new(posting), reply);
        let posted = self.call(message, LEDGER_LIMIT).await;
        match posted.map_err(Unposted::Unknown)? {
            Ok(posted) => Ok(posted),
            Err(Unanswered::Lost(error)) => Err(Unposted::Unknown(error)),
            Err(Unanswered::Refused(refusal)) => Err(Unposted::Refused(refusal)),
            Err(Unanswered::Answered(answered)) => match answered.wait().await {
                Ok(accepted) => Err(Unposted::Answered(accepted)),
                Err(lost) => Err(Unposted::Unknown(lost)),
            },
        }
    }

    /// Writes records that go without an entry of the chain.
    ///
    /// # Errors
    /// Where nobody knows whether they were written, or they were decided on the state of another life than `life`.
    pub async fn record(&self, life: Option<Life>, batch: Batch) -> Result<Durable, ErrorBody> {
        let message = |reply| LedgerMsg::Record(life, batch, reply);
        self.call(message, LEDGER_LIMIT).await?
    }

    /// The durable answer that this transaction got before, where it did.
    pub async fn answer_of(&self, verified: &Verified) -> Result<Option<Accepted>, ErrorBody> {
        let message = |reply| LedgerMsg::AnswerOf(Box::new(verified.clone()), reply);
        match self.call(message, LEDGER_LIMIT).await?? {
            Some(answered) => answered.wait().await.map(Some),
            None => Ok(None),
        }
    }

    /// Posts and answers, once it is durable.
    pub async fn submit(&self, posting: Posting) -> Result<Accepted, ErrorBody> {
        match self.post(posting).await {
            Ok(posted) => {
                let accepted = posted.accepted()?;
                posted.durable.wait().await.map(|()| accepted)
            }
            Err(unposted) => unposted.into(),
        }
    }

    /// Returns when everything that was carried out so far is in the store: an actor that begins by reading the store
    /// misses nothing. Gives the ledger's life: what it then decides and remembers holds as long as that.
    pub async fn settled(&self, store: &StateStore) -> Result<Life, ErrorBody> {
        let (life, durable) = self.call(LedgerMsg::DurableOf, LEDGER_LIMIT).await?;
        if let Some(durable) = durable {
            durable.wait().await?;
        }
        // Blocks that were closed before lie in the store's queue.
        store
            .commit(Batch::new())
            .await
            .map_err(ErrorBody::internal)?;
        Ok(life)
    }

    /// Which of these tasks have an open hold.
    pub async fn open_holds(&self, tasks: Vec<TaskId>) -> Result<Vec<bool>, ErrorBody> {
        self.call(|reply| LedgerMsg::OpenHolds(tasks, reply), LEDGER_LIMIT)
            .await
    }
}

/// What a transaction was answered before, where that is in the store. Reads a block where it was: for the doors, that
/// nobody keeps the actor busy with old transactions.
///
/// # Errors
/// `transaction_conflict` where other bytes had the same id; when the store cannot be read.
pub fn stored_answer(
    store: &StateStore,
    verified: &Verified,
) -> Result<Option<Accepted>, ErrorBody> {
    let found = archive::answer(store, &verified.account(), &verified.id())?;
    let Some((first, accepted)) = found else {
        return Ok(None);
    };
    check_same(first, verified.payload_hash()).map(|()| Some(accepted))
}

fn check_same(first: Hash, payload: Hash) -> Result<(), ErrorBody> {
    if first == payload {
        return Ok(());
    }
    let message = "another transaction of this account has the same id";
    Err(ErrorBody::user("transaction_conflict", message)
        .with_help("draw a fresh random id for each transaction"))
}
