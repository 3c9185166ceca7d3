//! Where tasks are stored: runs, the events, evidence and statistics that they left, and what control tasks are about.

use cryptomind_core::control::ControlRecord;
use cryptomind_core::journal::{EventRecord, OpenRun};
use cryptomind_core::market::waits::WaitRecord;
use cryptomind_core::run::Run;
use cryptomind_protocol::TaskId;
use cryptomind_protocol::api::RunKey;
use cryptomind_protocol::rating::EvidenceRecord;
use cryptomind_protocol::speed::RunStatistic;

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
    const TABLE: &'static str = "evidence/2";

    fn key(&self) -> Vec<u8> {
        numbered_key(&self.task, self.number)
    }
}

impl Record for ControlRecord {
    const TABLE: &'static str = "control/1";

    fn key(&self) -> Vec<u8> {
        self.id.as_bytes().to_vec()
    }
}

/// Statistics in order of time.
pub fn statistic_key(key: &RunKey) -> Vec<u8> {
    let mut bytes = key.at.as_ms().to_be_bytes().to_vec();
    bytes.extend_from_slice(key.task.as_bytes());
    bytes.extend_from_slice(key.node.as_bytes());
    bytes
}

impl Record for RunStatistic {
    const TABLE: &'static str = "statistics/2";

    fn key(&self) -> Vec<u8> {
        statistic_key(&RunKey {
            at: self.at,
            task: self.task,
            node: self.node,
        })
    }
}

impl Record for WaitRecord {
    const TABLE: &'static str = "waits/1";

    fn key(&self) -> Vec<u8> {
        let mut key = self.at.as_ms().to_be_bytes().to_vec();
        key.extend_from_slice(self.task.as_bytes());
        key
    }
}
