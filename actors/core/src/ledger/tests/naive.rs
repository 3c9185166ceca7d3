//! A naive ledger: balances as signed numbers, every rule written out plainly, nothing shared with the real one.

use std::collections::BTreeMap;

use super::small::{BOUNTY_NUMBER, FEES_NUMBER, FIRST_SYSTEM, FUND_NUMBER, GIVEN, RICH, VESTING};
use super::small::{Small, SmallTerms};
use super::*;

#[derive(Debug, Clone)]
struct NaiveHold {
    payer: u8,
    amount: i128,
    expires: u64,
    terms: SmallTerms,
    last: Option<u64>,
    /// Owner, node, amount, in order of first earning.
    earned: Vec<(u8, u8, i128)>,
}

/// Payer, payee, amount, reason, task, node.
pub type Paid = (u8, u8, i128, Reason, Option<u8>, Option<u8>);

#[derive(Debug, Clone)]
pub struct Naive {
    now: u64,
    free: BTreeMap<u8, i128>,
    holds: BTreeMap<u8, NaiveHold>,
    /// Until, owner, node; amount.
    locks: BTreeMap<(u64, u8, Option<u8>), i128>,
    /// Which key signs for whom, and which did.
    signs: BTreeMap<u8, u8>,
    /// With the account that they signed for.
    retired: Vec<(u8, u8)>,
    /// Account and node; as what, and when it ends.
    delegations: BTreeMap<(u8, u8), (Role, u64)>,
    /// Accounts that tokens ever came to.
    had_tokens: Vec<u8>,
    /// Accounts that have a record.
    known: Vec<u8>,
    paid: Vec<Paid>,
    /// Tasks whose holds ended in this group.
    ended: Vec<u8>,
}

type Done = Result<(), &'static str>;

fn check(truth: bool, code: &'static str) -> Done {
    if truth { Ok(()) } else { Err(code) }
}

fn is_system(number: u8) -> bool {
    number >= FIRST_SYSTEM
}

fn user(number: u8) -> Done {
    check(!is_system(number), "system_account")
}

fn network_fee(net: i128, ppm: u32) -> i128 {
    net * i128::from(ppm) / 1_000_000
}

/// The most that a hold with these terms can pay, however large.
pub fn most(terms: &SmallTerms) -> i128 {
    let items: i128 = terms.items.iter().map(|(_, fee)| i128::from(*fee)).sum();
    let net = i128::from(terms.work) + items + i128::from(terms.storage);
    net + network_fee(net, terms.ppm)
}

/// Base unit by base unit to whoever lacks most of an exact share.
fn divide(cost: i128, bytes: &[u64]) -> Vec<i128> {
    let total: i128 = bytes.iter().map(|b| i128::from(*b)).sum();
    let share = |b: &u64| cost * i128::from(*b) / total.max(1);
    let mut parts: Vec<i128> = bytes.iter().map(share).collect();
    while parts.iter().sum::<i128>() < cost && !parts.is_empty() {
        let lacks = |i: &usize| cost * i128::from(bytes[*i]) - parts[*i] * total;
        let neediest = (0..parts.len()).rev().max_by_key(lacks).unwrap();
        parts[neediest] += 1;
    }
    parts
}

impl Naive {
    pub fn begun() -> Self {
        let mut free: BTreeMap<u8, i128> = GIVEN.map(|(n, a)| (n, i128::from(a))).into();
        let given: i128 = free.values().sum();
        free.insert(RICH, i128::from(SUPPLY.base_units()) - given);
        let mut locks = BTreeMap::new();
        for part in 0..u64::from(VESTING.parts) {
            let until = NOW.as_ms() + VESTING.first_ms + part * VESTING.every_ms;
            locks.insert((until, 3, None), 20);
        }
        free.insert(3, 0);
        Self {
            now: NOW.as_ms(),
            known: GIVEN.into_iter().map(|(n, _)| n).chain([RICH]).collect(),
            free,
            locks,
            holds: BTreeMap::new(),
            signs: BTreeMap::new(),
            retired: Vec::new(),
            delegations: BTreeMap::new(),
            had_tokens: GIVEN.into_iter().map(|(n, _)| n).chain([RICH]).collect(),
            paid: Vec::new(),
            ended: Vec::new(),
        }
    }

