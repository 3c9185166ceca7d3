//! How long tasks wait for their miners: what a waiting task is told that this usually takes.
//!
//! Owned by the matchmaker, fed with every [`WaitRecord`]. An answer rests on tasks of the same class and group size; where
//! these are fewer than five, on those of the class; where these are, on all.

use std::collections::VecDeque;

use cryptomind_protocol::price::PriceClass;
use cryptomind_protocol::task::UsualWait;
use cryptomind_protocol::{TaskId, Timestamp};
use serde::{Deserialize, Serialize};

/// Waits that are looked at, the last ones.
pub const MAX_WAITS: usize = 1000;
/// The least that an answer rests on, where more is known of other tasks.
const ENOUGH: usize = 5;

/// How long one task waited, as it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitRecord {
    /// When it was over.
    pub at: Timestamp,
    /// Which task.
    pub task: TaskId,
    /// What it was paid by.
    pub class: PriceClass,
    /// Members of its group.
    pub miners: u32,
    /// From its posting to its first group, milliseconds.
    pub waited_ms: u64,
}

/// The last waits, oldest first.
#[derive(Debug, Clone, Default)]
pub struct Waits(VecDeque<WaitRecord>);

impl Waits {
    /// A task has its group.
    pub fn matched(&mut self, wait: WaitRecord) {
        if self.0.len() >= MAX_WAITS {
            self.0.pop_front();
        }
        self.0.push_back(wait);
    }

    /// How long tasks of this class with so many members waited. Nothing where none ever did.
    pub fn usual(&self, class: PriceClass, miners: u32) -> Option<UsualWait> {
        let like = |wanted: &dyn Fn(&WaitRecord) -> bool| {
            let waits = self.0.iter().filter(|wait| wanted(wait));
            waits.map(|wait| wait.waited_ms).collect::<Vec<_>>()
        };
        let same = like(&|wait| wait.class == class && wait.miners == miners);
        if same.len() >= ENOUGH {
            return usual(same);
        }
        let of_class = like(&|wait| wait.class == class);
        if of_class.len() >= ENOUGH {
            return usual(of_class);
        }
        usual(like(&|_| true))
    }
}

/// Percentiles by the nearest rank.
fn usual(mut waits: Vec<u64>) -> Option<UsualWait> {
    waits.sort_unstable();
    let ranked = |percent: usize| {
        let rank = (waits.len() * percent).div_ceil(100);
        waits.get(rank.saturating_sub(1)).copied()
    };
    Some(UsualWait {
        p50_ms: ranked(50)?,
        p90_ms: ranked(90)?,
        tasks: u32::try_from(waits.len()).unwrap_or(u32::MAX),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait(class: usize, miners: u32, waited_ms: u64) -> WaitRecord {
        WaitRecord {
            at: Timestamp::from_ms(waited_ms),
            task: TaskId::new([1; 16]),
            class: PriceClass::ALL[class],
            miners,
            waited_ms,
        }
    }

    #[test]
    fn an_answer_rests_on_what_is_most_alike() {
        let mut waits = Waits::default();
        let usual = |waits: &Waits| {
            waits
                .usual(PriceClass::ALL[0], 3)
                .map(|u| (u.p50_ms, u.p90_ms, u.tasks))
        };
        assert_eq!(usual(&waits), None);
        waits.matched(wait(1, 1, 70));
        assert_eq!(usual(&waits), Some((70, 70, 1)), "of all");
        (1..=5).for_each(|ms| waits.matched(wait(0, 1, ms)));
        assert_eq!(usual(&waits), Some((3, 5, 5)), "of the class");
        (1..=10).for_each(|ms| waits.matched(wait(0, 3, 100 * ms)));
        assert_eq!(usual(&waits), Some((500, 900, 10)), "of the same");
    }

    #[test]
    fn the_last_thousand_count() {
        let mut waits = Waits::default();
        (0..MAX_WAITS as u64 + 5).for_each(|ms| waits.matched(wait(0, 1, ms)));
        assert_eq!(waits.0.len(), MAX_WAITS);
        assert_eq!(waits.0[0].waited_ms, 5);
    }
}
