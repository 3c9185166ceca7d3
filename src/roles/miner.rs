//! `--role miner`.

use std::time::Duration;

use anyhow::Result;
use cryptomind_actors::miner::{self, MinerConfig, MinerNode};
use cryptomind_config::{Miner, load};
use cryptomind_protocol::role::Role;

use crate::cli::{Global, RoleArgs};
use crate::output::Output;
use crate::roles::{asked_to_end, join, make_dir, node_key, or_end, until_end};

/// From one try to start again to the next.
const RESTART_PAUSE: Duration = Duration::from_secs(60);

pub(super) async fn run(output: Output, global: &Global, args: &RoleArgs) -> Result<()> {
    let layers = join::layers::<Miner>(Role::Miner, global, args)?;
    let settings: Miner = load(&layers)?.value;
    make_dir(&settings.node.data_dir)?;
    let key = node_key(&settings.node.key_file)?;
    let config = MinerConfig { settings, key };
    // One for all rounds: what is asked between two of them is not lost.
    let end = asked_to_end(args.tethered);
    tokio::pin!(end);
    let Some(node) = or_end(miner::start(config.clone()), &mut end).await else {
        return Ok(());
    };
    let mut node = node?;
    let mut announced = false;
    loop {
        let ready = async {
            node.joined().await;
            node.node_id.to_string()
        };
        let ready = once(ready, &mut announced);
        let ended = tokio::select! {
            ended = until_end(output, ready, node.failed(), &mut end) => Some(ended),
            // The next round begins with it.
            () = node.test_due() => None,
        };
        node.shutdown().await;
        if let Some(ended) = ended {
            return ended;
        }
        let Some(next) = or_end(again(&config), &mut end).await else {
            return Ok(());
        };
        node = next;
    }
}

/// Whoever waits for the line that says that it is ready has read it after the first round.
async fn once(ready: impl Future<Output = String>, announced: &mut bool) -> String {
    if *announced {
        std::future::pending::<()>().await;
    }
    let ready = ready.await;
    *announced = true;
    ready
}

/// Starts a miner that ran before, however long that takes: what was good a week ago needs no hand to be good again.
async fn again(config: &MinerConfig) -> MinerNode {
    loop {
        match miner::start(config.clone()).await {
            Ok(node) => return node,
            Err(error) => {
                let pause = RESTART_PAUSE.as_secs();
                tracing::warn!(%error, "the miner does not start again; next try in {pause} s");
                tokio::time::sleep(RESTART_PAUSE).await;
            }
        }
    }
}