    /// What the group pays, or the code of its refusal; then nothing has changed.
    pub fn apply(&mut self, ops: &[Small], now: Timestamp) -> Result<Vec<Paid>, &'static str> {
        let before = self.clone();
        self.now = now.as_ms();
        self.paid.clear();
        self.ended.clear();
        for op in ops {
            if let Err(code) = self.carry_out(op) {
                *self = before;
                return Err(code);
            }
        }
        Ok(self.paid.clone())
    }

    fn carry_out(&mut self, op: &Small) -> Done {
        match op {
            Small::Mint => Err("minted_twice"),
            Small::Faucet(to) => self.faucet(*to),
            Small::Send(from, to, amount) => self.send(*from, *to, (*amount).into()),
            Small::Charge(account, fee) => self.charge(*account, (*fee).into()),
            Small::Open(task, payer, cap, terms) => {
                let amount = cap.amount(most(terms)).into();
                self.open(*task, *payer, amount, terms)
            }
            Small::Earn(task, checkpoint, shares) => self.earn(*task, *checkpoint, shares),
            Small::Settle(task, used, stored, withheld) => {
                self.settle(*task, *used, stored, withheld)
            }
            Small::Forfeit(account, by) => self.forfeit(*account, *by),
            Small::Due => {
                self.due();
                Ok(())
            }
            Small::Rotate(account, key) => self.rotate(*account, *key),
            Small::Delegate(account, node, role, ms) => self.delegate(*account, *node, *role, *ms),
            Small::Revoke(account, node) => {
                let known = self.delegations.remove(&(*account, *node));
                check(known.is_some(), "not_delegated")
            }
        }
    }

    fn meet(&mut self, account: u8) {
        if !self.known.contains(&account) {
            self.known.push(account);
        }
    }

    fn pay(&mut self, mut paid: Paid) {
        paid.1 = self.heir(paid.1);
        let (payer, payee, amount, ..) = paid;
        if amount > 0 {
            *self.free.entry(payer).or_default() -= amount;
            *self.free.entry(payee).or_default() += amount;
            self.meet(payee);
            self.had_tokens.push(payee);
            self.paid.push(paid);
        }
    }

    fn has(&self, account: u8, amount: i128) -> bool {
        self.free.get(&account).copied().unwrap_or(0) >= amount
    }

    fn reachable(&self, account: u8) -> Done {
        user(account)?;
        check(self.heir(account) == account, "unreachable_account")
    }

    /// Whom an account's first key signs for, or did.
    fn heir(&self, account: u8) -> u8 {
        let signs = self.signs.iter().map(|(owner, key)| (*key, *owner));
        let mut given = signs.chain(self.retired.iter().copied());
        let heir = given.find(|(key, _)| *key == account);
        heir.map_or(account, |(_, owner)| owner)
    }

    fn faucet(&mut self, to: u8) -> Done {
        self.reachable(to)?;
        check(self.has(BOUNTY_NUMBER, 3), "faucet_empty")?;
        self.pay((BOUNTY_NUMBER, to, 3, Reason::Faucet, None, None));
        Ok(())
    }

    fn send(&mut self, from: u8, to: u8, amount: i128) -> Done {
        check(amount > 0, "zero_amount")?;
        check(amount >= 2, "dust_amount")?;
        user(from)?;
        self.reachable(to)?;
        check(from != to, "same_account")?;
        check(self.has(from, amount), "insufficient_funds")?;
        self.pay((from, to, amount, Reason::Send, None, None));
        Ok(())
    }

    fn charge(&mut self, account: u8, fee: i128) -> Done {
        if fee > 0 {
            user(account)?;
            check(self.has(account, fee), "insufficient_funds")?;
            let (network, fund) = (fee - fee / 10, fee / 10);
            let reason = Reason::TransactionFee;
            self.pay((account, FEES_NUMBER, network, reason, None, None));
            self.pay((account, FUND_NUMBER, fund, Reason::RewardFund, None, None));
        }
        Ok(())
    }

    fn open(&mut self, task: u8, payer: u8, amount: i128, terms: &SmallTerms) -> Done {
        check(amount > 0, "zero_amount")?;
        check(amount >= 2, "dust_amount")?;
        user(payer)?;
        let known = self.holds.contains_key(&task) || self.ended.contains(&task);
        check(!known, "hold_exists")?;
        check(terms.expires > 0, "terms_expired")?;
        terms.items.iter().try_for_each(|(owner, _)| user(*owner))?;
        check(most(terms) <= u64::MAX.into(), "amount_overflow")?;
        check(amount >= most(terms), "cap_too_low")?;
        check(self.has(payer, amount), "insufficient_funds")?;
        *self.free.entry(payer).or_default() -= amount;
        let hold = NaiveHold {
            payer,
            amount,
            expires: self.now + terms.expires,
            terms: terms.clone(),
            last: None,
            earned: Vec::new(),
        };
        self.holds.insert(task, hold);
        Ok(())
    }

    fn is_open(&self, task: u8) -> Done {
        let open = self.holds.get(&task).is_some_and(|h| h.expires > self.now);
        check(open, "hold_not_open")
    }

    fn earn(&mut self, task: u8, checkpoint: u64, shares: &[(u8, u8, u64)]) -> Done {
        self.is_open(task)?;
        let heirs: Vec<u8> = shares.iter().map(|(owner, ..)| self.heir(*owner)).collect();
        let hold = self.holds.get_mut(&task).unwrap();
        if hold.last.is_some_and(|last| checkpoint <= last) {
            return Ok(());
        }
        let wanted: i128 = shares.iter().map(|(_, _, n)| i128::from(*n)).sum();
        check(wanted <= u64::MAX.into(), "amount_overflow")?;
        let earned: i128 = hold.earned.iter().map(|(_, _, n)| n).sum();
        check(earned + wanted <= hold.terms.work.into(), "hold_exceeded")?;
        let inherited = shares.iter().zip(&heirs).filter(|((.., n), _)| *n > 0);
        for ((owner, by, amount), heir) in inherited.clone() {
            user(*owner)?;
            let amount = i128::from(*amount);
            match hold.earned.iter_mut().find(|e| (e.0, e.1) == (*heir, *by)) {
                Some(earning) => earning.2 += amount,
                None => hold.earned.push((*heir, *by, amount)),
            }
        }
        hold.last = Some(checkpoint);
        for (_, heir) in inherited {
            self.meet(*heir);
        }
        Ok(())
    }

    fn settle(
        &mut self,
        task: u8,
        used: bool,
        stored: &[(u8, u64)],
        withheld: &[(u8, u32)],
    ) -> Done {
        self.is_open(task)?;
        stored.iter().try_for_each(|(owner, _)| user(*owner))?;
        let allowed = withheld.iter().all(|(_, ppm)| *ppm <= 250_000);
        check(allowed, "withheld_too_much")?;
        let hold = self.close(task, used, stored);
        let until = (self.now + PERIOD_MS).div_ceil(36) * 36;
        for (owner, by, amount) in hold.earned {
            let ppm = withheld.iter().find(|(node, _)| *node == by);
            let kept = amount * i128::from(ppm.map_or(0, |(_, ppm)| *ppm)) / 1_000_000;
            if kept > 0 {
                *self.free.entry(owner).or_default() -= kept;
                *self.locks.entry((until, owner, Some(by))).or_default() += kept;
            }
        }
        Ok(())
    }

    fn close(&mut self, task: u8, used: bool, stored: &[(u8, u64)]) -> NaiveHold {
        let hold = self.holds.remove(&task).unwrap();
        self.ended.push(task);
        let payer = hold.payer;
        *self.free.entry(payer).or_default() += hold.amount;
        let before = self.paid.len();
        let of = Some(task);
        for (owner, by, amount) in &hold.earned {
            self.pay((payer, *owner, *amount, Reason::Work, of, Some(*by)));
        }
        for (owner, fee) in hold.terms.items.iter().filter(|_| used) {
            self.pay((payer, *owner, (*fee).into(), Reason::ItemFee, of, None));
        }
        let bytes: Vec<u64> = stored.iter().map(|(_, bytes)| *bytes).collect();
        // The ledger counts bytes up to 2^64: beyond that any price is above the most, or nothing.
        let total: i128 = bytes.iter().map(|b| i128::from(*b)).sum();
        let mib = (total.min(u64::MAX.into()) + (1 << 20) - 1) >> 20;
        let cost = (i128::from(hold.terms.per_mib) * mib).min(hold.terms.storage.into());
        for ((owner, _), part) in stored.iter().zip(divide(cost, &bytes)) {
            self.pay((payer, *owner, part, Reason::Storage, of, None));
        }
        let net: i128 = self.paid[before..].iter().map(|paid| paid.2).sum();
        let fee = network_fee(net, hold.terms.ppm);
        let (network, fund) = (fee - fee / 10, fee / 10);
        self.pay((payer, FEES_NUMBER, network, Reason::NetworkFee, of, None));
        self.pay((payer, FUND_NUMBER, fund, Reason::RewardFund, of, None));
        let rest = hold.amount - net - fee;
        self.pay((payer, payer, rest, Reason::Refund, of, None));
        hold
    }

    fn forfeit(&mut self, account: u8, by: u8) -> Done {
        user(account)?;
        let owner = self.heir(account);
        let mut taken = 0;
        for ((until, whose, node), amount) in self.locks.clone() {
            if whose == owner && node.is_some() && until > self.now {
                self.locks.remove(&(until, whose, node));
                taken += amount;
            }
        }
        *self.free.entry(owner).or_default() += taken;
        let reason = Reason::Forfeit;
        self.pay((owner, FUND_NUMBER, taken, reason, None, Some(by)));
        Ok(())
    }

    fn due(&mut self) {
        let now = self.now;
        for ((until, owner, node), amount) in self.locks.clone() {
            if until <= now {
                self.locks.remove(&(until, owner, node));
                *self.free.entry(owner).or_default() += amount;
            }
        }
        let mut expired: Vec<(u64, u8)> = self.holds.iter().map(|(t, h)| (h.expires, *t)).collect();
        expired.retain(|(expires, _)| *expires <= now);
        expired.sort_unstable();
        for (_, task) in expired {
            let used = !self.holds[&task].earned.is_empty();
            self.close(task, used, &[]);
        }
    }

    fn delegate(&mut self, account: u8, node: u8, role: Role, ms: u64) -> Done {
        user(account)?;
        check(role != Role::Client, "role_not_delegated")?;
        check(ms > 0, "delegation_expired")?;
        let is_known = self.delegations.contains_key(&(account, node));
        let few = self.nodes(account).len() < 8 || self.had_tokens.contains(&account);
        check(is_known || few, "too_many_nodes")?;
        self.delegations
            .insert((account, node), (role, self.now + ms));
        Ok(())
    }

    fn rotate(&mut self, account: u8, key: u8) -> Done {
        self.reachable(account)?;
        let signs = self.signs.values().any(|signs| *signs == key);
        check(!signs, "key_in_use")?;
        check(
            self.retired.iter().all(|(old, _)| *old != key),
            "key_retired",
        )?;
        let first_of = self.known.contains(&key);
        check(!first_of || self.signs.contains_key(&key), "key_in_use")?;
        check(!first_of, "key_retired")?;
        check(key != account && self.nodes(key).is_empty(), "key_in_use")?;
        self.meet(account);
        if let Some(old) = self.signs.insert(account, key) {
            self.retired.push((old, account));
        }
        Ok(())
    }

    /// Available, held, earning, locked.
    pub fn balance(&self, number: u8) -> [i128; 4] {
        let holds = self.holds.values();
        let own = holds.clone().filter(|h| h.payer == number);
        let earned = holds.flat_map(|h| &h.earned);
        let earned = earned.filter(|(owner, ..)| *owner == number);
        let locked = self
            .locks
            .iter()
            .filter(|((_, owner, _), _)| *owner == number);
        [
            self.free.get(&number).copied().unwrap_or(0),
            own.map(|h| h.amount).sum(),
            earned.map(|(_, _, n)| n).sum(),
            locked.map(|(_, n)| n).sum(),
        ]
    }

    pub fn next_due(&self) -> Option<u64> {
        let holds = self.holds.values().map(|h| h.expires);
        holds
            .chain(self.locks.keys().map(|(until, ..)| *until))
            .min()
    }

    /// The key that signs for an account, where that is not its first.
    pub fn signer(&self, number: u8) -> Option<u8> {
        self.signs.get(&number).copied()
    }

    /// Which nodes an account has, each with its delegation's end.
    pub fn nodes(&self, number: u8) -> Vec<(u8, Role, u64)> {
        let all = self.delegations.iter();
        let own = all.filter(|((account, _), _)| *account == number);
        own.map(|((_, node), (role, ends))| (*node, *role, *ends))
            .collect()
    }

    /// Open holds, locks.
    pub fn counts(&self) -> (usize, usize) {
        (self.holds.len(), self.locks.len())
    }
}
