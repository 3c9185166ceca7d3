//! What this rank says of its steps: gathered until it is worth a signature, which the run gives it.
//!
//! Of each step that it commits in a leg, once. Of a step that it takes up by the others' word, where the group forms anew, it says
//! nothing: those who committed it in the attempt before did.

use std::time::{Duration, Instant};

use cryptomind_protocol::audit::{Commitment, MAX_STEPS};

/// So long after what was gathered before, the next leaves where a step ends; and in any case before a checkpoint.
const EVERY: Duration = Duration::from_secs(1);

/// Consecutive steps of a leg that nobody heard of yet.
pub(super) struct Words {
    first: u64,
    steps: Vec<Commitment>,
    /// When the last ones left.
    since: Instant,
}

impl Words {
    pub(super) fn new() -> Self {
        Self {
            first: 0,
            steps: Vec::new(),
            since: Instant::now(),
        }
    }

    /// Adds what is said of a step: the one after the last one, unless it is the first.
    pub(super) fn add(&mut self, step: u64, commitment: Commitment) {
        if self.steps.is_empty() {
            self.first = step;
        }
        self.steps.push(commitment);
    }

    /// Whether what is gathered should leave.
    pub(super) fn is_due(&self) -> bool {
        self.steps.len() >= MAX_STEPS || self.since.elapsed() >= EVERY
    }

    /// The first step and what is said of it and of those after it; nothing where nothing is gathered.
    pub(super) fn take(&mut self) -> Option<(u64, Vec<Commitment>)> {
        self.since = Instant::now();
        (!self.steps.is_empty()).then(|| (self.first, std::mem::take(&mut self.steps)))
    }
}
