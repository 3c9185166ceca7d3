//! A coordinator dies and comes back: so do its miners, all of them, soon.
//!
//! Each is a light node: a key, a delegation in the chain and a QUIC connection of its own, speaking the real protocol and
//! waiting as real nodes do; it computes nothing.

use std::ops::ControlFlow;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use cryptomind_actors::back_off::BackOff;
use cryptomind_actors::enrol::Applicant;
use cryptomind_actors::miner::selftest::{machine, report};
use cryptomind_gpu::selftest::{self, Extent};
use cryptomind_net::{Connection, Endpoint, Subscription};
use cryptomind_protocol::frame::ALPN_NODE;
use cryptomind_protocol::node::{Capacity, Command, Join, Request};
use cryptomind_protocol::role::Role;
use cryptomind_protocol::selftest::Work;
use cryptomind_protocol::task::Activity;
use cryptomind_protocol::{AccountId, Amount, ErrorBody, NodeAddress, NodeId, SecretKey, Signed};
use cryptomind_sdk::Client;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::nodes::{key, within};
use crate::processes::{TURN, Where, start_coordinator};

const MINERS: usize = 500;
/// Sockets that they share.
const SOCKETS: usize = 4;
/// All must be back within this.
const BACK: Duration = Duration::from_secs(30);

/// How many are joined now, and how often one lost its connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Crowd {
    joined: usize,
    lost: usize,
}

struct Light {
    endpoint: Endpoint,
    coordinator: NodeAddress,
    owner: AccountId,
    key: SecretKey,
    crowd: watch::Sender<Crowd>,
}

impl Light {
    async fn keep(self) {
        let mut back_off = BackOff::default();
        loop {
            let error = match self.join().await {
                Ok((_connection, mut commands)) => {
                    back_off.succeeded();
                    self.crowd.send_modify(|crowd| crowd.joined += 1);
                    let error = lost(&mut commands).await;
                    self.crowd.send_modify(|crowd| {
                        crowd.joined -= 1;
                        crowd.lost += 1;
                    });
                    error
                }
                Err(error) => error,
            };
            tokio::time::sleep(back_off.pause(&error)).await;
        }
    }

    /// Taken once for all of them, shown by each as its own.
    fn selftest(&self, connection: &Connection) -> Signed {
        static WORK: OnceLock<Work> = OnceLock::new();
        let extent = Extent {
            endure: Duration::ZERO,
            threads: 1,
            memory: 64 << 20,
        };
        let work = WORK.get_or_init(|| {
            let mut on = |_: &'static str, _: f32| ControlFlow::Continue(());
            selftest::run(1, extent, &mut on).unwrap()
        });
        let node = NodeId::of_key(&self.key.public());
        let report = report(node, machine(1), work.clone());
        Signed::sign(&report, &connection.network(), &self.key)
    }

    async fn join(&self) -> Result<(Connection, Subscription), ErrorBody> {
        let to = &self.coordinator;
        let connection = self.endpoint.dial(to, ALPN_NODE, &self.key).await?;
        let applicant = Applicant {
            node: NodeId::of_key(&self.key.public()),
            role: Role::Miner,
            name: "light".to_owned(),
            owner: self.owner,
        };
        applicant.enrol(&connection).await?;
        let join = Join {
            owner: self.owner,
            name: "light".to_owned(),
            listen: None,
            probe: None,
            capacity: Capacity::default(),
            reserve: Amount::ZERO,
            activity: Activity::Idle,
            running: None,
            selftest: Some(self.selftest(&connection)),
        };
        let mut commands = connection.subscribe(&Request::Join(Box::new(join))).await?;
        match commands.next::<Command>().await {
            Some(Ok(Command::Joined { .. })) => Ok((connection, commands)),
            Some(Err(error)) => Err(error),
            other => Err(ErrorBody::network("not_joined", format!("{other:?}"))),
        }
    }
}

/// Why a connection ended.
async fn lost(commands: &mut Subscription) -> ErrorBody {
    loop {
        match commands.next::<Command>().await {
            Some(Ok(_)) => {}
            Some(Err(error)) => return error,
            None => return ErrorBody::network("connection_closed", "the stream has ended"),
        }
    }
}

/// Keys of nodes that work for `owner`, by the chain.
async fn delegated(owner: &Client, count: usize) -> Vec<SecretKey> {
    owner.faucet().await.unwrap();
    let expires = owner.now().plus_ms(3_600_000);
    let keys: Vec<_> = (0..count)
        .map(|_| cryptomind_sdk::new_key().unwrap())
        .collect();
    for some in keys.chunks(32) {
        let delegate = |key: &SecretKey| {
            let (owner, node) = (owner.clone(), NodeId::of_key(&key.public()));
            async move { owner.delegate(node, Role::Miner, expires).await.unwrap() }
        };
        let delegating: JoinSet<_> = some.iter().map(delegate).collect();
        within("delegations", delegating.join_all()).await;
    }
    keys
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn miners_are_back_soon_after_their_coordinator() {
    let _turn = TURN.lock().await;
    let dir = tempfile::tempdir().unwrap();
    let mut coordinator = start_coordinator(dir.path(), &Where::here()).await;
    let address: NodeAddress = coordinator.said.parse().unwrap();
    let owner = Client::connect(address.clone(), key(60)).await.unwrap();
    let keys = delegated(&owner, MINERS).await;

    let sockets: Vec<_> = (0..SOCKETS).map(|_| Endpoint::dialler().unwrap()).collect();
    let (crowd, mut seen) = watch::channel(Crowd::default());
    let light = |(number, key): (usize, SecretKey)| Light {
        endpoint: sockets[number % SOCKETS].clone(),
        coordinator: address.clone(),
        owner: owner.account_id(),
        key,
        crowd: crowd.clone(),
    };
    let keys = keys.into_iter().enumerate();
    let _miners: JoinSet<()> = keys.map(|at| light(at).keep()).collect();
    let all = |crowd: &Crowd| crowd.joined == MINERS;
    within("all join", seen.wait_for(all)).await.unwrap();
    assert_eq!(seen.borrow().lost, 0);

    let killed = Instant::now();
    coordinator.kill().await;
    coordinator.start_again().await;
    let all = |crowd: &Crowd| crowd.joined == MINERS && crowd.lost >= MINERS;
    within("all join again", seen.wait_for(all)).await.unwrap();
    let took = killed.elapsed();
    assert!(took < BACK, "{took:?}");
    let status = owner.status().await.unwrap();
    assert_eq!(status.miners as usize, MINERS, "after {took:?}");
}
