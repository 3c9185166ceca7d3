//! How the members of an attempt form the next one while the coordinator is away.
//!
//! **Owns**: one member's part in the agreement on what follows attempt n: where it stands, what it promised and accepted,
//! its own ballot. **Talked to by**: [`crate::member`], which carries messages to the other members and time to this.
//!
//! It is a single-decree Paxos (Lamport, 2001). The acceptors are exactly the members of attempt n; the value is the
//! [`Successor`]: members by rank, their ring addresses, the step they go on from. A promise says where its member stands, so a
//! proposer goes on from the furthest step that a majority of them can have, and names only members that promised. Of members that
//! say the truth it is the coordinator's own rule, [`agreed_step`]; one that boasts is left behind.
//!
//! | state | waits for | timer | when it comes | when nobody answers |
//! |---|---|---|---|---|
//! | at rest | its turn to call a ballot, by rank | [`STAGGER_MS`] | its ballot | – |
//! | gathering | promises of all | [`GATHER_MS`] for who was found silent, [`SILENCE_LIMIT_MS`] for others; [`BUSY_LIMIT_MS`] for who says that it comes | it proposes | with a strict majority it proposes, without one it backs off |
//! | proposing | votes of a strict majority | [`BALLOT_LIMIT_MS`] | decided | it backs off |
//! | backing off | another's ballot | twice as long each time, [`MAX_BACKOFF_MS`] at most | it answers that | the next ballot; the member ends it all, see [`crate::member`] |
//! | deferring | the coordinator | the member's, see [`crate::member`] | its order | it takes part |
//!
//! **Invariants**: at most one successor of an attempt is ever decided, whatever is lost, late or told twice. A successor has a strict
//! majority of the attempt's members; exactly half never goes on by itself. Where a member stands does not change from its first promise
//! on. Whoever hears the coordinator neither promises nor votes; its orders bind whoever voted, too.
//! A member that lost this state has lost the run's state with it, and must not take part again.
//!
//! **Is not**: a failure detector (the ring's links are), nor the last word: [`crate::run`] may have granted another attempt.

use std::collections::{BTreeMap, BTreeSet};

use cryptomind_protocol::address::is_host_port;
use cryptomind_protocol::{GenesisHash, NodeId, SecretKey, Signed, TaskId, Timestamp};

pub use cryptomind_protocol::succession::{
    Ballot, Decision, Message, Paused, Standing, Successor, Vote,
};

use crate::dice::Dice;

mod ballot;
mod proof;

use ballot::Own;
pub use proof::{Proof, is_of};

/// How long a ballot waits for members that were found silent: two sendings. With two round trips it fits in half a second.
pub const GATHER_MS: u64 = 2 * RESEND_MS;
/// How long it waits for members that say nothing, of whom nobody has said so.
pub const SILENCE_LIMIT_MS: u64 = 1_000;
/// How long a ballot waits for members that are there and finish what they compute.
pub const BUSY_LIMIT_MS: u64 = 5_000;
/// A ballot says again what it says this often, so that others see that its caller lives.
pub const RESEND_MS: u64 = 50;
/// A rank waits this much longer than the one before it, lest ballots meet.
pub const STAGGER_MS: u64 = 60;
/// What a ballot without an answer gets before it is given up.
pub const BALLOT_LIMIT_MS: u64 = 400;
/// How long nobody is asked again where the coordinator decides, or only it can.
pub const DEFER_MS: u64 = 1_000;
/// The longest pause between two ballots of a member, but for as much again by chance.
pub const MAX_BACKOFF_MS: u64 = 1_600;
/// The highest round of a ballot: no honest member comes near it, and a higher one binds nobody.
const MAX_ROUND: u32 = 1 << 30;
/// The first one.
const BACKOFF_MS: u64 = 100;

/// The step that members go on from: the furthest that one of them committed, for then all have prepared it. Nothing
/// where one has not.
pub fn agreed_step(standings: impl Iterator<Item = Paused> + Clone) -> Option<u64> {
    let furthest = standings.clone().map(|p| p.committed).max()?;
    standings
        .into_iter()
        .all(|p| p.reaches(furthest))
        .then_some(furthest)
}

/// The coordinator, as a member sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coordinator {
    /// There is no connection, or it leaves a broken ring unanswered: the members decide.
    Away,
    /// There is a connection, and its word may come.
    Awaited,
    /// It has called the next attempt.
    Decides,
}

/// Who signs a member's votes, and for which network.
#[derive(Debug, Clone)]
pub struct Voter {
    /// The node's key.
    pub key: SecretKey,
    /// The network.
    pub network: GenesisHash,
}

