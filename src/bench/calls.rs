//! The control calls of a load: how long each took from when it was *due*, by kind.
//!
//! Calls are made by a schedule, or at once when something asks for them; none waits for the answer of another that does
//! not need it. So a coordinator that falls behind is seen by every call that it holds up, and not by one
//! (coordinated omission: Tene, 2013).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use cryptomind_protocol::ErrorBody;
use serde::Serialize;

use super::latency::{Latencies, micros};

/// What is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Call {
    /// A client posts a task: signed, its hold opened, durable.
    Post,
    /// A client looks at its task.
    Get,
    /// A client cancels its task: signed, its hold settled, durable.
    Cancel,
    /// A miner offers itself for a task, or declines.
    Offer,
    /// A matched miner says that it is ready.
    Ready,
    /// A miner says that it is there.
    Heartbeat,
}

/// What all calls came to; clones note in the same place.
#[derive(Debug, Clone, Default)]
pub struct Calls(Arc<Mutex<Noted>>);

#[derive(Debug, Default)]
struct Noted {
    /// What is due before is not measured: the load is still being built up.
    from: Option<Instant>,
    micros: BTreeMap<Call, Vec<u32>>,
    failed: u64,
    first_failure: Option<ErrorBody>,
}

/// How long calls of one kind, or of all, took.
#[derive(Debug, Clone, Serialize)]
pub struct Took {
    /// How many there were.
    pub count: usize,
    /// Half of them within this, milliseconds.
    pub p50_ms: Option<f64>,
    /// 99 of 100 within this.
    pub p99_ms: Option<f64>,
    /// The slowest.
    pub max_ms: Option<f64>,
}

/// What was noted.
#[derive(Debug)]
pub struct Summary {
    /// All calls.
    pub all: Took,
    /// By kind.
    pub by_kind: BTreeMap<Call, Took>,
    /// Calls that were refused or not answered; they are counted above too.
    pub failed: u64,
    /// What the first of these was told.
    pub first_failure: Option<ErrorBody>,
}

impl Took {
    fn of(micros: Vec<u32>) -> Self {
        let count = micros.len();
        let latencies = Latencies::new(micros);
        let of = |percent| latencies.percentile_ms(percent);
        Self {
            count,
            p50_ms: of(50),
            p99_ms: of(99),
            max_ms: of(100),
        }
    }
}

impl Calls {
    fn noted(&self) -> MutexGuard<'_, Noted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on calls are measured.
    pub fn begin(&self) {
        self.noted().from = Some(Instant::now());
    }

    /// A call that was due then has just been answered.
    pub fn note<T>(&self, call: Call, due: Instant, answer: &Result<T, ErrorBody>) {
        let took = micros(due.elapsed());
        let mut noted = self.noted();
        if noted.from.is_none_or(|from| due < from) {
            return;
        }
        noted.micros.entry(call).or_default().push(took);
        if let Err(error) = answer {
            noted.failed += 1;
            noted.first_failure.get_or_insert_with(|| error.clone());
        }
    }

    /// What was noted so far.
    pub fn summary(&self) -> Summary {
        let noted = self.noted();
        let all = noted.micros.values().flatten().copied().collect();
        let by_kind = noted.micros.iter();
        Summary {
            all: Took::of(all),
            by_kind: by_kind
                .map(|(call, m)| (*call, Took::of(m.clone())))
                .collect(),
            failed: noted.failed,
            first_failure: noted.first_failure.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn only_what_is_due_while_it_is_measured_counts() {
        let (calls, early) = (Calls::default(), Instant::now());
        calls.note(Call::Get, early, &Ok(()));
        calls.begin();
        calls.note(Call::Get, early, &Ok(()));
        assert_eq!(calls.summary().all.count, 0);
        calls.note(Call::Get, Instant::now(), &Ok(()));
        let slow = Instant::now();
        // A call that takes its time: nothing is waited for.
        std::thread::sleep(Duration::from_millis(3));
        calls.note(Call::Post, slow, &Err::<(), _>(ErrorBody::internal("no")));
        let summary = calls.summary();
        assert_eq!((summary.all.count, summary.failed), (2, 1));
        assert!(summary.by_kind[&Call::Post].p99_ms.unwrap() >= 3.0);
        assert_eq!(summary.by_kind[&Call::Get].count, 1);
        assert_eq!(summary.first_failure.unwrap().message, "no");
    }
}
