//! Who may post a task now: how many of an account's tasks may be open at once, and how long it waits after taking tasks back.
//!
//! Miners that are asked open a socket, and those that are chosen stop their owners' programs and fetch data, before anything is
//! earned. So a task that its client cancels before its first verified checkpoint costs the client nothing and others something. A few
//! of these are anybody's mistakes; from then on each doubles the time until the account may post again. A task that gets as far as a
//! verified checkpoint ends the series: work was paid for.
//!
//! Owned by the matchmaker, in its memory: a restart forgives all, which no client can bring about. Nothing of it is
//! consensus.

use std::collections::BTreeMap;

use cryptomind_protocol::{AccountId, ErrorBody, ErrorClass, Timestamp};

/// The first wait, milliseconds; each further cancellation doubles it.
pub const FIRST_WAIT_MS: u64 = 1_000;
/// The longest wait, milliseconds.
pub const LONGEST_WAIT_MS: u64 = 3_600_000;
/// Whoever cancelled nothing for so long is forgiven, milliseconds.
pub const FORGIVEN_MS: u64 = 2 * LONGEST_WAIT_MS;

/// How much an account may post.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PostingRule {
    /// Tasks of one account that may be open at once.
    pub open_tasks: usize,
    /// Tasks in a row that it may cancel before their first verified checkpoint, without waiting.
    pub free_cancels: u32,
}

/// Why an account may not post now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PostingRefusal {
    /// It has as many open tasks as it may.
    #[error("you have {open} open tasks; {allowed} is the most")]
    TooManyOpen {
        /// How many.
        open: usize,
        /// How many it may have.
        allowed: usize,
    },
    /// It took back too many tasks.
    #[error(
        "you cancelled {cancels} tasks in a row before miners had earned anything; the next can be posted in {} s",
        wait_ms.div_ceil(1000)
    )]
    CancelledTooOften {
        /// How many in a row.
        cancels: u32,
        /// For how long it cannot post yet, milliseconds.
        wait_ms: u64,
    },
}

impl From<PostingRefusal> for ErrorBody {
    fn from(refusal: PostingRefusal) -> Self {
        let body = |code| Self::new(ErrorClass::Capacity, code, refusal);
        match refusal {
            PostingRefusal::TooManyOpen { .. } => body("too_many_open_tasks")
                .with_help("wait for one to end, or cancel one: see `cryptomind task ls`"),
            PostingRefusal::CancelledTooOften { wait_ms, .. } => body("cancelled_too_often")
                .with_help(
                    "`cryptomind task quote` says beforehand what a task costs and who can do it",
                )
                .with_retry_after_ms(wait_ms),
        }
    }
}

/// An account's cancellations in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Series {
    cancels: u32,
    last: Timestamp,
}

/// What accounts took back lately. There are never more than cancel within [`FORGIVEN_MS`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Postings(BTreeMap<AccountId, Series>);

impl Postings {
    /// Whether `account`, which has `open` open tasks, may post another.
    pub fn check(
        &self,
        rule: &PostingRule,
        account: &AccountId,
        open: usize,
        now: Timestamp,
    ) -> Result<(), PostingRefusal> {
        let allowed = rule.open_tasks;
        if open >= allowed {
            return Err(PostingRefusal::TooManyOpen { open, allowed });
        }
        let Some(series) = self.0.get(account) else {
            return Ok(());
        };
        let wait_ms = wait_after(rule, series.cancels);
        match wait_ms.saturating_sub(now.ms_since(series.last)) {
            0 => Ok(()),
            wait_ms => Err(PostingRefusal::CancelledTooOften {
                cancels: series.cancels,
                wait_ms,
            }),
        }
    }

    /// `account` cancelled a task of which nothing was verified yet.
    pub fn cancelled(&mut self, account: AccountId, now: Timestamp) {
        self.0
            .retain(|_, series| now.ms_since(series.last) < FORGIVEN_MS);
        let new = Series {
            cancels: 0,
            last: now,
        };
        let series = self.0.entry(account).or_insert(new);
        series.cancels = series.cancels.saturating_add(1);
        series.last = now;
    }

