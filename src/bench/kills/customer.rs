//! A client under load: an account with a connection of its own and one transaction in flight.
//!
//! It records each transaction, signed, before it sends it, as a wallet that expects to crash would. Where no answer
//! came it sends the same bytes again until one does. What was acknowledged it writes down as [`Effect`]s; what was
//! refused must have none. A few transactions in a hundred must be refused: more than anybody has, or other bytes
//! under an id that was used.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use cryptomind_core::dice::Dice;
use cryptomind_protocol::api::{AccountView, MAX_ROWS, TransferView};
use cryptomind_protocol::key::Nonce;
use cryptomind_protocol::money::SUPPLY;
use cryptomind_protocol::task::{Reason, TaskSpec};
use cryptomind_protocol::transaction::{Action, Outcome, Transaction};
use cryptomind_protocol::{
    AccountId, Amount, ErrorBody, ErrorClass, NodeAddress, SecretKey, Signed, TaskId,
};
use cryptomind_sdk::{Client, DEFAULT_VALIDITY_MS};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::books::Effect;

/// For one answer, over a kill and a recovery.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);
/// Before the same bytes are sent again.
const AGAIN: Duration = Duration::from_millis(5);
/// With what the others send it, an account has fewer movements a round than a history shows at once.
const MOST_A_ROUND: u32 = MAX_ROWS * 2 / 5;
/// Tasks that an account leaves open.
const MOST_TASKS: usize = 3;
/// The least amount that is sent, base units; what is added to it makes each amount of a payer different.
const LEAST: u64 = 1_000_000;
const SPREAD: u64 = 1_000;
/// The system account that pays test money.
const BOUNTY: &str = "bounty";

/// What the clients shall do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Send one transaction after the other.
    Load,
    /// Wait for the answer that is due, over whatever connections it takes, and send nothing more.
    Finish,
    /// Give up at once what is in flight: the coordinator is dead.
    Drop,
}

/// What a transaction is for.
#[derive(Debug, Clone, Copy)]
enum Intent {
    Faucet,
    Send {
        to: AccountId,
        amount: Amount,
    },
    /// Must be refused as `code`.
    Refused {
        code: &'static str,
    },
    Post {
        amount: Amount,
    },
    Cancel {
        task: TaskId,
        held: Amount,
    },
}

/// A transaction, recorded before it is sent.
#[derive(Debug, Clone)]
struct Recorded {
    intent: Intent,
    id: Nonce,
    signed: Signed,
}

/// How many transactions there were.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Made.
    pub transactions: u64,
    /// Of these, acknowledged.
    pub acknowledged: u64,
    /// Of these, refused, as they had to be.
    pub refused: u64,
    /// Sent again, as the same bytes.
    pub resent: u64,
    /// Holds that were opened.
    pub holds: u64,
}

/// A client with its records.
pub struct Customer {
    client: Client,
    key: SecretKey,
    dice: Dice,
    /// Whom it may pay: all clients of the run.
    all: Arc<[AccountId]>,
    task: Arc<TaskSpec>,
    /// At least this much is free: what it had at the last look and got from the faucet since, less what it spent.
    spendable: Amount,
    serial: u64,
    tasks: VecDeque<(TaskId, Amount)>,
    unanswered: Option<Recorded>,
    last: Option<(Recorded, Outcome)>,
    effects: Vec<Effect>,
    /// How many transactions there were.
    pub counts: Counts,
}

impl Customer {
    /// Connects client `number` of a run.
    pub async fn connect(
        address: &NodeAddress,
        key: SecretKey,
        dice: Dice,
        all: Arc<[AccountId]>,
        task: Arc<TaskSpec>,
    ) -> Result<Self, ErrorBody> {
        Ok(Self {
            client: Client::connect(address.clone(), key.clone()).await?,
            key,
            dice,
            all,
            task,
            spendable: Amount::ZERO,
            serial: 0,
            tasks: VecDeque::new(),
            unanswered: None,
            last: None,
            effects: Vec::new(),
            counts: Counts::default(),
        })
    }

    /// Its account.
    pub fn account(&self) -> AccountId {
        self.client.account_id()
    }

