//! `--role storage`.

use anyhow::Result;
use cryptomind_actors::storage;
use cryptomind_config::{Storage, load};
use cryptomind_protocol::delegation::Role;

use crate::cli::{Global, RoleArgs};
use crate::output::Output;
use crate::roles::{join, make_dir, until_end};

pub(super) async fn run(output: Output, global: &Global, args: &RoleArgs) -> Result<()> {
    let layers = join::layers::<Storage>(Role::Storage, global, args)?;
    let config: Storage = load(&layers)?.value;
    make_dir(&config.node.data_dir)?;
    let node = &config.node;
    join::tell_owner(output, &node.key_file, &node.delegation_file, node.account)?;
    let node = storage::start(config).await?;
    let ended = until_end(output, node.address(), args.tethered, node.failed()).await;
    node.shutdown().await;
    ended
}
