//! What acknowledged transactions say, and whether the coordinator says the same.
//!
//! Written by the run from the clients' own records, never from what the ledger tells. After each kill every
//! account's balances must be exactly these, and its history must hold each acknowledged movement once and nothing
//! else. The amounts of a payer are all different, so a payment is known by payer and amount.

use std::collections::{BTreeMap, HashSet};

use cryptomind_protocol::api::{AccountView, MAX_ROWS, TransferView};
use cryptomind_protocol::task::Reason;
use cryptomind_protocol::{AccountId, Amount, ReceiptId, TaskId};

/// What an acknowledged transaction did to money.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Tokens moved.
    Moved {
        /// From whom.
        from: AccountId,
        /// To whom.
        to: AccountId,
        /// How much.
        amount: Amount,
        /// What for.
        reason: Reason,
    },
    /// A task's cap went into a hold.
    Held {
        /// Whose.
        account: AccountId,
        /// How much.
        amount: Amount,
    },
    /// A task ended before anybody took it, and its hold came back.
    Returned {
        /// Whose.
        account: AccountId,
        /// The task.
        task: TaskId,
        /// How much.
        amount: Amount,
    },
}

/// A row of a history, as far as it can be known beforehand.
type Row = (AccountId, AccountId, Amount, Reason, Option<TaskId>);

fn row(transfer: &TransferView) -> Row {
    let t = transfer;
    (t.payer, t.payee, t.amount, t.reason, t.task)
}

/// One account.
#[derive(Default)]
struct Page {
    /// Base units. Below zero only while effects are being written down, in whatever order.
    available: i128,
    held: i128,
    /// Rows that the history must show and has not shown yet; below zero, what it showed too often.
    due: BTreeMap<Row, i64>,
    seen: HashSet<(ReceiptId, u32)>,
}

/// All accounts of the run.
pub struct Books(BTreeMap<AccountId, Page>);

/// How the coordinator's word differs from the books.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Differences {
    /// Acknowledged movements that are missing, with how often. Payer and payee see the same one.
    lost: BTreeMap<Row, u64>,
    /// Movements that nobody asked for, or that are there more than once.
    doubled: BTreeMap<Row, u64>,
    /// Rows that a history showed before and shows no more.
    gone: u64,
    /// What else differs.
    others: Vec<String>,
}

impl Differences {
    /// Adds those of another account.
    pub fn add(&mut self, other: Self) {
        let most = |mine: &mut BTreeMap<Row, u64>, theirs: BTreeMap<Row, u64>| {
            for (row, count) in theirs {
                let mine = mine.entry(row).or_default();
                *mine = count.max(*mine);
            }
        };
        most(&mut self.lost, other.lost);
        most(&mut self.doubled, other.doubled);
        self.gone += other.gone;
        self.others.extend(other.others);
    }

    /// Notes what no row shows.
    pub fn note(&mut self, words: String) {
        self.others.push(words);
    }

    /// Acknowledged movements that are missing.
    pub fn lost(&self) -> u64 {
        self.lost.values().sum::<u64>() + self.gone
    }

    /// Movements that nobody asked for, or that are there more than once.
    pub fn doubled(&self) -> u64 {
        self.doubled.values().sum()
    }

    /// All of it in words, the sums first; empty where nothing differs.
    pub fn words(&self) -> Vec<String> {
        let told = |what: &'static str| {
            move |(row, count): (&Row, &u64)| {
                let (payer, payee, amount, reason, _) = row;
                format!("{what}: {amount} from {payer} to {payee} ({reason}), {count} times")
            }
        };
        let lost = self.lost.iter().map(told("acknowledged and not there"));
        let doubled = self.doubled.iter().map(told("there without a cause"));
        let gone = (self.gone > 0).then(|| format!("{} rows of histories have gone", self.gone));
        let words = self.others.iter().cloned().chain(gone);
        words.chain(lost).chain(doubled).collect()
    }
}

fn units(amount: Amount) -> i128 {
    amount.base_units().into()
}

impl Books {
    /// Accounts without a token.
    pub fn new(accounts: impl IntoIterator<Item = AccountId>) -> Self {
        Self(accounts.into_iter().map(|a| (a, Page::default())).collect())
    }

    /// Writes down what was acknowledged.
    pub fn record(&mut self, effect: Effect) {
        match effect {
            Effect::Moved {
                from,
                to,
                amount,
                reason,
            } => {
                let row = (from, to, amount, reason, None);
                self.post(from, -units(amount), 0, Some(row));
                self.post(to, units(amount), 0, Some(row));
            }
            Effect::Held { account, amount } => {
                self.post(account, -units(amount), units(amount), None);
            }
            Effect::Returned {
                account,
                task,
                amount,
            } => {
                let row = (account, account, amount, Reason::Refund, Some(task));
                self.post(account, units(amount), -units(amount), Some(row));
            }
        }
    }

    /// Accounts that are not of the run, such as the bounty account, have no page.
    fn post(&mut self, account: AccountId, available: i128, held: i128, row: Option<Row>) {
        let Some(page) = self.0.get_mut(&account) else {
            return;
        };
        page.available += available;
        page.held += held;
        if let Some(row) = row {
            *page.due.entry(row).or_default() += 1;
        }
    }

    /// What an account has free, by these books.
    pub fn available(&self, account: &AccountId) -> Amount {
        let units = self.0.get(account).map_or(0, |page| page.available);
        Amount::from_base_units(u64::try_from(units).unwrap_or(0))
    }

