//! Sums of f32 by Gloo, which PyTorch has for processors, on the same links: not encrypted, over TCP.

use std::net::{IpAddr, TcpListener};
use std::path::Path;
use std::process::{Output, Stdio};

use cryptomind_protocol::ErrorBody;
use serde::Deserialize;
use tokio::process::Command;
use tokio::task::JoinSet;

use crate::bench::netns::{self, Namespaces};

/// What each rank runs.
const RANK: &str = include_str!("gloo.py");

/// Where ranks meet that have a network of their own: nobody else is there.
const PORT: u16 = 29_500;

const LOOPBACK: &str = if cfg!(target_os = "macos") {
    "lo0"
} else {
    "lo"
};

/// What a rank says.
#[derive(Debug, Deserialize)]
pub(super) struct Timed {
    /// The version.
    pub(super) pytorch: String,
    /// Each sum, milliseconds.
    pub(super) sum_ms: Vec<f64>,
}

/// What is summed, by whom.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sums {
    pub(super) world: usize,
    pub(super) values: usize,
    pub(super) rounds: u32,
}

/// Has ranks of this Python sum, each in a process, where the link is or on loopback.
///
/// # Errors
/// Where that is no Python with PyTorch, or a rank fails.
pub(super) async fn sum(
    python: &Path,
    sums: Sums,
    link: Option<&Namespaces>,
) -> Result<Vec<Timed>, ErrorBody> {
    let (host, interface) = match link {
        Some(link) => (link.address(0), netns::INTERFACE),
        None => (IpAddr::from([127, 0, 0, 1]), LOOPBACK),
    };
    let port = match link {
        Some(_) => PORT,
        None => free_port(host)?,
    };
    let store = format!("tcp://{host}:{port}");
    let mut ranks = JoinSet::new();
    for rank in 0..sums.world {
        let mut command = match link {
            Some(link) => link.command(rank, python),
            None => Command::new(python),
        };
        let numbers = [rank, sums.world, sums.values, sums.rounds as usize];
        command
            .args(["-c", RANK])
            .args(numbers.map(|number| number.to_string()))
            .args([interface, &store])
            .stdin(Stdio::null())
            .kill_on_drop(true);
        ranks.spawn(async move { said(&command.output().await.map_err(|e| e.to_string())?) });
    }
    let mut timed = Vec::new();
    while let Some(rank) = ranks.join_next().await {
        // The first that fails ends the others.
        let rank = rank.map_err(ErrorBody::internal)?;
        timed.push(rank.map_err(|why| failed(python, &why))?);
    }
    Ok(timed)
}

/// Of this machine. Somebody may take it before the ranks do: then they say so.
fn free_port(host: IpAddr) -> Result<u16, ErrorBody> {
    let bound = TcpListener::bind((host, 0)).and_then(|listener| listener.local_addr());
    let address = bound.map_err(|e| ErrorBody::internal(format!("no free port: {e}")))?;
    Ok(address.port())
}

fn said(output: &Output) -> Result<Timed, String> {
    match output.status.success() {
        true => serde_json::from_slice(&output.stdout).map_err(|e| e.to_string()),
        false => {
            let text = String::from_utf8_lossy(&output.stderr);
            let last = text.lines().rfind(|line| !line.trim().is_empty());
            Err(last.map_or_else(|| output.status.to_string(), str::to_owned))
        }
    }
}

fn failed(python: &Path, why: &str) -> ErrorBody {
    let message = format!("Gloo of `{}` did not sum: {why}", python.display());
    ErrorBody::user("no_gloo", message).with_help(
        "where it has no PyTorch: python3 -m venv peer && peer/bin/pip install torch numpy, and then --gloo peer/bin/python",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUMS: Sums = Sums {
        world: 2,
        values: 1,
        rounds: 1,
    };

    #[tokio::test]
    async fn what_is_no_python_with_pytorch_is_an_error_that_says_what_to_do() {
        for none in ["/nowhere/python", "false"] {
            let error = sum(Path::new(none), SUMS, None).await.unwrap_err();
            assert_eq!(error.code, "no_gloo");
            assert!(error.message.contains(none), "{}", error.message);
            assert!(error.help.unwrap().contains("pip install torch"));
        }
    }
}