    /// Sends transactions until `phase` says otherwise; every answer counts one up in `answers`.
    pub async fn work(
        &mut self,
        mut phase: watch::Receiver<Phase>,
        answers: &watch::Sender<u64>,
    ) -> Result<(), ErrorBody> {
        for _ in 0..MOST_A_ROUND {
            if *phase.borrow() != Phase::Load {
                break;
            }
            self.record();
            let given_up = async { drop(phase.wait_for(|p| *p == Phase::Drop).await) };
            tokio::select! {
                answered = self.deliver() => answered?,
                () = given_up => break,
            }
            answers.send_modify(|n| *n += 1);
        }
        Ok(())
    }

    /// After a kill: connects anew where the old connection was given up, has its last acknowledged transaction
    /// answered again, and what was in flight answered at last.
    pub async fn recover(&mut self, anew: bool) -> Result<(), ErrorBody> {
        if anew {
            let address = self.client.coordinator().clone();
            self.client = Client::connect(address, self.key.clone()).await?;
        }
        self.repeat_last().await?;
        if self.unanswered.is_some() {
            self.counts.resent += 1;
            self.deliver().await?;
        }
        Ok(())
    }

    async fn repeat_last(&mut self) -> Result<(), ErrorBody> {
        let Some((recorded, first)) = &self.last else {
            return Ok(());
        };
        self.counts.resent += 1;
        let again = self.client.submit_signed(recorded.signed.clone()).await;
        if again.as_ref().map(|accepted| &accepted.outcome) == Ok(first) {
            return Ok(());
        }
        let intent = recorded.intent;
        let message = format!("{intent:?} was answered {first:?}; sent again, {again:?}");
        Err(ErrorBody::internal(message))
    }

    /// What was acknowledged since the last time.
    pub fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    /// The account as the coordinator has it: balances and the newest rows of the history.
    pub async fn look(&self) -> Result<(AccountView, Vec<TransferView>), ErrorBody> {
        let account = self.client.my_account().await?;
        Ok((account, self.client.history(None, MAX_ROWS).await?))
    }

    /// Tells it what it has.
    pub fn set_spendable(&mut self, amount: Amount) {
        self.spendable = amount;
    }

    /// Says goodbye.
    pub async fn close(&self) {
        self.client.close().await;
    }
}

/// Making transactions.
impl Customer {
    /// Draws a transaction and records it.
    fn record(&mut self) {
        let id = Nonce::new(self.dice.bytes());
        let roll = self.dice.below(100);
        let (intent, id, action) = match (roll, self.tasks.front(), &self.last) {
            (0, ..) => (Intent::Faucet, id, Action::Faucet {}),
            (1..=3, ..) => self.overspend(id),
            (4..=6, _, Some((before, _))) => self.conflict(before.id),
            (7..=10, ..) if self.tasks.len() < MOST_TASKS => self.post(id),
            (7..=14, Some((task, held)), _) => {
                let (task, held) = (*task, *held);
                let intent = Intent::Cancel { task, held };
                (intent, id, Action::Cancel { task })
            }
            _ => self.send(id),
        };
        let transaction = Transaction {
            version: 1,
            id,
            account: self.account(),
            valid_until: self.client.now().plus_ms(DEFAULT_VALIDITY_MS),
            max_fee: self.client.fee(&action),
            action,
        };
        let signed = self.client.sign(&transaction);
        self.counts.transactions += 1;
        self.unanswered = Some(Recorded { intent, id, signed });
    }

    fn send(&mut self, id: Nonce) -> (Intent, Nonce, Action) {
        let (to, amount) = (self.another(), self.fresh_amount());
        if !self.spend(amount) {
            return (Intent::Faucet, id, Action::Faucet {});
        }
        let intent = Intent::Send { to, amount };
        (intent, id, Action::Send { to, amount })
    }

    fn post(&mut self, id: Nonce) -> (Intent, Nonce, Action) {
        let mut spec = TaskSpec::clone(&self.task);
        let amount = spec.max_cost.checked_add(self.fresh_amount());
        let Some(amount) = amount.filter(|amount| self.spend(*amount)) else {
            return (Intent::Faucet, id, Action::Faucet {});
        };
        spec.max_cost = amount;
        (Intent::Post { amount }, id, Action::Post { spec })
    }

    fn overspend(&mut self, id: Nonce) -> (Intent, Nonce, Action) {
        let (to, amount) = (self.another(), SUPPLY);
        let code = "insufficient_funds";
        (Intent::Refused { code }, id, Action::Send { to, amount })
    }

