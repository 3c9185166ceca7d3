//! The disk fails at each of its calls in turn: while the store is opened, commits, is closed. It is
//! full, broken, or hiccups once.
//!
//! What was acknowledged is there afterwards, whether the process starts again on the disk as it
//! saw it last or the power went as well; nobody hears of a batch that may not be there, and the
//! store takes no further ones.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use cryptomind_storage::StoreError;
use cryptomind_storage::state::{OnFailure, StateStore};

use crate::backend::{Fault, Plan, PlannedBackend};
use crate::matrix::{Script, in_parts, is_unborn};
use crate::money::Money;
use crate::trace::{Loss, Trace};

/// Steps that the script has, steps that a run commits.
const STEPS: usize = 200;
const RUN: usize = 3;
/// Of so many cuts, one is where a run begins.
const EVERY: usize = 30;
const FAULTS: [Fault; 4] = [Fault::Error, Fault::Once, Fault::NoSpace, Fault::Short];

const LOSSES: [Loss; 4] = [
    Loss::Everything,
    Loss::Subset(3),
    Loss::Torn { unit: 512, seed: 3 },
    Loss::Short(3),
];

/// A run over a disk that fails.
struct Run {
    trace: Trace,
    acknowledged: usize,
    calls: u64,
}

/// Opens the disk, on which the first `found` batches are, commits some more one by one and closes
/// it.
fn run(script: &Script<'_, Money>, image: &[u8], found: usize, fault: Option<(u64, Fault)>) -> Run {
    let (backend, plan) = PlannedBackend::with_image(image.to_vec());
    plan.record();
    if let Some((call, fault)) = fault {
        plan.fail_at(call, fault);
    }
    let failures = Arc::<AtomicUsize>::default();
    let hook = Arc::clone(&failures);
    let on_failure = OnFailure::call(move |_| {
        hook.fetch_add(1, Ordering::SeqCst);
    });
    let acknowledged = match StateStore::with_backend(backend, on_failure) {
        Ok(store) => found + commit_some(script, &store, found, &failures),
        Err(StoreError::Open { .. }) => found,
        Err(other) => panic!("{other}"),
    };
    finish(&plan, image, acknowledged)
}

fn finish(plan: &Plan, image: &[u8], acknowledged: usize) -> Run {
    Run {
        trace: plan.take_trace(image.to_vec()),
        acknowledged,
        calls: plan.calls(),
    }
}

/// How many were acknowledged; after the first that was not, all are refused.
fn commit_some(
    script: &Script<'_, Money>,
    store: &StateStore,
    found: usize,
    failures: &AtomicUsize,
) -> usize {
    let batches = (found..found + RUN).map(|number| script.batch(number));
    let results = batches.map(|batch| store.commit(batch).wait());
    let results = results.collect::<Vec<_>>();
    let good = results.iter().take_while(|result| result.is_ok()).count();
    for result in &results[good..] {
        assert!(matches!(result, Err(StoreError::Stopped { .. })));
    }
    let failed = usize::from(good < RUN);
    assert_eq!(failures.load(Ordering::SeqCst), failed, "the hook");
    good
}

/// Checks what the run left, after a restart of the process and after a power cut.
fn check(script: &Script<'_, Money>, run: &Run, what: &str) {
    let live = run.trace.image();
    if is_unborn(&live) && run.acknowledged == 0 {
        return;
    }
    let found = script.recover(live, run.acknowledged);
    assert!(found.is_ok(), "{what}: {found:?}");
    let cut = run.trace.cuts(run.acknowledged).last().unwrap();
    for (loss, image) in cut.images(&LOSSES) {
        if is_unborn(&image) && run.acknowledged == 0 {
            continue;
        }
        let found = script.examine(image, run.acknowledged);
        assert!(found.is_ok(), "{what}, then {loss:?}: {found:?}");
    }
}

/// Every call of one run fails once in every way; returns how many runs that took.
fn fail_at_every_call(script: &Script<'_, Money>, image: &[u8], found: usize) -> usize {
    let calls = run(script, image, found, None).calls;
    for call in 0..calls {
        for fault in FAULTS {
            let what = format!("{fault:?} at call {call} from batch {found} on");
            check(
                script,
                &run(script, image, found, Some((call, fault))),
                &what,
            );
        }
    }
    calls as usize * FAULTS.len()
}

#[test]
fn a_disk_that_fails_at_any_call_loses_nothing_acknowledged() {
    let script = Script::new(&Money, STEPS);
    let trace = script.record(|disk| disk);
    let runs = in_parts(|part, parts| {
        let cuts = trace.cuts(0).step_by(EVERY).skip(part).step_by(parts);
        let cuts = cuts.filter(|cut| cut.acknowledged + RUN < STEPS);
        let runs = cuts.map(|cut| {
            let image = cut.image(Loss::Everything);
            let found = match image.is_empty() {
                true => 0,
                false => script.examine(image.clone(), cut.acknowledged).unwrap(),
            };
            fail_at_every_call(&script, &image, found)
        });
        runs.sum::<usize>()
    });
    println!("{} runs", runs.into_iter().sum::<usize>());
}
