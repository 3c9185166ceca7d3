//! Whoever is refused, passed over, kept waiting or let go is told why: no reason of the market is empty, and where somebody can do
//! something about it, it says what.
//!
//! [`check`] looks at everything that the simulated market says. The tests look at every kind of refusal that the code has: one
//! that is added does not compile here until it has a sample.

use std::collections::BTreeSet;
use std::fmt::Display;

use cryptomind_core::exposure;
use cryptomind_core::ledger::Refusal;
use cryptomind_core::market::{Advice, Gate, Score, Verdict};
use cryptomind_core::posting::PostingRefusal;
use cryptomind_core::price::PriceError;
use cryptomind_core::rating::StarsError;
use cryptomind_core::run::Effect;
use cryptomind_protocol::rating::Bar;
use cryptomind_protocol::role::Role;
use cryptomind_protocol::task::{Event, TaskError};
use cryptomind_protocol::{AccountId, Amount, ErrorBody, ErrorClass, NodeId, TaskId, Timestamp};

/// Fails where an effect of the market leaves somebody without a reason.
pub(super) fn check(effect: &Effect) {
    match effect {
        Effect::Withdraw { reason, .. }
        | Effect::Stop { reason, .. }
        | Effect::Blame { reason, .. } => said(reason),
        Effect::Tell { event, .. } => told(event),
        _ => {}
    }
}

fn told(event: &Event) {
    match event {
        Event::Waiting { reason }
        | Event::Lost { reason, .. }
        | Event::Left { reason, .. }
        | Event::Settled { reason, .. } => said(reason),
        _ => {}
    }
}

/// A sentence, with words in it.
fn said(reason: impl Display) {
    let reason = reason.to_string();
    let words = reason.split_whitespace().count();
    assert!(words >= 2, "no reason: {reason:?}");
    for hole in ["{", "}", "  ", "Some(", "None"] {
        assert!(!reason.contains(hole), "not for people: {reason:?}");
    }
}

/// A refusal as its caller sees it. What the caller can do something about says what.
fn refused(error: impl Into<ErrorBody>) {
    let error = error.into();
    said(&error.message);
    assert!(
        !error.code.is_empty() && !error.code.contains(' '),
        "{error}"
    );
    if let Some(help) = &error.help {
        said(help);
    }
    if matches!(error.class, ErrorClass::Funds | ErrorClass::Capacity) {
        assert!(error.help.is_some(), "{error}: and now?");
    }
}

macro_rules! every {
    ($values:expr, $($pattern:pat),+ $(,)?) => {{
        let values = $values;
        let seen: BTreeSet<&str> = values.iter().map(|value| match value {
            $($pattern => stringify!($pattern)),+
        }).collect();
        assert_eq!(seen, BTreeSet::from([$(stringify!($pattern)),+]), "every kind has a sample");
        values
    }};
}

const NODE: NodeId = NodeId::new([7; 32]);
const TASK: TaskId = TaskId::new([7; 16]);
const ACCOUNT: AccountId = AccountId::new([7; 20]);

const fn units(units: u64) -> Amount {
    Amount::from_base_units(units)
}

fn gates() -> Vec<Gate> {
    let gates = vec![
        Gate::Offline,
        Gate::Busy,
        Gate::Barred(Bar::Rests {
            failed: 2,
            of: 5,
            until: Timestamp::from_ms(1),
        }),
        Gate::Barred(Bar::Excluded {
            wrong: 3,
            until: Timestamp::from_ms(1),
        }),
        Gate::Barred(Bar::Doubted {}),
        Gate::Exposed(exposure::Refusal::OneAtATime),
        Gate::Exposed(exposure::Refusal::TooLarge {
            worth: units(2),
            most: units(1),
        }),
        Gate::Exposed(exposure::Refusal::TooMuch {
            worth: units(2),
            held: units(1),
            cap: units(2),
        }),
        Gate::StruckOut {
            strikes: 2,
            allowed: 2,
        },
        Gate::Memory {
            needed_bytes: 2,
            has_bytes: 1,
        },
        Gate::Reserve {
            reserve: units(2),
            unit_price: units(1),
        },
        Gate::Rating {
            rating_milli: 3_000,
            floor_milli: 4_000,
        },
        Gate::Cap {
            cost: units(2),
            cap: units(1),
        },
    ];
    every!(
        gates,
        Gate::Offline,
        Gate::Busy,
        Gate::Barred(_),
        Gate::Exposed(_),
        Gate::StruckOut { .. },
        Gate::Memory { .. },
        Gate::Reserve { .. },
        Gate::Rating { .. },
        Gate::Cap { .. },
    )
}