    /// Other bytes under the id of an acknowledged transaction.
    fn conflict(&mut self, used: Nonce) -> (Intent, Nonce, Action) {
        let (to, amount) = (self.another(), self.fresh_amount());
        let code = "transaction_conflict";
        (Intent::Refused { code }, used, Action::Send { to, amount })
    }

    /// Any client but this one.
    fn another(&mut self) -> AccountId {
        let me = self.account();
        let others = self.all.len() as u64 - 1;
        let nth = self.dice.below(others) as usize;
        let mut others = self.all.iter().filter(|account| **account != me);
        *others.nth(nth).expect("a run has two clients or more")
    }

    /// An amount that this account never sent before.
    fn fresh_amount(&mut self) -> Amount {
        self.serial += 1;
        let units = LEAST + self.serial * SPREAD + self.dice.below(SPREAD);
        Amount::from_base_units(units)
    }

    fn earn(&mut self, amount: Amount) {
        let sum = self.spendable.checked_add(amount);
        self.spendable = sum.unwrap_or(self.spendable);
    }

    /// Takes `amount` out of what is surely free, where it is.
    fn spend(&mut self, amount: Amount) -> bool {
        let left = self.spendable.checked_sub(amount);
        self.spendable = left.unwrap_or(self.spendable);
        left.is_some()
    }
}

/// Sending transactions.
impl Customer {
    /// Sends what is recorded until it is answered, and writes the answer down.
    async fn deliver(&mut self) -> Result<(), ErrorBody> {
        let Some(recorded) = self.unanswered.clone() else {
            return Ok(());
        };
        let answer = timeout(ANSWER_LIMIT, self.ask(&recorded.signed)).await;
        let answer = answer.map_err(|_| {
            let limit = ANSWER_LIMIT.as_secs();
            ErrorBody::internal(format!("{:?}: no answer within {limit} s", recorded.intent))
        })?;
        self.unanswered = None;
        match (answer, recorded.intent) {
            (Ok(outcome), _) => self.acknowledged(recorded, outcome),
            (Err(error), Intent::Refused { code }) if error.code == code => {
                self.counts.refused += 1;
                Ok(())
            }
            (Err(error), intent) => {
                let message = format!("{intent:?} was refused: {} [{}]", error.message, error.code);
                Err(ErrorBody::internal(message))
            }
        }
    }

    /// Until there is an answer: what the coordinator did, or its refusal.
    async fn ask(&mut self, signed: &Signed) -> Result<Outcome, ErrorBody> {
        loop {
            match self.client.submit_signed(signed.clone()).await {
                Err(error) if may_pass(&error) => sleep(AGAIN).await,
                answer => return answer.map(|accepted| accepted.outcome),
            }
            self.counts.resent += 1;
        }
    }

    fn acknowledged(&mut self, recorded: Recorded, outcome: Outcome) -> Result<(), ErrorBody> {
        let account = self.account();
        let moved = |from, to, amount, reason| Effect::Moved {
            from,
            to,
            amount,
            reason,
        };
        let effect = match (recorded.intent, &outcome) {
            (Intent::Faucet, Outcome::Moved { amount }) => {
                let bounty = AccountId::of_system(BOUNTY);
                self.earn(*amount);
                moved(bounty, account, *amount, Reason::Faucet)
            }
            (Intent::Send { to, amount }, Outcome::Moved { amount: said }) if *said == amount => {
                moved(account, to, amount, Reason::Send)
            }
            (Intent::Post { amount }, Outcome::Posted { task, held }) if *held == amount => {
                self.tasks.push_back((*task, amount));
                self.counts.holds += 1;
                Effect::Held { account, amount }
            }
            (Intent::Cancel { task, held }, Outcome::Cancelling { task: said })
                if *said == task =>
            {
                self.tasks.retain(|(open, _)| *open != task);
                self.earn(held);
                Effect::Returned {
                    account,
                    task,
                    amount: held,
                }
            }
            (intent, outcome) => {
                let message = format!("{intent:?} was answered {outcome:?}");
                return Err(ErrorBody::internal(message));
            }
        };
        self.counts.acknowledged += 1;
        self.effects.push(effect);
        self.last = Some((recorded, outcome));
        Ok(())
    }
}

/// No answer yet: nobody there, or no room now.
fn may_pass(error: &ErrorBody) -> bool {
    matches!(error.class, ErrorClass::Network | ErrorClass::Capacity)
}
