//! `--role`: this process as one part of the network.
//!
//! A part prints one line on standard output when it is ready, and its log on standard error: `ready <address>`
//! where it listens, `ready <node id>` where it does not. It ends by Ctrl-C, SIGTERM, its own failure, or, where it is tethered, when its standard
//! input closes.

use std::path::{Path, PathBuf};

use anyhow::Result;
use cryptomind_config::{Layers, key};
use cryptomind_protocol::{ErrorBody, SecretKey};

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
        return Err(ErrorBody::user(
            "cannot_join",
            "only miners and storage nodes join a coordinator",
        )
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

pub fn default_dir(role: &str) -> Option<PathBuf> {
    platform::data_dir().ok().map(|dir| dir.join(role))
}

/// Makes a node's folder, readable by its owner alone.
fn make_dir(dir: &Path) -> Result<(), ErrorBody> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    rights::owner_only(&mut builder);
    builder.create(dir).map_err(|e| crate::exit::file(dir, &e))
}

/// Waits until the part has `joined` and says so, then until it shall end. `failed` resolves with the
/// reason when it gave up.
async fn until_end(
    output: Output,
    ready: impl Future<Output = String>,
    failed: impl Future<Output = String>,
    end: impl Future<Output = ()>,
) -> Result<()> {
    let serving = async {
        output.raw(format!("ready {}", ready.await))?;
        std::future::pending::<Result<()>>().await
    };
    tokio::select! {
        never = serving => never,
        why = failed => {
            Err(ErrorBody::internal(format!("the node gave up: {why}"))
                .with_help("start it again: everything that was acknowledged is there")
                .into())
        }
        () = end => {
            tracing::info!("ending");
            Ok(())
        }
    }
}

/// A node's key, made at its first start.
fn node_key(file: &Path) -> Result<SecretKey, ErrorBody> {
    let seed = *cryptomind_sdk::new_key()?.seed();
    Ok(key::read_or_create(file, seed)?)
}

/// What `work` comes to, or nothing where the process is asked to end before.
async fn or_end<T>(work: impl Future<Output = T>, end: impl Future<Output = ()>) -> Option<T> {
    tokio::select! {
        done = work => Some(done),
        () = end => None,
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
    let (closed, wait) = tokio::sync::oneshot::channel();
    // Reading blocks for as long as the process lives: a thread of its own, which ends with it.
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        closed.send(())
    });
    let _ = wait.await;
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
