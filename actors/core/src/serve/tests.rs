//! Each acknowledgement that must not count is refused by its name; a client that never signs gets a window and no more.

use cryptomind_protocol::SecretKey;
use proptest::prelude::*;

use super::*;

const NETWORK: GenesisHash = GenesisHash::new([1; 32]);
const TASK: TaskId = TaskId::new([2; 16]);

fn client() -> SecretKey {
    SecretKey::from_seed([3; 32])
}

fn said(samples: u64) -> Acknowledgement {
    Acknowledgement {
        version: VERSION,
        task: TASK,
        attempt: 2,
        samples,
        last: false,
    }
}

fn shown(acknowledgement: Acknowledgement, key: &SecretKey) -> Shown {
    open(&Signed::sign(&acknowledgement, &NETWORK, key), &NETWORK).unwrap()
}

fn bounds() -> Bounds {
    Bounds {
        task: TASK,
        attempt: 2,
        caller: client().public(),
        acknowledged: 10,
        most: 20,
    }
}

#[test]
fn what_does_not_count_is_refused_by_name() {
    let judge = |said, key: &SecretKey| bounds().judge(&shown(said, key));
    let refused = |said| ErrorBody::from(judge(said, &client()).unwrap_err());
    assert_eq!(judge(said(20), &client()), Ok(said(20)));
    assert_eq!(judge(said(10), &client()), Ok(said(10)), "known already");
    assert_eq!(refused(said(9)).code, "acknowledgement_lower");
    assert_eq!(refused(said(21)).code, "acknowledgement_too_high");
    assert_eq!(refused(said(u64::MAX)).code, "acknowledgement_too_high");
    let task = TaskId::new([9; 16]);
    let other = Acknowledgement { task, ..said(15) };
    assert_eq!(refused(other).code, "acknowledgement_of_another_task");
    for attempt in [1, 3] {
        let other = Acknowledgement {
            attempt,
            ..said(15)
        };
        assert_eq!(refused(other).code, "acknowledgement_of_another_attempt");
    }
    let stranger = judge(said(15), &SecretKey::from_seed([4; 32]));
    assert_eq!(stranger, Err(Refusal::NotTheClient));
    let error = ErrorBody::from(Refusal::NotTheClient);
    assert_eq!(error.class, ErrorClass::Auth);
    assert!(error.help.is_some());
}

#[test]
fn forged_bytes_are_no_acknowledgement() {
    let signed = Signed::sign(&said(15), &NETWORK, &client());
    let mut changed = signed.clone();
    let last = changed.payload.len() - 1;
    changed.payload[last] ^= 1;
    for (signed, network) in [
        (changed, NETWORK),
        (signed.clone(), GenesisHash::new([8; 32])),
        (
            Signed {
                signer: SecretKey::from_seed([4; 32]).public(),
                ..signed
            },
            NETWORK,
        ),
    ] {
        let refusal = open(&signed, &network).unwrap_err();
        assert_eq!(ErrorBody::from(refusal).code, "acknowledgement_forged");
    }
    let next = Acknowledgement {
        version: VERSION + 1,
        ..said(15)
    };
    let refusal = open(&Signed::sign(&next, &NETWORK, &client()), &NETWORK);
    assert_eq!(refusal, Err(Refusal::Version(VERSION + 1)));
}

fn tally() -> Tally {
    Tally::new(TASK, 2, client().public(), 10, 1_000)
}

#[test]
fn a_client_that_never_acknowledges_gets_a_window() {
    let mut tally = tally();
    let mut got = 0;
    while tally.admit(3).is_ok() {
        got += 3;
    }
    assert_eq!(got, 63);
    assert_eq!(tally.admit(2), Err(Refusal::Unacknowledged { open: 65 }));
    assert_eq!(tally.acknowledge(&shown(said(73), &client())), Ok(63));
    assert_eq!(tally.admit(2), Ok(()));
    assert_eq!(tally.admit(0), Err(Refusal::CallSize(0)));
    assert_eq!(tally.admit(65), Err(Refusal::CallSize(65)));
}

#[test]
fn what_was_not_answered_is_not_acknowledged_and_not_counted() {
    let mut tally = tally();
    tally.admit(5).unwrap();
    tally.give_back(5);
    let ahead = tally.acknowledge(&shown(said(15), &client()));
    assert_eq!(ahead, Err(Refusal::TooMany { said: 15, most: 10 }));
    tally.admit(5).unwrap();
    tally.acknowledge(&shown(said(15), &client())).unwrap();
    tally.give_back(5);
    assert_eq!(tally.acknowledged(), 15, "what is acknowledged stays");
}

#[test]
fn no_more_is_served_than_is_paid_for() {
    let mut tally = Tally::new(TASK, 2, client().public(), 990, 1_000);
    assert_eq!(tally.admit(11), Err(Refusal::Exhausted { left: 10 }));
    tally.admit(10).unwrap();
    assert_eq!(tally.admit(1), Err(Refusal::Exhausted { left: 0 }));
}

proptest! {
    /// Against counting one by one: calls, failed calls and acknowledgements in any order.
    #[test]
    fn the_tally_agrees_with_counting(steps in proptest::collection::vec((0u8..3, 0u64..80), 1..200)) {
        let mut tally = tally();
        let (mut served, mut acknowledged) = (10u64, 10u64);
        for (what, n) in steps {
            match what {
                0 => {
                    let fits = (1..=64).contains(&n)
                        && served + n - acknowledged <= 64
                        && served + n <= 1_000;
                    prop_assert_eq!(tally.admit(n as u32).is_ok(), fits);
                    served += if fits { n } else { 0 };
                }
                1 => {
                    let samples = acknowledged + n - n.min(5);
                    let counts = (acknowledged..=served).contains(&samples);
                    let news = tally.acknowledge(&shown(said(samples), &client()));
                    prop_assert_eq!(news.ok(), counts.then(|| samples - acknowledged));
                    acknowledged = if counts { samples } else { acknowledged };
                }
                _ => {
                    let n = n.min(served - acknowledged);
                    tally.give_back(n as u32);
                    served -= n;
                }
            }
            prop_assert_eq!(tally.acknowledged(), acknowledged);
            prop_assert!(served - acknowledged <= MAX_UNACKNOWLEDGED_SAMPLES);
        }
    }
}