    /// Holds an account's balances and the newest rows of its history against the books. At most `MAX_ROWS`
    /// movements may have been recorded for it since the last time.
    pub fn compare(&mut self, view: &AccountView, history: &[TransferView]) -> Differences {
        let mut found = Differences::default();
        let Some(page) = self.0.get_mut(&view.account) else {
            found.note(format!("{} is another account", view.account));
            return found;
        };
        page.see(history, &mut found);
        page.weigh(view, &mut found);
        found
    }
}

impl Page {
    fn see(&mut self, history: &[TransferView], found: &mut Differences) {
        for transfer in history {
            if self.seen.insert((transfer.receipt, transfer.number)) {
                *self.due.entry(row(transfer)).or_default() -= 1;
            }
        }
        self.due.retain(|_, count| *count != 0);
        for (row, count) in &self.due {
            let found = match count {
                1.. => &mut found.lost,
                _ => &mut found.doubled,
            };
            found.insert(*row, count.unsigned_abs());
        }
        // What was there at an earlier look must still be.
        let expected = self.seen.len().min(MAX_ROWS as usize);
        found.gone += expected.saturating_sub(history.len()) as u64;
    }

    fn weigh(&self, view: &AccountView, found: &mut Differences) {
        let said = (units(view.available), units(view.held), units(view.earning));
        let known = (self.available, self.held, 0);
        if said != known {
            found.note(format!(
                "{} has (free, held, earning) {said:?} base units, its acknowledged transactions say {known:?}",
                view.account
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cryptomind_protocol::Timestamp;

    const ANN: AccountId = AccountId::new([1; 20]);
    const BEN: AccountId = AccountId::new([2; 20]);

    fn amount(units: u64) -> Amount {
        Amount::from_base_units(units)
    }

    fn sent(units: u64) -> Effect {
        Effect::Moved {
            from: ANN,
            to: BEN,
            amount: amount(units),
            reason: Reason::Send,
        }
    }

    fn view(available: u64, held: u64) -> AccountView {
        AccountView {
            account: BEN,
            nickname: None,
            available: amount(available),
            held: amount(held),
            earning: Amount::ZERO,
            locked: Amount::ZERO,
            unlocks: None,
        }
    }

    fn seen(number: u8, units: u64) -> TransferView {
        TransferView {
            receipt: ReceiptId::at(number.into(), 0),
            number: 0,
            at: Timestamp::from_ms(1),
            payer: ANN,
            payer_name: "ann".into(),
            payee: BEN,
            payee_name: "ben".into(),
            amount: amount(units),
            reason: Reason::Send,
            task: None,
        }
    }

    /// Ben was sent 5 and 7.
    fn books() -> Books {
        let mut books = Books::new([ANN, BEN]);
        [5, 7]
            .into_iter()
            .for_each(|units| books.record(sent(units)));
        books
    }

    fn counts(found: &Differences) -> (u64, u64, usize) {
        (found.lost(), found.doubled(), found.words().len())
    }

    #[test]
    fn what_is_there_once_is_right_now_and_later() {
        let mut books = books();
        let rows = [seen(2, 7), seen(1, 5)];
        let nothing = Differences::default();
        assert_eq!(books.compare(&view(12, 0), &rows), nothing);
        assert_eq!(books.compare(&view(12, 0), &rows), nothing);
        assert_eq!(books.available(&BEN), amount(12));
    }

    #[test]
    fn a_lost_a_doubled_and_an_unasked_movement_are_found() {
        let found = books().compare(&view(5, 0), &[seen(1, 5)]);
        assert_eq!(counts(&found), (1, 0, 2));
        let found = books().compare(&view(19, 0), &[seen(3, 7), seen(2, 7), seen(1, 5)]);
        assert_eq!(counts(&found), (0, 1, 2));
        let found = books().compare(&view(13, 0), &[seen(3, 1), seen(2, 7), seen(1, 5)]);
        assert_eq!(counts(&found), (0, 1, 2));
    }

    #[test]
    fn a_movement_that_goes_later_or_comes_twice_later_is_found() {
        let mut books = books();
        books.compare(&view(12, 0), &[seen(2, 7), seen(1, 5)]);
        let found = books.compare(&view(12, 0), &[seen(2, 7)]);
        assert_eq!(counts(&found), (1, 0, 1));
        let found = books.compare(&view(12, 0), &[seen(3, 5), seen(2, 7), seen(1, 5)]);
        assert_eq!(counts(&found), (0, 1, 1));
    }

    #[test]
    fn payer_and_payee_miss_one_and_the_same_movement() {
        let mut books = Books::new([ANN, BEN]);
        books.record(sent(5));
        let ann = AccountView {
            account: ANN,
            ..view(0, 0)
        };
        let mut found = books.compare(&view(5, 0), &[]);
        found.add(books.compare(&ann, &[]));
        assert_eq!(counts(&found), (1, 0, 2));
    }

    #[test]
    fn a_hold_comes_back_once() {
        let mut books = books();
        let rows = [seen(2, 7), seen(1, 5)];
        let (account, amount) = (BEN, amount(4));
        books.record(Effect::Held { account, amount });
        assert_eq!(books.compare(&view(8, 4), &rows), Differences::default());
        assert_eq!(counts(&books.compare(&view(12, 4), &rows)), (0, 0, 1));
        let task = TaskId::new([9; 16]);
        books.record(Effect::Returned {
            account,
            task,
            amount,
        });
        let refund = TransferView {
            payer: BEN,
            reason: Reason::Refund,
            task: Some(task),
            ..seen(3, 4)
        };
        let [a, b] = rows;
        let rows = [refund, a, b];
        assert_eq!(books.compare(&view(12, 0), &rows), Differences::default());
    }
}
