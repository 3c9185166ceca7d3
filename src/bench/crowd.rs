//! The crowd: miners by the thousand, each with a key and a QUIC connection of its own, that compute nothing.
//!
//! Everything before the computing is real: owners let them work by transactions in the chain, each proves its key,
//! enrols, joins, and says every ten seconds, give or take two, that it is there. Asked for a task, one in
//! [`DECLINES`] declines and the others offer; whoever is matched reports that it is ready, and then waits for
//! the task's end, which its client brings about. A lost connection is made again after a pause, as a miner's is.
//!
//! Each miner is two tasks of the runtime at most times; all share a few sockets.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use cryptomind_actors::back_off::BackOff;
use cryptomind_actors::enrol::Applicant;
use cryptomind_core::dice::Dice;
use cryptomind_net::{Connection, Endpoint, Subscription};
use cryptomind_protocol::frame::ALPN_NODE;
use cryptomind_protocol::node::{Ack, Capacity, Command, Join, Report, Request};
use cryptomind_protocol::role::Role;
use cryptomind_protocol::task::Activity;
use cryptomind_protocol::{
    AccountId, Amount, ErrorBody, NodeAddress, NodeId, SecretKey, TaskId, Timestamp,
};
use cryptomind_sdk::Client;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, sleep_until, timeout};

use super::calls::{Call, Calls};
use super::latency::micros;
use super::load::{Acknowledged, LIMITS};
use super::shown;
use crate::local_network::DELEGATION_MS;

/// Miners of one owner: an account has a limit.
const OF_OWNER: usize = 1_000;
/// Sockets that all connections share.
const SOCKETS: usize = 8;
/// Miners that connect at a time.
const JOINING: usize = 64;
/// Delegations that an owner has in flight.
const DELEGATING: usize = 16;
/// For the word that a node has joined.
const JOIN_LIMIT: Duration = Duration::from_secs(10);
/// For an answer. It is long: what took so long shall be seen, not cut off.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);
/// From one heartbeat to the next, and how much it varies.
const HEARTBEAT: (Duration, f64) = (Duration::from_secs(10), 0.2);
/// One miner in so many declines what it is asked for.
const DECLINES: usize = 8;
/// The median of the miners' speeds, 10⁶ operations a second, and the spread of its logarithm.
const SPEED: (f64, f64) = (50_000.0, 0.5);

/// All miners. Dropped, they are gone.
pub struct Crowd {
    shared: Arc<Shared>,
    _miners: JoinSet<()>,
    joined: watch::Receiver<usize>,
    count: usize,
}

/// What all miners share.
struct Shared {
    coordinator: NodeAddress,
    calls: Calls,
    /// How many are joined now.
    joined: watch::Sender<usize>,
    joining: Semaphore,
    posted: Posted,
    lost: AtomicUsize,
}

/// When tasks were due to be posted, until a miner is matched to them.
#[derive(Debug, Clone, Default)]
pub struct Posted(Arc<Mutex<Starts>>);

#[derive(Debug, Default)]
struct Starts {
    due: HashMap<TaskId, Instant>,
    micros: Vec<u32>,
}

impl Posted {
    fn starts(&self) -> std::sync::MutexGuard<'_, Starts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A task is posted that was due then.
    pub fn note(&self, task: TaskId, due: Instant) {
        self.starts().due.insert(task, due);
    }

    /// A miner was told that it is matched to it.
    fn matched(&self, task: TaskId) {
        let mut starts = self.starts();
        if let Some(due) = starts.due.remove(&task) {
            starts.micros.push(micros(due.elapsed()));
        }
    }

    /// What was noted so far does not count.
    pub fn begin(&self) {
        self.starts().micros.clear();
    }

    /// From when each task was due until a miner had it, microseconds.
    pub fn micros(&self) -> Vec<u32> {
        self.starts().micros.clone()
    }
}

/// One of the crowd.
struct Miner {
    number: usize,
    key: SecretKey,
    owner: AccountId,
    endpoint: Endpoint,
    dice: Dice,
    shared: Arc<Shared>,
}

