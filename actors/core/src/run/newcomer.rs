//! Newcomers: miners that take the place of lost members while the rest train on.
//!
//! Where a group that trains is smaller than its task asks for, free miners are asked, and whoever offers becomes a newcomer: it
//! fetches its data, takes the state from a member and follows it step by step, by [`cryptomind_protocol::follow`]. Once it is *level*, the
//! group pauses where a step ends, and it has a seat in the next attempt. So what a group stands still for is a word to the
//! coordinator and a closed ring, however large the state is.
//!
//! A newcomer earns nothing, and nobody waits for it but a moment where it said that it is level: who says so and is not costs the
//! group [`MAX_MISSES`] short pauses, and is turned away. It has no part in the
//! members' agreement, and its fingerprint counts from the step on at which it has its seat.

use cryptomind_protocol::node::Report;
use cryptomind_protocol::task::{Event, TaskState};
use cryptomind_protocol::{NodeId, Timestamp};
use serde::{Deserialize, Serialize};

use super::{Call, Effect, Pace, Run, SUSPECT_LIMIT_MS, Seat};
use crate::market::link::Party;
use crate::market::{self, Ability, Offer, Surroundings};
use crate::succession::Paused;

/// No newcomers are asked where less than one part in so many of the task is left: it would be done before they are level.
const LAST_PART: u64 = 10;
/// A newcomer that makes the group slower than it is may not make it so many times slower than it was promised to be.
const SLOWER: u64 = 2;
/// A newcomer that said so often that it is level and was not is turned away.
const MAX_MISSES: u32 = 2;
/// So many miners may be found to slow the group down: then no more are asked in this attempt.
const MAX_UNWANTED: usize = 32;

/// A miner that follows the group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Newcomer {
    /// Who, and where its ring socket listens.
    pub offer: Offer,
    /// Since when it follows the present attempt.
    pub since: Timestamp,
    /// Whether it has the state and keeps up.
    pub is_level: bool,
    /// How often it said so, and was not where the group went on from.
    #[serde(default)]
    pub misses: u32,
    /// Its answer to the present pause.
    pub paused: Option<Paused>,
}

impl Newcomer {
    pub(super) const fn node(&self) -> NodeId {
        self.offer.member.node
    }

    /// In another attempt than before.
    pub(super) const fn follow_anew(&mut self, now: Timestamp) {
        (self.is_level, self.paused, self.since) = (false, None, now);
    }
}

impl Run {
    /// How many miners could join the group as it is.
    pub(super) fn vacant(&self) -> usize {
        let trains = self.is_training() && self.state == TaskState::Running;
        let some_may = self.unwanted.len() < MAX_UNWANTED;
        match trains && self.is_worth_joining() && some_may && !self.gets_nowhere() {
            true => {
                (self.spec.miners as usize).saturating_sub(self.seats.len() + self.newcomers.len())
            }
            false => 0,
        }
    }

    /// Whether enough is left to be done.
    fn is_worth_joining(&self) -> bool {
        let total = self.terms.extent.steps;
        self.step.max(self.verified_step) < total - total / LAST_PART
    }

    pub(super) fn newcomer(&mut self, node: NodeId) -> Option<&mut Newcomer> {
        self.newcomers.iter_mut().find(|n| n.node() == node)
    }

    /// A miner offers to join a group that trains.
    pub(super) fn offers_to_join(
        &mut self,
        offer: Offer,
        around: &Surroundings,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        let node = offer.member.node;
        self.asked.retain(|asked| *asked != node);
        self.late.retain(|late| *late != node);
        if let Err(reason) = self.may_join(&offer, around) {
            self.note_unwanted(node);
            return effects.extend([Effect::Withdraw { node, reason }, Effect::AskFree]);
        }
        let name = offer.member.name.clone();
        self.newcomers.push(Newcomer {
            offer,
            since: now,
            is_level: false,
            misses: 0,
            paused: None,
        });
        // Members hear whom to let in; what else it says they know.
        let all = self.nodes().into_iter().chain([node]);
        effects.extend(all.map(|node| Effect::Match { only: Some(node) }));
        let level = false;
        self.tell(Event::Follows { node, name, level }, effects);
    }

