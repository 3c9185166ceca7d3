//! Each actor is killed in the middle of a task; the task still ends, paid or refunded, and the supply stays.

use cryptomind_protocol::money::SUPPLY;
use cryptomind_protocol::task::{Event, Reason, TaskState};

use crate::nodes::{Network, follow, inference, sums, training, within};

/// All goes well: three miners train by ring, the model classifies, everybody is paid.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_network_trains_and_infers() {
    let network = Network::start(3).await;
    let (ada, digits) = network.client_with_digits(60, "ada").await;
    let bob = network.client(61).await;
    bob.register("bob").await.unwrap();
    bob.faucet().await.unwrap();
    let (task, held) = bob.post(training(digits, 3, 30)).await.unwrap();
    let events = follow(&bob, task, |_| {}).await;
    let view = bob.task(task).await.unwrap();
    assert_eq!(view.state, TaskState::Finished, "{}", view.reason);
    let metrics = view.metrics.unwrap();
    assert!(metrics.test_accuracy.unwrap() >= 0.97, "{metrics:?}");
    assert_eq!(sums(&events).values().sum::<u64>(), held.base_units());
    assert_eq!(sums(&events)[&Reason::ItemFee], 2_000_000);
    let (inferring, _) = bob
        .post(inference(view.item.unwrap(), digits))
        .await
        .unwrap();
    follow(&bob, inferring, |_| {}).await;
    let view = bob.task(inferring).await.unwrap();
    assert_eq!(view.state, TaskState::Finished, "{}", view.reason);
    assert!(view.metrics.unwrap().test_accuracy.unwrap() >= 0.97);
    bob.rate(task, 5).await.unwrap();
    assert!(
        bob.miners()
            .await
            .unwrap()
            .iter()
            .all(|m| m.rating.votes == 1 && m.rating.done >= 1)
    );
    let status = ada.status().await.unwrap();
    assert_eq!((status.supply, status.held.base_units()), (SUPPLY, 0));
    within("all miners are idle again", network.all_idle(&ada)).await;
    network.stop().await;
}

#[derive(Clone, Copy, Debug)]
enum Victim {
    Ledger,
    Rating,
    Catalog,
    Matchmaker,
    Worker,
}

/// Trains, kills the victim when the first checkpoint is verified, and sees the task end.
async fn kill_in_the_middle(victim: Victim) {
    let network = Network::start(2).await;
    let (client, digits) = network.client_with_digits(60, "ada").await;
    let (task, held) = client.post(training(digits, 2, 12)).await.unwrap();
    let mut killed = false;
    let events = follow(&client, task, |event| {
        if !killed && matches!(event, Event::Checkpoint { .. }) {
            kill(&network, victim);
            killed = true;
        }
    })
    .await;
    assert!(killed, "{victim:?}");
    let lost = events
        .iter()
        .filter(|e| matches!(e.event, Event::Lost { .. }))
        .count();
    let expected = usize::from(matches!(victim, Victim::Worker));
    assert_eq!(
        lost, expected,
        "{victim:?}: a coordinator's actor costs no miner its place"
    );
    let view = client.task(task).await.unwrap();
    assert_eq!(
        view.state,
        TaskState::Finished,
        "{victim:?}: {}",
        view.reason
    );
    assert_eq!(sums(&events).values().sum::<u64>(), held.base_units());
    let status = within("the status", client.status()).await.unwrap();
    assert_eq!(
        (status.supply, status.held.base_units()),
        (SUPPLY, 0),
        "{victim:?}"
    );
    network.stop().await;
}

fn kill(network: &Network, victim: Victim) {
    let coordinator = &network.coordinator;
    match victim {
        Victim::Ledger => coordinator.ledger.actor().unwrap().kill(),
        Victim::Rating => coordinator.rating.actor().unwrap().kill(),
        Victim::Catalog => coordinator.catalog.actor().unwrap().kill(),
        Victim::Matchmaker => coordinator.matchmaker.actor().unwrap().kill(),
        Victim::Worker => network.miners[0].worker.actor().unwrap().kill(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_ledger_dies() {
    kill_in_the_middle(Victim::Ledger).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_rating_dies() {
    kill_in_the_middle(Victim::Rating).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_catalog_dies() {
    kill_in_the_middle(Victim::Catalog).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_matchmaker_dies() {
    kill_in_the_middle(Victim::Matchmaker).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gpu_worker_dies() {
    kill_in_the_middle(Victim::Worker).await;
}
