//! Where tasks are stored: runs, the events, commitments, evidence and statistics that they left, and what control tasks are about.

use cryptomind_core::control::ControlRecord;
use cryptomind_core::journal::{CommitmentsRecord, EventRecord, OpenRun};
use cryptomind_core::market::waits::WaitRecord;
use cryptomind_core::run::{MAX_KEPT, Run};
use cryptomind_protocol::api::RunKey;
use cryptomind_protocol::rating::EvidenceRecord;
use cryptomind_protocol::speed::RunStatistic;
use cryptomind_protocol::{NodeId, TaskId};

use crate::state::{Batch, Record};

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

/// Keeps what a member signed, in place of its oldest where [`MAX_KEPT`] are there.
pub fn keep_commitments(batch: &mut Batch, record: &CommitmentsRecord) {
    if let Some(oldest) = record.number.checked_sub(MAX_KEPT) {
        let key = commitments_key(&record.task, &record.node, oldest);
        batch.delete::<CommitmentsRecord>(&key);
    }
    batch.put(record);
}

/// A task's commitments by member, each one's in order of their numbers.
fn commitments_key(task: &TaskId, node: &NodeId, number: u64) -> Vec<u8> {
    let mut key = task.as_bytes().to_vec();
    key.extend_from_slice(node.as_bytes());
    key.extend_from_slice(&number.to_be_bytes());
    key
}

impl Record for CommitmentsRecord {
    const TABLE: &'static str = "commitments/1";

    fn key(&self) -> Vec<u8> {
        commitments_key(&self.task, &self.node, self.number)
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

#[cfg(test)]
mod tests {
    use cryptomind_protocol::{PublicKey, Signature, Signed};

    use super::*;
    use crate::state::StateStore;

    fn record(node: u8, number: u64) -> CommitmentsRecord {
        CommitmentsRecord {
            task: TaskId::new([1; 16]),
            node: NodeId::new([node; 32]),
            number,
            commitments: Signed {
                payload: vec![node],
                signer: PublicKey::new([node; 32]),
                signature: Signature::new([0; 64]),
            },
        }
    }

    #[test]
    fn of_each_member_the_newest_commitments_are_kept_in_their_order() {
        let store = StateStore::in_memory().unwrap();
        let mut batch = Batch::new();
        for number in 0..MAX_KEPT + 3 {
            keep_commitments(&mut batch, &record(1, number));
        }
        keep_commitments(&mut batch, &record(2, 0));
        store.commit(batch).wait().unwrap();
        let kept: Vec<CommitmentsRecord> = store.load().unwrap();
        let (of_one, of_other) = kept.split_at(MAX_KEPT as usize);
        assert!(of_one.iter().map(|kept| kept.number).eq(3..MAX_KEPT + 3));
        assert_eq!(of_other, [record(2, 0)]);
    }
}
