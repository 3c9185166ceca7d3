//! Where tasks are stored: runs, and the events and evidence that they left.

use cryptomind_core::journal::{EventRecord, EvidenceRecord, OpenRun};
use cryptomind_core::run::Run;
use cryptomind_protocol::TaskId;

use crate::state::Record;

impl Record for Run {
    const TABLE: &'static str = "runs/1";

    fn key(&self) -> Vec<u8> {
        self.task.as_bytes().to_vec()
    }
}

impl Record for OpenRun {
    const TABLE: &'static str = "open_runs/1";

    fn key(&self) -> Vec<u8> {
        self.task.as_bytes().to_vec()
    }
}

/// A task's records in order of their numbers.
pub fn numbered_key(task: &TaskId, number: u64) -> Vec<u8> {
    let mut key = task.as_bytes().to_vec();
    key.extend_from_slice(&number.to_be_bytes());
    key
}

impl Record for EventRecord {
    const TABLE: &'static str = "events/1";

    fn key(&self) -> Vec<u8> {
        numbered_key(&self.task, self.number)
    }
}

impl Record for EvidenceRecord {
    const TABLE: &'static str = "evidence/1";

    fn key(&self) -> Vec<u8> {
        numbered_key(&self.task, self.number)
    }
}
