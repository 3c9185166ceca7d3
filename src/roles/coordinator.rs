//! `--role coordinator`.

use anyhow::Result;
use cryptomind_actors::coordinator;
use cryptomind_config::{Coordinator, load};

use crate::cli::Global;
use crate::output::Output;
use crate::roles::{asked_to_end, layers, make_dir, node_key, until_end};

pub(super) async fn run(output: Output, global: &Global, tethered: bool) -> Result<()> {
    let config: Coordinator = load(&layers("coordinator", global))?.value;
    make_dir(&config.node.data_dir)?;
    let key = node_key(&config.node.key_file)?;
    let node = coordinator::start(config, key).await?;
    let ready = async { node.address().to_string() };
    let ended = until_end(output, ready, node.failed(), asked_to_end(tethered)).await;
    node.shutdown().await;
    ended
}
