//! The coordinator's records.

use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};

use cryptomind_storage::StoreError;
use cryptomind_storage::state::{Batch, OnFailure, Record, StateStore, after_prefix};
use proptest::prelude::*;
use serde::{Deserialize, Serialize};

use crate::backend::{Fault, Plan, PlannedBackend};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Note {
    number: u64,
    text: String,
}

impl Record for Note {
    const TABLE: &'static str = "notes/1";
    fn key(&self) -> Vec<u8> {
        self.number.to_be_bytes().into()
    }
}

/// Another form in the same table: what a careless change of a record would be.
#[derive(Debug, Serialize, Deserialize)]
struct OtherForm {
    colour: u8,
}

impl Record for OtherForm {
    const TABLE: &'static str = Note::TABLE;
    fn key(&self) -> Vec<u8> {
        vec![self.colour]
    }
}

fn note(number: u64) -> Note {
    Note {
        number,
        text: format!("note {number}"),
    }
}

fn put(number: u64) -> Batch {
    let mut batch = Batch::new();
    batch.put(&note(number));
    batch
}

fn numbers(store: &StateStore) -> Vec<u64> {
    let notes = store.load::<Note>().unwrap();
    notes.iter().map(|note| note.number).collect()
}

fn planned() -> (StateStore, Arc<Plan>) {
    let (backend, plan) = PlannedBackend::new();
    let store = StateStore::with_backend(backend, OnFailure::abort()).unwrap();
    (store, plan)
}

#[test]
fn records_are_there_after_a_reopen() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.redb");
    let store = StateStore::open(&path).unwrap();
    let mut batch = put(2);
    batch.put(&note(1));
    batch.put(&note(3));
    batch.delete::<Note>(&note(3).key());
    store.commit(batch).wait().unwrap();
    drop(store);
    let store = StateStore::open(&path).unwrap();
    assert_eq!(store.load::<Note>().unwrap(), [note(1), note(2)]);
    assert_eq!(store.get(&note(2).key()).unwrap(), Some(note(2)));
    assert_eq!(store.get::<Note>(&note(3).key()).unwrap(), None);
}

#[test]
fn an_empty_store_has_nothing_and_is_no_error() {
    let store = StateStore::in_memory().unwrap();
    assert_eq!(store.get::<Note>(b"x").unwrap(), None);
    assert_eq!(store.load::<Note>().unwrap(), []);
    assert_eq!(store.range::<Note>(b"a", b"b", 9, true).unwrap(), []);
}

#[test]
fn what_was_handed_in_is_written_though_nobody_waits() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.redb");
    let store = StateStore::open(&path).unwrap();
    for number in 0..50 {
        drop(store.commit(put(number)));
    }
    drop(store);
    let store = StateStore::open(&path).unwrap();
    assert_eq!(numbers(&store), (0..50).collect::<Vec<_>>());
}

#[test]
fn ranges_are_cut_on_both_sides_and_read_either_way() {
    let store = StateStore::in_memory().unwrap();
    let mut batch = Batch::new();
    (0..10).for_each(|number| batch.extend(put(number)));
    store.commit(batch).wait().unwrap();
    let key = |number: u64| number.to_be_bytes();
    let range = |from: &[u8], to: &[u8], limit, newest_first| {
        let notes = store.range::<Note>(from, to, limit, newest_first).unwrap();
        notes.iter().map(|note| note.number).collect::<Vec<_>>()
    };
    assert_eq!(range(&key(3), &key(6), 9, false), [3, 4, 5]);
    assert_eq!(range(&key(3), &key(6), 2, false), [3, 4]);
    assert_eq!(range(&key(3), &key(6), 2, true), [5, 4]);
    assert_eq!(range(&[], &[], 3, true), [9, 8, 7]);
    assert_eq!(range(&key(6), &key(3), 9, false), []);
    assert_eq!(range(&key(3), &key(3), 9, false), []);
    assert_eq!(range(&key(0), &key(9), 0, false), []);
}

#[test]
fn the_end_of_a_prefix_is_the_next_key_without_it() {
    assert_eq!(after_prefix(b"ab"), b"ac");
    assert_eq!(after_prefix(&[7, 0xff, 0xff]), [8]);
    // Nothing comes after it, and an empty end means just that.
    assert_eq!(after_prefix(&[0xff]), b"");
    assert_eq!(after_prefix(b""), b"");
}

#[test]
fn batches_that_wait_share_a_transaction() {
    let (store, plan) = planned();
    plan.hold();
    let first = store.commit(put(0));
    plan.wait_until_held();
    let waiting = (1..100).map(|number| store.commit(put(number)));
    let waiting = waiting.collect::<Vec<_>>();
    plan.release();
    first.wait().unwrap();
    waiting
        .into_iter()
        .for_each(|commit| commit.wait().unwrap());
    assert_eq!(store.transactions(), 2);
    assert_eq!(numbers(&store), (0..100).collect::<Vec<_>>());
}

