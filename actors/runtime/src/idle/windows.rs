//! The twin of `idle/unix.rs` for systems without `/proc`, Windows first: not supported yet.
//!
//! A job object would do here what process group, subreaper and `/proc` do there. Until then an idle command is
//! refused plainly rather than run without being seen to end.

use std::io;
use std::path::Path;
use std::time::Duration;

use super::Stopped;

/// Nothing is ever killed.
pub(super) const KILL_LIMIT: Duration = Duration::ZERO;

/// A tree that cannot be.
pub(super) enum Tree {}

impl Tree {
    pub(super) fn spawn(_: &[String], _: io::PipeWriter, _: &Path) -> io::Result<Self> {
        Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "an idle command is supported on Linux only so far; leave [idle] command empty",
        ))
    }

    pub(super) fn root_ended(&mut self) -> bool {
        match *self {}
    }

    pub(super) fn is_gone(&mut self) -> bool {
        match *self {}
    }

    pub(super) fn how_it_ended(&mut self) -> String {
        match *self {}
    }

    pub(super) fn walk(&mut self) -> Vec<i32> {
        match *self {}
    }

    pub(super) fn cpu_ms(&self) -> u64 {
        match *self {}
    }

    pub(super) fn stop(&mut self, _: Duration) -> io::Result<Stopped> {
        match *self {}
    }
}

/// Nothing can have been left.
pub(super) fn sweep(_: &Path, _: Duration) -> io::Result<usize> {
    Ok(0)
}

/// Nothing was written.
pub(super) fn forget(_: &Path) {}
