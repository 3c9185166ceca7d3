//! Processor cores that a process is tied to, so that each member of a group has one and no more.

use cryptomind_protocol::ErrorBody;
use tokio::runtime::Handle;

/// The cores that this process may use.
///
/// # Errors
/// Where the system does not say.
pub(super) fn usable() -> Result<Vec<usize>, ErrorBody> {
    system::usable()
}

/// Works on a thread that is tied to a core, inside the caller's runtime. A process that it starts, by way of whatever other,
/// is tied to the same core: see sched(7).
///
/// # Errors
/// Where the system does not tie it; whatever the work ends with.
pub(super) fn on<T: Send>(
    core: usize,
    work: impl FnOnce() -> Result<T, ErrorBody> + Send,
) -> Result<T, ErrorBody> {
    let runtime = Handle::current();
    let tied = || {
        let _inside = runtime.enter();
        system::tie(core)?;
        work()
    };
    let worked = std::thread::scope(|scope| scope.spawn(tied).join());
    worked.unwrap_or_else(|_| Err(ErrorBody::internal("what works on a core has panicked")))
}

#[cfg(target_os = "linux")]
mod system {
    use cryptomind_protocol::ErrorBody;
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

    pub(super) fn usable() -> Result<Vec<usize>, ErrorBody> {
        let set = sched_getaffinity(None).map_err(ErrorBody::internal)?;
        let is_set = |core: &usize| set.is_set(*core);
        Ok((0..CpuSet::MAX_CPU).filter(is_set).collect())
    }

    pub(super) fn tie(core: usize) -> Result<(), ErrorBody> {
        let mut set = CpuSet::new();
        set.set(core);
        sched_setaffinity(None, &set).map_err(|error| {
            let message = format!("no thread can be tied to core {core}: {error}");
            ErrorBody::user("core_refused", message)
                .with_help("see with `taskset -p $$` which cores this user's processes may use")
        })
    }
}

/// Other systems tie threads otherwise, or not at all.
#[cfg(not(target_os = "linux"))]
mod system {
    use cryptomind_protocol::ErrorBody;

    pub(super) fn usable() -> Result<Vec<usize>, ErrorBody> {
        let message = "processes are tied to cores on Linux alone";
        Err(ErrorBody::user("cores_unknown", message).with_help("measure groups on Linux"))
    }

    pub(super) fn tie(_: usize) -> Result<(), ErrorBody> {
        usable().map(drop)
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_started_on_a_core_stays_there() {
        let all = usable().unwrap();
        for core in &all {
            let list = || Ok(usable().unwrap());
            assert_eq!(on(*core, list).unwrap(), [*core]);
            let child = || Ok(tokio::process::Command::new("nproc").output());
            let output = on(*core, child).unwrap().await.unwrap();
            assert_eq!(output.stdout, b"1\n");
        }
        assert_eq!(usable().unwrap(), all, "the caller may use what it could");
    }
}
