//! Ten thousand settlements that come twice, late and in any order: none is paid twice, none is missing.

use super::*;

const TASKS: u64 = 10_000;

/// A fixed sequence without a pattern (the constants of Knuth's MMIX).
struct Sequence(u64);

impl Sequence {
    fn below(&mut self, limit: u64) -> u64 {
        let next = self.0.wrapping_mul(6_364_136_223_846_793_005);
        self.0 = next.wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

fn numbered(number: u64) -> TaskId {
    TaskId::new(u128::from(number).to_be_bytes())
}

#[test]
fn settlements_that_come_twice_and_in_any_order_pay_once() {
    let mut l = ledger();
    for number in 0..TASKS {
        let opened = Op::OpenHold {
            task: numbered(number),
            payer: account(99),
            amount: units(20),
            terms: terms(20),
        };
        let earned = Op::Earn {
            task: numbered(number),
            checkpoint: 1,
            shares: vec![share(3, 1 + number % 20)],
        };
        l.apply([opened, earned], NOW).unwrap();
    }
    l.check_invariants().unwrap();

    let mut sequence = Sequence(7);
    let again: Vec<u64> = (0..TASKS * 3 / 10).map(|_| sequence.below(TASKS)).collect();
    let mut messages: Vec<u64> = (0..TASKS).chain(again).collect();
    for place in (1..messages.len()).rev() {
        messages.swap(place, sequence.below(place as u64 + 1) as usize);
    }
    let (mut paid, mut repeated) = (0, 0);
    for number in messages {
        let task = numbered(number);
        let ending = Ending::default();
        match l.apply([Op::Settle { task, ending }], NOW) {
            Ok(changes) => paid += changes.transfers[0].amount.base_units(),
            Err(refusal) => {
                assert_eq!(refusal, Refusal::HoldNotOpen(task));
                repeated += 1;
            }
        }
    }
    l.check_invariants().unwrap();
    let due: u64 = (0..TASKS).map(|number| 1 + number % 20).sum();
    assert_eq!((paid, repeated), (due, TASKS * 3 / 10));
    assert_eq!(available(&l, 3), due);
    assert_eq!((l.held(), l.hold_count()), (Amount::ZERO, 0));
}
