//! Who lets which node work for it: asked for, given, ended, kept by the chain.

use std::time::Duration;

use cryptomind_net::Endpoint;
use cryptomind_protocol::frame::ALPN_NODE;
use cryptomind_protocol::node::{Ack, Request};
use cryptomind_protocol::role::Role;
use cryptomind_protocol::task::Activity;
use cryptomind_protocol::{AccountId, ErrorBody, NodeId, SecretKey};
use cryptomind_sdk::Client;

use crate::nodes::{Network, key, within};

/// For an answer.
const LIMIT: Duration = Duration::from_secs(10);

/// Waits until the coordinator counts so many miners: it tells no other way.
async fn until_miners(client: &Client, count: u32) {
    let counted = async {
        while client.status().await.unwrap().miners != count {
            tokio::task::yield_now().await;
        }
    };
    within(&format!("{count} miners are there"), counted).await;
}

/// Waits until the node asks its owner again.
async fn until_asked(owner: &Client, node: NodeId) {
    let asked = async {
        while !owner
            .enrolment_requests()
            .await
            .unwrap()
            .iter()
            .any(|request| request.node == node)
        {
            tokio::task::yield_now().await;
        }
    };
    within("the node asks its owner", asked).await;
}

/// What a node hears that says something without having joined.
async fn news_of(network: &Network, node: &SecretKey) -> ErrorBody {
    let address = network.coordinator.address();
    let dialler = Endpoint::dialler().unwrap();
    let connection = dialler.dial(&address, ALPN_NODE, node).await.unwrap();
    let news = Request::Activity {
        from: Activity::Idle,
        to: Activity::Training,
        task: None,
    };
    let answer = connection.request::<_, Ack>(&news, LIMIT).await;
    answer.unwrap_err()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_node_is_let_go_and_comes_back_by_its_owners_word_alone() {
    let network = Network::start(1).await;
    let (owner, stranger) = (network.client(50).await, network.client(60).await);
    let node = NodeId::of_key(&key(10).public());
    until_miners(&owner, 1).await;
    let known = owner.delegations().await.unwrap();
    assert_eq!(known.len(), 1);
    assert_eq!((known[0].node, known[0].role), (node, Role::Miner));
    assert_eq!(known[0].name.as_deref(), Some("m0"));

    // Nobody else ends it, nor gets the node by saying that it is theirs.
    let refused = stranger.revoke(node).await.unwrap_err();
    assert_eq!(refused.code, "not_delegated");
    let later = owner.now().plus_ms(3_600_000);
    stranger.delegate(node, Role::Miner, later).await.unwrap();
    let miners = owner.miners().await.unwrap();
    assert_eq!(miners[0].owner, AccountId::of_key(&key(50).public()));

    owner.revoke(node).await.unwrap();
    until_miners(&owner, 0).await;
    until_asked(&owner, node).await;
    assert_eq!(owner.delegations().await.unwrap(), []);
    assert_eq!(news_of(&network, &key(10)).await.code, "not_joined");
    // A stranger's word takes nobody's request away.
    stranger.delegate(node, Role::Storage, later).await.unwrap();
    until_asked(&owner, node).await;

    owner.delegate(node, Role::Miner, later).await.unwrap();
    until_miners(&owner, 1).await;
    assert_eq!(owner.enrolment_requests().await.unwrap(), []);

    // A word for a moment ends by itself: the node, which has not asked since, asks again.
    owner.revoke(node).await.unwrap();
    let soon = owner.now().plus_ms(1_500);
    owner.delegate(node, Role::Miner, soon).await.unwrap();
    until_asked(&owner, node).await;
    until_miners(&owner, 0).await;
    network.stop().await;
}