    /// Whether the group is better off with it; or else why not.
    fn may_join(&self, offer: &Offer, around: &Surroundings) -> Result<(), String> {
        if let Some(gate) = market::gate(&self.wanted(), &self.candidate(offer)) {
            return Err(gate.to_string());
        }
        let seats = self.seats.iter();
        let known = seats.map(|s| (s.member.node, Ability::new(s.mflops, 0)));
        let followers = self.newcomers.iter().map(|n| (n.node(), n.offer.ability));
        let before: Vec<_> = known.chain(followers).collect();
        let with = before.iter().copied();
        let with: Vec<_> = with.chain([(offer.member.node, offer.ability)]).collect();
        let times = [&before, &with].map(|group| self.step_us(group, around));
        let ([Some(before), Some(with)], Some(most)) = (times, self.promised_step_us()) else {
            return Ok(());
        };
        match with > before && with > most.saturating_mul(SLOWER) {
            true => Err(format!(
                "the group is faster without it: {} ms a step, {} ms with it",
                before.div_ceil(1000),
                with.div_ceil(1000)
            )),
            false => Ok(()),
        }
    }

    /// What a step of these members takes, each computing as much as it is fast, as far as the market knows, microseconds; nothing
    /// where it does not know how fast they are.
    fn step_us(&self, members: &[(NodeId, Ability)], around: &Surroundings) -> Option<u64> {
        let parties = members
            .iter()
            .map(|(node, ability)| (Party::Node(*node), *ability));
        let parties: Vec<_> = parties.collect();
        let workload = self.wanted().workload;
        let expected = market::expect(&workload, &parties, &around.links, &around.stores)?;
        let is_known = members.iter().all(|(_, ability)| ability.mflops > 0);
        // 10⁶ operations a second are one a microsecond.
        let together = members
            .iter()
            .map(|(_, ability)| u128::from(ability.mflops));
        let each_step = workload.flops / u128::from(workload.steps.max(1));
        let computing = each_step / together.sum::<u128>().max(1);
        let computing = u64::try_from(computing).unwrap_or(u64::MAX);
        is_known.then(|| computing.saturating_add(expected.sync_us))
    }

    /// What a step was to take when the group was chosen, microseconds, where that was known.
    fn promised_step_us(&self) -> Option<u64> {
        let Pace {
            alone_us,
            exchange_us,
            ..
        } = self.pace;
        let computing = alone_us / u64::from(self.spec.miners.max(1));
        (alone_us > 0).then(|| computing.saturating_add(exchange_us))
    }

    pub(super) fn newcomer_reported(
        &mut self,
        node: NodeId,
        attempt: u32,
        report: Report,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        // Called, it may be there before the members are.
        let pauses = self.state == TaskState::Regrouping || self.called.is_some();
        let pauses = pauses && attempt == self.attempt + 1;
        match report {
            // In a pause it is too late: it was not asked, and would be waited for.
            Report::Level { step, .. }
                if attempt == self.attempt && self.state == TaskState::Running =>
            {
                self.is_level(node, step, effects);
                self.call_newcomers(now, effects);
            }
            Report::Paused {
                committed,
                prepared,
                ring_address,
            } if pauses => {
                if let Some(newcomer) = self.newcomer(node) {
                    newcomer.offer.ring_address = ring_address;
                    newcomer.paused = Some(Paused {
                        committed,
                        prepared,
                    });
                }
                if self.state == TaskState::Regrouping {
                    self.regroup_if_answered(now, effects);
                }
            }
            Report::Failed { reason, .. } => {
                self.strikes.push(node);
                self.turn_away(node, reason, effects);
            }
            Report::Leaving { reason } => self.turn_away(node, reason, effects),
            _ => {}
        }
    }

    fn is_level(&mut self, node: NodeId, step: u64, effects: &mut Vec<Effect>) {
        let most = self.terms.extent.steps;
        let Some(newcomer) = self.newcomer(node).filter(|n| !n.is_level && step <= most) else {
            return;
        };
        newcomer.is_level = true;
        let name = newcomer.offer.member.name.clone();
        let level = true;
        self.tell(Event::Follows { node, name, level }, effects);
    }

    /// Has the group pause where a step ends, for those that are level.
    pub(super) fn call_newcomers(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        if !self.is_worth_joining() {
            return self.turn_all_away("the task is nearly done", effects);
        }
        if self.may_call() && !self.level().is_empty() {
            self.call_all(Call::to_join(now, self.step), effects);
        }
    }

    /// The newcomers that are level.
    pub(super) fn level(&self) -> Vec<NodeId> {
        let level = self.newcomers.iter().filter(|n| n.is_level);
        level.map(|n| n.node()).collect()
    }

