//! `--role coordinator`.

use anyhow::Result;
use cryptomind_actors::coordinator;
use cryptomind_config::{Coordinator, load};

use crate::cli::Global;
use crate::output::Output;
use crate::roles::{layers, make_dir, until_end};

pub(super) async fn run(output: Output, global: &Global, tethered: bool) -> Result<()> {
    let config: Coordinator = load(&layers("coordinator", global))?.value;
    make_dir(&config.node.data_dir)?;
    let node = coordinator::start(config).await?;
    let ended = until_end(output, node.address(), tethered, node.failed()).await;
    node.shutdown().await;
    ended
}
