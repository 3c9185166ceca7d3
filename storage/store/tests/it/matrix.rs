//! The crash matrix: the power is cut at every sync of a workload, in many ways, and again while
//! the store recovers; what is there then must be right.
//!
//! A [`Script`] is a [`Workload`]'s batches, decided once on a store in memory. It is run once over
//! a recording disk; from the [`Trace`] come the images that power cuts leave ([`crate::trace`]), so
//! nothing is run again. Each image is opened, and then
//!
//! 1. every acknowledged batch is there,
//! 2. what is there is what the first so many batches make, in order, and nothing else,
//! 3. the workload's own invariants hold.
//!
//! One image of each cut also goes on: its recovery, one more commit and the close are recorded in
//! turn, and the power is cut at each of their syncs. What a recovered store has shown is then as
//! good as acknowledged. Everything comes from seeds: a finding names the cut and the loss that
//! make its image again.
//!
//! This knows no workload: to check another, write its [`Workload`] and hand it to [`Script::new`].
//! Another crate's tests can mount this file, `backend.rs` and `trace.rs` by `#[path]`.

use std::collections::HashMap;
use std::future::Future;
use std::ops::{AddAssign, Range};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread;

use cryptomind_storage::StoreError;
use cryptomind_storage::state::{Batch, Commit, OnFailure, StateStore};
use redb::StorageBackend;

use crate::backend::{Plan, PlannedBackend};
use crate::trace::{Cut, Dice, Loss, Trace};

/// What is committed, and how to tell that it is right.
pub trait Workload: Sync {
    /// What step `number` changes, decided on a store that holds the steps before it and no more.
    /// It changes something.
    fn step(&self, store: &StateStore, number: usize) -> Batch;

    /// Stands for all that the store holds, such as a hash of all records: two stores have the same
    /// one only if they hold the same. It differs after every step.
    fn content(&self, store: &StateStore) -> Result<Vec<u8>, String>;

    /// The invariants, on a store that holds the first `steps` steps. The error says what is wrong.
    fn check(&self, store: &StateStore, steps: usize) -> Result<(), String>;
}

/// What is wrong with a store that was opened after a power cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Violation {
    /// It cannot be opened or read.
    Refused(String),
    /// It panics.
    Panicked,
    /// An acknowledged batch is not there.
    Lost { acknowledged: usize, found: usize },
    /// It holds what no number of batches makes.
    Foreign,
    /// The workload's invariants do not hold.
    Broken(String),
    /// It is right, but the next batch does not make what it should.
    Stuck(String),
}

/// A violation and how to see it again.
#[derive(Debug, Clone)]
#[allow(dead_code, reason = "read in a failed test's output")]
pub struct Finding {
    /// The cut and what was lost at it.
    pub first: (usize, Loss),
    /// The cut during recovery and what was lost at that.
    pub second: Option<(usize, Loss)>,
    pub violation: Violation,
}

/// What a matrix has tried and found.
#[derive(Debug, Default)]
pub struct Report {
    /// Cuts of the workload.
    pub cuts: usize,
    /// Different images that they left.
    pub images: usize,
    /// Recoveries that were cut again.
    pub recoveries: usize,
    /// Cuts in these.
    pub second_cuts: usize,
    /// Different images that they left.
    pub second_images: usize,
    /// Images of a file whose creation was cut: nothing was ever committed to it.
    pub unborn: usize,
    pub findings: Vec<Finding>,
}

impl AddAssign for Report {
    fn add_assign(&mut self, other: Self) {
        self.cuts += other.cuts;
        self.images += other.images;
        self.recoveries += other.recoveries;
        self.second_cuts += other.second_cuts;
        self.second_images += other.second_images;
        self.unborn += other.unborn;
        self.findings.extend(other.findings);
    }
}

impl Report {
    /// Fails the test where something was found.
    pub fn expect_none(&self) {
        let some = self.findings.iter().take(9).collect::<Vec<_>>();
        let count = self.findings.len();
        assert!(some.is_empty(), "{count} findings, among them {some:#?}");
    }
}

/// A workload's batches and what the store holds after each.
pub struct Script<'a, W> {
    workload: &'a W,
    batches: Vec<Batch>,
    /// How many batches make this content.
    lengths: HashMap<Vec<u8>, usize>,
}