    /// Whether a pause waits for a newcomer's answer.
    pub(super) fn waits_for_newcomers(&self, waited_ms: u64) -> bool {
        let silent = |n: &Newcomer| n.is_level && n.paused.is_none();
        waited_ms < SUSPECT_LIMIT_MS && self.newcomers.iter().any(silent)
    }

    /// Gives seats to those that have the state from which the group goes on; the others follow anew.
    pub(super) fn seat_newcomers(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        let start = self.start_step;
        let reaches = |n: &Newcomer| n.is_level && n.paused.is_some_and(|at| at.reaches(start));
        let (seated, behind): (Vec<_>, Vec<_>) = std::mem::take(&mut self.newcomers)
            .into_iter()
            .partition(reaches);
        // A call that brought nobody in got the group nowhere.
        self.called = self.called.filter(|call| call.weighs || !seated.is_empty());
        let seats = seated.into_iter();
        self.seats
            .extend(seats.map(|newcomer| Seat::new(newcomer.offer, start, now)));
        self.newcomers = behind;
        for newcomer in &mut self.newcomers {
            newcomer.misses += u32::from(newcomer.is_level);
            newcomer.follow_anew(now);
        }
        let missed = self.newcomers.iter().filter(|n| n.misses >= MAX_MISSES);
        let missed: Vec<_> = missed.map(Newcomer::node).collect();
        for node in missed {
            self.strikes.push(node);
            let reason = "it was not where the group went on from, though it said so".to_owned();
            self.turn_away(node, reason, effects);
        }
    }

    /// Newcomers that were not level in time are in nobody's way, but in others' who would be.
    pub(super) fn look_for_late_newcomers(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        let limit = self.limits.prepare_ms;
        let is_late = |n: &&Newcomer| !n.is_level && now.ms_since(n.since) >= limit;
        let late: Vec<_> = self.newcomers.iter().filter(is_late).collect();
        let late: Vec<_> = late.into_iter().map(|n| n.node()).collect();
        for node in late {
            self.strikes.push(node);
            let reason = format!(
                "it did not keep up with the group within {} s",
                limit / 1000
            );
            self.turn_away(node, reason, effects);
        }
    }

    /// When the first newcomer is late.
    pub(super) fn newcomer_late_at(&self) -> Option<Timestamp> {
        let coming = self.newcomers.iter().filter(|n| !n.is_level);
        let since = coming.map(|n| n.since).min()?;
        Some(since.plus_ms(self.limits.prepare_ms))
    }

    /// A newcomer is not one any more: its members hear it, too.
    pub(super) fn turn_away(&mut self, node: NodeId, reason: String, effects: &mut Vec<Effect>) {
        let before = self.newcomers.len();
        self.newcomers.retain(|n| n.node() != node);
        if self.newcomers.len() == before {
            return;
        }
        effects.push(Effect::Stop { node, reason });
        if self.state == TaskState::Running {
            let members = self.nodes().into_iter();
            effects.extend(members.map(|node| Effect::Match { only: Some(node) }));
        }
        if self.vacant() > 0 {
            effects.push(Effect::AskFree);
        }
    }

    /// Whoever was asked to join and says nothing keeps no place.
    pub(super) fn look_for_silent(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        if self.silent_at().is_some_and(|at| now >= at) {
            // It may still answer, but is not asked again in this attempt.
            for node in std::mem::take(&mut self.asked) {
                self.note_unwanted(node);
                self.late.push(node);
            }
            if self.vacant() > 0 {
                effects.push(Effect::AskFree);
            }
        }
    }

    fn note_unwanted(&mut self, node: NodeId) {
        if !self.unwanted.contains(&node) {
            self.unwanted.push(node);
        }
    }

    /// Until when those that were asked to join have to answer.
    pub(super) fn silent_at(&self) -> Option<Timestamp> {
        let asks = self.state == TaskState::Running && !self.asked.is_empty();
        asks.then_some(self.window_ends)
    }

    /// The group is no more, or needs nobody.
    pub(super) fn turn_all_away(&mut self, reason: &str, effects: &mut Vec<Effect>) {
        for newcomer in std::mem::take(&mut self.newcomers) {
            let (node, reason) = (newcomer.node(), reason.to_owned());
            effects.push(Effect::Stop { node, reason });
        }
    }
}