#[test]
fn batches_of_a_group_keep_their_order() {
    let (store, plan) = planned();
    plan.hold();
    drop(store.commit(put(0)));
    plan.wait_until_held();
    let text = |text: &str| {
        let mut batch = Batch::new();
        let (number, text) = (7, text.into());
        batch.put(&Note { number, text });
        batch
    };
    drop(store.commit(text("first")));
    let mut gone = Batch::new();
    gone.delete::<Note>(&note(7).key());
    drop(store.commit(gone));
    drop(store.commit(text("second")));
    let last = store.commit(text("third"));
    plan.release();
    last.wait().unwrap();
    let found = store.get::<Note>(&note(7).key()).unwrap().unwrap();
    assert_eq!(found.text, "third");
}

#[test]
fn nothing_is_acknowledged_or_read_before_the_sync() {
    let (store, plan) = planned();
    plan.hold();
    let mut commit = store.commit(put(1));
    plan.wait_until_held();
    assert!(poll(&mut commit, &Arc::default()).is_pending());
    assert_eq!(numbers(&store), []);
    plan.release();
    commit.wait().unwrap();
    assert_eq!(numbers(&store), [1]);
}

#[test]
fn an_empty_batch_waits_for_those_before_it_and_writes_nothing() {
    let (store, plan) = planned();
    plan.hold();
    drop(store.commit(put(1)));
    plan.wait_until_held();
    let empty = store.commit(Batch::new());
    plan.release();
    empty.wait().unwrap();
    assert_eq!(numbers(&store), [1]);
    assert_eq!(store.transactions(), 1);
}

#[derive(Default)]
struct Count(AtomicUsize, Mutex<Option<std::thread::Thread>>);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
        if let Some(thread) = self.1.lock().unwrap().as_ref() {
            thread.unpark();
        }
    }
}

fn poll<F: Future + Unpin>(future: &mut F, count: &Arc<Count>) -> Poll<F::Output> {
    let waker = Waker::from(Arc::clone(count));
    std::pin::pin!(future).poll(&mut Context::from_waker(&waker))
}

#[test]
fn a_commit_wakes_the_task_that_awaits_it() {
    let (store, plan) = planned();
    plan.hold();
    let mut commit = store.commit(put(1));
    plan.wait_until_held();
    let count = Arc::<Count>::default();
    *count.1.lock().unwrap() = Some(std::thread::current());
    assert!(poll(&mut commit, &count).is_pending());
    plan.release();
    while count.0.load(Ordering::SeqCst) == 0 {
        std::thread::park();
    }
    assert!(matches!(poll(&mut commit, &count), Poll::Ready(Ok(()))));
}

/// A store whose disk goes wrong, and what its hook saw.
fn broken(fault: Fault) -> (StateStore, Arc<Plan>, Arc<Mutex<Vec<String>>>) {
    let (backend, plan) = PlannedBackend::new();
    let seen = Arc::<Mutex<Vec<String>>>::default();
    let hook = Arc::clone(&seen);
    let on_failure = OnFailure::call(move |error| hook.lock().unwrap().push(error.to_string()));
    let store = StateStore::with_backend(backend, on_failure).unwrap();
    store.commit(put(1)).wait().unwrap();
    plan.hold();
    plan.break_down(fault);
    (store, plan, seen)
}

#[test]
fn a_disk_that_fails_stops_the_store() {
    for fault in [Fault::Error, Fault::Panic] {
        let (store, plan, seen) = broken(fault);
        let first = store.commit(put(2));
        plan.wait_until_held();
        let second = store.commit(put(3));
        plan.release();
        for commit in [first, second, store.commit(put(4))] {
            let refusal = commit.wait().unwrap_err();
            assert!(matches!(refusal, StoreError::Stopped { .. }), "{refusal}");
        }
        assert_eq!(seen.lock().unwrap().len(), 1, "the hook is called once");
        assert_eq!(numbers(&store), [1]);
    }
}

#[test]
fn a_full_queue_makes_its_users_wait() {
    let (store, plan) = planned();
    plan.hold();
    drop(store.commit(put(0)));
    plan.wait_until_held();
    for number in 1..=StateStore::MAX_WAITING_BATCHES as u64 {
        drop(store.commit(put(number)));
    }
    let (sender, receiver) = std::sync::mpsc::channel();
    let other = store.clone();
    let late = std::thread::spawn(move || {
        let commit = other.commit(put(u64::MAX));
        sender.send(()).unwrap();
        commit.wait().unwrap();
    });
    assert!(receiver.try_recv().is_err(), "it cannot be through yet");
    plan.release();
    late.join().unwrap();
    assert_eq!(numbers(&store).len(), StateStore::MAX_WAITING_BATCHES + 2);
    assert_eq!(store.transactions(), 3);
}

#[test]
fn a_record_of_another_form_is_an_error_that_names_it() {
    let store = StateStore::in_memory().unwrap();
    let mut batch = Batch::new();
    batch.put(&OtherForm { colour: 0xa7 });
    store.commit(batch).wait().unwrap();
    let refusal = store.load::<Note>().unwrap_err().to_string();
    assert!(
        refusal.contains("notes/1") && refusal.contains("a7"),
        "{refusal}"
    );
}

