//! The threads that a session or a model computes on.
//!
//! A pass is a hundred short kernels. Called from outside of a pool, each of them wakes a worker, and the caller sleeps
//! until it is done; a pass that runs on a worker keeps that one awake, which makes a step of a small model 15 % faster
//! here. The pool is its owner's alone: a worker that waits takes other work of its pool, and that of another task may
//! be a whole step.

use std::sync::OnceLock;

use rayon::{ThreadPool, ThreadPoolBuilder};

/// A number of threads, which are started when they are first needed and end with the team.
pub(crate) struct Team {
    threads: usize,
    /// None where the system gives no threads: then kernels divide their work on the process's common pool.
    pool: OnceLock<Option<ThreadPool>>,
}

impl Team {
    /// At most so many threads, at least one.
    pub(crate) fn new(threads: usize) -> Self {
        Self {
            threads: threads.max(1),
            pool: OnceLock::new(),
        }
    }

    /// How many there are.
    pub(crate) fn threads(&self) -> usize {
        self.threads
    }

    /// Runs this on one of them, and what it divides on all. One thread is the caller.
    pub(crate) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        if self.threads == 1 {
            return work();
        }
        match self.pool.get_or_init(|| start(self.threads)) {
            Some(pool) => pool.install(work),
            None => work(),
        }
    }
}

fn start(threads: usize) -> Option<ThreadPool> {
    let named = |index| format!("compute-{index}");
    let pool = ThreadPoolBuilder::new()
        .num_threads(threads)
        .thread_name(named);
    pool.build().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_divided_among_its_own_threads() {
        let here = || std::thread::current().name().map(str::to_owned);
        let team = Team::new(3);
        let (first, threads) = team.run(|| (here(), rayon::current_num_threads()));
        assert_eq!(threads, 3);
        assert!(first.is_some_and(|name| name.starts_with("compute-")));
        assert_eq!(Team::new(0).run(here), here());
        assert_eq!(Team::new(0).threads(), 1);
    }
}
