//! The ranks of a benchmark, each a process of its own: it says where its socket is, is told what to do, and answers, a line of
//! JSON each time.
//!
//! Both ends are here: [`Rank`] is one as the process that measures sees it, [`serve`] is what it does itself. Neither outlives the
//! other.

use std::net::IpAddr;
use std::process::Stdio;
use std::time::Duration;

use cryptomind_net::ring::{Profile, RingPlan, RingSocket};
use cryptomind_protocol::ring::Wire;
use cryptomind_protocol::{ErrorBody, GenesisHash, NodeId, SecretKey, TaskId};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::mpsc;

use crate::cli::bench::RankArgs;

/// Time for all processes to meet.
const JOIN_LIMIT: Duration = Duration::from_secs(20);
const NETWORK: GenesisHash = GenesisHash::new([0; 32]);
const TASK: TaskId = TaskId::new([0; 16]);

/// The first line that a rank writes.
#[derive(Debug, Serialize, Deserialize)]
struct Address {
    address: String,
}

/// A process that is a rank. It ends with this.
pub(super) struct Rank {
    number: usize,
    child: Child,
    orders: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Rank {
    /// Starts it with this command of `bench`; `program` is this binary, perhaps by way of another.
    pub(super) fn start(
        number: usize,
        listen: IpAddr,
        command: &str,
        mut program: Command,
    ) -> Result<Self, ErrorBody> {
        let args = ["bench", command, "--rank"].map(String::from);
        let more = [number.to_string(), "--listen".into(), listen.to_string()];
        let started = program
            .args(args)
            .args(more)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn();
        let mut child = started
            .map_err(|e| ErrorBody::internal(format!("rank {number} cannot be started: {e}")))?;
        let (Some(orders), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(ErrorBody::internal("a process without pipes"));
        };
        Ok(Self {
            number,
            child,
            orders,
            answers: BufReader::new(output).lines(),
        })
    }

    async fn order(&mut self, order: &impl Serialize) -> Result<(), ErrorBody> {
        let mut line = serde_json::to_vec(order).map_err(ErrorBody::internal)?;
        line.push(b'\n');
        let written = self.orders.write_all(&line).await;
        written.map_err(|e| ErrorBody::internal(format!("rank {} is gone: {e}", self.number)))
    }

    async fn answer<T: DeserializeOwned>(&mut self) -> Result<T, ErrorBody> {
        let line = self.answers.next_line().await.ok().flatten();
        let Some(line) = line else {
            let status = self.child.wait().await.map(|status| status.to_string());
            return Err(ErrorBody::internal(format!(
                "rank {} ended without an answer: {}",
                self.number,
                status.unwrap_or_else(|e| e.to_string())
            )));
        };
        serde_json::from_str(&line).map_err(ErrorBody::internal)
    }
}

/// Gives all ranks the order that is made of the addresses of their sockets, and waits for what each of them answers.
pub(super) async fn ask<O: Serialize, A: DeserializeOwned>(
    ranks: &mut [Rank],
    order: impl FnOnce(Vec<String>) -> O,
) -> Result<Vec<A>, ErrorBody> {
    let mut addresses = Vec::new();
    for rank in ranks.iter_mut() {
        addresses.push(rank.answer::<Address>().await?.address);
    }
    let order = order(addresses);
    for rank in ranks.iter_mut() {
        rank.order(&order).await?;
    }
    let mut answers = Vec::new();
    for rank in ranks {
        answers.push(rank.answer().await?);
    }
    Ok(answers)
}

/// Is a rank: works until it has answered, or whoever started it is gone.
pub(super) async fn serve<O: DeserializeOwned, A: Serialize>(
    args: RankArgs,
    work: impl AsyncFnOnce(&RingSocket, O) -> Result<A, ErrorBody>,
) -> Result<(), ErrorBody> {
    let socket = RingSocket::bind((args.listen, 0).into(), key(args.rank), NETWORK)?;
    let address = socket.local_addr().to_string();
    say(&Address { address })?;
    let mut lines = input();
    let line = lines.recv().await;
    let line = line.ok_or_else(|| ErrorBody::internal("nobody said what to do"))?;
    let order: O = serde_json::from_str(&line).map_err(ErrorBody::internal)?;
    tokio::select! {
        answer = work(&socket, order) => {
            let answer = answer?;
            socket.farewell().await;
            say(&answer)
        }
        _ = lines.recv() => Err(ErrorBody::internal("whoever started it is gone")),
    }
}

/// A rank's place in the ring of all that have these addresses.
pub(super) fn plan(
    rank: usize,
    addresses: Vec<String>,
    wire: Wire,
    profile: Option<Profile>,
) -> RingPlan {
    let node = |rank| NodeId::of_key(&key(rank).public());
    RingPlan {
        task: TASK,
        attempt: 1,
        rank: rank as u32,
        members: (0..addresses.len()).map(node).collect(),
        addresses,
        wire,
        profile,
        limit: JOIN_LIMIT,
    }
}

/// A place for this one rank alone.
pub(super) fn alone(rank: usize, address: String) -> RingPlan {
    let (addresses, wire) = (vec![address], Wire::F32);
    RingPlan {
        members: vec![NodeId::of_key(&key(rank).public())],
        ..plan(0, addresses, wire, None)
    }
}

/// The key of a rank: nobody else is on these links.
fn key(rank: usize) -> SecretKey {
    SecretKey::from_seed([rank as u8 + 1; 32])
}

/// The lines of standard input, which end with whoever started this process.
fn input() -> mpsc::Receiver<String> {
    let (sender, lines) = mpsc::channel(1);
    // It waits in a read that nothing ends but the process.
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    lines
}

// Its standard output is a pipe to the process that measures.
#[allow(clippy::print_stdout)]
fn say<T: Serialize>(value: &T) -> Result<(), ErrorBody> {
    let line = serde_json::to_string(value).map_err(ErrorBody::internal)?;
    println!("{line}");
    Ok(())
}