    /// A checkpoint of one of `account`'s tasks was verified.
    pub fn worked(&mut self, account: &AccountId) {
        self.0.remove(account);
    }

    /// The clock was set: nobody knows how long ago anything was.
    pub fn forgive_all(&mut self) {
        self.0.clear();
    }
}

fn wait_after(rule: &PostingRule, cancels: u32) -> u64 {
    let Some(beyond) = cancels.checked_sub(rule.free_cancels.saturating_add(1)) else {
        return 0;
    };
    let doubled = 1u64.checked_shl(beyond).unwrap_or(u64::MAX);
    FIRST_WAIT_MS.saturating_mul(doubled).min(LONGEST_WAIT_MS)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: PostingRule = PostingRule {
        open_tasks: 5,
        free_cancels: 3,
    };
    const ADA: AccountId = AccountId::new([1; 20]);
    const BOB: AccountId = AccountId::new([2; 20]);

    const fn at(ms: u64) -> Timestamp {
        Timestamp::from_ms(1_000_000 + ms)
    }

    fn waits(postings: &Postings, now: Timestamp) -> u64 {
        match postings.check(&RULE, &ADA, 0, now) {
            Ok(()) => 0,
            Err(PostingRefusal::CancelledTooOften { wait_ms, .. }) => wait_ms,
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn an_account_has_so_many_open_tasks_and_no_more() {
        let postings = Postings::default();
        assert_eq!(postings.check(&RULE, &ADA, 4, at(0)), Ok(()));
        let refusal = postings.check(&RULE, &ADA, 5, at(0)).unwrap_err();
        let body = ErrorBody::from(refusal);
        assert_eq!(body.code, "too_many_open_tasks");
        assert!(body.message.contains("5 open tasks"), "{body}");
    }

    #[test]
    fn whoever_cancels_again_and_again_waits_twice_as_long_each_time() {
        let mut postings = Postings::default();
        let waited: Vec<u64> = (0..20)
            .map(|_| {
                postings.cancelled(ADA, at(0));
                waits(&postings, at(0))
            })
            .collect();
        assert_eq!(waited[..6], [0, 0, 0, 1_000, 2_000, 4_000]);
        assert_eq!(waited[19], LONGEST_WAIT_MS);
        assert_eq!(postings.check(&RULE, &BOB, 0, at(0)), Ok(()));
        assert_eq!(waits(&postings, at(LONGEST_WAIT_MS - 1)), 1);
        assert_eq!(waits(&postings, at(LONGEST_WAIT_MS)), 0);
    }

    #[test]
    fn the_refusal_says_when_to_come_back_and_keeps_its_word() {
        let mut postings = Postings::default();
        (0..5).for_each(|_| postings.cancelled(ADA, at(0)));
        let refusal = postings.check(&RULE, &ADA, 0, at(500)).unwrap_err();
        let body = ErrorBody::from(refusal);
        assert_eq!(body.code, "cancelled_too_often");
        assert_eq!(body.retry_after_ms, Some(1_500));
        assert_eq!(waits(&postings, at(2_000)), 0);
    }

    #[test]
    fn verified_work_and_time_end_the_series() {
        let mut postings = Postings::default();
        (0..9).for_each(|_| postings.cancelled(ADA, at(0)));
        let mut worked = postings.clone();
        worked.worked(&ADA);
        worked.cancelled(ADA, at(1));
        assert_eq!(waits(&worked, at(1)), 0);
        postings.cancelled(BOB, at(FORGIVEN_MS));
        assert_eq!(postings.0.len(), 1, "ada's is forgotten");
    }

    /// However large the numbers are: a wait has an end, and a clock that went back makes none longer.
    #[test]
    fn no_wait_is_for_ever() {
        let mut postings = Postings::default();
        postings.cancelled(ADA, at(FORGIVEN_MS));
        postings.0.get_mut(&ADA).unwrap().cancels = u32::MAX;
        assert_eq!(waits(&postings, at(0)), LONGEST_WAIT_MS);
        postings.cancelled(ADA, at(0));
        assert_eq!(waits(&postings, at(LONGEST_WAIT_MS)), 0);
    }
}
