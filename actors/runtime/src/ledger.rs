//! The ledger actor: money moves here alone, and with it everything that must change in the same breath.
//!
//! **Owns**: accounts, holds, and the answers that transactions got. **Talked to by**: the other
//! actors of the coordinator and, for plain payments, the sessions.
//!
//! A [`Posting`] carries operations on money, records of other nouns and the answer to a transaction. The
//! ledger decides in memory, queues everything as one write transaction, and hands back a
//! [`Commit`]: whoever tells the world waits for that first.
//!
//! **Invariant**: memory is what the store will hold once all queued commits are done. So a restarted
//! ledger first waits for those, then reads.

use std::collections::BTreeMap;
use std::time::Duration;

use cryptomind_core::journal::AnswerRecord;
use cryptomind_core::ledger::{Account, Changes, Hold, Ledger, Op, Transfer};
use cryptomind_protocol::key::{Hash, Nonce};
use cryptomind_protocol::transaction::Outcome;
use cryptomind_protocol::{AccountId, Amount, ErrorBody, Timestamp};
use cryptomind_storage::state::{Batch, Commit, Record, StateStore};
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};

use crate::clock;
use crate::supervisor::Handle;

/// How long anybody waits for the ledger's decision. It decides in microseconds.
pub const LEDGER_LIMIT: Duration = Duration::from_secs(5);

/// Below so many answers, old ones are not looked for.
const MIN_ANSWERS: usize = 1024;

/// Reaches the ledger.
pub type LedgerRef = Handle<LedgerMsg>;

/// Which transaction a posting answers, and how.
#[derive(Debug, Clone)]
pub struct Stamp {
    /// Whose transaction.
    pub account: AccountId,
    /// The client's id of it.
    pub id: Nonce,
    /// Hash of its signed bytes.
    pub payload: Hash,
    /// Until when it is valid.
    pub valid_until: Timestamp,
}

/// Adds records that tell what money did.
pub type Then = Box<dyn FnOnce(&Changes, &mut Batch) + Send>;

/// What changes together.
#[derive(Default)]
pub struct Posting {
    /// The transaction that it answers, with the answer.
    pub answers: Option<(Stamp, Outcome)>,
    /// Movements of money, in order; all or none.
    pub ops: Vec<Op>,
    /// Records of other nouns.
    pub batch: Batch,
    /// Further records, made of what money did.
    pub then: Option<Then>,
}

/// A posting that was decided and queued.
#[derive(Debug)]
pub struct Posted {
    /// What money did.
    pub changes: Changes,
    /// Resolves when all of it is durable.
    pub commit: Commit,
}

/// Why a posting changed nothing.
#[derive(Debug, Clone, PartialEq)]
pub enum Unposted {
    /// The same transaction was answered before: this is that answer.
    Answered(Outcome),
    /// A rule forbids it.
    Refused(ErrorBody),
}

/// What the ledger has in all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Totals {
    /// Sum of everything.
    pub supply: Amount,
    /// In open holds.
    pub held: Amount,
}

/// Balances of one account.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Balances {
    /// Free to spend.
    pub available: Amount,
    /// In its own open holds.
    pub held: Amount,
    /// Earned in others' open holds.
    pub earning: Amount,
}

/// What the ledger is asked.
pub enum LedgerMsg {
    /// From actors and sessions: change this, all or nothing.
    Post(Box<Posting>, RpcReplyPort<Result<Posted, Unposted>>),
    /// From sessions: was this transaction answered before? A conflict is an error.
    AnswerOf(Stamp, RpcReplyPort<Result<Option<Outcome>, ErrorBody>>),
    /// From sessions: what has this account?
    BalancesOf(AccountId, RpcReplyPort<Balances>),
    /// From sessions: what is there in all?
    TotalsOf(RpcReplyPort<Totals>),
}

/// The actor. Its state is a [`Books`].
pub struct LedgerActor;

/// What the ledger holds in memory.
pub struct Books {
    store: StateStore,
    ledger: Ledger,
    answers: BTreeMap<(AccountId, Nonce), AnswerRecord>,
    /// How many answers there are when old ones are looked for next.
    look_at: usize,
}

impl Actor for LedgerActor {
    type Msg = LedgerMsg;
    type State = Books;
    type Arguments = StateStore;

    async fn pre_start(
        &self,
        _: ActorRef<LedgerMsg>,
        store: StateStore,
    ) -> Result<Books, ActorProcessingErr> {
        // What an earlier self queued is part of the state.
        store.commit(Batch::new()).await?;
        Ok(Books::read(store)?)
    }

