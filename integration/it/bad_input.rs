//! Bad input over real connections: each kind gets a clear typed error, costs nothing, and leaves every node
//! serving.

use std::path::Path;
use std::time::Duration;

use cryptomind_blob::HashTree;
use cryptomind_net::bulk::{self, Origin};
use cryptomind_net::{Connection, Endpoint};
use cryptomind_protocol::api::{NetworkStatus, Placement, Request};
use cryptomind_protocol::blob::CHUNK_BYTES;
use cryptomind_protocol::error::Answer;
use cryptomind_protocol::frame::{ALPN_API, ALPN_BLOB, LENGTH_BYTES, MAX_FRAME, wrap};
use cryptomind_protocol::item::{Access, ItemKind, Manifest};
use cryptomind_protocol::key::Nonce;
use cryptomind_protocol::money::SUPPLY;
use cryptomind_protocol::task::{TaskSpec, Work};
use cryptomind_protocol::transaction::{Action, Outcome, StoredReceipt, Transaction};
use cryptomind_protocol::{
    Amount, BlobId, ErrorBody, ErrorClass, GenesisHash, NodeAddress, Signed, TaskId,
};
use cryptomind_sdk::Client;
use serde::Serialize;

use crate::nodes::{Network, follow, key, training, within, write_closed};
use crate::processes::{cryptomind, text};

/// For one answer.
const SOON: Duration = Duration::from_secs(10);

/// Everything still runs, nobody holds anything, and `client` has what it had.
async fn nothing_happened(network: &Network, client: &Client, available: Amount) {
    let account = client.my_account().await.unwrap();
    assert_eq!((account.available, account.held), (available, Amount::ZERO));
    let status = client.status().await.unwrap();
    assert_eq!(status.miners as usize, network.miners.len());
    assert_eq!((status.storage_nodes, status.supply), (1, SUPPLY));
    assert_eq!((status.held, status.open_tasks), (Amount::ZERO, 0));
}

async fn funded(network: &Network, number: u8, nickname: &str) -> (Client, Amount) {
    let client = network.client(number).await;
    client.register(nickname).await.unwrap();
    let amount = client.faucet().await.unwrap();
    (client, amount)
}

fn code<T: std::fmt::Debug>(result: Result<T, ErrorBody>) -> String {
    let error = result.expect_err("this is to be refused");
    assert!(!error.message.is_empty());
    assert_ne!(error.class, ErrorClass::Internal, "{error}");
    error.code
}

// Frames.

/// Sends raw bytes on a stream of its own and gives the code of the answer.
async fn refusal(connection: &Connection, bytes: &[u8]) -> String {
    let (mut sender, mut receiver) = connection.open().await.unwrap();
    sender.bytes(bytes).await.unwrap();
    sender.finish().await.unwrap();
    let answer: Option<Answer<NetworkStatus>> = receiver.frame(SOON).await.unwrap();
    match answer {
        Some(Answer::Error(error)) => error.code,
        other => panic!("{other:?}"),
    }
}

#[derive(Serialize)]
struct Named {
    method: &'static str,
    params: (),
}

/// Not CBOR, half a frame, one that is longer than any may be, and a method that nobody has.
async fn bad_frames(connection: &Connection) {
    let malformed = "malformed_request";
    assert_eq!(refusal(connection, &wrap(b"\xff\xff\xff")).await, malformed);
    assert_eq!(refusal(connection, &wrap(&[0x9f; 4000])).await, malformed);
    assert_eq!(refusal(connection, &wrap(&[])).await, malformed);
    assert_eq!(refusal(connection, &[]).await, malformed);
    assert_eq!(refusal(connection, &[0, 0, 1, 0, 7]).await, malformed);
    for length in [MAX_FRAME as u32 + 1, u32::MAX] {
        let header: [u8; LENGTH_BYTES] = length.to_be_bytes();
        assert_eq!(refusal(connection, &header).await, "frame_too_large");
    }
    let unknown = Named {
        method: "money.print",
        params: (),
    };
    let error = connection
        .request::<_, NetworkStatus>(&unknown, SOON)
        .await
        .unwrap_err();
    assert_eq!(error.code, "unknown_method");
    assert!(error.help.unwrap().contains("the methods are"));
}

