//! `--role storage`.

use anyhow::Result;
use cryptomind_actors::storage;
use cryptomind_config::{Storage, load};
use cryptomind_protocol::role::Role;

use crate::cli::{Global, RoleArgs};
use crate::output::Output;
use crate::roles::{asked_to_end, join, make_dir, node_key, or_end, until_end};

pub(super) async fn run(output: Output, global: &Global, args: &RoleArgs) -> Result<()> {
    let layers = join::layers::<Storage>(Role::Storage, global, args)?;
    let config: Storage = load(&layers)?.value;
    make_dir(&config.node.data_dir)?;
    let key = node_key(&config.node.key_file)?;
    // It may wait long for a coordinator that is away.
    let Some(node) = or_end(storage::start(config, key), asked_to_end(args.tethered)).await else {
        return Ok(());
    };
    let node = node?;
    let ready = async {
        node.joined().await;
        node.address().to_string()
    };
    // It has no actors that could give up.
    let ended = until_end(
        output,
        ready,
        std::future::pending(),
        asked_to_end(args.tethered),
    )
    .await;
    node.shutdown().await;
    ended
}