    async fn handle(
        &self,
        _: ActorRef<LedgerMsg>,
        message: LedgerMsg,
        books: &mut Books,
    ) -> Result<(), ActorProcessingErr> {
        // A caller that no longer waits is no concern of the ledger: hence the ignored sends.
        match message {
            LedgerMsg::Post(posting, reply) => drop(reply.send(books.post(*posting, clock::now()))),
            LedgerMsg::AnswerOf(stamp, reply) => drop(reply.send(books.answer_of(&stamp))),
            LedgerMsg::BalancesOf(account, reply) => drop(reply.send(books.balances_of(account))),
            LedgerMsg::TotalsOf(reply) => drop(reply.send(books.totals())),
        }
        Ok(())
    }
}

impl Books {
    fn read(store: StateStore) -> Result<Self, cryptomind_storage::StoreError> {
        let ledger = Ledger::rebuild(store.load::<Account>()?, store.load::<Hold>()?);
        let answers = store.load::<AnswerRecord>()?;
        let answers = answers
            .into_iter()
            .map(|a| ((a.account, a.id), a))
            .collect();
        Ok(Self {
            store,
            ledger,
            answers,
            look_at: MIN_ANSWERS,
        })
    }

    fn post(&mut self, posting: Posting, now: Timestamp) -> Result<Posted, Unposted> {
        if let Some((stamp, _)) = &posting.answers {
            let before = self.answer_of(stamp).map_err(Unposted::Refused)?;
            if let Some(outcome) = before {
                return Err(Unposted::Answered(outcome));
            }
        }
        let changes = self.ledger.apply_all(posting.ops, now);
        let changes = changes.map_err(|refusal| Unposted::Refused(refusal.into()))?;
        let mut batch = posting.batch;
        self.forget_old_answers(now, &mut batch);
        if let Some(then) = posting.then {
            then(&changes, &mut batch);
        }
        write(&changes, &mut batch);
        if let Some((stamp, outcome)) = posting.answers {
            let record = stamp.record(outcome);
            batch.put(&record);
            self.answers.insert((record.account, record.id), record);
        }
        Ok(Posted {
            changes,
            commit: self.store.commit(batch),
        })
    }

    fn answer_of(&self, stamp: &Stamp) -> Result<Option<Outcome>, ErrorBody> {
        match self.answers.get(&(stamp.account, stamp.id)) {
            None => Ok(None),
            Some(record) if record.payload == stamp.payload => Ok(Some(record.outcome.clone())),
            Some(_) => Err(ErrorBody::user(
                "transaction_conflict",
                "another transaction of this account has the same id",
            )
            .with_help("draw a fresh random id for each transaction")),
        }
    }

    /// An answer is kept while its transaction could come again. Looked at now and then.
    fn forget_old_answers(&mut self, now: Timestamp, batch: &mut Batch) {
        if self.answers.len() < self.look_at {
            return;
        }
        let old = self
            .answers
            .values()
            .filter(|answer| answer.valid_until < now);
        old.for_each(|answer| batch.delete::<AnswerRecord>(&answer.key()));
        self.answers.retain(|_, answer| answer.valid_until >= now);
        self.look_at = self.answers.len() * 2 + MIN_ANSWERS;
    }

    fn balances_of(&self, account: AccountId) -> Balances {
        let balance = self.ledger.balance(&account);
        Balances {
            available: balance.available,
            held: balance.held,
            earning: balance.earning,
        }
    }

    fn totals(&self) -> Totals {
        Totals {
            supply: self.ledger.supply(),
            held: self.ledger.held(),
        }
    }
}

fn write(changes: &Changes, batch: &mut Batch) {
    changes
        .accounts
        .iter()
        .for_each(|record: &Account| batch.put(record));
    changes
        .holds
        .iter()
        .for_each(|record: &Hold| batch.put(record));
    changes
        .transfers
        .iter()
        .for_each(|record: &Transfer| batch.put(record));
}

impl Stamp {
    fn record(self, outcome: Outcome) -> AnswerRecord {
        let Self {
            account,
            id,
            payload,
            valid_until,
        } = self;
        AnswerRecord {
            account,
            id,
            payload,
            outcome,
            valid_until,
        }
    }
}

impl LedgerRef {
    /// Posts, and tells refusals from answers given before.
    pub async fn post(&self, posting: Posting) -> Result<Posted, Unposted> {
        self.call(
            |reply| LedgerMsg::Post(Box::new(posting), reply),
            LEDGER_LIMIT,
        )
        .await
        .map_err(Unposted::Refused)?
    }
}