fn verdicts() -> Vec<Verdict> {
    let score = Score {
        compute_ms: 1_000,
        fetch_ms: 200,
        exchange_ms: 300,
        store_ms: 0,
        expected_ms: 1_500,
        low_milli: 3_500,
        price: units(5),
        value: 1.0,
    };
    let verdicts = vec![
        Verdict::Barred(Gate::Busy),
        Verdict::Waits { able: 1, needed: 3 },
        Verdict::Chosen { rank: 0, score },
        Verdict::PassedOver {
            score,
            place_of: NODE,
        },
    ];
    every!(
        verdicts,
        Verdict::Barred(_),
        Verdict::Waits { .. },
        Verdict::Chosen { .. },
        Verdict::PassedOver { .. },
    )
}

fn advice() -> Vec<Advice> {
    let at_least = units(7);
    let advice = vec![
        Advice::Nothing { able: 1 },
        Advice::FewerMiners { able: 1 },
        Advice::LowerRating { best_milli: 2_445 },
        Advice::Rests { resting: 1 },
        Advice::Unproven { unproven: 1 },
        Advice::PayMore {
            at_least,
            per_cu: true,
        },
        Advice::PayMore {
            at_least,
            per_cu: false,
        },
        Advice::LessMemory { most_bytes: 1 },
        Advice::Wait { busy: 1 },
        Advice::NobodyOnline,
    ];
    every!(
        advice,
        Advice::Nothing { .. },
        Advice::FewerMiners { .. },
        Advice::LowerRating { .. },
        Advice::Rests { .. },
        Advice::Unproven { .. },
        Advice::PayMore { .. },
        Advice::LessMemory { .. },
        Advice::Wait { .. },
        Advice::NobodyOnline,
    )
}

/// Why somebody is not chosen, and what a client could change.
#[test]
fn every_verdict_and_every_advice_is_a_sentence() {
    gates().into_iter().for_each(said);
    verdicts().into_iter().for_each(said);
    advice().into_iter().for_each(said);
}

/// Why a task is not taken.
#[test]
fn every_refusal_of_a_task_says_why_and_what_to_do() {
    let postings = vec![
        PostingRefusal::TooManyOpen {
            open: 5,
            allowed: 5,
        },
        PostingRefusal::CancelledTooOften {
            cancels: 4,
            wait_ms: 1_000,
        },
    ];
    let postings = every!(
        postings,
        PostingRefusal::TooManyOpen { .. },
        PostingRefusal::CancelledTooOften { .. },
    );
    postings.into_iter().for_each(refused);
    let prices = vec![
        PriceError::TooLarge,
        PriceError::Misfit {
            field: "model.input",
            reason: "4 values a sample do not fit".into(),
        },
    ];
    let prices = every!(prices, PriceError::TooLarge, PriceError::Misfit { .. });
    prices.into_iter().for_each(refused);
    for miners in [0, u32::MAX] {
        let mut spec = crate::spec(1);
        spec.miners = miners;
        let error: TaskError = spec.check().unwrap_err();
        said(error);
    }
    refused(StarsError(6));
}

/// Why no money moves. Who could do something about it is told what; the rest are faults of the network's.
#[test]
fn every_refusal_of_the_ledger_says_why() {
    let (amount, needed, available) = (units(1), units(2), units(1));
    let refusals = vec![
        Refusal::InsufficientFunds {
            account: ACCOUNT,
            needed,
            available,
        },
        Refusal::NoFaucet,
        Refusal::FaucetEmpty { needed, available },
        Refusal::ZeroAmount,
        Refusal::DustAmount {
            amount,
            least: needed,
        },
        Refusal::SameAccount,
        Refusal::SystemAccount(ACCOUNT),
        Refusal::Unreachable(ACCOUNT),
        Refusal::HoldExists(TASK),
        Refusal::HoldNotOpen(TASK),
        Refusal::TermsExpired(TASK),
        Refusal::CapTooLow {
            task: TASK,
            amount,
            needed,
        },
        Refusal::HoldExceeded {
            task: TASK,
            wanted: needed,
            free: amount,
        },
        Refusal::WithheldTooMuch { ppm: 2, max_ppm: 1 },
        Refusal::TooMany {
            what: "items",
            most: 1,
        },
        Refusal::KeyInUse,
        Refusal::KeyRetired,
        Refusal::TooManyKeys,
        Refusal::RoleNotDelegated(Role::Client),
        Refusal::DelegationExpired(NODE),
        Refusal::TooManyNodes { most: 1 },
        Refusal::NotDelegated(NODE),
        Refusal::MintedTwice,
        Refusal::MintSum(None),
        Refusal::Vesting("team".into()),
        Refusal::Overflow,
    ];
    for refusal in &refusals {
        // A `Broken` is a fault of this software, and only the ledger can make one.
        assert!(!matches!(refusal, Refusal::Broken(_)));
    }
    let codes: BTreeSet<_> = refusals.iter().map(Refusal::code).collect();
    assert_eq!(codes.len(), refusals.len(), "a slug each");
    refusals.into_iter().for_each(refused);
}