impl<'a, W: Workload> Script<'a, W> {
    /// Decides `steps` steps on a store in memory.
    pub fn new(workload: &'a W, steps: usize) -> Self {
        let store = StateStore::in_memory().unwrap();
        let mut script = Self {
            workload,
            batches: Vec::new(),
            lengths: HashMap::from([(workload.content(&store).unwrap(), 0)]),
        };
        for number in 0..steps {
            let batch = workload.step(&store, number);
            assert!(!batch.is_empty(), "step {number} changes nothing");
            store.commit(batch.clone()).wait().unwrap();
            script.batches.push(batch);
            let content = workload.content(&store).unwrap();
            let other = script.lengths.insert(content, number + 1);
            assert_eq!(other, None, "step {number} makes what was there before");
        }
        script
    }

    /// Number of batches.
    pub fn len(&self) -> usize {
        self.batches.len()
    }

    /// The batch of a step.
    pub fn batch(&self, number: usize) -> Batch {
        self.batches[number].clone()
    }

    /// Runs all of it over a new disk, behind whatever `wrap` puts before it, and leaves the store
    /// without closing it when the last batch is acknowledged.
    pub fn record<B: StorageBackend>(&self, wrap: impl FnOnce(PlannedBackend) -> B) -> Trace {
        let (backend, plan) = PlannedBackend::new();
        plan.record();
        let store = open(wrap(backend)).unwrap();
        let mut dice = Dice::new(self.len() as u64);
        let mut next = 0;
        while next < self.len() {
            // Some batches come while a transaction is under way and then share the next one.
            let size = if dice.below(4) == 0 {
                2 + dice.below(6)
            } else {
                1
            };
            let end = (next + size).min(self.len());
            self.commit(&store, &plan, next..end).unwrap();
            next = end;
        }
        let trace = plan.take_trace(Vec::new());
        plan.unplug();
        trace
    }

    /// Commits these batches: the first in a transaction, the others in the one after it. Notes in
    /// the record when each was acknowledged, on the thread that does so and before it goes on: so
    /// the record is the same in every run.
    fn commit(
        &self,
        store: &StateStore,
        plan: &Arc<Plan>,
        steps: Range<usize>,
    ) -> Result<(), String> {
        plan.hold();
        let mut commits = Vec::new();
        for number in steps.clone() {
            let mut commit = store.commit(self.batch(number));
            let answer = poll(&mut commit, plan, number + 1);
            commits.push((commit, answer));
            if number + 1 < steps.end {
                // The thread has taken the first alone before the others come.
                plan.wait_until_held();
            }
        }
        plan.release();
        plan.wait_until_acknowledged(steps.end);
        commits.into_iter().try_for_each(|(commit, answer)| {
            let result = match answer {
                Poll::Ready(result) => result,
                Poll::Pending => commit.wait(),
            };
            result.map_err(|error| error.to_string())
        })
    }

    /// Opens what a power cut left and says how many batches are there.
    pub fn examine(&self, image: Vec<u8>, acknowledged: usize) -> Result<usize, Violation> {
        let (backend, plan) = PlannedBackend::with_image(image);
        caught(|| {
            let store = open(backend)?;
            let found = self.found(&store, acknowledged);
            // What closing it writes is of no interest here, and takes as long as all before it.
            plan.unplug();
            found
        })
    }

    /// As [`Self::examine`], commits the next batch as well, closes the store and returns the record
    /// of it all.
    pub fn recover(&self, image: Vec<u8>, acknowledged: usize) -> Result<Trace, Violation> {
        let (backend, plan) = PlannedBackend::with_image(image.clone());
        plan.record();
        caught(|| {
            let store = open(backend)?;
            let found = self.found(&store, acknowledged)?;
            plan.acknowledge(found);
            if found < self.len() {
                self.commit(&store, &plan, found..found + 1)
                    .map_err(Violation::Stuck)?;
                match self.found(&store, found + 1) {
                    Ok(now) if now == found + 1 => {}
                    other => return Err(Violation::Stuck(format!("{other:?}"))),
                }
            }
            Ok(())
        })?;
        Ok(plan.take_trace(image))
    }

    /// How many batches are in the store.
    pub fn found(&self, store: &StateStore, acknowledged: usize) -> Result<usize, Violation> {
        let content = self.workload.content(store).map_err(Violation::Refused)?;
        let found = *self.lengths.get(&content).ok_or(Violation::Foreign)?;
        let is_there = found >= acknowledged;
        is_there.then_some(()).ok_or(Violation::Lost {
            acknowledged,
            found,
        })?;
        let checked = self.workload.check(store, found);
        checked.map_err(Violation::Broken)?;
        Ok(found)
    }