impl Crowd {
    /// Has owners let `count` miners work, and has these join; complete when all have.
    pub async fn gather(
        coordinator: &NodeAddress,
        count: usize,
        calls: &Calls,
        acknowledged: &Acknowledged,
    ) -> Result<Self, ErrorBody> {
        let (joined, seen) = watch::channel(0);
        let shared = Arc::new(Shared {
            coordinator: coordinator.clone(),
            calls: calls.clone(),
            joined,
            joining: Semaphore::new(JOINING),
            posted: Posted::default(),
            lost: AtomicUsize::new(0),
        });
        let sockets: Vec<Endpoint> = (0..SOCKETS.min(count))
            .map(|_| Endpoint::dialler())
            .collect::<Result<_, _>>()?;
        let mut miners = JoinSet::new();
        let delegated = delegated(coordinator, count, acknowledged).await?;
        for (number, (owner, key)) in delegated.into_iter().enumerate() {
            let miner = Miner {
                number,
                owner,
                endpoint: sockets[number % sockets.len()].clone(),
                dice: Dice::new(number as u64),
                key,
                shared: Arc::clone(&shared),
            };
            miners.spawn(miner.keep());
        }
        Ok(Self {
            shared,
            _miners: miners,
            joined: seen,
            count,
        })
    }

    /// Waits until all are joined, at most `limit`.
    pub async fn all_joined(&self, limit: Duration) -> Result<(), ErrorBody> {
        self.all_joined_after(0, limit).await
    }

    /// Waits until all are joined again, and so many connections were lost since the start.
    pub async fn all_joined_after(&self, lost: usize, limit: Duration) -> Result<(), ErrorBody> {
        let mut joined = self.joined.clone();
        let is_so = |joined: &usize| *joined == self.count && self.lost() >= lost;
        let all = timeout(limit, joined.wait_for(is_so)).await;
        if matches!(all, Ok(Ok(_))) {
            return Ok(());
        }
        let message = format!("{} of {} have joined", *self.joined.borrow(), self.count);
        Err(ErrorBody::internal(message).with_help("see the coordinator's log; ask for fewer"))
    }

    /// How many are joined now.
    pub fn joined(&self) -> watch::Receiver<usize> {
        self.joined.clone()
    }

    /// Where posts are noted.
    pub fn posted(&self) -> Posted {
        self.shared.posted.clone()
    }

    /// Connections that were lost since the start.
    pub fn lost(&self) -> usize {
        self.shared.lost.load(Ordering::SeqCst)
    }

    /// How many miners there are.
    pub const fn count(&self) -> usize {
        self.count
    }
}

/// Keys of miners, each with the owner that lets it work.
async fn delegated(
    coordinator: &NodeAddress,
    count: usize,
    acknowledged: &Acknowledged,
) -> Result<Vec<(AccountId, SecretKey)>, ErrorBody> {
    let mut owners = JoinSet::new();
    for first in (0..count).step_by(OF_OWNER) {
        let of_owner = OF_OWNER.min(count - first);
        owners.spawn(owner(coordinator.clone(), of_owner, acknowledged.clone()));
    }
    let mut all = Vec::with_capacity(count);
    while let Some(miners) = owners.join_next().await {
        all.extend(miners.map_err(ErrorBody::internal)??);
    }
    Ok(all)
}

async fn owner(
    coordinator: NodeAddress,
    count: usize,
    acknowledged: Acknowledged,
) -> Result<Vec<(AccountId, SecretKey)>, ErrorBody> {
    let client = Client::connect_within(coordinator, cryptomind_sdk::new_key()?, LIMITS).await?;
    // An account that never had a token has few miners.
    client.faucet().await?;
    acknowledged.one();
    let expires = client.now().plus_ms(DELEGATION_MS);
    let mut delegating = JoinSet::new();
    let mut miners = Vec::with_capacity(count);
    for _ in 0..count {
        if delegating.len() >= DELEGATING {
            miners.extend(one_of(&mut delegating).await?);
        }
        let (client, acknowledged) = (client.clone(), acknowledged.clone());
        delegating.spawn(async move { delegate(&client, expires, &acknowledged).await });
    }
    while !delegating.is_empty() {
        miners.extend(one_of(&mut delegating).await?);
    }
    let owner = client.account_id();
    client.close().await;
    Ok(miners.into_iter().map(|key| (owner, key)).collect())
}

async fn one_of(
    delegating: &mut JoinSet<Result<SecretKey, ErrorBody>>,
) -> Result<Option<SecretKey>, ErrorBody> {
    match delegating.join_next().await {
        Some(key) => key.map_err(ErrorBody::internal)?.map(Some),
        None => Ok(None),
    }
}

async fn delegate(
    client: &Client,
    expires: Timestamp,
    acknowledged: &Acknowledged,
) -> Result<SecretKey, ErrorBody> {
    let key = cryptomind_sdk::new_key()?;
    let node = NodeId::of_key(&key.public());
    client.delegate(node, Role::Miner, expires).await?;
    acknowledged.one();
    Ok(key)
}