#[test]
fn a_file_that_is_open_is_opened_by_nobody_else() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.redb");
    let store = StateStore::open(&path).unwrap();
    store.commit(put(1)).wait().unwrap();
    let refused = StateStore::open(&path).unwrap_err();
    assert!(refused.is_in_use(), "{refused}");
    store.commit(put(2)).wait().unwrap();
    drop(store);
    assert_eq!(numbers(&StateStore::open(&path).unwrap()), [1, 2]);
    std::fs::write(&path, "no database").unwrap();
    assert!(!StateStore::open(&path).unwrap_err().is_in_use());
}

#[test]
fn a_file_that_is_damaged_or_not_ours_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.redb");
    std::fs::write(&path, vec![7; 10_000]).unwrap();
    assert!(matches!(
        StateStore::open(&path),
        Err(StoreError::Open { .. })
    ));
    std::fs::remove_file(&path).unwrap();
    let store = StateStore::open(&path).unwrap();
    assert!(
        matches!(StateStore::open(&path), Err(StoreError::Open { .. })),
        "one process at a time"
    );
    let text = "a text that is easily found again".to_owned();
    let mut batch = Batch::new();
    batch.put(&Note {
        number: 1,
        text: text.clone(),
    });
    store.commit(batch).wait().unwrap();
    drop(store);
    let mut bytes = std::fs::read(&path).unwrap();
    let places = bytes.windows(text.len()).enumerate();
    let places = places.filter(|(_, window)| *window == text.as_bytes());
    let places = places.map(|(at, _)| at).collect::<Vec<_>>();
    assert!(!places.is_empty());
    places.into_iter().for_each(|at| bytes[at] ^= 1);
    std::fs::write(&path, bytes).unwrap();
    assert!(matches!(
        StateStore::open(&path),
        Err(StoreError::Open { .. })
    ));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever the batches are and however they fall into groups, the store is what a map would be.
    #[test]
    fn a_store_is_a_map(
        batches in prop::collection::vec(
            prop::collection::vec((0..12u64, prop::option::of("[a-z]{0,9}")), 0..6), 0..30),
    ) {
        let store = StateStore::in_memory().unwrap();
        let mut model = std::collections::BTreeMap::new();
        let mut commits = Vec::new();
        for changes in batches {
            let mut batch = Batch::new();
            for (number, text) in changes {
                match text {
                    Some(text) => {
                        batch.put(&Note { number, text: text.clone() });
                        model.insert(number, text);
                    }
                    None => {
                        batch.delete::<Note>(&number.to_be_bytes());
                        model.remove(&number);
                    }
                }
            }
            commits.push(store.commit(batch));
        }
        for commit in commits {
            commit.wait().unwrap();
        }
        let model = model.into_iter().map(|(number, text)| Note { number, text });
        prop_assert_eq!(store.load::<Note>().unwrap(), model.collect::<Vec<_>>());
    }
}

/// A record in parts of ten bytes, and the same rows one by one.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Scroll {
    number: u8,
    text: String,
}

impl Record for Scroll {
    const TABLE: &'static str = "scrolls/1";
    const PART_BYTES: usize = 10;

    fn key(&self) -> Vec<u8> {
        vec![self.number]
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Part(Vec<u8>, Vec<u8>);

impl Record for Part {
    const TABLE: &'static str = "scrolls/1";

    fn key(&self) -> Vec<u8> {
        self.0.clone()
    }

    fn value(&self) -> Vec<u8> {
        self.1.clone()
    }

    fn read(key: &[u8], value: &[u8]) -> Result<Self, cryptomind_protocol::codec::DecodeError> {
        Ok(Self(key.to_vec(), value.to_vec()))
    }
}

#[test]
fn records_in_parts_come_back_whole_or_not_at_all() {
    let store = StateStore::in_memory().unwrap();
    let scroll = |number: u8| Scroll {
        number,
        text: "text ".repeat(number.into()),
    };
    let mut batch = Batch::new();
    (1..=9).for_each(|number| batch.put(&scroll(number)));
    store.commit(batch).wait().unwrap();
    assert_eq!(
        store.load::<Scroll>().unwrap(),
        (1..=9).map(scroll).collect::<Vec<_>>()
    );
    let newest = store.range::<Scroll>(&[2], &[9], 3, true).unwrap();
    assert_eq!(newest, [8, 7, 6].map(scroll));
    assert_eq!(store.get::<Scroll>(&[5]).unwrap(), Some(scroll(5)));
    assert_eq!(store.get::<Scroll>(&[10]).unwrap(), None);
    let parts = store.range::<Part>(&[5], &[6], usize::MAX, false).unwrap();
    assert!(parts.len() > 3);
    for part in &parts {
        let (mut without, mut back) = (Batch::new(), Batch::new());
        without.delete::<Part>(&part.0);
        store.commit(without).wait().unwrap();
        assert!(store.get::<Scroll>(&[5]).is_err(), "{part:?} is missing");
        back.put(part);
        store.commit(back).wait().unwrap();
        assert_eq!(store.get::<Scroll>(&[5]).unwrap(), Some(scroll(5)));
    }
}
