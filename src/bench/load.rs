//! The clients that make the load: each with its own key and connection, one request in flight.
//!
//! Every transaction is signed in the loop that is measured, and counts when its answer has come, which is
//! when it is durable. A refusal or a lost answer ends the benchmark: its count is the ledger's.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cryptomind_protocol::task::TaskSpec;
use cryptomind_protocol::{Amount, ErrorBody, NodeAddress};
use cryptomind_sdk::{AccountId, Client, Limits};
use tokio::task::JoinSet;

use super::latency::{Latencies, micros};

/// What one payment moves.
const SENT: Amount = Amount::from_base_units(1_000);
/// How long clients wait for what: a coordinator that is gone ends the benchmark soon.
pub const LIMITS: Limits = Limits {
    connect: Duration::from_secs(10),
    request: Duration::from_secs(10),
    patience: Duration::from_secs(10),
};

/// Transactions that were acknowledged since the ledger began.
#[derive(Debug, Clone, Default)]
pub struct Acknowledged(Arc<AtomicU64>);

impl Acknowledged {
    /// One more.
    pub fn one(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// When the clients begin no more requests. What is in flight then is still waited for.
#[derive(Debug)]
pub enum Gate {
    /// From this moment on.
    At(Instant),
    /// After this many requests of all clients.
    After(AtomicU64),
}

impl Gate {
    /// Closes after so long.
    pub fn for_time(duration: Duration) -> Self {
        Self::At(Instant::now() + duration)
    }

    /// Closes after so many requests.
    pub const fn for_requests(count: u64) -> Self {
        Self::After(AtomicU64::new(count))
    }

    /// Whether one more request may begin.
    fn lets_in(&self) -> bool {
        match self {
            Self::At(end) => Instant::now() < *end,
            Self::After(left) => left
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                    left.checked_sub(1)
                })
                .is_ok(),
        }
    }
}

/// What a client does again and again.
#[derive(Debug, Clone)]
pub enum Work {
    /// A payment to another account.
    Send,
    /// A hold opened by posting this task, and settled by cancelling it.
    Escrow(Arc<TaskSpec>),
}

/// What a load came to.
#[derive(Debug)]
pub struct Done {
    /// How long each piece of work took, from before its signing until its answer was read.
    pub latencies: Latencies,
    /// Pieces of work a second, over all clients.
    pub per_s: f64,
}

/// One client and whom it pays.
#[derive(Clone)]
struct Member {
    client: Client,
    payee: AccountId,
    acknowledged: Acknowledged,
}

/// All clients.
pub struct Crew {
    members: Vec<Member>,
}

impl Crew {
    /// Connects this many clients, each under a fresh key, and has the faucet fund them.
    pub async fn hire(
        coordinator: &NodeAddress,
        clients: u32,
        acknowledged: &Acknowledged,
    ) -> Result<Self, ErrorBody> {
        let mut hiring = JoinSet::new();
        for _ in 0..clients {
            hiring.spawn(funded(coordinator.clone(), acknowledged.clone()));
        }
        let mut hired = Vec::new();
        while let Some(client) = hiring.join_next().await {
            hired.push(client.map_err(ErrorBody::internal)??);
        }
        // Each pays the next, and the last one somebody who only receives.
        let stranger = AccountId::of_key(&cryptomind_sdk::new_key()?.public());
        let payees: Vec<_> = hired.iter().map(Client::account_id).collect();
        let payees = payees.into_iter().skip(1).chain([stranger]);
        let member = |(client, payee)| Member {
            client,
            payee,
            acknowledged: acknowledged.clone(),
        };
        Ok(Self {
            members: hired.into_iter().zip(payees).map(member).collect(),
        })
    }

    /// Any of them, for questions.
    pub fn first(&self) -> Result<&Client, ErrorBody> {
        let first = self.members.first().map(|member| &member.client);
        first.ok_or_else(|| ErrorBody::user("no_clients", "a load needs one client or more"))
    }

    /// Has all of them work until the gate closes. The first error ends it.
    pub async fn work(&self, work: Work, gate: Gate) -> Result<Done, ErrorBody> {
        let (gate, started) = (Arc::new(gate), Instant::now());
        let mut working = JoinSet::new();
        for member in self.members.clone() {
            working.spawn(member.work(work.clone(), Arc::clone(&gate)));
        }
        let mut all = Vec::new();
        while let Some(micros) = working.join_next().await {
            all.extend(micros.map_err(ErrorBody::internal)??);
        }
        let per_s = all.len() as f64 / started.elapsed().as_secs_f64();
        Ok(Done {
            latencies: Latencies::new(all),
            per_s,
        })
    }

    /// Says goodbye.
    pub async fn close(self) {
        let closing = self.members.into_iter();
        let mut closing: JoinSet<()> = closing
            .map(|member| async move { member.client.close().await })
            .collect();
        while closing.join_next().await.is_some() {}
    }
}

async fn funded(coordinator: NodeAddress, acknowledged: Acknowledged) -> Result<Client, ErrorBody> {
    let client = Client::connect_within(coordinator, cryptomind_sdk::new_key()?, LIMITS).await?;
    client.faucet().await?;
    acknowledged.one();
    Ok(client)
}

impl Member {
    async fn work(self, work: Work, gate: Arc<Gate>) -> Result<Vec<u32>, ErrorBody> {
        let mut latencies = Vec::new();
        while gate.lets_in() {
            let started = Instant::now();
            match &work {
                Work::Send => self.send().await?,
                Work::Escrow(spec) => self.escrow(spec).await?,
            }
            latencies.push(micros(started.elapsed()));
        }
        Ok(latencies)
    }

    async fn send(&self) -> Result<(), ErrorBody> {
        self.client.send(self.payee, SENT).await?;
        self.acknowledged.one();
        Ok(())
    }

    async fn escrow(&self, spec: &TaskSpec) -> Result<(), ErrorBody> {
        let (task, _) = self.client.post(spec.clone()).await?;
        self.acknowledged.one();
        self.client.cancel(task).await?;
        self.acknowledged.one();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gate_lets_in_as_many_as_it_says() {
        let gate = Gate::for_requests(2);
        assert_eq!([(); 4].map(|()| gate.lets_in()), [true, true, false, false]);
        assert!(Gate::for_time(Duration::from_secs(3600)).lets_in());
        assert!(!Gate::for_time(Duration::ZERO).lets_in());
    }

    #[test]
    fn copies_of_a_count_are_one_count() {
        let count = Acknowledged::default();
        count.clone().one();
        count.one();
        assert_eq!(count.count(), 2);
    }
}