impl Voter {
    /// Whose votes these are.
    pub fn node(&self) -> NodeId {
        NodeId::of_key(&self.key.public())
    }
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Tell another member.
    Send {
        /// Whom.
        to: NodeId,
        /// What.
        message: Message,
    },
    /// Others leave the attempt: come to rest, and say so with [`Succession::rest`].
    Rest,
    /// The next attempt is there. Once.
    Decided(Decision),
}

/// One member's part in it.
#[derive(Debug, Clone)]
pub struct Succession {
    voter: Voter,
    task: TaskId,
    attempt: u32,
    members: Vec<NodeId>,
    rank: usize,
    dice: Dice,
    standing: Option<Standing>,
    coordinator: Coordinator,
    /// A ballot that waits for this member's word, and whose.
    asked: Option<(Ballot, NodeId)>,
    promised: Ballot,
    accepted: Option<(Ballot, Successor)>,
    /// The highest round heard of.
    round: u32,
    own: Option<Own>,
    /// When to call the next ballot, while none is under way.
    next: Option<Timestamp>,
    tries: u32,
    decision: Option<Decision>,
}

impl Succession {
    /// The part of the member of this rank, who is `voter`. `seed` spreads its pauses; each member has another.
    pub fn new(
        voter: Voter,
        (task, attempt): (TaskId, u32),
        members: Vec<NodeId>,
        rank: usize,
        seed: u64,
    ) -> Self {
        Self {
            voter,
            task,
            attempt,
            members,
            rank,
            dice: Dice::new(seed),
            standing: None,
            coordinator: Coordinator::Awaited,
            asked: None,
            promised: Ballot::default(),
            accepted: None,
            round: 0,
            own: None,
            next: None,
            tries: 0,
            decision: None,
        }
    }

    /// The attempt that is left.
    pub const fn attempt(&self) -> u32 {
        self.attempt
    }

    /// What was decided.
    pub const fn decision(&self) -> Option<&Decision> {
        self.decision.as_ref()
    }

    /// This member has come to rest. Whoever it suspects is not expected to call a ballot.
    pub fn rest(&mut self, standing: Standing, now: Timestamp) -> Vec<Effect> {
        let mut effects = Vec::new();
        if self.standing.is_none() {
            self.standing = Some(standing);
            self.answer_who_waits(now, &mut effects);
            self.take_turn(now);
        }
        effects
    }

    /// How this member sees the coordinator from now on. Only where it is away does it take part.
    pub fn see(&mut self, coordinator: Coordinator, now: Timestamp) -> Vec<Effect> {
        let mut effects = Vec::new();
        if self.coordinator != coordinator {
            self.coordinator = coordinator;
            (self.own, self.next) = (None, None);
            self.answer_who_waits(now, &mut effects);
            self.take_turn(now);
        }
        effects
    }

    /// Takes another member's word.
    pub fn hear(&mut self, from: NodeId, message: Message, now: Timestamp) -> Vec<Effect> {
        let mut effects = Vec::new();
        if self.members.contains(&from) {
            self.take(from, message, now, &mut effects);
        }
        effects
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Timestamp) -> Vec<Effect> {
        let mut effects = Vec::new();
        if self.own.is_some() {
            self.tend(now, &mut effects);
        } else if self.next.is_some_and(|at| now >= at) {
            self.call(now, &mut effects);
        }
        effects
    }

    /// When this wants a [`Succession::tick`] next.
    pub fn next_timer(&self) -> Option<Timestamp> {
        match &self.own {
            Some(own) => Some(own.next_timer()),
            None => self.next,
        }
    }

    fn take(&mut self, from: NodeId, message: Message, now: Timestamp, effects: &mut Vec<Effect>) {
        match message {
            Message::Prepare { ballot } | Message::Propose { ballot, .. }
                if !self.may_call(from, ballot) => {}
            Message::Prepare { ballot } => self.prepare(from, ballot, now, effects),
            Message::Propose { ballot, successor } => {
                self.propose(from, (ballot, successor), now, effects);
            }
            Message::Decided(decision) => {
                let is_next = decision.attempt == self.attempt + 1;
                let proven = || Proof::of(&decision, &self.voter.network);
                if is_next && proven().is_some_and(|p| p.follows(self.task, &self.members)) {
                    self.decided(decision, effects);
                }
            }
            answer => self.answered(from, answer, now, effects),
        }
    }

    /// Whether this is a ballot of the member that calls it, and one that can be.
    fn may_call(&self, from: NodeId, ballot: Ballot) -> bool {
        let caller = self.members.get(ballot.rank as usize);
        caller == Some(&from) && ballot.round <= MAX_ROUND
    }

