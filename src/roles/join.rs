//! Joining a network: a node makes its key and its configuration by itself.
//!
//! The key is made once and never leaves the machine. The owner's delegation is asked for by the node
//! when it runs: see `cryptomind_actors::enrol`.

use std::path::PathBuf;

use cryptomind_config::{Layers, Settings, fill_sample};
use cryptomind_protocol::role::Role;
use cryptomind_protocol::{ErrorBody, NodeAddress, NodeId};

use crate::cli::{Global, RoleArgs};
use crate::exit;
use crate::roles::{default_dir, make_dir, node_key};

/// The layers of a node's settings; with `--join`, over a file that is written where it is missing.
pub(super) fn layers<T: Settings>(
    role: Role,
    global: &Global,
    args: &RoleArgs,
) -> Result<Layers, ErrorBody> {
    let mut layers = super::layers(&role.to_string(), global);
    let Some(coordinator) = &args.join else {
        return Ok(layers);
    };
    if layers.file.is_none() {
        layers.file = Some(written::<T>(role, args, coordinator)?);
    }
    layers = layers.with_override("coordinator", coordinator);
    if let Some(account) = &args.account {
        layers = layers.with_override("node.account", account);
    }
    Ok(layers)
}

/// The node's configuration file, written where it is missing.
fn written<T: Settings>(
    role: Role,
    args: &RoleArgs,
    coordinator: &NodeAddress,
) -> Result<PathBuf, ErrorBody> {
    let dir = match &args.dir {
        Some(dir) => std::path::absolute(dir).map_err(|e| exit::file(dir, &e))?,
        None => default_dir(&role.to_string()).ok_or_else(|| {
            ErrorBody::user("no_home", "this user has no home folder").with_help("add --dir DIR")
        })?,
    };
    let file = dir.join(T::FILE_NAME);
    if file.exists() {
        return Ok(file);
    }
    make_dir(&dir)?;
    let key = node_key(&dir.join("node.key"))?;
    let node = NodeId::of_key(&key.public());
    let name = args
        .name
        .clone()
        .unwrap_or_else(|| default_name(role, &node));
    let (coordinator, dir) = (coordinator.to_string(), dir.display().to_string());
    let account = args.account.map(|account| account.to_string());
    let mut settings = vec![
        ("coordinator", coordinator.as_str()),
        ("node.name", name.as_str()),
        ("node.data_dir", dir.as_str()),
    ];
    settings.extend(account.as_deref().map(|account| ("node.account", account)));
    let text = fill_sample(T::SAMPLE, &settings).map_err(|e| ErrorBody::internal(&e))?;
    std::fs::write(&file, text).map_err(|e| exit::file(&file, &e))?;
    Ok(file)
}

/// `miner-ab12`: the role and the beginning of the node's id.
fn default_name(role: Role, node: &NodeId) -> String {
    let text = node.to_string();
    let short: String = text.chars().skip(NodeId::PREFIX.len()).take(4).collect();
    format!("{role}-{short}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use cryptomind_config::{Miner, load};
    use cryptomind_protocol::AccountId;
    use std::path::Path;

    fn args(dir: &Path) -> RoleArgs {
        let node = NodeId::new([7; 32]);
        RoleArgs {
            join: Some(format!("cm://{node}@127.0.0.1:7700").parse().unwrap()),
            account: Some(AccountId::new([3; 20])),
            dir: Some(dir.to_owned()),
            ..RoleArgs::default()
        }
    }

    #[test]
    fn joining_writes_a_configuration_that_is_in_order_and_keeps_it() {
        let dir = tempfile::tempdir().unwrap();
        let args = args(&dir.path().join("miner"));
        let of = || layers::<Miner>(Role::Miner, &Global::default(), &args).unwrap();
        let first = load::<Miner>(&of()).unwrap().value;
        assert_eq!(first.node.account, args.account);
        assert_eq!(Some(&first.coordinator), args.join.as_ref());
        assert!(first.node.name.starts_with("miner-"), "{}", first.node.name);
        assert!(first.node.key_file.exists());
        let second = load::<Miner>(&of()).unwrap().value;
        assert_eq!(first, second);
    }
}
