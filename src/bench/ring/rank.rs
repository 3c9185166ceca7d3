//! A rank of `bench ring`, as the process that measures sees it.

use std::net::IpAddr;
use std::process::Stdio;

use cryptomind_protocol::ErrorBody;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use super::member::{Address, Order, Timed};

/// A process that sums. It ends with this.
pub(super) struct Rank {
    number: usize,
    child: Child,
    orders: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Rank {
    /// Starts it; `program` is this binary, perhaps by way of another.
    pub(super) fn start(
        number: usize,
        listen: IpAddr,
        mut program: Command,
    ) -> Result<Self, ErrorBody> {
        let args = ["bench", "ring-member", "--rank"].map(String::from);
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

    /// Where its socket is.
    pub(super) async fn address(&mut self) -> Result<String, ErrorBody> {
        Ok(self.answer::<Address>().await?.address)
    }

    /// What it has measured, when it is through.
    pub(super) async fn timed(&mut self) -> Result<Timed, ErrorBody> {
        self.answer().await
    }

    pub(super) async fn order(&mut self, order: &Order) -> Result<(), ErrorBody> {
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