    fn prepare(&mut self, from: NodeId, ballot: Ballot, now: Timestamp, effects: &mut Vec<Effect>) {
        if !self.admits(from, ballot, now, effects) {
            return;
        }
        let Some(standing) = self.standing.clone() else {
            self.asked = Some((ballot, from));
            effects.push(Effect::Rest);
            return self.send(from, Message::Coming { ballot }, now, effects);
        };
        let accepted = self.accepted.clone();
        let promise = Message::Promise {
            ballot,
            standing,
            accepted,
        };
        self.send(from, promise, now, effects);
    }

    fn propose(
        &mut self,
        from: NodeId,
        (ballot, successor): (Ballot, Successor),
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        if !self.may_follow(&successor) || !self.admits(from, ballot, now, effects) {
            return;
        }
        let vote = Vote {
            version: 1,
            task: self.task,
            attempt: self.attempt,
            ballot,
            successor: successor.digest(),
        };
        self.accepted = Some((ballot, successor));
        let signed = Signed::sign(&vote, &self.voter.network, &self.voter.key);
        self.send(from, Message::Accepted(signed), now, effects);
    }

    /// Whether others could join this attempt; and this member, where it is named, as what it said of itself.
    fn may_follow(&self, successor: &Successor) -> bool {
        let Some(standing) = &self.standing else {
            return false;
        };
        let own = self.members[self.rank];
        let named = successor.members.iter().zip(&successor.ring_addresses);
        let mut named = named.filter(|(node, _)| **node == own);
        self.is_possible(successor)
            && named.all(|(_, address)| {
                *address == standing.ring_address && standing.at.reaches(successor.start_step)
            })
    }

    /// Whether others could join this attempt.
    fn is_possible(&self, successor: &Successor) -> bool {
        is_of(successor, &self.members) && successor.ring_addresses.iter().all(|a| is_host_port(a))
    }

    /// Whether a ballot binds this member from now on; if not, its caller hears why.
    fn admits(
        &mut self,
        from: NodeId,
        ballot: Ballot,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) -> bool {
        let promised = self.promised;
        let refusal = match &self.decision {
            Some(decision) => Some(Message::Decided(decision.clone())),
            None if self.coordinator == Coordinator::Decides => Some(Message::Deferred { ballot }),
            None if self.coordinator == Coordinator::Awaited => {
                let before = self.asked.map(|(before, _)| before);
                self.asked = self.asked.filter(|_| before > Some(ballot));
                self.asked.get_or_insert((ballot, from));
                Some(Message::Coming { ballot })
            }
            None if ballot < promised => Some(Message::Refused { ballot, promised }),
            None => None,
        };
        if let Some(refusal) = refusal {
            self.send(from, refusal, now, effects);
            return false;
        }
        self.promised = ballot;
        self.round = self.round.max(ballot.round);
        if ballot.rank as usize != self.rank {
            // The caller has time to end it; where it does not, this member calls one.
            self.own = None;
            let patience = BALLOT_LIMIT_MS / 2 + self.rank as u64 * STAGGER_MS;
            self.next = Some(now.plus_ms(patience + self.dice.below(STAGGER_MS)));
        }
        true
    }

    /// A ballot was called before this member came to rest, or before it gave the coordinator up.
    fn answer_who_waits(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        if let Some((ballot, caller)) = self.asked.take() {
            self.prepare(caller, ballot, now, effects);
        }
    }

    fn take_turn(&mut self, now: Timestamp) {
        let is_open = self.decision.is_none() && self.next.is_none();
        let Some(standing) = self.standing.as_ref().filter(|_| is_open) else {
            return;
        };
        if self.coordinator == Coordinator::Away {
            let before = self.members[..self.rank].iter();
            let turn = before.filter(|node| Some(**node) != standing.suspect);
            self.next = Some(now.plus_ms(turn.count() as u64 * STAGGER_MS));
        }
    }

    fn back_off(&mut self, least_ms: u64, now: Timestamp) {
        self.own = None;
        let pause = (BACKOFF_MS << self.tries.min(8)).clamp(least_ms, MAX_BACKOFF_MS);
        self.tries += 1;
        self.next = Some(now.plus_ms(pause + self.dice.below(pause)));
    }

    fn decided(&mut self, decision: Decision, effects: &mut Vec<Effect>) {
        if self.decision.is_none() {
            (self.own, self.next) = (None, None);
            self.decision = Some(decision.clone());
            effects.push(Effect::Decided(decision));
        }
    }

    fn send(&mut self, to: NodeId, message: Message, now: Timestamp, effects: &mut Vec<Effect>) {
        if to == self.members[self.rank] {
            self.take(to, message, now, effects);
        } else {
            effects.push(Effect::Send { to, message });
        }
    }

    const fn is_majority(&self, count: usize) -> bool {
        count * 2 > self.members.len()
    }
}

#[cfg(test)]
mod tests;
