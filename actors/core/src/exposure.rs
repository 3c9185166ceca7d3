//! Exposure: how much paid work that nobody has checked yet an owner may have in its hands.
//!
//! Asked by the matchmaker before a miner is given work. A check finds a wrong answer afterwards; what is given out before
//! that is the network's risk, and this is its bound.
//!
//! ```text
//! any work at all                        worth at most A + W/10
//! newcomers of one place, all together   one work at a time
//! a proven owner, all its nodes          worth at most A · (1 + streak) + W/4, the streak up to 1 ÷ floor
//! ```
//!
//! W is what is withheld of the group at this moment, A the allowance: what the network is ready to lose to somebody of whom
//! it knows nothing. A newcomer is whose streak is below [`PROVEN_STREAK`](crate::check::PROVEN_STREAK). Newcomers count by
//! where they come from, since a thousand keys cost nothing and an address does: a thousand of one owner get what one
//! gets. A [`Place`] may well be shared by strangers; they wait for each other until they are proven, which takes ten right
//! answers.
//!
//! All this follows from the rate of checks ([`check::rate_ppm`](crate::check::rate_ppm)). Work that is worth a tenth of W has
//! nine control tasks to a hundred paid ones. Larger work could be given as safely, but the checks would cost more than it
//! is worth to have it done by somebody with so little to lose; it goes to others. And W is lost once, however many wrong
//! answers there are: who answers n works wrongly at once, each checked with chance p, is found with chance 1 − (1 − p)ⁿ only.
//! With W/4 in hand that is one time in five: 0.2 · W lost, at most 0.225 · W saved, and what a wrong answer costs in rating
//! is more than the difference. The allowance grows with the streak, since one paid task in
//! 1 + s is checked then: an owner that turned false could answer as many wrongly, one after another, before it is
//! expected to be found, and to hold as much at once is no larger a risk.
//!
//! **Is not**: what checks are (`check`), who is best (`market`).

use std::net::IpAddr;

use cryptomind_protocol::{AccountId, Amount};
use serde::{Deserialize, Serialize};

use crate::check::{FLOOR_PPM, is_newcomer};

const ALL_PPM: u32 = 1_000_000;
/// One work is worth at most this part of what is withheld, beside the allowance.
const ONE_OF: u128 = 10;
/// All works together are.
const ALL_OF: u128 = 4;

/// Where a miner comes from: a key that the caller makes of its remote address, such as the first 24 bits of an IPv4 or the
/// first 48 of an IPv6 address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place(pub u64);

impl Place {
    /// Of a remote address: its first 24 bits, or 48 of IPv6.
    pub fn of(remote: IpAddr) -> Self {
        match remote.to_canonical() {
            IpAddr::V4(v4) => Self(u64::from(u32::from(v4) >> 8)),
            // Above all of IPv4.
            IpAddr::V6(v6) => Self((1 << 48) | (u128::from(v6) >> 80) as u64),
        }
    }
}

/// Those that count as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Group {
    /// All newcomers of a place.
    Newcomers(Place),
    /// A proven owner, wherever its nodes are.
    Proven(AccountId),
}

impl Group {
    /// Where an owner with this streak counts, for a node of its at this place.
    pub const fn of(owner: AccountId, streak: u32, place: Place) -> Self {
        if is_newcomer(streak) {
            Self::Newcomers(place)
        } else {
            Self::Proven(owner)
        }
    }
}

/// What a group has in its hands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Holding {
    /// Works, paid ones and checks: to those who wait they are the same.
    pub works: u32,
    /// What they are worth, a check as much as a paid task of its size.
    pub worth: Amount,
    /// What is withheld of all members' earnings at this moment.
    pub withheld: Amount,
}

/// Why a group gets no further work now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// A newcomer of the same place has some.
    #[error(
        "a newcomer from the same place works already: it gets work when that is done, or once ten of its answers \
         in a row were checked and right"
    )]
    OneAtATime,
    /// It is too large.
    #[error(
        "work for {worth} is more than the {most} that anybody gets of whom so little is withheld: with every task \
         that it is paid for, and every right answer, larger ones are open to it"
    )]
    TooLarge {
        /// What it would be given.
        worth: Amount,
        /// The most that it may be given.
        most: Amount,
    },
    /// With what the group has it would be too much.
    #[error(
        "work for {worth} on top of {held} is more than the {cap} that may be unproven in its owner's hands: it gets more \
         when some of that is done"
    )]
    TooMuch {
        /// What it would be given.
        worth: Amount,
        /// What it has.
        held: Amount,
        /// The most that it may have.
        cap: Amount,
    },
}

/// The most that one work may be worth, by what is withheld of the group.
pub fn most(withheld: Amount, allowance: Amount) -> Amount {
    part(withheld, ONE_OF, allowance, 1)
}

/// The most that a group may have in its hands; `streak` is that of the owner that is looked at.
pub fn cap(streak: u32, withheld: Amount, allowance: Amount) -> Amount {
    if is_newcomer(streak) {
        return most(withheld, allowance);
    }
    let times = streak.saturating_add(1).min(ALL_PPM / FLOOR_PPM);
    part(withheld, ALL_OF, allowance, times)
}

/// A part of what is withheld and so many allowances; all there is where that overflows.
fn part(withheld: Amount, of: u128, allowance: Amount, times: u32) -> Amount {
    let part = withheld.mul_div(1, of);
    let allowed = allowance.mul_div(times.into(), 1);
    let sum = part.zip(allowed).and_then(|(a, b)| a.checked_add(b));
    sum.unwrap_or(Amount::from_base_units(u64::MAX))
}

