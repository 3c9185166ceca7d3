//! Three local networks, far from each other: real processes, real QUIC, lines as in the scenario `three-lans`.
//!
//! Nobody tells the coordinator which miners are near each other. It has them measure their links, and a task whose
//! gradients are large gets a group of one local network.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use cryptomind_protocol::api::{Fate, LinkBasis, LinkView, MinerVerdict};
use cryptomind_protocol::model::Layer;
use cryptomind_protocol::role::Role;
use cryptomind_protocol::task::{Event, Optimizer, TaskSpec, TaskState, Work};
use cryptomind_protocol::{ItemId, NodeAddress, NodeId};
use cryptomind_sdk::Client;

use crate::nodes::{follow, key, publish_digits, training};
use crate::processes::{Join, Part, TURN, Where, start_coordinator};

pub mod namespaces;

use namespaces::{FAR_MBIT, FAR_RTT_MS, Host, Lans};

const LANS: u8 = 3;
/// Miners in each, and members of the task's group: by lot, one group of 28 is all in one network.
const MINERS: u8 = 3;
const HIDDEN: u32 = 1024;
/// The storage node's key.
const STORAGE: u8 = 100;
const BYTES_PER_MBIT: u64 = 125_000;
/// Eleven processes share what the machine has, and measuring takes its turns.
const LIMIT: Duration = Duration::from_secs(180);
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Miners by where they are.
struct Map(BTreeMap<NodeId, u8>);

impl Map {
    fn is_lan(&self, link: &LinkView) -> bool {
        self.0.get(&link.from) == self.0.get(&link.to)
    }

    /// Whether bytes were moved within each network and between them, over all pairs of at least one, and one pair proved that
    /// it is in a local network.
    fn is_known(&self, links: &[LinkView]) -> bool {
        let both = links.iter().filter(|l| l.known == LinkBasis::BothEnds);
        let (inside, between): (Vec<_>, Vec<_>) = both.partition(|link| self.is_lan(link));
        let mut networks: BTreeMap<u8, u8> = BTreeMap::new();
        for link in &inside {
            *networks.entry(self.0[&link.from]).or_default() += 1;
        }
        let all_pairs = MINERS * (MINERS - 1) / 2;
        inside.iter().any(|link| link.lan)
            && networks.values().any(|pairs| *pairs == all_pairs)
            && networks.len() == usize::from(LANS)
            && between.len() >= usize::from(LANS)
    }

    /// Links between miners alone.
    fn between_miners(&self, links: Vec<LinkView>) -> Vec<LinkView> {
        let known = |node: &NodeId| self.0.contains_key(node);
        let links = links.into_iter();
        links
            .filter(|link| known(&link.from) && known(&link.to))
            .collect()
    }
}

#[test]
fn a_task_with_large_gradients_gets_a_local_network() {
    let Some(lans) = Lans::new(LANS, MINERS) else {
        return;
    };
    lans.inside(Host::Hall, || three_lans(&lans));
}

async fn three_lans(lans: &Lans) {
    let _turn = TURN.lock().await;
    let dir = tempfile::tempdir().unwrap();
    let at = |host| Where {
        namespace: Some(lans.name(host)),
        address: host.address().into(),
    };
    let coordinator = start_coordinator(dir.path(), &at(Host::Hall)).await;
    let address: NodeAddress = coordinator.said.parse().unwrap();
    let join = |number, role, host| Join {
        dir: dir.path(),
        address: &address,
        number,
        role,
        at: at(host),
        env: vec![],
    };
    let _storage = join(STORAGE, Role::Storage, Host::Hall).start().await;
    let mut miners: Vec<Part> = Vec::new();
    let mut map = BTreeMap::new();
    for (number, host) in (110..).zip(lans.hosts()) {
        miners.push(join(number, Role::Miner, host).start().await);
        map.insert(NodeId::of_key(&key(number).public()), host.network());
    }
    let map = Map(map);
    let client = Client::connect(address.clone(), key(60)).await.unwrap();
    client.register("ada").await.unwrap();
    client.faucet().await.unwrap();
    let digits = publish_digits(&client, dir.path()).await;

    let links = measured(&client, &map).await;
    check_links(&map, &links);
    let (task, _) = client.post(large(digits)).await.unwrap();
    let start = Instant::now();
    let mut members = Vec::new();
    follow(&client, task, |event| {
        if let Event::Matched { members: group, .. } = event {
            members = group.iter().map(|member| member.node).collect();
        }
    })
    .await;
    let took = start.elapsed();
    let view = client.task(task).await.unwrap();
    assert_eq!(view.state, TaskState::Finished, "{}", view.reason);
    let networks: BTreeSet<_> = members.iter().map(|member| map.0[member]).collect();
    assert_eq!(members.len(), usize::from(MINERS));
    assert_eq!(networks.len(), 1, "all in one: {members:?}");
    let explained = client.explain(task).await.unwrap();
    check_verdicts(&explained.verdicts);
    check_ring(took, &view.spec);
    let store = NodeId::of_key(&key(STORAGE).public());
    let way = stored(&client, store, members[0]).await;
    assert!(way.rtt_us.unwrap() >= FAR_RTT_MS * 1000, "{way:?}");
}