    /// All cuts of the record of a run, each with these losses, and the recovery of one image of
    /// each cut with the second ones.
    pub fn matrix(&self, trace: &Trace, losses: &[Loss], second: &[Loss]) -> Report {
        let mut report = Report::default();
        let parts = in_parts(|part, parts| {
            let mut report = Report::default();
            let cuts = trace.cuts(0).skip(part).step_by(parts);
            cuts.for_each(|cut| report += self.cut(&cut, losses, second));
            report
        });
        parts.into_iter().for_each(|part| report += part);
        report.findings.sort_by_key(|finding| finding.first.0);
        report
    }

    fn cut(&self, cut: &Cut<'_>, losses: &[Loss], second: &[Loss]) -> Report {
        let mut report = Report {
            cuts: 1,
            ..Report::default()
        };
        let images = cut.images(losses).collect::<Vec<_>>();
        let chosen = Dice::new(cut.number as u64).below(images.len());
        for (index, (loss, image)) in images.into_iter().enumerate() {
            report.images += 1;
            if is_unborn(&image) && cut.acknowledged == 0 {
                report.unborn += 1;
                continue;
            }
            let first = (cut.number, loss);
            if index == chosen && !second.is_empty() {
                report += self.cut_again(first, image, cut.acknowledged, second);
            } else if let Err(violation) = self.examine(image, cut.acknowledged) {
                report.findings.push(Finding {
                    first,
                    second: None,
                    violation,
                });
            }
        }
        report
    }

    fn cut_again(
        &self,
        first: (usize, Loss),
        image: Vec<u8>,
        acknowledged: usize,
        losses: &[Loss],
    ) -> Report {
        let mut report = Report::default();
        let finding = |second, violation| Finding {
            first,
            second,
            violation,
        };
        let trace = match self.recover(image, acknowledged) {
            Ok(trace) => trace,
            Err(violation) => {
                report.findings.push(finding(None, violation));
                return report;
            }
        };
        report.recoveries += 1;
        for cut in trace.cuts(acknowledged) {
            report.second_cuts += 1;
            for (loss, image) in cut.images(losses) {
                report.second_images += 1;
                if let Err(violation) = self.examine(image, cut.acknowledged) {
                    let second = Some((cut.number, loss));
                    report.findings.push(finding(second, violation));
                }
            }
        }
        report
    }
}

/// Runs `part` on all processors at once, with the number of the part and how many there are.
pub fn in_parts<T: Send>(part: impl Fn(usize, usize) -> T + Sync) -> Vec<T> {
    let parts = thread::available_parallelism().map_or(1, |count| count.get().min(8));
    let part = &part;
    thread::scope(|scope| {
        let threads = (0..parts).map(|number| scope.spawn(move || part(number, parts)));
        let threads = threads.collect::<Vec<_>>();
        let results = threads.into_iter().map(|thread| thread.join().unwrap());
        results.collect()
    })
}

/// Whether redb never finished making this file: it has no magic number yet.
pub fn is_unborn(image: &[u8]) -> bool {
    !image.starts_with(b"redb")
}

/// A store on this disk which does not end the process when it fails.
fn open(backend: impl StorageBackend) -> Result<StateStore, Violation> {
    let carry_on = OnFailure::call(|_| ());
    StateStore::with_backend(backend, carry_on).map_err(|e| Violation::Refused(e.to_string()))
}

/// A panic is a violation as well.
fn caught<T>(run: impl FnOnce() -> Result<T, Violation>) -> Result<T, Violation> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or(Err(Violation::Panicked))
}

struct Acknowledge(Arc<Plan>, usize);

impl Wake for Acknowledge {
    fn wake(self: Arc<Self>) {
        self.0.acknowledge(self.1);
    }
}

/// Has the answer to this commit noted in the record when it comes. It can be there already only
/// where it is bad.
fn poll(commit: &mut Commit, plan: &Arc<Plan>, count: usize) -> Poll<Result<(), StoreError>> {
    let waker = Waker::from(Arc::new(Acknowledge(Arc::clone(plan), count)));
    let answer = Pin::new(commit).poll(&mut Context::from_waker(&waker));
    if answer.is_ready() {
        plan.acknowledge(count);
    }
    answer
}
