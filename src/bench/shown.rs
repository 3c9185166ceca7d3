//! The self-test that benchmark nodes join with: taken once in this process, shown by each as its own.

use std::ops::ControlFlow;
use std::sync::OnceLock;
use std::time::Duration;

use cryptomind_actors::miner::selftest::{challenge, machine, report};
use cryptomind_gpu::selftest::{Extent, run};
use cryptomind_protocol::selftest::{Endurance, Work};
use cryptomind_protocol::{ErrorBody, GenesisHash, NodeId, SecretKey, Signed};

/// What a node of this key shows to be let in, claiming a speed.
pub(super) fn selftest(
    key: &SecretKey,
    network: &GenesisHash,
    mflops: u64,
) -> Result<Signed, ErrorBody> {
    let mut work = work()?;
    work.paces.clear();
    work.endurance = Endurance {
        ms: 0,
        first_mflops: mflops,
        last_mflops: mflops,
    };
    let node = NodeId::of_key(&key.public());
    Ok(Signed::sign(&report(node, machine(1), work), network, key))
}

fn work() -> Result<Work, ErrorBody> {
    static WORK: OnceLock<Result<Work, ErrorBody>> = OnceLock::new();
    let extent = Extent {
        endure: Duration::ZERO,
        threads: 1,
        memory: 64 << 20,
    };
    let taken = WORK.get_or_init(|| {
        let mut on = |_: &'static str, _: f32| ControlFlow::Continue(());
        Ok(run(challenge()?, extent, &mut on)?)
    });
    taken.clone()
}