/// Looks until both ends of the first rank's uploads have told of them.
async fn stored(client: &Client, store: NodeId, first: NodeId) -> LinkView {
    let start = Instant::now();
    loop {
        let links = client.links(Some(store)).await.unwrap();
        let both = links.iter().filter(|l| l.known == LinkBasis::BothEnds);
        let found = both.into_iter().find(|l| [l.from, l.to].contains(&first));
        if let Some(way) = found {
            return way.clone();
        }
        assert!(start.elapsed() < LIMIT, "within {LIMIT:?}: {links:#?}");
        // Between two looks, not for anything to happen.
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// The digits, and a model whose gradients take long over a slow line and no time within a network.
fn large(digits: ItemId) -> TaskSpec {
    let mut spec = training(digits, MINERS.into(), 1);
    let Work::Train { model, train, .. } = &mut spec.work else {
        unreachable!()
    };
    let hidden = [
        Layer::linear(HIDDEN),
        Layer::Relu {},
        Layer::linear(HIDDEN),
        Layer::Relu {},
        Layer::linear(10),
    ];
    model.layers = hidden.into();
    train.optimizer = Optimizer::sgd(0.05, 0.0);
    spec
}

/// Looks until the links are known: the coordinator tells no other way.
async fn measured(client: &Client, map: &Map) -> Vec<LinkView> {
    let start = Instant::now();
    loop {
        let links = map.between_miners(client.links(None).await.unwrap());
        if map.is_known(&links) {
            return links;
        }
        assert!(start.elapsed() < LIMIT, "within {LIMIT:?}: {links:#?}");
        // Between two looks, not for anything to happen.
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

fn check_links(map: &Map, links: &[LinkView]) {
    for link in links.iter().filter(|l| l.known == LinkBasis::BothEnds) {
        let (rtt_us, bytes_per_s) = (link.rtt_us.unwrap(), link.bytes_per_s.unwrap());
        assert!(!link.lan || map.is_lan(link), "{link:?}");
        if map.is_lan(link) {
            assert!(rtt_us < FAR_RTT_MS * 1000, "{link:?}");
            assert!(bytes_per_s > 3 * FAR_MBIT * BYTES_PER_MBIT, "{link:?}");
        } else {
            assert!(rtt_us >= FAR_RTT_MS * 1000, "{link:?}");
            // Bytes behind a lost packet come all at once: half of a mebibyte can seem faster than the line.
            assert!(bytes_per_s < 2 * FAR_MBIT * BYTES_PER_MBIT, "{link:?}");
        }
    }
}

/// Whoever is elsewhere is passed over for what the exchange would take with it.
fn check_verdicts(verdicts: &[MinerVerdict]) {
    let exchanges = |fate| {
        let of = verdicts.iter().filter(move |v| v.fate == fate);
        of.map(|verdict| exchange_s(&verdict.reason))
            .collect::<Vec<_>>()
    };
    let (chosen, passed) = (exchanges(Fate::Chosen), exchanges(Fate::PassedOver));
    assert_eq!(chosen.len(), usize::from(MINERS));
    assert_eq!(passed.len(), usize::from(MINERS * (LANS - 1)));
    let longest = chosen.into_iter().fold(0.0, f64::max);
    for passed in passed {
        assert!(passed > 3.0 * longest, "{passed} s, {longest} s");
    }
}

/// The exchange's part in a reason.
fn exchange_s(reason: &str) -> f64 {
    let (before, _) = reason.split_once(" s exchange").unwrap();
    before.rsplit(' ').next().unwrap().parse().unwrap()
}

/// Over a line between networks, the gradients alone would have taken longer than all of it.
fn check_ring(took: Duration, spec: &TaskSpec) {
    let Work::Train { model, train, .. } = &spec.work else {
        unreachable!()
    };
    let hops = f64::from(2 * u32::from(MINERS - 1)) / f64::from(MINERS);
    let bytes = model.parameter_count() as f64 * 4.0 * hops;
    let steps = f64::from(1437u32.div_ceil(train.global_batch));
    let between_s = steps * bytes / (FAR_MBIT * BYTES_PER_MBIT) as f64;
    assert!(took.as_secs_f64() < between_s, "{took:?}, {between_s} s");
}
