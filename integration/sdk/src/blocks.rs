//! The chain's blocks as a coordinator streams them.

use cryptomind_protocol::ErrorBody;
use cryptomind_protocol::api::Request;
use cryptomind_protocol::block::Block;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::Client;
use crate::watch::{self, Numbered};

/// Blocks that wait for a slow reader: one may have 900 KiB.
const WAITING_BLOCKS: usize = 16;

struct Chain;

impl Numbered for Chain {
    type Item = Block;

    fn request(&self, from: u64) -> Request {
        Request::Follow { from }
    }

    fn number(item: &Block) -> u64 {
        item.header.height
    }

    fn is_last(_: &Block) -> bool {
        false
    }
}

/// The chain's blocks from a height on, each once and in order. What is handed out was not checked: see
/// `cryptomind_core::chain`.
pub struct Blocks {
    blocks: mpsc::Receiver<Result<Block, ErrorBody>>,
    follower: JoinHandle<()>,
}

impl Blocks {
    pub(crate) fn start(client: Client, from: u64) -> Self {
        let (blocks, follower) = watch::start(client, Chain, from, WAITING_BLOCKS);
        Self { blocks, follower }
    }

    /// The next block, once it is durable at the coordinator. An error ends the stream. Safe to cancel.
    ///
    /// An idle chain makes no blocks: put a limit around this where you have one.
    pub async fn next(&mut self) -> Option<Result<Block, ErrorBody>> {
        self.blocks.recv().await
    }
}

impl Drop for Blocks {
    fn drop(&mut self) {
        self.follower.abort();
    }
}
