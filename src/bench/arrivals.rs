//! Arrivals: clients that post tasks by the clock, however slowly they are answered.
//!
//! The life of a post: the client signs and posts a task for one miner, which opens a hold; the coordinator asks miners, and
//! matches one; the client looks at the task [`LOOK`] after the post was due, and cancels it [`END`] after, which settles
//! the hold. A step is never made before the one that it needs is answered; where that is late, it is due at once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cryptomind_protocol::task::{TaskSpec, TaskState};
use cryptomind_protocol::transaction::{Action, Outcome};
use cryptomind_protocol::{ErrorBody, NodeAddress, TaskId};
use cryptomind_sdk::Client;
use tokio::task::JoinSet;
use tokio::time::sleep_until;

use super::calls::{Call, Calls};
use super::crowd::Posted;
use super::load::{Acknowledged, LIMITS};

/// When a client looks at its task.
const LOOK: Duration = Duration::from_millis(250);
/// When it cancels it.
const END: Duration = Duration::from_millis(500);

/// Clients with money, each with a key and a connection of its own.
pub struct Clients {
    clients: Vec<Client>,
    spec: Arc<TaskSpec>,
    calls: Calls,
    acknowledged: Acknowledged,
    posted: Posted,
}

/// What posting came to.
#[derive(Debug, Clone, Copy, Default)]
pub struct Arrived {
    /// Tasks that were posted.
    pub posts: u64,
    /// Of these, those that a miner worked on when their client looked.
    pub taken: u64,
    /// From the first post until the last task had ended.
    pub took: Duration,
}

/// What became of one task.
struct Life {
    is_taken: bool,
}

impl Clients {
    /// Connects this many and has the faucet fund them.
    pub async fn hire(
        coordinator: &NodeAddress,
        count: usize,
        spec: Arc<TaskSpec>,
        calls: &Calls,
        acknowledged: &Acknowledged,
    ) -> Result<Self, ErrorBody> {
        let mut clients = Vec::with_capacity(count);
        for _ in 0..count {
            let key = cryptomind_sdk::new_key()?;
            let client = Client::connect_within(coordinator.clone(), key, LIMITS).await?;
            client.faucet().await?;
            acknowledged.one();
            clients.push(client);
        }
        Ok(Self {
            clients,
            spec,
            calls: calls.clone(),
            acknowledged: acknowledged.clone(),
            posted: Posted::default(),
        })
    }

    /// Has what is posted noted there.
    pub fn noting(mut self, posted: Posted) -> Self {
        self.posted = posted;
        self
    }

    /// Posts so many tasks a second for so long. Complete when all of them have ended.
    pub async fn post(&self, per_s: u32, duration: Duration) -> Result<Arrived, ErrorBody> {
        let (start, pause) = (Instant::now(), Duration::from_secs(1) / per_s.max(1));
        let count = (duration.as_secs_f64() * f64::from(per_s)) as u32;
        let mut lives = JoinSet::new();
        for (number, client) in (0..count).zip(self.clients.iter().cycle()) {
            let due = start + pause * number;
            sleep_until(due.into()).await;
            lives.spawn(self.visit(client).live(due));
        }
        let mut arrived = Arrived::default();
        while let Some(life) = lives.join_next().await {
            // A call that failed is counted among the calls; the others go on.
            if let Ok(life) = life.map_err(ErrorBody::internal)? {
                arrived.posts += 1;
                arrived.taken += u64::from(life.is_taken);
            }
        }
        arrived.took = start.elapsed();
        Ok(arrived)
    }

    fn visit(&self, client: &Client) -> Visit {
        Visit {
            client: client.clone(),
            spec: Arc::clone(&self.spec),
            calls: self.calls.clone(),
            acknowledged: self.acknowledged.clone(),
            posted: self.posted.clone(),
        }
    }

    /// Says goodbye.
    pub async fn close(self) {
        for client in self.clients {
            client.close().await;
        }
    }
}

/// One post, from its due time on.
struct Visit {
    client: Client,
    spec: Arc<TaskSpec>,
    calls: Calls,
    acknowledged: Acknowledged,
    posted: Posted,
}

impl Visit {
    async fn live(self, due: Instant) -> Result<Life, ErrorBody> {
        let posted = self.post(due).await;
        self.calls.note(Call::Post, due, &posted);
        let task = posted?;
        self.acknowledged.one();

        let look = at_last(due + LOOK).await;
        let seen = self.client.task(task).await;
        self.calls.note(Call::Get, look, &seen);
        let is_taken = matches!(seen?.state, TaskState::Matched | TaskState::Running);

        let end = at_last(due + END).await;
        let cancelled = self.client.cancel(task).await;
        self.calls.note(Call::Cancel, end, &cancelled);
        cancelled?;
        self.acknowledged.one();
        Ok(Life { is_taken })
    }

    async fn post(&self, due: Instant) -> Result<TaskId, ErrorBody> {
        let spec = self.spec.as_ref().clone();
        let transaction = self.client.transaction(Action::Post { spec })?;
        let task = TaskId::of_transaction(&transaction.account, transaction.id.as_bytes());
        // A miner may hear of it before its client does.
        self.posted.note(task, due);
        let signed = self.client.sign(&transaction);
        let accepted = self.client.submit_signed(signed).await?;
        match accepted.outcome {
            Outcome::Posted { task, .. } => Ok(task),
            other => Err(ErrorBody::internal(format!("a post became {other:?}"))),
        }
    }
}

/// Waits for `due`, or not at all where that is past; gives when what follows is due.
async fn at_last(due: Instant) -> Instant {
    let due = due.max(Instant::now());
    sleep_until(due.into()).await;
    due
}
