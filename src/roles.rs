//! `--role`: this process as one part of the network.
//!
//! A part prints one line on standard output when it is ready, `ready <address>`, and its log on standard
//! error. It ends by Ctrl-C, SIGTERM, its own failure, or, where it is tethered, when its standard
//! input closes.

use std::path::{Path, PathBuf};

use anyhow::Result;
use cryptomind_config::Layers;
use cryptomind_protocol::{ErrorBody, NodeAddress};
use tokio::io::AsyncReadExt;

use crate::cli::{Global, Role, RoleArgs};
use crate::context::Context;
use crate::output::Output;
use crate::platform;

pub mod client;
mod coordinator;
mod join;
mod miner;
mod storage;

/// Runs a part of the network until it ends.
pub async fn run(context: &Context, global: &Global, role: Role, args: &RoleArgs) -> Result<()> {
    if args.join.is_some() && !matches!(role, Role::Miner | Role::Storage) {
        return Err(ErrorBody::user("cannot_join", "only miners and storage nodes join a coordinator")
            .with_help("leave --join out; a client is given --coordinator cm://…")
            .into());
    }
    match role {
        Role::Coordinator => coordinator::run(context.output, global, args.tethered).await,
        Role::Miner => miner::run(context.output, global, args).await,
        Role::Storage => storage::run(context.output, global, args).await,
        Role::Client => client::run(context).await,
    }
}

/// The layers of a node's settings: by hand, its data lies in the user's own folder.
pub fn layers(role: &str, global: &Global) -> Layers {
    let mut layers = Layers::of_process(global.config.clone());
    if let Some(dir) = default_dir(role) {
        layers.platform = vec![("node.data_dir".into(), dir.display().to_string())];
    }
    if let (Some(coordinator), true) = (&global.coordinator, role != "coordinator") {
        layers = layers.with_override("coordinator", coordinator);
    }
    layers
}

fn default_dir(role: &str) -> Option<PathBuf> {
    platform::data_dir().ok().map(|dir| dir.join(role))
}

/// Makes a node's folder, readable by its owner alone.
fn make_dir(dir: &Path) -> Result<(), ErrorBody> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    rights::owner_only(&mut builder);
    builder.create(dir).map_err(|e| crate::exit::file(dir, &e))
}

/// Says that the part is ready, then waits until it shall end. `failed` resolves when it gave up.
async fn until_end(
    output: Output,
    address: NodeAddress,
    tethered: bool,
    failed: impl Future<Output = ()>,
) -> Result<()> {
    output.raw(format!("ready {address}"))?;
    tokio::select! {
        () = failed => {
            Err(ErrorBody::internal("the node gave up: see its log above")
                .with_help("start it again: everything that was acknowledged is there")
                .into())
        }
        () = asked_to_end(tethered) => {
            tracing::info!("ending");
            Ok(())
        }
    }
}

async fn asked_to_end(tethered: bool) {
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        () = signals::terminate() => {}
        () = input_closed(), if tethered => {}
    }
}

/// Resolves when standard input closes: whoever started this process is gone.
async fn input_closed() {
    let mut input = tokio::io::stdin();
    let mut buffer = [0; 64];
    while input.read(&mut buffer).await.is_ok_and(|read| read > 0) {}
}

/// The twin for systems without SIGTERM is below.
#[cfg(unix)]
mod signals {
    use tokio::signal::unix::{SignalKind, signal};

    pub(super) async fn terminate() {
        match signal(SignalKind::terminate()) {
            Ok(mut terminate) => {
                terminate.recv().await;
            }
            Err(error) => {
                tracing::warn!(%error, "SIGTERM cannot be awaited");
                std::future::pending::<()>().await;
            }
        }
    }
}

#[cfg(not(unix))]
mod signals {
    pub(super) async fn terminate() {
        std::future::pending::<()>().await;
    }
}

#[cfg(unix)]
mod rights {
    use std::os::unix::fs::DirBuilderExt as _;

    pub(super) fn owner_only(builder: &mut std::fs::DirBuilder) {
        builder.mode(0o700);
    }
}

/// On Windows a folder has the rights of the one that it lies in.
#[cfg(not(unix))]
mod rights {
    pub(super) fn owner_only(_: &mut std::fs::DirBuilder) {}
}