fn storage_address(placement: &Placement) -> NodeAddress {
    let source = &placement.sources[0];
    format!("cm://{}@{}", source.node, source.address)
        .parse()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_and_signatures() {
    let network = Network::start(1).await;
    let (ada, funds) = funded(&network, 60, "ada").await;
    let dialler = Endpoint::dialler().unwrap();
    let address = network.coordinator.address();
    let api = dialler.dial(&address, ALPN_API, &key(70)).await.unwrap();
    bad_frames(&api).await;
    let status: NetworkStatus = api.request(&Request::Status {}, SOON).await.unwrap();
    assert_eq!(status.miners, 1, "the same connection still serves");
    let place = ada.place(1).await.unwrap();
    let address = storage_address(&place);
    let blobs = dialler.dial(&address, ALPN_BLOB, &key(60)).await.unwrap();
    bad_frames(&blobs).await;
    let none = bulk::has(&blobs, BlobId::of_bytes(b"x"), &place.ticket).await;
    assert!(!none.unwrap().present, "the same connection still serves");
    wrong_signatures(&ada).await;
    senseless_payments(&ada, funds).await;
    nothing_happened(&network, &ada, funds).await;
    replays(&network, &ada, funds).await;
    network.stop().await;
}

fn transaction(client: &Client, id: u8, action: Action) -> Transaction {
    Transaction {
        version: 1,
        id: Nonce::new([id; 16]),
        account: client.account_id(),
        valid_until: client.now().plus_ms(60_000),
        max_fee: Amount::ZERO,
        action,
    }
}

fn sending(units: u64) -> Action {
    Action::Send {
        to: cryptomind_protocol::AccountId::of_key(&key(61).public()),
        amount: Amount::from_base_units(units),
    }
}

/// `ada`'s key is number 60.
async fn wrong_signatures(ada: &Client) {
    let honest = transaction(ada, 1, sending(5_000));
    let elsewhere = Signed::sign(&honest, &GenesisHash::new([9; 32]), &key(60));
    assert_eq!(code(ada.submit_signed(elsewhere).await), "bad_signature");
    let mut flipped = ada.sign(&honest);
    *flipped.payload.last_mut().unwrap() ^= 1;
    assert_eq!(code(ada.submit_signed(flipped).await), "bad_signature");
    let by_another = Signed::sign(&honest, &ada.network(), &key(61));
    assert_eq!(code(ada.submit_signed(by_another).await), "wrong_account");
    let mut stale = honest;
    stale.valid_until = cryptomind_protocol::Timestamp::from_ms(1);
    let stale = ada.submit_signed(ada.sign(&stale)).await;
    assert_eq!(code(stale), "transaction_expired");
}

/// Each senseless payment is refused with a code of its own.
async fn senseless_payments(ada: &Client, funds: Amount) {
    let escrow = cryptomind_protocol::AccountId::of_system("escrow");
    let to = |to| Action::Send {
        to,
        amount: Amount::from_base_units(5_000),
    };
    let more = funds.base_units() + 1;
    let payments = [
        (sending(0), "zero_amount"),
        (sending(999), "dust_amount"),
        (sending(more), "insufficient_funds"),
        (sending(u64::MAX), "insufficient_funds"),
        (to(ada.account_id()), "same_account"),
        (to(escrow), "system_account"),
    ];
    for (number, (action, wanted)) in payments.into_iter().enumerate() {
        let signed = ada.sign(&transaction(ada, 100 + number as u8, action));
        assert_eq!(code(ada.submit_signed(signed).await), wanted);
    }
    let weak = Signed {
        signer: cryptomind_protocol::PublicKey::new([0; 32]),
        ..ada.sign(&transaction(ada, 99, sending(5_000)))
    };
    assert_eq!(code(ada.submit_signed(weak).await), "wrong_account");
}

/// The same bytes get the first answer and act once; other bytes under the same id are refused, and so is
/// somebody else who sends them.
async fn replays(network: &Network, ada: &Client, funds: Amount) {
    let signed = ada.sign(&transaction(ada, 2, sending(5_000)));
    let moved = Ok(Outcome::Moved {
        amount: Amount::from_base_units(5_000),
    });
    for _ in 0..3 {
        let again = ada.submit_signed(signed.clone()).await;
        assert_eq!(again.map(|accepted| accepted.outcome), moved);
    }
    let other = ada.sign(&transaction(ada, 2, sending(6_000)));
    assert_eq!(code(ada.submit_signed(other).await), "transaction_conflict");
    let thief = network.client(61).await;
    assert_eq!(code(thief.submit_signed(signed).await), "wrong_account");
    let left = funds.checked_sub(Amount::from_base_units(5_000)).unwrap();
    nothing_happened(network, ada, left).await;
    let got = thief.my_account().await.unwrap().available;
    assert_eq!(got.base_units(), 5_000, "the money moved once");
}

// Blobs.

/// Claims to be `data`, with one bit of the second chunk changed on the way.
struct Corrupt {
    tree: HashTree,
    data: Vec<u8>,
}

impl Origin for Corrupt {
    fn bytes(&self) -> u64 {
        self.data.len() as u64
    }

    fn hashes(&self) -> Vec<[u8; 32]> {
        self.tree.chunks().to_vec()
    }

    fn chunk(&mut self, index: u64) -> Result<Vec<u8>, ErrorBody> {
        let chunk = self.data.chunks(CHUNK_BYTES).nth(index as usize);
        let mut chunk = chunk.unwrap().to_vec();
        chunk[3] ^= u8::from(index == 1);
        Ok(chunk)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blobs_and_tickets() {
    let network = Network::start(0).await;
    let (ada, funds) = funded(&network, 60, "ada").await;
    let data: Vec<u8> = (0..CHUNK_BYTES * 3 + 5).map(|i| (i % 251) as u8).collect();
    let mut origin = Corrupt {
        tree: HashTree::of_bytes(&data),
        data,
    };
    let (blob, bytes) = (origin.tree.root(), origin.data.len() as u64);
    let place = ada.place(bytes).await.unwrap();
    let dialler = Endpoint::dialler().unwrap();
    let address = storage_address(&place);
    let hers = dialler.dial(&address, ALPN_BLOB, &key(60)).await.unwrap();

    let put = bulk::put(&hers, blob, &place.ticket, &mut origin).await;
    assert_eq!(code(put), "corrupt_chunk");
    let there = bulk::has(&hers, blob, &place.ticket).await.unwrap();
    assert!(!there.present, "a corrupt blob is not there");
    let again = bulk::put(&hers, blob, &place.ticket, &mut origin).await;
    assert_eq!(code(again), "ticket_used_up");

    // Another's ticket, one that its bearer signed itself, one changed, one for something else.
    let his = dialler.dial(&address, ALPN_BLOB, &key(61)).await.unwrap();
    let has = bulk::has(&his, blob, &place.ticket).await;
    assert_eq!(code(has), "bad_ticket");
    let mut forged = place.ticket.clone();
    forged.signer = key(60).public();
    assert_eq!(code(bulk::has(&hers, blob, &forged).await), "bad_ticket");
    let mut changed = place.ticket.clone();
    *changed.payload.last_mut().unwrap() ^= 1;
    assert_eq!(code(bulk::has(&hers, blob, &changed).await), "bad_ticket");
    let mut sink = Nowhere;
    let got = bulk::get(&hers, blob, 0, &place.ticket, &mut sink).await;
    assert_eq!(code(got), "bad_ticket");

    // The honest bytes are taken after all that, over the same node.
    let file = network.dir.path().join("honest");
    std::fs::write(&file, &origin.data).unwrap();
    let stored = ada.upload(vec![("honest".into(), file)], &mut |_| {}).await;
    assert_eq!(stored.unwrap()[0].0.blob, blob);
    nothing_happened(&network, &ada, funds).await;
    network.stop().await;
}

/// No chunk may come here.
struct Nowhere;

impl bulk::Sink for Nowhere {
    fn begin(&mut self, _: u64, _: Vec<[u8; 32]>) -> Result<(), ErrorBody> {
        panic!("refused before any byte")
    }

    fn chunk(&mut self, _: u64, _: &[u8]) -> Result<(), ErrorBody> {
        panic!("refused before any byte")
    }
}

// Tasks and items.

/// A second upload of the dataset's files gives fresh receipts for the same content.
async fn receipts(network: &Network, ada: &Client, manifest: &Manifest) -> Vec<StoredReceipt> {
    let folder = network.dir.path().join("digits");
    let path = |name: &String| (name.clone(), folder.join(name));
    let files = manifest.files.iter().map(|f| path(&f.name)).collect();
    let stored = ada.upload(files, &mut |_| {}).await.unwrap();
    stored.into_iter().map(|(_, receipt)| receipt).collect()
}

async fn publish(
    client: &Client,
    manifest: &Manifest,
    receipts: &[StoredReceipt],
) -> Result<Outcome, ErrorBody> {
    let (manifest, receipts) = (manifest.clone(), receipts.to_vec());
    let accepted = client.submit(Action::Publish { manifest, receipts }).await;
    accepted.map(|accepted| accepted.outcome)
}

/// Straight to the coordinator: the client library would refuse some of these by itself.
async fn post(client: &Client, spec: &TaskSpec) -> Result<Outcome, ErrorBody> {
    let accepted = client.submit(Action::Post { spec: spec.clone() }).await;
    accepted.map(|accepted| accepted.outcome)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tasks_and_items() {
    let network = Network::start(2).await;
    let (ada, digits) = network.client_with_digits(60, "ada").await;
    let funds = ada.my_account().await.unwrap().available;
    let manifest = ada.item_by_id(digits).await.unwrap().manifest;
    let receipts = receipts(&network, &ada, &manifest).await;
    bad_manifests(&ada, &manifest, &receipts).await;

    let spec = training(digits, 2, 2);
    let poor = network.client(62).await;
    let error = post(&poor, &spec).await.unwrap_err();
    assert_eq!(
        (error.class, error.code.as_str()),
        (ErrorClass::Funds, "insufficient_funds")
    );
    let mut crowd = spec.clone();
    crowd.miners = 5;
    let error = post(&ada, &crowd).await.unwrap_err();
    assert_eq!(
        (error.class, error.code.as_str()),
        (ErrorClass::Capacity, "not_enough_miners")
    );
    let mut cheap = spec.clone();
    cheap.max_cost = Amount::from_base_units(1);
    assert_eq!(code(post(&ada, &cheap).await), "cap_too_low");
    let mut nobody = spec.clone();
    nobody.miners = 0;
    assert_eq!(code(post(&ada, &nobody).await), "bad_task");
    nothing_happened(&network, &ada, funds).await;

    let (bob, bobs) = funded(&network, 61, "bob").await;
    closed_item(&ada, &bob, &manifest, &receipts).await;
    nothing_happened(&network, &bob, bobs).await;

    let (task, _) = ada.post(spec).await.unwrap();
    not_his(&bob, task).await;
    follow(&ada, task, |_| {}).await;
    not_his(&bob, task).await;
    ada.rate(task, 5).await.unwrap();
    assert_eq!(code(ada.rate(task, 1).await), "already_rated");
    nothing_happened(&network, &bob, bobs).await;
    network.stop().await;
}

/// Posting and cancelling in a loop: after a few, each further one is made to wait, and told for how long. The miners that began
/// are paid nothing and harmed by nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn posting_and_cancelling_in_a_loop() {
    let network = Network::start(1).await;
    let (ada, digits) = network.client_with_digits(60, "ada").await;
    let funds = ada.my_account().await.unwrap().available;
    let mut spec = training(digits, 1, 100);
    if let Work::Train { train, .. } = &mut spec.work {
        train.checkpoint_steps = u32::MAX;
    }
    let free_cancels = cryptomind_config::Market::default().free_cancels;
    for _ in 0..=free_cancels {
        let (task, _) = ada.post(spec.clone()).await.unwrap();
        ada.cancel(task).await.unwrap();
    }
    let refusal = post(&ada, &spec).await.unwrap_err();
    assert_eq!(
        (refusal.class, refusal.code.as_str()),
        (ErrorClass::Capacity, "cancelled_too_often")
    );
    assert!((1..=1000).contains(&refusal.retry_after_ms.unwrap()));
    assert!(refusal.help.is_some());
    let other = network.client(61).await;
    other.faucet().await.unwrap();
    let dear = post(&other, &spec).await;
    assert!(dear.is_ok(), "others are not meant: {dear:?}");
    let Outcome::Posted { task, .. } = dear.unwrap() else {
        unreachable!()
    };
    other.cancel(task).await.unwrap();
    let miners = ada.miners().await.unwrap();
    assert_eq!((miners[0].rating.done, miners[0].rating.failed), (0, 0));
    within("the miner is idle again", network.all_idle(&ada)).await;
    let left = ada.my_account().await.unwrap().available;
    assert!(
        left >= funds,
        "it cost no work, and others may owe for the data"
    );
    network.stop().await;
}

async fn bad_manifests(ada: &Client, manifest: &Manifest, receipts: &[StoredReceipt]) {
    let mut empty = Manifest {
        name: "empty".into(),
        ..manifest.clone()
    };
    let ItemKind::Dataset(info) = &mut empty.kind else {
        unreachable!()
    };
    info.train_samples = 0;
    let error = publish(ada, &empty, receipts).await.unwrap_err();
    assert_eq!(error.code, "bad_manifest");
    assert!(error.message.contains("an empty dataset"), "{error}");

    let mut unstored = manifest.clone();
    unstored.name = "unstored".into();
    let by_nobody = |r: &StoredReceipt| StoredReceipt::sign(r.blob, r.bytes, r.at, &key(77));
    let forged: Vec<_> = receipts.iter().map(by_nobody).collect();
    let refused = publish(ada, &unstored, &forged).await;
    assert_eq!(code(refused), "file_not_stored");
    let refused = publish(ada, &unstored, &receipts[1..]).await;
    assert_eq!(code(refused), "file_not_stored");
    assert_eq!(ada.items(None).await.unwrap().len(), 1, "nothing was added");
}

async fn closed_item(ada: &Client, bob: &Client, manifest: &Manifest, receipts: &[StoredReceipt]) {
    let closed = Manifest {
        name: "closed".into(),
        access: Access::Owner,
        ..manifest.clone()
    };
    let Outcome::Published { item } = publish(ada, &closed, receipts).await.unwrap() else {
        unreachable!()
    };
    let spec = training(item, 2, 2);
    for client in [bob, ada] {
        let answers = [
            client.locate_item(item).await.map(drop),
            client.quote(&spec).await.map(drop),
        ];
        for answer in answers {
            match client.account_id() == ada.account_id() {
                true => answer.unwrap(),
                false => assert_eq!(code(answer), "item_closed"),
            }
        }
    }
    let error = post(bob, &spec).await.unwrap_err();
    assert_eq!(
        (error.class, error.code.as_str()),
        (ErrorClass::Auth, "item_closed")
    );
}

async fn not_his(bob: &Client, task: TaskId) {
    let not_found = "task_not_found";
    assert_eq!(code(bob.task(task).await), not_found);
    assert_eq!(code(bob.cancel(task).await), not_found);
    assert_eq!(code(bob.rate(task, 1).await), not_found);
    assert_eq!(code(bob.locate_task(task).await), not_found);
    let first = within("an answer", bob.watch(task, 0).next()).await;
    assert_eq!(code(first.unwrap()), not_found);
}

// Files of the user, over the binary.

async fn refused(network: &Network, arguments: &[&str], key_file: &Path) -> (i32, String) {
    let mut command = cryptomind(network.dir.path());
    let coordinator = network.coordinator.address().to_string();
    command
        .args(["--coordinator", &coordinator, "--key"])
        .arg(key_file);
    let output = within("the command", command.args(arguments).output()).await;
    let output = output.unwrap();
    (output.status.code().unwrap(), text(&output))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_of_the_user() {
    let network = Network::start(0).await;
    let (ada, funds) = funded(&network, 60, "ada").await;
    let (whole, short) = (
        network.dir.path().join("ada.key"),
        network.dir.path().join("short.key"),
    );
    let line = key(60).to_file_text();
    write_closed(&whole, &line);
    write_closed(&short, &line[..line.len() / 2]);
    let (code, said) = refused(&network, &["wallet", "balance"], &short).await;
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("short.key") && said.contains("no whole secret key"));
    assert!(
        !said.contains(line[line.len() / 2 - 10..line.len() / 2].trim()),
        "a key is never shown"
    );

    let table = network.dir.path().join("flowers.csv");
    std::fs::write(&table, "length,width,kind\n1,2,a\n2,3,b\n3,4,a\n4,5,b\n").unwrap();
    let table = table.to_str().unwrap();
    let arguments = ["dataset", "add", table, "--label", "species"];
    let (code, said) = refused(&network, &arguments, &whole).await;
    assert_eq!(code, 2, "{said}");
    for word in [
        "flowers.csv",
        "no column `species`",
        "`length`, `width`, `kind`",
    ] {
        assert!(said.contains(word), "{word}: {said}");
    }
    let (code, said) = refused(&network, &["wallet", "balance"], &whole).await;
    assert_eq!(code, 0, "{said}");
    assert_eq!(ada.items(None).await.unwrap(), [], "nothing was published");
    nothing_happened(&network, &ada, funds).await;
    network.stop().await;
}