impl Miner {
    /// Joined, and joined again whenever the connection is lost.
    async fn keep(mut self) {
        let mut back_off = BackOff::default();
        loop {
            let error = match self.join().await {
                Ok((connection, commands)) => {
                    back_off.succeeded();
                    self.shared.joined.send_modify(|joined| *joined += 1);
                    let error = self.live(&connection, commands).await;
                    self.shared.lost.fetch_add(1, Ordering::SeqCst);
                    self.shared.joined.send_modify(|joined| *joined -= 1);
                    error
                }
                Err(error) => error,
            };
            sleep(back_off.pause(&error)).await;
        }
    }

    async fn join(&mut self) -> Result<(Connection, Subscription), ErrorBody> {
        // This process has few cores: it is not to be what they wait for.
        let _turn = self.shared.joining.acquire().await;
        let coordinator = &self.shared.coordinator;
        let connection = self
            .endpoint
            .dial(coordinator, ALPN_NODE, &self.key)
            .await?;
        let name = format!("miner-{}", self.number);
        let applicant = Applicant {
            node: NodeId::of_key(&self.key.public()),
            role: Role::Miner,
            name: name.clone(),
            owner: self.owner,
        };
        applicant.enrol(&connection).await?;
        let mflops = (SPEED.0 * self.dice.factor(SPEED.1)) as u64;
        let shown = shown::selftest(&self.key, &connection.network(), mflops)?;
        let join = Join {
            owner: self.owner,
            name,
            listen: None,
            // Nobody measures its links.
            probe: None,
            capacity: Capacity {
                mflops,
                ..Capacity::default()
            },
            reserve: Amount::ZERO,
            activity: Activity::Idle,
            running: None,
            selftest: Some(shown),
        };
        let mut commands = connection.subscribe(&Request::Join(Box::new(join))).await?;
        match timeout(JOIN_LIMIT, commands.next::<Command>()).await {
            Ok(Some(Ok(Command::Joined { .. }))) => Ok((connection, commands)),
            Ok(Some(Err(refusal))) => Err(refusal),
            other => Err(ErrorBody::network("not_joined", format!("{other:?}"))),
        }
    }

    /// Until the connection is lost.
    async fn live(&mut self, connection: &Connection, mut commands: Subscription) -> ErrorBody {
        let mut beat = Instant::now() + HEARTBEAT.0.mul_f64(self.dice.unit());
        let mut task = None;
        loop {
            tokio::select! {
                command = commands.next::<Command>() => match command {
                    Some(Ok(command)) => self.obey(connection, command, &mut task),
                    Some(Err(error)) => return error,
                    None => return ErrorBody::network("connection_closed", "the stream has ended"),
                },
                () = sleep_until(beat.into()) => {
                    let (reports, echoes) = (Vec::new(), Vec::new());
                    self.say(connection, Call::Heartbeat, beat, Request::Links { reports, echoes });
                    let (pause, spread) = HEARTBEAT;
                    beat += pause.mul_f64(1.0 - spread + 2.0 * spread * self.dice.unit());
                }
            }
        }
    }

    fn obey(&mut self, connection: &Connection, command: Command, at: &mut Option<TaskId>) {
        let now = Instant::now();
        match command {
            Command::Announce { task, .. } => {
                let answer = if at.is_some() || self.dice.below(DECLINES as u64) == 0 {
                    let reason = "its owner uses it".to_owned();
                    Request::Decline { task, reason }
                } else {
                    // Nobody will dial it: the group has one member.
                    let ring_address = "127.0.0.1:9".to_owned();
                    Request::Offer { task, ring_address }
                };
                self.say(connection, Call::Offer, now, answer);
            }
            Command::Match(place) => {
                *at = Some(place.task);
                self.shared.posted.matched(place.task);
                let ready = Request::Report {
                    task: place.task,
                    attempt: place.attempt,
                    report: Report::Ready { fetched_bytes: 0 },
                };
                self.say(connection, Call::Ready, now, ready);
            }
            Command::Stop { task, .. } if *at == Some(task) => *at = None,
            _ => {}
        }
    }

    /// Says something that was due then, and waits for the answer elsewhere.
    fn say(&self, connection: &Connection, call: Call, due: Instant, request: Request) {
        let (connection, calls) = (connection.clone(), self.shared.calls.clone());
        tokio::spawn(async move {
            let answer = connection.request::<_, Ack>(&request, ANSWER_LIMIT).await;
            calls.note(call, due, &answer);
        });
    }
}