/// Refuses work worth `worth` that would be too much for a group that has this already. A check's worth is what as large a
/// paid task would be worth: what it is must not show in who gets it.
pub fn check(
    streak: u32,
    holding: &Holding,
    worth: Amount,
    allowance: Amount,
) -> Result<(), Refusal> {
    if is_newcomer(streak) && holding.works > 0 {
        return Err(Refusal::OneAtATime);
    }
    let most = most(holding.withheld, allowance);
    if worth > most {
        return Err(Refusal::TooLarge { worth, most });
    }
    let cap = cap(streak, holding.withheld, allowance);
    let held = holding.worth;
    match held.checked_add(worth) {
        Some(sum) if sum <= cap => Ok(()),
        _ => Err(Refusal::TooMuch { worth, held, cap }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const A: Amount = Amount::from_base_units(100);

    fn units(units: u64) -> Amount {
        Amount::from_base_units(units)
    }

    fn holding(works: u32, worth: u64, withheld: u64) -> Holding {
        Holding {
            works,
            worth: units(worth),
            withheld: units(withheld),
        }
    }

    #[test]
    fn a_place_is_a_prefix_of_an_address() {
        let of = |text: &str| Place::of(text.parse().unwrap());
        assert_eq!(of("192.0.2.7"), of("192.0.2.200"));
        assert_eq!(of("192.0.2.7"), of("::ffff:192.0.2.9"));
        assert_ne!(of("192.0.2.7"), of("192.0.3.7"));
        assert_eq!(of("2001:db8:1::1"), of("2001:db8:1:ffff::2"));
        assert_ne!(of("2001:db8:1::1"), of("2001:db8:2::1"));
        assert_ne!(of("::1"), of("0.0.0.1"));
    }

    #[test]
    fn newcomers_of_a_place_count_as_one_and_proven_owners_by_themselves() {
        let [ann, bob] = [1, 2].map(|n| AccountId::new([n; 20]));
        let [here, there] = [Place(1), Place(2)];
        assert_eq!(Group::of(ann, 0, here), Group::of(bob, 9, here));
        assert_ne!(Group::of(ann, 0, here), Group::of(ann, 0, there));
        assert_ne!(Group::of(ann, 10, here), Group::of(bob, 10, here));
        assert_eq!(Group::of(ann, 10, here), Group::of(ann, 11, there));
    }

    #[test]
    fn newcomers_hold_one_work_of_a_small_worth() {
        let refusal = |holding: Holding, worth| check(3, &holding, units(worth), A).err();
        assert_eq!(refusal(holding(0, 0, 0), 100), None);
        assert_eq!(refusal(holding(0, 0, 50), 105), None);
        let too_large = Refusal::TooLarge {
            worth: units(101),
            most: units(100),
        };
        assert_eq!(refusal(holding(0, 0, 0), 101), Some(too_large));
        let waits = Some(Refusal::OneAtATime);
        assert_eq!(refusal(holding(1, 0, 0), 1), waits);
        assert_eq!(refusal(holding(1, 0, 0), 0), waits, "not even a check");
    }

    #[test]
    fn a_proven_owner_holds_as_much_as_it_could_spoil_before_a_check() {
        let refusal = |streak, holding, worth| check(streak, &holding, units(worth), A).err();
        assert_eq!(refusal(10, holding(7, 1_000, 0), 100), None);
        assert!(refusal(10, holding(7, 1_001, 0), 100).is_some());
        assert_eq!(refusal(10, holding(7, 1_000, 400), 140), None);
        assert!(refusal(10, holding(0, 0, 400), 141).is_some());
        assert_eq!(cap(49, Amount::ZERO, A), units(5_000));
        assert_eq!(cap(u32::MAX, Amount::ZERO, A), units(5_000));
        let all = units(u64::MAX);
        assert_eq!(cap(40, all, all), all);
    }

    #[test]
    fn a_refusal_says_why_and_what_lifts_it() {
        let refusal = check(0, &holding(0, 0, 0), units(1_000_000_000), A);
        let text = refusal.unwrap_err().to_string();
        assert!(text.starts_with("work for 1 CTM is more than the 0.0000001 CTM"));
        assert!(text.ends_with("larger ones are open to it"), "{text}");
        let refusal = check(10, &holding(9, 1_100, 0), units(50), A);
        let text = refusal.unwrap_err().to_string();
        assert!(text.ends_with("when some of that is done"), "{text}");
        let text = Refusal::OneAtATime.to_string();
        assert!(text.contains("when that is done, or once ten"), "{text}");
    }

    proptest! {
        /// However work comes and goes, a place with any number of newcomers never holds more than one may.
        #[test]
        fn a_thousand_newcomers_of_a_place_hold_what_one_may(
            asked in prop::collection::vec((0u32..10, 0u64..300, any::<bool>()), 1..200)
        ) {
            let mut held = Holding::default();
            for (streak, worth, ends) in asked {
                if check(streak, &held, units(worth), A).is_ok() {
                    held.works += 1;
                    held.worth = held.worth.checked_add(units(worth)).unwrap();
                }
                prop_assert!(held.works <= 1 && held.worth <= A);
                if ends {
                    held = Holding::default();
                }
            }
        }
    }
}
