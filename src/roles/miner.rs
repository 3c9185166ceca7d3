//! `--role miner`.

use anyhow::Result;
use cryptomind_actors::miner::{self, MinerConfig};
use cryptomind_config::{Miner, load};
use cryptomind_protocol::role::Role;

use crate::cli::{Global, RoleArgs};
use crate::output::Output;
use crate::roles::{join, make_dir, node_key, or_end, until_end};

pub(super) async fn run(output: Output, global: &Global, args: &RoleArgs) -> Result<()> {
    let layers = join::layers::<Miner>(Role::Miner, global, args)?;
    let settings: Miner = load(&layers)?.value;
    make_dir(&settings.node.data_dir)?;
    let key = node_key(&settings.node.key_file)?;
    let config = MinerConfig { settings, key };
    loop {
        let Some(node) = or_end(miner::start(config.clone()), args.tethered).await else {
            return Ok(());
        };
        let node = node?;
        let ready = async {
            node.joined().await;
            node.node_id.to_string()
        };
        let ended = tokio::select! {
            ended = until_end(output, ready, node.failed(), args.tethered) => Some(ended),
            // The next one begins with it.
            () = node.test_due() => None,
        };
        node.shutdown().await;
        if let Some(ended) = ended {
            return ended;
        }
    }
}
